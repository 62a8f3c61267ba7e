/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>

/* The domain and the codes of the library's own errors. Any thread, without a lock of its own. The
 * quark does without a once, too: another thread may be in that when a child is forked off. */

/**
 * bg_error_quark:
 *
 * The domain of [error@Bg.Error], `BG_ERROR`.
 *
 * Returns: the quark
 *
 * Since: 1.0
 */
GQuark
bg_error_quark (void)
{
  static GQuark quark; /* atomic */
  GQuark found = g_atomic_int_get (&quark);

  if (G_UNLIKELY (found == 0))
    {
      found = g_quark_from_static_string ("bg-error-quark");
      g_atomic_int_set (&quark, found);
    }
  return found;
}

G_DEFINE_ENUM_TYPE (BgError,
                    bg_error,
                    G_DEFINE_ENUM_VALUE (BG_ERROR_CLOSED, "closed"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_WOULD_DEADLOCK, "would-deadlock"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_FORKED, "forked"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_UNANSWERED, "unanswered"))
