/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* How the answer of an operation gets to whoever waits for it, and what takes its place
 * when that is given up. Each in both forms that there are of operations, for those who
 * block and those who do not. */

typedef enum
{
  PERFORM,
  OPERATION,
  PERFORM_ASYNC,
  OPERATION_ASYNC,
  N_KINDS,
} Kind;

typedef gboolean (*BeginFunc) (gpointer self,
                               GCancellable *cancellable,
                               GAsyncReadyCallback callback,
                               gpointer callback_data,
                               GError **error);

/* Whoever waits: a thread, or this one for what is asynchronous. The struct of what it
 * begins comes after it. */
typedef struct
{
  Kind kind;
  BgLoop *loop;
  BeginFunc begin;
  int timeout_msec;
  GCancellable *cancellable; /* (nullable) */
  guint n_begun;
  UtilLatch begun;
  UtilLatch destroyed;
  UtilReply reply;
  GThread *thread; /* (nullable) */
  GAsyncResult *result;
  GError *error;
} Waiter;

static void
operation_answered_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_operation_answer (user_data, result);
  bg_operation_unref (user_data);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Waiter *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_main_context_get_thread_default () == bg_loop_get_context (self->loop));
  self->n_begun++;
  util_latch_count_down (&self->begun);
  return self->begin (self, cancellable, callback, callback_data, error);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  bg_operation_ref (operation);
  if (begin_cb (user_data, cancellable, operation_answered_cb, operation, error))
    return TRUE;

  bg_operation_unref (operation);
  return FALSE;
}

static void
waiter_init (Waiter *self, Kind kind, BgLoop *loop, BeginFunc begin)
{
  *self = (Waiter){ .kind = kind, .loop = loop, .begin = begin, .timeout_msec = -1 };
  util_latch_init (&self->begun, 1);
  util_latch_init (&self->destroyed, 1);
  util_reply_init (&self->reply);
}

static void
waiter_clear (Waiter *self)
{
  g_clear_object (&self->cancellable);
  g_clear_object (&self->result);
  g_clear_error (&self->error);
  util_latch_clear (&self->begun);
  util_latch_clear (&self->destroyed);
  util_reply_clear (&self->reply);
}

static gboolean
is_async (Waiter *self)
{
  return self->kind == PERFORM_ASYNC || self->kind == OPERATION_ASYNC;
}

static void
destroyed_cb (gpointer user_data)
{
  Waiter *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  util_latch_count_down (&self->destroyed);
}

/* Blocks, or starts what does not. */
static void
wait_for (Waiter *self)
{
  if (self->kind == PERFORM)
    self->result = bg_loop_perform (self->loop, 0, self->timeout_msec, begin_cb, self,
                                    self->cancellable, &self->error);
  else if (self->kind == OPERATION)
    self->result = bg_loop_perform_operation (self->loop, 0, self->timeout_msec, operation_cb, self,
                                              self->cancellable, &self->error);
  else if (self->kind == PERFORM_ASYNC)
    bg_loop_perform_async (self->loop, 0, self->timeout_msec, begin_cb, self, destroyed_cb,
                           self->cancellable, util_reply_cb, &self->reply);
  else
    bg_loop_perform_operation_async (self->loop, 0, self->timeout_msec, operation_cb, self,
                                     destroyed_cb, self->cancellable, util_reply_cb, &self->reply);
}

static gpointer
wait_thread (gpointer data)
{
  wait_for (data);
  return NULL;
}

/* Without blocking here */
static void
start (Waiter *self)
{
  if (is_async (self))
    wait_for (self);
  else
    self->thread = g_thread_new ("waiter", wait_thread, self);
}

static void
finish (Waiter *self)
{
  if (self->thread != NULL)
    g_thread_join (g_steal_pointer (&self->thread));
  if (!is_async (self))
    return;

  util_reply_wait (&self->reply);
  g_assert_true (util_latch_is_open (&self->destroyed));
  self->result = bg_loop_perform_finish (self->loop, self->reply.result, &self->error);
}

/* A task has completed, and nobody else has it any more, when its result is handed over:
 * g_task_return_boolean() and the like still write to it after the callback. */

static void
return_cb (gpointer user_data)
{
  g_task_return_boolean (user_data, TRUE);
  g_object_unref (user_data);
}

static gboolean
return_from_source_cb (gpointer user_data)
{
  return_cb (user_data);
  return G_SOURCE_REMOVE;
}

static gboolean
begin_returned (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  return_cb (g_task_new (NULL, cancellable, callback, callback_data));
  return TRUE;
}

