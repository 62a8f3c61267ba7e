/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* Every way to wait, each in a thread of its own */

typedef enum
{
  CALL,
  CALL_LOW,
  PERFORM,
  FLUSH,
  N_KINDS,
} Kind;

#define NEVER_MSEC 100000000

typedef struct
{
  Kind kind;
  BgLoop *loop;
  GCancellable *cancellable; /* (nullable) */
  int timeout_msec;
  GThread *thread;
  UtilLatch started; /* the function runs, or begin() */
  int n_started;
  UtilLatch *proceed; /* (nullable): what the function waits for */
  GTask *task;        /* (nullable): the operation, once it has begun */
  gboolean ok;
  GError *error;
} Waiter;

static gboolean
call_cb (gpointer user_data, GError **error)
{
  Waiter *self = user_data;

  g_atomic_int_inc (&self->n_started);
  util_latch_count_down (&self->started);
  if (self->proceed != NULL)
    util_latch_wait (self->proceed);
  return TRUE;
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Waiter *self = user_data;

  self->task = g_task_new (NULL, NULL, callback, callback_data);
  call_cb (self, NULL);
  return TRUE;
}

static void
waiter_answer (Waiter *self)
{
  g_task_return_boolean (self->task, TRUE);
  g_clear_object (&self->task);
}

static gpointer
wait_cb (gpointer user_data)
{
  Waiter *self = user_data;
  g_autoptr (GAsyncResult) answer = NULL;
  int priority = self->kind == CALL ? G_PRIORITY_DEFAULT : G_PRIORITY_LOW;

  if (self->kind == PERFORM)
    {
      answer = bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, self->timeout_msec, begin_cb, self,
                                self->cancellable, &self->error);
      self->ok = answer != NULL;
    }
  else if (self->kind == FLUSH)
    {
      self->ok = bg_loop_flush (self->loop, self->timeout_msec, self->cancellable, &self->error);
    }
  else
    {
      self->ok = bg_loop_call_full (self->loop, priority, self->timeout_msec, call_cb, self,
                                    self->cancellable, &self->error);
    }
  g_assert_true (self->ok == (self->error == NULL));
  return NULL;
}

static void
waiter_init (Waiter *self, Kind kind, BgLoop *loop)
{
  *self = (Waiter){ .kind = kind, .loop = loop, .timeout_msec = -1 };
  util_latch_init (&self->started, 1);
}

static void
waiter_start (Waiter *self)
{
  self->thread = g_thread_new ("waiter", wait_cb, self);
}

static void
waiter_join (Waiter *self)
{
  g_thread_join (g_steal_pointer (&self->thread));
}

static void
waiter_clear (Waiter *self)
{
  util_latch_clear (&self->started);
  g_clear_error (&self->error);
  g_clear_object (&self->task);
  g_clear_object (&self->cancellable);
}

static void
assert_never_ran (Waiter *self)
{
  g_assert_false (self->ok);
  g_assert_cmpint (g_atomic_int_get (&self->n_started), ==, 0);
}

/* Cancelled */

static void
test_before (BgTestFixture *fixture, gconstpointer data)
{
  Waiter waiter;

  waiter_init (&waiter, GPOINTER_TO_INT (data), fixture->loop);
  waiter.cancellable = g_cancellable_new ();
  g_cancellable_cancel (waiter.cancellable);
  wait_cb (&waiter);
  g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
  assert_never_ran (&waiter);
  waiter_clear (&waiter);
}

/* The waiter wakes while the loop is still blocked, and what it waited for never
 * runs. */
static void
test_queued (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Waiter waiter;
  UtilBlock block;

  util_block (&block, loop);
  waiter_init (&waiter, GPOINTER_TO_INT (data), loop);
  waiter.cancellable = g_cancellable_new ();
  waiter_start (&waiter);
  util_wait_for_queued (loop, 1);
  g_cancellable_cancel (waiter.cancellable);
  waiter_join (&waiter);
  g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_wait_for_holds (loop, 0);

  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  assert_never_ran (&waiter);
  util_block_clear (&block);
  waiter_clear (&waiter);
}

static void
test_queued_timeout (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Waiter waiter;
  UtilBlock block;

  util_block (&block, loop);
  for (int timeout_msec = 0; timeout_msec < 3; timeout_msec++)
    {
      waiter_init (&waiter, GPOINTER_TO_INT (data), loop);
      waiter.timeout_msec = timeout_msec;
      wait_cb (&waiter);
      g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      assert_never_ran (&waiter);
      util_wait_for_holds (loop, 0);
      waiter_clear (&waiter);
    }
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_block_clear (&block);
}

