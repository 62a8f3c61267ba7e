/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <bgloop/inbox/bg-inbox-private.h>

G_BEGIN_DECLS

typedef enum
{
  BG_PAUSE_NONE,
  BG_PAUSE_ASKED,
  BG_PAUSE_STANDING,
  BG_PAUSE_STEPPING,
} BgPausePhase;

/* Something that a loop does for a test while it stands still: a GRcBox of whoever
 * waits for it and the loop. */
typedef struct _BgStep BgStep;

struct _BgStep
{
  gboolean over;
  int ran;       /* 0: there was nothing to do; -1: the pause ended first */
  BgStep *outer; /* (owned) (nullable) that this one is done within */
};

/* A loop that stands still for a test, all of it under lock: see testing/bg-test-pause.c. */
typedef struct
{
  BgPausePhase phase;
  BgRecord *slot;        /* (nullable) (unowned) the request, as long as it has not started */
  BgStep *step;          /* (owned) (nullable) the next one, until it begins */
  BgStep *current;       /* (owned) (nullable) that the loop's thread does now */
  _Atomic (gpointer) by; /* (owned) (nullable) the GThread that paused it, or stepped last */
} BgPause;

G_END_DECLS
