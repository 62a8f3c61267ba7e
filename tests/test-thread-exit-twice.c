/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-thread-exit.h"

/* A destroy notify that runs because the thread has been ended ends it once more: that goes as far
 * as the first time, and no further. */

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
  caller = g_thread_new ("caller", util_call_closed_thread, loop);
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

/* and of a teardown function that has ended the thread itself: it is called just once, */

static void
exit_up_to_four_times_cb (gpointer counter)
{
  util_count_cb (counter);
  if (*(int *) counter < 4)
    g_thread_exit (NULL);
}

static void
test_exit_again_teardown (void)
{
  BgLoop *loop = util_loop_new ("exits");
  int n = 0;

  util_catch_criticals ();
  g_assert_cmpuint (bg_loop_add_teardown (loop, exit_again_cb, &n, exit_up_to_four_times_cb), !=,
                    0);
  util_loop_shut_down (loop);
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (n, ==, 2);
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

/* A reply is owed also for what ends the thread, and then does so once more in its destroy
 * notify: here, and to another loop, whose end waits for it. */

typedef struct
{
  BgLoop *loop;
  gboolean performs;
  int n_ended;
  UtilReply reply;
} Replied;

static gboolean
exit_again_call_cb (gpointer user_data, GError **error)
{
  exit_again_cb (user_data);
  return FALSE;
}

static gboolean
exit_again_begin_cb (gpointer user_data,
                     GCancellable *cancellable,
                     GAsyncReadyCallback callback,
                     gpointer callback_data,
                     GError **error)
{
  exit_again_cb (user_data);
  return FALSE;
}

static void
ask_for_exits (gpointer user_data)
{
  Replied *self = user_data;

  if (self->performs)
    bg_loop_perform_async (self->loop, 0, -1, exit_again_begin_cb, &self->n_ended, exit_again_cb,
                           NULL, util_reply_cb, &self->reply);
  else
    bg_loop_call_async (self->loop, 0, -1, exit_again_call_cb, &self->n_ended, exit_again_cb, NULL,
                        util_reply_cb, &self->reply);
}

static void
run_replied (gboolean performs, BgLoop *other)
{
  Replied self = { .loop = util_loop_new ("exits"), .performs = performs };
  g_autoptr (GError) error = NULL;

  util_catch_criticals ();
  util_reply_init (&self.reply);
  if (other != NULL)
    g_assert_true (bg_loop_post (other, ask_for_exits, &self, NULL));
  else
    ask_for_exits (&self);
  if (other != NULL)
    util_loop_end (other);
  else
    util_reply_wait (&self.reply);

  if (performs)
    g_assert_null (bg_loop_perform_finish (self.loop, self.reply.result, &error));
  else
    g_assert_false (bg_loop_call_finish (self.loop, self.reply.result, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
  g_assert_cmpint (self.n_ended, ==, 2);
  util_take_critical ("*has ended the thread of the loop*exits*");
  util_reply_clear (&self.reply);
  util_loop_end (self.loop);
}

static void
test_exit_again_owing (void)
{
  run_replied (FALSE, NULL);
  run_replied (TRUE, NULL);
}

static void
test_exit_again_owing_loop (void)
{
  run_replied (FALSE, util_loop_new ("owed"));
  run_replied (TRUE, util_loop_new ("owed"));
}

void
add_tests_of_twice (void)
{
  util_add_trapped ("/thread-exit/twice/by-another", test_exit_again);
  util_add_trapped ("/thread-exit/twice/draining", test_exit_again_draining);
  util_add_trapped ("/thread-exit/twice/itself", test_exit_again_itself);
  util_add_trapped ("/thread-exit/twice/teardown", test_exit_again_teardown);
  util_add_trapped ("/thread-exit/twice/in-reply", test_exit_again_in_reply);
  util_add_trapped ("/thread-exit/twice/owing-a-reply", test_exit_again_owing);
  util_add_trapped ("/thread-exit/twice/owing-a-loop", test_exit_again_owing_loop);
}
