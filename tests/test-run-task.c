/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* An object over a loop, whose _async function is a task that runs there. */

typedef struct
{
  BgLoop *loop;
  GObject *source;
  int n_run;
  int n_destroyed;
  GString *order; /* (nullable) */
} Job;

static void
job_init (Job *self, BgLoop *loop)
{
  *self = (Job){ .loop = loop, .source = g_object_new (G_TYPE_OBJECT, NULL) };
}

static void
job_end (Job *self)
{
  util_loop_shut_down (self->loop);
  g_assert_finalize_object (self->source);
}

static void
job_destroyed_cb (gpointer user_data)
{
  g_atomic_int_inc (&((Job *) user_data)->n_destroyed);
}

static void
job_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  Job *self = task_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_main_context_get_thread_default () == bg_loop_get_context (self->loop));
  g_assert_true (source == self->source);
  g_assert_true (cancellable == g_task_get_cancellable (task));
  self->n_run++;
  g_task_return_int (task, 42);
}

static GTask *
job_task_new (Job *self, GCancellable *cancellable, GAsyncReadyCallback callback, gpointer data)
{
  GTask *task = g_task_new (self->source, cancellable, callback, data);

  g_task_set_task_data (task, self, job_destroyed_cb);
  return task;
}

static void
job_run (Job *self, GCancellable *cancellable, UtilReply *reply)
{
  g_autoptr (GTask) task = job_task_new (self, cancellable, util_reply_cb, reply);

  util_reply_init (reply);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, job_cb);
  g_assert_null (reply->result);
}

static gssize
job_finish (Job *self, UtilReply *reply, GError **error)
{
  g_assert_true (g_task_is_valid (reply->result, self->source));
  return g_task_propagate_int (G_TASK (reply->result), error);
}

/* Nobody has it any more. */
static void
assert_task_gone (Job *self, UtilReply *reply)
{
  g_assert_finalize_object (g_steal_pointer (&reply->result));
  g_assert_cmpint (self->n_destroyed, ==, 1);
  util_reply_clear (reply);
}

static void
assert_fails (Job *self, UtilReply *reply, GQuark domain, int code)
{
  g_autoptr (GError) error = NULL;

  util_reply_wait (reply);
  g_assert_true (reply->thread == g_thread_self ());
  g_assert_cmpint (job_finish (self, reply, &error), ==, -1);
  g_assert_error (error, domain, code);
  g_assert_cmpint (self->n_run, ==, 0);
}

/* It runs there, and returns here. */
static void
test_answer (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      g_autoptr (GMainContext) context = g_main_context_new ();
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      UtilReply reply;
      Job job;

      job_init (&job, util_loop_new ("answer"));
      g_main_context_push_thread_default (context);
      job_run (&job, i % 2 == 0 ? cancellable : NULL, &reply);
      util_reply_wait (&reply);
      g_assert_true (reply.thread == g_thread_self ());
      g_assert_cmpint (job_finish (&job, &reply, &error), ==, 42);
      g_assert_no_error (error);
      g_assert_cmpint (job.n_run, ==, 1);
      util_loop_end (job.loop);
      assert_task_gone (&job, &reply);
      g_main_context_pop_thread_default (context);
      g_assert_finalize_object (job.source);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
}

static void
fail_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  g_task_return_new_error (task, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "the very words");
}

static void
test_error (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GTask) task = NULL;
  UtilReply reply;
  Job job;

  job_init (&job, fixture->loop);
  util_reply_init (&reply);
  task = job_task_new (&job, NULL, util_reply_cb, &reply);
  bg_loop_run_task (job.loop, G_PRIORITY_LOW, task, fail_cb);
  util_reply_wait (&reply);
  g_assert_cmpint (job_finish (&job, &reply, &error), ==, -1);
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
  g_assert_cmpstr (error->message, ==, "the very words");
  util_reply_clear (&reply);
  g_clear_object (&task);
  job_end (&job);
}

