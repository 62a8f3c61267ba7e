/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <sched.h>
#include <unistd.h>

#include <glib.h>

#include "base/bg-macros-private.h"

/* For how long somebody stays awake is told by a clock of the test's own, which goes on
 * by a microsecond with each look at it. So the insides are part of this program. There
 * are two processors, and whoever is waited for is on the other one. Pauses between two
 * looks that are not at the clock are counted. */

#define THIS_PROCESSOR  8
#define OTHER_PROCESSOR 7

static guint n_pauses;

#undef BG_CPU_RELAX
#define BG_CPU_RELAX() ((void) n_pauses++)

static gint64 look_at_clock_of_test (void);
static int get_processor_of_test (void);
static long get_n_processors_of_test (int name);

#define g_get_monotonic_time look_at_clock_of_test
#define sched_getcpu         get_processor_of_test
#define sysconf              get_n_processors_of_test
#include "base/bg-spin.c"
#include "base/bg-waiter.c"
#include "inbox/bg-linger.c"
#undef g_get_monotonic_time
#undef sched_getcpu
#undef sysconf

#include "util.h"

/* What a spin may take longer than it should: the looks that it takes to see that. */
#define LOOKS_TO_END 3

#define MAX_USEC 1000

static gint64 now = 1000000;
static gint64 event_at; /* 0: none */
static void (*event) (gpointer data);
static gpointer event_data;

static gint64
look_at_clock_of_test (void)
{
  now++;
  if (event_at != 0 && now >= event_at)
    {
      event_at = 0;
      event (event_data);
    }
  return now;
}

G_GNUC_UNUSED static int
get_processor_of_test (void)
{
  return THIS_PROCESSOR;
}

static long
get_n_processors_of_test (int name)
{
  return 2;
}

static void
let_happen_in (guint usec, void (*func) (gpointer data), gpointer data)
{
  event_at = now + usec;
  event = func;
  event_data = data;
}

static void
assert_took (gint64 since, guint least, guint most)
{
  g_assert_cmpint (now - since, >=, least);
  g_assert_cmpint (now - since, <=, most + LOOKS_TO_END);
}

/* The property */

static void
test_property (void)
{
  BgLoop *loop = util_loop_new ("linger");
  GParamSpec *pspec = g_object_class_find_property (G_OBJECT_GET_CLASS (loop), "linger");
  g_auto (GValue) more = G_VALUE_INIT;
  guint linger;

  g_assert_true (G_IS_PARAM_SPEC_UINT (pspec));
  g_assert_cmpuint (G_PARAM_SPEC_UINT (pspec)->minimum, ==, 0);
  g_assert_cmpuint (G_PARAM_SPEC_UINT (pspec)->maximum, ==, MAX_USEC);
  g_assert_cmpuint (G_PARAM_SPEC_UINT (pspec)->default_value, <=, 100);

  g_value_init (&more, G_TYPE_UINT);
  g_value_set_uint (&more, MAX_USEC + 1);
  g_assert_true (g_param_value_validate (pspec, &more));
  g_assert_cmpuint (g_value_get_uint (&more), ==, MAX_USEC);
  g_object_set (loop, "linger", MAX_USEC, NULL);
  g_object_get (loop, "linger", &linger, NULL);
  g_assert_cmpuint (linger, ==, MAX_USEC);
  util_loop_end (loop);
}

/* What never happens */

static const guint limits[] = { 0, 1, 10, 50, 51, 300, MAX_USEC };

static gboolean
never (gpointer data)
{
  return FALSE;
}

/* Up to the default it learns that this does not pay; beyond, it stays. */
static void
test_limit (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (limits); i++)
    {
      gboolean forced = limits[i] > BG_LINGER_USEC;
      BgSpin spin = { 0 };

      for (guint j = 0; j < 10; j++)
        {
          gint64 since = now;

          g_assert_false (bg_spin (&spin, limits[i], never, NULL));
          assert_took (since, forced || j == 0 ? limits[i] : 0, limits[i]);
        }
    }
}

