/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

#include <bgloop/base/bg-fork-private.h>

G_BEGIN_DECLS

/* All loops of the process, oldest first, under its lock. */
typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;

  /* under lock */
  GQueue entries; /* of BgRegistration */
  guint64 last_serial;
  guint n_freeing; /* that are not in the list any more, but not gone */
  guint n_waiting; /* for one to be freed */
  GCond freed;
} BgRegistry;

/* A loop among them. */
typedef struct
{
  GList link;     /* under the registry's lock; its data is what was registered */
  guint64 serial; /* immutable: a loop made later has a higher one */
  gint64 made_at; /* immutable: monotonic microseconds */
} BgRegistration;

BgRegistry *bg_registry_get (void);
void bg_registration_add (BgRegistration *self, gpointer data);
void bg_registration_begin_removal (BgRegistration *self);
void bg_registration_end_removal (void);

G_END_DECLS
