/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>

#include "util.h"

/* From a handler of "cancelled" everything can be asked for, of any loop, also with the
 * very cancellable that is being cancelled. */

/* Since GLib 2.82 a cancellable's own lock is held while its handlers run, and whoever
 * connects or disconnects takes it. Here it is so with every GLib, if asked for: these
 * functions of the program's stand before the library's. */

static gboolean locks;

static GMutex *
get_lock (GCancellable *cancellable)
{
  static GMutex lock;
  static GQuark quark;
  GMutex *own;

  g_mutex_lock (&lock);
  if (quark == 0)
    quark = g_quark_from_static_string ("test-lock");
  own = g_object_get_qdata (G_OBJECT (cancellable), quark);
  if (own == NULL)
    {
      own = g_new0 (GMutex, 1);
      g_object_set_qdata_full (G_OBJECT (cancellable), quark, own, g_free);
    }
  g_mutex_unlock (&lock);
  return own;
}

static void
lock (GCancellable *cancellable)
{
  if (locks && cancellable != NULL)
    g_mutex_lock (get_lock (cancellable));
}

static void
unlock (GCancellable *cancellable)
{
  if (locks && cancellable != NULL)
    g_mutex_unlock (get_lock (cancellable));
}

#define NEXT(name) ((__typeof__ (name) *) dlsym (RTLD_NEXT, #name))

void
g_cancellable_cancel (GCancellable *cancellable)
{
  if (cancellable == NULL || g_cancellable_is_cancelled (cancellable))
    return;

  g_object_ref (cancellable);
  lock (cancellable);
  NEXT (g_cancellable_cancel) (cancellable);
  unlock (cancellable);
  g_object_unref (cancellable);
}

gulong
g_cancellable_connect (GCancellable *cancellable,
                       GCallback callback,
                       gpointer data,
                       GDestroyNotify destroy)
{
  gulong id;

  lock (cancellable);
  id = NEXT (g_cancellable_connect) (cancellable, callback, data, destroy);
  unlock (cancellable);
  return id;
}

void
g_cancellable_disconnect (GCancellable *cancellable, gulong id)
{
  lock (cancellable);
  NEXT (g_cancellable_disconnect) (cancellable, id);
  unlock (cancellable);
}

void
g_cancellable_reset (GCancellable *cancellable)
{
  lock (cancellable);
  NEXT (g_cancellable_reset) (cancellable);
  unlock (cancellable);
}

/* The functions above are those that the library calls, too. */
static void
test_in_place (void)
{
  Dl_info info;
  gpointer found = dlsym (RTLD_DEFAULT, "g_cancellable_cancel");

  g_assert_true (found == (gpointer) g_cancellable_cancel);
  g_assert_cmpint (dladdr (found, &info), !=, 0);
  g_assert_nonnull (strstr (info.dli_fname, "test-handler"));
}

/* What is asked for in a handler */

typedef struct _Handler Handler;

typedef struct
{
  const char *name;
  void (*start) (Handler *self, BgLoop *loop, GCancellable *cancellable);
  gboolean (*finish) (Handler *self, BgLoop *loop, GError **error);
  gboolean ends; /* the loop */
} Action;

struct _Handler
{
  const Action *action;
  BgLoop *target;
  gboolean passes_on; /* its cancellable */
  guint n_handled;

  /* the outcome */
  gboolean ok;
  GError *error;
  UtilReply reply;

  /* an operation whose cancellable is handled */
  UtilLatch begun;
  GAsyncReadyCallback callback;
  gpointer callback_data;
  GCancellable *cancellable;
};

static gboolean
finish_blocking (Handler *self, BgLoop *loop, GError **error)
{
  if (self->error != NULL)
    g_propagate_error (error, g_steal_pointer (&self->error));
  return self->ok;
}

static void
start_call (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  self->ok = bg_loop_call (loop, util_true_cb, NULL, cancellable, &self->error);
}

static void
start_perform (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  g_autoptr (GAsyncResult) result
      = bg_loop_perform (loop, 0, -1, util_begin_cb, NULL, cancellable, &self->error);

  self->ok = result != NULL;
}

