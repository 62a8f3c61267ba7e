/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static BgLoop *
dup_default (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = bg_loop_dup_default (&error);

  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  return loop;
}

static void
assert_reset (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_reset_default (-1, &error));
  g_assert_no_error (error);
}

/* None exists until asked for; it is shared; when the last reference goes it
 * ends, and the next call starts a fresh one. */
static void
test_life (void)
{
  guint threads, fds;
  BgLoop *loop, *same;
  int destroyed = 0;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  assert_reset ();
  g_assert_cmpuint (util_count_threads (), ==, threads);

  for (guint i = 0; i < 10; i++)
    {
      loop = dup_default ();
      same = dup_default ();
      g_assert_true (loop == same);
      g_assert_cmpuint (util_count_threads (), ==, threads + 1);
      g_assert_true (bg_loop_post (loop, util_count_cb, &destroyed, util_count_cb));
      g_object_unref (loop);
      g_assert_cmpint (bg_loop_get_state (same), ==, BG_LOOP_RUNNING);
      g_object_unref (same);
      util_wait_for_threads (threads);
      g_assert_cmpint (g_atomic_int_get (&destroyed), ==, 2 * (i + 1));
    }

  g_assert_cmpuint (util_count_fds (), ==, fds);
}

/* Another loop that goes leaves it alone. */
static void
test_others_go (void)
{
  BgLoop *other = util_loop_new ("another");
  g_autoptr (BgLoop) loop = dup_default ();
  g_autoptr (BgLoop) same = NULL;

  util_loop_shut_down (other);
  g_assert_finalize_object (other);
  same = dup_default ();
  g_assert_true (same == loop);
}

/* After a shutdown, of whatever way, the next is fresh. */
static void
test_after_shutdown (void)
{
  for (guint way = 0; way < 4; way++)
    {
      g_autoptr (BgLoop) first = dup_default ();
      g_autoptr (BgLoop) second = NULL;

      if (way == 0)
        g_assert_true (bg_loop_shutdown (first, NULL));
      else if (way == 1)
        bg_loop_quit (first, BG_SHUTDOWN_CANCEL);
      else if (way == 2)
        assert_reset ();
      else
        g_assert_false (bg_loop_shutdown_full (first, BG_SHUTDOWN_DRAIN, 0, NULL, NULL)
                        && bg_loop_get_state (first) != BG_LOOP_STOPPED);

      second = dup_default ();
      g_assert_true (second != first);
      if (way == 2)
        g_assert_cmpint (bg_loop_get_state (first), ==, BG_LOOP_STOPPED);
      assert_reset ();
      g_assert_cmpint (bg_loop_get_state (second), ==, BG_LOOP_STOPPED);
    }
}

