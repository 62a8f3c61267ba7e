/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench-gio.h"
#include "bench.h"

/* Plain GLib, as people write it by hand. */

typedef struct
{
  GMainContext *context;
  GMainLoop *main_loop;
  GThread *thread;
} Loop;

static gpointer
loop_thread (gpointer data)
{
  Loop *self = data;

  g_main_context_push_thread_default (self->context);
  g_main_loop_run (self->main_loop);
  g_main_context_pop_thread_default (self->context);
  return NULL;
}

static void *
loop_new (void)
{
  Loop *self = g_new0 (Loop, 1);

  self->context = g_main_context_new ();
  self->main_loop = g_main_loop_new (self->context, FALSE);
  self->thread = g_thread_new ("bench", loop_thread, self);
  return self;
}

static gboolean
quit_cb (gpointer data)
{
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

/* Not g_main_context_invoke_full(), which would run the function here if the
 * thread has not started yet: a loop that was just made could not be ended. */
static void
send (Loop *self, int priority, GSourceFunc func, gpointer data)
{
  GSource *source = g_idle_source_new ();

  g_source_set_priority (source, priority);
  g_source_set_callback (source, func, data, NULL);
  g_source_attach (source, self->context);
  g_source_unref (source);
}

static void
loop_end (void *loop)
{
  Loop *self = loop;

  send (self, G_PRIORITY_DEFAULT, quit_cb, self->main_loop);
  g_thread_join (self->thread);
  g_main_loop_unref (self->main_loop);
  g_main_context_unref (self->context);
  g_free (self);
}

static void
post (void *loop, BenchFunc func, void *data)
{
  g_main_context_invoke_full (((Loop *) loop)->context, G_PRIORITY_DEFAULT, func, data, NULL);
}

/* From the loop's own thread, too, where invoking would run it at once. */
static void
post_low (void *loop, BenchFunc func, void *data)
{
  send (loop, G_PRIORITY_LOW, func, data);
}

static void
post_after (void *loop, unsigned msec, BenchFunc func, void *data)
{
  GSource *source = g_timeout_source_new (msec);

  g_source_set_callback (source, func, data, NULL);
  g_source_attach (source, ((Loop *) loop)->context);
  g_source_unref (source);
}

typedef struct
{
  BenchFunc func;
  void *data;

  GMutex lock;
  GCond cond;
  gboolean done;
} Call;

static gboolean
call_cb (gpointer user_data)
{
  Call *self = user_data;

  self->func (self->data);

  g_mutex_lock (&self->lock);
  self->done = TRUE;
  g_cond_signal (&self->cond);
  g_mutex_unlock (&self->lock);
  return G_SOURCE_REMOVE;
}

static void
call (void *loop, BenchFunc func, void *data)
{
  Call self = { func, data };

  g_mutex_init (&self.lock);
  g_cond_init (&self.cond);
  g_main_context_invoke_full (((Loop *) loop)->context, G_PRIORITY_DEFAULT, call_cb, &self, NULL);

  g_mutex_lock (&self.lock);
  while (!self.done)
    g_cond_wait (&self.cond, &self.lock);
  g_mutex_unlock (&self.lock);
  g_cond_clear (&self.cond);
  g_mutex_clear (&self.lock);
}

/* Replies: by a GTask, or, in the variant "invoke", by a second invoke. */

typedef struct
{
  Loop *loop;
  GMainContext *context;
  GMainLoop *main_loop;
} Caller;

static void *
caller_new (void *loop)
{
  Caller *self = g_new0 (Caller, 1);

  self->loop = loop;
  self->context = g_main_context_new ();
  self->main_loop = g_main_loop_new (self->context, FALSE);
  g_main_context_push_thread_default (self->context);
  return self;
}

typedef struct
{
  BenchFunc func;
  BenchFunc reply;
  void *data;
  GMainContext *context;
} Request;

static gboolean
task_cb (gpointer user_data)
{
  GTask *task = user_data;
  Request *request = g_task_get_task_data (task);

  request->func (request->data);
  g_task_return_boolean (task, TRUE);
  return G_SOURCE_REMOVE;
}

static void
task_ready_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  Request *request = g_task_get_task_data (G_TASK (result));

  if (!g_task_propagate_boolean (G_TASK (result), &error))
    bench_fail ("%s", error->message);
  request->reply (request->data);
}

