/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static const int priorities[]
    = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH, G_MAXINT, G_MININT };

static void
assert_flush (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;
  gboolean flushed = bg_loop_flush (loop, -1, NULL, &error);

  g_assert_no_error (error);
  g_assert_true (flushed);
}

static void
test_nothing (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < util_scale (5000); i++)
    assert_flush (fixture->loop);
}

static void
test_all_priorities (BgTestFixture *fixture, gconstpointer data)
{
  for (guint round = 0; round < util_scale (100); round++)
    {
      int n = 0;

      for (guint i = 0; i < 1000; i++)
        g_assert_true (bg_loop_post_full (fixture->loop, priorities[i % G_N_ELEMENTS (priorities)],
                                          util_count_cb, &n, util_count_cb));
      assert_flush (fixture->loop);
      g_assert_cmpint (n, ==, 2000);
    }
}

/* The work that runs when the flush begins is not in the queue any more. */
static void
test_what_runs (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  int n = 0;

  util_block (&block, loop);
  g_assert_false (bg_loop_flush (loop, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_true (bg_loop_post (loop, util_count_cb, &n, NULL));
  util_unblock (&block);
  assert_flush (loop);
  g_assert_cmpint (n, ==, 1);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch entered;
  gboolean seen;
  int ended; /* atomic */
} Nested;

static void
seen_cb (gpointer user_data)
{
  ((Nested *) user_data)->seen = TRUE;
}

static void
nested_cb (gpointer user_data)
{
  Nested *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);

  util_latch_count_down (&self->entered);
  while (!self->seen)
    g_main_context_iteration (context, FALSE);
  for (guint i = 0; i < 1000; i++)
    g_main_context_iteration (context, FALSE);
  g_atomic_int_set (&self->ended, TRUE);
}

static gpointer
flush_cb (gpointer user_data)
{
  Nested *self = user_data;

  assert_flush (self->loop);
  g_assert_true (g_atomic_int_get (&self->ended));
  return NULL;
}

/* Work that iterates the context has other work run within it, the end of the
 * flush included. */
static void
test_what_runs_around (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      Nested self = { util_loop_new ("flush") };
      GThread *thread;

      util_latch_init (&self.entered, 1);
      g_assert_true (bg_loop_post (self.loop, nested_cb, &self, NULL));
      util_latch_wait (&self.entered);
      thread = g_thread_new ("flush", flush_cb, &self);
      g_assert_true (bg_loop_post (self.loop, seen_cb, &self, NULL));
      g_thread_join (thread);
      util_loop_end (self.loop);
      util_latch_clear (&self.entered);
    }
}

/* While that work runs the end of the flush counts as queued once, and does not come again and
 * again: the work may iterate until there is nothing more to do. */

typedef struct
{
  BgLoop *loop;
  UtilLatch entered;
  UtilLatch idle;
  UtilLatch released;
  gboolean seen;
  gboolean exits;
  int n_dispatches; /* when everything has been seen */
} Idle;

static void
idle_seen_cb (gpointer user_data)
{
  ((Idle *) user_data)->seen = TRUE;
}

static void
iterate_all_cb (gpointer user_data)
{
  Idle *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);

  util_latch_count_down (&self->entered);
  while (!self->seen)
    g_main_context_iteration (context, FALSE);
  for (guint i = 0; i < 1000; i++)
    self->n_dispatches += g_main_context_iteration (context, FALSE);
  util_latch_count_down (&self->idle);
  util_latch_wait (&self->released);
  if (self->exits)
    g_thread_exit (NULL);
}

static gpointer
flush_or_closed_cb (gpointer user_data)
{
  Idle *self = user_data;
  g_autoptr (GError) error = NULL;

  if (!self->exits)
    assert_flush (self->loop);
  else if (!bg_loop_flush (self->loop, -1, NULL, &error))
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

static void
assert_queued_of (BgLoop *loop, guint queued, guint posted)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

  g_assert_cmpuint (stats->queued, ==, queued);
  g_assert_cmpuint (stats->posted, ==, posted);
  g_assert_cmpuint (stats->run + stats->cancelled, <=, posted);
}

