/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

#include <bgloop/base/bg-spin-private.h>

G_BEGIN_DECLS

typedef struct _BgInbox BgInbox;
typedef struct _BgLane BgLane;

/* What the server goes by when it stays awake for more work. Atomic, rarely written. */
typedef struct
{
  _Atomic guint usec;            /* how long at most */
  _Atomic gboolean awaited;      /* somebody waits for what was appended; written under lock */
  _Atomic gboolean interrupted;  /* something other than a record is to be done */
  _Atomic int n_expected;        /* whether records can be expected at all */
  _Atomic int n_pending;         /* what is to come from other sources first */
  _Atomic int server_processor;  /* where the server was when it last looked; -1: unknown */
  _Atomic int poster_processor;  /* and whoever last found the inbox empty */
  _Atomic gboolean poster_slept; /* who sends the next record was asleep just now */
  _Atomic gint64 due_at;         /* when delayed work is due, monotonic microseconds; or -1 */
} BgLinger;

/* And what it has found out by that. The serving thread only. */
typedef struct
{
  BgSpin spin;
  BgLane *next_iteration; /* (unowned) (nullable) stays awake until then, though it has no work */
  guint batch_size;       /* of the last one taken */
  gboolean was_awaited;   /* somebody waited for some of it */
} BgLingerHistory;

/* A server that is faster than the posters would take a record at a time, and
 * fight with them for the lock each time. So after a batch of fewer than
 * BG_LINGER_SMALL_BATCH records it leaves them alone for some microseconds,
 * unless somebody waits. Posts cost a fourth then. */
#define BG_LINGER_SMALL_BATCH 200

/* any thread */
guint bg_linger_set_usec (BgInbox *inbox, guint usec);
int bg_linger_get_poster (BgInbox *inbox);
void bg_linger_set_poster (BgInbox *inbox, int processor);
void bg_linger_set_awaited (BgInbox *inbox);
void bg_linger_interrupt (BgInbox *inbox);
void bg_linger_note_wakeup (BgInbox *inbox);
void bg_linger_note_poster (BgInbox *inbox);
gboolean bg_linger_is_served_elsewhere (BgInbox *inbox);

/* the serving thread */
gboolean bg_linger_for_more (BgInbox *inbox);
void bg_linger_coalesce (BgInbox *inbox);
void bg_linger_learn (BgInbox *inbox);

G_END_DECLS
