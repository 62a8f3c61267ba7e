/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* Last in, first out, on the loop's thread, each with its destroy right after. */

typedef struct
{
  BgLoop *loop;
  GString *order;
} Order;

typedef struct
{
  Order *order;
  char name;
} Step;

static void
step_cb (gpointer user_data)
{
  Step *self = user_data;

  g_assert_true (bg_loop_is_current (self->order->loop));
  g_assert_true (g_main_context_get_thread_default () == bg_loop_get_context (self->order->loop));
  g_assert_cmpint (bg_loop_get_state (self->order->loop), ==, BG_LOOP_STOPPING);
  g_string_append_c (self->order->order, self->name);
}

static void
step_destroyed_cb (gpointer user_data)
{
  Step *self = user_data;

  g_assert_true (bg_loop_is_current (self->order->loop));
  g_string_append_c (self->order->order, g_ascii_toupper (self->name));
  g_free (self);
}

static void
add_step (Order *order, char name)
{
  Step *self = g_new (Step, 1);

  self->order = order;
  self->name = name;
  g_assert_cmpuint (bg_loop_add_teardown (order->loop, step_cb, self, step_destroyed_cb), !=, 0);
}

static void
posted_cb (gpointer user_data)
{
  Order *order = user_data;

  g_string_append_c (order->order, '.');
}

/* One that is added by what is drained comes first then. */
static void
add_late_cb (gpointer user_data)
{
  posted_cb (user_data);
  add_step (user_data, 'x');
}

static void
test_order (void)
{
  Order self = { util_loop_new ("order"), g_string_new (NULL) };
  UtilBlock block;

  util_block (&block, self.loop);
  add_step (&self, 'a');
  add_step (&self, 'b');
  g_assert_true (bg_loop_post_full (self.loop, 1000, add_late_cb, &self, NULL));
  g_assert_true (bg_loop_post (self.loop, posted_cb, &self, NULL));
  add_step (&self, 'c');
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (self.loop);
  util_block_clear (&block);
  g_assert_cmpstr (self.order->str, ==, "..xXcCbBaA");
  g_string_free (self.order, TRUE);
}

/* They run in CANCEL mode too, and when the loop is only dropped. */
static void
run_in_mode (BgShutdownMode mode)
{
  Order self = { util_loop_new ("however"), g_string_new (NULL) };

  add_step (&self, 'a');
  add_step (&self, 'b');
  bg_loop_quit (self.loop, mode);
  util_loop_end (self.loop);
  g_assert_cmpstr (self.order->str, ==, "bBaA");
  g_string_free (self.order, TRUE);
}

static void
test_however (void)
{
  BgLoop *loop = util_loop_new ("dropped");
  UtilLatch ran;

  run_in_mode (BG_SHUTDOWN_DRAIN);
  run_in_mode (BG_SHUTDOWN_CANCEL);

  util_latch_init (&ran, 2);
  g_assert_cmpuint (bg_loop_add_teardown (loop, (BgPostFunc) util_latch_count_down, &ran,
                                          (GDestroyNotify) util_latch_count_down),
                    !=, 0);
  g_object_unref (loop);
  util_latch_wait (&ran);
  util_latch_clear (&ran);
}

/* A teardown function may call anything; the loop takes no more work. */

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (BG_LOOP (source)));
  g_assert_false (bg_loop_shutdown_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  util_count_cb (user_data);
}

typedef struct
{
  BgLoop *loop;
  int refused;
  int replies;
  int calls;
} Busy;

static void
busy_cb (gpointer user_data)
{
  Busy *self = user_data;
  BgLoop *loop = self->loop;
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &self->refused, util_count_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, &self->refused,
                                        util_count_cb),
                    ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, &self->refused, util_count_cb),
                    ==, 0);
  g_assert_cmpint (self->refused % 3, ==, 0);
  g_assert_cmpuint (bg_loop_hold (loop, "refused"), ==, 0);
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_false (bg_loop_invoke (loop, util_no_source_cb, NULL));
  g_assert_false (bg_loop_withdraw (loop, 1));

  /* On the loop's own thread that is a plain function call, in every state. */
  g_assert_true (bg_loop_call (loop, util_count_call_cb, &self->calls, NULL, &error));
  g_assert_no_error (error);

  g_assert_false (bg_loop_shutdown (loop, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_CANCEL, -1, NULL, replied_cb, &self->replies);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

static void
test_busy (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Busy self = { util_loop_new ("busy") };

      g_assert_cmpuint (bg_loop_add_teardown (self.loop, busy_cb, &self, busy_cb), !=, 0);
      g_assert_cmpuint (bg_loop_add_teardown (self.loop, busy_cb, &self, NULL), !=, 0);
      bg_loop_quit (self.loop, mode);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      g_assert_cmpint (self.refused, ==, 9);
      g_assert_cmpint (self.calls, ==, 3);
      g_assert_cmpint (self.replies, ==, 3);
      util_loop_end (self.loop);
    }
}

