/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

#include <unistd.h>

/* Mixed load for a long time: what the process has of memory, descriptors and threads does not
 * grow with the past. It goes in rounds. In each of them many loops are made, used by some threads
 * that also end them and make others, and ended; then what there is is counted.
 *
 * BGLOOP_SOAK_SECONDS says for how long. It decides when to end, and nothing else. */

#define N_LOOPS   64
#define N_THREADS 4

/* Rounds that there is room for from the start, so that the figures take no more in the end. */
#define N_MOST 200000

/* Rounds until the caches have what they keep, and those that are compared at least. */
#define N_WARM  4
#define N_LEAST 12

/* What the caches and the allocators may differ by from one round to another: a leak of one
 * object in each round is more, after some minutes. */
#define ALLOCATED_SPARE (64 * 1024)
#define RESIDENT_SPARE  (4 * 1024 * 1024)

typedef struct
{
  GMutex lock;
  BgLoop *loop; /* (owned) under lock */
} Slot;

static Slot slots[N_LOOPS];

/* In all threads. */
static int n_given, n_destroyed; /* pieces of work with a destroy notify */
static int n_ops, n_made;        /* for the figures */

typedef struct
{
  GRand *random;
  GCancellable *cancellable; /* that nothing cancels */
  guint n_pending;           /* replies that are to come */
} User;

static void
destroyed_cb (gpointer data)
{
  g_atomic_int_inc (&n_destroyed);
}

/* Whoever is refused has the destroy notify run as well. */
static void
give (void)
{
  g_atomic_int_inc (&n_given);
}

static BgLoop *
get_loop (Slot *slot)
{
  BgLoop *loop;

  g_mutex_lock (&slot->lock);
  loop = g_object_ref (slot->loop);
  g_mutex_unlock (&slot->lock);
  return loop;
}

static BgLoop *
renew_loop (Slot *slot)
{
  BgLoop *old, *loop = util_loop_new ("soak");

  g_mutex_lock (&slot->lock);
  old = g_steal_pointer (&slot->loop);
  slot->loop = loop;
  g_mutex_unlock (&slot->lock);
  g_atomic_int_inc (&n_made);
  return old;
}

/* What a thread does with a loop, which another thread may be ending. */

static void
post_many (BgLoop *loop, User *self)
{
  guint n = (guint) g_rand_int_range (self->random, 1, 200);

  for (guint i = 0; i < n; i++)
    {
      give ();
      bg_loop_post_full (loop, g_rand_int_range (self->random, -2, 3) * 100, util_nothing_cb, NULL,
                         destroyed_cb);
    }
}

static void
invoke_one (BgLoop *loop, User *self)
{
  give ();
  bg_loop_invoke_full (loop, G_PRIORITY_DEFAULT, util_remove_cb, NULL, destroyed_cb);
}

static void
call_some (BgLoop *loop, User *self)
{
  for (guint i = 0; i < 5; i++)
    bg_loop_call_full (loop, G_PRIORITY_DEFAULT, g_rand_int_range (self->random, -1, 3),
                       util_true_cb, NULL, i % 2 == 0 ? self->cancellable : NULL, NULL);
}

static void
called_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_loop_call_finish (BG_LOOP (source), result, NULL);
  ((User *) user_data)->n_pending--;
}

static void
call_async (BgLoop *loop, User *self)
{
  self->n_pending++;
  give ();
  bg_loop_call_async (loop, G_PRIORITY_DEFAULT, g_rand_int_range (self->random, -1, 3),
                      util_true_cb, NULL, destroyed_cb, self->cancellable, called_cb, self);
}

static void
performed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GAsyncResult *answer = bg_loop_perform_finish (BG_LOOP (source), result, NULL);

  g_clear_object (&answer);
  ((User *) user_data)->n_pending--;
}

static void
perform (BgLoop *loop, User *self)
{
  GAsyncResult *answer
      = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, util_begin_cb, NULL, NULL, NULL);

  g_clear_object (&answer);
  self->n_pending++;
  give ();
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, util_begin_cb, NULL, destroyed_cb, NULL,
                         performed_cb, self);
}

