/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "cancels-first.h"

/* The promises here are of the insides: who may hold which lock at a fork, how many waiters
 * there are, and what comes at the same moment. So the insides are part of this program. */
static int try_atfork (void (*prepare) (void), void (*parent) (void), void (*child) (void));
static gboolean wait_until_of_test (GCond *cond, GMutex *mutex, gint64 end);

#define pthread_atfork    try_atfork
#define g_cond_wait_until wait_until_of_test
#include "base/bg-fork.c"
#include "base/bg-waiter.c"
#undef pthread_atfork
#undef g_signal_connect_data
#undef g_cond_wait_until

#include "util.h"

/* The allocator of AddressSanitizer has locks that do not survive a fork. */
#if UTIL_WITH_ASAN
#define FORKS_ANY_TIME 0
#else
#define FORKS_ANY_TIME 1
#endif

/* Thread-local data is destroyed in as many rounds as there may be. In the last one
 * ThreadSanitizer has forgotten the thread. */
#if UTIL_WITH_TSAN
#define N_ROUNDS 2
#else
#define N_ROUNDS G_MAXUINT
#endif

#define N_THREADS 8

static gboolean no_memory;
static guint n_tries;

static int
try_atfork (void (*prepare) (void), void (*parent) (void), void (*child) (void))
{
  n_tries++;
  return no_memory ? ENOMEM : pthread_atfork (prepare, parent, child);
}

static guint
count_made (void)
{
  BgWaiterPool *pool = get_pool ();
  guint n = 0;

  g_mutex_lock (&pool->lock);
  for (BgWaiter *waiter = pool->newest; waiter != NULL; waiter = waiter->older)
    n++;
  g_mutex_unlock (&pool->lock);
  return n;
}

static guint
count_unused (void)
{
  BgWaiterPool *pool = get_pool ();
  guint n = 0;

  g_mutex_lock (&pool->lock);
  for (BgWaiter *waiter = pool->unused; waiter != NULL; waiter = waiter->next)
    n++;
  g_mutex_unlock (&pool->lock);
  return n;
}

/* A wait that somebody else has completed by now, and @depth waits within it. */
static void
wait_once (guint depth)
{
  BgWaiter *waiter = bg_waiter_take (NULL);

  g_assert_false (is_inherited (waiter));
  g_assert_false (bg_waiter_is_completed (waiter));
  if (depth > 0)
    wait_once (depth - 1);
  bg_waiter_complete (waiter);
  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_COMPLETED);
  bg_waiter_give_back (waiter, NULL);
}

/* How many there are */

static void
test_own (void)
{
  BgWaiter *own = bg_waiter_take (NULL);

  bg_waiter_give_back (own, NULL);
  for (guint i = 0; i < 10; i++)
    {
      g_assert_true (bg_waiter_take (NULL) == own);
      bg_waiter_give_back (own, NULL);
    }
  g_assert_cmpuint (count_made (), ==, 1);
}

static void
test_nested (void)
{
  for (guint i = 0; i < 100; i++)
    wait_once (4);
  g_assert_cmpuint (count_made (), ==, 5);
  g_assert_cmpuint (count_unused (), ==, 4);
}

/* Given back in the order in which they were taken, which is not how waits nest. */
static void
test_nested_crosswise (void)
{
  for (guint i = 0; i < 100; i++)
    {
      BgWaiter *outer = bg_waiter_take (NULL);
      BgWaiter *inner = bg_waiter_take (NULL);

      g_assert_true (outer != inner);
      bg_waiter_give_back (outer, NULL);
      bg_waiter_give_back (inner, NULL);
    }
  g_assert_cmpuint (count_made (), ==, 2);
}

static gpointer
wait_nested_thread (gpointer data)
{
  wait_once (GPOINTER_TO_UINT (data));
  return NULL;
}

/* Threads that come, wait and go, one at a time. */
static gpointer
churn_thread (gpointer data)
{
  for (guint i = 0; i < util_scale (500); i++)
    g_thread_join (g_thread_new ("short", wait_nested_thread, data));
  return NULL;
}

