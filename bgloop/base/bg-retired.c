/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <gio/gio.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-retired-private.h>
#include <bgloop/base/bg-symbol-private.h>

/* Retired contexts. A context outlives its loop while somebody else uses it:
 *
 *  - Before GLib 2.85, g_source_destroy() and g_source_unref() may still use the
 *    source's context while its last reference goes in another thread. So the
 *    context stays as long as somebody has a source that was in it.
 *  - What GIO began there comes back when it is done, though nobody iterates the
 *    context any more: a source that refers to a task that refers to the context,
 *    for ever. So the completions of its tasks that come late are dispatched, and what
 *    they bring about. Anything else that comes late is destroyed.
 *
 * Both is done on the threads of other loops, as they start and end, until so many
 * contexts are found that have to stay. The list of them has a lock of its own, a leaf; a context
 * is out of the list while it is looked at, since code of others may run then. */

#define STAY       8
#define LATE_TURNS 16

typedef struct
{
  GMainContext *context; /* (owned) */
  GPtrArray *handles;    /* (owned) of GSource: that others may have */
  guint n_sources;       /* that it had had when it was last looked at */
  gboolean dispatches;   /* once a completion has come late */
} BgRetired;

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;
  GQueue retired; /* of BgRetired, under lock */
  int n_retired;  /* atomic, written under lock */
} BgRetirement;

static BgRetirement *
get_retirement (void)
{
  static gpointer retirement;

  return bg_fork_local (&retirement, sizeof (BgRetirement));
}

/* Whether the source is what g_task_return_*() makes of a task that is done: an idle
 * source with a function of GIO's own. */
static gboolean
is_completion (GSource *source)
{
  GSourceFunc func = NULL;
  gpointer data;

  if (source->source_funcs != &g_idle_funcs || source->callback_funcs == NULL)
    return FALSE;

  source->callback_funcs->get (source->callback_data, source, &func, &data);
  return func != NULL && bg_symbol_share_module ((gpointer) func, (gpointer) g_task_get_type);
}

static void
serve_late (BgRetired *self)
{
  g_autoptr (GPtrArray) late = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  GMainContext *context = self->context;
  guint n_completions = 0;

  /* Somebody who iterates it does all that. */
  if (!g_main_context_acquire (context))
    return;

  self->n_sources = bg_glib_list_sources (context, NULL, self->n_sources, late);
  for (guint i = 0; i < late->len; i++)
    n_completions += is_completion (g_ptr_array_index (late, i));
  self->dispatches |= n_completions > 0;
  for (guint i = 0; i < late->len && !self->dispatches; i++)
    g_source_destroy (g_ptr_array_index (late, i));
  g_ptr_array_set_size (late, 0);

  if (self->dispatches)
    {
      g_main_context_push_thread_default (context);
      for (guint i = 0; i < LATE_TURNS && g_main_context_iteration (context, FALSE); i++)
        ;
      g_main_context_pop_thread_default (context);
    }
  g_main_context_release (context);
}

static gboolean
release_if_unused (BgRetired *self)
{
  for (guint i = self->handles->len; i > 0; i--)
    {
      if (bg_glib_source_is_unshared (g_ptr_array_index (self->handles, i - 1)))
        g_ptr_array_remove_index_fast (self->handles, i - 1);
    }
  if (self->handles->len > 0 || !bg_glib_context_is_unshared (self->context))
    return FALSE;

  /* Whoever gave the last reference back did so under the context's lock, and may
   * still be in there. */
  (void) g_main_context_get_poll_func (self->context);
  g_ptr_array_unref (self->handles);
  g_main_context_unref (self->context);
  g_free (self);
  return TRUE;
}

static void
push_retired (BgRetirement *retirement, BgRetired *self)
{
  bg_mutex_lock (&retirement->lock, BG_LOCK_LEAF);
  g_queue_push_tail (&retirement->retired, self);
  g_atomic_int_inc (&retirement->n_retired);
  bg_mutex_unlock (&retirement->lock, BG_LOCK_LEAF);
}

static BgRetired *
pop_retired (BgRetirement *retirement)
{
  BgRetired *self;

  bg_mutex_lock (&retirement->lock, BG_LOCK_LEAF);
  self = g_queue_pop_head (&retirement->retired);
  if (self != NULL)
    g_atomic_int_add (&retirement->n_retired, -1);
  bg_mutex_unlock (&retirement->lock, BG_LOCK_LEAF);

  return self;
}

/* Gives up a context whose loop has ended, with the sources in @handles, when nobody
 * else uses either any more. Takes both over. @n_sources: how many the context had had
 * when it was cleared. */
void
bg_retire_context (GMainContext *context, GPtrArray *handles, guint n_sources)
{
  BgRetirement *retirement = get_retirement ();
  BgRetired *self = g_new0 (BgRetired, 1);

  self->context = context;
  self->handles = handles;
  self->n_sources = n_sources;
  if (!release_if_unused (self))
    push_retired (retirement, self);
}

/* Frees of the retired contexts what can be freed by now. On the thread of a loop, since
 * it runs what comes late there. */
void
bg_release_retired (void)
{
  BgRetirement *retirement = get_retirement ();
  guint n_staying = 0;

  for (int n = g_atomic_int_get (&retirement->n_retired); n > 0 && n_staying < STAY; n--)
    {
      BgRetired *self = pop_retired (retirement);

      if (self == NULL)
        return;

      serve_late (self);
      if (release_if_unused (self))
        continue;

      n_staying++;
      push_retired (retirement, self);
    }
}
