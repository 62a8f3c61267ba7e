/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <string.h>

#include <bgloop/base/bg-macros-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

/* The posters' side of an inbox, on any thread, and its life: it is made before others know of it,
 * stopped on the serving thread, and cleared when nobody has it any more.
 *
 * An inbox is a mutex and, for each priority in use, a list of chunks of records
 * behind one persistent source.
 *
 * Appending writes a record into the last chunk. Only the append that finds the
 * inbox asleep wakes the context: the sources' prepare marks it asleep and looks
 * at the queue in the same critical section, so that no append falls between.
 *
 * The lock is that of the owner, a core or a mailbox, and has its place in the order of locks
 * (base/bg-lock-private.h). GLib's lock of the context may be taken under it, too. User code never
 * runs under it. */

/* A chunk comes back from the processor that ran its records, and so does each of
 * its cache lines, for which the lock is held the longer. Fetched so many records
 * ahead they are there in time: posts cost a quarter less. */
#define PREFETCH_RECORDS 8

/* Waiting for another processor to leave a critical section is cheaper than
 * sleeping, unless its thread was preempted in it. Then to let others run is:
 * whoever sleeps here has to be woken, finds the lock taken by then, and has all
 * who unlock it look for sleepers. With this a post costs the same from any
 * number of threads; without, half as much again from 16. */
#define LOCK_TRIES  100
#define LOCK_YIELDS 30

/* The lock */

static gboolean
is_looked_at (BgInbox *self)
{
  return atomic_load_explicit (&self->looked_at, memory_order_relaxed);
}

/* Sleeps until this thread has the lock, which it has before a thread that comes to look now. */
static void
lock_next (BgInbox *self)
{
  g_mutex_lock (&self->next);
  g_mutex_lock (&self->lock);
  g_mutex_unlock (&self->next);
}

/* The lock is taken. */
void
bg_inbox_lock_contended (BgInbox *self)
{
  for (guint i = 0; i < LOCK_TRIES && bg_spin_is_possible () && !is_looked_at (self); i++)
    {
      for (guint pause = 0; pause < 8; pause++)
        BG_CPU_RELAX ();
      if (g_mutex_trylock (&self->lock))
        return;
    }

  for (guint i = 0; i < LOCK_YIELDS && !is_looked_at (self); i++)
    {
      bg_yield ();
      if (g_mutex_trylock (&self->lock))
        return;
    }

  lock_next (self);
}

/* The lock for whoever goes through all that there is, which takes the longer the more there is.
 * Such a thread, done with one look, may begin the next within a moment: then a thread that is
 * woken because the lock was free finds it taken, each time again. So who sleeps until it has the
 * lock holds `next` as long, and whoever looks needs `next`, too, before it may wait for the lock.
 * Of those who look only the one that has `looker`, for as long as the look takes, comes to `next`.
 * (Who waits for a condition is woken without `next`, and may find the lock taken.) */
void
bg_inbox_lock_to_look (BgInbox *self)
{
  bg_schedule_point (BG_POINT_LOCK);
  bg_lock_note_taken (self->rank);
  g_mutex_lock (&self->looker);
  lock_next (self);
  atomic_store_explicit (&self->looked_at, TRUE, memory_order_relaxed);
  bg_schedule_point (BG_POINT_LOOKS);
}

void
bg_inbox_unlock_after_look (BgInbox *self)
{
  atomic_store_explicit (&self->looked_at, FALSE, memory_order_relaxed);
  g_mutex_unlock (&self->looker);
  bg_inbox_unlock (self);
}

/* Unlocks and wakes the serving thread, in this order, or on the same processor it
 * would run into the lock at once. What was appended may have brought about the
 * end of the inbox by then, but not of the context. */
void
bg_inbox_unlock_and_wake (BgInbox *self)
{
  GMainContext *context = g_main_context_ref (self->context);

  self->wakes = FALSE;
  bg_mutex_unlock (&self->lock, self->rank);
  g_main_context_wakeup (context);
  g_main_context_unref (context);
}

/* Wakes the serving thread without unlocking, if that is necessary. */
void
bg_inbox_wake (BgInbox *self)
{
  if (self->wakes)
    g_main_context_wakeup (self->context);
  self->wakes = FALSE;
}

/* Gives up the lock until @cond is signalled, or until @deadline, in monotonic microseconds or
 * -1 for none. FALSE if the time is up. */
