/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-loop-private.h>

/* Hand over and forget: functions that run once, after a while, or as those of
 * g_main_context_invoke(). Any thread; none of them waits. Work is appended and taken back under
 * the core's lock; the data of what is refused is destroyed without. */

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
    bg_inbox_append (bg_core_get_inbox (core), priority, bg_core_post_outcome, func, user_data,
                     destroy);
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
 * ```c
 * static void
 * print_cb (gpointer user_data)
 * {
 *   g_print ("%s\n", (char *) user_data);
 * }
 *
 * void
 * example_print (BgLoop *loop, const char *text)
 * {
 *   bg_loop_post (loop, print_cb, g_strdup (text), g_free);
 * }
 * ```
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

/**
 * bg_loop_post_after:
 * @self: a loop
 * @delay_msec: after how many milliseconds
 * @func: (scope notified) (closure user_data) (destroy destroy): the work
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data afterwards
 *
 * Has a function run on the loop's thread after a while.
 *
 * ```c
 * static void
 * reconnect_cb (gpointer user_data)
 * {
 *   g_print ("Trying again\n");
 * }
 *
 * guint64
 * example_retry (BgLoop *loop)
 * {
 *   return bg_loop_post_after (loop, 500, reconnect_cb, NULL, NULL);
 * }
 * ```
 *
 * When it is due it is queued, at %G_PRIORITY_DEFAULT; what is due at the same
 * time runs in the order in which it was given. It never runs early.
 *
 * Work that is not due does not keep the loop alive: a shutdown drops it. Work
 * that is due counts as accepted. As everywhere, @destroy runs on the loop's
 * thread, whatever happens to the work, or, if the loop takes no more work, in
 * the calling one before this returns.
 *
 * Never waits; any thread may call it.
 *
 * Returns: a number for [method@Bg.Loop.withdraw], which is never used again; 0 if
 *   the loop takes no more work
 *
 * Since: 1.0
 */
guint64
bg_loop_post_after (BgLoop *self,
                    guint delay_msec,
                    BgPostFunc func,
                    gpointer user_data,
                    GDestroyNotify destroy)
{
  BgCore *core;
  guint64 work = 0;

  g_return_val_if_fail (BG_IS_LOOP (self), 0);
  g_return_val_if_fail (func != NULL, 0);

  core = self->core;
  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      work = bg_core_add_delay (core, delay_msec, func, user_data, destroy);
      bg_core_unlock (core);
    }

  if (work == 0 && destroy != NULL)
    destroy (user_data);
  return work;
}

/**
 * bg_loop_withdraw:
 * @self: a loop
 * @work: what [method@Bg.Loop.post_after] returned
 *
 * Takes delayed work back.
 *
 * Its destroy notify runs on the loop's thread, some time soon. Never waits; any
 * thread may call it.
 *
 * Returns: %TRUE if the work has not started and never will; %FALSE if it has
 *   started, had its outcome already or was taken back before
 *
 * Since: 1.0
 */
gboolean
bg_loop_withdraw (BgLoop *self, guint64 work)
{
  BgCore *core;
  gboolean withdrawn;

  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);

  core = self->core;
  if (bg_core_is_forked (core))
    return FALSE;

  bg_core_lock (core);
  withdrawn = bg_core_cancel_delay (core, work);
  bg_core_unlock (core);

  return withdrawn;
}

/* Invoke */

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
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (function != NULL, FALSE);

  return bg_core_invoke (self->core, priority, function, data, notify);
}
