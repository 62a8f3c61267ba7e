/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bgloop.hpp>

#include <cstdlib>
#include <exception>
#include <limits>
#include <map>
#include <ratio>
#include <vector>

#include "util.h"

using namespace std::chrono_literals;

/* Asserts that a function throws such an Error, whose message says something. */
template <typename F>
static void
assert_error (GQuark domain, int code, F &&function)
{
  g_autoptr (GError) thrown = nullptr;

  try
    {
      function ();
    }
  catch (const bgloop::Error &error)
    {
      g_set_error_literal (&thrown, error.domain, error.code, error.what ());
    }
  g_assert_error (thrown, domain, code);
  g_assert_cmpstr (thrown->message, !=, "");
}

/* Says where it was destroyed, once. Like a lambda that has one it can only be moved. */
class Tracer
{
public:
  explicit Tracer (GThread **thread) : thread_ (thread)
  {
    *thread = nullptr;
  }

  Tracer (Tracer &&other) noexcept : thread_ (std::exchange (other.thread_, nullptr))
  {
  }

  ~Tracer ()
  {
    if (thread_ == nullptr)
      return;
    g_assert_null (*thread_);
    *thread_ = g_thread_self ();
  }

private:
  GThread **thread_;
};

static GThread *
thread_of (const bgloop::Loop &loop)
{
  return loop.call (g_thread_self);
}

/* Keeps a loop busy while it is there. */
class Blocked
{
public:
  explicit Blocked (const bgloop::Loop &loop) : loop_ (loop)
  {
    util_block (&block_, loop_);
  }

  Blocked (const Blocked &) = delete;

  ~Blocked ()
  {
    util_unblock (&block_);
    if (!bg_loop_flush (loop_, -1, nullptr, nullptr))
      bg_loop_wait (loop_, -1, nullptr, nullptr);
    util_block_clear (&block_);
  }

private:
  BgLoop *loop_;
  UtilBlock block_ = {};
};

static void
assert_broken_promise (std::future<int> &future)
{
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

/* Call */

static int
forty_two ()
{
  return 42;
}

static void
test_call_returns_values ()
{
  bgloop::Loop loop ("values");
  std::map<std::string, int> map;
  const auto add = [] { return 40 + 2; };

  g_assert_cmpint (loop.call ([] { return 42; }), ==, 42);
  g_assert_cmpint (loop.call (add), ==, 42);
  g_assert_cmpint (loop.call (forty_two), ==, 42);
  g_assert_true (loop.call ([] { return std::string (100, 'x'); }) == std::string (100, 'x'));
  g_assert_true (loop.call ([] { return std::tuple (1, 2); }) == std::tuple (1, 2));

  loop.call ([&] { map["one"] = 1; });
  g_assert_cmpint (map["one"], ==, 1);
  loop.call ([&] () -> int & { return map["two"]; }) = 2;
  g_assert_cmpint (map["two"], ==, 2);
}

static void
test_call_runs_there ()
{
  bgloop::Loop loop ("there");

  g_assert_true (loop.call ([&] { return bg_loop_is_current (loop); }));
  g_assert_false (bg_loop_is_current (loop));
  /* Within a call, a call is a plain one, and so it is when no other is let in. */
  loop.call ([&] {
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
    g_assert_cmpint (loop.call ([] { return 42; }), ==, 42);
  });
}

static void
test_call_moves ()
{
  bgloop::Loop loop ("moves");
  auto mutable_function = [p = std::make_unique<int> (1)] () mutable { return std::move (p); };

  g_assert_cmpint (loop.call ([p = std::make_unique<int> (42)] { return *p; }), ==, 42);
  g_assert_cmpint (*loop.call (mutable_function), ==, 1);
  g_assert_null (loop.call (mutable_function).get ());
}

static void
test_call_carries_exceptions ()
{
  bgloop::Loop loop ("exceptions");
  int caught = 0;

  for (int i = 0; i < 3; i++)
    {
      try
        {
          loop.call ([i] () -> int { throw i; });
        }
      catch (int number)
        {
          caught += number == i;
        }
    }
  g_assert_cmpint (caught, ==, 3);

  try
    {
      loop.call ([&] { loop.call ([] { throw std::out_of_range ("far"); }); });
      g_assert_not_reached ();
    }
  catch (const std::out_of_range &error)
    {
      g_assert_cmpstr (error.what (), ==, "far");
    }
  g_assert_cmpint (loop.call ([] { return 42; }), ==, 42);
}

static void
test_call_carries_gerrors ()
{
  bgloop::Loop loop ("GError");

  assert_error (G_FILE_ERROR, G_FILE_ERROR_NOENT, [&] {
    loop.call ([] {
      g_autofree char *text = nullptr;
      g_autoptr (GError) error = nullptr;

      if (!g_file_get_contents ("/nonexistent", &text, nullptr, &error))
        throw bgloop::Error (*error);
    });
  });
}

static void
test_call_is_given_up ()
{
  bgloop::Loop loop ("given up");
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Blocked blocked (loop);
  const auto not_reached = [] { g_assert_not_reached (); };

  assert_error (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.call (not_reached, 1ms); });
  assert_error (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.call (not_reached, -1s); });
  g_cancellable_cancel (cancellable);
  assert_error (G_IO_ERROR, G_IO_ERROR_CANCELLED,
                [&] { loop.call (not_reached, {}, cancellable); });
}

