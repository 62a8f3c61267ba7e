/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* The promises here are of the insides: what is in the heap, and how much memory it
 * keeps. So the insides are part of this program. */
#include "base/bg-delay.c"

#include "util.h"

static BgDelay *
take_id (BgDelays *self, guint64 id)
{
  BgDelay *delay = find (self, id);

  g_assert_nonnull (delay);
  g_assert_true (bg_delays_take (self) == delay);
  return delay;
}

static guint64
add (BgDelays *self, gint64 due)
{
  return bg_delays_add (self, due, NULL, NULL, NULL);
}

static gboolean
cancel (BgDelays *self, guint64 id)
{
  gpointer data;
  GDestroyNotify destroy;

  return bg_delays_cancel (self, id, &data, &destroy);
}

/* What is in the heap is in order and counted, and what is allocated is in proportion. */
static void
check (BgDelays *self)
{
  guint n_cancelled = 0, n_blocks = 0;

  g_assert_true (self->n == 0 || !is_cancelled (self->heap[0].delay));
  for (guint i = 0; i < self->n; i++)
    {
      if (i > 0)
        g_assert_true (is_before (&self->heap[(i - 1) / CHILDREN], &self->heap[i]));
      n_cancelled += is_cancelled (self->heap[i].delay);
    }
  g_assert_cmpuint (self->n_cancelled, ==, n_cancelled);
  g_assert_cmpuint (n_cancelled, <=, self->n / 2);
  g_assert_cmpuint (self->allocated, <=, MAX (KEPT_ALLOCATED, 4 * self->n));

  for (guint i = 0; i < self->n_slots; i++)
    n_blocks += self->slots[i].block != NULL;
  g_assert_cmpuint (self->n_blocks, ==, n_blocks);
  for (BgDelayBlock *block = self->room; block != NULL; block = block->next)
    {
      g_assert_true (block->n_used > 0 && has_room (block));
      g_assert_true (block->next == NULL || block->next->previous == block);
    }
}

/* Order */

static void
test_order (void)
{
  BgDelays self = { NULL };
  guint n = util_scale (20000);
  gint64 last_due = G_MININT64;
  gsize last_order = 0;

  g_assert_cmpint (bg_delays_get_next_due (&self), ==, -1);
  g_assert_null (bg_delays_take (&self));
  for (guint i = 1; i <= n; i++)
    bg_delays_add (&self, g_test_rand_int_range (0, 1000), NULL, GSIZE_TO_POINTER (i), NULL);
  check (&self);

  for (guint i = 0; i < n; i++)
    {
      gint64 due = bg_delays_get_next_due (&self);
      BgDelay *delay = bg_delays_take (&self);
      gsize order = GPOINTER_TO_SIZE (delay->data);

      g_assert_cmpint (due, >=, last_due);
      if (due == last_due)
        g_assert_cmpuint (order, >, last_order);
      last_due = due;
      last_order = order;
      g_assert_true (bg_delay_start (delay));
      bg_delays_give_back (&self, delay);
    }

  g_assert_null (bg_delays_take (&self));
  check (&self);
  bg_delays_clear (&self);
}

/* Cancelling, in each state */

static void
test_cancel_waiting (void)
{
  BgDelays self = { NULL };
  int data;
  guint64 id = bg_delays_add (&self, 7, NULL, &data, util_count_cb);
  gpointer got_data = NULL;
  GDestroyNotify got_destroy = NULL;

  g_assert_false (cancel (&self, 0));
  g_assert_false (cancel (&self, id + 1));
  g_assert_false (cancel (&self, G_MAXUINT64));
  g_assert_true (bg_delays_cancel (&self, id, &got_data, &got_destroy));
  g_assert_true (got_data == &data && got_destroy == util_count_cb);
  g_assert_false (cancel (&self, id));
  g_assert_null (bg_delays_take (&self));
  check (&self);
  bg_delays_clear (&self);
}

