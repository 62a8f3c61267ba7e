/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <bgloop/bg-test.h>

#include "../util.h"
#include "model.h"

/* Runs a scenario: makes the loops, has the threads run their programs, asks for the end
 * when they have or when they have had patience enough, and looks at what is left. */

/* How often the end is asked for again, in milliseconds, as long as threads wait: what runs
 * meanwhile may hold a loop again. */
#define ASK_MSEC 2

/* After how long what holds a loop is looked for, in milliseconds. */
#define END_MSEC 20

/* How long what is left may take to go, in milliseconds. */
#define LEFT_MSEC 3000

/* How many loops may have to come and go for it. */
#define VISITS 30

typedef ModelRunner Runner;

void
model_fail (const char *format, ...)
{
  va_list args;

  va_start (args, format);
  fputs ("violated: ", stderr);
  vfprintf (stderr, format, args);
  fputc ('\n', stderr);
  va_end (args);
  abort ();
}

/* The end is about to be asked for. */
void
model_ask (Model *self, guint loop, BgShutdownMode mode)
{
  g_atomic_int_set (&self->loops[loop].ends, 1);
  if (mode == BG_SHUTDOWN_CANCEL)
    g_atomic_int_set (&self->loops[loop].cancels, 1);
}

/* Somebody was told that the loop has ended: all that it had accepted has its outcome. */
void
model_check_over (Model *self, guint loop)
{
  g_atomic_int_set (&self->loops[loop].over, 1);
  g_mutex_lock (&self->lock);
  for (guint i = 0; i < self->pieces->len; i++)
    {
      ModelPiece *piece = g_ptr_array_index (self->pieces, i);

      model_check (piece->loop != loop || !piece->has_destroy
                       || g_atomic_int_get (&piece->accepted) != 1
                       || g_atomic_int_get (&piece->destroyed) == 1,
                   "operation %u: the loop has ended without its outcome", piece->op->id);
    }
  g_mutex_unlock (&self->lock);
}

void
model_run_program (Model *self, const ModelProgram *program)
{
  for (guint i = 0; i < program->n; i++)
    {
      const ModelOp *op = &program->ops[i];
      g_autoptr (BgLoop) loop = g_weak_ref_get (&self->loops[op->loop].ref);

      if (loop != NULL)
        op->kind->run (self, op, loop);
    }
}

/* Threads */

/* What GLib is to tell is waited for in any case: a task that has returned refers to the
 * context for ever. */
static gboolean
has_replies_to_come (Model *self, GMainContext *context, gboolean of_tasks)
{
  gboolean any = FALSE;

  g_mutex_lock (&self->lock);
  for (guint i = 0; i < self->pieces->len && !any; i++)
    {
      ModelPiece *piece = g_ptr_array_index (self->pieces, i);

      any = piece->has_reply && piece->context == context
            && g_atomic_int_get (&piece->replied) == 0 && (!of_tasks || piece->is_task);
    }
  g_mutex_unlock (&self->lock);

  return any;
}

/* Whether replies are on their way when nobody iterates any more, they are lost. */
static void
abandon_replies (Model *self, GMainContext *context)
{
  g_mutex_lock (&self->lock);
  for (guint i = 0; i < self->pieces->len; i++)
    {
      ModelPiece *piece = g_ptr_array_index (self->pieces, i);

      if (piece->context == context)
        {
          g_atomic_int_set (&piece->abandoned, 1);
          piece->context = NULL;
        }
    }
  g_mutex_unlock (&self->lock);
}

static gboolean
wake_cb (gpointer data)
{
  return G_SOURCE_CONTINUE;
}

static void
iterate_for_replies (Model *self, GMainContext *context, gboolean of_tasks)
{
  g_autoptr (GSource) source = g_timeout_source_new (ASK_MSEC);

  /* A reply may also be dropped, which wakes nobody. */
  g_source_set_callback (source, wake_cb, NULL, NULL);
  g_source_attach (source, context);
  while (has_replies_to_come (self, context, of_tasks))
    g_main_context_iteration (context, TRUE);
  g_source_destroy (source);
}

