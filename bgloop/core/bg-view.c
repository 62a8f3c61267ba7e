/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-report-private.h>
#include <bgloop/core/bg-view-private.h>

/* All that is to be said of a loop, in words: what keeps it busy, which is a report, and what
 * stands by, which is in nobody's way: it waits for its time, for something to happen, or for the
 * loop's end. Any thread; it is looked for under the core's lock and put into words without. */

/* How many sources are named. */
#define NAMED 6

typedef struct
{
  gint64 now; /* monotonic microseconds */
  guint n_delayed;
  gint64 due; /* the first of them, monotonic microseconds */
  guint n_sources;
  guint next_source; /* where to go on with them */
  GPtrArray *names;  /* (owned) that some of them have */
  guint n_teardowns;
} Standby;

/* With the lock held: as many sources as may be gone through without others having it. FALSE if
 * there are no more. */
static gboolean
collect_sources (Standby *self, BgCore *core)
{
  return bg_core_list_attached (core, &self->next_source, &self->n_sources, self->names, NAMED);
}

/* The rest of them, without the lock. */
static void
collect_more_sources (Standby *self, BgCore *core)
{
  gboolean more = TRUE;

  while (more)
    {
      bg_core_lock_to_look (core);
      more = collect_sources (self, core);
      bg_core_unlock_after_look (core);
    }
}

/* With the lock held: all but some of the sources. FALSE if there are none of these. */
static gboolean
collect (Standby *self, BgCore *core)
{
  self->now = g_get_monotonic_time ();
  self->n_delayed = bg_delays_get_n (&core->timer.delays);
  self->due = bg_delays_get_next_due (&core->timer.delays);
  self->names = g_ptr_array_new_with_free_func (g_free);
  self->n_teardowns = core->stopping.teardowns.length;
  return collect_sources (self, core);
}

static char *
describe_delayed (Standby *self)
{
  g_autofree char *time = bg_report_describe_time (ABS (self->due - self->now));
  guint n = self->n_delayed;

  if (self->now < self->due)
    return g_strdup_printf (bg_translate_plural ("%u delayed, due in %s",
                                                 "%u delayed, the first due in %s", n),
                            n, time);

  return g_strdup_printf (bg_translate_plural ("%u delayed, due %s ago",
                                               "%u delayed, the first due %s ago", n),
                          n, time);
}

static char *
describe_sources (Standby *self)
{
  g_autoptr (GString) names = g_string_new (NULL);
  guint n = self->n_sources;

  if (self->names->len == 0)
    return g_strdup_printf (bg_translate_plural ("%u attached source", "%u attached sources", n),
                            n);

  for (guint i = 0; i < self->names->len; i++)
    g_string_append_printf (names, "%s\"%s\"", i > 0 ? ", " : "",
                            (char *) g_ptr_array_index (self->names, i));
  if (self->names->len < n)
    g_string_append (names, ", ...");
  return g_strdup_printf (bg_translate_plural ("%u attached source: %s", "%u attached sources: %s",
                                               n),
                          n, names->str);
}

static GPtrArray *
list_lines (Standby *self)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  guint n = self->n_teardowns;

  if (self->n_delayed > 0)
    g_ptr_array_add (lines, describe_delayed (self));
  if (self->n_sources > 0)
    g_ptr_array_add (lines, describe_sources (self));
  if (n > 0)
    g_ptr_array_add (lines, g_strdup_printf (bg_translate_plural ("%u teardown function",
                                                                  "%u teardown functions", n),
                                             n));
  return lines;
}

void
bg_view_init (BgView *self, BgCore *core)
{
  g_autoptr (BgReport) report = NULL;
  Standby standby = { 0 };
  gboolean more;

  bg_core_lock_to_look (core);
  self->state = bg_core_get_state (core);
  report = bg_report_new_all (core, &self->busy);
  more = collect (&standby, core);
  bg_core_unlock_after_look (core);
  if (more)
    collect_more_sources (&standby, core);

  self->works = bg_report_list (report);
  self->standby = list_lines (&standby);
  g_ptr_array_unref (standby.names);
}

void
bg_view_clear (BgView *self)
{
  g_clear_pointer (&self->works, g_ptr_array_unref);
  g_clear_pointer (&self->standby, g_ptr_array_unref);
}
