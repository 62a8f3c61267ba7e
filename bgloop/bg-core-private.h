/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/bg-delay-private.h>
#include <bgloop/bg-inbox-private.h>
#include <bgloop/bg-loop.h>
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
typedef struct _BgFollower BgFollower;

/* Somebody who waits for a piece of work. A CANCEL shutdown takes it out of the
 * core's list and calls @close without the lock. */
struct _BgBlocked
{
  GList link;
  gboolean listed;
  gboolean closed;
  BgRecord *slot; /* (nullable) (unowned) the work, as long as it has not started */
  BgWaiter *waiter;
  void (*close) (BgBlocked *self);
};

/* What keeps the loop from ending. */
struct _BgHold
{
  GList link;
  guint id;      /* 0: an operation that has not answered */
  char *reason;  /* (nullable) (owned) of a hold */
  gpointer func; /* of an operation */
  gint64 since;
};

/* A function given to bg_loop_invoke_full(). */
struct _BgInvoke
{
  GList link;
  int ref_count; /* atomic: one for the list, one for the source */
  BgCore *core;  /* (unowned) */
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
  BgPostFunc func;
  gpointer data;
  GDestroyNotify destroy;
};

/* A cancellable that is cancelled when the loop's is. */
struct _BgFollower
{
  GCancellable *cancellable; /* (owned) the signal handler has a reference, too */
  gulong handler;
};

/* What the loop's thread owns. The BgLoop that people hold has one reference,
 * the thread another, and so the object may go at any time. */
struct _BgCore
{
  int ref_count; /* atomic */

  /* immutable */
  char *name;
  GMainContext *context;
  GMainLoop *main_loop;
  GCancellable *cancellable;
  guint generation; /* the process that the loop lives in */
  guint64 serial;   /* a loop made later has a higher one */
  gint64 since;
  gboolean started; /* once it is */
  long thread_id;   /* the system's, once it runs */

  /* of whoever starts it, until its thread runs */
  BgWaiter *starter; /* (unowned) (nullable) */

  /* Its lock is the core's: admission, state and everything here down to
   * «atomic» is under it. Locks are taken in this order: default, globals, core,
   * waiter or reply queue, GLib's own. */
  BgInbox inbox;
  GCond changed;
  gboolean closed; /* nothing is taken any more, from nobody */
  GThread *thread; /* (owned) (nullable) until somebody joins it or lets it go */
  gboolean joined;
  gboolean dropped; /* nobody has the object any more */
  guint64 refused;
  guint64 withdrawn; /* delayed work that was cancelled */
  guint last_hold;
  gboolean holds_came_round;
  GQueue holds;        /* of BgHold */
  GQueue blocked;      /* of BgBlocked */
  GQueue invokes;      /* of BgInvoke (owned) */
  GQueue end_watchers; /* of BgBlocked: to be closed when the loop has ended */
  GArray *teardowns;   /* of BgTeardown */
  BgDelays delays;
  GSource *timer;      /* (nullable) */
  GArray *followers;   /* (nullable) of BgFollower: to be used again */
  GPtrArray *attached; /* of GSource */
  guint attached_kept; /* how many were left when the dead ones were last let go */
  BgPause pause;

  /* atomic, written under lock */
  _Atomic int state;
  _Atomic gboolean cancelling;

  /* atomic, written by the loop's thread */
  _Atomic gint64 awake_since; /* monotonic microseconds; 0: it sleeps */

  /* under the globals' lock */
  GList link;           /* in the list of cores */
  BgCore *waits_for;    /* (unowned) (nullable) */
  BgWaiter *waits_with; /* (unowned) (nullable) */

  /* the loop's thread only */
  BgDelay *ended_delays; /* (unowned) to be given back */
  BgInbox *replies;      /* (unowned) (nullable) where replies to work on this loop arrive */
  gint64 wakeup_fd;      /* by which the context is woken; -1: unknown */
  gboolean finished;
  guint repeats; /* invoked functions that ran and want to run again */
};

/* What all loops of a process share. A forked child starts with a new one:
 * whoever held its lock at the fork does not exist there. */
struct _BgGlobals
{
  guint generation;

  GMutex default_lock;   /* before all others; a loop may be started under it */
  gpointer default_loop; /* (unowned) (nullable) atomic, written under it */

  GMutex lock;

  /* under lock */
  GHashTable *operations; /* (owned) (nullable) by id */
  gsize last_operation;
  GSList *graves; /* contexts that outlive their loops */
  GQueue cores;   /* of BgCore (unowned), oldest first */
  guint64 last_core;
  guint n_freeing; /* cores that are not in the list any more, but not gone */
  GCond freed;
};

BgGlobals *bg_globals (void);
void bg_core_visit_graves (void);
gboolean bg_object_is_as_new (gpointer object, int n_refs);

BgCore *bg_core_new (const char *name);
gboolean bg_core_start (BgCore *self, GError **error);
BgCore *bg_core_ref (BgCore *self);
void bg_core_unref (BgCore *self);
void bg_core_let_go (BgCore *self);

#define bg_core_lock(self)   bg_inbox_lock (&(self)->inbox)
#define bg_core_unlock(self) bg_inbox_unlock (&(self)->inbox)
BgCore *bg_core_get_current (void);
#define bg_core_is_forked(self) G_UNLIKELY ((self)->generation != bg_fork_generation ())
gboolean bg_core_is_current (BgCore *self);
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
guint bg_core_next_hold (BgCore *self);
BgHold *bg_core_find_hold (BgCore *self, guint id);
gboolean bg_core_attach (BgCore *self, GSource *source);
void bg_core_drop_later (BgCore *self, gpointer data, GDestroyNotify destroy);
guint64 bg_core_add_delay (BgCore *self,
                           guint delay_msec,
                           gpointer func,
                           gpointer data,
                           GDestroyNotify destroy);
gboolean bg_core_cancel_delay (BgCore *self, guint64 id);
void bg_core_promote_due (BgCore *self);
void bg_core_move_invoke (BgCore *self, BgInvoke *invoke);

/* without */
void bg_core_post_outcome (BgRecord *slot, gpointer owner);
void bg_invoke_unref (BgInvoke *self);
gboolean bg_core_wait_begin (BgCore *self, BgWaiter *waiter, GError **error);
gboolean bg_core_wait_begin_for_end (BgCore *self, BgWaiter *waiter, GError **error);
gboolean bg_core_is_paused_by_me (BgCore *self);
void bg_core_wait_end (BgCore *self);
void bg_core_quit (BgCore *self, BgShutdownMode mode);
void bg_core_spin_for_end (BgCore *self, BgWaiter *waiter);
void bg_core_join (BgCore *self);

G_END_DECLS
