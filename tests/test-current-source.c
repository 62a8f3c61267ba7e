/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* With GLib's own sources g_source_destroy (g_main_current_source ()) ends what just
 * runs, and nothing else. Here it is a source of the library's, which serves others as
 * well: they are none the worse for it. */

#define N_OTHERS 20

/* In what the current source is destroyed */
typedef enum
{
  POST,
  POST_LOW,
  POST_DESTROY,
  CALL,
  CALL_ASYNC,
  CALL_ASYNC_DESTROY,
  PERFORM,
  PERFORM_ASYNC,
  OPERATION_ASYNC,
  DELAY,
  DELAY_DESTROY,
  TASK,
  INVOKE,
  INVOKE_ON,
  INVOKE_NOTIFY,
  INVOKE_HERE, /* on the loop's own thread */
  REPLY,       /* to the loop */
  N_KINDS,
} Kind;

typedef enum
{
  RUNNING,
  DRAINING,
  NESTED,
  DRAINING_NESTED,
  GOES_ON, /* what has destroyed the source iterates the context, for others */
  DRAINING_GOES_ON,
} Situation;

typedef struct
{
  Kind kind;
  Situation situation;
  BgLoop *loop;
  UtilLatch meddled;
  int n_destroyed;
  int n_others;
  int n_replies;
  int n_within;    /* of those that what has destroyed the source waits for */
  GThread *thread; /* (nullable) that blocks */
} Meddler;

static void
within_cb (gpointer user_data)
{
  ((Meddler *) user_data)->n_within++;
}

static gboolean
within_invoked_cb (gpointer user_data)
{
  within_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
within_replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  within_cb (user_data);
}

static void
go_on_within (Meddler *self)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      int priority = priorities[i];

      g_assert_true (bg_loop_post_full (self->loop, priority, within_cb, self, NULL));
      g_assert_true (bg_loop_invoke_full (self->loop, priority, within_invoked_cb, self, NULL));
      bg_loop_call_async (self->loop, priority, -1, util_true_cb, NULL, NULL, NULL,
                          within_replied_cb, self);
    }
  while (self->n_within < 6)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
destroy_current_cb (gpointer user_data)
{
  Meddler *self = user_data;
  GSource *source = g_main_current_source ();

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_nonnull (source);
  g_source_destroy (source);
  self->n_destroyed++;
  if (self->situation == GOES_ON || self->situation == DRAINING_GOES_ON)
    go_on_within (self);
  util_latch_count_down (&self->meddled);
}

static gboolean
destroy_current_call_cb (gpointer user_data, GError **error)
{
  destroy_current_cb (user_data);
  return TRUE;
}

static gboolean
destroy_current_begin_cb (gpointer user_data,
                          GCancellable *cancellable,
                          GAsyncReadyCallback callback,
                          gpointer callback_data,
                          GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, callback, callback_data);

  destroy_current_cb (user_data);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static gboolean
destroy_current_operation_cb (BgOperation *operation,
                              GCancellable *cancellable,
                              gpointer user_data,
                              GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  destroy_current_cb (user_data);
  bg_operation_answer (operation, G_ASYNC_RESULT (task));
  return TRUE;
}

static void
destroy_current_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  destroy_current_cb (data);
  g_task_return_boolean (task, TRUE);
}

static gboolean
destroy_current_remove_cb (gpointer user_data)
{
  destroy_current_cb (user_data);
  return G_SOURCE_REMOVE;
}

/* As with GLib, that it wants to go on is of no account then. */
static gboolean
destroy_current_continue_cb (gpointer user_data)
{
  destroy_current_cb (user_data);
  return G_SOURCE_CONTINUE;
}

static void
invoke_here_cb (gpointer user_data)
{
  Meddler *self = user_data;

  g_assert_true (bg_loop_invoke (self->loop, destroy_current_remove_cb, self));
}

static void
destroy_current_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  destroy_current_cb (user_data);
}

