/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdatomic.h>

#include "util.h"

/* What one thread did before, another one sees after: without a lock, by the order of memory that
 * an atomic variable of the loop brings about. A variable that is not atomic is written on one side
 * and read on the other, and nothing else puts the two in order. Where memory is seen in another
 * order than it was written in, what is read may be old; ThreadSanitizer reports the race on any
 * machine. */

/* After so many functions that take no time the loop does not look at the clock after each, by which
 * a batch that goes on for too long would end, with a lock. */
#define N_QUICK 40

#define N_ROUNDS 20

typedef struct
{
  BgLoop *loop;
  int value;           /* what is handed over */
  int seen;            /* what the other side found */
  _Atomic gboolean go; /* relaxed, which puts nothing in order */
  _Atomic gboolean in; /* the same */
} Handed;

static void
set_relaxed (_Atomic gboolean *flag)
{
  atomic_store_explicit (flag, TRUE, memory_order_relaxed);
}

static void
spin_relaxed (_Atomic gboolean *flag)
{
  while (!atomic_load_explicit (flag, memory_order_relaxed))
    g_thread_yield ();
}

static void
write_cb (gpointer user_data)
{
  Handed *self = user_data;

  self->value = 1;
}

/* Runs in one batch with what is posted after it. */
static void
stay_cb (gpointer user_data)
{
  Handed *self = user_data;

  set_relaxed (&self->in);
  spin_relaxed (&self->go);
}

static void
read_cb (gpointer user_data)
{
  Handed *self = user_data;

  self->seen = self->value;
}

static guint64
count_run (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

  return stats->run;
}

/* The loop has not locked anything since the function ran, and counts it. */
static void
test_counted (void)
{
  Handed self = { util_loop_new ("counted") };
  UtilBlock block;

  util_block (&block, self.loop);
  bg_loop_post (self.loop, write_cb, &self, NULL);
  bg_loop_post (self.loop, stay_cb, &self, NULL);
  util_unblock (&block);
  while (count_run (self.loop) < 2)
    g_thread_yield ();
  read_cb (&self);
  g_assert_cmpint (self.seen, ==, 1);
  set_relaxed (&self.go);
  util_loop_end (self.loop);
  util_block_clear (&block);
}

/* Nobody has joined the thread, or locked anything since it was told to end. */
static void
run_stopped (void)
{
  Handed self = { util_loop_new ("stopped") };
  UtilBlock block;

  util_block (&block, self.loop);
  bg_loop_post (self.loop, write_cb, &self, NULL);
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  while (bg_loop_get_state (self.loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  read_cb (&self);
  g_assert_cmpint (self.seen, ==, 1);
  util_loop_end (self.loop);
  util_block_clear (&block);
}

static void
test_stopped (void)
{
  for (guint i = 0; i < N_ROUNDS; i++)
    run_stopped ();
}

/* What was written before the loop was cancelled, the destroy notify of what does not run sees. */
static void
run_cancelled (void (*post) (Handed *self))
{
  Handed self = { util_loop_new ("cancelled") };
  UtilBlock block;

  util_block (&block, self.loop);
  for (guint i = 0; i < N_QUICK; i++)
    bg_loop_post (self.loop, util_nothing_cb, NULL, NULL);
  bg_loop_post (self.loop, stay_cb, &self, NULL);
  post (&self);
  util_unblock (&block);
  spin_relaxed (&self.in);
  self.value = 1;
  bg_loop_quit (self.loop, BG_SHUTDOWN_CANCEL);
  set_relaxed (&self.go);
  util_loop_end (self.loop);
  g_assert_cmpint (self.seen, ==, 1);
  util_block_clear (&block);
}

static void
post (Handed *self)
{
  bg_loop_post (self->loop, util_not_reached_cb, self, read_cb);
}

static void
call_async (Handed *self)
{
  bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, self, read_cb, NULL, NULL, NULL);
}

static void
test_cancelled (void)
{
  for (guint i = 0; i < N_ROUNDS; i++)
    run_cancelled (post);
}

static void
test_cancelled_call (void)
{
  for (guint i = 0; i < N_ROUNDS; i++)
    run_cancelled (call_async);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/visible/what-is-counted", test_counted);
  g_test_add_func ("/visible/what-has-run-at-the-end", test_stopped);
  g_test_add_func ("/visible/what-was-before-the-cancellation", test_cancelled);
  g_test_add_func ("/visible/what-was-before-the-cancellation/of-a-call", test_cancelled_call);

  return g_test_run ();
}
