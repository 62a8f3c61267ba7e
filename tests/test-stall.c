/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "util.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/* ThreadSanitizer lets a forked child start no threads, and the allocator of
 * AddressSanitizer has locks that do not survive a fork. */
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)                                \
    || defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define WITH_SANITIZER 1
#else
#define WITH_SANITIZER 0
#endif

/* What blocks a loop is reported while it does. Nothing here goes by the clock: what blocks
 * does so until it is reported, and what is not to be reported is there for as many reports
 * of something else. */

/* How many reports of another loop are waited for where there is to be none. */
#define OTHERS 10

#define A_MINUTE_MSEC 60000

/* What was reported */

static GMutex lock;
static GCond reported;
static GPtrArray *reports;                 /* under lock: of char * */
static void (*handler) (const char *text); /* (nullable) runs once more on the watchdog */

static GLogWriterOutput
report_cb (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer user_data)
{
  const char *text = NULL;

  if ((level & G_LOG_LEVEL_WARNING) == 0)
    return g_log_writer_default (level, fields, n_fields, user_data);

  for (gsize i = 0; i < n_fields; i++)
    {
      if (g_str_equal (fields[i].key, "MESSAGE"))
        text = fields[i].value;
      else if (g_str_equal (fields[i].key, "GLIB_DOMAIN"))
        g_assert_cmpstr (fields[i].value, ==, "bgloop");
    }
  g_mutex_lock (&lock);
  g_ptr_array_add (reports, g_strdup (text));
  g_cond_broadcast (&reported);
  g_mutex_unlock (&lock);
  if (handler != NULL)
    handler (text);
  return G_LOG_WRITER_HANDLED;
}

static void
catch_reports (void)
{
  reports = g_ptr_array_new_with_free_func (g_free);
  g_log_set_always_fatal (G_LOG_FATAL_MASK);
  g_log_set_writer_func (report_cb, NULL, NULL);
}

/* With the lock held. */
static guint
count_locked (const char *pattern)
{
  guint n = 0;

  for (guint i = 0; i < reports->len; i++)
    n += g_pattern_match_simple (pattern, g_ptr_array_index (reports, i));
  return n;
}

static guint
count_reports (const char *pattern)
{
  guint n;

  g_mutex_lock (&lock);
  n = count_locked (pattern);
  g_mutex_unlock (&lock);

  return n;
}

static void
wait_for_reports (const char *pattern, guint n)
{
  g_mutex_lock (&lock);
  while (count_locked (pattern) < n)
    g_cond_wait (&reported, &lock);
  g_mutex_unlock (&lock);
}

/* What blocks */

static void
set_threshold (BgLoop *loop, guint msec)
{
  guint now;

  g_object_set (loop, "stall-threshold", msec, NULL);
  g_object_get (loop, "stall-threshold", &now, NULL);
  g_assert_cmpuint (now, ==, msec);
}

/* The same, where a log handler may set another one at once. */
static void
start_watch (BgLoop *loop)
{
  g_object_set (loop, "stall-threshold", 1, NULL);
}

static BgLoop *
watched_loop_new (const char *name)
{
  BgLoop *loop = util_loop_new (name);

  set_threshold (loop, 1);
  return loop;
}

#define BLOCKS UTIL_NAME (stall_blocks, "*")

/* Exported, so that it has a name. Blocks until what it does is reported. */
void stall_blocks (gpointer pattern);

void
stall_blocks (gpointer pattern)
{
  wait_for_reports (pattern, 1);
}

static gboolean
stall_source_cb (gpointer pattern)
{
  wait_for_reports (pattern, 1);
  return G_SOURCE_REMOVE;
}

static void
post_blocking (BgLoop *loop, const char *pattern)
{
  g_assert_true (bg_loop_post (loop, stall_blocks, (gpointer) pattern, NULL));
}

/* The loop named "other" is reported so many times. */
static void
report_others (guint n)
{
  BgLoop *other = watched_loop_new ("other");

  for (guint i = 0; i < n; i++)
    {
      UtilBlock block;

      util_block (&block, other);
      wait_for_reports ("*\"other\" has been*", i + 1);
      util_unblock (&block);
      wait_for_reports ("*\"other\" was*", i + 1);
      g_assert_true (bg_loop_flush (other, -1, NULL, NULL));
      util_block_clear (&block);
    }
  util_loop_end (other);
}

/* What is reported */

