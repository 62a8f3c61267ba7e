/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bgloop.hpp>

#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using bgloop::Error;
using bgloop::Loop;

/* Runs what is to throw an Error, and checks which. */
template <class F>
static void
assert_throws (GQuark domain, int code, F &&func)
{
  bool threw = false;

  try
    {
      func ();
    }
  catch (const Error &error)
    {
      g_assert_error (error.get (), domain, code);
      g_assert_cmpstr (error.what (), ==, error.get ()->message);
      threw = true;
    }
  g_assert_true (threw);
}

/* Counts how many there are, so that what is not destroyed is seen. */
class Counted
{
public:
  static inline std::atomic<int> n{ 0 };
  static inline std::atomic<GThread *> destroyed_in{ nullptr };

  Counted ()
  {
    n++;
  }
  Counted (const Counted &)
  {
    n++;
  }
  ~Counted ()
  {
    destroyed_in = g_thread_self ();
    n--;
  }
};

/* Keeps a loop busy until it is let go. */
class Block
{
public:
  explicit Block (Loop &loop)
  {
    std::promise<void> entered;

    loop.post ([&entered, left = m_left.get_future ()] () mutable {
      entered.set_value ();
      left.wait ();
    });
    entered.get_future ().wait ();
  }

  void
  leave ()
  {
    m_left.set_value ();
  }

private:
  std::promise<void> m_left;
};

static void
test_call ()
{
  Loop loop ("cpp");
  GThread *thread = loop.call ([] { return g_thread_self (); });
  int value = 1;

  g_assert_true (thread != g_thread_self ());
  g_assert_true (loop.call ([&] { return bg_loop_is_current (loop.get ()) != FALSE; }));
  loop.call ([&] { value = 2; });
  g_assert_cmpint (value, ==, 2);
  loop.call ([&] () -> int & { return value; }) = 3;
  g_assert_cmpint (value, ==, 3);
  g_assert_cmpint (*loop.call (
                       [p = std::make_unique<int> (4)] () mutable { return std::move (p); }),
                   ==, 4);
  /* On the loop's own thread it runs at once. */
  g_assert_cmpint (loop.call ([&] { return loop.call ([&] { return value + 2; }); }), ==, 5);
}

static void
test_call_throws ()
{
  Loop loop ("cpp");
  std::string message;

  try
    {
      loop.call ([] { throw std::out_of_range ("far"); });
    }
  catch (const std::out_of_range &error)
    {
      message = error.what ();
    }
  g_assert_cmpstr (message.c_str (), ==, "far");
}

static void
test_call_gives_up ()
{
  Loop loop ("cpp");
  GCancellable *cancellable = g_cancellable_new ();
  auto not_reached = [] { g_assert_not_reached (); };
  Block block (loop);

  assert_throws (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.call (not_reached, 1ms); });
  assert_throws (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.call (not_reached, 1us); });
  assert_throws (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.call (not_reached, -1h); });
  g_cancellable_cancel (cancellable);
  assert_throws (G_IO_ERROR, G_IO_ERROR_CANCELLED,
                 [&] { loop.call (not_reached, bgloop::forever, cancellable); });
  block.leave ();
  loop.shutdown ();
  assert_throws (BG_ERROR, BG_ERROR_CLOSED, [&] { loop.call (not_reached); });
  g_object_unref (cancellable);
}

static void
test_post ()
{
  std::vector<int> order;
  GThread *thread;

  {
    Loop loop ("cpp");
    Block block (loop);

    thread = nullptr;
    loop.post ([&] { order.push_back (3); }, G_PRIORITY_LOW);
    loop.post ([&] { order.push_back (1); });
    loop.post ([&, p = std::make_unique<int> (2)] { order.push_back (*p); });
    loop.post ([&, counted = Counted ()] { thread = g_thread_self (); });
    block.leave ();
  }
  g_assert_true (order == std::vector<int> ({ 1, 2, 3 }));
  g_assert_nonnull (thread);
  g_assert_true (Counted::destroyed_in == thread);
  g_assert_cmpint (Counted::n, ==, 0);
}

