/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-retired-private.h>
#include <bgloop/base/bg-trace-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* The end of the loop, on its own thread: teardown functions, what they and the last
 * notifies bring about, and the context. Any of the functions here may fork, and the
 * child return: it does nothing more. The list of the teardown functions, which any thread adds
 * to, is under the core's lock; they run without. */

/* How often what is destroyed at the end may bring about more to be destroyed. */
#define LAST_ROUNDS 10000

/* How often in CANCEL mode callbacks that were told CLOSED may ask other loops again. */
#define LAST_REPLIES 128

/* Teardown functions */

guint64
bg_core_add_teardown (BgCore *self, BgTeardown *teardown)
{
  teardown->id = ++self->stopping.last_teardown;
  if (self->stopping.torn_down == NULL)
    self->stopping.torn_down = g_hash_table_new (g_int64_hash, g_int64_equal);
  g_hash_table_add (self->stopping.torn_down, &teardown->id);
  g_queue_push_tail_link (&self->stopping.teardowns, &teardown->link);
  return teardown->id;
}

static void
take_teardown (BgCore *self, BgTeardown *teardown)
{
  g_hash_table_remove (self->stopping.torn_down, &teardown->id);
  g_queue_unlink (&self->stopping.teardowns, &teardown->link);
}

/* FALSE if it has started, or is not there. */
gboolean
bg_core_remove_teardown (BgCore *self, guint64 id)
{
  guint64 *found = self->stopping.torn_down != NULL
                       ? g_hash_table_lookup (self->stopping.torn_down, &id)
                       : NULL;
  BgTeardown *teardown;

  if (found == NULL)
    return FALSE;

  teardown = (gpointer) ((char *) found - G_STRUCT_OFFSET (BgTeardown, id));
  take_teardown (self, teardown);
  if (teardown->destroy != NULL)
    bg_core_drop_later (self, teardown->data, teardown->destroy);
  g_free (teardown);
  return TRUE;
}

static void
run_teardown (BgCore *self, BgTeardown *teardown)
{
  BgTeardown own = *teardown;
  BgRecord *record;

  g_free (teardown);
  bg_core_step (self);
  bg_inbox_push_activity (&self->inbox, own.func);
  record = bg_inbox_keep (&self->inbox,
                          &(BgRecord){ bg_core_drop_outcome, own.func, own.data, own.destroy });
  own.func (own.data);
  record->outcome = NULL;
  if (!bg_core_is_forked (self))
    {
      bg_inbox_destroy (&self->inbox, own.destroy, own.data);
      bg_inbox_pop_activity (&self->inbox);
    }
}

static void
run_teardowns (BgCore *self)
{
  while (!bg_core_is_forked (self))
    {
      BgTeardown *teardown;

      bg_core_lock (self);
      teardown = g_queue_peek_tail (&self->stopping.teardowns);
      if (teardown != NULL)
        take_teardown (self, teardown);
      bg_core_unlock (self);
      if (teardown == NULL)
        return;

      run_teardown (self, teardown);
    }
}

/* The end */

/* Replies that what was destroyed has brought about. FALSE if there are none. */
static gboolean
serve_last_replies (BgCore *self)
{
  gboolean any = FALSE;

  if (self->mailbox == NULL)
    return FALSE;

  bg_mailbox_close_owed (self->mailbox, self->name);
  for (guint i = 0; i < LAST_ROUNDS && bg_mailbox_has_replies (self->mailbox); i++)
    {
      any = TRUE;
      bg_mailbox_serve (self->mailbox);
      if (bg_core_is_forked (self))
        return FALSE;
    }
  return any;
}

/* What is left when the loop is closed for good: teardown functions, and whatever they
 * and destroy notifies bring about. */
static void
run_last (BgCore *self)
{
  gboolean more = TRUE;
  guint rounds = 0;

  while (more && !bg_core_is_forked (self))
    {
      run_teardowns (self);
      bg_core_drop_delays (self);
      if (bg_core_is_forked (self))
        return;

      bg_inbox_run (&self->inbox);
      if (self->mailbox != NULL && !bg_core_is_forked (self))
        {
          bg_mailbox_close_owed (self->mailbox, self->name);
          if (rounds++ < LAST_ROUNDS)
            bg_mailbox_serve (self->mailbox);
        }
      if (bg_core_is_forked (self))
        return;

      bg_core_lock (self);
      more = self->stopping.teardowns.length > 0
             || bg_delays_get_next_due (&self->timer.delays) != -1
             || bg_inbox_has_work (&self->inbox)
             || (bg_core_has_replies (self) && rounds < LAST_ROUNDS);
      bg_core_unlock (self);
    }
}

void
bg_core_run_end (BgCore *self)
{
  guint rounds = 0;
  gint64 begun = bg_trace_begin ();
  GSource *timer, *drain;

  bg_trace_end (self->stopping.begun, "drain", "%s", self->name);
  /* From now on nothing becomes due: nobody would run it, nor drop it. */
  bg_core_lock (self);
  timer = g_steal_pointer (&self->timer.source);
  drain = g_steal_pointer (&self->stopping.drain);
  bg_linger_set_due (&self->inbox, -1);
  bg_core_unlock (self);
  if (timer != NULL)
    {
      g_source_destroy (timer);
      g_source_unref (timer);
    }
  if (drain != NULL)
    g_source_destroy (drain);

  run_last (self);
  if (bg_core_is_forked (self))
    return;

  bg_inbox_stop (&self->inbox);
  /* The context may outlive the core. */
  if (self->stopping.drain != NULL)
    g_source_destroy (g_steal_pointer (&self->stopping.drain));
  /* Notifies run, and what they bring about goes with what is left here. */
  bg_release_retired ();
  do
    {
      if (bg_core_is_forked (self))
        return;
      if (atomic_load (&self->sources.has_attached))
        bg_core_clear_attached (self);
      bg_core_clear_context (self);
      if (bg_core_is_forked (self))
        return;
      if (atomic_load (&self->sources.has_attached))
        bg_core_clear_attached (self);
    }
  while (serve_last_replies (self) && rounds++ < LAST_REPLIES);
  if (bg_core_is_forked (self))
    return;
  if (self->mailbox != NULL)
    bg_mailbox_close (self->mailbox);

  g_main_context_pop_thread_default (self->context);
  g_main_context_release (self->context);
  /* Iterations that the thread has ended in have not given it back. */
  while (self->thread.exited && g_main_context_is_owner (self->context))
    g_main_context_release (self->context);

  bg_core_lock (self);
  self->thread.ended = TRUE;
  atomic_store_explicit (&self->thread.awake_at, 0, memory_order_relaxed);
  bg_core_unlock (self);
  bg_trace_end (begun, "end", "%s", self->name);
  bg_core_stop_heeding (self);
  bg_watch_end (&self->watch);
}
