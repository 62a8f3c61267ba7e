/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-symbol-private.h>

/* What is in the way */

static char *
describe_age (gint64 since)
{
  gint64 usec = MAX (0, g_get_monotonic_time () - since);

  if (usec < G_TIME_SPAN_SECOND)
    return g_strdup_printf ("%" G_GINT64_FORMAT " ms", usec / G_TIME_SPAN_MILLISECOND);

  return g_strdup_printf ("%.1f s", usec / (double) G_TIME_SPAN_SECOND);
}

/* Something that keeps the loop busy, as it is found under the lock. To name a
 * function takes the dynamic linker's lock, under which code of modules being
 * loaded may run that uses the loop: that is for afterwards. */
typedef struct
{
  enum
  {
    RUNNING,
    BUSY,
    QUEUED,
    INVOKED,
    HELD,
    OPERATION,
    OWED,
    MORE,
    DESTRUCTORS,
    HANDLERS
  } kind;
  gpointer func;
  gint64 since;
  guint n;
  int priority;
  char *reason; /* (owned) (nullable) */
} Work;

static void
work_clear (gpointer data)
{
  g_free (((Work *) data)->reason);
}

/* How many of a kind are named one by one. */
#define NAMED 6

/* How many there are beside those that are named. */
static void
collect_more (GArray *works, guint n, guint n_named, const char *what)
{
  Work work = { .kind = MORE, .n = n - n_named, .reason = g_strdup (what) };

  if (n > n_named)
    g_array_append_val (works, work);
  else
    g_free (work.reason);
}

static void
collect_running (BgCore *core, GArray *works)
{
  Work work = { .kind = RUNNING,
                .func = atomic_load (&core->inbox.activities.running),
                .since = atomic_load (&core->inbox.activities.started_at) };
  gint64 awake_since = atomic_load (&core->thread.awake_at);

  if (work.func == NULL)
    {
      work.kind = BUSY;
      work.since = MAX (work.since, awake_since);
    }
  if (work.func != NULL || (bg_core_get_state (core) != BG_LOOP_STOPPED && awake_since != 0))
    g_array_append_val (works, work);
}

static void
collect_queued (BgCore *core, GArray *works)
{
  guint n = 0, n_lanes = 0;

  for (guint i = 0; i < core->inbox.n_lanes; i++)
    {
      BgLane *lane = core->inbox.lanes[i];
      Work work = { .kind = QUEUED, .n = bg_lane_get_queued (lane), .priority = lane->priority };

      if (work.n > 0 && n_lanes++ < NAMED)
        g_array_append_val (works, work);
      else
        n += work.n;
    }
  collect_more (works, n, 0, "queued at other priorities");

  if (core->invokes.list.length > 0)
    {
      Work work = { .kind = INVOKED, .n = core->invokes.list.length };

      g_array_append_val (works, work);
    }
}

/* Those that have been there for the longest. */
static void
collect_holds (BgCore *core, GArray *works)
{
  guint n = 0;

  for (GList *link = core->holds.list.head; link != NULL && n < NAMED; link = link->next, n++)
    {
      BgHold *hold = link->data;
      Work work = { .kind = hold->reason != NULL ? HELD : OPERATION,
                    .func = hold->func,
                    .since = hold->since,
                    .reason = g_strdup (hold->reason) };

      g_array_append_val (works, work);
    }
  collect_more (works, core->holds.list.length, n, "holds and operations");
}

typedef struct
{
  GArray *works;
  guint n;
} Owed;

static void
collect_owed_cb (gpointer source, gpointer func, gint64 since, gpointer user_data)
{
  Owed *owed = user_data;
  Work work = { .kind = OWED, .func = func, .since = since };

  if (owed->n++ < NAMED)
    {
      work.reason = g_strdup (bg_loop_get_name (source));
      g_array_append_val (owed->works, work);
    }
}

static void
collect_owed (BgCore *core, GArray *works)
{
  Owed owed = { .works = works };

  if (core->mailbox == NULL || bg_core_get_state (core) != BG_LOOP_STOPPING)
    return;

  bg_mailbox_foreach_owed (core->mailbox, collect_owed_cb, &owed);
  collect_more (works, owed.n, MIN (owed.n, NAMED), "replies");
}

