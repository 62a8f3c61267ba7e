/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static gboolean
succeed_cb (gpointer user_data, GError **error)
{
  int *n = user_data;

  if (n != NULL)
    (*n)++;
  return TRUE;
}

static gboolean
fail_cb (gpointer user_data, GError **error)
{
  g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOSPC, "No room for %s", (char *) user_data);
  return FALSE;
}

/* The answer */

typedef struct
{
  BgLoop *loop;
  int number;
  int square;
} Square;

static gboolean
square_cb (gpointer user_data, GError **error)
{
  Square *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->square = self->number * self->number;
  return TRUE;
}

static gpointer
square_thread (gpointer data)
{
  BgLoop *loop = data;

  for (int i = 0; i < (int) util_scale (5000); i++)
    {
      Square square = { .loop = loop, .number = i };

      g_assert_true (bg_loop_call (loop, square_cb, &square, NULL, NULL));
      g_assert_cmpint (square.square, ==, i * i);
    }

  return NULL;
}

static void
test_data_on_the_stack (BgTestFixture *fixture, gconstpointer data)
{
  square_thread (fixture->loop);
  util_run_threads (8, square_thread, fixture->loop);
}

static void
test_error_is_unchanged (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (fixture->loop, fail_cb, (gpointer) "more", NULL, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOSPC);
  g_assert_cmpstr (error->message, ==, "No room for more");
  g_assert_false (bg_loop_call (fixture->loop, fail_cb, (gpointer) "nobody", NULL, NULL));
}

static gboolean
true_with_error_cb (gpointer user_data, GError **error)
{
  g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "It is well");
  return TRUE;
}

/* Something else than 0 and 1 is true as well. */
static gboolean
very_true_cb (gpointer user_data, GError **error)
{
  return 42;
}

static gboolean
all_malformed_cb (gpointer user_data, GError **error)
{
  BgLoop *loop = user_data;
  g_autoptr (GError) local = NULL;

  g_assert_false (bg_loop_call (loop, util_false_cb, NULL, NULL, &local));
  g_assert_error (local, G_IO_ERROR, G_IO_ERROR_FAILED);
  g_clear_error (&local);
  util_take_critical ("*FALSE without an error*");

  g_assert_false (bg_loop_call (loop, util_false_cb, NULL, NULL, NULL));
  util_take_critical ("*FALSE without an error*");

  g_assert_true (bg_loop_call (loop, true_with_error_cb, NULL, NULL, &local));
  g_assert_no_error (local);
  util_take_critical ("*TRUE with an error*");

  g_assert_true (bg_loop_call (loop, true_with_error_cb, NULL, NULL, NULL));
  util_take_critical ("*TRUE with an error*");

  g_assert_true (bg_loop_call (loop, very_true_cb, NULL, NULL, &local));
  g_assert_no_error (local);
  return TRUE;
}

static void
test_malformed_answer (void)
{
  BgLoop *loop;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  util_catch_criticals ();
  loop = util_loop_new ("call");
  all_malformed_cb (loop, NULL);
  g_assert_true (bg_loop_call (loop, all_malformed_cb, loop, NULL, NULL));
  util_loop_end (loop);
}

/* On the loop's own thread */

static gboolean
inline_cb (gpointer user_data, GError **error)
{
  BgLoop *loop = user_data;
  g_autoptr (GError) local = NULL;
  int n = 0;

  g_assert_true (bg_loop_call (loop, succeed_cb, &n, NULL, &local));
  g_assert_no_error (local);
  g_assert_cmpint (n, ==, 1);
  g_assert_true (bg_loop_call_full (loop, G_MAXINT, 0, succeed_cb, &n, NULL, &local));
  g_assert_no_error (local);
  g_assert_cmpint (n, ==, 2);
  g_assert_false (bg_loop_call (loop, fail_cb, (gpointer) "more", NULL, &local));
  g_assert_error (local, G_FILE_ERROR, G_FILE_ERROR_NOSPC);
  return TRUE;
}

static void
test_own_thread_runs_inline (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_true (bg_loop_call (fixture->loop, inline_cb, fixture->loop, NULL, NULL));
}

typedef struct
{
  BgLoop *loop;
  int n;
} Late;

