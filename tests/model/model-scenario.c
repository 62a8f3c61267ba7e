/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-scenario.h"

#include "model-draw-apart.h"
#include "model-random.h"

/* Draws scenarios. Nothing here looks at a clock or at what runs, so that a seed always gives
 * the same scenario. What a filter leaves out is drawn all the same, and then taken out, so that
 * what is left stays as it was. */

#define MAX_OPS   90
#define MAX_DEPTH 3
#define BURST     120

/* Where an operation stands: not every kind makes sense everywhere. */
typedef enum
{
  IN_THREAD = 1 << 0,
  IN_FUNCTION = 1 << 1,
  IN_NOTIFY = 1 << 2,
  IN_REPLY = 1 << 3,
  IN_HANDLER = 1 << 4,
  IN_END = 1 << 5, /* teardown functions and thread-local destructors */
  IN_LOOP = IN_FUNCTION | IN_NOTIFY | IN_REPLY | IN_END,
  ANYWHERE = (1 << 6) - 1,
} Place;

typedef struct
{
  const char *name;
  guint weight;
  Place places;
  guint percent; /* of the scenarios that have this kind at all */
} KindInfo;

static const KindInfo kinds[MODEL_N_KINDS] = {
  [MODEL_POST] = { "post", 30, ANYWHERE, 95 },
  [MODEL_INVOKE] = { "invoke", 10, ANYWHERE, 60 },
  [MODEL_CALL] = { "call", 20, ANYWHERE, 80 },
  [MODEL_CALL_ASYNC] = { "call-async", 14, ANYWHERE, 60 },
  [MODEL_RUN_TASK] = { "run-task", 5, ANYWHERE, 50 },
  [MODEL_FLUSH] = { "flush", 6, ANYWHERE, 50 },
  [MODEL_PERFORM] = { "perform", 12, ANYWHERE, 60 },
  [MODEL_PERFORM_ASYNC] = { "perform-async", 10, ANYWHERE, 60 },
  [MODEL_ANSWER] = { "answer", 10, ANYWHERE, 80 },
  [MODEL_POST_AFTER] = { "post-after", 8, ANYWHERE, 60 },
  [MODEL_WITHDRAW] = { "withdraw", 4, ANYWHERE, 60 },
  [MODEL_HOLD] = { "hold", 5, ANYWHERE, 40 },
  [MODEL_RELEASE] = { "release", 6, ANYWHERE, 90 },
  [MODEL_TEARDOWN] = { "teardown", 5, ANYWHERE, 50 },
  [MODEL_REMOVE_TEARDOWN] = { "remove-teardown", 2, ANYWHERE, 50 },
  [MODEL_ATTACH] = { "attach", 8, ANYWHERE, 50 },
  [MODEL_DESTROY_SOURCE] = { "destroy-source", 5, ANYWHERE, 60 },
  [MODEL_QUIT] = { "quit", 3, ANYWHERE, 50 },
  [MODEL_SHUTDOWN] = { "shutdown", 4, ANYWHERE, 60 },
  [MODEL_SHUTDOWN_ASYNC] = { "shutdown-async", 3, ANYWHERE, 40 },
  [MODEL_WAIT] = { "wait", 2, ANYWHERE, 40 },
  [MODEL_WAIT_ASYNC] = { "wait-async", 2, ANYWHERE, 40 },
  [MODEL_RENEW] = { "renew", 3, ANYWHERE, 60 },
  [MODEL_DROP] = { "drop", 2, ANYWHERE, 40 },
  [MODEL_RESET_DEFAULT] = { "reset-default", 2, ANYWHERE, 30 },
  [MODEL_LOOK] = { "look", 5, ANYWHERE, 60 },
  [MODEL_CANCEL] = { "cancel", 8, ANYWHERE, 70 },
  [MODEL_CONNECT] = { "connect", 5, ANYWHERE, 50 },
  [MODEL_NEST] = { "nest", 5, IN_LOOP, 50 },
  [MODEL_NEST_LOOP] = { "nest-loop", 3, IN_FUNCTION | IN_NOTIFY | IN_REPLY, 30 },
  [MODEL_ITERATE] = { "iterate", 10, IN_THREAD, 70 },
  [MODEL_STALL] = { "stall", 5, ANYWHERE, 60 },
  [MODEL_LINGER] = { "linger", 2, ANYWHERE, 20 },
  [MODEL_THREAD_LOCAL] = { "thread-local", 4, IN_LOOP, 20 },
  [MODEL_FORK] = { "fork", 3, ANYWHERE, 6 },
  [MODEL_PAUSE] = { "pause", 3, IN_THREAD, 8 },
  [MODEL_STEP] = { "step", 5, IN_THREAD, 8 },
  [MODEL_RESUME] = { "resume", 4, ANYWHERE, 8 },
  [MODEL_EXIT] = { "exit", 2, IN_FUNCTION, 3 },
  [MODEL_MISUSE] = { "misuse", 2, ANYWHERE, 10 },

  /* put in beside what is drawn */
  [MODEL_FLOOD] = { "flood" },
  [MODEL_BATCH] = { "batch" },
  [MODEL_URGENT] = { "urgent" },
  [MODEL_EARLIER] = { "earlier" },
  [MODEL_ENDLESS] = { "endless" },
  [MODEL_LET_GO] = { "let-go" },
  [MODEL_MEDDLE] = { "meddle" },
  [MODEL_KNOT] = { "knot" },
  [MODEL_STAND_STILL] = { "stand-still" },
  [MODEL_LATE_CANCEL] = { "late-cancel" },
  [MODEL_PRIORITIES] = { "priorities" },
  [MODEL_CHILD_STAYS] = { "child-stays" },
  [MODEL_OWED] = { "owed" },
  [MODEL_CLOSING] = { "closing" },
  [MODEL_IN_HANDLER] = { "in-handler" },
  [MODEL_HANDED_OVER] = { "handed-over" },
  [MODEL_TOGGLE] = { "toggle" },
};

