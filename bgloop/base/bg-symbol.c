/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-symbol-private.h>

#if HAVE_DLADDR
#include <dlfcn.h>
#endif
#if HAVE_LINK_H
#include <link.h>
#include <string.h>
#endif

/* What functions are called, and which library they are in, as the dynamic linker knows it. Any
 * thread, but under no lock of the library's: the linker has one of its own, under which code of
 * modules that are being loaded may run and use a loop. */

#if HAVE_DLADDR
/* By how much a module's addresses are off from those in its file, which is not where it
 * begins: a program that is no PIE is linked to where it is, and some libraries as well
 * to where they could be. */
static guintptr
get_bias (gconstpointer base)
{
#if HAVE_LINK_H
  const ElfW (Ehdr) *header = base;

  if (memcmp (header->e_ident, ELFMAG, SELFMAG) == 0)
    {
      const ElfW (Phdr) *segment = (gconstpointer) ((const guint8 *) base + header->e_phoff);

      for (guint i = 0; i < header->e_phnum; i++)
        if (segment[i].p_type == PT_LOAD)
          return (guintptr) base - segment[i].p_vaddr;
    }
#endif

  return (guintptr) base;
}
#endif

/* The name of a function, for people: its symbol where the dynamic linker knows
 * it, else the module and the offset in it as addr2line(1) takes them. */
char *
bg_symbol_describe (gpointer func)
{
#if HAVE_DLADDR
  Dl_info info;

  if (dladdr (func, &info) != 0)
    {
      g_autofree char *module = NULL;

      /* Of a function that is not exported it gives the nearest one below. */
      if (info.dli_sname != NULL && info.dli_saddr == func)
        return g_strdup (info.dli_sname);

      module = g_path_get_basename (info.dli_fname);
      return g_strdup_printf ("%s+0x%" G_GINTPTR_MODIFIER "x", module,
                              (guintptr) func - get_bias (info.dli_fbase));
    }
#endif

  return bg_symbol_describe_address (func);
}

/* Where the dynamic linker cannot be asked. */
char *
bg_symbol_describe_address (gpointer func)
{
  return g_strdup_printf (_ ("a function at %p"), func);
}

/* Whether two functions are in the same library; TRUE where that cannot be told. */
gboolean
bg_symbol_share_module (gpointer func, gpointer other)
{
#if HAVE_DLADDR
  Dl_info info, other_info;

  if (dladdr (func, &info) != 0 && dladdr (other, &other_info) != 0)
    return info.dli_fbase == other_info.dli_fbase;
#endif

  return TRUE;
}
