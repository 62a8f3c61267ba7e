/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <linux/capability.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "search-store.h"
#include "test-search-files.h"

/* What --verbose says of so many files is more than a pipe and the reader's
 * buffer hold, so the command cannot be done before the test has read most. */
#define N_FILES   3000
#define MAX_LINES 700

typedef struct
{
  char *folder;   /* everything is in it */
  char *cwd;      /* where the command is started: a folder of its own */
  char *tree;     /* what is indexed */
  char *database; /* (nullable): the default one, in a cache of the test's own */

  /* of the last run */
  char *out;
  char *err;
  int status;
} Fixture;

static void
set_up (Fixture *fixture, gconstpointer data)
{
  fixture->folder = test_files_make_folder ();
  fixture->cwd = test_files_make_folder ();
  fixture->tree = g_build_filename (fixture->folder, "tree", NULL);
  fixture->database = g_build_filename (fixture->folder, "index.db", NULL);
  g_assert_cmpint (g_mkdir (fixture->tree, 0777), ==, 0);
}

static void
tear_down (Fixture *fixture, gconstpointer data)
{
  test_files_remove (fixture->folder);
  test_files_remove (fixture->cwd);
  g_free (fixture->folder);
  g_free (fixture->cwd);
  g_free (fixture->tree);
  g_free (fixture->database);
  g_free (fixture->out);
  g_free (fixture->err);
}

static char *
bytes_to_string (GBytes *bytes)
{
  g_autoptr (GString) string = g_string_new (NULL);

  g_string_append_len (string, g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  return g_string_free (g_steal_pointer (&string), FALSE);
}

static void
limit_file_size (gpointer user_data)
{
  struct rlimit limit = { .rlim_cur = 64 * 1024, .rlim_max = 64 * 1024 };

  setrlimit (RLIMIT_FSIZE, &limit);
}

/* From the next exec on the modes of files are for root, too. */
static void
obey_modes (gpointer user_data)
{
  prctl (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE);
  prctl (PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH);
}

static GSubprocess *
spawn (Fixture *fixture, GSpawnChildSetupFunc setup, const char *const *arguments)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autoptr (GSubprocessLauncher) launcher = NULL;
  g_autofree char *cache = g_build_filename (fixture->folder, "cache", NULL);
  g_autoptr (GError) error = NULL;
  GSubprocess *process;

  g_ptr_array_add (argv, (char *) g_getenv ("SEARCH"));
  if (fixture->database != NULL)
    {
      g_ptr_array_add (argv, (char *) "--database");
      g_ptr_array_add (argv, fixture->database);
    }
  for (gsize i = 0; arguments[i] != NULL; i++)
    g_ptr_array_add (argv, (char *) arguments[i]);
  g_ptr_array_add (argv, NULL);

  launcher
      = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
  g_subprocess_launcher_set_cwd (launcher, fixture->cwd);
  g_subprocess_launcher_setenv (launcher, "XDG_CACHE_HOME", cache, TRUE);
  /* What the tests read is English, whatever is spoken here. */
  g_subprocess_launcher_setenv (launcher, "LANGUAGE", "C", TRUE);
  if (setup != NULL)
    g_subprocess_launcher_set_child_setup (launcher, setup, NULL, NULL);
  process = g_subprocess_launcher_spawnv (launcher, (const char *const *) argv->pdata, &error);
  g_assert_no_error (error);
  return process;
}

static void
run_with_setup (Fixture *fixture, GSpawnChildSetupFunc setup, const char *const *arguments)
{
  g_autoptr (GSubprocess) process = spawn (fixture, setup, arguments);
  g_autoptr (GBytes) out = NULL;
  g_autoptr (GBytes) err = NULL;
  g_autofree char *readable = NULL;
  g_autoptr (GError) error = NULL;

  g_subprocess_communicate (process, NULL, NULL, &out, &err, &error);
  g_assert_no_error (error);
  g_assert_true (g_subprocess_get_if_exited (process));

  g_free (fixture->out);
  g_free (fixture->err);
  fixture->out = bytes_to_string (out);
  fixture->err = bytes_to_string (err);
  fixture->status = g_subprocess_get_exit_status (process);
  readable = g_utf8_make_valid (fixture->out, -1);
  g_test_message ("status %d\n%s%s", fixture->status, readable, fixture->err);
}

