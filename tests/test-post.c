/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib-unix.h>
#include <unistd.h>

#include "util.h"

/* What came, in the order in which it came. */
typedef struct
{
  BgLoop *loop;
  GThread *thread;
  GMutex lock;
  GArray *values; /* of int, under lock */
} Log;

typedef struct
{
  Log *log;
  int value;
} Entry;

static void
log_init (Log *self, BgLoop *loop)
{
  self->loop = loop;
  self->thread = g_thread_self ();
  self->values = g_array_new (FALSE, FALSE, sizeof (int));
  g_mutex_init (&self->lock);
}

static void
log_clear (Log *self)
{
  g_array_unref (self->values);
  g_mutex_clear (&self->lock);
}

static void
log_add (Log *self, int value)
{
  g_mutex_lock (&self->lock);
  g_array_append_val (self->values, value);
  g_mutex_unlock (&self->lock);
}

static void
log_assert (Log *self, guint n, const int *values)
{
  g_assert_cmpuint (self->values->len, ==, n);
  for (guint i = 0; i < n; i++)
    g_assert_cmpint (g_array_index (self->values, int, i), ==, values[i]);
}

static void
log_assert_ascending (Log *self, guint n)
{
  g_assert_cmpuint (self->values->len, ==, n);
  for (guint i = 0; i < n; i++)
    g_assert_cmpint (g_array_index (self->values, int, i), ==, i);
}

static void
entry_cb (gpointer user_data)
{
  Entry *entry = user_data;

  g_assert_true (bg_loop_is_current (entry->log->loop));
  log_add (entry->log, entry->value);
}

static gboolean
entry_call_cb (gpointer user_data, GError **error)
{
  entry_cb (user_data);
  return TRUE;
}

static void
post_entry (Log *log, int priority, int value)
{
  Entry *entry = g_new (Entry, 1);

  entry->log = log;
  entry->value = value;
  g_assert_true (bg_loop_post_full (log->loop, priority, entry_cb, entry, g_free));
}

/* Queued, never run here */

static void
test_elsewhere_is_queued (BgTestFixture *fixture, gconstpointer data)
{
  UtilBlock block;
  int n = 0;

  util_block (&block, fixture->loop);
  g_assert_true (bg_loop_post (fixture->loop, util_count_cb, &n, util_count_cb));
  g_assert_cmpint (g_atomic_int_get (&n), ==, 0);
  util_unblock (&block);
  util_loop_shut_down (fixture->loop);
  g_assert_cmpint (n, ==, 2);
  util_block_clear (&block);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch done;
  gboolean inside;
  int n;
} Own;

static void
own_inner_cb (gpointer user_data)
{
  Own *self = user_data;

  g_assert_false (self->inside);
  self->n++;
  util_latch_count_down (&self->done);
}

static void
own_outer_cb (gpointer user_data)
{
  Own *self = user_data;

  self->inside = TRUE;
  g_assert_true (bg_loop_post (self->loop, own_inner_cb, self, NULL));
  g_assert_true (bg_loop_post_full (self->loop, G_MININT, own_inner_cb, self, NULL));
  self->inside = FALSE;
}

static void
test_own_thread_is_queued (BgTestFixture *fixture, gconstpointer data)
{
  Own own = { .loop = fixture->loop };

  util_latch_init (&own.done, 2);
  g_assert_true (bg_loop_post (own.loop, own_outer_cb, &own, NULL));
  util_latch_wait (&own.done);
  util_loop_shut_down (own.loop);
  g_assert_cmpint (own.n, ==, 2);
  util_latch_clear (&own.done);
}

static void
overtake_cb (gpointer user_data)
{
  Log *log = user_data;

  post_entry (log, G_PRIORITY_DEFAULT, 2);
  log_add (log, 0);
}

static void
test_own_thread_does_not_overtake (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Log log;

  log_init (&log, loop);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, overtake_cb, &log, NULL));
  post_entry (&log, G_PRIORITY_DEFAULT, 1);
  util_unblock (&block);
  util_loop_shut_down (loop);
  log_assert_ascending (&log, 3);
  util_block_clear (&block);
  log_clear (&log);
}

/* Destroy notifies */

typedef struct
{
  BgLoop *loop;
  gboolean ran;
  int n_destroyed;
} Data;

