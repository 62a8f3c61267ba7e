/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* A priority that is not in use costs nothing, however many were used before: each would be a
 * source of the context. */

#define N_PRIORITIES 60
#define MANY_SOURCES 30 /* a few priorities may stay, and there are the loop's own sources */

static gboolean
count_down_call_cb (gpointer data, GError **error)
{
  util_latch_count_down (data);
  return TRUE;
}

static gboolean
begin_cb (gpointer data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  util_latch_count_down (data);
  callback (NULL, G_ASYNC_RESULT (task), callback_data);
  return TRUE;
}

static void
give (BgLoop *loop, int priority, guint what, UtilLatch *ran)
{
  g_autoptr (GAsyncResult) answer = NULL;

  switch (what % 6)
    {
    case 0:
      g_assert_true (bg_loop_post_full (loop, priority, util_count_down_cb, ran, NULL));
      break;
    case 1:
      bg_loop_call_async (loop, priority, -1, count_down_call_cb, ran, NULL, NULL, NULL, NULL);
      break;
    case 2:
      g_assert_true (bg_loop_call_full (loop, priority, -1, count_down_call_cb, ran, NULL, NULL));
      break;
    case 3:
      answer = bg_loop_perform (loop, priority, -1, begin_cb, ran, NULL, NULL);
      g_assert_nonnull (answer);
      break;
    case 4:
      bg_loop_perform_async (loop, priority, -1, begin_cb, ran, NULL, NULL, NULL, NULL);
      break;
    default:
      g_assert_true (bg_loop_invoke_full (loop, priority, util_count_down_source_cb, ran, NULL));
    }
}

static gboolean
count_sources_cb (gpointer data, GError **error)
{
  GMainContext *context = g_main_context_get_thread_default ();
  g_autoptr (GSource) probe = g_idle_source_new ();
  guint last = g_source_attach (probe, context), *n = data;

  g_source_destroy (probe);
  for (guint id = 1; id < last; id++)
    *n += g_main_context_find_source_by_id (context, id) != NULL;
  return TRUE;
}

void
model_apart_priorities (const ModelOp *op)
{
  BgLoop *loop = util_loop_new ("priorities");
  UtilLatch ran;
  guint n = 0;

  util_latch_init (&ran, N_PRIORITIES);
  for (int i = 0; i < N_PRIORITIES; i++)
    give (loop, i - N_PRIORITIES / 2, op->amount == 0 ? op->variant + (guint) i : op->variant,
          &ran);
  util_latch_wait (&ran);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_call (loop, count_sources_cb, &n, NULL, NULL));
  if (n >= MANY_SOURCES)
    model_fail ("%u priorities were used, and the context still has %u sources", N_PRIORITIES, n);
  util_loop_end (loop);
  util_latch_clear (&ran);
}
