/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* A function that runs @n_runs times, and what became of it. */
typedef struct
{
  BgLoop *loop;
  int n_runs;
  int runs;     /* atomic */
  int notified; /* atomic */
  UtilLatch done;
} Work;

static void
work_init (Work *self, BgLoop *loop, int n_runs)
{
  *self = (Work){ .loop = loop, .n_runs = n_runs };
  util_latch_init (&self->done, 1);
}

static void
work_clear (Work *self)
{
  util_latch_clear (&self->done);
}

static gboolean
work_cb (gpointer user_data)
{
  Work *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_cmpint (g_atomic_int_get (&self->notified), ==, 0);
  return g_atomic_int_add (&self->runs, 1) + 1 < self->n_runs;
}

static void
work_notify (gpointer user_data)
{
  Work *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_cmpint (g_atomic_int_add (&self->notified, 1), ==, 0);
  util_latch_count_down (&self->done);
}

static void
invoke_work (Work *self)
{
  g_assert_true (bg_loop_invoke_full (self->loop, G_PRIORITY_DEFAULT, work_cb, self, work_notify));
}

static void
invoke_work_cb (gpointer user_data)
{
  invoke_work (user_data);
}

static gboolean
count_once_cb (gpointer user_data)
{
  util_count_cb (user_data);
  return G_SOURCE_REMOVE;
}

/* Where it runs */

static void
test_elsewhere_is_queued (BgTestFixture *fixture, gconstpointer data)
{
  UtilBlock block;
  Work work;

  work_init (&work, fixture->loop, 1);
  util_block (&block, fixture->loop);
  invoke_work (&work);
  g_assert_cmpint (g_atomic_int_get (&work.runs), ==, 0);
  util_unblock (&block);
  util_latch_wait (&work.done);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (work.runs, ==, 1);
  g_assert_cmpint (work.notified, ==, 1);
  util_block_clear (&block);
  work_clear (&work);
}

static gboolean
own_thread_cb (gpointer user_data, GError **error)
{
  Work *work = user_data;
  int n = 0;

  invoke_work (work);
  g_assert_cmpint (work->runs, ==, 1);
  g_assert_cmpint (work->notified, ==, 1);

  g_assert_true (bg_loop_invoke (work->loop, count_once_cb, &n));
  g_assert_cmpint (n, ==, 1);
  return TRUE;
}

static void
test_own_thread_runs_at_once (BgTestFixture *fixture, gconstpointer data)
{
  Work work;

  work_init (&work, fixture->loop, 1);
  g_assert_true (bg_loop_call (fixture->loop, own_thread_cb, &work, NULL, NULL));
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (work.runs, ==, 1);
  work_clear (&work);
}

static gpointer
own_context_thread (gpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();

  g_main_context_push_thread_default (context);
  invoke_work (data);
  g_main_context_pop_thread_default (context);
  return NULL;
}

/* work_cb() asserts that it runs on the loop. */
static void
test_never_in_the_caller (void)
{
  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("invoke");
      Work work;

      work_init (&work, loop, 1);
      if (i % 2 == 0)
        invoke_work (&work);
      else
        own_context_thread (&work);
      util_loop_end (loop);
      g_assert_cmpint (work.runs, ==, 1);
      g_assert_cmpint (work.notified, ==, 1);
      work_clear (&work);
    }
}

/* g_main_context_invoke() would run it here. */
static void
test_not_even_without_an_owner (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  GMainContext *context = bg_loop_get_context (loop);
  int n = 0;

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_main_context_push_thread_default (context);
  g_assert_true (g_main_context_is_owner (context));
  g_assert_false (
      bg_loop_invoke_full (loop, G_PRIORITY_DEFAULT, util_no_source_cb, &n, util_count_cb));
  g_assert_cmpint (n, ==, 1);
  g_assert_false (bg_loop_invoke (loop, util_no_source_cb, NULL));
  g_main_context_pop_thread_default (context);
}

/* Again and again */

typedef struct
{
  Work work;
  int others;   /* that came between */
  int last_run; /* at which one last came */
} Between;

static void
between_cb (gpointer user_data)
{
  Between *self = user_data;

  g_assert_cmpint (self->work.runs, >, self->last_run);
  self->last_run = self->work.runs;
  self->others++;
}

static gboolean
post_between_cb (gpointer user_data)
{
  Between *self = user_data;
  gboolean again = work_cb (&self->work);

  /* The one before has had its turn. */
  g_assert_cmpint (self->others, ==, self->work.runs - 1);
  g_assert_true (bg_loop_post_full (self->work.loop, G_PRIORITY_HIGH, between_cb, self, NULL));
  return again;
}