static void
data_cb (gpointer user_data)
{
  Data *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_cmpint (self->n_destroyed, ==, 0);
  g_assert_false (self->ran);
  self->ran = TRUE;
}

static void
data_destroy (gpointer user_data)
{
  Data *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (self->ran);
  self->n_destroyed++;
}

static void
test_destroy_follows_on_the_loop (BgTestFixture *fixture, gconstpointer test_data)
{
  Data data = { .loop = fixture->loop };

  g_assert_true (bg_loop_post (fixture->loop, data_cb, &data, data_destroy));
  util_loop_shut_down (fixture->loop);
  g_assert_true (data.ran);
  g_assert_cmpint (data.n_destroyed, ==, 1);
}

static void
post_again_destroy (gpointer user_data)
{
  Own *self = user_data;

  g_assert_true (bg_loop_post (self->loop, own_inner_cb, self, NULL));
}

static void
test_destroy_may_post (BgTestFixture *fixture, gconstpointer data)
{
  Own own = { .loop = fixture->loop };

  util_latch_init (&own.done, 1);
  g_assert_true (bg_loop_post (own.loop, util_nothing_cb, &own, post_again_destroy));
  util_latch_wait (&own.done);
  util_loop_shut_down (own.loop);
  util_latch_clear (&own.done);
}

/* Order */

static void
test_order_fifo (BgTestFixture *fixture, gconstpointer data)
{
  guint n = util_scale (100000);
  Log log;

  log_init (&log, fixture->loop);
  for (guint i = 0; i < n; i++)
    post_entry (&log, G_PRIORITY_DEFAULT, (int) i);
  util_loop_shut_down (fixture->loop);
  log_assert_ascending (&log, n);
  log_clear (&log);
}

static void
test_order_over_post_and_call (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Entry last;
  Log log;

  log_init (&log, loop);
  last = (Entry){ &log, 20 };
  util_block (&block, loop);
  for (int i = 0; i < 20; i += 2)
    {
      Entry *entry = g_new (Entry, 1);

      *entry = (Entry){ &log, i };
      bg_loop_call_async (loop, G_PRIORITY_DEFAULT, -1, entry_call_cb, entry, g_free, NULL, NULL,
                          NULL);
      post_entry (&log, G_PRIORITY_DEFAULT, i + 1);
    }
  util_unblock (&block);
  g_assert_true (bg_loop_call (loop, entry_call_cb, &last, NULL, NULL));
  util_loop_shut_down (loop);
  log_assert_ascending (&log, 21);
  util_block_clear (&block);
  log_clear (&log);
}

typedef struct
{
  Log log;
  GMutex lock;
  int next; /* under lock */
  int n;
} Turns;

static gpointer
turns_thread (gpointer data)
{
  Turns *self = data;
  gboolean more = TRUE;

  while (more)
    {
      g_mutex_lock (&self->lock);
      more = self->next < self->n;
      if (more)
        post_entry (&self->log, G_PRIORITY_DEFAULT, self->next++);
      g_mutex_unlock (&self->lock);
    }

  return NULL;
}

/* Whoever posts after another, posts after it on the loop. */
static void
test_order_over_threads (BgTestFixture *fixture, gconstpointer data)
{
  Turns turns = { .n = (int) util_scale (20000) };

  log_init (&turns.log, fixture->loop);
  g_mutex_init (&turns.lock);
  util_run_threads (8, turns_thread, &turns);
  util_loop_shut_down (fixture->loop);
  log_assert_ascending (&turns.log, (guint) turns.n);
  g_mutex_clear (&turns.lock);
  log_clear (&turns.log);
}

#define N_THREADS 50
#define N_EACH    100

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int n_started; /* atomic */
  int n_destroyed;
  int next[N_THREADS];
} Crowd;

typedef struct
{
  Crowd *crowd;
  int thread;
  int number;
} CrowdWork;

static void
crowd_cb (gpointer user_data)
{
  CrowdWork *work = user_data;

  g_assert_cmpint (work->number, ==, work->crowd->next[work->thread]);
  work->crowd->next[work->thread]++;
}

static void
crowd_destroy (gpointer user_data)
{
  CrowdWork *work = user_data;

  work->crowd->n_destroyed++;
  g_free (work);
}

