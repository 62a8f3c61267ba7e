/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

#define HEAP 64
#define MANY 1000

/* Work that notes what became of it. Nothing but a latch orders what the loop's
 * thread writes before what the test reads. */
typedef struct
{
  BgLoop *loop;
  GThread *caller;
  int n_run;
  int n_destroyed;
  gboolean destroyed_on_loop;
  GAsyncResult **result; /* (nullable): what must not be there yet at the destroy */
} Work;

static gboolean
run_cb (gpointer user_data, GError **error)
{
  Work *work = user_data;

  g_assert_true (bg_loop_is_current (work->loop));
  g_atomic_int_inc (&work->n_run);
  return TRUE;
}

static gboolean
fail_cb (gpointer user_data, GError **error)
{
  g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "the very words");
  return FALSE;
}

static void
destroy_cb (gpointer user_data)
{
  Work *work = user_data;

  work->destroyed_on_loop = bg_loop_is_current (work->loop);
  g_assert_true (work->result == NULL || *work->result == NULL);
  g_atomic_int_inc (&work->n_destroyed);
}

static void
call_work (Work *work, UtilReply *reply, GCancellable *cancellable)
{
  util_reply_init (reply);
  bg_loop_call_async (work->loop, G_PRIORITY_DEFAULT, -1, run_cb, work, destroy_cb, cancellable,
                      util_reply_cb, reply);
}

static void
test_answer (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GError) error = NULL;
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  g_main_context_push_thread_default (context);
  work.result = &reply.result;
  call_work (&work, &reply, NULL);
  util_reply_wait (&reply);

  g_assert_true (reply.thread == g_thread_self ());
  g_assert_cmpint (work.n_run, ==, 1);
  g_assert_cmpint (work.n_destroyed, ==, 1);
  g_assert_true (work.destroyed_on_loop);
  g_assert_true (bg_loop_call_finish (work.loop, reply.result, &error));
  g_assert_no_error (error);

  g_assert_true (g_async_result_get_user_data (reply.result) == &reply);
  util_reply_clear (&reply);
  g_main_context_pop_thread_default (context);
}

