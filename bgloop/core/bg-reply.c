/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-reply-private.h>

/* A result on its way back to a caller's context, and what a thread keeps for its next
 * ones. Any thread sends it; its callback is called on the thread of the mailbox. */

static void async_result_init (GAsyncResultIface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (BgReply,
                               bg_reply,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT, async_result_init))

/* The reply cache */

/* What a thread keeps for its next replies: making an object costs several times
 * what the rest of a reply does. */
typedef struct
{
  BgMailbox *mailbox; /* (owned) (nullable) the last */
  BgReply *spare;     /* (owned) (nullable) */
  guint n_spare;
} BgReplyCache;

#define SPARE_REPLIES 64

static void
reply_cache_free (gpointer data)
{
  BgReplyCache *self = data;

  g_clear_pointer (&self->mailbox, bg_mailbox_unref);
  while (self->spare != NULL)
    {
      BgReply *reply = self->spare;

      self->spare = reply->next;
      g_object_unref (reply);
    }
  g_free (self);
}

static BgReplyCache *
reply_cache_get (void)
{
  static GPrivate own_cache = G_PRIVATE_INIT (reply_cache_free);
  BgReplyCache *self = g_private_get (&own_cache);

  if (G_UNLIKELY (self == NULL))
    {
      self = g_new0 (BgReplyCache, 1);
      g_private_set (&own_cache, self);
    }
  return self;
}

/* Keeps a reference to what it answers. */
static BgMailbox *
reply_cache_get_mailbox (BgReplyCache *self, GMainContext *context)
{
  BgMailbox *mailbox = bg_mailbox_get (self->mailbox, context);

  if (mailbox != self->mailbox)
    {
      g_clear_pointer (&self->mailbox, bg_mailbox_unref);
      self->mailbox = mailbox;
    }
  return mailbox;
}

/* Replies */

