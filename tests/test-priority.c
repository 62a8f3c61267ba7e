/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* A priority that is not in use costs nothing: each would be a source that every
 * iteration looks at. */

#define N_PRIORITIES 2000

/* A few may stay, in case; and there are the loop's own. */
#define MANY_SOURCES 30

/* In the thread that owns the context */
static guint
count_sources (GMainContext *context)
{
  g_autoptr (GSource) probe = g_idle_source_new ();
  guint last = g_source_attach (probe, context), n = 0;

  g_source_destroy (probe);
  for (guint id = 1; id < last; id++)
    n += g_main_context_find_source_by_id (context, id) != NULL;
  return n;
}

static gboolean
assert_few_cb (gpointer user_data, GError **error)
{
  g_assert_cmpuint (count_sources (user_data), <, MANY_SOURCES);
  return TRUE;
}

static void
assert_few (BgLoop *loop)
{
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_call (loop, assert_few_cb, bg_loop_get_context (loop), NULL, NULL));
}

/* Work of every kind */

typedef enum
{
  POST,
  CALL,
  CALL_TIMED_OUT,
  CALL_ASYNC,
  PERFORM,
  PERFORM_ASYNC,
  OPERATION,
  OPERATION_ASYNC,
  TASK,
  INVOKE,
  FLUSH,
  N_KINDS,
} Kind;

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  util_count_cb (user_data);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  g_atomic_int_inc ((int *) user_data);
  bg_operation_answer (operation, G_ASYNC_RESULT (task));
  return TRUE;
}

static void
task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  g_atomic_int_inc ((int *) data);
  g_task_return_boolean (task, TRUE);
}

static gboolean
invoked_cb (gpointer user_data)
{
  g_atomic_int_inc ((int *) user_data);
  return G_SOURCE_REMOVE;
}

static void
give_task (BgLoop *loop, int priority, int *n)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  g_task_set_task_data (task, n, NULL);
  bg_loop_run_task (loop, priority, task, task_cb);
}

static void
give (BgLoop *loop, Kind kind, int priority, int *n)
{
  g_autoptr (GAsyncResult) result = NULL;

  switch (kind)
    {
    case POST:
      g_assert_true (bg_loop_post_full (loop, priority, util_count_cb, n, NULL));
      break;
    case CALL:
      g_assert_true (bg_loop_call_full (loop, priority, -1, util_count_call_cb, n, NULL, NULL));
      break;
    case CALL_TIMED_OUT:
      if (!bg_loop_call_full (loop, priority, 0, util_count_call_cb, n, NULL, NULL))
        g_atomic_int_inc (n);
      break;
    case CALL_ASYNC:
      bg_loop_call_async (loop, priority, -1, util_count_call_cb, n, NULL, NULL, NULL, NULL);
      break;
    case PERFORM:
      result = bg_loop_perform (loop, priority, -1, begin_cb, n, NULL, NULL);
      break;
    case PERFORM_ASYNC:
      bg_loop_perform_async (loop, priority, -1, begin_cb, n, NULL, NULL, NULL, NULL);
      break;
    case OPERATION:
      result = bg_loop_perform_operation (loop, priority, -1, operation_cb, n, NULL, NULL);
      break;
    case OPERATION_ASYNC:
      bg_loop_perform_operation_async (loop, priority, -1, operation_cb, n, NULL, NULL, NULL, NULL);
      break;
    case TASK:
      give_task (loop, priority, n);
      break;
    case INVOKE:
      g_assert_true (bg_loop_invoke_full (loop, priority, invoked_cb, n, NULL));
      break;
    default:
      g_assert_true (bg_loop_post_full (loop, priority, util_count_cb, n, NULL));
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
    }
}

/* One after the other, each of another priority */
static void
test_one_by_one (void)
{
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      BgLoop *loop = util_loop_new ("one by one");
      guint n = util_scale_at_least (N_PRIORITIES / 4, MANY_SOURCES * 2);
      int n_run = 0;

      for (guint i = 0; i < n; i++)
        give (loop, kind, (int) i - (int) n / 2, &n_run);
      while (g_atomic_int_get (&n_run) < (int) n)
        g_thread_yield ();
      assert_few (loop);
      util_loop_end (loop);
      g_assert_cmpint (n_run, ==, n);
    }
}

/* All at once, and the least urgent one first */
static void
test_at_once (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;

  for (guint round = 0; round < 3; round++)
    {
      UtilBlock block;
      int n_run = 0;

      util_block (&block, loop);
      for (int i = N_PRIORITIES; i > 0; i--)
        {
          g_assert_true (
              bg_loop_post_full (loop, i - N_PRIORITIES / 2, util_count_cb, &n_run, NULL));
          bg_loop_call_async (loop, i - N_PRIORITIES / 2, -1, util_count_call_cb, &n_run, NULL,
                              NULL, NULL, NULL);
        }
      util_unblock (&block);
      assert_few (loop);
      g_assert_cmpint (n_run, ==, 2 * N_PRIORITIES);
      util_block_clear (&block);
    }
}

