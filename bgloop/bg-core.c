/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

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

#include <bgloop/bg-core-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-glib-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-symbol-private.h>

/* The end of a loop's life, in order:
 *
 *  1. Anybody's bg_core_quit() makes it STOPPING and sends stop_cb() into the
 *     context, above every priority.
 *  2. stop_cb() hands what was accepted to the drain source, of the highest
 *     priority, that runs it in its own order and lets every other source have a
 *     turn in between.
 *  3. When nothing is queued and nothing holds the loop, the drain source quits the
 *     main loop. Below everything that may still run on it, the thread looks once
 *     more and closes the loop for good.
 *  4. The thread runs the teardown functions and clears the context.
 *  5. The thread's own destructors run; the last is the library's. The loop is STOPPED,
 *     and whoever waits for the end is told.
 *  6. Whoever waits joins it; if nobody does, the last reference lets it go. */

#define DRAIN_PRIORITY G_MININT

/* How many pieces of delayed work become due in one critical section: with fewer,
 * whoever adds many has the lock so often that what is due comes late. */
#define DUE_BATCH 128

/* How many turns a source that is always ready gets at the end, and before others
 * get one while the loop stops. */
#define LAST_TURNS 16

/* What takes so long has slept; what is shorter found something ready. */
#define SLEEP_USEC 50

/* In how many rounds at the end sources that have only just come are left alone. */
#define LATE_ROUNDS 16

/* How often what is destroyed at the end may bring about more to be destroyed. */
#define LAST_ROUNDS 10000

/* How often in CANCEL mode callbacks that were told CLOSED may ask other loops again. */
#define LAST_REPLIES 128

/* While somebody else has a source that was destroyed, an idle loop looks again after
 * 1, 2, 4… and for the last time after so many milliseconds. */
#define LAST_RECHECK_MSEC 64

/* In how many polls a loop that does not sleep looks at the sources once. */
#define BUSY_POLLS 64

/* How many priorities of sources that were attached are remembered. */
#define PRIORITIES 64

/* A thread's destructors run in so many rounds, as long as some have more to do. The
 * library's is done in the last but one: what GLib keeps for the thread is made anew by
 * what it does, and goes in the last. */
#if defined(PTHREAD_DESTRUCTOR_ITERATIONS) && PTHREAD_DESTRUCTOR_ITERATIONS > 2
#define DESTRUCTOR_ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - 1)
#else
#define DESTRUCTOR_ROUNDS 1
#endif

/* Linux takes 15 bytes; so do we everywhere. */
#define THREAD_NAME_BYTES 15

typedef struct
{
  GSource source;
  BgCore *core; /* (unowned): the source lives on the core's thread */
  gboolean yields_next;
  guint n_dispatches; /* that have not returned */
} BgDrain;

static BG_THREAD_LOCAL BgCore *current_core;
static BG_THREAD_LOCAL guint64 ended_serial; /* of the loop whose thread this was */

/* Globals */

