/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-delay-private.h>
#include <bgloop/base/bg-schedule-private.h>

/* A heap with four children a node: half as deep as a binary one, and the
 * children of a node are in two cache lines. Its entries carry what they are
 * compared by, and nothing points back to them: what is cancelled stays until it
 * comes to the top, or until there is more of it than of the rest.
 *
 * The delays themselves are in blocks, so that they never move. The id of a delay
 * is its index and its generation. A block counts how often any of its places has
 * been used, and that is the generation of the next use. When no place is in use the
 * block is freed, but for one that is kept in case; its slot keeps the count, from
 * which the next block there goes on. So no id is ever given twice. A slot whose
 * count is at its end is not used again.
 *
 * Any thread, with the lock that guards the delays: a loop's are under its core's. Only
 * bg_delay_start() needs none.
 *
 * Heap and blocks are in one file, though that makes it longer than others: what is cancelled in a
 * block stays in the heap, which gives its place back later, and nobody else knows of either. */
#define CHILDREN        4
#define BLOCK           256
#define FIRST_ALLOCATED 16
#define KEPT_ALLOCATED  1024
#define INDEX_BITS      28
#define LAST_GENERATION ((G_GUINT64_CONSTANT (1) << (64 - INDEX_BITS)) - 1)

enum
{
  FREE,
  WAITING,   /* in the heap */
  DUE,       /* taken out of it, not started */
  STARTED,   /* by bg_delay_start() */
  CANCELLED, /* in the heap or due, and never to start; its data is gone */
};

struct _BgDelayEntry
{
  gint64 due; /* monotonic microseconds */
  guint64 order;
  BgDelay *delay;
};

struct _BgDelayBlock
{
  guint number; /* of its slot */
  guint n_used;
  guint n_made; /* the places from there on have not been used since the block was empty */
  guint64 last_generation;
  BgDelay *free;          /* (unowned) (nullable) */
  BgDelayBlock *previous; /* (unowned) (nullable) of those with room */
  BgDelayBlock *next;     /* (unowned) (nullable) */
  BgDelay places[BLOCK];
};

/* Where there is or was a block. */
struct _BgDelaySlot
{
  BgDelayBlock *block; /* (owned) (nullable) */

