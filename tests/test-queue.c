/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <unistd.h>

#include <glib.h>

/* The promises here are of the insides: which chunks there are, and what is in a lane. So the
 * insides are part of this program. Their clock stands still unless a record moves it, so that
 * no batch ends early, and the test is told when they take a lock and when they wake a context. */

static gint64 look_at_clock_of_test (void);
static gboolean try_lock_of_test (GMutex *mutex);
static void wake_up_of_test (GMainContext *context);

#define g_get_monotonic_time  look_at_clock_of_test
#define g_mutex_trylock       try_lock_of_test
#define g_main_context_wakeup wake_up_of_test
#include "inbox/bg-activity.c"
#include "inbox/bg-counts.c"
#include "inbox/bg-inbox-serve.c"
#include "inbox/bg-inbox.c"
#include "inbox/bg-linger.c"

/* What they free is counted: here lanes, */
static guint n_freed_lanes;

#undef g_free
#define g_free(memory) (n_freed_lanes++, (g_free) (memory))
#include "inbox/bg-lane.c"
#undef g_free

/* and here chunks. */
static guint n_made_chunks, n_freed_chunks;

#undef g_malloc
#define g_malloc(size) (n_made_chunks++, (g_malloc) (size))
#define g_free(memory) (n_freed_chunks++, (g_free) (memory))
#include "inbox/bg-queue.c"
#undef g_malloc
#undef g_free

#undef g_get_monotonic_time
#undef g_mutex_trylock
#undef g_main_context_wakeup

#include "util.h"

#define MANY_CHUNKS (3 * SPARE_CHUNKS)
#define MANY        (FIRST_RECORDS + MANY_CHUNKS * CHUNK_RECORDS)

static gint64 now = 1000000;

static gint64
look_at_clock_of_test (void)
{
  return now;
}

/* The chunks */

static guint
count_chunks (BgChunk *chunk)
{
  guint n = 0;

  for (; chunk != NULL; chunk = chunk->next)
    n++;
  return n;
}

static void
assert_empty (BgChunk *chunk, guint size)
{
  g_assert_null (chunk->next);
  g_assert_cmpuint (chunk->size, ==, size);
  g_assert_cmpuint (chunk->n, ==, 0);
  g_assert_cmpuint (chunk->pos, ==, 0);
}

/* The first is small, and each fresh one after it fills a page. */
static void
test_sizes (void)
{
  BgChunkPool pool = { NULL };

  for (guint i = 0; i < 3; i++)
    {
      BgChunk *chunk = bg_chunk_pool_take (&pool);

      assert_empty (chunk, i == 0 ? FIRST_RECORDS : CHUNK_RECORDS);
      g_assert_cmpuint (sizeof *chunk + chunk->size * sizeof *chunk->records, <=, 4096);
      bg_chunks_free (chunk);
    }
}

/* What is used again is as good as fresh, and is not made again. */
static void
test_used_again (void)
{
  BgChunkPool pool = { NULL };
  BgChunk *chunk = bg_chunk_pool_take (&pool);
  BgChunk *done = chunk;

  chunk->n = chunk->pos = chunk->size;
  g_assert_null (bg_chunk_pool_recycle (&pool, &done));
  g_assert_null (done);
  g_assert_cmpuint (pool.n, ==, 1);
  g_assert_true (bg_chunk_pool_take (&pool) == chunk);
  g_assert_cmpuint (pool.n, ==, 0);
  g_assert_null (pool.chunks);
  assert_empty (chunk, FIRST_RECORDS);
  bg_chunks_free (chunk);
}

/* Only so many are kept, and the others are given back for the caller to free. */
static void
test_spare_bounded (void)
{
  BgChunkPool pool = { NULL };
  BgChunk *done = NULL, *surplus;

  for (guint i = 0; i < MANY_CHUNKS; i++)
    {
      BgChunk *chunk = bg_chunk_pool_take (&pool);

      chunk->next = done;
      done = chunk;
    }

  surplus = bg_chunk_pool_recycle (&pool, &done);
  g_assert_null (done);
  g_assert_cmpuint (pool.n, ==, SPARE_CHUNKS);
  g_assert_cmpuint (count_chunks (pool.chunks), ==, SPARE_CHUNKS);
  g_assert_cmpuint (count_chunks (surplus), ==, MANY_CHUNKS - SPARE_CHUNKS);

  /* The pool is full: whatever comes now is too much. */
  done = g_steal_pointer (&surplus);
  surplus = bg_chunk_pool_recycle (&pool, &done);
  g_assert_cmpuint (count_chunks (surplus), ==, MANY_CHUNKS - SPARE_CHUNKS);
  g_assert_cmpuint (pool.n, ==, SPARE_CHUNKS);
  bg_chunks_free (surplus);
  bg_chunks_free (pool.chunks);
}

