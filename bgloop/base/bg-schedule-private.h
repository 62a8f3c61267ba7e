/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Where one thread hands something over to another one, and a third may come in between: at
 * locks, and where an atomic variable does what a lock would. Of no cost without
 * -Dlock_checks=true. */
typedef enum
{
  BG_POINT_LOCK,   /* before a lock is taken */
  BG_POINT_UNLOCK, /* after it was given up */
  BG_POINT_LOOKS,  /* a thread has the lock of an inbox, and is to go through what there is */

  BG_POINT_WAITER_HEEDS,     /* its cancellable was looked at, and gets its handler */
  BG_POINT_WAITER_HEEDING,   /* and has it, and is looked at again */
  BG_POINT_WAITER_LIES_DOWN, /* the thread has the lock, and is not marked as asleep */
  BG_POINT_WAITER_SLEEPS,    /* it is, and has found nothing that ends its wait */
  BG_POINT_WAITER_COMPLETES, /* somebody is about to complete the wait */
  BG_POINT_WAITER_COMPLETED, /* has completed it, and the waiter may be another wait's */
  BG_POINT_WAITER_LOOKED_AT, /* a wait was found not to be completed */

  BG_POINT_EXPIRY_HEEDS,   /* an asynchronous wait's cancellable was looked at likewise, */
  BG_POINT_EXPIRY_HEEDING, /* and has its handler */

  BG_POINT_DELAY_STARTS,  /* delayed work that is due is about to start */
  BG_POINT_DELAY_CANCELS, /* or not to, since it was withdrawn */

  BG_POINT_CORE_REFERS,   /* somebody has seen references to a core, and adds one */
  BG_POINT_CORE_UNREFS,   /* gives one back */
  BG_POINT_CORE_GOES,     /* has given back the last, and frees it */
  BG_POINT_CORE_SEEN,     /* knows the core's state, or whether it cancels */
  BG_POINT_CORE_HEEDS,    /* the core's cancellable has no handler, and gets one */
  BG_POINT_CORE_HEEDING,  /* and has it, and the thread may have ended */
  BG_POINT_CORE_UNHEEDED, /* it is about to lose it */

  BG_POINT_LINGER_BEGINS,     /* nothing is to be done, and the thread is about to linger */
  BG_POINT_LINGER_INTERRUPTS, /* it is about to be told not to */
  BG_POINT_LINGER_AWAITS,     /* or that somebody waits for what was appended */
  BG_POINT_LINGER_FORGETS,    /* it is about to forget that it was told not to */

  BG_POINT_WATCH_NAMES, /* something has blocked a loop for too long, and is about to be named */

  BG_N_POINTS,
} BgPoint;

/* What a thread does at a point. */
typedef enum
{
  BG_SCHEDULE_GO_ON,
  BG_SCHEDULE_YIELD,
  BG_SCHEDULE_SLEEP,
} BgScheduleStep;

/* How many microseconds a thread is to stay at a point. */
typedef guint (*BgScheduleFunc) (BgPoint point);

#if BG_LOCK_CHECKS
void bg_schedule_point (BgPoint point);
BgScheduleStep bg_schedule_draw (guint32 *state, guint *usec);
void bg_schedule_set_func (BgScheduleFunc func);
#else
#define bg_schedule_point(point)
#endif

G_END_DECLS
