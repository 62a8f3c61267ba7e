/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/inbox/bg-inbox-private.h>

/* What an inbox has done, in numbers. The serving thread counts, without a lock; any thread
 * may ask. */

/* The outermost batch begins. */
void
bg_inbox_begin_busy (BgInbox *self, gint64 now)
{
  bg_count (&self->counts.busy, -now);
}

/* The outermost batch, if one runs, is over. */
void
bg_inbox_end_busy (BgInbox *self, gint64 now)
{
  BgInboxCounts *counts = &self->counts;
  gint64 busy = atomic_load_explicit (&counts->busy, memory_order_relaxed);
  gint64 before = atomic_load_explicit (&counts->busy_before, memory_order_relaxed);

  if (busy >= 0)
    return;

  busy += now;
  if (busy - before > atomic_load_explicit (&counts->longest, memory_order_relaxed))
    atomic_store_explicit (&counts->longest, busy - before, memory_order_relaxed);
  atomic_store_explicit (&counts->busy_before, busy, memory_order_release);
  atomic_store_explicit (&counts->busy, busy, memory_order_release);
}

/* How long batches have run in all, and the longest, with the one that runs now. A batch that
 * has just looked at the clock for its end has not stored it yet, and seems to run a little
 * longer: no later answer is below that. */
static void
get_busy (BgInboxCounts *counts, gint64 *busy_usec, gint64 *longest_usec)
{
  gint64 busy, before, now;

  do
    {
      busy = atomic_load (&counts->busy);
      before = atomic_load (&counts->busy_before);
      *longest_usec = atomic_load (&counts->longest);
      now = g_get_monotonic_time ();
    }
  while (busy != atomic_load (&counts->busy) || before != atomic_load (&counts->busy_before));

  *busy_usec = busy < 0 ? busy + now : busy;
  *longest_usec = MAX (*longest_usec, *busy_usec - before);
  counts->told_busy = *busy_usec = MAX (*busy_usec, counts->told_busy);
  counts->told_longest = *longest_usec = MAX (*longest_usec, counts->told_longest);
}

/* What the serving thread begins from here on counts neither as queued nor as run, and never
 * as both: it takes no lock to count. */
void
bg_inbox_get_totals (BgInbox *self, BgInboxTotals *totals)
{
  totals->run = atomic_load (&self->counts.run);
  totals->cancelled = atomic_load (&self->counts.cancelled);
  totals->batches = atomic_load (&self->counts.batches);
  totals->posted = self->posted;
  totals->wakeups = self->wakeups;
  totals->queued = bg_inbox_count_queued (self);
  totals->queued_max = self->queued_max;
  get_busy (&self->counts, &totals->busy_usec, &totals->longest_usec);
}