static gboolean
begin_posted (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  Waiter *self = user_data;
  GTask *task = g_task_new (NULL, cancellable, callback, callback_data);

  return bg_loop_post (self->loop, return_cb, task, NULL);
}

/* In a later iteration than that of the task's making, which the task completes in at
 * once. */
static gboolean
begin_source (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  Waiter *self = user_data;
  g_autoptr (GSource) source = g_timeout_source_new (0);

  g_source_set_callback (source, return_from_source_cb,
                         g_task_new (NULL, cancellable, callback, callback_data), NULL);
  return bg_loop_attach (self->loop, source);
}

/* Within the callback of another one */
static void
inner_done_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  return_cb (user_data);
}

static gboolean
begin_chained (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  GTask *task = g_task_new (NULL, cancellable, callback, callback_data);

  return_cb (g_task_new (NULL, cancellable, inner_done_cb, task));
  return TRUE;
}

static gboolean
begin_in_thread (gpointer user_data,
                 GCancellable *cancellable,
                 GAsyncReadyCallback callback,
                 gpointer callback_data,
                 GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, callback, callback_data);

  g_task_run_in_thread (task, util_return_true_cb);
  return TRUE;
}

static const BeginFunc begins[]
    = { begin_returned, begin_posted, begin_source, begin_chained, begin_in_thread };

static void
assert_completed (Waiter *self)
{
  g_assert_no_error (self->error);
  g_assert_true (G_IS_TASK (self->result));
  g_assert_true (g_task_get_completed (G_TASK (self->result)));
  if (self->begin != begin_in_thread)
    g_assert_finalize_object (g_steal_pointer (&self->result));
}

static void
run_completed (BgLoop *loop, Kind kind, BeginFunc begin)
{
  Waiter self;

  waiter_init (&self, kind, loop, begin);
  wait_for (&self);
  finish (&self);
  assert_completed (&self);
  waiter_clear (&self);
}

static void
test_completed (BgTestFixture *fixture, gconstpointer data)
{
  static const guint lingers[] = { 0, 50, 1000 };
  BgLoop *loop = fixture->loop;

  for (guint i = 0; i < util_scale (200); i++)
    {
      g_object_set (loop, "linger", lingers[i % G_N_ELEMENTS (lingers)], NULL);
      for (guint j = 0; j < N_KINDS * G_N_ELEMENTS (begins); j++)
        run_completed (loop, j % N_KINDS, begins[j / N_KINDS]);
    }
}

/* Also while the loop drains */
static void
test_completed_drained (void)
{
  for (guint i = 0; i < N_KINDS * G_N_ELEMENTS (begins) * 10; i++)
    {
      BgLoop *loop = util_loop_new ("drained");
      UtilBlock block;
      Waiter self;

      waiter_init (&self, i % N_KINDS, loop, begins[i / N_KINDS % G_N_ELEMENTS (begins)]);
      util_block (&block, loop);
      start (&self);
      util_wait_for_queued (loop, 1);
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      finish (&self);
      assert_completed (&self);
      waiter_clear (&self);
      util_loop_end (loop);
      util_block_clear (&block);
    }
}

/* What is cancelled before it begins never begins, though the cancellable is reset. */
static void
test_reset (void)
{
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      BgLoop *loop = util_loop_new ("reset");
      UtilBlock block;
      Waiter self;

      waiter_init (&self, kind, loop, begin_returned);
      self.cancellable = g_cancellable_new ();
      util_block (&block, loop);
      start (&self);
      util_wait_for_queued (loop, 1);
      g_cancellable_cancel (self.cancellable);
      g_cancellable_reset (self.cancellable);
      if (!is_async (&self))
        finish (&self);
      util_unblock (&block);
      if (is_async (&self))
        finish (&self);
      g_assert_null (self.result);
      g_assert_error (self.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
      g_assert_cmpuint (self.n_begun, ==, 0);
      waiter_clear (&self);
      util_loop_end (loop);
      util_block_clear (&block);
    }
}

/* A wait that is given up while the operation begins says why, whatever an operation
 * that was cancelled for that says of itself. */

typedef enum
{
  TIMED_OUT,
  CANCELLED,
  CLOSED,
  N_REASONS,
} Reason;

typedef enum
{
  ANSWERS,
  ANSWERS_LATER,
  FAILS,
  N_ENDS,
} End;

typedef struct
{
  Waiter waiter;
  Reason reason;
  End end;
} GivenUp;

static void
return_cancelled_cb (gpointer user_data)
{
  GTask *task = user_data;

  g_assert_true (g_task_return_error_if_cancelled (task));
  g_object_unref (task);
}

