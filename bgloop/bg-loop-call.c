/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-glib-private.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-symbol-private.h>

/* Post */

static gboolean
refuse (gpointer user_data, GDestroyNotify destroy)
{
  if (destroy != NULL)
    destroy (user_data);
  return FALSE;
}

static inline gboolean
post (BgCore *core, int priority, BgPostFunc func, gpointer user_data, GDestroyNotify destroy)
{
  gboolean admitted;

  if (bg_core_is_forked (core))
    return refuse (user_data, destroy);

  bg_core_lock (core);
  admitted = bg_core_admits (core);
  if (G_LIKELY (admitted))
    bg_inbox_append (&core->inbox, priority, bg_core_post_outcome, func, user_data, destroy);
  bg_core_unlock (core);

  return G_LIKELY (admitted) || refuse (user_data, destroy);
}

/**
 * bg_loop_post:
 * @self: a loop
 * @func: (scope notified) (closure user_data) (destroy destroy): the work
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data afterwards
 *
 * Has a function run on the loop's thread, some time soon.
 *
 * It is always queued, at %G_PRIORITY_DEFAULT, also on the loop's own thread,
 * and runs after everything that was queued at this priority before it. Never
 * waits; any thread may call it.
 *
 * @destroy runs on the loop's thread, whether the work ran or was dropped by a
 * shutdown with %BG_SHUTDOWN_CANCEL. If the loop takes no more work it has run
 * in the calling thread when this returns.
 *
 * Returns: %FALSE if the loop takes no more work
 *
 * Since: 1.0
 */
gboolean
bg_loop_post (BgLoop *self, BgPostFunc func, gpointer user_data, GDestroyNotify destroy)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (func != NULL, FALSE);

  return post (self->core, G_PRIORITY_DEFAULT, func, user_data, destroy);
}

/**
 * bg_loop_post_full:
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @func: (scope notified) (closure user_data) (destroy destroy): the work
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data afterwards
 *
 * Like [method@Bg.Loop.post], at a priority of choice.
 *
 * Order is kept within a priority, not among them. While the loop has more
 * urgent work, less urgent work waits, but not for ever.
 *
 * Returns: %FALSE if the loop takes no more work
 *
 * Since: 1.0
 */
gboolean
bg_loop_post_full (BgLoop *self,
                   int priority,
                   BgPostFunc func,
                   gpointer user_data,
                   GDestroyNotify destroy)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (func != NULL, FALSE);

  return post (self->core, priority, func, user_data, destroy);
}

/* Invoke */

/* Takes over a reference, and keeps none while the notify runs, which may end the thread. */
static void
end_invoke (BgCore *core, BgInvoke *self)
{
  GDestroyNotify notify = self->notify;
  gpointer data = self->data;

  bg_core_lock (core);
  if (self->listed)
    {
      self->listed = FALSE;
      g_queue_unlink (&core->invokes.list, &self->link);
    }
  bg_core_unlock (core);

  bg_invoke_unref (self);
  if (notify != NULL)
    notify (data);
}

/* Of one that has ended the thread only the data is left to be destroyed. */
static void
half_done_invoke_outcome (BgRecord *slot, gpointer owner)
{
  end_invoke (owner, slot->data);
}

/* Runs the function once; TRUE if it wants to run again. It may have forked, and this
 * be the child. Whoever destroys the source that runs it does not want that. */
static gboolean
run_invoke (BgCore *core, BgInvoke *self)
{
  GSource *source = g_main_current_source ();
  gboolean again, lives = source != NULL && !g_source_is_destroyed (source);

  if (bg_core_is_cancelling (core))
    {
      bg_count (&core->inbox.counts.cancelled, 1);
      return FALSE;
    }

  bg_inbox_push_activity (&core->inbox, self->func);
  core->inbox.activities.current->kept
      = (BgRecord){ half_done_invoke_outcome, self->func, self, NULL };
  again = self->func (self->data);
  if (bg_core_is_forked (core))
    return again;

  bg_inbox_drop_kept (&core->inbox);
  bg_inbox_pop_activity (&core->inbox);
  if (lives && g_source_is_destroyed (source) && g_source_get_context (source) == core->context)
    again = FALSE;
  if (again)
    core->invokes.repeats++;
  else
    bg_count (&core->inbox.counts.run, 1);
  return again;
}