#define run(fixture, ...)                                                                          \
  run_with_setup ((fixture), obey_modes, (const char *const[]){ __VA_ARGS__, NULL })

static void
write_text (Fixture *fixture, const char *name, const char *text)
{
  g_free (test_files_write (fixture->tree, name, text, -1));
}

#define assert_contains(text, part)                                                                \
  G_STMT_START                                                                                     \
  {                                                                                                \
    if (strstr ((text), (part)) == NULL)                                                           \
      g_error ("“%s” is not in “%s”", (part), (text));                                             \
  }                                                                                                \
  G_STMT_END

/* One clear sentence, and nothing else but how far it came until then. */
static void
assert_sentence (Fixture *fixture, const char *part)
{
  g_auto (GStrv) lines = g_strsplit (fixture->err, "\n", -1);
  guint n = g_strv_length (lines), n_sentences = 0;

  g_assert_cmpint (fixture->status, ==, 2);
  for (guint i = 0; i < n; i++)
    n_sentences += g_str_has_prefix (lines[i], "search: ");
  g_assert_cmpuint (n_sentences, ==, 1);
  g_assert_cmpuint (n, >=, 2);
  g_assert_cmpstr (lines[n - 1], ==, "");
  g_assert_true (g_str_has_prefix (lines[n - 2], "search: "));
  assert_contains (lines[n - 2], part);
}

static guint64
count_files (Fixture *fixture)
{
  g_autoptr (SearchStore) store = NULL;
  g_autoptr (GError) error = NULL;
  guint64 count;

  store = search_store_open (fixture->database, SEARCH_STORE_NONE, NULL, &error);
  g_assert_no_error (error);
  search_store_count (store, &count, NULL, &error);
  g_assert_no_error (error);
  search_store_close (store, &error);
  g_assert_no_error (error);
  return count;
}

static void
test_index_and_query (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "first line\nhere a needle lies\n");
  write_text (fixture, "two", "nothing to see\n");

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, "Indexed 2 files");

  run (fixture, "query", "needle");
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, "/tree/one:2: here a [needle] lies\n");
  g_assert_null (strchr (fixture->out, '\033'));
  g_assert_cmpstr (fixture->err, ==, "");

  run (fixture, "--verbose", "query", "needle");
  assert_contains (fixture->out, "/tree/one:2: here a [needle] lies (");
}

static void
assert_found (Fixture *fixture, const char *words, const char *hit)
{
  run (fixture, "query", words);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, hit);
}

/* Scripts that do not part their words: any piece is found. */
static void
test_query_unparted (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "chinese", "第一行\n后台事件循环在线程上运行\n100% 完成\n");
  write_text (fixture, "japanese", "バックグラウンドのイベントループ needle\n");
  write_text (fixture, "english", "needle\n");
  run (fixture, "index", fixture->tree);

  assert_found (fixture, "线程", "/tree/chinese:2: 后台事件循环在[线程]上运行\n");
  assert_found (fixture, "事件循环", "/tree/chinese:2: 后台[事件循环]在线程上运行\n");
  assert_found (fixture, "行", "/tree/chinese:1: 第一[行]\n");
  assert_found (fixture, "イベント",
                "/tree/japanese:1: バックグラウンドの[イベント]ループ needle\n");
  run (fixture, "query", "needle", "ループ");
  assert_contains (fixture->out, "/tree/japanese:1: バックグラウンドのイベント[ループ] [needle]\n");
  g_assert_null (strstr (fixture->out, "english"));

  run (fixture, "query", "线行");
  g_assert_cmpint (fixture->status, ==, 1);
  run (fixture, "query", "%完");
  g_assert_cmpint (fixture->status, ==, 1);
  assert_found (fixture, "% 完", "/tree/chinese:3: 100[% 完]成\n");

  write_text (fixture, "chinese", "only ascii now\n");
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "Indexed 1 file in ");
  run (fixture, "query", "线程");
  g_assert_cmpint (fixture->status, ==, 1);
}

