/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <bgloop/bg-test.h>

/* The example itself, with a hand in what it asks of its loop. */
static guint64 test_hold (BgLoop *loop, const char *reason);
static guint64 test_post_after (BgLoop *loop,
                                guint delay_msec,
                                BgPostFunc func,
                                gpointer user_data,
                                GDestroyNotify destroy);

#define bg_loop_hold       test_hold
#define bg_loop_post_after test_post_after
#define main               http_server_main
int http_server_main (int argc, char **argv);
#include "http-server.c"
#undef bg_loop_hold
#undef bg_loop_post_after
#undef main

/* What comes in between, on the loop's thread. */
static void (*before_hold) (BgLoop *loop);
static void (*before_post) (BgLoop *loop);
static GAsyncQueue *taken; /* something for each request that waits for its answer */
static guint answer_msec;

static guint64
test_hold (BgLoop *loop, const char *reason)
{
  if (before_hold != NULL)
    before_hold (loop);
  return bg_loop_hold (loop, reason);
}

static guint64
test_post_after (BgLoop *loop,
                 guint delay_msec,
                 BgPostFunc func,
                 gpointer user_data,
                 GDestroyNotify destroy)
{
  guint64 work;

  if (before_post != NULL)
    before_post (loop);
  work = bg_loop_post_after (loop, answer_msec, func, user_data, destroy);
  g_async_queue_push (taken, loop);
  return work;
}

static void
cancel (BgLoop *loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
}

static void
drain (BgLoop *loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
}

typedef struct
{
  BgTestFixture kit;
  Service service;
} Fixture;

static void
set_up (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  bg_test_fixture_set_up (&fixture->kit, data);
  fixture->service.loop = fixture->kit.loop;
  fixture->service.answers = g_async_queue_new ();
  taken = g_async_queue_new ();
  answer_msec = ANSWER_MSEC;
  g_assert_true (bg_loop_call (fixture->kit.loop, start_cb, &fixture->service, NULL, &error));
  g_assert_no_error (error);
}

static void
tear_down (Fixture *fixture, gconstpointer data)
{
  before_hold = before_post = NULL;
  g_clear_pointer (&taken, g_async_queue_unref);
  g_clear_pointer (&fixture->service.answers, g_async_queue_unref);
  g_clear_pointer (&fixture->service.uri, g_free);
  bg_test_fixture_tear_down (&fixture->kit, data);
}

/* Returns: (transfer full): the end of a connection that has sent a request */
static GSocketConnection *
ask (Fixture *fixture)
{
  static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  g_autoptr (GSocketClient) client = g_socket_client_new ();
  g_autoptr (GError) error = NULL;
  GSocketConnection *connection;

  connection = g_socket_client_connect_to_uri (client, fixture->service.uri, 80, NULL, &error);
  g_assert_no_error (error);
  g_output_stream_write_all (g_io_stream_get_output_stream (G_IO_STREAM (connection)), request,
                             strlen (request), NULL, NULL, &error);
  g_assert_no_error (error);
  return connection;
}

/* Returns: (transfer full): the first line of the answer, empty where it is closed unanswered */
static char *
read_status (GSocketConnection *connection)
{
  g_autoptr (GDataInputStream) lines
      = g_data_input_stream_new (g_io_stream_get_input_stream (G_IO_STREAM (connection)));
  char *line = g_data_input_stream_read_line (lines, NULL, NULL, NULL);

  return line != NULL ? g_strchomp (line) : g_strdup ("");
}

static void
end_loop (Fixture *fixture, BgShutdownMode mode)
{
  g_autoptr (GError) error = NULL;

  bg_loop_shutdown_full (fixture->kit.loop, mode, bg_test_get_timeout (), NULL, &error);
  g_assert_no_error (error);
}

/* "Is it running? then hold" would be a race: it is lost here each time. */
static void
test_cancelled_before_the_hold (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GSocketConnection) connection = NULL;
  g_autofree char *status = NULL;

  before_hold = cancel;
  connection = ask (fixture);
  status = read_status (connection);
  g_assert_true (*status == '\0' || g_str_has_prefix (status, "HTTP/1.1 503 "));
  end_loop (fixture, BG_SHUTDOWN_CANCEL);
  g_assert_cmpint (fixture->service.n_taken, ==, 0);
}

static void
test_cancelled_before_the_post (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GSocketConnection) connection = NULL;
  g_autofree char *status = NULL;

  before_post = cancel;
  connection = ask (fixture);
  status = read_status (connection);
  g_assert_true (g_str_has_prefix (status, "HTTP/1.1 503 "));
  end_loop (fixture, BG_SHUTDOWN_CANCEL);
  g_assert_cmpint (fixture->service.n_taken, ==, 1);
}

static void
test_cancelled_before_the_answer (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GSocketConnection) connection = NULL;
  g_autofree char *status = NULL;

  answer_msec = 1000;
  connection = ask (fixture);
  g_async_queue_pop (taken);
  end_loop (fixture, BG_SHUTDOWN_CANCEL);
  status = read_status (connection);
  g_assert_true (g_str_has_prefix (status, "HTTP/1.1 503 "));
}

static void
test_stopping_takes_nothing_new (Fixture *fixture, gconstpointer data)
{
  g_autoptr (GSocketConnection) connection = NULL;
  g_autofree char *status = NULL;

  before_hold = drain;
  connection = ask (fixture);
  status = read_status (connection);
  g_assert_true (*status == '\0' || g_str_has_prefix (status, "HTTP/1.1 503 "));
  end_loop (fixture, BG_SHUTDOWN_DRAIN);
  g_assert_cmpint (fixture->service.n_taken, ==, 0);
}

static void
test_client_goes_away (Fixture *fixture, gconstpointer data)
{
  GSocketConnection *connection;

  answer_msec = 100;
  connection = ask (fixture);
  g_async_queue_pop (taken);
  g_object_unref (connection);
  end_loop (fixture, BG_SHUTDOWN_DRAIN);
}

#define add_test(path, func) g_test_add (path, Fixture, NULL, set_up, func, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);

  add_test ("/http-server/cancelled-before-the-hold", test_cancelled_before_the_hold);
  add_test ("/http-server/cancelled-before-the-post", test_cancelled_before_the_post);
  add_test ("/http-server/cancelled-before-the-answer", test_cancelled_before_the_answer);
  add_test ("/http-server/stopping-takes-nothing-new", test_stopping_takes_nothing_new);
  add_test ("/http-server/client-goes-away", test_client_goes_away);

  return g_test_run ();
}
