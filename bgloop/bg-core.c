/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#if HAVE_PPOLL
#include <poll.h>
#endif
#include <string.h>
#if HAVE_TGKILL
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <bgloop/bg-core-private.h>
#include <bgloop/bg-error.h>

/* The end of a loop's life, in order:
 *
 *  1. Anybody's bg_core_quit() makes it STOPPING and sends stop_cb() into the
 *     context, above every priority.
 *  2. stop_cb() hands what was accepted to the driver, a source of the highest
 *     priority that runs it in its own order and lets every other source have a
 *     turn in between.
 *  3. When nothing is queued and nothing holds the loop, the driver closes it
 *     for good and quits the main loop.
 *  4. The thread runs the teardown functions, clears the context, and ends.
 *  5. Whoever waits joins it; if nobody does, the last reference lets it go. */

#define DRIVER_PRIORITY G_MININT

/* How many pieces of delayed work become due in one critical section: with fewer,
 * whoever adds many has the lock so often that what is due comes late. */
#define DUE_BATCH 128

/* How many turns a source that is always ready gets at the end. */
#define LAST_TURNS 16

/* Linux takes 15 bytes; so do we everywhere. */
#define THREAD_NAME_BYTES 15

typedef struct
{
  GSource source;
  BgCore *core; /* (unowned): the source lives on the core's thread */
  gboolean sits_out;
} BgDriver;

static GPrivate current_core;

/* Globals */

typedef struct
{
  GMainContext *context;
  GPtrArray *sources;
} BgGrave;

BgGlobals *
bg_globals (void)
{
  static BgGlobals *globals;
  guint generation = bg_fork_generation ();
  BgGlobals *found = g_atomic_pointer_get (&globals);
  BgGlobals *fresh;

  if (G_LIKELY (found != NULL && found->generation == generation))
    return found;

  fresh = g_new0 (BgGlobals, 1);
  fresh->generation = generation;
  g_mutex_init (&fresh->default_lock);
  g_mutex_init (&fresh->lock);
  g_queue_init (&fresh->cores);
  g_cond_init (&fresh->freed);
  if (g_atomic_pointer_compare_and_exchange (&globals, found, fresh))
    return fresh;

  g_free (fresh);
  return bg_globals ();
}

/* Before GLib 2.85, g_source_destroy() and g_source_unref() may still use the
 * source's context while its last reference goes in another thread. So the
 * context outlives every source that somebody else has a reference to. */
static gboolean
try_bury (GMainContext *context, GPtrArray *sources)
{
  for (guint i = sources->len; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (sources, i - 1);

      if (g_atomic_int_get ((int *) &source->ref_count) == 1)
        g_ptr_array_remove_index_fast (sources, i - 1);
    }
  if (sources->len > 0)
    return FALSE;

  /* Whoever gave the last reference back did so under the context's lock, and
   * may still be in there. */
  (void) g_main_context_is_owner (context);
  g_ptr_array_unref (sources);
  g_main_context_unref (context);
  return TRUE;
}

static void
bury (GMainContext *context, GPtrArray *sources)
{
  BgGlobals *globals = bg_globals ();
  GSList *graves, *open = NULL;

  g_mutex_lock (&globals->lock);
  graves = g_steal_pointer (&globals->graves);
  g_mutex_unlock (&globals->lock);

  if (context != NULL)
    {
      BgGrave *grave = g_new (BgGrave, 1);

      grave->context = context;
      grave->sources = sources;
      graves = g_slist_prepend (graves, grave);
    }

  while (graves != NULL)
    {
      BgGrave *grave = graves->data;

      graves = g_slist_delete_link (graves, graves);
      if (try_bury (grave->context, grave->sources))
        g_free (grave);
      else
        open = g_slist_prepend (open, grave);
    }

  if (open != NULL)
    {
      g_mutex_lock (&globals->lock);
      globals->graves = g_slist_concat (open, globals->graves);
      g_mutex_unlock (&globals->lock);
    }
}

/* Frees what could not be freed when its loop went. */
void
bg_core_visit_graves (void)
{
  bury (NULL, NULL);
}

/* Whether an object can be used again, as if it were new: besides the caller's
 * @n_refs references nobody has one, nor has anybody what one could be had from, or
 * anything stored with it. */
gboolean
bg_object_is_as_new (gpointer object, int n_refs)
{
  GObject *self = object;

  /* The second look at the references is for a weak one that became a strong one. */
  return g_atomic_int_get ((int *) &self->ref_count) == n_refs
         && g_atomic_pointer_get (&self->qdata) == NULL
         && g_atomic_int_get ((int *) &self->ref_count) == n_refs;
}

/* Polling */

/* How often a forked child that iterates the context looks for something to do,
 * in milliseconds. */
