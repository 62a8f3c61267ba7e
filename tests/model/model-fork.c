/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE /* dladdr() */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model-world.h"
#include "util.h"

/* A forked child that uses everything: of the loops that it has inherited each answers FORKED, or
 * FALSE, at once; loops of its own work.
 *
 * Other threads may have held a lock of GLib's or of the C library's when the process was forked.
 * A child that waits for one of these says nothing about the library; one that waits in the
 * library itself does. */

#define CHILD_PART   3 /* of the limit */
#define TELL_SECONDS 5 /* for a child that hangs, to say so */
#define LATE_PART    2 /* of the limit: the child does not even notice that it hangs */
#define MOMENT_USEC  20000
#define MAX_FRAMES   32
#define MAX_TEXT     512

enum
{
  CHILD_PASSED,
  CHILD_FAILED,
  CHILD_HANGS,
  CHILD_CANNOT_TELL,
};

static void
fail (const char *what)
{
  fprintf (stderr, "seed %" G_GUINT64_FORMAT ": in a forked child: %s\n",
           model_world->scenario->seed, what);
  _exit (CHILD_FAILED);
}

static gboolean
is_in_glib (const Dl_info *info)
{
  return strstr (info->dli_fname, "libglib") != NULL
         || strstr (info->dli_fname, "libgobject") != NULL
         || strstr (info->dli_fname, "libgio") != NULL;
}

/* Whether this thread waits in GLib, for a lock that its parent may have held: the innermost
 * function that has a name, below the waiting itself, is one of GLib's or the C library's
 * allocator. With @for_lock a wait for a condition is none. */
static gboolean
waits_in_glib (void **frames, int n, gboolean for_lock)
{
  gboolean waits = FALSE;
  guint n_unnamed = 0; /* functions of GLib; one of them is what locks */

  for (int i = 2; i < n; i++)
    {
      Dl_info info;
      const char *name;

      if (dladdr (frames[i], &info) == 0)
        continue;
      name = info.dli_sname != NULL ? info.dli_sname : "";
      waits |= g_str_equal (name, "syscall");
      if (strstr (info.dli_fname, "libasan") != NULL)
        return TRUE;
      if (g_str_equal (name, "malloc") || g_str_equal (name, "free")
          || g_str_equal (name, "calloc"))
        return TRUE;
      if (waits && is_in_glib (&info) && name[0] == '\0' && ++n_unnamed == 2)
        return TRUE;
      if (for_lock && g_str_has_prefix (name, "g_cond_"))
        return FALSE;
      if (strstr (info.dli_fname, "libc.so") != NULL || strstr (info.dli_fname, "pthread") != NULL
          || strstr (info.dli_fname, "vdso") != NULL
          || strstr (info.dli_fname, "linux-gate") != NULL || g_str_has_prefix (name, "g_mutex_")
          || g_str_has_prefix (name, "g_rec_mutex_") || g_str_has_prefix (name, "g_cond_")
          || g_str_has_prefix (name, "g_thread_join") || (is_in_glib (&info) && name[0] == '\0'))
        continue;
      return (waits || !for_lock) && is_in_glib (&info);
    }
  return FALSE;
}

/* In the other threads of the child. */
static void
other_hang_cb (int signal_number)
{
  void *frames[MAX_FRAMES];
  int n = backtrace (frames, MAX_FRAMES);

  if (waits_in_glib (frames, n, TRUE))
    _exit (CHILD_CANNOT_TELL);
  backtrace_symbols_fd (frames, n, STDERR_FILENO);
  model_hang_answer ();
}

static void
hang_cb (int signal_number)
{
  void *frames[MAX_FRAMES];
  int n = backtrace (frames, MAX_FRAMES);
  DIR *tasks = opendir ("/proc/self/task");
  struct dirent *entry;

  /* What is called here may hang, too. Then the signal ends the child. */
  alarm (TELL_SECONDS);
  if (waits_in_glib (frames, n, FALSE))
    _exit (CHILD_CANNOT_TELL);
  while (tasks != NULL && (entry = readdir (tasks)) != NULL)
    {
      long id = strtol (entry->d_name, NULL, 10);

      if (id != 0 && id != syscall (SYS_gettid))
        model_hang_ask (id);
    }

  backtrace_symbols_fd (frames, n, STDERR_FILENO);
  _exit (CHILD_HANGS);
}

