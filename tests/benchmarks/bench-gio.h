/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include "bench.h"

/* What the two programs over GLib have in common. */

/* An asynchronous operation in the style of GIO that completes at once: with a
 * GTask, or, in the variant "direct", by calling back with a result of its own. */
void bench_operation_async (BenchFunc func,
                            void *data,
                            GCancellable *cancellable,
                            GAsyncReadyCallback callback,
                            gpointer user_data);
gboolean bench_operation_finish (GAsyncResult *result, GError **error);

GSource *bench_fd_source_new (int fd, BenchFunc func, void *data);
