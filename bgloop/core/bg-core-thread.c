/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <errno.h>
#include <limits.h>
#if HAVE_PPOLL
#include <poll.h>
#endif
#if HAVE_PTHREAD_ATFORK
#include <pthread.h>
#endif
#include <string.h>
#if HAVE_TGKILL
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-retired-private.h>
#include <bgloop/base/bg-symbol-private.h>
#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* The loop's thread: it polls, runs, and ends, whether it comes to its end by itself or
 * something ends it under the loop. All of it is on that thread, but for its start. What other
 * threads ask for or wait for, such as its state, changes under the core's lock. */

/* A thread's destructors run in so many rounds, as long as some have more to do. The
 * library's destructor does its work in the last but one: GLib makes what it keeps for the
 * thread anew for that work, and frees it in the last. */
#if defined(PTHREAD_DESTRUCTOR_ITERATIONS) && PTHREAD_DESTRUCTOR_ITERATIONS > 2
#define DESTRUCTOR_ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - 1)
#else
#define DESTRUCTOR_ROUNDS 1
#endif

/* Linux takes 15 bytes; so do we everywhere. */
#define THREAD_NAME_BYTES 15

/* What takes so long has slept; what is shorter found something ready. */
#define SLEEP_USEC 50

static BG_THREAD_LOCAL BgCore *current_core;
static BG_THREAD_LOCAL guint64 ended_serial; /* of the loop whose thread this was */

/* Who is where */

BgCore *
bg_core_get_current (void)
{
  return current_core;
}

/* To the very end of the thread, when nothing of the core but its number is left. */
gboolean
bg_core_is_current (BgCore *self)
{
  gboolean current
      = current_core != NULL ? current_core == self : ended_serial == self->registration.serial;

  return current && !bg_core_is_forked (self);
}

/* Polling */

static GPollFD *
find_fd (GPollFD *fds, guint n_fds, gint64 fd)
{
  for (guint i = 0; i < n_fds; i++)
    {
      if (fds[i].fd == fd)
        return &fds[i];
    }

  return NULL;
}

/* A context asks for whole milliseconds, rounded up: delayed work would come half a
 * millisecond late. */
static int
poll_until_due (BgCore *self, GPollFD *fds, guint n_fds, int timeout_msec)
{
#if HAVE_PPOLL
  gint64 due = bg_linger_get_due (&self->inbox);
  gint64 left, usec = (gint64) timeout_msec * G_TIME_SPAN_MILLISECOND;
  struct timespec timeout;

  if (due != -1)
    {
      left = due - g_get_monotonic_time ();
      usec = CLAMP (left, 0, usec);
    }

  timeout.tv_sec = usec / G_TIME_SPAN_SECOND;
  timeout.tv_nsec = usec % G_TIME_SPAN_SECOND * 1000;
  return ppoll ((struct pollfd *) fds, n_fds, &timeout, NULL);
#else
  return g_poll (fds, n_fds, timeout_msec);
#endif
}

/* A loop that is busy and has no descriptors makes no system call: the one that wakes it
 * is of no interest while it is awake. */
static int
poll_own (BgCore *self, GPollFD *fds, guint n_fds, int timeout_msec)
{
  gint64 before = 0, now;
  GPollFD *wakeup;
  gboolean own;
  int n_ready;

  wakeup = find_fd (fds, n_fds, self->thread.wakeup_fd);
  /* Without it, this is not the loop's own context. */
  own = wakeup != NULL || self->thread.wakeup_fd == -1;
  if (own && self->stopping.drain_is_new)
    {
      self->stopping.drain_is_new = FALSE;
      timeout_msec = 0;
    }
  if (timeout_msec == 0 && wakeup != NULL && n_fds == 1)
    {
      wakeup->revents = 0;
      return 0;
    }

  if (timeout_msec == 0 || !own)
    return g_poll (fds, n_fds, timeout_msec);

  if (atomic_load_explicit (&self->sources.has_attached, memory_order_relaxed))
    bg_core_release_attached (self, &timeout_msec);

  if (self->stopping.drain != NULL)
    before = g_get_monotonic_time ();
  atomic_store_explicit (&self->thread.awake_at, 0, memory_order_relaxed);
  if (timeout_msec > 0)
    n_ready = poll_until_due (self, fds, n_fds, timeout_msec);
  else
    n_ready = g_poll (fds, n_fds, timeout_msec);
  if (bg_core_is_forked (self))
    return n_ready;

  now = g_get_monotonic_time ();
  atomic_store_explicit (&self->thread.awake_at, now, memory_order_relaxed);
  if (n_ready <= 0 || now - before > SLEEP_USEC)
    self->stopping.starved = 0;
  return n_ready;
}

