/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE

#include "util.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What the common paths may cost, as counts, which in contrast to times are
 * exact: allocations, and calls into the system. This program's own malloc(),
 * poll() and the like stand before the C library's and count. */

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS 1
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef COUNTS
#endif
#endif

static atomic_uint n_allocations;
static atomic_uint n_system_calls; /* but yields */
static atomic_uint n_yields;

#ifdef COUNTS

void *__libc_malloc (size_t size);
void *__libc_calloc (size_t n, size_t size);
void *__libc_realloc (void *old, size_t size);
void *__libc_memalign (size_t alignment, size_t size);

#define COUNT(counter) atomic_fetch_add_explicit (&(counter), 1, memory_order_relaxed)

void *
malloc (size_t size)
{
  COUNT (n_allocations);
  return __libc_malloc (size);
}

void *
calloc (size_t n, size_t size)
{
  COUNT (n_allocations);
  return __libc_calloc (n, size);
}

void *
realloc (void *old, size_t size)
{
  COUNT (n_allocations);
  return __libc_realloc (old, size);
}

int
posix_memalign (void **result, size_t alignment, size_t size)
{
  COUNT (n_allocations);
  *result = __libc_memalign (alignment, size);
  return *result != NULL ? 0 : ENOMEM;
}

/* What GLib's locks, conditions, contexts and wake-ups are made of. */

