/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/bg-error.h>

G_DEFINE_QUARK (bg - error - quark, bg_error)

G_DEFINE_ENUM_TYPE (BgError,
                    bg_error,
                    G_DEFINE_ENUM_VALUE (BG_ERROR_CLOSED, "closed"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_WOULD_DEADLOCK, "would-deadlock"),
                    G_DEFINE_ENUM_VALUE (BG_ERROR_FORKED, "forked"))