static void
ask_cb (gpointer user_data)
{
  Meddler *self = user_data;

  bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, destroy_current_reply_cb,
                      self);
}

static gpointer
block_thread (gpointer data)
{
  Meddler *self = data;
  g_autoptr (GAsyncResult) result = NULL;

  if (self->kind == CALL)
    g_assert_true (bg_loop_call (self->loop, destroy_current_call_cb, self, NULL, NULL));
  else
    result = bg_loop_perform (self->loop, 0, -1, destroy_current_begin_cb, self, NULL, NULL);
  g_assert_true (self->kind == CALL || result != NULL);
  return NULL;
}

static void
give_blocking (Meddler *self)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (self->loop);

  self->thread = g_thread_new ("blocks", block_thread, self);
  util_wait_for_queued (self->loop, (guint) stats->queued + 1);
}

static void
run_task (Meddler *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->loop, 0, task, destroy_current_task_cb);
}

static void
give_invoked (Meddler *self)
{
  BgLoop *loop = self->loop;

  if (self->kind == INVOKE)
    g_assert_true (bg_loop_invoke (loop, destroy_current_remove_cb, self));
  else if (self->kind == INVOKE_ON)
    g_assert_true (bg_loop_invoke_full (loop, 0, destroy_current_continue_cb, self, NULL));
  else if (self->kind == INVOKE_NOTIFY)
    g_assert_true (bg_loop_invoke_full (loop, 0, util_remove_cb, self, destroy_current_cb));
  else
    g_assert_true (bg_loop_post (loop, invoke_here_cb, self, NULL));
}

/* Without blocking here; what is not queued at once is due. */
static void
give (Meddler *self)
{
  BgLoop *loop = self->loop;

  switch (self->kind)
    {
    case POST:
      g_assert_true (bg_loop_post (loop, destroy_current_cb, self, NULL));
      break;
    case POST_LOW:
      g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, destroy_current_cb, self, NULL));
      break;
    case POST_DESTROY:
      g_assert_true (bg_loop_post (loop, util_nothing_cb, self, destroy_current_cb));
      break;
    case CALL:
    case PERFORM:
      give_blocking (self);
      break;
    case CALL_ASYNC:
      bg_loop_call_async (loop, 0, -1, destroy_current_call_cb, self, NULL, NULL, NULL, NULL);
      break;
    case CALL_ASYNC_DESTROY:
      bg_loop_call_async (loop, 0, -1, util_true_cb, self, destroy_current_cb, NULL, NULL, NULL);
      break;
    case PERFORM_ASYNC:
      bg_loop_perform_async (loop, 0, -1, destroy_current_begin_cb, self, NULL, NULL, NULL, NULL);
      break;
    case OPERATION_ASYNC:
      bg_loop_perform_operation_async (loop, 0, -1, destroy_current_operation_cb, self, NULL, NULL,
                                       NULL, NULL);
      break;
    case DELAY:
      g_assert_cmpuint (bg_loop_post_after (loop, 0, destroy_current_cb, self, NULL), !=, 0);
      break;
    case DELAY_DESTROY:
      g_assert_cmpuint (bg_loop_post_after (loop, 0, util_nothing_cb, self, destroy_current_cb), !=,
                        0);
      break;
    case TASK:
      run_task (self);
      break;
    case REPLY:
      g_assert_true (bg_loop_post (loop, ask_cb, self, NULL));
      break;
    default:
      give_invoked (self);
    }
}

/* The others, before, beside and after it */

static gboolean
other_call_cb (gpointer user_data, GError **error)
{
  ((Meddler *) user_data)->n_others++;
  return TRUE;
}

static void
other_cb (gpointer user_data)
{
  ((Meddler *) user_data)->n_others++;
}

static gboolean
other_invoked_cb (gpointer user_data)
{
  ((Meddler *) user_data)->n_others++;
  return G_SOURCE_REMOVE;
}

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Meddler *self = user_data;

  g_assert_true (bg_loop_call_finish (self->loop, result, NULL));
  self->n_replies++;
}

