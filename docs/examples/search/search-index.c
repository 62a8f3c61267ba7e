/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-index.h"

#include <bgloop/bgloop.h>
#include <glib-unix.h>
#include <glib/gi18n.h>
#include <stdio.h>
#include <string.h>

#include "search-progress.h"
#include "search-reader.h"
#include "search-store.h"
#include "search-terminal.h"

/* So much is on its way at once, between the folder and the disk. */
#define MAX_IN_FLIGHT       256
#define MAX_BYTES_IN_FLIGHT (8 * SEARCH_READER_LIMIT)

/* So many are taken from a folder at once. */
#define FILES_PER_LISTING 100

/* The summary names so many of the files that were skipped for one reason. */
#define MAX_NAMES 5

#define TICK_MSEC 100

#define FILE_ATTRIBUTES                                                                            \
  G_FILE_ATTRIBUTE_STANDARD_NAME                                                                   \
  "," G_FILE_ATTRIBUTE_STANDARD_TYPE "," G_FILE_ATTRIBUTE_STANDARD_SIZE                            \
  "," G_FILE_ATTRIBUTE_TIME_MODIFIED "," G_FILE_ATTRIBUTE_TIME_MODIFIED_USEC

/* A file, from when it is found until it has its outcome. */
typedef struct
{
  struct _Indexer *indexer;
  char *path;
  SearchStamp stamp;
} Item;

/* All of it belongs to the main thread, which never blocks: what does is done
 * by GIO's threads and by the store's loop. */
typedef struct _Indexer
{
  const SearchIndexOptions *options;
  GFile *root;
  GMainLoop *main_loop;
  GCancellable *cancellable; /* ends the walk and the reading, not the store */
  SearchProgress *progress;
  SearchStore *store; /* (nullable): until it is open */

  GQueue folders;    /* (element-type GFile): to be listed */
  GQueue files;      /* (element-type Item): to be read */
  GHashTable *known; /* (element-type filename SearchStamp) (nullable): what the index has and has
                      * not been found yet, as it was */
  gboolean opening;
  gboolean listing;
  gboolean listing_cut; /* the last one did not come to its end */
  gboolean removing;    /* what has gone */
  gboolean closing;
  guint in_flight; /* being read or on the way into the store */
  goffset bytes_in_flight;

  gint64 started;
  guint found;
  guint indexed;
  guint unchanged; /* since the last run, and not read again */
  guint removed;
  guint skipped[SEARCH_N_SKIPS];
  GPtrArray *names[SEARCH_N_SKIPS]; /* (element-type filename): some of them */

  int signal;    /* that interrupted it; 0: none */
  GError *error; /* (nullable): why it stopped before its end */
} Indexer;

static void pump (Indexer *self);

static void
item_free (Item *item)
{
  g_free (item->path);
  g_free (item);
}

static void
report (Indexer *self, const char *outcome, const char *path, const char *detail)
{
  if (!self->options->verbose)
    return;

  search_progress_clear (self->progress);
  printf ("%s ", outcome);
  search_print_name (path);
  if (detail != NULL)
    {
      /* Translators: after the name of a file, why it was skipped */
      printf (_ (": %s"), detail);
    }
  putchar ('\n');
}

static void
skip (Indexer *self, SearchSkip reason, const char *path)
{
  self->skipped[reason]++;
  if (self->names[reason]->len < MAX_NAMES)
    g_ptr_array_add (self->names[reason], g_strdup (path));
  /* Translators: before the name of a file, after which the reason comes */
  report (self, _ ("skipped"), path, search_skip_describe (reason));
}

static guint
count_skipped (Indexer *self)
{
  guint count = 0;

  for (guint i = 0; i < SEARCH_N_SKIPS; i++)
    count += self->skipped[i];
  return count;
}

/* Ends before everything is done. What the store has accepted goes on. */
static void
stop (Indexer *self, GError *error)
{
  if (self->error == NULL && self->signal == 0)
    self->error = error;
  else
    g_clear_error (&error);
  g_cancellable_cancel (self->cancellable);
}