static void
expect_forked (gboolean ok, GError **error, const char *what)
{
  if (ok || !g_error_matches (*error, BG_ERROR, BG_ERROR_FORKED))
    fail (what);
  g_clear_error (error);
}

static void
count_cb (gpointer data)
{
  ++*(int *) data;
}

static gboolean
count_call_cb (gpointer data, GError **error)
{
  ++*(int *) data;
  return TRUE;
}

static gboolean
count_source_cb (gpointer data)
{
  ++*(int *) data;
  return G_SOURCE_REMOVE;
}

static void
try_looking (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
  g_autofree char *text = bg_loop_describe (loop);
  g_autoptr (BgLoop) current = bg_loop_dup_current ();

  if (bg_loop_get_state (loop) != BG_LOOP_STOPPED || bg_loop_is_current (loop) || current != NULL)
    fail ("an inherited loop is alive");
  if (stats->posted != 0 || text == NULL || bg_loop_get_name (loop) == NULL)
    fail ("an inherited loop has other statistics, or no name");
  if (bg_loop_get_context (loop) == NULL || !G_IS_CANCELLABLE (bg_loop_get_cancellable (loop)))
    fail ("an inherited loop has no context, or no cancellable");
}

static void
count_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  ++*(int *) data;
  g_task_return_boolean (task, TRUE);
}

/* Whoever would wait for an inherited loop is told so at once. */
static void
try_waiting (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;
  int n_run = 0;

  expect_forked (bg_loop_call (loop, count_call_cb, &n_run, NULL, &error), &error, "call");
  expect_forked (bg_loop_call_full (loop, 7, -1, count_call_cb, &n_run, NULL, &error), &error,
                 "call_full");
  expect_forked (bg_loop_flush (loop, -1, NULL, &error), &error, "flush");
  expect_forked (bg_loop_wait (loop, -1, NULL, &error), &error, "wait");
  expect_forked (bg_loop_shutdown (loop, &error), &error, "shutdown");
  expect_forked (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, -1, NULL, &error), &error,
                 "shutdown_full");
  expect_forked (bg_loop_perform (loop, 0, -1, model_begin_cb, NULL, NULL, &error) != NULL, &error,
                 "perform");
  expect_forked (bg_loop_perform_operation (loop, 0, -1, model_operation_cb, NULL, NULL, &error)
                     != NULL,
                 &error, "perform_operation");
  expect_forked (bg_test_pause (loop, &error), &error, "pause");
  expect_forked (bg_test_step (loop, &error) != -1, &error, "step");
  expect_forked (bg_test_run_until_idle (loop, &error) != -1, &error, "run_until_idle");
  if (n_run != 0)
    fail ("a call to an inherited loop has run");
}

/* Nobody is to be replied to: where the child was forked off, nobody may iterate. */
static void
try_asking (BgLoop *loop)
{
  GTask *task = g_task_new (NULL, NULL, NULL, NULL);
  int n_run = 0, n_destroyed = 0;

  bg_loop_call_async (loop, 0, -1, count_call_cb, &n_destroyed, (GDestroyNotify) count_cb, NULL,
                      NULL, NULL);
  bg_loop_perform_async (loop, 0, -1, model_begin_cb, &n_destroyed, (GDestroyNotify) count_cb, NULL,
                         NULL, NULL);
  bg_loop_perform_operation_async (loop, 0, -1, model_operation_cb, &n_destroyed,
                                   (GDestroyNotify) count_cb, NULL, NULL, NULL);
  bg_loop_wait_async (loop, -1, NULL, NULL, NULL);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, -1, NULL, NULL, NULL);
  g_task_set_task_data (task, &n_run, NULL);
  bg_loop_run_task (loop, 0, task, count_task_cb);
  g_object_unref (task);
  bg_loop_release (loop, 1);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  bg_test_resume (loop);
  if (n_run != 0 || n_destroyed != 3)
    fail ("what an inherited loop was asked for has run, or was not destroyed");
}

