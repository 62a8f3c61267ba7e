/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-text-private.h>

#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-operation-private.h>
#include <bgloop/core/bg-reply-private.h>

/* How an operation is answered. It is known by a number, not by its address, so that an
 * answer that comes a second time can be told from a first one; languages have a
 * BgOperation that knows the number. Any thread answers; on the loop's thread the answer is
 * handed over to whoever waits, when the callback that answered has returned. Once the loop is
 * closed, whoever answers hands it over. The numbers that are known are under a lock of their own,
 * a leaf; what an operation has of the answer is under the core's. */

/* The known operations */

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;

  /* under lock */
  GHashTable *by_id; /* (owned) (nullable) of BgPerform */
  gsize last_id;
} BgKnownOperations;

static BgKnownOperations *
get_known (void)
{
  static gpointer known;

  return bg_fork_local (&known, sizeof (BgKnownOperations));
}

void
bg_perform_publish (BgPerform *self)
{
  BgKnownOperations *known = get_known ();

  bg_mutex_lock (&known->lock, BG_LOCK_LEAF);
  if (known->by_id == NULL)
    known->by_id = g_hash_table_new (NULL, NULL);
  /* Where a number comes round, that of an operation that is there is passed over. */
  do
    self->id = ++known->last_id;
  while (self->id == 0 || g_hash_table_contains (known->by_id, GSIZE_TO_POINTER (self->id)));
  g_hash_table_insert (known->by_id, GSIZE_TO_POINTER (self->id), bg_perform_ref (self));
  bg_mutex_unlock (&known->lock, BG_LOCK_LEAF);
}

/* Whoever gets it has to answer, and has the table's reference. */
BgPerform *
bg_perform_unpublish (gpointer id)
{
  BgKnownOperations *known = get_known ();
  BgPerform *self = NULL;

  bg_mutex_lock (&known->lock, BG_LOCK_LEAF);
  if (known->by_id != NULL)
    {
      self = g_hash_table_lookup (known->by_id, id);
      g_hash_table_remove (known->by_id, id);
    }
  bg_mutex_unlock (&known->lock, BG_LOCK_LEAF);

  return self;
}

/* Answers */

void
bg_perform_complete (BgPerform *self, BgWaiter *waiter)
{
  if (waiter != NULL && bg_waiter_complete (waiter))
    bg_linger_note_wakeup (&self->core->inbox);
}

/* Hands the answer, or the lack of one, to whoever waits. */
void
bg_perform_hand_over (BgPerform *self)
{
  BgCore *core = self->core;
  GAsyncResult *result = NULL;
  GError *error = NULL;
  BgWaiter *waiter;
  BgReply *reply;

  bg_core_lock (core);
  self->phase = BG_OPERATION_ENDED;
  bg_perform_remove_blocked (self);
  waiter = g_steal_pointer (&self->blocked.waiter);
  reply = g_steal_pointer (&self->reply);
  if (reply != NULL || waiter == NULL)
    {
      result = g_steal_pointer (&self->result);
      error = g_steal_pointer (&self->error);
    }
  bg_core_unlock (core);

  bg_perform_complete (self, waiter);
  if (reply != NULL)
    {
      if (result == NULL && error == NULL)
        bg_perform_set_error (self, &error);
      bg_reply_return (reply, (GObject *) result, error);
    }
  else
    {
      /* Nobody waits any more: the answer is freed on the loop's thread. */
      g_clear_object (&result);
      g_clear_error (&error);
    }

  /* Not before the reply is on its way: it may go to the loop itself, and keep it from
   * ending. */
  bg_core_lock (core);
  bg_core_remove_hold (core, &self->hold);
  bg_core_unlock (core);
}

/* On the loop's thread, when the callbacks that answered have returned. */
void
bg_core_hand_over_answers (BgCore *core)
{
  BgPerform *self;

  do
    {
      GList *link;

      bg_core_lock (core);
      link = g_queue_pop_head_link (&core->operations.answered);
      bg_core_unlock (core);

      self = link != NULL ? link->data : NULL;
      if (self != NULL)
        {
          bg_perform_hand_over (self);
          bg_perform_unref (self);
        }
    }
  while (self != NULL);
}

static void
answers_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;

  bg_core_lock (core);
  bg_inbox_take_void (&core->inbox);
  bg_core_unlock (core);
  bg_core_hand_over_answers (core);
}

