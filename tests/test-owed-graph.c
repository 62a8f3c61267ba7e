/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* Several loops that are owed replies, are told of each other's ends, and wait for one
 * another: a search for circles comes to the same loop by more than one way. */

static void
wait_until_stopping (BgLoop *loop)
{
  while (bg_loop_get_state (loop) == BG_LOOP_RUNNING)
    g_thread_yield ();
  util_settle ();
}

/* By then the loop drains, and waits. */
static void
assert_waits (BgLoop *loop)
{
  g_assert_false (bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, 1, NULL, NULL));
}

static gboolean
wait_for_latch_cb (gpointer user_data, GError **error)
{
  util_latch_wait (user_data);
  return TRUE;
}

/* What has become of what a loop is owed */

typedef struct
{
  GError *error; /* (owned) (nullable) */
  gboolean told;
} Told;

static void
told_answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Told *self = user_data;

  self->told = TRUE;
  bg_loop_call_finish (BG_LOOP (source), result, &self->error);
}

static void
told_end_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Told *self = user_data;

  self->told = TRUE;
  bg_loop_wait_finish (BG_LOOP (source), result, &self->error);
}

static void
assert_told (Told *self)
{
  g_assert_true (self->told);
  g_assert_no_error (self->error);
}

/* That there is nothing to tell is word, too. */
static void
assert_told_anything (Told *self)
{
  g_assert_true (self->told);
  if (self->error != NULL)
    g_assert_error (self->error, BG_ERROR, BG_ERROR_CLOSED);
  g_clear_error (&self->error);
}

/* Up to six loops, by one letter each */

typedef struct
{
  BgLoop *loops[6];
  UtilLatch goes_on; /* what is asked for with ask() */
  UtilLatch entered;
  UtilLatch leaves;
  UtilLatch tried;
  Told told[6];
  GCancellable *cancellable; /* (owned) of a question */
  GError *error;             /* of the wait that is tried */
} Graph;

static void
graph_init (Graph *self, guint n)
{
  static const char *names[] = { "a", "b", "c", "d", "e", "f" };

  *self = (Graph){ .cancellable = g_cancellable_new () };
  for (guint i = 0; i < n; i++)
    self->loops[i] = util_loop_new (names[i]);
  util_latch_init (&self->goes_on, 1);
  util_latch_init (&self->entered, 1);
  util_latch_init (&self->leaves, 1);
  util_latch_init (&self->tried, 1);
}

static void
graph_end (Graph *self)
{
  for (guint i = 0; i < G_N_ELEMENTS (self->loops) && self->loops[i] != NULL; i++)
    bg_loop_quit (self->loops[i], BG_SHUTDOWN_DRAIN);
  /* What a loop is owed has a reference to another one. */
  for (guint i = 0; i < G_N_ELEMENTS (self->loops) && self->loops[i] != NULL; i++)
    g_assert_true (bg_loop_shutdown (self->loops[i], NULL));
  for (guint i = 0; i < G_N_ELEMENTS (self->loops) && self->loops[i] != NULL; i++)
    util_loop_end (self->loops[i]);
  util_latch_clear (&self->goes_on);
  util_latch_clear (&self->entered);
  util_latch_clear (&self->leaves);
  util_latch_clear (&self->tried);
  g_clear_error (&self->error);
  g_object_unref (self->cancellable);
}

/* On a loop: @whom is to answer when the graph goes on, or to tell of its end. */

static void
ask (Graph *self, guint whom, Told *told)
{
  bg_loop_call_async (self->loops[whom], 0, -1, wait_for_latch_cb, &self->goes_on, NULL, NULL,
                      told_answer_cb, told);
}

static void
ask_for_end (Graph *self, guint whom, Told *told)
{
  bg_loop_wait_async (self->loops[whom], -1, NULL, told_end_cb, told);
}

static void
run_on (Graph *self, guint where, BgCallFunc func)
{
  g_assert_true (bg_loop_call (self->loops[where], func, self, NULL, NULL));
}