static void
test_function (void)
{
  BgLoop *loop = watched_loop_new ("function");

  post_blocking (loop, "The loop \"function\" has been kept busy by " BLOCKS " for * ms");
  wait_for_reports ("The loop \"function\" was kept busy by " BLOCKS " for * ms", 1);
  g_assert_cmpuint (count_reports ("*by " BLOCKS " for*"), ==, 2);
  util_loop_end (loop);
}

/* The notify is named, not what was run before it. */

typedef void (*GiveFunc) (BgLoop *loop, gpointer pattern);

static void
check_destroy (const char *name, GiveFunc give)
{
  g_autofree char *pattern
      = g_strdup_printf ("The loop \"%s\" has been kept busy by " BLOCKS " for * ms", name);
  g_autofree char *end
      = g_strdup_printf ("The loop \"%s\" was kept busy by " BLOCKS " for * ms", name);
  BgLoop *loop = watched_loop_new (name);

  give (loop, pattern);
  util_loop_end (loop);
  g_assert_cmpuint (count_reports (pattern), ==, 1);
  g_assert_cmpuint (count_reports (end), ==, 1);
}

static void
give_post (BgLoop *loop, gpointer pattern)
{
  g_assert_true (bg_loop_post (loop, util_nothing_cb, pattern, stall_blocks));
}

static void
give_delayed (BgLoop *loop, gpointer pattern)
{
  g_assert_true (bg_loop_post_after (loop, 0, util_nothing_cb, pattern, stall_blocks) != 0);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
}

static void
give_withdrawn (BgLoop *loop, gpointer pattern)
{
  guint64 id = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, pattern, stall_blocks);

  g_assert_true (bg_loop_withdraw (loop, id));
}

static gboolean
once_cb (gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

static void
give_invoked (BgLoop *loop, gpointer pattern)
{
  g_assert_true (bg_loop_invoke_full (loop, 0, once_cb, pattern, stall_blocks));
}

static void
give_call (BgLoop *loop, gpointer pattern)
{
  bg_loop_call_async (loop, 0, -1, util_true_cb, pattern, stall_blocks, NULL, NULL, NULL);
}

static void
give_teardown (BgLoop *loop, gpointer pattern)
{
  g_assert_true (bg_loop_add_teardown (loop, util_nothing_cb, pattern, stall_blocks) != 0);
}

static void
give_removed_teardown (BgLoop *loop, gpointer pattern)
{
  guint64 id = bg_loop_add_teardown (loop, util_not_reached_cb, pattern, stall_blocks);

  g_assert_true (bg_loop_remove_teardown (loop, id));
}

static void
test_destroy (void)
{
  check_destroy ("post", give_post);
  check_destroy ("delayed", give_delayed);
  check_destroy ("withdrawn", give_withdrawn);
  check_destroy ("invoked-data", give_invoked);
  check_destroy ("call", give_call);
  check_destroy ("teardown-data", give_teardown);
  check_destroy ("removed-teardown", give_removed_teardown);
}

/* The function that it ran within goes on, and is named again. */

typedef struct
{
  BgLoop *loop;
  UtilLatch entered;
  UtilLatch given;
  UtilLatch destroyed;
  const char *pattern;
} Within;

/* Exported, so that it has a name. */
void stall_around (gpointer within);

void
stall_around (gpointer within)
{
  Within *self = within;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->given);
  while (!util_latch_is_open (&self->destroyed))
    g_main_context_iteration (bg_loop_get_context (self->loop), FALSE);
  wait_for_reports (self->pattern, 1);
}

static void
test_destroy_within (void)
{
  Within self
      = { .pattern = "*\"within\" has been kept busy by " UTIL_NAME (stall_around, "*") " for*" };

  util_latch_init (&self.entered, 1);
  util_latch_init (&self.given, 1);
  util_latch_init (&self.destroyed, 1);
  self.loop = util_loop_new ("within");
  g_assert_true (bg_loop_post (self.loop, stall_around, &self, NULL));
  util_latch_wait (&self.entered);
  g_assert_true (bg_loop_invoke_full (self.loop, 0, once_cb, &self.destroyed, util_count_down_cb));
  util_latch_count_down (&self.given);
  util_latch_wait (&self.destroyed);
  set_threshold (self.loop, 1);
  util_loop_end (self.loop);
  util_latch_clear (&self.destroyed);
  util_latch_clear (&self.given);
  util_latch_clear (&self.entered);
}

/* A destroy notify may run other work: that is named while it blocks, then the notify again. */

