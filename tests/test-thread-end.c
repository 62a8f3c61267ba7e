/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "util.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED TRUE
#else
#define IS_SANITIZED FALSE
#endif

/* The end of a loop's thread: destructors of thread-local data, which run when
 * everything else has, and code that ends the thread under the loop. */

static void
assert_would_deadlock (gboolean failed, GError **error)
{
  g_assert_true (failed);
  g_assert_error (*error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_clear_error (error);
}

/* Destructors */

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
test_destructor_current (void)
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
test_destructor_async (void)
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
test_destructor_circle (void)
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
test_destructor_others (void)
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
test_destructor_deadline (void)
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
test_destructor_cancelled (void)
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
test_destructor_blocks_nobody (void)
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
test_destructor_last_reference (void)
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

/* Code that ends the thread */

typedef enum
{
  G_THREAD_EXIT,
  PTHREAD_EXIT,
  PTHREAD_CANCEL,
  N_WAYS,
} Way;

typedef enum
{
  IN_POST,
  IN_POST_DESTROY,
  IN_DELAYED,
  IN_DELAYED_DESTROY,
  IN_INVOKED,
  IN_INVOKED_INLINE,
  IN_INVOKED_NOTIFY,
  IN_CALL,
  IN_CALL_INLINE,
  IN_CALL_ASYNC,
  IN_CALL_ASYNC_DESTROY,
  IN_CALLBACK,
  IN_BEGIN,
  IN_BEGIN_ASYNC,
  IN_BEGIN_DESTROY,
  IN_OPERATION,
  IN_OPERATION_ASYNC,
  IN_TASK,
  IN_SOURCE,
  IN_SOURCE_REPLACED,
  IN_SOURCE_NOTIFY,
  IN_NESTED_POST,
  IN_NESTED_SOURCE,
  IN_NESTED_TWICE,
  IN_NESTED_IN_INVOKED,
  IN_PUSHED_CONTEXT,
  IN_TEARDOWN,
  IN_TEARDOWN_DESTROY,
  N_PLACES,
} Place;

typedef struct _Exit Exit;

/* An operation that has begun */
typedef struct
{
  Exit *exit;
  GAsyncReadyCallback answer;
  gpointer answer_data;
} Begun;

/* Where the thread is ended, and what there is beside that. */
struct _Exit
{
  BgLoop *loop;
  Place place;
  Way way;
  UtilBlock block;
  GThread *thread; /* the loop's */

  /* of what ends the thread */
  int n_exits;
  int n_destroyed;
  GError *error; /* that its caller got */
  UtilReply reply;

  /* of the others */
  int n_posts_run;
  int n_destroys; /* that there are to be */
  int n_others_destroyed;
  int n_torn_down;
  int n_replies;
  Begun begun, performed;
};

#define N_POSTS 5

G_GNUC_NORETURN static void
end_thread (Exit *self)
{
  g_assert_true (bg_loop_is_current (self->loop));
  self->n_exits++;
  g_assert_cmpint (self->n_exits, ==, 1);
  if (self->way == G_THREAD_EXIT)
    g_thread_exit (NULL);
  if (self->way == PTHREAD_CANCEL)
    {
      pthread_cancel (pthread_self ());
      pthread_testcancel ();
    }
  pthread_exit (NULL);
}

static void
exit_cb (gpointer user_data)
{
  end_thread (user_data);
}

static gboolean
exit_call_cb (gpointer user_data, GError **error)
{
  end_thread (user_data);
}

static gboolean
exit_source_cb (gpointer user_data)
{
  end_thread (user_data);
}

static void own_destroyed_cb (gpointer user_data);

/* Of the callback that runs, only what dispatches it knows now. */
static gboolean
replace_and_exit_cb (gpointer user_data)
{
  GSource *source = g_main_current_source ();

  util_ignore_leak (source->callback_data);
  g_source_set_callback (source, util_no_source_cb, user_data, own_destroyed_cb);
  end_thread (user_data);
}

static gboolean
exit_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  end_thread (user_data);
}

