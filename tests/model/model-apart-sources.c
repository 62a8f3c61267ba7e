/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-apart.h"
#include "model-world.h"
#include "util-meddler.h"

/* Sources on a loop that nobody else uses. */

/* Each that is destroyed at the end attaches another one to the context: the end bounds that. */

#define MAX_ENDLESS 20000

/* It takes the library ten thousand rounds to give up. */
static gboolean
is_slow (void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
  return TRUE;
#else
  return g_getenv ("BGLOOP_TEST_VALGRIND") != NULL;
#endif
}

/* Counted: the last source may go with the context, which may outlive the loop. */
typedef struct
{
  GMainContext *context; /* (unowned) */
  _Atomic int over;      /* the loop has ended */
  guint n;
} Endless;

static void
attach_endlessly_cb (gpointer data)
{
  Endless *self = data;

  if (!model_load (&self->over) && self->n == MAX_ENDLESS)
    model_fail ("what is destroyed at the end of a loop attaches something again for ever");
  else if (!model_load (&self->over))
    {
      g_autoptr (GSource) source
          = ++self->n % 2 ? g_idle_source_new () : g_timeout_source_new (G_MAXINT);

      g_source_set_callback (source, util_continue_cb, g_atomic_rc_box_acquire (self),
                             attach_endlessly_cb);
      g_source_attach (source, self->context);
    }
  g_atomic_rc_box_release (self);
}

void
model_apart_endless (const ModelOp *op)
{
  GSource *source;
  Endless *self;
  BgLoop *loop;

  if (is_slow ())
    return;
  loop = util_loop_new ("endless");
  self = g_atomic_rc_box_new0 (Endless);
  source = g_idle_source_new ();
  self->context = bg_loop_get_context (loop);
  g_source_set_priority (source, op->priority);
  g_source_set_callback (source, util_continue_cb, g_atomic_rc_box_acquire (self),
                         attach_endlessly_cb);
  g_assert_true (bg_loop_attach (loop, source));
  g_source_unref (source);
  util_loop_shut_down (loop);
  model_store (&self->over, TRUE);
  g_atomic_rc_box_release (self);
  g_object_unref (loop);
}

/* A source that was destroyed, and that nobody has, goes as soon as the loop has a moment. */

typedef struct
{
  GSource source;
  UtilLatch *finalized;
} Watched;

static gboolean
watched_dispatch (GSource *source, GSourceFunc callback, gpointer data)
{
  return callback (data);
}

static void
watched_finalize (GSource *source)
{
  util_latch_count_down (((Watched *) source)->finalized);
}

static GSourceFuncs watched_funcs = { .dispatch = watched_dispatch, .finalize = watched_finalize };

static gboolean
destroy_current_cb (gpointer data)
{
  g_source_destroy (g_main_current_source ());
  return G_SOURCE_CONTINUE;
}

static void
destroy_cb (gpointer data)
{
  g_source_destroy (data);
}

enum
{
  BY_ITSELF,
  BY_ITS_FUNCTION,
  HERE,
  ON_THE_LOOP,
  N_WAYS,
};

