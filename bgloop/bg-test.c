/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include <bgloop/bg-test.h>

/* The fixture. It is built on public headers only: whatever it does, the suites
 * of other projects can do as well. */

#define DEFAULT_TIMEOUT_MSEC 5000

/**
 * bg_test_get_timeout:
 *
 * How long the functions of the test kit wait for a loop: 5 seconds, or what the
 * environment variable `BG_TEST_TIMEOUT` says, in milliseconds. Set it higher
 * where everything is slow.
 *
 * Never waits; any thread may call it.
 *
 * Returns: the time in milliseconds
 *
 * Since: 1.0
 */
int
bg_test_get_timeout (void)
{
  const char *text = g_getenv ("BG_TEST_TIMEOUT");
  char *end;
  guint64 msec;

  if (text == NULL)
    return DEFAULT_TIMEOUT_MSEC;

  msec = g_ascii_strtoull (text, &end, 10);
  if (end == text || *end != '\0' || *text == '-')
    {
      g_warning ("BG_TEST_TIMEOUT is a number of milliseconds, not “%s”", text);
      return DEFAULT_TIMEOUT_MSEC;
    }

  return (int) MIN (msec, G_MAXINT);
}

/* What the process has open */

typedef gboolean (*MatchFunc) (const char *path);

static guint
count_entries (const char *folder, MatchFunc matches)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  guint n = 0;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (folder, name, NULL);

      if (matches (path))
        n++;
    }

  return n;
}

static gboolean
is_eventfd (const char *path)
{
  g_autofree char *target = g_file_read_link (path, NULL);

  return target != NULL && strstr (target, "eventfd") != NULL;
}

/* Threads that GLib starts when it needs them, keeps for good, and gives a
 * context with an eventfd. */
static gboolean
is_worker (const char *path)
{
  static const char *const workers[] = { "gmain", "gdbus", "dconf worker", NULL };
  g_autofree char *file = g_build_filename (path, "comm", NULL);
  g_autofree char *name = NULL;

  return g_file_get_contents (file, &name, NULL, NULL)
         && g_strv_contains (workers, g_strchomp (name));
}

/* Both are 0 where there is no /proc: what is counted there is not checked. */
static guint
count_eventfds (void)
{
  return count_entries ("/proc/self/fd", is_eventfd);
}

static guint
count_workers (void)
{
  return count_entries ("/proc/self/task", is_worker);
}

/* What a test left behind */

static gboolean
end_loop (BgTestFixture *self, GPtrArray *problems)
{
  g_autoptr (GError) error = NULL;
  int timeout = bg_test_get_timeout ();
  gboolean ended = TRUE;

  if (self->loop == NULL)
    return TRUE;

  ended = bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_DRAIN, timeout, NULL, &error);
  if (!ended)
    {
      g_ptr_array_add (problems, g_strdup (error->message));
      bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_CANCEL, timeout, NULL, NULL);
    }

  g_clear_object (&self->loop);
  return ended;
}

