/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static gboolean
five_times_cb (gpointer user_data)
{
  int *n = user_data;

  return ++*n < 5;
}

static BgLoopStats *
get_stats (BgLoop *loop)
{
  BgLoopStats *stats = bg_loop_get_stats (loop);

  g_assert_nonnull (stats);
  return stats;
}

/* What was accepted has had its outcome. */
static void
assert_accounted_for (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = get_stats (loop);

  g_assert_cmpuint (stats->posted, ==, stats->run + stats->cancelled);
  g_assert_cmpuint (stats->queued, ==, 0);
  g_assert_cmpuint (stats->holds, ==, 0);
}

static void
test_new (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (BgLoopStats) stats = get_stats (fixture->loop);

  g_assert_cmpuint (stats->posted, ==, 0);
  g_assert_cmpuint (stats->run, ==, 0);
  g_assert_cmpuint (stats->refused, ==, 0);
  g_assert_cmpuint (stats->cancelled, ==, 0);
  g_assert_cmpuint (stats->batches, ==, 0);
  g_assert_cmpuint (stats->queued, ==, 0);
  g_assert_cmpuint (stats->queued_max, ==, 0);
  g_assert_cmpuint (stats->holds, ==, 0);
}

static void
test_counts (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) busy = NULL;
  g_autoptr (BgLoopStats) stats = NULL;
  UtilBlock block;
  guint64 hold;

  util_block (&block, loop);
  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  hold = bg_loop_hold (loop, "test");
  busy = get_stats (loop);
  g_assert_cmpuint (busy->posted, ==, 101);
  g_assert_cmpuint (busy->queued, ==, 100);
  g_assert_cmpuint (busy->queued_max, ==, 100);
  g_assert_cmpuint (busy->holds, ==, 1);
  util_unblock (&block);
  bg_loop_release (loop, hold);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_false (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  g_assert_false (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));

  stats = get_stats (loop);
  g_assert_cmpuint (stats->posted, ==, 102);
  g_assert_cmpuint (stats->run, ==, 102);
  g_assert_cmpuint (stats->refused, ==, 2);
  g_assert_cmpuint (stats->cancelled, ==, 0);
  g_assert_cmpuint (stats->queued_max, >=, 100);
  g_assert_cmpuint (stats->batches, >, 0);
  g_assert_cmpuint (stats->batches, <=, 102);
  g_assert_cmpint (stats->busy_usec, >=, stats->longest_usec);
  assert_accounted_for (loop);

  util_block_clear (&block);
}

/* What a loop posts to itself waits for the next batch each time, and wakes nobody. */

typedef struct
{
  BgLoop *loop;
  BgLoopStats *last; /* (owned) (nullable) */
  guint n_left;
  UtilLatch done;
} Chain;

static void
chain_cb (gpointer user_data)
{
  Chain *self = user_data;
  BgLoopStats *stats = get_stats (self->loop);

  if (self->last != NULL)
    {
      g_assert_cmpuint (stats->batches, ==, self->last->batches + 1);
      g_assert_cmpuint (stats->wakeups, ==, self->last->wakeups);
      bg_loop_stats_free (self->last);
    }
  self->last = stats;
  if (self->n_left-- > 0)
    g_assert_true (bg_loop_post (self->loop, chain_cb, self, NULL));
  else
    util_latch_count_down (&self->done);
}

static void
test_batches (BgTestFixture *fixture, gconstpointer data)
{
  Chain self = { .loop = fixture->loop, .n_left = 10 };

  g_object_set (self.loop, "linger", 0, NULL);
  util_latch_init (&self.done, 1);
  g_assert_true (bg_loop_post (self.loop, chain_cb, &self, NULL));
  util_latch_wait (&self.done);
  bg_loop_stats_free (self.last);
  util_loop_shut_down (self.loop);
  util_latch_clear (&self.done);
}

/* A loop that is awake is not woken. */
static void
test_one_wake_up (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) before = NULL;
  g_autoptr (BgLoopStats) after = NULL;
  UtilBlock block;

  util_block (&block, loop);
  before = get_stats (loop);
  for (guint i = 0; i < 10000; i++)
    g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  after = get_stats (loop);
  g_assert_cmpuint (after->wakeups, ==, before->wakeups);
  util_unblock (&block);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