/* While the loop stops an invoked function comes from the inbox. */
static void
invoke_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgInvoke *self = slot->data;
  gboolean again = run_invoke (core, self);

  if (bg_core_is_forked (core))
    return;

  if (again)
    {
      bg_core_lock (core);
      bg_core_move_invoke (core, self);
      bg_core_unlock (core);
      return;
    }

  end_invoke (core, self);
}

static gboolean
invoke_cb (gpointer user_data)
{
  BgInvoke *self = user_data;
  BgCore *core = self->core;
  gboolean mine, again;

  if (bg_core_is_forked (core))
    return G_SOURCE_REMOVE;

  bg_core_lock (core);
  mine = self->listed;
  self->running = mine;
  bg_core_unlock (core);
  if (!mine)
    return G_SOURCE_REMOVE;

  again = run_invoke (core, self);
  if (bg_core_is_forked (core))
    return G_SOURCE_REMOVE;

  if (again)
    {
      bg_core_lock (core);
      self->running = FALSE;
      again = !core->inbox.paused;
      if (!again)
        bg_core_move_invoke (core, self);
      bg_core_unlock (core);
      return again;
    }

  end_invoke (core, self);
  return G_SOURCE_REMOVE;
}

static void
invoke_source_gone (gpointer data)
{
  bg_invoke_abandon (data);
}

static BgInvoke *
invoke_new (BgCore *core, int priority, GSourceFunc function, gpointer data, GDestroyNotify notify)
{
  BgInvoke *self = g_new0 (BgInvoke, 1);

  self->ref_count = 1;
  self->core = bg_core_ref (core);
  self->priority = priority;
  self->func = function;
  self->data = data;
  self->notify = notify;
  self->outcome = invoke_outcome;
  self->link.data = self;
  return self;
}

/* On the loop's own thread: at once, and if it wants to run again, like any
 * other from then on. */
static void
invoke_here (BgCore *core, BgInvoke *self)
{
  gboolean again = run_invoke (core, self);
  GSource *source;

  if (bg_core_is_forked (core))
    return;

  if (!again)
    {
      end_invoke (core, self);
      return;
    }

  bg_core_lock (core);
  if (core->inbox.paused)
    {
      bg_core_move_invoke (core, self);
    }
  else
    {
      self->ref_count = 2;
      self->listed = TRUE;
      g_queue_push_tail_link (&core->invokes.list, &self->link);
      source = g_idle_source_new ();
      g_source_set_priority (source, self->priority);
      g_source_set_callback (source, invoke_cb, self, invoke_source_gone);
      g_source_attach (source, core->context);
      g_source_unref (source);
    }
  bg_core_unlock (core);
}

/**
 * bg_loop_invoke: (skip)
 * @self: a loop
 * @function: the function
 * @data: what to give it
 *
 * Like [method@Bg.Loop.invoke_full], at %G_PRIORITY_DEFAULT and without a
 * notify.
 *
 * Returns: %FALSE if the loop takes no more work
 *
 * Since: 1.0
 */
gboolean
bg_loop_invoke (BgLoop *self, GSourceFunc function, gpointer data)
{
  return bg_loop_invoke_full (self, G_PRIORITY_DEFAULT, function, data, NULL);
}

/**
 * bg_loop_invoke_full: (rename-to bg_loop_invoke)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @function: (scope notified) (closure data) (destroy notify): the function
 * @data: what to give it
 * @notify: (nullable): what to do with @data afterwards
 *
 * Runs a function on the loop's thread, as [method@GLib.MainContext.invoke_full]
 * does: at once if this is that thread, else it is queued.
 *
 * As long as the function returns %G_SOURCE_CONTINUE it runs again, with other
 * work in between. It is ordered like a source of its priority, not against
 * posts. In contrast to GLib's it never runs in the calling thread because the
 * context happens to have no owner, and it is never lost: a shutdown with
 * %BG_SHUTDOWN_DRAIN waits until it has returned %G_SOURCE_REMOVE, one with
 * %BG_SHUTDOWN_CANCEL until it has returned.
 *
 * Never waits; any thread may call it. @notify runs on the loop's thread, or, if
 * the loop takes no more work, in the calling one before this returns.
 *
 * Returns: %FALSE if the loop takes no more work
 *
 * Since: 1.0
 */
