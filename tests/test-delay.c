/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

#define N_DELAYS 30

/* None runs early, what is due earlier runs earlier, and of what was given with
 * the same delay the first comes first. */

typedef struct
{
  BgLoop *loop;
  UtilLatch done;
  gint64 latest_due;             /* of what has run: at least */
  guint last_of_delay[N_DELAYS]; /* the number of the last that ran, from 1 */
} Order;

typedef struct
{
  Order *order;
  guint delay;
  guint number;
  gint64 after;  /* it was given after this moment */
  gint64 before; /* and before this one */
} Timed;

static void
timed_cb (gpointer user_data)
{
  Timed *self = user_data;
  Order *order = self->order;
  gint64 delay = (gint64) self->delay * G_TIME_SPAN_MILLISECOND;

  g_assert_true (bg_loop_is_current (order->loop));
  g_assert_cmpint (g_get_monotonic_time (), >=, self->after + delay);
  g_assert_cmpint (self->before + delay, >=, order->latest_due);
  g_assert_cmpuint (self->number, >, order->last_of_delay[self->delay]);
  order->latest_due = MAX (order->latest_due, self->after + delay);
  order->last_of_delay[self->delay] = self->number;
}

static void
timed_destroyed_cb (gpointer user_data)
{
  Order *order = ((Timed *) user_data)->order;

  g_assert_true (bg_loop_is_current (order->loop));
  g_free (user_data);
  util_latch_count_down (&order->done);
}

static void
add_timed (Order *order, guint number)
{
  Timed *self = g_new0 (Timed, 1);

  self->order = order;
  self->number = number;
  self->delay = (guint) g_test_rand_int_range (0, N_DELAYS);
  self->after = g_get_monotonic_time ();
  g_assert_cmpuint (bg_loop_post_after (order->loop, self->delay, timed_cb, self,
                                        timed_destroyed_cb),
                    !=, 0);
  self->before = g_get_monotonic_time ();
}

/* On the loop itself, where none runs before all are there. */
static gboolean
add_many_cb (gpointer user_data, GError **error)
{
  Order *order = user_data;
  guint n = order->done.count;

  for (guint i = 1; i <= n; i++)
    add_timed (order, i);
  return TRUE;
}

static void
test_order (BgTestFixture *fixture, gconstpointer data)
{
  Order self = { fixture->loop };

  util_latch_init (&self.done, util_scale (10000));
  g_assert_true (bg_loop_call (self.loop, add_many_cb, &self, NULL, NULL));
  util_latch_wait (&self.done);
  util_latch_clear (&self.done);
}

/* Cancelling */

typedef struct
{
  BgLoop *loop;
  UtilLatch destroyed;
} Cancelled;

static void
destroyed_there_cb (gpointer user_data)
{
  Cancelled *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  util_latch_count_down (&self->destroyed);
}

static void
test_cancel (BgTestFixture *fixture, gconstpointer data)
{
  Cancelled self = { fixture->loop };
  guint64 work;

  util_latch_init (&self.destroyed, 1);
  work = bg_loop_post_after (self.loop, G_MAXINT, util_not_reached_cb, &self, destroyed_there_cb);
  g_assert_cmpuint (work, !=, 0);
  g_assert_true (bg_loop_withdraw (self.loop, work));
  g_assert_false (bg_loop_withdraw (self.loop, work));
  g_assert_false (bg_loop_withdraw (self.loop, 0));
  g_assert_false (bg_loop_withdraw (self.loop, work + 1));

  /* While the loop runs, too, the destroy comes soon. */
  util_latch_wait (&self.destroyed);
  util_latch_clear (&self.destroyed);
}

