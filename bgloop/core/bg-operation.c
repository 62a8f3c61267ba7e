/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-operation-private.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/core/bg-work-private.h>

/* The states of an operation:
 *
 *  QUEUED ──► BEGINNING ──► PENDING ──► ANSWERED ──► ENDED
 *    │            └────────────────────────────────────▲
 *    └─────────────────────────────────────────────────┘
 *
 * The callback that answers leaves the result behind and has a record appended:
 * only when that runs, the callback has returned, and the result is handed over.
 *
 * An operation is made on its caller's thread and begins on the loop's; where it stands is under
 * the core's lock. How it is answered, and by whom, is in bg-answer.c. */

/* The operation */

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

BgPerform *
bg_perform_ref (BgPerform *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
bg_perform_unref (gpointer data)
{
  BgPerform *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count) || bg_core_is_forked (self->core))
    return;

  give_back_cancellable (self->core, self->cancellable);
  g_clear_object (&self->caller_cancellable);
  g_clear_object (&self->result);
  g_clear_error (&self->error);
  g_clear_pointer (&self->report, bg_report_free);
  bg_core_unref (self->core);
  g_free (self);
}

BgPerform *
bg_perform_from_blocked (BgBlocked *blocked)
{
  return (gpointer) ((char *) blocked - G_STRUCT_OFFSET (BgPerform, blocked));
}

BgPerform *
bg_perform_new (BgCore *core, int priority, int timeout_msec, GCancellable *cancellable)
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

gpointer
bg_perform_get_func (BgPerform *self)
{
  return self->begin != NULL ? (gpointer) self->begin : (gpointer) self->func;
}

/* With the lock held. The list has a reference. */
void
bg_perform_add_blocked (BgPerform *self)
{
  bg_perform_ref (self);
  bg_core_add_blocked (self->core, &self->blocked);
}

/* With the lock held, while the caller has a reference of its own. */
gboolean
bg_perform_remove_blocked (BgPerform *self)
{
  if (!bg_core_remove_blocked (self->core, &self->blocked))
    return FALSE;

  bg_perform_unref (self);
  return TRUE;
}

/* With the lock held, as the time is up: keeps what is in the way now, for the error, which may
 * be told only when the loop has come to it. Its own place in the queue is given up by then. */
void
bg_perform_report (BgPerform *self)
{
  if (self->report != NULL)
    return;

  self->report = bg_report_new (self->core, self->priority);
  if (self->phase == BG_OPERATION_PENDING)
    bg_report_add_operation (self->report, bg_perform_get_func (self), self->hold.since);
}

static void
set_timeout_error (BgPerform *self, BgReport *report, GError **error)
{
  g_autofree char *text = bg_report_to_text (report);

  if (self->begun)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                 _ ("An operation on the loop \"%s\" did not end within %d ms: %s"),
                 self->core->name, self->timeout_msec, text);
  else
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                 _ ("An operation on the loop \"%s\" did not start within %d ms: %s"),
                 self->core->name, self->timeout_msec, text);
}

/* Why there is no answer. A wait whose time is up has no report if nobody wants the error. */
void
bg_perform_set_error (BgPerform *self, GError **error)
{
  BgCore *core = self->core;
  g_autoptr (BgReport) report = NULL;
  BgWaitResult gave_up;
  gboolean closed;

  bg_core_lock (core);
  closed = self->blocked.closed;
  gave_up = self->gave_up;
  report = g_steal_pointer (&self->report);
  bg_core_unlock (core);

  if (closed)
    g_set_error (error, BG_ERROR, BG_ERROR_CLOSED,
                 _ ("The loop \"%s\" was shut down before the operation answered"), core->name);
  else if (gave_up == BG_WAIT_CANCELLED)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
                 _ ("An operation on the loop \"%s\" was cancelled"), core->name);
  else if (error != NULL)
    set_timeout_error (self, report, error);
}

/* With the lock held: whether somebody waits for an answer. What comes after a wait was
 * given up, or closed, is late: an operation that was cancelled for that says so. */
gboolean
bg_perform_is_wanted (BgPerform *self)
{
  return self->gave_up == BG_WAIT_COMPLETED && !self->blocked.closed
         && !bg_core_is_cancelling (self->core);
}

/* Beginning */

static void
destroy_data (BgPerform *self)
{
  GDestroyNotify destroy = g_steal_pointer (&self->destroy);

  bg_inbox_destroy (&self->core->inbox, destroy, self->data);
}

/* The destroy notify of one that was dropped has ended the thread. */
static void
half_dropped_outcome (BgRecord *slot, gpointer owner)
{
  bg_perform_hand_over (slot->data);
  bg_perform_unref (slot->data);
}

/* It was accepted, and will not begin. */
static void
drop (BgPerform *self)
{
  BgInbox *inbox = &self->core->inbox;

  bg_inbox_keep (inbox,
                 &(BgRecord){ half_dropped_outcome, bg_perform_get_func (self), self, NULL });
  destroy_data (self);
  bg_inbox_drop_kept (inbox);
  if (!bg_core_is_forked (self->core))
    bg_perform_hand_over (self);
}

