/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-symbol-private.h>

typedef enum
{
  QUEUED,    /* begin() has not started */
  BEGINNING, /* begin() runs */
  PENDING,   /* it has returned; the operation has not answered */
  ENDED,     /* the operation has answered, or never began */
} BgPhase;

/* An operation. It holds the loop from when it is accepted until it answers,
 * whether or not anybody still waits for it.
 *
 * The operation knows it by a number, not by its address, so that an answer that
 * comes a second time can be told from a first one. */
typedef struct
{
  int ref_count; /* atomic: one for whoever began it, one in the inbox or among
                  * the known operations, one in the list of the blocked, one a
                  * signal handler */

  /* immutable once it is accepted */
  BgCore *core; /* (owned) */
  gsize id;
  BgFollower follower;              /* what the operation gets */
  GCancellable *caller_cancellable; /* (owned) (nullable) */
  gulong caller_handler;
  BgBeginFunc begin;
  gpointer data;
  GDestroyNotify destroy;

  /* under the core's lock */
  BgHold hold;
  BgBlocked blocked;
  BgPhase phase;
  gboolean cancelled;   /* the caller does not want it any more */
  gboolean left;        /* nobody waits for more than for begin() to return */
  BgReply *reply;       /* (owned) (nullable) */
  GAsyncResult *result; /* (owned) (nullable) */
} BgOperation;

/* Followers
 *
 * Making a cancellable and connecting it costs more than all the rest. So one is
 * used again, as soon as nobody else has it and if nothing was done to it. */

#define SPARE_FOLLOWERS 8

static void
follow_cb (GCancellable *cancellable, gpointer user_data)
{
  g_cancellable_cancel (user_data);
}

static gboolean
is_as_new (GCancellable *cancellable)
{
  return bg_object_is_as_new (cancellable, 2) && !g_cancellable_is_cancelled (cancellable)
         && !g_signal_has_handler_pending (cancellable,
                                           g_signal_lookup ("cancelled", G_TYPE_CANCELLABLE), 0,
                                           TRUE);
}

static BgFollower
take_follower (BgCore *core)
{
  BgFollower follower = { NULL };

  bg_core_lock (core);
  for (guint i = 0; core->followers != NULL && i < core->followers->len; i++)
    {
      BgFollower *spare = &g_array_index (core->followers, BgFollower, i);

      if (is_as_new (spare->cancellable))
        {
          follower = *spare;
          g_array_remove_index_fast (core->followers, i);
          break;
        }
    }
  bg_core_unlock (core);

  if (follower.cancellable == NULL)
    {
      follower.cancellable = g_cancellable_new ();
      follower.handler
          = g_cancellable_connect (core->cancellable, G_CALLBACK (follow_cb),
                                   g_object_ref (follower.cancellable), g_object_unref);
    }
  return follower;
}

/* The operation has answered. Its answer may go on looking at the cancellable, and
 * is not to be spoilt by what happens to the loop from now on. */
static void
stop_following (BgCore *core, BgFollower *follower)
{
  if (g_atomic_int_get ((int *) &G_OBJECT (follower->cancellable)->ref_count) == 2)
    return;

  if (follower->handler != 0)
    g_signal_handler_disconnect (core->cancellable, follower->handler);
  follower->handler = 0;
}

static void
give_back_follower (BgCore *core, BgFollower follower)
{
  gboolean kept = FALSE;

  bg_core_lock (core);
  if (core->followers == NULL)
    core->followers = g_array_new (FALSE, FALSE, sizeof (BgFollower));
  if (follower.handler != 0 && core->followers->len < SPARE_FOLLOWERS
      && !g_cancellable_is_cancelled (follower.cancellable))
    {
      g_array_append_val (core->followers, follower);
      kept = TRUE;
    }
  bg_core_unlock (core);

  if (!kept)
    {
      if (follower.handler != 0)
        g_signal_handler_disconnect (core->cancellable, follower.handler);
      g_object_unref (follower.cancellable);
    }
}

/* Operations */

static BgOperation *
operation_ref (BgOperation *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

static void
operation_unref (gpointer data)
{
  BgOperation *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count) || bg_core_is_forked (self->core))
    return;

  give_back_follower (self->core, self->follower);
  g_clear_object (&self->caller_cancellable);
  g_clear_object (&self->result);
  bg_core_unref (self->core);
  g_free (self);
}

