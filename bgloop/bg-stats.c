/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-stats.h>

/* The type of a snapshot of a loop's numbers, which bg_core_get_stats() fills in. It belongs to
 * whoever has it, on any thread, and needs no lock. */

G_DEFINE_BOXED_TYPE (BgLoopStats, bg_loop_stats, bg_loop_stats_copy, bg_loop_stats_free)

/**
 * bg_loop_stats_copy:
 * @self: a snapshot
 *
 * Copies a snapshot.
 *
 * Returns: (transfer full): the copy; free it with [method@Bg.LoopStats.free]
 *
 * Since: 1.0
 */
BgLoopStats *
bg_loop_stats_copy (const BgLoopStats *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return g_memdup2 (self, sizeof *self);
}

/**
 * bg_loop_stats_free:
 * @self: a snapshot
 *
 * Frees a snapshot.
 *
 * Since: 1.0
 */
void
bg_loop_stats_free (BgLoopStats *self)
{
  g_return_if_fail (self != NULL);

  g_free (self);
}