typedef struct
{
  BgLoop *loop;
  const char *work;
  const char *notify;
} Iterating;

/* Exported, so that it has a name. */
void stall_iterates (gpointer iterating);

void
stall_iterates (gpointer iterating)
{
  Iterating *self = iterating;
  guint n;

  post_blocking (self->loop, self->work);
  while (count_reports (self->work) == 0)
    g_main_context_iteration (bg_loop_get_context (self->loop), FALSE);
  n = count_reports (self->notify);
  wait_for_reports (self->notify, n + 1);
}

static void
test_destroy_iterates (void)
{
  Iterating self = {
    .work = "*\"iterates\" has been kept busy by " BLOCKS " for*",
    .notify = "*\"iterates\" has been kept busy by " UTIL_NAME (stall_iterates, "*") " for*",
  };

  self.loop = watched_loop_new ("iterates");
  g_assert_true (bg_loop_post (self.loop, util_nothing_cb, &self, stall_iterates));
  util_loop_end (self.loop);
  g_assert_cmpuint (count_reports (self.work), ==, 1);
}

/* A notify has ended when it has returned, also if the function that it ran within blocks. */

/* Exported, so that it has a name. */
void stall_dispatches (gpointer iterating);

void
stall_dispatches (gpointer iterating)
{
  Iterating *self = iterating;

  while (count_reports (self->notify) == 0)
    g_main_context_iteration (bg_loop_get_context (self->loop), FALSE);
  wait_for_reports ("*\"ends\" was kept busy by " BLOCKS " for*", 1);
  wait_for_reports (self->work, 1);
}

static void
test_destroy_ends (void)
{
  Iterating self = {
    .work = "*\"ends\" has been kept busy by " UTIL_NAME (stall_dispatches, "*") " for*",
    .notify = "*\"ends\" has been kept busy by " BLOCKS " for*",
  };

  self.loop = util_loop_new ("ends");
  set_threshold (self.loop, 100);
  g_assert_true (bg_loop_post (self.loop, stall_dispatches, &self, NULL));
  g_assert_true (bg_loop_invoke_full (self.loop, 0, once_cb, (gpointer) self.notify, stall_blocks));
  util_loop_end (self.loop);
  g_assert_cmpuint (count_reports (self.notify), ==, 1);
}

static void
exit_cb (gpointer user_data)
{
  g_thread_exit (NULL);
}

/* One that has ended the thread does not block what comes after it. */
static void
test_destroy_exits (void)
{
  char pattern[] = "The loop \"gone\" has been kept busy by a source of its context for * ms";
  BgLoop *loop = watched_loop_new ("gone");
  GSource *source = g_timeout_source_new (A_MINUTE_MSEC);

  g_source_set_callback (source, once_cb, pattern, stall_blocks);
  g_assert_true (bg_loop_attach (loop, source));
  g_source_unref (source);
  g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, exit_cb));
  util_loop_end (loop);
  g_assert_cmpuint (count_reports (pattern), ==, 1);
}

/* What a function invokes on its own loop is part of it, the notifies, too: it blocks the loop. */

typedef struct
{
  BgLoop *loop;
  const char *pattern;
} Invoking;

static void
invoking_cb (gpointer invoking)
{
  Invoking *self = invoking;

  while (count_reports (self->pattern) == 0)
    g_assert_true (bg_loop_invoke_full (self->loop, 0, once_cb, NULL, util_nothing_cb));
}

static void
test_invokes (void)
{
  Invoking self = { .pattern = "*\"invokes\" has been kept busy by * for*" };

  self.loop = util_loop_new ("invokes");
  /* Longer than the thread is without a processor. */
  set_threshold (self.loop, 100);
  g_assert_true (bg_loop_post (self.loop, invoking_cb, &self, NULL));
  util_loop_end (self.loop);
  g_assert_cmpuint (count_reports (self.pattern), ==, 1);
}

/* A destroy notify is told apart from the function before it: each is reported. */

typedef struct
{
  const char *pattern;
  guint n;
} Both;

static void
stall_again_cb (gpointer user_data)
{
  Both *self = user_data;

  wait_for_reports (self->pattern, ++self->n);
}

static void
test_function_and_destroy (void)
{
  Both self = { "The loop \"both\" has been kept busy by *" };
  BgLoop *loop = watched_loop_new ("both");

  g_assert_true (bg_loop_post (loop, stall_again_cb, &self, stall_again_cb));
  wait_for_reports ("The loop \"both\" was kept busy by *", 2);
  util_loop_end (loop);
  g_assert_cmpuint (self.n, ==, 2);
}

