/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-reply-private.h>

/* A result for a caller's context, which is the GAsyncResult that the callback gets, and what a
 * thread keeps for its next ones. It is made on the caller's thread, from what that has kept; the
 * list of those that a loop is owed is under the lock of its mailbox. How it gets there is in
 * bg-reply-send.c. */

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

/* Lets go of what the reply refers to, its mailbox excepted: nobody asks the reply for anything
 * any more. */
void
bg_reply_clear (BgReply *self)
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

  bg_reply_clear (self);
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
void
bg_reply_recycle (BgReply *self)
{
  BgReplyCache *cache = reply_cache_get ();

  if (cache->n_spare >= SPARE_REPLIES || !bg_glib_is_unshared (self, 1))
    {
      g_object_unref (self);
      return;
    }

  bg_reply_clear (self);
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

/* @carrier: (nullable): an object that whoever is to send the reply needs. The caller has a
 * reference to it until it sets NULL. As long as nobody else has one the reply is due from the
 * caller's loop; with NULL the reply is due no more. */
void
bg_reply_set_carrier (BgReply *self, GObject *carrier)
{
  bg_inbox_lock (&self->mailbox->inbox);
  self->mailbox->n_carried += (carrier != NULL) - (self->carrier != NULL);
  self->carrier = carrier;
  bg_reply_set_due (self, carrier != NULL);
  bg_inbox_unlock (&self->mailbox->inbox);
}

/* With the mailbox's lock held: whether only the loop that is to send the reply can do so. */
gboolean
bg_reply_is_due (BgReply *self)
{
  return atomic_load_explicit (&self->due, memory_order_relaxed)
         && (self->carrier == NULL || bg_glib_is_referenced_once (self->carrier));
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
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                           "The result was asked for before");
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
