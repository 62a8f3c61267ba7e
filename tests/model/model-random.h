/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A sequence of numbers that is the same for the same seed, on every machine. */
typedef struct
{
  guint64 state;
} ModelRandom;

void model_random_init (ModelRandom *self, guint64 seed);
guint64 model_random_next (ModelRandom *self);
guint model_random_below (ModelRandom *self, guint limit);
gboolean model_random_chance (ModelRandom *self, guint percent);

/* One of the numbers of an array. */
#define model_random_pick(self, array) ((array)[model_random_below ((self), G_N_ELEMENTS (array))])

G_END_DECLS
