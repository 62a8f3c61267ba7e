/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/core/bg-deadlock-private.h>
#include <bgloop/inbox/bg-inbox-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;
typedef struct _BgMailbox BgMailbox;

/* The context is kept alive as long as there are replies to be sent, not by those
 * that have arrived: when nobody is left to iterate it, it goes, and they go
 * with it.
 *
 * A loop knows the replies that are owed to it, since it waits for them when it
 * drains and tells whoever asked that there will be none when it cancels. */
struct _BgMailbox
{
  int ref_count;    /* atomic: one for the sources, the loop, a thread and a reply */
  int source_count; /* atomic: one for each source, one while it is dispatched */
  BgInbox inbox;
  gpointer tag; /* immutable: by which it is found, of the process that made it */
  BgCore *core; /* immutable (unowned) (nullable) the loop whose context this is */

  _Atomic gboolean closed;     /* written under the inbox's lock */
  _Atomic guint n_outstanding; /* replies to be sent: above 0, they have the context */

  /* under the inbox's lock, of a loop's */
  GQueue owed;        /* of BgReply (unowned): to be sent */
  guint n_visits;     /* by the search for circles that is going on; under the waits' lock */
  guint64 end_search; /* the last one along ends that has come here; under the waits' lock */
  gboolean waiting;   /* the loop drains and waits for replies; written by its thread under
                     * the waits' lock */
  guint n_carried;    /* replies that are owed and have a carrier */
  guint n_answers;    /* replies that have arrived, of those that were not refused at once */
  guint n_refusals;   /* that were given while the loop cancels */
};

BgMailbox *bg_mailbox_get (BgMailbox *last, GMainContext *context);
BgMailbox *bg_mailbox_ref (BgMailbox *self);
void bg_mailbox_unref (gpointer data);

/* Of a loop's own context, on the loop's thread. */
gboolean bg_mailbox_has_replies (BgMailbox *self);
gboolean bg_mailbox_is_owed (BgMailbox *self);
int bg_mailbox_get_recheck_msec (BgMailbox *self);
gboolean bg_mailbox_abandon (BgMailbox *self, GPtrArray *sources);
void bg_mailbox_serve (BgMailbox *self);
gboolean bg_mailbox_serve_one (BgMailbox *self);
void bg_mailbox_close_owed (BgMailbox *self, const char *name);
void bg_mailbox_close (BgMailbox *self);
gboolean bg_mailbox_owns (BgMailbox *self, GSource *source);
guint bg_mailbox_get_n_sources (BgMailbox *self);
gpointer bg_mailbox_get_running (BgMailbox *self, gint64 *started_at);
gpointer bg_mailbox_get_blocking (BgMailbox *self);

/* For searches for circles, under the waits' lock: calls @func for each loop that the end
 * of this one waits for, until @func says TRUE. @its_end: what is owed is word of that
 * loop's end, not an answer to work. FALSE for a mailbox that the search is in already. */
typedef gboolean (*BgOwingFunc) (BgActor *owes, gboolean its_end, gpointer user_data);
gboolean bg_mailbox_find_owing (BgMailbox *self,
                                gboolean will_drain,
                                BgOwingFunc func,
                                gpointer user_data);

void bg_mailbox_look_at_ring_again (BgCore *core);

/* Any thread: calls @func for each reply that is owed, under the mailbox's lock. */
typedef void (*BgOwedFunc) (BgCore *by, gpointer func, gint64 since, gpointer user_data);
void bg_mailbox_foreach_owed (BgMailbox *self, BgOwedFunc func, gpointer user_data);

G_END_DECLS