/* The context's poll function. */
int
bg_core_poll_cb (GPollFD *fds, guint n_fds, int timeout_msec)
{
  BgCore *self = current_core;
  int n_ready, error;

  if (self == NULL || bg_core_is_forked (self))
    return g_poll (fds, n_fds, timeout_msec);

  /* A loop that never sleeps lets go of sources, too. */
  if (timeout_msec == 0 && atomic_load_explicit (&self->sources.has_attached, memory_order_relaxed)
      && bg_core_has_attached_to_release (self))
    bg_core_release_attached (self, &timeout_msec);

  n_ready = poll_own (self, fds, n_fds, timeout_msec);
  /* GLib asks whether it was a signal that ended the poll, and a lock that is taken may forget. */
  error = errno;
  if (!bg_core_is_forked (self))
    {
      bg_core_step (self);
      bg_inbox_awake (&self->inbox);
    }
  errno = error;
  return n_ready;
}

/* Running */

/* Runs until the loop is closed for good. */
static void
run (BgCore *self)
{
  gboolean closed = FALSE;

  while (!closed)
    {
      self->thread.runs = TRUE;
      g_main_loop_run (self->main_loop);
      self->thread.runs = FALSE;
      if (bg_core_is_forked (self))
        return;

      bg_core_lock (self);
      closed = self->stopping.closed = self->thread.finished && bg_core_is_idle (self);
      self->thread.finished = FALSE;
      bg_core_unlock (self);
    }
}

/* Of a source of others, which the thread has ended in, GLib's dispatch holds what it
 * does for the loop's own. Only the innermost is known. */
static void
abandon_current_source (BgCore *self)
{
  GSource *source = g_main_current_source ();

  if (source != NULL && g_main_depth () > self->thread.abandoned_depth
      && !bg_core_owns_source (self, source))
    bg_glib_abandon_dispatch_of_others (source, bg_core_get_kept (self));
  self->thread.abandoned_depth = g_main_depth ();
}

/* Says once that something has ended the thread. The name of it is freed before a destroy notify
 * can end the thread once more. */
static void
report_exit (BgCore *self)
{
  gpointer func = bg_inbox_get_running (&self->inbox, NULL);
  g_autofree char *name = NULL;

  if (self->thread.exited)
    return;

  name = func != NULL ? bg_symbol_describe (func) : g_strdup ("a source of its context");
  self->thread.exited = TRUE;
  g_critical ("%s has ended the thread of the loop \"%s\", which is the loop's own", name,
              self->name);
}

/* Something has ended the thread under the loop: everything gets its outcome here, as
 * in CANCEL mode, whatever holds the loop. A destroy notify that is called here may end the
 * thread once more: then abandon() is called again and goes on with what is left. */
static void
abandon (BgCore *self)
{
  GQueue blocked = G_QUEUE_INIT;
  GPtrArray *kept = bg_core_get_kept (self);

  report_exit (self);
  bg_core_lock (self);
  atomic_store (&self->state, BG_LOOP_STOPPING);
  if (!bg_core_is_cancelling (self))
    {
      atomic_store (&self->stopping.cancelling, TRUE);
      self->stopping.n_handling++;
      bg_core_take_blocked (self, &blocked);
      self->thread.cancels = TRUE;
    }
  self->stopping.closed = TRUE;
  bg_core_abandon_pause (self);
  bg_core_note_changed (self);
  bg_core_unlock (self);
  /* Before any destroy notify runs: it may join a thread that waits for the loop. */
  bg_core_close_blocked (&blocked);

  /* g_main_loop_run() does not return to give back what it has. */
  if (self->thread.runs)
    {
      g_main_loop_unref (self->main_loop);
      g_main_context_release (self->context);
    }
  self->thread.runs = FALSE;

  abandon_current_source (self);
  bg_actor_abandon_waits (&self->waits.actor);
  if (!bg_inbox_abandon_activities (&self->inbox, kept)
      || (self->mailbox != NULL && !bg_mailbox_abandon (self->mailbox, kept)))
    return;
  bg_core_abandon_drain (self);
  bg_core_lock (self);
  bg_core_begin_drain (self);
  bg_core_unlock (self);
  if (self->thread.cancels)
    {
      self->thread.cancels = FALSE;
      bg_core_cancel (bg_core_ref (self));
    }
  if (bg_core_is_forked (self))
    return;
  while (g_main_context_get_thread_default () != self->context
         && g_main_context_get_thread_default () != NULL)
    g_main_context_pop_thread_default (g_main_context_get_thread_default ());
  bg_core_run_end (self);
}