#define CHILD_POLL_MSEC 100

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
  gint64 due = -1, left, usec = (gint64) timeout_msec * G_TIME_SPAN_MILLISECOND;
  struct timespec timeout;

  bg_core_lock (self);
  if (self->timer != NULL)
    due = g_source_get_ready_time (self->timer);
  bg_core_unlock (self);
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

/* In a child that was forked on the loop's thread: what wakes the parent is not for
 * it to take. */
static int
poll_inherited (GPollFD *wakeup, GPollFD *fds, guint n_fds, int timeout_msec)
{
  gint64 fd = wakeup != NULL ? wakeup->fd : -1;
  int n_ready;

  if (wakeup == NULL)
    return g_poll (fds, n_fds, timeout_msec);

  if (timeout_msec < 0 || timeout_msec > CHILD_POLL_MSEC)
    timeout_msec = CHILD_POLL_MSEC;
  wakeup->fd = -1;
  n_ready = g_poll (fds, n_fds, timeout_msec);
  wakeup->fd = fd;
  wakeup->revents = 0;
  return n_ready;
}

/* The context's poll function. A loop that is busy and has no descriptors makes no
 * system call: the one that wakes it is of no interest while it is awake. */
static int
poll_cb (GPollFD *fds, guint n_fds, int timeout_msec)
{
  BgCore *self = g_private_get (&current_core);
  GPollFD *wakeup = self != NULL ? find_fd (fds, n_fds, self->wakeup_fd) : NULL;
  int n_ready;

  if (self != NULL && bg_core_is_forked (self))
    return poll_inherited (wakeup, fds, n_fds, timeout_msec);

  if (timeout_msec == 0 && wakeup != NULL && n_fds == 1)
    {
      wakeup->revents = 0;
      return 0;
    }

  /* Without it, this is not the loop's own context. */
  if (timeout_msec == 0 || wakeup == NULL)
    return g_poll (fds, n_fds, timeout_msec);

  atomic_store_explicit (&self->awake_since, 0, memory_order_relaxed);
  if (timeout_msec > 0)
    n_ready = poll_until_due (self, fds, n_fds, timeout_msec);
  else
    n_ready = g_poll (fds, n_fds, timeout_msec);
  atomic_store_explicit (&self->awake_since, g_get_monotonic_time (), memory_order_relaxed);

  return n_ready;
}

/* On the loop's thread, while the context has no other descriptor. */
static void
find_wakeup_fd (BgCore *self)
{
  GPollFD fd = { .fd = -1 };
  int timeout;

  self->wakeup_fd = -1;
  if (g_main_context_query (self->context, G_MAXINT, &timeout, &fd, 1) == 1)
    self->wakeup_fd = fd.fd;
}

/* Life */

static void
enlist (BgCore *self)
{
  BgGlobals *globals = bg_globals ();

  self->since = g_get_monotonic_time ();
  self->link.data = self;
  g_mutex_lock (&globals->lock);
  self->serial = ++globals->last_core;
  g_queue_push_tail_link (&globals->cores, &self->link);
  g_mutex_unlock (&globals->lock);
}

/* To be called before the first thing of it is freed, and after the last. */
static void
delist (BgGlobals *globals, BgCore *self)
{
  if (globals == NULL)
    return;

  g_mutex_lock (&globals->lock);
  if (self != NULL)
    {
      g_queue_unlink (&globals->cores, &self->link);
      globals->n_freeing++;
    }
  else
    {
      globals->n_freeing--;
      g_cond_broadcast (&globals->freed);
    }
  g_mutex_unlock (&globals->lock);
}

BgCore *
bg_core_new (const char *name)
{
  BgCore *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);

  bg_fork_watch ();
  self->ref_count = 1;
  self->name = g_strdup (name != NULL && *name != '\0' ? name : "bgloop");
  self->context = g_main_context_new ();
  g_main_context_set_poll_func (self->context, poll_cb);
  self->main_loop = g_main_loop_new (self->context, FALSE);
  self->cancellable = g_cancellable_new ();
  self->generation = bg_fork_generation ();
  bg_inbox_init (&self->inbox, self->context, self);
  atomic_init (&self->inbox.expected, 1);
  g_cond_init (&self->changed);
  g_queue_init (&self->holds);
  g_queue_init (&self->blocked);
  g_queue_init (&self->invokes);
  g_queue_init (&self->end_watchers);
  atomic_init (&self->state, BG_LOOP_STOPPED);
  self->joined = TRUE; /* until it is started there is nothing to join */
  enlist (self);
  return self;
}