static BgOperation *
operation_from_blocked (BgBlocked *blocked)
{
  return (gpointer) ((char *) blocked - G_STRUCT_OFFSET (BgOperation, blocked));
}

static BgOperation *
operation_new (BgCore *core,
               BgBeginFunc begin,
               gpointer data,
               GDestroyNotify destroy,
               GCancellable *cancellable)
{
  BgOperation *self = g_new0 (BgOperation, 1);

  self->ref_count = 1;
  self->core = bg_core_ref (core);
  self->begin = begin;
  self->data = data;
  self->destroy = destroy;
  self->hold.func = begin;
  g_set_object (&self->caller_cancellable, cancellable);
  self->follower = take_follower (core);
  return self;
}

/* The operation is over, or will never begin: it follows its caller no more. It
 * may be the handler itself that brought this about, so it is not waited for. */
static void
disconnect (BgOperation *self)
{
  if (self->caller_handler != 0)
    g_signal_handler_disconnect (self->caller_cancellable, self->caller_handler);
}

/* With the lock held. The list has a reference. */
static void
list (BgOperation *self)
{
  operation_ref (self);
  bg_core_add_blocked (self->core, &self->blocked);
}

/* With the lock held, while the caller has a reference of its own. */
static gboolean
unlist (BgOperation *self)
{
  if (!bg_core_remove_blocked (self->core, &self->blocked))
    return FALSE;

  operation_unref (self);
  return TRUE;
}

/* Answers */

static void
publish (BgOperation *self)
{
  BgGlobals *globals = bg_globals ();

  g_mutex_lock (&globals->lock);
  if (globals->operations == NULL)
    globals->operations = g_hash_table_new (NULL, NULL);
  self->id = ++globals->last_operation;
  g_hash_table_insert (globals->operations, GSIZE_TO_POINTER (self->id), operation_ref (self));
  g_mutex_unlock (&globals->lock);
}

/* What is no result is a programming error, and an answer all the same. */
static GAsyncResult *
ref_result (GAsyncResult *result)
{
  GTask *task;

  if (G_LIKELY (G_IS_ASYNC_RESULT (result)))
    return g_object_ref (result);

  g_critical ("An operation on a loop has answered without a result");
  task = g_task_new (NULL, NULL, NULL, NULL);
  g_task_return_new_error (task, G_IO_ERROR, G_IO_ERROR_FAILED,
                           "The operation answered without a result");
  return G_ASYNC_RESULT (task);
}

static void
answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  BgGlobals *globals = bg_globals ();
  BgOperation *self = NULL;
  GAsyncResult *answer;
  BgReply *reply = NULL;
  gboolean settles;

  g_mutex_lock (&globals->lock);
  if (globals->operations != NULL)
    {
      self = g_hash_table_lookup (globals->operations, user_data);
      g_hash_table_remove (globals->operations, user_data);
    }
  g_mutex_unlock (&globals->lock);

  if (self == NULL)
    {
      /* A forked child does not know its parent's. */
      if (globals->generation > 0)
        return;
      g_critical ("An operation on a loop has answered more than once");
      return;
    }

  disconnect (self);
  stop_following (self->core, &self->follower);
  answer = ref_result (result);
  bg_core_lock (self->core);
  self->result = answer;
  if (self->phase == PENDING)
    {
      self->phase = ENDED;
      reply = g_steal_pointer (&self->reply);
    }
  settles = unlist (self) && self->blocked.waiter != NULL;
  if (reply == NULL)
    bg_core_remove_hold (self->core, &self->hold);
  bg_core_unlock (self->core);

  /* Whoever has waited for this is likely to want the next thing. */
  atomic_fetch_sub (&self->core->inbox.awaited, 1);
  if (bg_core_is_current (self->core))
    bg_inbox_stay (&self->core->inbox);
  if (settles && bg_waiter_settle (self->blocked.waiter))
    bg_inbox_note_woken (&self->core->inbox);
  if (reply != NULL)
    {
      bg_reply_return (reply, G_OBJECT (g_steal_pointer (&self->result)), NULL);

      /* Not before the reply is on its way: it may go to the loop itself, and keep
       * it from ending. */
      bg_core_lock (self->core);
      bg_core_remove_hold (self->core, &self->hold);
      bg_core_unlock (self->core);
    }
  operation_unref (self);
}

