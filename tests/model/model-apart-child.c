/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* A forked child that returns into the loop of its parent and stays there, while the parent goes
 * on: it takes no wake-up that is the parent's. */

#define N_CALLS 60

static void
fork_cb (gpointer data)
{
  pid_t *pid = data;

  *pid = fork ();
  if (*pid == 0)
    {
      model_world->is_child = TRUE;
      alarm ((guint) model_world->limit_seconds); /* in case nobody ends it */
    }
}

void
model_apart_child_stays (const ModelOp *op)
{
  BgLoop *loop;
  pid_t pid = -1;

  /* Without a descriptor of its own the child has its parent's wake-ups. */
  if (!HAVE_EVENTFD)
    return;

  loop = util_loop_new ("parent");
  g_object_set (loop, "linger", 0, NULL);
  g_assert_true (bg_loop_post (loop, fork_cb, &pid, NULL));
  for (guint i = 0; i < N_CALLS; i++)
    g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  if (pid > 0)
    {
      kill (pid, SIGKILL);
      while (waitpid (pid, NULL, 0) == -1 && errno == EINTR)
        ;
    }
  util_loop_end (loop);
}