static void
test_error (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_call_async (fixture->loop, G_PRIORITY_LOW, -1, fail_cb, NULL, NULL, NULL, util_reply_cb,
                      &reply);
  util_reply_wait (&reply);

  g_assert_false (bg_loop_call_finish (fixture->loop, reply.result, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
  g_assert_cmpstr (error->message, ==, "the very words");

  util_reply_clear (&reply);
}

static void
test_blocking_error (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (fixture->loop, fail_cb, NULL, NULL, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
  g_assert_cmpstr (error->message, ==, "the very words");
  g_assert_false (bg_loop_call (fixture->loop, fail_cb, NULL, NULL, NULL));
}

/* Refused: destroyed here and at once, answered here and later. */
static void
test_refused (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  call_work (&work, &reply, NULL);
  g_assert_cmpint (work.n_destroyed, ==, 1);
  g_assert_false (work.destroyed_on_loop);
  g_assert_null (reply.result);

  util_reply_wait (&reply);
  g_assert_cmpint (work.n_run, ==, 0);
  g_assert_cmpint (work.n_destroyed, ==, 1);
  g_assert_false (bg_loop_call_finish (fixture->loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_reply_clear (&reply);
}

/* The data goes first also where the destroy notify iterates the context that the reply goes
 * to. */
static void
iterate_and_destroy_cb (gpointer user_data)
{
  while (g_main_context_iteration (g_main_context_get_thread_default (), FALSE))
    ;
  destroy_cb (user_data);
}

static void
test_refused_destroyed_first (BgTestFixture *fixture, gconstpointer data)
{
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  util_loop_shut_down (fixture->loop);
  util_reply_init (&reply);
  work.result = &reply.result;
  bg_loop_call_async (work.loop, G_PRIORITY_DEFAULT, -1, run_cb, &work, iterate_and_destroy_cb,
                      NULL, util_reply_cb, &reply);
  g_assert_cmpint (work.n_destroyed, ==, 1);
  util_reply_wait (&reply);
  util_reply_clear (&reply);
}

/* The cancellable is let go of with the call, refused or not, however long its result is
 * kept. */
static void
test_cancellable_let_go (BgTestFixture *fixture, gconstpointer refused)
{
  GCancellable *cancellable = g_cancellable_new ();
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  if (refused != NULL)
    util_loop_shut_down (fixture->loop);
  call_work (&work, &reply, cancellable);
  util_reply_wait (&reply);
  g_assert_cmpint (work.n_run, ==, refused == NULL);
  g_assert_finalize_object (cancellable);
  util_reply_clear (&reply);
}

static void
test_no_callback (BgTestFixture *fixture, gconstpointer data)
{
  Work work = { .loop = fixture->loop };

  bg_loop_call_async (work.loop, G_PRIORITY_DEFAULT, -1, run_cb, &work, destroy_cb, NULL, NULL,
                      NULL);
  bg_loop_call_async (work.loop, G_PRIORITY_DEFAULT, -1, fail_cb, &work, destroy_cb, NULL, NULL,
                      NULL);
  g_assert_true (bg_loop_flush (work.loop, -1, NULL, NULL));
  g_assert_cmpint (work.n_run, ==, 1);
  g_assert_cmpint (work.n_destroyed, ==, 2);
}

/* Shutdown */

static void
end_under_call (BgShutdownMode mode, Work *work, UtilReply *reply)
{
  UtilBlock block;

  util_block (&block, work->loop);
  call_work (work, reply, NULL);
  bg_loop_quit (work->loop, mode);
  util_unblock (&block);
  util_loop_shut_down (work->loop);
  util_block_clear (&block);

  g_assert_cmpint (work->n_destroyed, ==, 1);
  g_assert_true (work->destroyed_on_loop);
  g_assert_null (reply->result);
  util_reply_wait (reply);
}

static void
test_drained (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  end_under_call (BG_SHUTDOWN_DRAIN, &work, &reply);
  g_assert_cmpint (work.n_run, ==, 1);
  g_assert_true (bg_loop_call_finish (work.loop, reply.result, &error));
  g_assert_no_error (error);
  util_reply_clear (&reply);
}

static void
test_dropped (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Work work = { .loop = fixture->loop };
  UtilReply reply;

  end_under_call (BG_SHUTDOWN_CANCEL, &work, &reply);
  g_assert_cmpint (work.n_run, ==, 0);
  g_assert_false (bg_loop_call_finish (work.loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_reply_clear (&reply);
}

/* From the loop's own thread */

typedef struct
{
  Work work;
  UtilReply reply;
  UtilLatch done;
} OwnThread;

static void
own_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  OwnThread *test = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (test->work.loop));
  g_assert_cmpint (test->work.n_destroyed, ==, 1);
  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, &error));
  g_assert_no_error (error);
  util_latch_count_down (&test->done);
}

static void
call_from_loop_cb (gpointer user_data)
{
  OwnThread *test = user_data;

  bg_loop_call_async (test->work.loop, G_PRIORITY_HIGH, -1, run_cb, &test->work, destroy_cb, NULL,
                      own_reply_cb, test);
  g_assert_cmpint (test->work.n_run, ==, 0);
}

static void
test_own_thread (BgTestFixture *fixture, gconstpointer data)
{
  OwnThread test = { .work = { .loop = fixture->loop } };

  util_latch_init (&test.done, 1);
  g_assert_true (bg_loop_post (test.work.loop, call_from_loop_cb, &test, NULL));
  util_latch_wait (&test.done);
  util_latch_clear (&test.done);
}

/* Replies to a loop's own context, from another loop. */
static void
call_other_loop_cb (gpointer user_data)
{
  OwnThread *test = user_data;

  call_work (&test->work, &test->reply, NULL);
}

static void
test_reply_on_other_loop (void)
{
  BgLoop *caller = util_loop_new ("caller");
  OwnThread test = { .work = { .loop = util_loop_new ("callee") } };

  g_assert_true (bg_loop_post (caller, call_other_loop_cb, &test, NULL));
  g_assert_true (bg_loop_flush (caller, -1, NULL, NULL));
  util_latch_wait (&test.reply.arrived);
  g_assert_true (test.reply.thread != g_thread_self ());
  g_assert_true (bg_loop_call_finish (test.work.loop, test.reply.result, NULL));
  util_reply_clear (&test.reply);
  util_loop_end (caller);
  util_loop_end (test.work.loop);
}

/* A loop that stops: replies to the loop itself are work, while it drains. */

typedef struct
{
  BgLoop *loop;
  UtilLatch begun;
  guint n_wanted;
  guint n_replies;
} Replies;

static void
expect_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Replies *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (bg_loop_call_finish (self->loop, result, &error));
  g_assert_no_error (error);
  self->n_replies++;
}

/* One that takes long, so that there are many batches of them. */
static void
expect_slow_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  gint64 end = g_get_monotonic_time () + 200;

  expect_reply_cb (source, result, user_data);
  while (g_get_monotonic_time () < end)
    ;
}

static void
call_many_cb (gpointer user_data)
{
  Replies *self = user_data;

  for (guint i = 0; i < self->n_wanted; i++)
    bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL,
                        expect_slow_reply_cb, self);
}