static void
post_between (gpointer user_data)
{
  Between *self = user_data;

  g_assert_true (bg_loop_invoke_full (self->work.loop, G_PRIORITY_DEFAULT, post_between_cb, self,
                                      work_notify));
}

static void
test_continue_lets_others_in (BgTestFixture *fixture, gconstpointer data)
{
  gboolean here = GPOINTER_TO_INT (data);
  Between between = { .others = 0 };

  work_init (&between.work, fixture->loop, 100);
  if (here)
    g_assert_true (bg_loop_post (fixture->loop, post_between, &between, NULL));
  else
    post_between (&between);
  util_latch_wait (&between.work.done);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (between.work.runs, ==, 100);
  g_assert_cmpint (between.others, ==, 100);
  work_clear (&between.work);
}

static gboolean
until_open_cb (gpointer user_data)
{
  return !util_latch_is_open (user_data);
}

/* Posts and timers of its own priority have their turn beside it. */
static void
test_continue_does_not_starve (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GSource) timer = g_timeout_source_new (1);
  UtilLatch latch;

  util_latch_init (&latch, 3);
  g_assert_true (bg_loop_invoke (loop, until_open_cb, &latch));
  g_assert_true (bg_loop_post (loop, util_count_down_cb, &latch, NULL));
  g_assert_true (bg_loop_invoke (loop, util_count_down_source_cb, &latch));
  g_source_set_callback (timer, util_count_down_source_cb, &latch, NULL);
  g_source_attach (timer, bg_loop_get_context (loop));
  util_latch_wait (&latch);
  util_loop_shut_down (loop);
  util_latch_clear (&latch);
}

static gboolean
order_cb (gpointer user_data)
{
  GString *order = user_data;

  g_string_append_c (order, (char) g_source_get_priority (g_main_current_source ()));
  return G_SOURCE_REMOVE;
}

static void
test_priority_order (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GString) order = g_string_new (NULL);
  UtilBlock block;
  UtilLatch latch;

  util_latch_init (&latch, 1);
  util_block (&block, loop);
  g_assert_true (bg_loop_invoke_full (loop, 'e', util_count_down_source_cb, &latch, NULL));
  g_assert_true (bg_loop_invoke_full (loop, 'd', order_cb, order, NULL));
  g_assert_true (bg_loop_invoke_full (loop, 'a', order_cb, order, NULL));
  g_assert_true (bg_loop_invoke_full (loop, 'c', order_cb, order, NULL));
  g_assert_true (bg_loop_invoke_full (loop, 'b', order_cb, order, NULL));
  util_unblock (&block);
  util_latch_wait (&latch);
  util_loop_shut_down (loop);
  g_assert_cmpstr (order->str, ==, "abcd");
  util_block_clear (&block);
  util_latch_clear (&latch);
}

/* After a run inline, too, it has a source of its own priority. */

typedef struct
{
  Work work;
  int priority; /* of the source that ran it last */
} Repeated;

static gboolean
note_priority_cb (gpointer user_data)
{
  Repeated *self = user_data;

  self->priority = g_source_get_priority (g_main_current_source ());
  return work_cb (&self->work);
}

static void
invoke_repeated_cb (gpointer user_data)
{
  Repeated *self = user_data;

  g_assert_true (bg_loop_invoke_full (self->work.loop, 42, note_priority_cb, self, work_notify));
  g_assert_cmpint (self->priority, ==, G_PRIORITY_DEFAULT);
}

static void
test_priority_repeated (BgTestFixture *fixture, gconstpointer data)
{
  Repeated self = { .priority = 0 };

  work_init (&self.work, fixture->loop, 2);
  g_assert_true (bg_loop_post (fixture->loop, invoke_repeated_cb, &self, NULL));
  util_latch_wait (&self.work.done);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (self.priority, ==, 42);
  work_clear (&self.work);
}

/* Whoever looks for sources in the context finds that of a function, too. Once it is destroyed
 * the function never runs, and whoever gave it is told. */
static void
test_source_destroyed (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  GMainContext *context = bg_loop_get_context (loop);
  g_autoptr (GSource) probe = g_idle_source_new ();
  GSource *source;
  UtilBlock block;
  Work work;

  util_block (&block, loop);
  work_init (&work, loop, 1);
  g_source_attach (probe, context);
  invoke_work (&work);
  source = g_main_context_find_source_by_id (context, g_source_get_id (probe) + 1);
  g_assert_nonnull (source);
  g_source_destroy (source);
  g_source_destroy (probe);
  util_unblock (&block);
  util_loop_shut_down (loop);
  g_assert_cmpint (work.runs, ==, 0);
  g_assert_cmpint (work.notified, ==, 1);
  work_clear (&work);
  util_block_clear (&block);
}