/* While a waits for a reply of b, a callback of c's reply asks d, which waits for a's
 * end. e begins to wait for that, too: its search comes to a, from which it comes to a. */

static void
within_callback_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Graph *self = user_data;

  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  ask (self, 3, &self->told[1]);
  util_latch_count_down (&self->entered);
  util_latch_wait (&self->leaves);
}

static gboolean
callback_asks_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask (self, 1, &self->told[0]);
  bg_loop_call_async (self->loops[2], 0, -1, wait_for_latch_cb, &self->tried, NULL, NULL,
                      within_callback_cb, self);
  return TRUE;
}

static void
end_a_cb (gpointer user_data)
{
  Graph *self = user_data;

  g_assert_false (bg_loop_shutdown (self->loops[0], &self->error));
}

static void
wait_for_a_cb (gpointer user_data)
{
  Graph *self = user_data;

  g_assert_true (bg_loop_wait (self->loops[0], -1, NULL, NULL));
}

static void
run_asked_within (gboolean another_waits)
{
  Graph self;

  graph_init (&self, 5);
  run_on (&self, 0, callback_asks_cb);
  g_assert_true (bg_loop_post (self.loops[3], end_a_cb, &self, NULL));
  wait_until_stopping (self.loops[0]);
  util_latch_count_down (&self.tried);
  util_latch_wait (&self.entered);
  if (another_waits)
    g_assert_true (bg_loop_post (self.loops[4], wait_for_a_cb, &self, NULL));
  util_settle ();
  util_latch_count_down (&self.leaves);
  util_settle ();
  util_latch_count_down (&self.goes_on);
  graph_end (&self);
  assert_told (&self.told[0]);
  assert_told (&self.told[1]);
}

static void
test_asked_within (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    run_asked_within (i % 2);
}

/* a and b are to be told of each other's end, and are owed a reply each. */

static gboolean
a_asks_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 1, &self->told[0]);
  ask (self, 2, &self->told[1]);
  return TRUE;
}

static gboolean
b_asks_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[2]);
  ask (self, 3, &self->told[3]);
  return TRUE;
}

static void
wait_for_e_cb (gpointer user_data)
{
  Graph *self = user_data;

  g_assert_true (bg_loop_wait (self->loops[4], -1, NULL, NULL));
}

static void
test_ends_crosswise (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Graph self;

      graph_init (&self, 6);
      /* Somebody waits for some end, so that searches are made. */
      g_assert_true (bg_loop_post (self.loops[5], wait_for_e_cb, &self, NULL));
      run_on (&self, 0, a_asks_cb);
      run_on (&self, 1, b_asks_cb);
      util_settle ();
      for (guint j = 0; j < 2; j++)
        {
          bg_loop_quit (self.loops[j ^ (i & 1)], BG_SHUTDOWN_DRAIN);
          wait_until_stopping (self.loops[j ^ (i & 1)]);
        }
      util_latch_count_down (&self.goes_on);
      graph_end (&self);
      assert_told (&self.told[1]);
      assert_told (&self.told[3]);
      for (guint j = 0; j < 4; j += 2)
        assert_told_anything (&self.told[j]);
    }
}

/* b asks c, which waits for a, which is to be told of b's end, as b is of a's: so a waits
 * for nobody, whichever comes first, and c's wait is none that has to be given up. */

static gboolean
tell_a_of_b_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 1, &self->told[0]);
  return TRUE;
}

static gboolean
wait_in_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;
  gboolean ended;

  util_latch_count_down (&self->entered);
  ended = bg_loop_wait (self->loops[0], -1, NULL, &self->error);
  g_assert_true (ended == (self->error == NULL));
  util_latch_count_down (&self->tried);
  return TRUE;
}

static gboolean
b_asks_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[1]);
  bg_loop_call_async (self->loops[2], 0, -1, wait_in_c_cb, self, NULL, NULL, told_answer_cb,
                      &self->told[2]);
  return TRUE;
}

