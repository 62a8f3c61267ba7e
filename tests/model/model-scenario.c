/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "model.h"

/* Draws scenarios, as plain data, and prints them. */

#define MAX_OPS    7 /* of a thread */
#define MAX_NESTED 3 /* of a function, a notify or a callback */
#define MAX_DEPTH  3

typedef struct
{
  ModelRandom random;
  ModelScenario *scenario;
  const ModelOptions *options;
  guint weights;
} Draw;

static const int priorities[MODEL_PRIORITIES]
    = { G_PRIORITY_DEFAULT, G_PRIORITY_HIGH, G_PRIORITY_LOW, G_PRIORITY_DEFAULT_IDLE };

int
model_get_priority (guint index)
{
  return priorities[index];
}

static gboolean
is_allowed (Draw *self, const ModelKind *kind)
{
  if (self->scenario->gentle && (kind->flags & MODEL_IS_ROUGH) != 0)
    return FALSE;
  if (!self->options->can_fork && (kind->flags & MODEL_FORKS) != 0)
    return FALSE;
  return self->options->without == NULL
         || !g_strv_contains (self->options->without, kind->name);
}

/* The same number of draws, whatever is allowed. */
static const ModelKind *
draw_kind (Draw *self)
{
  guint at = model_random_below (&self->random, self->weights);

  for (guint i = 0; i < model_n_kinds; i++)
    {
      if (at < model_kinds[i].weight)
        return &model_kinds[i];
      at -= model_kinds[i].weight;
    }

  g_assert_not_reached ();
}

/* -1: none; in gentle scenarios what waits waits to the end. */
static int
draw_timeout (Draw *self)
{
  static const int timeouts[] = { -1, -1, -1, 0, 1, 2, 5 };
  int timeout = timeouts[model_random_below (&self->random, G_N_ELEMENTS (timeouts))];

  return self->scenario->gentle ? -1 : timeout;
}

static void draw_program (Draw *self, ModelProgram *program, guint most, guint depth);

static void
draw_op (Draw *self, ModelOp *op, guint depth)
{
  ModelScenario *scenario = self->scenario;
  const ModelKind *kind = draw_kind (self);
  guint cancellable = model_random_below (&self->random, 2 * MODEL_CANCELLABLES);

  op->id = ++scenario->n_ops;
  op->kind = kind;
  op->loop = model_random_below (&self->random, scenario->n_loops);
  op->priority = model_random_one_in (&self->random, 3)
                     ? model_random_below (&self->random, MODEL_PRIORITIES)
                     : 0;
  op->timeout = draw_timeout (self);
  op->delay = model_random_below (&self->random, 4);
  op->mode = model_random_one_in (&self->random, 3) ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN;
  op->cancellable = scenario->gentle || cancellable > MODEL_CANCELLABLES ? 0 : cancellable;
  op->variant = (guint) model_random_next (&self->random) & 0xffff;

  if ((kind->flags & MODEL_HAS_FUNC) != 0)
    draw_program (self, &op->func, MAX_NESTED, depth + 1);
  if ((kind->flags & MODEL_HAS_DESTROY) != 0)
    draw_program (self, &op->destroy, MAX_NESTED, depth + 2);
  if ((kind->flags & MODEL_HAS_REPLY) != 0)
    draw_program (self, &op->reply, MAX_NESTED, depth + 2);
}

static void
clear_program (ModelProgram *program)
{
  for (guint i = 0; i < program->n; i++)
    {
      clear_program (&program->ops[i].func);
      clear_program (&program->ops[i].destroy);
      clear_program (&program->ops[i].reply);
    }
  g_free (program->ops);
}

static void
draw_program (Draw *self, ModelProgram *program, guint most, guint depth)
{
  guint n = depth > MAX_DEPTH ? 0 : model_random_below (&self->random, most + 1);
  GArray *ops = g_array_new (FALSE, TRUE, sizeof (ModelOp));

  for (guint i = 0; i < n; i++)
    {
      ModelOp op = { 0 };

      draw_op (self, &op, depth);
      if (is_allowed (self, op.kind)
          && (self->options->skipped == NULL
              || !g_hash_table_contains (self->options->skipped, GUINT_TO_POINTER (op.id))))
        {
          g_array_append_val (ops, op);
        }
      else
        {
          clear_program (&op.func);
          clear_program (&op.destroy);
          clear_program (&op.reply);
        }
    }

  program->n = ops->len;
  program->ops = (gpointer) g_array_free (ops, FALSE);
}

