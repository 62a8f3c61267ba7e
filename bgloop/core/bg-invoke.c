/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-work-private.h>

/* Invoked functions. One waits in a source of its own, ordered like any source of its
 * priority, and in the core's list; while the loop stops, or stands still for a test, it
 * comes from the inbox. Any thread hands one over; the loop's thread runs it. The list, and so
 * which of the two a function comes from, is under the core's lock. */

static void
invoke_unref (BgInvoke *self)
{
  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  bg_core_unref (self->core);
  g_free (self);
}

static void
invoke_dropped_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgInvoke *self = slot->data;
  GDestroyNotify notify = self->notify;
  gpointer data = self->data;

  bg_inbox_count_cancelled (&core->inbox);
  invoke_unref (self);
  bg_inbox_destroy (&core->inbox, notify, data);
}

/* The function's source is gone. If it was to run the function, that never runs. */
static void
invoke_abandon (BgInvoke *self)
{
  BgCore *core = self->core;

  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  if (self->listed && !self->running)
    {
      self->listed = FALSE;
      g_queue_unlink (&core->invokes.list, &self->link);
      bg_inbox_requeue (&core->inbox, self->priority, invoke_dropped_outcome, self->func, self,
                        NULL);
    }
  bg_core_unlock (core);
  invoke_unref (self);
}

/* With the lock held: how many invoked functions there are that are not less urgent than
 * @priority. */
guint
bg_core_count_invokes (BgCore *self, int priority)
{
  guint n = 0;

  for (GList *link = self->invokes.list.head; link != NULL; link = link->next)
    {
      if (((BgInvoke *) link->data)->priority <= priority)
        n++;
    }

  return n;
}

/* Puts an invoked function into the inbox: while the loop stops, everything
 * that was accepted comes from there. Takes over the list's reference. */
static void
move_invoke (BgCore *self, BgInvoke *invoke)
{
  if (invoke->listed)
    {
      invoke->listed = FALSE;
      g_queue_unlink (&self->invokes.list, &invoke->link);
    }

  bg_inbox_requeue (&self->inbox, invoke->priority, invoke->outcome, invoke->func, invoke, NULL);
}

/* The same for all functions that do not run now. Their sources are added to @sources (nullable),
 * for the caller to destroy without the lock: the functions come from the inbox. */
void
bg_core_move_invokes (BgCore *self, GPtrArray *sources)
{
  GList *link, *next;

  for (link = self->invokes.list.head; link != NULL; link = next)
    {
      BgInvoke *invoke = link->data;
      GSource *source = NULL;

      next = link->next;
      if (invoke->running)
        continue;

      if (sources != NULL)
        source
            = g_main_context_find_source_by_funcs_user_data (self->context, &g_idle_funcs, invoke);
      if (source != NULL)
        g_ptr_array_add (sources, g_source_ref (source));
      move_invoke (self, invoke);
    }
}

/* A number that grows when a record or an invoked function has run. The loop's thread only. */
guint64
bg_core_get_n_runs (BgCore *self)
{
  return bg_inbox_get_n_run (&self->inbox) + self->invokes.repeats;
}

/* Takes over a reference, and keeps none while the notify runs, which may end the thread. */
static void
end_invoke (BgCore *core, BgInvoke *self)
{
  GDestroyNotify notify = self->notify;
  gpointer data = self->data;

  bg_core_lock (core);
  if (self->listed)
    {
      self->listed = FALSE;
      g_queue_unlink (&core->invokes.list, &self->link);
    }
  bg_core_unlock (core);

  invoke_unref (self);
  bg_inbox_destroy (&core->inbox, notify, data);
}

/* The same of an invoke that was never queued: its notify is part of the function that invokes. */
static void
end_invoke_here (BgInvoke *self)
{
  GDestroyNotify notify = self->notify;
  gpointer data = self->data;

  invoke_unref (self);
  if (notify != NULL)
    notify (data);
}

/* Of one that has ended the thread only the data is left to be destroyed. */
static void
half_done_invoke_outcome (BgRecord *slot, gpointer owner)
{
  end_invoke (owner, slot->data);
}

/* Runs the function once; TRUE if it wants to run again. It may have forked, and this
 * be the child. Whoever destroys the source that runs it does not want that. */
