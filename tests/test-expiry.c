/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <unistd.h>

#include "cancels-first.h"

/* What comes at the same moment as the end of an asynchronous wait is made to come there. So the
 * insides are part of this program. */
#include "base/bg-expiry.c"
#undef g_signal_connect_data

#include "util.h"

/* A wait, and what it was told */
typedef struct
{
  GMainContext *context;
  GCancellable *cancellable;
  BgExpiry *expiry;
  int n_cancelled;
  int n_timed_out;
  int n_destroyed;
} Wait;

static void
told (gpointer data, BgWaitResult result)
{
  Wait *self = data;

  g_assert_cmpint (self->n_destroyed, ==, 0);
  if (result == BG_WAIT_CANCELLED)
    self->n_cancelled++;
  else if (result == BG_WAIT_TIMED_OUT)
    self->n_timed_out++;
  else
    g_assert_not_reached ();
}

static void
destroyed (gpointer data)
{
  ((Wait *) data)->n_destroyed++;
}

static void
wait_begin (Wait *self, int timeout_msec)
{
  *self = (Wait){ g_main_context_new (), g_cancellable_new () };
  self->expiry
      = bg_expiry_new (self->context, timeout_msec, self->cancellable, told, self, destroyed);
}

/* Nothing of it is left with the context or with the cancellable. */
static void
wait_end (Wait *self)
{
  bg_expiry_end (self->expiry);
  g_assert_cmpint (self->n_destroyed, ==, 1);
  g_assert_false (g_signal_has_handler_pending (self->cancellable,
                                                g_signal_lookup ("cancelled", G_TYPE_CANCELLABLE),
                                                0, TRUE));
  g_assert_null (g_main_context_find_source_by_id (self->context, 1));
  g_cancellable_cancel (self->cancellable);
  while (g_main_context_iteration (self->context, FALSE))
    ;
  g_assert_cmpint (self->n_destroyed, ==, 1);
  g_assert_finalize_object (self->cancellable);
  g_main_context_unref (self->context);
}

/* It ends without either. */
static void
test_nothing (void)
{
  static const int timeouts_msec[] = { -1, G_MAXINT };

  for (guint i = 0; i < G_N_ELEMENTS (timeouts_msec); i++)
    {
      Wait wait;

      wait_begin (&wait, timeouts_msec[i]);
      wait_end (&wait);
      g_assert_cmpint (wait.n_cancelled, ==, 0);
      g_assert_cmpint (wait.n_timed_out, ==, 0);
    }
}

static void
test_cancelled (void)
{
  Wait wait;

  wait_begin (&wait, G_MAXINT);
  g_cancellable_cancel (wait.cancellable);
  g_assert_cmpint (wait.n_cancelled, ==, 1);
  bg_expiry_give_up (wait.expiry);
  g_assert_cmpint (wait.n_cancelled, ==, 2);
  g_assert_cmpint (wait.n_timed_out, ==, 0);
  wait_end (&wait);
}

/* After it was found not to be cancelled, and before its handler is there. */
static void
test_cancelled_between (void)
{
  Wait wait;

  cancels_first = TRUE;
  wait_begin (&wait, G_MAXINT);
  cancels_first = FALSE;
  g_assert_cmpint (wait.n_cancelled, >, 0);
  wait_end (&wait);
}

/* What GLib does to a handler that is disconnected as it is about to be called. */
static void
test_cancelled_late (void)
{
  Wait wait;
  GCancellable *cancellable;

  wait_begin (&wait, -1);
  cancellable = wait.cancellable;
  g_atomic_int_inc (&wait.expiry->ref_count);
  bg_expiry_end (wait.expiry);
  cancelled_cb (cancellable, wait.expiry);
  g_assert_cmpint (wait.n_cancelled, ==, 1);
  g_assert_cmpint (wait.n_destroyed, ==, 0);
  expiry_unref (wait.expiry);
  g_assert_cmpint (wait.n_destroyed, ==, 1);
  g_object_unref (cancellable);
  g_main_context_unref (wait.context);
}

static void
test_timed_out (void)
{
  Wait wait;

  wait_begin (&wait, 0);
  g_assert_cmpint (wait.n_timed_out, ==, 0);
  g_assert_true (g_main_context_iteration (wait.context, TRUE));
  g_assert_cmpint (wait.n_timed_out, ==, 1);
  g_assert_cmpint (wait.n_cancelled, ==, 0);
  wait_end (&wait);
}

/* In a forked child nobody waits for it. */
static void
test_forked (void)
{
  Wait wait;
  pid_t pid;

  bg_fork_watch ();
  wait_begin (&wait, 0);
  pid = util_fork ();
  if (pid == 0)
    {
      g_cancellable_cancel (wait.cancellable);
      bg_expiry_give_up (wait.expiry);
      g_main_context_iteration (wait.context, TRUE);
      bg_expiry_end (wait.expiry);
      _exit (wait.n_cancelled == 0 && wait.n_timed_out == 0 && wait.n_destroyed == 0 ? 0 : 1);
    }
  util_wait_for_child (pid);
  wait_end (&wait);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/expiry/nothing", test_nothing);
  g_test_add_func ("/expiry/cancelled", test_cancelled);
  g_test_add_func ("/expiry/cancelled/between-look-and-handler", test_cancelled_between);
  g_test_add_func ("/expiry/cancelled/late", test_cancelled_late);
  g_test_add_func ("/expiry/timed-out", test_timed_out);
  util_add_trapped ("/expiry/forked", test_forked);

  return g_test_run ();
}
