/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* A reply comes in the caller's context, at the priority of the work. */

typedef enum
{
  CALL,
  PERFORM,
  OPERATION,
  N_KINDS,
} Kind;

/* All of one caller's, who writes down what comes. */
typedef struct
{
  Kind kind;
  BgLoop *loop;
  gboolean fails;
  GString *order;
  UtilLatch destroyed;
  UtilLatch replied;
} Replies;

typedef struct
{
  Replies *replies;
  char name;
} Reply;

static gboolean
run (Replies *self, GError **error)
{
  if (self->fails)
    g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR, "failed");
  return !self->fails;
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  return run (((Reply *) user_data)->replies, error);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Replies *self = ((Reply *) user_data)->replies;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  if (!self->fails)
    callback (NULL, G_ASYNC_RESULT (task), callback_data);
  return run (self, error);
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Replies *self = ((Reply *) user_data)->replies;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  if (!self->fails)
    bg_operation_answer (operation, G_ASYNC_RESULT (task));
  return run (self, error);
}

static void
destroyed_cb (gpointer user_data)
{
  util_latch_count_down (&((Reply *) user_data)->replies->destroyed);
}

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Reply *self = user_data;

  g_string_append_c (self->replies->order, self->name);
  util_latch_count_down (&self->replies->replied);
}

static void
start (Reply *self, int priority)
{
  Replies *replies = self->replies;

  if (replies->kind == CALL)
    bg_loop_call_async (replies->loop, priority, -1, call_cb, self, destroyed_cb, NULL, replied_cb,
                        self);
  else if (replies->kind == PERFORM)
    bg_loop_perform_async (replies->loop, priority, -1, begin_cb, self, destroyed_cb, NULL,
                           replied_cb, self);
  else
    bg_loop_perform_operation_async (replies->loop, priority, -1, operation_cb, self, destroyed_cb,
                                     NULL, replied_cb, self);
}

/* The caller's own sources come in between. */

static gboolean
source_cb (gpointer user_data)
{
  Reply *self = user_data;

  g_string_append_c (self->replies->order, self->name);
  return G_SOURCE_REMOVE;
}

static void
attach (Reply *self, int priority)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, priority);
  g_source_set_callback (source, source_cb, self, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
}

static const int priorities[]
    = { G_PRIORITY_LOW, G_PRIORITY_DEFAULT_IDLE, G_PRIORITY_DEFAULT, 5, G_PRIORITY_HIGH };

#define N_PRIORITIES G_N_ELEMENTS (priorities)

/* Nobody iterates the caller's context until all is there. */
static void
run_replies (Kind kind, gboolean fails)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  Replies self = { kind, util_loop_new ("replies"), fails, g_string_new (NULL) };
  Reply replies[N_PRIORITIES], sources[N_PRIORITIES];

  g_main_context_push_thread_default (context);
  util_latch_init (&self.destroyed, N_PRIORITIES);
  util_latch_init (&self.replied, N_PRIORITIES);
  for (guint i = 0; i < N_PRIORITIES; i++)
    {
      replies[i] = (Reply){ &self, (char) ('a' + i) };
      sources[i] = (Reply){ &self, (char) ('A' + i) };
      start (&replies[i], priorities[i]);
      attach (&sources[i], priorities[i] + 1);
    }
  util_latch_wait (&self.destroyed);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpstr (self.order->str, ==, "");
  util_iterate_until (&self.replied);
  while (g_main_context_iteration (context, FALSE))
    ;
  g_assert_cmpstr (self.order->str, ==, "eEcCdDbBaA");
  g_main_context_pop_thread_default (context);

  util_loop_end (self.loop);
  g_string_free (self.order, TRUE);
  util_latch_clear (&self.destroyed);
  util_latch_clear (&self.replied);
}

static void
test_priorities (gconstpointer data)
{
  run_replies (GPOINTER_TO_INT (data), FALSE);
  run_replies (GPOINTER_TO_INT (data), TRUE);
}

/* Though somebody else is always ready, one of a higher priority comes. */

static void
test_beside_busy_source (gconstpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GSource) source = g_idle_source_new ();
  Replies self = { GPOINTER_TO_INT (data), util_loop_new ("busy"), FALSE, g_string_new (NULL) };
  Reply reply = { &self, 'a' };

  g_main_context_push_thread_default (context);
  util_latch_init (&self.destroyed, 1);
  util_latch_init (&self.replied, 1);
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  g_source_attach (source, context);
  start (&reply, G_PRIORITY_HIGH);
  util_iterate_until (&self.replied);
  g_source_destroy (source);
  g_main_context_pop_thread_default (context);
  util_loop_end (self.loop);
  g_string_free (self.order, TRUE);
  util_latch_clear (&self.destroyed);
  util_latch_clear (&self.replied);
}

/* While it is pending the loop is kept, as results keep their source: the last
 * reference of the caller's may go. */
static void
test_holds_reference (gconstpointer data)
{
  Replies self = { GPOINTER_TO_INT (data), util_loop_new ("kept"), FALSE, g_string_new (NULL) };
  guint threads = util_count_threads () - 1;
  Reply reply = { &self, 'a' };
  UtilBlock block;
  GWeakRef weak;

  g_weak_ref_init (&weak, self.loop);
  util_latch_init (&self.destroyed, 1);
  util_latch_init (&self.replied, 1);
  util_block (&block, self.loop);
  start (&reply, G_PRIORITY_DEFAULT);
  g_object_unref (self.loop);
  self.loop = g_weak_ref_get (&weak);
  g_assert_nonnull (self.loop);
  g_assert_cmpint (bg_loop_get_state (self.loop), ==, BG_LOOP_RUNNING);
  g_object_unref (self.loop);
  util_unblock (&block);
  util_iterate_until (&self.replied);

  /* And then it is not. */
  while ((self.loop = g_weak_ref_get (&weak)) != NULL)
    g_object_unref (self.loop);
  util_wait_for_threads (threads);
  g_weak_ref_clear (&weak);
  util_block_clear (&block);
  g_string_free (self.order, TRUE);
  util_latch_clear (&self.destroyed);
  util_latch_clear (&self.replied);
}

static void
add (const char *path, Kind kind, GTestDataFunc func)
{
  static const char *names[] = { "call", "perform", "operation" };
  g_autofree char *whole = g_strdup_printf ("/reply/%s/%s", path, names[kind]);

  g_test_add_data_func (whole, GINT_TO_POINTER (kind), func);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  for (Kind kind = CALL; kind < N_KINDS; kind++)
    {
      add ("at-the-priority-of-the-work", kind, test_priorities);
      add ("beside-a-busy-source", kind, test_beside_busy_source);
      add ("pending-holds-a-reference", kind, test_holds_reference);
    }

  return g_test_run ();
}
