/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-core-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-glib-private.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>

/* Where replies to the callers of one context arrive: an inbox on that context.
 * It stays there as long as the context lives, and is found again by its tag.
 *
 * The context is kept alive as long as there are replies to be sent, not by those
 * that have arrived: when nobody is left to iterate it, it goes, and they go
 * with it.
 *
 * A loop knows the replies that are owed to it, since it waits for them when it
 * drains and tells whoever asked that there will be none when it cancels. Its
 * mailbox is found and made by its own thread only. */
struct _BgMailbox
{
  int ref_count;    /* atomic: one for the source, the loop, a thread and a reply */
  int source_count; /* atomic: one for the source, one while it is dispatched */
  BgInbox inbox;
  gpointer tag; /* immutable: the globals of the process that made it */
  BgCore *core; /* immutable (unowned) (nullable) the loop whose context this is */

  _Atomic gboolean closed;     /* written under the inbox's lock */
  _Atomic guint n_outstanding; /* replies to be sent: above 0, they have the context */

  /* under the inbox's lock, of a loop's */
  GQueue owed;      /* of BgReply (unowned): to be sent */
  gboolean visited; /* in a search for circles, under the waits' lock */
  guint n_ends;     /* of these, that tell of a loop's end */
  guint n_answers;  /* that have arrived, of those that were not refused at once */
  guint n_refusals; /* that were given while the loop cancels */
};

/* How many callbacks that are refused something while the loop cancels, and so try
 * again, are called. */
#define LAST_REFUSALS 128

/* A result on its way back, and the #GAsyncResult that the caller gets. A #GTask
 * would cost several times what a loop needs for the call itself. */
struct _BgReply
{
  GObject parent_instance;

  /* immutable, until it is used again */
  GObject *source; /* (owned) (nullable) without a callback: work keeps no loop alive */
  gpointer tag;
  gpointer func; /* that it is the answer of */
  int priority;
  GAsyncReadyCallback callback; /* (nullable) */
  gpointer callback_data;
  BgMailbox *mailbox; /* (owned) (nullable) where it goes: nowhere without a callback */
  gboolean soon;
  BgReply *next; /* (owned) (nullable) of those that are to be used again */

  /* under the mailbox's lock */
  GList link;       /* in what is owed */
  gint64 owed_at;   /* monotonic microseconds; 0: to nobody's loop */
  gboolean claimed; /* the caller's loop has answered in place of whoever is to */
  BgExpiry *expiry; /* (owned) (nullable) */

  /* of whoever has the reply; once it is claimed, of the caller's loop */
  BgRequest request;
  GDestroyNotify prologue;
  gpointer prologue_data;
  GDestroyNotify prologue_destroy;
  gboolean refused;
  gboolean finished;
  GObject *value; /* (owned) (nullable) */
  GError *error;  /* (owned) (nullable) */
};

static void async_result_init (GAsyncResultIface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (BgReply,
                               bg_reply,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT, async_result_init))

/* Mailboxes */

void
bg_mailbox_unref (gpointer data)
{
  BgMailbox *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count)
      || self->inbox.generation != bg_fork_generation ())
    return;

  bg_inbox_clear (&self->inbox);
  g_aligned_free (self);
}

static BgMailbox *
mailbox_ref (BgMailbox *self)
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

/* When the last goes the source is being destroyed, mostly as the context is. */
static void
mailbox_source_unref (gpointer data)
{
  BgMailbox *self = data;

  if (!g_atomic_int_dec_and_test (&self->source_count))
    return;

  if (self->inbox.generation == bg_fork_generation ())
    {
      bg_inbox_lock (&self->inbox);
      atomic_store (&self->closed, TRUE);
      bg_inbox_unlock (&self->inbox);
      bg_inbox_discard (&self->inbox, g_object_unref);
    }

  bg_mailbox_unref (self);
}

static void
mailbox_source_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  *func = NULL;
  *user_data = ((BgMailbox *) data)->tag;
}

static GSourceCallbackFuncs mailbox_callback_funcs = {
  .ref = mailbox_source_ref,
  .unref = mailbox_source_unref,
  .get = mailbox_source_get,
};