/* The first one turns the watch on: until then nothing is reported. */
static gboolean
stall_again_source_cb (gpointer user_data)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();

  start_watch (loop);
  stall_again_cb (user_data);
  return G_SOURCE_REMOVE;
}

/* A source and an invoked function that come in one turn of the context are told apart. */
static void
test_source_and_invoked (void)
{
  Both self = { "The loop \"in turn\" has been kept busy by *" };
  BgLoop *loop = util_loop_new ("in turn");
  GSource *source = g_idle_source_new ();
  UtilBlock block;

  util_block (&block, loop);
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, stall_again_source_cb, &self, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_source_unref (source);
  g_assert_true (bg_loop_invoke (loop, stall_again_source_cb, &self));
  util_unblock (&block);
  wait_for_reports ("The loop \"in turn\" was kept busy by *", 2);
  util_loop_end (loop);
  util_block_clear (&block);
  g_assert_cmpuint (self.n, ==, 2);
}

static void
test_invoked (void)
{
  char pattern[] = "The loop \"invoked\" has been kept busy by * for * ms";
  BgLoop *loop = watched_loop_new ("invoked");

  g_assert_true (bg_loop_invoke (loop, stall_source_cb, pattern));
  wait_for_reports ("The loop \"invoked\" was*", 1);
  util_loop_end (loop);
}

/* The callback of a reply */

void stall_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data);

void
stall_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  stall_source_cb (user_data);
}

typedef struct
{
  BgLoop *asked;
  char *pattern;
} Asking;

static void
ask_cb (gpointer user_data)
{
  Asking *self = user_data;

  bg_loop_call_async (self->asked, 0, -1, util_true_cb, NULL, NULL, NULL, stall_reply_cb,
                      self->pattern);
}

static void
test_reply (void)
{
  char pattern[]
      = "The loop \"reply\" has been kept busy by " UTIL_NAME (stall_reply_cb, "*") " for * ms";
  BgLoop *loop = watched_loop_new ("reply");
  Asking self = { util_loop_new ("asked"), pattern };

  g_assert_true (bg_loop_post (loop, ask_cb, &self, NULL));
  wait_for_reports ("The loop \"reply\" was*", 1);
  util_loop_end (loop);
  util_loop_end (self.asked);
}

static void
check_source (const char *name, int priority, const char *report, const char *end)
{
  BgLoop *loop = util_loop_new ("source");
  GSource *source = g_idle_source_new ();

  /* Longer than the thread takes from its waking up to the source. */
  set_threshold (loop, 100);
  g_source_set_name (source, name);
  g_source_set_priority (source, priority);
  g_source_set_callback (source, stall_source_cb, (gpointer) report, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  g_source_unref (source);
  wait_for_reports (end, 1);
  util_loop_end (loop);
}

static void
test_source (void)
{
  check_source ("slow one", G_PRIORITY_DEFAULT,
                "The loop \"source\" has been kept busy by the source \"slow one\" for * ms",
                "The loop \"source\" was kept busy by the source \"slow one\" for * ms");
  check_source ("urgent one", -4711,
                "The loop \"source\" has been kept busy by the source \"urgent one\" for * ms",
                "The loop \"source\" was kept busy by the source \"urgent one\" for * ms");
}

static void
test_nameless_source (void)
{
  check_source (NULL, G_PRIORITY_DEFAULT,
                "The loop \"source\" has been kept busy by a source of its context for * ms",
                "The loop \"source\" was kept busy by a source of its context for * ms");
}

/* At the very end, too. */
static void
test_teardown (void)
{
  char pattern[] = "The loop \"teardown\" has been kept busy by " BLOCKS " for * ms";
  BgLoop *loop = watched_loop_new ("teardown");

  g_assert_cmpuint (bg_loop_add_teardown (loop, stall_blocks, pattern, NULL), !=, 0);
  util_loop_end (loop);
  g_assert_cmpuint (count_reports ("*\"teardown\" has been kept busy by " BLOCKS "*"), ==, 1);
  g_assert_cmpuint (count_reports ("*\"teardown\" was kept busy by " BLOCKS "*"), ==, 1);
}

/* A name that is too long ends with a whole character, wherever the cut is. */
static void
test_long_name (void)
{
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GString) name = g_string_new (i == 0 ? "" : "x");
      BgLoop *loop;

      while (name->len < 400)
        g_string_append (name, "é");
      loop = watched_loop_new (name->str);
      post_blocking (loop, i == 0 ? "The loop \"é*has been*" : "The loop \"x*has been*");
      util_loop_end (loop);
    }
  g_assert_cmpuint (reports->len, ==, 4);
  for (guint i = 0; i < reports->len; i++)
    g_assert_true (g_utf8_validate (g_ptr_array_index (reports, i), -1, NULL));
}