/* A reset that misses its deadline has forgotten the loop all the same. */
static void
test_reset_timeout (void)
{
  guint64 since = bg_test_mark_loops ();
  BgLoop *stuck = dup_default ();
  guint64 hold = bg_loop_hold (stuck, "stuck");
  g_autoptr (GError) error = NULL;
  g_autofree char *described = NULL;
  BgLoop *fresh;

  g_assert_false (bg_loop_reset_default (1, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_nonnull (g_strstr_len (error->message, -1, "held by \"stuck\" for "));
  described = bg_test_describe_loops (since, 0);
  g_assert_true (g_str_has_prefix (described, "the loop \"default\", "));
  fresh = dup_default ();
  g_assert_true (fresh != stuck);
  g_assert_cmpint (bg_loop_get_state (stuck), ==, BG_LOOP_STOPPING);
  assert_reset ();
  g_assert_cmpint (bg_loop_get_state (stuck), ==, BG_LOOP_STOPPING);
  bg_loop_release (stuck, hold);
  util_loop_end (stuck);
  g_assert_finalize_object (fresh);
}

/* A reset that waits forgets the loop that it waits for, not the one that has been made
 * meanwhile. */

static gpointer
reset_thread (gpointer data)
{
  assert_reset ();
  return NULL;
}

static void
test_reset_late (void)
{
  BgLoop *held = dup_default ();
  guint64 hold = bg_loop_hold (held, "late");
  GThread *thread = g_thread_new ("reset", reset_thread, NULL);
  BgLoop *fresh, *same;

  while (bg_loop_get_state (held) == BG_LOOP_RUNNING)
    g_thread_yield ();
  fresh = dup_default ();
  g_assert_true (fresh != held);
  bg_loop_release (held, hold);
  g_thread_join (thread);
  g_assert_finalize_object (held);
  same = dup_default ();
  g_assert_true (same == fresh);
  g_object_unref (same);
  g_assert_finalize_object (fresh);
}

/* On its own thread a reset is refused, and nothing changes. */
static void
reset_cb (gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = NULL;

  g_assert_false (bg_loop_reset_default (-1, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  loop = dup_default ();
  g_assert_true (loop == user_data);
  g_assert_true (bg_loop_is_current (loop));
}

static void
test_reset_own_thread (void)
{
  BgLoop *loop = dup_default ();

  g_assert_true (bg_loop_post (loop, reset_cb, loop, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  assert_reset ();
  g_assert_finalize_object (loop);
}

/* With a timeout of 0 a reset asks without waiting, which closes no circle; on the loop's
 * own thread it is refused all the same. */

static gboolean
ask_back_cb (gpointer user_data, GError **error)
{
  g_autoptr (GError) local = NULL;

  g_assert_false (bg_loop_reset_default (-1, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_clear_error (&local);
  g_assert_cmpint (bg_loop_get_state (user_data), ==, BG_LOOP_RUNNING);
  g_assert_false (bg_loop_reset_default (0, &local));
  g_assert_error (local, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_cmpint (bg_loop_get_state (user_data), ==, BG_LOOP_STOPPING);
  return TRUE;
}

static gboolean
call_other_cb (gpointer user_data, GError **error)
{
  BgLoop **loops = user_data;
  g_autoptr (GError) local = NULL;

  g_assert_false (bg_loop_reset_default (0, &local));
  g_assert_error (local, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (loops[0]), ==, BG_LOOP_RUNNING);
  return bg_loop_call (loops[1], ask_back_cb, loops[0], NULL, error);
}

static void
test_reset_asks (void)
{
  BgLoop *loops[] = { dup_default (), util_loop_new ("asks") };
  g_autoptr (GError) error = NULL;
  BgLoop *fresh;

  g_assert_true (bg_loop_call (loops[0], call_other_cb, loops, NULL, &error));
  g_assert_no_error (error);
  fresh = dup_default ();
  g_assert_true (fresh != loops[0]);
  assert_reset ();
  util_loop_end (loops[0]);
  util_loop_end (loops[1]);
  util_loop_end (fresh);
}

/* Many threads take it, use it, drop it and reset it: each gets one that runs,
 * and there is never a second one that nobody has ended. */

typedef struct
{
  int accepted;
  int destroyed;
  gboolean resets;
} Many;

static gpointer
many_thread (gpointer user_data)
{
  Many *self = user_data;

  for (guint i = 0; i < util_scale (300); i++)
    {
      g_autoptr (BgLoop) loop = bg_loop_dup_default (NULL);

      g_assert_true (BG_IS_LOOP (loop));
      if (bg_loop_post (loop, util_count_cb, &self->accepted, NULL))
        g_assert_true (bg_loop_post (loop, util_count_cb, &self->destroyed, util_count_cb)
                       || self->resets);
      if (self->resets && i % 7 == 0)
        assert_reset ();
    }
  return NULL;
}

static void
run_many (gboolean resets)
{
  Many self = { .resets = resets };
  guint threads, fds;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  fds = util_count_fds ();
  util_run_threads (6, many_thread, &self);
  util_wait_for_threads (threads);
  g_assert_cmpuint (util_count_fds (), ==, fds);
  if (!resets)
    g_assert_cmpint (g_atomic_int_get (&self.destroyed), ==, 2 * g_atomic_int_get (&self.accepted));
}

static void
test_many (void)
{
  run_many (FALSE);
  run_many (TRUE);
}

/* Nobody but the default loop itself holds the last reference. */
static void
test_dropped_by_itself (void)
{
  guint threads = util_count_threads ();

  util_loop_end (util_loop_new (NULL));
  for (guint i = 0; i < util_scale (100); i++)
    {
      BgLoop *loop = dup_default ();

      g_assert_true (bg_loop_post (loop, g_object_unref, loop, NULL));
      loop = dup_default ();
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      g_object_unref (loop);
    }
  util_wait_for_threads (threads);
}

/* Somebody takes it in the moment in which the last reference goes, and drops it
 * again: the next one is fresh all the same. */

static void (*loop_dispose) (GObject *object);
static guint n_taken;

static void
take_and_dispose (GObject *object)
{
  BgLoop *taken = dup_default ();

  g_assert_true (taken == BG_LOOP (object));
  n_taken++;
  loop_dispose (object);
  g_object_unref (taken);
}

static void
test_taken_while_it_goes (void)
{
  GObjectClass *klass = g_type_class_ref (BG_TYPE_LOOP);

  loop_dispose = klass->dispose;
  for (guint i = 0; i < 10; i++)
    {
      BgLoop *loop = dup_default ();
      GWeakRef weak;

      g_weak_ref_init (&weak, loop);
      klass->dispose = take_and_dispose;
      g_object_unref (loop);
      klass->dispose = loop_dispose;
      g_assert_cmpuint (n_taken, ==, i + 1);
      g_assert_null (g_weak_ref_get (&weak));
      g_weak_ref_clear (&weak);

      loop = dup_default ();
      assert_reset ();
      g_assert_finalize_object (loop);
    }
  g_type_class_unref (klass);
}

/* A source's own code may take it, also where that runs on the default loop's thread. */

static int n_finalized; /* atomic */

static void
finalize_with_default (GSource *source)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_default (NULL);

  g_assert_true (BG_IS_LOOP (loop));
  g_atomic_int_inc (&n_finalized);
}

static GSourceFuncs finalize_funcs = { .finalize = finalize_with_default };

static void
test_taken_by_finalizers (void)
{
  for (int i = 0; i < 10; i++)
    {
      BgLoop *loop = util_loop_new ("leaves a source");
      GSource *source = g_source_new (&finalize_funcs, sizeof (GSource));

      /* Whoever has the handle keeps the context. It is cleared up later. */
      g_assert_true (bg_loop_attach (loop, source));
      util_loop_end (loop);
      g_source_unref (source);

      loop = dup_default ();
      assert_reset ();
      g_assert_finalize_object (loop);
      /* The finalizer's own loop may just look at it. */
      while (g_atomic_int_get (&n_finalized) <= i)
        util_loop_end (util_loop_new ("sweeps"));
    }
}

/* Toggle references, as bindings have, tell when the loop is taken and dropped: what
 * they run may take it, too. */

typedef struct
{
  int n_toggles;
  gboolean takes;
  BgLoop *next;
} Toggled;

static void
toggle_cb (gpointer data, GObject *object, gboolean is_last)
{
  static _Thread_local gboolean within;
  Toggled *self = data;
  BgLoop *loop, *current;

  g_atomic_int_inc (&self->n_toggles);
  if (!self->takes || within)
    return;

  within = TRUE;
  loop = dup_default ();
  current = bg_loop_dup_current ();
  g_assert_true (current == NULL || (gpointer) current == (gpointer) object);
  g_clear_object (&loop);
  g_clear_object (&current);
  within = FALSE;
}

/* Only the toggle reference is left. */
static BgLoop *
make_toggled (Toggled *self)
{
  BgLoop *loop = dup_default ();

  g_object_add_toggle_ref (G_OBJECT (loop), toggle_cb, self);
  g_object_unref (loop);
  g_assert_cmpint (g_atomic_int_get (&self->n_toggles), >, 0);
  return loop;
}

static void
end_toggled (BgLoop *loop, Toggled *self)
{
  self->takes = FALSE;
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_object_add_weak_pointer (G_OBJECT (loop), (gpointer *) &loop);
  g_object_remove_toggle_ref (G_OBJECT (loop), toggle_cb, self);
  g_assert_null (loop);
}

static gboolean
take_there_cb (gpointer user_data, GError **error)
{
  g_autoptr (BgLoop) current = bg_loop_dup_current ();
  g_autoptr (BgLoop) loop = dup_default ();

  g_assert_true (current == loop);
  return TRUE;
}

static void
test_toggled (void)
{
  for (guint i = 0; i < 10; i++)
    {
      Toggled self = { .takes = TRUE };
      BgLoop *loop = make_toggled (&self);
      int n = self.n_toggles;

      for (guint j = 0; j < 10; j++)
        {
          g_autoptr (BgLoop) same = dup_default ();

          g_assert_true (same == loop);
          g_assert_cmpint (self.n_toggles, >, n);
          n = self.n_toggles;
          g_assert_true (bg_loop_call (loop, take_there_cb, NULL, NULL, NULL));
        }
      end_toggled (loop, &self);
    }
}

/* And it may reset it, and take the next one: whoever takes it then has that, too. */
static void
reset_in_toggle_cb (gpointer data, GObject *object, gboolean is_last)
{
  Toggled *self = data;

  g_atomic_int_inc (&self->n_toggles);
  if (!is_last && self->takes)
    {
      self->takes = FALSE;
      assert_reset ();
      self->next = dup_default ();
    }
}

static void
test_toggled_reset (void)
{
  for (guint i = 0; i < 10; i++)
    {
      Toggled self = { 0 };
      BgLoop *loop = dup_default ();
      g_autoptr (BgLoop) fresh = NULL;

      g_object_add_toggle_ref (G_OBJECT (loop), reset_in_toggle_cb, &self);
      g_object_unref (loop);
      self.takes = TRUE;
      fresh = dup_default ();
      g_assert_true (fresh != loop);
      g_assert_true (fresh == self.next);
      g_object_unref (self.next);
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
      g_object_remove_toggle_ref (G_OBJECT (loop), reset_in_toggle_cb, &self);
      assert_reset ();
    }
}

/* And it may dispose of it: whoever is just taking it has it all the same. */
static void
dispose_in_toggle_cb (gpointer data, GObject *object, gboolean is_last)
{
  Toggled *self = data;

  if (!is_last && self->takes)
    {
      self->takes = FALSE;
      g_object_run_dispose (object);
    }
}

static void
test_toggled_disposed (void)
{
  Toggled self = { 0 };
  BgLoop *loop = dup_default (), *taken;

  g_object_add_toggle_ref (G_OBJECT (loop), dispose_in_toggle_cb, &self);
  g_object_unref (loop);
  self.takes = TRUE;
  taken = dup_default ();
  g_assert_true (taken == loop);
  /* The toggle reference, and this one */
  g_assert_cmpuint (G_OBJECT (loop)->ref_count, ==, 2);
  g_assert_true (bg_loop_call (taken, util_true_cb, NULL, NULL, NULL));
  g_object_unref (taken);
  g_object_add_weak_pointer (G_OBJECT (loop), (gpointer *) &taken);
  g_object_remove_toggle_ref (G_OBJECT (loop), dispose_in_toggle_cb, &self);
  g_assert_null (taken);
}

/* Threads take and drop it, and the last reference comes and goes: who takes it here has
 * one that runs. */

static void
count_toggle_cb (gpointer data, GObject *object, gboolean is_last)
{
  g_clear_object (&(BgLoop *){ bg_loop_dup_current () });
  util_count_cb (data);
}

static gpointer
toggle_thread (gpointer data)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      g_autoptr (BgLoop) loop = bg_loop_dup_default (NULL);

      g_assert_true (BG_IS_LOOP (loop));
      g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
      if (i % 3 == 0)
        g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
      if (i % 50 == 0)
        {
          g_object_add_toggle_ref (G_OBJECT (loop), count_toggle_cb, data);
          g_object_remove_toggle_ref (G_OBJECT (loop), count_toggle_cb, data);
        }
    }
  return NULL;
}

static void
test_toggled_race (void)
{
  guint threads;
  int n_toggles = 0;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  util_run_threads (4, toggle_thread, &n_toggles);
  util_wait_for_threads (threads);
}

/* Several threads that take it at once, when there is none, get one. */

#define N_AT_ONCE 4

typedef struct
{
  UtilLatch start;
  BgLoop *loops[N_AT_ONCE];
  int n_taken;
} AtOnce;

static gpointer
take_at_once_thread (gpointer user_data)
{
  AtOnce *self = user_data;
  int i = g_atomic_int_add (&self->n_taken, 1);

  util_latch_count_down (&self->start);
  util_latch_wait (&self->start);
  self->loops[i] = bg_loop_dup_default (NULL);
  return NULL;
}

static void
test_at_once (void)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      AtOnce self = { .n_taken = 0 };

      util_latch_init (&self.start, N_AT_ONCE);
      util_run_threads (N_AT_ONCE, take_at_once_thread, &self);
      for (guint j = 0; j < N_AT_ONCE; j++)
        {
          g_assert_nonnull (self.loops[j]);
          g_assert_true (self.loops[j] == self.loops[0]);
        }
      g_assert_true (bg_loop_reset_default (-1, NULL));
      for (guint j = 0; j < N_AT_ONCE; j++)
        g_object_unref (self.loops[j]);
      util_latch_clear (&self.start);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/default/life", test_life);
  util_add_trapped ("/default/others-go", test_others_go);
  util_add_trapped ("/default/after-shutdown", test_after_shutdown);
  util_add_trapped ("/default/reset/timeout", test_reset_timeout);
  util_add_trapped ("/default/reset/while-others-take-the-next", test_reset_late);
  util_add_trapped ("/default/reset/own-thread", test_reset_own_thread);
  util_add_trapped ("/default/reset/timeout-of-0-asks", test_reset_asks);
  util_add_trapped ("/default/many", test_many);
  util_add_trapped ("/default/taken/at-once", test_at_once);
  util_add_trapped ("/default/dropped-by-itself", test_dropped_by_itself);
  util_add_trapped ("/default/taken/while-it-goes", test_taken_while_it_goes);
  util_add_trapped ("/default/taken/by-finalizers", test_taken_by_finalizers);
  util_add_trapped ("/default/toggle-references/take-it", test_toggled);
  util_add_trapped ("/default/toggle-references/reset-it", test_toggled_reset);
  util_add_trapped ("/default/toggle-references/dispose-of-it", test_toggled_disposed);
  util_add_trapped ("/default/toggle-references/race", test_toggled_race);

  return g_test_run ();
}