static void
test_short_threads (void)
{
  util_run_threads (N_THREADS, churn_thread, GUINT_TO_POINTER (0));
  g_assert_cmpuint (count_made (), <=, N_THREADS);
  g_assert_cmpuint (count_made (), ==, count_unused ());

  util_run_threads (N_THREADS, churn_thread, GUINT_TO_POINTER (2));
  g_assert_cmpuint (count_made (), <=, 3 * N_THREADS);
  g_assert_cmpuint (count_made (), ==, count_unused ());
}

/* Thread-local data whose destructors wait, in each round of them that there is. */

static pthread_key_t before, after; /* than the waiter's key */

static void
waiting_destructor (void *data)
{
  static _Thread_local guint n_calls;
  pthread_key_t *key = data;

  wait_once (1);
  if (++n_calls / 2 < N_ROUNDS)
    pthread_setspecific (*key, data);
}

static gpointer
wait_to_the_end_thread (gpointer data)
{
  pthread_setspecific (before, &before);
  pthread_setspecific (after, &after);
  wait_once (0);
  return NULL;
}

static gpointer
churn_to_the_end_thread (gpointer data)
{
  for (guint i = 0; i < util_scale (500); i++)
    g_thread_join (g_thread_new ("short", wait_to_the_end_thread, NULL));
  return NULL;
}

static void
test_thread_ends (void)
{
  g_assert_cmpint (pthread_key_create (&before, waiting_destructor), ==, 0);
  wait_once (0); /* makes the waiter's key */
  g_assert_cmpint (pthread_key_create (&after, waiting_destructor), ==, 0);

  util_run_threads (N_THREADS, churn_to_the_end_thread, NULL);
  g_assert_cmpuint (count_made (), <=, 2 * N_THREADS + 1);
  g_assert_cmpuint (count_made (), ==, count_unused () + 1);
}

static gpointer
end_within_wait_thread (gpointer data)
{
  *(BgWaiter **) data = bg_waiter_take (NULL);
  pthread_exit (NULL);
  return NULL;
}

static void
test_thread_ends_within_wait (void)
{
  BgWaiter *waiter = NULL;

  g_thread_join (g_thread_new ("short", end_within_wait_thread, &waiter));
  g_assert_cmpuint (count_unused (), ==, 0);
  bg_waiter_complete (waiter);
  wait_once (0);
  g_assert_cmpuint (count_made (), ==, 2);
}

/* Completing */

typedef struct
{
  BgWaiter *waiter;
  UtilLatch asked;
} Completer;

static gpointer
complete_thread (gpointer data)
{
  Completer *self = data;

  util_latch_wait (&self->asked);
  bg_waiter_complete (self->waiter);
  return NULL;
}

static void
test_complete (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      Completer self = { bg_waiter_take (NULL) };
      GThread *thread;

      util_latch_init (&self.asked, 1);
      thread = g_thread_new ("completes", complete_thread, &self);
      g_assert_cmpint (bg_waiter_wait (self.waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
      util_latch_count_down (&self.asked);
      if (i % 2 == 0)
        bg_waiter_wait_completed (self.waiter);
      else
        g_assert_cmpint (bg_waiter_wait (self.waiter, -1), ==, BG_WAIT_COMPLETED);
      g_thread_join (thread);
      bg_waiter_give_back (self.waiter, NULL);
      util_latch_clear (&self.asked);
    }
}

/* At the moment when the time is up. */

static BgWaiter *completed_late; /* (nullable) */

static gboolean
wait_until_of_test (GCond *cond, GMutex *mutex, gint64 end)
{
  if (completed_late == NULL)
    return g_cond_wait_until (cond, mutex, end);

  g_atomic_int_set (&completed_late->state, COMPLETED);
  return FALSE;
}

static void
test_complete_late (void)
{
  BgWaiter *waiter = bg_waiter_take (NULL);

  completed_late = waiter;
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_COMPLETED);
  completed_late = NULL;
  bg_waiter_give_back (waiter, NULL);
}