static BgMailbox *
mailbox_new (GMainContext *context)
{
  BgMailbox *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);
  BgCore *here = bg_core_get_current ();

  self->ref_count = 1;
  self->source_count = 1;
  self->tag = bg_globals ();
  bg_inbox_init (&self->inbox, context, self);
  bg_inbox_tag (&self->inbox, &mailbox_callback_funcs, mailbox_ref (self));
  if (here != NULL && here->context == context && !bg_core_is_forked (here)
      && here->mailbox == NULL)
    {
      self->core = here;
      bg_core_lock (here);
      g_atomic_pointer_set (&here->mailbox, mailbox_ref (self));
      bg_core_unlock (here);
    }
  return self;
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

/* Whether the end of a loop that this one is to be told of waits for the end of @from,
 * directly or through others. All such searches are under one lock. */
static gboolean
ends_lead_to (BgMailbox *self, BgCore *from)
{
  gboolean found = FALSE;

  if (self == NULL || self->visited)
    return FALSE;

  self->visited = TRUE;
  bg_inbox_lock (&self->inbox);
  for (GList *link = self->owed.head; link != NULL && !found; link = link->next)
    {
      BgReply *reply = link->data;
      BgCore *core = BG_LOOP (reply->source)->core;

      found = core == from || ends_lead_to (g_atomic_pointer_get (&core->mailbox), from);
    }
  bg_inbox_unlock (&self->inbox);
  self->visited = FALSE;

  return found;
}

/* Whether others are to send replies that the loop waits for. Two loops that are to be
 * told of each other's end do not. */
gboolean
bg_mailbox_is_owed (BgMailbox *self)
{
  guint n, n_ends;

  bg_inbox_lock (&self->inbox);
  n = self->owed.length;
  n_ends = self->n_ends;
  bg_inbox_unlock (&self->inbox);

  if (n > n_ends || n == 0)
    return n > 0;

  bg_wait_lock ();
  n = !ends_lead_to (self, self->core);
  bg_wait_unlock ();
  return n > 0;
}

/* The thread has ended in the midst of it. */
void
bg_mailbox_abandon (BgMailbox *self, GPtrArray *sources)
{
  bg_inbox_abandon_activities (&self->inbox, sources);
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
  return self->inbox.n_sources;
}

/* The loop's context is about to be cleared: what comes now, comes too late. */
void
bg_mailbox_close (BgMailbox *self)
{
  bg_inbox_stop (&self->inbox);
}

void
bg_mailbox_foreach_owed (BgMailbox *self, BgOwedFunc func, gpointer user_data)
{
  bg_inbox_lock (&self->inbox);
  for (GList *link = self->owed.head; link != NULL; link = link->next)
    {
      BgReply *reply = link->data;

      func (reply->source, reply->func, reply->owed_at, user_data);
    }
  bg_inbox_unlock (&self->inbox);
}

/* What a thread keeps for its next replies: making an object costs several times
 * what the rest of a reply does. */
typedef struct
{
  BgMailbox *mailbox; /* (owned) (nullable) the last */
  BgReply *spare;     /* (owned) (nullable) */
  guint n_spare;
} BgDesk;

#define SPARE_REPLIES 64

static void
desk_free (gpointer data)
{
  BgDesk *self = data;

  g_clear_pointer (&self->mailbox, bg_mailbox_unref);
  while (self->spare != NULL)
    {
      BgReply *reply = self->spare;

      self->spare = reply->next;
      g_object_unref (reply);
    }
  g_free (self);
}

static BgDesk *
desk_get (void)
{
  static GPrivate own_desk = G_PRIVATE_INIT (desk_free);
  BgDesk *self = g_private_get (&own_desk);

  if (G_UNLIKELY (self == NULL))
    {
      self = g_new0 (BgDesk, 1);
      g_private_set (&own_desk, self);
    }
  return self;
}

/* The mailbox of @context, which is this thread's thread-default one: it cannot
 * go meanwhile. */
