/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "util.h"

/* What a child does ends with its exit status. Nothing of the parent's, such as
 * the leak checker, has any business there. */
typedef void (*ChildFunc) (BgLoop *loop);

static pid_t
start_child (ChildFunc func, BgLoop *loop)
{
  pid_t pid = util_fork ();

  if (pid != 0)
    return pid;

  func (loop);
  _exit (0);
}

/* Every entry point of an inherited loop */

static void
assert_forked (gboolean failed, GError **error)
{
  g_assert_true (failed);
  g_assert_error (*error, BG_ERROR, BG_ERROR_FORKED);
  g_clear_error (error);
}

static void
assert_looks_forked (BgLoop *loop)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
  g_autofree char *text = bg_loop_describe (loop);

  g_assert_cmpstr (bg_loop_get_name (loop), ==, "parent");
  g_assert_nonnull (bg_loop_get_context (loop));
  g_assert_nonnull (bg_loop_get_cancellable (loop));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  g_assert_false (bg_loop_is_current (loop));
  g_assert_null (bg_loop_dup_current ());
  g_assert_nonnull (stats);
  g_assert_nonnull (text);
}

static void
assert_takes_nothing (BgLoop *loop)
{
  g_autoptr (GSource) source = g_idle_source_new ();
  int destroyed = 0;

  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_cb));
  g_assert_false (bg_loop_post_full (loop, 7, util_not_reached_cb, &destroyed, util_count_cb));
  g_assert_false (bg_loop_invoke (loop, util_no_source_cb, NULL));
  g_assert_false (bg_loop_invoke_full (loop, 7, util_no_source_cb, &destroyed, util_count_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, &destroyed, util_count_cb),
                    ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, &destroyed, util_count_cb), ==,
                    0);
  g_assert_cmpint (destroyed, ==, 5);
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_false (bg_loop_withdraw (loop, 1));
  g_assert_cmpuint (bg_loop_hold (loop, "child"), ==, 0);
  bg_loop_release (loop, 1);
  g_assert_false (bg_loop_remove_teardown (loop, 1));
}

static void
assert_waits_for_nothing (BgLoop *loop)
{
  GError *error = NULL;

  assert_forked (!bg_loop_call (loop, util_no_call_cb, NULL, NULL, &error), &error);
  assert_forked (!bg_loop_call_full (loop, 7, -1, util_no_call_cb, NULL, NULL, &error), &error);
  assert_forked (!bg_loop_flush (loop, -1, NULL, &error), &error);
  assert_forked (bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, NULL, NULL,
                                  &error)
                     == NULL,
                 &error);
  assert_forked (bg_loop_perform_operation (loop, G_PRIORITY_DEFAULT, -1, util_no_operation_cb,
                                            NULL, NULL, &error)
                     == NULL,
                 &error);
  assert_forked (!bg_loop_wait (loop, -1, NULL, &error), &error);
  assert_forked (!bg_loop_wait (loop, 0, NULL, &error), &error);
  assert_forked (!bg_loop_shutdown (loop, &error), &error);
  assert_forked (!bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, 0, NULL, &error), &error);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
}

static void
called_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_forked (!bg_loop_call_finish (BG_LOOP (source), result, &error), &error);
  util_count_cb (user_data);
}

static void
performed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_forked (bg_loop_perform_finish (BG_LOOP (source), result, &error) == NULL, &error);
  util_count_cb (user_data);
}

static void
ended_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_forked (!bg_loop_shutdown_finish (BG_LOOP (source), result, &error), &error);
  util_count_cb (user_data);
}

static void
waited_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_forked (!bg_loop_wait_finish (BG_LOOP (source), result, &error), &error);
  util_count_cb (user_data);
}

static void
returned_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError *error = NULL;

  assert_forked (!g_task_propagate_boolean (G_TASK (result), &error), &error);
  util_count_cb (user_data);
}

static void
assert_replies_forked (BgLoop *loop)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GTask) task = NULL;
  int replies = 0, destroyed = 0;

  g_main_context_push_thread_default (context);
  task = g_task_new (NULL, NULL, returned_cb, &replies);
  bg_loop_run_task (loop, 0, task, util_no_task_cb);
  bg_loop_perform_operation_async (loop, 0, -1, util_no_operation_cb, &destroyed, util_count_cb,
                                   NULL, performed_cb, &replies);
  bg_loop_wait_async (loop, -1, NULL, waited_cb, &replies);
  bg_loop_call_async (loop, 0, -1, util_no_call_cb, &destroyed, util_count_cb, NULL, called_cb,
                      &replies);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, util_no_begin_cb, &destroyed, util_count_cb,
                         NULL, performed_cb, &replies);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_CANCEL, -1, NULL, ended_cb, &replies);
  g_assert_cmpint (destroyed, ==, 3);
  g_assert_cmpint (replies, ==, 0);
  while (replies < 6)
    g_main_context_iteration (context, TRUE);
  g_main_context_pop_thread_default (context);
}

static void
assert_dead (BgLoop *loop)
{
  assert_looks_forked (loop);
  assert_takes_nothing (loop);
  assert_waits_for_nothing (loop);
  assert_replies_forked (loop);
}

/* The child has loops of its own. */
static void
use_loop (BgLoop *loop)
{
  int ran = 0;

  g_assert_true (bg_loop_post (loop, util_count_cb, &ran, util_count_cb));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpint (ran, ==, 2);
}

