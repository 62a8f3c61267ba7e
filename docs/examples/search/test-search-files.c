/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "test-search-files.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

char *
test_files_make_folder (void)
{
  g_autoptr (GError) error = NULL;
  char *folder = g_dir_make_tmp ("test-search-XXXXXX", &error);

  g_assert_no_error (error);
  return folder;
}

/* Removes a file, or a folder with all that is in it. */
void
test_files_remove (const char *path)
{
  g_autoptr (GDir) dir = NULL;
  const char *name;

  if (!g_file_test (path, G_FILE_TEST_IS_SYMLINK))
    dir = g_dir_open (path, 0, NULL);
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *child = g_build_filename (path, name, NULL);

      test_files_remove (child);
    }

  g_assert_cmpint (g_remove (path), ==, 0);
}

/* Returns: the path of the new file */
char *
test_files_write (const char *folder, const char *name, const char *content, gssize length)
{
  g_autoptr (GError) error = NULL;
  char *path = g_build_filename (folder, name, NULL);

  /* GLib 2.74 leaves the rest of a longer file. */
  g_unlink (path);
  g_file_set_contents_full (path, content, length, G_FILE_SET_CONTENTS_NONE, 0666, &error);
  g_assert_no_error (error);
  return path;
}

void
test_files_write_many (const char *folder, guint n_files)
{
  for (guint i = 0; i < n_files; i++)
    {
      g_autofree char *name = g_strdup_printf ("file-%05u", i);
      g_autofree char *content = g_strdup_printf ("a needle in file number%u\n", i);

      g_free (test_files_write (folder, name, content, -1));
    }
}

/* Leaves the first page, so that it still looks like a database. */
void
test_files_damage_database (const char *path)
{
  char junk[4096];
  GStatBuf info;
  int fd = g_open (path, O_RDWR | O_CLOEXEC, 0);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (g_stat (path, &info), ==, 0);
  memset (junk, 0xa5, sizeof junk);
  for (goffset offset = sizeof junk; offset < info.st_size; offset += sizeof junk)
    g_assert_cmpint (pwrite (fd, junk, sizeof junk, offset), ==, sizeof junk);
  close (fd);
}
