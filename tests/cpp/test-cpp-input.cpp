/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bgloop.hpp>

#include <functional>

#include "util.h"

using namespace std::chrono_literals;

/* Bad input is one critical message and an end as bgloop.hpp says, and nothing else: no function runs
 * or is left, and a good loop goes on. What C's functions take is tried in test-input.c. */

/* C++ does not say what comes of it, and the sanitizers of the build with AddressSanitizer end the
 * program: there the rows with one are left out. */
[[maybe_unused]] static BgShutdownMode
bad_mode ()
{
  const volatile int number = BG_SHUTDOWN_CANCEL + 1;

  return static_cast<BgShutdownMode> (number);
}

static bgloop::Timeout
bad_timeout ()
{
  bgloop::Timeout timeout;

  timeout.msec = -5;
  return timeout;
}

/* Counts those of its kind that are there. */
class Counted
{
public:
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
    n--;
  }

  static int n;
};

int Counted::n = 0;

template <typename F>
static bool
throws_invalid (F &&function)
{
  try
    {
      function ();
    }
  catch (const bgloop::Error &error)
    {
      return error.domain == G_IO_ERROR && error.code == G_IO_ERROR_INVALID_ARGUMENT
             && *error.what () != '\0';
    }
  return false;
}

static bool
is_broken (std::future<int> future)
{
  if (future.wait_for (0s) != std::future_status::ready)
    return false;
  try
    {
      future.get ();
    }
  catch (const std::future_error &error)
    {
      return error.code () == std::future_errc::broken_promise;
    }
  return false;
}

/* What is called on a loop, which may be none. TRUE where it ends as it should. */

static bool
call (const bgloop::Loop &loop)
{
  return throws_invalid ([&] { loop.call ([counted = Counted ()] { g_assert_not_reached (); }); });
}

static bool
call_for_value (const bgloop::Loop &loop)
{
  return throws_invalid ([&] { loop.call ([] { return Counted (); }); });
}

static bool
post (const bgloop::Loop &loop)
{
  return !loop.post ([counted = Counted ()] { g_assert_not_reached (); });
}

static bool
post_after (const bgloop::Loop &loop)
{
  return loop.post_after (0s, [counted = Counted ()] { g_assert_not_reached (); }) == 0;
}

static bool
submit (const bgloop::Loop &loop)
{
  return is_broken (loop.submit ([counted = Counted ()] { return Counted::n; }));
}

static bool
hold (const bgloop::Loop &loop)
{
  return loop.hold ("input") == nullptr;
}

static bool
shut_down (const bgloop::Loop &loop)
{
  return throws_invalid ([&] { loop.shutdown (); });
}

static const struct
{
  const char *name;
  bool (*call) (const bgloop::Loop &loop);
  const char *reports_as;
} functions[] = {
  { "call", call, "bg_loop_call_full" },
  { "call-for-value", call_for_value, "bg_loop_call_full" },
  { "post", post, "bg_loop_post_full" },
  { "post-after", post_after, "bg_loop_post_after" },
  { "submit", submit, "bg_loop_post_full" },
  { "hold", hold, "bg_loop_hold" },
  { "shutdown", shut_down, "bg_loop_shutdown_full" },
};

static void
take_critical (const char *function, const char *expression)
{
  g_autofree char *pattern = g_strdup_printf ("*%s: assertion '%s' failed", function, expression);

  util_take_critical (pattern);
}

/* The critical that this takes is the only one since the last. */
static void
assert_no_critical ()
{
  g_assert_null (bg_loop_get_name (nullptr));
  take_critical ("bg_loop_get_name", "*");
}

/* That a Loop which is made of this says so, refuses everything, and drops nothing. */
static void
assert_is_no_loop (gpointer thing)
{
  {
    const bgloop::Loop loop (static_cast<BgLoop *> (thing));

    take_critical ("bgloop::Loop", "BG_IS_LOOP (loop)");
    g_assert_null (static_cast<BgLoop *> (loop));
    for (const auto &function : functions)
      {
        g_assert_true (function.call (loop));
        take_critical (function.reports_as, "BG_IS_LOOP (self)");
        g_assert_cmpint (Counted::n, ==, 0);
      }
  }
  assert_no_critical ();
}

static void
test_no_loop ()
{
  util_catch_criticals ();
  assert_is_no_loop (nullptr);
}

static void
test_thing_as_loop ()
{
  g_autoptr (GObject) thing = G_OBJECT (g_object_new (G_TYPE_OBJECT, nullptr));

  util_catch_criticals ();
  assert_is_no_loop (thing);
  g_assert_cmpuint (thing->ref_count, ==, 1);
}

/* In memory of its own, what is left of a loop that was finalised: see test-input.c. */
static void
test_finalised_loop ()
{
  BgLoop *loop = util_loop_new ("finalised");
  GTypeQuery query;
  GObject *left;

  g_type_query (BG_TYPE_LOOP, &query);
  left = static_cast<GObject *> (g_memdup2 (loop, query.instance_size));
  left->g_type_instance.g_class = nullptr;
  left->ref_count = 0;
  util_loop_end (loop);

  util_catch_criticals ();
  assert_is_no_loop (left);
  g_free (left);
}

