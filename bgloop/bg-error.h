/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib-object.h>

#include <bgloop/bg-version.h>

G_BEGIN_DECLS

/**
 * BgError:
 * @BG_ERROR_CLOSED: the loop takes no more work, or dropped this piece of work
 *   at its shutdown
 * @BG_ERROR_WOULD_DEADLOCK: this wait could never end, so it was not begun, or
 *   has come to that and was given up
 * @BG_ERROR_FORKED: the loop belongs to the parent process; its thread did not
 *   survive fork()
 * @BG_ERROR_UNANSWERED: nobody can answer this operation any more, or its answer
 *   came without a result
 *
 * What can go wrong with a loop itself.
 *
 * Cancellation and timeouts are %G_IO_ERROR_CANCELLED and
 * %G_IO_ERROR_TIMED_OUT, as everywhere in GIO.
 *
 * Since: 1.0
 */
typedef enum
{
  BG_ERROR_CLOSED,
  BG_ERROR_WOULD_DEADLOCK,
  BG_ERROR_FORKED,
  BG_ERROR_UNANSWERED,
} BgError;

#define BG_ERROR      (bg_error_quark ())
#define BG_TYPE_ERROR (bg_error_get_type ())

BG_AVAILABLE_IN_1_0
GQuark bg_error_quark (void);
BG_AVAILABLE_IN_1_0
GType bg_error_get_type (void);

G_END_DECLS
