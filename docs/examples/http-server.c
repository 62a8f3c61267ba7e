/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* An HTTP server lives on a loop, clients block in threads of their own. It ends
 * while requests are in flight, and answers as a whole what it has taken. */

#include <bgloop/bgloop.h>
#include <libsoup/soup.h>

#define N_CLIENTS   4
#define N_REQUESTS  1000
#define ANSWER_MSEC 1
#define ANSWER_SIZE 20000

/* What clients say. */
#define ANSWERED GINT_TO_POINTER (1)
#define ENDED    GINT_TO_POINTER (2)

typedef struct
{
  BgLoop *loop;
  char *uri;
  GAsyncQueue *answers; /* a client puts something in for each, and when it ends */
  int n_taken;          /* by the loop's thread */
} Service;

/* What the loop keeps for a request, as long as its message lives. */
typedef struct
{
  BgLoop *loop;
  guint64 hold;
  guint64 work;
} Request;

static void
request_free (gpointer user_data)
{
  Request *request = user_data;

  bg_loop_release (request->loop, request->hold);
  g_free (request);
}

static void
disconnected_cb (SoupServerMessage *message, Request *request)
{
  bg_loop_withdraw (request->loop, request->work);
}

static void
answer_cb (gpointer user_data)
{
  SoupServerMessage *message = user_data;

  soup_server_message_set_status (message, SOUP_STATUS_OK, NULL);
  soup_server_message_set_response (message, "text/plain", SOUP_MEMORY_TAKE,
                                    g_strnfill (ANSWER_SIZE, 'x'), ANSWER_SIZE);
}

/* After the answer, or instead of it: a loop that is cancelled drops what has not
 * started, but the client waits for something, and so does the hold. */
static void
answer_end_cb (gpointer user_data)
{
  g_autoptr (SoupServerMessage) message = user_data;

  if (soup_server_message_get_status (message) == SOUP_STATUS_NONE)
    soup_server_message_set_status (message, SOUP_STATUS_SERVICE_UNAVAILABLE, NULL);
  soup_server_message_unpause (message);
}

/* An answer takes a moment, and holds the loop until it has been sent. */
static void
request_cb (SoupServer *server,
            SoupServerMessage *message,
            const char *path,
            GHashTable *query,
            gpointer user_data)
{
  Service *service = user_data;
  BgLoop *loop = service->loop;
  guint64 hold = bg_loop_hold (loop, "a request");
  Request *request;

  /* That the loop goes on is sure once it is held, not because it was running a moment
   * ago. A loop that stops gives holds to what runs there; this server takes nothing
   * new then, or it would not end before its clients do. */
  if (hold == 0 || bg_loop_get_state (loop) != BG_LOOP_RUNNING)
    {
      if (hold != 0)
        bg_loop_release (loop, hold);
      soup_server_message_set_status (message, SOUP_STATUS_SERVICE_UNAVAILABLE, NULL);
      return;
    }

  service->n_taken++;
  request = g_new0 (Request, 1);
  request->loop = loop;
  request->hold = hold;
  g_object_set_data_full (G_OBJECT (message), "request", request, request_free);
  g_signal_connect (message, "disconnected", G_CALLBACK (disconnected_cb), request);
  soup_server_message_pause (message);
  /* Refused, it is dropped at once. */
  request->work
      = bg_loop_post_after (loop, ANSWER_MSEC, answer_cb, g_object_ref (message), answer_end_cb);
}

static gboolean
start_cb (gpointer user_data, GError **error)
{
  Service *service = user_data;
  SoupServer *server = g_object_new (SOUP_TYPE_SERVER, NULL);
  g_autoslist (GUri) uris = NULL;

  if (bg_loop_add_teardown (service->loop, g_object_unref, server, NULL) == 0)
    {
      g_object_unref (server);
      g_set_error_literal (error, BG_ERROR, BG_ERROR_CLOSED, "The loop is already ending");
      return FALSE;
    }

  soup_server_add_handler (server, NULL, request_cb, service, NULL);
  if (!soup_server_listen_local (server, 0, SOUP_SERVER_LISTEN_IPV4_ONLY, error))
    return FALSE;

  uris = soup_server_get_uris (server);
  service->uri = g_uri_to_string (uris->data);
  return TRUE;
}

/* Asks until the server does not answer any more. */
static gpointer
client_cb (gpointer user_data)
{
  Service *service = user_data;
  g_autoptr (SoupSession) session = soup_session_new ();

  for (;;)
    {
      g_autoptr (SoupMessage) message = soup_message_new (SOUP_METHOD_GET, service->uri);
      g_autoptr (GBytes) answer = soup_session_send_and_read (session, message, NULL, NULL);

      if (answer == NULL || soup_message_get_status (message) != SOUP_STATUS_OK)
        {
          g_async_queue_push (service->answers, ENDED);
          return NULL;
        }
      g_assert (g_bytes_get_size (answer) == ANSWER_SIZE);
      g_async_queue_push (service->answers, ANSWERED);
    }
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = bg_loop_new ("http-server", &error);
  g_autoptr (GAsyncQueue) answers = g_async_queue_new ();
  Service service = { .loop = loop, .answers = answers };
  GThread *clients[N_CLIENTS];
  int n_answered = 0, n_ended = 0;

  if (loop == NULL || !bg_loop_call (loop, start_cb, &service, NULL, &error))
    g_error ("%s", error->message);

  for (guint i = 0; i < N_CLIENTS; i++)
    clients[i] = g_thread_new ("client", client_cb, &service);
  while (n_answered < N_REQUESTS && n_ended < N_CLIENTS)
    {
      if (g_async_queue_pop (answers) == ANSWERED)
        n_answered++;
      else
        n_ended++;
    }

  /* They go on asking. */
  if (!bg_loop_shutdown (loop, &error))
    g_error ("%s", error->message);

  for (guint i = 0; i < N_CLIENTS; i++)
    g_thread_join (clients[i]);
  while (g_async_queue_length (answers) > 0)
    n_answered += g_async_queue_pop (answers) == ANSWERED;
  g_free (service.uri);
  g_print ("%d requests were taken, %d were answered.\n", service.n_taken, n_answered);
  return n_answered == service.n_taken ? 0 : 1;
}
