/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

/* For programs that the insides are part of: a cancellation that comes after the cancellable was
 * found not to be cancelled, and before the handler is there. What is included below connects by
 * connect_or_cancel() in place of g_signal_connect_data(). */

static gboolean cancels_first;

static gulong
connect_or_cancel (gpointer instance,
                   const char *signal,
                   GCallback handler,
                   gpointer data,
                   GClosureNotify destroy_data,
                   GConnectFlags flags)
{
  if (cancels_first)
    g_cancellable_cancel (instance);
  return g_signal_connect_data (instance, signal, handler, data, destroy_data, flags);
}

#define g_signal_connect_data connect_or_cancel
