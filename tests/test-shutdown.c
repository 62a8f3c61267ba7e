/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

#define N_POSTS 20

typedef enum
{
  WAY_SHUTDOWN,
  WAY_ASYNC,
  WAY_QUIT,
  N_WAYS,
} Way;

typedef enum
{
  IDLE,
  BUSY,
  STOPPING,
  STOPPED,
  N_STATES,
} State;

typedef enum
{
  OWNER,
  FOREIGN,
  OWN,
  N_CALLERS,
} Caller;

static const char *way_names[] = { "shutdown", "async", "quit" };
static const char *state_names[] = { "idle", "busy", "stopping", "stopped" };
static const char *caller_names[] = { "owner", "foreign", "own" };

typedef struct
{
  BgShutdownMode mode;
  Way way;
  State state;
  Caller caller;

  BgLoop *loop;
  UtilBlock block;
  guint64 hold;
  int ran;
  int destroyed;
  UtilLatch done;
} Case;

/* Work that is there when the end is asked for */

static void
ran_cb (gpointer user_data)
{
  Case *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_atomic_int_inc (&self->ran);
}

static void
destroyed_cb (gpointer user_data)
{
  Case *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_atomic_int_inc (&self->destroyed);
}

static void
post_work (Case *self)
{
  static const int priorities[] = { G_PRIORITY_LOW, G_PRIORITY_DEFAULT, G_PRIORITY_HIGH };

  for (guint i = 0; i < N_POSTS; i++)
    {
      int priority = priorities[i % G_N_ELEMENTS (priorities)];

      g_assert_true (bg_loop_post_full (self->loop, priority, ran_cb, self, destroyed_cb));
    }
}

/* Lets go what keeps the loop from ending, when the end has been asked for. */
static gpointer
let_go_thread (gpointer user_data)
{
  Case *self = user_data;
  GCancellable *cancellable = bg_loop_get_cancellable (self->loop);

  if (self->mode == BG_SHUTDOWN_CANCEL)
    {
      while (!g_cancellable_is_cancelled (cancellable))
        g_thread_yield ();
    }
  else
    {
      while (bg_loop_get_state (self->loop) == BG_LOOP_RUNNING)
        g_thread_yield ();
    }

  if (self->state == BUSY)
    util_unblock (&self->block);
  if (self->hold != 0)
    bg_loop_release (self->loop, self->hold);
  return NULL;
}

/* The ways to end it */

static void
assert_unchanged_cb (Case *self, const GError *error)
{
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (self->loop), ==,
                   self->state == STOPPING ? BG_LOOP_STOPPING : BG_LOOP_RUNNING);
  g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (self->loop)));
}

typedef struct
{
  Case *self;
  GThread *thread;
  UtilLatch replied;
} Reply;

static void
reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Reply *reply = user_data;
  Case *self = reply->self;
  g_autoptr (GError) error = NULL;
  gboolean ended;

  g_assert_true (g_thread_self () == reply->thread);
  g_assert_true ((gpointer) source == (gpointer) self->loop);
  ended = bg_loop_shutdown_finish (self->loop, result, &error);
  if (self->caller == OWN)
    {
      g_assert_false (ended);
      assert_unchanged_cb (self, error);
    }
  else
    {
      g_assert_no_error (error);
      g_assert_true (ended);
      g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPED);
    }
  util_latch_count_down (&reply->replied);
}

static void
end_async (Case *self)
{
  GMainContext *context = self->caller != OWN ? g_main_context_new () : NULL;
  Reply reply = { self, g_thread_self () };

  util_latch_init (&reply.replied, 1);
  if (context != NULL)
    g_main_context_push_thread_default (context);

  bg_loop_shutdown_async (self->loop, self->mode, -1, NULL, reply_cb, &reply);
  g_assert_false (util_latch_is_open (&reply.replied));
  util_iterate_until (&reply.replied);

  if (context != NULL)
    g_main_context_pop_thread_default (context);
  g_clear_pointer (&context, g_main_context_unref);
  util_latch_clear (&reply.replied);
}

