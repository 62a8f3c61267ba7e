/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-retired-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* Other people's sources: they are attached by any thread, under the core's lock; what
 * becomes of them is for the loop's thread alone. */

/* How many turns a source that is always ready gets at the end, and before others
 * get one while the loop stops. */
#define LAST_TURNS 16

/* In how many rounds at the end sources that have only just come are left alone. */
#define LATE_ROUNDS 16

/* How often what is destroyed at the end may bring about more to be destroyed. */
#define LAST_ROUNDS 10000

/* So many are counted each time that the lock is taken: others have it in between. */
#define LISTED_AT_ONCE 256

/* How many priorities of sources that were attached are remembered. */
#define PRIORITIES 64

/* Attaching */

static void
remember_priority (BgCore *self, int priority)
{
  if (self->sources.priorities == NULL)
    self->sources.priorities = g_array_new (FALSE, FALSE, sizeof (int));
  for (guint i = 0; i < self->sources.priorities->len; i++)
    {
      if (g_array_index (self->sources.priorities, int, i) == priority)
        return;
    }
  if (self->sources.priorities->len < PRIORITIES)
    g_array_append_val (self->sources.priorities, priority);
}

gboolean
bg_core_attach (BgCore *self, GSource *source)
{
  if (!bg_core_admits (self))
    return FALSE;

  if (self->sources.arriving == NULL)
    self->sources.arriving = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  g_ptr_array_add (self->sources.arriving, g_source_ref (source));
  atomic_store_explicit (&self->sources.n_arriving, self->sources.arriving->len,
                         memory_order_relaxed);
  atomic_store_explicit (&self->sources.has_attached, TRUE, memory_order_relaxed);
  remember_priority (self, g_source_get_priority (source));
  bg_glib_attach_source (source, self->context);
  bg_linger_interrupt (&self->inbox);
  return TRUE;
}

static void
add_dispatched (GPtrArray *sources, GPtrArray *names)
{
  for (guint i = 0; sources != NULL && i < sources->len; i++)
    {
      GSource *source = g_ptr_array_index (sources, i);

      if ((source->flags & G_HOOK_FLAG_IN_CALL) != 0 && g_source_get_name (source) != NULL)
        g_ptr_array_add (names, (char *) g_source_get_name (source));
    }
}

/* Any thread, with the lock held: the name of the attached source that is being dispatched;
 * NULL if it has none, or if there is none or several. */
char *
bg_core_dup_dispatched (BgCore *self)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new ();

  add_dispatched (self->sources.attached, names);
  add_dispatched (self->sources.arriving, names);
  return names->len == 1 ? g_strdup (g_ptr_array_index (names, 0)) : NULL;
}

static GSource *
get_attached (BgCore *self, guint i)
{
  guint n = bg_core_get_n_attached (self);

  return g_ptr_array_index (i < n ? self->sources.attached : self->sources.arriving,
                            i < n ? i : i - n);
}

/* Any thread, with the lock held: counts a part of the attached sources, those from the number
 * *@next on, and adds the names that they have to @names, until those are @most. FALSE if they were
 * the last, otherwise *@next is where to go on, after others may have had the lock. A source that
 * goes meanwhile leaves its number to another one, which is perhaps not counted then. */
gboolean
bg_core_list_attached (BgCore *self, guint *next, guint *n, GPtrArray *names, guint most)
{
  guint n_arriving = self->sources.arriving != NULL ? self->sources.arriving->len : 0;
  guint end = bg_core_get_n_attached (self) + n_arriving;
  guint stop = MIN (end, *next + LISTED_AT_ONCE);

  for (guint i = *next; i < stop; i++)
    {
      GSource *source = get_attached (self, i);

      if (g_source_is_destroyed (source))
        continue;

      ++*n;
      if (names->len < most && g_source_get_name (source) != NULL)
        g_ptr_array_add (names, g_utf8_make_valid (g_source_get_name (source), -1));
    }

  *next = stop;
  return stop < end;
}

static int
more_urgent (int priority, GSource *source)
{
  int other = g_source_get_priority (source);

  return MIN (priority, other);
}

gboolean
bg_core_owns_source (BgCore *self, GSource *source)
{
  return source == self->timer.source || source == self->stopping.drain
         || g_slist_find (self->stopping.replaced, source) != NULL
         || bg_inbox_owns (&self->inbox, source)
         || (self->mailbox != NULL && bg_mailbox_owns (self->mailbox, source));
}

GPtrArray *
bg_core_get_kept (BgCore *self)
{
  if (self->sources.kept == NULL)
    self->sources.kept = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  return self->sources.kept;
}

/* Sources of one priority that are always ready keep those below from having a turn,
 * an answer that the loop waits for perhaps among them. So the most urgent ones go
 * behind all others, which they would do anyway at the end. */