gboolean
bg_inbox_wait (BgInbox *self, GCond *cond, gint64 deadline)
{
  if (deadline != -1)
    return g_cond_wait_until (cond, &self->lock, deadline);

  g_cond_wait (cond, &self->lock);
  return TRUE;
}

/* Lanes */

/* Counts what waits in all lanes, and notes the most. */
guint
bg_inbox_count_queued (BgInbox *self)
{
  guint n = 0;

  for (guint i = 0; i < self->n_lanes; i++)
    n += bg_lane_get_queued (self->lanes[i]);

  self->queued_max = MAX (self->queued_max, n);
  return n;
}

guint
bg_inbox_get_n_lanes (BgInbox *self)
{
  return self->n_lanes;
}

int
bg_inbox_get_priority (BgInbox *self, guint lane)
{
  return self->lanes[lane]->priority;
}

guint
bg_inbox_get_queued (BgInbox *self, guint lane)
{
  return bg_lane_get_queued (self->lanes[lane]);
}

/* Where in the lanes @priority is, or is to be. */
guint
bg_inbox_find_lane (BgInbox *self, int priority)
{
  guint low = 0, high = self->n_lanes;

  while (low < high)
    {
      guint middle = (low + high) / 2;

      if (self->lanes[middle]->priority < priority)
        low = middle + 1;
      else
        high = middle;
    }

  return low;
}

static BgLane *
add_lane (BgInbox *self, int priority, guint position)
{
  BgLane *lane = g_new0 (BgLane, 1);

  lane->inbox = self;
  lane->priority = priority;
  bg_lane_attach (lane);

  self->lanes = g_renew (BgLane *, self->lanes, self->n_lanes + 1);
  memmove (self->lanes + position + 1, self->lanes + position,
           (self->n_lanes - position) * sizeof *self->lanes);
  self->lanes[position] = lane;
  self->n_lanes++;
  return lane;
}

static BgLane *
get_lane (BgInbox *self, int priority)
{
  guint i;

  if (G_LIKELY (priority == G_PRIORITY_DEFAULT))
    return self->default_lane;

  i = bg_inbox_find_lane (self, priority);
  if (i < self->n_lanes && self->lanes[i]->priority == priority)
    return self->lanes[i];

  return add_lane (self, priority, i);
}

/* Life */

/* @owner_funcs: (nullable): each of the sources has a reference to @owner, and so has each dispatch
 * of one. The last that goes tells that the context is gone, or the inbox stopped. What get()
 * answers with is the tag by which bg_inbox_find() finds the inbox. */
void
bg_inbox_init (BgInbox *self,
               GMainContext *context,
               gpointer owner,
               GSourceCallbackFuncs *owner_funcs,
               BgLockRank rank)
{
  g_mutex_init (&self->lock);
  g_mutex_init (&self->next);
  g_mutex_init (&self->looker);
  self->stopped = context == NULL;
  self->context = context;
  self->owner = owner;
  self->owner_funcs = owner_funcs;
  self->rank = rank;
  self->generation = bg_fork_generation ();
  atomic_init (&self->urgent, G_MAXINT);
  atomic_init (&self->linger.usec, BG_LINGER_USEC);
  atomic_init (&self->linger.server_processor, -1);
  atomic_init (&self->linger.poster_processor, -1);
  atomic_init (&self->linger.due_at, -1);
  self->activities.current = &self->activities.root;

  /* With its first source others may find it in the context. */
  bg_inbox_lock (self);
  self->default_lane = add_lane (self, G_PRIORITY_DEFAULT, 0);
  bg_inbox_unlock (self);
}

/* Whether the source is one of the lanes', or was and still runs something. On the serving
 * thread. */
gboolean
bg_inbox_owns (BgInbox *self, GSource *source)
{
  gboolean owns = g_slist_find (self->replaced, source) != NULL;

  bg_inbox_lock (self);
  for (guint i = 0; i < self->n_lanes; i++)
    owns |= (GSource *) self->lanes[i]->source == source;
  bg_inbox_unlock (self);

  return owns;
}

void
bg_inbox_free_lanes (BgInbox *self)
{
  for (guint i = 0; i < self->n_lanes; i++)
    {
      BgLane *lane = self->lanes[i];

      bg_chunks_free (lane->head);
      bg_chunks_free (lane->batch);
      if (lane->source != NULL)
        {
          lane->source->lane = NULL;
          g_source_unref (&lane->source->source);
        }
      g_free (lane);
    }

  g_clear_pointer (&self->lanes, g_free);
  self->n_lanes = 0;
}

