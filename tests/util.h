/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <sys/types.h>

#include <bgloop/bg-test.h>
#include <bgloop/bgloop.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/* What the program is built with. The allocator of AddressSanitizer has locks that do not survive a
 * fork; ThreadSanitizer lets a forked child start no threads. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UTIL_WITH_ASAN 1
#else
#define UTIL_WITH_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UTIL_WITH_TSAN 1
#else
#define UTIL_WITH_TSAN 0
#endif
#define UTIL_IS_SANITIZED (UTIL_WITH_ASAN || UTIL_WITH_TSAN)

G_BEGIN_DECLS

/* g_test_init(), and a watchdog that ends the program when it hangs. */
void util_init (int *argc, char ***argv);

/* The watchdog's time begins anew: for what goes on for long, each time that it has got on. */
void util_go_on (void);

/* @n, or less where everything is slow (BGLOOP_TEST_SCALE, percent; unless it is set
 * BGLOOP_TEST_SETUP_SCALE, which is the test setup's). */
guint util_scale (guint n);
guint util_scale_at_least (guint n, guint least);

/* Something that is to happen a number of times, and those who wait for it. */
typedef struct
{
  GMutex lock;
  GCond cond;
  guint count;
} UtilLatch;

void util_latch_init (UtilLatch *self, guint count);
void util_latch_clear (UtilLatch *self);
void util_latch_count_down (UtilLatch *self);
void util_latch_wait (UtilLatch *self);
gboolean util_latch_is_open (UtilLatch *self);

/* Keeps a loop busy with a function that blocks until it is let go. */
typedef struct
{
  UtilLatch entered;
  UtilLatch released;
} UtilBlock;

void util_block (UtilBlock *self, BgLoop *loop);
void util_unblock (UtilBlock *self);
void util_block_clear (UtilBlock *self); /* once the loop has been flushed or is gone */

/* The same where it is not posted, or not at once: a UtilBlock that is made, and that a function or a
 * source blocks with. */
void util_block_init (UtilBlock *self);
void util_block_cb (gpointer block);
gboolean util_block_source_cb (gpointer block);

/* A running loop; the program ends if there is none to be had. It lingers for
 * BGLOOP_TEST_LINGER microseconds where that is set. */
BgLoop *util_loop_new (const char *name);

/* Shuts the loop down, and asserts that this went well. */
void util_loop_shut_down (BgLoop *loop);

/* The same, and drops it. */
void util_loop_end (BgLoop *loop);

/* bg_test_add() and bg_test_add_data(), but the loop lingers as that of util_loop_new(). */
typedef void (*UtilTestFunc) (BgTestFixture *fixture, gconstpointer data);

void util_add (const char *path, UtilTestFunc func);
void util_add_data (const char *path, UtilTestFunc func, gconstpointer data);

/* Runs the thread-default context until @latch is open. */
void util_iterate_until (UtilLatch *latch);

/* Runs @func in @n threads at once, and waits for all of them. */
void util_run_threads (guint n, GThreadFunc func, gpointer data);

/* Runs @func in @n threads at once, and shuts the loop down soon after each of them has counted @start
 * down, which is made for that; @ended (nullable) is called as soon as the shutdown has returned. */
void util_race_shutdown (BgLoop *loop,
                         UtilLatch *start,
                         guint n,
                         GThreadFunc func,
                         gpointer data,
                         BgPostFunc ended);

/* For a thread each: shuts a loop down, and cancels a cancellable. */
gpointer util_shutdown_thread (gpointer loop);
gpointer util_cancel_thread (gpointer cancellable);

/* For a thread: calls a loop that is stopping, or stops before it gets there, and is told that. */
gpointer util_call_closed_thread (gpointer loop);

/* The answer to an asynchronous call, kept for its _finish(). */
typedef struct
{
  UtilLatch arrived;
  GThread *thread;      /* that the callback was called in */
  GAsyncResult *result; /* (owned) */
} UtilReply;

void util_reply_init (UtilReply *self);
void util_reply_clear (UtilReply *self);
void util_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data);
void util_reply_wait (UtilReply *self); /* in the thread-default context */

/* The answer to an operation. They are counted, so that one that was dropped is seen to go. */
#define UTIL_TYPE_ANSWER (util_answer_get_type ())
G_DECLARE_FINAL_TYPE (UtilAnswer, util_answer, UTIL, ANSWER, GObject)

struct _UtilAnswer
{
  GObject parent_instance;
  int value;
};

GAsyncResult *util_answer_new (int value);
void util_assert_no_answers (void);

