/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

#define MAX_LOOPS 8

/* How a loop waits for the next. */
typedef enum
{
  CALL,
  PERFORM, /* the next one's turn comes within begin() */
  PENDING, /* it comes while the operation has not answered */
  FLUSH,
  SHUTDOWN,
  N_KINDS,
} Kind;

/* Loop 0 waits for loop 1 and so on, and the last one would wait for loop 0. */
typedef struct
{
  guint n;
  BgLoop *loops[MAX_LOOPS];
  Kind kinds[MAX_LOOPS];
  guint at; /* whose turn comes next */
  GTask *operations[MAX_LOOPS];
  GError *errors[MAX_LOOPS];
} Circle;

static void step (Circle *self);

static gboolean
step_call_cb (gpointer user_data, GError **error)
{
  step (user_data);
  return TRUE;
}

static void
step_post_cb (gpointer user_data)
{
  Circle *self = user_data;
  guint here = self->at;
  GTask **operation = &self->operations[here];

  step (self);
  if (*operation != NULL)
    g_task_return_boolean (*operation, TRUE);
  g_clear_object (operation);
}

static gboolean
step_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  step (user_data);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static gboolean
pending_begin_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  Circle *self = user_data;

  self->operations[self->at] = g_task_new (NULL, NULL, callback, callback_data);
  g_assert_true (bg_loop_post (self->loops[self->at], step_post_cb, self, NULL));
  return TRUE;
}

/* For a wait that runs nothing there: the next one's turn comes by a post, and
 * begins once it is waited for. */
static void
step_waited_for_cb (gpointer user_data)
{
  Circle *self = user_data;
  BgLoop *loop = self->loops[self->at];

  if (self->kinds[self->at - 1] == FLUSH)
    util_wait_for_queued (loop, 1);
  else
    while (bg_loop_get_state (loop) == BG_LOOP_RUNNING)
      g_thread_yield ();
  step (self);
}

static gboolean
wait_for (BgLoop *loop, Kind kind, Circle *self, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;

  switch (kind)
    {
    case CALL:
      return bg_loop_call (loop, step_call_cb, self, NULL, error);
    case PERFORM:
      answer = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, step_begin_cb, self, NULL, error);
      return answer != NULL;
    case PENDING:
      answer = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, pending_begin_cb, self, NULL, error);
      return answer != NULL;
    case FLUSH:
      return bg_loop_flush (loop, -1, NULL, error);
    default:
      return bg_loop_shutdown (loop, error);
    }
}

/* On the thread of the loop whose turn it is: waits for the next. */
static void
step (Circle *self)
{
  guint here = self->at++;
  Kind kind = self->kinds[here];
  BgLoop *next = self->loops[(here + 1) % self->n];
  gboolean ok;

  g_assert_true (bg_loop_is_current (self->loops[here]));
  if (here + 1 < self->n && (kind == FLUSH || kind == SHUTDOWN))
    g_assert_true (bg_loop_post (next, step_waited_for_cb, self, NULL));
  ok = wait_for (next, kind, self, &self->errors[here]);
  g_assert_true (ok == (self->errors[here] == NULL));
}

static void
assert_refused (Circle *self)
{
  for (guint i = 0; i + 1 < self->n; i++)
    g_assert_no_error (self->errors[i]);
  g_assert_error (self->errors[self->n - 1], BG_ERROR, BG_ERROR_WOULD_DEADLOCK);

  for (guint i = 0; i < self->n; i++)
    {
      const char *message = self->errors[self->n - 1]->message;
      g_autofree char *name = g_strdup_printf ("\"loop %u\"", i);

      g_assert_nonnull (strstr (message, name));
    }
}

/* Each loop waits, the last is refused, and everything goes on. */
static void
run_circle (guint n, const Kind *kinds)
{
  Circle *self = g_new0 (Circle, 1);

  self->n = n;
  for (guint i = 0; i < n; i++)
    {
      g_autofree char *name = g_strdup_printf ("loop %u", i);

      self->loops[i] = util_loop_new (name);
      self->kinds[i] = kinds[i];
    }

  g_assert_true (bg_loop_post (self->loops[0], step_post_cb, self, NULL));
  g_assert_true (bg_loop_flush (self->loops[0], -1, NULL, NULL));
  g_assert_cmpint (bg_loop_get_state (self->loops[0]), ==, BG_LOOP_RUNNING);
  g_assert_cmpuint (self->at, ==, n);
  assert_refused (self);

  for (guint i = 0; i < n; i++)
    {
      util_loop_end (self->loops[i]);
      g_clear_error (&self->errors[i]);
    }
  g_free (self);
}

static void
test_own_thread (void)
{
  for (Kind kind = PERFORM; kind < N_KINDS; kind++)
    run_circle (1, &kind);
}

