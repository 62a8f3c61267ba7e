/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static void
assert_shutdown (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;
  gboolean ended = bg_loop_shutdown (loop, &error);

  g_assert_no_error (error);
  g_assert_true (ended);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
}

static gpointer
quit_thread (gpointer data)
{
  bg_loop_quit (data, BG_SHUTDOWN_DRAIN);
  return NULL;
}

static gpointer
shutdown_thread (gpointer data)
{
  assert_shutdown (data);
  return NULL;
}

/* Right after the start, when g_main_loop_quit() would be forgotten */

static void
test_right_after_start (void)
{
  guint n_fds = util_count_fds ();

  for (guint i = 0; i < util_scale (1000); i++)
    util_loop_end (util_loop_new ("stop"));
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

static void
test_quit_right_after_start (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("stop");

      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      util_loop_end (loop);
    }
}

static void
test_quit_from_the_first_callback (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("stop");

      g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
      util_loop_end (loop);
    }
}

static void
test_quit_races_shutdown (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("stop");
      GThread *thread = g_thread_new ("quit", quit_thread, loop);

      assert_shutdown (loop);
      g_thread_join (thread);
      g_assert_finalize_object (loop);
    }
}

/* More than once */

static void
test_twice (void)
{
  BgLoop *loop = util_loop_new ("stop");

  for (guint i = 0; i < 3; i++)
    {
      assert_shutdown (loop);
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
      g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, NULL));
    }
  g_assert_finalize_object (loop);
}

static void
test_many_threads_at_once (void)
{
  guint n_threads = util_count_threads ();

  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("stop");

      util_run_threads (8, i % 2 == 0 ? shutdown_thread : quit_thread, loop);
      util_loop_end (loop);
    }
  util_wait_for_threads (n_threads);
}

/* Quit */

static void
test_quit_does_not_wait (void)
{
  BgLoop *loop = util_loop_new ("stop");
  UtilBlock block;
  int n = 0;

  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, util_count_cb, &n, util_count_cb));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);
  util_unblock (&block);
  util_loop_end (loop);
  g_assert_cmpint (n, ==, 2);
  util_block_clear (&block);
}

static void
wait_cb (gpointer user_data)
{
  util_latch_wait (user_data);
}

/* The loop ends though nobody waits for it. */
static void
test_quit_ends_the_loop (void)
{
  guint n_threads = util_count_threads ();
  BgLoop *loop = util_loop_new ("stop");
  UtilLatch latch;

  util_latch_init (&latch, 1);
  g_assert_true (bg_loop_post (loop, wait_cb, &latch, NULL));
  g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
  util_latch_count_down (&latch);
  while (bg_loop_get_state (loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  util_loop_end (loop);
  util_wait_for_threads (n_threads);
  util_latch_clear (&latch);
}

/* Drain */

static void
test_drain_runs_all (void)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };

  for (guint round = 0; round < util_scale (100); round++)
    {
      BgLoop *loop = util_loop_new ("stop");
      int n = 0;

      for (guint i = 0; i < 1000; i++)
        g_assert_true (
            bg_loop_post_full (loop, priorities[i % 3], util_count_cb, &n, util_count_cb));
      util_loop_end (loop);
      g_assert_cmpint (n, ==, 2000);
    }
}

typedef struct
{
  BgLoop *loop;
  guint left;
  int priority;
  int n_destroyed;
} Chain;

static void
chain_cb (gpointer user_data)
{
  Chain *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  if (--self->left > 0)
    {
      self->priority = self->left % 2 == 0 ? G_PRIORITY_DEFAULT : G_PRIORITY_LOW;
      g_assert_true (bg_loop_post_full (self->loop, self->priority, chain_cb, self, NULL));
    }
}

/* What the work posts in turn runs, too. */
static void
test_drain_runs_a_chain (void)
{
  Chain chain = { .loop = util_loop_new ("stop"), .left = 1000 };
  UtilBlock block;

  util_block (&block, chain.loop);
  g_assert_true (bg_loop_post (chain.loop, chain_cb, &chain, NULL));
  bg_loop_quit (chain.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (chain.loop);
  g_assert_cmpuint (chain.left, ==, 0);
  util_block_clear (&block);
}

static void
test_drain_drops_what_is_not_due (void)
{
  BgLoop *loop = util_loop_new ("stop");
  int n = 0;

  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post_after (loop, G_MAXINT - i, util_not_reached_cb, &n, util_count_cb)
                   != 0);
  util_loop_end (loop);
  g_assert_cmpint (n, ==, 100);
}

