/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "util.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#if HAVE_PROC
#include <sys/syscall.h>
#endif
#if UTIL_WITH_ASAN
#include <sanitizer/lsan_interface.h>
#endif

#define HANG_SECONDS  240
#define CHILD_SECONDS 20

/* How long the fixture waits for what a test leaves behind, in milliseconds: on a busy machine
 * what is about to go takes its time. */
#define FIXTURE_MSEC "60000"

#define KERNEL_PF_EXITING 0x4 /* proc(5) leaves it to <linux/sched.h>, which is not for us */

static void
hang_cb (int signal_number)
{
  static const char message[] = "Bail out! The test program hangs\n";

  if (write (STDOUT_FILENO, message, sizeof message - 1) < 0)
    _exit (2);
  abort ();
}

void
util_init (int *argc, char ***argv)
{
  g_test_init (argc, argv, G_TEST_OPTION_ISOLATE_DIRS, NULL);
  g_main_context_default (); /* the first loop makes it, which would upset the counts */
  g_setenv ("BG_TEST_TIMEOUT", FIXTURE_MSEC, FALSE);
  signal (SIGALRM, hang_cb);
  util_go_on ();
}

void
util_go_on (void)
{
  alarm (HANG_SECONDS);
}

guint
util_scale (guint n)
{
  const char *scale = g_getenv ("BGLOOP_TEST_SCALE");

  if (scale == NULL)
    scale = g_getenv ("BGLOOP_TEST_SETUP_SCALE");
  if (scale == NULL)
    return n;

  n = (guint) ((guint64) n * strtoul (scale, NULL, 10) / 100);
  return MAX (1, n);
}

guint
util_scale_at_least (guint n, guint least)
{
  n = util_scale (n);
  return MAX (n, least);
}

void
util_latch_init (UtilLatch *self, guint count)
{
  g_mutex_init (&self->lock);
  g_cond_init (&self->cond);
  self->count = count;
}

void
util_latch_clear (UtilLatch *self)
{
  /* Whoever opened it may still be in there. */
  g_mutex_lock (&self->lock);
  g_mutex_unlock (&self->lock);
  g_mutex_clear (&self->lock);
  g_cond_clear (&self->cond);
}

void
util_latch_count_down (UtilLatch *self)
{
  g_mutex_lock (&self->lock);
  g_assert_cmpuint (self->count, >, 0);
  if (--self->count == 0)
    g_cond_broadcast (&self->cond);
  g_mutex_unlock (&self->lock);
}

void
util_latch_wait (UtilLatch *self)
{
  g_mutex_lock (&self->lock);
  while (self->count > 0)
    g_cond_wait (&self->cond, &self->lock);
  g_mutex_unlock (&self->lock);
}

gboolean
util_latch_is_open (UtilLatch *self)
{
  gboolean is_open;

  g_mutex_lock (&self->lock);
  is_open = self->count == 0;
  g_mutex_unlock (&self->lock);

  return is_open;
}

void
util_block_init (UtilBlock *self)
{
  util_latch_init (&self->entered, 1);
  util_latch_init (&self->released, 1);
}

void
util_block_cb (gpointer block)
{
  UtilBlock *self = block;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->released);
}

gboolean
util_block_source_cb (gpointer block)
{
  util_block_cb (block);
  return G_SOURCE_REMOVE;
}

void
util_block (UtilBlock *self, BgLoop *loop)
{
  util_block_init (self);
  g_assert_true (bg_loop_post (loop, util_block_cb, self, NULL));
  util_latch_wait (&self->entered);
}

void
util_unblock (UtilBlock *self)
{
  util_latch_count_down (&self->released);
}

void
util_block_clear (UtilBlock *self)
{
  util_latch_clear (&self->entered);
  util_latch_clear (&self->released);
}

static void
set_linger (BgLoop *loop)
{
  const char *linger = g_getenv ("BGLOOP_TEST_LINGER");

  if (linger != NULL)
    g_object_set (loop, "linger", (guint) strtoul (linger, NULL, 10), NULL);
}

