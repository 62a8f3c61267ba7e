/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <optional>

#include <bgloop/bg-test.h>
#include <bgloop/bgloop.hpp>
#include <gtest/gtest.h>

class LoopTest : public ::testing::Test
{
protected:
  std::optional<bgloop::Loop> loop;

  void
  SetUp () override
  {
    since = bg_test_mark_loops ();
    loop.emplace (::testing::UnitTest::GetInstance ()->current_test_info ()->name ());
  }

  void
  TearDown () override
  {
    /* Not by its destructor, which would wait for ever for a loop that hangs. */
    if (loop)
      {
        g_autoptr (BgLoop) ends = loop->release ();

        bg_loop_quit (ends, BG_SHUTDOWN_DRAIN);
      }

    g_autofree char *left = bg_test_describe_loops (since, bg_test_get_timeout ());
    EXPECT_EQ (left, nullptr) << "left behind: " << left;
  }

private:
  guint64 since = 0;
};

TEST_F (LoopTest, WorkIsDone)
{
  int sum = 0;

  EXPECT_TRUE (loop->post ([&] { ++sum; }));
  EXPECT_EQ (loop->call ([&] { return sum; }), 1);
}

TEST_F (LoopTest, StepByStep)
{
  int sum = 0;

  ASSERT_TRUE (bg_test_pause (loop->get (), nullptr));
  EXPECT_TRUE (loop->post ([&] { ++sum; }));
  EXPECT_TRUE (loop->post ([&] { ++sum; }));
  EXPECT_EQ (sum, 0);

  EXPECT_EQ (bg_test_step (loop->get (), nullptr), 1);
  EXPECT_EQ (sum, 1);
  EXPECT_EQ (bg_test_run_until_idle (loop->get (), nullptr), 1);
  EXPECT_EQ (sum, 2);
}

static gboolean
add_two (gpointer user_data, GError **)
{
  *static_cast<int *> (user_data) += 2;
  return TRUE;
}

TEST_F (LoopTest, DefaultLoop)
{
  g_autoptr (BgLoop) shared = bg_loop_dup_default (nullptr);
  int sum = 0;

  EXPECT_TRUE (bg_loop_call (shared, add_two, &sum, nullptr, nullptr));
  EXPECT_EQ (sum, 2);
  EXPECT_TRUE (bg_loop_reset_default (bg_test_get_timeout (), nullptr));
}
