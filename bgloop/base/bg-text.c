/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <libintl.h>

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-text-private.h>

/* Any thread, and under any lock. A forked child is told everything in English: another
 * thread of its parent may have held a lock of gettext, which nobody releases in the child. */

void
bg_translate_from (const char *locale_dir)
{
  if (bg_fork_generation () > 0)
    return;

  bindtextdomain (GETTEXT_PACKAGE, locale_dir);
  bind_textdomain_codeset (GETTEXT_PACKAGE, "UTF-8");
}

const char *
bg_translate (const char *text)
{
  return bg_fork_generation () > 0 ? text : g_dgettext (GETTEXT_PACKAGE, text);
}

const char *
bg_translate_plural (const char *one, const char *many, guint n)
{
  if (bg_fork_generation () > 0)
    return n == 1 ? one : many;

  return g_dngettext (GETTEXT_PACKAGE, one, many, n);
}