static gboolean
reply_cb (gpointer user_data)
{
  Request *request = user_data;
  BenchFunc reply = request->reply;
  void *data = request->data;

  g_free (request);
  reply (data);
  return G_SOURCE_REMOVE;
}

static gboolean
request_cb (gpointer user_data)
{
  Request *request = user_data;

  request->func (request->data);
  g_main_context_invoke_full (request->context, G_PRIORITY_DEFAULT, reply_cb, request, NULL);
  return G_SOURCE_REMOVE;
}

static void
caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data)
{
  Caller *self = caller;
  Request *request = g_new (Request, 1);
  GTask *task;

  *request = (Request){ func, reply, data, self->context };
  if (g_strcmp0 (bench_variant (), "invoke") == 0)
    {
      g_main_context_invoke_full (self->loop->context, G_PRIORITY_DEFAULT, request_cb, request,
                                  NULL);
      return;
    }

  task = g_task_new (NULL, NULL, task_ready_cb, NULL);
  g_task_set_task_data (task, request, g_free);
  g_main_context_invoke_full (self->loop->context, G_PRIORITY_DEFAULT, task_cb, task,
                              g_object_unref);
}

static void
caller_run (void *caller)
{
  g_main_loop_run (((Caller *) caller)->main_loop);
}

static void
caller_quit (void *caller)
{
  g_main_loop_quit (((Caller *) caller)->main_loop);
}

static void
caller_free (void *caller)
{
  Caller *self = caller;

  g_main_context_pop_thread_default (self->context);
  g_main_loop_unref (self->main_loop);
  g_main_context_unref (self->context);
  g_free (self);
}

static void
watch (void *loop, int fd, BenchFunc func, void *data)
{
  GSource *source = bench_fd_source_new (fd, func, data);

  g_source_attach (source, ((Loop *) loop)->context);
  g_source_unref (source);
}

/* The usual way to block on an asynchronous operation: a context and a loop of
 * one's own, to which the operation's callback, which comes on the loop that the
 * operation lives on, sends the answer. In the variants that say "here" it lives
 * in that private context, and no other thread takes part. */

typedef struct
{
  BenchFunc func;
  void *data;

  GMainContext *context;
  GMainLoop *main_loop;
  GAsyncResult *result;
} Wait;

static void
operation_ready_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Wait *self = user_data;
  /* The one who waits may be gone with it before invoking returns. */
  g_autoptr (GMainContext) context = g_main_context_ref (self->context);

  self->result = g_object_ref (result);
  if (g_main_context_is_owner (context))
    g_main_loop_quit (self->main_loop);
  else
    g_main_context_invoke_full (context, G_PRIORITY_DEFAULT, quit_cb, self->main_loop, NULL);
}

static gboolean
begin_cb (gpointer user_data)
{
  Wait *self = user_data;

  bench_operation_async (self->func, self->data, NULL, operation_ready_cb, self);
  return G_SOURCE_REMOVE;
}

static void
perform (void *loop, BenchFunc func, void *data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GMainLoop) main_loop = g_main_loop_new (context, FALSE);
  g_autoptr (GError) error = NULL;
  Wait self = { func, data, context, main_loop, NULL };

  g_main_context_push_thread_default (context);
  if (bench_variant () == NULL || !g_str_has_prefix (bench_variant (), "here"))
    send (loop, G_PRIORITY_DEFAULT, begin_cb, &self);
  else
    send (&(Loop){ .context = context }, G_PRIORITY_DEFAULT, begin_cb, &self);
  g_main_loop_run (main_loop);
  g_main_context_pop_thread_default (context);

  if (!bench_operation_finish (self.result, &error))
    bench_fail ("%s", error->message);
  g_object_unref (self.result);
}

static const BenchSystem glib = {
  .name = "glib",
  .loop_new = loop_new,
  .loop_end = loop_end,
  .post = post,
  .post_low = post_low,
  .post_after = post_after,
  .call = call,
  .caller_new = caller_new,
  .caller_ask = caller_ask,
  .caller_run = caller_run,
  .caller_quit = caller_quit,
  .caller_free = caller_free,
  .watch = watch,
  .perform = perform,
};

int
main (int argc, char *argv[])
{
  return bench_main (&glib, argc, argv);
}
