/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>

/* Not by G_DEFINE_QUARK, whose first use should not be that of two threads. */
GQuark
bg_error_quark (void)
{
  static gsize quark;

  if (g_once_init_enter (&quark))
    g_once_init_leave (&quark, g_quark_from_static_string ("bg-error-quark"));
  return (GQuark) quark;
}

G_DEFINE_ENUM_TYPE (BgError,
                    bg_error,
                    G_DEFINE_ENUM_VALUE (BG_ERROR_CLOSED, "closed"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_WOULD_DEADLOCK, "would-deadlock"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_FORKED, "forked"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_UNANSWERED, "unanswered"))
