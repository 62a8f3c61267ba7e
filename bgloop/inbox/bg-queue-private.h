/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgRecord BgRecord;
typedef struct _BgChunk BgChunk;

/* Gives the record its outcome, on the thread that serves the inbox and
 * without the lock. The slot stays where it is until the function returns or
 * runs user code, whichever is first. What runs user code keeps what has to be
 * done even if that ends the thread: see bg_inbox_keep(). */
typedef void (*BgRecordFunc) (BgRecord *slot, gpointer owner);

/* A piece of work. Once it is appended its fields do not change, except that
 * whoever holds the lock may clear @data, which withdraws the record; classes
 * whose records can be withdrawn look at @data under the lock only, with
 * bg_inbox_take(). */
struct _BgRecord
{
  BgRecordFunc outcome;
  gpointer func;
  gpointer data;
  GDestroyNotify destroy;
};

struct _BgChunk
{
  BgChunk *next; /* (owned) */
  guint size;
  guint n;   /* records written */
  guint pos; /* records started */
  BgRecord records[];
};

/* Chunks to be used again. Under lock. */
typedef struct
{
  BgChunk *chunks; /* (owned) */
  guint n;
  gboolean grown; /* the inbox is past its first chunk */
} BgChunkPool;

BgChunk *bg_chunk_pool_take (BgChunkPool *self);
BgChunk *bg_chunk_pool_recycle (BgChunkPool *self, BgChunk **done);
void bg_chunks_free (BgChunk *self);

G_END_DECLS
