/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <glib-unix.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gio/gio.h>

#include <bgloop/bg-test.h>

#include "util.h"

/* What is left behind on purpose must not take long to be found. */
#define SHORT_TIMEOUT "200"

/* And a busy machine none that is not there. */
#define LONG_TIMEOUT "60000"

#define AN_HOUR (60 * 60 * 1000)

static void
set_timeout (const char *msec)
{
  g_setenv ("BG_TEST_TIMEOUT", msec, TRUE);
}

/* Nothing is left */

static void
test_named (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_cmpstr (bg_loop_get_name (fixture->loop), ==, "/kit/fixture/named-after-test");
  g_assert_cmpint (bg_loop_get_state (fixture->loop), ==, BG_LOOP_RUNNING);
}

static void
test_shut_down (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_true (bg_loop_shutdown (fixture->loop, NULL));
}

static void
test_dropped (BgTestFixture *fixture, gconstpointer data)
{
  g_clear_object (&fixture->loop);
}

static void
test_several (BgTestFixture *fixture, gconstpointer data)
{
  static int n;
  BgLoop *ended = util_loop_new ("ended");
  BgLoop *dropped = util_loop_new ("dropped");

  g_assert_true (bg_loop_post (ended, util_count_cb, &n, NULL));
  g_assert_true (bg_loop_post (dropped, util_count_cb, &n, NULL));
  util_loop_end (ended);
  g_object_unref (dropped);
}

static void
test_default (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_default (NULL);

  g_assert_nonnull (loop);
  g_assert_true (bg_loop_reset_default (-1, NULL));
}

static void
test_skipped (BgTestFixture *fixture, gconstpointer data)
{
  g_test_skip ("to see what becomes of the loop");
}

static void
test_work_is_done (BgTestFixture *fixture, gconstpointer data)
{
  static int n;

  for (guint i = 0; i < 1000; i++)
    g_assert_true (bg_loop_post (fixture->loop, util_count_cb, &n, NULL));
  g_assert_cmpuint (bg_loop_post_after (fixture->loop, AN_HOUR, util_count_cb, &n, NULL), !=, 0);
}

static void
test_source_outlives_loop (BgTestFixture *fixture, gconstpointer data)
{
  GSource *source = g_timeout_source_new (AN_HOUR);
  BgLoop *loop = util_loop_new ("of the source");

  g_assert_true (bg_loop_attach (loop, source));
  util_loop_end (loop);
  g_source_unref (source);
}

static void
test_subprocess (BgTestFixture *fixture, gconstpointer data)
{
  if (!g_test_subprocess ())
    util_assert_subprocess_passes (NULL);
}

/* Its context goes when the source does: when the fixture has found all loops gone and
 * looks at what else is left. */
typedef struct
{
  GSource *source;
  guint64 since;
} Dropper;

static gpointer
drop_source_thread (gpointer user_data)
{
  Dropper *self = user_data;

  g_assert_null (bg_test_describe_loops (self->since, -1));
  g_source_unref (self->source);
  g_free (self);
  return NULL;
}

static void
test_source_dropped_late (BgTestFixture *fixture, gconstpointer data)
{
  Dropper *dropper = g_new (Dropper, 1);
  BgLoop *loop = util_loop_new ("of the source");

  dropper->source = g_timeout_source_new (AN_HOUR);
  dropper->since = fixture->since;
  g_assert_true (bg_loop_attach (loop, dropper->source));
  util_loop_end (loop);
  g_thread_unref (g_thread_new ("dropper", drop_source_thread, dropper));
}

/* Thread-local destructors are part of the loop's end. */

static void
end_slowly_cb (gpointer data)
{
  util_spin_until (util_msec_from_now (5));
}

static GPrivate slow_end = G_PRIVATE_INIT (end_slowly_cb);

static void
set_private_cb (gpointer private)
{
  g_private_set (private, private);
}

static void
test_ends_slowly (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_true (bg_loop_post (fixture->loop, set_private_cb, &slow_end, NULL));
}

