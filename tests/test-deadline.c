/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dlfcn.h>
#include <string.h>

#include "util.h"

#include <bgloop/bg-test.h>

/* The limit of a shutdown, and the report of what is in the way when it has passed, which
 * bg_loop_describe() gives at any time. How an end goes that nothing is in the way of is test-shutdown's,
 * and the limits of all other waits are test-timeout's. */

void deadline_stuck_cb (gpointer user_data);
void deadline_load (void);
gboolean deadline_begin_cb (gpointer user_data,
                            GCancellable *cancellable,
                            GAsyncReadyCallback callback,
                            gpointer callback_data,
                            GError **error);

/* Exported, so that the dynamic linker knows their names. */
void
deadline_stuck_cb (gpointer user_data)
{
  util_block_cb (user_data);
}

/* One that answers when its cancellable says so. */
gboolean
deadline_begin_cb (gpointer user_data,
                   GCancellable *cancellable,
                   GAsyncReadyCallback callback,
                   gpointer callback_data,
                   GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  *(GTask **) user_data = g_steal_pointer (&task);
  return TRUE;
}

/* It calls none of this file, which could become a part of it: addr2line would name that one. */
static void
static_stuck_cb (gpointer user_data)
{
  util_block_cb (user_data);
}

static void
block_with (UtilBlock *block, BgLoop *loop, BgPostFunc func)
{
  util_block_init (block);
  g_assert_true (bg_loop_post (loop, func, block, NULL));
  util_latch_wait (&block->entered);
}

static char *
get_timeout_message (BgLoop *loop, BgShutdownMode mode, int timeout_msec)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (loop, mode, timeout_msec, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPING);
  g_test_message ("%s", error->message);
  return g_strdup (error->message);
}

/* Asserts that @text matches all of @pattern; the match is the caller's. */
static GMatchInfo *
match (const char *text, const char *pattern)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GRegex) regex = g_regex_new (pattern, 0, 0, &error);
  GMatchInfo *info;

  g_assert_no_error (error);
  if (!g_regex_match (regex, text, 0, &info))
    g_error ("\"%s\" does not match \"%s\"", text, pattern);
  return info;
}

/* In milliseconds, what the report says as "12 ms" or "1.2 s". */
static double
get_age (GMatchInfo *info, const char *name)
{
  g_autofree char *text = g_match_info_fetch_named (info, name);
  char *end;
  double age = g_ascii_strtod (text, &end);

  g_assert_true (end != text);
  if (strcmp (end, " s") == 0)
    return age * 1000;

  g_assert_cmpstr (end, ==, " ms");
  return age;
}

#define AGE(name) "(?<" name ">\\d+ ms|\\d+\\.\\d s)"

/* What the report says of a function that is stuck, of what waits behind it and
 * of who holds the loop, word by word. */
