/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <string.h>

#include <bgloop/bg-glib-private.h>
#include <bgloop/bg-inbox-private.h>

/* An inbox is a mutex and, for each priority in use, a list of chunks of records
 * behind one persistent source.
 *
 * Appending writes a record into the last chunk. Only the append that finds the
 * inbox asleep wakes the context: the sources' prepare marks it asleep and looks
 * at the queue in the same critical section, so that no append falls between.
 *
 * A dispatch takes up to BATCH_CHUNKS chunks out of the lane and runs them
 * unlocked; what is appended meanwhile waits for the next batch. A batch pauses
 * when a more urgent lane has work; the rest of it runs first when the lane's
 * turn comes again. Since everything a batch needs to know is in the lane, a
 * function may iterate the context itself: the inner dispatch goes on where the
 * outer one stands.
 *
 * The lock is a leaf but for GLib's own: the context's lock may be taken under
 * it. User code never runs under it. */

#define CHUNK_RECORDS 127 /* with the header, a chunk fills 4 KiB */
#define FIRST_RECORDS 7   /* most loops never have more at once */
#define BATCH_CHUNKS  4
#define SPARE_CHUNKS  16

/* A chunk comes back from the processor that ran its records, and so does each of
 * its cache lines, for which the lock is held the longer. Fetched so many records
 * ahead they are there in time: posts cost a quarter less. */
#define PREFETCH_RECORDS 8

/* A lane sits out one iteration in so many, to let lower priorities pass. */
#define TURNS 16

/* A batch ends early when it has taken so long. */
#define BATCH_USEC 50

/* Looking at the clock costs as much as a record: it is looked at each LOOK_USEC,
 * going by what the last records took, and after STRIDE of them at the latest. */
#define STRIDE    16
#define LOOK_USEC 10

/* Waiting for another processor to leave a critical section is cheaper than
 * sleeping, unless its thread was preempted in it. Then to let others run is:
 * whoever sleeps here has to be woken, finds the lock taken by then, and has all
 * who unlock it look for sleepers. With this a post costs the same from any
 * number of threads; without, half as much again from 16. */
#define LOCK_TRIES  100
#define LOCK_YIELDS 30

/* A server that is faster than the posters would take a record at a time, and
 * fight with them for the lock each time. So after a batch of fewer than
 * SMALL_BATCH records it leaves them alone for so many looks, some microseconds,
 * unless somebody waits. Posts cost a fourth then. */
#define SMALL_BATCH  200
#define GATHER_LOOKS 1000

/* So many lanes may stay though they are not in use. */
#define KEPT_LANES 8

/* For so long a dispatch may go on with work that arrives while it lingers. */
#define LINGER_DISPATCH_USEC 50

struct _BgChunk
{
  BgChunk *next; /* (owned) */
  guint size;
  guint n;   /* records written */
  guint pos; /* records started */
  BgRecord records[];
};

/* What serves a lane. Whoever destroys it by mistake, being run by it, takes no record
 * with it: the lane gets another one. */
struct _BgLaneSource
{
  GSource source;
  BgLane *lane;       /* (unowned) (nullable) */
  guint n_dispatches; /* by GLib that have not returned */
};

/* The inbox that this thread is serving now, the innermost. */
static BG_THREAD_LOCAL BgInbox *serving;

/* The lock is taken. */
void
bg_inbox_lock_contended (BgInbox *self)
{
  for (guint i = 0; i < LOCK_TRIES && bg_spin_is_possible (); i++)
    {
      for (guint pause = 0; pause < 8; pause++)
        BG_CPU_RELAX ();
      if (g_mutex_trylock (&self->lock))
        return;
    }

  for (guint i = 0; i < LOCK_YIELDS; i++)
    {
      bg_yield ();
      if (g_mutex_trylock (&self->lock))
        return;
    }

  g_mutex_lock (&self->lock);
}

/* Unlocks and wakes the serving thread, in this order, or on the same processor it
 * would run into the lock at once. What was appended may have brought about the
 * end of the inbox by then, but not of the context. */