BgLoop *
util_loop_new (const char *name)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = bg_loop_new (name, &error);

  g_assert_no_error (error);
  g_assert_true (BG_IS_LOOP (loop));
  set_linger (loop);
  return loop;
}

void
util_loop_shut_down (BgLoop *loop)
{
  g_autoptr (GError) error = NULL;
  gboolean ended = bg_loop_shutdown (loop, &error);

  g_assert_no_error (error);
  g_assert_true (ended);
  g_assert_cmpint (bg_loop_get_state (loop), ==, BG_LOOP_STOPPED);
}

void
util_loop_end (BgLoop *loop)
{
  util_loop_shut_down (loop);
  g_assert_finalize_object (loop);
}

static void
set_up (BgTestFixture *fixture, gconstpointer data)
{
  bg_test_fixture_set_up (fixture, data);
  set_linger (fixture->loop);
}

void
util_add (const char *path, UtilTestFunc func)
{
  util_add_data (path, func, NULL);
}

void
util_add_data (const char *path, UtilTestFunc func, gconstpointer data)
{
  g_test_add (path, BgTestFixture, data, set_up, func, bg_test_fixture_tear_down);
}

void
util_iterate_until (UtilLatch *latch)
{
  GMainContext *context = g_main_context_get_thread_default ();

  while (!util_latch_is_open (latch))
    g_main_context_iteration (context, TRUE);
}

void
util_run_threads (guint n, GThreadFunc func, gpointer data)
{
  g_autofree GThread **threads = g_new (GThread *, n);

  for (guint i = 0; i < n; i++)
    threads[i] = g_thread_new ("test", func, data);
  for (guint i = 0; i < n; i++)
    g_thread_join (threads[i]);
}

typedef struct
{
  BgLoop *loop;
  UtilLatch *start;
  BgPostFunc ended;
  gpointer data;
} LateShutdown;

static gpointer
late_shutdown_thread (gpointer user_data)
{
  LateShutdown *self = user_data;

  util_latch_wait (self->start);
  for (int i = g_random_int_range (0, 10); i > 0; i--)
    g_thread_yield ();
  util_shutdown_thread (self->loop);
  if (self->ended != NULL)
    self->ended (self->data);
  return NULL;
}

void
util_race_shutdown (BgLoop *loop,
                    UtilLatch *start,
                    guint n,
                    GThreadFunc func,
                    gpointer data,
                    BgPostFunc ended)
{
  LateShutdown late = { loop, start, ended, data };
  GThread *thread;

  util_latch_init (start, n);
  thread = g_thread_new ("shutdown", late_shutdown_thread, &late);
  util_run_threads (n, func, data);
  g_thread_join (thread);
  util_latch_clear (start);
}

gpointer
util_shutdown_thread (gpointer loop)
{
  g_assert_true (bg_loop_shutdown (loop, NULL));
  return NULL;
}

gpointer
util_cancel_thread (gpointer cancellable)
{
  g_cancellable_cancel (cancellable);
  return NULL;
}

gpointer
util_call_closed_thread (gpointer loop)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_call (loop, util_no_call_cb, NULL, NULL, &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  return NULL;
}

void
util_reply_init (UtilReply *self)
{
  util_latch_init (&self->arrived, 1);
  self->thread = NULL;
  self->result = NULL;
}

void
util_reply_clear (UtilReply *self)
{
  util_latch_clear (&self->arrived);
  g_clear_object (&self->result);
}

void
util_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  UtilReply *self = user_data;

  g_assert_null (self->result);
  self->thread = g_thread_self ();
  self->result = g_object_ref (result);
  util_latch_count_down (&self->arrived);
}

void
util_reply_wait (UtilReply *self)
{
  util_iterate_until (&self->arrived);
}

static void
util_answer_async_result_init (GAsyncResultIface *iface)
{
}

G_DEFINE_FINAL_TYPE_WITH_CODE (UtilAnswer,
                               util_answer,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT,
                                                      util_answer_async_result_init))

