/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <string.h>

#include <sysprof.h>

#include "util.h"

/* What Sysprof records of a program that uses a loop: this one, run once more. */

static void
run_recorded (void)
{
  BgLoop *loop = util_loop_new ("recorded");

  g_assert_true (bg_loop_call (loop, util_true_cb, NULL, NULL, NULL));
  util_loop_end (loop);
}

static SysprofCaptureReader *
record (const char *program)
{
  g_autoptr (GMainLoop) main_loop = g_main_loop_new (NULL, FALSE);
  SysprofProfiler *profiler = sysprof_local_profiler_new ();
  SysprofSource *source = SYSPROF_SOURCE (sysprof_control_source_new ());
  SysprofCaptureWriter *writer
      = sysprof_capture_writer_new_from_fd (g_file_open_tmp ("bgloop-XXXXXX", NULL, NULL), 0);
  const char *argv[] = { program, "--recorded", NULL };
  SysprofCaptureReader *reader;

  sysprof_profiler_set_spawn (profiler, TRUE);
  sysprof_profiler_set_spawn_inherit_environ (profiler, TRUE);
  sysprof_profiler_set_spawn_argv (profiler, argv);
  sysprof_profiler_set_spawn_cwd (profiler, g_get_tmp_dir ());
  sysprof_profiler_add_source (profiler, source);
  sysprof_profiler_set_writer (profiler, writer);
  g_signal_connect_swapped (profiler, "stopped", G_CALLBACK (g_main_loop_quit), main_loop);
  g_signal_connect_swapped (profiler, "failed", G_CALLBACK (g_main_loop_quit), main_loop);
  sysprof_profiler_start (profiler);
  g_main_loop_run (main_loop);

  reader = sysprof_capture_writer_create_reader (writer);
  sysprof_capture_writer_unref (writer);
  g_object_unref (source);
  g_object_unref (profiler);
  return reader;
}

/* The marks of the library, with how often each is there. */
static GHashTable *
count_marks (SysprofCaptureReader *reader)
{
  GHashTable *marks = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  SysprofCaptureFrameType type;

  while (sysprof_capture_reader_peek_type (reader, &type))
    {
      const SysprofCaptureMark *mark;

      if (type != SYSPROF_CAPTURE_FRAME_MARK)
        {
          sysprof_capture_reader_skip (reader);
          continue;
        }

      mark = sysprof_capture_reader_read_mark (reader);
      g_assert_nonnull (mark);
      if (g_str_equal (mark->group, "bgloop"))
        {
          g_assert_cmpint (mark->duration, >=, 0);
          g_hash_table_insert (marks, g_strdup (mark->name),
                               GUINT_TO_POINTER (
                                   GPOINTER_TO_UINT (g_hash_table_lookup (marks, mark->name)) + 1));
        }
    }

  return marks;
}

static void
test_marks (gconstpointer program)
{
  static const char *const names[] = { "batch", "call", "drain", "end", "shutdown" };
  SysprofCaptureReader *reader = record (program);
  GHashTable *marks = count_marks (reader);

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      if (g_hash_table_lookup (marks, names[i]) == NULL)
        g_error ("There is no mark \"%s\"", names[i]);
    }
  g_hash_table_unref (marks);
  sysprof_capture_reader_unref (reader);
}

int
main (int argc, char *argv[])
{
  if (argc == 2 && strcmp (argv[1], "--recorded") == 0)
    {
      run_recorded ();
      return 0;
    }

  util_init (&argc, &argv);
  g_test_add_data_func ("/trace/marks", argv[0], test_marks);

  return g_test_run ();
}