static gboolean
exit_operation_cb (BgOperation *operation,
                   GCancellable *cancellable,
                   gpointer user_data,
                   GError **error)
{
  end_thread (user_data);
}

static void
exit_task_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  end_thread (task_data);
}

static void
exit_callback_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  end_thread (user_data);
}

/* The others */

static gboolean
fail_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "never seen");
  return FALSE;
}

static gboolean
never_answer_cb (gpointer user_data,
                 GCancellable *cancellable,
                 GAsyncReadyCallback callback,
                 gpointer callback_data,
                 GError **error)
{
  Begun *self = user_data;

  self->answer = callback;
  self->answer_data = callback_data;
  return TRUE;
}

static void
post_run_cb (gpointer user_data)
{
  ((Exit *) user_data)->n_posts_run++;
}

static void
own_destroyed_cb (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (g_thread_self () == self->thread);
  self->n_destroyed++;
}

static void
other_destroyed_cb (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (g_thread_self () == self->thread);
  g_assert_true (bg_loop_is_current (self->loop));
  self->n_others_destroyed++;
}

static void
begun_destroyed_cb (gpointer user_data)
{
  other_destroyed_cb (((Begun *) user_data)->exit);
}

static void
torn_down_cb (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (g_thread_self () == self->thread);
  g_assert_cmpint (bg_loop_get_state (self->loop), !=, BG_LOOP_STOPPED);
  g_assert_false (bg_loop_post (self->loop, util_not_reached_cb, NULL, NULL));
  self->n_torn_down++;
}

/* One that was accepted has its own result, or was told. */
static void
assert_closed_unless (gboolean ok, GError *error)
{
  if (ok)
    g_assert_no_error (error);
  else
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
other_called_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GError) error = NULL;
  gboolean ok = bg_loop_call_finish (BG_LOOP (source), result, &error);

  assert_closed_unless (ok, error);
  self->n_replies++;
}

static void
other_performed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (bg_loop_perform_finish (BG_LOOP (source), result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  self->n_replies++;
}

static void
other_ended_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (bg_loop_wait_finish (BG_LOOP (source), result, NULL));
  self->n_replies++;
}

static gpointer
call_thread (gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GError) error = NULL;
  gboolean ok = bg_loop_call (self->loop, util_true_cb, NULL, NULL, &error);

  assert_closed_unless (ok, error);
  return NULL;
}

static gpointer
flush_thread (gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GError) error = NULL;
  gboolean ok = bg_loop_flush (self->loop, -1, NULL, &error);

  assert_closed_unless (ok, error);
  return NULL;
}

/* One that never answers. */
static gpointer
perform_thread (gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_null (
      bg_loop_perform (self->loop, 0, -1, never_answer_cb, &self->performed, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

static gpointer
wait_thread (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (bg_loop_wait (self->loop, -1, NULL, NULL));
  g_assert_cmpint (self->n_exits, ==, 1);
  g_assert_cmpint (self->n_others_destroyed, ==, self->n_destroys);
  return NULL;
}

/* What ends the thread */

static void
invoke_inline_cb (gpointer user_data)
{
  Exit *self = user_data;

  bg_loop_invoke_full (self->loop, 0, exit_source_cb, self, own_destroyed_cb);
}

static void
call_inline_cb (gpointer user_data)
{
  Exit *self = user_data;

  bg_loop_call (self->loop, exit_call_cb, self, NULL, NULL);
}

static void
call_own_async_cb (gpointer user_data)
{
  Exit *self = user_data;

  bg_loop_call_async (self->loop, 0, -1, util_true_cb, self, own_destroyed_cb, NULL,
                      exit_callback_cb, self);
  bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, other_called_cb, self);
}

/* Nothing comes back from within. */
static void
nest_post_cb (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_HIGH, exit_cb, self, own_destroyed_cb));
  for (;;)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
nest_source_cb (gpointer user_data)
{
  Exit *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, G_PRIORITY_HIGH);
  g_source_set_callback (source, exit_source_cb, self, own_destroyed_cb);
  g_assert_true (bg_loop_attach (self->loop, source));
  g_clear_pointer (&source, g_source_unref);
  for (;;)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
nest_twice_cb (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_HIGH, nest_post_cb, self, NULL));
  for (;;)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static gboolean