static int n_answers;

static void
util_answer_finalize (GObject *object)
{
  g_atomic_int_add (&n_answers, -1);
  G_OBJECT_CLASS (util_answer_parent_class)->finalize (object);
}

static void
util_answer_class_init (UtilAnswerClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = util_answer_finalize;
}

static void
util_answer_init (UtilAnswer *self)
{
  g_atomic_int_inc (&n_answers);
}

GAsyncResult *
util_answer_new (int value)
{
  UtilAnswer *self = g_object_new (UTIL_TYPE_ANSWER, NULL);

  self->value = value;
  return G_ASYNC_RESULT (self);
}

void
util_assert_no_answers (void)
{
  g_assert_cmpint (g_atomic_int_get (&n_answers), ==, 0);
}

void
util_spin_until (gint64 monotonic_time)
{
  while (g_get_monotonic_time () < monotonic_time)
    g_thread_yield ();
}

gint64
util_msec_from_now (guint msec)
{
  return g_get_monotonic_time () + msec * G_TIME_SPAN_MILLISECOND;
}

void
util_settle (void)
{
  while (g_test_rand_int_range (0, 8) != 0)
    g_thread_yield ();
}

void
util_wait_for_queued (BgLoop *loop, guint n)
{
  guint queued = 0;

  while (queued < n)
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

      queued = stats->queued;
      g_thread_yield ();
    }
}

void
util_wait_for_holds (BgLoop *loop, guint n)
{
  guint holds = n + 1;

  while (holds != n)
    {
      g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);

      holds = stats->holds;
      g_thread_yield ();
    }
}

/* What the library logs is structured, which g_test_expect_message() ignores. */
static GMutex criticals_lock;
static GPtrArray *criticals;

static GLogWriterOutput
catch_criticals_cb (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data)
{
  if ((level & G_LOG_LEVEL_CRITICAL) == 0)
    return g_log_writer_default (level, fields, n_fields, data);

  g_mutex_lock (&criticals_lock);
  g_ptr_array_add (criticals, g_log_writer_format_fields (level, fields, n_fields, FALSE));
  g_mutex_unlock (&criticals_lock);
  return G_LOG_WRITER_HANDLED;
}

/* Nor is it what g_return_if_fail() says. */
static void
catch_unstructured_cb (const char *domain, GLogLevelFlags level, const char *text, gpointer data)
{
  if ((level & G_LOG_LEVEL_CRITICAL) == 0)
    {
      g_log_default_handler (domain, level, text, data);
      return;
    }

  g_mutex_lock (&criticals_lock);
  g_ptr_array_add (criticals, g_strdup (text));
  g_mutex_unlock (&criticals_lock);
}

/* Of what GLib does not free when a function that it calls ends the thread. */
void
util_ignore_leak (gpointer memory)
{
#if UTIL_WITH_ASAN
  __lsan_ignore_object (memory);
#endif
}

void
util_catch_criticals (void)
{
  if (criticals != NULL)
    return;

  criticals = g_ptr_array_new_with_free_func (g_free);
  g_log_set_writer_func (catch_criticals_cb, NULL, NULL);
  g_log_set_default_handler (catch_unstructured_cb, NULL);
  g_log_set_always_fatal (G_LOG_FATAL_MASK);
}

void
util_take_critical (const char *pattern)
{
  g_mutex_lock (&criticals_lock);
  for (guint i = 1; i < criticals->len; i++)
    g_printerr ("# another critical: %s\n", (char *) g_ptr_array_index (criticals, i));
  g_assert_cmpuint (criticals->len, ==, 1);
  g_assert_true (g_pattern_match_simple (pattern, g_ptr_array_index (criticals, 0)));
  g_ptr_array_set_size (criticals, 0);
  g_mutex_unlock (&criticals_lock);
}

