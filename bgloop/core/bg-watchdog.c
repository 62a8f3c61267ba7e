/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#if HAVE_PTHREAD_ATFORK
#include <pthread.h>
#endif

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/base/bg-symbol-private.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-mailbox-private.h>

/* Stalls: what blocks a loop for too long is reported while it does: a function, a destroy
 * notify, sources of the loop's context. One thread, the watchdog, looks at all loops that
 * want to be watched, and is there only while there are any. The loops' own threads do nothing
 * for it but count when they go on to something else. The watchdog looks twice, and what has
 * not gone on in between was at it for all of that time: so nothing is reported that was
 * shorter, and how long it has been may be told too low by the time between two looks.
 *
 * Any thread begins and ends a watch, under the watchdog's lock, which comes before a loop's
 * own. What is found is reported without any lock, since log handlers are code of others: they
 * may wait for a loop, fork, or end their thread. So nobody ever waits for the watchdog. */

/* How often a loop is looked at within its threshold. */
#define POLLS 4

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
  GQueue watches;  /* of cores, by the links of their watches */
  GThread *thread; /* (owned) (nullable) */
} BgWatchdog;

/* Of a name so much is told. */
#define NAME_BYTES 128

/* Something to be said of a loop. It owns nothing, since the process may end, or a log handler
 * the thread, while it is said. */
typedef struct
{
  gboolean any; /* there is something */
  char loop[NAME_BYTES];
  gpointer func;           /* (nullable) */
  char source[NAME_BYTES]; /* "": none */
  gint64 usec;
  gboolean over;
} Stall;

static gboolean start (BgWatchdog *self, GError **error);

static BgWatchdog *
watchdog_get (void)
{
  static gpointer watchdog;

  return bg_fork_local (&watchdog, sizeof (BgWatchdog));
}

/* Reporting */

static char *
describe (const Stall *self)
{
  g_autofree char *name = self->func != NULL ? bg_symbol_describe (self->func) : NULL;

  if (name != NULL && *self->source != '\0')
    return g_strdup_printf ("%s and the source \"%s\"", name, self->source);
  if (*self->source != '\0')
    return g_strdup_printf ("the source \"%s\"", self->source);
  return name != NULL ? g_steal_pointer (&name) : g_strdup ("a source of its context");
}

static void
report (Stall *self)
{
  g_autofree char *what = describe (self);

  if (self->over)
    g_warning ("The loop \"%s\" was kept busy by %s for %" G_GINT64_FORMAT " ms", self->loop, what,
               self->usec / G_TIME_SPAN_MILLISECOND);
  else
    g_warning ("The loop \"%s\" has been kept busy by %s for %" G_GINT64_FORMAT " ms", self->loop,
               what, self->usec / G_TIME_SPAN_MILLISECOND);
  self->any = FALSE;
}

static void
copy_name (char *copy, const char *name)
{
  const char *end;

  g_strlcpy (copy, name != NULL ? name : "", NAME_BYTES);
  if (!g_utf8_validate (copy, -1, &end))
    copy[end - copy] = '\0';
}

static void
fill_stall (BgWatch *self, Stall *stall, gint64 usec, gboolean over)
{
  BgCore *core = self->link.data;

  *stall = (Stall){ .any = TRUE, .func = self->func, .usec = usec, .over = over };
  copy_name (stall->loop, core->name);
  copy_name (stall->source, self->source);
}

/* With the core's lock held. */
static BgPlace
get_place (BgCore *core)
{
  return (BgPlace){
    .steps = bg_inbox_get_steps (&core->inbox),
    .left = bg_inbox_get_left (&core->inbox),
    .awake = atomic_load (&core->thread.awake_at) != 0 && core->pause.phase != BG_PAUSE_STANDING,
  };
}

static gboolean
is_still_at (BgWatch *self, const BgPlace *place)
{
  return place->awake && place->steps == self->place.steps && place->left == self->place.left;
}

/* Notes what blocks the loop. If the loop has got on since it was looked at, the name that is read
 * may be that of something else: then nothing is noted, and the next look finds the new place. */