static void
test_report (void)
{
  BgLoop *loop = util_loop_new ("a name");
  gint64 start = g_get_monotonic_time ();
  guint64 first = bg_loop_hold (loop, "the first");
  guint64 unnamed = bg_loop_hold (loop, NULL);
  g_autoptr (GMatchInfo) info = NULL;
  g_autofree char *message = NULL;
  double age, most;
  UtilBlock block;

  block_with (&block, loop, deadline_stuck_cb);
  for (guint i = 0; i < 3; i++)
    g_assert_true (bg_loop_post_full (loop, G_PRIORITY_HIGH, util_count_cb, &start, NULL));
  for (guint i = 0; i < 2; i++)
    g_assert_true (bg_loop_post (loop, util_count_cb, &start, NULL));
  g_assert_true (bg_loop_post_full (loop, 300, util_count_cb, &start, NULL));

  message = get_timeout_message (loop, BG_SHUTDOWN_CANCEL, 50);
  most = (double) (g_get_monotonic_time () - start) / 1000;
  info
      = match (message, "^The loop \"a name\" has not stopped within 50 ms: "
                        "running " UTIL_NAME (deadline_stuck_cb, ".*") " for " AGE (
                            "running") "; "
                                       "3 queued at priority -100; "
                                       "2 queued at priority 0; "
                                       "1 queued at priority 300; "
                                       "held by \"the first\" for " AGE (
                                           "first") "; "
                                                    "held by \"unnamed\" for " AGE ("unnamed") "$");

  /* All of it began before the 50 ms, and none before the loop. */
  age = get_age (info, "running");
  g_assert_cmpfloat (age, >=, 50);
  g_assert_cmpfloat (age, <=, get_age (info, "unnamed") + 100);
  g_assert_cmpfloat (get_age (info, "first") + 100, >=, get_age (info, "unnamed"));
  g_assert_cmpfloat (get_age (info, "first"), <=, most + 100);

  bg_loop_release (loop, first);
  bg_loop_release (loop, unnamed);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

#define STUCK UTIL_NAME (deadline_stuck_cb, ".*")

/* Of many of a kind the report names six, and says how many more there are. Invoked functions
 * are counted. */
static void
test_report_of_many (void)
{
  BgLoop *loop = util_loop_new ("many");
  guint64 holds[10];
  g_autoptr (GMatchInfo) info = NULL;
  g_autofree char *message = NULL;
  UtilBlock block;

  for (guint i = 0; i < G_N_ELEMENTS (holds); i++)
    holds[i] = bg_loop_hold (loop, "somebody");
  block_with (&block, loop, deadline_stuck_cb);
  for (int priority = 1; priority <= 8; priority++)
    {
      for (int i = 0; i < priority; i++)
        g_assert_true (bg_loop_post_full (loop, priority, util_nothing_cb, NULL, NULL));
    }
  for (guint i = 0; i < 3; i++)
    g_assert_true (bg_loop_invoke (loop, util_remove_cb, NULL));

  message = get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 1);
  info = match (message, "^The loop \"many\" has not stopped within 1 ms: "
                         "running " STUCK " for [^;]*; "
                         "1 queued at priority 1; 2 queued at priority 2; "
                         "3 queued at priority 3; 4 queued at priority 4; "
                         "5 queued at priority 5; 6 queued at priority 6; "
                         "and 15 more queued at other priorities; 3 invoked; "
                         "(held by \"somebody\" for [^;]*; ){6}"
                         "and 4 more holds and operations$");

  for (guint i = 0; i < G_N_ELEMENTS (holds); i++)
    bg_loop_release (loop, holds[i]);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* A function that is not exported is named as addr2line takes it. */
static void
test_static_function (void)
{
  g_autofree char *addr2line = g_find_program_in_path ("addr2line");
  g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);
  g_autofree char *base = g_path_get_basename (program);
  g_autofree char *message = NULL, *module = NULL, *offset = NULL, *output = NULL;
  g_autoptr (GMatchInfo) info = NULL;
  g_autoptr (GError) error = NULL;
  BgLoop *loop = util_loop_new ("static");
  UtilBlock block;

  block_with (&block, loop, static_stuck_cb);
  message = get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 1);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);

  info = match (message, "ms: running (?<module>[^ +]+)\\+(?<offset>0x[0-9a-f]+) for ");
  module = g_match_info_fetch_named (info, "module");
  offset = g_match_info_fetch_named (info, "offset");
  g_assert_cmpstr (module, ==, base);
  if (addr2line != NULL)
    {
      char *argv[] = { addr2line, (char *) "-f", (char *) "-e", program, offset, NULL };

      g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &output, NULL,
                                   NULL, &error));
      g_assert_no_error (error);
      g_assert_true (g_str_has_prefix (output, "static_stuck_cb\n"));
    }
}

