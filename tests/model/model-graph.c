/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model.h"

/* Who waits for which loop, so that a wait is refused where there is a circle and only
 * there. A wait is noted before the library sees it and until it has returned: what is
 * noted is more than there is, and a refusal for which even that has no circle is wrong.
 * (A circle that is not refused hangs, and is found by that.) */

typedef struct
{
  guint from;  /* a bit for each loop that is held up: by its thread, or by a handler of its
                * cancellable */
  guint to;    /* the loop that is waited for */
  guint64 end; /* 0: it goes on */
} Wait;

static GMutex lock;
static GArray *waits; /* of Wait */

/* Not GPrivate, which is cleared while thread-local destructors still run. */
static __thread guint handlers; /* the bits of those that run in this thread */

void
model_graph_init (void)
{
  g_clear_pointer (&waits, g_array_unref);
  waits = g_array_new (FALSE, FALSE, sizeof (Wait));
}

/* Handlers of a loop's cancellable are waited for by its end. Returns those that ran in the
 * thread before. */
guint
model_enter_handler (guint loop)
{
  guint before = handlers;

  handlers |= 1u << loop;
  return before;
}

void
model_leave_handler (guint before)
{
  handlers = before;
}

static __thread guint own_loop; /* and one more */

void
model_set_own_loop (guint loop)
{
  own_loop = loop + 1;
}

/* The loop whose thread this is, also when the object is gone; MODEL_LOOPS: none of the
 * scenario's. */
guint
model_get_own_loop (void)
{
  return own_loop > 0 ? own_loop - 1 : MODEL_LOOPS;
}

guint
model_wait_begin (guint loop)
{
  guint own = model_get_own_loop ();
  Wait wait = { handlers, loop, 0 };
  guint index;

  if (own < MODEL_LOOPS)
    wait.from |= 1u << own;

  g_mutex_lock (&lock);
  index = waits->len;
  g_array_append_val (waits, wait);
  g_mutex_unlock (&lock);
  return index;
}

/* Whether @from came to wait for one of @to, directly or by others, since the wait @since
 * was noted. */
static gboolean
reaches (guint from, guint to, guint since, guint visited)
{
  if ((to & 1u << from) != 0)
    return TRUE;
  if ((visited & 1u << from) != 0)
    return FALSE;

  for (guint i = 0; i < waits->len; i++)
    {
      Wait *wait = &g_array_index (waits, Wait, i);

      if ((wait->from & 1u << from) != 0 && (wait->end == 0 || wait->end > since)
          && reaches (wait->to, to, since, visited | 1u << from))
        return TRUE;
    }

  return FALSE;
}

void
model_wait_end (guint index, guint loop, const GError *error, const char *what)
{
  gboolean refused = g_error_matches (error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  gboolean may = TRUE;
  Wait *wait;

  g_mutex_lock (&lock);
  wait = &g_array_index (waits, Wait, index);
  /* What ended before this one was noted cannot have closed a circle with it. */
  wait->end = waits->len;
  if (refused)
    may = reaches (loop, wait->from, index, 0);
  g_mutex_unlock (&lock);

  model_check (may, "%s for loop %u was refused, and there is no circle: %s", what, loop,
               error->message);
}
