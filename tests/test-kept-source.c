/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "util.h"

/* Somebody keeps a source of the library's that has run something of theirs, and destroys it later,
 * or gives it another callback: in another piece of work, in a source of their own, or elsewhere.
 * Whatever the source serves is none the worse for it. */

typedef enum
{
  IN_WORK,
  IN_REPLY_OR_SOURCE,
  OUTSIDE, /* of any dispatch: of replies, on the thread that iterates */
  IN_THREAD,
  N_PLACES,
} Place;

typedef struct
{
  BgLoop *loop;
  gboolean takes_callback; /* instead of destroying it */
  gboolean in_thread;      /* and not on the loop's */
  guint n_run;             /* how often a function has run, some of which want to run five times */
  GSource *source;         /* (owned) (nullable) that was kept */
  int n_notified;          /* of callbacks that the source was given */
  UtilLatch replied;
} Keeper;

/* It may look at the loop: no lock is held. */
static void
keeper_notified (gpointer user_data)
{
  Keeper *self = user_data;

  g_free (bg_loop_describe (self->loop));
  g_atomic_int_inc (&self->n_notified);
}

static void
keeper_meddle (Keeper *self)
{
  if (self->takes_callback)
    g_source_set_callback (self->source, util_remove_cb, self, keeper_notified);
  else
    g_source_destroy (self->source);
}

static void
keep_cb (gpointer user_data)
{
  ((Keeper *) user_data)->source = g_source_ref (g_main_current_source ());
}

static gboolean
go_on_cb (gpointer user_data)
{
  return ++((Keeper *) user_data)->n_run < 5;
}

static gboolean
keep_call_cb (gpointer user_data, GError **error)
{
  keep_cb (user_data);
  return TRUE;
}

static gboolean
meddle_call_cb (gpointer user_data, GError **error)
{
  keeper_meddle (user_data);
  return TRUE;
}

static gboolean
meddle_source_cb (gpointer user_data)
{
  Keeper *self = user_data;

  keeper_meddle (self);
  util_latch_count_down (&self->replied);
  return G_SOURCE_REMOVE;
}

static void
meddle_in_source (Keeper *self)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  util_latch_init (&self->replied, 1);
  g_source_set_callback (source, meddle_source_cb, self, NULL);
  g_assert_true (bg_loop_attach (self->loop, source));
  util_latch_wait (&self->replied);
  util_latch_clear (&self->replied);
}

static gpointer
meddle_thread (gpointer user_data)
{
  keeper_meddle (user_data);
  return NULL;
}

/* The source goes without being destroyed by the one that keeps it, and nobody else has it then. */
static void
keeper_release (Keeper *self)
{
  while (!g_source_is_destroyed (self->source))
    {
      if (!g_main_context_iteration (g_main_context_get_thread_default (), FALSE))
        g_thread_yield ();
    }
  while (g_atomic_int_get ((int *) &self->source->ref_count) > 1)
    g_thread_yield ();
  g_clear_pointer (&self->source, g_source_unref);
  g_assert_cmpint (g_atomic_int_get (&self->n_notified), ==, self->takes_callback ? 1 : 0);
  self->n_notified = 0;
}

static void
meddle_with_loop (Keeper *self, Place place, int priority)
{
  switch (place)
    {
    case IN_WORK:
      g_assert_true (
          bg_loop_call_full (self->loop, priority, -1, meddle_call_cb, self, NULL, NULL));
      break;
    case IN_REPLY_OR_SOURCE:
      meddle_in_source (self);
      break;
    case OUTSIDE:
      keeper_meddle (self);
      break;
    default:
      g_thread_join (g_thread_new ("meddles", meddle_thread, self));
    }
}

static void
test_kept (BgTestFixture *fixture, gconstpointer data)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };

  for (guint i = 0; i < 2 * 9 * N_PLACES; i++)
    {
      Keeper self = { fixture->loop, i % 2 };
      int kept = priorities[i / 2 % 3];

      g_assert_true (bg_loop_call_full (self.loop, kept, -1, keep_call_cb, &self, NULL, NULL));
      meddle_with_loop (&self, i / 18, priorities[i / 6 % 3]);
      for (guint j = 0; j < G_N_ELEMENTS (priorities); j++)
        g_assert_true (
            bg_loop_call_full (self.loop, priorities[j], -1, util_true_cb, NULL, NULL, NULL));
      keeper_release (&self);
    }
}

