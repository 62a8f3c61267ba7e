/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-reply-private.h>

/* Asking for the end of a loop and waiting for it, on the thread of whoever does. Arguments are
 * looked at and replies made here, without a lock: what is asked for is in core/bg-core-stop.c, how
 * it is waited for in core/bg-core-join.c. */

/* Quit */

static gboolean
is_mode (BgShutdownMode mode)
{
  return mode == BG_SHUTDOWN_DRAIN || mode == BG_SHUTDOWN_CANCEL;
}

/**
 * bg_loop_quit:
 * @self: a loop
 * @mode: how to end
 *
 * Asks the loop to end, and that is all: see [method@Bg.Loop.shutdown_full].
 *
 * Never waits; any thread may call it, the loop's own included. The request is
 * never lost, nor taken back; %BG_SHUTDOWN_CANCEL overrides %BG_SHUTDOWN_DRAIN.
 *
 * Since: 1.0
 */
void
bg_loop_quit (BgLoop *self, BgShutdownMode mode)
{
  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (is_mode (mode));

  if (!bg_core_is_forked (self->core))
    bg_core_quit (self->core, mode);
}

/* Shutdown */

/**
 * bg_loop_shutdown:
 * @self: a loop
 * @error: return location for an error, or %NULL
 *
 * Ends the loop, letting everything that it has accepted finish, and waits for
 * that without a limit of time.
 *
 * ```c
 * g_autoptr (GError) local_error = NULL;
 *
 * if (!bg_loop_shutdown (loop, &local_error))
 *   g_warning ("%s", local_error->message);
 * g_object_unref (loop);
 * ```
 *
 * This is [method@Bg.Loop.shutdown_full] with %BG_SHUTDOWN_DRAIN and no deadline.
 *
 * Returns: %TRUE if the loop has ended
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown (BgLoop *self, GError **error)
{
  return bg_loop_shutdown_full (self, BG_SHUTDOWN_DRAIN, -1, NULL, error);
}

/**
 * bg_loop_shutdown_full:
 * @self: a loop
 * @mode: how to end
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit, 0 to ask
 *   without waiting
 * @cancellable: (nullable): a cancellable; cancelling it ends the wait, not the
 *   shutdown
 * @error: return location for an error, or %NULL
 *
 * Ends the loop and waits until its thread is gone.
 *
 * ```c
 * if (!bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 5000, NULL, error))
 *   bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
 * ```
 *
 * From now on work from other threads is refused. With %BG_SHUTDOWN_DRAIN
 * everything that was accepted runs to its end, and code that runs on the loop
 * may still hand it work. With %BG_SHUTDOWN_CANCEL what has not started never
 * runs, whoever waits for it fails with %BG_ERROR_CLOSED at once, the loop's
 * cancellable is cancelled, and nothing new is taken from anybody. Both wait for
 * what is running, for holds, and for operations that have not answered; neither
 * for delayed work that is not due, nor for attached sources. Replies of other loops
 * to code on this one are waited for with %BG_SHUTDOWN_DRAIN; with %BG_SHUTDOWN_CANCEL
 * their callbacks are told %BG_ERROR_CLOSED, and of those of its own code that are
 * refused something meanwhile 128 at least, as they may ask again for ever. While the
 * loop stops, a source that is always ready goes behind all others. Then the teardown
 * functions run, sources that are left are destroyed on the loop's thread (and what
 * their destroy notifies attach, and theirs, but not for ever: of those that go on
 * after 10000 rounds the last stay behind), and the thread ends, its thread-local
 * destructors included.
 *
 * Sources of the context are found by their priorities, which are the usual ones and the
 * first 64 that [method@Bg.Loop.attach] has seen, and among the 4096 that came last. Another
 * one, at a rare priority and older than that, does not go behind the others while it is
 * ready, and is destroyed with the context.
 *
 * Blocks. It may be called any number of times and from many threads at once:
 * there is one shutdown, and everyone gets its outcome. When the deadline is
 * missed the loop goes on stopping; call again to wait longer, or with
 * %BG_SHUTDOWN_CANCEL, which overrides %BG_SHUTDOWN_DRAIN.
 *
 * With a @timeout_msec of 0 it asks for the end and says whether the loop has ended
 * already.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED, where nothing was asked for if @cancellable was cancelled
 * before; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, that of a loop which it
 * waits for, be it for a reply when it drains, or in a handler of the loop's cancellable,
 * in which case nothing has changed; %BG_ERROR_FORKED in a forked child. If the loop
 * comes to wait for this thread only later, since code on it that still ran has asked
 * this thread's loop for something, this fails with %BG_ERROR_WOULD_DEADLOCK then, and
 * the loop goes on stopping.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone, all notifies have run, and
 *   the handlers of the loop's cancellable, unless others have cancelled that, have returned
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown_full (BgLoop *self,
                       BgShutdownMode mode,
                       int timeout_msec,
                       GCancellable *cancellable,
                       GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (is_mode (mode), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_core_end_until (self->core, &mode, timeout_msec, cancellable, error);
}

/**
 * bg_loop_wait:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit, 0 to look
 *   without waiting
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Waits for the end of the loop without asking for it: for a `main()` whose loop ends
 * itself, with [method@Bg.Loop.quit].
 *
 * Blocks. Any number of threads may wait.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, that of a
 * loop which it waits for, or comes to wait for as [method@Bg.Loop.shutdown_full] says,
 * or in a handler of the loop's cancellable; %BG_ERROR_FORKED in a forked child.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone, all notifies have run, and
 *   the handlers of the loop's cancellable, unless others have cancelled that, have returned
 *
 * Since: 1.0
 */
