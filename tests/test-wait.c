/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* Waiting for an end that others ask for, and that the wait itself does not ask for: bg_loop_wait(), and
 * bg_loop_wait_async() further down. */

static void
assert_waits_in_vain (BgLoop *loop, int timeout_msec, GCancellable *cancellable, int code)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_wait (loop, timeout_msec, cancellable, &error));
  g_assert_error (error, G_IO_ERROR, code);
}

static void
assert_ended (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_wait (loop, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
}

static void
wait_async (BgLoop *loop, int timeout_msec, GCancellable *cancellable, UtilReply *reply)
{
  util_reply_init (reply);
  bg_loop_wait_async (loop, timeout_msec, cancellable, util_reply_cb, reply);
  g_assert_null (reply->result);
}

static gboolean
finish (BgLoop *loop, UtilReply *reply, GError **error)
{
  g_assert_true (reply->thread == g_thread_self ());
  return bg_loop_wait_finish (loop, reply->result, error);
}

static void
assert_reply (BgLoop *loop, UtilReply *reply, GQuark domain, int code)
{
  g_autoptr (GError) error = NULL;

  util_reply_wait (reply);
  g_assert_false (finish (loop, reply, &error));
  g_assert_error (error, domain, code);
  util_reply_clear (reply);
}

static void
assert_reply_ended (BgLoop *loop, UtilReply *reply)
{
  g_autoptr (GError) error = NULL;

  util_reply_wait (reply);
  g_assert_true (finish (loop, reply, &error));
  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  util_reply_clear (reply);
}

/* Whoever waits does not ask for the end. */

static void
test_asks_for_nothing (void)
{
  BgLoop *loop = util_loop_new ("on");
  int ran = 0;

  for (int timeout_msec = 0; timeout_msec < 3; timeout_msec++)
    {
      UtilReply reply;

      assert_waits_in_vain (loop, timeout_msec, NULL, G_IO_ERROR_TIMED_OUT);
      wait_async (loop, timeout_msec, NULL, &reply);
      assert_reply (loop, &reply, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
    }

  g_assert_true (bg_loop_post (loop, util_count_cb, &ran, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpint (ran, ==, 1);
  util_loop_end (loop);
}

/* A loop that ends itself, as for a main() that has nothing else to do */
static void
test_ends_itself (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();

  for (guint i = 0; i < util_scale (100); i++)
    {
      BgLoop *loop = util_loop_new ("itself");
      int destroyed = 0;

      g_assert_cmpuint (bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, &destroyed,
                                            util_count_cb),
                        !=, 0);
      g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
      assert_ended (loop);

      /* It has been joined, and all it had is gone. */
      g_assert_cmpint (destroyed, ==, 1);
      util_wait_for_threads (threads);
      assert_ended (loop);
      g_assert_true (bg_loop_wait (loop, 0, NULL, NULL));
      util_loop_end (loop);
      g_assert_cmpuint (util_count_fds (), ==, fds);
    }
}

/* 0 looks, and does not wait. */
static void
test_timeout_0 (void)
{
  BgLoop *loop = util_loop_new ("look");
  guint64 hold = bg_loop_hold (loop, "the test");

  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  assert_waits_in_vain (loop, 0, NULL, G_IO_ERROR_TIMED_OUT);
  bg_loop_release (loop, hold);
  while (!bg_loop_wait (loop, 0, NULL, NULL))
    g_thread_yield ();
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  util_loop_end (loop);
}

/* A loop that nobody holds is gone before anybody can wait: no hang. */
static void
test_after_the_end (void)
{
  BgLoop *loop = util_loop_new ("over");
  UtilReply reply;

  g_assert_true (bg_loop_shutdown (loop, NULL));
  assert_ended (loop);
  wait_async (loop, -1, NULL, &reply);
  assert_reply_ended (loop, &reply);
  wait_async (loop, 0, NULL, &reply);
  assert_reply_ended (loop, &reply);
  util_loop_end (loop);
}

/* Waits that cannot end */

static void
assert_would_deadlock (BgLoop *loop, int timeout_msec)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_wait (loop, timeout_msec, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

static void
wait_here_cb (gpointer user_data)
{
  assert_would_deadlock (user_data, -1);
  assert_would_deadlock (user_data, G_MAXINT);
  g_assert_false (bg_loop_wait (user_data, 0, NULL, NULL));
}

static void
wait_at_exit_cb (gpointer user_data)
{
  g_assert_true (bg_loop_is_current (user_data));
  wait_here_cb (user_data);
}

static GPrivate at_exit = G_PRIVATE_INIT (wait_at_exit_cb);

static void
wait_everywhere_cb (gpointer user_data)
{
  g_private_set (&at_exit, user_data);
  wait_here_cb (user_data);
}

static void
test_own_thread (void)
{
  BgLoop *loop = util_loop_new ("own");

  g_assert_true (bg_loop_post (loop, wait_everywhere_cb, loop, wait_here_cb));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_cmpuint (bg_loop_add_teardown (loop, wait_here_cb, loop, wait_here_cb), !=, 0);
  util_loop_end (loop);
}

static void
wait_async_here_cb (gpointer user_data)
{
  gpointer *data = user_data;

  bg_loop_wait_async (data[0], -1, NULL, util_reply_cb, data[1]);
}

static void
test_async_own_thread (void)
{
  BgLoop *loop = util_loop_new ("own");
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  gpointer data[] = { loop, &reply };

  util_reply_init (&reply);
  g_assert_true (bg_loop_post (loop, wait_async_here_cb, data, NULL));
  util_latch_wait (&reply.arrived);
  g_assert_true (reply.thread != g_thread_self ());
  g_assert_false (bg_loop_wait_finish (loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  util_reply_clear (&reply);
  util_loop_end (loop);
}

/* One waits for the other, which would wait for it. */

typedef struct
{
  BgLoop *one;
  BgLoop *other;
} Circle;

/* It is refused only while the other one tries. */
static void
wait_for_other_cb (gpointer user_data)
{
  Circle *self = user_data;
  g_autoptr (GError) error = NULL;

  while (!bg_loop_wait (self->other, -1, NULL, &error))
    {
      g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      g_clear_error (&error);
      g_thread_yield ();
    }
}

/* Until that one waits, this can only be too late. */
static void
wait_back_cb (gpointer user_data)
{
  Circle *self = user_data;
  g_autoptr (GError) error = NULL;

  for (;;)
    {
      g_assert_false (bg_loop_wait (self->one, 1, NULL, &error));
      if (g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK))
        break;
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_clear_error (&error);
      g_thread_yield ();
    }

  /* That is no wait. */
  assert_waits_in_vain (self->one, 0, NULL, G_IO_ERROR_TIMED_OUT);
  bg_loop_quit (self->other, BG_SHUTDOWN_DRAIN);
}

static void
test_circle (void)
{
  Circle self = { util_loop_new ("one"), util_loop_new ("other") };

  g_assert_true (bg_loop_post (self.one, wait_for_other_cb, &self, NULL));
  g_assert_true (bg_loop_post (self.other, wait_back_cb, &self, NULL));
  assert_ended (self.other);
  util_loop_end (self.one);
  util_loop_end (self.other);
}

/* Cancelled */

static void
test_cancelled_before (void)
{
  BgLoop *loop = util_loop_new ("before");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply reply;

  g_cancellable_cancel (cancellable);
  assert_waits_in_vain (loop, -1, cancellable, G_IO_ERROR_CANCELLED);
  assert_waits_in_vain (loop, 0, cancellable, G_IO_ERROR_CANCELLED);
  wait_async (loop, -1, cancellable, &reply);
  assert_reply (loop, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  util_loop_end (loop);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

typedef struct
{
  BgLoop *loop;
  GCancellable *cancellable; /* (nullable) */
  UtilLatch started;
} Waiter;

static gpointer
cancelled_thread (gpointer user_data)
{
  Waiter *self = user_data;

  util_latch_count_down (&self->started);
  assert_waits_in_vain (self->loop, -1, self->cancellable, G_IO_ERROR_CANCELLED);
  return NULL;
}

/* It ends the wait, whether somebody has asked for the end or not, and nothing else. */
static void
run_cancelled (gboolean stopping)
{
  BgLoop *loop = util_loop_new ("during");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  guint64 hold = bg_loop_hold (loop, "the test");
  Waiter waiter = { loop, cancellable };
  UtilReply reply;
  GThread *thread;

  if (stopping)
    bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_latch_init (&waiter.started, 1);
  thread = g_thread_new ("waiter", cancelled_thread, &waiter);
  wait_async (loop, -1, cancellable, &reply);
  util_latch_wait (&waiter.started);
  g_cancellable_cancel (cancellable);
  g_thread_join (thread);
  assert_reply (loop, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);

  g_assert_cmpint (bg_loop_get_state (loop), ==, stopping ? BG_LOOP_STOPPING : BG_LOOP_RUNNING);
  bg_loop_release (loop, hold);
  util_loop_end (loop);
  util_latch_clear (&waiter.started);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

static void
test_cancelled_during (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    run_cancelled (i % 2 == 0);
}

/* Many wait, and one asks. */

static gpointer
ended_thread (gpointer user_data)
{
  Waiter *self = user_data;

  util_latch_count_down (&self->started);
  g_assert_true (bg_loop_wait (self->loop, -1, self->cancellable, NULL));
  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPED);
  return NULL;
}

static void
test_many (void)
{
  for (guint i = 0; i < util_scale (50); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      Waiter waiter = { util_loop_new ("many"), i % 2 == 0 ? cancellable : NULL };
      GThread *threads[8];
      UtilReply replies[8];

      util_latch_init (&waiter.started, G_N_ELEMENTS (threads));
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        {
          threads[j] = g_thread_new ("waiter", ended_thread, &waiter);
          wait_async (waiter.loop, -1, waiter.cancellable, &replies[j]);
        }
      if (i % 3 > 0)
        util_latch_wait (&waiter.started);
      bg_loop_quit (waiter.loop, i % 5 == 0 ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        {
          g_thread_join (threads[j]);
          assert_reply_ended (waiter.loop, &replies[j]);
        }
      util_loop_end (waiter.loop);
      util_latch_clear (&waiter.started);
    }
}

/* Beside others who shut the loop down: each has its outcome. */

static gpointer
shutdown_thread (gpointer user_data)
{
  Waiter *self = user_data;

  g_assert_true (bg_loop_shutdown (self->loop, NULL));
  return NULL;
}

static void
test_beside_shutdown (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Waiter waiter = { util_loop_new ("beside") };
      GThread *threads[6];
      UtilReply reply;

      util_latch_init (&waiter.started, G_N_ELEMENTS (threads) / 2);
      wait_async (waiter.loop, -1, NULL, &reply);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        threads[j] = g_thread_new ("beside", j % 2 == 0 ? ended_thread : shutdown_thread, &waiter);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        g_thread_join (threads[j]);
      assert_reply_ended (waiter.loop, &reply);
      util_loop_end (waiter.loop);
      util_latch_clear (&waiter.started);
    }
}

/* The end, the deadline and the cancellation at the same moment: one outcome. */
static void
test_race (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("race");
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      UtilReply reply;

      wait_async (loop, (int) (i % 2), cancellable, &reply);
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      if (i % 3 == 0)
        g_cancellable_cancel (cancellable);
      util_reply_wait (&reply);
      if (finish (loop, &reply, &error))
        g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
      else
        g_assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
                       || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
      util_reply_clear (&reply);
      util_loop_end (loop);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
}

/* While somebody waits for it the object lives, and goes on; then it goes. */
static void
test_async_holds_reference (void)
{
  BgLoop *loop = util_loop_new ("kept");
  int ran = 0;
  GWeakRef weak;
  UtilReply reply;

  g_weak_ref_init (&weak, loop);
  wait_async (loop, -1, NULL, &reply);
  g_object_unref (loop);
  loop = g_weak_ref_get (&weak);
  g_assert_nonnull (loop);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_true (bg_loop_post (loop, util_count_cb, &ran, NULL));
  g_assert_true (bg_loop_post (loop, util_quit_cb, loop, NULL));
  g_object_unref (loop);

  util_reply_wait (&reply);
  g_assert_cmpint (ran, ==, 1);
  loop = BG_LOOP (g_async_result_get_source_object (reply.result));
  g_assert_true (finish (loop, &reply, NULL));
  g_object_unref (loop);
  util_reply_clear (&reply);
  g_assert_null (g_weak_ref_get (&weak));
  g_weak_ref_clear (&weak);
}

/* Nobody wants a reply, or the one who wants it is gone: nothing leaks. */
static void
run_forgotten (int timeout_msec, GAsyncReadyCallback callback)
{
  BgLoop *loop = util_loop_new ("forgotten");
  GMainContext *context = g_main_context_new ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();

  g_main_context_push_thread_default (context);
  bg_loop_wait_async (loop, timeout_msec, cancellable, callback, NULL);
  g_main_context_pop_thread_default (context);
  g_main_context_unref (context);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  util_loop_end (loop);
}

static void
test_async_forgotten (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  for (guint i = 0; i < util_scale (40); i++)
    {
      run_forgotten (i % 3 == 0 ? -1 : (int) (i % 3) * 1000, i % 5 == 0 ? NULL : util_no_reply_cb);
      g_assert_cmpuint (util_count_fds (), ==, fds);
    }
  util_wait_for_threads (threads);
}

/* From the thread of another loop, which goes on with its work meanwhile */

typedef struct
{
  BgLoop *other;
  UtilReply reply;
} Across;

static void
wait_across_cb (gpointer user_data)
{
  Across *self = user_data;

  wait_async (self->other, -1, NULL, &self->reply);
}

static void
test_async_across (void)
{
  BgLoop *loop = util_loop_new ("one");
  Across self = { util_loop_new ("another") };
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_post (loop, wait_across_cb, &self, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  bg_loop_quit (self.other, BG_SHUTDOWN_DRAIN);
  util_latch_wait (&self.reply.arrived);
  g_assert_true (self.reply.thread != g_thread_self ());
  g_assert_true (bg_loop_wait_finish (self.other, self.reply.result, &error));
  g_assert_no_error (error);
  util_reply_clear (&self.reply);
  util_loop_end (loop);
  util_loop_end (self.other);
}

/* TRUE means that the handlers of the loop's cancellable have returned, too; one
 * that waits would wait for itself. */

typedef struct
{
  BgLoop *loop;
  UtilLatch entered;
  UtilLatch released;
  int returned;
} Handler;

static void
handler_cb (GCancellable *cancellable, gpointer user_data)
{
  Handler *self = user_data;

  util_latch_count_down (&self->entered);
  assert_would_deadlock (self->loop, -1);
  util_latch_wait (&self->released);
  g_atomic_int_set (&self->returned, TRUE);
}

static gpointer
cancel_thread (gpointer user_data)
{
  bg_loop_quit (user_data, BG_SHUTDOWN_CANCEL);
  return NULL;
}

static void
test_handlers (void)
{
  Handler self = { util_loop_new ("handlers") };
  GCancellable *cancellable = bg_loop_get_cancellable (self.loop);
  GThread *thread;
  gulong id;

  util_latch_init (&self.entered, 1);
  util_latch_init (&self.released, 1);
  id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_cb), &self);
  thread = g_thread_new ("cancel", cancel_thread, self.loop);
  util_latch_wait (&self.entered);
  for (int timeout_msec = 0; timeout_msec < 10; timeout_msec++)
    assert_waits_in_vain (self.loop, timeout_msec, NULL, G_IO_ERROR_TIMED_OUT);
  util_latch_count_down (&self.released);
  assert_ended (self.loop);
  g_assert_true (g_atomic_int_get (&self.returned));
  g_thread_join (thread);
  g_signal_handler_disconnect (cancellable, id);
  util_loop_end (self.loop);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.released);
}

/* An asynchronous wait is not over before that, and does not block its context for it. */
static void
test_async_handlers (void)
{
  guint threads = util_count_threads ();
  Handler self = { util_loop_new ("handlers") };
  GCancellable *cancellable = bg_loop_get_cancellable (self.loop);
  guint64 hold = bg_loop_hold (self.loop, "handlers");
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  GThread *thread;
  gulong id;

  util_latch_init (&self.entered, 1);
  util_latch_init (&self.released, 1);
  id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_cb), &self);
  wait_async (self.loop, -1, NULL, &reply);
  thread = g_thread_new ("cancel", cancel_thread, self.loop);
  util_latch_wait (&self.entered);
  bg_loop_release (self.loop, hold);
  /* The loop's has gone; that of the handler has not. */
  util_wait_for_threads (threads + 1);
  g_assert_false (bg_loop_wait (self.loop, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_true (
      g_str_has_suffix (error->message, ": handlers of its cancellable have not returned"));
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_false (util_latch_is_open (&reply.arrived));
  util_latch_count_down (&self.released);
  util_reply_wait (&reply);
  g_assert_true (finish (self.loop, &reply, NULL));
  g_assert_true (g_atomic_int_get (&self.returned));
  g_thread_join (thread);
  g_signal_handler_disconnect (cancellable, id);
  util_reply_clear (&reply);
  util_loop_end (self.loop);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.released);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  /* What is wrong here would hang. */
  util_add_trapped ("/wait/asks-for-nothing", test_asks_for_nothing);
  util_add_trapped ("/wait/loop-ends-itself", test_ends_itself);
  util_add_trapped ("/wait/timeout-of-0-looks", test_timeout_0);
  util_add_trapped ("/wait/after-the-end", test_after_the_end);
  util_add_trapped ("/wait/own-thread/would-deadlock", test_own_thread);
  util_add_trapped ("/wait/circle/would-deadlock", test_circle);
  util_add_trapped ("/wait/cancelled/before", test_cancelled_before);
  util_add_trapped ("/wait/cancelled/during-ends-the-wait-alone", test_cancelled_during);
  util_add_trapped ("/wait/many", test_many);
  util_add_trapped ("/wait/beside-shutdown", test_beside_shutdown);
  util_add_trapped ("/wait/race", test_race);
  util_add_trapped ("/wait/handlers-of-the-cancellable-have-returned", test_handlers);
  util_add_trapped ("/wait-async/handlers-of-the-cancellable", test_async_handlers);
  util_add_trapped ("/wait-async/own-thread/would-deadlock", test_async_own_thread);
  util_add_trapped ("/wait-async/holds-a-reference", test_async_holds_reference);
  util_add_trapped ("/wait-async/forgotten", test_async_forgotten);
  util_add_trapped ("/wait-async/another-loop-goes-on", test_async_across);

  return g_test_run ();
}