void
bg_inbox_unlock_and_wake (BgInbox *self)
{
  GMainContext *context = g_main_context_ref (self->context);

  self->wakes = FALSE;
  g_mutex_unlock (&self->lock);
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

/* Chunks */

static BgChunk *
make_chunk (guint size)
{
  BgChunk *self = g_malloc (sizeof *self + size * sizeof *self->records);

  self->size = size;
  return self;
}

static BgChunk *
take_chunk (BgInbox *self)
{
  BgChunk *chunk = self->pool.chunks;

  if (chunk != NULL)
    {
      self->pool.chunks = chunk->next;
      self->pool.n--;
    }
  else
    {
      chunk = make_chunk (self->pool.grown ? CHUNK_RECORDS : FIRST_RECORDS);
      self->pool.grown = TRUE;
    }

  chunk->next = NULL;
  chunk->n = 0;
  chunk->pos = 0;
  return chunk;
}

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

static void
free_chunks (BgChunk *chunk)
{
  while (chunk != NULL)
    {
      BgChunk *next = chunk->next;

      g_free (chunk);
      chunk = next;
    }
}

/* Keeps chunks that are done for later. Returns those that are too many, to be
 * freed without the lock. */
static BgChunk *
recycle_chunks (BgInbox *self)
{
  BgChunk *surplus;

  while (self->done != NULL && self->pool.n < SPARE_CHUNKS)
    {
      BgChunk *chunk = self->done;

      self->done = chunk->next;
      chunk->next = self->pool.chunks;
      self->pool.chunks = chunk;
      self->pool.n++;
    }

  surplus = self->done;
  self->done = NULL;
  return surplus;
}

/* Lanes */

gboolean
bg_lane_has_work (BgLane *lane)
{
  return lane->head != NULL || atomic_load_explicit (&lane->n_batch, memory_order_relaxed) > 0;
}

guint
bg_lane_get_queued (BgLane *lane)
{
  guint n = lane->n_waiting + atomic_load_explicit (&lane->n_batch, memory_order_relaxed);

  /* The serving thread takes records out of the batch without the lock, and what they
   * are not counted as after that. */
  return n > lane->n_void ? n - lane->n_void : 0;
}

guint
bg_inbox_count_waiting (BgInbox *self)
{
  guint n = 0;

  for (guint i = 0; i < self->n_lanes; i++)
    n += self->lanes[i]->n_waiting - MIN (self->lanes[i]->n_waiting, self->lanes[i]->n_void);

  return n;
}

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

  inbox->waiting_max = MAX (inbox->waiting_max, bg_inbox_count_waiting (inbox));
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
settle_batch (BgLane *lane)
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
      settle_batch (lane);
      chunk = lane->batch;
    }
  if (chunk == NULL)
    return NULL;

  bg_count (&lane->n_batch, -1);
  return &chunk->records[chunk->pos++];
}

/* Notes the time, and says how many records to run before doing so again. */
static guint
look_at_clock (BgInbox *self, guint stride)
{
  gint64 now = g_get_monotonic_time ();
  gint64 took = now - atomic_load_explicit (&self->activities.started_at, memory_order_relaxed);

  atomic_store_explicit (&self->activities.started_at, now, memory_order_relaxed);
  if (atomic_load_explicit (&self->timing, memory_order_relaxed))
    return 1;

  return (guint) CLAMP (stride * LOOK_USEC / MAX (took, 1), 1, MIN (stride * 2, STRIDE));
}

/* A function that runs may iterate the context, and so have other records run
 * within it. */
gboolean
bg_inbox_is_nested (BgInbox *self)
{
  return self->depth > 1;
}

/* Has the record come again when the outermost function has returned. */
void
bg_inbox_defer (BgInbox *self, const BgRecord *record)
{
  if (self->deferred == NULL)
    self->deferred = g_array_new (FALSE, FALSE, sizeof (BgRecord));
  g_array_append_vals (self->deferred, record, 1);
}

static void
append_deferred (BgInbox *self)
{
  bg_inbox_lock (self);
  for (guint i = 0; i < self->deferred->len; i++)
    {
      BgRecord *record = &g_array_index (self->deferred, BgRecord, i);

      bg_inbox_requeue (self, G_PRIORITY_DEFAULT, record->outcome, record->func, record->data,
                        record->destroy);
    }
  bg_inbox_unlock (self);
  g_clear_pointer (&self->deferred, g_array_unref);
}