static void
test_not_given_up (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Graph self;

      graph_init (&self, 3);
      run_on (&self, 0, tell_a_of_b_cb);
      bg_loop_quit (self.loops[0], BG_SHUTDOWN_DRAIN);
      util_settle ();
      run_on (&self, 1, b_asks_c_cb);
      util_latch_wait (&self.entered);
      util_settle ();
      bg_loop_quit (self.loops[1], BG_SHUTDOWN_DRAIN);
      util_latch_wait (&self.tried);
      g_assert_no_error (self.error);
      graph_end (&self);
      assert_told (&self.told[2]);
      assert_told_anything (&self.told[0]);
      assert_told_anything (&self.told[1]);
    }
}

/* b waits for c's answer, which needs nobody, and for c's end, which needs a's answer: so a
 * cannot wait for b's end. The search comes to c twice, the second time for more. */

static void
end_b_cb (gpointer user_data)
{
  Graph *self = user_data;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->leaves);
  g_assert_false (bg_loop_shutdown (self->loops[1], &self->error));
  util_latch_count_down (&self->tried);
}

static gboolean
c_asks_a_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask (self, 0, &self->told[0]);
  return TRUE;
}

static gboolean
b_asks_c_twice_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask (self, 2, &self->told[1]);
  ask_for_end (self, 2, &self->told[2]);
  return TRUE;
}

/* What is queued on c comes when c drains already: the source goes on for so long. */
static void
drain_c_to (Graph *self, UtilBlock *first, UtilBlock *second)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, util_block_source_cb, first, NULL);
  g_assert_true (bg_loop_attach (self->loops[2], source));
  util_latch_wait (&first->entered);
  g_assert_true (bg_loop_post (self->loops[2], util_block_cb, second, NULL));
  run_on (self, 1, b_asks_c_twice_cb);
  bg_loop_quit (self->loops[2], BG_SHUTDOWN_DRAIN);
  util_unblock (first);
  util_latch_wait (&second->entered);
}

static void
test_asked_twice (void)
{
  UtilBlock blocks[2];
  Graph self;

  graph_init (&self, 3);
  for (guint i = 0; i < 2; i++)
    util_block_init (&blocks[i]);
  g_assert_true (bg_loop_post (self.loops[0], end_b_cb, &self, NULL));
  util_latch_wait (&self.entered);
  run_on (&self, 2, c_asks_a_cb);
  drain_c_to (&self, &blocks[0], &blocks[1]);

  util_latch_count_down (&self.leaves);
  util_latch_wait (&self.tried);
  g_assert_error (self.error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_true (g_str_has_suffix (self.error->message, "\"b\", which waits for the end of \"c\", "
                                                        "which waits for a reply of \"a\""));

  util_unblock (&blocks[1]);
  util_latch_count_down (&self.goes_on);
  graph_end (&self);
  assert_told (&self.told[0]);
  assert_told (&self.told[1]);
  assert_told (&self.told[2]);
  for (guint i = 0; i < 2; i++)
    util_block_clear (&blocks[i]);
}

/* A loop that drains already looks again whether it still waits when the last of several
 * asks to be told of the next one's end. */

static gboolean
tell_b_of_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 2, &self->told[1]);
  return TRUE;
}

static gboolean
tell_c_of_a_last_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[2]);
  return TRUE;
}

static void
test_asked_while_it_drains (void)
{
  BgCallFunc funcs[] = { tell_a_of_b_cb, tell_b_of_c_cb, tell_c_of_a_last_cb };

  for (guint i = 0; i < util_scale (100); i++)
    {
      guint last = i % 3;
      guint drains = i / 3 % 3;
      Graph self;

      graph_init (&self, 3);
      for (guint j = 1; j < 3; j++)
        run_on (&self, (last + j) % 3, funcs[(last + j) % 3]);
      /* It has waited if it is not the last one, of which nobody is to tell it. */
      if (drains != last)
        assert_waits (self.loops[drains]);
      run_on (&self, last, funcs[last]);
      g_assert_true (bg_loop_shutdown (self.loops[drains], NULL));
      graph_end (&self);
      for (guint j = 0; j < 3; j++)
        assert_told_anything (&self.told[j]);
    }
}