nest_invoked_cb (gpointer user_data)
{
  Exit *self = user_data;
  GSource *source = g_main_current_source ();

  /* Nobody can know of it what GLib does, as another is dispatched within. */
  if (source->callback_data != NULL)
    {
      util_ignore_leak (source);
      util_ignore_leak (source->callback_data);
    }
  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_HIGH, exit_cb, self, NULL));
  for (;;)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
  return G_SOURCE_REMOVE;
}

static void
push_contexts_cb (gpointer user_data)
{
  for (guint i = 0; i < 3; i++)
    {
      g_autoptr (GMainContext) context = g_main_context_new ();

      g_main_context_push_thread_default (context);
    }
  end_thread (user_data);
}

static gpointer
exit_call_thread (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_false (bg_loop_call (self->loop, exit_call_cb, self, NULL, &self->error));
  return NULL;
}

static gpointer
exit_begin_thread (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_null (bg_loop_perform (self->loop, 0, -1, exit_begin_cb, self, NULL, &self->error));
  return NULL;
}

static gpointer
exit_operation_thread (gpointer user_data)
{
  Exit *self = user_data;

  g_assert_null (
      bg_loop_perform_operation (self->loop, 0, -1, exit_operation_cb, self, NULL, &self->error));
  return NULL;
}

/* Has it queued; the thread that waits for it where there is one. */
static GThread *
arm (Exit *self)
{
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GTask) task = NULL;
  BgLoop *loop = self->loop;
  GThread *thread = NULL;

  switch (self->place)
    {
    case IN_POST:
      bg_loop_post (loop, exit_cb, self, own_destroyed_cb);
      break;
    case IN_POST_DESTROY:
      bg_loop_post (loop, util_nothing_cb, self, exit_cb);
      break;
    case IN_DELAYED:
      bg_loop_post_after (loop, 0, exit_cb, self, own_destroyed_cb);
      break;
    case IN_DELAYED_DESTROY:
      bg_loop_post_after (loop, 0, util_nothing_cb, self, exit_cb);
      break;
    case IN_INVOKED:
      bg_loop_invoke_full (loop, 0, exit_source_cb, self, own_destroyed_cb);
      break;
    case IN_INVOKED_INLINE:
      bg_loop_post (loop, invoke_inline_cb, self, NULL);
      break;
    case IN_INVOKED_NOTIFY:
      bg_loop_invoke_full (loop, 0, util_remove_cb, self, exit_cb);
      break;
    case IN_CALL:
      thread = g_thread_new ("call", exit_call_thread, self);
      break;
    case IN_CALL_INLINE:
      bg_loop_post (loop, call_inline_cb, self, own_destroyed_cb);
      break;
    case IN_CALL_ASYNC:
      bg_loop_call_async (loop, 0, -1, exit_call_cb, self, own_destroyed_cb, NULL, util_reply_cb,
                          &self->reply);
      break;
    case IN_CALL_ASYNC_DESTROY:
      bg_loop_call_async (loop, 0, -1, util_true_cb, self, exit_cb, NULL, util_reply_cb,
                          &self->reply);
      break;
    case IN_CALLBACK:
      bg_loop_post (loop, call_own_async_cb, self, NULL);
      break;
    case IN_BEGIN:
      thread = g_thread_new ("begin", exit_begin_thread, self);
      break;
    case IN_BEGIN_ASYNC:
      bg_loop_perform_async (loop, 0, -1, exit_begin_cb, self, own_destroyed_cb, NULL,
                             util_reply_cb, &self->reply);
      break;
    case IN_BEGIN_DESTROY:
      bg_loop_perform_async (loop, 0, -1, fail_begin_cb, self, exit_cb, NULL, util_reply_cb,
                             &self->reply);
      break;
    case IN_OPERATION:
      thread = g_thread_new ("operation", exit_operation_thread, self);
      break;
    case IN_OPERATION_ASYNC:
      bg_loop_perform_operation_async (loop, 0, -1, exit_operation_cb, self, own_destroyed_cb, NULL,
                                       util_reply_cb, &self->reply);
      break;
    case IN_TASK:
      task = g_task_new (NULL, NULL, util_reply_cb, &self->reply);
      g_task_set_task_data (task, self, NULL);
      bg_loop_run_task (loop, 0, task, exit_task_cb);
      break;
    case IN_SOURCE:
      g_source_set_callback (source, exit_source_cb, self, own_destroyed_cb);
      bg_loop_attach (loop, source);
      break;
    case IN_SOURCE_REPLACED:
      g_source_set_callback (source, replace_and_exit_cb, self, NULL);
      bg_loop_attach (loop, source);
      break;
    case IN_SOURCE_NOTIFY:
      g_source_set_callback (source, util_remove_cb, self, exit_cb);
      util_ignore_leak (source);
      util_ignore_leak (source->callback_data);
      bg_loop_attach (loop, source);
      break;
    case IN_NESTED_POST:
      bg_loop_post (loop, nest_post_cb, self, NULL);
      break;
    case IN_NESTED_SOURCE:
      bg_loop_post (loop, nest_source_cb, self, NULL);
      break;
    case IN_NESTED_TWICE:
      bg_loop_post (loop, nest_twice_cb, self, NULL);
      break;
    case IN_NESTED_IN_INVOKED:
      bg_loop_invoke_full (loop, 0, nest_invoked_cb, self, own_destroyed_cb);
      break;
    case IN_PUSHED_CONTEXT:
      bg_loop_post (loop, push_contexts_cb, self, own_destroyed_cb);
      break;
    case IN_TEARDOWN:
      bg_loop_add_teardown (loop, exit_cb, self, own_destroyed_cb);
      break;
    default:
      bg_loop_add_teardown (loop, util_nothing_cb, self, exit_cb);
    }

  return thread;
}