/* Destroy notifies do whatever they like: no lock is held, nothing ends twice. */

#define N_WILD 5

typedef struct
{
  BgLoop *loop;
  GMutex lock;
  int posted;
  int destroyed;
} Wild;

static void
wild_destroyed_cb (gpointer user_data)
{
  Wild *self = user_data;
  BgLoop *loop = g_object_ref (self->loop);
  guint64 hold = bg_loop_hold (loop, "wild");

  g_mutex_lock (&self->lock);
  self->destroyed++;
  g_mutex_unlock (&self->lock);

  /* Never lost: the destroy counts, wherever it runs. */
  (void) bg_loop_post (loop, util_not_reached_cb, &self->posted, util_count_cb);
  (void) bg_loop_withdraw (loop, 1);
  g_free (bg_loop_describe (loop));
  if (hold != 0)
    bg_loop_release (loop, hold);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  g_assert_false (bg_loop_shutdown (loop, NULL));
  g_object_unref (loop);
}

static void
give_wild_work (Wild *self)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  g_assert_true (bg_loop_post (self->loop, util_nothing_cb, self, wild_destroyed_cb));
  g_assert_true (bg_loop_post_full (self->loop, 100, util_nothing_cb, self, wild_destroyed_cb));
  g_assert_true (bg_loop_post_after (self->loop, G_MAXINT, util_nothing_cb, self, wild_destroyed_cb)
                 != 0);
  g_assert_cmpuint (bg_loop_add_teardown (self->loop, util_nothing_cb, self, wild_destroyed_cb), !=,
                    0);
  g_source_set_callback (source, util_continue_cb, self, wild_destroyed_cb);
  g_assert_true (bg_loop_attach (self->loop, source));
}

static void
test_wild_destroy (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Wild self = { util_loop_new ("wild") };
      UtilBlock block;

      g_mutex_init (&self.lock);
      util_block (&block, self.loop);
      give_wild_work (&self);
      bg_loop_quit (self.loop, mode);
      util_unblock (&block);
      util_loop_end (self.loop);
      util_block_clear (&block);
      g_mutex_clear (&self.lock);
      g_assert_cmpint (self.destroyed, ==, N_WILD);
      g_assert_cmpint (self.posted, ==, N_WILD);
    }
}

/* The last reference is dropped on the loop itself, by whatever runs there. */

typedef gboolean (*GiveFunc) (BgLoop *loop);

static gboolean
unref_source_cb (gpointer user_data)
{
  g_object_unref (user_data);
  return G_SOURCE_REMOVE;
}

static gboolean
give_post (BgLoop *loop)
{
  return bg_loop_post (loop, g_object_unref, loop, NULL);
}

static gboolean
give_destroy (BgLoop *loop)
{
  return bg_loop_post (loop, util_nothing_cb, loop, g_object_unref);
}

static gboolean
give_delay (BgLoop *loop)
{
  return bg_loop_post_after (loop, 1, util_nothing_cb, loop, g_object_unref) != 0;
}

static gboolean
give_invoke (BgLoop *loop)
{
  return bg_loop_invoke (loop, unref_source_cb, loop);
}

static gboolean
give_source (BgLoop *loop)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, unref_source_cb, loop, NULL);
  return bg_loop_attach (loop, source);
}

static gboolean
give_teardown (BgLoop *loop)
{
  gboolean accepted = bg_loop_add_teardown (loop, g_object_unref, loop, NULL) != 0;

  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  return accepted;
}

static gboolean
give_leftover (BgLoop *loop)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);
  gboolean accepted;

  g_source_set_callback (source, util_continue_cb, loop, g_object_unref);
  accepted = bg_loop_attach (loop, source);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  return accepted;
}

static void
test_last_reference (void)
{
  static const GiveFunc gives[] = { give_post,   give_destroy,  give_delay,   give_invoke,
                                    give_source, give_teardown, give_leftover };
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();

  for (guint i = 0; i < util_scale (20) * G_N_ELEMENTS (gives); i++)
    {
      BgLoop *loop = util_loop_new ("last");
      GWeakRef weak;

      g_weak_ref_init (&weak, loop);
      g_object_ref (loop);
      g_assert_true (gives[i % G_N_ELEMENTS (gives)](loop));
      g_object_unref (loop);
      util_wait_for_threads (threads);
      g_assert_null (g_weak_ref_get (&weak));
      g_weak_ref_clear (&weak);
    }

  g_assert_cmpuint (util_count_fds (), ==, fds);
}

