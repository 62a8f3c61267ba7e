/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-version.h>

/* Which version of the library a program runs with. Any thread, without a lock: all of it is
 * constant. */

/**
 * bg_get_major_version:
 *
 * Gets the major version of the library that the program runs with.
 *
 * `BG_MAJOR_VERSION` is that of the headers which it was compiled against.
 *
 * Returns: the major version
 *
 * Since: 1.0
 */
guint
bg_get_major_version (void)
{
  return BG_MAJOR_VERSION;
}

/**
 * bg_get_minor_version:
 *
 * Gets the minor version of the library that the program runs with.
 *
 * `BG_MINOR_VERSION` is that of the headers which it was compiled against.
 *
 * Returns: the minor version
 *
 * Since: 1.0
 */
guint
bg_get_minor_version (void)
{
  return BG_MINOR_VERSION;
}

/**
 * bg_get_micro_version:
 *
 * Gets the micro version of the library that the program runs with.
 *
 * `BG_MICRO_VERSION` is that of the headers which it was compiled against.
 *
 * Returns: the micro version
 *
 * Since: 1.0
 */
guint
bg_get_micro_version (void)
{
  return BG_MICRO_VERSION;
}

/**
 * bg_check_version:
 * @required_major: the major version that is needed
 * @required_minor: the minor version that is needed
 * @required_micro: the micro version that is needed
 *
 * Checks that the library which the program runs with can stand in for this version:
 * its major version is the same, and it is no older.
 *
 * With `BG_MAJOR_VERSION`, `BG_MINOR_VERSION` and `BG_MICRO_VERSION` a module that was
 * not linked with the library itself asks whether it may use what it was compiled
 * against.
 *
 * Returns: (nullable): %NULL if it can; otherwise what is in the way, in a static string
 *
 * Since: 1.0
 */
const char *
bg_check_version (guint required_major, guint required_minor, guint required_micro)
{
  if (required_major > BG_MAJOR_VERSION)
    return "bgloop version too old (major mismatch)";
  if (required_major < BG_MAJOR_VERSION)
    return "bgloop version too new (major mismatch)";
  if (required_minor > BG_MINOR_VERSION)
    return "bgloop version too old (minor mismatch)";
  if (required_minor == BG_MINOR_VERSION && required_micro > BG_MICRO_VERSION)
    return "bgloop version too old (micro mismatch)";

  return NULL;
}