/* When it is reported */

/* However long it goes on. */
static void
test_once (void)
{
  BgLoop *loop = util_loop_new ("once");
  UtilBlock block;

  util_block (&block, loop);
  set_threshold (loop, 1);
  wait_for_reports ("*\"once\" has been*", 1);
  report_others (OTHERS);
  g_assert_cmpuint (count_reports ("*\"once\"*"), ==, 1);
  util_unblock (&block);
  wait_for_reports ("*\"once\" was*", 1);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* Each function is something else, also where several have run since the loop last looked at the
 * clock: it does so less often after many that took no time. */

#define N_FAST 100
#define N_SLOW 3

static void
block_again_cb (gpointer user_data)
{
  guint *n_slow = user_data;

  wait_for_reports ("*\"batch\" has been kept busy*", ++*n_slow);
}

static void
test_batch (void)
{
  BgLoop *loop = util_loop_new ("batch");
  guint n_slow = 0, n = 0;
  UtilBlock block;

  util_block (&block, loop);
  for (; n < 4; n++)
    {
      for (guint i = 0; i < N_FAST; i++)
        g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
      for (guint i = 0; i < N_SLOW; i++)
        g_assert_true (bg_loop_post (loop, block_again_cb, &n_slow, NULL));
    }
  util_unblock (&block);
  set_threshold (loop, 1);
  util_loop_end (loop);
  g_assert_cmpuint (n_slow, ==, n * N_SLOW);
  util_block_clear (&block);
}

#define N_BRIEF       16 /* loops */
#define BRIEF_USEC    1000
#define BRIEF_USEC_TO 2200

/* This is the load: a stall of about the threshold, asleep, so that it may be over as the watchdog
 * looks. Nothing waits for it to be over at a certain time. */
static void
brief_cb (gpointer data)
{
  g_usleep (g_random_int_range (BRIEF_USEC, BRIEF_USEC_TO));
}

/* What is over just as it is found, too. After the last report, which is waited for, there is
 * none on its way. */
static void
test_brief (void)
{
  BgLoop *loops[N_BRIEF];
  char *last[N_BRIEF];

  for (guint i = 0; i < N_BRIEF; i++)
    {
      g_autofree char *name = g_strdup_printf ("brief %u", i);

      loops[i] = watched_loop_new (name);
      for (guint j = 0; j < util_scale (400); j++)
        bg_loop_post (loops[i], brief_cb, NULL, NULL);
      last[i] = g_strdup_printf ("*\"brief %u\" has been kept busy by " BLOCKS " for*", i);
      post_blocking (loops[i], last[i]);
    }
  for (guint i = 0; i < N_BRIEF; i++)
    {
      g_autofree char *over = g_strdup_printf ("*\"brief %u\" was kept busy by " BLOCKS " for*", i);

      wait_for_reports (over, 1);
      util_loop_end (loops[i]);
      g_free (last[i]);
    }

  /* Of one loop they are in order. */
  for (guint i = 0; i < N_BRIEF; i++)
    {
      g_autofree char *any = g_strdup_printf ("*\"brief %u\"*", i);
      gboolean begun = FALSE;

      for (guint j = 0; j < reports->len; j++)
        {
          const char *text = g_ptr_array_index (reports, j);

          if (!g_pattern_match_simple (any, text))
            continue;
          begun = !begun;
          g_assert_true (begun == (strstr (text, "has been") != NULL));
        }
      g_assert_false (begun);
    }
}

static gboolean
is_awake (BgLoop *loop)
{
  g_autofree char *text = bg_loop_describe (loop);

  return strstr (text, "busy") != NULL || strstr (text, "running ") != NULL;
}

static void
test_asleep (void)
{
  BgLoop *loop = util_loop_new ("asleep");
  guint looks = 0;

  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  while (looks < 1000)
    {
      looks = is_awake (loop) ? 0 : looks + 1;
      g_thread_yield ();
    }
  set_threshold (loop, 1);
  report_others (OTHERS);
  g_assert_cmpuint (count_reports ("*\"asleep\"*"), ==, 0);
  set_threshold (loop, 0);
  util_loop_end (loop);
}

/* One that stands still for a test is not blocked. */
static void
test_paused (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = util_loop_new ("paused");

  g_assert_true (bg_test_pause (loop, &error));
  g_assert_no_error (error);
  set_threshold (loop, 1);
  report_others (OTHERS);
  g_assert_cmpuint (count_reports ("*\"paused\"*"), ==, 0);
  set_threshold (loop, 0);
  bg_test_resume (loop);
  util_loop_end (loop);
}

static void
test_off (void)
{
  BgLoop *loop = util_loop_new ("off");
  UtilBlock block;

  util_block (&block, loop);
  report_others (OTHERS);
  set_threshold (loop, 1);
  wait_for_reports ("*\"off\" has been*", 1);
  set_threshold (loop, 0);
  util_unblock (&block);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  report_others (OTHERS);
  g_assert_cmpuint (count_reports ("*\"off\"*"), ==, 1);
  util_loop_end (loop);
  util_block_clear (&block);
}

static void
wait_for_thread_count (guint n)
{
  while (util_count_threads () != n)
    g_thread_yield ();
}

/* The one thread of it is there only while a loop is watched. */
static void
test_thread (void)
{
  guint n = util_count_threads ();
  BgLoop *one, *two;

  one = watched_loop_new ("one");
  wait_for_thread_count (n + 2);
  two = watched_loop_new ("two");
  g_assert_true (bg_loop_flush (two, -1, NULL, NULL));
  wait_for_thread_count (n + 3);
  set_threshold (one, 0);
  g_assert_cmpuint (util_count_threads (), ==, n + 3);
  util_loop_end (two);
  wait_for_thread_count (n + 1);
  set_threshold (one, 1);
  wait_for_thread_count (n + 2);
  g_assert_true (bg_loop_shutdown (one, NULL));
  wait_for_thread_count (n);
  set_threshold (one, 7);
  g_assert_cmpuint (util_count_threads (), ==, n);
  g_object_unref (one);
}

static void
count_notify_cb (GObject *object, GParamSpec *pspec, gpointer user_data)
{
  util_count_cb (user_data);
}

static void
test_property (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = g_initable_new (BG_TYPE_LOOP, NULL, &error, "name", "property", "stall-threshold",
                                 G_MAXINT, NULL);
  int notified = 0;
  guint msec;

  g_assert_no_error (error);
  g_object_get (loop, "stall-threshold", &msec, NULL);
  g_assert_cmpuint (msec, ==, G_MAXINT);
  g_signal_connect (loop, "notify::stall-threshold", G_CALLBACK (count_notify_cb), &notified);
  set_threshold (loop, 5);
  set_threshold (loop, 5);
  set_threshold (loop, 0);
  g_assert_cmpint (notified, ==, 2);
  util_loop_end (loop);
}

/* The environment */

static void
test_environment (void)
{
  BgLoop *loop;
  guint msec;

  g_setenv ("BGLOOP_STALL", "1", TRUE);
  loop = util_loop_new ("environment");
  g_object_get (loop, "stall-threshold", &msec, NULL);
  g_assert_cmpuint (msec, ==, 1);
  post_blocking (loop, "*\"environment\" has been*");
  wait_for_reports ("*\"environment\" was*", 1);
  set_threshold (loop, 0);
  util_loop_end (loop);
}

static void
test_bad_environment (void)
{
  g_setenv ("BGLOOP_STALL", "soon", TRUE);
  util_loop_end (util_loop_new ("one"));
  util_loop_end (util_loop_new ("two"));
  g_assert_cmpuint (count_reports ("BGLOOP_STALL is a number of milliseconds, not \"soon\""), ==,
                    1);
  g_assert_cmpuint (count_reports ("*"), ==, 1);
}

/* Log handlers are code of others, and do what they like. */

static BgLoop *handled;
static UtilBlock *handled_block;
static UtilLatch handled_latch;

static void
shut_down_handler (const char *text)
{
  handler = NULL;
  util_unblock (handled_block);
  g_assert_true (bg_loop_shutdown (handled, NULL));
  util_latch_count_down (&handled_latch);
}

static void
turn_off_handler (const char *text)
{
  handler = NULL;
  set_threshold (handled, 0);
  set_threshold (handled, 1);
  set_threshold (handled, 0);
  util_unblock (handled_block);
  util_latch_count_down (&handled_latch);
}

static void
check_handler (void (*func) (const char *text))
{
  guint n_threads = util_count_threads ();
  UtilBlock block;

  handled = util_loop_new ("handled");
  handled_block = &block;
  util_latch_init (&handled_latch, 1);
  util_block (&block, handled);
  handler = func;
  start_watch (handled);
  util_latch_wait (&handled_latch);
  bg_loop_shutdown (handled, NULL);
  g_object_unref (handled);
  util_wait_for_threads (n_threads);
  util_block_clear (&block);
  util_latch_clear (&handled_latch);
}

static void
test_handler_shuts_down (void)
{
  check_handler (shut_down_handler);
}

static void
test_handler_turns_off (void)
{
  check_handler (turn_off_handler);
}

/* One watchdog is let go of in a log handler, and another waits for a loop in its own. */

static BgLoop *second;
static UtilBlock *second_block;
static UtilLatch second_reported, first_returns;

static void
second_handler (const char *text)
{
  if (strstr (text, "\"first\" has") != NULL)
    {
      set_threshold (handled, 0);
      start_watch (second);
      util_latch_wait (&second_reported);
    }
  else if (strstr (text, "\"second\" has") != NULL)
    {
      handler = NULL;
      util_latch_count_down (&second_reported);
      util_latch_wait (&first_returns);
      util_unblock (second_block);
      g_assert_true (bg_loop_shutdown (second, NULL));
      util_latch_count_down (&handled_latch);
    }
}

static void
test_two_watchdogs (void)
{
  UtilBlock block, other_block;

  util_latch_init (&second_reported, 1);
  util_latch_init (&first_returns, 1);
  util_latch_init (&handled_latch, 1);
  handled = util_loop_new ("first");
  second = util_loop_new ("second");
  second_block = &other_block;
  util_block (&block, handled);
  util_block (&other_block, second);
  handler = second_handler;
  start_watch (handled);
  util_latch_wait (&second_reported);
  util_latch_count_down (&first_returns);
  util_latch_wait (&handled_latch);
  util_unblock (&block);
  util_loop_end (handled);
  g_object_unref (second);
  util_block_clear (&block);
  util_block_clear (&other_block);
}

/* What waits in a destructor of the thread's waits for nobody that waits for the thread. */

static void
shut_down_destructor (gpointer data)
{
  g_assert_true (bg_loop_shutdown (handled, NULL));
  util_latch_count_down (&handled_latch);
}

static GPrivate shuts_down = G_PRIVATE_INIT (shut_down_destructor);

static void
destructor_handler (const char *text)
{
  handler = NULL;
  g_private_set (&shuts_down, handled);
  set_threshold (handled, 0);
  util_unblock (handled_block);
}

static void
test_handler_leaves_destructor (void)
{
  check_handler (destructor_handler);
}

static void
exit_handler (const char *text)
{
  handler = NULL;
  g_thread_exit (NULL);
}

/* The loop is looked at all the same, and so are others that come. */
static void
test_handler_exits (void)
{
  for (guint i = 1; i <= 2; i++)
    {
      BgLoop *loop = watched_loop_new ("exits");
      UtilBlock block;

      handler = exit_handler;
      util_block (&block, loop);
      wait_for_reports ("*\"exits\" has been*", i);
      if (i == 2)
        report_others (1);
      util_unblock (&block);
      wait_for_reports ("*\"exits\" was*", i);
      util_loop_end (loop);
      util_block_clear (&block);
    }
}

static pid_t handler_child;

static void
fork_handler (const char *text)
{
  handler = NULL;
  handler_child = fork ();
  if (handler_child != 0)
    util_latch_count_down (&handled_latch);
}

/* The child has no other thread, and ends. */
static void
test_handler_forks (void)
{
  BgLoop *loop = util_loop_new ("forks");
  UtilBlock block;

  util_latch_init (&handled_latch, 1);
  util_block (&block, loop);
  handler = fork_handler;
  start_watch (loop);
  util_latch_wait (&handled_latch);
  util_wait_for_child (handler_child);
  util_unblock (&block);
  wait_for_reports ("*\"forks\" was*", 1);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* The warning comes without a lock of the library's. */
static void
default_handler (const char *text)
{
  handler = NULL;
  g_object_unref (bg_loop_dup_default (NULL));
}

static void
test_bad_environment_of_default (void)
{
  BgLoop *loop;

  g_setenv ("BGLOOP_STALL", "-1", TRUE);
  handler = default_handler;
  loop = bg_loop_dup_default (NULL);
  util_loop_end (loop);
  g_assert_cmpuint (count_reports ("BGLOOP_STALL*"), ==, 1);
}

/* Forked off while the watchdog is there, or is not. */
static void
test_fork (void)
{
  BgLoop *loop = watched_loop_new ("parent");
  pid_t pid = util_fork ();

  if (pid == 0)
    {
      g_object_set (loop, "stall-threshold", 9, NULL);
      g_object_set (loop, "stall-threshold", 0, NULL);
      g_object_unref (loop);
      test_function ();
      _exit (0);
    }
  util_wait_for_child (pid);
  util_loop_end (loop);
}

/* Thresholds come and go while loops do; none is so low that something may be reported as the
 * process ends. */
static gpointer
race_thread (gpointer data)
{
  for (guint i = 0; i < util_scale (300); i++)
    {
      BgLoop *loop = util_loop_new ("race");
      BgLoop *own = i % 3 == 0 ? g_object_ref (loop) : NULL;

      g_object_set (loop, "stall-threshold", i % 2 == 0 ? A_MINUTE_MSEC : 2 * A_MINUTE_MSEC, NULL);
      bg_loop_post (loop, util_nothing_cb, NULL, NULL);
      if (i % 5 == 0)
        bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      g_object_set (loop, "stall-threshold", i % 4 * A_MINUTE_MSEC, NULL);
      if (own != NULL)
        bg_loop_shutdown (own, NULL);
      g_object_set (loop, "stall-threshold", i % 7 * A_MINUTE_MSEC, NULL);
      g_clear_object (&own);
      g_object_unref (loop);
    }
  return NULL;
}

static void
test_race (void)
{
  guint n_threads = util_count_threads ();

  util_run_threads (4, race_thread, NULL);
  util_wait_for_threads (n_threads);
}

int
main (int argc, char *argv[])
{
  g_setenv ("G_SLICE", "always-malloc", TRUE);
  util_init (&argc, &argv);
  g_unsetenv ("BGLOOP_STALL");
  catch_reports ();

  util_add_trapped ("/stall/function", test_function);
  util_add_trapped ("/stall/destroy", test_destroy);
  util_add_trapped ("/stall/destroy/within", test_destroy_within);
  util_add_trapped ("/stall/destroy/iterates", test_destroy_iterates);
  util_add_trapped ("/stall/destroy/ends", test_destroy_ends);
  util_add_trapped ("/stall/destroy/exits", test_destroy_exits);
  util_add_trapped ("/stall/invokes", test_invokes);
  util_add_trapped ("/stall/function-and-destroy", test_function_and_destroy);
  util_add_trapped ("/stall/source-and-invoked", test_source_and_invoked);
  util_add_trapped ("/stall/invoked", test_invoked);
  util_add_trapped ("/stall/reply", test_reply);
  util_add_trapped ("/stall/source", test_source);
  util_add_trapped ("/stall/nameless-source", test_nameless_source);
  util_add_trapped ("/stall/teardown", test_teardown);
  util_add_trapped ("/stall/long-name", test_long_name);
  util_add_trapped ("/stall/batch", test_batch);
  util_add_trapped ("/stall/once", test_once);
  util_add_trapped ("/stall/brief", test_brief);
  util_add_trapped ("/stall/asleep", test_asleep);
  util_add_trapped ("/stall/paused", test_paused);
  util_add_trapped ("/stall/off", test_off);
  util_add_trapped ("/stall/thread", test_thread);
  util_add_trapped ("/stall/property", test_property);
  util_add_trapped ("/stall/environment", test_environment);
  util_add_trapped ("/stall/environment/bad", test_bad_environment);
  util_add_trapped ("/stall/handler/shuts-down", test_handler_shuts_down);
  util_add_trapped ("/stall/handler/turns-off", test_handler_turns_off);
  util_add_trapped ("/stall/environment/bad/default", test_bad_environment_of_default);
  util_add_trapped ("/stall/handler/two-watchdogs", test_two_watchdogs);
  util_add_trapped ("/stall/handler/leaves-destructor", test_handler_leaves_destructor);
  if (!WITH_SANITIZER)
    {
      /* GLib keeps what it logs when the writer ends the thread. */
      util_add_trapped ("/stall/handler/exits", test_handler_exits);
      util_add_trapped ("/stall/handler/forks", test_handler_forks);
      util_add_trapped ("/stall/fork", test_fork);
    }
  util_add_trapped ("/stall/race", test_race);

  return g_test_run ();
}
