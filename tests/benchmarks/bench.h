/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

  /* The workloads are in bench.c, once for all systems. A system is a table of
   * the things that it can do, each the way its own documentation recommends;
   * what it cannot do is NULL, and workloads that need it are skipped.
   *
   * Costs are those of the system alone: no workload allocates or locks anything
   * per operation. */

#define BENCH_NORETURN __attribute__ ((noreturn))

  /* Answers 0, so that it is a GSourceFunc, too. */
  typedef int (*BenchFunc) (void *data);

  typedef struct
  {
    const char *name;

    /* while one function blocks, posting more does, too: the queue is bounded, or
     * functions run under its lock */
    bool cannot_queue;

    /* a loop on a thread of its own; end() returns when the thread is gone */
    void *(*loop_new) (void);
    void (*loop_end) (void *loop);

    void (*post) (void *loop, BenchFunc func, void *data);
    void (*post_low) (void *loop, BenchFunc func, void *data); /* less urgent than post() */
    void (*post_after) (void *loop, unsigned msec, BenchFunc func, void *data);

    /* returns when the function has run there */
    void (*call) (void *loop, BenchFunc func, void *data);

    /* a function there, whose reply comes here, to the loop of the calling thread:
     * reply() may ask again or quit */
    void *(*caller_new) (void *loop);
    void (*caller_ask) (void *caller, BenchFunc func, BenchFunc reply, void *data);
    void (*caller_run) (void *caller);
    void (*caller_quit) (void *caller);
    void (*caller_free) (void *caller);

    /* calls the function there whenever there is something to read */
    void (*watch) (void *loop, int fd, BenchFunc func, void *data);

    /* begins an asynchronous operation that completes at once, and waits for it */
    void (*perform) (void *loop, BenchFunc func, void *data);
  } BenchSystem;

  /* Another way to use the same system: `--variant NAME`, or NULL. */
  const char *bench_variant (void);

  BENCH_NORETURN void bench_fail (const char *format, ...) __attribute__ ((format (printf, 1, 2)));
  BENCH_NORETURN void bench_skip (const char *why);
  int64_t bench_now (void); /* ns */

  int bench_main (const BenchSystem *system, int argc, char *argv[]);

#ifdef __cplusplus
}
#endif
