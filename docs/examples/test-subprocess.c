/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* The example itself, whose main() is not what is tested here. */
#define main subprocess_main
int subprocess_main (int argc, char **argv);
#include "subprocess.c"
#undef main

#include <bgloop/bg-test.h>

#define MUCH (1024 * 1024)

static char *
run (BgTestFixture *fixture, const char *script, const char *input, GError **error)
{
  const char *argv[] = { "sh", "-c", script, NULL };

  return run_command (fixture->loop, argv, input, -1, error);
}

static void
test_reads_all (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree char *input = g_strnfill (MUCH, 'x');
  g_autoptr (GError) error = NULL;
  g_autofree char *output = run (fixture, "cat", input, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (output, ==, input);
}

static void
test_reads_nothing (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree char *input = g_strnfill (MUCH, 'x');

  for (guint i = 0; i < 20; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autofree char *output = run (fixture, "echo done", i % 2 == 0 ? input : "x", &error);

      g_assert_no_error (error);
      g_assert_cmpstr (output, ==, "done\n");
    }
}

static void
test_stops_reading (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree char *rest = g_strnfill (MUCH, 'x');
  g_autofree char *input = g_strconcat ("one\n", rest, NULL);
  g_autoptr (GError) error = NULL;
  g_autofree char *output
      = run (fixture, "read line; exec <&-; echo \"$line\"; sleep 0.1; echo two", input, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (output, ==, "one\ntwo\n");
}

static void
test_fails_unread (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree char *input = g_strnfill (MUCH, 'x');
  g_autoptr (GError) error = NULL;

  g_assert_null (run (fixture, "exit 3", input, &error));
  g_assert_error (error, G_SPAWN_EXIT_ERROR, 3);
}

static void
test_says_no_text (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (run (fixture, "printf '\\377'", "", &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_FAILED);
}

static void
test_takes_too_long (BgTestFixture *fixture, gconstpointer data)
{
  const char *argv[] = { "sleep", "1000", NULL };
  g_autofree char *input = g_strnfill (MUCH, 'x');
  g_autoptr (GError) error = NULL;

  g_assert_null (run_command (fixture->loop, argv, input, 50, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static void
test_no_such_command (BgTestFixture *fixture, gconstpointer data)
{
  const char *argv[] = { "/nonexistent/command", NULL };
  g_autoptr (GError) error = NULL;

  g_assert_null (run_command (fixture->loop, argv, "", -1, &error));
  g_assert_error (error, G_SPAWN_ERROR, G_SPAWN_ERROR_NOENT);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);

  /* Not "/subprocess": GLib runs nothing under this name. */
  bg_test_add ("/commands/reads-all", test_reads_all);
  bg_test_add ("/commands/reads-nothing", test_reads_nothing);
  bg_test_add ("/commands/stops-reading", test_stops_reading);
  bg_test_add ("/commands/fails-unread", test_fails_unread);
  bg_test_add ("/commands/says-no-text", test_says_no_text);
  bg_test_add ("/commands/takes-too-long", test_takes_too_long);
  bg_test_add ("/commands/no-such-command", test_no_such_command);

  return g_test_run ();
}
