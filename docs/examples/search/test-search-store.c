/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>

#include "search-store.h"
#include "test-search-files.h"

#define N_ADDS 300

typedef struct
{
  BgTestFixture kit; /* which sees to it that no loop of a store is left */
  char *folder;
  char *path;
  SearchStore *store;
} Fixture;

static SearchStore *
open_store (Fixture *fixture)
{
  g_autoptr (GError) error = NULL;
  SearchStore *store = search_store_open (fixture->path, SEARCH_STORE_CREATE, NULL, &error);

  g_assert_no_error (error);
  g_assert_true (SEARCH_IS_STORE (store));
  return store;
}

static void
close_store (Fixture *fixture)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (search_store_close (fixture->store, &error));
  g_assert_no_error (error);
  g_clear_object (&fixture->store);
}

static void
set_up (Fixture *fixture, gconstpointer data)
{
  bg_test_fixture_set_up (&fixture->kit, data);
  fixture->folder = test_files_make_folder ();
  fixture->path = g_build_filename (fixture->folder, "index.db", NULL);
  fixture->store = open_store (fixture);
}

static void
tear_down (Fixture *fixture, gconstpointer data)
{
  if (fixture->store != NULL)
    close_store (fixture);
  test_files_remove (fixture->folder);
  g_free (fixture->folder);
  g_free (fixture->path);
  bg_test_fixture_tear_down (&fixture->kit, data);
}

static void
result_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GAsyncResult **answer = user_data;

  *answer = g_object_ref (result);
}

static GAsyncResult *
wait_for (GAsyncResult **answer)
{
  while (*answer == NULL)
    g_main_context_iteration (NULL, TRUE);
  return *answer;
}

static void
add (Fixture *fixture, const char *name, const char *text)
{
  g_autoptr (GBytes) bytes = g_bytes_new (text, strlen (text));
  g_autoptr (GError) error = NULL;

  g_assert_true (search_store_add (fixture->store, name, NULL, bytes, NULL, &error));
  g_assert_no_error (error);
}

static GPtrArray *
query (Fixture *fixture, const char *word)
{
  const char *words[] = { word, NULL };
  g_autoptr (GError) error = NULL;
  GPtrArray *hits = search_store_query (fixture->store, words, 100, NULL, NULL, &error);

  g_assert_no_error (error);
  g_assert_nonnull (hits);
  return hits;
}

static guint
count_hits (Fixture *fixture, const char *word)
{
  g_autoptr (GPtrArray) hits = query (fixture, word);

  return hits->len;
}

static guint64
count_files (Fixture *fixture)
{
  g_autoptr (GError) error = NULL;
  guint64 count = 0;

  g_assert_true (search_store_count (fixture->store, &count, NULL, &error));
  g_assert_no_error (error);
  return count;
}

/* Many adds that are on their way at once. */
typedef struct
{
  guint pending;
  guint added;
  guint refused;
} Adds;

static void
adds_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Adds *adds = user_data;
  g_autoptr (GError) error = NULL;

  adds->pending--;
  if (search_store_add_finish (SEARCH_STORE (source), result, &error))
    {
      g_assert_no_error (error);
      adds->added++;
    }
  else
    {
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      adds->refused++;
    }
}

static void
add_many (SearchStore *store, Adds *adds)
{
  for (guint i = 0; i < N_ADDS; i++)
    {
      g_autofree char *name = g_strdup_printf ("/file-%u", i);
      g_autoptr (GBytes) text = g_bytes_new_static ("needle", 6);

      adds->pending++;
      search_store_add_async (store, name, NULL, text, NULL, adds_cb, adds);
    }
}

static void
wait_for_adds (Adds *adds)
{
  while (adds->pending > 0)
    g_main_context_iteration (NULL, TRUE);
}

