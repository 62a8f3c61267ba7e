/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"

/* Does one operation: which loop it is about, and who does it. */

static gboolean
needs_no_loop (ModelKind kind)
{
  switch (kind)
    {
    case MODEL_ANSWER:
    case MODEL_WITHDRAW:
    case MODEL_RELEASE:
    case MODEL_REMOVE_TEARDOWN:
    case MODEL_DESTROY_SOURCE:
    case MODEL_RENEW:
    case MODEL_DROP:
    case MODEL_RESET_DEFAULT:
    case MODEL_CANCEL:
    case MODEL_NEST:
    case MODEL_NEST_LOOP:
    case MODEL_ITERATE:
    case MODEL_STALL:
    case MODEL_THREAD_LOCAL:
    case MODEL_EXIT:
      return TRUE;
    default:
      return kind >= MODEL_FIRST_APART;
    }
}

/* In the thread-default context. */
static gboolean
is_replied_to (const ModelOp *op)
{
  return op->kind == MODEL_CALL_ASYNC || op->kind == MODEL_RUN_TASK
         || op->kind == MODEL_SHUTDOWN_ASYNC || op->kind == MODEL_WAIT_ASYNC
         || op->kind == MODEL_PERFORM_ASYNC;
}

static void
dispatch (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_POST:
    case MODEL_INVOKE:
    case MODEL_CALL:
    case MODEL_FLUSH:
      model_do_work (op, life, loop);
      break;
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_SHUTDOWN_ASYNC:
    case MODEL_WAIT_ASYNC:
      model_do_async (op, life, loop);
      break;
    case MODEL_PERFORM:
    case MODEL_PERFORM_ASYNC:
    case MODEL_ANSWER:
      model_do_perform (op, life, loop);
      break;
    case MODEL_POST_AFTER:
    case MODEL_WITHDRAW:
    case MODEL_HOLD:
    case MODEL_RELEASE:
    case MODEL_TEARDOWN:
    case MODEL_REMOVE_TEARDOWN:
    case MODEL_ATTACH:
    case MODEL_DESTROY_SOURCE:
      model_do_living (op, life, loop);
      break;
    case MODEL_QUIT:
    case MODEL_SHUTDOWN:
    case MODEL_WAIT:
    case MODEL_RENEW:
    case MODEL_DROP:
    case MODEL_RESET_DEFAULT:
      model_do_ending (op, life, loop);
      break;
    default:
      if (op->kind >= MODEL_FIRST_APART)
        model_do_apart (op);
      else
        model_do_other (op, life, loop);
    }
}

void
model_op_do (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();
  ModelLife *life = NULL;
  BgLoop *loop;

  if (me != NULL && me->n_pushed > 0 && is_replied_to (op))
    return;
  if (needs_no_loop (op->kind))
    {
      dispatch (op, NULL, NULL);
      return;
    }

  loop = model_slot_take (op->slot, &life);
  if (loop == NULL)
    return;
  for (guint i = 0; i < op->burst && (i == 0 || model_may_burst ()); i++)
    dispatch (op, life, loop);
  model_life_give_back (life);
}
