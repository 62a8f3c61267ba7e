/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* An operation that answers when the test says so. */

typedef struct
{
  BgLoop *loop;
  UtilLatch begun;
  UtilLatch destroyed;
  guint n_at_once; /* answers from within begin() */
  GCancellable *cancellable;
  GAsyncReadyCallback callback;
  gpointer callback_data;
  gboolean destroyed_on_loop;
} Operation;

static void
operation_init (Operation *self, BgLoop *loop)
{
  *self = (Operation){ .loop = loop };
  util_latch_init (&self->begun, 1);
  util_latch_init (&self->destroyed, 1);
}

static void
operation_clear (Operation *self)
{
  g_clear_object (&self->cancellable);
  util_latch_clear (&self->begun);
  util_latch_clear (&self->destroyed);
}

static void
operation_answer (gpointer user_data)
{
  Operation *self = user_data;
  g_autoptr (GAsyncResult) answer = util_answer_new (0);

  self->callback (NULL, answer, self->callback_data);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Operation *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_main_context_get_thread_default () == bg_loop_get_context (self->loop));
  g_assert_true (G_IS_CANCELLABLE (cancellable));
  self->cancellable = g_object_ref (cancellable);
  self->callback = callback;
  self->callback_data = callback_data;
  for (guint i = 0; i < self->n_at_once; i++)
    operation_answer (self);
  util_latch_count_down (&self->begun);
  return TRUE;
}

static void
destroy_cb (gpointer user_data)
{
  Operation *self = user_data;

  self->destroyed_on_loop = bg_loop_is_current (self->loop);
  util_latch_count_down (&self->destroyed);
}

/* A thread that performs an operation and keeps what came of it. */

typedef struct
{
  Operation operation;
  GThread *thread;
  int timeout_msec;
  GCancellable *cancellable;
  GAsyncResult *answer;
  GError *error;
} Performer;

static gpointer
perform_thread_cb (gpointer user_data)
{
  Performer *self = user_data;

  self->answer = bg_loop_perform (self->operation.loop, G_PRIORITY_DEFAULT, self->timeout_msec,
                                  begin_cb, &self->operation, self->cancellable, &self->error);
  return NULL;
}

static void
performer_start (Performer *self, BgLoop *loop)
{
  *self = (Performer){ .timeout_msec = -1 };
  operation_init (&self->operation, loop);
  self->thread = g_thread_new ("performer", perform_thread_cb, self);
}

static void
performer_clear (Performer *self)
{
  g_clear_object (&self->answer);
  g_clear_error (&self->error);
  operation_clear (&self->operation);
}

/* Answers */

static gboolean
begin_read_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_file_read_async (user_data, G_PRIORITY_DEFAULT, cancellable, callback, callback_data);
  return TRUE;
}

/* A real operation's own error, from a thread of GIO's. */
static void
test_error (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GFile) file = g_file_new_for_path ("/nonexistent/file");
  g_autoptr (GFileInputStream) stream = NULL;
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL, same = NULL;

  answer
      = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_read_cb, file, NULL, &error);
  g_assert_no_error (error);
  stream = g_file_read_finish (file, answer, &error);
  g_assert_null (stream);

  stream = g_file_read (file, NULL, &same);
  g_assert_true (g_error_matches (error, same->domain, same->code));
  g_assert_cmpstr (error->message, ==, same->message);
}

static void
add_in_thread_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  g_task_return_int (task, GPOINTER_TO_INT (data) + 1);
}

static gboolean
begin_add_cb (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, callback, callback_data);

  g_task_set_task_data (task, user_data, NULL);
  g_task_run_in_thread (task, add_in_thread_cb);
  return TRUE;
}

static void
test_task_in_thread (BgTestFixture *fixture, gconstpointer data)
{
  guint n = util_scale (200);

  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GAsyncResult) answer = NULL;
      g_autoptr (GError) error = NULL;

      answer = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_add_cb,
                                GUINT_TO_POINTER (i), NULL, &error);
      g_assert_no_error (error);
      g_assert_true (g_task_is_valid (answer, NULL));
      g_assert_cmpint (g_task_propagate_int (G_TASK (answer), &error), ==, i + 1);
      g_assert_no_error (error);
    }
}