BgCore *
bg_core_ref (BgCore *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

static void
core_free (BgCore *self)
{
  BgGlobals *globals = bg_core_is_forked (self) ? NULL : bg_globals ();

  delist (globals, self);
  bg_inbox_clear (&self->inbox);
  bg_delays_clear (&self->delays);
  g_cond_clear (&self->changed);
  g_clear_pointer (&self->teardowns, g_array_unref);
  for (guint i = 0; self->followers != NULL && i < self->followers->len; i++)
    g_object_unref (g_array_index (self->followers, BgFollower, i).cancellable);
  g_clear_pointer (&self->followers, g_array_unref);
  g_main_loop_unref (self->main_loop);
  g_object_unref (self->cancellable);
  if (self->attached != NULL)
    bury (self->context, self->attached);
  else
    g_main_context_unref (self->context);
  g_free (self->name);
  g_aligned_free (self);
  delist (globals, NULL);
}

void
bg_core_unref (BgCore *self)
{
  if (g_atomic_int_dec_and_test (&self->ref_count))
    core_free (self);
}

/* The object is gone: nobody will ever join the thread. Never blocks. */
void
bg_core_let_go (BgCore *self)
{
  GThread *thread;

  /* In a forked child nothing of it can be trusted to be in one piece. */
  if (bg_core_is_forked (self))
    return;

  bg_core_quit (self, BG_SHUTDOWN_DRAIN);

  bg_core_lock (self);
  self->dropped = TRUE;
  thread = g_steal_pointer (&self->thread);
  bg_core_unlock (self);

  if (thread != NULL)
    g_thread_unref (thread);
  bg_core_unref (self);
}

/* Looking */

BgCore *
bg_core_get_current (void)
{
  return g_private_get (&current_core);
}

gboolean
bg_core_is_current (BgCore *self)
{
  return bg_core_get_current () == self && !bg_core_is_forked (self);
}

BgLoopState
bg_core_get_state (BgCore *self)
{
  if (bg_core_is_forked (self))
    return BG_LOOP_STOPPED;

  return atomic_load_explicit (&self->state, memory_order_acquire);
}

gboolean
bg_core_is_cancelling (BgCore *self)
{
  return atomic_load_explicit (&self->cancelling, memory_order_acquire);
}

void
bg_core_set_refused_error (BgCore *self, GError **error)
{
  if (bg_core_is_forked (self))
    g_set_error (error, BG_ERROR, BG_ERROR_FORKED,
                 "The loop “%s” belongs to the process that this one was forked from", self->name);
  else
    g_set_error (error, BG_ERROR, BG_ERROR_CLOSED, "The loop “%s” takes no more work", self->name);
}

/* Admission */

/* While the loop stops, or has. */
gboolean
bg_core_admits_late (BgCore *self)
{
  int state = atomic_load_explicit (&self->state, memory_order_relaxed);

  if (state == BG_LOOP_STOPPING && !self->closed && !bg_core_is_cancelling (self)
      && bg_core_get_current () == self)
    return TRUE;

  self->refused++;
  return FALSE;
}

void
bg_core_post_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  BgRecord record = *slot;

  if (G_LIKELY (!bg_core_is_cancelling (self)))
    {
      bg_count (&self->inbox.run, 1);
      ((BgPostFunc) record.func) (record.data);
    }
  else
    {
      bg_count (&self->inbox.cancelled, 1);
    }

  if (record.destroy != NULL)
    record.destroy (record.data);
}

static void
drop_outcome (BgRecord *slot, gpointer owner)
{
  BgRecord record = *slot;

  record.destroy (record.data);
}

/* Has accepted work destroyed where it has to be, on the loop's thread. This is
 * no work of its own. */
void
bg_core_drop_later (BgCore *self, gpointer data, GDestroyNotify destroy)
{
  bg_inbox_append (&self->inbox, G_PRIORITY_DEFAULT, drop_outcome, destroy, data, destroy);
  self->inbox.posted--;
}

void
bg_core_add_blocked (BgCore *self, BgBlocked *blocked)
{
  blocked->listed = TRUE;
  blocked->link.data = blocked;
  g_queue_push_tail_link (&self->blocked, &blocked->link);
}

/* FALSE if it is not in the list, for it has started or was closed. */
gboolean
bg_core_remove_blocked (BgCore *self, BgBlocked *blocked)
{
  if (!blocked->listed)
    return FALSE;

  blocked->listed = FALSE;
  g_queue_unlink (&self->blocked, &blocked->link);
  return TRUE;
}

void
bg_core_add_hold (BgCore *self, BgHold *hold)
{
  hold->since = g_get_monotonic_time ();
  hold->link.data = hold;
  g_queue_push_tail_link (&self->holds, &hold->link);
}

void
bg_core_remove_hold (BgCore *self, BgHold *hold)
{
  g_queue_unlink (&self->holds, &hold->link);
  if (self->holds.length == 0 && atomic_load (&self->state) != BG_LOOP_RUNNING)
    g_main_context_wakeup (self->context);
}