/* Once started it is waited for. A call has the function's own result; what
 * began while it was cancelled is told, and not waited for. */
static void
test_running (BgTestFixture *fixture, gconstpointer data)
{
  UtilLatch proceed;
  Waiter waiter;

  util_latch_init (&proceed, 1);
  waiter_init (&waiter, GPOINTER_TO_INT (data), fixture->loop);
  waiter.cancellable = g_cancellable_new ();
  waiter.proceed = &proceed;
  waiter_start (&waiter);
  util_latch_wait (&waiter.started);
  g_cancellable_cancel (waiter.cancellable);
  util_latch_count_down (&proceed);
  waiter_join (&waiter);

  if (waiter.kind == PERFORM)
    {
      g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      util_wait_for_holds (fixture->loop, 1);
      waiter_answer (&waiter);
      util_wait_for_holds (fixture->loop, 0);
    }
  else
    {
      g_assert_no_error (waiter.error);
      g_assert_true (waiter.ok);
    }
  waiter_clear (&waiter);
  util_latch_clear (&proceed);
}

static void
test_pending (BgTestFixture *fixture, gconstpointer data)
{
  Waiter waiter;

  waiter_init (&waiter, PERFORM, fixture->loop);
  waiter.cancellable = g_cancellable_new ();
  waiter_start (&waiter);
  util_latch_wait (&waiter.started);
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
  g_cancellable_cancel (waiter.cancellable);
  waiter_join (&waiter);
  g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  waiter_answer (&waiter);
  waiter_clear (&waiter);
}

static gboolean
cancel_own_cb (gpointer user_data, GError **error)
{
  Waiter *self = user_data;

  g_cancellable_cancel (self->cancellable);
  return call_cb (self, error);
}

/* From the loop's own thread: by other work, and by the function itself. */
static void
test_from_loop (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Waiter waiter;

  util_block (&block, loop);
  waiter_init (&waiter, GPOINTER_TO_INT (data), loop);
  waiter.cancellable = g_cancellable_new ();
  g_assert_true (
      bg_loop_post_full (loop, G_PRIORITY_HIGH, util_cancel_cb, waiter.cancellable, NULL));
  waiter_start (&waiter);
  util_wait_for_queued (loop, 2);
  util_unblock (&block);
  waiter_join (&waiter);
  g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  assert_never_ran (&waiter);
  waiter_clear (&waiter);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_block_clear (&block);
}

static void
test_by_itself (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Waiter waiter;

  waiter_init (&waiter, CALL, fixture->loop);
  waiter.cancellable = g_cancellable_new ();
  g_assert_true (bg_loop_call (fixture->loop, cancel_own_cb, &waiter, waiter.cancellable, &error));
  g_assert_no_error (error);
  waiter_clear (&waiter);
}

static gboolean
call_inline_cb (gpointer user_data, GError **error)
{
  Waiter *self = user_data;

  g_cancellable_cancel (self->cancellable);
  wait_cb (self);
  return TRUE;
}

static void
test_inline (BgTestFixture *fixture, gconstpointer data)
{
  Waiter waiter;

  waiter_init (&waiter, CALL, fixture->loop);
  waiter.cancellable = g_cancellable_new ();
  g_assert_true (bg_loop_call (fixture->loop, call_inline_cb, &waiter, NULL, NULL));
  g_assert_error (waiter.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  assert_never_ran (&waiter);
  waiter_clear (&waiter);
}

static void
test_after (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Waiter waiters[2];

  waiter_init (&waiters[0], CALL, loop);
  waiter_init (&waiters[1], PERFORM, loop);
  for (guint i = 0; i < 2; i++)
    {
      waiters[i].cancellable = g_cancellable_new ();
      waiter_start (&waiters[i]);
      util_latch_wait (&waiters[i].started);
      if (waiters[i].kind == PERFORM)
        {
          g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
          waiter_answer (&waiters[i]);
        }
      waiter_join (&waiters[i]);
      g_assert_true (waiters[i].ok);
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
      g_cancellable_cancel (waiters[i].cancellable);

      /* Nothing of the library's is left on it. */
      g_assert_finalize_object (g_steal_pointer (&waiters[i].cancellable));
      waiter_clear (&waiters[i]);
    }
}

/* Asynchronous */

typedef struct
{
  Waiter waiter;
  UtilReply reply;
  UtilLatch destroyed;
} Async;

static void
destroy_cb (gpointer user_data)
{
  Waiter *waiter = user_data;
  Async *self = (Async *) waiter;

  g_assert_true (bg_loop_is_current (waiter->loop));
  util_latch_count_down (&self->destroyed);
}

static void
async_start (Async *self, Kind kind, BgLoop *loop, UtilLatch *proceed)
{
  Waiter *waiter = &self->waiter;

  waiter_init (waiter, kind, loop);
  waiter->cancellable = g_cancellable_new ();
  waiter->proceed = proceed;
  util_latch_init (&self->destroyed, 1);
  util_reply_init (&self->reply);
  if (kind == PERFORM)
    bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, begin_cb, self, destroy_cb,
                           waiter->cancellable, util_reply_cb, &self->reply);
  else
    bg_loop_call_async (loop, G_PRIORITY_LOW, -1, call_cb, self, destroy_cb, waiter->cancellable,
                        util_reply_cb, &self->reply);
}

