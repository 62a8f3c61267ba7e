/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model.h"

/* A scenario that takes too long is a hang: says what each loop does and where each thread
 * stands, and ends the program. */

#define FRAMES 40

static const ModelScenario *running;
static guint patience;

static void
stack_cb (int signal_number)
{
  void *frames[FRAMES];
  int n = backtrace (frames, FRAMES);

  backtrace_symbols_fd (frames, n, STDERR_FILENO);
  (void) !write (STDERR_FILENO, "\n", 1);
}

static void
dump_stacks (void)
{
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/task", 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      fprintf (stderr, "thread %s:\n", name);
      syscall (SYS_tgkill, getpid (), (int) g_ascii_strtoll (name, NULL, 10), SIGUSR2);
      g_usleep (20000);
    }
}

static gpointer
watch_thread (gpointer data)
{
  sigset_t set;
  int number;
  g_autofree char *loops = NULL;

  sigemptyset (&set);
  sigaddset (&set, SIGALRM);
  sigwait (&set, &number);
  fprintf (stderr, "violated: the scenario of seed %" G_GUINT64_FORMAT " hangs\n", running->seed);
  loops = bg_test_describe_loops (0, 0);
  fprintf (stderr, "%s\n", loops != NULL ? loops : "no loops");
  dump_stacks ();
  _exit (3);
}

void
model_hang_install (guint seconds)
{
  struct sigaction action = { .sa_handler = stack_cb, .sa_flags = SA_RESTART };
  void *frames[1];
  sigset_t set;

  patience = seconds;
  /* The first time it loads a library. */
  backtrace (frames, 1);
  sigaction (SIGUSR2, &action, NULL);
  sigemptyset (&set);
  sigaddset (&set, SIGALRM);
  pthread_sigmask (SIG_BLOCK, &set, NULL);
  g_thread_unref (g_thread_new ("watch", watch_thread, NULL));
}

void
model_hang_set (const ModelScenario *scenario)
{
  running = scenario;
  alarm (patience);
}