static void
end_blocking (Case *self)
{
  g_autoptr (GError) error = NULL;
  gboolean ended = bg_loop_shutdown_full (self->loop, self->mode, -1, NULL, &error);

  if (self->caller == OWN)
    {
      g_assert_false (ended);
      assert_unchanged_cb (self, error);
      return;
    }

  g_assert_no_error (error);
  g_assert_true (ended);
  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPED);
}

static void
end_quit (Case *self)
{
  bg_loop_quit (self->loop, self->mode);
  g_assert_cmpint (bg_loop_get_state (self->loop), !=, BG_LOOP_RUNNING);
  if (self->mode == BG_SHUTDOWN_CANCEL && self->state != STOPPED)
    g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (self->loop)));
}

static void
end_cb (gpointer user_data)
{
  Case *self = user_data;

  if (self->way == WAY_SHUTDOWN)
    end_blocking (self);
  else if (self->way == WAY_ASYNC)
    end_async (self);
  else
    end_quit (self);

  util_latch_count_down (&self->done);
}

static gpointer
end_thread (gpointer user_data)
{
  end_cb (user_data);
  return NULL;
}

/* One case */

/* On the loop's own thread work is queued behind the function that ends it. */
static void
post_and_end_cb (gpointer user_data)
{
  Case *self = user_data;

  if (self->state != IDLE)
    post_work (self);
  end_cb (self);
}

static void
run_own (Case *self)
{
  gboolean cancels = self->way == WAY_QUIT && self->mode == BG_SHUTDOWN_CANCEL;
  guint n = self->state != IDLE ? N_POSTS : 0;
  UtilBlock block;

  util_block (&block, self->loop);
  g_assert_true (bg_loop_post (self->loop, post_and_end_cb, self, NULL));
  if (self->state == STOPPING)
    bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_latch_wait (&self->done);

  util_loop_end (self->loop);
  util_block_clear (&block);
  g_assert_cmpint (self->destroyed, ==, n);
  /* An asynchronous caller iterates the context, and so runs what it waits behind. */
  g_assert_cmpint (self->ran, ==, cancels ? 0 : n);
}

static void
prepare (Case *self)
{
  if (self->state == BUSY)
    {
      util_block (&self->block, self->loop);
      post_work (self);
    }
  else if (self->state == STOPPING)
    {
      self->hold = bg_loop_hold (self->loop, "the test");
      post_work (self);
      g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
      bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
    }
  else if (self->state == STOPPED)
    {
      post_work (self);
      g_assert_true (bg_loop_shutdown (self->loop, NULL));
    }
}

static void
run_elsewhere (Case *self)
{
  gboolean cancels = self->mode == BG_SHUTDOWN_CANCEL && self->state == BUSY;
  guint n = self->state != IDLE ? N_POSTS : 0;
  GThread *helper = NULL;

  prepare (self);
  if (self->state == BUSY || self->state == STOPPING)
    helper = g_thread_new ("let go", let_go_thread, self);

  if (self->caller == OWNER)
    end_cb (self);
  else
    g_thread_join (g_thread_new ("foreign", end_thread, self));

  g_clear_pointer (&helper, g_thread_join);
  util_loop_end (self->loop);
  if (self->state == BUSY)
    util_block_clear (&self->block);
  g_assert_cmpint (self->destroyed, ==, n);
  g_assert_cmpint (self->ran, ==, cancels ? 0 : n);
}

static void
run_case (Case *self)
{
  guint threads = util_count_threads ();
  guint fds = util_count_fds ();

  g_test_message ("%s %s, %s, from %s", way_names[self->way],
                  self->mode == BG_SHUTDOWN_DRAIN ? "DRAIN" : "CANCEL", state_names[self->state],
                  caller_names[self->caller]);

  self->loop = util_loop_new ("case");
  util_latch_init (&self->done, 1);
  if (self->caller == OWN)
    run_own (self);
  else
    run_elsewhere (self);
  util_latch_clear (&self->done);

  g_assert_cmpuint (util_count_fds (), ==, fds);
  util_wait_for_threads (threads);
}

