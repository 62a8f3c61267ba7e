/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include <bgloop/base/bg-schedule-private.h>
#include <bgloop/base/bg-waiter-private.h>

#include "util.h"

/* Two threads do what must not happen at once, and a seed says at which of the points of
 * bg-schedule-private.h, and when it is passed for which time, a thread stays so long that others get
 * ahead. Whatever comes first, one of the outcomes that are promised comes of it. What waits in
 * vain hangs, and the watchdog ends the program. */

#define N_PASSAGES 25
#define STAY_USEC  300

/* So many posts for a loop that falls asleep after each. */
#define N_POSTS 4

typedef struct
{
  int first, second; /* what each of the threads has to say, 0 if nothing */
  int n;             /* atomic: what ran */
  int done;          /* atomic */
  BgLoop *loop;
  BgWaiter *waiter;
  GCancellable *cancellable;
} Both;

static struct
{
  int point;               /* atomic: where somebody stays */
  int n_left;              /* atomic: passages of it before that */
  int passed[BG_N_POINTS]; /* atomic: how often in all */
} schedule;

static guint
point_cb (BgPoint point)
{
  g_atomic_int_inc (&schedule.passed[point]);
  if (g_atomic_int_get (&schedule.point) != (int) point)
    return 0;
  return g_atomic_int_add (&schedule.n_left, -1) == 0 ? STAY_USEC : 0;
}

static gboolean
was_passed (BgPoint point)
{
  return g_atomic_int_get (&schedule.passed[point]) > 0;
}

static int
count_looks (void)
{
  return g_atomic_int_get (&schedule.passed[BG_POINT_LOOKS]);
}

/* @first on this thread, @second on another one. */
static void
run_both (Both *self, GThreadFunc first, GThreadFunc second)
{
  GThread *thread = g_thread_new ("second", second, self);

  first (self);
  g_thread_join (thread);
}

/* FALSE if what has come of it is none of the outcomes that there may be. */
typedef gboolean (*CaseFunc) (Both *self);

static void
run_case (gconstpointer data)
{
  CaseFunc func = *(const CaseFunc *) data;

  util_go_on ();
  for (guint seed = 0; seed < BG_N_POINTS * N_PASSAGES; seed++)
    {
      Both both = { 0 };

      g_atomic_int_set (&schedule.n_left, (int) (seed / BG_N_POINTS));
      g_atomic_int_set (&schedule.point, (int) (seed % BG_N_POINTS));
      bg_schedule_set_func (point_cb);
      if (!func (&both))
        {
          g_test_message ("with seed %u", seed);
          g_test_fail ();
          break;
        }
      g_assert_null (bg_test_describe_loops (0, -1));
    }
  bg_schedule_set_func (NULL);
}

/* One wait */

static gpointer
wait_thread (gpointer data)
{
  Both *self = data;

  self->first = (int) bg_waiter_wait (self->waiter, -1);
  return NULL;
}

static gpointer
complete_thread (gpointer data)
{
  Both *self = data;

  bg_waiter_complete (self->waiter);
  return NULL;
}

/* The next wait of the same thread knows nothing of the last. */
static gboolean
next_wait_is_new (Both *self)
{
  BgWaiter *next = bg_waiter_take (NULL);
  BgWaitResult result = bg_waiter_wait (next, bg_deadline (0));

  bg_waiter_complete (next);
  bg_waiter_give_back (next, NULL);
  return result == BG_WAIT_TIMED_OUT;
}

/* A thread falls asleep, and is woken. */
static gboolean
complete_asleep (Both *self)
{
  self->waiter = bg_waiter_take (NULL);
  run_both (self, wait_thread, complete_thread);
  bg_waiter_give_back (self->waiter, NULL);
  return self->first == BG_WAIT_COMPLETED && next_wait_is_new (self);
}

