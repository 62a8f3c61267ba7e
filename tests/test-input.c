/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include <bgloop/bg-test.h>

#include "util.h"

/* Each public function is called with good arguments, with what is allowed at the ends of their
 * ranges, and with every kind of bad one. A bad one is one critical and a failure, and nothing
 * else: the data stays the caller's, nothing is counted, nobody is called back, and the loop
 * goes on as before. The test input-symbols compares the names with what the library exports.
 *
 * An object that was disposed of is as good as any, as long as somebody refers to it. One that was
 * finalised has lost its class, which is how a function can tell, and the tests give it such a one
 * in memory of their own. Not tried is what no function can tell: an object whose memory was given
 * back, and may be another's by now, which is an error that AddressSanitizer finds; a BgOperation,
 * a BgLoopStats and a GSource that were freed, since they have no class; an instance with a class
 * that GObject has already begun to finalise, which looks like any other. */

#define N_LONG_NAME 100000

/* What a function takes, or else has about it. */
typedef enum
{
  LOOP = 1 << 0,
  NAME = 1 << 1,
  PRIORITY = 1 << 2,
  TIMEOUT = 1 << 3,
  MODE = 1 << 4,
  FUNC = 1 << 5,
  DESTROY = 1 << 6,
  CANCELLABLE = 1 << 7,
  CALLBACK = 1 << 8,
  ERROR = 1 << 9,
  RESULT = 1 << 10,
  TASK = 1 << 11,
  SOURCE = 1 << 12,
  DELAY = 1 << 13,
  WORK = 1 << 14,
  TEARDOWN = 1 << 15,
  HOLD = 1 << 16,
  OPERATION = 1 << 17,
  ANSWER = 1 << 18,
  STATS = 1 << 19,
  FIXTURE = 1 << 20,
  FRESH = 1 << 21,  /* a fixture that has not been set up */
  SET_UP = 1 << 22, /* one that has */
  EVENTFD = 1 << 23,
  VOID = 1 << 24,        /* whether it has failed is not to be seen */
  ENDS = 1 << 25,        /* the loop */
  WAITS = 1 << 26,       /* for a loop that somebody has asked to end */
  FIXTURE_LOOP = 1 << 27 /* a fixture's loop */
} Traits;

/* Each function takes some of these. */
typedef struct
{
  BgLoop *loop;
  const char *name;
  int priority;
  int timeout_msec;
  BgShutdownMode mode;
  gboolean no_func;
  gpointer data;
  GDestroyNotify destroy;
  GCancellable *cancellable;
  GAsyncReadyCallback callback;
  UtilReply *reply;
  GError **error;
  GAsyncResult *result;
  GTask *task;
  GSource *source;
  guint delay_msec;
  guint64 id;
  BgOperation *operation;
  BgLoopStats *stats;
  BgTestFixture *fixture;
  int fd;
} Arguments;

/* TRUE on success, or if that is not to be seen. */
typedef gboolean (*CallFunc) (const Arguments *with);

typedef struct
{
  const char *name;
  CallFunc call;
  guint traits;
  CallFunc finish;        /* (nullable) of an asynchronous one */
  CallFunc start;         /* (nullable) of one that takes a result: what it is the result of */
  const char *reports_as; /* (nullable) another name that begins otherwise */
} Function;

typedef struct
{
  const Function *function;
  Arguments good;
  Arguments given;
  BgLoop *loop;
  BgLoop *other;     /* (owned) (nullable) */
  GObject *thing;    /* (owned) an object of no type that is asked for */
  GObject *left;     /* (owned) (nullable) what is left of an object that was finalised */
  GSource *spoilt;   /* (owned) (nullable) */
  BgOperation *kept; /* (owned) (nullable) */
  GCancellable *cancellable;
  GError *error;
  GError *old_error;
  UtilReply reply;
  UtilReply other_reply;
  BgTestFixture fixture;
  BgTestFixture other_fixture;
  int ran;
  int destroyed;
} Case;

/* What the functions are given */

#define FUNC_OF(with, func) ((with)->no_func ? NULL : (func))

static void
post_cb (gpointer user_data)
{
  Case *self = user_data;

  g_atomic_int_inc (&self->ran);
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  post_cb (user_data);
  return TRUE;
}

static gboolean
invoke_cb (gpointer user_data)
{
  post_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
task_cb (GTask *task, gpointer source, gpointer task_data, GCancellable *cancellable)
{
  g_task_return_boolean (task, TRUE);
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, callback, callback_data);

  post_cb (user_data);
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static gboolean
operation_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  post_cb (user_data);
  bg_operation_answer (operation, G_ASYNC_RESULT (task));
  return TRUE;
}

static gboolean
keep_cb (BgOperation *operation, GCancellable *cancellable, gpointer user_data, GError **error)
{
  Case *self = user_data;

  self->kept = bg_operation_ref (operation);
  return TRUE;
}

static void
destroy_cb (gpointer user_data)
{
  Case *self = user_data;

  g_atomic_int_inc (&self->destroyed);
}

/* The functions: life */

static gboolean
call_new (const Arguments *with)
{
  BgLoop *loop = bg_loop_new (with->name, with->error);
  g_autofree char *text = NULL;

  if (loop == NULL)
    return FALSE;

  g_assert_cmpstr (bg_loop_get_name (loop), ==,
                   with->name == NULL || *with->name == '\0' ? "bgloop" : with->name);
  text = bg_loop_describe (loop);
  g_assert_nonnull (strstr (text, bg_loop_get_name (loop)));
  util_loop_end (loop);
  return TRUE;
}

static gboolean
call_dup_default (const Arguments *with)
{
  g_autoptr (BgLoop) loop = bg_loop_dup_default (with->error);

  return loop != NULL && bg_loop_reset_default (-1, NULL);
}