/* Nobody wants to know. */
static void
test_no_callback (BgTestFixture *fixture, gconstpointer data)
{
  GTask *task;
  Job job;

  job_init (&job, fixture->loop);
  task = job_task_new (&job, NULL, NULL, NULL);
  bg_loop_run_task (job.loop, G_PRIORITY_DEFAULT, task, job_cb);
  g_object_unref (task);
  util_loop_shut_down (job.loop);
  g_assert_cmpint (job.n_run, ==, 1);
  while (job.n_destroyed == 0)
    g_main_context_iteration (NULL, TRUE);
  job_end (&job);
}

/* Queued like everything, at its priority, and never within the call */

static void
order_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  GString *order = source != NULL ? g_object_get_data (source, "order") : NULL;

  g_string_append (order, task_data);
  g_task_return_boolean (task, TRUE);
}

static void
order_post_cb (gpointer user_data)
{
  g_string_append (user_data, "p");
}

static void
test_priority (BgTestFixture *fixture, gconstpointer data)
{
  static const struct
  {
    int priority;
    const char *name;
  } cases[]
      = { { G_PRIORITY_LOW, "l" },     { G_PRIORITY_DEFAULT, "d" }, { G_PRIORITY_HIGH, "h" },
          { G_PRIORITY_DEFAULT, "e" }, { G_PRIORITY_LOW, "m" },     { G_PRIORITY_HIGH, "i" } };
  BgLoop *loop = fixture->loop;
  GObject *source = g_object_new (G_TYPE_OBJECT, NULL);
  GString *order = g_string_new (NULL);
  UtilBlock block;

  g_object_set_data (source, "order", order);
  util_block (&block, loop);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GTask) task = g_task_new (source, NULL, NULL, NULL);

      g_task_set_task_data (task, (gpointer) cases[i].name, NULL);
      bg_loop_run_task (loop, cases[i].priority, task, order_cb);
      g_assert_true (bg_loop_post_full (loop, cases[i].priority, order_post_cb, order, NULL));
    }
  g_assert_cmpstr (order->str, ==, "");
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpstr (order->str, ==, "hpipdpeplpmp");

  util_block_clear (&block);
  util_loop_shut_down (loop);
  g_string_free (order, TRUE);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_object_unref (source);
}

static void
run_there_cb (gpointer user_data)
{
  gpointer *data = user_data;
  Job *job = data[0];

  job_run (job, NULL, data[1]);
  g_assert_cmpint (job->n_run, ==, 0);
}

static void
test_own_thread (BgTestFixture *fixture, gconstpointer test_data)
{
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  Job job;
  gpointer data[] = { &job, &reply };

  job_init (&job, fixture->loop);
  g_assert_true (bg_loop_post (job.loop, run_there_cb, data, NULL));
  g_assert_true (bg_loop_flush (job.loop, -1, NULL, NULL));
  util_latch_wait (&reply.arrived);
  g_assert_true (reply.thread != g_thread_self ());
  g_assert_cmpint (job_finish (&job, &reply, &error), ==, 42);
  g_assert_no_error (error);
  util_loop_shut_down (job.loop);
  util_reply_clear (&reply);
  g_assert_finalize_object (job.source);
}

/* Cancelled before it starts: never runs */

