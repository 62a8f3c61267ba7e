/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* What is checked when everything is over and all threads but one are gone. */

#define MAX_PASSED 10

/* Of 128 callbacks of refusals some are of what is no piece. */
#define MANY_REFUSALS 64
#define MAX_SLOW      40
#define SLOW_USEC     100

static gboolean
has_function (const ModelPiece *piece)
{
  if (piece->is_handler)
    return FALSE;

  switch (piece->op->kind)
    {
    case MODEL_POST:
    case MODEL_INVOKE:
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_PERFORM_ASYNC:
    case MODEL_POST_AFTER:
    case MODEL_TEARDOWN:
    case MODEL_ATTACH:
    case MODEL_CALL:
    case MODEL_PERFORM:
      return TRUE;
    default:
      return FALSE;
    }
}

static gboolean
is_blocking (const ModelPiece *piece)
{
  return piece->op->kind == MODEL_CALL || piece->op->kind == MODEL_PERFORM;
}

static gboolean
has_reply (const ModelPiece *piece)
{
  return piece->replied_to != NULL;
}

/* It is dropped only if something has dropped it. */
static gboolean
may_be_dropped (ModelPiece *piece, ModelStamp when)
{
  ModelStamp cancel = model_load (&piece->life->cancel_begin);

  switch (piece->op->kind)
    {
    case MODEL_ATTACH:
      return TRUE;
    case MODEL_POST_AFTER:
    case MODEL_TEARDOWN:
      if (piece->withdrawn)
        return TRUE;
      /* What is due when the loop is asked to end counts as accepted. */
      if (piece->op->kind == MODEL_POST_AFTER
          && piece->time_given + piece->delay_usec + G_TIME_SPAN_MILLISECOND
                 > piece->life->stop_time)
        return TRUE;
      break;
    case MODEL_CALL_ASYNC:
    case MODEL_RUN_TASK:
    case MODEL_PERFORM_ASYNC:
      if (piece->cancellable != NULL && g_cancellable_is_cancelled (piece->cancellable))
        return TRUE;
      /* Its giver's loop was cancelled, and told so. */
      if (model_piece_is_late (piece))
        return TRUE;
      if (piece->op->timeout >= 0 && piece->op->kind != MODEL_RUN_TASK)
        return TRUE;
      if (piece->op->kind == MODEL_RUN_TASK && piece->error_domain == BG_ERROR
          && piece->error_code == BG_ERROR_CLOSED)
        return TRUE;
      break;
    default:
      break;
    }

  if (piece->op->kind == MODEL_TEARDOWN)
    return piece->life->exited;
  return piece->life->exited || (cancel != 0 && cancel < when);
}

/* A source that is destroyed while it is dispatched, whose callback then ends the thread: GLib
 * leaves what that refers to on its stack. */
static gboolean
may_be_lost (ModelPiece *piece)
{
  return piece->op->kind == MODEL_ATTACH && piece->withdrawn && piece->life->exited
         && piece->n_run > 0;
}

static void
check_destroy (ModelPiece *piece)
{
  if (is_blocking (piece) || piece->no_destroy || may_be_lost (piece))
    return;
  if (piece->n_destroyed != 1)
    model_fail ("%s was destroyed %d times", model_piece_name (piece), piece->n_destroyed);
  if (piece->n_run > 0 && piece->destroyed != 0 && piece->run_end != 0
      && piece->destroyed < piece->run_end && piece->op->kind != MODEL_ATTACH)
    model_fail ("%s was destroyed before it had run to its end", model_piece_name (piece));
}

/* A limit of 0 is over before anything can start, but for a plain function call. */
static void
check_limit (ModelPiece *piece)
{
  gboolean is_plain = is_blocking (piece) && piece->giver == &piece->life->actor;

  switch (piece->op->kind)
    {
    case MODEL_CALL:
    case MODEL_CALL_ASYNC:
    case MODEL_PERFORM:
    case MODEL_PERFORM_ASYNC:
      if (piece->op->timeout == 0 && piece->n_run > 0 && !is_plain)
        model_fail ("%s had timed out and has run", model_piece_name (piece));
      break;
    default:
      break;
    }
}

