/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-core-private.h>
#include <bgloop/bg-reply-private.h>

/* Where replies to the callers of one context arrive: an inbox on that context.
 * It stays there as long as the context lives, and is found again by its tag.
 *
 * The context is kept alive as long as there are replies to be sent, not by those
 * that have arrived: when nobody is left to iterate it, it goes, and they go
 * with it. */
typedef struct
{
  int ref_count;    /* atomic: one for the source, one a thread and one a reply */
  int source_count; /* atomic: one for the source, one while it is dispatched */
  BgInbox inbox;
  gpointer tag; /* immutable: the globals of the process that made it */

  _Atomic gboolean closed;     /* written under the inbox's lock */
  _Atomic guint n_outstanding; /* replies to be sent: above 0, they have the context */
} BgMailbox;

/* A result on its way back, and the #GAsyncResult that the caller gets. A #GTask
 * would cost several times what a loop needs for the call itself. */
struct _BgReply
{
  GObject parent_instance;

  /* immutable, until it is used again */
  GObject *source; /* (owned) (nullable) without a callback: work keeps no loop alive */
  gpointer tag;
  GAsyncReadyCallback callback; /* (nullable) */
  gpointer callback_data;
  BgMailbox *mailbox; /* (owned) (nullable) where it goes: nowhere without a callback */
  gboolean soon;
  BgReply *next; /* (owned) (nullable) of those that are to be used again */

  /* of whoever has the reply */
  BgRequest request;
  GDestroyNotify prologue;
  gpointer prologue_data;
  GDestroyNotify prologue_destroy;
  GObject *value; /* (owned) (nullable) */
  GError *error;  /* (owned) (nullable) */
};

static void async_result_init (GAsyncResultIface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (BgReply,
                               bg_reply,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT, async_result_init))

/* Mailboxes */

static void
mailbox_unref (gpointer data)
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

  mailbox_unref (self);
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

  self->ref_count = 1;
  self->source_count = 1;
  self->tag = bg_globals ();
  bg_inbox_init (&self->inbox, context, self);
  bg_inbox_tag (&self->inbox, &mailbox_callback_funcs, mailbox_ref (self));
  return self;
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

  g_clear_pointer (&self->mailbox, mailbox_unref);
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
  BgCore *here = bg_core_get_current ();
  BgInbox *inbox;

  if (mailbox != NULL && mailbox->inbox.context == context
      && mailbox->inbox.generation == bg_fork_generation () && !atomic_load (&mailbox->closed))
    return mailbox;

  inbox = bg_inbox_find (context, bg_globals ());
  mailbox = inbox != NULL ? mailbox_ref (inbox->owner) : mailbox_new (context);
  g_clear_pointer (&self->mailbox, mailbox_unref);
  self->mailbox = mailbox;
  if (here != NULL && here->context == context)
    here->replies = &mailbox->inbox;
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
  g_clear_pointer (&self->mailbox, mailbox_unref);

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

static gboolean
is_tagged (GAsyncResult *result, gpointer tag)
{
  return BG_REPLY (result)->tag == tag;
}

static void
async_result_init (GAsyncResultIface *iface)
{
  iface->get_user_data = get_user_data;
  iface->get_source_object = get_source_object;
  iface->is_tagged = is_tagged;
}

/* It has been given. Is kept for another one, unless somebody else has it, too. */
static void
put_aside (BgReply *self)
{
  BgDesk *desk = desk_get ();

  if (desk->n_spare >= SPARE_REPLIES || !bg_object_is_as_new (self, 1))
    {
      g_object_unref (self);
      return;
    }

  clear (self);
  self->soon = FALSE;
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

/* Has the reply go to @mailbox, which it may have gone to before. */
static void
address (BgReply *self, BgMailbox *mailbox)
{
  if (self->mailbox != mailbox)
    {
      g_clear_pointer (&self->mailbox, mailbox_unref);
      self->mailbox = mailbox_ref (mailbox);
    }

  if (atomic_fetch_add (&mailbox->n_outstanding, 1) == 0)
    g_main_context_ref (mailbox->inbox.context);
}

/* A reply to be given in the context that is this thread's default now; without
 * a callback to nobody. */
BgReply *
bg_reply_new (gpointer source, gpointer tag, GAsyncReadyCallback callback, gpointer callback_data)
{
  BgDesk *desk = desk_get ();
  BgReply *self = take_spare (desk);
  GMainContext *context;

  self->tag = tag;
  self->callback = callback;
  self->callback_data = callback_data;
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

/* What the caller's thread does just before the callback, if it gets there. */
void
bg_reply_set_prologue (BgReply *self, GDestroyNotify func, gpointer data, GDestroyNotify destroy)
{
  self->prologue = func;
  self->prologue_data = data;
  self->prologue_destroy = destroy;
}

/* The reply is likely to come at once: worth staying awake for. @asleep: whoever
 * is to send it is not awake yet. */
void
bg_reply_expect_soon (BgReply *self, gboolean asleep)
{
  if (self->callback == NULL)
    return;

  self->soon = TRUE;
  atomic_fetch_add (&self->mailbox->inbox.expected, 1);
  if (asleep)
    bg_inbox_note_woken (&self->mailbox->inbox);
}

/* Before the reply is sent. */
GMainContext *
bg_reply_get_context (BgReply *self)
{
  return self->mailbox->inbox.context;
}

static void
reply_outcome (BgRecord *slot, gpointer owner)
{
  BgReply *self = slot->data;

  if (self->prologue != NULL)
    self->prologue (self->prologue_data);

  self->callback (self->source, G_ASYNC_RESULT (self), self->callback_data);
  put_aside (self);
}

/* Puts the reply into its mailbox; FALSE if that is closed. Nothing of either is
 * used after this: the reply may have been seen. */
static gboolean
post (BgReply *self, gboolean *wakes)
{
  BgMailbox *mailbox = self->mailbox;
  BgInbox *inbox = &mailbox->inbox;
  GMainContext *context = inbox->context;
  gboolean closed, last;

  bg_inbox_lock (inbox);
  closed = atomic_load (&mailbox->closed);
  last = atomic_fetch_sub (&mailbox->n_outstanding, 1) == 1;
  *wakes = inbox->asleep;
  if (self->soon)
    atomic_fetch_sub (&inbox->expected, 1);
  if (!closed)
    bg_inbox_append (inbox, G_PRIORITY_DEFAULT, reply_outcome, self->callback, self, NULL);
  bg_inbox_press (inbox);
  bg_inbox_unlock (inbox);

  if (last)
    g_main_context_unref (context);
  return !closed;
}

/* Sends the reply. Takes over @self, @value and @error; nothing happens if @self
 * is %NULL. */
void
bg_reply_return (BgReply *self, GObject *value, GError *error)
{
  BgCore *here = bg_core_get_current ();
  gboolean wakes;

  if (self == NULL || self->callback == NULL)
    {
      g_clear_object (&value);
      g_clear_error (&error);
      g_clear_object (&self);
      return;
    }

  /* In a forked child the parent's callers get no replies. */
  if (self->mailbox->inbox.generation != bg_fork_generation ())
    return;

  self->value = value;
  self->error = error;
  if (!post (self, &wakes))
    g_object_unref (self);
  else if (wakes && here != NULL)
    bg_inbox_note_woken (&here->inbox);
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
  if (self->error != NULL)
    {
      g_propagate_error (error, g_steal_pointer (&self->error));
      return FALSE;
    }

  if (value != NULL)
    *value = g_steal_pointer (&self->value);
  return TRUE;
}
