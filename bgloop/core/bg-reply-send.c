/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-join-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-reply-private.h>

/* How a reply gets to its caller: any thread puts it into the mailbox, on whose thread its
 * callback is called. In place of one that a loop is owed as it ends, the loop's own thread
 * tells the callback that there will be none. Which of the two is first is decided under the
 * mailbox's lock; the callback is called without. */

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
  bg_reply_recycle (self);
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