static gboolean
async_finish (Async *self, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;

  util_reply_wait (&self->reply);
  g_assert_true (util_latch_is_open (&self->destroyed));
  if (self->waiter.kind != PERFORM)
    return bg_loop_call_finish (self->waiter.loop, self->reply.result, error);

  answer = bg_loop_perform_finish (self->waiter.loop, self->reply.result, error);
  return answer != NULL;
}

static void
async_clear (Async *self)
{
  waiter_clear (&self->waiter);
  util_latch_clear (&self->destroyed);
  util_reply_clear (&self->reply);
}

static void
test_async_queued (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  Async async;

  util_block (&block, fixture->loop);
  async_start (&async, GPOINTER_TO_INT (data), fixture->loop, NULL);
  g_cancellable_cancel (async.waiter.cancellable);
  util_unblock (&block);
  g_assert_false (async_finish (&async, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  assert_never_ran (&async.waiter);
  async_clear (&async);
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
  util_block_clear (&block);
}

static void
test_async_running (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilLatch proceed;
  Async async;

  util_latch_init (&proceed, 1);
  async_start (&async, CALL_LOW, fixture->loop, &proceed);
  util_latch_wait (&async.waiter.started);
  g_cancellable_cancel (async.waiter.cancellable);
  util_latch_count_down (&proceed);
  g_assert_true (async_finish (&async, &error));
  g_assert_no_error (error);
  async_clear (&async);
  util_latch_clear (&proceed);
}

/* The reply does not wait for the operation, which goes on holding the loop. */
static void
test_async_pending (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Async async;

  async_start (&async, PERFORM, fixture->loop, NULL);
  util_latch_wait (&async.destroyed);
  g_cancellable_cancel (async.waiter.cancellable);
  g_assert_false (async_finish (&async, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_wait_for_holds (fixture->loop, 1);
  waiter_answer (&async.waiter);
  util_wait_for_holds (fixture->loop, 0);
  async_clear (&async);
}

/* Races: what ran was answered, what was not answered never ran */

typedef struct
{
  BgLoop *loop;
  GAsyncQueue *to_cancel;
} Race;

static gpointer
canceller_cb (gpointer user_data)
{
  Race *race = user_data;

  for (;;)
    {
      g_autoptr (GObject) object = g_async_queue_pop (race->to_cancel);

      if (!G_IS_CANCELLABLE (object))
        return NULL;
      g_cancellable_cancel (G_CANCELLABLE (object));
    }
}

static gboolean
count_cb (gpointer user_data, GError **error)
{
  (*(guint *) user_data)++;
  return TRUE;
}

static gboolean
begin_count_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  count_cb (user_data, NULL);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static gpointer
race_cb (gpointer user_data)
{
  Race *race = user_data;
  guint n = util_scale (400);

  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GAsyncResult) answer = NULL;
      g_autoptr (GError) error = NULL;
      guint *n_run = g_new0 (guint, 1);
      int timeout_msec = i % 3 == 0 ? 0 : -1;
      gboolean ok;

      if (timeout_msec != 0)
        g_async_queue_push (race->to_cancel, g_object_ref (cancellable));
      if (i % 2 == 0)
        {
          ok = bg_loop_call_full (race->loop, 0, timeout_msec, count_cb, n_run, cancellable,
                                  &error);
          g_assert_cmpuint (*n_run, ==, ok ? 1 : 0);
        }
      else
        {
          answer = bg_loop_perform (race->loop, G_PRIORITY_DEFAULT, timeout_msec, begin_count_cb,
                                    n_run, cancellable, &error);
          ok = answer != NULL;
          g_assert_cmpuint (*n_run, >=, ok ? 1 : 0);
        }
      if (!ok && timeout_msec == 0)
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      else if (!ok)
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_free (n_run);
    }
  return NULL;
}

static void
test_race (BgTestFixture *fixture, gconstpointer data)
{
  Race race = { .loop = fixture->loop, .to_cancel = g_async_queue_new () };
  GThread *canceller = g_thread_new ("canceller", canceller_cb, &race);
  GThread *threads[4];

  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("race", race_cb, &race);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
  g_async_queue_push (race.to_cancel, g_object_new (G_TYPE_OBJECT, NULL));
  g_thread_join (canceller);
  g_async_queue_unref (race.to_cancel);
  util_wait_for_holds (race.loop, 0);
}

/* The loop is shut down under a hundred blocked callers */

#define N_WAITERS   100
#define N_PENDING   20
#define N_SHUTDOWNS 4

typedef struct
{
  BgLoop *loop;
  BgShutdownMode mode;
  UtilLatch proceed;
  Waiter running;
  Waiter waiters[N_WAITERS]; /* the first N_PENDING have begun */
  GThread *shutdowns[N_SHUTDOWNS];
} Crowd;

static gpointer
shutdown_cb (gpointer user_data)
{
  Crowd *crowd = user_data;
  GError *error = NULL;

  g_assert_true (bg_loop_shutdown_full (crowd->loop, crowd->mode, NEVER_MSEC, NULL, &error));
  g_assert_no_error (error);
  return NULL;
}

static void
crowd_start (Crowd *self)
{
  util_latch_init (&self->proceed, 1);
  waiter_init (&self->running, CALL, self->loop);
  self->running.proceed = &self->proceed;

  for (guint i = 0; i < N_PENDING; i++)
    {
      waiter_init (&self->waiters[i], PERFORM, self->loop);
      waiter_start (&self->waiters[i]);
      util_latch_wait (&self->waiters[i].started);
    }
  waiter_start (&self->running);
  util_latch_wait (&self->running.started);

  for (guint i = N_PENDING; i < N_WAITERS; i++)
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (self->loop);
      guint n_queued = stats->queued;

      waiter_init (&self->waiters[i], i % N_KINDS, self->loop);
      if (i % 3 == 0)
        self->waiters[i].timeout_msec = NEVER_MSEC;
      waiter_start (&self->waiters[i]);
      util_wait_for_queued (self->loop, n_queued + 1);
    }

  for (guint i = 0; i < N_SHUTDOWNS; i++)
    self->shutdowns[i] = g_thread_new ("shutdown", shutdown_cb, self);
  while (bg_loop_get_state (self->loop) == BG_LOOP_RUNNING)
    g_thread_yield ();
}

static void
crowd_end (Crowd *self)
{
  for (guint i = 0; i < N_SHUTDOWNS; i++)
    g_thread_join (self->shutdowns[i]);
  for (guint i = 0; i < N_WAITERS; i++)
    waiter_clear (&self->waiters[i]);
  waiter_clear (&self->running);
  util_latch_clear (&self->proceed);
  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPED);
}

