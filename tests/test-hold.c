/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <time.h>

#include "util.h"

static guint
count_holds (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

  return stats->holds;
}

static void
assert_held (BgLoop *loop, BgShutdownMode mode)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (loop, mode, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

/* Either mode waits for all holds, in whatever order they go. */
static void
run_keeps (BgShutdownMode mode)
{
  BgLoop *loop = util_loop_new ("held");
  guint64 holds[3];

  for (guint i = 0; i < G_N_ELEMENTS (holds); i++)
    {
      holds[i] = bg_loop_hold (loop, NULL);
      g_assert_cmpuint (holds[i], !=, 0);
      g_assert_cmpuint (count_holds (loop), ==, i + 1);
    }
  g_assert_cmpuint (holds[0], !=, holds[1]);
  g_assert_cmpuint (holds[1], !=, holds[2]);

  assert_held (loop, mode);
  bg_loop_release (loop, holds[1]);
  assert_held (loop, mode);
  bg_loop_release (loop, holds[0]);
  assert_held (loop, mode);
  g_assert_cmpuint (count_holds (loop), ==, 1);
  bg_loop_release (loop, holds[2]);
  util_loop_end (loop);
}

static void
test_keeps (void)
{
  run_keeps (BG_SHUTDOWN_DRAIN);
  run_keeps (BG_SHUTDOWN_CANCEL);
}

/* A held loop goes on with all that lives on it until it is released. */

typedef struct
{
  BgLoop *loop;
  guint64 hold;
  guint left;
} Ticks;

static gboolean
tick_cb (gpointer user_data)
{
  Ticks *self = user_data;

  if (--self->left > 0)
    return G_SOURCE_CONTINUE;

  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPING);
  bg_loop_release (self->loop, self->hold);
  return G_SOURCE_REMOVE;
}

static void
run_lives_on (BgShutdownMode mode)
{
  Ticks self = { util_loop_new ("ticks"), 0, 5 };
  g_autoptr (GSource) source = g_timeout_source_new (1);
  UtilBlock block;

  util_block (&block, self.loop);
  self.hold = bg_loop_hold (self.loop, "ticks");
  g_source_set_callback (source, tick_cb, &self, NULL);
  g_assert_true (bg_loop_attach (self.loop, source));
  bg_loop_quit (self.loop, mode);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpuint (self.left, ==, 0);
}

static void
test_lives_on (void)
{
  run_lives_on (BG_SHUTDOWN_DRAIN);
  run_lives_on (BG_SHUTDOWN_CANCEL);
}

/* DRAIN: code on the loop may take holds; another thread may not. */

typedef struct
{
  BgLoop *loop;
  UtilLatch taken;
  guint64 hold;
} Late;

static void
hold_late_cb (gpointer user_data)
{
  Late *self = user_data;

  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPING);
  self->hold = bg_loop_hold (self->loop, "late");
  util_latch_count_down (&self->taken);
}

static void
run_late (BgShutdownMode mode)
{
  Late self = { util_loop_new ("late") };
  guint64 early = bg_loop_hold (self.loop, "early");
  UtilBlock block;

  util_latch_init (&self.taken, 1);
  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, hold_late_cb, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpuint (bg_loop_hold (self.loop, "refused"), ==, 0);
  util_unblock (&block);
  util_latch_wait (&self.taken);
  bg_loop_release (self.loop, early);

  g_assert_cmpuint (self.hold, !=, 0);
  assert_held (self.loop, mode);
  bg_loop_release (self.loop, self.hold);
  util_loop_end (self.loop);
  util_block_clear (&block);
  util_latch_clear (&self.taken);
}

static void
test_late (void)
{
  run_late (BG_SHUTDOWN_DRAIN);
  run_late (BG_SHUTDOWN_CANCEL);
}

/* What is not held is a critical, and harmless. */
static void
test_not_held (void)
{
  BgLoop *loop = util_loop_new ("not held");
  guint64 hold = bg_loop_hold (loop, "once");

  util_catch_criticals ();
  bg_loop_release (loop, 0);
  util_take_critical ("*no hold 0*");
  bg_loop_release (loop, hold + 1);
  util_take_critical ("*not held*has no hold*");
  g_assert_cmpuint (count_holds (loop), ==, 1);
  bg_loop_release (loop, hold);
  bg_loop_release (loop, hold);
  util_take_critical ("*has no hold*");
  g_assert_true (bg_loop_shutdown (loop, NULL));
  bg_loop_release (loop, hold);
  util_take_critical ("*has no hold*");
  util_loop_end (loop);
}

