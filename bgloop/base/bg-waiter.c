/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <stdatomic.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-macros-private.h>
#include <bgloop/base/bg-waiter-private.h>

/* A thread that waits for an answer, until its deadline. Each thread keeps one for its
 * next wait, so that a blocking call allocates nothing; a wait within a wait takes another
 * one from the pool and puts it back. When a thread ends, its own goes to the pool. So
 * there are at most as many as were ever needed at once. They are never freed, since a
 * cancellation or a signal may come late (see below).
 *
 * Whoever completes the wait sets nothing any more once the waiting thread can see
 * that it is completed: either its one compare-and-exchange found the thread awake,
 * or it does so under the mutex. It may signal the condition after that, and so
 * wake whoever waits with it then, who looks and sleeps on: to signal under the
 * mutex would have the woken thread run into it.
 *
 * In a forked child the parent's waiters are left alone, whether they wait, are in the
 * pool or are the forking thread's own: their mutexes may be locked for ever. */
struct _BgWaiter
{
  int state;              /* atomic */
  _Atomic gboolean bound; /* what is waited for has started, and is waited for to the end */

  /* immutable */
  guint generation; /* the process that it belongs to */
  BgWaiter *older;  /* (unowned) (nullable) the one made before it */

  /* under the pool's lock, while it is there */
  BgWaiter *next; /* (unowned) (nullable) */

  /* the waiting thread only */
  gboolean taken;
  gulong handler;
  gboolean slept;
  BgSpin spin;
  BgSpin start_spin; /* for loops to start */
  BgSpin end_spin;   /* and to end */
  gboolean learns;   /* how long the wait took that the spin gave up */

  GMutex lock;
  GCond cond;

  /* under lock */
  GCancellable *cancellable;  /* (unowned) (nullable) as long as somebody waits */
  _Atomic gboolean cancelled; /* written under lock */
  gboolean broken;
  gint64 completed_at; /* if somebody had to be woken */
};

enum
{
  AWAKE,
  ASLEEP,
  COMPLETED,
};

/* Those that no thread has. The lock is a leaf. */
typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;

  /* under lock */
  BgWaiter *unused; /* (nullable) linked by next */
  BgWaiter *newest; /* (nullable) of all that were made: leak checkers find them here */
} BgWaiterPool;

static BgWaiterPool *
get_pool (void)
{
  static gpointer pool;

  return bg_fork_local (&pool, sizeof (BgWaiterPool));
}

static gboolean
is_inherited (BgWaiter *self)
{
  return G_UNLIKELY (self->generation != bg_fork_generation ());
}

static void
put_into_pool (BgWaiter *self)
{
  BgWaiterPool *pool = get_pool ();

  bg_mutex_lock (&pool->lock, BG_LOCK_LEAF);
  self->next = pool->unused;
  pool->unused = self;
  bg_mutex_unlock (&pool->lock, BG_LOCK_LEAF);
}

static BgWaiter *
take_from_pool (void)
{
  BgWaiterPool *pool = get_pool ();
  BgWaiter *self;

  bg_mutex_lock (&pool->lock, BG_LOCK_LEAF);
  self = pool->unused;
  if (self != NULL)
    {
      pool->unused = self->next;
    }
  else
    {
      self = g_new0 (BgWaiter, 1);
      self->generation = pool->fork_local.generation;
      self->older = pool->newest;
      pool->newest = self;
      g_mutex_init (&self->lock);
      g_cond_init (&self->cond);
    }
  bg_mutex_unlock (&pool->lock, BG_LOCK_LEAF);
  return self;
}

/* Set once the thread has given up its own waiter. Other destructors of thread-local
 * data may still wait, and what they left to the thread nobody might come for. */
static BG_THREAD_LOCAL gboolean thread_ends;

static void
thread_ends_cb (gpointer data)
{
  BgWaiter *self = data;

  thread_ends = TRUE;
  /* A thread that ended within its wait: somebody may complete it yet. */
  if (!self->taken && !is_inherited (self))
    put_into_pool (self);
}

static GPrivate own_waiter = G_PRIVATE_INIT (thread_ends_cb);