static void
late_cb (gpointer user_data)
{
  Late *self = user_data;

  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPING);
  g_assert_true (inline_cb (self->loop, NULL));
  self->n++;
}

static void
test_own_thread_in_every_state (BgTestFixture *fixture, gconstpointer data)
{
  BgShutdownMode mode = GPOINTER_TO_UINT (data);
  Late late = { .loop = fixture->loop };
  UtilBlock block;

  util_block (&block, late.loop);
  /* It runs in DRAIN mode, its destroy in both. */
  g_assert_true (bg_loop_post (late.loop, mode == BG_SHUTDOWN_DRAIN ? late_cb : util_nothing_cb,
                               &late, late_cb));
  g_assert_cmpuint (bg_loop_add_teardown (late.loop, late_cb, &late, late_cb), !=, 0);
  bg_loop_quit (late.loop, mode);
  util_unblock (&block);
  util_loop_shut_down (late.loop);
  g_assert_cmpint (late.n, ==, mode == BG_SHUTDOWN_DRAIN ? 4 : 3);
  util_block_clear (&block);
}

/* Closed */

static void
test_closed_after_shutdown (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_false (bg_loop_call (loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_false (
      bg_loop_call_full (loop, G_PRIORITY_HIGH, 0, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_false (bg_loop_call (loop, util_no_call_cb, NULL, NULL, NULL));
}

static void
test_closed_while_stopping (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;
  UtilBlock block;

  util_block (&block, loop);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (bg_loop_call (loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  util_unblock (&block);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int ran;       /* the loop's thread */
  int succeeded; /* atomic */
} Race;

static gboolean
race_cb (gpointer user_data, GError **error)
{
  Race *self = user_data;

  self->ran++;
  return TRUE;
}

static gpointer
race_thread (gpointer data)
{
  Race *self = data;
  g_autoptr (GError) error = NULL;

  util_latch_count_down (&self->start);
  while (bg_loop_call (self->loop, race_cb, self, NULL, &error))
    g_atomic_int_inc (&self->succeeded);

  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

static void
test_shutdown_race (void)
{
  for (guint round = 0; round < util_scale (500); round++)
    {
      Race race = { .loop = util_loop_new ("call") };

      util_race_shutdown (race.loop, &race.start, 8, race_thread, &race, NULL);
      g_assert_cmpint (race.ran, ==, race.succeeded);
      g_assert_finalize_object (race.loop);
    }
}

/* Cancelled and timed out */

typedef struct
{
  BgLoop *loop;
  GCancellable *cancellable;
  int timeout_msec;
  int code;
} Before;

static gpointer
before_thread (gpointer data)
{
  Before *self = data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call_full (self->loop, G_PRIORITY_DEFAULT, self->timeout_msec,
                                     util_no_call_cb, NULL, self->cancellable, &error));
  g_assert_error (error, G_IO_ERROR, self->code);
  return NULL;
}

static void
test_cancelled_before_it_starts (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Before before = { loop, cancellable, -1, G_IO_ERROR_CANCELLED };
  GThread *thread;
  UtilBlock block;

  util_block (&block, loop);
  thread = g_thread_new ("caller", before_thread, &before);
  util_wait_for_queued (loop, 1);
  g_cancellable_cancel (cancellable);
  g_thread_join (thread);

  /* Nor one that is cancelled already. */
  before_thread (&before);
  util_unblock (&block);
  before_thread (&before);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

static void
test_timed_out_before_it_starts (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Before at_once = { loop, NULL, 0, G_IO_ERROR_TIMED_OUT };
  Before soon = { loop, NULL, 3, G_IO_ERROR_TIMED_OUT };
  UtilBlock block;

  util_block (&block, loop);
  before_thread (&at_once);
  before_thread (&soon);
  util_unblock (&block);
  util_loop_shut_down (loop);
  util_block_clear (&block);
}

/* Nor one that the loop comes to before its thread is told: who cancels it lets the loop
 * have it first. */

typedef struct
{
  Before before;
  UtilBlock block;
} Untold;

static void
let_loop_have_it_cb (GCancellable *cancellable, gpointer user_data)
{
  Untold *self = user_data;

  util_unblock (&self->block);
  g_assert_true (bg_loop_flush (self->before.loop, -1, NULL, NULL));
}

static void
test_cancelled_before_it_is_told (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Untold self = { .before = { fixture->loop, cancellable, -1, G_IO_ERROR_CANCELLED } };
  gulong handler
      = g_signal_connect (cancellable, "cancelled", G_CALLBACK (let_loop_have_it_cb), &self);
  GThread *thread;

  util_block (&self.block, fixture->loop);
  thread = g_thread_new ("caller", before_thread, &self.before);
  util_wait_for_queued (fixture->loop, 1);
  g_cancellable_cancel (cancellable);
  g_thread_join (thread);
  g_signal_handler_disconnect (cancellable, handler);
  util_block_clear (&self.block);
}

/* Nor does one on the loop's own thread. */
static gboolean
call_cancelled_cb (gpointer user_data, GError **error)
{
  Before *self = user_data;

  before_thread (self);
  return TRUE;
}

static void
test_cancelled_before_on_own_thread (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Before before = { fixture->loop, cancellable, -1, G_IO_ERROR_CANCELLED };

  g_cancellable_cancel (cancellable);
  g_assert_true (bg_loop_call (fixture->loop, call_cancelled_cb, &before, NULL, NULL));
}

static gboolean
cancel_and_fail_cb (gpointer user_data, GError **error)
{
  g_cancellable_cancel (user_data);
  return fail_cb ((gpointer) "more", error);
}

static void
test_cancelled_while_it_runs (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GCancellable) other = g_cancellable_new ();
      g_autoptr (GError) error = NULL;

      g_assert_true (
          bg_loop_call (fixture->loop, util_cancel_call_cb, cancellable, cancellable, &error));
      g_assert_no_error (error);
      g_assert_false (bg_loop_call (fixture->loop, cancel_and_fail_cb, other, other, &error));
      g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_NOSPC);
    }
}

typedef struct
{
  gint64 until;
  gboolean done;
} Long;

/* The deadline passes while it runs. */
static gboolean
long_cb (gpointer user_data, GError **error)
{
  Long *self = user_data;

  while (g_get_monotonic_time () < self->until)
    g_thread_yield ();
  self->done = TRUE;
  return TRUE;
}

static void
test_timed_out_while_it_runs (BgTestFixture *fixture, gconstpointer data)
{
  guint n_done = 0;

  /* On a busy machine it may not start in time. */
  while (n_done == 0)
    {
      g_autoptr (GError) error = NULL;
      Long work = { .until = g_get_monotonic_time () + 60 * G_TIME_SPAN_MILLISECOND };

      if (bg_loop_call_full (fixture->loop, G_PRIORITY_DEFAULT, 50, long_cb, &work, NULL, &error))
        n_done++;
      else
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_assert_cmpint (work.done, ==, error == NULL);
    }
}

typedef struct
{
  BgLoop *loop;
  GCancellable *cancellable;
  int ran; /* the loop's thread */
} Cancel;

static gboolean
cancel_race_cb (gpointer user_data, GError **error)
{
  Cancel *self = user_data;

  self->ran++;
  return TRUE;
}

static gpointer
cancel_thread (gpointer data)
{
  Cancel *self = data;

  g_cancellable_cancel (self->cancellable);
  return NULL;
}

/* Either it was cancelled and did not run, or it ran and says so. */
static void
test_cancelled_at_any_moment (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < util_scale (2000); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      g_autoptr (GError) error = NULL;
      Cancel cancel = { .loop = fixture->loop, .cancellable = cancellable };
      GThread *thread = g_thread_new ("cancel", cancel_thread, &cancel);
      gboolean ok = bg_loop_call (fixture->loop, cancel_race_cb, &cancel, cancellable, &error);

      if (!ok)
        g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_thread_join (thread);
      g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
      g_assert_cmpint (cancel.ran, ==, ok);
    }
}

/* Loops that call each other */

typedef struct
{
  BgLoop *loops[3];
  guint n;
  guint depth;
  gboolean refused;
} Circle;

static gboolean
circle_cb (gpointer user_data, GError **error)
{
  Circle *self = user_data;
  g_autoptr (GError) local = NULL;

  self->depth++;
  if (!bg_loop_call (self->loops[self->depth % self->n], circle_cb, self, NULL, &local))
    {
      g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      self->refused = TRUE;
    }
  return TRUE;
}

static void
test_circle_would_deadlock (gconstpointer data)
{
  Circle circle = { .n = GPOINTER_TO_UINT (data) };

  for (guint i = 0; i < circle.n; i++)
    circle.loops[i] = util_loop_new ("circle");

  g_assert_true (bg_loop_call (circle.loops[0], circle_cb, &circle, NULL, NULL));
  g_assert_true (circle.refused);
  g_assert_cmpuint (circle.depth, ==, circle.n);

  for (guint i = 0; i < circle.n; i++)
    util_loop_end (circle.loops[i]);
}

static gboolean
chain_cb (gpointer user_data, GError **error)
{
  Circle *self = user_data;

  if (++self->depth == self->n)
    return TRUE;
  return bg_loop_call (self->loops[self->depth], chain_cb, self, NULL, error);
}

static void
test_chain_is_no_circle (void)
{
  Circle chain = { .n = 3 };

  for (guint i = 0; i < chain.n; i++)
    chain.loops[i] = util_loop_new ("chain");
  for (guint i = 0; i < util_scale (2000); i++)
    {
      g_autoptr (GError) error = NULL;

      chain.depth = 0;
      bg_loop_call (chain.loops[0], chain_cb, &chain, NULL, &error);
      g_assert_no_error (error);
      g_assert_cmpuint (chain.depth, ==, chain.n);
    }
  for (guint i = 0; i < chain.n; i++)
    util_loop_end (chain.loops[i]);
}

/* A call that has timed out does not run, though the loop may come to it before its thread has
 * woken up; and one whose function is to start at once, on another thread, always has. */
static void
test_timed_out_does_not_run (BgTestFixture *fixture, gconstpointer data)
{
  int n_run = 0;

  for (guint i = 0; i < util_scale (5000); i++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_false (bg_loop_call_full (fixture->loop, G_PRIORITY_DEFAULT, 0, util_count_call_cb,
                                         &n_run, NULL, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
    }
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));
  g_assert_cmpint (n_run, ==, 0);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/call/data/on-the-stack", test_data_on_the_stack);
  util_add ("/call/error/is-unchanged", test_error_is_unchanged);
  g_test_add_func ("/call/error/malformed-answer", test_malformed_answer);
  util_add ("/call/own-thread/runs-inline", test_own_thread_runs_inline);
  util_add_data ("/call/own-thread/in-a-drain", test_own_thread_in_every_state,
                 GUINT_TO_POINTER (BG_SHUTDOWN_DRAIN));
  util_add_data ("/call/own-thread/in-a-cancel", test_own_thread_in_every_state,
                 GUINT_TO_POINTER (BG_SHUTDOWN_CANCEL));
  util_add ("/call/closed/after-shutdown", test_closed_after_shutdown);
  util_add ("/call/closed/while-stopping", test_closed_while_stopping);
  g_test_add_func ("/call/shutdown-race/each-ran-or-was-refused", test_shutdown_race);
  util_add ("/call/cancelled/before-it-starts", test_cancelled_before_it_starts);
  util_add ("/call/cancelled/before-it-is-told", test_cancelled_before_it_is_told);
  util_add ("/call/cancelled/before-on-own-thread", test_cancelled_before_on_own_thread);
  util_add ("/call/cancelled/while-it-runs", test_cancelled_while_it_runs);
  util_add ("/call/cancelled/at-any-moment", test_cancelled_at_any_moment);
  util_add ("/call/timed-out/before-it-starts", test_timed_out_before_it_starts);
  util_add ("/call/timed-out/while-it-runs", test_timed_out_while_it_runs);
  util_add ("/call/timed-out/does-not-run", test_timed_out_does_not_run);
  g_test_add_data_func ("/call/circle/of-two-would-deadlock", GUINT_TO_POINTER (2),
                        test_circle_would_deadlock);
  g_test_add_data_func ("/call/circle/of-three-would-deadlock", GUINT_TO_POINTER (3),
                        test_circle_would_deadlock);
  g_test_add_func ("/call/circle/a-chain-is-none", test_chain_is_no_circle);

  return g_test_run ();
}