/* Due, even queued, but not started: it can still be taken back. */
static void
test_cancel_due (void)
{
  Cancelled self = { util_loop_new ("due") };
  guint64 works[10];
  int ran = 0;
  UtilBlock block;

  util_latch_init (&self.destroyed, G_N_ELEMENTS (works) / 2);
  util_block (&block, self.loop);
  for (guint i = 0; i < G_N_ELEMENTS (works); i++)
    {
      if (i % 2 == 0)
        works[i]
            = bg_loop_post_after (self.loop, 0, util_not_reached_cb, &self, destroyed_there_cb);
      else
        works[i] = bg_loop_post_after (self.loop, 0, util_count_cb, &ran, NULL);
    }
  for (guint i = 0; i < G_N_ELEMENTS (works); i += 2)
    g_assert_true (bg_loop_withdraw (self.loop, works[i]));
  util_unblock (&block);
  util_latch_wait (&self.destroyed);
  util_loop_end (self.loop);
  g_assert_cmpint (ran, ==, G_N_ELEMENTS (works) / 2);
  util_block_clear (&block);
  util_latch_clear (&self.destroyed);
}

/* In the batch in which the first takes back the others, that are queued. */

typedef struct
{
  BgLoop *loop;
  guint64 works[10];
  UtilLatch done;
  int taken;
  int ran;
  int destroyed;
} Batch;

static void
take_back_cb (gpointer user_data)
{
  Batch *self = user_data;

  self->ran++;
  for (guint i = 0; i < G_N_ELEMENTS (self->works); i++)
    self->taken += bg_loop_withdraw (self->loop, self->works[i]);
}

static void
batch_destroyed_cb (gpointer user_data)
{
  Batch *self = user_data;

  self->destroyed++;
  util_latch_count_down (&self->done);
}

static void
test_cancel_queued (void)
{
  Batch self = { util_loop_new ("queued") };
  UtilBlock block;

  util_latch_init (&self.done, G_N_ELEMENTS (self.works));
  util_block (&block, self.loop);
  for (guint i = 0; i < G_N_ELEMENTS (self.works); i++)
    self.works[i] = bg_loop_post_after (self.loop, 0, take_back_cb, &self, batch_destroyed_cb);
  util_unblock (&block);
  util_latch_wait (&self.done);
  util_loop_end (self.loop);

  /* Itself it cannot: it has started. */
  g_assert_cmpint (self.ran, ==, 1);
  g_assert_cmpint (self.taken, ==, G_N_ELEMENTS (self.works) - 1);
  g_assert_cmpint (self.destroyed, ==, G_N_ELEMENTS (self.works));
  util_block_clear (&block);
  util_latch_clear (&self.done);
}

/* Whoever wins, the work ran or it was taken back, and cancel() knows which. */
static void
test_cancel_race (void)
{
  BgLoop *loop = util_loop_new ("race");
  int taken = 0, ran = 0, destroyed = 0;
  guint n = util_scale (5000);

  for (guint i = 0; i < n; i++)
    {
      guint64 work = bg_loop_post_after (loop, 0, util_count_cb, &ran, NULL);
      guint64 other = bg_loop_post_after (loop, 0, util_nothing_cb, &destroyed, util_count_cb);

      if (i % 3 != 0)
        (void) bg_loop_flush (loop, -1, NULL, NULL);
      taken += bg_loop_withdraw (loop, work);
      (void) bg_loop_withdraw (loop, other);
    }

  util_loop_end (loop);
  g_assert_cmpint (ran + taken, ==, n);
  g_assert_cmpint (destroyed, ==, n);
}

static void
test_ids (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);

  for (guint i = 0; i < util_scale (10000); i++)
    {
      guint64 work
          = bg_loop_post_after (loop, i % 2 == 0 ? 0 : G_MAXINT, util_nothing_cb, NULL, NULL);

      g_assert_cmpuint (work, !=, 0);
      g_assert_true (g_hash_table_add (seen, g_memdup2 (&work, sizeof work)));
      if (i % 3 == 0)
        (void) bg_loop_withdraw (loop, work);
    }
}

/* The end */

