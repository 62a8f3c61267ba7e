/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* Operations on loops that nobody else uses. */

/* An operation begins while its loop is cancelled, does not heed that, and is not answered before
 * its caller has been told: who waits for it does not wait for the answer. */

typedef struct
{
  const ModelOp *op;
  BgLoop *loop;
  UtilLatch begins;

  /* the answer to come */
  GAsyncReadyCallback callback;
  gpointer callback_data;
  BgOperation *operation; /* (owned) (nullable) */
} Closing;

static gpointer
quit_thread (gpointer data)
{
  Closing *self = data;

  util_latch_wait (&self->begins);
  bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  return NULL;
}

/* The loop itself asks for its end, or another thread does so meanwhile. */
static void
begin (Closing *self)
{
  util_latch_count_down (&self->begins);
  if (self->op->variant & 1)
    bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  else
    while (bg_loop_get_state (self->loop) == BG_LOOP_RUNNING)
      g_thread_yield ();
}

static gboolean
begin_cb (gpointer data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Closing *self = data;

  self->callback = callback;
  self->callback_data = callback_data;
  begin (self);
  return TRUE;
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer data, GError **error)
{
  Closing *self = data;

  self->operation = bg_operation_ref (operation);
  begin (self);
  return TRUE;
}

static void
answer (Closing *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  if (self->operation != NULL)
    bg_operation_answer (self->operation, G_ASYNC_RESULT (task));
  else
    self->callback (NULL, G_ASYNC_RESULT (task), self->callback_data);
  g_clear_pointer (&self->operation, bg_operation_unref);
}

void
model_apart_closing (const ModelOp *op)
{
  Closing self = { op, util_loop_new ("closing") };
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  GThread *thread = NULL;

  util_latch_init (&self.begins, 1);
  if (!(op->variant & 1))
    thread = g_thread_new ("quits", quit_thread, &self);
  if (op->variant & 2)
    result = bg_loop_perform (self.loop, op->priority, -1, begin_cb, &self, NULL, &error);
  else
    result = bg_loop_perform_operation (self.loop, op->priority, -1, operation_cb, &self, NULL,
                                        &error);
  if (!g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    model_fail ("an operation that nobody has answered: %s",
                error != NULL ? error->message : "it has a result");
  answer (&self);
  if (thread != NULL)
    g_thread_join (thread);
  util_loop_end (self.loop);
  util_latch_clear (&self.begins);
}

/* A result is handed over when the callback has returned, and what has called that. */

#define AFTER_USEC 60

typedef struct
{
  GAsyncReadyCallback callback;
  gpointer callback_data;
  _Atomic int is_over; /* the function that has called back */
} HandedOver;

static gboolean
call_back_cb (gpointer data)
{
  HandedOver *self = data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  self->callback (NULL, G_ASYNC_RESULT (task), self->callback_data);
  util_spin_until (g_get_monotonic_time () + AFTER_USEC);
  model_store (&self->is_over, TRUE);
  return G_SOURCE_REMOVE;
}

static gboolean
begin_source_cb (gpointer data,
                 GCancellable *cancellable,
                 GAsyncReadyCallback callback,
                 gpointer callback_data,
                 GError **error)
{
  HandedOver *self = data;
  g_autoptr (GSource) source = g_idle_source_new ();

  self->callback = callback;
  self->callback_data = callback_data;
  g_source_set_callback (source, call_back_cb, self, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  return TRUE;
}

void
model_apart_handed_over (const ModelOp *op)
{
  BgLoop *loop = util_loop_new ("handed over");
  HandedOver self = { NULL };
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  result = bg_loop_perform (loop, op->priority, -1, begin_source_cb, &self, NULL, &error);
  if (result == NULL)
    model_fail ("an operation that has answered: %s", error->message);
  else if (!model_load (&self.is_over))
    model_fail ("a result was handed over from within the callback that has brought it");
  util_loop_end (loop);
}