/* This is a forked child, which has nothing to do with the parent's work: the
 * function that forked it returned. */
static gboolean
is_inherited (BgInbox *self)
{
  return self->generation != bg_fork_generation ();
}

static void
run_batch (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  gboolean outermost = inbox->activities.current == &inbox->activities.root;
  BgInbox *outer_serving = serving;
  BgLane *outer_lane = inbox->lane;
  gint64 start, end;
  guint stride = 1, left = 1;
  BgRecord *slot;

  bg_inbox_push_activity (inbox, NULL);
  start = atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed);
  if (outermost)
    atomic_store_explicit (&inbox->counts.batch_began_at, start, memory_order_relaxed);
  serving = inbox;
  inbox->lane = lane;
  inbox->depth++;
  while ((slot = next_record (lane)) != NULL)
    {
      atomic_store_explicit (&inbox->activities.running, slot->func, memory_order_relaxed);
      slot->outcome (slot, inbox->owner);
      if (G_UNLIKELY (is_inherited (inbox)))
        return;

      if ((--left == 0 || atomic_load_explicit (&inbox->timing, memory_order_relaxed))
          && atomic_load_explicit (&lane->n_batch, memory_order_relaxed) > 0)
        {
          left = stride = look_at_clock (inbox, stride);
          if (atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed) - start
              > BATCH_USEC)
            break;
        }
      if (atomic_load_explicit (&inbox->urgent, memory_order_relaxed) < lane->priority)
        break;
    }

  settle_batch (lane);
  if (--inbox->depth == 0 && inbox->deferred != NULL)
    append_deferred (inbox);
  serving = outer_serving;
  inbox->lane = outer_lane;
  end = bg_inbox_pop_activity (inbox);
  bg_count (&inbox->counts.batches, 1);
  if (!outermost)
    return;

  atomic_store_explicit (&inbox->counts.batch_began_at, 0, memory_order_relaxed);
  bg_count (&inbox->counts.busy_usec, end - start);
  if (end - start > atomic_load_explicit (&inbox->counts.longest_usec, memory_order_relaxed))
    atomic_store_explicit (&inbox->counts.longest_usec, end - start, memory_order_relaxed);
}

/* After a sleep: how long would the loop have had to stay awake instead? */
static void
learn_from_sleep (BgInbox *self)
{
  gint64 slept = self->woken_at - self->history.spin.began;

  self->woken_at = 0;
  if (atomic_load_explicit (&self->linger.poster_slept, memory_order_relaxed))
    slept -= BG_WAKE_USEC;
  bg_spin_learn (&self->history.spin, slept);
}

static void
serve_lane (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  BgChunk *surplus;

  if (lane->batch == NULL)
    {
      bg_inbox_lock (inbox);
      if (inbox->woken_at != 0)
        learn_from_sleep (inbox);
      surplus = recycle_chunks (inbox);
      inbox->history.batch_size = 0;
      take_batch (lane);
      if (inbox->history.batch_size > 0)
        inbox->history.pressed
            = atomic_load_explicit (&inbox->linger.pressing, memory_order_relaxed);
      atomic_store_explicit (&inbox->linger.pressing, FALSE, memory_order_relaxed);
      inbox->self_posted = FALSE;
      inbox->crowded = inbox->n_lanes > KEPT_LANES;
      bg_inbox_unlock (inbox);
      free_chunks (surplus);
    }

  if (lane->batch == NULL)
    return;

  atomic_store_explicit (&inbox->linger.poster_slept, FALSE, memory_order_relaxed);
  run_batch (lane);
}

/* Whether whoever posts can do so while this thread, the server's, spins. */
static gboolean
is_fed_from_elsewhere (BgInbox *self)
{
  int processor = bg_spin_get_processor ();

  atomic_store_explicit (&self->linger.server_processor, processor, memory_order_relaxed);
  return processor == -1
         || processor
                != atomic_load_explicit (&self->linger.poster_processor, memory_order_relaxed);
}