gboolean
bg_loop_invoke_full (BgLoop *self,
                     int priority,
                     GSourceFunc function,
                     gpointer data,
                     GDestroyNotify notify)
{
  BgCore *core;
  BgInvoke *invoke;
  gboolean admitted = FALSE, here;

  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (function != NULL, FALSE);

  core = self->core;
  here = bg_core_is_current (core);
  invoke = invoke_new (core, priority, function, data, notify);

  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      admitted = bg_core_admits (core);
      if (admitted)
        core->inbox.posted++;
      if (admitted && !here && core->inbox.paused)
        {
          bg_core_move_invoke (core, invoke);
        }
      else if (admitted && !here)
        {
          invoke->ref_count = 2;
          invoke->listed = TRUE;
          g_queue_push_tail_link (&core->invokes.list, &invoke->link);
          g_main_context_invoke_full (core->context, priority, invoke_cb, invoke,
                                      invoke_source_gone);
          bg_inbox_interrupt (&core->inbox);
        }
      bg_core_unlock (core);
    }

  if (!admitted)
    {
      bg_invoke_unref (invoke);
      if (notify != NULL)
        notify (data);
    }
  else if (here)
    {
      invoke_here (core, invoke);
    }
  return admitted;
}

/* Call */

typedef struct
{
  BgBlocked blocked;
  BgCallFunc func;
  gpointer data;
  GCancellable *cancellable; /* (unowned) (nullable) */
  gint64 deadline;           /* monotonic microseconds; -1: none */
  gboolean ok;
  GError *error;
} BgCall;

/* Whether a call that has not started is cancelled or has timed out. */
static gboolean
is_too_late (BgCore *core, GCancellable *cancellable, gint64 deadline, GError **error)
{
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return TRUE;
  if (deadline == -1 || g_get_monotonic_time () < deadline)
    return FALSE;

  bg_set_wait_error (error, BG_WAIT_TIMED_OUT, "A call to the loop “%s” that had not started",
                     core->name);
  return TRUE;
}

/* The function's word, held to what a GError function promises. */
static gboolean
run_call (BgCallFunc func, gpointer data, GError **error)
{
  g_autofree char *name = NULL;
  GError *local = NULL;
  gboolean ok = !!func (data, &local);

  if (G_UNLIKELY (ok != (local == NULL)))
    {
      name = bg_symbol_describe (func);
      g_critical ("%s returned %s an error", name, ok ? "TRUE with" : "FALSE without");
      if (ok)
        g_clear_error (&local);
      else
        g_set_error (&local, G_IO_ERROR, G_IO_ERROR_FAILED, "%s failed without saying why", name);
    }

  if (!ok)
    g_propagate_error (error, local);
  return ok;
}

/* Its function has ended the thread, and so will not answer. */
static void
half_done_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCall *self = slot->data;

  self->blocked.closed = TRUE;
  bg_waiter_settle (self->blocked.waiter);
}

static void
call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgCall *self;

  bg_core_lock (core);
  self = bg_inbox_take (&core->inbox, slot);
  if (self != NULL)
    {
      self->blocked.slot = NULL;
      bg_core_remove_blocked (core, &self->blocked);
    }
  bg_core_unlock (core);

  if (self == NULL)
    return;

  /* Its thread may not have woken up yet to take it back. */
  if (is_too_late (core, self->cancellable, self->deadline, &self->error))
    {
      bg_count (&core->inbox.counts.cancelled, 1);
    }
  else
    {
      bg_waiter_set_bound (self->blocked.waiter, TRUE);
      core->inbox.activities.current->kept
          = (BgRecord){ half_done_call_outcome, self->func, self, NULL };
      self->ok = run_call (self->func, self->data, &self->error);
      bg_inbox_drop_kept (&core->inbox);
      bg_count (&core->inbox.counts.run, 1);
    }
  if (!bg_core_is_forked (core) && bg_waiter_settle (self->blocked.waiter))
    bg_inbox_note_woken (&core->inbox);
}