/* describe() says the same, of a loop that nobody stops */
static void
test_describe (void)
{
  BgLoop *loop = util_loop_new ("described");
  guint64 hold = bg_loop_hold (loop, "a reason");
  g_autofree char *busy = NULL, *stopping = NULL, *stopped = NULL;
  UtilBlock block;

  block_with (&block, loop, deadline_stuck_cb);
  g_assert_true (bg_loop_post (loop, util_count_cb, &hold, NULL));
  busy = bg_loop_describe (loop);
  g_match_info_unref (match (busy,
                             "^loop \"described\": busy\n"
                             "  running " UTIL_NAME (deadline_stuck_cb, ".*") " for " AGE (
                                 "running") "\n"
                                            "  1 queued at priority 0\n"
                                            "  held by \"a reason\" for " AGE ("held") "\n$"));

  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  bg_loop_release (loop, hold);
  stopping = bg_loop_describe (loop);
  g_match_info_unref (match (stopping,
                             "^loop \"described\": stopping\n"
                             "  running " UTIL_NAME (deadline_stuck_cb, ".*") " for " AGE (
                                 "running") "\n"
                                            "  1 queued at priority 0\n$"));

  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  stopped = bg_loop_describe (loop);
  g_assert_cmpstr (stopped, ==, "loop \"described\": stopped\n");
  util_loop_end (loop);
  util_block_clear (&block);
}

/* Besides, it says what stands by and is in nobody's way: to be done later, or when something
 * happens, or at the end. */

static char *
describe_idle (BgLoop *loop)
{
  g_autofree char *head = g_strdup_printf ("loop \"%s\": idle\n", bg_loop_get_name (loop));
  char *text = bg_loop_describe (loop);

  while (!g_str_has_prefix (text, head))
    {
      g_free (text);
      g_thread_yield ();
      text = bg_loop_describe (loop);
    }
  g_assert_null (strstr (text, "running"));
  return text;
}

static GSource *
attach (BgLoop *loop, const char *name)
{
  GSource *source = g_timeout_source_new (G_MAXINT);

  g_source_set_callback (source, util_no_source_cb, NULL, NULL);
  if (name != NULL)
    g_source_set_name (source, name);
  g_assert_true (bg_loop_attach (loop, source));
  return source;
}

static void
detach (GSource *source)
{
  g_source_destroy (source);
  g_source_unref (source);
}

/* More than are counted at once, among them some that have gone, and some that have only just come */
#define MANY 600

static void
test_many_standing_by (void)
{
  BgLoop *loop = util_loop_new ("standing-by");
  GSource *sources[MANY];
  g_autofree char *text = NULL, *all = NULL;

  for (guint i = 0; i < MANY; i++)
    {
      sources[i] = attach (loop, i == MANY - 1 ? "last" : NULL);
      if (i == MANY / 2)
        g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
    }
  all = describe_idle (loop);
  g_assert_nonnull (strstr (all, "\n  600 attached sources: \"last\", ...\n"));

  for (guint i = 0; i < MANY; i += 2)
    g_source_destroy (sources[i]);
  text = describe_idle (loop);
  g_assert_nonnull (strstr (text, "\n  300 attached sources: \"last\", ...\n"));

  for (guint i = 0; i < MANY; i++)
    detach (sources[i]);
  util_loop_end (loop);
}

static void
assert_standing_by (BgLoop *loop, const char *pattern)
{
  g_autofree char *text = describe_idle (loop);
  g_autofree char *whole
      = g_strdup_printf ("^loop \"standing-by\": idle\nstanding by:\n%s$", pattern);

  g_match_info_unref (match (text, whole));
}