/* Whether the server can work while this thread spins. */
gboolean
bg_inbox_is_served_elsewhere (BgInbox *self)
{
  int processor = bg_spin_get_processor ();

  return processor == -1
         || processor
                != atomic_load_explicit (&self->linger.server_processor, memory_order_relaxed);
}

/* Lets more records gather, if the last batch was small and nobody waits. */
static void
gather (BgInbox *self)
{
  if (self->history.batch_size >= SMALL_BATCH || !is_fed_from_elsewhere (self))
    return;

  for (guint i = 0; i < GATHER_LOOKS; i++)
    {
      if (atomic_load_explicit (&self->linger.pressing, memory_order_relaxed)
          || atomic_load_explicit (&self->linger.interrupted, memory_order_relaxed))
        return;
      BG_CPU_RELAX ();
    }
}

static gboolean
has_something_to_do (gpointer data)
{
  BgInbox *self = data;

  return atomic_load_explicit (&self->urgent, memory_order_relaxed) != G_MAXINT
         || atomic_load_explicit (&self->linger.interrupted, memory_order_relaxed);
}

static gboolean
is_idle (BgInbox *self)
{
  return self->n_batches == 0
         && atomic_load_explicit (&self->urgent, memory_order_relaxed) == G_MAXINT;
}

/* How long the server may stay awake, in microseconds: not beyond what is due. */
static guint
get_linger (BgInbox *self)
{
  guint linger = atomic_load_explicit (&self->linger.usec, memory_order_relaxed);
  gint64 due = atomic_load_explicit (&self->linger.due_at, memory_order_relaxed);

  if (linger > 0 && due != -1)
    linger = (guint) CLAMP (due - g_get_monotonic_time (), 0, linger);
  return linger;
}

/* Everything is done: stays awake for a moment, for what may come next. TRUE if
 * something has come. On the poster's own processor only its being answered gives
 * it something to do at once. */
gboolean
bg_inbox_linger (BgInbox *self)
{
  guint linger = get_linger (self);

  if (linger == 0 || atomic_load_explicit (&self->linger.n_expected, memory_order_relaxed) == 0
      || atomic_load_explicit (&self->linger.n_pending, memory_order_relaxed) > 0)
    return FALSE;
  if (is_fed_from_elsewhere (self))
    return bg_spin (&self->history.spin, linger, has_something_to_do, self);

  return self->history.pressed && bg_spin_yield (&self->history.spin, has_something_to_do, self);
}

/* With the lock held, on the serving thread: from here on an append wakes the context. */
void
bg_inbox_fall_asleep (BgInbox *self)
{
  self->asleep = TRUE;
  self->fell_asleep = TRUE;
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

static gboolean
lane_prepare (GSource *source, int *timeout)
{
  BgLane *lane = ((BgLaneSource *) source)->lane;
  BgInbox *inbox;
  gboolean ready;

  *timeout = -1;
  if (lane == NULL || lane->inbox->generation != bg_fork_generation ())
    return FALSE;

  inbox = lane->inbox;
  if (lane->yields_next || inbox->history.staying == lane)
    {
      *timeout = 0;
      return FALSE;
    }

  bg_inbox_lock (inbox);
  ready = !inbox->paused && bg_lane_has_work (lane);
  if (!ready && inbox->history.staying == NULL)
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
  ready = !inbox->paused && (bg_lane_has_work (lane) || inbox->history.staying == lane);
  if (inbox->history.staying == lane)
    inbox->history.staying = NULL;
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
      serve_lane (lane);
      if (lane->batch != NULL || inbox->history.batch_size >= SMALL_BATCH || inbox->self_posted)
        return;

      now = atomic_load_explicit (&inbox->activities.started_at, memory_order_relaxed);
      if (start == 0)
        start = now;
      inbox->history.staying = now - start > LINGER_DISPATCH_USEC ? lane : NULL;
      if (inbox->history.staying != NULL || (is_idle (inbox) && !bg_inbox_linger (inbox)))
        return;

      /* G_MAXINT may also mean that nothing waits, while another lane has the rest
       * of a batch to do. */
      urgent = atomic_load_explicit (&inbox->urgent, memory_order_relaxed);
      if (urgent != lane->priority || urgent == G_MAXINT)
        return;

      gather (inbox);
    }
}

