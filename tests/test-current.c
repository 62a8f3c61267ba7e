/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <unistd.h>

#include "util.h"

/* This function of the program's stands before GObject's, for the library, too: so a test
 * can let something happen on the way to a loop's reference to its object. */

static gpointer claimed_object; /* atomic: before a thread refers to it, */
static UtilLatch claimed;       /* this is told, */
static UtilLatch dropped;       /* and this waited for */

#undef g_object_ref

gpointer
g_object_ref (gpointer object)
{
  if (g_atomic_pointer_compare_and_exchange (&claimed_object, object, NULL) && object != NULL)
    {
      util_latch_count_down (&claimed);
      util_latch_wait (&dropped);
    }
  return ((gpointer (*) (gpointer)) dlsym (RTLD_NEXT, "g_object_ref")) (object);
}

/* The loop whose thread this is, and nobody else's. */
static void
assert_current (BgLoop *loop)
{
  g_autoptr (BgLoop) current = bg_loop_dup_current ();

  g_assert_true (current == loop);
}

static void
here_cb (gpointer user_data)
{
  assert_current (user_data);
}

static gboolean
here_call_cb (gpointer user_data, GError **error)
{
  assert_current (user_data);
  return TRUE;
}

static gboolean
here_source_cb (gpointer user_data)
{
  assert_current (user_data);
  return G_SOURCE_REMOVE;
}

static gboolean
here_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  assert_current (user_data);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static gpointer
elsewhere_thread (gpointer user_data)
{
  assert_current (NULL);
  return NULL;
}

static void
test_elsewhere (BgTestFixture *fixture, gconstpointer data)
{
  assert_current (NULL);
  util_run_threads (1, elsewhere_thread, NULL);

  /* To have its context as the thread-default one is not enough. */
  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
  g_main_context_push_thread_default (bg_loop_get_context (fixture->loop));
  assert_current (NULL);
  g_main_context_pop_thread_default (bg_loop_get_context (fixture->loop));
}

/* In whatever runs there, destroy notifies included */
static void
test_here (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GAsyncResult) answer = NULL;

  g_assert_true (bg_loop_post (loop, here_cb, loop, here_cb));
  g_assert_true (bg_loop_invoke_full (loop, 0, here_source_cb, loop, here_cb));
  g_assert_true (bg_loop_call (loop, here_call_cb, loop, NULL, NULL));
  answer = bg_loop_perform (loop, 0, -1, here_begin_cb, loop, NULL, NULL);
  g_assert_nonnull (answer);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, here_cb, loop, here_cb), !=, 0);
  g_assert_cmpuint (bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, loop, here_cb), !=, 0);
  g_source_set_callback (source, here_source_cb, loop, here_cb);
  g_assert_true (bg_loop_attach (loop, source));
  assert_current (NULL);
}

/* To the very end of the thread: teardown functions and thread-local destructors */

static GPrivate at_exit = G_PRIVATE_INIT (here_cb);

static void
stay_until_exit_cb (gpointer user_data)
{
  g_private_set (&at_exit, user_data);
}

static void
test_to_the_end (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      BgLoop *loop = util_loop_new ("end");

      g_assert_true (bg_loop_post (loop, stay_until_exit_cb, loop, NULL));
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
      g_assert_cmpuint (bg_loop_add_teardown (loop, here_cb, loop, here_cb), !=, 0);
      bg_loop_quit (loop, mode);
      util_loop_end (loop);
    }
}

/* Once the last reference has gone there is no object any more, though its thread
 * still has work. */

typedef struct
{
  UtilBlock block;
  UtilLatch done;
} Dropped;

static void
nobody_cb (gpointer user_data)
{
  assert_current (NULL);
  util_latch_count_down (user_data);
}

static GPrivate nobody_at_exit = G_PRIVATE_INIT (nobody_cb);

static void
nobody_until_exit_cb (gpointer user_data)
{
  g_private_set (&nobody_at_exit, user_data);
}

static void
test_dropped (void)
{
  BgLoop *loop = util_loop_new ("dropped");
  Dropped self;

  util_latch_init (&self.done, 5);
  util_block (&self.block, loop);
  g_assert_true (bg_loop_post (loop, nobody_cb, &self.done, nobody_cb));
  g_assert_true (bg_loop_post (loop, nobody_until_exit_cb, &self.done, NULL));
  g_assert_cmpuint (bg_loop_add_teardown (loop, nobody_cb, &self.done, nobody_cb), !=, 0);
  g_assert_finalize_object (loop);
  util_unblock (&self.block);
  util_latch_wait (&self.done);
  util_block_clear (&self.block);
  util_latch_clear (&self.done);
}

/* What it gives is a reference: it keeps the loop, and lets it go. */

typedef struct
{
  UtilLatch done;
  BgLoop *kept;
} Keeper;

static void
keep_cb (gpointer user_data)
{
  Keeper *self = user_data;

  self->kept = bg_loop_dup_current ();
  util_latch_count_down (&self->done);
}

