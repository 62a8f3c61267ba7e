/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bgloop.h>

G_BEGIN_DECLS

typedef struct _BgTestFixture BgTestFixture;

/**
 * BgTestFixture: (skip)
 * @loop: (nullable): a loop for the test, running; the test may shut it down, and
 *   if it drops it must set this to %NULL
 *
 * What a test has that was added with bg_test_add(), or the first member of a
 * suite's own fixture.
 *
 * Since: 1.0
 */
struct _BgTestFixture
{
  BgLoop *loop;

  /*< private >*/
  guint64 since;
  gpointer eventfds; /* (owned) what is no leak */
  gpointer padding[4];
};

/**
 * bg_test_add: (skip)
 * @testpath: the test's path
 * @ftest: the test, `void ftest (BgTestFixture *fixture, gconstpointer test_data)`
 *
 * Adds a test that gets a loop and must leave nothing behind: g_test_add() with
 * bg_test_fixture_set_up() and bg_test_fixture_tear_down().
 *
 * Since: 1.0
 */
#define bg_test_add(testpath, ftest)                                                               \
  g_test_add (testpath, BgTestFixture, NULL, bg_test_fixture_set_up, ftest,                        \
              bg_test_fixture_tear_down)

/**
 * bg_test_add_data: (skip)
 * @testpath: the test's path
 * @ftest: the test, `void ftest (BgTestFixture *fixture, gconstpointer test_data)`
 * @test_data: what to give it, and the two functions around it; stays the caller's
 *
 * Like bg_test_add(), for a test that is run with different data.
 *
 * Since: 1.0
 */
#define bg_test_add_data(testpath, ftest, test_data)                                               \
  g_test_add (testpath, BgTestFixture, test_data, bg_test_fixture_set_up, ftest,                   \
              bg_test_fixture_tear_down)

BG_AVAILABLE_IN_1_0
void bg_test_fixture_set_up (BgTestFixture *fixture, gconstpointer test_data);
BG_AVAILABLE_IN_1_0
void bg_test_fixture_tear_down (BgTestFixture *fixture, gconstpointer test_data);
BG_AVAILABLE_IN_1_0
void bg_test_fixture_ignore_eventfd (BgTestFixture *fixture, int fd);
BG_AVAILABLE_IN_1_0
void bg_test_assert_no_loops (void);

/* what the fixture is made of, for other frameworks and languages */
BG_AVAILABLE_IN_1_0
int bg_test_get_timeout (void);
BG_AVAILABLE_IN_1_0
guint64 bg_test_mark_loops (void);
BG_AVAILABLE_IN_1_0
char *bg_test_describe_loops (guint64 since, int timeout_msec);

/* one step at a time */
BG_AVAILABLE_IN_1_0
gboolean bg_test_pause (BgLoop *loop, GError **error);
BG_AVAILABLE_IN_1_0
int bg_test_step (BgLoop *loop, GError **error);
BG_AVAILABLE_IN_1_0
int bg_test_run_until_idle (BgLoop *loop, GError **error);
BG_AVAILABLE_IN_1_0
void bg_test_resume (BgLoop *loop);

G_END_DECLS
