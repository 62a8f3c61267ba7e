/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-test.h>

/* What a test kit needs and the class does not offer: the list of all loops, and
 * a loop that does one thing at a time.
 *
 * A loop that is paused runs pause_outcome(), which does nothing but wait under
 * the core's lock for the next step, for the end of the pause, or for a shutdown.
 * Meanwhile the inbox is «driven», so that a nested iteration of the context does
 * not touch it. */

#define PAUSE_PRIORITY G_MININT

/* The list */

static const char *
describe_state (BgCore *self, BgLoopState state)
{
  gboolean dropped;

  bg_core_lock (self);
  dropped = self->dropped;
  bg_core_unlock (self);

  switch (state)
    {
    case BG_LOOP_RUNNING:
      return "is running";
    case BG_LOOP_STOPPING:
      return dropped ? "was dropped and is still stopping" : "is still stopping";
    case BG_LOOP_STOPPED:
    default:
      return dropped ? "is about to go" : "has stopped but is still referred to";
    }
}

static char *
describe_core (BgCore *self, gboolean is_default)
{
  g_autoptr (GPtrArray) work = bg_loop_list_work (self);
  g_autofree char *text = NULL;
  BgLoopState state = bg_core_get_state (self);
  gint64 age = g_get_monotonic_time () - self->since;

  if (work->len == 0 && state != BG_LOOP_STOPPED)
    g_ptr_array_add (work, g_strdup ("nothing to do"));
  g_ptr_array_add (work, NULL);
  text = g_strjoinv ("; ", (char **) work->pdata);

  return g_strdup_printf ("the %sloop “%s”, %" G_GINT64_FORMAT " ms old, %s%s%s",
                          is_default ? "default " : "", self->name, age / G_TIME_SPAN_MILLISECOND,
                          describe_state (self, state), *text != '\0' ? ": " : "", text);
}

/**
 * bg_test_mark_loops:
 *
 * A number that tells the loops that are there now from those made later, for
 * [func@Bg.test_describe_loops].
 *
 * Never waits; any thread may call it.
 *
 * Returns: the number
 *
 * Since: 1.0
 */
guint64
bg_test_mark_loops (void)
{
  BgGlobals *globals = bg_globals ();
  guint64 last;

  g_mutex_lock (&globals->lock);
  last = globals->last_core;
  g_mutex_unlock (&globals->lock);

  return last;
}

/* With the globals' lock: those that are going count too. */
static gboolean
has_cores_since (BgGlobals *globals, guint64 since)
{
  GList *newest = globals->cores.tail;

  return globals->n_freeing > 0 || (newest != NULL && ((BgCore *) newest->data)->serial > since);
}

/* One that nobody refers to any more is being freed. */
static gboolean
try_ref (BgCore *core)
{
  int n = g_atomic_int_get (&core->ref_count);

  while (n > 0)
    {
      if (g_atomic_int_compare_and_exchange (&core->ref_count, n, n + 1))
        return TRUE;
      n = g_atomic_int_get (&core->ref_count);
    }

  return FALSE;
}

/**
 * bg_test_describe_loops:
 * @since: what [func@Bg.test_mark_loops] returned, or 0 for all loops
 * @timeout_msec: how long to wait until they are gone, in milliseconds; -1 for
 *   no limit
 *
 * Waits until the loops that were made since then are gone, and describes those
 * that are not, a line each: the name, whether it is the default loop, its age,
 * its state, what runs and for how long, what is queued, and who holds it.
 *
 * A loop is gone when its thread has ended and nobody refers to the object. This
 * ends no loop: one that nobody has asked to stop is there until the time is up.
 *
 * Blocks; any thread may call it, but for a loop's that is to be gone.
 *
 * Returns: (transfer full) (nullable): the descriptions, or %NULL if all are gone
 *
 * Since: 1.0
 */