static void
settle_blocked (BgBlocked *blocked)
{
  bg_waiter_settle (blocked->waiter);
}

/* Takes the call back, if it has not started. */
static gboolean
withdraw (BgCore *core, BgBlocked *blocked)
{
  gboolean withdrawn;

  bg_core_lock (core);
  withdrawn = bg_core_remove_blocked (core, blocked);
  if (withdrawn && blocked->slot != NULL)
    bg_core_withdraw (core, blocked);
  bg_core_unlock (core);

  return withdrawn;
}

static gboolean
wait_for_call (BgCore *core, BgCall *call, gint64 deadline, GError **error)
{
  BgWaitResult result = bg_waiter_wait (call->blocked.waiter, deadline);

  if (result != BG_WAIT_SETTLED)
    {
      if (withdraw (core, &call->blocked))
        {
          bg_set_wait_error (error, result, "A call to the loop “%s” that had not started",
                             core->name);
          return FALSE;
        }
      bg_waiter_wait_settled (call->blocked.waiter);
    }

  if (call->blocked.closed)
    {
      g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                   "The loop “%s” was shut down before the call started", core->name);
      return FALSE;
    }

  if (call->error != NULL)
    g_propagate_error (error, call->error);
  return call->ok;
}

static gboolean
call_blocking (BgCore *core,
               int priority,
               int timeout_msec,
               BgCall *call,
               GCancellable *cancellable,
               GError **error)
{
  gint64 deadline = call->deadline = bg_deadline (timeout_msec);
  gboolean admitted, awake, ok = FALSE;
  BgWait wait;

  call->blocked.waiter = bg_waiter_take (cancellable);
  call->blocked.close = settle_blocked;
  call->blocked.priority = priority;
  if (!bg_core_wait_begin (core, &wait, call->blocked.waiter, error))
    {
      bg_waiter_give_back (call->blocked.waiter, cancellable);
      return FALSE;
    }

  bg_core_lock (core);
  admitted = bg_core_admits (core);
  awake = !core->inbox.asleep;
  if (admitted)
    {
      bg_core_add_blocked (core, &call->blocked);
      call->blocked.slot
          = bg_inbox_append (&core->inbox, priority, call_outcome, call->func, call, NULL);
      bg_inbox_press (&core->inbox);
    }
  bg_core_unlock (core);

  if (admitted && awake)
    bg_waiter_spin (call->blocked.waiter, atomic_load (&core->inbox.linger.usec), deadline,
                    bg_inbox_is_served_elsewhere (&core->inbox));
  if (admitted)
    ok = wait_for_call (core, call, deadline, error);
  else
    bg_core_set_refused_error (core, error);

  bg_wait_end (&wait);
  bg_waiter_give_back (call->blocked.waiter, cancellable);
  return ok;
}

/**
 * bg_loop_call:
 * @self: a loop
 * @func: (scope call) (closure user_data): the function
 * @user_data: what to give it
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Runs a function on the loop's thread and waits for its answer.
 *
 * Like [method@Bg.Loop.call_full], at %G_PRIORITY_DEFAULT and without a limit of
 * time.
 *
 * Returns: what @func returned; %FALSE if it did not run
 *
 * Since: 1.0
 */
gboolean
bg_loop_call (BgLoop *self,
              BgCallFunc func,
              gpointer user_data,
              GCancellable *cancellable,
              GError **error)
{
  return bg_loop_call_full (self, G_PRIORITY_DEFAULT, -1, func, user_data, cancellable, error);
}

/**
 * bg_loop_call_full:
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long to wait for the function to start, in milliseconds;
 *   -1 for no limit
 * @func: (scope call) (closure user_data): the function
 * @user_data: what to give it
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Runs a function on the loop's thread and waits for its answer, which may be an
 * error: it arrives here unchanged.
 *
 * On the loop's own thread this is a plain function call, in every state of the
 * loop. On any other it blocks. A call that is cancelled or times out before the
 * function starts never runs; once it has started it is always waited for, and
 * its answer is the answer. So @user_data may live on the caller's stack.
 *
 * Fails with %BG_ERROR_CLOSED if the loop takes no more work or dropped this,
 * %BG_ERROR_WOULD_DEADLOCK if this thread is one of a circle of loops each
 * waiting for the next, %BG_ERROR_FORKED in a forked child,
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT.
 *
 * Returns: what @func returned; %FALSE if it did not run
 *
 * Since: 1.0
 */