/* Letters beside a script that does not part its words are words of their own. */
static void
test_query_mixed (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "chinese", "第一\n使用SQLite数据库，GLib的线程\n");
  write_text (fixture, "japanese", "データはSQLiteに\n");
  run (fixture, "index", fixture->tree);

  run (fixture, "query", "sqlite");
  assert_contains (fixture->out, "/tree/chinese:2: 使用[SQLite]数据库，GLib的线程\n");
  assert_contains (fixture->out, "/tree/japanese:1: データは[SQLite]に\n");
  assert_found (fixture, "glib的", "/tree/chinese:2: 使用SQLite数据库，[GLib的]线程\n");
  run (fixture, "query", "sqlite", "数据");
  assert_contains (fixture->out, "/tree/chinese:2: 使用[SQLite][数据]库，GLib的线程\n");
  g_assert_null (strstr (fixture->out, "japanese"));
  run (fixture, "query", "sql");
  g_assert_cmpint (fixture->status, ==, 1);
}

static void
test_query_nothing (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "hay\n");
  run (fixture, "index", fixture->tree);
  run (fixture, "query", "needle");
  g_assert_cmpint (fixture->status, ==, 1);
  g_assert_cmpstr (fixture->out, ==, "");
  g_assert_cmpstr (fixture->err, ==, "Nothing found.\n");
}

static void
test_query_no_syntax (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "don't say \"needle-case\": *stars*\n");
  run (fixture, "index", fixture->tree);
  run (fixture, "query", "--", "\"needle-case\":", "-say", "*stars*", "don't");
  g_assert_cmpint (fixture->status, ==, 0);
  run (fixture, "query", "star*");
  g_assert_cmpint (fixture->status, ==, 1);
}

static void
test_index_again (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "old\n");
  run (fixture, "index", fixture->tree);
  write_text (fixture, "one", "new\n");
  run (fixture, "index", fixture->tree);
  g_assert_cmpuint (count_files (fixture), ==, 1);
  run (fixture, "query", "old");
  g_assert_cmpint (fixture->status, ==, 1);
  run (fixture, "query", "new");
  g_assert_cmpint (fixture->status, ==, 0);
}

/* What is as it was is not read again, and what is not there any more goes. */
static void
test_index_changes (Fixture *fixture, gconstpointer data)
{
  g_autofree char *gone = NULL;
  g_autofree char *binary = NULL;

  write_text (fixture, "same", "needle\n");
  write_text (fixture, "changes", "needle\n");
  gone = test_files_write (fixture->tree, "gone", "needle\n", -1);
  g_free (test_files_write (fixture->tree, "binary", "needle\n", -1));
  g_free (test_files_write (fixture->folder, "elsewhere", "needle\n", -1));
  run (fixture, "index", fixture->folder);
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "Indexed 0 files in ");
  assert_contains (fixture->out, ", 4 unchanged.\n");

  write_text (fixture, "changes", "noodle\n");
  g_assert_cmpint (g_remove (gone), ==, 0);
  binary = test_files_write (fixture->tree, "binary", "needle\0", 7);
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "Indexed 1 file in ");
  assert_contains (fixture->out, ", 1 unchanged, 2 gone.\n");
  run (fixture, "query", "needle");
  assert_contains (fixture->out, "/tree/same:1");
  assert_contains (fixture->out, "/elsewhere:1");
  g_assert_null (strstr (fixture->out, "/tree/gone"));
  g_assert_null (strstr (fixture->out, "/tree/binary"));
  g_assert_null (strstr (fixture->out, "/tree/changes"));
}

/* Of a folder that has gone itself, the first run has what it held leave the index, and the next
 * finds no such folder. */
static void
test_index_folder_gone (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "needle\n");
  g_free (test_files_write (fixture->cwd, "elsewhere", "needle\n", -1));
  run (fixture, "index", fixture->tree);
  run (fixture, "index", fixture->cwd);
  test_files_remove (fixture->tree);

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, "vanished: 1\n");
  assert_contains (fixture->out, "Indexed 0 files in ");
  assert_contains (fixture->out, ", 1 gone.\n");
  g_assert_cmpuint (count_files (fixture), ==, 1);

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 2);
  assert_contains (fixture->err, "No such file or directory");
}

/* What cannot be seen has not gone. */
static void
test_index_hidden_from_view (Fixture *fixture, gconstpointer data)
{
  g_autofree char *closed = g_build_filename (fixture->tree, "closed", NULL);

  g_assert_cmpint (g_mkdir (closed, 0777), ==, 0);
  g_free (test_files_write (closed, "inside", "needle\n", -1));
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (g_chmod (closed, 0), ==, 0);
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (g_chmod (closed, 0777), ==, 0);
  g_assert_cmpuint (count_files (fixture), ==, 1);
}