BgGlobals *
bg_globals (void)
{
  static gpointer globals;

  return bg_fork_local (&globals, sizeof (BgGlobals));
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
  gint64 due = -1, left, usec = (gint64) timeout_msec * G_TIME_SPAN_MILLISECOND;
  struct timespec timeout;

  bg_core_lock (self);
  if (self->timer.source != NULL)
    due = g_source_get_ready_time (self->timer.source);
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

/* Sources that were destroyed and that nobody else has are let go of before the loop
 * sleeps. Others may still have one, and only looking again tells when they do not:
 * for a while the loop wakes up for that. */
static void
release_attached (BgCore *self, int *timeout_msec)
{
  guint n_shared = 0;

  bg_core_lock (self);
  if (self->sources.arriving != NULL && self->sources.arriving->len > 0)
    {
      if (self->sources.attached == NULL)
        self->sources.attached = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
      g_ptr_array_extend_and_steal (self->sources.attached,
                                    g_steal_pointer (&self->sources.arriving));
      atomic_store_explicit (&self->sources.n_arriving, 0, memory_order_relaxed);
      self->sources.recheck_msec = 0;
    }
  bg_core_unlock (self);

  for (guint i = self->sources.attached != NULL ? self->sources.attached->len : 0; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (self->sources.attached, i - 1);

      if (!g_source_is_destroyed (source))
        continue;
      if (bg_glib_source_is_unshared (source))
        g_source_unref (g_ptr_array_steal_index_fast (self->sources.attached, i - 1));
      else
        n_shared++;
    }

  if (n_shared != self->sources.n_shared)
    self->sources.recheck_msec = 0;
  self->sources.n_shared = n_shared;
  if (n_shared == 0 || self->sources.recheck_msec >= LAST_RECHECK_MSEC)
    return;

  self->sources.recheck_msec = MAX (1, 2 * self->sources.recheck_msec);
  if (*timeout_msec < 0 || *timeout_msec > (int) self->sources.recheck_msec)
    *timeout_msec = (int) self->sources.recheck_msec;
}

/* Whether as many sources were attached since they were last looked at as were left
 * then, so that looking costs each of them the same. */
static gboolean
has_doubled (BgCore *self)
{
  guint n_left = self->sources.attached != NULL ? self->sources.attached->len : 0;

  return atomic_load_explicit (&self->sources.n_arriving, memory_order_relaxed)
         >= MAX (n_left, BUSY_POLLS);
}

/* A loop that is busy and has no descriptors makes no system call: the one that wakes it
 * is of no interest while it is awake. */
static int
poll_own (BgCore *self, GPollFD *fds, guint n_fds, int timeout_msec)
{
  gint64 before = 0, now;
  GPollFD *wakeup;
  int n_ready;

  wakeup = find_fd (fds, n_fds, self->thread.wakeup_fd);
  if (timeout_msec == 0 && wakeup != NULL && n_fds == 1)
    {
      wakeup->revents = 0;
      return 0;
    }

  /* Without it, this is not the loop's own context. */
  if (timeout_msec == 0 || (wakeup == NULL && self->thread.wakeup_fd != -1))
    return g_poll (fds, n_fds, timeout_msec);

  if (atomic_load_explicit (&self->sources.has_attached, memory_order_relaxed))
    release_attached (self, &timeout_msec);

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
static int
poll_cb (GPollFD *fds, guint n_fds, int timeout_msec)
{
  BgCore *self = current_core;
  int n_ready;

  if (self == NULL || bg_core_is_forked (self))
    return g_poll (fds, n_fds, timeout_msec);

  /* A loop that never sleeps lets go of sources, too. */
  if (timeout_msec == 0 && atomic_load_explicit (&self->sources.has_attached, memory_order_relaxed)
      && (++self->sources.busy_polls % BUSY_POLLS == 0 || has_doubled (self)))
    release_attached (self, &timeout_msec);

  n_ready = poll_own (self, fds, n_fds, timeout_msec);
  if (!bg_core_is_forked (self))
    bg_inbox_awake (&self->inbox);
  return n_ready;
}

/* Life */

static void
enlist (BgCore *self)
{
  BgGlobals *globals = bg_globals ();

  self->registration.made_at = g_get_monotonic_time ();
  self->registration.link.data = self;
  g_mutex_lock (&globals->lock);
  self->registration.serial = ++globals->last_core;
  g_queue_push_tail_link (&globals->cores, &self->registration.link);
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
      g_queue_unlink (&globals->cores, &self->registration.link);
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
  self->generation = bg_fork_generation ();
  self->waits.actor.generation = self->generation;
  self->waits.actor.name = self->name;
  self->cancellable = g_cancellable_new ();
  self->context = bg_glib_context_new (&self->failure);
  if (self->context != NULL)
    {
      g_main_context_set_poll_func (self->context, poll_cb);
      self->main_loop = g_main_loop_new (self->context, FALSE);
    }
  bg_inbox_init (&self->inbox, self->context, self);
  atomic_init (&self->inbox.linger.n_expected, 1);
  g_cond_init (&self->changed);
  atomic_init (&self->state, BG_LOOP_STOPPED);
  self->thread.joined = TRUE; /* until it is started there is nothing to join */
  self->thread.gone = TRUE;
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
free_holds (BgCore *self)
{
  GList *link;

  while ((link = self->holds.list.head) != NULL)
    {
      BgHold *hold = link->data;

      g_queue_unlink (&self->holds.list, link);
      if (hold->id != 0)
        {
          g_free (hold->reason);
          g_free (hold);
        }
    }
  g_clear_pointer (&self->holds.by_id, g_hash_table_unref);
}

/* The context outlives the loop where an operation that was begun there may come back,
 * and where others may have sources that were in it. */
static void
free_context (BgCore *self)
{
  GPtrArray *handles = g_steal_pointer (&self->sources.attached);

  if (handles == NULL)
    handles = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  if (self->sources.arriving != NULL)
    g_ptr_array_extend_and_steal (handles, g_steal_pointer (&self->sources.arriving));

  if (self->sources.kept != NULL)
    g_ptr_array_extend_and_steal (handles, g_steal_pointer (&self->sources.kept));

  if (self->operations.began || handles->len > 0)
    {
      bg_glib_retire_context (self->context, handles, self->sources.n_had);
      return;
    }

  g_ptr_array_unref (handles);
  g_main_context_unref (self->context);
}

static void
core_free (BgCore *self)
{
  BgGlobals *globals = bg_core_is_forked (self) ? NULL : bg_globals ();

  delist (globals, self);
  g_clear_pointer (&self->mailbox, bg_mailbox_unref);
  bg_inbox_clear (&self->inbox);
  bg_delays_clear (&self->timer.delays);
  g_cond_clear (&self->changed);
  free_holds (self);
  g_clear_pointer (&self->stopping.torn_down, g_hash_table_unref);
  g_clear_pointer (&self->sources.priorities, g_array_unref);
  g_clear_pointer (&self->operations.spare_cancellables, g_ptr_array_unref);
  g_clear_pointer (&self->main_loop, g_main_loop_unref);
  g_object_unref (self->cancellable);
  if (self->context != NULL)
    free_context (self);
  g_clear_error (&self->failure);
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
  self->ownership.dropped = TRUE;
  thread = g_steal_pointer (&self->thread.handle);
  bg_core_unlock (self);

  if (thread != NULL)
    g_thread_unref (thread);
  bg_core_unref (self);
}

/* Looking */

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

/* Whether the loop has ended, with its thread and the handlers of its cancellable. */
gboolean
bg_core_is_gone (BgCore *self)
{
  gboolean gone;

  bg_core_lock (self);
  gone = self->thread.gone && self->stopping.n_handling == 0;
  bg_core_unlock (self);

  return gone;
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
  return atomic_load_explicit (&self->stopping.cancelling, memory_order_acquire);
}

void
bg_core_set_refused_error (BgCore *self, GError **error)
{
  if (bg_core_is_forked (self))
    g_set_error (error, BG_ERROR, BG_ERROR_FORKED,
                 "The loop “%s” belongs to the process that this one was forked from", self->name);
  else if (self->failure != NULL)
    g_propagate_error (error, g_error_copy (self->failure));
  else
    g_set_error (error, BG_ERROR, BG_ERROR_CLOSED, "The loop “%s” takes no more work", self->name);
}

/* Admission */

/* While the loop stops, or has. */
gboolean
bg_core_admits_late (BgCore *self)
{
  int state = atomic_load_explicit (&self->state, memory_order_relaxed);

  if (state == BG_LOOP_STOPPING && !self->stopping.closed && !bg_core_is_cancelling (self)
      && current_core == self)
    return TRUE;

  self->refused++;
  return FALSE;
}

void
bg_core_post_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  GDestroyNotify destroy = slot->destroy;
  gpointer data = slot->data;

  if (destroy != NULL)
    bg_inbox_keep (&self->inbox, slot);

  if (G_LIKELY (!bg_core_is_cancelling (self)))
    {
      ((BgPostFunc) slot->func) (data);
      bg_count (&self->inbox.counts.run, 1);
    }
  else
    {
      bg_count (&self->inbox.counts.cancelled, 1);
    }

  if (destroy == NULL)
    return;

  bg_inbox_drop_kept (&self->inbox);
  destroy (data);
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
  bg_inbox_requeue (&self->inbox, G_PRIORITY_DEFAULT, drop_outcome, destroy, data, destroy);
}

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

/* Takes work back that has not started: it counts as cancelled from now on. */
void
bg_core_withdraw (BgCore *self, BgBlocked *blocked)
{
  bg_inbox_withdraw (&self->inbox, blocked->slot, blocked->priority);
  blocked->slot = NULL;
  self->waits.withdrawn++;
}

/* A hold that somebody is to release has an id from here. */
void
bg_core_add_hold (BgCore *self, BgHold *hold)
{
  if (hold->reason != NULL)
    {
      hold->id = ++self->holds.last_id;
      if (self->holds.by_id == NULL)
        self->holds.by_id = g_hash_table_new (g_int64_hash, g_int64_equal);
      g_hash_table_add (self->holds.by_id, &hold->id);
    }
  hold->since = g_get_monotonic_time ();
  hold->link.data = hold;
  g_queue_push_tail_link (&self->holds.list, &hold->link);
}

void
bg_core_remove_hold (BgCore *self, BgHold *hold)
{
  if (hold->id != 0)
    g_hash_table_remove (self->holds.by_id, &hold->id);
  g_queue_unlink (&self->holds.list, &hold->link);
  if (self->holds.list.length == 0 && atomic_load (&self->state) == BG_LOOP_STOPPING)
    g_main_context_wakeup (self->context);
}

BgHold *
bg_core_find_hold (BgCore *self, guint64 id)
{
  guint64 *found = self->holds.by_id != NULL ? g_hash_table_lookup (self->holds.by_id, &id) : NULL;

  return found != NULL ? (gpointer) ((char *) found - G_STRUCT_OFFSET (BgHold, id)) : NULL;
}

/* Sources */

static void
remember_priority (BgCore *self, int priority)
{
  if (self->sources.priorities == NULL)
    self->sources.priorities = g_array_new (FALSE, FALSE, sizeof (int));
  for (guint i = 0; i < self->sources.priorities->len; i++)
    {
      if (g_array_index (self->sources.priorities, int, i) == priority)
        return;
    }
  if (self->sources.priorities->len < PRIORITIES)
    g_array_append_val (self->sources.priorities, priority);
}

gboolean
bg_core_attach (BgCore *self, GSource *source)
{
  if (!bg_core_admits (self))
    return FALSE;

  if (self->sources.arriving == NULL)
    self->sources.arriving = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  g_ptr_array_add (self->sources.arriving, g_source_ref (source));
  atomic_store_explicit (&self->sources.n_arriving, self->sources.arriving->len,
                         memory_order_relaxed);
  atomic_store_explicit (&self->sources.has_attached, TRUE, memory_order_relaxed);
  remember_priority (self, g_source_get_priority (source));
  g_source_attach (source, self->context);
  bg_inbox_interrupt (&self->inbox);
  return TRUE;
}

/* Teardown functions */

guint64
bg_core_add_teardown (BgCore *self, BgTeardown *teardown)
{
  teardown->id = ++self->stopping.last_teardown;
  if (self->stopping.torn_down == NULL)
    self->stopping.torn_down = g_hash_table_new (g_int64_hash, g_int64_equal);
  g_hash_table_add (self->stopping.torn_down, &teardown->id);
  g_queue_push_tail_link (&self->stopping.teardowns, &teardown->link);
  return teardown->id;
}

static void
take_teardown (BgCore *self, BgTeardown *teardown)
{
  g_hash_table_remove (self->stopping.torn_down, &teardown->id);
  g_queue_unlink (&self->stopping.teardowns, &teardown->link);
}

static void
destroy_teardown (gpointer data)
{
  BgTeardown teardown = *(BgTeardown *) data;

  /* The notify may end the thread. */
  g_free (data);
  if (teardown.destroy != NULL)
    teardown.destroy (teardown.data);
}

/* FALSE if it has started, or is not there. */
gboolean
bg_core_remove_teardown (BgCore *self, guint64 id)
{
  guint64 *found = self->stopping.torn_down != NULL
                       ? g_hash_table_lookup (self->stopping.torn_down, &id)
                       : NULL;
  BgTeardown *teardown;

  if (found == NULL)
    return FALSE;

  teardown = (gpointer) ((char *) found - G_STRUCT_OFFSET (BgTeardown, id));
  take_teardown (self, teardown);
  bg_core_drop_later (self, teardown, destroy_teardown);
  return TRUE;
}

/* Delayed work */

/* Its place is used again when the lock is held next for the sake of delays. */
static void
end_delay (BgCore *self, BgDelay *delay, GDestroyNotify destroy)
{
  if (destroy != NULL)
    destroy (delay->data);

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
      end_delay (self, delay, NULL);
      return;
    }

  record = bg_inbox_keep (&self->inbox, slot);
  record->outcome = half_done_delay_outcome;
  record->destroy = delay->destroy;
  if (!bg_core_is_cancelling (self))
    {
      ((BgPostFunc) delay->func) (delay->data);
      bg_count (&self->inbox.counts.run, 1);
    }
  else
    {
      bg_count (&self->inbox.counts.cancelled, 1);
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

void
bg_core_set_timer (BgCore *self, gint64 due)
{
  atomic_store_explicit (&self->inbox.linger.due_at, due, memory_order_relaxed);
  if (self->timer.source != NULL)
    g_source_set_ready_time (self->timer.source, due);
}

/* What is left due makes the timer ready at once, when others have had the lock. */
static gboolean
timer_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgCore *self = current_core;

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  bg_inbox_note_stale_dispatch (&self->inbox);
  bg_core_lock (self);
  give_back_ended_delays (self);
  promote_due (self, DUE_BATCH);
  bg_core_set_timer (self, bg_delays_get_next_due (&self->timer.delays));
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
  gint64 next_due = bg_delays_get_next_due (&self->timer.delays);
  guint64 id;

  if (!bg_core_admits (self))
    return 0;

  if (self->timer.source == NULL)
    {
      self->timer.source = g_source_new (&timer_funcs, sizeof (GSource));
      g_source_set_static_name (self->timer.source, "bgloop timer");
      g_source_attach (self->timer.source, self->context);
      self->sources.n_own++;
    }

  self->inbox.posted++;
  id = bg_delays_add (&self->timer.delays, due, func, data, destroy);
  if (next_due == -1 || due < next_due)
    {
      bg_core_set_timer (self, due);
      bg_inbox_interrupt (&self->inbox);
    }
  return id;
}

gboolean
bg_core_cancel_delay (BgCore *self, guint64 id)
{
  gint64 next_due = bg_delays_get_next_due (&self->timer.delays);
  gpointer data;
  GDestroyNotify destroy;

  if (!bg_delays_cancel (&self->timer.delays, id, &data, &destroy))
    return FALSE;

  self->waits.withdrawn++;
  if (bg_delays_get_next_due (&self->timer.delays) != next_due)
    bg_core_set_timer (self, bg_delays_get_next_due (&self->timer.delays));
  if (destroy != NULL)
    bg_core_drop_later (self, data, destroy);
  return TRUE;
}

/* Invoked functions */

static void
invoke_dropped_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgInvoke *self = slot->data;

  GDestroyNotify notify = self->notify;
  gpointer data = self->data;

  bg_count (&core->inbox.counts.cancelled, 1);
  bg_invoke_unref (self);
  if (notify != NULL)
    notify (data);
}

void
bg_invoke_unref (BgInvoke *self)
{
  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  bg_core_unref (self->core);
  g_free (self);
}

/* The function's source is gone. If it was to run the function, that never runs. */
void
bg_invoke_abandon (BgInvoke *self)
{
  BgCore *core = self->core;

  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  if (self->listed && !self->running)
    {
      self->listed = FALSE;
      g_queue_unlink (&core->invokes.list, &self->link);
      bg_inbox_requeue (&core->inbox, self->priority, invoke_dropped_outcome, self->func, self,
                        NULL);
    }
  bg_core_unlock (core);
  bg_invoke_unref (self);
}

/* Puts an invoked function into the inbox: while the loop stops, everything
 * that was accepted comes from there. Takes over the list's reference. */
void
bg_core_move_invoke (BgCore *self, BgInvoke *invoke)
{
  if (invoke->listed)
    {
      invoke->listed = FALSE;
      g_queue_unlink (&self->invokes.list, &invoke->link);
    }

  bg_inbox_requeue (&self->inbox, invoke->priority, invoke->outcome, invoke->func, invoke, NULL);
}

/* Stopping */

/* With the lock held. Replies that have arrived here are work, too: what they
 * call goes on from there. */
static gboolean
has_replies (BgCore *self)
{
  return self->mailbox != NULL && bg_mailbox_has_replies (self->mailbox);
}

/* With the lock held. */
static gboolean
has_work (BgCore *self)
{
  return bg_inbox_has_work (&self->inbox) || has_replies (self)
         || (bg_core_is_cancelling (self) && bg_delays_get_next_due (&self->timer.delays) != -1);
}

/* With the lock held. In CANCEL mode nobody waits for other loops' replies. */
static gboolean
is_held (BgCore *self)
{
  return self->holds.list.length > 0 || self->invokes.list.length > 0
         || (!bg_core_is_cancelling (self) && self->mailbox != NULL
             && bg_mailbox_is_owed (self->mailbox));
}

/* With the lock held, on the loop's thread. In this order: a reply that is owed becomes
 * one that has arrived. */
static gboolean
is_idle (BgCore *self)
{
  return !is_held (self) && !has_work (self);
}

static gboolean
drain_prepare (GSource *source, int *timeout)
{
  BgDrain *drain = (BgDrain *) source;
  BgCore *self = drain->core;
  gboolean work, idle;

  *timeout = -1;
  if (bg_core_is_forked (self))
    return FALSE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  idle = is_idle (self);
  work = !idle && has_work (self);
  if (work)
    self->inbox.asleep = FALSE;
  else
    bg_inbox_fall_asleep (&self->inbox);
  bg_core_unlock (self);

  /* Two turns of the other sources in a row would be one of those that are always
   * ready and none of the drain source. */
  if (!work && !idle && ++self->stopping.starved > LAST_TURNS)
    return TRUE;

  if (work && drain->yields_next)
    {
      drain->yields_next = FALSE;
      *timeout = 0;
      return FALSE;
    }

  return work || (idle && !self->thread.finished);
}

static gboolean
drain_check (GSource *source)
{
  return FALSE;
}

static gboolean
is_own_source (BgCore *self, GSource *source)
{
  return source == self->timer.source || source == self->stopping.drain
         || bg_inbox_owns (&self->inbox, source)
         || (self->mailbox != NULL && bg_mailbox_owns (self->mailbox, source));
}

static GPtrArray *
get_kept (BgCore *self)
{
  if (self->sources.kept == NULL)
    self->sources.kept = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  return self->sources.kept;
}

static void drop_delays (BgCore *self);

/* Sources of one priority that are always ready keep those below from having a turn,
 * an answer that the loop waits for perhaps among them. So the most urgent ones go
 * behind all others, which they would do anyway at the end. */
static void
demote_most_urgent (BgCore *self)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  int urgent = G_MAXINT;

  self->stopping.starved = 0;
  bg_glib_list_sources (self->context, self->sources.priorities, 0, sources);
  for (guint i = sources->len; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (sources, i - 1);

      if (is_own_source (self, source))
        g_ptr_array_remove_index (sources, i - 1);
      else
        urgent = MIN (urgent, g_source_get_priority (source));
    }

  /* In this order a source comes before its children, which go with it and may not be
   * moved alone. */
  for (guint i = 0; i < sources->len; i++)
    {
      GSource *source = g_ptr_array_index (sources, i);

      if (g_source_get_priority (source) != urgent)
        continue;

      g_source_set_priority (source, G_MAXINT);
      /* Another thread has just destroyed it, and it came back to what is polled: it
       * stays as long as the context. */
      if (g_source_is_destroyed (source))
        g_ptr_array_add (get_kept (self), g_source_ref (source));
    }
}