static void
test_two (void)
{
  for (guint i = 0; i < N_KINDS * N_KINDS; i++)
    {
      Kind kinds[] = { i % N_KINDS, i / N_KINDS };

      run_circle (2, kinds);
    }
}

static void
test_three (void)
{
  for (guint i = 0; i < N_KINDS * N_KINDS * N_KINDS; i++)
    {
      Kind kinds[] = { i % N_KINDS, i / N_KINDS % N_KINDS, i / N_KINDS / N_KINDS };

      run_circle (3, kinds);
    }
}

static void
test_eight (void)
{
  guint n = util_scale (50);

  for (guint i = 0; i < n; i++)
    {
      Kind kinds[MAX_LOOPS];

      for (guint j = 0; j < MAX_LOOPS; j++)
        kinds[j] = g_test_rand_int_range (0, N_KINDS);
      run_circle (MAX_LOOPS, kinds);
    }
}

/* A wait that is over counts no more, though its thread may still sleep */

typedef enum
{
  TIMED_OUT,
  CLOSED,
  CANCELLED,
  CANCELLED_PENDING, /* an operation that has begun */
  N_ENDS,
} End;

typedef struct
{
  BgLoop *caller;
  BgLoop *other;
  End end;
  GCancellable *cancellable;
  GTask *operation;
  UtilLatch caller_done;
  UtilLatch other_done;
} Over;

static void
end_wait (Over *self)
{
  /* One that timed out may have come and gone. */
  if (self->end == CLOSED || self->end == CANCELLED)
    util_wait_for_queued (self->other, 1);

  if (self->end == TIMED_OUT)
    util_latch_wait (&self->caller_done);
  else if (self->end == CLOSED)
    bg_loop_quit (self->other, BG_SHUTDOWN_CANCEL);
  else
    g_cancellable_cancel (self->cancellable);
}

static void
call_back_cb (gpointer user_data)
{
  Over *self = user_data;
  g_autoptr (GError) error = NULL;

  end_wait (self);
  g_assert_true (bg_loop_call (self->caller, util_true_cb, NULL, NULL, &error));
  g_assert_no_error (error);
  if (self->operation != NULL)
    g_task_return_boolean (self->operation, TRUE);
  g_clear_object (&self->operation);
  util_latch_count_down (&self->other_done);
}

static gboolean
over_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  Over *self = user_data;

  self->operation = g_task_new (NULL, NULL, callback, callback_data);
  g_assert_true (bg_loop_post (self->other, call_back_cb, self, NULL));
  return TRUE;
}

static void
wait_in_vain_cb (gpointer user_data)
{
  Over *self = user_data;
  g_autoptr (GError) error = NULL;
  int timeout_msec = self->end == TIMED_OUT ? 1 : -1;

  if (self->end == CANCELLED_PENDING)
    g_assert_null (bg_loop_perform (self->other, G_PRIORITY_DEFAULT, -1, over_begin_cb, self,
                                    self->cancellable, &error));
  else
    g_assert_false (bg_loop_call_full (self->other, 0, timeout_msec, util_true_cb, NULL,
                                       self->cancellable, &error));

  if (self->end == TIMED_OUT)
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  else if (self->end == CLOSED)
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  else
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_latch_count_down (&self->caller_done);
}

static void
over (End end)
{
  Over self = { util_loop_new ("caller"), util_loop_new ("other"), end, g_cancellable_new () };

  util_latch_init (&self.caller_done, 1);
  util_latch_init (&self.other_done, 1);
  if (end != CANCELLED_PENDING)
    g_assert_true (bg_loop_post (self.other, call_back_cb, &self, NULL));
  g_assert_true (bg_loop_post (self.caller, wait_in_vain_cb, &self, NULL));
  util_latch_wait (&self.other_done);
  util_latch_wait (&self.caller_done);
  util_loop_end (self.other);
  util_loop_end (self.caller);
  util_latch_clear (&self.caller_done);
  util_latch_clear (&self.other_done);
  g_object_unref (self.cancellable);
}

static void
test_over (void)
{
  guint n = util_scale (200);

  for (guint i = 0; i < n; i++)
    over (i % N_ENDS);
}

/* But a function that has started is waited for, whatever it cancels. */

static gboolean
cancel_and_call_back_cb (gpointer user_data, GError **error)
{
  Over *self = user_data;

  g_cancellable_cancel (self->cancellable);
  return bg_loop_call (self->caller, util_true_cb, NULL, NULL, error);
}

