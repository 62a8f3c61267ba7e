/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util.h"

/* Sources of a loop's context that are there when the loop ends, or come later, whoever attached them:
 * they are destroyed on the loop's thread, what they had goes, and nothing stays behind. */

/* More than the loop lets go of at once */
#define MANY 300

/* What there is before and must be there again afterwards */
typedef struct
{
  guint threads;
  guint fds;
  guint eventfds;
} Count;

static void
count (Count *self)
{
  util_loop_end (util_loop_new (NULL));
  self->threads = util_count_threads ();
  self->fds = util_count_fds ();
  self->eventfds = util_count_eventfds ();
}

static void
assert_nothing_left (const Count *self)
{
  util_wait_for_threads (self->threads);
  g_assert_cmpuint (util_count_fds (), ==, self->fds);
  g_assert_cmpuint (util_count_eventfds (), ==, self->eventfds);
}

static gboolean
count_on_cb (gpointer user_data)
{
  util_count_cb (user_data);
  return G_SOURCE_CONTINUE;
}

/* Sources that are left are destroyed on the loop's thread, however they came
 * into its context. */

typedef struct
{
  BgLoop *loop;
  int finalized;
  int destroyed;
} Sources;

typedef struct
{
  GSource source;
  Sources *sources;
} Watched;

static void
watched_finalize (GSource *source)
{
  g_atomic_int_inc (&((Watched *) source)->sources->finalized);
}

static GSourceFuncs watched_funcs = { .finalize = watched_finalize };

static void
destroyed_there_cb (gpointer user_data)
{
  Sources *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_main_context_is_owner (bg_loop_get_context (self->loop)));
  g_atomic_int_inc (&self->destroyed);
}

static GSource *
watched_new (Sources *sources, int priority)
{
  GSource *source = g_source_new (&watched_funcs, sizeof (Watched));

  ((Watched *) source)->sources = sources;
  g_source_set_priority (source, priority);
  g_source_set_callback (source, util_continue_cb, sources, destroyed_there_cb);
  return source;
}

static void
run_destroyed (BgShutdownMode mode)
{
  Sources self = { util_loop_new ("sources") };
  guint n = util_scale (200);

  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GSource) source = watched_new (&self, (int) (i % 5) * 100 - 200);

      if (i % 2 == 0)
        g_assert_true (bg_loop_attach (self.loop, source));
      else
        g_source_attach (source, bg_loop_get_context (self.loop));
    }

  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
  g_assert_cmpint (self.destroyed, ==, n);
  g_assert_finalize_object (self.loop);
  g_assert_cmpint (self.finalized, ==, n);
}

static void
test_destroyed (void)
{
  Count before;

  count (&before);
  run_destroyed (BG_SHUTDOWN_DRAIN);
  run_destroyed (BG_SHUTDOWN_CANCEL);
  assert_nothing_left (&before);
}

/* At whatever priority, where the system tells what that is. */

#define N_ODD 20

static void
test_destroyed_odd (void)
{
  Sources self = { util_loop_new ("sources") };

  for (int i = 0; i < N_ODD; i++)
    {
      g_autoptr (GSource) source = watched_new (&self, (i % 2 ? -1 : 1) * (1003 + 17 * i));

      g_source_attach (source, bg_loop_get_context (self.loop));
    }
  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpint (self.destroyed, ==, N_ODD);
  g_assert_finalize_object (self.loop);
  g_assert_cmpint (self.finalized, ==, N_ODD);
}

/* So is what nobody else has any more: its own code runs there, before the
 * shutdown returns. */

static void
finalize_there (GSource *source)
{
  Sources *self = ((Watched *) source)->sources;

  g_assert_true (bg_loop_is_current (self->loop));
  g_atomic_int_inc (&self->finalized);
}

static GSourceFuncs there_funcs = { .finalize = finalize_there };

static void
run_finalized (BgShutdownMode mode)
{
  Sources self = { util_loop_new ("sources") };
  guint n = util_scale (200);

  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GSource) source = g_source_new (&there_funcs, sizeof (Watched));

      ((Watched *) source)->sources = &self;
      g_assert_true (bg_loop_attach (self.loop, source));
      if (i % 2 == 0)
        g_source_destroy (source);
    }

  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
  g_assert_cmpint (self.finalized, ==, n);
  g_assert_finalize_object (self.loop);
}

static void
test_finalized (void)
{
  run_finalized (BG_SHUTDOWN_DRAIN);
  run_finalized (BG_SHUTDOWN_CANCEL);
}