static void attach_drain (BgCore *self);

/* Tells callbacks that wait for another loop that they need not, when nothing else is
 * left to do in CANCEL mode. */
static void
close_owed (BgCore *self)
{
  if (self->mailbox != NULL && bg_core_is_cancelling (self)
      && self->stopping.n_closings++ < LAST_REPLIES)
    bg_mailbox_close_owed (self->mailbox, self->name);
}

static gboolean
drain_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgDrain *drain = (BgDrain *) source;
  BgCore *self = drain->core;
  gboolean idle;

  if (self->stopping.starved > LAST_TURNS)
    {
      demote_most_urgent (self);
      return G_SOURCE_CONTINUE;
    }

  drain->n_dispatches++;
  bg_inbox_run (&self->inbox);
  if (bg_core_is_cancelling (self))
    drop_delays (self);
  if (self->mailbox != NULL && !bg_core_is_forked (self))
    bg_mailbox_serve (self->mailbox);
  drain->n_dispatches--;
  drain->yields_next = TRUE;
  if (bg_core_is_forked (self))
    return G_SOURCE_CONTINUE;

  bg_core_lock (self);
  if (!bg_core_is_cancelling (self))
    bg_core_promote_due (self);
  idle = is_idle (self);
  bg_core_unlock (self);
  if (idle)
    {
      close_owed (self);
      bg_core_lock (self);
      idle = is_idle (self);
      bg_core_unlock (self);
    }

  /* What runs around this goes on first: only the thread itself closes the loop. */
  if (idle)
    {
      self->thread.finished = TRUE;
      g_main_loop_quit (self->main_loop);
    }

  /* Being run by it, somebody has destroyed it by mistake. */
  if (G_UNLIKELY (g_source_is_destroyed (source)))
    attach_drain (self);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs drain_funcs = {
  .prepare = drain_prepare,
  .check = drain_check,
  .dispatch = drain_dispatch,
};

