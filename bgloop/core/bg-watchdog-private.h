/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* Where a loop's thread is: it has got on when this is another place. */
typedef struct
{
  guint steps;
  guint left; /* of its batches */
  gboolean awake;
} BgPlace;

/* What the watchdog knows of a loop. */
typedef struct
{
  _Atomic guint threshold_msec; /* atomic, written under the watchdog's lock; 0: nobody watches */
  _Atomic gboolean began;       /* atomic: the loop's thread has */

  /* under the watchdog's lock */
  GList link;        /* its data is the core */
  gboolean linked;   /* among those that are watched */
  BgPlace place;     /* at the last look */
  gint64 since;      /* since when it is there for certain, monotonic microseconds */
  gint64 seen_at;    /* when it last was */
  gboolean reported; /* that it stays there */
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
