/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include "util.h"

/* A reply to work that was accepted is owed. One loop, the asker, asks another one, or
 * itself, and is shut down. */

typedef enum
{
  CALL,
  PERFORM,
  OPERATION,
  SHUTDOWN,
  WAIT,
  N_KINDS,
} Kind;

typedef struct
{
  BgLoop *asker;
  BgLoop *asked;
  Kind kind;
  guint n;             /* how often it is asked */
  guint callback_usec; /* how long a callback takes */
  UtilBlock block;
  guint64 hold;

  GAsyncReadyCallback answer; /* of the operation that has begun */
  gpointer answer_data;
  BgOperation *operation;
  GCancellable *cancellable; /* (owned) (nullable) of the operation */
  GWeakRef answered_with;

  int n_run;
  int n_destroyed;
  int n_answered; /* callbacks that got their answer */
  int n_closed;   /* callbacks that were told CLOSED */
  int n_refused;  /* the same of what was refused at once */
} Owed;

gboolean owed_call_cb (gpointer user_data, GError **error);
gboolean owed_begin_cb (gpointer user_data,
                        GCancellable *cancellable,
                        GAsyncReadyCallback callback,
                        gpointer callback_data,
                        GError **error);
gboolean owed_operation_cb (BgOperation *operation,
                            GCancellable *cancellable,
                            gpointer user_data,
                            GError **error);

/* Exported, so that the dynamic linker knows their names. */
gboolean
owed_call_cb (gpointer user_data, GError **error)
{
  Owed *self = user_data;

  g_assert_true (bg_loop_is_current (self->asked));
  self->n_run++;
  return TRUE;
}

gboolean
owed_begin_cb (gpointer user_data,
               GCancellable *cancellable,
               GAsyncReadyCallback callback,
               gpointer callback_data,
               GError **error)
{
  Owed *self = user_data;

  self->n_run++;
  self->answer = callback;
  self->answer_data = callback_data;
  g_set_object (&self->cancellable, cancellable);
  return TRUE;
}

gboolean
owed_operation_cb (BgOperation *operation,
                   GCancellable *cancellable,
                   gpointer user_data,
                   GError **error)
{
  Owed *self = user_data;

  self->n_run++;
  self->operation = bg_operation_ref (operation);
  g_set_object (&self->cancellable, cancellable);
  return TRUE;
}

/* Those that answer at once */

static gboolean
begin_and_answer_cb (gpointer user_data,
                     GCancellable *cancellable,
                     GAsyncReadyCallback callback,
                     gpointer callback_data,
                     GError **error)
{
  g_autoptr (GAsyncResult) answer = util_answer_new (0);

  ((Owed *) user_data)->n_run++;
  callback (NULL, answer, callback_data);
  return TRUE;
}

static gboolean
operate_and_answer_cb (BgOperation *operation,
                       GCancellable *cancellable,
                       gpointer user_data,
                       GError **error)
{
  g_autoptr (GAsyncResult) answer = util_answer_new (0);

  ((Owed *) user_data)->n_run++;
  bg_operation_answer (operation, answer);
  return TRUE;
}

static void
owed_init (Owed *self, Kind kind, guint n)
{
  *self = (Owed){ .kind = kind, .n = n };
  self->asker = util_loop_new ("asker");
  self->asked = util_loop_new ("asked");
  self->hold = bg_loop_hold (self->asked, "owed");
  g_weak_ref_init (&self->answered_with, NULL);
}

static void
destroyed_cb (gpointer user_data)
{
  Owed *self = user_data;

  g_assert_true (bg_loop_is_current (self->asked));
  g_atomic_int_inc (&self->n_destroyed);
}

static gboolean
finish (Owed *self, GAsyncResult *result, GError **error)
{
  g_autoptr (GAsyncResult) answer = NULL;

  switch (self->kind)
    {
    case CALL:
      return bg_loop_call_finish (self->asked, result, error);
    case SHUTDOWN:
      return bg_loop_shutdown_finish (self->asked, result, error);
    case WAIT:
      return bg_loop_wait_finish (self->asked, result, error);
    default:
      answer = bg_loop_perform_finish (self->asked, result, error);
      return answer != NULL;
    }
}

static void
replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (source == G_OBJECT (self->asked));
  g_assert_true (bg_loop_is_current (self->asker));
  g_assert_cmpint (bg_loop_get_state (self->asker), !=, BG_LOOP_STOPPED);
  util_spin_until (g_get_monotonic_time () + self->callback_usec);
  if (finish (self, result, &error))
    {
      g_assert_no_error (error);
      g_atomic_int_inc (&self->n_answered);
    }
  else
    {
      g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
      g_atomic_int_inc (&self->n_closed);
    }
}

static void
ask_once (Owed *self, gboolean at_once)
{
  switch (self->kind)
    {
    case CALL:
      bg_loop_call_async (self->asked, 0, -1, owed_call_cb, self, destroyed_cb, NULL, replied_cb,
                          self);
      break;
    case PERFORM:
      bg_loop_perform_async (self->asked, 0, -1, at_once ? begin_and_answer_cb : owed_begin_cb,
                             self, destroyed_cb, NULL, replied_cb, self);
      break;
    case OPERATION:
      bg_loop_perform_operation_async (self->asked, 0, -1,
                                       at_once ? operate_and_answer_cb : owed_operation_cb, self,
                                       destroyed_cb, NULL, replied_cb, self);
      break;
    case SHUTDOWN:
      bg_loop_shutdown_async (self->asked, BG_SHUTDOWN_DRAIN, -1, NULL, replied_cb, self);
      break;
    default:
      bg_loop_wait_async (self->asked, -1, NULL, replied_cb, self);
      break;
    }
}

static void
ask_cb (gpointer user_data)
{
  Owed *self = user_data;

  for (guint i = 0; i < self->n; i++)
    ask_once (self, FALSE);
}

/* The other loop is asked, and does not answer before it is let to. */
static void
ask_and_leave_waiting (Owed *self)
{
  if (self->kind == CALL)
    util_block (&self->block, self->asked);
  g_assert_true (bg_loop_post (self->asker, ask_cb, self, NULL));
  g_assert_true (bg_loop_flush (self->asker, -1, NULL, NULL));
  if (self->kind == PERFORM || self->kind == OPERATION)
    g_assert_true (bg_loop_flush (self->asked, -1, NULL, NULL));
  g_assert_cmpint (self->n_answered + self->n_closed, ==, 0);
}

static void
let_answer (Owed *self)
{
  g_autoptr (GAsyncResult) answer = util_answer_new (0);

  g_weak_ref_set (&self->answered_with, answer);
  if (self->kind == CALL)
    util_unblock (&self->block);
  else if (self->kind == PERFORM && self->answer != NULL)
    self->answer (NULL, answer, self->answer_data);
  else if (self->kind == OPERATION && self->operation != NULL)
    bg_operation_answer (self->operation, answer);
  else if (self->kind == WAIT)
    bg_loop_quit (self->asked, BG_SHUTDOWN_DRAIN);
  g_clear_pointer (&self->operation, bg_operation_unref);
  bg_loop_release (self->asked, self->hold);
}

/* Nothing is left of what it did. */
static void
owed_end_asked (Owed *self)
{
  util_loop_end (self->asked);
  g_clear_object (&self->cancellable);
  if (self->kind == CALL)
    util_block_clear (&self->block);
  g_assert_cmpint (self->n_destroyed, ==, self->kind < SHUTDOWN ? self->n : 0);
  g_assert_null (g_weak_ref_get (&self->answered_with));
  g_weak_ref_clear (&self->answered_with);
}

