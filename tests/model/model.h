/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bgloop.h>

G_BEGIN_DECLS

/* A random tester. A seed draws a scenario: loops, threads, and for each thread a program
 * of operations, whose functions, destroy notifies and callbacks have programs in turn.
 * It is run for real, and each thing that happens is held against the promises of the
 * library: what is said about a piece of work is in its ledger (model-piece.c), who may be
 * refused is in the graph of waits (model-graph.c), and what must be gone at the end is
 * counted (model-run.c). The drawing never looks at what happens: a seed is a scenario. */

#define MODEL_LOOPS        4
#define MODEL_THREADS      6
#define MODEL_CANCELLABLES 3
#define MODEL_PRIORITIES   4
#define MODEL_ACTORS       256

/* Numbers */

typedef struct
{
  guint64 state;
} ModelRandom;

void model_random_init (ModelRandom *self, guint64 seed);
guint64 model_random_next (ModelRandom *self);
guint model_random_below (ModelRandom *self, guint n);
gboolean model_random_one_in (ModelRandom *self, guint n);

/* Scenarios */

typedef struct _ModelOp ModelOp;
typedef struct _ModelKind ModelKind;
typedef struct _Model Model;

typedef struct
{
  guint n;
  ModelOp *ops; /* (owned) */
} ModelProgram;

struct _ModelOp
{
  guint id; /* in the order in which they are drawn */
  const ModelKind *kind;
  guint loop;
  guint priority; /* an index */
  int timeout;
  guint delay;
  BgShutdownMode mode;
  guint cancellable; /* 0: none */
  guint variant;     /* what else the kind wants to know */
  ModelProgram func;
  ModelProgram destroy;
  ModelProgram reply;
};

/* Something that a program can do. @functions are those of the public interface that it
 * calls, separated by spaces. */
struct _ModelKind
{
  const char *name;
  const char *functions;
  guint weight;
  enum
  {
    MODEL_HAS_FUNC = 1 << 0,
    MODEL_HAS_DESTROY = 1 << 1,
    MODEL_HAS_REPLY = 1 << 2,
    MODEL_IS_ROUGH = 1 << 3, /* what comes after may not happen: not in gentle scenarios */
    MODEL_FORKS = 1 << 4,
  } flags;
  void (*run) (Model *model, const ModelOp *op, BgLoop *loop);
};

extern const ModelKind model_kinds[];
extern const guint model_n_kinds;

typedef struct
{
  guint64 seed;
  guint n_loops;
  guint n_threads;
  guint n_ops;
  guint linger[MODEL_LOOPS];
  gboolean gentle;      /* nothing is cut off: all that is accepted has to run */
  gboolean owns_loops;  /* the main thread has a reference to each until the end */
  gboolean has_handler[MODEL_LOOPS];
  guint patience;       /* milliseconds, until the end is asked for */
  ModelProgram threads[MODEL_THREADS];
  gboolean leaves[MODEL_THREADS]; /* does not wait for replies */
  ModelProgram handlers[MODEL_LOOPS];
  ModelProgram destructors[MODEL_LOOPS];
} ModelScenario;

typedef struct
{
  const char *const *without; /* (nullable) kinds */
  GHashTable *skipped;        /* (nullable) ids of operations */
  gboolean can_fork;
} ModelOptions;

ModelScenario *model_scenario_draw (guint64 seed, const ModelOptions *options);
void model_scenario_free (ModelScenario *self);
void model_scenario_print (const ModelScenario *self);
int model_get_priority (guint index);

/* What is known of a loop beside what it says itself */
typedef struct
{
  GWeakRef ref;
  int cancels; /* atomic: CANCEL was asked for */
  int ends;    /* atomic: its end was asked for, by whatever way */
  int over;    /* atomic: somebody was told that it has ended */
  guint last[MODEL_PRIORITIES][MODEL_ACTORS]; /* of each actor, that ran; of its thread */
} ModelLoop;

/* Whose program something runs: a thread's or a loop's */
typedef struct
{
  Model *model;
  guint index;
} ModelRunner;

struct _Model
{
  const ModelScenario *scenario;
  ModelLoop loops[MODEL_LOOPS];
  ModelRunner runners[MODEL_LOOPS]; /* of the loops */
  GThread *askers[MODEL_LOOPS];     /* (nullable) who asked the loop to end */
  GCancellable *cancellables[MODEL_CANCELLABLES + 1];
  int n_threads_left; /* atomic */
  int over;           /* atomic: nobody iterates a context any more, but loops that come and go */

  GMutex lock;

  /* under lock */
  GPtrArray *pieces;
  GArray *holds;    /* of ModelHold */
  GPtrArray *tasks; /* of GTask: operations that somebody has to answer */
};

typedef struct
{
  BgLoop *loop; /* (owned) */
  guint64 id;
} ModelHold;

void model_run (const ModelScenario *scenario);
void model_run_program (Model *self, const ModelProgram *program);
void model_release_holds (Model *self);
void model_answer_tasks (Model *self);
void model_check_over (Model *self, guint loop);
void model_ask (Model *self, guint loop, BgShutdownMode mode);

/* Says what does not hold, and ends the program. */
void model_fail (const char *format, ...) G_GNUC_PRINTF (1, 2) G_GNUC_NORETURN;
#define model_check(condition, ...)                                                                \
  G_STMT_START                                                                                     \
  {                                                                                                \
    if (G_UNLIKELY (!(condition)))                                                                 \
      model_fail (__VA_ARGS__);                                                                    \
  }                                                                                                \
  G_STMT_END

/* Pieces of work */

typedef struct
{
  Model *model;
  const ModelOp *op;
  guint loop;
  guint actor; /* who gave it */
  guint from;  /* on which loop's thread; MODEL_LOOPS: none of the scenario's */
  guint seq;   /* among that actor's of the loop and priority; 0: it has no place in that order */
  gboolean has_destroy;
  gboolean has_reply;
  gboolean is_task; /* a reply of GLib's */
  gboolean waits_for_end;
  GMainContext *context; /* (unowned) of the reply; only compared */

  /* atomic */
  int accepted; /* 0: not yet known; 1; or -1: it was refused */
  int ran;
  int destroyed;
  int replied;
  int excused;   /* 1: it may never run though it was accepted; -1: it has to, also after CANCEL */
  int abandoned; /* nobody iterates the context of the reply any more */
  gboolean is_last; /* given by what runs last on a loop: its reply may find nobody */
} ModelPiece;

ModelPiece *
model_piece_new (Model *model, const ModelOp *op, gboolean has_destroy, gboolean has_reply);
void model_piece_set_ordered (ModelPiece *self);
void model_piece_settle (ModelPiece *self, gboolean accepted);
void model_piece_begin (ModelPiece *self);
void model_piece_end (ModelPiece *self);
void model_piece_destroy_cb (gpointer data);
void model_piece_note_reply (ModelPiece *self);
gboolean model_is_closed_from (const ModelPiece *self);
void model_piece_check_final (ModelPiece *self);
guint model_get_actor (void);
void model_run_last (Model *model, const ModelProgram *program);

/* Waits. Before a call that may wait for the loop, and after it. */
guint model_wait_begin (guint loop);
void model_wait_end (guint wait, guint loop, const GError *error, const char *what);
void model_graph_init (void);
guint model_enter_handler (guint loop);
void model_leave_handler (guint before);
void model_set_own_loop (guint loop);
guint model_get_own_loop (void);

/* Hangs */
void model_hang_install (guint seconds);
void model_hang_set (const ModelScenario *scenario);

G_END_DECLS