static void
test_index_odd_names (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "\xff\xfe.txt", "needle\n");
  write_text (fixture, "-n", "needle\n");
  write_text (fixture, "new\nline", "needle\n");
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "Indexed 3 files");
  run (fixture, "query", "needle");
  assert_contains (fixture->out, "/\xff\xfe.txt:1: [needle]");
}

/* What is below the folder where one is is named from there. */
static void
test_names_from_here (Fixture *fixture, gconstpointer data)
{
  g_autofree char *below = g_build_filename (fixture->cwd, "below", NULL);

  g_assert_cmpint (g_mkdir (below, 0777), ==, 0);
  g_free (test_files_write (below, "one", "needle\n", -1));
  g_free (test_files_write (fixture->cwd, "\"two", "needle\n", -1));
  g_free (test_files_write (fixture->cwd, "binary", "\0", 1));
  write_text (fixture, "three", "needle\n");
  run (fixture, "index", fixture->tree);
  run (fixture, "index", ".");
  assert_contains (fixture->out, "\n    binary\n");
  run (fixture, "query", "needle");
  assert_contains (fixture->out, "\"\\\"two\":1: [needle]\n");
  assert_contains (fixture->out, "below/one:1: [needle]\n");
  assert_contains (fixture->out, "/tree/three:1: [needle]\n");
  g_assert_null (strstr (fixture->out, fixture->cwd));
}

static guint
count_lines (const char *text)
{
  guint n_lines = 0;

  for (const char *p = text; *p != '\0'; p++)
    n_lines += *p == '\n';
  return n_lines;
}

static void
test_names_on_one_line (Fixture *fixture, gconstpointer data)
{
  g_autofree char *missing = g_build_filename (fixture->tree, "no\nfolder", NULL);
  g_autofree char *folder = g_build_filename (fixture->tree, "a\n\\\xff\"b", NULL);
  g_autofree char *quoted
      = g_strconcat ("\"", fixture->tree, "/a\\n\\\\\xff\\\"b/c\":1: [needle]\n", NULL);

  run (fixture, "index", missing);
  assert_sentence (fixture, "/tree/no�folder");
  g_assert_cmpuint (count_lines (fixture->err), ==, 1);

  g_assert_cmpint (g_mkdir (folder, 0777), ==, 0);
  g_free (test_files_write (folder, "c", "needle\n", -1));
  write_text (fixture, "\"quotes\\", "needle\n");
  run (fixture, "index", "--verbose", folder);
  g_assert_cmpuint (count_lines (fixture->out), ==, 3);
  run (fixture, "index", "--verbose", fixture->tree);
  run (fixture, "query", "needle");
  g_assert_cmpuint (count_lines (fixture->out), ==, 2);
  assert_contains (fixture->out, quoted);
  assert_contains (fixture->out, "/tree/\"quotes\\:1: [needle]\n");
}

static void
make_skipped (Fixture *fixture)
{
  g_autofree char *loop = g_build_filename (fixture->tree, "loop", NULL);
  g_autofree char *fifo = g_build_filename (fixture->tree, "fifo", NULL);
  g_autofree char *huge = NULL;

  write_text (fixture, "text", "needle\n");
  write_text (fixture, "empty", "");
  write_text (fixture, ".hidden", "needle\n");
  g_free (test_files_write (fixture->tree, "binary", "needle\0needle\n", 14));
  write_text (fixture, "latin1", "needle \xe4\xf6\xfc\n");
  huge = test_files_write (fixture->tree, "huge", "needle\n", -1);
  g_assert_cmpint (truncate (huge, 100 * 1024 * 1024), ==, 0);
  g_assert_cmpint (symlink (".", loop), ==, 0);
  g_assert_cmpint (mkfifo (fifo, 0666), ==, 0);
}

