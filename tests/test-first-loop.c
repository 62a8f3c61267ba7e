/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <sys/resource.h>
#include <unistd.h>

#include "util.h"

/* The first loop of a process that has no main context yet: so without util_init(), which makes
 * one. */

/* GLib's default context wants a descriptor, too. */
static void
test_one_descriptor (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GArray) taken = g_array_new (FALSE, FALSE, sizeof (int));
  struct rlimit limit, few;
  BgLoop *loop;
  int fd;

  g_assert_cmpint (getrlimit (RLIMIT_NOFILE, &limit), ==, 0);
  few = limit;
  few.rlim_cur = 64;
  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &few), ==, 0);
  while ((fd = dup (STDERR_FILENO)) != -1)
    g_array_append_val (taken, fd);
  close (g_array_index (taken, int, 0));

  loop = bg_loop_new ("first", &error);
  if (loop == NULL)
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES);
  else
    util_loop_end (loop);

  for (guint i = 1; i < taken->len; i++)
    close (g_array_index (taken, int, i));
  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &limit), ==, 0);
  util_loop_end (util_loop_new ("second"));
}

/* Nor is the main context that the fixture of the test kit makes a leak of the first test. */
static void
test_fixture (void)
{
  BgTestFixture fixture = { NULL };

  bg_test_fixture_set_up (&fixture, NULL);
  g_assert_true (g_main_context_default () != NULL);
  bg_test_fixture_tear_down (&fixture, NULL);
}

/* Each in a process of its own */
static void
trapped_cb (gconstpointer path)
{
  util_assert_subprocess_passes (path);
}

int
main (int argc, char *argv[])
{
  g_test_init (&argc, &argv, NULL);

  if (HAVE_EVENTFD)
    {
      g_test_add_func ("/first-loop/fixture/subprocess", test_fixture);
      g_test_add_data_func ("/first-loop/fixture", "/first-loop/fixture/subprocess", trapped_cb);
      g_test_add_func ("/first-loop/one-descriptor", test_one_descriptor);
    }

  return g_test_run ();
}
