/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "util.h"

/* A loop from when it is made: its thread, context, name, properties and states; and that making one
 * fails cleanly, and that many come and go without a trace. */

#define N_LOOPS 1000

/* What a thread is like, as seen from it. */
typedef struct
{
  BgLoop *loop;
  GThread *thread;
  gboolean is_current;
  gboolean is_owner;
  gboolean is_thread_default;
  char name[32];
} Look;

static gboolean
look_cb (gpointer user_data, GError **error)
{
  Look *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);

  self->thread = g_thread_self ();
  self->is_current = bg_loop_is_current (self->loop);
  self->is_owner = g_main_context_is_owner (context);
  self->is_thread_default = g_main_context_get_thread_default () == context;
  pthread_getname_np (pthread_self (), self->name, sizeof self->name);
  return TRUE;
}

static gpointer
look_thread (gpointer data)
{
  look_cb (data, NULL);
  return NULL;
}

static void
test_new_is_running (void)
{
  BgLoop *loop = util_loop_new ("running");
  g_autofree char *name = NULL;
  BgLoopState state;

  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "running");
  g_object_get (loop, "name", &name, "state", &state, NULL);
  g_assert_cmpint (state, ==, BG_LOOP_RUNNING);
  g_assert_cmpstr (name, ==, "running");
  g_assert_true (BG_IS_LOOP (loop));
  g_assert_true (G_IS_INITABLE (loop));
  util_loop_end (loop);
}

static void
test_new_thread_is_ready (void)
{
  for (guint i = 0; i < util_scale (200); i++)
    {
      BgLoop *loop = util_loop_new ("ready");
      Look look = { .loop = loop };

      /* The thread must have it by now, so that nobody else can. */
      g_assert_false (g_main_context_acquire (bg_loop_get_context (loop)));

      g_assert_true (bg_loop_call (loop, look_cb, &look, NULL, NULL));
      g_assert_true (look.thread != g_thread_self ());
      g_assert_true (look.is_owner);
      g_assert_true (look.is_thread_default);
      util_loop_end (loop);
    }
}

static void
test_context_is_private (void)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  BgLoop *one, *other;

  g_main_context_push_thread_default (context);
  one = util_loop_new ("one");
  other = util_loop_new ("other");
  g_assert_true (bg_loop_get_context (one) != bg_loop_get_context (other));
  g_assert_true (bg_loop_get_context (one) != context);
  g_assert_true (bg_loop_get_context (one) != g_main_context_default ());
  g_main_context_pop_thread_default (context);

  util_loop_end (one);
  util_loop_end (other);
}

static void
test_initable (void)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  BgLoop *loop = g_initable_new (BG_TYPE_LOOP, cancellable, &error, "name", "initable", NULL);

  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "initable");
  util_loop_end (loop);

  g_cancellable_cancel (cancellable);
  loop = g_initable_new (BG_TYPE_LOOP, cancellable, &error, NULL);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_null (loop);
}