static void
exited_cb (gpointer data)
{
  BgCore *self = data;

  if (!bg_core_is_forked (self) && !self->thread.ended)
    abandon (self);
}

static void
run_and_end (BgCore *self)
{
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_push (exited_cb, self);
#endif
  run (self);
  if (!bg_core_is_forked (self))
    bg_core_run_end (self);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_pop (0);
#endif
}

/* The last thing that the thread does, after every other destructor of its own. */
static void
leave (BgCore *self)
{
  bg_core_lock (self);
  atomic_store (&self->state, BG_LOOP_STOPPED);
  self->thread.gone = TRUE;
  bg_core_unlock (self);
  bg_core_report_end (self);

  bg_actor_set_current (NULL);
  ended_serial = self->registration.serial;
  current_core = NULL;
  bg_core_unref (self);
}

static void destructor_cb (gpointer data);

static GPrivate own_core = G_PRIVATE_INIT (destructor_cb);

static void
destructor_cb (gpointer data)
{
  static BG_THREAD_LOCAL guint rounds;
  BgCore *self = data;

  if (bg_core_is_forked (self))
    return;

  if (!self->thread.ended)
    abandon (self);
  if (++rounds < DESTRUCTOR_ROUNDS)
    g_private_set (&own_core, self);
  else
    leave (self);
}

static gpointer
thread_cb (gpointer data)
{
  BgCore *self = data;

#if HAVE_TGKILL
  self->thread.id = syscall (SYS_gettid);
#endif
  current_core = self;
  bg_actor_set_current (&self->waits.actor);
  g_private_set (&own_core, self);
  g_main_context_acquire (self->context);
  g_main_context_push_thread_default (self->context);
  self->thread.wakeup_fd = bg_glib_get_wakeup_fd (self->context);
  bg_fork_set_wakeup_fd ((int) self->thread.wakeup_fd);
  atomic_store_explicit (&self->thread.awake_at, g_get_monotonic_time (), memory_order_relaxed);

  bg_core_lock (self);
  atomic_store (&self->state, BG_LOOP_RUNNING);
  bg_core_unlock (self);
  bg_waiter_complete (self->thread.starter);
  bg_watch_begin (&self->watch);
  bg_release_retired ();

  /* Whoever starts a loop has something for it to do. */
  bg_linger_for_more (&self->inbox);

  run_and_end (self);

  /* With its only thread the process would end. */
  while (bg_core_is_forked (self))
    g_main_loop_run (self->main_loop);

  return NULL;
}

/* Starting */

/* As much of the name as a thread's name can be, cut at a character. */
static char *
get_thread_name (const char *name)
{
  gsize n = strlen (name);

  if (n > THREAD_NAME_BYTES)
    {
      n = THREAD_NAME_BYTES;
      while (n > 0 && ((guchar) name[n] & 0xc0) == 0x80)
        n--;
    }

  return g_strndup (name, n);
}

/* Starts the thread. If that fails every entry answers why. */
void
bg_core_start (BgCore *self)
{
  g_autofree char *name = get_thread_name (self->name);
  BgWaiter *waiter;
  GThread *thread;

  if (self->failure != NULL)
    return;

  waiter = self->thread.starter = bg_waiter_take (NULL);
  bg_linger_note_poster (&self->inbox);
  thread = g_thread_try_new (name, thread_cb, bg_core_ref (self), &self->failure);
  if (thread != NULL)
    {
      bg_core_lock (self);
      self->thread.handle = thread;
      self->thread.joined = FALSE;
      self->thread.gone = FALSE;
      bg_core_unlock (self);
      bg_waiter_spin_for_start (waiter, bg_linger_get_usec (&self->inbox));
      bg_waiter_wait_completed (waiter);
    }
  else
    {
      bg_core_unref (self);
    }

  self->thread.starter = NULL;
  bg_waiter_give_back (waiter, NULL);
}