static gboolean
run_begin (BgPerform *self, GError **error)
{
  GError *local = NULL;
  gboolean ok;

  if (self->begin != NULL)
    ok = !!self->begin (self->data, self->cancellable, bg_perform_answer_cb,
                        GSIZE_TO_POINTER (self->id), &local);
  else
    ok = !!bg_perform_begin_handle (self, &local);

  /* Functions of other languages may have no way to say why they fail. */
  return bg_work_check_answer (bg_perform_get_func (self), ok, local, self->begin != NULL, error);
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
  BgPerform *unanswered = ok ? NULL : bg_perform_unpublish (GSIZE_TO_POINTER (self->id));
  BgWaiter *waiter = NULL;
  BgReply *reply = NULL;
  gboolean hands_over, gave_up = FALSE;

  if (unanswered != NULL)
    bg_perform_answer (unanswered, NULL, g_steal_pointer (&error));
  else if (!ok)
    g_critical ("An operation on the loop \"%s\" has answered and its beginning has failed",
                core->name);
  g_clear_error (&error);

  bg_core_lock (core);
  hands_over = self->answered;
  if (!hands_over)
    {
      self->phase = BG_OPERATION_PENDING;
      if (bg_core_is_cancelling (core) && self->gave_up == BG_WAIT_COMPLETED)
        self->blocked.closed = TRUE;
      gave_up = !bg_perform_is_wanted (self);
      if (gave_up)
        {
          reply = g_steal_pointer (&self->reply);
          waiter = g_steal_pointer (&self->blocked.waiter);
        }
      else if (self->blocked.waiter != NULL)
        bg_waiter_set_bound (self->blocked.waiter, FALSE);
      if (!gave_up)
        bg_perform_add_blocked (self);
    }
  bg_core_unlock (core);

  if (hands_over)
    {
      bg_perform_hand_over (self);
    }
  else if (gave_up)
    {
      bg_perform_complete (self, waiter);
      if (reply != NULL)
        {
          bg_perform_set_error (self, &error);
          bg_reply_return (reply, NULL, error);
        }
    }
}

/* Its function, or the destroy notify after it, has ended the thread. */
static void
half_begun_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgPerform *self = slot->data, *unanswered;
  GError *error;

  bg_inbox_keep (&core->inbox, slot);
  destroy_data (self);
  bg_inbox_drop_kept (&core->inbox);

  unanswered = bg_perform_unpublish (GSIZE_TO_POINTER (self->id));
  error = g_steal_pointer (&self->begin_error);
  if (unanswered != NULL && error == NULL)
    error = g_error_new (BG_ERROR, BG_ERROR_CLOSED,
                         _ ("The thread of the loop \"%s\" ended before the operation had begun"),
                         core->name);
  if (unanswered != NULL)
    bg_perform_answer (unanswered, NULL, g_steal_pointer (&error));
  g_clear_error (&error);
  g_clear_pointer (&self->operation, bg_operation_unref);
  end_begin (self, TRUE, NULL);
  bg_perform_unref (self);
}

/* Whether somebody waits, and would not any more if awake. */
static gboolean
is_late (BgPerform *self)
{
  gboolean waits
      = self->blocked.waiter != NULL || (self->reply != NULL && bg_reply_is_wanted (self->reply));

  return waits && self->deadline != -1 && g_get_monotonic_time () >= self->deadline;
}

/* With the lock held. */
static void
give_up_late (BgPerform *self)
{
  self->gave_up = BG_WAIT_TIMED_OUT;
  self->report = bg_report_new_late (self->deadline);
}

static void
begin_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *core = owner;
  BgPerform *self;
  gboolean ok, drops = FALSE, counts = FALSE;

  bg_core_lock (core);
  self = bg_inbox_take (&core->inbox, slot);
  if (self != NULL)
    {
      /* What was given up before its turn has been counted then. */
      counts = self->gave_up == BG_WAIT_COMPLETED;
      if (!counts)
        bg_inbox_take_void (&core->inbox);
      self->blocked.slot = NULL;
      bg_perform_remove_blocked (self);
      if (self->gave_up == BG_WAIT_COMPLETED && bg_core_is_cancelling (core))
        self->blocked.closed = TRUE;
      else if (self->gave_up == BG_WAIT_COMPLETED
               && g_cancellable_is_cancelled (self->caller_cancellable))
        self->gave_up = BG_WAIT_CANCELLED;
      else if (self->gave_up == BG_WAIT_COMPLETED && is_late (self))
        give_up_late (self);
      drops = !bg_perform_is_wanted (self);
      self->begun = !drops;
      self->phase = drops ? BG_OPERATION_ENDED : BG_OPERATION_BEGINNING;
    }
  bg_core_unlock (core);

  if (self == NULL)
    return;

  if (drops)
    {
      if (counts)
        bg_inbox_count_cancelled (&core->inbox);
      drop (self);
      bg_perform_unref (self);
      return;
    }

  core->operations.began = TRUE;
  bg_perform_publish (self);
  if (self->blocked.waiter != NULL)
    bg_waiter_set_bound (self->blocked.waiter, TRUE);
  bg_linger_add_pending (&core->inbox, 1);
  if (g_cancellable_is_cancelled (core->cancellable))
    g_cancellable_cancel (self->cancellable);
  bg_inbox_keep (&core->inbox,
                 &(BgRecord){ half_begun_outcome, bg_perform_get_func (self), self, NULL });
  ok = begin_on_context (self, &self->begin_error);
  bg_inbox_count_run (&core->inbox);
  destroy_data (self);
  bg_inbox_drop_kept (&core->inbox);
  if (!bg_core_is_forked (core))
    end_begin (self, ok, g_steal_pointer (&self->begin_error));
  bg_perform_unref (self);
}

/* With the lock held. The record has a reference. */
gboolean
bg_perform_admit (BgPerform *self)
{
  BgCore *core = self->core;

  if (!bg_core_admits (core))
    return FALSE;

  self->hold.func = bg_perform_get_func (self);
  bg_core_add_hold (core, &self->hold);
  self->blocked.slot = bg_inbox_append (&core->inbox, self->priority, begin_outcome,
                                        bg_perform_get_func (self), bg_perform_ref (self), NULL);
  bg_linger_set_awaited (&core->inbox);
  return TRUE;
}