static char *
get_timeout_message (BgLoop *loop, BgShutdownMode mode)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (bg_loop_shutdown_full (loop, mode, 1, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  return g_strdup (error->message);
}

static void
assert_matches (const char *text, const char *pattern)
{
  if (!g_regex_match_simple (pattern, text, 0, 0))
    g_error ("\"%s\" does not match \"%s\"", text, pattern);
}

#define OWED_BY "waiting for the reply of \"asked\" to "

/* A loop that drains waits for what it is owed, and says so. One that runs does not wait. */
static void
test_drain_waits (void)
{
  static const char *names[N_KINDS] = {
    UTIL_NAME (owed_call_cb, ".*"),       UTIL_NAME (owed_begin_cb, ".*"),
    UTIL_NAME (owed_operation_cb, ".*"),  UTIL_NAME (bg_loop_shutdown_async, ".*"),
    UTIL_NAME (bg_loop_wait_async, ".*"),
  };

  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      g_autofree char *message = NULL, *text = NULL, *pattern = NULL, *before = NULL;
      Owed self;

      owed_init (&self, kind, 1);
      ask_and_leave_waiting (&self);
      before = bg_loop_describe (self.asker);
      g_assert_null (strstr (before, OWED_BY));
      message = get_timeout_message (self.asker, BG_SHUTDOWN_DRAIN);
      pattern = g_strdup_printf (OWED_BY "%s for (\\d+ ms|\\d+\\.\\d s)$", names[kind]);
      assert_matches (message, pattern);
      text = bg_loop_describe (self.asker);
      assert_matches (text, "\n  " OWED_BY);

      let_answer (&self);
      util_loop_end (self.asker);
      g_assert_cmpint (self.n_answered, ==, 1);
      g_assert_cmpint (self.n_closed, ==, 0);
      owed_end_asked (&self);
    }
}

/* Of many the report names six. */
static void
test_report_of_many (void)
{
  g_autofree char *message = NULL;
  Owed self;

  owed_init (&self, CALL, 1000);
  ask_and_leave_waiting (&self);
  message = get_timeout_message (self.asker, BG_SHUTDOWN_DRAIN);
  assert_matches (message, OWED_BY ".*; and 994 more replies$");
  g_assert_cmpuint (strlen (message), <, 4000);
  let_answer (&self);
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_answered, ==, 1000);
  owed_end_asked (&self);
}

/* A loop that cancels does not wait: its callbacks are told before it ends, operations that
 * are under way for it are cancelled, and what comes later is dropped, with nothing left of it. */
static void
run_cancel (Kind kind, gboolean drains_first)
{
  Owed self;

  owed_init (&self, kind, kind < SHUTDOWN ? 1 : 10);
  ask_and_leave_waiting (&self);
  if (drains_first)
    g_free (get_timeout_message (self.asker, BG_SHUTDOWN_DRAIN));
  g_assert_true (bg_loop_shutdown_full (self.asker, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpint (self.n_closed, ==, self.n);
  g_assert_cmpint (self.n_answered, ==, 0);
  if (kind == PERFORM || kind == OPERATION)
    g_assert_true (g_cancellable_is_cancelled (self.cancellable));
  let_answer (&self);
  owed_end_asked (&self);
  g_assert_cmpint (self.n_closed, ==, self.n);
  g_assert_cmpint (self.n_answered, ==, 0);
  g_assert_finalize_object (self.asker);
}

static void
test_cancel_tells (void)
{
  guint eventfds;

  run_cancel (CALL, FALSE);
  util_loop_end (util_loop_new (NULL));
  eventfds = util_count_eventfds ();
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      run_cancel (kind, FALSE);
      run_cancel (kind, TRUE);
    }
  util_loop_end (util_loop_new (NULL));
  g_assert_cmpuint (util_count_eventfds (), ==, eventfds);
}

/* So is a callback whose work the other loop has not begun, of which all are. */
static void
test_cancel_tells_many (void)
{
  Owed self;

  owed_init (&self, CALL, util_scale (5000));
  ask_and_leave_waiting (&self);
  g_assert_true (bg_loop_shutdown_full (self.asker, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpint (self.n_closed, ==, self.n);
  let_answer (&self);
  owed_end_asked (&self);
  g_assert_cmpint (self.n_run, ==, self.n);
  g_assert_cmpint (self.n_closed, ==, self.n);
  g_assert_cmpint (self.n_answered, ==, 0);
  g_assert_finalize_object (self.asker);
}

/* The answer comes when the callback has been told, and the asker has not ended. */

static void
closed_then_answered_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;

  replied_cb (source, result, self);
  g_assert_cmpint (self->n_closed, ==, 1);
  let_answer (self);
  g_assert_true (bg_loop_flush (self->asked, -1, NULL, NULL));
}

static void
ask_for_late_cb (gpointer user_data)
{
  Owed *self = user_data;

  if (self->kind == CALL)
    bg_loop_call_async (self->asked, 0, -1, owed_call_cb, self, destroyed_cb, NULL,
                        closed_then_answered_cb, self);
  else
    bg_loop_perform_async (self->asked, 0, -1, owed_begin_cb, self, destroyed_cb, NULL,
                           closed_then_answered_cb, self);
}

static void
test_cancel_late (void)
{
  for (Kind kind = CALL; kind <= PERFORM; kind++)
    {
      Owed self;

      owed_init (&self, kind, 1);
      if (kind == CALL)
        util_block (&self.block, self.asked);
      g_assert_true (bg_loop_post (self.asker, ask_for_late_cb, &self, NULL));
      g_assert_true (bg_loop_flush (self.asker, -1, NULL, NULL));
      if (kind == PERFORM)
        g_assert_true (bg_loop_flush (self.asked, -1, NULL, NULL));
      g_assert_true (bg_loop_shutdown_full (self.asker, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
      g_assert_cmpint (self.n_run, ==, 1);
      g_assert_cmpint (self.n_closed, ==, 1);
      g_assert_cmpint (self.n_answered, ==, 0);
      owed_end_asked (&self);
      g_assert_finalize_object (self.asker);
    }
}

/* What has arrived is handed over in either mode, however long that takes. */
static void
run_arrived (BgShutdownMode mode, guint n, guint callback_usec)
{
  UtilBlock block;
  Owed self;

  owed_init (&self, CALL, n);
  self.callback_usec = callback_usec;
  g_assert_true (bg_loop_post (self.asker, ask_cb, &self, NULL));
  util_block (&block, self.asker);
  g_assert_true (bg_loop_flush (self.asked, -1, NULL, NULL));
  g_assert_cmpint (self.n_run, ==, n);
  bg_loop_quit (self.asker, mode);
  util_unblock (&block);
  util_loop_end (self.asker);
  util_block_clear (&block);
  g_assert_cmpint (self.n_answered, ==, n);
  g_assert_cmpint (self.n_closed, ==, 0);
  bg_loop_release (self.asked, self.hold);
  util_loop_end (self.asked);
}

static void
test_arrived (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      run_arrived (mode, util_scale (5000), 0);
      run_arrived (mode, util_scale (1000), 100);
    }
}

/* A loop owes itself replies, too: each piece that was accepted has one. */

static void
ask_itself_cb (gpointer user_data)
{
  Owed *self = user_data;

  for (guint i = 0; i < self->n; i++)
    ask_once (self, TRUE);
  bg_loop_quit (self->asker, BG_SHUTDOWN_CANCEL);
}

static void
run_own (Kind kind, guint n, guint callback_usec)
{
  Owed self = { .kind = kind, .n = n, .callback_usec = callback_usec };

  self.asker = self.asked = util_loop_new ("itself");
  g_assert_true (bg_loop_post (self.asker, ask_itself_cb, &self, NULL));
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_run, ==, 0);
  g_assert_cmpint (self.n_destroyed, ==, n);
  g_assert_cmpint (self.n_closed, ==, n);
}

static void
test_own (void)
{
  for (Kind kind = CALL; kind <= OPERATION; kind++)
    {
      run_own (kind, 1, 0);
      run_own (kind, util_scale (10000), 0);
      run_own (kind, util_scale (1000), 100);
    }
}

/* Also when each of them tries again: only what is refused then is not told for ever. */

static void
refused_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, NULL));
}

