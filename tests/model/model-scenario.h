/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define MODEL_MAX_LOOPS   4
#define MODEL_MAX_THREADS 6
#define MODEL_N_THINGS    4
#define MODEL_DEFAULT     MODEL_MAX_LOOPS /* the slot of the default loop */

/* What an operation does. */
typedef enum
{
  MODEL_POST,
  MODEL_INVOKE,
  MODEL_CALL,
  MODEL_CALL_ASYNC,
  MODEL_RUN_TASK,
  MODEL_FLUSH,
  MODEL_PERFORM,
  MODEL_PERFORM_ASYNC,
  MODEL_ANSWER,
  MODEL_POST_AFTER,
  MODEL_WITHDRAW,
  MODEL_HOLD,
  MODEL_RELEASE,
  MODEL_TEARDOWN,
  MODEL_REMOVE_TEARDOWN,
  MODEL_ATTACH,
  MODEL_DESTROY_SOURCE,
  MODEL_QUIT,
  MODEL_SHUTDOWN,
  MODEL_SHUTDOWN_ASYNC,
  MODEL_WAIT,
  MODEL_WAIT_ASYNC,
  MODEL_RENEW,
  MODEL_DROP,
  MODEL_RESET_DEFAULT,
  MODEL_LOOK,
  MODEL_CANCEL,
  MODEL_CONNECT,
  MODEL_NEST,
  MODEL_NEST_LOOP,
  MODEL_ITERATE,
  MODEL_STALL,
  MODEL_LINGER,
  MODEL_THREAD_LOCAL,
  MODEL_FORK,
  MODEL_PAUSE,
  MODEL_STEP,
  MODEL_RESUME,
  MODEL_EXIT,
  MODEL_MISUSE,
  MODEL_FLOOD, /* from here on: apart, see model-draw-apart.c */
  MODEL_BATCH,
  MODEL_URGENT,
  MODEL_EARLIER,
  MODEL_LET_GO,
  MODEL_MEDDLE,
  MODEL_KNOT,
  MODEL_STAND_STILL,
  MODEL_LATE_CANCEL,
  MODEL_PRIORITIES,
  MODEL_CHILD_STAYS,
  MODEL_OWED,
  MODEL_CLOSING,
  MODEL_IN_HANDLER,
  MODEL_HANDED_OVER,
  MODEL_ENDLESS, /* this one and what follows are put in more seldom than the others */
  MODEL_TOGGLE,
  MODEL_N_KINDS,
} ModelKind;

#define MODEL_FIRST_APART MODEL_FLOOD

typedef struct _ModelOp ModelOp;
typedef GPtrArray ModelProgram; /* of ModelOp */

/* One operation of a program, as it was drawn. */
struct _ModelOp
{
  guint id;
  ModelKind kind;
  guint slot;  /* of the loop that it is about */
  guint thing; /* which hold, delayed work, teardown function, source or cancellable */
  int priority;
  int timeout;     /* milliseconds; -1: none */
  int cancellable; /* -1: none */
  gboolean cancel; /* the mode of a shutdown */
  guint variant;   /* what of the kind */
  guint amount;    /* how often, or for how long */
  guint burst;     /* how often one after the other */

  ModelProgram *body;    /* (nullable) of the function */
  ModelProgram *destroy; /* (nullable) of the destroy notify */
  ModelProgram *reply;   /* (nullable) of the callback */
};

/* What becomes of the main context of a thread that gives work. */
typedef enum
{
  MODEL_CONTEXT_OWN,       /* iterated until all replies have come */
  MODEL_CONTEXT_ABANDONED, /* dropped when the program is over */
  MODEL_CONTEXT_DEFAULT,   /* the process's, which another thread iterates */
} ModelContext;

typedef struct
{
  ModelContext context;
  ModelProgram *program;
} ModelThread;

/* A scenario is plain data, and the same for the same seed. */
typedef struct
{
  guint64 seed;
  guint n_loops;
  guint n_threads;
  guint n_ops;
  guint lingers[MODEL_MAX_LOOPS];
  gboolean with_teardown[MODEL_MAX_LOOPS];
  gboolean cancel_at_end[MODEL_MAX_LOOPS];
  gboolean without_descriptor; /* before anything else is tried */
  ModelThread threads[MODEL_MAX_THREADS];
} ModelScenario;

/* What is left out of what was drawn. */
typedef struct
{
  gboolean without[MODEL_N_KINDS];
  GHashTable *skipped; /* (nullable) of identifiers of operations */
} ModelFilter;

ModelScenario *model_scenario_new (guint64 seed, const ModelFilter *filter);
void model_scenario_free (ModelScenario *self);
void model_scenario_print (const ModelScenario *self, GString *text);
void model_scenario_list (const ModelScenario *self, GArray *ids);

ModelProgram *model_program_new (void);
const char *model_kind_name (ModelKind kind);
int model_kind_from_name (const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (ModelScenario, model_scenario_free)

G_END_DECLS