/* What the frames that never return hold goes with them. */
static gboolean
is_lost (Place place)
{
  switch (place)
    {
    case IN_CALL_ASYNC_DESTROY:
    case IN_CALLBACK:
    case IN_BEGIN_DESTROY:
    case IN_TASK:
      return TRUE;
    default:
      return FALSE;
    }
}

/* Who is told what. */
static void
assert_told (Exit *self)
{
  gboolean by_destroy = self->place == IN_POST_DESTROY || self->place == IN_DELAYED_DESTROY
                        || self->place == IN_INVOKED_NOTIFY || self->place == IN_CALL_ASYNC_DESTROY
                        || self->place == IN_BEGIN_DESTROY || self->place == IN_SOURCE_NOTIFY
                        || self->place == IN_TEARDOWN_DESTROY;
  gboolean has_none = self->place == IN_CALL || self->place == IN_BEGIN
                      || self->place == IN_OPERATION || self->place == IN_TASK;
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (self->n_destroyed, ==, !by_destroy && !has_none);
  switch (self->place)
    {
    case IN_CALL:
    case IN_BEGIN:
    case IN_OPERATION:
      g_assert_error (self->error, BG_ERROR, BG_ERROR_CLOSED);
      break;
    case IN_CALL_ASYNC:
    case IN_CALL_ASYNC_DESTROY:
      util_reply_wait (&self->reply);
      if (!bg_loop_call_finish (self->loop, self->reply.result, &error))
        g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      else
        g_assert_cmpint (self->place, ==, IN_CALL_ASYNC_DESTROY);
      break;
    case IN_BEGIN_ASYNC:
    case IN_BEGIN_DESTROY:
    case IN_OPERATION_ASYNC:
      util_reply_wait (&self->reply);
      g_assert_null (bg_loop_perform_finish (self->loop, self->reply.result, &error));
      if (self->place != IN_BEGIN_DESTROY
          || !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND))
        g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      break;
    case IN_TASK:
      util_reply_wait (&self->reply);
      g_assert_false (g_task_propagate_boolean (G_TASK (self->reply.result), &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      break;
    default:
      break;
    }
}

static gboolean
note_thread_cb (gpointer user_data, GError **error)
{
  ((Exit *) user_data)->thread = g_thread_self ();
  return TRUE;
}

/* Work behind it in the same queue does not run. */
static gboolean
is_before_posts (Place place)
{
  switch (place)
    {
    case IN_DELAYED:
    case IN_DELAYED_DESTROY:
    case IN_INVOKED:
    case IN_INVOKED_NOTIFY:
    case IN_NESTED_SOURCE:
    case IN_NESTED_IN_INVOKED:
    case IN_CALLBACK:
    case IN_SOURCE:
    case IN_SOURCE_REPLACED:
    case IN_SOURCE_NOTIFY:
    case IN_TEARDOWN:
    case IN_TEARDOWN_DESTROY:
      return FALSE;
    default:
      return TRUE;
    }
}

/* What never ends by itself: with it the loop cannot drain, and comes to no teardown. */
static void
add_endless (Exit *self)
{
  g_assert_cmpuint (bg_loop_hold (self->loop, "never released"), !=, 0);
  bg_loop_perform_async (self->loop, 0, -1, never_answer_cb, &self->begun, begun_destroyed_cb, NULL,
                         other_performed_cb, self);
  g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
  g_assert_nonnull (self->begun.answer);
  g_assert_cmpint (self->n_others_destroyed, ==, 1);
}

static void
add_teardown (Exit *self)
{
  g_assert_cmpuint (bg_loop_add_teardown (self->loop, torn_down_cb, self, other_destroyed_cb), !=,
                    0);
}

static void
add_work (Exit *self)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  for (guint i = 0; i < N_POSTS; i++)
    g_assert_true (bg_loop_post (self->loop, post_run_cb, self, other_destroyed_cb));
  g_assert_cmpuint (bg_loop_post_after (self->loop, G_MAXINT, util_not_reached_cb, self,
                                        other_destroyed_cb),
                    !=, 0);
  g_assert_true (
      bg_loop_invoke_full (self->loop, G_PRIORITY_LOW, util_remove_cb, self, other_destroyed_cb));
  g_source_set_callback (source, util_continue_cb, self, other_destroyed_cb);
  g_assert_true (bg_loop_attach (self->loop, source));
  bg_loop_call_async (self->loop, 0, -1, util_true_cb, self, other_destroyed_cb, NULL,
                      other_called_cb, self);
  bg_loop_wait_async (self->loop, -1, NULL, other_ended_cb, self);
}