static gboolean
is_stopping (Indexer *self)
{
  return g_cancellable_is_cancelled (self->cancellable);
}

static gboolean
has_text (const SearchStamp *known)
{
  return known != NULL && known->reason == 0;
}

static void
item_end (Item *item)
{
  Indexer *self = item->indexer;

  self->in_flight--;
  self->bytes_in_flight -= item->stamp.size;
  item_free (item);
  pump (self);
}

static void
added (Item *item)
{
  Indexer *self = item->indexer;

  if (item->stamp.reason != 0)
    {
      self->removed += has_text (g_hash_table_lookup (self->known, item->path));
    }
  else
    {
      self->indexed++;
      /* Translators: before the name of a file that is in the index now */
      report (self, _ ("indexed"), item->path, NULL);
    }
  g_hash_table_remove (self->known, item->path);
}

static void
added_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Item *item = user_data;
  Indexer *self = item->indexer;
  GError *error = NULL;

  if (search_store_add_finish (SEARCH_STORE (source), result, &error))
    added (item);
  else if (g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    g_clear_error (&error); /* read too late for a store that closes */
  else
    stop (self, error);

  item_end (item);
}

static void
read_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Item *item = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) text = search_read_text_finish (result, &error);

  if (text == NULL && error->domain == SEARCH_SKIP)
    {
      skip (item->indexer, error->code, item->path);
      if (search_skip_is_for_content (error->code))
        item->stamp.reason = error->code;
    }

  if (text != NULL || item->stamp.reason != 0)
    search_store_add_async (item->indexer->store, item->path, &item->stamp, text, NULL, added_cb,
                            item);
  else
    item_end (item);
}

static gboolean
has_room (Indexer *self, const Item *item)
{
  return self->in_flight == 0
         || (self->in_flight < MAX_IN_FLIGHT
             && self->bytes_in_flight + item->stamp.size <= MAX_BYTES_IN_FLIGHT);
}

static void
read_files (Indexer *self)
{
  Item *item;

  while ((item = g_queue_peek_head (&self->files)) != NULL && has_room (self, item))
    {
      g_queue_pop_head (&self->files);
      self->in_flight++;
      self->bytes_in_flight += item->stamp.size;
      search_read_text_async (item->path, self->cancellable, read_cb, item);
    }
}

/* Whether the index knows the file as it is. Then it is done with. */
static gboolean
take_unchanged (Indexer *self, const char *path, const SearchStamp *stamp)
{
  const SearchStamp *known = g_hash_table_lookup (self->known, path);

  if (known == NULL || known->size != stamp->size || known->changed_at != stamp->changed_at)
    return FALSE;

  if (known->reason != 0)
    skip (self, known->reason, path);
  else
    {
      self->unchanged++;
      /* Translators: before the name of a file that was in the index, as it is now */
      report (self, _ ("unchanged"), path, NULL);
    }
  g_hash_table_remove (self->known, path);
  return TRUE;
}

static void
find (Indexer *self, GFile *folder, GFileInfo *info)
{
  g_autoptr (GFile) file = g_file_get_child (folder, g_file_info_get_name (info));
  g_autofree char *path = g_file_get_path (file);
  GFileType type = g_file_info_get_file_type (info);
  g_autoptr (GDateTime) changed = g_file_info_get_modification_date_time (info);
  SearchStamp stamp = { g_file_info_get_size (info), -1, 0 };
  Item *item;

  if (changed != NULL)
    stamp.changed_at
        = g_date_time_to_unix (changed) * G_USEC_PER_SEC + g_date_time_get_microsecond (changed);

  if (!self->options->hidden && *g_file_info_get_name (info) == '.')
    skip (self, SEARCH_SKIP_HIDDEN, path);
  else if (type == G_FILE_TYPE_DIRECTORY)
    {
      g_queue_push_tail (&self->folders, g_steal_pointer (&file));
      return;
    }
  else if (type == G_FILE_TYPE_SYMBOLIC_LINK)
    skip (self, SEARCH_SKIP_SYMLINK, path);
  else if (type != G_FILE_TYPE_REGULAR)
    skip (self, SEARCH_SKIP_SPECIAL, path);
  else if (stamp.size > SEARCH_READER_LIMIT)
    skip (self, SEARCH_SKIP_HUGE, path);
  else if (!take_unchanged (self, path, &stamp))
    {
      item = g_new0 (Item, 1);
      item->indexer = self;
      item->path = g_steal_pointer (&path);
      item->stamp = stamp;
      g_queue_push_tail (&self->files, item);
    }
  self->found++;
}