gboolean
bg_loop_call_full (BgLoop *self,
                   int priority,
                   int timeout_msec,
                   BgCallFunc func,
                   gpointer user_data,
                   GCancellable *cancellable,
                   GError **error)
{
  BgCall call = { .func = func, .data = user_data, .cancellable = cancellable };

  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (func != NULL, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, error);
      return FALSE;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;
  if (bg_core_is_current (self->core))
    return run_call (func, user_data, error);

  return call_blocking (self->core, priority, timeout_msec, &call, cancellable, error);
}

/* Call, asynchronous */

/* The record's data is the reply, which has the function's. */

static void
end_async_call (BgReply *reply, GDestroyNotify destroy, GError *error)
{
  BgRequest *request = bg_reply_get_request (reply);

  if (destroy != NULL)
    destroy (request->data);
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
                 "The loop “%s” was shut down before the call started", core->name);
  else
    (void) is_too_late (core, request->cancellable, request->deadline, &error);

  return error;
}

static void
half_done_async_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;

  end_async_call (slot->data, slot->destroy,
                  g_error_new (BG_ERROR, BG_ERROR_CLOSED,
                               "The thread of the loop “%s” ended before the call did",
                               core->name));
}

static void
async_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgRecord *record = bg_inbox_keep (&core->inbox, slot);
  BgRequest *request = bg_reply_get_request (record->data);
  GDestroyNotify destroy;
  GError *error = get_reason_not_to_run (core, request);

  record->outcome = half_done_async_call_outcome;
  if (error == NULL)
    {
      run_call (record->func, request->data, &error);
      bg_count (&core->inbox.counts.run, 1);
    }
  else
    {
      bg_count (&core->inbox.counts.cancelled, 1);
    }

  destroy = record->destroy;
  record->destroy = NULL;
  if (destroy != NULL)
    destroy (request->data);
  record->outcome = NULL;
  end_async_call (record->data, NULL, error);
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
 * @callback is called in the thread-default context of the moment, at @priority,
 * once, and never before this returns. If the call is cancelled or times out before
 * the function has started, the function does not run; @callback is told so when the
 * loop comes to it, since @user_data is destroyed there first. Does not block; any
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
  gboolean admitted = FALSE;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (func != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  core = self->core;
  reply = bg_reply_new (self, bg_loop_call_async, func, priority, callback, callback_data);
  request = bg_reply_get_request (reply);
  request->data = user_data;
  request->deadline = bg_deadline (timeout_msec);
  g_set_object (&request->cancellable, cancellable);

  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      admitted = bg_core_admits (core);
      if (admitted && atomic_load (&core->inbox.linger.usec) > 0)
        bg_reply_expect_soon (reply, core->inbox.asleep);
      if (admitted)
        bg_inbox_append (&core->inbox, priority, async_call_outcome, func, reply, destroy);
      if (callback != NULL)
        bg_inbox_press (&core->inbox);
      bg_core_unlock (core);
    }

  if (!admitted)
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

/* Task */

typedef struct
{
  BgCore *core; /* (owned) */
  GTask *task;  /* (owned) */
  GTaskThreadFunc func;
} BgTaskRun;

static void
task_run_free (gpointer data)
{
  BgTaskRun *self = data;

  bg_core_unref (self->core);
  g_object_unref (self->task);
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
  g_source_attach (source, g_task_get_context (self->task));
  g_source_unref (source);
}

static void
return_dropped_task (BgTaskRun *self)
{
  g_task_return_new_error (self->task, BG_ERROR, BG_ERROR_CLOSED,
                           "The loop “%s” was shut down before the task started", self->core->name);
  task_run_free (self);
}

/* Its function has ended the thread. If nobody else has the task, nobody will return from
 * it. */