static gboolean
call_dup_current (const Arguments *with)
{
  return bg_loop_dup_current () == NULL;
}

static gboolean
call_reset_default (const Arguments *with)
{
  BgLoop *loop = bg_loop_dup_default (NULL);
  gboolean ok = bg_loop_reset_default (with->timeout_msec, with->error);

  util_loop_end (loop);
  return ok;
}

static gboolean
call_quit (const Arguments *with)
{
  bg_loop_quit (with->loop, with->mode);
  return TRUE;
}

static gboolean
call_shutdown (const Arguments *with)
{
  return bg_loop_shutdown (with->loop, with->error);
}

static gboolean
call_shutdown_full (const Arguments *with)
{
  return bg_loop_shutdown_full (with->loop, with->mode, with->timeout_msec, with->cancellable,
                                with->error);
}

static gboolean
call_shutdown_async (const Arguments *with)
{
  bg_loop_shutdown_async (with->loop, with->mode, with->timeout_msec, with->cancellable,
                          with->callback, with->reply);
  return TRUE;
}

static gboolean
call_shutdown_finish (const Arguments *with)
{
  return bg_loop_shutdown_finish (with->loop, with->result, with->error);
}

static gboolean
call_wait (const Arguments *with)
{
  return bg_loop_wait (with->loop, with->timeout_msec, with->cancellable, with->error);
}

static gboolean
call_wait_async (const Arguments *with)
{
  bg_loop_wait_async (with->loop, with->timeout_msec, with->cancellable, with->callback,
                      with->reply);
  return TRUE;
}

static gboolean
call_wait_finish (const Arguments *with)
{
  return bg_loop_wait_finish (with->loop, with->result, with->error);
}

/* Looking */

static gboolean
call_get_name (const Arguments *with)
{
  return bg_loop_get_name (with->loop) != NULL;
}

static gboolean
call_get_context (const Arguments *with)
{
  return bg_loop_get_context (with->loop) != NULL;
}

static gboolean
call_get_state (const Arguments *with)
{
  return bg_loop_get_state (with->loop) == BG_LOOP_RUNNING;
}

static gboolean
call_is_current (const Arguments *with)
{
  return !bg_loop_is_current (with->loop);
}

static gboolean
call_get_cancellable (const Arguments *with)
{
  return bg_loop_get_cancellable (with->loop) != NULL;
}

static gboolean
call_get_stats (const Arguments *with)
{
  g_autoptr (BgLoopStats) stats = bg_loop_get_stats (with->loop);

  return stats != NULL;
}

static gboolean
call_describe (const Arguments *with)
{
  g_autofree char *text = bg_loop_describe (with->loop);

  return text != NULL;
}

static gboolean
call_stats_copy (const Arguments *with)
{
  g_autoptr (BgLoopStats) copy = bg_loop_stats_copy (with->stats);

  return copy != NULL;
}

static gboolean
call_stats_free (const Arguments *with)
{
  bg_loop_stats_free (with->stats != NULL ? bg_loop_stats_copy (with->stats) : NULL);
  return TRUE;
}

/* Work */

static gboolean
call_post (const Arguments *with)
{
  return bg_loop_post (with->loop, FUNC_OF (with, post_cb), with->data, with->destroy);
}

static gboolean
call_post_full (const Arguments *with)
{
  return bg_loop_post_full (with->loop, with->priority, FUNC_OF (with, post_cb), with->data,
                            with->destroy);
}

static gboolean
call_post_after (const Arguments *with)
{
  return bg_loop_post_after (with->loop, with->delay_msec, FUNC_OF (with, post_cb), with->data,
                             with->destroy)
         != 0;
}

static gboolean
call_withdraw (const Arguments *with)
{
  return bg_loop_withdraw (with->loop, with->id);
}

static gboolean
call_invoke (const Arguments *with)
{
  return bg_loop_invoke (with->loop, FUNC_OF (with, invoke_cb), with->data);
}

static gboolean
call_invoke_full (const Arguments *with)
{
  return bg_loop_invoke_full (with->loop, with->priority, FUNC_OF (with, invoke_cb), with->data,
                              with->destroy);
}

static gboolean
call_call (const Arguments *with)
{
  return bg_loop_call (with->loop, FUNC_OF (with, call_cb), with->data, with->cancellable,
                       with->error);
}

static gboolean
call_call_full (const Arguments *with)
{
  return bg_loop_call_full (with->loop, with->priority, with->timeout_msec, FUNC_OF (with, call_cb),
                            with->data, with->cancellable, with->error);
}

static gboolean
call_call_async (const Arguments *with)
{
  bg_loop_call_async (with->loop, with->priority, with->timeout_msec, FUNC_OF (with, call_cb),
                      with->data, with->destroy, with->cancellable, with->callback, with->reply);
  return TRUE;
}

static gboolean
call_call_finish (const Arguments *with)
{
  return bg_loop_call_finish (with->loop, with->result, with->error);
}

static gboolean
call_run_task (const Arguments *with)
{
  bg_loop_run_task (with->loop, with->priority, with->task, FUNC_OF (with, task_cb));
  return TRUE;
}

static gboolean
call_task_finish (const Arguments *with)
{
  return g_task_propagate_boolean (G_TASK (with->result), with->error);
}

static gboolean
call_flush (const Arguments *with)
{
  return bg_loop_flush (with->loop, with->timeout_msec, with->cancellable, with->error);
}

/* Operations */

static gboolean
call_perform (const Arguments *with)
{
  g_autoptr (GAsyncResult) answer
      = bg_loop_perform (with->loop, with->priority, with->timeout_msec, FUNC_OF (with, begin_cb),
                         with->data, with->cancellable, with->error);

  return answer != NULL;
}

