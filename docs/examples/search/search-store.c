/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-store.h"

#include <bgloop/bgloop.h>
#include <glib/gi18n.h>

/**
 * SearchStore:
 *
 * A full-text index in a file, for use from any thread.
 *
 * The database connection lives on a #BgLoop of the store's own and is touched
 * by no other thread: it is opened there, used there, and closed there when the
 * loop ends. Everything a caller asks for is a piece of work for the loop, so a
 * store needs no lock, and the blocking and the asynchronous function of a name
 * share the function that runs there.
 *
 * Everything that was accepted has one outcome. An add that answers %TRUE is on
 * disk; search_store_close() returns after the last of them. Dropping the last
 * reference without closing loses nothing either, but nobody waits for it.
 */

/* What lives on the loop. Its thread alone looks inside, and frees it when
 * nothing that was queued can reach it any more; so it is not in the store,
 * whose last reference may go earlier. */
typedef struct
{
  SearchDatabase *database; /* (owned) */
  GPtrArray *uncommitted;   /* (owned) (element-type GTask): adds that wait for the commit */
} Backend;

struct _SearchStore
{
  GObject parent_instance;

  /* immutable */
  BgLoop *loop;     /* (owned) */
  Backend *backend; /* (unowned): the loop owns it */
};

G_DEFINE_FINAL_TYPE (SearchStore, search_store, G_TYPE_OBJECT)

static void
search_store_finalize (GObject *object)
{
  SearchStore *self = SEARCH_STORE (object);

  /* Never waits: a loop that nobody refers to ends by itself. */
  g_clear_object (&self->loop);

  G_OBJECT_CLASS (search_store_parent_class)->finalize (object);
}

static void
search_store_class_init (SearchStoreClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = search_store_finalize;
}

static void
search_store_init (SearchStore *self)
{
}

static void
close_backend (gpointer user_data)
{
  Backend *backend = user_data;

  g_ptr_array_unref (backend->uncommitted);
  search_database_free (backend->database);
  g_free (backend);
}

typedef struct
{
  SearchStore *store; /* (owned) */
  char *path;
  SearchStoreFlags flags;
  GError *error; /* (nullable): while a store that could not open closes */
} Opening;

static void
opening_free (Opening *opening)
{
  g_clear_object (&opening->store);
  g_clear_error (&opening->error);
  g_free (opening->path);
  g_free (opening);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Opening, opening_free)

static Opening *
opening_new (const char *path, SearchStoreFlags flags, GError **error)
{
  g_autoptr (Opening) opening = g_new0 (Opening, 1);

  opening->store = g_object_new (SEARCH_TYPE_STORE, NULL);
  opening->path = g_strdup (path);
  opening->flags = flags;
  opening->store->loop = bg_loop_new ("search-store", error);

  return opening->store->loop != NULL ? g_steal_pointer (&opening) : NULL;
}

/* On the loop's thread, which also closes what it opens here. */
static gboolean
open_backend (gpointer user_data, GError **error)
{
  Opening *opening = user_data;
  g_autoptr (SearchDatabase) database = search_database_open (opening->path, opening->flags, error);
  Backend *backend;

  if (database == NULL)
    return FALSE;

  backend = g_new0 (Backend, 1);
  backend->database = g_steal_pointer (&database);
  backend->uncommitted = g_ptr_array_new_with_free_func (g_object_unref);
  if (bg_loop_add_teardown (opening->store->loop, close_backend, backend, NULL) == 0)
    {
      close_backend (backend);
      g_set_error_literal (error, BG_ERROR, BG_ERROR_CLOSED, _ ("The store is already closing"));
      return FALSE;
    }

  opening->store->backend = backend;
  return TRUE;
}

/**
 * search_store_open: (constructor)
 * @path: (type filename): the file
 * @flags: whether to make one
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Opens an index. Blocks.
 *
 * Returns: (transfer full): a store
 */
SearchStore *
search_store_open (const char *path,
                   SearchStoreFlags flags,
                   GCancellable *cancellable,
                   GError **error)
{
  g_autoptr (Opening) opening = NULL;

  g_return_val_if_fail (path != NULL, NULL);

  opening = opening_new (path, flags, error);
  if (opening == NULL)
    return NULL;

  if (!bg_loop_call (opening->store->loop, open_backend, opening, cancellable, error))
    {
      bg_loop_shutdown (opening->store->loop, NULL);
      return NULL;
    }
  return g_steal_pointer (&opening->store);
}

