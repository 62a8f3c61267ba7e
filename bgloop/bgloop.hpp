/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bgloop.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

/* Loops for C++17; docs/cpp.md is the guide. Threads and blocking are those of the C functions of
 * the same names, and what these fail with is thrown as an Error. Functions may be move-only. The
 * loop's thread destroys them, or the caller's if they are refused. An exception that leaves a
 * function for which nobody waits ends the program, as ending the loop's thread does.
 *
 * Bad input is a critical message, as in C: a loop that is none, an empty function, a mode, time or
 * cancellable that C does not take. If the program goes on, nothing is done, and what was called
 * ends as it does for a loop that takes no more work: call() and shutdown(), and the constructor
 * that starts a loop, throw an Error, with the code G_IO_ERROR_INVALID_ARGUMENT; post() returns
 * false, post_after() 0 and hold() null; submit() breaks its promise. Since: 1.0 */
namespace bgloop
{
/* A GError that is thrown. */
struct Error : std::runtime_error
{
  GQuark domain;
  int code;

  explicit Error (const GError &error)
      : std::runtime_error (error.message), domain (error.domain), code (error.code)
  {
  }
};

/* A duration in milliseconds, rounded up, from 0 to the most that an int has; {} is no limit. */
struct Timeout
{
  int msec = -1;
  Timeout () noexcept = default;
  template <typename Rep, typename Period>
  Timeout (std::chrono::duration<Rep, Period> limit) noexcept
  {
    const double exact = std::ceil (std::chrono::duration<double, std::milli> (limit).count ());

    msec = exact >= G_MAXINT ? G_MAXINT : exact > 0 ? static_cast<int> (exact) : 0;
  }
};

/* Goes for a BgLoop in the functions of C. It is never moved: functions on it may refer to it. */
class Loop
{
public:
  /* Starts a loop. The destructor shuts the loop down, and quits it where that fails. */
  explicit Loop (const std::string &name = {},
                 BgShutdownMode mode = BG_SHUTDOWN_DRAIN,
                 Timeout timeout = {})
      : ends_ (true), mode_ (mode), timeout_ (timeout)
  {
    g_autoptr (GError) error = nullptr;

    /* The destructor needs them, and cannot throw. */
    if (!check (mode == BG_SHUTDOWN_DRAIN || mode == BG_SHUTDOWN_CANCEL, "is_mode (mode)")
        || !check (timeout.msec >= -1, "timeout.msec >= -1"))
      fail (nullptr);
    loop_ = bg_loop_new (name.c_str (), &error);
    if (loop_ == nullptr)
      fail (error);
  }

  /* Refers to a loop, and the destructor drops it. Where @loop is none, all that is called on this
   * is bad input. */
  explicit Loop (BgLoop *loop) noexcept
  {
    if (!check (BG_IS_LOOP (loop), "BG_IS_LOOP (loop)"))
      return;
    g_object_ref (loop);
    loop_ = loop;
  }

  Loop (const Loop &) = delete;
  Loop &operator= (const Loop &) = delete;

  ~Loop ()
  {
    g_autoptr (GError) error = nullptr;

    if (ends_ && !bg_loop_shutdown_full (loop_, mode_, timeout_.msec, nullptr, &error))
      bg_loop_quit (loop_, mode_);
    if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
      g_log ("bgloop", G_LOG_LEVEL_WARNING, "%s", error->message);
    if (loop_ != nullptr)
      g_object_unref (loop_);
  }

  operator BgLoop * () const noexcept
  {
    return loop_;
  }

  /* What the function returns or throws. The limit is for it to start. */
  template <typename F, typename R = std::invoke_result_t<F &> >
  R
  call (F &&function, Timeout limit = {}, GCancellable *cancellable = nullptr) const
  {
    g_autoptr (GError) error = nullptr;
    std::exception_ptr thrown;
    std::optional<std::conditional_t<std::is_void_v<R>, std::tuple<>, std::tuple<R> > > value;
    auto work = [&] {
      try
        {
          if constexpr (std::is_void_v<R>)
            function ();
          else
            value.emplace (function ());
        }
      catch (...)
        {
          thrown = std::current_exception ();
          /* What ends a thread is no exception, and must not be stopped. */
          if (!thrown)
            std::terminate ();
        }
    };
    BgCallFunc run = [] (gpointer data, GError **) noexcept -> gboolean {
      (*static_cast<decltype (work) *> (data)) ();
      return TRUE;
    };

    if (is_empty<std::decay_t<F> > (function, 0))
      run = nullptr;
    if (!bg_loop_call_full (loop_, G_PRIORITY_DEFAULT, limit.msec, run, &work, cancellable, &error))
      fail (error);
    if (thrown)
      std::rethrow_exception (std::move (thrown));
    if constexpr (!std::is_void_v<R>)
      return std::get<0> (*std::move (value));
  }

