/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

#include <bgloop/inbox/bg-queue-private.h>

G_BEGIN_DECLS

typedef struct _BgInbox BgInbox;
typedef struct _BgActivity BgActivity;

/* Something that runs on the serving thread, with what runs within it. */
struct _BgActivity
{
  BgActivity *outer; /* (unowned) (nullable) */
  BgActivity *inner; /* (owned) (nullable) to be used again */
  gpointer func;     /* (nullable) what the outer activity ran when this one began, */
  gint64 started_at; /* and since when, monotonic microseconds, */
  gpointer notify;   /* (nullable) and the destroy notify that ran then */
  BgRecord kept;     /* what is half done if the thread ends now; outcome is NULL if nothing */
};

/* What runs on the serving thread. */
typedef struct
{
  BgActivity *current; /* (unowned) the innermost */
  BgActivity root;

  /* atomic, written by the serving thread */
  _Atomic (gpointer) running; /* what runs now */
  _Atomic gint64 started_at;  /* monotonic microseconds, to within a few fast records */
  _Atomic (gpointer) notify;  /* the destroy notify that runs now, if one does */
  _Atomic guint steps;        /* how often it has gone on to something else than a record */
} BgActivities;

/* the serving thread */
void bg_inbox_push_activity (BgInbox *self, gpointer func);
gint64 bg_inbox_pop_activity (BgInbox *self);
void bg_inbox_destroy (BgInbox *self, GDestroyNotify destroy, gpointer data);
gboolean bg_inbox_abandon_activities (BgInbox *self, GPtrArray *sources);

/* any thread */
gpointer bg_inbox_get_running (BgInbox *self, gint64 *started_at);
gpointer bg_inbox_get_blocking (BgInbox *self);
guint bg_inbox_get_steps (BgInbox *self);

G_END_DECLS