static void
half_done_task_outcome (BgRecord *slot, gpointer owner)
{
  BgTaskRun *self = slot->data;

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

  if (bg_core_is_cancelling (core))
    {
      bg_count (&core->inbox.counts.cancelled, 1);
      return_dropped_task (self);
      return;
    }

  if (g_task_return_error_if_cancelled (self->task))
    {
      bg_count (&core->inbox.counts.cancelled, 1);
    }
  else
    {
      core->operations.began = TRUE;
      core->inbox.activities.current->kept
          = (BgRecord){ half_done_task_outcome, self->func, self, NULL };
      self->func (self->task, g_task_get_source_object (self->task),
                  g_task_get_task_data (self->task), g_task_get_cancellable (self->task));
      bg_inbox_drop_kept (&core->inbox);
      bg_count (&core->inbox.counts.run, 1);
    }
  task_run_free (self);
}

/* A loop whose work waits for the task, on this thread, is owed it as a reply. */

static void
owed_task_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
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

static void
owe_task (BgLoop *self, GTask *task, GTaskThreadFunc func)
{
  BgCore *here = bg_core_get_current ();
  BgReply *reply;

  if (here == NULL || bg_core_is_forked (here) || g_task_get_context (task) != here->context
      || g_main_context_get_thread_default () != here->context)
    return;

  here->operations.began = TRUE;
  reply
      = bg_reply_new (self, bg_loop_run_task, func, g_task_get_priority (task), owed_task_cb, NULL);
  g_signal_connect_data (task, "notify::completed", G_CALLBACK (task_completed_cb), reply,
                         owed_task_returned, 0);
}

/**
 * bg_loop_run_task:
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @task: a task
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
 * task's own context, never before this returns. If the task's cancellable is cancelled
 * before @func has started, @func does not run and the task returns
 * %G_IO_ERROR_CANCELLED. If the loop takes no more work, or drops this at a shutdown with
 * %BG_SHUTDOWN_CANCEL, the task returns %BG_ERROR_CLOSED; in a forked child
 * %BG_ERROR_FORKED.
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
  gboolean admitted = FALSE;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (G_IS_TASK (task));
  g_return_if_fail (func != NULL);

  core = self->core;
  run = g_new0 (BgTaskRun, 1);
  run->core = bg_core_ref (core);
  run->task = g_object_ref (task);
  run->func = func;
  owe_task (self, task, func);

  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      admitted = bg_core_admits (core);
      if (admitted)
        {
          bg_inbox_append (&core->inbox, priority, task_outcome, func, run, NULL);
          bg_inbox_press (&core->inbox);
        }
      bg_core_unlock (core);
    }

  if (!admitted)
    refuse_task (run);
}

/* Flush */

typedef struct _BgFlush BgFlush;

typedef struct
{
  BgFlush *flush;
  int priority; /* of the lane that it is in */
  gboolean done;
} BgMarker;

/* One marker goes to the end of each lane; the flush is done when all of them
 * have come out. */
struct _BgFlush
{
  BgBlocked blocked;

  /* under lock */
  guint n_left;
  gboolean abandoned; /* what is left counts as nothing any more */
  guint n_markers;
  BgMarker markers[];
};

static void
flush_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgMarker *marker = slot->data;
  BgFlush *self = marker->flush;
  gboolean defers, counts = FALSE, settles = FALSE, frees = FALSE;

  bg_core_lock (core);
  /* What was accepted before may still run, around this. */
  defers = bg_inbox_is_nested (&core->inbox) && !self->abandoned;
  if (defers)
    {
      marker->priority = G_PRIORITY_DEFAULT;
    }
  else
    {
      marker->done = TRUE;
      if (self->abandoned)
        bg_inbox_count_void (&core->inbox, marker->priority, -1);
      counts = !self->abandoned;
      self->n_left--;
      settles = self->n_left == 0 && bg_core_remove_blocked (core, &self->blocked);
      frees = self->n_left == 0 && self->abandoned;
    }
  bg_core_unlock (core);

  if (defers)
    {
      bg_inbox_defer (&core->inbox, slot);
      return;
    }

  if (counts)
    bg_count (&core->inbox.counts.run, 1);
  if (settles)
    bg_waiter_settle (self->blocked.waiter);
  if (frees)
    g_free (self);
}

