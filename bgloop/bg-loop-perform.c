/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-glib-private.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-symbol-private.h>

/* The states of an operation:
 *
 *  QUEUED ──► BEGINNING ──► PENDING ──► ANSWERED ──► ENDED
 *    │            └────────────────────────────────────▲
 *    └─────────────────────────────────────────────────┘
 *
 * The callback that answers leaves the result behind and has a record appended:
 * only when that runs, the callback has returned, and the result is handed over. */
typedef enum
{
  QUEUED,    /* begin() has not started */
  BEGINNING, /* begin() runs; it may have answered */
  PENDING,   /* it has returned; the operation has not answered */
  ANSWERED,  /* it has; the answer is to be handed over */
  ENDED,     /* it was handed over, or nobody wanted it, or it never began */
} BgPhase;

/* An operation. It holds the loop from when it is accepted until it answers,
 * whether or not anybody still waits for it.
 *
 * The operation knows it by a number, not by its address, so that an answer that
 * comes a second time can be told from a first one. */
typedef struct
{
  int ref_count; /* atomic: one for whoever began it, one in the inbox or among
                  * the known operations, one in the list of the blocked, one an
                  * expiry */

  /* immutable once it is accepted */
  BgCore *core; /* (owned) */
  gsize id;
  int priority;
  GCancellable *cancellable;        /* (owned) what the operation gets */
  GCancellable *caller_cancellable; /* (owned) (nullable) */
  BgBeginFunc begin;                /* (nullable) this, or */
  BgOperationFunc func;             /* (nullable) this begins it */
  gpointer data;
  GDestroyNotify destroy;
  int timeout_msec;
  gint64 deadline; /* monotonic microseconds; -1: none */

  /* under the core's lock */
  BgHold hold;
  BgBlocked blocked;
  GList answered_link;
  BgPhase phase;
  gboolean answered;    /* there is a result or an error */
  BgWaitResult gave_up; /* why nobody waits for it any more; SETTLED: somebody does */
  BgReply *reply;       /* (owned) (nullable) */
  GAsyncResult *result; /* (owned) (nullable) */
  GError *error;        /* (owned) (nullable) */

  /* of the loop's thread, while it begins */
  BgOperation *operation; /* (owned) (nullable) */
  GError *begin_error;    /* (owned) (nullable) */
} BgPerform;

/* Making a cancellable costs as much as half of the rest. So one is used again, if nobody
 * else has it and nothing was done to it. */

#define SPARE_CANCELLABLES 8

static GCancellable *
take_cancellable (BgCore *core)
{
  GCancellable *cancellable = NULL;

  if (bg_core_is_forked (core))
    return g_cancellable_new ();

  bg_core_lock (core);
  if (core->operations.spare_cancellables != NULL && core->operations.spare_cancellables->len > 0)
    cancellable = g_ptr_array_steal_index_fast (core->operations.spare_cancellables,
                                                core->operations.spare_cancellables->len - 1);
  bg_core_unlock (core);

  return cancellable != NULL ? cancellable : g_cancellable_new ();
}

static gboolean
is_as_new (GCancellable *cancellable)
{
  return bg_glib_is_unshared (cancellable, 1) && !g_cancellable_is_cancelled (cancellable)
         && !g_signal_has_handler_pending (cancellable,
                                           g_signal_lookup ("cancelled", G_TYPE_CANCELLABLE), 0,
                                           TRUE);
}

static void
give_back_cancellable (BgCore *core, GCancellable *cancellable)
{
  gboolean kept = is_as_new (cancellable);

  if (kept)
    {
      bg_core_lock (core);
      if (core->operations.spare_cancellables == NULL)
        core->operations.spare_cancellables = g_ptr_array_new_with_free_func (g_object_unref);
      kept = core->operations.spare_cancellables->len < SPARE_CANCELLABLES;
      if (kept)
        g_ptr_array_add (core->operations.spare_cancellables, cancellable);
      bg_core_unlock (core);
    }
  if (!kept)
    g_object_unref (cancellable);
}

