/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/core/bg-core-private.h>
#include <bgloop/bg-loop.h>

G_BEGIN_DECLS

struct _BgLoop
{
  GObject parent_instance;

  BgCore *core; /* (owned) immutable */
};

BgLoop *bg_loop_dup_from_core (BgCore *core);
void bg_loop_unpublish (BgCore *core);
void bg_loop_hand_over_answers (BgCore *core);
GPtrArray *bg_loop_list_work (BgCore *core);

G_END_DECLS