static BgMailbox *
desk_get_mailbox (BgDesk *self, GMainContext *context)
{
  BgMailbox *mailbox = self->mailbox;
  BgInbox *inbox;

  if (mailbox != NULL && mailbox->inbox.context == context
      && mailbox->inbox.generation == bg_fork_generation () && !atomic_load (&mailbox->closed))
    return mailbox;

  inbox = bg_inbox_find (context, bg_globals ());
  mailbox = inbox != NULL ? mailbox_ref (inbox->owner) : mailbox_new (context);
  g_clear_pointer (&self->mailbox, bg_mailbox_unref);
  self->mailbox = mailbox;
  return mailbox;
}

/* Replies */

static void
clear (BgReply *self)
{
  if (self->prologue_destroy != NULL)
    self->prologue_destroy (self->prologue_data);
  self->prologue = NULL;
  self->prologue_destroy = NULL;
  g_clear_object (&self->request.cancellable);
  g_clear_object (&self->source);
  g_clear_object (&self->value);
  g_clear_error (&self->error);
}

static void
bg_reply_finalize (GObject *object)
{
  BgReply *self = BG_REPLY (object);

  clear (self);
  g_clear_pointer (&self->mailbox, bg_mailbox_unref);

  G_OBJECT_CLASS (bg_reply_parent_class)->finalize (object);
}

static void
bg_reply_class_init (BgReplyClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = bg_reply_finalize;
}

static void
bg_reply_init (BgReply *self)
{
}

static gpointer
get_user_data (GAsyncResult *result)
{
  return BG_REPLY (result)->callback_data;
}

static GObject *
get_source_object (GAsyncResult *result)
{
  return g_object_ref (BG_REPLY (result)->source);
}

static void
async_result_init (GAsyncResultIface *iface)
{
  iface->get_user_data = get_user_data;
  iface->get_source_object = get_source_object;
  /* No tag: the address of a function is not the same in every program. */
}

/* It has been given. Is kept for another one, unless somebody else has it, too. */
static void
put_aside (BgReply *self)
{
  BgDesk *desk = desk_get ();

  if (desk->n_spare >= SPARE_REPLIES || !bg_glib_is_unshared (self, 1))
    {
      g_object_unref (self);
      return;
    }

  clear (self);
  self->soon = self->claimed = self->refused = self->finished = FALSE;
  self->owed_at = 0;
  self->next = desk->spare;
  desk->spare = self;
  desk->n_spare++;
}

static BgReply *
take_spare (BgDesk *desk)
{
  BgReply *self = desk->spare;

  if (self == NULL)
    return g_object_new (BG_TYPE_REPLY, NULL);

  desk->spare = g_steal_pointer (&self->next);
  desk->n_spare--;
  return self;
}

/* With the lock of the mailbox: the reply is not to be sent any more. TRUE if it was
 * the last. */
static gboolean
settle (BgReply *self)
{
  BgMailbox *mailbox = self->mailbox;

  if (self->owed_at != 0)
    {
      g_queue_unlink (&mailbox->owed, &self->link);
      mailbox->n_ends -= self->prologue != NULL;
    }
  if (self->soon)
    atomic_fetch_sub (&mailbox->inbox.linger.n_expected, 1);
  return atomic_fetch_sub (&mailbox->n_outstanding, 1) == 1;
}

/* Has the reply go to @mailbox, which it may have gone to before. */
static void
address (BgReply *self, BgMailbox *mailbox)
{
  if (self->mailbox != mailbox)
    {
      g_clear_pointer (&self->mailbox, bg_mailbox_unref);
      self->mailbox = mailbox_ref (mailbox);
    }

  if (atomic_fetch_add (&mailbox->n_outstanding, 1) == 0)
    g_main_context_ref (mailbox->inbox.context);
  if (mailbox->core == NULL)
    return;

  self->link.data = self;
  self->owed_at = g_get_monotonic_time ();
  bg_inbox_lock (&mailbox->inbox);
  g_queue_push_tail_link (&mailbox->owed, &self->link);
  bg_inbox_unlock (&mailbox->inbox);
}

/* A reply to be given in the context that is this thread's default now; without
 * a callback to nobody. */
