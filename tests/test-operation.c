/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* What languages have in place of a callback that is handed on */

static void
assert_value (GAsyncResult *result, int value)
{
  g_assert_true (UTIL_IS_ANSWER (result));
  g_assert_cmpint (UTIL_ANSWER (result)->value, ==, value);
}

static void
answer (BgOperation *operation, int value)
{
  g_autoptr (GAsyncResult) result = util_answer_new (value);

  bg_operation_answer (operation, result);
}

/* What a function does with its operation */
typedef enum
{
  ANSWER = 1 << 0,
  ANSWER_NOTHING = 1 << 1,
  KEEP = 1 << 2,
  FAIL = 1 << 3,
  ANSWER_BY_POST = 1 << 4,
} How;

typedef struct
{
  BgLoop *loop;
  guint how;
  UtilLatch begun;
  UtilLatch destroyed;
  gboolean destroyed_on_loop;
  BgOperation *kept;
  GCancellable *cancellable;
} Begin;

static void
answer_kept_cb (gpointer user_data)
{
  Begin *self = user_data;

  answer (self->kept, 2);
  g_clear_pointer (&self->kept, bg_operation_unref);
}

static gboolean
begin_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Begin *self = user_data;

  g_assert_nonnull (operation);
  g_assert_true (G_IS_CANCELLABLE (cancellable));
  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_main_context_get_thread_default () == bg_loop_get_context (self->loop));
  self->cancellable = g_object_ref (cancellable);
  if (self->how & ANSWER)
    answer (operation, 1);
  if (self->how & ANSWER_NOTHING)
    bg_operation_answer (operation, NULL);
  if (self->how & KEEP)
    self->kept = bg_operation_ref (operation);
  if (self->how & ANSWER_BY_POST)
    g_assert_true (bg_loop_post (self->loop, answer_kept_cb, self, NULL));
  util_latch_count_down (&self->begun);

  if ((self->how & FAIL) == 0)
    return TRUE;

  g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "the very words");
  return FALSE;
}

static void
begin_init (Begin *self, BgLoop *loop, guint how)
{
  *self = (Begin){ .loop = loop, .how = how };
  util_latch_init (&self->begun, 1);
  util_latch_init (&self->destroyed, 1);
}

static void
begin_clear (Begin *self)
{
  g_clear_pointer (&self->kept, bg_operation_unref);
  g_clear_object (&self->cancellable);
  util_latch_clear (&self->begun);
  util_latch_clear (&self->destroyed);
}

static void
destroyed_cb (gpointer user_data)
{
  Begin *self = user_data;

  self->destroyed_on_loop = bg_loop_is_current (self->loop);
  util_latch_count_down (&self->destroyed);
}

/* Either way to wait for it */

static GAsyncResult *
perform_blocking (Begin *self, GError **error)
{
  return bg_loop_perform_operation (self->loop, G_PRIORITY_DEFAULT, -1, begin_cb, self, NULL,
                                    error);
}

static GAsyncResult *
perform_async (Begin *self, GError **error)
{
  GAsyncResult *result;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_perform_operation_async (self->loop, G_PRIORITY_DEFAULT, -1, begin_cb, self, destroyed_cb,
                                   NULL, util_reply_cb, &reply);
  g_assert_null (reply.result);
  util_reply_wait (&reply);
  g_assert_true (reply.thread == g_thread_self ());
  g_assert_true (util_latch_is_open (&self->destroyed));
  g_assert_true (self->destroyed_on_loop);
  result = bg_loop_perform_finish (self->loop, reply.result, error);
  util_reply_clear (&reply);
  return result;
}

typedef GAsyncResult *(*PerformFunc) (Begin *self, GError **error);

static const PerformFunc performs[] = { perform_blocking, perform_async };

/* Ends the loop, and all that was on it is gone. */
static void
end (Begin *self)
{
  util_wait_for_holds (self->loop, 0);
  util_loop_end (self->loop);
  begin_clear (self);
  util_assert_no_answers ();
}

/* Answers */

static void
test_answers (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      g_autoptr (GError) error = NULL;
      GAsyncResult *result;
      Begin self;

      begin_init (&self, util_loop_new ("answers"), ANSWER);
      result = performs[i](&self, &error);
      g_assert_no_error (error);
      assert_value (result, 1);
      g_object_unref (result);
      end (&self);
    }
}

static gpointer
answer_thread (gpointer user_data)
{
  Begin *self = user_data;

  util_latch_wait (&self->begun);
  answer_kept_cb (self);
  return NULL;
}