static void
try_again_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;

  replied_cb (source, result, self);
  bg_loop_call_async (self->asked, 0, -1, owed_call_cb, self, destroyed_cb, NULL, refused_cb, NULL);
}

static void
ask_and_try_again_cb (gpointer user_data)
{
  Owed *self = user_data;

  for (guint i = 0; i < self->n; i++)
    bg_loop_call_async (self->asked, 0, -1, owed_call_cb, self, destroyed_cb, NULL, try_again_cb,
                        self);
  bg_loop_quit (self->asker, BG_SHUTDOWN_CANCEL);
}

static void
test_own_tries_again (void)
{
  Owed self = { .n = 1000 };

  self.asker = self.asked = util_loop_new ("itself");
  g_assert_true (bg_loop_post (self.asker, ask_and_try_again_cb, &self, NULL));
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_run, ==, 0);
  g_assert_cmpint (self.n_closed, ==, self.n);
  g_assert_cmpint (self.n_destroyed, ==, 2 * self.n);
}

/* A callback that asks again and again, until the end tells none any more. Replies to the last
 * questions come as the loop closes its mailbox, each at a priority that was not in use.
 * (ThreadSanitizer sees the race.) */

#define LAST            258 /* which time is the last */
#define LATE_PRIORITIES 4000

typedef struct
{
  BgLoop *asker;
  BgLoop *asked;
  UtilLatch cancelled;
  int priority;
  guint n_told;
  int n_answered; /* atomic */
} Late;

static void late_told_cb (GObject *source, GAsyncResult *result, gpointer user_data);

static gboolean
late_answer_cb (gpointer user_data, GError **error)
{
  Late *self = user_data;

  /* One after the other while the loop ends */
  if (g_atomic_int_add (&self->n_answered, 1) > LAST)
    util_spin_until (g_get_monotonic_time () + 30);
  return TRUE;
}

static void
ask_late_again (Late *self)
{
  bg_loop_call_async (self->asked, self->priority++, -1, late_answer_cb, self, NULL, NULL,
                      late_told_cb, self);
}

static void
late_told_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Late *self = user_data;
  int n_answered;

  (void) bg_loop_call_finish (BG_LOOP (source), result, NULL);
  self->n_told++;
  if (self->n_told < LAST)
    ask_late_again (self);
  if (self->n_told != LAST)
    return;

  /* What is refused is to be told at each of these priorities, so that to close takes its time. */
  for (int i = 0; i < LATE_PRIORITIES; i++)
    bg_loop_call_async (self->asker, G_MAXINT - i, -1, util_no_call_cb, NULL, NULL, NULL,
                        refused_cb, NULL);
  for (guint i = 0; i < 2 * LAST; i++)
    ask_late_again (self);
  util_latch_count_down (&self->cancelled);
  /* Then the answers come while the loop ends. */
  n_answered = g_atomic_int_get (&self->n_answered);
  while (g_atomic_int_get (&self->n_answered) < n_answered + LAST / 2)
    g_thread_yield ();
}

static void
ask_first_late_cb (gpointer user_data)
{
  ask_late_again (user_data);
}

static void
run_late_answers (void)
{
  Late self = { .asker = util_loop_new ("asker"), .asked = util_loop_new ("asked") };

  util_latch_init (&self.cancelled, 1);
  self.priority = 1000;
  g_assert_true (bg_loop_post_full (self.asked, G_MININT, util_wait_cb, &self.cancelled, NULL));
  g_assert_true (bg_loop_post (self.asker, ask_first_late_cb, &self, NULL));
  g_assert_true (bg_loop_flush (self.asker, -1, NULL, NULL));
  g_assert_true (bg_loop_shutdown_full (self.asker, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpuint (self.n_told, >=, LAST);
  g_assert_true (bg_loop_shutdown (self.asked, NULL));
  g_object_unref (self.asker);
  g_object_unref (self.asked);
  util_latch_clear (&self.cancelled);
}

static void
test_late_answers (void)
{
  for (guint i = 0; i < util_scale_at_least (20, 5); i++)
    run_late_answers ();
}

/* A source that asks whenever it has its turn does not keep the loop. */

static void
counted_refused_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;

  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  self->n_refused++;
}

static void
ask_of_ending_cb (gpointer user_data)
{
  Owed *self = user_data;

  bg_loop_call_async (self->asked, 0, -1, util_no_call_cb, NULL, NULL, NULL, counted_refused_cb,
                      self);
}

static gboolean
ask_in_source_cb (gpointer user_data)
{
  ask_of_ending_cb (user_data);
  return G_SOURCE_CONTINUE;
}

static void
cancel_and_attach_cb (gpointer user_data)
{
  Owed *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  bg_loop_quit (self->asked, BG_SHUTDOWN_CANCEL);
  ask_of_ending_cb (self);
  g_source_set_callback (source, ask_in_source_cb, self, NULL);
  g_source_attach (source, bg_loop_get_context (self->asked));
}

static void
test_own_source (void)
{
  Owed self = { .n = 1 };

  self.asked = util_loop_new ("itself");
  g_assert_true (bg_loop_post (self.asked, cancel_and_attach_cb, &self, NULL));
  util_loop_end (self.asked);
  g_assert_cmpint (self.n_refused, >, 0);
}

/* What a callback asks again in the end it may iterate the context for, beside a source that is
 * always ready. */

static void
ask_and_iterate_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;

  counted_refused_cb (source, result, self);
  ask_of_ending_cb (self);
  while (self->n_refused < 2)
    g_main_context_iteration (bg_loop_get_context (self->asked), TRUE);
}

static void
ask_in_teardown_cb (gpointer user_data)
{
  Owed *self = user_data;

  bg_loop_call_async (self->asked, 0, -1, util_no_call_cb, NULL, NULL, NULL, ask_and_iterate_cb,
                      self);
}

static void
test_end_iterates (void)
{
  Owed self = { .n = 1 };
  g_autoptr (GSource) source = g_idle_source_new ();

  self.asked = util_loop_new ("itself");
  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (self.asked, source));
  g_assert_cmpuint (bg_loop_add_teardown (self.asked, ask_in_teardown_cb, &self, NULL), !=, 0);
  bg_loop_quit (self.asked, BG_SHUTDOWN_CANCEL);
  util_loop_end (self.asked);
  g_assert_cmpint (self.n_refused, ==, 2);
}

/* Those that come last, at a lower priority, are told as well, though others try again for ever. */

static void
try_endlessly_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_assert_false (bg_loop_call_finish (BG_LOOP (source), result, NULL));
  bg_loop_call_async (BG_LOOP (source), 0, -1, util_no_call_cb, NULL, NULL, NULL, try_endlessly_cb,
                      NULL);
}

static void
ask_low_and_try_endlessly_cb (gpointer user_data)
{
  Owed *self = user_data;

  for (guint i = 0; i < 8 * self->n; i++)
    bg_loop_call_async (self->asked, 0, -1, util_no_call_cb, NULL, NULL, NULL, try_endlessly_cb,
                        NULL);
  for (guint i = 0; i < self->n; i++)
    bg_loop_call_async (self->asked, 100, -1, owed_call_cb, self, destroyed_cb, NULL, replied_cb,
                        self);
  bg_loop_quit (self->asker, BG_SHUTDOWN_CANCEL);
}

static void
test_own_low (void)
{
  Owed self = { .n = 50 };

  self.asker = self.asked = util_loop_new ("itself");
  g_assert_true (bg_loop_post (self.asker, ask_low_and_try_endlessly_cb, &self, NULL));
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_closed, ==, self.n);
}

