/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-operation-private.h>
#include <bgloop/testing/bg-test-private.h>

/* What a test kit needs and the class does not offer: a loop that does one thing at a time. This
 * is the side of the loop's own thread; that of the test's is bg-test-step.c.
 *
 * A loop that is paused runs bg_test_pause_outcome(), which does nothing but wait under
 * the core's lock for the next step, for the end of the pause, or for a shutdown. What a
 * step runs, runs without that. Meanwhile the inbox is paused, so that a nested iteration
 * of the context does not touch it.
 *
 * A step may go on after the pause has ended: what it runs iterates the context,
 * and gets there what comes, another pause too. That one stands within the step
 * then, in a bg_test_pause_outcome() of its own. */

/* With the lock held: what is due or invoked is to come from the inbox, alone. Adds the
 * sources that are not needed any more. */
static void
collect_work (BgCore *self, GPtrArray *sources)
{
  bg_core_promote_due (self);
  bg_core_pause_timer (self);
  bg_core_move_invokes (self, sources);
}

gboolean
bg_test_is_running (BgCore *self)
{
  return bg_core_get_state (self) == BG_LOOP_RUNNING;
}

/* With the lock held. Not so if what the step ran has let the loop go. */
gboolean
bg_test_is_stepping (BgCore *self)
{
  return bg_core_get_pause (self)->phase == BG_PAUSE_STEPPING;
}

/* Runs the next record. TRUE if it was something to be done: what was withdrawn, or
 * only destroys data, is not. */
static gboolean
run_record (BgCore *self, gboolean *found)
{
  guint64 runs = bg_core_get_n_runs (self);

  *found = bg_inbox_run_one (bg_core_get_inbox (self));
  return bg_core_get_n_runs (self) != runs;
}

/* Puts what was given to the loop into the inbox. FALSE if the pause has ended. Nothing of this is
 * left on the stack when the step ends the thread. */
static gboolean
prepare_step (BgCore *self)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  gboolean goes_on;

  bg_core_lock (self);
  goes_on = bg_test_is_stepping (self) && bg_test_is_running (self);
  if (goes_on)
    collect_work (self, sources);
  bg_core_unlock (self);
  g_ptr_array_foreach (sources, (GFunc) (GCallback) g_source_destroy, NULL);

  return goes_on;
}

/* What the step has done, as in #BgStep. In a forked child that came back here it
 * does not matter. */
static int
do_one_thing (BgCore *self)
{
  gboolean found, stale;
  BgMailbox *mailbox;

  for (;;)
    {
      if (!prepare_step (self))
        return -1;

      if (run_record (self, &found) || bg_core_is_forked (self))
        return 1;
      if (found)
        continue;

      mailbox = bg_core_get_mailbox (self);
      if (mailbox != NULL && bg_mailbox_serve_one (mailbox))
        return 1;
      if (!bg_inbox_iterate (bg_core_get_inbox (self), &stale))
        return 0;
      bg_core_hand_over_answers (self);
      if (!stale || bg_core_is_forked (self))
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
  BgPause *pause = bg_core_get_pause (self);
  BgStep *step = g_steal_pointer (&pause->step);
  int ran;

  step->outer = pause->current;
  pause->current = step;
  bg_core_unlock (self);
  ran = do_one_thing (self);
  if (bg_core_is_forked (self))
    return;

  bg_core_lock (self);
  pause->current = step->outer;
  end_step (step, ran);
  if (bg_test_is_stepping (self))
    pause->phase = BG_PAUSE_STANDING;
  bg_core_note_changed (self);
}

static gboolean
is_standing (BgCore *self)
{
  return bg_test_is_running (self) && bg_core_get_pause (self)->phase >= BG_PAUSE_STANDING;
}

/* With the lock held. */
void
bg_test_set_pauser (BgCore *self, GThread *thread)
{
  GThread *old = atomic_exchange (&bg_core_get_pause (self)->by, thread);

  if (old != NULL)
    g_thread_unref (old);
}

/* On the loop's thread, with the lock held: lets the sources have what is queued. */
static void
resume (BgCore *self)
{
  if (bg_test_is_running (self))
    bg_inbox_set_paused (bg_core_get_inbox (self), FALSE);
  bg_core_update_timer (self);
}

void
bg_test_pause_outcome (BgRecord *slot, gpointer owner)
{
  BgCore *self = owner;
  BgPause *pause = bg_core_get_pause (self);

  bg_core_lock (self);
  bg_inbox_take_void (bg_core_get_inbox (self));
  if (slot->data == NULL)
    {
      bg_core_unlock (self);
      return;
    }

  pause->slot = NULL;
  pause->phase = BG_PAUSE_STANDING;
  bg_core_note_changed (self);
  bg_inbox_set_paused (bg_core_get_inbox (self), TRUE);

  while (is_standing (self))
    {
      if (pause->step != NULL)
        take_step (self);
      else
        bg_core_wait (self, -1);
      if (bg_core_is_forked (self))
        return;
    }

  if (pause->phase >= BG_PAUSE_STANDING)
    pause->phase = BG_PAUSE_NONE;
  if (pause->step != NULL)
    end_step (g_steal_pointer (&pause->step), -1);
  bg_test_set_pauser (self, NULL);
  resume (self);
  bg_core_note_changed (self);
  bg_core_unlock (self);
}

/* In an iteration within a step, after the pause has ended. */
gboolean
bg_test_resumed_cb (gpointer user_data)
{
  BgCore *self = user_data;

  if (bg_core_is_forked (self))
    return G_SOURCE_REMOVE;

  bg_inbox_note_stale_dispatch ();
  bg_core_lock (self);
  if (bg_core_get_pause (self)->phase < BG_PAUSE_STANDING)
    resume (self);
  bg_core_unlock (self);

  return G_SOURCE_REMOVE;
}