/* The last reference goes a while after the loop has stopped. */
static gpointer
drop_late_thread (gpointer loop)
{
  while (bg_loop_get_state (loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  util_spin_until (util_msec_from_now (10));
  g_object_unref (loop);
  return NULL;
}

static void
test_reference_dropped_late (BgTestFixture *fixture, gconstpointer data)
{
  g_thread_unref (g_thread_new ("dropper", drop_late_thread, g_object_ref (fixture->loop)));
}

static void
test_data (BgTestFixture *fixture, gconstpointer data)
{
  g_assert_cmpstr (data, ==, "some data");
  g_assert_cmpint (bg_loop_get_state (fixture->loop), ==, BG_LOOP_RUNNING);
}

/* Eventfds that are no leak */

static void
test_file_named_eventfd (BgTestFixture *fixture, gconstpointer data)
{
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp ("my-[eventfd]-notes-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, !=, -1);
  g_assert_cmpint (unlink (path), ==, 0);
}

static void
test_ignored_eventfd (BgTestFixture *fixture, gconstpointer data)
{
  int fd = eventfd (0, EFD_CLOEXEC);

  bg_test_fixture_ignore_eventfd (fixture, fd);
  bg_test_fixture_ignore_eventfd (fixture, fd);
  bg_test_fixture_ignore_eventfd (fixture, STDERR_FILENO);
}

/* In a process of its own, where GLib has started none yet. */
static void
test_worker (BgTestFixture *fixture, gconstpointer data)
{
  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  g_source_unref (g_unix_signal_source_new (SIGUSR1));
}

static void
bus_closed_cb (GDBusConnection *connection,
               gboolean remote_peer_vanished,
               GError *error,
               gpointer user_data)
{
  util_count_cb (user_data);
}

static void
test_bus_worker (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GSocket) socket = NULL;
  g_autoptr (GSocketConnection) stream = NULL;
  g_autoptr (GMainContext) context = NULL;
  GDBusConnection *connection;
  GWeakRef weak;
  int fds[2], closed = 0;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
  socket = g_socket_new_from_fd (fds[0], &error);
  g_assert_no_error (error);
  stream = g_socket_connection_factory_create_connection (socket);

  context = g_main_context_new ();
  g_main_context_push_thread_default (context);
  connection = g_dbus_connection_new_sync (G_IO_STREAM (stream), NULL, G_DBUS_CONNECTION_FLAGS_NONE,
                                           NULL, NULL, &error);
  g_assert_no_error (error);
  g_signal_connect (connection, "closed", G_CALLBACK (bus_closed_cb), &closed);
  g_assert_true (g_dbus_connection_close_sync (connection, NULL, &error));

  /* To tell of the end the worker takes a connection that is being disposed of into use
   * again, and leaves it to a context that nobody iterates any more. */
  while (closed == 0)
    g_main_context_iteration (context, TRUE);
  g_weak_ref_init (&weak, connection);
  g_object_unref (connection);

  /* The last reference may be the worker's. */
  while ((connection = g_weak_ref_get (&weak)) != NULL)
    {
      g_object_unref (connection);
      g_main_context_iteration (context, FALSE);
      g_thread_yield ();
    }
  g_weak_ref_clear (&weak);
  g_main_context_pop_thread_default (context);
  close (fds[1]);
}

static void
test_older_loop (void)
{
  BgTestFixture fixture = { NULL };
  BgLoop *older = util_loop_new ("older");
  guint64 since = bg_test_mark_loops ();
  g_autofree char *all = bg_test_describe_loops (0, 0);

  g_assert_true (g_str_has_prefix (all, "the loop \"older\", "));
  g_assert_null (bg_test_describe_loops (since, 0));
  g_assert_null (bg_test_describe_loops (since, G_MAXINT));
  bg_test_fixture_set_up (&fixture, NULL);
  bg_test_fixture_tear_down (&fixture, NULL);
  util_loop_end (older);
  bg_test_assert_no_loops ();
}

/* The kit itself leaves no descriptor open, also where it looks at what a worker polls. */
static void
test_descriptors (void)
{
  guint fds = 0;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  g_source_unref (g_unix_signal_source_new (SIGUSR1));
  for (guint i = 0; i < 5; i++)
    {
      BgTestFixture fixture = { NULL };

      bg_test_fixture_set_up (&fixture, NULL);
      bg_test_fixture_tear_down (&fixture, NULL);
      g_assert_true (i == 0 || util_count_fds () == fds);
      fds = util_count_fds ();
    }
}

/* For code that somebody waits for: nobody but the caller is awake then. */
static void
wait_until_alone (void)
{
  while (util_count_threads_awake () > 1)
    g_thread_yield ();
}

/* A loop that is being freed, by whoever has dropped it, is waited for. */

typedef struct
{
  BgLoop *loop; /* (owned) */
  UtilLatch freeing;
  int freed; /* atomic */
} Freeing;

static void
freeing_cb (gpointer user_data, GObject *cancellable)
{
  Freeing *self = user_data;

  util_latch_count_down (&self->freeing);
  wait_until_alone ();
  g_atomic_int_set (&self->freed, TRUE);
}

static gpointer
drop_loop_thread (gpointer loop)
{
  g_object_unref (loop);
  return NULL;
}

static void
test_freeing (void)
{
  guint64 since = bg_test_mark_loops ();
  Freeing self = { util_loop_new ("goes") };
  GThread *thread;

  util_latch_init (&self.freeing, 1);
  g_object_weak_ref (G_OBJECT (bg_loop_get_cancellable (self.loop)), freeing_cb, &self);
  util_loop_shut_down (self.loop);
  thread = g_thread_new ("drops", drop_loop_thread, self.loop);
  util_latch_wait (&self.freeing);
  g_assert_null (bg_test_describe_loops (since, G_MAXINT));
  g_assert_true (g_atomic_int_get (&self.freed));
  g_thread_join (thread);
  util_latch_clear (&self.freeing);
}

/* Also if the kit is not to wait: another thread that has cancelled a loop which has stopped still
 * runs the handlers of its cancellable. */

static void
handler_cb (GCancellable *cancellable, gpointer entered)
{
  util_latch_count_down (entered);
  wait_until_alone ();
}

static gpointer
cancel_loop_thread (gpointer user_data)
{
  g_autoptr (BgLoop) loop = user_data;

  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
  return NULL;
}

static void
test_handler_runs (void)
{
  BgTestFixture fixture = { NULL };
  UtilLatch entered;
  GThread *thread;

  set_timeout ("0");
  util_latch_init (&entered, 1);
  bg_test_fixture_set_up (&fixture, NULL);
  g_signal_connect (bg_loop_get_cancellable (fixture.loop), "cancelled", G_CALLBACK (handler_cb),
                    &entered);
  thread = g_thread_new ("cancels", cancel_loop_thread, g_object_ref (fixture.loop));
  util_latch_wait (&entered);
  while (bg_loop_get_state (fixture.loop) != BG_LOOP_STOPPED)
    g_thread_yield ();
  bg_test_fixture_tear_down (&fixture, NULL);
  g_thread_join (thread);
  util_latch_clear (&entered);
  set_timeout (LONG_TIMEOUT);
}

/* Something is left */

typedef void (*LeakFunc) (BgTestFixture *fixture);

typedef struct
{
  const char *name;
  LeakFunc leak;
  const char *pattern; /* of the message */
  void (*before) (void);
} Leak;

static void
leak_loop (BgTestFixture *fixture)
{
  util_loop_new ("forgotten");
}

static void
leak_stopped_loop (BgTestFixture *fixture)
{
  BgLoop *loop = util_loop_new ("still known");

  g_assert_true (bg_loop_shutdown (loop, NULL));
}

static void
leak_default (BgTestFixture *fixture)
{
  g_assert_nonnull (bg_loop_dup_default (NULL));
}

static void
leak_hold (BgTestFixture *fixture)
{
  g_assert_cmpuint (bg_loop_hold (fixture->loop, "an upload"), !=, 0);
}

static void
leak_dropped_hold (BgTestFixture *fixture)
{
  BgLoop *loop = util_loop_new ("dropped");

  g_assert_cmpuint (bg_loop_hold (loop, "an upload"), !=, 0);
  g_object_unref (loop);
}

static void
leak_reference (BgTestFixture *fixture)
{
  g_object_ref (fixture->loop);
}

/* Nobody has the loop any more, and its thread does not end. */

static void
never_end_cb (gpointer data)
{
  static UtilLatch never;

  util_latch_init (&never, 1);
  util_latch_wait (&never);
}

static GPrivate endless_end = G_PRIVATE_INIT (never_end_cb);

static void
leak_thread (BgTestFixture *fixture)
{
  BgLoop *loop = util_loop_new ("endless");

  g_assert_true (bg_loop_post (loop, set_private_cb, &endless_end, NULL));
  g_object_unref (loop);
}

/* Not static, so that they have names in messages. */
gboolean begin_nothing (gpointer user_data,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer callback_data,
                        GError **error);
void block_for_ever (gpointer user_data);

gboolean
begin_nothing (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  return TRUE;
}

static void
leak_operation (BgTestFixture *fixture)
{
  bg_loop_perform_async (fixture->loop, G_PRIORITY_DEFAULT, -1, begin_nothing, NULL, NULL, NULL,
                         NULL, NULL);
}

void
block_for_ever (gpointer user_data)
{
  util_latch_wait (user_data);
}

static void
leak_busy_loop (BgTestFixture *fixture)
{
  static UtilLatch latch;
  static int n;

  util_latch_init (&latch, 1);
  g_assert_true (bg_loop_post (fixture->loop, block_for_ever, &latch, NULL));
  g_assert_true (bg_loop_post_full (fixture->loop, 7, util_count_cb, &n, NULL));
}

static void
leak_context (BgTestFixture *fixture)
{
  g_main_context_new ();
}

static void
leak_contexts (BgTestFixture *fixture)
{
  g_main_context_new ();
  g_main_context_new ();
}

static void
leak_own_context (BgTestFixture *fixture)
{
  g_main_context_ref (bg_loop_get_context (fixture->loop));
}

/* A task that completes in a context that nobody iterates. */
static void
leak_task (BgTestFixture *fixture)
{
  GMainContext *context = g_main_context_new ();
  GTask *task;

  g_main_context_push_thread_default (context);
  task = g_task_new (NULL, NULL, NULL, NULL);
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
  g_main_context_pop_thread_default (context);
  g_main_context_unref (context);
}

/* What is closed during the test does not hide what comes, nor does it if that gets the
 * same number. */
static int closing;

static void
before_closing (void)
{
  closing = eventfd (0, EFD_CLOEXEC);
}

static void
leak_before_other_closes (BgTestFixture *fixture)
{
  g_main_context_new ();
  close (closing);
}

static void
leak_after_other_closed (BgTestFixture *fixture)
{
  bg_loop_shutdown (fixture->loop, NULL);
  g_clear_object (&fixture->loop);
  close (closing);
  g_assert_cmpint (eventfd (0, EFD_CLOEXEC), ==, closing);
}

static void
leak_after_ignored (BgTestFixture *fixture)
{
  int fd = eventfd (0, EFD_CLOEXEC);

  bg_test_fixture_ignore_eventfd (fixture, fd);
  close (fd);
  g_assert_cmpint (eventfd (0, EFD_CLOEXEC), ==, fd);
}

/* The file that had the number is still open, under another one that is known. */
static void
before_closing_one (void)
{
  closing = eventfd (0, EFD_CLOEXEC);
  g_assert_cmpint (dup (closing), !=, -1);
}

/* A thread that is no worker of GLib's polls what is left. */
static gpointer
iterate_thread (gpointer context)
{
  for (;;)
    g_main_context_iteration (context, TRUE);
  return NULL;
}

static void
leak_polled (BgTestFixture *fixture)
{
  g_thread_unref (g_thread_new ("mine", iterate_thread, g_main_context_new ()));
}

/* Threads that are no worker of GLib's: one sleeps, the other polls something else. */
static gpointer
block_thread (gpointer user_data)
{
  util_latch_wait (user_data);
  return NULL;
}

static gpointer
poll_thread (gpointer user_data)
{
  GPollFD fd = { .fd = GPOINTER_TO_INT (user_data), .events = G_IO_IN };

  g_poll (&fd, 1, -1);
  return NULL;
}

static void
leak_beside_namesakes (BgTestFixture *fixture)
{
  static UtilLatch latch;
  int fds[2];

  util_latch_init (&latch, 1);
  g_assert_cmpint (pipe (fds), ==, 0);
  g_thread_unref (g_thread_new ("gmain", block_thread, &latch));
  g_thread_unref (g_thread_new ("gdbus", poll_thread, GINT_TO_POINTER (fds[0])));
  g_main_context_new ();
}

static void
leak_beside_worker (BgTestFixture *fixture)
{
  g_source_unref (g_unix_signal_source_new (SIGUSR1));
  g_main_context_new ();
}

static void
leak_failed (BgTestFixture *fixture)
{
  leak_loop (fixture);
  g_test_fail ();
}

static const Leak leaks[] = {
  { "loop", leak_loop, "left behind: the loop ?forgotten?, * ms old, is idle" },
  { "stopped-loop", leak_stopped_loop,
    "left behind: the loop ?still known?, * ms old, has stopped but is still referred to" },
  { "reference", leak_reference,
    "left behind: the loop ?/kit/leak/reference/subprocess?, * has stopped but is still referred "
    "to" },
  { "default", leak_default, "left behind: the default loop ?default?, * ms old, is idle*" },
  { "hold", leak_hold,
    "left behind: The loop ?/kit/leak/hold/subprocess? has not stopped within " SHORT_TIMEOUT
    " ms: held by ?an upload? for * ms\n" },
  { "dropped-hold", leak_dropped_hold,
    "left behind: the loop ?dropped?, * was dropped and is still stopping: held by ?an upload? for "
    "*" },
  { "thread", leak_thread,
    "left behind: the loop ?endless?, * ms old, was dropped and is still stopping: destructors of "
    "its thread run\n" },
  { "operation", leak_operation,
    "*waiting for the operation begun by " UTIL_NAME (begin_nothing, "*") " for * ms\n" },
  { "busy-loop", leak_busy_loop,
    "*: running " UTIL_NAME (block_for_ever, "*") " for * ms; 1 queued at priority 7\n" },
  { "context", leak_context, "left behind: 1 eventfd more than before the test (*): *" },
  { "contexts", leak_contexts, "left behind: 2 eventfds more than before the test (*, *): *" },
  { "own-context", leak_own_context, "left behind: 1 eventfd more than before the test (*): *" },
  { "task", leak_task, "left behind: 1 eventfd more than before the test (*): *" },
  { "before-another-is-closed", leak_before_other_closes,
    "left behind: 1 eventfd more than before the test (*): *", before_closing },
  { "after-another-was-closed", leak_after_other_closed,
    "left behind: 1 eventfd more than before the test (*): *", before_closing },
  { "after-one-of-two-was-closed", leak_after_other_closed,
    "left behind: 1 eventfd more than before the test (*): *", before_closing_one },
  { "polled", leak_polled, "left behind: 1 eventfd more than before the test (*): *" },
  { "after-ignored", leak_after_ignored,
    "left behind: 1 eventfd more than before the test (*): *" },
  { "beside-namesakes-of-workers", leak_beside_namesakes,
    "left behind: 1 eventfd more than before the test (*): *" },
  { "beside-worker", leak_beside_worker,
    "left behind: 1 eventfd more than before the test (*): *" },
  { "failed-test", leak_failed, "left behind: the loop ?forgotten?, *" },
};

static void
leak_set_up (BgTestFixture *fixture, gconstpointer data)
{
  const Leak *leak = data;

  set_timeout (SHORT_TIMEOUT);
  if (leak->before != NULL)
    leak->before ();
  bg_test_fixture_set_up (fixture, data);
}

static void
run_leak (BgTestFixture *fixture, gconstpointer data)
{
  ((const Leak *) data)->leak (fixture);
}

static void
test_leak (gconstpointer data)
{
  const Leak *leak = data;
  g_autofree char *path = g_strdup_printf ("/kit/leak/%s/subprocess", leak->name);
  g_autofree char *message = g_strdup_printf ("*%s: *%s*", path, leak->pattern);

  if (!HAVE_PROC && strstr (leak->pattern, "eventfd") != NULL)
    {
      g_test_skip ("without /proc no descriptor is looked for");
      return;
    }

  if (leak->leak == leak_beside_namesakes && util_is_emulated ())
    {
      g_test_skip ("an emulator of the processor does not tell what GLib's own threads poll");
      return;
    }

  g_test_trap_subprocess (path, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr (message);
  /* That of a loop which is left belongs to that. */
  if (strstr (leak->pattern, "eventfd") == NULL)
    g_test_trap_assert_stderr_unmatched ("*eventfd*");
}

/* The next fixture finds everything in order. */
static void
goes_on (void)
{
  set_timeout (SHORT_TIMEOUT);
  for (guint i = 0; i < G_N_ELEMENTS (leaks); i++)
    {
      BgTestFixture fixture = { NULL };
      BgTestFixture next = { NULL };

      if (leaks[i].before != NULL)
        leaks[i].before ();
      bg_test_fixture_set_up (&fixture, NULL);
      leaks[i].leak (&fixture);
      bg_test_fixture_tear_down (&fixture, NULL);

      bg_test_fixture_set_up (&next, NULL);
      g_printerr ("Next\n");
      bg_test_fixture_tear_down (&next, NULL);
      g_printerr ("After %s\n", leaks[i].name);
    }
}

static void
test_goes_on (void)
{
  if (g_test_subprocess ())
    {
      goes_on ();
      return;
    }

  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  for (guint i = 0; i < G_N_ELEMENTS (leaks); i++)
    {
      g_autofree char *pattern = g_strdup_printf ("*Next\nAfter %s\n*", leaks[i].name);

      g_test_trap_assert_stderr (pattern);
    }
}

static void
test_default_is_forgotten (void)
{
  BgTestFixture fixture = { NULL };
  BgLoop *left, *fresh;

  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_failed ();
      g_test_trap_assert_stdout ("*another one*");
      return;
    }

  set_timeout (SHORT_TIMEOUT);
  bg_test_fixture_set_up (&fixture, NULL);
  left = bg_loop_dup_default (NULL);
  bg_test_fixture_tear_down (&fixture, NULL);
  fresh = bg_loop_dup_default (NULL);
  if (fresh != left)
    g_print ("another one\n");
}

/* What holds the loop keeps it, but whatever else can be is cancelled. */
static void
test_cancelled (void)
{
  BgTestFixture fixture = { NULL };
  BgLoop *loop;

  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_failed ();
      g_test_trap_assert_stdout ("*is cancelled*");
      return;
    }

  set_timeout (SHORT_TIMEOUT);
  bg_test_fixture_set_up (&fixture, NULL);
  loop = g_object_ref (fixture.loop);
  leak_hold (&fixture);
  bg_test_fixture_tear_down (&fixture, NULL);
  if (g_cancellable_is_cancelled (bg_loop_get_cancellable (loop)))
    g_print ("is cancelled\n");
  g_object_unref (loop);
}

static void
test_assert_no_loops (void)
{
  if (g_test_subprocess ())
    {
      set_timeout (SHORT_TIMEOUT);
      util_loop_new ("last");
      bg_test_assert_no_loops ();
      return;
    }

  bg_test_assert_no_loops ();
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("*bg_test_assert_no_loops*there are loops left:\n"
                             "the loop ?last?, * ms old, is idle*");
}

static void
test_timeout_variable (void)
{
  if (g_test_subprocess ())
    {
      set_timeout ("200");
      g_assert_cmpint (bg_test_get_timeout (), ==, 200);
      set_timeout ("99999999999999999999");
      g_assert_cmpint (bg_test_get_timeout (), ==, G_MAXINT);
      set_timeout ("0");
      g_assert_cmpint (bg_test_get_timeout (), ==, 0);
      set_timeout ("-1");
      g_assert_cmpint (bg_test_get_timeout (), ==, -1);
      g_unsetenv ("BG_TEST_TIMEOUT");
      g_assert_cmpint (bg_test_get_timeout (), ==, 5000);

      g_print ("so far\n");

      set_timeout ("5s");
      bg_test_get_timeout ();
      return;
    }

  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stdout ("*so far*");
  g_test_trap_assert_stderr ("*BG_TEST_TIMEOUT is a number of milliseconds, or -1, not ?5s?*");
}

/* Every healthy test of the fixture and every step passes with any limit. */
static void
test_all_with_timeout (gconstpointer msec)
{
  g_autofree char *path = g_strdup_printf ("/kit/timeout/%s/subprocess", (const char *) msec);

  util_assert_subprocess_passes (path);
}

static void
nothing (BgTestFixture *fixture, gconstpointer data)
{
}

static const struct
{
  const char *path;
  void (*func) (BgTestFixture *, gconstpointer);
} timeout_tests[] = {
  { "nothing", nothing },
  { "shut-down-by-test", test_shut_down },
  { "dropped-by-test", test_dropped },
  { "several-loops", test_several },
  { "default-loop", test_default },
  { "work-is-done", test_work_is_done },
  { "source-outlives-loop", test_source_outlives_loop },
  { "source-dropped-late", test_source_dropped_late },
  { "ends-slowly", test_ends_slowly },
  { "reference-dropped-late", test_reference_dropped_late },
};

static void
timeout_set_up (BgTestFixture *fixture, gconstpointer data)
{
  set_timeout (data);
  bg_test_fixture_set_up (fixture, data);
}

static void
run_timeout_tests (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < util_scale (100); i++)
    {
      for (guint j = 0; j < G_N_ELEMENTS (timeout_tests); j++)
        {
          BgTestFixture inner = { NULL };

          bg_test_fixture_set_up (&inner, NULL);
          timeout_tests[j].func (&inner, NULL);
          bg_test_fixture_tear_down (&inner, NULL);
          if (g_test_failed ())
            g_error ("%s failed", timeout_tests[j].path);
        }
    }

  g_assert_true (bg_test_pause (fixture->loop, &error));
  g_assert_no_error (error);
  g_assert_cmpint (bg_test_step (fixture->loop, &error), ==, 0);
  bg_test_resume (fixture->loop);
  g_assert_cmpint (bg_test_run_until_idle (fixture->loop, &error), ==, 0);
  g_assert_no_error (error);
}