/* So is one whose reply is made of what an earlier call has left, which was refused, also when so
 * many others try again that the loop does not get through them. */

#define MANY_REFUSALS 20000

static void
ask_refused_cb (gpointer ended)
{
  bg_loop_call_async (ended, 0, -1, util_no_call_cb, NULL, NULL, NULL, refused_cb, NULL);
}

typedef struct
{
  Owed owed;
  BgLoop *ended;
} Refused;

static void
ask_after_refusal_cb (gpointer user_data)
{
  Refused *self = user_data;
  Owed *owed = &self->owed;

  /* The first reply that is made now is the one that was refused before. */
  bg_loop_call_async (owed->asked, 0, -1, owed_call_cb, owed, destroyed_cb, NULL, replied_cb, owed);
  for (guint i = 0; i < MANY_REFUSALS; i++)
    bg_loop_call_async (self->ended, 0, -1, util_no_call_cb, NULL, NULL, NULL, try_endlessly_cb,
                        NULL);
  bg_loop_quit (owed->asker, BG_SHUTDOWN_CANCEL);
}

static void
test_cancel_after_refusal (void)
{
  Refused self = { .ended = util_loop_new ("ended") };
  Owed *owed = &self.owed;

  util_loop_shut_down (self.ended);
  owed_init (owed, CALL, 1);
  util_block (&owed->block, owed->asked);
  g_assert_true (bg_loop_post (owed->asker, ask_refused_cb, self.ended, NULL));
  g_assert_true (bg_loop_flush (owed->asker, -1, NULL, NULL));
  /* The callback has been called when less urgent work has run. */
  g_assert_true (
      bg_loop_call_full (owed->asker, G_PRIORITY_LOW, -1, util_true_cb, NULL, NULL, NULL));
  g_assert_true (bg_loop_post (owed->asker, ask_after_refusal_cb, &self, NULL));
  util_loop_end (owed->asker);
  g_assert_cmpint (owed->n_closed, ==, 1);
  let_answer (owed);
  owed_end_asked (owed);
  g_object_unref (self.ended);
}

/* A loop that cancels does not tell a callback that an invoked function waits for: as long as that
 * function runs the loop is not closed, and the answer may come. */

static gboolean
ask_and_cancel_cb (gpointer user_data)
{
  Owed *self = user_data;
  GMainContext *context = bg_loop_get_context (self->asker);

  ask_cb (self);
  bg_loop_quit (self->asker, BG_SHUTDOWN_CANCEL);
  for (guint i = 0; i < 20; i++)
    g_main_context_iteration (context, FALSE);
  g_assert_cmpint (self->n_answered, ==, 0);
  g_assert_cmpint (self->n_closed, ==, 0);
  let_answer (self);
  while (self->n_answered + self->n_closed == 0)
    g_main_context_iteration (context, TRUE);
  return G_SOURCE_REMOVE;
}

static void
test_cancel_invoked (void)
{
  Owed self;

  owed_init (&self, CALL, 1);
  util_block (&self.block, self.asked);
  g_assert_true (bg_loop_invoke (self.asker, ask_and_cancel_cb, &self));
  /* Only the function asks for the end: when that has begun before it, it is called in another way,
   * and no list of invoked functions has it. */
  g_assert_true (bg_loop_wait (self.asker, -1, NULL, NULL));
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_answered, ==, 1);
  owed_end_asked (&self);
}

/* What has begun when a loop cancels, too: its callback is told when the operation is not waited
 * for any more. */

static void
begin_own_cb (gpointer user_data)
{
  ask_once (user_data, FALSE);
}

static void
run_own_begun (Kind kind, BgShutdownMode mode)
{
  Owed self = { .kind = kind, .n = 1 };

  g_weak_ref_init (&self.answered_with, NULL);
  self.asker = self.asked = util_loop_new ("itself");
  self.hold = bg_loop_hold (self.asked, "owed");
  g_assert_true (bg_loop_post (self.asker, begin_own_cb, &self, NULL));
  while (g_atomic_int_get (&self.n_destroyed) == 0)
    g_assert_true (bg_loop_flush (self.asked, -1, NULL, NULL));
  bg_loop_quit (self.asker, mode);
  let_answer (&self);
  util_loop_end (self.asker);
  g_assert_cmpint (self.n_answered, ==, mode == BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (self.n_closed, ==, mode == BG_SHUTDOWN_CANCEL);
  g_clear_object (&self.cancellable);
  g_assert_null (g_weak_ref_get (&self.answered_with));
  g_weak_ref_clear (&self.answered_with);
}

static void
test_own_begun (void)
{
  for (Kind kind = PERFORM; kind <= OPERATION; kind++)
    {
      run_own_begun (kind, BG_SHUTDOWN_DRAIN);
      run_own_begun (kind, BG_SHUTDOWN_CANCEL);
    }
}

/* A callback may ask again while its loop drains, and is answered. */

typedef struct
{
  Owed owed;
  guint n_left;
} Again;

static void again_cb (GObject *source, GAsyncResult *result, gpointer user_data);

static void
ask_again (Again *self)
{
  bg_loop_call_async (self->owed.asked, 0, -1, owed_call_cb, &self->owed, destroyed_cb, NULL,
                      again_cb, self);
}

static void
again_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Again *self = user_data;

  replied_cb (source, result, &self->owed);
  if (self->n_left > 0)
    {
      self->n_left--;
      self->owed.n++;
      ask_again (self);
    }
}

static void
ask_again_cb (gpointer user_data)
{
  ask_again (user_data);
}

static void
test_drain_goes_on (void)
{
  guint n = util_scale (1000);
  Again self = { .n_left = n };

  owed_init (&self.owed, CALL, 1);
  util_block (&self.owed.block, self.owed.asked);
  g_assert_true (bg_loop_post (self.owed.asker, ask_again_cb, &self, NULL));
  bg_loop_quit (self.owed.asker, BG_SHUTDOWN_DRAIN);
  let_answer (&self.owed);
  util_loop_end (self.owed.asker);
  g_assert_cmpint (self.owed.n_answered, ==, n + 1);
  owed_end_asked (&self.owed);
}

