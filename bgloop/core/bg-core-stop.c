/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-trace-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* From quit to the last of what was accepted. The end of a loop's life, in order:
 *
 *  1. Anybody's bg_core_quit() makes it STOPPING and sends begin_drain_cb() into the
 *     context, above every priority.
 *  2. begin_drain_cb() hands what was accepted to the drain source, of the highest
 *     priority, that runs it (the most urgent first: bg_inbox_run()) and lets every
 *     other source have a turn in between.
 *  3. When nothing is queued and nothing holds the loop, the drain source quits the
 *     main loop. Below everything that may still run on it, the thread looks once
 *     more and closes the loop for good.
 *  4. The thread runs the teardown functions and clears the context: bg-core-end.c.
 *  5. The thread's own destructors run; the last is the library's. The loop is STOPPED,
 *     and whoever waits for the end is told.
 *  6. Whoever waits joins it, as bg-core-join.c has it; if nobody does, the last
 *     reference lets it go.
 *
 * Step 1 is on the thread that asks, 2 to 5 are on the loop's own. The state changes
 * under the core's lock, and under it the loop looks whether anything is left; what was accepted
 * runs without. */

#define DRAIN_PRIORITY G_MININT

/* How many turns a source that is always ready gets at the end, and before others
 * get one while the loop stops. */
#define LAST_TURNS 16

/* How often in CANCEL mode callbacks that were told CLOSED may ask other loops again. */
#define LAST_REPLIES 128

typedef struct
{
  GSource source;
  BgCore *core;      /* (unowned) (nullable): NULL if another one drains */
  gpointer callback; /* see bg_glib_set_own_callback() */
  gboolean yields_next;
  guint n_dispatches; /* that have not returned */
} BgDrain;

/* With the lock held. Replies that have arrived here are work, too: what they
 * call goes on from there. */
gboolean
bg_core_has_replies (BgCore *self)
{
  return self->mailbox != NULL && bg_mailbox_has_replies (self->mailbox);
}

/* With the lock held. */
static gboolean
has_work (BgCore *self)
{
  return bg_inbox_has_work (&self->inbox) || bg_core_has_replies (self)
         || (bg_core_is_cancelling (self) && bg_delays_get_next_due (&self->timer.delays) != -1);
}

/* With the lock held. In CANCEL mode nobody waits for other loops' replies. */
static gboolean
is_held (BgCore *self)
{
  gboolean owed = !bg_core_is_cancelling (self) && self->mailbox != NULL
                  && bg_mailbox_is_owed (self->mailbox);

  return owed || self->holds.list.length > 0 || self->invokes.list.length > 0;
}

/* With the lock held, on the loop's thread. In this order: a reply that is owed becomes
 * one that has arrived. */
gboolean
bg_core_is_idle (BgCore *self)
{
  return !is_held (self) && !has_work (self);
}

static gboolean
drain_prepare (GSource *source, int *timeout)
{
  BgDrain *drain = (BgDrain *) source;
  BgCore *self = drain->core;
  gboolean work, idle;

  if (self == NULL)
    return TRUE;

  *timeout = -1;
  if (bg_core_is_forked (self))
    return FALSE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  idle = bg_core_is_idle (self);
  work = !idle && has_work (self);
  if (work)
    bg_inbox_stay_awake (&self->inbox);
  else
    bg_inbox_fall_asleep (&self->inbox);
  bg_core_unlock (self);
  if (!work && !idle && self->mailbox != NULL)
    *timeout = bg_mailbox_get_recheck_msec (self->mailbox);

  /* Two turns of the other sources in a row would be one of those that are always
   * ready and none of the drain source. A loop that has finished may go on in a main
   * loop that a function runs: the source that quits that may be one that was moved. */
  if (!work && (!idle || self->thread.finished) && ++self->stopping.starved > LAST_TURNS)
    return TRUE;

  if (work && drain->yields_next)
    {
      drain->yields_next = FALSE;
      *timeout = 0;
      return FALSE;
    }

  return work || (idle && !self->thread.finished);
}

