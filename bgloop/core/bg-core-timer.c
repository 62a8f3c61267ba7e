/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-work-private.h>

/* Delayed work becomes due: a heap of it under the core's lock, and a source of the loop's
 * that moves what is due to the inbox, on the loop's thread. */

/* How many pieces of delayed work become due in one critical section: with fewer,
 * whoever adds many has the lock so often that what is due comes late. */
#define DUE_BATCH 128

/* Its place is used again when the lock is held next for the sake of delays. */
static void
end_delay (BgCore *self, BgDelay *delay, GDestroyNotify destroy)
{
  bg_inbox_destroy (&self->inbox, destroy, delay->data);
  delay->next = self->timer.ended;
  self->timer.ended = delay;
}

/* Of one whose function ended the thread only the data is left to be destroyed. */
static void
half_done_delay_outcome (BgRecord *slot, gpointer owner)
{
  BgDelay *delay = slot->data;

  end_delay (owner, delay, slot->destroy);
}

static void
delay_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  BgDelay *delay = slot->data;
  BgRecord *record;

  /* What a cancelled one leaves is destroyed by another record. */
  if (!bg_delay_start (delay))
    {
      bg_core_lock (self);
      bg_inbox_take_void (&self->inbox);
      bg_core_unlock (self);
      end_delay (self, delay, NULL);
      return;
    }

  record = bg_inbox_keep (&self->inbox, slot);
  record->outcome = half_done_delay_outcome;
  record->destroy = delay->destroy;
  if (bg_core_may_run (self))
    {
      ((BgPostFunc) delay->func) (delay->data);
      bg_core_count_run (self);
    }

  record->outcome = NULL;
  end_delay (self, delay, delay->destroy);
}

/* On the loop's thread, with the lock held. */
static void
give_back_ended_delays (BgCore *self)
{
  while (self->timer.ended != NULL)
    {
      BgDelay *delay = self->timer.ended;

      self->timer.ended = delay->next;
      bg_delays_give_back (&self->timer.delays, delay);
    }
}

/* Moves what is due to the inbox, so many pieces at most. */
static void
promote_due (BgCore *self, guint n)
{
  gint64 due = bg_delays_get_next_due (&self->timer.delays);
  gint64 now = due != -1 ? g_get_monotonic_time () : 0;

  for (; n > 0 && due != -1 && due <= now; n--)
    {
      BgDelay *delay = bg_delays_take (&self->timer.delays);

      bg_inbox_requeue (&self->inbox, G_PRIORITY_DEFAULT, delay_outcome, delay->func, delay, NULL);
      due = bg_delays_get_next_due (&self->timer.delays);
    }
}

void
bg_core_promote_due (BgCore *self)
{
  promote_due (self, G_MAXUINT);
}

/* To when the next delayed work is due. */
void
bg_core_update_timer (BgCore *self)
{
  gint64 before = bg_linger_get_due (&self->inbox);
  gint64 due = -1;

  if (self->timer.source != NULL)
    due = bg_delays_get_next_due (&self->timer.delays);
  bg_linger_set_due (&self->inbox, due);
  if (due != -1 && (before == -1 || due < before))
    g_main_context_wakeup (self->context);
}

/* Nothing becomes due by itself until bg_core_update_timer(). */
void
bg_core_pause_timer (BgCore *self)
{
  bg_linger_set_due (&self->inbox, -1);
}

/* g_source_set_ready_time() would do the same with a lock of GLib's that all contexts share: a
 * thread that is within it as another one forks leaves a child in which, from GLib 2.85 on, no
 * source can be attached any more. */

static gboolean
timer_prepare (GSource *source, int *timeout_msec)
{
  gint64 due = bg_linger_get_due (&bg_core_get_current ()->inbox);
  gint64 msec;

  if (due == -1)
    return FALSE;

  msec = (due - g_get_monotonic_time () + G_TIME_SPAN_MILLISECOND - 1) / G_TIME_SPAN_MILLISECOND;
  *timeout_msec = (int) CLAMP (msec, 0, G_MAXINT);
  return *timeout_msec == 0;
}

static gboolean
timer_check (GSource *source)
{
  gint64 due = bg_linger_get_due (&bg_core_get_current ()->inbox);

  return due != -1 && due <= g_get_monotonic_time ();
}

/* What is left due makes the timer ready at once, when others have had the lock. */
static gboolean
timer_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgCore *self = bg_core_get_current ();

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  bg_inbox_note_stale_dispatch ();
  bg_core_lock (self);
  give_back_ended_delays (self);
  promote_due (self, DUE_BATCH);
  bg_core_update_timer (self);
  bg_core_unlock (self);

  return G_SOURCE_CONTINUE;
}

static GSourceFuncs timer_funcs = {
  .prepare = timer_prepare,
  .check = timer_check,
  .dispatch = timer_dispatch,
};

guint64
bg_core_add_delay (BgCore *self,
                   guint delay_msec,
                   gpointer func,
                   gpointer data,
                   GDestroyNotify destroy)
{
  gint64 due = g_get_monotonic_time () + (gint64) delay_msec * G_TIME_SPAN_MILLISECOND;
  gint64 next_due = bg_delays_get_next_due (&self->timer.delays);
  guint64 id;

  if (!bg_core_admits (self))
    return 0;

  /* The microsecond that has begun counts for nothing, or the work would come early. */
  if (delay_msec > 0)
    due++;
  if (self->timer.source == NULL)
    {
      self->timer.source = g_source_new (&timer_funcs, sizeof (GSource));
      g_source_set_static_name (self->timer.source, "bgloop timer");
      bg_glib_attach_source (self->timer.source, self->context);
      self->sources.n_own++;
    }

  bg_inbox_count_posted (&self->inbox);
  id = bg_delays_add (&self->timer.delays, due, func, data, destroy);
  if (next_due == -1 || due < next_due)
    {
      bg_core_update_timer (self);
      bg_linger_interrupt (&self->inbox);
    }
  return id;
}

gboolean
bg_core_cancel_delay (BgCore *self, guint64 id)
{
  gint64 next_due = bg_delays_get_next_due (&self->timer.delays);
  gboolean is_queued = bg_delays_is_due (&self->timer.delays, id);
  gpointer data;
  GDestroyNotify destroy;

  if (!bg_delays_cancel (&self->timer.delays, id, &data, &destroy))
    return FALSE;

  if (is_queued)
    bg_inbox_count_void (&self->inbox, G_PRIORITY_DEFAULT, 1);
  self->waits.withdrawn++;
  if (bg_delays_get_next_due (&self->timer.delays) != next_due)
    bg_core_update_timer (self);
  if (destroy != NULL)
    bg_core_drop_later (self, data, destroy);
  return TRUE;
}

/* Delayed work that did not become due. */
void
bg_core_drop_delays (BgCore *self)
{
  while (!bg_core_is_forked (self))
    {
      BgDelay *delay;

      bg_core_lock (self);
      delay = bg_delays_take (&self->timer.delays);
      if (delay != NULL)
        bg_delay_start (delay);
      bg_core_unlock (self);

      if (delay == NULL)
        return;

      bg_inbox_count_cancelled (&self->inbox);
      end_delay (self, delay, delay->destroy);
    }
}
