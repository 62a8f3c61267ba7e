/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-ops-wait.h"

/* What has an answer: calls, operations, flushes and the end of a loop, waited for or
 * told later. */

/* The errors that a function of the model fails with */
#define MODEL_ERROR (g_quark_from_static_string ("model"))

static GCancellable *
get_cancellable (Model *model, const ModelOp *op)
{
  return model->cancellables[op->cancellable];
}

/* Whether work that was not run may say so: each error has its reason. */
static void
check_error (const ModelPiece *piece, const GError *error)
{
  const ModelOp *op = piece->op;
  ModelLoop *loop = &piece->model->loops[piece->loop];

  model_check (error != NULL, "operation %u: failed without an error", op->id);
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    model_check (op->cancellable != 0 && g_cancellable_is_cancelled (get_cancellable (piece->model, op)),
                 "operation %u: CANCELLED, and nobody has: %s", op->id, error->message);
  else if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    model_check (op->timeout >= 0, "operation %u: TIMED_OUT without a limit", op->id);
  else if (g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    model_check (g_atomic_int_get (&loop->ends) != 0 || model_is_closed_from (piece), "operation %u: CLOSED, and nobody asked: %s",
                 op->id, error->message);
  else
    model_check (g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK),
                 "operation %u: %s", op->id, error->message);
}

/* Calls */

static gboolean
called_cb (gpointer data, GError **error)
{
  ModelPiece *piece = data;

  model_piece_begin (piece);
  if (piece->op->variant % 4 != 0)
    return TRUE;

  g_set_error (error, MODEL_ERROR, (int) piece->op->id, "The function fails");
  return FALSE;
}

static void
check_called (ModelPiece *piece, gboolean ok, const GError *error)
{
  gboolean fails = piece->op->variant % 4 == 0;

  model_check (ok == (error == NULL), "operation %u: an error and success, or neither",
               piece->op->id);
  if (ok || error->domain == MODEL_ERROR)
    {
      model_check (g_atomic_int_get (&piece->ran) == 1 && ok == !fails
                       && (ok || error->code == (int) piece->op->id),
                   "operation %u: has an answer that is not its function's", piece->op->id);
      return;
    }

  model_check (g_atomic_int_get (&piece->ran) == 0 || model_is_closed_from (piece),
               "operation %u: ran, and failed: %s", piece->op->id, error->message);
  check_error (piece, error);
}

void
model_run_call (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  gboolean inline_here = bg_loop_is_current (loop), ok;
  g_autoptr (GError) error = NULL;
  guint wait;

  g_atomic_int_set (&piece->excused, 1);
  wait = model_wait_begin (op->loop);
  if (inline_here || op->timeout == -1)
    ok = bg_loop_call (loop, called_cb, piece, get_cancellable (model, op), &error);
  else
    ok = bg_loop_call_full (loop, model_get_priority (op->priority), op->timeout, called_cb, piece,
                            get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "a call");
  check_called (piece, ok, error);
}

static void
called_async_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ok = bg_loop_call_finish (BG_LOOP (source), result, &error);

  check_called (piece, ok, error);
  model_piece_note_reply (piece);
}

/* Whether it is accepted it says by its answer alone. */
void
model_run_call_async (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, TRUE);

  g_atomic_int_set (&piece->excused, 1);
  if (op->timeout == -1)
    model_piece_set_ordered (piece);
  bg_loop_call_async (loop, model_get_priority (op->priority), op->timeout, called_cb, piece,
                      model_piece_destroy_cb, get_cancellable (model, op), called_async_cb, piece);
}

static void
task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  model_piece_begin (data);
  g_task_return_boolean (task, TRUE);
}

static void
task_done_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ok = g_task_propagate_boolean (G_TASK (result), &error);

  if (!ok)
    check_error (piece, error);
  model_piece_note_reply (piece);
}

/* Not on a loop: a task of GLib's that returns when the context of its loop has gone refers
 * to that for ever, which nobody can mend. */
void
model_run_task (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece;
  g_autoptr (GTask) task = NULL;

  if (bg_loop_is_current (loop) || model_get_own_loop () < MODEL_LOOPS)
    return;

  piece = model_piece_new (model, op, FALSE, TRUE);
  task = g_task_new (NULL, get_cancellable (model, op), task_done_cb, piece);
  g_atomic_int_set (&piece->excused, 1);
  piece->is_task = TRUE;
  g_task_set_task_data (task, piece, NULL);
  bg_loop_run_task (loop, model_get_priority (op->priority), task, task_cb);
}

