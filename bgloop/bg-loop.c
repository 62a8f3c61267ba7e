/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-operation.h>
#include <bgloop/core/bg-reply-private.h>
#include <bgloop/testing/bg-test-private.h>

/* The object that people hold: its type, its properties, how it is made and dropped. Any thread;
 * no lock is taken here, as all that an object has is its core, from construction on. */

/**
 * BgLoop:
 *
 * An event loop on a thread of its own, that any thread can hand work to and
 * that ends well.
 *
 * A loop runs from the moment that [ctor@Bg.Loop.new] returns until it is shut
 * down with [method@Bg.Loop.shutdown], or dropped. It has one life and cannot be
 * started again; making another is cheap.
 *
 * Every piece of work given to a loop has exactly one outcome: it ran to its
 * end, or it never ran and whoever gave it was told. Either way its destroy
 * notify runs exactly once, before [method@Bg.Loop.shutdown] returns.
 *
 * ## Which call do I want?
 *
 * | I want to | call |
 * |---|---|
 * | hand over work and forget it | [method@Bg.Loop.post] |
 * | the same, after a while | [method@Bg.Loop.post_after] |
 * | run a function there and wait for its answer | [method@Bg.Loop.call] |
 * | run a function there and be called back | [method@Bg.Loop.call_async] |
 * | return from a `GTask` there | [method@Bg.Loop.run_task] |
 * | wait for an asynchronous operation | [method@Bg.Loop.perform] |
 * | begin one there and be called back here | [method@Bg.Loop.perform_async] |
 * | wait until what was handed over is done | [method@Bg.Loop.flush] |
 * | replace `g_main_context_invoke()` by name | [method@Bg.Loop.invoke] |
 * | have a timeout or a descriptor watched | [method@Bg.Loop.attach] |
 * | keep the loop from ending meanwhile | [method@Bg.Loop.hold] |
 * | close something at the very end | [method@Bg.Loop.add_teardown] |
 * | end the loop and wait for that | [method@Bg.Loop.shutdown] |
 * | only ask it to end, from anywhere | [method@Bg.Loop.quit] |
 *
 * ## The three states
 *
 * ![A loop is running, stopping, then stopped; it never goes back](life.svg)
 *
 * ## What waits, and where
 *
 * What is said of `call` and `perform` is true of `call_full` and `perform_operation` as well, and
 * so on: `_full` adds arguments, and an `_operation` is begun otherwise.
 *
 * | call | waits? | on the loop's own thread | while stopping | in a forked child |
 * |---|---|---|---|---|
 * | `post`, `post_after`, `invoke`, `attach`, `hold`, `add_teardown` | no | the same; invoke runs at once | FALSE or 0; taken from the loop's own thread in a drain | FALSE or 0 |
 * | `withdraw`, `release`, `remove_teardown` | no | the same | the same | no effect |
 * | `call` | yes | runs the function, in every state | `CLOSED` | `FORKED` |
 * | `perform`, `flush` | yes | `WOULD_DEADLOCK` | `CLOSED` | `FORKED` |
 * | `call_async`, `run_task`, `perform_async` | no | the same | replies `CLOSED`; taken from the loop's own thread in a drain | replies `FORKED` |
 * | `shutdown`, `wait` | yes | `WOULD_DEADLOCK` | waits | `FORKED` |
 * | `new`, `dup_default` | until its thread runs | another loop; the default one | another loop; a fresh one | a loop of the child's |
 * | `reset_default` | yes | `WOULD_DEADLOCK` | waits | TRUE at once: the parent's default loop is not the child's |
 * | `shutdown_async`, `wait_async` | no | replies `WOULD_DEADLOCK` | replies at the end | replies `FORKED` |
 * | `quit` | no | the same | CANCEL overrides DRAIN | no effect |
 * | the getters, describe, is_current, dup_current | no | the same | the same | answer for a stopped loop |
 *
 * All methods can be called from any thread. See [Threading rules](threads.html).
 *
 * ## Sources and the main context
 *
 * `g_idle_add()`, `g_timeout_add()`, `g_unix_signal_add()` and `g_child_watch_add()` go
 * to the main context also when they are called on a loop. Post, or attach a
 * source: see [what to write instead](threads.html#functions-that-go-to-the-main-context-instead).
 *
 * ## Languages without threads
 *
 * A JavaScript function cannot run on a loop: GJS refuses to run it on another thread than its
 * own, and the process may crash afterwards. What GJS can do with a loop is on [its page](gjs.html).
 *
 * ## The end of the process, and fork
 *
 * Dropping the last reference never blocks. It asks the loop to stop, as
 * [method@Bg.Loop.quit] does with `BG_SHUTDOWN_DRAIN`, and nobody waits for it.
 *
 * A process may leave `main()` with loops alive and work queued: nothing crashes or hangs, and
 * nothing is waited for, as the library has no exit handler.
 *
 * - What runs: the function that is running just then goes on until the process is gone, which
 *   may be in its middle. Queued work may still start while exit handlers run; else it never does.
 * - What is destroyed: nothing that has not run. Its destroy notifies do not run, nor do the
 *   teardown functions. A loop that was dropped and is stopping is not waited for either.
 * - What to do: end each loop before `main()` returns, or in an `atexit()` handler, with
 *   [method@Bg.Loop.shutdown_full] and a deadline; the default loop with [func@Bg.Loop.reset_default].
 *
 * See [The life of a loop](life.html#at-the-end-of-the-process).
 *
 * In a process forked from the one that made it a loop is dead: every method
 * fails with `BG_ERROR_FORKED`, or `FALSE`, at once. A program that forks while another of
 * its threads may be making the first loop calls g_type_class_ref() with the type before,
 * as with any type that its children use: GObject has locks that a child inherits locked.
 *
 * An argument that is a programming error is reported with `g_return_if_fail()`;
 * then there is no outcome, and the data stays the caller's.
 *
 * Since: 1.0
 */

