/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bgloop.hpp>

#include <csignal>
#include <list>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

using namespace std::chrono_literals;

/* The sanitizers look at what is thrown through a pipe, for which there must be descriptors. */
#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#else
#define WITH_ASAN 0
#endif

#define CHILD_SECONDS 60

/* A loop of C that a test is about to lose sight of, until it has ended. */
class Watched
{
public:
  explicit Watched (BgLoop *loop) : loop_ (loop)
  {
    g_object_ref (loop);
  }

  Watched (const Watched &) = delete;

  ~Watched ()
  {
    wait ();
    g_object_unref (loop_);
  }

  void
  wait () const
  {
    g_assert_true (bg_loop_wait (loop_, -1, nullptr, nullptr));
  }

  BgLoopState
  get_state () const
  {
    return bg_loop_get_state (loop_);
  }

private:
  BgLoop *loop_;
};

static_assert (!std::is_copy_constructible_v<bgloop::Loop>);
static_assert (!std::is_move_constructible_v<bgloop::Loop>);
static_assert (!std::is_convertible_v<BgLoop *, bgloop::Loop>);
static_assert (std::is_nothrow_copy_constructible_v<bgloop::Error>);
static_assert (std::is_nothrow_destructible_v<bgloop::Loop>);

/* The end of a scope */

static void
test_scope_drains ()
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      guint n = 0;

      {
        bgloop::Loop loop ("scope");

        for (guint j = 0; j < 100; j++)
          g_assert_true (loop.post ([&] { n++; }));
        /* This may be the last thing when the scope ends, and goes on nevertheless. */
        g_assert_true (loop.post ([&] { g_assert_true (loop.post ([&] { n++; })); }));
      }
      g_assert_cmpuint (n, ==, 101);
    }
}

static void
cancelled_cb (GCancellable *, gpointer latch)
{
  util_latch_count_down (static_cast<UtilLatch *> (latch));
}

static void
test_scope_cancels ()
{
  std::future<void> future;
  UtilLatch entered, cancelled;
  gboolean ran = FALSE;

  util_latch_init (&entered, 1);
  util_latch_init (&cancelled, 1);
  {
    bgloop::Loop loop ("cancels", BG_SHUTDOWN_CANCEL);

    g_cancellable_connect (bg_loop_get_cancellable (loop), G_CALLBACK (cancelled_cb), &cancelled,
                           nullptr);
    loop.post ([&] {
      util_latch_count_down (&entered);
      util_latch_wait (&cancelled);
      g_assert_false (loop.post ([] { g_assert_not_reached (); }));
      ran = TRUE;
    });
    future = loop.submit ([] { g_assert_not_reached (); });
    util_latch_wait (&entered);
  }
  g_assert_true (ran);
  util_latch_clear (&entered);
  util_latch_clear (&cancelled);
  try
    {
      future.get ();
      g_assert_not_reached ();
    }
  catch (const std::future_error &error)
    {
      g_assert_true (error.code () == std::future_errc::broken_promise);
    }
}

static void
test_scope_has_a_limit ()
{
  auto loop = std::make_unique<bgloop::Loop> ("limited", BG_SHUTDOWN_DRAIN, 1ms);
  Watched watched (*loop);
  std::shared_ptr<void> hold = loop->hold ("an upload");

  g_test_expect_message ("bgloop", G_LOG_LEVEL_WARNING, "*\"limited\"*\"an upload\"*");
  loop.reset ();
  g_test_assert_expected_messages ();
  g_assert_cmpint (watched.get_state (), ==, BG_LOOP_STOPPING);
  hold.reset ();
}

static void
test_scope_on_own_thread ()
{
  for (BgShutdownMode mode : { BG_SHUTDOWN_DRAIN, BG_SHUTDOWN_CANCEL })
    {
      gboolean ran = FALSE;
      UtilBlock block = {};

      {
        auto owned = std::make_unique<bgloop::Loop> ("own thread", mode);
        const bgloop::Loop loop (static_cast<BgLoop *> (*owned));
        Watched watched (loop);

        util_block (&block, loop);
        loop.post ([owned = std::move (owned)] () mutable { owned.reset (); });
        loop.post ([&] { ran = TRUE; });
        util_unblock (&block);
      }
      util_block_clear (&block);
      g_assert_cmpint (ran, ==, mode == BG_SHUTDOWN_DRAIN);
    }
}

static void
test_scope_is_left_by_an_exception ()
{
  int n = 0;

  try
    {
      bgloop::Loop loop ("exception");

      loop.post ([&] { n++; });
      throw 42;
    }
  catch (int)
    {
    }
  g_assert_cmpint (n, ==, 1);
}

/* Shutdown */

static void
test_shutdown_throws ()
{
  bgloop::Loop loop ("shutdown");
  std::shared_ptr<void> hold = loop.hold ("an upload");

  try
    {
      loop.shutdown (BG_SHUTDOWN_CANCEL, 1ms);
      g_assert_not_reached ();
    }
  catch (const bgloop::Error &error)
    {
      g_assert_true (error.domain == G_IO_ERROR);
      g_assert_cmpint (error.code, ==, G_IO_ERROR_TIMED_OUT);
      g_assert_nonnull (g_strstr_len (error.what (), -1, "an upload"));
    }
  hold.reset ();
  loop.shutdown ();
  loop.shutdown (BG_SHUTDOWN_CANCEL, 0s);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
}

