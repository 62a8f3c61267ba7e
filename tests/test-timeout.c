/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* Deadlines of what nobody blocks for */

typedef enum
{
  CALL,
  PERFORM,
  OPERATION,
  N_KINDS,
} Kind;

typedef struct
{
  Kind kind;
  BgLoop *loop;
  gint64 until; /* for how long the function goes on */
  gboolean answers;
  int n_run;
  UtilLatch run;
  UtilLatch destroyed;
  gboolean destroyed_on_loop;
  UtilReply reply;
  UtilLatch cancelled;
  GCancellable *cancellable;
  gulong cancelled_id;
  GAsyncReadyCallback callback;
  gpointer callback_data;
  BgOperation *operation;
} Work;

static void
work_init (Work *self, Kind kind, BgLoop *loop)
{
  *self = (Work){ .kind = kind, .loop = loop };
  util_latch_init (&self->run, 1);
  util_latch_init (&self->destroyed, 1);
  util_latch_init (&self->cancelled, 1);
  util_reply_init (&self->reply);
}

static void
work_clear (Work *self)
{
  if (self->cancellable != NULL)
    g_signal_handler_disconnect (self->cancellable, self->cancelled_id);
  util_latch_clear (&self->run);
  util_latch_clear (&self->destroyed);
  util_latch_clear (&self->cancelled);
  util_reply_clear (&self->reply);
  g_clear_pointer (&self->operation, bg_operation_unref);
  g_clear_object (&self->cancellable);
}

static gboolean
run_cb (gpointer user_data, GError **error)
{
  Work *self = user_data;

  self->n_run++;
  util_spin_until (self->until);
  util_latch_count_down (&self->run);
  return TRUE;
}

static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  util_latch_count_down (&((Work *) user_data)->cancelled);
}

static void
watch (Work *self, GCancellable *cancellable)
{
  self->cancellable = g_object_ref (cancellable);
  self->cancelled_id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (cancelled_cb), self);
}

static void
answer (Work *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  if (self->operation != NULL)
    bg_operation_answer (self->operation, G_ASYNC_RESULT (task));
  else
    self->callback (NULL, G_ASYNC_RESULT (task), self->callback_data);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Work *self = user_data;

  self->callback = callback;
  self->callback_data = callback_data;
  watch (self, cancellable);
  if (self->answers)
    answer (self);
  return run_cb (self, error);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Work *self = user_data;

  self->operation = bg_operation_ref (operation);
  watch (self, cancellable);
  if (self->answers)
    answer (self);
  return run_cb (self, error);
}

static void
destroyed_cb (gpointer user_data)
{
  Work *self = user_data;

  g_assert_null (self->reply.result);
  self->destroyed_on_loop = bg_loop_is_current (self->loop);
  util_latch_count_down (&self->destroyed);
}

static void
start (Work *self, int timeout_msec, GAsyncReadyCallback callback)
{
  if (self->kind == CALL)
    bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, timeout_msec, run_cb, self, destroyed_cb,
                        NULL, callback, &self->reply);
  else if (self->kind == PERFORM)
    bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, timeout_msec, begin_cb, self,
                           destroyed_cb, NULL, callback, &self->reply);
  else
    bg_loop_perform_operation_async (self->loop, G_PRIORITY_DEFAULT, timeout_msec, operation_cb,
                                     self, destroyed_cb, NULL, callback, &self->reply);
  g_assert_null (self->reply.result);
}

static gboolean
finish (Work *self, GError **error)
{
  g_autoptr (GAsyncResult) result = NULL;

  util_reply_wait (&self->reply);
  g_assert_true (self->reply.thread == g_thread_self ());
  g_assert_true (util_latch_is_open (&self->destroyed));
  g_assert_true (self->destroyed_on_loop);
  if (self->kind == CALL)
    return bg_loop_call_finish (self->loop, self->reply.result, error);

  result = bg_loop_perform_finish (self->loop, self->reply.result, error);
  return result != NULL;
}

