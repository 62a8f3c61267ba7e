/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-reply-private.h>
#include <bgloop/bg-test-private.h>
#include <bgloop/bg-test.h>

/* What a test kit needs and the class does not offer: the list of all loops, and
 * a loop that does one thing at a time.
 *
 * A loop that is paused runs pause_outcome(), which does nothing but wait under
 * the core's lock for the next step, for the end of the pause, or for a shutdown.
 * Meanwhile the inbox is «driven», so that a nested iteration of the context does
 * not touch it.
 *
 * A step may go on after the pause has ended: what it runs iterates the context,
 * and gets there what comes, another pause too. That one stands within the step
 * then, in a pause_outcome() of its own. */

#define PAUSE_PRIORITY G_MININT

/* How often loops are looked at that are waited for according to what they do, in
 * milliseconds. */
#define LOOK_MSEC 5

/* The list */

static const char *
describe_state (BgCore *self, BgLoopState state)
{
  gboolean dropped;

  bg_core_lock (self);
  dropped = self->ownership.dropped;
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
  gint64 age = g_get_monotonic_time () - self->registration.made_at;

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

  return globals->n_freeing > 0
         || (newest != NULL && ((BgCore *) newest->data)->registration.serial > since);
}

static int
max_timeout (int a, int b)
{
  return a == -1 || b == -1 ? -1 : MAX (a, b);
}

/* How long a loop may take to go, in milliseconds, for somebody who does not want to
 * wait (0) or does without a limit (-1). One that nobody has asked to end may never
 * go; one that nothing is in the way of goes by itself. */
static int
get_patience (BgCore *self, int timeout_msec)
{
  gboolean runs, held, dropped;
  BgLoopState state;

  bg_core_lock (self);
  state = atomic_load (&self->state);
  dropped = self->ownership.dropped;
  held = self->holds.list.length > 0;
  runs = atomic_load (&self->inbox.activities.running) != NULL || bg_inbox_has_work (&self->inbox)
         || self->invokes.list.length > 0;
  bg_core_unlock (self);

  if (state == BG_LOOP_RUNNING || (state == BG_LOOP_STOPPED && !dropped))
    return timeout_msec == -1 ? BG_TEST_DEFAULT_MSEC : 0;
  if (timeout_msec == -1)
    return -1;
  if (state == BG_LOOP_STOPPING && (runs || held))
    return runs ? BG_TEST_MOMENT_MSEC : 0;
  return BG_TEST_DEFAULT_MSEC;
}

/* With the globals' lock, and with it for all of them. */
static int
get_patience_since (BgGlobals *globals, guint64 since, int timeout_msec)
{
  int patience = globals->n_freeing > 0 ? BG_TEST_DEFAULT_MSEC : 0;

  for (GList *link = globals->cores.tail; link != NULL; link = link->prev)
    {
      BgCore *core = link->data;

      if (core->registration.serial <= since)
        break;
      patience = max_timeout (patience, get_patience (core, timeout_msec));
    }

  return patience;
}

