/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "util.h"

/* The library that the test runs with was built with these headers. */
static void
test_version_library (void)
{
  g_assert_cmpuint (bg_get_major_version (), ==, BG_MAJOR_VERSION);
  g_assert_cmpuint (bg_get_minor_version (), ==, BG_MINOR_VERSION);
  g_assert_cmpuint (bg_get_micro_version (), ==, BG_MICRO_VERSION);
}

/* PROJECT_VERSION is Meson's word. */
static void
test_version_project (void)
{
  g_autofree char *version = g_strdup_printf ("%u.%u.%u", bg_get_major_version (),
                                              bg_get_minor_version (), bg_get_micro_version ());

  g_assert_cmpstr (version, ==, PROJECT_VERSION);
}

static void
test_version_check_headers (void)
{
  g_assert_true (BG_CHECK_VERSION (BG_MAJOR_VERSION, BG_MINOR_VERSION, BG_MICRO_VERSION));
  g_assert_true (BG_CHECK_VERSION (BG_MAJOR_VERSION - 1, BG_MINOR_VERSION + 1, 0));
  g_assert_true (BG_CHECK_VERSION (1, 0, 0));
  g_assert_false (BG_CHECK_VERSION (BG_MAJOR_VERSION, BG_MINOR_VERSION, BG_MICRO_VERSION + 1));
  g_assert_false (BG_CHECK_VERSION (BG_MAJOR_VERSION, BG_MINOR_VERSION + 1, 0));
  g_assert_false (BG_CHECK_VERSION (BG_MAJOR_VERSION + 1, 0, 0));
}

static void
test_version_check_library (void)
{
  g_assert_null (bg_check_version (BG_MAJOR_VERSION, BG_MINOR_VERSION, BG_MICRO_VERSION));
  g_assert_null (bg_check_version (1, 0, 0));

  g_assert_cmpstr (bg_check_version (BG_MAJOR_VERSION, BG_MINOR_VERSION, BG_MICRO_VERSION + 1), ==,
                   "bgloop version too old (micro mismatch)");
  g_assert_cmpstr (bg_check_version (BG_MAJOR_VERSION, BG_MINOR_VERSION + 1, 0), ==,
                   "bgloop version too old (minor mismatch)");
  g_assert_cmpstr (bg_check_version (BG_MAJOR_VERSION + 1, 0, 0), ==,
                   "bgloop version too old (major mismatch)");
  g_assert_cmpstr (bg_check_version (BG_MAJOR_VERSION - 1, BG_MINOR_VERSION, BG_MICRO_VERSION), ==,
                   "bgloop version too new (major mismatch)");
}

/* What the headers are asked for by the preprocessor. */
static void
test_version_preprocessor (void)
{
#if BG_CHECK_VERSION(1, 0, 0) && !BG_CHECK_VERSION(2, 0, 0)
  g_assert_cmpuint (bg_get_major_version (), ==, 1);
#else
  g_assert_not_reached ();
#endif
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/version/library/as-its-headers", test_version_library);
  g_test_add_func ("/version/library/as-the-project", test_version_project);
  g_test_add_func ("/version/check/headers", test_version_check_headers);
  g_test_add_func ("/version/check/library", test_version_check_library);
  g_test_add_func ("/version/check/preprocessor", test_version_preprocessor);

  return g_test_run ();
}