/* Takes over @result and @error, one of which is NULL, and a reference. Any thread. */
void
bg_perform_answer (BgPerform *self, GAsyncResult *result, GError *error)
{
  BgCore *core = self->core;
  gboolean hands_over = FALSE;
  int poster;

  bg_core_lock (core);
  if (bg_perform_is_wanted (self))
    {
      self->result = g_steal_pointer (&result);
      self->error = g_steal_pointer (&error);
    }
  else if (bg_core_is_cancelling (core))
    {
      self->blocked.closed = self->blocked.closed || self->gave_up == BG_WAIT_COMPLETED;
    }
  self->answered = TRUE;
  bg_linger_add_pending (&core->inbox, -1);
  if (self->phase == BG_OPERATION_PENDING)
    {
      self->phase = BG_OPERATION_ANSWERED;
      hands_over = core->stopping.closed;
      if (!hands_over)
        {
          poster = bg_linger_get_poster (&core->inbox);
          self->answered_link.data = bg_perform_ref (self);
          g_queue_push_tail_link (&core->operations.answered, &self->answered_link);
          bg_inbox_append_void (&core->inbox, self->priority, answers_outcome,
                                bg_perform_get_func (self), core, NULL);
          bg_linger_set_awaited (&core->inbox);
          /* What comes next comes from where the operation came from. */
          bg_linger_set_poster (&core->inbox, poster);
        }
    }
  bg_core_unlock (core);

  if (hands_over)
    bg_perform_hand_over (self);
  g_clear_object (&result);
  g_clear_error (&error);
  bg_perform_unref (self);
}

void
bg_perform_answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  BgPerform *self = bg_perform_unpublish (user_data);

  if (self == NULL)
    {
      /* A forked child does not know its parent's. */
      if (bg_fork_generation () == 0)
        g_critical ("An operation on a loop has answered more than once, or though its "
                    "beginning had failed");
      return;
    }

  if (G_IS_ASYNC_RESULT (result))
    bg_perform_answer (self, g_object_ref (result), NULL);
  else
    bg_perform_answer (
        self, NULL,
        g_error_new (BG_ERROR, BG_ERROR_UNANSWERED,
                     _ ("An operation on the loop \"%s\" has answered without a result"),
                     self->core->name));
}

/* Operations for languages */

struct _BgOperation
{
  int ref_count; /* atomic */
  guint generation;
  gpointer id; /* (nullable) atomic: of the BgPerform; NULL once it is answered or failed */
};

G_DEFINE_BOXED_TYPE (BgOperation, bg_operation, bg_operation_ref, bg_operation_unref)

/* The id, for whoever is first: the others must not answer. */
static gpointer
exchange_id (BgOperation *self)
{
  return g_atomic_pointer_exchange (&self->id, NULL);
}

/**
 * bg_operation_ref:
 * @self: an operation
 *
 * Adds a reference.
 *
 * Does not block; any thread may call it.
 *
 * Returns: (transfer full): @self
 *
 * Since: 1.0
 */
BgOperation *
bg_operation_ref (BgOperation *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  g_atomic_int_inc (&self->ref_count);
  return self;
}

/**
 * bg_operation_unref:
 * @self: (transfer full): an operation
 *
 * Gives a reference back. With the last one an operation that was not answered is:
 * with %BG_ERROR_UNANSWERED.
 *
 * Does not block; any thread may call it.
 *
 * Since: 1.0
 */
void
bg_operation_unref (BgOperation *self)
{
  BgPerform *perform = NULL;

  g_return_if_fail (self != NULL);

  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  if (self->id != NULL && self->generation == bg_fork_generation ())
    perform = bg_perform_unpublish (self->id);
  if (perform != NULL)
    bg_perform_answer (
        perform, NULL,
        g_error_new (BG_ERROR, BG_ERROR_UNANSWERED,
                     _ ("Nobody can answer an operation on the loop \"%s\" any more"),
                     perform->core->name));
  g_free (self);
}

/**
 * bg_operation_answer:
 * @self: an operation
 * @result: the operation's own result, for its own finish function
 *
 * Answers an operation.
 *
 * Whoever waits for it gets @result, as soon as the loop comes to it. To be called
 * once; a second time, and when the #BgOperationFunc has failed, is a programming error:
 * it is reported and has no effect.
 *
 * Does not block; any thread may call it.
 *
 * Since: 1.0
 */
void
bg_operation_answer (BgOperation *self, GAsyncResult *result)
{
  gpointer id;

  g_return_if_fail (self != NULL);
  g_return_if_fail (G_IS_ASYNC_RESULT (result));

  if (self->generation != bg_fork_generation ())
    return;

  id = exchange_id (self);
  if (id != NULL)
    bg_perform_answer_cb (NULL, result, id);
  else
    g_critical ("An operation on a loop has been answered more than once, or though its "
                "beginning had failed");
}

gboolean
bg_perform_begin_handle (BgPerform *self, GError **error)
{
  BgOperation *operation = self->operation = g_new0 (BgOperation, 1);
  gboolean ok;

  operation->ref_count = 1;
  operation->generation = bg_fork_generation ();
  operation->id = GSIZE_TO_POINTER (self->id);
  ok = self->func (operation, self->cancellable, self->data, error);
  if (!ok && !bg_core_is_forked (self->core))
    (void) exchange_id (operation);
  self->operation = NULL;
  bg_operation_unref (operation);
  return ok;
}