static void
give_others (Meddler *self, guint n)
{
  static const int priorities[]
      = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_DEFAULT, G_PRIORITY_HIGH };

  for (guint i = 0; i < n; i++)
    {
      int priority = priorities[i % G_N_ELEMENTS (priorities)];

      g_assert_true (bg_loop_post_full (self->loop, priority, other_cb, self, NULL));
      g_assert_true (bg_loop_invoke_full (self->loop, priority, other_invoked_cb, self, NULL));
      g_assert_cmpuint (bg_loop_post_after (self->loop, 0, other_cb, self, NULL), !=, 0);
      bg_loop_call_async (self->loop, priority, -1, other_call_cb, self, NULL, NULL, replied_cb,
                          self);
    }
}

static void
iterate_cb (gpointer user_data)
{
  Meddler *self = user_data;

  while (!util_latch_is_open (&self->meddled))
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
run (Kind kind, Situation situation, guint n_before)
{
  Meddler self = { kind, situation, util_loop_new ("meddler") };
  guint n = N_OTHERS;
  UtilBlock block;

  util_latch_init (&self.meddled, 1);
  util_block (&block, self.loop);
  if (situation == NESTED || situation == DRAINING_NESTED)
    g_assert_true (bg_loop_post (self.loop, iterate_cb, &self, NULL));
  give_others (&self, n_before);
  give (&self);
  give_others (&self, n - n_before);
  if (situation == DRAINING || situation == DRAINING_NESTED || situation == DRAINING_GOES_ON)
    bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);

  util_latch_wait (&self.meddled);
  if (situation == RUNNING || situation == NESTED || situation == GOES_ON)
    {
      give_others (&self, n);
      n *= 2;
      g_assert_true (bg_loop_call (self.loop, util_true_cb, NULL, NULL, NULL));
      g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
    }
  if (self.thread != NULL)
    g_thread_join (self.thread);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpint (self.n_destroyed, ==, 1);
  g_assert_cmpint (self.n_others, ==, 4 * n);
  while (self.n_replies < (int) n)
    g_main_context_iteration (NULL, TRUE);
  util_loop_end (self.loop);
  util_block_clear (&block);
  util_latch_clear (&self.meddled);
}

static void
run_all (Situation situation)
{
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      for (guint n_before = 0; n_before <= N_OTHERS; n_before += N_OTHERS / 2)
        run (kind, situation, n_before);
    }
}

static void
test_running (void)
{
  run_all (RUNNING);
}

static void
test_draining (void)
{
  run_all (DRAINING);
}

static void
test_nested (void)
{
  run_all (NESTED);
}

static void
test_draining_nested (void)
{
  run_all (DRAINING_NESTED);
}

static void
test_iterates (void)
{
  run_all (GOES_ON);
}

static void
test_draining_iterates (void)
{
  run_all (DRAINING_GOES_ON);
}

/* Sources without data are found by that: the library's are not among them. */