static guint
count_entries (const char *folder, gboolean (*counts) (const char *path))
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = g_dir_open (folder, 0, &error);
  const char *name;
  guint n = 0;

  g_assert_no_error (error);
  while ((name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (folder, name, NULL);

      if (counts == NULL || counts (path))
        n++;
    }

  return n;
}

static gboolean
is_eventfd (const char *path)
{
  g_autofree char *link = g_file_read_link (path, NULL);

  return link != NULL && strstr (link, "eventfd") != NULL;
}

/* The state of a thread, as the system's letter, and its flags; FALSE if it has gone.
 * ID (NAME) STATE PARENT GROUP SESSION TERMINAL TERMINAL_GROUP FLAGS */
static gboolean
read_thread (const char *path, char *state, guint *flags)
{
  g_autofree char *stat = g_build_filename (path, "stat", NULL);
  g_autofree char *text = NULL;
  const char *rest;

  if (!g_file_get_contents (stat, &text, NULL, NULL))
    return FALSE;
  rest = strrchr (text, ')');
  g_assert_nonnull (rest);
  g_assert_cmpint (sscanf (rest, ") %c %*d %*d %*d %*d %*d %u", state, flags), ==, 2);
  return TRUE;
}

/* A thread that has been joined stays in the list until the system has cleared it
 * away; that it is on its way out is marked before it can be joined. */
static gboolean
is_alive (const char *path)
{
  guint flags;
  char state;

  return read_thread (path, &state, &flags) && (flags & KERNEL_PF_EXITING) == 0;
}

static gboolean
is_awake (const char *path)
{
  guint flags;
  char state;

  return read_thread (path, &state, &flags) && state == 'R';
}

gboolean
util_is_emulated (void)
{
#if HAVE_PROC
  g_autofree char *call = NULL;

  /* What is read is the number of the call that reads: the real processor's. */
  return g_file_get_contents ("/proc/thread-self/syscall", &call, NULL, NULL)
         && strtol (call, NULL, 10) != SYS_read;
#else
  return FALSE;
#endif
}