/* With the globals' lock. */
static void
wait_until_gone (BgGlobals *globals, guint64 since, int timeout_msec)
{
  gint64 start = g_get_monotonic_time ();
  gint64 now = start, end;
  int patience = timeout_msec;

  while (has_cores_since (globals, since))
    {
      if (timeout_msec <= 0)
        patience = get_patience_since (globals, since, timeout_msec);
      end = start + (gint64) patience * G_TIME_SPAN_MILLISECOND;
      now = g_get_monotonic_time ();
      if (patience != -1 && now >= end)
        break;

      if (timeout_msec <= 0)
        end = now + LOOK_MSEC * G_TIME_SPAN_MILLISECOND;
      g_cond_wait_until (&globals->freed, &globals->lock, end);
    }
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
 * @timeout_msec: how long to wait until they are gone, in milliseconds
 *
 * Waits until the loops that were made since then are gone, and describes those
 * that are not, a line each: the name, whether it is the default loop, its age,
 * its state, what runs and for how long, what is queued, and who holds it.
 *
 * A loop is gone when its thread has ended and nobody refers to the object. This
 * ends no loop: one that nobody has asked to stop is there until the time is up.
 *
 * With 0 only those are waited for that stop by themselves, as nothing is in their
 * way: up to 5 seconds, or one if there is work to be done. With -1 there is no limit
 * to that, whatever is in their way, and the others get 5 seconds.
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
  g_autoptr (GPtrArray) cores = g_ptr_array_new_with_free_func ((GDestroyNotify) bg_core_unref);
  g_autoptr (GPtrArray) lines = g_ptr_array_new_with_free_func (g_free);
  BgCore *default_core;

  g_return_val_if_fail (timeout_msec >= -1, NULL);

  /* What is described is what was waited for in vain: a loop that is made after that, as the
   * kit's own is that frees contexts, is not. */
  g_mutex_lock (&globals->lock);
  wait_until_gone (globals, since, timeout_msec);
  for (GList *link = globals->cores.head; link != NULL; link = link->next)
    {
      BgCore *core = link->data;

      if (core->registration.serial > since && try_ref (core))
        g_ptr_array_add (cores, core);
    }
  g_mutex_unlock (&globals->lock);

  g_mutex_lock (&globals->default_lock);
  default_core = globals->default_core;
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

/* With the lock held: what is due or invoked is to come from the inbox, alone. Adds the
 * sources that are not needed any more. */
static void
gather_work (BgCore *self, GPtrArray *sources)
{
  GList *link, *next;

  bg_core_promote_due (self);
  bg_core_set_timer (self, -1);

  for (link = self->invokes.list.head; link != NULL; link = next)
    {
      BgInvoke *invoke = link->data;
      GSource *source;

      next = link->next;
      if (invoke->running)
        continue;

      source = g_main_context_find_source_by_funcs_user_data (self->context, &g_idle_funcs, invoke);
      if (source != NULL)
        g_ptr_array_add (sources, g_source_ref (source));
      bg_core_move_invoke (self, invoke);
    }
}

static gboolean
is_running (BgCore *self)
{
  return atomic_load (&self->state) == BG_LOOP_RUNNING;
}

/* With the lock held. Not so if what the step ran has let the loop go. */
static gboolean
is_stepping (BgCore *self)
{
  return self->pause.phase == BG_PAUSE_STEPPING;
}

/* Gives the sources of the context one turn; FALSE if none was ready. @strayed says
 * whether it was the loop's own only, through which work arrives. */
static gboolean
iterate (BgCore *self, gboolean *strayed)
{
  BgInbox *inbox = &self->inbox;
  guint strays = inbox->n_stale_dispatches;
  int outer_depth = inbox->stale_depth;
  gboolean dispatched;

  inbox->stale_depth = g_main_depth () + 1;
  dispatched = g_main_context_iteration (self->context, FALSE);
  inbox->stale_depth = outer_depth;

  *strayed = inbox->n_stale_dispatches != strays;
  return dispatched;
}

/* Runs the next record. TRUE if it was something to be done: what was withdrawn, or
 * only destroys data, is not. */
static gboolean
run_record (BgCore *self, gboolean *found)
{
  BgInbox *inbox = &self->inbox;
  guint64 run = atomic_load (&inbox->counts.run);
  guint repeats = self->invokes.repeats;

  *found = bg_inbox_run_one (inbox);
  return atomic_load (&inbox->counts.run) != run || self->invokes.repeats != repeats;
}

/* What the step has done, as in #BgStep. In a forked child that came back here it
 * does not matter. */
static int
do_one_thing (BgCore *self)
{
  gboolean goes_on, found, strayed;

  for (;;)
    {
      g_autoptr (GPtrArray) sources
          = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);

      bg_core_lock (self);
      goes_on = is_stepping (self) && is_running (self);
      if (goes_on)
        gather_work (self, sources);
      bg_core_unlock (self);
      g_ptr_array_foreach (sources, (GFunc) (GCallback) g_source_destroy, NULL);
      if (!goes_on)
        return -1;

      if (run_record (self, &found) || bg_core_is_forked (self))
        return 1;
      if (found)
        continue;

      if (self->mailbox != NULL && bg_mailbox_serve_one (self->mailbox))
        return 1;
      if (!iterate (self, &strayed))
        return 0;
      bg_loop_hand_over_answers (self);
      if (!strayed || bg_core_is_forked (self))
        return 1;
    }
}

/* With the lock held. */
static void
end_step (BgStep *step, int ran)
{
  step->over = TRUE;
  step->ran = ran;
  g_rc_box_release (step);
}