static gpointer
crowd_thread (gpointer data)
{
  Crowd *self = data;
  int thread = g_atomic_int_add (&self->n_started, 1);

  util_latch_count_down (&self->start);
  util_latch_wait (&self->start);
  for (int i = 0; i < N_EACH; i++)
    {
      CrowdWork *work = g_new (CrowdWork, 1);

      *work = (CrowdWork){ self, thread, i };
      g_assert_true (bg_loop_post (self->loop, crowd_cb, work, crowd_destroy));
    }

  return NULL;
}

static void
test_50_threads (void)
{
  for (guint round = 0; round < util_scale (20); round++)
    {
      Crowd crowd = { .loop = util_loop_new ("post") };

      util_latch_init (&crowd.start, N_THREADS);
      util_run_threads (N_THREADS, crowd_thread, &crowd);
      util_loop_end (crowd.loop);
      g_assert_cmpint (crowd.n_destroyed, ==, N_THREADS * N_EACH);
      for (guint i = 0; i < N_THREADS; i++)
        g_assert_cmpint (crowd.next[i], ==, N_EACH);
      util_latch_clear (&crowd.start);
    }
}

static void
test_idle_loop_wakes_up (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < util_scale (10000); i++)
    {
      UtilLatch latch;

      util_latch_init (&latch, 1);
      g_assert_true (bg_loop_post (fixture->loop, util_count_down_cb, &latch, NULL));
      util_latch_wait (&latch);
      util_latch_clear (&latch);
    }
}

/* Priorities */

static void
test_priority_order (BgTestFixture *fixture, gconstpointer data)
{
  static const int expected[] = { 5, 4, 1, 6, 3, 7, 2, 8 };
  UtilBlock block;
  Log log;

  log_init (&log, fixture->loop);
  util_block (&block, fixture->loop);
  post_entry (&log, G_PRIORITY_DEFAULT, 1);
  post_entry (&log, G_PRIORITY_LOW, 2);
  post_entry (&log, G_PRIORITY_DEFAULT_IDLE, 3);
  post_entry (&log, G_PRIORITY_HIGH, 4);
  post_entry (&log, G_MININT, 5);
  post_entry (&log, G_PRIORITY_DEFAULT, 6);
  post_entry (&log, G_PRIORITY_DEFAULT_IDLE, 7);
  post_entry (&log, G_MAXINT, 8);
  util_unblock (&block);
  util_loop_shut_down (fixture->loop);
  log_assert (&log, G_N_ELEMENTS (expected), expected);
  util_block_clear (&block);
  log_clear (&log);
}

static void
urgent_cb (gpointer user_data)
{
  post_entry (user_data, G_PRIORITY_HIGH, -1);
}

/* More urgent work does not wait until a long queue is empty. */
static void
test_priority_overtakes (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  guint before = 0;
  Log log;

  log_init (&log, loop);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, urgent_cb, &log, NULL));
  for (int i = 0; i < 10000; i++)
    post_entry (&log, G_PRIORITY_DEFAULT, i);
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));

  while (g_array_index (log.values, int, before) != -1)
    before++;
  g_assert_cmpuint (before, <, 1000);
  g_array_remove_index (log.values, before);
  log_assert_ascending (&log, 10000);

  util_loop_shut_down (loop);
  util_block_clear (&block);
  log_clear (&log);
}

/* Fairness */

typedef struct
{
  BgLoop *loop;
  int priority;
  gboolean stopped; /* atomic */
} Flood;

static void
flood_cb (gpointer user_data)
{
  Flood *self = user_data;

  if (!g_atomic_int_get (&self->stopped))
    g_assert_true (bg_loop_post_full (self->loop, self->priority, flood_cb, self, NULL));
}

static gboolean
open_fd_cb (int fd, GIOCondition condition, gpointer user_data)
{
  util_latch_count_down (user_data);
  return G_SOURCE_REMOVE;
}

static void
attach_timer (BgLoop *loop, int priority, UtilLatch *latch)
{
  g_autoptr (GSource) source = g_timeout_source_new (1);

  g_source_set_priority (source, priority);
  g_source_set_callback (source, util_count_down_source_cb, latch, NULL);
  g_source_attach (source, bg_loop_get_context (loop));
}