/* Later, from the loop or from another thread */
static void
run_answers_later (PerformFunc perform, gboolean from_thread)
{
  g_autoptr (GError) error = NULL;
  GThread *thread = NULL;
  GAsyncResult *result;
  Begin self;

  begin_init (&self, util_loop_new ("later"), from_thread ? KEEP : KEEP | ANSWER_BY_POST);
  if (from_thread)
    thread = g_thread_new ("answer", answer_thread, &self);
  result = perform (&self, &error);
  g_assert_no_error (error);
  assert_value (result, 2);
  g_object_unref (result);
  if (thread != NULL)
    g_thread_join (thread);
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  end (&self);
}

static void
test_answers_later (gconstpointer data)
{
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    run_answers_later (performs[i], data != NULL);
}

/* The operation of a real library: its callback is the binding's business. */

static void
answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  BgOperation *operation = user_data;

  bg_operation_answer (operation, result);
  bg_operation_unref (operation);
}

static gboolean
read_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  g_file_read_async (user_data, G_PRIORITY_DEFAULT, cancellable, answer_cb,
                     bg_operation_ref (operation));
  return TRUE;
}

static void
test_real (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GFile) file = g_file_new_for_path ("/nonexistent/file");
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  result = bg_loop_perform_operation (fixture->loop, G_PRIORITY_DEFAULT, -1, read_cb, file, NULL,
                                      &error);
  g_assert_no_error (error);
  g_assert_null (g_file_read_finish (file, result, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
}

/* What is no answer */

static void
assert_fails (Begin *self, PerformFunc perform, GQuark domain, int code)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (perform (self, &error));
  g_assert_error (error, domain, code);
  if (self->how & FAIL)
    g_assert_cmpstr (error->message, ==, "the very words");
}

/* Nobody has it any more, and nobody has answered it. */
static void
test_unanswered (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Begin self;

      begin_init (&self, util_loop_new ("unanswered"), 0);
      assert_fails (&self, performs[i], BG_ERROR, BG_ERROR_UNANSWERED);
      end (&self);
    }
}

static gpointer
drop_thread (gpointer user_data)
{
  Begin *self = user_data;

  util_latch_wait (&self->begun);
  g_clear_pointer (&self->kept, bg_operation_unref);
  return NULL;
}

static void
test_unanswered_later (void)
{
  for (guint i = 0; i < 2 * G_N_ELEMENTS (performs); i++)
    {
      GThread *thread;
      Begin self;

      begin_init (&self, util_loop_new ("unanswered"), KEEP);
      thread = g_thread_new ("drop", drop_thread, &self);
      assert_fails (&self, performs[i / 2], BG_ERROR, BG_ERROR_UNANSWERED);
      g_thread_join (thread);
      end (&self);
    }
}

/* No result is no answer: that is a critical, and the operation goes unanswered. */
static void
test_without_result (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Begin self;

      begin_init (&self, util_loop_new ("nothing"), ANSWER_NOTHING);
      assert_fails (&self, performs[i], BG_ERROR, BG_ERROR_UNANSWERED);
      util_take_critical ("*");
      end (&self);
    }
}

/* The function fails: that is the answer, whatever becomes of the operation. */
static void
test_fails (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Begin self;

      begin_init (&self, util_loop_new ("fails"), FAIL);
      assert_fails (&self, performs[i], G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
      end (&self);

      begin_init (&self, util_loop_new ("fails"), FAIL | KEEP);
      assert_fails (&self, performs[i], G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
      util_wait_for_holds (self.loop, 0);
      util_loop_end (self.loop);
      begin_clear (&self);
    }
}

/* It answers, and then says that it has not begun: the first word counts, and the
 * second is a critical. */
static void
test_answers_and_fails (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      g_autoptr (GAsyncResult) result = NULL;
      g_autoptr (GError) error = NULL;
      Begin self;

      begin_init (&self, util_loop_new ("both"), ANSWER | FAIL);
      result = performs[i](&self, &error);
      util_take_critical ("*");
      g_assert_no_error (error);
      assert_value (result, 1);
      g_clear_object (&result);
      end (&self);
    }
}

/* The other way round. */
static void
test_fails_and_answers (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Begin self;

      begin_init (&self, util_loop_new ("both"), KEEP | FAIL);
      assert_fails (&self, performs[i], G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
      answer (self.kept, 3);
      util_take_critical ("*");
      end (&self);
    }
}

/* The first answer counts, and the second is a critical; so also if it comes when
 * the loop is gone. */