/* What is not due is dropped, and its destroy runs on the loop's thread. */
static void
run_dropped (BgShutdownMode mode)
{
  Cancelled self = { util_loop_new ("dropped") };
  guint n = util_scale (10000);
  guint64 work = 0;

  util_latch_init (&self.destroyed, n);
  for (guint i = 0; i < n; i++)
    work = bg_loop_post_after (self.loop, 1000 * 1000 + i % 7, util_not_reached_cb, &self,
                               destroyed_there_cb);
  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
  g_assert_true (util_latch_is_open (&self.destroyed));
  g_assert_false (bg_loop_withdraw (self.loop, work));
  util_loop_end (self.loop);
  util_latch_clear (&self.destroyed);
}

static void
test_dropped (void)
{
  run_dropped (BG_SHUTDOWN_DRAIN);
  run_dropped (BG_SHUTDOWN_CANCEL);
}

/* In a teardown of a loop that drains, and from a destroy on the way, it can still be
 * taken back: it has not started, and never will. Its destroy runs once, before the loop is gone.
 */

#define N_LEFT 6

typedef struct
{
  BgLoop *loop;
  guint64 works[N_LEFT];
  int destroyed[N_LEFT];
  gboolean elsewhere;
} Teardown;

static void
assert_cancelled (Teardown *self, guint n)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (self->loop);

  g_assert_cmpuint (stats->cancelled, ==, n);
}

static gpointer
take_back_thread (gpointer data)
{
  Teardown *self = data;

  g_assert_true (bg_loop_withdraw (self->loop, self->works[2]));
  g_assert_false (bg_loop_withdraw (self->loop, self->works[2]));
  return NULL;
}

static void
take_back_in_teardown_cb (gpointer user_data)
{
  Teardown *self = user_data;

  assert_cancelled (self, 0);
  g_assert_true (bg_loop_withdraw (self->loop, self->works[0]));
  g_assert_false (bg_loop_withdraw (self->loop, self->works[0]));
  g_assert_true (bg_loop_withdraw (self->loop, self->works[1]));
  if (self->elsewhere)
    g_thread_join (g_thread_new ("elsewhere", take_back_thread, self));
  else
    take_back_thread (self);
  g_assert_false (bg_loop_withdraw (self->loop, 0));
  assert_cancelled (self, 3);
  for (guint i = 0; i < N_LEFT; i++)
    g_assert_cmpint (self->destroyed[i], ==, 0);
}

/* The fourth takes the fifth back; the others, itself included, have had their
 * outcome. */
static void
destroyed_in_teardown_cb (gpointer user_data)
{
  int *destroyed = *(int **) user_data;
  Teardown *self = ((gpointer *) user_data)[1];
  gssize number = destroyed - self->destroyed;

  g_assert_true (bg_loop_is_current (self->loop));
  (*destroyed)++;
  g_free (user_data);
  if (number != 3)
    return;

  for (guint i = 0; i < N_LEFT - 1; i++)
    g_assert_cmpint (bg_loop_withdraw (self->loop, self->works[i]), ==, i == 4);
}

static void
run_teardown (BgShutdownMode mode, gboolean elsewhere)
{
  Teardown self = { util_loop_new ("teardown") };

  self.elsewhere = elsewhere;
  for (guint i = 0; i < N_LEFT; i++)
    {
      gpointer *data = g_new (gpointer, 2);

      data[0] = &self.destroyed[i];
      data[1] = &self;
      self.works[i] = bg_loop_post_after (self.loop, 1000 * 1000 + i, util_not_reached_cb, data,
                                          destroyed_in_teardown_cb);
      g_assert_cmpuint (self.works[i], !=, 0);
    }
  g_assert_true (bg_loop_add_teardown (self.loop, take_back_in_teardown_cb, &self, NULL));
  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));

  for (guint i = 0; i < N_LEFT; i++)
    {
      g_assert_cmpint (self.destroyed[i], ==, 1);
      g_assert_false (bg_loop_withdraw (self.loop, self.works[i]));
    }
  assert_cancelled (&self, N_LEFT);
  util_loop_end (self.loop);
}