static void
attach_idle (BgLoop *loop, int priority, UtilLatch *latch)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, priority);
  g_source_set_callback (source, util_count_down_source_cb, latch, NULL);
  g_source_attach (source, bg_loop_get_context (loop));
}

static void
attach_fd (BgLoop *loop, int fd, UtilLatch *latch)
{
  g_autoptr (GSource) source = g_unix_fd_source_new (fd, G_IO_IN);

  g_source_set_callback (source, G_SOURCE_FUNC (open_fd_cb), latch, NULL);
  g_source_attach (source, bg_loop_get_context (loop));
}

/* Waits until one of everything has had its turn. */
static void
wait_for_a_turn_each (BgLoop *loop)
{
  UtilLatch latch;
  int fds[2];

  g_assert_true (g_unix_open_pipe (fds, FD_CLOEXEC, NULL));
  util_latch_init (&latch, 9);

  attach_timer (loop, G_PRIORITY_DEFAULT, &latch);
  attach_timer (loop, G_PRIORITY_LOW, &latch);
  attach_idle (loop, G_PRIORITY_DEFAULT_IDLE, &latch);
  attach_idle (loop, G_MAXINT, &latch);
  attach_fd (loop, fds[0], &latch);
  g_assert_cmpint (write (fds[1], "", 1), ==, 1);
  g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, util_count_down_cb, &latch, NULL));
  g_assert_true (bg_loop_post_full (loop, G_MAXINT, util_count_down_cb, &latch, NULL));
  g_assert_true (bg_loop_post_after (loop, 1, util_count_down_cb, &latch, NULL) != 0);
  g_assert_true (
      bg_loop_invoke_full (loop, G_PRIORITY_LOW, util_count_down_source_cb, &latch, NULL));

  util_latch_wait (&latch);
  util_latch_clear (&latch);
  close (fds[0]);
  close (fds[1]);
}

static void
test_for_ever_does_not_starve (BgTestFixture *fixture, gconstpointer data)
{
  Flood flood = { .loop = fixture->loop, .priority = GPOINTER_TO_INT (data) };

  flood_cb (&flood);
  for (guint i = 0; i < util_scale (20); i++)
    wait_for_a_turn_each (flood.loop);
  g_atomic_int_set (&flood.stopped, TRUE);
  util_loop_shut_down (flood.loop);
}

/* Two that each have work for ever, at two priorities. */
static void
test_for_ever_twice_does_not_starve (BgTestFixture *fixture, gconstpointer data)
{
  Flood flood = { .loop = fixture->loop, .priority = G_PRIORITY_DEFAULT };
  Flood urgent = { .loop = fixture->loop, .priority = G_PRIORITY_HIGH };

  flood_cb (&flood);
  flood_cb (&urgent);
  for (guint i = 0; i < util_scale (20); i++)
    wait_for_a_turn_each (fixture->loop);
  g_atomic_int_set (&flood.stopped, TRUE);
  g_atomic_int_set (&urgent.stopped, TRUE);
  util_loop_shut_down (fixture->loop);
}

/* Not faster than the loop, or the queue would eat up the memory. */
static gpointer
flood_thread (gpointer data)
{
  Flood *self = data;

  while (!g_atomic_int_get (&self->stopped))
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (self->loop);

      for (guint i = 0; stats->queued < 10000 && i < 1000; i++)
        g_assert_true (bg_loop_post (self->loop, util_nothing_cb, NULL, NULL));
    }

  return NULL;
}

static void
test_flood_does_not_starve (BgTestFixture *fixture, gconstpointer data)
{
  Flood flood = { .loop = fixture->loop };
  GThread *threads[3];

  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("flood", flood_thread, &flood);
  for (guint i = 0; i < util_scale (20); i++)
    wait_for_a_turn_each (flood.loop);
  g_atomic_int_set (&flood.stopped, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
}

/* Refused */

static void
note_thread_destroy (gpointer user_data)
{
  Log *log = user_data;

  g_assert_true (g_thread_self () == log->thread);
  log_add (log, 0);
}

static void
test_refused_after_shutdown (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  Log log;

  log_init (&log, loop);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &log, note_thread_destroy));
  g_assert_cmpuint (log.values->len, ==, 1);
  g_assert_false (
      bg_loop_post_full (loop, G_PRIORITY_LOW, util_not_reached_cb, &log, note_thread_destroy));
  g_assert_cmpuint (log.values->len, ==, 2);
  g_assert_false (bg_loop_post (loop, util_not_reached_cb, NULL, NULL));
  log_clear (&log);
}

