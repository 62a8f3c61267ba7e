/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <libintl.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-text-private.h>

/* Any thread, and under any lock. A forked child is told everything in English: another
 * thread of its parent may have held a lock of gettext, which nobody releases in the child. */

/* FALSE in a forked child, which is recognised from the first text on. Gettext hears of the
 * catalogs only then: a child that was forked off meanwhile would hang in its own first use of
 * the library. No thread waits here for another one: two that come at once both tell gettext. */
static gboolean
can_translate (void)
{
  static int bound;

  bg_fork_watch ();
  if (bg_fork_generation () > 0)
    return FALSE;

  if (G_UNLIKELY (!g_atomic_int_get (&bound)))
    {
      bindtextdomain (GETTEXT_PACKAGE, BG_LOCALEDIR);
      bind_textdomain_codeset (GETTEXT_PACKAGE, "UTF-8");
      g_atomic_int_set (&bound, TRUE);
    }
  return TRUE;
}

const char *
bg_translate (const char *text)
{
  return can_translate () ? g_dgettext (GETTEXT_PACKAGE, text) : text;
}

const char *
bg_translate_plural (const char *one, const char *many, guint n)
{
  if (!can_translate ())
    return n == 1 ? one : many;

  return g_dngettext (GETTEXT_PACKAGE, one, many, n);
}
