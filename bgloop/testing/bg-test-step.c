/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-test.h>
#include <bgloop/core/bg-report-private.h>
#include <bgloop/testing/bg-test-private.h>

/* A loop that does one thing at a time: on the test's thread, which asks for a pause or a step and
 * waits for it under the core's lock. What the loop's thread does then is in bg-test-pause.c. Any
 * thread may end the pause. */

#define PAUSE_PRIORITY G_MININT

static gboolean
can_be_paused (BgCore *self, GError **error)
{
  if (bg_core_is_forked (self) || bg_core_get_state (self) != BG_LOOP_RUNNING)
    {
      bg_core_set_refused_error (self, error);
      return FALSE;
    }

  if (bg_core_is_current (self))
    {
      g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
                   "The loop \"%s\" cannot stand still for its own thread",
                   bg_core_get_name (self));
      return FALSE;
    }

  return TRUE;
}

/* How long the loop may take to do what it is told, in milliseconds: to stand still it
 * has to wake up, and a step is to be done, also if the kit is not to wait. */
static int
get_step_timeout (void)
{
  int timeout = bg_test_get_timeout ();

  return timeout != 0 ? timeout : BG_TEST_MOMENT_MSEC;
}

/* Without the lock: why the wait has ended without success. */
static void
set_wait_error (BgCore *self, GError **error)
{
  g_autoptr (GPtrArray) work = NULL;
  g_autofree char *text = NULL;

  if (bg_core_get_state (self) != BG_LOOP_RUNNING)
    {
      bg_core_set_refused_error (self, error);
      return;
    }

  work = bg_core_list_work (self);
  g_ptr_array_add (work, NULL);
  text = g_strjoinv ("; ", (char **) work->pdata);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "The loop \"%s\" has not come to rest within %d ms: %s", bg_core_get_name (self),
               get_step_timeout (), text);
}

/* With the lock held. The request is no work, and counted nowhere. */
static void
ask_for_pause (BgCore *self)
{
  BgPause *pause = bg_core_get_pause (self);

  pause->phase = BG_PAUSE_ASKED;
  pause->slot = bg_inbox_append_void (bg_core_get_inbox (self), PAUSE_PRIORITY,
                                      bg_test_pause_outcome, bg_test_pause, self, NULL);
}

static void
withdraw_pause (BgCore *self)
{
  BgPause *pause = bg_core_get_pause (self);

  pause->slot->data = NULL;
  pause->slot = NULL;
  pause->phase = BG_PAUSE_NONE;
  bg_core_note_changed (self);
}

/* With the lock held. Others may end the pause meanwhile: then it is asked for
 * again. */
static gboolean
wait_for_pause (BgCore *self, gint64 deadline)
{
  BgPause *pause = bg_core_get_pause (self);
  gboolean in_time = TRUE;

  while (in_time && bg_test_is_running (self) && pause->phase != BG_PAUSE_STANDING)
    {
      if (pause->phase == BG_PAUSE_NONE)
        ask_for_pause (self);
      bg_inbox_wake (bg_core_get_inbox (self));
      in_time = bg_core_wait (self, deadline);
    }

  if (bg_test_is_running (self) && pause->phase == BG_PAUSE_STANDING)
    {
      bg_test_set_pauser (self, g_thread_ref (g_thread_self ()));
      return TRUE;
    }

  if (pause->slot != NULL)
    withdraw_pause (self);
  return FALSE;
}

/* With the lock held and the loop paused. FALSE if the step has not ended in time. */
static gboolean
wait_for_step (BgCore *self, gint64 deadline, int *ran)
{
  BgPause *pause = bg_core_get_pause (self);
  BgStep *step = g_rc_box_new0 (BgStep);
  gboolean in_time = TRUE, over;

  pause->step = g_rc_box_acquire (step);
  pause->phase = BG_PAUSE_STEPPING;
  bg_core_note_changed (self);
  while (in_time && !step->over)
    in_time = bg_core_wait (self, deadline);

  over = step->over;
  *ran = step->ran;
  g_rc_box_release (step);
  return over;
}

static gboolean
pause_until (BgCore *self, gint64 deadline, GError **error)
{
  gboolean paused;

  bg_core_lock (self);
  paused = wait_for_pause (self, deadline);
  bg_core_unlock (self);

  if (!paused)
    set_wait_error (self, error);
  return paused;
}

static int
step_until (BgCore *self, gint64 deadline, GError **error)
{
  gboolean in_time;
  int ran = -1;

  bg_core_lock (self);
  do
    in_time = wait_for_pause (self, deadline) && wait_for_step (self, deadline, &ran);
  while (in_time && ran == -1);
  bg_core_unlock (self);

  if (!in_time)
    {
      set_wait_error (self, error);
      return -1;
    }
  return ran;
}

/**
 * bg_test_pause:
 * @loop: a loop
 * @error: return location for an error, or %NULL
 *
 * Has the loop stand still, with whatever is given to it queued, until
 * [func@Bg.test_step] or [func@Bg.test_resume].
 *
 * Waits for the piece of work that runs now, no longer than
 * [func@Bg.test_get_timeout]; it stands still ahead of everything that is queued.
 * A loop that stands still already goes on doing so. A shutdown ends it.
 *
 * As long as it stands still, the thread that has paused it, or stepped it last,
 * must not wait for it: a call, an operation or a flush would never come to its
 * end, and fails with %BG_ERROR_WOULD_DEADLOCK. What other threads wait for is
 * queued.
 *
 * Any thread may call it. Fails with %BG_ERROR_CLOSED if the loop stops or has
 * stopped, %G_IO_ERROR_TIMED_OUT, %BG_ERROR_WOULD_DEADLOCK on the loop's own
 * thread, and %BG_ERROR_FORKED.
 *
 * Returns: %TRUE if the loop stands still
 *
 * Since: 1.0
 */