static gboolean
cancel_begin_cb (gpointer user_data,
                 GCancellable *cancellable,
                 GAsyncReadyCallback callback,
                 gpointer callback_data,
                 GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);
  g_autoptr (GError) local = NULL;

  g_assert_false (cancel_and_call_back_cb (user_data, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static void
wait_for_started_cb (gpointer user_data)
{
  Over *self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GAsyncResult) answer = NULL;

  g_assert_false (
      bg_loop_call (self->other, cancel_and_call_back_cb, self, self->cancellable, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_cancellable_reset (self->cancellable);
  g_clear_error (&error);
  answer = bg_loop_perform (self->other, G_PRIORITY_DEFAULT, -1, cancel_begin_cb, self,
                            self->cancellable, &error);
  g_assert_true (answer != NULL || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
}

static void
test_cancelled_started (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Over self = { util_loop_new ("caller"), util_loop_new ("other"), CANCELLED, cancellable };

  g_assert_true (bg_loop_post (self.caller, wait_for_started_cb, &self, NULL));
  g_assert_true (bg_loop_flush (self.caller, -1, NULL, NULL));
  util_loop_end (self.other);
  util_loop_end (self.caller);
}

/* Two loops call each other whenever they like: some calls are refused, none
 * hangs, and never both of two that meet. */

typedef struct
{
  BgLoop *loops[2];
  UtilLatch done;
} Mutual;

typedef struct
{
  Mutual *mutual;
  guint here;
  guint left;
} Side;

static void
call_other_cb (gpointer user_data)
{
  Side *side = user_data;
  Mutual *self = side->mutual;
  g_autoptr (GError) error = NULL;

  if (!bg_loop_call (self->loops[!side->here], util_true_cb, NULL, NULL, &error))
    g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  if (--side->left > 0)
    g_assert_true (bg_loop_post (self->loops[side->here], call_other_cb, side, NULL));
  else
    util_latch_count_down (&self->done);
}

static void
test_mutual (void)
{
  Mutual self = { .loops = { util_loop_new ("loop 0"), util_loop_new ("loop 1") } };
  guint n = util_scale (2000);
  Side sides[2];

  util_latch_init (&self.done, 2);
  for (guint i = 0; i < 2; i++)
    {
      sides[i] = (Side){ &self, i, n };
      g_assert_true (bg_loop_post (self.loops[i], call_other_cb, &sides[i], NULL));
    }
  util_latch_wait (&self.done);
  util_loop_end (self.loops[0]);
  util_loop_end (self.loops[1]);
  util_latch_clear (&self.done);
}

/* One wait within the other: a handler of a cancellable that the waiting thread cancels
 * waits in turn. Both count while both go on, and the outer one after the inner one. */

typedef enum
{
  OUTER_SHUTDOWN,  /* in CANCEL mode: the thread runs handlers of the other loop's cancellable */
  OUTER_CANCELLED, /* an operation is given up while it begins: those of the operation's */
  OUTER_TIMED_OUT,
  N_OUTER,
} Outer;

typedef enum
{
  INNER_CALL,
  INNER_PERFORM,
  INNER_FLUSH,
  INNER_SHUTDOWN,  /* with a third wait within */
  INNER_ITERATION, /* what runs in a nested iteration waits */
  N_INNER,
} Inner;

typedef enum
{
  BACK_CALL,
  BACK_PERFORM,
  BACK_FLUSH,
  BACK_SHUTDOWN,
  BACK_CANCEL, /* a shutdown in CANCEL mode */
  BACK_WAIT,
  BACK_AROUND, /* by another loop */
  N_BACK,
} Back;

typedef struct
{
  Outer outer;
  Inner inner;
  Back back;
  BgLoop *loop;   /* it waits */
  BgLoop *other;  /* for this, */
  BgLoop *third;  /* within that for this, */
  BgLoop *fourth; /* and within that, perhaps, for this */
  GCancellable *cancellable;
  UtilLatch entered;  /* the other one's work runs */
  UtilLatch handled;  /* the inner wait is over */
  UtilLatch iterated; /* what was to run in the nested iteration has */
  UtilLatch third_tried;
} Nested;

static gboolean
call_loop_cb (gpointer user_data, GError **error)
{
  return bg_loop_call (((Nested *) user_data)->loop, util_true_cb, NULL, NULL, error);
}

static void
assert_back_refused (Nested *self, Back back)
{
  g_autoptr (GError) error = NULL;

  switch (back)
    {
    case BACK_CALL:
      g_assert_false (call_loop_cb (self, &error));
      break;
    case BACK_PERFORM:
      g_assert_null (bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL,
                                      NULL, &error));
      break;
    case BACK_FLUSH:
      g_assert_false (bg_loop_flush (self->loop, -1, NULL, &error));
      break;
    case BACK_SHUTDOWN:
      g_assert_false (bg_loop_shutdown (self->loop, &error));
      break;
    case BACK_CANCEL:
      g_assert_false (bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_CANCEL, -1, NULL, &error));
      break;
    case BACK_WAIT:
      g_assert_false (bg_loop_wait (self->loop, -1, NULL, &error));
      break;
    default:
      g_assert_false (bg_loop_call (self->fourth, call_loop_cb, self, NULL, &error));
    }

  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_RUNNING);
}

/* The inner wait, which goes on now, counts. */
static gboolean
inner_call_cb (gpointer user_data, GError **error)
{
  assert_back_refused (user_data, BACK_CALL);
  assert_back_refused (user_data, BACK_AROUND);
  return TRUE;
}

static gboolean
inner_begin_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  g_task_return_boolean (task, TRUE);
  return inner_call_cb (user_data, error);
}

