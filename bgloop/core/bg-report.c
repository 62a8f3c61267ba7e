/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <bgloop/base/bg-symbol-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>
#include <bgloop/core/bg-report-private.h>

/* What keeps a loop busy, in words: for each message that says so when it is asked for (a
 * stall is reported unasked: bg-watchdog.c). Any thread; it is
 * looked for under the core's lock and put into words without. */

char *
bg_report_describe_time (gint64 usec)
{
  usec = MAX (0, usec);
  if (usec < G_TIME_SPAN_SECOND)
    return g_strdup_printf (_ ("%d ms"), (int) (usec / G_TIME_SPAN_MILLISECOND));

  return g_strdup_printf (_ ("%.1f s"), usec / (double) G_TIME_SPAN_SECOND);
}

/* Something that keeps the loop busy, as it is found under the lock. To name a
 * function takes the dynamic linker's lock, under which code of modules being
 * loaded may run that uses the loop: that is for afterwards. */
typedef struct
{
  enum
  {
    RUNNING,
    BUSY,
    QUEUED,
    INVOKED,
    HELD,
    OPERATION,
    OWED,
    MORE_QUEUED,
    MORE_HELD,
    MORE_OWED,
    DESTRUCTORS,
    HANDLERS,
    LATE
  } kind;
  gpointer func;
  gint64 since;
  guint n;
  int priority;
  char *reason; /* (owned) (nullable) */
} Work;

/* What was found, and when. */
struct _BgReport
{
  gint64 now;
  GArray *works; /* of Work */
};

static void
work_clear (gpointer data)
{
  g_free (((Work *) data)->reason);
}

static BgReport *
report_new (void)
{
  BgReport *self = g_new0 (BgReport, 1);

  self->now = g_get_monotonic_time ();
  self->works = g_array_new (FALSE, FALSE, sizeof (Work));
  g_array_set_clear_func (self->works, work_clear);
  return self;
}

void
bg_report_free (BgReport *self)
{
  g_array_unref (self->works);
  g_free (self);
}

/* How many of a kind are named one by one. */
#define NAMED 6

/* How many there are beside those that are named. */
static void
collect_more (GArray *works, guint n, guint n_named, int kind)
{
  Work work = { .kind = kind, .n = n - n_named };

  if (n > n_named)
    g_array_append_val (works, work);
}

/* A function, or the callback of a reply. @by: in monotonic microseconds. A loop that has been awake
 * without work of its own only since later is not said to be busy. */
static void
collect_running (BgCore *core, GArray *works, gint64 by)
{
  Work work = { .kind = RUNNING };
  gint64 awake_since = atomic_load (&core->thread.awake_at);
  gint64 since;

  work.func = bg_inbox_get_running (&core->inbox, &work.since);
  if (work.func == NULL && core->mailbox != NULL)
    {
      work.func = bg_mailbox_get_running (core->mailbox, &since);
      work.since = MAX (work.since, since);
    }
  if (work.func == NULL)
    {
      work.kind = BUSY;
      work.since = MAX (work.since, awake_since);
    }
  if (work.func != NULL
      || (bg_core_get_state (core) != BG_LOOP_STOPPED && awake_since != 0 && work.since <= by))
    g_array_append_val (works, work);
}

/* What is less urgent than @priority is left out. */
static void
collect_queued (BgCore *core, GArray *works, int priority)
{
  guint n = 0, n_named = 0;

  for (guint i = 0; i < bg_inbox_get_n_lanes (&core->inbox); i++)
    {
      Work work = { .kind = QUEUED, .n = bg_inbox_get_queued (&core->inbox, i) };

      work.priority = bg_inbox_get_priority (&core->inbox, i);
      if (work.priority > priority)
        break;
      if (work.n > 0 && n_named++ < NAMED)
        g_array_append_val (works, work);
      else
        n += work.n;
    }
  collect_more (works, n, 0, MORE_QUEUED);
}