gboolean
bg_loop_wait (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_core_end_until (self->core, NULL, timeout_msec, cancellable, error);
}

/* Asynchronous */

/**
 * bg_loop_shutdown_async:
 * @self: a loop
 * @mode: how to end
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable; cancelling it ends the wait, not the
 *   shutdown
 * @callback: (nullable) (scope async): what to call with the outcome
 * @user_data: what to give it
 *
 * Ends the loop without blocking: see [method@Bg.Loop.shutdown_full].
 *
 * @callback is called in the thread-default context of the moment, once, and
 * never before this returns. For a thread that must not block, such as that of a
 * user interface. Without a @callback it is [method@Bg.Loop.quit]. A reference to the
 * loop is held until then. Called on another loop, that one waits for
 * the outcome before it ends, unless the two wait for each other: then @callback is told
 * %BG_ERROR_CLOSED. Any thread may call it; on the loop's own thread it fails
 * with %BG_ERROR_WOULD_DEADLOCK and changes nothing.
 *
 * Since: 1.0
 */
void
bg_loop_shutdown_async (BgLoop *self,
                        BgShutdownMode mode,
                        int timeout_msec,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer user_data)
{
  BgReply *reply;
  GError *error = NULL;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (is_mode (mode));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  reply = bg_reply_new (self, self->core, bg_loop_shutdown_async, bg_loop_shutdown_async,
                        G_PRIORITY_DEFAULT, callback, user_data);
  if (!bg_core_check_end (self->core, cancellable, &error))
    {
      bg_reply_refuse (reply, error);
    }
  else if (callback == NULL)
    {
      bg_core_quit (self->core, mode);
      g_object_unref (reply);
    }
  else
    {
      bg_core_end_async (self->core, &mode, timeout_msec, cancellable, reply);
    }
}

/**
 * bg_loop_shutdown_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The outcome of [method@Bg.Loop.shutdown_async].
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK and %BG_ERROR_FORKED; %BG_ERROR_CLOSED
 * if the caller's own loop was shut down with %BG_SHUTDOWN_CANCEL meanwhile. To be called
 * once for each result.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone and all notifies have
 *   run
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_shutdown_async), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_reply_propagate (BG_REPLY (result), NULL, error);
}

/**
 * bg_loop_wait_async:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async): function to call with the outcome
 * @user_data: data to pass to @callback
 *
 * Waits for the end of the loop without asking for it, and without blocking: see
 * [method@Bg.Loop.wait].
 *
 * @callback is called in the thread-default context of the moment, once, and
 * never before this returns. A reference to the loop is held until then, so the loop
 * does not end by being dropped. Called on another loop, that one waits
 * for the outcome before it ends, unless the two wait for each other: then @callback is
 * told %BG_ERROR_CLOSED. Any thread may call it; on the loop's own thread it
 * fails with %BG_ERROR_WOULD_DEADLOCK.
 *
 * Since: 1.0
 */
void
bg_loop_wait_async (BgLoop *self,
                    int timeout_msec,
                    GCancellable *cancellable,
                    GAsyncReadyCallback callback,
                    gpointer user_data)
{
  BgReply *reply;
  GError *error = NULL;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  if (callback == NULL)
    return;

  reply = bg_reply_new (self, self->core, bg_loop_wait_async, bg_loop_wait_async,
                        G_PRIORITY_DEFAULT, callback, user_data);
  if (bg_core_check_end (self->core, cancellable, &error))
    bg_core_end_async (self->core, NULL, timeout_msec, cancellable, reply);
  else
    bg_reply_refuse (reply, error);
}

/**
 * bg_loop_wait_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The outcome of [method@Bg.Loop.wait_async].
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK and %BG_ERROR_FORKED; %BG_ERROR_CLOSED
 * if the caller's own loop was shut down with %BG_SHUTDOWN_CANCEL meanwhile. To be called
 * once for each result.
 *
 * Returns: %TRUE if the loop has ended
 *
 * Since: 1.0
 */
gboolean
bg_loop_wait_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_wait_async), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_reply_propagate (BG_REPLY (result), NULL, error);
}