void
model_run_flush (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  g_autoptr (GPtrArray) before = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;
  guint wait;
  gboolean ok;

  /* All that has been accepted by now, at every priority, is to have its outcome. */
  g_mutex_lock (&model->lock);
  for (guint i = 0; i < model->pieces->len; i++)
    {
      ModelPiece *other = g_ptr_array_index (model->pieces, i);

      if (other->loop == op->loop && other->seq != 0 && other->has_destroy
          && g_atomic_int_get (&other->accepted) == 1)
        g_ptr_array_add (before, other);
    }
  g_mutex_unlock (&model->lock);

  g_atomic_int_set (&piece->excused, 1);
  wait = model_wait_begin (op->loop);
  ok = bg_loop_flush (loop, op->timeout, get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "a flush");
  if (!ok)
    check_error (piece, error);
  for (guint i = 0; ok && i < before->len; i++)
    {
      ModelPiece *other = g_ptr_array_index (before, i);

      model_check (g_atomic_int_get (&other->destroyed) == 1,
                   "operation %u: flushed, and operation %u has no outcome", op->id, other->op->id);
    }
}

/* Operations */

typedef enum
{
  AT_ONCE,
  LATER,
  FAILS,
  WITH_A_FILE,
  BY_SOMEBODY,
  UNANSWERED,
  N_WAYS,
} Way;

/* One that nobody answers by itself ends when the scenario does, or when it is cancelled. */
static Way
get_way (const ModelPiece *piece)
{
  Way way = piece->op->variant % N_WAYS;

  return piece->model->scenario->gentle && way == BY_SOMEBODY ? LATER : way;
}

static gboolean
answer_later_cb (gpointer data)
{
  g_task_return_boolean (data, TRUE);
  return G_SOURCE_REMOVE;
}

static void
keep_for_somebody (Model *model, GTask *task)
{
  g_mutex_lock (&model->lock);
  g_ptr_array_add (model->tasks, g_object_ref (task));
  g_mutex_unlock (&model->lock);
}

void
model_answer_tasks (Model *self)
{
  g_autoptr (GPtrArray) tasks = g_ptr_array_new_with_free_func (g_object_unref);

  g_mutex_lock (&self->lock);
  g_ptr_array_extend_and_steal (tasks, self->tasks);
  self->tasks = g_ptr_array_new_with_free_func (g_object_unref);
  g_mutex_unlock (&self->lock);

  for (guint i = 0; i < tasks->len; i++)
    g_task_return_boolean (g_ptr_array_index (tasks, i), TRUE);
}

static void
loaded_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GTask) task = data;
  g_autoptr (GError) error = NULL;
  char *contents = NULL;

  if (g_file_load_contents_finish (G_FILE (source), result, &contents, NULL, NULL, &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, g_steal_pointer (&error));
  g_free (contents);
}

static gboolean
fail (ModelPiece *piece, GError **error)
{
  g_set_error (error, MODEL_ERROR, (int) piece->op->id, "The operation fails to begin");
  return FALSE;
}

static void
begin (ModelPiece *piece, GTask *task, GCancellable *cancellable)
{
  g_autoptr (GFile) file = NULL;
  g_autoptr (GSource) source = NULL;

  model_check (g_main_context_get_thread_default () != NULL
                   && g_main_context_is_owner (g_main_context_get_thread_default ()),
               "operation %u: begins without the loop's context", piece->op->id);
  switch (get_way (piece))
    {
    case AT_ONCE:
      g_task_return_boolean (task, TRUE);
      break;
    case WITH_A_FILE:
      file = g_file_new_for_path ("/proc/self/comm");
      g_file_load_contents_async (file, cancellable, loaded_cb, g_object_ref (task));
      break;
    case BY_SOMEBODY:
      keep_for_somebody (piece->model, task);
      break;
    default:
      source = g_timeout_source_new (piece->op->delay);
      g_source_set_callback (source, answer_later_cb, g_object_ref (task), g_object_unref);
      g_source_attach (source, g_main_context_get_thread_default ());
    }
}

static gboolean
begin_cb (gpointer data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  ModelPiece *piece = data;
  g_autoptr (GTask) task = NULL;

  model_piece_begin (piece);
  if (get_way (piece) == FAILS)
    return fail (piece, error);

  task = g_task_new (NULL, NULL, callback, callback_data);
  begin (piece, task, cancellable);
  return TRUE;
}

static void
answered_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (BgOperation) operation = data;

  bg_operation_answer (operation, result);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer data, GError **error)
{
  ModelPiece *piece = data;
  g_autoptr (GTask) task = NULL;

  model_piece_begin (piece);
  if (get_way (piece) == UNANSWERED)
    return TRUE;
  if (get_way (piece) == FAILS)
    return fail (piece, error);

  task = g_task_new (NULL, NULL, answered_cb, bg_operation_ref (operation));
  begin (piece, task, cancellable);
  return TRUE;
}