/* Late answers */
static void
answer_late (Begun *self)
{
  if (self->answer != NULL)
    self->answer (NULL, NULL, self->answer_data);
}

static void
run_exit (Place place, Way way, gboolean stopping)
{
  gboolean in_teardown = place >= IN_TEARDOWN;
  GThreadFunc others[] = { call_thread, flush_thread, wait_thread, perform_thread };
  guint n_others = in_teardown ? 3 : 4;
  guint64 mark = bg_test_mark_loops ();
  Exit self = { util_loop_new ("exits"), place, way };
  g_autoptr (GError) error = NULL;
  GThread *threads[G_N_ELEMENTS (others)], *culprit;

  self.begun.exit = &self;
  self.n_destroys = N_POSTS + (in_teardown ? 6 : 7);
  util_reply_init (&self.reply);
  g_assert_true (bg_loop_call (self.loop, note_thread_cb, &self, NULL, NULL));
  if (!in_teardown)
    add_endless (&self);

  util_block (&self.block, self.loop);
  add_teardown (&self);
  culprit = arm (&self);
  if (culprit != NULL)
    util_wait_for_queued (self.loop, 1);
  add_teardown (&self);
  add_work (&self);
  for (guint i = 0; i < n_others; i++)
    threads[i] = g_thread_new ("other", others[i], &self);
  /* The posts, the call, and what two or three of the threads wait for */
  util_wait_for_queued (self.loop, N_POSTS + (in_teardown ? 3 : 4));
  if (stopping || in_teardown)
    bg_loop_quit (self.loop, stopping && in_teardown ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN);
  util_unblock (&self.block);

  /* The loop ends by itself; nobody has asked for that. */
  for (guint i = 0; i < n_others; i++)
    g_thread_join (threads[i]);
  if (culprit != NULL)
    g_thread_join (culprit);
  g_assert_true (bg_loop_shutdown (self.loop, &error));
  g_assert_no_error (error);
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_STOPPED);
  g_assert_true (g_cancellable_is_cancelled (bg_loop_get_cancellable (self.loop)));

  g_assert_cmpint (self.n_others_destroyed, ==, self.n_destroys);
  g_assert_cmpint (self.n_torn_down, ==, 2);
  if (is_before_posts (place))
    g_assert_cmpint (self.n_posts_run, ==, 0);
  g_assert_cmpint (self.n_exits, ==, 1);
  if (!is_lost (place))
    assert_told (&self);
  while (self.n_replies < (in_teardown ? 2 : 3) + (place == IN_CALLBACK))
    g_main_context_iteration (NULL, TRUE);
  answer_late (&self.begun);
  answer_late (&self.performed);
  g_clear_error (&self.error);
  util_reply_clear (&self.reply);
  util_block_clear (&self.block);
  if (is_lost (place))
    {
      g_object_unref (self.loop);
      return;
    }

  g_assert_finalize_object (self.loop);
  /* What is inside goes, too, unless GLib's dispatch of what others run within has it. */
  if (place != IN_NESTED_IN_INVOKED)
    g_assert_null (bg_test_describe_loops (mark, 60000));
}