static void
open_failed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  Opening *opening = g_task_get_task_data (task);

  bg_loop_shutdown_finish (BG_LOOP (source), result, NULL);
  g_task_return_error (task, g_steal_pointer (&opening->error));
}

static void
opened_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  Opening *opening = g_task_get_task_data (task);

  if (bg_loop_call_finish (BG_LOOP (source), result, &opening->error))
    g_task_return_pointer (task, g_steal_pointer (&opening->store), g_object_unref);
  else
    bg_loop_shutdown_async (BG_LOOP (source), BG_SHUTDOWN_DRAIN, -1, NULL, open_failed_cb,
                            g_steal_pointer (&task));
}

/**
 * search_store_open_async:
 * @path: (type filename): the file
 * @flags: whether to make one
 * @cancellable: (nullable): a cancellable
 * @callback: called in the caller's thread-default context
 * @user_data: for @callback
 *
 * Opens an index, without blocking.
 */
void
search_store_open_async (const char *path,
                         SearchStoreFlags flags,
                         GCancellable *cancellable,
                         GAsyncReadyCallback callback,
                         gpointer user_data)
{
  g_autoptr (GTask) task = NULL;
  GError *error = NULL;
  Opening *opening;

  g_return_if_fail (path != NULL);

  task = g_task_new (NULL, cancellable, callback, user_data);
  g_task_set_source_tag (task, search_store_open_async);
  opening = opening_new (path, flags, &error);
  if (opening == NULL)
    {
      g_task_return_error (task, error);
      return;
    }

  g_task_set_check_cancellable (task, FALSE);
  g_task_set_task_data (task, opening, (GDestroyNotify) opening_free);
  bg_loop_call_async (opening->store->loop, G_PRIORITY_DEFAULT, -1, open_backend, opening, NULL,
                      cancellable, opened_cb, g_steal_pointer (&task));
}

/**
 * search_store_open_finish: (constructor)
 * @result: what the callback was given
 * @error: return location for an error
 *
 * Ends search_store_open_async().
 *
 * Returns: (transfer full): a store
 */
SearchStore *
search_store_open_finish (GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, NULL), NULL);

  return g_task_propagate_pointer (G_TASK (result), error);
}

typedef struct
{
  BgLoop *loop;     /* (owned): a caller who cancels may drop the store meanwhile */
  Backend *backend; /* (unowned) */
  char *name;
  SearchStamp stamp;
  gboolean stamped;
  gboolean removes;
  GBytes *text; /* (nullable): freed as soon as it is in the database */
} Add;

static Add *
add_new (SearchStore *self, const char *name, const SearchStamp *stamp, GBytes *text)
{
  Add *add = g_new0 (Add, 1);

  add->loop = g_object_ref (self->loop);
  add->backend = self->backend;
  add->name = g_strdup (name);
  if (stamp != NULL)
    add->stamp = *stamp;
  add->stamped = stamp != NULL;
  add->removes = text == NULL && stamp == NULL;
  add->text = text != NULL ? g_bytes_ref (text) : NULL;

  return add;
}

static void
add_free (Add *add)
{
  g_clear_pointer (&add->text, g_bytes_unref);
  g_clear_object (&add->loop);
  g_free (add->name);
  g_free (add);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Add, add_free)

static void
answer_adds (Backend *backend, const GError *error)
{
  g_autoptr (GPtrArray) tasks = backend->uncommitted;

  backend->uncommitted = g_ptr_array_new_with_free_func (g_object_unref);
  for (guint i = 0; i < tasks->len; i++)
    {
      if (error != NULL)
        g_task_return_error (tasks->pdata[i], g_error_copy (error));
      else
        g_task_return_boolean (tasks->pdata[i], TRUE);
    }
}

static void
commit (gpointer user_data)
{
  Backend *backend = user_data;
  g_autoptr (GError) error = NULL;

  if (backend->uncommitted->len == 0)
    return;

  search_database_commit (backend->database, &error);
  answer_adds (backend, error);
}