/* What holds is not waited for with 0, and with -1 nobody waits for what nobody has
 * asked to end. */
static void
test_left_with_timeout (gconstpointer msec)
{
  BgTestFixture fixture = { NULL };
  gboolean waits = strcmp (msec, "-1") == 0;
  gint64 start = g_get_monotonic_time ();

  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_failed ();
      g_test_trap_assert_stdout ("*in time*");
      g_test_trap_assert_stderr (waits ? "*left behind: the loop ?forgotten?, *"
                                       : "*has not stopped within 0 ms: *held by ?an upload?*");
      return;
    }

  set_timeout (msec);
  bg_test_fixture_set_up (&fixture, NULL);
  if (waits)
    leak_loop (&fixture);
  else
    leak_hold (&fixture);
  bg_test_fixture_tear_down (&fixture, NULL);
  if (waits == (g_get_monotonic_time () - start > 4 * G_TIME_SPAN_SECOND))
    g_print ("in time\n");
}

/* Without a limit what nobody tells of is looked for as long as by default. */
static void
test_context_left_without_limit (void)
{
  BgTestFixture fixture = { NULL };

  if (!HAVE_PROC)
    {
      g_test_skip ("without /proc no descriptor is looked for");
      return;
    }

  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_failed ();
      g_test_trap_assert_stderr ("*left behind: 1 eventfd more than before the test*");
      return;
    }

  set_timeout ("-1");
  bg_test_fixture_set_up (&fixture, NULL);
  leak_context (&fixture);
  bg_test_fixture_tear_down (&fixture, NULL);
}

