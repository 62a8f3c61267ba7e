/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <string.h>

#include <bgloop/base/bg-macros-private.h>
#include <bgloop/base/bg-trace-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

/* The serving thread's side of an inbox: its sources, batches, and the order at the end.
 *
 * A dispatch takes up to BATCH_CHUNKS chunks out of the lane, under the inbox's lock, and runs
 * them unlocked; what is appended meanwhile waits for the next batch. A batch pauses when a
 * more urgent lane has work; the rest of it runs first when the lane's turn comes again. Since
 * everything a batch needs to know is in the lane, a function may iterate the context itself:
 * the inner dispatch goes on where the outer one stands. */

#define BATCH_CHUNKS 4

/* A batch ends early when it has taken so long. */
#define BATCH_USEC 50

/* Looking at the clock costs as much as a record: it is looked at each SAMPLE_USEC,
 * going by what the last records took, and after SAMPLE_RECORDS of them at the latest. */
#define SAMPLE_RECORDS 16
#define SAMPLE_USEC    10

/* So many lanes may stay though they are not in use. */
#define KEPT_LANES 8

/* The inbox that this thread is serving now, the innermost. */
BG_THREAD_LOCAL BgInbox *bg_serving;

/* Batches */

static void
update_urgent (BgInbox *self)
{
  int urgent = G_MAXINT;

  for (guint i = 0; i < self->n_lanes; i++)
    {
      if (self->lanes[i]->head != NULL)
        {
          urgent = self->lanes[i]->priority;
          break;
        }
    }

  atomic_store_explicit (&self->urgent, urgent, memory_order_relaxed);
}

/* Moves up to a batch of chunks from the lane's queue to its batch. */
static void
take_batch (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  BgChunk *last = lane->head;
  guint n = 0;

  if (last == NULL)
    return;

  n = last->n;
  for (guint i = 1; i < BATCH_CHUNKS && last->next != NULL; i++)
    {
      last = last->next;
      n += last->n;
    }

  bg_inbox_count_queued (inbox);
  lane->batch = lane->head;
  lane->head = last->next;
  last->next = NULL;
  lane->n_waiting -= n;
  inbox->history.batch_size = n;
  inbox->n_batches++;
  atomic_store_explicit (&lane->n_batch, n, memory_order_relaxed);
  if (lane->head == NULL)
    update_urgent (inbox);
}

/* Puts the chunks of the batch that are done aside. */
static void
complete_batch (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;

  while (lane->batch != NULL && lane->batch->pos == lane->batch->n)
    {
      BgChunk *done = lane->batch;

      lane->batch = done->next;
      if (lane->batch == NULL)
        inbox->n_batches--;
      done->next = inbox->done;
      inbox->done = done;
    }
}

static inline BgRecord *
next_record (BgLane *lane)
{
  BgChunk *chunk = lane->batch;

  if (chunk != NULL && G_UNLIKELY (chunk->pos == chunk->n))
    {
      complete_batch (lane);
      chunk = lane->batch;
    }
  if (chunk == NULL)
    return NULL;

  bg_count (&lane->n_batch, -1);
  return &chunk->records[chunk->pos++];
}

/* Notes the time, and says how many records to run before doing so again. */
static guint
sample_clock (BgInbox *self, guint sample)
{
  gint64 now = g_get_monotonic_time ();
  gint64 took = now - atomic_load_explicit (&self->activities.started_at, memory_order_relaxed);

  atomic_store_explicit (&self->activities.started_at, now, memory_order_relaxed);
  if (atomic_load_explicit (&self->timing, memory_order_relaxed))
    return 1;

  return (guint) CLAMP (sample * SAMPLE_USEC / MAX (took, 1), 1, MIN (sample * 2, SAMPLE_RECORDS));
}

/* A function that runs may iterate the context, and so have other records run
 * within it. */
gboolean
bg_inbox_is_nested (BgInbox *self)
{
  return self->depth > 1;
}

/* Has the record come again when the outermost function has returned. Until then it is in no
 * lane, and counts as queued at the default priority all the same. */
void
bg_inbox_defer (BgInbox *self, const BgRecord *record)
{
  if (self->deferred == NULL)
    self->deferred = g_array_new (FALSE, FALSE, sizeof (BgRecord));
  g_array_append_vals (self->deferred, record, 1);
}

