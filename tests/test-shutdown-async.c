/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-shutdown.h"

/* The end asked for without waiting for it, and the reply to that. */

static gboolean
finish (BgLoop *loop, UtilReply *reply, GError **error)
{
  /* The address of a function is another one in a program that is no PIE. */
  g_assert_false (g_async_result_is_tagged (reply->result, bg_loop_shutdown_async));
  return bg_loop_shutdown_finish (loop, reply->result, error);
}

static void
assert_fails (BgLoop *loop, UtilReply *reply, GQuark domain, int code)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (finish (loop, reply, &error));
  g_assert_error (error, domain, code);
}

/* The reply comes in the caller's context, never before the call returns, when
 * the thread is gone. */

static void
test_reply (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();

  for (guint i = 0; i < util_scale (50); i++)
    {
      BgLoop *loop = util_loop_new ("reply");
      g_autoptr (GMainContext) context = g_main_context_new ();
      g_autoptr (GError) error = NULL;
      int destroyed = 0;
      UtilReply reply;

      g_main_context_push_thread_default (context);
      util_reply_init (&reply);
      g_assert_true (bg_loop_post (loop, util_nothing_cb, &destroyed, util_count_cb));
      bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, i % 2 == 0 ? -1 : G_MAXINT, NULL,
                              util_reply_cb, &reply);
      g_assert_cmpint (bg_loop_get_state (loop), !=, BG_LOOP_RUNNING);
      g_assert_false (util_latch_is_open (&reply.arrived));
      util_reply_wait (&reply);
      util_wait_for_threads (threads);
      g_assert_true (reply.thread == g_thread_self ());
      g_assert_true (finish (loop, &reply, &error));
      g_assert_no_error (error);
      g_assert_cmpint (destroyed, ==, 1);

      g_main_context_pop_thread_default (context);
      util_reply_clear (&reply);
      g_assert_finalize_object (loop);
    }

  g_assert_cmpuint (util_count_fds (), ==, fds);
}

/* The deadline's message is that of the blocking one. */
static void
test_timeout (void)
{
  BgLoop *loop = util_loop_new ("late");
  guint64 hold = bg_loop_hold (loop, "a reason");
  g_autoptr (GError) error = NULL;
  UtilReply first, second, last;

  util_reply_init (&first);
  util_reply_init (&second);
  util_reply_init (&last);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, 10, NULL, util_reply_cb, &first);
  util_reply_wait (&first);
  g_assert_false (finish (loop, &first, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_nonnull (g_strstr_len (error->message, -1, "\"late\" has not stopped within 10 ms: "));
  g_assert_nonnull (g_strstr_len (error->message, -1, "held by \"a reason\" for "));

  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, 0, NULL, util_reply_cb, &second);
  util_reply_wait (&second);
  assert_fails (loop, &second, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);

  bg_loop_shutdown_async (loop, BG_SHUTDOWN_CANCEL, -1, NULL, util_reply_cb, &last);
  g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
  bg_loop_release (loop, hold);
  util_reply_wait (&last);
  g_assert_true (finish (loop, &last, NULL));
  util_reply_clear (&first);
  util_reply_clear (&second);
  util_reply_clear (&last);
  g_assert_finalize_object (loop);
}

/* A cancellable ends the wait, not the shutdown. */
static void
test_cancelled (void)
{
  BgLoop *loop = util_loop_new ("cancelled");
  guint64 hold = bg_loop_hold (loop, "a reason");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, -1, cancellable, util_reply_cb, &reply);
  g_cancellable_cancel (cancellable);
  util_reply_wait (&reply);
  assert_fails (loop, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);
  bg_loop_release (loop, hold);
  util_reply_clear (&reply);
  util_loop_end (loop);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