static void
flush (BgLoop *loop, User *self)
{
  bg_loop_flush (loop, g_rand_int_range (self->random, -1, 3), NULL, NULL);
}

/* Half of it is withdrawn, the rest comes in time or is dropped at the end. */
static void
delay (BgLoop *loop, User *self)
{
  for (guint i = 0; i < 10; i++)
    {
      guint delay_msec = (guint) g_rand_int_range (self->random, 0, i % 3 == 0 ? 100000 : 3);
      guint64 work;

      give ();
      work = bg_loop_post_after (loop, delay_msec, util_nothing_cb, NULL, destroyed_cb);
      if (i % 2 == 0 && work != 0)
        bg_loop_withdraw (loop, work);
    }
}

static void
attach (BgLoop *loop, User *self)
{
  g_autoptr (GSource) source = g_timeout_source_new (1);

  give ();
  g_source_set_callback (source, util_remove_cb, NULL, destroyed_cb);
  if (!bg_loop_attach (loop, source))
    g_source_destroy (source);
}

static void
hold (BgLoop *loop, User *self)
{
  guint64 id = bg_loop_hold (loop, "soak");

  if (id != 0)
    bg_loop_release (loop, id);
}

static void
tear_down (BgLoop *loop, User *self)
{
  guint64 teardown;

  give ();
  teardown = bg_loop_add_teardown (loop, util_nothing_cb, NULL, destroyed_cb);
  if (teardown != 0 && g_rand_boolean (self->random))
    bg_loop_remove_teardown (loop, teardown);
}

static void
look (BgLoop *loop, User *self)
{
  char *text = bg_loop_describe (loop);
  BgLoopStats *stats = bg_loop_get_stats (loop);

  g_free (text);
  bg_loop_stats_free (stats);
}

static void (*const ops[]) (BgLoop *loop, User *self)
    = { post_many, invoke_one, call_some, call_async, perform, flush,
        delay,     attach,     hold,      tear_down,  look };

static void
ended_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_loop_shutdown_finish (BG_LOOP (source), result, NULL);
  ((User *) user_data)->n_pending--;
}

/* Another loop in the place of one that ends in one way or another. */
static void
end_one (Slot *slot, User *self)
{
  g_autoptr (BgLoop) loop = renew_loop (slot);
  BgShutdownMode mode = g_rand_boolean (self->random) ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL;

  switch (g_rand_int_range (self->random, 0, 4))
    {
    case 0:
      bg_loop_shutdown_full (loop, mode, -1, NULL, NULL);
      break;
    case 1:
      self->n_pending++;
      bg_loop_shutdown_async (loop, mode, -1, NULL, ended_cb, self);
      break;
    case 2:
      bg_loop_quit (loop, mode);
      bg_loop_wait (loop, -1, NULL, NULL);
      break;
    default:
      break; /* the last reference goes */
    }
}

static gpointer
use_thread (gpointer data)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  User self = { .random = g_rand_new_with_seed (GPOINTER_TO_UINT (data)) };
  guint n = util_scale_at_least (300, 30);

  self.cancellable = g_cancellable_new ();
  g_main_context_push_thread_default (context);
  for (guint i = 0; i < n; i++)
    {
      Slot *slot = &slots[g_rand_int_range (self.random, 0, N_LOOPS)];
      g_autoptr (BgLoop) loop = get_loop (slot);

      ops[(guint) g_rand_int_range (self.random, 0, G_N_ELEMENTS (ops))](loop, &self);
      g_clear_object (&loop);
      if (g_rand_int_range (self.random, 0, 10) == 0)
        end_one (slot, &self);
      g_main_context_iteration (context, FALSE);
    }
  while (self.n_pending > 0)
    g_main_context_iteration (context, TRUE);
  g_main_context_pop_thread_default (context);

  g_atomic_int_add (&n_ops, (int) n);
  g_object_unref (self.cancellable);
  g_rand_free (self.random);
  return NULL;
}

/* Counting */

typedef struct
{
  guint n_fds;
  guint n_threads;
  gsize allocated;
  gsize resident;
} Usage;

