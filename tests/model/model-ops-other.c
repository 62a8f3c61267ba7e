/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include <bgloop/bg-test.h>

#include "model-world.h"

/* What is done around loops: looking, cancelling, iterating, standing still. */

/* How far the sum may be off while work runs within work. */
#define MAX_RUNNING  1000
#define HANDLER_USEC 300 /* that a handler may take */
#define PUSHED       4   /* one iteration in so many is within another thread-default context */

/* Nothing in a scenario blocks a loop for that long. */
#define A_MINUTE_MSEC 60000

static void
check_stats (ModelLife *life, BgLoop *loop)
{
  gboolean over = model_load (&life->ended) != 0;
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (loop);
  g_autoptr (BgLoopStats) copy = bg_loop_stats_copy (stats);
  guint64 known = stats->run + stats->cancelled + stats->queued;

  if (memcmp (stats, copy, sizeof *stats) != 0)
    model_fail ("%s: a copy of the statistics differs", life->actor.name);
  if (known > stats->posted || stats->posted > known + MAX_RUNNING)
    model_fail ("%s: %" G_GUINT64_FORMAT " posted, but %" G_GUINT64_FORMAT
                " run, %" G_GUINT64_FORMAT " cancelled and %" G_GUINT64_FORMAT " queued",
                life->actor.name, stats->posted, stats->run, stats->cancelled, stats->queued);
  if (stats->queued_max < stats->queued)
    model_fail ("%s: at most %" G_GUINT64_FORMAT " have been queued, and %" G_GUINT64_FORMAT " are",
                life->actor.name, stats->queued_max, stats->queued);
  if (stats->busy_usec < stats->longest_usec)
    model_fail ("%s: the longest batch was longer than all of them", life->actor.name);
  if (over && (known != stats->posted || stats->queued != 0 || stats->holds != 0)
      && !model_load (&life->exited))
    model_fail ("%s has ended, with %" G_GUINT64_FORMAT " posted, %" G_GUINT64_FORMAT
                " run, %" G_GUINT64_FORMAT " cancelled, %" G_GUINT64_FORMAT
                " queued and %" G_GUINT64_FORMAT " holds",
                life->actor.name, stats->posted, stats->run, stats->cancelled, stats->queued,
                stats->holds);
}

static void
do_look (ModelLife *life, BgLoop *loop)
{
  ModelActor *me = model_actor_self ();
  gboolean own = me == &life->actor;
  gboolean stopped = model_load (&life->stop_done) != 0;
  gboolean running = bg_loop_get_state (loop) == BG_LOOP_RUNNING;
  gboolean cancelled = g_cancellable_is_cancelled (bg_loop_get_cancellable (loop));
  g_autoptr (BgLoop) current = bg_loop_dup_current ();
  g_autofree char *text = bg_loop_describe (loop);

  if (bg_loop_get_context (loop) != life->context || bg_loop_get_name (loop)[0] == '\0')
    model_fail ("%s has another context or no name", life->actor.name);
  if (bg_loop_is_current (loop) != own)
    model_fail ("%s: is_current is wrong in %s", life->actor.name, me ? me->name : "a thread");
  /* What was taken as its last reference went does not know itself. */
  if ((own ? current != loop : current == loop)
      && !(own && current == NULL && life->slot == MODEL_DEFAULT))
    model_fail ("%s: dup_current is wrong in %s", life->actor.name, me ? me->name : "a thread");
  if (me != NULL && me->life == NULL && current != NULL)
    model_fail ("%s has a current loop", me->name);
  if (cancelled && model_load (&life->cancel_begin) == 0)
    model_fail ("nobody has cancelled %s, and its cancellable is", life->actor.name);
  if (stopped && running)
    model_fail ("%s is to stop and RUNNING", life->actor.name);
  if (model_load (&life->stop_begin) == 0 && !running)
    model_fail ("%s is not RUNNING", life->actor.name);
  if (bg_test_get_timeout () != MODEL_TEST_MSEC)
    model_fail ("the test kit has another limit than it was given");
  if (text == NULL || text[0] == '\0')
    model_fail ("%s is not described", life->actor.name);
  check_stats (life, loop);
}

/* Cancellables */

static void
do_cancel (const ModelOp *op)
{
  g_autoptr (GCancellable) cancellable = NULL;
  GCancellable *fresh = g_cancellable_new ();

  model_watch_object (fresh, MODEL_OBJECT_CANCELLABLE);
  g_mutex_lock (&model_world->lock);
  cancellable = model_world->cancellables[op->thing];
  model_world->cancellables[op->thing] = fresh;
  g_mutex_unlock (&model_world->lock);
  g_cancellable_cancel (cancellable);
}