static void
add_timeout_tests (const char *msec)
{
  g_autofree char *path = g_strdup_printf ("/kit/timeout/%s", msec);
  g_autofree char *child = g_strdup_printf ("%s/subprocess", path);
  g_autofree char *left = g_strdup_printf ("/kit/timeout-and-leak/%s", msec);

  g_test_add_data_func (path, msec, test_all_with_timeout);
  g_test_add (child, BgTestFixture, msec, timeout_set_up, run_timeout_tests,
              bg_test_fixture_tear_down);
  g_test_add_data_func (left, msec, test_left_with_timeout);
}

/* Step by step */

typedef struct
{
  BgTestFixture base;
  GString *log; /* written by the loop's thread while it does a step */
} Steps;

typedef struct
{
  Steps *steps;
  const char *text;
} Note;

static void
steps_set_up (Steps *self, gconstpointer data)
{
  bg_test_fixture_set_up (&self->base, data);
  self->log = g_string_new (NULL);
}

static void
steps_tear_down (Steps *self, gconstpointer data)
{
  bg_test_fixture_tear_down (&self->base, data);
  g_string_free (self->log, TRUE);
}

static Note *
note_new (Steps *self, const char *text)
{
  Note *note = g_new (Note, 1);

  note->steps = self;
  note->text = text;
  return note;
}

static void
note_cb (gpointer user_data)
{
  Note *note = user_data;

  g_assert_true (bg_loop_is_current (note->steps->base.loop));
  g_string_append (note->steps->log, note->text);
}

static gboolean
note_source_cb (gpointer user_data)
{
  note_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
post (Steps *self, int priority, const char *text)
{
  g_assert_true (
      bg_loop_post_full (self->base.loop, priority, note_cb, note_new (self, text), g_free));
}

static void
invoke (Steps *self, int priority, const char *text)
{
  g_assert_true (bg_loop_invoke_full (self->base.loop, priority, note_source_cb,
                                      note_new (self, text), g_free));
}

static void
pause_loop (Steps *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_test_pause (self->base.loop, &error));
  g_assert_no_error (error);
}

static void
assert_step (Steps *self, const char *log)
{
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, 1);
  g_assert_no_error (error);
  g_assert_cmpstr (self->log->str, ==, log);
}

static void
assert_idle (Steps *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, 0);
  g_assert_no_error (error);
}

static void
test_step_posts (Steps *self, gconstpointer data)
{
  g_autoptr (BgLoopStats) stats = NULL;

  pause_loop (self);
  assert_idle (self);
  post (self, G_PRIORITY_DEFAULT, "a");
  post (self, G_PRIORITY_DEFAULT, "b");
  post (self, G_PRIORITY_LOW, "d");
  post (self, G_PRIORITY_DEFAULT, "c");
  g_assert_cmpstr (self->log->str, ==, "");

  assert_step (self, "a");
  post (self, G_PRIORITY_HIGH, "!");
  assert_step (self, "a!");
  assert_step (self, "a!b");
  assert_step (self, "a!bc");
  assert_step (self, "a!bcd");
  assert_idle (self);

  stats = bg_loop_get_stats (self->base.loop);
  g_assert_cmpuint (stats->posted, ==, 5);
  g_assert_cmpuint (stats->run, ==, 5);
  g_assert_cmpuint (stats->queued, ==, 0);
}

/* More than a batch, and some of it before the pause. */
static void
test_step_many (Steps *self, gconstpointer data)
{
  const guint n = 1000;
  UtilBlock block;
  int done = 0, steps = 0;

  util_block (&block, self->base.loop);
  for (guint i = 0; i < n; i++)
    g_assert_true (bg_loop_post (self->base.loop, util_count_cb, &done, NULL));
  util_unblock (&block);
  pause_loop (self);

  for (int before = g_atomic_int_get (&done); bg_test_step (self->base.loop, NULL) == 1; before++)
    {
      steps++;
      g_assert_cmpint (g_atomic_int_get (&done), ==, before + 1);
    }

  g_assert_cmpint (g_atomic_int_get (&done), ==, n);
  g_assert_cmpint (steps, <=, n);
  bg_test_resume (self->base.loop);
  g_assert_true (bg_loop_flush (self->base.loop, -1, NULL, NULL));
  util_block_clear (&block);
}

static gboolean
again_cb (gpointer user_data)
{
  Note *note = user_data;

  g_string_append (note->steps->log, note->text);
  return note->steps->log->len < 3;
}

static void
test_step_invokes (Steps *self, gconstpointer data)
{
  pause_loop (self);
  invoke (self, G_PRIORITY_DEFAULT, "a");
  invoke (self, G_PRIORITY_DEFAULT, "b");
  invoke (self, G_PRIORITY_HIGH, "!");
  assert_step (self, "!");
  assert_step (self, "!a");
  assert_step (self, "!ab");
  assert_idle (self);

  g_string_truncate (self->log, 0);
  g_assert_true (bg_loop_invoke_full (self->base.loop, G_PRIORITY_DEFAULT, again_cb,
                                      note_new (self, "r"), g_free));
  assert_step (self, "r");
  assert_step (self, "rr");
  assert_step (self, "rrr");
  assert_idle (self);
}

/* What was invoked before the pause. */
static void
test_step_earlier_invokes (Steps *self, gconstpointer data)
{
  UtilBlock block;

  util_block (&block, self->base.loop);
  invoke (self, G_PRIORITY_DEFAULT, "a");
  invoke (self, G_PRIORITY_DEFAULT, "b");
  util_unblock (&block);
  pause_loop (self);
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, NULL), >=, 0);
  g_assert_cmpstr (self->log->str, ==, "ab");
  util_block_clear (&block);
}

/* What was invoked during the pause, and wants to run again after it. */
static void
test_step_repeated_invoke (Steps *self, gconstpointer data)
{
  pause_loop (self);
  g_assert_true (bg_loop_invoke_full (self->base.loop, G_PRIORITY_DEFAULT, again_cb,
                                      note_new (self, "r"), g_free));
  assert_step (self, "r");
  bg_test_resume (self->base.loop);
  g_assert_true (bg_loop_shutdown (self->base.loop, NULL));
  g_assert_cmpstr (self->log->str, ==, "rrr");
}

