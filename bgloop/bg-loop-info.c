/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-report-private.h>

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

/**
 * bg_loop_describe:
 * @self: a loop
 *
 * Says what the loop is doing: what runs and for how long, what waits, and what
 * holds it.
 *
 * For people, in logs and debuggers: the form may change. Functions are named by
 * their symbol where the dynamic linker knows it, else by module and offset as
 * addr2line takes them.
 *
 * Never waits for the loop's thread; any thread may call it.
 *
 * Returns: (transfer full): some lines of text
 *
 * Since: 1.0
 */
char *
bg_loop_describe (BgLoop *self)
{
  static const char *states[] = { N_ ("running"), N_ ("stopping"), N_ ("stopped") };
  BgCore *core;
  g_autoptr (GPtrArray) lines = NULL;
  GString *text;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  core = self->core;
  if (bg_core_is_forked (core))
    return g_strdup_printf ("loop \"%s\": of another process\n", bg_core_get_name (core));

  text = g_string_new (NULL);
  g_string_append_printf (text, _ ("loop \"%s\": %s\n"), bg_core_get_name (core),
                          _ (states[bg_core_get_state (core)]));
  lines = bg_core_list_work (core);
  for (guint i = 0; i < lines->len; i++)
    g_string_append_printf (text, "  %s\n", (char *) g_ptr_array_index (lines, i));

  return g_string_free (text, FALSE);
}