char *
bg_test_describe_loops (guint64 since, int timeout_msec)
{
  BgGlobals *globals = bg_globals ();
  gint64 deadline = bg_deadline (timeout_msec);
  g_autoptr (GPtrArray) cores = g_ptr_array_new_with_free_func ((GDestroyNotify) bg_core_unref);
  g_autoptr (GPtrArray) lines = g_ptr_array_new_with_free_func (g_free);
  BgCore *default_core;

  g_return_val_if_fail (timeout_msec >= -1, NULL);

  g_mutex_lock (&globals->lock);
  while (has_cores_since (globals, since))
    {
      if (deadline == -1)
        g_cond_wait (&globals->freed, &globals->lock);
      else if (!g_cond_wait_until (&globals->freed, &globals->lock, deadline))
        break;
    }
  g_mutex_unlock (&globals->lock);

  g_mutex_lock (&globals->default_lock);
  default_core = globals->default_core;
  g_mutex_lock (&globals->lock);
  for (GList *link = globals->cores.head; link != NULL; link = link->next)
    {
      BgCore *core = link->data;

      if (core->serial > since && try_ref (core))
        g_ptr_array_add (cores, core);
    }
  g_mutex_unlock (&globals->lock);
  g_mutex_unlock (&globals->default_lock);

  /* Naming functions takes the dynamic linker's lock: not under ours, for which code
   * that is being loaded may wait. */
  for (guint i = 0; i < cores->len; i++)
    {
      BgCore *core = g_ptr_array_index (cores, i);

      g_ptr_array_add (lines, describe_core (core, core == default_core));
    }

  if (lines->len == 0)
    return NULL;

  g_ptr_array_add (lines, NULL);
  return g_strjoinv ("\n", (char **) lines->pdata);
}

/* One thing at a time: the loop's thread */

/* With the lock held: what is due or invoked is to come from the inbox, alone. */
static void
gather_work (BgCore *self)
{
  GList *link, *next;

  bg_core_promote_due (self);
  if (self->timer != NULL)
    bg_core_set_timer (self, -1);

  for (link = self->invokes.head; link != NULL; link = next)
    {
      BgInvoke *invoke = link->data;
      GSource *source;

      next = link->next;
      if (invoke->running)
        continue;

      source = g_main_context_find_source_by_funcs_user_data (self->context, &g_idle_funcs, invoke);
      bg_core_move_invoke (self, invoke);
      if (source != NULL)
        g_source_destroy (source);
    }
}

/* FALSE if there is nothing to do. */
static gboolean
do_one_thing (BgCore *self)
{
  BgInbox *inbox = &self->inbox;

  for (;;)
    {
      guint64 run = atomic_load (&inbox->run);
      guint repeats = self->repeats, strays = inbox->strays;
      gboolean more;

      bg_core_lock (self);
      gather_work (self);
      bg_core_unlock (self);

      if (bg_inbox_run_one (inbox))
        {
          /* What was withdrawn, or only destroys data, is no step. */
          if (atomic_load (&inbox->run) != run || self->repeats != repeats)
            return TRUE;
          continue;
        }

      if (!g_main_context_iteration (self->context, FALSE))
        return FALSE;

      /* Unless it was the arrival of work. */
      bg_core_lock (self);
      more = bg_inbox_has_work (inbox) || inbox->strays != strays;
      bg_core_unlock (self);
      if (!more)
        return TRUE;
    }
}

/* With the lock held, which is let go while it does something. */
static void
take_step (BgCore *self)
{
  gboolean ran;

  bg_core_unlock (self);
  ran = do_one_thing (self);
  bg_core_lock (self);

  self->pause.ran = ran;
  self->pause.steps++;
  self->pause.phase = self->pause.ends ? BG_PAUSE_NONE : BG_PAUSE_STANDING;
  self->pause.ends = FALSE;
  g_cond_broadcast (&self->changed);
}

static gboolean
is_running (BgCore *self)
{
  return atomic_load (&self->state) == BG_LOOP_RUNNING;
}

static void
pause_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  BgPause *pause = &self->pause;

  bg_core_lock (self);
  if (slot->data == NULL)
    {
      bg_core_unlock (self);
      return;
    }

  pause->slot = NULL;
  pause->phase = BG_PAUSE_STANDING;
  g_cond_broadcast (&self->changed);
  self->inbox.driven = TRUE;

  while (is_running (self) && pause->phase >= BG_PAUSE_STANDING)
    {
      if (pause->phase == BG_PAUSE_STEPPING)
        take_step (self);
      else
        g_cond_wait (&self->changed, &self->inbox.lock);
    }

  if (pause->phase >= BG_PAUSE_STANDING)
    pause->phase = BG_PAUSE_NONE;
  pause->ends = FALSE;
  if (is_running (self))
    self->inbox.driven = FALSE;
  if (self->timer != NULL)
    bg_core_set_timer (self, bg_delays_get_next_due (&self->delays));
  g_cond_broadcast (&self->changed);
  bg_core_unlock (self);
}

