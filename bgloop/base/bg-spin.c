/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#if HAVE_SCHED_GETCPU || HAVE_SCHED_YIELD
#include <sched.h>
#endif
#if HAVE_UNISTD_H
#include <unistd.h>
#endif

#include <bgloop/base/bg-macros-private.h>
#include <bgloop/base/bg-spin-private.h>

/* Waiting awake, for things that are about to happen.
 *
 * A wake-up costs some ten microseconds of processor time on both sides
 * together, and tens of microseconds of delay. So it pays to wait awake for what
 * takes less than that, and costs for everything else. Each waiting place learns
 * which it is from how long its waits take, those that it sleeps through
 * included: it spins as long as the average, of which a wait counts SPIN_MAX at
 * most, is below PAYS.
 *
 * That says nothing about whether the other side can run at all meanwhile: with
 * another thread or process on the same processor it cannot, and then the wait
 * ends only because this side went to sleep. So a spin in vain is followed by
 * twice as many waits asleep as the last one, and a jump of the clock, which
 * means that the processor was taken away, by a while of quiet.
 *
 * If the other side is on this very processor, and awake, all that helps is to let
 * it run, and once is enough: two threads that do so in turn never sleep. If others
 * want the processor, it is them that run, for milliseconds. So what took long or
 * was in vain is followed by QUIET_TIMES as much of quiet, which bounds the loss. */

#define SPIN_MAX_USEC  BG_LINGER_USEC
#define PAYS_USEC      12
#define UNIT           16
#define MAX_BACKOFF    1023
#define PREEMPTED_USEC 50
#define QUIET_USEC     20000
#define QUIET_TIMES    10

/* Looks between two looks at the clock; a look takes some ten nanoseconds. */
#define POLLS 64

/* Between two looks that may be system calls. */
#define PAUSES 16

void
bg_spin_learn (BgSpin *self, gint64 took_usec)
{
  guint took = (guint) CLAMP (took_usec, 0, SPIN_MAX_USEC) * UNIT;

  self->average = (self->average * 7 + took) / 8;
}

static void
failed (BgSpin *self)
{
  self->backoff = MIN (self->backoff * 2 + 1, MAX_BACKOFF);
  self->skip = self->backoff;
}

/* Whether anything can happen while this thread spins. */
gboolean
bg_spin_is_possible (void)
{
  static int n_processors;

  if (G_UNLIKELY (g_atomic_int_get (&n_processors) == 0))
    {
      /* Not g_get_num_processors(), which says on how many this thread may be. */
#ifdef _SC_NPROCESSORS_ONLN
      long n_online = sysconf (_SC_NPROCESSORS_ONLN);

      g_atomic_int_set (&n_processors, (int) MAX (1, n_online));
#else
      g_atomic_int_set (&n_processors, (int) g_get_num_processors ());
#endif
    }

  return g_atomic_int_get (&n_processors) > 1;
}

/* The processor that this thread is on just now, or -1. Two threads on the same
 * one need not spin for each other. */
int
bg_spin_get_processor (void)
{
#if HAVE_SCHED_GETCPU
  return sched_getcpu ();
#else
  return -1;
#endif
}

/* What is left of @limit_usec where the wait ends at @end, in monotonic microseconds. */
guint
bg_spin_get_limit (guint limit_usec, gint64 end)
{
  gint64 left = end - g_get_monotonic_time ();

  return (guint) CLAMP (left, 0, (gint64) limit_usec);
}

/* Lets others that are ready run on this processor. Since GLib 2.89 g_thread_yield()
 * sleeps, for longer than is waited awake at most. */
void
bg_yield (void)
{
#if HAVE_SCHED_YIELD
  sched_yield ();
#else
  g_thread_yield ();
#endif
}

static gboolean
is_worthwhile (BgSpin *self)
{
  if (!bg_spin_is_possible ())
    return FALSE;

  if (self->skip > 0)
    {
      self->skip--;
      return FALSE;
    }

  return self->average < PAYS_USEC * UNIT;
}

static gboolean
poll_done (BgSpinFunc done, gpointer data)
{
  for (guint i = 0; i < POLLS; i++)
    {
      if (done (data))
        return TRUE;
      BG_CPU_RELAX ();
    }

  return FALSE;
}

static void
pause_briefly (void)
{
  for (guint i = 0; i < PAUSES; i++)
    BG_CPU_RELAX ();
}

static gboolean
spin_until (BgSpin *self, gint64 end, BgSpinFunc done, gpointer data)
{
  gint64 last, now = self->began;

  while (now <= end)
    {
      if (poll_done (done, data))
        {
          self->backoff = 0;
          bg_spin_learn (self, now - self->began);
          return TRUE;
        }

      last = now;
      now = g_get_monotonic_time ();
      if (now - last > PREEMPTED_USEC)
        {
          self->quiet_until = now + QUIET_USEC;
          break;
        }
    }

  failed (self);
  return FALSE;
}

/* Waits awake until @done, or until it does not pay any more; for more than
 * SPIN_MAX_USEC, whether it pays or not. Returns what @done said last. */
gboolean
bg_spin (BgSpin *self, guint limit_usec, BgSpinFunc done, gpointer data)
{
  gboolean forced = limit_usec > SPIN_MAX_USEC;
  gboolean worthwhile = forced || (limit_usec > 0 && is_worthwhile (self));

  /* Most of what is worth waiting for comes before the first look at the clock. */
  if (worthwhile ? poll_done (done, data) : done (data))
    {
      if (worthwhile)
        {
          self->backoff = 0;
          bg_spin_learn (self, 0);
        }
      return TRUE;
    }

  self->began = g_get_monotonic_time ();
  if (!worthwhile || (!forced && self->began < self->quiet_until))
    return FALSE;

  return spin_until (self, self->began + limit_usec, done, data);
}

/* Lets the other side, which is on this processor and awake, run. */
gboolean
bg_spin_yield (BgSpin *self, BgSpinFunc done, gpointer data)
{
  gboolean is_done;
  gint64 now;

  if (done (data))
    return TRUE;

  self->began = g_get_monotonic_time ();
  if (self->began < self->quiet_until)
    return FALSE;

  bg_yield ();
  is_done = done (data);
  now = g_get_monotonic_time ();
  if (!is_done || now - self->began > PREEMPTED_USEC)
    self->quiet_until = now + QUIET_TIMES * (now - self->began);
  return is_done;
}

/* Waits awake until @done, for SPIN_MAX_USEC at most: for what happens to a thread
 * once in a while, and is worth that time. Without @elsewhere the other side may be on
 * any processor. */
void
bg_spin_once (BgSpin *self, guint limit_usec, gboolean elsewhere, BgSpinFunc done, gpointer data)
{
  gint64 last, now, end;
  gboolean is_done;

  if (limit_usec == 0 || !bg_spin_is_possible ())
    return;

  now = g_get_monotonic_time ();
  if (now < self->quiet_until)
    return;

  self->began = now;
  end = now + MIN (limit_usec, SPIN_MAX_USEC);
  do
    {
      is_done = done (data);
      if (!is_done && elsewhere)
        pause_briefly ();
      else if (!is_done)
        bg_yield ();
      last = now;
      now = g_get_monotonic_time ();
    }
  while (!is_done && now - last <= PREEMPTED_USEC && now <= end);

  if (!is_done || now - last > PREEMPTED_USEC)
    self->quiet_until = now + QUIET_TIMES * (now - self->began);
}