void
bg_inbox_append_deferred (BgInbox *self)
{
  bg_inbox_lock (self);
  for (guint i = 0; i < self->deferred->len; i++)
    {
      BgRecord *record = &g_array_index (self->deferred, BgRecord, i);

      bg_inbox_append_void (self, G_PRIORITY_DEFAULT, record->outcome, record->func, record->data,
                            record->destroy);
    }
  bg_inbox_unlock (self);
  g_clear_pointer (&self->deferred, g_array_unref);
}

/* Any thread, with the lock held: what is left of the batches. It changes with each record. */
guint
bg_inbox_get_left (BgInbox *self)
{
  guint n = 0;

  for (guint i = 0; i < self->n_lanes; i++)
    n += atomic_load_explicit (&self->lanes[i]->n_batch, memory_order_relaxed);
  return n;
}

static void
run_batch (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  gboolean outermost = inbox->activities.current == &inbox->activities.root;
  BgInbox *outer_serving = bg_serving;
  BgLane *outer_lane = inbox->lane;
  gint64 start, end;
  guint sample = 1, left = 1;
  BgRecord *slot;

  bg_inbox_step (inbox);
  bg_inbox_push_activity (inbox, NULL);
  start = atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed);
  if (outermost)
    bg_inbox_begin_busy (inbox, start);
  bg_serving = inbox;
  inbox->lane = lane;
  inbox->depth++;
  while ((slot = next_record (lane)) != NULL)
    {
      atomic_store_explicit (&inbox->activities.running, slot->func, memory_order_relaxed);
      bg_lock_assert_none ();
      slot->outcome (slot, inbox->owner);
      if (G_UNLIKELY (bg_inbox_is_inherited (inbox)))
        return;

      if ((--left == 0 || atomic_load_explicit (&inbox->timing, memory_order_relaxed))
          && atomic_load_explicit (&lane->n_batch, memory_order_relaxed) > 0)
        {
          left = sample = sample_clock (inbox, sample);
          if (atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed) - start
              > BATCH_USEC)
            break;
        }
      if (atomic_load_explicit (&inbox->urgent, memory_order_relaxed) < lane->priority)
        break;
    }

  complete_batch (lane);
  if (--inbox->depth == 0 && inbox->deferred != NULL)
    bg_inbox_append_deferred (inbox);
  bg_serving = outer_serving;
  inbox->lane = outer_lane;
  bg_inbox_step (inbox);
  end = bg_inbox_pop_activity (inbox);
  bg_count (&inbox->counts.batches, 1);
  if (outermost)
    bg_inbox_end_busy (inbox, end);
}

void
bg_lane_serve (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  BgChunk *surplus;
  gint64 begun;

  if (lane->batch == NULL)
    {
      bg_inbox_lock (inbox);
      if (inbox->woken_at != 0)
        bg_linger_learn (inbox);
      surplus = bg_chunk_pool_recycle (&inbox->pool, &inbox->done);
      inbox->history.batch_size = 0;
      take_batch (lane);
      if (inbox->history.batch_size > 0)
        inbox->history.was_awaited
            = atomic_load_explicit (&inbox->linger.awaited, memory_order_relaxed);
      atomic_store_explicit (&inbox->linger.awaited, FALSE, memory_order_relaxed);
      inbox->self_posted = FALSE;
      inbox->crowded = inbox->n_lanes > KEPT_LANES;
      bg_inbox_unlock (inbox);
      bg_chunks_free (surplus);
    }

  if (lane->batch == NULL)
    return;

  atomic_store_explicit (&inbox->linger.poster_slept, FALSE, memory_order_relaxed);
  begun = bg_trace_begin ();
  run_batch (lane);
  if (!bg_inbox_is_inherited (inbox))
    bg_trace_end (begun, "batch", "up to %u at priority %d", inbox->history.batch_size,
                  lane->priority);
}

/* Asleep and awake */

/* With the lock held, on the serving thread: from here on an append wakes the context. */
void
bg_inbox_fall_asleep (BgInbox *self)
{
  self->asleep = TRUE;
  self->fell_asleep = TRUE;
}

/* There is work: an append need not wake the context. */
void
bg_inbox_stay_awake (BgInbox *self)
{
  self->asleep = FALSE;
}

/* The context has polled: whatever is appended now is found when it polls next. */
void
bg_inbox_awake (BgInbox *self)
{
  if (!self->fell_asleep)
    return;

  self->fell_asleep = FALSE;
  bg_inbox_lock (self);
  self->asleep = FALSE;
  bg_inbox_unlock (self);
}