static BgPerform *
perform_ref (BgPerform *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

static void
perform_unref (gpointer data)
{
  BgPerform *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count) || bg_core_is_forked (self->core))
    return;

  give_back_cancellable (self->core, self->cancellable);
  g_clear_object (&self->caller_cancellable);
  g_clear_object (&self->result);
  g_clear_error (&self->error);
  bg_core_unref (self->core);
  g_free (self);
}

static BgPerform *
perform_from_blocked (BgBlocked *blocked)
{
  return (gpointer) ((char *) blocked - G_STRUCT_OFFSET (BgPerform, blocked));
}

static BgPerform *
perform_new (BgCore *core, int priority, int timeout_msec, GCancellable *cancellable)
{
  BgPerform *self = g_new0 (BgPerform, 1);

  bg_core_heed_cancellable (core);
  self->ref_count = 1;
  self->core = bg_core_ref (core);
  self->priority = self->blocked.priority = priority;
  self->timeout_msec = timeout_msec;
  self->deadline = bg_deadline (timeout_msec);
  self->cancellable = self->hold.cancellable = take_cancellable (core);
  g_set_object (&self->caller_cancellable, cancellable);
  return self;
}

static gpointer
get_func (BgPerform *self)
{
  return self->begin != NULL ? (gpointer) self->begin : (gpointer) self->func;
}

/* With the lock held. The list has a reference. */
static void
add_blocked (BgPerform *self)
{
  perform_ref (self);
  bg_core_add_blocked (self->core, &self->blocked);
}

/* With the lock held, while the caller has a reference of its own. */
static gboolean
remove_blocked (BgPerform *self)
{
  if (!bg_core_remove_blocked (self->core, &self->blocked))
    return FALSE;

  perform_unref (self);
  return TRUE;
}

/* Why there is no answer. */
static void
set_error (BgPerform *self, GError **error)
{
  BgCore *core = self->core;
  BgWaitResult gave_up;
  gboolean closed;

  bg_core_lock (core);
  closed = self->blocked.closed;
  gave_up = self->gave_up;
  bg_core_unlock (core);

  if (closed)
    g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                 "The loop “%s” was shut down before the operation answered", core->name);
  else
    bg_set_wait_error (error, gave_up, "An operation on the loop “%s”", core->name);
}

/* With the lock held: whether somebody waits for an answer. What comes after a wait was
 * given up, or closed, is late: an operation that was cancelled for that says so. */
static gboolean
is_wanted (BgPerform *self)
{
  return self->gave_up == BG_WAIT_SETTLED && !self->blocked.closed
         && !bg_core_is_cancelling (self->core);
}

/* Answers */

static void
publish (BgPerform *self)
{
  BgGlobals *globals = bg_globals ();

  g_mutex_lock (&globals->lock);
  if (globals->operations == NULL)
    globals->operations = g_hash_table_new (NULL, NULL);
  /* Where a number comes round, that of an operation that is there is passed over. */
  do
    self->id = ++globals->last_operation;
  while (self->id == 0 || g_hash_table_contains (globals->operations, GSIZE_TO_POINTER (self->id)));
  g_hash_table_insert (globals->operations, GSIZE_TO_POINTER (self->id), perform_ref (self));
  g_mutex_unlock (&globals->lock);
}

/* Whoever gets it has to answer, and has the table's reference. */
static BgPerform *
unpublish (gpointer id)
{
  BgGlobals *globals = bg_globals ();
  BgPerform *self = NULL;

  g_mutex_lock (&globals->lock);
  if (globals->operations != NULL)
    {
      self = g_hash_table_lookup (globals->operations, id);
      g_hash_table_remove (globals->operations, id);
    }
  g_mutex_unlock (&globals->lock);

  return self;
}

static void
settle (BgPerform *self, BgWaiter *waiter)
{
  if (waiter != NULL && bg_waiter_settle (waiter))
    bg_inbox_note_woken (&self->core->inbox);
}

