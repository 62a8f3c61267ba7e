/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/bg-delay-private.h>
#include <bgloop/bg-inbox-private.h>
#include <bgloop/bg-loop.h>
#include <bgloop/bg-wait-private.h>
#include <bgloop/bg-waiter-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;
typedef struct _BgGlobals BgGlobals;
typedef struct _BgBlocked BgBlocked;
typedef struct _BgHold BgHold;
typedef struct _BgInvoke BgInvoke;
typedef struct _BgPause BgPause;
typedef struct _BgStep BgStep;
typedef struct _BgTeardown BgTeardown;
typedef struct _BgMailbox BgMailbox;

/* Somebody who waits for a piece of work. A CANCEL shutdown takes it out of the
 * core's list and calls @close without the lock. */
struct _BgBlocked
{
  GList link;
  gboolean listed;
  gboolean closed;
  BgRecord *slot; /* (nullable) (unowned) the work, as long as it has not started */
  int priority;   /* of the work */
  BgWaiter *waiter;
  void (*close) (BgBlocked *self);
};

/* What keeps the loop from ending. */
struct _BgHold
{
  GList link;
  guint64 id;                /* 0: an operation that has not answered */
  char *reason;              /* (nullable) (owned) of a hold */
  gpointer func;             /* of an operation */
  GCancellable *cancellable; /* (nullable) (unowned) of an operation that has begun */
  gint64 since;
};

/* A function given to bg_loop_invoke_full(). */
struct _BgInvoke
{
  GList link;
  int ref_count; /* atomic: one for the list, one for the source */
  BgCore *core;  /* (owned) */
  int priority;
  GSourceFunc func;
  gpointer data;
  GDestroyNotify notify;
  BgRecordFunc outcome;

  /* under lock */
  gboolean listed;
  gboolean running;
};

typedef enum
{
  BG_PAUSE_NONE,
  BG_PAUSE_ASKED,
  BG_PAUSE_STANDING,
  BG_PAUSE_STEPPING,
} BgPausePhase;

/* Something that a loop does for a test while it stands still: a GRcBox of whoever
 * waits for it and the loop. */
struct _BgStep
{
  gboolean over;
  int ran; /* 0: there was nothing to do; -1: the pause ended first */
};

/* A loop that stands still for a test, all of it under lock: see bg-test-loops.c. */
struct _BgPause
{
  BgPausePhase phase;
  BgRecord *slot;        /* (nullable) (unowned) the request, as long as it has not started */
  BgStep *step;          /* (owned) (nullable) the next one, until it begins */
  _Atomic (gpointer) by; /* (owned) (nullable) the GThread that paused it, or stepped last */
};

struct _BgTeardown
{
  GList link;
  guint64 id;
  BgPostFunc func;
  gpointer data;
  GDestroyNotify destroy;
};

/* What the loop's thread owns. The BgLoop that people hold has one reference,
 * the thread another, and so the object may go at any time. */
struct _BgCore
{
  int ref_count; /* atomic */

  /* immutable */
  char *name;
  GMainContext *context; /* (nullable) without a descriptor for one there is none */
  GMainLoop *main_loop;  /* (nullable) */
  GError *failure;       /* (nullable) why it could not be started */
  GCancellable *cancellable;
  guint generation; /* the process that the loop lives in */
  guint64 serial;   /* a loop made later has a higher one */
  gint64 since;
  long thread_id; /* the system's, once it runs */

  /* of whoever starts it, until its thread runs */
  BgWaiter *starter; /* (unowned) (nullable) */

  /* Its lock is the core's: admission, state and everything here down to
   * «atomic» is under it. Locks are taken in this order: default, globals, core,
   * the waits' one, mailbox, a waiter's or GLib's own. */
  BgInbox inbox;
  GCond changed;
  gboolean closed; /* nothing is taken any more, from nobody */
  GThread *thread; /* (owned) (nullable) until somebody joins it or lets it go */
  gboolean joined;
  gboolean ended;   /* written by the loop's thread: everything has had its outcome */
  gboolean gone;    /* the thread has nothing more to do, or never ran */
  guint n_handling; /* threads that run the handlers of the cancellable */
  gboolean dropped; /* nobody has the object any more */
  gpointer object;  /* (unowned) (nullable) the BgLoop, until it is disposed of */
  guint n_claims;   /* threads that are about to refer to the object */
  guint n_granted;  /* of them, those for whom it refers to itself */
  guint64 refused;
  guint64 withdrawn; /* pieces of work that were taken back before they started */
  guint64 last_hold;
  GQueue holds;        /* of BgHold */
  GHashTable *held;    /* (nullable) of BgHold that have an id, by that */
  GQueue blocked;      /* of BgBlocked */
  GQueue answered;     /* of operations (owned), whose answers are to be handed over */
  GQueue invokes;      /* of BgInvoke (owned) */
  GQueue end_watchers; /* of BgBlocked: to be closed when the loop has ended */
  guint64 last_teardown;
  GQueue teardowns;      /* of BgTeardown */
  GHashTable *torn_down; /* (nullable) of BgTeardown, by id */
  BgDelays delays;
  GSource *timer;                /* (nullable) */
  guint n_sources;               /* the inbox's apart, that the library put into the context */
  GPtrArray *arriving;           /* (nullable) of GSource, that were attached */
  GPtrArray *spare_cancellables; /* (nullable) of GCancellable: to be used again */
  GArray *priorities;            /* (nullable) of sources that were attached, some of them */
  BgPause pause;

