/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/base/bg-spin-private.h>

G_BEGIN_DECLS

/* A thread that waits takes a waiter, waits, and gives it back. Any other completes the wait, or
 * breaks it. */

typedef struct _BgWaiter BgWaiter;

typedef enum
{
  BG_WAIT_COMPLETED,
  BG_WAIT_TIMED_OUT,
  BG_WAIT_CANCELLED,
  BG_WAIT_BROKEN, /* what is waited for cannot happen any more */
} BgWaitResult;

BgWaiter *bg_waiter_take (GCancellable *cancellable);
void bg_waiter_give_back (BgWaiter *self, GCancellable *cancellable);
void bg_waiter_spin (BgWaiter *self, guint limit_usec, gint64 deadline, gboolean elsewhere);
void bg_waiter_spin_for_start (BgWaiter *self, guint limit_usec);
void bg_waiter_spin_for_end (BgWaiter *self,
                             guint limit_usec,
                             gboolean elsewhere,
                             BgSpinFunc ended,
                             gpointer data);
BgWaitResult bg_waiter_wait (BgWaiter *self, gint64 deadline);
void bg_waiter_wait_completed (BgWaiter *self);
gboolean bg_waiter_complete (BgWaiter *self);
void bg_waiter_break (BgWaiter *self);
gboolean bg_waiter_is_completed (BgWaiter *self);
void bg_waiter_set_bound (BgWaiter *self, gboolean bound);
gboolean bg_waiter_is_over (BgWaiter *self);

gint64 bg_deadline (int timeout_msec);

G_END_DECLS
