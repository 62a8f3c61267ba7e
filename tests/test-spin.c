/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <sched.h>
#include <unistd.h>

#include <glib.h>

/* How long somebody waits awake is told by a clock of the test's own, which goes on by a
 * microsecond with each look at it, or by more where the test says so. So the insides are part
 * of this program. There are two processors. */

static gint64 look_at_clock_of_test (void);
static int yield_of_test (void);
static long get_n_processors_of_test (int name);

#define g_get_monotonic_time look_at_clock_of_test
#define sched_yield          yield_of_test
#define sysconf              get_n_processors_of_test
#include "base/bg-spin.c"
#undef g_get_monotonic_time
#undef sched_yield
#undef sysconf

#include "util.h"

#define AN_HOUR_USEC (G_GINT64_CONSTANT (3600) * G_USEC_PER_SEC)

static gint64 now = 1000000;
static gint64 jump_at; /* 0: never; here the processor is taken away */
static guint yield_usec;
static guint n_yields;

static gint64
look_at_clock_of_test (void)
{
  now++;
  if (jump_at != 0 && now >= jump_at)
    {
      jump_at = 0;
      now += PREEMPTED_USEC + 1;
    }
  return now;
}

static int
yield_of_test (void)
{
  now += yield_usec;
  n_yields++;
  return 0;
}

static long
get_n_processors_of_test (int name)
{
  return 2;
}

/* What is waited for, and how often it was looked for */
typedef struct
{
  gint64 due; /* G_MAXINT64: never */
  guint n_looks;
} Event;

static gboolean
is_due (gpointer data)
{
  Event *self = data;

  self->n_looks++;
  return now >= self->due;
}

static gboolean
never (gpointer data)
{
  return FALSE;
}

static gboolean
at_once (gpointer data)
{
  return TRUE;
}

/* Whether it stays awake for what does not come. */
static gboolean
waits_awake (BgSpin *spin)
{
  Event event = { .due = G_MAXINT64 };

  g_assert_false (bg_spin (spin, SPIN_MAX_USEC, is_due, &event));
  return event.n_looks > POLLS;
}

static void
learn (BgSpin *spin, gint64 took_usec, guint n)
{
  for (guint i = 0; i < n; i++)
    bg_spin_learn (spin, took_usec);
}

/* The average */

/* It comes near to what waits take, from either side. */
static void
test_average (void)
{
  static const guint usecs[] = { 0, 1, 10, PAYS_USEC, 30, SPIN_MAX_USEC };

  for (guint i = 0; i < G_N_ELEMENTS (usecs); i++)
    {
      BgSpin low = { 0 }, high = { .average = SPIN_MAX_USEC * UNIT };

      learn (&low, usecs[i], 100);
      learn (&high, usecs[i], 100);
      g_assert_cmpuint (low.average, <=, usecs[i] * UNIT);
      g_assert_cmpuint (low.average + UNIT, >, usecs[i] * UNIT);
      g_assert_cmpuint (high.average, >=, usecs[i] * UNIT);
      g_assert_cmpuint (high.average, <, (usecs[i] + 1) * UNIT);
    }
}

/* However long one wait took, it counts as one of the longest, and none as less than nothing. */
static void
test_average_bounded (void)
{
  static const gint64 longs[]
      = { SPIN_MAX_USEC + 1, AN_HOUR_USEC, G_MAXUINT + G_GINT64_CONSTANT (1), G_MAXINT64 };
  BgSpin longest = { 0 }, none = { .average = 100 };

  learn (&longest, SPIN_MAX_USEC, 1);
  for (guint i = 0; i < G_N_ELEMENTS (longs); i++)
    {
      BgSpin spin = { 0 };

      learn (&spin, longs[i], 1);
      g_assert_cmpuint (spin.average, ==, longest.average);
      learn (&spin, longs[i], 100);
      g_assert_cmpuint (spin.average, <=, SPIN_MAX_USEC * UNIT);
    }

  /* A clock that went back. */
  learn (&none, 0, 1);
  for (gint64 took = -1; took >= -AN_HOUR_USEC; took *= 60)
    {
      BgSpin spin = { .average = 100 };

      learn (&spin, took, 1);
      g_assert_cmpuint (spin.average, ==, none.average);
    }
}

/* What it makes of it */

/* Long waits that it slept through make it wait awake no more, and short ones again; neither
 * takes many. */