static void
use_own_loops (void)
{
  BgLoop *fresh = util_loop_new ("child");
  BgLoop *shared = bg_loop_dup_default (NULL);

  g_assert_cmpint (bg_loop_get_state (shared), ==, BG_LOOP_RUNNING);
  use_loop (fresh);
  use_loop (shared);
  g_assert_true (bg_loop_reset_default (-1, NULL));
  g_assert_cmpint (bg_loop_get_state (shared), ==, BG_LOOP_STOPPED);
  util_loop_end (fresh);
  util_loop_end (shared);
}

static void
do_everything (BgLoop *loop)
{
  assert_dead (loop);
  use_own_loops ();
  assert_dead (loop);
  g_object_unref (loop);
  use_own_loops ();
}

/* The parent's loop */

static void
assert_works (BgLoop *loop)
{
  int ran = 0;

  g_assert_true (bg_loop_call (loop, util_count_call_cb, &ran, NULL, NULL));
  g_assert_cmpint (ran, ==, 1);
  use_loop (loop);
}

/* A source that sees the context wake up: its prepare is called each time. */
typedef struct
{
  GSource source;
  int *prepared;
} Probe;

static gboolean
probe_prepare (GSource *source, int *timeout)
{
  *timeout = -1;
  g_atomic_int_inc (((Probe *) source)->prepared);
  return FALSE;
}

static GSourceFuncs probe_funcs = { .prepare = probe_prepare };

/* Until it sleeps, and has for a few looks. */
static int
wait_until_asleep (BgLoop *loop, int *prepared)
{
  int before = -1;
  guint same = 0;

  while (same < 1000)
    {
      int now = g_atomic_int_get (prepared);

      same = util_is_asleep (loop) && now == before ? same + 1 : 0;
      before = now;
      g_thread_yield ();
    }
  return before;
}

/* Nothing that the child does wakes the parent's loop. */
static void
test_not_woken (void)
{
  BgLoop *loop = util_loop_new ("parent");
  GSource *source = g_source_new (&probe_funcs, sizeof (Probe));
  int prepared = 0, before;

  ((Probe *) source)->prepared = &prepared;
  g_assert_true (bg_loop_attach (loop, source));
  assert_works (loop);
  before = wait_until_asleep (loop, &prepared);
  for (guint i = 0; i < 5; i++)
    util_wait_for_child (start_child (do_everything, loop));
  g_assert_cmpint (wait_until_asleep (loop, &prepared), ==, before);

  assert_works (loop);
  g_assert_cmpint (wait_until_asleep (loop, &prepared), >, before);
  g_source_unref (source);
  util_loop_end (loop);
}

/* In each state of the loop */
static void
test_states (void)
{
  BgLoop *loop = util_loop_new ("parent");
  UtilBlock block;
  guint64 hold;
  int ran = 0;

  util_wait_for_child (start_child (do_everything, loop));

  util_block (&block, loop);
  hold = bg_loop_hold (loop, "parent");
  g_assert_true (bg_loop_post (loop, util_count_cb, &ran, NULL));
  g_assert_cmpuint (bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, NULL, NULL), !=, 0);
  util_wait_for_child (start_child (do_everything, loop));

  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_wait_for_child (start_child (do_everything, loop));

  util_unblock (&block);
  bg_loop_release (loop, hold);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_cmpint (ran, ==, 1);
  util_wait_for_child (start_child (do_everything, loop));
  util_block_clear (&block);
  util_loop_end (loop);
}

/* The default loop of the parent and that of the child are two. */
static void
default_child (BgLoop *loop)
{
  g_autoptr (BgLoop) shared = bg_loop_dup_default (NULL);

  g_assert_true (shared != loop);
  use_loop (shared);
  g_assert_true (bg_loop_reset_default (-1, NULL));
  g_object_unref (loop);
  use_own_loops ();
}

static void
test_default (void)
{
  BgLoop *loop = bg_loop_dup_default (NULL);
  BgLoop *same;

  use_loop (loop);
  util_wait_for_child (start_child (default_child, loop));
  same = bg_loop_dup_default (NULL);
  g_assert_true (same == loop);
  use_loop (same);
  g_object_unref (same);
  util_loop_end (loop);
}

/* From the loop's own thread: in the child, too, that is no thread of a loop. */

static void
own_thread_child (BgLoop *loop)
{
  g_assert_null (g_strstr_len (bg_loop_describe (loop), -1, "running "));
  assert_looks_forked (loop);
  assert_takes_nothing (loop);
  assert_waits_for_nothing (loop);
  assert_replies_forked (loop);
  use_own_loops ();
  g_object_unref (loop);
}

static void
fork_cb (gpointer user_data)
{
  util_wait_for_child (start_child (own_thread_child, user_data));
}

static void
test_own_thread (void)
{
  BgLoop *loop = util_loop_new ("parent");

  for (guint i = 0; i < util_scale (10); i++)
    {
      g_assert_true (bg_loop_post (loop, fork_cb, loop, NULL));
      assert_works (loop);
    }
  g_assert_cmpuint (bg_loop_add_teardown (loop, fork_cb, loop, NULL), !=, 0);
  util_loop_end (loop);
}

/* A child of a child */

static void
grandchild (BgLoop *loop)
{
  do_everything (loop);
}

static void
child_with_child (BgLoop *loop)
{
  BgLoop *own = util_loop_new ("parent");

  util_wait_for_child (start_child (grandchild, loop));
  util_wait_for_child (start_child (grandchild, own));
  assert_works (own);
  assert_dead (loop);
  util_loop_end (own);
}

static void
test_grandchild (void)
{
  BgLoop *loop = util_loop_new ("parent");

  util_wait_for_child (start_child (child_with_child, loop));
  assert_works (loop);
  util_loop_end (loop);
}

