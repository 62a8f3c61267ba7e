/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <stdio.h>

#include <bgloop/bg-test.h>
#include <bgloop/testing/bg-test-private.h>

/* The fixture. What it does with loops it does by public headers only: the suites of
 * other projects can do it as well. A fixture is for the thread that runs the test alone, and has
 * no lock. */

/* How often it is looked for what nobody tells of, in milliseconds: at once at first,
 * for most is over soon. */
#define FIRST_POLL_MSEC 1
#define POLL_MSEC       50

/**
 * bg_test_get_timeout:
 *
 * How long the functions of the test kit wait for a loop: 5 seconds, or what the
 * environment variable `BG_TEST_TIMEOUT` says, in milliseconds. Set it higher
 * where everything is slow.
 *
 * With -1 there is no limit, as for a debugger: whatever may still end by itself is
 * waited for. With 0 the kit does not wait for what holds a loop, and for what runs
 * or is about to end a second at most, so that a test that leaves nothing behind
 * passes all the same.
 *
 * Never waits; any thread may call it.
 *
 * Returns: the time in milliseconds; -1 for no limit
 *
 * Since: 1.0
 */
int
bg_test_get_timeout (void)
{
  const char *text = g_getenv ("BG_TEST_TIMEOUT");
  char *end;
  gint64 msec;

  if (text == NULL)
    return BG_TEST_DEFAULT_MSEC;

  msec = g_ascii_strtoll (text, &end, 10);
  if (end == text || *end != '\0' || msec < -1)
    {
      g_warning ("BG_TEST_TIMEOUT is a number of milliseconds, or -1, not \"%s\"", text);
      return BG_TEST_DEFAULT_MSEC;
    }

  return (int) MIN (msec, G_MAXINT);
}

/* What a test left behind */

/* How long to wait for what nobody tells of: without a limit a leak would never be
 * one. */
static int
get_patience (void)
{
  switch (bg_test_get_timeout ())
    {
    case -1:
      return BG_TEST_DEFAULT_MSEC;
    case 0:
      return BG_TEST_MOMENT_MSEC;
    default:
      return bg_test_get_timeout ();
    }
}

/* How long to wait for the loop's end. A shutdown that does not wait would always come
 * too early; so if the kit is not to wait, the loop is asked to end before, and gets as
 * far as nothing is in its way. What is left then is the end of its thread. */
static int
get_end_timeout (BgTestFixture *self)
{
  int timeout = bg_test_get_timeout ();

  if (timeout != 0)
    return timeout;

  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  g_free (bg_test_describe_loops (self->since, 0));
  return bg_loop_get_state (self->loop) == BG_LOOP_STOPPED ? BG_TEST_DEFAULT_MSEC : 0;
}

/* A loop that is none any more is forgotten: the rest of the fixture can still be torn down. */
static void
check_loop (BgTestFixture *self)
{
  if (self->loop == NULL || BG_IS_LOOP (self->loop))
    return;

  g_critical ("The fixture's loop is no loop any more: a test that drops it sets fixture->loop to "
              "NULL");
  self->loop = NULL;
}

static gboolean
end_loop (BgTestFixture *self, GPtrArray *problems)
{
  g_autoptr (GError) error = NULL;
  gboolean ended;

  if (self->loop == NULL)
    return TRUE;

  ended
      = bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_DRAIN, get_end_timeout (self), NULL, &error);
  if (!ended)
    {
      g_ptr_array_add (problems, g_strdup (error->message));
      bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_CANCEL, bg_test_get_timeout (), NULL, NULL);
    }

  g_clear_object (&self->loop);
  return ended;
}

/* One more look at what nobody tells of, after a while; FALSE if it has been looked for
 * long enough. */
static gboolean
wait_for_look (gint64 deadline, guint *msec)
{
  if (g_get_monotonic_time () >= deadline)
    return FALSE;

  g_usleep (*msec * G_TIME_SPAN_MILLISECOND);
  *msec = MIN (*msec * 2, POLL_MSEC);
  return TRUE;
}

static gint64
get_deadline (void)
{
  return g_get_monotonic_time () + get_patience () * G_TIME_SPAN_MILLISECOND;
}

/* What is left of the loops made since then. If the kit is not to wait, a reference that
 * another thread is about to drop is still given a moment. */