enum
{
  PROP_NAME = 1,
  PROP_STATE,
  PROP_LINGER,
  PROP_STALL_THRESHOLD,
  N_PROPS,
};

static GParamSpec *properties[N_PROPS];

static void initable_init (GInitableIface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (BgLoop,
                               bg_loop,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_INITABLE, initable_init))

G_DEFINE_ENUM_TYPE (BgLoopState,
                    bg_loop_state,
                    G_DEFINE_ENUM_VALUE (BG_LOOP_RUNNING, "running"),
                    G_DEFINE_ENUM_VALUE (BG_LOOP_STOPPING, "stopping"),
                    G_DEFINE_ENUM_VALUE (BG_LOOP_STOPPED, "stopped"))

G_DEFINE_ENUM_TYPE (BgShutdownMode,
                    bg_shutdown_mode,
                    G_DEFINE_ENUM_VALUE (BG_SHUTDOWN_DRAIN, "drain"),
                    G_DEFINE_ENUM_VALUE (BG_SHUTDOWN_CANCEL, "cancel"))

BgLoop *
bg_loop_dup_from_core (BgCore *core)
{
  return bg_core_dup_object (core);
}

/* For the test kit. */
BgCore *
bg_loop_get_core (BgLoop *self)
{
  return self->core;
}

static void
bg_loop_constructed (GObject *object)
{
  BgLoop *self = BG_LOOP (object);

  bg_core_start (self->core);
  bg_core_set_object (self->core, self);

  G_OBJECT_CLASS (bg_loop_parent_class)->constructed (object);
}

static void
bg_loop_dispose (GObject *object)
{
  BgLoop *self = BG_LOOP (object);
  BgCore *core = self->core;
  guint n = 0;

  if (!bg_core_is_forked (core))
    {
      n = bg_core_forget_object (core);
      bg_loop_unpublish (core);
    }
  for (; n > 0; n--)
    g_object_ref (self);

  G_OBJECT_CLASS (bg_loop_parent_class)->dispose (object);
}

static void
bg_loop_finalize (GObject *object)
{
  BgLoop *self = BG_LOOP (object);

  bg_core_abandon (self->core);

  G_OBJECT_CLASS (bg_loop_parent_class)->finalize (object);
}

static void
bg_loop_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  BgLoop *self = BG_LOOP (object);

  switch (prop_id)
    {
    case PROP_NAME:
      g_value_set_string (value, bg_loop_get_name (self));
      break;
    case PROP_STATE:
      g_value_set_enum (value, bg_loop_get_state (self));
      break;
    case PROP_LINGER:
      g_value_set_uint (value, bg_linger_get_usec (bg_core_get_inbox (self->core)));
      break;
    case PROP_STALL_THRESHOLD:
      g_value_set_uint (value, bg_watch_get_threshold (bg_core_get_watch (self->core)));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
set_linger (BgLoop *self, guint linger)
{
  if (bg_linger_set_usec (bg_core_get_inbox (self->core), linger) != linger)
    g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_LINGER]);
}

static void
set_stall_threshold (BgLoop *self, guint msec)
{
  if (!bg_core_is_forked (self->core)
      && bg_watch_set_threshold (bg_core_get_watch (self->core), msec))
    g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_STALL_THRESHOLD]);
}

