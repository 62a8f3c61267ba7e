/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model-world.h"

/* Whether anything is left when a scenario is over: loops, threads, descriptors, objects. What
 * others are about to give back is waited for; only what stays is a leak. */

#define FIRST_LOOK_USEC 200

struct _ModelLeftovers
{
  guint64 loops;
  guint n_fds;
};

static guint
count_fds (void)
{
  DIR *dir = opendir ("/proc/self/fd");
  guint n = 0;

  while (readdir (dir) != NULL)
    n++;
  closedir (dir);
  return n;
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
      g_string_append_printf (names, " “%s”", name);
    }
  closedir (dir);
  return n;
}

ModelLeftovers *
model_leftovers_note (void)
{
  ModelLeftovers *self = g_new0 (ModelLeftovers, 1);

  self->loops = bg_test_mark_loops ();
  self->n_fds = count_fds ();
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
  guint n_threads = count_threads (names), n_fds = count_fds ();
  static const char *const objects[]
      = { "cancellables", "results", "tasks", "connections", "subprocesses" };

  g_string_truncate (what, 0);
  if (n_threads > 1)
    g_string_append_printf (what, " %u threads:%s;", n_threads, names->str);
  if (n_fds > self->n_fds)
    g_string_append_printf (what, " %u descriptors;", n_fds - self->n_fds);
  for (guint i = 0; i < MODEL_N_OBJECTS; i++)
    if (model_load (&model_world->n_objects[i]) != 0)
      g_string_append_printf (what, " %d %s;", model_load (&model_world->n_objects[i]),
                              objects[i]);
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
      g_usleep (usec);
      usec = MIN (usec * 2, 50000);
    }

  if (what->len > 0)
    model_fail ("left:%s", what->str);
  g_free (self);
}
