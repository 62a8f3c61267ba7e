/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

/* The command. Without --worker it has other processes of itself run the seeds, some at a
 * time, goes on after one that fails, and can make a seed that fails smaller. */

#define CHUNK 50

static gint64 first = 1;
static int n_seeds = 1000;
static int n_jobs;
static int n_tries = 20;
static int patience = 20;
static gint64 seed = -1;
static gboolean shrinks, worker, tap, prints, lists;
static char **without;
static char *skipped;
static const char *program;

static const GOptionEntry entries[] = {
  { "seeds", 'n', 0, G_OPTION_ARG_INT, &n_seeds, "How many seeds (1000)", "N" },
  { "first", 'f', 0, G_OPTION_ARG_INT64, &first, "The first of them (1)", "SEED" },
  { "jobs", 'j', 0, G_OPTION_ARG_INT, &n_jobs, "How many processes at a time", "N" },
  { "seed", 's', 0, G_OPTION_ARG_INT64, &seed, "Run this one, --tries times", "SEED" },
  { "tries", 't', 0, G_OPTION_ARG_INT, &n_tries, "How often to try one seed (20)", "N" },
  { "patience", 0, 0, G_OPTION_ARG_INT, &patience, "What takes longer hangs (20)", "SECONDS" },
  { "shrink", 0, 0, G_OPTION_ARG_NONE, &shrinks, "Leave out what --seed does not need to fail", NULL },
  { "skip", 0, 0, G_OPTION_ARG_STRING, &skipped, "Leave these operations out", "ID,ID…" },
  { "without", 0, 0, G_OPTION_ARG_STRING_ARRAY, &without, "Leave a kind of operation out", "KIND" },
  { "print", 'p', 0, G_OPTION_ARG_NONE, &prints, "Print the scenario of --seed", NULL },
  { "list", 0, 0, G_OPTION_ARG_NONE, &lists, "List the kinds and the functions that they call", NULL },
  { "tap", 0, 0, G_OPTION_ARG_NONE, &tap, "Report as TAP", NULL },
  { "worker", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &worker, NULL, NULL },
  { NULL },
};

static gboolean
can_fork (void)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  return FALSE;
#else
  return TRUE;
#endif
}

static GHashTable *
parse_skipped (void)
{
  g_auto (GStrv) words = skipped != NULL ? g_strsplit (skipped, ",", -1) : NULL;
  GHashTable *ids = g_hash_table_new (NULL, NULL);

  for (guint i = 0; words != NULL && words[i] != NULL; i++)
    g_hash_table_add (ids, GUINT_TO_POINTER ((guint) g_ascii_strtoull (words[i], NULL, 10)));
  return ids;
}

static ModelScenario *
draw (guint64 which)
{
  g_autoptr (GHashTable) ids = parse_skipped ();
  ModelOptions options = { (const char *const *) without, ids, can_fork () };

  return model_scenario_draw (which, &options);
}

/* Worker */

static void
run_seeds (void)
{
  model_hang_install ((guint) patience);
  for (int i = 0; i < n_seeds; i++)
    {
      guint64 which = seed >= 0 ? (guint64) seed : (guint64) (first + i);
      ModelScenario *scenario = draw (which);

      printf ("%" G_GUINT64_FORMAT "\n", which);
      fflush (stdout);
      model_run (scenario);
      model_scenario_free (scenario);
    }
}

/* Parent */

typedef struct
{
  gint64 next;
  gint64 end;
  GMutex lock;
  GArray *failures; /* of guint64 */
  gint64 n_passed;
} Campaign;

