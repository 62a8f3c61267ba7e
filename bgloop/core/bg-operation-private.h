/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-operation.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-report-private.h>

G_BEGIN_DECLS

/* Operations, for the verbs that wait for them: from when one is accepted, on any thread, until its
 * answer is handed over on the loop's. */

typedef enum
{
  BG_OPERATION_QUEUED,    /* begin() has not started */
  BG_OPERATION_BEGINNING, /* begin() runs; it may have answered */
  BG_OPERATION_PENDING,   /* it has returned; the operation has not answered */
  BG_OPERATION_ANSWERED,  /* it has; the answer is to be handed over */
  BG_OPERATION_ENDED,     /* it was handed over, or nobody wanted it, or it never began */
} BgPhase;

/* An operation. It holds the loop from when it is accepted until it answers,
 * whether or not anybody still waits for it.
 *
 * It has many fields since it is the call with its arguments, the hold, the wait and the answer in
 * one: one allocation, with one count of references. */
typedef struct
{
  int ref_count; /* atomic: one for whoever began it, one in the inbox or among
                  * the known operations, one in the list of the blocked, one an
                  * expiry */

  /* immutable once it is accepted */
  BgCore *core; /* (owned) */
  gsize id;
  int priority;
  GCancellable *cancellable;        /* (owned) what the operation gets */
  GCancellable *caller_cancellable; /* (owned) (nullable) */
  BgBeginFunc begin;                /* (nullable) this, or */
  BgOperationFunc func;             /* (nullable) this begins it */
  gpointer data;
  GDestroyNotify destroy;
  int timeout_msec;
  gint64 deadline; /* monotonic microseconds; -1: none */

  /* under the core's lock */
  BgHold hold;
  BgBlocked blocked;
  GList answered_link;
  BgPhase phase;
  gboolean answered;    /* there is a result or an error */
  gboolean begun;       /* begin() was or is called */
  BgWaitResult gave_up; /* why nobody waits for it any more; COMPLETED: somebody does */
  BgReport *report;     /* (owned) (nullable) what was in the way when the time was up */
  BgReply *reply;       /* (owned) (nullable) */
  GAsyncResult *result; /* (owned) (nullable) */
  GError *error;        /* (owned) (nullable) */

  /* of the loop's thread, while it begins */
  BgOperation *operation; /* (owned) (nullable) */
  GError *begin_error;    /* (owned) (nullable) */
} BgPerform;

BgPerform *bg_perform_new (BgCore *core, int priority, int timeout_msec, GCancellable *cancellable);
BgPerform *bg_perform_ref (BgPerform *self);
void bg_perform_unref (gpointer data);
BgPerform *bg_perform_from_blocked (BgBlocked *blocked);
gpointer bg_perform_get_func (BgPerform *self);

/* with the core's lock */
gboolean bg_perform_admit (BgPerform *self);
void bg_perform_add_blocked (BgPerform *self);
gboolean bg_perform_remove_blocked (BgPerform *self);
gboolean bg_perform_is_wanted (BgPerform *self);
void bg_perform_report (BgPerform *self);

/* without */
void bg_perform_set_error (BgPerform *self, GError **error);
void bg_perform_complete (BgPerform *self, BgWaiter *waiter);

/* How it is answered */
void bg_perform_publish (BgPerform *self);
BgPerform *bg_perform_unpublish (gpointer id);
void bg_perform_answer (BgPerform *self, GAsyncResult *result, GError *error);
void bg_perform_answer_cb (GObject *source, GAsyncResult *result, gpointer user_data);
gboolean bg_perform_begin_handle (BgPerform *self, GError **error);
void bg_perform_hand_over (BgPerform *self);

/* on the loop's thread */
void bg_core_hand_over_answers (BgCore *core);

G_END_DECLS