static const int timeouts[] = { -1, -1, -1, -1, -1, 0, 0, 1, 2, 5 };
static const int priorities[] = { 0, 0, 0, 0, 0, -100, 200, 300, -1000, 7 };
static const guint lingers[] = { 50, 50, 50, 0, 1000 };

/* What a drawing has come to. */
typedef struct
{
  ModelRandom random;
  ModelScenario *scenario;
  guint weights[MODEL_N_KINDS];
  guint max_ops;
  gboolean uses_default;
  guint cancellable_percent;
  gboolean with_bursts;
} Drawing;

static ModelProgram *draw_program (Drawing *self, Place place, guint depth, guint max);

const char *
model_kind_name (ModelKind kind)
{
  return kinds[kind].name;
}

int
model_kind_from_name (const char *name)
{
  for (guint kind = 0; kind < MODEL_N_KINDS; kind++)
    if (g_str_equal (kinds[kind].name, name))
      return (int) kind;
  return -1;
}

static void
op_free (gpointer data)
{
  ModelOp *self = data;

  g_clear_pointer (&self->body, g_ptr_array_unref);
  g_clear_pointer (&self->destroy, g_ptr_array_unref);
  g_clear_pointer (&self->reply, g_ptr_array_unref);
  g_free (self);
}

ModelProgram *
model_program_new (void)
{
  return g_ptr_array_new_with_free_func (op_free);
}

static gboolean
draw_kind (Drawing *self, Place place, ModelKind *kind)
{
  guint sum = 0, at;

  for (guint i = 0; i < MODEL_N_KINDS; i++)
    sum += kinds[i].places & place ? self->weights[i] : 0;
  if (sum == 0)
    return FALSE;

  at = model_random_below (&self->random, sum);
  for (guint i = 0;; i++)
    {
      guint weight = kinds[i].places & place ? self->weights[i] : 0;

      if (at < weight)
        {
          *kind = i;
          return TRUE;
        }
      at -= weight;
    }
}