static gpointer
give_up_thread (gpointer data)
{
  Both *self = data;

  self->first = (int) bg_waiter_wait (self->waiter, bg_deadline (0));
  if (self->first == BG_WAIT_TIMED_OUT)
    bg_waiter_wait_completed (self->waiter);
  return NULL;
}

/* Its time is up, and what it waited for comes all the same. */
static gboolean
complete_given_up (Both *self)
{
  gboolean completed;

  self->waiter = bg_waiter_take (NULL);
  run_both (self, give_up_thread, complete_thread);
  completed = bg_waiter_is_completed (self->waiter);
  bg_waiter_give_back (self->waiter, NULL);
  return completed && next_wait_is_new (self);
}

static gpointer
take_and_wait_thread (gpointer data)
{
  Both *self = data;
  BgWaiter *waiter = bg_waiter_take (self->cancellable);

  self->first = (int) bg_waiter_wait (waiter, -1);
  bg_waiter_complete (waiter);
  bg_waiter_give_back (waiter, self->cancellable);
  return NULL;
}

static gpointer
cancel_thread (gpointer data)
{
  Both *self = data;

  g_cancellable_cancel (self->cancellable);
  return NULL;
}

/* Nobody completes it: as it begins it is cancelled. */
static gboolean
cancel_begun (Both *self)
{
  self->cancellable = g_cancellable_new ();
  run_both (self, take_and_wait_thread, cancel_thread);
  g_object_unref (self->cancellable);
  return self->first == BG_WAIT_CANCELLED && next_wait_is_new (self);
}

static gpointer
wait_on_thread (gpointer data)
{
  Both *self = data;

  self->first = (int) bg_waiter_wait (self->waiter, -1);
  bg_waiter_wait_completed (self->waiter);
  return NULL;
}

static gpointer
cancel_and_complete_thread (gpointer data)
{
  cancel_thread (data);
  return complete_thread (data);
}

/* It is cancelled, and completed at once. */
static gboolean
cancel_completed (Both *self)
{
  gboolean over;

  self->cancellable = g_cancellable_new ();
  self->waiter = bg_waiter_take (self->cancellable);
  run_both (self, wait_on_thread, cancel_and_complete_thread);
  over = bg_waiter_is_over (self->waiter);
  bg_waiter_give_back (self->waiter, self->cancellable);
  g_object_unref (self->cancellable);
  return over && next_wait_is_new (self);
}

/* A loop */

static gpointer
nothing_thread (gpointer data)
{
  return NULL;
}

static gpointer
call_thread (gpointer data)
{
  Both *self = data;

  self->first = bg_loop_call (self->loop, util_count_call_cb, &self->n, self->cancellable, NULL);
  return NULL;
}

/* What was cancelled has not run, and what has run was not cancelled. */
static gboolean
cancel_call (Both *self)
{
  self->loop = util_loop_new ("cancelled");
  self->cancellable = g_cancellable_new ();
  run_both (self, call_thread, cancel_thread);
  util_loop_end (self->loop);
  g_object_unref (self->cancellable);
  return self->n == self->first;
}

static gpointer
call_briefly_thread (gpointer data)
{
  Both *self = data;

  self->first = bg_loop_call_full (self->loop, 0, 0, util_count_call_cb, &self->n, NULL, NULL);
  return NULL;
}

static gboolean
give_up_call (Both *self)
{
  self->loop = util_loop_new ("given up");
  run_both (self, call_briefly_thread, nothing_thread);
  util_loop_end (self->loop);
  return self->n == self->first;
}

static gpointer
call_async_thread (gpointer data)
{
  Both *self = data;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_call_async (self->loop, 0, -1, util_count_call_cb, &self->n, NULL, self->cancellable,
                      util_reply_cb, &reply);
  util_reply_wait (&reply);
  self->first = bg_loop_call_finish (self->loop, reply.result, NULL);
  util_reply_clear (&reply);
  return NULL;
}

