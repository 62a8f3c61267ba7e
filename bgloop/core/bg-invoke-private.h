/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/inbox/bg-inbox-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* A function given to bg_loop_invoke_full(). */
typedef struct
{
  GList link;
  int ref_count; /* atomic: one for the list, one for the source */
  BgCore *core;  /* (owned) */
  int priority;
  GSourceFunc func;
  gpointer data;
  GDestroyNotify notify;
  BgRecordFunc outcome;

  /* under lock */
  gboolean listed;
  gboolean running;
} BgInvoke;

typedef struct
{
  GQueue list;   /* under lock: of BgInvoke (owned) */
  guint repeats; /* the loop's thread only: those that ran and want to run again */
} BgInvokes;

gboolean bg_core_invoke (BgCore *core,
                         int priority,
                         GSourceFunc function,
                         gpointer data,
                         GDestroyNotify notify);

guint64 bg_core_get_n_runs (BgCore *self);

/* with the core's lock */
void bg_core_move_invokes (BgCore *self, GPtrArray *sources);
guint bg_core_count_invokes (BgCore *self, int priority);

G_END_DECLS
