/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>
#include <unistd.h>

#include "test-thread-exit.h"

/* Code that ends the loop's thread under it: a critical, and everything gets its
 * outcome, as in CANCEL mode. */

typedef enum
{
  POST,
  DESTROY,
  CALL,
  INVOKE,
  BEGIN,
  SOURCE,
  DELAY,
  TEARDOWN,
  N_KINDS,
} Kind;

#define N_DESTROYED 6

typedef struct
{
  Kind kind;
  BgLoop *loop;
  UtilLatch entered;
  UtilLatch proceed;
  int destroyed;
  BgOperation *operation;
  UtilLatch begun;
  UtilReply call;
  UtilReply perform;
  UtilReply wait;
} Test;

G_NORETURN static void
end_thread (Test *self)
{
  g_assert_true (bg_loop_is_current (self->loop));
  util_latch_count_down (&self->entered);
  util_latch_wait (&self->proceed);
  g_thread_exit (NULL);
  g_assert_not_reached ();
}

static void
post_cb (gpointer user_data)
{
  end_thread (user_data);
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  end_thread (user_data);
}

static gboolean
source_cb (gpointer user_data)
{
  end_thread (user_data);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  end_thread (user_data);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Test *self = user_data;

  self->operation = bg_operation_ref (operation);
  util_latch_count_down (&self->begun);
  return TRUE;
}

static void
destroyed_cb (gpointer user_data)
{
  Test *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  util_count_cb (&self->destroyed);
}

