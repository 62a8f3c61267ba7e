/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-operation-private.h>
#include <bgloop/core/bg-reply-private.h>

/* How callers have the answer of an operation come to their context. The operation is handed over
 * on the caller's thread. A limit of time comes on that of the caller's context, a cancellation and
 * a CANCEL shutdown on any: which of them ends the wait is decided under the core's lock. */

/* With the lock held. What was given up while it is queued counts as cancelled from now on, though
 * its turn, in which it is dropped, is still to come. */
static void
count_given_up (BgPerform *self)
{
  if (self->blocked.slot == NULL || self->gave_up == BG_WAIT_COMPLETED)
    return;

  bg_inbox_count_void (bg_core_get_inbox (self->core), self->priority, 1);
  bg_core_count_withdrawn (self->core, 1);
}

/* The caller does not want to wait any longer, or not at all. What is queued is dropped
 * when its turn comes, since its data is destroyed there. An answer that is there and that the
 * loop has not come to hand over is dropped. */
static void
expired_cb (gpointer data, BgWaitResult why)
{
  BgPerform *self = data;
  BgReply *reply = NULL;
  GError *error = NULL;
  gboolean expires, cancels;

  bg_core_lock_to_look (self->core);
  expires = !self->blocked.closed && self->phase < BG_OPERATION_ENDED
            && self->gave_up == BG_WAIT_COMPLETED && (self->blocked.listed || !self->answered);
  cancels = expires && !self->answered;
  if (expires)
    {
      self->gave_up = why;
      count_given_up (self);
      if (why == BG_WAIT_TIMED_OUT)
        bg_perform_report (self);
    }
  if (expires && self->phase >= BG_OPERATION_PENDING && bg_perform_remove_blocked (self))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock_after_look (self->core);

  if (cancels)
    g_cancellable_cancel (self->cancellable);
  if (reply == NULL)
    return;

  bg_perform_set_error (self, &error);
  bg_reply_return (reply, NULL, error);
}

static void
reply_closed (BgBlocked *blocked)
{
  BgPerform *self = bg_perform_from_blocked (blocked);
  BgReply *reply;
  GError *error = NULL;

  bg_core_lock (self->core);
  reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  bg_perform_set_error (self, &error);
  bg_reply_return (reply, NULL, error);
  bg_perform_unref (self);
}

/* Takes over @self. */
static void
perform_async (BgPerform *self, BgLoop *loop, GAsyncReadyCallback callback, gpointer callback_data)
{
  BgCore *core = self->core;
  BgReply *reply;
  GError *error = NULL;
  gboolean admitted = FALSE;

  reply = bg_reply_new (loop, core, bg_loop_perform_async, bg_perform_get_func (self),
                        self->priority, callback, callback_data);
  self->blocked.close = reply_closed;
  if (!bg_core_is_forked (core))
    {
      if (self->caller_cancellable != NULL || self->timeout_msec >= 0
          || bg_reply_is_to_loop (reply))
        bg_reply_set_expiry (reply, self->timeout_msec, self->caller_cancellable, expired_cb,
                             bg_perform_ref (self), bg_perform_unref);

      bg_core_lock (core);
      self->reply = reply;
      admitted = bg_perform_admit (self);
      bg_reply_set_due (reply, admitted);
      if (admitted)
        count_given_up (self);
      else
        self->reply = NULL;
      bg_core_unlock (core);
    }

  if (!admitted)
    {
      if (self->destroy != NULL)
        self->destroy (self->data);
      bg_core_set_refused_error (core, &error);
      bg_reply_refuse (reply, error);
    }
  bg_perform_unref (self);
}

/**
 * bg_loop_perform_async: (skip)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long @callback is to wait, in milliseconds; -1 for no limit
 * @begin: begins the operation
 * @user_data: data to pass to @begin
 * @destroy: (nullable): destroy notify for @user_data, once @begin has returned
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable): function to call with the answer
 * @callback_data: data to pass to @callback
 *
 * Performs an asynchronous operation on the loop's thread and has its answer in
 * this one's context.
 *
 * @callback is called in the thread-default context of the moment, at @priority, once,
 * and never before this returns. The limit is counted in that context; without a
 * @callback nobody waits, and it has no effect. Does not block; any thread may call it,
 * the loop's own included. As for the rest see [method@Bg.Loop.perform]; an operation
 * that is cancelled or times out before @begin has started is told so when the loop
 * comes to it, since @user_data is destroyed there first.
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns. The exception is a caller that is
 * itself on a loop which is shut down with %BG_SHUTDOWN_CANCEL meanwhile: @callback is
 * told %BG_ERROR_CLOSED at once there, and the work may be going on here.
 *
 * Since: 1.0
 */
void
bg_loop_perform_async (BgLoop *self,
                       int priority,
                       int timeout_msec,
                       BgBeginFunc begin,
                       gpointer user_data,
                       GDestroyNotify destroy,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer callback_data)
{
  BgPerform *operation;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (begin != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  operation = bg_perform_new (self->core, priority, timeout_msec, cancellable);
  operation->begin = begin;
  operation->data = user_data;
  operation->destroy = destroy;
  perform_async (operation, self, callback, callback_data);
}

/**
 * bg_loop_perform_operation_async: (rename-to bg_loop_perform_async)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long @callback is to wait, in milliseconds; -1 for no limit
 * @func: (scope notified) (closure user_data) (destroy destroy): begins the operation
 * @user_data: data to pass to @func
 * @destroy: (nullable): destroy notify for @user_data, once @func has returned
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async) (closure callback_data): function to call with the
 *   answer
 * @callback_data: data to pass to @callback
 *
 * Performs an asynchronous operation on the loop's thread and has its answer in
 * this one's context.
 *
 * @callback is called in the thread-default context of the moment, at @priority, once,
 * and never before this returns. The limit is counted in that context; without a
 * @callback nobody waits, and it has no effect. Does not block; any thread may call it,
 * the loop's own included. As for the rest see [method@Bg.Loop.perform]; an operation
 * that is cancelled or times out before @func has started is told so when the loop
 * comes to it, since @user_data is destroyed there first.
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns. The exception is a caller that is
 * itself on a loop which is shut down with %BG_SHUTDOWN_CANCEL meanwhile: @callback is
 * told %BG_ERROR_CLOSED at once there, and the work may be going on here.
 *
 * Since: 1.0
 */
void
bg_loop_perform_operation_async (BgLoop *self,
                                 int priority,
                                 int timeout_msec,
                                 BgOperationFunc func,
                                 gpointer user_data,
                                 GDestroyNotify destroy,
                                 GCancellable *cancellable,
                                 GAsyncReadyCallback callback,
                                 gpointer callback_data)
{
  BgPerform *operation;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (func != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  operation = bg_perform_new (self->core, priority, timeout_msec, cancellable);
  operation->func = func;
  operation->data = user_data;
  operation->destroy = destroy;
  perform_async (operation, self, callback, callback_data);
}

/**
 * bg_loop_perform_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The answer of [method@Bg.Loop.perform_async].
 *
 * Fails as [method@Bg.Loop.perform] does, and with %BG_ERROR_CLOSED if the caller's own
 * loop was shut down with %BG_SHUTDOWN_CANCEL meanwhile. To be called once for each
 * result.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  GObject *answered = NULL;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_perform_async), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  bg_reply_propagate (BG_REPLY (result), &answered, error);
  return (GAsyncResult *) answered;
}

/**
 * bg_loop_perform_operation_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The same as [method@Bg.Loop.perform_finish], for tools that find it by its name.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_operation_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  return bg_loop_perform_finish (self, result, error);
}