static gboolean
has_body (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_POST:
    case MODEL_INVOKE:
    case MODEL_CALL:
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_PERFORM:
    case MODEL_PERFORM_ASYNC:
    case MODEL_POST_AFTER:
    case MODEL_TEARDOWN:
    case MODEL_ATTACH:
    case MODEL_CONNECT:
    case MODEL_THREAD_LOCAL:
      return TRUE;
    default:
      return FALSE;
    }
}

static gboolean
has_destroy (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_POST:
    case MODEL_INVOKE:
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_PERFORM_ASYNC:
    case MODEL_POST_AFTER:
    case MODEL_TEARDOWN:
    case MODEL_ATTACH:
      return TRUE;
    default:
      return FALSE;
    }
}

static gboolean
has_reply (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_PERFORM_ASYNC:
    case MODEL_SHUTDOWN_ASYNC:
    case MODEL_WAIT_ASYNC:
      return TRUE;
    default:
      return FALSE;
    }
}

static gboolean
comes_in_bursts (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_POST:
    case MODEL_CALL_ASYNC:
    case MODEL_POST_AFTER:
    case MODEL_WITHDRAW:
    case MODEL_HOLD:
    case MODEL_ATTACH:
    case MODEL_CALL:
      return TRUE;
    default:
      return FALSE;
    }
}

static Place
get_body_place (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_TEARDOWN:
    case MODEL_THREAD_LOCAL:
      return IN_END;
    case MODEL_CONNECT:
      return IN_HANDLER;
    default:
      return IN_FUNCTION;
    }
}

static guint
draw_slot (Drawing *self)
{
  if (self->uses_default && model_random_chance (&self->random, 25))
    return MODEL_DEFAULT;
  return model_random_below (&self->random, self->scenario->n_loops);
}

/* Many that take their time, one after the other, are more than the loop can do at once. */
static void
draw_flood (Drawing *self, ModelOp *op)
{
  ModelOp *stall = g_new0 (ModelOp, 1);

  stall->id = self->scenario->n_ops++;
  stall->kind = MODEL_STALL;
  stall->cancellable = -1;
  stall->variant = 1;
  stall->amount = 1 + model_random_below (&self->random, 2);
  stall->burst = 1;
  if (op->body == NULL)
    op->body = model_program_new ();
  g_ptr_array_insert (op->body, 0, stall);
}

static ModelOp *
draw_op (Drawing *self, Place place, guint depth)
{
  ModelRandom *random = &self->random;
  ModelOp *op;
  ModelKind kind;

  if (!draw_kind (self, place, &kind))
    return NULL;

  op = g_new0 (ModelOp, 1);
  op->id = self->scenario->n_ops++;
  op->kind = kind;
  op->slot = draw_slot (self);
  op->thing = model_random_below (random, MODEL_N_THINGS);
  op->priority = model_random_pick (random, priorities);
  op->timeout = model_random_pick (random, timeouts);
  op->cancellable = -1;
  if (model_random_chance (random, self->cancellable_percent))
    op->cancellable = (int) model_random_below (random, MODEL_N_THINGS);
  op->cancel = model_random_chance (random, 40);
  op->variant = model_random_below (random, 1 << 16);
  op->amount = model_random_below (random, 4);
  op->burst = 1;
  if (self->with_bursts && comes_in_bursts (kind) && model_random_chance (random, 20))
    op->burst = 2 + model_random_below (random, BURST);

  if (has_body (kind))
    op->body = draw_program (self, get_body_place (kind), depth + 1, 3);
  if (has_destroy (kind))
    op->destroy = draw_program (self, IN_NOTIFY, depth + 1, 1);
  if (has_reply (kind))
    op->reply = draw_program (self, IN_REPLY, depth + 1, 2);
  if (op->burst > 1 && kind == MODEL_POST && model_random_chance (random, 30))
    draw_flood (self, op);
  return op;
}