static gboolean
cancel_call_async (Both *self)
{
  self->loop = util_loop_new ("cancelled");
  self->cancellable = g_cancellable_new ();
  run_both (self, call_async_thread, cancel_thread);
  util_loop_end (self->loop);
  g_object_unref (self->cancellable);
  return self->n == self->first;
}

static gpointer
wait_async_thread (gpointer data)
{
  Both *self = data;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_wait_async (self->loop, -1, self->cancellable, util_reply_cb, &reply);
  util_reply_wait (&reply);
  self->first = bg_loop_wait_finish (self->loop, reply.result, NULL);
  util_reply_clear (&reply);
  return NULL;
}

/* The loop goes on: only the cancellable ends the wait. */
static gboolean
cancel_wait_async (Both *self)
{
  self->loop = util_loop_new ("cancelled");
  self->cancellable = g_cancellable_new ();
  self->first = TRUE;
  run_both (self, wait_async_thread, cancel_thread);
  util_loop_end (self->loop);
  g_object_unref (self->cancellable);
  return !self->first;
}

static gpointer
post_thread (gpointer data)
{
  Both *self = data;

  for (guint i = 0; i < N_POSTS; i++)
    {
      UtilLatch ran;

      util_latch_init (&ran, 1);
      bg_loop_post (self->loop, util_count_down_cb, &ran, NULL);
      util_latch_wait (&ran);
      util_latch_clear (&ran);
    }
  return NULL;
}

static gpointer
invoke_thread (gpointer data)
{
  Both *self = data;

  for (guint i = 0; i < N_POSTS; i++)
    {
      g_autoptr (GSource) source = g_idle_source_new ();
      UtilLatch ran;

      util_latch_init (&ran, 2);
      g_source_set_callback (source, util_count_down_source_cb, &ran, NULL);
      bg_loop_attach (self->loop, source);
      bg_loop_invoke (self->loop, util_count_down_source_cb, &ran);
      util_latch_wait (&ran);
      util_latch_clear (&ran);
    }
  return NULL;
}

/* Each time that the loop has nothing more to do, and lingers every other time, there is more to do. */
static gboolean
wake_up (Both *self)
{
  self->loop = util_loop_new ("awake");
  g_object_set (self->loop, "linger", schedule.n_left % 2 == 0 ? 0 : 20, NULL);
  run_both (self, post_thread, invoke_thread);
  util_loop_end (self->loop);
  return TRUE;
}

static gpointer
withdraw_thread (gpointer data)
{
  Both *self = data;
  int passed = g_atomic_int_get (&schedule.passed[BG_POINT_DELAY_STARTS]);
  guint64 id = bg_loop_post_after (self->loop, 0, util_count_cb, &self->n, NULL);

  /* It is about to start. */
  while (g_atomic_int_get (&schedule.passed[BG_POINT_DELAY_STARTS]) == passed)
    g_thread_yield ();
  self->first = bg_loop_withdraw (self->loop, id);
  return NULL;
}

/* What is withdrawn does not run, and what is not runs once. */
static gboolean
withdraw_started (Both *self)
{
  self->loop = util_loop_new ("withdrawn");
  run_both (self, withdraw_thread, nothing_thread);
  util_loop_end (self->loop);
  return self->n + self->first == 1;
}

static gpointer
post_and_drop_thread (gpointer data)
{
  Both *self = data;

  self->first = bg_loop_post (self->loop, util_count_cb, &self->n, NULL);
  g_object_unref (self->loop);
  return NULL;
}

static gpointer
describe_thread (gpointer data)
{
  Both *self = data;

  /* Until the other one has let go of the loop, and its thread as well. */
  do
    g_free (bg_test_describe_loops (0, 0));
  while (!g_atomic_int_get (&self->done));
  return NULL;
}

static gpointer
drop_thread (gpointer data)
{
  Both *self = data;
  int passed = g_atomic_int_get (&schedule.passed[BG_POINT_CORE_REFERS]);

  while (g_atomic_int_get (&schedule.passed[BG_POINT_CORE_REFERS]) == passed)
    g_thread_yield ();
  post_and_drop_thread (self);
  g_assert_null (bg_test_describe_loops (0, -1));
  g_atomic_int_set (&self->done, TRUE);
  return NULL;
}