/* Beginning */

static void
set_closed_error (BgCore *core, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
               "The loop “%s” was shut down before the operation answered", core->name);
}

static void
set_cancelled_error (GError **error)
{
  g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "The operation was cancelled");
}

/* begin() has returned: whoever waits, waits for the answer from now on. */
static void
end_begin (BgOperation *self)
{
  BgCore *core = self->core;
  BgReply *reply = NULL;
  GAsyncResult *result = NULL;
  GError *error = NULL;
  gboolean settles = FALSE;

  bg_core_lock (core);
  self->phase = self->result != NULL ? ENDED : PENDING;
  if (self->phase == PENDING && bg_core_is_cancelling (core))
    self->blocked.closed = TRUE;

  if (self->phase == PENDING && !self->blocked.closed && !self->left && !self->cancelled)
    {
      if (self->blocked.waiter != NULL)
        bg_waiter_set_bound (self->blocked.waiter, FALSE);
      list (self);
    }
  else
    {
      settles = self->blocked.waiter != NULL;
      reply = g_steal_pointer (&self->reply);
      if (reply != NULL)
        result = g_steal_pointer (&self->result);
    }
  bg_core_unlock (core);

  if (settles && bg_waiter_settle (self->blocked.waiter))
    bg_inbox_note_woken (&core->inbox);
  if (reply == NULL)
    return;

  if (result == NULL && self->blocked.closed)
    set_closed_error (core, &error);
  else if (result == NULL)
    set_cancelled_error (&error);
  bg_reply_return (reply, (GObject *) result, error);
}

/* It was accepted, and will not begin. */
static void
drop (BgOperation *self)
{
  BgCore *core = self->core;
  BgReply *reply;
  GError *error = NULL;

  if (bg_core_is_cancelling (core))
    set_closed_error (core, &error);
  else
    set_cancelled_error (&error);

  disconnect (self);
  if (self->destroy != NULL)
    self->destroy (self->data);
  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  self->phase = ENDED;
  bg_core_remove_hold (core, &self->hold);
  reply = g_steal_pointer (&self->reply);
  bg_core_unlock (core);

  if (self->blocked.waiter != NULL)
    bg_waiter_settle (self->blocked.waiter);
  bg_reply_return (reply, NULL, error);
}

static void
begin_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgOperation *self;
  gboolean dropped;

  bg_core_lock (core);
  self = slot->data;
  if (self != NULL)
    {
      self->blocked.slot = NULL;
      self->phase = BEGINNING;
      unlist (self);
      dropped
          = g_cancellable_is_cancelled (self->caller_cancellable) || bg_core_is_cancelling (core);
    }
  bg_core_unlock (core);

  if (self == NULL)
    {
      bg_count (&core->inbox.cancelled, 1);
      return;
    }

  if (dropped)
    {
      bg_count (&core->inbox.cancelled, 1);
      drop (self);
    }
  else
    {
      bg_count (&core->inbox.run, 1);
      publish (self);
      if (self->blocked.waiter != NULL)
        bg_waiter_set_bound (self->blocked.waiter, TRUE);
      atomic_fetch_add (&core->inbox.awaited, 1);
      self->begin (self->follower.cancellable, answer_cb, GSIZE_TO_POINTER (self->id), self->data);
      if (self->destroy != NULL)
        self->destroy (self->data);
      if (!bg_core_is_forked (core))
        end_begin (self);
    }
  operation_unref (self);
}

/* With the lock held. The record has a reference. */
static gboolean
admit (BgOperation *self)
{
  BgCore *core = self->core;

  if (!bg_core_admits (core))
    return FALSE;

  bg_core_add_hold (core, &self->hold);
  self->blocked.slot = bg_inbox_append (&core->inbox, G_PRIORITY_DEFAULT, begin_outcome,
                                        self->begin, operation_ref (self), NULL);
  bg_inbox_press (&core->inbox);
  return TRUE;
}

/* Blocking */

static void
settle_closed (BgBlocked *blocked)
{
  BgOperation *self = operation_from_blocked (blocked);

  bg_waiter_settle (blocked->waiter);
  operation_unref (self);
}