static void
test_shutdown_on_own_thread ()
{
  bgloop::Loop loop ("own thread");
  int code = -1;

  try
    {
      loop.call ([&] { loop.shutdown (); });
    }
  catch (const bgloop::Error &error)
    {
      code = error.code;
    }
  g_assert_cmpint (code, ==, BG_ERROR_WOULD_DEADLOCK);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
}

/* Hold */

static void
test_hold_is_shared ()
{
  bgloop::Loop loop ("hold");
  std::shared_ptr<void> hold = loop.hold ("two");
  const auto count = [&] {
    g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
    return stats->holds;
  };

  g_assert_cmpuint (count (), ==, 1);
  loop.post ([copy = hold] {});
  hold.reset ();
  g_assert_true (bg_loop_flush (loop, -1, nullptr, nullptr));
  g_assert_cmpuint (count (), ==, 0);
  hold = loop.hold ("another");
  g_assert_cmpuint (count (), ==, 1);
  hold = nullptr;
  g_assert_cmpuint (count (), ==, 0);
}

static void
test_hold_is_refused ()
{
  bgloop::Loop loop ("refused");

  loop.shutdown ();
  g_assert_null (loop.hold ("late").get ());
}

/* Start */

static void
test_start_in_places ()
{
  std::list<bgloop::Loop> loops;
  int n = 0;

  for (const char *name : { "one", "", "two words" })
    loops.emplace_back (name);
  g_assert_cmpstr (bg_loop_get_name (loops.front ()), ==, "one");
  g_assert_cmpstr (bg_loop_get_name (*std::next (loops.begin ())), ==, "bgloop");
  for (const bgloop::Loop &loop : loops)
    loop.call ([&] { n++; });
  g_assert_cmpint (n, ==, 3);
}

static void
test_start_fails ()
{
  const rlimit none = { 0, 0 };
  int code = -1;

  g_assert_cmpint (setrlimit (RLIMIT_NOFILE, &none), ==, 0);
  try
    {
      bgloop::Loop loop ("no descriptor");
    }
  catch (const bgloop::Error &error)
    {
      g_assert_true (error.domain == G_IO_ERROR);
      code = error.code;
    }
  g_assert_cmpint (code, ==, G_IO_ERROR_TOO_MANY_OPEN_FILES);
}

static void
test_reference ()
{
  BgLoop *loop = util_loop_new ("reference");

  {
    bgloop::Loop reference (loop);

    g_assert_cmpint (reference.call ([] { return 42; }), ==, 42);
    g_assert_true (static_cast<BgLoop *> (reference) == loop);
  }
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
  util_loop_end (loop);
}

/* In a forked child */

template <typename F>
static bool
is_forked (F &&function)
{
  try
    {
      function ();
    }
  catch (const bgloop::Error &error)
    {
      return error.domain == BG_ERROR && error.code == BG_ERROR_FORKED;
    }
  return false;
}

static int
look_as_child (std::unique_ptr<bgloop::Loop> &loop, std::shared_ptr<void> &hold)
{
  if (!is_forked ([&] { loop->call ([] { return 42; }); })
      || !is_forked ([&] { loop->shutdown (); }))
    return 1;
  if (loop->post ([] {}) || loop->post_after (0s, [] {}) != 0 || loop->hold ("child") != nullptr)
    return 2;
  if (loop->submit ([] {}).wait_for (0s) != std::future_status::ready)
    return 3;
  hold.reset ();
  loop.reset ();
  return 0;
}

static void
test_forked ()
{
  auto loop = std::make_unique<bgloop::Loop> ("parent");
  std::shared_ptr<void> hold = loop->hold ("parent");
  pid_t pid = fork ();
  int status = 0;

  g_assert_cmpint (pid, >=, 0);
  if (pid == 0)
    {
      signal (SIGALRM, SIG_DFL);
      alarm (CHILD_SECONDS);
      _exit (look_as_child (loop, hold));
    }
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_cmpint (status, ==, 0);
  g_assert_cmpint (loop->call ([] { return 42; }), ==, 42);
}

int
main (int argc, char **argv)
{
  util_init (&argc, &argv);
  g_test_add_func ("/cpp/scope/drains", test_scope_drains);
  g_test_add_func ("/cpp/scope/cancels", test_scope_cancels);
  g_test_add_func ("/cpp/scope/limit", test_scope_has_a_limit);
  g_test_add_func ("/cpp/scope/own-thread", test_scope_on_own_thread);
  g_test_add_func ("/cpp/scope/exception", test_scope_is_left_by_an_exception);
  g_test_add_func ("/cpp/shutdown/throws", test_shutdown_throws);
  g_test_add_func ("/cpp/shutdown/own-thread", test_shutdown_on_own_thread);
  g_test_add_func ("/cpp/hold/shared", test_hold_is_shared);
  g_test_add_func ("/cpp/hold/refused", test_hold_is_refused);
  g_test_add_func ("/cpp/start/in-places", test_start_in_places);
  if (!WITH_ASAN)
    util_add_trapped ("/cpp/start/fails", test_start_fails);
  g_test_add_func ("/cpp/reference", test_reference);
  util_add_trapped ("/cpp/forked", test_forked);

  return g_test_run ();
}