static void
test_cancelled_before (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply reply;
  Job job;

  job_init (&job, fixture->loop);
  g_cancellable_cancel (cancellable);
  job_run (&job, cancellable, &reply);
  assert_fails (&job, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_loop_shut_down (job.loop);
  assert_task_gone (&job, &reply);
  g_assert_finalize_object (job.source);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

static void
test_cancelled_queued (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  UtilReply reply;
  UtilBlock block;
  Job job;

  job_init (&job, fixture->loop);
  util_block (&block, job.loop);
  job_run (&job, cancellable, &reply);
  g_cancellable_cancel (cancellable);
  util_unblock (&block);
  assert_fails (&job, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_loop_shut_down (job.loop);
  assert_task_gone (&job, &reply);
  util_block_clear (&block);
  g_assert_finalize_object (job.source);
  g_assert_finalize_object (g_steal_pointer (&cancellable));
}

/* It runs or it does not; one outcome. */
static void
test_cancelled_race (BgTestFixture *fixture, gconstpointer data)
{
  GObject *source = g_object_new (G_TYPE_OBJECT, NULL);

  for (guint i = 0; i < util_scale (500); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      Job job = { .loop = fixture->loop, .source = source };
      UtilReply reply;

      job_run (&job, cancellable, &reply);
      g_cancellable_cancel (cancellable);
      util_reply_wait (&reply);
      g_assert_cmpint (job_finish (&job, &reply, &error), ==, -1);
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_assert_cmpint (job.n_run, <=, 1);
      g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
      assert_task_gone (&job, &reply);
      g_assert_finalize_object (g_steal_pointer (&cancellable));
    }
  util_loop_shut_down (fixture->loop);
  g_object_unref (source);
}

/* Refused: told so, but not from within the call, and never run in the caller */

static void
run_refused (Job *job)
{
  UtilReply reply;

  job->n_destroyed = 0;
  job_run (job, NULL, &reply);
  assert_fails (job, &reply, BG_ERROR, BG_ERROR_CLOSED);
  assert_task_gone (job, &reply);
}

static void
test_refused (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      guint64 hold;
      Job job;

      job_init (&job, util_loop_new ("refused"));
      hold = bg_loop_hold (job.loop, "the test");
      bg_loop_quit (job.loop, mode);
      run_refused (&job);
      bg_loop_release (job.loop, hold);
      g_assert_true (bg_loop_shutdown (job.loop, NULL));
      run_refused (&job);
      job_end (&job);
      g_assert_finalize_object (job.loop);
    }
}

/* In the context that the task was made in, whatever is the thread-default one by then. */
static void
test_refused_context (void)
{
  g_autoptr (GMainContext) pushed = g_main_context_new ();
  UtilReply reply;
  Job job;

  job_init (&job, util_loop_new ("refused"));
  util_loop_shut_down (job.loop);
  util_reply_init (&reply);
  {
    g_autoptr (GTask) task = job_task_new (&job, NULL, util_reply_cb, &reply);

    g_main_context_push_thread_default (pushed);
    bg_loop_run_task (job.loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
    g_main_context_pop_thread_default (pushed);
  }
  g_assert_false (g_main_context_pending (pushed));
  assert_fails (&job, &reply, BG_ERROR, BG_ERROR_CLOSED);
  assert_task_gone (&job, &reply);
  job_end (&job);
  g_assert_finalize_object (job.loop);
}

/* At the task's own priority: what is more urgent in the context comes before, what is less
 * so after. */
static void
test_refused_priority (void)
{
  static const int priorities[] = { G_PRIORITY_HIGH, G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      g_autoptr (GTask) task = NULL;
      UtilLatch before, after;
      UtilReply reply;
      Job job;

      job_init (&job, util_loop_new ("refused"));
      util_loop_shut_down (job.loop);
      util_reply_init (&reply);
      util_latch_init (&before, 1);
      util_latch_init (&after, 1);
      task = job_task_new (&job, NULL, util_reply_cb, &reply);
      g_task_set_priority (task, priorities[i]);
      g_idle_add_full (priorities[i] + 1, util_count_down_source_cb, &after, NULL);
      bg_loop_run_task (job.loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
      g_clear_object (&task);
      g_idle_add_full (priorities[i] - 1, util_count_down_source_cb, &before, NULL);
      util_iterate_until (&before);
      g_assert_null (reply.result);
      assert_fails (&job, &reply, BG_ERROR, BG_ERROR_CLOSED);
      g_assert_false (util_latch_is_open (&after));
      util_iterate_until (&after);
      assert_task_gone (&job, &reply);
      util_latch_clear (&before);
      util_latch_clear (&after);
      job_end (&job);
      g_assert_finalize_object (job.loop);
    }
}

/* One that was cancelled before says so, also if it does not look at its cancellable when it
 * is asked for its result. */
static void
test_refused_cancelled (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GTask) task = NULL;
  UtilReply reply;
  Job job;

  job_init (&job, util_loop_new ("refused"));
  util_loop_shut_down (job.loop);
  util_reply_init (&reply);
  g_cancellable_cancel (cancellable);
  task = job_task_new (&job, cancellable, util_reply_cb, &reply);
  g_task_set_check_cancellable (task, FALSE);
  bg_loop_run_task (job.loop, G_PRIORITY_DEFAULT, task, util_no_task_cb);
  g_clear_object (&task);
  assert_fails (&job, &reply, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  assert_task_gone (&job, &reply);
  job_end (&job);
  g_assert_finalize_object (job.loop);
}

/* On its own thread too: while the teardown functions run nothing is taken. */

static void
run_late_cb (gpointer user_data)
{
  gpointer *data = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  bg_loop_run_task (data[0], G_PRIORITY_DEFAULT, task, util_no_task_cb);
}

static void
test_refused_in_teardown (void)
{
  BgLoop *loop = util_loop_new ("late");
  gpointer data[] = { loop };

  g_assert_cmpuint (bg_loop_add_teardown (loop, run_late_cb, data, NULL), !=, 0);
  util_loop_end (loop);
}

/* Shutdown */

static void
run_shutdown (BgLoop *loop, BgShutdownMode mode, Job *job, UtilReply *reply)
{
  UtilBlock block;

  job_init (job, loop);
  util_block (&block, job->loop);
  job_run (job, NULL, reply);
  bg_loop_quit (job->loop, mode);
  util_unblock (&block);
  util_loop_shut_down (job->loop);
  util_block_clear (&block);
  g_assert_null (reply->result);
}

static void
test_drained (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilReply reply;
  Job job;

  run_shutdown (fixture->loop, BG_SHUTDOWN_DRAIN, &job, &reply);
  g_assert_cmpint (job.n_run, ==, 1);
  util_reply_wait (&reply);
  g_assert_cmpint (job_finish (&job, &reply, &error), ==, 42);
  g_assert_no_error (error);
  assert_task_gone (&job, &reply);
  g_assert_finalize_object (job.source);
}

static void
test_dropped (BgTestFixture *fixture, gconstpointer data)
{
  UtilReply reply;
  Job job;

  run_shutdown (fixture->loop, BG_SHUTDOWN_CANCEL, &job, &reply);
  assert_fails (&job, &reply, BG_ERROR, BG_ERROR_CLOSED);
  assert_task_gone (&job, &reply);
  g_assert_finalize_object (job.source);
}

/* A task that is returned from is no reason for its loop to stay, though its function runs on. */

typedef struct
{
  BgLoop *loop;
  UtilLatch gone;
} Dropped;

static void
drop_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Dropped *self = user_data;

  g_assert_true (g_task_propagate_boolean (G_TASK (result), NULL));
  g_object_unref (self->loop);
}

static void
return_and_stay_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  Dropped *self = data;

  g_task_return_boolean (task, TRUE);
  util_latch_wait (&self->gone);
}

static void
ask_and_drop_cb (gpointer user_data)
{
  Dropped *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, drop_cb, self);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, return_and_stay_cb);
}