/* A wait that was given up says nothing of the next one. */
static void
test_broken (void)
{
  BgWaiter *waiter = bg_waiter_take (NULL);

  bg_waiter_break (waiter);
  g_assert_true (bg_waiter_is_over (waiter));
  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_BROKEN);
  bg_waiter_complete (waiter);
  bg_waiter_wait_completed (waiter);
  bg_waiter_give_back (waiter, NULL);

  g_assert_true (bg_waiter_take (NULL) == waiter);
  g_assert_false (bg_waiter_is_over (waiter));
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
  bg_waiter_give_back (waiter, NULL);
}

/* Cancelling */

/* After it was found not to be cancelled, and before its handler is there. */
static void
test_cancel_between (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgWaiter *waiter;

  cancels_first = TRUE;
  waiter = bg_waiter_take (cancellable);
  cancels_first = FALSE;
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_CANCELLED);
  bg_waiter_give_back (waiter, cancellable);
  g_assert_cmpuint (G_OBJECT (cancellable)->ref_count, ==, 1);
}

/* What has begun is waited for, though it is cancelled. */
static void
test_cancel_begun (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Completer self = { bg_waiter_take (cancellable) };
  GThread *thread;

  util_latch_init (&self.asked, 1);
  bg_waiter_set_bound (self.waiter, TRUE);
  g_cancellable_cancel (cancellable);
  g_assert_false (bg_waiter_is_over (self.waiter));
  thread = g_thread_new ("completes", complete_thread, &self);
  util_latch_count_down (&self.asked);
  bg_waiter_wait_completed (self.waiter);
  g_assert_true (bg_waiter_is_completed (self.waiter));
  g_thread_join (thread);
  bg_waiter_give_back (self.waiter, cancellable);
  util_latch_clear (&self.asked);
}

static void
test_cancel (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgWaiter *waiter = bg_waiter_take (cancellable);
  GThread *thread = g_thread_new ("cancels", util_cancel_thread, cancellable);

  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_CANCELLED);
  g_thread_join (thread);
  bg_waiter_set_bound (waiter, TRUE);
  g_assert_false (bg_waiter_is_over (waiter));
  bg_waiter_set_bound (waiter, FALSE);
  g_assert_true (bg_waiter_is_over (waiter));
  bg_waiter_give_back (waiter, cancellable);

  /* It was before the wait. */
  waiter = bg_waiter_take (cancellable);
  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_CANCELLED);
  bg_waiter_give_back (waiter, cancellable);

  g_cancellable_reset (cancellable);
  waiter = bg_waiter_take (cancellable);
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
  bg_waiter_give_back (waiter, cancellable);
  g_assert_cmpuint (G_OBJECT (cancellable)->ref_count, ==, 1);
}

/* Within a handler of the cancellable, whose lock GLib 2.82 and newer hold then. */
static void
wait_in_handler_cb (GCancellable *cancellable, gpointer user_data)
{
  BgWaiter *waiter = bg_waiter_take (cancellable);

  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_CANCELLED);
  bg_waiter_give_back (waiter, cancellable);
  *(gboolean *) user_data = TRUE;
}

static void
test_cancel_in_handler (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  gboolean waited = FALSE;

  g_signal_connect (cancellable, "cancelled", G_CALLBACK (wait_in_handler_cb), &waited);
  g_cancellable_cancel (cancellable);
  g_assert_true (waited);
}

/* What GLib does to a handler that is disconnected as it is about to be called. */
static void
test_cancel_late (void)
{
  g_autoptr (GCancellable) old = g_cancellable_new ();
  g_autoptr (GCancellable) next = g_cancellable_new ();
  BgWaiter *waiter = bg_waiter_take (old);

  bg_waiter_give_back (waiter, old);
  cancelled_cb (old, waiter);

  g_assert_true (bg_waiter_take (next) == waiter);
  cancelled_cb (old, waiter);
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
  bg_waiter_give_back (waiter, next);

  g_assert_true (bg_waiter_take (NULL) == waiter);
  cancelled_cb (old, waiter);
  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
  bg_waiter_give_back (waiter, NULL);
}

/* One cancellable is used again and again; the wait after a reset is a new one. */

