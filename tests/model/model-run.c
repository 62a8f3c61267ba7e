/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bgloop/bg-test.h>

#include "model-apart.h"
#include "model-world.h"

/* Runs a scenario: starts its loops and threads, sees to it that whatever may end does end, ends
 * the loops and has everything checked.
 *
 * The thread that does so, the janitor, waits for nobody. A scenario may well wait for ever for a
 * hold that nobody releases; so when nothing has happened for a while, the closing begins: from
 * then on holds are released, operations answered, loops asked to end. After that every wait ends,
 * or the library has lost one. */

#define BUDGET           600
#define BURSTS           500
#define LOOK_USEC        200
#define LOOK_MSEC        5
#define FORGIVEN_USEC    (300 * G_TIME_SPAN_MILLISECOND)
#define STILL_LOOKS      12 /* without an event before the closing begins, or goes on */
#define CANCEL_STEP      3  /* of the closing: only now is everything cancelled */
#define MAX_PROGRAM_USEC (60 * G_TIME_SPAN_MILLISECOND) /* then the closing begins anyway */

/* A thread has done its program. */
static void
note_finished (void)
{
  g_mutex_lock (&model_world->lock);
  model_decrement (&model_world->unfinished);
  g_cond_signal (&model_world->finished_one);
  g_mutex_unlock (&model_world->lock);
}

/* Until one has, or it is time to look again. */
static void
await_finished (gint64 end)
{
  g_mutex_lock (&model_world->lock);
  if (model_load (&model_world->unfinished) > 0)
    g_cond_wait_until (&model_world->finished_one, &model_world->lock, end);
  g_mutex_unlock (&model_world->lock);
}

static gpointer
thread_cb (gpointer data)
{
  ModelActor *me = data;
  guint index = (guint) (me - model_world->threads);
  GMainContext *context = NULL;

  model_actor_set_self (me);
  if (me->kind != MODEL_CONTEXT_DEFAULT)
    {
      context = g_main_context_new ();
      g_main_context_push_thread_default (context);
      model_store (&me->context, context);
    }

  model_do_program (model_world->scenario->threads[index].program);

  while (me->kind == MODEL_CONTEXT_OWN && model_load (&me->owed) > 0)
    g_main_context_iteration (context, TRUE);
  if (context != NULL)
    {
      /* The janitor wakes it. */
      g_mutex_lock (&model_world->lock);
      model_store (&me->context, NULL);
      g_mutex_unlock (&model_world->lock);
      g_main_context_pop_thread_default (context);
      g_main_context_unref (context);
    }

  note_finished ();
  return NULL;
}

/* Ends all loops as drawn, and waits for that. */
static gpointer
closer_cb (gpointer data)
{
  ModelLife *life;

  model_actor_set_self (&model_world->closer);
  for (guint i = 0; (life = model_life_get (i)) != NULL; i++)
    {
      gboolean cancel
          = life->slot != MODEL_DEFAULT && model_world->scenario->cancel_at_end[life->slot];
      g_autoptr (GError) error = NULL;
      BgLoop *loop = model_life_take (life);
      ModelEdge *edge;
      gboolean ended;

      if (loop == NULL)
        continue;
      model_life_note_stop (life, cancel);
      edge = model_graph_add (&life->actor, &model_world->closer);
      ended = bg_loop_shutdown_full (loop, cancel ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN, -1,
                                     NULL, &error);
      model_graph_remove (edge);
      if (!ended)
        model_fail ("%s did not end: %s", life->actor.name, error->message);
      else
        model_life_note_ended (life);
      model_life_give_back (life);
    }

  note_finished ();
  return NULL;
}

/* The closing */

static void
wake (ModelActor *actor)
{
  GMainContext *context;

  g_mutex_lock (&model_world->lock);
  context = model_load (&actor->context);
  if (context != NULL)
    g_main_context_wakeup (context);
  g_mutex_unlock (&model_world->lock);
}

static void
close_life (ModelLife *life, guint step)
{
  BgLoop *loop = model_life_take (life);
  gboolean cancel = step >= CANCEL_STEP;

  if (loop == NULL)
    return;
  if (model_load (&life->paused))
    bg_test_resume (loop);
  if (step >= 1)
    {
      ModelEdge *edge = model_graph_add (&life->actor, model_actor_self ());

      model_life_note_stop (life, cancel);
      bg_loop_quit (loop, cancel ? BG_SHUTDOWN_CANCEL : BG_SHUTDOWN_DRAIN);
      model_life_note_stopped (life, cancel);
      model_graph_remove (edge);
    }
  model_life_give_back (life);
}

/* What may be in the way of somebody is taken out of it, more with each step. */
static void
close_step (guint step)
{
  ModelLife *life;

  model_store (&model_world->closing, TRUE);
  model_release_all ();
  model_answer_all ();
  for (guint i = 0; (life = model_life_get (i)) != NULL; i++)
    close_life (life, step);
  for (guint i = 0; i < model_world->scenario->n_threads; i++)
    wake (&model_world->threads[i]);
  g_main_context_wakeup (NULL);
}

