/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <bgloop/bgloop.h>

#include "model-scenario.h"

G_BEGIN_DECLS

/* What one run of a scenario consists of: loops, the threads that act, pieces of work. */

#define MODEL_MAX_LIVES  256
#define MODEL_MAX_PIECES 4000
#define MODEL_MAX_EDGES  8000
#define MODEL_TEST_MSEC  30 /* for which a test waits for a loop to stand still */

#define MODEL_ERROR (model_error_quark ())
GQuark model_error_quark (
    void); /* of what the functions fail with: the code is the piece's number */

typedef struct _ModelLife ModelLife;
typedef struct _ModelActor ModelActor;
typedef struct _ModelPiece ModelPiece;
typedef struct _ModelEdge ModelEdge;

/* Points in the order of everything that happens; 0: it has not happened. */
typedef guint ModelStamp;
typedef _Atomic guint ModelAtomicStamp;

/* A thread: one of the scenario's, or a loop's. */
struct _ModelActor
{
  char name[24];
  ModelLife *life; /* (nullable) whose thread this is */
  _Atomic (GThread *) thread;
  _Atomic long id;                  /* the system's */
  _Atomic (const ModelOp *) op;     /* (nullable) what it does */
  _Atomic int owed;                 /* replies that are to come in its context */
  _Atomic (GMainContext *) context; /* (nullable) its own */
  ModelContext kind;
  gboolean posted; /* what runs was, and no more than that */
  guint n_pushed;  /* thread-default contexts that nobody iterates */
};

/* A loop, from its start to its end. */
struct _ModelLife
{
  guint slot;
  guint number;
  gboolean with_teardown;
  int default_stops; /* of the default loop, before it was asked for; -1: one was under way */
  ModelActor actor;
  GMainContext *context; /* (unowned) */

  GMutex lock;
  BgLoop *loop; /* under lock, as long as there are references */
  guint refs;   /* under lock: those that the model has */

  ModelAtomicStamp stop_begin;   /* the first request to end was about to be made */
  ModelAtomicStamp stop_done;    /* had been made */
  ModelAtomicStamp cancel_begin; /* the same in CANCEL mode */
  ModelAtomicStamp cancel_done;
  ModelAtomicStamp end_begin; /* the first teardown function began */
  ModelAtomicStamp ended;     /* somebody was told that it had ended */
  _Atomic gint64 stop_time;   /* of the first request, as it was about to be made */
  _Atomic int pause_ref;      /* a reference is kept for whoever is to resume it */
  _Atomic int paused;         /* a test has had it stand still */
  _Atomic int was_paused;     /* at any time */
  _Atomic int exited;         /* a function has ended its thread */
  _Atomic int finalized;
};

/* Something that is given to a loop, or asked of it. */
struct _ModelPiece
{
  guint index;
  const ModelOp *op;
  ModelLife *life; /* (nullable) */
  ModelActor *giver;
  ModelActor *replied_to; /* (nullable) whose thread calls the callback */
  _Atomic int keeps_ref;  /* to the loop, until it is replied to */
  GCancellable *cancellable;
  gint64 time_begin;
  gint64 time_given;
  gint64 delay_usec;
  gint64 run_usec;     /* that the function took, all in all */
  ModelEdge *owed;     /* (nullable) from the loop that waits for the reply */
  gboolean is_handler; /* of a cancellable */
  guint64 id;          /* of delayed work, a teardown function, a hold */
  guint n_repeats;

  ModelStamp given_before;
  ModelAtomicStamp given_after;
  _Atomic int accepted; /* as far as the function said */
  gboolean succeeded;
  GQuark error_domain;
  int error_code;

  _Atomic int n_run, n_destroyed, n_replied, n_answered;
  _Atomic int withdrawn;
  _Atomic int failed; /* the function did so */
  _Atomic int answered_cancelled;
  gboolean destroyed_by_giver;
  gboolean no_destroy;       /* it has no destroy notify */
  gboolean cancelled_before; /* it was given with a cancellable that was cancelled */
  ModelAtomicStamp run_begin, run_end, destroyed, destroy_end, replied, answered;
};

