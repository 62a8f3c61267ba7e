/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#if HAVE_PTHREAD_ATFORK
#include <pthread.h>
#endif

#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-core-private.h>

/* What does not start any more leaves the queue: the work of whoever is cancelled, or has
 * waited long enough, on that thread; and in a CANCEL shutdown all of it, on the thread that
 * asks for that. Then whoever waits is told, and so are the handlers of the loop's cancellable,
 * which cancels the operations. The list of those who wait is under the core's lock. */

/* With the lock held. Takes work back that has not started: it counts as cancelled from now
 * on. */
void
bg_core_cancel_unstarted (BgCore *self, BgBlocked *blocked)
{
  bg_inbox_withdraw (&self->inbox, blocked->slot, blocked->priority);
  blocked->slot = NULL;
  self->waits.withdrawn++;
}

/* Takes back the work that somebody waits for, if the work has not started. */
gboolean
bg_core_abandon_wait (BgCore *core, BgBlocked *blocked)
{
  gboolean withdrawn;

  bg_core_lock (core);
  withdrawn = bg_core_remove_blocked (core, blocked);
  if (withdrawn && blocked->slot != NULL)
    bg_core_cancel_unstarted (core, blocked);
  bg_core_unlock (core);

  return withdrawn;
}

/* Wakes everybody who waits for something that will not start any more. */
void
bg_core_close_blocked (GQueue *blocked)
{
  GList *link;

  while ((link = g_queue_pop_head_link (blocked)) != NULL)
    {
      BgBlocked *entry = link->data;

      entry->close (entry);
    }
}

void
bg_core_take_blocked (BgCore *self, GQueue *blocked)
{
  *blocked = self->waits.blocked;
  g_queue_init (&self->waits.blocked);

  for (GList *link = blocked->head; link != NULL; link = link->next)
    {
      BgBlocked *entry = link->data;

      entry->listed = FALSE;
      entry->closed = TRUE;
      if (entry->slot != NULL)
        bg_core_cancel_unstarted (self, entry);
    }
}

/* Whoever cancels the loop's cancellable cancels the operations that have not
 * answered. */
static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgCore *self = user_data;
  g_autoptr (GPtrArray) operations = NULL;

  if (bg_core_is_forked (self))
    return;

  operations = g_ptr_array_new_with_free_func (g_object_unref);
  bg_core_lock (self);
  for (GList *link = self->holds.list.head; link != NULL; link = link->next)
    {
      BgHold *hold = link->data;

      if (hold->cancellable != NULL)
        g_ptr_array_add (operations, g_object_ref (hold->cancellable));
    }
  bg_core_unlock (self);

  for (guint i = 0; i < operations->len; i++)
    g_cancellable_cancel (g_ptr_array_index (operations, i));
}

static void
closure_unref_cb (gpointer data, GClosure *closure)
{
  bg_core_unref (data);
}

void
bg_core_stop_heeding (BgCore *self)
{
  gulong handler = atomic_exchange (&self->operations.cancelled_handler, 0);

  bg_schedule_point (BG_POINT_CORE_UNHEEDED);
  if (handler != 0)
    g_signal_handler_disconnect (self->cancellable, handler);
}

/* Before an operation is admitted: from now on whoever cancels the loop's cancellable cancels
 * the loop's operations. Most loops never have an operation, and so this is connected with
 * the first: GObject's lock for signals is better left alone, as other threads may hold it
 * when this one forks. */
void
bg_core_heed_cancellable (BgCore *self)
{
  gulong none = 0, handler;

  if (G_LIKELY (atomic_load (&self->operations.cancelled_handler) != 0) || bg_core_is_forked (self)
      || bg_core_has_ended (self))
    return;

  bg_schedule_point (BG_POINT_CORE_HEEDS);
  handler = g_signal_connect_data (self->cancellable, "cancelled", G_CALLBACK (cancelled_cb),
                                   bg_core_ref (self), closure_unref_cb, 0);
  bg_schedule_point (BG_POINT_CORE_HEEDING);
  if (!atomic_compare_exchange_strong (&self->operations.cancelled_handler, &none, handler))
    g_signal_handler_disconnect (self->cancellable, handler);
  else if (bg_core_has_ended (self))
    bg_core_stop_heeding (self);
}

typedef struct
{
  BgHandling handling;
  BgCore *core; /* (owned) */
} BgCancelling;

/* Also if a handler has ended the thread. */
static void
end_handling (gpointer data)
{
  BgCancelling *cancelling = data;
  BgCore *self = cancelling->core;

  bg_handling_end (&cancelling->handling);

  /* A handler that has forked comes back in the child, too, where nobody counts. */
  if (!bg_core_is_forked (self))
    {
      bg_core_lock (self);
      self->stopping.n_handling--;
      bg_core_unlock (self);
      bg_core_report_end (self);
    }
  bg_core_unref (self);
}

/* Tells the handlers that the loop is being cancelled: the second half of what began with
 * n_handling. Takes over a reference, which is given back also if a handler ends the thread. */
void
bg_core_cancel (BgCore *self)
{
  BgCancelling cancelling = { .core = self };

  bg_handling_begin (&cancelling.handling, &self->waits.actor);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_push (end_handling, &cancelling);
#endif
  g_cancellable_cancel (self->cancellable);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_pop (0);
#endif
  end_handling (&cancelling);
}
