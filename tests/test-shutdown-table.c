/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-shutdown.h"

/* Each way to end a loop, in each mode, in each state that the loop may be in, from each thread that
 * may ask for it. */

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

void
add_tests_of_table (void)
{
  util_add_trapped ("/shutdown/table", test_table);
}
