/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "line-client.h"

#include <bgloop/bg-test.h>

static const char *const echo[] = { "cat", NULL };

static void
test_blocking (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (LineClient) client = line_client_new (echo, &error);
  g_autofree char *answer = line_client_ask (client, "Are you there?", &error);

  g_assert_no_error (error);
  g_assert_cmpstr (answer, ==, "Are you there?");
  g_assert_true (line_client_close (client, &error));
  g_assert_null (line_client_ask (client, "And now?", &error));
  g_assert_error (error, BG_ERROR, BG_ERROR_CLOSED);
}

static void
answered_cb (GObject *client, GAsyncResult *result, gpointer user_data)
{
  *(char **) user_data = line_client_ask_finish (LINE_CLIENT (client), result, NULL);
}

static void
test_async (BgTestFixture *fixture, gconstpointer data)
{
  g_autoptr (LineClient) client = line_client_new (echo, NULL);
  g_autofree char *first = NULL;
  g_autofree char *second = NULL;

  line_client_ask_async (client, "one", NULL, answered_cb, &first);
  line_client_ask_async (client, "two", NULL, answered_cb, &second);
  while (first == NULL || second == NULL)
    g_main_context_iteration (NULL, TRUE);

  g_assert_cmpstr (first, ==, "one");
  g_assert_cmpstr (second, ==, "two");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  bg_test_add ("/line-client/blocking", test_blocking);
  bg_test_add ("/line-client/async", test_async);
  return g_test_run ();
}