static void
test_step_sources (Steps *self, gconstpointer data)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  pause_loop (self);
  g_source_set_callback (source, note_source_cb, note_new (self, "s"), g_free);
  g_assert_true (bg_loop_attach (self->base.loop, source));
  post (self, G_PRIORITY_LOW, "a");
  assert_step (self, "a");
  assert_step (self, "as");
  assert_idle (self);
}

static void
attach (Steps *self, int priority, GSourceFunc func, gpointer data, GDestroyNotify notify)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, priority);
  g_source_set_callback (source, func, data, notify);
  g_assert_true (bg_loop_attach (self->base.loop, source));
}

static gboolean
post_from_source_cb (gpointer user_data)
{
  Steps *self = user_data;

  g_string_append (self->log, "s");
  post (self, G_PRIORITY_DEFAULT, "p");
  invoke (self, G_PRIORITY_DEFAULT, "i");
  post (self, G_PRIORITY_HIGH, "!");
  return G_SOURCE_REMOVE;
}

static void
test_step_source_posts (Steps *self, gconstpointer data)
{
  pause_loop (self);
  attach (self, G_PRIORITY_DEFAULT, post_from_source_cb, self, NULL);
  assert_step (self, "si");
  assert_step (self, "si!");
  assert_step (self, "si!p");
  assert_idle (self);
}

/* What the source's own iterations dispatch is part of the step, what is queued is
 * not. */
static gboolean
iterate_in_source_cb (gpointer user_data)
{
  Steps *self = user_data;
  GMainContext *context = bg_loop_get_context (self->base.loop);

  g_string_append (self->log, "s");
  post (self, G_PRIORITY_DEFAULT, "p");
  g_assert_cmpuint (bg_loop_post_after (self->base.loop, 0, note_cb, note_new (self, "d"), g_free),
                    !=, 0);
  for (guint i = 0; i < 3; i++)
    g_main_context_iteration (context, FALSE);
  return G_SOURCE_REMOVE;
}

static void
test_step_source_iterates (Steps *self, gconstpointer data)
{
  pause_loop (self);
  attach (self, G_PRIORITY_DEFAULT, iterate_in_source_cb, self, NULL);
  attach (self, G_PRIORITY_LOW, note_source_cb, note_new (self, "!"), g_free);
  assert_step (self, "s!");
  assert_step (self, "s!p");
  assert_step (self, "s!pd");
  assert_idle (self);
}

/* Those of one priority have their turn together. */
static void
test_step_many_sources (Steps *self, gconstpointer data)
{
  pause_loop (self);
  attach (self, G_PRIORITY_LOW, note_source_cb, note_new (self, "c"), g_free);
  attach (self, G_PRIORITY_DEFAULT, note_source_cb, note_new (self, "a"), g_free);
  attach (self, G_PRIORITY_DEFAULT, note_source_cb, note_new (self, "b"), g_free);
  assert_step (self, "ab");
  assert_step (self, "abc");
  assert_idle (self);
}

static void
note_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  note_cb (user_data);
  g_free (user_data);
}

typedef struct
{
  Steps *steps;
  BgLoop *helper;
} Asker;

static void
ask_helper_cb (gpointer user_data)
{
  Asker *self = user_data;

  for (guint i = 0; i < 3; i++)
    bg_loop_call_async (self->helper, G_PRIORITY_DEFAULT, -1, util_true_cb, NULL, NULL, NULL,
                        note_reply_cb, note_new (self->steps, "r"));
}

/* Replies to the loop's own calls come one at a time, like the work that they
 * answer. */
static void
test_step_replies (Steps *self, gconstpointer data)
{
  Asker asker = { self, util_loop_new ("helper") };

  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, ask_helper_cb, &asker, NULL));
  assert_step (self, "");
  g_assert_true (bg_loop_flush (asker.helper, -1, NULL, NULL));
  post (self, G_PRIORITY_DEFAULT, "p");
  assert_step (self, "p");
  assert_step (self, "pr");
  assert_step (self, "prr");
  assert_step (self, "prrr");
  assert_idle (self);
  util_loop_end (asker.helper);
}

static void
test_step_delayed (Steps *self, gconstpointer data)
{
  BgLoop *loop = self->base.loop;
  guint64 id;

  pause_loop (self);
  g_assert_cmpuint (bg_loop_post_after (loop, AN_HOUR, note_cb, note_new (self, "never"), g_free),
                    !=, 0);
  assert_idle (self);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, note_cb, note_new (self, "a"), g_free), !=, 0);
  id = bg_loop_post_after (loop, 0, note_cb, note_new (self, "not"), g_free);
  g_assert_cmpuint (bg_loop_post_after (loop, 0, note_cb, note_new (self, "b"), g_free), !=, 0);
  assert_step (self, "a");
  g_assert_true (bg_loop_withdraw (loop, id));
  assert_step (self, "ab");
  assert_idle (self);
}

static void
test_step_wakes_timer (Steps *self, gconstpointer data)
{
  UtilLatch latch;

  util_latch_init (&latch, 1);
  pause_loop (self);
  g_assert_cmpuint (bg_loop_post_after (self->base.loop, 1, (BgPostFunc) util_latch_count_down,
                                        &latch, NULL),
                    !=, 0);
  bg_test_resume (self->base.loop);
  util_latch_wait (&latch);
  util_latch_clear (&latch);
}

/* An operation that answers by way of the loop's context. */
static gboolean
begin_task (gpointer user_data,
            GCancellable *cancellable,
            GAsyncReadyCallback callback,
            gpointer callback_data,
            GError **error)
{
  GTask *task = g_task_new (NULL, cancellable, callback, callback_data);

  note_cb (user_data);
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
  return TRUE;
}

static void
answered_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GAsyncResult) answer = bg_loop_perform_finish (BG_LOOP (source), result, NULL);

  g_assert_true (g_task_propagate_boolean (G_TASK (answer), NULL));
  util_latch_count_down (user_data);
}

static void
test_step_operation (Steps *self, gconstpointer data)
{
  BgLoopStats *stats;
  UtilLatch latch;

  util_latch_init (&latch, 1);
  pause_loop (self);
  bg_loop_perform_async (self->base.loop, G_PRIORITY_DEFAULT, -1, begin_task,
                         note_new (self, "begun"), g_free, NULL, answered_cb, &latch);
  assert_step (self, "begun");
  stats = bg_loop_get_stats (self->base.loop);
  g_assert_cmpuint (stats->holds, ==, 1);
  bg_loop_stats_free (stats);

  assert_step (self, "begun");
  stats = bg_loop_get_stats (self->base.loop);
  g_assert_cmpuint (stats->holds, ==, 0);
  bg_loop_stats_free (stats);
  assert_idle (self);
  util_iterate_until (&latch);
  util_latch_clear (&latch);
}

static gboolean
note_call_cb (gpointer user_data, GError **error)
{
  note_cb (user_data);
  return TRUE;
}

static gpointer
call_thread (gpointer user_data)
{
  Note *note = user_data;

  g_assert_true (bg_loop_call (note->steps->base.loop, note_call_cb, note, NULL, NULL));
  return NULL;
}

static void
test_step_call (Steps *self, gconstpointer data)
{
  g_autofree Note *note = note_new (self, "called");
  GThread *thread;
  int result;

  pause_loop (self);
  thread = g_thread_new ("caller", call_thread, note);
  while ((result = bg_test_step (self->base.loop, NULL)) == 0)
    g_thread_yield ();
  g_assert_cmpint (result, ==, 1);
  g_assert_cmpstr (self->log->str, ==, "called");
  g_thread_join (thread);
}

static void
post_more_cb (gpointer user_data)
{
  Steps *self = user_data;

  if (self->log->len < 3)
    {
      g_string_append (self->log, "x");
      g_assert_true (bg_loop_post (self->base.loop, post_more_cb, self, NULL));
    }
}

static void
test_run_until_idle (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_post (self->base.loop, post_more_cb, self, NULL));
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, &error), >=, 0);
  g_assert_no_error (error);
  g_assert_cmpstr (self->log->str, ==, "xxx");

  pause_loop (self);
  g_string_truncate (self->log, 0);
  g_assert_true (bg_loop_post (self->base.loop, post_more_cb, self, NULL));
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, &error), ==, 4);
  g_assert_no_error (error);

  /* It is paused as before. */
  post (self, G_PRIORITY_DEFAULT, "!");
  g_assert_cmpstr (self->log->str, ==, "xxx");
  bg_test_resume (self->base.loop);
  g_assert_true (bg_loop_flush (self->base.loop, -1, NULL, NULL));
  g_assert_cmpstr (self->log->str, ==, "xxx!");
}

