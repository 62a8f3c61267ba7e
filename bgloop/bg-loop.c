/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-glib-private.h>
#include <bgloop/bg-error.h>
#include <bgloop/bg-loop-private.h>
#include <bgloop/bg-operation.h>
#include <bgloop/core/bg-reply-private.h>

/**
 * BgLoop:
 *
 * An event loop on a thread of its own, that any thread can hand work to and
 * that ends well.
 *
 * A loop runs from the moment that [ctor@Bg.Loop.new] returns until it is shut
 * down with [method@Bg.Loop.shutdown], or dropped. It has one life and cannot be
 * started again; making another is cheap.
 *
 * Every piece of work given to a loop has exactly one outcome: it ran to its
 * end, or it never ran and whoever gave it was told. Either way its destroy
 * notify runs exactly once, before [method@Bg.Loop.shutdown] returns.
 *
 * All methods can be called from any thread, the loop's own included. Those that
 * wait say so; where the wait could never end they fail with
 * %BG_ERROR_WOULD_DEADLOCK at once.
 *
 * Dropping the last reference never blocks. It asks the loop to stop, as
 * [method@Bg.Loop.quit] does with %BG_SHUTDOWN_DRAIN, and nobody waits for it.
 *
 * In a process forked from the one that made it a loop is dead: every method
 * fails with %BG_ERROR_FORKED, or %FALSE, at once. A program that forks while another of
 * its threads may be making the first loop calls g_type_class_ref() with the type before,
 * as with any type that its children use: GObject has locks that a child inherits locked.
 *
 * Since: 1.0
 */

enum
{
  PROP_NAME = 1,
  PROP_STATE,
  PROP_LINGER,
  N_PROPS,
};

static GParamSpec *properties[N_PROPS];

static void initable_init (GInitableIface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (BgLoop,
                               bg_loop,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_INITABLE, initable_init))

G_DEFINE_ENUM_TYPE (BgLoopState,
                    bg_loop_state,
                    G_DEFINE_ENUM_VALUE (BG_LOOP_RUNNING, "running"),
                    G_DEFINE_ENUM_VALUE (BG_LOOP_STOPPING, "stopping"),
                    G_DEFINE_ENUM_VALUE (BG_LOOP_STOPPED, "stopped"))

G_DEFINE_ENUM_TYPE (BgShutdownMode,
                    bg_shutdown_mode,
                    G_DEFINE_ENUM_VALUE (BG_SHUTDOWN_DRAIN, "drain"),
                    G_DEFINE_ENUM_VALUE (BG_SHUTDOWN_CANCEL, "cancel"))

/* A reference to the object of a core, %NULL if it is gone.
 *
 * g_object_ref() may run toggle notifies, other people's code, and so is not called
 * under the lock. Instead the object is told of the claim, and if it is just being
 * disposed of refers to itself in the claimant's place. Then the claimant's is the last
 * reference that anybody gets in this way. */
BgLoop *
bg_loop_dup_from_core (BgCore *core)
{
  BgLoop *self;
  gboolean granted;

  bg_core_lock (core);
  self = core->ownership.object;
  if (self != NULL)
    core->ownership.n_claims++;
  bg_core_unlock (core);

  if (self == NULL)
    return NULL;
  g_object_ref (self);

  bg_core_lock (core);
  core->ownership.n_claims--;
  granted = core->ownership.n_granted > 0;
  if (granted)
    core->ownership.n_granted--;
  bg_core_unlock (core);

  if (granted)
    {
      bg_glib_wait_for_disposal (self);
      g_object_unref (self);
    }
  return self;
}

static void
bg_loop_constructed (GObject *object)
{
  BgLoop *self = BG_LOOP (object);

  bg_core_start (self->core);
  bg_core_lock (self->core);
  self->core->ownership.object = self;
  bg_core_unlock (self->core);

  G_OBJECT_CLASS (bg_loop_parent_class)->constructed (object);
}

static void
bg_loop_dispose (GObject *object)
{
  BgLoop *self = BG_LOOP (object);
  BgCore *core = self->core;
  guint n = 0;

  if (!bg_core_is_forked (core))
    {
      bg_core_lock (core);
      n = core->ownership.n_claims - core->ownership.n_granted;
      core->ownership.n_granted += n;
      core->ownership.object = NULL;
      bg_core_unlock (core);

      bg_loop_unpublish (core);
    }
  for (; n > 0; n--)
    g_object_ref (self);

  G_OBJECT_CLASS (bg_loop_parent_class)->dispose (object);
}

static void
bg_loop_finalize (GObject *object)
{
  BgLoop *self = BG_LOOP (object);

  bg_core_abandon (self->core);

  G_OBJECT_CLASS (bg_loop_parent_class)->finalize (object);
}

