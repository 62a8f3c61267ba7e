/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

char *test_files_make_folder (void);
void test_files_remove (const char *path);
char *test_files_write (const char *folder, const char *name, const char *content, gssize length);
void test_files_write_many (const char *folder, guint n_files);
void test_files_damage_database (const char *path);

G_END_DECLS
