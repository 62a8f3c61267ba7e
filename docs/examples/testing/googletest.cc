/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>
#include <bgloop/bgloop.hpp>
#include <gtest/gtest.h>
#include <optional>

class LoopTest : public ::testing::Test
{
protected:
  std::optional<bgloop::Loop> loop; /* a reference: dropping it does not wait */

  void
  SetUp () override
  {
    const auto *info = ::testing::UnitTest::GetInstance ()->current_test_info ();
    g_autoptr (GError) error = nullptr;

    since = bg_test_mark_loops ();
    g_autoptr (BgLoop) made = bg_loop_new (info->name (), &error);
    ASSERT_NE (made, nullptr) << error->message;
    loop.emplace (made);
  }

  void
  TearDown () override
  {
    if (loop)
      bg_loop_quit (*loop, BG_SHUTDOWN_DRAIN);
    loop.reset ();

    g_autofree char *left = bg_test_describe_loops (since, bg_test_get_timeout ());
    EXPECT_EQ (left, nullptr) << "left behind: " << left;
  }

private:
  guint64 since = 0;
};

TEST_F (LoopTest, WorkIsDone)
{
  int sum = 0;

  EXPECT_TRUE (loop->post ([&] { sum++; }));
  loop->call ([&] { EXPECT_EQ (sum, 1); });
  EXPECT_EQ (loop->submit ([&] { return sum; }).get (), 1);
}

TEST_F (LoopTest, StepByStep)
{
  int sum = 0;

  ASSERT_TRUE (bg_test_pause (*loop, nullptr));
  EXPECT_TRUE (loop->post ([&] { sum++; }));
  EXPECT_TRUE (loop->post ([&] { sum++; }));
  EXPECT_EQ (sum, 0);

  EXPECT_EQ (bg_test_step (*loop, nullptr), 1);
  EXPECT_EQ (sum, 1);
  EXPECT_EQ (bg_test_run_until_idle (*loop, nullptr), 1);
  EXPECT_EQ (sum, 2);
}

TEST_F (LoopTest, DefaultLoop)
{
  g_autoptr (BgLoop) shared = bg_loop_dup_default (nullptr);
  int sum = 0;

  bgloop::Loop (shared).call ([&] { sum += 2; });
  EXPECT_EQ (sum, 2);
  EXPECT_TRUE (bg_loop_reset_default (bg_test_get_timeout (), nullptr));
}
