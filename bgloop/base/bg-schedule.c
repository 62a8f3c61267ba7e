/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <time.h>

#include <bgloop/base/bg-macros-private.h>
#include <bgloop/base/bg-schedule-private.h>

/* Schedules that do not come about by themselves: where a thread hands something over it lets
 * others run now and then, or sleeps for a moment. Any thread. Compiled only with
 * -Dlock_checks=true; the environment variable BGLOOP_SCHEDULE, a number, is the seed, or a test
 * says what is to be done at each point, and otherwise nothing happens. */

/* Of 256 points. */
#define N_YIELDS 24
#define N_SLEEPS 2

#define MAX_SLEEP_USEC 255

static BgScheduleFunc schedule_func; /* atomic (nullable) */

/* From now on @func says how long threads stay, and no seed; NULL: it does so no more. */
void
bg_schedule_set_func (BgScheduleFunc func)
{
  g_atomic_pointer_set (&schedule_func, func);
}

/* Threads that come here at once read the same. */
static guint32
get_seed (void)
{
  static int seed, known; /* atomic */
  const char *text;

  if (G_UNLIKELY (!g_atomic_int_get (&known)))
    {
      text = g_getenv ("BGLOOP_SCHEDULE");
      g_atomic_int_set (&seed, text != NULL ? (int) g_ascii_strtoull (text, NULL, 10) : 0);
      g_atomic_int_set (&known, TRUE);
    }

  return (guint32) g_atomic_int_get (&seed);
}

/* The next step of a thread that is at @state, which is not 0 (xorshift32). */
BgScheduleStep
bg_schedule_draw (guint32 *state, guint *usec)
{
  guint drawn;

  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  drawn = *state >> 24;
  *usec = drawn < N_SLEEPS ? (*state >> 8) % (MAX_SLEEP_USEC + 1) : 0;
  if (drawn < N_SLEEPS)
    return BG_SCHEDULE_SLEEP;
  return drawn < N_SLEEPS + N_YIELDS ? BG_SCHEDULE_YIELD : BG_SCHEDULE_GO_ON;
}

/* For tests only: the thread sleeps so that others come in between, and there is nothing that it
 * could wait for. A signal may cut the sleep short; g_usleep() would go on for as long as signals
 * come. */
static void
stay (guint usec)
{
  struct timespec moment = { .tv_nsec = (long) usec * 1000 };

  nanosleep (&moment, NULL);
}

void
bg_schedule_point (BgPoint point)
{
  static int n_threads; /* atomic */
  static BG_THREAD_LOCAL guint32 state;
  BgScheduleFunc func = g_atomic_pointer_get (&schedule_func);
  guint32 seed = get_seed ();
  guint usec = func != NULL ? func (point) : 0;

  if (usec > 0)
    stay (usec);
  if (seed == 0 || func != NULL)
    return;

  /* Threads are at different places, whatever the seed. */
  if (state == 0)
    state = (seed * 2654435769u + (guint32) g_atomic_int_add (&n_threads, 1) * 40503u) | 1;
  switch (bg_schedule_draw (&state, &usec))
    {
    case BG_SCHEDULE_SLEEP:
      stay (usec);
      break;
    case BG_SCHEDULE_YIELD:
      g_thread_yield ();
      break;
    default:
      break;
    }
}