/* Other threads hold the loop's locks at the moment of the fork. */

typedef struct
{
  BgLoop *loop;
  int stop;
  int ran;
  int accepted;
} Storm;

/* Not more than the loop can take, or it would have more and more to do. */
static void
wait_for_room (BgLoop *loop)
{
  guint queued;

  do
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

      queued = stats->queued;
    }
  while (queued > 100);
}

static gpointer
storm_thread (gpointer user_data)
{
  Storm *self = user_data;

  while (!g_atomic_int_get (&self->stop))
    {
      guint64 hold = bg_loop_hold (self->loop, "storm");
      guint64 work = bg_loop_post_after (self->loop, G_MAXINT, util_not_reached_cb, NULL, NULL);

      (void) bg_loop_withdraw (self->loop, work);
      for (guint i = 0; i < 10; i++)
        {
          if (bg_loop_post (self->loop, util_count_cb, &self->ran, NULL))
            g_atomic_int_inc (&self->accepted);
        }
      wait_for_room (self->loop);
      bg_loop_release (self->loop, hold);
    }
  return NULL;
}

static gpointer
default_thread (gpointer user_data)
{
  Storm *self = user_data;

  while (!g_atomic_int_get (&self->stop))
    g_clear_object (&(BgLoop *){ bg_loop_dup_default (NULL) });
  return NULL;
}

static void
run_storm (guint n_forks, guint n_posting, gboolean with_default)
{
  Storm self = { util_loop_new ("parent") };
  BgLoop *shared = bg_loop_dup_default (NULL);
  GThread *threads[4];
  guint n = 0;

  while (n < n_posting)
    threads[n++] = g_thread_new ("storm", storm_thread, &self);
  if (with_default)
    threads[n++] = g_thread_new ("default", default_thread, &self);

  for (guint i = 0; i < util_scale (n_forks); i++)
    {
      pid_t pid = start_child (do_everything, self.loop);

      assert_works (self.loop);
      util_wait_for_child (pid);
    }

  g_atomic_int_set (&self.stop, TRUE);
  while (n > 0)
    g_thread_join (threads[--n]);
  util_loop_end (self.loop);
  g_assert_cmpint (self.ran, ==, self.accepted);
  util_loop_end (shared);
}

G_GNUC_UNUSED static void
test_storm (void)
{
  run_storm (110, 3, FALSE);
  run_storm (30, 1, TRUE);
}

/* A child answers callers of its own in a context in which its parent was answered
 * before. */

static void
assert_call_async (BgLoop *loop, gboolean forked)
{
  GError *error = NULL;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_call_async (loop, 0, -1, util_true_cb, NULL, NULL, NULL, util_reply_cb, &reply);
  util_reply_wait (&reply);
  if (forked)
    {
      assert_forked (!bg_loop_call_finish (loop, reply.result, &error), &error);
    }
  else
    {
      g_assert_true (bg_loop_call_finish (loop, reply.result, &error));
      g_assert_no_error (error);
    }
  util_reply_clear (&reply);
}

static void
replies_child (BgLoop *loop)
{
  BgLoop *own = util_loop_new ("child");

  assert_call_async (loop, TRUE);
  assert_call_async (own, FALSE);
  util_loop_end (own);
}

static void
test_replies (void)
{
  BgLoop *loop = util_loop_new ("parent");

  for (guint i = 0; i < 5; i++)
    {
      assert_call_async (loop, FALSE);
      util_wait_for_child (start_child (replies_child, loop));
    }
  assert_call_async (loop, FALSE);
  util_loop_end (loop);
}

/* What a child does to things of GLib's that it has inherited, and that the parent
 * has given to a loop, does not wait for the loop's locks, which are held by
 * threads that the child does not have. */

typedef struct
{
  BgLoop *loop;
  int stop;
  GThread *threads[4];
} Contention;

/* Allocates nothing: the locks of an allocator may not survive a fork, either. */
static gpointer
contention_thread (gpointer user_data)
{
  Contention *self = user_data;

  while (!g_atomic_int_get (&self->stop))
    (void) bg_loop_withdraw (self->loop, G_MAXUINT64);
  return NULL;
}

static void
contention_start (Contention *self, BgLoop *loop)
{
  self->loop = loop;
  self->stop = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (self->threads); i++)
    self->threads[i] = g_thread_new ("contention", contention_thread, self);
}

static void
contention_stop (Contention *self)
{
  g_atomic_int_set (&self->stop, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (self->threads); i++)
    g_thread_join (self->threads[i]);
}

static void
fork_with_contention (ChildFunc func, BgLoop *loop)
{
  Contention contention;

  contention_start (&contention, loop);
  for (guint i = 0; i < util_scale (100); i++)
    util_wait_for_child (start_child (func, loop));
  contention_stop (&contention);
}

/* An operation that answers when the test says so. */
static gboolean
begin_task_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  *(GTask **) user_data = g_task_new (NULL, NULL, callback, callback_data);
  return TRUE;
}

static GCancellable *inherited_cancellable;

static void
cancel_child (BgLoop *loop)
{
  g_cancellable_cancel (inherited_cancellable);
  g_cancellable_cancel (bg_loop_get_cancellable (loop));
}

