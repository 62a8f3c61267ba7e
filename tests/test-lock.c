/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>

#include "util.h"

/* With -Dlock_checks=true the order of locks is looked at. */

static void
test_in_order (void)
{
  for (BgLockRank rank = 0; rank < BG_N_LOCK_RANKS; rank++)
    bg_lock_note_taken (rank);
  for (BgLockRank rank = 0; rank < BG_N_LOCK_RANKS; rank++)
    bg_lock_note_given_up (rank);
  bg_lock_assert_none ();

  bg_lock_note_taken (BG_LOCK_WAITS);
  bg_lock_note_taken (BG_LOCK_MAILBOX);
  bg_lock_note_taken (BG_LOCK_MAILBOX);
}

static void
test_out_of_order (void)
{
  bg_lock_note_taken (BG_LOCK_WAITS);
  bg_lock_note_taken (BG_LOCK_CORE);
}

static void
test_twice (void)
{
  bg_lock_note_taken (BG_LOCK_CORE);
  bg_lock_note_taken (BG_LOCK_CORE);
}

static void
test_several_mailboxes (void)
{
  bg_lock_note_taken (BG_LOCK_MAILBOX);
  bg_lock_note_taken (BG_LOCK_MAILBOX);
}

static void
test_code_of_others (void)
{
  bg_lock_note_taken (BG_LOCK_REGISTRY);
  bg_lock_assert_none ();
}

/* What a seed draws is the same each time, another seed draws something else, and most points are
 * passed without a stop. */
static void
test_schedule (void)
{
  guint32 first = 1, again = 1, other = 2;
  guint n[BG_SCHEDULE_SLEEP + 1] = { 0 }, n_different = 0;

  for (guint i = 0; i < 10000; i++)
    {
      guint usec, usec_again, usec_other;
      BgScheduleStep step = bg_schedule_draw (&first, &usec);

      g_assert_cmpint (bg_schedule_draw (&again, &usec_again), ==, step);
      g_assert_cmpuint (usec_again, ==, usec);
      n_different += bg_schedule_draw (&other, &usec_other) != step;
      n[step]++;
    }
  g_assert_cmpuint (n_different, >, 100);
  g_assert_cmpuint (n[BG_SCHEDULE_GO_ON], >, 8000);
  g_assert_cmpuint (n[BG_SCHEDULE_YIELD], >, 100);
  g_assert_cmpuint (n[BG_SCHEDULE_SLEEP], >, 10);
}

static void
test_ends_the_process (gconstpointer path)
{
  g_test_trap_subprocess (path, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("* under *of rank *");
}

static void
test_given_up_by_nobody (void)
{
  if (g_test_subprocess ())
    {
      bg_lock_note_given_up (BG_LOCK_CORE);
      return;
    }

  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("*bg_lock_note_given_up*");
}

#define ADD_ENDING(path, func)                                                                     \
  g_test_add_func (path "/subprocess", func);                                                      \
  g_test_add_data_func (path, path "/subprocess", test_ends_the_process)

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/lock/in-order", test_in_order);
  ADD_ENDING ("/lock/out-of-order", test_out_of_order);
  ADD_ENDING ("/lock/twice", test_twice);
  ADD_ENDING ("/lock/several-mailboxes", test_several_mailboxes);
  ADD_ENDING ("/lock/code-of-others", test_code_of_others);
  g_test_add_func ("/lock/given-up-by-nobody", test_given_up_by_nobody);

  g_test_add_func ("/lock/schedule", test_schedule);

  return g_test_run ();
}