/* One that cancels is not asked for ever by callbacks that are told CLOSED. */
static void
test_cancel_ends (void)
{
  Again self = { .n_left = G_MAXUINT };

  owed_init (&self.owed, CALL, 1);
  util_block (&self.owed.block, self.owed.asked);
  g_assert_true (bg_loop_post (self.owed.asker, ask_again_cb, &self, NULL));
  g_assert_true (bg_loop_flush (self.owed.asker, -1, NULL, NULL));
  g_assert_true (bg_loop_shutdown_full (self.owed.asker, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_cmpint (self.owed.n_closed, >, 0);
  g_assert_cmpint (self.owed.n_answered, ==, 0);
  let_answer (&self.owed);
  owed_end_asked (&self.owed);
  g_assert_finalize_object (self.owed.asker);
}

/* What a teardown function asks another loop for is not waited for, and it is told. */
static void
run_teardown (Kind kind, BgShutdownMode mode)
{
  Owed self;

  owed_init (&self, kind, 1);
  if (kind == CALL)
    util_block (&self.block, self.asked);
  g_assert_cmpuint (bg_loop_add_teardown (self.asker, ask_cb, &self, NULL), !=, 0);
  g_assert_true (bg_loop_shutdown_full (self.asker, mode, -1, NULL, NULL));
  g_assert_cmpint (self.n_closed, ==, 1);
  if (kind == PERFORM || kind == OPERATION)
    g_assert_true (bg_loop_flush (self.asked, -1, NULL, NULL));
  let_answer (&self);
  owed_end_asked (&self);
  g_assert_cmpint (self.n_answered, ==, 0);
  g_assert_finalize_object (self.asker);
}

static void
test_teardown (void)
{
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      run_teardown (kind, BG_SHUTDOWN_DRAIN);
      run_teardown (kind, BG_SHUTDOWN_CANCEL);
    }
}

/* A reply that goes to another context than the loop's is not the loop's. */

typedef struct
{
  Owed owed;
  GMainContext *context;
  UtilReply reply;
} Elsewhere;

static void
ask_elsewhere_cb (gpointer user_data)
{
  Elsewhere *self = user_data;

  g_main_context_push_thread_default (self->context);
  bg_loop_call_async (self->owed.asked, 0, -1, owed_call_cb, &self->owed, destroyed_cb, NULL,
                      util_reply_cb, &self->reply);
  g_main_context_pop_thread_default (self->context);
}

static void
test_elsewhere (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Elsewhere self = { .context = g_main_context_new () };

      owed_init (&self.owed, CALL, 1);
      util_reply_init (&self.reply);
      util_block (&self.owed.block, self.owed.asked);
      g_assert_true (bg_loop_post (self.owed.asker, ask_elsewhere_cb, &self, NULL));
      g_assert_true (bg_loop_flush (self.owed.asker, -1, NULL, NULL));
      g_assert_true (bg_loop_shutdown_full (self.owed.asker, mode, -1, NULL, NULL));
      g_assert_null (self.reply.result);
      let_answer (&self.owed);

      g_main_context_push_thread_default (self.context);
      util_reply_wait (&self.reply);
      g_main_context_pop_thread_default (self.context);
      g_assert_true (bg_loop_call_finish (self.owed.asked, self.reply.result, NULL));
      util_reply_clear (&self.reply);
      g_main_context_unref (self.context);
      owed_end_asked (&self.owed);
      g_assert_finalize_object (self.owed.asker);
    }
}

/* Nobody has the loop that asks any more: it waits all the same. */

typedef struct
{
  BgLoop *asked;
  UtilBlock block;
  UtilLatch replied;
  GThread *asker;
} Dropped;

static void
dropped_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Dropped *self = user_data;
  g_autoptr (GError) error = NULL;

  g_assert_true (bg_loop_call_finish (self->asked, result, &error));
  g_assert_no_error (error);
  g_assert_true (self->asker == g_thread_self ());
  util_latch_count_down (&self->replied);
}

static void
ask_dropped_cb (gpointer user_data)
{
  Dropped *self = user_data;

  self->asker = g_thread_self ();
  bg_loop_call_async (self->asked, 0, -1, util_true_cb, NULL, NULL, NULL, dropped_cb, self);
}

static void
test_dropped (void)
{
  Dropped self = { util_loop_new ("asked") };
  guint n_threads = util_count_threads ();
  BgLoop *asker = util_loop_new ("asker");

  util_latch_init (&self.replied, 1);
  util_block (&self.block, self.asked);
  g_assert_true (bg_loop_post (asker, ask_dropped_cb, &self, NULL));
  g_assert_true (bg_loop_flush (asker, -1, NULL, NULL));
  g_assert_finalize_object (asker);
  util_unblock (&self.block);
  util_latch_wait (&self.replied);
  /* The reply has a reference to the loop that was asked. */
  util_wait_for_threads (n_threads);
  util_loop_end (self.asked);
  util_block_clear (&self.block);
  util_latch_clear (&self.replied);
}

/* The answer comes in the moment in which the asker is told that there is none, and while
 * it ends: each callback is called once. */

typedef struct
{
  Owed owed;
  BgShutdownMode mode;
  guint n_turns; /* before the asker is shut down */
} Race;

static gpointer
end_asker_thread (gpointer user_data)
{
  Race *self = user_data;

  for (guint i = 0; i < self->n_turns; i++)
    g_thread_yield ();
  g_assert_true (bg_loop_shutdown_full (self->owed.asker, self->mode, -1, NULL, NULL));
  return NULL;
}

static void
test_race (void)
{
  for (guint i = 0; i < util_scale (600); i++)
    {
      Race self
          = { .mode = i % 3 == 0 ? BG_SHUTDOWN_DRAIN : BG_SHUTDOWN_CANCEL, .n_turns = i % 10 };
      Kind kind = i % N_KINDS;
      GThread *thread;

      owed_init (&self.owed, kind, kind == PERFORM || kind == OPERATION ? 1 : 20);
      ask_and_leave_waiting (&self.owed);
      thread = g_thread_new ("ends", end_asker_thread, &self);
      let_answer (&self.owed);
      g_thread_join (thread);
      g_assert_cmpint (self.owed.n_answered + self.owed.n_closed, ==, self.owed.n);
      if (self.mode == BG_SHUTDOWN_DRAIN)
        g_assert_cmpint (self.owed.n_closed, ==, 0);
      owed_end_asked (&self.owed);
      g_assert_cmpint (self.owed.n_answered + self.owed.n_closed, ==, self.owed.n);
      g_assert_finalize_object (self.owed.asker);
    }
}

/* Two that owe each other replies end at once. */

static void
test_crosswise (void)
{
  for (guint i = 0; i < util_scale (100); i++)
    {
      BgLoop *loops[2] = { util_loop_new ("one"), util_loop_new ("another") };
      Owed owed[2] = { { loops[0], loops[1], .n = 50 }, { loops[1], loops[0], .n = 50 } };
      UtilBlock blocks[2];
      GThread *threads[2];

      for (guint j = 0; j < 2; j++)
        util_block (&blocks[j], loops[j]);
      for (guint j = 0; j < 2; j++)
        g_assert_true (bg_loop_post (loops[j], ask_cb, &owed[j], NULL));
      for (guint j = 0; j < 2; j++)
        util_unblock (&blocks[j]);
      for (guint j = 0; j < 2; j++)
        g_assert_true (bg_loop_flush (loops[j], -1, NULL, NULL));
      for (guint j = 0; j < 2; j++)
        threads[j] = g_thread_new ("ends", util_shutdown_thread, loops[j]);
      for (guint j = 0; j < 2; j++)
        g_thread_join (threads[j]);
      for (guint j = 0; j < 2; j++)
        {
          g_assert_cmpint (owed[j].n_run, ==, 50);
          g_assert_cmpint (owed[j].n_answered, ==, 50);
          g_assert_cmpint (owed[j].n_destroyed, ==, 50);
          util_block_clear (&blocks[j]);
          g_assert_finalize_object (loops[j]);
        }
    }
}

/* Two that wait for each other's end would do so for ever: the first that has nothing
 * else to do ends, and the other is told. */
static void
test_ends_crosswise (void)
{
  BgLoop *one = util_loop_new ("asker"), *another = util_loop_new ("asked");
  Owed owed[2] = { { one, another, SHUTDOWN, 1 }, { another, one, SHUTDOWN, 1 } };
  UtilBlock blocks[2];

  util_block (&blocks[0], one);
  util_block (&blocks[1], another);
  g_assert_true (bg_loop_post (one, ask_cb, &owed[0], NULL));
  g_assert_true (bg_loop_post (another, ask_cb, &owed[1], NULL));
  util_unblock (&blocks[0]);
  util_unblock (&blocks[1]);
  g_assert_true (bg_loop_shutdown (one, NULL));
  g_assert_true (bg_loop_shutdown (another, NULL));
  g_assert_cmpint (owed[0].n_closed + owed[0].n_answered, ==, 1);
  g_assert_cmpint (owed[1].n_closed + owed[1].n_answered, ==, 1);
  g_assert_cmpint (owed[0].n_closed + owed[1].n_closed, >=, 1);
  util_block_clear (&blocks[0]);
  util_block_clear (&blocks[1]);
  g_assert_finalize_object (one);
  g_assert_finalize_object (another);
}