static void
test_post_refused ()
{
  Loop loop ("cpp");

  loop.shutdown ();
  g_assert_false (loop.post ([counted = Counted ()] { g_assert_not_reached (); }));
  g_assert_cmpint (Counted::n, ==, 0);
}

static void
test_post_after ()
{
  Loop loop ("cpp");
  std::promise<gint64> ran;
  gint64 begin = g_get_monotonic_time ();
  guint64 id;

  g_assert_cmpuint (loop.post_after (1500us, [&] { ran.set_value (g_get_monotonic_time ()); }), !=,
                    0);
  g_assert_cmpint (ran.get_future ().get () - begin, >=, 1500);
  id = loop.post_after (24h * 365 * 100, [counted = Counted ()] { g_assert_not_reached (); });
  g_assert_true (bg_loop_withdraw (loop.get (), id));
  loop.post_after (bgloop::forever, [counted = Counted ()] { g_assert_not_reached (); });
  loop.shutdown ();
  g_assert_cmpint (Counted::n, ==, 0);
}

static void
test_submit ()
{
  Loop loop ("cpp");
  auto value = loop.submit ([] { return std::string ("text"); });
  auto nothing = loop.submit ([counted = Counted ()] {});
  auto fails = loop.submit ([] () -> int { throw std::out_of_range ("far"); });
  bool threw = false;

  g_assert_true (value.get () == "text");
  nothing.get ();
  try
    {
      fails.get ();
    }
  catch (const std::out_of_range &)
    {
      threw = true;
    }
  g_assert_true (threw);
  loop.shutdown ();
  g_assert_cmpint (Counted::n, ==, 0);
}

static void
assert_broken (std::future<void> future)
{
  bool threw = false;

  try
    {
      future.get ();
    }
  catch (const std::future_error &error)
    {
      g_assert_true (error.code () == std::future_errc::broken_promise);
      threw = true;
    }
  g_assert_true (threw);
}

/* Whoever waits is told when the loop ends before it runs what was submitted. */
static void
test_submit_dropped ()
{
  Loop loop ("cpp");
  Block block (loop);
  auto dropped = loop.submit ([counted = Counted ()] { g_assert_not_reached (); });

  bg_loop_quit (loop.get (), BG_SHUTDOWN_CANCEL);
  block.leave ();
  assert_broken (std::move (dropped));
  loop.shutdown ();
  assert_broken (loop.submit ([counted = Counted ()] { g_assert_not_reached (); }));
  g_assert_cmpint (Counted::n, ==, 0);
}

static void
test_shutdown ()
{
  Loop loop ("cpp");
  Block block (loop);

  assert_throws (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, [&] { loop.shutdown (BG_SHUTDOWN_DRAIN, 1ms); });
  block.leave ();
  assert_throws (BG_ERROR, BG_ERROR_WOULD_DEADLOCK, [&] {
    Loop another ("another");
    another.call ([&] { another.shutdown (); });
  });
  loop.shutdown ();
  loop.shutdown (BG_SHUTDOWN_CANCEL, 1h);
}

static void
test_scope ()
{
  bool ran = false;
  Loop outer;

  {
    Loop loop ("cpp");
    Loop moved (std::move (loop));

    g_assert_null (loop.get ());
    moved.post ([&] { ran = true; });
    outer = std::move (moved);
    g_assert_cmpstr (bg_loop_get_name (outer.get ()), ==, "cpp");
    g_assert_null (moved.get ());
  }
  outer = Loop ("third");
  g_assert_true (ran);
}

int
main (int argc, char *argv[])
{
  g_test_init (&argc, &argv, nullptr);

  g_test_add_func ("/cpp/call", test_call);
  g_test_add_func ("/cpp/call/throws", test_call_throws);
  g_test_add_func ("/cpp/call/gives-up", test_call_gives_up);
  g_test_add_func ("/cpp/post", test_post);
  g_test_add_func ("/cpp/post/refused", test_post_refused);
  g_test_add_func ("/cpp/post-after", test_post_after);
  g_test_add_func ("/cpp/submit", test_submit);
  g_test_add_func ("/cpp/submit/dropped", test_submit_dropped);
  g_test_add_func ("/cpp/shutdown", test_shutdown);
  g_test_add_func ("/cpp/scope", test_scope);

  return g_test_run ();
}
