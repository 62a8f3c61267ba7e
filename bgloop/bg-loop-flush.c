/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/core/bg-report-private.h>
#include <bgloop/core/bg-work-private.h>

/* Waiting for all work that was accepted so far: on the caller's thread, while markers between the
 * work come out of the queue on the loop's. What both know of a flush is under the core's lock, and
 * so is which of the two frees it. */

typedef struct _BgFlush BgFlush;

typedef struct
{
  BgFlush *flush;
  int priority; /* of the lane that it is in */
  gboolean done;
} BgMarker;

/* One marker goes to the end of each lane; the flush is done when all of them
 * have come out. */
struct _BgFlush
{
  BgBlocked blocked;

  /* under lock */
  guint n_left;
  gboolean abandoned; /* what is left counts as nothing any more */
  guint n_markers;
  BgMarker markers[];
};

static void
flush_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgMarker *marker = slot->data;
  BgFlush *self = marker->flush;
  gboolean defers, counts = FALSE, completes = FALSE, frees = FALSE;

  bg_core_lock (core);
  /* What was accepted before may still run, around this. */
  defers = bg_inbox_is_nested (bg_core_get_inbox (core)) && !self->abandoned;
  if (defers)
    {
      marker->priority = G_PRIORITY_DEFAULT;
      bg_inbox_count_void (bg_core_get_inbox (core), G_PRIORITY_DEFAULT, -1);
    }
  else
    {
      marker->done = TRUE;
      if (self->abandoned)
        bg_inbox_count_void (bg_core_get_inbox (core), marker->priority, -1);
      counts = !self->abandoned;
      self->n_left--;
      completes = self->n_left == 0 && bg_core_remove_blocked (core, &self->blocked);
      frees = self->n_left == 0 && self->abandoned;
    }
  bg_core_unlock (core);

  if (defers)
    {
      bg_inbox_defer (bg_core_get_inbox (core), slot);
      return;
    }

  if (counts)
    bg_core_count_run (core);
  if (completes)
    bg_waiter_complete (self->blocked.waiter);
  if (frees)
    g_free (self);
}

/* Until it is done or closed, or else given up: says why. */
static BgWaitResult
wait_for_flush (BgCore *core, BgFlush *flush, gint64 deadline)
{
  BgWaitResult result = bg_waiter_wait (flush->blocked.waiter, deadline);

  if (result != BG_WAIT_COMPLETED && bg_core_abandon_wait (core, &flush->blocked))
    return result;

  bg_waiter_wait_completed (flush->blocked.waiter);
  return BG_WAIT_COMPLETED;
}

/* The wait is over, and the flush's markers count as nothing. Whoever wants no error pays for
 * none. */
static void
set_flush_error (BgCore *core, BgWaitResult why, int timeout_msec, GError **error)
{
  const char *name = bg_core_get_name (core);
  g_autoptr (BgReport) report = NULL;
  g_autofree char *text = NULL;

  if (error == NULL)
    return;

  if (why == BG_WAIT_COMPLETED)
    {
      g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                   _ ("The loop \"%s\" was shut down before it had done all its work"), name);
    }
  else if (why == BG_WAIT_CANCELLED)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
                   _ ("Flushing the loop \"%s\" was cancelled"), name);
    }
  else
    {
      report = bg_core_report (core, G_MAXINT);
      text = bg_report_to_text (report);
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                   _ ("The loop \"%s\" was not flushed within %d ms: %s"), name, timeout_msec,
                   text);
    }
}

/* With the lock held. */
static BgFlush *
append_markers (BgCore *core, BgWaiter *waiter)
{
  BgInbox *inbox = bg_core_get_inbox (core);
  guint n_lanes = bg_inbox_get_n_lanes (inbox);
  BgFlush *flush = g_malloc0 (sizeof (BgFlush) + n_lanes * sizeof (BgMarker));

  flush->blocked.waiter = waiter;
  flush->blocked.close = bg_blocked_complete;
  flush->n_left = flush->n_markers = n_lanes;
  for (guint i = 0; i < flush->n_markers; i++)
    {
      BgMarker *marker = &flush->markers[i];

      marker->flush = flush;
      marker->priority = bg_inbox_get_priority (inbox, i);
      bg_inbox_append (inbox, marker->priority, flush_outcome, bg_loop_flush, marker, NULL);
    }
  bg_linger_set_awaited (inbox);
  bg_core_add_blocked (core, &flush->blocked);
  return flush;
}

/* Nobody waits for it any more. */
static void
abandon_flush (BgCore *core, BgFlush *flush)
{
  gboolean frees;

  bg_core_lock (core);
  flush->abandoned = TRUE;
  frees = flush->n_left == 0;
  bg_core_count_withdrawn (core, flush->n_left);
  for (guint i = 0; i < flush->n_markers; i++)
    {
      if (!flush->markers[i].done)
        bg_inbox_count_void (bg_core_get_inbox (core), flush->markers[i].priority, 1);
    }
  bg_core_unlock (core);

  if (frees)
    g_free (flush);
}

static gboolean
flush_blocking (BgCore *core, int timeout_msec, GCancellable *cancellable, GError **error)
{
  BgFlush *flush = NULL;
  gint64 deadline = bg_deadline (timeout_msec);
  gboolean ok = FALSE;
  BgWaitResult result = BG_WAIT_COMPLETED;
  BgWait wait;
  BgWaiter *waiter = bg_core_begin_wait (core, &wait, cancellable, error);

  if (waiter == NULL)
    return FALSE;

  bg_core_lock (core);
  if (bg_core_admits (core))
    {
      bg_core_promote_due (core);
      flush = append_markers (core, waiter);
    }
  bg_core_unlock (core);

  if (flush != NULL)
    {
      result = wait_for_flush (core, flush, deadline);
      ok = result == BG_WAIT_COMPLETED && !flush->blocked.closed;
      abandon_flush (core, flush);
    }

  bg_core_end_wait (&wait, waiter, cancellable);
  if (flush == NULL)
    bg_core_set_refused_error (core, error);
  else if (!ok)
    set_flush_error (core, result, timeout_msec, error);
  return ok;
}

/**
 * bg_loop_flush:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Waits until all work that the loop has accepted so far, at every priority, has
 * had its outcome.
 *
 * That is posts, calls, and the beginning of operations; not delayed work that
 * is not due, not functions given to [method@Bg.Loop.invoke], and not what that
 * work hands to the loop in turn. Blocks.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, whose message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_CLOSED if the loop is being shut down or has ended;
 * %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or that of a loop which it waits
 * for; %BG_ERROR_FORKED in a forked child.
 *
 * Returns: %TRUE if all of it is done
 *
 * Since: 1.0
 */
gboolean
bg_loop_flush (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, error);
      return FALSE;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;

  return flush_blocking (self->core, timeout_msec, cancellable, error);
}