/* Whoever gave what ends the thread is told, too. */
static void
give (Test *self)
{
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GError) error = NULL;

  switch (self->kind)
    {
    case POST:
      g_assert_true (bg_loop_post (self->loop, post_cb, self, NULL));
      break;
    case DESTROY:
      g_assert_true (bg_loop_post (self->loop, util_nothing_cb, self, post_cb));
      break;
    case CALL:
      g_assert_false (bg_loop_call (self->loop, call_cb, self, NULL, &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      break;
    case INVOKE:
      g_assert_true (bg_loop_invoke (self->loop, source_cb, self));
      break;
    case BEGIN:
      g_assert_null (bg_loop_perform (self->loop, 0, -1, begin_cb, self, NULL, &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      break;
    case SOURCE:
      g_source_set_callback (source, source_cb, self, NULL);
      g_assert_true (bg_loop_attach (self->loop, source));
      break;
    case DELAY:
      g_assert_cmpuint (bg_loop_post_after (self->loop, 0, post_cb, self, NULL), !=, 0);
      break;
    default:
      g_assert_cmpuint (bg_loop_add_teardown (self->loop, post_cb, self, NULL), !=, 0);
      bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
    }
}

static gpointer
give_thread (gpointer user_data)
{
  give (user_data);
  return NULL;
}

static gpointer
wait_thread (gpointer user_data)
{
  g_assert_true (bg_loop_wait (user_data, -1, NULL, NULL));
  return NULL;
}

/* What is there when the thread ends. The loop of the last kind stops already, and
 * takes none of it. */
static void
give_others (Test *self)
{
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  bg_loop_wait_async (self->loop, -1, NULL, util_reply_cb, &self->wait);
  if (self->kind == TEARDOWN)
    return;

  g_assert_true (bg_loop_post (self->loop, util_not_reached_cb, self, destroyed_cb));
  g_assert_true (bg_loop_post_full (self->loop, 5, util_not_reached_cb, self, destroyed_cb));
  g_assert_cmpuint (bg_loop_post_after (self->loop, G_MAXINT, util_not_reached_cb, self,
                                        destroyed_cb),
                    !=, 0);
  g_assert_cmpuint (bg_loop_add_teardown (self->loop, util_nothing_cb, self, destroyed_cb), !=, 0);
  g_source_set_callback (source, G_SOURCE_FUNC (util_no_call_cb), self, destroyed_cb);
  g_assert_true (bg_loop_attach (self->loop, source));
  bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, self, destroyed_cb, NULL, util_reply_cb,
                      &self->call);
  g_assert_cmpuint (bg_loop_hold (self->loop, "never released"), !=, 0);
}

static void
assert_outcomes (Test *self)
{
  g_autoptr (GError) error = NULL;

  util_reply_wait (&self->wait);
  g_assert_true (bg_loop_wait_finish (self->loop, self->wait.result, NULL));
  if (self->kind == TEARDOWN)
    return;

  g_assert_cmpint (self->destroyed, ==, N_DESTROYED);
  util_reply_wait (&self->call);
  g_assert_false (bg_loop_call_finish (self->loop, self->call.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  util_reply_wait (&self->perform);
  g_assert_null (bg_loop_perform_finish (self->loop, self->perform.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
begin_operation (Test *self)
{
  bg_loop_perform_operation_async (self->loop, 0, -1, operation_cb, self, NULL, NULL, util_reply_cb,
                                   &self->perform);
  util_latch_wait (&self->begun);
  util_wait_for_holds (self->loop, 1);
}

static void
test_exit (gconstpointer data)
{
  Test self = { GPOINTER_TO_INT (data), util_loop_new ("exit") };
  GThread *threads[3] = { NULL };
  char *text;

  util_catch_criticals ();
  util_latch_init (&self.entered, 1);
  util_latch_init (&self.proceed, 1);
  util_latch_init (&self.begun, 1);
  util_reply_init (&self.call);
  util_reply_init (&self.perform);
  util_reply_init (&self.wait);
  if (self.kind != TEARDOWN)
    begin_operation (&self);

  threads[0] = g_thread_new ("give", give_thread, &self);
  util_latch_wait (&self.entered);
  give_others (&self);
  threads[1] = g_thread_new ("wait", wait_thread, self.loop);
  threads[2] = g_thread_new ("call", util_call_closed_thread, self.loop);
  util_latch_count_down (&self.proceed);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  util_take_critical ("*thread*");
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
  assert_outcomes (&self);

  /* Nothing is said to run any more. */
  text = bg_loop_describe (self.loop);
  g_assert_null (strstr (text, "running"));
  g_free (text);

  /* What begun and was given up is dropped without harm. */
  g_clear_pointer (&self.operation, bg_operation_unref);
  util_reply_clear (&self.call);
  util_reply_clear (&self.perform);
  util_reply_clear (&self.wait);
  util_loop_end (self.loop);
  util_latch_clear (&self.entered);
  util_latch_clear (&self.proceed);
  util_latch_clear (&self.begun);

  /* What GLib's own frames had when they were left is lost: no leak of ours. */
  _exit (0);
}

/* The default loop is another one then. */
static void
test_exit_default (void)
{
  BgLoop *loop = bg_loop_dup_default (NULL), *fresh;

  util_catch_criticals ();
  g_assert_true (bg_loop_post (loop, util_exit_thread_cb, NULL, NULL));
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*default*");
  fresh = bg_loop_dup_default (NULL);
  g_assert_true (fresh != loop);
  g_assert_true (bg_loop_call (fresh, util_true_cb, NULL, NULL, NULL));
  g_assert_finalize_object (loop);
  g_assert_true (bg_loop_reset_default (-1, NULL));
  g_assert_finalize_object (fresh);
}

/* Nobody has the loop any more. */

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
  g_assert_true (bg_loop_post (loop, util_exit_thread_cb, &destroyed, util_count_down_cb));
  g_assert_true (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_down_cb));
  g_assert_finalize_object (loop);
  util_unblock (&block);
  util_latch_wait (&destroyed);
  util_wait_for_threads (threads);
  util_take_critical ("*has ended the thread of the loop*exits*");
  util_block_clear (&block);
  util_latch_clear (&destroyed);
}

/* Whoever waits is told before the notifies run: one of them may wait for the waiter. */

static void
join_cb (gpointer user_data)
{
  g_thread_join (*(GThread **) user_data);
}

static void
test_exit_joins (void)
{
  BgLoop *loop = util_loop_new ("exits");
  UtilBlock block;
  GThread *caller;

  util_catch_criticals ();
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, util_exit_thread_cb, &caller, join_cb));
  caller = g_thread_new ("caller", util_call_closed_thread, loop);
  util_wait_for_queued (loop, 2);
  util_unblock (&block);
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  util_block_clear (&block);
  g_assert_finalize_object (loop);
}

/* A handler of the loop's cancellable that ends the thread which asked for the end */

static void
exit_handler_cb (GCancellable *cancellable, gpointer user_data)
{
  g_thread_exit (NULL);
}

static void
test_exit_in_handler (void)
{
  guint n_eventfds, n_threads;
  BgLoop *loop;

  util_catch_criticals ();
  util_loop_end (util_loop_new (NULL));
  n_eventfds = util_count_eventfds ();
  n_threads = util_count_threads ();
  loop = util_loop_new ("exits");
  g_signal_connect (bg_loop_get_cancellable (loop), "cancelled", G_CALLBACK (exit_handler_cb),
                    NULL);
  g_assert_true (bg_loop_post (loop, util_quit_cancel_cb, loop, NULL));
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_finalize_object (loop);
  util_wait_for_threads (n_threads);
  util_loop_end (util_loop_new (NULL));
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* Replies, each at another priority, arrive as the thread ends. */

#define N_REPLIES 50

typedef struct
{
  BgLoop *asked;
  int n_replied;
} Asking;

static void
count_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  ((Asking *) user_data)->n_replied++;
}

static void
ask_and_exit_cb (gpointer user_data)
{
  Asking *self = user_data;

  for (int i = 0; i < N_REPLIES; i++)
    bg_loop_call_async (self->asked, -i, -1, util_true_cb, NULL, NULL, NULL, count_reply_cb, self);
  g_thread_exit (NULL);
}

static void
test_exit_as_replies_come (void)
{
  Asking self = { .asked = util_loop_new ("asked") };
  guint n = util_scale_at_least (20, 10);

  util_catch_criticals ();
  for (guint i = 0; i < n; i++)
    {
      BgLoop *loop = util_loop_new ("exits");

      g_assert_true (bg_loop_post (loop, ask_and_exit_cb, &self, NULL));
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      util_take_critical ("*has ended the thread of the loop*exits*");
      g_assert_finalize_object (loop);
      g_assert_cmpint (self.n_replied, ==, N_REPLIES * ((int) i + 1));
    }
  util_loop_end (self.asked);
}

/* A source that was attached and that ends the thread keeps nothing of the loop. */
static gboolean
exit_source_cb (gpointer user_data)
{
  g_thread_exit (NULL);
  return G_SOURCE_REMOVE;
}

static void
test_exit_in_attached (void)
{
  guint n_eventfds;

  util_catch_criticals ();
  util_loop_end (util_loop_new (NULL));
  n_eventfds = util_count_eventfds ();
  for (guint i = 0; i < 5; i++)
    {
      BgLoop *loop = util_loop_new ("exits");
      g_autoptr (GSource) source = g_idle_source_new ();

      g_source_set_callback (source, exit_source_cb, NULL, NULL);
      g_assert_true (bg_loop_attach (loop, source));
      g_clear_pointer (&source, g_source_unref);
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      util_take_critical ("*has ended the thread of the loop*exits*");
      g_assert_finalize_object (loop);
    }
  util_loop_end (util_loop_new (NULL));
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
}

/* A notify that forks, or a handler: the child does nothing of what is left. */

typedef struct
{
  BgLoop *loop;
  pid_t parent;
  int n_called;
} Forking;

static void
fork_cb (gpointer user_data)
{
  pid_t pid = util_fork ();

  /* The child's only thread goes on to its end. */
  if (pid != 0)
    util_wait_for_child (pid);
}

static void
only_in_parent_cb (gpointer user_data)
{
  Forking *self = user_data;

  if (getpid () != self->parent)
    _exit (1);
  self->n_called++;
}

static void
nest_and_exit_cb (gpointer user_data)
{
  Forking *self = user_data;

  g_assert_true (bg_loop_post (self->loop, util_exit_thread_cb, NULL, fork_cb));
  while (TRUE)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
test_exit_forks (void)
{
  Forking self = { .loop = util_loop_new ("exits"), .parent = getpid () };

  util_catch_criticals ();
  g_signal_connect_swapped (bg_loop_get_cancellable (self.loop), "cancelled",
                            G_CALLBACK (only_in_parent_cb), &self);
  g_assert_true (bg_loop_add_teardown (self.loop, util_nothing_cb, &self, only_in_parent_cb));
  g_assert_true (bg_loop_post (self.loop, nest_and_exit_cb, &self, only_in_parent_cb));
  g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (self.n_called, ==, 3);
  g_assert_finalize_object (self.loop);
}

static void
test_exit_handler_forks (void)
{
  Forking self = { .loop = util_loop_new ("exits"), .parent = getpid () };
  UtilBlock block;

  util_catch_criticals ();
  g_signal_connect_swapped (bg_loop_get_cancellable (self.loop), "cancelled", G_CALLBACK (fork_cb),
                            NULL);
  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, util_exit_thread_cb, NULL, NULL));
  g_assert_true (bg_loop_post (self.loop, util_not_reached_cb, &self, only_in_parent_cb));
  g_assert_true (bg_loop_add_teardown (self.loop, util_nothing_cb, &self, only_in_parent_cb));
  util_unblock (&block);
  g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (self.n_called, ==, 2);
  util_block_clear (&block);
  g_assert_finalize_object (self.loop);
}

static void
trapped_cb (gconstpointer path)
{
  util_assert_subprocess_passes (path);
}

static void
add (const char *name, Kind kind)
{
  g_autofree char *path = g_strdup_printf ("/thread-exit/%s", name);
  g_autofree char *trapped = g_strconcat (path, "/subprocess", NULL);

  g_test_add_data_func (trapped, GINT_TO_POINTER (kind), test_exit);
  g_test_add_data_func (path, g_intern_string (trapped), trapped_cb);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  add ("post", POST);
  add ("destroy", DESTROY);
  add ("call", CALL);
  add ("invoke", INVOKE);
  add ("begin", BEGIN);
  add ("source", SOURCE);
  add ("delay", DELAY);
  add ("teardown", TEARDOWN);
  add_tests_of_places ();
  add_tests_of_twice ();
  util_add_trapped ("/thread-exit/default-starts-anew", test_exit_default);
  util_add_trapped ("/thread-exit/dropped", test_exit_dropped);
  util_add_trapped ("/thread-exit/notify-waits-for-waiter", test_exit_joins);
  util_add_trapped ("/thread-exit/replies-arrive", test_exit_as_replies_come);
  util_add_trapped ("/thread-exit/attached", test_exit_in_attached);
  util_add_trapped ("/thread-exit/handler", test_exit_in_handler);
  if (!UTIL_IS_SANITIZED)
    {
      util_add_trapped ("/thread-exit/notify-forks", test_exit_forks);
      util_add_trapped ("/thread-exit/handler-forks", test_exit_handler_forks);
    }

  return g_test_run ();
}
