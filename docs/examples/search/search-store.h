/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include "search-database.h"

G_BEGIN_DECLS

#define SEARCH_TYPE_STORE (search_store_get_type ())
G_DECLARE_FINAL_TYPE (SearchStore, search_store, SEARCH, STORE, GObject)

SearchStore *search_store_open (const char *path,
                                SearchStoreFlags flags,
                                GCancellable *cancellable,
                                GError **error);
void search_store_open_async (const char *path,
                              SearchStoreFlags flags,
                              GCancellable *cancellable,
                              GAsyncReadyCallback callback,
                              gpointer user_data);
SearchStore *search_store_open_finish (GAsyncResult *result, GError **error);

gboolean search_store_add (SearchStore *self,
                           const char *name,
                           const SearchStamp *stamp,
                           GBytes *text,
                           GCancellable *cancellable,
                           GError **error);
void search_store_add_async (SearchStore *self,
                             const char *name,
                             const SearchStamp *stamp,
                             GBytes *text,
                             GCancellable *cancellable,
                             GAsyncReadyCallback callback,
                             gpointer user_data);
gboolean search_store_add_finish (SearchStore *self, GAsyncResult *result, GError **error);

GPtrArray *search_store_query (SearchStore *self,
                               const char *const *words,
                               guint limit,
                               guint64 *n_found,
                               GCancellable *cancellable,
                               GError **error);
void search_store_query_async (SearchStore *self,
                               const char *const *words,
                               guint limit,
                               GCancellable *cancellable,
                               GAsyncReadyCallback callback,
                               gpointer user_data);
GPtrArray *search_store_query_finish (SearchStore *self,
                                      GAsyncResult *result,
                                      guint64 *n_found,
                                      GError **error);

void search_store_list_async (SearchStore *self,
                              const char *folder,
                              GCancellable *cancellable,
                              GAsyncReadyCallback callback,
                              gpointer user_data);
GHashTable *search_store_list_finish (SearchStore *self, GAsyncResult *result, GError **error);

gboolean search_store_count (SearchStore *self,
                             guint64 *count,
                             GCancellable *cancellable,
                             GError **error);

gboolean search_store_close (SearchStore *self, GError **error);
void search_store_close_async (SearchStore *self,
                               GCancellable *cancellable,
                               GAsyncReadyCallback callback,
                               gpointer user_data);
gboolean search_store_close_finish (SearchStore *self, GAsyncResult *result, GError **error);

G_END_DECLS