static void
test_cancels_inherited (void)
{
  BgLoop *loop = util_loop_new ("parent");
  g_autoptr (GError) error = NULL;
  UtilReply performed, called;
  GTask *task = NULL;
  UtilBlock block;

  inherited_cancellable = g_cancellable_new ();
  util_reply_init (&performed);
  util_reply_init (&called);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, begin_task_cb, &task, NULL,
                         inherited_cancellable, util_reply_cb, &performed);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_block (&block, loop);
  bg_loop_call_async (loop, 0, -1, util_true_cb, NULL, NULL, inherited_cancellable, util_reply_cb,
                      &called);
  fork_with_contention (cancel_child, loop);
  g_assert_false (g_cancellable_is_cancelled (inherited_cancellable));
  util_unblock (&block);

  util_reply_wait (&called);
  g_assert_true (bg_loop_call_finish (loop, called.result, &error));
  g_assert_no_error (error);
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
  util_reply_wait (&performed);
  g_clear_object (&(GAsyncResult *){ bg_loop_perform_finish (loop, performed.result, &error) });
  g_assert_no_error (error);
  util_reply_clear (&called);
  util_reply_clear (&performed);
  util_loop_end (loop);
  util_block_clear (&block);
  g_clear_object (&inherited_cancellable);
}

/* Until everything that was due before is done. */
static void
iterate_child (BgLoop *loop)
{
  g_autoptr (GSource) source = g_timeout_source_new (2);
  UtilLatch done;

  util_latch_init (&done, 1);
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, util_count_down_source_cb, &done, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  util_iterate_until (&done);
  util_latch_clear (&done);
}

