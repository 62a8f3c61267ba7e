/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/* What GLib does not offer, and is had from its insides: see bg-glib.c. */

gboolean bg_glib_is_unshared (gpointer object, int n_refs);
gboolean bg_glib_is_referenced_once (gpointer object);
void bg_glib_wait_for_disposal (gpointer object);

GMainContext *bg_glib_context_new (GError **error);
gboolean bg_glib_context_is_unshared (GMainContext *context);
int bg_glib_get_wakeup_fd (GMainContext *context);
guint bg_glib_list_sources (GMainContext *context,
                            GArray *priorities,
                            guint n_own,
                            GPtrArray *sources);
void bg_glib_attach_source (GSource *source, GMainContext *context);
gpointer bg_glib_set_own_callback (GSource *source, GSourceCallbackFuncs *funcs);
/* @dispatched: by a source of its own, not at once. */
typedef void (*BgReplaceFunc) (GSource *source, gboolean dispatched);
void bg_glib_release_callback (GSource *source,
                               gpointer callback,
                               BgReplaceFunc replace,
                               GDestroyNotify release);
gboolean bg_glib_source_is_unshared (GSource *source);
guint bg_glib_get_source_id (GSource *source);
void bg_glib_abandon_dispatches (GSource *source,
                                 guint n,
                                 GDestroyNotify release,
                                 GPtrArray *sources);
void bg_glib_abandon_dispatch_of_others (GSource *source, GPtrArray *sources);

G_END_DECLS