/* A loop that drains waits for whoever owes it replies, and so there may be a circle: one
 * of those, or of those that they wait for, waits for its end. */

typedef enum
{
  END_SHUTDOWN,
  END_WITH_LIMIT,
  END_RESET, /* the asker is the default loop */
  END_WAIT,  /* another thread asks for the end */
  END_CANCEL,
  N_ENDINGS,
} Ending;

typedef struct
{
  Owed owed;
  Ending ending;
  BgLoop *third;
  gboolean blocks;   /* the asked one is kept from running what it is asked for */
  UtilLatch entered; /* the asker's function runs */
  UtilLatch asks;    /* the asker may ask */
  UtilLatch has_asked;
  UtilLatch goes_on; /* it may go on then */
  UtilLatch calls;   /* the asked one may call the third */
  UtilLatch called;
  UtilLatch tried; /* whoever wanted the asker to end has been told */
  GError *error;
  GError *call_error;
} Circle;

static void
circle_init (Circle *self, Kind kind, Ending ending)
{
  *self = (Circle){ .ending = ending };
  owed_init (&self->owed, kind, 1);
  if (ending == END_RESET)
    {
      util_loop_end (self->owed.asker);
      self->owed.asker = bg_loop_dup_default (NULL);
    }
  self->third = util_loop_new ("third");
  util_latch_init (&self->entered, 1);
  util_latch_init (&self->asks, 1);
  util_latch_init (&self->has_asked, 1);
  util_latch_init (&self->goes_on, 1);
  util_latch_init (&self->calls, 1);
  util_latch_init (&self->called, 1);
  util_latch_init (&self->tried, 1);
}

/* Lets the asked one answer, of which nothing keeps it any more. */
static void
circle_answer (Circle *self)
{
  Owed *owed = &self->owed;

  if ((owed->kind == PERFORM || owed->kind == OPERATION))
    g_assert_true (bg_loop_flush (owed->asked, -1, NULL, NULL));
  if (owed->kind == CALL && !self->blocks)
    bg_loop_release (owed->asked, owed->hold);
  else
    let_answer (owed);
}

/* The asker's callback has been called once, whatever happened. */
static void
circle_clear (Circle *self, gboolean closed)
{
  Owed *owed = &self->owed;

  util_loop_end (owed->asker);
  util_loop_end (owed->asked);
  util_loop_end (self->third);
  g_assert_cmpint (owed->n_answered, ==, !closed);
  g_assert_cmpint (owed->n_closed, ==, closed);
  g_clear_object (&owed->cancellable);
  g_assert_null (g_weak_ref_get (&owed->answered_with));
  g_weak_ref_clear (&owed->answered_with);
  util_latch_clear (&self->entered);
  util_latch_clear (&self->asks);
  util_latch_clear (&self->has_asked);
  util_latch_clear (&self->goes_on);
  util_latch_clear (&self->calls);
  util_latch_clear (&self->called);
  util_latch_clear (&self->tried);
  g_clear_error (&self->error);
  g_clear_error (&self->call_error);
  if (self->blocks)
    util_block_clear (&owed->block);
}

static gboolean
end_asker (Circle *self, GError **error)
{
  BgLoop *asker = self->owed.asker;

  switch (self->ending)
    {
    case END_SHUTDOWN:
      return bg_loop_shutdown (asker, error);
    case END_WITH_LIMIT:
      return bg_loop_shutdown_full (asker, BG_SHUTDOWN_DRAIN, G_MAXINT, NULL, error);
    case END_RESET:
      return bg_loop_reset_default (-1, error);
    case END_WAIT:
      return bg_loop_wait (asker, -1, NULL, error);
    default:
      return bg_loop_shutdown_full (asker, BG_SHUTDOWN_CANCEL, -1, NULL, error);
    }
}

static void
try_to_end (Circle *self)
{
  gboolean ended = end_asker (self, &self->error);

  g_assert_true (ended == (self->error == NULL));
  g_assert_true (ended == (bg_loop_get_state (self->owed.asker) == BG_LOOP_STOPPED));
  util_latch_count_down (&self->tried);
}

static void
assert_tried (Circle *self)
{
  util_latch_wait (&self->tried);
  if (self->ending == END_CANCEL)
    {
      g_assert_no_error (self->error);
      return;
    }

  g_assert_error (self->error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
  g_assert_nonnull (strstr (self->error->message, "\"asked\""));
  g_assert_nonnull (strstr (self->error->message, bg_loop_get_name (self->owed.asker)));
}

/* First the loop asks, then the one that it asks waits for its end: that is refused, and
 * nothing has changed. */

static void
try_to_end_cb (gpointer user_data)
{
  Circle *self = user_data;

  if (self->ending == END_WAIT)
    bg_loop_quit (self->owed.asker, BG_SHUTDOWN_DRAIN);
  try_to_end (self);
}

static void
be_asked_and_try_to_end_cb (gpointer user_data)
{
  Circle *self = user_data;

  g_assert_true (bg_loop_post (self->owed.asker, ask_cb, &self->owed, NULL));
  g_assert_true (bg_loop_flush (self->owed.asker, -1, NULL, NULL));
  try_to_end_cb (self);
}

static void
run_circle_asked_first (Kind kind, Ending ending, gboolean begun)
{
  Circle self;

  circle_init (&self, kind, ending);
  if (begun)
    {
      ask_and_leave_waiting (&self.owed);
      g_assert_true (bg_loop_post (self.owed.asked, try_to_end_cb, &self, NULL));
    }
  else
    {
      g_assert_true (bg_loop_post (self.owed.asked, be_asked_and_try_to_end_cb, &self, NULL));
    }

  assert_tried (&self);
  if (ending < END_WAIT)
    g_assert_cmpint (bg_loop_get_state (self.owed.asker), ==, BG_LOOP_RUNNING);
  if (ending == END_RESET)
    {
      g_autoptr (BgLoop) loop = bg_loop_dup_default (NULL);

      g_assert_true (loop == self.owed.asker);
    }
  circle_answer (&self);
  circle_clear (&self, ending == END_CANCEL);
}

static void
run_each_kind (void (*run) (Kind kind, Ending ending), Ending n_endings)
{
  for (Ending ending = 0; ending < n_endings; ending++)
    {
      for (Kind kind = 0; kind < N_KINDS; kind++)
        run (kind, ending);
    }
}

static void
test_circle_asked_first (void)
{
  for (Ending ending = 0; ending < N_ENDINGS; ending++)
    {
      for (Kind kind = 0; kind < N_KINDS; kind++)
        run_circle_asked_first (kind, ending, FALSE);
      run_circle_asked_first (PERFORM, ending, TRUE);
      run_circle_asked_first (OPERATION, ending, TRUE);
    }
}

/* First the other one waits for its end, then the loop asks it: the wait is given up, and
 * the loop goes on stopping. */

static void
ask_when_stopping (Circle *self)
{
  if (self->ending != END_WAIT)
    while (bg_loop_get_state (self->owed.asker) == BG_LOOP_RUNNING)
      g_thread_yield ();
  ask_once (&self->owed, FALSE);
  util_latch_count_down (&self->has_asked);
  util_latch_wait (&self->goes_on);
}

static void
ask_late_cb (gpointer user_data)
{
  Circle *self = user_data;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->asks);
  ask_when_stopping (self);
}

static void
try_to_end_first_cb (gpointer user_data)
{
  Circle *self = user_data;

  util_latch_count_down (&self->asks);
  try_to_end (self);
}

