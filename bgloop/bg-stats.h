/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib-object.h>

#include <bgloop/bg-version.h>

G_BEGIN_DECLS

#define BG_TYPE_LOOP_STATS (bg_loop_stats_get_type ())

typedef struct _BgLoopStats BgLoopStats;

/**
 * BgLoopStats:
 * @posted: pieces of work that were accepted
 * @run: pieces of work that ran
 * @refused: pieces of work that were refused at admission
 * @cancelled: pieces of work that were accepted and never ran
 * @batches: batches in which the work ran
 * @wakeups: times that somebody handing over work had to wake the loop
 * @queued: pieces of work that are waiting now
 * @queued_max: the most that waited at once, as a batch began or somebody
 *   looked
 * @holds: what keeps the loop from stopping now: holds and operations that
 *   have not answered
 * @busy_usec: time spent in batches, in microseconds
 * @longest_usec: the longest batch, in microseconds: for so long the loop did
 *   not look at its other sources
 *
 * A snapshot of what a loop has done and has to do.
 *
 * @posted counts a piece of work when it is accepted, @run and @cancelled when
 * it has its outcome, so that @posted is @run, @cancelled, @queued and what
 * runs right now, with what waits elsewhere than in the queue: delayed work that is not due
 * and functions that were invoked. A function that ends the loop's thread may be counted as
 * neither run nor cancelled.
 *
 * Since: 1.0
 */
struct _BgLoopStats
{
  guint64 posted;
  guint64 run;
  guint64 refused;
  guint64 cancelled;
  guint64 batches;
  guint64 wakeups;
  guint64 queued;
  guint64 queued_max;
  guint64 holds;
  gint64 busy_usec;
  gint64 longest_usec;

  /*< private >*/
  guint64 padding[8];
};

BG_AVAILABLE_IN_1_0
GType bg_loop_stats_get_type (void);
BG_AVAILABLE_IN_1_0
BgLoopStats *bg_loop_stats_copy (const BgLoopStats *self);
BG_AVAILABLE_IN_1_0
void bg_loop_stats_free (BgLoopStats *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BgLoopStats, bg_loop_stats_free)

G_END_DECLS
