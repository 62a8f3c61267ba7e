/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench-gio.h"
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include <bgloop/bgloop.h>

/* `--variant linger=N`: that many microseconds */
static void
set_linger (BgLoop *loop)
{
  const char *variant = bench_variant ();

  if (variant == NULL || !g_str_has_prefix (variant, "linger="))
    return;
  if (g_object_class_find_property (G_OBJECT_GET_CLASS (loop), "linger") == NULL)
    bench_skip ("no such property");

  g_object_set (loop, "linger", atoi (variant + strlen ("linger=")), NULL);
}

static void *
loop_new (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = bg_loop_new ("bench", &error);

  if (loop == NULL)
    bench_fail ("%s", error->message);

  set_linger (loop);
  return loop;
}

static void
loop_end (void *loop)
{
  g_autoptr (GError) error = NULL;

  if (!bg_loop_shutdown (loop, &error))
    bench_fail ("%s", error->message);
  g_object_unref (loop);
}

static void
post (void *loop, BenchFunc func, void *data)
{
  bg_loop_post (loop, (BgPostFunc) G_CALLBACK (func), data, NULL);
}

static void
post_low (void *loop, BenchFunc func, void *data)
{
  bg_loop_post_full (loop, G_PRIORITY_LOW, (BgPostFunc) G_CALLBACK (func), data, NULL);
}

static void
post_after (void *loop, unsigned msec, BenchFunc func, void *data)
{
  bg_loop_post_after (loop, msec, (BgPostFunc) G_CALLBACK (func), data, NULL);
}

typedef struct
{
  BenchFunc func;
  void *data;
} Work;

static gboolean
call_cb (gpointer user_data, GError **error)
{
  Work *work = user_data;

  work->func (work->data);
  return TRUE;
}

static void
call (void *loop, BenchFunc func, void *data)
{
  g_autoptr (GError) error = NULL;
  Work work = { func, data };

  if (!bg_loop_call (loop, call_cb, &work, NULL, &error))
    bench_fail ("%s", error->message);
}

/* Replies */

typedef struct
{
  BgLoop *loop;
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
} Request;

static gboolean
request_cb (gpointer user_data, GError **error)
{
  Request *request = user_data;

  request->func (request->data);
  return TRUE;
}

static void
request_ready_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  Request *request = user_data;
  BenchFunc reply = request->reply;
  void *data = request->data;

  if (!bg_loop_call_finish (BG_LOOP (source), result, &error))
    bench_fail ("%s", error->message);

  g_free (request);
  reply (data);
}

static void
caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data)
{
  Caller *self = caller;
  Request *request = g_new (Request, 1);

  *request = (Request){ func, reply, data };
  bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, request_cb, request, NULL, NULL, request_ready_cb, request);
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

  bg_loop_attach (loop, source);
  g_source_unref (source);
}

static gboolean
begin_cb (gpointer user_data, GCancellable *cancellable, GAsyncReadyCallback callback, gpointer callback_data, GError **error)
{
  Work *work = user_data;

  bench_operation_async (work->func, work->data, cancellable, callback, callback_data);
  return TRUE;
}

static void
perform (void *loop, BenchFunc func, void *data)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  Work work = { func, data };

  result = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, begin_cb, &work, NULL, &error);
  if (result == NULL || !bench_operation_finish (result, &error))
    bench_fail ("%s", error->message);
}

static const BenchSystem bgloop = {
  .name = "bgloop",
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
  return bench_main (&bgloop, argc, argv);
}
