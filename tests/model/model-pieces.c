/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "model-world.h"

/* The ledger: what was given to which loop by whom, and what became of it. What can be said at
 * once is said here; model-check.c looks at all of it when everything is over. */

#define MAX_MESSAGE 2000 /* bytes, of the most telling few of what is in the way */

ModelPiece *
model_piece_new (const ModelOp *op, ModelLife *life)
{
  guint index = model_increment (&model_world->n_pieces);
  ModelPiece *self;

  if (index >= MODEL_MAX_PIECES)
    return NULL;

  self = &model_world->pieces[index];
  self->index = index;
  self->op = op;
  self->life = life;
  self->giver = model_actor_self ();
  self->cancellable = model_take_cancellable (op->cancellable);
  self->cancelled_before
      = self->cancellable != NULL && g_cancellable_is_cancelled (self->cancellable);
  self->time_begin = g_get_monotonic_time ();
  self->given_before = model_stamp ();
  return self;
}

const char *
model_piece_name (const ModelPiece *self)
{
  static __thread char names[4][96];
  static __thread guint next;
  char *name = names[next++ % G_N_ELEMENTS (names)];

  g_snprintf (name, sizeof names[0], "%s %u (piece %u by %s for %s)",
              model_kind_name (self->op->kind), self->op->id, self->index,
              self->giver != NULL ? self->giver->name : "somebody",
              self->life != NULL ? self->life->actor.name : "nobody");
  return name;
}

static gboolean
is_on_own_loop (ModelPiece *self)
{
  return self->life != NULL && self->giver == &self->life->actor;
}

static void
check_accepted (ModelPiece *self)
{
  ModelLife *life = self->life;
  ModelStamp stop_done = model_load (&life->stop_done);
  ModelStamp cancel_done = model_load (&life->cancel_done);
  ModelStamp end_begin = model_load (&life->end_begin);

  if (end_begin != 0 && end_begin < self->given_before)
    model_fail ("%s was accepted after the first teardown function", model_piece_name (self));
  else if (cancel_done != 0 && cancel_done < self->given_before)
    model_fail ("%s was accepted after a CANCEL", model_piece_name (self));
  else if (stop_done != 0 && stop_done < self->given_before && !is_on_own_loop (self))
    model_fail ("%s was accepted after the loop had been asked to stop", model_piece_name (self));
}

static void
check_refused (ModelPiece *self)
{
  ModelLife *life = self->life;

  if (model_load (&life->stop_begin) == 0)
    model_fail ("%s was refused though nobody has asked the loop to stop", model_piece_name (self));
  else if (is_on_own_loop (self) && life->with_teardown && model_load (&life->end_begin) == 0
           && model_load (&life->cancel_begin) == 0 && !model_load (&life->exited))
    model_fail ("%s was refused on its own loop, which only drains", model_piece_name (self));
}

/* When the function that took it, or did not, has returned. */
void
model_piece_given (ModelPiece *self, gboolean accepted)
{
  self->given_after = model_stamp ();
  self->time_given = g_get_monotonic_time ();
  self->accepted = accepted;
  if (accepted)
    check_accepted (self);
  else
    check_refused (self);
}

static gboolean
may_repeat (ModelPiece *self)
{
  return self->op->kind == MODEL_INVOKE || self->op->kind == MODEL_ATTACH || self->is_handler;
}

/* Whether it was given by code on a loop that is cancelled or comes to its end: that is told so at
 * once, and the work may be going on. */
gboolean
model_piece_is_late (ModelPiece *self)
{
  ModelLife *life = self->giver != NULL ? self->giver->life : NULL;

  if (life == NULL)
    return FALSE;
  if (model_load (&life->cancel_begin) != 0 || model_load (&life->exited))
    return TRUE;
  if (!life->with_teardown)
    return model_load (&life->stop_begin) != 0;
  return model_load (&life->end_begin) != 0;
}

