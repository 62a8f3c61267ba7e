/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-macros-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/core/bg-deadlock-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* Who waits for whom, so that a wait that closes a circle is refused. A loop that drains
 * waits for the replies that it is owed, too. If one of these closes the circle, it is a
 * wait for the end of a loop that is given up.
 *
 * The waits of a thread are a list from the innermost to the outermost. Only threads
 * that others can wait for have one. All lists are under one lock, which may be taken
 * under a core's, and under which only a waiter's or mailboxes' are taken. */

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;

  /* under lock */
  guint64 n_searches;
  guint n_end_waits; /* of all actors */
} BgAllWaits;

static BgAllWaits *
get_all_waits (void)
{
  static gpointer waits;

  return bg_fork_local (&waits, sizeof (BgAllWaits));
}

static GMutex *
get_lock (void)
{
  return &get_all_waits ()->lock;
}

/* For other searches for circles. */
void
bg_wait_lock (void)
{
  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
}

void
bg_wait_unlock (void)
{
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);
}

static BG_THREAD_LOCAL BgActor *current_actor;

void
bg_actor_set_current (BgActor *self)
{
  current_actor = self;
}

/* A search for a way back to @here. */
typedef struct
{
  BgActor *here;
  gboolean breaks; /* @here waits only for what it is owed, and a wait is to be broken */
  GString *path;
  BgWait *last; /* (nullable) on the way, the last that can be broken */
} BgSearch;

static gboolean leads_back (BgSearch *self, BgActor *from, BgWaitAim aim);

typedef enum
{
  LINK_WAIT,
  LINK_END,
  LINK_REPLY,
} Link;

static gboolean
follow (BgSearch *self, BgActor *to, BgWaitAim aim, Link link)
{
  gsize length = self->path->len;
  gboolean found;

  switch (link)
    {
    case LINK_WAIT:
      g_string_append_printf (self->path, _ (", which waits for \"%s\""), to->name);
      break;
    case LINK_END:
      g_string_append_printf (self->path, _ (", which waits for the end of \"%s\""), to->name);
      break;
    case LINK_REPLY:
      g_string_append_printf (self->path, _ (", which waits for a reply of \"%s\""), to->name);
      break;
    }
  found = leads_back (self, to, aim);
  if (!found)
    g_string_truncate (self->path, length);
  return found;
}

static gboolean
follow_wait (BgSearch *self, BgWait *wait)
{
  BgWait *last = self->last;
  gboolean found;

  /* A wait that is over counts no more, though its thread may not have woken up
   * yet: loops that call each other would see circles that do not exist. */
  if (bg_waiter_is_over (wait->waiter))
    return FALSE;

  if (wait->aim >= BG_WAIT_FOR_END)
    self->last = wait;
  found = follow (self, wait->target, wait->aim, LINK_WAIT);
  if (!found)
    self->last = last;
  return found;
}

/* Loops that are to be told of each other's end do not wait for that: see
 * bg_mailbox_look_at_ring_again(). */
static gboolean
is_back (BgSearch *self, BgActor *from, BgWaitAim aim)
{
  return from == self->here && (!self->breaks || (aim >= BG_WAIT_FOR_END && self->last != NULL));
}

static gboolean
follow_helper (BgSearch *self, BgActor *helper)
{
  gsize length = self->path->len;
  gboolean found;

  g_string_append (self->path, _ (", whose cancellable's handlers have not returned"));
  found = leads_back (self, helper->self, BG_WAIT_FOR_WORK);
  if (!found)
    g_string_truncate (self->path, length);
  return found;
}

static gboolean
follow_owed (BgActor *owes, gboolean its_end, gpointer user_data)
{
  if (its_end)
    return follow (user_data, owes, BG_WAIT_FOR_END, LINK_END);

  return follow (user_data, owes, BG_WAIT_FOR_WORK, LINK_REPLY);
}

/* With the lock held. There may be circles elsewhere: a wait that was over can count
 * again, when what it waits for has started after all. */
