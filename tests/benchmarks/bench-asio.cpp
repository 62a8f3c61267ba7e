/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <asio.hpp>

#include <chrono>
#include <future>
#include <memory>
#include <thread>

/* Asio: an io_context that one thread runs, kept going by a work guard. */

namespace
{

struct Loop
{
  asio::io_context context{ 1 };
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard (context);
  std::thread thread;
};

struct Caller
{
  Loop *loop;
  Loop own;
};

void *
loop_new ()
{
  auto self = new Loop;

  self->thread = std::thread ([self] { self->context.run (); });
  return self;
}

void
loop_end (void *loop)
{
  auto self = static_cast<Loop *> (loop);

  self->work.reset ();
  self->thread.join ();
  delete self;
}

void
post (void *loop, BenchFunc func, void *data)
{
  asio::post (static_cast<Loop *> (loop)->context, [func, data] { func (data); });
}

void
post_after (void *loop, unsigned msec, BenchFunc func, void *data)
{
  auto timer = std::make_shared<asio::steady_timer> (static_cast<Loop *> (loop)->context,
                                                     std::chrono::milliseconds (msec));

  timer->async_wait ([timer, func, data] (const asio::error_code &) { func (data); });
}

void
call (void *loop, BenchFunc func, void *data)
{
  asio::dispatch (static_cast<Loop *> (loop)->context,
                  asio::use_future ([func, data] { func (data); }))
      .get ();
}

void *
caller_new (void *loop)
{
  auto self = new Caller;

  self->loop = static_cast<Loop *> (loop);
  return self;
}

void
caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data)
{
  auto self = static_cast<Caller *> (caller);

  asio::post (self->loop->context, [self, func, reply, data] {
    func (data);
    asio::post (self->own.context, [reply, data] { reply (data); });
  });
}

void
caller_run (void *caller)
{
  auto self = static_cast<Caller *> (caller);

  self->own.context.restart ();
  self->own.context.run ();
}

void
caller_quit (void *caller)
{
  static_cast<Caller *> (caller)->own.context.stop ();
}

void
caller_free (void *caller)
{
  delete static_cast<Caller *> (caller);
}

} // namespace

int
main (int argc, char *argv[])
{
  BenchSystem system = {};

  system.name = "asio";
  system.loop_new = loop_new;
  system.loop_end = loop_end;
  system.post = post;
  system.post_after = post_after;
  system.call = call;
  system.caller_new = caller_new;
  system.caller_ask = caller_ask;
  system.caller_run = caller_run;
  system.caller_quit = caller_quit;
  system.caller_free = caller_free;
  return bench_main (&system, argc, argv);
}