static void
run_exits (Place first, Place last)
{
  util_catch_criticals ();
  for (Place place = first; place <= last; place++)
    {
      for (Way way = 0; way < N_WAYS; way++)
        {
          g_test_message ("place %d, way %d", place, way);
          run_exit (place, way, FALSE);
          run_exit (place, way, TRUE);
        }
    }
}

/* The default loop is another one then. */
static void
test_exit_default (void)
{
  BgLoop *loop = bg_loop_dup_default (NULL), *fresh;
  Exit self = { loop };

  util_catch_criticals ();
  g_assert_true (bg_loop_post (loop, exit_cb, &self, NULL));
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*default*");
  fresh = bg_loop_dup_default (NULL);
  g_assert_true (fresh != loop);
  g_assert_true (bg_loop_call (fresh, util_true_cb, NULL, NULL, NULL));
  g_assert_finalize_object (loop);
  g_assert_true (bg_loop_reset_default (-1, NULL));
  g_assert_finalize_object (fresh);
}

/* A task is returned from, unless somebody else has it: then it is theirs to return from. */

static void
run_exit_task (gboolean kept)
{
  Exit self = { util_loop_new ("exits") };
  GTask *task = g_task_new (NULL, NULL, util_reply_cb, &self.reply);
  g_autoptr (GError) error = NULL;

  util_catch_criticals ();
  util_reply_init (&self.reply);
  util_block (&self.block, self.loop);
  g_task_set_task_data (task, &self, NULL);
  bg_loop_run_task (self.loop, 0, task, exit_task_cb);
  if (!kept)
    g_clear_object (&task);
  util_unblock (&self.block);
  g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  if (kept)
    {
      g_assert_false (g_task_get_completed (task));
      g_task_return_boolean (task, TRUE);
      g_object_unref (task);
    }
  util_reply_wait (&self.reply);
  if (!g_task_propagate_boolean (G_TASK (self.reply.result), &error))
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_cmpint (error == NULL, ==, kept);
  util_reply_clear (&self.reply);
  util_block_clear (&self.block);
  g_object_unref (self.loop);
}

static void
test_exit_task_told (void)
{
  run_exit_task (FALSE);
}

static void
test_exit_task_kept (void)
{
  run_exit_task (TRUE);
}

/* Nobody has the loop any more. */

static void
exit_dropped_cb (gpointer user_data)
{
  g_thread_exit (NULL);
}

static void
test_exit_dropped (void)
{
  BgLoop *loop;
  guint threads;
  UtilLatch destroyed;
  UtilBlock block;

  util_catch_criticals ();
  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  loop = util_loop_new ("exits");
  util_latch_init (&destroyed, 2);
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, exit_dropped_cb, &destroyed, util_count_down_cb));
  g_assert_true (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_down_cb));
  g_assert_finalize_object (loop);
  util_unblock (&block);
  util_latch_wait (&destroyed);
  util_wait_for_threads (threads);
  util_take_critical ("*has ended the thread of the loop*exits*");
  util_block_clear (&block);
  util_latch_clear (&destroyed);
}

