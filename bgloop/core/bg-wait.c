/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-private.h>

/* A thread waits for a loop to do something, and the list of those who do is under the core's
 * lock. The thread sleeps, until its deadline, in base/bg-waiter.c. Who is called back instead
 * has his deadline in base/bg-expiry.c; that of a call is looked at when its turn comes. Work
 * that nobody waits for any more is taken back in bg-core-cancel.c. Whether a wait could ever
 * end is for bg-deadlock.c to find out. */

void
bg_core_add_blocked (BgCore *self, BgBlocked *blocked)
{
  blocked->listed = TRUE;
  blocked->link.data = blocked;
  g_queue_push_tail_link (&self->waits.blocked, &blocked->link);
}

/* FALSE if it is not in the list, for it has started or was closed. */
gboolean
bg_core_remove_blocked (BgCore *self, BgBlocked *blocked)
{
  if (!blocked->listed)
    return FALSE;

  blocked->listed = FALSE;
  g_queue_unlink (&self->waits.blocked, &blocked->link);
  return TRUE;
}

/* So many pieces of work were taken back. */
void
bg_core_count_withdrawn (BgCore *self, guint n)
{
  self->waits.withdrawn += n;
}

void
bg_blocked_complete (BgBlocked *blocked)
{
  bg_waiter_complete (blocked->waiter);
}

/* Whether the loop stands still and it is this thread that has it do so: then it
 * would wait for itself. Of no cost where nobody has paused the loop. */
gboolean
bg_core_is_paused_by_me (BgCore *self, GError **error)
{
  gpointer by = atomic_load_explicit (&self->pause.by, memory_order_relaxed);
  gboolean paused;

  if (G_LIKELY (by == NULL) || by != g_thread_self ())
    return FALSE;

  bg_core_lock (self);
  paused = atomic_load (&self->pause.by) == by && atomic_load (&self->state) == BG_LOOP_RUNNING;
  bg_core_unlock (self);

  if (paused)
    g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
                 "The loop \"%s\" stands still: this thread has paused it", self->name);
  return paused;
}

static void
abandon_steps (BgStep **steps, int ran)
{
  while (*steps != NULL)
    {
      BgStep *step = *steps;

      *steps = step->outer;
      step->over = TRUE;
      step->ran = ran;
      g_rc_box_release (step);
    }
}

/* With the lock held: something has ended the thread, and the pause with it. What it was ended in
 * has run; what was to come has not. */
void
bg_core_abandon_pause (BgCore *self)
{
  GThread *by = atomic_exchange (&self->pause.by, NULL);

  abandon_steps (&self->pause.current, 1);
  abandon_steps (&self->pause.step, -1);
  if (by != NULL)
    g_thread_unref (by);
}

/* Before this thread waits for the loop to do something: what it waits with, or NULL if it
 * would wait for ever. */
BgWaiter *
bg_core_begin_wait (BgCore *self, BgWait *wait, GCancellable *cancellable, GError **error)
{
  BgWaiter *waiter = bg_waiter_take (cancellable);

  if (!bg_core_is_paused_by_me (self, error)
      && bg_wait_begin (wait, &self->waits.actor, BG_WAIT_FOR_WORK, waiter, error))
    return waiter;

  bg_waiter_give_back (waiter, cancellable);
  return NULL;
}

void
bg_core_end_wait (BgWait *wait, BgWaiter *waiter, GCancellable *cancellable)
{
  bg_wait_end (wait);
  bg_waiter_give_back (waiter, cancellable);
}

/* The loop was awake when it was handed the work that is waited for: for a while this
 * thread stays awake, too. */
void
bg_core_stay_awake (BgCore *self, BgWaiter *waiter, gint64 deadline)
{
  bg_waiter_spin (waiter, bg_linger_get_usec (&self->inbox), deadline,
                  bg_linger_is_served_elsewhere (&self->inbox));
}
