/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

/* tokio: see tokio/lib.rs. */

void *bench_tokio_new (void);
void bench_tokio_end (void *loop);
void bench_tokio_post (void *loop, BenchFunc func, void *data);
void bench_tokio_post_after (void *loop, unsigned msec, BenchFunc func, void *data);
void bench_tokio_call (void *loop, BenchFunc func, void *data);
void *bench_tokio_caller_new (void *loop);
void bench_tokio_caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data);
void bench_tokio_caller_run (void *caller);
void bench_tokio_caller_quit (void *caller);
void bench_tokio_caller_free (void *caller);

static const BenchSystem tokio = {
  .name = "tokio",
  .loop_new = bench_tokio_new,
  .loop_end = bench_tokio_end,
  .post = bench_tokio_post,
  .post_after = bench_tokio_post_after,
  .call = bench_tokio_call,
  .caller_new = bench_tokio_caller_new,
  .caller_ask = bench_tokio_caller_ask,
  .caller_run = bench_tokio_caller_run,
  .caller_quit = bench_tokio_caller_quit,
  .caller_free = bench_tokio_caller_free,
};

int
main (int argc, char *argv[])
{
  return bench_main (&tokio, argc, argv);
}
