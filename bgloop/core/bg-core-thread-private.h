/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

#include <bgloop/base/bg-waiter-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* The thread of a loop */
typedef struct
{
  long id;           /* immutable: the system's, once it runs */
  BgWaiter *starter; /* (unowned) (nullable) of whoever starts it, until it runs */

  /* under lock */
  GThread *handle; /* (owned) (nullable) until somebody joins it or lets it go */
  gboolean joined;
  gboolean ended; /* written by the thread: everything has had its outcome */
  gboolean gone;  /* it has nothing more to do, or never ran */

  /* the thread only */
  gint64 wakeup_fd;    /* by which the context is woken; -1: unknown */
  gboolean runs;       /* the main loop */
  gboolean finished;   /* the main loop is to return */
  gboolean exited;     /* something has ended it under the loop */
  int abandoned_depth; /* g_main_depth() then */
  gboolean cancels;    /* something has ended it, and handlers have not been told of that yet */

  /* atomic, written by it */
  _Atomic gint64 awake_at; /* monotonic microseconds; 0: it sleeps */
} BgCoreThread;

BgCore *bg_core_get_current (void);
gboolean bg_core_is_current (BgCore *self);
int bg_core_poll_cb (GPollFD *fds, guint n_fds, int timeout_msec);
void bg_core_start (BgCore *self);

G_END_DECLS