/* An inherited loop. What is given to it is destroyed at once. */
static void
try_inherited (BgLoop *loop)
{
  GSource *source = g_idle_source_new ();
  int n_run = 0;

  if (bg_loop_post (loop, count_cb, &n_run, NULL) || bg_loop_invoke (loop, count_source_cb, &n_run)
      || bg_loop_invoke_full (loop, 0, count_source_cb, &n_run, NULL)
      || bg_loop_post_after (loop, 0, count_cb, &n_run, NULL) != 0
      || bg_loop_add_teardown (loop, count_cb, &n_run, NULL) != 0
      || bg_loop_hold (loop, "child") != 0 || bg_loop_attach (loop, source)
      || bg_loop_withdraw (loop, 1) || bg_loop_remove_teardown (loop, 1))
    fail ("an inherited loop takes work");
  bg_loop_post_full (loop, 7, count_cb, &n_run, (GDestroyNotify) count_cb);
  g_source_unref (source);
  if (n_run != 1)
    fail ("what was given to an inherited loop has run, or was not destroyed");
  try_waiting (loop);
  try_asking (loop);
  try_looking (loop);
}

/* A loop of the child's own. */
static void
try_own (BgLoop *loop)
{
  g_autoptr (GAsyncResult) begun = NULL, answer = NULL;
  g_autoptr (GError) error = NULL;
  guint64 hold;
  int n_run = 0;

  if (loop == NULL || bg_loop_get_state (loop) != BG_LOOP_RUNNING)
    fail ("no loop of its own");
  hold = bg_loop_hold (loop, "child");
  if (hold == 0 || bg_loop_add_teardown (loop, count_cb, &n_run, NULL) == 0
      || !bg_loop_post (loop, count_cb, &n_run, NULL)
      || bg_loop_post_after (loop, 0, count_cb, &n_run, NULL) == 0
      || !bg_loop_call (loop, count_call_cb, &n_run, NULL, &error)
      || !bg_loop_flush (loop, -1, NULL, &error))
    fail ("its own loop does not work");
  begun = bg_loop_perform (loop, 0, -1, util_begin_cb, NULL, NULL, &error);
  answer = bg_loop_perform_operation (loop, 0, -1, util_operation_cb, NULL, NULL, &error);
  if (begun == NULL || answer == NULL)
    fail ("its own loop performs nothing");
  bg_loop_release (loop, hold);
  if (!bg_loop_shutdown (loop, &error) || n_run < 3 || n_run > 4)
    fail ("its own loop does not end");
  g_object_unref (loop);
}

/* Instead of GLib's: what the fixture finds left behind. */
void
g_test_fail_printf (const char *format, ...)
{
  va_list arguments;
  char text[MAX_TEXT];

  va_start (arguments, format);
  g_vsnprintf (text, sizeof text, format, arguments);
  va_end (arguments);
  fail (text);
}

/* A test of the child's own, alone as in a test program. It leaves nothing behind. */
static void
try_fixture (gboolean waits)
{
  BgTestFixture fixture = { NULL };
  g_autoptr (GError) error = NULL;
  int n_run = 0;

  setenv ("BG_TEST_TIMEOUT", waits ? "-1" : "0", TRUE);
  bg_test_fixture_set_up (&fixture, NULL);
  bg_test_fixture_ignore_eventfd (&fixture, STDERR_FILENO);
  if (!bg_loop_call (fixture.loop, count_call_cb, &n_run, NULL, &error) || n_run != 1)
    fail ("the fixture's loop does not work");
  bg_test_fixture_tear_down (&fixture, NULL);
}

