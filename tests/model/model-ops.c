/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model-ops-wait.h"
#include "model.h"

/* What programs do: hand over work, live on a loop, end it, look at it, and what is
 * around. What waits for an answer is in model-ops-wait.c. */

#define FORK_SECONDS 20
#define STALL_USEC   200

static void
posted_cb (gpointer data)
{
  model_piece_begin (data);
}

static gboolean
invoked_cb (gpointer data)
{
  ModelPiece *piece = data;

  /* Again: only the first time counts. */
  if (g_atomic_int_get (&piece->ran) > 0)
    return G_SOURCE_REMOVE;
  model_piece_begin (piece);
  return piece->op->variant % 3 == 0;
}

static void
run_post (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, FALSE);

  model_piece_set_ordered (piece);
  model_piece_settle (piece, bg_loop_post_full (loop, model_get_priority (op->priority), posted_cb,
                                                piece, model_piece_destroy_cb));
}

static void
run_post_plain (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, FALSE);

  model_piece_settle (piece, bg_loop_post (loop, posted_cb, piece, model_piece_destroy_cb));
}

static void
run_invoke (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, op->variant % 4 != 0, FALSE);

  if (op->variant % 4 == 0)
    model_piece_settle (piece, bg_loop_invoke (loop, invoked_cb, piece));
  else
    model_piece_settle (piece,
                        bg_loop_invoke_full (loop, model_get_priority (op->priority), invoked_cb,
                                             piece, model_piece_destroy_cb));
}

/* Perhaps it is taken back. What is not yet due when the loop ends does not run. */
static void
run_post_after (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, FALSE);
  guint64 id;

  g_atomic_int_set (&piece->excused, 1);
  id = bg_loop_post_after (loop, op->delay, posted_cb, piece, model_piece_destroy_cb);
  model_piece_settle (piece, id != 0);
  if (id == 0 || op->variant % 2 == 0)
    return;

  if (op->variant % 4 == 1)
    g_usleep (op->delay * 500);
  if (bg_loop_withdraw (loop, id))
    {
      model_check (g_atomic_int_get (&piece->ran) == 0, "operation %u: taken back, and ran", op->id);
      model_check (!bg_loop_withdraw (loop, id), "operation %u: taken back twice", op->id);
      /* From now on it must not run. */
      g_atomic_int_set (&piece->accepted, -1);
    }
}

/* Living on a loop */

static gboolean
source_cb (gpointer data)
{
  ModelPiece *piece = data;

  /* At the end sources have their last turns while what GIO has begun completes. */
  if (g_atomic_int_add (&piece->ran, 1) == 0 && g_atomic_int_get (&piece->model->loops[piece->loop].ends))
    model_run_last (piece->model, &piece->op->func);
  else if (g_atomic_int_get (&piece->ran) == 1)
    model_run_program (piece->model, &piece->op->func);
  return (guint) g_atomic_int_get (&piece->ran) <= piece->op->delay;
}

static void
source_destroyed_cb (gpointer data)
{
  ModelPiece *piece = data;

  model_check (g_atomic_int_add (&piece->destroyed, 1) == 0, "operation %u: destroyed again",
               piece->op->id);
  model_run_last (piece->model, &piece->op->destroy);
}

static void
run_attach (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, FALSE);
  g_autoptr (GSource) source = op->variant % 2 == 0 ? g_idle_source_new ()
                                                    : g_timeout_source_new (op->delay);

  g_atomic_int_set (&piece->excused, 1);
  g_source_set_priority (source, model_get_priority (op->priority));
  g_source_set_callback (source, source_cb, piece, source_destroyed_cb);
  if (op->variant % 5 == 0)
    g_source_attach (source, bg_loop_get_context (loop));
  else if (!bg_loop_attach (loop, source))
    model_check (g_atomic_int_get (&piece->ran) == 0, "operation %u: refused, and ran", op->id);
  if (op->variant % 7 == 0)
    g_source_destroy (source);
}

static void
run_hold (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelHold hold = { loop, bg_loop_hold (loop, op->variant % 2 == 0 ? "the model" : NULL) };

  if (hold.id == 0)
    return;
  if (op->variant % 3 == 0)
    {
      bg_loop_release (loop, hold.id);
      return;
    }

  g_object_ref (loop);
  g_mutex_lock (&model->lock);
  g_array_append_val (model->holds, hold);
  g_mutex_unlock (&model->lock);
}