/* In the dispatch of a source that is the loop's own: whoever does one thing at a
 * time is to know that this was none. What runs within something else does not
 * count. */
void
bg_inbox_note_stale_dispatch (BgInbox *self)
{
  if (g_main_depth () == self->stale_depth)
    self->n_stale_dispatches++;
}

static void retire_lane (BgLane *lane);
static void attach_lane (BgLane *lane);

static gboolean
lane_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgLane *lane = ((BgLaneSource *) source)->lane;
  BgInbox *inbox;
  gboolean busy;

  if (lane == NULL)
    return G_SOURCE_REMOVE;

  inbox = lane->inbox;
  /* The loop may have begun to stop, or stands still, since the lane was found
   * ready. Only this thread writes it. */
  if (inbox->paused)
    {
      bg_inbox_note_stale_dispatch (inbox);
      return G_SOURCE_CONTINUE;
    }

  ((BgLaneSource *) source)->n_dispatches++;
  lane->n_dispatches++;
  serve_while_it_pays (lane);
  lane->n_dispatches--;
  ((BgLaneSource *) source)->n_dispatches--;
  if (is_inherited (inbox))
    return G_SOURCE_CONTINUE;

  if (serving != NULL)
    serving->self_posted = TRUE;
  atomic_store_explicit (&inbox->linger.interrupted, FALSE, memory_order_relaxed);

  busy = inbox->history.staying == lane || lane->batch != NULL
         || atomic_load_explicit (&inbox->urgent, memory_order_relaxed) <= lane->priority;
  lane->turns = busy ? lane->turns + 1 : 0;
  if (lane->turns == TURNS)
    {
      lane->turns = 0;
      lane->yields_next = TRUE;
    }

  if (G_UNLIKELY (g_source_is_destroyed (source)) && lane->source == (BgLaneSource *) source)
    {
      bg_inbox_lock (inbox);
      attach_lane (lane);
      bg_inbox_unlock (inbox);
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

static void
detach_lane (BgLane *lane)
{
  lane->source->lane = NULL;
  g_source_destroy (&lane->source->source);
  g_source_unref (&lane->source->source);
  lane->source = NULL;
}

/* Gives the lane a source, or another one. */
static void
attach_lane (BgLane *lane)
{
  BgInbox *inbox = lane->inbox;
  GSource *source;

  if (inbox->stopped)
    return;

  source = g_source_new (&lane_funcs, sizeof (BgLaneSource));
  if (lane->source != NULL)
    {
      if (lane == inbox->default_lane && inbox->tag_funcs != NULL)
        {
          inbox->tag_funcs->ref (inbox->tag_data);
          g_source_set_callback_indirect (source, inbox->tag_data, inbox->tag_funcs);
        }
      detach_lane (lane);
    }

  lane->source = (BgLaneSource *) source;
  lane->source->lane = lane;
  g_source_set_static_name (source, "bgloop inbox");
  g_source_set_priority (source, lane->priority);
  g_source_set_can_recurse (source, TRUE);
  g_source_attach (source, inbox->context);
  inbox->n_sources++;
}

/* Where in the lanes @priority is, or is to be. */
static guint
find_lane (BgInbox *self, int priority)
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
  attach_lane (lane);

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

  i = find_lane (self, priority);
  if (i < self->n_lanes && self->lanes[i]->priority == priority)
    return self->lanes[i];

  return add_lane (self, priority, i);
}

/* Gives up a lane that is not in use, so that the priorities that were used once do
 * not cost each iteration something for ever. */
static void
retire_lane (BgLane *lane)
{
  BgInbox *self = lane->inbox;
  gboolean retires;
  guint position;

  bg_inbox_lock (self);
  retires = lane != self->default_lane && !bg_lane_has_work (lane) && !self->stopped;
  if (retires)
    {
      position = find_lane (self, lane->priority);
      self->n_lanes--;
      memmove (self->lanes + position, self->lanes + position + 1,
               (self->n_lanes - position) * sizeof *self->lanes);
    }
  bg_inbox_unlock (self);

  if (!retires)
    return;

  if (self->history.staying == lane)
    self->history.staying = NULL;
  detach_lane (lane);
  g_free (lane);
}