/* A loop whose work drops the last reference to another, and so on */
static void
test_drops_another (void)
{
  guint threads, fds;
  int destroyed = 0;
  BgLoop *last;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();

  last = util_loop_new ("last");
  g_assert_cmpuint (bg_loop_add_teardown (last, util_nothing_cb, &destroyed, util_count_cb), !=, 0);
  for (guint i = 0; i < 5; i++)
    {
      BgLoop *loop = util_loop_new ("a chain of loops");

      g_assert_true (bg_loop_post_after (loop, i % 2 == 0 ? 0 : G_MAXINT, util_nothing_cb,
                                         g_steal_pointer (&last), g_object_unref)
                     != 0);
      last = loop;
    }

  g_object_unref (last);
  util_wait_for_threads (threads);
  g_assert_cmpint (g_atomic_int_get (&destroyed), ==, 1);
  g_assert_cmpuint (util_count_fds (), ==, fds);
}

/* Delayed work that falls due while a teardown function iterates the context does
 * not run any more, and is dropped like all that was not due. */

typedef struct
{
  BgLoop *loop;
  int n_destroyed;
} Late;

static void
late_destroyed_cb (gpointer user_data)
{
  Late *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->n_destroyed++;
}

/* An iteration or two would do: there is nothing to be done until the timeout. */
#define MOST_ITERATIONS 50

/* Until long after it was due: for as long as another timeout of the context. The context sleeps
 * meanwhile, as what is due is nothing to wake up for any more. */
static void
iterate_cb (gpointer user_data)
{
  g_autoptr (GSource) source = g_timeout_source_new (100);
  guint n_iterations = 0;
  UtilLatch done;

  util_latch_init (&done, 1);
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, util_count_down_source_cb, &done, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  while (!util_latch_is_open (&done))
    {
      g_main_context_iteration (g_main_context_get_thread_default (), TRUE);
      n_iterations++;
    }
  g_assert_cmpuint (n_iterations, <=, MOST_ITERATIONS);
  util_latch_clear (&done);
}

static void
add_late_work_cb (gpointer user_data)
{
  Late *self = user_data;

  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpuint (bg_loop_post_after (self->loop, 10, util_not_reached_cb, self,
                                        late_destroyed_cb),
                    !=, 0);
}

static void
test_falls_due (void)
{
  Late self = { util_loop_new ("due") };

  g_assert_cmpuint (bg_loop_add_teardown (self.loop, iterate_cb, NULL, NULL), !=, 0);
  g_assert_true (bg_loop_post (self.loop, add_late_work_cb, &self, NULL));
  util_loop_end (self.loop);
  g_assert_cmpint (self.n_destroyed, ==, 1);
}

/* One that is removed does not run, and its data goes, on the loop's thread. */

typedef struct
{
  BgLoop *loop;
  guint64 id;
  guint64 other;
  int ran;
  UtilLatch destroyed;
} Removed;

static void
removed_init (Removed *self, const char *name)
{
  *self = (Removed){ .loop = util_loop_new (name) };
  util_latch_init (&self->destroyed, 1);
}

static void
removed_end (Removed *self)
{
  util_loop_end (self->loop);
  g_assert_true (util_latch_is_open (&self->destroyed));
  util_latch_clear (&self->destroyed);
}

static void
removed_destroyed_cb (gpointer user_data)
{
  Removed *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_false (bg_loop_remove_teardown (self->loop, self->id));
  util_latch_count_down (&self->destroyed);
}

static void
removed_run_cb (gpointer user_data)
{
  Removed *self = user_data;

  self->ran++;
  g_assert_false (bg_loop_remove_teardown (self->loop, self->id));
}

static void
test_removed (void)
{
  Removed self;
  Order order = { NULL, g_string_new (NULL) };

  removed_init (&self, "removed");
  order.loop = self.loop;
  add_step (&order, 'a');
  self.id = bg_loop_add_teardown (self.loop, util_not_reached_cb, &self, removed_destroyed_cb);
  g_assert_cmpuint (self.id, !=, 0);
  add_step (&order, 'b');
  g_assert_false (bg_loop_remove_teardown (self.loop, 0));
  g_assert_false (bg_loop_remove_teardown (self.loop, G_MAXUINT64));
  g_assert_true (bg_loop_remove_teardown (self.loop, self.id));
  g_assert_false (bg_loop_remove_teardown (self.loop, self.id));

  /* Before the loop ends. */
  util_latch_wait (&self.destroyed);
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_RUNNING);
  removed_end (&self);
  g_assert_cmpstr (order.order->str, ==, "bBaA");
  g_string_free (order.order, TRUE);
}

/* From the loop's thread, where the data is destroyed too */
static void
remove_cb (gpointer user_data)
{
  Removed *self = user_data;

  g_assert_true (bg_loop_remove_teardown (self->loop, self->id));
  g_assert_false (bg_loop_remove_teardown (self->loop, self->id));
}

