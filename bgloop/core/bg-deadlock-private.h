/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/base/bg-waiter-private.h>

G_BEGIN_DECLS

typedef struct _BgActor BgActor;
typedef struct _BgMailbox BgMailbox;
typedef struct _BgWait BgWait;

/* What a thread waits for. Each depends on all that those above it do, and more. */
typedef enum
{
  BG_WAIT_FOR_WORK,   /* that a loop does something */
  BG_WAIT_FOR_CANCEL, /* a loop's end, for which it waits for no replies */
  BG_WAIT_FOR_END,    /* a loop's end, however others ask for it */
  BG_WAIT_FOR_DRAIN,  /* a loop's end, before which it is to have its replies */
} BgWaitAim;

/* A thread that others may wait for: a loop's, or one that runs the handlers of a
 * loop's cancellable. */
struct _BgActor
{
  guint generation;   /* immutable: the process that it lives in */
  const char *name;   /* immutable (unowned) */
  BgWait *waits;      /* (unowned) (nullable) the innermost, under the waits' lock */
  BgActor *helpers;   /* (unowned) (nullable) whose end is waited for with this one's end: those
                       * that run the handlers of this loop's cancellable, under the waits' lock */
  BgActor *next;      /* (unowned) (nullable) in the list of helpers */
  BgActor *self;      /* (unowned) (nullable) of a helper: the actor whose waits count */
  BgMailbox *mailbox; /* (unowned) (nullable) of a loop: what it is owed; under the waits' lock */

  /* under the waits' lock */
  guint n_end_waits;  /* of the waits, that are for an end which may wait for replies */
  guint64 search;     /* the last one for a circle that has come here, */
  BgWaitAim searched; /* and how far it went on from here */
};

/* A wait, on the stack of the function that waits. One thread can be in several,
 * one within the other: a handler of a cancellable, a destroy notify or a nested
 * iteration may wait in turn. */
struct _BgWait
{
  BgActor *actor;  /* (unowned) (nullable) nobody can wait for this thread */
  BgActor *target; /* (unowned) */
  BgWaitAim aim;
  BgWaiter *waiter;
  BgWait *outer; /* (nullable) */
  char *circle;  /* (owned) (nullable) that has made it endless, under the waits' lock */
};

void bg_actor_set_current (BgActor *self);
void bg_actor_break_circles (BgActor *self);
void bg_actor_abandon_waits (BgActor *self);

gboolean bg_wait_begin (BgWait *self,
                        BgActor *target,
                        BgWaitAim aim,
                        BgWaiter *waiter,
                        GError **error);
void bg_wait_end (BgWait *self);
void bg_wait_set_broken_error (BgWait *self, GError **error);
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