/* a, b, e and f are a ring of those that are to be told of the next one's end, for which they
 * do not wait. a is owed a reply by d, and b one by c, which waits for a, and lets d go on
 * afterwards. When e is not to be told of f's end any more there is no ring, and so a circle:
 * a waits for b's end, b for c's reply, c for a. */

static gboolean
a_asks_b_and_d_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 1, &self->told[0]);
  ask (self, 3, &self->told[1]);
  return TRUE;
}

static gboolean
e_asks_f_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  bg_loop_wait_async (self->loops[5], -1, self->cancellable, told_end_cb, &self->told[4]);
  return TRUE;
}

static gboolean
f_asks_a_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[5]);
  return TRUE;
}

static gboolean
wait_for_a_and_let_go_on_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  wait_in_c_cb (self, NULL);
  util_latch_count_down (&self->goes_on);
  return TRUE;
}

static gboolean
b_asks_e_and_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 4, &self->told[2]);
  bg_loop_call_async (self->loops[2], 0, -1, wait_for_a_and_let_go_on_cb, self, NULL, NULL,
                      told_answer_cb, &self->told[3]);
  return TRUE;
}

typedef enum
{
  OPENS_BY_DRAIN,
  OPENS_BY_CANCEL,
  OPENS_BY_GIVING_UP,
  N_OPENINGS,
} Opening;

static void
open_ring (Graph *self, Opening opening)
{
  switch (opening)
    {
    case OPENS_BY_DRAIN:
      bg_loop_quit (self->loops[4], BG_SHUTDOWN_DRAIN);
      break;
    case OPENS_BY_CANCEL:
      bg_loop_quit (self->loops[4], BG_SHUTDOWN_CANCEL);
      break;
    default:
      g_cancellable_cancel (self->cancellable);
      break;
    }
}

static void
test_ring_opens (void)
{
  for (guint i = 0; i < util_scale (60); i++)
    {
      Graph self;

      graph_init (&self, 6);
      run_on (&self, 4, e_asks_f_cb);
      run_on (&self, 5, f_asks_a_cb);
      run_on (&self, 0, a_asks_b_and_d_cb);
      run_on (&self, 1, b_asks_e_and_c_cb);
      util_latch_wait (&self.entered);
      for (guint j = 0; j < 2; j++)
        assert_waits (self.loops[j ^ (i & 1)]);
      g_assert_false (util_latch_is_open (&self.tried));
      open_ring (&self, i % N_OPENINGS);
      util_latch_wait (&self.tried);
      g_assert_error (self.error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      graph_end (&self);
      assert_told (&self.told[0]);
      assert_told (&self.told[1]);
      assert_told (&self.told[3]);
      assert_told_anything (&self.told[2]);
      if (i % N_OPENINGS == OPENS_BY_GIVING_UP)
        g_assert_error (self.told[4].error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      else
        assert_told_anything (&self.told[4]);
      g_clear_error (&self.told[4].error);
      assert_told_anything (&self.told[5]);
    }
}

/* Who is in a ring waits for the ends of others all the same. */

static gboolean
a_asks_b_and_e_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 1, &self->told[0]);
  ask_for_end (self, 4, &self->told[1]);
  return TRUE;
}

static gboolean
b_asks_a_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[2]);
  return TRUE;
}

static void
wait_to_go_on_cb (gpointer user_data)
{
  wait_for_latch_cb (&((Graph *) user_data)->goes_on, NULL);
}