/* The callback is called in a thread that has nothing to do with the loop. */
static void
test_other_thread (BgTestFixture *fixture, gconstpointer data)
{
  Performer performer;

  performer_start (&performer, fixture->loop);
  util_latch_wait (&performer.operation.begun);
  operation_answer (&performer.operation);
  g_thread_join (performer.thread);

  g_assert_no_error (performer.error);
  g_assert_true (UTIL_IS_ANSWER (performer.answer));
  g_assert_false (g_cancellable_is_cancelled (performer.operation.cancellable));
  g_assert_finalize_object (g_steal_pointer (&performer.answer));
  performer_clear (&performer);
}

static void
test_inside_begin (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  GAsyncResult *answer;
  Operation operation;

  operation_init (&operation, fixture->loop);
  operation.n_at_once = 1;
  answer
      = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_cb, &operation, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (UTIL_IS_ANSWER (answer));
  g_assert_finalize_object (answer);
  operation_clear (&operation);
}

/* Other operations in flight are not taken for the one that is over. */
static void
test_twice (BgTestFixture *fixture, gconstpointer data)
{
  guint n_at_once = GPOINTER_TO_UINT (data);
  Performer first, second;

  util_catch_criticals ();
  performer_start (&second, fixture->loop);
  util_latch_wait (&second.operation.begun);

  first = (Performer){ .timeout_msec = -1 };
  operation_init (&first.operation, fixture->loop);
  first.operation.n_at_once = n_at_once;
  first.thread = g_thread_new ("performer", perform_thread_cb, &first);
  util_latch_wait (&first.operation.begun);
  for (guint i = n_at_once; i < 2; i++)
    operation_answer (&first.operation);
  util_take_critical ("*answered more than once*");
  g_thread_join (first.thread);
  g_assert_no_error (first.error);
  g_assert_finalize_object (g_steal_pointer (&first.answer));
  util_assert_no_answers ();

  operation_answer (&second.operation);
  g_thread_join (second.thread);
  g_assert_no_error (second.error);
  g_assert_nonnull (second.answer);
  performer_clear (&first);
  performer_clear (&second);
}

/* An answer without a result is an answer, and an error of the wait. */

static void
answer_nothing_cb (gpointer user_data)
{
  Operation *self = user_data;

  self->callback (NULL, NULL, self->callback_data);
}

static gboolean
begin_nothing_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  Operation *self = user_data;

  self->callback = callback;
  self->callback_data = callback_data;
  if (self->n_at_once > 0)
    answer_nothing_cb (self);
  else
    g_assert_true (bg_loop_post (self->loop, answer_nothing_cb, self, NULL));
  return TRUE;
}

