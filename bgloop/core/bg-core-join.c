/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <bgloop/base/bg-text-private.h>
#include <bgloop/base/bg-trace-private.h>

#if HAVE_TGKILL
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-report-private.h>

/* Waiting for the end of a loop, until a deadline or without one: on the waiting thread,
 * or, for those who wait for a callback, on the thread that ends. The list of those
 * who wait is under the core's lock, and so is which of them joins the thread; the join itself is
 * not. */

/* Watching */

/* Whether the loop has ended, with its thread and the handlers of its cancellable. */
static gboolean
is_gone (BgCore *self)
{
  gboolean gone;

  bg_core_lock (self);
  gone = self->thread.gone && self->stopping.n_handling == 0;
  bg_core_unlock (self);

  return gone;
}

/* With the lock held: has @watcher closed when the loop has ended. FALSE if it has. */
static gboolean
add_end_watcher (BgCore *self, BgBlocked *watcher)
{
  if (self->thread.gone && self->stopping.n_handling == 0)
    return FALSE;

  watcher->listed = TRUE;
  watcher->link.data = watcher;
  g_queue_push_tail_link (&self->stopping.end_watchers, &watcher->link);
  return TRUE;
}

/* With the lock held. FALSE if it is about to be closed. */
static gboolean
remove_end_watcher (BgCore *self, BgBlocked *watcher)
{
  if (!watcher->listed)
    return FALSE;

  watcher->listed = FALSE;
  g_queue_unlink (&self->stopping.end_watchers, &watcher->link);
  return TRUE;
}

/* Once the thread has ended and the handlers of the cancellable have returned, tells
 * whoever waits for that. */
void
bg_core_report_end (BgCore *self)
{
  GQueue watchers = G_QUEUE_INIT;

  bg_core_lock (self);
  if (self->thread.gone && self->stopping.n_handling == 0)
    {
      watchers = self->stopping.end_watchers;
      g_queue_init (&self->stopping.end_watchers);
      for (GList *link = watchers.head; link != NULL; link = link->next)
        ((BgBlocked *) link->data)->listed = FALSE;
      bg_core_note_changed (self);
    }
  bg_core_unlock (self);

  bg_core_close_blocked (&watchers);
}

/* Joining */

/* Whether the thread is gone, as far as the system tells. (If another one has got its
 * number by now, only time is lost.) */
static gboolean
has_ended (gpointer data)
{
  BgCore *self = data;
  gboolean ended = bg_core_get_state (self) == BG_LOOP_STOPPED;

#if HAVE_TGKILL
  ended = ended && syscall (SYS_tgkill, getpid (), self->thread.id, 0) == -1;
#endif
  return ended;
}

/* Stays awake for the end of the thread, if that is about to come: to be woken in
 * g_thread_join() takes longer than the end itself. */
static void
spin_for_end (BgCore *self, BgWaiter *waiter, int timeout_msec)
{
  guint limit_usec = bg_linger_get_usec (&self->inbox);
  gboolean joined;

  bg_core_lock (self);
  joined = self->thread.joined;
  bg_core_unlock (self);
  if (joined)
    return;

  if (timeout_msec == 0)
    limit_usec = 0;
  bg_waiter_spin_for_end (waiter, limit_usec, bg_linger_is_served_elsewhere (&self->inbox),
                          has_ended, self);
}

/* Waits until the thread is gone and the handlers of the cancellable have returned.
 * Exactly one thread joins it, the others wait for that one. Once the loop has
 * ended and they have returned, this takes no longer than the thread needs to return. */
void
bg_core_join (BgCore *self)
{
  GThread *thread;

  bg_core_lock (self);
  thread = g_steal_pointer (&self->thread.handle);
  if (thread != NULL)
    {
      bg_core_unlock (self);
      g_thread_join (thread);
      bg_core_lock (self);
      self->thread.joined = TRUE;
      bg_core_note_changed (self);
    }
  while (!self->thread.joined || self->stopping.n_handling > 0)
    bg_core_wait (self, -1);
  bg_core_unlock (self);
}

/* Blocking */

static void
complete_ended (BgBlocked *watcher)
{
  bg_waiter_complete (watcher->waiter);
}