static void
test_iterates_inherited (void)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  BgLoop *loop = util_loop_new ("parent");
  guint64 hold = bg_loop_hold (loop, "parent");
  g_autoptr (GError) error = NULL;
  UtilReply reply;

  g_main_context_push_thread_default (context);
  util_reply_init (&reply);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, 1, NULL, util_reply_cb, &reply);
  fork_with_contention (iterate_child, loop);
  g_assert_null (reply.result);

  util_reply_wait (&reply);
  g_assert_false (bg_loop_shutdown_finish (loop, reply.result, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  util_reply_clear (&reply);
  g_main_context_pop_thread_default (context);
  bg_loop_release (loop, hold);
  util_loop_end (loop);
}

/* The loop's own thread forks while there is all kinds of work, and the child
 * iterates the context that it is in: nothing of the parent's happens there. */

typedef struct
{
  BgLoop *loop;
  pid_t parent;
  UtilLatch queued;
  int n_run;
} Pending;

static void
pending_cb (gpointer user_data)
{
  Pending *self = user_data;

  g_assert_cmpint (getpid (), ==, self->parent);
  self->n_run++;
}

static gboolean
pending_source_cb (gpointer user_data)
{
  pending_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
fork_iterating_cb (gpointer user_data)
{
  Pending *self = user_data;

  util_latch_wait (&self->queued);
  g_assert_true (bg_loop_post (self->loop, pending_cb, self, NULL));
  g_assert_cmpuint (bg_loop_post_after (self->loop, 1, pending_cb, self, NULL), !=, 0);
  fork_with_contention (iterate_child, self->loop);
}

static void
test_iterates_own (void)
{
  Pending self = { util_loop_new ("parent"), getpid () };

  util_latch_init (&self.queued, 1);
  g_assert_true (bg_loop_post (self.loop, fork_iterating_cb, &self, NULL));
  g_assert_true (bg_loop_invoke (self.loop, pending_source_cb, &self));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_latch_count_down (&self.queued);
  util_loop_end (self.loop);
  g_assert_cmpint (self.n_run, ==, 3);
  util_latch_clear (&self.queued);
}

/* A function on the loop forks, and the child returns from it: it gets back to the
 * context, without waiting for a lock, and does nothing else of the parent's. */

typedef enum
{
  IN_POST,
  IN_DESTROY,
  IN_DELAYED,
  IN_INVOKED,
  IN_INVOKED_INLINE,
  IN_INVOKED_AGAIN,
  IN_CALL,
  IN_CALL_ASYNC,
  IN_BEGIN,
  IN_TEARDOWN,
  N_PLACES,
} Place;

static pid_t parent_pid, returned_child;

static gboolean
end_child_cb (gpointer user_data)
{
  _exit (0);
}

static void
fork_and_return_cb (gpointer user_data)
{
  GSource *source;

  returned_child = util_fork ();
  if (returned_child != 0)
    return;

  source = g_idle_source_new ();
  g_source_set_callback (source, end_child_cb, NULL, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  g_source_unref (source);
}

static void
fork_and_stay_cb (gpointer user_data)
{
  pid_t *pid = user_data;

  *pid = util_fork ();
}

/* What is behind it in the same batch is the parent's. */
static void
of_parent_cb (gpointer parent)
{
  if (getpid () != GPOINTER_TO_INT (parent))
    _exit (1);
}

static gboolean
fork_and_return_source_cb (gpointer user_data)
{
  fork_and_return_cb (user_data);
  return G_SOURCE_REMOVE;
}

static gboolean
fork_once_source_cb (gpointer user_data)
{
  int *n = user_data;

  if (++*n > 1)
    return G_SOURCE_REMOVE;

  fork_and_return_cb (NULL);
  return G_SOURCE_CONTINUE;
}

static void
invoke_inline_cb (gpointer user_data)
{
  (void) bg_loop_invoke (user_data, fork_and_return_source_cb, NULL);
}

static gboolean
fork_and_return_call_cb (gpointer user_data, GError **error)
{
  fork_and_return_cb (user_data);
  return TRUE;
}

static gboolean
fork_and_return_begin_cb (gpointer user_data,
                          GCancellable *cancellable,
                          GAsyncReadyCallback callback,
                          gpointer callback_data,
                          GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  fork_and_return_cb (user_data);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static void
teardown_cb (gpointer user_data)
{
  if (getpid () != parent_pid)
    _exit (9);
}

static void
fork_at (BgLoop *loop, Place place, int *n)
{
  switch (place)
    {
    case IN_POST:
      bg_loop_post (loop, fork_and_return_cb, NULL, NULL);
      break;
    case IN_DESTROY:
      bg_loop_post (loop, util_nothing_cb, loop, fork_and_return_cb);
      break;
    case IN_DELAYED:
      bg_loop_post_after (loop, 0, fork_and_return_cb, NULL, NULL);
      break;
    case IN_INVOKED:
      bg_loop_invoke (loop, fork_and_return_source_cb, NULL);
      break;
    case IN_INVOKED_INLINE:
      bg_loop_post (loop, invoke_inline_cb, loop, NULL);
      break;
    case IN_INVOKED_AGAIN:
      bg_loop_invoke (loop, fork_once_source_cb, n);
      break;
    case IN_CALL:
    case IN_CALL_ASYNC:
      bg_loop_call_async (loop, 0, -1, fork_and_return_call_cb, NULL, NULL, NULL, NULL, NULL);
      break;
    case IN_BEGIN:
      bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, fork_and_return_begin_cb, NULL, NULL,
                             NULL, NULL, NULL);
      break;
    default:
      bg_loop_add_teardown (loop, fork_and_return_cb, NULL, NULL);
    }
}

static void
fork_and_return (Place place, gboolean draining)
{
  BgLoop *loop = util_loop_new ("parent");
  Contention contention;
  UtilBlock block;
  int n = 0;

  g_assert_cmpuint (bg_loop_add_teardown (loop, teardown_cb, NULL, NULL), !=, 0);
  contention_start (&contention, loop);
  if (place == IN_CALL && !draining)
    g_assert_true (bg_loop_call (loop, fork_and_return_call_cb, NULL, NULL, NULL));
  else
    {
      util_block (&block, loop);
      fork_at (loop, place, &n);
      for (guint i = 0; i < 5; i++)
        g_assert_true (bg_loop_post (loop, of_parent_cb, GINT_TO_POINTER (getpid ()), NULL));
      if (draining)
        bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
    }
  g_assert_true (bg_loop_shutdown (loop, NULL));
  contention_stop (&contention);
  util_wait_for_child (returned_child);
  g_object_unref (loop);
  if (place != IN_CALL || draining)
    util_block_clear (&block);
}

static void
test_returns (void)
{
  guint n = util_scale (5) * N_PLACES * 2;

  parent_pid = getpid ();
  for (guint i = 0; i < n; i++)
    fork_and_return (i % N_PLACES, i / N_PLACES % 2);
}

/* Less urgent work was found ready, when a source of its priority, which is asked after it,
 * has more urgent work done, and that forks: the work is ready in the child, too. */

#define LESS_URGENT 5

typedef struct
{
  GSource source;
  BgLoop *loop;
  pid_t child;
  guint armed;
  UtilLatch forked;
} Urging;

static void
ready_of_parent_cb (gpointer user_data)
{
  Urging *self = user_data;

  if (self->child == 0)
    _exit (1);
}

static void
fork_and_go_on_cb (gpointer user_data)
{
  Urging *self = user_data;
  g_autoptr (GSource) source = NULL;

  self->child = util_fork ();
  if (self->child != 0)
    {
      util_latch_count_down (&self->forked);
      return;
    }

  /* What comes after all that was ready */
  source = g_idle_source_new ();
  g_source_set_callback (source, end_child_cb, NULL, NULL);
  g_source_attach (source, bg_loop_get_context (self->loop));
}

static gboolean
urging_prepare (GSource *source, int *timeout)
{
  Urging *self = (Urging *) source;

  *timeout = -1;
  if (self->armed > 0)
    g_assert_true (bg_loop_post (self->loop, fork_and_go_on_cb, self, NULL));
  self->armed = 0;
  return FALSE;
}

static GSourceFuncs urging_funcs = { .prepare = urging_prepare };

static void
hand_over_ready_cb (gpointer user_data)
{
  Urging *self = user_data;

  self->armed = 1;
  g_assert_true (bg_loop_post_full (self->loop, LESS_URGENT, ready_of_parent_cb, self, NULL));
}

static Urging *
urging_new (GSourceFuncs *funcs, BgLoop *loop, int priority)
{
  GSource *source = g_source_new (funcs, sizeof (Urging));
  Urging *self = (Urging *) source;

  self->loop = loop;
  self->child = -1;
  util_latch_init (&self->forked, 1);
  g_source_set_priority (source, priority);
  g_assert_true (bg_loop_attach (loop, source));
  return self;
}

static void
urging_end (Urging *self)
{
  util_latch_wait (&self->forked);
  g_assert_true (bg_loop_shutdown (self->loop, NULL));
  util_wait_for_child (self->child);
  util_latch_clear (&self->forked);
  g_object_unref (self->loop);
  g_source_unref (&self->source);
}

static void
test_returned_runs_nothing_ready (void)
{
  BgLoop *loop = util_loop_new ("parent");
  Urging *self;

  g_assert_true (bg_loop_post_full (loop, LESS_URGENT, util_nothing_cb, NULL, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  self = urging_new (&urging_funcs, loop, LESS_URGENT);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_post (loop, hand_over_ready_cb, self, NULL));
  urging_end (self);
}

/* The same of a loop that drains: a source as urgent as that is dispatched before it does. */

static gboolean
draining_prepare (GSource *source, int *timeout)
{
  Urging *self = (Urging *) source;

  *timeout = -1;
  return self->armed > 0 && --self->armed == 0;
}

static gboolean
draining_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  fork_and_go_on_cb (source);
  return G_SOURCE_REMOVE;
}

static GSourceFuncs draining_funcs = { .prepare = draining_prepare, .dispatch = draining_dispatch };

/* Draining skips every other iteration. */
static void
drain_ready_cb (gpointer user_data)
{
  Urging *self = user_data;

  self->armed = 2;
  for (guint i = 0; i < 3; i++)
    g_assert_true (bg_loop_post_full (self->loop, LESS_URGENT, ready_of_parent_cb, self, NULL));
}

static void
test_returned_does_not_drain (void)
{
  BgLoop *loop = util_loop_new ("parent");
  Urging *self = urging_new (&draining_funcs, loop, G_MININT);
  UtilBlock block;

  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, drain_ready_cb, self, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  urging_end (self);
  util_block_clear (&block);
}

static void
fork_and_stay_cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  fork_and_stay_cb (user_data);
}

/* In the midst of what waits for the parent's loop. */
static void
test_returned_shuts_down (void)
{
  BgLoop *loop = util_loop_new ("parent");
  GError *error = NULL;
  gboolean ended;
  pid_t pid;

  g_cancellable_connect (bg_loop_get_cancellable (loop), G_CALLBACK (fork_and_stay_cancelled_cb),
                         &pid, NULL);
  ended = bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, -1, NULL, &error);
  if (pid == 0)
    {
      assert_forked (!ended, &error);
      _exit (0);
    }

  g_assert_no_error (error);
  g_assert_true (ended);
  util_wait_for_child (pid);
  g_object_unref (loop);
}

/* Nor does it let go of its parent's sources: the first that goes has forked it. */

static void
fork_and_go_finalize (GSource *source)
{
  if (getpid () != parent_pid)
    _exit (2);
  if (returned_child == 0)
    fork_and_return_cb (NULL);
}

static GSourceFuncs going_funcs = { .finalize = fork_and_go_finalize };

static void
test_returned_lets_go_of_nothing (void)
{
  BgLoop *loop = util_loop_new ("parent");

  parent_pid = getpid ();
  for (guint i = 0; i < 3; i++)
    {
      g_autoptr (GSource) source = g_source_new (&going_funcs, sizeof (GSource));

      g_assert_true (bg_loop_attach (loop, source));
    }
  g_assert_true (bg_loop_shutdown (loop, NULL));
  util_wait_for_child (returned_child);
  g_object_unref (loop);
}

/* Nor does it take what is to wake the parent. */
static void
test_returned_takes_no_wakeup (void)
{
  BgLoop *loop = util_loop_new ("parent");
  pid_t pid;
  int status;

  g_object_set (loop, "linger", 0, NULL);
  g_assert_true (bg_loop_post (loop, fork_and_stay_cb, &pid, NULL));
  for (guint i = 0; i < util_scale (5000); i++)
    assert_works (loop);
  util_loop_end (loop);

  g_assert_cmpint (kill (pid, SIGKILL), ==, 0);
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL);
}