/* However many they are, and whether the loop has looked at them before. */
static void
test_finalized_many (void)
{
  Sources self = { util_loop_new ("sources") };

  for (guint i = 0; i < 2 * MANY; i++)
    {
      g_autoptr (GSource) source = g_source_new (&there_funcs, sizeof (Watched));

      ((Watched *) source)->sources = &self;
      g_assert_true (bg_loop_attach (self.loop, source));
      if (i == MANY)
        g_assert_true (bg_loop_call (self.loop, util_true_cb, NULL, NULL, NULL));
    }

  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  g_assert_cmpint (self.finalized, ==, 2 * MANY);
  g_assert_finalize_object (self.loop);
}

/* Also when the first of them ends the thread as it goes. */

static void
exit_there (GSource *source)
{
  finalize_there (source);
  if (((Watched *) source)->sources->finalized == 1)
    {
      util_ignore_leak (source);
      g_thread_exit (NULL);
    }
}

static GSourceFuncs exit_funcs = { .finalize = exit_there };

static void
test_finalized_exits (void)
{
  Sources self = { util_loop_new ("sources") };

  util_catch_criticals ();
  for (guint i = 0; i < MANY; i++)
    {
      g_autoptr (GSource) source = g_source_new (&exit_funcs, sizeof (Watched));

      ((Watched *) source)->sources = &self;
      g_assert_true (bg_loop_attach (self.loop, source));
    }

  g_assert_true (bg_loop_shutdown (self.loop, NULL));
  util_take_critical ("*has ended the thread of the loop \"sources\"*");
  g_assert_cmpint (self.finalized, ==, MANY);
  g_assert_finalize_object (self.loop);
}

/* One whose end attaches another, and another: that, too, ends. */
static void
attach_another_cb (gpointer user_data)
{
  GMainContext *context = g_main_context_get_thread_default ();
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  if (g_atomic_int_add ((int *) user_data, -1) <= 0)
    return;

  g_source_set_callback (source, util_continue_cb, user_data, attach_another_cb);
  g_source_attach (source, context);
}

static void
test_attached_by_the_end (void)
{
  BgLoop *loop;
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);
  int left = 5;
  Count before;

  count (&before);
  loop = util_loop_new ("again");
  g_source_set_callback (source, util_continue_cb, &left, attach_another_cb);
  g_assert_true (bg_loop_attach (loop, source));
  util_loop_end (loop);
  g_assert_cmpint (left, <=, 0);
}

/* One that never stops doing so does not keep the loop from ending either: one source is left, and
 * destroyed with the context, or never. */

typedef struct
{
  GMainContext *context;
  int n_attached;
  int n_elsewhere; /* destroyed, but not on the loop's thread */
  int stops;
} Endless;

static void
attach_endlessly_cb (gpointer user_data)
{
  Endless *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  if (g_atomic_int_get (&self->stops))
    return;

  if (!g_main_context_is_owner (self->context))
    g_atomic_int_inc (&self->n_elsewhere);
  g_source_set_callback (source, util_continue_cb, self, attach_endlessly_cb);
  g_atomic_int_inc (&self->n_attached);
  g_source_attach (source, self->context);
}

static void
test_attached_endlessly (void)
{
  static Endless self; /* until what is left is destroyed */
  BgLoop *loop = util_loop_new ("endless");
  g_autoptr (GSource) source = g_idle_source_new ();

  self.context = bg_loop_get_context (loop);
  g_source_set_callback (source, util_continue_cb, &self, attach_endlessly_cb);
  g_assert_true (bg_loop_attach (loop, source));
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_atomic_int_set (&self.stops, TRUE);
  g_assert_cmpint (self.n_elsewhere, ==, 0);
  g_assert_cmpint (self.n_attached, >, 1);
  g_assert_finalize_object (loop);
}

/* Sources that somebody has attached to the context itself are looked up by their ids, as GLib
 * does not list them. */

static int n_lookups;
static GSource *found; /* instead of what there is, if that is not NULL */

GSource *
g_main_context_find_source_by_id (GMainContext *context, guint id)
{
  GSource *(*next) (GMainContext *, guint) = dlsym (RTLD_NEXT, "g_main_context_find_source_by_id");

  g_atomic_int_inc (&n_lookups);
  return found != NULL ? found : next (context, id);
}

#define MANY_PAST 40000

static void
attach_many_cb (gpointer user_data)
{
  GMainContext *context = g_main_context_get_thread_default ();
  g_autoptr (GSource) left = g_timeout_source_new (G_MAXINT);

  for (guint i = 0; i < MANY_PAST; i++)
    {
      g_autoptr (GSource) source = g_idle_source_new ();

      g_source_attach (source, context);
      g_source_destroy (source);
    }
  g_source_set_callback (left, util_continue_cb, user_data, util_count_cb);
  g_source_attach (left, context);
}