static void
bg_loop_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  BgLoop *self = BG_LOOP (object);

  switch (prop_id)
    {
    case PROP_NAME:
      g_value_set_string (value, bg_loop_get_name (self));
      break;
    case PROP_STATE:
      g_value_set_enum (value, bg_loop_get_state (self));
      break;
    case PROP_LINGER:
      g_value_set_uint (value, atomic_load (&self->core->inbox.linger.usec));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
set_linger (BgLoop *self, guint linger)
{
  if (atomic_exchange (&self->core->inbox.linger.usec, linger) != linger)
    g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_LINGER]);
}

static void
bg_loop_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  BgLoop *self = BG_LOOP (object);

  switch (prop_id)
    {
    case PROP_NAME:
      self->core = bg_core_new (g_value_get_string (value));
      break;
    case PROP_LINGER:
      set_linger (self, g_value_get_uint (value));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

/* What is registered where it is first used is registered under locks of GLib's, which a
 * child inherits as they are. So all of the library's is there with the first loop. */
static void
ensure_types (void)
{
  (void) BG_ERROR;
  g_type_ensure (BG_TYPE_ERROR);
  g_type_ensure (BG_TYPE_LOOP_STATE);
  g_type_ensure (BG_TYPE_SHUTDOWN_MODE);
  g_type_ensure (BG_TYPE_LOOP_STATS);
  g_type_ensure (BG_TYPE_OPERATION);
  (void) g_type_class_ref (BG_TYPE_REPLY);
}

static void
bg_loop_class_init (BgLoopClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->constructed = bg_loop_constructed;
  object_class->dispose = bg_loop_dispose;
  object_class->finalize = bg_loop_finalize;
  object_class->get_property = bg_loop_get_property;
  object_class->set_property = bg_loop_set_property;
  ensure_types ();

  /**
   * BgLoop:name: (getter get_name)
   *
   * What the loop is called, in messages and as its thread's name.
   *
   * Since: 1.0
   */
  properties[PROP_NAME]
      = g_param_spec_string ("name", NULL, NULL, NULL,
                             G_PARAM_READWRITE | G_PARAM_CONSTRUCT_ONLY | G_PARAM_STATIC_STRINGS
                                 | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * BgLoop:state: (getter get_state)
   *
   * Where in its life the loop is. Never notified.
   *
   * Since: 1.0
   */
  properties[PROP_STATE]
      = g_param_spec_enum ("state", NULL, NULL, BG_TYPE_LOOP_STATE, BG_LOOP_STOPPED,
                           G_PARAM_READABLE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * BgLoop:linger:
   *
   * For how long the loop stays awake for more work when it has just been busy,
   * and a blocked caller for its answer, in microseconds; so does, for 50 at most,
   * whoever waits for the loop's start or end. 0 turns all of it off.
   *
   * To be woken takes tens of microseconds, everything else less than one. The
   * loop learns whether staying awake pays, and does it only then. On the same
   * processor the two let each other run instead. Beyond the default, 50, the loop
   * stays awake for so long whether that pays or not, which is for tests. It never
   * makes a deadline, a cancellation or delayed work late.
   *
   * It may be set at any time and from any thread.
   *
   * Since: 1.0
   */
  properties[PROP_LINGER]
      = g_param_spec_uint ("linger", NULL, NULL, 0, BG_LINGER_MAX_USEC, BG_LINGER_USEC,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  g_object_class_install_properties (object_class, N_PROPS, properties);
}

static void
bg_loop_init (BgLoop *self)
{
}

/* The loop has been started with the object; this only says if that has failed. */
static gboolean
bg_loop_initable_init (GInitable *initable, GCancellable *cancellable, GError **error)
{
  BgLoop *self = BG_LOOP (initable);

  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;
  if (self->core->failure == NULL)
    return TRUE;

  g_propagate_error (error, g_error_copy (self->core->failure));
  return FALSE;
}

static void
initable_init (GInitableIface *iface)
{
  iface->init = bg_loop_initable_init;
}

/**
 * bg_loop_new:
 * @name: (nullable): what to call the loop; %NULL and "" are "bgloop"
 * @error: return location for an error, or %NULL
 *
 * Starts a loop.
 *
 * When this returns, the loop's thread runs, owns the loop's context and has
 * made it its thread-default one. The thread's name is @name, cut to what the
 * system takes.
 *
 * Fails only if no thread can be had, with the #GThreadError that says why, or no
 * descriptor, with %G_IO_ERROR_TOO_MANY_OPEN_FILES.
 *
 * Returns: (transfer full): a running loop
 *
 * Since: 1.0
 */
BgLoop *
bg_loop_new (const char *name, GError **error)
{
  return g_initable_new (BG_TYPE_LOOP, NULL, error, "name", name, NULL);
}
