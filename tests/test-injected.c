/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "util.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* What the system refuses, or does at a bad moment: no thread, a slow one, no descriptor, no
 * handler of forks, signals, a wall clock that jumps, no memory. The functions of the C library
 * that are defined here go before its own in the whole program, so in GLib and in the library. */

static struct
{
  int threads;             /* so many are not to be had */
  int descriptors;         /* the same */
  int fork_handlers;       /* the same */
  UtilLatch *start;        /* (nullable) (atomic) a thread begins when this is open */
  int n_starting;          /* threads that wait for it */
  int n_asked;             /* for a handler of forks */
  gint64 wall_clock_jumps; /* (atomic) seconds that it goes wrong by, from one look to the next */
} injected;

static gboolean
take_one (int *left)
{
  int n = g_atomic_int_get (left);

  while (n > 0 && !g_atomic_int_compare_and_exchange (left, n, n - 1))
    n = g_atomic_int_get (left);
  return n > 0;
}

typedef struct
{
  void *(*func) (void *);
  void *data;
} Start;

static void *
start_late (void *data)
{
  Start start = *(Start *) data;

  free (data);
  g_atomic_int_inc (&injected.n_starting);
  util_latch_wait (g_atomic_pointer_get (&injected.start));
  return start.func (start.data);
}

int
pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*func) (void *), void *data)
{
  int (*create) (pthread_t *, const pthread_attr_t *, void *(*) (void *), void *)
      = dlsym (RTLD_NEXT, "pthread_create");
  Start *start;

  if (take_one (&injected.threads))
    return EAGAIN;
  if (g_atomic_pointer_get (&injected.start) == NULL)
    return create (thread, attr, func, data);

  start = malloc (sizeof *start);
  start->func = func;
  start->data = data;
  return create (thread, attr, start_late, start);
}

int
eventfd (unsigned int count, int flags)
{
  int (*make) (unsigned int, int) = dlsym (RTLD_NEXT, "eventfd");

  if (take_one (&injected.descriptors))
    {
      errno = EMFILE;
      return -1;
    }
  return make (count, flags);
}

/* What pthread_atfork() comes to in glibc. */
int __register_atfork (void (*prepare) (void),
                       void (*parent) (void),
                       void (*child) (void),
                       void *dso);

int
__register_atfork (void (*prepare) (void), void (*parent) (void), void (*child) (void), void *dso)
{
  int (*watch) (void (*) (void), void (*) (void), void (*) (void), void *)
      = dlsym (RTLD_NEXT, "__register_atfork");

  g_atomic_int_inc (&injected.n_asked);
  if (take_one (&injected.fork_handlers))
    return ENOMEM;
  return watch (prepare, parent, child, dso);
}

int
clock_gettime (clockid_t clock, struct timespec *time)
{
  static int (*get) (clockid_t, struct timespec *);
  static int n_looks;
  int result;

  if (g_atomic_pointer_get (&get) == NULL)
    g_atomic_pointer_set (&get, dlsym (RTLD_NEXT, "clock_gettime"));
  result = get (clock, time);
  if (clock == CLOCK_REALTIME && injected.wall_clock_jumps != 0)
    time->tv_sec += g_atomic_int_add (&n_looks, 1) % 2 == 0 ? injected.wall_clock_jumps
                                                            : -injected.wall_clock_jumps;
  return result;
}

int
gettimeofday (struct timeval *time, void *zone)
{
  struct timespec now;
  int result = clock_gettime (CLOCK_REALTIME, &now);

  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return result;
}

/* Threads */

static void
test_no_thread (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop;
  guint n_fds = util_count_fds ();

  for (int n = 1; n <= 3; n++)
    {
      injected.threads = n;
      for (int i = 0; i < n; i++)
        {
          g_assert_null (bg_loop_new ("none", &error));
          g_assert_error (error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
          g_clear_error (&error);
        }
      g_assert_cmpint (injected.threads, ==, 0);
      g_assert_cmpuint (util_count_fds (), ==, n_fds);

      loop = util_loop_new ("one");
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_loop_end (loop);
    }
}

/* The default loop that was not to be had is asked for again. */
static void
test_no_default (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop;

  injected.threads = 1;
  g_assert_null (bg_loop_dup_default (&error));
  g_assert_error (error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
  g_clear_error (&error);

  loop = bg_loop_dup_default (&error);
  g_assert_no_error (error);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  g_assert_true (bg_loop_reset_default (-1, &error));
  g_assert_no_error (error);
  g_object_unref (loop);
}

/* Without a thread nothing is watched, and the loop does its work all the same. */
static void
test_no_watchdog (void)
{
  BgLoop *loop;

  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
      g_test_trap_assert_passed ();
      g_test_trap_assert_stderr ("*What blocks a loop is not reported: *");
      return;
    }

  g_log_set_always_fatal (G_LOG_FATAL_MASK);
  loop = util_loop_new ("unwatched");
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL)); /* its thread has begun */
  injected.threads = 1;
  g_object_set (loop, "stall-threshold", 100, NULL);
  g_assert_cmpint (injected.threads, ==, 0);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));

  /* The next one who wants to be watched has it begin. */
  g_object_set (loop, "stall-threshold", 0, NULL);
  g_object_set (loop, "stall-threshold", 100, NULL);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  util_loop_end (loop);
}