static void
attach_drain (BgCore *self)
{
  GSource *source = g_source_new (&drain_funcs, sizeof (BgDrain));

  ((BgDrain *) source)->core = self;
  g_source_set_static_name (source, "bgloop drain");
  g_source_set_priority (source, DRAIN_PRIORITY);
  g_source_set_can_recurse (source, TRUE);
  g_source_attach (source, self->context);
  g_source_unref (source);
  self->stopping.drain = source;
  self->sources.n_own++;
}

/* With the lock held, on the loop's thread: what was accepted is served by
 * bg_inbox_run() from here on. */
static void
begin_drain (BgCore *self)
{
  GList *link, *next;

  bg_inbox_pause (&self->inbox);
  for (link = self->invokes.list.head; link != NULL; link = next)
    {
      BgInvoke *invoke = link->data;

      next = link->next;
      if (!invoke->running)
        bg_core_move_invoke (self, invoke);
    }
}

static gboolean
stop_cb (gpointer user_data)
{
  BgCore *self = user_data;

  if (bg_core_is_forked (self) || self->thread.ended)
    return G_SOURCE_REMOVE;

  bg_core_lock (self);
  begin_drain (self);
  attach_drain (self);
  bg_core_unlock (self);

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
  *blocked = self->waits.blocked;
  g_queue_init (&self->waits.blocked);

  for (GList *link = blocked->head; link != NULL; link = link->next)
    {
      BgBlocked *entry = link->data;

      entry->listed = FALSE;
      entry->closed = TRUE;
      if (entry->slot != NULL)
        bg_core_withdraw (self, entry);
    }
}

