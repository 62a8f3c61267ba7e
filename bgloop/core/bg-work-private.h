/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-reply-private.h>

G_BEGIN_DECLS

/* What verbs need of a core for a piece of work: how it is handed over, and what its
 * outcome tells and leaves. */

/* A piece of work, and who waits for it. */
typedef struct
{
  BgRecord record;
  int priority;
  gboolean awaited;   /* somebody waits for it */
  BgBlocked *blocked; /* (nullable) who does, to be told when it will not start any more */
  BgReply *reply;     /* (nullable) that is due for it */
  gboolean soon;      /* and likely to come at once */

  gboolean was_awake; /* set by bg_core_submit(): the loop was */
} BgWork;

gboolean bg_core_submit (BgCore *self, BgWork *work);
gboolean bg_work_check_answer (gpointer func,
                               gboolean ok,
                               GError *given,
                               gboolean says_why,
                               GError **error);

/* with the core's lock: nobody has to wake the loop */
static inline gboolean
bg_core_is_awake (BgCore *self)
{
  return !bg_inbox_is_asleep (&self->inbox);
}

/* with the core's lock: the work whose turn it is; NULL if it was taken back */
static inline gpointer
bg_core_take (BgCore *self, BgRecord *slot)
{
  return bg_inbox_take (&self->inbox, slot);
}

/* on the loop's thread, without */

static inline void
bg_core_count_run (BgCore *self)
{
  bg_inbox_count_run (&self->inbox);
}

static inline void
bg_core_count_cancelled (BgCore *self)
{
  bg_inbox_count_cancelled (&self->inbox);
}

/* Whether accepted work is to run: if not, it counts as cancelled. */
static inline gboolean
bg_core_may_run (BgCore *self)
{
  if (G_LIKELY (!atomic_load_explicit (&self->stopping.cancelling, memory_order_acquire)))
    {
      bg_schedule_point (BG_POINT_CORE_SEEN);
      return TRUE;
    }

  bg_core_count_cancelled (self);
  return FALSE;
}

/* What is half done from now on, if something ends the thread. */
static inline BgRecord *
bg_core_keep (BgCore *self, const BgRecord *record)
{
  return bg_inbox_keep (&self->inbox, record);
}

static inline void
bg_core_drop_kept (BgCore *self)
{
  bg_inbox_drop_kept (&self->inbox);
}

/* Whoever waited for the outcome had to be woken. */
static inline void
bg_core_note_wakeup (BgCore *self)
{
  bg_linger_note_wakeup (&self->inbox);
}

/* The work may have begun something that completes in the context later. */
static inline void
bg_core_note_begun (BgCore *self)
{
  self->operations.began = TRUE;
}

G_END_DECLS
