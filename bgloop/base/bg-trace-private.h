/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Without -Dsysprof none of it is there. */
#if HAVE_SYSPROF
gint64 bg_trace_begin (void);
void bg_trace_end (gint64 begun, const char *mark, const char *format, ...) G_GNUC_PRINTF (3, 4);
#else
#define bg_trace_begin()               0
#define bg_trace_end(begun, mark, ...) ((void) (begun))
#endif

G_END_DECLS
