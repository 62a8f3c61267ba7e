/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-macros-private.h>

/* Any thread: each counts for itself which locks it has. Compiled only with
 * -Dlock_checks=true. */

static BG_THREAD_LOCAL guint n_held[BG_N_LOCK_RANKS];

static void
assert_none_from (BgLockRank rank, const char *what)
{
  for (guint i = rank; i < BG_N_LOCK_RANKS; i++)
    {
      if (n_held[i] > 0)
        g_error ("Locks: %s of rank %u under one of rank %u", what, (guint) rank, i);
    }
}

/* Before a lock is taken, so that a thread that would wait for itself is seen, too. */
void
bg_lock_note_taken (BgLockRank rank)
{
  gboolean several = rank == BG_LOCK_MAILBOX && n_held[BG_LOCK_WAITS] > 0;

  assert_none_from (several ? rank + 1 : rank, "one");
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
  assert_none_from (0, "code of others");
}