gboolean
bg_test_pause (BgLoop *loop, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (loop), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return can_be_paused (bg_loop_get_core (loop), error)
         && pause_until (bg_loop_get_core (loop), bg_deadline (get_step_timeout ()), error);
}

/**
 * bg_test_step:
 * @loop: a loop
 * @error: return location for an error, or %NULL
 *
 * Pauses the loop unless it is, lets one piece of work run on the loop's thread,
 * waits for it, and leaves the loop paused.
 *
 * A piece of work is what was given to the loop with one call: posted, called,
 * invoked, an operation to begin, delayed work that is due; and what a flush
 * waits with. The most urgent comes first, then the oldest. If there is none, it
 * is a reply to what the loop itself has asked of another one. If there is none of
 * these either, the sources of the loop's context have one turn: completions of
 * operations arrive that way. In one turn GLib dispatches all sources that are
 * ready and of the same priority; what they give to the loop is left for the next
 * step. Delayed work that is not due is not waited for.
 *
 * What runs may iterate the loop's context. That dispatches other sources, which
 * are part of the step, but nothing that was given to the loop: a function that
 * waits so for other work does not return before [func@Bg.test_resume].
 *
 * Any thread may call it; it waits no longer than [func@Bg.test_get_timeout].
 * Fails as [func@Bg.test_pause] does.
 *
 * Returns: 1 if something ran, 0 if there was nothing to do, -1 on error
 *
 * Since: 1.0
 */
int
bg_test_step (BgLoop *loop, GError **error)
{
  g_return_val_if_fail (BG_IS_LOOP (loop), -1);
  g_return_val_if_fail (error == NULL || *error == NULL, -1);

  if (!can_be_paused (bg_loop_get_core (loop), error))
    return -1;

  return step_until (bg_loop_get_core (loop), bg_deadline (get_step_timeout ()), error);
}

/**
 * bg_test_run_until_idle:
 * @loop: a loop
 * @error: return location for an error, or %NULL
 *
 * Lets one piece of work run after the other, with what they queue in turn,
 * until there is nothing to do.
 *
 * The steps are those of [func@Bg.test_step]. A loop that was paused is paused
 * afterwards, one that ran goes on running. Operations that have not answered
 * are not waited for.
 *
 * Any thread may call it. Fails as [func@Bg.test_step] does; the time limit is
 * for all of it, so that work without end is an error.
 *
 * Returns: how many steps it took, or -1 on error
 *
 * Since: 1.0
 */
int
bg_test_run_until_idle (BgLoop *loop, GError **error)
{
  BgCore *core;
  gint64 deadline;
  gboolean was_paused;
  int result, n = 0;

  g_return_val_if_fail (BG_IS_LOOP (loop), -1);
  g_return_val_if_fail (error == NULL || *error == NULL, -1);

  core = bg_loop_get_core (loop);
  if (!can_be_paused (core, error))
    return -1;

  bg_core_lock (core);
  was_paused = bg_core_get_pause (core)->phase != BG_PAUSE_NONE;
  bg_core_unlock (core);

  deadline = bg_deadline (get_step_timeout ());
  while ((result = step_until (core, deadline, error)) == 1)
    {
      n++;
      if (deadline != -1 && g_get_monotonic_time () > deadline)
        {
          set_wait_error (core, error);
          result = -1;
          break;
        }
    }

  if (!was_paused)
    bg_test_resume (loop);
  return result == 0 ? n : -1;
}

/* With the lock held, so that the loop cannot end before: what the step runs may
 * iterate the context, and has to be told that the pause is over. */
static void
tell_step (BgCore *self)
{
  GSource *source = g_idle_source_new ();

  g_source_set_static_name (source, "bgloop resume");
  g_source_set_priority (source, PAUSE_PRIORITY);
  g_source_set_callback (source, bg_test_resumed_cb, self, NULL);
  g_source_attach (source, bg_core_get_context (self));
  g_source_unref (source);
}

/**
 * bg_test_resume:
 * @loop: a loop
 *
 * Lets a loop that was paused go on by itself, at once: if a step has not ended,
 * what it runs goes on, and may iterate the context to have other work done.
 * Harmless if the loop was not paused, or has stopped.
 *
 * Never waits; any thread may call it, the loop's own included.
 *
 * Since: 1.0
 */
void
bg_test_resume (BgLoop *loop)
{
  BgCore *core;
  BgPause *pause;

  g_return_if_fail (BG_IS_LOOP (loop));

  core = bg_loop_get_core (loop);
  pause = bg_core_get_pause (core);
  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  if (bg_test_is_stepping (core) && bg_test_is_running (core))
    tell_step (core);
  if (pause->phase >= BG_PAUSE_STANDING)
    {
      pause->phase = BG_PAUSE_NONE;
      bg_test_set_pauser (core, NULL);
      bg_core_note_changed (core);
    }
  bg_core_unlock (core);
  bg_linger_interrupt (bg_core_get_inbox (core));
}
