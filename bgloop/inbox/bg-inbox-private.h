/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-macros-private.h>
#include <bgloop/inbox/bg-activity-private.h>
#include <bgloop/inbox/bg-counts-private.h>
#include <bgloop/inbox/bg-linger-private.h>
#include <bgloop/inbox/bg-queue-private.h>

G_BEGIN_DECLS

typedef struct _BgInbox BgInbox;
typedef struct _BgLane BgLane;
typedef struct _BgLaneSource BgLaneSource;

/* Between fields that different threads write all the time: what one of them
 * writes is not to take the others' out of a processor's cache. */
#define BG_CACHE_LINE_BYTES     64
#define BG_CACHE_LINE           _Alignas(BG_CACHE_LINE_BYTES)
#define BG_CACHE_LINE_GAP(name) char name[BG_CACHE_LINE_BYTES] /* in what cannot be aligned */

/* Queues records, one first-in-first-out lane per priority, and serves them on
 * the thread that iterates @context.
 *
 * It has many fields since it is laid out by who writes them, not by what they are about: each of
 * the groups from the second on begins a cache line. What is one file's alone is a struct within
 * its group. */
struct _BgInbox
{
  /* immutable */
  GMainContext *context;             /* (unowned) */
  gpointer owner;                    /* (unowned) */
  GSourceCallbackFuncs *owner_funcs; /* (nullable) */
  BgLane *default_lane;              /* (unowned) */
  guint generation;                  /* the process that the inbox belongs to */
  BgLockRank rank;                   /* of its lock: a core's, or a mailbox's */

  /* atomic, rarely written */
  BG_CACHE_LINE _Atomic int urgent; /* the most urgent priority with work that is in no batch;
                                     * written under lock */
  _Atomic gboolean timing;          /* somebody wants to know when each record starts */
  BgLinger linger;

  BG_CACHE_LINE GMutex lock;

  /* under lock */
  BgLane **lanes; /* (owned) most urgent first */
  guint n_lanes;
  BgChunkPool pool;
  gboolean asleep;         /* an append must wake the context */
  gboolean wakes;          /* whoever unlocks wakes the context */
  gboolean paused;         /* the lanes' own sources stand still: bg_inbox_run() serves them */
  gboolean self_posted;    /* what runs in this dispatch has appended something */
  gboolean stopped;        /* the sources are out of the context for good */
  guint queued_max;        /* at most waited, before a batch was taken or when somebody looked */
  _Atomic guint n_sources; /* that were put into the context */
  guint64 posted;
  guint64 wakeups;
  gint64 woken_at; /* when it was last woken, monotonic microseconds; 0: long ago */

  /* for who has the lock next: see bg_inbox_lock_to_look() */
  GMutex looker;              /* taken before the other two */
  GMutex next;                /* taken before the lock */
  _Atomic gboolean looked_at; /* whoever has the lock keeps it for long */

  /* the serving thread only */
  BG_CACHE_LINE BgLingerHistory history;
  BgChunk *done;        /* (owned) chunks to be used again */
  guint n_batches;      /* lanes that have a batch */
  gboolean fell_asleep; /* since the context has polled */
  gboolean crowded;     /* with lanes, when the last batch was taken */
  guint depth;          /* how many records run within each other */
  GArray *deferred;     /* (owned) (nullable) of BgRecord: for when none runs any more */
  BgLane *lane;         /* (unowned) (nullable) whose records run, the innermost */
  GSList *replaced;     /* of BgLaneSource (unowned): dispatched, though they serve no lane */
  BgActivities activities;
  BgInboxCounts counts;
};

/* A lane sits out one iteration in so many, to let lower priorities pass. */
#define BG_LANE_TURNS 16

/* One priority's first-in-first-out queue. */
struct _BgLane
{
  /* immutable */
  BgInbox *inbox; /* (unowned) */
  int priority;
  BG_CACHE_LINE_GAP (gap_1);

  /* under the inbox's lock */
  BgChunk *head; /* (owned) */
  BgChunk *tail; /* (unowned) */
  guint n_waiting;
  int n_void; /* records that are queued and count as nothing */
  BG_CACHE_LINE_GAP (gap_2);

  /* the serving thread only */
  BgLaneSource *source; /* (owned) serves it */
  BgChunk *batch;       /* (owned) what runs now; more is not taken before it is done */
  guint turns;          /* batches since the lane last let lower priorities pass */
  guint n_dispatches;   /* of its source that run within each other */
  gboolean yields_next; /* lets lower priorities pass in the next iteration */