static void
test_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) stats = NULL;
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  stats = get_stats (loop);
  g_assert_cmpuint (stats->posted, ==, 101);
  g_assert_cmpuint (stats->run, ==, 1);
  g_assert_cmpuint (stats->cancelled, ==, 100);
  util_block_clear (&block);
}

/* A task that was cancelled before its turn counts as cancelled, and only so. */
static void
test_cancelled_task (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, NULL, NULL);
  g_autoptr (BgLoopStats) stats = NULL;

  g_cancellable_cancel (cancellable);
  bg_loop_run_task (loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
  util_loop_shut_down (loop);
  stats = get_stats (loop);
  g_assert_cmpuint (stats->posted, ==, 1);
  g_assert_cmpuint (stats->run, ==, 0);
  g_assert_cmpuint (stats->cancelled, ==, 1);
}

/* One piece of work is one, by whatever way it came and however often it ran. */
static void
test_all_kinds (BgTestFixture *fixture, gconstpointer data)
{
  BgShutdownMode mode = GPOINTER_TO_UINT (data);
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) stats = NULL;
  UtilBlock block;
  UtilLatch latch;
  guint64 id;
  int n = 0;

  util_latch_init (&latch, 1);
  g_assert_true (bg_loop_invoke (loop, five_times_cb, &n));
  g_assert_true (
      bg_loop_invoke_full (loop, G_PRIORITY_LOW, util_count_down_source_cb, &latch, NULL));
  util_latch_wait (&latch);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  n = 0;
  g_assert_true (bg_loop_invoke (loop, five_times_cb, &n));
  bg_loop_call_async (loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL, NULL, NULL);
  g_assert_true (bg_loop_post_after (loop, 0, util_nothing_cb, NULL, NULL) != 0);
  g_assert_true (bg_loop_post_after (loop, G_MAXINT, util_nothing_cb, NULL, NULL) != 0);
  id = bg_loop_post_after (loop, G_MAXINT, util_nothing_cb, NULL, g_free);
  g_assert_true (bg_loop_withdraw (loop, id));
  bg_loop_quit (loop, mode);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (loop, NULL));

  assert_accounted_for (loop);
  stats = get_stats (loop);
  g_assert_cmpuint (stats->posted, ==, 10);
  g_assert_cmpuint (stats->cancelled, ==, mode == BG_SHUTDOWN_DRAIN ? 2 : 6);
  util_block_clear (&block);
  util_latch_clear (&latch);
}

/* What was withdrawn, or is waited for no longer, is not counted as queued. */
static void
test_not_queued (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) before = NULL;
  g_autoptr (BgLoopStats) stats = NULL;
  UtilBlock block;
  guint64 id;

  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  before = get_stats (loop);
  g_assert_cmpuint (before->queued, ==, 1);
  id = bg_loop_post_after (loop, 0, util_nothing_cb, NULL, NULL);
  g_assert_true (bg_loop_withdraw (loop, id));
  id = bg_loop_post_after (loop, G_MAXINT, util_nothing_cb, NULL, NULL);
  g_assert_true (bg_loop_withdraw (loop, id));
  for (int timeout_msec = 0; timeout_msec < 3; timeout_msec++)
    {
      g_assert_false (bg_loop_call_full (loop, 0, timeout_msec, util_true_cb, NULL, NULL, NULL));
      g_assert_false (bg_loop_flush (loop, timeout_msec, NULL, NULL));
    }
  stats = get_stats (loop);
  g_assert_cmpuint (stats->queued, ==, 1);
  util_unblock (&block);
  util_loop_shut_down (loop);
  assert_accounted_for (loop);
  util_block_clear (&block);
}

static gboolean
keep_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  *(BgOperation **) user_data = bg_operation_ref (operation);
  return TRUE;
}

static void
assert_queued (BgLoop *loop, guint queued)
{
  g_autoptr (BgLoopStats) stats = get_stats (loop);

  g_assert_cmpuint (stats->queued, ==, queued);
  g_assert_cmpuint (stats->queued_max, >=, queued);
  g_assert_cmpuint (stats->run + stats->cancelled + stats->queued, <=, stats->posted);
}