/* The end does not look for all that the context has ever had. */
static void
test_many_in_the_past (void)
{
  BgLoop *loop = util_loop_new ("past");
  int destroyed = 0;

  g_assert_true (bg_loop_post (loop, attach_many_cb, &destroyed, NULL));
  util_loop_end (loop);
  g_assert_cmpint (destroyed, ==, 1);
  g_assert_cmpint (n_lookups, >, 0);
  g_assert_cmpint (n_lookups, <, MANY_PAST / 2);
}

/* Another thread may free what was found before it is looked at. */
static void
test_found_and_freed (void)
{
  gsize n_bytes = sysconf (_SC_PAGESIZE);
  BgLoop *loop = util_loop_new ("freed");
  int destroyed = 0;

  found = mmap (NULL, n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  g_assert_true (found != MAP_FAILED);
  g_assert_true (bg_loop_post (loop, attach_many_cb, &destroyed, NULL));
  util_loop_end (loop);
  g_assert_cmpint (destroyed, ==, 1);
  g_assert_cmpint (n_lookups, >, 0);
  munmap (found, n_bytes);
}

/* A loop is asked to stop, and something ends its thread before it begins to: the end does not
 * begin to drain again and again. */
static void
test_never_began_to_stop (void)
{
  BgLoop *loop = util_loop_new ("exits");
  UtilBlock block;
  int destroyed = 0;

  util_catch_criticals ();
  g_assert_true (bg_loop_post (loop, attach_many_cb, &destroyed, NULL));
  util_block (&block, loop);
  g_assert_true (bg_loop_post (loop, util_exit_thread_cb, NULL, NULL));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_block_clear (&block);
  util_loop_end (loop);
  util_take_critical ("*has ended the thread of the loop*exits*");
  g_assert_cmpint (destroyed, ==, 1);
  g_assert_cmpint (n_lookups, >, 0);
  g_assert_cmpint (n_lookups, <, MANY_PAST / 2);
}

/* A handle may be destroyed by any thread, at any time (trap 14). */

typedef struct
{
  GSource **sources;
  guint n;
  UtilLatch start;
} Handles;

static gpointer
destroy_handles_thread (gpointer user_data)
{
  Handles *self = user_data;

  util_latch_count_down (&self->start);
  util_latch_wait (&self->start);
  for (guint i = 0; i < self->n; i++)
    {
      g_source_destroy (self->sources[i]);
      g_source_unref (self->sources[i]);
    }
  return NULL;
}

typedef enum
{
  DURING,
  RACING_UNREF,
  AFTER,
  N_MOMENTS,
} Moment;

static void
run_handles (Moment moment)
{
  Handles self = { g_new (GSource *, 20), 20 };
  BgLoop *loop = util_loop_new ("handles");
  GThread *thread = NULL;
  int destroyed = 0;

  util_latch_init (&self.start, moment == AFTER ? 1 : 2);
  for (guint i = 0; i < self.n; i++)
    {
      self.sources[i] = i % 2 == 0 ? g_timeout_source_new (1) : g_timeout_source_new (G_MAXINT);
      g_source_set_callback (self.sources[i], util_continue_cb, &destroyed, util_count_cb);
      g_assert_true (bg_loop_attach (loop, self.sources[i]));
    }

  if (moment == RACING_UNREF)
    g_assert_true (bg_loop_shutdown (loop, NULL));
  if (moment != AFTER)
    {
      thread = g_thread_new ("handles", destroy_handles_thread, &self);
      util_latch_count_down (&self.start);
      util_latch_wait (&self.start);
    }
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_object_unref (loop);
  if (moment == AFTER)
    thread = g_thread_new ("handles", destroy_handles_thread, &self);
  g_thread_join (thread);
  g_assert_cmpint (destroyed, ==, self.n);
  util_latch_clear (&self.start);
  g_free (self.sources);
}

static void
test_handles (void)
{
  Count before;

  count (&before);
  for (guint i = 0; i < util_scale (100) * N_MOMENTS; i++)
    run_handles (i % N_MOMENTS);

  /* A context outlives the handles; the next loop has it buried. */
  util_loop_end (util_loop_new (NULL));
  assert_nothing_left (&before);
}

/* One that stays, since somebody has a source of it for long, keeps none of the others. */

static void
end_with_handle (GSource **handle)
{
  BgLoop *loop = util_loop_new ("handle");

  *handle = g_timeout_source_new (G_MAXINT);
  g_source_set_callback (*handle, util_continue_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, *handle));
  util_loop_end (loop);
}

