/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-loop.h>
#include <bgloop/core/bg-core-private.h>

G_BEGIN_DECLS

struct _BgLoop
{
  GObject parent_instance;

  BgCore *core; /* (owned) immutable */
};

BgLoop *bg_loop_dup_from_core (BgCore *core);
void bg_loop_unpublish (BgCore *core);

gboolean bg_call_is_too_late (BgCore *core,
                              GCancellable *cancellable,
                              gint64 deadline,
                              int timeout_msec,
                              GError **error);
gboolean bg_call_run (BgCallFunc func, gpointer data, GError **error);

G_END_DECLS