static void
collect_end (BgCore *core, GArray *works)
{
  Work destructors = { .kind = DESTRUCTORS }, handlers = { .kind = HANDLERS };

  if (core->thread.ended && !core->thread.gone)
    g_array_append_val (works, destructors);
  if (bg_core_get_state (core) == BG_LOOP_STOPPED && core->stopping.n_handling > 0)
    g_array_append_val (works, handlers);
}

static char *
describe (const Work *work)
{
  g_autofree char *age = describe_age (work->since);
  g_autofree char *name = work->func != NULL ? bg_symbol_describe (work->func) : NULL;

  switch (work->kind)
    {
    case RUNNING:
      return g_strdup_printf ("running %s for %s", name, age);
    case BUSY:
      return g_strdup_printf ("busy outside of its own work, with a source of its context, for %s",
                              age);
    case QUEUED:
      return g_strdup_printf ("%u queued at priority %d", work->n, work->priority);
    case INVOKED:
      return g_strdup_printf ("%u invoked", work->n);
    case HELD:
      return g_strdup_printf ("held by “%s” for %s", work->reason, age);
    case OPERATION:
      return g_strdup_printf ("waiting for the operation begun by %s for %s", name, age);
    case OWED:
      return g_strdup_printf ("waiting for the reply of “%s” to %s for %s", work->reason, name,
                              age);
    case MORE:
      return g_strdup_printf ("and %u more %s", work->n, work->reason);
    case DESTRUCTORS:
      return g_strdup ("destructors of its thread run");
    case HANDLERS:
      return g_strdup ("handlers of its cancellable have not returned");
    default:
      g_assert_not_reached ();
    }
}

/* What keeps the loop busy, a line each: of many the most telling ones, and how many
 * more. */
GPtrArray *
bg_loop_list_work (BgCore *core)
{
  g_autoptr (GArray) works = g_array_new (FALSE, FALSE, sizeof (Work));
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);

  g_array_set_clear_func (works, work_clear);
  bg_core_lock (core);
  collect_running (core, works);
  collect_queued (core, works);
  collect_holds (core, works);
  collect_owed (core, works);
  collect_end (core, works);
  bg_core_unlock (core);

  for (guint i = 0; i < works->len; i++)
    g_ptr_array_add (lines, describe (&g_array_index (works, Work, i)));
  return lines;
}

static void
set_timeout_error (BgCore *core, int timeout_msec, GError **error)
{
  g_autoptr (GPtrArray) lines = bg_loop_list_work (core);
  g_autofree char *text = NULL;

  if (lines->len == 0)
    g_ptr_array_add (lines, g_strdup ("about to end"));
  g_ptr_array_add (lines, NULL);
  text = g_strjoinv ("; ", (char **) lines->pdata);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "The loop “%s” has not stopped within %d ms: %s", core->name, timeout_msec, text);
}

/**
 * bg_loop_describe:
 * @self: a loop
 *
 * Says what the loop is doing: what runs and for how long, what waits, and what
 * holds it.
 *
 * For people, in logs and debuggers: the form may change. Functions are named by
 * their symbol where the dynamic linker knows it, else by module and offset as
 * addr2line takes them.
 *
 * Never waits for the loop's thread; any thread may call it.
 *
 * Returns: (transfer full): some lines of text
 *
 * Since: 1.0
 */
char *
bg_loop_describe (BgLoop *self)
{
  static const char *states[] = { "running", "stopping", "stopped" };
  BgCore *core;
  g_autoptr (GPtrArray) lines = NULL;
  GString *text;

  g_return_val_if_fail (BG_IS_LOOP (self), NULL);

  core = self->core;
  if (bg_core_is_forked (core))
    return g_strdup_printf ("loop “%s”: of another process\n", core->name);

  text = g_string_new (NULL);
  g_string_append_printf (text, "loop “%s”: %s\n", core->name, states[bg_core_get_state (core)]);
  lines = bg_loop_list_work (core);
  for (guint i = 0; i < lines->len; i++)
    g_string_append_printf (text, "  %s\n", (char *) g_ptr_array_index (lines, i));

  return g_string_free (text, FALSE);
}