static gboolean
check_loops (BgTestFixture *self, int timeout, GPtrArray *problems)
{
  g_autofree char *left = bg_test_describe_loops (self->since, timeout);
  g_auto (GStrv) lines = NULL;

  if (left == NULL)
    return TRUE;

  lines = g_strsplit (left, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    g_ptr_array_add (problems, g_strdup (lines[i]));

  /* The next test is to get a fresh one. */
  bg_loop_reset_default (0, NULL);
  return FALSE;
}

static guint
count_extra_eventfds (BgTestFixture *self)
{
  guint n = count_eventfds ();
  guint expected = self->n_eventfds + MAX (count_workers (), self->n_workers) - self->n_workers;

  return n > expected ? n - expected : 0;
}

/* The contexts of loops that have ended go when nobody refers to a source that
 * was in them; a loop that starts sees to that. */
static void
let_contexts_go (void)
{
  g_autoptr (BgLoop) loop = bg_loop_new ("sweeper", NULL);

  if (loop != NULL)
    bg_loop_shutdown (loop, NULL);
}

static void
check_eventfds (BgTestFixture *self, GPtrArray *problems)
{
  gint64 deadline
      = g_get_monotonic_time () + (gint64) bg_test_get_timeout () * G_TIME_SPAN_MILLISECOND;
  guint n = count_extra_eventfds (self);

  if (n > 0)
    let_contexts_go ();

  /* Other threads may be about to close theirs, and nothing tells when they have. */
  while ((n = count_extra_eventfds (self)) > 0 && g_get_monotonic_time () < deadline)
    g_usleep (G_TIME_SPAN_MILLISECOND);

  if (n > 0)
    g_ptr_array_add (problems,
                     g_strdup_printf ("%u eventfd%s more than before the test: a GMainContext is "
                                      "still referred to, perhaps by a GTask that waits in it",
                                      n, n > 1 ? "s" : ""));
}

static void
fail (GPtrArray *problems)
{
  g_autofree char *text = NULL;

  /* Not with g_printerr(), which would spoil it in a program without a locale. */
  for (guint i = 0; i < problems->len; i++)
    fprintf (stderr, "%s: left behind: %s\n", g_test_get_path (),
             (const char *) g_ptr_array_index (problems, i));

  g_ptr_array_add (problems, NULL);
  text = g_strjoinv (" | ", (char **) problems->pdata);
  g_test_fail_printf ("left behind: %s", text);
}

/* The fixture */

/**
 * bg_test_fixture_set_up: (skip)
 * @fixture: a fixture, all zero
 * @test_data: not used
 *
 * Starts a loop that is named after the test, and notes what there is already.
 *
 * To be given to g_test_add(), or called by the set-up function of a fixture that
 * begins with this one, before that makes anything. Ends the program if no thread
 * can be made.
 *
 * Since: 1.0
 */
void
bg_test_fixture_set_up (BgTestFixture *fixture, gconstpointer test_data)
{
  g_autoptr (GError) error = NULL;

  g_return_if_fail (fixture != NULL);

  /* It lives as long as the program, whoever asks for it first. */
  g_main_context_default ();

  fixture->since = bg_test_mark_loops ();
  fixture->n_workers = count_workers ();
  fixture->n_eventfds = count_eventfds ();
  fixture->loop = bg_loop_new (g_test_get_path (), &error);
  g_assert_no_error (error);
}

/**
 * bg_test_fixture_tear_down: (skip)
 * @fixture: a fixture that was set up
 * @test_data: not used
 *
 * Shuts the fixture's loop down, unless the test has, and fails the test if
 * anything was left behind since it was set up: a loop, its thread, a default
 * loop, a hold, an operation that has not answered, an eventfd.
 *
 * What was accepted runs to its end first. The message of the failure names
 * each. The loop that cannot end is asked to cancel, and left alone if that does
 * not help either, a default loop is forgotten, and the program goes on with the
 * next test.
 *
 * To be given to g_test_add(), or called by the tear-down function of a fixture
 * that begins with this one, as the last thing. Blocks, for no longer than
 * [func@Bg.test_get_timeout] if nothing is wrong.
 *
 * Since: 1.0
 */
void
bg_test_fixture_tear_down (BgTestFixture *fixture, gconstpointer test_data)
{
  g_autoptr (GPtrArray) problems = g_ptr_array_new_with_free_func (g_free);
  gboolean ended, clean;

  g_return_if_fail (fixture != NULL);

  ended = end_loop (fixture, problems);
  clean = check_loops (fixture, ended ? bg_test_get_timeout () : 0, problems);

  /* A loop that is left has one. */
  if (clean)
    check_eventfds (fixture, problems);

  if (problems->len > 0)
    fail (problems);
}

/**
 * bg_test_assert_no_loops: (skip)
 *
 * Asserts that there is no loop in the process: that all have ended, with their
 * threads, and that nobody refers to one.
 *
 * For the end of `main()`, after g_test_run(). A loop that is stopping is waited
 * for, no longer than [func@Bg.test_get_timeout]; if there is any left the
 * program ends with a message that describes each. Any thread may call it but a
 * loop's.
 *
 * Since: 1.0
 */
void
bg_test_assert_no_loops (void)
{
  g_autofree char *left = bg_test_describe_loops (0, bg_test_get_timeout ());
  g_autofree char *message = NULL;

  if (left == NULL)
    return;

  message = g_strconcat ("there are loops left:\n", left, NULL);
  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, message);
}