/* A function that runs at once runs within whatever source the loop's thread is in. If that is one
 * of another context, which the thread iterates, the function may well destroy it: it is no source
 * of the function's. */

typedef struct
{
  Work work;
  GSource *around; /* of another context */
} Within;

static gboolean
destroy_around_cb (gpointer user_data)
{
  Within *self = user_data;

  if (self->work.runs == 0)
    g_source_destroy (self->around);
  return work_cb (&self->work);
}

static void
within_notify (gpointer user_data)
{
  work_notify (&((Within *) user_data)->work);
}

static gboolean
invoke_within_cb (gpointer user_data)
{
  Within *self = user_data;

  g_assert_true (bg_loop_invoke_full (self->work.loop, G_PRIORITY_DEFAULT, destroy_around_cb, self,
                                      within_notify));
  g_assert_cmpint (self->work.runs, ==, 1);
  return G_SOURCE_REMOVE;
}

static void
iterate_other_cb (gpointer user_data)
{
  Within *self = user_data;
  g_autoptr (GMainContext) other = g_main_context_new ();
  g_autoptr (GSource) around = g_idle_source_new ();

  self->around = around;
  g_source_set_callback (around, invoke_within_cb, self, NULL);
  g_source_attach (around, other);
  g_assert_true (g_main_context_iteration (other, FALSE));
}

static void
test_other_source_destroyed (BgTestFixture *fixture, gconstpointer data)
{
  Within self;

  work_init (&self.work, fixture->loop, 3);
  g_assert_true (bg_loop_post (fixture->loop, iterate_other_cb, &self, NULL));
  util_latch_wait (&self.work.done);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (self.work.runs, ==, 3);
  work_clear (&self.work);
}

/* At the end */

static void
test_drain_runs_it_to_its_end (BgTestFixture *fixture, gconstpointer data)
{
  gboolean here = GPOINTER_TO_INT (data);
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Work once, often;

  work_init (&once, loop, 1);
  work_init (&often, loop, 100);
  util_block (&block, loop);
  if (here)
    {
      g_assert_true (bg_loop_post (loop, invoke_work_cb, &once, NULL));
      g_assert_true (bg_loop_post (loop, invoke_work_cb, &often, NULL));
    }
  else
    {
      invoke_work (&once);
      invoke_work (&often);
    }
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_shut_down (loop);
  g_assert_cmpint (once.runs, ==, 1);
  g_assert_cmpint (once.notified, ==, 1);
  g_assert_cmpint (often.runs, ==, 100);
  g_assert_cmpint (often.notified, ==, 1);
  util_block_clear (&block);
  work_clear (&once);
  work_clear (&often);
}

static gboolean
quit_then_again_cb (gpointer user_data)
{
  Work *work = user_data;
  gboolean again = work_cb (work);

  if (work->runs == 3)
    bg_loop_quit (work->loop, BG_SHUTDOWN_DRAIN);
  return again;
}

static void
quit_then_again (gpointer user_data)
{
  Work *work = user_data;

  g_assert_true (
      bg_loop_invoke_full (work->loop, G_PRIORITY_DEFAULT, quit_then_again_cb, work, work_notify));
}

static void
test_drain_from_within (BgTestFixture *fixture, gconstpointer data)
{
  gboolean here = GPOINTER_TO_INT (data);
  Work work;

  work_init (&work, fixture->loop, 10);
  if (here)
    g_assert_true (bg_loop_post (fixture->loop, quit_then_again, &work, NULL));
  else
    quit_then_again (&work);
  util_latch_wait (&work.done);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (work.runs, ==, 10);
  work_clear (&work);
}