ModelScenario *
model_scenario_draw (guint64 seed, const ModelOptions *options)
{
  static const guint lingers[] = { 0, 50, 50, 1000 };
  ModelScenario *self = g_new0 (ModelScenario, 1);
  Draw draw = { .scenario = self, .options = options };

  model_random_init (&draw.random, seed);
  for (guint i = 0; i < model_n_kinds; i++)
    draw.weights += model_kinds[i].weight;

  self->seed = seed;
  self->n_loops = 1 + model_random_below (&draw.random, MODEL_LOOPS);
  self->n_threads = 1 + model_random_below (&draw.random, MODEL_THREADS);
  self->gentle = model_random_one_in (&draw.random, 4);
  self->owns_loops = !model_random_one_in (&draw.random, 3);
  self->patience = model_random_below (&draw.random, 8);
  for (guint i = 0; i < self->n_loops; i++)
    {
      self->linger[i] = lingers[model_random_below (&draw.random, G_N_ELEMENTS (lingers))];
      self->has_handler[i] = model_random_one_in (&draw.random, 4);
      if (self->has_handler[i])
        draw_program (&draw, &self->handlers[i], MAX_NESTED, 1);
      if (model_random_one_in (&draw.random, 6))
        draw_program (&draw, &self->destructors[i], MAX_NESTED, 2);
    }
  for (guint i = 0; i < self->n_threads; i++)
    {
      self->leaves[i] = !self->gentle && model_random_one_in (&draw.random, 8);
      draw_program (&draw, &self->threads[i], MAX_OPS, 0);
    }

  return self;
}

void
model_scenario_free (ModelScenario *self)
{
  for (guint i = 0; i < MODEL_THREADS; i++)
    clear_program (&self->threads[i]);
  for (guint i = 0; i < MODEL_LOOPS; i++)
    {
      clear_program (&self->handlers[i]);
      clear_program (&self->destructors[i]);
    }
  g_free (self);
}

static void
print_program (const ModelProgram *program, const char *what, int indent)
{
  if (program->n > 0)
    fprintf (stderr, "%*s%s:\n", indent, "", what);
  for (guint i = 0; i < program->n; i++)
    {
      const ModelOp *op = &program->ops[i];

      fprintf (stderr, "%*s%u %s loop %u priority %d timeout %d delay %u %s cancellable %u variant %u\n",
               indent + 2, "", op->id, op->kind->name, op->loop, priorities[op->priority],
               op->timeout, op->delay, op->mode == BG_SHUTDOWN_CANCEL ? "CANCEL" : "DRAIN",
               op->cancellable, op->variant);
      print_program (&op->func, "function", indent + 4);
      print_program (&op->destroy, "destroy", indent + 4);
      print_program (&op->reply, "reply", indent + 4);
    }
}

void
model_scenario_print (const ModelScenario *self)
{
  fprintf (stderr, "seed %" G_GUINT64_FORMAT ": %u loops, %u threads, patience %u ms%s%s\n",
           self->seed, self->n_loops, self->n_threads, self->patience,
           self->gentle ? ", gentle" : "", self->owns_loops ? "" : ", loops are dropped");
  for (guint i = 0; i < self->n_loops; i++)
    {
      fprintf (stderr, "  loop %u: linger %u%s\n", i, self->linger[i],
               self->has_handler[i] ? ", a handler of its cancellable" : "");
      print_program (&self->handlers[i], "handler", 4);
      print_program (&self->destructors[i], "thread-local destructor", 4);
    }
  for (guint i = 0; i < self->n_threads; i++)
    {
      g_autofree char *name = g_strdup_printf ("thread %u%s", i,
                                               self->leaves[i] ? ", waits for no reply" : "");

      print_program (&self->threads[i], name, 2);
    }
}
