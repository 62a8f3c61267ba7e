/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* Loads a module, closes it while a loop of its own runs, and goes on using the loop: the module is
 * still there, and the loop knows of a fork. Twice, as the second time it is not loaded anew. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *
get_symbol (void *module, const char *name)
{
  void *symbol = dlsym (module, name);

  if (symbol == NULL)
    {
      puts (dlerror ());
      exit (1);
    }
  return symbol;
}

static void
expect (int holds, const char *what)
{
  if (holds)
    return;

  printf ("failed: %s\n", what);
  exit (1);
}

static void
use_plugin (const char *path)
{
  void *module = dlopen (path, RTLD_NOW | RTLD_LOCAL);
  void *(*start) (void);
  int (*is_forked) (void *loop);
  int (*stop) (void *loop);
  void *loop;
  pid_t child;
  int status;

  if (module == NULL)
    {
      puts (dlerror ());
      exit (1);
    }
  start = get_symbol (module, "plugin_start");
  is_forked = get_symbol (module, "plugin_is_forked");
  stop = get_symbol (module, "plugin_stop");

  loop = start ();
  expect (loop != NULL, "a loop");
  dlclose (module);

  child = fork ();
  if (child == 0)
    _exit (is_forked (loop) ? 0 : 1);
  expect (waitpid (child, &status, 0) == child && status == 0, "a child that is told");
  expect (!is_forked (loop), "a parent that is not");
  expect (stop (loop), "an end");
}

int
main (int argc, char *argv[])
{
  use_plugin (argv[1]);
  use_plugin (argv[1]);
  puts ("used twice");
  return 0;
}