static void
check_outcome (ModelPiece *piece)
{
  ModelLife *life = piece->life;
  ModelStamp ended = model_load (&life->ended);

  check_destroy (piece);
  if (piece->destroyed_by_giver)
    {
      if (piece->n_run > 0)
        model_fail ("%s was refused and has run", model_piece_name (piece));
      return;
    }
  if (!piece->accepted)
    {
      if (piece->n_run > 0)
        model_fail ("%s said that it was refused and has run", model_piece_name (piece));
      return;
    }

  if (piece->n_run > 0 && piece->cancelled_before
      && (piece->op->kind == MODEL_CALL_ASYNC || piece->op->kind == MODEL_RUN_TASK
          || piece->op->kind == MODEL_PERFORM_ASYNC))
    model_fail ("%s was cancelled before it was given, and has run", model_piece_name (piece));
  if (piece->n_run == 0
      && !may_be_dropped (piece, piece->no_destroy ? G_MAXUINT : piece->destroyed))
    model_fail ("%s was accepted and never ran (%s %d)", model_piece_name (piece),
                g_quark_to_string (piece->error_domain), piece->error_code);
  if (ended != 0 && MAX (piece->destroy_end, piece->run_end) > ended
      && piece->op->kind != MODEL_ATTACH)
    model_fail ("%s has gone on after the end of the loop", model_piece_name (piece));
}

static void
check_blocking (ModelPiece *piece)
{
  if (piece->n_run > 0 && piece->cancelled_before && piece->giver != &piece->life->actor)
    model_fail ("%s was cancelled before it was given, and has run", model_piece_name (piece));
  if (piece->life->exited)
    return;
  if (piece->op->kind == MODEL_CALL)
    {
      gboolean own = piece->error_domain == MODEL_ERROR;

      if ((piece->succeeded || own) != (piece->n_run == 1))
        model_fail ("%s has run %d times and its caller was told otherwise",
                    model_piece_name (piece), piece->n_run);
      if (own != piece->failed)
        model_fail ("%s has failed and its caller was told otherwise", model_piece_name (piece));
    }
  else if (piece->succeeded && piece->n_run != 1)
    model_fail ("%s has succeeded and was never begun", model_piece_name (piece));

  if (piece->n_run > 0 && piece->run_end > piece->given_after)
    model_fail ("%s has gone on after its caller had woken", model_piece_name (piece));
}

/* Whether a loop that cancels has refused its own code that. */
static gboolean
is_refused_by_own_loop (const ModelPiece *piece, const ModelLife *life)
{
  gboolean waits = piece->op->kind == MODEL_SHUTDOWN_ASYNC || piece->op->kind == MODEL_WAIT_ASYNC;

  return life->cancel_begin != 0 && piece->replied_to == &life->actor
         && (piece->destroyed_by_giver || (waits && piece->life == life));
}

/* A loop that cancels calls the callbacks of so many refusals, and ends without the others. */
static gboolean
has_refused_many (const ModelLife *life)
{
  guint n_pieces = model_load_up_to (&model_world->n_pieces, MODEL_MAX_PIECES), n = 0;

  for (guint i = 0; i < n_pieces; i++)
    n += model_world->pieces[i].n_replied > 0
         && is_refused_by_own_loop (&model_world->pieces[i], life);
  return n >= MANY_REFUSALS;
}

/* Whether a reply may be missing: nobody iterates its context any more, or whoever asked for it
 * is a loop that ends. */
static gboolean
reply_may_be_missing (ModelPiece *piece)
{
  ModelActor *to = piece->replied_to;
  ModelLife *life = to->life;

  if (life == NULL)
    return to->kind == MODEL_CONTEXT_ABANDONED;

  if (life->exited)
    return TRUE;
  if (life->with_teardown ? life->end_begin != 0 && life->end_begin < piece->given_after
                          : life->stop_begin != 0)
    return TRUE;
  return life->cancel_begin != 0
         && (piece->destroyed_by_giver
             || (is_refused_by_own_loop (piece, life) && has_refused_many (life)));
}

