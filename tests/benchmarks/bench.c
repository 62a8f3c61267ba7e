/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE

#include "bench.h"

#include <dirent.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC  INT64_C (1000000000)
#define NSEC_PER_MSEC INT64_C (1000000)
#define NSEC_PER_USEC INT64_C (1000)

#define MAX_PRODUCERS 64
#define MAX_LOOPS     200

static const BenchSystem *sys;
static const char *workload;

static struct
{
  unsigned count;
  double seconds;
  unsigned producers;
  unsigned depth;
  unsigned loops;
  unsigned busy;
  unsigned cpus;
  const char *variant;
} opt = { .producers = 1, .depth = 1, .loops = 1 };

/* Tools */

const char *
bench_variant (void)
{
  return opt.variant;
}

void
bench_fail (const char *format, ...)
{
  va_list args;

  fprintf (stderr, "%s %s: ", sys->name, workload);
  va_start (args, format);
  vfprintf (stderr, format, args);
  va_end (args);
  fputc ('\n', stderr);
  fflush (NULL);
  _exit (1);
}

void
bench_skip (const char *why)
{
  printf ("{\"system\": \"%s\", \"workload\": \"%s\", \"skipped\": \"%s\"}\n", sys->name, workload,
          why);
  fflush (NULL);
  _exit (0);
}

static void
need (bool available)
{
  if (!available)
    bench_skip ("nothing of the kind");
}