static void
innermost_cb (GCancellable *cancellable, gpointer user_data)
{
  Nested *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (bg_loop_call (self->fourth, inner_call_cb, self, NULL, NULL));
}

static void
iterated_cb (gpointer user_data)
{
  Nested *self = user_data;

  g_assert_true (bg_loop_call (self->third, inner_call_cb, self, NULL, NULL));
  util_latch_count_down (&self->iterated);
}

static void
wait_within (Nested *self, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;
  GCancellable *cancellable;
  gulong id;

  switch (self->inner)
    {
    case INNER_CALL:
      g_assert_true (bg_loop_call (self->third, inner_call_cb, self, NULL, error));
      break;
    case INNER_PERFORM:
      answer = bg_loop_perform (self->third, G_PRIORITY_DEFAULT, -1, inner_begin_cb, self, NULL,
                                error);
      break;
    case INNER_FLUSH:
      g_assert_true (bg_loop_flush (self->third, -1, NULL, error));
      break;
    case INNER_SHUTDOWN:
      cancellable = bg_loop_get_cancellable (self->third);
      id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (innermost_cb), self);
      g_assert_true (bg_loop_shutdown_full (self->third, BG_SHUTDOWN_CANCEL, -1, NULL, error));
      g_signal_handler_disconnect (cancellable, id);
      break;
    default:
      g_assert_true (bg_loop_post (self->loop, iterated_cb, self, NULL));
      while (!util_latch_is_open (&self->iterated))
        g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
    }
}

static void
wait_within_cb (GCancellable *cancellable, gpointer user_data)
{
  Nested *self = user_data;
  g_autoptr (GError) error = NULL;

  if (bg_loop_is_current (self->other))
    return;

  g_assert_true (bg_loop_is_current (self->loop));
  wait_within (self, &error);
  g_assert_no_error (error);
  util_latch_count_down (&self->handled);
}

/* What the loop waits for no longer may wait for it: this only takes too long. */
static void
third_waits_cb (gpointer user_data)
{
  Nested *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_flush (self->loop, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  util_latch_count_down (&self->third_tried);
}

static void
go_back (Nested *self)
{
  util_latch_wait (&self->handled);
  assert_back_refused (self, self->back);
  if (bg_loop_post (self->third, third_waits_cb, self, NULL))
    util_latch_wait (&self->third_tried);
}

static void
outer_post_cb (gpointer user_data)
{
  Nested *self = user_data;

  util_latch_count_down (&self->entered);
  go_back (self);
}

static gboolean
outer_begin_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  Nested *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);
  gulong id = g_cancellable_connect (cancellable, G_CALLBACK (wait_within_cb), self, NULL);

  /* It has timed out already. */
  if (id == 0)
    {
      g_task_return_boolean (task, TRUE);
      return TRUE;
    }

  util_latch_count_down (&self->entered);
  if (self->outer == OUTER_CANCELLED)
    g_cancellable_cancel (self->cancellable);
  go_back (self);
  g_signal_handler_disconnect (cancellable, id);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static void
wait_around_cb (gpointer user_data)
{
  Nested *self = user_data;
  GCancellable *cancellable = bg_loop_get_cancellable (self->other);
  g_autoptr (GError) error = NULL;
  gulong id;

  if (self->outer == OUTER_SHUTDOWN)
    {
      id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (wait_within_cb), self);
      g_assert_true (bg_loop_post (self->other, outer_post_cb, self, NULL));
      util_latch_wait (&self->entered);
      g_assert_true (bg_loop_shutdown_full (self->other, BG_SHUTDOWN_CANCEL, -1, NULL, &error));
      g_signal_handler_disconnect (cancellable, id);
      return;
    }

  for (int timeout_msec = 1; !util_latch_is_open (&self->entered); timeout_msec *= 2)
    {
      g_clear_error (&error);
      g_assert_null (bg_loop_perform (self->other, G_PRIORITY_DEFAULT,
                                      self->outer == OUTER_TIMED_OUT ? timeout_msec : -1,
                                      outer_begin_cb, self, self->cancellable, &error));
    }
  if (self->outer == OUTER_TIMED_OUT)
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  else
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

