/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-work-private.h>

/* A loop's core: its life, its state, and who may hand it work. Any thread, but for
 * the outcomes of records, which are the loop's thread's; what changes is atomic or under the
 * core's lock. The struct itself is in bg-core-private.h, the order of locks in
 * base/bg-lock-private.h. */

/* Life */

BgCore *
bg_core_new (const char *name)
{
  BgCore *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);

  bg_fork_watch ();
  self->ref_count = 1;
  self->name = g_strdup (name != NULL && *name != '\0' ? name : "bgloop");
  self->generation = bg_fork_generation ();
  self->waits.actor.generation = self->generation;
  self->waits.actor.name = self->name;
  self->cancellable = g_cancellable_new ();
  self->context = bg_glib_context_new (&self->failure);
  if (self->context != NULL)
    {
      g_main_context_set_poll_func (self->context, bg_core_poll_cb);
      self->main_loop = g_main_loop_new (self->context, FALSE);
    }
  bg_inbox_init (&self->inbox, self->context, self, NULL, BG_LOCK_CORE);
  bg_linger_add_expected (&self->inbox, 1);
  g_cond_init (&self->changed);
  atomic_init (&self->state, BG_LOOP_STOPPED);
  self->thread.joined = TRUE; /* until it is started there is nothing to join */
  self->thread.gone = TRUE;
  bg_watch_init (&self->watch, self);
  bg_registration_add (&self->registration, self);
  return self;
}

BgCore *
bg_core_ref (BgCore *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

static void
free_holds (BgCore *self)
{
  GList *link;

  while ((link = self->holds.list.head) != NULL)
    {
      BgHold *hold = link->data;

      g_queue_unlink (&self->holds.list, link);
      if (hold->id != 0)
        {
          g_free (hold->reason);
          g_free (hold);
        }
    }
  g_clear_pointer (&self->holds.by_id, g_hash_table_unref);
}

static void
core_free (BgCore *self)
{
  guint generation = self->generation;
  gboolean registered = !bg_core_is_forked (self);

  if (registered)
    bg_registration_begin_removal (&self->registration);
  g_clear_pointer (&self->mailbox, bg_mailbox_unref);
  bg_inbox_clear (&self->inbox);
  bg_delays_clear (&self->timer.delays);
  g_cond_clear (&self->changed);
  free_holds (self);
  g_clear_pointer (&self->stopping.torn_down, g_hash_table_unref);
  g_clear_pointer (&self->sources.priorities, g_array_unref);
  g_clear_pointer (&self->operations.spare_cancellables, g_ptr_array_unref);
  g_clear_pointer (&self->main_loop, g_main_loop_unref);
  g_object_unref (self->cancellable);
  bg_watch_clear (&self->watch);
  if (self->context != NULL)
    bg_core_free_context (self);
  g_clear_error (&self->failure);
  g_free (self->name);
  g_aligned_free (self);
  /* A weak notify of the cancellable's may have forked, and this be the child. */
  if (registered && generation == bg_fork_generation ())
    bg_registration_end_removal ();
}

/* FALSE for a core that nobody refers to any more and that is being freed. */
gboolean
bg_core_try_ref (BgCore *self)
{
  int n = g_atomic_int_get (&self->ref_count);

  while (n > 0)
    {
      bg_schedule_point (BG_POINT_CORE_REFERS);
      if (g_atomic_int_compare_and_exchange (&self->ref_count, n, n + 1))
        return TRUE;
      n = g_atomic_int_get (&self->ref_count);
    }

  return FALSE;
}

void
bg_core_unref (BgCore *self)
{
  bg_schedule_point (BG_POINT_CORE_UNREFS);
  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  bg_schedule_point (BG_POINT_CORE_GOES);
  core_free (self);
}

/* Whether nobody has the BgLoop any more. */
gboolean
bg_core_is_dropped (BgCore *self)
{
  gboolean dropped;

  bg_core_lock (self);
  dropped = self->ownership.dropped;
  bg_core_unlock (self);

  return dropped;
}

/* The object is gone: nobody will ever join the thread. Never blocks. */
void
bg_core_abandon (BgCore *self)
{
  GThread *thread;

  /* In a forked child nothing of it can be trusted to be in one piece. */
  if (bg_core_is_forked (self))
    return;

  bg_core_quit (self, BG_SHUTDOWN_DRAIN);

  bg_core_lock (self);
  self->ownership.dropped = TRUE;
  thread = g_steal_pointer (&self->thread.handle);
  bg_core_unlock (self);

  if (thread != NULL)
    g_thread_unref (thread);
  bg_core_unref (self);
}

/* Looking */

BgLoopState
bg_core_get_state (BgCore *self)
{
  int state;

  if (bg_core_is_forked (self))
    return BG_LOOP_STOPPED;

  state = atomic_load_explicit (&self->state, memory_order_acquire);
  bg_schedule_point (BG_POINT_CORE_SEEN);
  return state;
}

gboolean
bg_core_is_cancelling (BgCore *self)
{
  gboolean cancelling = atomic_load_explicit (&self->stopping.cancelling, memory_order_acquire);

  bg_schedule_point (BG_POINT_CORE_SEEN);
  return cancelling;
}

/* Without the lock: everything has had its outcome, and the thread runs only what is its own. */
gboolean
bg_core_has_ended (BgCore *self)
{
  gboolean ended;

  bg_core_lock (self);
  ended = self->thread.ended;
  bg_core_unlock (self);

  return ended;
}

void
bg_core_set_refused_error (BgCore *self, GError **error)
{
  if (bg_core_is_forked (self))
    g_set_error (error, BG_ERROR, BG_ERROR_FORKED,
                 "The loop \"%s\" belongs to the process that this one was forked from",
                 self->name);
  else if (self->failure != NULL)
    g_propagate_error (error, g_error_copy (self->failure));
  else
    g_set_error (error, BG_ERROR, BG_ERROR_CLOSED, _ ("The loop \"%s\" takes no more work"),
                 self->name);
}

void
bg_core_get_stats (BgCore *self, BgLoopStats *stats)
{
  BgInboxTotals totals;

  bg_core_lock_to_look (self);
  bg_inbox_get_totals (&self->inbox, &totals);
  stats->run = totals.run;
  stats->cancelled = totals.cancelled + self->waits.withdrawn;
  stats->batches = totals.batches;
  stats->posted = totals.posted;
  stats->refused = self->refused;
  stats->wakeups = totals.wakeups;
  stats->queued = totals.queued;
  stats->queued_max = totals.queued_max;
  stats->holds = self->holds.list.length;
  stats->busy_usec = totals.busy_usec;
  stats->longest_usec = totals.longest_usec;
  bg_core_unlock_after_look (self);
}

/* Admission */

/* While the loop stops, or has. */
gboolean
bg_core_admits_late (BgCore *self)
{
  int state = atomic_load_explicit (&self->state, memory_order_relaxed);

  if (state == BG_LOOP_STOPPING && !self->stopping.closed && !bg_core_is_cancelling (self)
      && bg_core_get_current () == self)
    return TRUE;

  self->refused++;
  return FALSE;
}

void
bg_core_post_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  GDestroyNotify destroy = slot->destroy;
  gpointer data = slot->data;

  if (destroy != NULL)
    bg_inbox_keep (&self->inbox, slot);

  if (bg_core_may_run (self))
    {
      ((BgPostFunc) slot->func) (data);
      bg_core_count_run (self);
    }

  if (destroy == NULL)
    return;

  bg_inbox_drop_kept (&self->inbox);
  bg_inbox_destroy (&self->inbox, destroy, data);
}

