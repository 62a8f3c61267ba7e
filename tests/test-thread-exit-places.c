/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <pthread.h>

#include "test-thread-exit.h"

/* Wherever the thread is ended, by any of the ways to end one: whoever is concerned is told, and
 * all that the loop had gets its outcome. */

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

/* What is posted, called, begun or attached, by place, and is either what ends the thread or has that
 * in its destroy notify; a place that has more to it is in arm(). */

typedef struct
{
  BgPostFunc func;
  GDestroyNotify destroy;
} Posted;

static const Posted posted[N_PLACES] = {
  [IN_POST] = { exit_cb, own_destroyed_cb },
  [IN_POST_DESTROY] = { util_nothing_cb, exit_cb },
  [IN_INVOKED_INLINE] = { invoke_inline_cb, NULL },
  [IN_CALL_INLINE] = { call_inline_cb, own_destroyed_cb },
  [IN_CALLBACK] = { call_own_async_cb, NULL },
  [IN_NESTED_POST] = { nest_post_cb, NULL },
  [IN_NESTED_SOURCE] = { nest_source_cb, NULL },
  [IN_NESTED_TWICE] = { nest_twice_cb, NULL },
  [IN_PUSHED_CONTEXT] = { push_contexts_cb, own_destroyed_cb },
};

static const Posted delayed[N_PLACES] = {
  [IN_DELAYED] = { exit_cb, own_destroyed_cb },
  [IN_DELAYED_DESTROY] = { util_nothing_cb, exit_cb },
};

static const Posted teardowns[N_PLACES] = {
  [IN_TEARDOWN] = { exit_cb, own_destroyed_cb },
  [IN_TEARDOWN_DESTROY] = { util_nothing_cb, exit_cb },
};

typedef struct
{
  GSourceFunc func;
  GDestroyNotify notify;
} Dispatched;

static const Dispatched invoked[N_PLACES] = {
  [IN_INVOKED] = { exit_source_cb, own_destroyed_cb },
  [IN_INVOKED_NOTIFY] = { util_remove_cb, exit_cb },
  [IN_NESTED_IN_INVOKED] = { nest_invoked_cb, own_destroyed_cb },
};

static const Dispatched attached[N_PLACES] = {
  [IN_SOURCE] = { exit_source_cb, own_destroyed_cb },
  [IN_SOURCE_REPLACED] = { replace_and_exit_cb, NULL },
  [IN_SOURCE_NOTIFY] = { util_remove_cb, exit_cb },
};

static const GThreadFunc callers[N_PLACES] = {
  [IN_CALL] = exit_call_thread,
  [IN_BEGIN] = exit_begin_thread,
  [IN_OPERATION] = exit_operation_thread,
};

static void
attach (Exit *self)
{
  const Dispatched *what = &attached[self->place];
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, what->func, self, what->notify);
  if (what->notify == exit_cb)
    {
      util_ignore_leak (source);
      util_ignore_leak (source->callback_data);
    }
  bg_loop_attach (self->loop, source);
}

static void
run_task (Exit *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, util_reply_cb, &self->reply);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->loop, 0, task, exit_task_cb);
}

/* What has a reply. */
static void
ask (Exit *self)
{
  switch (self->place)
    {
    case IN_CALL_ASYNC:
      bg_loop_call_async (self->loop, 0, -1, exit_call_cb, self, own_destroyed_cb, NULL,
                          util_reply_cb, &self->reply);
      break;
    case IN_CALL_ASYNC_DESTROY:
      bg_loop_call_async (self->loop, 0, -1, util_true_cb, self, exit_cb, NULL, util_reply_cb,
                          &self->reply);
      break;
    case IN_BEGIN_ASYNC:
      bg_loop_perform_async (self->loop, 0, -1, exit_begin_cb, self, own_destroyed_cb, NULL,
                             util_reply_cb, &self->reply);
      break;
    case IN_BEGIN_DESTROY:
      bg_loop_perform_async (self->loop, 0, -1, fail_begin_cb, self, exit_cb, NULL, util_reply_cb,
                             &self->reply);
      break;
    case IN_OPERATION_ASYNC:
      bg_loop_perform_operation_async (self->loop, 0, -1, exit_operation_cb, self, own_destroyed_cb,
                                       NULL, util_reply_cb, &self->reply);
      break;
    default:
      g_assert_cmpint (self->place, ==, IN_TASK);
      run_task (self);
    }
}

/* Has it queued; the thread that waits for it where there is one. */
static GThread *
arm (Exit *self)
{
  const Posted *post = &posted[self->place], *delay = &delayed[self->place],
               *teardown = &teardowns[self->place];
  const Dispatched *invoke = &invoked[self->place];

  if (callers[self->place] != NULL)
    return g_thread_new ("caller", callers[self->place], self);

  if (post->func != NULL)
    bg_loop_post (self->loop, post->func, self, post->destroy);
  else if (delay->func != NULL)
    bg_loop_post_after (self->loop, 0, delay->func, self, delay->destroy);
  else if (teardown->func != NULL)
    bg_loop_add_teardown (self->loop, teardown->func, self, teardown->destroy);
  else if (invoke->func != NULL)
    bg_loop_invoke_full (self->loop, 0, invoke->func, self, invoke->notify);
  else if (attached[self->place].func != NULL)
    attach (self);
  else
    ask (self);
  return NULL;
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

static gboolean
is_in_teardown (Place place)
{
  return place >= IN_TEARDOWN;
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

/* What everybody got, when the loop has ended. */
static void
assert_outcomes (Exit *self)
{
  g_assert_cmpint (self->n_others_destroyed, ==, self->n_destroys);
  g_assert_cmpint (self->n_torn_down, ==, 2);
  if (is_before_posts (self->place))
    g_assert_cmpint (self->n_posts_run, ==, 0);
  g_assert_cmpint (self->n_exits, ==, 1);
  if (!is_lost (self->place))
    assert_told (self);
  while (self->n_replies < (is_in_teardown (self->place) ? 2 : 3) + (self->place == IN_CALLBACK))
    g_main_context_iteration (NULL, TRUE);
  answer_late (&self->begun);
  answer_late (&self->performed);
  g_clear_error (&self->error);
  util_reply_clear (&self->reply);
  util_block_clear (&self->block);
}

static void
run_exit (Place place, Way way, gboolean stopping)
{
  gboolean in_teardown = is_in_teardown (place);
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

  assert_outcomes (&self);
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
void
add_tests_of_places (void)
{
  util_add_trapped ("/thread-exit/in-post", test_exit_in_post);
  util_add_trapped ("/thread-exit/in-delayed", test_exit_in_delayed);
  util_add_trapped ("/thread-exit/in-invoked", test_exit_in_invoked);
  util_add_trapped ("/thread-exit/in-call", test_exit_in_call);
  util_add_trapped ("/thread-exit/in-call-async", test_exit_in_call_async);
  util_add_trapped ("/thread-exit/in-begin", test_exit_in_begin);
  util_add_trapped ("/thread-exit/in-operation", test_exit_in_operation);
  util_add_trapped ("/thread-exit/in-task", test_exit_in_task);
  util_add_trapped ("/thread-exit/in-task/that-nobody-has", test_exit_task_told);
  util_add_trapped ("/thread-exit/in-task/that-others-have", test_exit_task_kept);
  util_add_trapped ("/thread-exit/in-source", test_exit_in_source);
  util_add_trapped ("/thread-exit/in-nested", test_exit_in_nested);
  util_add_trapped ("/thread-exit/in-pushed-context", test_exit_in_pushed_context);
  util_add_trapped ("/thread-exit/in-teardown", test_exit_in_teardown);
}
