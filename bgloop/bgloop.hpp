/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

/* For C++17: a loop that ends with its scope, and lambdas on its thread. Whatever is not
 * here is called with Loop::get (). */

#include <bgloop/bgloop.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace bgloop
{

/* What a GError says. Since: 1.0 */
class Error : public std::runtime_error
{
public:
  /* Takes the error over. */
  explicit Error (GError *error)
      : std::runtime_error (error->message), m_error (error, g_error_free)
  {
  }

  const GError *
  get () const noexcept
  {
    return m_error.get ();
  }

private:
  std::shared_ptr<GError> m_error;
};

/* A limit that is never reached. Since: 1.0 */
inline constexpr std::chrono::milliseconds forever = std::chrono::milliseconds::max ();

namespace detail
{

/* In whole milliseconds, at least as long, and no longer than the library can count. */
template <class Rep, class Period>
int
to_msec (std::chrono::duration<Rep, Period> time)
{
  using Limit = std::chrono::duration<double, std::milli>;

  if (time.count () <= 0)
    return 0;
  if (Limit (time) < Limit (G_MAXINT))
    return static_cast<int> (std::chrono::ceil<std::chrono::milliseconds> (time).count ());
  return Limit (time) < Limit (forever) ? G_MAXINT : -1;
}

/* Of a function that is owned by what is queued. What it throws ends the process. */

template <class F>
void
run (gpointer func) noexcept
{
  (*static_cast<F *> (func)) ();
}

template <class F>
void
destroy (gpointer func)
{
  delete static_cast<F *> (func);
}

} // namespace detail

/* A loop on a thread of its own, which drains and ends when this goes, and waits for that.
 * All but the destructor and the assignment may be called by any thread. Since: 1.0 */
class Loop
{
public:
  /* Throws an Error when there is no thread to be had. */
  explicit Loop (const char *name = nullptr)
  {
    GError *error = nullptr;

    m_loop = bg_loop_new (name, &error);
    if (m_loop == nullptr)
      throw Error (error);
  }

  Loop (Loop &&other) noexcept : m_loop (std::exchange (other.m_loop, nullptr))
  {
  }
  Loop (const Loop &) = delete;
  ~Loop ()
  {
    reset ();
  }

  Loop &
  operator= (Loop other) noexcept
  {
    std::swap (m_loop, other.m_loop);
    return *this;
  }

  BgLoop *
  get () const noexcept
  {
    return m_loop;
  }

  /* Gives the loop to the caller, who ends and unrefs it. */
  BgLoop *
  release () noexcept
  {
    return std::exchange (m_loop, nullptr);
  }

  /* Runs @func on the loop, and does not wait. False if the loop takes no more work, and
   * then @func is gone. @func must not throw. */
  template <class F>
  bool
  post (F &&func, int priority = G_PRIORITY_DEFAULT) const
  {
    using Func = std::decay_t<F>;
    return bg_loop_post_full (m_loop, priority, detail::run<Func>,
                              new Func (std::forward<F> (func)), detail::destroy<Func>);
  }

  /* The same, not before @delay has passed. An id for bg_loop_withdraw(), or 0. */
  template <class Rep, class Period, class F>
  guint64
  post_after (std::chrono::duration<Rep, Period> delay, F &&func) const
  {
    using Func = std::decay_t<F>;
    int msec = detail::to_msec (delay);
    return bg_loop_post_after (m_loop, msec < 0 ? G_MAXINT : msec, detail::run<Func>,
                               new Func (std::forward<F> (func)), detail::destroy<Func>);
  }

  /* Runs @func on the loop and waits, for @limit until it starts. Returns what it returns, and
   * throws what it throws, or an Error when it did not run. */
  template <class F, class Limit = std::chrono::milliseconds>
  std::invoke_result_t<F &>
  call (F &&func, Limit limit = forever, GCancellable *cancellable = nullptr) const
  {
    std::packaged_task<std::invoke_result_t<F &> ()> task (std::ref (func));
    auto run = [] (gpointer data, GError **) -> gboolean {
      return (*static_cast<decltype (task) *> (data)) (), TRUE;
    };
    GError *error = nullptr;

    if (!bg_loop_call_full (m_loop, G_PRIORITY_DEFAULT, detail::to_msec (limit), run, &task,
                            cancellable, &error))
      throw Error (error);
    return task.get_future ().get ();
  }

  /* Runs @func on the loop. The future has what it returns or throws, and is a broken promise
   * when the loop ends before it runs. Do not wait for it on the loop's own thread. */
  template <class F>
  std::future<std::invoke_result_t<std::decay_t<F> &> >
  submit (F &&func, int priority = G_PRIORITY_DEFAULT) const
  {
    std::packaged_task<std::invoke_result_t<std::decay_t<F> &> ()> task (std::forward<F> (func));
    auto future = task.get_future ();

    post (std::move (task), priority);
    return future;
  }

  /* Ends the loop, and waits for that. Throws an Error when @limit has passed. */
  template <class Limit = std::chrono::milliseconds>
  void
  shutdown (BgShutdownMode mode = BG_SHUTDOWN_DRAIN, Limit limit = forever) const
  {
    GError *error = nullptr;

    if (!bg_loop_shutdown_full (m_loop, mode, detail::to_msec (limit), nullptr, &error))
      throw Error (error);
  }

private:
  void
  reset () noexcept
  {
    if (m_loop != nullptr)
      bg_loop_shutdown (m_loop, nullptr);
    g_clear_object (&m_loop);
  }

  BgLoop *m_loop = nullptr;
};

} // namespace bgloop
