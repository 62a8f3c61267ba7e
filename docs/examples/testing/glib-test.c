/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>

static void
add_one (gpointer user_data)
{
  int *sum = user_data;

  (*sum)++;
}

static gboolean
add_two (gpointer user_data, GError **error)
{
  int *sum = user_data;

  *sum += 2;
  return TRUE;
}

static void
test_work_is_done (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  int sum = 0;

  g_assert_true (bg_loop_post (fixture->loop, add_one, &sum, NULL));
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (sum, ==, 1);
}

static void
test_step_by_step (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  int sum = 0;

  g_assert_true (bg_test_pause (fixture->loop, &error));
  g_assert_true (bg_loop_post (fixture->loop, add_one, &sum, NULL));
  g_assert_true (bg_loop_post (fixture->loop, add_one, &sum, NULL));
  g_assert_cmpint (sum, ==, 0);

  g_assert_cmpint (bg_test_step (fixture->loop, &error), ==, 1);
  g_assert_cmpint (sum, ==, 1);
  g_assert_cmpint (bg_test_run_until_idle (fixture->loop, &error), ==, 1);
  g_assert_cmpint (sum, ==, 2);
  g_assert_no_error (error);
}

static void
test_default_loop (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (BgLoop) shared = bg_loop_dup_default (NULL);
  g_autoptr (GError) error = NULL;
  int sum = 0;

  g_assert_true (bg_loop_call (shared, add_two, &sum, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (sum, ==, 2);

  g_assert_true (bg_loop_reset_default (bg_test_get_timeout (), &error));
  g_assert_no_error (error);
}

int
main (int argc, char **argv)
{
  int result;

  g_test_init (&argc, &argv, NULL);
  bg_test_add ("/counter/work-is-done", test_work_is_done);
  bg_test_add ("/counter/step-by-step", test_step_by_step);
  bg_test_add ("/counter/default-loop", test_default_loop);

  result = g_test_run ();
  bg_test_assert_no_loops ();
  return result;
}
