/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-loop.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* All that is to be said of a loop, at one time */
typedef struct
{
  BgLoopState state;
  gboolean busy;      /* something runs, or is to run */
  GPtrArray *works;   /* (owned) of lines: what keeps the loop from ending */
  GPtrArray *standby; /* (owned) of lines: what does not, and is there all the same */
} BgView;

/* Any thread, without the core's lock. */
void bg_view_init (BgView *self, BgCore *core);
void bg_view_clear (BgView *self);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (BgView, bg_view_clear)

G_END_DECLS