static void
test_open_missing (Fixture *fixture, gconstpointer data)
{
  g_autofree char *path = g_build_filename (fixture->folder, "missing", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_null (search_store_open (path, SEARCH_STORE_NONE, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_NOT_FOUND);
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
}

static void
test_open_no_folder (Fixture *fixture, gconstpointer data)
{
  g_autofree char *path = g_build_filename (fixture->folder, "missing", "index.db", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_null (search_store_open (path, SEARCH_STORE_CREATE, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_FAILED);
}

static void
test_open_not_a_database (Fixture *fixture, gconstpointer data)
{
  g_autofree char *path = test_files_write (fixture->folder, "text", "This is a text.", -1);
  g_autoptr (GError) error = NULL;

  g_assert_null (search_store_open (path, SEARCH_STORE_CREATE, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_NOT_AN_INDEX);
}

static void
test_open_other_database (Fixture *fixture, gconstpointer data)
{
  g_autofree char *path = g_build_filename (fixture->folder, "other.db", NULL);
  g_autoptr (GError) error = NULL;
  sqlite3 *other = NULL;

  g_assert_cmpint (sqlite3_open (path, &other), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_exec (other, "CREATE TABLE t (x)", NULL, NULL, NULL), ==, SQLITE_OK);
  sqlite3_close (other);

  g_assert_null (search_store_open (path, SEARCH_STORE_CREATE, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_NOT_AN_INDEX);
}

static void
test_open_corrupt (Fixture *fixture, gconstpointer data)
{
  const char *words[] = { "needle", NULL };
  g_autoptr (GError) error = NULL;
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  wait_for_adds (&adds);
  close_store (fixture);
  test_files_damage_database (fixture->path);

  fixture->store = search_store_open (fixture->path, SEARCH_STORE_CREATE, NULL, &error);
  if (fixture->store != NULL)
    g_assert_null (search_store_query (fixture->store, words, 10, NULL, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_CORRUPT);
}

static void
test_open_async (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  close_store (fixture);
  search_store_open_async (fixture->path, SEARCH_STORE_NONE, NULL, result_cb, &result);
  fixture->store = search_store_open_finish (wait_for (&result), &error);
  g_assert_no_error (error);
  g_assert_cmpuint (count_files (fixture), ==, 0);
}

static void
test_open_async_missing (Fixture *fixture, gconstpointer data)
{
  g_autofree char *path = g_build_filename (fixture->folder, "missing", NULL);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  search_store_open_async (path, SEARCH_STORE_NONE, NULL, result_cb, &result);
  g_assert_null (search_store_open_finish (wait_for (&result), &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_NOT_FOUND);
}

static void
test_open_cancelled (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  g_cancellable_cancel (cancellable);
  g_assert_null (search_store_open (fixture->path, SEARCH_STORE_NONE, cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error (&error);

  search_store_open_async (fixture->path, SEARCH_STORE_NONE, cancellable, result_cb, &result);
  g_assert_null (search_store_open_finish (wait_for (&result), &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

/* Called by SQLite when it has opened a database, on the thread of the store's loop. */
static int
quit_loop (sqlite3 *connection, char **message, const void *api)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();

  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  return SQLITE_OK;
}

static void
test_open_ends_meanwhile (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  close_store (fixture);
  sqlite3_auto_extension ((void (*) (void)) quit_loop);
  g_assert_null (search_store_open (fixture->path, SEARCH_STORE_NONE, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);

  search_store_open_async (fixture->path, SEARCH_STORE_NONE, NULL, result_cb, &result);
  g_assert_null (search_store_open_finish (wait_for (&result), &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  sqlite3_reset_auto_extension ();
}

static void
test_add (Fixture *fixture, gconstpointer data)
{
  add (fixture, "/a", "one two three");
  add (fixture, "/b", "three four");
  add (fixture, "/empty", "");
  g_assert_cmpuint (count_files (fixture), ==, 3);
  g_assert_cmpuint (count_hits (fixture, "three"), ==, 2);

  close_store (fixture);
  fixture->store = open_store (fixture);
  g_assert_cmpuint (count_hits (fixture, "three"), ==, 2);
}

static void
test_add_replaces (Fixture *fixture, gconstpointer data)
{
  add (fixture, "/a", "old words");
  add (fixture, "/a", "new words");
  g_assert_cmpuint (count_files (fixture), ==, 1);
  g_assert_cmpuint (count_hits (fixture, "old"), ==, 0);
  g_assert_cmpuint (count_hits (fixture, "new"), ==, 1);
}

static void
test_add_odd_name (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GPtrArray) hits = NULL;
  const SearchHit *hit;

  add (fixture, "/\xff\xfe name\n", "needle");
  hits = query (fixture, "needle");
  g_assert_cmpuint (hits->len, ==, 1);
  hit = hits->pdata[0];
  g_assert_cmpstr (hit->name, ==, "/\xff\xfe name\n");
}

static void
test_add_async (Fixture *fixture, gconstpointer data)
{
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  wait_for_adds (&adds);
  g_assert_cmpuint (adds.added, ==, N_ADDS);
  g_assert_cmpuint (count_files (fixture), ==, N_ADDS);
}

static void
test_add_cancelled (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GBytes) text = g_bytes_new_static ("needle", 6);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  g_cancellable_cancel (cancellable);
  g_assert_false (search_store_add (fixture->store, "/a", NULL, text, cancellable, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error (&error);

  search_store_add_async (fixture->store, "/a", NULL, text, cancellable, result_cb, &result);
  g_assert_false (search_store_add_finish (fixture->store, wait_for (&result), &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint (count_files (fixture), ==, 0);
}

static void
test_query_hit (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (SearchHit) copy = NULL;

  add (fixture, "/a", "one needle\n\n  two needles: needle, Needle.  \nthree\n");
  hits = query (fixture, "needle");
  g_assert_cmpuint (hits->len, ==, 1);

  copy = search_hit_copy (hits->pdata[0]);
  g_assert_cmpstr (copy->name, ==, "/a");
  g_assert_cmpuint (copy->line, ==, 3);
  g_assert_cmpstr (copy->snippet, ==, "two needles: \002needle\003, \002Needle\003.");
  g_assert_cmpfloat (copy->rank, >, 0);
}

static void
test_query_long_line (Fixture *fixture, gconstpointer data)
{
  g_autofree char *blanks = g_strnfill (5000, ' ');
  g_autoptr (GString) text = g_string_new (NULL);
  g_autoptr (GPtrArray) hits = NULL;
  const SearchHit *hit;

  for (guint i = 0; i < 3000; i++)
    g_string_append (text, "ä ");
  g_string_append_printf (text, "needle %sé", blanks);
  add (fixture, "/a", text->str);

  hits = query (fixture, "needle");
  hit = hits->pdata[0];
  g_assert_true (g_utf8_validate (hit->snippet, -1, NULL));
  g_assert_cmpuint (strlen (hit->snippet), <, 300);
  g_assert_nonnull (strstr (hit->snippet, "\002needle\003"));
}

static void
test_query_all_words (Fixture *fixture, gconstpointer data)
{
  const char *words[] = { "two", "one", NULL };
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;

  add (fixture, "/a", "one two");
  add (fixture, "/b", "one");
  hits = search_store_query (fixture->store, words, 10, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (hits->len, ==, 1);

  g_assert_cmpuint (count_hits (fixture, "one two"), ==, 1);
  g_assert_cmpuint (count_hits (fixture, "two one"), ==, 0);
}

static void
test_query_no_syntax (Fixture *fixture, gconstpointer data)
{
  static const char *const words[] = {
    "\"", "\"\"", "a\"b", "-", "-one", "*", "one*", "text:one", ":",  "(",  ")",        "^one",
    "OR", "NOT",  "AND",  "+", "NEAR", "{", "}",    "'",        "\\", "%s", "\xff\xfe", "",
  };
  const char *nothing[] = { NULL };
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;

  add (fixture, "/a", "one or not near");
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    g_assert_cmpuint (count_hits (fixture, words[i]), <=, 1);
  g_assert_cmpuint (count_hits (fixture, "-one"), ==, 1);
  g_assert_cmpuint (count_hits (fixture, "on*"), ==, 0);
  g_assert_cmpuint (count_hits (fixture, "OR"), ==, 1);

  hits = search_store_query (fixture->store, nothing, 10, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (hits->len, ==, 0);
}

static void
test_query_limit (Fixture *fixture, gconstpointer data)
{
  const char *words[] = { "needle", NULL };
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  wait_for_adds (&adds);
  hits = search_store_query (fixture->store, words, 7, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (hits->len, ==, 7);
}

static void
test_query_async (Fixture *fixture, gconstpointer data)
{
  const char *words[] = { "needle", NULL };
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;

  add (fixture, "/a", "needle");
  search_store_query_async (fixture->store, words, 10, NULL, result_cb, &result);
  hits = search_store_query_finish (fixture->store, wait_for (&result), NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (hits->len, ==, 1);
}

static void
test_locked (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GBytes) text = g_bytes_new_static ("needle", 6);
  g_autoptr (GError) error = NULL;
  sqlite3 *other = NULL;

  g_assert_cmpint (sqlite3_open (fixture->path, &other), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_exec (other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), ==, SQLITE_OK);

  g_assert_false (search_store_add (fixture->store, "/a", NULL, text, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_LOCKED);
  g_clear_error (&error);
  g_assert_null (search_store_open (fixture->path, SEARCH_STORE_NONE, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_LOCKED);

  sqlite3_close (other);
  add (fixture, "/a", "needle");
  g_assert_cmpuint (count_files (fixture), ==, 1);
}

/* The limit of a process is as good as the end of a disk. */
static void
set_size_limit (rlim_t size)
{
  struct rlimit limit;

  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  limit.rlim_cur = size;
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
}

static void
fill_disk (Fixture *fixture)
{
  g_autofree char *big = g_strnfill (1024 * 1024, 'x');
  g_autoptr (GBytes) text = g_bytes_new (big, strlen (big));
  g_autoptr (GError) error = NULL;

  signal (SIGXFSZ, SIG_IGN);
  add (fixture, "/small", "needle");

  set_size_limit (512 * 1024);
  g_assert_false (search_store_add (fixture->store, "/big", NULL, text, NULL, &error));
  g_assert_error (error, SEARCH_ERROR, SEARCH_ERROR_FULL);

  set_size_limit (RLIM_INFINITY);
  g_assert_cmpuint (count_hits (fixture, "needle"), ==, 1);
  add (fixture, "/later", "needle");
  g_assert_cmpuint (count_files (fixture), ==, 2);
}

static void
test_full (Fixture *fixture, gconstpointer data)
{
  if (g_test_subprocess ())
    {
      fill_disk (fixture);
      return;
    }

  g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_test_trap_assert_passed ();
}

static void
test_close_commits (Fixture *fixture, gconstpointer data)
{
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  close_store (fixture);
  wait_for_adds (&adds);
  g_assert_cmpuint (adds.added, ==, N_ADDS);

  fixture->store = open_store (fixture);
  g_assert_cmpuint (count_files (fixture), ==, N_ADDS);
}

static void
test_close_async_commits (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  search_store_close_async (fixture->store, NULL, result_cb, &result);
  g_assert_true (search_store_close_finish (fixture->store, wait_for (&result), &error));
  g_assert_no_error (error);
  wait_for_adds (&adds);
  g_assert_cmpuint (adds.added, ==, N_ADDS);

  g_clear_object (&fixture->store);
  fixture->store = open_store (fixture);
  g_assert_cmpuint (count_files (fixture), ==, N_ADDS);
}

static gpointer
close_thread (gpointer user_data)
{
  g_assert_true (search_store_close (user_data, NULL));
  return NULL;
}

static void
test_close_racing_adds (Fixture *fixture, gconstpointer data)
{
  Adds adds = { 0 };
  GThread *thread = g_thread_new ("closer", close_thread, fixture->store);

  add_many (fixture->store, &adds);
  wait_for_adds (&adds);
  g_thread_join (thread);
  g_assert_cmpuint (adds.added + adds.refused, ==, N_ADDS);

  g_clear_object (&fixture->store);
  fixture->store = open_store (fixture);
  g_assert_cmpuint (count_files (fixture), ==, adds.added);
}

static void
test_close_refuses (Fixture *fixture, gconstpointer data)
{
  const char *words[] = { "needle", NULL };
  g_autoptr (GBytes) text = g_bytes_new_static ("needle", 6);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (search_store_close (fixture->store, NULL));
  g_assert_true (search_store_close (fixture->store, NULL));

  g_assert_false (search_store_add (fixture->store, "/a", NULL, text, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_null (search_store_query (fixture->store, words, 10, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  search_store_query_async (fixture->store, words, 10, NULL, result_cb, &result);
  g_assert_null (search_store_query_finish (fixture->store, wait_for (&result), NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
test_drop_loses_nothing (Fixture *fixture, gconstpointer data)
{
  Adds adds = { 0 };

  add_many (fixture->store, &adds);
  g_clear_object (&fixture->store);
  wait_for_adds (&adds);
  g_assert_cmpuint (adds.added, ==, N_ADDS);

  fixture->store = open_store (fixture);
  g_assert_cmpuint (count_files (fixture), ==, N_ADDS);
}

static const struct
{
  const char *path;
  void (*func) (Fixture *, gconstpointer);
} tests[] = {
  { "/search-store/open/missing", test_open_missing },
  { "/search-store/open/no-folder", test_open_no_folder },
  { "/search-store/open/not-a-database", test_open_not_a_database },
  { "/search-store/open/other-database", test_open_other_database },
  { "/search-store/open/corrupt", test_open_corrupt },
  { "/search-store/open/async", test_open_async },
  { "/search-store/open/async-missing", test_open_async_missing },
  { "/search-store/open/cancelled", test_open_cancelled },
  { "/search-store/open/ends-meanwhile", test_open_ends_meanwhile },
  { "/search-store/add/stays", test_add },
  { "/search-store/add/replaces", test_add_replaces },
  { "/search-store/add/odd-name", test_add_odd_name },
  { "/search-store/add/async", test_add_async },
  { "/search-store/add/cancelled", test_add_cancelled },
  { "/search-store/query/hit", test_query_hit },
  { "/search-store/query/long-line", test_query_long_line },
  { "/search-store/query/all-words", test_query_all_words },
  { "/search-store/query/no-syntax", test_query_no_syntax },
  { "/search-store/query/limit", test_query_limit },
  { "/search-store/query/async", test_query_async },
  { "/search-store/locked", test_locked },
  { "/search-store/full", test_full },
  { "/search-store/close/commits", test_close_commits },
  { "/search-store/close/async-commits", test_close_async_commits },
  { "/search-store/close/racing-adds", test_close_racing_adds },
  { "/search-store/close/refuses-later", test_close_refuses },
  { "/search-store/drop/loses-nothing", test_drop_loses_nothing },
};

int
main (int argc, char **argv)
{
  int result;

  g_test_init (&argc, &argv, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (tests); i++)
    g_test_add (tests[i].path, Fixture, NULL, set_up, tests[i].func, tear_down);

  result = g_test_run ();
  bg_test_assert_no_loops ();
  return result;
}
