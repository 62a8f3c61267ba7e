/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* A cancellation that comes as a wait is over does not end the thread's next one. The thread that
 * cancels is interrupted between two handlers, or within the second, which is the library's; it
 * goes on when the caller has woken. Or its first handler waits for that: to wake up is not to wait
 * for handlers. */

#define N_ROUNDS         30
#define BUSY_USEC        30
#define TIMER_NSEC       10000 /* until it is interrupted, but for what the system adds to that */
#define STEP_NSEC        3000
#define MIN_STEP_NSEC    50
#define INTERRUPTED_USEC 3000

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Where the thread that cancels is, and was when it was interrupted. */
typedef enum
{
  NOWHERE,
  WITHIN,  /* its first handler */
  BETWEEN, /* that and the end of the cancellation */
  BEHIND,
} Place;

typedef struct
{
  BgLoop *loop;
  _Atomic (GCancellable *) next; /* (nullable) that is to be cancelled; has been when it is gone */
  _Atomic int waits;             /* the first handler, for the caller */
  _Atomic int goes_on;           /* the function that is waited for */
  _Atomic int returned;          /* the caller has */
  _Atomic int over;

  /* the thread that cancels only, and what interrupts it */
  gboolean has_timer;
  timer_t timer;
  int delay, step; /* of the first handler, and by how much it changes, in nanoseconds */
  volatile Place is, was;
} LateCancel;

static __thread LateCancel *interrupted;

/* It may be that this thread has a lock which the caller needs: it has it not for ever. */
static void
interrupt_cb (int signal_number)
{
  LateCancel *self = interrupted;
  gint64 end = g_get_monotonic_time () + INTERRUPTED_USEC;

  if (self == NULL)
    return;
  self->was = self->is;
  atomic_store (&self->goes_on, TRUE);
  while (!atomic_load (&self->returned) && g_get_monotonic_time () < end)
    sched_yield ();
}

/* ThreadSanitizer and valgrind keep a signal until it suits them. */
static gboolean
heeds_signals (void)
{
#ifdef __SANITIZE_THREAD__
  return FALSE;
#else
  return g_getenv ("BGLOOP_TEST_VALGRIND") == NULL;
#endif
}

static gint64
get_nsec (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * G_GINT64_CONSTANT (1000000000) + now.tv_nsec;
}

static void
first_handler_cb (GCancellable *cancellable, gpointer data)
{
  LateCancel *self = data;
  const struct itimerspec timer = { .it_value = { .tv_nsec = TIMER_NSEC } };
  gint64 end = get_nsec () + TIMER_NSEC + self->delay;

  self->is = WITHIN;
  self->was = NOWHERE;
  if (atomic_load (&self->waits) || !self->has_timer)
    {
      atomic_store (&self->goes_on, TRUE);
      while (atomic_load (&self->waits) && !atomic_load (&self->returned))
        g_thread_yield ();
      return;
    }
  if (timer_settime (self->timer, 0, &timer, NULL) != 0)
    g_error ("no timer");
  while (get_nsec () < end)
    ;
  self->is = BETWEEN;
}

/* Waits until it has been interrupted, and comes nearer to where it is to be next time. */
static void
aim (LateCancel *self)
{
  self->is = BEHIND;
  if (atomic_load (&self->waits) || !self->has_timer)
    return;

  while (self->was == NOWHERE)
    g_thread_yield ();
  if (self->was == WITHIN)
    self->delay = MAX (self->delay - self->step, -TIMER_NSEC);
  else if (self->was == BEHIND)
    self->delay += self->step;
  self->step = MAX (self->step * 3 / 4, MIN_STEP_NSEC);
}

static gpointer
cancel_thread (gpointer data)
{
  LateCancel *self = data;
  struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };

  interrupted = self;
  self->delay = self->step = STEP_NSEC;
  event.sigev_notify_thread_id = (pid_t) syscall (SYS_gettid);
  self->has_timer = heeds_signals () && timer_create (CLOCK_MONOTONIC, &event, &self->timer) == 0;
  while (!atomic_load (&self->over))
    {
      g_autoptr (GCancellable) cancellable = atomic_load (&self->next);

      if (cancellable == NULL)
        {
          g_thread_yield ();
          continue;
        }
      g_cancellable_cancel (cancellable);
      aim (self);
      atomic_store (&self->next, NULL);
    }
  if (self->has_timer)
    timer_delete (self->timer);
  return NULL;
}

typedef struct
{
  LateCancel *late;
  GCancellable *cancellable;
} Round;

static gboolean
have_cancelled_cb (gpointer data, GError **error)
{
  Round *round = data;

  atomic_store (&round->late->next, g_object_ref (round->cancellable));
  while (!atomic_load (&round->late->goes_on))
    g_thread_yield ();
  return TRUE;
}

static void
busy_cb (gpointer data)
{
  util_spin_until (g_get_monotonic_time () + BUSY_USEC);
}

static void
run_round (LateCancel *self)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  Round round = { self, cancellable };

  atomic_store (&self->goes_on, FALSE);
  atomic_store (&self->returned, FALSE);
  g_signal_connect (cancellable, "cancelled", G_CALLBACK (first_handler_cb), self);
  if (!bg_loop_call (self->loop, have_cancelled_cb, &round, cancellable, &error))
    model_fail ("a call that was cancelled as it ran: %s", error->message);
  g_clear_error (&error);

  g_assert_true (bg_loop_post (self->loop, busy_cb, NULL, NULL));
  atomic_store (&self->returned, TRUE);
  if (!bg_loop_call (self->loop, util_true_cb, NULL, NULL, &error))
    model_fail ("a call that nobody cancels: %s", error->message);
  while (atomic_load (&self->next) != NULL)
    g_thread_yield ();
}

void
model_apart_late_cancel (const ModelOp *op)
{
  struct sigaction action = { .sa_handler = interrupt_cb, .sa_flags = SA_RESTART };
  LateCancel self = { util_loop_new ("late") };
  GThread *thread;

  sigaction (SIGUSR1, &action, NULL);
  thread = g_thread_new ("cancels", cancel_thread, &self);
  for (guint i = 0; i < N_ROUNDS; i++)
    {
      atomic_store (&self.waits, i % 4 == 0 && op->amount == 0);
      run_round (&self);
    }

  atomic_store (&self.over, TRUE);
  g_thread_join (thread);
  util_loop_end (self.loop);
}
