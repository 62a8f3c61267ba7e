/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "util.h"

/* What bindings see of errors, states and modes */

static void
assert_value (GType type, int value, const char *name, const char *nick)
{
  g_autoptr (GEnumClass) klass = g_type_class_ref (type);
  GEnumValue *found = g_enum_get_value (klass, value);

  g_assert_nonnull (found);
  g_assert_cmpstr (found->value_name, ==, name);
  g_assert_cmpstr (found->value_nick, ==, nick);
}

static guint
count_values (GType type)
{
  g_autoptr (GEnumClass) klass = g_type_class_ref (type);

  return klass->n_values;
}

static void
test_error (void)
{
  g_assert_cmpstr (g_quark_to_string (BG_ERROR), ==, "bg-error-quark");
  g_assert_cmpstr (g_type_name (BG_TYPE_ERROR), ==, "BgError");
  g_assert_cmpuint (count_values (BG_TYPE_ERROR), ==, 4);
  assert_value (BG_TYPE_ERROR, BG_ERROR_CLOSED, "BG_ERROR_CLOSED", "closed");
  assert_value (BG_TYPE_ERROR, BG_ERROR_WOULD_DEADLOCK, "BG_ERROR_WOULD_DEADLOCK",
                "would-deadlock");
  assert_value (BG_TYPE_ERROR, BG_ERROR_FORKED, "BG_ERROR_FORKED", "forked");
  assert_value (BG_TYPE_ERROR, BG_ERROR_UNANSWERED, "BG_ERROR_UNANSWERED", "unanswered");
}

static void
test_state (void)
{
  g_assert_cmpuint (count_values (BG_TYPE_LOOP_STATE), ==, 3);
  assert_value (BG_TYPE_LOOP_STATE, BG_LOOP_RUNNING, "BG_LOOP_RUNNING", "running");
  assert_value (BG_TYPE_LOOP_STATE, BG_LOOP_STOPPING, "BG_LOOP_STOPPING", "stopping");
  assert_value (BG_TYPE_LOOP_STATE, BG_LOOP_STOPPED, "BG_LOOP_STOPPED", "stopped");
}

static void
test_mode (void)
{
  g_assert_cmpuint (count_values (BG_TYPE_SHUTDOWN_MODE), ==, 2);
  assert_value (BG_TYPE_SHUTDOWN_MODE, BG_SHUTDOWN_DRAIN, "BG_SHUTDOWN_DRAIN", "drain");
  assert_value (BG_TYPE_SHUTDOWN_MODE, BG_SHUTDOWN_CANCEL, "BG_SHUTDOWN_CANCEL", "cancel");
}

static void
test_boxed (void)
{
  g_assert_true (G_TYPE_IS_BOXED (BG_TYPE_LOOP_STATS));
  g_assert_true (G_TYPE_IS_BOXED (BG_TYPE_OPERATION));
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  g_test_add_func ("/types/error", test_error);
  g_test_add_func ("/types/state", test_state);
  g_test_add_func ("/types/mode", test_mode);
  g_test_add_func ("/types/boxed", test_boxed);

  return g_test_run ();
}
