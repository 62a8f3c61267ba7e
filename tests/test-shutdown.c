/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-shutdown.h"

/* Whoever asks for the end of a loop, how often, and when: what it comes to, and what is refused from
 * then on. The other files of this program are about each way in each state (table), the two modes'
 * difference (drain), the asynchronous way (async), and the end beside all else (race). The limit of a
 * shutdown, and what it reports, is test-deadline's. */

#define N_POSTS 20

static gpointer
quit_thread (gpointer loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  return NULL;
}

/* Right after the start, when g_main_loop_quit() would be forgotten */

static void
test_shutdown_right_after_start (void)
{
  guint n_fds = util_count_fds ();

  for (guint i = 0; i < util_scale (1000); i++)
    util_loop_end (util_loop_new ("shutdown"));
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

static void
test_quit_right_after_start (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("shutdown");

      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      util_loop_end (loop);
    }
}

static void
test_quit_from_the_first_callback (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("shutdown");

      g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
      util_loop_end (loop);
    }
}

static void
test_quit_races_shutdown (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("shutdown");
      GThread *thread = g_thread_new ("quit", quit_thread, loop);

      util_loop_shut_down (loop);
      g_thread_join (thread);
      g_assert_finalize_object (loop);
    }
}

/* Right after the start: some are asked to end before, in either mode */
static void
test_some_quit_right_after_start (void)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      BgLoop *loop = util_loop_new ("short");

      if (i % 3 == 0)
        bg_loop_quit (loop, i % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
      util_loop_end (loop);
    }
}

/* More than once */

static void
test_twice (void)
{
  BgLoop *loop = util_loop_new ("shutdown");

  for (guint i = 0; i < 3; i++)
    {
      util_loop_shut_down (loop);
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
      BgLoop *loop = util_loop_new ("shutdown");

      util_run_threads (8, i % 2 == 0 ? util_shutdown_thread : quit_thread, loop);
      util_loop_end (loop);
    }
  util_wait_for_threads (n_threads);
}

/* Quit */

