/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-symbol-private.h>
#include <bgloop/core/bg-work-private.h>

/* How a piece of work is handed over, by any thread, under the core's lock; and what its
 * function has answered. */

/* FALSE if the loop takes no more work. (bg_loop_post() does the same by itself, as each
 * nanosecond counts there.) */
gboolean
bg_core_submit (BgCore *self, BgWork *work)
{
  const BgRecord *record = &work->record;
  gboolean admitted;
  BgRecord *slot;

  if (bg_core_is_forked (self))
    return FALSE;

  bg_core_lock (self);
  admitted = bg_core_admits (self);
  work->was_awake = bg_core_is_awake (self);
  if (work->reply != NULL)
    bg_reply_set_due (work->reply, admitted);
  if (admitted)
    {
      if (work->soon && bg_linger_get_usec (&self->inbox) > 0)
        bg_reply_expect_soon (work->reply, !work->was_awake);
      slot = bg_inbox_append (&self->inbox, work->priority, record->outcome, record->func,
                              record->data, record->destroy);
      if (work->blocked != NULL)
        {
          work->blocked->slot = slot;
          bg_core_add_blocked (self, work->blocked);
        }
      if (work->awaited)
        bg_linger_set_awaited (&self->inbox);
    }
  bg_core_unlock (self);

  return admitted;
}

/* What @func has returned and the error that it has set, held to what functions with a GError
 * promise: TRUE and none, or FALSE and one. @says_why: it is a fault to fail without. Takes
 * over @given. */
gboolean
bg_work_check_answer (gpointer func, gboolean ok, GError *given, gboolean says_why, GError **error)
{
  if (G_UNLIKELY (ok != (given == NULL)))
    {
      g_autofree char *name = bg_symbol_describe (func);

      if (ok || says_why)
        g_critical ("%s returned %s an error", name, ok ? "TRUE with" : "FALSE without");
      if (ok)
        g_clear_error (&given);
      else
        g_set_error (&given, G_IO_ERROR, G_IO_ERROR_FAILED, _ ("%s failed without saying why"),
                     name);
    }

  if (!ok)
    g_propagate_error (error, given);
  return ok;
}