static gboolean
drain_check (GSource *source)
{
  return FALSE;
}

static void attach_drain (BgCore *self);
static void replace_drain (GSource *source, gboolean dispatched);

/* Tells callbacks that wait for another loop that they need not, when nothing else is
 * left to do in CANCEL mode. */
static void
close_owed (BgCore *self)
{
  if (self->mailbox != NULL && bg_core_is_cancelling (self)
      && self->stopping.n_closings++ < LAST_REPLIES)
    bg_mailbox_close_owed (self->mailbox, self->name);
}

static gboolean
drain_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgDrain *drain = (BgDrain *) source;
  BgCore *self = drain->core;
  gboolean idle;

  if (self == NULL)
    {
      bg_inbox_note_stale_dispatch ();
      return G_SOURCE_REMOVE;
    }
  if (bg_core_is_forked (self))
    return G_SOURCE_CONTINUE;
  /* What is dispatched is the callback of somebody else. */
  if (source->callback_data != drain->callback)
    {
      replace_drain (source, TRUE);
      return G_SOURCE_REMOVE;
    }
  if (self->stopping.starved > LAST_TURNS)
    {
      self->stopping.starved = 0;
      bg_core_demote_most_urgent (self);
      return G_SOURCE_CONTINUE;
    }

  drain->n_dispatches++;
  bg_inbox_run (&self->inbox);
  if (bg_core_is_cancelling (self))
    bg_core_drop_delays (self);
  if (self->mailbox != NULL && !bg_core_is_forked (self))
    bg_mailbox_serve (self->mailbox);
  if (--drain->n_dispatches == 0 && drain->core == NULL)
    self->stopping.replaced = g_slist_remove (self->stopping.replaced, drain);
  drain->yields_next = TRUE;
  if (bg_core_is_forked (self))
    return G_SOURCE_CONTINUE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  idle = bg_core_is_idle (self);
  bg_core_unlock (self);
  if (idle)
    {
      close_owed (self);
      bg_core_lock (self);
      idle = bg_core_is_idle (self);
      bg_core_unlock (self);
    }

  /* What runs around this goes on first: only the thread itself closes the loop. */
  if (idle)
    {
      self->thread.finished = TRUE;
      g_main_loop_quit (self->main_loop);
    }

  return G_SOURCE_CONTINUE;
}

static GSourceFuncs drain_funcs = {
  .prepare = drain_prepare,
  .check = drain_check,
  .dispatch = drain_dispatch,
};

/* When somebody has destroyed the source, another one takes its place. One that was given another
 * callback goes as it is dispatched next, with that. */
static void
replace_drain (GSource *source, gboolean dispatched)
{
  BgDrain *drain = (BgDrain *) source;
  BgCore *self = bg_core_get_current ();

  if (dispatched)
    bg_inbox_note_stale_dispatch ();
  if (self == NULL || bg_core_is_forked (self) || self->stopping.drain != source)
    return;

  drain->core = NULL;
  if (drain->n_dispatches > 0)
    self->stopping.replaced = g_slist_prepend (self->stopping.replaced, drain);
  attach_drain (self);
  g_main_context_wakeup (self->context);
}

/* Nobody counts the references. */
static void
drain_callback_nothing (gpointer data)
{
}

static void
drain_callback_unref (gpointer data)
{
  bg_glib_release_callback (data, ((BgDrain *) data)->callback, replace_drain,
                            drain_callback_nothing);
}

static void
drain_callback_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  *func = NULL;
  *user_data = &drain_funcs;
}

static GSourceCallbackFuncs drain_callback_funcs = {
  .ref = drain_callback_nothing,
  .unref = drain_callback_unref,
  .get = drain_callback_get,
};

/* Within a dispatch, as bg_core_quit() of another thread has it, the context is prepared before it
 * is polled again, and needs no system call to be woken: if this dispatch is one of an iteration
 * that a finalizer runs between prepare and poll, drain_is_new keeps that poll from sleeping.
 * Elsewhere the caller of attach_drain() wakes the context, see bg_glib_attach_source().
 *
 * Not when the inbox is stopped: the end destroys every source that is left, and a drain source
 * that is destroyed is replaced by another, which the end would destroy in turn. */
