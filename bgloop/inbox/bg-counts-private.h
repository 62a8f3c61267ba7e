/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgInbox BgInbox;

/* Atomic, written by the serving thread, but for the last two. */
typedef struct
{
  _Atomic guint64 run;
  _Atomic guint64 cancelled;
  _Atomic guint64 batches;

  /* In microseconds. While a batch runs the first is that of all batches before, less the
   * monotonic time at which it began, and so below 0: one number, which a reader finds whole. */
  _Atomic gint64 busy;
  _Atomic gint64 busy_before; /* in all batches that are over */
  _Atomic gint64 longest;     /* of them */

  /* under the inbox's lock: the most that anybody was told */
  gint64 told_busy;
  gint64 told_longest;
} BgInboxCounts;

/* What somebody is told of them, and of what the posters have counted. */
typedef struct
{
  guint64 posted;
  guint64 run;
  guint64 cancelled;
  guint64 batches;
  guint64 wakeups;
  guint queued;
  guint queued_max;
  gint64 busy_usec;
  gint64 longest_usec;
} BgInboxTotals;

/* Adds to a counter that only this thread writes. Whoever sees it sees what came before, too. */
#define bg_count(counter, n)                                                                       \
  atomic_store_explicit ((counter), atomic_load_explicit ((counter), memory_order_relaxed) + (n),  \
                         memory_order_release)

/* the serving thread */
void bg_inbox_begin_busy (BgInbox *self, gint64 now);
void bg_inbox_end_busy (BgInbox *self, gint64 now);

/* with the lock held */
void bg_inbox_get_totals (BgInbox *self, BgInboxTotals *totals);

G_END_DECLS