BgReply *
bg_reply_new (gpointer source,
              gpointer tag,
              gpointer func,
              int priority,
              GAsyncReadyCallback callback,
              gpointer callback_data)
{
  BgDesk *desk = desk_get ();
  BgReply *self = take_spare (desk);
  GMainContext *context;

  self->tag = tag;
  self->func = func;
  self->priority = priority;
  self->callback = callback;
  self->callback_data = callback_data;
  self->request.deadline = -1;
  if (callback == NULL)
    return self;

  self->source = g_object_ref (source);
  context = g_main_context_get_thread_default ();
  if (context == NULL)
    context = g_main_context_default ();
  address (self, desk_get_mailbox (desk, context));
  return self;
}

/* What the answer is to. */
BgRequest *
bg_reply_get_request (BgReply *self)
{
  return &self->request;
}

/* Whether there is a callback. */
gboolean
bg_reply_is_wanted (BgReply *self)
{
  return self->callback != NULL;
}

/* Whether the caller's context is that of a loop. */
gboolean
bg_reply_is_to_loop (BgReply *self)
{
  return self->callback != NULL && self->mailbox->core != NULL;
}

/* What the caller's thread does just before the callback is told of success: the reply
 * tells of a loop's end. To be called before anybody else has the reply. */
void
bg_reply_set_prologue (BgReply *self, GDestroyNotify func, gpointer data, GDestroyNotify destroy)
{
  self->prologue = func;
  self->prologue_data = data;
  self->prologue_destroy = destroy;
  if (self->owed_at == 0)
    return;

  bg_inbox_lock (&self->mailbox->inbox);
  self->mailbox->n_ends++;
  bg_inbox_unlock (&self->mailbox->inbox);
}

/* Has @func called when the caller does not want to wait any longer, until the reply is
 * sent: see bg_expiry_new(). Only a reply that somebody gets has a limit of time. */
void
bg_reply_set_expiry (BgReply *self,
                     int timeout_msec,
                     GCancellable *cancellable,
                     BgExpiryFunc func,
                     gpointer data,
                     GDestroyNotify destroy)
{
  GMainContext *context = self->callback != NULL ? self->mailbox->inbox.context : NULL;

  self->expiry = bg_expiry_new (context, timeout_msec, cancellable, func, data, destroy);
}

/* The reply is likely to come at once: worth staying awake for. @asleep: whoever
 * is to send it is not awake yet. */
void
bg_reply_expect_soon (BgReply *self, gboolean asleep)
{
  if (self->callback == NULL)
    return;

  self->soon = TRUE;
  atomic_fetch_add (&self->mailbox->inbox.linger.n_expected, 1);
  if (asleep)
    bg_inbox_note_woken (&self->mailbox->inbox);
}

static void
note_given (BgReply *self)
{
  BgMailbox *mailbox = self->mailbox;

  bg_inbox_lock (&mailbox->inbox);
  if (!self->refused)
    mailbox->n_answers--;
  else if (bg_core_is_cancelling (mailbox->core))
    mailbox->n_refusals++;
  bg_inbox_unlock (&mailbox->inbox);
}

/* The callback has ended the thread. */
static void
half_given_outcome (BgRecord *slot, gpointer owner)
{
  g_object_unref (slot->data);
}

static void
reply_outcome (BgRecord *slot, gpointer owner)
{
  BgMailbox *mailbox = owner;
  BgReply *self = slot->data;

  mailbox->inbox.activities.current->kept = (BgRecord){ half_given_outcome, NULL, self, NULL };

  if (self->mailbox->core != NULL)
    note_given (self);
  if (self->prologue != NULL && self->error == NULL)
    self->prologue (self->prologue_data);

  self->callback (self->source, G_ASYNC_RESULT (self), self->callback_data);
  bg_inbox_drop_kept (&mailbox->inbox);
  put_aside (self);
}

/* With the lock of the mailbox, which is open. */
static void
append (BgReply *self)
{
  BgMailbox *mailbox = self->mailbox;

  if (!self->refused)
    mailbox->n_answers++;
  bg_inbox_append (&mailbox->inbox, self->priority, reply_outcome, self->callback, self, NULL);
  bg_inbox_press (&mailbox->inbox);
}