/* Once is enough; the second time does nothing, also to a loop that is over. */
static void
test_initialized_twice (void)
{
  BgLoop *loop = util_loop_new ("twice");
  g_autoptr (GError) error = NULL;
  guint n_threads = util_count_threads ();

  g_assert_true (g_initable_init (G_INITABLE (loop), NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (util_count_threads (), ==, n_threads);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_true (g_initable_init (G_INITABLE (loop), NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  if (!util_is_emulated ())
    g_assert_cmpuint (util_count_threads (), <, n_threads);
  util_loop_end (loop);
}

/* A loop that exists is running: what bindings construct is no less of a loop. */
static void
test_constructed_is_running (void)
{
  guint n_threads = util_count_threads ();
  g_autoptr (BgLoop) loop = g_object_new (BG_TYPE_LOOP, "name", "constructed", NULL);
  g_autoptr (GError) error = NULL;
  Look look = { .loop = loop };

  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "constructed");
  g_assert_cmpuint (util_count_threads (), ==, n_threads + 1);
  g_assert_true (bg_loop_call (loop, look_cb, &look, NULL, &error));
  g_assert_no_error (error);
  g_assert_true (look.is_current);
  g_assert_true (look.is_owner);
  g_assert_cmpstr (look.name, ==, "constructed");
  g_assert_true (g_initable_init (G_INITABLE (loop), NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (util_count_threads (), ==, n_threads + 1);
  util_loop_end (g_steal_pointer (&loop));

  /* Not even used. */
  loop = g_object_new (BG_TYPE_LOOP, NULL);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "bgloop");
  util_loop_end (g_steal_pointer (&loop));
  loop = g_object_new (BG_TYPE_LOOP, NULL);
  g_clear_object (&loop);
  util_wait_for_threads (n_threads);
}

/* One that could not be started is over, and every entry says why. */

static void
assert_stillborn (GError **error)
{
  g_assert_error (*error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
  g_clear_error (error);
}

static void
assert_is_stillborn (BgLoop *loop)
{
  g_autofree char *text = bg_loop_describe (loop);
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
  GError *error = NULL;
  int destroyed = 0;

  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  g_assert_nonnull (text);
  g_assert_nonnull (stats);
  g_assert_false (bg_loop_is_current (loop));
  g_assert_false (g_initable_init (G_INITABLE (loop), NULL, &error));
  assert_stillborn (&error);
  g_assert_false (g_initable_init (G_INITABLE (loop), NULL, &error));
  assert_stillborn (&error);

  g_assert_false (bg_loop_post (loop, util_not_reached_cb, &destroyed, util_count_cb));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_not_reached_cb, &destroyed, util_count_cb),
                    ==, 0);
  g_assert_cmpuint (bg_loop_add_teardown (loop, util_not_reached_cb, &destroyed, util_count_cb), ==,
                    0);
  g_assert_cmpint (destroyed, ==, 3);
  g_assert_cmpuint (bg_loop_hold (loop, "refused"), ==, 0);
  g_assert_false (bg_loop_call (loop, util_true_cb, NULL, NULL, &error));
  assert_stillborn (&error);
  g_assert_false (bg_loop_flush (loop, -1, NULL, &error));
  assert_stillborn (&error);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

static void
test_no_thread_is_an_error (void)
{
  guint n_fds = util_count_fds ();
  g_autoptr (GError) error = NULL;
  const char *preload = g_getenv ("LD_PRELOAD");
  pthread_attr_t attr, none;
  BgLoop *loop;

  if (preload != NULL && strstr (preload, "vgpreload") != NULL)
    {
      g_test_skip ("Valgrind has another error for this, which GLib does not forgive");
      return;
    }

  /* Nobody has room for a stack of fifteen sixteenths of what can be addressed. */
  g_assert_cmpint (pthread_getattr_default_np (&attr), ==, 0);
  g_assert_cmpint (pthread_attr_init (&none), ==, 0);
  g_assert_cmpint (pthread_attr_setstacksize (&none, G_MAXSIZE / 16 * 15), ==, 0);
  g_assert_cmpint (pthread_setattr_default_np (&none), ==, 0);

  loop = bg_loop_new ("stillborn", &error);
  g_assert_error (error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
  g_assert_null (loop);
  g_assert_null (bg_loop_new ("stillborn", NULL));
  loop = g_object_new (BG_TYPE_LOOP, NULL);
  assert_is_stillborn (loop);
  g_assert_finalize_object (loop);

  g_assert_cmpint (pthread_setattr_default_np (&attr), ==, 0);
  pthread_attr_destroy (&attr);
  pthread_attr_destroy (&none);
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
  util_loop_end (util_loop_new ("born"));
}

static void
test_no_descriptor_is_an_error (void)
{
  g_autoptr (GError) error = NULL;
  struct rlimit limit, none;

  g_assert_cmpint (getrlimit (RLIMIT_NOFILE, &limit), ==, 0);
  none = limit;
  none.rlim_cur = STDERR_FILENO + 1; /* so many may be polled, by threads of GLib's */
  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &none), ==, 0);
  g_assert_null (bg_loop_new ("stillborn", &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES);

  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &limit), ==, 0);
  util_loop_end (util_loop_new ("after it"));
}

static void
test_name_is_kept (void)
{
  static const char *names[] = { "a name", "one that is longer than a thread's name can be", "é" };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      BgLoop *loop = util_loop_new (names[i]);

      g_assert_cmpstr (bg_loop_get_name (loop), ==, names[i]);
      util_loop_end (loop);
    }
}

static void
test_name_may_be_missing (void)
{
  static const char *names[] = { NULL, "" };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      BgLoop *loop = util_loop_new (names[i]);
      Look look = { .loop = loop };

      g_assert_cmpstr (bg_loop_get_name (loop), ==, "bgloop");
      g_assert_true (bg_loop_call (loop, look_cb, &look, NULL, NULL));
      g_assert_cmpstr (look.name, ==, "bgloop");
      util_loop_end (loop);
    }
}

