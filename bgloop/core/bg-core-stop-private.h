/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

#include <bgloop/bg-loop.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

typedef struct
{
  GList link;
  guint64 id;
  BgPostFunc func;
  gpointer data;
  GDestroyNotify destroy;
} BgTeardown;

/* From quit to stopped */
typedef struct
{
  /* under lock */
  gboolean closed;     /* nothing is taken any more, from nobody */
  guint n_handling;    /* threads that run the handlers of the cancellable */
  GQueue end_watchers; /* of BgBlocked: to be closed when the loop has ended */
  guint64 last_teardown;
  GQueue teardowns;      /* of BgTeardown */
  GHashTable *torn_down; /* (nullable) of BgTeardown, by id */

  /* atomic, written under lock */
  _Atomic gboolean cancelling;

  /* the loop's thread only */
  GSource *drain;        /* (unowned) (nullable) runs what was accepted while the loop stops */
  GSList *replaced;      /* of BgDrain (unowned): dispatched, though they drain no more */
  gboolean drain_is_new; /* perhaps not prepared yet: the next poll is not to sleep */
  gint64 begun;          /* for a mark of how long it did; 0 if nobody wants one */
  guint starved;         /* iterations without sleep, work or an answer */
  guint n_closings;      /* of what other loops owe, in CANCEL mode */
} BgStopping;

/* with the core's lock */
guint64 bg_core_add_teardown (BgCore *self, BgTeardown *teardown);
gboolean bg_core_remove_teardown (BgCore *self, guint64 id);
gboolean bg_core_has_replies (BgCore *self);
gboolean bg_core_is_idle (BgCore *self);
void bg_core_begin_drain (BgCore *self);
void bg_core_take_blocked (BgCore *self, GQueue *blocked);

/* without */
void bg_core_quit (BgCore *self, BgShutdownMode mode);
void bg_core_close_blocked (GQueue *blocked);
void bg_core_cancel (BgCore *self);
void bg_core_heed_cancellable (BgCore *self);
void bg_core_stop_heeding (BgCore *self);

/* on the loop's thread */
void bg_core_abandon_drain (BgCore *self);
void bg_core_run_end (BgCore *self);

G_END_DECLS