/* Waits for the end; otherwise says what came first. */
static BgWaitResult
wait_for_end (BgCore *core, BgWaiter *waiter, gint64 deadline)
{
  BgBlocked watcher = { .waiter = waiter, .close = complete_ended };
  BgWaitResult result;
  gboolean ended, removed;

  bg_core_lock (core);
  ended = !add_end_watcher (core, &watcher);
  bg_core_unlock (core);
  if (ended)
    return BG_WAIT_COMPLETED;

  result = bg_waiter_wait (waiter, deadline);
  if (result == BG_WAIT_COMPLETED)
    return BG_WAIT_COMPLETED;

  bg_core_lock (core);
  removed = remove_end_watcher (core, &watcher);
  bg_core_unlock (core);
  if (!removed)
    bg_waiter_wait_completed (waiter);
  return removed ? result : BG_WAIT_COMPLETED;
}

static void
set_own_thread_error (BgCore *core, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
               _ ("The loop \"%s\" cannot wait for its own end"), core->name);
}

static void
set_timeout_error (BgCore *core, int timeout_msec, GError **error)
{
  g_autoptr (GPtrArray) lines = bg_core_list_work (core);
  g_autofree char *text = NULL;

  if (lines->len == 0)
    g_ptr_array_add (lines, g_strdup (_ ("about to end")));
  g_ptr_array_add (lines, NULL);
  text = g_strjoinv ("; ", (char **) lines->pdata);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               _ ("The loop \"%s\" has not stopped within %d ms: %s"), core->name, timeout_msec,
               text);
}

static void
set_end_error (BgCore *core, BgWaitResult why, int timeout_msec, GError **error)
{
  if (why == BG_WAIT_TIMED_OUT)
    set_timeout_error (core, timeout_msec, error);
  else
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
                 _ ("Waiting for the end of the loop \"%s\" was cancelled"), core->name);
}

/* What can be said at once, without asking for anything or waiting. */
gboolean
bg_core_check_end (BgCore *core, GCancellable *cancellable, GError **error)
{
  if (bg_core_is_forked (core) || core->failure != NULL)
    bg_core_set_refused_error (core, error);
  else if (bg_core_is_current (core))
    set_own_thread_error (core, error);
  else
    return !g_cancellable_set_error_if_cancelled (cancellable, error);

  return FALSE;
}

static BgWaitAim
get_aim (const BgShutdownMode *mode)
{
  if (mode == NULL)
    return BG_WAIT_FOR_END;

  return *mode == BG_SHUTDOWN_CANCEL ? BG_WAIT_FOR_CANCEL : BG_WAIT_FOR_DRAIN;
}

/* @mode: (nullable): how to end; %NULL to wait for an end that others ask for */
static gboolean
end_blocking (BgCore *core,
              const BgShutdownMode *mode,
              int timeout_msec,
              GCancellable *cancellable,
              GError **error)
{
  gint64 begun = bg_trace_begin ();
  gint64 deadline = bg_deadline (timeout_msec);
  BgWaiter *waiter = bg_waiter_take (cancellable);
  BgWaitResult result = BG_WAIT_COMPLETED;
  BgWait wait;

  /* To ask for the end ends a pause, too. */
  if ((mode == NULL && bg_core_is_paused_by_me (core, error))
      || !bg_wait_begin (&wait, &core->waits.actor, get_aim (mode), waiter, error))
    {
      bg_waiter_give_back (waiter, cancellable);
      return FALSE;
    }

  if (mode != NULL)
    bg_core_quit (core, *mode);
  /* A handler of the cancellable has forked, and has come back in the child. */
  if (bg_core_is_forked (core))
    {
      bg_waiter_give_back (waiter, cancellable);
      bg_core_set_refused_error (core, error);
      return FALSE;
    }

  if (mode != NULL)
    spin_for_end (core, waiter, timeout_msec);
  /* Without a limit, on a thread that nobody can wait for, there is one thing less to be
   * woken by. */
  if (timeout_msec != -1 || cancellable != NULL || wait.actor != NULL)
    result = wait_for_end (core, waiter, deadline);
  if (result == BG_WAIT_COMPLETED)
    bg_core_join (core);
  bg_wait_end (&wait);
  bg_waiter_give_back (waiter, cancellable);
  bg_trace_end (begun, mode != NULL ? "shutdown" : "wait", "of %s", core->name);

  if (result == BG_WAIT_BROKEN)
    bg_wait_set_broken_error (&wait, error);
  else if (result != BG_WAIT_COMPLETED)
    set_end_error (core, result, timeout_msec, error);
  g_free (wait.circle);
  return result == BG_WAIT_COMPLETED;
}