static gsize
get_resident (void)
{
  g_autofree char *text = NULL;
  char *end;

  if (!g_file_get_contents ("/proc/self/statm", &text, NULL, NULL))
    return 0;
  g_ascii_strtoull (text, &end, 10);
  return g_ascii_strtoull (end, NULL, 10) * (gsize) sysconf (_SC_PAGESIZE);
}

/* @n_threads is what there is of threads when there is no loop. */
static void
run_round (guint n_threads, Usage *usage)
{
  GThread *threads[N_THREADS];

  for (guint i = 0; i < N_LOOPS; i++)
    g_assert_null (renew_loop (&slots[i]));
  for (guint i = 0; i < N_THREADS; i++)
    threads[i] = g_thread_new ("user", use_thread, GUINT_TO_POINTER (g_test_rand_int ()));
  for (guint i = 0; i < N_THREADS; i++)
    g_thread_join (threads[i]);
  for (guint i = 0; i < N_LOOPS; i++)
    util_loop_end (g_steal_pointer (&slots[i].loop));

  /* Loops that end with their last reference have nobody who waits for them. */
  util_wait_for_threads (n_threads);
  util_loop_end (util_loop_new ("last"));
  g_assert_cmpint (n_destroyed, ==, n_given);

  usage->n_fds = util_count_fds ();
  usage->n_threads = util_count_threads ();
  usage->allocated = util_get_allocated ();
  usage->resident = get_resident ();
}

/* The most in rounds from @first on, of which there are @n. */
static Usage
get_most (GArray *rounds, guint first, guint n)
{
  Usage most = { 0 };

  for (guint i = first; i < first + n; i++)
    {
      Usage *usage = &g_array_index (rounds, Usage, i);

      most.n_fds = MAX (most.n_fds, usage->n_fds);
      most.n_threads = MAX (most.n_threads, usage->n_threads);
      most.allocated = MAX (most.allocated, usage->allocated);
      most.resident = MAX (most.resident, usage->resident);
    }
  return most;
}

static void
test_soak (void)
{
  g_autoptr (GArray) rounds = g_array_sized_new (FALSE, FALSE, sizeof (Usage), N_MOST);
  const char *text = g_getenv ("BGLOOP_SOAK_SECONDS");
  gint64 end = g_get_monotonic_time ()
               + (text != NULL ? g_ascii_strtoll (text, NULL, 10) : 0) * G_TIME_SPAN_SECOND;
  Usage early, late;
  guint third, n_threads;

  /* GLib's own thread begins with the class of tasks, and stays. */
  g_type_class_unref (g_type_class_ref (G_TYPE_TASK));
  n_threads = util_count_threads ();
  while (rounds->len < N_WARM + N_LEAST || g_get_monotonic_time () < end)
    {
      Usage usage;

      run_round (n_threads, &usage);
      g_array_append_val (rounds, usage);
      util_go_on ();
    }

  third = (rounds->len - N_WARM) / 3;
  early = get_most (rounds, N_WARM, third);
  late = get_most (rounds, rounds->len - third, third);
  g_test_message ("%u rounds, %d operations, %d loops; at first %" G_GSIZE_FORMAT
                  " bytes allocated, %" G_GSIZE_FORMAT
                  " resident, %u descriptors; at last %" G_GSIZE_FORMAT ", %" G_GSIZE_FORMAT ", %u",
                  rounds->len, n_ops, n_made, early.allocated, early.resident, early.n_fds,
                  late.allocated, late.resident, late.n_fds);
  g_assert_cmpuint (late.n_fds, ==, early.n_fds);
  g_assert_cmpuint (late.n_threads, ==, early.n_threads);
  g_assert_cmpuint (late.allocated, <=, early.allocated + ALLOCATED_SPARE);
  /* A sanitizer's allocator, which does not tell, keeps what was freed. An emulator keeps something
   * of each thread. */
  if (late.allocated > 0 && !util_is_emulated ())
    g_assert_cmpuint (late.resident, <=, early.resident + RESIDENT_SPARE);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/soak", test_soak);

  return g_test_run ();
}