static void
test_cancel_due (void)
{
  BgDelays self = { NULL };
  guint64 id = add (&self, 7);
  BgDelay *delay = take_id (&self, id);

  g_assert_true (cancel (&self, id));
  g_assert_false (cancel (&self, id));
  g_assert_false (bg_delay_start (delay));
  bg_delays_give_back (&self, delay);
  g_assert_false (cancel (&self, id));
  check (&self);
  bg_delays_clear (&self);
}

static void
test_cancel_started (void)
{
  BgDelays self = { NULL };
  guint64 id = add (&self, 7);
  BgDelay *delay = take_id (&self, id);

  g_assert_true (bg_delay_start (delay));
  g_assert_false (cancel (&self, id));
  bg_delays_give_back (&self, delay);
  g_assert_false (cancel (&self, id));

  /* Its place is another one's now. */
  g_assert_cmpuint (add (&self, 7), !=, id);
  g_assert_false (cancel (&self, id));
  bg_delays_clear (&self);
}

/* What is cancelled is taken out when it is more than the rest, wherever it is. */

static void
test_compaction (void)
{
  BgDelays self = { NULL };
  guint n = 1000;
  g_autofree guint64 *ids = g_new (guint64, n);

  for (guint i = 0; i < n; i++)
    ids[i] = add (&self, i);

  /* From the end, where nothing comes to the top. */
  for (guint i = n; i > n / 2; i--)
    g_assert_true (cancel (&self, ids[i - 1]));
  g_assert_cmpuint (self.n, ==, n);
  check (&self);
  g_assert_true (cancel (&self, ids[n / 2 - 1]));
  g_assert_cmpuint (self.n, ==, n / 2 - 1);
  g_assert_cmpuint (self.n_cancelled, ==, 0);
  check (&self);

  for (guint i = 0; i < n / 2 - 1; i++)
    bg_delays_give_back (&self, take_id (&self, ids[i]));
  g_assert_null (bg_delays_take (&self));
  check (&self);
  bg_delays_clear (&self);
}

/* What is cancelled on top goes at once: the first is what is next due. */
static void
test_cancelled_top (void)
{
  BgDelays self = { NULL };
  guint64 ids[100];

  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    ids[i] = add (&self, i);
  g_assert_true (cancel (&self, ids[1]));
  g_assert_cmpuint (self.n, ==, 100);
  g_assert_true (cancel (&self, ids[0]));
  g_assert_cmpuint (self.n, ==, 98);
  g_assert_cmpint (bg_delays_get_next_due (&self), ==, 2);

  g_assert_true (cancel (&self, ids[3]));
  bg_delays_give_back (&self, take_id (&self, ids[2]));
  g_assert_cmpint (bg_delays_get_next_due (&self), ==, 4);
  check (&self);
  bg_delays_clear (&self);
}

/* Against a list that is always searched in full. */

typedef struct
{
  guint64 id;
  gint64 due;
} Known;

static void
add_known (BgDelays *self, GArray *known, GHashTable *ids)
{
  Known one = { 0, g_test_rand_int_range (0, 500) };

  one.id = add (self, one.due);
  g_assert_true (g_hash_table_add (ids, g_memdup2 (&one.id, sizeof one.id)));
  g_array_append_val (known, one);
}

static void
cancel_known (BgDelays *self, GArray *known)
{
  guint i;

  if (known->len == 0)
    return;

  i = (guint) g_test_rand_int_range (0, (int) known->len);
  g_assert_true (cancel (self, g_array_index (known, Known, i).id));
  g_assert_false (cancel (self, g_array_index (known, Known, i).id));
  g_array_remove_index (known, i);
}

static void
take_known (BgDelays *self, GArray *known)
{
  guint first = 0;

  for (guint i = 1; i < known->len; i++)
    {
      if (g_array_index (known, Known, i).due < g_array_index (known, Known, first).due)
        first = i;
    }

  if (known->len == 0)
    {
      g_assert_null (bg_delays_take (self));
      return;
    }

  g_assert_cmpint (bg_delays_get_next_due (self), ==, g_array_index (known, Known, first).due);
  bg_delays_give_back (self, take_id (self, g_array_index (known, Known, first).id));
  g_array_remove_index (known, first);
}