static gboolean
attach_and_find_cb (gpointer loop, GError **error)
{
  GMainContext *context = bg_loop_get_context (loop);
  GSource *source = g_timeout_source_new_seconds (1000);

  g_source_set_callback (source, util_remove_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_assert_true (g_main_context_find_source_by_user_data (context, NULL) == source);
  g_source_destroy (source);
  g_source_unref (source);
  g_assert_null (g_main_context_find_source_by_user_data (context, NULL));
  return TRUE;
}

static void
find_cb (gpointer loop)
{
  g_assert_null (g_main_context_find_source_by_user_data (bg_loop_get_context (loop), NULL));
}

static void
test_without_data (void)
{
  static const int priorities[] = { G_PRIORITY_LOW, G_PRIORITY_DEFAULT };
  BgLoop *loop = util_loop_new ("data");
  UtilBlock block;

  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    g_assert_true (
        bg_loop_call_full (loop, priorities[i], -1, attach_and_find_cb, loop, NULL, NULL));
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, find_cb, loop, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* Somebody else destroys it, while it is dispatched. */

typedef struct
{
  GSource *source; /* (owned) */
  UtilLatch taken;
  UtilLatch destroyed;
} Taken;

static void
take_current_cb (gpointer user_data)
{
  Taken *self = user_data;

  self->source = g_source_ref (g_main_current_source ());
  util_latch_count_down (&self->taken);
  util_latch_wait (&self->destroyed);
}

static void
test_elsewhere (BgTestFixture *fixture, gconstpointer data)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW };
  BgLoop *loop = fixture->loop;

  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      Taken self = { NULL };

      util_latch_init (&self.taken, 1);
      util_latch_init (&self.destroyed, 1);
      g_assert_true (bg_loop_post_full (loop, priorities[i], take_current_cb, &self, NULL));
      util_latch_wait (&self.taken);
      g_source_destroy (self.source);
      util_latch_count_down (&self.destroyed);
      g_assert_true (bg_loop_call_full (loop, priorities[i], -1, util_true_cb, NULL, NULL, NULL));
      g_source_unref (self.source);
      util_latch_clear (&self.taken);
      util_latch_clear (&self.destroyed);
    }
}

/* Where an invoked function goes on, that another piece of work has destroyed what runs
 * both is nothing to it. */

typedef struct
{
  BgLoop *loop;
  guint n_run;
  int n_notified;
} Goes;

static gboolean
go_on_cb (gpointer user_data)
{
  Goes *self = user_data;

  return ++self->n_run < 5;
}

static void
destroy_and_invoke_cb (gpointer user_data)
{
  Goes *self = user_data;

  g_source_destroy (g_main_current_source ());
  g_assert_true (bg_loop_invoke_full (self->loop, 0, go_on_cb, self, NULL));
}

static void
destroy_cb (gpointer user_data)
{
  g_source_destroy (g_main_current_source ());
}

static void
assert_goes_on (Goes *self, gboolean drains, gboolean inlined)
{
  UtilBlock block;

  util_block (&block, self->loop);
  if (inlined)
    {
      g_assert_true (bg_loop_post (self->loop, destroy_and_invoke_cb, self, NULL));
    }
  else
    {
      g_assert_true (bg_loop_post (self->loop, destroy_cb, NULL, NULL));
      g_assert_true (bg_loop_invoke_full (self->loop, 0, go_on_cb, self, NULL));
    }
  if (drains)
    bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (self->loop, NULL));
  g_assert_cmpuint (self->n_run, ==, 5);
  util_loop_end (self->loop);
  util_block_clear (&block);
}

static void
test_goes_on (void)
{
  for (guint i = 0; i < 4; i++)
    {
      Goes self = { util_loop_new ("goes on") };

      assert_goes_on (&self, i % 2, i / 2);
    }
}

/* Callbacks of replies, in any context */

static void
destroy_in_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_source_destroy (g_main_current_source ());
  util_latch_count_down (user_data);
}

static void
ask_all (BgLoop *loop, guint i, gpointer latch)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };
  int priority = priorities[i % G_N_ELEMENTS (priorities)];

  bg_loop_call_async (loop, priority, -1, util_true_cb, NULL, NULL, NULL, destroy_in_reply_cb,
                      latch);
  bg_loop_wait_async (loop, 0, NULL, destroy_in_reply_cb, latch);
}

static void
run_replies (GMainContext *context, gboolean at_once)
{
  BgLoop *loop = util_loop_new ("replies");
  UtilLatch replied;
  UtilBlock block;

  g_main_context_push_thread_default (context);
  util_latch_init (&replied, 2 * N_OTHERS + 1);
  util_block (&block, loop);
  if (!at_once)
    util_unblock (&block);
  for (guint i = 0; i < N_OTHERS; i++)
    ask_all (loop, i, &replied);
  if (at_once)
    util_unblock (&block);
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, -1, NULL, destroy_in_reply_cb, &replied);
  util_iterate_until (&replied);
  g_main_context_pop_thread_default (context);
  util_loop_end (loop);
  util_latch_clear (&replied);
  util_block_clear (&block);
}

