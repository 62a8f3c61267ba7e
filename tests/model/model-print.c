/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-scenario.h"

/* A scenario as text, for people. */

static void print_program (const ModelProgram *program,
                           const char *title,
                           guint indent,
                           GString *text);

static void
print_op (const ModelOp *op, guint indent, GString *text)
{
  g_string_append_printf (text, "%*s%u: %s", (int) indent, "", op->id, model_kind_name (op->kind));
  if (op->slot == MODEL_DEFAULT)
    g_string_append (text, " default");
  else
    g_string_append_printf (text, " loop%u", op->slot);
  g_string_append_printf (text, " thing=%u priority=%d timeout=%d cancellable=%d", op->thing,
                          op->priority, op->timeout, op->cancellable);
  if (op->burst > 1)
    g_string_append_printf (text, " burst=%u", op->burst);
  g_string_append_printf (text, "%s variant=%u amount=%u\n", op->cancel ? " cancel" : "",
                          op->variant, op->amount);
  print_program (op->body, "body", indent + 2, text);
  print_program (op->destroy, "destroy", indent + 2, text);
  print_program (op->reply, "reply", indent + 2, text);
}

static void
print_program (const ModelProgram *program, const char *title, guint indent, GString *text)
{
  if (program == NULL || program->len == 0)
    return;

  g_string_append_printf (text, "%*s%s\n", (int) indent, "", title);
  for (guint i = 0; i < program->len; i++)
    print_op (g_ptr_array_index (program, i), indent + 2, text);
}

void
model_scenario_print (const ModelScenario *self, GString *text)
{
  static const char *const contexts[] = { "own", "abandoned", "default" };

  g_string_append_printf (text, "seed %" G_GUINT64_FORMAT ": %u loops, %u threads\n", self->seed,
                          self->n_loops, self->n_threads);
  for (guint i = 0; i < self->n_loops; i++)
    g_string_append_printf (text, "  loop%u: linger %u%s%s\n", i, self->lingers[i],
                            self->with_teardown[i] ? ", with a teardown function" : "",
                            self->cancel_at_end[i] ? ", cancelled at the end" : "");
  for (guint i = 0; i < self->n_threads; i++)
    {
      g_autofree char *title
          = g_strdup_printf ("thread%u, context %s", i, contexts[self->threads[i].context]);

      print_program (self->threads[i].program, title, 2, text);
    }
}