/* The destroy notify of other work ends the thread once more. What GLib's dispatch had of the loop's
 * own source, in which it has ended, is given back once then: the source is left with the reference
 * of the test's, and the one that is kept for g_main_current_source(). */

typedef struct
{
  BgLoop *loop;
  GSource *source; /* (owned) */
  int n_destroyed;
} Again;

static void
exit_again_cb (gpointer user_data)
{
  util_count_cb (user_data);
  g_thread_exit (NULL);
}

static void
exit_in_source_cb (gpointer user_data)
{
  ((Again *) user_data)->source = g_source_ref (g_main_current_source ());
  g_thread_exit (NULL);
}

static void
post_exits_cb (gpointer user_data)
{
  Again *self = user_data;

  g_assert_true (bg_loop_post (self->loop, exit_in_source_cb, self, NULL));
  g_assert_true (bg_loop_post (self->loop, util_not_reached_cb, &self->n_destroyed, exit_again_cb));
  g_assert_true (bg_loop_post (self->loop, util_not_reached_cb, &self->n_destroyed, util_count_cb));
}

static void
assert_ended (Again *self, const char *source)
{
  g_assert_true (bg_loop_wait (self->loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (self->n_destroyed, ==, 2);
  g_assert_finalize_object (self->loop);
  g_assert_cmpstr (g_source_get_name (self->source), ==, source);
  g_assert_cmpuint (self->source->ref_count, ==, 2);
  g_source_unref (self->source);
  util_loop_end (util_loop_new (NULL));
}

static void
test_exit_again (void)
{
  Again self = { util_loop_new ("exits") };

  util_catch_criticals ();
  g_assert_true (bg_loop_post (self.loop, post_exits_cb, &self, NULL));
  assert_ended (&self, "bgloop inbox");
}

/* The same while the loop drains, */
static void
test_exit_again_draining (void)
{
  Again self = { util_loop_new ("exits") };
  UtilBlock block;

  util_catch_criticals ();
  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, post_exits_cb, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  assert_ended (&self, "bgloop drain");
  util_block_clear (&block);
}

/* and of the very work that has ended the thread: who waits for the loop is told all the same, */

static gpointer
call_closed_thread (gpointer loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

static void
test_exit_again_itself (void)
{
  BgLoop *loop = util_loop_new ("exits");
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  GThread *caller;
  int n = 0;

  util_catch_criticals ();
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, exit_again_cb, &n, exit_again_cb));
  g_assert_true (bg_loop_post (loop, util_not_reached_cb, &n, util_count_cb));
  caller = g_thread_new ("caller", call_closed_thread, loop);
  util_wait_for_queued (loop, 3);
  util_unblock (&block);

  g_assert_true (bg_loop_shutdown (loop, &error));
  g_assert_no_error (error);
  g_thread_join (caller);
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (n, ==, 3);
  util_block_clear (&block);
  g_assert_finalize_object (loop);
}

/* and in the callback of a reply. */

static void
exit_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  exit_in_source_cb (user_data);
}

static void
call_own_cb (gpointer user_data)
{
  Again *self = user_data;

  bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, exit_reply_cb, self);
}

static void
test_exit_again_in_reply (void)
{
  Again self = { util_loop_new ("exits") };

  util_catch_criticals ();
  g_assert_cmpuint (bg_loop_post_after (self.loop, G_MAXINT, util_not_reached_cb, &self.n_destroyed,
                                        util_count_cb),
                    !=, 0);
  g_assert_cmpuint (bg_loop_post_after (self.loop, G_MAXINT, util_not_reached_cb, &self.n_destroyed,
                                        exit_again_cb),
                    !=, 0);
  g_assert_true (bg_loop_post (self.loop, call_own_cb, &self, NULL));
  assert_ended (&self, "bgloop inbox");
}

#define TEST_EXIT(name, first, last)                                                               \
  static void test_exit_in_##name (void)                                                           \
  {                                                                                                \
    run_exits (first, last);                                                                       \
  }

