/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <pipewire/pipewire.h>

/* PipeWire's threaded loop: pw_loop_invoke() into a ring of a fixed size, with
 * one writer at a time. */

typedef struct
{
  struct pw_thread_loop *loop;
  pthread_mutex_t writer;
} Loop;

typedef struct
{
  BenchFunc func;
  void *data;
} Item;

static int
invoke_cb (struct spa_loop *loop,
           bool async,
           uint32_t seq,
           const void *data,
           size_t size,
           void *user_data)
{
  const Item *item = data;

  return item->func (item->data);
}

static void *
loop_new (void)
{
  Loop *self = calloc (1, sizeof *self);

  pthread_mutex_init (&self->writer, NULL);
  self->loop = pw_thread_loop_new ("bench", NULL);
  if (self->loop == NULL || pw_thread_loop_start (self->loop) != 0)
    bench_fail ("no thread");
  return self;
}

static void
loop_end (void *loop)
{
  Loop *self = loop;

  pw_thread_loop_stop (self->loop);
  pw_thread_loop_destroy (self->loop);
  pthread_mutex_destroy (&self->writer);
  free (self);
}

static void
invoke (Loop *self, BenchFunc func, void *data, bool block)
{
  Item item = { func, data };

  while (pw_loop_invoke (pw_thread_loop_get_loop (self->loop), invoke_cb, 0, &item, sizeof item,
                         block, NULL)
         < 0)
    sched_yield ();
}

static void
post (void *loop, BenchFunc func, void *data)
{
  Loop *self = loop;

  pthread_mutex_lock (&self->writer);
  invoke (self, func, data, false);
  pthread_mutex_unlock (&self->writer);
}

/* Who blocks holds the loop's lock, which it lets go meanwhile. */
static void
call (void *loop, BenchFunc func, void *data)
{
  Loop *self = loop;

  pthread_mutex_lock (&self->writer);
  pw_thread_loop_lock (self->loop);
  invoke (self, func, data, true);
  pw_thread_loop_unlock (self->loop);
  pthread_mutex_unlock (&self->writer);
}

static const BenchSystem pipewire = {
  .name = "pipewire",
  .cannot_queue = true,
  .loop_new = loop_new,
  .loop_end = loop_end,
  .post = post,
  .call = call,
};

int
main (int argc, char *argv[])
{
  /* it would say each time that the ring is full */
  setenv ("PIPEWIRE_DEBUG", "0", 1);
  pw_init (&argc, &argv);
  return bench_main (&pipewire, argc, argv);
}
