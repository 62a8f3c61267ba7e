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

/* A loop among all those of the process. */
typedef struct
{
  GList link;     /* under the globals' lock: in the list of cores */
  guint64 serial; /* immutable: a loop made later has a higher one */
  gint64 made_at; /* immutable: monotonic microseconds */
} BgRegistration;

/* The BgLoop, which may go while others are about to refer to it. Under lock. */
typedef struct
{
  gpointer object; /* (unowned) (nullable) until it is disposed of */
  gboolean dropped; /* nobody has it any more */
  guint n_claims;  /* threads that are about to refer to it */
  guint n_granted; /* of them, those for whom it refers to itself */
} BgOwnership;

typedef struct
{
  long id;           /* immutable: the system's, once it runs */
  BgWaiter *starter; /* (unowned) (nullable) of whoever starts it, until it runs */

  /* under lock */
  GThread *handle; /* (owned) (nullable) until somebody joins it or lets it go */
  gboolean joined;
  gboolean ended; /* written by the thread: everything has had its outcome */
  gboolean gone;  /* it has nothing more to do, or never ran */

  /* the thread only */
  gint64 wakeup_fd;    /* by which the context is woken; -1: unknown */
  gboolean runs;       /* the main loop */
  gboolean finished;   /* the main loop is to return */
  gboolean exited;     /* something has ended it under the loop */
  int abandoned_depth; /* g_main_depth() then */

  /* atomic, written by it */
  _Atomic gint64 awake_at; /* monotonic microseconds; 0: it sleeps */
} BgCoreThread;

/* From quit to stopped */
typedef struct
{
  /* under lock */
  gboolean closed;     /* nothing is taken any more, from nobody */
  guint n_handling;    /* threads that run the handlers of the cancellable */
  GQueue end_watchers; /* of BgBlocked: to be closed when the loop has ended */
  guint64 last_teardown;
  GQueue teardowns;      /* of BgTeardown */
  GHashTable *torn_down; /* (nullable) of BgTeardown, by id */

  /* atomic, written under lock */
  _Atomic gboolean cancelling;

  /* the loop's thread only */
  GSource *drain;   /* (unowned) (nullable) runs what was accepted while the loop stops */
  guint starved;    /* iterations without sleep, work or an answer */
  guint n_closings; /* of what other loops owe, in CANCEL mode */
} BgStopping;

/* What keeps the loop from ending. Under lock. */
typedef struct
{
  GQueue list;       /* of BgHold */
  GHashTable *by_id; /* (nullable) of BgHold that have an id */
  guint64 last_id;
} BgHolds;

/* Who waits for the loop, and for whom it waits. */
typedef struct
{
  /* under lock */
  GQueue blocked;    /* of BgBlocked */
  guint64 withdrawn; /* pieces of work that were taken back before they started */

  /* under the waits' lock */
  BgActor actor;
} BgWaits;

typedef struct
{
  /* under lock */
  GQueue answered;               /* of operations (owned), whose answers are to be handed over */
  GPtrArray *spare_cancellables; /* (nullable) of GCancellable: to be used again */

  /* atomic, written under lock */
  _Atomic gulong cancelled_handler; /* once an operation was given to the loop */

  /* the loop's thread only */
  gboolean began; /* one has */
} BgOperations;

/* Delayed work */
typedef struct
{
  /* under lock */
  BgDelays delays;
  GSource *source; /* (nullable) */

  /* the loop's thread only */
  BgDelay *ended; /* (unowned) to be given back */
} BgTimer;

/* Other people's sources */
typedef struct
{
  /* under lock */
  guint n_own;         /* the inbox's apart, that the library put into the context */
  GPtrArray *arriving; /* (nullable) of GSource, that were attached */
  GArray *priorities;  /* (nullable) of sources that were attached, some of them */

  /* atomic, written under lock */
  _Atomic gboolean has_attached; /* once a source was attached */
  _Atomic guint n_arriving;      /* as long as that list is */

  /* the loop's thread only */
  GPtrArray *attached; /* (nullable) of GSource, that may be in the context or that others may
                        * have */
  GPtrArray *kept;     /* (nullable) of GSource, that go with the context */
  guint n_shared;      /* of the attached, that were destroyed and that others have */
  guint n_had;         /* sources that the context had had when it was cleared */
  guint recheck_msec;  /* after how long to look at them again; 0: not before the next sleep */
  guint busy_polls;    /* that did not wait */
} BgSources;

typedef struct
{
  GQueue list;   /* under lock: of BgInvoke (owned) */
  guint repeats; /* the loop's thread only: those that ran and want to run again */
} BgInvokes;

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
  BgRegistration registration;

  /* Its lock is the core's. Locks are taken in this order: default, globals, core,
   * mailbox, GLib's own; the waits' one before a waiter's. */
  BgInbox inbox;
  GCond changed;
  guint64 refused;   /* under lock */
  _Atomic int state; /* atomic, written under lock */
  BgOwnership ownership;
  BgCoreThread thread;
  BgStopping stopping;
  BgHolds holds;
  BgWaits waits;
  BgOperations operations;
  BgTimer timer;
  BgSources sources;
  BgInvokes invokes;
  BgPause pause;
  BgMailbox *mailbox; /* (owned) (nullable) of the loop's thread: where replies to work on this
                       * loop arrive */
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
