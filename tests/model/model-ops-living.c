/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* What lives on a loop: delayed work, holds, teardown functions, sources. */

static void
run_cb (gpointer data)
{
  ModelPiece *piece = data;

  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  model_piece_run_end (piece);
}

/* Puts it where others find it. */
static void
remember (ModelPiece **things, ModelPiece *piece)
{
  g_mutex_lock (&model_world->lock);
  things[piece->op->thing] = piece;
  g_mutex_unlock (&model_world->lock);
}

static void
do_post_after (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);

  if (piece == NULL)
    return;
  piece->delay_usec = op->amount * G_TIME_SPAN_MILLISECOND;
  piece->id = bg_loop_post_after (loop, op->amount, run_cb, piece, model_piece_destroy);
  model_piece_given (piece, piece->id != 0);
  if (piece->id != 0)
    remember (model_world->delays, piece);
}

static void
do_teardown (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);

  if (piece == NULL)
    return;
  piece->id = bg_loop_add_teardown (loop, run_cb, piece, model_piece_destroy);
  model_piece_given (piece, piece->id != 0);
  if (piece->id != 0)
    remember (model_world->teardowns, piece);
}

static void
do_take_back (const ModelOp *op)
{
  gboolean delayed = op->kind == MODEL_WITHDRAW;
  ModelPiece *piece;
  gboolean taken;
  BgLoop *loop;

  g_mutex_lock (&model_world->lock);
  piece = delayed ? model_world->delays[op->thing] : model_world->teardowns[op->thing];
  g_mutex_unlock (&model_world->lock);
  if (piece == NULL)
    return;

  loop = model_life_take (piece->life);
  if (loop == NULL)
    return;
  taken = delayed ? bg_loop_withdraw (loop, piece->id) : bg_loop_remove_teardown (loop, piece->id);
  if (taken && model_increment (&piece->withdrawn) > 0)
    model_fail ("%s was withdrawn twice", model_piece_name (piece));
  if (taken && model_load (&piece->n_run) > 0)
    model_fail ("%s has run and could be withdrawn", model_piece_name (piece));
  model_life_give_back (piece->life);
}

/* Holds */

static void
release (ModelPiece *piece)
{
  if (model_load (&piece->life->ended) != 0 && !model_load (&piece->life->exited))
    model_fail ("%s: the loop has ended though it was held", model_piece_name (piece));
  bg_loop_release (piece->life->loop, piece->id);
  model_life_give_back (piece->life);
}

static void
release_one (gboolean last)
{
  ModelPiece *piece;

  g_mutex_lock (&model_world->lock);
  piece = last ? g_queue_pop_tail (&model_world->holds) : g_queue_pop_head (&model_world->holds);
  g_mutex_unlock (&model_world->lock);
  if (piece != NULL)
    release (piece);
}

void
model_release_all (void)
{
  while (TRUE)
    {
      ModelPiece *piece;

      g_mutex_lock (&model_world->lock);
      piece = g_queue_pop_head (&model_world->holds);
      g_mutex_unlock (&model_world->lock);
      if (piece == NULL)
        return;
      release (piece);
    }
}

static void
do_hold (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);

  if (piece == NULL)
    return;
  piece->id = bg_loop_hold (loop, op->variant % 4 == 0 ? NULL : "the model");
  model_piece_given (piece, piece->id != 0);
  if (piece->id == 0)
    return;

  model_life_take (life);
  g_mutex_lock (&model_world->lock);
  g_queue_push_tail (&model_world->holds, piece);
  g_mutex_unlock (&model_world->lock);
}

/* Sources */

#define CURRENT      4 /* one in so many sources that are destroyed is the one that runs */
#define ENOUGH_AGAIN 5
#define MAX_AGAIN    50000

/* Nobody of the model's can ask the loop to end: what is behind the source may hold it. */
static gboolean
is_given_up (ModelLife *life)
{
  gboolean given_up;

  g_mutex_lock (&life->lock);
  given_up = life->refs == 0;
  g_mutex_unlock (&life->lock);
  return given_up && model_is_closing ();
}

static gboolean
source_cb (gpointer data)
{
  ModelPiece *piece = data;

  /* It is ready until somebody destroys it, and keeps what is below it from its turn. */
  if (piece->op->variant % 16 == 9 && piece->n_run > 0)
    return !is_given_up (piece->life);

  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  model_piece_run_end (piece);
  return piece->op->variant % 16 == 9 || piece->n_repeats++ < piece->op->amount;
}

/* What is destroyed attaches another one like it, for as long as it may: the end bounds that. Until
 * then there are a few of them. */
typedef struct
{
  ModelLife *life;
  guint n;
  gboolean over; /* it has run, or was refused */
} Again;

static void again_destroy_cb (gpointer data);

static gboolean
again_cb (gpointer data)
{
  Again *self = data;

  self->over = TRUE;
  return G_SOURCE_REMOVE;
}

static void
attach_again (ModelLife *life, guint n)
{
  BgLoop *loop = model_life_take (life);
  GSource *source;
  Again *self;

  if (loop == NULL)
    return;
  source = g_idle_source_new ();
  self = g_new (Again, 1);
  *self = (Again){ life, n, FALSE };
  g_source_set_callback (source, again_cb, self, again_destroy_cb);
  /* Once it is attached it may have gone. */
  if (!bg_loop_attach (loop, source))
    self->over = TRUE;
  g_source_unref (source);
  model_life_give_back (life);
}

