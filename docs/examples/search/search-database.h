/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib-object.h>

G_BEGIN_DECLS

#define SEARCH_ERROR (search_error_quark ())

/**
 * SearchError:
 * @SEARCH_ERROR_FAILED: something else; the message is SQLite's
 * @SEARCH_ERROR_NOT_FOUND: there is no index of this name
 * @SEARCH_ERROR_NOT_AN_INDEX: the file is not a database, or not one of ours
 * @SEARCH_ERROR_OTHER_VERSION: the file is one of ours, of another version
 * @SEARCH_ERROR_CORRUPT: the file is damaged
 * @SEARCH_ERROR_LOCKED: another program is using the file
 * @SEARCH_ERROR_FULL: there is no space left
 * @SEARCH_ERROR_DENIED: the file may not be read or written
 *
 * What can go wrong with an index. The message is one sentence for people and
 * names the file.
 */
typedef enum
{
  SEARCH_ERROR_FAILED,
  SEARCH_ERROR_NOT_FOUND,
  SEARCH_ERROR_NOT_AN_INDEX,
  SEARCH_ERROR_OTHER_VERSION,
  SEARCH_ERROR_CORRUPT,
  SEARCH_ERROR_LOCKED,
  SEARCH_ERROR_FULL,
  SEARCH_ERROR_DENIED,
} SearchError;

/**
 * SearchStoreFlags:
 * @SEARCH_STORE_NONE: nothing special
 * @SEARCH_STORE_CREATE: make the index if there is none
 *
 * How to open an index.
 */
typedef enum
{
  SEARCH_STORE_NONE = 0,
  SEARCH_STORE_CREATE = 1 << 0,
} SearchStoreFlags;

/* Around each hit in SearchHit.snippet. */
#define SEARCH_HIT_START '\002'
#define SEARCH_HIT_END   '\003'

#define SEARCH_TYPE_HIT (search_hit_get_type ())

/**
 * SearchHit:
 * @name: (type filename): the file
 * @line: the line of the file that says most, counted from 1
 * @snippet: that line, or the piece of it around the first hit; each hit is
 *   between %SEARCH_HIT_START and %SEARCH_HIT_END
 * @rank: how well the file fits; more is better
 *
 * A file that holds all the words of a query.
 */
typedef struct
{
  char *name;
  guint line;
  char *snippet;
  double rank;
} SearchHit;

/**
 * SearchStamp:
 * @size: in bytes
 * @changed_at: when it was last written, in microseconds since 1970
 * @reason: why nothing of it is in the index, as the caller counts reasons; 0: its text is
 *
 * What tells whether a file is still the one that was read.
 */
typedef struct
{
  gint64 size;
  gint64 changed_at;
  guint reason;
} SearchStamp;

GQuark search_error_quark (void);
GType search_hit_get_type (void);
SearchHit *search_hit_copy (const SearchHit *self);
void search_hit_free (SearchHit *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (SearchHit, search_hit_free)

/* The SQL. It blocks and knows nothing of threads: whoever opens a database is
 * the only one to touch it, up to and including the free. Users take
 * SearchStore instead. */
typedef struct _SearchDatabase SearchDatabase;

SearchDatabase *search_database_open (const char *path, SearchStoreFlags flags, GError **error);
void search_database_free (SearchDatabase *self);
gboolean search_database_add (SearchDatabase *self,
                              const char *name,
                              const SearchStamp *stamp,
                              GBytes *text,
                              GError **error);
gboolean search_database_remove (SearchDatabase *self, const char *name, GError **error);
gboolean search_database_commit (SearchDatabase *self, GError **error);
GPtrArray *search_database_query (SearchDatabase *self,
                                  const char *const *words,
                                  guint limit,
                                  guint64 *n_found,
                                  GError **error);
GHashTable *search_database_list (SearchDatabase *self, const char *folder, GError **error);
gboolean search_database_count (SearchDatabase *self, guint64 *count, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (SearchDatabase, search_database_free)

G_END_DECLS
