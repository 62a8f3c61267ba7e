/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-reply-private.h>

/* Where replies to the callers of one context arrive: an inbox on that context. It is found
 * and made by threads that have this context for their default one: one thread, but for the
 * process's default context, which many may have. Anybody puts replies into it, under its
 * inbox's lock, which may be taken under a core's. */

/* How many callbacks that are refused something while the loop cancels, and so try
 * again, are called. */
#define LAST_REFUSALS 128

/* How often a loop that drains looks whether only the function of a task has that task now. */
#define RECHECK_MSEC 100

void
bg_mailbox_unref (gpointer data)
{
  BgMailbox *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count) || bg_inbox_is_inherited (&self->inbox))
    return;

  bg_inbox_clear (&self->inbox);
  g_aligned_free (self);
}

BgMailbox *
bg_mailbox_ref (BgMailbox *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

static void
mailbox_source_ref (gpointer data)
{
  BgMailbox *self = data;

  g_atomic_int_inc (&self->source_count);
}

/* When the last goes the sources are being destroyed, mostly as the context is. */
static void
mailbox_source_unref (gpointer data)
{
  BgMailbox *self = data;

  if (!g_atomic_int_dec_and_test (&self->source_count))
    return;

  if (!bg_inbox_is_inherited (&self->inbox))
    {
      bg_inbox_lock (&self->inbox);
      atomic_store (&self->closed, TRUE);
      bg_inbox_unlock (&self->inbox);
      bg_inbox_discard (&self->inbox, g_object_unref);
    }

  bg_mailbox_unref (self);
}

/* What bg_mailbox_get() looks for on this thread. */
typedef struct
{
  gpointer tag;
  BgMailbox *found; /* (owned) (nullable) */
} BgMailboxSearch;

static BG_THREAD_LOCAL BgMailboxSearch *current_search;

/* In a search: under the lock of the context, where the source has its reference to the mailbox
 * for certain. The context's own thread may let go of the source as soon as that is unlocked. */
static void
mailbox_source_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  BgMailbox *self = data;

  *func = NULL;
  *user_data = self->tag;
  if (current_search != NULL && current_search->tag == self->tag)
    current_search->found = bg_mailbox_ref (self);
}

static GSourceCallbackFuncs mailbox_callback_funcs = {
  .ref = mailbox_source_ref,
  .unref = mailbox_source_unref,
  .get = mailbox_source_get,
};

/* By this a mailbox of this process is found in a context: a forked child makes another. */
static gpointer
get_tag (void)
{
  static gpointer tag;

  return bg_fork_local (&tag, sizeof (BgForkLocal));
}

/* This thread's loop, if @context is that loop's. */
static BgCore *
get_core (GMainContext *context)
{
  BgCore *here = bg_core_get_current ();

  return here != NULL && here->context == context && !bg_core_is_forked (here) ? here : NULL;
}

static BgMailbox *
mailbox_new (GMainContext *context)
{
  BgMailbox *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);
  BgCore *here = get_core (context);

  self->ref_count = 2; /* the sources together have one, as soon as the inbox has its first */
  self->tag = get_tag ();
  bg_inbox_init (&self->inbox, context, self, &mailbox_callback_funcs, BG_LOCK_MAILBOX);
  if (here != NULL && here->mailbox == NULL)
    {
      self->core = here;
      bg_core_lock (here);
      g_atomic_pointer_set (&here->mailbox, bg_mailbox_ref (self));
      bg_wait_lock ();
      here->waits.actor.mailbox = self;
      bg_wait_unlock ();
      bg_core_unlock (here);
    }
  return self;
}

/* The mailbox of @context, which is this thread's thread-default one: the context cannot
 * go meanwhile. @last: (nullable): perhaps that is it. A new reference, but to @last. */