static void
test_twice (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      g_autoptr (GError) error = NULL;
      GAsyncResult *result;
      Begin self;

      begin_init (&self, util_loop_new ("twice"), ANSWER | KEEP);
      result = performs[i](&self, &error);
      g_assert_no_error (error);
      assert_value (result, 1);
      g_object_unref (result);
      answer (self.kept, 2);
      util_take_critical ("*more than once*");
      util_loop_end (self.loop);
      answer (self.kept, 3);
      util_take_critical ("*more than once*");
      begin_clear (&self);
      util_assert_no_answers ();
    }
}

/* It is counted, from many threads at once: the last reference alone is an answer. */

typedef struct
{
  BgOperation *operation;
  UtilLatch start;
} References;

static gpointer
reference_thread (gpointer user_data)
{
  References *self = user_data;
  BgOperation *operation = bg_operation_ref (self->operation);

  util_latch_wait (&self->start);
  bg_operation_unref (operation);
  return NULL;
}

static void
test_references (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      g_autoptr (GError) error = NULL;
      GThread *threads[4];
      References references;
      UtilReply reply;
      Begin self;

      begin_init (&self, util_loop_new ("references"), KEEP);
      util_reply_init (&reply);
      bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, NULL,
                                       NULL, util_reply_cb, &reply);
      util_latch_wait (&self.begun);
      util_wait_for_holds (self.loop, 1);
      references.operation = self.kept;
      util_latch_init (&references.start, 1);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        threads[j] = g_thread_new ("reference", reference_thread, &references);
      util_latch_count_down (&references.start);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        g_thread_join (threads[j]);
      util_wait_for_holds (self.loop, 1);
      g_assert_null (reply.result);
      g_clear_pointer (&self.kept, bg_operation_unref);
      util_reply_wait (&reply);
      g_assert_null (bg_loop_perform_finish (self.loop, reply.result, &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
      util_reply_clear (&reply);
      util_latch_clear (&references.start);
      end (&self);
    }
}

/* Given up, and kept all the while: it holds the loop until it is answered, or
 * dropped, and its answer is dropped. */

typedef enum
{
  TIMED_OUT,
  CANCELLED,
  CLOSED,
  N_GIVE_UPS,
} GiveUp;

typedef struct
{
  Begin begin;
  GiveUp give_up;
  GCancellable *cancellable;
  GError *error;
} GivingUp;

static gpointer
give_up_thread (gpointer user_data)
{
  GivingUp *self = user_data;
  int timeout_msec = self->give_up == TIMED_OUT ? 1 : -1;

  g_assert_null (bg_loop_perform_operation (self->begin.loop, G_PRIORITY_DEFAULT, timeout_msec,
                                            begin_cb, &self->begin, self->cancellable,
                                            &self->error));
  return NULL;
}

static void
giving_up_async (GivingUp *self)
{
  int timeout_msec = self->give_up == TIMED_OUT ? 1 : -1;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_perform_operation_async (self->begin.loop, G_PRIORITY_DEFAULT, timeout_msec, begin_cb,
                                   &self->begin, destroyed_cb, self->cancellable, util_reply_cb,
                                   &reply);
  if (self->give_up != TIMED_OUT)
    {
      util_latch_wait (&self->begin.destroyed);
      util_wait_for_holds (self->begin.loop, 1);
    }
  if (self->give_up == CANCELLED)
    g_cancellable_cancel (self->cancellable);
  else if (self->give_up == CLOSED)
    bg_loop_quit (self->begin.loop, BG_SHUTDOWN_CANCEL);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (self->begin.loop, reply.result, &self->error));
  util_reply_clear (&reply);
}

static void
giving_up_blocking (GivingUp *self)
{
  GThread *thread = g_thread_new ("gives up", give_up_thread, self);

  if (self->give_up != TIMED_OUT)
    {
      util_latch_wait (&self->begin.begun);
      util_wait_for_holds (self->begin.loop, 1);
    }
  if (self->give_up == CANCELLED)
    g_cancellable_cancel (self->cancellable);
  else if (self->give_up == CLOSED)
    bg_loop_quit (self->begin.loop, BG_SHUTDOWN_CANCEL);
  g_thread_join (thread);
}

