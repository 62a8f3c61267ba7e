/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Contexts that others still use when their loop has ended. Any thread retires one; those that
 * nobody uses any more are released on the threads of loops. */

void bg_retire_context (GMainContext *context, GPtrArray *handles, guint n_sources);
void bg_release_retired (void);

G_END_DECLS