static void
test_long_waits (void)
{
  BgSpin spin = { 0 };

  for (guint round = 0; round < 3; round++)
    {
      guint n = 0;

      g_assert_true (bg_spin (&spin, SPIN_MAX_USEC, at_once, NULL));
      g_assert_true (waits_awake (&spin));
      spin.skip = 0;

      for (; spin.average < PAYS_USEC * UNIT; n++)
        bg_spin_learn (&spin, AN_HOUR_USEC);
      g_assert_cmpuint (n, >, 0);
      g_assert_cmpuint (n, <=, 3);
      g_assert_false (waits_awake (&spin));
      g_assert_cmpuint (spin.skip, ==, 0);

      learn (&spin, AN_HOUR_USEC, 1000);
      for (n = 0; spin.average >= PAYS_USEC * UNIT; n++)
        bg_spin_learn (&spin, 1);
      g_assert_cmpuint (n, >, 3);
      g_assert_cmpuint (n, <=, 20);
    }
}

/* What comes in time ends the quiet that waits in vain have brought about. */
static void
test_in_time (void)
{
  BgSpin spin = { .backoff = 3 };
  Event event = { .due = now + PAYS_USEC };

  g_assert_true (bg_spin (&spin, SPIN_MAX_USEC, is_due, &event));
  g_assert_cmpuint (event.n_looks, >, POLLS);
  g_assert_cmpuint (spin.backoff, ==, 0);
  g_assert_true (waits_awake (&spin));
  g_assert_cmpuint (spin.skip, ==, 1);
}

/* One that it stays awake for counts as long as it took. */
static void
test_learns_by_itself (void)
{
  for (guint usec = 5; usec <= 45; usec += 10)
    {
      BgSpin spin = { 0 }, expected = { 0 };
      Event event = { .due = now + usec };

      g_assert_true (bg_spin (&spin, SPIN_MAX_USEC, is_due, &event));
      learn (&expected, usec - 1, 1);
      g_assert_cmpuint (spin.average, ==, expected.average);
    }
}

/* What comes before the first look at the clock took no time, and where it looks just once
 * nothing is learnt. */
static void
test_at_once (void)
{
  BgSpin spin = { .average = PAYS_USEC * UNIT - 1, .backoff = 7 };
  BgSpin asleep = { .average = PAYS_USEC * UNIT, .backoff = 7 };

  g_assert_true (bg_spin (&spin, SPIN_MAX_USEC, at_once, NULL));
  g_assert_cmpuint (spin.average, <, PAYS_USEC * UNIT - 1);
  g_assert_cmpuint (spin.backoff, ==, 0);

  g_assert_true (bg_spin (&asleep, SPIN_MAX_USEC, at_once, NULL));
  g_assert_cmpuint (asleep.average, ==, PAYS_USEC * UNIT);
  g_assert_cmpuint (asleep.backoff, ==, 7);
}

/* Each one in vain is followed by twice as many waits asleep as the one before and one more,
 * but no more than so many; one that paid, by none. */
static void
test_in_vain (void)
{
  BgSpin spin = { 0 };

  for (guint round = 0; round < 2; round++)
    {
      guint asleep = 0;

      for (guint i = 0; i < 20; i++)
        {
          g_assert_true (waits_awake (&spin));
          asleep = MIN (2 * asleep + 1, MAX_BACKOFF);
          for (guint j = 0; j < asleep; j++)
            g_assert_false (waits_awake (&spin));
        }
      g_assert_cmpuint (asleep, ==, MAX_BACKOFF);
      g_assert_true (bg_spin (&spin, SPIN_MAX_USEC, at_once, NULL));
    }
}

/* For more than it would by itself, it waits whether that pays or not. */
static void
test_forced (void)
{
  BgSpin spin = { .average = SPIN_MAX_USEC * UNIT, .skip = MAX_BACKOFF, .quiet_until = G_MAXINT64 };
  gint64 since = now;

  g_assert_false (bg_spin (&spin, SPIN_MAX_USEC + 1, never, NULL));
  g_assert_cmpint (now - since, >, SPIN_MAX_USEC);
  g_assert_cmpint (now - since, <=, SPIN_MAX_USEC + 4);
}

/* A processor that was taken away makes it quiet for a while. */
static void
test_preempted (void)
{
  BgSpin spin = { 0 };

  jump_at = now + 10;
  g_assert_true (waits_awake (&spin));
  g_assert_cmpint (jump_at, ==, 0);
  g_assert_cmpint (spin.quiet_until, ==, now + QUIET_USEC);

  spin.skip = 0;
  g_assert_false (waits_awake (&spin));
  now = spin.quiet_until - 10;
  g_assert_false (waits_awake (&spin));
  now = spin.quiet_until;
  g_assert_true (waits_awake (&spin));
}

