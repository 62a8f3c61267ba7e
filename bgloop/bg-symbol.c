/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <bgloop/bg-symbol-private.h>

#if HAVE_DLADDR
#include <dlfcn.h>
#include <link.h>
#endif

/* The name of a function, for people: its symbol where the dynamic linker knows
 * it, else the module and the offset in it as addr2line(1) takes them. */
char *
bg_symbol_describe (gpointer func)
{
#if HAVE_DLADDR
  Dl_info info;
  struct link_map *map = NULL;

  if (dladdr1 (func, &info, (void **) &map, RTLD_DL_LINKMAP) != 0)
    {
      g_autofree char *module = NULL;

      /* Of a function that is not exported it gives the nearest one below. */
      if (info.dli_sname != NULL && info.dli_saddr == func)
        return g_strdup (info.dli_sname);

      module = g_path_get_basename (info.dli_fname);
      return g_strdup_printf ("%s+0x%" G_GINTPTR_MODIFIER "x", module,
                              (guintptr) func - (guintptr) map->l_addr);
    }
#endif

  return g_strdup_printf ("a function at %p", func);
}