/* What the child polls, the descriptor that wakes it included, is closed in a program that it
 * executes. */

#define MANY_FDS 16

static gboolean
all_close_on_exec (GMainContext *context)
{
  GPollFD fds[MANY_FDS];
  int timeout;
  int n = g_main_context_query (context, G_MAXINT, &timeout, fds, MANY_FDS);

  if (n < 1 || n > MANY_FDS)
    return FALSE;
  for (int i = 0; i < n; i++)
    {
      int flags = fcntl ((int) fds[i].fd, F_GETFD);

      if (flags == -1 || (flags & FD_CLOEXEC) == 0)
        return FALSE;
    }
  return TRUE;
}

static gboolean
fork_to_look_cb (gpointer user_data, GError **error)
{
  GMainContext *context = bg_loop_get_context (user_data);
  pid_t pid;

  g_assert_true (all_close_on_exec (context));
  pid = util_fork ();
  if (pid == 0)
    _exit (all_close_on_exec (context) ? 0 : 1);
  util_wait_for_child (pid);
  return TRUE;
}

static void
test_returned_closes (void)
{
  BgLoop *loop = util_loop_new ("parent");

  g_assert_true (bg_loop_call (loop, fork_to_look_cb, loop, NULL, NULL));
  util_loop_end (loop);
}

/* A weak notify that runs as the last of a loop goes may fork: the child has no part in the
 * list that the loop is taken out of. */

#define AN_HOUR (60 * 60 * 1000)

static pid_t weakly_forked = -1;

static void
weak_fork_cb (gpointer data, GObject *object)
{
  weakly_forked = util_fork ();
}

static void
test_weak_notify (void)
{
  BgLoop *loop = util_loop_new ("parent");

  g_object_weak_ref (G_OBJECT (bg_loop_get_cancellable (loop)), weak_fork_cb, NULL);
  util_loop_end (loop);
  while (bg_test_describe_loops (0, 0) != NULL)
    g_thread_yield ();
  if (weakly_forked == 0)
    {
      /* What is thought to be going would be waited for. */
      _exit (bg_test_describe_loops (0, -1) == NULL && bg_test_describe_loops (0, AN_HOUR) == NULL
                 ? 0
                 : 1);
    }
  g_assert_cmpint (weakly_forked, >, 0);
  util_wait_for_child (weakly_forked);
}