static void
call_next_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Replies *self = user_data;

  expect_reply_cb (source, result, self);
  if (self->n_replies < self->n_wanted)
    bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL,
                        call_next_cb, self);
}

static void
call_first_cb (gpointer user_data)
{
  Replies *self = user_data;

  bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL,
                      call_next_cb, self);
}

static void
drain_replies (BgPostFunc func, guint n)
{
  Replies self = { .loop = util_loop_new ("replies"), .n_wanted = n };
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, func, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpuint (self.n_replies, ==, n);
}

static void
test_drain_gives_replies (void)
{
  drain_replies (call_many_cb, 1000);
}

static void
test_drain_goes_on_from_replies (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    drain_replies (call_first_cb, 50);
}

/* It tries again whatever the answer was, and never gives up. */
static void
retry_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Replies *self = user_data;

  if (self->n_replies++ == 0)
    util_latch_count_down (&self->begun);
  bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL, retry_cb,
                      self);
}

static void
try_cb (gpointer user_data)
{
  Replies *self = user_data;

  bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL, retry_cb,
                      self);
}

static void
test_cancel_ends_retrying_replies (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Replies self = { .loop = util_loop_new ("retries") };
      g_autoptr (GError) error = NULL;

      util_latch_init (&self.begun, 1);
      g_assert_true (bg_loop_post (self.loop, try_cb, &self, NULL));
      util_latch_wait (&self.begun);
      if (i % 2 == 0)
        bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      g_assert_true (bg_loop_shutdown_full (self.loop, BG_SHUTDOWN_CANCEL, -1, NULL, &error));
      g_assert_no_error (error);
      g_assert_finalize_object (self.loop);
      util_latch_clear (&self.begun);
    }
}

/* Order */

typedef struct
{
  UtilLatch arrived;
  guint next;
} Sequence;

typedef struct
{
  Sequence *sequence;
  guint n;
} Numbered;

static void
numbered_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Numbered *self = user_data;

  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  g_assert_cmpuint (self->n, ==, self->sequence->next++);
  util_latch_count_down (&self->sequence->arrived);
}

static void
test_replies_in_order (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree Numbered *calls = g_new (Numbered, MANY);
  Sequence sequence = { .next = 0 };

  util_latch_init (&sequence.arrived, MANY);
  for (guint i = 0; i < MANY; i++)
    {
      calls[i] = (Numbered){ &sequence, i };
      bg_loop_call_async (fixture->loop, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL,
                          numbered_cb, &calls[i]);
    }
  util_iterate_until (&sequence.arrived);
  util_latch_clear (&sequence.arrived);
}

static gpointer
caller_thread_cb (gpointer user_data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  BgLoop *loop = user_data;
  guint n = util_scale (200);

  g_main_context_push_thread_default (context);
  for (guint i = 0; i < n; i++)
    {
      Work work = { .loop = loop };
      UtilReply reply;

      work.result = &reply.result;
      call_work (&work, &reply, NULL);
      util_reply_wait (&reply);
      g_assert_true (reply.thread == g_thread_self ());
      g_assert_cmpint (work.n_run, ==, 1);
      g_assert_cmpint (work.n_destroyed, ==, 1);
      util_reply_clear (&reply);
    }
  g_main_context_pop_thread_default (context);
  return NULL;
}

static void
test_many_threads (BgTestFixture *fixture, gconstpointer data)
{
  GThread *threads[8];

  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("caller", caller_thread_cb, fixture->loop);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
}

/* Nobody iterates the caller's context any more */

static gpointer
leave_calls_cb (gpointer user_data)
{
  GMainContext *context = g_main_context_new ();
  Work *work = user_data;

  g_main_context_push_thread_default (context);
  for (guint i = 0; i < HEAP; i++)
    bg_loop_call_async (work->loop, G_PRIORITY_DEFAULT, -1, run_cb, work, destroy_cb, NULL,
                        util_no_reply_cb, NULL);
  g_main_context_pop_thread_default (context);
  g_main_context_unref (context);
  return NULL;
}