static void
run_nested (Outer outer, Inner inner, Back back)
{
  Nested self = { outer, inner, back };
  g_autoptr (GError) error = NULL;

  self.loop = util_loop_new ("loop");
  self.other = util_loop_new ("other");
  self.third = util_loop_new ("third");
  self.fourth = util_loop_new ("fourth");
  self.cancellable = g_cancellable_new ();
  util_latch_init (&self.entered, 1);
  util_latch_init (&self.handled, 1);
  util_latch_init (&self.iterated, 1);
  util_latch_init (&self.third_tried, 1);
  g_assert_true (bg_loop_post (self.loop, wait_around_cb, &self, NULL));
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  g_assert_true (util_latch_is_open (&self.handled));

  /* And then nothing is waited for any more. */
  g_assert_true (bg_loop_call (self.fourth, call_loop_cb, &self, NULL, &error));
  g_assert_no_error (error);

  util_loop_end (self.other);
  util_loop_end (self.third);
  util_loop_end (self.fourth);
  util_loop_end (self.loop);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.handled);
  util_latch_clear (&self.iterated);
  util_latch_clear (&self.third_tried);
  g_object_unref (self.cancellable);
}

static void
test_nested (gconstpointer data)
{
  for (Inner inner = 0; inner < N_INNER; inner++)
    {
      for (Back back = 0; back < N_BACK; back++)
        run_nested (GPOINTER_TO_UINT (data), inner, back);
    }
}

static void
test_nested_shutdown (void)
{
  test_nested (GUINT_TO_POINTER (OUTER_SHUTDOWN));
}

static void
test_nested_cancelled (void)
{
  test_nested (GUINT_TO_POINTER (OUTER_CANCELLED));
}

static void
test_nested_timed_out (void)
{
  test_nested (GUINT_TO_POINTER (OUTER_TIMED_OUT));
}

/* Within one wait a handler waits for something else: the outer wait counts as well. */

typedef struct
{
  BgLoop *first; /* ends the second, */
  BgLoop *second;
  BgLoop *third; /* which a handler calls meanwhile */
  UtilLatch second_runs;
  UtilLatch third_runs;
  UtilLatch was_refused;
} Around;

static void
call_first_cb (gpointer user_data)
{
  Around *self = user_data;
  g_autoptr (GError) error = NULL;

  util_latch_count_down (&self->second_runs);
  util_latch_wait (&self->third_runs);
  g_assert_false (bg_loop_call (self->first, util_true_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  util_latch_count_down (&self->was_refused);
}

static gboolean
wait_for_refusal_cb (gpointer user_data, GError **error)
{
  Around *self = user_data;

  util_latch_count_down (&self->third_runs);
  util_latch_wait (&self->was_refused);
  return TRUE;
}

static void
handler_calls_third_cb (GCancellable *cancellable, gpointer user_data)
{
  Around *self = user_data;

  g_assert_true (bg_loop_call (self->third, wait_for_refusal_cb, self, NULL, NULL));
}

static gboolean
cancel_second_cb (gpointer user_data, GError **error)
{
  return bg_loop_shutdown_full (((Around *) user_data)->second, BG_SHUTDOWN_CANCEL, -1, NULL,
                                error);
}

static void
test_outer_wait (void)
{
  Around self = { util_loop_new ("first"), util_loop_new ("second"), util_loop_new ("third") };

  util_latch_init (&self.second_runs, 1);
  util_latch_init (&self.third_runs, 1);
  util_latch_init (&self.was_refused, 1);
  g_cancellable_connect (bg_loop_get_cancellable (self.second), G_CALLBACK (handler_calls_third_cb),
                         &self, NULL);
  g_assert_true (bg_loop_post (self.second, call_first_cb, &self, NULL));
  util_latch_wait (&self.second_runs);
  g_assert_true (bg_loop_call (self.first, cancel_second_cb, &self, NULL, NULL));

  g_object_unref (self.second);
  util_loop_end (self.first);
  util_loop_end (self.third);
  util_latch_clear (&self.second_runs);
  util_latch_clear (&self.third_runs);
  util_latch_clear (&self.was_refused);
}

/* A thread that is nobody's runs handlers of a loop's cancellable: the end of that loop
 * waits for it, and so for whatever it waits for. */

static gboolean
wait_for_other_end_cb (gpointer user_data, GError **error)
{
  Nested *self = user_data;

  if (self->back == BACK_WAIT)
    return bg_loop_wait (self->other, -1, NULL, error);
  return bg_loop_shutdown_full (self->other,
                                self->back == BACK_CANCEL ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN,
                                -1, NULL, error);
}

static gboolean
wait_for_other_end_around_cb (gpointer user_data, GError **error)
{
  return bg_loop_call (((Nested *) user_data)->third, wait_for_other_end_cb, user_data, NULL,
                       error);
}

static void
handler_calls_cb (GCancellable *cancellable, gpointer user_data)
{
  Nested *self = user_data;
  BgCallFunc func
      = self->inner == INNER_CALL ? wait_for_other_end_cb : wait_for_other_end_around_cb;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->loop, func, self, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  util_latch_count_down (&self->handled);
}

static void
test_handler (void)
{
  static const Back backs[] = { BACK_SHUTDOWN, BACK_CANCEL, BACK_WAIT };

  for (guint i = 0; i < 2 * G_N_ELEMENTS (backs); i++)
    {
      Nested self = { .inner = i % 2 == 0 ? INNER_CALL : INNER_PERFORM, .back = backs[i / 2] };
      GCancellable *cancellable;
      gulong id;

      self.loop = util_loop_new ("loop");
      self.other = util_loop_new ("other");
      self.third = util_loop_new ("third");
      util_latch_init (&self.handled, 1);
      cancellable = bg_loop_get_cancellable (self.other);
      id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_calls_cb), &self);
      bg_loop_quit (self.other, BG_SHUTDOWN_CANCEL);
      g_assert_true (util_latch_is_open (&self.handled));
      g_signal_handler_disconnect (cancellable, id);

      /* Now it may wait. */
      g_assert_true (bg_loop_call (self.loop, wait_for_other_end_cb, &self, NULL, NULL));
      util_loop_end (self.other);
      util_loop_end (self.third);
      util_loop_end (self.loop);
      util_latch_clear (&self.handled);
    }
}

