/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-operation-private.h>
#include <bgloop/core/bg-work-private.h>

/* How callers wait for an operation: on their own thread. Under the core's lock they give it up, or
 * take its answer. A CANCEL shutdown completes the wait on the thread that asks for it. */

static void
complete_closed (BgBlocked *blocked)
{
  BgPerform *self = bg_perform_from_blocked (blocked);
  BgWaiter *waiter;

  bg_core_lock (self->core);
  waiter = g_steal_pointer (&blocked->waiter);
  bg_core_unlock (self->core);

  bg_perform_complete (self, waiter);
  bg_perform_unref (self);
}

/* With the lock held: it was taken out of the inbox before it began. The record's
 * reference is the caller's. */
static void
end_unstarted (BgPerform *self)
{
  self->phase = BG_OPERATION_ENDED;
  bg_core_remove_hold (self->core, &self->hold);
}

/* The wait was cancelled or timed out. TRUE if it is over at once. @reports: somebody wants to be
 * told what is in the way. */
static gboolean
give_up (BgPerform *self, BgWaitResult why, gboolean reports)
{
  BgCore *core = self->core;
  gboolean listed, unstarted, cancels;

  bg_core_lock_to_look (core);
  listed = bg_perform_remove_blocked (self);
  unstarted = listed && self->phase == BG_OPERATION_QUEUED;
  if (unstarted)
    {
      bg_core_cancel_unstarted (core, &self->blocked);
      end_unstarted (self);
    }
  if ((listed || !self->answered) && !self->blocked.closed)
    {
      self->gave_up = why;
      if (reports && why == BG_WAIT_TIMED_OUT)
        bg_perform_report (self);
    }
  if (listed)
    self->blocked.waiter = NULL;
  cancels = !unstarted && !self->answered;
  bg_core_unlock_after_look (core);

  if (unstarted)
    bg_perform_unref (self);
  else if (cancels)
    g_cancellable_cancel (self->cancellable);
  return listed;
}

/* A CANCEL shutdown may have taken it out of the inbox: nothing else ends it then. */
static void
end_closed (BgPerform *self)
{
  gboolean unstarted;

  bg_core_lock (self->core);
  unstarted = self->phase == BG_OPERATION_QUEUED;
  if (unstarted)
    end_unstarted (self);
  bg_core_unlock (self->core);

  if (unstarted)
    bg_perform_unref (self);
}

/* Until there is an answer, or the wait is given up. */
static void
wait_for_answer (BgPerform *self, BgWaiter *waiter, gboolean reports)
{
  BgWaitResult why = bg_waiter_wait (waiter, self->deadline);

  if (why != BG_WAIT_COMPLETED && !give_up (self, why, reports))
    bg_waiter_wait_completed (waiter);
}

/* The wait is over. */
static GAsyncResult *
take_answer (BgPerform *self, GError **error)
{
  BgCore *core = self->core;
  GAsyncResult *result;
  GError *failure;
  gboolean closed, handed_over;

  /* Until the loop hands the answer over, the callback that has brought it may not have returned:
   * an answer that is not handed over yet stays where it is. */
  bg_core_lock (core);
  handed_over = self->phase != BG_OPERATION_ANSWERED;
  result = handed_over ? g_steal_pointer (&self->result) : NULL;
  failure = handed_over ? g_steal_pointer (&self->error) : NULL;
  closed = self->blocked.closed;
  bg_core_unlock (core);

  if (closed)
    end_closed (self);
  if (failure != NULL)
    g_propagate_error (error, failure);
  else if (result == NULL)
    bg_perform_set_error (self, error);
  return result;
}

static GAsyncResult *
perform_blocking (BgPerform *self, GError **error)
{
  BgCore *core = self->core;
  GCancellable *cancellable = self->caller_cancellable;
  BgWait wait;
  BgWaiter *waiter = bg_core_begin_wait (core, &wait, cancellable, error);
  gboolean admitted, awake;

  self->blocked.waiter = waiter;
  self->blocked.close = complete_closed;
  if (waiter == NULL)
    return NULL;

  bg_core_lock (core);
  awake = bg_core_is_awake (core);
  admitted = bg_perform_admit (self);
  if (admitted)
    bg_perform_add_blocked (self);
  bg_core_unlock (core);

  if (admitted && awake)
    bg_core_stay_awake (core, waiter, self->deadline);
  if (admitted)
    wait_for_answer (self, waiter, error != NULL);

  bg_core_end_wait (&wait, waiter, cancellable);
  if (!admitted)
    {
      bg_core_set_refused_error (core, error);
      return NULL;
    }
  return take_answer (self, error);
}

