/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-shutdown.h"

/* The end races all that may be asked of a loop: each is accepted and gets its outcome, or is refused. */

#define N_THREADS 10
#define N_EACH    1000

/* Several threads that begin at the same moment, all of them on one loop. */
typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int number; /* atomic: of the next thread */

  int accepted; /* atomic, like all of these */
  int refused;
  int ran;
  int destroyed;
  int destroyed_there;
  int joined;
} Race;

typedef void (*RaceFunc) (Race *self, int number);

typedef struct
{
  Race *race;
  RaceFunc func;
} Runner;

static gpointer
race_thread (gpointer user_data)
{
  Runner *runner = user_data;
  Race *self = runner->race;
  int number = g_atomic_int_add (&self->number, 1);

  util_latch_count_down (&self->start);
  util_latch_wait (&self->start);
  runner->func (self, number);
  return NULL;
}

/* Has a thread run each of @funcs, and waits for all of them. */
static void
run_race (Race *self, const RaceFunc *funcs, guint n)
{
  g_autofree Runner *runners = g_new (Runner, n);
  g_autofree GThread **threads = g_new (GThread *, n);

  util_latch_init (&self->start, n);
  for (guint i = 0; i < n; i++)
    {
      runners[i].race = self;
      runners[i].func = funcs[i];
      threads[i] = g_thread_new ("racer", race_thread, &runners[i]);
    }
  for (guint i = 0; i < n; i++)
    g_thread_join (threads[i]);
  util_latch_clear (&self->start);
}

/* Who races */

static void
assert_ended (Race *self, BgShutdownMode mode)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown_full (self->loop, mode, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (bg_loop_get_state (self->loop), ==, BG_LOOP_STOPPED);
  g_atomic_int_inc (&self->joined);
}

static void
shutdown_mixed (Race *self, int number)
{
  assert_ended (self, number % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
}

static void
shutdown_drain (Race *self, int number)
{
  assert_ended (self, BG_SHUTDOWN_DRAIN);
}

static void
shutdown_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_shutdown_finish (BG_LOOP (source), result, &error));
  g_assert_no_error (error);
  util_latch_count_down (user_data);
}

static void
shutdown_async (Race *self, int number)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  UtilLatch replied;

  util_latch_init (&replied, 1);
  g_main_context_push_thread_default (context);
  bg_loop_shutdown_async (self->loop, number % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL, -1,
                          NULL, shutdown_reply_cb, &replied);
  util_iterate_until (&replied);
  g_main_context_pop_thread_default (context);
  util_latch_clear (&replied);
  g_atomic_int_inc (&self->joined);
}

static void
quit_mixed (Race *self, int number)
{
  bg_loop_quit (self->loop, number % 2 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL);
}

static void
quit_drain (Race *self, int number)
{
  bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
}

static void
ran_cb (gpointer user_data)
{
  Race *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_atomic_int_inc (&self->ran);
}

static void
destroyed_cb (gpointer user_data)
{
  Race *self = user_data;

  if (bg_loop_is_current (self->loop))
    g_atomic_int_inc (&self->destroyed_there);
  g_atomic_int_inc (&self->destroyed);
}

static void
note (Race *self, gboolean accepted)
{
  g_atomic_int_inc (accepted ? &self->accepted : &self->refused);
}

static void
post (Race *self, int number)
{
  gboolean accepted = TRUE;

  for (guint i = 0; accepted; i++)
    {
      accepted = bg_loop_post_full (self->loop, (int) (i % 3) * 100, ran_cb, self, destroyed_cb);
      note (self, accepted);
    }
}