/* On the loop's thread: an operation that answers when its file is on disk.
 *
 * The first add of a transaction posts the commit behind all the work that is
 * already waiting, so the more there is to do, the more goes into one commit.
 * The loop waits for operations before it ends, so a shutdown comes after the
 * commit, and the commit is the destroy notify, too, so that even a loop that
 * takes no more work or drops what is queued gives each add its answer. */
static gboolean
begin_add (gpointer user_data,
           GCancellable *cancellable,
           GAsyncReadyCallback callback,
           gpointer callback_data,
           GError **error)
{
  Add *add = user_data;
  Backend *backend = add->backend;
  g_autoptr (GError) add_error = NULL;

  g_ptr_array_add (backend->uncommitted, g_task_new (NULL, NULL, callback, callback_data));

  if (!(add->removes
            ? search_database_remove (backend->database, add->name, &add_error)
            : search_database_add (backend->database, add->name, add->stamped ? &add->stamp : NULL,
                                   add->text, &add_error)))
    answer_adds (backend, add_error);
  else if (backend->uncommitted->len == 1)
    bg_loop_post_full (add->loop, G_PRIORITY_LOW, commit, backend, commit);

  g_clear_pointer (&add->text, g_bytes_unref);
  return TRUE;
}

/**
 * search_store_add:
 * @self: a store
 * @name: (type filename): the name of the file
 * @stamp: (nullable): which file it is, for search_store_list_async()
 * @text: (nullable): what is in it, in UTF-8; %NULL takes it out of the index, in which only the
 *   @stamp stays, if there is one
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Puts a file into the index, in place of what was there under its name.
 * Blocks until it is on disk.
 *
 * The index stays as it was if there is an error. An add that is cancelled
 * after it began may still end up in the index.
 *
 * Returns: %TRUE if the file is on disk
 */
gboolean
search_store_add (SearchStore *self,
                  const char *name,
                  const SearchStamp *stamp,
                  GBytes *text,
                  GCancellable *cancellable,
                  GError **error)
{
  g_autoptr (Add) add = NULL;
  g_autoptr (GAsyncResult) result = NULL;

  g_return_val_if_fail (SEARCH_IS_STORE (self), FALSE);
  g_return_val_if_fail (name != NULL, FALSE);

  add = add_new (self, name, stamp, text);
  result = bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, -1, begin_add, add, cancellable, error);
  return result != NULL && g_task_propagate_boolean (G_TASK (result), error);
}

static void
added_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  g_autoptr (GAsyncResult) answer = NULL;
  GError *error = NULL;

  answer = bg_loop_perform_finish (BG_LOOP (source), result, &error);
  if (answer != NULL && g_task_propagate_boolean (G_TASK (answer), &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, error);
}

/**
 * search_store_add_async:
 * @self: a store
 * @name: (type filename): the name of the file
 * @stamp: (nullable): which file it is, for search_store_list_async()
 * @text: (nullable): what is in it, in UTF-8; %NULL takes it out of the index, in which only the
 *   @stamp stays, if there is one
 * @cancellable: (nullable): a cancellable
 * @callback: called in the caller's thread-default context
 * @user_data: for @callback
 *
 * Puts a file into the index, as search_store_add() does, without blocking.
 *
 * Many may be on their way at once, and should: they share transactions.
 */
void
search_store_add_async (SearchStore *self,
                        const char *name,
                        const SearchStamp *stamp,
                        GBytes *text,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer user_data)
{
  GTask *task;

  g_return_if_fail (SEARCH_IS_STORE (self));
  g_return_if_fail (name != NULL);

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, search_store_add_async);
  g_task_set_check_cancellable (task, FALSE);
  bg_loop_perform_async (self->loop, G_PRIORITY_DEFAULT, -1, begin_add,
                         add_new (self, name, stamp, text), (GDestroyNotify) add_free, cancellable,
                         added_cb, task);
}

/**
 * search_store_add_finish:
 * @self: a store
 * @result: what the callback was given
 * @error: return location for an error
 *
 * Ends search_store_add_async().
 *
 * Returns: %TRUE if the file is on disk
 */
