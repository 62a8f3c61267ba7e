/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-expiry-private.h>
#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-schedule-private.h>

/* What ends an asynchronous wait early: a limit of time, counted in the context in
 * which its outcome is told, and a cancellable. Both may come at the same time, from
 * different threads, and as the wait ends for another reason: the function that they
 * call decides.
 *
 * The context outlives the timer, as it has to before GLib 2.85. */
struct _BgExpiry
{
  int ref_count; /* atomic: one for the owner, the timer and the handler */

  /* immutable */
  guint generation;
  BgExpiryFunc func;
  gpointer data;
  GDestroyNotify destroy;
  GMainContext *context;     /* (owned) (nullable) */
  GSource *timer;            /* (owned) (nullable) */
  GCancellable *cancellable; /* (owned) (nullable) */
  gulong handler;
};

static void
expiry_unref (gpointer data)
{
  BgExpiry *self = data;

  if (!g_atomic_int_dec_and_test (&self->ref_count))
    return;

  self->destroy (self->data);
  g_free (self);
}

static void
expiry_closure_unref (gpointer data, GClosure *closure)
{
  expiry_unref (data);
}

static gboolean
timeout_cb (gpointer user_data)
{
  BgExpiry *self = user_data;

  if (self->generation == bg_fork_generation ())
    self->func (self->data, BG_WAIT_TIMED_OUT);
  return G_SOURCE_REMOVE;
}

static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  BgExpiry *self = user_data;

  if (self->generation == bg_fork_generation ())
    self->func (self->data, BG_WAIT_CANCELLED);
}

/* From now on @func may be called, by any thread and more than once, and also a last
 * time while bg_expiry_end() runs. @destroy is for @data, after that. @context is
 * needed for a limit only; @cancellable may be cancelled already. */
BgExpiry *
bg_expiry_new (GMainContext *context,
               int timeout_msec,
               GCancellable *cancellable,
               BgExpiryFunc func,
               gpointer data,
               GDestroyNotify destroy)
{
  BgExpiry *self = g_new0 (BgExpiry, 1);

  self->ref_count = 1;
  self->generation = bg_fork_generation ();
  self->func = func;
  self->data = data;
  self->destroy = destroy;

  if (context != NULL && timeout_msec >= 0)
    {
      g_atomic_int_inc (&self->ref_count);
      self->context = g_main_context_ref (context);
      self->timer = g_timeout_source_new ((guint) timeout_msec);
      g_source_set_static_name (self->timer, "bgloop timeout");
      g_source_set_callback (self->timer, timeout_cb, self, expiry_unref);
      bg_glib_attach_source (self->timer, context);
    }

  /* This may be a handler of the cancellable, where GLib 2.82 and later do not let
   * g_cancellable_connect() return. */
  if (cancellable != NULL && !g_cancellable_is_cancelled (cancellable))
    {
      g_atomic_int_inc (&self->ref_count);
      self->cancellable = g_object_ref (cancellable);
      bg_schedule_point (BG_POINT_EXPIRY_HEEDS);
      self->handler = g_signal_connect_data (cancellable, "cancelled", G_CALLBACK (cancelled_cb),
                                             self, expiry_closure_unref, 0);
      bg_schedule_point (BG_POINT_EXPIRY_HEEDING);
    }
  if (cancellable != NULL && g_cancellable_is_cancelled (cancellable))
    func (data, BG_WAIT_CANCELLED);

  return self;
}

/* Whoever is told does not want to wait any longer. */
void
bg_expiry_give_up (BgExpiry *self)
{
  if (self->generation == bg_fork_generation ())
    self->func (self->data, BG_WAIT_CANCELLED);
}

/* The wait is over. To be called once, by any thread; a handler that is under way is
 * not waited for. */
void
bg_expiry_end (BgExpiry *self)
{
  if (self == NULL || self->generation != bg_fork_generation ())
    return;

  if (self->handler != 0)
    g_signal_handler_disconnect (self->cancellable, self->handler);
  g_clear_object (&self->cancellable);
  if (self->timer != NULL)
    {
      g_source_destroy (self->timer);
      g_clear_pointer (&self->timer, g_source_unref);
    }
  g_clear_pointer (&self->context, g_main_context_unref);
  expiry_unref (self);
}