/* The inbox */

void
bg_inbox_init (BgInbox *self, GMainContext *context, gpointer owner)
{
  g_mutex_init (&self->lock);
  self->stopped = context == NULL;
  self->context = context;
  self->owner = owner;
  self->generation = bg_fork_generation ();
  atomic_init (&self->urgent, G_MAXINT);
  atomic_init (&self->linger.usec, BG_LINGER_USEC);
  atomic_init (&self->linger.server_processor, -1);
  atomic_init (&self->linger.poster_processor, -1);
  atomic_init (&self->linger.due_at, -1);
  self->activities.current = &self->activities.root;
  self->default_lane = add_lane (self, G_PRIORITY_DEFAULT, 0);
}

/* Whether the source is one of the lanes'. On the serving thread. */
gboolean
bg_inbox_owns (BgInbox *self, GSource *source)
{
  gboolean owns = FALSE;

  bg_inbox_lock (self);
  for (guint i = 0; i < self->n_lanes; i++)
    owns |= &self->lanes[i]->source->source == source;
  bg_inbox_unlock (self);

  return owns;
}

/* Gives the lane of a new inbox a callback whose funcs->get() answers with the tag
 * by which bg_inbox_find() finds it, and whose funcs->unref() tells when the
 * context is gone. Takes over a reference to @data. */
void
bg_inbox_tag (BgInbox *self, GSourceCallbackFuncs *funcs, gpointer data)
{
  self->tag_funcs = funcs;
  self->tag_data = data;
  g_source_set_callback_indirect (&self->default_lane->source->source, data, funcs);
}

BgInbox *
bg_inbox_find (GMainContext *context, gpointer tag)
{
  GSource *source = g_main_context_find_source_by_funcs_user_data (context, &lane_funcs, tag);

  return source != NULL ? ((BgLaneSource *) source)->lane->inbox : NULL;
}