static void
test_one_stays (void)
{
  GSource *handles[3];
  Count before;

  count (&before);
  for (guint i = 0; i < G_N_ELEMENTS (handles); i++)
    end_with_handle (&handles[i]);
  for (guint i = 0; i < G_N_ELEMENTS (handles); i++)
    {
      g_assert_cmpuint (util_count_eventfds (), ==, before.eventfds + G_N_ELEMENTS (handles) - i);
      g_source_unref (handles[i]);
      util_loop_end (util_loop_new (NULL));
    }
  assert_nothing_left (&before);
}

/* A context goes when the next loop ends, however long that one has been there. */
static void
test_end_releases (void)
{
  BgLoop *other = util_loop_new ("other");
  GSource *handle;
  guint n_eventfds;

  end_with_handle (&handle);
  n_eventfds = util_count_eventfds ();
  g_source_unref (handle);
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds);
  util_loop_end (other); /* with its own descriptor */
  g_assert_cmpuint (util_count_eventfds (), ==, n_eventfds - 2);
}

#define FLUSH_EACH 100

/* A loop that is used for long does not collect sources that are gone. */
static void
test_many_come_and_go (void)
{
  Sources self = { util_loop_new ("come and go") };
  guint n = util_scale_at_least (5000, 10 * FLUSH_EACH);

  for (guint i = 0; i < n; i++)
    {
      GSource *source = g_source_new (&watched_funcs, sizeof (Watched));

      ((Watched *) source)->sources = &self;
      g_assert_true (bg_loop_attach (self.loop, source));
      g_source_destroy (source);
      g_source_unref (source);
      if (i % FLUSH_EACH == FLUSH_EACH - 1)
        g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
    }

  g_assert_cmpint (g_atomic_int_get (&self.finalized), >=, n / 2);
  util_loop_end (self.loop);
  g_assert_cmpint (self.finalized, ==, n);
}

/* Completions of tasks that are under way arrive: nothing of them leaks. */

typedef struct
{
  BgLoop *loop;
  GTask *task; /* (owned) (nullable) */
  int completed;
  int destroyed;
} Tasks;

static void
completed_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Tasks *self = user_data;

  g_assert_true (bg_loop_is_current (self->loop));
  g_assert_true (g_task_propagate_boolean (G_TASK (result), NULL));
  self->completed++;
}

static void
return_task_cb (gpointer user_data)
{
  Tasks *self = user_data;
  GTask *task = g_task_new (NULL, NULL, completed_cb, self);

  /* In a later iteration, since it is that of this task's own context. */
  g_task_set_task_data (task, &self->destroyed, util_count_cb);
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
}

static void
run_tasks (BgShutdownMode mode, gboolean with_ready_source)
{
  Tasks self = { util_loop_new ("tasks") };
  int turns = 0;

  for (guint i = 0; i < 10; i++)
    g_assert_cmpuint (bg_loop_add_teardown (self.loop, return_task_cb, &self, NULL), !=, 0);
  for (int priority = -300; with_ready_source && priority <= 300; priority += 150)
    {
      g_autoptr (GSource) source = g_idle_source_new ();

      g_source_set_priority (source, priority);
      g_source_set_callback (source, count_on_cb, &turns, NULL);
      g_assert_true (bg_loop_attach (self.loop, source));
    }
  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
  g_assert_cmpint (self.completed, ==, 10);
  g_assert_cmpint (self.destroyed, ==, 10);
  g_assert_finalize_object (self.loop);
}

static void
test_tasks (void)
{
  Count before;

  /* The first task of a process starts a thread of GLib's own. */
  run_tasks (BG_SHUTDOWN_DRAIN, FALSE);
  count (&before);
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      run_tasks (mode, FALSE);
      run_tasks (mode, TRUE);
    }
  assert_nothing_left (&before);
}

/* One may arrive at any moment of the end, also when the context has just been found to
 * have nothing more to do: this source has its task return when the sources above it have
 * been looked at for the nth time after the teardown functions. */
#define LATEST 2

typedef struct
{
  GSource source;
  GTask *task; /* (owned) (nullable) */
  gboolean ends;
  guint n;
} Late;

static gboolean
late_check (GSource *source)
{
  Late *self = (Late *) source;

  if (self->ends && self->n-- == 0)
    {
      self->ends = FALSE;
      g_task_return_boolean (self->task, TRUE);
      g_clear_object (&self->task);
    }
  return FALSE;
}

static GSourceFuncs late_funcs = { .check = late_check };

static void
late_end_cb (gpointer user_data)
{
  Late *self = user_data;

  self->ends = TRUE;
}

