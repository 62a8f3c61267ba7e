/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model.h"

/* The ledger: what has become of each piece of work, and whether it may. */

guint
model_get_actor (void)
{
  static int last;
  static __thread guint self;

  if (self == 0)
    self = (guint) g_atomic_int_add (&last, 1) % (MODEL_ACTORS - 1) + 1;
  return self;
}

/* How many programs the thread is in that may be the last that a loop runs: teardowns,
 * notifies and destructors. */
static __thread guint last_depth;

void
model_run_last (Model *model, const ModelProgram *program)
{
  last_depth++;
  model_run_program (model, program);
  last_depth--;
}

/* In a loop's thread-local destructors it is the default one, which the main thread
 * iterates at the end. */
static GMainContext *
get_context (void)
{
  GMainContext *context = g_main_context_get_thread_default ();

  return context != NULL ? context : g_main_context_default ();
}

ModelPiece *
model_piece_new (Model *model, const ModelOp *op, gboolean has_destroy, gboolean has_reply)
{
  ModelPiece *self = g_new0 (ModelPiece, 1);

  self->model = model;
  self->op = op;
  self->loop = op->loop;
  self->actor = model_get_actor ();
  self->from = model_get_own_loop ();
  self->has_destroy = has_destroy;
  self->has_reply = has_reply;
  self->context = get_context ();
  self->is_last = (self->from < MODEL_LOOPS && last_depth > 0
                   && self->context != g_main_context_default ())
                  || g_atomic_int_get (&model->over) != 0;
  g_mutex_lock (&model->lock);
  g_ptr_array_add (model->pieces, self);
  g_mutex_unlock (&model->lock);
  return self;
}

/* It has a place in the order of what this thread gives to the loop at its priority. */
void
model_piece_set_ordered (ModelPiece *self)
{
  static int last;

  g_mutex_lock (&self->model->lock);
  self->seq = (guint) g_atomic_int_add (&last, 1) + 1;
  g_mutex_unlock (&self->model->lock);
}

/* What the library said. Refused work has been destroyed by then, where it was given. */
void
model_piece_settle (ModelPiece *self, gboolean accepted)
{
  if (!accepted && self->has_destroy)
    model_check (g_atomic_int_get (&self->destroyed) == 1,
                 "operation %u: refused, and destroyed %d times", self->op->id,
                 g_atomic_int_get (&self->destroyed));
  if (!accepted)
    model_check (g_atomic_int_get (&self->ran) == 0, "operation %u: refused, and ran", self->op->id);
  g_atomic_int_set (&self->accepted, accepted ? 1 : -1);
}

static void
check_order (ModelPiece *self)
{
  ModelLoop *loop = &self->model->loops[self->loop];
  guint *last = &loop->last[self->op->priority][self->actor];

  model_check (self->seq > *last || *last - self->seq > G_MAXUINT / 2,
               "operation %u: overtaken by what the same thread gave later", self->op->id);
  *last = self->seq;
}

/* Its function begins, on the loop's thread. */
void
model_piece_begin (ModelPiece *self)
{
  ModelLoop *known = &self->model->loops[self->loop];

  model_check (model_get_own_loop () == self->loop, "operation %u: runs on another thread",
               self->op->id);
  model_check (g_atomic_int_add (&self->ran, 1) == 0, "operation %u: runs again", self->op->id);
  model_check (g_atomic_int_get (&self->destroyed) == 0, "operation %u: runs, and its data is gone",
               self->op->id);
  model_check (g_atomic_int_get (&self->accepted) != -1, "operation %u: runs, and was refused",
               self->op->id);
  model_check (g_atomic_int_get (&known->over) == 0, "operation %u: runs after the end",
               self->op->id);
  if (self->seq != 0)
    check_order (self);
  if (self->excused == -1)
    model_run_last (self->model, &self->op->func);
  else
    model_run_program (self->model, &self->op->func);
}

/* Whether the loop that it was given on may tell its callback CLOSED in place of who owes
 * the reply: one that cancels; for what it was given last, any that ends; and in place of
 * a loop whose end it waits for, which may wait for its own. */
gboolean
model_is_closed_from (const ModelPiece *self)
{
  ModelLoop *from = &self->model->loops[self->from];

  if (self->from == MODEL_LOOPS || !self->has_reply)
    return FALSE;
  return g_atomic_int_get (&from->cancels) != 0
         || (g_atomic_int_get (&from->ends) != 0 && (self->is_last || self->waits_for_end));
}

void
model_piece_destroy_cb (gpointer data)
{
  ModelPiece *self = data;
  ModelLoop *known = &self->model->loops[self->loop];

  model_check (g_atomic_int_add (&self->destroyed, 1) == 0, "operation %u: destroyed again",
               self->op->id);
  model_check (g_atomic_int_get (&self->replied) == 0 || model_is_closed_from (self),
               "operation %u: destroyed after the reply", self->op->id);
  if (g_atomic_int_get (&self->accepted) == 1)
    {
      model_check (model_get_own_loop () == self->loop, "operation %u: destroyed on another thread",
                   self->op->id);
      model_check (g_atomic_int_get (&known->over) == 0, "operation %u: destroyed after the end",
                   self->op->id);
    }
  model_run_last (self->model, &self->op->destroy);
}

void
model_piece_note_reply (ModelPiece *self)
{
  model_check (g_atomic_int_add (&self->replied, 1) == 0, "operation %u: replied to again",
               self->op->id);
  /* A loop that cancels has its own callbacks told before other loops come to theirs. */
  model_check (!self->has_destroy || g_atomic_int_get (&self->destroyed) == 1
                   || model_is_closed_from (self),
               "operation %u: replied to, and its data is not destroyed", self->op->id);
  model_check (g_atomic_int_get (&self->abandoned) == 0,
               "operation %u: replied to where nobody iterates", self->op->id);
  model_check (self->context == NULL || self->context == get_context (),
               "operation %u: replied to in another context", self->op->id);
  if (self->is_last)
    model_run_last (self->model, &self->op->reply);
  else
    model_run_program (self->model, &self->op->reply);
}

/* Everything is over. */
void
model_piece_check_final (ModelPiece *self)
{
  ModelLoop *loop = &self->model->loops[self->loop];
  gboolean accepted = self->accepted == 1;

  if (self->has_destroy)
    model_check (self->destroyed == 1, "operation %u (%s): destroyed %d times in all, ran %d",
                 self->op->id, self->op->kind->name, self->destroyed, self->ran);
  if (self->has_reply && !self->abandoned && !self->is_last)
    model_check (self->replied == 1, "operation %u (%s): replied to %d times in all", self->op->id,
                 self->op->kind->name, self->replied);
  if (accepted && (self->excused == -1 || (self->excused == 0 && !loop->cancels)))
    model_check (self->ran == 1, "operation %u (%s): was accepted and never ran", self->op->id,
                 self->op->kind->name);
}