static GSubprocess *
start_worker (gint64 from, int n, const char *skips, GSubprocessFlags flags)
{
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  GSubprocess *process;

  g_ptr_array_add (arguments, g_strdup (program));
  g_ptr_array_add (arguments, g_strdup ("--worker"));
  g_ptr_array_add (arguments, g_strdup_printf (seed >= 0 ? "--seed=%" G_GINT64_FORMAT
                                                         : "--first=%" G_GINT64_FORMAT, from));
  g_ptr_array_add (arguments, g_strdup_printf ("--seeds=%d", n));
  g_ptr_array_add (arguments, g_strdup_printf ("--patience=%d", patience));
  if (skips != NULL)
    g_ptr_array_add (arguments, g_strdup_printf ("--skip=%s", skips));
  for (guint i = 0; without != NULL && without[i] != NULL; i++)
    g_ptr_array_add (arguments, g_strdup_printf ("--without=%s", without[i]));
  g_ptr_array_add (arguments, NULL);
  process = g_subprocess_newv ((const char *const *) arguments->pdata, flags, &error);
  if (process == NULL)
    g_error ("No worker: %s", error->message);
  return process;
}

static void
note_failure (Campaign *self, guint64 which, const char *words)
{
  g_mutex_lock (&self->lock);
  g_array_append_val (self->failures, which);
  fprintf (stderr, "seed %" G_GUINT64_FORMAT " fails:\n%s\n", which, words);
  g_mutex_unlock (&self->lock);
}

/* Runs seeds from @from to before @end; returns the first that was not run. */
static gint64
run_chunk (Campaign *self, gint64 from, gint64 end)
{
  g_autoptr (GSubprocess) process
      = start_worker (from, (int) (end - from), NULL,
                      G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
  g_autofree char *out = NULL, *words = NULL;
  g_auto (GStrv) lines = NULL;
  gint64 last;

  if (!g_subprocess_communicate_utf8 (process, NULL, NULL, &out, &words, NULL))
    g_error ("A worker says what is no text");
  if (g_subprocess_get_successful (process))
    {
      g_mutex_lock (&self->lock);
      self->n_passed += end - from;
      g_mutex_unlock (&self->lock);
      return end;
    }

  lines = g_strsplit (g_strchomp (out), "\n", -1);
  last = g_strv_length (lines) > 0 ? from + (gint64) g_strv_length (lines) - 1 : from;
  note_failure (self, (guint64) last, words);
  g_mutex_lock (&self->lock);
  self->n_passed += last - from;
  g_mutex_unlock (&self->lock);
  return last + 1;
}

static gpointer
job_thread (gpointer data)
{
  Campaign *self = data;

  for (;;)
    {
      gint64 from, end;

      g_mutex_lock (&self->lock);
      from = self->next;
      end = self->next = MIN (from + CHUNK, self->end);
      g_mutex_unlock (&self->lock);
      if (from >= self->end)
        return NULL;

      while (from < end)
        from = run_chunk (self, from, end);
    }
}

static int
run_campaign (void)
{
  Campaign self = { first, first + n_seeds };
  g_autofree GThread **threads = g_new (GThread *, (guint) n_jobs);
  int result;

  g_mutex_init (&self.lock);
  self.failures = g_array_new (FALSE, FALSE, sizeof (guint64));
  for (int i = 0; i < n_jobs; i++)
    threads[i] = g_thread_new ("job", job_thread, &self);
  for (int i = 0; i < n_jobs; i++)
    g_thread_join (threads[i]);

  if (tap)
    printf ("1..1\n%s 1 /model/seeds-%" G_GINT64_FORMAT "-to-%" G_GINT64_FORMAT "\n",
            self.failures->len == 0 ? "ok" : "not ok", first, first + n_seeds - 1);
  for (guint i = 0; i < self.failures->len; i++)
    printf ("# seed %" G_GUINT64_FORMAT " fails\n", g_array_index (self.failures, guint64, i));
  printf ("%s%" G_GINT64_FORMAT " passed, %u failed\n", tap ? "# " : "", self.n_passed,
          self.failures->len);
  result = self.failures->len == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  g_array_unref (self.failures);
  g_mutex_clear (&self.lock);
  return result;
}

/* One seed */

static gboolean
fails (const char *skips, gboolean is_quiet)
{
  g_autoptr (GSubprocess) process
      = start_worker (seed, n_tries, skips,
                      G_SUBPROCESS_FLAGS_STDOUT_SILENCE
                          | (is_quiet ? G_SUBPROCESS_FLAGS_STDERR_SILENCE : 0));

  g_subprocess_wait (process, NULL, NULL);
  return !g_subprocess_get_successful (process);
}

static char *
join_ids (GArray *ids)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < ids->len; i++)
    g_string_append_printf (text, "%s%u", i > 0 ? "," : "", g_array_index (ids, guint, i));
  return g_string_free (text, FALSE);
}