static void
on_the_loop_destroy (gpointer user_data)
{
  Chain *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->n_destroyed++;
}

/* Sources that are always ready do not hold up the end, and are destroyed. */
static void
test_drain_beside_busy_sources (void)
{
  static const int priorities[] = { G_MININT, G_PRIORITY_HIGH, G_PRIORITY_DEFAULT, G_MAXINT };

  for (guint round = 0; round < util_scale (200); round++)
    {
      BgLoop *loop = util_loop_new ("stop");
      Chain chain = { .loop = loop, .left = 100 };

      for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
        {
          g_autoptr (GSource) source = g_idle_source_new ();

          g_source_set_priority (source, priorities[i]);
          g_source_set_callback (source, util_continue_cb, &chain, on_the_loop_destroy);
          g_source_attach (source, bg_loop_get_context (loop));
        }
      g_assert_true (bg_loop_post (loop, chain_cb, &chain, NULL));
      util_loop_end (loop);
      g_assert_cmpuint (chain.left, ==, 0);
      g_assert_cmpint (chain.n_destroyed, ==, G_N_ELEMENTS (priorities));
    }
}

/* Work that goes on until a source has had its turn, of a lower priority, ends: the work that is
 * driven above all sources leaves them turns. */

static void
post_until_open_cb (gpointer user_data)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();

  if (!util_latch_is_open (user_data))
    g_assert_true (bg_loop_post (loop, post_until_open_cb, user_data, NULL));
}

static void
test_drain_beside_a_source (void)
{
  BgLoop *loop = util_loop_new ("source");
  g_autoptr (GSource) source = g_idle_source_new ();
  UtilLatch turn;
  UtilBlock block;

  util_latch_init (&turn, 1);
  util_block (&block, loop);
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, util_count_down_source_cb, &turn, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_assert_true (bg_loop_post (loop, post_until_open_cb, &turn, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  g_assert_true (util_latch_is_open (&turn));
  util_latch_clear (&turn);
  util_block_clear (&block);
}

/* Posts that race it */

#define N_THREADS 10
#define N_EACH    1000

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int ran;      /* the loop's thread */
  int admitted; /* atomic */
  int here;     /* atomic: destroyed on the loop */
  int there;    /* atomic: destroyed in the caller */
} Race;

static void
race_cb (gpointer user_data)
{
  Race *self = user_data;

  self->ran++;
}

static void
race_destroy (gpointer user_data)
{
  Race *self = user_data;

  g_atomic_int_inc (bg_loop_is_current (self->loop) ? &self->here : &self->there);
}

static gpointer
race_thread (gpointer data)
{
  Race *self = data;

  util_latch_count_down (&self->start);
  for (guint i = 0; i < N_EACH; i++)
    {
      if (bg_loop_post (self->loop, race_cb, self, race_destroy))
        g_atomic_int_inc (&self->admitted);
    }

  return NULL;
}

static gpointer
race_shutdown_thread (gpointer data)
{
  Race *self = data;

  util_latch_wait (&self->start);
  for (int i = g_random_int_range (0, 100); i > 0; i--)
    g_thread_yield ();
  assert_shutdown (self->loop);

  /* All that was admitted has its outcome by now, whoever still posts. */
  g_assert_cmpint (self->ran, ==, g_atomic_int_get (&self->here));
  return NULL;
}

static void
test_posts_race (void)
{
  for (guint round = 0; round < util_scale (100); round++)
    {
      Race race = { .loop = util_loop_new ("stop") };
      GThread *thread;

      util_latch_init (&race.start, N_THREADS);
      thread = g_thread_new ("shutdown", race_shutdown_thread, &race);
      util_run_threads (N_THREADS, race_thread, &race);
      g_thread_join (thread);
      g_assert_cmpint (race.ran, ==, race.admitted);
      g_assert_cmpint (race.here, ==, race.admitted);
      g_assert_cmpint (race.there, ==, N_THREADS * N_EACH - race.admitted);
      g_assert_finalize_object (race.loop);
      util_latch_clear (&race.start);
    }
}

/* Refused */

static gboolean
shut_down_here_cb (gpointer user_data, GError **error)
{
  BgLoop *loop = user_data;
  g_autoptr (GError) local = NULL;

  g_assert_false (bg_loop_shutdown (loop, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_clear_error (&local);
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, 1000, NULL, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  return TRUE;
}

static void
test_own_thread (void)
{
  BgLoop *loop = util_loop_new ("stop");
  int n = 0;

  g_assert_true (bg_loop_call (loop, shut_down_here_cb, loop, NULL, NULL));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
  g_assert_true (bg_loop_post (loop, util_count_cb, &n, NULL));
  util_loop_end (loop);
  g_assert_cmpint (n, ==, 1);
}

static gboolean
call_other_cb (gpointer user_data, GError **error)
{
  BgLoop **loops = user_data;

  return bg_loop_call (loops[1], shut_down_here_cb, loops[0], NULL, error);
}

/* A waits for B, which would wait for the end of A. */
static void
test_circle (void)
{
  BgLoop *loops[] = { util_loop_new ("stop"), util_loop_new ("other") };

  g_assert_true (bg_loop_call (loops[0], call_other_cb, loops, NULL, NULL));
  util_loop_end (loops[0]);
  util_loop_end (loops[1]);
}

static gboolean
end_cb (gpointer user_data, GError **error)
{
  return bg_loop_shutdown (user_data, error);
}

static void
test_from_another_loop (void)
{
  BgLoop *other = util_loop_new ("other");

  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("stop");
      g_autoptr (GError) error = NULL;

      g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
      bg_loop_call (other, end_cb, loop, NULL, &error);
      g_assert_no_error (error);
      util_loop_end (loop);
    }
  util_loop_end (other);
}

static void
test_no_time_to_wait (void)
{
  BgLoop *loop = util_loop_new ("stop");
  g_autoptr (GError) error = NULL;
  UtilBlock block;

  util_block (&block, loop);
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  util_unblock (&block);
  assert_shutdown (loop);
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, NULL));
  g_assert_finalize_object (loop);
  util_block_clear (&block);
}