static gboolean
wait_for_flush (BgCore *core, BgFlush *flush, gint64 deadline, GError **error)
{
  BgWaitResult result = bg_waiter_wait (flush->blocked.waiter, deadline);

  if (result != BG_WAIT_SETTLED && withdraw (core, &flush->blocked))
    {
      bg_set_wait_error (error, result, "Flushing the loop “%s”", core->name);
      return FALSE;
    }

  bg_waiter_wait_settled (flush->blocked.waiter);
  if (flush->blocked.closed)
    {
      g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                   "The loop “%s” was shut down before it had done all its work", core->name);
      return FALSE;
    }
  return TRUE;
}

/* With the lock held. */
static BgFlush *
append_markers (BgCore *core, BgWaiter *waiter)
{
  BgInbox *inbox = &core->inbox;
  BgFlush *flush = g_malloc0 (sizeof (BgFlush) + inbox->n_lanes * sizeof (BgMarker));

  flush->blocked.waiter = waiter;
  flush->blocked.close = settle_blocked;
  flush->n_left = flush->n_markers = inbox->n_lanes;
  for (guint i = 0; i < flush->n_markers; i++)
    {
      BgMarker *marker = &flush->markers[i];

      marker->flush = flush;
      marker->priority = inbox->lanes[i]->priority;
      bg_inbox_append (inbox, marker->priority, flush_outcome, bg_loop_flush, marker, NULL);
    }
  bg_inbox_press (inbox);
  bg_core_add_blocked (core, &flush->blocked);
  return flush;
}

/* Nobody waits for it any more. */
static void
abandon_flush (BgCore *core, BgFlush *flush)
{
  gboolean frees;

  bg_core_lock (core);
  flush->abandoned = TRUE;
  frees = flush->n_left == 0;
  core->waits.withdrawn += flush->n_left;
  for (guint i = 0; i < flush->n_markers; i++)
    {
      if (!flush->markers[i].done)
        bg_inbox_count_void (&core->inbox, flush->markers[i].priority, 1);
    }
  bg_core_unlock (core);

  if (frees)
    g_free (flush);
}

static gboolean
flush_blocking (BgCore *core, int timeout_msec, GCancellable *cancellable, GError **error)
{
  BgFlush *flush = NULL;
  BgWaiter *waiter = bg_waiter_take (cancellable);
  gint64 deadline = bg_deadline (timeout_msec);
  gboolean ok = FALSE;
  BgWait wait;

  if (!bg_core_wait_begin (core, &wait, waiter, error))
    {
      bg_waiter_give_back (waiter, cancellable);
      return FALSE;
    }

  bg_core_lock (core);
  if (bg_core_admits (core))
    {
      bg_core_promote_due (core);
      flush = append_markers (core, waiter);
    }
  bg_core_unlock (core);

  if (flush != NULL)
    {
      ok = wait_for_flush (core, flush, deadline, error);
      abandon_flush (core, flush);
    }
  else
    {
      bg_core_set_refused_error (core, error);
    }

  bg_wait_end (&wait);
  bg_waiter_give_back (waiter, cancellable);
  return ok;
}

/**
 * bg_loop_flush:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Waits until all work that the loop has accepted so far, at every priority, has
 * had its outcome.
 *
 * That is posts, calls, and the beginning of operations; not delayed work that
 * is not due, not functions given to [method@Bg.Loop.invoke], and not what that
 * work hands to the loop in turn. Blocks.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT; %G_IO_ERROR_CANCELLED; %BG_ERROR_CLOSED if the
 * loop is being shut down or has ended; %BG_ERROR_WOULD_DEADLOCK on the loop's own
 * thread, or that of a loop which it waits for; %BG_ERROR_FORKED in a forked child.
 *
 * Returns: %TRUE if all of it is done
 *
 * Since: 1.0
 */
gboolean
bg_loop_flush (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, error);
      return FALSE;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;

  return flush_blocking (self->core, timeout_msec, cancellable, error);
}