static void
start_operation (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  g_autoptr (GAsyncResult) result
      = bg_loop_perform_operation (loop, 0, -1, util_operation_cb, NULL, cancellable, &self->error);

  self->ok = result != NULL;
}

static void
start_flush (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  self->ok = bg_loop_flush (loop, -1, cancellable, &self->error);
}

static void
start_shutdown (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  self->ok = bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, -1, cancellable, &self->error);
}

static void
start_shutdown_cancel (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  self->ok
      = bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, 3600 * 1000, cancellable, &self->error);
}

static void
start_wait (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  if (cancellable == NULL)
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  self->ok = bg_loop_wait (loop, -1, cancellable, &self->error);
}

static void
start_call_async (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  bg_loop_call_async (loop, 0, -1, util_true_cb, NULL, NULL, cancellable, util_reply_cb,
                      &self->reply);
}

static gboolean
finish_call (Handler *self, BgLoop *loop, GError **error)
{
  return bg_loop_call_finish (loop, self->reply.result, error);
}

static void
start_perform_async (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  bg_loop_perform_async (loop, 0, -1, util_begin_cb, NULL, NULL, cancellable, util_reply_cb,
                         &self->reply);
}

static void
start_operation_async (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  bg_loop_perform_operation_async (loop, 0, -1, util_operation_cb, NULL, NULL, cancellable,
                                   util_reply_cb, &self->reply);
}

static gboolean
finish_perform (Handler *self, BgLoop *loop, GError **error)
{
  g_autoptr (GAsyncResult) result = bg_loop_perform_finish (loop, self->reply.result, error);

  return result != NULL;
}

static void
start_shutdown_async (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, -1, cancellable, util_reply_cb, &self->reply);
}

static gboolean
finish_shutdown (Handler *self, BgLoop *loop, GError **error)
{
  return bg_loop_shutdown_finish (loop, self->reply.result, error);
}

static void
start_wait_async (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  bg_loop_wait_async (loop, -1, cancellable, util_reply_cb, &self->reply);
  if (cancellable == NULL)
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
}

static gboolean
finish_wait (Handler *self, BgLoop *loop, GError **error)
{
  return bg_loop_wait_finish (loop, self->reply.result, error);
}

static void
start_task (Handler *self, BgLoop *loop, GCancellable *cancellable)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, util_reply_cb, &self->reply);

  bg_loop_run_task (loop, 0, task, util_return_true_cb);
}

static gboolean
finish_task (Handler *self, BgLoop *loop, GError **error)
{
  return g_task_propagate_boolean (G_TASK (self->reply.result), error);
}

static const Action actions[] = {
  { "call", start_call, finish_blocking },
  { "perform", start_perform, finish_blocking },
  { "operation", start_operation, finish_blocking },
  { "flush", start_flush, finish_blocking },
  { "shutdown", start_shutdown, finish_blocking, TRUE },
  { "shutdown-cancel", start_shutdown_cancel, finish_blocking, TRUE },
  { "wait", start_wait, finish_blocking, TRUE },
  { "call-async", start_call_async, finish_call },
  { "perform-async", start_perform_async, finish_perform },
  { "operation-async", start_operation_async, finish_perform },
  { "shutdown-async", start_shutdown_async, finish_shutdown, TRUE },
  { "wait-async", start_wait_async, finish_wait, TRUE },
  { "run-task", start_task, finish_task },
};

static void
handler_init (Handler *self, const Action *action, BgLoop *target, gboolean passes_on)
{
  *self = (Handler){ .action = action, .target = target, .passes_on = passes_on };
  util_reply_init (&self->reply);
  util_latch_init (&self->begun, 1);
}

static void
handler_clear (Handler *self)
{
  g_assert_cmpuint (self->n_handled, ==, 1);
  g_clear_error (&self->error);
  g_clear_object (&self->cancellable);
  util_reply_clear (&self->reply);
  util_latch_clear (&self->begun);
}

static void
handler_cb (GCancellable *cancellable, gpointer user_data)
{
  Handler *self = user_data;

  self->n_handled++;
  self->action->start (self, self->target, self->passes_on ? cancellable : NULL);
}