/* What is left */

static void
test_leaves_nothing (void)
{
  guint n_threads = util_count_threads ();
  guint n_eventfds = util_count_eventfds ();
  BgLoop *loop = util_loop_new ("stop");
  GMainContext *context = bg_loop_get_context (loop);

  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds + 1);
  assert_shutdown (loop);
  util_wait_for_threads (n_threads);

  /* Its thread let go of it. */
  g_assert_true (g_main_context_acquire (context));
  g_assert_false (g_main_context_pending (context));
  g_main_context_release (context);

  g_assert_finalize_object (loop);
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* A destroy notify, that of the last thing that there is or of a source, has the loop find that
 * nothing is left, and posts then; and so does what it posts. */

typedef struct
{
  BgLoop *loop;
  guint n_left;
} Relay;

static void
iterate_and_post_cb (gpointer user_data)
{
  Relay *self = user_data;

  if (self->n_left == 0)
    return;

  self->n_left--;
  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  while (g_main_context_iteration (bg_loop_get_context (self->loop), FALSE))
    ;
  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_DEFAULT, iterate_and_post_cb, self,
                                    iterate_and_post_cb));
}

static void
test_drain_goes_on (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Relay self = { util_loop_new ("goes on"), 9 };

      g_assert_true (bg_loop_post_full (self.loop, G_PRIORITY_DEFAULT, util_nothing_cb, &self,
                                        iterate_and_post_cb));
      util_loop_end (self.loop);
      g_assert_cmpuint (self.n_left, ==, 0);
    }
}

static void
test_drain_goes_on_source (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Relay self = { util_loop_new ("goes on"), 9 };
      g_autoptr (GSource) source = g_idle_source_new ();

      g_source_set_callback (source, util_remove_cb, &self, iterate_and_post_cb);
      g_assert_true (bg_loop_attach (self.loop, source));
      g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
      g_assert_cmpuint (self.n_left, ==, 0);
      util_loop_end (self.loop);
    }
}

/* A main loop on the loop's thread, which goes on when the loop has done all of its work. */

typedef struct
{
  BgLoop *loop;
  guint64 hold;
  GMainLoop *nested;
  GSource *quit; /* (nullable): more urgent than the busy source, and not ready yet */
  guint n_held;  /* turns of the busy source */
  guint n_turns;
} Nested;