static void
test_table (void)
{
  /* GLib keeps a file descriptor or two of its own from the first use on. */
  util_loop_end (util_loop_new (NULL));

  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    for (Way way = 0; way < N_WAYS; way++)
      for (State state = 0; state < N_STATES; state++)
        for (Caller caller = 0; caller < N_CALLERS; caller++)
          {
            Case self = { mode, way, state, caller };

            if (state != STOPPED || caller != OWN)
              run_case (&self);
          }
}

/* Right after the start: the stop is a state, not only g_main_loop_quit() */
static void
test_right_after_start (void)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      BgLoop *loop = util_loop_new ("short");

      if (i % 3 == 0)
        bg_loop_quit (loop, i % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
      util_loop_end (loop);
    }
}

/* A shutdown leaves a context that anybody may have. */
static void
test_context_released (void)
{
  BgLoop *loop = util_loop_new ("context");
  g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (loop));

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_true (g_main_context_acquire (context));
  g_assert_false (g_main_context_pending (context));
  g_main_context_release (context);
  g_assert_finalize_object (loop);
}

/* What is refused, and how it is told */

typedef struct
{
  BgLoop *loop;
  GThread *destroyer; /* where refused work has to be destroyed */
  int destroyed;
  int replies;
} Refused;

static void
refused_cb (gpointer user_data)
{
  Refused *self = user_data;

  g_assert_true (g_thread_self () == self->destroyer);
  self->destroyed++;
}

static void
refused_call_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
refused_perform_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (bg_loop_perform_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
assert_posts_refused (Refused *self)
{
  BgLoop *loop = self->loop;
  g_autoptr (GSource) source = g_idle_source_new ();
  int destroyed = self->destroyed;

  self->destroyer = g_thread_self ();
  g_assert_false (bg_loop_post (loop, util_not_reached_cb, self, refused_cb));
  g_assert_false (bg_loop_post_full (loop, 5, util_not_reached_cb, self, refused_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, self, refused_cb), ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, self, refused_cb), ==, 0);
  if (!bg_loop_is_current (loop))
    {
      g_assert_false (bg_loop_invoke (loop, util_no_source_cb, self));
      g_assert_false (bg_loop_invoke_full (loop, 5, util_no_source_cb, self, refused_cb));
      destroyed++;
    }
  g_assert_cmpint (self->destroyed, ==, destroyed + 4);
  g_assert_cmpuint (bg_loop_hold (loop, "refused"), ==, 0);
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_null (g_source_get_context (source));
}