static gboolean
leads_back (BgSearch *self, BgActor *from, BgWaitAim aim)
{
  gboolean found = is_back (self, from, aim);

  if (found || from->generation != bg_fork_generation ()
      || (from->search == get_all_waits ()->n_searches && from->searched >= aim))
    return found;

  from->search = get_all_waits ()->n_searches;
  from->searched = aim;
  for (BgWait *wait = from->waits; wait != NULL && !found; wait = wait->outer)
    found = follow_wait (self, wait);

  if (aim >= BG_WAIT_FOR_CANCEL)
    {
      for (BgActor *helper = from->helpers; helper != NULL && !found; helper = helper->next)
        found = follow_helper (self, helper);
    }

  if (aim >= BG_WAIT_FOR_END && from->mailbox != NULL && !found)
    found = bg_mailbox_find_owing (from->mailbox, aim == BG_WAIT_FOR_DRAIN, follow_owed, self);

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
closes_circle (BgActor *here, BgActor *target, BgWaitAim aim, char **path)
{
  BgSearch search = { .here = here, .path = g_string_new (NULL) };
  gboolean circle;

  get_all_waits ()->n_searches++;
  circle = leads_back (&search, target, aim);
  *path = g_string_free (search.path, !circle);
  return circle;
}

/* With the lock held, on the thread of @self's loop, which waits for what it is owed.
 * While others began to wait for its end that could still come: now these waits are
 * ended that cannot end by themselves any more. */
void
bg_actor_break_circles (BgActor *self)
{
  gboolean found = get_all_waits ()->n_end_waits > 0;

  while (found)
    {
      BgSearch search = { .here = self, .breaks = TRUE, .path = g_string_new (NULL) };

      get_all_waits ()->n_searches++;
      found = bg_mailbox_find_owing (self->mailbox, FALSE, follow_owed, &search);
      if (found)
        {
          search.last->circle = g_strdup_printf ("\"%s\"%s", self->name, search.path->str);
          bg_waiter_break (search.last->waiter);
        }
      g_string_free (search.path, TRUE);
    }
}

static void
set_error (BgActor *here, BgActor *target, const char *path, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK,
               _ ("This wait could never end: \"%s\" would wait for \"%s\"%s"), here->name,
               target->name, path);
}

/* With the lock held. */
static void
count_end_waits (BgActor *self, int n)
{
  self->n_end_waits += n;
  get_all_waits ()->n_end_waits += n;
}

/* Before this thread waits for @target. Refused if that could never end. Of no cost to
 * a thread that nobody can wait for. */
gboolean
bg_wait_begin (BgWait *self, BgActor *target, BgWaitAim aim, BgWaiter *waiter, GError **error)
{
  BgActor *here = get_here ();
  g_autofree char *path = NULL;
  gboolean circle;

  self->actor = NULL;
  self->circle = NULL;
  if (here == NULL)
    return TRUE;

  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
  circle = closes_circle (here, target, aim, &path);
  if (!circle)
    {
      *self = (BgWait){ here, target, aim, waiter, here->waits };
      here->waits = self;
      count_end_waits (here, aim >= BG_WAIT_FOR_END);
    }
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);

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

  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
  actor->waits = self->outer;
  count_end_waits (actor, -(self->aim >= BG_WAIT_FOR_END));
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);
}

/* Why a wait came back that was broken, when it has ended. */
void
bg_wait_set_broken_error (BgWait *self, GError **error)
{
  g_set_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK, _ ("This wait could never end: %s"),
               self->circle);
}

/* The actor's thread does not come back to what it waited in. */
void
bg_actor_abandon_waits (BgActor *self)
{
  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
  self->waits = NULL;
  count_end_waits (self, -(int) self->n_end_waits);
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);
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
  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
  self->helper.next = target->helpers;
  target->helpers = &self->helper;
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);
}

void
bg_handling_end (BgHandling *self)
{
  BgActor **link;

  current_actor = self->outer;
  if (self->target->generation != bg_fork_generation ())
    return;

  bg_mutex_lock (get_lock (), BG_LOCK_WAITS);
  for (link = &self->target->helpers; *link != &self->helper; link = &(*link)->next)
    ;
  *link = self->helper.next;
  bg_mutex_unlock (get_lock (), BG_LOCK_WAITS);
}
