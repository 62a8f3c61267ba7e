/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-symbol-private.h>
#include <bgloop/core/bg-core-private.h>

/* Stalls: what blocks a loop for too long is reported while it does: a function, a source of the
 * loop's context, a destroy notify. One thread, the watchdog, looks at all loops that want
 * to be watched, and is there only while there are any. The loops' own threads do nothing
 * for it but what they do anyway: they note what they run, and count their polls. The
 * watchdog takes the same picture twice, and what it has not seen change in between has
 * kept the loop busy for all of that time.
 *
 * Any thread begins and ends a watch, under the watchdog's lock, which comes before a
 * loop's own. What is found is reported without it, since log handlers are code of others. */

/* How often a loop is looked at within its threshold. */
#define LOOKS 4

/* How often a blocked loop is looked at again, to tell how long it was: as a share of how
 * long it has been, within limits. */
#define AGAIN_SHARE    16
#define AGAIN_MIN_USEC (1 * G_TIME_SPAN_MILLISECOND)
#define AGAIN_MAX_USEC (100 * G_TIME_SPAN_MILLISECOND)

typedef struct
{
  BgForkLocal fork_local;
  GMutex lock;
  GCond changed;

  /* under lock */
  GQueue watches;     /* of cores, by the links of their watches */
  GThread *thread;    /* (owned) (nullable) */
  gboolean reporting; /* the thread does */
} BgWatchdog;

/* Something to be said of a loop. */
typedef struct
{
  char *loop;    /* (owned) its name */
  gpointer func; /* (nullable) */
  char *source;  /* (owned) (nullable) */
  gint64 usec;
  gboolean over;
} Stall;

static BgWatchdog *
watchdog_get (void)
{
  static gpointer watchdog;

  return bg_fork_local (&watchdog, sizeof (BgWatchdog));
}

static void
stall_clear (gpointer data)
{
  Stall *self = data;

  g_free (self->loop);
  g_free (self->source);
}

/* Reporting */

static void
report (const Stall *self)
{
  g_autofree char *what = NULL;

  if (self->func != NULL)
    what = bg_symbol_describe (self->func);
  else if (self->source != NULL)
    what = g_strdup_printf ("the source \"%s\"", self->source);
  else
    what = g_strdup ("a source of its context");

  if (self->over)
    g_warning ("The loop \"%s\" was kept busy by %s for %" G_GINT64_FORMAT " ms", self->loop, what,
               self->usec / G_TIME_SPAN_MILLISECOND);
  else
    g_warning ("The loop \"%s\" has been kept busy by %s for %" G_GINT64_FORMAT " ms", self->loop,
               what, self->usec / G_TIME_SPAN_MILLISECOND);
}

static void
add_stall (BgWatch *self, gint64 now, gboolean over, GArray *stalls)
{
  BgCore *core = self->link.data;
  Stall stall = { .loop = g_strdup (bg_core_get_name (core)),
                  .func = self->func,
                  .source = over ? g_steal_pointer (&self->source) : g_strdup (self->source),
                  .usec = now - self->since,
                  .over = over };

  g_array_append_val (stalls, stall);
  self->reported = !over;
}

/* Looking */

static BgProgress
get_progress (BgCore *core)
{
  BgActivities *activities = &core->inbox.activities;

  return (BgProgress){
    .run = (guint64) atomic_load (&core->inbox.counts.run),
    .polls = atomic_load (&core->thread.n_polls),
    .func = atomic_load (&activities->running),
    .started_at = atomic_load (&activities->started_at),
    .awake_at = atomic_load (&core->thread.awake_at),
  };
}

static gboolean
progress_equals (const BgProgress *self, const BgProgress *other)
{
  return self->run == other->run && self->polls == other->polls && self->func == other->func
         && self->started_at == other->started_at && self->awake_at == other->awake_at;
}