static void
test_model (void)
{
  BgDelays self = { NULL };
  g_autoptr (GArray) known = g_array_new (FALSE, FALSE, sizeof (Known));
  g_autoptr (GHashTable) ids = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);

  for (guint i = 0; i < util_scale (40000); i++)
    {
      /* It grows for a while, and shrinks for a while. */
      int add_weight = i / 4000 % 2 == 0 ? 6 : 2;
      int what = g_test_rand_int_range (0, 10);

      if (what < add_weight)
        add_known (&self, known, ids);
      else if (what < 8)
        cancel_known (&self, known);
      else
        take_known (&self, known);
      if (i % 64 == 0)
        check (&self);
    }

  while (known->len > 0)
    take_known (&self, known);
  check (&self);
  g_assert_cmpuint (self.n_blocks, <=, 1);
  bg_delays_clear (&self);
}

/* Memory */

/* Once what was added is cancelled, or has run, what it took is given back. */
static void
run_give_back (gboolean cancels, gboolean from_end)
{
  BgDelays self = { NULL };
  guint n = util_scale_at_least (1000000, 5000);
  g_autofree guint64 *ids = g_new0 (guint64, n);
  gsize before = util_get_allocated (), kept;

  for (guint i = 0; i < n; i++)
    ids[i] = add (&self, i);
  g_assert_cmpuint (self.n_blocks, ==, (n + BLOCK - 1) / BLOCK);
  g_assert_cmpuint (self.allocated, >=, n);

  for (guint i = 0; i < n; i++)
    {
      if (cancels)
        g_assert_true (cancel (&self, ids[from_end ? n - 1 - i : i]));
      else
        bg_delays_give_back (&self, bg_delays_take (&self));
    }
  g_assert_cmpuint (self.n, ==, 0);
  g_assert_cmpuint (self.n_blocks, ==, 1);
  g_assert_true (self.spare != NULL && self.room == NULL);
  g_assert_cmpuint (self.allocated, <=, KEPT_ALLOCATED);
  check (&self);

  /* 72 bytes each were taken; of a slot's a sixteenth may be in use. */
  kept = util_get_allocated ();
  kept -= MIN (before, kept);
  g_assert_cmpuint (kept, <=, 64 * 1024 + n / BLOCK * sizeof (BgDelaySlot) * 16);
  g_test_message ("%" G_GSIZE_FORMAT " bytes kept of %u delays", kept, n);

  /* And all ids are new ones. */
  for (guint i = 0; i < n; i++)
    g_assert_false (cancel (&self, ids[i]));
  for (guint i = 0; i < n; i++)
    (void) add (&self, i);
  for (guint i = 0; i < n; i++)
    g_assert_false (cancel (&self, ids[i]));
  bg_delays_clear (&self);
}

static void
test_give_back (void)
{
  run_give_back (TRUE, FALSE);
  run_give_back (TRUE, TRUE);
  run_give_back (FALSE, FALSE);
}

/* What is left keeps its own block, and not the others'. */
static void
test_give_back_rest (void)
{
  BgDelays self = { NULL };
  guint64 ids[20 * BLOCK];

  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    ids[i] = add (&self, i);
  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    {
      if (i != 3 * BLOCK && i != 17 * BLOCK + 5)
        g_assert_true (cancel (&self, ids[i]));
    }

  /* Few cancelled ones stay in the heap, and in the blocks, as long as there are others. */
  g_assert_cmpuint (self.n, <=, 4);
  g_assert_cmpuint (self.n_blocks, <=, 5);
  check (&self);
  bg_delays_give_back (&self, take_id (&self, ids[3 * BLOCK]));
  bg_delays_give_back (&self, take_id (&self, ids[17 * BLOCK + 5]));
  g_assert_cmpuint (self.n_blocks, ==, 1);
  check (&self);
  bg_delays_clear (&self);
}