static void
test_pause_twice (Steps *self, gconstpointer data)
{
  for (guint i = 0; i < 100; i++)
    {
      pause_loop (self);
      pause_loop (self);
      bg_test_resume (self->base.loop);
      bg_test_resume (self->base.loop);
    }
  post (self, G_PRIORITY_DEFAULT, "a");
  g_assert_true (bg_loop_flush (self->base.loop, -1, NULL, NULL));
  g_assert_cmpstr (self->log->str, ==, "a");
}

static void
test_pause_ended_by (Steps *self, gconstpointer data)
{
  BgShutdownMode mode = GPOINTER_TO_INT (data);
  g_autoptr (GError) error = NULL;

  pause_loop (self);
  post (self, G_PRIORITY_DEFAULT, "a");
  g_assert_true (bg_loop_shutdown_full (self->base.loop, mode, -1, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (self->log->str, ==, mode == BG_SHUTDOWN_DRAIN ? "a" : "");

  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, -1);
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_false (bg_test_pause (self->base.loop, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&error);
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, &error), ==, -1);
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  bg_test_resume (self->base.loop);
}

static gpointer
step_thread (gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  while (bg_test_step (user_data, &error) >= 0)
    ;
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

/* Many threads pause, step and resume while the loop is used and ends. */
static void
test_step_races_shutdown (Steps *self, gconstpointer data)
{
  GThread *threads[4];
  int n = 0;

  /* Who was not told of the end would wait for ever. */
  set_timeout ("-1");
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("stepper", step_thread, self->base.loop);
  for (guint i = 0; i < util_scale (1000); i++)
    {
      g_assert_true (bg_loop_post (self->base.loop, util_count_cb, &n, NULL));
      if (i % 10 == 0)
        bg_test_resume (self->base.loop);
    }

  g_assert_true (bg_loop_shutdown (self->base.loop, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
  set_timeout (LONG_TIMEOUT);
  g_assert_cmpint (n, ==, util_scale (1000));
}

static gboolean
pause_here_cb (gpointer user_data, GError **error)
{
  Steps *self = user_data;

  g_assert_cmpint (bg_test_step (self->base.loop, error), ==, -1);
  return FALSE;
}

static void
test_own_thread (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->base.loop, pause_here_cb, self, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

/* It has stopped for whoever asks it for anything: that it is its own thread comes second. */

static gboolean
quit_and_pause_cb (gpointer user_data, GError **error)
{
  BgLoop *loop = ((Steps *) user_data)->base.loop;

  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  return bg_test_pause (loop, error);
}

static void
test_own_thread_stopping (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (self->base.loop, quit_and_pause_cb, self, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
test_forked (Steps *self, gconstpointer data)
{
  pid_t pid;

  if (g_getenv ("BGLOOP_TEST_VALGRIND") != NULL)
    {
      g_test_skip ("a forked child ends with what valgrind says of its parent's memory");
      return;
    }

  pid = util_fork ();
  if (pid == 0)
    {
      g_autoptr (GError) error = NULL;

      if (bg_test_step (self->base.loop, &error) != -1
          || !g_error_matches (error, BG_ERROR, BG_ERROR_FORKED)
          || bg_test_describe_loops (0, 0) != NULL)
        _exit (1);
      bg_test_resume (self->base.loop);
      _exit (0);
    }

  util_wait_for_child (pid);
  assert_idle (self);
}

static void
post_for_ever_cb (gpointer user_data)
{
  bg_loop_post (user_data, post_for_ever_cb, user_data, NULL);
}

static void
test_without_end (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilBlock block;
  int n = 0;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  util_block (&block, self->base.loop);
  set_timeout (SHORT_TIMEOUT);
  g_assert_false (bg_test_pause (self->base.loop, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  g_assert_nonnull (strstr (error->message, "running "));
  g_clear_error (&error);
  util_unblock (&block);
  set_timeout (LONG_TIMEOUT);
  /* A pause that was given up does not come later. */
  g_assert_true (bg_loop_flush (self->base.loop, -1, NULL, NULL));
  assert_idle (self);
  util_block_clear (&block);

  set_timeout (SHORT_TIMEOUT);
  g_assert_true (bg_loop_post (self->base.loop, post_for_ever_cb, self->base.loop, NULL));
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, &error), ==, -1);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  set_timeout (LONG_TIMEOUT);
  g_assert_true (bg_loop_post (self->base.loop, util_count_cb, &n, NULL));
  g_assert_true (bg_loop_shutdown_full (self->base.loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
}

/* A step that does not end: the next one waits for it. */
static void
test_step_blocks (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  UtilLatch latch;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  util_latch_init (&latch, 1);
  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, block_for_ever, &latch, NULL));
  post (self, G_PRIORITY_DEFAULT, "a");
  set_timeout (SHORT_TIMEOUT);
  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, -1);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  set_timeout (LONG_TIMEOUT);
  g_assert_true (g_pattern_match_simple ("*running " UTIL_NAME (block_for_ever, "*") " for *",
                                         error->message));
  g_assert_cmpstr (self->log->str, ==, "");
  util_latch_count_down (&latch);
  assert_step (self, "a");
  assert_idle (self);
}

G_NORETURN static void
end_thread_cb (gpointer user_data)
{
  g_thread_exit (NULL);
  g_assert_not_reached ();
}

/* What ends the loop's thread has run, and nothing comes after it. */
static void
test_step_ends_thread (Steps *self, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  util_catch_criticals ();
  set_timeout ("-1");
  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, end_thread_cb, NULL, NULL));
  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, 1);
  g_assert_no_error (error);
  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, -1);
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_true (bg_loop_wait (self->base.loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*");
  set_timeout (LONG_TIMEOUT);
}

typedef struct
{
  Steps *steps;
  UtilLatch begun;
  int done;
} Nested;

static void
set_done_cb (gpointer user_data)
{
  ((Nested *) user_data)->done = TRUE;
}

static void
iterate_until_done_cb (gpointer user_data)
{
  Nested *self = user_data;
  GMainContext *context = bg_loop_get_context (self->steps->base.loop);

  util_latch_count_down (&self->begun);
  g_string_append (self->steps->log, "(");
  while (!self->done)
    g_main_context_iteration (context, TRUE);
  g_string_append (self->steps->log, ")");
}

/* The step waits for what comes after it, which the pause keeps from it. */
static void
step_into_nested (Steps *self, Nested *nested)
{
  g_autoptr (GError) error = NULL;

  nested->steps = self;
  nested->done = FALSE;
  util_latch_init (&nested->begun, 1);
  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, iterate_until_done_cb, nested, NULL));
  post (self, G_PRIORITY_DEFAULT, "a");
  invoke (self, G_PRIORITY_DEFAULT, "b");
  g_assert_cmpuint (bg_loop_post_after (self->base.loop, 1, note_cb, note_new (self, "c"), g_free),
                    !=, 0);
  set_timeout (SHORT_TIMEOUT);
  g_assert_cmpint (bg_test_step (self->base.loop, &error), ==, -1);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  set_timeout (LONG_TIMEOUT);
  util_latch_wait (&nested->begun);
  g_assert_cmpstr (self->log->str, ==, "(");
}

static void
assert_flush (Steps *self)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_flush (self->base.loop, -1, NULL, &error));
  g_assert_no_error (error);
}

static gboolean
has_letters (const char *log, const char *letters)
{
  for (; *letters != '\0'; letters++)
    {
      if (strchr (log, *letters) == NULL)
        return FALSE;
    }

  return TRUE;
}

static void
test_resume_frees_step (Steps *self, gconstpointer data)
{
  Nested nested;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  /* Also when it has nothing else to wake up for. */
  step_into_nested (self, &nested);
  bg_test_resume (self->base.loop);
  g_assert_true (bg_loop_post_after (self->base.loop, 20, set_done_cb, &nested, NULL));
  assert_flush (self);
  g_assert_true (nested.done);
  g_assert_cmpuint (self->log->len, ==, strlen ("(abc)"));
  g_assert_true (has_letters (self->log->str, "abc"));
  g_assert_true (g_str_has_suffix (self->log->str, ")"));

  /* The loop can be paused as before. */
  g_string_truncate (self->log, 0);
  pause_loop (self);
  post (self, G_PRIORITY_DEFAULT, "x");
  assert_step (self, "x");
  assert_idle (self);
  bg_test_resume (self->base.loop);
  assert_flush (self);
}