/* NULL where there is nothing to do. */
static ModelProgram *
draw_program (Drawing *self, Place place, guint depth, guint max)
{
  ModelProgram *program;
  guint n;

  if (depth > MAX_DEPTH)
    return NULL;

  n = model_random_below (&self->random, max + 1);
  if (depth > 0 && model_random_chance (&self->random, 30))
    n = 0;
  if (n == 0 && depth > 0)
    return NULL;

  program = model_program_new ();
  for (guint i = 0; i < n && self->scenario->n_ops < self->max_ops; i++)
    {
      ModelOp *op = draw_op (self, place, depth);

      if (op != NULL)
        g_ptr_array_add (program, op);
    }
  return program;
}

/* Each scenario does few of the kinds often: with all of them at once none would be tried
 * thoroughly. */
static void
draw_weights (Drawing *self)
{
  static const guint factors[] = { 1, 1, 1, 2, 5 };

  for (guint kind = 0; kind < MODEL_FIRST_APART; kind++)
    {
      gboolean used = model_random_chance (&self->random, kinds[kind].percent);
      guint factor = model_random_pick (&self->random, factors);

      self->weights[kind] = used ? kinds[kind].weight * factor : 0;
    }
}

static void
filter_program (ModelProgram *program, const ModelFilter *filter)
{
  for (guint i = 0; program != NULL && i < program->len;)
    {
      ModelOp *op = g_ptr_array_index (program, i);

      if (filter->without[op->kind]
          || (filter->skipped != NULL
              && g_hash_table_contains (filter->skipped, GUINT_TO_POINTER (op->id))))
        {
          g_ptr_array_remove_index (program, i);
          continue;
        }

      filter_program (op->body, filter);
      filter_program (op->destroy, filter);
      filter_program (op->reply, filter);
      i++;
    }
}

ModelScenario *
model_scenario_new (guint64 seed, const ModelFilter *filter)
{
  static const guint sizes[] = { 4, 8, 12 };
  static const guint percents[] = { 0, 20, 60 };
  ModelScenario *self = g_new0 (ModelScenario, 1);
  Drawing drawing = { .scenario = self };
  ModelRandom *random = &drawing.random;
  guint size;

  self->seed = seed;
  model_random_init (random, seed);
  self->n_loops = 1 + model_random_below (random, MODEL_MAX_LOOPS);
  self->n_threads = 1 + model_random_below (random, MODEL_MAX_THREADS);
  drawing.uses_default = model_random_chance (random, 30);
  drawing.cancellable_percent = model_random_pick (random, percents);
  drawing.with_bursts = model_random_chance (random, 10);
  draw_weights (&drawing);

  for (guint i = 0; i < self->n_loops; i++)
    {
      self->lingers[i] = model_random_pick (random, lingers);
      self->with_teardown[i] = model_random_chance (random, 70);
      self->cancel_at_end[i] = model_random_chance (random, 40);
    }

  size = model_random_pick (random, sizes);
  for (guint i = 0; i < self->n_threads; i++)
    {
      ModelThread *thread = &self->threads[i];

      thread->context = model_random_below (random, 4);
      if (thread->context > MODEL_CONTEXT_DEFAULT)
        thread->context = MODEL_CONTEXT_OWN;
      drawing.max_ops = (i + 1) * MAX_OPS / self->n_threads;
      thread->program = draw_program (&drawing, IN_THREAD, 0, size);
    }

  model_draw_apart (self, random, drawing.uses_default || drawing.weights[MODEL_RESET_DEFAULT] > 0);
  for (guint i = 0; i < self->n_threads; i++)
    filter_program (self->threads[i].program, filter);
  return self;
}

void
model_scenario_free (ModelScenario *self)
{
  for (guint i = 0; i < self->n_threads; i++)
    g_ptr_array_unref (self->threads[i].program);
  g_free (self);
}

static void
list_program (const ModelProgram *program, GArray *ids)
{
  for (guint i = 0; program != NULL && i < program->len; i++)
    {
      ModelOp *op = g_ptr_array_index (program, i);

      g_array_append_val (ids, op->id);
      list_program (op->body, ids);
      list_program (op->destroy, ids);
      list_program (op->reply, ids);
    }
}

void
model_scenario_list (const ModelScenario *self, GArray *ids)
{
  for (guint i = 0; i < self->n_threads; i++)
    list_program (self->threads[i].program, ids);
}