/* Takes the sources out of the context, if they are there still. Every record must have its
 * outcome, but what is appended by others from now on, perhaps at a priority that was not in use,
 * until they are told. */
void
bg_inbox_stop (BgInbox *self)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);

  bg_inbox_lock (self);
  self->stopped = TRUE;
  /* All lanes have a source, or, where the inbox has stopped before, none has. */
  for (guint i = 0; i < self->n_lanes && self->lanes[i]->source != NULL; i++)
    {
      self->lanes[i]->source->lane = NULL;
      g_ptr_array_add (sources, g_steal_pointer (&self->lanes[i]->source));
    }
  bg_inbox_unlock (self);

  /* With the last one the lanes may go. */
  for (guint i = 0; i < sources->len; i++)
    g_source_destroy (g_ptr_array_index (sources, i));
}

void
bg_inbox_clear (BgInbox *self)
{
  bg_inbox_free_lanes (self);
  bg_chunks_free (self->pool.chunks);
  bg_chunks_free (self->done);
  while (self->activities.root.inner != NULL)
    {
      BgActivity *activity = self->activities.root.inner;

      self->activities.root.inner = activity->inner;
      g_free (activity);
    }
  g_mutex_clear (&self->lock);
  g_mutex_clear (&self->next);
  g_mutex_clear (&self->looker);
}

/* Appending */

/* Fetches the slot that is to be written in a while. */
static void
prefetch_slot (BgInbox *self, BgChunk *tail)
{
  guint n = tail->n + PREFETCH_RECORDS;

  if (n < tail->size)
    BG_PREFETCH_TO_WRITE (&tail->records[n]);
  else if (self->pool.chunks != NULL)
    BG_PREFETCH_TO_WRITE (&self->pool.chunks->records[n - tail->size]);
}

static BgChunk *
add_chunk (BgInbox *self, BgLane *lane)
{
  BgChunk *chunk = bg_chunk_pool_take (&self->pool);

  if (lane->head == NULL)
    lane->head = chunk;
  else
    lane->tail->next = chunk;
  lane->tail = chunk;
  return chunk;
}

/* What was appended is the most urgent work. */
static void
note_urgent (BgInbox *self, int priority)
{
  atomic_store_explicit (&self->urgent, priority, memory_order_relaxed);
  bg_linger_note_poster (self);
}

static void
note_wakeup (BgInbox *self)
{
  self->asleep = FALSE;
  self->wakes = TRUE;
  self->wakeups++;
  self->woken_at = g_get_monotonic_time ();
}

/* A new slot at the end of the lane of @priority, to be filled before the lock is
 * given up. */
BgRecord *
bg_inbox_append_slot (BgInbox *self, int priority)
{
  BgLane *lane = get_lane (self, priority);
  BgChunk *tail = lane->tail;

  if (G_UNLIKELY (lane->head == NULL || tail->n == tail->size))
    tail = add_chunk (self, lane);
  prefetch_slot (self, tail);

  self->posted++;
  lane->n_waiting++;
  if (G_UNLIKELY (bg_serving == self))
    self->self_posted = TRUE;
  if (G_UNLIKELY (priority < atomic_load_explicit (&self->urgent, memory_order_relaxed)))
    note_urgent (self, priority);
  if (G_UNLIKELY (self->asleep))
    note_wakeup (self);
  return &tail->records[tail->n++];
}

/* So many records more of the lane of @priority count as queued no more, though it has them; or
 * with a number below 0, count as queued though it has not. */
void
bg_inbox_count_void (BgInbox *self, int priority, int n)
{
  get_lane (self, priority)->n_void += n;
}

/* The turn of a record has come that did not count as queued. */
void
bg_inbox_take_void (BgInbox *self)
{
  self->lane->n_void--;
}

/* Sees to it that a queued record does nothing when its turn comes, and does not count
 * as queued any more. */
void
bg_inbox_withdraw (BgInbox *self, BgRecord *slot, int priority)
{
  slot->data = NULL;
  bg_inbox_count_void (self, priority, 1);
}

gboolean
bg_inbox_has_work (BgInbox *self)
{
  for (guint i = 0; i < self->n_lanes; i++)
    {
      if (bg_lane_has_work (self->lanes[i]))
        return TRUE;
    }

  return FALSE;
}