/* The same as the loop drains: all that runs then may be run by one source. */

static void
meddle_cb (gpointer user_data)
{
  keeper_meddle (user_data);
}

static void
wait_for_meddler_cb (gpointer user_data)
{
  Keeper *self = user_data;

  keep_cb (self);
  g_thread_join (g_thread_new ("meddles", meddle_thread, self));
}

static void
test_kept_draining (void)
{
  for (guint i = 0; i < 2 * 4; i++)
    {
      Keeper self = { util_loop_new ("kept"), i % 2 };
      UtilBlock block;

      util_block (&block, self.loop);
      g_assert_true (
          bg_loop_post (self.loop, i / 2 % 2 ? keep_cb : wait_for_meddler_cb, &self, NULL));
      if (i / 2 % 2)
        g_assert_true (bg_loop_post_full (self.loop, i / 4 ? 0 : 200, meddle_cb, &self, NULL));
      g_assert_true (bg_loop_invoke_full (self.loop, G_PRIORITY_LOW, go_on_cb, &self, NULL));
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      g_assert_cmpuint (self.n_run, ==, 5);
      keeper_release (&self);
      util_loop_end (self.loop);
      util_block_clear (&block);
    }
}

static void
keep_once_cb (gpointer user_data)
{
  if (((Keeper *) user_data)->source == NULL)
    keep_cb (user_data);
}

/* The loop waits for a hold, and notices that it is released by nothing but the source that was
 * destroyed. */

static gboolean
keep_and_meddle_cb (gpointer user_data)
{
  Keeper *self = user_data;

  if (self->source == NULL)
    {
      if (bg_loop_get_state (self->loop) == BG_LOOP_STOPPING)
        g_assert_true (bg_loop_post (self->loop, keep_once_cb, self, NULL));
      return G_SOURCE_CONTINUE;
    }

  if (self->in_thread)
    g_thread_join (g_thread_new ("meddles", meddle_thread, self));
  else
    keeper_meddle (self);
  util_latch_count_down (&self->replied);
  return G_SOURCE_REMOVE;
}

static void
test_kept_held (void)
{
  for (guint i = 0; i < 4; i++)
    {
      g_autoptr (GSource) source = g_timeout_source_new (1);
      Keeper self = { util_loop_new ("held"), i % 2, i / 2 };
      guint64 hold = bg_loop_hold (self.loop, "held");

      util_latch_init (&self.replied, 1);
      g_source_set_callback (source, keep_and_meddle_cb, &self, NULL);
      g_assert_true (bg_loop_attach (self.loop, source));
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_latch_wait (&self.replied);
      bg_loop_release (self.loop, hold);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      keeper_release (&self);
      util_loop_end (self.loop);
      util_latch_clear (&self.replied);
    }
}

/* A source that was given another callback runs what it ran: that goes on. */

static gboolean
meddle_and_go_on_cb (gpointer user_data)
{
  Keeper *self = user_data;

  if (++self->n_run == 2)
    keeper_meddle (self);
  return self->n_run < 5;
}

static void
test_goes_on (void)
{
  Keeper self = { util_loop_new ("goes on"), TRUE };
  UtilBlock block;

  util_block (&block, self.loop);
  g_assert_true (bg_loop_post (self.loop, keep_cb, &self, NULL));
  g_assert_true (bg_loop_invoke_full (self.loop, G_PRIORITY_LOW, meddle_and_go_on_cb, &self, NULL));
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpuint (self.n_run, ==, 5);
  keeper_release (&self);
  util_loop_end (self.loop);
  util_block_clear (&block);
}

/* The last thing that happens before the loop ends. */

static void
last_cb (gpointer user_data)
{
  ((Keeper *) user_data)->n_run = 1;
}