/* The last reference to a loop goes while others look at all loops. */
static gboolean
drop_described (Both *self)
{
  self->loop = util_loop_new ("dropped");
  run_both (self, drop_thread, describe_thread);
  return self->n == 1 && self->first == 1;
}

static gpointer
post_and_drop_second_thread (gpointer data)
{
  Both *self = data;

  self->second = bg_loop_post (self->loop, util_count_cb, &self->n, NULL);
  g_object_unref (self->loop);
  return NULL;
}

/* Each of two threads posts and lets go of the loop, one of them as the last. */
static gboolean
drop_posted (Both *self)
{
  self->loop = util_loop_new ("dropped");
  g_object_ref (self->loop);
  run_both (self, post_and_drop_thread, post_and_drop_second_thread);
  g_assert_null (bg_test_describe_loops (0, -1));
  return self->n == 2 && self->first + self->second == 2;
}

static void
answer_cb (GCancellable *cancellable, gpointer operation)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  bg_operation_answer (operation, G_ASYNC_RESULT (task));
}

/* Answers once somebody cancels it. */
static gboolean
answer_cancelled_cb (BgOperation *operation,
                     GCancellable *cancellable,
                     gpointer user_data,
                     GError **error)
{
  g_cancellable_connect (cancellable, G_CALLBACK (answer_cb), bg_operation_ref (operation),
                         (GDestroyNotify) bg_operation_unref);
  return TRUE;
}

static gpointer
perform_thread (gpointer data)
{
  Both *self = data;
  g_autoptr (GAsyncResult) answer
      = bg_loop_perform_operation (self->loop, 0, -1, answer_cancelled_cb, NULL, NULL, NULL);

  self->first = answer != NULL;
  return NULL;
}

static gpointer
shut_down_thread (gpointer data)
{
  Both *self = data;

  self->second = bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL);
  return NULL;
}

/* A loop that is cancelled ends, whether its first operation has begun or not. */
static gboolean
cancel_operation (Both *self)
{
  self->loop = util_loop_new ("cancelled");
  run_both (self, perform_thread, shut_down_thread);
  g_object_unref (self->loop);
  return self->second;
}

static gpointer
answer_thread (gpointer data)
{
  Both *self = data;
  g_autoptr (GAsyncResult) answer
      = bg_loop_perform_operation (self->loop, 0, -1, util_operation_cb, NULL, NULL, NULL);

  if (answer != NULL)
    g_atomic_int_inc (&self->n);
  return NULL;
}

/* Two operations are the first of a loop. */
static gboolean
begin_twice (Both *self)
{
  self->loop = util_loop_new ("operations");
  run_both (self, answer_thread, answer_thread);
  util_loop_end (self->loop);
  return self->n == 2;
}

/* The watchdog */

static struct
{
  UtilLatch goes_on, next, reported;
  int n_names; /* atomic: how often something was about to be named */
  int n_wrong; /* atomic: reports of what was about to be named first */
} stall;

/* What is about to be named first goes on to something else at that moment. */
static guint
name_point_cb (BgPoint point)
{
  g_atomic_int_inc (&schedule.passed[point]);
  if (point == BG_POINT_WATCH_NAMES && g_atomic_int_add (&stall.n_names, 1) == 0)
    {
      util_latch_count_down (&stall.goes_on);
      util_latch_wait (&stall.next);
    }
  return 0;
}

