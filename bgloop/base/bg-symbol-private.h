/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Functions by their names and their libraries. Any thread, under no lock of the library's. */

char *bg_symbol_describe (gpointer func);
char *bg_symbol_describe_address (gpointer func);
gboolean bg_symbol_share_module (gpointer func, gpointer other);

G_END_DECLS