static void
test_call_is_refused ()
{
  bgloop::Loop loop ("refused");
  bgloop::Loop other ("other");

  loop.call ([&] {
    other.call ([&] {
      assert_error (BG_ERROR, BG_ERROR_WOULD_DEADLOCK, [&] { loop.call ([] { return 42; }); });
    });
  });
  loop.shutdown ();
  assert_error (BG_ERROR, BG_ERROR_CLOSED, [&] { loop.call ([] { return 42; }); });
}

/* Post */

static void
test_post_runs_in_order ()
{
  bgloop::Loop loop ("order");
  std::vector<int> order;

  {
    Blocked blocked (loop);

    for (int i = 1; i <= 3; i++)
      g_assert_true (loop.post ([&order, i] { order.push_back (i); }));
    g_assert_true (loop.post ([&] { order.push_back (0); }, G_PRIORITY_HIGH));
  }
  g_assert_true (order == std::vector<int> ({ 0, 1, 2, 3 }));
}

static void
test_post_is_destroyed_there ()
{
  bgloop::Loop loop ("destroyed there");
  GThread *const thread = thread_of (loop);
  GThread *destroyed;
  gboolean ran = FALSE;

  g_assert_true (loop.post ([tracer = Tracer (&destroyed), &destroyed, &ran] {
    g_assert_null (destroyed);
    ran = TRUE;
  }));
  g_assert_true (bg_loop_flush (loop, -1, nullptr, nullptr));
  g_assert_true (ran);
  g_assert_true (destroyed == thread);
}

static void
test_post_is_dropped ()
{
  bgloop::Loop loop ("dropped");
  GThread *const thread = thread_of (loop);
  GThread *destroyed, *delayed;

  {
    Blocked blocked (loop);

    g_assert_true (loop.post ([tracer = Tracer (&destroyed)] { g_assert_not_reached (); }));
    g_assert_cmpuint (loop.post_after (1h,
                                       [tracer = Tracer (&delayed)] { g_assert_not_reached (); }),
                      !=, 0);
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  }
  loop.shutdown ();
  g_assert_true (destroyed == thread);
  g_assert_true (delayed == thread);
}

static void
test_post_is_refused ()
{
  bgloop::Loop loop ("refused");
  GThread *destroyed, *delayed;

  loop.shutdown ();
  g_assert_false (loop.post ([tracer = Tracer (&destroyed)] { g_assert_not_reached (); }));
  g_assert_true (destroyed == g_thread_self ());
  g_assert_cmpuint (loop.post_after (0s, [tracer = Tracer (&delayed)] {}), ==, 0);
  g_assert_true (delayed == g_thread_self ());
}

