/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-fork-private.h>

#if HAVE_PTHREAD_ATFORK
#include <pthread.h>
#endif
#if HAVE_EVENTFD
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>
#endif

#include <bgloop/base/bg-macros-private.h>

/* In a forked child only the thread that forked is left, and whatever the others
 * had locked or half written stays so. So the child does not touch what the
 * parent made, which it knows by its generation.
 *
 * Any thread may fork at any moment, in the middle of the functions here as well. */

int bg_forks;

#if HAVE_PTHREAD_ATFORK

static BG_THREAD_LOCAL int wakeup_fd; /* of this thread's loop; 0: none */
static int next_generation = 1;       /* atomic: of a child that is being forked off */

/* These must not lock or allocate: any thread may hold any lock at the fork. The
 * child's number is decided before, so that a fork counts once however often they
 * are registered. */

static void
prepare_cb (void)
{
  g_atomic_int_set (&next_generation, g_atomic_int_get (&bg_forks) + 1);
}

/* The child of a loop's thread may go on iterating the context. What it writes to wake
 * itself is not to wake the parent, nor is it to take what wakes the parent. */
static void
replace_wakeup_fd (void)
{
#if HAVE_EVENTFD
  int fd = wakeup_fd > 0 ? eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;

  if (fd == -1)
    return;

  dup2 (fd, wakeup_fd);
  fcntl (wakeup_fd, F_SETFD, FD_CLOEXEC);
  close (fd);
#endif
}

static void
forked_cb (void)
{
  replace_wakeup_fd ();
  g_atomic_int_set (&bg_forks, g_atomic_int_get (&next_generation));
}

#endif

/* Makes sure that bg_fork_generation() knows of every fork from now on.
 *
 * Nobody waits here for another thread, which a forked child might not have: two
 * that come at once both register, and so does a child that was forked off between
 * the two lines. */
void
bg_fork_watch (void)
{
#if HAVE_PTHREAD_ATFORK
  static int registered;

  if (G_UNLIKELY (!g_atomic_int_get (&registered))
      && pthread_atfork (prepare_cb, NULL, forked_cb) == 0)
    g_atomic_int_set (&registered, TRUE);
#endif
}

/* This thread is woken by the eventfd @fd; a child that it forks gets another one. */
void
bg_fork_set_wakeup_fd (int fd)
{
#if HAVE_PTHREAD_ATFORK
  wakeup_fd = fd;
#endif
}

/* What @location, a static variable, holds in this process: @size bytes that begin
 * with a BgForkLocal, and were zero when the process first asked for them, which is
 * how a static mutex or queue starts. They are never freed. */
gpointer
bg_fork_local (gpointer *location, gsize size)
{
  BgForkLocal *found;
  guint generation;

  bg_fork_watch ();
  generation = bg_fork_generation ();
  found = g_atomic_pointer_get (location);
  while (G_UNLIKELY (found == NULL || found->generation != generation))
    {
      BgForkLocal *fresh = g_malloc0 (size);

      fresh->generation = generation;
      fresh->inherited = found;
      if (!g_atomic_pointer_compare_and_exchange (location, found, fresh))
        g_free (fresh);
      found = g_atomic_pointer_get (location);
    }

  return found;
}
