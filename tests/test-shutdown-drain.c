/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-shutdown.h"

/* DRAIN: what was accepted runs, and what that posts in turn; nothing else keeps the loop. */

static void
test_runs_all (void)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };

  for (guint round = 0; round < util_scale (100); round++)
    {
      BgLoop *loop = util_loop_new ("shutdown");
      int n = 0;

      for (guint i = 0; i < 1000; i++)
        g_assert_true (
            bg_loop_post_full (loop, priorities[i % 3], util_count_cb, &n, util_count_cb));
      util_loop_end (loop);
      g_assert_cmpint (n, ==, 2000);
    }
}

typedef struct
{
  BgLoop *loop;
  guint left;
  int priority;
  int n_destroyed;
} Chain;

static void
chain_cb (gpointer user_data)
{
  Chain *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  if (--self->left > 0)
    {
      self->priority = self->left % 2 == 0 ? G_PRIORITY_DEFAULT : G_PRIORITY_LOW;
      g_assert_true (bg_loop_post_full (self->loop, self->priority, chain_cb, self, NULL));
    }
}

/* What the work posts in turn runs, too. */
static void
test_runs_a_chain (void)
{
  Chain chain = { .loop = util_loop_new ("shutdown"), .left = 1000 };
  UtilBlock block;

  util_block (&block, chain.loop);
  g_assert_true (bg_loop_post (chain.loop, chain_cb, &chain, NULL));
  bg_loop_quit (chain.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (chain.loop);
  g_assert_cmpuint (chain.left, ==, 0);
  util_block_clear (&block);
}

static void
test_drops_what_is_not_due (void)
{
  BgLoop *loop = util_loop_new ("shutdown");
  int n = 0;

  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post_after (loop, G_MAXINT - i, util_not_reached_cb, &n, util_count_cb)
                   != 0);
  util_loop_end (loop);
  g_assert_cmpint (n, ==, 100);
}

static void
on_the_loop_destroy (gpointer user_data)
{
  Chain *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->n_destroyed++;
}

/* Sources that are always ready do not hold up the end, and are destroyed. */
static void
test_beside_busy_sources (void)
{
  static const int priorities[] = { G_MININT, G_PRIORITY_HIGH, G_PRIORITY_DEFAULT, G_MAXINT };

  for (guint round = 0; round < util_scale (200); round++)
    {
      BgLoop *loop = util_loop_new ("shutdown");
      Chain chain = { .loop = loop, .left = 100 };

      for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
        {
          g_autoptr (GSource) source = g_idle_source_new ();

          g_source_set_priority (source, priorities[i]);
          g_source_set_callback (source, util_continue_cb, &chain, on_the_loop_destroy);
          g_source_attach (source, bg_loop_get_context (loop));
        }
      g_assert_true (bg_loop_post (loop, chain_cb, &chain, NULL));
      util_loop_end (loop);
      g_assert_cmpuint (chain.left, ==, 0);
      g_assert_cmpint (chain.n_destroyed, ==, G_N_ELEMENTS (priorities));
    }
}

/* Work that goes on until a source has had its turn, of a lower priority, ends: the work that is
 * driven above all sources leaves them turns. */

static void
post_until_open_cb (gpointer user_data)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();

  if (!util_latch_is_open (user_data))
    g_assert_true (bg_loop_post (loop, post_until_open_cb, user_data, NULL));
}