/* It stands still in the middle of the step that was left. */
static void
test_pause_within_step (Steps *self, gconstpointer data)
{
  Nested nested;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  for (guint i = 0; i < 3; i++)
    {
      step_into_nested (self, &nested);
      bg_test_resume (self->base.loop);
      pause_loop (self);
      g_assert_cmpint (bg_test_run_until_idle (self->base.loop, NULL), >=, 0);
      g_string_assign (self->log, "");
      post (self, G_PRIORITY_DEFAULT, "x");
      assert_step (self, "x");
      assert_idle (self);
      bg_test_resume (self->base.loop);
      g_assert_true (bg_loop_post (self->base.loop, set_done_cb, &nested, NULL));
      assert_flush (self);
      g_assert_true (nested.done);
      g_assert_true (g_str_has_prefix (self->log->str, "x"));
      g_assert_true (g_str_has_suffix (self->log->str, ")"));
      g_string_assign (self->log, "");
    }
}

/* Nobody else is going to do the next step. */
static void
assert_waits_refused (Steps *self)
{
  BgLoop *loop = self->base.loop;
  g_autofree char *message
      = g_strdup_printf ("The loop \"%s\" stands still: this thread has paused it",
                         bg_loop_get_name (loop));

  for (guint i = 0; i < 5; i++)
    {
      g_autoptr (GError) error = NULL;
      gboolean ok = TRUE;

      switch (i)
        {
        case 0:
          ok = bg_loop_call (loop, util_true_cb, NULL, NULL, &error);
          break;
        case 1:
          ok = bg_loop_call_full (loop, G_PRIORITY_HIGH, 1, util_true_cb, NULL, NULL, &error);
          break;
        case 2:
          ok = bg_loop_perform (loop, G_PRIORITY_DEFAULT, -1, begin_nothing, NULL, NULL, &error)
               != NULL;
          break;
        case 3:
          ok = bg_loop_flush (loop, -1, NULL, &error);
          break;
        case 4:
          ok = bg_loop_flush (loop, 1, NULL, &error);
          break;
        default:
          g_assert_not_reached ();
        }

      g_assert_false (ok);
      g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      g_assert_cmpstr (error->message, ==, message);
    }
}

static void
test_wait_for_paused (Steps *self, gconstpointer data)
{
  UtilLatch latch;

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  pause_loop (self);
  assert_waits_refused (self);
  post (self, G_PRIORITY_DEFAULT, "a");
  assert_step (self, "a");
  assert_waits_refused (self);
  bg_test_resume (self->base.loop);
  g_assert_true (bg_loop_call (self->base.loop, util_true_cb, NULL, NULL, NULL));
  assert_flush (self);

  /* So it is while a step goes on. */
  util_latch_init (&latch, 1);
  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, block_for_ever, &latch, NULL));
  set_timeout (SHORT_TIMEOUT);
  g_assert_cmpint (bg_test_step (self->base.loop, NULL), ==, -1);
  set_timeout (LONG_TIMEOUT);
  assert_waits_refused (self);
  util_latch_count_down (&latch);
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, NULL), >=, 0);
  util_latch_clear (&latch);

  /* A shutdown ends the pause. */
  g_assert_true (bg_loop_shutdown (self->base.loop, NULL));
}

static gpointer
pause_thread (gpointer user_data)
{
  pause_loop (user_data);
  return NULL;
}

/* Who has paused it may step it, too: then the call is queued. */
static void
test_wait_for_paused_elsewhere (Steps *self, gconstpointer data)
{
  g_autofree Note *note = note_new (self, "called");
  g_autoptr (GError) error = NULL;
  GThread *thread;

  g_thread_join (g_thread_new ("pauser", pause_thread, self));
  g_assert_false (
      bg_loop_call_full (self->base.loop, G_PRIORITY_DEFAULT, 1, util_true_cb, NULL, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);

  /* Whoever steps it last has it from then on. */
  thread = g_thread_new ("caller", call_thread, note);
  util_wait_for_queued (self->base.loop, 1);
  g_assert_cmpint (bg_test_run_until_idle (self->base.loop, NULL), ==, 1);
  g_assert_cmpstr (self->log->str, ==, "called");
  g_thread_join (thread);
  g_clear_error (&error);
  g_assert_false (bg_loop_call (self->base.loop, util_true_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
}

/* A child that was forked by a step goes on as it does without. */
static gboolean
child_exits_cb (gpointer user_data)
{
  _exit (0);
}

static void
fork_cb (gpointer user_data)
{
  Steps *self = user_data;
  pid_t pid = util_fork ();

  if (pid == 0)
    {
      GSource *source = g_idle_source_new ();

      g_source_set_callback (source, child_exits_cb, NULL, NULL);
      g_source_attach (source, bg_loop_get_context (self->base.loop));
      g_source_unref (source);
      return;
    }

  util_wait_for_child (pid);
  g_string_append (self->log, "forked");
}

static void
test_step_forks (Steps *self, gconstpointer data)
{
  if (g_getenv ("BGLOOP_TEST_VALGRIND") != NULL)
    {
      g_test_skip ("a forked child ends with what valgrind says of its parent's memory");
      return;
    }

  if (!g_test_subprocess ())
    {
      util_assert_subprocess_passes (NULL);
      return;
    }

  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, fork_cb, self, NULL));
  assert_step (self, "forked");
  assert_idle (self);
}

/* What was invoked before the pause waits for its turn, too. */

static void
invoke_and_pause (Steps *self)
{
  UtilBlock block;
  GThread *thread;

  util_block (&block, self->base.loop);
  invoke (self, G_PRIORITY_DEFAULT, "a");
  invoke (self, G_PRIORITY_DEFAULT, "b");
  thread = g_thread_new ("pauser", pause_thread, self);
  while (util_count_threads_awake () > 1)
    g_thread_yield ();
  util_unblock (&block);
  g_thread_join (thread);
  util_block_clear (&block);
}

static void
test_step_each_earlier_invoke (Steps *self, gconstpointer data)
{
  if (!HAVE_PROC)
    {
      g_test_skip ("without /proc nobody knows which threads sleep");
      return;
    }
  /* The thread may have slept before it had asked. */
  invoke_and_pause (self);
  while (*self->log->str != '\0')
    {
      g_assert_cmpint (bg_test_run_until_idle (self->base.loop, NULL), >=, 0);
      bg_test_resume (self->base.loop);
      g_string_truncate (self->log, 0);
      invoke_and_pause (self);
    }
  assert_step (self, "a");
  assert_step (self, "ab");
  assert_idle (self);
}

/* A step that ends the pause, and so wakes whoever waits for the step, is waited for to its
 * end. */
static void
resume_and_go_on_cb (gpointer user_data)
{
  Steps *self = user_data;

  bg_test_resume (self->base.loop);
  while (util_count_threads_awake () > 1)
    g_thread_yield ();
  g_string_append (self->log, "resumed");
}

static void
test_step_resumes (Steps *self, gconstpointer data)
{
  if (!HAVE_PROC)
    {
      g_test_skip ("without /proc nobody knows which threads sleep");
      return;
    }

  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, resume_and_go_on_cb, self, NULL));
  assert_step (self, "resumed");
}

/* The loop is paused again before it was told that the pause before is over: to be told then
 * is no step, and it lets nothing go. */

/* It may have slept before it had asked, and is too late then: the test has paused the loop. */
static gpointer
try_pause_thread (gpointer loop)
{
  bg_test_pause (loop, NULL);
  g_object_unref (loop);
  return NULL;
}

static void
resume_and_await_pause_cb (gpointer user_data)
{
  Steps *self = user_data;
  GThread *thread;

  bg_test_resume (self->base.loop);
  thread = g_thread_new ("pauser", try_pause_thread, g_object_ref (self->base.loop));
  while (util_count_threads_awake () > 1)
    g_thread_yield ();
  g_thread_unref (thread);
  g_string_append (self->log, "resumed");
}

static void
iterate_cb (gpointer user_data)
{
  Steps *self = user_data;

  while (g_main_context_iteration (bg_loop_get_context (self->base.loop), FALSE))
    ;
  g_string_append (self->log, "iterated");
}

static void
test_paused_again (Steps *self, gconstpointer data)
{
  if (!HAVE_PROC)
    {
      g_test_skip ("without /proc nobody knows which threads sleep");
      return;
    }

  pause_loop (self);
  g_assert_true (bg_loop_post (self->base.loop, resume_and_await_pause_cb, self, NULL));
  assert_step (self, "resumed");
  pause_loop (self);
  assert_idle (self);
  g_string_truncate (self->log, 0);
  g_assert_true (bg_loop_post (self->base.loop, iterate_cb, self, NULL));
  post (self, G_PRIORITY_DEFAULT, "a");
  assert_step (self, "iterated");
  assert_step (self, "iterateda");
  assert_idle (self);
}