static void
collect_invoked (GArray *works, guint n)
{
  Work work = { .kind = INVOKED, .n = n };

  if (n > 0)
    g_array_append_val (works, work);
}

/* Those that have been there for the longest. */
static void
collect_holds (BgCore *core, GArray *works)
{
  guint n = 0;

  for (GList *link = core->holds.list.head; link != NULL && n < NAMED; link = link->next, n++)
    {
      BgHold *hold = link->data;
      Work work = { .kind = hold->reason != NULL ? HELD : OPERATION,
                    .func = hold->func,
                    .since = hold->since,
                    .reason = g_strdup (hold->reason) };

      g_array_append_val (works, work);
    }
  collect_more (works, core->holds.list.length, n, MORE_HELD);
}

typedef struct
{
  GArray *works;
  guint n;
} Owed;

static void
collect_owed_cb (BgCore *by, gpointer func, gint64 since, gpointer user_data)
{
  Owed *owed = user_data;
  Work work = { .kind = OWED, .func = func, .since = since };

  if (owed->n++ < NAMED)
    {
      work.reason = g_strdup (by->name);
      g_array_append_val (owed->works, work);
    }
}

static void
collect_owed (BgCore *core, GArray *works)
{
  Owed owed = { .works = works };

  if (core->mailbox == NULL || bg_core_get_state (core) != BG_LOOP_STOPPING)
    return;

  bg_mailbox_foreach_owed (core->mailbox, collect_owed_cb, &owed);
  collect_more (works, owed.n, MIN (owed.n, NAMED), MORE_OWED);
}

static void
collect_end (BgCore *core, GArray *works)
{
  Work destructors = { .kind = DESTRUCTORS }, handlers = { .kind = HANDLERS };

  if (core->thread.ended && !core->thread.gone)
    g_array_append_val (works, destructors);
  if (bg_core_get_state (core) == BG_LOOP_STOPPED && core->stopping.n_handling > 0)
    g_array_append_val (works, handlers);
}

/* To name a function takes the dynamic linker's lock. Whoever loads a module has it while the
 * constructors there run, and one of them may wait for the loop whose thread this is. */
static char *
name_function (gpointer func)
{
  if (func == NULL)
    return NULL;

  return bg_core_get_current () != NULL ? bg_symbol_describe_address (func)
                                        : bg_symbol_describe (func);
}

static char *
describe (const Work *work, gint64 now)
{
  g_autofree char *age = bg_report_describe_time (now - work->since);
  g_autofree char *name = name_function (work->func);

  switch (work->kind)
    {
    case RUNNING:
      return g_strdup_printf (_ ("running %s for %s"), name, age);
    case BUSY:
      return g_strdup_printf (
          _ ("busy outside of its own work, with a source of its context, for %s"), age);
    case QUEUED:
      return g_strdup_printf (bg_translate_plural ("%u queued at priority %d",
                                                   "%u queued at priority %d", work->n),
                              work->n, work->priority);
    case INVOKED:
      return g_strdup_printf (bg_translate_plural ("%u invoked", "%u invoked", work->n), work->n);
    case HELD:
      return g_strdup_printf (_ ("held by \"%s\" for %s"), work->reason, age);
    case OPERATION:
      return g_strdup_printf (_ ("waiting for the operation begun by %s for %s"), name, age);
    case OWED:
      return g_strdup_printf (_ ("waiting for the reply of \"%s\" to %s for %s"), work->reason,
                              name, age);
    case MORE_QUEUED:
      return g_strdup_printf (bg_translate_plural ("and %u more queued at other priorities",
                                                   "and %u more queued at other priorities",
                                                   work->n),
                              work->n);
    case MORE_HELD:
      return g_strdup_printf (bg_translate_plural ("and %u more hold or operation",
                                                   "and %u more holds and operations", work->n),
                              work->n);
    case MORE_OWED:
      return g_strdup_printf (bg_translate_plural ("and %u more reply", "and %u more replies",
                                                   work->n),
                              work->n);
    case DESTRUCTORS:
      return g_strdup (_ ("destructors of its thread run"));
    case HANDLERS:
      return g_strdup (_ ("handlers of its cancellable have not returned"));
    case LATE:
      return g_strdup_printf (_ ("the loop came to it %s late"), age);
    default:
      g_assert_not_reached ();
    }
}