/* Hands the answer, or the lack of one, to whoever waits. */
static void
hand_over (BgPerform *self)
{
  BgCore *core = self->core;
  GAsyncResult *result = NULL;
  GError *error = NULL;
  BgWaiter *waiter;
  BgReply *reply;

  bg_core_lock (core);
  self->phase = ENDED;
  waiter = g_steal_pointer (&self->blocked.waiter);
  reply = g_steal_pointer (&self->reply);
  if (reply != NULL)
    {
      result = g_steal_pointer (&self->result);
      error = g_steal_pointer (&self->error);
    }
  bg_core_unlock (core);

  settle (self, waiter);
  if (reply != NULL)
    {
      if (result == NULL && error == NULL)
        set_error (self, &error);
      bg_reply_return (reply, (GObject *) result, error);
    }

  /* Not before the reply is on its way: it may go to the loop itself, and keep it from
   * ending. */
  bg_core_lock (core);
  bg_core_remove_hold (core, &self->hold);
  bg_core_unlock (core);
}

/* On the loop's thread, when the callbacks that answered have returned. */
void
bg_loop_hand_over_answers (BgCore *core)
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
          hand_over (self);
          perform_unref (self);
        }
    }
  while (self != NULL);
}

static void
answers_outcome (BgRecord *slot, gpointer owner)
{
  bg_loop_hand_over_answers (owner);
}

/* Takes over @result and @error, one of which is NULL, and a reference. Any thread. */
static void
answer (BgPerform *self, GAsyncResult *result, GError *error)
{
  BgCore *core = self->core;
  gboolean hands_over = FALSE;
  int poster;

  bg_core_lock (core);
  if (is_wanted (self))
    {
      self->result = g_steal_pointer (&result);
      self->error = g_steal_pointer (&error);
    }
  else if (bg_core_is_cancelling (core))
    {
      self->blocked.closed = self->blocked.closed || self->gave_up == BG_WAIT_SETTLED;
    }
  self->answered = TRUE;
  atomic_fetch_sub (&core->inbox.linger.n_pending, 1);
  if (self->phase == PENDING)
    {
      self->phase = ANSWERED;
      remove_blocked (self);
      hands_over = core->stopping.closed;
      if (!hands_over)
        {
          poster
              = atomic_load_explicit (&core->inbox.linger.poster_processor, memory_order_relaxed);
          self->answered_link.data = perform_ref (self);
          g_queue_push_tail_link (&core->operations.answered, &self->answered_link);
          bg_inbox_requeue (&core->inbox, self->priority, answers_outcome, get_func (self), core,
                            NULL);
          bg_inbox_press (&core->inbox);
          /* What comes next comes from where the operation came from. */
          atomic_store_explicit (&core->inbox.linger.poster_processor, poster,
                                 memory_order_relaxed);
        }
    }
  bg_core_unlock (core);

  if (hands_over)
    hand_over (self);
  g_clear_object (&result);
  g_clear_error (&error);
  perform_unref (self);
}

