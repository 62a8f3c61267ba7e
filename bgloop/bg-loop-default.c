/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/testing/bg-test-private.h>

/* The loop that all share, and the one that the caller is on. Any thread. The default loop is known
 * by its core, without a reference to the object: that takes itself out when it is disposed of.
 * Which one it is, is under a lock of this file's own. A loop is started under that, but its end is
 * not waited for under it. */

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;  /* before all others; a loop may be started under it */
  BgCore *core; /* (owned) (nullable) atomic, written under it */
} BgDefault;

static BgDefault *
get_default (void)
{
  static gpointer shared;

  return bg_fork_local (&shared, sizeof (BgDefault));
}

/* With the lock held. The reference that the default was is the caller's. */
static BgCore *
forget (BgDefault *shared)
{
  BgCore *core = shared->core;

  g_atomic_pointer_set (&shared->core, NULL);
  return core;
}

/* In dispose, when nobody has a reference any more. */
void
bg_loop_unpublish (BgCore *core)
{
  BgDefault *shared = get_default ();
  BgCore *forgotten = NULL;

  if (g_atomic_pointer_get (&shared->core) != core)
    return;

  bg_mutex_lock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  if (shared->core == core)
    forgotten = forget (shared);
  bg_mutex_unlock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  g_clear_pointer (&forgotten, bg_core_unref);
}

/* For the test kit: the core of the default loop, to be compared with others only. */
gpointer
bg_loop_peek_default (void)
{
  return g_atomic_pointer_get (&get_default ()->core);
}

static BgCore *
ref_default (BgDefault *shared)
{
  BgCore *core;

  bg_mutex_lock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  core = shared->core;
  if (core != NULL)
    bg_core_ref (core);
  bg_mutex_unlock (&shared->lock, BG_LOCK_DEFAULT_LOOP);

  return core;
}

/* The loop of the core, if it takes work. */
static BgLoop *
dup_running (BgCore *core)
{
  g_autoptr (BgLoop) loop = NULL;

  if (core == NULL || bg_core_get_state (core) != BG_LOOP_RUNNING)
    return NULL;

  loop = bg_loop_dup_from_core (core);
  if (loop != NULL && bg_core_get_state (core) != BG_LOOP_RUNNING)
    g_clear_object (&loop);
  return g_steal_pointer (&loop);
}

/* Starts a loop to be the default one in place of @core (nullable); NULL without an error
 * if another one is by now. Starting one runs nobody's code. */
static BgLoop *
replace_default (BgDefault *shared, BgCore *core, GError **error)
{
  BgLoop *self = NULL;
  BgCore *forgotten = NULL;

  bg_mutex_lock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  if (shared->core == core)
    {
      self = g_initable_new (BG_TYPE_LOOP, NULL, error, "name", "default", NULL);
      forgotten = forget (shared);
      if (self != NULL)
        g_atomic_pointer_set (&shared->core, bg_core_ref (self->core));
    }
  bg_mutex_unlock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  g_clear_pointer (&forgotten, bg_core_unref);

  return self;
}

/**
 * bg_loop_dup_default:
 * @error: return location for an error, or %NULL
 *
 * A reference to the process's shared loop, which is started if there is none.
 *
 * ```c
 * g_autoptr (BgLoop) shared = bg_loop_dup_default (error);
 *
 * if (shared != NULL)
 *   bg_loop_flush (shared, -1, NULL, error);
 * ```
 *
 * When the last reference goes, the loop ends. Whoever calls this in the very moment in which
 * another thread drops that one may still get the loop: it runs for as long as it is referred to,
 * but it is not the default one any more, and [func@Bg.Loop.dup_current] does not know it. After
 * [func@Bg.Loop.reset_default], a shutdown, or in a forked child, the next call
 * starts a fresh one. Any thread may call it; it does not wait for work.
 *
 * Fails only if no thread, or no descriptor, can be had.
 *
 * Returns: (transfer full): the default loop
 *
 * Since: 1.0
 */
BgLoop *
bg_loop_dup_default (GError **error)
{
  BgDefault *shared = get_default ();
  g_autoptr (GError) local = NULL;
  BgLoop *self = NULL;

  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  while (self == NULL && local == NULL)
    {
      BgCore *core = ref_default (shared);

      self = dup_running (core);
      if (self == NULL)
        self = replace_default (shared, core, &local);
      g_clear_pointer (&core, bg_core_unref);
    }

  if (self == NULL)
    g_propagate_error (error, g_steal_pointer (&local));
  return self;
}

/**
 * bg_loop_dup_current:
 *
 * The loop whose thread the calling one is.
 *
 * So it is from the thread's first function to its last thread-local destructor.
 * Does not block; any thread may call it.
 *
 * Returns: (transfer full) (nullable): the loop, or %NULL on a thread that is no
 *   loop's, in a forked child, and when the last reference to the loop has gone
 *
 * Since: 1.0
 */
BgLoop *
bg_loop_dup_current (void)
{
  BgCore *core = bg_core_get_current ();

  if (core == NULL || bg_core_is_forked (core))
    return NULL;

  return bg_loop_dup_from_core (core);
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
 * Fails as [method@Bg.Loop.shutdown_full] does; where nothing has changed then, this loop
 * is still the default one.
 *
 * Returns: %TRUE if there is none any more
 *
 * Since: 1.0
 */
gboolean
bg_loop_reset_default (int timeout_msec, GError **error)
{
  BgDefault *shared = get_default ();
  g_autoptr (BgLoop) self = NULL;
  BgCore *core, *forgotten = NULL;
  gboolean ok;

  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  core = ref_default (shared);
  if (core == NULL)
    return TRUE;

  self = bg_loop_dup_from_core (core);
  ok = self == NULL || bg_loop_shutdown_full (self, BG_SHUTDOWN_DRAIN, timeout_msec, NULL, error);

  /* From when it was asked to stop, a fresh one has been made for whoever asked. */
  bg_mutex_lock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  if (shared->core == core && (self == NULL || bg_core_get_state (core) != BG_LOOP_RUNNING))
    forgotten = forget (shared);
  bg_mutex_unlock (&shared->lock, BG_LOCK_DEFAULT_LOOP);
  g_clear_pointer (&forgotten, bg_core_unref);
  bg_core_unref (core);

  return ok;
}
