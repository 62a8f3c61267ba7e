/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <stdatomic.h>

#include <glib.h>

#include "base/bg-glib-private.h"

/* Who has the lock of an inbox after whom. The insides are part of this program, which is told for
 * which lock each of its threads waits. */

typedef struct
{
  char name;
  _Atomic (GMutex *) waits_for; /* (nullable) that another thread had */
  _Atomic guint n_tries;
  GThread *thread;
} Taker;

static __thread Taker *taker;

static gboolean
try_lock_of_test (GMutex *mutex)
{
  if (taker != NULL)
    atomic_fetch_add (&taker->n_tries, 1);
  return g_mutex_trylock (mutex);
}

static void
lock_of_test (GMutex *mutex)
{
  if (g_mutex_trylock (mutex))
    return;

  if (taker != NULL)
    atomic_store (&taker->waits_for, mutex);
  g_mutex_lock (mutex);
  if (taker != NULL)
    atomic_store (&taker->waits_for, NULL);
}

#define g_mutex_lock    lock_of_test
#define g_mutex_trylock try_lock_of_test
#include "inbox/bg-inbox.c"
#undef g_mutex_lock
#undef g_mutex_trylock

#include "util.h"

static BgInbox *inbox;
static GMainContext *context;
static GString *order; /* under the lock of the inbox: the names of those who have had it */

static gpointer
take_thread (gpointer data)
{
  taker = data;
  bg_inbox_lock (inbox);
  g_string_append_c (order, taker->name);
  bg_inbox_unlock (inbox);
  return NULL;
}

static gpointer
look_thread (gpointer data)
{
  taker = data;
  bg_inbox_lock_to_look (inbox);
  g_string_append_c (order, taker->name);
  bg_inbox_unlock_after_look (inbox);
  return NULL;
}

/* Returns the lock that it waits for while this thread has that of the inbox. */
static GMutex *
start (Taker *self, char name, GThreadFunc func)
{
  GMutex *mutex;

  self->name = name;
  self->thread = g_thread_new ("taker", func, self);
  while ((mutex = atomic_load (&self->waits_for)) == NULL)
    g_thread_yield ();
  return mutex;
}

static void
set_up (void)
{
  inbox = g_aligned_alloc0 (1, sizeof *inbox, BG_CACHE_LINE_BYTES);
  context = bg_glib_context_new (NULL);
  order = g_string_new (NULL);
  bg_inbox_init (inbox, context, NULL, NULL, BG_LOCK_CORE);
}

static void
tear_down (void)
{
  bg_inbox_stop (inbox);
  bg_inbox_clear (inbox);
  g_main_context_unref (context);
  g_string_free (order, TRUE);
  g_aligned_free (inbox);
}

/* However soon a thread looks again, whoever sleeps meanwhile has the lock first. */
static void
test_sleeper_is_next (void)
{
  Taker first = { 0 }, second = { 0 };

  set_up ();
  bg_inbox_lock (inbox);
  g_assert_true (start (&first, 'f', take_thread) == &inbox->lock);
  g_assert_true (start (&second, 's', take_thread) == &inbox->next);
  bg_inbox_unlock (inbox);
  g_thread_join (first.thread);
  g_thread_join (second.thread);
  g_assert_cmpstr (order->str, ==, "fs");
  g_string_truncate (order, 0);

  bg_inbox_lock_to_look (inbox);
  for (guint i = 1; i <= util_scale (200); i++)
    {
      Taker sleeper = { 0 };

      g_assert_true (start (&sleeper, 's', take_thread) == &inbox->lock);
      bg_inbox_unlock_after_look (inbox);
      bg_inbox_lock_to_look (inbox);
      g_assert_cmpuint (order->len, ==, i);
      g_thread_join (sleeper.thread);
    }
  bg_inbox_unlock_after_look (inbox);
  tear_down ();
}

/* However many look, each once more at the most, the one who sleeps comes before all that do not
 * wait for the lock yet. */
static void
test_one_looker_waits (void)
{
  Taker sleeper = { 0 }, lookers[3] = { { 0 } };

  set_up ();
  bg_inbox_lock_to_look (inbox);
  for (guint i = 0; i < G_N_ELEMENTS (lookers); i++)
    g_assert_true (start (&lookers[i], 'l', look_thread) == &inbox->looker);
  g_assert_true (start (&sleeper, 's', take_thread) == &inbox->lock);

  bg_inbox_unlock_after_look (inbox);
  g_thread_join (sleeper.thread);
  for (guint i = 0; i < G_N_ELEMENTS (lookers); i++)
    g_thread_join (lookers[i].thread);
  g_assert_cmpstr (order->str, ==, "slll");
  tear_down ();
}

/* A thread that looks keeps the lock for long: nobody waits for it awake. */
static void
test_nobody_waits_awake (void)
{
  Taker sleeper = { 0 };

  set_up ();
  bg_inbox_lock_to_look (inbox);
  start (&sleeper, 's', take_thread);
  g_assert_cmpuint (atomic_load (&sleeper.n_tries), ==, 1);
  bg_inbox_unlock_after_look (inbox);
  g_thread_join (sleeper.thread);

  /* For whoever keeps it for a moment a thread stays awake, afterwards as before. */
  sleeper = (Taker){ 0 };
  bg_inbox_lock (inbox);
  start (&sleeper, 's', take_thread);
  g_assert_cmpuint (atomic_load (&sleeper.n_tries), >, LOCK_YIELDS);
  bg_inbox_unlock (inbox);
  g_thread_join (sleeper.thread);
  tear_down ();
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);
  g_test_add_func ("/inbox-lock/sleeper-is-next", test_sleeper_is_next);
  g_test_add_func ("/inbox-lock/one-looker-waits", test_one_looker_waits);
  g_test_add_func ("/inbox-lock/nobody-waits-awake", test_nobody_waits_awake);
  return g_test_run ();
}