/* A blocked caller */

static BgWaiter *
spin (guint limit_usec, gint64 deadline, GCancellable *cancellable)
{
  BgWaiter *waiter = bg_waiter_take (cancellable);

  waiter->spin = (BgSpin){ 0 };
  bg_waiter_spin (waiter, limit_usec, deadline, TRUE);
  return waiter;
}

static void
test_deadline (void)
{
  static const guint lefts[] = { 1, 10, 49, 299, 10000 };

  for (guint i = 0; i < G_N_ELEMENTS (limits) * G_N_ELEMENTS (lefts); i++)
    {
      guint limit = limits[i / G_N_ELEMENTS (lefts)], left = lefts[i % G_N_ELEMENTS (lefts)];
      gint64 since = now;

      bg_waiter_give_back (spin (limit, now + left, NULL), NULL);
      assert_took (since, 0, MIN (limit, left));

      /* It is over already. */
      since = now;
      bg_waiter_give_back (spin (limit, now - left, NULL), NULL);
      assert_took (since, 0, 0);

      /* There is none. */
      since = now;
      bg_waiter_give_back (spin (limit, -1, NULL), NULL);
      assert_took (since, limit, limit);
    }
}

static void
test_cancelled (void)
{
  static const guint moments[] = { 1, 20, 200, 900 };

  for (guint i = 0; i < G_N_ELEMENTS (moments); i++)
    {
      g_autoptr (GCancellable) cancellable = g_cancellable_new ();
      BgWaiter *waiter;
      gint64 since = now;

      let_happen_in (moments[i], util_cancel_cb, cancellable);
      waiter = spin (MAX_USEC, -1, cancellable);
      assert_took (since, moments[i], moments[i]);
      g_assert_cmpint (bg_waiter_wait (waiter, -1), ==, BG_WAIT_CANCELLED);
      bg_waiter_give_back (waiter, cancellable);

      /* Before */
      since = now;
      bg_waiter_give_back (spin (MAX_USEC, -1, cancellable), cancellable);
      assert_took (since, 0, 0);
    }
}

static void
complete (gpointer waiter)
{
  bg_waiter_complete (waiter);
}

static void
test_answered (void)
{
  BgWaiter *waiter = bg_waiter_take (NULL);
  gint64 since = now;

  waiter->spin = (BgSpin){ 0 };
  let_happen_in (200, complete, waiter);
  bg_waiter_spin (waiter, MAX_USEC, -1, TRUE);
  assert_took (since, 200, 200);
  bg_waiter_give_back (waiter, NULL);
}

/* A loop that has nothing to do */

typedef struct
{
  GMainContext *context;
  BgInbox inbox;
} Idle;

static Idle *
idle_new (guint linger)
{
  Idle *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);

  self->context = g_main_context_new ();
  bg_inbox_init (&self->inbox, self->context, NULL, NULL, BG_LOCK_CORE);
  atomic_store (&self->inbox.linger.n_expected, 1);
  atomic_store (&self->inbox.linger.usec, linger);
  atomic_store (&self->inbox.linger.poster_processor, OTHER_PROCESSOR);
  return self;
}

static void
idle_free (Idle *self)
{
  bg_inbox_stop (&self->inbox);
  bg_inbox_clear (&self->inbox);
  g_main_context_unref (self->context);
  g_aligned_free (self);
}