void
model_release_holds (Model *self)
{
  ModelHold hold;

  for (;;)
    {
      g_mutex_lock (&self->lock);
      hold.loop = NULL;
      if (self->holds->len > 0)
        {
          hold = g_array_index (self->holds, ModelHold, self->holds->len - 1);
          g_array_set_size (self->holds, self->holds->len - 1);
        }
      g_mutex_unlock (&self->lock);
      if (hold.loop == NULL)
        return;

      bg_loop_release (hold.loop, hold.id);
      g_object_unref (hold.loop);
    }
}

static void
run_release (Model *model, const ModelOp *op, BgLoop *loop)
{
  model_release_holds (model);
}

static void
run_teardown (Model *model, const ModelOp *op, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (model, op, TRUE, FALSE);
  guint64 id;

  g_atomic_int_set (&piece->excused, -1); /* it runs also after CANCEL */
  id = bg_loop_add_teardown (loop, posted_cb, piece, model_piece_destroy_cb);
  model_piece_settle (piece, id != 0);
  if (id != 0 && op->variant % 3 == 0 && bg_loop_remove_teardown (loop, id))
    {
      g_atomic_int_set (&piece->excused, 1);
      model_check (!bg_loop_remove_teardown (loop, id), "operation %u: removed twice", op->id);
    }
}

/* The end */

static void
run_quit (Model *model, const ModelOp *op, BgLoop *loop)
{
  model_ask (model, op->loop, op->mode);
  bg_loop_quit (loop, op->mode);
}

static void
run_unref (Model *model, const ModelOp *op, BgLoop *loop)
{
  g_object_unref (g_object_ref (loop));
}

static void
run_default (Model *model, const ModelOp *op, BgLoop *loop)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) shared = bg_loop_dup_default (&error);

  g_assert_no_error (error);
  bg_loop_post (shared, (BgPostFunc) g_thread_yield, NULL, NULL);
  if (op->variant % 3 == 0 && !bg_loop_reset_default (op->variant % 2 == 0 ? -1 : 1, &error))
    model_check (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
                     || g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK),
                 "operation %u: a reset of the default loop failed: %s", op->id, error->message);
}

/* Looking */

static void
run_look (Model *model, const ModelOp *op, BgLoop *loop)
{
  g_autofree char *text = bg_loop_describe (loop);
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
  g_autoptr (BgLoop) current = bg_loop_dup_current ();
  guint linger;

  g_object_get (loop, "linger", &linger, NULL);
  model_check (text != NULL && bg_loop_get_name (loop) != NULL && bg_loop_get_context (loop) != NULL,
               "operation %u: a loop without a description, a name or a context", op->id);
  model_check (bg_loop_is_current (loop) == (current == loop), "operation %u: which loop is current?",
               op->id);
  model_check (stats->run + stats->cancelled <= stats->posted + 64,
               "operation %u: %" G_GUINT64_FORMAT " ran of %" G_GUINT64_FORMAT, op->id, stats->run,
               stats->posted);
  model_check (!g_cancellable_is_cancelled (bg_loop_get_cancellable (loop))
                   || g_atomic_int_get (&model->loops[op->loop].cancels) != 0,
               "operation %u: the loop cancels, and nobody asked", op->id);
  model_check (linger <= 1000, "operation %u: lingers %u µs", op->id, linger);
}

/* What is around */

static void
run_cancel (Model *model, const ModelOp *op, BgLoop *loop)
{
  g_cancellable_cancel (model->cancellables[1 + op->variant % MODEL_CANCELLABLES]);
}

static void
run_stall (Model *model, const ModelOp *op, BgLoop *loop)
{
  gint64 end = g_get_monotonic_time () + op->variant % STALL_USEC;

  while (g_get_monotonic_time () < end)
    if (op->variant % 2 == 0)
      g_thread_yield ();
}

static void
run_iterate (Model *model, const ModelOp *op, BgLoop *loop)
{
  GMainContext *context = g_main_context_get_thread_default ();

  for (guint i = 0; i <= op->variant % 4; i++)
    g_main_context_iteration (context, FALSE);
}

