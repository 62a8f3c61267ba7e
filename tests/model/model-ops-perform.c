/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <sys/socket.h>
#include <unistd.h>

#include "model-world.h"

/* Operations: how they begin, how they are answered, and who waits for them. */

typedef enum
{
  BEGIN_FAILS,
  BEGIN_TASK,      /* that is over at once, and calls back from the loop's context */
  BEGIN_INLINE,    /* called back from within */
  BEGIN_NO_RESULT, /* the same, without a result */
  BEGIN_PENDING,   /* answered by somebody, some time */
  BEGIN_PENDING_2,
  BEGIN_TIMER, /* called back by a source on the loop */
  BEGIN_LOAD,
  BEGIN_REPLACE,
  BEGIN_SOCKET, /* that is silent until somebody closes it */
  BEGIN_SUBPROCESS,
  BEGIN_CONNECTED, /* answered when it is cancelled, or by somebody */
  N_BEGINS,
} BeginKind;

/* An operation that somebody is to answer. */
typedef struct
{
  ModelPiece *piece;
  GAsyncReadyCallback callback; /* (nullable) */
  gpointer callback_data;
  BgOperation *operation; /* (owned) (nullable) */
  int fd;                 /* -1, or to be closed */
} Pending;

static BeginKind
get_begin (const ModelOp *op)
{
  guint variant = op->variant % 48;

#ifdef __SANITIZE_THREAD__
  /* It does not see GIO close a socket, and takes the descriptor's next user for a race. */
  if (variant % N_BEGINS == BEGIN_SOCKET)
    return BEGIN_PENDING;
#endif

  /* Processes are slow. */
  if (variant == BEGIN_SUBPROCESS && op->variant % 5 != 0)
    return BEGIN_TASK;
  return variant % N_BEGINS == BEGIN_SUBPROCESS && variant != BEGIN_SUBPROCESS ? BEGIN_PENDING
                                                                               : variant % N_BEGINS;
}

static gboolean
uses_operation (const ModelOp *op)
{
  return op->variant >> 8 & 1;
}

/* A result that belongs to no context. */
#define MODEL_TYPE_RESULT (model_result_get_type ())
G_DECLARE_FINAL_TYPE (ModelResult, model_result, MODEL, RESULT, GObject)

struct _ModelResult
{
  GObject parent;
  ModelPiece *piece;
};

static void
result_iface_init (GAsyncResultIface *iface)
{
}

G_DEFINE_FINAL_TYPE_WITH_CODE (ModelResult,
                               model_result,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT, result_iface_init))

static void
model_result_class_init (ModelResultClass *class)
{
}

static void
model_result_init (ModelResult *self)
{
}

static GAsyncResult *
result_new (ModelPiece *piece)
{
  ModelResult *self = g_object_new (MODEL_TYPE_RESULT, NULL);

  self->piece = piece;
  model_watch_object (self, MODEL_OBJECT_RESULT);
  return G_ASYNC_RESULT (self);
}

static void
give_answer (ModelPiece *piece,
             GAsyncReadyCallback callback,
             gpointer callback_data,
             BgOperation *operation)
{
  gboolean empty = get_begin (piece->op) == BEGIN_NO_RESULT;
  g_autoptr (GAsyncResult) result = empty ? NULL : result_new (piece);

  model_store (&piece->answered, model_stamp ());
  if (model_increment (&piece->n_answered) > 0)
    model_fail ("%s: the model answers twice", model_piece_name (piece));
  if (model_load (&piece->life->ended) != 0 && !model_load (&piece->life->exited))
    model_fail ("%s: the loop has ended before the answer", model_piece_name (piece));
  if (callback != NULL)
    callback (NULL, result, callback_data);
  else if (!empty)
    bg_operation_answer (operation, result);
}

static void
pending_answer (Pending *self)
{
  if (self->fd >= 0)
    close (self->fd);
  else
    give_answer (self->piece, self->callback, self->callback_data, self->operation);
  g_clear_pointer (&self->operation, bg_operation_unref);
  g_free (self);
}