static void
wait_for_posted (BgLoop *loop, guint posted)
{
  for (;;)
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

      if (stats->posted == posted)
        return;
      g_thread_yield ();
    }
}

static void
run_around (gboolean exits)
{
  Idle self = { util_loop_new ("flush"), .exits = exits };
  GThread *thread;

  util_latch_init (&self.entered, 1);
  util_latch_init (&self.idle, 1);
  util_latch_init (&self.released, 1);
  g_assert_true (bg_loop_post (self.loop, iterate_all_cb, &self, NULL));
  util_latch_wait (&self.entered);
  thread = g_thread_new ("flush", flush_or_closed_cb, &self);
  wait_for_posted (self.loop, 2);
  g_assert_true (bg_loop_post (self.loop, idle_seen_cb, &self, NULL));
  util_latch_wait (&self.idle);
  g_assert_cmpint (self.n_dispatches, <, 10);
  assert_queued_of (self.loop, 1, 3);
  util_latch_count_down (&self.released);
  g_thread_join (thread);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  assert_queued_of (self.loop, 0, 3);
  g_object_unref (self.loop);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.idle);
  util_latch_clear (&self.released);
}

static void
test_counted_once (void)
{
  run_around (FALSE);
}

/* The thread may end meanwhile. */
static void
test_thread_ends (void)
{
  util_catch_criticals ();
  run_around (TRUE);
  util_take_critical ("*has ended the thread of the loop*flush*");
}

typedef struct
{
  GTask *task;
  int n;
} Operation;

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Operation *self = user_data;

  self->task = g_task_new (NULL, cancellable, callback, callback_data);
  self->n++;
  return TRUE;
}

static void
end_cb (gpointer user_data)
{
  Operation *self = user_data;

  g_task_return_boolean (self->task, TRUE);
  g_clear_object (&self->task);
}

/* Calls have run, operations are begun; their answers are not waited for. */
static void
test_calls_and_begins (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Operation operation = { .n = 0 };
  UtilBlock block;
  int n = 0;

  util_block (&block, loop);
  for (guint i = 0; i < 10; i++)
    bg_loop_call_async (loop, G_PRIORITY_LOW, -1, util_count_call_cb, &n, util_count_cb, NULL, NULL,
                        NULL);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, begin_cb, &operation, NULL, NULL, NULL,
                         NULL);
  util_unblock (&block);
  assert_flush (loop);
  g_assert_cmpint (n, ==, 20);
  g_assert_cmpint (operation.n, ==, 1);

  g_assert_true (bg_loop_post (loop, end_cb, &operation, NULL));
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

static void
test_delayed_and_due (BgTestFixture *fixture, gconstpointer data)
{
  guint n_rounds = util_scale (2000);
  int n = 0;

  for (guint i = 0; i < n_rounds; i++)
    {
      g_assert_true (bg_loop_post_after (fixture->loop, 0, util_count_cb, &n, NULL) != 0);
      assert_flush (fixture->loop);
      g_assert_cmpint (g_atomic_int_get (&n), ==, (int) i + 1);
    }
}

static void
test_delayed_and_not_due (BgTestFixture *fixture, gconstpointer data)
{
  int n = 0;

  g_assert_true (
      bg_loop_post_after (fixture->loop, G_MAXINT, util_not_reached_cb, &n, util_count_cb) != 0);
  assert_flush (fixture->loop);
  g_assert_cmpint (g_atomic_int_get (&n), ==, 0);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (n, ==, 1);
}

static gboolean
again_cb (gpointer user_data)
{
  return !g_atomic_int_get ((gboolean *) user_data);
}

static void
test_invoked (BgTestFixture *fixture, gconstpointer data)
{
  gboolean stopped = FALSE;

  g_assert_true (bg_loop_invoke (fixture->loop, again_cb, &stopped));
  for (guint i = 0; i < util_scale (100); i++)
    assert_flush (fixture->loop);
  g_atomic_int_set (&stopped, TRUE);
  util_loop_shut_down (fixture->loop);
}

