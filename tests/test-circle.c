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
  Circle *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  step (self);
  g_task_return_boolean (task, TRUE);
  return TRUE;
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
      g_autofree char *name = g_strdup_printf ("“loop %u”", i);

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

static gboolean
nothing_cb (gpointer user_data, GError **error)
{
  return TRUE;
}

static void
end_wait (Over *self)
{
  /* What has given up is not counted any more. */
  if (self->end != CANCELLED_PENDING && self->end != TIMED_OUT)
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
  g_assert_true (bg_loop_call (self->caller, nothing_cb, NULL, NULL, &error));
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
    g_assert_false (bg_loop_call_full (self->other, 0, timeout_msec, nothing_cb, NULL,
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
  return bg_loop_call (self->caller, nothing_cb, NULL, NULL, error);
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

  if (!bg_loop_call (self->loops[!side->here], nothing_cb, NULL, NULL, &error))
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

/* No false alarm */

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
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  climb_cb (user_data, NULL);
  g_task_return_boolean (task, TRUE);
  return TRUE;
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
  util_add_trapped ("/circle/cancelled-but-started", test_cancelled_started);
  util_add_trapped ("/no-circle/wait-is-over", test_over);
  util_add_trapped ("/no-circle/upwards", test_upwards);
  util_add_trapped ("/no-circle/one-at-a-time", test_one_at_a_time);

  return g_test_run ();
}