static void
assert_waits_refused (Refused *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_null (
      bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_null (bg_loop_perform_operation (self->loop, G_PRIORITY_DEFAULT, -1,
                                            util_no_operation_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
refused_task_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Refused *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (g_task_propagate_boolean (G_TASK (result), &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->replies++;
}

static void
assert_async_refused (Refused *self)
{
  int destroyed = self->destroyed;
  int replies = self->replies;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, refused_task_cb, self);

  bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, self, refused_cb, NULL, refused_call_cb,
                      self);
  bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, self, refused_cb,
                         NULL, refused_perform_cb, self);
  bg_loop_perform_operation_async (self->loop, G_PRIORITY_DEFAULT, -1, util_no_operation_cb, self,
                                   refused_cb, NULL, refused_perform_cb, self);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
  g_assert_cmpint (self->destroyed, ==, destroyed + 3);
  g_assert_cmpint (self->replies, ==, replies);
  while (self->replies < replies + 4)
    g_main_context_iteration (NULL, TRUE);
}

static void
run_refused (BgShutdownMode mode)
{
  Refused self = { util_loop_new ("refusing") };
  guint64 hold = bg_loop_hold (self.loop, "the test");
  g_autoptr (GError) error = NULL;

  bg_loop_quit (self.loop, mode);
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
  assert_posts_refused (&self);
  assert_waits_refused (&self);
  assert_async_refused (&self);

  bg_loop_release (self.loop, hold);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  assert_posts_refused (&self);
  assert_waits_refused (&self);
  assert_async_refused (&self);
  g_assert_false (bg_loop_flush (self.loop, -1, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);

  g_assert_finalize_object (self.loop);
}

static void
test_refused (void)
{
  run_refused (BG_SHUTDOWN_DRAIN);
  run_refused (BG_SHUTDOWN_CANCEL);
}

/* CANCEL takes nothing from the loop's own thread either. */
static void
refused_there_cb (gpointer user_data)
{
  Refused *self = user_data;

  bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  assert_posts_refused (self);
}

static void
test_cancel_refuses_own_thread (void)
{
  Refused self = { util_loop_new ("refusing") };

  g_assert_true (bg_loop_post (self.loop, refused_there_cb, &self, NULL));
  util_loop_end (self.loop);
  g_assert_cmpint (self.destroyed, ==, 4);
}

/* DRAIN lets a chain finish, each link of which posts the next */

typedef struct
{
  BgLoop *loop;
  guint left;
  guint64 hold;
  int destroyed;
} Chain;

static void
link_destroyed_cb (gpointer user_data)
{
  ((Chain *) user_data)->destroyed++;
}

static void
link_cb (gpointer user_data)
{
  Chain *self = user_data;

  if (self->hold != 0)
    bg_loop_release (self->loop, self->hold);
  self->hold = bg_loop_hold (self->loop, "the next");
  g_assert_cmpuint (self->hold, !=, 0);

  if (--self->left > 0)
    g_assert_true (bg_loop_post_full (self->loop, (int) (self->left % 3) * 100, link_cb, self,
                                      link_destroyed_cb));
  else
    bg_loop_release (self->loop, self->hold);
}

static void
test_drain_finishes_chain (void)
{
  Chain self = { util_loop_new ("chain"), util_scale (2000) };
  int n = (int) self.left;
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, link_cb, &self, link_destroyed_cb));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpuint (self.left, ==, 0);
  g_assert_cmpint (self.destroyed, ==, n);
}

/* CANCEL wakes every waiter at once, but for the one whose function runs */

typedef struct
{
  BgLoop *loop;
  UtilBlock *block;
  UtilLatch woken;
  int ran;
} Waiters;

static gboolean
count_call_cb (gpointer user_data, GError **error)
{
  g_atomic_int_inc (&((Waiters *) user_data)->ran);
  return TRUE;
}

static gpointer
waiting_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, count_call_cb, self, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_latch_count_down (&self->woken);
  return NULL;
}

static gpointer
performing_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (
      bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_latch_count_down (&self->woken);
  return NULL;
}

static gboolean
blocking_call_cb (gpointer user_data, GError **error)
{
  UtilBlock *block = user_data;

  util_latch_count_down (&block->entered);
  util_latch_wait (&block->released);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "its own");
  return FALSE;
}

static gpointer
running_thread (gpointer user_data)
{
  Waiters *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, blocking_call_cb, self->block, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS);
  return NULL;
}