static void
test_without_result (BgTestFixture *fixture, gconstpointer at_once)
{
  Operation operation = { .loop = fixture->loop, .n_at_once = at_once != NULL };
  g_autoptr (GError) error = NULL;
  UtilReply reply;

  g_assert_null (bg_loop_perform (operation.loop, G_PRIORITY_DEFAULT, -1, begin_nothing_cb,
                                  &operation, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
  g_clear_error (&error);

  util_reply_init (&reply);
  bg_loop_perform_async (operation.loop, G_PRIORITY_DEFAULT, -1, begin_nothing_cb, &operation, NULL,
                         NULL, util_reply_cb, &reply);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (operation.loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
  util_reply_clear (&reply);
}

/* It keeps the loop, whose shutdown says which operation it is. */
static void
test_never (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *description = NULL;
  BgLoop *loop = fixture->loop;
  Operation operation;

  operation_init (&operation, loop);
  g_assert_null (bg_loop_perform (loop, G_PRIORITY_DEFAULT, 0, begin_cb, &operation, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_clear_error (&error);

  if (!util_latch_is_open (&operation.begun))
    {
      /* It never began, and holds nothing. */
      util_wait_for_holds (loop, 0);
      util_loop_shut_down (loop);
      operation_clear (&operation);
      return;
    }

  description = bg_loop_describe (loop);
  g_assert_nonnull (strstr (description, "operation begun by"));
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_nonnull (strstr (error->message, "operation begun by"));
  operation_answer (&operation);
  util_loop_shut_down (loop);
  operation_clear (&operation);
  util_assert_no_answers ();
}

/* The wait ends, the operation is told, its late answer is dropped. */
static void
test_timeout (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = fixture->loop;
  Operation operation;
  gboolean begun = FALSE;
  guint n_eventfds = util_count_eventfds ();

  for (int timeout_msec = 1; !begun; timeout_msec *= 2)
    {
      operation_init (&operation, loop);
      g_assert_null (bg_loop_perform (loop, G_PRIORITY_DEFAULT, timeout_msec, begin_cb, &operation,
                                      NULL, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_clear_error (&error);
      begun = util_latch_is_open (&operation.begun);
      if (!begun)
        operation_clear (&operation);
    }

  g_assert_true (g_cancellable_is_cancelled (operation.cancellable));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_wait_for_holds (loop, 1);
  operation_answer (&operation);
  util_wait_for_holds (loop, 0);
  util_assert_no_answers ();
  /* The loop's thread gives back what the operation had after the hold. */
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_finalize_object (g_steal_pointer (&operation.cancellable));
  operation_clear (&operation);
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* An operation that answers, and whose begin() goes on until the caller's time is
 * up. What has answered is not cancelled any more. */

typedef struct
{
  Operation operation;
  gint64 due;
  gboolean in_time; /* it answered before that */
} Lasting;

static gboolean
begin_lasting_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  Lasting *self = user_data;

  begin_cb (&self->operation, cancellable, callback, callback_data, error);
  self->in_time = g_get_monotonic_time () < self->due;
  while (g_get_monotonic_time () < self->due + 20 * G_TIME_SPAN_MILLISECOND)
    g_thread_yield ();
  return TRUE;
}

static void
test_timeout_answered (BgTestFixture *fixture, gconstpointer data)
{
  gboolean in_time = FALSE;

  for (int timeout_msec = 1; !in_time; timeout_msec *= 2)
    {
      g_autoptr (GAsyncResult) answer = NULL;
      g_autoptr (GError) error = NULL;
      Lasting self = { .in_time = FALSE };

      operation_init (&self.operation, fixture->loop);
      self.operation.n_at_once = 1;
      self.due = g_get_monotonic_time () + timeout_msec * G_TIME_SPAN_MILLISECOND;
      answer = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, timeout_msec, begin_lasting_cb,
                                &self, NULL, &error);
      in_time = self.in_time;
      if (in_time)
        {
          g_assert_no_error (error);
          g_assert_true (UTIL_IS_ANSWER (answer));
          g_assert_false (g_cancellable_is_cancelled (self.operation.cancellable));
        }
      operation_clear (&self.operation);
    }

  util_loop_shut_down (fixture->loop);
  util_assert_no_answers ();
}

static void
test_refused (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  g_assert_null (
      bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

/* Shutdown */

static void
test_shutdown_cancel (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Performer performer;

  performer_start (&performer, loop);
  util_latch_wait (&performer.operation.begun);
  util_wait_for_holds (loop, 1);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);

  /* Before the operation answers. */
  g_thread_join (performer.thread);
  g_assert_error (performer.error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_null (performer.answer);
  g_assert_true (g_cancellable_is_cancelled (performer.operation.cancellable));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);

  operation_answer (&performer.operation);
  util_loop_shut_down (loop);
  performer_clear (&performer);
  util_assert_no_answers ();
}

/* All that are in flight are told so. */
static void
test_shutdown_cancel_all (BgTestFixture *fixture, gconstpointer data)
{
  Performer performers[3];

  for (guint i = 0; i < G_N_ELEMENTS (performers); i++)
    performer_start (&performers[i], fixture->loop);
  for (guint i = 0; i < G_N_ELEMENTS (performers); i++)
    util_latch_wait (&performers[i].operation.begun);
  bg_loop_quit (fixture->loop, BG_SHUTDOWN_CANCEL);
  for (guint i = 0; i < G_N_ELEMENTS (performers); i++)
    {
      g_thread_join (performers[i].thread);
      g_assert_error (performers[i].error, BG_ERROR, BG_ERROR_CLOSED);
      g_assert_true (g_cancellable_is_cancelled (performers[i].operation.cancellable));
      operation_answer (&performers[i].operation);
    }
  util_loop_shut_down (fixture->loop);
  for (guint i = 0; i < G_N_ELEMENTS (performers); i++)
    performer_clear (&performers[i]);
}

static void
test_shutdown_drain (BgTestFixture *fixture, gconstpointer data)
{
  Performer performer;

  performer_start (&performer, fixture->loop);
  util_latch_wait (&performer.operation.begun);
  bg_loop_quit (fixture->loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (bg_loop_shutdown_full (fixture->loop, BG_SHUTDOWN_DRAIN, 1, NULL, NULL));
  g_assert_false (g_cancellable_is_cancelled (performer.operation.cancellable));
  operation_answer (&performer.operation);

  g_thread_join (performer.thread);
  g_assert_no_error (performer.error);
  g_assert_true (UTIL_IS_ANSWER (performer.answer));
  performer_clear (&performer);
}

/* Asynchronous */

static void
perform_async (Operation *operation, UtilReply *reply, GCancellable *cancellable)
{
  util_reply_init (reply);
  bg_loop_perform_async (operation->loop, G_PRIORITY_DEFAULT, -1, begin_cb, operation, destroy_cb,
                         cancellable, util_reply_cb, reply);
}

static void
assert_answered (Operation *operation, UtilReply *reply)
{
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;

  util_reply_wait (reply);
  g_assert_true (reply->thread == g_thread_self ());
  g_assert_true (util_latch_is_open (&operation->destroyed));
  g_assert_true (operation->destroyed_on_loop);
  answer = bg_loop_perform_finish (operation->loop, reply->result, &error);
  g_assert_no_error (error);
  g_assert_true (UTIL_IS_ANSWER (answer));
}

static void
test_async (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  Operation operation;
  UtilReply reply;

  g_main_context_push_thread_default (context);
  operation_init (&operation, fixture->loop);
  perform_async (&operation, &reply, NULL);

  /* The data is done with when begin() is, long before the answer. */
  util_latch_wait (&operation.destroyed);
  g_assert_null (reply.result);
  g_assert_true (bg_loop_post (fixture->loop, operation_answer, &operation, NULL));
  assert_answered (&operation, &reply);

  util_reply_clear (&reply);
  operation_clear (&operation);
  g_main_context_pop_thread_default (context);
  util_loop_shut_down (fixture->loop);
  util_assert_no_answers ();
}

/* Whoever does not want to wait any longer, or is not to, does not wait for a loop that is too busy
 * to hand an answer over: the answer is dropped. */

static void
end_wait (BgLoop *loop, GCancellable *cancellable, gboolean shuts_down)
{
  if (shuts_down)
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  else
    g_cancellable_cancel (cancellable);
}

static void
assert_ended (const GError *error, gboolean shuts_down)
{
  if (shuts_down)
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  else
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

static void
test_answered_busy (BgTestFixture *fixture, gconstpointer shuts_down)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Performer performer = { .timeout_msec = -1, .cancellable = cancellable };
  UtilBlock block;

  operation_init (&performer.operation, fixture->loop);
  performer.thread = g_thread_new ("performer", perform_thread_cb, &performer);
  util_latch_wait (&performer.operation.begun);
  util_block (&block, fixture->loop);
  operation_answer (&performer.operation);
  end_wait (fixture->loop, cancellable, shuts_down != NULL);
  g_thread_join (performer.thread);
  g_assert_null (performer.answer);
  assert_ended (performer.error, shuts_down != NULL);
  g_assert_cmpint (g_cancellable_is_cancelled (performer.operation.cancellable), ==,
                   shuts_down != NULL);

  util_unblock (&block);
  util_loop_shut_down (fixture->loop);
  util_block_clear (&block);
  performer_clear (&performer);
  util_assert_no_answers ();
}

static void
test_async_answered_busy (BgTestFixture *fixture, gconstpointer shuts_down)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  Operation operation;
  UtilReply reply;
  UtilBlock block;

  operation_init (&operation, fixture->loop);
  perform_async (&operation, &reply, cancellable);
  util_latch_wait (&operation.begun);
  util_block (&block, fixture->loop);
  operation_answer (&operation);
  end_wait (fixture->loop, cancellable, shuts_down != NULL);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (fixture->loop, reply.result, &error));
  assert_ended (error, shuts_down != NULL);

  util_unblock (&block);
  util_reply_clear (&reply);
  operation_clear (&operation);
  util_loop_shut_down (fixture->loop);
  util_block_clear (&block);
  util_assert_no_answers ();
}

static void
test_async_inside_begin (BgTestFixture *fixture, gconstpointer data)
{
  Operation operation;
  UtilReply reply;

  operation_init (&operation, fixture->loop);
  operation.n_at_once = 1;
  perform_async (&operation, &reply, NULL);
  assert_answered (&operation, &reply);
  util_reply_clear (&reply);
  operation_clear (&operation);
  util_loop_shut_down (fixture->loop);
  util_assert_no_answers ();
}

static void
test_async_twice (BgTestFixture *fixture, gconstpointer data)
{
  Operation operation;
  UtilReply reply;

  util_catch_criticals ();
  operation_init (&operation, fixture->loop);
  operation.n_at_once = 2;
  perform_async (&operation, &reply, NULL);
  assert_answered (&operation, &reply);
  util_take_critical ("*answered more than once*");
  util_reply_clear (&reply);
  operation_clear (&operation);
  util_loop_shut_down (fixture->loop);
  util_assert_no_answers ();
}

static void
test_async_refused (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Operation operation;
  UtilReply reply;

  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  operation_init (&operation, fixture->loop);
  perform_async (&operation, &reply, NULL);
  g_assert_true (util_latch_is_open (&operation.destroyed));
  g_assert_false (operation.destroyed_on_loop);
  g_assert_null (reply.result);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (fixture->loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_reply_clear (&reply);
  operation_clear (&operation);
}

/* Of two reasons to give up the first is told, whichever that is. */
static void
test_async_first_reason (BgTestFixture *fixture, gconstpointer cancelled_first)
{
  int code = cancelled_first != NULL ? G_IO_ERROR_CANCELLED : G_IO_ERROR_TIMED_OUT;
  BgLoop *loop = fixture->loop;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  UtilBlock block;

  util_block (&block, loop);
  util_reply_init (&reply);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, 1, util_no_begin_cb, NULL, NULL, cancellable,
                         util_reply_cb, &reply);
  if (cancelled_first != NULL)
    g_cancellable_cancel (cancellable);
  util_spin_until (util_msec_from_now (2));
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_cancellable_cancel (cancellable);
  util_unblock (&block);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (loop, reply.result, &error));
  g_assert_error (error, G_IO_ERROR, code);
  util_reply_clear (&reply);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

/* A loop that was to have the answer, and is shut down with CANCEL, does not want it any
 * more: the operation is cancelled. */

static void
ignore_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
}

static void
perform_there_cb (gpointer user_data)
{
  Operation *operation = user_data;

  bg_loop_perform_async (operation->loop, G_PRIORITY_DEFAULT, -1, begin_cb, operation, destroy_cb,
                         NULL, ignore_reply_cb, NULL);
}

static void
test_async_caller_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *caller = util_loop_new ("caller");
  Operation operation;

  operation_init (&operation, fixture->loop);
  g_assert_true (bg_loop_post (caller, perform_there_cb, &operation, NULL));
  util_latch_wait (&operation.destroyed);
  g_assert_true (bg_loop_shutdown_full (caller, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_true (g_cancellable_is_cancelled (operation.cancellable));
  operation_answer (&operation);
  util_loop_shut_down (fixture->loop);
  operation_clear (&operation);
  g_assert_finalize_object (caller);
  util_assert_no_answers ();
}

/* One that was cancelled before is not handed over. */
static void
test_cancelled_before (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoopStats) stats = NULL;

  g_cancellable_cancel (cancellable);
  g_assert_null (bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL,
                                  cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  stats = bg_loop_get_stats (fixture->loop);
  g_assert_cmpuint (stats->posted, ==, 0);
  g_assert_cmpuint (stats->cancelled, ==, 0);
}

/* The data goes first also where the destroy notify iterates the context that the reply goes
 * to. */

typedef struct
{
  UtilReply reply;
  gboolean destroyed;
} Refused;

static void
iterate_and_destroy_cb (gpointer user_data)
{
  Refused *self = user_data;

  while (g_main_context_iteration (g_main_context_get_thread_default (), FALSE))
    ;
  g_assert_null (self->reply.result);
  self->destroyed = TRUE;
}

static void
test_async_refused_destroyed_first (BgTestFixture *fixture, gconstpointer data)
{
  Refused self = { 0 };

  util_loop_shut_down (fixture->loop);
  util_reply_init (&self.reply);
  bg_loop_perform_async (fixture->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, &self,
                         iterate_and_destroy_cb, NULL, util_reply_cb, &self.reply);
  g_assert_true (self.destroyed);
  util_reply_wait (&self.reply);
  util_reply_clear (&self.reply);
}

static void
test_async_shutdown (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = fixture->loop;
  Operation operation;
  UtilReply reply;

  operation_init (&operation, loop);
  perform_async (&operation, &reply, NULL);
  util_latch_wait (&operation.destroyed);
  if (data != NULL)
    g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);

  operation_answer (&operation);
  util_reply_clear (&reply);
  util_loop_shut_down (loop);
  operation_clear (&operation);
  util_assert_no_answers ();
}

/* Dropped by a shutdown before it began. */
static void
test_async_dropped (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = fixture->loop;
  Operation operation;
  UtilReply reply;
  UtilBlock block;

  util_block (&block, loop);
  operation_init (&operation, loop);
  perform_async (&operation, &reply, NULL);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  util_unblock (&block);
  util_reply_wait (&reply);
  g_assert_false (util_latch_is_open (&operation.begun));
  g_assert_true (util_latch_is_open (&operation.destroyed));
  g_assert_true (operation.destroyed_on_loop);
  g_assert_null (bg_loop_perform_finish (loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_reply_clear (&reply);
  util_loop_shut_down (loop);
  operation_clear (&operation);
  util_block_clear (&block);
}

static void
test_async_no_callback (BgTestFixture *fixture, gconstpointer data)
{
  Operation operation;

  operation_init (&operation, fixture->loop);
  bg_loop_perform_async (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_cb, &operation, destroy_cb,
                         NULL, NULL, NULL);
  util_latch_wait (&operation.destroyed);
  operation_answer (&operation);
  util_loop_shut_down (fixture->loop);
  operation_clear (&operation);
  util_assert_no_answers ();
}

/* Nobody iterates the caller's context any more. */
static void
test_async_context_gone (BgTestFixture *fixture, gconstpointer data)
{
  gboolean answer_first = GPOINTER_TO_INT (data);
  GMainContext *context = g_main_context_new ();
  Operation operation;

  g_main_context_push_thread_default (context);
  operation_init (&operation, fixture->loop);
  bg_loop_perform_async (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_cb, &operation, destroy_cb,
                         NULL, util_no_reply_cb, NULL);
  g_main_context_pop_thread_default (context);
  util_latch_wait (&operation.destroyed);

  if (answer_first)
    operation_answer (&operation);
  g_main_context_unref (context);
  if (!answer_first)
    operation_answer (&operation);

  util_loop_shut_down (fixture->loop);
  operation_clear (&operation);
  util_assert_no_answers ();
}

/* An operation of the loop's own is answered by another thread while the loop
 * drains. Its reply goes to the loop, and begins the next one. */

#define N_STEPS 5

typedef struct
{
  BgLoop *loop;
  GAsyncQueue *begun;
  guint n_replies;
} Steps;

typedef struct
{
  GAsyncReadyCallback callback;
  gpointer callback_data;
} Begun;

static gboolean
begin_step_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  Steps *self = user_data;

  g_async_queue_push (self->begun, g_memdup2 (&(Begun){ callback, callback_data }, sizeof (Begun)));
  return TRUE;
}

static gpointer
answer_steps_thread (gpointer user_data)
{
  Steps *self = user_data;

  for (guint i = 0; i < N_STEPS; i++)
    {
      g_autofree Begun *begun = g_async_queue_pop (self->begun);
      g_autoptr (GAsyncResult) answer = util_answer_new (0);

      begun->callback (NULL, answer, begun->callback_data);
    }
  return NULL;
}

static void
stepped_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Steps *self = user_data;
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (self->loop));
  answer = bg_loop_perform_finish (self->loop, result, &error);
  g_assert_no_error (error);
  g_assert_true (UTIL_IS_ANSWER (answer));
  if (++self->n_replies < N_STEPS)
    bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, begin_step_cb, self, NULL, NULL,
                           stepped_cb, self);
}

static void
first_step_cb (gpointer user_data)
{
  Steps *self = user_data;

  bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, begin_step_cb, self, NULL, NULL,
                         stepped_cb, self);
}

static void
test_async_drain_own_loop (void)
{
  for (guint i = 0; i < util_scale (300); i++)
    {
      Steps self = { util_loop_new ("steps"), g_async_queue_new () };
      GThread *thread = g_thread_new ("answers", answer_steps_thread, &self);

      g_assert_true (bg_loop_post (self.loop, first_step_cb, &self, NULL));
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      g_assert_cmpuint (self.n_replies, ==, N_STEPS);
      g_thread_join (thread);
      g_assert_finalize_object (self.loop);
      g_async_queue_unref (self.begun);
    }
  util_assert_no_answers ();
}

/* Nor is a cancellable used for another operation if somebody could still cancel
 * that one by it. */

static gboolean
weak_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_autoptr (GAsyncResult) answer = util_answer_new (0);
  g_autoptr (GCancellable) other = g_weak_ref_get (user_data);

  g_assert_true (other != cancellable);
  g_weak_ref_set (user_data, cancellable);
  callback (NULL, answer, callback_data);
  return TRUE;
}

static void
test_cancellable_kept_weakly (BgTestFixture *fixture, gconstpointer data)
{
  GWeakRef weak;

  g_weak_ref_init (&weak, NULL);
  for (guint i = 0; i < 20; i++)
    {
      g_autoptr (GAsyncResult) answer = NULL;

      answer = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, weak_begin_cb, &weak, NULL,
                                NULL);
      g_assert_nonnull (answer);
    }
  g_weak_ref_clear (&weak);
  util_loop_shut_down (fixture->loop);
  util_assert_no_answers ();
}