/* A wait that is refused leaves nothing with the cancellable. */

static gboolean
flush_own_cb (gpointer loop, GError **error)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  gboolean ok = bg_loop_flush (loop, -1, cancellable, error);

  g_assert_false (g_signal_has_handler_pending (cancellable,
                                                g_signal_lookup ("cancelled", G_TYPE_CANCELLABLE),
                                                0, TRUE));
  return ok;
}

static void
test_refused_cancellable (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (loop, flush_own_cb, loop, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

/* No false alarm */

/* To ask whether a loop has ended, with a timeout of 0, is no wait: it is not refused
 * for a circle, */

static void
assert_not_yet (gboolean ended, GError **error)
{
  g_assert_false (ended);
  g_assert_error (*error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_clear_error (error);
}

static gboolean
ask_back_cb (gpointer user_data, GError **error)
{
  BgLoop *other = user_data;
  GError *local = NULL;

  assert_not_yet (bg_loop_wait (other, 0, NULL, &local), &local);
  g_assert_cmpint (bg_loop_get_state (other), ==, BG_LOOP_RUNNING);
  assert_not_yet (bg_loop_shutdown_full (other, BG_SHUTDOWN_DRAIN, 0, NULL, &local), &local);
  g_assert_cmpint (bg_loop_get_state (other), ==, BG_LOOP_STOPPING);
  assert_not_yet (bg_loop_shutdown_full (other, BG_SHUTDOWN_CANCEL, 0, NULL, &local), &local);
  g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (other)));
  return TRUE;
}

static void
ask_async_back_cb (gpointer user_data)
{
  gpointer *data = user_data;

  bg_loop_wait_async (data[0], 0, NULL, util_reply_cb, data[1]);
  bg_loop_shutdown_async (data[0], BG_SHUTDOWN_DRAIN, 0, NULL, util_reply_cb, data[2]);
  bg_loop_shutdown_async (data[0], BG_SHUTDOWN_CANCEL, 0, NULL, util_reply_cb, data[3]);
}

static gboolean
call_one_cb (gpointer user_data, GError **error)
{
  BgLoop **loops = user_data;

  return bg_loop_call (loops[1], ask_back_cb, loops[0], NULL, error);
}

static void
test_ask_back (void)
{
  BgLoop *loops[] = { util_loop_new ("asked"), util_loop_new ("asks") };
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_call (loops[0], call_one_cb, loops, NULL, &error));
  g_assert_no_error (error);
  util_loop_end (loops[0]);
  util_loop_end (loops[1]);
}

/* Asked from a loop that is waited for, without blocking that. */
static void
wait_for_asker_cb (gpointer user_data)
{
  BgLoop *asks = ((gpointer *) user_data)[4];

  g_assert_true (bg_loop_post (asks, ask_async_back_cb, user_data, NULL));
  g_assert_true (bg_loop_flush (asks, -1, NULL, NULL));
  util_latch_count_down (((gpointer *) user_data)[5]);
}

