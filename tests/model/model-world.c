/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model-world.h"

/* Loops and threads as the model knows them: who acts, and which references there are. */

#define MAX_DEPTH    7 /* of programs that run within one another in one thread */
#define MAX_DEFAULTS 60

G_DEFINE_QUARK (model - error, model_error)

ModelWorld *model_world;

static _Atomic guint last_stamp;
static __thread ModelActor *self_actor;
static __thread guint depth;

ModelStamp
model_stamp (void)
{
  return model_increment (&last_stamp) + 1;
}

void
model_stamp_first (ModelAtomicStamp *stamp, ModelStamp now)
{
  guint none = 0;

  atomic_compare_exchange_strong_explicit (stamp, &none, now, MODEL_ORDER, MODEL_ORDER);
}

void
model_fail (const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);

  if (model_increment (&model_world->n_failures) < 8)
    fprintf (stderr, "seed %" G_GUINT64_FORMAT ": %s\n", model_world->scenario->seed, text);
}

/* Acting */

/* NULL on a thread that is neither the model's nor a loop's. */
ModelActor *
model_actor_self (void)
{
  return self_actor;
}

void
model_actor_set_self (ModelActor *self)
{
  self_actor = self;
  if (self == NULL)
    return;
  model_store (&self->thread, g_thread_self ());
  model_store (&self->id, syscall (SYS_gettid));
}

/* What runs here runs on that loop's thread: is it? */
ModelActor *
model_actor_enter (ModelLife *life)
{
  GThread *none = NULL;

  if (self_actor == &life->actor)
    return self_actor;

  if (self_actor != NULL)
    model_fail ("what is %s's has run on the thread of %s", life->actor.name, self_actor->name);
  else if (!atomic_compare_exchange_strong_explicit (&life->actor.thread, &none, g_thread_self (),
                                                     MODEL_ORDER, MODEL_ORDER))
    model_fail ("what is %s's has run on a thread that is not its own", life->actor.name);
  else
    {
      model_actor_set_self (&life->actor);
      if (!g_main_context_is_owner (life->context))
        model_fail ("%s does not own its context", life->actor.name);
    }

  return self_actor;
}

gboolean
model_is_closing (void)
{
  return model_load (&model_world->closing);
}

void
model_do_program (const ModelProgram *program)
{
  ModelActor *me = self_actor;

  if (program == NULL || depth >= MAX_DEPTH || me == &model_world->janitor || model_world->is_child)
    return;

  depth++;
  for (guint i = 0; i < program->len && !model_world->is_child; i++)
    {
      const ModelOp *op = g_ptr_array_index (program, i);
      const ModelOp *outer = me != NULL ? model_load (&me->op) : NULL;

      if (model_decrement (&model_world->budget) <= 0)
        break;
      if (me != NULL)
        model_store (&me->op, op);
      if (model_world->verbose)
        fprintf (stderr, "# %s does %u: %s\n", me != NULL ? me->name : "somebody", op->id,
                 model_kind_name (op->kind));
      model_op_do (op);
      if (me != NULL)
        model_store (&me->op, outer);
    }
  depth--;
}

gboolean
model_may_burst (void)
{
  return model_decrement (&model_world->bursts) > 0;
}

/* No other program of this thread has led to it. */
gboolean
model_program_is_outermost (void)
{
  return depth == 1;
}

/* Loops */

static void
note_request (ModelLife *self, gboolean cancel)
{
  ModelStamp now = model_stamp ();
  gint64 none = 0;

  atomic_compare_exchange_strong_explicit (&self->stop_time, &none, g_get_monotonic_time (),
                                           MODEL_ORDER, MODEL_ORDER);
  model_stamp_first (&self->stop_begin, now);
  if (cancel)
    model_stamp_first (&self->cancel_begin, now);
}

static void
life_finalized_cb (gpointer data, GObject *object)
{
  ModelLife *self = data;

  model_store (&self->finalized, TRUE);
}

static gboolean
first_teardown_is_noted (ModelLife *self)
{
  return self->with_teardown;
}

static void
note_end_cb (gpointer data)
{
  ModelLife *self = data;

  model_actor_enter (self);
  model_stamp_first (&self->end_begin, model_stamp ());
}

static GQuark
get_life_quark (void)
{
  return g_quark_from_static_string ("model-life");
}

/* As drawn, unless all loops of the tests are to linger for so long. */
static void
set_linger (BgLoop *loop, guint slot)
{
  const char *linger = g_getenv ("BGLOOP_TEST_LINGER");

  if (linger != NULL)
    g_object_set (loop, "linger", (guint) strtoul (linger, NULL, 10), NULL);
  else if (slot != MODEL_DEFAULT)
    g_object_set (loop, "linger", model_world->scenario->lingers[slot], NULL);
}

static ModelLife *
life_new (BgLoop *loop, guint slot)
{
  guint number = model_increment (&model_world->n_lives);
  ModelLife *self = &model_world->lives[number];

  if (number >= MODEL_MAX_LIVES)
    g_error ("too many loops");

  *self = (ModelLife){ .slot = slot, .number = number, .loop = loop, .refs = 1 };
  g_mutex_init (&self->lock);
  g_snprintf (self->actor.name, sizeof self->actor.name, "loop %u (life %u)", slot, number);
  self->actor.life = self;
  self->context = bg_loop_get_context (loop);
  model_store (&self->actor.context, self->context);
  set_linger (loop, slot);
  if (slot == MODEL_DEFAULT)
    {
      note_request (self, FALSE); /* anybody may reset it at any time */
    }
  else
    self->with_teardown = model_world->scenario->with_teardown[slot];
  g_object_set_qdata (G_OBJECT (loop), get_life_quark (), self);
  g_object_weak_ref (G_OBJECT (loop), life_finalized_cb, self);

  /* The last one that runs, since it is the first: it notes when nothing is taken any more. */
  if (first_teardown_is_noted (self) && bg_loop_add_teardown (loop, note_end_cb, self, NULL) == 0)
    model_fail ("a fresh loop refuses a teardown function");
  return self;
}