  /* atomic, written under lock */
  _Atomic int state;
  _Atomic gboolean cancelling;
  _Atomic gboolean has_attached; /* once a source was attached */
  _Atomic guint n_arriving;      /* as long as that list is */

  _Atomic gulong cancelled_handler; /* once an operation was given to the loop */

  /* atomic, written by the loop's thread */
  _Atomic gint64 awake_since; /* monotonic microseconds; 0: it sleeps */

  /* under the globals' lock */
  GList link; /* in the list of cores */

  /* under the waits' lock */
  BgActor actor;

  /* the loop's thread only */
  BgDelay *ended_delays; /* (unowned) to be given back */
  BgMailbox *mailbox;    /* (owned) (nullable) where replies to work on this loop arrive */
  gint64 wakeup_fd;      /* by which the context is woken; -1: unknown */
  gboolean finished;     /* the main loop is to return */
  GPtrArray *attached;   /* (nullable) of GSource, that may be in the context or that others may
                          * have */
  guint recheck_msec;    /* after how long to look at them again; 0: not before the next sleep */
  guint busy_polls;      /* that did not wait */
  guint n_shared;        /* of the attached, that were destroyed and that others have */
  gboolean began;        /* an operation */
  guint n_had;           /* sources that the context had had when it was cleared */
  guint n_closings;      /* of what other loops owe, in CANCEL mode */
  gboolean runs;         /* the main loop */
  gboolean exited;       /* something has ended the thread under the loop */
  int abandoned_depth;   /* g_main_depth() then */
  GPtrArray *kept;       /* (nullable) of GSource, that go with the context */
  GSource *drain;        /* (unowned) (nullable) runs what was accepted while the loop stops */
  guint starved;         /* iterations without sleep, work or an answer, while stopping */
  guint repeats;         /* invoked functions that ran and want to run again */
};

/* What all loops of a process share. */
struct _BgGlobals
{
  BgForkLocal fork_local;

  GMutex default_lock;  /* before all others; a loop may be started under it */
  BgCore *default_core; /* (owned) (nullable) atomic, written under it */

  GMutex lock;

  /* under lock */
  GHashTable *operations; /* (owned) (nullable) by id */
  gsize last_operation;
  GQueue cores; /* of BgCore (unowned), oldest first */
  guint64 last_core;
  guint n_freeing; /* cores that are not in the list any more, but not gone */
  GCond freed;
};

BgGlobals *bg_globals (void);

BgCore *bg_core_new (const char *name);
void bg_core_start (BgCore *self);
BgCore *bg_core_ref (BgCore *self);
void bg_core_unref (BgCore *self);
void bg_core_let_go (BgCore *self);

#define bg_core_lock(self)   bg_inbox_lock (&(self)->inbox)
#define bg_core_unlock(self) bg_inbox_unlock (&(self)->inbox)
BgCore *bg_core_get_current (void);
#define bg_core_is_forked(self) G_UNLIKELY ((self)->generation != bg_fork_generation ())
gboolean bg_core_is_current (BgCore *self);
gboolean bg_core_is_gone (BgCore *self);
BgLoopState bg_core_get_state (BgCore *self);
gboolean bg_core_is_cancelling (BgCore *self);
void bg_core_set_refused_error (BgCore *self, GError **error);

/* with the lock held */
#define bg_core_admits(self)                                                                       \
  (G_LIKELY (atomic_load_explicit (&(self)->state, memory_order_relaxed) == BG_LOOP_RUNNING)       \
   || bg_core_admits_late (self))
gboolean bg_core_admits_late (BgCore *self);
void bg_core_add_blocked (BgCore *self, BgBlocked *blocked);
gboolean bg_core_remove_blocked (BgCore *self, BgBlocked *blocked);
void bg_core_add_hold (BgCore *self, BgHold *hold);
void bg_core_remove_hold (BgCore *self, BgHold *hold);
BgHold *bg_core_find_hold (BgCore *self, guint64 id);
void bg_core_withdraw (BgCore *self, BgBlocked *blocked);
gboolean bg_core_add_end_watcher (BgCore *self, BgBlocked *watcher);
gboolean bg_core_remove_end_watcher (BgCore *self, BgBlocked *watcher);
gboolean bg_core_attach (BgCore *self, GSource *source);
void bg_core_drop_later (BgCore *self, gpointer data, GDestroyNotify destroy);
guint64 bg_core_add_delay (BgCore *self,
                           guint delay_msec,
                           gpointer func,
                           gpointer data,
                           GDestroyNotify destroy);
gboolean bg_core_cancel_delay (BgCore *self, guint64 id);
void bg_core_promote_due (BgCore *self);
void bg_core_set_timer (BgCore *self, gint64 due);
guint64 bg_core_add_teardown (BgCore *self, BgTeardown *teardown);
gboolean bg_core_remove_teardown (BgCore *self, guint64 id);
void bg_core_move_invoke (BgCore *self, BgInvoke *invoke);

/* without */
gboolean bg_core_wait_begin (BgCore *self, BgWait *wait, BgWaiter *waiter, GError **error);
void bg_core_post_outcome (BgRecord *slot, gpointer owner);
void bg_invoke_unref (BgInvoke *self);
void bg_invoke_abandon (BgInvoke *self);
gboolean bg_core_is_paused_by_me (BgCore *self, GError **error);
void bg_core_heed_cancellable (BgCore *self);
void bg_core_quit (BgCore *self, BgShutdownMode mode);
void bg_core_spin_for_end (BgCore *self, BgWaiter *waiter, int timeout_msec);
void bg_core_join (BgCore *self);

G_END_DECLS
