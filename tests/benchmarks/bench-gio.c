/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench-gio.h"

#include <string.h>

#include <glib-unix.h>

/* An answer with nothing in it. */

#define BENCH_TYPE_RESULT (bench_result_get_type ())
G_DECLARE_FINAL_TYPE (BenchResult, bench_result, BENCH, RESULT, GObject)

struct _BenchResult
{
  GObject parent;
};

static void
result_init_interface (GAsyncResultIface *iface)
{
}

G_DEFINE_FINAL_TYPE_WITH_CODE (BenchResult,
                               bench_result,
                               G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (G_TYPE_ASYNC_RESULT, result_init_interface))

static void
bench_result_init (BenchResult *self)
{
}

static void
bench_result_class_init (BenchResultClass *klass)
{
}

void
bench_operation_async (BenchFunc func,
                       void *data,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer user_data)
{
  func (data);

  if (bench_variant () != NULL && strstr (bench_variant (), "direct") != NULL)
    {
      g_autoptr (GAsyncResult) result = g_object_new (BENCH_TYPE_RESULT, NULL);

      callback (NULL, result, user_data);
    }
  else
    {
      g_autoptr (GTask) task = g_task_new (NULL, cancellable, callback, user_data);

      g_task_return_boolean (task, TRUE);
    }
}

gboolean
bench_operation_finish (GAsyncResult *result, GError **error)
{
  return !G_IS_TASK (result) || g_task_propagate_boolean (G_TASK (result), error);
}

typedef struct
{
  BenchFunc func;
  void *data;
} Watch;

static gboolean
readable_cb (int fd, GIOCondition condition, gpointer user_data)
{
  Watch *self = user_data;

  self->func (self->data);
  return G_SOURCE_CONTINUE;
}

GSource *
bench_fd_source_new (int fd, BenchFunc func, void *data)
{
  GSource *source = g_unix_fd_source_new (fd, G_IO_IN);
  Watch *self = g_new (Watch, 1);

  *self = (Watch){ func, data };
  g_source_set_callback (source, G_SOURCE_FUNC (readable_cb), self, g_free);
  return source;
}