static void
test_standing_by (void)
{
  BgLoop *loop = util_loop_new ("standing-by");
  g_autofree char *nothing = describe_idle (loop), *held = NULL;
  GSource *first, *second, *unnamed, *more[5];
  guint64 delays[2], teardowns[2], hold;

  g_assert_cmpstr (nothing, ==, "loop \"standing-by\": idle\n");
  delays[0] = bg_loop_post_after (loop, G_MAXUINT, util_not_reached_cb, NULL, NULL);
  assert_standing_by (loop, "  1 delayed, due in \\d+\\.\\d s\n");
  delays[1] = bg_loop_post_after (loop, G_MAXINT, util_not_reached_cb, NULL, NULL);
  assert_standing_by (loop, "  2 delayed, the first due in 214\\d+\\.\\d s\n");
  g_assert_true (bg_loop_withdraw (loop, delays[0]));
  assert_standing_by (loop, "  1 delayed, due in 214\\d+\\.\\d s\n");
  g_assert_true (bg_loop_withdraw (loop, delays[1]));

  unnamed = attach (loop, NULL);
  assert_standing_by (loop, "  1 attached source\n");
  first = attach (loop, "first");
  assert_standing_by (loop, "  2 attached sources: \"first\", \\.\\.\\.\n");
  detach (unnamed);
  assert_standing_by (loop, "  1 attached source: \"first\"\n");
  second = attach (loop, "second");
  assert_standing_by (loop, "  2 attached sources: (\"\\w+\", \"\\w+\")\n");
  for (guint i = 0; i < G_N_ELEMENTS (more); i++)
    more[i] = attach (loop, "again");
  assert_standing_by (loop, "  7 attached sources: (\"\\w+\", ){6}\\.\\.\\.\n");
  for (guint i = 0; i < G_N_ELEMENTS (more); i++)
    detach (more[i]);
  detach (second);

  for (guint i = 0; i < G_N_ELEMENTS (teardowns); i++)
    teardowns[i] = bg_loop_add_teardown (loop, util_nothing_cb, NULL, NULL);
  assert_standing_by (loop, "  1 attached source: \"first\"\n  2 teardown functions\n");
  hold = bg_loop_hold (loop, "a reason");
  held = describe_idle (loop);
  g_match_info_unref (match (held, ": idle\n  held by \"a reason\" for " AGE (
                                       "held") "\nstanding by:\n  1 attached source: "));
  bg_loop_release (loop, hold);
  g_assert_true (bg_loop_remove_teardown (loop, teardowns[0]));
  assert_standing_by (loop, "  1 attached source: \"first\"\n  1 teardown function\n");
  detach (first);
  util_loop_end (loop);
}

/* What is in the way comes first; delayed work that is due waits, too, and is not queued yet. */
static void
test_due (void)
{
  BgLoop *loop = util_loop_new ("due");
  g_autoptr (GMatchInfo) info = NULL;
  g_autofree char *one = NULL, *two = NULL;
  UtilBlock block;
  int n = 0;

  block_with (&block, loop, deadline_stuck_cb);
  g_assert_true (bg_loop_post_after (loop, 0, util_count_cb, &n, NULL) != 0);
  util_spin_until (util_msec_from_now (20));
  one = bg_loop_describe (loop);
  info = match (one, "^loop \"due\": busy\n"
                     "  running " UTIL_NAME (deadline_stuck_cb, ".*") " for " AGE (
                         "running") "\n"
                                    "standing by:\n"
                                    "  1 delayed, due " AGE ("due") " ago\n$");
  g_assert_cmpfloat (get_age (info, "due"), >=, 20);
  g_assert_true (bg_loop_post_after (loop, 0, util_count_cb, &n, NULL) != 0);
  two = bg_loop_describe (loop);
  g_match_info_unref (
      match (two, "standing by:\n  2 delayed, the first due " AGE ("due") " ago\n$"));
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* A source of the context that blocks is in the way like any function. */

static void
test_stuck_source (void)
{
  g_autoptr (GSource) source = g_idle_source_new ();
  BgLoop *loop = util_loop_new ("source");
  g_autofree char *message = NULL;
  UtilBlock block;

  util_block_init (&block);
  g_source_set_callback (source, util_block_source_cb, &block, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  util_latch_wait (&block.entered);

  message = get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 20);
  g_match_info_unref (match (message, "ms: busy outside of its own work, with a source of its "
                                      "context, for " AGE ("busy") "$"));
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* So is the callback of a reply, which has a name. */

void deadline_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data);

void
deadline_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  util_block_cb (user_data);
}

typedef struct
{
  BgLoop *asked;
  UtilBlock block;
} Asking;