/* In the thread whose context gets the reply, or for one that a loop gets. */
static gboolean
finish (Handler *self, gboolean here, GError **error)
{
  if (self->action->finish != finish_blocking && here)
    util_reply_wait (&self->reply);
  else if (self->action->finish != finish_blocking)
    util_latch_wait (&self->reply.arrived);
  return self->action->finish (self, self->target, error);
}

static void
assert_outcome (Handler *self, gboolean here)
{
  g_autoptr (GError) error = NULL;
  gboolean ok = finish (self, here, &error);

  if (self->passes_on)
    {
      g_assert_false (ok);
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    }
  else
    {
      g_assert_true (ok);
      g_assert_no_error (error);
    }
}

/* Of a cancellable of the caller's, that others use, too */

static void
run_callers (const Action *action, gboolean passes_on, gboolean on_a_loop)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgLoop *loop = util_loop_new ("loop"), *target = util_loop_new ("target");
  Handler self;
  UtilReply other;
  UtilBlock block;

  handler_init (&self, action, target, passes_on);
  util_block (&block, loop);
  util_reply_init (&other);
  bg_loop_perform_async (loop, 0, -1, util_begin_cb, NULL, NULL, cancellable, util_reply_cb,
                         &other);
  g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_cb), &self);
  if (on_a_loop)
    {
      util_unblock (&block);
      util_reply_wait (&other);
      g_assert_true (bg_loop_call (loop, util_cancel_call_cb, cancellable, NULL, NULL));
    }
  else
    {
      g_cancellable_cancel (cancellable);
      util_unblock (&block);
      util_reply_wait (&other);
    }
  assert_outcome (&self, !on_a_loop);

  handler_clear (&self);
  util_reply_clear (&other);
  util_loop_end (loop);
  util_loop_end (target);
  util_block_clear (&block);
}

/* Of an operation's */

static gboolean
begin_handled_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  Handler *self = user_data;

  self->callback = callback;
  self->callback_data = callback_data;
  self->cancellable = g_object_ref (cancellable);
  g_cancellable_connect (cancellable, G_CALLBACK (handler_cb), self, NULL);
  util_latch_count_down (&self->begun);
  return TRUE;
}

static gpointer
cancel_thread (gpointer user_data)
{
  gpointer *data = user_data;

  util_latch_wait (data[0]);
  g_cancellable_cancel (data[1]);
  return NULL;
}

static void
perform_cancelled (Handler *self, BgLoop *loop, GCancellable *cancellable, gboolean blocks)
{
  gpointer data[] = { &self->begun, cancellable };
  g_autoptr (GError) error = NULL;
  GThread *thread;
  UtilReply reply;

  if (blocks)
    {
      thread = g_thread_new ("cancel", cancel_thread, data);
      g_assert_null (bg_loop_perform (loop, 0, -1, begin_handled_cb, self, cancellable, &error));
      g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      g_thread_join (thread);
      return;
    }

  util_reply_init (&reply);
  bg_loop_perform_async (loop, 0, -1, begin_handled_cb, self, NULL, cancellable, util_reply_cb,
                         &reply);
  util_latch_wait (&self->begun);
  g_cancellable_cancel (cancellable);
  util_reply_wait (&reply);
  g_assert_null (bg_loop_perform_finish (loop, reply.result, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  util_reply_clear (&reply);
}

static void
run_operations (const Action *action, gboolean passes_on, gboolean blocks)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgLoop *loop = util_loop_new ("loop"), *target = util_loop_new ("target");
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);
  Handler self;

  handler_init (&self, action, target, passes_on);
  perform_cancelled (&self, loop, cancellable, blocks);
  assert_outcome (&self, TRUE);
  self.callback (NULL, G_ASYNC_RESULT (task), self.callback_data);
  handler_clear (&self);
  util_loop_end (loop);
  util_loop_end (target);
}

/* Of the loop's own: another loop is asked, or this one, which takes nothing now */