static void
test_index_skips (Fixture *fixture, gconstpointer data)
{
  make_skipped (fixture);
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, "Indexed 2 files");
  assert_contains (fixture->out, "Skipped 6:");
  assert_contains (fixture->out, "  binary: 1\n");
  assert_contains (fixture->out, "  not UTF-8: 1\n");
  assert_contains (fixture->out, "  too large: 1\n");
  assert_contains (fixture->out, "  symbolic link: 1\n");
  assert_contains (fixture->out, "  not a regular file: 1\n");
  assert_contains (fixture->out, "  hidden: 1\n");
  assert_contains (fixture->out, "/tree/latin1\n");

  run (fixture, "index", "--hidden", "--verbose", fixture->tree);
  assert_contains (fixture->out, "Indexed 1 file in ");
  assert_contains (fixture->out, ", 2 unchanged");
  assert_contains (fixture->out, "/tree/binary: binary\n");
}

/* What was found to be no text is not read again, either, until it changes. */
static void
test_index_skips_again (Fixture *fixture, gconstpointer data)
{
  g_autofree char *binary = test_files_write (fixture->tree, "binary", "needle\0", 7);
  g_autofree char *latin1 = test_files_write (fixture->tree, "latin1", "needle \xe4\n", -1);

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (g_chmod (binary, 0), ==, 0);
  g_assert_cmpint (g_chmod (latin1, 0), ==, 0);
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "  binary: 1\n");
  assert_contains (fixture->out, "  not UTF-8: 1\n");
  assert_contains (fixture->out, "Indexed 0 files in ");
  g_assert_cmpuint (count_files (fixture), ==, 0);

  g_assert_cmpint (g_remove (latin1), ==, 0);
  write_text (fixture, "binary", "needle\n");
  run (fixture, "index", fixture->tree);
  assert_contains (fixture->out, "Indexed 1 file in ");
  g_assert_null (strstr (fixture->out, "gone"));
  assert_found (fixture, "needle", "/tree/binary:1");
}

static void
test_index_unreadable (Fixture *fixture, gconstpointer data)
{
  g_autofree char *file = test_files_write (fixture->tree, "file", "needle\n", -1);
  g_autofree char *folder = g_build_filename (fixture->tree, "folder", NULL);

  g_assert_cmpint (g_chmod (file, 0), ==, 0);
  g_assert_cmpint (g_mkdir (folder, 0), ==, 0);
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_contains (fixture->out, "  unreadable: 2\n");
  g_assert_cmpint (g_chmod (folder, 0700), ==, 0);
}

static void
test_index_no_folder (Fixture *fixture, gconstpointer data)
{
  g_autofree char *missing = g_build_filename (fixture->tree, "missing", NULL);

  run (fixture, "index", missing);
  assert_sentence (fixture, "missing");
}

static void
test_error_missing (Fixture *fixture, gconstpointer data)
{
  run (fixture, "query", "needle");
  assert_sentence (fixture, "There is no index");
}

static void
test_error_not_an_index (Fixture *fixture, gconstpointer data)
{
  g_free (test_files_write (fixture->folder, "index.db", "This is a text.", -1));
  run (fixture, "index", fixture->tree);
  assert_sentence (fixture, "is not a search index");
  run (fixture, "query", "needle");
  assert_sentence (fixture, "is not a search index");
}

static void
test_error_other_version (Fixture *fixture, gconstpointer data)
{
  sqlite3 *other = NULL;

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (sqlite3_open (fixture->database, &other), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_exec (other, "PRAGMA user_version = 1", NULL, NULL, NULL), ==,
                   SQLITE_OK);
  sqlite3_close (other);

  run (fixture, "index", fixture->tree);
  assert_sentence (fixture, "is of another version");
  run (fixture, "query", "needle");
  assert_sentence (fixture, "is of another version");
}

static void
test_error_corrupt (Fixture *fixture, gconstpointer data)
{
  test_files_write_many (fixture->tree, 300);
  run (fixture, "index", fixture->tree);
  test_files_damage_database (fixture->database);
  run (fixture, "index", fixture->tree);
  assert_sentence (fixture, "is damaged");
  run (fixture, "query", "needle");
  assert_sentence (fixture, "is damaged");
}

static void
test_error_locked (Fixture *fixture, gconstpointer data)
{
  sqlite3 *other = NULL;

  write_text (fixture, "one", "needle\n");
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (sqlite3_open (fixture->database, &other), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_exec (other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), ==, SQLITE_OK);

  run (fixture, "index", fixture->tree);
  assert_sentence (fixture, "is in use by another program");
  run (fixture, "query", "needle");
  assert_sentence (fixture, "is in use by another program");

  sqlite3_close (other);
  run (fixture, "query", "needle");
  g_assert_cmpint (fixture->status, ==, 0);
}