/* The lanes: an inbox of the test's own, which notes what ran */

typedef struct _Box Box;

struct _Box
{
  BgInbox inbox;
  GMainContext *context;
  GArray *ran;       /* of guint: the numbers of the records, in the order in which they ran */
  guint n_appended;  /* and so the number of the next one */
  guint n_withdrawn; /* records whose turn came, and that did nothing */
  void (*func) (Box *self, guint number); /* (nullable): what else a record does */
};

static Box *
box_new_with_funcs (GSourceCallbackFuncs *owner_funcs)
{
  Box *self = g_aligned_alloc0 (1, sizeof *self, BG_CACHE_LINE_BYTES);

  self->context = bg_glib_context_new (NULL);
  self->ran = g_array_new (FALSE, FALSE, sizeof (guint));
  bg_inbox_init (&self->inbox, self->context, self, owner_funcs, BG_LOCK_CORE);
  atomic_store (&self->inbox.linger.usec, 0);
  return self;
}

static Box *
box_new (void)
{
  return box_new_with_funcs (NULL);
}

static void
box_free (Box *self)
{
  bg_inbox_stop (&self->inbox);
  bg_inbox_clear (&self->inbox);
  g_main_context_unref (self->context);
  g_array_unref (self->ran);
  g_aligned_free (self);
}

static void
run_record (BgRecord *slot, gpointer owner)
{
  Box *self = owner;
  gpointer data;
  guint number;

  bg_inbox_lock (&self->inbox);
  data = bg_inbox_take (&self->inbox, slot);
  bg_inbox_unlock (&self->inbox);
  if (data == NULL)
    {
      self->n_withdrawn++;
      return;
    }

  number = GPOINTER_TO_UINT (data) - 1;
  g_array_append_val (self->ran, number);
  if (self->func != NULL)
    self->func (self, number);
}

static BgRecord *
append (Box *self, int priority)
{
  BgRecord *slot;

  bg_inbox_lock (&self->inbox);
  slot = bg_inbox_append (&self->inbox, priority, run_record, NULL,
                          GUINT_TO_POINTER (++self->n_appended), NULL);
  bg_inbox_unlock (&self->inbox);
  return slot;
}

static void
append_many (Box *self, guint n)
{
  for (guint i = 0; i < n; i++)
    append (self, G_PRIORITY_DEFAULT);
}

static guint
count_queued (Box *self)
{
  guint n;

  bg_inbox_lock (&self->inbox);
  n = bg_inbox_count_queued (&self->inbox);
  bg_inbox_unlock (&self->inbox);
  return n;
}

static void
run_all (Box *self)
{
  while (bg_inbox_has_work (&self->inbox))
    bg_inbox_run (&self->inbox);
  g_assert_cmpuint (count_queued (self), ==, 0);
}

static void
assert_ran (Box *self, guint n, const guint *numbers)
{
  g_assert_cmpmem (self->ran->data, self->ran->len * sizeof (guint), numbers, n * sizeof (guint));
}

static void
assert_ran_in_order (Box *self)
{
  g_assert_cmpuint (self->ran->len, ==, self->n_appended);
  for (guint i = 0; i < self->ran->len; i++)
    g_assert_cmpuint (g_array_index (self->ran, guint, i), ==, i);
}

static const guint numbers_of_records[] = {
  1,
  FIRST_RECORDS - 1,
  FIRST_RECORDS,
  FIRST_RECORDS + 1,
  FIRST_RECORDS + CHUNK_RECORDS - 1,
  FIRST_RECORDS + CHUNK_RECORDS,
  FIRST_RECORDS + CHUNK_RECORDS + 1,
  FIRST_RECORDS + (BATCH_CHUNKS - 1) * CHUNK_RECORDS,
  FIRST_RECORDS + (BATCH_CHUNKS - 1) * CHUNK_RECORDS + 1,
  MANY,
};

/* First in, first out, at either side of each border between chunks and between batches, the
 * first time and when the chunks are used again. */
