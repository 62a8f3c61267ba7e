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
    OPERATION
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

static void
collect_running (BgCore *core, GArray *works)
{
  Work work = { .kind = RUNNING,
                .func = atomic_load (&core->inbox.running),
                .since = atomic_load (&core->inbox.stamp) };
  gint64 awake_since = atomic_load (&core->awake_since);

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
  for (guint i = 0; i < core->inbox.n_lanes; i++)
    {
      BgLane *lane = core->inbox.lanes[i];
      Work work = { .kind = QUEUED, .n = bg_lane_get_queued (lane), .priority = lane->priority };

      if (work.n > 0)
        g_array_append_val (works, work);
    }

  if (core->invokes.length > 0)
    {
      Work work = { .kind = INVOKED, .n = core->invokes.length };

      g_array_append_val (works, work);
    }
}

static void
collect_holds (BgCore *core, GArray *works)
{
  for (GList *link = core->holds.head; link != NULL; link = link->next)
    {
      BgHold *hold = link->data;
      Work work = { .kind = hold->reason != NULL ? HELD : OPERATION,
                    .func = hold->func,
                    .since = hold->since,
                    .reason = g_strdup (hold->reason) };

      g_array_append_val (works, work);
    }
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
    default:
      g_assert_not_reached ();
    }
}

/* What keeps the loop busy, a line each. */
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

  if (!bg_core_is_forked (self->core))
    bg_core_quit (self->core, mode);
}

/* Shutdown */

/* With the lock held: has @watcher closed when the loop has ended. FALSE if it
 * has. */
static gboolean
watch_end (BgCore *core, BgBlocked *watcher)
{
  if (atomic_load (&core->state) == BG_LOOP_STOPPED)
    return FALSE;

  watcher->listed = TRUE;
  watcher->link.data = watcher;
  g_queue_push_tail_link (&core->end_watchers, &watcher->link);
  return TRUE;
}

/* With the lock held. FALSE if it is about to be closed. */
static gboolean
unwatch_end (BgCore *core, BgBlocked *watcher)
{
  if (!watcher->listed)
    return FALSE;

  watcher->listed = FALSE;
  g_queue_unlink (&core->end_watchers, &watcher->link);
  return TRUE;
}

static void
settle_ended (BgBlocked *watcher)
{
  bg_waiter_settle (watcher->waiter);
}

/* Waits for the end; FALSE if the deadline came first. */
static gboolean
wait_for_end (BgCore *core, BgWaiter *waiter, gint64 deadline)
{
  BgBlocked watcher = { .waiter = waiter, .close = settle_ended };
  gboolean ended, left;

  bg_core_lock (core);
  ended = !watch_end (core, &watcher);
  bg_core_unlock (core);
  if (ended)
    return TRUE;

  if (bg_waiter_wait (waiter, deadline) == BG_WAIT_SETTLED)
    return TRUE;

  bg_core_lock (core);
  left = unwatch_end (core, &watcher);
  bg_core_unlock (core);
  if (!left)
    bg_waiter_wait_settled (waiter);
  return !left;
}

static gboolean
shutdown_there (BgCore *core, BgShutdownMode mode, int timeout_msec, GError **error)
{
  gint64 deadline = bg_deadline (timeout_msec);
  BgWaiter *waiter = bg_waiter_take (NULL);
  gboolean allowed, ended = FALSE;

  allowed = bg_core_wait_begin_for_end (core, waiter, error);
  if (allowed)
    {
      bg_core_quit (core, mode);
      /* A handler of the cancellable has forked, and has come back in the child. */
      if (bg_core_is_forked (core))
        {
          bg_waiter_give_back (waiter, NULL);
          bg_core_set_refused_error (core, error);
          return FALSE;
        }

      if (timeout_msec != 0)
        bg_core_spin_for_end (core, waiter);
      /* Without a deadline there is one thing less to be woken by. */
      ended = timeout_msec == -1 || wait_for_end (core, waiter, deadline);
      if (ended)
        bg_core_join (core);
      bg_core_wait_end (core);
    }
  bg_waiter_give_back (waiter, NULL);

  if (allowed && !ended)
    set_timeout_error (core, timeout_msec, error);
  return ended;
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
  return bg_loop_shutdown_full (self, BG_SHUTDOWN_DRAIN, -1, error);
}

/**
 * bg_loop_shutdown_full:
 * @self: a loop
 * @mode: how to end
 * @timeout_msec: how long to wait, in milliseconds; -1 for no limit, 0 to ask
 *   without waiting
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
 * for delayed work that is not due, nor for attached sources. Then the teardown
 * functions run, sources that are left are destroyed on the loop's thread, and
 * the thread ends.
 *
 * Blocks. It may be called any number of times and from many threads at once:
 * there is one shutdown, and everyone gets its outcome. When the deadline is
 * missed the loop goes on stopping; call again to wait longer, or with
 * %BG_SHUTDOWN_CANCEL, which overrides %BG_SHUTDOWN_DRAIN.
 *
 * Fails with %G_IO_ERROR_TIMED_OUT, and the message says what is in the way;
 * %BG_ERROR_WOULD_DEADLOCK on the loop's own thread, or that of a loop which it
 * waits for, in which case nothing has changed; %BG_ERROR_FORKED in a forked
 * child.
 *
 * Returns: %TRUE if the loop has ended: the thread is gone and all notifies have
 *   run
 *
 * Since: 1.0
 */
gboolean
bg_loop_shutdown_full (BgLoop *self, BgShutdownMode mode, int timeout_msec, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (self), FALSE);
  g_return_val_if_fail (timeout_msec >= -1, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, error);
      return FALSE;
    }

  return shutdown_there (self->core, mode, timeout_msec, error);
}