/* Without a lock: a line for each that was found. */
GPtrArray *
bg_report_list (BgReport *self)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < self->works->len; i++)
    g_ptr_array_add (lines, describe (&g_array_index (self->works, Work, i), self->now));
  return lines;
}

/* With the lock held: what keeps the loop from ending. @busy: something runs, or is to run. */
BgReport *
bg_report_new_all (BgCore *core, gboolean *busy)
{
  BgReport *self = report_new ();

  collect_running (core, self->works, G_MAXINT64);
  collect_queued (core, self->works, G_MAXINT);
  collect_invoked (self->works, core->invokes.list.length);
  *busy = self->works->len > 0;
  collect_holds (core, self->works);
  collect_owed (core, self->works);
  collect_end (core, self->works);
  return self;
}

/* Without the lock: the same, a line each: of many the most telling ones, and how many more. */
GPtrArray *
bg_core_list_work (BgCore *core)
{
  g_autoptr (BgReport) report = NULL;
  gboolean busy;

  bg_core_lock_to_look (core);
  report = bg_report_new_all (core, &busy);
  bg_core_unlock_after_look (core);

  return bg_report_list (report);
}

/* With the lock held: what the loop comes to before work of @priority that is queued; G_MAXINT:
 * before a flush is over, which does not wait for invoked functions. What only keeps the loop from
 * ending is left out, and so is a loop that does no more than linger. Work that was queued behind
 * that one at its own priority is counted, too: to tell them apart would take a walk through the
 * queue. */
BgReport *
bg_report_new (BgCore *core, int priority)
{
  BgReport *self = report_new ();

  collect_running (core, self->works, self->now - BG_LINGER_MAX_USEC);
  collect_queued (core, self->works, priority);
  if (priority < G_MAXINT)
    collect_invoked (self->works, bg_core_count_invokes (core, priority));
  return self;
}

/* The same without the lock. */
BgReport *
bg_core_report (BgCore *core, int priority)
{
  BgReport *report;

  bg_core_lock_to_look (core);
  report = bg_report_new (core, priority);
  bg_core_unlock_after_look (core);

  return report;
}

/* Of work whose turn has come after @deadline, in monotonic microseconds: what was in its way is
 * gone. */
BgReport *
bg_report_new_late (gint64 deadline)
{
  BgReport *self = report_new ();
  Work work = { .kind = LATE, .since = deadline };

  g_array_append_val (self->works, work);
  return self;
}

/* An operation has begun, with @func, and has not answered. */
void
bg_report_add_operation (BgReport *self, gpointer func, gint64 since)
{
  Work work = { .kind = OPERATION, .func = func, .since = since };

  g_array_append_val (self->works, work);
}

/* Without a lock: what stands after the colon in the error of a wait. */
char *
bg_report_to_text (BgReport *self)
{
  g_autoptr (GPtrArray) lines = bg_report_list (self);

  if (lines->len == 0)
    g_ptr_array_add (lines, g_strdup (_ ("nothing is in the way any more")));
  g_ptr_array_add (lines, NULL);
  return g_strjoinv ("; ", (char **) lines->pdata);
}

/* The same in short. @works: something runs, or is to run; @held: something holds the loop. */
void
bg_core_peek_work (BgCore *core, gboolean *works, gboolean *held)
{
  bg_core_lock (core);
  *held = core->holds.list.length > 0;
  *works = bg_inbox_get_running (&core->inbox, NULL) != NULL || bg_inbox_has_work (&core->inbox)
           || core->invokes.list.length > 0;
  bg_core_unlock (core);
}
