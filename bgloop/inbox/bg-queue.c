/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/inbox/bg-queue-private.h>

/* The chunks that records wait in. Under the inbox's lock any thread that appends takes one, and
 * the serving thread puts back those that are done. Those of a batch are that thread's own, and
 * those that are too many, and need no lock. */

#define CHUNK_RECORDS 127 /* with the header, a chunk fills 4 KiB */
#define FIRST_RECORDS 7   /* most loops never have more at once */
#define SPARE_CHUNKS  16

static BgChunk *
make_chunk (guint size)
{
  BgChunk *self = g_malloc (sizeof *self + size * sizeof *self->records);

  self->size = size;
  return self;
}

BgChunk *
bg_chunk_pool_take (BgChunkPool *self)
{
  BgChunk *chunk = self->chunks;

  if (chunk != NULL)
    {
      self->chunks = chunk->next;
      self->n--;
    }
  else
    {
      chunk = make_chunk (self->grown ? CHUNK_RECORDS : FIRST_RECORDS);
      self->grown = TRUE;
    }

  chunk->next = NULL;
  chunk->n = 0;
  chunk->pos = 0;
  return chunk;
}

void
bg_chunks_free (BgChunk *self)
{
  while (self != NULL)
    {
      BgChunk *next = self->next;

      g_free (self);
      self = next;
    }
}

/* Keeps chunks that are done for later. Returns those that are too many, to be
 * freed without the lock. */
BgChunk *
bg_chunk_pool_recycle (BgChunkPool *self, BgChunk **done)
{
  BgChunk *surplus;

  while (*done != NULL && self->n < SPARE_CHUNKS)
    {
      BgChunk *chunk = *done;

      *done = chunk->next;
      chunk->next = self->chunks;
      self->chunks = chunk;
      self->n++;
    }

  surplus = *done;
  *done = NULL;
  return surplus;
}