void
model_piece_run_begin (ModelPiece *self)
{
  ModelStamp now = model_stamp ();

  /* Sources that were attached are GLib's. */
  if (model_world->is_child && self->op->kind != MODEL_ATTACH)
    model_fork_fail (model_piece_name (self));
  if (!self->is_handler)
    model_actor_enter (self->life);
  if (model_increment (&self->n_run) > 0 && !may_repeat (self))
    model_fail ("%s has run twice", model_piece_name (self));
  if (model_load (&self->n_destroyed) > 0)
    model_fail ("%s has run after its destroy notify", model_piece_name (self));
  if (model_load (&self->n_replied) > 0 && !model_piece_is_late (self))
    model_fail ("%s has run after its reply", model_piece_name (self));
  if (model_load (&self->withdrawn) && self->op->kind != MODEL_ATTACH)
    model_fail ("%s has run although it was withdrawn", model_piece_name (self));
  if (self->delay_usec > 0 && g_get_monotonic_time () < self->time_begin + self->delay_usec)
    model_fail ("%s has run early", model_piece_name (self));

  self->run_usec -= g_get_monotonic_time ();
  model_stamp_first (&self->run_begin, now);
  if (self->op->kind == MODEL_TEARDOWN)
    model_stamp_first (&self->life->end_begin, now);
}

void
model_piece_run_end (ModelPiece *self)
{
  self->run_usec += g_get_monotonic_time ();
  model_store (&self->run_end, model_stamp ());
}

/* A destroy notify: on the loop's thread, or before it is known whether the piece was taken on
 * that of whoever gives it. */
void
model_piece_destroy (gpointer data)
{
  ModelPiece *self = data;
  ModelActor *me = model_actor_self ();

  if (model_increment (&self->n_destroyed) > 0)
    model_fail ("%s was destroyed twice", model_piece_name (self));
  if (model_load (&self->n_replied) > 0 && !model_piece_is_late (self))
    model_fail ("%s was destroyed after its reply", model_piece_name (self));

  if (me != NULL && me == self->giver && self->given_after == 0 && model_load (&self->n_run) == 0)
    self->destroyed_by_giver = TRUE;
  else
    model_actor_enter (self->life);

  model_store (&self->destroyed, model_stamp ());
  model_do_program (self->op->destroy);
  model_store (&self->destroy_end, model_stamp ());
}

/* Replies */

void
model_piece_expect_reply (ModelPiece *self)
{
  ModelActor *me = self->giver;

  if (me != NULL && me->life == NULL && me->kind == MODEL_CONTEXT_DEFAULT)
    me = &model_world->server;
  self->replied_to = me;
  if (me != NULL && me->life != NULL && self->life != NULL)
    self->owed = model_graph_add (me, &self->life->actor); /* its end waits for the reply */
  if (me != NULL)
    model_increment (&me->owed);
}

/* In a context that is iterated as usual, from a source of the priority of the work. */
static void
check_reply_priority (ModelPiece *self)
{
  GSource *source = g_main_current_source ();
  gboolean has_priority
      = self->op->kind == MODEL_CALL_ASYNC || self->op->kind == MODEL_PERFORM_ASYNC;

  if (has_priority && source != NULL && g_source_get_priority (source) != self->op->priority)
    model_fail ("%s was replied to at priority %d, not %d", model_piece_name (self),
                g_source_get_priority (source), self->op->priority);
}

void
model_piece_reply_begin (ModelPiece *self)
{
  ModelActor *me = self->replied_to;

  if (model_increment (&self->n_replied) > 0)
    model_fail ("%s was replied to twice", model_piece_name (self));
  model_store (&self->replied, model_stamp ());

  if (me != NULL && me->life != NULL)
    {
      /* A thread-local destructor has another context. */
      if (!model_piece_is_late (self))
        model_actor_enter (me->life);
    }
  else if (me != NULL && model_actor_self () != me)
    model_fail ("%s was replied to on another thread", model_piece_name (self));
  else
    check_reply_priority (self);
}

void
model_piece_drop_ref (ModelPiece *self)
{
  if (atomic_exchange_explicit (&self->keeps_ref, FALSE, MODEL_ORDER))
    model_life_give_back (self->life);
}

void
model_piece_reply_end (ModelPiece *self)
{
  model_piece_drop_ref (self);
  if (self->owed != NULL)
    model_graph_remove (self->owed);
  if (self->replied_to != NULL)
    model_decrement (&self->replied_to->owed);
}

/* Errors of waits and replies */