static void
assert_gave_up (GivingUp *self)
{
  if (self->give_up == TIMED_OUT)
    g_assert_error (self->error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  else if (self->give_up == CANCELLED)
    g_assert_error (self->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  else
    g_assert_error (self->error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&self->error);
}

static void
run_given_up (GiveUp give_up, gboolean blocking, gboolean answers)
{
  GivingUp self = { .give_up = give_up, .cancellable = g_cancellable_new () };
  g_autofree char *text = NULL;

  begin_init (&self.begin, util_loop_new ("given up"), KEEP);
  if (blocking)
    giving_up_blocking (&self);
  else
    giving_up_async (&self);
  assert_gave_up (&self);

  /* It may have been too late to begin. */
  if (util_latch_is_open (&self.begin.begun))
    {
      g_assert_true (g_cancellable_is_cancelled (self.begin.cancellable));
      util_wait_for_holds (self.begin.loop, 1);
      text = bg_loop_describe (self.begin.loop);
      g_assert_nonnull (strstr (text, "operation"));
      g_assert_false (bg_loop_shutdown_full (self.begin.loop, BG_SHUTDOWN_CANCEL, 1, NULL, NULL));
      if (answers)
        answer (self.begin.kept, 4);
      g_clear_pointer (&self.begin.kept, bg_operation_unref);
    }
  end (&self.begin);
  g_assert_finalize_object (self.cancellable);
}

static void
test_given_up (gconstpointer data)
{
  for (guint i = 0; i < util_scale (20); i++)
    {
      run_given_up (GPOINTER_TO_INT (data), TRUE, TRUE);
      run_given_up (GPOINTER_TO_INT (data), TRUE, FALSE);
      run_given_up (GPOINTER_TO_INT (data), FALSE, TRUE);
      run_given_up (GPOINTER_TO_INT (data), FALSE, FALSE);
    }
}

/* Shutdown */

/* DRAIN waits for what may yet be answered, and goes on when it cannot be. */
static void
run_drained (gboolean answers)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  Begin self;

  begin_init (&self, util_loop_new ("drained"), KEEP);
  util_reply_init (&reply);
  bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, NULL, NULL,
                                   util_reply_cb, &reply);
  util_latch_wait (&self.begun);
  g_assert_false (bg_loop_shutdown_full (self.loop, BG_SHUTDOWN_DRAIN, 1, NULL, NULL));
  g_assert_false (g_cancellable_is_cancelled (self.cancellable));
  if (answers)
    answer (self.kept, 5);
  g_clear_pointer (&self.kept, bg_operation_unref);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  util_reply_wait (&reply);
  result = bg_loop_perform_finish (self.loop, reply.result, &error);
  if (answers)
    assert_value (result, 5);
  else
    g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
  util_reply_clear (&reply);
  g_clear_object (&result);
  end (&self);
}

static void
test_drained (void)
{
  run_drained (TRUE);
  run_drained (FALSE);
}