static void
test_cancel_wakes_waiters (void)
{
  UtilBlock block;
  Waiters self = { util_loop_new ("waiters"), &block };
  GThread *threads[5];
  BgLoopStats *stats;
  guint queued = 0;

  util_latch_init (&block.entered, 1);
  util_latch_init (&block.released, 1);
  util_latch_init (&self.woken, G_N_ELEMENTS (threads) - 1);
  threads[0] = g_thread_new ("running", running_thread, &self);
  util_latch_wait (&block.entered);
  for (guint i = 1; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("waiting", i % 2 == 0 ? performing_thread : waiting_thread, &self);
  while (queued < G_N_ELEMENTS (threads) - 1)
    {
      stats = bg_loop_get_stats (self.loop);
      queued = stats->queued;
      bg_loop_stats_free (stats);
    }

  /* They wake though the loop's thread is stuck. */
  bg_loop_quit (self.loop, BG_SHUTDOWN_CANCEL);
  util_latch_wait (&self.woken);
  util_unblock (&block);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);

  util_loop_end (self.loop);
  g_assert_cmpint (self.ran, ==, 0);
  util_latch_clear (&self.woken);
  util_block_clear (&block);
}

/* CANCEL once asked for is not taken back. */
static void
test_cancel_is_final (void)
{
  BgLoop *loop = util_loop_new ("final");
  int ran = 0, destroyed = 0;
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < N_POSTS; i++)
    g_assert_true (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_cb));
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (bg_loop_post (loop, util_count_cb, &ran, NULL));
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
  g_assert_cmpint (ran, ==, 0);
  g_assert_cmpint (destroyed, ==, N_POSTS);
}

/* DRAIN leaves the loop's cancellable alone. */
static void
test_drain_does_not_cancel (void)
{
  BgLoop *loop = util_loop_new ("drain");
  g_autoptr (GCancellable) cancellable = g_object_ref (bg_loop_get_cancellable (loop));

  util_loop_end (loop);
  g_assert_false (g_cancellable_is_cancelled (cancellable));
}

/* A chain of urgent work goes on until less urgent work, which was accepted before,
 * has run: it gets its turn in a drain, too. */

typedef struct
{
  BgLoop *loop;
  int done;
  int hops;
} Lanes;

static void
urgent_chain_cb (gpointer user_data)
{
  Lanes *self = user_data;

  if (self->done == 0)
    g_assert_true (bg_loop_post_full (self->loop, -1, urgent_chain_cb, self, NULL));
}

static gboolean
urgent_repeat_cb (gpointer user_data)
{
  Lanes *self = user_data;

  return self->done == 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
test_drain_other_priorities (void)
{
  for (guint i = 0; i < 3; i++)
    {
      Lanes self = { util_loop_new ("lanes") };
      UtilBlock block;

      util_block (&block, self.loop);
      if (i == 0)
        bg_loop_invoke_full (self.loop, -1, urgent_repeat_cb, &self, NULL);
      else
        bg_loop_post_full (self.loop, -1, urgent_chain_cb, &self, NULL);
      if (i == 2)
        bg_loop_post_after (self.loop, 0, util_count_cb, &self.done, NULL);
      else
        bg_loop_post (self.loop, util_count_cb, &self.done, NULL);
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      util_loop_end (self.loop);
      util_block_clear (&block);
      g_assert_cmpint (self.done, ==, 1);
    }
}

/* What falls due while the last work runs counts as accepted. */
static void
post_due_cb (gpointer user_data)
{
  Lanes *self = user_data;
  gint64 due;

  /* Far enough into the drain. */
  if (self->hops-- > 0)
    {
      g_assert_true (bg_loop_post (self->loop, post_due_cb, self, NULL));
      return;
    }

  g_assert_cmpuint (bg_loop_post_after (self->loop, 0, util_count_cb, &self->done, NULL), !=, 0);
  g_assert_cmpuint (bg_loop_post_after (self->loop, 1, util_count_cb, &self->done, NULL), !=, 0);
  due = g_get_monotonic_time () + 2 * G_TIME_SPAN_MILLISECOND;
  while (g_get_monotonic_time () < due)
    ;
}

static void
test_drain_due (void)
{
  Lanes self = { util_loop_new ("due"), .hops = 1000 };
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, post_due_cb, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpint (self.done, ==, 2);
}

/* A cancellable ends the wait, and the stopping goes on. */

typedef struct
{
  BgLoop *loop;
  BgShutdownMode mode;
  GCancellable *cancellable;
} Cancelled;

static gpointer
cancelled_thread (gpointer user_data)
{
  Cancelled *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (self->loop, self->mode, -1, self->cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  return NULL;
}

static void
test_wait_cancelled (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Cancelled self = { util_loop_new ("cancelled"), mode, g_cancellable_new () };
      guint64 hold = bg_loop_hold (self.loop, "the test");
      GThread *thread = g_thread_new ("cancelled", cancelled_thread, &self);

      while (bg_loop_get_state (self.loop) == BG_LOOP_RUNNING)
        g_thread_yield ();
      g_cancellable_cancel (self.cancellable);
      g_thread_join (thread);
      g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
      g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (self.loop))
                     == (mode == BG_SHUTDOWN_CANCEL));
      bg_loop_release (self.loop, hold);
      util_loop_end (self.loop);
      g_assert_finalize_object (self.cancellable);
    }
}