static void
test_told_of_others (void)
{
  for (guint i = 0; i < util_scale (60); i++)
    {
      Graph self;

      graph_init (&self, 5);
      run_on (&self, 1, b_asks_a_cb);
      run_on (&self, 0, a_asks_b_and_e_cb);
      g_assert_true (bg_loop_post (self.loops[4], wait_to_go_on_cb, &self, NULL));
      assert_waits (self.loops[4]);
      assert_waits (self.loops[0]);
      g_assert_true (bg_loop_shutdown (self.loops[1], NULL));
      assert_waits (self.loops[0]);
      util_latch_count_down (&self.goes_on);
      graph_end (&self);
      assert_told (&self.told[0]);
      assert_told (&self.told[1]);
      assert_told_anything (&self.told[2]);
    }
}

/* No circle: a and b, which are only to be told of each other's end, do not wait for that,
 * so c, which owes b a reply, may wait for a's end, */

static gboolean
end_a_in_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  util_latch_wait (&self->entered);
  g_assert_true (bg_loop_shutdown (self->loops[0], &self->error) == (self->error == NULL));
  return TRUE;
}

static gboolean
b_asks_c_for_a_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[1]);
  bg_loop_call_async (self->loops[2], 0, -1, end_a_in_c_cb, self, NULL, NULL, told_answer_cb,
                      &self->told[2]);
  return TRUE;
}

static void
test_no_circle_ends (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Graph self;

      graph_init (&self, 3);
      run_on (&self, 0, tell_a_of_b_cb);
      run_on (&self, 1, b_asks_c_for_a_cb);
      assert_waits (self.loops[1]);
      util_latch_count_down (&self.entered);
      graph_end (&self);
      g_assert_no_error (self.error);
      assert_told (&self.told[2]);
      assert_told_anything (&self.told[0]);
      assert_told_anything (&self.told[1]);
    }
}

/* and a, which is to be told of b's end, is told, though c, which owes b a reply, is to be
 * told of a's. */

static gboolean
b_asks_only_c_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask (self, 2, &self->told[2]);
  return TRUE;
}

static gboolean
tell_c_of_a_cb (gpointer user_data, GError **error)
{
  Graph *self = user_data;

  ask_for_end (self, 0, &self->told[1]);
  return TRUE;
}

static void
test_no_circle_answer (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      Graph self;

      graph_init (&self, 3);
      run_on (&self, 2, tell_c_of_a_cb);
      run_on (&self, 1, b_asks_only_c_cb);
      run_on (&self, 0, tell_a_of_b_cb);
      bg_loop_quit (self.loops[1], BG_SHUTDOWN_DRAIN);
      bg_loop_quit (self.loops[0], BG_SHUTDOWN_DRAIN);
      util_settle ();
      util_latch_count_down (&self.goes_on);
      graph_end (&self);
      for (guint j = 0; j < 3; j++)
        assert_told (&self.told[j]);
    }
}

/* At random: whatever is refused, no loop hangs, and each callback is called. */

#define N_RANDOM 5

typedef struct
{
  BgLoop *loops[N_RANDOM];
  int n_owed;  /* atomic: callbacks that have not been called */
  int n_drawn; /* atomic */
  guint32 seed;
} Random;

typedef struct
{
  Random *random;
  guint depth; /* how far what is run may run more */
} Step;

static void steps_run (Random *random, guint depth);

static Step *
step_new (Random *random, guint depth)
{
  Step *self = g_new (Step, 1);

  *self = (Step){ random, depth };
  return self;
}

static gboolean
step_called_cb (gpointer user_data, GError **error)
{
  Step *self = user_data;

  steps_run (self->random, self->depth);
  return TRUE;
}

static void
step_posted_cb (gpointer user_data)
{
  step_called_cb (user_data, NULL);
}

static void
step_replied (Step *self)
{
  Random *random = self->random;

  steps_run (random, self->depth);
  g_free (self);
  g_atomic_int_add (&random->n_owed, -1);
}

static void
step_answer_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_loop_call_finish (BG_LOOP (source), result, NULL);
  step_replied (user_data);
}

static void
step_told_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_loop_wait_finish (BG_LOOP (source), result, NULL);
  step_replied (user_data);
}