static void
check_own_error (ModelPiece *self, const GError *error)
{
  if (!model_load (&self->failed) || error->code != (int) self->index)
    model_fail ("%s failed with an error that is not its function's", model_piece_name (self));
}

static void
check_io_error (ModelPiece *self, const GError *error)
{
  gint64 elapsed = g_get_monotonic_time () - self->time_begin;

  if (error->code == G_IO_ERROR_CANCELLED)
    {
      if (self->cancellable == NULL || !g_cancellable_is_cancelled (self->cancellable))
        model_fail ("%s: CANCELLED, and nobody has cancelled it", model_piece_name (self));
    }
  else if (error->code == G_IO_ERROR_TIMED_OUT)
    {
      if (self->op->timeout < 0 && self->op->kind != MODEL_STEP && self->op->kind != MODEL_PAUSE)
        model_fail ("%s: TIMED_OUT without a limit", model_piece_name (self));
      else if (elapsed < self->op->timeout * G_TIME_SPAN_MILLISECOND)
        model_fail ("%s: TIMED_OUT after %" G_GINT64_FORMAT " us", model_piece_name (self),
                    elapsed);
    }
  else
    model_fail ("%s: %s", model_piece_name (self), error->message);
}

static gboolean
waits_for_nothing (ModelPiece *self)
{
  return self->op->timeout == 0
         && (self->op->kind == MODEL_SHUTDOWN || self->op->kind == MODEL_WAIT
             || self->op->kind == MODEL_RESET_DEFAULT);
}

static void
check_deadlock (ModelPiece *self, const GError *error)
{
  ModelActor *me = self->giver;

  if (model_load (&self->life->paused))
    return;

  if (!model_graph_may_be_circle (me, &self->life->actor, self->given_before))
    model_fail ("%s: WOULD_DEADLOCK without a circle: %s", model_piece_name (self), error->message);
}

static void
check_bg_error (ModelPiece *self, const GError *error)
{
  switch (error->code)
    {
    case BG_ERROR_CLOSED:
      if (model_load (&self->life->stop_begin) == 0 && !model_piece_is_late (self))
        model_fail ("%s: CLOSED though nobody has asked the loop to stop", model_piece_name (self));
      break;
    case BG_ERROR_WOULD_DEADLOCK:
      check_deadlock (self, error);
      break;
    case BG_ERROR_UNANSWERED:
      if (self->op->kind != MODEL_PERFORM && self->op->kind != MODEL_PERFORM_ASYNC)
        model_fail ("%s: UNANSWERED", model_piece_name (self));
      break;
    default:
      model_fail ("%s: %s", model_piece_name (self), error->message);
    }
}

/* NULL: it went well. */
void
model_piece_check_error (ModelPiece *self, const GError *error)
{
  self->succeeded = error == NULL;
  if (error == NULL)
    return;

  if (strlen (error->message) > MAX_MESSAGE)
    model_fail ("%s: a message of %" G_GSIZE_FORMAT " bytes", model_piece_name (self),
                strlen (error->message));
  self->error_domain = error->domain;
  self->error_code = error->code;
  if (error->domain == MODEL_ERROR)
    check_own_error (self, error);
  else if (error->domain == G_IO_ERROR)
    check_io_error (self, error);
  else if (error->domain == BG_ERROR)
    check_bg_error (self, error);
  else
    model_fail ("%s: %s", model_piece_name (self), error->message);

  if (error->domain == BG_ERROR && error->code == BG_ERROR_WOULD_DEADLOCK
      && waits_for_nothing (self) && !is_on_own_loop (self) && self->op->kind == MODEL_WAIT)
    model_fail ("%s: WOULD_DEADLOCK of what does not wait", model_piece_name (self));
}

/* What a call runs: its body, and then it fails, if that is drawn. */
gboolean
model_piece_call_cb (gpointer data, GError **error)
{
  ModelPiece *piece = data;
  gboolean fails = piece->op->variant % 4 == 0;

  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  if (fails)
    {
      model_store (&piece->failed, TRUE);
      g_set_error_literal (error, MODEL_ERROR, (int) piece->index, "as drawn");
    }
  model_piece_run_end (piece);
  return !fails;
}
