/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"

#include <sys/resource.h>
#include <unistd.h>

#include "model-world.h"

void
model_do_apart (const ModelOp *op)
{
  switch (op->kind)
    {
    case MODEL_FLOOD:
      model_apart_flood (op);
      break;
    case MODEL_BATCH:
      model_apart_batch (op);
      break;
    case MODEL_URGENT:
      model_apart_urgent (op);
      break;
    case MODEL_EARLIER:
      model_apart_earlier (op);
      break;
    case MODEL_ENDLESS:
      model_apart_endless (op);
      break;
    case MODEL_LET_GO:
      model_apart_let_go (op);
      break;
    case MODEL_MEDDLE:
      model_apart_meddle (op);
      break;
    case MODEL_KNOT:
      model_apart_knot (op);
      break;
    case MODEL_STAND_STILL:
      model_apart_stand_still (op);
      break;
    case MODEL_LATE_CANCEL:
      model_apart_late_cancel (op);
      break;
    case MODEL_PRIORITIES:
      model_apart_priorities (op);
      break;
    case MODEL_CHILD_STAYS:
      model_apart_child_stays (op);
      break;
    case MODEL_OWED:
      model_apart_owed (op);
      break;
    case MODEL_CLOSING:
      model_apart_closing (op);
      break;
    case MODEL_IN_HANDLER:
      model_apart_in_handler (op);
      break;
    case MODEL_HANDED_OVER:
      model_apart_handed_over (op);
      break;
    default:
      model_apart_toggle (op);
    }
}

/* Where no descriptor can be had there is no loop. No other thread may want one meanwhile; but GLib's
 * own may poll, which it must not do with more descriptors than the limit says. */
void
model_try_without_descriptor (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = NULL;
  struct rlimit limit, none;

  /* GLib itself ends the process where a context needs a pipe. */
  if (!HAVE_EVENTFD || getrlimit (RLIMIT_NOFILE, &limit) != 0)
    return;

  none = limit;
  none.rlim_cur = STDERR_FILENO + 1;
  if (setrlimit (RLIMIT_NOFILE, &none) != 0)
    return;
  loop = bg_loop_new ("without a descriptor", &error);
  setrlimit (RLIMIT_NOFILE, &limit);
  if (loop != NULL)
    model_fail ("there is a loop where no descriptor is to be had");
  else if (error == NULL)
    model_fail ("there is no loop where no descriptor is to be had, and no error");
}