static void
test_cancel_never_starts_it (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Work work;

  work_init (&work, loop, 1);
  util_block (&block, loop);
  invoke_work (&work);
  g_assert_true (bg_loop_invoke (loop, util_no_source_cb, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  util_unblock (&block);
  util_loop_shut_down (loop);
  g_assert_cmpint (work.runs, ==, 0);
  g_assert_cmpint (work.notified, ==, 1);
  util_block_clear (&block);
  work_clear (&work);
}

static void
test_cancel_ends_what_repeats (BgTestFixture *fixture, gconstpointer data)
{
  gboolean here = GPOINTER_TO_INT (data);
  BgLoop *loop = fixture->loop;
  Work work;

  work_init (&work, loop, G_MAXINT);
  if (here)
    g_assert_true (bg_loop_post (loop, invoke_work_cb, &work, NULL));
  else
    invoke_work (&work);
  while (g_atomic_int_get (&work.runs) < 3)
    g_thread_yield ();
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpint (work.notified, ==, 1);
  work_clear (&work);
}

static void
test_cancel_overrides_drain (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Work work;

  work_init (&work, loop, G_MAXINT);
  invoke_work (&work);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  while (g_atomic_int_get (&work.runs) < 3)
    g_thread_yield ();
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpint (work.notified, ==, 1);
  work_clear (&work);
}

static void
test_refused_while_stopping (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  int n = 0;

  util_block (&block, loop);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (
      bg_loop_invoke_full (loop, G_PRIORITY_DEFAULT, util_no_source_cb, &n, util_count_cb));
  g_assert_cmpint (n, ==, 1);
  util_unblock (&block);
  util_loop_shut_down (loop);
  g_assert_cmpint (n, ==, 1);
  util_block_clear (&block);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int ran;      /* the loop's thread */
  int admitted; /* atomic */
  int notified; /* atomic */
} Race;

static gboolean
race_cb (gpointer user_data)
{
  Race *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->ran++;
  return G_SOURCE_REMOVE;
}

static void
race_notify (gpointer user_data)
{
  Race *self = user_data;

  g_atomic_int_inc (&self->notified);
}

static gpointer
race_thread (gpointer data)
{
  Race *self = data;

  util_latch_count_down (&self->start);
  for (guint i = 0; i < 100; i++)
    {
      if (bg_loop_invoke_full (self->loop, G_PRIORITY_DEFAULT, race_cb, self, race_notify))
        g_atomic_int_inc (&self->admitted);
    }

  return NULL;
}

static void
test_races_a_shutdown (void)
{
  for (guint round = 0; round < util_scale (200); round++)
    {
      Race race = { .loop = util_loop_new ("invoke") };

      util_race_shutdown (race.loop, &race.start, 4, race_thread, &race, NULL);
      g_assert_cmpint (race.ran, ==, race.admitted);
      g_assert_cmpint (race.notified, ==, 400);
      g_assert_finalize_object (race.loop);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/invoke/elsewhere/is-queued", test_elsewhere_is_queued);
  util_add ("/invoke/own-thread/runs-at-once", test_own_thread_runs_at_once);
  g_test_add_func ("/invoke/caller/never-runs-it", test_never_in_the_caller);
  util_add ("/invoke/caller/not-even-without-an-owner", test_not_even_without_an_owner);
  util_add_data ("/invoke/continue/lets-others-in", test_continue_lets_others_in,
                 GINT_TO_POINTER (FALSE));
  util_add_data ("/invoke/continue/lets-others-in-after-a-run-inline", test_continue_lets_others_in,
                 GINT_TO_POINTER (TRUE));
  util_add ("/invoke/continue/does-not-starve", test_continue_does_not_starve);
  util_add ("/invoke/priority/more-urgent-first", test_priority_order);
  util_add ("/invoke/priority/repeated-after-a-run-inline", test_priority_repeated);
  util_add ("/invoke/source-destroyed", test_source_destroyed);
  util_add ("/invoke/source-destroyed/of-another-context", test_other_source_destroyed);
  util_add_data ("/invoke/drain/runs-it-to-its-end", test_drain_runs_it_to_its_end,
                 GINT_TO_POINTER (FALSE));
  util_add_data ("/invoke/drain/runs-it-to-its-end-from-the-loop", test_drain_runs_it_to_its_end,
                 GINT_TO_POINTER (TRUE));
  util_add_data ("/invoke/drain/from-within", test_drain_from_within, GINT_TO_POINTER (FALSE));
  util_add_data ("/invoke/drain/from-within-a-run-inline", test_drain_from_within,
                 GINT_TO_POINTER (TRUE));
  util_add ("/invoke/cancel/never-starts-it", test_cancel_never_starts_it);
  util_add_data ("/invoke/cancel/ends-what-repeats", test_cancel_ends_what_repeats,
                 GINT_TO_POINTER (FALSE));
  util_add_data ("/invoke/cancel/ends-what-repeats-after-a-run-inline",
                 test_cancel_ends_what_repeats, GINT_TO_POINTER (TRUE));
  util_add ("/invoke/cancel/overrides-drain", test_cancel_overrides_drain);
  util_add ("/invoke/refused/while-stopping", test_refused_while_stopping);
  g_test_add_func ("/invoke/shutdown-race/each-ran-or-was-refused", test_races_a_shutdown);

  return g_test_run ();
}