TEST_EXIT (post, IN_POST, IN_POST_DESTROY)
TEST_EXIT (delayed, IN_DELAYED, IN_DELAYED_DESTROY)
TEST_EXIT (invoked, IN_INVOKED, IN_INVOKED_NOTIFY)
TEST_EXIT (call, IN_CALL, IN_CALL_INLINE)
TEST_EXIT (call_async, IN_CALL_ASYNC, IN_CALLBACK)
TEST_EXIT (begin, IN_BEGIN, IN_BEGIN_DESTROY)
TEST_EXIT (operation, IN_OPERATION, IN_OPERATION_ASYNC)
TEST_EXIT (task, IN_TASK, IN_TASK)
TEST_EXIT (source, IN_SOURCE, IN_SOURCE_NOTIFY)
TEST_EXIT (nested, IN_NESTED_POST, IN_NESTED_IN_INVOKED)
TEST_EXIT (pushed_context, IN_PUSHED_CONTEXT, IN_PUSHED_CONTEXT)
TEST_EXIT (teardown, IN_TEARDOWN, IN_TEARDOWN_DESTROY)

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);
  g_private_set (&early, NULL); /* before there is a loop */

  /* ThreadSanitizer's own data of a thread are gone in the last round of destructors, and
   * what GLib allocates for the thread there is a leak to AddressSanitizer. */
  if (!IS_SANITIZED)
    {
      util_add_trapped ("/thread-end/destructor/loop-is-current", test_destructor_current);
      util_add_trapped ("/thread-end/destructor/async-would-deadlock", test_destructor_async);
      util_add_trapped ("/thread-end/destructor/circle-would-deadlock", test_destructor_circle);
      util_add_trapped ("/thread-end/destructor/uses-other-loops", test_destructor_others);
      util_add_trapped ("/thread-end/destructor/deadline-covers-it", test_destructor_deadline);
      util_add_trapped ("/thread-end/destructor/cancelled-wait", test_destructor_cancelled);
      util_add_trapped ("/thread-end/destructor/async-blocks-nobody",
                        test_destructor_blocks_nobody);
      util_add_trapped ("/thread-end/destructor/last-reference", test_destructor_last_reference);
    }
  util_add_trapped ("/thread-end/exit/default-starts-anew", test_exit_default);
  util_add_trapped ("/thread-end/exit/dropped", test_exit_dropped);
  util_add_trapped ("/thread-end/exit/twice/by-another", test_exit_again);
  util_add_trapped ("/thread-end/exit/twice/draining", test_exit_again_draining);
  util_add_trapped ("/thread-end/exit/twice/itself", test_exit_again_itself);
  util_add_trapped ("/thread-end/exit/twice/in-reply", test_exit_again_in_reply);
  util_add_trapped ("/thread-end/exit/in-post", test_exit_in_post);
  util_add_trapped ("/thread-end/exit/in-delayed", test_exit_in_delayed);
  util_add_trapped ("/thread-end/exit/in-invoked", test_exit_in_invoked);
  util_add_trapped ("/thread-end/exit/in-call", test_exit_in_call);
  util_add_trapped ("/thread-end/exit/in-call-async", test_exit_in_call_async);
  util_add_trapped ("/thread-end/exit/in-begin", test_exit_in_begin);
  util_add_trapped ("/thread-end/exit/in-operation", test_exit_in_operation);
  util_add_trapped ("/thread-end/exit/in-task", test_exit_in_task);
  util_add_trapped ("/thread-end/exit/in-task/that-nobody-has", test_exit_task_told);
  util_add_trapped ("/thread-end/exit/in-task/that-others-have", test_exit_task_kept);
  util_add_trapped ("/thread-end/exit/in-source", test_exit_in_source);
  util_add_trapped ("/thread-end/exit/in-nested", test_exit_in_nested);
  util_add_trapped ("/thread-end/exit/in-pushed-context", test_exit_in_pushed_context);
  util_add_trapped ("/thread-end/exit/in-teardown", test_exit_in_teardown);

  return g_test_run ();
}