static BgWaiter *
take (void)
{
  BgWaiter *own = g_private_get (&own_waiter);
  BgWaiter *self;

  if (G_LIKELY (own != NULL && !own->taken && !is_inherited (own)))
    return own;

  self = take_from_pool ();
  if ((own == NULL || is_inherited (own)) && !thread_ends)
    g_private_set (&own_waiter, self);
  return self;
}

/* It may come late, in the midst of the next wait of this thread or another one, since
 * nobody waits for a cancellation that is under way: another handler of it may wait for
 * this thread. A next wait with another cancellable it does not touch; one with the
 * same is cancelled indeed, as g_cancellable_reset() waits for what is under way. */
static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgWaiter *self = user_data;

  if (is_inherited (self))
    return;

  bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
  if (self->cancellable == cancellable)
    {
      self->cancelled = TRUE;
      g_cond_signal (&self->cond);
    }
  bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);
}

/* Not by g_cancellable_connect(): since GLib 2.82 that waits for handlers under way,
 * and this thread may be in one of them. */
static void
heed (BgWaiter *self, GCancellable *cancellable)
{
  bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
  self->cancelled = FALSE;
  self->cancellable = cancellable;
  bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);

  if (!g_cancellable_is_cancelled (cancellable))
    {
      bg_schedule_point (BG_POINT_WAITER_HEEDS);
      self->handler = g_signal_connect (cancellable, "cancelled", G_CALLBACK (cancelled_cb), self);
    }
  bg_schedule_point (BG_POINT_WAITER_HEEDING);
  if (g_cancellable_is_cancelled (cancellable))
    cancelled_cb (cancellable, self);
}

/* From now on a cancellation ends the wait, and bg_waiter_complete() completes it. */
BgWaiter *
bg_waiter_take (GCancellable *cancellable)
{
  BgWaiter *self = take ();

  g_atomic_int_set (&self->state, AWAKE);
  atomic_store_explicit (&self->bound, FALSE, memory_order_relaxed);
  self->taken = TRUE;
  self->slept = FALSE;
  self->learns = FALSE;
  self->completed_at = 0;
  self->broken = FALSE;
  self->handler = 0;
  if (cancellable != NULL)
    heed (self, cancellable);

  return self;
}

/* Nobody may complete the wait any more. */
void
bg_waiter_give_back (BgWaiter *self, GCancellable *cancellable)
{
  if (self->handler != 0)
    g_signal_handler_disconnect (cancellable, self->handler);
  if (is_inherited (self))
    return;

  if (cancellable != NULL)
    {
      bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
      self->cancellable = NULL;
      self->cancelled = FALSE;
      bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);
    }

  self->taken = FALSE;
  if (g_private_get (&own_waiter) != self)
    put_into_pool (self);
}

static BgWaitResult
wait_until (BgWaiter *self, gint64 deadline, gboolean heed_cancelled)
{
  BgWaitResult result = BG_WAIT_COMPLETED;

  if (!self->slept && g_atomic_int_get (&self->state) == COMPLETED)
    return BG_WAIT_COMPLETED;

  bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
  self->slept = TRUE;
  bg_schedule_point (BG_POINT_WAITER_LIES_DOWN);
  g_atomic_int_compare_and_exchange (&self->state, AWAKE, ASLEEP);
  while (g_atomic_int_get (&self->state) != COMPLETED && result == BG_WAIT_COMPLETED)
    {
      bg_schedule_point (BG_POINT_WAITER_SLEEPS);
      if (self->cancelled && heed_cancelled)
        result = BG_WAIT_CANCELLED;
      else if (self->broken && heed_cancelled)
        result = BG_WAIT_BROKEN;
      else if (deadline == -1)
        g_cond_wait (&self->cond, &self->lock);
      else if (!g_cond_wait_until (&self->cond, &self->lock, deadline)
               && g_atomic_int_get (&self->state) != COMPLETED)
        result = BG_WAIT_TIMED_OUT;
    }
  if (self->learns && result == BG_WAIT_COMPLETED && self->completed_at != 0)
    bg_spin_learn (&self->spin, self->completed_at - self->spin.began);
  bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);

  return result;
}

static gboolean
is_completed (gpointer data)
{
  return bg_waiter_is_completed (data);
}

