/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-children.h"

#include <fcntl.h>
#include <gio/gio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model-world.h"

/* Runs seeds in child processes, many in each. A child tells by shared memory how far it has come;
 * the seed at which one fails, crashes or hangs has failed, and another child takes the rest. */

#define BLOCK     50
#define TAP_BLOCK 100
#define MAX_JOBS  64
#define LOOK_MSEC 200 /* how often to look for children that do not get on */

/* One child's, in memory that the parent sees. */
typedef struct
{
  _Atomic guint done; /* seeds of its block that have passed */
} Progress;

typedef struct
{
  pid_t pid; /* 0: none */
  guint from, to;
  guint seen;
  gint64 since; /* that it has done the seen ones */
} Child;

typedef struct
{
  const ModelChildren *children;
  Progress *progress;
  Child jobs[MAX_JOBS];
  guint next;
  guint n_passed, n_failed;
  sigset_t signals; /* that were blocked before */
  guint *failed;    /* of each block for TAP */
  guint *passed;
} Campaign;

static GLogWriterOutput
log_cb (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data)
{
  if (level & (G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING))
    {
      g_autofree char *text = g_log_writer_format_fields (level, fields, n_fields, FALSE);

      if (model_world != NULL)
        model_increment (&model_world->n_criticals);
      if (model_world == NULL || model_world->n_expected_criticals == 0)
        fprintf (stderr, "%s\n", text);
      return G_LOG_WRITER_HANDLED;
    }
  return level & G_LOG_LEVEL_DEBUG ? G_LOG_WRITER_HANDLED
                                   : g_log_writer_default (level, fields, n_fields, data);
}

static void
log_old_cb (const char *domain, GLogLevelFlags level, const char *text, gpointer data)
{
  if ((level & (G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING)) == 0)
    return;
  if (model_world != NULL)
    model_increment (&model_world->n_criticals);
  fprintf (stderr, "%s: %s\n", domain, text);
}

static void
warmed_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  gboolean *warm = data;

  *warm = TRUE;
}

/* GLib's own threads and descriptors, which stay, are there from now on. */
static void
warm_up (void)
{
  g_autoptr (GSubprocess) subprocess
      = g_subprocess_new (G_SUBPROCESS_FLAGS_NONE, NULL, "/bin/true", NULL);
  g_autoptr (GFile) file = g_file_new_for_path ("/dev/null");
  gboolean warm = FALSE;

  if (subprocess != NULL)
    g_subprocess_wait (subprocess, NULL, NULL);
  g_file_load_contents_async (file, NULL, warmed_cb, &warm);
  while (!warm)
    g_main_context_iteration (NULL, TRUE);
}

static void
child_init (void)
{
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  signal (SIGPIPE, SIG_IGN);
  g_setenv ("BG_TEST_TIMEOUT", G_STRINGIFY (MODEL_TEST_MSEC), TRUE);
  g_log_set_writer_func (log_cb, NULL, NULL);
  g_log_set_default_handler (log_old_cb, NULL);
  g_log_set_always_fatal (G_LOG_FATAL_MASK);
  model_hang_init ();
  warm_up ();
}

static gboolean
run_seed (const ModelChildren *self, const ModelFilter *filter, guint64 seed)
{
  g_autoptr (ModelScenario) scenario = model_scenario_new (seed, filter);

  return model_run (scenario, self->verbose, self->limit_seconds);
}

static void
child_start (Campaign *self, guint job)
{
  Child *child = &self->jobs[job];
  Progress *progress = &self->progress[job];

  model_store (&progress->done, 0);
  child->seen = 0;
  child->since = g_get_monotonic_time ();
  fflush (NULL);
  child->pid = fork ();
  if (child->pid != 0)
    return;

  setpgid (0, 0);
  sigprocmask (SIG_SETMASK, &self->signals, NULL);
  child_init ();
  for (guint i = child->from; i < child->to && !model_process_is_spent (); i++)
    {
      if (!run_seed (self->children, self->children->filter, self->children->first + i))
        _exit (1);
      model_increment (&progress->done);
    }
  exit (0); /* not _exit(): leak checkers want to look */
}

static void
note_passed (Campaign *self, guint from, guint n)
{
  for (guint i = from; i < from + n; i++)
    self->passed[i / TAP_BLOCK]++;
  self->n_passed += n;
}

/* The child has come to its end, one way or the other. */
static void
child_over (Campaign *self, guint job, int status)
{
  Child *child = &self->jobs[job];
  guint done = model_load (&self->progress[job].done);
  guint at = child->from + done;

  child->pid = 0;
  note_passed (self, child->from, done);
  if (WIFEXITED (status) && WEXITSTATUS (status) == 0)
    {
      child->from = at;
      return;
    }

  /* Of a leak that is found at the end it is not known whose it is. */
  at = MIN (at, child->to - 1);
  if (done == child->to - child->from)
    {
      self->n_passed--;
      self->passed[at / TAP_BLOCK]--;
    }
  self->failed[at / TAP_BLOCK]++;
  self->n_failed++;
  fprintf (stderr, "seed %" G_GUINT64_FORMAT " failed (%s %d)\n", self->children->first + at,
           WIFSIGNALED (status) ? "signal" : "status",
           WIFSIGNALED (status) ? WTERMSIG (status) : WEXITSTATUS (status));
  child->from = at + 1;
}