static void
test_reference (void)
{
  guint threads = util_count_threads ();
  BgLoop *loop = util_loop_new ("kept");
  Keeper self = { .kept = NULL };
  GWeakRef weak;

  g_weak_ref_init (&weak, loop);
  util_latch_init (&self.done, 1);
  g_assert_true (bg_loop_post (loop, keep_cb, &self, NULL));
  util_latch_wait (&self.done);
  g_assert_true (self.kept == loop);
  g_object_unref (loop);
  g_assert_true (bg_loop_call (self.kept, here_call_cb, self.kept, NULL, NULL));

  g_object_unref (self.kept);
  g_assert_null (g_weak_ref_get (&weak));
  g_weak_ref_clear (&weak);
  util_wait_for_threads (threads);
  util_latch_clear (&self.done);
}

/* While the last reference goes: all there is of the loop, or nothing */

static void
use_cb (gpointer user_data)
{
  g_autoptr (BgLoop) current = bg_loop_dup_current ();

  if (current == NULL)
    return;

  g_assert_cmpstr (bg_loop_get_name (current), ==, "going");
  g_assert_true (bg_loop_is_current (current));
}

static void
test_race (void)
{
  guint threads = util_count_threads ();

  for (guint i = 0; i < util_scale (300); i++)
    {
      BgLoop *loop = util_loop_new ("going");

      for (guint j = 0; j < 20; j++)
        g_assert_true (bg_loop_post (loop, use_cb, NULL, use_cb));
      g_object_unref (loop);
    }
  util_wait_for_threads (threads);
}

/* The last reference goes when a function on the loop is just about to have one of its own:
 * the function gets the last one, and just one. */

static void
claim_cb (gpointer user_data)
{
  BgLoop *loop = bg_loop_dup_current ();

  g_assert_true (loop == user_data);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "claimed");
  assert_current (NULL);
  g_object_unref (loop);
}

static void
test_claimed (void)
{
  guint threads = util_count_threads ();
  BgLoop *loop = util_loop_new ("claimed");
  UtilLatch finalized, done;

  util_latch_init (&claimed, 1);
  util_latch_init (&dropped, 1);
  util_latch_init (&finalized, 1);
  util_latch_init (&done, 1);
  g_object_set_data_full (G_OBJECT (loop), "finalized", &finalized, util_count_down_cb);
  g_atomic_pointer_set (&claimed_object, loop);
  g_assert_true (bg_loop_post (loop, claim_cb, loop, NULL));
  g_assert_true (bg_loop_post (loop, util_count_down_cb, &done, NULL));
  util_latch_wait (&claimed);
  g_object_unref (loop);
  g_assert_false (util_latch_is_open (&finalized));
  util_latch_count_down (&dropped);
  util_latch_wait (&done);
  g_assert_true (util_latch_is_open (&finalized));
  util_wait_for_threads (threads);
  util_latch_clear (&finalized);
  util_latch_clear (&done);
}

/* In the thread of one loop it is not the other, not even while that one waits. */

typedef struct
{
  BgLoop *one;
  BgLoop *other;
} Two;

static gboolean
called_cb (gpointer user_data, GError **error)
{
  assert_current (((Two *) user_data)->other);
  return TRUE;
}

static gboolean
calling_cb (gpointer user_data, GError **error)
{
  Two *self = user_data;

  g_assert_true (bg_loop_call (self->other, called_cb, self, NULL, error));
  assert_current (self->one);
  return TRUE;
}

static void
test_two (void)
{
  Two self = { util_loop_new ("one"), util_loop_new ("other") };

  g_assert_true (bg_loop_call (self.one, calling_cb, &self, NULL, NULL));
  util_loop_end (self.one);
  util_loop_end (self.other);
}

/* A child that is forked on the loop's own thread has that thread, but not the
 * loop. */

static gboolean
fork_cb (gpointer user_data, GError **error)
{
  pid_t pid = util_fork ();

  if (pid == 0)
    {
      assert_current (NULL);
      _exit (0);
    }

  util_wait_for_child (pid);
  assert_current (user_data);
  return TRUE;
}

static void
test_fork (void)
{
  BgLoop *loop = util_loop_new ("parent");

  g_assert_true (bg_loop_call (loop, fork_cb, loop, NULL, NULL));
  util_loop_end (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add ("/current/elsewhere-is-null", test_elsewhere);
  util_add ("/current/here", test_here);
  util_add_trapped ("/current/to-the-end-of-the-thread", test_to_the_end);
  util_add_trapped ("/current/dropped-is-null", test_dropped);
  util_add_trapped ("/current/gives-a-reference", test_reference);
  util_add_trapped ("/current/last-reference-goes-meanwhile", test_race);
  util_add_trapped ("/current/last-reference-goes-on-the-way", test_claimed);
  g_test_add_func ("/current/two-loops", test_two);
  util_add_trapped ("/current/forked-is-null", test_fork);

  return g_test_run ();
}