/* A number that is not held: they may come round again after 2³² of them. */
guint
bg_core_next_hold (BgCore *self)
{
  do
    {
      self->last_hold++;
      self->holds_came_round |= self->last_hold == 0;
    }
  while (self->last_hold == 0
         || (self->holds_came_round && bg_core_find_hold (self, self->last_hold) != NULL));

  return self->last_hold;
}

BgHold *
bg_core_find_hold (BgCore *self, guint id)
{
  if (id == 0)
    return NULL;

  for (GList *link = self->holds.tail; link != NULL; link = link->prev)
    {
      BgHold *hold = link->data;

      if (hold->id == id)
        return hold;
    }

  return NULL;
}

/* Takes out the sources that were destroyed and that nobody else has. They are to
 * be let go of on the loop's thread, where their own code belongs. */
static GPtrArray *
take_dead_sources (BgCore *self)
{
  GPtrArray *dead = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);

  for (guint i = self->attached != NULL ? self->attached->len : 0; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (self->attached, i - 1);

      if (g_source_is_destroyed (source) && g_atomic_int_get ((int *) &source->ref_count) == 1)
        g_ptr_array_add (dead, g_ptr_array_steal_index_fast (self->attached, i - 1));
    }

  return dead;
}

static void
forget_dead_sources (BgCore *self)
{
  GPtrArray *dead = take_dead_sources (self);

  self->attached_kept = self->attached->len;
  bg_core_drop_later (self, dead, (GDestroyNotify) g_ptr_array_unref);
}

gboolean
bg_core_attach (BgCore *self, GSource *source)
{
  if (!bg_core_admits (self))
    return FALSE;

  if (self->attached == NULL)
    self->attached = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  else if (self->attached->len >= 2 * self->attached_kept + 16)
    forget_dead_sources (self);

  g_ptr_array_add (self->attached, g_source_ref (source));
  g_source_attach (source, self->context);
  bg_inbox_hurry (&self->inbox);
  return TRUE;
}

/* Delayed work */

/* Its place is used again when the lock is held next for the sake of delays. */
static void
end_delay (BgCore *self, BgDelay *delay, GDestroyNotify destroy)
{
  if (destroy != NULL)
    destroy (delay->data);

  delay->next = self->ended_delays;
  self->ended_delays = delay;
}

static void
delay_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  BgDelay *delay = slot->data;

  /* What a cancelled one leaves is destroyed by another record. */
  if (!bg_delay_start (delay))
    {
      end_delay (self, delay, NULL);
      return;
    }

  if (!bg_core_is_cancelling (self))
    {
      bg_count (&self->inbox.run, 1);
      ((BgPostFunc) delay->func) (delay->data);
    }
  else
    {
      bg_count (&self->inbox.cancelled, 1);
    }

  end_delay (self, delay, delay->destroy);
}

/* On the loop's thread, with the lock held. */
static void
give_back_ended_delays (BgCore *self)
{
  while (self->ended_delays != NULL)
    {
      BgDelay *delay = self->ended_delays;

      self->ended_delays = delay->next;
      bg_delays_give_back (&self->delays, delay);
    }
}

/* Moves what is due to the inbox, so many pieces at most. */
static void
promote_due (BgCore *self, guint n)
{
  gint64 due = bg_delays_get_next_due (&self->delays);
  gint64 now = due != -1 ? g_get_monotonic_time () : 0;

  for (; n > 0 && due != -1 && due <= now; n--)
    {
      BgDelay *delay = bg_delays_take (&self->delays);

      bg_inbox_append (&self->inbox, G_PRIORITY_DEFAULT, delay_outcome, delay->func, delay, NULL);
      self->inbox.posted--;
      due = bg_delays_get_next_due (&self->delays);
    }
}

void
bg_core_promote_due (BgCore *self)
{
  promote_due (self, G_MAXUINT);
}

/* What is left due makes the timer ready at once, when others have had the lock. */
static gboolean
timer_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgCore *self = bg_core_get_current ();

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  bg_inbox_note_stray (&self->inbox);
  bg_core_lock (self);
  give_back_ended_delays (self);
  promote_due (self, DUE_BATCH);
  g_source_set_ready_time (self->timer, bg_delays_get_next_due (&self->delays));
  bg_core_unlock (self);

  return G_SOURCE_CONTINUE;
}

