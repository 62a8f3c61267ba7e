/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What keeps a loop busy, in words or in short. Any thread, without the core's lock. */

typedef struct _BgCore BgCore;

GPtrArray *bg_core_list_work (BgCore *core);
void bg_core_peek_work (BgCore *core, gboolean *works, gboolean *held);

G_END_DECLS