static gboolean
meddle_at_last_cb (gpointer user_data)
{
  Keeper *self = user_data;

  if (self->n_run == 1)
    g_thread_join (g_thread_new ("meddles", meddle_thread, self));
  self->n_run *= 2;
  return G_SOURCE_CONTINUE;
}

/* The source comes after the one that drains, in each turn. */
static void
keep_and_attach_cb (gpointer user_data)
{
  Keeper *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  keep_cb (self);
  g_source_set_priority (source, G_MININT);
  g_source_set_callback (source, meddle_at_last_cb, self, NULL);
  g_assert_true (bg_loop_attach (self->loop, source));
}

static void
test_ends (void)
{
  for (guint i = 0; i < 2; i++)
    {
      Keeper self = { util_loop_new ("ends"), i % 2 };
      UtilBlock block;

      util_block (&block, self.loop);
      g_assert_true (
          bg_loop_post_full (self.loop, G_PRIORITY_LOW, keep_and_attach_cb, &self, NULL));
      g_assert_true (bg_loop_post_full (self.loop, G_PRIORITY_LOW + 1, last_cb, &self, NULL));
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      g_assert_true (bg_loop_shutdown (self.loop, NULL));
      g_assert_cmpuint (self.n_run, >, 1);
      keeper_release (&self);
      util_loop_end (self.loop);
      util_block_clear (&block);
    }
}

/* What the callback has to do with may have the loop in turn: when that has ended, it has no source
 * any more. */
static void
test_ended (void)
{
  BgLoop *loop = util_loop_new ("ended");
  g_autoptr (GMainContext) context G_GNUC_UNUSED = g_main_context_ref (bg_loop_get_context (loop));
  Keeper self = { loop };

  g_object_add_weak_pointer (G_OBJECT (loop), (gpointer *) &loop);
  g_assert_true (bg_loop_call (loop, keep_call_cb, &self, NULL, NULL));
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_source_set_callback (self.source, util_remove_cb, loop, g_object_unref);
  g_source_unref (self.source);
  g_assert_null (loop);
}

static void
keep_in_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Keeper *self = user_data;

  keep_cb (self);
  util_latch_count_down (&self->replied);
}

static void
meddle_in_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Keeper *self = user_data;

  keeper_meddle (self);
  util_latch_count_down (&self->replied);
}

static void
keeper_ask (Keeper *self, int priority, GAsyncReadyCallback callback)
{
  bg_loop_call_async (self->loop, priority, -1, util_true_cb, NULL, NULL, NULL, callback, self);
}

static void
reply_to_keeper_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Keeper *self = user_data;

  g_assert_true (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  util_latch_count_down (&self->replied);
}

static void
keeper_await (Keeper *self, int n)
{
  util_latch_init (&self->replied, n);
}

static void
keeper_awaited (Keeper *self)
{
  util_iterate_until (&self->replied);
  util_latch_clear (&self->replied);
}

/* While there are answers that have arrived, and others that have not. */
static void
meddle_with_replies (Keeper *self, Place place, int priority)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };
  UtilBlock block;

  keeper_await (self, 6 + (place == IN_REPLY_OR_SOURCE));
  for (guint i = 0; i < 3; i++)
    keeper_ask (self, priorities[i], reply_to_keeper_cb);
  if (place == IN_REPLY_OR_SOURCE)
    keeper_ask (self, priority, meddle_in_reply_cb);
  util_block (&block, self->loop);
  for (guint i = 0; i < 3; i++)
    keeper_ask (self, priorities[i], reply_to_keeper_cb);
  if (place == IN_THREAD)
    g_thread_join (g_thread_new ("meddles", meddle_thread, self));
  else if (place == OUTSIDE)
    keeper_meddle (self);
  else if (place == IN_WORK)
    g_assert_true (bg_loop_post_full (self->loop, priority, meddle_cb, self, NULL));
  util_unblock (&block);
  keeper_awaited (self);
  util_block_clear (&block);
}