/* Once the thread has ended and the handlers of the cancellable have returned, tells
 * whoever waits for that. */
static void
report_end (BgCore *self)
{
  GQueue watchers = G_QUEUE_INIT;

  bg_core_lock (self);
  if (self->thread.gone && self->stopping.n_handling == 0)
    {
      watchers = self->stopping.end_watchers;
      g_queue_init (&self->stopping.end_watchers);
      for (GList *link = watchers.head; link != NULL; link = link->next)
        ((BgBlocked *) link->data)->listed = FALSE;
      g_cond_broadcast (&self->changed);
    }
  bg_core_unlock (self);

  close_blocked (self, &watchers);
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

static gboolean
is_all_over (BgCore *self)
{
  gboolean ended;

  bg_core_lock (self);
  ended = self->thread.ended;
  bg_core_unlock (self);

  return ended;
}

static void
stop_heeding (BgCore *self)
{
  gulong handler = atomic_exchange (&self->operations.cancelled_handler, 0);

  if (handler != 0)
    g_signal_handler_disconnect (self->cancellable, handler);
}

/* Before an operation is admitted: from now on the loop's cancellable cancels it. Most
 * loops have none, and GObject's lock for signals is better left alone: other threads may
 * hold it as this one forks. */
void
bg_core_heed_cancellable (BgCore *self)
{
  gulong none = 0, handler;

  if (G_LIKELY (atomic_load (&self->operations.cancelled_handler) != 0) || bg_core_is_forked (self)
      || is_all_over (self))
    return;

  handler = g_signal_connect_data (self->cancellable, "cancelled", G_CALLBACK (cancelled_cb),
                                   bg_core_ref (self), closure_unref_cb, 0);
  if (!atomic_compare_exchange_strong (&self->operations.cancelled_handler, &none, handler))
    g_signal_handler_disconnect (self->cancellable, handler);
  else if (is_all_over (self))
    stop_heeding (self);
}

typedef struct
{
  BgHandling handling;
  BgCore *core;
} BgCancelling;

/* Also if a handler has ended the thread. */
static void
end_handling (gpointer data)
{
  BgCancelling *cancelling = data;
  BgCore *self = cancelling->core;

  bg_handling_end (&cancelling->handling);

  /* A handler has forked, and has come back in the child. */
  if (bg_core_is_forked (self))
    return;

  bg_core_lock (self);
  self->stopping.n_handling--;
  bg_core_unlock (self);
  report_end (self);
}

/* Tells everybody that the loop is being cancelled: the second half of what began with
 * n_handling. */
static void
cancel (BgCore *self, GQueue *blocked)
{
  BgCancelling cancelling = { .core = self };

  bg_handling_begin (&cancelling.handling, &self->waits.actor);
  close_blocked (self, blocked);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_push (end_handling, &cancelling);
#endif
  g_cancellable_cancel (self->cancellable);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_pop (0);
#endif
  end_handling (&cancelling);
}

void
bg_core_quit (BgCore *self, BgShutdownMode mode)
{
  GQueue blocked = G_QUEUE_INIT;
  gboolean first, cancels, here = current_core == self;

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
      atomic_store (&self->stopping.cancelling, TRUE);
      self->stopping.n_handling++;
      take_blocked (self, &blocked);
    }
  g_cond_broadcast (&self->changed);

  /* Under the lock, so that the loop cannot end before it has got the message:
   * a context that nobody owns would run it here. */
  if (first && !here)
    {
      self->sources.n_own++;
      g_main_context_invoke_full (self->context, DRAIN_PRIORITY, stop_cb, bg_core_ref (self),
                                  (GDestroyNotify) bg_core_unref);
    }
  else if (cancels)
    {
      g_main_context_wakeup (self->context);
    }
  bg_core_ref (self);
  bg_core_unlock (self);
  bg_inbox_interrupt (&self->inbox);

  if (first && here)
    g_main_context_invoke_full (self->context, DRAIN_PRIORITY, stop_cb, self, NULL);
  if (cancels)
    cancel (self, &blocked);
  bg_core_unref (self);
}