/* Another thread is about to be the first to use something when the child is forked off,
 * and has locks of GLib's. */

static GThread *first_user;
static UtilLatch first_used, forked;
static int n_quark_lookups; /* atomic */

static gboolean
is_first_user (void)
{
  return g_thread_self () == g_atomic_pointer_get (&first_user);
}

static void
stay_until_forked (void)
{
  util_latch_count_down (&first_used);
  util_latch_wait (&forked);
}

/* Stands before GLib's, also for what the library calls. */
GQuark
g_quark_from_static_string (const char *string)
{
  static GQuark (*next) (const char *);

  if (next == NULL)
    next = (GQuark (*) (const char *)) dlsym (RTLD_NEXT, "g_quark_from_static_string");
  if (g_strcmp0 (string, "bg-error-quark") == 0)
    {
      g_atomic_int_inc (&n_quark_lookups);
      if (is_first_user ())
        stay_until_forked ();
    }
  return next (string);
}

typedef GObject Slow;
typedef GObjectClass SlowClass;

static GType slow_get_type (void);
G_DEFINE_TYPE (Slow, slow, G_TYPE_OBJECT)

static void
slow_class_init (SlowClass *klass)
{
  stay_until_forked ();
}

static void
slow_init (Slow *self)
{
}

static gpointer
first_user_thread (gpointer func)
{
  g_atomic_pointer_set (&first_user, g_thread_self ());
  ((void (*) (void)) func) ();
  return NULL;
}

static void
fork_beside_first_use (void (*use) (void), ChildFunc child, BgLoop *loop)
{
  GThread *thread;

  util_latch_init (&first_used, 1);
  util_latch_init (&forked, 1);
  thread = g_thread_new ("first", first_user_thread, (gpointer) use);
  util_latch_wait (&first_used);
  /* GLib's worker may be just starting, and in an allocator whose lock the child needs. */
  while (UTIL_WITH_ASAN && util_count_threads_awake () > 1)
    g_thread_yield ();
  util_wait_for_child (start_child (child, loop));
  util_latch_count_down (&forked);
  g_thread_join (thread);
  util_latch_clear (&first_used);
  util_latch_clear (&forked);
}

static void
use_quark (void)
{
  g_assert_cmpstr (g_quark_to_string (BG_ERROR), ==, "bg-error-quark");
}

static void
quark_child (BgLoop *loop)
{
  use_quark ();
}

static void
test_first_quark (void)
{
  fork_beside_first_use (use_quark, quark_child, NULL);
}

/* Whoever initializes a class has the lock that registers types with interfaces. */
static void
use_class (void)
{
  g_type_class_unref (g_type_class_ref (slow_get_type ()));
}

static void
test_first_class (void)
{
  BgLoop *loop = util_loop_new ("parent");

  g_type_class_unref (g_type_class_ref (G_TYPE_TASK));
  fork_beside_first_use (use_class, do_everything, loop);
  util_loop_end (loop);
}

/* A handler of the loop's cancellable that forks returns in the child, too. There the loop's lock
 * is as another thread had it, which describes the loop, and asks for the name of a source then. */

const char *
g_source_get_name (GSource *source)
{
  static const char *(*next) (GSource *);

  if (next == NULL)
    next = (const char *(*) (GSource *) ) dlsym (RTLD_NEXT, "g_source_get_name");
  if (is_first_user () && !util_latch_is_open (&first_used))
    stay_until_forked ();
  return next (source);
}

static BgLoop *described;

static void
describe (void)
{
  g_autofree char *text = bg_loop_describe (described);

  g_assert_nonnull (text);
}

typedef struct
{
  GThread *thread;
  pid_t child;
} InHandler;

static void
fork_in_handler_cb (GCancellable *cancellable, gpointer user_data)
{
  InHandler *self = user_data;

  self->thread = g_thread_new ("describes", first_user_thread, (gpointer) describe);
  util_latch_wait (&first_used);
  self->child = util_fork ();
  if (self->child != 0)
    util_latch_count_down (&forked);
}

/* Whoever cancels the loop runs it: this thread, or the loop's own when that has been ended. */
static void
fork_in_handler (gboolean exits)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);
  BgLoop *loop = util_loop_new ("parent");
  guint64 hold = bg_loop_hold (loop, "handler");
  InHandler self = { NULL };

  described = loop;
  util_latch_init (&first_used, 1);
  util_latch_init (&forked, 1);
  g_source_set_name (source, "named");
  g_assert_true (bg_loop_attach (loop, source));
  g_signal_connect (bg_loop_get_cancellable (loop), "cancelled", G_CALLBACK (fork_in_handler_cb),
                    &self);
  if (exits)
    {
      g_assert_true (bg_loop_post (loop, util_exit_thread_cb, NULL, NULL));
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
    }
  else
    {
      bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
      if (self.child == 0)
        _exit (0);
    }
  util_wait_for_child (self.child);
  g_thread_join (self.thread);
  bg_loop_release (loop, hold);
  util_loop_end (loop);
  util_latch_clear (&first_used);
  util_latch_clear (&forked);
}

static void
test_handler (void)
{
  fork_in_handler (FALSE);
}

/* The child's only thread goes on to its end. */
static void
test_handler_of_exit (void)
{
  util_catch_criticals ();
  fork_in_handler (TRUE);
  util_take_critical ("*has ended the thread of the loop*parent*");
}

/* An operation of the parent's is no operation of the child's, which numbers its own from the
 * beginning: to answer it or to let go of it is of no effect there. */

static BgOperation *inherited; /* (owned) of the parent's loop */