static void
again_destroy_cb (gpointer data)
{
  Again *self = data;
  BgLoop *loop = model_life_take (self->life);
  gboolean stops = loop != NULL && bg_loop_get_state (loop) != BG_LOOP_RUNNING;

  if (loop != NULL)
    model_life_give_back (self->life);
  if (self->n == MAX_AGAIN)
    model_fail ("what is destroyed at the end of %s attaches itself again for ever",
                self->life->actor.name);
  else if ((self->n < ENOUGH_AGAIN && !stops) || (stops && !self->over))
    attach_again (self->life, self->n + 1);
  g_free (self);
}

/* On the loop's thread, unless somebody else destroys it. */
static void
source_destroy_cb (gpointer data)
{
  ModelPiece *piece = data;

  if (model_increment (&piece->n_destroyed) > 0)
    model_fail ("%s was destroyed twice", model_piece_name (piece));
  /* A loop that ends may destroy a source that somebody has withdrawn and not destroyed yet: a
   * thread that the model does not know yet is a loop's. */
  if (!model_load (&piece->withdrawn) || model_actor_self () == NULL)
    {
      if (piece->given_after == 0 || model_actor_self () != piece->giver || piece->accepted)
        model_actor_enter (piece->life);
      else
        piece->destroyed_by_giver = TRUE;
    }

  model_store (&piece->destroyed, model_stamp ());
  model_do_program (piece->op->destroy);
  if (piece->op->variant % 16 == 5 && piece->accepted)
    attach_again (piece->life, 0);
  model_store (&piece->destroy_end, model_stamp ());
}

/* Whoever takes it out is the one that destroys it. For a source that was attached directly a
 * reference to its context is needed until then. */
static void
exchange_source (guint thing, GSource *source, ModelPiece *piece, GMainContext *context)
{
  GMainContext *old_context;
  GSource *old;

  g_mutex_lock (&model_world->lock);
  old = model_world->sources[thing];
  old_context = model_world->source_contexts[thing];
  if (old != NULL)
    model_store (&model_world->source_pieces[thing]->withdrawn, TRUE);
  model_world->sources[thing] = source;
  model_world->source_pieces[thing] = piece;
  model_world->source_contexts[thing] = context != NULL ? g_main_context_ref (context) : NULL;
  g_mutex_unlock (&model_world->lock);

  if (old == NULL)
    return;
  g_source_destroy (old);
  g_source_unref (old);
  g_clear_pointer (&old_context, g_main_context_unref);
}

void
model_destroy_sources (void)
{
  for (guint i = 0; i < MODEL_N_THINGS; i++)
    exchange_source (i, NULL, NULL, NULL);
}

/* Whether it can be attached to the context itself, as code on the loop does. */
static gboolean
attaches_directly (const ModelOp *op, ModelLife *life)
{
  /* At the end such a source is found by reading memory that may be gone. */
  return HAVE_PROCESS_VM_READV && op->variant % 3 == 0 && model_actor_self () == &life->actor
         && model_load (&life->end_begin) == 0 && g_main_context_is_owner (life->context);
}

/* Whether it is a source that is so as soon as it is attached. */
gboolean
model_is_always_ready (const ModelOp *op)
{
  return op->kind == MODEL_ATTACH && op->variant & 64;
}

static void
do_attach (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);
  gboolean accepted = TRUE, directly;
  gboolean kept = op->variant & 128;
  GSource *source;

  if (piece == NULL)
    return;
  /* A timeout of nothing is always ready, too: what is less urgent waits until it is taken out. */
  source = model_is_always_ready (op)
               ? g_idle_source_new ()
               : g_timeout_source_new (kept ? op->amount : MAX (op->amount, 1));
  g_source_set_priority (source, op->priority);
  g_source_set_callback (source, source_cb, piece, source_destroy_cb);
  directly = attaches_directly (op, life);
  if (directly)
    g_source_attach (source, life->context);
  else
    accepted = bg_loop_attach (loop, source);

  piece->given_after = model_stamp ();
  piece->accepted = accepted;
  if (!directly)
    model_piece_given (piece, accepted);
  if (accepted && kept)
    exchange_source (op->thing, source, piece, directly ? life->context : NULL);
  else
    g_source_unref (source);
}

/* By mistake: the one that runs this, which may be the library's. */
static void
destroy_current_source (void)
{
  GSource *source = g_main_current_source ();

  if (source != NULL)
    g_source_destroy (source);
}

void
model_do_living (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_POST_AFTER:
      do_post_after (op, life, loop);
      break;
    case MODEL_HOLD:
      do_hold (op, life, loop);
      break;
    case MODEL_RELEASE:
      release_one (op->variant % 2);
      break;
    case MODEL_TEARDOWN:
      do_teardown (op, life, loop);
      break;
    case MODEL_ATTACH:
      do_attach (op, life, loop);
      break;
    case MODEL_DESTROY_SOURCE:
      if (op->variant % CURRENT == 0)
        destroy_current_source ();
      else
        exchange_source (op->thing, NULL, NULL, NULL);
      break;
    default:
      do_take_back (op);
    }
}