gboolean
search_store_add_finish (SearchStore *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

typedef struct
{
  Backend *backend; /* (unowned) */
  char **words;
  guint limit;
  GPtrArray *hits; /* (nullable): the answer, */
  guint64 n_found; /* of so many */
} Query;

static Query *
query_new (SearchStore *self, const char *const *words, guint limit)
{
  Query *query = g_new0 (Query, 1);

  query->backend = self->backend;
  query->words = g_strdupv ((char **) words);
  query->limit = limit;

  return query;
}

static void
query_free (Query *query)
{
  g_clear_pointer (&query->hits, g_ptr_array_unref);
  g_strfreev (query->words);
  g_free (query);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Query, query_free)

/* On the loop's thread. */
static gboolean
run_query (gpointer user_data, GError **error)
{
  Query *query = user_data;

  query->hits = search_database_query (query->backend->database, (const char *const *) query->words,
                                       query->limit, &query->n_found, error);
  return query->hits != NULL;
}

/**
 * search_store_query:
 * @self: a store
 * @words: (array zero-terminated=1): what to look for: each a word, or several
 *   that follow each other; nothing in them is syntax
 * @limit: how many files to give at most
 * @n_found: (out) (optional): how many there are
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Finds the files that hold all of @words, the best first. Blocks.
 *
 * Returns: (transfer container) (element-type SearchHit): the hits, which may be none
 */
GPtrArray *
search_store_query (SearchStore *self,
                    const char *const *words,
                    guint limit,
                    guint64 *n_found,
                    GCancellable *cancellable,
                    GError **error)
{
  g_autoptr (Query) query = NULL;

  g_return_val_if_fail (SEARCH_IS_STORE (self), NULL);
  g_return_val_if_fail (words != NULL, NULL);

  query = query_new (self, words, limit);
  if (!bg_loop_call (self->loop, run_query, query, cancellable, error))
    return NULL;
  if (n_found != NULL)
    *n_found = query->n_found;
  return g_steal_pointer (&query->hits);
}

static void
queried_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  Query *query = g_task_get_task_data (task);
  GError *error = NULL;

  if (bg_loop_call_finish (BG_LOOP (source), result, &error))
    g_task_return_pointer (task, g_steal_pointer (&query->hits),
                           (GDestroyNotify) g_ptr_array_unref);
  else
    g_task_return_error (task, error);
}

/**
 * search_store_query_async:
 * @self: a store
 * @words: (array zero-terminated=1): what to look for
 * @limit: how many files to give at most
 * @cancellable: (nullable): a cancellable
 * @callback: called in the caller's thread-default context
 * @user_data: for @callback
 *
 * Finds files, as search_store_query() does, without blocking.
 */
void
search_store_query_async (SearchStore *self,
                          const char *const *words,
                          guint limit,
                          GCancellable *cancellable,
                          GAsyncReadyCallback callback,
                          gpointer user_data)
{
  GTask *task;
  Query *query;

  g_return_if_fail (SEARCH_IS_STORE (self));
  g_return_if_fail (words != NULL);

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, search_store_query_async);
  query = query_new (self, words, limit);
  g_task_set_task_data (task, query, (GDestroyNotify) query_free);
  bg_loop_call_async (self->loop, G_PRIORITY_DEFAULT, -1, run_query, query, NULL, cancellable,
                      queried_cb, task);
}

/**
 * search_store_query_finish:
 * @self: a store
 * @result: what the callback was given
 * @n_found: (out) (optional): how many there are
 * @error: return location for an error
 *
 * Ends search_store_query_async().
 *
 * Returns: (transfer container) (element-type SearchHit): the hits, which may be none
 */
GPtrArray *
search_store_query_finish (SearchStore *self,
                           GAsyncResult *result,
                           guint64 *n_found,
                           GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), NULL);

  if (n_found != NULL)
    *n_found = ((Query *) g_task_get_task_data (G_TASK (result)))->n_found;
  return g_task_propagate_pointer (G_TASK (result), error);
}

typedef struct
{
  Backend *backend; /* (unowned) */
  char *folder;
} Listing;

static void
listing_free (Listing *listing)
{
  g_free (listing->folder);
  g_free (listing);
}