static void
test_refused_while_stopping (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Log log;

  log_init (&log, loop);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, overtake_cb, &log, NULL));
  post_entry (&log, G_PRIORITY_DEFAULT, 1);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &log, note_thread_destroy));
  log_assert (&log, 1, (int[]){ 0 });
  g_array_set_size (log.values, 0);

  /* Meanwhile the loop's own code may post. */
  util_unblock (&block);
  util_loop_shut_down (loop);
  log_assert_ascending (&log, 3);
  util_block_clear (&block);
  log_clear (&log);
}

static void
post_into_the_end_destroy (gpointer user_data)
{
  Log *log = user_data;

  /* The refusal may post, too: nothing is locked. */
  g_assert_false (bg_loop_post (log->loop, util_not_reached_cb, log, note_thread_destroy));
}

static void
test_refused_destroy_may_post (BgTestFixture *fixture, gconstpointer data)
{
  Log log;

  log_init (&log, fixture->loop);
  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  g_assert_false (
      bg_loop_post (fixture->loop, util_not_reached_cb, &log, post_into_the_end_destroy));
  g_assert_cmpuint (log.values->len, ==, 1);
  log_clear (&log);
}

/* Within a function that iterates the context itself */

static void
nested_cb (gpointer user_data)
{
  Log *log = user_data;

  log_add (log, 0);
  while (log->values->len < 1001)
    g_main_context_iteration (bg_loop_get_context (log->loop), TRUE);
}

static void
test_nested_iteration_keeps_order (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilBlock block;
  Log log;

  log_init (&log, loop);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, nested_cb, &log, NULL));
  for (int i = 1; i <= 2000; i++)
    post_entry (&log, G_PRIORITY_DEFAULT, i);
  util_unblock (&block);
  util_loop_shut_down (loop);
  log_assert_ascending (&log, 2001);
  util_block_clear (&block);
  log_clear (&log);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/post/elsewhere/is-queued", test_elsewhere_is_queued);
  util_add ("/post/own-thread/is-queued", test_own_thread_is_queued);
  util_add ("/post/own-thread/does-not-overtake", test_own_thread_does_not_overtake);
  util_add ("/post/destroy/follows-on-the-loop", test_destroy_follows_on_the_loop);
  util_add ("/post/destroy/may-post", test_destroy_may_post);
  util_add ("/post/order/fifo", test_order_fifo);
  util_add ("/post/order/over-post-and-call", test_order_over_post_and_call);
  util_add ("/post/order/over-threads", test_order_over_threads);
  g_test_add_func ("/post/50-threads/each-once-and-in-order", test_50_threads);
  util_add ("/post/idle-loop/wakes-up", test_idle_loop_wakes_up);
  util_add ("/post/priority/more-urgent-first", test_priority_order);
  util_add ("/post/priority/does-not-wait-for-a-long-queue", test_priority_overtakes);
  util_add_data ("/post/for-ever/does-not-starve", test_for_ever_does_not_starve,
                 GINT_TO_POINTER (G_PRIORITY_DEFAULT));
  util_add_data ("/post/for-ever/urgent-does-not-starve", test_for_ever_does_not_starve,
                 GINT_TO_POINTER (G_PRIORITY_HIGH));
  util_add_data ("/post/for-ever/most-urgent-does-not-starve", test_for_ever_does_not_starve,
                 GINT_TO_POINTER (G_MININT));
  util_add ("/post/for-ever/two-do-not-starve", test_for_ever_twice_does_not_starve);
  util_add ("/post/flood/does-not-starve", test_flood_does_not_starve);
  util_add ("/post/refused/after-shutdown", test_refused_after_shutdown);
  util_add ("/post/refused/while-stopping", test_refused_while_stopping);
  util_add ("/post/refused/destroy-may-post", test_refused_destroy_may_post);
  util_add ("/post/nested-iteration/keeps-order", test_nested_iteration_keeps_order);

  return g_test_run ();
}