/* On the loop: of delayed work that is due one iteration makes queued work. */
static gboolean
withdraw_due_cb (gpointer user_data, GError **error)
{
  guint64 id = bg_loop_post_after (user_data, 0, util_nothing_cb, g_malloc (1), g_free);

  g_assert_true (g_main_context_iteration (bg_loop_get_context (user_data), FALSE));
  assert_queued (user_data, 1);
  g_assert_true (bg_loop_withdraw (user_data, id));
  assert_queued (user_data, 0);
  return TRUE;
}

/* Nor is what comes of work that counts as run or cancelled: an answer, and data to be
 * destroyed. */
static void
test_consequences (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  BgOperation *operation = NULL;
  UtilBlock block;

  bg_loop_perform_operation_async (loop, 0, -1, keep_cb, &operation, NULL, NULL, NULL, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_block (&block, loop);
  bg_operation_unref (operation);
  assert_queued (loop, 0);
  util_unblock (&block);
  g_assert_true (bg_loop_call (loop, withdraw_due_cb, loop, NULL, NULL));
  util_loop_shut_down (loop);
  assert_accounted_for (loop);
  util_block_clear (&block);
}

/* Nor does a report or a description name it; what others queue is named. */

typedef struct
{
  BgLoop *loop;
  GCancellable *cancellable;
} GivesUp;

static gpointer
cancelled_thread (gpointer data)
{
  GivesUp *self = data;

  g_assert_false (bg_loop_call (self->loop, util_no_call_cb, NULL, self->cancellable, NULL));
  g_assert_null (
      bg_loop_perform (self->loop, G_PRIORITY_LOW, 0, util_no_begin_cb, NULL, NULL, NULL));
  g_assert_false (bg_loop_flush (self->loop, 1, NULL, NULL));
  return NULL;
}

static void
assert_described (BgLoop *loop, const char *what, gboolean is)
{
  g_autofree char *text = bg_loop_describe (loop);
  g_autoptr (GError) error = NULL;

  g_assert_true ((strstr (text, what) != NULL) == is);
  if (bg_loop_get_state (loop) == BG_LOOP_RUNNING)
    return;

  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_true ((strstr (error->message, what) != NULL) == is);
}

static void
test_not_described (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  GivesUp self = { loop, g_cancellable_new () };
  UtilBlock block;
  GThread *thread;

  util_block (&block, loop);
  thread = g_thread_new ("cancelled", cancelled_thread, &self);
  util_wait_for_queued (loop, 1);
  assert_described (loop, "queued at priority", TRUE);
  g_cancellable_cancel (self.cancellable);
  g_thread_join (thread);
  assert_described (loop, "queued at priority", FALSE);

  for (guint i = 0; i < 3; i++)
    g_assert_true (bg_loop_post_full (loop, 7, util_nothing_cb, NULL, NULL));
  assert_described (loop, "3 queued at priority 7", TRUE);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  assert_described (loop, "3 queued at priority 7", TRUE);
  assert_described (loop, "queued at priority 0", FALSE);
  util_unblock (&block);
  util_loop_shut_down (loop);
  assert_accounted_for (loop);
  util_block_clear (&block);
  g_object_unref (self.cancellable);
}

/* Nor is an operation that a callback waits for no longer, though it is dropped, and its data
 * destroyed, only when its turn comes. */
static void
test_async_given_up (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply replies[3];
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    util_reply_init (&replies[i]);
  for (guint i = 0; i < 2; i++)
    bg_loop_perform_async (loop, 0, i == 0 ? 0 : -1, util_no_begin_cb, NULL, NULL,
                           i == 0 ? NULL : cancellable, util_reply_cb, &replies[i]);
  assert_queued (loop, 2);
  /* The limit of 0 ms is a source that is ready. */
  g_assert_true (g_main_context_iteration (NULL, FALSE));
  assert_queued (loop, 1);
  g_cancellable_cancel (cancellable);
  assert_queued (loop, 0);
  /* Given up before it is given. */
  bg_loop_perform_async (loop, 0, -1, util_no_begin_cb, NULL, NULL, cancellable, util_reply_cb,
                         &replies[2]);
  assert_queued (loop, 0);
  assert_described (loop, "queued at priority", FALSE);
  g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  assert_described (loop, "1 queued at priority 0", TRUE);

  util_unblock (&block);
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    {
      g_autoptr (GError) error = NULL;

      util_reply_wait (&replies[i]);
      g_assert_null (bg_loop_perform_finish (loop, replies[i].result, &error));
      if (i == 0)
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      else
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      util_reply_clear (&replies[i]);
    }
  util_loop_shut_down (loop);
  assert_accounted_for (loop);
  util_block_clear (&block);
}

/* A flush within which a function iterates the loop waits for that function. Given up, it
 * takes nothing else with it. */

typedef struct
{
  BgLoop *loop;
  UtilLatch runs;
  UtilLatch goes_on;
  UtilLatch rests; /* it iterates no more */
  int iterates;    /* atomic */
} Iterating;

static void
iterating_cb (gpointer user_data)
{
  Iterating *self = user_data;

  util_latch_count_down (&self->runs);
  while (g_atomic_int_get (&self->iterates))
    g_main_context_iteration (bg_loop_get_context (self->loop), FALSE);
  util_latch_count_down (&self->rests);
  util_latch_wait (&self->goes_on);
}

static gpointer
flush_thread (gpointer user_data)
{
  GCancellable *cancellable = user_data;
  BgLoop *loop = g_object_get_data (G_OBJECT (cancellable), "loop");
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_flush (loop, -1, cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  return NULL;
}

static guint64
get_posted (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = get_stats (loop);

  return stats->posted;
}

static void
test_flush_within (BgTestFixture *fixture, gconstpointer data)
{
  UtilLatch ran;
  Iterating self = { fixture->loop, .iterates = TRUE };
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  GThread *thread;

  util_latch_init (&self.runs, 1);
  util_latch_init (&self.goes_on, 1);
  util_latch_init (&self.rests, 1);
  g_object_set_data (G_OBJECT (cancellable), "loop", self.loop);
  g_assert_true (bg_loop_post (self.loop, iterating_cb, &self, NULL));
  util_latch_wait (&self.runs);

  thread = g_thread_new ("flush", flush_thread, cancellable);
  while (get_posted (self.loop) < 2)
    g_thread_yield ();
  /* What came after the flush has run within the function: so has the flush been looked at. */
  util_latch_init (&ran, 1);
  g_assert_true (bg_loop_post (self.loop, util_count_down_cb, &ran, NULL));
  util_latch_wait (&ran);
  util_latch_clear (&ran);
  util_wait_for_queued (self.loop, 1);
  g_atomic_int_set (&self.iterates, FALSE);
  util_latch_wait (&self.rests);

  for (guint i = 0; i < 2; i++)
    g_assert_true (bg_loop_post (self.loop, util_nothing_cb, NULL, NULL));
  util_wait_for_queued (self.loop, 3);
  g_cancellable_cancel (cancellable);
  g_thread_join (thread);
  util_wait_for_queued (self.loop, 2);
  assert_described (self.loop, "2 queued at priority 0", TRUE);

  util_latch_count_down (&self.goes_on);
  util_loop_shut_down (self.loop);
  util_latch_clear (&self.runs);
  util_latch_clear (&self.goes_on);
  util_latch_clear (&self.rests);
}

/* A loop that has ended is not busy any more, whatever has ended it. */
static void
exit_cb (gpointer user_data)
{
  g_thread_exit (NULL);
}

static void
test_busy_at_the_end (void)
{
  BgLoop *loop = util_loop_new ("stats");
  g_autoptr (BgLoopStats) first = NULL;
  gint64 begin;

  util_catch_criticals ();
  g_assert_true (bg_loop_post (loop, exit_cb, NULL, NULL));
  g_assert_true (bg_loop_shutdown (loop, NULL));
  util_take_critical ("*has ended the thread of the loop*stats*");
  first = get_stats (loop);
  begin = g_get_monotonic_time ();
  while (g_get_monotonic_time () < begin + 1000)
    {
      g_autoptr (BgLoopStats) stats = get_stats (loop);

      g_assert_cmpint (stats->busy_usec, ==, first->busy_usec);
      g_assert_cmpint (stats->longest_usec, ==, first->longest_usec);
    }
  util_loop_end (loop);
}

/* Whoever looks while batches begin and end sees neither time go back. */
static void
test_busy_grows (BgTestFixture *fixture, gconstpointer data)
{
  gint64 busy = 0, longest = 0;

  for (int priority = 1; priority <= 8; priority++)
    g_assert_true (bg_loop_post_full (fixture->loop, priority, util_nothing_cb, NULL, NULL));
  for (guint i = 0; i < util_scale (100000); i++)
    {
      g_autoptr (BgLoopStats) stats = NULL;

      if (i % 16 == 0)
        g_assert_true (bg_loop_post (fixture->loop, util_nothing_cb, NULL, NULL));
      stats = get_stats (fixture->loop);
      g_assert_cmpint (stats->busy_usec, >=, busy);
      g_assert_cmpint (stats->longest_usec, >=, longest);
      busy = stats->busy_usec;
      longest = stats->longest_usec;
    }
}

/* What runs now is in the times already, though it has not ended. */
static void
test_runs_now (BgTestFixture *fixture, gconstpointer data)
{
  gint64 busy = 0, longest = 0;
  guint64 run = 0;
  UtilBlock block;

  util_block (&block, fixture->loop);
  while (busy < 2000 || longest < 2000)
    {
      g_autoptr (BgLoopStats) stats = get_stats (fixture->loop);

      g_assert_cmpint (stats->busy_usec, >=, busy);
      g_assert_cmpint (stats->longest_usec, >=, longest);
      busy = stats->busy_usec;
      longest = stats->longest_usec;
      run = stats->run;
      g_thread_yield ();
    }
  g_assert_cmpuint (run, ==, 0);
  util_unblock (&block);
  util_loop_shut_down (fixture->loop);
  util_block_clear (&block);
}

/* Counters are of 64 bits, and there is room behind them. */
static void
test_fields (void)
{
  BgLoopStats stats = { 0 };

  stats.posted = stats.run = stats.refused = stats.cancelled = G_MAXUINT64;
  stats.batches = stats.wakeups = G_MAXUINT64;
  stats.queued = stats.queued_max = stats.holds = G_MAXUINT64;
  stats.busy_usec = stats.longest_usec = G_MININT64;
  g_assert_cmpuint (stats.queued, ==, G_MAXUINT64);
  g_assert_cmpuint (stats.queued_max, ==, G_MAXUINT64);
  g_assert_cmpuint (stats.holds, ==, G_MAXUINT64);
  g_assert_cmpuint (sizeof stats, >, 11 * sizeof (guint64));
}

static void
test_boxed (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (BgLoopStats) stats = NULL;
  g_autoptr (BgLoopStats) copy = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  g_assert_true (bg_loop_call (fixture->loop, util_true_cb, NULL, NULL, NULL));
  stats = get_stats (fixture->loop);
  copy = bg_loop_stats_copy (stats);
  g_assert_cmpmem (stats, sizeof *stats, copy, sizeof *copy);
  g_value_init (&value, BG_TYPE_LOOP_STATS);
  g_value_set_boxed (&value, stats);
  g_assert_cmpmem (stats, sizeof *stats, g_value_get_boxed (&value), sizeof *stats);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/stats/new/is-all-zero", test_new);
  util_add ("/stats/counts", test_counts);
  util_add ("/stats/batches/no-wake-ups", test_batches);
  util_add ("/stats/wake-ups/none-while-awake", test_one_wake_up);
  util_add ("/stats/cancelled", test_cancelled);
  util_add ("/stats/cancelled/task", test_cancelled_task);
  util_add_data ("/stats/all-kinds/drained", test_all_kinds, GUINT_TO_POINTER (BG_SHUTDOWN_DRAIN));
  util_add_data ("/stats/all-kinds/cancelled", test_all_kinds,
                 GUINT_TO_POINTER (BG_SHUTDOWN_CANCEL));
  util_add ("/stats/not-queued", test_not_queued);
  util_add ("/stats/not-queued/consequences", test_consequences);
  util_add ("/stats/not-queued/nor-described", test_not_described);
  util_add ("/stats/not-queued/async-given-up", test_async_given_up);
  util_add ("/stats/not-queued/flush-within", test_flush_within);
  util_add_trapped ("/stats/busy/not-after-the-end", test_busy_at_the_end);
  util_add ("/stats/busy/grows", test_busy_grows);
  util_add ("/stats/what-runs-now", test_runs_now);
  g_test_add_func ("/stats/fields", test_fields);
  util_add ("/stats/boxed", test_boxed);

  return g_test_run ();
}
