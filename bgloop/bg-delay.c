/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-delay-private.h>

/* A heap with four children a node: half as deep as a binary one, and the
 * children of a node are in two cache lines. Its entries carry what they are
 * compared by, and nothing points back to them: what is cancelled stays until it
 * comes to the top, or until there is more of it than of the rest.
 *
 * The delays themselves are in blocks that never move. The number of a delay is
 * its index and how often its place has been used; a place that has been used as
 * often as can be counted is not used again. */
#define CHILDREN        4
#define BLOCK           1024
#define INDEX_BITS      28
#define LAST_GENERATION ((G_GUINT64_CONSTANT (1) << (64 - INDEX_BITS)) - 1)

enum
{
  FREE,
  WAITING,   /* in the heap */
  DUE,       /* taken out of it, not started */
  STARTED,   /* by bg_delay_start() */
  CANCELLED, /* in the heap or due, and never to start */
};

struct _BgDelayEntry
{
  gint64 due; /* monotonic microseconds */
  guint64 order;
  BgDelay *delay;
};

static gboolean
is_before (const BgDelayEntry *a, const BgDelayEntry *b)
{
  return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void
sift_up (BgDelays *self, guint position, BgDelayEntry entry)
{
  while (position > 0)
    {
      guint parent = (position - 1) / CHILDREN;

      if (!is_before (&entry, &self->heap[parent]))
        break;

      self->heap[position] = self->heap[parent];
      position = parent;
    }

  self->heap[position] = entry;
}

static void
sift_down (BgDelays *self, guint position, BgDelayEntry entry)
{
  for (;;)
    {
      guint first = position * CHILDREN + 1;
      guint least = first;

      if (first >= self->n)
        break;
      for (guint child = first + 1; child < MIN (first + CHILDREN, self->n); child++)
        {
          if (is_before (&self->heap[child], &self->heap[least]))
            least = child;
        }
      if (!is_before (&self->heap[least], &entry))
        break;

      self->heap[position] = self->heap[least];
      position = least;
    }

  self->heap[position] = entry;
}

static BgDelay *
pop (BgDelays *self)
{
  BgDelay *delay = self->heap[0].delay;

  self->n--;
  if (self->n > 0)
    sift_down (self, 0, self->heap[self->n]);
  return delay;
}

static gboolean
is_cancelled (BgDelay *delay)
{
  return atomic_load_explicit (&delay->state, memory_order_relaxed) == CANCELLED;
}

/* Takes the cancelled ones out: those on top, or all if they are many. */
static void
purge (BgDelays *self)
{
  while (self->n > 0 && is_cancelled (self->heap[0].delay))
    {
      self->n_cancelled--;
      bg_delays_give_back (self, pop (self));
    }

  if (self->n_cancelled > self->n / 2)
    {
      guint kept = 0;

      for (guint i = 0; i < self->n; i++)
        {
          if (is_cancelled (self->heap[i].delay))
            bg_delays_give_back (self, self->heap[i].delay);
          else
            self->heap[kept++] = self->heap[i];
        }

      self->n = kept;
      self->n_cancelled = 0;
      for (guint i = kept; i > 0; i--)
        sift_down (self, i - 1, self->heap[i - 1]);
    }
}

/* A free place, under a number that it never had. */
static BgDelay *
get_free (BgDelays *self)
{
  BgDelay *delay = self->free;
  guint block = self->n_delays / BLOCK;

  if (delay != NULL)
    {
      self->free = delay->next;
      return delay;
    }

  if (self->n_delays >= (1u << INDEX_BITS))
    g_error ("More than %u pieces of delayed work", 1u << INDEX_BITS);

  if (self->n_delays % BLOCK == 0)
    {
      self->blocks = g_renew (BgDelay *, self->blocks, block + 1);
      self->blocks[block] = g_new0 (BgDelay, BLOCK);
    }

  delay = &self->blocks[block][self->n_delays % BLOCK];
  delay->index = self->n_delays++;
  delay->generation = 1;
  return delay;
}

guint64
bg_delays_add (BgDelays *self, gint64 due, gpointer func, gpointer data, GDestroyNotify destroy)
{
  BgDelay *delay = get_free (self);
  BgDelayEntry entry = { due, ++self->last_order, delay };

  delay->func = func;
  delay->data = data;
  delay->destroy = destroy;
  atomic_store_explicit (&delay->state, WAITING, memory_order_relaxed);

  if (self->n == self->allocated)
    {
      self->allocated = MAX (16, self->allocated * 2);
      self->heap = g_renew (BgDelayEntry, self->heap, self->allocated);
    }
  sift_up (self, self->n++, entry);
  return delay->generation << INDEX_BITS | delay->index;
}

/* When the first is due, or -1 if there is none. */
gint64
bg_delays_get_next_due (BgDelays *self)
{
  return self->n > 0 ? self->heap[0].due : -1;
}

/* Takes the first, if there is one; to be given back when it has had its
 * outcome. */
BgDelay *
bg_delays_take (BgDelays *self)
{
  BgDelay *delay;

  if (self->n == 0)
    return NULL;

  delay = pop (self);
  atomic_store_explicit (&delay->state, DUE, memory_order_relaxed);
  purge (self);
  return delay;
}

void
bg_delays_give_back (BgDelays *self, BgDelay *delay)
{
  atomic_store_explicit (&delay->state, FREE, memory_order_relaxed);
  if (delay->generation == LAST_GENERATION)
    return;

  delay->generation++;
  delay->next = self->free;
  self->free = delay;
}

/* Sees to it that the delay of this number never starts. Its data is the
 * caller's then; one that is due already is given back as if it had started.
 * FALSE if it has started, or is not there. */
gboolean
bg_delays_cancel (BgDelays *self, guint64 id, gpointer *data, GDestroyNotify *destroy)
{
  guint index = id & ((1u << INDEX_BITS) - 1);
  int due = DUE;
  BgDelay *delay;

  if (index >= self->n_delays)
    return FALSE;

  delay = &self->blocks[index / BLOCK][index % BLOCK];
  if (delay->generation != id >> INDEX_BITS)
    return FALSE;

  *data = delay->data;
  *destroy = delay->destroy;
  if (atomic_load_explicit (&delay->state, memory_order_relaxed) != WAITING)
    return atomic_compare_exchange_strong (&delay->state, &due, CANCELLED);

  atomic_store_explicit (&delay->state, CANCELLED, memory_order_relaxed);
  self->n_cancelled++;
  purge (self);
  return TRUE;
}

/* On the thread that runs what is due, without the lock. FALSE if it was
 * cancelled. */
gboolean
bg_delay_start (BgDelay *self)
{
  int due = DUE;

  return atomic_compare_exchange_strong (&self->state, &due, STARTED);
}

void
bg_delays_clear (BgDelays *self)
{
  for (guint i = 0; i * BLOCK < self->n_delays; i++)
    g_free (self->blocks[i]);
  g_clear_pointer (&self->blocks, g_free);
  g_clear_pointer (&self->heap, g_free);
}