static gboolean
call_perform_async (const Arguments *with)
{
  bg_loop_perform_async (with->loop, with->priority, with->timeout_msec, FUNC_OF (with, begin_cb),
                         with->data, with->destroy, with->cancellable, with->callback, with->reply);
  return TRUE;
}

static gboolean
call_perform_finish (const Arguments *with)
{
  g_autoptr (GAsyncResult) answer = bg_loop_perform_finish (with->loop, with->result, with->error);

  return answer != NULL;
}

static gboolean
call_perform_operation (const Arguments *with)
{
  g_autoptr (GAsyncResult) answer
      = bg_loop_perform_operation (with->loop, with->priority, with->timeout_msec,
                                   FUNC_OF (with, operation_cb), with->data, with->cancellable,
                                   with->error);

  return answer != NULL;
}

static gboolean
call_perform_operation_async (const Arguments *with)
{
  bg_loop_perform_operation_async (with->loop, with->priority, with->timeout_msec,
                                   FUNC_OF (with, operation_cb), with->data, with->destroy,
                                   with->cancellable, with->callback, with->reply);
  return TRUE;
}

static gboolean
call_perform_operation_finish (const Arguments *with)
{
  g_autoptr (GAsyncResult) answer
      = bg_loop_perform_operation_finish (with->loop, with->result, with->error);

  return answer != NULL;
}

static gboolean
call_operation_ref (const Arguments *with)
{
  g_autoptr (BgOperation) operation = bg_operation_ref (with->operation);

  return operation != NULL;
}

static gboolean
call_operation_unref (const Arguments *with)
{
  bg_operation_unref (with->operation != NULL ? bg_operation_ref (with->operation) : NULL);
  return TRUE;
}

static gboolean
call_operation_answer (const Arguments *with)
{
  bg_operation_answer (with->operation, with->result);
  return TRUE;
}

/* Living on the loop */

static gboolean
call_attach (const Arguments *with)
{
  return bg_loop_attach (with->loop, with->source);
}

static gboolean
call_hold (const Arguments *with)
{
  guint64 hold = bg_loop_hold (with->loop, with->name);
  g_autofree char *text = NULL;

  if (hold == 0)
    return FALSE;

  text = bg_loop_describe (with->loop);
  g_assert_nonnull (strstr (text, with->name != NULL ? with->name : "unnamed"));
  bg_loop_release (with->loop, hold);
  return TRUE;
}

static gboolean
call_release (const Arguments *with)
{
  bg_loop_release (with->loop, with->id);
  return TRUE;
}

static gboolean
call_add_teardown (const Arguments *with)
{
  return bg_loop_add_teardown (with->loop, FUNC_OF (with, post_cb), with->data, with->destroy) != 0;
}

static gboolean
call_remove_teardown (const Arguments *with)
{
  return bg_loop_remove_teardown (with->loop, with->id);
}

/* The test kit */

static gboolean
call_set_up (const Arguments *with)
{
  bg_test_fixture_set_up (with->fixture, NULL);
  return TRUE;
}

static gboolean
call_tear_down (const Arguments *with)
{
  bg_test_fixture_tear_down (with->fixture, NULL);
  /* Whatever has become of its loop, nothing is left of the fixture. */
  g_assert_true (with->fixture == NULL || with->fixture->loop == NULL);
  g_assert_true (with->fixture == NULL || with->fixture->eventfds == NULL);
  return TRUE;
}

static gboolean
call_ignore_eventfd (const Arguments *with)
{
  bg_test_fixture_ignore_eventfd (with->fixture, with->fd);
  return TRUE;
}

static gboolean
call_assert_no_loops (const Arguments *with)
{
  util_loop_end (with->loop);
  bg_test_assert_no_loops ();
  return TRUE;
}

static gboolean
call_get_timeout (const Arguments *with)
{
  return bg_test_get_timeout () >= -1;
}

static gboolean
call_mark_loops (const Arguments *with)
{
  return bg_test_mark_loops () > 0;
}

/* None has been made since it is called. */
static gboolean
call_describe_loops (const Arguments *with)
{
  return bg_test_describe_loops (bg_test_mark_loops (), with->timeout_msec) == NULL;
}

static gboolean
call_pause (const Arguments *with)
{
  if (!bg_test_pause (with->loop, with->error))
    return FALSE;

  bg_test_resume (with->loop);
  return TRUE;
}

static gboolean
call_step (const Arguments *with)
{
  if (bg_test_step (with->loop, with->error) == -1)
    return FALSE;

  bg_test_resume (with->loop);
  return TRUE;
}

static gboolean
call_run_until_idle (const Arguments *with)
{
  return bg_test_run_until_idle (with->loop, with->error) != -1;
}

static gboolean
call_resume (const Arguments *with)
{
  bg_test_resume (with->loop);
  return TRUE;
}

/* What takes nothing that could be wrong */

static gboolean
look_at_types (const Arguments *with)
{
  return g_type_is_a (bg_loop_get_type (), G_TYPE_OBJECT)
         && g_type_is_a (bg_loop_state_get_type (), G_TYPE_ENUM)
         && g_type_is_a (bg_shutdown_mode_get_type (), G_TYPE_ENUM)
         && g_type_is_a (bg_error_get_type (), G_TYPE_ENUM)
         && g_type_is_a (bg_loop_stats_get_type (), G_TYPE_BOXED)
         && g_type_is_a (bg_operation_get_type (), G_TYPE_BOXED) && bg_error_quark () != 0;
}

static gboolean
look_at_version (const Arguments *with)
{
  return bg_get_major_version () == BG_MAJOR_VERSION && bg_get_minor_version () == BG_MINOR_VERSION
         && bg_get_micro_version () == BG_MICRO_VERSION && bg_check_version (0, 0, 0) != NULL
         && bg_check_version (G_MAXUINT, G_MAXUINT, G_MAXUINT) != NULL
         && bg_check_version (BG_MAJOR_VERSION, BG_MINOR_VERSION, G_MAXUINT) != NULL
         && bg_check_version (BG_MAJOR_VERSION, G_MAXUINT, 0) != NULL;
}