/* Quit */

static gboolean
is_mode (BgShutdownMode mode)
{
  return mode == BG_SHUTDOWN_DRAIN || mode == BG_SHUTDOWN_CANCEL;
}

/**
 * bg_loop_quit:
 * @self: a loop
 * @mode: how to end
 *
 * Asks the loop to end, and that is all: see [method@Bg.Loop.shutdown_full].
 *
 * Never waits; any thread may call it, the loop's own included. The request is
 * never lost, nor taken back; %BG_SHUTDOWN_CANCEL overrides %BG_SHUTDOWN_DRAIN.
 *
 * Since: 1.0
 */
void
bg_loop_quit (BgLoop *self, BgShutdownMode mode)
{
  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (is_mode (mode));

  if (!bg_core_is_forked (self->core))
    bg_core_quit (self->core, mode);
}

/* Shutdown */

static void
settle_ended (BgBlocked *watcher)
{
  bg_waiter_settle (watcher->waiter);
}

/* Waits for the end; otherwise says what came first. */
static BgWaitResult
wait_for_end (BgCore *core, BgWaiter *waiter, gint64 deadline)
{
  BgBlocked watcher = { .waiter = waiter, .close = settle_ended };
  BgWaitResult result;
  gboolean ended, removed;

  bg_core_lock (core);
  ended = !bg_core_add_end_watcher (core, &watcher);
  bg_core_unlock (core);
  if (ended)
    return BG_WAIT_SETTLED;

  result = bg_waiter_wait (waiter, deadline);
  if (result == BG_WAIT_SETTLED)
    return BG_WAIT_SETTLED;

  bg_core_lock (core);
  removed = bg_core_remove_end_watcher (core, &watcher);
  bg_core_unlock (core);
  if (!removed)
    bg_waiter_wait_settled (waiter);
  return removed ? result : BG_WAIT_SETTLED;
}

static void
set_own_thread_error (BgCore *core, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
               "The loop “%s” cannot wait for its own end", core->name);
}

static void
set_end_error (BgCore *core, BgWaitResult why, int timeout_msec, GError **error)
{
  if (why == BG_WAIT_TIMED_OUT)
    set_timeout_error (core, timeout_msec, error);
  else
    bg_set_wait_error (error, why, "Waiting for the end of the loop “%s”", core->name);
}

/* What can be said at once, without asking for anything or waiting. */
static gboolean
check_end (BgCore *core, GCancellable *cancellable, GError **error)
{
  if (bg_core_is_forked (core) || core->failure != NULL)
    bg_core_set_refused_error (core, error);
  else if (bg_core_is_current (core))
    set_own_thread_error (core, error);
  else
    return !g_cancellable_set_error_if_cancelled (cancellable, error);

  return FALSE;
}

/* @mode: (nullable): how to end; %NULL to wait for an end that others ask for */
static gboolean
end_blocking (BgCore *core,
              const BgShutdownMode *mode,
              int timeout_msec,
              GCancellable *cancellable,
              GError **error)
{
  gint64 deadline = bg_deadline (timeout_msec);
  BgWaiter *waiter = bg_waiter_take (cancellable);
  BgWaitResult result = BG_WAIT_SETTLED;
  BgWait wait;

  /* To ask for the end ends a pause, too. */
  if ((mode == NULL && bg_core_is_paused_by_me (core, error))
      || !bg_wait_begin (&wait, &core->waits.actor, TRUE, waiter, error))
    {
      bg_waiter_give_back (waiter, cancellable);
      return FALSE;
    }

  if (mode != NULL)
    bg_core_quit (core, *mode);
  /* A handler of the cancellable has forked, and has come back in the child. */
  if (bg_core_is_forked (core))
    {
      bg_waiter_give_back (waiter, cancellable);
      bg_core_set_refused_error (core, error);
      return FALSE;
    }

  if (mode != NULL)
    bg_core_spin_for_end (core, waiter, timeout_msec);
  /* Without a limit there is one thing less to be woken by. */
  if (timeout_msec != -1 || cancellable != NULL)
    result = wait_for_end (core, waiter, deadline);
  if (result == BG_WAIT_SETTLED)
    bg_core_join (core);
  bg_wait_end (&wait);
  bg_waiter_give_back (waiter, cancellable);

  if (result != BG_WAIT_SETTLED)
    set_end_error (core, result, timeout_msec, error);
  return result == BG_WAIT_SETTLED;
}

