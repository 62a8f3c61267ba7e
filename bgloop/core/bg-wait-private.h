/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/core/bg-deadlock-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

typedef struct _BgBlocked BgBlocked;

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

/* Who waits for the loop, and for whom it waits. */
typedef struct
{
  /* under lock */
  GQueue blocked;    /* of BgBlocked */
  guint64 withdrawn; /* pieces of work that were taken back before they started */

  /* under the waits' lock */
  BgActor actor;
} BgWaits;

/* with the core's lock */
void bg_core_add_blocked (BgCore *self, BgBlocked *blocked);
gboolean bg_core_remove_blocked (BgCore *self, BgBlocked *blocked);
void bg_core_cancel_unstarted (BgCore *self, BgBlocked *blocked);
void bg_core_count_withdrawn (BgCore *self, guint n);

/* without */
gboolean bg_core_abandon_wait (BgCore *self, BgBlocked *blocked);
void bg_blocked_complete (BgBlocked *blocked);
gboolean bg_core_is_paused_by_me (BgCore *self, GError **error);
void bg_core_abandon_pause (BgCore *self);
BgWaiter *bg_core_begin_wait (BgCore *self,
                              BgWait *wait,
                              GCancellable *cancellable,
                              GError **error);
void bg_core_end_wait (BgWait *wait, BgWaiter *waiter, GCancellable *cancellable);
void bg_core_stay_awake (BgCore *self, BgWaiter *waiter, gint64 deadline);

G_END_DECLS