static gpointer
runner_thread (gpointer data)
{
  Runner *runner = data;
  Model *self = runner->model;
  GMainContext *context = g_main_context_new ();

  g_main_context_push_thread_default (context);
  model_run_program (self, &self->scenario->threads[runner->index]);
  if (self->scenario->gentle)
    {
      model_release_holds (self);
      model_answer_tasks (self);
    }
  iterate_for_replies (self, context, self->scenario->leaves[runner->index]);
  abandon_replies (self, context);
  g_main_context_pop_thread_default (context);
  g_main_context_unref (context);
  g_atomic_int_add (&self->n_threads_left, -1);
  return NULL;
}

/* Loops */

static void
handler_cb (GCancellable *cancellable, gpointer data)
{
  Runner *runner = data;
  guint before = model_enter_handler (runner->index);

  model_run_program (runner->model, &runner->model->scenario->handlers[runner->index]);
  model_leave_handler (before);
}

static void
destructor_cb (gpointer data)
{
  Runner *runner = data;

  model_run_last (runner->model, &runner->model->scenario->destructors[runner->index]);
}

static GPrivate destructor = G_PRIVATE_INIT (destructor_cb);

static gboolean
prepare_thread_cb (gpointer data, GError **error)
{
  Runner *runner = data;

  model_set_own_loop (runner->index);
  if (runner->model->scenario->destructors[runner->index].n > 0)
    g_private_set (&destructor, data);
  return TRUE;
}

static void
start_loop (Model *self, guint index, BgLoop **loop)
{
  Runner *runner = &self->runners[index];
  const ModelScenario *scenario = self->scenario;
  g_autoptr (GError) error = NULL;
  char name[] = "loop 0";

  name[5] += (char) index;
  *loop = bg_loop_new (name, &error);
  g_assert_no_error (error);
  g_object_set (*loop, "linger", scenario->linger[index], NULL);
  g_weak_ref_init (&self->loops[index].ref, *loop);
  runner->model = self;
  runner->index = index;
  if (scenario->has_handler[index])
    g_signal_connect (bg_loop_get_cancellable (*loop), "cancelled", G_CALLBACK (handler_cb), runner);
  bg_loop_call (*loop, prepare_thread_cb, runner, NULL, NULL);
}

static gpointer
ask_thread (gpointer data)
{
  Runner *runner = data;
  g_autoptr (BgLoop) loop = g_weak_ref_get (&runner->model->loops[runner->index].ref);

  if (loop != NULL)
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  return NULL;
}

/* Nobody is to wait for anything any more. Each loop is told by a thread of its own, for
 * handlers of its cancellable may wait for another one. */
static void
ask_for_the_end (Model *self)
{
  for (guint i = 0; i < self->scenario->n_loops && self->askers[0] == NULL; i++)
    model_ask (self, i, BG_SHUTDOWN_CANCEL);
  for (guint i = 0; i < self->scenario->n_loops; i++)
    {
      if (self->askers[i] == NULL)
        self->askers[i] = g_thread_new ("asker", ask_thread, &self->runners[i]);
    }
  model_release_holds (self);
  model_answer_tasks (self);
  for (guint i = 1; i <= MODEL_CANCELLABLES; i++)
    g_cancellable_cancel (self->cancellables[i]);
}

static void
wait_for_threads (Model *self)
{
  for (guint i = 0; i < self->scenario->patience * 4 || self->scenario->gentle; i++)
    {
      if (g_atomic_int_get (&self->n_threads_left) == 0)
        return;
      g_usleep (250);
    }

  while (g_atomic_int_get (&self->n_threads_left) > 0)
    {
      ask_for_the_end (self);
      g_usleep (ASK_MSEC * 1000);
    }
}

