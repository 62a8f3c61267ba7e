/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* As grep's, and the shell's for a signal. */
#define SEARCH_EXIT_NOTHING 1
#define SEARCH_EXIT_FAILURE 2
#define SEARCH_EXIT_SIGNAL  128 /* and its number */

typedef struct
{
  const char *folder;
  const char *database;
  gboolean hidden;  /* index hidden files, too */
  gboolean verbose; /* print each file */
} SearchIndexOptions;

int search_index (const SearchIndexOptions *options);

G_END_DECLS
