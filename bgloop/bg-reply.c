/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-core-private.h>
#include <bgloop/bg-reply-private.h>

/* Where replies to the callers of one context arrive: an inbox on that context.
 * It stays there as long as the context lives, and is found again by its tag.
 *
 * The context is kept alive by whoever has a reply to send, not by the replies
 * that have arrived: when nobody is left to iterate it, it goes, and they go
 * with it. */
typedef struct
{
  int ref_count;    /* atomic: one for the source, one a thread and one a reply */
  int source_count; /* atomic: one for the source, one while it is dispatched */
  BgInbox inbox;
  gpointer tag; /* immutable: the globals of the process that made it */

  /* under the inbox's lock */
  gboolean closed;
} BgMailbox;

/* A result on its way back, and the #GAsyncResult that the caller gets. A #GTask
 * would cost several times what a loop needs for the call itself. */
struct _BgReply
{
  GObject parent_instance;

  /* immutable */
  GObject *source; /* (owned) */
  gpointer tag;
  GAsyncReadyCallback callback;
  gpointer callback_data;
  BgMailbox *mailbox;    /* (owned) */
  GMainContext *context; /* (owned) (nullable) until it is sent */
  gboolean soon;

  /* of whoever has the reply */
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
  g_free (self);
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
      self->closed = TRUE;
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
  BgMailbox *self = g_new0 (BgMailbox, 1);

  self->ref_count = 1;
  self->source_count = 1;
  self->tag = bg_globals ();
  bg_inbox_init (&self->inbox, context, self);
  bg_inbox_tag (&self->inbox, &mailbox_callback_funcs, mailbox_ref (self));
  return self;
}

static GPrivate last_mailbox = G_PRIVATE_INIT (mailbox_unref);

static gboolean
mailbox_serves (BgMailbox *self, GMainContext *context)
{
  gboolean serves;

  if (self->inbox.context != context || self->inbox.generation != bg_fork_generation ())
    return FALSE;

  bg_inbox_lock (&self->inbox);
  serves = !self->closed;
  bg_inbox_unlock (&self->inbox);
  return serves;
}

/* The mailbox of @context, which is this thread's thread-default one. */
static BgMailbox *
mailbox_get (GMainContext *context)
{
  BgMailbox *mailbox = g_private_get (&last_mailbox);
  BgCore *here = bg_core_get_current ();
  BgInbox *inbox;

  if (mailbox != NULL && mailbox_serves (mailbox, context))
    return mailbox_ref (mailbox);

  inbox = bg_inbox_find (context, bg_globals ());
  mailbox = inbox != NULL ? mailbox_ref (inbox->owner) : mailbox_new (context);
  g_private_replace (&last_mailbox, mailbox_ref (mailbox));
  if (here != NULL && here->context == context)
    here->replies = &mailbox->inbox;
  return mailbox;
}

/* Replies */

static void
bg_reply_finalize (GObject *object)
{
  BgReply *self = BG_REPLY (object);

  if (self->prologue_destroy != NULL)
    self->prologue_destroy (self->prologue_data);
  g_clear_object (&self->source);
  g_clear_object (&self->value);
  g_clear_error (&self->error);
  g_clear_pointer (&self->mailbox, mailbox_unref);
  g_clear_pointer (&self->context, g_main_context_unref);

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

/* A reply to be given in the context that is this thread's default now. NULL if
 * nobody wants one. */
BgReply *
bg_reply_new (gpointer source, gpointer tag, GAsyncReadyCallback callback, gpointer callback_data)
{
  BgReply *self;

  if (callback == NULL)
    return NULL;

  self = g_object_new (BG_TYPE_REPLY, NULL);
  self->source = g_object_ref (source);
  self->tag = tag;
  self->callback = callback;
  self->callback_data = callback_data;
  self->context = g_main_context_ref_thread_default ();
  self->mailbox = mailbox_get (self->context);
  return self;
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
  self->soon = TRUE;
  atomic_fetch_add (&self->mailbox->inbox.expected, 1);
  if (asleep)
    bg_inbox_note_woken (&self->mailbox->inbox);
}

GMainContext *
bg_reply_get_context (BgReply *self)
{
  return self->context;
}

static void
reply_outcome (BgRecord *slot, gpointer owner)
{
  g_autoptr (BgReply) self = slot->data;

  if (self->prologue != NULL)
    self->prologue (self->prologue_data);

  self->callback (self->source, G_ASYNC_RESULT (self), self->callback_data);
}

/* Sends the reply. Takes over @self, @value and @error; nothing happens if @self
 * is %NULL. */
void
bg_reply_return (BgReply *self, GObject *value, GError *error)
{
  g_autoptr (GMainContext) context = NULL;
  BgCore *here = bg_core_get_current ();
  BgInbox *inbox;
  gboolean sent, wakes;

  if (self == NULL)
    {
      g_clear_object (&value);
      g_clear_error (&error);
      return;
    }

  /* In a forked child the parent's callers get no replies. */
  if (self->mailbox->inbox.generation != bg_fork_generation ())
    return;

  self->value = value;
  self->error = error;
  context = g_steal_pointer (&self->context);
  inbox = &self->mailbox->inbox;

  /* The context cannot go before this function returns; the mailbox can, once
   * the reply has been seen, so nothing of either is used then. */
  bg_inbox_lock (inbox);
  sent = !self->mailbox->closed;
  wakes = inbox->asleep;
  if (self->soon)
    atomic_fetch_sub (&inbox->expected, 1);
  if (sent)
    bg_inbox_append (inbox, G_PRIORITY_DEFAULT, reply_outcome, self->callback, self, NULL);
  bg_inbox_press (inbox);
  bg_inbox_unlock (inbox);

  if (wakes && here != NULL)
    bg_inbox_note_woken (&here->inbox);
  if (!sent)
    g_object_unref (self);
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