static void
test_fifo (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (numbers_of_records); i++)
    {
      Box *box = box_new ();

      for (guint round = 0; round < 3; round++)
        {
          append_many (box, numbers_of_records[i]);
          g_assert_cmpuint (count_queued (box), ==, numbers_of_records[i]);
          run_all (box);
        }
      assert_ran_in_order (box);
      g_assert_cmpuint (box->inbox.posted, ==, 3 * numbers_of_records[i]);
      g_assert_cmpuint (box->inbox.queued_max, ==, numbers_of_records[i]);
      box_free (box);
    }
}

static void
test_one_at_a_time (void)
{
  Box *box = box_new ();
  guint n = FIRST_RECORDS + BATCH_CHUNKS * CHUNK_RECORDS + 1;

  append_many (box, n);
  for (guint i = 1; i <= n; i++)
    {
      g_assert_true (bg_inbox_run_one (&box->inbox));
      g_assert_cmpuint (box->ran->len, ==, i);
      g_assert_cmpuint (count_queued (box), ==, n - i);
    }
  g_assert_false (bg_inbox_run_one (&box->inbox));
  assert_ran_in_order (box);
  box_free (box);
}

/* A batch is so many chunks, and what is appended while it runs waits for the next one. */

static void
append_two (Box *self, guint number)
{
  if (number < 2)
    append_many (self, 2);
}

static void
test_batch (void)
{
  const guint n = FIRST_RECORDS + (BATCH_CHUNKS - 1) * CHUNK_RECORDS;
  Box *box = box_new ();

  append_many (box, n + 1);
  box->func = append_two;
  bg_inbox_run (&box->inbox);
  g_assert_cmpuint (box->ran->len, ==, n);
  g_assert_cmpuint (count_queued (box), ==, 5);
  bg_inbox_run (&box->inbox);
  g_assert_false (bg_inbox_has_work (&box->inbox));
  assert_ran_in_order (box);
  g_assert_cmpuint (atomic_load (&box->inbox.counts.batches), ==, 2);
  box_free (box);
}

/* One that takes too long ends early, and nothing is lost of it. */

static void
take_long (Box *self, guint number)
{
  now += BATCH_USEC + 1;
}

static void
test_batch_takes_long (void)
{
  Box *box = box_new ();

  append_many (box, CHUNK_RECORDS);
  box->func = take_long;
  bg_inbox_run (&box->inbox);
  g_assert_cmpuint (box->ran->len, >, 0);
  g_assert_cmpuint (box->ran->len, <=, SAMPLE_RECORDS);
  g_assert_cmpuint (count_queued (box), ==, CHUNK_RECORDS - box->ran->len);
  append_many (box, 1);
  run_all (box);
  assert_ran_in_order (box);
  box_free (box);
}

/* A record that iterates has the rest of the batch run within it, each once. */

static void
run_rest (Box *self, guint number)
{
  if (number != FIRST_RECORDS - 1)
    return;

  append_many (self, CHUNK_RECORDS);
  run_all (self);
  g_assert_cmpuint (self->ran->len, ==, self->n_appended);
}

static void
test_nested (void)
{
  Box *box = box_new ();

  append_many (box, FIRST_RECORDS + 2 * CHUNK_RECORDS);
  box->func = run_rest;
  bg_inbox_run (&box->inbox);
  g_assert_false (bg_inbox_has_work (&box->inbox));
  assert_ran_in_order (box);
  g_assert_cmpuint (box->inbox.n_batches, ==, 0);
  box_free (box);
}

/* However much there was, only so many chunks are kept; the others are freed. */
static void
test_spare_after_crowd (void)
{
  Box *box = box_new ();

  n_made_chunks = n_freed_chunks = 0;
  for (guint round = 0; round < 3; round++)
    {
      append_many (box, MANY);
      run_all (box);
      append_many (box, 1);
      run_all (box);
      g_assert_cmpuint (box->inbox.pool.n, ==, SPARE_CHUNKS);
      g_assert_cmpuint (count_chunks (box->inbox.pool.chunks), ==, box->inbox.pool.n);
      g_assert_cmpuint (box->inbox.pool.n + count_chunks (box->inbox.done), <=,
                        SPARE_CHUNKS + BATCH_CHUNKS);
      g_assert_cmpuint (n_made_chunks - n_freed_chunks, <=, SPARE_CHUNKS + BATCH_CHUNKS);
    }
  assert_ran_in_order (box);
  box_free (box);
  g_assert_cmpuint (n_made_chunks, ==, n_freed_chunks);
}

