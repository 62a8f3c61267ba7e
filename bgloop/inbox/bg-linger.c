/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-macros-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

/* When to stay awake for more work, and what is known for that: what the posters tell is
 * atomic, what the server has found out is its thread's. */

/* For so many looks, some microseconds, the server lets records gather. */
#define COALESCE_POLLS 1000

/* Sets how long the server stays awake at most, in microseconds; returns what it was. */
guint
bg_linger_set_usec (BgInbox *self, guint usec)
{
  return atomic_exchange (&self->linger.usec, usec);
}

/* The processor of whoever last found the inbox empty; -1: unknown. */
int
bg_linger_get_poster (BgInbox *self)
{
  return atomic_load_explicit (&self->linger.poster_processor, memory_order_relaxed);
}

/* What comes next comes from @processor, whoever has appended last. */
void
bg_linger_set_poster (BgInbox *self, int processor)
{
  atomic_store_explicit (&self->linger.poster_processor, processor, memory_order_relaxed);
}

/* After a sleep: how long would the loop have had to stay awake instead? */
void
bg_linger_learn (BgInbox *self)
{
  gint64 slept = self->woken_at - self->history.spin.began;

  self->woken_at = 0;
  if (atomic_load_explicit (&self->linger.poster_slept, memory_order_relaxed))
    slept -= BG_WAKE_USEC;
  bg_spin_learn (&self->history.spin, slept);
}

/* Whether whoever posts can do so while this thread, the server's, spins. */
static gboolean
is_fed_from_elsewhere (BgInbox *self)
{
  int processor = bg_spin_get_processor ();

  atomic_store_explicit (&self->linger.server_processor, processor, memory_order_relaxed);
  return processor == -1
         || processor
                != atomic_load_explicit (&self->linger.poster_processor, memory_order_relaxed);
}

/* Whether the server can work while this thread spins. */
gboolean
bg_linger_is_served_elsewhere (BgInbox *self)
{
  int processor = bg_spin_get_processor ();

  return processor == -1
         || processor
                != atomic_load_explicit (&self->linger.server_processor, memory_order_relaxed);
}

/* Lets more records gather, if the last batch was small and nobody waits. */
void
bg_linger_coalesce (BgInbox *self)
{
  if (self->history.batch_size >= BG_LINGER_SMALL_BATCH || !is_fed_from_elsewhere (self))
    return;

  for (guint i = 0; i < COALESCE_POLLS; i++)
    {
      if (atomic_load_explicit (&self->linger.awaited, memory_order_relaxed)
          || atomic_load_explicit (&self->linger.interrupted, memory_order_relaxed))
        return;
      BG_CPU_RELAX ();
    }
}

static gboolean
has_something_to_do (gpointer data)
{
  BgInbox *self = data;

  return atomic_load_explicit (&self->urgent, memory_order_relaxed) != G_MAXINT
         || atomic_load_explicit (&self->linger.interrupted, memory_order_relaxed);
}

/* How long the server may stay awake, in microseconds: not beyond what is due. */
static guint
get_linger (BgInbox *self)
{
  guint linger = atomic_load_explicit (&self->linger.usec, memory_order_relaxed);
  gint64 due = bg_linger_get_due (self);

  if (linger > 0 && due != -1)
    linger = bg_spin_get_limit (linger, due);
  return linger;
}

/* Everything is done: stays awake for a moment, for what may come next. TRUE if
 * something has come. Where the poster shares this processor, to let it run helps only if it
 * has just been answered, and so can go on at once. */
gboolean
bg_linger_for_more (BgInbox *self)
{
  guint linger = get_linger (self);

  if (linger == 0 || atomic_load_explicit (&self->linger.n_expected, memory_order_relaxed) == 0
      || atomic_load_explicit (&self->linger.n_pending, memory_order_relaxed) > 0)
    return FALSE;

  bg_schedule_point (BG_POINT_LINGER_BEGINS);
  if (is_fed_from_elsewhere (self))
    return bg_spin (&self->history.spin, linger, has_something_to_do, self);

  return self->history.was_awaited
         && bg_spin_yield (&self->history.spin, has_something_to_do, self);
}

/* Somebody waits for what was appended. */
void
bg_linger_set_awaited (BgInbox *self)
{
  if (atomic_load_explicit (&self->linger.awaited, memory_order_relaxed))
    return;

  bg_schedule_point (BG_POINT_LINGER_AWAITS);
  atomic_store_explicit (&self->linger.awaited, TRUE, memory_order_relaxed);
}

/* Makes sure that the serving thread does not linger, for there is something
 * for it to do that is no record. To be called when that is in the context: whoever
 * stops lingering takes the context's lock, which is still needed to put it there. */
void
bg_linger_interrupt (BgInbox *self)
{
  bg_schedule_point (BG_POINT_LINGER_INTERRUPTS);
  atomic_store_explicit (&self->linger.interrupted, TRUE, memory_order_relaxed);
}

/* Whoever is to send the next record has just been woken, and needs a while. */
void
bg_linger_note_wakeup (BgInbox *self)
{
  atomic_store_explicit (&self->linger.poster_slept, TRUE, memory_order_relaxed);
}

/* Records come from the processor that this thread is on. */
void
bg_linger_note_poster (BgInbox *self)
{
  atomic_store_explicit (&self->linger.poster_processor, bg_spin_get_processor (),
                         memory_order_relaxed);
}
