/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What a thread does at a point where another one may come in between. */
typedef enum
{
  BG_SCHEDULE_GO_ON,
  BG_SCHEDULE_YIELD,
  BG_SCHEDULE_SLEEP,
} BgScheduleStep;

void bg_schedule_point (void);
BgScheduleStep bg_schedule_draw (guint32 *state, guint *usec);

G_END_DECLS