/* Until the threads are done. The time in which one waits for a forked child does not count: each
 * child has a limit of its own, which it reaches where it waits for a lock of GLib's. */
static void
attend (gint64 limit)
{
  gint64 begin = g_get_monotonic_time (), looked = begin;
  ModelStamp last = 0;
  guint still = 0, step = 0;

  while (model_load (&model_world->unfinished) > 0)
    {
      gint64 now = g_get_monotonic_time ();
      ModelStamp stamp = model_stamp ();

      still = stamp == last + 1 ? still + 1 : 0;
      last = stamp;
      if (still >= STILL_LOOKS || now > begin + MAX_PROGRAM_USEC || model_is_closing ())
        {
          close_step (step);
          if (still >= STILL_LOOKS)
            {
              step++;
              still = 0;
            }
          last = model_stamp ();
        }
      if (model_load (&model_world->n_forked) > 0)
        limit += now - looked;
      looked = now;
      if (now > begin + limit)
        {
          model_hang_report ();
          _exit (3);
        }
      await_finished (now + LOOK_USEC);
    }
}

/* The process's own context is iterated by a thread that does what replies there do. */
static gpointer
server_cb (gpointer data)
{
  ModelActor *me = &model_world->server;

  model_actor_set_self (me);
  while (model_load (&me->owed) > 0 || !model_load (&model_world->finished))
    g_main_context_iteration (NULL, TRUE);
  note_finished ();
  return NULL;
}

static void
give_loops_back (ModelWorld *self)
{
  ModelLife *paused;

  for (guint i = 0; (paused = model_life_get (i)) != NULL; i++)
    if (atomic_exchange_explicit (&paused->pause_ref, FALSE, MODEL_ORDER))
      {
        bg_test_resume (paused->loop);
        model_life_give_back (paused);
      }
  for (guint i = 0; i < MODEL_MAX_LOOPS; i++)
    {
      ModelLife *life;

      g_mutex_lock (&self->lock);
      life = g_steal_pointer (&self->slots[i]);
      g_mutex_unlock (&self->lock);
      if (life != NULL)
        model_life_give_back (life);
    }
}

/* Of those that have ended, and of whose end nobody will be told. */
static void
give_ended_back (ModelWorld *self)
{
  for (guint i = 0; i < model_load_up_to (&self->n_pieces, MODEL_MAX_PIECES); i++)
    {
      ModelPiece *piece = &self->pieces[i];

      if (atomic_load_explicit (&piece->keeps_ref, memory_order_acquire)
          && bg_loop_get_state (piece->life->loop) == BG_LOOP_STOPPED)
        model_piece_drop_ref (piece);
    }
}

/* Loops that were dropped end by themselves, when what they wait for is over. */
static void
await_loops (gint64 limit, guint64 since)
{
  gint64 moved = g_get_monotonic_time (), end = moved + limit;
  ModelStamp last = model_stamp ();
  g_autofree char *left = NULL;

  while ((left = bg_test_describe_loops (since, LOOK_MSEC)) != NULL)
    {
      if (model_stamp () != last + 1)
        moved = g_get_monotonic_time ();
      close_step (CANCEL_STEP);
      /* One that is always ready, and that came late, keeps what is less urgent from running. */
      model_destroy_sources ();
      give_ended_back (model_world);
      give_loops_back (model_world);
      if (g_get_monotonic_time () > end)
        {
          model_fail ("left: %s", left);
          return;
        }
      /* An operation whose source went with an ended thread cannot answer. */
      if (model_load (&model_world->forgiving) && g_get_monotonic_time () > moved + FORGIVEN_USEC)
        return;
      g_clear_pointer (&left, g_free);
      last = model_stamp ();
    }
}

/* Beginning and end */

static void
world_init (ModelWorld *self, const ModelScenario *scenario, gboolean verbose, guint limit_seconds)
{
  static ModelPiece *pieces;

  if (pieces == NULL)
    pieces = g_new0 (ModelPiece, MODEL_MAX_PIECES);
  model_error_quark (); /* not first in two threads at once */
  self->scenario = scenario;
  self->verbose = verbose;
  self->limit_seconds = limit_seconds;
  self->pieces = pieces;
  model_store (&self->budget, BUDGET);
  model_store (&self->bursts, BURSTS);
  g_mutex_init (&self->lock);
  g_cond_init (&self->finished_one);
  g_queue_init (&self->holds);
  g_queue_init (&self->pendings);
  g_strlcpy (self->janitor.name, "the janitor", sizeof self->janitor.name);
  g_strlcpy (self->server.name, "the server", sizeof self->server.name);
  g_strlcpy (self->closer.name, "the closer", sizeof self->closer.name);
  self->janitor.kind = self->closer.kind = self->server.kind = MODEL_CONTEXT_DEFAULT;
  for (guint i = 0; i < MODEL_N_THINGS; i++)
    {
      self->cancellables[i] = g_cancellable_new ();
      model_watch_object (self->cancellables[i], MODEL_OBJECT_CANCELLABLE);
    }
  for (guint i = 0; i < scenario->n_threads; i++)
    {
      g_snprintf (self->threads[i].name, sizeof self->threads[i].name, "thread %u", i);
      self->threads[i].kind = scenario->threads[i].context;
    }
}