/* Tells each callback that waits for another loop's reply that there will be none, and
 * whoever is to send it that nobody waits. What comes later is dropped. */
void
bg_mailbox_close_owed (BgMailbox *self, const char *name)
{
  g_autoptr (GPtrArray) expiries = g_ptr_array_new ();
  GMainContext *context = self->inbox.context;
  GList *link;
  gboolean last = FALSE;

  bg_inbox_lock (&self->inbox);
  while ((link = self->owed.head) != NULL)
    {
      BgReply *reply = g_object_ref (link->data);

      last |= settle (reply);
      reply->claimed = TRUE;
      if (reply->expiry != NULL)
        g_ptr_array_add (expiries, g_steal_pointer (&reply->expiry));
      g_set_error (&reply->error, BG_ERROR, BG_ERROR_CLOSED,
                   "The loop “%s” was shut down before the reply came", name);
      append (reply);
    }
  bg_inbox_unlock (&self->inbox);

  for (guint i = 0; i < expiries->len; i++)
    {
      BgExpiry *expiry = g_ptr_array_index (expiries, i);

      bg_expiry_give_up (expiry);
      bg_expiry_end (expiry);
    }
  if (last)
    g_main_context_unref (context);
}

/* Puts the reply into its mailbox; FALSE if that is closed, or if the caller does not
 * wait for it any more. Nothing of either is used after this: the reply may have been
 * seen. */
static gboolean
post (BgReply *self, GObject *value, GError *error, gboolean *wakes)
{
  BgMailbox *mailbox = self->mailbox;
  BgInbox *inbox = &mailbox->inbox;
  GMainContext *context = inbox->context;
  BgExpiry *expiry = NULL;
  gboolean sends, last = FALSE;

  bg_inbox_lock (inbox);
  sends = !self->claimed && !atomic_load (&mailbox->closed);
  *wakes = inbox->asleep;
  if (!self->claimed)
    {
      last = settle (self);
      expiry = g_steal_pointer (&self->expiry);
    }
  if (sends)
    {
      self->value = value;
      self->error = error;
      append (self);
    }
  bg_inbox_unlock (inbox);

  bg_expiry_end (expiry);
  if (last)
    g_main_context_unref (context);
  return sends;
}

/* Sends the reply. Takes over @self, @value and @error; nothing happens if @self
 * is %NULL. */
void
bg_reply_return (BgReply *self, GObject *value, GError *error)
{
  BgCore *here = bg_core_get_current ();
  gboolean sent = FALSE, wakes = FALSE;

  /* In a forked child the parent's callers get no replies. */
  if (self != NULL && self->mailbox != NULL
      && self->mailbox->inbox.generation != bg_fork_generation ())
    return;

  if (self != NULL && self->callback != NULL)
    sent = post (self, value, error, &wakes);
  else if (self != NULL)
    bg_expiry_end (g_steal_pointer (&self->expiry));

  if (!sent)
    {
      g_clear_object (&value);
      g_clear_error (&error);
      g_clear_object (&self);
    }
  else if (wakes && here != NULL)
    {
      bg_inbox_note_woken (&here->inbox);
    }
}

/* The same for what was not accepted. */
void
bg_reply_refuse (BgReply *self, GError *error)
{
  self->refused = TRUE;
  bg_reply_return (self, NULL, error);
}

gboolean
bg_reply_is_valid (GAsyncResult *result, gpointer source, gpointer tag)
{
  return BG_IS_REPLY (result) && BG_REPLY (result)->source == source
         && BG_REPLY (result)->tag == tag;
}

gboolean
bg_reply_propagate (BgReply *self, GObject **value, GError **error)
{
  if (self->finished)
    {
      g_critical ("A result was asked for a second time");
      return FALSE;
    }

  self->finished = TRUE;
  if (self->error != NULL)
    {
      g_propagate_error (error, g_steal_pointer (&self->error));
      return FALSE;
    }

  if (value != NULL)
    *value = g_steal_pointer (&self->value);
  return TRUE;
}