/* What is taken out does nothing when its turn comes, and does not count as queued until then;
 * its neighbours run as if it had not been there. */
static void
test_withdrawn (void)
{
  const guint n = FIRST_RECORDS + 2 * CHUNK_RECORDS;
  g_autofree BgRecord **slots = g_new (BgRecord *, n);
  guint n_left = n, position = 0;
  Box *box = box_new ();

  for (guint i = 0; i < n; i++)
    slots[i] = append (box, G_PRIORITY_DEFAULT);
  for (guint i = 0; i < n; i += 3)
    {
      bg_inbox_lock (&box->inbox);
      bg_inbox_withdraw (&box->inbox, slots[i], G_PRIORITY_DEFAULT);
      bg_inbox_unlock (&box->inbox);
      g_assert_cmpuint (count_queued (box), ==, --n_left);
    }

  run_all (box);
  g_assert_cmpuint (box->n_withdrawn, ==, n - n_left);
  g_assert_cmpuint (box->ran->len, ==, n_left);
  for (guint i = 0; i < n; i++)
    {
      if (i % 3 != 0)
        g_assert_cmpuint (g_array_index (box->ran, guint, position++), ==, i);
    }
  g_assert_cmpint (box->inbox.default_lane->n_void, ==, 0);
  box_free (box);
}

/* Priorities */

static void
append_urgent (Box *self, guint number)
{
  if (number == 1)
    append (self, G_PRIORITY_HIGH);
}

/* What is more urgent comes between two records of a batch, whose rest comes first after it. */
static void
test_urgent (void)
{
  static const guint expected[] = { 1, 5, 2, 3, 4, 0 };
  Box *box = box_new ();

  append (box, G_PRIORITY_LOW);
  append_many (box, 4);
  box->func = append_urgent;
  bg_inbox_run (&box->inbox);
  g_assert_cmpuint (box->ran->len, ==, 1);
  run_all (box);
  assert_ran (box, G_N_ELEMENTS (expected), expected);
  g_assert_cmpint (atomic_load (&box->inbox.urgent), ==, G_MAXINT);
  box_free (box);
}

static void
append_urgent_and_not (Box *self, guint number)
{
  if (number != 0)
    return;

  append (self, G_PRIORITY_HIGH);
  append (self, G_PRIORITY_LOW);
}

/* What is less urgent and comes after it does not hide it. */
static void
test_urgent_hidden (void)
{
  static const guint expected[] = { 0, 2, 1, 3 };
  Box *box = box_new ();

  append_many (box, 2);
  box->func = append_urgent_and_not;
  run_all (box);
  assert_ran (box, G_N_ELEMENTS (expected), expected);
  box_free (box);
}

static void
append_and_run_most_urgent (Box *self, guint number)
{
  if (number != 0)
    return;

  append (self, G_PRIORITY_DEFAULT);
  append (self, G_PRIORITY_HIGH);
  bg_inbox_run (&self->inbox);
}

/* Nor is it hidden by what was more urgent, and has run within the batch. */
static void
test_urgent_next (void)
{
  static const guint expected[] = { 0, 3, 2, 1 };
  Box *box = box_new ();

  append (box, G_PRIORITY_LOW);
  append (box, G_PRIORITY_LOW);
  box->func = append_and_run_most_urgent;
  run_all (box);
  assert_ran (box, G_N_ELEMENTS (expected), expected);
  box_free (box);
}

static void
append_one (Box *self, guint number)
{
  append (self, G_PRIORITY_DEFAULT);
}

/* How many turns pass before a less urgent record has its own, beside work for ever. */
static guint
count_turns (Box *self, gboolean (*turn) (Box *self))
{
  guint n_turns = 0;
  gboolean had = FALSE;

  append (self, G_PRIORITY_LOW);
  append (self, G_PRIORITY_DEFAULT);
  self->func = append_one;
  while (!had)
    {
      g_assert_true (turn (self));
      g_assert_cmpuint (++n_turns, <=, 2 * BG_LANE_TURNS);
      for (guint i = 0; i < self->ran->len; i++)
        had |= g_array_index (self->ran, guint, i) == 0;
    }
  return n_turns;
}

static gboolean
iterate (Box *self)
{
  return g_main_context_iteration (self->context, FALSE);
}

static gboolean
run_batch_of_most_urgent (Box *self)
{
  bg_inbox_run (&self->inbox);
  return TRUE;
}