static char *
describe_left (guint64 since)
{
  gint64 deadline = get_deadline ();
  guint msec = FIRST_POLL_MSEC;
  int timeout = bg_test_get_timeout ();
  char *left = bg_test_describe_loops (since, timeout);

  while (timeout == 0 && left != NULL && wait_for_look (deadline, &msec))
    {
      g_free (left);
      left = bg_test_describe_loops (since, 0);
    }

  return left;
}

static gboolean
check_loops (BgTestFixture *self, gboolean waits, GPtrArray *problems)
{
  g_autofree char *left
      = waits ? describe_left (self->since) : bg_test_describe_loops (self->since, 0);
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

/* A context that its loop has left to somebody's source goes when a loop starts or ends
 * after that source has gone. */
static void
free_unused_contexts (void)
{
  g_autoptr (BgLoop) loop = bg_loop_new ("test kit", NULL);

  bg_loop_shutdown (loop, NULL);
}

/* Other threads may be about to close theirs, and nothing tells when they have. */
static void
check_eventfds (BgTestFixture *self, GPtrArray *problems)
{
  gint64 deadline = get_deadline ();
  guint msec = FIRST_POLL_MSEC;
  g_autofree char *numbers = NULL;
  guint n;

  while ((n = bg_eventfds_find_new (self->eventfds, &numbers)) > 0
         && wait_for_look (deadline, &msec))
    {
      g_clear_pointer (&numbers, g_free);
      free_unused_contexts ();
    }

  if (n > 0)
    g_ptr_array_add (problems,
                     g_strdup_printf ("%u eventfd%s more than before the test (%s): a "
                                      "GMainContext is still referred to, perhaps by a GTask "
                                      "that waits in it",
                                      n, n > 1 ? "s" : "", numbers));
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
 * @test_data: what the test was added with; not used
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
  g_return_if_fail (fixture->eventfds == NULL);

  /* It lives as long as the program, whoever asks for it first. */
  g_main_context_default ();

  fixture->since = bg_test_mark_loops ();
  fixture->eventfds = bg_eventfds_note ();
  fixture->loop = bg_loop_new (g_test_get_path (), &error);
  g_assert_no_error (error);
}

/**
 * bg_test_fixture_ignore_eventfd: (skip)
 * @fixture: a fixture that is set up
 * @fd: the descriptor of an eventfd
 *
 * Says that an eventfd which was made during the test is to stay when the test is
 * over, and is no leak: one that a library keeps for good, say.
 *
 * That goes for this one, not for another that gets its number later. Those that
 * GLib's own worker threads poll are known to stay, as are those that were there
 * when the fixture was set up. Does nothing if @fd is no eventfd.
 *
 * Never waits; for the thread that runs the test.
 *
 * Since: 1.0
 */
void
bg_test_fixture_ignore_eventfd (BgTestFixture *fixture, int fd)
{
  g_return_if_fail (fixture != NULL);
  g_return_if_fail (fixture->eventfds != NULL);
  g_return_if_fail (fd >= 0);

  bg_eventfds_add (fixture->eventfds, fd);
}

/**
 * bg_test_fixture_tear_down: (skip)
 * @fixture: a fixture that was set up
 * @test_data: what the test was added with; not used
 *
 * Shuts the fixture's loop down, unless the test has, and fails the test if
 * anything was left behind since it was set up: a loop, its thread, a default
 * loop, a hold, an operation that has not answered, an eventfd (see
 * bg_test_fixture_ignore_eventfd()).
 *
 * What was accepted runs to its end first. The message of the failure names
 * each. The loop that cannot end is asked to cancel, and left alone if that does
 * not help either, a default loop is forgotten, and the program goes on with the
 * next test. A fixture whose loop the test has dropped, and has not set to %NULL,
 * is a programming error.
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
  g_return_if_fail (fixture->eventfds != NULL);

  check_loop (fixture);
  ended = end_loop (fixture, problems);
  clean = check_loops (fixture, ended, problems);

  /* A loop that is left has one. */
  if (clean)
    check_eventfds (fixture, problems);
  g_clear_pointer (&fixture->eventfds, bg_eventfds_free);

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
  g_autofree char *left = describe_left (0);
  g_autofree char *message = NULL;

  if (left == NULL)
    return;

  message = g_strconcat ("there are loops left:\n", left, NULL);
  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, message);
}