static void
test_post_after ()
{
  bgloop::Loop loop ("after");
  GThread *const thread = thread_of (loop);
  UtilLatch latch;
  GThread *destroyed;
  guint64 id;

  util_latch_init (&latch, 2);
  g_assert_cmpuint (loop.post_after (1us, [&] { util_latch_count_down (&latch); }), !=, 0);
  g_assert_cmpuint (loop.post_after (-1h, [&] { util_latch_count_down (&latch); }), !=, 0);
  util_latch_wait (&latch);
  util_latch_clear (&latch);

  id = loop.post_after (24h * 365 * 10000,
                        [tracer = Tracer (&destroyed)] { g_assert_not_reached (); });
  g_assert_true (bg_loop_withdraw (loop, id));
  g_assert_false (bg_loop_withdraw (loop, id));
  loop.shutdown ();
  g_assert_true (destroyed == thread);
}

static void
throw_from_post ()
{
  bgloop::Loop loop ("throws");

  loop.post ([] { throw std::runtime_error ("nobody waits for this"); });
}

static void
test_post_must_not_throw ()
{
  if (g_test_subprocess ())
    {
      throw_from_post ();
      return;
    }
  g_test_trap_subprocess (nullptr, 0, G_TEST_SUBPROCESS_DEFAULT);
  g_assert_false (g_test_trap_has_passed ());
  g_test_trap_assert_stderr ("*nobody waits for this*");
}

static void
test_call_must_return ()
{
  if (g_test_subprocess ())
    {
      bgloop::Loop loop ("exits");

      std::set_terminate ([] {
        g_printerr ("terminated\n");
        std::abort ();
      });
      loop.call ([] { g_thread_exit (nullptr); });
      return;
    }
  g_test_trap_subprocess (nullptr, 0, G_TEST_SUBPROCESS_DEFAULT);
  g_assert_false (g_test_trap_has_passed ());
  g_test_trap_assert_stderr ("*terminated*");
}

/* Submit */

static void
test_submit_has_results ()
{
  bgloop::Loop loop ("results");
  int number = 0;
  auto text = loop.submit ([] { return std::string (100, 'x'); });
  auto nothing = loop.submit ([p = std::make_unique<int> (1), &number] { number += *p; });
  auto reference = loop.submit ([&] () -> int & { return number; }, G_PRIORITY_LOW);
  auto failure = loop.submit ([] () -> std::unique_ptr<int> { throw 42; });

  g_assert_true (text.get () == std::string (100, 'x'));
  nothing.get ();
  g_assert_cmpint (number, ==, 1);
  g_assert_true (&reference.get () == &number);
  try
    {
      failure.get ();
      g_assert_not_reached ();
    }
  catch (int code)
    {
      g_assert_cmpint (code, ==, 42);
    }
}

/* Whichever thread lets go of it last destroys it. */
static void
test_submit_carries_exceptions ()
{
  bgloop::Loop loop ("carries exceptions");

  for (guint i = 0; i < util_scale (2000); i++)
    {
      auto future = loop.submit ([i] () -> int { throw i; });

      try
        {
          future.get ();
          g_assert_not_reached ();
        }
      catch (guint number)
        {
          g_assert_cmpuint (number, ==, i);
        }
    }
}

static void
test_submit_is_destroyed_first ()
{
  bgloop::Loop loop ("destroyed first");
  GThread *const thread = thread_of (loop);

  for (guint i = 0; i < util_scale (1000); i++)
    {
      GThread *destroyed;
      auto future = loop.submit ([tracer = Tracer (&destroyed), i] {
        if (i % 2 == 1)
          throw i;
      });

      future.wait ();
      g_assert_true (destroyed == thread);
    }
}

static void
test_submit_is_dropped ()
{
  bgloop::Loop loop ("dropped");
  GThread *const thread = thread_of (loop);
  std::future<int> future;
  GThread *destroyed;

  {
    Blocked blocked (loop);

    future = loop.submit ([tracer = Tracer (&destroyed)] { return 42; });
    bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  }
  assert_broken_promise (future);
  g_assert_true (destroyed == thread);
}

static void
test_submit_is_refused ()
{
  bgloop::Loop loop ("refused");
  GThread *destroyed;

  std::future<int> future;

  loop.shutdown ();
  future = loop.submit ([tracer = Tracer (&destroyed)] { return 42; });
  g_assert_true (destroyed == g_thread_self ());
  assert_broken_promise (future);
}