/* The other side is on this processor */

/* One yield that let it run is not followed by quiet; one in vain, or that took long, by so
 * many times as much as it took. */
static void
test_yield (void)
{
  static const guint usecs[] = { 1, 20, PREEMPTED_USEC + 10 };

  for (guint i = 0; i < G_N_ELEMENTS (usecs); i++)
    {
      gboolean takes_long = usecs[i] > PREEMPTED_USEC;
      BgSpin spin = { 0 };
      Event event;

      yield_usec = usecs[i];
      n_yields = 0;
      event = (Event){ .due = now + usecs[i] };
      g_assert_true (bg_spin_yield (&spin, is_due, &event));
      g_assert_cmpuint (n_yields, ==, 1);
      g_assert_true ((spin.quiet_until > now) == takes_long);

      spin = (BgSpin){ 0 };
      g_assert_false (bg_spin_yield (&spin, never, NULL));
      g_assert_cmpuint (n_yields, ==, 2);
      g_assert_cmpint (spin.quiet_until, >=, now + QUIET_TIMES * usecs[i]);
      g_assert_cmpint (spin.quiet_until, <=, now + QUIET_TIMES * (usecs[i] + 2));

      g_assert_false (bg_spin_yield (&spin, never, NULL));
      g_assert_cmpuint (n_yields, ==, 2);
      now = spin.quiet_until;
      g_assert_false (bg_spin_yield (&spin, never, NULL));
      g_assert_cmpuint (n_yields, ==, 3);
    }
}

/* Once in a while */

/* It waits for no more than the longest, and is quiet after what was in vain. */
static void
test_once (void)
{
  static const guint limits[] = { 1, 10, SPIN_MAX_USEC, SPIN_MAX_USEC + 1, G_MAXUINT };

  yield_usec = 0;
  for (guint i = 0; i < 2 * G_N_ELEMENTS (limits); i++)
    {
      guint limit = limits[i / 2];
      Event event = { .due = G_MAXINT64 };
      BgSpin spin = { 0 };
      gint64 since = now;

      n_yields = 0;
      bg_spin_once (&spin, limit, i % 2 == 0, is_due, &event);
      g_assert_cmpint (now - since, >=, MIN (limit, SPIN_MAX_USEC));
      g_assert_cmpint (now - since, <=, MIN (limit, SPIN_MAX_USEC) + 3);
      g_assert_cmpuint (n_yields, ==, i % 2 == 0 ? 0 : event.n_looks);
      g_assert_cmpint (spin.quiet_until, >, now);
      g_assert_cmpint (spin.quiet_until, <=, now + QUIET_TIMES * (SPIN_MAX_USEC + 3));

      event.n_looks = 0;
      bg_spin_once (&spin, limit, i % 2 == 0, is_due, &event);
      g_assert_cmpuint (event.n_looks, ==, 0);
      now = spin.quiet_until;
      event.due = now + 2;
      bg_spin_once (&spin, SPIN_MAX_USEC, i % 2 == 0, is_due, &event);
      g_assert_cmpuint (event.n_looks, >, 0);
      g_assert_cmpint (spin.quiet_until, <, now);
    }
}

/* Who is not to wait does not look. */
static void
test_no_time (void)
{
  Event event = { .due = G_MAXINT64 };
  BgSpin spin = { 0 };
  gint64 since = now;

  bg_spin_once (&spin, 0, TRUE, is_due, &event);
  g_assert_cmpuint (event.n_looks, ==, 0);
  g_assert_cmpint (now, ==, since);

  g_assert_false (bg_spin (&spin, 0, is_due, &event));
  g_assert_cmpuint (event.n_looks, ==, 1);
  g_assert_cmpuint (spin.skip, ==, 0);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/spin/average/comes-near", test_average);
  g_test_add_func ("/spin/average/bounded", test_average_bounded);
  g_test_add_func ("/spin/learns/from-waits-asleep", test_long_waits);
  g_test_add_func ("/spin/learns/from-waits-awake", test_learns_by_itself);
  g_test_add_func ("/spin/learns/at-once", test_at_once);
  g_test_add_func ("/spin/learns/in-vain", test_in_vain);
  g_test_add_func ("/spin/learns/in-time", test_in_time);
  g_test_add_func ("/spin/forced", test_forced);
  g_test_add_func ("/spin/preempted", test_preempted);
  g_test_add_func ("/spin/yield", test_yield);
  g_test_add_func ("/spin/once", test_once);
  g_test_add_func ("/spin/no-time", test_no_time);

  return g_test_run ();
}
