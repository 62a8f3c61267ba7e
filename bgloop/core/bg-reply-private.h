/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/base/bg-expiry-private.h>
#include <bgloop/core/bg-mailbox-private.h>

G_BEGIN_DECLS

#define BG_TYPE_REPLY (bg_reply_get_type ())
G_DECLARE_FINAL_TYPE (BgReply, bg_reply, BG, REPLY, GObject)

/* What a reply can carry on its way there. */
typedef struct
{
  gpointer data;
  gint64 deadline; /* monotonic microseconds; -1: none */
  int timeout_msec;
  GCancellable *cancellable; /* (owned) (nullable) */
} BgRequest;

/* A result on its way back, and the #GAsyncResult that the caller gets. A #GTask
 * would cost several times what a loop needs for the call itself.
 *
 * It has many fields since it is the request on its way there, too, and what a mailbox knows of
 * what is owed: so an asynchronous call makes one object, or none, as it is used again. */
struct _BgReply
{
  GObject parent_instance;

  /* immutable, until it is used again */
  GObject *source; /* (owned) (nullable) without a callback: work keeps no loop alive */
  BgCore *by;      /* (unowned) that sends it: alive as long as the source is */
  gpointer tag;
  gpointer func; /* that it is the answer of */
  int priority;
  GAsyncReadyCallback callback; /* (nullable) */
  gpointer callback_data;
  BgMailbox *mailbox; /* (owned) (nullable) where it goes: nowhere without a callback */
  gboolean soon;
  BgReply *next; /* (owned) (nullable) of those that are to be used again */

  _Atomic gboolean due; /* whoever is to send it has to do something for that yet */

  /* under the mailbox's lock */
  GList link;       /* in what is owed */
  gint64 owed_at;   /* monotonic microseconds; 0: to nobody's loop */
  gboolean claimed; /* the caller's loop has answered in place of whoever is to */
  BgExpiry *expiry; /* (owned) (nullable) */
  GObject *carrier; /* (unowned) (nullable) the task that the reply comes with: see
                     * bg_reply_set_carrier() */

  /* of whoever has the reply; once it is claimed, of the caller's loop */
  BgRequest request;
  BgCore *ended; /* (owned) (nullable) the loop whose end this tells of */
  gboolean refused;
  gboolean finished;
  GObject *value; /* (owned) (nullable) */
  GError *error;  /* (owned) (nullable) */
};

BgReply *bg_reply_new (gpointer source,
                       BgCore *by,
                       gpointer tag,
                       gpointer func,
                       int priority,
                       GAsyncReadyCallback callback,
                       gpointer callback_data);
BgRequest *bg_reply_get_request (BgReply *self);
gboolean bg_reply_is_wanted (BgReply *self);
gboolean bg_reply_is_to_loop (BgReply *self);
void bg_reply_set_due (BgReply *self, gboolean due);
void bg_reply_set_carrier (BgReply *self, GObject *carrier);
gboolean bg_reply_is_due (BgReply *self);
void bg_reply_set_ended (BgReply *self, BgCore *core);
void bg_reply_set_expiry (BgReply *self,
                          int timeout_msec,
                          GCancellable *cancellable,
                          BgExpiryFunc func,
                          gpointer data,
                          GDestroyNotify destroy);
void bg_reply_clear (BgReply *self);
void bg_reply_recycle (BgReply *self);
void bg_reply_return (BgReply *self, GObject *value, GError *error);
void bg_reply_refuse (BgReply *self, GError *error);
void bg_reply_expect_soon (BgReply *self, gboolean asleep);
gboolean bg_reply_is_valid (GAsyncResult *result, gpointer source, gpointer tag);
gboolean bg_reply_propagate (BgReply *self, GObject **value, GError **error);

G_END_DECLS