static void
answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  BgPerform *self = unpublish (user_data);

  if (self == NULL)
    {
      /* A forked child does not know its parent's. */
      if (bg_fork_generation () == 0)
        g_critical ("An operation on a loop has answered more than once, or though its "
                    "beginning had failed");
      return;
    }

  if (G_IS_ASYNC_RESULT (result))
    answer (self, g_object_ref (result), NULL);
  else
    answer (self, NULL,
            g_error_new (BG_ERROR, BG_ERROR_UNANSWERED,
                         "An operation on the loop “%s” has answered without a result",
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
    perform = unpublish (self->id);
  if (perform != NULL)
    answer (perform, NULL,
            g_error_new (BG_ERROR, BG_ERROR_UNANSWERED,
                         "Nobody can answer an operation on the loop “%s” any more",
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
    answer_cb (NULL, result, id);
  else
    g_critical ("An operation on a loop has been answered more than once, or though its "
                "beginning had failed");
}

static gboolean
begin_operation (BgPerform *self, GError **error)
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

/* Beginning */

static void
destroy_data (BgPerform *self)
{
  GDestroyNotify destroy = g_steal_pointer (&self->destroy);

  if (destroy != NULL)
    destroy (self->data);
}

/* The destroy notify of one that was dropped has ended the thread. */
static void
half_dropped_outcome (BgRecord *slot, gpointer owner)
{
  hand_over (slot->data);
  perform_unref (slot->data);
}

/* It was accepted, and will not begin. */
static void
drop (BgPerform *self)
{
  BgInbox *inbox = &self->core->inbox;

  inbox->activities.current->kept = (BgRecord){ half_dropped_outcome, get_func (self), self, NULL };
  destroy_data (self);
  bg_inbox_drop_kept (inbox);
  if (!bg_core_is_forked (self->core))
    hand_over (self);
}

/* The function's word, held to what a GError function promises. */
static gboolean
run_begin (BgPerform *self, GError **error)
{
  GError *local = NULL;
  gboolean ok;

  if (self->begin != NULL)
    ok = !!self->begin (self->data, self->cancellable, answer_cb, GSIZE_TO_POINTER (self->id),
                        &local);
  else
    ok = !!begin_operation (self, &local);

  if (G_UNLIKELY (ok != (local == NULL)))
    {
      g_autofree char *name = bg_symbol_describe (get_func (self));

      /* Functions of other languages may have no way to say why. */
      if (ok || self->begin != NULL)
        g_critical ("%s returned %s an error", name, ok ? "TRUE with" : "FALSE without");
      if (ok)
        g_clear_error (&local);
      else
        g_set_error (&local, G_IO_ERROR, G_IO_ERROR_FAILED, "%s failed without saying why", name);
    }

  if (!ok)
    g_propagate_error (error, local);
  return ok;
}

/* Whatever the work around this has pushed, the operation is to complete on the loop. */
static gboolean
begin_on_context (BgPerform *self, GError **error)
{
  GMainContext *context = self->core->context;
  gboolean pushes = g_main_context_get_thread_default () != context;
  gboolean ok;

  if (pushes)
    g_main_context_push_thread_default (context);
  ok = run_begin (self, error);
  if (pushes && !bg_core_is_forked (self->core))
    g_main_context_pop_thread_default (context);
  return ok;
}

/* begin() has returned: whoever waits, waits for the answer from now on. */
static void
end_begin (BgPerform *self, gboolean ok, GError *error)
{
  BgCore *core = self->core;
  BgPerform *unanswered = ok ? NULL : unpublish (GSIZE_TO_POINTER (self->id));
  BgWaiter *waiter = NULL;
  BgReply *reply = NULL;
  gboolean hands_over, gave_up = FALSE;

  if (unanswered != NULL)
    answer (unanswered, NULL, g_steal_pointer (&error));
  else if (!ok)
    g_critical ("An operation on the loop “%s” has answered and its beginning has failed",
                core->name);
  g_clear_error (&error);

  bg_core_lock (core);
  hands_over = self->answered;
  if (!hands_over)
    {
      self->phase = PENDING;
      if (bg_core_is_cancelling (core) && self->gave_up == BG_WAIT_SETTLED)
        self->blocked.closed = TRUE;
      gave_up = !is_wanted (self);
      if (gave_up)
        {
          reply = g_steal_pointer (&self->reply);
          waiter = g_steal_pointer (&self->blocked.waiter);
        }
      else if (self->blocked.waiter != NULL)
        bg_waiter_set_bound (self->blocked.waiter, FALSE);
      if (!gave_up)
        add_blocked (self);
    }
  bg_core_unlock (core);

  if (hands_over)
    {
      hand_over (self);
    }
  else if (gave_up)
    {
      settle (self, waiter);
      if (reply != NULL)
        {
          set_error (self, &error);
          bg_reply_return (reply, NULL, error);
        }
    }
}

/* Its function, or the destroy notify after it, has ended the thread. */
static void
half_begun_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgPerform *self = slot->data;
  BgPerform *unanswered = unpublish (GSIZE_TO_POINTER (self->id));

  GError *error = g_steal_pointer (&self->begin_error);

  destroy_data (self);
  if (unanswered != NULL && error == NULL)
    error = g_error_new (BG_ERROR, BG_ERROR_CLOSED,
                         "The thread of the loop “%s” ended before the operation had begun",
                         core->name);
  if (unanswered != NULL)
    answer (unanswered, NULL, g_steal_pointer (&error));
  g_clear_error (&error);
  g_clear_pointer (&self->operation, bg_operation_unref);
  end_begin (self, TRUE, NULL);
  perform_unref (self);
}

/* Whether somebody waits, and would not any more if awake. */
static gboolean
is_late (BgPerform *self)
{
  gboolean waits
      = self->blocked.waiter != NULL || (self->reply != NULL && bg_reply_is_wanted (self->reply));

  return waits && self->deadline != -1 && g_get_monotonic_time () >= self->deadline;
}

static void
begin_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgPerform *self;
  gboolean ok, drops = FALSE;

  bg_core_lock (core);
  self = bg_inbox_take (&core->inbox, slot);
  if (self != NULL)
    {
      self->blocked.slot = NULL;
      remove_blocked (self);
      if (self->gave_up == BG_WAIT_SETTLED && bg_core_is_cancelling (core))
        self->blocked.closed = TRUE;
      else if (self->gave_up == BG_WAIT_SETTLED
               && g_cancellable_is_cancelled (self->caller_cancellable))
        self->gave_up = BG_WAIT_CANCELLED;
      else if (self->gave_up == BG_WAIT_SETTLED && is_late (self))
        self->gave_up = BG_WAIT_TIMED_OUT;
      drops = !is_wanted (self);
      self->phase = drops ? ENDED : BEGINNING;
    }
  bg_core_unlock (core);

  if (self == NULL)
    return;

  if (drops)
    {
      bg_count (&core->inbox.counts.cancelled, 1);
      drop (self);
      perform_unref (self);
      return;
    }

  core->operations.began = TRUE;
  publish (self);
  if (self->blocked.waiter != NULL)
    bg_waiter_set_bound (self->blocked.waiter, TRUE);
  atomic_fetch_add (&core->inbox.linger.n_pending, 1);
  if (g_cancellable_is_cancelled (core->cancellable))
    g_cancellable_cancel (self->cancellable);
  core->inbox.activities.current->kept
      = (BgRecord){ half_begun_outcome, get_func (self), self, NULL };
  ok = begin_on_context (self, &self->begin_error);
  bg_count (&core->inbox.counts.run, 1);
  destroy_data (self);
  bg_inbox_drop_kept (&core->inbox);
  if (!bg_core_is_forked (core))
    end_begin (self, ok, g_steal_pointer (&self->begin_error));
  perform_unref (self);
}

/* With the lock held. The record has a reference. */
static gboolean
admit (BgPerform *self)
{
  BgCore *core = self->core;

  if (!bg_core_admits (core))
    return FALSE;

  self->hold.func = get_func (self);
  bg_core_add_hold (core, &self->hold);
  self->blocked.slot = bg_inbox_append (&core->inbox, self->priority, begin_outcome,
                                        get_func (self), perform_ref (self), NULL);
  bg_inbox_press (&core->inbox);
  return TRUE;
}

/* Blocking */

static void
settle_closed (BgBlocked *blocked)
{
  BgPerform *self = perform_from_blocked (blocked);
  BgWaiter *waiter;

  bg_core_lock (self->core);
  waiter = g_steal_pointer (&blocked->waiter);
  bg_core_unlock (self->core);

  settle (self, waiter);
  perform_unref (self);
}

/* With the lock held: it was taken out of the inbox before it began. The record's
 * reference is the caller's. */
static void
end_unstarted (BgPerform *self)
{
  self->phase = ENDED;
  bg_core_remove_hold (self->core, &self->hold);
}

/* The wait was cancelled or timed out. TRUE if it is over at once. */
static gboolean
give_up (BgPerform *self, BgWaitResult why)
{
  BgCore *core = self->core;
  gboolean listed, unstarted, cancels;

  bg_core_lock (core);
  listed = remove_blocked (self);
  unstarted = listed && self->phase == QUEUED;
  if (unstarted)
    {
      bg_core_withdraw (core, &self->blocked);
      end_unstarted (self);
    }
  if (!self->answered && !self->blocked.closed)
    self->gave_up = why;
  if (listed)
    self->blocked.waiter = NULL;
  cancels = !unstarted && !self->answered;
  bg_core_unlock (core);

  if (unstarted)
    perform_unref (self);
  else if (cancels)
    g_cancellable_cancel (self->cancellable);
  return listed;
}

/* A CANCEL shutdown may have taken it out of the inbox: nothing else ends it then. */
static void
end_closed (BgPerform *self)
{
  gboolean unstarted;

  bg_core_lock (self->core);
  unstarted = self->phase == QUEUED;
  if (unstarted)
    end_unstarted (self);
  bg_core_unlock (self->core);

  if (unstarted)
    perform_unref (self);
}

static GAsyncResult *
wait_for_answer (BgPerform *self, BgWaiter *waiter, gint64 deadline, GError **error)
{
  BgCore *core = self->core;
  BgWaitResult why = bg_waiter_wait (waiter, deadline);
  GAsyncResult *result;
  GError *failure;
  gboolean closed;

  if (why != BG_WAIT_SETTLED && !give_up (self, why))
    bg_waiter_wait_settled (waiter);

  bg_core_lock (core);
  result = g_steal_pointer (&self->result);
  failure = g_steal_pointer (&self->error);
  closed = self->blocked.closed;
  bg_core_unlock (core);

  if (closed)
    end_closed (self);
  if (failure != NULL)
    g_propagate_error (error, failure);
  else if (result == NULL)
    set_error (self, error);
  return result;
}

static GAsyncResult *
perform_blocking (BgPerform *self, GError **error)
{
  BgCore *core = self->core;
  GCancellable *cancellable = self->caller_cancellable;
  BgWaiter *waiter = bg_waiter_take (cancellable);
  GAsyncResult *result = NULL;
  gboolean admitted, awake;
  BgWait wait;

  self->blocked.waiter = waiter;
  self->blocked.close = settle_closed;
  if (!bg_core_wait_begin (core, &wait, waiter, error))
    {
      bg_waiter_give_back (waiter, cancellable);
      return NULL;
    }

  bg_core_lock (core);
  awake = !core->inbox.asleep;
  admitted = admit (self);
  if (admitted)
    add_blocked (self);
  bg_core_unlock (core);

  if (admitted && awake)
    bg_waiter_spin (waiter, atomic_load (&core->inbox.linger.usec), self->deadline,
                    bg_inbox_is_served_elsewhere (&core->inbox));
  if (admitted)
    result = wait_for_answer (self, waiter, self->deadline, error);
  else
    bg_core_set_refused_error (core, error);

  bg_wait_end (&wait);
  bg_waiter_give_back (waiter, cancellable);
  return result;
}

static GAsyncResult *
perform (BgLoop *loop,
         int priority,
         int timeout_msec,
         BgBeginFunc begin,
         BgOperationFunc func,
         gpointer user_data,
         GCancellable *cancellable,
         GError **error)
{
  GAsyncResult *result;
  BgPerform *self;

  if (bg_core_is_forked (loop->core))
    {
      bg_core_set_refused_error (loop->core, error);
      return NULL;
    }
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return NULL;

  self = perform_new (loop->core, priority, timeout_msec, cancellable);
  self->begin = begin;
  self->func = func;
  self->data = user_data;
  result = perform_blocking (self, error);
  perform_unref (self);
  return result;
}

/**
 * bg_loop_perform: (skip)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @begin: begins the operation
 * @user_data: data to pass to @begin
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
 * @user_data may live on the caller's stack. If it fails, that is the answer. After
 * that, a cancellation, a timeout or a shutdown with %BG_SHUTDOWN_CANCEL ends the wait
 * at once and cancels the operation, whose late answer is dropped. The operation keeps
 * the loop from ending until it answers, whether or not anybody waits for it.
 *
 * Fails with what @begin failed with; %BG_ERROR_CLOSED if the loop takes no more work
 * or was shut down meanwhile; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or
 * that of a loop which it waits for; %BG_ERROR_FORKED in a forked child;
 * %BG_ERROR_UNANSWERED if the operation answered without a result;
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT. How the operation itself went
 * is in its answer.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform (BgLoop *self,
                 int priority,
                 int timeout_msec,
                 BgBeginFunc begin,
                 gpointer user_data,
                 GCancellable *cancellable,
                 GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (timeout_msec >= -1, NULL);
  g_return_val_if_fail (begin != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return perform (self, priority, timeout_msec, begin, NULL, user_data, cancellable, error);
}

/**
 * bg_loop_perform_operation: (rename-to bg_loop_perform)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @func: (scope call) (closure user_data): begins the operation
 * @user_data: data to pass to @func
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Performs an asynchronous operation on the loop's thread and waits for its
 * answer.
 *
 * This makes a blocking call of any asynchronous operation: @func begins it, and
 * whatever is called when it is done hands its result to
 * [method@Bg.Operation.answer]. What this returns is that result, for the operation's
 * own finish function, which may be called here, in this thread.
 *
 * A wait that is cancelled or times out before @func has started ends with @func never
 * run. Once started, @func is always waited for. If it fails, that is the answer. After
 * that, a cancellation, a timeout or a shutdown with %BG_SHUTDOWN_CANCEL ends the wait
 * at once and cancels the operation, whose late answer is dropped. The operation keeps
 * the loop from ending until it is answered or nobody refers to it any more, whether or
 * not anybody waits for it.
 *
 * Fails with what @func failed with; %BG_ERROR_CLOSED if the loop takes no more work
 * or was shut down meanwhile; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or
 * that of a loop which it waits for; %BG_ERROR_FORKED in a forked child;
 * %BG_ERROR_UNANSWERED if the last reference to the operation went without an answer;
 * %G_IO_ERROR_CANCELLED and %G_IO_ERROR_TIMED_OUT. How the operation itself went
 * is in its answer.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_operation (BgLoop *self,
                           int priority,
                           int timeout_msec,
                           BgOperationFunc func,
                           gpointer user_data,
                           GCancellable *cancellable,
                           GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (timeout_msec >= -1, NULL);
  g_return_val_if_fail (func != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return perform (self, priority, timeout_msec, NULL, func, user_data, cancellable, error);
}

/* Asynchronous */

/* The caller does not want to wait any longer, or not at all. What is queued is dropped
 * when its turn comes, since its data is destroyed there. */
static void
expired_cb (gpointer data, BgWaitResult why)
{
  BgPerform *self = data;
  BgReply *reply = NULL;
  GError *error = NULL;
  gboolean expires;

  bg_core_lock (self->core);
  expires = !self->answered && !self->blocked.closed && self->phase < ANSWERED
            && self->gave_up == BG_WAIT_SETTLED;
  if (expires)
    self->gave_up = why;
  if (expires && self->phase == PENDING && remove_blocked (self))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  if (expires)
    g_cancellable_cancel (self->cancellable);
  if (reply == NULL)
    return;

  set_error (self, &error);
  bg_reply_return (reply, NULL, error);
}

static void
reply_closed (BgBlocked *blocked)
{
  BgPerform *self = perform_from_blocked (blocked);
  BgReply *reply;
  GError *error = NULL;

  bg_core_lock (self->core);
  reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  set_error (self, &error);
  bg_reply_return (reply, NULL, error);
  perform_unref (self);
}

/* Takes over @self. */
static void
perform_async (BgPerform *self, BgLoop *loop, GAsyncReadyCallback callback, gpointer callback_data)
{
  BgCore *core = self->core;
  BgReply *reply;
  GError *error = NULL;
  gboolean admitted = FALSE;

  reply = bg_reply_new (loop, bg_loop_perform_async, get_func (self), self->priority, callback,
                        callback_data);
  self->blocked.close = reply_closed;
  if (!bg_core_is_forked (core))
    {
      if (self->caller_cancellable != NULL || self->timeout_msec >= 0
          || bg_reply_is_to_loop (reply))
        bg_reply_set_expiry (reply, self->timeout_msec, self->caller_cancellable, expired_cb,
                             perform_ref (self), perform_unref);

      bg_core_lock (core);
      self->reply = reply;
      admitted = admit (self);
      if (!admitted)
        self->reply = NULL;
      bg_core_unlock (core);
    }

  if (!admitted)
    {
      if (self->destroy != NULL)
        self->destroy (self->data);
      bg_core_set_refused_error (core, &error);
      bg_reply_refuse (reply, error);
    }
  perform_unref (self);
}

/**
 * bg_loop_perform_async: (skip)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long @callback is to wait, in milliseconds; -1 for no limit
 * @begin: begins the operation
 * @user_data: data to pass to @begin
 * @destroy: (nullable): destroy notify for @user_data, once @begin has returned
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable): function to call with the answer
 * @callback_data: data to pass to @callback
 *
 * Performs an asynchronous operation on the loop's thread and has its answer in
 * this one's context.
 *
 * @callback is called in the thread-default context of the moment, at @priority, once,
 * and never before this returns. The limit is counted in that context; without a
 * @callback nobody waits, and it has no effect. Does not block; any thread may call it,
 * the loop's own included. As for the rest see [method@Bg.Loop.perform]; an operation
 * that is cancelled or times out before @begin has started is told so when the loop
 * comes to it, since @user_data is destroyed there first.
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns.
 *
 * Since: 1.0
 */
void
bg_loop_perform_async (BgLoop *self,
                       int priority,
                       int timeout_msec,
                       BgBeginFunc begin,
                       gpointer user_data,
                       GDestroyNotify destroy,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer callback_data)
{
  BgPerform *operation;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (begin != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  operation = perform_new (self->core, priority, timeout_msec, cancellable);
  operation->begin = begin;
  operation->data = user_data;
  operation->destroy = destroy;
  perform_async (operation, self, callback, callback_data);
}

/**
 * bg_loop_perform_operation_async: (rename-to bg_loop_perform_async)
 * @self: a loop
 * @priority: the priority, of the range of source priorities
 * @timeout_msec: how long @callback is to wait, in milliseconds; -1 for no limit
 * @func: (scope notified) (closure user_data) (destroy destroy): begins the operation
 * @user_data: data to pass to @func
 * @destroy: (nullable): destroy notify for @user_data, once @func has returned
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async) (closure callback_data): function to call with the
 *   answer
 * @callback_data: data to pass to @callback
 *
 * Performs an asynchronous operation on the loop's thread and has its answer in
 * this one's context.
 *
 * @callback is called in the thread-default context of the moment, at @priority, once,
 * and never before this returns. The limit is counted in that context; without a
 * @callback nobody waits, and it has no effect. Does not block; any thread may call it,
 * the loop's own included. As for the rest see [method@Bg.Loop.perform]; an operation
 * that is cancelled or times out before @func has started is told so when the loop
 * comes to it, since @user_data is destroyed there first.
 *
 * @destroy runs before @callback, on the loop's thread, or, if the loop takes no
 * more work, in the calling one before this returns.
 *
 * Since: 1.0
 */
void
bg_loop_perform_operation_async (BgLoop *self,
                                 int priority,
                                 int timeout_msec,
                                 BgOperationFunc func,
                                 gpointer user_data,
                                 GDestroyNotify destroy,
                                 GCancellable *cancellable,
                                 GAsyncReadyCallback callback,
                                 gpointer callback_data)
{
  BgPerform *operation;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (func != NULL);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  operation = perform_new (self->core, priority, timeout_msec, cancellable);
  operation->func = func;
  operation->data = user_data;
  operation->destroy = destroy;
  perform_async (operation, self, callback, callback_data);
}

/**
 * bg_loop_perform_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The answer of [method@Bg.Loop.perform_async].
 *
 * Fails as [method@Bg.Loop.perform] does, and with %BG_ERROR_CLOSED if the caller's own
 * loop was shut down with %BG_SHUTDOWN_CANCEL meanwhile. To be called once for each
 * result.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  GObject *answered = NULL;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_perform_async), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  bg_reply_propagate (BG_REPLY (result), &answered, error);
  return (GAsyncResult *) answered;
}

/**
 * bg_loop_perform_operation_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The same as [method@Bg.Loop.perform_finish], for tools that find it by its name.
 *
 * Returns: (transfer full): the operation's answer, for its own finish function
 *
 * Since: 1.0
 */
GAsyncResult *
bg_loop_perform_operation_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  return bg_loop_perform_finish (self, result, error);
}