/* On the loop's thread. */
static void
run_listing (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  Listing *listing = task_data;
  GError *error = NULL;
  GHashTable *files = search_database_list (listing->backend->database, listing->folder, &error);

  if (files != NULL)
    g_task_return_pointer (task, files, (GDestroyNotify) g_hash_table_unref);
  else
    g_task_return_error (task, error);
}

/**
 * search_store_list_async:
 * @self: a store
 * @folder: (type filename): a folder
 * @cancellable: (nullable): a cancellable
 * @callback: called in the caller's thread-default context
 * @user_data: for @callback
 *
 * Lists the files in a folder and below that are in the index, without blocking.
 */
void
search_store_list_async (SearchStore *self,
                         const char *folder,
                         GCancellable *cancellable,
                         GAsyncReadyCallback callback,
                         gpointer user_data)
{
  g_autoptr (GTask) task = NULL;
  Listing *listing;

  g_return_if_fail (SEARCH_IS_STORE (self));
  g_return_if_fail (folder != NULL);

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, search_store_list_async);
  listing = g_new0 (Listing, 1);
  listing->backend = self->backend;
  listing->folder = g_strdup (folder);
  g_task_set_task_data (task, listing, (GDestroyNotify) listing_free);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, run_listing);
}

/**
 * search_store_list_finish:
 * @self: a store
 * @result: what the callback was given
 * @error: return location for an error
 *
 * Ends search_store_list_async().
 *
 * Returns: (element-type filename SearchStamp) (transfer full): the files, and their stamps;
 *   -1 and -1 of one that was added without
 */
GHashTable *
search_store_list_finish (SearchStore *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), NULL);

  return g_task_propagate_pointer (G_TASK (result), error);
}

typedef struct
{
  Backend *backend; /* (unowned) */
  guint64 count;
} Count;

static gboolean
run_count (gpointer user_data, GError **error)
{
  Count *count = user_data;

  return search_database_count (count->backend->database, &count->count, error);
}

/**
 * search_store_count:
 * @self: a store
 * @count: (out): the number
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Counts the files in the index. Blocks.
 *
 * Returns: %TRUE on success
 */
gboolean
search_store_count (SearchStore *self, guint64 *count, GCancellable *cancellable, GError **error)
{
  Count answer;

  g_return_val_if_fail (SEARCH_IS_STORE (self), FALSE);
  g_return_val_if_fail (count != NULL, FALSE);

  answer = (Count){ .backend = self->backend };
  if (!bg_loop_call (self->loop, run_count, &answer, cancellable, error))
    return FALSE;
  *count = answer.count;
  return TRUE;
}

/**
 * search_store_close:
 * @self: a store
 * @error: return location for an error
 *
 * Closes an index. Blocks until everything that was accepted is done, and the
 * connection and its thread are gone.
 *
 * What comes later answers %BG_ERROR_CLOSED. Closing twice does no harm.
 *
 * Returns: %TRUE if the store is closed
 */
gboolean
search_store_close (SearchStore *self, GError **error)
{
  g_return_val_if_fail (SEARCH_IS_STORE (self), FALSE);

  return bg_loop_shutdown (self->loop, error);
}

static void
closed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  GError *error = NULL;

  if (bg_loop_shutdown_finish (BG_LOOP (source), result, &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, error);
}

/**
 * search_store_close_async:
 * @self: a store
 * @cancellable: (nullable): ends the waiting, not the closing
 * @callback: called in the caller's thread-default context
 * @user_data: for @callback
 *
 * Closes an index, as search_store_close() does, without blocking.
 */
void
search_store_close_async (SearchStore *self,
                          GCancellable *cancellable,
                          GAsyncReadyCallback callback,
                          gpointer user_data)
{
  GTask *task;

  g_return_if_fail (SEARCH_IS_STORE (self));

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, search_store_close_async);
  bg_loop_shutdown_async (self->loop, BG_SHUTDOWN_DRAIN, -1, cancellable, closed_cb, task);
}

/**
 * search_store_close_finish:
 * @self: a store
 * @result: what the callback was given
 * @error: return location for an error
 *
 * Ends search_store_close_async().
 *
 * Returns: %TRUE if the store is closed
 */
gboolean
search_store_close_finish (SearchStore *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}