static void
check_stats (BgLoop *loop, guint index)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

  model_check (stats->queued == 0 && stats->holds == 0,
               "loop %u: %" G_GUINT64_FORMAT " queued and %" G_GUINT64_FORMAT " holds at the end",
               index, stats->queued, stats->holds);
  model_check (stats->posted == stats->run + stats->cancelled,
               "loop %u: of %" G_GUINT64_FORMAT " pieces %" G_GUINT64_FORMAT
               " ran and %" G_GUINT64_FORMAT " were cancelled",
               index, stats->posted, stats->run, stats->cancelled);
}

static void
end_loop (Model *self, guint index)
{
  g_autoptr (BgLoop) loop = g_weak_ref_get (&self->loops[index].ref);
  BgShutdownMode mode = self->scenario->gentle ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL;
  g_autoptr (GError) error = NULL;

  if (loop == NULL)
    return;

  model_ask (self, index, mode);
  /* What runs until then may hold it again. */
  while (!bg_loop_shutdown_full (loop, mode, END_MSEC, NULL, &error))
    {
      model_check (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT),
                   "loop %u does not end: %s", index, error->message);
      g_clear_error (&error);
      model_release_holds (self);
      model_answer_tasks (self);
    }
  model_check_over (self, index);
  check_stats (loop, index);
  g_signal_handlers_disconnect_matched (bg_loop_get_cancellable (loop), G_SIGNAL_MATCH_FUNC, 0, 0,
                                        NULL, handler_cb, NULL);
}

static void
free_piece (gpointer data)
{
  g_free (data);
}

static void
model_init (Model *self, const ModelScenario *scenario)
{
  self->scenario = scenario;
  self->n_threads_left = (int) scenario->n_threads;
  g_mutex_init (&self->lock);
  self->pieces = g_ptr_array_new_with_free_func (free_piece);
  self->holds = g_array_new (FALSE, FALSE, sizeof (ModelHold));
  self->tasks = g_ptr_array_new_with_free_func (g_object_unref);
  for (guint i = 1; i <= MODEL_CANCELLABLES; i++)
    self->cancellables[i] = g_cancellable_new ();
  model_graph_init ();
}

static void
model_clear (Model *self)
{
  for (guint i = 0; i < self->pieces->len; i++)
    model_piece_check_final (g_ptr_array_index (self->pieces, i));
  for (guint i = 1; i <= MODEL_CANCELLABLES; i++)
    {
      /* Nobody refers to it any more, nor listens. */
      model_check (((GObject *) self->cancellables[i])->ref_count == 1,
                   "cancellable %u has %u references at the end", i,
                   ((GObject *) self->cancellables[i])->ref_count);
      g_object_unref (self->cancellables[i]);
    }
  for (guint i = 0; i < self->scenario->n_loops; i++)
    {
      g_autoptr (BgLoop) loop = g_weak_ref_get (&self->loops[i].ref);

      model_check (loop == NULL, "loop %u is still referred to at the end", i);
      g_weak_ref_clear (&self->loops[i].ref);
    }
  g_ptr_array_unref (self->tasks);
  g_array_unref (self->holds);
  g_ptr_array_unref (self->pieces);
  g_mutex_clear (&self->lock);
}

/* Threads of loops and of the scenario. (GLib keeps some of its own for a while.) */
static guint
count_threads (void)
{
  static const char *const names[] = { "loop", "runner", "visitor", "default" };
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/task", 0, NULL);
  const char *entry;
  guint n = 0;

  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename ("/proc/self/task", entry, "comm", NULL);
      g_autofree char *name = NULL;

      if (!g_file_get_contents (path, &name, NULL, NULL))
        continue;
      for (guint i = 0; i < G_N_ELEMENTS (names); i++)
        n += g_str_has_prefix (name, names[i]);
    }

  return n;
}

/* A loop comes and goes, and what is told to the default context is told. */
static void
visit (void)
{
  g_autoptr (BgLoop) loop = bg_loop_new ("visitor", NULL);

  bg_loop_shutdown (loop, NULL);
  while (g_main_context_iteration (NULL, FALSE))
    ;
}

static void
loaded_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autofree char *contents = NULL;

  g_file_load_contents_finish (G_FILE (source), result, &contents, NULL, NULL, NULL);
  *(gboolean *) data = TRUE;
}