static void
check_reply (ModelPiece *piece)
{
  if (piece->n_replied > 1)
    model_fail ("%s was replied to %d times", model_piece_name (piece), piece->n_replied);
  if (piece->n_replied == 0 && !reply_may_be_missing (piece))
    model_fail ("%s was never replied to", model_piece_name (piece));
  if (piece->n_replied == 0)
    return;

  if (piece->replied < piece->given_after && piece->replied_to == piece->giver
      && piece->giver->life == NULL)
    model_fail ("%s was replied to before the function returned", model_piece_name (piece));
  if (piece->op->kind == MODEL_CALL_ASYNC)
    {
      gboolean own = piece->error_domain == MODEL_ERROR;
      gboolean closed = piece->error_domain == BG_ERROR;

      if ((piece->succeeded || own) != (piece->n_run == 1) && !closed && !piece->life->exited)
        model_fail ("%s has run %d times and the reply says otherwise", model_piece_name (piece),
                    piece->n_run);
      if (piece->destroy_end > piece->replied && !closed)
        model_fail ("%s was replied to before its destroy notify", model_piece_name (piece));
    }
}

/* Order */

static gboolean
is_queued_in_order (const ModelPiece *piece)
{
  switch (piece->op->kind)
    {
    case MODEL_POST:
    case MODEL_CALL:
    case MODEL_CALL_ASYNC:
    case MODEL_PERFORM:
    case MODEL_PERFORM_ASYNC:
    case MODEL_RUN_TASK:
      return piece->giver != &piece->life->actor || !is_blocking (piece);
    default:
      return FALSE;
    }
}

static gboolean
is_same_queue (const ModelPiece *a, const ModelPiece *b)
{
  if (a->life != b->life)
    return FALSE;
  if (a->op->kind == MODEL_POST_AFTER || b->op->kind == MODEL_POST_AFTER)
    return a->op->kind == b->op->kind && a->delay_usec <= b->delay_usec;
  if (a->op->kind == MODEL_TEARDOWN || b->op->kind == MODEL_TEARDOWN)
    return FALSE;
  return a->op->priority == b->op->priority && is_queued_in_order (a) && is_queued_in_order (b);
}

static int
compare_begin (gconstpointer a, gconstpointer b)
{
  const ModelPiece *const *first = a, *const *second = b;

  return (int) (*first)->run_begin - (int) (*second)->run_begin;
}

/* Whatever was given when another piece had not been given yet runs before it. Of those that the
 * model can tell: a blocking call is known to be queued only when it is over. */
static void
check_order (GPtrArray *ran)
{
  g_ptr_array_sort (ran, compare_begin);
  for (guint i = 0; i < ran->len; i++)
    {
      ModelPiece *late = g_ptr_array_index (ran, i);

      for (guint j = 0; j < i; j++)
        {
          ModelPiece *early = g_ptr_array_index (ran, j);

          if (late->given_after < early->given_before && is_same_queue (late, early))
            model_fail ("%s has overtaken %s", model_piece_name (early), model_piece_name (late));
          if (late->op->kind == MODEL_TEARDOWN && early->op->kind == MODEL_TEARDOWN
              && late->life == early->life && early->given_after < late->given_before)
            model_fail ("%s has run before the later %s", model_piece_name (early),
                        model_piece_name (late));
        }
    }
}

/* Whatever priority was drawn for it. */
static gboolean
comes_at_default_priority (const ModelPiece *piece)
{
  return piece->op->kind == MODEL_POST_AFTER;
}

/* Whether work that has not run, as it timed out, say, had its turn before, as it was given
 * before and is as urgent. */
static gboolean
was_behind_void (const ModelPiece *urgent)
{
  guint n = model_load_up_to (&model_world->n_pieces, MODEL_MAX_PIECES);

  for (guint i = 0; i < n; i++)
    {
      const ModelPiece *other = &model_world->pieces[i];

      if (has_function (other) && other->n_run == 0 && other->given_before < urgent->given_after
          && is_same_queue (other, urgent))
        return TRUE;
    }
  return FALSE;
}

/* Work that is given while less urgent work runs, or waits, comes before that, but for what runs
 * just then and for what is let through. Where work of its own priority comes first that may be the
 * rest of a batch, and a batch of lower priority have its turn. */