static gboolean
run_invoke (BgCore *core, BgInvoke *self)
{
  GSource *source = g_main_current_source ();
  gboolean again, lives = source != NULL && !g_source_is_destroyed (source);

  if (!bg_core_may_run (core))
    return FALSE;

  bg_inbox_push_activity (&core->inbox, self->func);
  bg_inbox_keep (&core->inbox, &(BgRecord){ half_done_invoke_outcome, self->func, self, NULL });
  again = self->func (self->data);
  if (bg_core_is_forked (core))
    return again;

  bg_inbox_drop_kept (&core->inbox);
  bg_inbox_pop_activity (&core->inbox);
  if (lives && g_source_is_destroyed (source) && g_source_get_context (source) == core->context)
    again = FALSE;
  if (again)
    core->invokes.repeats++;
  else
    bg_inbox_count_run (&core->inbox);
  return again;
}

/* While the loop stops an invoked function comes from the inbox. */
static void
invoke_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgInvoke *self = slot->data;
  gboolean again = run_invoke (core, self);

  if (bg_core_is_forked (core))
    return;

  if (again)
    {
      bg_core_lock (core);
      move_invoke (core, self);
      bg_core_unlock (core);
      return;
    }

  end_invoke (core, self);
}

static gboolean
invoke_cb (gpointer user_data)
{
  BgInvoke *self = user_data;
  BgCore *core = self->core;
  gboolean mine, again;

  if (bg_core_is_forked (core))
    return G_SOURCE_REMOVE;

  bg_core_lock (core);
  mine = self->listed;
  self->running = mine;
  bg_core_unlock (core);
  if (!mine)
    return G_SOURCE_REMOVE;

  bg_core_step (core);
  again = run_invoke (core, self);
  if (bg_core_is_forked (core))
    return G_SOURCE_REMOVE;

  if (again)
    {
      bg_core_lock (core);
      self->running = FALSE;
      again = !bg_inbox_is_paused (&core->inbox);
      if (!again)
        move_invoke (core, self);
      bg_core_unlock (core);
      return again;
    }

  end_invoke (core, self);
  return G_SOURCE_REMOVE;
}

static void
invoke_source_gone (gpointer data)
{
  invoke_abandon (data);
}

static BgInvoke *
invoke_new (BgCore *core, int priority, GSourceFunc function, gpointer data, GDestroyNotify notify)
{
  BgInvoke *self = g_new0 (BgInvoke, 1);

  self->ref_count = 1;
  self->core = bg_core_ref (core);
  self->priority = priority;
  self->func = function;
  self->data = data;
  self->notify = notify;
  self->outcome = invoke_outcome;
  self->link.data = self;
  return self;
}

/* On the loop's own thread: at once, and if it wants to run again, like any
 * other from then on. */
static void
invoke_here (BgCore *core, BgInvoke *self)
{
  gboolean again = run_invoke (core, self);
  GSource *source;

  if (bg_core_is_forked (core))
    return;

  if (!again)
    {
      end_invoke_here (self);
      return;
    }

  bg_core_lock (core);
  if (bg_inbox_is_paused (&core->inbox))
    {
      move_invoke (core, self);
    }
  else
    {
      self->ref_count = 2;
      self->listed = TRUE;
      g_queue_push_tail_link (&core->invokes.list, &self->link);
      source = g_idle_source_new ();
      g_source_set_priority (source, self->priority);
      g_source_set_callback (source, invoke_cb, self, invoke_source_gone);
      bg_glib_attach_source (source, core->context);
      g_source_unref (source);
    }
  bg_core_unlock (core);
}

/* Hands a function over; FALSE if the loop takes no more work. Any thread. */
gboolean
bg_core_invoke (BgCore *core,
                int priority,
                GSourceFunc function,
                gpointer data,
                GDestroyNotify notify)
{
  BgInvoke *invoke;
  gboolean admitted = FALSE, here = bg_core_is_current (core);

  invoke = invoke_new (core, priority, function, data, notify);

  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      admitted = bg_core_admits (core);
      if (admitted)
        bg_inbox_count_posted (&core->inbox);
      if (admitted && !here && bg_inbox_is_paused (&core->inbox))
        {
          move_invoke (core, invoke);
        }
      else if (admitted && !here)
        {
          invoke->ref_count = 2;
          invoke->listed = TRUE;
          g_queue_push_tail_link (&core->invokes.list, &invoke->link);
          g_main_context_invoke_full (core->context, priority, invoke_cb, invoke,
                                      invoke_source_gone);
          bg_linger_interrupt (&core->inbox);
        }
      bg_core_unlock (core);
    }

  if (!admitted)
    end_invoke_here (invoke);
  else if (here)
    invoke_here (core, invoke);
  return admitted;
}