static gboolean
is_below (gpointer path, gpointer stamp, gpointer folder)
{
  gsize length = strlen (folder);

  return strncmp (path, folder, length) == 0 && ((char *) path)[length] == '/';
}

/* A folder is listed to its end, or cannot be. One that is to be indexed has to be there, unless
 * what has gone with it is still in the index. */
static void
listing_end (Indexer *self, GFile *folder, GError *error)
{
  g_autofree char *path = g_file_get_path (folder);
  gboolean gone = g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
                  || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_DIRECTORY);

  self->listing = FALSE;
  self->listing_cut = g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  if (error == NULL || self->listing_cut)
    g_clear_error (&error);
  else if (g_file_equal (folder, self->root) && (!gone || g_hash_table_size (self->known) == 0))
    stop (self, error);
  else
    {
      self->found++;
      /* What cannot be seen has not gone. */
      if (!gone)
        g_hash_table_foreach_remove (self->known, is_below, path);
      skip (self, gone ? SEARCH_SKIP_VANISHED : SEARCH_SKIP_UNREADABLE, path);
      g_clear_error (&error);
    }
  pump (self);
}

static void
listed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GFileEnumerator *enumerator = G_FILE_ENUMERATOR (source);
  GFile *folder = g_file_enumerator_get_container (enumerator);
  GError *error = NULL;
  GList *infos = g_file_enumerator_next_files_finish (enumerator, result, &error);

  if (infos == NULL)
    {
      listing_end (self, folder, error);
      return;
    }

  for (GList *l = infos; l != NULL; l = l->next)
    find (self, folder, l->data);
  g_list_free_full (infos, g_object_unref);

  g_file_enumerator_next_files_async (enumerator, FILES_PER_LISTING, G_PRIORITY_DEFAULT,
                                      self->cancellable, listed_cb, self);
  pump (self);
}

static void
enumerated_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GFile *folder = G_FILE (source);
  GError *error = NULL;
  g_autoptr (GFileEnumerator) enumerator = NULL;

  enumerator = g_file_enumerate_children_finish (folder, result, &error);
  if (enumerator == NULL)
    listing_end (self, folder, error);
  else
    g_file_enumerator_next_files_async (enumerator, FILES_PER_LISTING, G_PRIORITY_DEFAULT,
                                        self->cancellable, listed_cb, self);
}

static void
list_folder (Indexer *self)
{
  g_autoptr (GFile) folder = g_queue_pop_head (&self->folders);

  if (folder == NULL)
    return;

  /* Links are not followed, so no circle of them is walked. */
  self->listing = TRUE;
  g_file_enumerate_children_async (folder, FILE_ATTRIBUTES, G_FILE_QUERY_INFO_NOFOLLOW_SYMLINKS,
                                   G_PRIORITY_DEFAULT, self->cancellable, enumerated_cb, self);
}

static void
closed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GError *error = NULL;

  if (!search_store_close_finish (SEARCH_STORE (source), result, &error))
    stop (self, error);
  g_clear_object (&self->store);
  pump (self);
}

static void
removed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GError *error = NULL;

  if (search_store_add_finish (SEARCH_STORE (source), result, &error)
      || g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    g_clear_error (&error);
  else
    stop (self, error);

  self->in_flight--;
  pump (self);
}