  /* while there is none */
  guint64 last_generation;
  guint next_free; /* as in BgDelays */
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

/* Only once three quarters are unused, so that it pays. */
static void
shrink (BgDelays *self)
{
  guint allocated = self->allocated;

  while (allocated > KEPT_ALLOCATED && self->n < allocated / 4)
    allocated /= 2;

  if (allocated != self->allocated)
    {
      self->heap = g_renew (BgDelayEntry, self->heap, allocated);
      self->allocated = allocated;
    }
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

  shrink (self);
}

/* Places */

static gboolean
has_room (BgDelayBlock *block)
{
  return block->n_used < BLOCK && block->last_generation < LAST_GENERATION;
}

static void
add_room (BgDelays *self, BgDelayBlock *block)
{
  block->previous = NULL;
  block->next = self->room;
  if (block->next != NULL)
    block->next->previous = block;
  self->room = block;
}

static void
remove_room (BgDelays *self, BgDelayBlock *block)
{
  if (block->previous != NULL)
    block->previous->next = block->next;
  else
    self->room = block->next;
  if (block->next != NULL)
    block->next->previous = block->previous;
}

/* The number of a slot without a block. */
static guint
get_free_slot (BgDelays *self)
{
  guint number = self->n_slots;

  if (self->free_slot != 0)
    {
      number = self->free_slot - 1;
      self->free_slot = self->slots[number].next_free;
      return number;
    }

  if (number >= (1u << INDEX_BITS) / BLOCK)
    g_error ("More than %u pieces of delayed work", 1u << INDEX_BITS);

  /* It grows so fast that what is allocated after many blocks, and would keep the C
   * library from giving them back in turn, is large enough to be apart from them. */
  if (number == self->slots_allocated)
    {
      self->slots_allocated = MAX (1, self->slots_allocated) * 16;
      self->slots = g_renew (BgDelaySlot, self->slots, self->slots_allocated);
    }
  self->slots[number].last_generation = 0;
  self->n_slots++;
  return number;
}

static BgDelayBlock *
new_block (BgDelays *self)
{
  BgDelayBlock *block = g_new0 (BgDelayBlock, 1);
  BgDelaySlot *slot;

  block->number = get_free_slot (self);
  slot = &self->slots[block->number];
  slot->block = block;
  block->last_generation = slot->last_generation;
  self->n_blocks++;
  return block;
}

static void
free_block (BgDelays *self, BgDelayBlock *block)
{
  BgDelaySlot *slot = &self->slots[block->number];

  slot->block = NULL;
  slot->last_generation = block->last_generation;
  if (block->last_generation < LAST_GENERATION)
    {
      slot->next_free = self->free_slot;
      self->free_slot = block->number + 1;
    }
  self->n_blocks--;
  g_free (block);
}

static BgDelayBlock *
get_room (BgDelays *self)
{
  BgDelayBlock *block = g_steal_pointer (&self->spare);

  if (block == NULL)
    block = new_block (self);
  block->n_used = 0;
  block->n_made = 0;
  block->free = NULL;
  add_room (self, block);
  return block;
}

/* A free place, under an id that there never was. */
static BgDelay *
take_place (BgDelays *self)
{
  BgDelayBlock *block = self->room != NULL ? self->room : get_room (self);
  BgDelay *delay = block->free;

  if (delay != NULL)
    {
      block->free = delay->next;
    }
  else
    {
      delay = &block->places[block->n_made];
      delay->index = block->number * BLOCK + block->n_made++;
    }

  delay->generation = ++block->last_generation;
  block->n_used++;
  if (!has_room (block))
    remove_room (self, block);
  return delay;
}

/* The block has no place in use. One such is kept, so that what comes and goes does
 * not allocate each time: the first, since what is allocated later had better be free
 * for the C library to give it back in turn. */
static void
end_block (BgDelays *self, BgDelayBlock *block)
{
  BgDelayBlock *kept = self->spare;

  if (kept != NULL && kept->number < block->number)
    {
      free_block (self, block);
      return;
    }

  self->spare = block;
  if (kept != NULL)
    free_block (self, kept);
}

static void
give_back_place (BgDelays *self, BgDelay *delay)
{
  BgDelayBlock *block = self->slots[delay->index / BLOCK].block;
  gboolean had_room = has_room (block);

  delay->next = block->free;
  block->free = delay;
  block->n_used--;

  if (block->n_used == 0)
    {
      if (had_room)
        remove_room (self, block);
      if (has_room (block))
        end_block (self, block);
      else
        free_block (self, block);
    }
  else if (!had_room && has_room (block))
    {
      add_room (self, block);
    }
}

/* The delay of this id, if its place has not been used again. */
static BgDelay *
find (BgDelays *self, guint64 id)
{
  guint index = id & ((1u << INDEX_BITS) - 1);
  BgDelayBlock *block = index / BLOCK < self->n_slots ? self->slots[index / BLOCK].block : NULL;
  BgDelay *delay;

  if (block == NULL)
    return NULL;

  delay = &block->places[index % BLOCK];
  return delay->generation == id >> INDEX_BITS ? delay : NULL;
}

/* Delays */

guint64
bg_delays_add (BgDelays *self, gint64 due, gpointer func, gpointer data, GDestroyNotify destroy)
{
  BgDelay *delay = take_place (self);
  BgDelayEntry entry = { due, ++self->last_order, delay };

  delay->func = func;
  delay->data = data;
  delay->destroy = destroy;
  atomic_store_explicit (&delay->state, WAITING, memory_order_relaxed);

  if (self->n == self->allocated)
    {
      self->allocated = MAX (FIRST_ALLOCATED, self->allocated * 2);
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
  give_back_place (self, delay);
}

/* Whether the delay of this id was taken since it has become due. */
gboolean
bg_delays_is_due (BgDelays *self, guint64 id)
{
  BgDelay *delay = find (self, id);

  return delay != NULL && atomic_load_explicit (&delay->state, memory_order_relaxed) == DUE;
}

/* Sees to it that the delay of this id never starts. Its data is the
 * caller's then; one that is due already is given back as if it had started.
 * FALSE if it has started, or is not there. */
gboolean
bg_delays_cancel (BgDelays *self, guint64 id, gpointer *data, GDestroyNotify *destroy)
{
  BgDelay *delay = find (self, id);
  int due = DUE;

  if (delay == NULL)
    return FALSE;

  *data = delay->data;
  *destroy = delay->destroy;
  if (atomic_load_explicit (&delay->state, memory_order_relaxed) != WAITING)
    {
      bg_schedule_point (BG_POINT_DELAY_CANCELS);
      return atomic_compare_exchange_strong (&delay->state, &due, CANCELLED);
    }

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

  bg_schedule_point (BG_POINT_DELAY_STARTS);
  return atomic_compare_exchange_strong (&self->state, &due, STARTED);
}

void
bg_delays_clear (BgDelays *self)
{
  for (guint i = 0; i < self->n_slots; i++)
    g_free (self->slots[i].block);
  g_clear_pointer (&self->slots, g_free);
  g_clear_pointer (&self->heap, g_free);
}
