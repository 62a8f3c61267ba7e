/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model-children.h"

/* A random test of all promises: see CONTRIBUTING.md. */

#define JOBS_PER_PROCESSOR 4 /* most of them wait most of the time */

static gint64 option_seed = -1, option_first = 1;
static int option_seeds, option_jobs, option_patience, option_tries = 1;
static int option_failures = 20;
static gboolean option_tap, option_verbose, option_print, option_shrink, option_list;
static char **option_without;
static char *option_skip;

static const GOptionEntry entries[] = {
  { "seeds", 'n', 0, G_OPTION_ARG_INT, &option_seeds, "How many seeds to run (1,000)", "N" },
  { "first", 'f', 0, G_OPTION_ARG_INT64, &option_first, "The first of them (1)", "SEED" },
  { "jobs", 'j', 0, G_OPTION_ARG_INT, &option_jobs, "How many processes at a time", "N" },
  { "failures", 0, 0, G_OPTION_ARG_INT, &option_failures, "Begin no more after so many (20)", "N" },
  { "patience", 0, 0, G_OPTION_ARG_INT, &option_patience, "What takes longer hangs (30)",
    "SECONDS" },
  { "tap", 0, 0, G_OPTION_ARG_NONE, &option_tap, "Report as TAP", NULL },
  { "seed", 's', 0, G_OPTION_ARG_INT64, &option_seed, "Run this one only", "SEED" },
  { "tries", 't', 0, G_OPTION_ARG_INT, &option_tries,
    "How often, each in a process of its own but a single one (1)", "N" },
  { "print", 'p', 0, G_OPTION_ARG_NONE, &option_print, "Print what it is, and do not run it",
    NULL },
  { "verbose", 0, 0, G_OPTION_ARG_NONE, &option_verbose, "Print each operation as it is done",
    NULL },
  { "shrink", 0, 0, G_OPTION_ARG_NONE, &option_shrink, "Leave out what it does not need to fail",
    NULL },
  { "skip", 0, 0, G_OPTION_ARG_STRING, &option_skip, "Leave these operations out", "ID,ID…" },
  { "without", 0, 0, G_OPTION_ARG_STRING_ARRAY, &option_without, "Leave a kind of operation out",
    "KIND" },
  { "list", 0, 0, G_OPTION_ARG_NONE, &option_list, "List the kinds of operations", NULL },
  { NULL },
};

static gboolean
fill_filter (ModelFilter *filter)
{
  for (guint i = 0; option_without != NULL && option_without[i] != NULL; i++)
    {
      int kind = model_kind_from_name (option_without[i]);

      if (kind < 0)
        {
          fprintf (stderr, "There is no kind %s\n", option_without[i]);
          return FALSE;
        }
      filter->without[kind] = TRUE;
    }

  if (option_skip != NULL)
    {
      g_auto (GStrv) ids = g_strsplit (option_skip, ",", -1);

      filter->skipped = g_hash_table_new (NULL, NULL);
      for (guint i = 0; ids[i] != NULL; i++)
        g_hash_table_add (filter->skipped, GUINT_TO_POINTER (strtoul (ids[i], NULL, 10)));
    }

#ifdef __SANITIZE_THREAD__
  /* It does not know the threads of a forked child. */
  filter->without[MODEL_FORK] = TRUE;
#endif
#ifdef __SANITIZE_ADDRESS__
  /* What it marks on the stack of a thread that is ended stays, and it says itself that its reports
   * may be false from then on. */
  filter->without[MODEL_EXIT] = TRUE;
#endif
  return TRUE;
}

static void
print_scenario (guint64 seed, const ModelFilter *filter)
{
  g_autoptr (ModelScenario) scenario = model_scenario_new (seed, filter);
  g_autoptr (GString) text = g_string_new (NULL);

  model_scenario_print (scenario, text);
  fputs (text->str, stdout);
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new ("— tries all promises at random");
  g_autoptr (GError) error = NULL;
  ModelFilter filter = { .skipped = NULL };
  ModelChildren children;
  const char *seeds = g_getenv ("BGLOOP_MODEL_SEEDS");
  gboolean valgrind = g_getenv ("BGLOOP_TEST_VALGRIND") != NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error))
    {
      fprintf (stderr, "%s\n", error->message);
      return 2;
    }
  if (!fill_filter (&filter))
    return 2;
  filter.without[MODEL_EXIT] |= valgrind; /* what GLib has for the thread leaks then */
  if (option_list)
    {
      for (guint kind = 0; kind < MODEL_N_KINDS; kind++)
        printf ("%s\n", model_kind_name (kind));
      return 0;
    }

  if (seeds == NULL)
    seeds = g_getenv ("BGLOOP_TEST_SETUP_SEEDS");
  if (option_seeds == 0)
    option_seeds = seeds != NULL ? (int) strtol (seeds, NULL, 10) : 1000;
  children = (ModelChildren){
    .filter = &filter,
    .first = (guint64) option_first,
    .n_seeds = (guint) option_seeds,
    .n_jobs = option_jobs > 0 ? (guint) option_jobs : g_get_num_processors () * JOBS_PER_PROCESSOR,
    .limit_seconds = option_patience > 0 ? (guint) option_patience : MODEL_LIMIT_SECONDS,
    .tap = option_tap,
    .verbose = option_verbose,
    .max_failures = (guint) MAX (option_failures, 1),
  };

  if (option_seed < 0)
    return valgrind ? model_children_run_here (&children) : model_children_run (&children);
  if (option_print)
    {
      print_scenario ((guint64) option_seed, &filter);
      return 0;
    }
  if (option_shrink)
    return model_shrink (&children, (guint64) option_seed);
  return model_children_replay (&children, (guint64) option_seed, (guint) option_tries);
}