  /* atomic, written by the serving thread */
  _Atomic guint n_batch; /* what is left of the batch */
};

/* What serves a lane. Whoever destroys it by mistake takes no record with it: the lane gets
 * another one. */
struct _BgLaneSource
{
  GSource source;
  _Atomic (BgLane *) lane; /* (unowned) (nullable): NULL if the source is not to serve it any more;
                            * written by the serving thread */
  guint n_dispatches;      /* by GLib that have not returned */

  /* immutable */
  gpointer callback; /* see bg_glib_set_own_callback() */
  gpointer owner;    /* (unowned) the inbox's, which may be gone before the source */
  GSourceCallbackFuncs *owner_funcs; /* (nullable) the same */
};

/* The inbox that this thread is serving now, the innermost. */
extern BG_THREAD_LOCAL BgInbox *bg_serving;

void bg_inbox_init (BgInbox *self,
                    GMainContext *context,
                    gpointer owner,
                    GSourceCallbackFuncs *owner_funcs,
                    BgLockRank rank);
gboolean bg_inbox_find (GMainContext *context, gpointer tag);
gboolean bg_inbox_owns (BgInbox *self, GSource *source);
void bg_inbox_discard (BgInbox *self, GDestroyNotify destroy_data);
void bg_inbox_stop (BgInbox *self);
void bg_inbox_clear (BgInbox *self);

void bg_inbox_lock_contended (BgInbox *self);
void bg_inbox_lock_to_look (BgInbox *self);
void bg_inbox_unlock_after_look (BgInbox *self);
void bg_inbox_unlock_and_wake (BgInbox *self);

static inline void
bg_inbox_lock (BgInbox *self)
{
  bg_schedule_point (BG_POINT_LOCK);
  bg_lock_note_taken (self->rank);
  if (G_UNLIKELY (!g_mutex_trylock (&self->lock)))
    bg_inbox_lock_contended (self);
}

static inline void
bg_inbox_unlock (BgInbox *self)
{
  if (G_LIKELY (!self->wakes))
    bg_mutex_unlock (&self->lock, self->rank);
  else
    bg_inbox_unlock_and_wake (self);
}

/* Whether its sources are out of the context for good. The serving thread. */
static inline gboolean
bg_inbox_is_stopped (BgInbox *self)
{
  return self->stopped;
}

static inline GMainContext *
bg_inbox_get_context (BgInbox *self)
{
  return self->context;
}

static inline guint
bg_inbox_get_n_sources (BgInbox *self)
{
  return atomic_load (&self->n_sources);
}

/* with the lock held */
BgRecord *bg_inbox_append_slot (BgInbox *self, int priority);
gboolean bg_inbox_wait (BgInbox *self, GCond *cond, gint64 deadline);

static inline BgRecord *
bg_inbox_append (BgInbox *self,
                 int priority,
                 BgRecordFunc outcome,
                 gpointer func,
                 gpointer data,
                 GDestroyNotify destroy)
{
  BgRecord *slot = bg_inbox_append_slot (self, priority);

  slot->outcome = outcome;
  slot->func = func;
  slot->data = data;
  slot->destroy = destroy;
  return slot;
}

/* The same for what is no new work, and not counted as posted. */
static inline BgRecord *
bg_inbox_requeue (BgInbox *self,
                  int priority,
                  BgRecordFunc outcome,
                  gpointer func,
                  gpointer data,
                  GDestroyNotify destroy)
{
  self->posted--;
  return bg_inbox_append (self, priority, outcome, func, data, destroy);
}

void bg_inbox_count_void (BgInbox *self, int priority, int n);

/* The same for what comes of work that has its place among what ran or was cancelled: it is
 * not counted as queued either. The outcome calls bg_inbox_take_void(). */
static inline BgRecord *
bg_inbox_append_void (BgInbox *self,
                      int priority,
                      BgRecordFunc outcome,
                      gpointer func,
                      gpointer data,
                      GDestroyNotify destroy)
{
  BgRecord *slot = bg_inbox_requeue (self, priority, outcome, func, data, destroy);

  bg_inbox_count_void (self, priority, 1);
  return slot;
}

/* Work that waits elsewhere than in the lanes. */
static inline void
bg_inbox_count_posted (BgInbox *self)
{
  self->posted++;
}

/* Whether an append has to wake the context. */
static inline gboolean
bg_inbox_is_asleep (BgInbox *self)
{
  return self->asleep;
}

static inline gboolean
bg_inbox_is_paused (BgInbox *self)
{
  return self->paused;
}

