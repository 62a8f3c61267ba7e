/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-delay-private.h>

/* A heap with four children a node: half as deep as a binary one, and the
 * children of a node are in one cache line. */
#define CHILDREN 4

#define NOT_IN_HEAP G_MAXUINT

static gboolean
is_before (const BgDelay *a, const BgDelay *b)
{
  return a->due != b->due ? a->due < b->due : a->id < b->id;
}

static void
put (BgDelays *self, guint position, BgDelay *delay)
{
  self->heap[position] = delay;
  delay->position = position;
}

static void
sift_up (BgDelays *self, guint position, BgDelay *delay)
{
  while (position > 0)
    {
      guint parent = (position - 1) / CHILDREN;

      if (!is_before (delay, self->heap[parent]))
        break;

      put (self, position, self->heap[parent]);
      position = parent;
    }

  put (self, position, delay);
}

static void
sift_down (BgDelays *self, guint position, BgDelay *delay)
{
  for (;;)
    {
      guint first = position * CHILDREN + 1;
      guint least = first;

      if (first >= self->n)
        break;
      for (guint child = first + 1; child < MIN (first + CHILDREN, self->n); child++)
        {
          if (is_before (self->heap[child], self->heap[least]))
            least = child;
        }
      if (!is_before (self->heap[least], delay))
        break;

      put (self, position, self->heap[least]);
      position = least;
    }

  put (self, position, delay);
}

static void
remove_from_heap (BgDelays *self, BgDelay *delay)
{
  guint position = delay->position;
  BgDelay *last = self->heap[--self->n];

  delay->position = NOT_IN_HEAP;
  if (last == delay)
    return;

  if (position > 0 && is_before (last, self->heap[(position - 1) / CHILDREN]))
    sift_up (self, position, last);
  else
    sift_down (self, position, last);
}

BgDelay *
bg_delays_add (BgDelays *self, gint64 due, gpointer func, gpointer data, GDestroyNotify destroy)
{
  BgDelay *delay = g_new (BgDelay, 1);

  delay->id = ++self->last_id;
  delay->due = due;
  delay->slot = NULL;
  delay->func = func;
  delay->data = data;
  delay->destroy = destroy;

  if (self->by_id == NULL)
    self->by_id = g_hash_table_new (g_int64_hash, g_int64_equal);
  g_hash_table_add (self->by_id, &delay->id);

  if (self->n == self->allocated)
    {
      self->allocated = MAX (16, self->allocated * 2);
      self->heap = g_renew (BgDelay *, self->heap, self->allocated);
    }
  sift_up (self, self->n++, delay);
  return delay;
}

/* When the first is due, or -1 if there is none. */
gint64
bg_delays_get_next_due (BgDelays *self)
{
  return self->n > 0 ? self->heap[0]->due : -1;
}

/* Takes the first out of the heap; its id goes on being known. */
BgDelay *
bg_delays_take (BgDelays *self)
{
  BgDelay *delay;

  if (self->n == 0)
    return NULL;

  delay = self->heap[0];
  remove_from_heap (self, delay);
  return delay;
}

/* Takes one out that has not been forgotten yet: the caller's to free. */
BgDelay *
bg_delays_take_by_id (BgDelays *self, guint64 id)
{
  BgDelay *delay = NULL;

  if (self->by_id != NULL)
    delay = g_hash_table_lookup (self->by_id, &id);
  if (delay == NULL)
    return NULL;

  g_hash_table_remove (self->by_id, &id);
  if (delay->position != NOT_IN_HEAP)
    remove_from_heap (self, delay);
  return delay;
}

void
bg_delays_clear (BgDelays *self)
{
  g_clear_pointer (&self->heap, g_free);
  g_clear_pointer (&self->by_id, g_hash_table_unref);
}
