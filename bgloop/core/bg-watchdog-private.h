/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* What a loop has got to: it gets on as long as this changes. */
typedef struct
{
  guint64 run;
  guint polls;
  gpointer func;
  gint64 started_at;
  gint64 awake_at;
} BgProgress;

/* What the watchdog knows of a loop. */
typedef struct
{
  _Atomic guint threshold_msec; /* atomic, written under lock; 0: nobody watches */

  /* under the watchdog's lock */
  GList link;        /* its data is the core */
  gboolean linked;   /* among those that are watched */
  BgProgress seen;   /* at the last look */
  gint64 on_at;      /* when the loop was last seen to have got on, monotonic microseconds */
  gint64 since;      /* since when it has not, for certain */
  gboolean reported; /* that it does not */
  gpointer func;     /* (nullable) of what was reported */
  char *source;      /* (owned) (nullable) the name of its source */
} BgWatch;

void bg_watch_init (BgWatch *self, BgCore *core);
void bg_watch_clear (BgWatch *self);
void bg_watch_begin (BgWatch *self);
void bg_watch_end (BgWatch *self);
guint bg_watch_get_threshold (BgWatch *self);
gboolean bg_watch_set_threshold (BgWatch *self, guint msec);

G_END_DECLS