static void
test_thread_name_is_cut_at_a_character (void)
{
  static const struct
  {
    const char *name;
    const char *thread_name;
  } cases[] = {
    { "short", "short" },
    { "fifteen letters", "fifteen letters" },
    { "sixteen letters!", "sixteen letters" },
    { "aaaaaaaaaaaaaé", "aaaaaaaaaaaaaé" },
    { "aaaaaaaaaaaaaéa", "aaaaaaaaaaaaaé" },
    { "aaaaaaaaaaaaaaé", "aaaaaaaaaaaaaa" },
    { "aaaaaaaaaaaaa€", "aaaaaaaaaaaaa" },
    { "aaaaaaaaaaaaaa€", "aaaaaaaaaaaaaa" },
    { "aaaaaaaaaaaa😀", "aaaaaaaaaaaa" },
    { "ééééééééé", "ééééééé" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      BgLoop *loop = util_loop_new (cases[i].name);
      Look look = { .loop = loop };

      g_assert_true (bg_loop_call (loop, look_cb, &look, NULL, NULL));
      g_assert_cmpstr (look.name, ==, cases[i].thread_name);
      g_assert_cmpstr (bg_loop_get_name (loop), ==, cases[i].name);
      util_loop_end (loop);
    }
}

static void
test_state (void)
{
  BgLoop *loop = util_loop_new ("state");
  UtilBlock block;
  BgLoopState state;

  util_block (&block, loop);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);
  util_unblock (&block);

  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  g_object_get (loop, "state", &state, NULL);
  g_assert_cmpint (state, ==, BG_LOOP_STOPPED);

  util_block_clear (&block);
  g_assert_finalize_object (loop);
}

static void
test_is_current (void)
{
  BgLoop *loop = util_loop_new ("here");
  BgLoop *other = util_loop_new ("there");
  Look look = { .loop = loop };

  g_assert_true (bg_loop_call (loop, look_cb, &look, NULL, NULL));
  g_assert_true (look.is_current);
  g_assert_true (bg_loop_call (other, look_cb, &look, NULL, NULL));
  g_assert_false (look.is_current);
  look.is_current = TRUE;
  util_run_threads (1, look_thread, &look);
  g_assert_false (look.is_current);

  g_assert_false (bg_loop_is_current (loop));
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_false (bg_loop_is_current (loop));
  g_assert_finalize_object (loop);
  util_loop_end (other);
}