static void
pending_add (ModelPiece *piece,
             GAsyncReadyCallback callback,
             gpointer callback_data,
             BgOperation *operation,
             int fd)
{
  Pending *self = g_new0 (Pending, 1);

  *self = (Pending){ piece, callback, callback_data, operation, fd };
  if (operation != NULL)
    bg_operation_ref (operation);
  g_mutex_lock (&model_world->lock);
  g_queue_push_tail (&model_world->pendings, self);
  g_mutex_unlock (&model_world->lock);
}

static Pending *
pending_take (gboolean last)
{
  Pending *self;

  g_mutex_lock (&model_world->lock);
  self = last ? g_queue_pop_tail (&model_world->pendings)
              : g_queue_pop_head (&model_world->pendings);
  g_mutex_unlock (&model_world->lock);
  return self;
}

void
model_op_answer (const ModelOp *op)
{
  Pending *pending = pending_take (op->variant % 2);

  if (pending != NULL)
    pending_answer (pending);
}

void
model_answer_all (void)
{
  Pending *pending;

  while ((pending = pending_take (FALSE)) != NULL)
    pending_answer (pending);
}

/* Ways to begin */

typedef struct
{
  ModelPiece *piece;
  GAsyncReadyCallback callback;
  gpointer callback_data;
  BgOperation *operation; /* (owned) (nullable) */
  GObject *kept;          /* (owned) (nullable) */
  char buffer[1];
} Later;

static Later *
later_new (ModelPiece *piece,
           GAsyncReadyCallback callback,
           gpointer callback_data,
           BgOperation *operation)
{
  Later *self = g_new0 (Later, 1);

  self->piece = piece;
  self->callback = callback;
  self->callback_data = callback_data;
  self->operation = operation != NULL ? bg_operation_ref (operation) : NULL;
  return self;
}

static gboolean
timer_cb (gpointer data)
{
  Later *self = data;

  give_answer (self->piece, self->callback, self->callback_data, self->operation);
  g_clear_pointer (&self->operation, bg_operation_unref);
  g_free (self);
  return G_SOURCE_REMOVE;
}

/* What GIO has done is handed on. */
static void
gio_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  Later *self = data;

  model_store (&self->piece->answered, model_stamp ());
  model_store (&self->piece->answered_cancelled,
               G_IS_TASK (result) && g_task_had_error (G_TASK (result)));
  model_increment (&self->piece->n_answered);
  if (self->callback != NULL)
    self->callback (source, result, self->callback_data);
  else
    bg_operation_answer (self->operation, result);
  g_clear_object (&self->kept);
  g_clear_pointer (&self->operation, bg_operation_unref);
  g_free (self);
}

static void
begin_task (Later *later, GCancellable *cancellable)
{
  g_autoptr (GTask) task = g_task_new (NULL, cancellable, gio_cb, later);

  model_watch_object (task, MODEL_OBJECT_TASK);
  g_task_return_boolean (task, TRUE);
}

