/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-work-private.h>

/* A task's function on the loop's thread. */

typedef struct
{
  BgCore *core; /* (owned) */
  GTask *task;  /* (owned) */
  GTaskThreadFunc func;
  BgReply *owed; /* (owned) (nullable) with the task, to a loop that waits for it */
} BgTaskRun;

static void
task_run_free (gpointer data)
{
  BgTaskRun *self = data;

  bg_core_unref (self->core);
  g_object_unref (self->task);
  g_clear_object (&self->owed);
  g_free (self);
}

static gboolean
refuse_task_cb (gpointer user_data)
{
  BgTaskRun *self = user_data;
  GError *error = NULL;

  if (!g_task_return_error_if_cancelled (self->task))
    {
      bg_core_set_refused_error (self->core, &error);
      g_task_return_error (self->task, error);
    }
  return G_SOURCE_REMOVE;
}

/* In the task's context, as everything that it returns. */
static void
refuse_task (BgTaskRun *self)
{
  GSource *source = g_idle_source_new ();

  g_source_set_priority (source, g_task_get_priority (self->task));
  g_source_set_static_name (source, "bgloop refusal");
  g_source_set_callback (source, refuse_task_cb, self, task_run_free);
  bg_glib_attach_source (source, g_task_get_context (self->task));
  g_source_unref (source);
}

static void
return_dropped_task (BgTaskRun *self)
{
  g_task_return_new_error (self->task, BG_ERROR, BG_ERROR_CLOSED,
                           _ ("The loop \"%s\" was shut down before the task started"),
                           bg_core_get_name (self->core));
  task_run_free (self);
}

/* The task's function has returned or does not run: the loop does not owe the task any more, but
 * whoever has the task. */
static void
stop_owing (BgTaskRun *self)
{
  if (self->owed != NULL && !bg_core_is_forked (self->core))
    bg_reply_set_carrier (self->owed, NULL);
  g_clear_object (&self->owed);
}

/* Its function has ended the thread. If nobody else has the task, nobody will return from
 * it. */
static void
half_done_task_outcome (BgRecord *slot, gpointer owner)
{
  BgTaskRun *self = slot->data;

  stop_owing (self);
  if (bg_glib_is_referenced_once (self->task) && !g_task_get_completed (self->task))
    return_dropped_task (self);
  else
    task_run_free (self);
}

static void
task_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgTaskRun *self = slot->data;

  if (!bg_core_may_run (core))
    {
      stop_owing (self);
      return_dropped_task (self);
      return;
    }

  if (g_task_return_error_if_cancelled (self->task))
    {
      bg_core_count_cancelled (core);
    }
  else
    {
      if (self->owed != NULL)
        bg_reply_set_carrier (self->owed, G_OBJECT (self->task));
      bg_core_note_begun (core);
      bg_core_keep (core, &(BgRecord){ half_done_task_outcome, self->func, self, NULL });
      self->func (self->task, g_task_get_source_object (self->task),
                  g_task_get_task_data (self->task), g_task_get_cancellable (self->task));
      bg_core_drop_kept (core);
      bg_core_count_run (core);
    }
  stop_owing (self);
  task_run_free (self);
}

/* A loop whose work waits for the task, on this thread, is owed it as a reply. */

/* The task's function may run on, and the task may have been given to others, who have not
 * returned from it: neither is to keep the loop that the task was given to. */
static void
owed_task_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_reply_clear (BG_REPLY (result));
}

static void
owed_task_returned (gpointer data, GClosure *closure)
{
  bg_reply_return (data, NULL, NULL);
}

static void
task_completed_cb (GTask *task, GParamSpec *pspec, gpointer user_data)
{
  g_signal_handlers_disconnect_by_func (task, G_CALLBACK (task_completed_cb), user_data);
}

static BgReply *
owe_task (BgLoop *self, GTask *task, GTaskThreadFunc func)
{
  BgCore *here = bg_core_get_current ();
  BgReply *reply;

  if (here == NULL || bg_core_is_forked (here)
      || g_task_get_context (task) != bg_core_get_context (here)
      || g_main_context_get_thread_default () != bg_core_get_context (here))
    return NULL;

  bg_core_note_begun (here);
  reply = bg_reply_new (self, self->core, bg_loop_run_task, func, g_task_get_priority (task),
                        owed_task_cb, NULL);
  g_object_ref (reply);
  g_signal_connect_data (task, "notify::completed", G_CALLBACK (task_completed_cb), reply,
                         owed_task_returned, 0);
  return reply;
}

/**
 * bg_loop_run_task:
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @task: a task that has not called back yet
 * @func: (scope async): the function that does the work and returns from @task
 *
 * Runs a task's function on the loop's thread, as g_task_run_in_thread() does on one
 * of a pool.
 *
 * So an asynchronous function of an object over a loop is three lines:
 *
 * |[<!-- language="C" -->
 * g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
 *
 * g_task_set_source_tag (task, example_client_get_async);
 * bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, get_cb);
 * ]|
 *
 * @func gets the task's source object, data and cancellable; it may return from the
 * task at once, or keep it and return from it later. The task's callback comes in the
 * task's own context, never before this returns. If that context is a loop's that has
 * ended by then, nobody iterates it any more: the callback comes when the next loop starts
 * or ends, on the thread of that one.
 *
 * If the task's cancellable is cancelled before @func has started, @func does not run and
 * the task returns %G_IO_ERROR_CANCELLED. If the loop takes no more work, or drops this at
 * a shutdown with %BG_SHUTDOWN_CANCEL, the task returns %BG_ERROR_CLOSED; in a forked child
 * %BG_ERROR_FORKED.
 *
 * A loop that drains waits for tasks that its work has begun. As long as @func runs and nobody
 * has a reference to such a task besides, a wait of @func for that loop's end fails with
 * %BG_ERROR_WOULD_DEADLOCK: whoever else is to return from the task needs a reference.
 *
 * Does not block; any thread may call it.
 *
 * Since: 1.0
 */
void
bg_loop_run_task (BgLoop *self, int priority, GTask *task, GTaskThreadFunc func)
{
  BgCore *core;
  BgTaskRun *run;
  BgWork work = { .priority = priority, .awaited = TRUE };

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (G_IS_TASK (task));
  g_return_if_fail (!g_task_get_completed (task));
  g_return_if_fail (func != NULL);

  core = self->core;
  run = g_new0 (BgTaskRun, 1);
  run->core = bg_core_ref (core);
  run->task = g_object_ref (task);
  run->func = func;
  run->owed = owe_task (self, task, func);

  work.record = (BgRecord){ task_outcome, func, run };
  work.reply = run->owed;
  if (!bg_core_submit (core, &work))
    refuse_task (run);
}
