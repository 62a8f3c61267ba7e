/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "config.h"

#include <bgloop/base/bg-lock-private.h>
#include <bgloop/bg-test.h>
#include <bgloop/core/bg-core-private.h>
#include <bgloop/core/bg-report-private.h>
#include <bgloop/testing/bg-test-private.h>

/* Which loops there are: for tests that look for those that were left behind. Any thread. They are
 * found and waited for under the registry's lock, and within it looked at under their cores'; they
 * are described without the registry's. */

/* How often loops are looked at that are waited for according to what they do, in
 * milliseconds. */
#define POLL_MSEC 5

static const char *
describe_state (BgCore *self, BgLoopState state, gboolean busy)
{
  gboolean dropped = bg_core_is_dropped (self);

  switch (state)
    {
    case BG_LOOP_RUNNING:
      return busy ? "is busy" : "is idle";
    case BG_LOOP_STOPPING:
      return dropped ? "was dropped and is still stopping" : "is still stopping";
    case BG_LOOP_STOPPED:
    default:
      return dropped ? "is about to go" : "has stopped but is still referred to";
    }
}

static char *
describe_core (BgCore *self, gboolean is_default)
{
  g_autoptr (GPtrArray) work = bg_core_list_work (self);
  g_autofree char *text = NULL;
  BgLoopState state = bg_core_get_state (self);
  gint64 age = g_get_monotonic_time () - bg_core_get_registration (self)->made_at;
  gboolean busy = work->len > 0;

  g_ptr_array_add (work, NULL);
  text = g_strjoinv ("; ", (char **) work->pdata);

  return g_strdup_printf ("the %sloop \"%s\", %" G_GINT64_FORMAT " ms old, %s%s%s",
                          is_default ? "default " : "", bg_core_get_name (self),
                          age / G_TIME_SPAN_MILLISECOND, describe_state (self, state, busy),
                          busy ? ": " : "", text);
}

/**
 * bg_test_mark_loops:
 *
 * A number that tells the loops that are there now from those made later, for
 * [func@Bg.test_describe_loops].
 *
 * Never waits; any thread may call it.
 *
 * Returns: the number
 *
 * Since: 1.0
 */
guint64
bg_test_mark_loops (void)
{
  BgRegistry *registry = bg_registry_get ();
  guint64 last;

  bg_mutex_lock (&registry->lock, BG_LOCK_REGISTRY);
  last = registry->last_serial;
  bg_mutex_unlock (&registry->lock, BG_LOCK_REGISTRY);

  return last;
}

/* With the registry's lock: those that are going count too. */
static gboolean
has_cores_since (BgRegistry *registry, guint64 since)
{
  GList *newest = registry->entries.tail;

  return registry->n_freeing > 0
         || (newest != NULL && bg_core_get_registration (newest->data)->serial > since);
}

static int
max_timeout (int a, int b)
{
  return a == -1 || b == -1 ? -1 : MAX (a, b);
}

/* How long a loop may take to go, in milliseconds, for somebody who does not want to
 * wait (0) or does without a limit (-1). One that nobody has asked to end may never
 * go; one that nothing is in the way of goes by itself. */
static int
get_patience (BgCore *self, int timeout_msec)
{
  BgLoopState state = bg_core_get_state (self);
  gboolean works = FALSE, held = FALSE;

  bg_core_peek_work (self, &works, &held);
  if (state == BG_LOOP_RUNNING || (state == BG_LOOP_STOPPED && !bg_core_is_dropped (self)))
    return timeout_msec == -1 ? BG_TEST_DEFAULT_MSEC : 0;
  if (timeout_msec == -1)
    return -1;
  if (state == BG_LOOP_STOPPING && (works || held))
    return works ? BG_TEST_MOMENT_MSEC : 0;
  return BG_TEST_DEFAULT_MSEC;
}

/* With the registry's lock, and with it for all of them. */
static int
get_patience_since (BgRegistry *registry, guint64 since, int timeout_msec)
{
  int patience = registry->n_freeing > 0 ? BG_TEST_DEFAULT_MSEC : 0;

  for (GList *link = registry->entries.tail; link != NULL; link = link->prev)
    {
      BgCore *core = link->data;

      if (bg_core_get_registration (core)->serial <= since)
        break;
      patience = max_timeout (patience, get_patience (core, timeout_msec));
    }

  return patience;
}

/* With the registry's lock. */
static void
wait_until_gone (BgRegistry *registry, guint64 since, int timeout_msec)
{
  gint64 start = g_get_monotonic_time ();
  gint64 now = start, end;
  int patience = timeout_msec;

  while (has_cores_since (registry, since))
    {
      if (timeout_msec <= 0)
        patience = get_patience_since (registry, since, timeout_msec);
      end = start + (gint64) patience * G_TIME_SPAN_MILLISECOND;
      now = g_get_monotonic_time ();
      if (patience != -1 && now >= end)
        break;

      if (timeout_msec <= 0)
        end = now + POLL_MSEC * G_TIME_SPAN_MILLISECOND;
      registry->n_waiting++;
      g_cond_wait_until (&registry->freed, &registry->lock, end);
      registry->n_waiting--;
    }
}

/**
 * bg_test_describe_loops:
 * @since: what [func@Bg.test_mark_loops] returned, or 0 for all loops
 * @timeout_msec: how long to wait until they are gone, in milliseconds
 *
 * Waits until the loops that were made since then are gone, and describes those
 * that are not, a line each: the name, whether it is the default loop, its age,
 * its state, what runs and for how long, what is queued, and who holds it.
 *
 * A loop is gone when its thread has ended and nobody refers to the object. This
 * ends no loop: one that nobody has asked to stop is there until the time is up.
 *
 * With 0 only those are waited for that stop by themselves, as nothing is in their
 * way: up to 5 seconds, or one if there is work to be done. With -1 there is no limit
 * to that, whatever is in their way, and the others get 5 seconds.
 *
 * Blocks; any thread may call it, but for a loop's that is to be gone.
 *
 * Returns: (transfer full) (nullable): the descriptions, or %NULL if all are gone
 *
 * Since: 1.0
 */
char *
bg_test_describe_loops (guint64 since, int timeout_msec)
{
  BgRegistry *registry = bg_registry_get ();
  g_autoptr (GPtrArray) cores = g_ptr_array_new_with_free_func ((GDestroyNotify) bg_core_unref);
  g_autoptr (GPtrArray) lines = g_ptr_array_new_with_free_func (g_free);
  gpointer default_core;

  g_return_val_if_fail (timeout_msec >= -1, NULL);

  /* What is described is what was waited for in vain: a loop that is made after that, as the
   * kit's own is that frees contexts, is not. */
  bg_mutex_lock (&registry->lock, BG_LOCK_REGISTRY);
  wait_until_gone (registry, since, timeout_msec);
  for (GList *link = registry->entries.head; link != NULL; link = link->next)
    {
      BgCore *core = link->data;

      if (bg_core_get_registration (core)->serial > since && bg_core_try_ref (core))
        g_ptr_array_add (cores, core);
    }
  bg_mutex_unlock (&registry->lock, BG_LOCK_REGISTRY);

  default_core = bg_loop_peek_default ();

  /* Naming functions takes the dynamic linker's lock: not under ours, for which code
   * that is being loaded may wait. */
  for (guint i = 0; i < cores->len; i++)
    {
      BgCore *core = g_ptr_array_index (cores, i);

      g_ptr_array_add (lines, describe_core (core, core == default_core));
    }

  if (lines->len == 0)
    return NULL;

  g_ptr_array_add (lines, NULL);
  return g_strjoinv ("\n", (char **) lines->pdata);
}
