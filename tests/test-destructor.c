/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "util.h"

/* Destructors of thread-local data, which run when all else of a loop's thread has: what a loop is
 * to them, and that the end of the loop waits for them. */

static void
assert_would_deadlock (gboolean failed, GError **error)
{
  g_assert_true (failed);
  g_assert_error (*error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_clear_error (error);
}

#define ROUNDS PTHREAD_DESTRUCTOR_ITERATIONS

typedef struct
{
  BgLoop *loop;
  BgLoop *other;
  void (*func) (gpointer self);
  int n_run;
  int rounds; /* how often it is to run: it puts itself back */
  UtilLatch entered;
  UtilLatch released;
  int n_replied;
} Destructor;

static void early_cb (gpointer user_data);
static void late_cb (gpointer user_data);

/* Their destructors run in the order in which they were first used. */
static GPrivate early = G_PRIVATE_INIT (early_cb);
static GPrivate late = G_PRIVATE_INIT (late_cb);

static void
run_destructor (Destructor *self, GPrivate *key)
{
  int n = g_atomic_int_add (&self->n_run, 1) + 1;

  if (n < self->rounds)
    g_private_set (key, self);
  self->func (self);
}

static void
early_cb (gpointer user_data)
{
  run_destructor (user_data, &early);
}

static void
late_cb (gpointer user_data)
{
  run_destructor (user_data, &late);
}

static void
set_early_cb (gpointer user_data)
{
  g_private_set (&early, user_data);
}

static void
set_late_cb (gpointer user_data)
{
  g_private_set (&late, user_data);
}

/* A loop whose thread has a destructor, before the library's own ones or after. */
static void
destructor_init (Destructor *self, void (*func) (gpointer self), gboolean is_late)
{
  *self = (Destructor){ .func = func, .rounds = 1 };
  self->loop = util_loop_new ("destructor");
  util_latch_init (&self->entered, 1);
  util_latch_init (&self->released, 1);
  g_assert_true (bg_loop_post (self->loop, is_late ? set_late_cb : set_early_cb, self, NULL));
  g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
}

static void
destructor_clear (Destructor *self)
{
  util_latch_clear (&self->entered);
  util_latch_clear (&self->released);
}

/* What would wait for the loop is refused there, and changes nothing; a call is a plain
 * one; nothing is taken. */

static void
assert_refuses_to_wait (BgLoop *loop)
{
  GError *error = NULL;

  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      for (int timeout_msec = -1; timeout_msec <= 1; timeout_msec++)
        assert_would_deadlock (!bg_loop_shutdown_full (loop, mode, timeout_msec, NULL, &error),
                               &error);
    }
  for (int timeout_msec = -1; timeout_msec <= 1; timeout_msec++)
    assert_would_deadlock (!bg_loop_wait (loop, timeout_msec, NULL, &error), &error);
  assert_would_deadlock (!bg_loop_shutdown (loop, &error), &error);
}

static void
assert_refuses_work (BgLoop *loop)
{
  g_autoptr (GSource) source = g_idle_source_new ();
  int n_destroyed = 0;

  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &n_destroyed, util_count_cb));
  g_assert_false (bg_loop_invoke_full (loop, 0, util_no_source_cb, &n_destroyed, util_count_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, &n_destroyed, util_count_cb),
                    ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, &n_destroyed, util_count_cb),
                    ==, 0);
  g_assert_cmpint (n_destroyed, ==, 4);
  g_assert_cmpuint (bg_loop_hold (loop, "too late"), ==, 0);
  g_assert_false (bg_loop_attach (loop, source));
}

static gboolean
inline_cb (gpointer user_data, GError **error)
{
  Destructor *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  return TRUE;
}

static void
assert_is_current (Destructor *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (bg_loop_call (self->loop, inline_cb, self, NULL, &error));
  g_assert_no_error (error);
  g_assert_true (bg_loop_call_full (self->loop, 7, 0, inline_cb, self, NULL, &error));
  g_assert_no_error (error);
}

static void
look_cb (gpointer user_data)
{
  Destructor *self = user_data;
  GError *error = NULL;

  assert_is_current (self);
  assert_refuses_to_wait (self->loop);
  assert_refuses_work (self->loop);
  if (bg_loop_get_state (self->loop) != BG_LOOP_STOPPED)
    {
      g_autoptr (BgLoop) current = bg_loop_dup_current ();

      g_assert_true (current == self->loop);
      assert_would_deadlock (!bg_loop_flush (self->loop, -1, NULL, &error), &error);
      assert_would_deadlock (bg_loop_perform (self->loop, 0, -1, util_no_begin_cb, NULL, NULL,
                                              &error)
                                 == NULL,
                             &error);
    }
  else
    {
      /* The library's own destructor was the last but this. */
      g_assert_false (bg_loop_flush (self->loop, -1, NULL, &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      g_clear_error (&error);
    }
}

static void
test_current (void)
{
  for (guint i = 0; i < 4; i++)
    {
      Destructor self;

      destructor_init (&self, look_cb, i % 2);
      self.rounds = i < 2 ? 1 : ROUNDS;
      bg_loop_quit (self.loop, i % 3 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
      util_loop_end (self.loop);
      g_assert_cmpint (self.n_run, ==, self.rounds);
      destructor_clear (&self);
    }
}

/* The same asynchronously; the replies go to the process's main context, since the
 * loop's is not the thread-default one any more. */

static void
shut_down_refused_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_would_deadlock (!bg_loop_shutdown_finish (BG_LOOP (source), result, &error), &error);
  ((Destructor *) user_data)->n_replied++;
}

static void
wait_refused_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_would_deadlock (!bg_loop_wait_finish (BG_LOOP (source), result, &error), &error);
  ((Destructor *) user_data)->n_replied++;
}

static void
call_refused_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  ((Destructor *) user_data)->n_replied++;
}

