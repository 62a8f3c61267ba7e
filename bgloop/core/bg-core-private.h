/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/base/bg-registry-private.h>
#include <bgloop/bg-loop.h>
#include <bgloop/core/bg-core-sources-private.h>
#include <bgloop/core/bg-core-stop-private.h>
#include <bgloop/core/bg-core-thread-private.h>
#include <bgloop/core/bg-core-timer-private.h>
#include <bgloop/core/bg-invoke-private.h>
#include <bgloop/core/bg-pause-private.h>
#include <bgloop/core/bg-wait-private.h>
#include <bgloop/core/bg-watchdog-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;
typedef struct _BgMailbox BgMailbox;

/* The order of locks is in base/bg-lock-private.h. */

/* What keeps the loop from ending. */
typedef struct
{
  GList link;
  guint64 id;                /* 0: an operation that has not answered */
  char *reason;              /* (nullable) (owned) of a hold */
  gpointer func;             /* of an operation */
  GCancellable *cancellable; /* (nullable) (unowned) of an operation that has begun */
  gint64 since;
} BgHold;

/* What keeps the loop from ending. Under lock. */
typedef struct
{
  GQueue list;       /* of BgHold */
  GHashTable *by_id; /* (nullable) of BgHold that have an id */
  guint64 last_id;
} BgHolds;

/* The BgLoop, which may go while others are about to refer to it. Under lock. */
typedef struct
{
  gpointer object;  /* (unowned) (nullable) until it is disposed of */
  gboolean dropped; /* nobody has it any more */
  guint n_claims;   /* threads that are about to refer to it */
  guint n_granted;  /* of them, those for whom it refers to itself */
} BgOwnership;

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

/* What the loop's thread owns. The BgLoop that people hold has one reference,
 * the thread another, and so the object may go at any time.
 *
 * It has many fields since there is one for each part of a loop that has something to remember;
 * most of them are structs. */
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

  /* Its lock is the core's. */
  BgInbox inbox;
  GCond changed;
  guint n_waiting;   /* under lock: for it to have changed */
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
  BgWatch watch;
  BgMailbox *mailbox; /* (owned) (nullable) of the loop's thread: where replies to work on this
                       * loop arrive */
};

BgCore *bg_core_new (const char *name);
BgCore *bg_core_ref (BgCore *self);
gboolean bg_core_try_ref (BgCore *self);
void bg_core_unref (BgCore *self);
void bg_core_abandon (BgCore *self);

#define bg_core_lock(self)              bg_inbox_lock (&(self)->inbox)
#define bg_core_unlock(self)            bg_inbox_unlock (&(self)->inbox)
#define bg_core_lock_to_look(self)      bg_inbox_lock_to_look (&(self)->inbox)
#define bg_core_unlock_after_look(self) bg_inbox_unlock_after_look (&(self)->inbox)
#define bg_core_is_forked(self)         G_UNLIKELY ((self)->generation != bg_fork_generation ())

static inline const char *
bg_core_get_name (BgCore *self)
{
  return self->name;
}

static inline GMainContext *
bg_core_get_context (BgCore *self)
{
  return self->context;
}

static inline GCancellable *
bg_core_get_cancellable (BgCore *self)
{
  return self->cancellable;
}

/* (nullable) Why the loop could not be started. */
static inline const GError *
bg_core_get_failure (BgCore *self)
{
  return self->failure;
}

/* How many sources there are that were attached, without those that have only just come. */
static inline guint
bg_core_get_n_attached (BgCore *self)
{
  return self->sources.attached != NULL ? self->sources.attached->len : 0;
}

/* Where its work is queued. */
static inline BgInbox *
bg_core_get_inbox (BgCore *self)
{
  return &self->inbox;
}

/* with the lock held: until somebody says that the state, the pause or the thread has changed.
 * FALSE if @deadline, in monotonic microseconds or -1 for none, is past. */
static inline gboolean
bg_core_wait (BgCore *self, gint64 deadline)
{
  gboolean in_time;

  self->n_waiting++;
  in_time = bg_inbox_wait (&self->inbox, &self->changed, deadline);
  self->n_waiting--;
  return in_time;
}

/* with the lock held. GLib makes a system call for nobody, too. */
static inline void
bg_core_note_changed (BgCore *self)
{
  if (self->n_waiting > 0)
    g_cond_broadcast (&self->changed);
}

/* What the test kit has of it. */
static inline BgPause *
bg_core_get_pause (BgCore *self)
{
  return &self->pause;
}

/* (nullable) Where replies to work on this loop arrive. The loop's thread. */
static inline BgMailbox *
bg_core_get_mailbox (BgCore *self)
{
  return self->mailbox;
}

/* Which of the process's loops it is. */
static inline BgRegistration *
bg_core_get_registration (BgCore *self)
{
  return &self->registration;
}

/* On the loop's thread: what comes next is another thing than what was before, and what of
 * it blocks the loop is told apart. */
static inline void
bg_core_step (BgCore *self)
{
  bg_inbox_step (&self->inbox);
}

/* What reports who blocks the loop. */
static inline BgWatch *
bg_core_get_watch (BgCore *self)
{
  return &self->watch;
}

BgLoopState bg_core_get_state (BgCore *self);
gboolean bg_core_is_cancelling (BgCore *self);
void bg_core_set_refused_error (BgCore *self, GError **error);

/* with the lock held */
#define bg_core_admits(self)                                                                       \
  (G_LIKELY (atomic_load_explicit (&(self)->state, memory_order_relaxed) == BG_LOOP_RUNNING)       \
   || bg_core_admits_late (self))
gboolean bg_core_admits_late (BgCore *self);
void bg_core_add_hold (BgCore *self, BgHold *hold);
void bg_core_remove_hold (BgCore *self, BgHold *hold);
BgHold *bg_core_find_hold (BgCore *self, guint64 id);
void bg_core_drop_later (BgCore *self, gpointer data, GDestroyNotify destroy);

/* without */
gboolean bg_core_has_ended (BgCore *self);
gboolean bg_core_is_dropped (BgCore *self);
void bg_core_set_object (BgCore *self, gpointer object);
gpointer bg_core_dup_object (BgCore *self);
guint bg_core_forget_object (BgCore *self);
void bg_core_get_stats (BgCore *self, BgLoopStats *stats);
void bg_core_post_outcome (BgRecord *slot, gpointer owner);
void bg_core_drop_outcome (BgRecord *slot, gpointer owner);

G_END_DECLS
