/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* A module with the library in it: see plugin-host.c. */

#include <bgloop/bgloop.h>

gpointer plugin_start (void);
gboolean plugin_is_forked (gpointer data);
gboolean plugin_stop (gpointer data);

gpointer
plugin_start (void)
{
  return bg_loop_new ("plugin", NULL);
}

static gboolean
do_nothing (gpointer user_data, GError **error)
{
  return TRUE;
}

gboolean
plugin_is_forked (gpointer data)
{
  g_autoptr (GError) error = NULL;

  return !bg_loop_call (data, do_nothing, NULL, NULL, &error)
         && g_error_matches (error, BG_ERROR, BG_ERROR_FORKED);
}

gboolean
plugin_stop (gpointer data)
{
  g_autoptr (BgLoop) loop = data;

  return bg_loop_call (loop, do_nothing, NULL, NULL, NULL) && bg_loop_shutdown (loop, NULL);
}