/* Of the library's own sources, which do nothing but hand work on: how many this thread has counted,
 * and at which depth they count. */
static BG_THREAD_LOCAL guint n_stale_dispatches;
static BG_THREAD_LOCAL int stale_depth;

/* In the dispatch of one of the library's own sources: a step of the test kit is not to take it
 * for a piece of work. A dispatch within another one does not count. */
void
bg_inbox_note_stale_dispatch (void)
{
  if (g_main_depth () == stale_depth)
    n_stale_dispatches++;
}

/* The context is going: takes the lanes, whose source may not be touched after
 * it, and destroys the data of every record that is left. */
void
bg_inbox_discard (BgInbox *self, GDestroyNotify destroy_data)
{
  self->stopped = TRUE;
  for (guint i = 0; i < self->n_lanes; i++)
    {
      BgLane *lane = self->lanes[i];
      BgRecord *slot;

      for (; lane->batch != NULL || lane->head != NULL; take_batch (lane))
        {
          while ((slot = next_record (lane)) != NULL)
            destroy_data (slot->data);
        }
    }

  bg_inbox_free_lanes (self);
}

/* Served by somebody else than GLib */

/* The data of the record whose turn it is; NULL if it was withdrawn. A record's outcome
 * calls this before anything else. */
gpointer
bg_inbox_take (BgInbox *self, BgRecord *slot)
{
  if (slot->data == NULL)
    bg_inbox_take_void (self);
  return slot->data;
}

/* Whether the lanes' sources stand still. */
void
bg_inbox_set_paused (BgInbox *self, gboolean paused)
{
  self->paused = paused;
}

/* From now on the lanes' sources stand still, and bg_inbox_run() serves them. */
void
bg_inbox_pause (BgInbox *self)
{
  bg_inbox_set_paused (self, TRUE);
  atomic_store_explicit (&self->timing, TRUE, memory_order_relaxed);
}

/* The most urgent lane that has work, but each so many turns of a lane the one that
 * comes after it. */
static BgLane *
choose_lane (BgInbox *self)
{
  BgLane *lane = NULL;

  for (guint i = 0; i < self->n_lanes; i++)
    {
      if (!bg_lane_has_work (self->lanes[i]))
        continue;

      lane = self->lanes[i];
      if (++lane->turns < BG_LANE_TURNS)
        break;
      lane->turns = 0;
    }

  return lane;
}

/* Runs a batch of a lane that has work. */
void
bg_inbox_run (BgInbox *self)
{
  BgLane *lane;

  bg_inbox_lock (self);
  lane = choose_lane (self);
  bg_inbox_unlock (self);

  if (lane == NULL)
    return;

  lane->n_dispatches++;
  bg_lane_serve (lane);
  lane->n_dispatches--;
}

/* Runs the next record alone; FALSE if there is none. */
gboolean
bg_inbox_run_one (BgInbox *self)
{
  BgLane *lane = NULL;
  BgInbox *outer_serving = bg_serving;
  BgLane *outer_lane = self->lane;
  BgRecord *slot;

  bg_inbox_lock (self);
  for (guint i = 0; i < self->n_lanes && lane == NULL; i++)
    {
      if (bg_lane_has_work (self->lanes[i]))
        lane = self->lanes[i];
    }
  if (lane != NULL && lane->batch == NULL)
    take_batch (lane);
  bg_inbox_unlock (self);

  slot = lane != NULL ? next_record (lane) : NULL;
  if (slot == NULL)
    return FALSE;

  bg_inbox_step (self);
  bg_inbox_push_activity (self, slot->func);
  bg_serving = self;
  self->lane = lane;
  lane->n_dispatches++;
  slot->outcome (slot, self->owner);
  lane->n_dispatches--;
  bg_serving = outer_serving;
  self->lane = outer_lane;
  complete_batch (lane);
  bg_inbox_pop_activity (self);
  return TRUE;
}

/* Gives the sources of the context one turn; FALSE if none was ready. @stale says
 * whether it was the loop's own only, through which work arrives. */
gboolean
bg_inbox_iterate (BgInbox *self, gboolean *stale)
{
  guint n_stale = n_stale_dispatches;
  int outer_depth = stale_depth;
  gboolean dispatched;

  stale_depth = g_main_depth () + 1;
  dispatched = g_main_context_iteration (self->context, FALSE);
  stale_depth = outer_depth;

  *stale = n_stale_dispatches != n_stale;
  return dispatched;
}