static gboolean
make_task_cb (gpointer user_data, GError **error)
{
  Tasks *self = user_data;

  self->task = g_task_new (NULL, NULL, completed_cb, self);
  g_task_set_task_data (self->task, &self->destroyed, util_count_cb);
  return TRUE;
}

static void
run_late_task (BgShutdownMode mode, guint n)
{
  Tasks self = { util_loop_new ("late") };
  g_autoptr (GSource) source = g_source_new (&late_funcs, sizeof (Late));
  Late *late = (Late *) source;

  g_assert_true (bg_loop_call (self.loop, make_task_cb, &self, NULL, NULL));
  late->task = self.task;
  late->n = n;
  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_attach (source, bg_loop_get_context (self.loop));
  g_assert_cmpuint (bg_loop_add_teardown (self.loop, late_end_cb, late, NULL), !=, 0);
  g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
  g_assert_null (late->task);
  g_assert_cmpint (self.completed, ==, 1);
  g_assert_cmpint (self.destroyed, ==, 1);
  g_clear_pointer (&source, g_source_unref);
  g_assert_finalize_object (self.loop);
}

static void
test_late_task (void)
{
  Count before;

  run_tasks (BG_SHUTDOWN_DRAIN, FALSE);
  count (&before);
  for (guint n = 0; n < LATEST; n++)
    {
      run_late_task (BG_SHUTDOWN_DRAIN, n);
      run_late_task (BG_SHUTDOWN_CANCEL, n);
    }
  assert_nothing_left (&before);
}

/* Where an operation has begun, a task that returns when its loop has ended completes on the thread
 * of another one, as if it were in its own context. */

static BgLoop *
loop_with_operation_new (void)
{
  BgLoop *loop = util_loop_new ("ended");
  GAsyncResult *result = bg_loop_perform (loop, 0, -1, util_begin_cb, NULL, NULL, NULL);

  g_assert_nonnull (result);
  g_object_unref (result);
  return loop;
}

static gboolean
brought_about_cb (gpointer user_data)
{
  g_assert_true (g_main_context_get_thread_default ()
                 == g_source_get_context (g_main_current_source ()));
  util_count_cb (user_data);
  return G_SOURCE_REMOVE;
}

/* GLib itself calls it with the context as the thread's default, but not what it brings about. */
static void
completed_late_cb (GObject *object, GAsyncResult *result, gpointer user_data)
{
  GMainContext *context = g_task_get_context (G_TASK (result));
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, brought_about_cb, user_data, NULL);
  g_source_attach (source, context);
  g_assert_true (g_main_context_get_thread_default () == context);
  g_assert_true (g_main_context_is_owner (context));
  util_count_cb (user_data);
}

static gboolean
make_late_task_cb (gpointer user_data, GError **error)
{
  Tasks *self = user_data;

  self->task = g_task_new (NULL, NULL, completed_late_cb, &self->completed);
  g_task_set_task_data (self->task, &self->destroyed, util_count_cb);
  return TRUE;
}

static void
test_after_the_end (void)
{
  Tasks self = { NULL };
  Count before;

  run_tasks (BG_SHUTDOWN_DRAIN, FALSE);
  count (&before);
  self.loop = loop_with_operation_new ();
  g_assert_true (bg_loop_call (self.loop, make_late_task_cb, &self, NULL, NULL));
  util_loop_end (self.loop);
  g_task_return_boolean (self.task, TRUE);
  g_object_unref (self.task);
  g_assert_cmpint (self.completed, ==, 0);
  util_loop_end (util_loop_new (NULL));
  g_assert_cmpint (self.completed, ==, 2);
  g_assert_cmpint (self.destroyed, ==, 1);
  assert_nothing_left (&before);
}

/* Nothing else that comes then is run, though it be an idle function. */
static void
test_idle_after_the_end (void)
{
  BgLoop *loop;
  g_autoptr (GMainContext) context = NULL;
  GSource *source = g_idle_source_new ();
  int destroyed = 0;
  Count before;

  util_loop_end (loop_with_operation_new ()); /* GLib has a thread for tasks */
  count (&before);
  loop = loop_with_operation_new ();
  context = g_main_context_ref (bg_loop_get_context (loop));
  util_loop_end (loop);
  g_source_set_callback (source, util_no_source_cb, &destroyed, util_count_cb);
  g_source_attach (source, context);
  g_source_unref (source);
  util_loop_end (util_loop_new (NULL));
  g_assert_cmpint (destroyed, ==, 1);
  g_clear_pointer (&context, g_main_context_unref);
  util_loop_end (util_loop_new (NULL));
  assert_nothing_left (&before);
}