/* A lane that has work for ever sits out one turn in so many. */
static void
test_turns (void)
{
  Box *box = box_new ();

  g_assert_cmpuint (count_turns (box, run_batch_of_most_urgent), ==, BG_LANE_TURNS);
  box_free (box);

  box = box_new ();
  g_assert_cmpuint (count_turns (box, iterate), ==, BG_LANE_TURNS + 1);
  box_free (box);
}

/* One turn in so many is what the less urgent has, after the first as well. */

static guint n_low;

static void
append_as_urgent (Box *self, guint number)
{
  int priority = self->inbox.lane->priority;

  n_low += priority == G_PRIORITY_LOW;
  append (self, priority);
}

static void
test_turns_go_on (void)
{
  Box *box = box_new ();

  append (box, G_PRIORITY_DEFAULT);
  append (box, G_PRIORITY_LOW);
  box->func = append_as_urgent;
  for (guint i = 1; i <= 3 * BG_LANE_TURNS; i++)
    {
      bg_inbox_run (&box->inbox);
      g_assert_cmpuint (n_low, ==, i / BG_LANE_TURNS);
    }
  box_free (box);
}

/* Priorities that were used once do not cost each iteration something for ever, and can be
 * used again. */
static void
test_retired (void)
{
  Box *box = box_new ();

  for (guint round = 1; round <= 3; round++)
    {
      n_freed_lanes = 0;
      for (int priority = 1; priority <= 4 * KEPT_LANES; priority++)
        append (box, priority);
      g_assert_cmpuint (box->inbox.n_lanes, ==, 4 * KEPT_LANES + 1);
      while (bg_inbox_has_work (&box->inbox))
        g_assert_true (iterate (box));
      g_assert_cmpuint (box->inbox.n_lanes, ==, KEPT_LANES);
      g_assert_cmpuint (n_freed_lanes, ==, 3 * KEPT_LANES + 1);
      g_assert_cmpuint (box->ran->len, ==, round * 4 * KEPT_LANES);
    }
  assert_ran_in_order (box);
  box_free (box);
}

static gboolean
has_lane (Box *self, int priority)
{
  guint position = bg_inbox_find_lane (&self->inbox, priority);

  return position < self->inbox.n_lanes && self->inbox.lanes[position]->priority == priority;
}

static void
iterate_in_first_lane (Box *self, guint number)
{
  if (number != 0)
    return;

  append (self, 1);
  while (self->ran->len < 2)
    g_assert_true (iterate (self));
  g_assert_true (has_lane (self, 1));
}

/* But not while a record of that priority runs, though one within it was the last. */
static void
test_not_retired (void)
{
  Box *box = box_new ();

  for (int priority = 1; priority <= 4 * KEPT_LANES; priority++)
    append (box, priority);
  box->func = iterate_in_first_lane;
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  g_assert_false (has_lane (box, 1));
  g_assert_cmpuint (box->ran->len, ==, box->n_appended);
  box_free (box);
}

static void
destroy_source (Box *self, guint number)
{
  if (number == 1)
    g_source_destroy (g_main_current_source ());
}

/* Whoever destroys the lane's source by mistake takes no record with it. */
static void
test_source_destroyed (void)
{
  Box *box = box_new ();

  append_many (box, 3);
  box->func = destroy_source;
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  g_assert_cmpuint (atomic_load (&box->inbox.n_sources), ==, 2);
  append_many (box, 3);
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  assert_ran_in_order (box);
  box_free (box);
}

static gboolean
pause_source_cb (gpointer user_data)
{
  bg_inbox_pause (user_data);
  return G_SOURCE_REMOVE;
}

/* An inbox that stands still since the context found its lane ready has nothing run. */
static void
test_paused_when_found (void)
{
  Box *box = box_new ();
  g_autoptr (GSource) source = g_idle_source_new ();

  /* Of two sources of one priority that which was there first is dispatched first. */
  append_many (box, 1);
  g_source_set_priority (source, G_PRIORITY_HIGH);
  g_source_attach (source, box->context);
  append (box, G_PRIORITY_HIGH);
  g_source_set_callback (source, pause_source_cb, &box->inbox, NULL);
  g_assert_true (iterate (box));
  g_assert_true (bg_inbox_is_paused (&box->inbox));
  g_assert_cmpuint (box->ran->len, ==, 0);
  g_assert_cmpuint (count_queued (box), ==, 2);
  run_all (box);
  box_free (box);
}