static void
test_replies (void)
{
  g_autoptr (GMainContext) context = g_main_context_new ();

  for (guint i = 0; i < 20; i++)
    run_replies (i % 3 == 0 ? g_main_context_default () : context, i % 2);
}

/* The callback goes on with others, which it iterates the context for. */

static void
destroy_and_ask_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

  g_source_destroy (g_main_current_source ());
  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      UtilLatch replied;

      util_latch_init (&replied, 1);
      bg_loop_call_async (BG_LOOP (source), priorities[i], -1, util_true_cb, NULL, NULL, NULL,
                          util_count_down_reply_cb, &replied);
      util_iterate_until (&replied);
      util_latch_clear (&replied);
    }
  util_latch_count_down (user_data);
}

static void
test_reply_iterates (BgTestFixture *fixture, gconstpointer data)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW };
  g_autoptr (GMainContext) context = g_main_context_new ();
  BgLoop *loop = fixture->loop;

  for (guint i = 0; i < 4; i++)
    {
      UtilLatch replied;

      g_main_context_push_thread_default (i / 2 ? context : NULL);
      util_latch_init (&replied, 1);
      bg_loop_call_async (loop, priorities[i % 2], -1, util_true_cb, NULL, NULL, NULL,
                          destroy_and_ask_cb, &replied);
      util_iterate_until (&replied);
      g_main_context_pop_thread_default (i / 2 ? context : NULL);
      util_latch_clear (&replied);
    }
}

/* Threads without a context of their own ask meanwhile: their answers come by the very source
 * that goes, which each of them looks for as it asks for the first time. */

#define N_ASKERS 4

typedef struct
{
  BgLoop *loop;
  guint n_each;
  UtilLatch replied;
} Asked;

static gpointer
ask_once_thread (gpointer data)
{
  Asked *self = data;

  bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, destroy_in_reply_cb,
                      &self->replied);
  return NULL;
}

static gpointer
ask_in_turn_thread (gpointer data)
{
  Asked *self = data;

  for (guint i = 0; i < self->n_each; i++)
    g_thread_join (g_thread_new ("asks once", ask_once_thread, self));
  return NULL;
}

static void
test_replies_to_many (BgTestFixture *fixture, gconstpointer data)
{
  Asked self = { fixture->loop, util_scale_at_least (500, 50) };
  GThread *threads[N_ASKERS];

  util_latch_init (&self.replied, N_ASKERS * self.n_each);
  for (guint i = 0; i < N_ASKERS; i++)
    threads[i] = g_thread_new ("asks", ask_in_turn_thread, &self);
  util_iterate_until (&self.replied);
  for (guint i = 0; i < N_ASKERS; i++)
    g_thread_join (threads[i]);
  util_latch_clear (&self.replied);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/current-source/destroyed/running", test_running);
  util_add_trapped ("/current-source/destroyed/draining", test_draining);
  util_add_trapped ("/current-source/destroyed/nested", test_nested);
  util_add_trapped ("/current-source/destroyed/draining-nested", test_draining_nested);
  util_add_trapped ("/current-source/destroyed/iterates", test_iterates);
  util_add_trapped ("/current-source/destroyed/draining-iterates", test_draining_iterates);
  util_add_trapped_with_loop ("/current-source/destroyed/elsewhere", test_elsewhere);
  util_add_trapped ("/current-source/without-data", test_without_data);
  util_add_trapped ("/current-source/destroyed/others-go-on", test_goes_on);
  util_add_trapped ("/current-source/destroyed/in-replies", test_replies);
  util_add_trapped_with_loop ("/current-source/destroyed/reply-iterates", test_reply_iterates);
  util_add_trapped_with_loop ("/current-source/destroyed/replies-to-many", test_replies_to_many);

  return g_test_run ();
}