static void
test_context_gone_before_reply (BgTestFixture *fixture, gconstpointer data)
{
  Work work = { .loop = fixture->loop };
  UtilBlock block;

  util_block (&block, work.loop);
  g_thread_join (g_thread_new ("caller", leave_calls_cb, &work));
  util_unblock (&block);
  g_assert_true (bg_loop_flush (work.loop, -1, NULL, NULL));
  util_block_clear (&block);

  g_assert_cmpint (work.n_run, ==, HEAP);
  g_assert_cmpint (work.n_destroyed, ==, HEAP);
}

static void
test_context_gone_with_reply (BgTestFixture *fixture, gconstpointer data)
{
  GMainContext *context = g_main_context_new ();
  Work work = { .loop = fixture->loop };

  g_main_context_push_thread_default (context);
  for (guint i = 0; i < HEAP; i++)
    bg_loop_call_async (work.loop, G_PRIORITY_DEFAULT, -1, run_cb, &work, destroy_cb, NULL,
                        util_no_reply_cb, NULL);
  g_main_context_pop_thread_default (context);
  g_assert_true (bg_loop_flush (work.loop, -1, NULL, NULL));
  g_main_context_unref (context);

  g_assert_cmpint (work.n_destroyed, ==, HEAP);
}

/* The context goes while replies are being sent to it. */
static void
test_context_goes_meanwhile (BgTestFixture *fixture, gconstpointer data)
{
  Work work = { .loop = fixture->loop };
  guint n = util_scale (50);

  for (guint i = 0; i < n; i++)
    g_thread_join (g_thread_new ("caller", leave_calls_cb, &work));
  util_loop_shut_down (work.loop);
  g_assert_cmpint (work.n_destroyed, ==, n * HEAP);
}

/* The reply has the last reference to the loop. */
static void
test_last_reference (void)
{
  guint n_threads = util_count_threads (), n_eventfds = util_count_eventfds ();
  Work work = { .loop = util_loop_new ("last") };
  UtilReply reply;

  call_work (&work, &reply, NULL);
  g_object_unref (work.loop);
  util_reply_wait (&reply);
  g_assert_true (bg_loop_call_finish (work.loop, reply.result, NULL));
  g_assert_finalize_object (g_steal_pointer (&reply.result));
  util_reply_clear (&reply);
  util_wait_for_threads (n_threads);
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* What is not so: FALSE without an error, TRUE with one */

static gboolean
true_cb (gpointer user_data, GError **error)
{
  g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "never seen");
  return TRUE;
}

static gboolean
call_inside_cb (gpointer user_data, GError **error)
{
  gpointer *data = user_data;

  return bg_loop_call (data[0], data[1], NULL, NULL, error);
}

static gboolean
call_wrong (guint how, BgLoop *loop, BgCallFunc func, GError **error)
{
  gpointer data[] = { loop, func };
  UtilReply reply;
  gboolean ok;

  switch (how)
    {
    case 0:
      return bg_loop_call (loop, func, NULL, NULL, error);
    case 1:
      return bg_loop_call (loop, call_inside_cb, data, NULL, error);
    default:
      util_reply_init (&reply);
      bg_loop_call_async (loop, 0, -1, func, NULL, NULL, NULL, util_reply_cb, &reply);
      util_reply_wait (&reply);
      ok = bg_loop_call_finish (loop, reply.result, error);
      util_reply_clear (&reply);
      return ok;
    }
}

static void
test_false_without_error (BgTestFixture *fixture, gconstpointer data)
{
  util_catch_criticals ();
  for (guint how = 0; how < 3; how++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_false (call_wrong (how, fixture->loop, util_false_cb, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_FAILED);
      util_take_critical ("*returned FALSE without an error*");
    }
}

static void
test_true_with_error (BgTestFixture *fixture, gconstpointer data)
{
  util_catch_criticals ();
  for (guint how = 0; how < 3; how++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_true (call_wrong (how, fixture->loop, true_cb, &error));
      g_assert_no_error (error);
      util_take_critical ("*returned TRUE with an error*");
    }
}

/* A result of another function, or of another loop, is not taken. */
static void
test_wrong_finish (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *other = util_loop_new ("other");
  Work work = { .loop = util_loop_new ("right") };
  UtilReply reply;

  call_work (&work, &reply, NULL);
  util_reply_wait (&reply);
  g_test_expect_message ("bgloop", G_LOG_LEVEL_CRITICAL, "*bg_loop_call_finish*");
  g_assert_false (bg_loop_call_finish (other, reply.result, &error));
  g_test_expect_message ("bgloop", G_LOG_LEVEL_CRITICAL, "*bg_loop_perform_finish*");
  g_assert_null (bg_loop_perform_finish (work.loop, reply.result, &error));
  g_test_assert_expected_messages ();
  g_assert_no_error (error);
  g_assert_true (bg_loop_call_finish (work.loop, reply.result, &error));
  util_reply_clear (&reply);
  util_loop_end (other);
  util_loop_end (work.loop);
}

/* Results are used again, but not one that somebody still has, be it weakly. */

typedef struct
{
  UtilLatch arrived;
  gboolean weakly;
  GAsyncResult *kept;
  GWeakRef weak;
} Keeper;

static void
keep_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Keeper *self = user_data;

  if (self->weakly)
    g_weak_ref_set (&self->weak, result);
  else
    self->kept = g_object_ref (result);
  util_latch_count_down (&self->arrived);
}