/* Unless somebody has that context: whoever iterates it runs what comes. */
static void
test_iterated_after_the_end (void)
{
  BgLoop *loop = loop_with_operation_new ();
  g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (loop));
  GSource *source = g_idle_source_new ();
  UtilLatch run;

  util_latch_init (&run, 1);
  util_loop_end (loop);
  g_assert_true (g_main_context_acquire (context));
  g_source_set_callback (source, util_count_down_source_cb, &run, NULL);
  g_source_attach (source, context);
  g_source_unref (source);
  util_loop_end (util_loop_new (NULL));
  g_assert_false (util_latch_is_open (&run));
  g_assert_true (g_main_context_iteration (context, FALSE));
  g_assert_true (util_latch_is_open (&run));
  g_main_context_release (context);
  util_latch_clear (&run);
}

/* Operations of GIO that have begun when the loop is cancelled complete in its context, or go with
 * it. */

static gboolean
communicate_cb (gpointer user_data,
                GCancellable *cancellable,
                GAsyncReadyCallback callback,
                gpointer callback_data,
                GError **error)
{
  g_autoptr (GSubprocess) process = NULL;

  process = g_subprocess_new (G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE, error,
                              "cat", NULL);
  if (process == NULL)
    return FALSE;

  g_subprocess_communicate_utf8_async (process, "a line", cancellable, callback, callback_data);
  return TRUE;
}

static void
cancel_subprocess (void)
{
  BgLoop *loop = util_loop_new ("subprocess");

  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, communicate_cb, NULL, NULL, NULL, NULL,
                         NULL);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_true (bg_loop_shutdown_full (loop, BG_SHUTDOWN_CANCEL, -1, NULL, NULL));
  g_assert_finalize_object (loop);
}

static void
test_subprocesses (void)
{
  Count before;

  cancel_subprocess (); /* GLib has a thread for them */
  count (&before);
  for (guint i = 0; i < util_scale (50); i++)
    cancel_subprocess ();

  /* What GLib's own threads still had of a context is let go of when another loop ends. */
  do
    util_loop_end (util_loop_new (NULL));
  while (util_count_eventfds () > before.eventfds);
}

/* A source that is always ready, above everything, holds up nothing. */
static void
run_always_ready (BgShutdownMode mode, int priority)
{
  BgLoop *loop = util_loop_new ("ready");
  g_autoptr (GSource) source = g_idle_source_new ();
  int turns = 0, ran = 0, destroyed = 0;
  UtilBlock block;

  util_block (&block, loop);
  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post_full (loop, G_PRIORITY_LOW, util_count_cb, &ran, NULL));
  g_assert_cmpuint (bg_loop_post_after (loop, 0, util_nothing_cb, &destroyed, util_count_cb), !=,
                    0);
  g_source_set_priority (source, priority);
  g_source_set_callback (source, count_on_cb, &turns, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  bg_loop_quit (loop, mode);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
  g_assert_cmpint (ran, ==, mode == BG_SHUTDOWN_DRAIN ? 100 : 0);
  g_assert_cmpint (destroyed, ==, 1);
}

static void
test_always_ready (void)
{
  static const int priorities[] = { G_MININT, G_MININT + 1, -1000, G_PRIORITY_HIGH, 0, 300 };

  for (guint i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      run_always_ready (BG_SHUTDOWN_DRAIN, priorities[i]);
      run_always_ready (BG_SHUTDOWN_CANCEL, priorities[i]);
    }
}

/* Nor does it hold up what the loop waits for, below it. */

static gboolean
return_true_source_cb (gpointer task)
{
  g_task_return_boolean (task, TRUE);
  return G_SOURCE_REMOVE;
}

static gboolean
begin_low_cb (gpointer user_data,
              GCancellable *cancellable,
              GAsyncReadyCallback callback,
              gpointer callback_data,
              GError **error)
{
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, G_PRIORITY_LOW);
  g_source_set_callback (source, return_true_source_cb,
                         g_task_new (NULL, NULL, callback, callback_data), g_object_unref);
  g_source_attach (source, g_main_context_get_thread_default ());
  return TRUE;
}

static void
test_above_completion (void)
{
  BgLoop *loop = util_loop_new ("above");
  g_autoptr (GSource) source = g_idle_source_new ();
  UtilBlock block;

  util_block (&block, loop);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, begin_low_cb, NULL, NULL, NULL, NULL, NULL);
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

/* Nor when so many sources have come and gone since that it is not looked up by its id any more:
 * then it is found by its priority. The loop remembers those of sources that bg_loop_attach() was
 * given, and tries each that is near the default. */

#define MORE_THAN_LATEST 5000

