/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "util.h"

G_BEGIN_DECLS

/* The functions of a source. */
typedef enum
{
  UTIL_IN_PREPARE,
  UTIL_IN_CHECK,
  UTIL_IN_DISPATCH,
  UTIL_N_MOMENTS,
} UtilMoment;

#define UTIL_MAX_DEPTH 2

/* A source of a loop that calls @func once, in one of its own functions, while the context is
 * iterated so many times within itself. */
typedef struct
{
  BgLoop *loop;
  UtilMoment moment;
  guint depth; /* at most UTIL_MAX_DEPTH */
  void (*func) (gpointer data);
  gpointer data;

  UtilLatch happened;

  /* the loop's thread only */
  gboolean armed;
  guint n_nested;
  GMainLoop *nested[UTIL_MAX_DEPTH];
} UtilMeddler;

/* Attaches the source to the loop and waits until @func has been called. */
void util_meddler_run (UtilMeddler *self, int priority);

/* On the loop's thread: has the iterations within each other return. */
void util_meddler_quit (UtilMeddler *self);

/* When the loop has gone. */
void util_meddler_clear (UtilMeddler *self);

G_END_DECLS