/* Each source refers to the owner, and each dispatch of one; by the owner's tag it is found. */

static guint n_owned;

static void
owner_ref (gpointer data)
{
  n_owned++;
}

static void
owner_unref (gpointer data)
{
  n_owned--;
}

static void
owner_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  *func = NULL;
  *user_data = &n_owned;
}

static GSourceCallbackFuncs owner_funcs = { owner_ref, owner_unref, owner_get };

static void
assert_owned (Box *box, guint number)
{
  g_assert_cmpuint (n_owned, ==, box->inbox.n_lanes + 1);
}

static void
test_owner (void)
{
  Box *box = box_new ();
  g_autoptr (GMainContext) context = NULL;

  g_assert_false (bg_inbox_find (box->context, &n_owned));
  box_free (box);

  box = box_new_with_funcs (&owner_funcs);
  g_assert_true (bg_inbox_find (box->context, &n_owned));
  box->func = assert_owned;
  append (box, G_PRIORITY_HIGH);
  append (box, G_PRIORITY_LOW);
  append (box, G_PRIORITY_DEFAULT);
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  g_assert_cmpuint (n_owned, ==, 3);
  context = g_main_context_ref (box->context);
  box_free (box);
  g_assert_cmpuint (n_owned, ==, 0);
}

/* Another source that the lane has got has the owner, too. */
static void
test_owner_stays (void)
{
  Box *box = box_new_with_funcs (&owner_funcs);

  append_many (box, 3);
  box->func = destroy_source;
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  g_assert_cmpuint (atomic_load (&box->inbox.n_sources), ==, 2);
  g_assert_true (bg_inbox_find (box->context, &n_owned));
  g_assert_cmpuint (n_owned, ==, 1);
  box_free (box);
  g_assert_cmpuint (n_owned, ==, 0);
}

/* So have those of lanes that go as they are not used any more. */
static void
test_owner_of_retired (void)
{
  Box *box = box_new_with_funcs (&owner_funcs);

  for (int priority = 1; priority <= 4 * KEPT_LANES; priority++)
    append (box, priority);
  while (bg_inbox_has_work (&box->inbox))
    g_assert_true (iterate (box));
  g_assert_cmpuint (box->inbox.n_lanes, ==, KEPT_LANES);
  g_assert_cmpuint (n_owned, ==, KEPT_LANES);
  box_free (box);
  g_assert_cmpuint (n_owned, ==, 0);
}

/* Dispatches that the thread has ended in give the owner back. */

static void
end_thread (Box *box, guint number)
{
  if (number == 0)
    g_assert_true (iterate (box));
  g_main_context_release (box->context);
  g_main_context_release (box->context);
  g_thread_exit (NULL);
}

static gpointer
iterate_thread (gpointer data)
{
  iterate (data);
  g_assert_not_reached ();
}

static void
test_owner_abandoned (void)
{
  g_autoptr (GPtrArray) sources = g_ptr_array_new_with_free_func ((GDestroyNotify) g_source_unref);
  Box *box = box_new_with_funcs (&owner_funcs);

  box->func = end_thread;
  append (box, G_PRIORITY_DEFAULT);
  append (box, G_PRIORITY_LOW);
  g_thread_join (g_thread_new ("ends", iterate_thread, box));
  g_assert_cmpuint (n_owned, ==, 4);
  g_assert_true (bg_inbox_abandon_activities (&box->inbox, sources));
  g_assert_cmpuint (n_owned, ==, 2);
  g_assert_cmpuint (sources->len, ==, 2);
  g_assert_false (iterate (box));
  box_free (box);
  g_assert_cmpuint (n_owned, ==, 0);
}

/* What is left when the context goes has its data destroyed, once, in its order. */

static GArray *destroyed;

static void
destroy_data (gpointer data)
{
  guint number = GPOINTER_TO_UINT (data) - 1;

  g_array_append_val (destroyed, number);
}

static void
test_discarded (void)
{
  const guint n = FIRST_RECORDS + (BATCH_CHUNKS + 1) * CHUNK_RECORDS;
  Box *box = box_new ();

  destroyed = g_array_new (FALSE, FALSE, sizeof (guint));
  append_many (box, n);
  for (guint i = 0; i < FIRST_RECORDS + 1; i++)
    g_assert_true (bg_inbox_run_one (&box->inbox));
  bg_inbox_discard (&box->inbox, destroy_data);
  g_assert_cmpuint (box->ran->len, ==, FIRST_RECORDS + 1);
  g_assert_cmpuint (destroyed->len, ==, n - box->ran->len);
  for (guint i = 0; i < destroyed->len; i++)
    g_assert_cmpuint (g_array_index (destroyed, guint, i), ==, box->ran->len + i);
  g_clear_pointer (&destroyed, g_array_unref);
  box_free (box);
}