static void
test_removed_there (void)
{
  Removed self;

  removed_init (&self, "removed there");
  self.id = bg_loop_add_teardown (self.loop, util_not_reached_cb, &self, removed_destroyed_cb);
  g_assert_true (bg_loop_post (self.loop, remove_cb, &self, NULL));
  removed_end (&self);
}

/* Also while the loop stops, in either mode, as long as its turn has not come. */
static void
test_removed_stopping (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      guint64 hold;
      Removed self;

      removed_init (&self, "stopping");
      hold = bg_loop_hold (self.loop, "the test");
      self.id = bg_loop_add_teardown (self.loop, util_not_reached_cb, &self, removed_destroyed_cb);
      bg_loop_quit (self.loop, mode);
      remove_cb (&self);
      bg_loop_release (self.loop, hold);
      removed_end (&self);
    }
}

/* From within another, which comes first */
static void
remove_other_cb (gpointer user_data)
{
  Removed *self = user_data;

  self->ran++;
  remove_cb (self);
  g_assert_false (bg_loop_remove_teardown (self->loop, self->other));
}

static void
test_removed_by_another (void)
{
  Removed self;

  removed_init (&self, "another");
  self.id = bg_loop_add_teardown (self.loop, util_not_reached_cb, &self, removed_destroyed_cb);
  self.other = bg_loop_add_teardown (self.loop, remove_other_cb, &self, NULL);
  g_assert_cmpuint (self.id, !=, self.other);
  removed_end (&self);
  g_assert_cmpint (self.ran, ==, 1);
}

/* What runs, and what has run, is not removed. */
static void
test_removed_too_late (void)
{
  Removed self;

  removed_init (&self, "too late");
  self.id = bg_loop_add_teardown (self.loop, removed_run_cb, &self, removed_destroyed_cb);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpint (self.ran, ==, 1);
  g_assert_false (bg_loop_remove_teardown (self.loop, self.id));
  removed_end (&self);
}

/* Many, from many threads, while the loop ends: each is removed or runs. */

#define N_REMOVED 200

typedef struct
{
  BgLoop *loop;
  guint64 ids[N_REMOVED];
  int removed;
  int ran;
  int destroyed;
  UtilLatch start;
} Removing;

static void
removing_ran_cb (gpointer user_data)
{
  util_count_cb (&((Removing *) user_data)->ran);
}

static void
removing_destroyed_cb (gpointer user_data)
{
  Removing *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  util_count_cb (&self->destroyed);
}

static gpointer
remove_thread (gpointer user_data)
{
  Removing *self = user_data;

  util_latch_wait (&self->start);
  for (guint i = 0; i < N_REMOVED; i++)
    {
      if (bg_loop_remove_teardown (self->loop, self->ids[i]))
        util_count_cb (&self->removed);
    }
  return NULL;
}

static void
test_removed_race (void)
{
  for (guint i = 0; i < util_scale (50); i++)
    {
      Removing self = { util_loop_new ("removing") };
      GThread *threads[3];

      util_latch_init (&self.start, 1);
      for (guint j = 0; j < N_REMOVED; j++)
        self.ids[j]
            = bg_loop_add_teardown (self.loop, removing_ran_cb, &self, removing_destroyed_cb);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        threads[j] = g_thread_new ("remove", remove_thread, &self);
      util_latch_count_down (&self.start);
      bg_loop_quit (self.loop, i % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        g_thread_join (threads[j]);
      g_assert_cmpint (self.destroyed, ==, N_REMOVED);
      g_assert_cmpint (self.ran + self.removed, ==, N_REMOVED);
      util_loop_end (self.loop);
      util_latch_clear (&self.start);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/teardown/order", test_order);
  util_add_trapped ("/teardown/however-it-ends", test_however);
  util_add_trapped ("/teardown/busy", test_busy);
  util_add_trapped ("/teardown/wild-destroy", test_wild_destroy);
  util_add_trapped ("/teardown/last-reference", test_last_reference);
  util_add_trapped ("/teardown/drops-another", test_drops_another);
  util_add_trapped ("/teardown/work-falls-due", test_falls_due);
  util_add_trapped ("/teardown/removed/never-runs", test_removed);
  util_add_trapped ("/teardown/removed/on-the-loop", test_removed_there);
  util_add_trapped ("/teardown/removed/while-the-loop-stops", test_removed_stopping);
  util_add_trapped ("/teardown/removed/by-another", test_removed_by_another);
  util_add_trapped ("/teardown/removed/too-late", test_removed_too_late);
  util_add_trapped ("/teardown/removed/race", test_removed_race);

  return g_test_run ();
}