/* One that is cancelled already: nothing is asked for. */
static void
test_cancelled_before (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      BgLoop *loop = util_loop_new ("before");
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      UtilReply reply;

      util_reply_init (&reply);
      g_cancellable_cancel (cancellable);
      bg_loop_shutdown_async (loop, mode, -1, cancellable, NULL, NULL);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      bg_loop_shutdown_async (loop, mode, -1, cancellable, util_reply_cb, &reply);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      util_reply_wait (&reply);
      assert_fails (loop, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_reply_clear (&reply);
      util_loop_end (loop);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
}

/* A wait with a limit and a cancellable ends with whichever comes first. */
static void
test_limit_and_cancellable (void)
{
  BgLoop *loop = util_loop_new ("both");
  guint64 hold = bg_loop_hold (loop, "a reason");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply timed_out, cancelled;

  util_reply_init (&timed_out);
  util_reply_init (&cancelled);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, 1, cancellable, util_reply_cb, &timed_out);
  util_reply_wait (&timed_out);
  assert_fails (loop, &timed_out, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, G_MAXINT, cancellable, util_reply_cb,
                          &cancelled);
  g_cancellable_cancel (cancellable);
  util_reply_wait (&cancelled);
  assert_fails (loop, &cancelled, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  bg_loop_release (loop, hold);
  util_reply_clear (&timed_out);
  util_reply_clear (&cancelled);
  util_loop_end (loop);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

/* Many at once in one context, of all kinds: each gets its own outcome. */
static void
test_many (void)
{
  BgLoop *loop = util_loop_new ("many");
  guint64 hold = bg_loop_hold (loop, "many");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply replies[30];

  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    {
      util_reply_init (&replies[i]);
      bg_loop_shutdown_async (loop, i % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL,
                              i % 3 == 0 ? 5 : -1, i % 3 == 1 ? cancellable : NULL, util_reply_cb,
                              &replies[i]);
    }
  g_cancellable_cancel (cancellable);
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    {
      if (i % 3 != 2)
        util_reply_wait (&replies[i]);
    }
  bg_loop_release (loop, hold);
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    {
      util_reply_wait (&replies[i]);
      if (i % 3 == 0)
        assert_fails (loop, &replies[i], G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      else if (i % 3 == 1)
        assert_fails (loop, &replies[i], G_IO_ERROR, G_IO_ERROR_CANCELLED);
      else
        g_assert_true (finish (loop, &replies[i], NULL));
      util_reply_clear (&replies[i]);
    }
  g_assert_finalize_object (loop);
}

/* The end, the deadline and the cancellation at the same moment: one reply. */
static void
test_race (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("race");
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      UtilReply reply;

      util_reply_init (&reply);
      bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, (int) (i % 2), cancellable, util_reply_cb,
                              &reply);
      if (i % 3 == 0)
        g_cancellable_cancel (cancellable);
      util_reply_wait (&reply);
      if (!finish (loop, &reply, &error))
        g_assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
                       || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
      else
        g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
      g_clear_object (&reply.result);
      util_loop_end (loop);
      util_reply_clear (&reply);
    }
}

/* Nobody wants a reply, or the one who wants it is gone: nothing leaks. */

static void
run_forgotten (gboolean held, int timeout_msec, GAsyncReadyCallback callback)
{
  BgLoop *loop = util_loop_new ("forgotten");
  guint64 hold = held ? bg_loop_hold (loop, "forgotten") : 0;
  GMainContext *context = g_main_context_new ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  GWeakRef weak;

  g_weak_ref_init (&weak, loop);
  g_main_context_push_thread_default (context);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, timeout_msec, cancellable, callback, NULL);
  g_main_context_pop_thread_default (context);
  g_main_context_unref (context);
  if (hold != 0)
    bg_loop_release (loop, hold);
  g_cancellable_cancel (cancellable);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_object_unref (loop);
  g_assert_null (g_weak_ref_get (&weak));
  g_weak_ref_clear (&weak);
}

static void
test_forgotten (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  for (guint i = 0; i < util_scale (40); i++)
    {
      run_forgotten (i % 2 == 0, i % 3 == 0 ? -1 : (int) (i % 3) * 1000,
                     i % 5 == 0 ? NULL : util_no_reply_cb);
      g_assert_cmpuint (util_count_fds (), ==, fds);
    }
  util_wait_for_threads (threads);
}

/* Without a callback it is the request alone, in the mode that was asked for. */
static void
test_no_callback (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      BgLoop *loop = util_loop_new ("no callback");
      guint64 hold = bg_loop_hold (loop, "a reason");

      bg_loop_shutdown_async (loop, mode, -1, NULL, NULL, NULL);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);
      bg_loop_release (loop, hold);
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      g_assert_cmpint (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)), ==,
                       mode == BG_SHUTDOWN_CANCEL);
      g_assert_finalize_object (loop);
    }
}

/* While one waits the object lives; then nothing of it does. */
static void
test_only_reference (void)
{
  BgLoop *loop = util_loop_new ("only");
  GWeakRef weak;
  UtilReply reply;

  g_weak_ref_init (&weak, loop);
  util_reply_init (&reply);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_CANCEL, -1, NULL, util_reply_cb, &reply);
  g_object_unref (loop);
  util_reply_wait (&reply);
  loop = BG_LOOP (g_async_result_get_source_object (reply.result));
  g_assert_true (finish (loop, &reply, NULL));
  g_object_unref (loop);
  util_reply_clear (&reply);
  g_assert_null (g_weak_ref_get (&weak));
  g_weak_ref_clear (&weak);
}

/* From the thread of another loop, which goes on with its work meanwhile */

typedef struct
{
  BgLoop *other;
  UtilReply reply;
} Across;

static void
shut_down_other_cb (gpointer user_data)
{
  Across *self = user_data;

  bg_loop_shutdown_async (self->other, BG_SHUTDOWN_DRAIN, -1, NULL, util_reply_cb, &self->reply);
}

static void
test_across (void)
{
  BgLoop *loop = util_loop_new ("one");
  Across self = { util_loop_new ("another") };
  guint64 hold = bg_loop_hold (self.other, "across");

  util_reply_init (&self.reply);
  g_assert_true (bg_loop_post (loop, shut_down_other_cb, &self, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  bg_loop_release (self.other, hold);
  util_latch_wait (&self.reply.arrived);
  g_assert_true (finish (self.other, &self.reply, NULL));
  util_loop_end (loop);
  g_assert_true (self.reply.thread != g_thread_self ());
  util_reply_clear (&self.reply);
  g_assert_finalize_object (self.other);
}

void
add_tests_of_async (void)
{
  util_add_trapped ("/shutdown/async/reply", test_reply);
  util_add_trapped ("/shutdown/async/timeout", test_timeout);
  util_add_trapped ("/shutdown/async/cancelled/ends-the-wait-alone", test_cancelled);
  util_add_trapped ("/shutdown/async/cancelled/before-asks-for-nothing", test_cancelled_before);
  util_add_trapped ("/shutdown/async/limit-and-cancellable", test_limit_and_cancellable);
  util_add_trapped ("/shutdown/async/many", test_many);
  util_add_trapped ("/shutdown/async/race", test_race);
  util_add_trapped ("/shutdown/async/forgotten", test_forgotten);
  util_add_trapped ("/shutdown/async/no-callback", test_no_callback);
  util_add_trapped ("/shutdown/async/only-reference", test_only_reference);
  util_add_trapped ("/shutdown/async/across", test_across);
}