/* What was known and has not been found, now that all of the folder was seen. */
static void
remove_gone (Indexer *self)
{
  GHashTableIter iter;
  gpointer path, stamp;

  self->removing = TRUE;
  g_hash_table_iter_init (&iter, self->known);
  while (g_hash_table_iter_next (&iter, &path, &stamp))
    {
      self->removed += has_text (stamp);
      self->in_flight++;
      search_store_add_async (self->store, path, NULL, NULL, NULL, removed_cb, self);
    }
}

/* Starts whatever can be started now. Each callback ends here. */
static void
pump (Indexer *self)
{
  gboolean all_done;

  if (self->opening)
    return;

  if (!is_stopping (self))
    {
      if (!self->listing)
        list_folder (self);
      read_files (self);
    }

  all_done = !self->listing && self->in_flight == 0
             && (is_stopping (self) || g_queue_is_empty (&self->files));
  if (all_done && !is_stopping (self) && !self->removing)
    {
      remove_gone (self);
      all_done = self->in_flight == 0;
    }

  if (self->store != NULL && !self->closing && (all_done || is_stopping (self)))
    {
      self->closing = TRUE;
      search_store_close_async (self->store, NULL, closed_cb, self);
    }
  else if (self->store == NULL && all_done)
    g_main_loop_quit (self->main_loop);
}

static void
known_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GError *error = NULL;

  self->opening = FALSE;
  self->known = search_store_list_finish (SEARCH_STORE (source), result, &error);
  if (self->known == NULL)
    stop (self, error);
  else
    g_queue_push_tail (&self->folders, g_object_ref (self->root));
  pump (self);
}

static void
opened_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Indexer *self = user_data;
  GError *error = NULL;

  self->store = search_store_open_finish (result, &error);
  if (self->store != NULL)
    {
      search_store_list_async (self->store, self->options->folder, NULL, known_cb, self);
      return;
    }

  self->opening = FALSE;
  stop (self, error);
  pump (self);
}

static gboolean
interrupt (Indexer *self, int signal)
{
  if (!is_stopping (self))
    {
      self->signal = signal;
      stop (self, NULL);
      pump (self);
    }
  return G_SOURCE_CONTINUE;
}

static gboolean
sigint_cb (gpointer user_data)
{
  return interrupt (user_data, SIGINT);
}

static gboolean
sigterm_cb (gpointer user_data)
{
  return interrupt (user_data, SIGTERM);
}

static gboolean
tick_cb (gpointer user_data)
{
  Indexer *self = user_data;

  search_progress_set (self->progress, self->indexed + self->unchanged + count_skipped (self),
                       self->found, !self->listing && g_queue_is_empty (&self->folders));
  return G_SOURCE_CONTINUE;
}

static void
print_more_skipped (guint n)
{
  fputs ("    ", stdout);
  printf (ngettext ("... and %u more (--verbose names them all)",
                    "... and %u more (--verbose names them all)", n),
          n);
  putchar ('\n');
}

static void
print_skipped (Indexer *self)
{
  guint n_skipped = count_skipped (self);

  if (n_skipped == 0)
    return;

  /* Translators: so many files; the reasons follow */
  printf (ngettext ("Skipped %u:", "Skipped %u:", n_skipped), n_skipped);
  putchar ('\n');
  for (guint i = 0; i < SEARCH_N_SKIPS; i++)
    {
      GPtrArray *names = self->names[i];

      if (self->skipped[i] == 0)
        continue;
      fputs ("  ", stdout);
      /* Translators: why files were skipped, and how many */
      printf (_ ("%s: %u"), search_skip_describe (i), self->skipped[i]);
      putchar ('\n');
      for (guint j = 0; j < names->len && !self->options->verbose; j++)
        {
          fputs ("    ", stdout);
          search_print_name (names->pdata[j]);
          putchar ('\n');
        }
      if (self->skipped[i] > names->len && !self->options->verbose)
        print_more_skipped (self->skipped[i] - names->len);
    }
}