#define WORK_OF_ITS_OWN (LOOP | FUNC | DESTROY)
#define WAIT            (LOOP | TIMEOUT | CANCELLABLE | ERROR)
#define PERFORM         (WAIT | PRIORITY | FUNC)
#define ASYNC           (LOOP | TIMEOUT | CANCELLABLE | CALLBACK | VOID)
#define WORK_ASYNC      (ASYNC | PRIORITY | FUNC | DESTROY)
#define FINISH          (LOOP | RESULT | ERROR)

static const Function functions[] = {
  { "bg_check_version", look_at_version, 0 },
  { "bg_error_get_type", look_at_types, 0 },
  { "bg_error_quark", look_at_types, 0 },
  { "bg_get_major_version", look_at_version, 0 },
  { "bg_get_micro_version", look_at_version, 0 },
  { "bg_get_minor_version", look_at_version, 0 },
  { "bg_loop_add_teardown", call_add_teardown, WORK_OF_ITS_OWN },
  { "bg_loop_attach", call_attach, LOOP | SOURCE },
  { "bg_loop_call", call_call, LOOP | FUNC | CANCELLABLE | ERROR },
  { "bg_loop_call_async", call_call_async, WORK_ASYNC, .finish = call_call_finish },
  { "bg_loop_call_finish", call_call_finish, FINISH, .start = call_call_async },
  { "bg_loop_call_full", call_call_full, PERFORM },
  { "bg_loop_describe", call_describe, LOOP },
  { "bg_loop_dup_current", call_dup_current, 0 },
  { "bg_loop_dup_default", call_dup_default, ERROR },
  { "bg_loop_flush", call_flush, WAIT },
  { "bg_loop_get_cancellable", call_get_cancellable, LOOP },
  { "bg_loop_get_context", call_get_context, LOOP },
  { "bg_loop_get_name", call_get_name, LOOP },
  { "bg_loop_get_state", call_get_state, LOOP },
  { "bg_loop_get_stats", call_get_stats, LOOP },
  { "bg_loop_get_type", look_at_types, 0 },
  { "bg_loop_hold", call_hold, LOOP | NAME },
  { "bg_loop_invoke", call_invoke, LOOP | FUNC },
  { "bg_loop_invoke_full", call_invoke_full, WORK_OF_ITS_OWN | PRIORITY },
  { "bg_loop_is_current", call_is_current, LOOP | VOID },
  { "bg_loop_new", call_new, NAME | ERROR },
  { "bg_loop_perform", call_perform, PERFORM },
  { "bg_loop_perform_async", call_perform_async, WORK_ASYNC, .finish = call_perform_finish },
  { "bg_loop_perform_finish", call_perform_finish, FINISH, .start = call_perform_async },
  { "bg_loop_perform_operation", call_perform_operation, PERFORM },
  { "bg_loop_perform_operation_async", call_perform_operation_async, WORK_ASYNC,
    .finish = call_perform_operation_finish },
  { "bg_loop_perform_operation_finish", call_perform_operation_finish, FINISH,
    .start = call_perform_operation_async, .reports_as = "bg_loop_perform_finish" },
  { "bg_loop_post", call_post, WORK_OF_ITS_OWN },
  { "bg_loop_post_after", call_post_after, WORK_OF_ITS_OWN | DELAY },
  { "bg_loop_post_full", call_post_full, WORK_OF_ITS_OWN | PRIORITY },
  { "bg_loop_quit", call_quit, LOOP | MODE | VOID | ENDS },
  { "bg_loop_release", call_release, LOOP | HOLD | VOID },
  { "bg_loop_remove_teardown", call_remove_teardown, LOOP | TEARDOWN },
  { "bg_loop_reset_default", call_reset_default, TIMEOUT | ERROR },
  { "bg_loop_run_task", call_run_task, LOOP | PRIORITY | TASK | FUNC | VOID,
    .finish = call_task_finish },
  { "bg_loop_shutdown", call_shutdown, LOOP | ERROR | ENDS },
  { "bg_loop_shutdown_async", call_shutdown_async, ASYNC | MODE | ENDS,
    .finish = call_shutdown_finish },
  { "bg_loop_shutdown_finish", call_shutdown_finish, FINISH, .start = call_shutdown_async },
  { "bg_loop_shutdown_full", call_shutdown_full, WAIT | MODE | ENDS },
  { "bg_loop_state_get_type", look_at_types, 0 },
  { "bg_loop_stats_copy", call_stats_copy, STATS },
  { "bg_loop_stats_free", call_stats_free, STATS | VOID },
  { "bg_loop_stats_get_type", look_at_types, 0 },
  { "bg_loop_wait", call_wait, WAIT | ENDS | WAITS },
  { "bg_loop_wait_async", call_wait_async, ASYNC | ENDS | WAITS, .finish = call_wait_finish },
  { "bg_loop_wait_finish", call_wait_finish, FINISH, .start = call_wait_async },
  { "bg_loop_withdraw", call_withdraw, LOOP | WORK },
  { "bg_operation_answer", call_operation_answer, OPERATION | ANSWER | VOID },
  { "bg_operation_get_type", look_at_types, 0 },
  { "bg_operation_ref", call_operation_ref, OPERATION },
  { "bg_operation_unref", call_operation_unref, OPERATION | VOID },
  { "bg_shutdown_mode_get_type", look_at_types, 0 },
  { "bg_test_assert_no_loops", call_assert_no_loops, 0 },
  { "bg_test_describe_loops", call_describe_loops, TIMEOUT | VOID },
  { "bg_test_fixture_ignore_eventfd", call_ignore_eventfd, FIXTURE | SET_UP | EVENTFD | VOID },
  { "bg_test_fixture_set_up", call_set_up, FIXTURE | FRESH | VOID },
  { "bg_test_fixture_tear_down", call_tear_down, FIXTURE | SET_UP | FIXTURE_LOOP | VOID },
  { "bg_test_get_timeout", call_get_timeout, 0 },
  { "bg_test_mark_loops", call_mark_loops, 0 },
  { "bg_test_pause", call_pause, LOOP | ERROR },
  { "bg_test_resume", call_resume, LOOP | VOID },
  { "bg_test_run_until_idle", call_run_until_idle, LOOP | ERROR },
  { "bg_test_step", call_step, LOOP | ERROR },
};

