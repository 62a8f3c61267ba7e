/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgDelay BgDelay;
typedef struct _BgDelays BgDelays;
typedef struct _BgDelayBlock BgDelayBlock;
typedef struct _BgDelayEntry BgDelayEntry;
typedef struct _BgDelaySlot BgDelaySlot;

/* A piece of work that is to run later. Its place is used again, under another
 * id. */
struct _BgDelay
{
  _Atomic int state;
  guint index;
  guint64 generation;
  BgDelay *next; /* (unowned) (nullable) of those that are free */
  gpointer func;
  gpointer data;
  GDestroyNotify destroy;
};

/* Work to be run later, by due time and, where that is the same, in the order in
 * which it came. Whoever uses it holds the lock that guards it, but for
 * bg_delay_start(). */
struct _BgDelays
{
  BgDelayEntry *heap; /* (owned) its first is never a cancelled one */
  guint n;
  guint allocated;
  guint n_cancelled; /* that are still in the heap */
  guint64 last_order;

  BgDelaySlot *slots; /* (owned) of the blocks that the delays are in */
  guint n_slots;
  guint slots_allocated;
  guint free_slot; /* one more than the number of the first without a block; 0: none */
  guint n_blocks;
  BgDelayBlock *room;  /* (unowned) (nullable) the first with places both free and in use */
  BgDelayBlock *spare; /* (unowned) (nullable) one with no place in use */
};

guint64 bg_delays_add (BgDelays *self,
                       gint64 due,
                       gpointer func,
                       gpointer data,
                       GDestroyNotify destroy);
gint64 bg_delays_get_next_due (BgDelays *self);
BgDelay *bg_delays_take (BgDelays *self);
void bg_delays_give_back (BgDelays *self, BgDelay *delay);
gboolean bg_delays_is_due (BgDelays *self, guint64 id);
gboolean bg_delays_cancel (BgDelays *self, guint64 id, gpointer *data, GDestroyNotify *destroy);
void bg_delays_clear (BgDelays *self);

/* How many wait to be due. */
static inline guint
bg_delays_get_n (BgDelays *self)
{
  return self->n - self->n_cancelled;
}

gboolean bg_delay_start (BgDelay *self);

G_END_DECLS