static gboolean
answer_late_cb (gpointer user_data, GError **error)
{
  util_spin_until (util_msec_from_now (30));
  return TRUE;
}

static void
ask_cb (gpointer user_data)
{
  Asking *self = user_data;

  bg_loop_call_async (self->asked, 0, -1, answer_late_cb, NULL, NULL, NULL, deadline_reply_cb,
                      &self->block);
}

static void
test_stuck_reply (void)
{
  BgLoop *loop = util_loop_new ("reply");
  Asking self = { .asked = util_loop_new ("asked") };
  g_autoptr (GMatchInfo) info = NULL;
  g_autofree char *message = NULL, *text = NULL;
  gint64 start;
  double most;

  util_block_init (&self.block);
  start = g_get_monotonic_time ();
  g_assert_true (bg_loop_post (loop, ask_cb, &self, NULL));
  util_latch_wait (&self.block.entered);

  text = bg_loop_describe (loop);
  most = (double) (g_get_monotonic_time () - start) / 1000 - 30;
  info = match (text,
                "^loop \"reply\": busy\n  running " UTIL_NAME (deadline_reply_cb,
                                                               ".*") " for " AGE ("running") "\n$");
  g_assert_cmpfloat (get_age (info, "running"), <=, most);
  message = get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 20);
  g_match_info_unref (
      match (message, "ms: running " UTIL_NAME (deadline_reply_cb, ".*") " for " AGE ("age") "$"));

  util_unblock (&self.block);
  util_loop_end (loop);
  util_loop_end (self.asked);
  util_block_clear (&self.block);
}

/* A function that iterates the context is as old as it is, whatever ran within it. */

static void
nested_cb (gpointer user_data)
{
  BgLoop *loop = user_data;
  gint64 end = g_get_monotonic_time () + 30 * G_TIME_SPAN_MILLISECOND;
  g_autoptr (GMatchInfo) info = NULL;
  g_autofree char *text = NULL;
  int ran = 0;

  while (g_get_monotonic_time () < end)
    ;
  g_assert_true (bg_loop_post (loop, util_count_cb, &ran, NULL));
  while (ran == 0)
    g_main_context_iteration (bg_loop_get_context (loop), FALSE);

  text = bg_loop_describe (loop);
  info = match (text, "  running .+ for " AGE ("running") "\n");
  g_assert_cmpfloat (get_age (info, "running"), >=, 30);
}

