/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-macros-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/core/bg-deadlock-private.h>

/* Who waits for whom, so that a wait that closes a circle is refused.
 *
 * The waits of a thread are a list from the innermost to the outermost. Only threads
 * that others can wait for have one. All lists are under one lock, which may be taken
 * under a core's, and under which only a waiter's or mailboxes' are taken. */

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;
} BgWaits;

static GMutex *
get_lock (void)
{
  static gpointer waits;

  return &((BgWaits *) bg_fork_local (&waits, sizeof (BgWaits)))->lock;
}

/* For other searches for circles. */
void
bg_wait_lock (void)
{
  g_mutex_lock (get_lock ());
}

void
bg_wait_unlock (void)
{
  g_mutex_unlock (get_lock ());
}

static BG_THREAD_LOCAL BgActor *current_actor;

void
bg_actor_set_current (BgActor *self)
{
  current_actor = self;
}

static gboolean
leads_to (BgActor *from, BgActor *here, gboolean for_end, GString *path)
{
  gsize length = path->len;

  gboolean found = from == here;

  /* A wait that was over can count again, when what it waits for has started after
   * all, and so there may be circles. */
  if (from->visited)
    return FALSE;

  from->visited = TRUE;
  for (BgWait *wait = from->waits; wait != NULL && !found; wait = wait->outer)
    {
      /* A wait that is over counts no more, though its thread may not have woken up
       * yet: loops that call each other would see circles that do not exist. */
      if (bg_waiter_is_over (wait->waiter))
        continue;

      g_string_append_printf (path, ", which waits for “%s”", wait->target->name);
      found = leads_to (wait->target, here, wait->for_end, path);
      if (!found)
        g_string_truncate (path, length);
    }

  for (BgActor *helper = for_end ? from->helpers : NULL; helper != NULL && !found;
       helper = helper->next)
    {
      g_string_append (path, ", whose cancellable's handlers have not returned");
      found = leads_to (helper->self, here, FALSE, path);
      if (!found)
        g_string_truncate (path, length);
    }
  from->visited = FALSE;

  return found;
}

static BgActor *
get_here (void)
{
  BgActor *here = current_actor;

  return here != NULL && here->generation == bg_fork_generation () ? here : NULL;
}

/* With the lock held. */
static gboolean
closes_circle (BgActor *here, BgActor *target, gboolean for_end, char **path)
{
  g_autoptr (GString) text = g_string_new (NULL);
  gboolean circle = leads_to (target, here, for_end, text);

  *path = circle ? g_string_free (g_steal_pointer (&text), FALSE) : NULL;
  return circle;
}

static void
set_error (BgActor *here, BgActor *target, const char *path, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
               "This wait could never end: “%s” would wait for “%s”%s", here->name, target->name,
               path);
}

/* Whether this thread may wait for @self; it does not do so yet. */
gboolean
bg_actor_check_wait (BgActor *self, gboolean for_end, GError **error)
{
  BgActor *here = get_here ();
  g_autofree char *path = NULL;
  gboolean circle;

  if (here == NULL)
    return TRUE;

  g_mutex_lock (get_lock ());
  circle = closes_circle (here, self, for_end, &path);
  g_mutex_unlock (get_lock ());

  if (circle)
    set_error (here, self, path, error);
  return !circle;
}

/* Before this thread waits for @target to do something, or with @for_end for all of
 * it to be over. Refused if that could never end. Of no cost to a thread that nobody
 * can wait for. */
gboolean
bg_wait_begin (BgWait *self, BgActor *target, gboolean for_end, BgWaiter *waiter, GError **error)
{
  BgActor *here = get_here ();
  g_autofree char *path = NULL;
  gboolean circle;

  self->actor = NULL;
  if (here == NULL)
    return TRUE;

  g_mutex_lock (get_lock ());
  circle = closes_circle (here, target, for_end, &path);
  if (!circle)
    {
      *self = (BgWait){ here, target, for_end, waiter, here->waits };
      here->waits = self;
    }
  g_mutex_unlock (get_lock ());

  if (circle)
    set_error (here, target, path, error);
  return !circle;
}

void
bg_wait_end (BgWait *self)
{
  BgActor *actor = self->actor;

  if (actor == NULL || actor->generation != bg_fork_generation ())
    return;

  g_mutex_lock (get_lock ());
  actor->waits = self->outer;
  g_mutex_unlock (get_lock ());
}

/* The actor's thread does not come back to what it waited in. */
void
bg_actor_abandon_waits (BgActor *self)
{
  g_mutex_lock (get_lock ());
  self->waits = NULL;
  g_mutex_unlock (get_lock ());
}

/* Before this thread runs handlers of the cancellable of @target's loop. */
void
bg_handling_begin (BgHandling *self, BgActor *target)
{
  self->outer = current_actor;
  self->target = target;
  self->stand_in = (BgActor){ .generation = target->generation, .name = target->name };
  if (get_here () == NULL)
    current_actor = &self->stand_in;

  self->helper = (BgActor){ .self = current_actor };
  g_mutex_lock (get_lock ());
  self->helper.next = target->helpers;
  target->helpers = &self->helper;
  g_mutex_unlock (get_lock ());
}

void
bg_handling_end (BgHandling *self)
{
  BgActor **link;

  current_actor = self->outer;
  if (self->target->generation != bg_fork_generation ())
    return;

  g_mutex_lock (get_lock ());
  for (link = &self->target->helpers; *link != &self->helper; link = &(*link)->next)
    ;
  *link = self->helper.next;
  g_mutex_unlock (get_lock ());
}