/* Asks without waiting. */
static gboolean
end_at_once (BgCore *core, const BgShutdownMode *mode, GError **error)
{
  if (mode != NULL)
    bg_core_quit (core, *mode);
  if (bg_core_is_forked (core))
    {
      bg_core_set_refused_error (core, error);
      return FALSE;
    }

  if (!bg_core_is_gone (core))
    {
      set_timeout_error (core, 0, error);
      return FALSE;
    }

  bg_core_join (core);
  return TRUE;
}

static gboolean
end_until (BgCore *core,
           const BgShutdownMode *mode,
           int timeout_msec,
           GCancellable *cancellable,
           GError **error)
{
  if (!check_end (core, cancellable, error))
    return FALSE;
  if (timeout_msec == 0)
    return end_at_once (core, mode, error);

  return end_blocking (core, mode, timeout_msec, cancellable, error);
}

/**
 * bg_loop_shutdown:
 * @self: a loop
 * @error: return location for an error, or %NULL
 *
 * Ends the loop, letting everything that it has accepted finish, and waits for
 * that without a limit of time.
 *
 * This is [method@Bg.Loop.shutdown_full] with %BG_SHUTDOWN_DRAIN and no deadline.
 *
 * Returns: %TRUE if the loop has ended
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown (BgLoop *self, GError **error)
{
  return bg_loop_shutdown_full (self, BG_SHUTDOWN_DRAIN, -1, NULL, error);
}

/**
 * bg_loop_shutdown_full:
 * @self: a loop
 * @mode: how to end
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit, 0 to ask
 *   without waiting
 * @cancellable: (nullable): a cancellable; cancelling it ends the wait, not the
 *   shutdown
 * @error: return location for an error, or %NULL
 *
 * Ends the loop and waits until its thread is gone.
 *
 * From now on work from other threads is refused. With %BG_SHUTDOWN_DRAIN
 * everything that was accepted runs to its end, and code that runs on the loop
 * may still hand it work. With %BG_SHUTDOWN_CANCEL what has not started never
 * runs, whoever waits for it fails with %BG_ERROR_CLOSED at once, the loop's
 * cancellable is cancelled, and nothing new is taken from anybody. Both wait for
 * what is running, for holds, and for operations that have not answered; neither
 * for delayed work that is not due, nor for attached sources. Replies of other loops
 * to code on this one are waited for with %BG_SHUTDOWN_DRAIN; with %BG_SHUTDOWN_CANCEL
 * their callbacks are told %BG_ERROR_CLOSED. While the loop stops, a source that is
 * always ready goes behind all others. Then the teardown functions run, sources that
 * are left are destroyed on the loop's thread, and the thread ends, its thread-local
 * destructors included.
 *
 * Blocks. It may be called any number of times and from many threads at once:
 * there is one shutdown, and everyone gets its outcome. When the deadline is
 * missed the loop goes on stopping; call again to wait longer, or with
 * %BG_SHUTDOWN_CANCEL, which overrides %BG_SHUTDOWN_DRAIN.
 *
 * With a @timeout_msec of 0 it asks for the end and says whether the loop has ended
 * already.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED, where nothing was asked for if @cancellable was cancelled
 * before; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, that of a loop which it
 * waits for, or in a handler of the loop's cancellable, in which case nothing has
 * changed; %BG_ERROR_FORKED in a forked child.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone, all notifies have run, and
 *   the handlers of the loop's cancellable have returned
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown_full (BgLoop *self,
                       BgShutdownMode mode,
                       int timeout_msec,
                       GCancellable *cancellable,
                       GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (is_mode (mode), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return end_until (self->core, &mode, timeout_msec, cancellable, error);
}

/**
 * bg_loop_wait:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit, 0 to look
 *   without waiting
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error, or %NULL
 *
 * Waits for the end of the loop without asking for it: for a `main()` whose loop ends
 * itself, with [method@Bg.Loop.quit].
 *
 * Blocks. Any number of threads may wait.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, that of a
 * loop which it waits for, or in a handler of the loop's cancellable;
 * %BG_ERROR_FORKED in a forked child.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone, all notifies have run, and
 *   the handlers of the loop's cancellable have returned
 *
 * Since: 1.0
 */