static void
run_above_completion (int priority, gboolean directly)
{
  BgLoop *loop = util_loop_new ("above");
  GMainContext *context = bg_loop_get_context (loop);
  g_autoptr (GSource) source = g_idle_source_new ();
  UtilBlock block;

  util_block (&block, loop);
  bg_loop_perform_async (loop, G_PRIORITY_DEFAULT, -1, begin_low_cb, NULL, NULL, NULL, NULL, NULL);
  g_source_set_priority (source, priority);
  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  if (directly)
    g_source_attach (source, context);
  else
    g_assert_true (bg_loop_attach (loop, source));
  for (guint i = 0; i < MORE_THAN_LATEST; i++)
    {
      g_autoptr (GSource) past = g_idle_source_new ();

      g_source_attach (past, context);
      g_source_destroy (past);
    }
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  util_block_clear (&block);
}

static void
test_above_completion_attached (void)
{
  run_above_completion (-12345, FALSE);
}

static void
test_above_completion_near_default (void)
{
  run_above_completion (-7, TRUE);
}

/* Nor does it keep what completes at the very end, below it, from having its turn. */
static void
test_above_source (void)
{
  BgLoop *loop = util_loop_new ("above");
  GMainContext *context = bg_loop_get_context (loop);
  g_autoptr (GSource) ready = g_idle_source_new (), below = g_idle_source_new ();
  UtilLatch turn;
  UtilBlock block;

  util_latch_init (&turn, 1);
  util_block (&block, loop);
  g_source_set_priority (ready, G_PRIORITY_DEFAULT);
  g_source_set_callback (ready, util_continue_cb, NULL, NULL);
  g_source_attach (ready, context);
  g_source_set_priority (below, G_PRIORITY_LOW);
  g_source_set_callback (below, util_count_down_source_cb, &turn, NULL);
  g_source_attach (below, context);
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);
  util_loop_end (loop);
  g_assert_true (util_latch_is_open (&turn));
  util_latch_clear (&turn);
  util_block_clear (&block);
}

/* It may have children, which go where it goes. */

#define MANY_TURNS 1000

typedef struct
{
  BgLoop *loop;
  guint64 hold;
  int turns;
} Held;

static gboolean
release_at_last_cb (gpointer user_data)
{
  Held *self = user_data;

  if (++self->turns == MANY_TURNS)
    bg_loop_release (self->loop, self->hold);
  return G_SOURCE_CONTINUE;
}

static void
test_always_ready_with_child (void)
{
  Held self = { util_loop_new ("ready"), 0, 0 };
  g_autoptr (GSource) source = g_idle_source_new ();
  g_autoptr (GSource) child = g_timeout_source_new (G_MAXINT);

  self.hold = bg_loop_hold (self.loop, "ready");
  bg_loop_quit (self.loop, BG_SHUTDOWN_DRAIN);
  g_source_set_dummy_callback (child);
  g_source_add_child_source (source, child);
  g_source_set_callback (source, release_at_last_cb, &self, NULL);
  g_source_attach (source, bg_loop_get_context (self.loop));
  util_loop_end (self.loop);
  g_assert_cmpint (self.turns, >=, MANY_TURNS);
}

/* A flood of high priority does not keep what is low from its outcome. */

typedef struct
{
  BgLoop *loop;
  int stop;
  int accepted;
} Flood;

static gpointer
flood_thread (gpointer user_data)
{
  Flood *self = user_data;

  while (!g_atomic_int_get (&self->stop))
    {
      if (bg_loop_post_full (self->loop, G_PRIORITY_HIGH, util_nothing_cb, &self->accepted,
                             util_count_cb))
        g_atomic_int_add (&self->accepted, -1);
      g_thread_yield ();
    }
  return NULL;
}

static void
test_flood (void)
{
  for (BgShutdownMode mode = BG_SHUTDOWN_DRAIN; mode <= BG_SHUTDOWN_CANCEL; mode++)
    {
      Flood self = { util_loop_new ("flood") };
      GThread *threads[2];
      int low = 0;

      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        threads[i] = g_thread_new ("flood", flood_thread, &self);
      for (guint i = 0; i < 50; i++)
        g_assert_true (
            bg_loop_post_full (self.loop, G_PRIORITY_LOW, util_nothing_cb, &low, util_count_cb));
      g_assert_true (bg_loop_shutdown_full (self.loop, mode, -1, NULL, NULL));
      g_assert_cmpint (low, ==, 50);
      g_atomic_int_set (&self.stop, TRUE);
      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        g_thread_join (threads[i]);
      g_assert_finalize_object (self.loop);
    }
}