static void
test_result_kept (BgTestFixture *fixture, gconstpointer weakly)
{
  g_autoptr (GError) error = NULL;
  Keeper keeper = { .weakly = weakly != NULL };
  Work work = { .loop = fixture->loop };

  util_latch_init (&keeper.arrived, 1);
  g_weak_ref_init (&keeper.weak, NULL);
  bg_loop_call_async (work.loop, G_PRIORITY_DEFAULT, -1, fail_cb, NULL, NULL, NULL, keep_cb,
                      &keeper);
  util_iterate_until (&keeper.arrived);

  for (guint i = 0; i < 3; i++)
    {
      UtilReply reply;

      call_work (&work, &reply, NULL);
      util_reply_wait (&reply);
      g_assert_true (reply.result != keeper.kept);
      g_assert_null (g_weak_ref_get (&keeper.weak));
      g_assert_true (bg_loop_call_finish (work.loop, reply.result, NULL));
      util_reply_clear (&reply);
    }

  if (keeper.kept != NULL)
    {
      g_assert_true (g_async_result_get_user_data (keeper.kept) == &keeper);
      g_assert_false (bg_loop_call_finish (work.loop, keeper.kept, &error));
      g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR);
    }
  g_clear_object (&keeper.kept);
  g_weak_ref_clear (&keeper.weak);
  util_latch_clear (&keeper.arrived);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/call/error-unchanged", test_blocking_error);
  util_add ("/call/false-without-error", test_false_without_error);
  util_add ("/call/true-with-error", test_true_with_error);
  util_add ("/call-async/destroyed-then-answered-in-callers-context", test_answer);
  util_add ("/call-async/error-unchanged", test_error);
  util_add ("/call-async/refused", test_refused);
  util_add ("/call-async/refused/destroyed-first", test_refused_destroyed_first);
  util_add_data ("/call-async/cancellable-let-go", test_cancellable_let_go, NULL);
  util_add_data ("/call-async/cancellable-let-go/refused", test_cancellable_let_go, "refused");
  util_add ("/call-async/no-callback", test_no_callback);
  util_add ("/call-async/shutdown/drain-runs-it", test_drained);
  util_add ("/call-async/shutdown/cancel-drops-it", test_dropped);
  util_add ("/call-async/from-own-thread", test_own_thread);
  util_add_trapped ("/call-async/own-loop/drain-gives-replies", test_drain_gives_replies);
  util_add_trapped ("/call-async/own-loop/drain-goes-on-from-replies",
                    test_drain_goes_on_from_replies);
  util_add_trapped ("/call-async/own-loop/cancel-ends-retrying-replies",
                    test_cancel_ends_retrying_replies);
  g_test_add_func ("/call-async/from-other-loop", test_reply_on_other_loop);
  util_add ("/call-async/replies-in-order", test_replies_in_order);
  util_add ("/call-async/many-threads", test_many_threads);
  util_add ("/call-async/context-gone/before-reply", test_context_gone_before_reply);
  util_add ("/call-async/context-gone/with-reply", test_context_gone_with_reply);
  util_add ("/call-async/context-gone/meanwhile", test_context_goes_meanwhile);
  g_test_add_func ("/call-async/last-reference-in-reply", test_last_reference);
  g_test_add_func ("/call-async/wrong-finish", test_wrong_finish);
  util_add_data ("/call-async/result-kept", test_result_kept, NULL);
  util_add_data ("/call-async/result-kept-weakly", test_result_kept, &keep_cb);

  return g_test_run ();
}