/* One call, and what it needs */

static gboolean
has (Case *self, guint traits)
{
  return (self->function->traits & traits) != 0;
}

/* Whoever got an answer may have got it before all was done and counted. */
static void
settle (Case *self)
{
  if (bg_loop_get_state (self->loop) == BG_LOOP_RUNNING)
    g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
}

static void
prepare_result (Case *self)
{
  g_assert_true (self->function->start (&self->good));
  if (self->function->start == call_wait_async)
    bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  util_reply_wait (&self->reply);
  self->good.result = self->reply.result;
}

static void
prepare_operation (Case *self)
{
  bg_loop_perform_operation_async (self->loop, 0, -1, keep_cb, self, NULL, NULL, util_reply_cb,
                                   &self->reply);
  g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
  self->good.operation = self->kept;
  self->good.task = g_task_new (NULL, NULL, NULL, NULL);
  self->good.result = G_ASYNC_RESULT (self->good.task);
}

static void
prepare (Case *self)
{
  Arguments *good = &self->good;

  if (has (self, RESULT))
    prepare_result (self);
  if (has (self, OPERATION))
    prepare_operation (self);
  if (has (self, TASK))
    good->task = g_task_new (NULL, NULL, good->callback, good->reply);
  if (has (self, SOURCE))
    good->source = g_timeout_source_new (G_MAXUINT);
  if (has (self, WORK))
    good->id = bg_loop_post_after (self->loop, G_MAXUINT, util_not_reached_cb, NULL, NULL);
  if (has (self, TEARDOWN))
    good->id = bg_loop_add_teardown (self->loop, post_cb, self, NULL);
  if (has (self, HOLD))
    good->id = bg_loop_hold (self->loop, "input");
  if (has (self, STATS))
    good->stats = bg_loop_get_stats (self->loop);
  if (has (self, SET_UP))
    bg_test_fixture_set_up (good->fixture, NULL);
  settle (self);
}

static void
case_init (Case *self, const Function *function)
{
  *self = (Case){ .function = function };
  self->loop = util_loop_new ("input");
  self->thing = g_object_new (G_TYPE_OBJECT, NULL);
  self->cancellable = g_cancellable_new ();
  self->old_error = g_error_new_literal (G_FILE_ERROR, G_FILE_ERROR_EXIST, "old");
  util_reply_init (&self->reply);
  util_reply_init (&self->other_reply);
  self->good = (Arguments){ .loop = self->loop,
                            .name = "name",
                            .timeout_msec = -1,
                            .data = self,
                            .destroy = destroy_cb,
                            .callback = util_reply_cb,
                            .reply = &self->reply,
                            .error = &self->error,
                            .fixture = &self->fixture };
  prepare (self);
  self->given = self->good;
}

static void
case_clear (Case *self)
{
  if (self->fixture.eventfds != NULL)
    bg_test_fixture_tear_down (&self->fixture, NULL);
  if (self->other_fixture.eventfds != NULL)
    bg_test_fixture_tear_down (&self->other_fixture, NULL);
  if (self->kept != NULL)
    {
      bg_operation_unref (self->kept);
      util_reply_wait (&self->reply);
    }
  if (self->spoilt != NULL)
    g_source_destroy (self->spoilt);
  g_clear_pointer (&self->spoilt, g_source_unref);
  g_clear_pointer (&self->good.source, g_source_unref);
  g_clear_pointer (&self->good.stats, bg_loop_stats_free);
  g_clear_object (&self->good.task);
  util_reply_clear (&self->reply);
  util_reply_clear (&self->other_reply);
  if (self->function->call != call_assert_no_loops)
    util_loop_end (self->loop);
  g_clear_pointer (&self->other, util_loop_end);
  g_clear_pointer (&self->left, g_free);
  g_assert_finalize_object (self->thing);
  g_assert_finalize_object (self->cancellable);
  g_error_free (self->old_error);
  g_clear_error (&self->error);
}

/* Calls the function and, if it is asynchronous, the one that goes with it. */
static gboolean
run (Case *self)
{
  gboolean ok;

  if (has (self, WAITS))
    bg_loop_quit (self->loop, BG_SHUTDOWN_DRAIN);
  ok = self->function->call (&self->given);
  if (self->function->finish == NULL || self->given.callback == NULL)
    return ok;

  util_reply_wait (&self->reply);
  self->given.result = self->reply.result;
  return self->function->finish (&self->given);
}

/* That there is one now, and was none before. */
static void
assert_no_critical (void)
{
  g_assert_null (bg_loop_get_name (NULL));
  util_take_critical ("*bg_loop_get_name*");
}

static void
assert_goes_on (Case *self, BgLoopState state)
{
  g_autoptr (GError) error = NULL;
  gboolean ok;

  g_assert_cmpint (bg_loop_get_state (self->loop), ==, state);
  ok = bg_loop_call (self->loop, util_true_cb, NULL, NULL, &error);
  if (state == BG_LOOP_RUNNING)
    g_assert_no_error (error);
  else
    g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
  g_assert_true (ok == (state == BG_LOOP_RUNNING));
}