static void
test_error_full (Fixture *fixture, gconstpointer data)
{
  const char *const arguments[] = { "index", fixture->tree, NULL };

  test_files_write_many (fixture->tree, 1000);
  run_with_setup (fixture, limit_file_size, arguments);
  assert_sentence (fixture, "There is no space left");
  assert_contains (fixture->out, "Failed: ");
  g_assert_cmpuint (count_files (fixture), ==,
                    g_ascii_strtoull (strstr (fixture->out, "Failed: ") + 8, NULL, 10));

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  g_assert_cmpuint (count_files (fixture), ==, 1000);
}

static void
assert_index_denied (Fixture *fixture)
{
  run (fixture, "index", fixture->tree);
  assert_sentence (fixture, "ermission denied");
}

static void
test_error_read_only_folder (Fixture *fixture, gconstpointer data)
{
  write_text (fixture, "one", "needle\n");
  g_assert_cmpint (g_chmod (fixture->folder, 0500), ==, 0);
  assert_index_denied (fixture);

  g_assert_cmpint (g_chmod (fixture->folder, 0700), ==, 0);
  run (fixture, "index", fixture->tree);
  write_text (fixture, "two", "needle\n");
  g_assert_cmpint (g_chmod (fixture->folder, 0500), ==, 0);
  assert_index_denied (fixture);

  run (fixture, "query", "needle");
  assert_contains (fixture->out, "/tree/one:1");
  g_assert_cmpint (g_chmod (fixture->folder, 0700), ==, 0);
}

static void
test_error_read_only_cache (Fixture *fixture, gconstpointer data)
{
  g_clear_pointer (&fixture->database, g_free);
  write_text (fixture, "one", "needle\n");
  g_assert_cmpint (g_chmod (fixture->folder, 0500), ==, 0);
  assert_index_denied (fixture);
  g_assert_cmpint (g_chmod (fixture->folder, 0700), ==, 0);

  run (fixture, "query", "needle");
  assert_sentence (fixture, "There is no index");
  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  assert_found (fixture, "needle", "/tree/one:1");
}

static void
assert_database_sound (Fixture *fixture)
{
  sqlite3 *database = NULL;
  sqlite3_stmt *check = NULL;

  g_assert_cmpint (sqlite3_open (fixture->database, &database), ==, SQLITE_OK);
  g_assert_cmpint (sqlite3_prepare_v2 (database, "PRAGMA integrity_check", -1, &check, NULL), ==,
                   SQLITE_OK);
  g_assert_cmpint (sqlite3_step (check), ==, SQLITE_ROW);
  g_assert_cmpstr ((const char *) sqlite3_column_text (check, 0), ==, "ok");
  sqlite3_finalize (check);
  g_assert_cmpint (sqlite3_exec (database, "INSERT INTO texts (texts) VALUES ('integrity-check')",
                                 NULL, NULL, NULL),
                   ==, SQLITE_OK);
  sqlite3_close (database);
}

/* Returns: (element-type filename): the names that are in the index */
static GHashTable *
read_index (Fixture *fixture)
{
  const char *words[] = { "needle", NULL };
  GHashTable *names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (SearchStore) store = NULL;
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;

  store = search_store_open (fixture->database, SEARCH_STORE_NONE, NULL, &error);
  g_assert_no_error (error);
  hits = search_store_query (store, words, N_FILES, NULL, NULL, &error);
  g_assert_no_error (error);
  search_store_close (store, &error);
  g_assert_no_error (error);

  for (guint i = 0; i < hits->len; i++)
    g_hash_table_add (names, g_strdup (((const SearchHit *) hits->pdata[i])->name));
  return names;
}