static void
free_lanes (BgInbox *self)
{
  for (guint i = 0; i < self->n_lanes; i++)
    {
      BgLane *lane = self->lanes[i];

      free_chunks (lane->head);
      free_chunks (lane->batch);
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

  free_lanes (self);
}

/* Takes the sources out of the context. Every record must have its outcome. */
void
bg_inbox_stop (BgInbox *self)
{
  self->stopped = TRUE;
  for (guint i = 0; i < self->n_lanes; i++)
    {
      if (self->lanes[i] != self->default_lane)
        g_source_destroy (&self->lanes[i]->source->source);
    }
  /* Last: with its tag the lanes may go. */
  if (self->n_lanes > 0)
    g_source_destroy (&self->default_lane->source->source);
}

void
bg_inbox_clear (BgInbox *self)
{
  free_lanes (self);
  free_chunks (self->pool.chunks);
  free_chunks (self->done);
  while (self->activities.root.inner != NULL)
    {
      BgActivity *activity = self->activities.root.inner;

      self->activities.root.inner = activity->inner;
      g_free (activity);
    }
  g_mutex_clear (&self->lock);
}

/* Somebody waits for what was appended. */
void
bg_inbox_press (BgInbox *self)
{
  if (!atomic_load_explicit (&self->linger.pressing, memory_order_relaxed))
    atomic_store_explicit (&self->linger.pressing, TRUE, memory_order_relaxed);
}

/* Makes sure that the serving thread does not linger, for there is something
 * for it to do that is no record. To be called when that is in the context: whoever
 * stops lingering takes the context's lock, which is still needed to put it there. */
void
bg_inbox_interrupt (BgInbox *self)
{
  atomic_store_explicit (&self->linger.interrupted, TRUE, memory_order_relaxed);
}

/* Whoever is to send the next record has just been woken, and needs a while. */
void
bg_inbox_note_woken (BgInbox *self)
{
  atomic_store_explicit (&self->linger.poster_slept, TRUE, memory_order_relaxed);
}

static BgChunk *
add_chunk (BgInbox *self, BgLane *lane)
{
  BgChunk *chunk = take_chunk (self);

  if (lane->head == NULL)
    lane->head = chunk;
  else
    lane->tail->next = chunk;
  lane->tail = chunk;
  return chunk;
}

/* Records come from the processor that this thread is on. */
void
bg_inbox_note_poster (BgInbox *self)
{
  atomic_store_explicit (&self->linger.poster_processor, bg_spin_get_processor (),
                         memory_order_relaxed);
}

/* What was appended is the most urgent work. */
static void
note_urgent (BgInbox *self, int priority)
{
  atomic_store_explicit (&self->urgent, priority, memory_order_relaxed);
  bg_inbox_note_poster (self);
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
  if (G_UNLIKELY (serving == self))
    self->self_posted = TRUE;
  if (G_UNLIKELY (priority < atomic_load_explicit (&self->urgent, memory_order_relaxed)))
    note_urgent (self, priority);
  if (G_UNLIKELY (self->asleep))
    note_wakeup (self);
  return &tail->records[tail->n++];
}

/* So many records in the lane of @priority, which has them, count as queued no more. */
void
bg_inbox_count_void (BgInbox *self, int priority, int n)
{
  get_lane (self, priority)->n_void += (guint) n;
}

/* Sees to it that a queued record does nothing when its turn comes, and does not count
 * as queued any more. */
void
bg_inbox_withdraw (BgInbox *self, BgRecord *slot, int priority)
{
  slot->data = NULL;
  bg_inbox_count_void (self, priority, 1);
}

/* The data of the record whose turn it is; NULL if it was withdrawn. To be called by its
 * outcome first. */
gpointer
bg_inbox_take (BgInbox *self, BgRecord *slot)
{
  if (slot->data == NULL)
    self->lane->n_void--;
  return slot->data;
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

/* From now on the lanes' sources stand still, and bg_inbox_run() serves them. */
void
bg_inbox_pause (BgInbox *self)
{
  self->paused = TRUE;
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
      if (++lane->turns < TURNS)
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
  serve_lane (lane);
  lane->n_dispatches--;
}

/* Runs the next record alone; FALSE if there is none. */
gboolean
bg_inbox_run_one (BgInbox *self)
{
  BgLane *lane = NULL;
  BgInbox *outer_serving = serving;
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

  bg_inbox_push_activity (self, slot->func);
  serving = self;
  self->lane = lane;
  lane->n_dispatches++;
  slot->outcome (slot, self->owner);
  lane->n_dispatches--;
  serving = outer_serving;
  self->lane = outer_lane;
  settle_batch (lane);
  bg_inbox_pop_activity (self);
  return TRUE;
}

/* Activities */

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
  self->activities.current = activity;
  atomic_store_explicit (&self->activities.started_at, g_get_monotonic_time (),
                         memory_order_relaxed);
  atomic_store_explicit (&self->activities.running, func, memory_order_relaxed);
}

/* What ran before goes on, and has run since it began. Returns the time. */
gint64
bg_inbox_pop_activity (BgInbox *self)
{
  BgActivity *activity = self->activities.current;
  gint64 now = g_get_monotonic_time ();

  self->activities.current = activity->outer;
  atomic_store_explicit (&self->activities.running, activity->func, memory_order_relaxed);
  atomic_store_explicit (&self->activities.started_at,
                         activity->func != NULL ? activity->started_at : now, memory_order_relaxed);
  return now;
}

/* Something has ended the thread: what ran does not go on, and what is half done gets
 * its outcome. Sources that the thread dispatched are added to @sources. */
void
bg_inbox_abandon_activities (BgInbox *self, GPtrArray *sources)
{
  serving = NULL;
  self->depth = 0;
  while (self->activities.current != &self->activities.root)
    {
      BgRecord kept = self->activities.current->kept;

      self->activities.current->kept.outcome = NULL;
      if (kept.outcome != NULL)
        kept.outcome (&kept, self->owner);
      self->activities.current = self->activities.current->outer;
    }
  atomic_store_explicit (&self->activities.running, NULL, memory_order_relaxed);

  for (guint i = 0; i < self->n_lanes; i++)
    {
      BgLane *lane = self->lanes[i];

      lane->n_dispatches = 0;
      if (lane->source != NULL)
        bg_glib_abandon_dispatches (&lane->source->source, lane->source->n_dispatches, sources);
    }
  if (self->deferred != NULL)
    append_deferred (self);
}