static void
test_kept_in_replies (BgTestFixture *fixture, gconstpointer data)
{
  static const int priorities[] = { G_PRIORITY_DEFAULT, G_PRIORITY_LOW, G_PRIORITY_HIGH };
  g_autoptr (GMainContext) context = g_main_context_new ();

  for (guint i = 0; i < 4 * 9 * N_PLACES; i++)
    {
      Keeper self = { fixture->loop, i % 2 };

      g_main_context_push_thread_default (i / 2 % 2 ? context : NULL);
      keeper_await (&self, 1);
      keeper_ask (&self, priorities[i / 4 % 3], keep_in_reply_cb);
      keeper_awaited (&self);
      meddle_with_replies (&self, i / 36, priorities[i / 12 % 3]);
      keeper_await (&self, 3);
      for (guint j = 0; j < G_N_ELEMENTS (priorities); j++)
        keeper_ask (&self, priorities[j], reply_to_keeper_cb);
      keeper_awaited (&self);
      keeper_release (&self);
      g_main_context_pop_thread_default (i / 2 % 2 ? context : NULL);
    }
}

/* A loop knows what it is owed, though it asks while its source for replies is none any more, and
 * has just asked for another context. */

static void
ignore_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
}

static gboolean
meddle_and_ask_cb (gpointer user_data, GError **error)
{
  Keeper *self = user_data;
  g_autoptr (GMainContext) context = g_main_context_new ();

  g_main_context_push_thread_default (context);
  keeper_ask (self, 0, ignore_reply_cb);
  g_main_context_pop_thread_default (context);
  g_thread_join (g_thread_new ("meddles", meddle_thread, self));
  keeper_ask (self, 0, reply_to_keeper_cb);
  return TRUE;
}

static gboolean
ask_and_keep_cb (gpointer user_data, GError **error)
{
  keeper_ask (user_data, 0, keep_in_reply_cb);
  return TRUE;
}

static void
test_owed (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < 2; i++)
    {
      BgLoop *loop = util_loop_new ("owed");
      Keeper self = { fixture->loop, i };
      g_autofree char *description = NULL;
      UtilBlock block;

      keeper_await (&self, 1);
      g_assert_true (bg_loop_call (loop, ask_and_keep_cb, &self, NULL, NULL));
      util_latch_wait (&self.replied);
      util_latch_clear (&self.replied);
      keeper_await (&self, 1);
      util_block (&block, fixture->loop);
      g_assert_true (bg_loop_call (loop, meddle_and_ask_cb, &self, NULL, NULL));
      bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      description = bg_loop_describe (loop);
      g_assert_nonnull (strstr (description, "waiting for the reply"));
      util_unblock (&block);
      util_loop_end (loop);
      g_assert_true (util_latch_is_open (&self.replied));
      keeper_release (&self);
      util_block_clear (&block);
      util_latch_clear (&self.replied);
    }
}

/* A step of a loop that stands still does not count what only takes a source's place. */

static void
nothing_kept_cb (gpointer user_data)
{
  ((Keeper *) user_data)->n_run++;
}

static gboolean
keep_and_tell_cb (gpointer user_data, GError **error)
{
  keep_cb (user_data);
  util_latch_count_down (&((Keeper *) user_data)->replied);
  return TRUE;
}

static void
test_stands_still (BgTestFixture *fixture, gconstpointer data)
{
  for (guint i = 0; i < 4; i++)
    {
      BgLoop *loop = util_loop_new ("stands still");
      Keeper self = { i / 2 ? fixture->loop : loop, i % 2 };

      keeper_await (&self, 1);
      if (i / 2)
        g_assert_true (bg_loop_call (loop, ask_and_keep_cb, &self, NULL, NULL));
      else
        g_assert_true (bg_loop_call (loop, keep_and_tell_cb, &self, NULL, NULL));
      util_latch_wait (&self.replied);
      g_assert_true (bg_test_pause (loop, NULL));
      g_assert_true (bg_loop_post (loop, nothing_kept_cb, &self, NULL));
      keeper_meddle (&self);
      g_assert_cmpint (bg_test_run_until_idle (loop, NULL), ==, 1);
      g_assert_cmpuint (self.n_run, ==, 1);
      bg_test_resume (loop);
      keeper_release (&self);
      util_loop_end (loop);
      util_latch_clear (&self.replied);
    }
}

