/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* Says which version of the library it runs with, once it has used it. */

#include <bgloop/bgloop.h>

static gboolean
get_name (gpointer user_data, GError **error)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();
  char **name = user_data;

  *name = g_strdup (bg_loop_get_name (loop));
  return TRUE;
}

int
main (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = bg_loop_new ("consumer", &error);
  g_autofree char *name = NULL;

  if (loop == NULL || !bg_loop_call (loop, get_name, &name, NULL, &error)
      || !bg_loop_shutdown (loop, &error))
    g_error ("%s", error->message);

  g_print ("%s %u.%u.%u\n", name, bg_get_major_version (), bg_get_minor_version (),
           bg_get_micro_version ());
  return 0;
}
