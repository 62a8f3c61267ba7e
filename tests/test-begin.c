/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* An operation that does or does not begin */

typedef struct
{
  BgLoop *loop;
  gboolean fails;
  guint n_at_once; /* answers from within begin() */
  GAsyncReadyCallback callback;
  gpointer callback_data;
  UtilLatch begun;
  UtilLatch destroyed;
  gboolean destroyed_on_loop;
} Operation;

static void
answer (Operation *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  self->callback (NULL, G_ASYNC_RESULT (task), self->callback_data);
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
  self->callback = callback;
  self->callback_data = callback_data;
  for (guint i = 0; i < self->n_at_once; i++)
    answer (self);
  util_latch_count_down (&self->begun);
  if (!self->fails)
    return TRUE;

  g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "the very words");
  return FALSE;
}

static void
operation_init (Operation *self, const char *name)
{
  *self = (Operation){ .loop = util_loop_new (name), .fails = TRUE };
  util_latch_init (&self->begun, 1);
  util_latch_init (&self->destroyed, 1);
}

/* What did not begin does not hold the loop. */
static void
operation_end (Operation *self)
{
  util_wait_for_holds (self->loop, 0);
  util_loop_end (self->loop);
  util_latch_clear (&self->begun);
  util_latch_clear (&self->destroyed);
}

static void
destroyed_cb (gpointer user_data)
{
  Operation *self = user_data;

  self->destroyed_on_loop = bg_loop_is_current (self->loop);
  util_latch_count_down (&self->destroyed);
}

static GAsyncResult *
perform_blocking (Operation *self, GError **error)
{
  return bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, begin_cb, self, NULL, error);
}

static GAsyncResult *
perform_async (Operation *self, GError **error)
{
  GAsyncResult *result;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, begin_cb, self, destroyed_cb, NULL,
                         util_reply_cb, &reply);
  g_assert_null (reply.result);
  util_reply_wait (&reply);
  g_assert_true (util_latch_is_open (&self->destroyed));
  g_assert_true (self->destroyed_on_loop);
  result = bg_loop_perform_finish (self->loop, reply.result, error);
  util_reply_clear (&reply);
  return result;
}

typedef GAsyncResult *(*PerformFunc) (Operation *self, GError **error);

static const PerformFunc performs[] = { perform_blocking, perform_async };

static void
assert_fails (Operation *self, PerformFunc perform)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (perform (self, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
  g_assert_cmpstr (error->message, ==, "the very words");
}

/* That it failed is the answer. */
static void
test_fails (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Operation self;

      operation_init (&self, "fails");
      assert_fails (&self, performs[i]);
      operation_end (&self);
    }
}

static void
test_fails_without_callback (void)
{
  Operation self;

  operation_init (&self, "nobody");
  bg_loop_perform_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, destroyed_cb, NULL,
                         NULL, NULL);
  util_latch_wait (&self.destroyed);
  g_assert_true (self.destroyed_on_loop);
  operation_end (&self);
}

/* It holds nothing up, in either mode, and its error is not lost to a drain. */
static void
test_fails_at_shutdown (void)
{
  UtilBlock block;
  UtilReply reply;
  Operation self;
  g_autoptr (GError) error = NULL;

  operation_init (&self, "shutdown");
  util_block (&block, self.loop);
  util_reply_init (&reply);
  bg_loop_perform_async (self.loop, G_PRIORITY_DEFAULT, -1, begin_cb, &self, destroyed_cb, NULL,
                         util_reply_cb, &reply);
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (self.loop, reply.result, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
  util_reply_clear (&reply);
  util_block_clear (&block);
  operation_end (&self);
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
      Operation self;

      operation_init (&self, "both");
      self.n_at_once = 1;
      result = performs[i](&self, &error);
      util_take_critical ("*");
      g_assert_no_error (error);
      g_assert_true (G_IS_TASK (result));
      operation_end (&self);
    }
}

static void
answer_late_cb (gpointer user_data)
{
  Operation *self = user_data;

  util_latch_wait (&self->begun);
  answer (self);
}

/* An answer to what did not begin is a critical, and nothing else. */
static void
test_fails_and_answers (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (performs); i++)
    {
      Operation self;

      operation_init (&self, "both");
      assert_fails (&self, performs[i]);
      g_assert_true (bg_loop_post (self.loop, answer_late_cb, &self, NULL));
      g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
      util_take_critical ("*");
      operation_end (&self);
    }
}

/* Whatever the code around it has pushed, the operation completes on the loop. */

typedef struct
{
  Operation operation;
  UtilLatch pushed;
} Nested;

static gboolean
nested_cb (gpointer user_data)
{
  Nested *self = user_data;
  g_autoptr (GMainContext) context = g_main_context_new ();

  g_main_context_push_thread_default (context);
  util_latch_count_down (&self->pushed);
  while (!util_latch_is_open (&self->operation.begun))
    g_main_context_iteration (bg_loop_get_context (self->operation.loop), TRUE);
  g_assert_true (g_main_context_get_thread_default () == context);
  g_main_context_pop_thread_default (context);
  return G_SOURCE_REMOVE;
}

static void
test_thread_default (void)
{
  Nested self;
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  operation_init (&self.operation, "nested");
  self.operation.fails = FALSE;
  self.operation.n_at_once = 1;
  util_latch_init (&self.pushed, 1);
  g_source_set_callback (source, nested_cb, &self, NULL);
  g_assert_true (bg_loop_attach (self.operation.loop, source));
  util_latch_wait (&self.pushed);
  result = perform_blocking (&self.operation, &error);
  g_assert_no_error (error);
  g_assert_nonnull (result);
  g_assert_true (bg_loop_flush (self.operation.loop, -1, NULL, NULL));
  operation_end (&self.operation);
  util_latch_clear (&self.pushed);
}

/* The loop cancels while an operation begins, which does not heed that: its caller is told. */

static gboolean
begin_and_cancel_cb (gpointer user_data,
                     GCancellable *cancellable,
                     GAsyncReadyCallback callback,
                     gpointer callback_data,
                     GError **error)
{
  Operation *self = user_data;

  self->callback = callback;
  self->callback_data = callback_data;
  bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  return TRUE;
}

static void
test_cancelled_by_itself (void)
{
  g_autoptr (GError) error = NULL;
  Operation self;

  operation_init (&self, "cancels itself");
  g_assert_null (bg_loop_perform (self.loop, G_PRIORITY_DEFAULT, -1, begin_and_cancel_cb, &self,
                                  NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
  answer (&self);
  operation_end (&self);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/begin/fails/error-unchanged", test_fails);
  g_test_add_func ("/begin/fails/no-callback", test_fails_without_callback);
  g_test_add_func ("/begin/fails/while-the-loop-drains", test_fails_at_shutdown);
  util_add_trapped ("/begin/fails/and-answers", test_fails_and_answers);
  util_add_trapped ("/begin/fails/though-it-has-answered", test_answers_and_fails);
  util_add_trapped ("/begin/thread-default-is-the-loops", test_thread_default);
  util_add_trapped ("/begin/cancels-the-loop", test_cancelled_by_itself);

  return g_test_run ();
}