/* What has kept the source that runs it, and seen to it that the source is none any more, ends the
 * thread in it: nothing of the source is left behind, nor of the mailbox of a reply. */

typedef enum
{
  IN_POST,
  IN_REPLY,
  AS_IT_DRAINS,
  N_ENDS,
} End;

typedef struct
{
  Keeper keeper;
  BgLoop *other; /* that is asked */
  End end;
  gboolean nested; /* it runs within another one that has done the same */
  GSource *outer;  /* (owned) (nullable) that runs the other one */
} Ends;

static void ends_cb (gpointer user_data);

static void
ends_in_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  ends_cb (user_data);
}

static gboolean
ends_ask_cb (gpointer user_data, GError **error)
{
  Ends *self = user_data;

  bg_loop_call_async (self->other, 0, -1, util_true_cb, NULL, NULL, NULL, ends_in_reply_cb, self);
  return TRUE;
}

static void
ends_cb (gpointer user_data)
{
  Ends *self = user_data;
  Keeper *keeper = &self->keeper;

  self->outer = keeper->source;
  keep_cb (keeper);
  if (keeper->in_thread)
    g_thread_join (g_thread_new ("meddles", meddle_thread, keeper));
  else
    keeper_meddle (keeper);
  if (!self->nested)
    g_thread_exit (NULL);

  self->nested = FALSE;
  if (self->end == IN_REPLY)
    ends_ask_cb (self, NULL);
  else
    g_assert_true (bg_loop_post (keeper->loop, ends_cb, self, NULL));
  while (TRUE)
    g_main_context_iteration (bg_loop_get_context (keeper->loop), TRUE);
}

/* As a loop ends, it looks what others still have of what was in contexts of earlier ones. The thread
 * that has ended may not have got there yet. */
static void
assert_goes (GSource *source)
{
  int n_gone = 0;

  g_source_set_callback (source, util_remove_cb, &n_gone, util_count_cb);
  g_source_unref (source);
  while (g_atomic_int_get (&n_gone) == 0)
    util_loop_end (util_loop_new ("looks"));
}

static void
test_thread_ends (BgTestFixture *fixture, gconstpointer data)
{
  util_catch_criticals ();
  for (guint i = 0; i < 8 * N_ENDS; i++)
    {
      Ends self = { .other = fixture->loop, .end = i / 8, .nested = i / 4 % 2 };
      BgLoop *loop = self.keeper.loop = util_loop_new ("ends");
      g_autoptr (GMainContext) context G_GNUC_UNUSED
          = g_main_context_ref (bg_loop_get_context (loop));
      UtilBlock block;

      self.keeper.takes_callback = i % 2;
      self.keeper.in_thread = i / 2 % 2;
      util_block (&block, loop);
      if (self.end == IN_REPLY)
        bg_loop_call_async (loop, 0, -1, ends_ask_cb, &self, NULL, NULL, NULL, NULL);
      else
        g_assert_true (bg_loop_post (loop, ends_cb, &self, NULL));
      if (self.end == AS_IT_DRAINS)
        bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
      util_unblock (&block);
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      util_take_critical ("*has ended the thread of the loop*ends*");
      g_assert_finalize_object (loop);
      assert_goes (self.keeper.source);
      if (self.outer != NULL)
        assert_goes (self.outer);
      util_block_clear (&block);
    }
}

/* A source that was given another callback and is about to be dispatched has that to give back, if
 * the thread ends in there. */

static void
meddle_in_work_cb (gpointer user_data)
{
  Keeper *self = user_data;

  /* The turn of the priority whose source was kept comes next. */
  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_LOW, util_exit_thread_cb, NULL, NULL));
  g_thread_join (g_thread_new ("meddles", meddle_thread, self));
}

