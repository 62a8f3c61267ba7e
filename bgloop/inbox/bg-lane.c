/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <string.h>

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

/* One priority's lane, and the source by which GLib has it served. On the serving thread,
 * but for what is said to need the lock only. */

/* For so long a dispatch may go on with work that arrives while it lingers. */
#define LINGER_DISPATCH_USEC 50

/* With the lock held */

gboolean
bg_lane_has_work (BgLane *lane)
{
  return lane->head != NULL || atomic_load_explicit (&lane->n_batch, memory_order_relaxed) > 0;
}

guint
bg_lane_get_queued (BgLane *lane)
{
  int n = (int) (lane->n_waiting + atomic_load_explicit (&lane->n_batch, memory_order_relaxed));

  /* The serving thread takes records out of the batch without the lock, and what they
   * are not counted as after that. */
  return (guint) MAX (n - lane->n_void, 0);
}

/* Its source */

static gboolean
is_idle (BgInbox *self)
{
  return self->n_batches == 0
         && atomic_load_explicit (&self->urgent, memory_order_relaxed) == G_MAXINT;
}

static gboolean
lane_prepare (GSource *source, int *timeout)
{
  BgLane *lane = ((BgLaneSource *) source)->lane;
  BgInbox *inbox;
  gboolean ready;

  /* A source without a lane has the callback of somebody else, and goes as it is dispatched. */
  if (lane == NULL)
    return TRUE;

  *timeout = -1;
  if (lane->inbox->generation != bg_fork_generation ())
    return FALSE;

  inbox = lane->inbox;
  if (lane->yields_next || inbox->history.next_iteration == lane)
    {
      *timeout = 0;
      return FALSE;
    }

  bg_inbox_lock (inbox);
  ready = !inbox->paused && bg_lane_has_work (lane);
  if (!ready && inbox->history.next_iteration == NULL)
    bg_inbox_fall_asleep (inbox);
  bg_inbox_unlock (inbox);

  return ready;
}

static gboolean
lane_check (GSource *source)
{
  BgLane *lane = ((BgLaneSource *) source)->lane;
  BgInbox *inbox;
  gboolean ready;

  if (lane == NULL || lane->inbox->generation != bg_fork_generation ())
    return FALSE;

  inbox = lane->inbox;
  if (lane->yields_next)
    {
      lane->yields_next = FALSE;
      return FALSE;
    }

  bg_inbox_lock (inbox);
  ready = !inbox->paused && (bg_lane_has_work (lane) || inbox->history.next_iteration == lane);
  if (inbox->history.next_iteration == lane)
    inbox->history.next_iteration = NULL;
  bg_inbox_unlock (inbox);

  return ready;
}

/* Serves the lane until it has no work for the moment, and awaits some more as
 * long as that pays. Anything but small batches is left to another iteration, so
 * that other sources have their turn, and so is what goes on for too long, and what
 * the work itself has appended: it may have attached a more urgent source before. */
static void
serve_while_it_pays (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  gint64 start = 0, now;
  int urgent;

  for (;;)
    {
      bg_lane_serve (lane);
      if (lane->batch != NULL || inbox->history.batch_size >= BG_LINGER_SMALL_BATCH
          || inbox->self_posted)
        return;

      now = atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed);
      if (start == 0)
        start = now;
      inbox->history.next_iteration = now - start > LINGER_DISPATCH_USEC ? lane : NULL;
      if (inbox->history.next_iteration != NULL || (is_idle (inbox) && !bg_linger_for_more (inbox)))
        return;

      /* G_MAXINT may also mean that nothing waits, while another lane has the rest
       * of a batch to do. */
      urgent = atomic_load_explicit (&inbox->urgent, memory_order_relaxed);
      if (urgent != lane->priority || urgent == G_MAXINT)
        return;

      bg_linger_coalesce (inbox);
    }
}

static void replace_source (GSource *source, gboolean dispatched);
static void retire_lane (BgLane *lane);

static gboolean
lane_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgLaneSource *self = (BgLaneSource *) source;
  BgLane *lane = self->lane;
  BgInbox *inbox;
  gboolean busy;

  if (lane == NULL)
    {
      bg_inbox_note_stale_dispatch ();
      return G_SOURCE_REMOVE;
    }

  /* A source that was ready when more urgent work forked is still ready in the child. */
  inbox = lane->inbox;
  if (bg_inbox_is_inherited (inbox))
    return G_SOURCE_CONTINUE;

  /* What is dispatched is the callback of somebody else. */
  if (source->callback_data != self->callback)
    {
      replace_source (source, TRUE);
      return G_SOURCE_REMOVE;
    }

  /* The loop may have begun to stop, or stands still, since the lane was found
   * ready. Only this thread writes it. */
  if (inbox->paused)
    {
      bg_inbox_note_stale_dispatch ();
      return G_SOURCE_CONTINUE;
    }

  self->n_dispatches++;
  lane->n_dispatches++;
  serve_while_it_pays (lane);
  lane->n_dispatches--;
  if (--self->n_dispatches == 0 && self->lane == NULL)
    inbox->replaced = g_slist_remove (inbox->replaced, self);
  if (bg_inbox_is_inherited (inbox))
    return G_SOURCE_CONTINUE;

  if (bg_serving != NULL)
    bg_serving->self_posted = TRUE;
  bg_schedule_point (BG_POINT_LINGER_FORGETS);
  atomic_store_explicit (&inbox->linger.interrupted, FALSE, memory_order_relaxed);

  busy = inbox->history.next_iteration == lane || lane->batch != NULL
         || atomic_load_explicit (&inbox->urgent, memory_order_relaxed) <= lane->priority;
  lane->turns = busy ? lane->turns + 1 : 0;
  if (lane->turns == BG_LANE_TURNS)
    {
      lane->turns = 0;
      lane->yields_next = TRUE;
    }

  if (G_UNLIKELY (!busy && inbox->crowded) && lane->n_dispatches == 0)
    retire_lane (lane);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs lane_funcs = {
  .prepare = lane_prepare,
  .check = lane_check,
  .dispatch = lane_dispatch,
};