/* By work that runs while others do, within each other */

typedef struct
{
  BgLoop *loop;
  int left; /* atomic */
  int n_run;
} Nested;

static void
nest_cb (gpointer user_data)
{
  Nested *self = user_data;
  int before = g_atomic_int_add (&self->left, -1) - 1;
  int priority = before % 40 - 20;

  self->n_run++;
  if (before == 0)
    return;

  g_assert_true (bg_loop_post_full (self->loop, priority, nest_cb, self, NULL));
  if (before % 4 == 0)
    while (g_atomic_int_get (&self->left) == before)
      g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
test_nested (BgTestFixture *fixture, gconstpointer data)
{
  Nested self = { fixture->loop, 200 };

  g_assert_true (bg_loop_post (self.loop, nest_cb, &self, NULL));
  while (bg_loop_flush (self.loop, -1, NULL, NULL) && g_atomic_int_get (&self.left) > 0)
    ;
  assert_few (self.loop);
  g_assert_cmpint (self.n_run, ==, 200);
}

/* While threads use the same ones again and again, nothing is lost, and each thread's
 * work stays in its order. */

typedef struct
{
  BgLoop *loop;
  guint n;
  UtilLatch done;
} Many;

typedef struct
{
  guint *last; /* of this thread's at this priority */
  guint number;
  Many *many;
} Numbered;

static void
numbered_cb (gpointer user_data)
{
  Numbered *self = user_data;

  g_assert_cmpuint (*self->last, <, self->number);
  *self->last = self->number;
}

static void
numbered_destroyed_cb (gpointer user_data)
{
  Numbered *self = user_data;

  util_latch_count_down (&self->many->done);
  g_free (self);
}

#define N_SHARED 60

static gpointer
many_thread (gpointer data)
{
  Many *self = data;
  guint *last = g_new0 (guint, N_SHARED);

  for (guint i = 1; i <= self->n; i++)
    {
      guint which = i * 7 % N_SHARED;
      Numbered *numbered = g_new (Numbered, 1);

      *numbered = (Numbered){ &last[which], i, self };
      g_assert_true (bg_loop_post_full (self->loop, (int) which - N_SHARED / 2, numbered_cb,
                                        numbered, numbered_destroyed_cb));
      if (i % 16 == 0)
        g_thread_yield ();
    }
  return last;
}

static void
test_many_threads (BgTestFixture *fixture, gconstpointer data)
{
  Many self = { fixture->loop, util_scale (20000) };
  GThread *threads[4];
  gpointer lasts[G_N_ELEMENTS (threads)];

  util_latch_init (&self.done, self.n * G_N_ELEMENTS (threads));
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("many", many_thread, &self);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    lasts[i] = g_thread_join (threads[i]);
  util_latch_wait (&self.done);
  assert_few (self.loop);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_free (lasts[i]);
  util_latch_clear (&self.done);
}

/* Those of replies, in the caller's context */
static void
test_replies (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  BgLoop *loop = fixture->loop;

  g_main_context_push_thread_default (context);
  for (guint round = 0; round < 4; round++)
    {
      guint n = util_scale_at_least (N_PRIORITIES, MANY_SOURCES * 2);
      UtilLatch replied;
      int n_run = 0;

      util_latch_init (&replied, 2 * n);
      for (guint i = 0; i < n; i++)
        {
          bg_loop_call_async (loop, (int) i - 100, -1, util_count_call_cb, &n_run, NULL, NULL,
                              util_count_down_reply_cb, &replied);
          bg_loop_perform_async (loop, (int) i - 100, -1, begin_cb, &n_run, NULL, NULL,
                                 util_count_down_reply_cb, &replied);
          if (round % 2 == 0)
            g_main_context_iteration (context, FALSE);
        }
      util_iterate_until (&replied);
      while (g_main_context_iteration (context, FALSE))
        ;
      g_assert_cmpuint (count_sources (context), <, MANY_SOURCES);
      util_latch_clear (&replied);
    }
  g_main_context_pop_thread_default (context);
  assert_few (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/priority/not-in-use/one-by-one", test_one_by_one);
  util_add_trapped_with_loop ("/priority/not-in-use/at-once", test_at_once);
  util_add_trapped_with_loop ("/priority/not-in-use/nested", test_nested);
  util_add_trapped_with_loop ("/priority/not-in-use/many-threads", test_many_threads);
  util_add_trapped_with_loop ("/priority/not-in-use/replies", test_replies);

  return g_test_run ();
}
