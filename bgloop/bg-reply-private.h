/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/bg-expiry-private.h>
#include <bgloop/bg-wait-private.h>

G_BEGIN_DECLS

#define BG_TYPE_REPLY (bg_reply_get_type ())
G_DECLARE_FINAL_TYPE (BgReply, bg_reply, BG, REPLY, GObject)

/* What a reply can carry on its way there. */
typedef struct
{
  gpointer data;
  gint64 deadline;           /* monotonic microseconds; -1: none */
  GCancellable *cancellable; /* (owned) (nullable) */
} BgRequest;

BgReply *bg_reply_new (gpointer source,
                       gpointer tag,
                       gpointer func,
                       int priority,
                       GAsyncReadyCallback callback,
                       gpointer callback_data);
BgRequest *bg_reply_get_request (BgReply *self);
gboolean bg_reply_is_wanted (BgReply *self);
gboolean bg_reply_is_to_loop (BgReply *self);
void bg_reply_set_due (BgReply *self, gboolean due);
void
bg_reply_set_prologue (BgReply *self, GDestroyNotify func, gpointer data, GDestroyNotify destroy);
void bg_reply_set_expiry (BgReply *self,
                          int timeout_msec,
                          GCancellable *cancellable,
                          BgExpiryFunc func,
                          gpointer data,
                          GDestroyNotify destroy);
void bg_reply_return (BgReply *self, GObject *value, GError *error);
void bg_reply_refuse (BgReply *self, GError *error);
void bg_reply_expect_soon (BgReply *self, gboolean asleep);
gboolean bg_reply_is_valid (GAsyncResult *result, gpointer source, gpointer tag);
gboolean bg_reply_propagate (BgReply *self, GObject **value, GError **error);

/* Of a loop's own context, on the loop's thread. */
gboolean bg_mailbox_has_replies (BgMailbox *self);
gboolean bg_mailbox_is_owed (BgMailbox *self);
void bg_mailbox_abandon (BgMailbox *self, GPtrArray *sources);
void bg_mailbox_serve (BgMailbox *self);
gboolean bg_mailbox_serve_one (BgMailbox *self);
void bg_mailbox_close_owed (BgMailbox *self, const char *name);
void bg_mailbox_close (BgMailbox *self);
gboolean bg_mailbox_owns (BgMailbox *self, GSource *source);
guint bg_mailbox_get_n_sources (BgMailbox *self);
void bg_mailbox_unref (gpointer data);

/* Any thread: calls @func for each reply that is owed, under the mailbox's lock. */
typedef void (*BgOwedFunc) (gpointer source, gpointer func, gint64 since, gpointer user_data);
void bg_mailbox_foreach_owed (BgMailbox *self, BgOwedFunc func, gpointer user_data);

/* For searches for circles, under the waits' lock: calls @func for each loop that the end
 * of this one waits for, until it says TRUE. @its_end: not only for something that it does. */
typedef gboolean (*BgOwingFunc) (BgActor *owes, gboolean its_end, gpointer user_data);
gboolean
bg_mailbox_find_owing (BgMailbox *self, gboolean will_drain, BgOwingFunc func, gpointer user_data);

G_END_DECLS
