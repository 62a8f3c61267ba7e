/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* Replies that a loop is owed as it is cancelled, by itself or by another one that has answered:
 * each callback is called, however many there are, how long they take and how urgent others are. */

#define N_OWED        30
#define CALLBACK_USEC 20

typedef struct
{
  const ModelOp *op;
  BgLoop *asker, *asked;

  /* the asker's thread only */
  guint n_replied;
} Owed;

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  Owed *self = data;
  g_autoptr (GError) error = NULL;
  gboolean answered = bg_loop_call_finish (BG_LOOP (source), result, &error);

  if (!answered && !g_error_matches (error, BG_ERROR, BG_ERROR_CLOSED))
    model_fail ("a reply that a cancelled loop is owed: %s", error->message);
  if (!answered && self->asker != self->asked)
    model_fail ("a reply that had arrived says that the loop is closed");
  self->n_replied++;
  util_spin_until (g_get_monotonic_time () + CALLBACK_USEC);
}

/* It asks again, and is refused, for as long as it is told so. */
static void
try_again_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  (void) bg_loop_call_finish (BG_LOOP (source), result, NULL);
  bg_loop_call_async (data, 0, -1, util_true_cb, NULL, NULL, NULL, try_again_cb, data);
}

static void
ask_cb (gpointer data)
{
  Owed *self = data;
  gboolean itself = self->asker == self->asked;

  for (guint i = 0; itself && i < self->op->amount * 20; i++)
    bg_loop_call_async (self->asker, 0, -1, util_true_cb, NULL, NULL, NULL, try_again_cb,
                        self->asker);
  for (guint i = 0; i < N_OWED; i++)
    bg_loop_call_async (self->asked, self->op->priority, -1, util_true_cb, NULL, NULL, NULL,
                        replied_cb, self);
  if (itself)
    bg_loop_quit (self->asker, BG_SHUTDOWN_CANCEL);
}

void
model_apart_owed (const ModelOp *op)
{
  Owed self = { op, util_loop_new ("asker") };
  UtilBlock block;

  self.asked = op->variant % 2 ? self.asker : util_loop_new ("asked");
  g_assert_true (bg_loop_post (self.asker, ask_cb, &self, NULL));
  if (self.asked != self.asker)
    {
      util_block (&block, self.asker);
      g_assert_true (bg_loop_flush (self.asked, -1, NULL, NULL));
      bg_loop_quit (self.asker, op->variant & 2 ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
    }
  util_loop_end (self.asker);
  if (self.n_replied != N_OWED)
    model_fail ("a loop that was owed %u replies has had %u", N_OWED, self.n_replied);
  if (self.asked != self.asker)
    {
      util_block_clear (&block);
      util_loop_end (self.asked);
    }
}