typedef struct
{
  GCancellable *cancellable;
  int round;  /* atomic */
  int rounds; /* atomic: that have been cancelled */
} Again;

static gpointer
cancel_again_thread (gpointer data)
{
  Again *self = data;
  int round = 0;

  while (round != -1)
    {
      if (round != g_atomic_int_get (&self->rounds))
        {
          g_cancellable_cancel (self->cancellable);
          g_atomic_int_set (&self->rounds, round);
        }
      round = g_atomic_int_get (&self->round);
      g_thread_yield ();
    }
  return NULL;
}

static void
test_cancel_reset (void)
{
  Again self = { g_cancellable_new () };
  GThread *thread = g_thread_new ("cancels", cancel_again_thread, &self);

  for (guint i = 1; i <= util_scale (5000); i++)
    {
      BgWaiter *waiter = bg_waiter_take (self.cancellable);
      BgWaitResult result;

      g_atomic_int_set (&self.round, (int) i);
      if (i % 2 == 0)
        bg_waiter_complete (waiter);
      result = bg_waiter_wait (waiter, -1);
      g_assert_cmpint (result, ==, i % 2 == 0 ? BG_WAIT_COMPLETED : BG_WAIT_CANCELLED);
      bg_waiter_give_back (waiter, self.cancellable);

      while (!g_cancellable_is_cancelled (self.cancellable))
        g_thread_yield ();
      g_cancellable_reset (self.cancellable);
      waiter = bg_waiter_take (self.cancellable);
      g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
      bg_waiter_give_back (waiter, self.cancellable);

      while (g_atomic_int_get (&self.rounds) != (int) i)
        g_thread_yield ();
    }

  g_atomic_int_set (&self.round, -1);
  g_thread_join (thread);
  g_object_unref (self.cancellable);
}

/* Forking */

static gboolean
child_waits (void)
{
  wait_once (0);
  wait_once (2);
  return count_made () == 3;
}

/* The locks are held as another thread would hold them. */
static void
test_fork_locked (void)
{
  BgWaiterPool *pool = get_pool ();
  BgWaiter *own, *unused;
  pid_t pid;

  wait_once (1);
  own = g_private_get (&own_waiter);
  unused = pool->unused;
  g_assert_true (own != NULL && unused != NULL);

  g_mutex_lock (&own->lock);
  g_mutex_lock (&unused->lock);
  g_mutex_lock (&pool->lock);
  pid = util_fork ();
  if (pid == 0)
    _exit (child_waits () && g_private_get (&own_waiter) != own ? 0 : 1);
  g_mutex_unlock (&pool->lock);
  g_mutex_unlock (&unused->lock);
  g_mutex_unlock (&own->lock);

  util_wait_for_child (pid);
  wait_once (1);
  g_assert_cmpuint (count_made (), ==, 2);
}

/* A wait of the parent's: what happens to it in the child. */
static void
test_fork_within_wait (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgWaiter *waiter = bg_waiter_take (cancellable);
  BgWaiter *own;
  pid_t pid;

  g_assert_cmpint (bg_waiter_wait (waiter, bg_deadline (0)), ==, BG_WAIT_TIMED_OUT);
  g_mutex_lock (&waiter->lock);
  pid = util_fork ();
  if (pid == 0)
    {
      gboolean ok = child_waits ();

      own = g_private_get (&own_waiter);
      g_cancellable_cancel (cancellable);
      ok = ok && !bg_waiter_complete (waiter) && bg_waiter_is_over (waiter);
      bg_waiter_give_back (waiter, cancellable);
      ok = ok && own != waiter && g_private_get (&own_waiter) == own && count_made () == 3;
      _exit (ok ? 0 : 1);
    }
  g_mutex_unlock (&waiter->lock);

  util_wait_for_child (pid);
  g_assert_true (bg_waiter_complete (waiter));
  g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_COMPLETED);
  bg_waiter_give_back (waiter, cancellable);
  g_assert_cmpuint (count_made (), ==, 1);
}

#if FORKS_ANY_TIME

static int hammering; /* atomic */