static void
start_loops (ModelWorld *self)
{
  for (guint i = 0; i < self->scenario->n_loops; i++)
    {
      g_autofree char *name = g_strdup_printf ("loop %u", i);
      BgLoop *loop = bg_loop_new (name, NULL);

      if (loop == NULL)
        g_error ("no loop");
      self->slots[i] = model_life_add (loop, i, 0);
    }
}

static void
run_threads (gint64 limit)
{
  ModelWorld *self = model_world;
  GThread *threads[MODEL_MAX_THREADS], *closer;
  guint n = 0;

  for (guint i = 0; i < self->scenario->n_threads; i++)
    n += self->scenario->threads[i].program->len > 0;
  model_store (&self->unfinished, (int) n);
  n = 0;
  for (guint i = 0; i < self->scenario->n_threads; i++)
    if (self->scenario->threads[i].program->len > 0)
      threads[n++] = g_thread_new ("model", thread_cb, &self->threads[i]);
  attend (limit);
  for (guint i = 0; i < n; i++)
    g_thread_join (threads[i]);

  model_store (&self->closing, TRUE);
  model_store (&self->unfinished, 1);
  closer = g_thread_new ("closer", closer_cb, NULL);
  attend (limit);
  g_thread_join (closer);
}

static void
give_objects_back (ModelWorld *self)
{
  for (guint i = 0; i < model_load_up_to (&self->n_pieces, MODEL_MAX_PIECES); i++)
    g_clear_object (&self->pieces[i].cancellable);
  for (guint i = 0; i < MODEL_N_THINGS; i++)
    g_clear_object (&self->cancellables[i]);
}

static void
world_clear (ModelWorld *self)
{
  for (guint i = 0; i < model_load_up_to (&self->n_lives, MODEL_MAX_LIVES); i++)
    g_mutex_clear (&self->lives[i].lock);
  memset (self->pieces, 0,
          model_load_up_to (&self->n_pieces, MODEL_MAX_PIECES) * sizeof *self->pieces);
  g_cond_clear (&self->finished_one);
  g_mutex_clear (&self->lock);
  model_graph_clear ();
  g_free (self);
}

static gboolean spent;

/* A scenario has left something that cannot go, which later ones would wait for. */
gboolean
model_process_is_spent (void)
{
  return spent;
}

static void
check_no_loops (guint64 since)
{
  if (!spent)
    bg_test_assert_no_loops ();
  g_assert_null (bg_test_describe_loops (since, 0));
}

/* FALSE if a promise was broken. */
gboolean
model_run (const ModelScenario *scenario, gboolean verbose, guint limit_seconds)
{
  ModelWorld *self = model_world = g_new0 (ModelWorld, 1);
  gint64 limit = limit_seconds * G_USEC_PER_SEC;
  ModelLeftovers *leftovers = model_leftovers_note ();
  guint64 since = bg_test_mark_loops ();
  GThread *server;
  gboolean kept;

  world_init (self, scenario, verbose, limit_seconds);
  model_actor_set_self (&self->janitor);
  if (scenario->without_descriptor)
    model_try_without_descriptor ();
  start_loops (self);
  server = g_thread_new ("server", server_cb, NULL);
  run_threads (limit);
  model_destroy_sources ();
  give_loops_back (self);
  await_loops (limit, since);
  model_store (&self->unfinished, 1);
  model_store (&self->finished, TRUE);
  attend (limit);
  g_thread_join (server);
  model_destroy_sources ();
  give_loops_back (self);
  /* Replies that the server has had may have started a loop once more, and attached to it. */
  await_loops (limit, since);
  model_destroy_sources ();

  model_check_pieces ();
  give_objects_back (self);
  if (!self->forgiving)
    {
      model_leftovers_check (leftovers, limit);
      model_check_handlers ();
    }
  g_free (leftovers);
  if (self->n_failures == 0 && !self->forgiving)
    check_no_loops (since);
  if (self->n_criticals != self->n_expected_criticals)
    model_fail ("%d criticals, %d expected", self->n_criticals, self->n_expected_criticals);

  kept = self->n_failures == 0;
  spent |= self->forgiving;
  model_actor_set_self (NULL);
  world_clear (self);
  return kept;
}