static void
handler_cb (GCancellable *cancellable, gpointer data)
{
  ModelPiece *piece = data;
  ModelActor *me = model_actor_self ();
  ModelEdge *handling = NULL;
  gboolean of_loop = piece->op->kind == MODEL_CONNECT && piece->op->variant % 2;

  /* The end of a loop waits for those of its cancellable. */
  if (of_loop && me != NULL && me != &piece->life->actor)
    handling = model_graph_add (&piece->life->actor, me);
  model_piece_run_begin (piece);
  if (!g_cancellable_is_cancelled (cancellable))
    model_fail ("a handler of a cancellable runs that is not cancelled");
  model_do_program (piece->op->body);
  if (piece->op->amount == 0)
    g_usleep (HANDLER_USEC); /* this is the load: a handler that takes its time, asleep */
  model_piece_run_end (piece);
  if (of_loop && model_load (&piece->life->ended) != 0 && !model_load (&piece->life->exited))
    model_fail ("%s, a handler of the loop's cancellable, has not returned before the end",
                model_piece_name (piece));
  if (handling != NULL)
    model_graph_remove (handling);
}

static void
handler_destroy_cb (gpointer data, GClosure *closure)
{
  ModelPiece *piece = data;

  model_increment (&piece->n_destroyed);
}

void
model_connect (const ModelOp *op, GCancellable *cancellable, ModelLife *life)
{
  ModelPiece *piece;

  if (cancellable == NULL || g_cancellable_is_cancelled (cancellable))
    return;
  piece = model_piece_new (op, life);
  if (piece == NULL)
    return;
  piece->is_handler = TRUE;
  g_clear_object (&piece->cancellable);
  g_signal_connect_data (cancellable, "cancelled", G_CALLBACK (handler_cb), piece,
                         handler_destroy_cb, 0);
}

static void
do_connect (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  g_autoptr (GCancellable) cancellable = NULL;

  if (op->variant % 2)
    cancellable = g_object_ref (bg_loop_get_cancellable (loop));
  else
    cancellable = model_take_cancellable ((int) op->thing);
  model_connect (op, cancellable, life);
}

/* Iterating */

static void
do_nest (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();
  g_autoptr (GMainContext) pushed = op->variant % PUSHED == 0 ? g_main_context_new () : NULL;

  if (me == NULL || me->life == NULL || !g_main_context_is_owner (me->life->context))
    return;
  if (pushed != NULL)
    g_main_context_push_thread_default (pushed);
  me->n_pushed += pushed != NULL;
  for (guint i = 0; i <= op->amount; i++)
    g_main_context_iteration (me->life->context, FALSE);
  me->n_pushed -= pushed != NULL;
  if (pushed != NULL)
    g_main_context_pop_thread_default (pushed);
}

