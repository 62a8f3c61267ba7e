/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <stdatomic.h>

#include <bgloop/bg-waiter-private.h>

/* A thread that waits for an answer. Each thread keeps one for its next wait, so
 * that a blocking call allocates nothing; when a thread ends another one gets
 * it. They are never freed.
 *
 * Whoever settles the wait sets nothing any more once the waiting thread can see
 * that it is settled: either its one compare-and-exchange found the thread awake,
 * or it does so under the mutex. It may signal the condition after that, and so
 * wake whoever waits with it then, who looks and sleeps on: to signal under the
 * mutex would have the woken thread run into it. */
struct _BgWaiter
{
  int state;              /* atomic */
  _Atomic gboolean bound; /* what is waited for has started, and is waited for to the end */
  BgWaiter *next;         /* (unowned) (nullable) of those that no thread has */

  /* the waiting thread only */
  gulong handler;
  gboolean slept;
  BgSpin spin;
  BgSpin start_spin; /* for loops to start */
  BgSpin end_spin;   /* and to end */
  gboolean learns;   /* how long the wait took that the spin gave up */

  GMutex lock;
  GCond cond;

  /* under lock */
  GCancellable *cancellable; /* (unowned) (nullable) as long as somebody waits */
  gboolean cancelled;
  gint64 settled_at; /* if somebody had to be woken */
};

enum
{
  AWAKE,
  ASLEEP,
  SETTLED,
};

static BgWaiter *unused; /* atomic; a fork leaves it as it is */

static void
leave_unused (gpointer data)
{
  BgWaiter *self = data;

  do
    self->next = g_atomic_pointer_get (&unused);
  while (!g_atomic_pointer_compare_and_exchange (&unused, self->next, self));
}

/* One of those that were left. All are taken at once, as taking one off would
 * race with its coming back; the rest is put back. */
static BgWaiter *
take_unused (void)
{
  BgWaiter *self = g_atomic_pointer_exchange (&unused, NULL);
  BgWaiter *rest = self != NULL ? self->next : NULL;

  while (rest != NULL)
    {
      BgWaiter *next = rest->next;

      leave_unused (rest);
      rest = next;
    }

  return self;
}

static GPrivate spare_waiter = G_PRIVATE_INIT (leave_unused);

/* It may come late, in the midst of the thread's next wait, since nobody waits for a
 * cancellation that is under way: another handler of it may wait for this thread. */
static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgWaiter *self = user_data;

  g_mutex_lock (&self->lock);
  if (self->cancellable == cancellable)
    {
      self->cancelled = TRUE;
      g_cond_signal (&self->cond);
    }
  g_mutex_unlock (&self->lock);
}

/* From now on a cancellation ends the wait, and bg_waiter_settle() settles it. */
BgWaiter *
bg_waiter_take (GCancellable *cancellable)
{
  BgWaiter *self = g_private_get (&spare_waiter);

  if (self != NULL)
    g_private_set (&spare_waiter, NULL);
  else
    self = take_unused ();
  if (self == NULL)
    {
      self = g_new0 (BgWaiter, 1);
      g_mutex_init (&self->lock);
      g_cond_init (&self->cond);
    }

  g_atomic_int_set (&self->state, AWAKE);
  atomic_store_explicit (&self->bound, FALSE, memory_order_relaxed);
  self->slept = FALSE;
  self->learns = FALSE;
  self->settled_at = 0;
  self->handler = 0;
  if (cancellable != NULL)
    {
      g_mutex_lock (&self->lock);
      self->cancelled = FALSE;
      self->cancellable = cancellable;
      g_mutex_unlock (&self->lock);
      self->handler = g_cancellable_connect (cancellable, G_CALLBACK (cancelled_cb), self, NULL);
    }

  return self;
}

/* Nobody may settle the wait any more. */
void
bg_waiter_give_back (BgWaiter *self, GCancellable *cancellable)
{
  if (cancellable != NULL)
    {
      if (self->handler != 0)
        g_signal_handler_disconnect (cancellable, self->handler);
      g_mutex_lock (&self->lock);
      self->cancellable = NULL;
      self->cancelled = FALSE;
      g_mutex_unlock (&self->lock);
    }

  g_private_replace (&spare_waiter, self);
}

static BgWaitResult
wait_until (BgWaiter *self, gint64 deadline, gboolean heed_cancelled)
{
  BgWaitResult result = BG_WAIT_SETTLED;

  if (!self->slept && g_atomic_int_get (&self->state) == SETTLED)
    return BG_WAIT_SETTLED;

  g_mutex_lock (&self->lock);
  self->slept = TRUE;
  g_atomic_int_compare_and_exchange (&self->state, AWAKE, ASLEEP);
  while (g_atomic_int_get (&self->state) != SETTLED && result == BG_WAIT_SETTLED)
    {
      if (self->cancelled && heed_cancelled)
        result = BG_WAIT_CANCELLED;
      else if (deadline == -1)
        g_cond_wait (&self->cond, &self->lock);
      else if (!g_cond_wait_until (&self->cond, &self->lock, deadline)
               && g_atomic_int_get (&self->state) != SETTLED)
        result = BG_WAIT_TIMED_OUT;
    }
  if (self->learns && result == BG_WAIT_SETTLED && self->settled_at != 0)
    bg_spin_learn (&self->spin, self->settled_at - self->spin.began);
  g_mutex_unlock (&self->lock);

  return result;
}

static gboolean
is_settled (gpointer data)
{
  return bg_waiter_is_settled (data);
}

/* Stays awake for what is about to happen, for @limit_usec at most. @elsewhere: on
 * another processor. */
void
bg_waiter_spin (BgWaiter *self, guint limit_usec, gboolean elsewhere)
{
  if (elsewhere)
    self->learns = !bg_spin (&self->spin, limit_usec, is_settled, self);
  else if (limit_usec > 0)
    bg_spin_yield (&self->spin, is_settled, self);
}

/* The same for a loop's start, which settles the wait. */
void
bg_waiter_spin_for_start (BgWaiter *self, guint limit_usec)
{
  bg_spin_once (&self->start_spin, limit_usec, FALSE, is_settled, self);
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

/* Waits until the wait is settled, @deadline (monotonic microseconds, -1: none)
 * has passed, or the cancellable was cancelled. */
BgWaitResult
bg_waiter_wait (BgWaiter *self, gint64 deadline)
{
  return wait_until (self, deadline, TRUE);
}

/* Waits on, whatever happens. */
void
bg_waiter_wait_settled (BgWaiter *self)
{
  wait_until (self, -1, FALSE);
}

/* TRUE if the waiting thread had to be woken. */
gboolean
bg_waiter_settle (BgWaiter *self)
{
  if (g_atomic_int_compare_and_exchange (&self->state, AWAKE, SETTLED))
    return FALSE;

  g_mutex_lock (&self->lock);
  self->settled_at = g_get_monotonic_time ();
  g_atomic_int_set (&self->state, SETTLED);
  g_mutex_unlock (&self->lock);
  g_cond_signal (&self->cond);
  return TRUE;
}

gboolean
bg_waiter_is_settled (BgWaiter *self)
{
  return g_atomic_int_get (&self->state) == SETTLED;
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
  gboolean over = bg_waiter_is_settled (self);

  if (!over && !atomic_load_explicit (&self->bound, memory_order_relaxed))
    {
      g_mutex_lock (&self->lock);
      over = self->cancelled;
      g_mutex_unlock (&self->lock);
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

void
bg_set_wait_error (GError **error, BgWaitResult result, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);

  if (result == BG_WAIT_CANCELLED)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "%s was cancelled", message);
  else
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "%s timed out", message);
}