static void
test_quit_does_not_wait (void)
{
  BgLoop *loop = util_loop_new ("shutdown");
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

/* The loop ends though nobody waits for it. */
static void
test_quit_ends_the_loop (void)
{
  guint n_threads = util_count_threads ();
  BgLoop *loop = util_loop_new ("shutdown");
  UtilLatch latch;

  util_latch_init (&latch, 1);
  g_assert_true (bg_loop_post (loop, util_wait_cb, &latch, NULL));
  g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
  util_latch_count_down (&latch);
  while (bg_loop_get_state (loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  util_loop_end (loop);
  util_wait_for_threads (n_threads);
  util_latch_clear (&latch);
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
  BgLoop *loop = util_loop_new ("shutdown");
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
  BgLoop *loops[] = { util_loop_new ("shutdown"), util_loop_new ("other") };

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
      BgLoop *loop = util_loop_new ("shutdown");
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
  BgLoop *loop = util_loop_new ("shutdown");
  g_autoptr (GError) error = NULL;
  UtilBlock block;

  util_block (&block, loop);
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  util_unblock (&block);
  util_loop_shut_down (loop);
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
  BgLoop *loop = util_loop_new ("shutdown");
  GMainContext *context = bg_loop_get_context (loop);

  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds + 1);
  util_loop_shut_down (loop);
  util_wait_for_threads (n_threads);

  /* Its thread let go of it. */
  g_assert_true (g_main_context_acquire (context));
  g_assert_false (g_main_context_pending (context));
  g_main_context_release (context);

  g_assert_finalize_object (loop);
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* A shutdown leaves a context that anybody may have. */
static void
test_context_released (void)
{
  BgLoop *loop = util_loop_new ("context");
  g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (loop));

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_true (g_main_context_acquire (context));
  g_assert_false (g_main_context_pending (context));
  g_main_context_release (context);
  g_assert_finalize_object (loop);
}

/* What is refused, and how it is told */

typedef struct
{
  BgLoop *loop;
  GThread *destroyer; /* where refused work has to be destroyed */
  int destroyed;
  int replies;
} Refused;

static void
refused_cb (gpointer user_data)
{
  Refused *self = user_data;

  g_assert_true (g_thread_self () == self->destroyer);
  self->destroyed++;
}

static void
refused_call_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
refused_perform_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (bg_loop_perform_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
assert_posts_refused (Refused *self)
{
  BgLoop *loop = self->loop;
  g_autoptr (GSource) source = g_idle_source_new ();
  int destroyed = self->destroyed;

  self->destroyer = g_thread_self ();
  g_assert_false (bg_loop_post (loop, util_not_reached_cb, self, refused_cb));
  g_assert_false (bg_loop_post_full (loop, 5, util_not_reached_cb, self, refused_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, self, refused_cb), ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, self, refused_cb), ==, 0);
  if (!bg_loop_is_current (loop))
    {
      g_assert_false (bg_loop_invoke (loop, util_no_source_cb, self));
      g_assert_false (bg_loop_invoke_full (loop, 5, util_no_source_cb, self, refused_cb));
      destroyed++;
    }
  g_assert_cmpint (self->destroyed, ==, destroyed + 4);
  g_assert_cmpuint (bg_loop_hold (loop, "refused"), ==, 0);
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_null (g_source_get_context (source));
}

static void
assert_waits_refused (Refused *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_null (
      bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_null (bg_loop_perform_operation (self->loop, G_PRIORITY_DEFAULT, -1,
                                            util_no_operation_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
refused_task_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (g_task_propagate_boolean (G_TASK (result), &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
assert_async_refused (Refused *self)
{
  int destroyed = self->destroyed;
  int replies = self->replies;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, refused_task_cb, self);

  bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, self, refused_cb, NULL, refused_call_cb,
                      self);
  bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, self, refused_cb,
                         NULL, refused_perform_cb, self);
  bg_loop_perform_operation_async (self->loop, G_PRIORITY_DEFAULT, -1, util_no_operation_cb, self,
                                   refused_cb, NULL, refused_perform_cb, self);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
  g_assert_cmpint (self->destroyed, ==, destroyed + 3);
  g_assert_cmpint (self->replies, ==, replies);
  while (self->replies < replies + 4)
    g_main_context_iteration (NULL, TRUE);
}

static void
run_refused (BgShutdownMode mode)
{
  Refused self = { util_loop_new ("refusing") };
  guint64 hold = bg_loop_hold (self.loop, "the test");
  g_autoptr (GError) error = NULL;

  bg_loop_quit (self.loop, mode);
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
  assert_posts_refused (&self);
  assert_waits_refused (&self);
  assert_async_refused (&self);

  bg_loop_release (self.loop, hold);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  assert_posts_refused (&self);
  assert_waits_refused (&self);
  assert_async_refused (&self);
  g_assert_false (bg_loop_flush (self.loop, -1, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);

  g_assert_finalize_object (self.loop);
}

static void
test_refused (void)
{
  run_refused (BG_SHUTDOWN_DRAIN);
  run_refused (BG_SHUTDOWN_CANCEL);
}

/* CANCEL takes nothing from the loop's own thread either. */
static void
refused_there_cb (gpointer user_data)
{
  Refused *self = user_data;

  bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  assert_posts_refused (self);
}

static void
test_cancel_refuses_own_thread (void)
{
  Refused self = { util_loop_new ("refusing") };

  g_assert_true (bg_loop_post (self.loop, refused_there_cb, &self, NULL));
  util_loop_end (self.loop);
  g_assert_cmpint (self.destroyed, ==, 4);
}

/* CANCEL wakes every waiter at once, but for the one whose function runs */

typedef struct
{
  BgLoop *loop;
  UtilBlock *block;
  UtilLatch woken;
  int ran;
} Waiters;

static gboolean
count_call_cb (gpointer user_data, GError **error)
{
  g_atomic_int_inc (&((Waiters *) user_data)->ran);
  return TRUE;
}

static gpointer
waiting_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, count_call_cb, self, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_latch_count_down (&self->woken);
  return NULL;
}

static gpointer
performing_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (
      bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_latch_count_down (&self->woken);
  return NULL;
}

static gboolean
blocking_call_cb (gpointer user_data, GError **error)
{
  util_block_cb (user_data);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "its own");
  return FALSE;
}

static gpointer
running_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, blocking_call_cb, self->block, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS);
  return NULL;
}

static void
test_cancel_wakes_waiters (void)
{
  UtilBlock block;
  Waiters self = { util_loop_new ("waiters"), &block };
  GThread *threads[5];

  util_block_init (&block);
  util_latch_init (&self.woken, G_N_ELEMENTS (threads) - 1);
  threads[0] = g_thread_new ("running", running_thread, &self);
  util_latch_wait (&block.entered);
  for (guint i = 1; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("waiting", i % 2 == 0 ? performing_thread : waiting_thread, &self);
  util_wait_for_queued (self.loop, G_N_ELEMENTS (threads) - 1);

  /* They wake though the loop's thread is stuck. */
  bg_loop_quit (self.loop, BG_SHUTDOWN_CANCEL);
  util_latch_wait (&self.woken);
  util_unblock (&block);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);

  util_loop_end (self.loop);
  g_assert_cmpint (self.ran, ==, 0);
  util_latch_clear (&self.woken);
  util_block_clear (&block);
}

/* CANCEL once asked for is not taken back. */
static void
test_cancel_is_final (void)
{
  BgLoop *loop = util_loop_new ("final");
  int ran = 0, destroyed = 0;
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < N_POSTS; i++)
    g_assert_true (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_cb));
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (bg_loop_post (loop, util_count_cb, &ran, NULL));
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
  g_assert_cmpint (ran, ==, 0);
  g_assert_cmpint (destroyed, ==, N_POSTS);
}

/* A cancellable ends the wait, and the stopping goes on. */

