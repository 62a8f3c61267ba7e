/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-reader.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gi18n.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Not by G_DEFINE_QUARK, whose first use should not be that of two threads. */
GQuark
search_skip_quark (void)
{
  static gsize quark;

  if (g_once_init_enter (&quark))
    g_once_init_leave (&quark, g_quark_from_static_string ("search-skip-quark"));
  return quark;
}

const char *
search_skip_describe (SearchSkip skip)
{
  static const char *const descriptions[SEARCH_N_SKIPS] = {
    /* Translators: why a file is not in the index, as are those that follow */
    [SEARCH_SKIP_UNREADABLE] = N_ ("unreadable"), [SEARCH_SKIP_VANISHED] = N_ ("vanished"),
    [SEARCH_SKIP_BINARY] = N_ ("binary"),         [SEARCH_SKIP_NOT_UTF8] = N_ ("not UTF-8"),
    [SEARCH_SKIP_HUGE] = N_ ("too large"),        [SEARCH_SKIP_SPECIAL] = N_ ("not a regular file"),
    [SEARCH_SKIP_SYMLINK] = N_ ("symbolic link"), [SEARCH_SKIP_HIDDEN] = N_ ("hidden"),
  };

  return _ (descriptions[skip]);
}

/* Whether it stays so for as long as nobody writes into the file. */
gboolean
search_skip_is_for_content (SearchSkip skip)
{
  return skip == SEARCH_SKIP_BINARY || skip == SEARCH_SKIP_NOT_UTF8;
}

static gboolean
skip (SearchSkip reason, GError **error)
{
  g_set_error_literal (error, SEARCH_SKIP, reason, search_skip_describe (reason));
  return FALSE;
}

static gboolean
skip_errno (int saved_errno, GError **error)
{
  if (saved_errno == ENOENT || saved_errno == ENOTDIR)
    return skip (SEARCH_SKIP_VANISHED, error);
  if (saved_errno == ELOOP)
    return skip (SEARCH_SKIP_SYMLINK, error);
  if (saved_errno == ENXIO)
    return skip (SEARCH_SKIP_SPECIAL, error);
  return skip (SEARCH_SKIP_UNREADABLE, error);
}

/* Opens a regular file of a size that we read, and nothing that blocks: what
 * was a file when the folder was listed may be a FIFO by now. */
static int
open_regular (const char *path, GError **error)
{
  struct stat info = { 0 };
  int fd = open (path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);

  if (fd < 0)
    {
      skip_errno (errno, error);
      return -1;
    }

  if (fstat (fd, &info) == 0 && S_ISREG (info.st_mode) && info.st_size <= SEARCH_READER_LIMIT)
    return fd;

  skip (S_ISREG (info.st_mode) ? SEARCH_SKIP_HUGE : SEARCH_SKIP_SPECIAL, error);
  close (fd);
  return -1;
}

static gboolean
read_all (int fd, GByteArray *content, GError **error)
{
  guint8 buffer[16 * 1024];

  while (TRUE)
    {
      gssize n = read (fd, buffer, sizeof buffer);

      if (n == 0)
        return TRUE;
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return skip_errno (errno, error);
      /* No text has this byte; the rest need not be read. */
      if (memchr (buffer, '\0', n) != NULL)
        return skip (SEARCH_SKIP_BINARY, error);
      if (content->len + n > SEARCH_READER_LIMIT)
        return skip (SEARCH_SKIP_HUGE, error);
      g_byte_array_append (content, buffer, n);
    }
}

static GBytes *
read_text (const char *path, GError **error)
{
  g_autoptr (GByteArray) content = g_byte_array_new ();
  gboolean ok;
  int fd = open_regular (path, error);

  if (fd < 0)
    return NULL;

  ok = read_all (fd, content, error);
  close (fd);
  if (ok && !g_utf8_validate_len ((const char *) content->data, content->len, NULL))
    ok = skip (SEARCH_SKIP_NOT_UTF8, error);

  return ok ? g_byte_array_free_to_bytes (g_steal_pointer (&content)) : NULL;
}

static void
read_text_thread (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  GError *error = NULL;
  GBytes *text;

  if (g_task_return_error_if_cancelled (task))
    return;

  text = read_text (task_data, &error);
  if (text != NULL)
    g_task_return_pointer (task, text, (GDestroyNotify) g_bytes_unref);
  else
    g_task_return_error (task, error);
}

/* Reads a file of text in a thread of GIO's pool. What is no such file is an
 * error of the domain SEARCH_SKIP. */
void
search_read_text_async (const char *path,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, callback, user_data);

  g_task_set_source_tag (task, search_read_text_async);
  g_task_set_task_data (task, g_strdup (path), g_free);
  g_task_run_in_thread (task, read_text_thread);
}

GBytes *
search_read_text_finish (GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}
