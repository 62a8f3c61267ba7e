/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-database.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

/* Marks a file as one of ours: "bgsi". */
#define APPLICATION_ID 0x62677369
#define TO_STRING(x)   #x
#define SQL_NUMBER(x)  TO_STRING (x)

#define BUSY_TIMEOUT_MSEC 1000

/* A snippet shows so much before the first hit, and so much in all. */
#define SNIPPET_LEAD  40
#define SNIPPET_BYTES 160

struct _SearchDatabase
{
  char *path;
  sqlite3 *connection;
  sqlite3_stmt *add_name;
  sqlite3_stmt *add_text;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC (sqlite3_stmt, sqlite3_finalize)

/* clang-format off */
G_DEFINE_QUARK (search-error-quark, search_error)
/* clang-format on */
G_DEFINE_BOXED_TYPE (SearchHit, search_hit, search_hit_copy, search_hit_free)

SearchHit *
search_hit_copy (const SearchHit *self)
{
  SearchHit *copy = g_new0 (SearchHit, 1);

  copy->name = g_strdup (self->name);
  copy->line = self->line;
  copy->snippet = g_strdup (self->snippet);
  copy->rank = self->rank;

  return copy;
}

void
search_hit_free (SearchHit *self)
{
  g_free (self->name);
  g_free (self->snippet);
  g_free (self);
}

static SearchError
error_from_sqlite (int code, int system_errno)
{
  switch (code & 0xff)
    {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return SEARCH_ERROR_LOCKED;
    case SQLITE_CORRUPT:
      return SEARCH_ERROR_CORRUPT;
    case SQLITE_NOTADB:
      return SEARCH_ERROR_NOT_AN_INDEX;
    case SQLITE_FULL:
      return SEARCH_ERROR_FULL;
    case SQLITE_IOERR:
      /* SQLite says "full" for ENOSPC alone. */
      if (system_errno == ENOSPC || system_errno == EDQUOT || system_errno == EFBIG)
        return SEARCH_ERROR_FULL;
      return SEARCH_ERROR_FAILED;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return SEARCH_ERROR_DENIED;
    case SQLITE_CANTOPEN:
      if (system_errno == EACCES || system_errno == EPERM || system_errno == EROFS)
        return SEARCH_ERROR_DENIED;
      return SEARCH_ERROR_FAILED;
    default:
      return SEARCH_ERROR_FAILED;
    }
}

static void
set_error (GError **error, SearchError code, const char *path, const char *detail)
{
  static const char *const sentences[][2] = {
    [SEARCH_ERROR_FAILED] = { "The index ", " cannot be used: " },
    [SEARCH_ERROR_NOT_FOUND] = { "There is no index ", "" },
    [SEARCH_ERROR_NOT_AN_INDEX] = { "The file ", " is not a search index" },
    [SEARCH_ERROR_CORRUPT] = { "The index ", " is damaged: delete it and index again" },
    [SEARCH_ERROR_LOCKED] = { "The index ", " is in use by another program: try again later" },
    [SEARCH_ERROR_FULL] = { "There is no space left for the index ", "" },
    [SEARCH_ERROR_DENIED] = { "The index ", " may not be read or written: permission denied" },
  };
  g_autofree char *name = g_filename_display_name (path);
  g_autofree char *message = g_strconcat (sentences[code][0], "“", name, "”", sentences[code][1],
                                          code == SEARCH_ERROR_FAILED ? detail : "", NULL);

  g_set_error_literal (error, SEARCH_ERROR, code, message);
}

/* Turns SQLite's last error into ours. Returns: FALSE, to be returned. */
static gboolean
fail (SearchDatabase *self, GError **error)
{
  int saved_errno = errno;
  int code = sqlite3_errcode (self->connection);
  int system_errno = sqlite3_system_errno (self->connection);
  gboolean from_system;

  /* SQLite keeps it for most statements, and not for a COMMIT. */
  if (system_errno == 0)
    system_errno = saved_errno;
  from_system = (code == SQLITE_CANTOPEN || code == SQLITE_IOERR) && system_errno != 0;

  set_error (error, error_from_sqlite (code, system_errno), self->path,
             from_system ? g_strerror (system_errno) : sqlite3_errmsg (self->connection));
  return FALSE;
}

static gboolean
execute (SearchDatabase *self, const char *sql, GError **error)
{
  if (sqlite3_exec (self->connection, sql, NULL, NULL, NULL) != SQLITE_OK)
    return fail (self, error);
  return TRUE;
}

static sqlite3_stmt *
prepare (SearchDatabase *self, const char *sql, unsigned flags, GError **error)
{
  sqlite3_stmt *statement = NULL;

  if (sqlite3_prepare_v3 (self->connection, sql, -1, flags, &statement, NULL) != SQLITE_OK)
    fail (self, error);
  return statement;
}

static gboolean
read_number (SearchDatabase *self, const char *sql, gint64 *number, GError **error)
{
  g_autoptr (sqlite3_stmt) statement = prepare (self, sql, 0, error);

  if (statement == NULL)
    return FALSE;
  if (sqlite3_step (statement) != SQLITE_ROW)
    return fail (self, error);
  *number = sqlite3_column_int64 (statement, 0);
  return TRUE;
}

/* Whether the file is one of ours; an empty one becomes it if @flags say so. */
static gboolean
check_or_create (SearchDatabase *self, SearchStoreFlags flags, GError **error)
{
  gint64 id, tables;

  if (!read_number (self, "PRAGMA application_id", &id, error)
      || !read_number (self, "SELECT count(*) FROM sqlite_schema", &tables, error))
    return FALSE;

  if (id == APPLICATION_ID && tables > 0)
    return TRUE;

  if (id != 0 || tables > 0 || !(flags & SEARCH_STORE_CREATE))
    {
      set_error (error, SEARCH_ERROR_NOT_AN_INDEX, self->path, NULL);
      return FALSE;
    }

  return execute (
      self,
      "PRAGMA application_id = " SQL_NUMBER (
          APPLICATION_ID) ";"
                          "CREATE TABLE files (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);"
                          "CREATE VIRTUAL TABLE texts USING fts5"
                          " (text, tokenize = 'unicode61 remove_diacritics 2')",
      error);
}

SearchDatabase *
search_database_open (const char *path, SearchStoreFlags flags, GError **error)
{
  g_autoptr (SearchDatabase) self = g_new0 (SearchDatabase, 1);
  int mode = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;

  self->path = g_strdup (path);
  if (flags & SEARCH_STORE_CREATE)
    mode |= SQLITE_OPEN_CREATE;
  else if (!g_file_test (path, G_FILE_TEST_EXISTS))
    {
      set_error (error, SEARCH_ERROR_NOT_FOUND, path, NULL);
      return NULL;
    }

  if (sqlite3_open_v2 (path, &self->connection, mode, NULL) != SQLITE_OK)
    {
      fail (self, error);
      return NULL;
    }
  sqlite3_busy_timeout (self->connection, BUSY_TIMEOUT_MSEC);

  /* Under the write lock, so that two programs do not both create it. */
  if ((flags & SEARCH_STORE_CREATE) && !execute (self, "BEGIN IMMEDIATE", error))
    return NULL;
  if (!check_or_create (self, flags, error))
    return NULL;
  if ((flags & SEARCH_STORE_CREATE) && !execute (self, "COMMIT", error))
    return NULL;

  return g_steal_pointer (&self);
}

void
search_database_free (SearchDatabase *self)
{
  sqlite3_finalize (self->add_name);
  sqlite3_finalize (self->add_text);
  sqlite3_close (self->connection);
  g_free (self->path);
  g_free (self);
}

static void
roll_back (SearchDatabase *self)
{
  /* Of some errors SQLite rolls back by itself. */
  if (!sqlite3_get_autocommit (self->connection))
    sqlite3_exec (self->connection, "ROLLBACK", NULL, NULL, NULL);
}

static gboolean
begin (SearchDatabase *self, GError **error)
{
  if (!sqlite3_get_autocommit (self->connection))
    return TRUE;

  if (self->add_name == NULL)
    self->add_name = prepare (self,
                              "INSERT INTO files (name) VALUES (?1)"
                              " ON CONFLICT (name) DO UPDATE SET name = name RETURNING id",
                              SQLITE_PREPARE_PERSISTENT, error);
  if (self->add_name != NULL && self->add_text == NULL)
    self->add_text = prepare (self, "INSERT OR REPLACE INTO texts (rowid, text) VALUES (?1, ?2)",
                              SQLITE_PREPARE_PERSISTENT, error);

  return self->add_name != NULL && self->add_text != NULL
         && execute (self, "BEGIN IMMEDIATE", error);
}

static gboolean
insert (SearchDatabase *self, const char *name, GBytes *text, GError **error)
{
  gint64 id = 0;
  gsize size;
  const char *data = g_bytes_get_data (text, &size);
  gboolean ok;

  sqlite3_bind_blob64 (self->add_name, 1, name, strlen (name), SQLITE_STATIC);
  ok = sqlite3_step (self->add_name) == SQLITE_ROW;
  if (ok)
    {
      id = sqlite3_column_int64 (self->add_name, 0);
      ok = sqlite3_step (self->add_name) == SQLITE_DONE;
    }
  if (ok)
    {
      sqlite3_bind_int64 (self->add_text, 1, id);
      sqlite3_bind_text64 (self->add_text, 2, data != NULL ? data : "", size, SQLITE_STATIC,
                           SQLITE_UTF8);
      ok = sqlite3_step (self->add_text) == SQLITE_DONE;
    }
  if (!ok)
    fail (self, error);

  sqlite3_reset (self->add_name);
  sqlite3_reset (self->add_text);
  sqlite3_clear_bindings (self->add_name);
  sqlite3_clear_bindings (self->add_text);
  return ok;
}

/* Adds or replaces a file, in a transaction that the first add begins. An error
 * undoes the transaction, with all that was added since the last commit. */
gboolean
search_database_add (SearchDatabase *self, const char *name, GBytes *text, GError **error)
{
  if (begin (self, error) && insert (self, name, text, error))
    return TRUE;

  roll_back (self);
  return FALSE;
}

/* Makes everything that was added last, or, on error, none of it. */
gboolean
search_database_commit (SearchDatabase *self, GError **error)
{
  if (execute (self, "COMMIT", error))
    return TRUE;

  roll_back (self);
  return FALSE;
}

/* Every word a string of FTS5's, so that nothing in it is syntax. The empty one
 * in front is ignored; it is there because no string at all is an error. */
static char *
quote_words (const char *const *words)
{
  g_autoptr (GString) match = g_string_new ("\"\" ");

  for (gsize i = 0; words[i] != NULL; i++)
    {
      g_autofree char *valid = g_utf8_make_valid (words[i], -1);
      g_autoptr (GString) word = g_string_new (valid);

      g_string_replace (word, "\"", "\"\"", 0);
      g_string_append_printf (match, "\"%s\" ", word->str);
    }

  return g_string_free (g_steal_pointer (&match), FALSE);
}

static char *
cut_snippet (const char *line, gsize length)
{
  g_autofree char *whole = g_utf8_make_valid (line, length);
  const char *hit = strchr (whole, SEARCH_HIT_START);
  const char *start = whole;
  const char *end;
  gboolean cut_start, cut_end;
  g_autofree char *piece = NULL;

  while (g_ascii_isspace (*start))
    start++;

  if (hit != NULL && hit - start > SNIPPET_LEAD)
    start = g_utf8_find_next_char (hit - SNIPPET_LEAD - 1, NULL);
  cut_start = start != whole && !g_ascii_isspace (start[-1]);

  end = start + strlen (start);
  cut_end = end - start > SNIPPET_BYTES;
  if (cut_end)
    end = g_utf8_find_prev_char (start, start + SNIPPET_BYTES + 1);

  piece = g_strndup (start, end - start);
  return g_strconcat (cut_start ? "…" : "", g_strchomp (piece), cut_end ? "…" : "", NULL);
}

/* Fills in the line that has the most hits, the first of these. */
static void
find_best_line (SearchHit *hit, const char *text)
{
  const char *best = text;
  gsize best_length = strcspn (text, "\n");
  guint best_count = 0;
  guint number = 1;

  hit->line = 1;
  for (const char *line = text; *line != '\0'; number++)
    {
      gsize length = strcspn (line, "\n");
      guint count = 0;

      for (gsize i = 0; i < length; i++)
        count += line[i] == SEARCH_HIT_START;
      if (count > best_count)
        {
          best = line;
          best_length = length;
          best_count = count;
          hit->line = number;
        }
      line += length + (line[length] == '\n');
    }

  hit->snippet = cut_snippet (best, best_length);
}

static SearchHit *
hit_from_row (sqlite3_stmt *row)
{
  SearchHit *hit = g_new0 (SearchHit, 1);
  const char *name = sqlite3_column_blob (row, 0);
  const char *text = (const char *) sqlite3_column_text (row, 1);

  hit->name = g_strndup (name != NULL ? name : "", sqlite3_column_bytes (row, 0));
  find_best_line (hit, text != NULL ? text : "");
  hit->rank = -sqlite3_column_double (row, 2);

  return hit;
}

GPtrArray *
search_database_query (SearchDatabase *self, const char *const *words, guint limit, GError **error)
{
  g_autoptr (GPtrArray) hits = g_ptr_array_new_with_free_func ((GDestroyNotify) search_hit_free);
  g_autofree char *match = quote_words (words);
  g_autoptr (sqlite3_stmt) statement = NULL;
  int result;

  statement = prepare (self,
                       "SELECT name, highlight (texts, 0, char (2), char (3)), rank"
                       " FROM texts JOIN files ON files.id = texts.rowid"
                       " WHERE texts MATCH ?1 ORDER BY rank LIMIT ?2",
                       0, error);
  if (statement == NULL)
    return NULL;

  sqlite3_bind_text (statement, 1, match, -1, SQLITE_STATIC);
  sqlite3_bind_int64 (statement, 2, limit);
  while ((result = sqlite3_step (statement)) == SQLITE_ROW)
    g_ptr_array_add (hits, hit_from_row (statement));

  if (result != SQLITE_DONE)
    {
      fail (self, error);
      return NULL;
    }
  return g_steal_pointer (&hits);
}

gboolean
search_database_count (SearchDatabase *self, guint64 *count, GError **error)
{
  gint64 number;

  if (!read_number (self, "SELECT count(*) FROM files", &number, error))
    return FALSE;
  *count = number;
  return TRUE;
}