typedef struct
{
  BgLoop *loop;
  BgShutdownMode mode;
  GCancellable *cancellable;
} Cancelled;

static gpointer
cancelled_thread (gpointer user_data)
{
  Cancelled *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (self->loop, self->mode, -1, self->cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  return NULL;
}

static void
test_wait_cancelled (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Cancelled self = { util_loop_new ("cancelled"), mode, g_cancellable_new () };
      guint64 hold = bg_loop_hold (self.loop, "the test");
      GThread *thread = g_thread_new ("cancelled", cancelled_thread, &self);

      while (bg_loop_get_state (self.loop) == BG_LOOP_RUNNING)
        g_thread_yield ();
      g_cancellable_cancel (self.cancellable);
      g_thread_join (thread);
      g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
      g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (self.loop))
                     == (mode == BG_SHUTDOWN_CANCEL));
      bg_loop_release (self.loop, hold);
      util_loop_end (self.loop);
      g_assert_finalize_object (self.cancellable);
    }
}

/* One that is cancelled already: nothing is asked for. */
static void
test_cancelled_before (void)
{
  static const int timeouts[] = { -1, 0, 1 };

  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      BgLoop *loop = util_loop_new ("before");
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();

      g_cancellable_cancel (cancellable);
      for (guint i = 0; i < G_N_ELEMENTS (timeouts); i++)
        {
          g_autoptr (GError) error = NULL;

          g_assert_false (bg_loop_shutdown_full (loop, mode, timeouts[i], cancellable, &error));
          g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
        }
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_loop_end (loop);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
}

static void
test_not_cancelled (void)
{
  BgLoop *loop = util_loop_new ("not");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, -1, cancellable, &error));
  g_assert_no_error (error);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
  util_loop_end (loop);
}

/* What is no mode does nothing. */
static void
test_no_mode (void)
{
  static const int modes[] = { -1, 2, 42 };
  BgLoop *loop = util_loop_new ("no mode");
  int destroyed = 0;

  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++)
    {
      BgShutdownMode mode = (BgShutdownMode) modes[i];

      bg_loop_quit (loop, mode);
      util_take_critical ("*");
      g_assert_false (bg_loop_shutdown_full (loop, mode, -1, NULL, NULL));
      util_take_critical ("*");
      bg_loop_shutdown_async (loop, mode, -1, NULL, util_no_reply_cb, NULL);
      util_take_critical ("*");
      while (g_main_context_iteration (NULL, FALSE))
        ;
    }
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
  g_assert_true (bg_loop_post (loop, util_count_cb, &destroyed, util_count_cb));
  util_loop_end (loop);
  g_assert_cmpint (destroyed, ==, 2);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/shutdown/right-after-start/shutdown", test_shutdown_right_after_start);
  g_test_add_func ("/shutdown/right-after-start/quit", test_quit_right_after_start);
  g_test_add_func ("/shutdown/right-after-start/quit-on-the-loop",
                   test_quit_from_the_first_callback);
  g_test_add_func ("/shutdown/right-after-start/quit-races-shutdown", test_quit_races_shutdown);
  util_add_trapped ("/shutdown/right-after-start/some-are-quit", test_some_quit_right_after_start);
  g_test_add_func ("/shutdown/again/twice", test_twice);
  g_test_add_func ("/shutdown/again/many-threads-at-once", test_many_threads_at_once);
  g_test_add_func ("/shutdown/quit/does-not-wait", test_quit_does_not_wait);
  g_test_add_func ("/shutdown/quit/ends-the-loop", test_quit_ends_the_loop);
  g_test_add_func ("/shutdown/own-thread/would-deadlock-and-changes-nothing", test_own_thread);
  g_test_add_func ("/shutdown/circle/would-deadlock-and-changes-nothing", test_circle);
  g_test_add_func ("/shutdown/another-loop/may-wait", test_from_another_loop);
  g_test_add_func ("/shutdown/timeout/of-0-does-not-wait", test_no_time_to_wait);
  g_test_add_func ("/shutdown/leaves-nothing", test_leaves_nothing);
  util_add_trapped ("/shutdown/context-released", test_context_released);
  util_add_trapped ("/shutdown/refused", test_refused);
  util_add_trapped ("/shutdown/cancel/refuses-own-thread", test_cancel_refuses_own_thread);
  util_add_trapped ("/shutdown/cancel/wakes-waiters", test_cancel_wakes_waiters);
  util_add_trapped ("/shutdown/cancel/is-final", test_cancel_is_final);
  util_add_trapped ("/shutdown/cancelled/ends-the-wait-alone", test_wait_cancelled);
  util_add_trapped ("/shutdown/cancelled/before-asks-for-nothing", test_cancelled_before);
  util_add_trapped ("/shutdown/cancelled/not", test_not_cancelled);
  util_add_trapped ("/shutdown/no-mode-does-nothing", test_no_mode);
  add_tests_of_table ();
  add_tests_of_drain ();
  add_tests_of_async ();
  add_tests_of_race ();

  return g_test_run ();
}
