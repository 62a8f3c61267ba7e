/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

/* What runs on the serving thread, with what it runs within. On that thread; others read
 * what is atomic. */

/* Notes that @func runs from now on, until bg_inbox_pop_activity(). */
void
bg_inbox_push_activity (BgInbox *self, gpointer func)
{
  BgActivity *outer = self->activities.current;
  BgActivity *activity = outer->inner;

  if (G_UNLIKELY (activity == NULL))
    {
      activity = outer->inner = g_new0 (BgActivity, 1);
      activity->outer = outer;
    }

  activity->func = atomic_load_explicit (&self->activities.running, memory_order_relaxed);
  activity->started_at = atomic_load_explicit (&self->activities.started_at, memory_order_relaxed);
  activity->notify = atomic_load_explicit (&self->activities.notify, memory_order_relaxed);
  self->activities.current = activity;
  atomic_store_explicit (&self->activities.notify, NULL, memory_order_relaxed);
  atomic_store_explicit (&self->activities.started_at, g_get_monotonic_time (),
                         memory_order_relaxed);
  /* Another thread that reads this function, or one that is stored there later, reads this time
   * or a later one. */
  atomic_store_explicit (&self->activities.running, func, memory_order_release);
}

/* The innermost activity is over; the one around it counts as running again, since its own
 * beginning. Returns the time. */
gint64
bg_inbox_pop_activity (BgInbox *self)
{
  BgActivity *activity = self->activities.current;
  gint64 now = g_get_monotonic_time ();

  self->activities.current = activity->outer;
  atomic_store_explicit (&self->activities.running, activity->func, memory_order_relaxed);
  atomic_store_explicit (&self->activities.started_at,
                         activity->func != NULL ? activity->started_at : now, memory_order_relaxed);
  atomic_store_explicit (&self->activities.notify, activity->notify, memory_order_relaxed);
  return now;
}

/* Calls @destroy (nullable), a destroy notify of work that has run or never will. To the watchdog
 * the notify is something of its own; in other reports it is part of its work. @destroy may end
 * the thread, or fork. */
void
bg_inbox_destroy (BgInbox *self, GDestroyNotify destroy, gpointer data)
{
  gpointer outer = atomic_load_explicit (&self->activities.notify, memory_order_relaxed);

  bg_inbox_step (self);
  if (destroy == NULL)
    return;

  atomic_store_explicit (&self->activities.notify, (gpointer) destroy, memory_order_relaxed);
  destroy (data);
  if (bg_inbox_is_inherited (self))
    return;

  atomic_store_explicit (&self->activities.notify, outer, memory_order_relaxed);
  bg_inbox_step (self);
}

/* The lane at that place, which only the serving thread frees; NULL if there is none. Any
 * thread may put another one before it. */
static BgLane *
get_lane_at (BgInbox *self, guint position)
{
  BgLane *lane;

  bg_inbox_lock (self);
  lane = position < self->n_lanes ? self->lanes[position] : NULL;
  bg_inbox_unlock (self);
  return lane;
}

/* Something has ended the thread: what ran does not go on, and what is half done gets
 * its outcome. Sources that the thread dispatched are added to @sources. FALSE if a destroy
 * notify has forked, and this is the child. */
gboolean
bg_inbox_abandon_activities (BgInbox *self, GPtrArray *sources)
{
  BgLane *lane;

  bg_serving = NULL;
  self->depth = 0;
  atomic_store_explicit (&self->activities.notify, NULL, memory_order_relaxed);
  while (self->activities.current != &self->activities.root)
    {
      BgRecord kept = self->activities.current->kept;

      self->activities.current->kept.outcome = NULL;
      if (kept.outcome != NULL)
        kept.outcome (&kept, self->owner);
      if (bg_inbox_is_inherited (self))
        return FALSE;
      self->activities.current = self->activities.current->outer;
    }
  atomic_store_explicit (&self->activities.running, NULL, memory_order_relaxed);
  bg_inbox_end_busy (self, g_get_monotonic_time ());

  for (guint i = 0; (lane = get_lane_at (self, i)) != NULL; i++)
    {
      lane->n_dispatches = 0;
      if (lane->source != NULL)
        bg_lane_abandon_source (lane->source, sources);
    }
  for (GSList *link = self->replaced; link != NULL; link = link->next)
    bg_lane_abandon_source (link->data, sources);
  g_clear_pointer (&self->replaced, g_slist_free);
  if (self->deferred != NULL)
    bg_inbox_append_deferred (self);
  return TRUE;
}

/* What runs now, since @started_at (nullable); NULL if nothing that was given to the inbox. */
gpointer
bg_inbox_get_running (BgInbox *self, gint64 *started_at)
{
  gpointer func = atomic_load (&self->activities.running);

  if (started_at != NULL)
    *started_at = atomic_load (&self->activities.started_at);
  return func;
}

/* What keeps the serving thread, for the watchdog: the function that runs, or the destroy notify
 * that does; NULL if nothing that was given to the inbox. */
gpointer
bg_inbox_get_blocking (BgInbox *self)
{
  gpointer notify = atomic_load (&self->activities.notify);

  return notify != NULL ? notify : bg_inbox_get_running (self, NULL);
}

/* How often the serving thread has gone on to something else: see bg_inbox_step(). */
guint
bg_inbox_get_steps (BgInbox *self)
{
  return atomic_load (&self->activities.steps);
}