BgMailbox *
bg_mailbox_get (BgMailbox *last, GMainContext *context)
{
  BgMailboxSearch own = { NULL };
  BgCore *here = get_core (context);

  if (last != NULL && bg_inbox_get_context (&last->inbox) == context
      && !bg_inbox_is_inherited (&last->inbox) && !atomic_load (&last->closed))
    return last;

  /* Its sources may have been destroyed, and no others be in their place yet. */
  if (here != NULL && here->mailbox != NULL && !atomic_load (&here->mailbox->closed))
    return bg_mailbox_ref (here->mailbox);

  own.tag = get_tag ();
  current_search = &own;
  bg_inbox_find (context, own.tag);
  current_search = NULL;
  return own.found != NULL ? own.found : mailbox_new (context);
}

/* A loop's own mailbox */

/* Whether there are replies whose callbacks are to be called before the loop ends.
 * While it cancels, callbacks that are refused something, and so try again, are not
 * called for ever. */
gboolean
bg_mailbox_has_replies (BgMailbox *self)
{
  gboolean has_replies;

  bg_inbox_lock (&self->inbox);
  has_replies = bg_inbox_has_work (&self->inbox);
  if (has_replies && bg_core_is_cancelling (self->core))
    has_replies = self->n_answers > 0 || self->n_refusals < LAST_REFUSALS;
  bg_inbox_unlock (&self->inbox);

  return has_replies;
}

/* A search through mailboxes locks each that is on its way, and may come to it again. All
 * searches are under one lock. */

static void
begin_visit (BgMailbox *self)
{
  if (self->n_visits++ == 0)
    bg_inbox_lock (&self->inbox);
}

static void
end_visit (BgMailbox *self)
{
  if (--self->n_visits == 0)
    bg_inbox_unlock (&self->inbox);
}

static guint64 n_end_searches; /* under the waits' lock */

/* Goes from loop to loop, from each to those whose end it is to be told of, until it comes
 * to @to. Without @to the loops that wait for replies are woken, to look again whether they
 * still do, and for whom. */
static gboolean
follow_ends (BgMailbox *self, BgCore *to, guint64 search)
{
  gboolean found = FALSE;

  if (self == NULL || bg_inbox_is_inherited (&self->inbox) || self->end_search == search)
    return FALSE;

  self->end_search = search;
  if (to == NULL && self->waiting)
    g_main_context_wakeup (bg_inbox_get_context (&self->inbox));

  begin_visit (self);
  for (GList *link = self->owed.head; link != NULL && !found; link = link->next)
    {
      BgReply *reply = link->data;
      BgCore *core = reply->ended;

      found = core != NULL
              && (core == to || follow_ends (g_atomic_pointer_get (&core->mailbox), to, search));
    }
  end_visit (self);

  return found;
}

/* Loops that are to be told of each other's end, directly or through others, are a ring, and
 * do not wait for that. The ring that a loop is in changes when it is to be told of the end of
 * @core from now on, or is not any more: what the others in it wait for depends on it. */
void
bg_mailbox_look_at_ring_again (BgCore *core)
{
  if (g_atomic_pointer_get (&core->mailbox) == NULL)
    return;

  bg_wait_lock ();
  follow_ends (g_atomic_pointer_get (&core->mailbox), NULL, ++n_end_searches);
  bg_wait_unlock ();
}

static gboolean
is_in_ring_with (BgMailbox *self, BgCore *core)
{
  return core == self->core
         || follow_ends (g_atomic_pointer_get (&core->mailbox), self->core, ++n_end_searches);
}

/* What is left to be looked at of the replies that are owed. Many in a row may tell of the
 * same loop's end. */
typedef struct
{
  BgMailbox *mailbox;
  GList *next;
  BgCore *ended;    /* the last that was looked at, */
  gboolean in_ring; /* and whether it is in a ring with this loop */
} BgOwedIter;

/* The next reply that a loop which drains waits for. Between begin_visit() and end_visit(). */
static BgReply *
get_next_waited_for (BgOwedIter *self)
{
  while (self->next != NULL)
    {
      BgReply *reply = self->next->data;

      self->next = self->next->next;
      if (reply->ended == NULL)
        return reply;

      if (reply->ended != self->ended)
        {
          self->ended = reply->ended;
          self->in_ring = is_in_ring_with (self->mailbox, reply->ended);
        }
      if (!self->in_ring)
        return reply;
    }

  return NULL;
}

