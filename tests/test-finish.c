/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* A result is good for once, and for the function that it is a result of. */

typedef void (*StartFunc) (BgLoop *loop, UtilReply *reply);
typedef gboolean (*FinishFunc) (BgLoop *loop, GAsyncResult *result, GError **error);

typedef struct
{
  const char *name;
  StartFunc start;
  FinishFunc finish;
} Kind;

static void
start_call (BgLoop *loop, UtilReply *reply)
{
  bg_loop_call_async (loop, 0, -1, util_true_cb, NULL, NULL, NULL, util_reply_cb, reply);
}

static void
start_perform (BgLoop *loop, UtilReply *reply)
{
  bg_loop_perform_async (loop, 0, -1, util_begin_cb, NULL, NULL, NULL, util_reply_cb, reply);
}

static void
start_operation (BgLoop *loop, UtilReply *reply)
{
  bg_loop_perform_operation_async (loop, 0, -1, util_operation_cb, NULL, NULL, NULL, util_reply_cb,
                                   reply);
}

static void
start_shutdown (BgLoop *loop, UtilReply *reply)
{
  bg_loop_shutdown_async (loop, BG_SHUTDOWN_DRAIN, -1, NULL, util_reply_cb, reply);
}

static void
start_wait (BgLoop *loop, UtilReply *reply)
{
  bg_loop_wait_async (loop, -1, NULL, util_reply_cb, reply);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

static gboolean
finish_perform (BgLoop *loop, GAsyncResult *result, GError **error)
{
  g_autoptr (GAsyncResult) answer = bg_loop_perform_finish (loop, result, error);

  return answer != NULL;
}

static const Kind kinds[] = {
  { "call", start_call, bg_loop_call_finish },
  { "perform", start_perform, finish_perform },
  { "operation", start_operation, finish_perform },
  { "shutdown", start_shutdown, bg_loop_shutdown_finish },
  { "wait", start_wait, bg_loop_wait_finish },
};

/* A second time it is a critical, and a failure. */
static void
run_twice (const Kind *kind, BgLoop *loop, gboolean succeeds)
{
  UtilReply reply;
  g_autoptr (GError) error = NULL;

  util_reply_init (&reply);
  kind->start (loop, &reply);
  util_reply_wait (&reply);
  g_assert_true (kind->finish (loop, reply.result, &error) == succeeds);
  g_assert_true ((error == NULL) == succeeds);

  g_clear_error (&error);
  g_assert_false (kind->finish (loop, reply.result, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
  util_take_critical ("*asked for a second time*");
  g_assert_false (kind->finish (loop, reply.result, NULL));
  util_take_critical ("*asked for a second time*");
  util_reply_clear (&reply);
}

static void
test_twice (void)
{
  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++)
    {
      BgLoop *loop = util_loop_new (kinds[i].name);
      gboolean ends = kinds[i].start == start_shutdown || kinds[i].start == start_wait;

      run_twice (&kinds[i], loop, TRUE);
      g_assert_true (bg_loop_shutdown (loop, NULL));

      /* And now it is refused. */
      run_twice (&kinds[i], loop, ends);
      util_loop_end (loop);
    }
}

/* That of another function, or of another loop, is not taken, and not spoilt. */
static void
test_wrong (void)
{
  BgLoop *other = util_loop_new ("other");

  util_catch_criticals ();
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++)
    {
      BgLoop *loop = util_loop_new (kinds[i].name);
      g_autoptr (GError) error = NULL;
      UtilReply reply;

      util_reply_init (&reply);
      kinds[i].start (loop, &reply);
      util_reply_wait (&reply);
      for (guint j = 0; j < G_N_ELEMENTS (kinds); j++)
        {
          BgLoop *whose = kinds[j].finish == kinds[i].finish ? other : loop;

          g_assert_false (kinds[j].finish (whose, reply.result, NULL));
          util_take_critical ("*_finish*");
        }
      g_assert_true (kinds[i].finish (loop, reply.result, &error));
      g_assert_no_error (error);
      util_reply_clear (&reply);
      util_loop_end (loop);
    }
  util_loop_end (other);
}

/* No function's address is a tag: it is not the same in every program. Both the
 * program's and the library's would be asked for, in one that is no PIE. */
static void
test_no_tag (void)
{
  static const GCallback functions[] = {
    G_CALLBACK (bg_loop_call_async),     G_CALLBACK (bg_loop_perform_async),
    G_CALLBACK (bg_loop_shutdown_async), G_CALLBACK (bg_loop_perform_operation_async),
    G_CALLBACK (bg_loop_wait_async),
  };

  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++)
    {
      BgLoop *loop = util_loop_new (kinds[i].name);
      UtilReply reply;

      util_reply_init (&reply);
      kinds[i].start (loop, &reply);
      util_reply_wait (&reply);
      for (guint j = 0; j < G_N_ELEMENTS (functions); j++)
        g_assert_false (g_async_result_is_tagged (reply.result, (gpointer) functions[j]));
      g_assert_true (g_async_result_get_user_data (reply.result) == &reply);
      g_assert_true (kinds[i].finish (loop, reply.result, NULL));
      util_reply_clear (&reply);
      util_loop_end (loop);
    }
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/finish/twice", test_twice);
  util_add_trapped ("/finish/wrong", test_wrong);
  util_add_trapped ("/finish/no-tag", test_no_tag);

  return g_test_run ();
}