typedef enum
{
  MODEL_OBJECT_CANCELLABLE,
  MODEL_OBJECT_RESULT,
  MODEL_OBJECT_TASK,
  MODEL_OBJECT_CONNECTION,
  MODEL_OBJECT_SUBPROCESS,
  MODEL_N_OBJECTS,
} ModelObject;

typedef struct
{
  const ModelScenario *scenario;
  gboolean verbose;
  guint limit_seconds; /* until something hangs */

  ModelLife lives[MODEL_MAX_LIVES];
  _Atomic guint n_lives;
  ModelPiece *pieces;
  _Atomic guint n_pieces;

  GMutex lock;
  ModelLife *slots[MODEL_MAX_LOOPS];          /* (nullable) each with a reference, under lock */
  GCancellable *cancellables[MODEL_N_THINGS]; /* (owned) under lock */
  ModelPiece *delays[MODEL_N_THINGS];         /* (nullable) under lock */
  ModelPiece *teardowns[MODEL_N_THINGS];
  GSource *sources[MODEL_N_THINGS]; /* (owned) (nullable) */
  ModelPiece *source_pieces[MODEL_N_THINGS];
  GMainContext *source_contexts[MODEL_N_THINGS]; /* (owned) (nullable) where it was attached */
  GQueue holds;                                  /* of ModelPiece, under lock */
  GQueue pendings; /* of operations that are to be answered, under lock */

  ModelActor threads[MODEL_MAX_THREADS];
  ModelActor janitor, closer, server;
  ModelActor any_default; /* stands for every default loop that there has been */

  _Atomic int closing;         /* nothing is to wait for the program's threads any more */
  _Atomic int finished;        /* no reply will be asked for in the process's own context */
  _Atomic int bursts;          /* operations that may still come one after the other */
  _Atomic int n_default_stops; /* that may have ended the default loop: it only grows */
  _Atomic int n_vain_stops;    /* of them, that have not */
  _Atomic int n_resets;        /* of it, that are under way */
  _Atomic int budget;          /* operations that may still be done */
  _Atomic int unfinished;      /* threads; written under the lock while they run */
  _Atomic int n_forked;        /* threads that wait for a forked child */
  GCond finished_one;          /* one of them has */
  _Atomic int n_objects[MODEL_N_OBJECTS]; /* of the model's, that are alive */
  _Atomic int n_failures;
  _Atomic int n_criticals, n_expected_criticals;
  gboolean is_child;     /* a forked one, that has returned into the loop */
  _Atomic int forgiving; /* a thread was ended under its loop: GLib itself leaks then */
} ModelWorld;

/* The model's own notes must not put in order, for ThreadSanitizer, what the library does not. */
#ifdef __SANITIZE_THREAD__
#define MODEL_ORDER memory_order_relaxed
#else
#define MODEL_ORDER memory_order_seq_cst
#endif
#define model_load(pointer)         atomic_load_explicit ((pointer), MODEL_ORDER)
#define model_store(pointer, value) atomic_store_explicit ((pointer), (value), MODEL_ORDER)
#define model_increment(pointer)    atomic_fetch_add_explicit ((pointer), 1, MODEL_ORDER)
#define model_decrement(pointer)    atomic_fetch_sub_explicit ((pointer), 1, MODEL_ORDER)

extern ModelWorld *model_world;

/* A number that others may raise, and which may exceed what there is room for. */
static inline guint
model_load_up_to (_Atomic guint *n, guint most)
{
  guint now = model_load (n);

  return MIN (now, most);
}

/* Whether the library keeps its promises in one run: how it is told if not. */
void model_fail (const char *format, ...) G_GNUC_PRINTF (1, 2);
gboolean model_run (const ModelScenario *scenario, gboolean verbose, guint limit_seconds);
gboolean model_process_is_spent (void);