static gboolean
begin_given_up (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  GivenUp *self = user_data;
  GTask *task;

  while (!g_cancellable_is_cancelled (cancellable))
    g_thread_yield ();
  if (self->end == FAILS)
    return !g_cancellable_set_error_if_cancelled (cancellable, error);

  if (self->end == ANSWERS)
    {
      task = g_task_new (NULL, cancellable, NULL, NULL);
      callback (NULL, G_ASYNC_RESULT (task), callback_data);
      g_object_unref (task);
    }
  else
    {
      task = g_task_new (NULL, cancellable, callback, callback_data);
      return_cancelled_cb (task);
    }
  return TRUE;
}

static void
assert_says_why (GivenUp *self)
{
  g_assert_null (self->waiter.result);
  if (self->reason == CLOSED)
    g_assert_error (self->waiter.error, BG_ERROR, BG_ERROR_CLOSED);
  else if (self->reason == TIMED_OUT)
    g_assert_error (self->waiter.error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  else
    g_assert_error (self->waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

/* FALSE if it timed out before it began. */
static gboolean
run_given_up (Kind kind, Reason reason, End end, int timeout_msec)
{
  GivenUp self = { .reason = reason, .end = end };
  BgLoop *loop = util_loop_new ("given up");
  gboolean begun;

  waiter_init (&self.waiter, kind, loop, begin_given_up);
  self.waiter.cancellable = g_cancellable_new ();
  if (reason == TIMED_OUT)
    self.waiter.timeout_msec = timeout_msec;
  start (&self.waiter);
  if (reason != TIMED_OUT)
    util_latch_wait (&self.waiter.begun);
  if (reason == CANCELLED)
    g_cancellable_cancel (self.waiter.cancellable);
  else if (reason == CLOSED)
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  finish (&self.waiter);
  assert_says_why (&self);
  begun = util_latch_is_open (&self.waiter.begun);
  util_wait_for_holds (loop, 0);
  waiter_clear (&self.waiter);
  util_loop_end (loop);
  return begun;
}

static void
test_given_up (void)
{
  for (guint i = 0; i < N_KINDS * N_REASONS * N_ENDS; i++)
    {
      int timeout_msec = 1;

      while (!run_given_up (i % N_KINDS, i / N_KINDS % N_REASONS, i / N_KINDS / N_REASONS,
                            timeout_msec))
        timeout_msec *= 2;
    }
}

/* An operation begins in the loop's context as thread-default, whatever the work that
 * runs around it has pushed, and what that has pushed is there again afterwards. */

typedef struct
{
  Waiter *waiter;
  UtilLatch pushed;
} Pushed;

static void
push_and_iterate_cb (gpointer user_data)
{
  Pushed *self = user_data;
  Waiter *waiter = self->waiter;
  GMainContext *contexts[] = { g_main_context_new (), g_main_context_new () };

  for (guint i = 0; i < 2; i++)
    g_main_context_push_thread_default (contexts[i]);
  util_latch_count_down (&self->pushed);
  while (!util_latch_is_open (&waiter->begun))
    g_main_context_iteration (bg_loop_get_context (waiter->loop), TRUE);
  for (guint i = 2; i > 0; i--)
    {
      g_assert_true (g_main_context_get_thread_default () == contexts[i - 1]);
      g_main_context_pop_thread_default (contexts[i - 1]);
      g_main_context_unref (contexts[i - 1]);
    }
}

static void
run_pushed (Kind kind, gboolean drains)
{
  BgLoop *loop = util_loop_new ("pushed");
  Waiter waiter;
  Pushed self = { &waiter };
  UtilBlock block;

  waiter_init (&waiter, kind, loop, begin_returned);
  util_latch_init (&self.pushed, 1);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, push_and_iterate_cb, &self, NULL));
  start (&waiter);
  util_wait_for_queued (loop, 2);
  if (drains)
    bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  finish (&waiter);
  assert_completed (&waiter);
  waiter_clear (&waiter);
  util_loop_end (loop);
  util_block_clear (&block);
  util_latch_clear (&self.pushed);
}

static void
test_pushed (void)
{
  for (guint i = 0; i < N_KINDS * 2; i++)
    run_pushed (i % N_KINDS, i / N_KINDS);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped_with_loop ("/answer/task-has-completed", test_completed);
  util_add_trapped ("/answer/task-has-completed/drained", test_completed_drained);
  util_add_trapped ("/answer/cancelled-and-reset-before-it-begins", test_reset);
  util_add_trapped ("/answer/given-up-says-why", test_given_up);
  util_add_trapped ("/answer/begins-in-the-loops-context", test_pushed);

  return g_test_run ();
}