static void
crowd_answer (Crowd *self)
{
  util_latch_count_down (&self->proceed);
  waiter_join (&self->running);
  g_assert_true (self->running.ok);
  for (guint i = 0; i < N_PENDING; i++)
    waiter_answer (&self->waiters[i]);
}

/* Everybody wakes while the loop is still blocked. */
static void
crowd_assert_closed (Crowd *self)
{
  for (guint i = 0; i < N_WAITERS; i++)
    {
      waiter_join (&self->waiters[i]);
      g_assert_error (self->waiters[i].error, BG_ERROR, BG_ERROR_CLOSED);
      if (i >= N_PENDING)
        assert_never_ran (&self->waiters[i]);
    }
}

static void
test_crowd_cancel (BgTestFixture *fixture, gconstpointer data)
{
  gboolean drain_first = GPOINTER_TO_INT (data);
  Crowd *crowd = g_new0 (Crowd, 1);

  crowd->loop = fixture->loop;
  crowd->mode = drain_first ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL;
  crowd_start (crowd);
  if (drain_first)
    bg_loop_quit (crowd->loop, BG_SHUTDOWN_CANCEL);
  crowd_assert_closed (crowd);
  crowd_answer (crowd);
  crowd_end (crowd);
  g_free (crowd);
}

static void
test_crowd_drain (BgTestFixture *fixture, gconstpointer data)
{
  Crowd *crowd = g_new0 (Crowd, 1);

  crowd->loop = fixture->loop;
  crowd->mode = BG_SHUTDOWN_DRAIN;
  crowd_start (crowd);
  crowd_answer (crowd);
  for (guint i = 0; i < N_WAITERS; i++)
    {
      Waiter *waiter = &crowd->waiters[i];

      if (i >= N_PENDING && waiter->kind == PERFORM)
        {
          util_latch_wait (&waiter->started);
          waiter_answer (waiter);
        }
      waiter_join (waiter);
      g_assert_no_error (waiter->error);
    }
  crowd_end (crowd);
  g_free (crowd);
}

