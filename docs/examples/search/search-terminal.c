/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-terminal.h"

#include <gio/gio.h>
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
append_char (GString *line, const char *text)
{
  gunichar c = g_utf8_get_char (text);

  if (c == '\t')
    g_string_append_c (line, ' ');
  else if (g_unichar_iscntrl (c))
    g_string_append (line, "�");
  else
    g_string_append_unichar (line, c);
}

static char *
make_readable (const char *text)
{
  g_autoptr (GString) line = g_string_new (NULL);

  for (const char *p = text; *p != '\0'; p = g_utf8_next_char (p))
    append_char (line, p);
  return g_string_free (g_steal_pointer (&line), FALSE);
}

/* Returns: the name from the current folder, if the file is below it, or else as it is */
static char *
make_relative (const char *name)
{
  g_autoptr (GFile) here = g_file_new_for_path (".");
  g_autoptr (GFile) file = g_file_new_for_path (name);
  char *relative = g_file_get_relative_path (here, file);

  return relative != NULL ? relative : g_strdup (name);
}

/* Whether a name needs quotes to be told from other names, and to be one line. */
static gboolean
needs_quotes (const char *name)
{
  for (const char *p = name; *p != '\0'; p++)
    {
      if (g_ascii_iscntrl (*p))
        return TRUE;
    }

  return *name == '"';
}

/* In quotes, as C has them. */
static char *
quote (const char *name)
{
  char above_ascii[0x100 - 0x80 + 1] = { 0 };
  g_autofree char *escaped = NULL;

  for (guint i = 0x80; i < 0x100; i++)
    above_ascii[i - 0x80] = (char) i;
  escaped = g_strescape (name, above_ascii);
  return g_strconcat ("\"", escaped, "\"", NULL);
}

/* Prints the name of a file, from the current folder. On a terminal it can be read. Other
 * programs get it as it is, or, if there is a newline or the like in it, in quotes. */
void
search_print_name (const char *name)
{
  g_autofree char *relative = make_relative (name);
  g_autofree char *text = NULL;

  if (isatty (STDOUT_FILENO))
    {
      g_autofree char *valid = g_filename_display_name (relative);

      text = make_readable (valid);
    }
  else if (needs_quotes (relative))
    text = quote (relative);

  fputs (text != NULL ? text : relative, stdout);
}

/* Prints what went wrong, on one line, whatever names are in it. */
void
search_print_error (const char *message)
{
  g_autofree char *valid = g_utf8_make_valid (message, -1);
  g_autofree char *line = make_readable (valid);

  g_printerr ("search: %s\n", line);
}

/* Prints the snippet of a hit, what was hit in bold or in brackets. */
void
search_print_snippet (const char *snippet)
{
  gboolean bold = want_bold ();
  gboolean marked = FALSE;
  g_autoptr (GString) line = g_string_new (NULL);

  for (const char *p = snippet; *p != '\0'; p = g_utf8_next_char (p))
    {
      if (*p == SEARCH_HIT_START || *p == SEARCH_HIT_END)
        {
          if (marked == (*p == SEARCH_HIT_START))
            continue;
          marked = !marked;
          g_string_append (line, marked ? (bold ? "\033[1m" : "[") : (bold ? "\033[0m" : "]"));
        }
      else
        append_char (line, p);
    }

  if (marked)
    g_string_append (line, bold ? "\033[0m" : "]");
  fputs (line->str, stdout);
}
