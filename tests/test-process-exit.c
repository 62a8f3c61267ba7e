/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

#define STATUS 42

/* The process ends while there are loops, wherever it is ended: it does so at once, with its own status,
 * and the loops' threads do no harm. What ends only a loop's thread is test-thread-exit's. */

/* A loop that has everything that one can have, with the loop's thread in the
 * middle of it. */

/* So that there is always something to do, and the memory is touched. */
static void
chain_cb (gpointer user_data)
{
  g_free (bg_loop_describe (user_data));
  (void) bg_loop_post (user_data, chain_cb, user_data, NULL);
}

static BgLoop *
make_full_loop (void)
{
  static BgLoop *kept[2];
  BgLoop *loop = util_loop_new ("exit");
  GSource *source = g_idle_source_new ();

  kept[0] = loop;
  kept[1] = bg_loop_dup_default (NULL);
  g_assert_nonnull (kept[1]);
  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_source_unref (source);
  g_assert_cmpuint (bg_loop_hold (loop, "exit"), !=, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_nothing_cb, NULL, NULL), !=, 0);
  g_assert_cmpuint (bg_loop_post_after (loop, G_MAXINT, util_nothing_cb, NULL, NULL), !=, 0);
  for (guint i = 0; i < 1000; i++)
    g_assert_true (bg_loop_post_full (loop, (int) (i % 3), util_nothing_cb, NULL, NULL));
  return loop;
}

static BgLoop *
make_busy_loop (void)
{
  BgLoop *loop = make_full_loop ();

  g_assert_true (bg_loop_post (loop, chain_cb, loop, NULL));
  return loop;
}

/* The ways out */

static int
leave_main (void)
{
  (void) make_busy_loop ();
  return STATUS;
}

static int
leave_main_blocked (void)
{
  BgLoop *loop = make_busy_loop ();
  static UtilBlock block;

  util_block (&block, loop);
  return STATUS;
}

static int
leave_main_stopping (void)
{
  bg_loop_quit (make_busy_loop (), BG_SHUTDOWN_DRAIN);
  return STATUS;
}

static int
leave_main_dropped (void)
{
  g_object_unref (make_full_loop ());
  return STATUS;
}

static gpointer
exit_thread (gpointer user_data)
{
  exit (STATUS);
  return NULL;
}

static int
exit_elsewhere (void)
{
  (void) make_busy_loop ();
  g_thread_join (g_thread_new ("exit", exit_thread, NULL));
  return 1;
}

static void
exit_cb (gpointer user_data)
{
  exit (STATUS);
}

static int
exit_on_loop (void)
{
  BgLoop *loop = make_busy_loop ();

  g_assert_true (bg_loop_post (loop, exit_cb, NULL, NULL));
  for (;;)
    pause ();
  return 1;
}

static gboolean
exit_call_cb (gpointer user_data, GError **error)
{
  exit (STATUS);
  return TRUE;
}

static int
exit_in_call (void)
{
  (void) bg_loop_call (make_busy_loop (), exit_call_cb, NULL, NULL, NULL);
  return 1;
}

static int
exit_in_teardown (void)
{
  BgLoop *loop = util_loop_new ("teardown");

  g_assert_cmpuint (bg_loop_add_teardown (loop, exit_cb, NULL, NULL), !=, 0);
  (void) bg_loop_shutdown (loop, NULL);
  return 1;
}

/* What a program may do itself, in its own atexit handler */
static BgLoop *atexit_loop;

static void
shut_down_at_exit (void)
{
  g_assert_true (bg_loop_shutdown (atexit_loop, NULL));
  g_object_unref (atexit_loop);
}

static int
shutdown_at_exit (void)
{
  atexit_loop = util_loop_new ("atexit");
  atexit (shut_down_at_exit);
  for (guint i = 0; i < 1000; i++)
    g_assert_true (bg_loop_post (atexit_loop, util_nothing_cb, NULL, NULL));
  return STATUS;
}

static const struct
{
  const char *name;
  int (*leave) (void);
} ways[] = {
  { "return-from-main", leave_main },
  { "return-from-main/blocked", leave_main_blocked },
  { "return-from-main/stopping", leave_main_stopping },
  { "return-from-main/dropped", leave_main_dropped },
  { "exit-from-another-thread", exit_elsewhere },
  { "exit-from-a-callback", exit_on_loop },
  { "exit-from-a-call", exit_in_call },
  { "exit-from-a-teardown", exit_in_teardown },
  { "shutdown-at-exit", shutdown_at_exit },
};

/* This program again, with the way as its argument: in a trapped test main()
 * would be GTest's. */
static void
test_way (gconstpointer data)
{
  const char *name = data;

  for (guint i = 0; i < util_scale (3); i++)
    {
      g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);
      char *argv[] = { program, (char *) "--leave", (char *) name, NULL };
      g_autofree char *errors = NULL;
      g_autoptr (GError) error = NULL;
      int status = 0;

      g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                                   &errors, &status, &error));
      g_assert_no_error (error);
      g_assert_cmpstr (errors, ==, "");
      g_assert_true (WIFEXITED (status));
      g_assert_cmpint (WEXITSTATUS (status), ==, STATUS);
    }
}

static int
leave (const char *name)
{
  alarm (60);
  for (guint i = 0; i < G_N_ELEMENTS (ways); i++)
    {
      if (strcmp (ways[i].name, name) == 0)
        return ways[i].leave ();
    }
  return 1;
}

int
main (int argc, char *argv[])
{
  if (argc == 3 && strcmp (argv[1], "--leave") == 0)
    return leave (argv[2]);

  util_init (&argc, &argv);

  for (guint i = 0; i < G_N_ELEMENTS (ways); i++)
    {
      g_autofree char *path = g_strconcat ("/process-exit/", ways[i].name, NULL);

      g_test_add_data_func (path, ways[i].name, test_way);
    }

  return g_test_run ();
}