static const struct
{
  const char *path;
  void (*func) (BgTestFixture *, gconstpointer);
} fixture_tests[] = {
  { "/kit/fixture/named-after-test", test_named },
  { "/kit/fixture/shut-down-by-test", test_shut_down },
  { "/kit/fixture/dropped-by-test", test_dropped },
  { "/kit/fixture/several-loops", test_several },
  { "/kit/fixture/default-loop", test_default },
  { "/kit/fixture/skipped-test", test_skipped },
  { "/kit/fixture/work-is-done", test_work_is_done },
  { "/kit/fixture/source-outlives-loop", test_source_outlives_loop },
  { "/kit/fixture/source-dropped-late", test_source_dropped_late },
  { "/kit/fixture/ends-slowly", test_ends_slowly },
  { "/kit/fixture/reference-dropped-late", test_reference_dropped_late },
  { "/kit/fixture/trapped", test_subprocess },
  { "/kit/fixture/file-named-eventfd", test_file_named_eventfd },
  { "/kit/fixture/ignored-eventfd", test_ignored_eventfd },
  { "/kit/fixture/worker", test_worker },
  { "/kit/fixture/worker-of-bus", test_bus_worker },
};

static const struct
{
  const char *path;
  gconstpointer data;
  void (*func) (Steps *, gconstpointer);
} step_tests[] = {
  { "/kit/step/posts", NULL, test_step_posts },
  { "/kit/step/many", NULL, test_step_many },
  { "/kit/step/invokes", NULL, test_step_invokes },
  { "/kit/step/earlier-invokes", NULL, test_step_earlier_invokes },
  { "/kit/step/each-earlier-invoke", NULL, test_step_each_earlier_invoke },
  { "/kit/step/repeated-invoke", NULL, test_step_repeated_invoke },
  { "/kit/step/sources", NULL, test_step_sources },
  { "/kit/step/source-posts", NULL, test_step_source_posts },
  { "/kit/step/source-iterates", NULL, test_step_source_iterates },
  { "/kit/step/many-sources", NULL, test_step_many_sources },
  { "/kit/step/replies", NULL, test_step_replies },
  { "/kit/step/delayed", NULL, test_step_delayed },
  { "/kit/step/resume-wakes-timer", NULL, test_step_wakes_timer },
  { "/kit/step/operation", NULL, test_step_operation },
  { "/kit/step/call", NULL, test_step_call },
  { "/kit/step/run-until-idle", NULL, test_run_until_idle },
  { "/kit/step/pause-twice", NULL, test_pause_twice },
  { "/kit/step/shutdown/drain", GINT_TO_POINTER (BG_SHUTDOWN_DRAIN), test_pause_ended_by },
  { "/kit/step/shutdown/cancel", GINT_TO_POINTER (BG_SHUTDOWN_CANCEL), test_pause_ended_by },
  { "/kit/step/shutdown/race", NULL, test_step_races_shutdown },
  { "/kit/step/own-thread", NULL, test_own_thread },
  { "/kit/step/own-thread/stopping", NULL, test_own_thread_stopping },
  { "/kit/step/forked", NULL, test_forked },
  { "/kit/step/without-end", NULL, test_without_end },
  { "/kit/step/blocks", NULL, test_step_blocks },
  { "/kit/step/ends-thread", NULL, test_step_ends_thread },
  { "/kit/step/forks", NULL, test_step_forks },
  { "/kit/resume/frees-step", NULL, test_resume_frees_step },
  { "/kit/resume/by-the-step", NULL, test_step_resumes },
  { "/kit/resume/paused-again", NULL, test_paused_again },
  { "/kit/resume/pause-within-step", NULL, test_pause_within_step },
  { "/kit/paused/waits-are-refused", NULL, test_wait_for_paused },
  { "/kit/paused/waits-of-others-are-queued", NULL, test_wait_for_paused_elsewhere },
};

static void
add_leak_tests (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (leaks); i++)
    {
      g_autofree char *path = g_strdup_printf ("/kit/leak/%s", leaks[i].name);
      g_autofree char *child = g_strdup_printf ("%s/subprocess", path);

      g_test_add_data_func (path, &leaks[i], test_leak);
      g_test_add (child, BgTestFixture, &leaks[i], leak_set_up, run_leak,
                  bg_test_fixture_tear_down);
    }
}

/* To ask for the end ends a pause, so that the thread that has paused the loop may wait for it
 * from then on. */
static void
test_pause_quit_wait (void)
{
  for (guint i = 0; i < 20; i++)
    {
      BgLoop *loop = util_loop_new ("paused");
      g_autoptr (GError) error = NULL;

      g_assert_true (bg_test_pause (loop, &error));
      g_assert_no_error (error);
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      g_assert_true (bg_loop_wait (loop, -1, NULL, &error));
      g_assert_no_error (error);
      util_loop_end (loop);
    }
}

/* Nor is that thread kept then: of many that have ended nothing is left. */

#define N_PAUSERS  1000
#define LEAK_BYTES 32 /* of each: what GLib has of a thread is more */

static gpointer
pause_once_thread (gpointer loop)
{
  g_assert_true (bg_test_pause (loop, NULL));
  return NULL;
}

static void
end_while_paused (guint n)
{
  for (guint i = 0; i < n; i++)
    {
      BgLoop *loop = util_loop_new ("paused");

      g_thread_join (g_thread_new ("pauses", pause_once_thread, loop));
      util_loop_end (loop);
    }
}

static void
test_pauser_goes (void)
{
  gsize before;

  end_while_paused (N_PAUSERS / 10);
  before = util_get_allocated ();
  end_while_paused (N_PAUSERS);
  g_assert_cmpuint (util_get_allocated (), <, before + N_PAUSERS * LEAK_BYTES);
}

/* Who waits for loops to be gone is told of it, and does not only look again when the time is up. */

static gpointer
unblock_thread (gpointer block)
{
  util_settle ();
  util_unblock (block);
  return NULL;
}

static void
test_told_of_gone (void)
{
  for (guint i = 0; i < util_scale_at_least (20, 5); i++)
    {
      guint64 since = bg_test_mark_loops ();
      BgLoop *loop = util_loop_new ("goes");
      UtilBlock block;
      GThread *thread;

      util_block (&block, loop);
      g_object_unref (loop);
      thread = g_thread_new ("unblocks", unblock_thread, &block);
      g_assert_null (bg_test_describe_loops (since, G_MAXINT));
      g_thread_join (thread);
      util_block_clear (&block);
    }
}

int
main (int argc, char *argv[])
{
  int result;

  util_init (&argc, &argv);
  set_timeout (LONG_TIMEOUT);

  for (guint i = 0; i < G_N_ELEMENTS (fixture_tests); i++)
    bg_test_add (fixture_tests[i].path, fixture_tests[i].func);
  for (guint i = 0; i < G_N_ELEMENTS (step_tests); i++)
    g_test_add (step_tests[i].path, Steps, step_tests[i].data, steps_set_up, step_tests[i].func,
                steps_tear_down);
  bg_test_add_data ("/kit/fixture/data", test_data, "some data");
  add_leak_tests ();
  add_timeout_tests ("0");
  add_timeout_tests ("-1");
  g_test_add_func ("/kit/timeout-and-leak-of-context/-1", test_context_left_without_limit);
  g_test_add_func ("/kit/fixture/older-loop", test_older_loop);
  g_test_add_func ("/kit/fixture/leaves-no-descriptors", test_descriptors);
  if (HAVE_PROC)
    {
      util_add_trapped ("/kit/fixture/loop-is-being-freed", test_freeing);
      util_add_trapped ("/kit/fixture/handler-runs", test_handler_runs);
    }
  g_test_add_func ("/kit/leak/goes-on", test_goes_on);
  g_test_add_func ("/kit/leak/is-cancelled", test_cancelled);
  g_test_add_func ("/kit/leak/default-is-forgotten", test_default_is_forgotten);
  g_test_add_func ("/kit/pause/quit-then-wait", test_pause_quit_wait);
  if (!util_is_emulated ())
    util_add_trapped ("/kit/pause/ended-pauser-goes", test_pauser_goes);
  g_test_add_func ("/kit/assert-no-loops", test_assert_no_loops);
  util_add_trapped ("/kit/assert-no-loops/told", test_told_of_gone);
  g_test_add_func ("/kit/timeout-variable", test_timeout_variable);

  result = g_test_run ();
  if (!g_test_subprocess ())
    bg_test_assert_no_loops ();
  return result;
}