void
bg_core_demote_most_urgent (BgCore *self)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  int urgent = G_MAXINT;

  bg_glib_list_sources (self->context, self->sources.priorities, 0, sources);
  for (guint i = sources->len; i > 0; i--)
    {
      GSource *source = g_ptr_array_index (sources, i - 1);

      if (bg_core_owns_source (self, source))
        g_ptr_array_remove_index (sources, i - 1);
      else
        urgent = more_urgent (urgent, source);
    }

  /* In this order a source comes before its children, which go with it and may not be
   * moved alone. Behind all others it is already when the most urgent ones are. */
  for (guint i = 0; i < sources->len && urgent != G_MAXINT; i++)
    {
      GSource *source = g_ptr_array_index (sources, i);

      if (g_source_get_priority (source) != urgent)
        continue;

      g_source_set_priority (source, G_MAXINT);
      /* Another thread has just destroyed it, and it came back to what is polled: it
       * stays as long as the context. */
      if (g_source_is_destroyed (source))
        g_ptr_array_add (bg_core_get_kept (self), g_source_ref (source));
    }
}

/* At the end */

static guint
count_own_sources (BgCore *self)
{
  guint n = self->sources.n_own + bg_inbox_get_n_sources (&self->inbox);

  if (self->mailbox != NULL)
    n += bg_mailbox_get_n_sources (self->mailbox);
  return n;
}

/* Lets completions that are under way arrive, and destroys every source that is
 * left. A source that is always ready has had its turns when those below it have not,
 * so the most urgent ones go first. What came since the last round may have had no turn,
 * such as the completion of a task that has returned on another thread just now: it
 * stays for another round, or the task would refer to the context for ever. What is
 * destroyed may attach something in turn, but neither that is for ever. */
void
bg_core_clear_context (BgCore *self)
{
  guint rounds = 0, left = 1;

  while (left > 0 && rounds++ < LAST_ROUNDS)
    {
      g_autoptr (GPtrArray) sources
          = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
      guint last_id = rounds > LATE_ROUNDS ? G_MAXUINT : self->sources.n_had;
      int urgent = G_MAXINT;
      guint turns = 0;

      while (turns < LAST_TURNS && g_main_context_iteration (self->context, FALSE))
        turns++;

      self->sources.n_had = bg_glib_list_sources (self->context, self->sources.priorities,
                                                  count_own_sources (self), sources);
      self->sources.n_own++; /* the probe */
      for (guint i = sources->len; i > 0; i--)
        {
          GSource *source = g_ptr_array_index (sources, i - 1);

          if (self->mailbox != NULL && bg_mailbox_owns (self->mailbox, source))
            g_ptr_array_remove_index (sources, i - 1);
          else
            urgent = more_urgent (urgent, source);
        }

      left = sources->len;
      for (guint i = 0; i < sources->len; i++)
        {
          GSource *source = g_ptr_array_index (sources, i);

          bg_core_step (self);
          if (bg_glib_get_source_id (source) <= last_id
              && (turns < LAST_TURNS || g_source_get_priority (source) == urgent))
            g_source_destroy (source);
        }
    }
}

/* Attached sources that only the core still refers to are freed here, on the loop's thread,
 * where their own code belongs. */
void
bg_core_clear_attached (BgCore *self)
{
  bg_core_lock (self);
  if (self->sources.arriving == NULL)
    self->sources.arriving = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  bg_core_unlock (self);
  if (self->sources.released == NULL)
    self->sources.released = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);

  bg_core_release_unshared (self, NULL);
  for (guint i = 0; i < bg_core_get_n_attached (self) && !bg_core_is_forked (self); i++)
    {
      bg_core_step (self);
      g_source_destroy (g_ptr_array_index (self->sources.attached, i));
    }
  if (!bg_core_is_forked (self))
    bg_core_release_unshared (self, NULL);
}

/* A source that the thread has ended in may be one that was attached: its context can go when
 * nobody else has it, and so it is to be had once. */
static void
add_kept (BgCore *self, GPtrArray *handles)
{
  g_autoptr (GPtrArray) kept = g_steal_pointer (&self->sources.kept);

  for (guint i = 0; kept != NULL && i < kept->len; i++)
    {
      GSource *source = g_ptr_array_index (kept, i);

      if (!g_ptr_array_find (handles, source, NULL))
        g_ptr_array_add (handles, g_source_ref (source));
    }
}

/* The context outlives the loop where an operation that was begun there may come back,
 * and where others may have sources that were in it. */
void
bg_core_free_context (BgCore *self)
{
  GPtrArray *handles = g_steal_pointer (&self->sources.attached);

  if (handles == NULL)
    handles = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  if (self->sources.arriving != NULL)
    g_ptr_array_extend_and_steal (handles, g_steal_pointer (&self->sources.arriving));
  if (self->sources.released != NULL)
    g_ptr_array_extend_and_steal (handles, g_steal_pointer (&self->sources.released));
  add_kept (self, handles);

  if (self->operations.began || handles->len > 0)
    {
      bg_retire_context (self->context, handles, self->sources.n_had);
      return;
    }

  g_ptr_array_unref (handles);
  g_main_context_unref (self->context);
}