/* The loop is at another point than when it was last looked at. What it runs now began no
 * later than now; since when, is certain only of a function that is the only one which was
 * begun since, and of sources that are dispatched after a sleep which ended since. */
static gint64
find_beginning (BgWatch *self, const BgProgress *progress, gint64 now)
{
  gboolean certain;

  if (progress->func != NULL)
    certain = progress->run - self->seen.run <= 1 && progress->started_at > self->on_at;
  else
    certain = progress->run == self->seen.run && progress->polls - self->seen.polls <= 1
              && progress->awake_at > self->on_at;

  return certain ? MAX (progress->awake_at, progress->started_at) : now;
}

static void
note_progress (BgWatch *self, const BgProgress *progress, gint64 now)
{
  self->since = find_beginning (self, progress, now);
  self->seen = *progress;
  self->on_at = now;
}

/* Says when to look at the loop again, in monotonic microseconds. */
static gint64
look (BgWatch *self, gint64 now, GArray *stalls)
{
  BgCore *core = self->link.data;
  BgProgress progress = get_progress (core);
  gint64 threshold = atomic_load (&self->threshold_msec) * G_TIME_SPAN_MILLISECOND;
  gint64 soon = now + MAX (threshold / LOOKS, AGAIN_MIN_USEC);
  gint64 busy;

  if (!progress_equals (&progress, &self->seen))
    {
      if (self->reported)
        add_stall (self, now, TRUE, stalls);
      note_progress (self, &progress, now);
      return soon;
    }

  if (progress.awake_at == 0)
    {
      self->on_at = now;
      return soon;
    }

  busy = now - self->since;
  if (busy < threshold)
    return self->since + threshold;

  if (!self->reported)
    {
      self->func = progress.func;
      self->source = progress.func == NULL ? bg_core_dup_dispatched (core) : NULL;
      add_stall (self, now, FALSE, stalls);
    }
  return now + CLAMP (busy / AGAIN_SHARE, AGAIN_MIN_USEC, AGAIN_MAX_USEC);
}

static gint64
look_at_all (BgWatchdog *self, GArray *stalls)
{
  gint64 now = g_get_monotonic_time ();
  gint64 next = G_MAXINT64;

  for (GList *link = self->watches.head; link != NULL; link = link->next)
    {
      BgCore *core = link->data;

      next = MIN (next, look (&core->watch, now, stalls));
    }

  return next;
}

/* Until somebody has taken the thread away. */
static gpointer
watchdog_cb (gpointer data)
{
  BgWatchdog *self = data;
  g_autoptr (GArray) stalls = g_array_new (FALSE, FALSE, sizeof (Stall));

  g_array_set_clear_func (stalls, stall_clear);
  bg_mutex_lock (&self->lock, BG_LOCK_WATCHDOG);
  while (self->thread == g_thread_self ())
    {
      gint64 next = look_at_all (self, stalls);

      if (stalls->len == 0)
        {
          g_cond_wait_until (&self->changed, &self->lock, next);
          continue;
        }

      self->reporting = TRUE;
      bg_mutex_unlock (&self->lock, BG_LOCK_WATCHDOG);
      for (guint i = 0; i < stalls->len; i++)
        report (&g_array_index (stalls, Stall, i));
      g_array_set_size (stalls, 0);
      bg_mutex_lock (&self->lock, BG_LOCK_WATCHDOG);
      self->reporting = FALSE;
    }
  bg_mutex_unlock (&self->lock, BG_LOCK_WATCHDOG);

  return NULL;
}

/* Watches */

void
bg_watch_init (BgWatch *self, BgCore *core)
{
  self->link.data = core;
}

void
bg_watch_clear (BgWatch *self)
{
  g_free (self->source);
}

