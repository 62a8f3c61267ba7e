/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-work-private.h>

/* A function on the loop's thread, and its answer in a callback: on the loop's thread up to
 * the reply, which takes it to the caller's context. */

/* The record's data is the reply, which has the function's. */

static void
end_async_call (BgReply *reply, GError *error)
{
  BgRequest *request = bg_reply_get_request (reply);

  g_clear_object (&request->cancellable);
  bg_reply_return (reply, NULL, error);
}

/* Why a call that has been accepted does not run; %NULL if it does. */
static GError *
get_reason_not_to_run (BgCore *core, BgRequest *request)
{
  GError *error = NULL;

  if (bg_core_is_cancelling (core))
    g_set_error (&error, BG_ERROR, BG_ERROR_CLOSED,
                 _ ("The loop \"%s\" was shut down before the call started"),
                 bg_core_get_name (core));
  else
    (void) bg_call_is_too_late (core, request->cancellable, request->deadline,
                                request->timeout_msec, &error);

  return error;
}

/* The reply is owed also if this ends the thread: until then the record is kept, without the
 * notify. */
static void
destroy_kept_data (BgCore *core, BgRecord *record)
{
  GDestroyNotify destroy = g_steal_pointer (&record->destroy);

  bg_inbox_destroy (bg_core_get_inbox (core), destroy, bg_reply_get_request (record->data)->data);
  record->outcome = NULL;
}

/* Its function, or the destroy notify after it, has ended the thread. */
static void
half_done_async_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgRecord *record = bg_core_keep (core, slot);

  destroy_kept_data (core, record);
  end_async_call (record->data,
                  g_error_new (BG_ERROR, BG_ERROR_CLOSED,
                               _ ("The thread of the loop \"%s\" ended before the call did"),
                               bg_core_get_name (core)));
}

static void
async_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgRecord *record = bg_core_keep (core, slot);
  BgRequest *request = bg_reply_get_request (record->data);
  GError *error = get_reason_not_to_run (core, request);

  record->outcome = half_done_async_call_outcome;
  if (error == NULL)
    {
      bg_call_run (record->func, request->data, &error);
      bg_core_count_run (core);
    }
  else
    {
      bg_core_count_cancelled (core);
    }

  destroy_kept_data (core, record);
  end_async_call (record->data, error);
}

/**
 * bg_loop_call_async:
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long the function may take to start, in milliseconds; -1 for no
 *   limit
 * @func: (scope notified) (closure user_data) (destroy destroy): the function
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data afterwards
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async) (closure callback_data): what to call with
 *   the answer
 * @callback_data: what to give it
 *
 * Runs a function on the loop's thread and has its answer in this one's context.
 *
 * ```c
 * static gboolean
 * work_cb (gpointer user_data, GError **error)
 * {
 *   return g_file_set_contents (user_data, "done", -1, error);
 * }
 *
 * static void
 * worked_cb (GObject *source, GAsyncResult *result, gpointer user_data)
 * {
 *   g_autoptr (GError) error = NULL;
 *
 *   if (!bg_loop_call_finish (BG_LOOP (source), result, &error))
 *     g_warning ("%s", error->message);
 * }
 *
 * void
 * example_work (BgLoop *loop, const char *path)
 * {
 *   bg_loop_call_async (loop, G_PRIORITY_DEFAULT, -1, work_cb, g_strdup (path), g_free, NULL,
 *                       worked_cb, NULL);
 * }
 * ```
 *
 * @callback is called in the thread-default context of the moment, at @priority,
 * once, and never before this returns. If the call is cancelled or times out before
 * the function has started, the function does not run; @callback is told so, and how late
 * it was, when the loop comes to it, since @user_data is destroyed there first. Does not block; any
 * thread may call it.
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns. The exception is a caller that is
 * itself on a loop which is shut down with %BG_SHUTDOWN_CANCEL meanwhile: @callback is
 * told %BG_ERROR_CLOSED at once there, and the work may be going on here.
 *
 * Since: 1.0
 */
void
bg_loop_call_async (BgLoop *self,
                    int priority,
                    int timeout_msec,
                    BgCallFunc func,
                    gpointer user_data,
                    GDestroyNotify destroy,
                    GCancellable *cancellable,
                    GAsyncReadyCallback callback,
                    gpointer callback_data)
{
  BgCore *core;
  BgReply *reply;
  BgRequest *request;
  GError *error = NULL;
  BgWork work = { .priority = priority, .awaited = callback != NULL, .soon = TRUE };

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (func != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  core = self->core;
  reply = bg_reply_new (self, self->core, bg_loop_call_async, func, priority, callback,
                        callback_data);
  request = bg_reply_get_request (reply);
  request->data = user_data;
  request->deadline = bg_deadline (timeout_msec);
  request->timeout_msec = timeout_msec;
  g_set_object (&request->cancellable, cancellable);

  work.record = (BgRecord){ async_call_outcome, func, reply, destroy };
  work.reply = reply;
  if (!bg_core_submit (core, &work))
    {
      if (destroy != NULL)
        destroy (user_data);
      g_clear_object (&request->cancellable);
      bg_core_set_refused_error (core, &error);
      bg_reply_refuse (reply, error);
    }
}

/**
 * bg_loop_call_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The answer of [method@Bg.Loop.call_async].
 *
 * Fails with what the function set, %BG_ERROR_CLOSED if the loop takes no more
 * work or dropped this, or if the caller's own loop was shut down with
 * %BG_SHUTDOWN_CANCEL meanwhile; %BG_ERROR_FORKED, %G_IO_ERROR_CANCELLED and
 * %G_IO_ERROR_TIMED_OUT. To be called once for each result.
 *
 * Returns: what the function returned; %FALSE if it did not run
 *
 * Since: 1.0
 */
gboolean
bg_loop_call_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_call_async), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_reply_propagate (BG_REPLY (result), NULL, error);
}