static gboolean
quit_cb (gpointer data)
{
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

static void
do_nest_loop (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();
  g_autoptr (GMainLoop) loop = NULL;
  GSource *source;

  if (me == NULL || me->life == NULL || !g_main_context_is_owner (me->life->context))
    return;
  loop = g_main_loop_new (me->life->context, FALSE);
  source = op->amount == 0 ? g_idle_source_new () : g_timeout_source_new (op->amount - 1);
  g_source_set_priority (source, G_MININT); /* another may always be ready */
  g_source_set_callback (source, quit_cb, loop, NULL);
  g_source_attach (source, me->life->context);
  g_main_loop_run (loop);
  g_source_destroy (source);
  g_source_unref (source);
}

static void
do_iterate (const ModelOp *op)
{
  ModelActor *me = model_actor_self ();
  GMainContext *context = me != NULL ? model_load (&me->context) : NULL;

  for (guint i = 0; context != NULL && i <= op->amount; i++)
    g_main_context_iteration (context, FALSE);
}

static void
do_stall (const ModelOp *op)
{
  gint64 end = g_get_monotonic_time () + op->amount * 300;

  /* This is the load: what runs on a loop keeps it busy, asleep or awake. */
  if (op->variant % 4 == 0)
    g_usleep (op->amount * 1000);
  while (g_get_monotonic_time () < end && !model_is_closing ())
    g_thread_yield ();
}

/* Thread-local destructors */

static void
check_in_destructor (ModelLife *life)
{
  BgLoop *loop = model_life_take (life);
  g_autoptr (GError) error = NULL;

  if (loop == NULL)
    return;
  if (!bg_loop_is_current (loop))
    model_fail ("%s is not current in a thread-local destructor", life->actor.name);
  if (bg_loop_get_state (loop) == BG_LOOP_STOPPED)
    model_fail ("%s is STOPPED in a thread-local destructor", life->actor.name);
  if (bg_loop_shutdown (loop, &error))
    model_fail ("%s can be shut down in a thread-local destructor", life->actor.name);
  model_life_give_back (life);
}

static GPrivate *get_local (const ModelOp *op);
static __thread guint destructor_round; /* in which a program runs; 0: in none */

/* Some do what they have to only in the next round. The third is the library's. */
static void
thread_local_cb (gpointer data)
{
  ModelPiece *piece = data;

  if (model_world->is_child)
    return;
  check_in_destructor (model_actor_self ()->life);
  if (++piece->n_repeats == 1 && piece->op->amount % 2)
    {
      g_private_set (get_local (piece->op), piece);
      return;
    }
  destructor_round = piece->n_repeats;
  model_piece_run_begin (piece);
  model_do_program (piece->op->body);
  model_piece_run_end (piece);
  destructor_round = 0;
}

static GPrivate first_local = G_PRIVATE_INIT (thread_local_cb);
static GPrivate second_local = G_PRIVATE_INIT (thread_local_cb);

static GPrivate *
get_local (const ModelOp *op)
{
  return op->variant % 2 ? &first_local : &second_local;
}

static void
do_thread_local (const ModelOp *op)
{
  GPrivate *local = get_local (op);
  ModelActor *me = model_actor_self ();
  ModelPiece *piece;

  if (me == NULL || me->life == NULL || g_private_get (local) != NULL || destructor_round == 2)
    return;
  piece = model_piece_new (op, me->life);
  if (piece == NULL)
    return;
  piece->n_repeats = destructor_round;
  g_private_set (local, piece);
}

/* Standing still for a test */

static void
do_pause (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelActor *me = model_actor_self ();
  ModelPiece *piece = model_piece_new (op, life);
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;
  gboolean ok;

  if (piece == NULL || model_is_closing ())
    return;
  model_store (&life->was_paused, TRUE);
  /* A pending reply refers to the loop as well: with that alone nobody could resume it. */
  if (!atomic_exchange_explicit (&life->paused, TRUE, MODEL_ORDER))
    {
      model_life_take (life);
      model_store (&life->pause_ref, TRUE);
    }
  if (me != NULL)
    edge = model_graph_add (me, &life->actor);
  if (op->kind == MODEL_PAUSE)
    ok = bg_test_pause (loop, &error);
  else if (op->variant % 4)
    ok = bg_test_step (loop, &error) >= 0;
  else
    ok = bg_test_run_until_idle (loop, &error) >= 0;
  if (edge != NULL)
    model_graph_remove (edge);
  if (ok != (error == NULL))
    model_fail ("%s: %d with%s an error", model_piece_name (piece), ok, error ? "" : "out");
  model_piece_check_error (piece, error);
}

static void
do_misuse (ModelLife *life, BgLoop *loop)
{
  model_increment (&model_world->n_expected_criticals);
  bg_loop_release (loop, G_MAXUINT64 - 1);
}

/* Ends the loop's thread under it. Only where no other program is in the midst of something on this
 * thread: what that has would leak. */
static void
do_exit (void)
{
  ModelActor *me = model_actor_self ();

  if (me == NULL || me->life == NULL || !model_program_is_outermost ()
      || !g_main_context_is_owner (me->life->context))
    return;

  model_store (&me->life->exited, TRUE);
  model_store (&model_world->forgiving, TRUE);
  model_life_note_stop (me->life, TRUE);
  model_increment (&model_world->n_expected_criticals);
  g_thread_exit (NULL);
}

void
model_do_other (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_LOOK:
      do_look (life, loop);
      break;
    case MODEL_CANCEL:
      do_cancel (op);
      break;
    case MODEL_CONNECT:
      do_connect (op, life, loop);
      break;
    case MODEL_NEST:
      do_nest (op);
      break;
    case MODEL_NEST_LOOP:
      do_nest_loop (op);
      break;
    case MODEL_ITERATE:
      do_iterate (op);
      break;
    case MODEL_STALL:
      do_stall (op);
      break;
    case MODEL_LINGER:
      if (g_getenv ("BGLOOP_TEST_LINGER") == NULL)
        g_object_set (loop, "linger", op->amount * 333, "stall-threshold",
                      op->amount % 2 == 0 ? A_MINUTE_MSEC : 0, NULL);
      break;
    case MODEL_THREAD_LOCAL:
      do_thread_local (op);
      break;
    case MODEL_FORK:
      model_fork (op, loop);
      break;
    case MODEL_PAUSE:
    case MODEL_STEP:
      do_pause (op, life, loop);
      break;
    case MODEL_RESUME:
      bg_test_resume (loop);
      break;
    case MODEL_EXIT:
      do_exit ();
      break;
    default:
      do_misuse (life, loop);
    }
}
