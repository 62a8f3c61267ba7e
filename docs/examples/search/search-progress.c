/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-progress.h"

#include <glib/gi18n.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "search-terminal.h"

#define REDRAW_USEC      (G_USEC_PER_SEC / 10)
#define PLAIN_LINE_USEC  (2 * G_USEC_PER_SEC)
#define WIDTH_IF_UNKNOWN 80
#define BAR_MIN          10
#define BAR_MAX          40
#define MAX_PARTS        3

struct _SearchProgress
{
  gboolean terminal;
  gboolean drawn;
  gint64 started; /* monotonic times, in microseconds */
  gint64 shown;
};

SearchProgress *
search_progress_new (void)
{
  SearchProgress *self = g_new0 (SearchProgress, 1);

  self->terminal = search_is_terminal (STDERR_FILENO);
  self->started = g_get_monotonic_time ();
  self->shown = self->started;

  return self;
}

void
search_progress_free (SearchProgress *self)
{
  search_progress_clear (self);
  g_free (self);
}

static gsize
get_width (void)
{
  struct winsize size = { 0 };

  if (ioctl (STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
    return WIDTH_IF_UNKNOWN;
  return size.ws_col;
}

static char *
format_left (guint done, guint total, double rate)
{
  guint64 seconds = (total - done) / rate + 1;
  g_autofree char *time = NULL;

  if (seconds >= 3600)
    time = g_strdup_printf ("%" G_GUINT64_FORMAT ":%02u:%02u", seconds / 3600,
                            (guint) (seconds / 60 % 60), (guint) (seconds % 60));
  else
    time = g_strdup_printf ("%u:%02u", (guint) (seconds / 60), (guint) (seconds % 60));

  /* Translators: so many minutes and seconds until it is done */
  return g_strdup_printf (_ ("%s left"), time);
}

/* "[#####.....] " of what room the words leave, or nothing. */
static char *
format_bar (guint done, guint total, gsize room)
{
  gsize length = MIN (room, BAR_MAX + 3);
  gsize cells = length - MIN (length, 3);
  gsize filled = total > 0 ? (gsize) ((guint64) cells * done / total) : 0;
  char *bar;

  if (cells < BAR_MIN)
    return g_strdup ("");

  bar = g_strnfill (cells + 3, '.');
  bar[0] = '[';
  for (gsize i = 1; i <= filled; i++)
    bar[i] = '#';
  bar[cells + 1] = ']';
  bar[cells + 2] = ' ';
  return bar;
}

/* Returns: (array zero-terminated=1): the parts of a line, the most important first */
static char **
format_parts (SearchProgress *self, guint done, guint total, gboolean total_known)
{
  double elapsed = (g_get_monotonic_time () - self->started) / (double) G_USEC_PER_SEC;
  double rate = elapsed > 0 ? done / elapsed : 0;
  char **parts = g_new0 (char *, MAX_PARTS + 1);
  guint n = 0;

  parts[n++] = g_strdup_printf (ngettext ("%u of %u files", "%u of %u files", total), done, total);
  /* Translators: files per second */
  parts[n++] = g_strdup_printf (_ ("%.0f/s"), rate);
  /* Translators: how many files there are is not known yet */
  if (!total_known)
    parts[n++] = g_strdup (_ ("counting"));
  else if (rate > 0)
    parts[n++] = format_left (done, total, rate);
  return parts;
}

/* Returns: how many columns of a terminal the text takes */
static gsize
count_columns (const char *text)
{
  gsize columns = 0;

  for (const char *p = text; *p != '\0'; p = g_utf8_next_char (p))
    {
      gunichar c = g_utf8_get_char (p);

      if (!g_unichar_iszerowidth (c))
        columns += g_unichar_iswide (c) ? 2 : 1;
    }

  return columns;
}

/* What does not fit goes, part by part from the end. */
static char *
join_parts (char **parts, gsize room)
{
  char *words = g_strjoinv (", ", parts);

  for (guint n = g_strv_length (parts); n > 1 && count_columns (words) > room; n--)
    {
      g_clear_pointer (&parts[n - 1], g_free);
      g_free (words);
      words = g_strjoinv (", ", parts);
    }
  while (count_columns (words) > room)
    *g_utf8_find_prev_char (words, words + strlen (words)) = '\0';
  return words;
}

/* One column stays free: a terminal may wrap a line that fills its last one. */
static void
draw (guint done, guint total, char **parts)
{
  gsize room = get_width () - 1;
  g_autofree char *words = join_parts (parts, room);
  g_autofree char *bar = format_bar (done, total, room - count_columns (words));

  fprintf (stderr, "\r%s%s\033[K", bar, words);
  fflush (stderr);
}

/* Shows that @done of @total are done, if it is time for it. */
void
search_progress_set (SearchProgress *self, guint done, guint total, gboolean total_known)
{
  gint64 now = g_get_monotonic_time ();
  g_auto (GStrv) parts = NULL;

  if (now - self->shown < (self->terminal ? REDRAW_USEC : PLAIN_LINE_USEC))
    return;

  self->shown = now;
  parts = format_parts (self, done, total, total_known);
  if (!self->terminal)
    {
      g_autofree char *words = g_strjoinv (", ", parts);

      fprintf (stderr, "%s\n", words);
    }
  else
    {
      draw (done, total, parts);
      self->drawn = TRUE;
    }
}

/* Takes the bar away, to make room for something else. */
void
search_progress_clear (SearchProgress *self)
{
  if (!self->drawn)
    return;

  fputs ("\r\033[K", stderr);
  fflush (stderr);
  self->drawn = FALSE;
}