static void
test_ask_async (void)
{
  BgLoop *asked = util_loop_new ("asked"), *asks = util_loop_new ("asks");
  guint64 hold = bg_loop_hold (asked, "the test");
  UtilReply replies[3];
  UtilLatch flushed;
  gpointer data[] = { asked, &replies[0], &replies[1], &replies[2], asks, &flushed };

  util_latch_init (&flushed, 1);
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    util_reply_init (&replies[i]);
  g_assert_true (bg_loop_post (asked, wait_for_asker_cb, data, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (replies); i++)
    {
      GError *error = NULL;
      gboolean ended;

      util_latch_wait (&replies[i].arrived);
      ended = i == 0 ? bg_loop_wait_finish (asked, replies[i].result, &error)
                     : bg_loop_shutdown_finish (asked, replies[i].result, &error);
      assert_not_yet (ended, &error);
      util_reply_clear (&replies[i]);
    }
  bg_loop_release (asked, hold);
  util_latch_wait (&flushed);
  util_latch_clear (&flushed);

  /* It refers to the other until its callbacks have returned. */
  util_loop_end (asks);
  util_loop_end (asked);
}

/* and others may wait for who asks. The handler of the cancellable runs while it does. */

typedef struct
{
  BgLoop *asks;
  BgLoop *asked;
  UtilLatch entered;
  UtilLatch cancelled;
} Ask;

static void
wait_until_called_cb (GCancellable *cancellable, gpointer user_data)
{
  Ask *self = user_data;

  g_assert_true (bg_loop_is_current (self->asks));
  util_latch_count_down (&self->cancelled);
  util_wait_for_queued (self->asks, 1);
}

static void
call_asker_cb (gpointer user_data)
{
  Ask *self = user_data;
  g_autoptr (GError) error = NULL;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->cancelled);
  g_assert_true (bg_loop_call (self->asks, util_true_cb, NULL, NULL, &error));
  g_assert_no_error (error);
}

static gboolean
ask_cb (gpointer user_data, GError **error)
{
  return bg_loop_shutdown_full (user_data, BG_SHUTDOWN_CANCEL, 0, NULL, error);
}

static void
test_asks_meanwhile (void)
{
  Ask self = { util_loop_new ("asks"), util_loop_new ("asked") };
  GCancellable *cancellable = bg_loop_get_cancellable (self.asked);
  GError *error = NULL;
  gulong id;

  util_latch_init (&self.entered, 1);
  util_latch_init (&self.cancelled, 1);
  id = g_signal_connect (cancellable, "cancelled", G_CALLBACK (wait_until_called_cb), &self);
  g_assert_true (bg_loop_post (self.asked, call_asker_cb, &self, NULL));
  util_latch_wait (&self.entered);
  assert_not_yet (bg_loop_call (self.asks, ask_cb, self.asked, NULL, &error), &error);
  g_signal_handler_disconnect (cancellable, id);
  /* The asked one may still be about to return from its call of the other one. */
  util_loop_end (self.asked);
  util_loop_end (self.asks);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.cancelled);
}

/* At any time */

static void
ask_again_cb (gpointer user_data)
{
  Side *side = user_data;
  Mutual *self = side->mutual;
  BgLoop *other = self->loops[!side->here];

  for (guint i = 0; i < 20; i++)
    {
      g_assert_false (bg_loop_wait (other, 0, NULL, NULL));
      g_assert_false (bg_loop_shutdown_full (other, BG_SHUTDOWN_DRAIN, 0, NULL, NULL));
    }
  if (--side->left > 0)
    g_assert_true (bg_loop_post (self->loops[side->here], ask_again_cb, side, NULL));
  else
    util_latch_count_down (&self->done);
}

static void
call_asker_again_cb (gpointer user_data)
{
  Side *side = user_data;
  Mutual *self = side->mutual;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_call (self->loops[!side->here], util_true_cb, NULL, NULL, &error));
  g_assert_no_error (error);
  if (--side->left > 0)
    g_assert_true (bg_loop_post (self->loops[side->here], call_asker_again_cb, side, NULL));
  else
    util_latch_count_down (&self->done);
}

static void
test_ask_race (void)
{
  Mutual self = { .loops = { util_loop_new ("asks"), util_loop_new ("asked") } };
  guint n = util_scale (1000);
  guint64 hold = bg_loop_hold (self.loops[1], "asked");
  Side sides[] = { { &self, 0, n }, { &self, 1, n } };

  util_latch_init (&self.done, 2);
  g_assert_true (bg_loop_post (self.loops[1], call_asker_again_cb, &sides[1], NULL));
  g_assert_true (bg_loop_post (self.loops[0], ask_again_cb, &sides[0], NULL));
  util_latch_wait (&self.done);
  bg_loop_release (self.loops[1], hold);
  util_loop_end (self.loops[0]);
  util_loop_end (self.loops[1]);
  util_latch_clear (&self.done);
}

typedef struct
{
  BgLoop *loops[MAX_LOOPS];
  UtilLatch done;
  int token; /* atomic: whoever has it may call in any direction */
} Crowd;

typedef struct
{
  Crowd *crowd;
  guint here;
  guint left;
  guint32 random;
} Member;

/* g_random_int() takes a lock, which would order what is to race. */
static guint
next_random (Member *self, guint end)
{
  self->random = self->random * 1664525 + 1013904223;
  return (self->random >> 16) % end;
}

