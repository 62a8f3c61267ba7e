/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* What a task's function has begun on the loop may come back when the loop has ended: into a context
 * that is still there for it, and that goes after it. */

typedef struct
{
  GTask *inner; /* (owned) */
} Late;

static void
ignore_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
}

static void
begin_inner_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  Late *self = task_data;

  self->inner = g_task_new (NULL, NULL, ignore_cb, NULL);
  g_task_return_boolean (task, TRUE);
}

static void
run_late_task (void)
{
  BgLoop *loop = util_loop_new ("late");
  Late self = { NULL };
  UtilReply reply;
  GTask *task;

  util_reply_init (&reply);
  task = g_task_new (NULL, NULL, util_reply_cb, &reply);
  g_task_set_task_data (task, &self, NULL);
  bg_loop_run_task (loop, G_PRIORITY_DEFAULT, task, begin_inner_cb);
  g_object_unref (task);
  util_reply_wait (&reply);
  util_reply_clear (&reply);
  util_loop_end (loop);

  g_task_return_boolean (self.inner, TRUE);
  g_object_unref (self.inner);
}

/* The context and its descriptor go with the next loop: there are never more of them. */
static void
test_task (void)
{
  guint n_after_one;

  run_late_task ();
  run_late_task ();
  n_after_one = util_count_eventfds ();
  for (guint i = 0; i < 10; i++)
    run_late_task ();
  g_assert_cmpuint (util_count_eventfds (), <=, n_after_one);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/late/task", test_task);

  return g_test_run ();
}