static void
ask_async_cb (gpointer user_data)
{
  Destructor *self = user_data;

  bg_loop_shutdown_async (self->loop, BG_SHUTDOWN_CANCEL, -1, NULL, shut_down_refused_cb, self);
  bg_loop_wait_async (self->loop, -1, NULL, wait_refused_cb, self);
  bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, NULL, NULL, NULL, call_refused_cb, self);
}

static void
test_async (void)
{
  for (guint i = 0; i < 2; i++)
    {
      Destructor self;

      destructor_init (&self, ask_async_cb, i);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      while (self.n_replied < 3)
        g_main_context_iteration (NULL, TRUE);
      util_loop_end (self.loop);
      destructor_clear (&self);
    }
}

/* Others see that the loop waits for them. */

static gboolean
wait_for_caller_cb (gpointer user_data, GError **error)
{
  Destructor *self = user_data;
  GError *local = NULL;

  g_assert_true (bg_loop_is_current (self->other));
  assert_would_deadlock (!bg_loop_shutdown (self->loop, &local), &local);
  assert_would_deadlock (!bg_loop_wait (self->loop, -1, NULL, &local), &local);
  assert_would_deadlock (!bg_loop_call (self->loop, util_no_call_cb, NULL, NULL, &local), &local);
  assert_would_deadlock (!bg_loop_flush (self->loop, -1, NULL, &local), &local);
  return TRUE;
}

static void
call_other_cb (gpointer user_data)
{
  Destructor *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_call (self->other, wait_for_caller_cb, self, NULL, &error));
  g_assert_no_error (error);
}

static void
test_circle (void)
{
  for (guint i = 0; i < 2; i++)
    {
      Destructor self;

      destructor_init (&self, call_other_cb, i);
      self.other = util_loop_new ("other");
      util_loop_end (self.loop);
      g_assert_cmpint (self.n_run, ==, 1);
      util_loop_end (self.other);
      destructor_clear (&self);
    }
}

/* Other loops can be used, and started and ended. */

static void
use_others_cb (gpointer user_data)
{
  Destructor *self = user_data;
  BgLoop *fresh = util_loop_new ("fresh"), *shared = bg_loop_dup_default (NULL);

  g_assert_false (bg_loop_is_current (fresh));
  g_assert_true (bg_loop_call (fresh, util_true_cb, NULL, NULL, NULL));
  util_loop_end (fresh);
  g_assert_true (bg_loop_call (shared, util_true_cb, NULL, NULL, NULL));
  g_assert_true (bg_loop_reset_default (-1, NULL));
  g_assert_finalize_object (shared);
  g_assert_true (bg_loop_call (self->other, util_true_cb, NULL, NULL, NULL));
  util_loop_end (self->other);
}

static void
test_others (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  for (guint i = 0; i < 2; i++)
    {
      Destructor self;

      destructor_init (&self, use_others_cb, i);
      self.other = util_loop_new ("other");
      util_loop_end (self.loop);
      g_assert_cmpint (self.n_run, ==, 1);
      destructor_clear (&self);
    }
  util_wait_for_threads (threads);
  g_assert_cmpuint (util_count_fds (), ==, fds);
}

/* A deadline covers a destructor that takes its time; the end has not come before. Nothing
 * else is said to be in the way. */

static void
block_cb (gpointer user_data)
{
  Destructor *self = user_data;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->released);
}

static void
assert_timed_out (gboolean failed, GError **error)
{
  g_assert_true (failed);
  g_assert_error (*error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_nonnull (strstr ((*error)->message, "destructors of its thread run"));
  g_assert_null (strstr ((*error)->message, "busy"));
  g_clear_error (error);
}

static void
test_deadline (void)
{
  for (guint i = 0; i < 4; i++)
    {
      BgShutdownMode mode = i % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL;
      g_autofree char *text = NULL;
      GError *error = NULL;
      Destructor self;

      destructor_init (&self, block_cb, i / 2);
      bg_loop_quit (self.loop, mode);
      util_latch_wait (&self.entered);
      for (int timeout_msec = 0; timeout_msec <= 10; timeout_msec += 5)
        {
          assert_timed_out (!bg_loop_shutdown_full (self.loop, mode, timeout_msec, NULL, &error),
                            &error);
          assert_timed_out (!bg_loop_wait (self.loop, timeout_msec, NULL, &error), &error);
        }
      g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPING);
      text = bg_loop_describe (self.loop);
      g_assert_nonnull (strstr (text, "destructors of its thread run"));
      util_latch_count_down (&self.released);
      util_loop_end (self.loop);
      destructor_clear (&self);
    }
}

