/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bgloop.hpp>

#include <string>

#include "util.h"

using namespace std::chrono_literals;

/* What runs before what: each function adds a letter, on the loop's thread. */

/* What comes in an hour has not come when all that was queued has run. */
static void
test_delayed ()
{
  bgloop::Loop loop ("delayed");
  std::string order;
  const guint64 id = loop.post_after (1h, [&] { order += 'd'; });

  g_assert_true (loop.post ([&] { order += 'p'; }));
  g_assert_true (bg_loop_flush (loop, -1, nullptr, nullptr));
  g_assert_true (bg_loop_withdraw (loop, id));
  g_assert_cmpstr (order.c_str (), ==, "p");
}

/* More urgent work that was handed over later runs first. */
static void
test_priority ()
{
  bgloop::Loop loop ("priority");
  std::string order;
  UtilBlock block;

  util_block (&block, loop);
  auto low = loop.submit ([&] { order += 'l'; }, G_PRIORITY_LOW);
  auto normal = loop.submit ([&] { order += 'n'; });
  auto high = loop.submit ([&] { order += 'h'; }, G_PRIORITY_HIGH);
  util_unblock (&block);
  low.get ();
  g_assert_cmpstr (order.c_str (), ==, "hnl");
  normal.get ();
  high.get ();
  util_block_clear (&block);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/cpp/order/delayed", test_delayed);
  g_test_add_func ("/cpp/order/priority", test_priority);

  return g_test_run ();
}