static void
check_performed (ModelPiece *piece, GAsyncResult *result, const GError *error, gboolean is_operation)
{
  Way way = get_way (piece);

  model_check ((result != NULL) == (error == NULL), "operation %u: an error and a result, or neither",
               piece->op->id);
  if (result != NULL)
    {
      model_check (g_atomic_int_get (&piece->ran) == 1 && way != FAILS
                       && (way != UNANSWERED || !is_operation) && G_IS_TASK (result)
                       && g_task_get_completed (G_TASK (result)),
                   "operation %u: has a result that nobody gave", piece->op->id);
      /* Or it complains. */
      (void) g_task_had_error (G_TASK (result));
      g_task_propagate_boolean (G_TASK (result), NULL);
    }
  else if (error->domain == MODEL_ERROR)
    model_check (g_atomic_int_get (&piece->ran) == 1 && way == FAILS
                     && error->code == (int) piece->op->id,
                 "operation %u: fails as another does", piece->op->id);
  else if (g_error_matches (error, BG_ERROR, BG_ERROR_UNANSWERED))
    model_check (way == UNANSWERED && is_operation, "operation %u: UNANSWERED", piece->op->id);
  else
    check_error (piece, error);
}

void
model_run_perform (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  guint wait = model_wait_begin (op->loop);

  g_atomic_int_set (&piece->excused, 1);
  result = bg_loop_perform (loop, model_get_priority (op->priority), op->timeout, begin_cb, piece,
                            get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "an operation");
  check_performed (piece, result, error, FALSE);
}

void
model_run_operation (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  guint wait = model_wait_begin (op->loop);

  g_atomic_int_set (&piece->excused, 1);
  result = bg_loop_perform_operation (loop, model_get_priority (op->priority), op->timeout,
                                      operation_cb, piece, get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "an operation");
  check_performed (piece, result, error, TRUE);
}

static void
performed_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GAsyncResult) own = bg_loop_perform_finish (BG_LOOP (source), result, &error);

  check_performed (piece, own, error, FALSE);
  model_piece_note_reply (piece);
}

static void
operated_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GAsyncResult) own = bg_loop_perform_operation_finish (BG_LOOP (source), result, &error);

  check_performed (piece, own, error, TRUE);
  model_piece_note_reply (piece);
}

void
model_run_perform_async (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, TRUE);

  g_atomic_int_set (&piece->excused, 1);
  bg_loop_perform_async (loop, model_get_priority (op->priority), op->timeout, begin_cb, piece,
                         model_piece_destroy_cb, get_cancellable (model, op), performed_cb, piece);
}

void
model_run_operation_async (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, TRUE);

  g_atomic_int_set (&piece->excused, 1);
  bg_loop_perform_operation_async (loop, model_get_priority (op->priority), op->timeout,
                                   operation_cb, piece, model_piece_destroy_cb,
                                   get_cancellable (model, op), operated_cb, piece);
}

/* The end of a loop */

static void
check_ended (ModelPiece *piece, BgLoop *loop, gboolean ended, const GError *error)
{
  const ModelOp *op = piece->op;

  if (!ended)
    {
      check_error (piece, error);
      return;
    }

  model_check (g_atomic_int_get (&piece->model->loops[op->loop].ends) != 0,
               "operation %u: the loop has ended, and nobody asked", op->id);
  model_check (bg_loop_get_state (loop) == BG_LOOP_STOPPED, "operation %u: ended, and not stopped",
               op->id);
  model_check_over (piece->model, op->loop);
}

void
model_run_shutdown (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  g_autoptr (GError) error = NULL;
  guint wait = model_wait_begin (op->loop);
  gboolean ended;

  g_atomic_int_set (&piece->excused, 1);
  model_ask (model, op->loop, op->mode);
  if (op->variant % 4 == 0 && op->cancellable == 0 && op->timeout == -1)
    ended = bg_loop_shutdown (loop, &error);
  else
    ended = bg_loop_shutdown_full (loop, op->mode, op->timeout, get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "a shutdown");
  check_ended (piece, loop, ended, error);
}

void
model_run_wait (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, FALSE);
  g_autoptr (GError) error = NULL;
  guint wait = model_wait_begin (op->loop);
  gboolean ended;

  g_atomic_int_set (&piece->excused, 1);
  ended = bg_loop_wait (loop, op->timeout, get_cancellable (model, op), &error);
  model_wait_end (wait, op->loop, error, "a wait");
  check_ended (piece, loop, ended, error);
}

static void
shut_down_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ended = bg_loop_shutdown_finish (BG_LOOP (source), result, &error);

  check_ended (piece, BG_LOOP (source), ended, error);
  model_piece_note_reply (piece);
}

static void
waited_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ended = bg_loop_wait_finish (BG_LOOP (source), result, &error);

  check_ended (piece, BG_LOOP (source), ended, error);
  model_piece_note_reply (piece);
}

void
model_run_shutdown_async (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, TRUE);

  g_atomic_int_set (&piece->excused, 1);
  piece->waits_for_end = TRUE;
  model_ask (model, op->loop, op->mode);
  bg_loop_shutdown_async (loop, op->mode, op->timeout, get_cancellable (model, op), shut_down_cb,
                          piece);
}

void
model_run_wait_async (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, FALSE, TRUE);

  g_atomic_int_set (&piece->excused, 1);
  piece->waits_for_end = TRUE;
  bg_loop_wait_async (loop, op->timeout, get_cancellable (model, op), waited_cb, piece);
}