static void
run_child (const ModelOp *op, BgLoop *loop)
{
  struct sigaction action = { .sa_handler = hang_cb, .sa_flags = SA_NODEFER | SA_RESETHAND };
  ModelWorld *world = model_world;
  struct sigaction other_action = { .sa_handler = other_hang_cb };

  sigaction (SIGALRM, &action, NULL);
  sigaction (SIGUSR2, &other_action, NULL);
  alarm (MAX (1, world->limit_seconds / CHILD_PART));

  /* Of the model's own locks others may have held one. */
  for (guint i = 0; i < model_load_up_to (&world->n_lives, MODEL_MAX_LIVES); i++)
    if (world->lives[i].loop == loop)
      try_inherited (loop);
  try_fixture (op->variant & 2);
  try_own (bg_loop_new ("child", NULL));
  try_own (bg_loop_dup_default (NULL));
  if (!bg_loop_reset_default (-1, NULL))
    fail ("the default loop cannot be reset");
}

static void
nothing_runs_cb (int signal_number)
{
  _exit (CHILD_PASSED);
}

/* Back into the loop, which is to run nothing: all there is to see is that for a moment nothing
 * has run. */
static void
go_on (void)
{
  struct sigaction action = { .sa_handler = nothing_runs_cb };
  struct itimerval moment = { .it_value = { .tv_usec = MOMENT_USEC } };

  model_world->is_child = TRUE;
  alarm (0);
  sigaction (SIGALRM, &action, NULL);
  setitimer (ITIMER_REAL, &moment, NULL);
}

/* A child may also return into the loop's batch. */
static gboolean
can_go_on (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();

  /* Without a descriptor of its own the child has its parent's wake-ups. */
  return HAVE_EVENTFD && op->variant % 2 && me != NULL && me->life != NULL && me->posted
         && model_program_is_outermost () && g_main_context_is_owner (me->life->context);
}

/* Something of the parent's runs. */
void
model_fork_fail (const char *piece)
{
  g_autofree char *what = g_strconcat (piece, " runs", NULL);

  fail (what);
}

/* AddressSanitizer does not take the locks of its allocator for a fork. A child that waits for one
 * may also wait for it as it is to say where it hangs. */
static gboolean
may_hang_as_it_tells (void)
{
#ifdef __SANITIZE_ADDRESS__
  return TRUE;
#else
  return FALSE;
#endif
}

/* FALSE if the child had to be ended, since it was late and did not even notice. */
static gboolean
wait_for_child (pid_t pid, int *status)
{
  guint seconds = model_world->limit_seconds / LATE_PART + TELL_SECONDS;
  struct pollfd ended = { .fd = (int) syscall (SYS_pidfd_open, pid, 0), .events = POLLIN };
  int n = 1;

  if (ended.fd != -1)
    {
      while ((n = poll (&ended, 1, (int) seconds * 1000)) == -1 && errno == EINTR)
        ;
      close (ended.fd);
    }
  if (n == 0)
    kill (pid, SIGKILL);
  while (waitpid (pid, status, 0) == -1 && errno == EINTR)
    ;
  return n != 0;
}

static void
await_child (pid_t pid)
{
  int status;

  if (!wait_for_child (pid, &status))
    {
      if (!may_hang_as_it_tells ())
        model_fail ("a forked child hangs, and did not notice");
      return;
    }
  if (WIFSIGNALED (status) && WTERMSIG (status) == SIGALRM && may_hang_as_it_tells ())
    return;
  if (!WIFEXITED (status))
    model_fail ("a forked child ended with signal %d", WTERMSIG (status));
  else if (WEXITSTATUS (status) == CHILD_HANGS)
    model_fail ("a forked child hangs");
  else if (WEXITSTATUS (status) == CHILD_FAILED)
    model_fail ("a forked child failed");
}

void
model_fork (const ModelOp *op, BgLoop *loop)
{
  gboolean goes_on = can_go_on (op);
  pid_t pid;

  model_increment (&model_world->n_forked);
  pid = fork ();
  if (pid == 0)
    {
      run_child (op, loop);
      if (!goes_on)
        _exit (CHILD_PASSED);
      go_on ();
      return;
    }
  if (pid > 0)
    await_child (pid);
  model_decrement (&model_world->n_forked);
}