static void
crowd_run (BgPostFunc func, guint n)
{
  Crowd self = { .token = 0 };
  Member members[MAX_LOOPS];

  util_latch_init (&self.done, MAX_LOOPS);
  for (guint i = 0; i < MAX_LOOPS; i++)
    self.loops[i] = util_loop_new ("member");
  for (guint i = 0; i < MAX_LOOPS; i++)
    {
      members[i] = (Member){ &self, i, n, g_test_rand_int () };
      g_assert_true (bg_loop_post (self.loops[i], func, &members[i], NULL));
    }
  util_latch_wait (&self.done);
  for (guint i = 0; i < MAX_LOOPS; i++)
    util_loop_end (self.loops[i]);
  util_latch_clear (&self.done);
}

static void
member_again (Member *self, BgPostFunc func)
{
  if (--self->left > 0)
    g_assert_true (bg_loop_post (self->crowd->loops[self->here], func, self, NULL));
  else
    util_latch_count_down (&self->crowd->done);
}

/* Upwards only, at any depth: there can be no circle. */

static gboolean climb_cb (gpointer user_data, GError **error);

static gboolean
climb_begin_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  climb_cb (user_data, NULL);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static gboolean
climb_cb (gpointer user_data, GError **error)
{
  Member *self = user_data;
  g_autoptr (GError) local = NULL;
  g_autoptr (GAsyncResult) answer = NULL;
  Member above = *self;
  BgLoop *loop;

  if (self->here + 1 == MAX_LOOPS)
    return TRUE;

  above.here = self->here + 1 + next_random (&above, MAX_LOOPS - 1 - self->here);
  loop = above.crowd->loops[above.here];
  switch (next_random (&above, 4))
    {
    case 0:
      g_assert_true (bg_loop_flush (loop, -1, NULL, &local));
      break;
    case 1:
      answer = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, climb_begin_cb, &above, NULL, &local);
      g_assert_nonnull (answer);
      break;
    default:
      g_assert_true (bg_loop_call (loop, climb_cb, &above, NULL, &local));
    }
  g_assert_no_error (local);
  return TRUE;
}

static void
climb_post_cb (gpointer user_data)
{
  Member *self = user_data;

  next_random (self, 2);
  climb_cb (self, NULL);
  member_again (self, climb_post_cb);
}

static void
test_upwards (void)
{
  crowd_run (climb_post_cb, util_scale (200));
}

/* In any direction, but one at a time. The one who is called lets the next go
 * ahead while the caller has not woken yet. */

static gboolean
give_token_cb (gpointer user_data, GError **error)
{
  Crowd *crowd = user_data;

  g_atomic_int_set (&crowd->token, 0);
  return TRUE;
}

static void
take_token_cb (gpointer user_data)
{
  Member *self = user_data;
  Crowd *crowd = self->crowd;
  BgLoop *here = crowd->loops[self->here];
  g_autoptr (GError) error = NULL;
  guint to;

  if (!g_atomic_int_compare_and_exchange (&crowd->token, 0, 1))
    {
      g_thread_yield ();
      g_assert_true (bg_loop_post (here, take_token_cb, self, NULL));
      return;
    }

  to = (self->here + 1 + next_random (self, MAX_LOOPS - 1)) % MAX_LOOPS;
  g_assert_true (bg_loop_call (crowd->loops[to], give_token_cb, crowd, NULL, &error));
  g_assert_no_error (error);
  member_again (self, take_token_cb);
}

static void
test_one_at_a_time (void)
{
  crowd_run (take_token_cb, util_scale (200));
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  /* What is wrong here would hang. */
  util_add_trapped ("/circle/own-thread", test_own_thread);
  util_add_trapped ("/circle/of-two", test_two);
  util_add_trapped ("/circle/of-three", test_three);
  util_add_trapped ("/circle/of-eight", test_eight);
  util_add_trapped ("/circle/meeting", test_mutual);
  util_add_trapped_with_loop ("/circle/refused-with-a-cancellable", test_refused_cancellable);
  util_add_trapped ("/circle/cancelled-but-started", test_cancelled_started);
  util_add_trapped ("/circle/nested/in-a-shutdown", test_nested_shutdown);
  util_add_trapped ("/circle/nested/in-a-cancelled-operation", test_nested_cancelled);
  util_add_trapped ("/circle/nested/in-an-operation-that-timed-out", test_nested_timed_out);
  util_add_trapped ("/circle/nested/outer-wait-counts", test_outer_wait);
  util_add_trapped ("/circle/handler-of-the-cancellable", test_handler);
  util_add_trapped ("/no-circle/asking/back", test_ask_back);
  util_add_trapped ("/no-circle/asking/without-blocking", test_ask_async);
  util_add_trapped ("/no-circle/asking/others-may-wait", test_asks_meanwhile);
  util_add_trapped ("/no-circle/asking/race", test_ask_race);
  util_add_trapped ("/no-circle/wait-is-over", test_over);
  util_add_trapped ("/no-circle/upwards", test_upwards);
  util_add_trapped ("/no-circle/one-at-a-time", test_one_at_a_time);

  return g_test_run ();
}