gboolean
bg_loop_wait (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return end_until (self->core, NULL, timeout_msec, cancellable, error);
}

/* Asynchronous */

typedef struct
{
  BgBlocked watcher;
  int ref_count; /* atomic: one for the expiry, one until the loop has ended */
  BgCore *core;  /* (owned) */
  int timeout_msec;

  /* under the core's lock */
  BgReply *reply;       /* (owned) (nullable) until the outcome is known */
  BgWaitResult gave_up; /* before the watcher was there */
} BgAsyncEnd;

static void
async_end_unref (gpointer data)
{
  BgAsyncEnd *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  bg_core_unref (self->core);
  g_free (self);
}

/* In the caller's context, just before the callback: the thread is about to
 * return, if it has not yet. */
static void
join_cb (gpointer user_data)
{
  bg_core_join (user_data);
}

static void
core_unref_cb (gpointer user_data)
{
  bg_core_unref (user_data);
}

/* On the loop's thread, the last thing that it does; or on the last that runs handlers
 * of the loop's cancellable. */
static void
ended_cb (BgBlocked *watcher)
{
  BgAsyncEnd *self = (BgAsyncEnd *) watcher;

  bg_reply_return (g_steal_pointer (&self->reply), NULL, NULL);
  async_end_unref (self);
}

/* The wait has timed out or was cancelled, perhaps before it began. */
static void
expired_cb (gpointer data, BgWaitResult why)
{
  BgAsyncEnd *self = data;
  BgReply *reply = NULL;
  GError *error = NULL;

  bg_core_lock (self->core);
  self->gave_up = why;
  if (bg_core_remove_end_watcher (self->core, &self->watcher))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);
  if (reply == NULL)
    return;

  set_end_error (self->core, why, self->timeout_msec, &error);
  bg_reply_return (reply, NULL, error);
  async_end_unref (self);
}

static void
end_async (BgCore *core,
           const BgShutdownMode *mode,
           int timeout_msec,
           GCancellable *cancellable,
           BgReply *reply)
{
  BgAsyncEnd *self = g_new0 (BgAsyncEnd, 1);
  GError *error = NULL;
  BgWaitResult gave_up;
  gboolean watches = FALSE;

  self->ref_count = 2;
  self->core = bg_core_ref (core);
  self->timeout_msec = timeout_msec;
  self->watcher.close = ended_cb;
  self->reply = reply;
  bg_reply_set_prologue (reply, join_cb, bg_core_ref (core), core_unref_cb);
  bg_reply_set_expiry (reply, timeout_msec, cancellable, expired_cb, self, async_end_unref);

  bg_core_lock (core);
  gave_up = self->gave_up;
  if (gave_up == BG_WAIT_SETTLED)
    watches = bg_core_add_end_watcher (core, &self->watcher);
  bg_core_unlock (core);

  if (gave_up != BG_WAIT_SETTLED)
    {
      set_end_error (core, gave_up, timeout_msec, &error);
      bg_reply_return (reply, NULL, error);
      async_end_unref (self);
    }
  else if (!watches)
    {
      ended_cb (&self->watcher);
    }
  else if (mode != NULL)
    {
      bg_core_quit (core, *mode);
    }
}