/* When somebody has destroyed a lane's source, or given it another callback, another one takes its
 * place. */
static void
replace_source (GSource *source, gboolean dispatched)
{
  BgLaneSource *self = (BgLaneSource *) source;
  BgLane *lane = self->lane;
  BgInbox *inbox;

  if (dispatched)
    bg_inbox_note_stale_dispatch ();
  if (lane == NULL || bg_inbox_is_inherited (lane->inbox))
    return;

  inbox = lane->inbox;
  self->lane = NULL;
  if (self->n_dispatches > 0)
    inbox->replaced = g_slist_prepend (inbox->replaced, self);
  bg_inbox_lock (inbox);
  bg_lane_attach (lane);
  bg_inbox_unlock (inbox);
  g_source_unref (source);
}

static void
lane_callback_ref (gpointer data)
{
  BgLaneSource *self = data;

  if (self->owner_funcs != NULL)
    self->owner_funcs->ref (self->owner);
}

static void
lane_callback_release (gpointer data)
{
  BgLaneSource *self = data;

  if (self->owner_funcs != NULL)
    self->owner_funcs->unref (self->owner);
}

static void
lane_callback_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  BgLaneSource *self = data;

  /* Without an owner, data by which nobody looks for a source of theirs. */
  *func = NULL;
  if (self->owner_funcs != NULL)
    self->owner_funcs->get (self->owner, source, func, user_data);
  else
    *user_data = &lane_funcs;
}

static void
lane_callback_unref (gpointer data)
{
  BgLaneSource *self = data;

  if (self->lane != NULL)
    bg_glib_release_callback (&self->source, self->callback, replace_source, lane_callback_release);
  else
    lane_callback_release (self);
}

static GSourceCallbackFuncs lane_callback_funcs = {
  .ref = lane_callback_ref,
  .unref = lane_callback_unref,
  .get = lane_callback_get,
};

/* The thread has ended within dispatches of the source. */
void
bg_lane_abandon_source (BgLaneSource *self, GPtrArray *sources)
{
  bg_glib_abandon_dispatches (&self->source, self->n_dispatches, lane_callback_release, sources);
  self->n_dispatches = 0;
}

/* Gives the lane a source, or another one. */
void
bg_lane_attach (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  BgLaneSource *self;
  GSource *source;

  if (inbox->stopped)
    return;

  source = g_source_new (&lane_funcs, sizeof (BgLaneSource));
  self = (BgLaneSource *) source;
  self->lane = lane;
  self->owner = inbox->owner;
  self->owner_funcs = inbox->owner_funcs;
  lane_callback_ref (self);
  self->callback = bg_glib_set_own_callback (source, &lane_callback_funcs);
  g_source_set_static_name (source, "bgloop inbox");
  g_source_set_priority (source, lane->priority);
  g_source_set_can_recurse (source, TRUE);
  lane->source = self;
  bg_glib_attach_source (source, inbox->context);
  inbox->n_sources++;
}

/* Gives up a lane that is not in use, so that the priorities that were used once do
 * not cost each iteration something for ever. */
static void
retire_lane (BgLane *lane)
{
  BgInbox *self = lane->inbox;
  GSource *source;
  gboolean retires;
  guint position;

  bg_inbox_lock (self);
  retires = lane != self->default_lane && !bg_lane_has_work (lane) && !self->stopped;
  if (retires)
    {
      position = bg_inbox_find_lane (self, lane->priority);
      self->n_lanes--;
      memmove (self->lanes + position, self->lanes + position + 1,
               (self->n_lanes - position) * sizeof *self->lanes);
    }
  bg_inbox_unlock (self);

  if (!retires)
    return;

  if (self->history.next_iteration == lane)
    self->history.next_iteration = NULL;
  source = &lane->source->source;
  lane->source->lane = NULL;
  g_free (lane);
  g_source_destroy (source);
  g_source_unref (source);
}

/* Whether there is an inbox on @context with that tag. Any thread. The inbox may go as soon as
 * this returns: whoever wants it takes a reference in the get() by which it answers, that is
 * under the lock of @context. */
gboolean
bg_inbox_find (GMainContext *context, gpointer tag)
{
  return g_main_context_find_source_by_funcs_user_data (context, &lane_funcs, tag) != NULL;
}