  /* False if the loop takes no more work. */
  template <typename F>
  bool
  post (F &&function, int priority = G_PRIORITY_DEFAULT) const
  {
    return give (bg_loop_post_full, priority, std::forward<F> (function));
  }

  /* What bg_loop_withdraw() takes, and 0 if the loop takes no more work. */
  template <typename F>
  guint64
  post_after (Timeout delay, F &&function) const
  {
    return give (bg_loop_post_after, static_cast<guint> (delay.msec), std::forward<F> (function));
  }

  /* The future is ready when the function is destroyed: a broken promise if that never runs. */
  template <typename F, typename R = std::invoke_result_t<std::decay_t<F> &> >
  std::future<R>
  submit (F &&function, int priority = G_PRIORITY_DEFAULT) const
  {
    using Work = std::unique_ptr<std::decay_t<F> >;
    std::packaged_task<R (Work)> task ([] (Work work) -> R { return (*work) (); });
    auto future = task.get_future ();

    if (is_empty<std::decay_t<F> > (function, 0))
      {
        bg_loop_post_full (loop_, priority, nullptr, nullptr, nullptr);
        return future;
      }

    std::pair pair (std::move (task), Work (new std::decay_t<F> (std::forward<F> (function))));
    auto run = [pair = std::move (pair)] () mutable { pair.first (std::move (pair.second)); };

    post (std::move (run), priority);
    return future;
  }

  /* Keeps the loop from stopping while there is a copy. Null if the loop takes no more work. */
  [[nodiscard]] std::shared_ptr<void>
  hold (const std::string &reason) const
  {
    const guint64 id = bg_loop_hold (loop_, reason.c_str ());

    if (id == 0)
      return nullptr;
    return { g_object_ref (loop_), [id] (gpointer loop) {
              bg_loop_release (static_cast<BgLoop *> (loop), id);
              g_object_unref (loop);
            } };
  }

  void
  shutdown (BgShutdownMode mode = BG_SHUTDOWN_DRAIN, Timeout timeout = {}) const
  {
    g_autoptr (GError) error = nullptr;

    if (!bg_loop_shutdown_full (loop_, mode, timeout.msec, nullptr, &error))
      fail (error);
  }

private:
  /* What g_return_if_fail() says, in the library's name and whatever the program is compiled with. */
  static bool
  check (bool good, const char *expression) noexcept
  {
    if (!good)
      g_return_if_fail_warning ("bgloop", "bgloop::Loop", expression);
    return good;
  }

  /* After bad input there is no GError. */
  [[noreturn]] static void
  fail (const GError *error)
  {
    char text[] = "An argument is bad: a critical message has said which";
    const GError bad = { G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, text };

    throw Error (error != nullptr ? *error : bad);
  }

  /* Whether @function is a pointer that is null, or a std::function, or its like, that has none:
   * what can be compared with nullptr. The int goes before the long where there is such a thing. */
  template <typename F>
  static auto
  is_empty (const F &function, int) -> decltype (static_cast<bool> (function == nullptr))
  {
    return function == nullptr;
  }

  template <typename F>
  static bool
  is_empty (const F &, long)
  {
    return false;
  }

  template <typename Post, typename How, typename F>
  auto
  give (Post hand_over, How how, F &&function) const
  {
    using Work = std::decay_t<F>;

    /* After bad input C leaves the data to the caller: it is given none, and says what is bad. */
    if (loop_ == nullptr || is_empty<Work> (function, 0))
      return hand_over (loop_, how, nullptr, nullptr, nullptr);
    return hand_over (
        loop_, how, [] (gpointer work) noexcept { (*static_cast<Work *> (work)) (); },
        new Work (std::forward<F> (function)),
        [] (gpointer work) noexcept { delete static_cast<Work *> (work); });
  }

  BgLoop *loop_ = nullptr;
  bool ends_ = false;
  BgShutdownMode mode_ = BG_SHUTDOWN_DRAIN;
  Timeout timeout_;
};
}