static gboolean
is_out (GArray *ids, guint id)
{
  for (guint i = 0; i < ids->len; i++)
    {
      if (g_array_index (ids, guint, i) == id)
        return TRUE;
    }

  return FALSE;
}

/* Leaves out more and more, in ever smaller parts, as long as what is left fails. */
static int
shrink (void)
{
  ModelScenario *scenario = draw ((guint64) seed);
  g_autoptr (GArray) out = g_array_new (FALSE, FALSE, sizeof (guint));
  guint n = scenario->n_ops;

  model_scenario_free (scenario);
  for (guint part = MAX (1, n / 2); part > 0; part /= 2)
    {
      for (guint from = 1; from <= n; from += part)
        {
          guint before = out->len;
          g_autofree char *text = NULL;

          for (guint id = from; id < from + part && id <= n; id++)
            {
              if (!is_out (out, id))
                g_array_append_val (out, id);
            }
          if (out->len == before)
            continue;
          text = join_ids (out);
          if (!fails (text, TRUE))
            g_array_set_size (out, before);
        }
    }

  skipped = join_ids (out);
  scenario = draw ((guint64) seed);
  model_scenario_print (scenario);
  model_scenario_free (scenario);
  printf ("--seed=%" G_GINT64_FORMAT " --skip=%s\n", seed, skipped);
  return fails (skipped, FALSE) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void
list_kinds (void)
{
  for (guint i = 0; i < model_n_kinds; i++)
    printf ("%s: %s\n", model_kinds[i].name, model_kinds[i].functions);
}

/* Before GLib 2.76 the slice allocator has a lock that no library can mend in a forked
 * child, and it is chosen before main(). */
static void
restart_without_slices (char *argv[])
{
  if (g_getenv ("G_SLICE") != NULL)
    return;

  g_setenv ("G_SLICE", "always-malloc", TRUE);
  execv ("/proc/self/exe", argv);
}

int
main (int argc, char *argv[])
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;

  restart_without_slices (argv);
  g_option_context_set_summary (context, "Draws scenarios at random, and holds the library to what "
                                         "it promises.");
  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error))
    {
      g_printerr ("%s\n", error->message);
      return 2;
    }

  program = g_file_read_link ("/proc/self/exe", NULL);
  if (n_jobs <= 0)
    n_jobs = (int) g_get_num_processors ();
  if (g_getenv ("BGLOOP_MODEL_SEEDS") != NULL && tap)
    n_seeds = atoi (g_getenv ("BGLOOP_MODEL_SEEDS"));

  if (lists)
    {
      list_kinds ();
      return EXIT_SUCCESS;
    }
  if (prints && seed >= 0)
    {
      ModelScenario *scenario = draw ((guint64) seed);

      model_scenario_print (scenario);
      model_scenario_free (scenario);
      return EXIT_SUCCESS;
    }
  if (worker)
    {
      run_seeds ();
      return EXIT_SUCCESS;
    }
  if (seed >= 0)
    return shrinks ? shrink () : fails (skipped, FALSE) ? EXIT_FAILURE : EXIT_SUCCESS;
  if (tap && n_seeds == 0)
    {
      printf ("1..0 # SKIP no seeds\n");
      return EXIT_SUCCESS;
    }
  return run_campaign ();
}