static void
assert_refused (Handler *self, gboolean here)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (finish (self, here, &error));
  if (self->passes_on && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (!g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

static void
run_loops (const Action *action, gboolean passes_on, gboolean on_the_loop, gboolean of_itself)
{
  BgLoop *loop = util_loop_new ("loop"), *other = util_loop_new ("other");
  GCancellable *cancellable = g_object_ref (bg_loop_get_cancellable (loop));
  Handler self;

  handler_init (&self, action, of_itself ? loop : other, passes_on);
  g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_cb), &self);
  if (on_the_loop)
    {
      g_assert_true (bg_loop_post (loop, util_quit_cancel_cb, loop, NULL));
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
    }
  else
    {
      bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
    }
  if (of_itself)
    assert_refused (&self, !on_the_loop);
  else if (!on_the_loop || action->finish == finish_blocking)
    assert_outcome (&self, TRUE);

  /* A reply to the loop that ends is told that there will be none, or comes first. */
  handler_clear (&self);
  util_loop_end (loop);
  util_loop_end (other);
  g_object_unref (cancellable);
}

/* Each in turn */

static void
test_callers (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (actions) * 4; i++)
    run_callers (&actions[i / 4], i % 2, i / 2 % 2);
}

static void
test_operations (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (actions) * 4; i++)
    run_operations (&actions[i / 4], i % 2, i / 2 % 2);
}

static void
test_loops (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (actions) * 4; i++)
    run_loops (&actions[i / 4], i % 2, i / 2 % 2, FALSE);
}

/* What waits for the end of the loop is refused where it blocks; asynchronously it may
 * wait, but not on the loop's own thread. There a call is a plain function call. */
static void
test_loops_itself (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (actions) * 4; i++)
    {
      const Action *action = &actions[i / 4];
      gboolean on_the_loop = i / 2 % 2;

      if (on_the_loop ? action->start != start_call
                      : !action->ends || action->finish == finish_blocking)
        run_loops (action, i % 2, on_the_loop, TRUE);
    }
}

/* What says only whether it was taken */

static void
give_cb (GCancellable *cancellable, gpointer user_data)
{
  BgLoop *loop = user_data;
  gboolean taken = bg_loop_post (loop, util_nothing_cb, NULL, NULL);
  BgLoop *fresh = util_loop_new ("in a handler");

  g_assert_true (bg_loop_invoke (loop, util_remove_cb, NULL) == taken);
  g_assert_true ((bg_loop_post_after (loop, 0, util_nothing_cb, NULL, NULL) != 0) == taken);
  g_assert_true (taken == (bg_loop_get_cancellable (loop) != cancellable));
  util_loop_end (fresh);
}

static void
test_give (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  BgLoop *loop = util_loop_new ("loop");
  GCancellable *own = bg_loop_get_cancellable (loop);
  gulong id;

  g_signal_connect (cancellable, "cancelled", G_CALLBACK (give_cb), loop);
  g_cancellable_cancel (cancellable);
  id = g_signal_connect (own, "cancelled", G_CALLBACK (give_cb), loop);
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  g_signal_handler_disconnect (own, id);
  util_loop_end (loop);
}

/* With locks or without */

#define BOTH(name)                                                                                 \
  static void name##_locked (void)                                                                 \
  {                                                                                                \
    locks = TRUE;                                                                                  \
    name ();                                                                                       \
  }

BOTH (test_callers)
BOTH (test_operations)
BOTH (test_loops)
BOTH (test_loops_itself)
BOTH (test_give)

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/handler/functions-are-in-place", test_in_place);

  /* What is wrong here would hang. */
  util_add_trapped ("/handler/callers", test_callers);
  util_add_trapped ("/handler/callers/locked", test_callers_locked);
  util_add_trapped ("/handler/operations", test_operations);
  util_add_trapped ("/handler/operations/locked", test_operations_locked);
  util_add_trapped ("/handler/loops/asks-another", test_loops);
  util_add_trapped ("/handler/loops/asks-another/locked", test_loops_locked);
  util_add_trapped ("/handler/loops/asks-itself", test_loops_itself);
  util_add_trapped ("/handler/loops/asks-itself/locked", test_loops_itself_locked);
  util_add_trapped ("/handler/gives-work", test_give);
  util_add_trapped ("/handler/gives-work/locked", test_give_locked);

  return g_test_run ();
}
