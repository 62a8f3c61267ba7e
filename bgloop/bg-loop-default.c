/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>

/* The default loop is known by a pointer without a reference: the loop takes
 * itself out in dispose, under the lock under which references are given out. A
 * #GWeakRef would do the same under a lock of GObject's that a fork may leave
 * locked. */

/* In dispose. Somebody may have been given a reference since it began: theirs is
 * a loop that is not the default one any more. */
void
bg_loop_unpublish (BgLoop *self)
{
  BgGlobals *globals = bg_globals ();

  if (g_atomic_pointer_get (&globals->default_loop) != self)
    return;

  g_mutex_lock (&globals->default_lock);
  if (globals->default_loop == self)
    g_atomic_pointer_set (&globals->default_loop, NULL);
  g_mutex_unlock (&globals->default_lock);
}

/**
 * bg_loop_dup_default:
 * @error: return location for an error, or %NULL
 *
 * A reference to the process's shared loop, which is started if there is none.
 *
 * When the last reference goes, the loop ends. After
 * [func@Bg.Loop.reset_default], a shutdown, or in a forked child, the next call
 * starts a fresh one. Any thread may call it; it does not wait for work.
 *
 * Fails only if no thread can be made.
 *
 * Returns: (transfer full): the default loop
 *
 * Since: 1.0
 */
BgLoop *
bg_loop_dup_default (GError **error)
{
  BgGlobals *globals = bg_globals ();
  BgLoop *self;

  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  bg_core_visit_graves ();

  /* Nothing below runs anybody's code. */
  g_mutex_lock (&globals->default_lock);
  self = globals->default_loop;
  if (self != NULL && bg_core_get_state (self->core) == BG_LOOP_RUNNING)
    {
      g_object_ref (self);
    }
  else
    {
      self = g_initable_new (BG_TYPE_LOOP, NULL, error, "name", "default", NULL);
      g_atomic_pointer_set (&globals->default_loop, self);
    }
  g_mutex_unlock (&globals->default_lock);

  return self;
}

/**
 * bg_loop_reset_default:
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @error: return location for an error, or %NULL
 *
 * Forgets the default loop and shuts it down, with %BG_SHUTDOWN_DRAIN.
 *
 * For the end of a test, or of a program. Does nothing if there is none. The
 * next [func@Bg.Loop.dup_default] gives a fresh loop, even if this one has
 * missed the deadline. Blocks.
 *
 * Fails as [method@Bg.Loop.shutdown_full] does; on the default loop's own thread
 * nothing has changed.
 *
 * Returns: %TRUE if there is none any more
 *
 * Since: 1.0
 */
gboolean
bg_loop_reset_default (int timeout_msec, GError **error)
{
  BgGlobals *globals = bg_globals ();
  g_autoptr (BgLoop) self = NULL;

  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  g_mutex_lock (&globals->default_lock);
  if (globals->default_loop != NULL)
    self = g_object_ref (globals->default_loop);
  if (self != NULL && !bg_core_is_current (self->core))
    g_atomic_pointer_set (&globals->default_loop, NULL);
  g_mutex_unlock (&globals->default_lock);

  if (self == NULL)
    return TRUE;

  return bg_loop_shutdown_full (self, BG_SHUTDOWN_DRAIN, timeout_msec, error);
}