static GLogWriterOutput
writer_cb (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer user_data)
{
  const char *text = "";

  for (gsize i = 0; i < n_fields; i++)
    {
      if (g_str_equal (fields[i].key, "MESSAGE"))
        text = fields[i].value;
    }
  if (strstr (text, " kept busy by ") == NULL)
    {
      g_log_writer_default (level, fields, n_fields, user_data);
      g_assert_cmpint (level & G_LOG_LEVEL_WARNING, ==, 0);
      return G_LOG_WRITER_HANDLED;
    }

  if (g_atomic_int_get (&stall.n_names) == 1)
    g_atomic_int_inc (&stall.n_wrong);
  if (!util_latch_is_open (&stall.reported))
    util_latch_count_down (&stall.reported);
  return G_LOG_WRITER_HANDLED;
}

static void
block_cb (gpointer user_data)
{
  util_latch_wait (&stall.goes_on);
}

static void
block_next_cb (gpointer user_data)
{
  util_latch_count_down (&stall.next);
  util_latch_wait (&stall.reported);
}

/* What comes next is reported only when it has blocked the loop as well. */
static void
test_name (void)
{
  BgLoop *loop = util_loop_new ("blocked");
  int looks = count_looks ();

  memset (&stall, 0, sizeof stall);
  util_latch_init (&stall.goes_on, 1);
  util_latch_init (&stall.next, 1);
  util_latch_init (&stall.reported, 1);
  bg_schedule_set_func (name_point_cb);
  g_object_set (loop, "stall-threshold", 1, NULL);
  g_assert_true (bg_loop_post (loop, block_cb, NULL, block_next_cb));
  util_loop_end (loop);
  bg_schedule_set_func (NULL);
  g_assert_cmpint (stall.n_wrong, ==, 0);
  g_assert_cmpint (count_looks (), >, looks);
  util_latch_clear (&stall.reported);
  util_latch_clear (&stall.next);
  util_latch_clear (&stall.goes_on);
}

/* Signals */

#define N_SIGNALS 100

static guint
forget_point_cb (BgPoint point)
{
  g_atomic_int_inc (&schedule.passed[point]);
  errno = EAGAIN;
  return 0;
}

static void
signal_cb (int signal_number)
{
}

static gboolean
get_thread_cb (gpointer user_data, GError **error)
{
  *(pthread_t *) user_data = pthread_self ();
  return TRUE;
}

/* Whoever takes a lock on the way back from a poll that a signal has ended may change errno, by
 * which GLib tells that from a failure: that would be a warning. */
static void
test_signal (void)
{
  const struct sigaction action = { .sa_handler = signal_cb };
  BgLoop *loop = util_loop_new ("signalled");
  struct sigaction before;
  pthread_t thread;

  g_assert_cmpint (sigaction (SIGUSR1, &action, &before), ==, 0);
  g_assert_true (bg_loop_call (loop, get_thread_cb, &thread, NULL, NULL));
  bg_schedule_set_func (forget_point_cb);
  for (guint i = 0; i < N_SIGNALS; i++)
    {
      util_wait_until_asleep (loop);
      g_assert_cmpint (pthread_kill (thread, SIGUSR1), ==, 0);
    }
  util_loop_end (loop);
  bg_schedule_set_func (NULL);
  g_assert_cmpint (sigaction (SIGUSR1, &before, NULL), ==, 0);
}

/* Looks */

/* How often @func goes through what @loop has, which it must not do as one that has the lock for a
 * moment would: whoever waits for the lock is not to find it taken by the next look. */
static int
count_looks_of (void (*func) (BgLoop *loop), BgLoop *loop)
{
  int before = count_looks ();

  func (loop);
  return count_looks () - before;
}

static void
describe (BgLoop *loop)
{
  g_free (bg_loop_describe (loop));
}

