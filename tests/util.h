/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bgloop.h>

G_BEGIN_DECLS

/* g_test_init(), and a watchdog that ends the program when it hangs. */
void util_init (int *argc, char ***argv);

/* @n, or less where everything is slow (BGLOOP_TEST_SCALE, percent). */
guint util_scale (guint n);

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

/* A running loop; the program ends if there is none to be had. */
BgLoop *util_loop_new (const char *name);

/* Shuts the loop down, asserts that this went well, and drops it. */
void util_loop_end (BgLoop *loop);

/* Runs the thread-default context until @latch is open. */
void util_iterate_until (UtilLatch *latch);

guint util_count_fds (void);
guint util_count_eventfds (void);
guint util_count_threads (void);

/* Waits for threads that nobody can join. */
void util_wait_for_threads (guint n);

/* Runs the test @path of this program in a process of its own, which has to end
 * well within the limit. */
void util_assert_subprocess_passes (const char *path);

G_END_DECLS