/* The end of the thread */

/* Any of the functions here may fork, and the child return: it does nothing more. */

static void
run_teardown (BgCore *self, BgTeardown *teardown)
{
  BgRecord *record;

  bg_inbox_push_activity (&self->inbox, teardown->func);
  record = &self->inbox.activities.current->kept;
  *record = (BgRecord){ drop_outcome, teardown->func, teardown, destroy_teardown };
  teardown->func (teardown->data);
  record->outcome = NULL;
  if (!bg_core_is_forked (self))
    {
      destroy_teardown (teardown);
      bg_inbox_pop_activity (&self->inbox);
    }
}

static void
run_teardowns (BgCore *self)
{
  while (!bg_core_is_forked (self))
    {
      BgTeardown *teardown;

      bg_core_lock (self);
      teardown = g_queue_peek_tail (&self->stopping.teardowns);
      if (teardown != NULL)
        take_teardown (self, teardown);
      bg_core_unlock (self);
      if (teardown == NULL)
        return;

      run_teardown (self, teardown);
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
      delay = bg_delays_take (&self->timer.delays);
      if (delay != NULL)
        bg_delay_start (delay);
      bg_core_unlock (self);

      if (delay == NULL)
        return;

      bg_count (&self->inbox.counts.cancelled, 1);
      end_delay (self, delay, delay->destroy);
    }
}

static guint
count_own_sources (BgCore *self)
{
  guint n = self->sources.n_own + self->inbox.n_sources;

  if (self->mailbox != NULL)
    n += bg_mailbox_get_n_sources (self->mailbox);
  return n;
}