ModelStamp model_stamp (void);
void model_stamp_first (ModelAtomicStamp *stamp, ModelStamp now);

/* acting */
ModelActor *model_actor_self (void);
void model_actor_set_self (ModelActor *self);
ModelActor *model_actor_enter (ModelLife *life);
void model_do_program (const ModelProgram *program);
gboolean model_program_is_outermost (void);
gboolean model_may_burst (void);
gboolean model_is_closing (void);

/* loops */
ModelLife *model_life_add (BgLoop *loop, guint slot, int stops);
gboolean model_life_was_default (ModelLife *self);
ModelLife *model_life_get (guint number);
BgLoop *model_life_take (ModelLife *self);
void model_life_give_back (ModelLife *self);
BgLoop *model_slot_take (guint slot, ModelLife **life);
void model_life_note_stop (ModelLife *self, gboolean cancel);
void model_life_note_stopped (ModelLife *self, gboolean cancel);
void model_life_note_ended (ModelLife *self);

/* pieces of work */
ModelPiece *model_piece_new (const ModelOp *op, ModelLife *life);
void model_piece_given (ModelPiece *self, gboolean accepted);
void model_piece_run_begin (ModelPiece *self);
void model_piece_run_end (ModelPiece *self);
gboolean model_piece_call_cb (gpointer data, GError **error);
void model_piece_destroy (gpointer self);
void model_piece_expect_reply (ModelPiece *self);
void model_piece_reply_begin (ModelPiece *self);
void model_piece_reply_end (ModelPiece *self);
void model_piece_drop_ref (ModelPiece *self);
void model_piece_check_error (ModelPiece *self, const GError *error);
gboolean model_piece_is_late (ModelPiece *self);
const char *model_piece_name (const ModelPiece *self);
void model_check_pieces (void);
void model_check_handlers (void);

/* who waits for whom */
struct _ModelEdge
{
  _Atomic (ModelActor *) from;
  _Atomic (ModelActor *) to;
  ModelAtomicStamp begin, end;
};

ModelEdge *model_graph_add (ModelActor *from, ModelActor *to);
void model_graph_remove (ModelEdge *edge);
gboolean model_graph_may_be_circle (ModelActor *from, ModelActor *to, ModelStamp since);
void model_graph_clear (void);

/* objects of the model's, which are all to be gone in the end */
void model_watch_object (gpointer object, ModelObject kind);
GCancellable *model_take_cancellable (int thing);

/* what is left behind */
typedef struct _ModelLeftovers ModelLeftovers;
ModelLeftovers *model_leftovers_note (void);
void model_leftovers_check (ModelLeftovers *self, gint64 patience_usec);

/* a hang */
void model_hang_init (void);
void model_hang_ask (long id);
void model_hang_answer (void);
void model_hang_report (void);

/* operations in flight */
void model_answer_all (void);
void model_release_all (void);
void model_destroy_sources (void);
gboolean model_is_always_ready (const ModelOp *op);
void model_op_answer (const ModelOp *op);
gboolean model_begin_cb (gpointer user_data,
                         GCancellable *cancellable,
                         GAsyncReadyCallback callback,
                         gpointer callback_data,
                         GError **error);
gboolean model_operation_cb (BgOperation *operation,
                             GCancellable *cancellable,
                             gpointer user_data,
                             GError **error);
void model_connect (const ModelOp *op, GCancellable *cancellable, ModelLife *life);

/* the operations themselves */
void model_op_do (const ModelOp *op);
void model_do_work (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_do_async (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_do_perform (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_do_living (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_do_ending (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_do_other (const ModelOp *op, ModelLife *life, BgLoop *loop);
void model_fork (const ModelOp *op, BgLoop *loop);
void model_fork_fail (const char *piece);

G_END_DECLS