static GAsyncResult *
perform (BgLoop *loop,
         int priority,
         int timeout_msec,
         BgBeginFunc begin,
         BgOperationFunc func,
         gpointer user_data,
         GCancellable *cancellable,
         GError **error)
{
  GAsyncResult *result;
  BgPerform *self;

  if (bg_core_is_forked (loop->core))
    {
      bg_core_set_refused_error (loop->core, error);
      return NULL;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return NULL;

  self = bg_perform_new (loop->core, priority, timeout_msec, cancellable);
  self->begin = begin;
  self->func = func;
  self->data = user_data;
  result = perform_blocking (self, error);
  bg_perform_unref (self);
  return result;
}

/**
 * bg_loop_perform: (skip)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @begin: begins the operation
 * @user_data: data to pass to @begin
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Performs an asynchronous operation on the loop's thread and waits for its
 * answer.
 *
 * ```c
 * static gboolean
 * begin_cb (gpointer user_data, GCancellable *cancellable, GAsyncReadyCallback callback,
 *           gpointer callback_data, GError **error)
 * {
 *   g_file_delete_async (user_data, G_PRIORITY_DEFAULT, cancellable, callback, callback_data);
 *   return TRUE;
 * }
 *
 * gboolean
 * example_delete (BgLoop *loop, GFile *file, GError **error)
 * {
 *   g_autoptr (GAsyncResult) result = bg_loop_perform (loop, G_PRIORITY_DEFAULT, 5000, begin_cb,
 *                                                      file, NULL, error);
 *
 *   return result != NULL && g_file_delete_finish (file, result, error);
 * }
 * ```
 *
 * This makes a blocking call of any pair of functions foo_async() and
 * foo_finish(): @begin calls foo_async(), and what this returns is for
 * foo_finish(), which may be called here, in this thread.
 *
 * A wait that is cancelled or times out before @begin has started ends with
 * @begin never run. Once started, @begin is always waited for, so that
 * @user_data may live on the caller's stack. If it fails, that is the answer. After
 * that, a cancellation, a timeout or a shutdown with %BG_SHUTDOWN_CANCEL ends the wait
 * at once and cancels the operation, whose late answer is dropped. The operation keeps
 * the loop from ending until it answers, whether or not anybody waits for it.
 *
 * Fails with what @begin failed with; %BG_ERROR_CLOSED if the loop takes no more work
 * or was shut down meanwhile; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or
 * that of a loop which it waits for; %BG_ERROR_FORKED in a forked child;
 * %BG_ERROR_UNANSWERED if the operation answered without a result;
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT, whose message says whether it has begun
 * and what was in the way. How the operation itself went is in its answer.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform (BgLoop *self,
                 int priority,
                 int timeout_msec,
                 BgBeginFunc begin,
                 gpointer user_data,
                 GCancellable *cancellable,
                 GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (timeout_msec >= -1, NULL);
  g_return_val_if_fail (begin != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return perform (self, priority, timeout_msec, begin, NULL, user_data, cancellable, error);
}

/**
 * bg_loop_perform_operation: (rename-to bg_loop_perform)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @func: (scope call) (closure user_data): begins the operation
 * @user_data: data to pass to @func
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Performs an asynchronous operation on the loop's thread and waits for its
 * answer.
 *
 * This makes a blocking call of any asynchronous operation: @func begins it, and
 * whatever is called when it is done hands its result to
 * [method@Bg.Operation.answer]. What this returns is that result, for the operation's
 * own finish function, which may be called here, in this thread.
 *
 * A wait that is cancelled or times out before @func has started ends with @func never
 * run. Once started, @func is always waited for. If it fails, that is the answer. After
 * that, a cancellation, a timeout or a shutdown with %BG_SHUTDOWN_CANCEL ends the wait
 * at once and cancels the operation, whose late answer is dropped. The operation keeps
 * the loop from ending until it is answered or nobody refers to it any more, whether or
 * not anybody waits for it.
 *
 * Fails with what @func failed with; %BG_ERROR_CLOSED if the loop takes no more work
 * or was shut down meanwhile; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or
 * that of a loop which it waits for; %BG_ERROR_FORKED in a forked child;
 * %BG_ERROR_UNANSWERED if the last reference to the operation went without an answer;
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT, whose message says whether it has begun
 * and what was in the way. How the operation itself went is in its answer.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_operation (BgLoop *self,
                           int priority,
                           int timeout_msec,
                           BgOperationFunc func,
                           gpointer user_data,
                           GCancellable *cancellable,
                           GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (timeout_msec >= -1, NULL);
  g_return_val_if_fail (func != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return perform (self, priority, timeout_msec, NULL, func, user_data, cancellable, error);
}
