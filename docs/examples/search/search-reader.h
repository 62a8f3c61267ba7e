/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

#define SEARCH_SKIP (search_skip_quark ())

/* Files of more bytes than this are not read. */
#define SEARCH_READER_LIMIT (4 * 1024 * 1024)

/* Why a file is not indexed: an error domain, and the lines of the summary. */
typedef enum
{
  SEARCH_SKIP_UNREADABLE,
  SEARCH_SKIP_VANISHED,
  SEARCH_SKIP_BINARY,
  SEARCH_SKIP_NOT_UTF8,
  SEARCH_SKIP_HUGE,
  SEARCH_SKIP_SPECIAL,
  SEARCH_SKIP_SYMLINK,
  SEARCH_SKIP_HIDDEN,
} SearchSkip;

#define SEARCH_N_SKIPS (SEARCH_SKIP_HIDDEN + 1)

GQuark search_skip_quark (void);
const char *search_skip_describe (SearchSkip skip);
gboolean search_skip_is_for_content (SearchSkip skip);

void search_read_text_async (const char *path,
                             GCancellable *cancellable,
                             GAsyncReadyCallback callback,
                             gpointer user_data);
GBytes *search_read_text_finish (GAsyncResult *result, GError **error);

G_END_DECLS
