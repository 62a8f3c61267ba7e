/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-loop.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-wait-private.h>

G_BEGIN_DECLS

/* The end of a loop, for those who wait for it: on their thread, without the core's lock. The
 * loop's own thread reports it. */

typedef struct _BgCore BgCore;

void bg_core_report_end (BgCore *self);
void bg_core_join (BgCore *self);

/* @mode: (nullable): how to end; %NULL to wait for an end that others ask for */
gboolean bg_core_end_until (BgCore *self,
                            const BgShutdownMode *mode,
                            int timeout_msec,
                            GCancellable *cancellable,
                            GError **error);
gboolean bg_core_check_end (BgCore *self, GCancellable *cancellable, GError **error);
void bg_core_end_async (BgCore *self,
                        const BgShutdownMode *mode,
                        int timeout_msec,
                        GCancellable *cancellable,
                        BgReply *reply);

G_END_DECLS
