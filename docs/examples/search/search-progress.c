/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "search-progress.h"

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

  if (seconds >= 3600)
    return g_strdup_printf ("%" G_GUINT64_FORMAT ":%02u:%02u left", seconds / 3600,
                            (guint) (seconds / 60 % 60), (guint) (seconds % 60));
  return g_strdup_printf ("%u:%02u left", (guint) (seconds / 60), (guint) (seconds % 60));
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

static char *
format_words (SearchProgress *self, guint done, guint total, gboolean total_known)
{
  double elapsed = (g_get_monotonic_time () - self->started) / (double) G_USEC_PER_SEC;
  double rate = elapsed > 0 ? done / elapsed : 0;
  g_autofree char *left = NULL;

  if (!total_known)
    left = g_strdup ("counting");
  else if (rate > 0)
    left = format_left (done, total, rate);

  return g_strdup_printf ("%u of %u files, %.0f/s%s%s", done, total, rate, left ? ", " : "",
                          left ? left : "");
}

/* One column stays free: a terminal may wrap a line that fills its last one.
 * What does not fit into the rest goes, part by part from the end. */
static void
draw (guint done, guint total, char *words)
{
  gsize room = get_width () - 1;
  g_autofree char *bar = NULL;
  char *comma;

  while (strlen (words) > room && (comma = strrchr (words, ',')) != NULL)
    *comma = '\0';
  bar = format_bar (done, total, room - MIN (room, strlen (words)));

  fprintf (stderr, "\r%s%.*s\033[K", bar, (int) room, words);
  fflush (stderr);
}

/* Shows that @done of @total are done, if it is time for it. */
void
search_progress_set (SearchProgress *self, guint done, guint total, gboolean total_known)
{
  gint64 now = g_get_monotonic_time ();
  g_autofree char *words = NULL;

  if (now - self->shown < (self->terminal ? REDRAW_USEC : PLAIN_LINE_USEC))
    return;

  self->shown = now;
  words = format_words (self, done, total, total_known);
  if (!self->terminal)
    fprintf (stderr, "%s\n", words);
  else
    {
      draw (done, total, words);
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