static void
print_success (Indexer *self, double seconds)
{
  printf (ngettext ("Indexed %u file in %.1f seconds", "Indexed %u files in %.1f seconds",
                    self->indexed),
          self->indexed, seconds);
  if (self->unchanged > 0)
    printf (ngettext (", %u unchanged", ", %u unchanged", self->unchanged), self->unchanged);
  if (self->removed > 0)
    printf (ngettext (", %u gone", ", %u gone", self->removed), self->removed);
  /* Translators: at the end of a sentence */
  printf ("%s\n", _ ("."));
}

/* It was interrupted, or failed. */
static void
print_partly (Indexer *self)
{
  guint skipped = count_skipped (self);
  guint left = self->found - self->indexed - self->unchanged - skipped;
  gboolean walked = !self->listing_cut && g_queue_is_empty (&self->folders);

  printf ("%s ", self->signal != 0 ? _ ("Interrupted:") : _ ("Failed:"));
  printf (ngettext ("%u indexed", "%u indexed", self->indexed), self->indexed);
  printf (ngettext (", %u skipped", ", %u skipped", skipped), skipped);
  printf (ngettext (", %u found and not indexed", ", %u found and not indexed", left), left);
  if (!walked)
    fputs (_ ("; there is more in the folder"), stdout);
  printf ("%s\n", _ ("."));
}

/* Returns: the exit status */
static int
print_summary (Indexer *self)
{
  double seconds = (g_get_monotonic_time () - self->started) / (double) G_USEC_PER_SEC;

  search_progress_clear (self->progress);
  print_skipped (self);

  if (self->signal != 0 || (self->error != NULL && self->found > 0))
    print_partly (self);
  else if (self->error == NULL)
    print_success (self, seconds);
  fflush (stdout);

  if (self->error != NULL)
    search_print_error (self->error->message);
  if (self->signal != 0)
    return SEARCH_EXIT_SIGNAL + self->signal;
  return self->error != NULL ? SEARCH_EXIT_FAILURE : 0;
}

static void
indexer_init (Indexer *self, const SearchIndexOptions *options)
{
  self->options = options;
  self->root = g_file_new_for_path (options->folder);
  self->main_loop = g_main_loop_new (NULL, FALSE);
  self->cancellable = g_cancellable_new ();
  self->progress = search_progress_new ();
  self->started = g_get_monotonic_time ();
  for (guint i = 0; i < SEARCH_N_SKIPS; i++)
    self->names[i] = g_ptr_array_new_with_free_func (g_free);
}

static void
indexer_clear (Indexer *self)
{
  g_clear_object (&self->root);
  g_clear_pointer (&self->known, g_hash_table_unref);
  g_clear_pointer (&self->main_loop, g_main_loop_unref);
  g_clear_object (&self->cancellable);
  g_clear_pointer (&self->progress, search_progress_free);
  g_queue_clear_full (&self->folders, g_object_unref);
  g_queue_clear_full (&self->files, (GDestroyNotify) item_free);
  for (guint i = 0; i < SEARCH_N_SKIPS; i++)
    g_clear_pointer (&self->names[i], g_ptr_array_unref);
  g_clear_error (&self->error);
}

/* Indexes a folder, and says how it went. Returns: the exit status */
int
search_index (const SearchIndexOptions *options)
{
  Indexer self = { 0 };
  guint sources[3];
  int status;

  indexer_init (&self, options);
  sources[0] = g_unix_signal_add (SIGINT, sigint_cb, &self);
  sources[1] = g_unix_signal_add (SIGTERM, sigterm_cb, &self);
  sources[2] = g_timeout_add (TICK_MSEC, tick_cb, &self);
  if (options->verbose)
    {
      /* Translators: before the name of a folder */
      printf ("%s ", _ ("indexing"));
      search_print_name (options->folder);
      putchar ('\n');
    }

  /* Not to be cancelled: after an interruption, too, there is an index to ask. */
  self.opening = TRUE;
  search_store_open_async (options->database, SEARCH_STORE_CREATE, NULL, opened_cb, &self);
  g_main_loop_run (self.main_loop);

  status = print_summary (&self);
  for (guint i = 0; i < G_N_ELEMENTS (sources); i++)
    g_source_remove (sources[i]);
  indexer_clear (&self);
  return status;
}