static void
attach_drain (BgCore *self)
{
  GSource *source;

  if (bg_inbox_is_stopped (&self->inbox))
    return;

  source = g_source_new (&drain_funcs, sizeof (BgDrain));
  ((BgDrain *) source)->core = self;
  ((BgDrain *) source)->callback = bg_glib_set_own_callback (source, &drain_callback_funcs);
  g_source_set_static_name (source, "bgloop drain");
  g_source_set_priority (source, DRAIN_PRIORITY);
  g_source_set_can_recurse (source, TRUE);
  g_source_attach (source, self->context);
  g_source_unref (source);
  self->stopping.drain = source;
  self->stopping.drain_is_new = TRUE;
  self->sources.n_own++;
}

/* With the lock held, on the loop's thread: what was accepted is served by
 * bg_inbox_run() from here on. */
void
bg_core_begin_drain (BgCore *self)
{
  bg_inbox_pause (&self->inbox);
  bg_core_move_invokes (self, NULL);
}

static void
abandon_drain (gpointer data, gpointer user_data)
{
  BgDrain *drain = data;

  bg_glib_abandon_dispatches (&drain->source, drain->n_dispatches, drain_callback_nothing,
                              bg_core_get_kept (user_data));
  drain->n_dispatches = 0;
}

/* Something has ended the thread under the drain source. */
void
bg_core_abandon_drain (BgCore *self)
{
  if (self->stopping.drain != NULL)
    abandon_drain (self->stopping.drain, self);
  g_slist_foreach (self->stopping.replaced, abandon_drain, self);
  g_clear_pointer (&self->stopping.replaced, g_slist_free);
}

static gboolean
begin_drain_cb (gpointer user_data)
{
  BgCore *self = user_data;

  if (bg_core_is_forked (self) || self->thread.ended)
    return G_SOURCE_REMOVE;

  self->stopping.begun = bg_trace_begin ();
  bg_core_lock (self);
  bg_core_begin_drain (self);
  attach_drain (self);
  bg_core_unlock (self);

  return G_SOURCE_REMOVE;
}

void
bg_core_quit (BgCore *self, BgShutdownMode mode)
{
  GQueue blocked = G_QUEUE_INIT;
  gboolean first, cancels, here = bg_core_get_current () == self;

  bg_core_lock (self);
  if (atomic_load (&self->state) == BG_LOOP_STOPPED)
    {
      bg_core_unlock (self);
      return;
    }

  first = atomic_load (&self->state) == BG_LOOP_RUNNING;
  cancels = mode == BG_SHUTDOWN_CANCEL && !bg_core_is_cancelling (self);
  if (first)
    atomic_store (&self->state, BG_LOOP_STOPPING);
  if (cancels)
    {
      atomic_store (&self->stopping.cancelling, TRUE);
      self->stopping.n_handling++;
      bg_core_take_blocked (self, &blocked);
    }
  bg_core_note_changed (self);

  /* Under the lock, so that the loop cannot end before it has got the message:
   * a context that nobody owns would run it here. */
  if (first && !here)
    {
      self->sources.n_own++;
      g_main_context_invoke_full (self->context, DRAIN_PRIORITY, begin_drain_cb, bg_core_ref (self),
                                  (GDestroyNotify) bg_core_unref);
    }
  else if (cancels)
    {
      g_main_context_wakeup (self->context);
    }
  bg_core_ref (self);
  bg_core_unlock (self);
  bg_linger_interrupt (&self->inbox);

  if (first && here)
    {
      g_main_context_invoke_full (self->context, DRAIN_PRIORITY, begin_drain_cb, self, NULL);
      g_main_context_wakeup (self->context);
    }
  bg_core_close_blocked (&blocked);
  if (cancels)
    bg_core_cancel (self);
  else
    bg_core_unref (self);
}