gsize
util_get_allocated (void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  struct mallinfo2 info = mallinfo2 ();

  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

guint
util_count_fds (void)
{
  return count_entries ("/proc/self/fd", NULL);
}

guint
util_count_eventfds (void)
{
  return count_entries ("/proc/self/fd", is_eventfd);
}

/* A thread that goes while the system lists the threads may hide those behind it. How many there
 * are is right in the folder's count of links: the list is, too, if that has not changed meanwhile. */
static guint
count_threads (gboolean (*counts) (const char *path))
{
  GStatBuf before, after;
  guint counted, n = 0;

  for (guint i = 0; i < 100; i++)
    {
      g_assert_cmpint (g_stat ("/proc/self/task", &before), ==, 0);
      counted = count_entries ("/proc/self/task", counts);
      n = MAX (n, counted);
      g_assert_cmpint (g_stat ("/proc/self/task", &after), ==, 0);
      if (before.st_nlink == after.st_nlink)
        break;
    }
  return n;
}

guint
util_count_threads (void)
{
  return count_threads (is_alive);
}

guint
util_count_threads_awake (void)
{
  return count_threads (is_awake);
}

void
util_wait_for_threads (guint n)
{
  while (util_count_threads () > n)
    g_thread_yield ();
}

gboolean
util_is_asleep (BgLoop *loop)
{
  g_autofree char *text = bg_loop_describe (loop);

  return g_strstr_len (text, -1, "busy") == NULL && g_strstr_len (text, -1, "running ") == NULL;
}

void
util_wait_until_asleep (BgLoop *loop)
{
  while (!util_is_asleep (loop))
    g_thread_yield ();
}

pid_t
util_fork (void)
{
  pid_t pid = fork ();

  g_assert_cmpint (pid, >=, 0);
  if (pid == 0)
    {
      signal (SIGALRM, SIG_DFL);
      alarm (CHILD_SECONDS);
    }
  return pid;
}

void
util_wait_for_child (pid_t pid)
{
  int status = 0;

  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  if (WIFSIGNALED (status))
    g_error ("The child was killed by signal %d", WTERMSIG (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, 0);
}

void
util_assert_subprocess_passes (const char *path)
{
  /* It has a watchdog of its own, and this process as much time afterwards. */
  alarm (0);
  g_test_trap_subprocess (path, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
  util_go_on ();
  g_test_trap_assert_passed ();
}

static void
trapped_cb (gconstpointer path)
{
  g_autofree char *trapped = g_strconcat (path, "/subprocess", NULL);

  util_assert_subprocess_passes (trapped);
}

void
util_add_trapped (const char *path, GTestFunc func)
{
  g_autofree char *trapped = g_strconcat (path, "/subprocess", NULL);

  g_test_add_func (trapped, func);
  g_test_add_data_func (path, path, trapped_cb);
}

void
util_add_trapped_with_loop (const char *path, UtilTestFunc func)
{
  g_autofree char *trapped = g_strconcat (path, "/subprocess", NULL);

  util_add (trapped, func);
  g_test_add_data_func (path, path, trapped_cb);
}

void
util_count_cb (gpointer counter)
{
  g_atomic_int_inc ((int *) counter);
}

gboolean
util_count_call_cb (gpointer counter, GError **error)
{
  util_count_cb (counter);
  return TRUE;
}

void
util_count_notify_cb (GObject *object, GParamSpec *pspec, gpointer counter)
{
  util_count_cb (counter);
}

void
util_count_down_cb (gpointer latch)
{
  util_latch_count_down (latch);
}

gboolean
util_count_down_source_cb (gpointer latch)
{
  util_latch_count_down (latch);
  return G_SOURCE_REMOVE;
}

void
util_count_down_reply_cb (GObject *source, GAsyncResult *result, gpointer latch)
{
  util_latch_count_down (latch);
}

void
util_wait_cb (gpointer latch)
{
  util_latch_wait (latch);
}

void
util_cancel_cb (gpointer cancellable)
{
  g_cancellable_cancel (cancellable);
}

gboolean
util_cancel_call_cb (gpointer cancellable, GError **error)
{
  g_cancellable_cancel (cancellable);
  return TRUE;
}

void
util_quit_cb (gpointer loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

void
util_quit_cancel_cb (gpointer loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
}

void
util_exit_thread_cb (gpointer user_data)
{
  g_thread_exit (NULL);
}

void
util_nothing_cb (gpointer user_data)
{
}

gboolean
util_true_cb (gpointer user_data, GError **error)
{
  return TRUE;
}

gboolean
util_remove_cb (gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

gboolean
util_continue_cb (gpointer user_data)
{
  return G_SOURCE_CONTINUE;
}

void
util_return_true_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  g_task_return_boolean (task, TRUE);
}

gboolean
util_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  g_task_return_boolean (task, TRUE);
  return TRUE;
}

gboolean
util_operation_cb (BgOperation *operation,
                   GCancellable *cancellable,
                   gpointer user_data,
                   GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  bg_operation_answer (operation, G_ASYNC_RESULT (task));
  return TRUE;
}

gboolean
util_false_cb (gpointer user_data, GError **error)
{
  return FALSE;
}

void
util_not_reached_cb (gpointer user_data)
{
  g_assert_not_reached ();
}

gboolean
util_no_call_cb (gpointer user_data, GError **error)
{
  g_assert_not_reached ();
}

gboolean
util_no_source_cb (gpointer user_data)
{
  g_assert_not_reached ();
}

void
util_no_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_not_reached ();
}

void
util_no_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  g_assert_not_reached ();
}

gboolean
util_no_begin_cb (gpointer user_data,
                  GCancellable *cancellable,
                  GAsyncReadyCallback callback,
                  gpointer callback_data,
                  GError **error)
{
  g_assert_not_reached ();
}

gboolean
util_no_operation_cb (BgOperation *operation,
                      GCancellable *cancellable,
                      gpointer user_data,
                      GError **error)
{
  g_assert_not_reached ();
}
