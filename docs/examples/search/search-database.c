/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-database.h"

#include <errno.h>
#include <glib/gi18n.h>
#include <glib/gstdio.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

/* Marks a file as one of ours: "bgsi". */
#define APPLICATION_ID 0x62677369
#define LAYOUT         3
#define TO_STRING(x)   #x
#define SQL_NUMBER(x)  TO_STRING (x)

#define BUSY_TIMEOUT_MSEC 1000

/* A snippet shows so much before the first hit, and so much in all. */
#define SNIPPET_LEAD  40
#define SNIPPET_BYTES 160

/* A text is in "texts", by words, and also in "grams", by three characters each, if it is
 * in a script that does not part its words: there a query finds any piece of it. */
enum
{
  TEXTS,
  GRAMS,
  FILES,
  N_TABLES
};
static const char *const tables[] = { "texts", "grams", "files" };

/* Where such a script borders on another one, "texts" has this: for FTS5 it parts words. */
#define BORDER "\004"

/* So many characters a piece must have to be looked up; shorter ones are looked for. */
#define GRAM 3

struct _SearchDatabase
{
  char *path;
  sqlite3 *connection;
  sqlite3_stmt *add_name;
  sqlite3_stmt *add_text;
  sqlite3_stmt *add_grams;
  sqlite3_stmt *remove[N_TABLES];
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC (sqlite3_stmt, sqlite3_finalize)

/* clang-format would write blanks into the quark's name. */
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

static char *
describe (SearchError code, const char *name, const char *detail)
{
  switch (code)
    {
    case SEARCH_ERROR_NOT_FOUND:
      return g_strdup_printf (_ ("There is no index \"%s\""), name);
    case SEARCH_ERROR_NOT_AN_INDEX:
      return g_strdup_printf (_ ("The file \"%s\" is not a search index"), name);
    case SEARCH_ERROR_OTHER_VERSION:
      return g_strdup_printf (
          _ ("The index \"%s\" is of another version: delete it and index again"), name);
    case SEARCH_ERROR_CORRUPT:
      return g_strdup_printf (_ ("The index \"%s\" is damaged: delete it and index again"), name);
    case SEARCH_ERROR_LOCKED:
      return g_strdup_printf (_ ("The index \"%s\" is in use by another program: try again later"),
                              name);
    case SEARCH_ERROR_FULL:
      return g_strdup_printf (_ ("There is no space left for the index \"%s\""), name);
    case SEARCH_ERROR_DENIED:
      return g_strdup_printf (_ ("The index \"%s\" may not be read or written: permission denied"),
                              name);
    case SEARCH_ERROR_FAILED:
    default:
      return g_strdup_printf (_ ("The index \"%s\" cannot be used: %s"), name, detail);
    }
}

static void
set_error (GError **error, SearchError code, const char *path, const char *detail)
{
  g_autofree char *name = g_filename_display_name (path);
  g_autofree char *message = describe (code, name, detail);

  g_set_error_literal (error, SEARCH_ERROR, code, message);
}

/* A file that SQLite may not create it tries to open as it is: then there is no such file.
 * Returns: why the folder of the index may not be written, or what SQLite kept */
static int
find_errno (SearchDatabase *self, int code, int system_errno)
{
  g_autofree char *folder = g_path_get_dirname (self->path);

  if (code == SQLITE_CANTOPEN && system_errno == ENOENT && g_access (folder, W_OK) < 0)
    return errno;
  return system_errno;
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
  system_errno = find_errno (self, code, system_errno);
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
  gint64 id, layout, n_tables;

  if (!read_number (self, "PRAGMA application_id", &id, error)
      || !read_number (self, "PRAGMA user_version", &layout, error)
      || !read_number (self, "SELECT count(*) FROM sqlite_schema", &n_tables, error))
    return FALSE;

  if (id == APPLICATION_ID && layout == LAYOUT && n_tables > 0)
    return TRUE;

  if (id != 0 || n_tables > 0 || !(flags & SEARCH_STORE_CREATE))
    {
      set_error (error,
                 id == APPLICATION_ID ? SEARCH_ERROR_OTHER_VERSION : SEARCH_ERROR_NOT_AN_INDEX,
                 self->path, NULL);
      return FALSE;
    }

  return execute (
      self,
      "PRAGMA application_id = " SQL_NUMBER (
          APPLICATION_ID) ";"
                          "PRAGMA user_version = " SQL_NUMBER (
                              LAYOUT) ";"
                                      "CREATE TABLE files (id INTEGER PRIMARY KEY, name BLOB NOT "
                                      "NULL UNIQUE,"
                                      " size INTEGER, changed_at INTEGER, reason INTEGER);"
                                      "CREATE VIRTUAL TABLE texts USING fts5"
                                      " (text, tokenize = 'unicode61 remove_diacritics 2');"
                                      "CREATE VIRTUAL TABLE grams USING fts5 (text, tokenize = "
                                      "'trigram')",
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
  sqlite3_finalize (self->add_grams);
  for (gsize i = 0; i < N_TABLES; i++)
    sqlite3_finalize (self->remove[i]);
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

static sqlite3_stmt *
prepare_once (SearchDatabase *self, sqlite3_stmt **statement, const char *sql, GError **error)
{
  if (*statement == NULL)
    *statement = prepare (self, sql, SQLITE_PREPARE_PERSISTENT, error);
  return *statement;
}

static gboolean
prepare_removals (SearchDatabase *self, GError **error)
{
  for (gsize i = 0; i < N_TABLES; i++)
    {
      g_autofree char *sql = g_strdup_printf (
          i != FILES ? "DELETE FROM %s WHERE rowid = (SELECT id FROM files WHERE name = ?1)"
                     : "DELETE FROM %s WHERE name = ?1",
          tables[i]);

      if (prepare_once (self, &self->remove[i], sql, error) == NULL)
        return FALSE;
    }

  return TRUE;
}

/* Begins a transaction, unless there is one. */
static gboolean
begin (SearchDatabase *self, GError **error)
{
  if (!sqlite3_get_autocommit (self->connection))
    return TRUE;

  return prepare_once (self, &self->add_name,
                       "INSERT INTO files (name, size, changed_at, reason) VALUES (?1, ?2, ?3, ?4)"
                       " ON CONFLICT (name) DO UPDATE SET size = ?2, changed_at = ?3, reason = ?4"
                       " RETURNING id",
                       error)
         && prepare_once (self, &self->add_text,
                          "INSERT OR REPLACE INTO texts (rowid, text) VALUES (?1, ?2)", error)
         && prepare_once (self, &self->add_grams,
                          "INSERT OR REPLACE INTO grams (rowid, text) VALUES (?1, ?2)", error)
         && prepare_removals (self, error) && execute (self, "BEGIN IMMEDIATE", error);
}

/* Runs a prepared statement that gives nothing. */
static gboolean
run (SearchDatabase *self, sqlite3_stmt *statement, GError **error)
{
  gboolean ok = sqlite3_step (statement) == SQLITE_DONE;

  if (!ok)
    fail (self, error);
  sqlite3_reset (statement);
  sqlite3_clear_bindings (statement);
  return ok;
}

static gboolean
insert_name (SearchDatabase *self,
             const char *name,
             const SearchStamp *stamp,
             gint64 *id,
             GError **error)
{
  gboolean ok;

  sqlite3_bind_blob64 (self->add_name, 1, name, strlen (name), SQLITE_STATIC);
  if (stamp != NULL)
    {
      sqlite3_bind_int64 (self->add_name, 2, stamp->size);
      sqlite3_bind_int64 (self->add_name, 3, stamp->changed_at);
    }
  sqlite3_bind_int64 (self->add_name, 4, stamp != NULL ? stamp->reason : 0);
  ok = sqlite3_step (self->add_name) == SQLITE_ROW;
  if (ok)
    {
      *id = sqlite3_column_int64 (self->add_name, 0);
      ok = sqlite3_step (self->add_name) == SQLITE_DONE;
    }
  if (!ok)
    fail (self, error);
  sqlite3_reset (self->add_name);
  sqlite3_clear_bindings (self->add_name);
  return ok;
}

static gboolean
insert_text (SearchDatabase *self, sqlite3_stmt *statement, gint64 id, GBytes *text, GError **error)
{
  gsize size;
  const char *data = g_bytes_get_data (text, &size);

  sqlite3_bind_int64 (statement, 1, id);
  sqlite3_bind_text64 (statement, 2, data != NULL ? data : "", size, SQLITE_STATIC, SQLITE_UTF8);
  return run (self, statement, error);
}

/* Whether it belongs to a script that does not part its words, or not all that are one for who
 * looks for it. */
static gboolean
is_unparted (gunichar c)
{
  switch (g_unichar_get_script (c))
    {
    case G_UNICODE_SCRIPT_HAN:
    case G_UNICODE_SCRIPT_HIRAGANA:
    case G_UNICODE_SCRIPT_KATAKANA:
    case G_UNICODE_SCRIPT_HANGUL:
    case G_UNICODE_SCRIPT_THAI:
      return TRUE;
    default:
      return FALSE;
    }
}

/* Whether there is anything in it in such a script. */
static gboolean
needs_grams (const char *text, gsize size)
{
  const char *end = text + size;

  for (const char *p = text; p < end; p = g_utf8_next_char (p))
    {
      if ((guchar) *p >= 0x80 && is_unparted (g_utf8_get_char_validated (p, end - p)))
        return TRUE;
    }

  return FALSE;
}

/* Returns: (transfer full): the text, with a mark wherever such a script borders on another one */
static GBytes *
mark_borders (const char *text, gsize size)
{
  GByteArray *marked = g_byte_array_new ();
  const char *end = text + size;
  gboolean unparted = FALSE;

  for (const char *p = text, *next; p < end; p = next)
    {
      gboolean was_unparted = unparted;

      next = g_utf8_next_char (p);
      unparted = (guchar) *p >= 0x80 && is_unparted (g_utf8_get_char_validated (p, end - p));
      if (unparted != was_unparted)
        g_byte_array_append (marked, (const guint8 *) BORDER, strlen (BORDER));
      g_byte_array_append (marked, (const guint8 *) p, MIN (next, end) - p);
    }

  return g_byte_array_free_to_bytes (marked);
}

static gboolean
remove_from (SearchDatabase *self, gsize table, const char *name, GError **error)
{
  sqlite3_bind_blob64 (self->remove[table], 1, name, strlen (name), SQLITE_STATIC);
  return run (self, self->remove[table], error);
}

static gboolean
insert (SearchDatabase *self,
        const char *name,
        const SearchStamp *stamp,
        GBytes *text,
        GError **error)
{
  gsize size = 0;
  const char *data = text != NULL ? g_bytes_get_data (text, &size) : NULL;
  g_autoptr (GBytes) marked = NULL;
  gint64 id;

  if (!insert_name (self, name, stamp, &id, error))
    return FALSE;
  if (text == NULL)
    return remove_from (self, TEXTS, name, error) && remove_from (self, GRAMS, name, error);
  if (size == 0 || !needs_grams (data, size))
    return insert_text (self, self->add_text, id, text, error)
           && remove_from (self, GRAMS, name, error);

  marked = mark_borders (data, size);
  return insert_text (self, self->add_text, id, marked, error)
         && insert_text (self, self->add_grams, id, text, error);
}

/* Adds or replaces a file, in a transaction that the first change begins. An error
 * undoes the transaction, with all that was changed since the last commit.
 * @text: (nullable): %NULL if there is none, as @stamp says */
gboolean
search_database_add (SearchDatabase *self,
                     const char *name,
                     const SearchStamp *stamp,
                     GBytes *text,
                     GError **error)
{
  if (begin (self, error) && insert (self, name, stamp, text, error))
    return TRUE;

  roll_back (self);
  return FALSE;
}

/* The same, for a file that is no more; one that is not there is no error. */
gboolean
search_database_remove (SearchDatabase *self, const char *name, GError **error)
{
  gboolean ok = begin (self, error);

  /* The name goes last: by it the others are found. */
  for (gsize i = 0; i < N_TABLES && ok; i++)
    ok = remove_from (self, i, name, error);

  if (!ok)
    roll_back (self);
  return ok;
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

/* What a query is made of */
typedef struct
{
  GString *match[FILES];  /* what to look up in "texts" and in "grams" */
  gboolean wanted[FILES]; /* whether there is any */
  GPtrArray *pieces;      /* (element-type utf8): to be marked in what was found */
  GPtrArray *likes;       /* (element-type utf8): patterns to look for in "grams" */
} Query;

static void
query_clear (Query *self)
{
  for (gsize i = 0; i < FILES; i++)
    g_string_free (self->match[i], TRUE);
  g_ptr_array_unref (self->pieces);
  g_ptr_array_unref (self->likes);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Query, query_clear)

/* Every word a string of FTS5's, so that nothing in it is syntax. */
static void
append_string (GString *match, const char *word)
{
  g_autoptr (GString) quoted = g_string_new (word);

  g_string_replace (quoted, "\"", "\"\"", 0);
  g_string_append_printf (match, "\"%s\" ", quoted->str);
}

static char *
make_pattern (const char *piece)
{
  g_autoptr (GString) pattern = g_string_new (piece);

  g_string_replace (pattern, "\\", "\\\\", 0);
  g_string_replace (pattern, "%", "\\%", 0);
  g_string_replace (pattern, "_", "\\_", 0);
  return g_strdup_printf ("%%%s%%", pattern->str);
}

/* The empty string in front is ignored; it is there because no string at all is an error. */
static void
query_init (Query *self, const char *const *words)
{
  for (gsize i = 0; i < FILES; i++)
    {
      self->match[i] = g_string_new (i == TEXTS ? "\"\" " : NULL);
      self->wanted[i] = FALSE;
    }
  self->pieces = g_ptr_array_new_with_free_func (g_free);
  self->likes = g_ptr_array_new_with_free_func (g_free);

  for (gsize i = 0; words[i] != NULL; i++)
    {
      g_autofree char *word = g_utf8_make_valid (words[i], -1);

      if (!needs_grams (word, strlen (word)))
        {
          append_string (self->match[TEXTS], word);
          self->wanted[TEXTS] = TRUE;
          continue;
        }
      if (g_utf8_strlen (word, -1) >= GRAM)
        {
          append_string (self->match[GRAMS], word);
          self->wanted[GRAMS] = TRUE;
        }
      else
        {
          g_ptr_array_add (self->likes, make_pattern (word));
        }
      g_ptr_array_add (self->pieces, g_steal_pointer (&word));
    }

  if (self->pieces->len == 0)
    self->wanted[TEXTS] = TRUE;
}

/* The tables and the conditions; the parameters are bound in the same order. */
static char *
query_get_source (Query *self)
{
  g_autoptr (GString) sql = g_string_new ("FROM files");
  const char *and = " WHERE";

  if (self->wanted[TEXTS])
    g_string_append (sql, " JOIN texts ON texts.rowid = files.id");
  if (self->pieces->len > 0)
    g_string_append (sql, " JOIN grams ON grams.rowid = files.id");
  for (gsize i = 0; i < FILES; i++)
    {
      if (!self->wanted[i])
        continue;
      g_string_append_printf (sql, "%s %s MATCH ?", and, tables[i]);
      and = " AND";
    }
  for (guint i = 0; i < self->likes->len; i++)
    {
      g_string_append_printf (sql, "%s grams.text LIKE ? ESCAPE '\\'", and);
      and = " AND";
    }

  return g_string_free (g_steal_pointer (&sql), FALSE);
}

static sqlite3_stmt *
query_prepare (Query *self, SearchDatabase *database, const char *sql, int *n, GError **error)
{
  sqlite3_stmt *statement = prepare (database, sql, 0, error);

  *n = 0;
  if (statement == NULL)
    return NULL;

  for (gsize i = 0; i < FILES; i++)
    {
      if (self->wanted[i])
        sqlite3_bind_text (statement, ++*n, self->match[i]->str, -1, SQLITE_STATIC);
    }
  for (guint i = 0; i < self->likes->len; i++)
    sqlite3_bind_text (statement, ++*n, self->likes->pdata[i], -1, SQLITE_STATIC);
  return statement;
}

/* Returns: (nullable): what matches any of the pieces; %NULL if there are none */
static GRegex *
make_regex (GPtrArray *pieces)
{
  g_autoptr (GString) pattern = g_string_new (NULL);

  for (guint i = 0; i < pieces->len; i++)
    {
      g_autofree char *escaped = g_regex_escape_string (pieces->pdata[i], -1);

      g_string_append_printf (pattern, "%s%s", i > 0 ? "|" : "", escaped);
    }

  return pieces->len > 0 ? g_regex_new (pattern->str, G_REGEX_CASELESS | G_REGEX_RAW, 0, NULL)
                         : NULL;
}

/* Marks the pieces, as FTS5 has marked the words. Line by line: a regular expression takes a
 * time that grows with the square of a long text. */
static char *
mark_pieces (const char *text, GRegex *regex)
{
  const char mark[] = { SEARCH_HIT_START, '\\', '0', SEARCH_HIT_END, '\0' };
  g_auto (GStrv) lines = NULL;

  if (regex == NULL)
    return g_strdup (text);

  lines = g_strsplit (text, "\n", -1);
  for (gsize i = 0; lines[i] != NULL; i++)
    {
      g_autofree char *line = lines[i];

      lines[i] = g_regex_replace (regex, line, -1, 0, mark, 0, NULL);
      if (lines[i] == NULL)
        lines[i] = g_steal_pointer (&line);
    }

  return g_strjoinv ("\n", lines);
}

static char *
remove_borders (const char *text)
{
  g_auto (GStrv) parts = g_strsplit (text, BORDER, -1);

  return g_strjoinv (NULL, parts);
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
  return g_strconcat (cut_start ? "..." : "", g_strchomp (piece), cut_end ? "..." : "", NULL);
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
hit_from_row (sqlite3_stmt *row, GRegex *pieces)
{
  SearchHit *hit = g_new0 (SearchHit, 1);
  const char *name = sqlite3_column_blob (row, 0);
  const char *text = (const char *) sqlite3_column_text (row, 1);
  g_autofree char *plain = remove_borders (text != NULL ? text : "");
  g_autofree char *marked = mark_pieces (plain, pieces);

  hit->name = g_strndup (name != NULL ? name : "", sqlite3_column_bytes (row, 0));
  find_best_line (hit, marked);
  hit->rank = -sqlite3_column_double (row, 2);

  return hit;
}

static gboolean
count_hits (SearchDatabase *self,
            Query *query,
            const char *source,
            guint64 *n_found,
            GError **error)
{
  g_autofree char *sql = g_strconcat ("SELECT count(*) ", source, NULL);
  int n;
  g_autoptr (sqlite3_stmt) statement = query_prepare (query, self, sql, &n, error);

  if (statement == NULL)
    return FALSE;
  if (sqlite3_step (statement) != SQLITE_ROW)
    return fail (self, error);
  *n_found = sqlite3_column_int64 (statement, 0);
  return TRUE;
}

/* @n_found: (nullable): how many there are, of which no more than @limit are given */
GPtrArray *
search_database_query (SearchDatabase *self,
                       const char *const *words,
                       guint limit,
                       guint64 *n_found,
                       GError **error)
{
  g_autoptr (GPtrArray) hits = g_ptr_array_new_with_free_func ((GDestroyNotify) search_hit_free);
  g_auto (Query) query;
  g_autofree char *source = NULL;
  g_autofree char *sql = NULL;
  g_autoptr (sqlite3_stmt) statement = NULL;
  g_autoptr (GRegex) regex = NULL;
  int n, result;

  query_init (&query, words);
  regex = make_regex (query.pieces);
  source = query_get_source (&query);
  sql = g_strdup_printf ("SELECT name, %s, %s %s ORDER BY 3, name LIMIT ?",
                         query.wanted[TEXTS] ? "highlight (texts, 0, char (2), char (3))"
                                             : "grams.text",
                         query.wanted[TEXTS]   ? "texts.rank"
                         : query.wanted[GRAMS] ? "grams.rank"
                                               : "0",
                         source);
  statement = query_prepare (&query, self, sql, &n, error);
  if (statement == NULL)
    return NULL;

  sqlite3_bind_int64 (statement, n + 1, limit);
  while ((result = sqlite3_step (statement)) == SQLITE_ROW)
    g_ptr_array_add (hits, hit_from_row (statement, regex));

  if (result != SQLITE_DONE)
    {
      fail (self, error);
      return NULL;
    }
  if (n_found != NULL && !count_hits (self, &query, source, n_found, error))
    return NULL;
  return g_steal_pointer (&hits);
}

/* The files in a folder and below, and the stamps of those that have one. */
GHashTable *
search_database_list (SearchDatabase *self, const char *folder, GError **error)
{
  g_autoptr (GHashTable) files = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autofree char *prefix
      = g_str_has_suffix (folder, "/") ? g_strdup (folder) : g_strconcat (folder, "/", NULL);
  g_autoptr (sqlite3_stmt) statement = prepare (self,
                                                "SELECT name, size, changed_at, reason FROM files"
                                                " WHERE substr (name, 1, ?2) = ?1",
                                                0, error);
  int result;

  if (statement == NULL)
    return NULL;

  sqlite3_bind_blob64 (statement, 1, prefix, strlen (prefix), SQLITE_STATIC);
  sqlite3_bind_int64 (statement, 2, strlen (prefix));
  while ((result = sqlite3_step (statement)) == SQLITE_ROW)
    {
      SearchStamp stamp = { -1, -1, sqlite3_column_int64 (statement, 3) };

      if (sqlite3_column_type (statement, 1) != SQLITE_NULL)
        {
          stamp.size = sqlite3_column_int64 (statement, 1);
          stamp.changed_at = sqlite3_column_int64 (statement, 2);
        }
      g_hash_table_insert (files,
                           g_strndup (sqlite3_column_blob (statement, 0),
                                      sqlite3_column_bytes (statement, 0)),
                           g_memdup2 (&stamp, sizeof stamp));
    }

  if (result != SQLITE_DONE)
    {
      fail (self, error);
      return NULL;
    }
  return g_steal_pointer (&files);
}

gboolean
search_database_count (SearchDatabase *self, guint64 *count, GError **error)
{
  gint64 number;

  if (!read_number (self, "SELECT count(*) FROM files WHERE reason = 0", &number, error))
    return FALSE;
  *count = number;
  return TRUE;
}