/* Lets completions that are under way arrive, and destroys every source that is
 * left. A source that is always ready has had its turns when those below it have not,
 * so the most urgent ones go first. What came since the last round may have had no turn,
 * such as the completion of a task that has returned on another thread just now: it
 * stays for another round, or the task would refer to the context for ever. What is
 * destroyed may attach something in turn, but neither that is for ever. */
static void
clear_context (BgCore *self)
{
  guint rounds = 0, left = 1;

  while (left > 0 && rounds++ < LAST_ROUNDS)
    {
      g_autoptr (GPtrArray) sources
          = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
      guint last_id = rounds > LATE_ROUNDS ? G_MAXUINT : self->sources.n_had;
      int urgent = G_MAXINT;
      guint turns = 0;

      while (turns < LAST_TURNS && g_main_context_iteration (self->context, FALSE))
        turns++;

      self->sources.n_had = bg_glib_list_sources (self->context, self->sources.priorities,
                                                  count_own_sources (self), sources);
      self->sources.n_own++; /* the probe */
      for (guint i = sources->len; i > 0; i--)
        {
          GSource *source = g_ptr_array_index (sources, i - 1);

          if (self->mailbox != NULL && bg_mailbox_owns (self->mailbox, source))
            g_ptr_array_remove_index (sources, i - 1);
          else
            urgent = MIN (urgent, g_source_get_priority (source));
        }

      left = sources->len;
      for (guint i = 0; i < sources->len; i++)
        {
          GSource *source = g_ptr_array_index (sources, i);

          if (bg_glib_get_source_id (source) <= last_id
              && (turns < LAST_TURNS || g_source_get_priority (source) == urgent))
            g_source_destroy (source);
        }
    }
}

/* Replies that what was destroyed has brought about. FALSE if there are none. */
static gboolean
serve_last_replies (BgCore *self)
{
  gboolean any = FALSE;

  if (self->mailbox == NULL)
    return FALSE;

  bg_mailbox_close_owed (self->mailbox, self->name);
  for (guint i = 0; i < LAST_ROUNDS && bg_mailbox_has_replies (self->mailbox); i++)
    {
      any = TRUE;
      bg_mailbox_serve (self->mailbox);
      if (bg_core_is_forked (self))
        return FALSE;
    }
  return any;
}

/* What was attached and nobody else has goes here, where its own code belongs. */
static void
clear_attached (BgCore *self)
{
  int timeout = 0;

  bg_core_lock (self);
  if (self->sources.arriving == NULL)
    self->sources.arriving = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  bg_core_unlock (self);

  release_attached (self, &timeout);
  for (guint i = 0; self->sources.attached != NULL && i < self->sources.attached->len; i++)
    g_source_destroy (g_ptr_array_index (self->sources.attached, i));
  release_attached (self, &timeout);
}

/* What is left when the loop is closed for good: teardown functions, and whatever they
 * and destroy notifies bring about. */
static void
run_last (BgCore *self)
{
  gboolean more = TRUE;
  guint rounds = 0;

  while (more && !bg_core_is_forked (self))
    {
      run_teardowns (self);
      drop_delays (self);
      if (bg_core_is_forked (self))
        return;

      bg_inbox_run (&self->inbox);
      if (self->mailbox != NULL && !bg_core_is_forked (self))
        {
          bg_mailbox_close_owed (self->mailbox, self->name);
          if (rounds++ < LAST_ROUNDS)
            bg_mailbox_serve (self->mailbox);
        }
      if (bg_core_is_forked (self))
        return;

      bg_core_lock (self);
      more = self->stopping.teardowns.length > 0
             || bg_delays_get_next_due (&self->timer.delays) != -1
             || bg_inbox_has_work (&self->inbox) || (has_replies (self) && rounds < LAST_ROUNDS);
      bg_core_unlock (self);
    }
}

static void
end (BgCore *self)
{
  guint rounds = 0;
  GSource *timer;

  /* From now on nothing becomes due: nobody would run it, nor drop it. */
  bg_core_lock (self);
  timer = g_steal_pointer (&self->timer.source);
  if (self->stopping.drain != NULL)
    g_source_destroy (g_steal_pointer (&self->stopping.drain));
  atomic_store_explicit (&self->inbox.linger.due_at, -1, memory_order_relaxed);
  bg_core_unlock (self);
  if (timer != NULL)
    {
      g_source_destroy (timer);
      g_source_unref (timer);
    }

  run_last (self);
  if (bg_core_is_forked (self))
    return;

  bg_inbox_stop (&self->inbox);
  /* The context may outlive the core. */
  if (self->stopping.drain != NULL)
    g_source_destroy (self->stopping.drain);
  self->stopping.drain = NULL;
  /* Notifies run, and what they bring about goes with what is left here. */
  bg_glib_release_retired ();
  do
    {
      if (bg_core_is_forked (self))
        return;
      if (atomic_load (&self->sources.has_attached))
        clear_attached (self);
      clear_context (self);
      if (bg_core_is_forked (self))
        return;
      if (atomic_load (&self->sources.has_attached))
        clear_attached (self);
    }
  while (serve_last_replies (self) && rounds++ < LAST_REPLIES);
  if (bg_core_is_forked (self))
    return;
  if (self->mailbox != NULL)
    bg_mailbox_close (self->mailbox);

  g_main_context_pop_thread_default (self->context);
  g_main_context_release (self->context);

  bg_core_lock (self);
  self->thread.ended = TRUE;
  atomic_store_explicit (&self->thread.awake_at, 0, memory_order_relaxed);
  bg_core_unlock (self);
  stop_heeding (self);
}

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
      closed = self->stopping.closed = self->thread.finished && is_idle (self);
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
      && !is_own_source (self, source))
    bg_glib_abandon_dispatch_of_others (source, get_kept (self));
  self->thread.abandoned_depth = g_main_depth ();
}

