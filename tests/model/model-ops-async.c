/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* What is asked for without waiting, and replied to later. */

#define TWICE 16 /* one in so many results is asked for twice */

/* The address of a function is not the same in every program. */
static void
check_no_tag (ModelPiece *piece, GAsyncResult *result)
{
  static const GCallback functions[] = {
    G_CALLBACK (bg_loop_call_async),
    G_CALLBACK (bg_loop_shutdown_async),
    G_CALLBACK (bg_loop_wait_async),
  };

  for (guint i = 0; i < G_N_ELEMENTS (functions); i++)
    if (g_async_result_is_tagged (result, (gpointer) functions[i]))
      model_fail ("%s: the result has a function as its tag", model_piece_name (piece));
}

/* A second time it is a critical, and a failure. */
static void
finish_again (ModelPiece *piece, GObject *source, GAsyncResult *result)
{
  model_increment (&model_world->n_expected_criticals);
  if (bg_loop_call_finish (BG_LOOP (source), result, NULL))
    model_fail ("%s: a used-up result is TRUE", model_piece_name (piece));
}

static void
call_reply_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ok;

  model_piece_reply_begin (piece);
  if (!BG_IS_LOOP (source))
    model_fail ("%s: its reply comes from something else than a loop", model_piece_name (piece));
  check_no_tag (piece, result);
  ok = bg_loop_call_finish (BG_LOOP (source), result, &error);
  if (ok != (error == NULL))
    model_fail ("%s: %d with%s an error", model_piece_name (piece), ok, error ? "" : "out");
  model_piece_check_error (piece, error);
  if (piece->op->variant % TWICE == 0)
    finish_again (piece, source, result);
  model_do_program (piece->op->reply);
  model_piece_reply_end (piece);
}

static void
do_call_async (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);

  if (piece == NULL)
    return;
  if (op->variant >> 4 & 1)
    {
      bg_loop_call_async (loop, op->priority, op->timeout, model_piece_call_cb, piece,
                          model_piece_destroy, piece->cancellable, NULL, NULL);
    }
  else
    {
      model_piece_expect_reply (piece);
      bg_loop_call_async (loop, op->priority, op->timeout, model_piece_call_cb, piece,
                          model_piece_destroy, piece->cancellable, call_reply_cb, piece);
    }
  model_piece_given (piece, !piece->destroyed_by_giver);
}

/* Tasks */

static gboolean
may_end_thread (const ModelProgram *program)
{
  gboolean ends = FALSE;

  for (guint i = 0; program != NULL && i < program->len && !ends; i++)
    {
      const ModelOp *op = g_ptr_array_index (program, i);

      ends = op->kind == MODEL_EXIT || may_end_thread (op->body) || may_end_thread (op->destroy);
    }
  return ends;
}

/* A function that ends the thread has the task returned if nobody else has it, and so might. */
static void
task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  ModelPiece *piece = data;

  while (model_load (&piece->given_after) == 0 && may_end_thread (piece->op->body))
    g_thread_yield ();
  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  if (piece->op->variant % 4 == 0)
    {
      model_store (&piece->failed, TRUE);
      g_task_return_new_error (task, MODEL_ERROR, (int) piece->index, "as drawn");
    }
  else
    g_task_return_boolean (task, TRUE);
  model_piece_run_end (piece);
}

static void
task_reply_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;

  model_piece_reply_begin (piece);
  g_task_propagate_boolean (G_TASK (result), &error);
  model_piece_check_error (piece, error);
  model_do_program (piece->op->reply);
  model_piece_reply_end (piece);
}

/* A task that completes into a context that nobody iterates leaks: that is GLib's. */
static gboolean
may_use_task (ModelActor *me)
{
  return me != NULL && me->life == NULL && me->kind != MODEL_CONTEXT_ABANDONED;
}

static void
do_run_task (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  GTask *task;
  ModelPiece *piece;

  if (!may_use_task (model_actor_self ()) || (piece = model_piece_new (op, life)) == NULL)
    return;

  piece->no_destroy = TRUE;
  model_piece_expect_reply (piece);
  task = g_task_new (NULL, piece->cancellable, task_reply_cb, piece);
  model_watch_object (task, MODEL_OBJECT_TASK);
  g_task_set_task_data (task, piece, NULL);
  piece->accepted = TRUE;
  bg_loop_run_task (loop, op->priority, task, task_cb);
  g_object_unref (task);
  piece->given_after = model_stamp ();
}

/* The end */

static void
end_reply_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GError) error = NULL;
  gboolean ok;

  model_piece_reply_begin (piece);
  check_no_tag (piece, result);
  if (piece->op->kind == MODEL_WAIT_ASYNC)
    ok = bg_loop_wait_finish (BG_LOOP (source), result, &error);
  else
    ok = bg_loop_shutdown_finish (BG_LOOP (source), result, &error);
  if (ok != (error == NULL))
    model_fail ("%s: %d with%s an error", model_piece_name (piece), ok, error ? "" : "out");
  model_piece_check_error (piece, error);
  if (ok && piece->giver == &piece->life->actor)
    model_fail ("%s went well on its own loop", model_piece_name (piece));
  if (ok)
    model_life_note_ended (piece->life);
  model_do_program (piece->op->reply);
  model_piece_reply_end (piece);
}

static void
do_end_async (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  BgShutdownMode mode = op->cancel ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN;
  gboolean asks = op->kind == MODEL_SHUTDOWN_ASYNC;
  ModelActor *me = model_actor_self ();
  ModelEdge *handling = NULL;
  ModelPiece *piece;

  if (asks && me != &life->actor)
    model_life_note_stop (life, op->cancel);
  piece = model_piece_new (op, life);
  if (piece == NULL)
    return;

  if (asks && op->cancel && me != NULL)
    handling = model_graph_add (&life->actor, me);
  model_life_take (life);
  /* Whoever looks at it reads the rest of the piece, too. */
  atomic_store_explicit (&piece->keeps_ref, TRUE, memory_order_release);
  model_piece_expect_reply (piece);
  if (asks)
    bg_loop_shutdown_async (loop, mode, op->timeout, piece->cancellable, end_reply_cb, piece);
  else
    bg_loop_wait_async (loop, op->timeout, piece->cancellable, end_reply_cb, piece);
  piece->given_after = model_stamp ();
  if (handling != NULL)
    model_graph_remove (handling);
}

void
model_do_async (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_CALL_ASYNC:
      do_call_async (op, life, loop);
      break;
    case MODEL_RUN_TASK:
      do_run_task (op, life, loop);
      break;
    default:
      do_end_async (op, life, loop);
    }
}