/* Whether others are to send replies that the loop waits for. Who waits for the loop's end
 * and could not send such a reply is told. */
gboolean
bg_mailbox_is_owed (BgMailbox *self)
{
  BgOwedIter iter;
  gboolean waiting;
  guint n;

  bg_inbox_lock (&self->inbox);
  n = self->owed.length;
  bg_inbox_unlock (&self->inbox);

  if (n == 0 && !self->waiting)
    return FALSE;

  bg_wait_lock ();
  begin_visit (self);
  iter = (BgOwedIter){ self, self->owed.head };
  waiting = get_next_waited_for (&iter) != NULL;
  end_visit (self);
  self->waiting = waiting;
  if (waiting)
    bg_actor_break_circles (&self->core->waits.actor);
  bg_wait_unlock ();
  return waiting;
}

/* In how many milliseconds a loop that drains is to call bg_mailbox_is_owed() again, or -1: others
 * may have a reference to a reply's carrier, and nobody tells the loop when they have let go. */
int
bg_mailbox_get_recheck_msec (BgMailbox *self)
{
  int msec;

  bg_inbox_lock (&self->inbox);
  msec = self->waiting && self->n_carried > 0 ? RECHECK_MSEC : -1;
  bg_inbox_unlock (&self->inbox);

  return msec;
}

/* @will_drain: somebody is about to ask for that. */
gboolean
bg_mailbox_find_owing (BgMailbox *self, gboolean will_drain, BgOwingFunc func, gpointer user_data)
{
  BgOwedIter iter;
  BgReply *reply;
  gboolean found = FALSE;

  will_drain = will_drain && bg_core_get_state (self->core) == BG_LOOP_RUNNING;
  if (self->n_visits > 0 || bg_core_is_cancelling (self->core) || (!self->waiting && !will_drain))
    return FALSE;

  begin_visit (self);
  iter = (BgOwedIter){ self, self->owed.head };
  while (!found && (reply = get_next_waited_for (&iter)) != NULL)
    {
      if (bg_reply_is_due (reply))
        found = func (&reply->by->waits.actor, reply->ended != NULL, user_data);
    }
  end_visit (self);

  return found;
}

/* The thread has ended in the midst of it. */
gboolean
bg_mailbox_abandon (BgMailbox *self, GPtrArray *sources)
{
  return bg_inbox_abandon_activities (&self->inbox, sources);
}

/* Calls callbacks of replies that have arrived. */
void
bg_mailbox_serve (BgMailbox *self)
{
  bg_inbox_run (&self->inbox);
}

/* The same of one; FALSE if there is none. */
gboolean
bg_mailbox_serve_one (BgMailbox *self)
{
  return bg_inbox_run_one (&self->inbox);
}

gboolean
bg_mailbox_owns (BgMailbox *self, GSource *source)
{
  return bg_inbox_owns (&self->inbox, source);
}

guint
bg_mailbox_get_n_sources (BgMailbox *self)
{
  return bg_inbox_get_n_sources (&self->inbox);
}

/* The callback that runs now, since @started_at; NULL if none does. Any thread. */
gpointer
bg_mailbox_get_running (BgMailbox *self, gint64 *started_at)
{
  return bg_inbox_get_running (&self->inbox, started_at);
}

/* The same for the watchdog. */
gpointer
bg_mailbox_get_blocking (BgMailbox *self)
{
  return bg_inbox_get_blocking (&self->inbox);
}

/* The loop's context is about to be cleared: what comes now, comes too late. */
void
bg_mailbox_close (BgMailbox *self)
{
  bg_inbox_stop (&self->inbox);
  bg_wait_lock ();
  self->waiting = FALSE;
  bg_wait_unlock ();
}

void
bg_mailbox_foreach_owed (BgMailbox *self, BgOwedFunc func, gpointer user_data)
{
  bg_inbox_lock_to_look (&self->inbox);
  for (GList *link = self->owed.head; link != NULL; link = link->next)
    {
      BgReply *reply = link->data;

      func (reply->by, reply->func, reply->owed_at, user_data);
    }
  bg_inbox_unlock_after_look (&self->inbox);
}