static void
gone_cb (gpointer user_data, GObject *object)
{
  util_latch_count_down (user_data);
}

static void
test_loop_goes (void)
{
  BgLoop *asker = util_loop_new ("asker");
  Dropped self = { util_loop_new ("dropped") };

  util_latch_init (&self.gone, 1);
  g_object_weak_ref (G_OBJECT (self.loop), gone_cb, &self.gone);
  g_assert_true (bg_loop_post (asker, ask_and_drop_cb, &self, NULL));
  util_loop_end (asker);
  util_latch_wait (&self.gone);
  g_assert_null (bg_test_describe_loops (0, -1));
  util_latch_clear (&self.gone);
}

/* A loop gave a task to itself, and to others, and is cancelled: it goes, and the task that is
 * returned from afterwards calls back with the next loop. */

typedef struct
{
  BgLoop *loop;
  GTask *task; /* (owned) atomic */
  gboolean called_back;
} Late;

static void
late_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_true (g_task_propagate_boolean (G_TASK (result), NULL));
  ((Late *) user_data)->called_back = TRUE;
}

static void
keep_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  g_atomic_pointer_set (&((Late *) data)->task, g_object_ref (task));
}

static void
ask_itself_cb (gpointer user_data)
{
  Late *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, late_cb, self);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, keep_task_cb);
}