/* Until a point in time is past: for what is to be too late. */
gint64 util_msec_from_now (guint msec);
void util_spin_until (gint64 monotonic_time);

/* Lets others run: for a moment mostly, sometimes for longer. A turn may take milliseconds
 * where the machine is busy. */
void util_settle (void);

/* Nothing runs, and it sleeps or is just about to. */
gboolean util_is_asleep (BgLoop *loop);
void util_wait_until_asleep (BgLoop *loop);

/* Waits until so much is queued, or so many hold the loop. */
void util_wait_for_queued (BgLoop *loop, guint n);
void util_wait_for_holds (BgLoop *loop, guint n);

/* From now on criticals are counted, and not fatal; util_take_critical() asserts
 * that there was just one, of this pattern, and forgets it. */
void util_catch_criticals (void);
void util_ignore_leak (gpointer memory);
void util_take_critical (const char *pattern);

/* Whether a program emulates the processor, as qemu-user does. Much of what is asked of the system
 * is then otherwise: limits do not hold, calls are missing, threads stay for a while after they
 * were joined, and each leaves memory behind. */
gboolean util_is_emulated (void);

/* How many bytes the program has allocated, where that is known; otherwise 0. */
gsize util_get_allocated (void);

guint util_count_fds (void);
guint util_count_eventfds (void);

/* Without those that have been joined, which the system lists for a while longer. */
guint util_count_threads (void);

/* Those that run, or would if there were a processor for them; the caller is one. */
guint util_count_threads_awake (void);

/* Waits for threads that nobody can join. */
void util_wait_for_threads (guint n);

/* A child that does not outlive a hang, and the wait for it, which has to exit with 0. */
pid_t util_fork (void);
void util_wait_for_child (pid_t pid);

/* Runs the test @path of this program in a process of its own, which has a
 * watchdog of its own. */
void util_assert_subprocess_passes (const char *path);

/* g_test_add_func(), but the test runs in a process of its own: what hangs
 * fails. @path stays the caller's. */
void util_add_trapped (const char *path, GTestFunc func);

/* The same as util_add(): the test has a loop, and must leave nothing behind in its process. */
void util_add_trapped_with_loop (const char *path, UtilTestFunc func);

/* How a report names @function, in a pattern in which @any stands for anything. */
#if HAVE_DLADDR
#define UTIL_NAME(function, any) #function
#else
#define UTIL_NAME(function, any) "a function at " any
#endif

/* Count in the int that @counter points to, from any thread. */
void util_count_cb (gpointer counter);
gboolean util_count_call_cb (gpointer counter, GError **error);
void util_count_notify_cb (GObject *object, GParamSpec *pspec, gpointer counter);

/* Count a UtilLatch down; that of a reply does not ask for the result. */
void util_count_down_cb (gpointer latch);
gboolean util_count_down_source_cb (gpointer latch);
void util_count_down_reply_cb (GObject *source, GAsyncResult *result, gpointer latch);

/* Waits for a UtilLatch. */
void util_wait_cb (gpointer latch);

void util_cancel_cb (gpointer cancellable);
gboolean util_cancel_call_cb (gpointer cancellable, GError **error);
void util_quit_cb (gpointer loop);        /* in DRAIN mode */
void util_quit_cancel_cb (gpointer loop); /* in CANCEL mode */

/* Ends the thread that it runs in. */
void util_exit_thread_cb (gpointer user_data);

/* Functions that only succeed: an operation answers at once. */
void util_nothing_cb (gpointer user_data);
gboolean util_true_cb (gpointer user_data, GError **error);
gboolean util_remove_cb (gpointer user_data);
gboolean util_continue_cb (gpointer user_data);
void util_return_true_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable);
gboolean util_begin_cb (gpointer user_data,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer callback_data,
                        GError **error);
gboolean util_operation_cb (BgOperation *operation,
                            GCancellable *cancellable,
                            gpointer user_data,
                            GError **error);

/* One that fails, and does not say why, which it must not do. */
gboolean util_false_cb (gpointer user_data, GError **error);

/* Those that are never to be called. */
void util_not_reached_cb (gpointer user_data);
gboolean util_no_call_cb (gpointer user_data, GError **error);
gboolean util_no_source_cb (gpointer user_data);
void util_no_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data);
void util_no_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable);
gboolean util_no_begin_cb (gpointer user_data,
                           GCancellable *cancellable,
                           GAsyncReadyCallback callback,
                           gpointer callback_data,
                           GError **error);
gboolean util_no_operation_cb (BgOperation *operation,
                               GCancellable *cancellable,
                               gpointer user_data,
                               GError **error);

G_END_DECLS