static void
test_looking_does_not_wait (void)
{
  BgLoop *loop = util_loop_new ("busy");
  g_autoptr (BgLoopStats) stats = NULL;
  g_autofree char *text = NULL;
  UtilBlock block;

  util_block (&block, loop);
  g_assert_cmpstr (bg_loop_get_name (loop), ==, "busy");
  g_assert_nonnull (bg_loop_get_context (loop));
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  g_assert_false (bg_loop_is_current (loop));
  g_assert_true (G_IS_CANCELLABLE (bg_loop_get_cancellable (loop)));
  stats = bg_loop_get_stats (loop);
  g_assert_cmpuint (stats->posted, ==, 1);
  text = bg_loop_describe (loop);
  g_assert_nonnull (strstr (text, "busy"));

  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

static void
test_leaves_nothing_behind (gconstpointer data)
{
  gboolean drop = GPOINTER_TO_INT (data);
  guint n_fds, n_threads;

  util_loop_end (util_loop_new ("first"));
  n_fds = util_count_fds ();
  n_threads = util_count_threads ();

  for (guint i = 0; i < util_scale (N_LOOPS); i++)
    {
      BgLoop *loop = util_loop_new ("one of many");

      g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
      if (drop)
        g_assert_finalize_object (loop);
      else
        util_loop_end (loop);
    }

  util_wait_for_threads (n_threads);
  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

static void
test_many_at_once (void)
{
  guint n_fds = util_count_fds ();
  BgLoop *loops[50];

  for (guint i = 0; i < G_N_ELEMENTS (loops); i++)
    loops[i] = util_loop_new ("one of fifty");
  for (guint i = 0; i < G_N_ELEMENTS (loops); i++)
    {
      Look look = { .loop = loops[i] };

      g_assert_true (bg_loop_call (loops[i], look_cb, &look, NULL, NULL));
      g_assert_true (look.is_current);
    }
  for (guint i = 0; i < G_N_ELEMENTS (loops); i++)
    util_loop_end (loops[i]);

  g_assert_cmpuint (util_count_fds (), ==, n_fds);
}

/* Blocking calls go through whether anybody stays awake for them or not. */
static void
test_linger (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  guint linger;

  for (guint wanted = 0; wanted <= 1000; wanted += 500)
    {
      g_object_set (loop, "linger", wanted, NULL);
      g_object_get (loop, "linger", &linger, NULL);
      g_assert_cmpuint (linger, ==, wanted);
      for (guint i = 0; i < 100; i++)
        g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
    }
}

/* A property is notified when it has another value, and not else. */
static void
test_notified (BgTestFixture *fixture, gconstpointer data)
{
  const char *name = data;
  BgLoop *loop = fixture->loop;
  g_autofree char *signal = g_strconcat ("notify::", name, NULL);
  int n = 0;

  g_object_set (loop, name, 10, NULL);
  g_signal_connect (loop, signal, G_CALLBACK (util_count_notify_cb), &n);
  g_object_set (loop, name, 10, NULL);
  g_assert_cmpint (n, ==, 0);
  g_object_set (loop, name, 20, NULL);
  g_assert_cmpint (n, ==, 1);
  g_signal_handlers_disconnect_by_data (loop, &n);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/life/new/is-running", test_new_is_running);
  g_test_add_func ("/life/new/thread-is-ready", test_new_thread_is_ready);
  g_test_add_func ("/life/new/context-is-private", test_context_is_private);
  g_test_add_func ("/life/new/initable", test_initable);
  util_add_trapped ("/life/new/initialized-twice-is-one-thread", test_initialized_twice);
  util_add_trapped ("/life/new/constructed-is-running", test_constructed_is_running);
  g_test_add_func ("/life/new/no-thread-is-an-error", test_no_thread_is_an_error);
  /* GLib itself ends the process where a context needs a pipe. */
  if (HAVE_EVENTFD)
    util_add_trapped ("/life/new/no-descriptor-is-an-error", test_no_descriptor_is_an_error);
  g_test_add_func ("/life/name/is-kept", test_name_is_kept);
  g_test_add_func ("/life/name/may-be-missing", test_name_may_be_missing);
  g_test_add_func ("/life/thread-name/is-cut-at-a-character",
                   test_thread_name_is_cut_at_a_character);
  g_test_add_func ("/life/state", test_state);
  g_test_add_func ("/life/is-current/on-its-own-thread-only", test_is_current);
  g_test_add_func ("/life/looking/does-not-wait", test_looking_does_not_wait);
  g_test_add_func ("/life/many-at-once", test_many_at_once);
  g_test_add_data_func ("/life/1000-loops/shut-down/leave-nothing-behind", GINT_TO_POINTER (FALSE),
                        test_leaves_nothing_behind);
  g_test_add_data_func ("/life/1000-loops/dropped/leave-nothing-behind", GINT_TO_POINTER (TRUE),
                        test_leaves_nothing_behind);
  util_add ("/life/linger", test_linger);
  util_add_data ("/life/notified/linger", test_notified, "linger");
  util_add_data ("/life/notified/stall-threshold", test_notified, "stall-threshold");

  return g_test_run ();
}