/* One thing at a time: the test's thread */

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
                   "The loop “%s” cannot stand still for its own thread", self->name);
      return FALSE;
    }

  return TRUE;
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

  work = bg_loop_list_work (self);
  g_ptr_array_add (work, NULL);
  text = g_strjoinv ("; ", (char **) work->pdata);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "The loop “%s” has not come to rest within %d ms: %s", self->name,
               bg_test_get_timeout (), text);
}

/* With the lock held. The request is no work, and counted nowhere. */
static void
ask_for_pause (BgCore *self)
{
  self->pause.phase = BG_PAUSE_ASKED;
  self->pause.slot
      = bg_inbox_requeue (&self->inbox, PAUSE_PRIORITY, pause_outcome, bg_test_pause, self, NULL);
}

static void
withdraw_pause (BgCore *self)
{
  self->pause.slot->data = NULL;
  self->pause.slot = NULL;
  self->pause.phase = BG_PAUSE_NONE;
  g_cond_broadcast (&self->changed);
}

/* With the lock held. Others may end the pause meanwhile: then it is asked for
 * again. */
static gboolean
wait_for_pause (BgCore *self, gint64 deadline)
{
  BgPause *pause = &self->pause;
  gboolean in_time = TRUE;

  while (in_time && is_running (self) && pause->phase != BG_PAUSE_STANDING)
    {
      if (pause->phase == BG_PAUSE_NONE)
        ask_for_pause (self);
      bg_inbox_wake (&self->inbox);
      in_time = g_cond_wait_until (&self->changed, &self->inbox.lock, deadline);
    }

  if (is_running (self) && pause->phase == BG_PAUSE_STANDING)
    return TRUE;

  if (pause->slot != NULL)
    withdraw_pause (self);
  return FALSE;
}

/* With the lock held and the loop paused. FALSE if the loop stopped before the
 * step began, or the step has not ended in time. */
static gboolean
wait_for_step (BgCore *self, gint64 deadline)
{
  BgPause *pause = &self->pause;
  guint steps = pause->steps;
  gboolean in_time = TRUE;

  pause->phase = BG_PAUSE_STEPPING;
  g_cond_broadcast (&self->changed);
  while (in_time && pause->steps == steps && pause->phase == BG_PAUSE_STEPPING)
    in_time = g_cond_wait_until (&self->changed, &self->inbox.lock, deadline);

  return pause->steps != steps;
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
  gboolean done, ran;

  bg_core_lock (self);
  done = wait_for_pause (self, deadline) && wait_for_step (self, deadline);
  ran = self->pause.ran;
  bg_core_unlock (self);

  if (!done)
    {
      set_wait_error (self, error);
      return -1;
    }
  return ran ? 1 : 0;
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

  return can_be_paused (loop->core, error)
         && pause_until (loop->core, bg_deadline (bg_test_get_timeout ()), error);
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
 * waits with. The most urgent comes first, then the oldest. If there is none,
 * the sources of the loop's context have one turn: completions of operations
 * arrive that way. Delayed work that is not due is not waited for.
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

  if (!can_be_paused (loop->core, error))
    return -1;

  return step_until (loop->core, bg_deadline (bg_test_get_timeout ()), error);
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

  core = loop->core;
  if (!can_be_paused (core, error))
    return -1;

  bg_core_lock (core);
  was_paused = core->pause.phase != BG_PAUSE_NONE;
  bg_core_unlock (core);

  deadline = bg_deadline (bg_test_get_timeout ());
  while ((result = step_until (core, deadline, error)) == 1)
    {
      n++;
      if (g_get_monotonic_time () > deadline)
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

/**
 * bg_test_resume:
 * @loop: a loop
 *
 * Lets a loop that was paused go on by itself. Harmless if it was not, or has
 * stopped.
 *
 * Never waits; any thread may call it.
 *
 * Since: 1.0
 */
void
bg_test_resume (BgLoop *loop)
{
  BgCore *core;

  g_return_if_fail (BG_IS_LOOP (loop));

  core = loop->core;
  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  if (core->pause.phase == BG_PAUSE_STANDING)
    core->pause.phase = BG_PAUSE_NONE;
  else if (core->pause.phase == BG_PAUSE_STEPPING)
    core->pause.ends = TRUE;
  g_cond_broadcast (&core->changed);
  bg_core_unlock (core);
}
