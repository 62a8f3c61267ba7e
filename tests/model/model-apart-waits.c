/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* Waits on loops that nobody else uses. */

/* A knot: the first loop ends the second, whose cancellable has a handler that waits for the third
 * meanwhile. What the second runs would wait for the first, once within that wait and once after
 * it: each closes a circle, by the outer of the two waits. */

typedef struct
{
  const ModelOp *op;
  BgLoop *first, *second, *third, *fourth;
  UtilLatch second_runs, third_runs, was_refused, handled;
} Knot;

static gboolean
call_first_cb (gpointer data, GError **error)
{
  return bg_loop_call (((Knot *) data)->first, util_true_cb, NULL, NULL, error);
}

static void
expect_refused (Knot *self, guint how)
{
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;

  switch (how % 6)
    {
    case 0:
      call_first_cb (self, &error);
      break;
    case 1:
      answer = bg_loop_perform (self->first, 0, -1, util_no_begin_cb, NULL, NULL, &error);
      break;
    case 2:
      bg_loop_flush (self->first, -1, NULL, &error);
      break;
    case 3:
      bg_loop_shutdown (self->first, &error);
      break;
    case 4:
      bg_loop_wait (self->first, -1, NULL, &error);
      break;
    default:
      bg_loop_call (self->fourth, call_first_cb, self, NULL, &error);
    }
  if (!g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK))
    model_fail ("a wait that closes a circle is not refused: %s",
                error != NULL ? error->message : "it went well");
}

static void
second_cb (gpointer data)
{
  Knot *self = data;

  util_latch_count_down (&self->second_runs);
  util_latch_wait (&self->third_runs);
  expect_refused (self, self->op->variant / 4);
  util_latch_count_down (&self->was_refused);
  util_latch_wait (&self->handled);
  expect_refused (self, self->op->variant / 32);
}

static gboolean
third_cb (gpointer data, GError **error)
{
  Knot *self = data;

  util_latch_count_down (&self->third_runs);
  util_latch_wait (&self->was_refused);
  return TRUE;
}

static gboolean
third_begin_cb (gpointer data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  third_cb (data, error);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static void
third_post_cb (gpointer data)
{
  third_cb (data, NULL);
}

static void
cancelled_cb (GCancellable *cancellable, gpointer data)
{
  Knot *self = data;
  g_autoptr (GAsyncResult) answer = NULL;

  if (self->op->variant % 3 == 0)
    g_assert_true (bg_loop_call (self->third, third_cb, self, NULL, NULL));
  else if (self->op->variant % 3 == 1)
    answer = bg_loop_perform (self->third, 0, -1, third_begin_cb, self, NULL, NULL);
  else
    {
      g_assert_true (bg_loop_post (self->third, third_post_cb, self, NULL));
      g_assert_true (bg_loop_flush (self->third, -1, NULL, NULL));
    }
  util_latch_count_down (&self->handled);
}

static gboolean
end_second_cb (gpointer data, GError **error)
{
  return bg_loop_shutdown_full (((Knot *) data)->second, BG_SHUTDOWN_CANCEL, -1, NULL, error);
}

void
model_apart_knot (const ModelOp *op)
{
  Knot self = { op, util_loop_new ("first"), util_loop_new ("second"), util_loop_new ("third"),
                util_loop_new ("fourth") };
  g_autoptr (GError) error = NULL;

  util_latch_init (&self.second_runs, 1);
  util_latch_init (&self.third_runs, 1);
  util_latch_init (&self.was_refused, 1);
  util_latch_init (&self.handled, 1);
  g_signal_connect (bg_loop_get_cancellable (self.second), "cancelled", G_CALLBACK (cancelled_cb),
                    &self);
  g_assert_true (bg_loop_post (self.second, second_cb, &self, NULL));
  util_latch_wait (&self.second_runs);
  g_assert_true (bg_loop_call (self.first, end_second_cb, &self, NULL, &error));

  util_loop_end (self.second);
  util_loop_end (self.third);
  util_loop_end (self.fourth);
  util_loop_end (self.first);
  util_latch_clear (&self.second_runs);
  util_latch_clear (&self.third_runs);
  util_latch_clear (&self.was_refused);
  util_latch_clear (&self.handled);
}
