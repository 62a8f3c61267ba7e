/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* Whoever has a toggle reference to the default loop is called as another one asks for that, and
 * may ask for it then. */

#define N_TAKEN 4

static BgLoop *
take_default (void)
{
  g_autoptr (GError) error = NULL;
  BgLoop *loop = bg_loop_dup_default (&error);

  if (loop == NULL)
    model_fail ("there is no default loop: %s", error->message);
  return loop;
}

static void
toggle_cb (gpointer data, GObject *object, gboolean is_last)
{
  static __thread gboolean within;
  BgLoop *loop;

  if (within || !model_load ((_Atomic int *) data))
    return;

  within = TRUE;
  loop = take_default ();
  if (G_OBJECT (loop) != object)
    model_fail ("there is another default loop while one runs");
  g_clear_object (&loop);
  within = FALSE;
}

static gboolean
take_there_cb (gpointer data, GError **error)
{
  g_autoptr (BgLoop) loop = take_default ();

  if (loop != data)
    model_fail ("there is another default loop on the thread of one");
  return TRUE;
}

void
model_apart_toggle (const ModelOp *op)
{
  BgLoop *loop = take_default ();
  _Atomic int takes = TRUE;

  if (loop == NULL)
    return;
  g_object_add_toggle_ref (G_OBJECT (loop), toggle_cb, (gpointer) &takes);
  g_object_unref (loop);
  for (guint i = 0; i < N_TAKEN; i++)
    {
      g_autoptr (BgLoop) same = take_default ();

      if (same != loop)
        model_fail ("there is another default loop while one is referred to");
      if (op->variant & 1)
        g_assert_true (bg_loop_call (loop, take_there_cb, loop, NULL, NULL));
    }

  model_store (&takes, FALSE);
  util_loop_shut_down (loop);
  g_object_remove_toggle_ref (G_OBJECT (loop), toggle_cb, (gpointer) &takes);
}
