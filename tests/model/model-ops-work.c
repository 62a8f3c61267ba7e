/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* Work that is handed over, and that is waited for. */

static void
post_cb (gpointer data)
{
  ModelPiece *piece = data;

  model_piece_run_begin (piece);
  piece->life->actor.posted = TRUE;
  model_do_program (piece->op->body);
  piece->life->actor.posted = FALSE;
  model_piece_run_end (piece);
}

static void
do_post (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);
  GDestroyNotify destroy = op->variant % 8 == 0 ? NULL : model_piece_destroy;
  gboolean accepted;

  if (piece == NULL)
    return;
  piece->no_destroy = destroy == NULL;
  if (op->priority == G_PRIORITY_DEFAULT)
    accepted = bg_loop_post (loop, post_cb, piece, destroy);
  else
    accepted = bg_loop_post_full (loop, op->priority, post_cb, piece, destroy);
  model_piece_given (piece, accepted);
  if (!accepted && destroy != NULL && !piece->destroyed_by_giver)
    model_fail ("%s was refused and not destroyed", model_piece_name (piece));
}

static gboolean
invoke_cb (gpointer data)
{
  ModelPiece *piece = data;

  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  model_piece_run_end (piece);
  return piece->n_repeats++ < piece->op->amount ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
do_invoke (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);
  gboolean accepted;

  if (piece == NULL)
    return;
  piece->no_destroy = op->variant % 8 == 0;
  if (piece->no_destroy && op->priority == G_PRIORITY_DEFAULT)
    accepted = bg_loop_invoke (loop, invoke_cb, piece);
  else
    accepted = bg_loop_invoke_full (loop, op->priority, invoke_cb, piece,
                                    piece->no_destroy ? NULL : model_piece_destroy);
  model_piece_given (piece, accepted);
  if (accepted && piece->giver == &life->actor && model_load (&piece->n_run) == 0
      && model_load (&life->cancel_begin) == 0)
    model_fail ("%s did not run at once on its own loop", model_piece_name (piece));
}

static void
do_call (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);
  ModelActor *me = model_actor_self ();
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;
  gboolean ok;

  if (piece == NULL)
    return;
  if (me != NULL && me != &life->actor)
    edge = model_graph_add (me, &life->actor);
  if (op->priority == G_PRIORITY_DEFAULT && op->timeout < 0)
    ok = bg_loop_call (loop, model_piece_call_cb, piece, piece->cancellable, &error);
  else
    ok = bg_loop_call_full (loop, op->priority, op->timeout, model_piece_call_cb, piece,
                            piece->cancellable, &error);
  if (edge != NULL)
    model_graph_remove (edge);

  if (ok != (error == NULL))
    model_fail ("%s returned %d with%s an error", model_piece_name (piece), ok,
                error != NULL ? "" : "out");
  model_piece_check_error (piece, error);
  if (model_load (&piece->n_run) > 0 && edge != NULL)
    model_piece_given (piece, TRUE);
  piece->given_after = model_stamp ();
  if (me == &life->actor && model_load (&piece->n_run) != 1
      && !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    model_fail ("%s did not run inline on its own loop", model_piece_name (piece));
}

static void
do_flush (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);
  ModelActor *me = model_actor_self ();
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;
  gboolean ok;

  if (piece == NULL)
    return;
  if (me != NULL)
    edge = model_graph_add (me, &life->actor);
  ok = bg_loop_flush (loop, op->timeout, piece->cancellable, &error);
  if (edge != NULL)
    model_graph_remove (edge);
  piece->given_after = model_stamp ();

  if (ok && me == &life->actor)
    model_fail ("%s went well on its own loop", model_piece_name (piece));
  model_piece_check_error (piece, error);
  if (ok != (error == NULL))
    model_fail ("%s returned %d", model_piece_name (piece), ok);
}

void
model_do_work (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_POST:
      do_post (op, life, loop);
      break;
    case MODEL_INVOKE:
      do_invoke (op, life, loop);
      break;
    case MODEL_CALL:
      do_call (op, life, loop);
      break;
    default:
      do_flush (op, life, loop);
    }
}
