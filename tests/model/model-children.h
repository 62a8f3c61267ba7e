/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "model-scenario.h"

G_BEGIN_DECLS

#define MODEL_LIMIT_SECONDS 30

/* How to run scenarios: in child processes of one that has no threads. */
typedef struct
{
  const ModelFilter *filter;
  guint64 first;
  guint n_seeds;
  guint n_jobs;
  guint limit_seconds; /* until a scenario is said to hang */
  gboolean tap;
  gboolean verbose;
  guint max_failures; /* then no more are begun */
} ModelChildren;

int model_children_run (const ModelChildren *self);
int model_children_run_here (const ModelChildren *self);
int model_children_replay (const ModelChildren *self, guint64 seed, guint times);
gboolean model_children_try (const ModelChildren *self,
                             const ModelFilter *filter,
                             guint64 seed,
                             guint times,
                             gboolean quiet);
int model_shrink (const ModelChildren *children, guint64 seed);

G_END_DECLS