static void
assert_interrupted_well (Fixture *fixture, int signal_number, GPtrArray *lines)
{
  g_autoptr (GHashTable) names = read_index (fixture);
  guint n_indexed = 0;
  const char *summary = NULL;

  g_assert_cmpint (fixture->status, ==, 128 + signal_number);
  for (guint i = 0; i < lines->len; i++)
    {
      const char *line = lines->pdata[i];

      if (g_str_has_prefix (line, "indexed "))
        {
          g_assert_true (g_hash_table_contains (names, line + strlen ("indexed ")));
          n_indexed++;
        }
      if (g_str_has_prefix (line, "Interrupted: "))
        summary = line + strlen ("Interrupted: ");
    }

  g_assert_nonnull (summary);
  g_test_message ("%s", summary);
  g_assert_cmpuint (g_ascii_strtoull (summary, NULL, 10), ==, n_indexed);
  g_assert_cmpuint (g_hash_table_size (names), ==, n_indexed);
  g_assert_cmpuint (count_files (fixture), ==, n_indexed);
  assert_database_sound (fixture);
}

/* Interrupts after so many lines of output: the load itself is the clock. */
static void
interrupt_after (Fixture *fixture, int signal_number, guint n_lines)
{
  const char *const arguments[] = { "index", "--verbose", fixture->tree, NULL };
  g_autoptr (GSubprocess) process = spawn (fixture, NULL, arguments);
  g_autoptr (GDataInputStream) out
      = g_data_input_stream_new (g_subprocess_get_stdout_pipe (process));
  g_autoptr (GPtrArray) lines = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GBytes) err = NULL;
  g_autoptr (GError) error = NULL;
  char *line;

  while ((line = g_data_input_stream_read_line (out, NULL, NULL, &error)) != NULL)
    {
      g_ptr_array_add (lines, line);
      if (lines->len == n_lines)
        g_subprocess_send_signal (process, signal_number);
    }
  g_assert_no_error (error);

  g_subprocess_communicate (process, NULL, NULL, NULL, &err, &error);
  g_assert_no_error (error);
  g_free (fixture->err);
  fixture->err = bytes_to_string (err);
  g_assert_true (g_subprocess_get_if_exited (process));
  fixture->status = g_subprocess_get_exit_status (process);
  g_test_message ("status %d\n%s", fixture->status, fixture->err);
  assert_interrupted_well (fixture, signal_number, lines);
}

static void
test_interrupt (Fixture *fixture, gconstpointer data)
{
  int signal_number = GPOINTER_TO_INT (data);
  const char *scale = g_getenv ("BGLOOP_TEST_SCALE");
  guint percent = 100, n_interruptions;

  if (scale == NULL)
    scale = g_getenv ("BGLOOP_TEST_SETUP_SCALE");
  if (scale != NULL)
    percent = (guint) strtoul (scale, NULL, 10);
  n_interruptions = MAX (2, (signal_number == SIGINT ? 20 : 3) * percent / 100);

  test_files_write_many (fixture->tree, N_FILES);

  for (guint i = 0; i < n_interruptions; i++)
    {
      guint n_lines = i == 0 ? 1 : g_test_rand_int_range (1, MAX_LINES);

      g_remove (fixture->database);
      interrupt_after (fixture, signal_number, n_lines);
    }

  run (fixture, "index", fixture->tree);
  g_assert_cmpint (fixture->status, ==, 0);
  g_assert_cmpuint (count_files (fixture), ==, N_FILES);
}

static void
assert_limit_refused (Fixture *fixture, const char *limit)
{
  g_autofree char *option = g_strconcat ("--limit=", limit, NULL);
  g_autofree char *reason = g_strdup_printf ("\"%s\" is none", limit);

  run (fixture, option, "query", "needle");
  assert_sentence (fixture, reason);
  g_assert_cmpstr (fixture->out, ==, "");
}

static void
test_limit (Fixture *fixture, gconstpointer data)
{
  static const char *const bad[] = { "-1", "0", "", "x", "1x", "1.5", " 1", "4294967296", "1e9" };

  test_files_write_many (fixture->tree, 20);
  run (fixture, "index", fixture->tree);
  run (fixture, "--limit", "7", "query", "needle");
  g_assert_cmpint (fixture->status, ==, 0);
  g_assert_cmpuint (count_lines (fixture->out), ==, 7);
  g_assert_cmpstr (fixture->err, ==, "7 of 20 (-n shows more)\n");

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    assert_limit_refused (fixture, bad[i]);
  run (fixture, "-n", "-1", "query", "needle");
  assert_sentence (fixture, "-n takes a number of files");
}

