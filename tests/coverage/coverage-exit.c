/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For `./dev coverage`, to be preloaded: a process that ends by _exit() or abort(), as forked
 * children do and what is to fail, writes down what it has reached, too. gcc's counters are written
 * by the destructors of what is compiled with them, which such an end leaves out. */

typedef void (*Destructor) (void);

static void
run_destructors (const struct dl_phdr_info *info, const ElfW (Dyn) * dynamic)
{
  const Destructor *destructors = NULL;
  size_t n = 0;

  for (; dynamic->d_tag != DT_NULL; dynamic++)
    {
      if (dynamic->d_tag == DT_FINI_ARRAY)
        destructors = (const Destructor *) (info->dlpi_addr + dynamic->d_un.d_ptr);
      else if (dynamic->d_tag == DT_FINI_ARRAYSZ)
        n = dynamic->d_un.d_val / sizeof *destructors;
    }
  while (n-- > 0)
    destructors[n]();
}

/* The program itself, of which the library's files may be part, has no name. */
static int
object_cb (struct dl_phdr_info *info, size_t size, void *data)
{
  if (*info->dlpi_name != '\0' && strstr (info->dlpi_name, "libbgloop") == NULL)
    return 0;

  for (int i = 0; i < info->dlpi_phnum; i++)
    {
      if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
        run_destructors (info, (const void *) (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr));
    }
  return 0;
}

/* Once: what is written may end the process, too. */
static void
write_counters (void)
{
  static int written;

  if (!__atomic_exchange_n (&written, 1, __ATOMIC_RELAXED))
    dl_iterate_phdr (object_cb, NULL);
}

void
_exit (int status)
{
  void (*real_exit) (int status) __attribute__ ((noreturn));

  write_counters ();
  *(void **) &real_exit = dlsym (RTLD_NEXT, "_exit");
  real_exit (status);
}

void
abort (void)
{
  void (*real_abort) (void) __attribute__ ((noreturn));

  write_counters ();
  *(void **) &real_abort = dlsym (RTLD_NEXT, "abort");
  real_abort ();
}
