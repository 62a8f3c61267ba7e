/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <bgloop/testing/bg-test-private.h>

/* Every GMainContext has an eventfd, and nothing else tells of one that was leaked.
 * So the kit looks for eventfds that a test has left, by their descriptors and not by
 * how many there are: one that goes during the test would hide one that comes.
 *
 * A number alone does not identify one, since the next that is opened gets the lowest
 * that is free. Nor does the kernel's id of an eventfd (Linux 5.2), which is given
 * again as well. But both are free only when the file has been closed: an epoll
 * instance that was told of a file tells whether that is still there, and does not
 * keep it.
 *
 * Where there is no /proc there are no eventfds to be found, and nothing is checked.
 * All of it belongs to the thread that runs the test. */

#if HAVE_PROC

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More descriptors than a worker of GLib's ever polls. */
#define MAX_POLLED 64

typedef struct
{
  int fd;
  int id;           /* the kernel's; -1: it gives none */
  gboolean watched; /* by the epoll instance */
} Eventfd;

struct _BgEventfds
{
  GArray *known; /* of Eventfd */
  int epoll;     /* -1: there is none to be had */
  guint n_silent_workers;
};

/* What /proc says */

/* The entries of a folder that are numbers. */
static GArray *
list_numbers (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  GArray *numbers = g_array_new (FALSE, FALSE, sizeof (int));
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      int number = atoi (name);

      g_array_append_val (numbers, number);
    }

  return numbers;
}

/* /proc/self/FOLDER/NUMBER[/FILE] */
static char *
get_path (const char *folder, int number, const char *file)
{
  return g_strdup_printf ("/proc/self/%s/%d%s%s", folder, number, file != NULL ? "/" : "",
                          file != NULL ? file : "");
}

static char *
read_file (const char *folder, int number, const char *file)
{
  g_autofree char *path = get_path (folder, number, file);
  char *text;

  return g_file_get_contents (path, &text, NULL, NULL) ? text : NULL;
}

/* Eventfds */

static gboolean
is_eventfd (int fd)
{
  g_autofree char *path = get_path ("fd", fd, NULL);
  g_autofree char *target = g_file_read_link (path, NULL);

  return g_strcmp0 (target, "anon_inode:[eventfd]") == 0;
}

static int
get_id (int fd)
{
  static const char key[] = "eventfd-id:";
  g_autofree char *info = read_file ("fdinfo", fd, NULL);
  const char *found = info != NULL ? strstr (info, key) : NULL;

  return found != NULL ? atoi (found + sizeof key - 1) : -1;
}

/* The descriptors under which the epoll instance was told of files that are still
 * open. */
static GArray *
list_watched (BgEventfds *self)
{
  g_autofree char *info = read_file ("fdinfo", self->epoll, NULL);
  g_auto (GStrv) lines = g_strsplit (info != NULL ? info : "", "\n", -1);
  GArray *fds = g_array_new (FALSE, FALSE, sizeof (int));

  for (guint i = 0; lines[i] != NULL; i++)
    {
      int fd;

      if (sscanf (lines[i], "tfd: %d", &fd) == 1)
        g_array_append_val (fds, fd);
    }

  return fds;
}

static gboolean
contains (GArray *numbers, int number)
{
  for (guint i = 0; i < numbers->len; i++)
    {
      if (g_array_index (numbers, int, i) == number)
        return TRUE;
    }

  return FALSE;
}

static gboolean
is_known (BgEventfds *self, int fd, GArray *watched)
{
  int id = get_id (fd);

  for (guint i = 0; i < self->known->len; i++)
    {
      Eventfd *known = &g_array_index (self->known, Eventfd, i);

      if (known->fd == fd && known->id == id && (!known->watched || contains (watched, fd)))
        return TRUE;
    }

  return FALSE;
}

/* GLib's workers. They are started when they are needed, stay for good, and each has a
 * context. Whatever else calls itself like one, theirs are the eventfds that they
 * poll. */

static gboolean
is_worker (int thread)
{
  static const char *const workers[] = { "gmain", "gdbus", "dconf worker", NULL };
  g_autofree char *name = read_file ("task", thread, "comm");

  return name != NULL && g_strv_contains (workers, g_strchomp (name));
}

static gboolean
is_poll (long number)
{
  return FALSE
#ifdef SYS_poll
         || number == SYS_poll
#endif
#ifdef SYS_ppoll
         || number == SYS_ppoll
#endif
#ifdef SYS_ppoll_time64
         || number == SYS_ppoll_time64
#endif
#ifdef SYS_restart_syscall /* the poll of a thread that was stopped, and goes on */
         || number == SYS_restart_syscall
#endif
      ;
}