/* Asks without waiting. */
static gboolean
end_at_once (BgCore *core, const BgShutdownMode *mode, GError **error)
{
  if (mode != NULL)
    bg_core_quit (core, *mode);
  if (bg_core_is_forked (core))
    {
      bg_core_set_refused_error (core, error);
      return FALSE;
    }

  if (!is_gone (core))
    {
      set_timeout_error (core, 0, error);
      return FALSE;
    }

  bg_core_join (core);
  return TRUE;
}

gboolean
bg_core_end_until (BgCore *core,
                   const BgShutdownMode *mode,
                   int timeout_msec,
                   GCancellable *cancellable,
                   GError **error)
{
  if (!bg_core_check_end (core, cancellable, error))
    return FALSE;
  if (timeout_msec == 0)
    return end_at_once (core, mode, error);

  return end_blocking (core, mode, timeout_msec, cancellable, error);
}

/* Asynchronous */

typedef struct
{
  BgBlocked watcher;
  int ref_count; /* atomic: one for the expiry, one until the loop has ended */
  BgCore *core;  /* (owned) */
  int timeout_msec;

  /* under the core's lock */
  BgReply *reply;       /* (owned) (nullable) until the outcome is known */
  BgWaitResult gave_up; /* before the watcher was there */
} BgAsyncEnd;

static void
async_end_unref (gpointer data)
{
  BgAsyncEnd *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  bg_core_unref (self->core);
  g_free (self);
}

/* On the loop's thread, the last thing that it does; or on the last that runs handlers
 * of the loop's cancellable. */
static void
ended_cb (BgBlocked *watcher)
{
  BgAsyncEnd *self = (BgAsyncEnd *) watcher;

  bg_reply_return (g_steal_pointer (&self->reply), NULL, NULL);
  async_end_unref (self);
}

/* The wait has timed out or was cancelled, perhaps before it began. */
static void
expired_cb (gpointer data, BgWaitResult why)
{
  BgAsyncEnd *self = data;
  BgReply *reply = NULL;
  GError *error = NULL;

  bg_core_lock (self->core);
  self->gave_up = why;
  if (remove_end_watcher (self->core, &self->watcher))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);
  if (reply == NULL)
    return;

  set_end_error (self->core, why, self->timeout_msec, &error);
  bg_reply_return (reply, NULL, error);
  async_end_unref (self);
}

void
bg_core_end_async (BgCore *core,
                   const BgShutdownMode *mode,
                   int timeout_msec,
                   GCancellable *cancellable,
                   BgReply *reply)
{
  BgAsyncEnd *self = g_new0 (BgAsyncEnd, 1);
  GError *error = NULL;
  BgWaitResult gave_up;
  gboolean watches = FALSE;

  self->ref_count = 2;
  self->core = bg_core_ref (core);
  self->timeout_msec = timeout_msec;
  self->watcher.close = ended_cb;
  self->reply = reply;
  bg_reply_set_ended (reply, core);
  bg_reply_set_expiry (reply, timeout_msec, cancellable, expired_cb, self, async_end_unref);

  bg_core_lock (core);
  gave_up = self->gave_up;
  if (gave_up == BG_WAIT_COMPLETED)
    watches = add_end_watcher (core, &self->watcher);
  bg_core_unlock (core);

  if (gave_up != BG_WAIT_COMPLETED)
    {
      set_end_error (core, gave_up, timeout_msec, &error);
      bg_reply_return (reply, NULL, error);
      async_end_unref (self);
    }
  else if (!watches)
    {
      ended_cb (&self->watcher);
    }
  else if (mode != NULL)
    {
      bg_core_quit (core, *mode);
    }
}