/**
 * bg_loop_shutdown_async:
 * @self: a loop
 * @mode: how to end
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable; cancelling it ends the wait, not the
 *   shutdown
 * @callback: (nullable) (scope async): what to call with the outcome
 * @user_data: what to give it
 *
 * Ends the loop without blocking: see [method@Bg.Loop.shutdown_full].
 *
 * @callback is called in the thread-default context of the moment, once, and
 * never before this returns. For a thread that must not block, such as that of a
 * user interface. Without a @callback it is [method@Bg.Loop.quit]. A reference to the
 * loop is held until then. Called on another loop, that one waits for
 * the outcome before it ends, unless the two wait for each other: then @callback is told
 * %BG_ERROR_CLOSED. Any thread may call it; on the loop's own thread it fails
 * with %BG_ERROR_WOULD_DEADLOCK and changes nothing.
 *
 * Since: 1.0
 */
void
bg_loop_shutdown_async (BgLoop *self,
                        BgShutdownMode mode,
                        int timeout_msec,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer user_data)
{
  BgReply *reply;
  GError *error = NULL;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (is_mode (mode));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  reply = bg_reply_new (self, bg_loop_shutdown_async, bg_loop_shutdown_async, G_PRIORITY_DEFAULT,
                        callback, user_data);
  if (!check_end (self->core, cancellable, &error))
    {
      bg_reply_refuse (reply, error);
    }
  else if (callback == NULL)
    {
      bg_core_quit (self->core, mode);
      g_object_unref (reply);
    }
  else
    {
      end_async (self->core, &mode, timeout_msec, cancellable, reply);
    }
}

/**
 * bg_loop_shutdown_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The outcome of [method@Bg.Loop.shutdown_async].
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK and %BG_ERROR_FORKED.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone and all notifies have
 *   run
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_shutdown_async), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_reply_propagate (BG_REPLY (result), NULL, error);
}

/**
 * bg_loop_wait_async:
 * @self: a loop
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit
 * @cancellable: (nullable): a cancellable
 * @callback: (nullable) (scope async): function to call with the outcome
 * @user_data: data to pass to @callback
 *
 * Waits for the end of the loop without asking for it, and without blocking: see
 * [method@Bg.Loop.wait].
 *
 * @callback is called in the thread-default context of the moment, once, and
 * never before this returns. A reference to the loop is held until then, so the loop
 * does not end by being dropped. Called on another loop, that one waits
 * for the outcome before it ends, unless the two wait for each other: then @callback is
 * told %BG_ERROR_CLOSED. Any thread may call it; on the loop's own thread it
 * fails with %BG_ERROR_WOULD_DEADLOCK.
 *
 * Since: 1.0
 */
void
bg_loop_wait_async (BgLoop *self,
                    int timeout_msec,
                    GCancellable *cancellable,
                    GAsyncReadyCallback callback,
                    gpointer user_data)
{
  BgReply *reply;
  GError *error = NULL;

  g_return_if_fail (BG_IS_LOOP (self));
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  if (callback == NULL)
    return;

  reply = bg_reply_new (self, bg_loop_wait_async, bg_loop_wait_async, G_PRIORITY_DEFAULT, callback,
                        user_data);
  if (check_end (self->core, cancellable, &error))
    end_async (self->core, NULL, timeout_msec, cancellable, reply);
  else
    bg_reply_refuse (reply, error);
}

/**
 * bg_loop_wait_finish:
 * @self: a loop
 * @result: what the callback got
 * @error: return location for an error, or %NULL
 *
 * The outcome of [method@Bg.Loop.wait_async].
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %G_IO_ERROR_CANCELLED; %BG_ERROR_WOULD_DEADLOCK and %BG_ERROR_FORKED; %BG_ERROR_CLOSED
 * if the caller's own loop was shut down with %BG_SHUTDOWN_CANCEL meanwhile. To be called
 * once for each result.
 *
 * Returns: %TRUE if the loop has ended
 *
 * Since: 1.0
 */
gboolean
bg_loop_wait_finish (BgLoop *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (bg_reply_is_valid (result, self, bg_loop_wait_async), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return bg_reply_propagate (BG_REPLY (result), NULL, error);
}
