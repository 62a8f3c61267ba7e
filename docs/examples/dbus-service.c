/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* A D-Bus service that lives on a loop, and a client that blocks in the main
 * thread of the same process, on a bus of their own. */

#include <bgloop/bgloop.h>

#define NAME      "org.example.Adder"
#define PATH      "/org/example/Adder"
#define INTERFACE "org.example.Adder"

static const char xml[] = "<node>"
                          "  <interface name='" INTERFACE "'>"
                          "    <method name='Add'>"
                          "      <arg type='i' direction='in'/>"
                          "      <arg type='i' direction='in'/>"
                          "      <arg type='i' direction='out'/>"
                          "    </method>"
                          "  </interface>"
                          "</node>";

/* The loop's thread only, but for the first two. */
typedef struct
{
  BgLoop *loop;
  const char *address;
  GDBusConnection *connection;
  int sum;
} Service;

static GDBusConnection *
connect_to (const char *address, GError **error)
{
  return g_dbus_connection_new_for_address_sync (
      address,
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, error);
}

static void
method_call_cb (GDBusConnection *connection,
                const char *sender,
                const char *object_path,
                const char *interface_name,
                const char *method_name,
                GVariant *parameters,
                GDBusMethodInvocation *invocation,
                gpointer user_data)
{
  Service *service = user_data;
  int a, b;

  g_variant_get (parameters, "(ii)", &a, &b);
  service->sum += a + b;
  g_dbus_method_invocation_return_value (invocation, g_variant_new ("(i)", a + b));
}

/* On the loop, the last thing that happens there. */
static void
stop_service_cb (gpointer user_data)
{
  Service *service = user_data;

  if (service->connection != NULL)
    g_dbus_connection_close_sync (service->connection, NULL, NULL);
  g_clear_object (&service->connection);
}

/* On the loop: method calls arrive in the context that is the thread-default one
 * when the object is registered. */
static gboolean
start_service_cb (gpointer user_data, GError **error)
{
  static const GDBusInterfaceVTable vtable = { .method_call = method_call_cb };
  g_autoptr (GDBusNodeInfo) info = g_dbus_node_info_new_for_xml (xml, error);
  g_autoptr (GVariant) reply = NULL;
  Service *service = user_data;

  if (bg_loop_add_teardown (service->loop, stop_service_cb, service, NULL) == 0)
    {
      g_set_error_literal (error, BG_ERROR, BG_ERROR_CLOSED, "The loop is already ending");
      return FALSE;
    }

  service->connection = connect_to (service->address, error);
  if (service->connection == NULL
      || g_dbus_connection_register_object (service->connection, PATH, info->interfaces[0], &vtable,
                                            service, NULL, error)
             == 0)
    return FALSE;

  reply = g_dbus_connection_call_sync (service->connection, "org.freedesktop.DBus",
                                       "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                       "RequestName", g_variant_new ("(su)", NAME, 0), NULL,
                                       G_DBUS_CALL_FLAGS_NONE, -1, NULL, error);
  return reply != NULL;
}

static gboolean
use_service (const char *address, GError **error)
{
  g_autoptr (GDBusConnection) connection = connect_to (address, error);
  g_autoptr (GDBusProxy) proxy = NULL;

  if (connection != NULL)
    proxy = g_dbus_proxy_new_sync (connection, G_DBUS_PROXY_FLAGS_NONE, NULL, NAME, PATH, INTERFACE,
                                   NULL, error);
  if (proxy == NULL)
    return FALSE;

  for (int i = 0; i < 100; i++)
    {
      g_autoptr (GVariant) answer = NULL;
      int sum;

      answer = g_dbus_proxy_call_sync (proxy, "Add", g_variant_new ("(ii)", i, 1),
                                       G_DBUS_CALL_FLAGS_NONE, -1, NULL, error);
      if (answer == NULL)
        return FALSE;
      g_variant_get (answer, "(i)", &sum);
      g_assert (sum == i + 1);
    }
  return g_dbus_connection_close_sync (connection, NULL, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GTestDBus) bus = g_test_dbus_new (G_TEST_DBUS_NONE);
  g_autoptr (GError) error = NULL;
  g_autoptr (BgLoop) loop = bg_loop_new ("service", &error);
  Service service = { .loop = loop };
  gboolean ok;

  g_test_dbus_up (bus);
  service.address = g_test_dbus_get_bus_address (bus);

  ok = loop != NULL && bg_loop_call (loop, start_service_cb, &service, NULL, &error)
       && use_service (service.address, &error);
  ok = loop != NULL && bg_loop_shutdown (loop, ok ? &error : NULL) && ok;
  if (ok)
    g_print ("100 calls were answered; together they make %d.\n", service.sum);
  else
    g_printerr ("%s\n", error->message);

  g_test_dbus_down (bus);
  return ok ? 0 : 1;
}