/* The report is longer than a pipe, and nobody reads it. */
static void
test_index_unread (Fixture *fixture, gconstpointer data)
{
  const char *const arguments[] = { "index", "--verbose", fixture->tree, NULL };
  g_autoptr (GOutputStream) err = g_memory_output_stream_new_resizable ();
  g_autoptr (GSubprocess) process = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GError) error = NULL;

  test_files_write_many (fixture->tree, N_FILES);
  process = spawn (fixture, NULL, arguments);
  g_assert_true (g_input_stream_close (g_subprocess_get_stdout_pipe (process), NULL, &error));
  g_assert_no_error (error);
  g_output_stream_splice (err, g_subprocess_get_stderr_pipe (process),
                          G_OUTPUT_STREAM_SPLICE_CLOSE_TARGET, NULL, &error);
  g_assert_no_error (error);
  bytes = g_memory_output_stream_steal_as_bytes (G_MEMORY_OUTPUT_STREAM (err));
  fixture->err = bytes_to_string (bytes);

  g_assert_true (g_subprocess_wait (process, NULL, NULL));
  g_assert_true (g_subprocess_get_if_exited (process));
  fixture->status = g_subprocess_get_exit_status (process);
  assert_sentence (fixture, "The output cannot be written");
  g_assert_cmpuint (count_files (fixture), ==, N_FILES);
}

static void
test_version (Fixture *fixture, gconstpointer data)
{
  run (fixture, "--version");
  g_assert_cmpint (fixture->status, ==, 0);
  g_assert_cmpstr (fixture->out, ==, "search " VERSION "\n");
}

static void
test_usage (Fixture *fixture, gconstpointer data)
{
  run (fixture, "query");
  assert_sentence (fixture, "--help");
  run (fixture, "nonsense", "x");
  assert_sentence (fixture, "--help");
  run (fixture, "query", "-x");
  assert_sentence (fixture, "-x");
}

#define add_test(path, data, func)                                                                 \
  g_test_add (path, Fixture, (gconstpointer) (data), set_up, func, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  if (g_getenv ("SEARCH") == NULL)
    g_error ("SEARCH is to be the path of the command");

  add_test ("/search/index-and-query", NULL, test_index_and_query);
  add_test ("/search/query/nothing", NULL, test_query_nothing);
  add_test ("/search/query/unparted", NULL, test_query_unparted);
  add_test ("/search/query/mixed", NULL, test_query_mixed);
  add_test ("/search/query/no-syntax", NULL, test_query_no_syntax);
  add_test ("/search/query/limit", NULL, test_limit);
  add_test ("/search/index/again", NULL, test_index_again);
  add_test ("/search/index/changes", NULL, test_index_changes);
  add_test ("/search/index/folder-gone", NULL, test_index_folder_gone);
  add_test ("/search/index/hidden-from-view", NULL, test_index_hidden_from_view);
  add_test ("/search/index/odd-names", NULL, test_index_odd_names);
  add_test ("/search/names-from-here", NULL, test_names_from_here);
  add_test ("/search/names-on-one-line", NULL, test_names_on_one_line);
  add_test ("/search/index/skips", NULL, test_index_skips);
  add_test ("/search/index/skips-again", NULL, test_index_skips_again);
  add_test ("/search/index/unreadable", NULL, test_index_unreadable);
  add_test ("/search/index/no-folder", NULL, test_index_no_folder);
  add_test ("/search/index/unread", NULL, test_index_unread);
  add_test ("/search/error/missing", NULL, test_error_missing);
  add_test ("/search/error/not-an-index", NULL, test_error_not_an_index);
  add_test ("/search/error/other-version", NULL, test_error_other_version);
  add_test ("/search/error/corrupt", NULL, test_error_corrupt);
  add_test ("/search/error/locked", NULL, test_error_locked);
  add_test ("/search/error/full", NULL, test_error_full);
  add_test ("/search/error/read-only-folder", NULL, test_error_read_only_folder);
  add_test ("/search/error/read-only-cache", NULL, test_error_read_only_cache);
  add_test ("/search/version", NULL, test_version);
  add_test ("/search/error/usage", NULL, test_usage);
  add_test ("/search/interrupt/sigint", GINT_TO_POINTER (SIGINT), test_interrupt);
  add_test ("/search/interrupt/sigterm", GINT_TO_POINTER (SIGTERM), test_interrupt);

  return g_test_run ();
}