/* As long as somebody has a source that was in the context, the context is there: before 2.85
 * GLib ends the program where the source is destroyed while the context goes. (A public field.) */
static void
test_handle_kept (void)
{
  BgLoop *loop = util_loop_new ("kept");
  g_autoptr (GSource) source = g_timeout_source_new (G_MAXINT);

  g_source_set_callback (source, util_continue_cb, NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  util_loop_end (loop);
  g_assert_true (g_source_is_destroyed (source));
  g_assert_nonnull (source->context);
  g_source_destroy (source);
}

/* Whatever happened to it, after the object nothing is there. */
static void
test_nothing_left (void)
{
  Count before;

  count (&before);
  for (guint i = 0; i < util_scale (100); i++)
    {
      BgLoop *loop = util_loop_new ("nothing");
      g_autoptr (GMainContext) context = g_main_context_ref (bg_loop_get_context (loop));
      g_autoptr (GSource) source = g_timeout_source_new (1);
      GWeakRef weak;

      g_weak_ref_init (&weak, bg_loop_get_cancellable (loop));
      g_source_set_callback (source, util_continue_cb, NULL, NULL);
      g_assert_true (bg_loop_attach (loop, source));
      g_assert_true (bg_loop_post (loop, util_nothing_cb, NULL, NULL));
      if (i % 3 == 0)
        g_assert_true (bg_loop_shutdown (loop, NULL));
      else if (i % 3 == 1)
        bg_loop_quit (loop, BG_SHUTDOWN_CANCEL);
      g_object_unref (loop);
      g_clear_pointer (&source, g_source_unref);
      g_clear_pointer (&context, g_main_context_unref);
      util_wait_for_threads (before.threads);
      g_assert_null (g_weak_ref_get (&weak));
      g_weak_ref_clear (&weak);
    }
  util_loop_end (util_loop_new (NULL));
  assert_nothing_left (&before);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_trapped ("/leftovers/destroyed-on-the-loop", test_destroyed);
  if (HAVE_PROCESS_VM_READV && !util_is_emulated ())
    {
      util_add_trapped ("/leftovers/destroyed-on-the-loop/odd-priorities", test_destroyed_odd);
      util_add_trapped ("/leftovers/looked-up/many-in-the-past", test_many_in_the_past);
      util_add_trapped ("/leftovers/looked-up/found-and-freed", test_found_and_freed);
      util_add_trapped ("/leftovers/looked-up/never-began-to-stop", test_never_began_to_stop);
    }
  util_add_trapped ("/leftovers/finalized-on-the-loop", test_finalized);
  util_add_trapped ("/leftovers/finalized-on-the-loop/many", test_finalized_many);
  util_add_trapped ("/leftovers/finalized-on-the-loop/ends-the-thread", test_finalized_exits);
  util_add_trapped ("/leftovers/attached-by-the-end", test_attached_by_the_end);
  util_add_trapped ("/leftovers/attached-endlessly", test_attached_endlessly);
  util_add_trapped ("/leftovers/handles", test_handles);
  util_add_trapped ("/leftovers/handles/kept", test_handle_kept);
  util_add_trapped ("/leftovers/handles/one-stays", test_one_stays);
  if (HAVE_EVENTFD)
    util_add_trapped ("/leftovers/handles/released-by-an-end", test_end_releases);
  util_add_trapped ("/leftovers/many-come-and-go", test_many_come_and_go);
  util_add_trapped ("/leftovers/tasks", test_tasks);
  util_add_trapped ("/leftovers/late-task", test_late_task);
  util_add_trapped ("/leftovers/after-the-end/task", test_after_the_end);
  util_add_trapped ("/leftovers/after-the-end/idle", test_idle_after_the_end);
  util_add_trapped ("/leftovers/after-the-end/iterated", test_iterated_after_the_end);
  util_add_trapped ("/leftovers/gio", test_subprocesses);
  util_add_trapped ("/leftovers/always-ready", test_always_ready);
  util_add_trapped ("/leftovers/always-ready/above-a-completion", test_above_completion);
  util_add_trapped ("/leftovers/always-ready/above-a-completion/attached-long-ago",
                    test_above_completion_attached);
  util_add_trapped ("/leftovers/always-ready/above-a-completion/near-the-default",
                    test_above_completion_near_default);
  util_add_trapped ("/leftovers/always-ready/above-a-source", test_above_source);
  util_add_trapped ("/leftovers/always-ready/with-child", test_always_ready_with_child);
  util_add_trapped ("/leftovers/flood", test_flood);
  util_add_trapped ("/leftovers/nothing-left", test_nothing_left);

  return g_test_run ();
}
