/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* The last reference to a loop is dropped, wherever and whatever it does: that waits for nobody, and the
 * loop ends by itself when its work is done. */

/* The last reference, and how to see that it was. */
typedef struct
{
  BgLoop *loop;
  gboolean gone;
  UtilLatch latch;
} Last;

static void
gone_cb (gpointer user_data, GObject *object)
{
  *(gboolean *) user_data = TRUE;
}

static void
last_init (Last *self)
{
  self->loop = util_loop_new ("drop");
  self->gone = FALSE;
  util_latch_init (&self->latch, 1);
  g_object_weak_ref (G_OBJECT (self->loop), gone_cb, &self->gone);
}

static void
last_drop_cb (gpointer user_data)
{
  Last *self = user_data;

  g_object_unref (self->loop);
  g_assert_true (self->gone);
  util_latch_count_down (&self->latch);
}

static gboolean
last_drop_source_cb (gpointer user_data)
{
  last_drop_cb (user_data);
  return G_SOURCE_REMOVE;
}

static gpointer
last_drop_thread (gpointer data)
{
  last_drop_cb (data);
  return NULL;
}

/* Each way has the loop's thread, or another, drop the last reference. */
typedef void (*DropWay) (Last *last);

static void
drop_in_a_post (Last *last)
{
  bg_loop_post (last->loop, last_drop_cb, last, NULL);
}

static void
drop_in_a_destroy (Last *last)
{
  bg_loop_post (last->loop, util_nothing_cb, last, last_drop_cb);
}

static void
drop_in_an_invoked_function (Last *last)
{
  bg_loop_invoke (last->loop, last_drop_source_cb, last);
}

static void
drop_in_delayed_work (Last *last)
{
  bg_loop_post_after (last->loop, 1, last_drop_cb, last, NULL);
}

static void
drop_in_a_source (Last *last)
{
  /* Without the loop, nothing but a reference keeps it alive for g_source_unref(). */
  g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (last->loop));
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, last_drop_source_cb, last, NULL);
  g_source_attach (source, context);
}

static void
drop_in_a_teardown (Last *last)
{
  bg_loop_add_teardown (last->loop, last_drop_cb, last, NULL);
  bg_loop_quit (last->loop, BG_SHUTDOWN_DRAIN);
}

static void
drop_in_a_thread (Last *last)
{
  g_thread_unref (g_thread_new ("drop", last_drop_thread, last));
}

static void
drop_here (Last *last)
{
  last_drop_cb (last);
}

static void
drop_while_it_stops (Last *last)
{
  bg_loop_quit (last->loop, BG_SHUTDOWN_DRAIN);
  last_drop_cb (last);
}

static void
drop_stopped (Last *last)
{
  g_assert_true (bg_loop_shutdown (last->loop, NULL));
  last_drop_cb (last);
}