/* Asynchronous */

typedef struct
{
  BgBlocked watcher;
  int ref_count; /* atomic: one for each source, one until the loop has ended */
  BgCore *core;  /* (owned) */
  int timeout_msec;

  /* under the core's lock */
  BgReply *reply; /* (owned) (nullable) until the outcome is known */

  /* the caller's context only */
  GSource *sources[2]; /* (owned) (nullable) what ends the wait early */
} BgAsyncShutdown;

static void
async_shutdown_unref (gpointer data)
{
  BgAsyncShutdown *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  for (guint i = 0; i < G_N_ELEMENTS (self->sources); i++)
    g_clear_pointer (&self->sources[i], g_source_unref);
  bg_core_unref (self->core);
  g_free (self);
}

static void
clear_sources (BgAsyncShutdown *self)
{
  for (guint i = 0; i < G_N_ELEMENTS (self->sources); i++)
    {
      if (self->sources[i] != NULL)
        g_source_destroy (self->sources[i]);
      g_clear_pointer (&self->sources[i], g_source_unref);
    }
}

/* In the caller's context, just before the callback: the thread is about to
 * return, if it has not yet. */
static void
join_cb (gpointer user_data)
{
  BgAsyncShutdown *self = user_data;

  clear_sources (self);
  bg_core_join (self->core);
}

/* On the loop's thread, the last thing that it does. */
static void
ended_cb (BgBlocked *watcher)
{
  BgAsyncShutdown *self = (BgAsyncShutdown *) watcher;

  bg_reply_set_prologue (self->reply, join_cb, self, async_shutdown_unref);
  bg_reply_return (g_steal_pointer (&self->reply), NULL, NULL);
}

/* In the caller's context: @error is taken over unless the loop has ended. */
static void
give_up (BgAsyncShutdown *self, GError *error)
{
  BgReply *reply = NULL;

  /* In a forked child the context of the parent's caller gives no replies. */
  if (bg_core_is_forked (self->core))
    {
      g_error_free (error);
      return;
    }

  bg_core_lock (self->core);
  if (unwatch_end (self->core, &self->watcher))
    reply = g_steal_pointer (&self->reply);
  bg_core_unlock (self->core);

  if (reply == NULL)
    {
      g_error_free (error);
      return;
    }

  bg_reply_return (reply, NULL, error);
  clear_sources (self);
  async_shutdown_unref (self);
}

static gboolean
timeout_cb (gpointer user_data)
{
  BgAsyncShutdown *self = user_data;
  GError *error = NULL;

  if (bg_core_is_forked (self->core))
    return G_SOURCE_REMOVE;

  set_timeout_error (self->core, self->timeout_msec, &error);
  give_up (self, error);
  return G_SOURCE_REMOVE;
}

static gboolean
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgAsyncShutdown *self = user_data;

  give_up (self,
           g_error_new (G_IO_ERROR, G_IO_ERROR_CANCELLED,
                        "Waiting for the end of the loop “%s” was cancelled", self->core->name));
  return G_SOURCE_REMOVE;
}

static void
add_source (BgAsyncShutdown *self, guint i, GSource *source, GSourceFunc callback)
{
  g_atomic_int_inc (&self->ref_count);
  self->sources[i] = source;
  g_source_set_callback (source, callback, self, async_shutdown_unref);
  g_source_attach (source, bg_reply_get_context (self->reply));
}

static void
shutdown_async_there (BgCore *core,
                      BgShutdownMode mode,
                      int timeout_msec,
                      GCancellable *cancellable,
                      BgReply *reply)
{
  BgAsyncShutdown *self = g_new0 (BgAsyncShutdown, 1);
  g_autoptr (GSource) timeout = NULL;
  g_autoptr (GSource) cancelled = NULL;
  gboolean watches;

  if (timeout_msec >= 0)
    timeout = g_timeout_source_new ((guint) timeout_msec);
  if (cancellable != NULL)
    cancelled = g_cancellable_source_new (cancellable);

  self->ref_count = 1;
  self->core = bg_core_ref (core);
  self->timeout_msec = timeout_msec;
  self->watcher.close = ended_cb;
  self->reply = reply;

  /* Under the lock, so that neither the end nor a source is dispatched in the
   * caller's context before all of it stands. */
  bg_core_lock (core);
  watches = watch_end (core, &self->watcher);
  if (watches && timeout != NULL)
    add_source (self, 0, g_steal_pointer (&timeout), timeout_cb);
  if (watches && cancelled != NULL)
    add_source (self, 1, g_steal_pointer (&cancelled), G_SOURCE_FUNC (cancelled_cb));
  bg_core_unlock (core);

  if (watches)
    bg_core_quit (core, mode);
  else
    ended_cb (&self->watcher);
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
 * user interface. Any thread may call it; on the loop's own thread it fails with
 * %BG_ERROR_WOULD_DEADLOCK and changes nothing.
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
  g_return_if_fail (timeout_msec >= -1);
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  reply = bg_reply_new (self, bg_loop_shutdown_async, callback, user_data);

  if (bg_core_is_forked (self->core))
    {
      bg_core_set_refused_error (self->core, &error);
      bg_reply_return (reply, NULL, error);
    }
  else if (bg_core_is_current (self->core))
    {
      g_set_error (&error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
                   "The loop “%s” cannot wait for its own end", self->core->name);
      bg_reply_return (reply, NULL, error);
    }
  else if (callback == NULL)
    {
      bg_core_quit (self->core, mode);
      g_object_unref (reply);
    }
  else
    {
      shutdown_async_there (self->core, mode, timeout_msec, cancellable, reply);
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