/* A child that a record forks off returns at once from the batch, which is its parent's. */

static pid_t forked;

static void
fork_in_first (Box *self, guint number)
{
  if (number == 0)
    forked = util_fork ();
}

static void
test_batch_forked (void)
{
  Box *box;

  bg_fork_watch ();
  box = box_new ();
  append_many (box, 3);
  box->func = fork_in_first;
  bg_inbox_run (&box->inbox);
  if (forked == 0)
    _exit (box->ran->len == 1 ? 0 : 1);

  assert_ran_in_order (box);
  util_wait_for_child (forked);
  box_free (box);
}

/* Asleep and awake */

static Box *appends_for; /* (nullable): whose inbox another thread appends to, */
static guint n_locks;    /* just before this thread has taken a lock so often */

static gpointer
append_thread (gpointer box)
{
  append (box, G_PRIORITY_DEFAULT);
  return NULL;
}

static gboolean
try_lock_of_test (GMutex *mutex)
{
  Box *box = appends_for;

  if (box != NULL && --n_locks == 0)
    {
      appends_for = NULL;
      g_thread_join (g_thread_new ("appends", append_thread, box));
    }
  return g_mutex_trylock (mutex);
}

static Box *sleeper;

/* Who would sleep now would do so beside work, unless somebody has woken it. */
static int
poll_of_test (GPollFD *fds, guint n, int timeout)
{
  int n_ready = g_poll (fds, n, 0);

  if (timeout != 0 && n_ready == 0)
    g_assert_false (bg_inbox_has_work (&sleeper->inbox));
  return n_ready;
}

/* At whichever moment work comes while a context looks for it, it is found, or the context is
 * woken. */
static void
test_asleep (void)
{
  Box *box = sleeper = box_new ();
  gboolean between = TRUE;

  g_main_context_set_poll_func (box->context, poll_of_test);
  for (guint n = 1; between; n++)
    {
      appends_for = box;
      n_locks = n;
      g_main_context_iteration (box->context, TRUE);
      between = appends_for == NULL;
      appends_for = NULL;
      while (bg_inbox_has_work (&box->inbox))
        g_main_context_iteration (box->context, TRUE);
    }
  g_assert_cmpuint (box->n_appended, >=, 2);
  assert_ran_in_order (box);
  box_free (box);
}

static Box *woken; /* (nullable) */
static guint n_wakeups;

static void
wake_up_of_test (GMainContext *context)
{
  if (woken != NULL)
    {
      /* The lock is given up, and the box as good as gone. */
      g_assert_true (g_mutex_trylock (&woken->inbox.lock));
      g_mutex_unlock (&woken->inbox.lock);
      g_assert_false (bg_glib_context_is_unshared (context));
      n_wakeups++;
    }
  g_main_context_wakeup (context);
}

/* What is appended may be the last that its loop does, at once: whoever wakes it then does so
 * without the lock, and with a reference to the context. */
static void
test_woken_at_the_end (void)
{
  Box *box = box_new ();

  g_assert_false (iterate (box));
  g_assert_true (bg_inbox_is_asleep (&box->inbox));
  woken = box;
  append (box, G_PRIORITY_DEFAULT);
  woken = NULL;
  g_assert_cmpuint (n_wakeups, ==, 1);
  run_all (box);
  box_free (box);
}

/* It is woken once, however much is appended until it has looked. */
static void
test_woken_once (void)
{
  Box *box = box_new ();

  for (guint round = 1; round <= 2; round++)
    {
      g_assert_false (iterate (box));
      g_assert_true (bg_inbox_is_asleep (&box->inbox));
      append_many (box, 3);
      g_assert_false (bg_inbox_is_asleep (&box->inbox));
      g_assert_cmpuint (box->inbox.wakeups, ==, round);
      while (bg_inbox_has_work (&box->inbox))
        g_assert_true (iterate (box));
    }

  /* Nor is it woken while it dispatches something else than records. */
  g_assert_false (iterate (box));
  bg_inbox_awake (&box->inbox);
  append_many (box, 1);
  g_assert_cmpuint (box->inbox.wakeups, ==, 2);
  run_all (box);
  assert_ran_in_order (box);
  box_free (box);
}