static void
test_returned_late (void)
{
  Late self = { util_loop_new ("itself") };

  g_assert_true (bg_loop_post (self.loop, ask_itself_cb, &self, NULL));
  while (g_atomic_pointer_get (&self.task) == NULL)
    g_thread_yield ();
  g_assert_true (bg_loop_shutdown_full (self.loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_finalize_object (self.loop);

  g_task_return_boolean (self.task, TRUE);
  g_object_unref (self.task);
  g_assert_false (self.called_back);
  util_loop_end (util_loop_new ("next"));
  g_assert_true (self.called_back);
}

/* Many threads race a shutdown: each task returns once, and what ran succeeded. */

typedef struct
{
  BgLoop *loop;
  GObject *source;
  int n_ran;
  int n_answered;
} Crowd;

static void
crowd_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  ((Crowd *) task_data)->n_ran++;
  g_task_return_int (task, 42);
}

static gpointer
crowd_thread (gpointer user_data)
{
  Crowd *self = user_data;
  g_autoptr (GMainContext) context = g_main_context_new ();

  g_main_context_push_thread_default (context);
  for (guint i = 0; i < util_scale (200); i++)
    {
      g_autoptr (GTask) task = NULL;
      g_autoptr (GError) error = NULL;
      UtilReply reply;

      util_reply_init (&reply);
      task = g_task_new (self->source, NULL, util_reply_cb, &reply);
      g_task_set_task_data (task, self, NULL);
      bg_loop_run_task (self->loop, (int) (i % 3), task, crowd_cb);
      util_reply_wait (&reply);
      if (g_task_propagate_int (G_TASK (reply.result), &error) == 42)
        g_atomic_int_inc (&self->n_answered);
      else
        g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      util_reply_clear (&reply);
    }
  g_main_context_pop_thread_default (context);
  return NULL;
}

static void
test_many_threads (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Crowd self = { util_loop_new ("crowd"), g_object_new (G_TYPE_OBJECT, NULL) };
      GThread *threads[4];

      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        threads[i] = g_thread_new ("crowd", crowd_thread, &self);
      while (g_atomic_int_get (&self.n_answered) < 4)
        g_thread_yield ();
      bg_loop_quit (self.loop, mode);
      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        g_thread_join (threads[i]);
      util_loop_end (self.loop);
      g_assert_cmpint (self.n_ran, ==, self.n_answered);
      g_assert_finalize_object (self.source);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/run-task/runs-there-and-returns-here", test_answer);
  util_add ("/run-task/error-unchanged", test_error);
  util_add ("/run-task/no-callback", test_no_callback);
  util_add ("/run-task/queued-at-its-priority", test_priority);
  util_add ("/run-task/own-thread/queued", test_own_thread);
  util_add ("/run-task/cancelled/before", test_cancelled_before);
  util_add ("/run-task/cancelled/queued", test_cancelled_queued);
  util_add ("/run-task/cancelled/race", test_cancelled_race);
  g_test_add_func ("/run-task/refused/returns-closed", test_refused);
  g_test_add_func ("/run-task/refused/in-the-tasks-context", test_refused_context);
  g_test_add_func ("/run-task/refused/at-the-tasks-priority", test_refused_priority);
  g_test_add_func ("/run-task/refused/cancelled-before", test_refused_cancelled);
  util_add_trapped ("/run-task/refused/in-a-teardown", test_refused_in_teardown);
  util_add ("/run-task/shutdown/drain-runs-it", test_drained);
  util_add ("/run-task/shutdown/cancel-drops-it", test_dropped);
  util_add_trapped ("/run-task/shutdown/cancel-before-it-returns", test_returned_late);
  util_add_trapped ("/run-task/loop-goes-while-it-runs", test_loop_goes);
  util_add_trapped ("/run-task/many-threads", test_many_threads);

  return g_test_run ();
}
