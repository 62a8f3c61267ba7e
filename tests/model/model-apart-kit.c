/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>

#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* The test kit: a loop that nobody else uses stands still, does one thing at a time and goes on. */

typedef struct
{
  BgLoop *loop;
  gboolean here; /* the function that iterates has the loop resumed itself */
  UtilLatch entered;
  _Atomic int n_sources; /* that have run */
  _Atomic int n_posts;
} Still;

static void
count_post_cb (gpointer data)
{
  model_increment (&((Still *) data)->n_posts);
}

static gboolean
post_source_cb (gpointer data)
{
  Still *self = data;

  model_increment (&self->n_sources);
  g_assert_true (bg_loop_post (self->loop, count_post_cb, self, NULL));
  return G_SOURCE_REMOVE;
}

static void
expect_step (Still *self, int result, int n_sources, int n_posts)
{
  int ran = bg_test_step (self->loop, NULL);

  /* A step that took too long may go on. */
  if (ran == -1)
    return;
  if (ran != result || model_load (&self->n_sources) != n_sources
      || model_load (&self->n_posts) != n_posts)
    model_fail ("a step said %d, not %d; %d sources and %d posts have run, not %d and %d", ran,
                result, model_load (&self->n_sources), model_load (&self->n_posts), n_sources,
                n_posts);
}

/* What a source posts is left for the next step. */
static void
step_source (Still *self)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  if (!bg_test_pause (self->loop, NULL))
    return;
  g_source_set_callback (source, post_source_cb, self, NULL);
  g_assert_true (bg_loop_attach (self->loop, source));
  expect_step (self, 1, 1, 0);
}

static void
post_another_cb (gpointer data)
{
  Still *self = data;

  count_post_cb (self);
  g_assert_true (bg_loop_post (self->loop, count_post_cb, self, NULL));
}

/* And so is what a function posts. */
static void
step_posts (Still *self)
{
  if (!bg_test_pause (self->loop, NULL))
    return;
  g_assert_true (bg_loop_post (self->loop, post_another_cb, self, NULL));
  expect_step (self, 1, 0, 1);
}

static gboolean
no_call_cb (gpointer data, GError **error)
{
  count_post_cb (data);
  return TRUE;
}

/* The thread that has paused a loop must not wait for it. */
static void
wait_for_paused (Still *self, guint how)
{
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;

  if (!bg_test_pause (self->loop, NULL))
    return;
  if (how % 3 == 0)
    g_assert_false (bg_loop_call (self->loop, no_call_cb, self, NULL, &error));
  else if (how % 3 == 1)
    g_assert_false (bg_loop_flush (self->loop, -1, NULL, &error));
  else
    answer = bg_loop_perform (self->loop, 0, -1, util_no_begin_cb, NULL, NULL, &error);
  if (!g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK)
      || model_load (&self->n_posts) != 0)
    model_fail ("the thread that has paused a loop has waited for it");
}

static void
iterate_until_posted_cb (gpointer data)
{
  Still *self = data;

  util_latch_count_down (&self->entered);
  if (self->here)
    bg_test_resume (self->loop);
  while (model_load (&self->n_posts) == 0)
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static gpointer
resume_thread (gpointer data)
{
  Still *self = data;

  util_latch_wait (&self->entered);
  bg_test_resume (self->loop);
  return NULL;
}

/* A step that iterates until something else has run goes on when the loop is resumed. */
static void
free_step (Still *self)
{
  GThread *thread = NULL;

  if (!bg_test_pause (self->loop, NULL))
    return;
  g_assert_true (bg_loop_post (self->loop, iterate_until_posted_cb, self, NULL));
  g_assert_true (bg_loop_post (self->loop, count_post_cb, self, NULL));
  if (!self->here)
    thread = g_thread_new ("resumes", resume_thread, self);
  /* It may take longer than a step may. */
  (void) bg_test_step (self->loop, NULL);
  if (thread != NULL)
    {
      bg_test_resume (self->loop);
      g_thread_join (thread);
    }
}

void
model_apart_stand_still (const ModelOp *op)
{
  Still self = { .loop = util_loop_new ("still"), .here = op->amount % 2 };

  util_latch_init (&self.entered, 1);
  switch (op->variant % 4)
    {
    case 0:
      step_source (&self);
      break;
    case 1:
      step_posts (&self);
      break;
    case 2:
      wait_for_paused (&self, op->variant / 4);
      break;
    default:
      free_step (&self);
    }

  /* What a step waits for is waited for here, before the end frees everything. */
  bg_test_resume (self.loop);
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  util_loop_end (self.loop);
  util_latch_clear (&self.entered);
}
