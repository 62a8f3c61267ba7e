/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "line-client.h"

#include <bgloop/bgloop.h>

struct _LineClient
{
  GObject parent_instance;
  BgLoop *loop;
  GSubprocess *process; /* its pipes belong to the loop's thread */
  GDataInputStream *answers;
};

G_DEFINE_FINAL_TYPE (LineClient, line_client, G_TYPE_OBJECT)

static void
line_client_finalize (GObject *object)
{
  LineClient *self = LINE_CLIENT (object);

  g_clear_object (&self->loop);
  g_clear_object (&self->answers);
  g_clear_object (&self->process);
  G_OBJECT_CLASS (line_client_parent_class)->finalize (object);
}

static void
line_client_class_init (LineClientClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = line_client_finalize;
}

static void
line_client_init (LineClient *self)
{
}

LineClient *
line_client_new (const char *const *argv, GError **error)
{
  g_autoptr (LineClient) self = g_object_new (LINE_TYPE_CLIENT, NULL);
  GSubprocessFlags flags = G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE;

  self->process = g_subprocess_newv (argv, flags, error);
  if (self->process == NULL)
    return NULL;

  self->answers = g_data_input_stream_new (g_subprocess_get_stdout_pipe (self->process));
  self->loop = bg_loop_new ("line-client", error);
  return self->loop != NULL ? g_steal_pointer (&self) : NULL;
}

static void
ask_cb (GTask *task, gpointer source, gpointer question, GCancellable *cancellable)
{
  LineClient *self = source;
  GOutputStream *questions = g_subprocess_get_stdin_pipe (self->process);
  GError *error = NULL;
  char *answer = NULL;

  if (g_output_stream_printf (questions, NULL, cancellable, &error, "%s\n", (char *) question))
    answer = g_data_input_stream_read_line_utf8 (self->answers, NULL, cancellable, &error);

  if (error != NULL)
    g_task_return_error (task, error);
  else
    g_task_return_pointer (task, answer, g_free);
}

void
line_client_ask_async (LineClient *self,
                       const char *question,
                       GCancellable *cancellable,
                       GAsyncReadyCallback callback,
                       gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);

  g_task_set_task_data (task, g_strdup (question), g_free);
  bg_loop_run_task (self->loop, G_PRIORITY_DEFAULT, task, ask_cb);
}

char *
line_client_ask_finish (LineClient *self, GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}

typedef struct
{
  LineClient *self;
  const char *question;
} Ask;

static gboolean
begin_ask_cb (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  Ask *data = user_data;

  line_client_ask_async (data->self, data->question, cancellable, callback, callback_data);
  return TRUE;
}

char *
line_client_ask (LineClient *self, const char *question, GError **error)
{
  Ask data = { self, question };
  g_autoptr (GAsyncResult) result
      = bg_loop_perform (self->loop, G_PRIORITY_DEFAULT, 5000, begin_ask_cb, &data, NULL, error);

  return result != NULL ? line_client_ask_finish (self, result, error) : NULL;
}

gboolean
line_client_close (LineClient *self, GError **error)
{
  return bg_loop_shutdown (self->loop, error);
}