static gpointer
hammer_thread (gpointer data)
{
  while (g_atomic_int_get (&hammering))
    wait_once (2);
  return NULL;
}

/* A child, and a child of the child, forked at any moment. */
static void
test_fork_any_time (void)
{
  GThread *threads[2];

  g_atomic_int_set (&hammering, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("hammer", hammer_thread, NULL);

  for (guint i = 0; i < util_scale (100); i++)
    {
      pid_t pid;

      wait_once (1);
      pid = util_fork ();
      if (pid == 0)
        {
          if (!child_waits ())
            _exit (1);
          pid = util_fork ();
          if (pid == 0)
            _exit (child_waits () ? 0 : 1);
          util_wait_for_child (pid);
          _exit (0);
        }
      util_wait_for_child (pid);
    }

  g_atomic_int_set (&hammering, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
}

#endif

/* A fork counts once, however often the handlers are registered. */
static void
test_fork_counted (void)
{
  guint generation;
  pid_t pid;

  no_memory = TRUE;
  bg_fork_watch ();
  bg_fork_watch ();
  no_memory = FALSE;
  g_assert_cmpuint (n_tries, ==, 2);
  bg_fork_watch ();
  bg_fork_watch ();
  g_assert_cmpuint (n_tries, ==, 3);
  g_assert_cmpint (pthread_atfork (prepare_cb, NULL, forked_cb), ==, 0);

  generation = bg_fork_generation ();
  pid = util_fork ();
  if (pid == 0)
    {
      gboolean once = bg_fork_generation () == generation + 1;

      pid = util_fork ();
      if (pid == 0)
        _exit (once && bg_fork_generation () == generation + 2 ? 0 : 1);
      util_wait_for_child (pid);
      _exit (bg_fork_generation () == generation + 1 ? 0 : 1);
    }
  util_wait_for_child (pid);
  g_assert_cmpuint (bg_fork_generation (), ==, generation);
}

static void
test_fork_local (void)
{
  static gpointer location;
  BgForkLocal *ours = bg_fork_local (&location, sizeof (BgForkLocal));
  pid_t pid;

  g_assert_true (bg_fork_local (&location, sizeof (BgForkLocal)) == ours);
  pid = util_fork ();
  if (pid == 0)
    {
      BgForkLocal *fresh = bg_fork_local (&location, sizeof (BgForkLocal));

      _exit (fresh != ours && fresh->inherited == ours ? 0 : 1);
    }
  util_wait_for_child (pid);
  g_assert_true (bg_fork_local (&location, sizeof (BgForkLocal)) == ours);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/waiter/own", test_own);
  util_add_trapped ("/waiter/nested", test_nested);
  util_add_trapped ("/waiter/nested/crosswise", test_nested_crosswise);
  util_add_trapped ("/waiter/short-threads", test_short_threads);
  util_add_trapped ("/waiter/thread-ends", test_thread_ends);
  util_add_trapped ("/waiter/thread-ends/within-wait", test_thread_ends_within_wait);
  util_add_trapped ("/waiter/complete", test_complete);
  util_add_trapped ("/waiter/complete/late", test_complete_late);
  util_add_trapped ("/waiter/broken", test_broken);
  util_add_trapped ("/waiter/cancel", test_cancel);
  util_add_trapped ("/waiter/cancel/between-look-and-handler", test_cancel_between);
  util_add_trapped ("/waiter/cancel/what-has-begun", test_cancel_begun);
  util_add_trapped ("/waiter/cancel/in-handler", test_cancel_in_handler);
  util_add_trapped ("/waiter/cancel/late", test_cancel_late);
  util_add_trapped ("/waiter/cancel/reset", test_cancel_reset);
  util_add_trapped ("/waiter/fork/locked", test_fork_locked);
  util_add_trapped ("/waiter/fork/within-wait", test_fork_within_wait);
#if FORKS_ANY_TIME
  util_add_trapped ("/waiter/fork/any-time", test_fork_any_time);
#endif
  util_add_trapped ("/waiter/fork/counted", test_fork_counted);
  util_add_trapped ("/waiter/fork/local", test_fork_local);

  return g_test_run ();
}
