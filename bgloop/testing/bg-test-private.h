/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-loop.h>
#include <bgloop/core/bg-core-private.h>

G_BEGIN_DECLS

/* How long the kit waits where nobody says otherwise. */
#define BG_TEST_DEFAULT_MSEC 5000

/* And if it is not to wait, for what other threads are in the middle of. */
#define BG_TEST_MOMENT_MSEC 1000

/* The eventfds of this process that are no leak: those that were there when they were
 * noted. */
typedef struct _BgEventfds BgEventfds;

BgEventfds *bg_eventfds_note (void);
void bg_eventfds_free (BgEventfds *self);
void bg_eventfds_add (BgEventfds *self, int fd);
guint bg_eventfds_find_new (BgEventfds *self, char **numbers);

/* What the kit has of the loops that people hold; the files of BgLoop answer it. */
BgCore *bg_loop_get_core (BgLoop *self);
gpointer bg_loop_peek_default (void);

/* With the core's lock: where in a pause the loop is, and who has it. */
gboolean bg_test_is_running (BgCore *core);
gboolean bg_test_is_stepping (BgCore *core);
void bg_test_set_pauser (BgCore *core, GThread *thread);

/* What a paused loop runs, on its own thread; @slot's data is its core. */
void bg_test_pause_outcome (BgRecord *slot, gpointer owner);
gboolean bg_test_resumed_cb (gpointer user_data);

G_END_DECLS