static void
test_beside_a_source (void)
{
  BgLoop *loop = util_loop_new ("source");
  g_autoptr (GSource) source = g_idle_source_new ();
  UtilLatch turn;
  UtilBlock block;

  util_latch_init (&turn, 1);
  util_block (&block, loop);
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, util_count_down_source_cb, &turn, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_assert_true (bg_loop_post (loop, post_until_open_cb, &turn, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  g_assert_true (util_latch_is_open (&turn));
  util_latch_clear (&turn);
  util_block_clear (&block);
}

/* DRAIN lets a chain finish, each link of which posts the next */

typedef struct
{
  BgLoop *loop;
  guint left;
  guint64 hold;
  int destroyed;
} HeldChain;

static void
link_destroyed_cb (gpointer user_data)
{
  ((HeldChain *) user_data)->destroyed++;
}

static void
link_cb (gpointer user_data)
{
  HeldChain *self = user_data;

  if (self->hold != 0)
    bg_loop_release (self->loop, self->hold);
  self->hold = bg_loop_hold (self->loop, "the next");
  g_assert_cmpuint (self->hold, !=, 0);

  if (--self->left > 0)
    g_assert_true (bg_loop_post_full (self->loop, (int) (self->left % 3) * 100, link_cb, self,
                                      link_destroyed_cb));
  else
    bg_loop_release (self->loop, self->hold);
}

static void
test_finishes_chain (void)
{
  HeldChain self = { util_loop_new ("chain"), util_scale (2000) };
  int n = (int) self.left;
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, link_cb, &self, link_destroyed_cb));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpuint (self.left, ==, 0);
  g_assert_cmpint (self.destroyed, ==, n);
}

/* DRAIN leaves the loop's cancellable alone. */
static void
test_does_not_cancel (void)
{
  BgLoop *loop = util_loop_new ("drain");
  g_autoptr (GCancellable) cancellable = g_object_ref (bg_loop_get_cancellable (loop));

  util_loop_end (loop);
  g_assert_false (g_cancellable_is_cancelled (cancellable));
}

/* A chain of urgent work goes on until less urgent work, which was accepted before,
 * has run: it gets its turn in a drain, too. */

typedef struct
{
  BgLoop *loop;
  int done;
  int hops;
} Lanes;

static void
urgent_chain_cb (gpointer user_data)
{
  Lanes *self = user_data;

  if (self->done == 0)
    g_assert_true (bg_loop_post_full (self->loop, -1, urgent_chain_cb, self, NULL));
}

static gboolean
urgent_repeat_cb (gpointer user_data)
{
  Lanes *self = user_data;

  return self->done == 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
test_other_priorities (void)
{
  for (guint i = 0; i < 3; i++)
    {
      Lanes self = { util_loop_new ("lanes") };
      UtilBlock block;

      util_block (&block, self.loop);
      if (i == 0)
        bg_loop_invoke_full (self.loop, -1, urgent_repeat_cb, &self, NULL);
      else
        bg_loop_post_full (self.loop, -1, urgent_chain_cb, &self, NULL);
      if (i == 2)
        bg_loop_post_after (self.loop, 0, util_count_cb, &self.done, NULL);
      else
        bg_loop_post (self.loop, util_count_cb, &self.done, NULL);
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      util_loop_end (self.loop);
      util_block_clear (&block);
      g_assert_cmpint (self.done, ==, 1);
    }
}

/* What falls due while the last work runs counts as accepted. */
static void
post_due_cb (gpointer user_data)
{
  Lanes *self = user_data;
  gint64 due;

  /* Far enough into the drain. */
  if (self->hops-- > 0)
    {
      g_assert_true (bg_loop_post (self->loop, post_due_cb, self, NULL));
      return;
    }

  g_assert_cmpuint (bg_loop_post_after (self->loop, 0, util_count_cb, &self->done, NULL), !=, 0);
  g_assert_cmpuint (bg_loop_post_after (self->loop, 1, util_count_cb, &self->done, NULL), !=, 0);
  due = g_get_monotonic_time () + 2 * G_TIME_SPAN_MILLISECOND;
  while (g_get_monotonic_time () < due)
    ;
}

static void
test_due (void)
{
  Lanes self = { util_loop_new ("due"), .hops = 1000 };
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, post_due_cb, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpint (self.done, ==, 2);
}

/* A destroy notify, that of the last thing that there is or of a source, has the loop find that
 * nothing is left, and posts then; and so does what it posts. */

typedef struct
{
  BgLoop *loop;
  guint n_left;
} Relay;

static void
iterate_and_post_cb (gpointer user_data)
{
  Relay *self = user_data;

  if (self->n_left == 0)
    return;

  self->n_left--;
  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  while (g_main_context_iteration (bg_loop_get_context (self->loop), FALSE))
    ;
  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_DEFAULT, iterate_and_post_cb, self,
                                    iterate_and_post_cb));
}

