/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-core-private.h>

/* The object that people hold, which may go while others are about to refer to it. Any
 * thread, under the core's lock.
 *
 * GObject disposes of an object once, as its last reference goes, and frees it after that
 * without asking again if whoever has taken it meanwhile has given it back. So an object
 * that somebody takes while it is disposed of is kept by the core, with a reference of its
 * own, until that is the last one: then it goes anew. */

/* The loop looks whether it keeps the last one after 1, 2, 4… and at most so many
 * milliseconds. */
#define MAX_RELEASE_MSEC 1024

void
bg_core_set_object (BgCore *self, gpointer object)
{
  bg_core_lock (self);
  self->ownership.object = object;
  bg_core_unlock (self);
}

/* With the lock held. Whoever is about to refer to it has to be waited for. The reference that
 * was kept, if there is one, is the caller's. */
static gpointer
stop_keeping (BgCore *self)
{
  if (!self->ownership.keeps || self->ownership.n_claims > 0)
    return NULL;

  atomic_store_explicit (&self->ownership.keeps, FALSE, memory_order_relaxed);
  return self->ownership.object;
}

static void
give_back (gpointer object)
{
  if (object == NULL)
    return;

  bg_glib_wait_for_disposal (object);
  g_object_unref (object);
}

/* A reference to the object of a core, %NULL if it is gone.
 *
 * g_object_ref() may run toggle notifies, other people's code, and so is not called
 * under the lock. Instead the core is told of the claim, and keeps the object if it is
 * just being disposed of. */
gpointer
bg_core_dup_object (BgCore *self)
{
  gpointer object, kept = NULL;

  bg_core_lock (self);
  object = self->ownership.object;
  if (object != NULL)
    self->ownership.n_claims++;
  bg_core_unlock (self);

  if (object == NULL)
    return NULL;
  g_object_ref (object);

  bg_core_lock (self);
  self->ownership.n_claims--;
  if (self->thread.gone)
    kept = stop_keeping (self);
  bg_core_unlock (self);
  give_back (kept);

  return object;
}

/* It is being disposed of. FALSE if somebody has it all the same, and so it is kept. */
gboolean
bg_core_forget_object (BgCore *self, gpointer object)
{
  gboolean taken, keeps;

  bg_core_lock (self);
  taken = !self->thread.gone && !bg_glib_is_referenced_once (object);
  keeps = self->ownership.object != NULL && (taken || self->ownership.n_claims > 0);
  if (!keeps)
    self->ownership.object = NULL;
  else if (!self->ownership.keeps)
    {
      /* Nobody's toggle notify runs: it is told of a second reference, and whoever disposes of
       * the object has one besides the toggle reference. */
      g_object_ref (object);
      atomic_store_explicit (&self->ownership.keeps, TRUE, memory_order_relaxed);
      self->ownership.release_msec = 0;
    }
  bg_core_unlock (self);

  if (keeps)
    g_main_context_wakeup (self->context);
  return !keeps;
}

/* Before the loop polls: gives the kept reference back if it is the last one, which ends the
 * loop and so wakes it, and looks again after a while if not. The loop's thread. */
void
bg_core_release_object (BgCore *self, int *timeout_msec)
{
  gpointer kept = NULL;
  int msec;

  bg_core_lock (self);
  if (self->ownership.keeps && bg_glib_is_referenced_once (self->ownership.object))
    kept = stop_keeping (self);
  msec = CLAMP (2 * self->ownership.release_msec, 1, MAX_RELEASE_MSEC);
  self->ownership.release_msec = msec;
  bg_core_unlock (self);

  give_back (kept);
  if (kept == NULL && (*timeout_msec < 0 || *timeout_msec > msec))
    *timeout_msec = msec;
}

/* Nobody looks after it any more: the thread is gone. Whoever is about to refer to it gives
 * back what is kept. */
void
bg_core_stop_keeping_object (BgCore *self)
{
  gpointer kept;

  bg_core_lock (self);
  kept = stop_keeping (self);
  bg_core_unlock (self);
  give_back (kept);
}
