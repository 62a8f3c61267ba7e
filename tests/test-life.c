/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

static void
test_name (void)
{
  BgLoop *loop = util_loop_new ("a name");

  g_assert_cmpstr (bg_loop_get_name (loop), ==, "a name");
  util_loop_end (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/life/name", test_name);

  return g_test_run ();
}
