/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A progress bar on standard error: redrawn in place on a terminal, a plain
 * line now and then elsewhere. */
typedef struct _SearchProgress SearchProgress;

SearchProgress *search_progress_new (void);
void search_progress_free (SearchProgress *self);
void search_progress_set (SearchProgress *self, guint done, guint total, gboolean total_known);
void search_progress_clear (SearchProgress *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (SearchProgress, search_progress_free)

G_END_DECLS
