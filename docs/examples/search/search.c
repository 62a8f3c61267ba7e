/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib/gi18n.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "search-index.h"
#include "search-store.h"
#include "search-terminal.h"

#define DEFAULT_LIMIT 10

static char *database_option;
static char *database; /* absolute */
static char **arguments;
static gboolean hidden;
static gboolean verbose;
static gboolean version;
static guint limit = DEFAULT_LIMIT;

static gboolean
parse_limit (const char *option, const char *value, gpointer data, GError **error)
{
  guint64 number;

  if (!g_ascii_string_to_unsigned (value, 10, 1, G_MAXUINT, &number, NULL))
    {
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                   /* Translators: the name of an option, and what was given to it */
                   _ ("%s takes a number of files, 1 or more: \"%s\" is none"), option, value);
      return FALSE;
    }

  limit = number;
  return TRUE;
}

static const GOptionEntry entries[] = {
  { "database", 'd', G_OPTION_FLAG_NONE, G_OPTION_ARG_FILENAME, &database_option,
    N_ ("The index (default: ~/.cache/bgloop-search/index.db)"), N_ ("FILE") },
  { "limit", 'n', G_OPTION_FLAG_NONE, G_OPTION_ARG_CALLBACK, parse_limit,
    N_ ("query: how many files to show at most (default: 10)"), N_ ("N") },
  { "hidden", 'H', G_OPTION_FLAG_NONE, G_OPTION_ARG_NONE, &hidden, N_ ("index: hidden files, too"),
    NULL },
  { "verbose", 'v', G_OPTION_FLAG_NONE, G_OPTION_ARG_NONE, &verbose,
    N_ ("index: print each file when it is on disk or skipped; query: how well each fits"), NULL },
  { "version", '\0', G_OPTION_FLAG_NONE, G_OPTION_ARG_NONE, &version, N_ ("Print the version"),
    NULL },
  { G_OPTION_REMAINING, '\0', G_OPTION_FLAG_NONE, G_OPTION_ARG_FILENAME_ARRAY, &arguments, NULL,
    NULL },
  G_OPTION_ENTRY_NULL,
};

static int
fail (const char *message)
{
  search_print_error (message);
  return SEARCH_EXIT_FAILURE;
}

/* The folder of the default index; one that was asked for should be there. */
static gboolean
make_cache (GError **error)
{
  g_autofree char *folder = g_path_get_dirname (database);
  g_autofree char *name = g_filename_display_name (folder);
  int saved_errno;

  if (database_option != NULL || g_mkdir_with_parents (folder, 0700) == 0)
    return TRUE;

  saved_errno = errno;
  g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (saved_errno),
               _ ("The folder \"%s\" cannot be made: %s"), name, g_strerror (saved_errno));
  return FALSE;
}

static int
index_folder (void)
{
  g_autofree char *folder = g_canonicalize_filename (arguments[1], NULL);
  SearchIndexOptions options = {
    .folder = folder,
    .database = database,
    .hidden = hidden,
    .verbose = verbose,
  };
  g_autoptr (GError) error = NULL;

  if (!make_cache (&error))
    return fail (error->message);

  /* Who reads the report may have enough of it; the index is made all the same. */
  signal (SIGPIPE, SIG_IGN);
  return search_index (&options);
}

static void
print_hit (const SearchHit *hit)
{
  search_print_name (hit->name);
  printf (":%u: ", hit->line);
  search_print_snippet (hit->snippet);
  if (verbose)
    printf (" (%.3g)", hit->rank);
  putchar ('\n');
}

static void
print_more (guint n_shown, guint64 n_found)
{
  g_autofree char *shown = g_strdup_printf ("%'u", n_shown);
  g_autofree char *found = g_strdup_printf ("%'" G_GUINT64_FORMAT, n_found);
  /* Translators: of so many files that were found so many were printed */
  g_autofree char *line = g_strdup_printf (_ ("%s of %s (-n shows more)"), shown, found);

  g_printerr ("%s\n", line);
}

static int
query_words (void)
{
  g_autoptr (SearchStore) store = NULL;
  g_autoptr (GPtrArray) hits = NULL;
  g_autoptr (GError) error = NULL;
  guint64 n_found = 0;

  store = search_store_open (database, SEARCH_STORE_NONE, NULL, &error);
  if (store == NULL)
    return fail (error->message);

  hits = search_store_query (store, (const char *const *) arguments + 1, limit, &n_found, NULL,
                             &error);
  search_store_close (store, NULL);
  if (hits == NULL)
    return fail (error->message);

  for (guint i = 0; i < hits->len; i++)
    print_hit (hits->pdata[i]);
  if (hits->len == 0)
    g_printerr ("%s\n", _ ("Nothing found."));
  else if (n_found > hits->len)
    print_more (hits->len, n_found);

  return hits->len > 0 ? 0 : SEARCH_EXIT_NOTHING;
}

static int
run_command (void)
{
  guint n_arguments = arguments != NULL ? g_strv_length (arguments) : 0;

  if (n_arguments == 2 && strcmp (arguments[0], "index") == 0)
    return index_folder ();
  if (n_arguments >= 2 && strcmp (arguments[0], "query") == 0)
    return query_words ();
  /* Translators: index, query and --help are typed as they are */
  return fail (_ ("Say \"index DIR\" or \"query WORDS...\", or --help"));
}

static GOptionContext *
make_options (void)
{
  /* Translators: index and query are typed as they are */
  GOptionContext *context = g_option_context_new (N_ ("index DIR | query WORDS..."));

  g_option_context_set_summary (context, N_ ("A full-text index of a folder."));
  g_option_context_set_description (
      context,
      N_ ("A query finds the files that hold all the words. Several words in one "
          "argument follow each other.\nWrite \"--\" before words that start with a dash."));
  g_option_context_add_main_entries (context, entries, GETTEXT_PACKAGE);
  g_option_context_set_translation_domain (context, GETTEXT_PACKAGE);
  return context;
}

/* In the language of whoever runs it. */
static void
speak (void)
{
  setlocale (LC_ALL, "");
  /* What is printed is UTF-8. */
  if (!g_get_charset (NULL))
    return;

  bindtextdomain (GETTEXT_PACKAGE, LOCALE_DIR);
  textdomain (GETTEXT_PACKAGE);
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = NULL;
  g_autoptr (GError) error = NULL;
  int status;

  speak ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  /* A file size limit is a full disk, an error among others. */
  signal (SIGXFSZ, SIG_IGN);

  context = make_options ();
  if (!g_option_context_parse (context, &argc, &argv, &error))
    return fail (error->message);
  if (version)
    {
      printf ("search %s\n", VERSION);
      return 0;
    }

  database = database_option != NULL
                 ? g_canonicalize_filename (database_option, NULL)
                 : g_build_filename (g_get_user_cache_dir (), "bgloop-search", "index.db", NULL);
  status = run_command ();
  if (fflush (stdout) != 0 || ferror (stdout))
    status = fail (_ ("The output cannot be written"));

  g_free (database);
  g_free (database_option);
  g_strfreev (arguments);
  return status;
}
