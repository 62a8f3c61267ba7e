/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* Reads and writes files on a loop: for callers that block, and for callers that
 * must not. Both share the function that begins the operation. */

#include <bgloop/bgloop.h>

#define TIMEOUT_MSEC 10000

typedef struct
{
  GFile *file;
  GBytes *contents;
} Save;

static gboolean
begin_save_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  Save *save = user_data;

  g_file_replace_contents_bytes_async (save->file, save->contents, NULL, FALSE,
                                       G_FILE_CREATE_REPLACE_DESTINATION, cancellable, callback,
                                       callback_data);
  return TRUE;
}

/* What begins is always waited for, so that its data may live here. */
static gboolean
save_file (BgLoop *loop, GFile *file, const char *text, GError **error)
{
  g_autoptr (GBytes) contents = g_bytes_new (text, strlen (text));
  g_autoptr (GAsyncResult) answer = NULL;
  Save save = { file, contents };

  answer
      = bg_loop_perform (loop, G_PRIORITY_DEFAULT, TIMEOUT_MSEC, begin_save_cb, &save, NULL, error);
  return answer != NULL && g_file_replace_contents_finish (file, answer, NULL, error);
}

static gboolean
begin_load_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_file_load_contents_async (user_data, cancellable, callback, callback_data);
  return TRUE;
}

static char *
load_file (BgLoop *loop, GFile *file, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;
  char *text = NULL;

  answer
      = bg_loop_perform (loop, G_PRIORITY_DEFAULT, TIMEOUT_MSEC, begin_load_cb, file, NULL, error);
  if (answer == NULL || !g_file_load_contents_finish (file, answer, &text, NULL, NULL, error))
    return NULL;

  return text;
}

/* Calls back in the context of the caller, who goes on meanwhile. */
static void
load_file_async (BgLoop *loop, GFile *file, GAsyncReadyCallback callback, gpointer user_data)
{
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, TIMEOUT_MSEC, begin_load_cb, g_object_ref (file),
                         g_object_unref, NULL, callback, user_data);
}

static char *
load_file_finish (BgLoop *loop, GFile *file, GAsyncResult *result, GError **error)
{
  g_autoptr (GAsyncResult) answer = bg_loop_perform_finish (loop, result, error);
  char *text = NULL;

  if (answer == NULL || !g_file_load_contents_finish (file, answer, &text, NULL, NULL, error))
    return NULL;

  return text;
}

static void
loaded_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GAsyncResult **loaded = user_data;

  *loaded = g_object_ref (result);
}

static gboolean
work_with_files (BgLoop *loop, GFile *file, GFile *missing, GError **error)
{
  g_autoptr (GAsyncResult) loaded = NULL;
  g_autoptr (GError) expected = NULL;
  g_autofree char *first = NULL;
  g_autofree char *second = NULL;
  g_autofree char *nothing = NULL;

  if (!save_file (loop, file, "Somebody else writes this.\n", error))
    return FALSE;
  first = load_file (loop, file, error);
  if (first == NULL)
    return FALSE;
  g_print ("Blocking: %s", first);

  load_file_async (loop, file, loaded_cb, &loaded);
  while (loaded == NULL)
    g_main_context_iteration (NULL, TRUE);
  second = load_file_finish (loop, file, loaded, error);
  if (second == NULL)
    return FALSE;
  g_print ("Asynchronous: %s", second);

  /* Errors arrive as they are. */
  nothing = load_file (loop, missing, &expected);
  g_assert (nothing == NULL && g_error_matches (expected, G_IO_ERROR, G_IO_ERROR_NOT_FOUND));
  g_print ("Failing: %s\n", expected->message);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = bg_loop_new ("files", &error);
  g_autoptr (GFileIOStream) stream = NULL;
  g_autoptr (GFile) file = NULL;
  g_autoptr (GFile) missing = g_file_new_for_path ("/nonexistent/file");
  gboolean ok;

  if (loop != NULL)
    file = g_file_new_tmp ("files-XXXXXX", &stream, &error);
  ok = file != NULL && work_with_files (loop, file, missing, &error);
  if (file != NULL)
    g_file_delete (file, NULL, NULL);
  ok = ok && bg_loop_shutdown (loop, &error);
  if (!ok)
    g_printerr ("%s\n", error->message);
  return ok ? 0 : 1;
}