/* What GLib makes once, it keeps. */
static void
warm_up (void)
{
  g_autoptr (GFile) file = g_file_new_for_path ("/proc/self/comm");
  gboolean done = FALSE;

  g_file_load_contents_async (file, NULL, loaded_cb, &done);
  while (!done)
    g_main_context_iteration (NULL, TRUE);
}

/* What may still refer to something */
static void
print_unanswered (Model *self)
{
  for (guint i = 0; i < self->pieces->len; i++)
    {
      ModelPiece *piece = g_ptr_array_index (self->pieces, i);

      if (piece->has_reply && g_atomic_int_get (&piece->replied) == 0)
        fprintf (stderr, "operation %u (%s) for loop %u from loop %u: no reply%s%s\n",
                 piece->op->id, piece->op->kind->name, piece->loop, piece->from,
                 piece->abandoned ? ", abandoned" : "", piece->is_last ? ", given last" : "");
    }
}

void
model_run (const ModelScenario *scenario)
{
  static guint n_fds;
  Model *self = g_new0 (Model, 1);
  BgLoop *loops[MODEL_LOOPS] = { NULL };
  Runner runners[MODEL_THREADS];
  GThread *threads[MODEL_THREADS];
  g_autofree char *left = NULL;
  GMainContext *context;

  model_hang_set (scenario);
  if (n_fds == 0)
    {
      warm_up ();
      visit ();
      n_fds = util_count_fds ();
    }

  /* Destroy notifies and handlers run here, too, and what they ask for is told here. */
  context = g_main_context_new ();
  g_main_context_push_thread_default (context);
  model_init (self, scenario);
  for (guint i = 0; i < scenario->n_loops; i++)
    start_loop (self, i, &loops[i]);
  for (guint i = 0; i < scenario->n_threads; i++)
    {
      runners[i] = (Runner){ self, i };
      threads[i] = g_thread_new ("runner", runner_thread, &runners[i]);
    }
  for (guint i = 0; i < scenario->n_loops && !scenario->owns_loops; i++)
    {
      g_atomic_int_set (&self->loops[i].ends, 1);
      g_clear_object (&loops[i]);
    }

  wait_for_threads (self);
  for (guint i = 0; i < scenario->n_threads; i++)
    g_thread_join (threads[i]);
  model_release_holds (self);
  model_answer_tasks (self);
  if (!scenario->gentle)
    ask_for_the_end (self);
  for (guint i = 0; i < scenario->n_loops; i++)
    end_loop (self, i);
  for (guint i = 0; i < scenario->n_loops && self->askers[i] != NULL; i++)
    g_thread_join (self->askers[i]);
  bg_loop_reset_default (-1, NULL);
  iterate_for_replies (self, context, FALSE);
  g_main_context_pop_thread_default (context);
  iterate_for_replies (self, g_main_context_default (), FALSE);
  g_main_context_unref (context);
  for (guint i = 0; i < scenario->n_loops; i++)
    g_clear_object (&loops[i]);

  g_atomic_int_set (&self->over, 1);
  /* What GLib tells the context of a loop that has ended is told when another one starts. */
  for (guint i = 0; i < VISITS && (i == 0 || left != NULL); i++)
    {
      visit ();
      g_free (left);
      left = bg_test_describe_loops (0, LEFT_MSEC / VISITS);
    }
  if (left != NULL)
    print_unanswered (self);
  model_check (left == NULL, "loops are left: %s", left);
  while (count_threads () > 0)
    g_usleep (100);
  model_clear (self);
  /* GLib's own threads may be in the midst of what completes in such a context. */
  for (guint i = 0; i < VISITS && (i == 0 || util_count_fds () > n_fds); i++)
    {
      if (i > 0)
        g_usleep (LEFT_MSEC * 1000 / VISITS);
      visit ();
    }
  model_check (util_count_fds () <= n_fds, "%u descriptors, and %u before", util_count_fds (), n_fds);
  g_free (self);
}
