/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The limit: a thread, a lock-free queue and a futex, and nothing else that a
 * loop has: no descriptors, no timers, no priorities, no cancellation, no
 * orderly end. In the variant "spin" nobody ever sleeps.
 *
 * The queue is Vyukov's: producers exchange the tail and link the node behind
 * the previous one, the one consumer follows the links. Nodes come from blocks
 * that one producer fills and the consumers give back to it whole; it takes all
 * that were given back at once, so that none can be taken twice. What a thread
 * has left in the end is lost: a benchmark may. */

#define BLOCK_NODES 500
#define CACHE_LINE  64

typedef struct _Node Node;
typedef struct _Block Block;

struct _Node
{
  _Atomic (Node *) next;
  Block *block;
  BenchFunc func;
  void *data;
};

typedef struct
{
  _Atomic (Block *) returned;
} Producer;

struct _Block
{
  Producer *producer;
  Block *next;
  unsigned used;    /* producer */
  atomic_uint done; /* consumers */
  Node nodes[BLOCK_NODES];
};

typedef struct
{
  _Alignas(CACHE_LINE) _Atomic (Node *) tail;
  _Alignas(CACHE_LINE) atomic_int asleep;

  /* consumer */
  _Alignas(CACHE_LINE) Node *head;
  Block *counted; /* whose nodes were done last, and how many */
  unsigned n_counted;
  bool ends;
  Node first;
  pthread_t thread;
} Loop;

static _Thread_local struct
{
  Producer *producer;
  Block *block;
  Block *spare;
} magazine;

static bool spins;

static void
futex_wait (atomic_int *word, int value)
{
  syscall (SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void
futex_wake (atomic_int *word)
{
  syscall (SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void
relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause ();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static Block *
take_block (void)
{
  Block *block = magazine.spare;

  if (magazine.producer == NULL)
    magazine.producer = calloc (1, sizeof *magazine.producer);
  if (block == NULL)
    block = atomic_exchange_explicit (&magazine.producer->returned, NULL, memory_order_acquire);
  if (block == NULL)
    block = calloc (1, sizeof *block);

  magazine.spare = block->next;
  block->producer = magazine.producer;
  block->used = 0;
  atomic_store_explicit (&block->done, 0, memory_order_relaxed);
  return block;
}

static void
return_block (Block *block)
{
  Producer *producer = block->producer;

  block->next = atomic_load_explicit (&producer->returned, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit (&producer->returned, &block->next, block,
                                                 memory_order_release, memory_order_relaxed))
    ;
}

static Node *
take_node (void)
{
  Node *node;

  if (magazine.block == NULL || magazine.block->used == BLOCK_NODES)
    magazine.block = take_block ();

  node = &magazine.block->nodes[magazine.block->used++];
  node->block = magazine.block;
  return node;
}

static void
count_done (Loop *self, Block *block)
{
  if (block != self->counted || self->n_counted == BLOCK_NODES)
    {
      Block *counted = self->counted;
      unsigned n = self->n_counted;

      if (counted != NULL
          && atomic_fetch_add_explicit (&counted->done, n, memory_order_acq_rel) + n == BLOCK_NODES)
        return_block (counted);
      self->counted = block;
      self->n_counted = 0;
    }

  self->n_counted++;
}

static void
post (void *loop, BenchFunc func, void *data)
{
  Loop *self = loop;
  Node *node = take_node ();
  Node *previous;

  node->func = func;
  node->data = data;
  atomic_store_explicit (&node->next, NULL, memory_order_relaxed);
  previous = atomic_exchange (&self->tail, node);
  atomic_store (&previous->next, node);

  if (atomic_load (&self->asleep) && atomic_exchange (&self->asleep, 0))
    futex_wake (&self->asleep);
}

static Node *
wait_for (Loop *self)
{
  Node *next;

  for (;;)
    {
      next = atomic_load_explicit (&self->head->next, memory_order_acquire);
      if (next != NULL)
        return next;
      if (spins)
        {
          relax ();
          continue;
        }

      atomic_store (&self->asleep, 1);
      if (atomic_load (&self->head->next) == NULL)
        futex_wait (&self->asleep, 1);
      atomic_store (&self->asleep, 0);
    }
}

static void *
run (void *data)
{
  Loop *self = data;

  while (!self->ends)
    {
      Node *node = wait_for (self);

      /* The node before is done with only now, since its link was followed. */
      count_done (self, self->head->block);
      self->head = node;
      node->func (node->data);
    }

  return NULL;
}

static void *
loop_new (void)
{
  Loop *self = aligned_alloc (CACHE_LINE, sizeof *self);

  spins = bench_variant () != NULL;
  self->head = &self->first;
  self->head->block = NULL;
  self->counted = NULL;
  self->n_counted = 0;
  self->ends = false;
  atomic_init (&self->head->next, NULL);
  atomic_init (&self->tail, self->head);
  atomic_init (&self->asleep, 0);
  pthread_create (&self->thread, NULL, run, self);
  return self;
}

static int
end_cb (void *data)
{
  ((Loop *) data)->ends = true;
  return 0;
}

static void
loop_end (void *loop)
{
  Loop *self = loop;

  post (self, end_cb, self);
  pthread_join (self->thread, NULL);
  free (self);
}

typedef struct
{
  BenchFunc func;
  void *data;
  atomic_int waits;
} Call;

static int
call_cb (void *data)
{
  Call *self = data;
  atomic_int *waits = &self->waits;

  self->func (self->data);
  if (atomic_exchange (waits, 0) == 2)
    futex_wake (waits);
  return 0;
}

static void
call (void *loop, BenchFunc func, void *data)
{
  Call self = { func, data, 1 };
  int waits = 1;

  post (loop, call_cb, &self);
  if (spins)
    {
      while (atomic_load_explicit (&self.waits, memory_order_acquire))
        relax ();
      return;
    }

  atomic_compare_exchange_strong (&self.waits, &waits, 2);
  while (atomic_load_explicit (&self.waits, memory_order_acquire) != 0)
    futex_wait (&self.waits, 2);
}

/* Replies: the caller is another loop, which runs on this thread. */

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
  self->own = loop_new ();
  post (self->own, end_cb, self->own);
  pthread_join (self->own->thread, NULL);
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
  Caller *self = caller;

  self->own->ends = false;
  run (self->own);
}

static void
caller_quit (void *caller)
{
  ((Caller *) caller)->own->ends = true;
}

static void
caller_free (void *caller)
{
  Caller *self = caller;

  free (self->own);
  free (self);
}

static const BenchSystem bare = {
  .name = "bare",
  .loop_new = loop_new,
  .loop_end = loop_end,
  .post = post,
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
  return bench_main (&bare, argc, argv);
}