/* Nor is one that was cancelled. */

static gboolean
begin_uncancelled_cb (gpointer user_data,
                      GCancellable *cancellable,
                      GAsyncReadyCallback callback,
                      gpointer callback_data,
                      GError **error)
{
  Operation *self = user_data;

  g_assert_false (g_cancellable_is_cancelled (cancellable));
  begin_cb (self, cancellable, callback, callback_data, error);
  g_clear_object (&self->cancellable);
  return TRUE;
}

static void
test_cancellable_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < 20; i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      Operation operation;
      UtilReply reply;

      operation_init (&operation, fixture->loop);
      util_reply_init (&reply);
      bg_loop_perform_async (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_uncancelled_cb,
                             &operation, destroy_cb, cancellable, util_reply_cb, &reply);
      util_latch_wait (&operation.destroyed);
      g_cancellable_cancel (cancellable);
      util_reply_wait (&reply);
      g_assert_null (bg_loop_perform_finish (fixture->loop, reply.result, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      operation_answer (&operation);
      util_wait_for_holds (fixture->loop, 0);
      /* The loop's thread lets go of the operation after that. */
      g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
      util_reply_clear (&reply);
      operation_clear (&operation);
    }
}

/* Nor is one that somebody has left a handler with. */

static gboolean
begin_with_handler_cb (gpointer user_data,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer callback_data,
                       GError **error)
{
  g_autoptr (GAsyncResult) answer = util_answer_new (0);

  g_signal_connect (cancellable, "cancelled", G_CALLBACK (util_not_reached_cb), NULL);
  callback (NULL, answer, callback_data);
  return TRUE;
}

