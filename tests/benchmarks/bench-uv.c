/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <stdlib.h>

#include <uv.h>

/* libuv: as its guide says, a queue of one's own under a lock, and an async
 * handle, which coalesces, to say that there is something in it. */

typedef struct
{
  BenchFunc func;
  void *data;
} Item;

typedef struct
{
  Item *items;
  size_t n, size;
} Queue;

typedef struct
{
  uv_loop_t uv;
  uv_async_t async;
  uv_thread_t thread;

  /* the loop's thread only */
  Queue batch;

  uv_mutex_t lock;

  /* under lock */
  Queue queue;
  bool ends;
} Loop;

static void
async_cb (uv_async_t *async)
{
  Loop *self = async->data;
  Queue batch = self->batch;
  bool ends;

  uv_mutex_lock (&self->lock);
  self->batch = self->queue;
  self->queue = batch;
  ends = self->ends;
  uv_mutex_unlock (&self->lock);

  for (size_t i = 0; i < self->batch.n; i++)
    self->batch.items[i].func (self->batch.items[i].data);
  self->batch.n = 0;

  if (ends)
    uv_close ((uv_handle_t *) &self->async, NULL);
}

static void
push (Queue *queue, BenchFunc func, void *data)
{
  if (queue->n == queue->size)
    {
      queue->size = queue->size > 0 ? 2 * queue->size : 64;
      queue->items = realloc (queue->items, queue->size * sizeof *queue->items);
    }

  queue->items[queue->n++] = (Item){ func, data };
}

static void
post (void *loop, BenchFunc func, void *data)
{
  Loop *self = loop;

  uv_mutex_lock (&self->lock);
  push (&self->queue, func, data);
  uv_mutex_unlock (&self->lock);
  uv_async_send (&self->async);
}

static void
run (void *data)
{
  uv_run (data, UV_RUN_DEFAULT);
}

static Loop *
make (void)
{
  Loop *self = calloc (1, sizeof *self);

  uv_loop_init (&self->uv);
  uv_mutex_init (&self->lock);
  uv_async_init (&self->uv, &self->async, async_cb);
  self->async.data = self;
  return self;
}

static void
destroy (Loop *self)
{
  if (uv_loop_close (&self->uv) != 0)
    bench_fail ("something is left in the loop");
  uv_mutex_destroy (&self->lock);
  free (self->queue.items);
  free (self->batch.items);
  free (self);
}

static void *
loop_new (void)
{
  Loop *self = make ();

  uv_thread_create (&self->thread, run, &self->uv);
  return self;
}

static void
loop_end (void *loop)
{
  Loop *self = loop;

  uv_mutex_lock (&self->lock);
  self->ends = true;
  uv_mutex_unlock (&self->lock);
  uv_async_send (&self->async);
  uv_thread_join (&self->thread);
  destroy (self);
}

typedef struct
{
  BenchFunc func;
  void *data;
  uv_sem_t done;
} Call;

static int
call_cb (void *data)
{
  Call *self = data;

  self->func (self->data);
  uv_sem_post (&self->done);
  return 0;
}

static void
call (void *loop, BenchFunc func, void *data)
{
  Call self = { .func = func, .data = data };

  uv_sem_init (&self.done, 0);
  post (loop, call_cb, &self);
  uv_sem_wait (&self.done);
  uv_sem_destroy (&self.done);
}

/* Timers belong to the loop's thread. */

typedef struct
{
  uv_timer_t timer;
  Loop *loop;
  unsigned msec;
  BenchFunc func;
  void *data;
} Delay;

static void
closed_cb (uv_handle_t *handle)
{
  free (handle);
}

static void
timer_cb (uv_timer_t *timer)
{
  Delay *self = (Delay *) timer;

  self->func (self->data);
  uv_close ((uv_handle_t *) timer, closed_cb);
}

static int
start_timer_cb (void *data)
{
  Delay *self = data;

  uv_timer_init (&self->loop->uv, &self->timer);
  uv_timer_start (&self->timer, timer_cb, self->msec, 0);
  return 0;
}

static void
post_after (void *loop, unsigned msec, BenchFunc func, void *data)
{
  Delay *self = malloc (sizeof *self);

  self->loop = loop;
  self->msec = msec;
  self->func = func;
  self->data = data;
  post (loop, start_timer_cb, self);
}

/* Replies */

typedef struct
{
  Loop *loop;
  Loop *own;
} Caller;

typedef struct
{
  Loop *own;
  BenchFunc func;
  BenchFunc reply;
  void *data;
} Request;

static void *
caller_new (void *loop)
{
  Caller *self = calloc (1, sizeof *self);

  self->loop = loop;
  self->own = make ();
  return self;
}

static int
reply_cb (void *data)
{
  Request *request = data;
  BenchFunc reply = request->reply;
  void *reply_data = request->data;

  free (request);
  return reply (reply_data);
}

static int
request_cb (void *data)
{
  Request *request = data;

  request->func (request->data);
  post (request->own, reply_cb, request);
  return 0;
}

static void
caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data)
{
  Caller *self = caller;
  Request *request = malloc (sizeof *request);

  *request = (Request){ self->own, func, reply, data };
  post (self->loop, request_cb, request);
}

static void
caller_run (void *caller)
{
  uv_run (&((Caller *) caller)->own->uv, UV_RUN_DEFAULT);
}

static void
caller_quit (void *caller)
{
  uv_stop (&((Caller *) caller)->own->uv);
}

static void
caller_free (void *caller)
{
  Caller *self = caller;

  uv_close ((uv_handle_t *) &self->own->async, NULL);
  uv_run (&self->own->uv, UV_RUN_DEFAULT);
  destroy (self->own);
  free (self);
}

static const BenchSystem uv = {
  .name = "uv",
  .loop_new = loop_new,
  .loop_end = loop_end,
  .post = post,
  .post_after = post_after,
  .call = call,
  .caller_new = caller_new,
  .caller_ask = caller_ask,
  .caller_run = caller_run,
  .caller_quit = caller_quit,
  .caller_free = caller_free,
};

int
main (int argc, char *argv[])
{
  return bench_main (&uv, argc, argv);
}