static UtilLatch go;

static gpointer
take_default_thread (gpointer data)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop;

  util_latch_wait (&go);
  loop = bg_loop_dup_default (&error);
  g_assert_no_error (error);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  return loop;
}

/* Valgrind takes what the parent's other threads had for lost in the child. */
static void
use_default_in_child (void)
{
  BgLoop *loop;
  pid_t pid;

  if (g_getenv ("BGLOOP_TEST_VALGRIND") != NULL)
    return;

  pid = util_fork ();
  if (pid == 0)
    {
      loop = bg_loop_dup_default (NULL);
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_loop_end (loop);
      _exit (0);
    }
  util_wait_for_child (pid);
}

/* A thread that is slow to begin holds up nobody but those who want its loop, and they get the
 * same one. */
static void
test_slow_start (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *other = util_loop_new ("other"), *third;
  UtilLatch start;
  GThread *threads[3];
  BgLoop *loops[G_N_ELEMENTS (threads)];

  util_latch_init (&go, 1);
  util_latch_init (&start, 1);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("asks", take_default_thread, NULL);

  g_atomic_pointer_set (&injected.start, &start);
  util_latch_count_down (&go);
  while (g_atomic_int_get (&injected.n_starting) == 0)
    g_thread_yield ();
  g_atomic_pointer_set (&injected.start, NULL);

  g_assert_true (bg_loop_call (other, util_true_cb, NULL, NULL, NULL));
  third = util_loop_new ("third");
  util_loop_end (third);
  util_loop_end (other);
  use_default_in_child ();

  g_atomic_pointer_set (&injected.start, &start);
  util_latch_count_down (&start);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    {
      loops[i] = g_thread_join (threads[i]);
      g_assert_true (loops[i] == loops[0]);
    }
  g_assert_cmpint (injected.n_starting, ==, 1);
  g_atomic_pointer_set (&injected.start, NULL);

  g_assert_true (bg_loop_reset_default (-1, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_object_unref (loops[i]);
  util_latch_clear (&start);
  util_latch_clear (&go);
}

/* Descriptors */

static void
test_no_descriptor (void)
{
  g_autoptr (GError) error = NULL;
  guint n_threads = util_count_threads ();

  for (int n = 1; n <= 3; n++)
    {
      injected.descriptors = n;
      for (int i = 0; i < n; i++)
        {
          g_assert_null (bg_loop_new ("none", &error));
          g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES);
          g_clear_error (&error);
        }
      g_assert_cmpint (injected.descriptors, ==, 0);
      if (!util_is_emulated ())
        g_assert_cmpuint (util_count_threads (), ==, n_threads);
      util_loop_end (util_loop_new ("one"));
    }
}

/* The child of a loop's own thread gets no descriptor of its own to be woken by. */
static void
fork_cb (gpointer data)
{
  pid_t *pid = data;

  injected.descriptors = 1;
  *pid = util_fork ();
  if (*pid == 0)
    {
      g_autoptr (GError) error = NULL;
      BgLoop *loop;

      g_assert_cmpint (injected.descriptors, ==, 0);
      loop = bg_loop_new ("child", &error);
      g_assert_no_error (error);
      g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      util_loop_end (loop);
      _exit (0);
    }
  injected.descriptors = 0;
}

static void
test_no_descriptor_in_child (void)
{
  BgLoop *loop = util_loop_new ("forks");
  pid_t pid = 0;
  int n = 0;

  bg_loop_post (loop, fork_cb, &pid, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_wait_for_child (pid);
  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_call (loop, util_count_call_cb, &n, NULL, NULL));
  g_assert_cmpint (n, ==, 100);
  util_loop_end (loop);
}

/* Handlers of forks */

/* They are asked for again until they are to be had; a child knows that it is one then. This has
 * to come before any other loop of the process. */
static void
test_no_fork_handler (void)
{
  BgLoop *loop;
  int n_asked;
  pid_t pid;

  injected.fork_handlers = 1;
  loop = util_loop_new ("first");
  g_assert_cmpint (injected.fork_handlers, ==, 0);
  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  n_asked = injected.n_asked;
  g_assert_cmpint (n_asked, >, 1);

  pid = util_fork ();
  if (pid == 0)
    {
      g_autoptr (GError) error = NULL;

      g_assert_false (bg_loop_call (loop, util_true_cb, NULL, NULL, &error));
      g_assert_error (error, BG_ERROR, BG_ERROR_FORKED);
      _exit (0);
    }
  util_wait_for_child (pid);

  util_loop_end (loop);
  util_loop_end (util_loop_new ("second"));
  g_assert_cmpint (injected.n_asked, ==, n_asked);
}

/* Signals */

static int n_signals;

static void
signal_cb (int number)
{
  g_atomic_int_inc (&n_signals);
}

typedef struct
{
  pid_t thread;
  int stop;
} Storm;

static void
get_thread_cb (gpointer data)
{
  ((Storm *) data)->thread = (pid_t) syscall (SYS_gettid);
}

static gpointer
storm_thread (gpointer data)
{
  Storm *self = data;

  while (!g_atomic_int_get (&self->stop))
    {
      syscall (SYS_tgkill, getpid (), self->thread, SIGUSR1);
      g_thread_yield ();
    }
  return NULL;
}

/* A system call of the loop's thread that a signal has interrupted is no wake-up, no due work and
 * no end. */
static void
test_signals (void)
{
  struct sigaction action = { .sa_handler = signal_cb };
  BgLoop *loop = util_loop_new ("interrupted");
  Storm storm = { 0 };
  GThread *thread;
  UtilLatch due;
  int n = 0;

  g_assert_cmpint (sigaction (SIGUSR1, &action, NULL), ==, 0);
  bg_loop_post (loop, get_thread_cb, &storm, NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  thread = g_thread_new ("storm", storm_thread, &storm);
  while (g_atomic_int_get (&n_signals) == 0)
    g_thread_yield ();

  for (guint i = 0; i < util_scale (2000); i++)
    {
      gint64 begin = g_get_monotonic_time ();

      g_assert_true (bg_loop_call (loop, util_count_call_cb, &n, NULL, NULL));
      if (i % 20 != 0)
        continue;
      util_latch_init (&due, 1);
      bg_loop_post_after (loop, 1, util_count_down_cb, &due, NULL);
      util_latch_wait (&due);
      g_assert_cmpint (g_get_monotonic_time () - begin, >=, 1000);
      util_latch_clear (&due);
    }
  g_assert_cmpint (n, ==, util_scale (2000));

  /* Also while it ends; the number of a thread that has ended is of no other yet. */
  bg_loop_post (loop, util_count_cb, &n, NULL);
  util_loop_end (loop);
  g_assert_cmpint (n, ==, util_scale (2000) + 1);
  g_atomic_int_set (&storm.stop, TRUE);
  g_thread_join (thread);
}

/* The wall clock */

/* Deadlines and delays are of the monotonic clock: a day forwards and a day back changes none. */
static void
test_wall_clock (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = util_loop_new ("timeless");
  UtilBlock block;
  UtilLatch due;
  gint64 looked_at;
  int n = 0;

  if (GLIB_SIZEOF_LONG < 8)
    {
      g_test_skip ("The clock has another name where time has more bits than a long");
      return;
    }

  injected.wall_clock_jumps = 24 * 60 * 60;
  looked_at = g_get_real_time ();
  g_assert_cmpint (llabs (g_get_real_time () - looked_at), >, G_TIME_SPAN_HOUR);

  /* Neither now nor never: */
  util_latch_init (&due, 1);
  bg_loop_post_after (loop, 1, util_count_down_cb, &due, NULL);
  bg_loop_post_after (loop, 60 * 60 * 1000, util_count_cb, &n, NULL);
  util_latch_wait (&due);
  util_latch_clear (&due);
  g_assert_true (bg_loop_flush (loop, 60 * 60 * 1000, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (n, ==, 0);

  util_block (&block, loop);
  g_assert_false (bg_loop_flush (loop, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_clear_error (&error);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 60 * 60 * 1000, NULL, &error));
  g_assert_no_error (error);
  util_block_clear (&block);
  g_object_unref (loop);
  injected.wall_clock_jumps = 0;
}

/* Memory */

#define N_CROWDED       50
#define BYTES_PER_POST  40
#define SPARE_MEBIBYTES 4

/* The value in a file of kibibytes by name. */
static guint64
read_bytes (const char *path, const char *name)
{
  g_autofree char *text = NULL;
  const char *found;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  found = strstr (text, name);
  g_assert_nonnull (found);
  return g_ascii_strtoull (found + strlen (name), NULL, 10) * 1024;
}

/* From here on the process gets so much more memory to write to, of which each allocator's arena
 * counts only what it has used. */
static void
limit_memory (gsize bytes)
{
  struct rlimit limit = { 0 }, no_core = { 0, 0 };

  g_assert_cmpint (setrlimit (RLIMIT_CORE, &no_core), ==, 0);
  g_assert_cmpint (getrlimit (RLIMIT_DATA, &limit), ==, 0);
  limit.rlim_cur = (rlim_t) read_bytes ("/proc/self/status", "VmData:") + bytes;
  g_assert_cmpint (setrlimit (RLIMIT_DATA, &limit), ==, 0);
}

/* A million posts into each loop, which take two gigabytes; where the machine has not twice as much
 * to give, a power of two fewer. */
static guint
get_n_posts (void)
{
  guint64 available = read_bytes ("/proc/meminfo", "MemAvailable:");
  guint n = util_scale (1000000);

  while ((guint64) n * N_CROWDED * BYTES_PER_POST > available / 2)
    n /= 2;
  g_test_message ("%u posts into each of %d loops", n, N_CROWDED);
  return n;
}

/* What waits in the queues of many loops takes no more than it has to, and all of it runs. */
static void
test_crowded (void)
{
  BgLoop *loops[N_CROWDED];
  UtilBlock blocks[N_CROWDED];
  int n = 0;
  const guint n_posts = get_n_posts ();

  for (guint i = 0; i < N_CROWDED; i++)
    {
      loops[i] = util_loop_new ("crowded");
      util_block (&blocks[i], loops[i]);
    }

  limit_memory ((gsize) n_posts * N_CROWDED * BYTES_PER_POST + SPARE_MEBIBYTES * 1024 * 1024);
  for (guint i = 0; i < n_posts; i++)
    {
      for (guint j = 0; j < N_CROWDED; j++)
        g_assert_true (bg_loop_post (loops[j], util_count_cb, &n, NULL));
    }

  for (guint i = 0; i < N_CROWDED; i++)
    util_unblock (&blocks[i]);
  for (guint i = 0; i < N_CROWDED; i++)
    {
      util_loop_end (loops[i]);
      util_block_clear (&blocks[i]);
    }
  g_assert_cmpuint ((guint) n, ==, n_posts * N_CROWDED);
}

/* A queue has no limit of its own. Where memory ends, GLib ends the process, and says why. */
static void
test_no_memory (void)
{
  BgLoop *loop;
  UtilBlock block;

  if (g_test_subprocess ())
    {
      loop = util_loop_new ("greedy");
      util_block (&block, loop);
      limit_memory (16 * 1024 * 1024);
      while (bg_loop_post (loop, util_nothing_cb, NULL, NULL))
        continue;
      return;
    }

  g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("*failed to allocate*");
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/injected/no-thread/new", test_no_thread);
  g_test_add_func ("/injected/no-thread/default", test_no_default);
  g_test_add_func ("/injected/no-thread/watchdog", test_no_watchdog);
  g_test_add_func ("/injected/slow-start", test_slow_start);
  g_test_add_func ("/injected/no-descriptor/new", test_no_descriptor);
  g_test_add_func ("/injected/no-descriptor/child", test_no_descriptor_in_child);
  util_add_trapped ("/injected/no-fork-handler", test_no_fork_handler);
  g_test_add_func ("/injected/signals", test_signals);
  g_test_add_func ("/injected/wall-clock", test_wall_clock);
  util_add_trapped ("/injected/memory/crowded", test_crowded);
  /* An emulator sets no limit, and the test would take all that the machine has. */
  if (!util_is_emulated ())
    g_test_add_func ("/injected/memory/none", test_no_memory);

  return g_test_run ();
}