static GSourceFuncs timer_funcs = {
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
  gint64 next_due = bg_delays_get_next_due (&self->delays);
  guint64 id;

  if (!bg_core_admits (self))
    return 0;

  if (self->timer == NULL)
    {
      self->timer = g_source_new (&timer_funcs, sizeof (GSource));
      g_source_set_static_name (self->timer, "bgloop timer");
      g_source_attach (self->timer, self->context);
    }

  self->inbox.posted++;
  id = bg_delays_add (&self->delays, due, func, data, destroy);
  if (next_due == -1 || due < next_due)
    {
      g_source_set_ready_time (self->timer, due);
      bg_inbox_hurry (&self->inbox);
    }
  return id;
}

gboolean
bg_core_cancel_delay (BgCore *self, guint64 id)
{
  gint64 next_due = bg_delays_get_next_due (&self->delays);
  gpointer data;
  GDestroyNotify destroy;

  /* Nothing can be queued any more, and all that is left is about to be dropped. */
  if (self->closed || !bg_delays_cancel (&self->delays, id, &data, &destroy))
    return FALSE;

  self->withdrawn++;
  if (bg_delays_get_next_due (&self->delays) != next_due)
    g_source_set_ready_time (self->timer, bg_delays_get_next_due (&self->delays));
  if (destroy != NULL)
    bg_core_drop_later (self, data, destroy);
  return TRUE;
}

/* Invoked functions */

void
bg_invoke_unref (BgInvoke *self)
{
  if (g_atomic_int_dec_and_test (&self->ref_count))
    g_free (self);
}

/* Puts an invoked function into the inbox: while the loop stops, everything
 * that was accepted comes from there. Takes over the list's reference. */
void
bg_core_move_invoke (BgCore *self, BgInvoke *invoke)
{
  if (invoke->listed)
    {
      invoke->listed = FALSE;
      g_queue_unlink (&self->invokes, &invoke->link);
    }

  bg_inbox_append (&self->inbox, invoke->priority, invoke->outcome, invoke->func, invoke, NULL);
  self->inbox.posted--;
}

/* Stopping */

static void
driver_close (BgCore *self)
{
  self->closed = TRUE;
  self->finished = TRUE;
}

/* With the lock held. Replies that have arrived here are work, too: what they
 * call goes on from there. Not so in CANCEL mode, where nothing does: to a
 * callback that tries again the next refusal would be a reply. */
static gboolean
has_replies (BgCore *self)
{
  gboolean has_work;

  if (self->replies == NULL || bg_core_is_cancelling (self))
    return FALSE;

  bg_inbox_lock (self->replies);
  has_work = bg_inbox_has_work (self->replies);
  bg_inbox_unlock (self->replies);
  return has_work;
}

/* With the lock held. */
static gboolean
has_work (BgCore *self)
{
  return bg_inbox_has_work (&self->inbox) || has_replies (self);
}

static gboolean
is_held (BgCore *self)
{
  return self->holds.length > 0 || self->invokes.length > 0;
}

static gboolean
driver_prepare (GSource *source, int *timeout)
{
  BgDriver *driver = (BgDriver *) source;
  BgCore *self = driver->core;
  gboolean work, idle;

  *timeout = -1;
  if (bg_core_is_forked (self))
    return FALSE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  work = has_work (self);
  idle = !work && !is_held (self);
  self->inbox.asleep = !work;
  bg_core_unlock (self);

  if (work && driver->sits_out)
    {
      driver->sits_out = FALSE;
      *timeout = 0;
      return FALSE;
    }

  /* What iterates the context from within a callback does not end the loop. */
  return work || (idle && g_main_depth () == 0);
}

static gboolean
driver_check (GSource *source)
{
  return FALSE;
}

static gboolean
driver_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgDriver *driver = (BgDriver *) source;
  BgCore *self = driver->core;
  gboolean idle;

  bg_inbox_run (&self->inbox);
  if (self->replies != NULL && !bg_core_is_forked (self))
    bg_inbox_run (self->replies);
  driver->sits_out = TRUE;
  if (bg_core_is_forked (self))
    return G_SOURCE_CONTINUE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  idle = !has_work (self) && !is_held (self) && g_main_depth () == 1;
  if (idle)
    driver_close (self);
  bg_core_unlock (self);

  if (!idle)
    return G_SOURCE_CONTINUE;

  g_main_loop_quit (self->main_loop);
  return G_SOURCE_REMOVE;
}

static GSourceFuncs driver_funcs = {
  .prepare = driver_prepare,
  .check = driver_check,
  .dispatch = driver_dispatch,
};

/* On the loop's thread: from here on the driver is in charge. */
static gboolean
stop_cb (gpointer user_data)
{
  BgCore *self = user_data;
  GSource *source;
  GList *link, *next;

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  source = g_source_new (&driver_funcs, sizeof (BgDriver));
  ((BgDriver *) source)->core = self;
  g_source_set_static_name (source, "bgloop shutdown");
  g_source_set_priority (source, DRIVER_PRIORITY);
  g_source_set_can_recurse (source, TRUE);

  bg_core_lock (self);
  bg_inbox_set_driven (&self->inbox);
  for (link = self->invokes.head; link != NULL; link = next)
    {
      BgInvoke *invoke = link->data;

      next = link->next;
      if (!invoke->running)
        bg_core_move_invoke (self, invoke);
    }
  g_source_attach (source, self->context);
  bg_core_unlock (self);

  g_source_unref (source);
  return G_SOURCE_REMOVE;
}