/* The wait was cancelled or timed out. TRUE if it is over at once. */
static gboolean
leave (BgOperation *self)
{
  BgCore *core = self->core;
  gboolean queued, listed, over, cancels;

  bg_core_lock (core);
  queued = self->phase == QUEUED;
  listed = unlist (self);
  over = listed;
  if (listed && queued)
    {
      self->blocked.slot->data = NULL;
      self->phase = ENDED;
      bg_core_remove_hold (core, &self->hold);
    }
  self->left = TRUE;
  cancels = self->phase != ENDED && self->result == NULL;
  bg_core_unlock (core);

  if (listed && queued)
    {
      disconnect (self);
      operation_unref (self);
    }
  else if (cancels)
    {
      g_cancellable_cancel (self->follower.cancellable);
    }
  return over;
}

/* A CANCEL shutdown took it out of the inbox: nothing else will end it. */
static void
drop_withdrawn (BgOperation *self)
{
  BgCore *core = self->core;
  gboolean queued;

  bg_core_lock (core);
  queued = self->phase == QUEUED;
  if (queued)
    {
      self->phase = ENDED;
      bg_core_remove_hold (core, &self->hold);
    }
  bg_core_unlock (core);

  if (queued)
    {
      disconnect (self);
      operation_unref (self);
    }
}

static GAsyncResult *
wait_for_answer (BgOperation *self, gint64 deadline, GError **error)
{
  BgCore *core = self->core;
  BgWaitResult result = bg_waiter_wait (self->blocked.waiter, deadline);
  GAsyncResult *answer;

  if (result == BG_WAIT_SETTLED || !leave (self))
    {
      bg_waiter_wait_settled (self->blocked.waiter);

      bg_core_lock (core);
      answer = g_steal_pointer (&self->result);
      bg_core_unlock (core);
      if (answer != NULL)
        return answer;
    }

  if (self->blocked.closed)
    {
      drop_withdrawn (self);
      set_closed_error (core, error);
    }
  else if (result == BG_WAIT_SETTLED)
    {
      set_cancelled_error (error);
    }
  else
    {
      bg_set_wait_error (error, result, "An operation on the loop “%s”", core->name);
    }
  return NULL;
}

static GAsyncResult *
perform_there (BgOperation *self, int timeout_msec, GCancellable *cancellable, GError **error)
{
  BgCore *core = self->core;
  gint64 deadline = bg_deadline (timeout_msec);
  BgWaiter *waiter = bg_waiter_take (cancellable);
  GAsyncResult *answer = NULL;
  gboolean admitted, awake;

  self->blocked.waiter = waiter;
  self->blocked.close = settle_closed;
  g_set_object (&self->caller_cancellable, cancellable);
  if (!bg_core_wait_begin (core, waiter, error))
    {
      bg_waiter_give_back (waiter, cancellable);
      disconnect (self);
      return NULL;
    }

  bg_core_lock (core);
  awake = !core->inbox.asleep;
  admitted = admit (self);
  if (admitted)
    list (self);
  bg_core_unlock (core);

  if (admitted)
    {
      if (awake)
        bg_waiter_spin (waiter, atomic_load (&core->inbox.linger),
                        bg_inbox_is_served_elsewhere (&core->inbox));
      answer = wait_for_answer (self, deadline, error);
    }
  else
    {
      disconnect (self);
      bg_core_set_refused_error (core, error);
    }

  bg_core_wait_end (core);
  bg_waiter_give_back (waiter, cancellable);
  return answer;
}

/**
 * bg_loop_perform:
 * @self: a loop
 * @begin: (scope call) (closure user_data): begins the operation
 * @user_data: what to give it
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Performs an asynchronous operation on the loop's thread and waits for its
 * answer.
 *
 * This makes a blocking call of any pair of functions foo_async() and
 * foo_finish(): @begin calls foo_async(), and what this returns is for
 * foo_finish(), which may be called here, in this thread.
 *
 * A wait that is cancelled or times out before @begin has started ends with
 * @begin never run. Once started, @begin is always waited for, so that
 * @user_data may live on the caller's stack. After that, a cancellation, a
 * timeout or a shutdown with %BG_SHUTDOWN_CANCEL ends the wait at once and
 * cancels the operation, whose late answer is dropped. The operation keeps the
 * loop from ending until it answers, whether or not anybody waits for it.
 *
 * Fails with %BG_ERROR_CLOSED if the loop takes no more work or was shut down
 * meanwhile; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or that of a
 * loop which it waits for; %BG_ERROR_FORKED in a forked child;
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT. How the operation itself went
 * is in its answer.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform (BgLoop *self,
                 BgBeginFunc begin,
                 gpointer user_data,
                 int timeout_msec,
                 GCancellable *cancellable,
                 GError **error)
{
  BgOperation *operation;
  GAsyncResult *answer;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (begin != NULL, NULL);
  g_return_val_if_fail (timeout_msec >= -1, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, error);
      return NULL;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return NULL;

  operation = operation_new (self->core, begin, user_data, NULL, cancellable);
  answer = perform_there (operation, timeout_msec, cancellable, error);
  operation_unref (operation);
  return answer;
}

/* Asynchronous */

