/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-draw-apart.h"

/* What is put into some scenarios when all else has been drawn, which stays as it was: what does
 * not come about by chance. Most of it happens on loops of its own, which nobody else ends. */

#define APART_PERCENT      25   /* of the scenarios */
#define ENDLESS_PART       2000 /* of them, since it takes long */
#define DESCRIPTOR_PERCENT 2
#define TOGGLE_PERCENT     2
#define N_EQUALS           (MODEL_ENDLESS - MODEL_FIRST_APART) /* of the kinds */

static ModelOp *
op_new (ModelScenario *self, ModelRandom *random, ModelKind kind)
{
  static const int priorities[] = { 0, 0, 0, -100, 200 };
  ModelOp *op = g_new0 (ModelOp, 1);

  op->id = self->n_ops++;
  op->kind = kind;
  op->slot = model_random_below (random, self->n_loops);
  op->thing = model_random_below (random, MODEL_N_THINGS);
  op->priority = model_random_pick (random, priorities);
  op->timeout = -1;
  op->cancellable = -1;
  op->variant = model_random_below (random, 1 << 16);
  op->amount = model_random_below (random, 4);
  op->burst = 1;
  return op;
}

static void
put_last (ModelScenario *self, ModelRandom *random, ModelKind kind)
{
  ModelThread *thread = &self->threads[model_random_below (random, self->n_threads)];

  g_ptr_array_add (thread->program, op_new (self, random, kind));
}

void
model_draw_apart (ModelScenario *self, ModelRandom *random, gboolean uses_default)
{
  self->without_descriptor = model_random_chance (random, DESCRIPTOR_PERCENT);
  if (model_random_below (random, ENDLESS_PART) == 0)
    put_last (self, random, MODEL_ENDLESS);
  if (model_random_chance (random, TOGGLE_PERCENT) && !uses_default)
    put_last (self, random, MODEL_TOGGLE);
  if (model_random_chance (random, APART_PERCENT))
    put_last (self, random, MODEL_FIRST_APART + model_random_below (random, N_EQUALS));
}
