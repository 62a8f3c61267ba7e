/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model-world.h"

/* Whether anything is left when a scenario is over: loops, threads, descriptors, objects. What
 * others are about to give back is waited for; only what stays is a leak. */

#define FIRST_LOOK_USEC 200
#define MAX_FDS         1024

struct _ModelLeftovers
{
  guint64 loops;
  gboolean fds[MAX_FDS];
  guint n_fds;
  guint n_threads; /* the one that looks, and a sanitizer's */
};

/* Which are open; the one that looks is not among them. */
static guint
list_fds (gboolean *fds)
{
  DIR *dir = opendir ("/proc/self/fd");
  struct dirent *entry;
  guint n = 0;

  while ((entry = readdir (dir)) != NULL)
    {
      long fd = strtol (entry->d_name, NULL, 10);

      if (entry->d_name[0] == '.' || fd == dirfd (dir) || fd >= MAX_FDS)
        continue;
      fds[fd] = TRUE;
      n++;
    }
  closedir (dir);
  return n;
}

static void
name_new_fds (const gboolean *before, const gboolean *now, GString *what)
{
  for (guint fd = 0; fd < MAX_FDS; fd++)
    {
      g_autofree char *path = g_strdup_printf ("/proc/self/fd/%u", fd);
      g_autofree char *link = NULL;

      if (now[fd] && !before[fd])
        {
          link = g_file_read_link (path, NULL);
          g_string_append_printf (what, " descriptor %u, %s;", fd, link != NULL ? link : "gone");
        }
    }
}

/* Threads that are not GLib's, which it keeps for later. */
static guint
count_threads (GString *names)
{
  DIR *dir = opendir ("/proc/self/task");
  struct dirent *entry;
  guint n = 0;

  while ((entry = readdir (dir)) != NULL)
    {
      g_autofree char *path = g_strdup_printf ("/proc/self/task/%s/comm", entry->d_name);
      g_autofree char *name = NULL;

      if (entry->d_name[0] == '.' || !g_file_get_contents (path, &name, NULL, NULL))
        continue;
      g_strchomp (name);
      if (g_str_has_prefix (name, "pool-") || g_str_equal (name, "gmain")
          || g_str_equal (name, "gdbus") || g_str_equal (name, "dconf worker"))
        continue;
      n++;
      g_string_append_printf (names, " \"%s\"", name);
    }
  closedir (dir);
  return n;
}

ModelLeftovers *
model_leftovers_note (void)
{
  ModelLeftovers *self = g_new0 (ModelLeftovers, 1);

  g_autoptr (GString) names = g_string_new (NULL);

  self->n_threads = count_threads (names);
  self->loops = bg_test_mark_loops ();
  self->n_fds = list_fds (self->fds);
  return self;
}

/* A context that its loop has left to a source goes when a loop starts or ends after that. */
static void
free_contexts (void)
{
  g_autoptr (BgLoop) loop = bg_loop_new (NULL, NULL);

  bg_loop_shutdown (loop, NULL);
}

static gboolean
is_clean (ModelLeftovers *self, GString *what)
{
  g_autoptr (GString) names = g_string_new (NULL);
  gboolean fds[MAX_FDS] = { FALSE };
  guint n_threads = count_threads (names), n_fds = list_fds (fds);
  static const char *const objects[]
      = { "cancellables", "results", "tasks", "connections", "subprocesses" };

  g_string_truncate (what, 0);
  if (n_threads > self->n_threads)
    g_string_append_printf (what, " %u threads:%s;", n_threads, names->str);
  if (n_fds > self->n_fds)
    name_new_fds (self->fds, fds, what);
  for (guint i = 0; i < MODEL_N_OBJECTS; i++)
    if (model_load (&model_world->n_objects[i]) != 0)
      g_string_append_printf (what, " %d %s;", model_load (&model_world->n_objects[i]), objects[i]);
  return what->len == 0;
}

void
model_leftovers_check (ModelLeftovers *self, gint64 patience_usec)
{
  gint64 end = g_get_monotonic_time () + patience_usec;
  g_autoptr (GString) what = g_string_new (NULL);
  guint usec = FIRST_LOOK_USEC;
  g_autofree char *loops = bg_test_describe_loops (self->loops, (int) (patience_usec / 1000));

  if (loops != NULL)
    model_fail ("left: %s", loops);
  while (!is_clean (self, what) && g_get_monotonic_time () < end && loops == NULL)
    {
      while (g_main_context_iteration (NULL, FALSE))
        ;
      free_contexts ();
      /* These are threads of GLib's and what the kernel closes after them: nothing tells when they
       * are gone, so that /proc is looked at again. */
      g_usleep (usec);
      usec = MIN (usec * 2, 50000);
    }

  if (what->len > 0)
    model_fail ("left:%s", what->str);
}
