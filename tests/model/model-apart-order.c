/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* Order and fairness on a loop that nobody else uses. */

#define MAX_SLOW_AT_ONCE 20
#define N_SLOW           60
#define SLOW_USEC        150
#define AN_HOUR_MSEC     (60 * 60 * 1000)
#define LOW              7 /* so much less urgent */

/* A flood: a function that gives itself to the loop again until something has run that is less
 * urgent, or as urgent. */

typedef struct
{
  const ModelOp *op;
  BgLoop *loop;
  gboolean ran; /* the loop's thread only */
  UtilLatch done;
} Flood;

static void
flood_cb (gpointer data)
{
  Flood *self = data;

  if (self->ran)
    util_latch_count_down (&self->done);
  else if (!bg_loop_post_full (self->loop, self->op->priority, flood_cb, self, NULL))
    model_fail ("a loop that runs refuses what its own thread posts");
}

static void
note_ran_cb (gpointer data)
{
  ((Flood *) data)->ran = TRUE;
}

static gboolean
note_ran_source_cb (gpointer data)
{
  note_ran_cb (data);
  return G_SOURCE_REMOVE;
}

static gboolean
note_ran_call_cb (gpointer data, GError **error)
{
  note_ran_cb (data);
  return TRUE;
}

static void
attach_ran (Flood *self, GSource *source, int priority)
{
  g_source_set_priority (source, priority);
  g_source_set_callback (source, note_ran_source_cb, self, NULL);
  g_assert_true (bg_loop_attach (self->loop, source));
  g_source_unref (source);
}

/* What has to get its turn. */
static void
give_patient (Flood *self)
{
  int as_urgent = self->op->priority, less_urgent = self->op->priority + LOW;

  switch (self->op->variant % 6)
    {
    case 0:
      g_assert_true (bg_loop_post_full (self->loop, less_urgent, note_ran_cb, self, NULL));
      break;
    case 1:
      bg_loop_call_async (self->loop, less_urgent, -1, note_ran_call_cb, self, NULL, NULL, NULL,
                          NULL);
      break;
    case 2:
      attach_ran (self, g_idle_source_new (), less_urgent);
      break;
    case 3:
      attach_ran (self, g_timeout_source_new (self->op->amount), less_urgent);
      break;
    case 4:
      attach_ran (self, g_idle_source_new (), as_urgent);
      break;
    default:
      g_assert_true (bg_loop_invoke_full (self->loop, less_urgent, note_ran_source_cb, self, NULL));
    }
}

/* Several floods at a time are as many posts in each batch. */
void
model_apart_flood (const ModelOp *op)
{
  Flood self = { .op = op, .loop = util_loop_new ("flood") };
  guint n = 1 + op->amount;

  util_latch_init (&self.done, n);
  for (guint i = 0; i < n; i++)
    g_assert_true (bg_loop_post_full (self.loop, op->priority, flood_cb, &self, NULL));
  give_patient (&self);
  util_latch_wait (&self.done);
  util_loop_end (self.loop);
  util_latch_clear (&self.done);
}

/* A batch of what takes its time ends, so that a source of the same priority has its turn. */

typedef struct
{
  BgLoop *loop;
  int priority;

  /* the loop's thread only */
  guint n_slow; /* that have run since the source was attached */
  gboolean ran;
} Batch;

static gboolean
turn_cb (gpointer data)
{
  ((Batch *) data)->ran = TRUE;
  return G_SOURCE_REMOVE;
}

static void
slow_cb (gpointer data)
{
  Batch *self = data;
  gint64 end = g_get_monotonic_time () + SLOW_USEC;

  if (self->ran)
    return;
  if (++self->n_slow == MAX_SLOW_AT_ONCE)
    model_fail ("%u functions that took their time have run before a source that was ready",
                self->n_slow);
  while (g_get_monotonic_time () < end)
    g_thread_yield ();
}