static gboolean
quit_nested_cb (gpointer data)
{
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

static void
run_main_loop (Model *model, const ModelOp *op, BgLoop *loop)
{
  GMainContext *context = g_main_context_get_thread_default ();
  g_autoptr (GMainLoop) nested = g_main_loop_new (context, FALSE);
  g_autoptr (GSource) source = g_timeout_source_new (op->variant % 2);

  g_source_set_callback (source, quit_nested_cb, nested, NULL);
  g_source_attach (source, context);
  /* At the end of the loop it might never be told to quit. */
  if (bg_loop_is_current (loop))
    g_main_context_iteration (context, FALSE);
  else
    g_main_loop_run (nested);
  g_source_destroy (source);
}

/* In the child each entry answers at once. */
static void
run_fork (Model *model, const ModelOp *op, BgLoop *loop)
{
  pid_t pid = fork ();
  int status;

  model_check (pid >= 0, "no child to be had");
  if (pid == 0)
    {
      g_autoptr (GError) error = NULL;

      alarm (FORK_SECONDS);
      if (bg_loop_post (loop, posted_cb, NULL, NULL) || bg_loop_hold (loop, "a child") != 0
          || bg_loop_flush (loop, -1, NULL, &error)
          || !g_error_matches (error, BG_ERROR, BG_ERROR_FORKED) || bg_loop_is_current (loop))
        _exit (1);
      g_clear_error (&error);
      if (bg_loop_shutdown_full (loop, op->mode, -1, NULL, &error)
          || !g_error_matches (error, BG_ERROR, BG_ERROR_FORKED))
        _exit (2);
      bg_loop_quit (loop, op->mode);
      _exit (0);
    }

  while (waitpid (pid, &status, 0) == -1 && errno == EINTR)
    ;
  model_check (WIFEXITED (status) && WEXITSTATUS (status) == 0,
               "operation %u: the child ended with status %x", op->id, (guint) status);
}

#define F  MODEL_HAS_FUNC
#define D  MODEL_HAS_DESTROY
#define R  MODEL_HAS_REPLY
#define RO MODEL_IS_ROUGH

const ModelKind model_kinds[] = {
  { "post", "bg_loop_post_full", 14, F | D, run_post },
  { "post-plain", "bg_loop_post", 3, F | D, run_post_plain },
  { "invoke", "bg_loop_invoke bg_loop_invoke_full", 5, F | D, run_invoke },
  { "post-after", "bg_loop_post_after bg_loop_withdraw", 5, F | D, run_post_after },
  { "attach", "bg_loop_attach", 5, F | D, run_attach },
  { "hold", "bg_loop_hold bg_loop_release", 4, RO, run_hold },
  { "release", "bg_loop_release", 3, 0, run_release },
  { "teardown", "bg_loop_add_teardown bg_loop_remove_teardown", 3, F | D, run_teardown },
  { "quit", "bg_loop_quit", 2, RO, run_quit },
  { "unref", "", 2, 0, run_unref },
  { "default", "bg_loop_dup_default bg_loop_reset_default", 1, 0, run_default },
  { "look",
    "bg_loop_describe bg_loop_get_stats bg_loop_get_name bg_loop_get_context bg_loop_is_current "
    "bg_loop_dup_current bg_loop_stats_free bg_loop_stats_copy bg_loop_get_cancellable",
    3, 0, run_look },
  { "cancel", "", 3, RO, run_cancel },
  { "stall", "", 4, 0, run_stall },
  { "iterate", "", 5, 0, run_iterate },
  { "main-loop", "", 2, 0, run_main_loop },
  { "fork", "", 1, MODEL_FORKS, run_fork },
  { "call", "bg_loop_call bg_loop_call_full", 8, F | RO, model_run_call },
  { "call-gently", "bg_loop_call", 3, F, model_run_call },
  { "call-async", "bg_loop_call_async bg_loop_call_finish", 8, F | D | R, model_run_call_async },
  { "run-task", "bg_loop_run_task", 3, F | R, model_run_task },
  { "flush", "bg_loop_flush", 4, RO, model_run_flush },
  { "perform", "bg_loop_perform", 5, F | RO, model_run_perform },
  { "perform-async", "bg_loop_perform_async bg_loop_perform_finish", 5, F | D | R,
    model_run_perform_async },
  { "operation",
    "bg_loop_perform_operation bg_operation_ref bg_operation_unref bg_operation_answer", 4, F | RO,
    model_run_operation },
  { "operation-async", "bg_loop_perform_operation_async bg_loop_perform_operation_finish", 4,
    F | D | R, model_run_operation_async },
  { "shutdown", "bg_loop_shutdown bg_loop_shutdown_full bg_loop_get_state", 3, RO,
    model_run_shutdown },
  { "shutdown-async", "bg_loop_shutdown_async bg_loop_shutdown_finish", 2, R | RO,
    model_run_shutdown_async },
  { "wait", "bg_loop_wait", 2, RO, model_run_wait },
  { "wait-async", "bg_loop_wait_async bg_loop_wait_finish", 2, R | RO, model_run_wait_async },
};
const guint model_n_kinds = G_N_ELEMENTS (model_kinds);