static void
clear (BgReply *self)
{
  g_clear_pointer (&self->ended, bg_core_unref);
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
recycle (BgReply *self)
{
  BgReplyCache *cache = reply_cache_get ();

  if (cache->n_spare >= SPARE_REPLIES || !bg_glib_is_unshared (self, 1))
    {
      g_object_unref (self);
      return;
    }

  clear (self);
  self->soon = self->claimed = self->refused = self->finished = FALSE;
  atomic_store_explicit (&self->due, FALSE, memory_order_relaxed);
  self->owed_at = 0;
  self->next = cache->spare;
  cache->spare = self;
  cache->n_spare++;
}

static BgReply *
take_spare (BgReplyCache *cache)
{
  BgReply *self = cache->spare;

  if (self == NULL)
    return g_object_new (BG_TYPE_REPLY, NULL);

  cache->spare = g_steal_pointer (&self->next);
  cache->n_spare--;
  return self;
}

/* With the lock of the mailbox: the reply is not to be sent any more. TRUE if it was
 * the last. @ended: (transfer full) (nullable): whose end a loop is not to be told of any
 * more, for bg_mailbox_look_at_ring_again() without the lock. */
static gboolean
complete (BgReply *self, BgCore **ended)
{
  BgMailbox *mailbox = self->mailbox;

  *ended = NULL;
  if (self->owed_at != 0)
    {
      g_queue_unlink (&mailbox->owed, &self->link);
      if (self->ended != NULL)
        *ended = bg_core_ref (self->ended);
    }
  if (self->soon)
    bg_linger_add_expected (&mailbox->inbox, -1);
  return atomic_fetch_sub (&mailbox->n_outstanding, 1) == 1;
}

/* Has the reply go to @mailbox, which it may have gone to before. */
static void
set_mailbox (BgReply *self, BgMailbox *mailbox)
{
  if (self->mailbox != mailbox)
    {
      g_clear_pointer (&self->mailbox, bg_mailbox_unref);
      self->mailbox = bg_mailbox_ref (mailbox);
    }

  if (atomic_fetch_add (&mailbox->n_outstanding, 1) == 0)
    g_main_context_ref (bg_inbox_get_context (&mailbox->inbox));
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
              BgCore *by,
              gpointer tag,
              gpointer func,
              int priority,
              GAsyncReadyCallback callback,
              gpointer callback_data)
{
  BgReplyCache *cache = reply_cache_get ();
  BgReply *self = take_spare (cache);
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
  self->by = by;
  context = g_main_context_get_thread_default ();
  if (context == NULL)
    context = g_main_context_default ();
  set_mailbox (self, reply_cache_get_mailbox (cache, context));
  return self;
}

/* What the caller has asked for. */
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

/* @due: TRUE before the loop that is to send the reply may start the work; FALSE once others
 * than that loop may send it. */
void
bg_reply_set_due (BgReply *self, gboolean due)
{
  atomic_store_explicit (&self->due, due, memory_order_relaxed);
}

/* The reply tells of the end of @core, whose thread is joined before the callback is told
 * of success. To be called before anybody else has the reply. */
void
bg_reply_set_ended (BgReply *self, BgCore *core)
{
  bg_core_ref (core);
  if (self->owed_at == 0)
    {
      self->ended = core;
      return;
    }

  bg_inbox_lock (&self->mailbox->inbox);
  self->ended = core;
  bg_reply_set_due (self, TRUE);
  bg_inbox_unlock (&self->mailbox->inbox);
  bg_mailbox_look_at_ring_again (core);
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
  GMainContext *context
      = self->callback != NULL ? bg_inbox_get_context (&self->mailbox->inbox) : NULL;

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
  bg_linger_add_expected (&self->mailbox->inbox, 1);
  if (asleep)
    bg_linger_note_wakeup (&self->mailbox->inbox);
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

  bg_inbox_keep (&mailbox->inbox, &(BgRecord){ half_given_outcome, NULL, self, NULL });
  if (mailbox->core != NULL)
    bg_core_step (mailbox->core);

  if (self->mailbox->core != NULL)
    note_given (self);
  /* The thread is about to be gone: this takes no longer than it needs to return. */
  if (self->ended != NULL && self->error == NULL)
    bg_core_join (self->ended);

  self->callback (self->source, G_ASYNC_RESULT (self), self->callback_data);
  bg_inbox_drop_kept (&mailbox->inbox);
  recycle (self);
}

/* With the lock of the mailbox, which is open. */
static void
append (BgReply *self)
{
  BgMailbox *mailbox = self->mailbox;

  if (!self->refused)
    mailbox->n_answers++;
  bg_inbox_append (&mailbox->inbox, self->priority, reply_outcome, self->callback, self, NULL);
  bg_linger_set_awaited (&mailbox->inbox);
}

/* Tells each callback that waits for another loop's reply that there will be none, and
 * whoever is to send it that nobody waits. What comes later is dropped. */
void
bg_mailbox_close_owed (BgMailbox *self, const char *name)
{
  g_autoptr (GPtrArray) expiries = g_ptr_array_new ();
  g_autoptr (GPtrArray) ends = g_ptr_array_new_with_free_func ((GDestroyNotify) bg_core_unref);
  GMainContext *context = bg_inbox_get_context (&self->inbox);
  GList *link;
  gboolean last = FALSE;

  bg_inbox_lock (&self->inbox);
  while ((link = self->owed.head) != NULL)
    {
      BgReply *reply = g_object_ref (link->data);
      BgCore *ended;

      last |= complete (reply, &ended);
      if (ended != NULL)
        g_ptr_array_add (ends, ended);
      reply->claimed = TRUE;
      if (reply->expiry != NULL)
        g_ptr_array_add (expiries, g_steal_pointer (&reply->expiry));
      g_set_error (&reply->error, BG_ERROR, BG_ERROR_CLOSED,
                   _ ("The loop \"%s\" was shut down before the reply came"), name);
      append (reply);
    }
  bg_inbox_unlock (&self->inbox);

  for (guint i = 0; i < ends->len; i++)
    bg_mailbox_look_at_ring_again (g_ptr_array_index (ends, i));
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
  GMainContext *context = bg_inbox_get_context (inbox);
  BgExpiry *expiry = NULL;
  BgCore *ended = NULL;
  gboolean sends, last = FALSE;

  bg_inbox_lock (inbox);
  sends = !self->claimed && !atomic_load (&mailbox->closed);
  *wakes = bg_inbox_is_asleep (inbox);
  if (!self->claimed)
    {
      last = complete (self, &ended);
      expiry = g_steal_pointer (&self->expiry);
    }
  if (sends)
    {
      self->value = value;
      self->error = error;
      append (self);
    }
  bg_inbox_unlock (inbox);

  if (ended != NULL)
    bg_mailbox_look_at_ring_again (ended);
  g_clear_pointer (&ended, bg_core_unref);
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
  if (self != NULL && self->mailbox != NULL && bg_inbox_is_inherited (&self->mailbox->inbox))
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
      bg_linger_note_wakeup (&here->inbox);
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
