/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

#include <bgloop/base/bg-schedule-private.h>

G_BEGIN_DECLS

/* The order of locks: while a thread has one, it takes only later ones. No code of others
 * runs under any of them. With -Dlock_checks=true a thread that breaks the order ends the
 * process, and so does a loop that runs queued work under a lock; and where a lock is taken or
 * given up, other threads may get ahead: see bg-schedule-private.h. */
typedef enum
{
  BG_LOCK_DEFAULT_LOOP,
  BG_LOCK_REGISTRY,
  BG_LOCK_WATCHDOG,
  BG_LOCK_CORE,    /* which is its inbox's, with those that decide who has it next */
  BG_LOCK_WAITS,   /* of who waits for whom */
  BG_LOCK_MAILBOX, /* which is its inbox's; several at once under the waits' */
  BG_LOCK_WAITER,
  BG_LOCK_LEAF, /* any other, under which nothing else is locked */
  BG_N_LOCK_RANKS,
} BgLockRank;

#if BG_LOCK_CHECKS
void bg_lock_note_taken (BgLockRank rank);
void bg_lock_note_given_up (BgLockRank rank);
void bg_lock_assert_none (void);
#else
#define bg_lock_note_taken(rank)
#define bg_lock_note_given_up(rank)
#define bg_lock_assert_none()
#endif

static inline void
bg_mutex_lock (GMutex *mutex, BgLockRank rank)
{
  bg_schedule_point (BG_POINT_LOCK);
  bg_lock_note_taken (rank);
  g_mutex_lock (mutex);
}

static inline void
bg_mutex_unlock (GMutex *mutex, BgLockRank rank)
{
  g_mutex_unlock (mutex);
  bg_lock_note_given_up (rank);
  bg_schedule_point (BG_POINT_UNLOCK);
}

G_END_DECLS