static void
test_nested (void)
{
  BgLoop *loop = util_loop_new ("nested");

  g_assert_true (bg_loop_post (loop, nested_cb, loop, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_loop_end (loop);
}

/* A module that is being loaded uses the loop, while others look at what the loop
 * does: to name a function takes the lock under which modules are loaded. */

typedef struct
{
  BgLoop *loop;
  UtilLatch begun;
  int stop;
} Looks;

#define N_MODULE_POSTS 1000

static BgLoop *module_loop;
static int module_loads;
static UtilBlock *module_block; /* (nullable) the loop's, which is called then */

void
deadline_load (void)
{
  if (module_block != NULL)
    {
      util_unblock (module_block);
      g_assert_true (bg_loop_call (module_loop, util_count_call_cb, &module_loads, NULL, NULL));
      return;
    }

  /* Long enough for the others to look meanwhile. */
  for (guint i = 0; i < N_MODULE_POSTS; i++)
    {
      if (i % 10 == 0)
        g_thread_yield ();
      g_assert_true (bg_loop_post (module_loop, util_count_cb, &module_loads, NULL));
      g_assert_cmpuint (bg_test_mark_loops (), >, 0);
    }
}

static gpointer
look_thread (gpointer user_data)
{
  Looks *self = user_data;

  util_latch_count_down (&self->begun);
  while (!g_atomic_int_get (&self->stop))
    {
      g_free (bg_loop_describe (self->loop));
      g_free (bg_test_describe_loops (0, 0));
    }
  return NULL;
}

static void
load_module (void)
{
  g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);
  g_autofree char *folder = g_path_get_dirname (program);
  g_autofree char *path = g_build_filename (folder, "test-module.so", NULL);
  gpointer module = dlopen (path, RTLD_NOW);

  if (module == NULL)
    g_error ("%s", dlerror ());
  dlclose (module);
}

static void
test_module (void)
{
  Looks looks = { .loop = util_loop_new ("module") };
  guint n = util_scale (20);
  GThread *threads[2];
  UtilBlock block;

  module_loop = looks.loop;
  block_with (&block, looks.loop, deadline_stuck_cb);
  util_latch_init (&looks.begun, G_N_ELEMENTS (threads));
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("looks", look_thread, &looks);
  util_latch_wait (&looks.begun);
  for (guint i = 0; i < n; i++)
    load_module ();
  g_atomic_int_set (&looks.stop, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);

  util_unblock (&block);
  util_loop_end (looks.loop);
  util_block_clear (&block);
  util_latch_clear (&looks.begun);
  g_assert_cmpint (module_loads, ==, N_MODULE_POSTS * n);
}

/* The module waits for the loop, which comes first to an operation whose time is up, and says what
 * was in its way. */
static void
test_module_waits (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = util_loop_new ("waited for");
  UtilReply performed;
  UtilBlock block;

  module_loop = loop;
  module_block = &block;
  util_reply_init (&performed);
  block_with (&block, loop, deadline_stuck_cb);
  bg_loop_perform_async (loop, 0, 0, util_no_begin_cb, NULL, NULL, NULL, util_reply_cb, &performed);
  g_assert_true (g_main_context_iteration (NULL, FALSE));
  load_module ();
  g_assert_cmpint (module_loads, ==, 1);

  util_reply_wait (&performed);
  g_assert_null (bg_loop_perform_finish (loop, performed.result, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  util_reply_clear (&performed);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* A hold that is never released, and one that is */
static void
run_hold (BgShutdownMode mode)
{
  BgLoop *loop = util_loop_new ("held");
  guint64 hold = bg_loop_hold (loop, "for ever");

  for (int timeout = 0; timeout < 20; timeout += 10)
    {
      g_autofree char *message = get_timeout_message (loop, mode, timeout);
      g_autofree char *start = g_strdup_printf (
          "^The loop \"held\" has not stopped within %d ms: (busy outside of its "
          "own work, with a source of its context, for [^;]+; )?held by \"for ever\" for "
          "(\\d+ ms|\\d+\\.\\d s)$",
          timeout);

      g_match_info_unref (match (message, start));
    }

  bg_loop_release (loop, hold);
  util_loop_end (loop);
}

static void
test_hold (void)
{
  run_hold (BG_SHUTDOWN_DRAIN);
  run_hold (BG_SHUTDOWN_CANCEL);
}

/* An operation that has not answered is named by what began it. */
static void
test_operation (void)
{
  BgLoop *loop = util_loop_new ("operation");
  g_autofree char *message = NULL;
  g_autoptr (GError) error = NULL;
  GTask *task = NULL;

  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, deadline_begin_cb, &task, NULL, NULL, NULL,
                         NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_nonnull (task);

  message = get_timeout_message (loop, BG_SHUTDOWN_CANCEL, 10);
  g_match_info_unref (match (message, "waiting for the operation begun by " UTIL_NAME (
                                          deadline_begin_cb, ".*") " for (\\d+ ms|.* s)$"));
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
  util_loop_end (loop);
}

/* A chain that never ends */

typedef struct
{
  BgLoop *loop;
  int destroyed;
  int ran;
} Chain;

static void
link_destroyed_cb (gpointer user_data)
{
  g_atomic_int_inc (&((Chain *) user_data)->destroyed);
}

static void
link_cb (gpointer user_data)
{
  Chain *self = user_data;

  self->ran++;
  (void) bg_loop_post (self->loop, link_cb, self, link_destroyed_cb);
}

static void
test_endless_chain (void)
{
  Chain self = { util_loop_new ("chain") };
  g_autofree char *message = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_post (self.loop, link_cb, &self, link_destroyed_cb));
  message = get_timeout_message (self.loop, BG_SHUTDOWN_DRAIN, 20);
  g_match_info_unref (match (message, "^The loop \"chain\" has not stopped within 20 ms: "));
  g_free (g_steal_pointer (&message));
  message = get_timeout_message (self.loop, BG_SHUTDOWN_DRAIN, 0);

  g_assert_true (bg_loop_shutdown_full (self.loop, BG_SHUTDOWN_CANCEL, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_finalize_object (self.loop);

  /* The last one was refused, or accepted and dropped. */
  g_assert_cmpint (self.destroyed, ==, self.ran + 1);
}

/* The deadline has passed, and the loop goes on stopping by itself. */
static void
test_goes_on (void)
{
  BgLoop *loop = util_loop_new ("goes on");
  int ran = 0;
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < 10; i++)
    g_assert_true (bg_loop_post (loop, util_count_cb, &ran, NULL));
  g_free (get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 1));
  g_free (get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 2));
  util_unblock (&block);
  while (bg_loop_get_state (loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  g_assert_cmpint (ran, ==, 10);
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, NULL));
  util_block_clear (&block);
  g_assert_finalize_object (loop);
}

/* A timeout of 0 asks, and asking is a request too. */
static void
test_zero (void)
{
  BgLoop *loop = util_loop_new ("zero");
  guint64 hold = bg_loop_hold (loop, "zero");

  g_free (get_timeout_message (loop, BG_SHUTDOWN_DRAIN, 0));
  bg_loop_release (loop, hold);
  while (!bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 0, NULL, NULL))
    g_thread_yield ();
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
  g_assert_finalize_object (loop);
}

/* An idle loop stops at once, however long the deadline. */
static void
test_idle (void)
{
  static const int timeouts[] = { 10000 * 1000, G_MAXINT, -1 };

  for (guint i = 0; i < G_N_ELEMENTS (timeouts); i++)
    {
      for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
        {
          BgLoop *loop = util_loop_new ("idle");
          g_autoptr (GError) error = NULL;

          /* Asleep, so that the stop has to wake it. */
          g_assert_true (bg_loop_flush (loop, -1, NULL, &error));
          g_assert_no_error (error);
          g_assert_true (bg_loop_shutdown_full (loop, mode, timeouts[i], NULL, &error));
          g_assert_no_error (error);
          g_assert_finalize_object (loop);
        }
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/deadline/report", test_report);
  util_add_trapped ("/deadline/report/of-many", test_report_of_many);
  if (HAVE_DLADDR)
    util_add_trapped ("/deadline/report/static-function", test_static_function);
  util_add_trapped ("/deadline/report/operation", test_operation);
  util_add_trapped ("/deadline/describe", test_describe);
  util_add_trapped ("/deadline/describe/standing-by", test_standing_by);
  util_add_trapped ("/deadline/describe/standing-by/many", test_many_standing_by);
  util_add_trapped ("/deadline/describe/due", test_due);
  util_add_trapped ("/deadline/describe/nested", test_nested);
  util_add_trapped ("/deadline/describe/while-a-module-is-loaded", test_module);
  /* Each function of GLib's that the shim for ThreadSanitizer stands before is looked for with the
   * dynamic linker's lock. */
  if (!UTIL_WITH_TSAN)
    util_add_trapped ("/deadline/report/for-a-module-that-is-loaded", test_module_waits);
  util_add_trapped ("/deadline/report/source", test_stuck_source);
  util_add_trapped ("/deadline/report/reply", test_stuck_reply);
  util_add_trapped ("/deadline/hold-never-released", test_hold);
  util_add_trapped ("/deadline/endless-chain", test_endless_chain);
  util_add_trapped ("/deadline/goes-on-stopping", test_goes_on);
  util_add_trapped ("/deadline/zero", test_zero);
  util_add_trapped ("/deadline/idle", test_idle);

  return g_test_run ();
}