/* Wakes everybody who waits for something that will not start any more. */
static void
close_blocked (BgCore *self, GQueue *blocked)
{
  GList *link;

  while ((link = g_queue_pop_head_link (blocked)) != NULL)
    {
      BgBlocked *entry = link->data;

      entry->close (entry);
    }
}

static void
take_blocked (BgCore *self, GQueue *blocked)
{
  *blocked = self->blocked;
  g_queue_init (&self->blocked);

  for (GList *link = blocked->head; link != NULL; link = link->next)
    {
      BgBlocked *entry = link->data;

      entry->listed = FALSE;
      entry->closed = TRUE;
      if (entry->slot != NULL)
        entry->slot->data = NULL;
      entry->slot = NULL;
    }
}

void
bg_core_quit (BgCore *self, BgShutdownMode mode)
{
  GQueue blocked = G_QUEUE_INIT;
  gboolean first, cancels, here = bg_core_get_current () == self;

  bg_core_lock (self);
  if (atomic_load (&self->state) == BG_LOOP_STOPPED)
    {
      bg_core_unlock (self);
      return;
    }

  first = atomic_load (&self->state) == BG_LOOP_RUNNING;
  cancels = mode == BG_SHUTDOWN_CANCEL && !bg_core_is_cancelling (self);
  if (first)
    atomic_store (&self->state, BG_LOOP_STOPPING);
  if (cancels)
    {
      atomic_store (&self->cancelling, TRUE);
      take_blocked (self, &blocked);
    }
  g_cond_broadcast (&self->changed);

  /* Under the lock, so that the loop cannot end before it has got the message:
   * a context that nobody owns would run it here. */
  if (first && !here)
    g_main_context_invoke_full (self->context, DRIVER_PRIORITY, stop_cb, bg_core_ref (self),
                                (GDestroyNotify) bg_core_unref);
  else if (cancels)
    g_main_context_wakeup (self->context);
  bg_core_unlock (self);
  bg_inbox_hurry (&self->inbox);

  if (first && here)
    g_main_context_invoke_full (self->context, DRIVER_PRIORITY, stop_cb, self, NULL);
  if (cancels)
    {
      close_blocked (self, &blocked);
      g_cancellable_cancel (self->cancellable);
    }
}

/* The end of the thread */

/* Any of the functions here may fork, and the child return: it does nothing more. */

static void
run_teardowns (BgCore *self)
{
  while (!bg_core_is_forked (self))
    {
      BgTeardown teardown;
      BgFrame outer;

      bg_core_lock (self);
      if (self->teardowns == NULL || self->teardowns->len == 0)
        {
          bg_core_unlock (self);
          return;
        }
      teardown = g_array_index (self->teardowns, BgTeardown, self->teardowns->len - 1);
      g_array_set_size (self->teardowns, self->teardowns->len - 1);
      bg_core_unlock (self);

      outer = bg_inbox_enter (&self->inbox, teardown.func);
      teardown.func (teardown.data);
      if (teardown.destroy != NULL)
        teardown.destroy (teardown.data);
      bg_inbox_leave (&self->inbox, outer);
    }
}

/* Delayed work that did not become due. */
static void
drop_delays (BgCore *self)
{
  while (!bg_core_is_forked (self))
    {
      BgDelay *delay;

      bg_core_lock (self);
      delay = bg_delays_take (&self->delays);
      bg_core_unlock (self);

      if (delay == NULL)
        return;

      bg_count (&self->inbox.cancelled, 1);
      end_delay (self, delay, delay->destroy);
    }
}

static GSourceFuncs probe_funcs = { NULL };

/* The sources in a context, which GLib has no call for. Ids are given in order, so
 * all that are there have smaller ones than a source attached now. (They come
 * round after 2³² of them; what has a higher one then, the context's own end
 * destroys.) Adds those from @first_id on, and sets it to what comes next. */
static void
find_sources (GMainContext *context, GPtrArray *sources, guint *first_id)
{
  GSource *probe = g_source_new (&probe_funcs, sizeof (GSource));
  guint end = g_source_attach (probe, context);

  g_source_destroy (probe);
  g_source_unref (probe);

  for (guint id = *first_id; id < end; id++)
    {
      GSource *source = g_main_context_find_source_by_id (context, id);

      if (source != NULL)
        g_ptr_array_add (sources, g_source_ref (source));
    }
  *first_id = end;
}

