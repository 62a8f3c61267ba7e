/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>

#include "model-children.h"

/* Makes a scenario smaller as long as it fails: leaves out kinds of operations, then halves,
 * quarters and at last single operations, each with all that is within it. A thread that nothing
 * is left of is not started. */

#define TIMES 40 /* that a smaller one may pass before it is held to be a good one */

static GHashTable *
copy_set (GHashTable *set)
{
  GHashTable *copy = g_hash_table_new (NULL, NULL);
  GHashTableIter iter;
  gpointer id;

  g_hash_table_iter_init (&iter, set);
  while (g_hash_table_iter_next (&iter, &id, NULL))
    g_hash_table_add (copy, id);
  return copy;
}

static GArray *
list_left (guint64 seed, const ModelFilter *filter)
{
  g_autoptr (ModelScenario) scenario = model_scenario_new (seed, filter);
  GArray *ids = g_array_new (FALSE, FALSE, sizeof (guint));

  model_scenario_list (scenario, ids);
  return ids;
}

/* TRUE if it fails without these, too, which then stay out. */
static gboolean
leave_out (const ModelChildren *children,
           guint64 seed,
           ModelFilter *filter,
           GArray *ids,
           guint from,
           guint n)
{
  ModelFilter smaller = *filter;

  smaller.skipped = copy_set (filter->skipped);
  for (guint i = from; i < MIN (from + n, ids->len); i++)
    g_hash_table_add (smaller.skipped, GUINT_TO_POINTER (g_array_index (ids, guint, i)));

  if (model_children_try (children, &smaller, seed, TIMES, TRUE))
    {
      g_hash_table_unref (smaller.skipped);
      return FALSE;
    }
  g_hash_table_unref (filter->skipped);
  filter->skipped = smaller.skipped;
  return TRUE;
}

/* Leaves out each kind of operation without which the scenario still fails. A kind that it does
 * not have costs no try. */
static void
leave_out_kinds (const ModelChildren *children, guint64 seed, ModelFilter *filter)
{
  for (guint kind = 0; kind < MODEL_N_KINDS; kind++)
    {
      g_autoptr (GArray) ids = list_left (seed, filter), fewer = NULL;

      if (filter->without[kind])
        continue;

      filter->without[kind] = TRUE;
      fewer = list_left (seed, filter);
      if (fewer->len == ids->len || model_children_try (children, filter, seed, TIMES, TRUE))
        filter->without[kind] = FALSE;
    }
}

static void
print_left (guint64 seed, const ModelFilter *filter)
{
  g_autoptr (ModelScenario) scenario = model_scenario_new (seed, filter);
  g_autoptr (GString) text = g_string_new (NULL);
  GHashTableIter iter;
  gpointer id;
  char separator = ' ';

  model_scenario_print (scenario, text);
  g_string_append_printf (text, "--seed %" G_GUINT64_FORMAT, seed);
  for (guint kind = 0; kind < MODEL_N_KINDS; kind++)
    if (filter->without[kind])
      g_string_append_printf (text, " --without %s", model_kind_name (kind));
  if (g_hash_table_size (filter->skipped) > 0)
    g_string_append (text, " --skip");
  g_hash_table_iter_init (&iter, filter->skipped);
  while (g_hash_table_iter_next (&iter, &id, NULL))
    {
      g_string_append_printf (text, "%c%u", separator, GPOINTER_TO_UINT (id));
      separator = ',';
    }
  printf ("%s\n", text->str);
}

int
model_shrink (const ModelChildren *children, guint64 seed)
{
  ModelFilter filter = *children->filter;
  guint n;

  filter.skipped = children->filter->skipped != NULL ? copy_set (children->filter->skipped)
                                                     : g_hash_table_new (NULL, NULL);
  if (model_children_try (children, &filter, seed, 4 * TIMES, TRUE))
    {
      printf ("It passes %u times\n", 4 * TIMES);
      return 0;
    }

  leave_out_kinds (children, seed, &filter);
  {
    g_autoptr (GArray) ids = list_left (seed, &filter);

    n = MAX (1, ids->len / 2);
  }
  while (n > 0)
    {
      gboolean smaller = FALSE;

      for (guint from = 0;;)
        {
          g_autoptr (GArray) ids = list_left (seed, &filter);

          if (from >= ids->len)
            break;
          if (leave_out (children, seed, &filter, ids, from, n))
            smaller = TRUE;
          else
            from += n;
        }
      n = smaller && n == 1 ? 1 : n / 2;
    }

  print_left (seed, &filter);
  model_children_try (children, &filter, seed, TIMES, FALSE);
  return 1;
}