static void
test_goes_on (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Relay self = { util_loop_new ("goes on"), 9 };

      g_assert_true (bg_loop_post_full (self.loop, G_PRIORITY_DEFAULT, util_nothing_cb, &self,
                                        iterate_and_post_cb));
      util_loop_end (self.loop);
      g_assert_cmpuint (self.n_left, ==, 0);
    }
}

static void
test_goes_on_source (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Relay self = { util_loop_new ("goes on"), 9 };
      g_autoptr (GSource) source = g_idle_source_new ();

      g_source_set_callback (source, util_remove_cb, &self, iterate_and_post_cb);
      g_assert_true (bg_loop_attach (self.loop, source));
      g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
      g_assert_cmpuint (self.n_left, ==, 0);
      util_loop_end (self.loop);
    }
}

/* A main loop on the loop's thread, which goes on when the loop has done all of its work. */

typedef struct
{
  BgLoop *loop;
  guint64 hold;
  GMainLoop *nested;
  GSource *quit; /* (nullable): more urgent than the busy source, and not ready yet */
  guint n_held;  /* turns of the busy source */
  guint n_turns;
} Nested;

#define MAX_HELD   64
#define MORE_TURNS 1000

static gboolean
quit_nested_cb (gpointer user_data)
{
  Nested *self = user_data;

  g_main_loop_quit (self->nested);
  return G_SOURCE_REMOVE;
}

/* Always ready: while the loop is held, and for longer. */
static gboolean
busy_nested_cb (gpointer user_data)
{
  Nested *self = user_data;

  if (++self->n_turns == self->n_held)
    bg_loop_release (self->loop, self->hold);
  if (self->n_turns == self->n_held + MORE_TURNS)
    g_source_set_ready_time (self->quit, 0);
  return G_SOURCE_CONTINUE;
}

static void
run_nested_cb (gpointer user_data)
{
  Nested *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);
  GSource *busy = g_idle_source_new ();

  self->hold = bg_loop_hold (self->loop, "nested");
  self->nested = g_main_loop_new (context, FALSE);
  self->quit = g_timeout_source_new (G_MAXINT);
  g_source_set_priority (self->quit, G_MININT);
  g_source_set_callback (self->quit, quit_nested_cb, self, NULL);
  g_source_attach (self->quit, context);
  g_source_set_callback (busy, busy_nested_cb, self, NULL);
  g_source_attach (busy, context);

  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  g_main_loop_run (self->nested);

  g_source_destroy (busy);
  g_source_unref (busy);
  g_source_destroy (self->quit);
  g_source_unref (self->quit);
  g_main_loop_unref (self->nested);
}

static void
test_in_a_nested_loop (void)
{
  for (guint n_held = 1; n_held <= MAX_HELD; n_held++)
    {
      Nested self = { .loop = util_loop_new ("nested"), .n_held = n_held };

      g_assert_true (bg_loop_post (self.loop, run_nested_cb, &self, NULL));
      util_loop_end (self.loop);
      g_assert_cmpuint (self.n_turns, >=, n_held + MORE_TURNS);
    }
}

void
add_tests_of_drain (void)
{
  g_test_add_func ("/shutdown/drain/runs-all-that-was-accepted", test_runs_all);
  g_test_add_func ("/shutdown/drain/runs-a-chain", test_runs_a_chain);
  util_add_trapped ("/shutdown/drain/finishes-chain", test_finishes_chain);
  util_add_trapped ("/shutdown/drain/goes-on-as-long-as-it-posts", test_goes_on);
  util_add_trapped ("/shutdown/drain/goes-on-as-long-as-it-posts/source", test_goes_on_source);
  util_add_trapped ("/shutdown/drain/what-falls-due", test_due);
  g_test_add_func ("/shutdown/drain/drops-what-is-not-due", test_drops_what_is_not_due);
  util_add_trapped ("/shutdown/drain/other-priorities", test_other_priorities);
  g_test_add_func ("/shutdown/drain/beside-busy-sources", test_beside_busy_sources);
  util_add_trapped ("/shutdown/drain/beside-a-source", test_beside_a_source);
  g_test_add_func ("/shutdown/drain/in-a-nested-loop", test_in_a_nested_loop);
  util_add_trapped ("/shutdown/drain/does-not-cancel", test_does_not_cancel);
}
