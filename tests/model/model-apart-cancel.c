/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "model-apart.h"
#include "model-world.h"
#include "util.h"

/* A cancellation that comes as a wait is over does not end the thread's next one: its handlers
 * run in another thread meanwhile, of which the first keeps the next, the library's, until the
 * function that is waited for is over. Or until the caller has woken, which does not wait for
 * handlers. */

#define N_ROUNDS         30
#define BUSY_USEC        30
#define INTERRUPTED_USEC 200
#define SPINS            1000 /* until others may run */

typedef struct
{
  _Atomic (GCancellable *) next; /* (nullable) that is to be cancelled; has been when it is gone */
  _Atomic int handled;           /* a handler of it has begun */
  _Atomic int returns;           /* the function that is waited for */
  _Atomic int returned;          /* the caller has */
  _Atomic int waits;             /* the handler, until then */
  _Atomic int over;
  _Atomic guint delay; /* of that handler then, in turns */
  pthread_t thread;    /* that cancels, before a handler has begun */
} LateCancel;

static __thread LateCancel *interrupted;

/* The thread that cancels is kept where it is just then, so that it goes on when the caller has
 * woken. It may have a lock that the caller needs: that is not for ever. */
static void
interrupt_cb (int signal_number)
{
  gint64 end = g_get_monotonic_time () + INTERRUPTED_USEC;

  while (interrupted != NULL && !atomic_load (&interrupted->returned)
         && g_get_monotonic_time () < end)
    sched_yield ();
}

static gpointer
cancel_thread (gpointer data)
{
  LateCancel *self = data;

  interrupted = self;
  self->thread = pthread_self ();
  while (!atomic_load (&self->over))
    {
      g_autoptr (GCancellable) cancellable = atomic_load (&self->next);

      if (cancellable == NULL)
        {
          g_thread_yield ();
          continue;
        }
      g_cancellable_cancel (cancellable);
      atomic_store (&self->next, NULL);
    }
  return NULL;
}

static void
first_handler_cb (GCancellable *cancellable, gpointer data)
{
  LateCancel *self = data;

  atomic_store (&self->handled, TRUE);
  for (guint n = 1; !atomic_load (atomic_load (&self->waits) ? &self->returned : &self->returns);
       n++)
    if (n % SPINS == 0)
      g_thread_yield ();
  for (volatile guint i = atomic_load (&self->delay); i > 0; i--)
    ;
}

typedef struct
{
  LateCancel *late;
  GCancellable *cancellable;
} Round;

static gboolean
have_cancelled_cb (gpointer data, GError **error)
{
  Round *round = data;

  atomic_store (&round->late->next, g_object_ref (round->cancellable));
  while (!atomic_load (&round->late->handled))
    g_thread_yield ();
  atomic_store (&round->late->returns, TRUE);
  if (!atomic_load (&round->late->waits))
    pthread_kill (round->late->thread, SIGUSR1);
  return TRUE;
}

static void
busy_cb (gpointer data)
{
  util_spin_until (g_get_monotonic_time () + BUSY_USEC);
}

static void
run_round (LateCancel *self, BgLoop *loop)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  Round round = { self, cancellable };

  atomic_store (&self->handled, FALSE);
  atomic_store (&self->returns, FALSE);
  atomic_store (&self->returned, FALSE);
  g_signal_connect (cancellable, "cancelled", G_CALLBACK (first_handler_cb), self);
  if (!bg_loop_call (loop, have_cancelled_cb, &round, cancellable, &error))
    model_fail ("a call that was cancelled as it ran: %s", error->message);
  atomic_store (&self->returned, TRUE);
  g_clear_error (&error);

  g_assert_true (bg_loop_post (loop, busy_cb, NULL, NULL));
  if (!bg_loop_call (loop, util_true_cb, NULL, NULL, &error))
    model_fail ("a call that nobody cancels: %s", error->message);
  while (atomic_load (&self->next) != NULL)
    g_thread_yield ();
}

void
model_apart_late_cancel (const ModelOp *op)
{
  struct sigaction action = { .sa_handler = interrupt_cb, .sa_flags = SA_RESTART };
  BgLoop *loop = util_loop_new ("late");
  LateCancel self = { NULL };
  GThread *thread;

  sigaction (SIGUSR1, &action, NULL);
  thread = g_thread_new ("cancels", cancel_thread, &self);

  for (guint i = 0; i < N_ROUNDS; i++)
    {
      atomic_store (&self.delay, (op->variant * (i + 1) & 0xfff) >> i % 4);
      atomic_store (&self.waits, i % 4 == 0 && op->amount == 0);
      run_round (&self, loop);
    }

  atomic_store (&self.over, TRUE);
  g_thread_join (thread);
  util_loop_end (loop);
}
