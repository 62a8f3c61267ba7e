/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* How often this process has been forked off: what carries another number is
 * the parent's. */
extern int bg_forks; /* atomic */
#define bg_fork_generation() ((guint) g_atomic_int_get (&bg_forks))
void bg_fork_watch (void);
void bg_fork_set_wakeup_fd (int fd);

/* The head of what there is one of in each process. */
typedef struct
{
  guint generation;
  gpointer inherited; /* (unowned) (nullable) the parent's: leak checkers find it here */
} BgForkLocal;

gpointer bg_fork_local (gpointer *location, gsize size);

G_END_DECLS
