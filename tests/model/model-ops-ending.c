/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* Starts and ends of loops. */

#define MAX_RENEWED 30

static BgShutdownMode
get_mode (const ModelOp *op)
{
  return op->cancel ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN;
}

/* Handlers of its cancellable may run in this thread, and the end of the loop waits for them. */
static ModelEdge *
note_handling (ModelLife *life, gboolean cancel)
{
  ModelActor *me = model_actor_self ();

  return cancel && me != NULL && me != &life->actor ? model_graph_add (&life->actor, me) : NULL;
}

static void
do_quit (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelEdge *handling = note_handling (life, op->cancel);

  model_life_note_stop (life, op->cancel);
  bg_loop_quit (loop, get_mode (op));
  model_life_note_stopped (life, op->cancel);
  if (handling != NULL)
    model_graph_remove (handling);
  if (bg_loop_get_state (loop) == BG_LOOP_RUNNING)
    model_fail ("%s runs on after a quit", life->actor.name);
}

/* The wait for the end, with or without asking for it. */
static void
check_end (ModelPiece *piece, gboolean ok, const GError *error)
{
  ModelLife *life = piece->life;

  piece->given_after = model_stamp ();
  if (ok != (error == NULL))
    model_fail ("%s returned %d", model_piece_name (piece), ok);
  if (ok && piece->giver == &life->actor)
    model_fail ("%s went well on its own loop", model_piece_name (piece));
  model_piece_check_error (piece, error);
  if (ok)
    model_life_note_ended (life);
}

static gboolean
has_asked (const GError *error)
{
  return !g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK)
         && !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

static void
do_shutdown (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  gboolean plain = op->variant % 4 == 0 && op->timeout < 0;
  gboolean cancel = op->cancel && !plain;
  ModelActor *me = model_actor_self ();
  ModelEdge *handling, *edge = NULL;
  g_autoptr (GError) error = NULL;
  ModelPiece *piece;
  gboolean ok;

  /* On its own thread it is to change nothing. */
  if (me != &life->actor)
    model_life_note_stop (life, cancel);
  piece = model_piece_new (op, life);
  if (piece == NULL)
    return;
  handling = note_handling (life, cancel);
  if (me != NULL)
    edge = model_graph_add (me, &life->actor);
  if (plain)
    ok = bg_loop_shutdown (loop, &error);
  else
    ok = bg_loop_shutdown_full (loop, cancel ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN, op->timeout,
                                piece->cancellable, &error);
  if (edge != NULL)
    model_graph_remove (edge);
  if (handling != NULL)
    model_graph_remove (handling);
  if (ok || has_asked (error))
    model_life_note_stopped (life, cancel);
  check_end (piece, ok, error);
}

static void
do_wait (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelActor *me = model_actor_self ();
  ModelPiece *piece = model_piece_new (op, life);
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;
  gboolean ok;

  if (piece == NULL)
    return;
  if (me != NULL)
    edge = model_graph_add (me, &life->actor);
  ok = bg_loop_wait (loop, op->timeout, piece->cancellable, &error);
  if (edge != NULL)
    model_graph_remove (edge);
  check_end (piece, ok, error);
}

static void
do_drop (const ModelOp *op)
{
  ModelLife *life = NULL;

  if (op->slot == MODEL_DEFAULT)
    return;

  g_mutex_lock (&model_world->lock);
  life = g_steal_pointer (&model_world->slots[op->slot]);
  g_mutex_unlock (&model_world->lock);
  if (life != NULL)
    model_life_give_back (life);
}

static void
do_renew (const ModelOp *op)
{
  g_autoptr (GError) error = NULL;
  ModelLife *life;
  BgLoop *loop;

  if (op->slot == MODEL_DEFAULT || model_load (&model_world->n_lives) > MAX_RENEWED
      || model_is_closing ())
    return;

  loop = bg_loop_new (op->variant % 4 == 0 ? NULL : "renewed", &error);
  if (loop == NULL)
    {
      model_fail ("no loop: %s", error->message);
      return;
    }

  life = model_life_add (loop, op->slot, 0);
  g_mutex_lock (&model_world->lock);
  if (model_world->slots[op->slot] == NULL || op->variant % 2 == 0)
    {
      ModelLife *old = model_world->slots[op->slot];

      model_world->slots[op->slot] = life;
      life = old;
    }
  g_mutex_unlock (&model_world->lock);
  if (life != NULL)
    model_life_give_back (life);
}

/* A reset of the default loop that was refused has changed nothing, unless the loop came to wait
 * for this thread only later: then it stops. The caller refers to @loop, the default one unless
 * somebody has ended it. */
static void
check_refused_reset (ModelLife *life, BgLoop *loop)
{
  ModelLife *life_now = NULL;
  BgLoop *now;
  gboolean runs;

  if (loop == NULL || !model_life_was_default (life) || bg_loop_get_state (loop) != BG_LOOP_RUNNING)
    return;

  model_increment (&model_world->n_vain_stops);
  now = model_slot_take (MODEL_DEFAULT, &life_now);
  if (now == NULL)
    return;
  runs = bg_loop_get_state (loop) == BG_LOOP_RUNNING;
  if (runs && now != loop
      && model_load (&model_world->n_vain_stops) == model_load (&model_world->n_default_stops))
    model_fail ("a reset that was refused has changed the default loop");
  model_life_give_back (life_now);
}

static void
do_reset_default (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();
  ModelStamp before = model_stamp ();
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;
  ModelLife *life = NULL;
  BgLoop *loop = NULL;
  gboolean ok;

  /* The reference is also for the janitor, who may have to cancel it. */
  loop = model_slot_take (MODEL_DEFAULT, &life);
  if (me != NULL)
    edge = model_graph_add (me, &model_world->any_default);
  model_increment (&model_world->n_resets);
  model_increment (&model_world->n_default_stops);
  ok = bg_loop_reset_default (op->timeout, &error);
  if (g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK))
    check_refused_reset (life, loop);
  model_decrement (&model_world->n_resets);
  if (loop != NULL)
    model_life_give_back (life);
  if (edge != NULL)
    model_graph_remove (edge);
  if (ok != (error == NULL))
    model_fail ("a reset of the default loop returned %d", ok);

  if (ok || (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT) && op->timeout >= 0))
    return;
  if (g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK) && me != NULL
      && model_graph_may_be_circle (me, &model_world->any_default, before))
    return;
  model_fail ("a reset of the default loop: %s", error->message);
}

void
model_do_ending (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_QUIT:
      do_quit (op, life, loop);
      break;
    case MODEL_SHUTDOWN:
      do_shutdown (op, life, loop);
      break;
    case MODEL_WAIT:
      do_wait (op, life, loop);
      break;
    case MODEL_RENEW:
      do_renew (op);
      break;
    case MODEL_DROP:
      do_drop (op);
      break;
    default:
      do_reset_default (op);
    }
}
