/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* say-errors CATALOGS [setlocale]: what the library says to users, a line each, for
 * test-languages.py. */

#include <libintl.h>
#include <locale.h>
#include <string.h>

#include <bgloop/bgloop.h>

static void
noop_cb (gpointer user_data)
{
}

static gboolean
true_cb (gpointer user_data, GError **error)
{
  return TRUE;
}

typedef struct
{
  GMutex gate;
  int runs; /* atomic */
} Block;

static void
block_cb (gpointer user_data)
{
  Block *block = user_data;

  g_atomic_int_set (&block->runs, TRUE);
  g_mutex_lock (&block->gate);
  g_mutex_unlock (&block->gate);
}

/* A call that times out, as the loop is busy. */
static void
call_in_vain (BgLoop *loop, GError **error)
{
  Block block = { .runs = FALSE };

  g_mutex_init (&block.gate);
  g_mutex_lock (&block.gate);
  g_assert_true (bg_loop_post (loop, block_cb, &block, NULL));
  while (!g_atomic_int_get (&block.runs))
    g_thread_yield ();
  g_assert_false (bg_loop_call_full (loop, 0, 0, true_cb, NULL, NULL, error));
  g_mutex_unlock (&block.gate);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_mutex_clear (&block.gate);
}

static void
say (GError *error)
{
  g_assert_nonnull (error);
  g_print ("%s\n", error->message);
  g_error_free (error);
}

int
main (int argc, char **argv)
{
  g_autoptr (BgLoop) loop = NULL;
  guint64 holds[8];
  GError *error = NULL;

  if (argc > 2)
    setlocale (LC_ALL, "");
  loop = bg_loop_new ("x", &error);
  g_assert_no_error (error);
  /* The library tells gettext of its catalogs with the first text. */
  g_free (bg_loop_describe (loop));
  bindtextdomain ("bgloop", argv[1]);

  call_in_vain (loop, &error);
  say (g_steal_pointer (&error));
  for (guint i = 0; i < G_N_ELEMENTS (holds); i++)
    holds[i] = bg_loop_hold (loop, "a reason");
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, &error));
  say (g_steal_pointer (&error));

  for (guint i = 0; i < G_N_ELEMENTS (holds); i++)
    bg_loop_release (loop, holds[i]);
  g_assert_true (bg_loop_shutdown (loop, &error));
  g_assert_false (bg_loop_post (loop, noop_cb, NULL, NULL));
  g_assert_false (bg_loop_flush (loop, -1, NULL, &error));
  say (g_steal_pointer (&error));
  return 0;
}
