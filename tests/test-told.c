/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <string.h>

#include <bgloop/inbox/bg-inbox-private.h>

#include "util.h"

/* What a loop goes by when it stays awake for more work has no effect but on times, of which nothing
 * is asserted. So what it is told is looked at in its insides; that it heeds this is for
 * tests/test-linger.c. */

/* The source of a lane leads to it. */
static BgInbox *
find_inbox (BgLoop *loop)
{
  GMainContext *context = bg_loop_get_context (loop);
  GSource *source = NULL;

  for (guint id = 1; source == NULL; id++)
    {
      source = g_main_context_find_source_by_id (context, id);
      if (source != NULL && g_strcmp0 (g_source_get_name (source), "bgloop inbox") != 0)
        source = NULL;
    }
  return ((BgLaneSource *) source)->lane->inbox;
}

static gboolean
keep_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  *(BgOperation **) user_data = bg_operation_ref (operation);
  return TRUE;
}

/* Whoever has a loop may post. */
static void
test_expected (void)
{
  BgLoop *loop = util_loop_new ("told");

  g_assert_cmpint (atomic_load (&find_inbox (loop)->linger.n_expected), ==, 1);
  util_loop_end (loop);
}

/* An operation that has not answered has another source answer it. */
static void
test_pending (void)
{
  BgLoop *loop = util_loop_new ("told");
  BgInbox *inbox = find_inbox (loop);
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);
  BgOperation *operation = NULL;

  bg_loop_perform_operation_async (loop, 0, -1, keep_cb, &operation, NULL, NULL, NULL, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpint (atomic_load (&inbox->linger.n_pending), ==, 1);
  bg_operation_answer (operation, G_ASYNC_RESULT (task));
  bg_operation_unref (operation);
  util_wait_for_holds (loop, 0);
  g_assert_cmpint (atomic_load (&inbox->linger.n_pending), ==, 0);
  util_loop_end (loop);
}

/* The earliest of what is delayed, as long as there is some. */
static void
test_due (void)
{
  BgLoop *loop = util_loop_new ("told");
  BgInbox *inbox = find_inbox (loop);
  gint64 later, sooner;
  guint64 ids[2];

  g_assert_cmpint (atomic_load (&inbox->linger.due_at), ==, -1);
  ids[0] = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, NULL, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  later = atomic_load (&inbox->linger.due_at);
  g_assert_cmpint (later, >, g_get_monotonic_time ());
  ids[1] = bg_loop_post_after (loop, G_MAXINT / 2, util_not_reached_cb, NULL, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  sooner = atomic_load (&inbox->linger.due_at);
  g_assert_cmpint (sooner, <, later);
  g_assert_cmpint (sooner, >, g_get_monotonic_time ());
  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    g_assert_true (bg_loop_withdraw (loop, ids[i]));
  util_loop_end (loop);
}

static gboolean
settle_cb (gpointer user_data, GError **error)
{
  util_settle ();
  return TRUE;
}

/* Whoever is to send the next piece of work was asleep: sooner or later, when the function lets
 * others run, the caller is. */
static void
test_slept (void)
{
  BgLoop *loop = util_loop_new ("told");
  BgInbox *inbox = find_inbox (loop);

  g_object_set (loop, "linger", 0, NULL);
  do
    bg_loop_call (loop, settle_cb, NULL, NULL, NULL);
  while (!atomic_load (&inbox->linger.poster_slept));
  util_loop_end (loop);
}

/* And what it tells: what was withdrawn is not said to be delayed, though it may still be in the
 * insides. */
static void
test_withdrawn (void)
{
  BgLoop *loop = util_loop_new ("told");
  g_autofree char *text = NULL;
  guint64 ids[5];

  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    ids[i] = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, NULL, NULL);
  g_assert_true (bg_loop_withdraw (loop, ids[4]));
  text = bg_loop_describe (loop);
  g_assert_nonnull (strstr (text, "4 delayed"));
  for (guint i = 0; i < 4; i++)
    g_assert_true (bg_loop_withdraw (loop, ids[i]));
  util_loop_end (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/told/that-work-may-come", test_expected);
  g_test_add_func ("/told/that-other-sources-come-first", test_pending);
  g_test_add_func ("/told/what-is-due", test_due);
  g_test_add_func ("/told/that-the-caller-slept", test_slept);
  g_test_add_func ("/told/not-what-was-withdrawn", test_withdrawn);

  return g_test_run ();
}