static void
begin_stall (BgWatch *self, gint64 now, Stall *stall)
{
  BgCore *core = self->link.data;
  BgPlace place;

  bg_schedule_point (BG_POINT_WATCH_NAMES);
  bg_core_lock_to_look (core);
  self->func = bg_inbox_get_blocking (&core->inbox);
  if (self->func == NULL && core->mailbox != NULL)
    self->func = bg_mailbox_get_blocking (core->mailbox);
  self->source = bg_core_dup_dispatched (core);
  place = get_place (core);
  bg_core_unlock_after_look (core);

  if (!is_still_at (self, &place))
    {
      g_clear_pointer (&self->source, g_free);
      return;
    }

  self->reported = TRUE;
  fill_stall (self, stall, now - self->since, FALSE);
}

/* When the loop has noted the time since then, it had gone on. */
static gint64
find_end (BgWatch *self, gint64 now)
{
  BgCore *core = self->link.data;
  gint64 awake_at = atomic_load (&core->thread.awake_at);
  gint64 started_at;

  bg_inbox_get_running (&core->inbox, &started_at);
  if (started_at > self->seen_at)
    now = MIN (now, started_at);
  if (awake_at > self->seen_at)
    now = MIN (now, awake_at);
  return now;
}

static void
end_stall (BgWatch *self, gint64 now, Stall *stall)
{
  fill_stall (self, stall, find_end (self, now) - self->since, TRUE);
  self->reported = FALSE;
  g_clear_pointer (&self->source, g_free);
}

/* Looking */

static BgPlace
look (BgWatch *self)
{
  BgCore *core = self->link.data;
  BgPlace place;

  bg_core_lock (core);
  place = get_place (core);
  bg_core_unlock (core);
  return place;
}

/* Says when to look at the loop again, in monotonic microseconds. */
static gint64
poll_watch (BgWatch *self, gint64 now, Stall *stall)
{
  BgPlace place = look (self);
  gint64 threshold = atomic_load (&self->threshold_msec) * G_TIME_SPAN_MILLISECOND;
  gint64 busy;

  if (!is_still_at (self, &place))
    {
      if (self->reported)
        end_stall (self, now, stall);
      self->place = place;
      self->since = self->seen_at = now;
      return now + MAX (threshold / POLLS, AGAIN_MIN_USEC);
    }

  self->seen_at = now;
  busy = now - self->since;
  if (busy < threshold)
    return self->since + threshold;
  if (!self->reported)
    begin_stall (self, now, stall);
  return now + CLAMP (busy / AGAIN_SHARE, AGAIN_MIN_USEC, AGAIN_MAX_USEC);
}

/* Until there is something to be said of one: the others are looked at after that. */
static gint64
look_at_all (BgWatchdog *self, Stall *stall)
{
  gint64 now = g_get_monotonic_time ();
  gint64 next = G_MAXINT64;

  for (GList *link = self->watches.head; link != NULL && !stall->any; link = link->next)
    {
      BgCore *core = link->data;
      gint64 again = poll_watch (&core->watch, now, stall);

      next = MIN (next, again);
    }

  return next;
}

/* A log handler has ended the thread. */
static void
exited_cb (gpointer data)
{
  BgWatchdog *self = data;

  if (self->fork_local.generation != bg_fork_generation ())
    return;

  bg_mutex_lock (&self->lock, BG_LOCK_WATCHDOG);
  if (self->thread == g_thread_self ())
    {
      g_clear_pointer (&self->thread, g_thread_unref);
      (void) start (self, NULL);
    }
  bg_mutex_unlock (&self->lock, BG_LOCK_WATCHDOG);
}

static void
report_guarded (BgWatchdog *self, Stall *stall)
{
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_push (exited_cb, self);
#endif
  report (stall);
#if HAVE_PTHREAD_ATFORK
  pthread_cleanup_pop (0);
#endif
}

/* Until the thread has been let go of. In a child that a log handler forked off there is
 * nothing to be looked at, and the lock may be another thread's for ever. */
static gpointer
watchdog_cb (gpointer data)
{
  BgWatchdog *self = data;
  Stall stall = { FALSE };

  bg_mutex_lock (&self->lock, BG_LOCK_WATCHDOG);
  while (self->thread == g_thread_self ())
    {
      gint64 next = look_at_all (self, &stall);

      if (!stall.any)
        {
          g_cond_wait_until (&self->changed, &self->lock, next);
          continue;
        }

      bg_mutex_unlock (&self->lock, BG_LOCK_WATCHDOG);
      report_guarded (self, &stall);
      if (self->fork_local.generation != bg_fork_generation ())
        return NULL;
      bg_mutex_lock (&self->lock, BG_LOCK_WATCHDOG);
    }
  bg_mutex_unlock (&self->lock, BG_LOCK_WATCHDOG);

  return NULL;
}