static void
test_due (void)
{
  static const guint lefts[] = { 1, 10, 49, 299, 10000 };

  for (guint i = 0; i < G_N_ELEMENTS (limits) * G_N_ELEMENTS (lefts); i++)
    {
      guint limit = limits[i / G_N_ELEMENTS (lefts)], left = lefts[i % G_N_ELEMENTS (lefts)];
      Idle *self = idle_new (limit);
      gint64 since = now;

      atomic_store (&self->inbox.linger.due_at, now + left);
      g_assert_false (bg_linger_for_more (&self->inbox));
      assert_took (since, 0, MIN (limit, left));

      /* It is due already. */
      since = now;
      g_assert_false (bg_linger_for_more (&self->inbox));
      if (left < limit)
        assert_took (since, 0, 0);

      /* There is nothing that is ever due. */
      self->inbox.history.spin = (BgSpin){ 0 };
      atomic_store (&self->inbox.linger.due_at, -1);
      since = now;
      g_assert_false (bg_linger_for_more (&self->inbox));
      assert_took (since, limit, limit);
      idle_free (self);
    }
}

static void
hurry (gpointer inbox)
{
  bg_linger_interrupt (inbox);
}

static void
append (gpointer inbox)
{
  bg_inbox_lock (inbox);
  bg_inbox_append (inbox, G_PRIORITY_DEFAULT, NULL, NULL, NULL, NULL);
  bg_inbox_unlock (inbox);
}

/* Work, or something else that is to be done, ends it. */
static void
test_something_to_do (void)
{
  Idle *self = idle_new (MAX_USEC);
  gint64 since = now;

  let_happen_in (200, hurry, &self->inbox);
  g_assert_true (bg_linger_for_more (&self->inbox));
  assert_took (since, 200, 200);
  atomic_store (&self->inbox.linger.interrupted, FALSE);

  since = now;
  let_happen_in (200, append, &self->inbox);
  g_assert_true (bg_linger_for_more (&self->inbox));
  assert_took (since, 200, 200);
  idle_free (self);
}

/* Where no work is to be expected, or something else is to come first, it does not
 * linger at all. */
static void
test_nothing_expected (void)
{
  Idle *self = idle_new (MAX_USEC);
  gint64 since = now;

  atomic_store (&self->inbox.linger.n_expected, 0);
  g_assert_false (bg_linger_for_more (&self->inbox));
  atomic_store (&self->inbox.linger.n_expected, 1);
  atomic_store (&self->inbox.linger.n_pending, 1);
  g_assert_false (bg_linger_for_more (&self->inbox));
  assert_took (since, 0, 0);
  idle_free (self);
}

/* Where the poster needs this processor, a loop lets it run at most, and only one that has just
 * been answered. */
static void
test_same_processor (void)
{
  Idle *self = idle_new (MAX_USEC);
  gint64 since = now;

  atomic_store (&self->inbox.linger.poster_processor, THIS_PROCESSOR);
  for (int was_awaited = FALSE; was_awaited <= TRUE; was_awaited++)
    {
      self->inbox.history.was_awaited = was_awaited;
      g_assert_false (bg_linger_for_more (&self->inbox));
      assert_took (since, 0, 0);
    }
  idle_free (self);
}

/* How long nothing came is counted without the time that it took to wake who sends the next
 * work. */
static void
test_poster_slept (void)
{
  for (int slept = FALSE; slept <= TRUE; slept++)
    {
      Idle *self = idle_new (MAX_USEC);

      self->inbox.history.spin.began = now;
      self->inbox.woken_at = now + BG_WAKE_USEC;
      if (slept)
        bg_linger_note_wakeup (&self->inbox);
      bg_linger_learn (&self->inbox);
      g_assert_cmpint (self->inbox.woken_at, ==, 0);
      if (slept)
        g_assert_cmpuint (self->inbox.history.spin.average, ==, 0);
      else
        g_assert_cmpuint (self->inbox.history.spin.average, >, 0);
      idle_free (self);
    }
}

/* More work is let gather */

static guint
count_pauses (Idle *self)
{
  n_pauses = 0;
  bg_linger_coalesce (&self->inbox);
  return n_pauses;
}