void bg_inbox_take_void (BgInbox *self);
guint bg_inbox_get_n_lanes (BgInbox *self);
int bg_inbox_get_priority (BgInbox *self, guint lane);
guint bg_inbox_get_queued (BgInbox *self, guint lane);
gpointer bg_inbox_take (BgInbox *self, BgRecord *slot);
void bg_inbox_withdraw (BgInbox *self, BgRecord *slot, int priority);
void bg_inbox_wake (BgInbox *self);
void bg_inbox_fall_asleep (BgInbox *self);
void bg_inbox_stay_awake (BgInbox *self);
gboolean bg_inbox_has_work (BgInbox *self);
guint bg_inbox_count_queued (BgInbox *self);
gboolean bg_lane_has_work (BgLane *lane);
void bg_inbox_pause (BgInbox *self);
void bg_inbox_set_paused (BgInbox *self, gboolean paused);
guint bg_lane_get_queued (BgLane *lane);

/* on the serving thread, without the lock */
void bg_inbox_run (BgInbox *self);
void bg_inbox_awake (BgInbox *self);

gboolean bg_inbox_run_one (BgInbox *self);
gboolean bg_inbox_iterate (BgInbox *self, gboolean *stale);
void bg_inbox_note_stale_dispatch (void);
gboolean bg_inbox_is_nested (BgInbox *self);
guint bg_inbox_get_left (BgInbox *self);
void bg_inbox_append_deferred (BgInbox *self);
void bg_inbox_defer (BgInbox *self, const BgRecord *record);

/* The inside of the inbox: lanes, with the lock held, and their sources and batches, on the
 * serving thread. */
guint bg_inbox_find_lane (BgInbox *self, int priority);
void bg_inbox_free_lanes (BgInbox *self);
void bg_lane_attach (BgLane *lane);
void bg_lane_serve (BgLane *lane);
void bg_lane_abandon_source (BgLaneSource *source, GPtrArray *sources);

/* Whether this is a forked child, which has nothing to do with the parent's work: the
 * function that forked it returned. */
static inline gboolean
bg_inbox_is_inherited (BgInbox *self)
{
  return self->generation != bg_fork_generation ();
}

/* What a record leaves to be done, kept where the end of the thread finds it. Its
 * outcome is given once more then. */
static inline BgRecord *
bg_inbox_keep (BgInbox *self, const BgRecord *slot)
{
  self->activities.current->kept = *slot;
  return &self->activities.current->kept;
}

static inline void
bg_inbox_drop_kept (BgInbox *self)
{
  self->activities.current->kept.outcome = NULL;
}

static inline void
bg_inbox_count_run (BgInbox *self)
{
  bg_count (&self->counts.run, 1);
}

static inline void
bg_inbox_count_cancelled (BgInbox *self)
{
  bg_count (&self->counts.cancelled, 1);
}

/* How many records have run. Any thread. */
static inline guint64
bg_inbox_get_n_run (BgInbox *self)
{
  return atomic_load (&self->counts.run);
}

/* The serving thread goes on to something else, a destroy notify for example: what it has
 * done until now does not count as one with that. */
static inline void
bg_inbox_step (BgInbox *self)
{
  guint steps = atomic_load_explicit (&self->activities.steps, memory_order_relaxed);

  atomic_store_explicit (&self->activities.steps, steps + 1, memory_order_relaxed);
}

/* What lingering is told, by any thread: see inbox/bg-linger.c. */

/* How long at most, in microseconds. */
static inline guint
bg_linger_get_usec (BgInbox *inbox)
{
  return atomic_load (&inbox->linger.usec);
}

/* Whether records can be expected at all: for so many more reasons, or less. */
static inline void
bg_linger_add_expected (BgInbox *inbox, int n)
{
  atomic_fetch_add (&inbox->linger.n_expected, n);
}

/* What is to come from other sources first: so many more, or less. */
static inline void
bg_linger_add_pending (BgInbox *inbox, int n)
{
  atomic_fetch_add (&inbox->linger.n_pending, n);
}

/* When delayed work is due, in monotonic microseconds; -1: there is none. */
static inline gint64
bg_linger_get_due (BgInbox *inbox)
{
  return atomic_load_explicit (&inbox->linger.due_at, memory_order_relaxed);
}

static inline void
bg_linger_set_due (BgInbox *inbox, gint64 due)
{
  atomic_store_explicit (&inbox->linger.due_at, due, memory_order_relaxed);
}

G_END_DECLS
