/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>
#include <bgloop/base/bg-trace-private.h>

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-report-private.h>
#include <bgloop/core/bg-work-private.h>

/* A function on the loop's thread, and its answer, which the caller waits for on its own. Whether
 * the loop starts a call or the caller takes it back is decided under the core's lock; the function
 * runs without. */

typedef struct
{
  BgBlocked blocked;
  BgCallFunc func;
  gpointer data;
  GCancellable *cancellable; /* (unowned) (nullable) */
  gint64 deadline;           /* monotonic microseconds; -1: none */
  int timeout_msec;
  gboolean ok;
  GError *error;
} BgCall;

static void
set_timeout_error (BgCore *core, int timeout_msec, BgReport *report, GError **error)
{
  g_autofree char *text = bg_report_to_text (report);

  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               _ ("A call to the loop \"%s\" did not start within %d ms: %s"),
               bg_core_get_name (core), timeout_msec, text);
}

/* On the loop's thread: whether a call that has not started is cancelled or has timed out. */
gboolean
bg_call_is_too_late (BgCore *core,
                     GCancellable *cancellable,
                     gint64 deadline,
                     int timeout_msec,
                     GError **error)
{
  g_autoptr (BgReport) report = NULL;

  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return TRUE;
  if (deadline == -1 || g_get_monotonic_time () < deadline)
    return FALSE;

  report = bg_report_new_late (deadline);
  set_timeout_error (core, timeout_msec, report, error);
  return TRUE;
}

gboolean
bg_call_run (BgCallFunc func, gpointer data, GError **error)
{
  GError *local = NULL;
  gboolean ok = !!func (data, &local);

  return bg_work_check_answer (func, ok, local, TRUE, error);
}

/* Its function has ended the thread, and so will not answer. */
static void
half_done_call_outcome (BgRecord *slot, gpointer owner)
{
  BgCall *self = slot->data;

  self->blocked.closed = TRUE;
  bg_waiter_complete (self->blocked.waiter);
}

static void
call_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgCall *self;

  bg_core_lock (core);
  self = bg_core_take (core, slot);
  if (self != NULL)
    {
      self->blocked.slot = NULL;
      bg_core_remove_blocked (core, &self->blocked);
    }
  bg_core_unlock (core);

  if (self == NULL)
    return;

  /* Its thread may not have woken up yet to take it back. */
  if (bg_call_is_too_late (core, self->cancellable, self->deadline, self->timeout_msec,
                           &self->error))
    {
      bg_core_count_cancelled (core);
    }
  else
    {
      bg_waiter_set_bound (self->blocked.waiter, TRUE);
      bg_core_keep (core, &(BgRecord){ half_done_call_outcome, self->func, self, NULL });
      self->ok = bg_call_run (self->func, self->data, &self->error);
      bg_core_drop_kept (core);
      bg_core_count_run (core);
    }
  if (!bg_core_is_forked (core) && bg_waiter_complete (self->blocked.waiter))
    bg_core_note_wakeup (core);
}

/* Until the call has its outcome, or was taken back: says why. */
static BgWaitResult
wait_for_call (BgCore *core, BgCall *call)
{
  BgWaitResult result = bg_waiter_wait (call->blocked.waiter, call->deadline);

  if (result != BG_WAIT_COMPLETED)
    {
      if (bg_core_abandon_wait (core, &call->blocked))
        return result;
      bg_waiter_wait_completed (call->blocked.waiter);
    }
  return BG_WAIT_COMPLETED;
}

/* The call has been taken back. Whoever wants no error, as those who only try, pays for none. */
static void
set_wait_error (BgCore *core, BgCall *call, BgWaitResult why, GError **error)
{
  g_autoptr (BgReport) report = NULL;

  if (error == NULL)
    return;

  if (why == BG_WAIT_CANCELLED)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
                   _ ("A call to the loop \"%s\" that had not started was cancelled"),
                   bg_core_get_name (core));
      return;
    }

  report = bg_core_report (core, call->blocked.priority);
  set_timeout_error (core, call->timeout_msec, report, error);
}

/* The wait is over. */
static gboolean
take_answer (BgCore *core, BgCall *call, BgWaitResult why, GError **error)
{
  if (why != BG_WAIT_COMPLETED)
    {
      set_wait_error (core, call, why, error);
      return FALSE;
    }

  if (call->blocked.closed)
    {
      g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                   _ ("The loop \"%s\" was shut down before the call started"),
                   bg_core_get_name (core));
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
  gint64 begun = bg_trace_begin ();
  BgWork work = { .record = { call_outcome, call->func, call },
                  .priority = priority,
                  .awaited = TRUE,
                  .blocked = &call->blocked };
  BgWaitResult result = BG_WAIT_COMPLETED;
  gboolean submitted;
  BgWait wait;

  call->deadline = bg_deadline (timeout_msec);
  call->timeout_msec = timeout_msec;
  call->blocked.waiter = bg_core_begin_wait (core, &wait, cancellable, error);
  call->blocked.close = bg_blocked_complete;
  call->blocked.priority = priority;
  if (call->blocked.waiter == NULL)
    return FALSE;

  submitted = bg_core_submit (core, &work);
  if (submitted)
    {
      if (work.was_awake)
        bg_core_stay_awake (core, call->blocked.waiter, call->deadline);
      result = wait_for_call (core, call);
    }

  bg_core_end_wait (&wait, call->blocked.waiter, cancellable);
  bg_trace_end (begun, "call", "to %s", bg_core_get_name (core));
  if (!submitted)
    {
      bg_core_set_refused_error (core, error);
      return FALSE;
    }
  return take_answer (core, call, result, error);
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
 * ```c
 * static guint n_items; // only the loop's thread uses it
 *
 * static gboolean
 * add_cb (gpointer user_data, GError **error)
 * {
 *   guint *total = user_data;
 *
 *   *total = ++n_items;
 *   return TRUE;
 * }
 *
 * gboolean
 * example_add (BgLoop *loop, guint *total, GError **error)
 * {
 *   return bg_loop_call (loop, add_cb, total, NULL, error);
 * }
 * ```
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
 * ```c
 * typedef struct
 * {
 *   const char *path;
 *   char *text;
 * } Read;
 *
 * static gboolean
 * read_cb (gpointer user_data, GError **error)
 * {
 *   Read *data = user_data;
 *
 *   return g_file_get_contents (data->path, &data->text, NULL, error);
 * }
 *
 * char *
 * example_read (BgLoop *loop, const char *path, GError **error)
 * {
 *   Read data = { path, NULL };
 *
 *   bg_loop_call_full (loop, G_PRIORITY_DEFAULT, 1000, read_cb, &data, NULL, error);
 *   return data.text;
 * }
 * ```
 *
 * On the loop's own thread this is a plain function call, in every state of the
 * loop. On any other it blocks. A call that is cancelled or times out before the
 * function starts never runs; once it has started it is always waited for, and
 * its answer is the answer. So @user_data may live on the caller's stack.
 *
 * Fails with %BG_ERROR_CLOSED if the loop takes no more work or dropped this,
 * %BG_ERROR_WOULD_DEADLOCK if this thread is one of a circle of loops each
 * waiting for the next, %BG_ERROR_FORKED in a forked child,
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT, whose message says what was in the
 * way. To try with a @timeout_msec of 0 is cheapest without @error.
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
    return bg_call_run (func, user_data, error);

  return call_blocking (self->core, priority, timeout_msec, &call, cancellable, error);
}
