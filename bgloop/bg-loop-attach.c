/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-loop-private.h>

/* What lives on a loop: sources, holds, teardown functions. Any thread; none of it waits. */

/**
 * bg_loop_attach:
 * @self: a loop
 * @source: a source that is neither attached yet nor destroyed
 *
 * Attaches a source to the loop's context.
 *
 * ```c
 * static gboolean
 * tick_cb (gpointer user_data)
 * {
 *   return G_SOURCE_CONTINUE;
 * }
 *
 * gboolean
 * example_tick (BgLoop *loop)
 * {
 *   g_autoptr (GSource) source = g_timeout_source_new (100);
 *
 *   g_source_set_callback (source, tick_cb, NULL, NULL);
 *   return bg_loop_attach (loop, source);
 * }
 * ```
 *
 * It is dispatched on the loop's thread and does not keep the loop alive: a
 * shutdown destroys it there. The source may be destroyed and unreferenced at
 * any time and in any thread, also when the loop has gone; not by
 * [func@GLib.Source.remove], which knows the default context only.
 *
 * A name that the source has, from [method@GLib.Source.set_name], is in
 * [method@Bg.Loop.describe] and in reports of stalls. It is not to be changed any more.
 *
 * Never waits; any thread may call it.
 *
 * Returns: %FALSE if the loop takes no more work; @source is as it was then
 *
 * Since: 1.0
 */
gboolean
bg_loop_attach (BgLoop *self, GSource *source)
{
  BgCore *core;
  gboolean attached;

  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (source != NULL, FALSE);
  /* This first: of one that was destroyed GLib does not want to be asked for the context. */
  g_return_val_if_fail (!g_source_is_destroyed (source), FALSE);
  g_return_val_if_fail (g_source_get_context (source) == NULL, FALSE);

  core = self->core;
  if (bg_core_is_forked (core))
    return FALSE;

  bg_core_lock (core);
  attached = bg_core_attach (core, source);
  bg_core_unlock (core);

  return attached;
}

/**
 * bg_loop_hold:
 * @self: a loop
 * @reason: (nullable): what for, to be named when a shutdown misses its
 *   deadline; %NULL is "unnamed"
 *
 * Keeps the loop from ending.
 *
 * ```c
 * guint64 hold = bg_loop_hold (loop, "an upload");
 *
 * if (hold != 0)
 *   bg_loop_release (loop, hold);
 * ```
 *
 * A shutdown waits until every hold has been released, in either mode. Take one
 * for whatever must not be cut off: a request in flight, a child process.
 *
 * Never waits; any thread may call it.
 *
 * Returns: a number for [method@Bg.Loop.release]; 0 if the loop takes no more
 *   work
 *
 * Since: 1.0
 */
guint64
bg_loop_hold (BgLoop *self, const char *reason)
{
  BgCore *core;
  BgHold *hold;
  guint64 id = 0;

  g_return_val_if_fail (BG_IS_LOOP (self), 0);

  core = self->core;
  if (bg_core_is_forked (core))
    return 0;

  hold = g_new0 (BgHold, 1);
  hold->reason = g_strdup (reason != NULL ? reason : "unnamed");

  bg_core_lock (core);
  if (bg_core_admits (core))
    {
      bg_core_add_hold (core, hold);
      id = hold->id;
    }
  bg_core_unlock (core);

  if (id == 0)
    {
      g_free (hold->reason);
      g_free (hold);
    }
  return id;
}

/**
 * bg_loop_release:
 * @self: a loop
 * @hold: what [method@Bg.Loop.hold] returned
 *
 * Releases a hold.
 *
 * A number that is not held is a programming error: it is reported and has no
 * effect. Never waits; any thread may call it, in every state of the loop.
 *
 * Since: 1.0
 */
void
bg_loop_release (BgLoop *self, guint64 hold)
{
  BgCore *core;
  BgHold *found = NULL;

  g_return_if_fail (BG_IS_LOOP (self));

  core = self->core;
  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  found = bg_core_find_hold (core, hold);
  if (found != NULL)
    bg_core_remove_hold (core, found);
  bg_core_unlock (core);

  if (found == NULL)
    {
      g_critical ("The loop \"%s\" has no hold %" G_GUINT64_FORMAT, bg_core_get_name (core), hold);
      return;
    }

  g_free (found->reason);
  g_free (found);
}

/**
 * bg_loop_add_teardown:
 * @self: a loop
 * @func: (scope notified) (closure user_data) (destroy destroy): the function
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data afterwards
 *
 * Has a function run on the loop's thread at the very end of the loop's life.
 *
 * ```c
 * static void
 * close_cb (gpointer user_data)
 * {
 *   g_io_stream_close (user_data, NULL, NULL);
 * }
 *
 * gboolean
 * example_own (BgLoop *loop, GIOStream *stream)
 * {
 *   return bg_loop_add_teardown (loop, close_cb, g_object_ref (stream), g_object_unref) != 0;
 * }
 * ```
 *
 * Teardown functions run last-in-first-out when everything that was accepted has
 * had its outcome, in either mode of shutdown. They may call anything, but the
 * loop takes no more work then. The place to close what lives on the loop.
 *
 * Never waits; any thread may call it. @destroy runs right after the function,
 * or, if the loop takes no more work, in the calling thread before this returns.
 *
 * Returns: a number for [method@Bg.Loop.remove_teardown], which is never used again;
 *   0 if the loop takes no more work
 *
 * Since: 1.0
 */
guint64
bg_loop_add_teardown (BgLoop *self, BgPostFunc func, gpointer user_data, GDestroyNotify destroy)
{
  BgTeardown *teardown;
  BgCore *core;
  guint64 id = 0;

  g_return_val_if_fail (BG_IS_LOOP (self), 0);
  g_return_val_if_fail (func != NULL, 0);

  core = self->core;
  if (!bg_core_is_forked (core))
    {
      teardown = g_new0 (BgTeardown, 1);
      teardown->link.data = teardown;
      teardown->func = func;
      teardown->data = user_data;
      teardown->destroy = destroy;

      bg_core_lock (core);
      if (bg_core_admits (core))
        id = bg_core_add_teardown (core, teardown);
      bg_core_unlock (core);
      if (id == 0)
        g_free (teardown);
    }

  if (id == 0 && destroy != NULL)
    destroy (user_data);
  return id;
}

/**
 * bg_loop_remove_teardown:
 * @self: a loop
 * @teardown: what [method@Bg.Loop.add_teardown] returned
 *
 * Takes a teardown function back.
 *
 * Its destroy notify runs on the loop's thread, some time soon. Does not block; any
 * thread may call it.
 *
 * Returns: %TRUE if the function has not started and never will; %FALSE if it has
 *   started or was taken back before
 *
 * Since: 1.0
 */
gboolean
bg_loop_remove_teardown (BgLoop *self, guint64 teardown)
{
  BgCore *core;
  gboolean removed;

  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);

  core = self->core;
  if (bg_core_is_forked (core))
    return FALSE;

  bg_core_lock (core);
  removed = bg_core_remove_teardown (core, teardown);
  bg_core_unlock (core);

  return removed;
}
