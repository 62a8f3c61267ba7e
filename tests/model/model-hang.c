/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <execinfo.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model-world.h"

/* What is told of a hang: every loop, and the stack of every thread, which each writes itself when
 * it gets a signal. */

#define MAX_FRAMES     48
#define ANSWER_SECONDS 1 /* for a thread, which may have blocked the signal */

static sem_t answered;

/* By a thread that was asked, when it has written what it has to. */
void
model_hang_answer (void)
{
  sem_post (&answered);
}

/* Has a thread handle the signal, and waits until it has: one after the other, or what they write
 * would mix. */
void
model_hang_ask (long id)
{
  struct timespec end;

  clock_gettime (CLOCK_REALTIME, &end);
  end.tv_sec += ANSWER_SECONDS;
  if (syscall (SYS_tgkill, getpid (), id, SIGUSR2) != 0)
    return;
  while (sem_timedwait (&answered, &end) == -1 && errno == EINTR)
    ;
}

static void
stack_cb (int signal_number)
{
  void *frames[MAX_FRAMES];
  int n = backtrace (frames, MAX_FRAMES);

  backtrace_symbols_fd (frames, n, STDERR_FILENO);
  model_hang_answer ();
}

void
model_hang_init (void)
{
  struct sigaction action = { .sa_handler = stack_cb, .sa_flags = SA_RESTART };
  void *frames[1];

  /* It loads what it needs the first time, which a signal handler must not. */
  backtrace (frames, 1);
  sem_init (&answered, 0, 0);
  sigaction (SIGUSR2, &action, NULL);
}

static void
report_actor (ModelActor *actor, GHashTable *reported)
{
  const ModelOp *op = model_load (&actor->op);
  long id = model_load (&actor->id);

  if (id == 0)
    return;
  g_hash_table_add (reported, GSIZE_TO_POINTER (id));
  fprintf (stderr, "-- %s", actor->name);
  if (op != NULL)
    fprintf (stderr, ", in %u: %s", op->id, model_kind_name (op->kind));
  if (model_load (&actor->owed) > 0)
    fprintf (stderr, ", %d replies are to come", model_load (&actor->owed));
  fputc ('\n', stderr);
  fflush (stderr);
  model_hang_ask (id);
}

static void
report_replies (ModelWorld *self)
{
  for (guint i = 0; i < model_load_up_to (&self->n_pieces, MODEL_MAX_PIECES); i++)
    {
      ModelPiece *piece = &self->pieces[i];

      if (piece->replied_to != NULL && model_load (&piece->n_replied) == 0)
        fprintf (stderr, "-- no reply yet to %s: run %d, destroyed %d\n", model_piece_name (piece),
                 model_load (&piece->n_run), model_load (&piece->n_destroyed));
    }
}

/* Threads of loops and helpers that are tried apart, and GIO's. */
static void
report_other_threads (GHashTable *reported)
{
  g_autoptr (GDir) tasks = g_dir_open ("/proc/self/task", 0, NULL);
  const char *name;

  while (tasks != NULL && (name = g_dir_read_name (tasks)) != NULL)
    {
      long id = strtol (name, NULL, 10);
      g_autofree char *path = g_build_filename ("/proc/self/task", name, "comm", NULL);
      g_autofree char *title = NULL;

      if (id == syscall (SYS_gettid) || g_hash_table_contains (reported, GSIZE_TO_POINTER (id))
          || !g_file_get_contents (path, &title, NULL, NULL))
        continue;
      fprintf (stderr, "-- thread %s", title);
      fflush (stderr);
      model_hang_ask (id);
    }
}

void
model_hang_report (void)
{
  ModelWorld *self = model_world;
  g_autoptr (GHashTable) reported = g_hash_table_new (NULL, NULL);
  g_autofree char *loops = NULL;

  model_fail ("hangs");
  for (guint i = 0; i < model_load_up_to (&self->n_lives, MODEL_MAX_LIVES); i++)
    {
      BgLoop *loop = model_life_take (&self->lives[i]);
      g_autofree char *text = loop != NULL ? bg_loop_describe (loop) : NULL;

      if (text != NULL)
        fprintf (stderr, "-- %s: %s\n", self->lives[i].actor.name, text);
    }
  loops = bg_test_describe_loops (0, 0);
  if (loops != NULL)
    fprintf (stderr, "-- all loops:\n%s\n", loops);
  for (guint i = 0; i < self->scenario->n_threads; i++)
    report_actor (&self->threads[i], reported);
  report_replies (self);
  report_actor (&self->closer, reported);
  report_actor (&self->server, reported);
  for (guint i = 0; i < model_load_up_to (&self->n_lives, MODEL_MAX_LIVES); i++)
    if (!model_load (&self->lives[i].finalized))
      report_actor (&self->lives[i].actor, reported);
  report_other_threads (reported);
}
