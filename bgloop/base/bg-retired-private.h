/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

void bg_retire_context (GMainContext *context, GPtrArray *handles, guint n_sources);
void bg_release_retired (void);

G_END_DECLS