static void
test_teardown (void)
{
  run_teardown (BG_SHUTDOWN_DRAIN, FALSE);
  run_teardown (BG_SHUTDOWN_DRAIN, TRUE);
}

/* What is due counts as accepted: DRAIN runs it, CANCEL does not. */
static void
run_due (BgShutdownMode mode)
{
  BgLoop *loop = util_loop_new ("due");
  int ran = 0, destroyed = 0;
  UtilBlock block;

  util_block (&block, loop);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_count_cb, &ran, NULL), !=, 0);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_nothing_cb, &destroyed, util_count_cb), !=,
                    0);
  bg_loop_quit (loop, mode);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
  g_assert_cmpint (ran, ==, mode == BG_SHUTDOWN_DRAIN ? 1 : 0);
  g_assert_cmpint (destroyed, ==, 1);
}

static void
test_due (void)
{
  run_due (BG_SHUTDOWN_DRAIN);
  run_due (BG_SHUTDOWN_CANCEL);
}

/* A held loop runs what becomes due while it stops. */
static void
test_due_while_stopping (void)
{
  BgLoop *loop = util_loop_new ("stopping");
  guint64 hold = bg_loop_hold (loop, "delay");
  UtilLatch done;

  util_latch_init (&done, 1);
  g_assert_cmpuint (bg_loop_post_after (loop, 20, (BgPostFunc) util_latch_count_down, &done, NULL),
                    !=, 0);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_latch_wait (&done);
  bg_loop_release (loop, hold);
  util_loop_end (loop);
  util_latch_clear (&done);
}

/* Data that is only to be destroyed is no work that is queued, before or after. */
static void
test_cancelled_is_not_queued (void)
{
  BgLoop *loop = util_loop_new ("not queued");
  g_autoptr (BgLoopStats) before = NULL, after = NULL;
  guint64 id = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, loop, util_nothing_cb);
  UtilBlock block;

  util_block (&block, loop);
  g_assert_true (bg_loop_withdraw (loop, id));
  before = bg_loop_get_stats (loop);
  g_assert_cmpuint (before->queued, ==, 0);
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_block_clear (&block);

  util_block (&block, loop);
  for (guint i = 0; i < 3; i++)
    g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
  after = bg_loop_get_stats (loop);
  g_assert_cmpuint (after->queued, ==, 3);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* Work that is due sooner than all that is there already does not wait for that, nor for
 * anything else to wake the loop. */

static void
assert_comes_soon (BgLoop *loop)
{
  UtilLatch done;

  util_latch_init (&done, 1);
  util_wait_until_asleep (loop);
  g_assert_cmpuint (bg_loop_post_after (loop, 1, util_count_down_cb, &done, NULL), !=, 0);
  util_latch_wait (&done);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_latch_clear (&done);
}

static void
test_sooner (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;

  assert_comes_soon (loop);
  for (guint i = 0; i < util_scale (20); i++)
    {
      guint64 late = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, NULL, NULL);

      assert_comes_soon (loop);
      g_assert_true (bg_loop_withdraw (loop, late));
      assert_comes_soon (loop);
    }
}

/* It comes at the default priority, behind more urgent work. */

static void
append_cb (gpointer user_data)
{
  gconstpointer *data = user_data;

  g_string_append ((GString *) data[0], data[1]);
}

