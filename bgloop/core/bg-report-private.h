/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What keeps a loop busy, in words or in short. Any thread. */

typedef struct _BgCore BgCore;

/* What was in the way at one time. Nothing of it refers to the loop. */
typedef struct _BgReport BgReport;

/* with the core's lock */
BgReport *bg_report_new (BgCore *core, int priority);
BgReport *bg_report_new_all (BgCore *core, gboolean *busy);

/* without */
BgReport *bg_core_report (BgCore *core, int priority);
BgReport *bg_report_new_late (gint64 deadline);
void bg_report_add_operation (BgReport *self, gpointer func, gint64 since);
GPtrArray *bg_report_list (BgReport *self);
char *bg_report_to_text (BgReport *self);
void bg_report_free (BgReport *self);
char *bg_report_describe_time (gint64 usec);
GPtrArray *bg_core_list_work (BgCore *core);
void bg_core_peek_work (BgCore *core, gboolean *works, gboolean *held);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BgReport, bg_report_free)

G_END_DECLS
