/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

gboolean search_is_terminal (int fd);
void search_print_name (const char *name);
void search_print_error (const char *message);
void search_print_snippet (const char *snippet);

G_END_DECLS