/* With the lock held: there is a thread if there is anything to be watched. */
static gboolean
start (BgWatchdog *self, GError **error)
{
  if (self->watches.length > 0 && self->thread == NULL)
    self->thread = g_thread_try_new ("bgloop watchdog", watchdog_cb, self, error);
  return self->watches.length == 0 || self->thread != NULL;
}

/* Watches */

/* What the environment says, for each loop that nothing else is said of; -1: no number. */
static int
get_default_threshold (void)
{
  static int known = -2; /* atomic */
  int msec = g_atomic_int_get (&known);
  const char *text;
  guint64 number = 0;

  if (msec != -2)
    return msec;

  text = g_getenv ("BGLOOP_STALL");
  if (text != NULL && !g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT, &number, NULL))
    msec = -1;
  else
    msec = (int) number;
  g_atomic_int_set (&known, msec);
  return msec;
}

static void
warn_of_environment (void)
{
  static int warned; /* atomic */

  if (g_atomic_int_compare_and_exchange (&warned, FALSE, TRUE))
    g_warning ("BGLOOP_STALL is a number of milliseconds, not \"%s\"", g_getenv ("BGLOOP_STALL"));
}

void
bg_watch_init (BgWatch *self, BgCore *core)
{
  int msec = get_default_threshold ();

  self->link.data = core;
  atomic_store (&self->threshold_msec, (guint) MAX (0, msec));
}

void
bg_watch_clear (BgWatch *self)
{
  g_free (self->source);
}

/* What the loop runs already counts from now on. */
static void
link_watch (BgWatchdog *watchdog, BgWatch *self, GError **error)
{
  self->place = look (self);
  self->since = self->seen_at = g_get_monotonic_time ();
  self->reported = FALSE;
  g_queue_push_tail_link (&watchdog->watches, &self->link);
  self->linked = TRUE;
  start (watchdog, error);
}

static void
unlink_watch (BgWatchdog *watchdog, BgWatch *self)
{
  g_queue_unlink (&watchdog->watches, &self->link);
  self->linked = FALSE;
  self->reported = FALSE;
  g_clear_pointer (&self->source, g_free);
  if (watchdog->watches.length == 0)
    g_clear_pointer (&watchdog->thread, g_thread_unref);
}

/* Begins or ends the watch, as the threshold and the loop's life say, and gives the lock up. */
static void
update_and_unlock (BgWatchdog *watchdog, BgWatch *self)
{
  gboolean ended = bg_core_has_ended (self->link.data);
  gboolean wanted = atomic_load (&self->threshold_msec) > 0 && atomic_load (&self->began) && !ended;
  g_autoptr (GError) error = NULL;
  Stall stall = { FALSE };

  if (self->linked && ended && self->reported)
    end_stall (self, g_get_monotonic_time (), &stall);
  if (wanted && !self->linked)
    link_watch (watchdog, self, &error);
  else if (!wanted && self->linked)
    unlink_watch (watchdog, self);
  g_cond_broadcast (&watchdog->changed);
  bg_mutex_unlock (&watchdog->lock, BG_LOCK_WATCHDOG);

  if (stall.any)
    report (&stall);
  if (error != NULL)
    g_warning ("What blocks a loop is not reported: %s", error->message);
}

/* On the loop's thread, without a lock: the thread has begun. */
void
bg_watch_begin (BgWatch *self)
{
  BgWatchdog *watchdog = watchdog_get ();

  /* Whoever sets a threshold later sees that the thread has begun. */
  atomic_store (&self->began, TRUE);
  if (atomic_load (&self->threshold_msec) > 0)
    {
      bg_mutex_lock (&watchdog->lock, BG_LOCK_WATCHDOG);
      update_and_unlock (watchdog, self);
    }

  if (get_default_threshold () == -1)
    warn_of_environment ();
}

/* On the loop's thread, without a lock: everything has had its outcome. */
void
bg_watch_end (BgWatch *self)
{
  BgWatchdog *watchdog = watchdog_get ();

  /* Whoever sets a threshold later sees that the loop has ended. */
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

/* Any thread, without a lock. TRUE if the threshold was another one before. */
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