/* Destroys the sources, or only the most urgent of them. FALSE if there are none. */
static gboolean
destroy_sources (GPtrArray *sources, gboolean only_most_urgent)
{
  int urgent = G_MAXINT;
  gboolean any = FALSE;

  for (guint i = 0; i < sources->len; i++)
    {
      GSource *source = g_ptr_array_index (sources, i);

      if (!g_source_is_destroyed (source))
        urgent = MIN (urgent, g_source_get_priority (source));
    }

  for (guint i = sources->len; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (sources, i - 1);

      if (only_most_urgent && g_source_get_priority (source) != urgent)
        continue;

      any |= !g_source_is_destroyed (source);
      g_source_destroy (source);
      g_ptr_array_remove_index_fast (sources, i - 1);
    }

  return any;
}

/* Lets completions that are under way arrive, and destroys every source that is
 * left. A source that is always ready has had its turns when those below it
 * have not, so the most urgent ones go first. */
static void
clear_context (BgCore *self)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  guint first_id = 1, turns = LAST_TURNS;

  while (turns == LAST_TURNS)
    {
      turns = 0;
      while (turns < LAST_TURNS && g_main_context_iteration (self->context, FALSE))
        turns++;

      find_sources (self->context, sources, &first_id);
      if (turns == LAST_TURNS && !destroy_sources (sources, TRUE))
        break;
    }

  /* What is destroyed may attach something in turn. */
  for (guint i = 0; i < LAST_TURNS && destroy_sources (sources, FALSE); i++)
    find_sources (self->context, sources, &first_id);
}

static void
end (BgCore *self)
{
  GPtrArray *dead;
  GQueue watchers;

  /* From now on nothing becomes due: nobody would run it, nor drop it. */
  if (self->timer != NULL)
    {
      g_source_destroy (self->timer);
      g_clear_pointer (&self->timer, g_source_unref);
    }
  run_teardowns (self);
  drop_delays (self);
  if (bg_core_is_forked (self))
    return;

  bg_inbox_stop (&self->inbox);
  clear_context (self);
  if (bg_core_is_forked (self))
    return;

  bg_core_lock (self);
  dead = take_dead_sources (self);
  bg_core_unlock (self);
  g_ptr_array_unref (dead);

  g_main_context_pop_thread_default (self->context);
  g_main_context_release (self->context);
  g_private_set (&current_core, NULL);

  bg_core_lock (self);
  atomic_store (&self->state, BG_LOOP_STOPPED);
  watchers = self->end_watchers;
  g_queue_init (&self->end_watchers);
  for (GList *link = watchers.head; link != NULL; link = link->next)
    ((BgBlocked *) link->data)->listed = FALSE;
  bg_core_unlock (self);

  close_blocked (self, &watchers);
}

static gpointer
thread_cb (gpointer data)
{
  BgCore *self = data;

#if HAVE_TGKILL
  self->thread_id = syscall (SYS_gettid);
#endif
  g_private_set (&current_core, self);
  g_main_context_acquire (self->context);
  g_main_context_push_thread_default (self->context);
  find_wakeup_fd (self);
  atomic_store_explicit (&self->awake_since, g_get_monotonic_time (), memory_order_relaxed);

  bg_core_lock (self);
  atomic_store (&self->state, BG_LOOP_RUNNING);
  bg_core_unlock (self);
  bg_waiter_settle (self->starter);

  /* Whoever starts a loop has something for it to do. */
  bg_inbox_linger (&self->inbox);

  while (!self->finished)
    g_main_loop_run (self->main_loop);
  end (self);

  /* With its only thread the process would end. */
  while (bg_core_is_forked (self))
    g_main_loop_run (self->main_loop);

  bg_core_unref (self);
  return NULL;
}

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

gboolean
bg_core_start (BgCore *self, GError **error)
{
  g_autofree char *name = get_thread_name (self->name);
  BgWaiter *waiter;
  GThread *thread;

  if (self->started)
    return TRUE;

  waiter = self->starter = bg_waiter_take (NULL);
  bg_inbox_note_poster (&self->inbox);
  thread = g_thread_try_new (name, thread_cb, bg_core_ref (self), error);
  if (thread != NULL)
    {
      self->started = TRUE;
      bg_core_lock (self);
      self->thread = thread;
      self->joined = FALSE;
      bg_core_unlock (self);
      bg_waiter_spin_for_start (waiter, atomic_load (&self->inbox.linger));
      bg_waiter_wait_settled (waiter);
    }
  else
    {
      bg_core_unref (self);
    }

  self->starter = NULL;
  bg_waiter_give_back (waiter, NULL);
  return thread != NULL;
}