/* With the lock held, which is let go while it does something, and not taken again
 * in a forked child. */
static void
take_step (BgCore *self)
{
  BgStep *step = g_steal_pointer (&self->pause.step);
  int ran;

  bg_core_unlock (self);
  ran = do_one_thing (self);
  if (bg_core_is_forked (self))
    return;

  bg_core_lock (self);
  end_step (step, ran);
  if (is_stepping (self))
    self->pause.phase = BG_PAUSE_STANDING;
  g_cond_broadcast (&self->changed);
}

static gboolean
is_standing (BgCore *self)
{
  return is_running (self) && self->pause.phase >= BG_PAUSE_STANDING;
}

/* With the lock held. */
static void
set_pauser (BgCore *self, GThread *thread)
{
  GThread *old = atomic_exchange (&self->pause.by, thread);

  if (old != NULL)
    g_thread_unref (old);
}

/* On the loop's thread, with the lock held: lets the sources have what is queued. */
static void
let_go (BgCore *self)
{
  if (is_running (self))
    self->inbox.paused = FALSE;
  bg_core_set_timer (self, bg_delays_get_next_due (&self->timer.delays));
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
  self->inbox.paused = TRUE;

  while (is_standing (self))
    {
      if (pause->step != NULL)
        take_step (self);
      else
        g_cond_wait (&self->changed, &self->inbox.lock);
      if (bg_core_is_forked (self))
        return;
    }

  if (pause->phase >= BG_PAUSE_STANDING)
    pause->phase = BG_PAUSE_NONE;
  if (pause->step != NULL)
    end_step (g_steal_pointer (&pause->step), -1);
  set_pauser (self, NULL);
  let_go (self);
  g_cond_broadcast (&self->changed);
  bg_core_unlock (self);
}

/* In an iteration within a step, after the pause has ended. */
static gboolean
resumed_cb (gpointer user_data)
{
  BgCore *self = user_data;

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  bg_inbox_note_stale_dispatch (&self->inbox);
  bg_core_lock (self);
  if (self->pause.phase < BG_PAUSE_STANDING)
    let_go (self);
  bg_core_unlock (self);

  return G_SOURCE_REMOVE;
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

  work = bg_loop_list_work (self);
  g_ptr_array_add (work, NULL);
  text = g_strjoinv ("; ", (char **) work->pdata);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "The loop “%s” has not come to rest within %d ms: %s", self->name,
               get_step_timeout (), text);
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

/* With the lock held. FALSE if the time is up. */
static gboolean
wait_for_change (BgCore *self, gint64 deadline)
{
  if (deadline != -1)
    return g_cond_wait_until (&self->changed, &self->inbox.lock, deadline);

  g_cond_wait (&self->changed, &self->inbox.lock);
  return TRUE;
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
      in_time = wait_for_change (self, deadline);
    }

  if (is_running (self) && pause->phase == BG_PAUSE_STANDING)
    {
      set_pauser (self, g_thread_ref (g_thread_self ()));
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
  BgPause *pause = &self->pause;
  BgStep *step = g_rc_box_new0 (BgStep);
  gboolean in_time = TRUE, over;

  pause->step = g_rc_box_acquire (step);
  pause->phase = BG_PAUSE_STEPPING;
  g_cond_broadcast (&self->changed);
  while (in_time && !step->over)
    in_time = wait_for_change (self, deadline);

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

  return can_be_paused (loop->core, error)
         && pause_until (loop->core, bg_deadline (get_step_timeout ()), error);
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

  if (!can_be_paused (loop->core, error))
    return -1;

  return step_until (loop->core, bg_deadline (get_step_timeout ()), error);
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
  g_source_set_callback (source, resumed_cb, self, NULL);
  g_source_attach (source, self->context);
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

  g_return_if_fail (BG_IS_LOOP (loop));

  core = loop->core;
  if (bg_core_is_forked (core))
    return;

  bg_core_lock (core);
  if (is_stepping (core) && is_running (core))
    tell_step (core);
  if (core->pause.phase >= BG_PAUSE_STANDING)
    {
      core->pause.phase = BG_PAUSE_NONE;
      set_pauser (core, NULL);
      g_cond_broadcast (&core->changed);
    }
  bg_core_unlock (core);
  bg_inbox_interrupt (&core->inbox);
}