/* Arguments that are bad, on a loop that is good */

template <typename F>
static bool
refuses_empty (const bgloop::Loop &loop, const F &empty)
{
  const auto assert_critical
      = [] (const char *function) { take_critical (function, "func != NULL"); };

  g_assert_true (throws_invalid ([&] { loop.call (empty); }));
  assert_critical ("bg_loop_call_full");
  g_assert_false (loop.post (empty));
  assert_critical ("bg_loop_post_full");
  g_assert_cmpuint (loop.post_after (0s, empty), ==, 0);
  assert_critical ("bg_loop_post_after");
  return is_broken (loop.submit (empty));
}

static constexpr struct
{
  const char *name;
  bool (*call) (const bgloop::Loop &loop);
  const char *function;
  const char *expression;
} bad[] = {
  { "call-timeout",
    [] (const bgloop::Loop &loop) {
      return throws_invalid ([&] { loop.call ([] { g_assert_not_reached (); }, bad_timeout ()); });
    },
    "bg_loop_call_full", "timeout_msec >= -1" },
  { "call-thing-as-cancellable",
    [] (const bgloop::Loop &loop) {
      g_autoptr (GObject) thing = G_OBJECT (g_object_new (G_TYPE_OBJECT, nullptr));
      gpointer cancellable = thing;

      return throws_invalid ([&] {
        loop.call ([] { g_assert_not_reached (); }, {}, static_cast<GCancellable *> (cancellable));
      });
    },
    "bg_loop_call_full", "*G_IS_CANCELLABLE*" },
  { "empty-function",
    [] (const bgloop::Loop &loop) { return refuses_empty (loop, std::function<int ()> ()); },
    "bg_loop_post_full", "func != NULL" },
  { "null-pointer",
    [] (const bgloop::Loop &loop) {
      int (*const none) () = nullptr;

      return refuses_empty (loop, none);
    },
    "bg_loop_post_full", "func != NULL" },
  { "shutdown-timeout",
    [] (const bgloop::Loop &loop) {
      return throws_invalid ([&] { loop.shutdown (BG_SHUTDOWN_DRAIN, bad_timeout ()); });
    },
    "bg_loop_shutdown_full", "timeout_msec >= -1" },
  { "start-timeout",
    [] (const bgloop::Loop &) {
      return throws_invalid ([] { bgloop::Loop ("started", BG_SHUTDOWN_CANCEL, bad_timeout ()); });
    },
    "bgloop::Loop", "timeout.msec >= -1" },
#if !UTIL_WITH_ASAN
  { "shutdown-mode",
    [] (const bgloop::Loop &loop) { return throws_invalid ([&] { loop.shutdown (bad_mode ()); }); },
    "bg_loop_shutdown_full", "is_mode (mode)" },
  { "start-mode",
    [] (const bgloop::Loop &) {
      return throws_invalid ([] { bgloop::Loop ("started", bad_mode ()); });
    },
    "bgloop::Loop", "is_mode (mode)" },
#endif
};

static void
test_bad (gconstpointer data)
{
  const auto row = static_cast<const std::remove_reference_t<decltype (bad[0])> *> (data);

  util_catch_criticals ();
  {
    bgloop::Loop loop ("input");
    const guint64 made = bg_test_mark_loops ();

    g_assert_true (row->call (loop));
    take_critical (row->function, row->expression);
    g_assert_null (bg_test_describe_loops (made, 0));
    g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_RUNNING);
    g_assert_cmpint (loop.call ([] { return 42; }), ==, 42);
  }
  assert_no_critical ();
}

/* What could be taken for it, and is good. */
static void
test_good ()
{
  bgloop::Loop loop ("good");
  const std::function<int ()> function = [] { return 42; };
  int (*const pointer) () = [] { return 42; };

  g_assert_cmpint (loop.call (function), ==, 42);
  g_assert_cmpint (loop.call (pointer), ==, 42);
  g_assert_cmpint (loop.submit (function).get (), ==, 42);
  g_assert_cmpint (loop.submit (pointer).get (), ==, 42);
  g_assert_true (loop.post (function));
  g_assert_true (loop.post (pointer));
  g_assert_cmpuint (loop.post_after (0s, pointer), !=, 0);
}

int
main (int argc, char **argv)
{
  util_init (&argc, &argv);
  g_test_add_func ("/cpp/input/no-loop", test_no_loop);
  g_test_add_func ("/cpp/input/thing-as-loop", test_thing_as_loop);
  g_test_add_func ("/cpp/input/finalised-loop", test_finalised_loop);
  g_test_add_func ("/cpp/input/good", test_good);
  for (const auto &row : bad)
    {
      g_autofree char *path = g_strdup_printf ("/cpp/input/bad/%s", row.name);

      g_test_add_data_func (path, &row, test_bad);
    }

  return g_test_run ();
}