static void
test_submit_outlives_its_future ()
{
  bgloop::Loop loop ("abandoned");
  gboolean ran = FALSE;

  loop.submit ([&] { ran = TRUE; });
  loop.shutdown ();
  g_assert_true (ran);
}

/* Times */

static void
test_timeouts ()
{
  constexpr auto most = std::numeric_limits<int>::max ();
  /* For a compiler that knows the number, one that does not fit would be the most. */
  const volatile auto many_hours = std::chrono::hours::max ().count ();
  using Floating = std::chrono::duration<double>;
  using bgloop::Timeout;

  g_assert_cmpint (Timeout ().msec, ==, -1);
  g_assert_cmpint (Timeout (0s).msec, ==, 0);
  g_assert_cmpint (Timeout (1ns).msec, ==, 1);
  g_assert_cmpint (Timeout (1ms).msec, ==, 1);
  g_assert_cmpint (Timeout (1000001ns).msec, ==, 2);
  g_assert_cmpint (Timeout (2s).msec, ==, 2000);
  g_assert_cmpint (Timeout (1min).msec, ==, 60000);
  g_assert_cmpint (Timeout (Floating (0.0005)).msec, ==, 1);
  g_assert_cmpint (Timeout (std::chrono::duration<int, std::ratio<1, 3> > (1)).msec, ==, 334);

  g_assert_cmpint (Timeout (-1ms).msec, ==, 0);
  g_assert_cmpint (Timeout (-1ns).msec, ==, 0);
  g_assert_cmpint (Timeout (std::chrono::hours::min ()).msec, ==, 0);
  g_assert_cmpint (Timeout (Floating (std::numeric_limits<double>::quiet_NaN ())).msec, ==, 0);

  g_assert_cmpint (Timeout (std::chrono::milliseconds (most)).msec, ==, most);
  g_assert_cmpint (Timeout (std::chrono::milliseconds (most) - 1us).msec, ==, most);
  g_assert_cmpint (Timeout (std::chrono::milliseconds (most) + 1us).msec, ==, most);
  g_assert_cmpint (Timeout (std::chrono::hours (many_hours)).msec, ==, most);
  g_assert_cmpint (Timeout (std::chrono::nanoseconds::max ()).msec, ==, most);
  g_assert_cmpint (Timeout (Floating (std::numeric_limits<double>::infinity ())).msec, ==, most);
}

int
main (int argc, char **argv)
{
  util_init (&argc, &argv);
  g_test_add_func ("/cpp/call/values", test_call_returns_values);
  g_test_add_func ("/cpp/call/runs-there", test_call_runs_there);
  g_test_add_func ("/cpp/call/moves", test_call_moves);
  g_test_add_func ("/cpp/call/carries-exceptions", test_call_carries_exceptions);
  g_test_add_func ("/cpp/call/carries-gerrors", test_call_carries_gerrors);
  g_test_add_func ("/cpp/call/given-up", test_call_is_given_up);
  g_test_add_func ("/cpp/call/refused", test_call_is_refused);
  g_test_add_func ("/cpp/post/order", test_post_runs_in_order);
  g_test_add_func ("/cpp/post/destroyed-there", test_post_is_destroyed_there);
  g_test_add_func ("/cpp/post/dropped", test_post_is_dropped);
  g_test_add_func ("/cpp/post/refused", test_post_is_refused);
  g_test_add_func ("/cpp/post/after", test_post_after);
  g_test_add_func ("/cpp/post/must-not-throw", test_post_must_not_throw);
  g_test_add_func ("/cpp/call/must-return", test_call_must_return);
  g_test_add_func ("/cpp/submit/results", test_submit_has_results);
  g_test_add_func ("/cpp/submit/carries-exceptions", test_submit_carries_exceptions);
  g_test_add_func ("/cpp/submit/destroyed-first", test_submit_is_destroyed_first);
  g_test_add_func ("/cpp/submit/dropped", test_submit_is_dropped);
  g_test_add_func ("/cpp/submit/refused", test_submit_is_refused);
  g_test_add_func ("/cpp/submit/abandoned", test_submit_outlives_its_future);
  g_test_add_func ("/cpp/timeouts", test_timeouts);

  return g_test_run ();
}
