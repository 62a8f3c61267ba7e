/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <sysprof-capture.h>

#include <bgloop/base/bg-trace-private.h>

/* Marks for Sysprof: what took how long, for whoever records the process. Any thread. */

/* Nanoseconds, for bg_trace_end(); 0 if nobody records. */
gint64
bg_trace_begin (void)
{
  return sysprof_collector_is_active () ? SYSPROF_CAPTURE_CURRENT_TIME : 0;
}

void
bg_trace_end (gint64 begun, const char *mark, const char *format, ...)
{
  va_list arguments;

  if (begun == 0)
    return;

  va_start (arguments, format);
  sysprof_collector_mark_vprintf (begun, SYSPROF_CAPTURE_CURRENT_TIME - begun, "bgloop", mark,
                                  format, arguments);
  va_end (arguments);
}