static gboolean
invoked_cb (gpointer user_data)
{
  ran_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
invoke (Race *self, int number)
{
  gboolean accepted = TRUE;

  while (accepted)
    {
      accepted = bg_loop_invoke_full (self->loop, 0, invoked_cb, self, destroyed_cb);
      note (self, accepted);
    }
}

static void
post_after (Race *self, int number)
{
  guint64 work = 1, last = 0;

  /* Some of it becomes due, some is dropped, some taken back. */
  for (guint i = 0; work != 0; i++)
    {
      work = bg_loop_post_after (self->loop, i % 3, ran_cb, self, destroyed_cb);
      note (self, work != 0);
      if (i % 5 == 0 && last != 0)
        (void) bg_loop_withdraw (self->loop, last);
      last = work;
    }
}

static gboolean
called_cb (gpointer user_data, GError **error)
{
  int *runs = user_data;

  g_assert_cmpint (*runs, ==, 0);
  *runs = 1;
  return TRUE;
}

static void
call (Race *self, int number)
{
  g_autoptr (GError) error = NULL;

  for (;;)
    {
      int runs = 0;

      if (!bg_loop_call (self->loop, called_cb, &runs, NULL, &error))
        {
          g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
          g_assert_cmpint (runs, ==, 0);
          return;
        }
      g_assert_cmpint (runs, ==, 1);
    }
}

static void
hold (Race *self, int number)
{
  guint64 id;

  while ((id = bg_loop_hold (self->loop, "race")) != 0)
    {
      g_assert_cmpint (bg_loop_get_state (self->loop), !=, BG_LOOP_STOPPED);
      bg_loop_release (self->loop, id);
    }
}

static void
attach (Race *self, int number)
{
  for (gboolean attached = TRUE; attached;)
    {
      GSource *source = g_timeout_source_new (number);

      g_source_set_callback (source, util_continue_cb, self, destroyed_cb);
      attached = bg_loop_attach (self->loop, source);
      g_atomic_int_inc (attached ? &self->accepted : &self->refused);
      if (number % 2 == 0)
        g_source_destroy (source);
      g_source_unref (source);
    }
}

static void
add_teardown (Race *self, int number)
{
  for (gboolean accepted = TRUE; accepted;)
    {
      accepted = bg_loop_add_teardown (self->loop, ran_cb, self, destroyed_cb) != 0;
      note (self, accepted);
    }
}

static void
look (Race *self, int number)
{
  while (bg_loop_get_state (self->loop) != BG_LOOP_STOPPED)
    {
      g_autofree char *text = bg_loop_describe (self->loop);
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (self->loop);

      g_assert_true (g_str_has_prefix (text, "loop \"race\": "));
      g_assert_nonnull (stats);
    }
}

/* The races */

static void
begin_race (Race *self)
{
  *self = (Race){ util_loop_new ("race") };
}

static void
end_race (Race *self)
{
  g_assert_true (bg_loop_shutdown (self->loop, NULL));
  g_assert_cmpint (self->destroyed, ==, self->accepted + self->refused);
  g_assert_finalize_object (self->loop);
}

static void
test_ten_shutdowns (void)
{
  guint fds, threads;
  Race self;

  util_loop_end (util_loop_new (NULL));
  fds = util_count_fds ();
  threads = util_count_threads ();

  for (guint i = 0; i < util_scale (50); i++)
    {
      RaceFunc funcs[N_THREADS];

      for (guint k = 0; k < N_THREADS; k++)
        funcs[k] = k % 5 == 4 ? shutdown_async : shutdown_mixed;
      begin_race (&self);
      for (guint k = 0; k < 100; k++)
        note (&self, bg_loop_post (self.loop, ran_cb, &self, destroyed_cb));
      run_race (&self, funcs, N_THREADS);
      g_assert_cmpint (self.joined, ==, N_THREADS);
      g_assert_cmpint (self.destroyed_there, ==, 100);
      end_race (&self);
    }

  g_assert_cmpuint (util_count_fds (), ==, fds);
  util_wait_for_threads (threads);
}

/* Everything that was accepted has run, and everything was destroyed. */
static void
run_drain_against (RaceFunc func)
{
  const RaceFunc funcs[] = { func, func, shutdown_drain, quit_drain };
  Race self;

  for (guint i = 0; i < util_scale (50); i++)
    {
      begin_race (&self);
      run_race (&self, funcs, G_N_ELEMENTS (funcs));
      if (func == post || func == invoke || func == add_teardown)
        g_assert_cmpint (self.ran, ==, self.accepted);
      if (func != attach)
        g_assert_cmpint (self.destroyed_there, ==, self.accepted);
      end_race (&self);
    }
}

static void
run_mixed_against (RaceFunc func)
{
  const RaceFunc funcs[] = { func, func, shutdown_mixed, shutdown_mixed, quit_mixed };
  Race self;

  for (guint i = 0; i < util_scale (50); i++)
    {
      begin_race (&self);
      run_race (&self, funcs, G_N_ELEMENTS (funcs));
      g_assert_cmpint (self.ran, <=, self.accepted);
      end_race (&self);
    }
}

#define DEFINE_RACE(func)                                                                          \
  static void test_##func (void)                                                                   \
  {                                                                                                \
    run_drain_against (func);                                                                      \
    run_mixed_against (func);                                                                      \
  }

DEFINE_RACE (quit_mixed)
DEFINE_RACE (post)
DEFINE_RACE (invoke)
DEFINE_RACE (post_after)
DEFINE_RACE (call)
DEFINE_RACE (hold)
DEFINE_RACE (attach)
DEFINE_RACE (add_teardown)
DEFINE_RACE (look)

/* All of them at once */
static void
test_everything (void)
{
  const RaceFunc funcs[] = { post,   invoke, post_after,     call,           hold,
                             attach, look,   shutdown_mixed, shutdown_async, quit_mixed };
  Race self;

  for (guint i = 0; i < util_scale (50); i++)
    {
      begin_race (&self);
      run_race (&self, funcs, G_N_ELEMENTS (funcs));
      end_race (&self);
    }
}

/* Each has a reference, and they drop them all at once. */
static void
drop (Race *self, int number)
{
  if (number == 0)
    bg_loop_quit (self->loop, BG_SHUTDOWN_CANCEL);
  else if (number == 1)
    g_assert_true (bg_loop_shutdown (self->loop, NULL));
  g_object_unref (self->loop);
}

static void
test_drop (void)
{
  guint threads;
  RaceFunc funcs[4];

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  for (guint i = 0; i < G_N_ELEMENTS (funcs); i++)
    funcs[i] = drop;

  for (guint i = 0; i < util_scale (200); i++)
    {
      Race self;
      GWeakRef weak;
      int destroyed = 0;

      begin_race (&self);
      self.number = i % 3; /* sometimes nobody shuts it down, or quits it */
      g_weak_ref_init (&weak, self.loop);
      for (guint k = 0; k < G_N_ELEMENTS (funcs); k++)
        g_object_ref (self.loop);
      g_assert_true (bg_loop_post (self.loop, util_count_cb, &self.ran, NULL));
      g_assert_true (bg_loop_post (self.loop, util_count_cb, &destroyed, util_count_cb));
      g_object_unref (self.loop);
      run_race (&self, funcs, G_N_ELEMENTS (funcs));
      g_assert_null (g_weak_ref_get (&weak));
      g_weak_ref_clear (&weak);
      util_wait_for_threads (threads);
      g_assert_cmpint (g_atomic_int_get (&destroyed), >=, 1);
    }
}

/* A loop that is dropped before its thread has done anything. */
static void
test_start (void)
{
  guint threads;

  /* A sanitizer may have a thread of its own from the first one on. */
  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  for (guint i = 0; i < util_scale (300); i++)
    g_object_unref (util_loop_new ("dropped"));

  util_wait_for_threads (threads);
}

/* Posts that go on, refused or not */

typedef struct
{
  BgLoop *loop;
  UtilLatch start;
  int ran;      /* the loop's thread */
  int admitted; /* atomic */
  int here;     /* atomic: destroyed on the loop */
  int there;    /* atomic: destroyed in the caller */
} Flood;

static void
flood_cb (gpointer user_data)
{
  Flood *self = user_data;

  self->ran++;
}

static void
flood_destroy (gpointer user_data)
{
  Flood *self = user_data;

  g_atomic_int_inc (bg_loop_is_current (self->loop) ? &self->here : &self->there);
}

static gpointer
flood_thread (gpointer data)
{
  Flood *self = data;

  util_latch_count_down (&self->start);
  for (guint i = 0; i < N_EACH; i++)
    {
      if (bg_loop_post (self->loop, flood_cb, self, flood_destroy))
        g_atomic_int_inc (&self->admitted);
    }

  return NULL;
}

/* All that was admitted has its outcome as soon as the shutdown has returned, whoever still posts. */
static void
flood_ended_cb (gpointer user_data)
{
  Flood *self = user_data;

  g_assert_cmpint (self->ran, ==, g_atomic_int_get (&self->here));
}

static void
test_flood (void)
{
  for (guint round = 0; round < util_scale (100); round++)
    {
      Flood flood = { .loop = util_loop_new ("shutdown") };

      util_race_shutdown (flood.loop, &flood.start, N_THREADS, flood_thread, &flood,
                          flood_ended_cb);
      g_assert_cmpint (flood.ran, ==, flood.admitted);
      g_assert_cmpint (flood.here, ==, flood.admitted);
      g_assert_cmpint (flood.there, ==, N_THREADS * N_EACH - flood.admitted);
      g_assert_finalize_object (flood.loop);
    }
}

void
add_tests_of_race (void)
{
  util_add_trapped ("/shutdown/race/ten-shutdowns", test_ten_shutdowns);
  util_add_trapped ("/shutdown/race/quit", test_quit_mixed);
  util_add_trapped ("/shutdown/race/post", test_post);
  util_add_trapped ("/shutdown/race/invoke", test_invoke);
  util_add_trapped ("/shutdown/race/post-after", test_post_after);
  util_add_trapped ("/shutdown/race/call", test_call);
  util_add_trapped ("/shutdown/race/hold", test_hold);
  util_add_trapped ("/shutdown/race/attach", test_attach);
  util_add_trapped ("/shutdown/race/add-teardown", test_add_teardown);
  util_add_trapped ("/shutdown/race/look", test_look);
  util_add_trapped ("/shutdown/race/everything", test_everything);
  util_add_trapped ("/shutdown/race/drop", test_drop);
  util_add_trapped ("/shutdown/race/start", test_start);
  g_test_add_func ("/shutdown/race/10000-posts/each-ran-or-was-refused", test_flood);
}