/* Whatever was given once, and accepted or refused, has had its destroy notify. */
static void
case_end (Case *self)
{
  gboolean destroys = has (self, DESTROY) && self->given.destroy != NULL;

  case_clear (self);
  if (has (self, DESTROY))
    g_assert_cmpint (self->destroyed, ==, destroys ? 1 : 0);
}

/* What is allowed */

typedef enum
{
  SUCCEEDS,
  FAILS,
  MAY_TIME_OUT,
} Outcome;

typedef struct
{
  Traits trait;
  void (*set) (Case *self, int value);
  int value;
  Outcome outcome;
} Allowed;

static void
set_priority (Case *self, int value)
{
  self->given.priority = value;
}

static void
set_timeout (Case *self, int value)
{
  self->given.timeout_msec = value;
}

static void
set_mode (Case *self, int value)
{
  self->given.mode = (BgShutdownMode) value;
}

static void
set_delay (Case *self, int value)
{
  self->given.delay_msec = (guint) value;
}

static void
set_id (Case *self, int value)
{
  self->given.id = (guint64) value;
}

static void
set_fd (Case *self, int value)
{
  self->given.fd = value;
}

static void
set_cancellable (Case *self, int value)
{
  self->given.cancellable = self->cancellable;
}

static void
set_disposed_loop (Case *self, int value)
{
  g_object_run_dispose (G_OBJECT (self->loop));
}

static void
set_no_callback (Case *self, int value)
{
  self->given.callback = NULL;
}

static void
set_no_destroy (Case *self, int value)
{
  self->given.destroy = NULL;
}

static void
set_no_error (Case *self, int value)
{
  self->given.error = NULL;
}

static void
set_name (Case *self, int value)
{
  static const char *const names[] = { NULL, "", "\377\200 not UTF-8 \303" };

  self->given.name = names[value];
}

static void
set_long_name (Case *self, int value)
{
  static char name[N_LONG_NAME + 1];

  memset (name, 'x', N_LONG_NAME);
  self->given.name = name;
}

/* As a test leaves its fixture that has dropped the loop. */
static void
set_fixture_without_loop (Case *self, int value)
{
  g_clear_pointer (&self->given.fixture->loop, util_loop_end);
}

static const Allowed allowed[] = {
  { LOOP, set_disposed_loop },
  { PRIORITY, set_priority, G_MININT },
  { PRIORITY, set_priority, G_MAXINT },
  { TIMEOUT, set_timeout, 0, MAY_TIME_OUT },
  { TIMEOUT, set_timeout, G_MAXINT },
  { MODE, set_mode, BG_SHUTDOWN_CANCEL },
  { DELAY, set_delay, G_MAXINT },
  { DELAY, set_delay, -1 },
  { WORK | TEARDOWN, set_id, 0, FAILS },
  { WORK | TEARDOWN, set_id, -1, FAILS },
  { EVENTFD, set_fd, G_MAXINT },
  { FIXTURE_LOOP, set_fixture_without_loop },
  { CANCELLABLE, set_cancellable },
  { CALLBACK, set_no_callback },
  { DESTROY, set_no_destroy },
  { ERROR, set_no_error },
  { NAME, set_name, 0 },
  { NAME, set_name, 1 },
  { NAME, set_name, 2 },
  { NAME, set_long_name },
};