static void
test_thread_ends_next (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < 2; i++)
    {
      Keeper self = { util_loop_new ("ends"), i };
      g_autoptr (GMainContext) context G_GNUC_UNUSED
          = g_main_context_ref (bg_loop_get_context (self.loop));

      g_assert_true (
          bg_loop_call_full (self.loop, G_PRIORITY_LOW, -1, keep_call_cb, &self, NULL, NULL));
      g_assert_true (bg_loop_post (self.loop, meddle_in_work_cb, &self, NULL));
      g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
      util_take_critical ("*has ended the thread of the loop*ends*");
      g_assert_cmpint (self.n_notified, ==, self.takes_callback ? 1 : 0);
      g_assert_finalize_object (self.loop);
      assert_goes (self.source);
    }
}

/* The same of the source that drains */

static gboolean
keep_meddle_and_end_cb (gpointer user_data)
{
  Keeper *self = user_data;

  if (self->source == NULL)
    {
      if (bg_loop_get_state (self->loop) == BG_LOOP_STOPPING)
        g_assert_true (bg_loop_post (self->loop, keep_once_cb, self, NULL));
      return G_SOURCE_CONTINUE;
    }

  if (self->n_run++ == 0)
    {
      g_assert_true (bg_loop_post (self->loop, util_exit_thread_cb, NULL, NULL));
      return G_SOURCE_CONTINUE;
    }

  /* The source that drains has let this one have a turn: the next one is its own. */
  g_thread_join (g_thread_new ("meddles", meddle_thread, self));
  return G_SOURCE_REMOVE;
}

static void
test_thread_ends_draining (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GSource) source = g_idle_source_new ();
      Keeper self = { util_loop_new ("ends"), i };
      g_autoptr (GMainContext) context G_GNUC_UNUSED
          = g_main_context_ref (bg_loop_get_context (self.loop));

      g_assert_cmpuint (bg_loop_hold (self.loop, "held"), !=, 0);
      g_source_set_callback (source, keep_meddle_and_end_cb, &self, NULL);
      g_assert_true (bg_loop_attach (self.loop, source));
      bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
      g_assert_true (bg_loop_wait (self.loop, -1, NULL, NULL));
      util_take_critical ("*has ended the thread of the loop*ends*");
      g_assert_cmpint (self.n_notified, ==, self.takes_callback ? 1 : 0);
      g_assert_finalize_object (self.loop);
      assert_goes (self.source);
    }
}

/* A context that the loop's thread has iterated as it ended is nobody's after that. */

static void
iterate_and_end_cb (gpointer loop)
{
  g_assert_true (bg_loop_post (loop, util_exit_thread_cb, NULL, NULL));
  while (TRUE)
    g_main_context_iteration (bg_loop_get_context (loop), TRUE);
}

static void
test_context_released (void)
{
  BgLoop *loop = util_loop_new ("ends");
  g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (loop));

  util_catch_criticals ();
  g_assert_true (bg_loop_post (loop, iterate_and_end_cb, loop, NULL));
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  util_take_critical ("*has ended the thread of the loop*ends*");
  g_assert_true (g_main_context_acquire (context));
  g_main_context_release (context);
  g_assert_finalize_object (loop);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped_with_loop ("/kept-source/of-loop", test_kept);
  util_add_trapped ("/kept-source/as-it-drains", test_kept_draining);
  util_add_trapped ("/kept-source/as-it-is-held", test_kept_held);
  util_add_trapped ("/kept-source/goes-on", test_goes_on);
  util_add_trapped ("/kept-source/as-it-ends", test_ends);
  util_add_trapped ("/kept-source/ended", test_ended);
  util_add_trapped_with_loop ("/kept-source/stands-still", test_stands_still);
  util_add_trapped_with_loop ("/kept-source/of-replies", test_kept_in_replies);
  util_add_trapped_with_loop ("/kept-source/owed", test_owed);
  util_add_trapped_with_loop ("/kept-source/thread-ends", test_thread_ends);
  util_add_trapped ("/kept-source/thread-ends/next", test_thread_ends_next);
  util_add_trapped ("/kept-source/thread-ends/as-it-drains", test_thread_ends_draining);
  util_add_trapped ("/kept-source/context-released", test_context_released);

  return g_test_run ();
}
