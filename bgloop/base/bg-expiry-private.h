/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/base/bg-waiter-private.h>

G_BEGIN_DECLS

/* What ends an asynchronous wait early. Any thread begins and ends it, without a lock, and on any
 * thread its function may be called. */

typedef struct _BgExpiry BgExpiry;

/* @result is BG_WAIT_TIMED_OUT or BG_WAIT_CANCELLED. */
typedef void (*BgExpiryFunc) (gpointer data, BgWaitResult result);

BgExpiry *bg_expiry_new (GMainContext *context,
                         int timeout_msec,
                         GCancellable *cancellable,
                         BgExpiryFunc func,
                         gpointer data,
                         GDestroyNotify destroy);
void bg_expiry_give_up (BgExpiry *self);
void bg_expiry_end (BgExpiry *self);

G_END_DECLS
