/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

#define BG_TYPE_REPLY (bg_reply_get_type ())
G_DECLARE_FINAL_TYPE (BgReply, bg_reply, BG, REPLY, GObject)

/* What a reply can carry on its way there. */
typedef struct
{
  gpointer data;
  GCancellable *cancellable; /* (owned) (nullable) */
} BgRequest;

BgReply *
bg_reply_new (gpointer source, gpointer tag, GAsyncReadyCallback callback, gpointer callback_data);
BgRequest *bg_reply_get_request (BgReply *self);
void
bg_reply_set_prologue (BgReply *self, GDestroyNotify func, gpointer data, GDestroyNotify destroy);
void bg_reply_return (BgReply *self, GObject *value, GError *error);
void bg_reply_expect_soon (BgReply *self, gboolean asleep);
GMainContext *bg_reply_get_context (BgReply *self);
gboolean bg_reply_is_valid (GAsyncResult *result, gpointer source, gpointer tag);
gboolean bg_reply_propagate (BgReply *self, GObject **value, GError **error);

G_END_DECLS