static void
test_cancellable_with_handler (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GAsyncResult) answer = NULL;
  Performer performer;

  answer = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_with_handler_cb, NULL,
                            NULL, NULL);
  g_assert_nonnull (answer);
  /* The loop's thread lets go of the operation after that. */
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));

  performer_start (&performer, fixture->loop);
  util_latch_wait (&performer.operation.begun);
  g_cancellable_cancel (performer.operation.cancellable);
  operation_answer (&performer.operation);
  g_thread_join (performer.thread);
  g_assert_no_error (performer.error);
  performer_clear (&performer);
}

/* The loop's cancellable, which anybody may cancel, is that of what begins later, too. */

static gboolean
begin_cancelled_cb (gpointer user_data,
                    GCancellable *cancellable,
                    GAsyncReadyCallback callback,
                    gpointer callback_data,
                    GError **error)
{
  g_assert_true (g_cancellable_is_cancelled (cancellable));
  return begin_cb (user_data, cancellable, callback, callback_data, error);
}

static void
test_loop_cancelled (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;
  Operation operation;

  operation_init (&operation, fixture->loop);
  operation.n_at_once = 1;
  g_cancellable_cancel (bg_loop_get_cancellable (fixture->loop));
  answer = bg_loop_perform (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_cancelled_cb, &operation,
                            NULL, &error);
  g_assert_no_error (error);
  g_assert_true (UTIL_IS_ANSWER (answer));
  operation_clear (&operation);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/perform/error-unchanged", test_error);
  util_add ("/perform/answer/task-in-thread", test_task_in_thread);
  util_add ("/perform/answer/other-thread", test_other_thread);
  util_add ("/perform/answer/inside-begin", test_inside_begin);
  util_add_data ("/perform/answer/without-result", test_without_result, NULL);
  util_add_data ("/perform/answer/without-result-inside-begin", test_without_result,
                 &begin_nothing_cb);
  util_add_data ("/perform/answer/twice", test_twice, GUINT_TO_POINTER (0));
  util_add_data ("/perform/answer/twice-once-inside-begin", test_twice, GUINT_TO_POINTER (1));
  util_add_data ("/perform/answer/twice-inside-begin", test_twice, GUINT_TO_POINTER (2));
  util_add ("/perform/answer/never", test_never);
  util_add ("/perform/timeout/late-answer-dropped", test_timeout);
  util_add ("/perform/timeout/what-has-answered-is-not-cancelled", test_timeout_answered);
  util_add ("/perform/cancellable-kept-weakly", test_cancellable_kept_weakly);
  util_add ("/perform/cancellable-cancelled", test_cancellable_cancelled);
  util_add ("/perform/cancellable-with-handler", test_cancellable_with_handler);
  util_add ("/perform/cancellable-of-the-loop-cancelled", test_loop_cancelled);
  util_add ("/perform/cancelled-before", test_cancelled_before);
  util_add ("/perform/refused", test_refused);
  util_add ("/perform/shutdown/cancel-ends-the-wait", test_shutdown_cancel);
  util_add ("/perform/shutdown/cancel-tells-all", test_shutdown_cancel_all);
  util_add ("/perform/shutdown/drain-waits-for-it", test_shutdown_drain);
  util_add ("/perform-async/destroyed-then-answered-in-callers-context", test_async);
  util_add ("/perform-async/answer/inside-begin", test_async_inside_begin);
  util_add_data ("/perform/answered-while-busy/cancelled", test_answered_busy, NULL);
  util_add_data ("/perform/answered-while-busy/shut-down", test_answered_busy, "");
  util_add_data ("/perform-async/answered-while-busy/cancelled", test_async_answered_busy, NULL);
  util_add_data ("/perform-async/answered-while-busy/shut-down", test_async_answered_busy, "");
  util_add ("/perform-async/answer/twice", test_async_twice);
  util_add_data ("/perform-async/first-reason-is-told/timed-out", test_async_first_reason, NULL);
  util_add_data ("/perform-async/first-reason-is-told/cancelled", test_async_first_reason,
                 "cancelled");
  util_add ("/perform-async/callers-loop-cancelled", test_async_caller_cancelled);
  util_add ("/perform-async/refused", test_async_refused);
  util_add ("/perform-async/refused/destroyed-first", test_async_refused_destroyed_first);
  util_add_data ("/perform-async/shutdown/cancel-ends-the-wait", test_async_shutdown, NULL);
  util_add_data ("/perform-async/shutdown/cancel-ends-the-wait-once-begun", test_async_shutdown,
                 "begun");
  util_add ("/perform-async/shutdown/cancel-drops-it", test_async_dropped);
  util_add_trapped ("/perform-async/shutdown/drain-gives-own-loop-its-replies",
                    test_async_drain_own_loop);
  util_add ("/perform-async/no-callback", test_async_no_callback);
  util_add_data ("/perform-async/context-gone/before-answer", test_async_context_gone,
                 GINT_TO_POINTER (FALSE));
  util_add_data ("/perform-async/context-gone/with-answer", test_async_context_gone,
                 GINT_TO_POINTER (TRUE));

  return g_test_run ();
}