int64_t
bench_now (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static void
sleep_until (int64_t when)
{
  struct timespec until = { when / NSEC_PER_SEC, when % NSEC_PER_SEC };

  while (clock_nanosleep (CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
    ;
}

/* Processor time of the whole process, ns. */
static int64_t
cpu_now (void)
{
  struct timespec now;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* A number of the process's status, in the unit that is used there. */
static int64_t
read_status (const char *path, const char *key)
{
  FILE *file = fopen (path, "r");
  char line[256];
  long long value = 0;

  while (file != NULL && fgets (line, sizeof line, file) != NULL)
    {
      if (strncmp (line, key, strlen (key)) == 0)
        sscanf (line + strlen (key), ": %lld", &value);
    }

  if (file != NULL)
    fclose (file);
  return value;
}

/* How often the process's other threads have gone to sleep so far. */
static int64_t
count_sleeps (void)
{
  DIR *dir = opendir ("/proc/self/task");
  struct dirent *entry;
  int64_t sum = 0;
  char path[300];

  while (dir != NULL && (entry = readdir (dir)) != NULL)
    {
      if (entry->d_name[0] == '.' || atoi (entry->d_name) == getpid ())
        continue;

      snprintf (path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
      sum += read_status (path, "voluntary_ctxt_switches");
    }

  if (dir != NULL)
    closedir (dir);
  return sum;
}

/* Opened once, for those who wait for the end of something. */
typedef struct
{
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool open;
} Gate;

#define GATE_INIT                                                                                  \
  {                                                                                                \
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false                                     \
  }

static int
gate_open (void *data)
{
  Gate *self = data;

  pthread_mutex_lock (&self->lock);
  self->open = true;
  pthread_cond_broadcast (&self->cond);
  pthread_mutex_unlock (&self->lock);

  return 0;
}

static int
gate_wait (void *data)
{
  Gate *self = data;

  pthread_mutex_lock (&self->lock);
  while (!self->open)
    pthread_cond_wait (&self->cond, &self->lock);
  pthread_mutex_unlock (&self->lock);

  return 0;
}

/* Results */

static int64_t began, cpu_began;

static void
begin (void)
{
  cpu_began = cpu_now ();
  began = bench_now ();
}

static void
report_head (unsigned n)
{
  printf ("{\"system\": \"%s\", \"workload\": \"%s\", \"n\": %u", sys->name, workload, n);
}

/* Ends what begin() began; @n operations were done. */
static void
report_times (unsigned n, int64_t ended)
{
  int64_t cpu_ended = cpu_now ();

  report_head (n);
  printf (", \"ns\": %.2f, \"cpu_ns\": %.2f", (double) (ended - began) / n,
          (double) (cpu_ended - cpu_began) / n);
}

static int
compare (const void *a, const void *b)
{
  int64_t left = *(const int64_t *) a, right = *(const int64_t *) b;

  return (left > right) - (left < right);
}

static void
report_percentiles (const char *prefix, int64_t *samples, unsigned n)
{
  if (n == 0)
    bench_fail ("no samples");

  qsort (samples, n, sizeof *samples, compare);
  printf (", \"%sp50_ns\": %lld, \"%sp99_ns\": %lld, \"%smax_ns\": %lld", prefix,
          (long long) samples[n / 2], prefix, (long long) samples[(uint64_t) n * 99 / 100], prefix,
          (long long) samples[n - 1]);
}

static void
report_end (void)
{
  puts ("}");
}

/* The loop's thread on one processor, everybody else on the other. Some kernels
 * leave threads that wake each other on one, as it happens, and then every figure
 * jumps. A thread starts where the one that makes it is. */

static void
run_on (unsigned cpu)
{
  cpu_set_t set;

  if (opt.cpus > 0 || opt.busy > 0 || sysconf (_SC_NPROCESSORS_ONLN) < 2)
    return;

  CPU_ZERO (&set);
  CPU_SET (cpu, &set);
  if (sched_setaffinity (0, sizeof set, &set) != 0)
    bench_fail ("not on processor %u", cpu);
}

static void *
loop_new_elsewhere (void)
{
  void *loop;

  run_on (1);
  loop = sys->loop_new ();
  run_on (0);
  return loop;
}

/* W1: posts. The data of each says whose it is and which in a row. */

typedef struct
{
  void *loop;
  unsigned index;
  unsigned n;
  pthread_t thread;
  pthread_barrier_t *start;
} Producer;

#define SEQUENCE_BITS 40

static struct
{
  /* the loop's thread only */
  uint64_t next[MAX_PRODUCERS];
  uint64_t left;
  int64_t ended;

  Gate done;
} posts = { .done = GATE_INIT };

static int
post_cb (void *data)
{
  uint64_t tag = (uintptr_t) data;
  uint64_t index = tag >> SEQUENCE_BITS;
  uint64_t sequence = tag & ((UINT64_C (1) << SEQUENCE_BITS) - 1);

  if (posts.next[index]++ != sequence)
    bench_fail ("producer %u: post %u comes out of order", (unsigned) index, (unsigned) sequence);
  if (--posts.left == 0)
    {
      posts.ended = bench_now ();
      gate_open (&posts.done);
    }

  return 0;
}

static void *
produce (void *data)
{
  Producer *self = data;
  uint64_t tag = (uint64_t) self->index << SEQUENCE_BITS;

  pthread_barrier_wait (self->start);
  for (unsigned i = 0; i < self->n; i++)
    sys->post (self->loop, post_cb, (void *) (uintptr_t) (tag + i));

  return NULL;
}

static void
flood (void *loop, Producer *producers, unsigned n_producers, unsigned n)
{
  pthread_barrier_t start;

  pthread_barrier_init (&start, NULL, n_producers + 1);
  posts.left = (uint64_t) n_producers * n;
  for (unsigned i = 0; i < n_producers; i++)
    {
      producers[i] = (Producer){ .loop = loop, .index = i, .n = n, .start = &start };
      pthread_create (&producers[i].thread, NULL, produce, &producers[i]);
    }

  begin ();
  pthread_barrier_wait (&start);
  gate_wait (&posts.done);
  for (unsigned i = 0; i < n_producers; i++)
    pthread_join (producers[i].thread, NULL);
  pthread_barrier_destroy (&start);
}

static void
run_posts (void)
{
  unsigned n = opt.count > 0 ? opt.count : 1000000;
  Producer producers[MAX_PRODUCERS];
  void *loop = loop_new_elsewhere ();

  flood (loop, producers, opt.producers, n);
  report_times (n * opt.producers, posts.ended);
  report_end ();
  sys->loop_end (loop);
}

/* W1s, W2s: one at a time, the loop asleep between. */

static int64_t *samples;
static atomic_uint n_samples;
static int64_t sent;

static int
sample_cb (void *data)
{
  samples[atomic_load_explicit (&n_samples, memory_order_relaxed)] = bench_now () - sent;
  atomic_fetch_add_explicit (&n_samples, 1, memory_order_release);

  return 0;
}

static void
run_paced (unsigned n, int64_t interval, bool call)
{
  void *loop = loop_new_elsewhere ();
  int64_t *round_trips = calloc (n, sizeof *round_trips);
  int64_t next, ended;

  samples = calloc (n, sizeof *samples);
  begin ();
  next = began;
  for (unsigned i = 0; i < n; i++)
    {
      next += interval;
      sleep_until (next);
      next = bench_now ();
      sent = next;
      (call ? sys->call : sys->post) (loop, sample_cb, NULL);
      round_trips[i] = bench_now () - next;

      while (atomic_load_explicit (&n_samples, memory_order_acquire) != i + 1)
        {
          if (call)
            bench_fail ("call %u returned before it ran", i);
          usleep (20);
        }
    }

  ended = bench_now ();
  report_times (n, ended);
  report_percentiles ("", call ? round_trips : samples, n);
  report_end ();
  sys->loop_end (loop);
}

static void
run_paced_posts (void)
{
  run_paced (opt.count > 0 ? opt.count : 5000, 100 * NSEC_PER_USEC, false);
}

static void
run_paced_calls (void)
{
  need (sys->call != NULL);
  run_paced (opt.count > 0 ? opt.count : 500, NSEC_PER_MSEC, true);
}

/* W2: blocking calls, W9: blocking operations. */

typedef struct
{
  void *loop;
  void (*call) (void *loop, BenchFunc func, void *data);
  unsigned n;
  unsigned ran;
  int64_t deadline;
  pthread_t thread;
} Caller;

static int
count_cb (void *data)
{
  unsigned *n = data;

  (*n)++;

  return 0;
}

static void *
call_repeatedly (void *data)
{
  Caller *self = data;

  do
    {
      for (unsigned i = 0; i < 16; i++)
        {
          self->call (self->loop, count_cb, &self->ran);
          if (self->ran != ++self->n)
            bench_fail ("call %u has run %u times", self->n, self->ran);
        }
    }
  while (bench_now () < self->deadline);

  return NULL;
}

static void
run_callers (void (*call) (void *loop, BenchFunc func, void *data))
{
  unsigned n_callers = opt.producers, n = 0;
  int64_t length = (opt.seconds > 0 ? opt.seconds : 0.5) * NSEC_PER_SEC;
  Caller callers[MAX_PRODUCERS];
  void *loop = loop_new_elsewhere ();

  callers[0] = (Caller){ .loop = loop, .call = call };
  call_repeatedly (&callers[0]);

  begin ();
  for (unsigned i = 0; i < n_callers; i++)
    {
      callers[i] = (Caller){ .loop = loop, .call = call, .deadline = began + length };
      pthread_create (&callers[i].thread, NULL, call_repeatedly, &callers[i]);
    }
  for (unsigned i = 0; i < n_callers; i++)
    {
      pthread_join (callers[i].thread, NULL);
      n += callers[i].n;
    }

  report_times (n, bench_now ());
  report_end ();
  sys->loop_end (loop);
}

static void
run_calls (void)
{
  need (sys->call != NULL);
  run_callers (sys->call);
}

static void
run_performs (void)
{
  need (sys->perform != NULL);
  run_callers (sys->perform);
}

/* W3: a call whose reply comes to the caller's loop. */

static struct
{
  void *caller;
  int64_t deadline;
  unsigned asked;
  atomic_uint ran;
  unsigned replied;
  unsigned depth; /* asked, not replied */
} asks;

static int
ask_cb (void *data)
{
  if (atomic_fetch_add_explicit (&asks.ran, 1, memory_order_relaxed) != (unsigned) (uintptr_t) data)
    bench_fail ("request %u comes out of order", (unsigned) (uintptr_t) data);

  return 0;
}

static int
reply_cb (void *data)
{
  if (asks.replied++ != (unsigned) (uintptr_t) data)
    bench_fail ("reply %u comes out of order", (unsigned) (uintptr_t) data);

  asks.depth--;
  if (asks.replied % 16 == 0 && bench_now () >= asks.deadline)
    asks.deadline = 0;
  if (asks.deadline == 0)
    {
      if (asks.depth == 0)
        sys->caller_quit (asks.caller);
      return 0;
    }

  asks.depth++;
  sys->caller_ask (asks.caller, ask_cb, reply_cb, (void *) (uintptr_t) asks.asked++);

  return 0;
}

static void
ask_repeatedly (int64_t length)
{
  begin ();
  asks.deadline = began + length;
  for (unsigned i = 0; i < opt.depth; i++)
    {
      asks.depth++;
      sys->caller_ask (asks.caller, ask_cb, reply_cb, (void *) (uintptr_t) asks.asked++);
    }
  sys->caller_run (asks.caller);
}

static void
run_asks (void)
{
  void *loop;
  unsigned warm;

  need (sys->caller_ask != NULL);
  loop = loop_new_elsewhere ();
  asks.caller = sys->caller_new (loop);
  ask_repeatedly (NSEC_PER_MSEC);
  warm = asks.replied;
  ask_repeatedly ((opt.seconds > 0 ? opt.seconds : 0.5) * NSEC_PER_SEC);
  report_times (asks.replied - warm, bench_now ());
  report_end ();

  if (asks.replied != asks.asked || asks.ran != asks.asked)
    bench_fail ("%u requests, %u ran, %u replies", asks.asked, asks.ran, asks.replied);
  sys->caller_free (asks.caller);
  sys->loop_end (loop);
}

/* W4: a loop's life. */

static void
run_lives (void)
{
  int64_t length = (opt.seconds > 0 ? opt.seconds : 0.5) * NSEC_PER_SEC;
  unsigned n = 0, ran = 0;

  need (sys->call != NULL);
  begin ();
  do
    {
      void *loop = sys->loop_new ();

      sys->call (loop, count_cb, &ran);
      sys->loop_end (loop);
      if (ran != ++n)
        bench_fail ("the only call of loop %u has run %u times", n, ran);
    }
  while (bench_now () < began + length);

  report_times (n, bench_now ());
  report_end ();
}

/* W5: loops that have nothing to do. */

static void
run_idle (void)
{
  unsigned n = opt.loops > 1 ? opt.loops : 100, ran = 0;
  double seconds = opt.seconds > 0 ? opt.seconds : 10;
  int64_t memory, sleeps, cpu;
  void *loops[MAX_LOOPS], *first;

  need (sys->call != NULL);
  first = sys->loop_new ();
  sys->call (first, count_cb, &ran);
  memory = read_status ("/proc/self/status", "VmRSS");
  for (unsigned i = 0; i < n; i++)
    {
      loops[i] = sys->loop_new ();
      sys->call (loops[i], count_cb, &ran);
    }
  memory = read_status ("/proc/self/status", "VmRSS") - memory;

  usleep (500000);
  sleeps = count_sleeps ();
  cpu = cpu_now ();
  sleep_until (bench_now () + (int64_t) (seconds * NSEC_PER_SEC));
  cpu = cpu_now () - cpu;
  sleeps = count_sleeps () - sleeps;

  report_head (n);
  printf (", \"seconds\": %g, \"wakeups\": %lld, \"idle_cpu_ns\": %lld, \"bytes\": %lld", seconds,
          (long long) sleeps, (long long) cpu, (long long) (memory * 1024 / n));
  report_end ();
  for (unsigned i = 0; i < n; i++)
    sys->loop_end (loops[i]);
  sys->loop_end (first);
}

/* W6: delayed posts. */

#define MAX_DELAY_MSEC 50

static struct
{
  int64_t *due;
  int64_t *late;
  unsigned left;
  unsigned early;
  int64_t ended;
  Gate done;
} delays = { .done = GATE_INIT };

static int
delay_cb (void *data)
{
  unsigned i = (unsigned) (uintptr_t) data;
  int64_t now = bench_now ();

  if (delays.late[i] != INT64_MIN)
    bench_fail ("delayed post %u has run twice", i);

  delays.late[i] = now - delays.due[i];
  if (delays.late[i] < 0)
    delays.early++;
  if (--delays.left == 0)
    {
      delays.ended = now;
      gate_open (&delays.done);
    }

  return 0;
}

static void
run_delays (void)
{
  unsigned n = opt.count > 0 ? opt.count : 100000;
  unsigned seed = 1;
  int64_t added;
  void *loop;

  need (sys->post_after != NULL);
  loop = loop_new_elsewhere ();
  delays.due = calloc (n, sizeof *delays.due);
  delays.late = calloc (n, sizeof *delays.late);
  delays.left = n;
  for (unsigned i = 0; i < n; i++)
    delays.late[i] = INT64_MIN;

  begin ();
  for (unsigned i = 0; i < n; i++)
    {
      unsigned msec = rand_r (&seed) % (MAX_DELAY_MSEC + 1);

      delays.due[i] = bench_now () + msec * NSEC_PER_MSEC;
      sys->post_after (loop, msec, delay_cb, (void *) (uintptr_t) i);
    }
  added = bench_now () - began;
  gate_wait (&delays.done);

  report_times (n, delays.ended);
  report_percentiles ("", delays.late, n);
  printf (", \"add_ns\": %.1f, \"early\": %u", (double) added / n, delays.early);
  report_end ();
  sys->loop_end (loop);
}

/* W7: what is urgent, while a million less urgent posts are queued. */

enum
{
  BY_POST,
  BY_TIMER,
  BY_SOCKET,
  N_WAYS,
};

#define MAX_PINGS     100000
#define LATENCY_SLEEP 150

static struct
{
  void *loop;
  atomic_bool stop;
  int sockets[2];
  int64_t sent;
  atomic_bool answered;
  int64_t *samples[N_WAYS];
  unsigned n[N_WAYS];
  unsigned left; /* less urgent posts that have not ended, loop's thread only */
  Gate queued, done;
} pings = { .queued = GATE_INIT, .done = GATE_INIT };

static int
low_cb (void *data)
{
  if (!atomic_load_explicit (&pings.stop, memory_order_relaxed))
    sys->post_low (pings.loop, low_cb, NULL);
  else if (--pings.left == 0)
    gate_open (&pings.done);

  return 0;
}

static int
ping_cb (void *data)
{
  unsigned way = (unsigned) (uintptr_t) data;
  int64_t now = bench_now ();
  char byte;

  if (way == BY_SOCKET && read (pings.sockets[0], &byte, 1) != 1)
    return 0;

  pings.samples[way][pings.n[way]++] = now - pings.sent;
  atomic_store_explicit (&pings.answered, true, memory_order_release);

  return 0;
}

static void
ping (unsigned way)
{
  pings.sent = bench_now () + (way == BY_TIMER ? NSEC_PER_MSEC : 0);
  atomic_store_explicit (&pings.answered, false, memory_order_relaxed);
  if (way == BY_POST)
    sys->post (pings.loop, ping_cb, (void *) BY_POST);
  else if (way == BY_TIMER)
    sys->post_after (pings.loop, 1, ping_cb, (void *) BY_TIMER);
  else if (write (pings.sockets[1], "", 1) != 1)
    bench_fail ("the socket takes nothing");

  do
    usleep (LATENCY_SLEEP);
  while (!atomic_load_explicit (&pings.answered, memory_order_acquire));
}

static void
run_latencies (void)
{
  static const char *const names[] = { "post_", "timer_", "socket_" };
  unsigned n = opt.count > 0 ? opt.count : 1000000;
  int64_t until;

  need (sys->post_low != NULL && sys->post_after != NULL && sys->watch != NULL);
  for (unsigned i = 0; i < N_WAYS; i++)
    pings.samples[i] = calloc (MAX_PINGS, sizeof (int64_t));
  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pings.sockets) != 0)
    bench_fail ("no sockets");

  pings.loop = loop_new_elsewhere ();
  sys->watch (pings.loop, pings.sockets[0], ping_cb, (void *) BY_SOCKET);
  pings.left = n;
  sys->post (pings.loop, gate_wait, &pings.queued);
  for (unsigned i = 0; i < n; i++)
    sys->post_low (pings.loop, low_cb, NULL);
  gate_open (&pings.queued);

  until = bench_now () + (int64_t) ((opt.seconds > 0 ? opt.seconds : 2) * NSEC_PER_SEC);
  for (unsigned i = 0; i < MAX_PINGS && (i < 2 * N_WAYS || bench_now () < until); i++)
    ping (i % N_WAYS);
  atomic_store (&pings.stop, true);
  gate_wait (&pings.done);

  report_head (pings.n[0] + pings.n[1] + pings.n[2]);
  for (unsigned i = 0; i < N_WAYS; i++)
    report_percentiles (names[i], pings.samples[i], pings.n[i]);
  report_end ();
  sys->loop_end (pings.loop);
}

/* W8: the memory of what is queued. */

static void
run_memory (void)
{
  unsigned n = opt.count > 0 ? opt.count : 1000000;
  void *loop;
  Gate queued = GATE_INIT;
  int64_t before, after;

  need (!sys->cannot_queue);
  loop = loop_new_elsewhere ();
  sys->post (loop, gate_wait, &queued);
  posts.left = n;
  before = read_status ("/proc/self/status", "VmRSS");
  for (unsigned i = 0; i < n; i++)
    sys->post (loop, post_cb, (void *) (uintptr_t) i);
  gate_open (&queued);
  gate_wait (&posts.done);
  after = read_status ("/proc/self/status", "VmHWM");

  report_head (n);
  printf (", \"bytes\": %.1f", (double) (after - before) * 1024 / n);
  report_end ();
  sys->loop_end (loop);
}

/* The cost of a post, with so many queued before the first of them runs. */

static void
run_queued (void)
{
  unsigned n = opt.count > 0 ? opt.count : 1000;
  unsigned repeats = n < 500000 ? 500000 / n : 1;
  void *loop;
  int64_t total = 0;

  need (!sys->cannot_queue);
  loop = loop_new_elsewhere ();
  if (repeats > 5000)
    repeats = 5000;
  for (unsigned r = 0; r < repeats; r++)
    {
      Gate entered = GATE_INIT, queued = GATE_INIT;
      int64_t queueing;

      sys->post (loop, gate_open, &entered);
      sys->post (loop, gate_wait, &queued);
      gate_wait (&entered);
      posts.next[0] = 0;
      posts.left = n;
      posts.done.open = false;
      queueing = bench_now ();
      for (unsigned i = 0; i < n; i++)
        sys->post (loop, post_cb, (void *) (uintptr_t) i);
      gate_open (&queued);
      gate_wait (&posts.done);
      total += posts.ended - queueing;
    }

  report_head (n);
  printf (", \"ns\": %.2f", (double) total / n / repeats);
  report_end ();
  sys->loop_end (loop);
}

/* Posts to many loops in turn. */

#define LOOP_BURST 100

static struct
{
  unsigned left;
  Gate done;
} shares[MAX_LOOPS];

static int
share_cb (void *data)
{
  unsigned i = (unsigned) (uintptr_t) data;

  if (--shares[i].left == 0)
    gate_open (&shares[i].done);

  return 0;
}

static void
run_loops (void)
{
  unsigned n = (opt.count > 0 ? opt.count : 1000000) / opt.loops / LOOP_BURST * LOOP_BURST;
  void *loops[MAX_LOOPS];

  for (unsigned i = 0; i < opt.loops; i++)
    {
      Gate gate = GATE_INIT;

      shares[i].done = gate;
      shares[i].left = n;
      loops[i] = sys->loop_new ();
    }

  begin ();
  for (unsigned sent_to_each = 0; sent_to_each < n; sent_to_each += LOOP_BURST)
    {
      for (unsigned i = 0; i < opt.loops; i++)
        {
          for (unsigned j = 0; j < LOOP_BURST; j++)
            sys->post (loops[i], share_cb, (void *) (uintptr_t) i);
        }
    }
  for (unsigned i = 0; i < opt.loops; i++)
    gate_wait (&shares[i].done);

  report_times (n * opt.loops, bench_now ());
  report_end ();
  for (unsigned i = 0; i < opt.loops; i++)
    sys->loop_end (loops[i]);
}

/* What may stand beside it */

static pid_t busy[8];

static void
start_busy (void)
{
  for (unsigned i = 0; i < opt.busy; i++)
    {
      pid_t parent = getpid ();
      volatile unsigned n = 0;

      busy[i] = fork ();
      if (busy[i] != 0)
        continue;

      prctl (PR_SET_PDEATHSIG, SIGKILL);
      while (getppid () == parent)
        {
          for (n = 0; n < 10000000; n++)
            ;
        }
      _exit (0);
    }
}

static void
stop_busy (void)
{
  for (unsigned i = 0; i < opt.busy; i++)
    kill (busy[i], SIGKILL);
}

static void
pin (void)
{
  cpu_set_t set;

  if (opt.cpus == 0)
    return;

  CPU_ZERO (&set);
  for (unsigned i = 0; i < opt.cpus; i++)
    CPU_SET (i, &set);
  if (sched_setaffinity (0, sizeof set, &set) != 0)
    bench_fail ("not on %u processors", opt.cpus);
}

static const struct
{
  const char *name;
  void (*run) (void);
} workloads[] = {
  { "W1", run_posts },        { "W1s", run_paced_posts }, { "W2", run_calls },
  { "W2s", run_paced_calls }, { "W3", run_asks },         { "W4", run_lives },
  { "W5", run_idle },         { "W6", run_delays },       { "W7", run_latencies },
  { "W8", run_memory },       { "W9", run_performs },     { "queued", run_queued },
  { "loops", run_loops },
};

static const struct option options[] = {
  { "count", required_argument, NULL, 'n' },
  { "seconds", required_argument, NULL, 's' },
  { "producers", required_argument, NULL, 'p' },
  { "depth", required_argument, NULL, 'd' },
  { "loops", required_argument, NULL, 'l' },
  { "busy", required_argument, NULL, 'b' },
  { "cpus", required_argument, NULL, 'c' },
  { "variant", required_argument, NULL, 'v' },
  { NULL, 0, NULL, 0 },
};

static unsigned
number (const char *text, unsigned max)
{
  char *end;
  unsigned long value = strtoul (text, &end, 10);

  if (*text == '\0' || *end != '\0' || value == 0 || value > max)
    bench_fail ("%s: not a number from 1 to %u", text, max);
  return (unsigned) value;
}

static void
parse (int argc, char *argv[])
{
  int option;

  while ((option = getopt_long (argc, argv, "", options, NULL)) != -1)
    {
      switch (option)
        {
        case 'n':
          opt.count = number (optarg, 100000000);
          break;
        case 's':
          opt.seconds = atof (optarg);
          break;
        case 'p':
          opt.producers = number (optarg, MAX_PRODUCERS);
          break;
        case 'd':
          opt.depth = number (optarg, 10000);
          break;
        case 'l':
          opt.loops = number (optarg, MAX_LOOPS);
          break;
        case 'b':
          opt.busy = number (optarg, 8);
          break;
        case 'c':
          opt.cpus = number (optarg, 8);
          break;
        case 'v':
          opt.variant = optarg;
          break;
        default:
          exit (2);
        }
    }

  workload = optind < argc ? argv[optind] : "";
}

int
bench_main (const BenchSystem *system, int argc, char *argv[])
{
  sys = system;
  workload = "";
  parse (argc, argv);

  for (unsigned i = 0; i < sizeof workloads / sizeof *workloads; i++)
    {
      if (strcmp (workload, workloads[i].name) != 0)
        continue;

      start_busy ();
      pin ();
      workloads[i].run ();
      stop_busy ();
      return 0;
    }

  fprintf (stderr, "Usage: bench-%s WORKLOAD [OPTION...], where WORKLOAD is one of", system->name);
  for (unsigned i = 0; i < sizeof workloads / sizeof *workloads; i++)
    fprintf (stderr, " %s", workloads[i].name);
  fputc ('\n', stderr);
  return 2;
}