/* What it runs already counts from now on. */
static void
link_watch (BgWatchdog *watchdog, BgWatch *self, GError **error)
{
  gint64 now = g_get_monotonic_time ();

  self->seen = get_progress (self->link.data);
  self->on_at = self->since = now;
  self->reported = FALSE;
  g_clear_pointer (&self->source, g_free);
  g_queue_push_tail_link (&watchdog->watches, &self->link);
  self->linked = TRUE;
  if (watchdog->thread == NULL)
    watchdog->thread = g_thread_try_new ("bgloop watchdog", watchdog_cb, watchdog, error);
}

/* Gives the thread, to be waited for, if nobody is watched any more. A log handler that it
 * runs may wait for whoever calls this: then nobody waits for the thread. */
static GThread *
unlink_watch (BgWatchdog *watchdog, BgWatch *self)
{
  GThread *thread = NULL;

  g_queue_unlink (&watchdog->watches, &self->link);
  self->linked = FALSE;
  if (watchdog->watches.length > 0)
    return NULL;

  thread = g_steal_pointer (&watchdog->thread);
  if (thread != NULL && watchdog->reporting)
    g_clear_pointer (&thread, g_thread_unref);
  return thread;
}

static gboolean
runs (BgCore *core)
{
  gboolean runs;

  bg_core_lock (core);
  runs = !core->thread.gone && !core->thread.ended;
  bg_core_unlock (core);

  return runs;
}

/* Begins or ends the watch, as the threshold and the loop's life say, and gives the lock
 * up. */
static void
update_and_unlock (BgWatchdog *watchdog, BgWatch *self)
{
  gboolean wanted = atomic_load (&self->threshold_msec) > 0 && runs (self->link.data);
  g_autoptr (GError) error = NULL;
  GThread *thread = NULL;

  if (wanted && !self->linked)
    link_watch (watchdog, self, &error);
  else if (!wanted && self->linked)
    thread = unlink_watch (watchdog, self);
  g_cond_broadcast (&watchdog->changed);
  bg_mutex_unlock (&watchdog->lock, BG_LOCK_WATCHDOG);

  if (thread != NULL)
    g_thread_join (thread);
  if (error != NULL)
    g_warning ("What blocks a loop is not reported: %s", error->message);
}

/* What the environment says, for each loop that nothing else is said of. */
static guint
get_default_threshold (void)
{
  static int known = -1; /* atomic */
  int msec = g_atomic_int_get (&known);
  const char *text;
  guint64 number = 0;

  if (msec >= 0)
    return (guint) msec;

  text = g_getenv ("BGLOOP_STALL");
  if (text != NULL && !g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT, &number, NULL))
    g_warning ("BGLOOP_STALL is a number of milliseconds, not \"%s\"", text);
  g_atomic_int_set (&known, (int) number);
  return (guint) number;
}

/* The loop's thread runs. */
void
bg_watch_begin (BgWatch *self)
{
  guint msec = get_default_threshold ();

  if (msec > 0)
    (void) bg_watch_set_threshold (self, msec);
}

/* The loop's thread has ended: nothing is to be reported of it when this returns. */
void
bg_watch_end (BgWatch *self)
{
  BgWatchdog *watchdog = watchdog_get ();

  /* Whoever sets one later sees that the thread has ended. */
  if (atomic_load (&self->threshold_msec) == 0)
    return;

  bg_mutex_lock (&watchdog->lock, BG_LOCK_WATCHDOG);
  update_and_unlock (watchdog, self);
}

guint
bg_watch_get_threshold (BgWatch *self)
{
  return atomic_load (&self->threshold_msec);
}

/* Whether that is another one than before. Waits for the watchdog's end if nobody is
 * watched any more. */
gboolean
bg_watch_set_threshold (BgWatch *self, guint msec)
{
  BgWatchdog *watchdog = watchdog_get ();
  guint before;

  bg_mutex_lock (&watchdog->lock, BG_LOCK_WATCHDOG);
  before = atomic_exchange (&self->threshold_msec, msec);
  update_and_unlock (watchdog, self);

  return before != msec;
}
