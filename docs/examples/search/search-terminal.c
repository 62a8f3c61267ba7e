/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-terminal.h"

#include <stdio.h>
#include <unistd.h>

#include "search-database.h"

/* Whether @fd is a terminal that can do more than print lines. */
gboolean
search_is_terminal (int fd)
{
  return isatty (fd) && g_strcmp0 (g_getenv ("TERM"), "dumb") != 0;
}

/* https://no-color.org */
static gboolean
want_bold (void)
{
  const char *no_color = g_getenv ("NO_COLOR");

  return search_is_terminal (STDOUT_FILENO) && (no_color == NULL || *no_color == '\0');
}

/* The next character, or what stands for it: nothing from a file may steer the
 * terminal. */
static void
print_char (const char *text)
{
  gunichar c = g_utf8_get_char (text);

  if (c == '\t')
    putchar (' ');
  else if (g_unichar_iscntrl (c))
    fputs ("�", stdout);
  else
    fwrite (text, 1, g_utf8_next_char (text) - text, stdout);
}

/* Prints the name of a file: as it is, for other programs, or so that it can be
 * read, on a terminal. */
void
search_print_name (const char *name)
{
  g_autofree char *readable = NULL;

  if (!isatty (STDOUT_FILENO))
    {
      fputs (name, stdout);
      return;
    }

  readable = g_filename_display_name (name);
  for (const char *p = readable; *p != '\0'; p = g_utf8_next_char (p))
    print_char (p);
}

/* Prints the snippet of a hit, what was hit in bold or in brackets. */
void
search_print_snippet (const char *snippet)
{
  gboolean bold = want_bold ();
  gboolean marked = FALSE;

  for (const char *p = snippet; *p != '\0'; p = g_utf8_next_char (p))
    {
      if (*p == SEARCH_HIT_START || *p == SEARCH_HIT_END)
        {
          if (marked == (*p == SEARCH_HIT_START))
            continue;
          marked = !marked;
          fputs (marked ? (bold ? "\033[1m" : "[") : (bold ? "\033[0m" : "]"), stdout);
        }
      else
        print_char (p);
    }

  if (marked)
    fputs (bold ? "\033[0m" : "]", stdout);
}