typedef struct
{
  BgLoop *loop;
  int priority;
  gboolean stopped; /* atomic */
} Chain;

static void
chain_cb (gpointer user_data)
{
  Chain *self = user_data;

  if (!g_atomic_int_get (&self->stopped))
    g_assert_true (bg_loop_post_full (self->loop, self->priority, chain_cb, self, NULL));
}

/* What the work posts in turn is not waited for, or this would not end. */
static void
test_what_is_posted_in_turn (BgTestFixture *fixture, gconstpointer data)
{
  Chain chain = { .loop = fixture->loop, .priority = GPOINTER_TO_INT (data) };

  chain_cb (&chain);
  for (guint i = 0; i < util_scale (100); i++)
    {
      int n = 0;

      g_assert_true (bg_loop_post (chain.loop, util_count_cb, &n, NULL));
      assert_flush (chain.loop);
      g_assert_cmpint (n, ==, 1);
    }
  g_atomic_int_set (&chain.stopped, TRUE);
  util_loop_shut_down (chain.loop);
}

/* Refused */

static gboolean
flush_here_cb (gpointer user_data, GError **error)
{
  BgLoop *loop = user_data;
  g_autoptr (GError) local = NULL;

  g_assert_false (bg_loop_flush (loop, -1, NULL, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_nonnull (strstr (local->message, bg_loop_get_name (loop)));
  g_clear_error (&local);
  g_assert_false (bg_loop_flush (loop, 0, NULL, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  return TRUE;
}

static void
test_own_thread (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_true (bg_loop_call (fixture->loop, flush_here_cb, fixture->loop, NULL, NULL));
}

static gboolean
call_other_cb (gpointer user_data, GError **error)
{
  BgLoop **loops = user_data;

  return bg_loop_call (loops[1], flush_here_cb, loops[0], NULL, error);
}

static void
test_circle (void)
{
  BgLoop *loops[] = { util_loop_new ("flush"), util_loop_new ("other") };

  g_assert_true (bg_loop_call (loops[0], call_other_cb, loops, NULL, NULL));
  util_loop_end (loops[0]);
  util_loop_end (loops[1]);
}

static void
test_stopped (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  g_assert_false (bg_loop_flush (fixture->loop, -1, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_false (bg_loop_flush (fixture->loop, 0, NULL, NULL));
}

/* However often one gives up, nothing is left behind. */
static void
test_timeout (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  int n = 0;

  g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, util_count_cb, &n, NULL));
  util_block (&block, loop);
  for (guint i = 0; i < 100; i++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_false (bg_loop_flush (loop, (int) i % 3, NULL, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
    }
  util_unblock (&block);
  assert_flush (loop);
  util_loop_shut_down (loop);
  g_assert_cmpint (n, ==, 1);
  util_block_clear (&block);
}

/* A cancellable ends the wait, while the loop is still blocked. */

typedef struct
{
  BgLoop *loop;
  GCancellable *cancellable;
  UtilLatch started;
} Cancelled;

static gpointer
cancelled_thread (gpointer user_data)
{
  Cancelled *self = user_data;
  g_autoptr (GError) error = NULL;

  util_latch_count_down (&self->started);
  g_assert_false (bg_loop_flush (self->loop, -1, self->cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  return NULL;
}

static void
test_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  int n = 0;

  g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, util_count_cb, &n, NULL));
  util_block (&block, loop);
  for (guint i = 0; i < util_scale (100); i++)
    {
      Cancelled self = { loop, g_cancellable_new () };
      GThread *thread;

      util_latch_init (&self.started, 1);
      thread = g_thread_new ("cancelled", cancelled_thread, &self);
      if (i % 2 == 0)
        util_latch_wait (&self.started);
      g_cancellable_cancel (self.cancellable);
      g_thread_join (thread);
      util_latch_clear (&self.started);
      g_assert_finalize_object (self.cancellable);
    }
  util_unblock (&block);
  assert_flush (loop);
  util_loop_shut_down (loop);
  g_assert_cmpint (n, ==, 1);
  util_block_clear (&block);
}

static void
test_not_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  int n = 0;

  g_assert_true (bg_loop_post (fixture->loop, util_count_cb, &n, NULL));
  g_assert_true (bg_loop_flush (fixture->loop, -1, cancellable, &error));
  g_assert_no_error (error);
  g_assert_cmpint (n, ==, 1);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

/* Many at once */

static gpointer
flush_thread (gpointer data)
{
  BgLoop *loop = data;

  for (guint i = 0; i < util_scale (2000); i++)
    {
      int n = 0;

      g_assert_true (bg_loop_post_full (loop, priorities[i % G_N_ELEMENTS (priorities)],
                                        util_count_cb, &n, NULL));
      assert_flush (loop);
      g_assert_cmpint (n, ==, 1);
    }

  return NULL;
}

static void
test_many_threads (BgTestFixture *fixture, gconstpointer data)
{
  util_run_threads (8, flush_thread, fixture->loop);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
} Race;

static gpointer
race_thread (gpointer data)
{
  Race *self = data;
  g_autoptr (GError) error = NULL;
  gboolean posted = TRUE;
  int n = 0, n_posted = 0;

  util_latch_count_down (&self->start);
  while (posted)
    {
      posted = bg_loop_post (self->loop, util_count_cb, &n, NULL);
      n_posted += posted;
      if (posted && bg_loop_flush (self->loop, -1, NULL, &error))
        g_assert_cmpint (g_atomic_int_get (&n), ==, n_posted);
      else if (error != NULL)
        g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      g_clear_error (&error);
    }

  g_assert_true (bg_loop_shutdown (self->loop, NULL));
  g_assert_cmpint (n, ==, n_posted);
  return NULL;
}

static void
test_shutdown_race (void)
{
  for (guint round = 0; round < util_scale (500); round++)
    {
      Race race = { .loop = util_loop_new ("flush") };

      util_race_shutdown (race.loop, &race.start, 4, race_thread, &race, NULL);
      g_assert_finalize_object (race.loop);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/flush/waits/for-nothing", test_nothing);
  util_add ("/flush/waits/for-all-priorities", test_all_priorities);
  util_add ("/flush/waits/for-what-runs", test_what_runs);
  g_test_add_func ("/flush/waits/for-what-runs-around-it", test_what_runs_around);
  util_add_trapped ("/flush/waits/for-what-runs-around-it/counted-once", test_counted_once);
  util_add_trapped ("/flush/waits/for-what-runs-around-it/thread-ends", test_thread_ends);
  util_add ("/flush/waits/for-calls-and-begins", test_calls_and_begins);
  util_add ("/flush/waits/for-delayed-work-that-is-due", test_delayed_and_due);
  util_add ("/flush/does-not-wait/for-delayed-work-that-is-not-due", test_delayed_and_not_due);
  util_add ("/flush/does-not-wait/for-invoked-functions", test_invoked);
  util_add_data ("/flush/does-not-wait/for-what-is-posted-in-turn", test_what_is_posted_in_turn,
                 GINT_TO_POINTER (G_PRIORITY_DEFAULT));
  util_add_data ("/flush/does-not-wait/for-what-is-posted-in-turn-urgently",
                 test_what_is_posted_in_turn, GINT_TO_POINTER (G_PRIORITY_HIGH));
  util_add ("/flush/own-thread/would-deadlock", test_own_thread);
  g_test_add_func ("/flush/circle/would-deadlock", test_circle);
  util_add ("/flush/stopped/is-closed", test_stopped);
  util_add ("/flush/timeout", test_timeout);
  util_add ("/flush/cancelled/while-the-loop-is-blocked", test_cancelled);
  util_add ("/flush/cancelled/not", test_not_cancelled);
  util_add ("/flush/many-threads", test_many_threads);
  g_test_add_func ("/flush/shutdown-race/flushed-or-closed", test_shutdown_race);

  return g_test_run ();
}