/* What comes and goes at a block's edge does not allocate. */
static void
test_edge (void)
{
  BgDelays self = { NULL };
  BgDelayBlock *spare;

  for (guint i = 0; i < BLOCK; i++)
    (void) add (&self, i);
  g_assert_true (cancel (&self, add (&self, -1)));
  g_assert_cmpuint (self.n_blocks, ==, 2);
  spare = self.spare;
  g_assert_nonnull (spare);
  for (guint i = 0; i < 1000; i++)
    {
      g_assert_true (cancel (&self, add (&self, -1)));
      g_assert_true (self.spare == spare);
    }
  bg_delays_clear (&self);
}

/* Ids */

/* A block that is used so often that its ids come to their end is not used any more. */
static void
test_last_ids (void)
{
  BgDelays self = { NULL };
  guint64 first = add (&self, 0), ids[4];
  guint number = self.room->number;

  self.room->last_generation = LAST_GENERATION - 2;
  for (guint i = 0; i < G_N_ELEMENTS (ids); i++)
    ids[i] = add (&self, i);
  g_assert_cmpuint (find (&self, ids[1])->index / BLOCK, ==, number);
  g_assert_cmpuint (find (&self, ids[1])->generation, ==, LAST_GENERATION);
  g_assert_cmpuint (find (&self, ids[2])->index / BLOCK, !=, number);
  g_assert_cmpuint (self.n_blocks, ==, 2);

  /* Free places do not help it, and when it is empty it goes. */
  g_assert_true (cancel (&self, ids[1]));
  g_assert_true (cancel (&self, ids[0]));
  g_assert_true (cancel (&self, first));
  g_assert_cmpuint (self.n_blocks, ==, 1);
  for (guint i = 0; i < 3 * BLOCK; i++)
    {
      guint64 id = add (&self, i);

      g_assert_cmpuint (find (&self, id)->index / BLOCK, !=, number);
    }
  g_assert_true (self.slots[number].block == NULL);
  g_assert_false (cancel (&self, first));
  check (&self);
  bg_delays_clear (&self);
}

/* The places of a block that was freed go on where they were. */
static void
test_ids_go_on (void)
{
  BgDelays self = { NULL };
  g_autoptr (GHashTable) ids = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);

  for (guint round = 0; round < 20; round++)
    {
      guint n = 1 + (guint) g_test_rand_int_range (0, 5 * BLOCK);

      for (guint i = 0; i < n; i++)
        {
          guint64 id = add (&self, i);

          g_assert_cmpuint (id, !=, 0);
          g_assert_true (g_hash_table_add (ids, g_memdup2 (&id, sizeof id)));
        }
      for (guint i = 0; i < n; i++)
        bg_delays_give_back (&self, bg_delays_take (&self));
      g_assert_cmpuint (self.n_blocks, ==, 1);
    }
  bg_delays_clear (&self);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/delay-heap/order", test_order);
  g_test_add_func ("/delay-heap/cancel/waiting", test_cancel_waiting);
  g_test_add_func ("/delay-heap/cancel/due", test_cancel_due);
  g_test_add_func ("/delay-heap/cancel/started", test_cancel_started);
  g_test_add_func ("/delay-heap/cancel/top", test_cancelled_top);
  g_test_add_func ("/delay-heap/compaction", test_compaction);
  g_test_add_func ("/delay-heap/model", test_model);
  g_test_add_func ("/delay-heap/give-back", test_give_back);
  g_test_add_func ("/delay-heap/give-back/rest", test_give_back_rest);
  g_test_add_func ("/delay-heap/give-back/edge", test_edge);
  g_test_add_func ("/delay-heap/ids/last", test_last_ids);
  g_test_add_func ("/delay-heap/ids/go-on", test_ids_go_on);

  return g_test_run ();
}
