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
  g_assert_true (bg_loop_add_teardown (order->loop, step_cb, self, step_destroyed_cb));
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
  g_assert_true (bg_loop_add_teardown (loop, (BgPostFunc) util_latch_count_down, &ran,
                                       (GDestroyNotify) util_latch_count_down));
  g_object_unref (loop);
  util_latch_wait (&ran);
  util_latch_clear (&ran);
}

/* A teardown function may call anything; the loop takes no more work. */

static void
not_reached_cb (gpointer user_data)
{
  g_assert_not_reached ();
}

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (BG_LOOP (source)));
  g_assert_false (bg_loop_shutdown_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  util_count_cb (user_data);
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  util_count_cb (user_data);
  return TRUE;
}

static gboolean
invoked_cb (gpointer user_data)
{
  g_assert_not_reached ();
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

  g_assert_false (bg_loop_post (loop, not_reached_cb, &self->refused, util_count_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, not_reached_cb, &self->refused, util_count_cb), ==,
                    0);
  g_assert_false (bg_loop_add_teardown (loop, not_reached_cb, &self->refused, util_count_cb));
  g_assert_cmpint (self->refused % 3, ==, 0);
  g_assert_cmpuint (bg_loop_hold (loop, "refused"), ==, 0);
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_false (bg_loop_invoke (loop, invoked_cb, NULL));
  g_assert_false (bg_loop_withdraw (loop, 1));

  /* On the loop's own thread that is a plain function call, in every state. */
  g_assert_true (bg_loop_call (loop, call_cb, &self->calls, NULL, &error));
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

      g_assert_true (bg_loop_add_teardown (self.loop, busy_cb, &self, busy_cb));
      g_assert_true (bg_loop_add_teardown (self.loop, busy_cb, &self, NULL));
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
  (void) bg_loop_post (loop, not_reached_cb, &self->posted, util_count_cb);
  (void) bg_loop_withdraw (loop, 1);
  g_free (bg_loop_describe (loop));
  if (hold != 0)
    bg_loop_release (loop, hold);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  g_assert_false (bg_loop_shutdown (loop, NULL));
  g_object_unref (loop);
}

static gboolean
continue_cb (gpointer user_data)
{
  return G_SOURCE_CONTINUE;
}

static void
noop_cb (gpointer user_data)
{
}

static void
give_wild_work (Wild *self)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  g_assert_true (bg_loop_post (self->loop, noop_cb, self, wild_destroyed_cb));
  g_assert_true (bg_loop_post_full (self->loop, 100, noop_cb, self, wild_destroyed_cb));
  g_assert_true (bg_loop_post_after (self->loop, G_MAXINT, noop_cb, self, wild_destroyed_cb) != 0);
  g_assert_true (bg_loop_add_teardown (self->loop, noop_cb, self, wild_destroyed_cb));
  g_source_set_callback (source, continue_cb, self, wild_destroyed_cb);
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
  return bg_loop_post (loop, noop_cb, loop, g_object_unref);
}

static gboolean
give_delay (BgLoop *loop)
{
  return bg_loop_post_after (loop, 1, noop_cb, loop, g_object_unref) != 0;
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
  gboolean accepted = bg_loop_add_teardown (loop, g_object_unref, loop, NULL);

  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  return accepted;
}

static gboolean
give_leftover (BgLoop *loop)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);
  gboolean accepted;

  g_source_set_callback (source, continue_cb, loop, g_object_unref);
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
  g_assert_true (bg_loop_add_teardown (last, noop_cb, &destroyed, util_count_cb));
  for (guint i = 0; i < 5; i++)
    {
      BgLoop *loop = util_loop_new ("a chain of loops");

      g_assert_true (bg_loop_post_after (loop, i % 2 == 0 ? 0 : G_MAXINT, noop_cb,
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
never_cb (gpointer user_data)
{
  g_assert_not_reached ();
}

static void
late_destroyed_cb (gpointer user_data)
{
  Late *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  self->n_destroyed++;
}

static gboolean
done_cb (gpointer user_data)
{
  util_latch_count_down (user_data);
  return G_SOURCE_REMOVE;
}

/* Until long after it was due: for as long as another timeout of the context. */
static void
iterate_cb (gpointer user_data)
{
  g_autoptr (GSource) source = g_timeout_source_new (20);
  UtilLatch done;

  util_latch_init (&done, 1);
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, done_cb, &done, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  util_iterate_until (&done);
  util_latch_clear (&done);
}

static void
add_late_work_cb (gpointer user_data)
{
  Late *self = user_data;

  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpuint (bg_loop_post_after (self->loop, 10, never_cb, self, late_destroyed_cb), !=, 0);
}

static void
test_falls_due (void)
{
  Late self = { util_loop_new ("due") };

  g_assert_true (bg_loop_add_teardown (self.loop, iterate_cb, NULL, NULL));
  g_assert_true (bg_loop_post (self.loop, add_late_work_cb, &self, NULL));
  util_loop_end (self.loop);
  g_assert_cmpint (self.n_destroyed, ==, 1);
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

  return g_test_run ();
}