static void
test_way (gconstpointer data)
{
  DropWay way = (DropWay) data;
  guint n_fds = util_count_fds ();
  guint n_threads = util_count_threads ();

  for (guint i = 0; i < util_scale (200); i++)
    {
      Last last;

      last_init (&last);
      way (&last);
      util_latch_wait (&last.latch);
      util_latch_clear (&last.latch);
    }

  util_wait_for_threads (n_threads);
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

/* In a callback of another loop */

static void
test_in_another_loop (void)
{
  guint n_threads = util_count_threads ();
  BgLoop *other = util_loop_new ("other");

  for (guint i = 0; i < util_scale (200); i++)
    {
      Last last;

      last_init (&last);
      g_assert_true (bg_loop_post (other, last_drop_cb, &last, NULL));
      util_latch_wait (&last.latch);
      util_latch_clear (&last.latch);
    }
  util_loop_end (other);
  util_wait_for_threads (n_threads);
}

/* Never blocks, and loses nothing */

static void
test_while_it_is_busy (void)
{
  guint n_threads = util_count_threads ();
  BgLoop *loop = util_loop_new ("drop");
  UtilBlock block;
  int n = 0;

  util_block (&block, loop);
  for (guint i = 0; i < 1000; i++)
    g_assert_true (bg_loop_post (loop, util_count_cb, &n, util_count_cb));
  g_assert_true (bg_loop_post_after (loop, G_MAXINT, util_count_cb, &n, util_count_cb) != 0);

  /* If this waited for the loop, it would wait for ever. */
  g_assert_finalize_object (loop);
  g_assert_cmpint (g_atomic_int_get (&n), ==, 0);

  util_unblock (&block);
  util_wait_for_threads (n_threads);
  g_assert_cmpint (g_atomic_int_get (&n), ==, 2001);
  util_block_clear (&block);
}

static void
test_work_still_runs (void)
{
  guint n_threads = util_count_threads ();
  int n = 0;

  for (guint i = 0; i < util_scale (1000); i++)
    {
      BgLoop *loop = util_loop_new ("drop");

      for (guint k = 0; k < 10; k++)
        g_assert_true (bg_loop_post (loop, util_count_cb, &n, util_count_cb));
      g_assert_finalize_object (loop);
    }
  util_wait_for_threads (n_threads);
  g_assert_cmpint (g_atomic_int_get (&n), ==, 20 * (int) util_scale (1000));
}

static void
test_beside_a_busy_source (void)
{
  guint n_threads = util_count_threads ();
  guint n_fds = util_count_fds ();
  BgLoop *loop = util_loop_new ("drop");
  GSource *source = g_idle_source_new ();
  int n = 0;

  g_source_set_priority (source, G_MININT);
  g_source_set_callback (source, util_continue_cb, &n, util_count_cb);
  g_source_attach (source, bg_loop_get_context (loop));
  g_source_unref (source);
  g_assert_finalize_object (loop);
  util_wait_for_threads (n_threads);
  g_assert_cmpint (g_atomic_int_get (&n), ==, 1);
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

/* Threads that each have a reference, and one of them the last */

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int n;      /* atomic */
  int posted; /* atomic */
} Crowd;

static gpointer
crowd_thread (gpointer data)
{
  Crowd *self = data;
  BgLoop *loop = g_object_ref (self->loop);

  util_latch_count_down (&self->start);
  util_latch_wait (&self->start);
  for (guint i = 0; i < 100; i++)
    {
      g_assert_true (bg_loop_post (loop, util_count_cb, &self->n, NULL));
      g_atomic_int_inc (&self->posted);
    }
  g_object_unref (loop);
  return NULL;
}

static void
test_many_threads (void)
{
  guint n_threads = util_count_threads ();

  for (guint round = 0; round < util_scale (100); round++)
    {
      Crowd crowd = { .loop = util_loop_new ("drop") };
      GThread *threads[4];

      util_latch_init (&crowd.start, G_N_ELEMENTS (threads) + 1);
      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        threads[i] = g_thread_new ("drop", crowd_thread, &crowd);
      util_latch_count_down (&crowd.start);
      util_latch_wait (&crowd.start);
      g_object_unref (crowd.loop);
      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        g_thread_join (threads[i]);

      util_wait_for_threads (n_threads);
      g_assert_cmpint (g_atomic_int_get (&crowd.n), ==, crowd.posted);
      util_latch_clear (&crowd.start);
    }
}

static void
add_way (const char *path, DropWay way)
{
  g_test_add_data_func (path, (gconstpointer) way, test_way);
}

/* Work that nobody wants an answer to does not keep the loop. */

static void
test_unanswered (void)
{
  guint n_threads;
  UtilBlock block;
  Last last;

  /* The first task starts a thread of GLib's. */
  g_object_unref (g_task_new (NULL, NULL, NULL, NULL));
  n_threads = util_count_threads ();

  last_init (&last);
  util_block (&block, last.loop);
  bg_loop_call_async (last.loop, 0, -1, util_true_cb, NULL, NULL, NULL, NULL, NULL);
  bg_loop_perform_async (last.loop, G_PRIORITY_DEFAULT, -1, util_begin_cb, NULL, NULL, NULL, NULL,
                         NULL);
  last_drop_cb (&last);
  util_unblock (&block);
  util_wait_for_threads (n_threads);
  util_block_clear (&block);
  util_latch_clear (&last.latch);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  add_way ("/drop/on-the-loop/in-a-post", drop_in_a_post);
  add_way ("/drop/on-the-loop/in-a-destroy", drop_in_a_destroy);
  add_way ("/drop/on-the-loop/in-an-invoked-function", drop_in_an_invoked_function);
  add_way ("/drop/on-the-loop/in-delayed-work", drop_in_delayed_work);
  add_way ("/drop/on-the-loop/in-a-source", drop_in_a_source);
  add_way ("/drop/on-the-loop/in-a-teardown", drop_in_a_teardown);
  add_way ("/drop/elsewhere/in-a-thread", drop_in_a_thread);
  add_way ("/drop/elsewhere/right-after-start", drop_here);
  add_way ("/drop/elsewhere/while-it-stops", drop_while_it_stops);
  add_way ("/drop/elsewhere/when-it-has-stopped", drop_stopped);
  g_test_add_func ("/drop/elsewhere/in-another-loop", test_in_another_loop);
  g_test_add_func ("/drop/busy/does-not-block", test_while_it_is_busy);
  g_test_add_func ("/drop/busy/work-still-runs", test_work_still_runs);
  g_test_add_func ("/drop/busy/beside-a-busy-source", test_beside_a_busy_source);
  g_test_add_func ("/drop/many-threads/one-has-the-last", test_many_threads);

  g_test_add_func ("/drop/busy/with-unanswered-calls", test_unanswered);

  return g_test_run ();
}
