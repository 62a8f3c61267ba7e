/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#define LINE_TYPE_CLIENT (line_client_get_type ())
G_DECLARE_FINAL_TYPE (LineClient, line_client, LINE, CLIENT, GObject)

LineClient *line_client_new (const char *const *argv, GError **error);
char *line_client_ask (LineClient *self, const char *question, GError **error);
void line_client_ask_async (LineClient *self,
                            const char *question,
                            GCancellable *cancellable,
                            GAsyncReadyCallback callback,
                            gpointer user_data);
char *line_client_ask_finish (LineClient *self, GAsyncResult *result, GError **error);
gboolean line_client_close (LineClient *self, GError **error);