/* For how long batches ran */

static void
assert_busy (Box *self, gint64 busy_usec, gint64 longest_usec)
{
  BgInboxTotals totals;

  bg_inbox_lock (&self->inbox);
  bg_inbox_get_totals (&self->inbox, &totals);
  bg_inbox_unlock (&self->inbox);
  g_assert_cmpint (totals.busy_usec, ==, busy_usec);
  g_assert_cmpint (totals.longest_usec, ==, longest_usec);
}

static void
run_batch_for (Box *self, gint64 usec)
{
  bg_inbox_begin_busy (&self->inbox, now);
  now += usec;
  bg_inbox_end_busy (&self->inbox, now);
  now += 5;
}

static void
test_busy (void)
{
  Box *box = box_new ();

  assert_busy (box, 0, 0);
  run_batch_for (box, 100);
  assert_busy (box, 100, 100);
  run_batch_for (box, 50);
  assert_busy (box, 150, 100);
  run_batch_for (box, 101);
  assert_busy (box, 251, 101);

  /* None runs that could be over. */
  bg_inbox_end_busy (&box->inbox, now);
  assert_busy (box, 251, 101);
  box_free (box);
}

/* One that runs counts, and what was told of it is not taken back when its end turns out to have
 * been before. */
static void
test_busy_now (void)
{
  Box *box = box_new ();

  run_batch_for (box, 100);
  bg_inbox_begin_busy (&box->inbox, now);
  now += 60;
  assert_busy (box, 160, 100);
  now += 60;
  assert_busy (box, 220, 120);
  bg_inbox_end_busy (&box->inbox, now - 10);
  assert_busy (box, 220, 120);
  run_batch_for (box, 30);
  assert_busy (box, 240, 120);
  box_free (box);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/queue/chunks/sizes", test_sizes);
  g_test_add_func ("/queue/chunks/used-again", test_used_again);
  g_test_add_func ("/queue/chunks/spare-ones-are-bounded", test_spare_bounded);
  g_test_add_func ("/queue/lane/first-in-first-out", test_fifo);
  g_test_add_func ("/queue/lane/one-at-a-time", test_one_at_a_time);
  g_test_add_func ("/queue/lane/spare-chunks-are-bounded", test_spare_after_crowd);
  g_test_add_func ("/queue/lane/withdrawn", test_withdrawn);
  g_test_add_func ("/queue/lane/discarded", test_discarded);
  g_test_add_func ("/queue/batch/what-comes-meanwhile-waits", test_batch);
  g_test_add_func ("/queue/batch/ends-early", test_batch_takes_long);
  g_test_add_func ("/queue/batch/nested", test_nested);
  g_test_add_func ("/queue/batch/forked", test_batch_forked);
  g_test_add_func ("/queue/priority/urgent-comes-between", test_urgent);
  g_test_add_func ("/queue/priority/urgent-comes-before-less-urgent", test_urgent_hidden);
  g_test_add_func ("/queue/priority/next-urgent-comes-between", test_urgent_next);
  g_test_add_func ("/queue/priority/less-urgent-has-its-turn", test_turns);
  g_test_add_func ("/queue/priority/less-urgent-has-its-turn/again", test_turns_go_on);
  g_test_add_func ("/queue/priority/used-once", test_retired);
  g_test_add_func ("/queue/priority/used-once/within-itself", test_not_retired);
  g_test_add_func ("/queue/source/destroyed-by-mistake", test_source_destroyed);
  g_test_add_func ("/queue/source/paused-when-found", test_paused_when_found);
  g_test_add_func ("/queue/owner/of-each-source", test_owner);
  g_test_add_func ("/queue/owner/of-another-source", test_owner_stays);
  g_test_add_func ("/queue/owner/of-retired", test_owner_of_retired);
  g_test_add_func ("/queue/owner/abandoned", test_owner_abandoned);
  g_test_add_func ("/queue/asleep/never-beside-work", test_asleep);
  g_test_add_func ("/queue/asleep/woken-at-the-end", test_woken_at_the_end);
  g_test_add_func ("/queue/asleep/woken-once", test_woken_once);
  g_test_add_func ("/queue/busy/in-all-and-longest", test_busy);
  g_test_add_func ("/queue/busy/now", test_busy_now);

  return g_test_run ();
}