static void
add (const char *path, Kind kind, UtilTestFunc func)
{
  static const char *names[] = { "call", "call-low", "perform", "flush" };
  g_autofree char *whole = g_strdup_printf ("%s/%s", path, names[kind]);

  util_add_data (whole, func, GINT_TO_POINTER (kind));
}

/* A handler of the cancellable waits for the loop whose call it is that is being
 * cancelled: the call, which has started, ends without waiting for the handler. */

typedef struct
{
  BgLoop *caller;
  BgLoop *called;
  GCancellable *cancellable;
  UtilLatch started;
  UtilLatch cancelling;
} Handler;

static void
handler_cb (GCancellable *cancellable, gpointer user_data)
{
  Handler *self = user_data;

  util_latch_count_down (&self->cancelling);
  g_assert_true (bg_loop_call (self->caller, util_true_cb, NULL, NULL, NULL));
}

static gboolean
until_cancelling_cb (gpointer user_data, GError **error)
{
  Handler *self = user_data;

  util_latch_count_down (&self->started);
  util_latch_wait (&self->cancelling);
  return TRUE;
}

static void
call_cancelled_cb (gpointer user_data)
{
  Handler *self = user_data;

  g_assert_true (bg_loop_call (self->called, until_cancelling_cb, self, self->cancellable, NULL));
  g_assert_true (bg_loop_call (self->called, util_true_cb, NULL, NULL, NULL));
}

static void
test_handler_waits (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      Handler self = { util_loop_new ("caller"), util_loop_new ("called"), cancellable };

      util_latch_init (&self.started, 1);
      util_latch_init (&self.cancelling, 1);
      g_cancellable_connect (cancellable, G_CALLBACK (handler_cb), &self, NULL);
      g_assert_true (bg_loop_post (self.caller, call_cancelled_cb, &self, NULL));
      util_latch_wait (&self.started);
      g_cancellable_cancel (cancellable);
      util_loop_end (self.caller);
      util_loop_end (self.called);
      util_latch_clear (&self.started);
      util_latch_clear (&self.cancelling);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  for (Kind kind = CALL; kind < FLUSH; kind++)
    {
      add ("/cancel/before-it-starts", kind, test_before);
      add ("/cancel/queued-behind-blocked-callback", kind, test_queued);
      add ("/cancel/while-it-runs", kind, test_running);
      add ("/cancel/from-own-thread", kind, test_from_loop);
    }
  for (Kind kind = CALL; kind < N_KINDS; kind++)
    add ("/timeout/queued-behind-blocked-callback", kind, test_queued_timeout);
  add ("/cancel/before-it-starts", FLUSH, test_before);
  add ("/cancel/queued-behind-blocked-callback", FLUSH, test_queued);
  util_add ("/cancel/pending-operation", test_pending);
  util_add ("/cancel/by-the-function-itself", test_by_itself);
  util_add ("/cancel/inline", test_inline);
  util_add ("/cancel/after-it-ended", test_after);
  add ("/cancel-async/before-it-starts", CALL_LOW, test_async_queued);
  add ("/cancel-async/before-it-starts", PERFORM, test_async_queued);
  util_add ("/cancel-async/while-it-runs", test_async_running);
  util_add ("/cancel-async/pending-operation", test_async_pending);
  util_add ("/cancel/race", test_race);
  util_add_data ("/blocked/cancel-wakes-all", test_crowd_cancel, GINT_TO_POINTER (FALSE));
  util_add_data ("/blocked/drain-then-cancel-wakes-all", test_crowd_cancel, GINT_TO_POINTER (TRUE));
  util_add ("/blocked/drain-answers-all", test_crowd_drain);
  util_add_trapped ("/cancel/handler-waits-for-the-caller", test_handler_waits);

  return g_test_run ();
}