static gboolean
is_completed_or_cancelled (gpointer data)
{
  BgWaiter *self = data;

  return bg_waiter_is_completed (self)
         || atomic_load_explicit (&self->cancelled, memory_order_relaxed);
}

/* Stays awake for what is about to happen, for @limit_usec at most, and not beyond
 * @deadline (monotonic microseconds, -1: none) or a cancellation. @elsewhere: on another
 * processor. */
void
bg_waiter_spin (BgWaiter *self, guint limit_usec, gint64 deadline, gboolean elsewhere)
{
  if (deadline != -1 && limit_usec > 0)
    limit_usec = bg_spin_get_limit (limit_usec, deadline);

  if (elsewhere)
    self->learns = !bg_spin (&self->spin, limit_usec, is_completed_or_cancelled, self);
  else if (limit_usec > 0)
    bg_spin_yield (&self->spin, is_completed_or_cancelled, self);
}

/* The same for a loop's start, which completes the wait. */
void
bg_waiter_spin_for_start (BgWaiter *self, guint limit_usec)
{
  bg_spin_once (&self->start_spin, limit_usec, FALSE, is_completed, self);
}

/* And for its end. */
void
bg_waiter_spin_for_end (BgWaiter *self,
                        guint limit_usec,
                        gboolean elsewhere,
                        BgSpinFunc ended,
                        gpointer data)
{
  bg_spin_once (&self->end_spin, limit_usec, elsewhere, ended, data);
}

/* Waits until the wait is completed or broken, @deadline (monotonic microseconds, -1: none)
 * has passed, or the cancellable was cancelled. */
BgWaitResult
bg_waiter_wait (BgWaiter *self, gint64 deadline)
{
  return wait_until (self, deadline, TRUE);
}

/* Waits on, whatever happens. */
void
bg_waiter_wait_completed (BgWaiter *self)
{
  wait_until (self, -1, FALSE);
}

/* TRUE if the waiting thread had to be woken. */
gboolean
bg_waiter_complete (BgWaiter *self)
{
  bg_schedule_point (BG_POINT_WAITER_COMPLETES);
  if (g_atomic_int_compare_and_exchange (&self->state, AWAKE, COMPLETED))
    {
      bg_schedule_point (BG_POINT_WAITER_COMPLETED);
      return FALSE;
    }

  /* In a forked child nobody waits. */
  if (is_inherited (self))
    return FALSE;

  bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
  self->completed_at = g_get_monotonic_time ();
  g_atomic_int_set (&self->state, COMPLETED);
  bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);
  g_cond_signal (&self->cond);
  return TRUE;
}

/* Gives the wait up, if it heeds its cancellable, without completing it. To be called while
 * it goes on for certain. */
void
bg_waiter_break (BgWaiter *self)
{
  bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
  self->broken = TRUE;
  g_cond_signal (&self->cond);
  bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);
}

gboolean
bg_waiter_is_completed (BgWaiter *self)
{
  return g_atomic_int_get (&self->state) == COMPLETED;
}

/* On the thread that runs what is waited for: from now on a cancellation does not
 * end the wait, or does again. */
void
bg_waiter_set_bound (BgWaiter *self, gboolean bound)
{
  atomic_store_explicit (&self->bound, bound, memory_order_relaxed);
}

/* Whether the wait is over, though the thread may not have woken up yet. */
gboolean
bg_waiter_is_over (BgWaiter *self)
{
  gboolean over = bg_waiter_is_completed (self) || is_inherited (self);

  bg_schedule_point (BG_POINT_WAITER_LOOKED_AT);
  if (!over && !atomic_load_explicit (&self->bound, memory_order_relaxed))
    {
      bg_mutex_lock (&self->lock, BG_LOCK_WAITER);
      over = self->cancelled || self->broken;
      bg_mutex_unlock (&self->lock, BG_LOCK_WAITER);
    }
  return over;
}

/* When a wait that begins now and may take @timeout_msec ends. */
gint64
bg_deadline (int timeout_msec)
{
  if (timeout_msec < 0)
    return -1;

  return g_get_monotonic_time () + (gint64) timeout_msec * G_TIME_SPAN_MILLISECOND;
}
