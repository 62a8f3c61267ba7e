/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-view-private.h>

/* Looking at a loop: whatever never waits for its thread. Any thread. */

/**
 * bg_loop_get_name: (get-property name)
 * @self: a loop
 *
 * What the loop is called.
 *
 * Never waits; any thread may call it.
 *
 * Returns: (transfer none): the name
 *
 * Since: 1.0
 */
const char *
bg_loop_get_name (BgLoop *self)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  return bg_core_get_name (self->core);
}

/**
 * bg_loop_get_context:
 * @self: a loop
 *
 * The context that the loop's thread iterates.
 *
 * It is always a private one. Its thread owns it as long as the loop runs; do not
 * iterate it or push it as a thread-default elsewhere.
 *
 * Sources attached to it directly work, but [method@Bg.Loop.attach] can tell that
 * the loop takes no more, and makes a source safe to be unreffed or destroyed at any
 * time: before GLib 2.85, whoever does so with one that was attached directly needs a
 * reference to the loop or the context until then.
 *
 * Never waits; any thread may call it.
 *
 * Returns: (transfer none) (nullable): the context; %NULL only of a loop that could
 *   not be started
 *
 * Since: 1.0
 */
GMainContext *
bg_loop_get_context (BgLoop *self)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  return bg_core_get_context (self->core);
}

/**
 * bg_loop_get_state: (get-property state)
 * @self: a loop
 *
 * Where in its life the loop is.
 *
 * The answer may be history when it arrives: to hand over work, hand it over and
 * look at what that returns.
 *
 * Never waits; any thread may call it. In a forked child: %BG_LOOP_STOPPED.
 *
 * Returns: the state
 *
 * Since: 1.0
 */
BgLoopState
bg_loop_get_state (BgLoop *self)
{
  g_return_val_if_fail (BG_IS_LOOP (self), BG_LOOP_STOPPED);

  return bg_core_get_state (self->core);
}

/**
 * bg_loop_is_current:
 * @self: a loop
 *
 * Whether the calling thread is the loop's.
 *
 * Never waits; any thread may call it.
 *
 * Returns: %TRUE on the loop's own thread
 *
 * Since: 1.0
 */
gboolean
bg_loop_is_current (BgLoop *self)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);

  return bg_core_is_current (self->core);
}

/**
 * bg_loop_get_cancellable:
 * @self: a loop
 *
 * A cancellable that a shutdown with %BG_SHUTDOWN_CANCEL cancels.
 *
 * Hand it to operations that are to end early then. Those begun with
 * [method@Bg.Loop.perform] follow it anyway.
 *
 * Never waits; any thread may call it.
 *
 * Returns: (transfer none): the cancellable
 *
 * Since: 1.0
 */
GCancellable *
bg_loop_get_cancellable (BgLoop *self)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  return bg_core_get_cancellable (self->core);
}

/**
 * bg_loop_get_stats:
 * @self: a loop
 *
 * What the loop has done so far, and has to do.
 *
 * Never waits for the loop's thread; any thread may call it. In a forked child
 * everything is zero.
 *
 * Returns: (transfer full): a snapshot
 *
 * Since: 1.0
 */
BgLoopStats *
bg_loop_get_stats (BgLoop *self)
{
  BgLoopStats *stats;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  stats = g_new0 (BgLoopStats, 1);
  if (!bg_core_is_forked (self->core))
    bg_core_get_stats (self->core, stats);
  return stats;
}

static void
append_lines (GString *text, GPtrArray *lines)
{
  for (guint i = 0; i < lines->len; i++)
    g_string_append_printf (text, "  %s\n", (char *) g_ptr_array_index (lines, i));
}

/**
 * bg_loop_describe:
 * @self: a loop
 *
 * Says what the loop is doing: whether it is idle, busy, stopping or stopped; what runs
 * and for how long, what waits, and what holds it; and what stands by: delayed work,
 * attached sources and teardown functions.
 *
 * ```text
 * loop "uploads": busy
 *   running upload_cb for 1.2 s
 *   3 queued at priority 0
 *   held by "a request" for 1.4 s
 * standing by:
 *   2 delayed, the first due in 250 ms
 *   2 attached sources: "socket", "watch"
 *   1 teardown function
 * ```
 *
 * For people, in logs and debuggers: the form may change. Functions are named by
 * their symbol where the dynamic linker knows it, else by module and offset as
 * addr2line takes them, and by their address where a loop's own thread asks. Sources
 * are named as they were before they were attached.
 *
 * Never waits for the loop's thread; any thread may call it. A description takes the longer
 * the more sources are attached.
 *
 * Returns: (transfer full): some lines of text
 *
 * Since: 1.0
 */
char *
bg_loop_describe (BgLoop *self)
{
  static const char *states[] = { N_ ("idle"), N_ ("stopping"), N_ ("stopped") };
  g_auto (BgView) view = { 0 };
  BgCore *core;
  GString *text;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  core = self->core;
  if (bg_core_is_forked (core))
    return g_strdup_printf ("loop \"%s\": of another process\n", bg_core_get_name (core));

  bg_view_init (&view, core);
  text = g_string_new (NULL);
  g_string_append_printf (text, _ ("loop \"%s\": %s\n"), bg_core_get_name (core),
                          view.busy && view.state == BG_LOOP_RUNNING ? _ ("busy")
                                                                     : _ (states[view.state]));
  append_lines (text, view.works);
  if (view.standby->len > 0)
    g_string_append_printf (text, "%s\n", _ ("standing by:"));
  append_lines (text, view.standby);

  return g_string_free (text, FALSE);
}