/* A cancellable ends the wait there as elsewhere. */

static void
test_cancelled (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  Destructor self;
  GThread *thread;

  destructor_init (&self, block_cb, TRUE);
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_latch_wait (&self.entered);
  thread = g_thread_new ("cancel", util_cancel_thread, cancellable);
  g_assert_false (bg_loop_wait (self.loop, -1, cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_thread_join (thread);
  util_latch_count_down (&self.released);
  util_loop_end (self.loop);
  destructor_clear (&self);
}

/* An asynchronous shutdown blocks nobody for it: it is the main context that lets the
 * destructor return. */

static gboolean
release_cb (gpointer user_data)
{
  Destructor *self = user_data;

  g_assert_cmpint (self->n_replied, ==, 0);
  util_latch_count_down (&self->released);
  return G_SOURCE_REMOVE;
}

static void
ended_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Destructor *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (util_latch_is_open (&self->released));
  g_assert_true (bg_loop_shutdown_finish (self->loop, result, &error));
  g_assert_no_error (error);
  self->n_replied++;
}

static void
waited_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Destructor *self = user_data;

  g_assert_true (util_latch_is_open (&self->released));
  g_assert_true (bg_loop_wait_finish (self->loop, result, NULL));
  self->n_replied++;
}

static void
test_blocks_nobody (void)
{
  for (guint i = 0; i < 4; i++)
    {
      g_autoptr (GError) error = NULL;
      Destructor self;
      UtilReply late_reply;

      destructor_init (&self, block_cb, i % 2);
      util_reply_init (&late_reply);
      if (i < 2)
        {
          bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
          util_latch_wait (&self.entered);
        }
      bg_loop_shutdown_async (self.loop, BG_SHUTDOWN_DRAIN, -1, NULL, ended_cb, &self);
      bg_loop_wait_async (self.loop, -1, NULL, waited_cb, &self);
      bg_loop_shutdown_async (self.loop, BG_SHUTDOWN_DRAIN, 1, NULL, util_reply_cb, &late_reply);
      util_reply_wait (&late_reply);
      g_assert_false (bg_loop_shutdown_finish (self.loop, late_reply.result, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
      g_assert_cmpint (self.n_replied, ==, 0);

      g_idle_add (release_cb, &self);
      while (self.n_replied < 2)
        g_main_context_iteration (NULL, TRUE);
      util_reply_clear (&late_reply);
      util_loop_end (self.loop);
      destructor_clear (&self);
    }
}

/* The last reference may be thread-local data of the loop's own thread. */

static void
unref_cb (gpointer user_data)
{
  Destructor *self = user_data;

  if (self->n_run == self->rounds)
    g_assert_finalize_object (self->loop);
  else
    g_object_unref (self->loop);
  util_latch_count_down (&self->released);
}

static void
test_last_reference (void)
{
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  for (guint i = 0; i < 4; i++)
    {
      Destructor self;

      destructor_init (&self, unref_cb, i % 2);
      self.rounds = i < 2 ? 1 : ROUNDS;
      if (self.rounds > 1)
        {
          util_latch_clear (&self.released);
          util_latch_init (&self.released, ROUNDS);
          for (guint j = 1; j < ROUNDS; j++)
            g_object_ref (self.loop);
        }
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_latch_wait (&self.released);
      util_wait_for_threads (threads);
      g_assert_cmpint (self.n_run, ==, self.rounds);
      destructor_clear (&self);
    }
  g_assert_cmpuint (util_count_fds (), ==, fds);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);
  g_private_set (&early, NULL); /* before there is a loop */

  /* ThreadSanitizer's own data of a thread are gone in the last round of destructors, and
   * what GLib allocates for the thread there is a leak to AddressSanitizer. */
#if UTIL_IS_SANITIZED
  g_print ("1..0 # SKIP no destructors with a sanitizer\n");
  return 0;
#endif

  util_add_trapped ("/destructor/loop-is-current", test_current);
  util_add_trapped ("/destructor/async-would-deadlock", test_async);
  util_add_trapped ("/destructor/circle-would-deadlock", test_circle);
  util_add_trapped ("/destructor/uses-other-loops", test_others);
  util_add_trapped ("/destructor/deadline-covers-it", test_deadline);
  util_add_trapped ("/destructor/cancelled-wait", test_cancelled);
  util_add_trapped ("/destructor/async-blocks-nobody", test_blocks_nobody);
  util_add_trapped ("/destructor/last-reference", test_last_reference);

  return g_test_run ();
}
