/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util-meddler.h"

typedef struct
{
  GSource source;
  UtilMeddler *meddler;
} MeddlerSource;

static UtilMeddler *
get_meddler (GSource *source)
{
  return ((MeddlerSource *) source)->meddler;
}

static void
meddle (UtilMeddler *self, UtilMoment moment)
{
  if (!self->armed || self->moment != moment)
    return;

  self->armed = FALSE;
  self->func (self->data);
  util_latch_count_down (&self->happened);
}

static gboolean
meddler_prepare (GSource *source, int *timeout_msec)
{
  UtilMeddler *self = get_meddler (source);

  *timeout_msec = self->armed && self->moment == UTIL_IN_CHECK ? 0 : -1;
  meddle (self, UTIL_IN_PREPARE);
  return self->armed && self->moment == UTIL_IN_DISPATCH;
}

static gboolean
meddler_check (GSource *source)
{
  meddle (get_meddler (source), UTIL_IN_CHECK);
  return FALSE;
}

static gboolean
meddler_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  meddle (get_meddler (source), UTIL_IN_DISPATCH);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs meddler_funcs = { meddler_prepare, meddler_check, meddler_dispatch, NULL };

static void
iterate_cb (gpointer user_data)
{
  UtilMeddler *self = user_data;
  GMainLoop *nested;

  if (self->n_nested == self->depth)
    {
      self->armed = TRUE;
      return;
    }

  nested = g_main_loop_new (bg_loop_get_context (self->loop), FALSE);
  self->nested[self->n_nested++] = nested;
  g_assert_true (bg_loop_post (self->loop, iterate_cb, self, NULL));
  g_main_loop_run (nested);
  g_main_loop_unref (nested);
}

void
util_meddler_run (UtilMeddler *self, int priority)
{
  g_autoptr (GSource) source = g_source_new (&meddler_funcs, sizeof (MeddlerSource));

  g_assert_cmpuint (self->depth, <=, UTIL_MAX_DEPTH);
  util_latch_init (&self->happened, 1);
  ((MeddlerSource *) source)->meddler = self;
  g_source_set_priority (source, priority);
  g_source_set_can_recurse (source, TRUE);
  g_assert_true (bg_loop_attach (self->loop, source));

  g_assert_true (bg_loop_post (self->loop, iterate_cb, self, NULL));
  util_latch_wait (&self->happened);
}

void
util_meddler_quit (UtilMeddler *self)
{
  for (guint i = 0; i < self->n_nested; i++)
    g_main_loop_quit (self->nested[i]);
}

void
util_meddler_clear (UtilMeddler *self)
{
  util_latch_clear (&self->happened);
}