static void
begin_timer (Later *later)
{
  GSource *source = g_timeout_source_new (later->piece->op->amount);

  g_source_set_callback (source, timer_cb, later, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  g_source_unref (source);
}

static void
begin_file (Later *later, gboolean writes, GCancellable *cancellable)
{
  g_autofree char *path = g_strdup_printf ("%s/model-%d-%u", g_get_tmp_dir (), (int) getpid (),
                                           later->piece->op->thing);
  g_autoptr (GFile) file = g_file_new_for_path (writes ? path : "/dev/null");

  if (writes)
    g_file_replace_contents_async (file, "model", 5, NULL, FALSE, G_FILE_CREATE_NONE, cancellable,
                                   gio_cb, later);
  else
    g_file_load_contents_async (file, cancellable, gio_cb, later);
}

static gboolean
begin_socket (Later *later, GCancellable *cancellable)
{
  g_autoptr (GSocket) socket = NULL;
  int fds[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    return FALSE;

  socket = g_socket_new_from_fd (fds[0], NULL);
  later->kept = G_OBJECT (g_socket_connection_factory_create_connection (socket));
  model_watch_object (later->kept, MODEL_OBJECT_CONNECTION);
  g_input_stream_read_async (g_io_stream_get_input_stream (G_IO_STREAM (later->kept)),
                             later->buffer, 1, G_PRIORITY_DEFAULT, cancellable, gio_cb, later);
  pending_add (later->piece, NULL, NULL, NULL, fds[1]);
  return TRUE;
}

static gboolean
begin_subprocess (Later *later, GCancellable *cancellable)
{
  g_autoptr (GSubprocess) subprocess
      = g_subprocess_new (G_SUBPROCESS_FLAGS_NONE, NULL, "/bin/true", NULL);

  if (subprocess == NULL)
    return FALSE;
  model_watch_object (subprocess, MODEL_OBJECT_SUBPROCESS);
  g_subprocess_wait_async (subprocess, cancellable, gio_cb, later);
  return TRUE;
}

static gboolean
begin (ModelPiece *piece,
       GCancellable *cancellable,
       GAsyncReadyCallback callback,
       gpointer callback_data,
       BgOperation *operation)
{
  BeginKind kind = get_begin (piece->op);

  switch (kind)
    {
    case BEGIN_FAILS:
      return FALSE;
    case BEGIN_TASK:
      begin_task (later_new (piece, callback, callback_data, operation), cancellable);
      return TRUE;
    case BEGIN_INLINE:
    case BEGIN_NO_RESULT:
      give_answer (piece, callback, callback_data, operation);
      return TRUE;
    case BEGIN_TIMER:
      begin_timer (later_new (piece, callback, callback_data, operation));
      return TRUE;
    case BEGIN_LOAD:
    case BEGIN_REPLACE:
      begin_file (later_new (piece, callback, callback_data, operation), kind == BEGIN_REPLACE,
                  cancellable);
      return TRUE;
    case BEGIN_SOCKET:
      return begin_socket (later_new (piece, callback, callback_data, operation), cancellable);
    case BEGIN_SUBPROCESS:
      return begin_subprocess (later_new (piece, callback, callback_data, operation), cancellable);
    case BEGIN_CONNECTED:
      model_connect (piece->op, cancellable, piece->life);
      pending_add (piece, callback, callback_data, operation, -1);
      return TRUE;
    default:
      pending_add (piece, callback, callback_data, operation, -1);
      return TRUE;
    }
}

static gboolean
begin_piece (ModelPiece *piece,
             GCancellable *cancellable,
             GAsyncReadyCallback callback,
             gpointer callback_data,
             BgOperation *operation,
             GError **error)
{
  gboolean begun;

  model_piece_run_begin (piece);
  if (g_main_context_get_thread_default () != piece->life->context)
    model_fail ("%s has begun with another thread-default context", model_piece_name (piece));
  model_do_program (piece->op->body);
  begun = begin (piece, cancellable, callback, callback_data, operation);
  if (!begun)
    {
      model_store (&piece->failed, TRUE);
      g_set_error_literal (error, MODEL_ERROR, (int) piece->index, "as drawn");
    }
  model_piece_run_end (piece);
  return begun;
}

gboolean
model_begin_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  return begin_piece (user_data, cancellable, callback, callback_data, NULL, error);
}

gboolean
model_operation_cb (BgOperation *operation,
                    GCancellable *cancellable,
                    gpointer user_data,
                    GError **error)
{
  return begin_piece (user_data, cancellable, NULL, NULL, operation, error);
}

/* Waiting for the answer */

/* Whoever waits when the loop is cancelled is told CLOSED, not what the operation makes of it. How
 * the operation went is what it was when it answered: a task whose cancellable is cancelled later
 * says so, too. */
static void
check_socket_result (ModelPiece *piece)
{
  if (model_load (&piece->answered_cancelled)
      && (piece->cancellable == NULL || !g_cancellable_is_cancelled (piece->cancellable)))
    model_fail ("%s has the operation's own CANCELLED, not the error of its wait",
                model_piece_name (piece));
}

static void
check_result (ModelPiece *piece, GAsyncResult *result, const GError *error)
{
  BeginKind kind = get_begin (piece->op);

  if ((result != NULL) != (error == NULL))
    model_fail ("%s: %s result and %s error", model_piece_name (piece), result != NULL ? "a" : "no",
                error != NULL ? "an" : "no");
  model_piece_check_error (piece, error);
  if (result == NULL)
    {
      if (g_error_matches (error, BG_ERROR, BG_ERROR_UNANSWERED) && kind != BEGIN_NO_RESULT)
        model_fail ("%s: UNANSWERED", model_piece_name (piece));
      return;
    }

  if (model_load (&piece->n_run) != 1 || model_load (&piece->failed)
      || model_load (&piece->n_answered) != 1)
    model_fail ("%s has a result that nobody has given", model_piece_name (piece));
  if (kind == BEGIN_SOCKET)
    check_socket_result (piece);
  if ((kind == BEGIN_INLINE || kind == BEGIN_PENDING || kind == BEGIN_TIMER)
      && MODEL_RESULT (result)->piece != piece)
    model_fail ("%s has the result of another", model_piece_name (piece));
}

static void
do_perform (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelActor *me = model_actor_self ();
  ModelPiece *piece = model_piece_new (op, life);
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;
  ModelEdge *edge = NULL;

  if (piece == NULL)
    return;
  if (me != NULL)
    edge = model_graph_add (me, &life->actor);
  if (uses_operation (op))
    result = bg_loop_perform_operation (loop, op->priority, op->timeout, model_operation_cb, piece,
                                        piece->cancellable, &error);
  else
    result = bg_loop_perform (loop, op->priority, op->timeout, model_begin_cb, piece,
                              piece->cancellable, &error);
  if (edge != NULL)
    model_graph_remove (edge);

  check_result (piece, result, error);
  if (model_load (&piece->n_run) > 0)
    model_piece_given (piece, TRUE);
  piece->given_after = model_stamp ();
  if (me == &life->actor && model_load (&piece->n_run) > 0)
    model_fail ("%s was begun on its own loop", model_piece_name (piece));
}

static void
reply_cb (GObject *source, GAsyncResult *result, gpointer data)
{
  ModelPiece *piece = data;
  g_autoptr (GAsyncResult) own = NULL;
  g_autoptr (GError) error = NULL;

  model_piece_reply_begin (piece);
  if (piece->op->variant >> 9 & 1)
    own = bg_loop_perform_finish (BG_LOOP (source), result, &error);
  else
    own = bg_loop_perform_operation_finish (BG_LOOP (source), result, &error);
  check_result (piece, own, error);
  model_do_program (piece->op->reply);
  model_piece_reply_end (piece);
}

static void
do_perform_async (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  ModelPiece *piece = model_piece_new (op, life);

  if (piece == NULL)
    return;
  model_piece_expect_reply (piece);
  if (uses_operation (op))
    bg_loop_perform_operation_async (loop, op->priority, op->timeout, model_operation_cb, piece,
                                     model_piece_destroy, piece->cancellable, reply_cb, piece);
  else
    bg_loop_perform_async (loop, op->priority, op->timeout, model_begin_cb, piece,
                           model_piece_destroy, piece->cancellable, reply_cb, piece);
  model_piece_given (piece, !piece->destroyed_by_giver);
}

void
model_do_perform (const ModelOp *op, ModelLife *life, BgLoop *loop)
{
  switch (op->kind)
    {
    case MODEL_PERFORM:
      do_perform (op, life, loop);
      break;
    case MODEL_PERFORM_ASYNC:
      do_perform_async (op, life, loop);
      break;
    default:
      model_op_answer (op);
    }
}