static void
run_circle_asked_last (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  g_assert_true (bg_loop_post (self.owed.asker, ask_late_cb, &self, NULL));
  util_latch_wait (&self.entered);
  g_assert_true (bg_loop_post (self.owed.asked, try_to_end_first_cb, &self, NULL));
  util_latch_wait (&self.has_asked);
  g_assert_false (util_latch_is_open (&self.tried));
  if (ending == END_WAIT)
    bg_loop_quit (self.owed.asker, BG_SHUTDOWN_DRAIN);
  util_latch_count_down (&self.goes_on);
  assert_tried (&self);
  g_assert_cmpint (bg_loop_get_state (self.owed.asker), !=, BG_LOOP_RUNNING);
  circle_answer (&self);
  circle_clear (&self, ending == END_CANCEL);
}

static void
test_circle_asked_last (void)
{
  run_each_kind (run_circle_asked_last, N_ENDINGS);
}

/* The asked one waits for a third, and that for the end of the loop that asks. Whichever
 * comes last: just one of the waits is refused or given up. */

static gboolean
try_to_end_called_cb (gpointer user_data, GError **error)
{
  try_to_end_cb (user_data);
  return TRUE;
}

static void
be_asked_and_call_third_cb (gpointer user_data)
{
  Circle *self = user_data;

  g_assert_true (bg_loop_post (self->owed.asker, ask_cb, &self->owed, NULL));
  g_assert_true (bg_loop_flush (self->owed.asker, -1, NULL, NULL));
  g_assert_true (bg_loop_call (self->third, try_to_end_called_cb, self, NULL, NULL));
}

static void
run_circle_end_last (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  g_assert_true (bg_loop_post (self.owed.asked, be_asked_and_call_third_cb, &self, NULL));
  assert_tried (&self);
  circle_answer (&self);
  circle_clear (&self, ending == END_CANCEL);
}

static void
call_third_cb (gpointer user_data)
{
  Circle *self = user_data;
  gboolean called;

  util_latch_wait (&self->calls);
  called = bg_loop_call (self->third, util_true_cb, NULL, NULL, &self->call_error);
  g_assert_true (called == (self->call_error == NULL));
  util_latch_count_down (&self->called);
}

static void
ask_when_third_is_called_cb (gpointer user_data)
{
  Circle *self = user_data;

  util_latch_count_down (&self->entered);
  util_latch_wait (&self->asks);
  util_latch_count_down (&self->calls);
  util_wait_for_queued (self->third, 1);
  ask_when_stopping (self);
}

static void
run_circle_ask_last (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  g_assert_true (bg_loop_post (self.owed.asker, ask_when_third_is_called_cb, &self, NULL));
  util_latch_wait (&self.entered);
  g_assert_true (bg_loop_post (self.owed.asked, call_third_cb, &self, NULL));
  g_assert_true (bg_loop_post (self.third, try_to_end_first_cb, &self, NULL));
  util_latch_wait (&self.has_asked);
  if (ending == END_WAIT)
    bg_loop_quit (self.owed.asker, BG_SHUTDOWN_DRAIN);
  util_latch_count_down (&self.goes_on);
  assert_tried (&self);
  util_latch_wait (&self.called);
  g_assert_no_error (self.call_error);
  circle_answer (&self);
  circle_clear (&self, ending == END_CANCEL);
}

static void
run_circle_call_last (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  g_assert_true (bg_loop_post (self.owed.asker, ask_late_cb, &self, NULL));
  util_latch_wait (&self.entered);
  g_assert_true (bg_loop_post (self.owed.asked, call_third_cb, &self, NULL));
  g_assert_true (bg_loop_post (self.third, try_to_end_first_cb, &self, NULL));
  util_latch_wait (&self.has_asked);
  if (ending == END_WAIT)
    bg_loop_quit (self.owed.asker, BG_SHUTDOWN_DRAIN);
  util_latch_count_down (&self.goes_on);
  util_settle ();
  util_latch_count_down (&self.calls);
  util_latch_wait (&self.called);
  if (self.call_error == NULL)
    {
      assert_tried (&self);
    }
  else
    {
      g_assert_error (self.call_error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      g_assert_cmpint (ending, !=, END_CANCEL);
    }
  circle_answer (&self);
  util_latch_wait (&self.tried);
  g_assert_true (ending == END_CANCEL || (self.error == NULL) != (self.call_error == NULL));
  circle_clear (&self, ending == END_CANCEL);
}

static void
test_circle_of_three (void)
{
  for (Ending ending = 0; ending < N_ENDINGS; ending++)
    {
      for (Kind kind = 0; kind < N_KINDS; kind++)
        {
          run_circle_end_last (kind, ending);
          run_circle_ask_last (kind, ending);
          run_circle_call_last (kind, ending);
        }
    }
}

/* No circle: whoever waits for the end has made the reply, */

static void
ask_and_stay_cb (gpointer user_data)
{
  Circle *self = user_data;

  ask_once (&self->owed, FALSE);
  util_latch_count_down (&self->has_asked);
  util_latch_wait (&self->goes_on);
}

/* Lets the asker go on, when it has been asked to stop. */
static void
go_on_when_stopping (Circle *self)
{
  util_latch_wait (&self->asks);
  if (self->ending == END_WAIT)
    bg_loop_quit (self->owed.asker, BG_SHUTDOWN_DRAIN);
  while (bg_loop_get_state (self->owed.asker) == BG_LOOP_RUNNING
         && !util_latch_is_open (&self->tried))
    g_thread_yield ();
  util_latch_count_down (&self->goes_on);
}

static void
run_no_circle_made (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  g_assert_true (bg_loop_post (self.owed.asker, ask_and_stay_cb, &self, NULL));
  util_latch_wait (&self.has_asked);
  g_assert_true (bg_loop_flush (self.owed.asked, -1, NULL, NULL));
  circle_answer (&self);
  g_assert_true (bg_loop_flush (self.owed.asked, -1, NULL, NULL));
  g_assert_true (bg_loop_post (self.owed.asked, try_to_end_first_cb, &self, NULL));
  go_on_when_stopping (&self);
  util_latch_wait (&self.tried);
  g_assert_no_error (self.error);
  circle_clear (&self, FALSE);
}

static void
test_no_circle_made (void)
{
  for (Ending ending = 0; ending < N_ENDINGS; ending++)
    {
      for (Kind kind = CALL; kind <= OPERATION; kind++)
        run_no_circle_made (kind, ending);
    }
}

/* somebody else owes it, who can answer, */

static void
run_no_circle_elsewhere (Kind kind, Ending ending)
{
  Circle self;

  circle_init (&self, kind, ending);
  self.blocks = kind == CALL;
  ask_and_leave_waiting (&self.owed);
  g_assert_true (bg_loop_post (self.third, try_to_end_first_cb, &self, NULL));
  go_on_when_stopping (&self);
  circle_answer (&self);
  util_latch_wait (&self.tried);
  g_assert_no_error (self.error);
  circle_clear (&self, FALSE);
}

static void
test_no_circle_elsewhere (void)
{
  run_each_kind (run_no_circle_elsewhere, END_CANCEL);
}

/* or the loop waits for no replies, since another thread asks it to cancel. */

static void
be_asked_and_wait_cb (gpointer user_data)
{
  Circle *self = user_data;

  g_assert_true (bg_loop_post (self->owed.asker, ask_cb, &self->owed, NULL));
  g_assert_true (bg_loop_flush (self->owed.asker, -1, NULL, NULL));
  try_to_end_first_cb (self);
}

static void
test_no_circle_cancelled (void)
{
  for (Kind kind = 0; kind < N_KINDS; kind++)
    {
      Circle self;

      circle_init (&self, kind, END_WAIT);
      g_assert_true (bg_loop_post (self.owed.asked, be_asked_and_wait_cb, &self, NULL));
      util_latch_wait (&self.asks);
      bg_loop_quit (self.owed.asker, BG_SHUTDOWN_CANCEL);
      util_latch_wait (&self.tried);
      g_assert_no_error (self.error);
      circle_answer (&self);
      circle_clear (&self, TRUE);
    }
}

/* A task that has not started is owed by the loop, and so is one whose function runs and
 * that nobody else has; others that have it may return from it. */

typedef enum
{
  TASK_WAITS,    /* it has not started */
  TASK_IS_OWN,   /* only its function has it, */
  TASK_IS_KEPT,  /* and whoever asked, for a while, */
  TASK_IS_LENT,  /* or another one, until the asker waits */
  TASK_IS_DONE,  /* it has returned */
  TASK_IS_GIVEN, /* somebody else has it, */
  TASK_IS_LEFT,  /* and alone: its function has returned */
  N_TASK_STATES,
} TaskState;

typedef struct
{
  Circle circle;
  TaskState state;
} CircleTask;

static void
task_replied_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Owed *self = user_data;

  g_assert_true (bg_loop_is_current (self->asker));
  g_assert_true (g_task_propagate_boolean (G_TASK (result), NULL));
  self->n_answered++;
}