/* Whether the thread is gone, as far as the system tells. (If another one has got its
 * number by now, only time is lost.) */
static gboolean
has_ended (gpointer data)
{
  BgCore *self = data;
  gboolean ended = bg_core_get_state (self) == BG_LOOP_STOPPED;

#if HAVE_TGKILL
  ended = ended && syscall (SYS_tgkill, getpid (), self->thread_id, 0) == -1;
#endif
  return ended;
}

/* Stays awake for the end of the thread, if that is about to come: to be woken in
 * g_thread_join() takes longer than the end itself. */
void
bg_core_spin_for_end (BgCore *self, BgWaiter *waiter)
{
  gboolean joined;

  bg_core_lock (self);
  joined = self->joined;
  bg_core_unlock (self);
  if (joined)
    return;

  bg_waiter_spin_for_end (waiter, atomic_load (&self->inbox.linger),
                          bg_inbox_is_served_elsewhere (&self->inbox), has_ended, self);
}

/* Waits until the thread is gone. Exactly one thread joins it, the others wait
 * for that one. Once the loop is STOPPED that takes no longer than its thread
 * needs to return. */
void
bg_core_join (BgCore *self)
{
  GThread *thread;

  bg_core_lock (self);
  thread = g_steal_pointer (&self->thread);
  if (thread != NULL)
    {
      bg_core_unlock (self);
      g_thread_join (thread);
      bg_core_lock (self);
      self->joined = TRUE;
      g_cond_broadcast (&self->changed);
    }
  while (!self->joined)
    g_cond_wait (&self->changed, &self->inbox.lock);
  bg_core_unlock (self);
}

/* Waiting */

static gboolean
is_waiting (BgCore *self)
{
  return self->waits_for != NULL && !bg_waiter_is_over (self->waits_with);
}

static char *
describe_circle (BgCore *self, BgCore *target)
{
  GString *circle = g_string_new (NULL);

  g_string_append_printf (circle, "“%s” would wait for “%s”", self->name, target->name);
  for (BgCore *core = target; core != self; core = core->waits_for)
    g_string_append_printf (circle, ", which waits for “%s”", core->waits_for->name);

  return g_string_free (circle, FALSE);
}

/* Whether the loop stands still and it is this thread that has it do so: then it
 * would wait for itself. Of no cost where nobody has paused the loop. */
gboolean
bg_core_is_paused_by_me (BgCore *self)
{
  gpointer by = atomic_load_explicit (&self->pause.by, memory_order_relaxed);
  gboolean paused;

  if (G_LIKELY (by == NULL) || by != g_thread_self ())
    return FALSE;

  bg_core_lock (self);
  paused = atomic_load (&self->pause.by) == by && atomic_load (&self->state) == BG_LOOP_RUNNING;
  bg_core_unlock (self);

  return paused;
}

/* Before this thread waits for @self to do something. Refused if that could
 * never end, as this is the loop's own thread, or that of a loop that the loop
 * waits for, or has paused it. */
gboolean
bg_core_wait_begin (BgCore *self, BgWaiter *waiter, GError **error)
{
  if (bg_core_is_paused_by_me (self))
    {
      g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
                   "The loop “%s” stands still: this thread has paused it", self->name);
      return FALSE;
    }

  return bg_core_wait_begin_for_end (self, waiter, error);
}

/* The same before it waits for an end that it asks for, which ends a pause, too. Of
 * no cost to a thread that is no loop's.
 *
 * A wait that is over counts no more, though its thread may not have woken up
 * yet, or loops that call each other would see circles that do not exist. */
gboolean
bg_core_wait_begin_for_end (BgCore *self, BgWaiter *waiter, GError **error)
{
  BgCore *here = bg_core_get_current ();
  BgGlobals *globals;
  BgCore *core = self;
  gboolean circle;

  if (here == NULL || here->generation != bg_fork_generation ())
    return TRUE;

  globals = bg_globals ();
  g_mutex_lock (&globals->lock);
  while (core != here && is_waiting (core))
    core = core->waits_for;
  circle = core == here;
  if (circle)
    {
      g_autofree char *message = describe_circle (here, self);

      g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK, "This wait could never end: %s",
                   message);
    }
  else
    {
      here->waits_for = self;
      here->waits_with = waiter;
    }
  g_mutex_unlock (&globals->lock);

  return !circle;
}

void
bg_core_wait_end (BgCore *self)
{
  BgCore *here = bg_core_get_current ();
  BgGlobals *globals;

  if (here == NULL || here->waits_for != self || here->generation != bg_fork_generation ())
    return;

  globals = bg_globals ();
  g_mutex_lock (&globals->lock);
  here->waits_for = NULL;
  here->waits_with = NULL;
  g_mutex_unlock (&globals->lock);
}