#define FORWARD(name) COUNT_AND_FORWARD (name, n_system_calls)
#define COUNT_AND_FORWARD(name, counter)                                                           \
  static __typeof__ (name) *next;                                                                  \
                                                                                                   \
  COUNT (counter);                                                                                 \
  if (next == NULL)                                                                                \
  next = (__typeof__ (name) *) dlsym (RTLD_NEXT, #name)

long
syscall (long number, ...)
{
  long a[6];
  va_list args;
  FORWARD (syscall);

  va_start (args, number);
  for (guint i = 0; i < G_N_ELEMENTS (a); i++)
    a[i] = va_arg (args, long);
  va_end (args);

  return next (number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int
poll (struct pollfd *fds, nfds_t n, int timeout)
{
  FORWARD (poll);

  return next (fds, n, timeout);
}

ssize_t
read (int fd, void *buffer, size_t size)
{
  FORWARD (read);

  return next (fd, buffer, size);
}

ssize_t
write (int fd, const void *buffer, size_t size)
{
  FORWARD (write);

  return next (fd, buffer, size);
}

int
ppoll (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
  FORWARD (ppoll);

  return next (fds, n, timeout, mask);
}

int
sched_yield (void)
{
  COUNT_AND_FORWARD (sched_yield, n_yields);

  return next ();
}

#endif

static gboolean
can_count (void)
{
  G_GNUC_UNUSED const char *preload = g_getenv ("LD_PRELOAD");

#ifdef COUNTS
  if (preload == NULL || strstr (preload, "vgpreload") == NULL)
    return TRUE;
#endif

  g_test_skip ("valgrind, a sanitizer or another C library owns what is to be counted");
  return FALSE;
}

/* A batch of work is small enough for what the loop keeps for reuse. */
#define BATCH 500

/* The machine may be busy with something else: one batch within so long will do. */
#define PATIENCE (30 * G_TIME_SPAN_SECOND)

/* What part of its processors this program has to have had for a count to say something. */
#define UNDISTURBED 0.9

typedef struct
{
  BgLoop *loop;
  atomic_uint ran;
} Fixture;

static void
count_cb (gpointer user_data)
{
  Fixture *self = user_data;

  atomic_fetch_add_explicit (&self->ran, 1, memory_order_relaxed);
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  count_cb (user_data);
  return TRUE;
}

/* Waits without a system call, as long as there is a processor for it. */
static void
wait_for (Fixture *self, guint n)
{
  gint64 patience = g_get_monotonic_time () + G_TIME_SPAN_MILLISECOND;

  while (atomic_load_explicit (&self->ran, memory_order_relaxed) != n)
    {
      if (g_get_monotonic_time () > patience)
        g_usleep (50);
    }
}

static void
post_batch (Fixture *self)
{
  atomic_store (&self->ran, 0);
  for (guint i = 0; i < BATCH; i++)
    g_assert_true (bg_loop_post (self->loop, count_cb, self, NULL));
  wait_for (self, BATCH);
}

static void
call_batch (Fixture *self)
{
  atomic_store (&self->ran, 0);
  for (guint i = 0; i < BATCH; i++)
    g_assert_true (bg_loop_call (self->loop, call_cb, self, NULL, NULL));
  g_assert_cmpuint (self->ran, ==, BATCH);
}

/* The loop has kept what it needs for more than a batch. */
static void
warm_up (Fixture *self, void (*batch) (Fixture *self))
{
  UtilBlock block;

  util_block (&block, self->loop);
  atomic_store (&self->ran, 0);
  for (guint i = 0; i < 2 * BATCH; i++)
    g_assert_true (bg_loop_post (self->loop, count_cb, self, NULL));
  util_unblock (&block);
  wait_for (self, 2 * BATCH);
  g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
  util_block_clear (&block);

  for (guint i = 0; i < 20; i++)
    batch (self);
}

static void
use_processor (guint which)
{
  cpu_set_t all, one;

  CPU_ZERO (&one);
  g_assert_cmpint (sched_getaffinity (0, sizeof all, &all), ==, 0);
  for (int i = 0; i < CPU_SETSIZE; i++)
    {
      if (CPU_ISSET (i, &all) && which-- == 0)
        CPU_SET (i, &one);
    }
  sched_setaffinity (0, sizeof one, &one);
}

static void
use_processor_cb (gpointer user_data)
{
  use_processor (GPOINTER_TO_UINT (user_data));
}

/* How long the first @n_processors that this program may use have done nothing, in seconds. The
 * fourth and fifth number of a processor's line are ticks in which it had nothing to do. */
static double
get_idle_seconds (guint n_processors)
{
  g_autofree char *text = NULL;
  cpu_set_t all;
  double ticks = 0;

  CPU_ZERO (&all);
  g_assert_cmpint (sched_getaffinity (0, sizeof all, &all), ==, 0);
  g_assert_true (g_file_get_contents ("/proc/stat", &text, NULL, NULL));
  for (int i = 0; i < CPU_SETSIZE && n_processors > 0; i++)
    {
      g_autofree char *name = g_strdup_printf ("\ncpu%d ", i);
      const char *line = CPU_ISSET (i, &all) ? strstr (text, name) : NULL;
      guint64 idle, iowait;

      if (line == NULL)
        continue;
      g_assert_cmpint (sscanf (line + strlen (name),
                               "%*s %*s %*s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT, &idle,
                               &iowait),
                       ==, 2);
      ticks += idle + iowait;
      n_processors--;
    }

  return ticks / sysconf (_SC_CLK_TCK);
}

/* How long the threads of this program have run. */
static double
get_own_seconds (void)
{
  struct timespec time;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* Asserts that no batch allocates anything after the first ones, and that some
 * batch takes @most system calls and @most_yields besides. That is with the default
 * linger, whatever the others are run with. Beside other programs that want the same
 * processors there may be no such batch, as a thread that yields lets these run: then the test is
 * skipped, and only if other programs have had a tenth of the processors. */
static void
assert_counts (void (*batch) (Fixture *self), guint n_processors, guint most, guint most_yields)
{
  Fixture self = { .loop = bg_loop_new ("counts", NULL) };
  guint called, yielded, allocated;
  gint64 start = g_get_monotonic_time ();
  gint64 patience = start + PATIENCE;
  double ours = get_idle_seconds (n_processors) + get_own_seconds (), all_seconds;
  cpu_set_t all;

  g_assert_nonnull (self.loop);
  sched_getaffinity (0, sizeof all, &all);

  /* The scheduler may put both threads on one processor, and leave them there. */
  bg_loop_post (self.loop, use_processor_cb, GUINT_TO_POINTER (n_processors - 1), NULL);
  use_processor (0);

  warm_up (&self, batch);
  allocated = n_allocations;
  do
    {
      called = n_system_calls;
      yielded = n_yields;
      batch (&self);
      called = n_system_calls - called;
      yielded = n_yields - yielded;
    }
  while ((called > most || yielded > most_yields) && g_get_monotonic_time () < patience);
  allocated = n_allocations - allocated;

  sched_setaffinity (0, sizeof all, &all);
  util_loop_end (self.loop);

  ours = get_idle_seconds (n_processors) + get_own_seconds () - ours;
  all_seconds = (g_get_monotonic_time () - start) / 1e6 * n_processors;
  g_test_message (
      "%u allocations, %u system calls, %u yields in a batch of %u; others had %.2f of %.2f s",
      allocated, called, yielded, BATCH, all_seconds - ours, all_seconds);
  g_assert_cmpuint (allocated, ==, 0);
  if ((called > most || yielded > most_yields) && ours < all_seconds * UNDISTURBED)
    {
      g_test_skip ("other programs had the processor in each batch");
      return;
    }
  g_assert_cmpuint (called, <=, most);
  g_assert_cmpuint (yielded, <=, most_yields);
}

static void
test_post (void)
{
  guint n_processors = g_get_num_processors ();

  if (can_count ())
    assert_counts (post_batch, MIN (n_processors, 2), BATCH / 100, BATCH / 100);
}

static void
test_call (void)
{
  if (!can_count ())
    return;
  if (g_get_num_processors () == 1)
    {
      g_test_skip ("a call without a system call needs a second processor");
      return;
    }

  assert_counts (call_batch, 2, 0, 0);
}

/* On one processor each of the two lets the other run once for each call, and nobody
 * sleeps or is woken. */
static void
test_call_one_processor (void)
{
  if (can_count ())
    assert_counts (call_batch, 1, 0, 2 * BATCH);
}

/* For count-instructions.py: @n posts, nothing else that depends on @n. The loop
 * begins when all are queued and stays awake for none, and the clock stands still,
 * as it would run far ahead of a program that is being counted. */

static gboolean clock_stands;

gint64
g_get_monotonic_time (void)
{
  static gint64 (*next) (void);

  if (next == NULL)
    next = (gint64 (*) (void)) dlsym (RTLD_NEXT, "g_get_monotonic_time");
  return clock_stands ? 1 : next ();
}

static int
flood (guint n)
{
  Fixture self = { .loop = util_loop_new ("counts") };
  UtilBlock block;

  clock_stands = TRUE;
  g_object_set (self.loop, "linger", 0, NULL);
  util_block (&block, self.loop);
  for (guint i = 0; i < n; i++)
    bg_loop_post (self.loop, count_cb, &self, NULL);
  util_unblock (&block);
  bg_loop_flush (self.loop, -1, NULL, NULL);

  util_block_clear (&block);
  util_loop_end (self.loop);
  return self.ran == n ? 0 : 1;
}

int
main (int argc, char *argv[])
{
  if (argc == 3 && g_str_equal (argv[1], "--flood"))
    return flood ((guint) atoi (argv[2]));

  util_init (&argc, &argv);

  g_test_add_func ("/counts/post", test_post);
  g_test_add_func ("/counts/call", test_call);
  /* Otherwise a loop does not know that a caller is on its processor, and stays awake for it. */
  if (HAVE_SCHED_GETCPU)
    g_test_add_func ("/counts/call/one-processor", test_call_one_processor);

  return g_test_run ();
}