static void
call_in_vain (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call_full (loop, 0, 0, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static void
flush_in_vain (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_flush (loop, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static void
shut_down_in_vain (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static UtilLatch replied;

static void
perform_in_vain (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (bg_loop_perform (loop, 0, 0, util_no_begin_cb, NULL, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static void
get_stats (BgLoop *loop)
{
  bg_loop_stats_free (bg_loop_get_stats (loop));
}

static void
ask_cb (gpointer asked)
{
  bg_loop_call_async (asked, 0, -1, util_true_cb, NULL, NULL, NULL, util_count_down_reply_cb,
                      &replied);
}

static void
test_looks (void)
{
  BgLoop *asked = util_loop_new ("asked"), *asker = util_loop_new ("asker");
  UtilLatch latch;

  util_latch_init (&latch, 1);
  util_latch_init (&replied, 1);
  bg_schedule_set_func (point_cb);
  g_assert_true (bg_loop_post (asked, util_wait_cb, &latch, NULL));
  g_assert_true (bg_loop_post (asker, ask_cb, asked, NULL));
  util_wait_until_asleep (asker);

  g_assert_cmpint (count_looks_of (describe, asked), ==, 1);
  g_assert_cmpint (count_looks_of (call_in_vain, asked), ==, 1);
  g_assert_cmpint (count_looks_of (flush_in_vain, asked), ==, 1);
  g_assert_cmpint (count_looks_of (perform_in_vain, asked), ==, 1);
  g_assert_cmpint (count_looks_of (get_stats, asked), ==, 1);
  g_assert_cmpint (count_looks_of (shut_down_in_vain, asked), ==, 1);

  /* A loop that waits for replies has them elsewhere. */
  bg_loop_quit (asker, BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (count_looks_of (describe, asker), ==, 2);

  util_latch_count_down (&latch);
  g_assert_true (bg_loop_shutdown (asked, NULL));
  util_loop_end (asker);
  util_loop_end (asked);
  bg_schedule_set_func (NULL);
  g_assert_true (util_latch_is_open (&replied));
  util_latch_clear (&replied);
  util_latch_clear (&latch);
}

static const struct
{
  const char *path;
  CaseFunc func;
} cases[] = {
  { "/schedule/wait/completed-as-it-falls-asleep", complete_asleep },
  { "/schedule/wait/completed-as-it-gives-up", complete_given_up },
  { "/schedule/wait/cancelled-as-it-begins", cancel_begun },
  { "/schedule/wait/cancelled-as-it-is-completed", cancel_completed },
  { "/schedule/call/cancelled-as-it-starts", cancel_call },
  { "/schedule/call/given-up-as-it-starts", give_up_call },
  { "/schedule/call/async/cancelled-as-it-starts", cancel_call_async },
  { "/schedule/wait-async/cancelled-as-it-begins", cancel_wait_async },
  { "/schedule/post/as-the-loop-falls-asleep", wake_up },
  { "/schedule/post/withdrawn-as-it-starts", withdraw_started },
  { "/schedule/drop/as-it-is-described", drop_described },
  { "/schedule/drop/as-another-one-posts", drop_posted },
  { "/schedule/operation/cancelled-as-it-begins", cancel_operation },
  { "/schedule/operation/two-are-the-first", begin_twice },
};

/* All of the points stand where the cases come by, which are run here if they were not before. */
static void
test_points (void)
{
  guint n = was_passed (BG_POINT_LOCK) ? 0 : G_N_ELEMENTS (cases);

  for (guint i = 0; i < n; i++)
    run_case (&cases[i].func);
  if (!was_passed (BG_POINT_WATCH_NAMES))
    test_name ();
  if (!was_passed (BG_POINT_LOOKS))
    test_looks ();

  for (BgPoint point = 0; point < BG_N_POINTS; point++)
    {
      if (!was_passed (point))
        {
          g_test_message ("nobody passed point %d", (int) point);
          g_test_fail ();
        }
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);
  g_log_set_always_fatal (G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
  g_log_set_writer_func (writer_cb, NULL, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    g_test_add_data_func (cases[i].path, &cases[i].func, run_case);
  g_test_add_func ("/schedule/stall/goes-on-as-it-is-named", test_name);
  g_test_add_func ("/schedule/signal-ends-the-poll", test_signal);
  g_test_add_func ("/schedule/looks", test_looks);
  g_test_add_func ("/schedule/points/passed", test_points);

  return g_test_run ();
}