/* It does not even notice by itself that it hangs. */
static void
kill_if_stuck (Campaign *self, guint job)
{
  Child *child = &self->jobs[job];
  guint done = model_load (&self->progress[job].done);
  gint64 now = g_get_monotonic_time ();

  if (done != child->seen)
    {
      child->seen = done;
      child->since = now;
    }
  else if (now > child->since + 4 * self->children->limit_seconds * G_USEC_PER_SEC)
    {
      fprintf (stderr, "seed %" G_GUINT64_FORMAT " hangs without a word\n",
               self->children->first + child->from + done);
      kill (-child->pid, SIGKILL);
    }
}

/* FALSE if there is nothing to do for it any more. */
static gboolean
attend_job (Campaign *self, guint job)
{
  Child *child = &self->jobs[job];
  gboolean enough = self->n_failed >= self->children->max_failures;
  int status;

  if (child->pid != 0)
    {
      if (waitpid (child->pid, &status, WNOHANG) == 0)
        {
          kill_if_stuck (self, job);
          return TRUE;
        }
      kill (-child->pid, SIGKILL);
      child_over (self, job, status);
    }

  if (enough)
    return FALSE;
  if (child->from == child->to)
    {
      child->from = self->next;
      child->to = self->next = MIN (self->next + BLOCK, self->children->n_seeds);
    }
  if (child->from == child->to)
    return FALSE;
  child_start (self, job);
  return TRUE;
}

static void
print_tap (Campaign *self, guint n_blocks)
{
  for (guint i = 0; i < n_blocks; i++)
    printf ("%s %u seeds from %" G_GUINT64_FORMAT "\n", self->failed[i] > 0 ? "not ok" : "ok",
            i + 1, self->children->first + i * TAP_BLOCK);
}

int
model_children_run (const ModelChildren *self)
{
  guint n_blocks = (self->n_seeds + TAP_BLOCK - 1) / TAP_BLOCK;
  Campaign campaign = { .children = self };
  guint n_jobs = MIN (self->n_jobs, MAX_JOBS);
  const struct timespec look = { .tv_nsec = LOOK_MSEC * G_TIME_SPAN_MILLISECOND * 1000 };
  gboolean busy = TRUE;
  gint64 begin = g_get_monotonic_time ();
  sigset_t ended;

  campaign.failed = g_new0 (guint, n_blocks + 1);
  campaign.passed = g_new0 (guint, n_blocks + 1);
  campaign.progress = mmap (NULL, MAX_JOBS * sizeof (Progress), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (campaign.progress == MAP_FAILED)
    return 2;
  if (self->tap)
    printf ("1..%u\n", n_blocks);

  /* Blocked, the signal is kept for whoever waits for it next. */
  sigemptyset (&ended);
  sigaddset (&ended, SIGCHLD);
  sigprocmask (SIG_BLOCK, &ended, &campaign.signals);
  while (busy)
    {
      busy = FALSE;
      for (guint i = 0; i < n_jobs; i++)
        busy |= attend_job (&campaign, i);
      if (busy)
        sigtimedwait (&ended, NULL, &look);
    }
  sigprocmask (SIG_SETMASK, &campaign.signals, NULL);

  if (self->tap)
    print_tap (&campaign, n_blocks);
  if (!self->tap)
    printf ("%.1f seeds a second\n", (campaign.n_passed + campaign.n_failed) * 1e6
                                         / (double) (g_get_monotonic_time () - begin));
  printf ("%s%u passed, %u failed\n", self->tap ? "# " : "", campaign.n_passed, campaign.n_failed);
  munmap (campaign.progress, MAX_JOBS * sizeof (Progress));
  g_free (campaign.failed);
  g_free (campaign.passed);
  return campaign.n_failed > 0;
}

/* For valgrind, which at the exit of a forked child takes what GLib's threads have for leaks. */
int
model_children_run_here (const ModelChildren *self)
{
  guint n_passed = 0;

  child_init ();
  while (n_passed < self->n_seeds && run_seed (self, self->filter, self->first + n_passed))
    n_passed++;

  printf ("1..1\n%s 1 %u of %u seeds from %" G_GUINT64_FORMAT "\n",
          n_passed == self->n_seeds ? "ok" : "not ok", n_passed, self->n_seeds, self->first);
  return n_passed < self->n_seeds;
}

/* Whether it passes every time, each in a fresh process. */
gboolean
model_children_try (const ModelChildren *self,
                    const ModelFilter *filter,
                    guint64 seed,
                    guint times,
                    gboolean quiet)
{
  guint begun = 0, running = 0;
  gboolean passed = TRUE;
  int status;

  while ((passed && begun < times) || running > 0)
    {
      if (passed && begun < times && running < self->n_jobs)
        {
          pid_t pid;

          fflush (NULL);
          pid = fork ();
          if (pid == 0)
            {
              int nothing = quiet ? open ("/dev/null", O_WRONLY) : -1;

              if (nothing >= 0)
                dup2 (nothing, STDERR_FILENO);
              child_init ();
              alarm (4 * self->limit_seconds);
              if (!run_seed (self, filter, seed))
                _exit (1);
              exit (0);
            }
          begun++;
          running++;
          continue;
        }
      if (wait (&status) > 0)
        {
          running--;
          passed &= WIFEXITED (status) && WEXITSTATUS (status) == 0;
        }
    }
  return passed;
}

/* Here, in this process, for a debugger; or often, in others. */
int
model_children_replay (const ModelChildren *self, guint64 seed, guint times)
{
  guint n_failed = 0;

  if (times == 1)
    {
      child_init ();
      n_failed = !run_seed (self, self->filter, seed);
    }
  else
    {
      for (guint i = 0; i < times; i++)
        n_failed += !model_children_try (self, self->filter, seed, 1, FALSE);
    }
  printf ("%u passed, %u failed\n", times - n_failed, n_failed);
  return n_failed > 0;
}