static void
test_priority (void)
{
  BgLoop *loop = util_loop_new ("priority");
  g_autoptr (GString) order = g_string_new (NULL);
  gconstpointer urgent[] = { order, "urgent " }, due[] = { order, "due " },
                low[] = { order, "low" };
  UtilBlock block;

  util_block (&block, loop);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, append_cb, due, NULL), !=, 0);
  g_assert_true (bg_loop_post_full (loop, 1, append_cb, low, NULL));
  g_assert_true (bg_loop_post_full (loop, -1, append_cb, urgent, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  g_assert_cmpstr (order->str, ==, "urgent due low");
  util_block_clear (&block);
}

/* What one took is there for the next. */

typedef struct
{
  BgLoop *loop;
  guint left;
  UtilLatch done;
} Chain;

static void
chain_cb (gpointer user_data)
{
  Chain *self = user_data;

  if (self->left-- > 0)
    g_assert_cmpuint (bg_loop_post_after (self->loop, 0, chain_cb, self, NULL), !=, 0);
  else
    util_latch_count_down (&self->done);
}

static void
run_chain (Chain *self, guint n)
{
  self->left = n;
  util_latch_init (&self->done, 1);
  g_assert_true (bg_loop_post (self->loop, chain_cb, self, NULL));
  util_latch_wait (&self->done);
  util_latch_clear (&self->done);
}

static void
test_place (BgTestFixture *fixture, gconstpointer data)
{
  Chain self = { fixture->loop };
  gsize before, after;

  run_chain (&self, 100);
  before = util_get_allocated ();
  run_chain (&self, 5000);
  after = util_get_allocated ();
  g_assert_cmpuint (after, <, before + 64 * 1024);
}

/* The loop sleeps until the work is due, and not just until the millisecond before: how often it
 * has prepared its context says so. */

#define N_SLEPT         50
#define MOST_ITERATIONS 20 /* for each: the loop is woken, and then it is due */

typedef struct
{
  GSource source;
  guint n_iterations;
} Counting;

static gboolean
counting_prepare (GSource *source, int *timeout)
{
  ((Counting *) source)->n_iterations++;
  *timeout = -1;
  return FALSE;
}

static GSourceFuncs counting_funcs = { .prepare = counting_prepare };

static void
test_sleeps (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  GSource *source = g_source_new (&counting_funcs, sizeof (Counting));

  g_source_set_priority (source, G_PRIORITY_HIGH); /* or it is not prepared when others are ready */
  g_assert_true (bg_loop_attach (loop, source));
  for (guint i = 0; i < N_SLEPT; i++)
    {
      UtilLatch done;

      util_latch_init (&done, 1);
      g_assert_cmpuint (bg_loop_post_after (loop, 2, util_count_down_cb, &done, NULL), !=, 0);
      util_latch_wait (&done);
      util_latch_clear (&done);
    }
  util_loop_shut_down (loop);
  g_assert_cmpuint (((Counting *) source)->n_iterations, <=, N_SLEPT * MOST_ITERATIONS);
  g_source_unref (source);
}

/* Refused: destroyed here and at once. */
static void
test_refused (void)
{
  BgLoop *loop = util_loop_new ("refused");
  int destroyed = 0;

  util_loop_shut_down (loop);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, &destroyed, util_count_cb),
                    ==, 0);
  g_assert_cmpint (destroyed, ==, 1);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, NULL, NULL), ==, 0);
  g_assert_finalize_object (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped_with_loop ("/delay/order", test_order);
  util_add_trapped_with_loop ("/delay/sooner", test_sooner);
  util_add_trapped_with_loop ("/delay/sleeps", test_sleeps);
  util_add_trapped ("/delay/priority", test_priority);
  util_add_trapped_with_loop ("/delay/place-is-used-again", test_place);
  util_add_trapped_with_loop ("/delay/ids", test_ids);
  util_add_trapped_with_loop ("/delay/cancel", test_cancel);
  util_add_trapped ("/delay/cancel/due", test_cancel_due);
  util_add_trapped ("/delay/cancel/queued", test_cancel_queued);
  util_add_trapped ("/delay/cancel/not-queued", test_cancelled_is_not_queued);
  util_add_trapped ("/delay/cancel/race", test_cancel_race);
  util_add_trapped ("/delay/end/dropped", test_dropped);
  util_add_trapped ("/delay/end/teardown", test_teardown);
  util_add_trapped ("/delay/end/due", test_due);
  util_add_trapped ("/delay/end/due-while-stopping", test_due_while_stopping);
  util_add_trapped ("/delay/refused", test_refused);

  return g_test_run ();
}
