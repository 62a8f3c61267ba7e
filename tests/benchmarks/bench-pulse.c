/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <stdlib.h>

#include <pulse/pulseaudio.h>

/* PulseAudio's threaded loop: whoever wants something takes its lock, under which
 * all functions run, too. Its deferred events come in no particular order, so
 * posts are a list under this lock and one event. */

typedef struct _Item Item;

struct _Item
{
  Item *next;
  BenchFunc func;
  void *data;
};

typedef struct
{
  pa_threaded_mainloop *loop;
  pa_mainloop_api *api;
  pa_defer_event *event;

  /* under the loop's lock */
  Item *head;
  Item **tail;
} Loop;

static void
event_cb (pa_mainloop_api *api, pa_defer_event *event, void *data)
{
  Loop *self = data;
  Item *item = self->head;

  self->head = NULL;
  self->tail = &self->head;
  api->defer_enable (event, 0);

  while (item != NULL)
    {
      Item *next = item->next;

      item->func (item->data);
      free (item);
      item = next;
    }
}

static void *
loop_new (void)
{
  Loop *self = calloc (1, sizeof *self);

  self->loop = pa_threaded_mainloop_new ();
  self->api = pa_threaded_mainloop_get_api (self->loop);
  self->event = self->api->defer_new (self->api, event_cb, self);
  self->api->defer_enable (self->event, 0);
  self->tail = &self->head;
  if (pa_threaded_mainloop_start (self->loop) != 0)
    bench_fail ("no thread");
  return self;
}

static void
loop_end (void *loop)
{
  Loop *self = loop;

  pa_threaded_mainloop_stop (self->loop);
  self->api->defer_free (self->event);
  pa_threaded_mainloop_free (self->loop);
  free (self);
}

static void
post_locked (Loop *self, BenchFunc func, void *data)
{
  Item *item = malloc (sizeof *item);

  *item = (Item){ NULL, func, data };
  if (self->head == NULL)
    self->api->defer_enable (self->event, 1);
  *self->tail = item;
  self->tail = &item->next;
}

static void
post (void *loop, BenchFunc func, void *data)
{
  Loop *self = loop;

  pa_threaded_mainloop_lock (self->loop);
  post_locked (self, func, data);
  pa_threaded_mainloop_unlock (self->loop);
}

typedef struct
{
  Loop *loop;
  BenchFunc func;
  void *data;
  bool done;
} Call;

static int
call_cb (void *data)
{
  Call *self = data;

  self->func (self->data);
  self->done = true;
  pa_threaded_mainloop_signal (self->loop->loop, 0);
  return 0;
}

static void
call (void *loop, BenchFunc func, void *data)
{
  Call self = { loop, func, data, false };

  pa_threaded_mainloop_lock (self.loop->loop);
  post_locked (self.loop, call_cb, &self);
  while (!self.done)
    pa_threaded_mainloop_wait (self.loop->loop);
  pa_threaded_mainloop_unlock (self.loop->loop);
}

static const BenchSystem pulse = {
  .name = "pulse",
  .cannot_queue = true,
  .loop_new = loop_new,
  .loop_end = loop_end,
  .post = post,
  .call = call,
};

int
main (int argc, char *argv[])
{
  return bench_main (&pulse, argc, argv);
}