void
bg_core_drop_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;

  bg_inbox_destroy (&self->inbox, slot->destroy, slot->data);
}

static void
drop_later_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;

  bg_core_lock (self);
  bg_inbox_take_void (&self->inbox);
  bg_core_unlock (self);
  bg_core_drop_outcome (slot, self);
}

/* Has accepted work destroyed where it has to be, on the loop's thread. This is
 * no work of its own. */
void
bg_core_drop_later (BgCore *self, gpointer data, GDestroyNotify destroy)
{
  bg_inbox_append_void (&self->inbox, G_PRIORITY_DEFAULT, drop_later_outcome, destroy, data,
                        destroy);
}

/* Holds */

/* A hold that somebody is to release has an id from here. */
void
bg_core_add_hold (BgCore *self, BgHold *hold)
{
  if (hold->reason != NULL)
    {
      hold->id = ++self->holds.last_id;
      if (self->holds.by_id == NULL)
        self->holds.by_id = g_hash_table_new (g_int64_hash, g_int64_equal);
      g_hash_table_add (self->holds.by_id, &hold->id);
    }
  hold->since = g_get_monotonic_time ();
  hold->link.data = hold;
  g_queue_push_tail_link (&self->holds.list, &hold->link);
}

void
bg_core_remove_hold (BgCore *self, BgHold *hold)
{
  if (hold->id != 0)
    g_hash_table_remove (self->holds.by_id, &hold->id);
  g_queue_unlink (&self->holds.list, &hold->link);
  if (self->holds.list.length == 0 && atomic_load (&self->state) == BG_LOOP_STOPPING)
    g_main_context_wakeup (self->context);
}

BgHold *
bg_core_find_hold (BgCore *self, guint64 id)
{
  guint64 *found = self->holds.by_id != NULL ? g_hash_table_lookup (self->holds.by_id, &id) : NULL;

  return found != NULL ? (gpointer) ((char *) found - G_STRUCT_OFFSET (BgHold, id)) : NULL;
}
