/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* Runs commands from a thread that just wants their output. A loop reads what they
 * say, and notices their end. */

#include <bgloop/bgloop.h>
#include <glib/gstdio.h>

/* Starts a command that reads @input from a file. A command need not read all that
 * it is given: with a pipe, this program would have to ignore SIGPIPE, and
 * g_subprocess_communicate() would fail and lose the output, now and then. */
static GSubprocess *
start_command (const char *const *argv, const char *input, GError **error)
{
  g_autoptr (GSubprocessLauncher) launcher = NULL;
  g_autofree char *path = NULL;
  GSubprocess *process = NULL;
  int fd = g_file_open_tmp ("subprocess-XXXXXX", &path, error);

  if (fd < 0)
    return NULL;

  if (g_file_set_contents_full (path, input, -1, G_FILE_SET_CONTENTS_NONE, 0600, error))
    {
      launcher = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE);
      g_subprocess_launcher_set_stdin_file_path (launcher, path);
      process = g_subprocess_launcher_spawnv (launcher, argv, error);
    }

  g_close (fd, NULL);
  g_unlink (path);
  return process;
}

static gboolean
begin_communicate_cb (gpointer user_data,
                      GCancellable *cancellable,
                      GAsyncReadyCallback callback,
                      gpointer callback_data,
                      GError **error)
{
  g_subprocess_communicate_utf8_async (user_data, NULL, cancellable, callback, callback_data);
  return TRUE;
}

static gboolean
begin_wait_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_subprocess_wait_check_async (user_data, cancellable, callback, callback_data);
  return TRUE;
}

/* Waits until the process has ended, which must be about to happen. */
static gboolean
reap (BgLoop *loop, GSubprocess *process, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;

  answer = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, begin_wait_cb, process, NULL, error);
  return answer != NULL && g_subprocess_wait_check_finish (process, answer, error);
}

/* The output of a command that gets @input; it is killed if it takes longer than
 * @timeout_msec. */
static char *
run_command (BgLoop *loop,
             const char *const *argv,
             const char *input,
             int timeout_msec,
             GError **error)
{
  g_autoptr (GSubprocess) process = start_command (argv, input, error);
  g_autoptr (GAsyncResult) answer = NULL;
  g_autofree char *output = NULL;

  if (process == NULL)
    return NULL;

  answer = bg_loop_perform (loop, G_PRIORITY_DEFAULT, timeout_msec, begin_communicate_cb, process,
                            NULL, error);
  if (answer == NULL
      || !g_subprocess_communicate_utf8_finish (process, answer, &output, NULL, error))
    {
      g_subprocess_force_exit (process);
      reap (loop, process, NULL);
      return NULL;
    }

  return reap (loop, process, error) ? g_steal_pointer (&output) : NULL;
}

static gboolean
run_commands (BgLoop *loop, GError **error)
{
  const char *sort[] = { "sort", NULL };
  const char *fail[] = { "sh", "-c", "exit 3", NULL };
  const char *hang[] = { "sh", "-c", "read line; exec sleep 1000", NULL };
  const char *deaf[] = { "echo", "Not a word of it.", NULL };
  g_autofree char *much = g_strnfill (1024 * 1024, 'x');
  g_autofree char *said = NULL;
  g_autoptr (GError) failed = NULL;
  g_autoptr (GError) hung = NULL;
  g_autofree char *output = run_command (loop, sort, "two\nthree\none\n", -1, error);

  if (output == NULL)
    return FALSE;
  g_print ("Sorted:\n%s", output);
  g_assert (g_strcmp0 (output, "one\nthree\ntwo\n") == 0);

  said = run_command (loop, deaf, much, -1, error);
  if (said == NULL)
    return FALSE;
  g_print ("Not read: %s", said);

  g_assert (run_command (loop, fail, "", -1, &failed) == NULL);
  g_assert (g_error_matches (failed, G_SPAWN_EXIT_ERROR, 3));
  g_print ("Failed: %s\n", failed->message);

  g_assert (run_command (loop, hang, "", 50, &hung) == NULL);
  g_assert (g_error_matches (hung, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  g_print ("Hung: %s\n", hung->message);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = bg_loop_new ("subprocess", &error);

  if (loop == NULL || !run_commands (loop, &error) || !bg_loop_shutdown (loop, &error))
    {
      g_printerr ("%s\n", error->message);
      return 1;
    }
  return 0;
}
