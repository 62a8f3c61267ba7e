/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-registry-private.h>

/* Which loops there are. Any thread; the lock is taken before a loop's own. */

BgRegistry *
bg_registry_get (void)
{
  static gpointer registry;

  return bg_fork_local (&registry, sizeof (BgRegistry));
}

void
bg_registration_add (BgRegistration *self, gpointer data)
{
  BgRegistry *registry = bg_registry_get ();

  self->made_at = g_get_monotonic_time ();
  self->link.data = data;
  bg_mutex_lock (&registry->lock, BG_LOCK_REGISTRY);
  self->serial = ++registry->last_serial;
  g_queue_push_tail_link (&registry->entries, &self->link);
  bg_mutex_unlock (&registry->lock, BG_LOCK_REGISTRY);
}

/* Before the first thing of what was registered is freed. */
void
bg_registration_begin_removal (BgRegistration *self)
{
  BgRegistry *registry = bg_registry_get ();

  bg_mutex_lock (&registry->lock, BG_LOCK_REGISTRY);
  g_queue_unlink (&registry->entries, &self->link);
  registry->n_freeing++;
  bg_mutex_unlock (&registry->lock, BG_LOCK_REGISTRY);
}

/* After the last. */
void
bg_registration_end_removal (void)
{
  BgRegistry *registry = bg_registry_get ();

  bg_mutex_lock (&registry->lock, BG_LOCK_REGISTRY);
  registry->n_freeing--;
  if (registry->n_waiting > 0)
    g_cond_broadcast (&registry->freed);
  bg_mutex_unlock (&registry->lock, BG_LOCK_REGISTRY);
}