/* Something has ended the thread under the loop: everything gets its outcome here, as
 * in CANCEL mode, whatever holds the loop. */
static void
abandon (BgCore *self)
{
  GQueue blocked = G_QUEUE_INIT;
  gpointer func = atomic_load (&self->inbox.activities.running);
  g_autofree char *name = NULL;
  gboolean cancels;

  if (!self->thread.exited)
    {
      name = func != NULL ? bg_symbol_describe (func) : g_strdup ("a source of its context");
      self->thread.exited = TRUE;
      g_critical ("%s has ended the thread of the loop “%s”, which is the loop's own", name,
                  self->name);
    }

  bg_core_lock (self);
  cancels = !bg_core_is_cancelling (self);
  atomic_store (&self->state, BG_LOOP_STOPPING);
  atomic_store (&self->stopping.cancelling, TRUE);
  if (cancels)
    {
      self->stopping.n_handling++;
      take_blocked (self, &blocked);
    }
  self->stopping.closed = TRUE;
  g_cond_broadcast (&self->changed);
  bg_core_unlock (self);

  /* g_main_loop_run() does not return to give back what it has. */
  if (self->thread.runs)
    {
      g_main_loop_unref (self->main_loop);
      g_main_context_release (self->context);
    }
  self->thread.runs = FALSE;

  abandon_current_source (self);
  bg_actor_abandon_waits (&self->waits.actor);
  bg_inbox_abandon_activities (&self->inbox, get_kept (self));
  if (self->mailbox != NULL)
    bg_mailbox_abandon (self->mailbox, get_kept (self));
  if (self->stopping.drain != NULL)
    bg_glib_abandon_dispatches (self->stopping.drain,
                                ((BgDrain *) self->stopping.drain)->n_dispatches, get_kept (self));
  bg_core_lock (self);
  begin_drain (self);
  bg_core_unlock (self);
  if (cancels)
    cancel (self, &blocked);
  while (g_main_context_get_thread_default () != self->context
         && g_main_context_get_thread_default () != NULL)
    g_main_context_pop_thread_default (g_main_context_get_thread_default ());
  end (self);
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
    end (self);
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
  report_end (self);

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
  bg_waiter_settle (self->thread.starter);
  bg_glib_release_retired ();

  /* Whoever starts a loop has something for it to do. */
  bg_inbox_linger (&self->inbox);

  run_and_end (self);

  /* With its only thread the process would end. */
  while (bg_core_is_forked (self))
    g_main_loop_run (self->main_loop);

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
  bg_inbox_note_poster (&self->inbox);
  thread = g_thread_try_new (name, thread_cb, bg_core_ref (self), &self->failure);
  if (thread != NULL)
    {
      bg_core_lock (self);
      self->thread.handle = thread;
      self->thread.joined = FALSE;
      self->thread.gone = FALSE;
      bg_core_unlock (self);
      bg_waiter_spin_for_start (waiter, atomic_load (&self->inbox.linger.usec));
      bg_waiter_wait_settled (waiter);
    }
  else
    {
      bg_core_unref (self);
    }

  self->thread.starter = NULL;
  bg_waiter_give_back (waiter, NULL);
}

/* Waiting for the end */

/* With the lock held: has @watcher closed when the loop has ended. FALSE if it has. */
gboolean
bg_core_add_end_watcher (BgCore *self, BgBlocked *watcher)
{
  if (self->thread.gone && self->stopping.n_handling == 0)
    return FALSE;

  watcher->listed = TRUE;
  watcher->link.data = watcher;
  g_queue_push_tail_link (&self->stopping.end_watchers, &watcher->link);
  return TRUE;
}

/* With the lock held. FALSE if it is about to be closed. */
gboolean
bg_core_remove_end_watcher (BgCore *self, BgBlocked *watcher)
{
  if (!watcher->listed)
    return FALSE;

  watcher->listed = FALSE;
  g_queue_unlink (&self->stopping.end_watchers, &watcher->link);
  return TRUE;
}

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
void
bg_core_spin_for_end (BgCore *self, BgWaiter *waiter, int timeout_msec)
{
  guint limit_usec = atomic_load (&self->inbox.linger.usec);
  gboolean joined;

  bg_core_lock (self);
  joined = self->thread.joined;
  bg_core_unlock (self);
  if (joined)
    return;

  if (timeout_msec == 0)
    limit_usec = 0;
  bg_waiter_spin_for_end (waiter, limit_usec, bg_inbox_is_served_elsewhere (&self->inbox),
                          has_ended, self);
}

/* Waits until the thread is gone and the handlers of the cancellable have returned.
 * Exactly one thread joins it, the others wait for that one. Once both is known this
 * takes no longer than the thread needs to return. */
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
      g_cond_broadcast (&self->changed);
    }
  while (!self->thread.joined || self->stopping.n_handling > 0)
    g_cond_wait (&self->changed, &self->inbox.lock);
  bg_core_unlock (self);
}

/* Waiting for something else */

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
                 "The loop “%s” stands still: this thread has paused it", self->name);
  return paused;
}

/* Before this thread waits for the loop to do something: see bg_wait_begin(). */
gboolean
bg_core_wait_begin (BgCore *self, BgWait *wait, BgWaiter *waiter, GError **error)
{
  return !bg_core_is_paused_by_me (self, error)
         && bg_wait_begin (wait, &self->waits.actor, FALSE, waiter, error);
}