static void
wait_until_asker_stops (CircleTask *self)
{
  while (bg_loop_get_state (self->circle.owed.asker) == BG_LOOP_RUNNING
         && !util_latch_is_open (&self->circle.tried))
    g_thread_yield ();
  util_settle ();
}

static void
have_until_asker_stops_cb (gpointer user_data)
{
  GTask *task = user_data;
  CircleTask *self = g_task_get_task_data (task);

  wait_until_asker_stops (self);
  if (self->state != TASK_IS_LENT)
    g_task_return_boolean (task, TRUE);
}

static void
circle_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  CircleTask *self = data;
  BgLoop *third = self->circle.third;

  if (self->state == TASK_IS_DONE)
    g_task_return_boolean (task, TRUE);
  if (self->state == TASK_IS_LENT || self->state >= TASK_IS_GIVEN)
    g_assert_true (
        bg_loop_post (third, have_until_asker_stops_cb, g_object_ref (task), g_object_unref));
  if (self->state == TASK_IS_LEFT)
    g_assert_true (bg_loop_post (self->circle.owed.asked, try_to_end_cb, &self->circle, NULL));
  else if (self->state != TASK_WAITS)
    try_to_end_cb (&self->circle);
  if (self->state < TASK_IS_DONE)
    g_task_return_boolean (task, TRUE);
}

static void
ask_for_task_cb (gpointer user_data)
{
  CircleTask *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, task_replied_cb, &self->circle.owed);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->circle.owed.asked, 0, task, circle_task_cb);
  if (self->state == TASK_IS_KEPT)
    wait_until_asker_stops (self);
}

static void
be_asked_for_task_and_try_to_end_cb (gpointer user_data)
{
  CircleTask *self = user_data;
  BgLoop *asker = self->circle.owed.asker;

  g_assert_true (bg_loop_post (asker, ask_for_task_cb, self, NULL));
  g_assert_true (bg_loop_flush (asker, -1, NULL, NULL));
  try_to_end_cb (&self->circle);
}

static void
run_circle_task (TaskState state, Ending ending)
{
  CircleTask self = { .state = state };
  Circle *circle = &self.circle;
  Owed *owed = &circle->owed;

  circle_init (circle, CALL, ending);
  if (state == TASK_WAITS)
    g_assert_true (bg_loop_post (owed->asked, be_asked_for_task_and_try_to_end_cb, &self, NULL));
  else
    g_assert_true (bg_loop_post (owed->asker, ask_for_task_cb, &self, NULL));

  util_latch_wait (&circle->tried);
  if (state < TASK_IS_DONE)
    assert_tried (circle);
  else
    g_assert_no_error (circle->error);
  circle_answer (circle);
  circle_clear (circle, FALSE);
}

static void
test_circle_task (void)
{
  for (Ending ending = 0; ending < END_CANCEL; ending++)
    {
      for (TaskState state = 0; state < N_TASK_STATES; state++)
        run_circle_task (state, ending);
    }
}

/* At any time: some are refused, none hangs. */
static void
test_circle_race (void)
{
  for (guint i = 0; i < util_scale (500); i++)
    {
      Circle self;

      circle_init (&self, CALL, i % N_ENDINGS);
      self.owed.n = i % 7;
      g_assert_true (bg_loop_post (self.owed.asker, ask_cb, &self.owed, NULL));
      g_assert_true (bg_loop_post (self.owed.asked, try_to_end_first_cb, &self, NULL));
      for (guint j = i % 50; j > 0; j--)
        g_thread_yield ();
      if (self.ending == END_WAIT)
        bg_loop_quit (self.owed.asker, BG_SHUTDOWN_DRAIN);
      util_latch_wait (&self.tried);
      if (self.error != NULL)
        g_assert_error (self.error, BG_ERROR, BG_ERROR_WOULD_DEADLOCK);
      circle_answer (&self);
      util_loop_end (self.owed.asker);
      if (self.ending != END_CANCEL)
        g_assert_cmpint (self.owed.n_answered, ==, self.owed.n);

      self.owed.n_answered = 1;
      self.owed.n_closed = 0;
      self.owed.asker = util_loop_new (NULL);
      circle_clear (&self, FALSE);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/owed/drain/waits-and-says-so", test_drain_waits);
  util_add_trapped ("/owed/drain/report-of-many", test_report_of_many);
  util_add_trapped ("/owed/drain/goes-on-from-replies", test_drain_goes_on);
  util_add_trapped ("/owed/drain/dropped-waits", test_dropped);
  util_add_trapped ("/owed/drain/crosswise", test_crosswise);
  util_add_trapped ("/owed/drain/ends-crosswise", test_ends_crosswise);
  util_add_trapped ("/owed/cancel/tells-closed", test_cancel_tells);
  util_add_trapped ("/owed/cancel/tells-many-closed", test_cancel_tells_many);
  util_add_trapped ("/owed/cancel/ends-those-that-ask-again", test_cancel_ends);
  util_add_trapped ("/owed/cancel/late-answer-is-dropped", test_cancel_late);
  util_add_trapped ("/owed/cancel/tells-closed-after-a-refusal", test_cancel_after_refusal);
  util_add_trapped ("/owed/cancel/waits-for-invoked", test_cancel_invoked);
  util_add_trapped ("/owed/arrived-is-handed-over", test_arrived);
  util_add_trapped ("/owed/own-loop/cancel-tells-each", test_own);
  util_add_trapped ("/owed/own-loop/cancel-tells-each-that-tries-again", test_own_tries_again);
  util_add_trapped ("/owed/cancel/answers-as-it-ends", test_late_answers);
  util_add_trapped ("/owed/own-loop/cancel-ends-sources", test_own_source);
  util_add_trapped ("/owed/own-loop/end-iterates", test_end_iterates);
  util_add_trapped ("/owed/own-loop/cancel-tells-those-at-a-low-priority", test_own_low);
  util_add_trapped ("/owed/own-loop/begun", test_own_begun);
  util_add_trapped ("/owed/teardown/told-closed", test_teardown);
  util_add_trapped ("/owed/elsewhere-is-not-waited-for", test_elsewhere);
  util_add_trapped ("/owed/race", test_race);
  util_add_trapped ("/owed/circle/asked-first", test_circle_asked_first);
  util_add_trapped ("/owed/circle/asked-last", test_circle_asked_last);
  util_add_trapped ("/owed/circle/of-three", test_circle_of_three);
  util_add_trapped ("/owed/circle/task", test_circle_task);
  util_add_trapped ("/owed/circle/race", test_circle_race);
  util_add_trapped ("/owed/no-circle/reply-is-made", test_no_circle_made);
  util_add_trapped ("/owed/no-circle/owed-elsewhere", test_no_circle_elsewhere);
  util_add_trapped ("/owed/no-circle/cancelled", test_no_circle_cancelled);

  return g_test_run ();
}