#define MAX_HELD   64
#define MORE_TURNS 1000

static gboolean
quit_nested_cb (gpointer user_data)
{
  Nested *self = user_data;

  g_main_loop_quit (self->nested);
  return G_SOURCE_REMOVE;
}

/* Always ready: while the loop is held, and for longer. */
static gboolean
busy_nested_cb (gpointer user_data)
{
  Nested *self = user_data;

  if (++self->n_turns == self->n_held)
    bg_loop_release (self->loop, self->hold);
  if (self->n_turns == self->n_held + MORE_TURNS)
    g_source_set_ready_time (self->quit, 0);
  return G_SOURCE_CONTINUE;
}

static void
run_nested_cb (gpointer user_data)
{
  Nested *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);
  GSource *busy = g_idle_source_new ();

  self->hold = bg_loop_hold (self->loop, "nested");
  self->nested = g_main_loop_new (context, FALSE);
  self->quit = g_timeout_source_new (G_MAXINT);
  g_source_set_priority (self->quit, G_MININT);
  g_source_set_callback (self->quit, quit_nested_cb, self, NULL);
  g_source_attach (self->quit, context);
  g_source_set_callback (busy, busy_nested_cb, self, NULL);
  g_source_attach (busy, context);

  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  g_main_loop_run (self->nested);

  g_source_destroy (busy);
  g_source_unref (busy);
  g_source_destroy (self->quit);
  g_source_unref (self->quit);
  g_main_loop_unref (self->nested);
}

static void
test_drain_in_a_nested_loop (void)
{
  for (guint n_held = 1; n_held <= MAX_HELD; n_held++)
    {
      Nested self = { .loop = util_loop_new ("nested"), .n_held = n_held };

      g_assert_true (bg_loop_post (self.loop, run_nested_cb, &self, NULL));
      util_loop_end (self.loop);
      g_assert_cmpuint (self.n_turns, >=, n_held + MORE_TURNS);
    }
}

static void
add_tests_of_drain (void)
{
  g_test_add_func ("/stop/drain/runs-all-that-was-accepted", test_drain_runs_all);
  g_test_add_func ("/stop/drain/runs-a-chain", test_drain_runs_a_chain);
  util_add_trapped ("/stop/drain/goes-on-as-long-as-it-posts", test_drain_goes_on);
  util_add_trapped ("/stop/drain/goes-on-as-long-as-it-posts/source", test_drain_goes_on_source);
  g_test_add_func ("/stop/drain/drops-what-is-not-due", test_drain_drops_what_is_not_due);
  g_test_add_func ("/stop/drain/beside-busy-sources", test_drain_beside_busy_sources);
  util_add_trapped ("/stop/drain/beside-a-source", test_drain_beside_a_source);
  g_test_add_func ("/stop/drain/in-a-nested-loop", test_drain_in_a_nested_loop);
  g_test_add_func ("/stop/10000-posts/each-ran-or-was-refused", test_posts_race);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/stop/right-after-start/shutdown", test_right_after_start);
  g_test_add_func ("/stop/right-after-start/quit", test_quit_right_after_start);
  g_test_add_func ("/stop/right-after-start/quit-on-the-loop", test_quit_from_the_first_callback);
  g_test_add_func ("/stop/right-after-start/quit-races-shutdown", test_quit_races_shutdown);
  g_test_add_func ("/stop/again/twice", test_twice);
  g_test_add_func ("/stop/again/many-threads-at-once", test_many_threads_at_once);
  g_test_add_func ("/stop/quit/does-not-wait", test_quit_does_not_wait);
  g_test_add_func ("/stop/quit/ends-the-loop", test_quit_ends_the_loop);
  add_tests_of_drain ();
  g_test_add_func ("/stop/own-thread/would-deadlock-and-changes-nothing", test_own_thread);
  g_test_add_func ("/stop/circle/would-deadlock-and-changes-nothing", test_circle);
  g_test_add_func ("/stop/another-loop/may-wait", test_from_another_loop);
  g_test_add_func ("/stop/timeout/of-0-does-not-wait", test_no_time_to_wait);
  g_test_add_func ("/stop/leaves-nothing", test_leaves_nothing);

  return g_test_run ();
}
