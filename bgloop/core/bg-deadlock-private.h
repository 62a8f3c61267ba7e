/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/base/bg-waiter-private.h>

G_BEGIN_DECLS

typedef struct _BgActor BgActor;
typedef struct _BgWait BgWait;

/* A thread that others may wait for: a loop's, or one that runs the handlers of a
 * loop's cancellable. */
struct _BgActor
{
  guint generation; /* immutable: the process that it lives in */
  const char *name; /* immutable (unowned) */
  BgWait *waits;    /* (unowned) (nullable) the innermost, under the waits' lock */
  BgActor *helpers; /* (unowned) (nullable) whose end is waited for with this one's end: those
                     * that run the handlers of this loop's cancellable, under the waits' lock */
  BgActor *next;    /* (unowned) (nullable) in the list of helpers */
  BgActor *self;    /* (unowned) (nullable) of a helper: the actor whose waits count */
  gboolean visited; /* in the search for a circle, under the waits' lock */
};

/* A wait, on the stack of the function that waits. One thread can be in several,
 * one within the other: a handler of a cancellable, a destroy notify or a nested
 * iteration may wait in turn. */
struct _BgWait
{
  BgActor *actor;  /* (unowned) (nullable) nobody can wait for this thread */
  BgActor *target; /* (unowned) */
  gboolean for_end;
  BgWaiter *waiter;
  BgWait *outer; /* (nullable) */
};

void bg_actor_set_current (BgActor *self);
gboolean bg_actor_check_wait (BgActor *self, gboolean for_end, GError **error);

void bg_actor_abandon_waits (BgActor *self);

gboolean bg_wait_begin (BgWait *self,
                        BgActor *target,
                        gboolean for_end,
                        BgWaiter *waiter,
                        GError **error);
void bg_wait_end (BgWait *self);
void bg_wait_lock (void);
void bg_wait_unlock (void);

/* A thread that runs the handlers of a loop's cancellable: the loop has not ended
 * before they have returned. */
typedef struct
{
  BgActor helper;
  BgActor stand_in; /* for a thread that is no actor otherwise */
  BgActor *target;
  BgActor *outer;
} BgHandling;

void bg_handling_begin (BgHandling *self, BgActor *target);
void bg_handling_end (BgHandling *self);

G_END_DECLS
