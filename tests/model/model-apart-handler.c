/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include <dlfcn.h>

#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* In a handler of a cancellable everything can be asked for with that very cancellable: it is
 * CANCELLED at once.
 *
 * Since GLib 2.82 a cancellable's lock is held while its handlers run, and whoever connects or
 * disconnects takes it. Of the cancellables that are tried here it is so with every GLib: these
 * functions of the program's stand before the library's. */

static GMutex lock;
static _Atomic (GCancellable *) locked; /* (nullable) the one whose lock that is */

/* TRUE if it is to be unlocked. */
static gboolean
take_lock (GCancellable *cancellable)
{
  if (cancellable == NULL || atomic_load (&locked) != cancellable)
    return FALSE;
  g_mutex_lock (&lock);
  return TRUE;
}

/* Each is looked up once, and not first in a forked child, where others may have held a lock. */
#define NEXT(name) ((__typeof__ (name) *) look_up (&next_##name, #name))

static _Atomic gpointer next_g_cancellable_cancel, next_g_cancellable_connect,
    next_g_cancellable_disconnect;

static gpointer
look_up (_Atomic gpointer *next, const char *name)
{
  if (atomic_load (next) == NULL)
    atomic_store (next, dlsym (RTLD_NEXT, name));
  return atomic_load (next);
}

__attribute__ ((constructor)) static void
look_all_up (void)
{
  (void) NEXT (g_cancellable_cancel);
  (void) NEXT (g_cancellable_connect);
  (void) NEXT (g_cancellable_disconnect);
}

void
g_cancellable_cancel (GCancellable *cancellable)
{
  gboolean taken = !g_cancellable_is_cancelled (cancellable) && take_lock (cancellable);

  NEXT (g_cancellable_cancel) (cancellable);
  if (taken)
    g_mutex_unlock (&lock);
}

gulong
g_cancellable_connect (GCancellable *cancellable,
                       GCallback callback,
                       gpointer data,
                       GDestroyNotify destroy)
{
  gboolean taken = take_lock (cancellable);
  gulong id = NEXT (g_cancellable_connect) (cancellable, callback, data, destroy);

  if (taken)
    g_mutex_unlock (&lock);
  return id;
}

void
g_cancellable_disconnect (GCancellable *cancellable, gulong id)
{
  gboolean taken = take_lock (cancellable);

  NEXT (g_cancellable_disconnect) (cancellable, id);
  if (taken)
    g_mutex_unlock (&lock);
}

/* What is asked for */

typedef struct
{
  const ModelOp *op;
  BgLoop *loop;
  UtilReply reply;
  GError *error;
} Asked;

static gboolean
is_replied_to (Asked *self)
{
  return self->op->variant % 8 >= 5;
}

static void
handler_cb (GCancellable *cancellable, gpointer data)
{
  Asked *self = data;
  g_autoptr (GAsyncResult) answer = NULL;
  GError **error = &self->error;

  switch (self->op->variant % 8)
    {
    case 0:
      bg_loop_call (self->loop, util_no_call_cb, NULL, cancellable, error);
      break;
    case 1:
      answer = bg_loop_perform (self->loop, 0, -1, util_no_begin_cb, NULL, cancellable, error);
      break;
    case 2:
      bg_loop_flush (self->loop, -1, cancellable, error);
      break;
    case 3:
      bg_loop_shutdown_full (self->loop, BG_SHUTDOWN_DRAIN, -1, cancellable, error);
      break;
    case 4:
      bg_loop_wait (self->loop, -1, cancellable, error);
      break;
    case 5:
      bg_loop_call_async (self->loop, 0, -1, util_no_call_cb, NULL, NULL, cancellable,
                          util_reply_cb, &self->reply);
      break;
    case 6:
      bg_loop_perform_async (self->loop, 0, -1, util_no_begin_cb, NULL, NULL, cancellable,
                             util_reply_cb, &self->reply);
      break;
    default:
      bg_loop_wait_async (self->loop, -1, cancellable, util_reply_cb, &self->reply);
    }
}

static void
finish (Asked *self)
{
  g_autoptr (GAsyncResult) answer = NULL;

  util_reply_wait (&self->reply);
  if (self->op->variant % 8 == 5)
    bg_loop_call_finish (self->loop, self->reply.result, &self->error);
  else if (self->op->variant % 8 == 6)
    answer = bg_loop_perform_finish (self->loop, self->reply.result, &self->error);
  else
    bg_loop_wait_finish (self->loop, self->reply.result, &self->error);
}

void
model_apart_in_handler (const ModelOp *op)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GMainContext) context = g_main_context_new ();
  Asked self = { op, util_loop_new ("in a handler") };

  g_main_context_push_thread_default (context);
  util_reply_init (&self.reply);
  g_signal_connect (cancellable, "cancelled", G_CALLBACK (handler_cb), &self);
  atomic_store (&locked, cancellable);
  g_cancellable_cancel (cancellable);
  atomic_store (&locked, NULL);
  if (is_replied_to (&self))
    finish (&self);
  if (!g_error_matches (self.error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    model_fail ("what is asked for in a handler, with the cancellable that is handled: %s",
                self.error != NULL ? self.error->message : "it went well");
  g_clear_error (&self.error);
  util_reply_clear (&self.reply);
  util_loop_end (self.loop);
  g_main_context_pop_thread_default (context);
}