static void
check_urgency (GPtrArray *ran)
{
  for (guint i = 0; i < ran->len; i++)
    {
      ModelPiece *urgent = g_ptr_array_index (ran, i);
      gboolean is_first = is_queued_in_order (urgent) && !is_blocking (urgent);
      guint n = 0;

      for (guint j = i; j > 0 && is_first; j--)
        {
          ModelPiece *other = g_ptr_array_index (ran, j - 1);

          if (other->run_begin < urgent->given_after)
            break;
          if (other->life != urgent->life)
            continue;
          if (comes_at_default_priority (other))
            is_first = urgent->op->priority != G_PRIORITY_DEFAULT;
          if (!is_queued_in_order (other))
            continue;
          is_first &= other->op->priority > urgent->op->priority;
          n++;
        }
      if (is_first && n > MAX_PASSED && !was_behind_void (urgent))
        model_fail ("%u less urgent pieces have run before %s", n, model_piece_name (urgent));
    }
}

/* A batch ends soon after it has taken some time, so that a source that is ready gets its turn: how
 * many slow pieces ran since? */
static void
check_source (ModelPiece *source, GPtrArray *ran)
{
  ModelLife *life = source->life;
  guint n = 0;

  if (!model_is_always_ready (source->op) || life->was_paused
      || (life->stop_begin != 0 && life->stop_begin < source->run_begin))
    return;

  for (guint i = 0; i < ran->len; i++)
    {
      ModelPiece *piece = g_ptr_array_index (ran, i);

      n += piece->life == life && is_queued_in_order (piece) && piece->run_usec > SLOW_USEC
           && piece->op->priority >= source->op->priority && piece->run_begin > source->given_after
           && piece->run_begin < source->run_begin;
    }
  if (n > MAX_SLOW)
    model_fail ("%u pieces that took their time have run before %s", n, model_piece_name (source));
}

/* What a flush that went well waited for. */
static void
check_flush (ModelPiece *flush, ModelPiece *piece)
{
  ModelStamp over;

  if (piece->life != flush->life || !is_queued_in_order (piece) || is_blocking (piece)
      || !piece->accepted || piece->destroyed_by_giver || piece->given_after > flush->given_before)
    return;

  over = piece->op->kind == MODEL_POST ? piece->destroy_end : piece->run_end;
  if (over > flush->given_after)
    model_fail ("%s was not waited for by %s", model_piece_name (piece), model_piece_name (flush));
}

static void
check_life (ModelLife *life)
{
  if (!life->finalized)
    model_fail ("%s is still referred to; the model has %u references", life->actor.name,
                life->refs);
}

/* When nothing refers to a cancellable any more its handlers are gone, too. */
void
model_check_handlers (void)
{
  guint n = model_load_up_to (&model_world->n_pieces, MODEL_MAX_PIECES);

  for (guint i = 0; i < n; i++)
    {
      ModelPiece *piece = &model_world->pieces[i];

      if (piece->is_handler && piece->n_destroyed != 1)
        model_fail ("the handler of %s was destroyed %d times", model_piece_name (piece),
                    piece->n_destroyed);
    }
}

void
model_check_pieces (void)
{
  guint n = model_load_up_to (&model_world->n_pieces, MODEL_MAX_PIECES);
  g_autoptr (GPtrArray) ran = g_ptr_array_new ();
  g_autoptr (GPtrArray) flushes = g_ptr_array_new ();

  for (guint i = 0; i < n; i++)
    {
      ModelPiece *piece = &model_world->pieces[i];

      if (piece->op->kind == MODEL_FLUSH && piece->succeeded)
        g_ptr_array_add (flushes, piece);
      if (has_reply (piece) && !piece->is_handler)
        check_reply (piece);
      if (!has_function (piece))
        continue;
      check_limit (piece);
      if (is_blocking (piece))
        check_blocking (piece);
      else
        check_outcome (piece);
      if (piece->n_run > 0 && piece->life != NULL)
        g_ptr_array_add (ran, piece);
    }

  check_order (ran);
  check_urgency (ran);
  for (guint i = 0; i < ran->len; i++)
    check_source (g_ptr_array_index (ran, i), ran);
  for (guint i = 0; i < flushes->len; i++)
    for (guint j = 0; j < ran->len; j++)
      check_flush (g_ptr_array_index (flushes, i), g_ptr_array_index (ran, j));
  for (guint i = 0; i < model_load_up_to (&model_world->n_lives, MODEL_MAX_LIVES); i++)
    check_life (&model_world->lives[i]);
}