static void
caller_cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgOperation *self = user_data;
  BgReply *reply = NULL;
  GError *error = NULL;

  if (bg_core_is_forked (self->core))
    return;

  bg_core_lock (self->core);
  self->cancelled = TRUE;
  if (self->phase == PENDING && unlist (self))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  g_cancellable_cancel (self->follower.cancellable);
  if (reply == NULL)
    return;

  set_cancelled_error (&error);
  bg_reply_return (reply, NULL, error);
}

static void
reply_closed (BgBlocked *blocked)
{
  BgOperation *self = operation_from_blocked (blocked);
  BgReply *reply;
  GError *error = NULL;

  bg_core_lock (self->core);
  reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  set_closed_error (self->core, &error);
  bg_reply_return (reply, NULL, error);
  operation_unref (self);
}

static BgOperation *
async_operation_new (BgCore *core,
                     BgBeginFunc begin,
                     gpointer data,
                     GDestroyNotify destroy,
                     GCancellable *cancellable)
{
  BgOperation *self = operation_new (core, begin, data, destroy, cancellable);

  self->blocked.close = reply_closed;
  if (cancellable != NULL)
    {
      self->caller_handler = g_cancellable_connect (cancellable, G_CALLBACK (caller_cancelled_cb),
                                                    operation_ref (self), operation_unref);
    }
  return self;
}

/**
 * bg_loop_perform_async:
 * @self: a loop
 * @begin: (scope notified) (closure user_data) (destroy destroy): begins the
 *   operation
 * @user_data: what to give it
 * @destroy: (nullable): what to do with @user_data once @begin has returned
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async) (closure callback_data): what to call with
 *   the answer
 * @callback_data: what to give it
 *
 * Performs an asynchronous operation on the loop's thread and has its answer in
 * this one's context.
 *
 * @callback is called in the thread-default context of the moment, once, and
 * never before this returns. Never waits; any thread may call it, the loop's own
 * included. As for the rest see [method@Bg.Loop.perform].
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns.
 *
 * Since: 1.0
 */
void
bg_loop_perform_async (BgLoop *self,
                       BgBeginFunc begin,
                       gpointer user_data,
                       GDestroyNotify destroy,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer callback_data)
{
  BgCore *core;
  BgReply *reply;
  BgOperation *operation;
  GError *error = NULL;
  gboolean admitted = FALSE;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (begin != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  core = self->core;
  reply = bg_reply_new (self, bg_loop_perform_async, callback, callback_data);
  if (!bg_core_is_forked (core))
    {
      operation = async_operation_new (core, begin, user_data, destroy, cancellable);
      bg_core_lock (core);
      operation->reply = reply;
      admitted = admit (operation);
      bg_core_unlock (core);
      if (!admitted)
        disconnect (operation);
      operation_unref (operation);
    }

  if (!admitted)
    {
      if (destroy != NULL)
        destroy (user_data);
      bg_core_set_refused_error (core, &error);
      bg_reply_return (reply, NULL, error);
    }
}

/**
 * bg_loop_perform_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The answer of [method@Bg.Loop.perform_async].
 *
 * Fails with %BG_ERROR_CLOSED if the loop takes no more work or was shut down
 * meanwhile, %BG_ERROR_FORKED and %G_IO_ERROR_CANCELLED.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  GObject *answer = NULL;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_perform_async), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  bg_reply_propagate (BG_REPLY (result), &answer, error);
  return (GAsyncResult *) answer;
}