static gboolean
keep_operation_cb (BgOperation *operation,
                   GCancellable *cancellable,
                   gpointer user_data,
                   GError **error)
{
  *(BgOperation **) user_data = bg_operation_ref (operation);
  return TRUE;
}

static void
let_go_of_inherited (BgLoop *loop)
{
  BgLoop *own = util_loop_new ("child");
  g_autoptr (GAsyncResult) answer = util_answer_new (0);
  g_autoptr (BgLoopStats) stats = NULL;
  BgOperation *operations[4];

  for (guint i = 0; i < G_N_ELEMENTS (operations); i++)
    bg_loop_perform_operation_async (own, 0, -1, keep_operation_cb, &operations[i], NULL, NULL,
                                     NULL, NULL);
  g_assert_true (bg_loop_flush (own, -1, NULL, NULL));
  bg_operation_answer (inherited, answer);
  bg_operation_unref (inherited);
  g_assert_true (bg_loop_flush (own, -1, NULL, NULL));
  stats = bg_loop_get_stats (own);
  g_assert_cmpuint (stats->holds, ==, G_N_ELEMENTS (operations));
  for (guint i = 0; i < G_N_ELEMENTS (operations); i++)
    bg_operation_unref (operations[i]);
  util_loop_end (own);
}

static void
test_inherited_operation (void)
{
  BgLoop *loop = util_loop_new ("parent");
  g_autoptr (GError) error = NULL;
  UtilReply reply;

  util_reply_init (&reply);
  bg_loop_perform_operation_async (loop, 0, -1, keep_operation_cb, &inherited, NULL, NULL,
                                   util_reply_cb, &reply);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_wait_for_child (start_child (let_go_of_inherited, loop));
  bg_operation_unref (inherited);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (loop, reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_UNANSWERED);
  util_reply_clear (&reply);
  util_loop_end (loop);
}

/* Nothing is left for a child to be the first to use. */
static void
test_first_loop (void)
{
  static const char *const types[]
      = { "BgError", "BgLoopState", "BgLoopStats", "BgOperation", "BgReply", "BgShutdownMode" };
  BgLoop *loop;

  g_assert_cmpuint (g_quark_try_string ("bg-error-quark"), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    g_assert_cmpuint (g_type_from_name (types[i]), ==, 0);

  loop = util_loop_new ("parent");
  g_assert_cmpuint (g_quark_try_string ("bg-error-quark"), !=, 0);
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    g_assert_cmpuint (g_type_from_name (types[i]), !=, 0);

  /* Nor is it looked up again, under the lock that GLib has for that. */
  g_assert_cmpint (g_atomic_int_get (&n_quark_lookups), ==, 1);
  g_assert_cmpstr (g_quark_to_string (BG_ERROR), ==, "bg-error-quark");
  g_assert_cmpint (g_atomic_int_get (&n_quark_lookups), ==, 1);
  util_loop_end (loop);
}

int
main (int argc, char *argv[])
{
  /* GLib's own allocator has locks, that do not survive a fork as malloc()'s do. */
  g_setenv ("G_SLICE", "always-malloc", TRUE);
  util_init (&argc, &argv);

#if UTIL_WITH_TSAN
  g_print ("1..0 # SKIP no threads after a fork with ThreadSanitizer\n");
  return 0;
#endif

  util_add_trapped ("/fork/not-woken", test_not_woken);
  util_add_trapped ("/fork/states", test_states);
  util_add_trapped ("/fork/default", test_default);
  util_add_trapped ("/fork/own-thread", test_own_thread);
  util_add_trapped ("/fork/grandchild", test_grandchild);
  util_add_trapped ("/fork/weak-notify", test_weak_notify);
  util_add_trapped ("/fork/beside-first-use/quark", test_first_quark);
  util_add_trapped ("/fork/beside-first-use/class", test_first_class);
  util_add_trapped ("/fork/beside-first-use/none-after-first-loop", test_first_loop);
  util_add_trapped ("/fork/handler-returns", test_handler);
  if (!UTIL_WITH_ASAN)
    util_add_trapped ("/fork/handler-returns/to-the-end-of-the-thread", test_handler_of_exit);
  util_add_trapped ("/fork/replies-in-context-used-before", test_replies);
  util_add_trapped ("/fork/cancels-inherited-cancellable", test_cancels_inherited);
  util_add_trapped ("/fork/inherited-operation", test_inherited_operation);
  util_add_trapped ("/fork/iterates-inherited-context", test_iterates_inherited);
  util_add_trapped ("/fork/iterates-own-context", test_iterates_own);
  util_add_trapped ("/fork/returned/shuts-down", test_returned_shuts_down);
  /* Without a descriptor of its own the child has its parent's wake-ups. */
  if (HAVE_EVENTFD)
    {
      util_add_trapped ("/fork/returned/runs-nothing-ready", test_returned_runs_nothing_ready);
      util_add_trapped ("/fork/returned/does-not-drain", test_returned_does_not_drain);
      util_add_trapped ("/fork/returned/lets-go-of-nothing", test_returned_lets_go_of_nothing);
      util_add_trapped ("/fork/returned/takes-no-wakeup", test_returned_takes_no_wakeup);
      util_add_trapped ("/fork/returned/closes-on-exec", test_returned_closes);
    }
  if (HAVE_EVENTFD && !UTIL_WITH_ASAN)
    util_add_trapped ("/fork/returns", test_returns);
#if !UTIL_WITH_ASAN
  util_add_trapped ("/fork/storm", test_storm);
#endif

  return g_test_run ();
}