/* Without a value: with good arguments. */
static void
run_allowed (const Function *function, const Allowed *value)
{
  Outcome outcome = value != NULL ? value->outcome : SUCCEEDS;
  gboolean ok;
  Case self;

  case_init (&self, function);
  if (value != NULL)
    value->set (&self, value->value);
  ok = run (&self);
  assert_no_critical ();

  if (outcome == MAY_TIME_OUT && !ok)
    g_assert_error (self.error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  else
    g_assert_no_error (self.error);
  if (outcome != MAY_TIME_OUT)
    g_assert_true (ok == (outcome == SUCCEEDS));
  if (function->start == NULL && !has (&self, ENDS) && function->call != call_assert_no_loops)
    assert_goes_on (&self, BG_LOOP_RUNNING);
  case_end (&self);
}

static void
test_allowed (gconstpointer data)
{
  const Function *function = data;

  util_catch_criticals ();
  run_allowed (function, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (allowed); i++)
    {
      if ((function->traits & allowed[i].trait) != 0)
        run_allowed (function, &allowed[i]);
    }
}

/* What is bad */

typedef struct
{
  Traits trait;
  void (*set) (Case *self, int value);
  int value;
  const char *asserts; /* (nullable) what the function finds not to be so */
  const char *says;    /* (nullable) what it says otherwise */
  gboolean spends;     /* the good argument is not good any more */
} Bad;

static void
set_no_loop (Case *self, int value)
{
  self->given.loop = NULL;
}

static void
set_thing_as_loop (Case *self, int value)
{
  self->given.loop = (BgLoop *) self->thing;
}

/* What an object of the type of @like is once it is finalised, and before anybody has its memory
 * again: nothing refers to it, and GObject has taken its class away. */
static gpointer
make_finalised (Case *self, gpointer like)
{
  GTypeQuery query;

  g_type_query (G_OBJECT_TYPE (like), &query);
  self->left = g_memdup2 (like, query.instance_size);
  self->left->g_type_instance.g_class = NULL;
  self->left->ref_count = 0;
  g_assert_false (G_IS_OBJECT (self->left));
  return self->left;
}

static void
set_finalised_loop (Case *self, int value)
{
  self->given.loop = make_finalised (self, self->loop);
}

static void
set_finalised_cancellable (Case *self, int value)
{
  self->given.cancellable = make_finalised (self, self->cancellable);
}

static void
set_finalised_result (Case *self, int value)
{
  self->given.result = make_finalised (self, self->good.result);
}

static void
set_finalised_task (Case *self, int value)
{
  self->given.task = make_finalised (self, self->good.task);
}

static void
set_completed_task (Case *self, int value)
{
  GTask *task = g_task_new (NULL, NULL, NULL, NULL);

  g_task_return_boolean (task, TRUE);
  while (!g_task_get_completed (task))
    g_main_context_iteration (g_main_context_get_thread_default (), TRUE);
  g_object_set_data_full (G_OBJECT (self->good.task), "completed", task, g_object_unref);
  self->given.task = task;
}

static void
set_no_func (Case *self, int value)
{
  self->given.no_func = TRUE;
}

static void
set_thing_as_cancellable (Case *self, int value)
{
  self->given.cancellable = (GCancellable *) self->thing;
}

static void
set_old_error (Case *self, int value)
{
  self->given.error = &self->old_error;
}

static void
set_no_result (Case *self, int value)
{
  self->given.result = NULL;
}

static void
set_thing_as_result (Case *self, int value)
{
  self->given.result = (GAsyncResult *) self->thing;
}

static void
set_task_as_result (Case *self, int value)
{
  self->good.task = g_task_new (self->loop, NULL, NULL, NULL);
  self->given.result = G_ASYNC_RESULT (self->good.task);
}

/* The loop may have ended: then that is the result. */
static void
set_result_of_other_function (Case *self, int value)
{
  Arguments with = self->good;

  with.reply = &self->other_reply;
  with.destroy = NULL;
  if (self->function->start == call_call_async)
    call_perform_async (&with);
  else
    call_call_async (&with);
  util_reply_wait (&self->other_reply);
  settle (self);
  self->given.result = self->other_reply.result;
}

static void
set_other_loop (Case *self, int value)
{
  self->other = util_loop_new ("other");
  self->given.loop = self->other;
}

static void
set_used_result (Case *self, int value)
{
  g_assert_true (self->function->call (&self->good));
}

static void
set_no_task (Case *self, int value)
{
  self->given.task = NULL;
}

static void
set_thing_as_task (Case *self, int value)
{
  self->given.task = (GTask *) self->thing;
}

static void
set_no_source (Case *self, int value)
{
  self->given.source = NULL;
}

enum
{
  ATTACHED = 1 << 0,
  ATTACHED_HERE = 1 << 1,
  DESTROYED = 1 << 2,
};

static void
set_spoilt_source (Case *self, int how)
{
  self->spoilt = g_timeout_source_new (G_MAXUINT);
  if ((how & ATTACHED) != 0)
    g_source_attach (self->spoilt, NULL);
  if ((how & ATTACHED_HERE) != 0)
    g_assert_true (bg_loop_attach (self->loop, self->spoilt));
  if ((how & DESTROYED) != 0)
    g_source_destroy (self->spoilt);
  self->given.source = self->spoilt;
}

static void
set_released_hold (Case *self, int value)
{
  bg_loop_release (self->loop, self->good.id);
}

static void
set_no_operation (Case *self, int value)
{
  self->given.operation = NULL;
}

static void
set_answered_operation (Case *self, int value)
{
  bg_operation_answer (self->good.operation, self->good.result);
  util_reply_wait (&self->reply);
  util_wait_for_holds (self->loop, 0);
}

static void
set_no_stats (Case *self, int value)
{
  self->given.stats = NULL;
}

static void
set_no_fixture (Case *self, int value)
{
  self->given.fixture = NULL;
}

static void
set_fixture_set_up (Case *self, int value)
{
  bg_test_fixture_set_up (&self->other_fixture, NULL);
  self->given.fixture = &self->other_fixture;
}

static void
set_fresh_fixture (Case *self, int value)
{
  self->given.fixture = &self->other_fixture;
}

static void
set_torn_down_fixture (Case *self, int value)
{
  bg_test_fixture_set_up (&self->other_fixture, NULL);
  bg_test_fixture_tear_down (&self->other_fixture, NULL);
  self->given.fixture = &self->other_fixture;
}

/* As a test leaves its fixture that has dropped the loop and has not said so: where the loop was there
 * is something else. */
static void
set_fixture_with (Case *self, gpointer instead)
{
  bg_test_fixture_set_up (&self->other_fixture, NULL);
  util_loop_end (self->other_fixture.loop);
  self->other_fixture.loop = instead;
  self->given.fixture = &self->other_fixture;
}

static void
set_fixture_with_thing (Case *self, int value)
{
  set_fixture_with (self, self->thing);
}

static void
set_fixture_with_finalised_loop (Case *self, int value)
{
  set_fixture_with (self, make_finalised (self, self->loop));
}

static const Bad bad[] = {
  { LOOP, set_no_loop, 0, "BG_IS_LOOP*" },
  { LOOP, set_thing_as_loop, 0, "BG_IS_LOOP*" },
  { LOOP, set_finalised_loop, 0, "BG_IS_LOOP*" },
  { TIMEOUT, set_timeout, -2, "timeout_msec >= -1" },
  { TIMEOUT, set_timeout, G_MININT, "timeout_msec >= -1" },
  { MODE, set_mode, -1, "is_mode*" },
  { MODE, set_mode, BG_SHUTDOWN_CANCEL + 1, "is_mode*" },
  { MODE, set_mode, G_MAXINT, "is_mode*" },
  { FUNC, set_no_func, 0, "* != NULL" },
  { CANCELLABLE, set_thing_as_cancellable, 0, "*G_IS_CANCELLABLE*" },
  { CANCELLABLE, set_finalised_cancellable, 0, "*G_IS_CANCELLABLE*" },
  { ERROR, set_old_error, 0, "*error == NULL" },
  { RESULT, set_no_result, 0, "*_is_valid*" },
  { RESULT, set_thing_as_result, 0, "*_is_valid*" },
  { RESULT, set_finalised_result, 0, "*_is_valid*" },
  { RESULT, set_task_as_result, 0, "*_is_valid*" },
  { RESULT, set_result_of_other_function, 0, "*_is_valid*" },
  { RESULT, set_other_loop, 0, "*_is_valid*" },
  { RESULT, set_used_result, 0, NULL, "a second time", TRUE },
  { TASK, set_no_task, 0, "G_IS_TASK*" },
  { TASK, set_thing_as_task, 0, "G_IS_TASK*" },
  { TASK, set_finalised_task, 0, "G_IS_TASK*" },
  { TASK, set_completed_task, 0, "!g_task_get_completed*" },
  { SOURCE, set_no_source, 0, "source != NULL" },
  { SOURCE, set_spoilt_source, ATTACHED, "*_get_context*== NULL" },
  { SOURCE, set_spoilt_source, ATTACHED_HERE, "*_get_context*== NULL" },
  { SOURCE, set_spoilt_source, DESTROYED, "*_is_destroyed*" },
  { SOURCE, set_spoilt_source, ATTACHED | DESTROYED, "*_is_destroyed*" },
  { HOLD, set_id, 0, NULL, "has no hold 0" },
  { HOLD, set_id, -1, NULL, "has no hold" },
  { HOLD, set_released_hold, 0, NULL, "has no hold", TRUE },
  { OPERATION, set_no_operation, 0, "* != NULL" },
  { ANSWER, set_no_result, 0, "G_IS_ASYNC_RESULT*" },
  { ANSWER, set_thing_as_result, 0, "G_IS_ASYNC_RESULT*" },
  { ANSWER, set_finalised_result, 0, "G_IS_ASYNC_RESULT*" },
  { ANSWER, set_answered_operation, 0, NULL, "more than once", TRUE },
  { STATS, set_no_stats, 0, "* != NULL" },
  { FIXTURE, set_no_fixture, 0, "fixture != NULL" },
  { FRESH, set_fixture_set_up, 0, "fixture->eventfds == NULL" },
  { SET_UP, set_fresh_fixture, 0, "fixture->eventfds != NULL" },
  { SET_UP, set_torn_down_fixture, 0, "fixture->eventfds != NULL" },
  { FIXTURE_LOOP, set_fixture_with_thing, 0, NULL, "fixture's loop is no loop any more" },
  { FIXTURE_LOOP, set_fixture_with_finalised_loop, 0, NULL, "fixture's loop is no loop any more" },
  { EVENTFD, set_fd, -1, "fd >= 0" },
  { EVENTFD, set_fd, G_MININT, "fd >= 0" },
};

static void
take_critical (const Function *function, const Bad *fault)
{
  const char *name = function->reports_as != NULL ? function->reports_as : function->name;
  g_autofree char *pattern
      = fault->asserts != NULL
            ? g_strdup_printf ("*%s*: assertion '%s' failed", name, fault->asserts)
            : g_strdup_printf ("*%s*", fault->says);

  util_take_critical (pattern);
}

/* As if it had not been called: what may be known in between are times, and how often the
 * loop was woken for what was prepared. */
static void
assert_unchanged (Case *self, const Case *before, const BgLoopStats *stats)
{
  g_autoptr (BgLoopStats) now = bg_loop_get_stats (self->loop);

  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_true (self->reply.result == before->reply.result);
  g_assert_cmpint (g_atomic_int_get (&self->ran), ==, before->ran);
  g_assert_cmpint (g_atomic_int_get (&self->destroyed), ==, before->destroyed);
  g_assert_no_error (self->error);
  g_assert_error (self->old_error, G_FILE_ERROR, G_FILE_ERROR_EXIST);
  g_assert_cmpuint (now->posted, ==, stats->posted);
  g_assert_cmpuint (now->run, ==, stats->run);
  g_assert_cmpuint (now->refused, ==, stats->refused);
  g_assert_cmpuint (now->cancelled, ==, stats->cancelled);
  g_assert_cmpuint (now->queued, ==, stats->queued);
  g_assert_cmpuint (now->holds, ==, stats->holds);
}

/* The same call succeeds then, with what it should have been given. */
static void
run_bad (const Function *function, const Bad *fault)
{
  g_autoptr (BgLoopStats) stats = NULL;
  BgLoopState state;
  Case self, before;
  gboolean ok;

  case_init (&self, function);
  fault->set (&self, fault->value);
  before = self;
  state = bg_loop_get_state (self.loop);
  stats = bg_loop_get_stats (self.loop);

  ok = function->call (&self.given);
  take_critical (function, fault);
  g_assert_true (has (&self, VOID) || !ok);
  if (fault->set == set_used_result)
    {
      g_assert_error (self.error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
      g_clear_error (&self.error);
    }
  assert_unchanged (&self, &before, stats);
  assert_goes_on (&self, state);

  self.given = self.good;
  if (!fault->spends)
    g_assert_true (run (&self));
  g_assert_no_error (self.error);
  assert_no_critical ();
  case_end (&self);
}

static gboolean
can_be_bad (const Function *function, const Bad *fault)
{
  return (function->traits & fault->trait) != 0;
}

static void
test_bad (gconstpointer data)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      if (can_be_bad (data, &bad[i]))
        run_bad (data, &bad[i]);
    }
}

static gboolean
has_faults (const Function *function)
{
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      if (can_be_bad (function, &bad[i]))
        return TRUE;
    }

  return FALSE;
}

static void
add (const char *kind, const Function *function, GTestDataFunc func)
{
  g_autofree char *path = g_strdup_printf ("/input/%s/%s", kind, function->name);

  g_test_add_data_func (path, function, func);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  for (guint i = 0; i < G_N_ELEMENTS (functions); i++)
    {
      add ("allowed", &functions[i], test_allowed);
      if (has_faults (&functions[i]))
        add ("bad", &functions[i], test_bad);
    }

  return g_test_run ();
}
