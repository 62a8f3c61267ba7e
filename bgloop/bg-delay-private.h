/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgDelay BgDelay;
typedef struct _BgDelays BgDelays;

/* A piece of work that is to run later. */
struct _BgDelay
{
  guint64 id;
  gint64 due; /* monotonic microseconds */
  guint position;
  gpointer slot; /* (nullable) (unowned) where it waits since it was due */
  gpointer func;
  gpointer data;
  GDestroyNotify destroy;
};

/* Work to be run later, by due time and, where that is the same, in the order
 * in which it came. Whoever uses it holds the lock that guards it. */
struct _BgDelays
{
  BgDelay **heap; /* (owned) */
  guint n;
  guint allocated;
  GHashTable *by_id; /* (owned) (nullable) also those that were taken as due */
  guint64 last_id;
};

BgDelay *
bg_delays_add (BgDelays *self, gint64 due, gpointer func, gpointer data, GDestroyNotify destroy);
gint64 bg_delays_get_next_due (BgDelays *self);
BgDelay *bg_delays_take (BgDelays *self);
BgDelay *bg_delays_take_by_id (BgDelays *self, guint64 id);
void bg_delays_clear (BgDelays *self);

G_END_DECLS
