/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-macros-private.h>

/* Any thread: each counts for itself which locks it has. Compiled only with
 * -Dlock_checks=true. */

static BG_THREAD_LOCAL guint n_held[BG_N_LOCK_RANKS];

/* The last of those from @rank on that this thread has; below @rank if it has none. */
static int
find_last (int rank)
{
  int held = BG_N_LOCK_RANKS - 1;

  while (held >= rank && n_held[held] == 0)
    held--;
  return held;
}

/* Before a lock is taken, so that a thread that would wait for itself is seen, too. */
void
bg_lock_note_taken (BgLockRank rank)
{
  gboolean several = rank == BG_LOCK_MAILBOX && n_held[BG_LOCK_WAITS] > 0;
  int held = find_last ((int) rank + several);

  if (held >= (int) rank + several)
    g_error ("A lock of rank %d is taken under one of rank %d", (int) rank, held);
  n_held[rank]++;
}

void
bg_lock_note_given_up (BgLockRank rank)
{
  g_assert (n_held[rank] > 0);
  n_held[rank]--;
}

/* Before code of others is called. */
void
bg_lock_assert_none (void)
{
  int held = find_last (0);

  if (held >= 0)
    g_error ("Code of others is called under a lock of rank %d", held);
}