static void
step_ended_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  bg_loop_shutdown_finish (BG_LOOP (source), result, NULL);
  step_replied (user_data);
}

static Step *
step_owed (Random *random, guint depth)
{
  g_atomic_int_inc (&random->n_owed);
  return step_new (random, depth);
}

static void
step_run (Random *random, GRand *rand, guint depth)
{
  BgLoop *loop = random->loops[g_rand_int_range (rand, 0, N_RANDOM)];
  int timeout_msec = g_rand_int_range (rand, 0, 6) == 0 ? g_rand_int_range (rand, 0, 3) : -1;

  switch (g_rand_int_range (rand, 0, 10))
    {
    case 0:
      bg_loop_call_full (loop, 0, -1, step_called_cb, &(Step){ random, depth }, NULL, NULL);
      break;
    case 1:
    case 2:
    case 3:
      bg_loop_call_async (loop, 0, -1, step_called_cb, step_new (random, depth), g_free, NULL,
                          step_answer_cb, step_owed (random, depth));
      break;
    case 4:
      bg_loop_wait_async (loop, timeout_msec, NULL, step_told_cb, step_owed (random, depth));
      break;
    case 5:
      bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, timeout_msec, NULL, step_ended_cb,
                              step_owed (random, depth));
      break;
    case 6:
      bg_loop_shutdown_full (loop, BG_SHUTDOWN_DRAIN, timeout_msec, NULL, NULL);
      break;
    case 7:
      bg_loop_wait (loop, timeout_msec, NULL, NULL);
      break;
    case 8:
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      break;
    default:
      bg_loop_post (loop, step_posted_cb, step_new (random, depth), g_free);
      break;
    }
}

static void
steps_run (Random *random, guint depth)
{
  GRand *rand;

  if (depth == 0)
    return;

  rand = g_rand_new_with_seed (random->seed + g_atomic_int_add (&random->n_drawn, 1));
  for (int n = g_rand_int_range (rand, 1, 3); n > 0; n--)
    step_run (random, rand, depth - 1);
  g_rand_free (rand);
}

static void
test_random (void)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      static const char *names[N_RANDOM] = { "a", "b", "c", "d", "e" };
      Random random = { .seed = g_test_rand_int () };

      for (guint j = 0; j < N_RANDOM; j++)
        random.loops[j] = util_loop_new (names[j]);
      for (guint j = 0; j < 8; j++)
        bg_loop_post (random.loops[g_test_rand_int_range (0, N_RANDOM)], step_posted_cb,
                      step_new (&random, 3), g_free);
      util_settle ();
      for (guint j = 0; j < N_RANDOM; j++)
        bg_loop_quit (random.loops[j], BG_SHUTDOWN_DRAIN);
      for (guint j = 0; j < N_RANDOM; j++)
        g_assert_true (bg_loop_shutdown (random.loops[j], NULL));
      g_assert_cmpint (g_atomic_int_get (&random.n_owed), ==, 0);
      for (guint j = 0; j < N_RANDOM; j++)
        g_object_unref (random.loops[j]);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/owed-graph/circle/asked-within-a-callback", test_asked_within);
  util_add_trapped ("/owed-graph/circle/asked-twice", test_asked_twice);
  util_add_trapped ("/owed-graph/circle/ring-opens", test_ring_opens);
  util_add_trapped ("/owed-graph/no-circle/told-of-others-than-the-ring", test_told_of_others);
  util_add_trapped ("/owed-graph/no-circle/ends-crosswise", test_ends_crosswise);
  util_add_trapped ("/owed-graph/no-circle/asked-while-it-drains", test_asked_while_it_drains);
  util_add_trapped ("/owed-graph/no-circle/not-given-up", test_not_given_up);
  util_add_trapped ("/owed-graph/no-circle/told-of-each-other", test_no_circle_ends);
  util_add_trapped ("/owed-graph/no-circle/told-after-an-answer", test_no_circle_answer);
  util_add_trapped ("/owed-graph/random", test_random);

  return g_test_run ();
}
