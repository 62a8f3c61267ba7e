/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>
#include <gtest/gtest.h>

class LoopTest : public ::testing::Test
{
protected:
  BgLoop *loop = nullptr;

  void
  SetUp () override
  {
    const auto *info = ::testing::UnitTest::GetInstance ()->current_test_info ();
    g_autoptr (GError) error = nullptr;

    since = bg_test_mark_loops ();
    loop = bg_loop_new (info->name (), &error);
    ASSERT_NE (loop, nullptr) << error->message;
  }

  void
  TearDown () override
  {
    if (loop != nullptr)
      {
        bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
        g_clear_object (&loop);
      }

    g_autofree char *left = bg_test_describe_loops (since, bg_test_get_timeout ());
    EXPECT_EQ (left, nullptr) << "left behind: " << left;
  }

private:
  guint64 since = 0;
};

static void
add_one (gpointer user_data)
{
  ++*static_cast<int *> (user_data);
}

static gboolean
add_two (gpointer user_data, GError **)
{
  *static_cast<int *> (user_data) += 2;
  return TRUE;
}

TEST_F (LoopTest, WorkIsDone)
{
  int sum = 0;

  EXPECT_TRUE (bg_loop_post (loop, add_one, &sum, nullptr));
  EXPECT_TRUE (bg_loop_flush (loop, -1, nullptr, nullptr));
  EXPECT_EQ (sum, 1);
}

TEST_F (LoopTest, StepByStep)
{
  int sum = 0;

  ASSERT_TRUE (bg_test_pause (loop, nullptr));
  EXPECT_TRUE (bg_loop_post (loop, add_one, &sum, nullptr));
  EXPECT_TRUE (bg_loop_post (loop, add_one, &sum, nullptr));
  EXPECT_EQ (sum, 0);

  EXPECT_EQ (bg_test_step (loop, nullptr), 1);
  EXPECT_EQ (sum, 1);
  EXPECT_EQ (bg_test_run_until_idle (loop, nullptr), 1);
  EXPECT_EQ (sum, 2);
}

TEST_F (LoopTest, DefaultLoop)
{
  g_autoptr (BgLoop) shared = bg_loop_dup_default (nullptr);
  int sum = 0;

  EXPECT_TRUE (bg_loop_call (shared, add_two, &sum, nullptr, nullptr));
  EXPECT_EQ (sum, 2);
  EXPECT_TRUE (bg_loop_reset_default (bg_test_get_timeout (), nullptr));
}