/* NULL if there is no such one. */
ModelLife *
model_life_get (guint number)
{
  gboolean exists;

  g_mutex_lock (&model_world->lock);
  exists = number < model_load_up_to (&model_world->n_lives, MODEL_MAX_LIVES);
  g_mutex_unlock (&model_world->lock);
  return exists ? &model_world->lives[number] : NULL;
}

/* There is one default loop until somebody ends it. */
static void
check_one_default (ModelLife *self, int stops)
{
  gboolean resets = model_load (&model_world->n_resets) > 0;
  int now = model_load (&model_world->n_default_stops);

  self->default_stops = resets || now != stops ? -1 : stops;
  for (guint i = 0; i < self->number; i++)
    {
      ModelLife *other = &model_world->lives[i];
      gboolean lives;

      g_mutex_lock (&other->lock);
      lives = other->slot == MODEL_DEFAULT && other->refs > 0;
      g_mutex_unlock (&other->lock);
      if (lives && other->default_stops == now && !resets)
        model_fail ("%s and %s are the default loop at once", other->actor.name, self->actor.name);
    }
}

/* Whether it certainly was the default loop when it was asked for. */
gboolean
model_life_was_default (ModelLife *self)
{
  gboolean was;

  g_mutex_lock (&self->lock);
  was = self->default_stops >= 0;
  g_mutex_unlock (&self->lock);
  return was;
}

/* Takes the reference over. @stops: of the default loop, noted before it was asked for. */
ModelLife *
model_life_add (BgLoop *loop, guint slot, int stops)
{
  ModelLife *self;

  /* The default loop is the same for all that ask for it meanwhile. */
  g_mutex_lock (&model_world->lock);
  self = g_object_get_qdata (G_OBJECT (loop), get_life_quark ());
  if (self == NULL)
    {
      self = life_new (loop, slot);
      if (slot == MODEL_DEFAULT)
        check_one_default (self, stops);
    }
  else
    {
      g_mutex_lock (&self->lock);
      /* Whoever asks as the last reference goes may have a loop that is not the default one any
       * more. */
      if (self->refs++ == 0)
        self->default_stops = -1;
      g_mutex_unlock (&self->lock);
    }
  g_mutex_unlock (&model_world->lock);

  return self;
}

BgLoop *
model_life_take (ModelLife *self)
{
  BgLoop *loop = NULL;

  g_mutex_lock (&self->lock);
  if (self->refs > 0)
    {
      self->refs++;
      loop = g_object_ref (self->loop);
    }
  g_mutex_unlock (&self->lock);
  return loop;
}

void
model_life_give_back (ModelLife *self)
{
  gboolean last;
  BgLoop *loop;

  g_mutex_lock (&self->lock);
  loop = self->loop;
  last = --self->refs == 0;
  g_mutex_unlock (&self->lock);

  if (last)
    note_request (self, FALSE);
  g_object_unref (loop);
}

/* The loop of a slot, with a reference of the caller's, NULL if there is none now. */
BgLoop *
model_slot_take (guint slot, ModelLife **life)
{
  BgLoop *loop = NULL;

  if (slot == MODEL_DEFAULT)
    {
      int stops = model_load (&model_world->n_default_stops);
      g_autoptr (GError) error = NULL;

      if (model_load (&model_world->n_lives) > MAX_DEFAULTS)
        return NULL;
      loop = bg_loop_dup_default (&error);
      if (loop == NULL)
        model_fail ("there is no default loop: %s", error->message);
      else
        *life = model_life_add (loop, slot, stops);
      return loop;
    }

  g_mutex_lock (&model_world->lock);
  *life = model_world->slots[slot];
  if (*life != NULL)
    loop = model_life_take (*life);
  g_mutex_unlock (&model_world->lock);
  return loop;
}

/* Before somebody asks it to end. */
void
model_life_note_stop (ModelLife *self, gboolean cancel)
{
  if (self->slot == MODEL_DEFAULT)
    model_increment (&model_world->n_default_stops);
  note_request (self, cancel);
}

/* And after, if that is to have had an effect. */
void
model_life_note_stopped (ModelLife *self, gboolean cancel)
{
  ModelStamp now = model_stamp ();

  model_stamp_first (&self->stop_done, now);
  if (cancel)
    model_stamp_first (&self->cancel_done, now);
}

void
model_life_note_ended (ModelLife *self)
{
  model_stamp_first (&self->ended, model_stamp ());
  if (bg_loop_get_state (self->loop) != BG_LOOP_STOPPED)
    model_fail ("%s has ended and its state is not STOPPED", self->actor.name);
}

/* Objects */

static void
object_gone_cb (gpointer data, GObject *object)
{
  model_decrement ((_Atomic int *) data);
}

void
model_watch_object (gpointer object, ModelObject kind)
{
  _Atomic int *count = &model_world->n_objects[kind];

  model_increment (count);
  g_object_weak_ref (object, object_gone_cb, (gpointer) count);
}

/* NULL for no cancellable. */
GCancellable *
model_take_cancellable (int thing)
{
  GCancellable *cancellable;

  if (thing < 0)
    return NULL;

  g_mutex_lock (&model_world->lock);
  cancellable = g_object_ref (model_world->cancellables[thing]);
  g_mutex_unlock (&model_world->lock);
  return cancellable;
}