static void
assert_reply_closed (Begin *self, UtilReply *reply)
{
  g_autoptr (GError) error = NULL;

  util_reply_wait (reply);
  g_assert_false (util_latch_is_open (&self->begun));
  g_assert_null (bg_loop_perform_finish (self->loop, reply->result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_reply_clear (reply);
}

/* Dropped before it began */
static void
test_dropped (void)
{
  UtilBlock block;
  UtilReply reply;
  Begin self;

  begin_init (&self, util_loop_new ("dropped"), KEEP);
  util_block (&block, self.loop);
  util_reply_init (&reply);
  bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, destroyed_cb,
                                   NULL, util_reply_cb, &reply);
  bg_loop_quit (self.loop, BG_SHUTDOWN_CANCEL);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_true (util_latch_is_open (&self.destroyed));
  g_assert_true (self.destroyed_on_loop);
  assert_reply_closed (&self, &reply);
  util_block_clear (&block);
  end (&self);
}

static void
test_refused (void)
{
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  Begin self;

  begin_init (&self, util_loop_new ("refused"), ANSWER);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_null (perform_blocking (&self, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);

  util_reply_init (&reply);
  bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, destroyed_cb,
                                   NULL, util_reply_cb, &reply);
  g_assert_true (util_latch_is_open (&self.destroyed));
  g_assert_false (self.destroyed_on_loop);
  g_assert_null (reply.result);
  assert_reply_closed (&self, &reply);
  end (&self);
}

static void
own_thread_cb (gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (perform_blocking (user_data, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

static void
test_own_thread (void)
{
  Begin self;

  begin_init (&self, util_loop_new ("own"), ANSWER);
  g_assert_true (bg_loop_post (self.loop, own_thread_cb, &self, NULL));
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  g_assert_false (util_latch_is_open (&self.begun));
  end (&self);
}

/* Its cancellable follows the caller's. */
static void
test_cancellable (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  GivingUp self = { .give_up = CANCELLED, .cancellable = cancellable };

  begin_init (&self.begin, util_loop_new ("cancellable"), KEEP);
  g_cancellable_cancel (cancellable);
  g_assert_null (bg_loop_perform_operation (self.begin.loop, G_PRIORITY_DEFAULT, -1, begin_cb,
                                            &self.begin, cancellable, &self.error));
  assert_gave_up (&self);
  g_assert_true (bg_loop_flush (self.begin.loop, -1, NULL, NULL));
  g_assert_false (util_latch_is_open (&self.begin.begun));
  end (&self.begin);
}

/* Without a callback, and with the data destroyed all the same */
static void
test_no_callback (void)
{
  Begin self;

  begin_init (&self, util_loop_new ("no callback"), KEEP);
  bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, destroyed_cb,
                                   NULL, NULL, NULL);
  util_latch_wait (&self.destroyed);
  g_assert_true (self.destroyed_on_loop);
  answer (self.kept, 6);
  g_clear_pointer (&self.kept, bg_operation_unref);
  end (&self);
}

/* It is a boxed type, and its copies are references. */
static void
test_boxed (void)
{
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  Begin self;

  g_assert_true (G_TYPE_IS_BOXED (BG_TYPE_OPERATION));
  g_assert_cmpstr (g_type_name (BG_TYPE_OPERATION), ==, "BgOperation");

  begin_init (&self, util_loop_new ("boxed"), KEEP);
  util_reply_init (&reply);
  bg_loop_perform_operation_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, NULL, NULL,
                                   util_reply_cb, &reply);
  util_latch_wait (&self.begun);
  g_value_init (&value, BG_TYPE_OPERATION);
  g_value_set_boxed (&value, self.kept);
  g_assert_true (g_value_get_boxed (&value) == self.kept);
  g_clear_pointer (&self.kept, bg_operation_unref);
  util_wait_for_holds (self.loop, 1);
  g_assert_null (reply.result);
  g_value_unset (&value);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (self.loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
  util_reply_clear (&reply);
  end (&self);
}

/* Queued like everything, at its priority */

typedef struct
{
  GString *order;
  char name;
} Ordered;

static gboolean
ordered_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Ordered *self = user_data;

  g_string_append_c (self->order, self->name);
  answer (operation, 7);
  return TRUE;
}

static void
test_priority (BgTestFixture *fixture, gconstpointer data)
{
  static const int priorities[] = { G_PRIORITY_LOW, G_PRIORITY_HIGH, G_PRIORITY_DEFAULT };
  BgLoop *loop = fixture->loop;
  GString *order = g_string_new (NULL);
  Ordered ordered[G_N_ELEMENTS (priorities)];
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      ordered[i] = (Ordered){ order, (char) ('a' + i) };
      bg_loop_perform_operation_async (loop, priorities[i], -1, ordered_cb, &ordered[i], NULL, NULL,
                                       NULL, NULL);
    }
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpstr (order->str, ==, "bca");
  util_block_clear (&block);
  util_loop_shut_down (loop);
  g_string_free (order, TRUE);
  util_assert_no_answers ();
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/operation/answers/at-once", test_answers);
  g_test_add_data_func ("/operation/answers/from-the-loop", NULL, test_answers_later);
  g_test_add_data_func ("/operation/answers/from-another-thread", &answer_thread,
                        test_answers_later);
  util_add ("/operation/answers/real-operation", test_real);
  g_test_add_func ("/operation/unanswered/at-once", test_unanswered);
  g_test_add_func ("/operation/unanswered/later", test_unanswered_later);
  util_add_trapped ("/operation/unanswered/without-result", test_without_result);
  g_test_add_func ("/operation/unanswered/last-reference-counts", test_references);
  g_test_add_func ("/operation/fails/error-unchanged", test_fails);
  util_add_trapped ("/operation/fails/and-answers", test_fails_and_answers);
  util_add_trapped ("/operation/fails/though-it-has-answered", test_answers_and_fails);
  util_add_trapped ("/operation/answers/twice", test_twice);
  g_test_add_data_func ("/operation/given-up/timed-out", GINT_TO_POINTER (TIMED_OUT),
                        test_given_up);
  g_test_add_data_func ("/operation/given-up/cancelled", GINT_TO_POINTER (CANCELLED),
                        test_given_up);
  g_test_add_data_func ("/operation/given-up/closed", GINT_TO_POINTER (CLOSED), test_given_up);
  g_test_add_func ("/operation/cancelled-before-it-begins", test_cancellable);
  g_test_add_func ("/operation/shutdown/drain-waits-for-it", test_drained);
  g_test_add_func ("/operation/shutdown/cancel-drops-it", test_dropped);
  g_test_add_func ("/operation/refused", test_refused);
  g_test_add_func ("/operation/own-thread/would-deadlock", test_own_thread);
  g_test_add_func ("/operation/no-callback", test_no_callback);
  util_add ("/operation/priority", test_priority);
  g_test_add_func ("/operation/boxed", test_boxed);

  return g_test_run ();
}