static void
attach_turn_cb (gpointer data)
{
  Batch *self = data;
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, self->priority);
  g_source_set_callback (source, turn_cb, self, NULL);
  g_source_attach (source, bg_loop_get_context (self->loop));
}

void
model_apart_batch (const ModelOp *op)
{
  Batch self = { .loop = util_loop_new ("batch"), .priority = op->priority };
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post_full (self.loop, op->priority, attach_turn_cb, &self, NULL));
  for (guint i = 0; i < N_SLOW; i++)
    g_assert_true (bg_loop_post_full (self.loop, op->priority, slow_cb, &self, NULL));
  util_unblock (&block);
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  util_loop_end (self.loop);
  util_block_clear (&block);
}

/* A source that work attaches, more urgent than what the same work posts next, runs before that. */

typedef struct
{
  const ModelOp *op;
  BgLoop *loop;
  guint left;
  UtilLatch done;

  /* the loop's thread only */
  gboolean ran;
} Urgent;

static void attach_and_post_cb (gpointer data);

static gboolean
attach_and_post_source_cb (gpointer data)
{
  attach_and_post_cb (data);
  return G_SOURCE_REMOVE;
}

static gboolean
urgent_source_cb (gpointer data)
{
  ((Urgent *) data)->ran = TRUE;
  return G_SOURCE_REMOVE;
}

static void
posted_next_cb (gpointer data)
{
  Urgent *self = data;

  if (!self->ran)
    model_fail ("what was posted after a more urgent source was attached has run before it");
  if (--self->left > 0)
    attach_and_post_cb (self);
  else
    util_latch_count_down (&self->done);
}

static void
attach_and_post_cb (gpointer data)
{
  Urgent *self = data;
  g_autoptr (GSource) source = g_idle_source_new ();

  self->ran = FALSE;
  g_source_set_priority (source, self->op->priority - 1);
  g_source_set_callback (source, urgent_source_cb, self, NULL);
  if (self->op->variant & 1)
    g_source_attach (source, bg_loop_get_context (self->loop));
  else
    g_assert_true (bg_loop_attach (self->loop, source));
  g_assert_true (bg_loop_post_full (self->loop, self->op->priority, posted_next_cb, self, NULL));
}

void
model_apart_urgent (const ModelOp *op)
{
  Urgent self = { .op = op, .loop = util_loop_new ("urgent"), .left = 1 + op->amount };

  util_latch_init (&self.done, 1);
  if (op->variant & 2)
    g_assert_true (bg_loop_post_full (self.loop, op->priority, attach_and_post_cb, &self, NULL));
  else
    g_assert_true (bg_loop_invoke (self.loop, attach_and_post_source_cb, &self));
  util_latch_wait (&self.done);
  util_loop_end (self.loop);
  util_latch_clear (&self.done);
}

/* Delayed work that is due before what was given earlier does not wait for that. */

typedef struct
{
  const ModelOp *op;
  BgLoop *loop;
  UtilLatch done;
} Earlier;

static void
post_earlier_cb (gpointer data)
{
  Earlier *self = data;

  g_assert_cmpuint (bg_loop_post_after (self->loop, AN_HOUR_MSEC, util_not_reached_cb, NULL,
                                        util_nothing_cb),
                    !=, 0);
  for (guint i = self->op->amount; i > 0; i--)
    g_assert_cmpuint (bg_loop_post_after (self->loop, i - 1, util_count_down_cb, &self->done, NULL),
                      !=, 0);
}

void
model_apart_earlier (const ModelOp *op)
{
  Earlier self = { op, util_loop_new ("earlier") };

  util_latch_init (&self.done, op->amount);
  if (op->variant & 1)
    g_assert_true (bg_loop_post (self.loop, post_earlier_cb, &self, NULL));
  else
    post_earlier_cb (&self);
  util_latch_wait (&self.done);
  util_loop_end (self.loop);
  util_latch_clear (&self.done);
}