/* From many threads at once, each released in another one than it was taken in */

typedef struct
{
  BgLoop *loop;
  GAsyncQueue *holds;
} Many;

static gpointer
take_thread (gpointer user_data)
{
  Many *self = user_data;

  for (guint i = 0; i < util_scale (1000); i++)
    {
      guint64 hold = bg_loop_hold (self->loop, "many");

      g_assert_cmpuint (hold, !=, 0);
      g_async_queue_push (self->holds, g_memdup2 (&hold, sizeof hold));
    }
  return NULL;
}

static gpointer
release_thread (gpointer user_data)
{
  Many *self = user_data;

  for (guint i = 0; i < util_scale (1000); i++)
    {
      g_autofree guint64 *hold = g_async_queue_pop (self->holds);

      bg_loop_release (self->loop, *hold);
    }
  return NULL;
}

static void
test_many (BgTestFixture *fixture, gconstpointer data)
{
  Many self = { fixture->loop, g_async_queue_new () };
  GThread *threads[6];

  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("many", i % 2 == 0 ? take_thread : release_thread, &self);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);

  g_assert_cmpuint (count_holds (self.loop), ==, 0);
  g_async_queue_unref (self.holds);
}

/* The last release wakes a loop that sleeps and stops. */
static void
test_release_wakes (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("wakes");
      guint64 hold = bg_loop_hold (loop, "asleep");
      GThread *thread = g_thread_new ("shutdown", util_shutdown_thread, loop);

      while (bg_loop_get_state (loop) == BG_LOOP_RUNNING)
        g_thread_yield ();
      bg_loop_release (loop, hold);
      g_thread_join (thread);
      util_loop_end (loop);
    }
}

/* However many there are, one costs the same, in whatever order they go: with many that
 * is not many times what it is with few. By the thread's own time, in which others do not
 * count, and of several tries the best. */

#define FEW  500
#define MANY 32000
#define MUCH 16 /* times as much: what walks along all of them takes MANY / FEW times as long */

typedef enum
{
  FIRST_FIRST,
  LAST_FIRST,
  MIDDLE_FIRST,
  N_ORDERS,
} Order;

static gint64
get_own_nsec (void)
{
  struct timespec now;

  g_assert_cmpint (clock_gettime (CLOCK_THREAD_CPUTIME_ID, &now), ==, 0);
  return (gint64) now.tv_sec * 1000 * 1000 * 1000 + now.tv_nsec;
}

static guint
nth (Order order, guint i, guint n)
{
  if (order == FIRST_FIRST)
    return i;
  return order == LAST_FIRST ? n - 1 - i : (n / 2 + i) % n;
}

/* So many nanoseconds for each */
static double
measure (BgLoop *loop, guint n, Order order)
{
  g_autofree guint64 *holds = g_new (guint64, n);
  gint64 start;

  for (guint i = 0; i < n; i++)
    holds[i] = bg_loop_hold (loop, "one of many");
  start = get_own_nsec ();
  for (guint i = 0; i < n; i++)
    bg_loop_release (loop, holds[nth (order, i, n)]);
  return (double) (get_own_nsec () - start) / n;
}

static double
least (double before, double now)
{
  return MIN (before, now);
}

static void
test_cost (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;

  for (Order order = 0; order < N_ORDERS; order++)
    {
      double few = G_MAXDOUBLE, many = G_MAXDOUBLE;

      for (guint i = 0; i < 20 && (i < 3 || many >= few * MUCH); i++)
        {
          for (guint j = 0; j < MANY / FEW; j++)
            few = least (few, measure (loop, FEW, order));
          many = least (many, measure (loop, MANY, order));
        }
      g_assert_cmpfloat (many, <, few * MUCH);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/hold/keeps-the-loop", test_keeps);
  util_add_trapped ("/hold/lives-on", test_lives_on);
  util_add_trapped ("/hold/late", test_late);
  util_add_trapped ("/hold/not-held", test_not_held);
  util_add_trapped_with_loop ("/hold/many", test_many);
  util_add_trapped_with_loop ("/hold/many/one-costs-the-same", test_cost);
  util_add_trapped ("/hold/release-wakes", test_release_wakes);

  return g_test_run ();
}