static GSource *
attach_watched (BgLoop *loop, UtilLatch *finalized, guint way)
{
  static const GSourceFunc funcs[N_WAYS]
      = { util_remove_cb, destroy_current_cb, util_continue_cb, util_continue_cb };
  GSource *source = g_source_new (&watched_funcs, sizeof (Watched));

  ((Watched *) source)->finalized = finalized;
  g_source_set_callback (source, funcs[way], NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  return source;
}

static void
let_go (BgLoop *loop, GSource *source, guint way)
{
  if (way == ON_THE_LOOP)
    {
      g_assert_true (bg_loop_post (loop, destroy_cb, source, (GDestroyNotify) g_source_unref));
      return;
    }

  if (way == HERE)
    g_source_destroy (source);
  else
    g_source_set_ready_time (source, 0);
  g_source_unref (source);
}

/* The flush is a moment that the loop has: whoever destroys a source elsewhere does not wake it. */
void
model_apart_let_go (const ModelOp *op)
{
  BgLoop *loop = util_loop_new ("let go");
  guint n = 1 + op->amount;
  GSource *sources[4];
  UtilLatch finalized;

  g_assert_cmpuint (n, <=, G_N_ELEMENTS (sources));
  util_latch_init (&finalized, n);
  for (guint i = 0; i < n; i++)
    sources[i] = attach_watched (loop, &finalized, (op->variant + i) % N_WAYS);
  for (guint i = 0; i < n; i++)
    let_go (loop, sources[i], (op->variant + i) % N_WAYS);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_latch_wait (&finalized);
  util_loop_end (loop);
  util_latch_clear (&finalized);
}

/* Whatever a source does while its context decides to sleep, in whichever of its functions and also
 * in a nested iteration: what another thread gives to the loop then runs at once. */

#define LOW_PRIORITY 300

#define N_MEDDLINGS   6
#define MEDDLING_STEP 10501

typedef struct
{
  guint what; /* the source does */
  BgLoop *loop;
  UtilMeddler meddler;
  guint64 work; /* that is never due */
  UtilLatch ran;
} Meddling;

static void
do_something (gpointer data)
{
  Meddling *self = data;

  switch (self->what % 7)
    {
    case 0:
      g_assert_true (bg_loop_post (self->loop, util_nothing_cb, NULL, NULL));
      break;
    case 1:
      g_assert_true (bg_loop_post_full (self->loop, -LOW_PRIORITY, util_nothing_cb, NULL, NULL));
      break;
    case 2:
      g_assert_true (bg_loop_post_full (self->loop, LOW_PRIORITY, util_nothing_cb, NULL, NULL));
      break;
    case 3:
      bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, NULL, NULL);
      break;
    case 4:
      g_assert_cmpuint (bg_loop_post_after (self->loop, 0, util_nothing_cb, NULL, NULL), !=, 0);
      break;
    case 5:
      g_assert_true (bg_loop_withdraw (self->loop, self->work));
      break;
    default:
      g_assert_true (bg_loop_invoke (self->loop, util_remove_cb, NULL));
    }
}

static void
ran_cb (gpointer data)
{
  Meddling *self = data;

  util_meddler_quit (&self->meddler);
  util_latch_count_down (&self->ran);
}

static gboolean
ran_call_cb (gpointer data, GError **error)
{
  ran_cb (data);
  return TRUE;
}

static gboolean
ran_source_cb (gpointer data)
{
  ran_cb (data);
  return G_SOURCE_REMOVE;
}

static void
give_next (Meddling *self, guint next)
{
  switch (next % 5)
    {
    case 0:
      g_assert_true (bg_loop_post (self->loop, ran_cb, self, NULL));
      break;
    case 1:
      g_assert_true (bg_loop_post_full (self->loop, LOW_PRIORITY, ran_cb, self, NULL));
      break;
    case 2:
      g_assert_true (bg_loop_call (self->loop, ran_call_cb, self, NULL, NULL));
      break;
    case 3:
      g_assert_cmpuint (bg_loop_post_after (self->loop, 0, ran_cb, self, NULL), !=, 0);
      break;
    default:
      g_assert_true (bg_loop_invoke (self->loop, ran_source_cb, self));
    }
}

static void
run_meddling (guint variant, guint number)
{
  static const int priorities[] = { LOW_PRIORITY, 0, -LOW_PRIORITY };
  static const UtilMoment moments[]
      = { UTIL_IN_PREPARE, UTIL_IN_PREPARE, UTIL_IN_CHECK, UTIL_IN_DISPATCH };
  Meddling self = { .what = variant, .loop = util_loop_new ("meddle") };

  self.meddler = (UtilMeddler){ self.loop, moments[variant / 8 % G_N_ELEMENTS (moments)],
                                number % (UTIL_MAX_DEPTH + 1), do_something, &self };
  self.work = bg_loop_post_after (self.loop, G_MAXINT, util_not_reached_cb, NULL, util_nothing_cb);
  util_latch_init (&self.ran, 1);
  util_meddler_run (&self.meddler, priorities[variant / 32 % G_N_ELEMENTS (priorities)]);
  give_next (&self, variant / 128);
  util_latch_wait (&self.ran);
  util_loop_end (self.loop);
  util_meddler_clear (&self.meddler);
  util_latch_clear (&self.ran);
}

/* Each does something else, at another time, and so does what comes next. */
void
model_apart_meddle (const ModelOp *op)
{
  for (guint i = 0; i < N_MEDDLINGS; i++)
    run_meddling (op->variant + i * MEDDLING_STEP, op->amount + i);
}
