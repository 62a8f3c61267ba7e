/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util-meddler.h"

/* Whatever happens on the loop's thread while its context decides to sleep, work that
 * comes from another thread after that is run at once: no wake-up is lost. */

/* What happens: */
typedef enum
{
  ANSWER,
  ANSWER_OPERATION,
  DROP_OPERATION,
  POST,
  POST_URGENT,
  POST_LOW,
  CALL_ASYNC,
  DELAY,
  WITHDRAW,
  RELEASE,
  INVOKE,
  ATTACH,
  REMOVE_TEARDOWN,
  N_EVENTS,
} Event;

/* in one of the functions of a source, and then this comes. */
typedef enum
{
  THEN_POST,
  THEN_POST_LOW,
  THEN_CALL,
  THEN_PERFORM,
  THEN_DELAY,
  THEN_INVOKE,
  N_NEXT,
} Next;

typedef struct
{
  Event event;
  BgLoop *loop;
  UtilMeddler meddler;
  GTask *result; /* that has been returned: nothing is left to happen to it */
  UtilLatch begun;
  UtilLatch ran;

  /* what is to happen */
  GAsyncReadyCallback callback;
  gpointer callback_data;
  BgOperation *operation;
  guint64 work;
  guint64 hold;
  guint64 teardown;
} Wakeup;

/* Operations that have begun */

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  Wakeup *self = user_data;

  self->callback = callback;
  self->callback_data = callback_data;
  util_latch_count_down (&self->begun);
  return TRUE;
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Wakeup *self = user_data;

  self->operation = bg_operation_ref (operation);
  util_latch_count_down (&self->begun);
  return TRUE;
}

static void
prepare_event (Wakeup *self)
{
  if (self->event == ANSWER)
    bg_loop_perform_async (self->loop, 0, -1, begin_cb, self, NULL, NULL, NULL, NULL);
  else if (self->event == ANSWER_OPERATION || self->event == DROP_OPERATION)
    bg_loop_perform_operation_async (self->loop, 0, -1, operation_cb, self, NULL, NULL, NULL, NULL);
  else
    util_latch_count_down (&self->begun);
  util_latch_wait (&self->begun);

  self->work
      = bg_loop_post_after (self->loop, G_MAXINT, util_not_reached_cb, NULL, util_nothing_cb);
  self->hold = bg_loop_hold (self->loop, "the event");
  self->teardown = bg_loop_add_teardown (self->loop, util_nothing_cb, NULL, util_nothing_cb);
}

static void
attach (Wakeup *self)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, util_remove_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (self->loop, source));
}

static void
let_it_happen (gpointer data)
{
  Wakeup *self = data;
  BgLoop *loop = self->loop;

  switch (self->event)
    {
    case ANSWER:
      self->callback (NULL, G_ASYNC_RESULT (self->result), self->callback_data);
      break;
    case ANSWER_OPERATION:
      bg_operation_answer (self->operation, G_ASYNC_RESULT (self->result));
      break;
    case DROP_OPERATION:
      g_clear_pointer (&self->operation, bg_operation_unref);
      break;
    case POST:
      g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
      break;
    case POST_URGENT:
      g_assert_true (bg_loop_post_full (loop, G_PRIORITY_HIGH, util_nothing_cb, NULL, NULL));
      break;
    case POST_LOW:
      g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, util_nothing_cb, NULL, NULL));
      break;
    case CALL_ASYNC:
      bg_loop_call_async (loop, 0, -1, util_true_cb, NULL, NULL, NULL, NULL, NULL);
      break;
    case DELAY:
      g_assert_cmpuint (bg_loop_post_after (loop, 0, util_nothing_cb, NULL, NULL), !=, 0);
      break;
    case WITHDRAW:
      g_assert_true (bg_loop_withdraw (loop, self->work));
      break;
    case RELEASE:
      bg_loop_release (loop, self->hold);
      self->hold = 0;
      break;
    case INVOKE:
      g_assert_true (bg_loop_invoke (loop, util_remove_cb, NULL));
      break;
    case ATTACH:
      attach (self);
      break;
    default:
      g_assert_true (bg_loop_remove_teardown (loop, self->teardown));
    }
}

/* What comes then */

static void
ran_cb (gpointer user_data)
{
  Wakeup *self = user_data;

  util_meddler_quit (&self->meddler);
  util_latch_count_down (&self->ran);
}

static gboolean
ran_call_cb (gpointer user_data, GError **error)
{
  ran_cb (user_data);
  return TRUE;
}

static gboolean
ran_begin_cb (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  Wakeup *self = user_data;

  ran_cb (self);
  callback (NULL, G_ASYNC_RESULT (self->result), callback_data);
  return TRUE;
}

static gboolean
ran_invoked_cb (gpointer user_data)
{
  ran_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
then (Wakeup *self, Next next)
{
  BgLoop *loop = self->loop;
  g_autoptr (GAsyncResult) result = NULL;

  switch (next)
    {
    case THEN_POST:
      g_assert_true (bg_loop_post (loop, ran_cb, self, NULL));
      break;
    case THEN_POST_LOW:
      g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, ran_cb, self, NULL));
      break;
    case THEN_CALL:
      g_assert_true (bg_loop_call (loop, ran_call_cb, self, NULL, NULL));
      break;
    case THEN_PERFORM:
      result = bg_loop_perform (loop, 0, -1, ran_begin_cb, self, NULL, NULL);
      g_assert_nonnull (result);
      break;
    case THEN_DELAY:
      g_assert_cmpuint (bg_loop_post_after (loop, 0, ran_cb, self, NULL), !=, 0);
      break;
    default:
      g_assert_true (bg_loop_invoke (loop, ran_invoked_cb, self));
    }
  util_latch_wait (&self->ran);
}

static void
run (Event event, UtilMoment moment, int priority, guint depth, Next next)
{
  Wakeup self = { event, util_loop_new ("wakeup") };

  self.meddler = (UtilMeddler){ self.loop, moment, depth, let_it_happen, &self };
  util_latch_init (&self.begun, 1);
  util_latch_init (&self.ran, 1);
  self.result = g_task_new (NULL, NULL, NULL, NULL);
  prepare_event (&self);
  util_meddler_run (&self.meddler, priority);
  then (&self, next);

  if (self.hold != 0)
    bg_loop_release (self.loop, self.hold);
  util_loop_end (self.loop);
  g_clear_pointer (&self.operation, bg_operation_unref);
  g_object_unref (self.result);
  util_latch_clear (&self.begun);
  util_meddler_clear (&self.meddler);
  util_latch_clear (&self.ran);
}

/* The meddler comes before the loop's own sources, beside and after them. */
static void
run_all (guint depth)
{
  static const int priorities[] = { G_PRIORITY_HIGH, G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

  for (Event event = 0; event < N_EVENTS; event++)
    {
      for (guint i = 0; i < UTIL_N_MOMENTS * G_N_ELEMENTS (priorities) * N_NEXT; i++)
        run (event, i % UTIL_N_MOMENTS, priorities[i / UTIL_N_MOMENTS % G_N_ELEMENTS (priorities)],
             depth, i / UTIL_N_MOMENTS / G_N_ELEMENTS (priorities));
    }
}

static void
test_outermost (void)
{
  run_all (0);
}

static void
test_nested (void)
{
  run_all (1);
}

static void
test_nested_twice (void)
{
  run_all (2);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  /* What is wrong here would hang. */
  util_add_trapped ("/wakeup/outermost", test_outermost);
  util_add_trapped ("/wakeup/nested", test_nested);
  util_add_trapped ("/wakeup/nested/twice", test_nested_twice);

  return g_test_run ();
}