/* One that is cancelled already: nothing is asked for. */
static void
test_cancelled_before (void)
{
  static const int timeouts[] = { -1, 0, 1 };

  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      BgLoop *loop = util_loop_new ("before");
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();

      g_cancellable_cancel (cancellable);
      for (guint i = 0; i < G_N_ELEMENTS (timeouts); i++)
        {
          g_autoptr (GError) error = NULL;

          g_assert_false (bg_loop_shutdown_full (loop, mode, timeouts[i], cancellable, &error));
          g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
        }
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_loop_end (loop);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
}

static void
test_not_cancelled (void)
{
  BgLoop *loop = util_loop_new ("not");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, -1, cancellable, &error));
  g_assert_no_error (error);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
  util_loop_end (loop);
}

/* What is no mode does nothing. */
static void
test_no_mode (void)
{
  static const int modes[] = { -1, 2, 42 };
  BgLoop *loop = util_loop_new ("no mode");
  int destroyed = 0;

  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++)
    {
      BgShutdownMode mode = (BgShutdownMode) modes[i];

      bg_loop_quit (loop, mode);
      util_take_critical ("*");
      g_assert_false (bg_loop_shutdown_full (loop, mode, -1, NULL, NULL));
      util_take_critical ("*");
      bg_loop_shutdown_async (loop, mode, -1, NULL, util_no_reply_cb, NULL);
      util_take_critical ("*");
      while (g_main_context_iteration (NULL, FALSE))
        ;
    }
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_false (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)));
  g_assert_true (bg_loop_post (loop, util_count_cb, &destroyed, util_count_cb));
  util_loop_end (loop);
  g_assert_cmpint (destroyed, ==, 2);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/shutdown/table", test_table);
  util_add_trapped ("/shutdown/right-after-start", test_right_after_start);
  util_add_trapped ("/shutdown/context-released", test_context_released);
  util_add_trapped ("/shutdown/refused", test_refused);
  util_add_trapped ("/shutdown/cancel/refuses-own-thread", test_cancel_refuses_own_thread);
  util_add_trapped ("/shutdown/cancel/wakes-waiters", test_cancel_wakes_waiters);
  util_add_trapped ("/shutdown/cancel/is-final", test_cancel_is_final);
  util_add_trapped ("/shutdown/drain/finishes-chain", test_drain_finishes_chain);
  util_add_trapped ("/shutdown/drain/does-not-cancel", test_drain_does_not_cancel);
  util_add_trapped ("/shutdown/drain/other-priorities", test_drain_other_priorities);
  util_add_trapped ("/shutdown/drain/what-falls-due", test_drain_due);
  util_add_trapped ("/shutdown/cancelled/ends-the-wait-alone", test_wait_cancelled);
  util_add_trapped ("/shutdown/cancelled/before-asks-for-nothing", test_cancelled_before);
  util_add_trapped ("/shutdown/cancelled/not", test_not_cancelled);
  util_add_trapped ("/shutdown/no-mode-does-nothing", test_no_mode);

  return g_test_run ();
}