static void
assert_timed_out (Work *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (finish (self, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

/* Too late to start: it never runs, and its data is destroyed on the loop, before
 * the reply. */
static void
test_before (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;

  for (int timeout_msec = 0; timeout_msec < 3; timeout_msec++)
    {
      UtilBlock block;
      Work work;

      work_init (&work, GPOINTER_TO_INT (data), loop);
      util_block (&block, loop);
      start (&work, timeout_msec, util_reply_cb);
      util_spin_until (util_msec_from_now ((guint) timeout_msec + 5));
      util_unblock (&block);
      assert_timed_out (&work);
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
      g_assert_cmpint (work.n_run, ==, 0);
      util_wait_for_holds (loop, 0);
      util_block_clear (&block);
      work_clear (&work);
    }
}

/* An operation is given up as soon as its caller looks, though the loop has not come to it, and not
 * only when it does: also without any time. */
static void
test_given_up (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (BgLoopStats) stats = NULL;
  UtilBlock block;
  Work work;

  work_init (&work, GPOINTER_TO_INT (data), loop);
  util_block (&block, loop);
  start (&work, 0, util_reply_cb);
  do
    {
      g_clear_pointer (&stats, bg_loop_stats_free);
      g_main_context_iteration (NULL, FALSE);
      stats = bg_loop_get_stats (loop);
    }
  while (stats->queued > 0);
  g_assert_cmpuint (stats->cancelled, ==, 1);
  util_unblock (&block);
  assert_timed_out (&work);
  g_assert_cmpint (work.n_run, ==, 0);
  util_wait_for_holds (loop, 0);
  util_block_clear (&block);
  work_clear (&work);
}

/* Time enough */
static void
test_in_time (BgTestFixture *fixture, gconstpointer data)
{
  static const int timeouts[] = { -1, G_MAXINT, 3600 * 1000 };

  for (guint i = 0; i < G_N_ELEMENTS (timeouts); i++)
    {
      g_autoptr (GError) error = NULL;
      Work work;

      work_init (&work, GPOINTER_TO_INT (data), fixture->loop);
      work.answers = TRUE;
      start (&work, timeouts[i], util_reply_cb);
      g_assert_true (finish (&work, &error));
      g_assert_no_error (error);
      work_clear (&work);
    }
}

/* A call that has started has its own result, however late. */
static void
test_started_call (BgTestFixture *fixture, gconstpointer data)
{
  gboolean started = FALSE;

  for (int timeout_msec = 1; !started; timeout_msec *= 2)
    {
      g_autoptr (GError) error = NULL;
      Work work;
      gboolean ok;

      work_init (&work, CALL, fixture->loop);
      work.until = util_msec_from_now ((guint) timeout_msec + 5);
      start (&work, timeout_msec, util_reply_cb);
      ok = finish (&work, &error);
      started = work.n_run > 0;
      if (started)
        g_assert_no_error (error);
      else
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_assert_true (ok == started);
      work_clear (&work);
    }
}

/* An operation that has begun is cancelled, and its late answer is dropped; it
 * holds the loop meanwhile. */
static void
run_pending (BgLoop *loop, Kind kind, GAsyncReadyCallback callback)
{
  gboolean begun = FALSE;

  for (int timeout_msec = 1; !begun; timeout_msec *= 2)
    {
      Work work;

      work_init (&work, kind, loop);
      start (&work, timeout_msec, callback);
      if (callback != NULL)
        assert_timed_out (&work);
      else
        util_latch_wait (&work.destroyed);
      begun = work.n_run > 0;
      if (begun)
        {
          /* Where nobody waits, nobody gives up. */
          if (callback != NULL)
            util_latch_wait (&work.cancelled);
          util_wait_for_holds (loop, 1);
          answer (&work);
        }
      util_wait_for_holds (loop, 0);
      work_clear (&work);
    }
}

static void
test_pending (BgTestFixture *fixture, gconstpointer data)
{
  run_pending (fixture->loop, GPOINTER_TO_INT (data), util_reply_cb);
}

static void
test_pending_no_callback (BgTestFixture *fixture, gconstpointer data)
{
  run_pending (fixture->loop, GPOINTER_TO_INT (data), NULL);
}

/* What has answered is not cancelled any more, though the deadline passes before
 * begin() returns. */
static void
test_answered (BgTestFixture *fixture, gconstpointer data)
{
  gboolean begun = FALSE;

  for (int timeout_msec = 8; !begun; timeout_msec *= 2)
    {
      g_autoptr (GError) error = NULL;
      gint64 due = util_msec_from_now ((guint) timeout_msec);
      gboolean ok;
      Work work;

      work_init (&work, GPOINTER_TO_INT (data), fixture->loop);
      work.answers = TRUE;
      work.until = due + 5 * G_TIME_SPAN_MILLISECOND;
      start (&work, timeout_msec, util_reply_cb);
      ok = finish (&work, &error);
      begun = work.n_run > 0;

      /* Whether the answer was in time the test cannot know, but one of them it was. */
      if (ok)
        g_assert_false (g_cancellable_is_cancelled (work.cancellable));
      else
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      work_clear (&work);
      begun = begun && ok;
    }
}

/* A shutdown does not wait for deadlines. */
static void
test_shutdown (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Work work;

  work_init (&work, GPOINTER_TO_INT (data), fixture->loop);
  work.answers = TRUE;
  start (&work, 3600 * 1000, util_reply_cb);
  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  g_assert_true (finish (&work, &error));
  g_assert_no_error (error);
  work_clear (&work);
}

/* Deadlines that pass all the time: nothing is lost, nothing is answered twice. */
static void
test_race (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      g_autoptr (GError) error = NULL;
      Work work;

      work_init (&work, GPOINTER_TO_INT (data), fixture->loop);
      work.answers = TRUE;
      work.until = i % 3 == 0 ? util_msec_from_now (1) : 0;
      start (&work, (int) (i % 2), util_reply_cb);
      if (finish (&work, &error))
        g_assert_cmpint (work.n_run, ==, 1);
      else
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      util_wait_for_holds (fixture->loop, 0);
      work_clear (&work);
    }
}

/* The error says what was in the way as the time was up. */

#define AGE "(\\d+ ms|\\d+\\.\\d s)"

void timeout_stuck_cb (gpointer user_data);
gboolean timeout_begin_cb (gpointer user_data,
                           GCancellable *cancellable,
                           GAsyncReadyCallback callback,
                           gpointer callback_data,
                           GError **error);

/* Exported, so that the dynamic linker knows their names. */
void
timeout_stuck_cb (gpointer user_data)
{
  UtilBlock *block = user_data;

  util_latch_count_down (&block->entered);
  util_latch_wait (&block->released);
}

gboolean
timeout_begin_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  return begin_cb (user_data, cancellable, callback, callback_data, error);
}

#define STUCK "running " UTIL_NAME (timeout_stuck_cb, ".*") " for " AGE

/* The loop stands still in that function; three wait behind it, and three that are less urgent, one
 * of them invoked. Holds
 * are in the way of the loop's end only. */
static guint64
get_stuck (UtilBlock *block, BgLoop *loop)
{
  util_latch_init (&block->entered, 1);
  util_latch_init (&block->released, 1);
  g_assert_true (bg_loop_post (loop, timeout_stuck_cb, block, NULL));
  util_latch_wait (&block->entered);
  for (guint i = 0; i < 5; i++)
    g_assert_true (bg_loop_post_full (loop, i < 3 ? 0 : 7, util_nothing_cb, NULL, NULL));
  g_assert_true (bg_loop_invoke_full (loop, 7, util_remove_cb, NULL, NULL));
  return bg_loop_hold (loop, "nothing");
}

static void
assert_says (GError *error, const char *pattern)
{
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_test_message ("%s", error->message);
  if (!g_regex_match_simple (pattern, error->message, 0, 0))
    g_error ("\"%s\" does not match \"%s\"", error->message, pattern);
}

/* What is less urgent is in nobody's way, nor is what has just been given up; whoever does not
 * ask is not told. */
static void
test_says_blocking (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) called = NULL, urgent = NULL, less_urgent = NULL, flushed = NULL;
  g_autoptr (GError) performed = NULL;
  UtilBlock block;
  guint64 hold = get_stuck (&block, loop);

  for (guint i = 0; i < 2; i++)
    {
      g_assert_false (
          bg_loop_call_full (loop, 0, 2, util_no_call_cb, NULL, NULL, i == 0 ? NULL : &called));
      g_assert_false (bg_loop_flush (loop, 2, NULL, i == 0 ? NULL : &flushed));
      g_assert_null (
          bg_loop_perform (loop, 0, 2, util_no_begin_cb, NULL, NULL, i == 0 ? NULL : &performed));
    }
  g_assert_false (bg_loop_call_full (loop, -1, 0, util_no_call_cb, NULL, NULL, &urgent));
  g_assert_false (bg_loop_call_full (loop, 7, 0, util_no_call_cb, NULL, NULL, &less_urgent));

  assert_says (called, "^A call to the loop \"[^\"]+\" did not start within 2 ms: " STUCK
                       "; 3 queued at priority 0$");
  assert_says (flushed, "^The loop \"[^\"]+\" was not flushed within 2 ms: " STUCK
                        "; 3 queued at priority 0; 2 queued at priority 7$");
  assert_says (performed, "^An operation on the loop \"[^\"]+\" did not start within 2 ms: " STUCK
                          "; 3 queued at priority 0$");
  assert_says (urgent, "^A call to the loop \"[^\"]+\" did not start within 0 ms: " STUCK "$");
  assert_says (less_urgent, "^A call to the loop \"[^\"]+\" did not start within 0 ms: " STUCK
                            "; 3 queued at priority 0; 2 queued at priority 7; 1 invoked$");
  util_unblock (&block);
  bg_loop_release (loop, hold);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

/* What was in the way is told as it was when the time was up, though the loop comes to it only
 * later, in another function and with nothing queued. */
static void
test_says_async (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  guint64 hold = get_stuck (&block, loop);
  Work work;

  work_init (&work, GPOINTER_TO_INT (data), loop);
  start (&work, 0, util_reply_cb);
  /* The limit of 0 ms is a source that is ready. */
  g_assert_true (g_main_context_iteration (NULL, FALSE));
  util_unblock (&block);
  g_assert_false (finish (&work, &error));
  /* On the loop's thread, where this is put into words, the dynamic linker is not asked. */
  assert_says (error, "^An operation on the loop \"[^\"]+\" did not start within 0 ms: "
                      "running a function at [^ ]+ for " AGE "; 3 queued at priority 0$");
  bg_loop_release (loop, hold);
  util_loop_shut_down (loop);
  work_clear (&work);
  util_block_clear (&block);
}

/* An asynchronous call whose turn comes too late is told how late: nothing is in its way then,
 * least of all itself. */
static void
test_says_late (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  Work work;

  util_block (&block, loop);
  work_init (&work, CALL, loop);
  start (&work, 1, util_reply_cb);
  util_spin_until (util_msec_from_now (5));
  util_unblock (&block);
  g_assert_false (finish (&work, &error));
  assert_says (error, "^A call to the loop \"[^\"]+\" did not start within 1 ms: "
                      "the loop came to it " AGE " late$");
  util_loop_shut_down (loop);
  work_clear (&work);
  util_block_clear (&block);
}

#define DID_NOT_END "^An operation on the loop \"[^\"]+\" did not end within \\d+ ms: (.*; )?"
#define BEGUN       "(running|waiting for the operation begun by) " UTIL_NAME (timeout_begin_cb, ".*")

/* An operation that has begun is told apart, and named, while its function runs and after that. */
static void
test_says_begun (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  gboolean blocks = GPOINTER_TO_INT (data), begun = FALSE;

  for (int timeout_msec = 1; !begun; timeout_msec *= 2)
    {
      g_autoptr (GError) error = NULL;
      Work work;

      work_init (&work, PERFORM, loop);
      if (blocks)
        g_assert_null (
            bg_loop_perform (loop, 0, timeout_msec, timeout_begin_cb, &work, NULL, &error));
      else
        bg_loop_perform_async (loop, 0, timeout_msec, timeout_begin_cb, &work, destroyed_cb, NULL,
                               util_reply_cb, &work.reply);
      if (!blocks)
        g_assert_false (finish (&work, &error));
      begun = work.n_run > 0;
      if (begun)
        {
          /* Put into words on the loop's thread if the time was up before the function has returned. */
          assert_says (error, blocks ? DID_NOT_END "(" BEGUN ") for " AGE "$"
                                     : DID_NOT_END "(" BEGUN
                                                   "|running a function at [^ ]+) for " AGE "$");
          answer (&work);
        }
      else
        {
          assert_says (error,
                       "^An operation on the loop \"[^\"]+\" did not start within \\d+ ms: .");
        }
      util_wait_for_holds (loop, 0);
      work_clear (&work);
    }
  util_loop_shut_down (loop);
}

static void
add (const char *path, Kind kind, UtilTestFunc func)
{
  static const char *names[] = { "call", "perform", "operation" };
  g_autofree char *whole = g_strdup_printf ("/timeout-async/%s/%s", path, names[kind]);

  util_add_data (whole, func, GINT_TO_POINTER (kind));
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  for (Kind kind = CALL; kind < N_KINDS; kind++)
    {
      add ("before-it-starts", kind, test_before);
      add ("in-time", kind, test_in_time);
      add ("shutdown-does-not-wait-for-it", kind, test_shutdown);
      add ("race", kind, test_race);
    }
  for (Kind kind = PERFORM; kind < N_KINDS; kind++)
    {
      add ("given-up-at-once", kind, test_given_up);
      add ("pending", kind, test_pending);
      add ("pending-no-callback", kind, test_pending_no_callback);
      add ("what-has-answered-is-not-cancelled", kind, test_answered);
    }
  util_add ("/timeout-async/started-call-has-its-own-result", test_started_call);
  util_add ("/timeout/says-what-is-in-the-way", test_says_blocking);
  util_add_data ("/timeout-async/says-what-is-in-the-way/perform", test_says_async,
                 GINT_TO_POINTER (PERFORM));
  util_add_data ("/timeout-async/says-what-is-in-the-way/operation", test_says_async,
                 GINT_TO_POINTER (OPERATION));
  util_add ("/timeout-async/says-how-late", test_says_late);
  util_add_data ("/timeout/says-that-it-has-begun", test_says_begun, GINT_TO_POINTER (TRUE));
  util_add_data ("/timeout-async/says-that-it-has-begun", test_says_begun, GINT_TO_POINTER (FALSE));

  return g_test_run ();
}
