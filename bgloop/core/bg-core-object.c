/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-core-private.h>

/* The object that people hold, which may go while others are about to refer to it. Any
 * thread, under the core's lock. */

void
bg_core_set_object (BgCore *self, gpointer object)
{
  bg_core_lock (self);
  self->ownership.object = object;
  bg_core_unlock (self);
}

/* A reference to the object of a core, %NULL if it is gone.
 *
 * g_object_ref() may run toggle notifies, other people's code, and so is not called
 * under the lock. Instead the object is told of the claim, and if it is just being
 * disposed of refers to itself in the claimant's place. Then the claimant's is the last
 * reference that anybody gets in this way. */
gpointer
bg_core_dup_object (BgCore *self)
{
  gpointer object;
  gboolean granted;

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
  granted = self->ownership.n_granted > 0;
  if (granted)
    self->ownership.n_granted--;
  bg_core_unlock (self);

  if (granted)
    {
      bg_glib_wait_for_disposal (object);
      g_object_unref (object);
    }
  return object;
}

/* It is being disposed of. Returns how many references to itself it has to take, for those
 * who have claimed one. */
guint
bg_core_forget_object (BgCore *self)
{
  guint n;

  bg_core_lock (self);
  n = self->ownership.n_claims - self->ownership.n_granted;
  self->ownership.n_granted += n;
  self->ownership.object = NULL;
  bg_core_unlock (self);

  return n;
}