static void
test_gathers (void)
{
  Idle *self = idle_new (MAX_USEC);

  g_assert_cmpuint (count_pauses (self), ==, COALESCE_POLLS);
  self->inbox.history.batch_size = BG_LINGER_SMALL_BATCH - 1;
  g_assert_cmpuint (count_pauses (self), ==, COALESCE_POLLS);
  self->inbox.history.batch_size = BG_LINGER_SMALL_BATCH;
  g_assert_cmpuint (count_pauses (self), ==, 0);
  self->inbox.history.batch_size = 0;

  bg_linger_set_awaited (&self->inbox);
  g_assert_cmpuint (count_pauses (self), ==, 0);
  atomic_store (&self->inbox.linger.awaited, FALSE);

  bg_linger_interrupt (&self->inbox);
  g_assert_cmpuint (count_pauses (self), ==, 0);
  atomic_store (&self->inbox.linger.interrupted, FALSE);

  /* Whoever has this processor would only be kept from it, where that is known. */
  atomic_store (&self->inbox.linger.poster_processor, THIS_PROCESSOR);
  g_assert_cmpuint (count_pauses (self), ==, HAVE_SCHED_GETCPU ? 0 : COALESCE_POLLS);
  idle_free (self);
}

/* A running loop is told of whatever comes otherwise than as a record, so that it does not
 * linger beside it. */

typedef void (*BringFunc) (BgLoop *loop);

static void
invoke (BgLoop *loop)
{
  g_assert_true (bg_loop_invoke (loop, util_remove_cb, NULL));
}

static void
attach (BgLoop *loop)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, util_remove_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
}

static void
post_after (BgLoop *loop)
{
  g_assert_cmpuint (bg_loop_post_after (loop, G_MAXINT, util_nothing_cb, NULL, NULL), !=, 0);
}

static void
drain (BgLoop *loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

static void
cancel (BgLoop *loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
}

/* The source of a lane leads to it. */
static BgInbox *
find_inbox (BgLoop *loop)
{
  GMainContext *context = bg_loop_get_context (loop);
  GSource *source = NULL;

  for (guint id = 1; source == NULL; id++)
    {
      source = g_main_context_find_source_by_id (context, id);
      if (source != NULL && g_strcmp0 (g_source_get_name (source), "bgloop inbox") != 0)
        source = NULL;
    }
  return ((BgLaneSource *) source)->lane->inbox;
}

static void
run_told (BringFunc bring)
{
  BgLoop *loop = util_loop_new ("told");
  BgInbox *inbox = find_inbox (loop);
  UtilBlock block;

  /* While a function runs the loop does not forget what it was told. */
  util_block (&block, loop);
  atomic_store (&inbox->linger.interrupted, FALSE);
  bring (loop);
  g_assert_true (atomic_load (&inbox->linger.interrupted));
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

static void
test_told (void)
{
  static const BringFunc ways[] = { invoke, attach, post_after, drain, cancel };

  for (guint i = 0; i < G_N_ELEMENTS (ways); i++)
    run_told (ways[i]);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/linger/property", test_property);
  g_test_add_func ("/linger/not-beyond-its-limit", test_limit);
  g_test_add_func ("/linger/caller/not-beyond-the-deadline", test_deadline);
  g_test_add_func ("/linger/caller/not-beyond-a-cancellation", test_cancelled);
  g_test_add_func ("/linger/caller/not-beyond-the-answer", test_answered);
  g_test_add_func ("/linger/loop/not-beyond-what-is-due", test_due);
  g_test_add_func ("/linger/loop/not-beyond-the-next-thing-to-do", test_something_to_do);
  g_test_add_func ("/linger/loop/not-when-nothing-is-expected", test_nothing_expected);
  if (HAVE_SCHED_GETCPU)
    g_test_add_func ("/linger/loop/not-where-its-poster-is", test_same_processor);
  g_test_add_func ("/linger/loop/learns-without-wake-ups", test_poster_slept);
  g_test_add_func ("/linger/loop/lets-work-gather", test_gathers);
  g_test_add_func ("/linger/loop/is-told-of-other-work", test_told);

  return g_test_run ();
}