/* Whether /proc numbers system calls as this program does. Where the processor is emulated /proc
 * has the numbers of the real one. The call that reads the file is in the file itself, and should
 * be a read. */
static gboolean
has_own_numbers (void)
{
  g_autofree char *call = NULL;

  return g_file_get_contents ("/proc/thread-self/syscall", &call, NULL, NULL)
         && strtol (call, NULL, 10) == SYS_read;
}

/* Adds what @thread polls at the moment. FALSE where the system does not say what a
 * thread does. What it says may be over by now: so the memory is read in a way that
 * can fail. */
static gboolean
add_polled (int thread, GArray *fds)
{
  g_autofree char *call = read_file ("task", thread, "syscall");
  struct pollfd polled[MAX_POLLED];
  unsigned long long address, n;
  long number;
  gssize size;
  int memory;

  if (call == NULL)
    return FALSE;
  if (sscanf (call, "%ld %llx %llx", &number, &address, &n) != 3 || !is_poll (number))
    return has_own_numbers ();

  memory = open ("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  if (memory == -1)
    return TRUE;

  size = pread (memory, polled, MIN (n, MAX_POLLED) * sizeof *polled, (off_t) address);
  for (gssize i = 0; i < size / (gssize) sizeof *polled; i++)
    g_array_append_val (fds, polled[i].fd);
  close (memory);

  return TRUE;
}

/* What GLib's workers poll, and how many of them there are of which it is not
 * known. */
static GArray *
list_polled (guint *n_silent)
{
  g_autoptr (GArray) threads = list_numbers ("/proc/self/task");
  GArray *fds = g_array_new (FALSE, FALSE, sizeof (int));

  *n_silent = 0;
  for (guint i = 0; i < threads->len; i++)
    {
      int thread = g_array_index (threads, int, i);

      if (is_worker (thread) && !add_polled (thread, fds))
        (*n_silent)++;
    }

  return fds;
}

/* Notes what is there now. */
BgEventfds *
bg_eventfds_note (void)
{
  g_autoptr (GArray) fds = list_numbers ("/proc/self/fd");
  g_autoptr (GArray) polled = NULL;
  BgEventfds *self = g_new0 (BgEventfds, 1);

  self->known = g_array_new (FALSE, FALSE, sizeof (Eventfd));
  self->epoll = epoll_create1 (EPOLL_CLOEXEC);
  polled = list_polled (&self->n_silent_workers);
  for (guint i = 0; i < fds->len; i++)
    bg_eventfds_add (self, g_array_index (fds, int, i));

  return self;
}

void
bg_eventfds_free (BgEventfds *self)
{
  if (self->epoll != -1)
    close (self->epoll);
  g_array_unref (self->known);
  g_free (self);
}

/* Nothing happens if it is no eventfd. */
void
bg_eventfds_add (BgEventfds *self, int fd)
{
  struct epoll_event no_events = { 0 };
  Eventfd eventfd = { fd, -1, FALSE };

  if (!is_eventfd (fd))
    return;

  eventfd.id = get_id (fd);
  if (self->epoll != -1)
    eventfd.watched
        = epoll_ctl (self->epoll, EPOLL_CTL_ADD, fd, &no_events) == 0 || errno == EEXIST;
  g_array_append_val (self->known, eventfd);
}

/* How many eventfds there are that are not known, and their numbers. */
guint
bg_eventfds_find_new (BgEventfds *self, char **numbers)
{
  g_autoptr (GArray) fds = list_numbers ("/proc/self/fd");
  g_autoptr (GArray) watched = list_watched (self);
  g_autoptr (GArray) polled = NULL;
  GString *text = g_string_new (NULL);
  guint n = 0, n_silent, excused;

  polled = list_polled (&n_silent);
  for (guint i = 0; i < fds->len; i++)
    {
      int fd = g_array_index (fds, int, i);

      if (!is_eventfd (fd) || is_known (self, fd, watched) || contains (polled, fd))
        continue;
      g_string_append_printf (text, "%s%d", n > 0 ? ", " : "", fd);
      n++;
    }

  *numbers = g_string_free (text, FALSE);
  excused = MAX (n_silent, self->n_silent_workers) - self->n_silent_workers;
  return n > excused ? n - excused : 0;
}

#else

struct _BgEventfds
{
  char nothing;
};

BgEventfds *
bg_eventfds_note (void)
{
  return g_new0 (BgEventfds, 1);
}

void
bg_eventfds_free (BgEventfds *self)
{
  g_free (self);
}

void
bg_eventfds_add (BgEventfds *self, int fd)
{
}

guint
bg_eventfds_find_new (BgEventfds *self, char **numbers)
{
  *numbers = g_strdup ("");
  return 0;
}

#endif
