/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/core/bg-core-private.h>

/* Sources that were attached are let go of once they are destroyed and nobody else has them: on
 * the loop's thread, where their own code belongs, before it sleeps, and at its end. */

/* While somebody else has a source that was destroyed, an idle loop looks again after
 * 1, 2, 4… and for the last time after so many milliseconds. */
#define LAST_RECHECK_MSEC 64

/* In how many polls a loop that does not sleep looks at the sources once. */
#define BUSY_POLLS 64

/* So many are let go of each time that the lock is taken. A thread that looks at the sources again
 * and again has it in between, and the loop is not to wait for that at each source. */
#define RELEASED_AT_ONCE 64

/* Some that nobody else has: where they are in the list, the last one first. */
typedef struct
{
  guint at[RELEASED_AT_ONCE];
  guint n;
} Unshared;

/* With the lock held, in a poll. The record comes from the loop itself, which goes on taking
 * whoever posted last for the poster. */
static void
drop_unshared (BgCore *self, GSource *source)
{
  int poster = bg_linger_get_poster (&self->inbox);

  bg_inbox_stay_awake (&self->inbox);
  bg_core_drop_later (self, source, (GDestroyNotify) g_source_unref);
  bg_linger_set_poster (&self->inbox, poster);
}

/* Takes over those that were attached since. */
static void
receive_arriving (BgCore *self)
{
  bg_core_lock (self);
  if (self->sources.arriving != NULL && self->sources.arriving->len > 0)
    {
      if (self->sources.attached == NULL)
        self->sources.attached = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
      g_ptr_array_extend_and_steal (self->sources.attached,
                                    g_steal_pointer (&self->sources.arriving));
      atomic_store_explicit (&self->sources.n_arriving, 0, memory_order_relaxed);
      self->sources.recheck_msec = 0;
    }
  bg_core_unlock (self);
}

/* Finds sources that were destroyed and that nobody else has, from the end of the list, or from
 * @end, down. Returns where the next ones are to be looked for. */
static guint
find_unshared (BgCore *self, guint end, Unshared *found, guint *n_shared)
{
  found->n = 0;
  for (; end > 0 && found->n < RELEASED_AT_ONCE; end--)
    {
      GSource *source = g_ptr_array_index (self->sources.attached, end - 1);

      if (!g_source_is_destroyed (source))
        continue;
      if (bg_glib_source_is_unshared (source))
        found->at[found->n++] = end - 1;
      else
        ++*n_shared;
    }

  return end;
}

/* Takes what was found out of the list. */
static void
take_found (BgCore *self, const Unshared *found, int *poll_msec)
{
  bg_core_lock (self);
  for (guint i = 0; i < found->n; i++)
    {
      GSource *source = g_ptr_array_steal_index_fast (self->sources.attached, found->at[i]);

      if (poll_msec == NULL)
        g_ptr_array_add (self->sources.released, source);
      else
        drop_unshared (self, source);
    }
  bg_core_unlock (self);

  if (poll_msec != NULL)
    *poll_msec = 0;
}

/* What a source runs as it goes may use the loop, end its thread, which goes on here then, or
 * fork: to a child none of the others belongs. */
static void
unref_released (BgCore *self)
{
  GPtrArray *released = self->sources.released;

  while (released->len > 0 && !bg_core_is_forked (self))
    g_source_unref (g_ptr_array_steal_index_fast (released, released->len - 1));
}

/* Lets go of those that were destroyed and that nobody else has. What a source runs as it goes
 * may iterate the context, which is not to be while that polls: then this is left to a record,
 * and the poll does not wait, which @poll_msec (nullable) is set for. Returns how many are destroyed
 * that others have. */
guint
bg_core_release_unshared (BgCore *self, int *poll_msec)
{
  guint end, n, n_shared = 0;
  Unshared found;

  receive_arriving (self);
  end = bg_core_get_n_attached (self);
  do
    {
      end = find_unshared (self, end, &found, &n_shared);
      if (found.n > 0)
        take_found (self, &found, poll_msec);
      if (poll_msec == NULL)
        unref_released (self);
      n = bg_core_get_n_attached (self);
      end = MIN (end, n);
    }
  while (end > 0 && !bg_core_is_forked (self));

  return n_shared;
}

/* In a poll: sources that were destroyed and that nobody else has are let go of before the loop
 * sleeps. Others may still have one, and only looking again tells when they do not: for a while
 * the loop wakes up for that. */
void
bg_core_release_attached (BgCore *self, int *timeout_msec)
{
  guint n_shared;

  /* The end does it then. */
  if (bg_inbox_is_stopped (&self->inbox))
    return;

  n_shared = bg_core_release_unshared (self, timeout_msec);
  if (n_shared != self->sources.n_shared)
    self->sources.recheck_msec = 0;
  self->sources.n_shared = n_shared;
  if (n_shared == 0 || self->sources.recheck_msec >= LAST_RECHECK_MSEC)
    return;

  self->sources.recheck_msec = MAX (1, 2 * self->sources.recheck_msec);
  if (*timeout_msec < 0 || *timeout_msec > (int) self->sources.recheck_msec)
    *timeout_msec = (int) self->sources.recheck_msec;
}

/* Whether as many sources were attached since they were last looked at as were left
 * then, so that looking costs each of them the same. */
static gboolean
has_doubled (BgCore *self)
{
  guint n_left = bg_core_get_n_attached (self);

  return atomic_load_explicit (&self->sources.n_arriving, memory_order_relaxed)
         >= MAX (n_left, BUSY_POLLS);
}

/* In a poll that does not sleep: whether it is time to look at them. */
gboolean
bg_core_has_attached_to_release (BgCore *self)
{
  return ++self->sources.busy_polls % BUSY_POLLS == 0 || has_doubled (self);
}