static void
bg_loop_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  BgLoop *self = BG_LOOP (object);

  switch (prop_id)
    {
    case PROP_NAME:
      self->core = bg_core_new (g_value_get_string (value));
      break;
    case PROP_LINGER:
      set_linger (self, g_value_get_uint (value));
      break;
    case PROP_STALL_THRESHOLD:
      set_stall_threshold (self, g_value_get_uint (value));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

/* What is registered where it is first used is registered under locks of GLib's, which a
 * child inherits as they are. So all of the library's is there with the first loop. */
static void
ensure_types (void)
{
  (void) BG_ERROR;
  g_type_ensure (BG_TYPE_ERROR);
  g_type_ensure (BG_TYPE_LOOP_STATE);
  g_type_ensure (BG_TYPE_SHUTDOWN_MODE);
  g_type_ensure (BG_TYPE_LOOP_STATS);
  g_type_ensure (BG_TYPE_OPERATION);
  (void) g_type_class_ref (BG_TYPE_REPLY);
}

/* Those that nobody sets once the loop is there. */
static void
add_fixed_properties (void)
{
  /**
   * BgLoop:name: (getter get_name)
   *
   * What the loop is called, in messages and as its thread's name.
   *
   * Since: 1.0
   */
  properties[PROP_NAME]
      = g_param_spec_string ("name", NULL, NULL, NULL,
                             G_PARAM_READWRITE | G_PARAM_CONSTRUCT_ONLY | G_PARAM_STATIC_STRINGS
                                 | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * BgLoop:state: (getter get_state)
   *
   * Where in its life the loop is. Never notified.
   *
   * Since: 1.0
   */
  properties[PROP_STATE]
      = g_param_spec_enum ("state", NULL, NULL, BG_TYPE_LOOP_STATE, BG_LOOP_STOPPED,
                           G_PARAM_READABLE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
}

/* Those that may be set at any time. */
static void
add_tuning_properties (void)
{
  /**
   * BgLoop:linger:
   *
   * For how long the loop stays awake for more work when it has just been busy,
   * and a blocked caller for its answer, in microseconds; so does, for 50 at most,
   * whoever waits for the loop's start or end. 0 turns all of it off.
   *
   * To be woken takes tens of microseconds, everything else less than one. The
   * loop learns whether staying awake pays, and does it only then. On the same
   * processor the two let each other run instead. Beyond the default, 50, the loop
   * stays awake for so long whether that pays or not, which is for tests. It never
   * makes a deadline, a cancellation or delayed work late.
   *
   * It may be set at any time and from any thread.
   *
   * Since: 1.0
   */
  properties[PROP_LINGER]
      = g_param_spec_uint ("linger", NULL, NULL, 0, BG_LINGER_MAX_USEC, BG_LINGER_USEC,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * BgLoop:stall-threshold:
   *
   * After how long what blocks the loop is reported, in milliseconds. 0, the default, is
   * never; the environment variable `BGLOOP_STALL` sets another default for the process.
   *
   * A function, a destroy notify or sources of the loop's context that keep it from getting
   * on for longer are named in a warning of the log domain "bgloop" while they do, once, and
   * in a second one when they have ended, with how long they took. Nothing is reported that
   * was shorter than the threshold. The time may be told too low by a quarter of the threshold,
   * and the second one also too high by a sixteenth. A function that iterates the loop's context
   * does not block it; sources that the loop dispatches one after the other before it polls
   * again count as one, and only those that were given to [method@Bg.Loop.attach] have a name.
   *
   * One thread of the library's looks at all loops that have a threshold, several times in each.
   * It begins with the first of them, and is on its way out when the last has ended, which does
   * not wait for it. Log handlers run on it, or on the thread of a loop that has just ended.
   *
   * It may be set at any time and from any thread. In a forked child it has no effect.
   *
   * Since: 1.0
   */
  properties[PROP_STALL_THRESHOLD]
      = g_param_spec_uint ("stall-threshold", NULL, NULL, 0, G_MAXINT, 0,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
}

static void
bg_loop_class_init (BgLoopClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->constructed = bg_loop_constructed;
  object_class->dispose = bg_loop_dispose;
  object_class->finalize = bg_loop_finalize;
  object_class->get_property = bg_loop_get_property;
  object_class->set_property = bg_loop_set_property;
  ensure_types ();

  add_fixed_properties ();
  add_tuning_properties ();
  g_object_class_install_properties (object_class, N_PROPS, properties);
}

static void
bg_loop_init (BgLoop *self)
{
}

/* The loop has been started with the object; this only says if that has failed. */
static gboolean
bg_loop_initable_init (GInitable *initable, GCancellable *cancellable, GError **error)
{
  BgLoop *self = BG_LOOP (initable);

  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;
  if (bg_core_get_failure (self->core) == NULL)
    return TRUE;

  g_propagate_error (error, g_error_copy (bg_core_get_failure (self->core)));
  return FALSE;
}

static void
initable_init (GInitableIface *iface)
{
  iface->init = bg_loop_initable_init;
}

/**
 * bg_loop_new:
 * @name: (nullable): what to call the loop; %NULL and "" are "bgloop"
 * @error: return location for an error, or %NULL
 *
 * Starts a loop.
 *
 * ```c
 * g_autoptr (BgLoop) worker = bg_loop_new ("worker", error);
 *
 * if (worker == NULL)
 *   return;
 * ```
 *
 * When this returns, the loop's thread runs, owns the loop's context and has
 * made it its thread-default one. The thread's name is @name, cut to what the
 * system takes.
 *
 * Fails only if no thread can be had, with the #GThreadError that says why, or no
 * descriptor, with %G_IO_ERROR_TOO_MANY_OPEN_FILES.
 *
 * Returns: (transfer full): a running loop
 *
 * Since: 1.0
 */
BgLoop *
bg_loop_new (const char *name, GError **error)
{
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return g_initable_new (BG_TYPE_LOOP, NULL, error, "name", name, NULL);
}
