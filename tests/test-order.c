/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <sys/socket.h>

#include "util.h"

/* Work of every kind */

typedef enum
{
  POST,
  CALL,
  PERFORM,
  CALL_ASYNC,
  PERFORM_ASYNC,
  N_KINDS,
} Kind;

static const int priorities[] = { G_PRIORITY_HIGH, G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

#define N_PRIORITIES G_N_ELEMENTS (priorities)

/* Who gave work, and what of it has run: the loop's thread only. */
typedef struct
{
  BgLoop *loop;
  guint last[N_PRIORITIES];
  guint n_run;
} Giver;

typedef struct
{
  Giver *giver;
  Kind kind;
  guint n; /* from 1 */
  guint priority;
  GThread *thread;
} Work;

/* All that was given before, at this priority, has run before. */
static void
run_cb (gpointer user_data)
{
  Work *work = user_data;
  Giver *giver = work->giver;

  g_assert_true (bg_loop_is_current (giver->loop));
  g_assert_cmpuint (work->n, >, giver->last[work->priority]);
  giver->last[work->priority] = work->n;
  giver->n_run++;
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  run_cb (user_data);
  return TRUE;
}

static gboolean
begin_cb (gpointer user_data,
          GCancellable *cancellable,
          GAsyncReadyCallback callback,
          gpointer callback_data,
          GError **error)
{
  run_cb (user_data);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static void
give (Work *work)
{
  BgLoop *loop = work->giver->loop;
  int priority = priorities[work->priority];
  g_autoptr (GAsyncResult) answer = NULL;
  g_autoptr (GError) error = NULL;

  switch (work->kind)
    {
    case POST:
      g_assert_true (bg_loop_post_full (loop, priority, run_cb, work, NULL));
      break;
    case CALL:
      g_assert_true (bg_loop_call_full (loop, priority, -1, call_cb, work, NULL, &error));
      g_assert_no_error (error);
      break;
    case PERFORM:
      answer = bg_loop_perform (loop, priority, -1, begin_cb, work, NULL, &error);
      g_assert_no_error (error);
      break;
    case CALL_ASYNC:
      bg_loop_call_async (loop, priority, -1, call_cb, work, NULL, NULL, NULL, NULL);
      break;
    default:
      bg_loop_perform_async (loop, priority, -1, begin_cb, work, NULL, NULL, NULL, NULL);
    }
}

static void
work_init (Work *self, Giver *giver, Kind kind, guint n)
{
  *self = (Work){ .giver = giver, .kind = kind, .n = n };
  self->priority = (guint) g_random_int_range (0, N_PRIORITIES);
}

static gpointer
give_cb (gpointer user_data)
{
  give (user_data);
  return NULL;
}

/* Queued one after the other, by as many threads as it takes, while the loop is
 * blocked; then run, or drained by a shutdown. */
static void
test_all_kinds (BgTestFixture *fixture, gconstpointer data)
{
  gboolean drained = GPOINTER_TO_INT (data);
  Giver giver = { .loop = fixture->loop };
  g_autofree Work *works = g_new0 (Work, 200);
  UtilBlock block;

  util_block (&block, giver.loop);
  for (guint i = 0; i < 200; i++)
    {
      Work *work = &works[i];

      work_init (work, &giver, g_random_int_range (0, N_KINDS), i + 1);
      if (work->kind == CALL || work->kind == PERFORM)
        work->thread = g_thread_new ("giver", give_cb, work);
      else
        give (work);
      util_wait_for_queued (giver.loop, i + 1);
    }
  if (drained)
    bg_loop_quit (giver.loop, BG_SHUTDOWN_DRAIN);
  util_unblock (&block);

  for (guint i = 0; i < 200; i++)
    {
      if (works[i].thread != NULL)
        g_thread_join (works[i].thread);
    }
  util_loop_shut_down (giver.loop);
  util_block_clear (&block);
  g_assert_cmpuint (giver.n_run, ==, 200);
}

static gpointer
give_many_cb (gpointer user_data)
{
  Giver *giver = user_data;
  guint n = util_scale (1000);
  Work *works = g_new0 (Work, n);

  for (guint i = 0; i < n; i++)
    {
      work_init (&works[i], giver, g_random_int_range (0, N_KINDS), i + 1);
      give (&works[i]);
    }
  g_assert_true (bg_loop_flush (giver->loop, -1, NULL, NULL));
  g_assert_cmpuint (giver->n_run, ==, n);
  g_free (works);
  return NULL;
}

static void
test_all_kinds_many_threads (BgTestFixture *fixture, gconstpointer data)
{
  Giver givers[6];
  GThread *threads[G_N_ELEMENTS (givers)];

  for (guint i = 0; i < G_N_ELEMENTS (givers); i++)
    {
      givers[i] = (Giver){ .loop = fixture->loop };
      threads[i] = g_thread_new ("giver", give_many_cb, &givers[i]);
    }
  for (guint i = 0; i < G_N_ELEMENTS (givers); i++)
    g_thread_join (threads[i]);
}

/* What the loop's own thread gives comes after what others gave before. */

static void
give_from_loop_cb (gpointer user_data)
{
  Work *works = user_data;
  Giver *giver = works[0].giver;

  for (guint i = 0; i < 30; i++)
    {
      static const Kind kinds[] = { POST, CALL_ASYNC, PERFORM_ASYNC };
      Work *work = &works[30 + i];

      work_init (work, giver, kinds[i % 3], 31 + i);
      work->priority = 1;
      give (work);
    }
  g_assert_cmpuint (giver->n_run, ==, 0);
}

static void
test_own_thread (BgTestFixture *fixture, gconstpointer data)
{
  Giver giver = { .loop = fixture->loop };
  g_autofree Work *works = g_new0 (Work, 60);
  UtilBlock block;

  util_block (&block, giver.loop);
  g_assert_true (bg_loop_post (giver.loop, give_from_loop_cb, works, NULL));
  for (guint i = 0; i < 30; i++)
    {
      work_init (&works[i], &giver, i % 2 ? POST : CALL_ASYNC, i + 1);
      works[i].priority = 1;
      give (&works[i]);
    }
  util_unblock (&block);
  util_loop_shut_down (giver.loop);
  util_block_clear (&block);
  g_assert_cmpuint (giver.n_run, ==, 60);
}

/* A source that work attaches to the context, directly or not, at a higher priority than
 * what that work posts next runs before that: however it came to run, and whatever others
 * post meanwhile. */

typedef enum
{
  BY_POST,
  BY_POST_HIGH,
  BY_DELAY,
  BY_CALL,
  BY_CALL_ASYNC,
  BY_PERFORM,
  BY_TASK,
  BY_INVOKE,
  BY_REPLY,
  BY_DESTROY,
  N_WAYS,
} Way;

typedef struct
{
  Way way;
  gboolean directly; /* attached by g_source_attach() */
  gboolean nests;    /* runs within other work, that iterates the context */
  guint n_others;    /* that others have posted before */
  BgLoop *loop;
  int high; /* the priority of the source */
  int low;  /* and of what is posted */
  UtilLatch attached;
  UtilLatch posted; /* by another thread meanwhile */
  UtilLatch done;
  GThread *thread; /* (nullable) that calls */

  /* the loop's thread only */
  gboolean source_ran;
} Attached;

static gboolean
attached_cb (gpointer user_data)
{
  ((Attached *) user_data)->source_ran = TRUE;
  return G_SOURCE_REMOVE;
}

static void
posted_next_cb (gpointer user_data)
{
  Attached *self = user_data;

  g_assert_true (self->source_ran);
  util_latch_count_down (&self->done);
}

static void
attach_and_post_cb (gpointer user_data)
{
  Attached *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_priority (source, self->high);
  g_source_set_callback (source, attached_cb, self, NULL);
  if (self->directly)
    g_source_attach (source, bg_loop_get_context (self->loop));
  else
    g_assert_true (bg_loop_attach (self->loop, source));
  util_latch_count_down (&self->attached);
  util_latch_wait (&self->posted);
  g_assert_true (bg_loop_post_full (self->loop, self->low, posted_next_cb, self, NULL));
}

static gboolean
attach_and_post_call_cb (gpointer user_data, GError **error)
{
  attach_and_post_cb (user_data);
  return TRUE;
}

static gboolean
attach_and_post_invoked_cb (gpointer user_data)
{
  attach_and_post_cb (user_data);
  return G_SOURCE_REMOVE;
}

static gboolean
attach_and_post_begin_cb (gpointer user_data,
                          GCancellable *cancellable,
                          GAsyncReadyCallback callback,
                          gpointer callback_data,
                          GError **error)
{
  attach_and_post_cb (user_data);
  return util_begin_cb (user_data, cancellable, callback, callback_data, error);
}

static void
attach_and_post_task_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
  attach_and_post_cb (data);
  g_task_return_boolean (task, TRUE);
}

static void
attach_and_post_reply_cb (GObject *source, GAsyncResult *result, gpointer user_data)
{
  attach_and_post_cb (user_data);
}

static void
ask_cb (gpointer user_data)
{
  Attached *self = user_data;

  bg_loop_call_async (self->loop, 0, -1, util_true_cb, NULL, NULL, NULL, attach_and_post_reply_cb,
                      self);
}

static gpointer
call_thread (gpointer data)
{
  Attached *self = data;

  g_assert_true (bg_loop_call (self->loop, attach_and_post_call_cb, self, NULL, NULL));
  return NULL;
}

static void
give_task (Attached *self)
{
  g_autoptr (GTask) task = g_task_new (NULL, NULL, NULL, NULL);

  g_task_set_task_data (task, self, NULL);
  bg_loop_run_task (self->loop, 0, task, attach_and_post_task_cb);
}

static void
give_attacher (Attached *self)
{
  BgLoop *loop = self->loop;

  switch (self->way)
    {
    case BY_POST:
      g_assert_true (bg_loop_post (loop, attach_and_post_cb, self, NULL));
      break;
    case BY_POST_HIGH:
      g_assert_true (bg_loop_post_full (loop, G_PRIORITY_HIGH, attach_and_post_cb, self, NULL));
      break;
    case BY_DELAY:
      g_assert_cmpuint (bg_loop_post_after (loop, 0, attach_and_post_cb, self, NULL), !=, 0);
      break;
    case BY_CALL:
      self->thread = g_thread_new ("call", call_thread, self);
      break;
    case BY_CALL_ASYNC:
      bg_loop_call_async (loop, 0, -1, attach_and_post_call_cb, self, NULL, NULL, NULL, NULL);
      break;
    case BY_PERFORM:
      bg_loop_perform_async (loop, 0, -1, attach_and_post_begin_cb, self, NULL, NULL, NULL, NULL);
      break;
    case BY_TASK:
      give_task (self);
      break;
    case BY_INVOKE:
      g_assert_true (bg_loop_invoke (loop, attach_and_post_invoked_cb, self));
      break;
    case BY_REPLY:
      g_assert_true (bg_loop_post (loop, ask_cb, self, NULL));
      break;
    default:
      g_assert_true (bg_loop_post (loop, util_nothing_cb, self, attach_and_post_cb));
    }
}

static void
iterate_around_cb (gpointer user_data)
{
  Attached *self = user_data;

  while (!util_latch_is_open (&self->done))
    g_main_context_iteration (bg_loop_get_context (self->loop), TRUE);
}

static void
post_others (Attached *self)
{
  static const int others[] = { G_PRIORITY_DEFAULT, G_PRIORITY_DEFAULT, G_PRIORITY_LOW };

  for (guint i = 0; i < self->n_others; i++)
    g_assert_true (bg_loop_post_full (self->loop, others[i % 3], util_nothing_cb, NULL, NULL));
}

static void
run_attached (Attached *self)
{
  UtilBlock block;

  util_latch_init (&self->attached, 1);
  util_latch_init (&self->posted, 1);
  util_latch_init (&self->done, 1);
  util_block (&block, self->loop);
  if (self->nests)
    g_assert_true (bg_loop_post (self->loop, iterate_around_cb, self, NULL));
  post_others (self);
  give_attacher (self);
  post_others (self);
  util_unblock (&block);

  util_latch_wait (&self->attached);
  post_others (self);
  util_latch_count_down (&self->posted);
  util_latch_wait (&self->done);
  g_assert_true (bg_loop_flush (self->loop, -1, NULL, NULL));
  if (self->thread != NULL)
    g_thread_join (self->thread);
  util_block_clear (&block);
  util_latch_clear (&self->attached);
  util_latch_clear (&self->posted);
  util_latch_clear (&self->done);
}

static void
test_attached (BgTestFixture *fixture, gconstpointer data)
{
  static const int pairs[][2] = {
    { G_PRIORITY_HIGH, G_PRIORITY_DEFAULT },  { -1, G_PRIORITY_DEFAULT },
    { G_PRIORITY_HIGH - 1, G_PRIORITY_HIGH }, { G_PRIORITY_DEFAULT, G_PRIORITY_LOW },
    { G_PRIORITY_LOW - 1, G_PRIORITY_LOW },   { G_MININT, G_MININT + 1 },
  };
  static const guint ns[] = { 0, 3, 300, 3000 };
  Way way = GPOINTER_TO_UINT (data);

  for (guint i = 0; i < G_N_ELEMENTS (pairs) * G_N_ELEMENTS (ns) * 4; i++)
    {
      const int *pair = pairs[i / 4 % G_N_ELEMENTS (pairs)];
      Attached self = { way, i % 2, i / 2 % 2, ns[i / 4 / G_N_ELEMENTS (pairs)], fixture->loop };

      self.high = pair[0];
      self.low = pair[1];
      run_attached (&self);
    }
}

static void
add_attached (Way way)
{
  static const char *names[N_WAYS]
      = { "post",    "urgent-post", "delayed-work", "call",  "call-async",
          "perform", "run-task",    "invoke",       "reply", "destroy" };
  g_autofree char *path = g_strconcat ("/order/attached-more-urgent-first/", names[way], NULL);

  util_add_data (path, test_attached, GUINT_TO_POINTER (way));
}

/* Fairness: what must go on under a flood of posts. All of it is of one
 * priority, since sources that are always ready starve less urgent ones, as
 * they do in any context. */

#define FLOOD_LEAST 100000 /* else it can be over before anything else comes to its turn */

typedef struct
{
  BgLoop *loop;
  int priority;
  int source_priority;
  guint n;
  UtilLatch done;

  /* the loop's thread only */
  guint n_run;
  guint n_timeouts;
  guint n_messages;
  guint n_calls;
} Flood;

static void
flood_cb (gpointer user_data)
{
  Flood *flood = user_data;

  if (++flood->n_run < flood->n)
    return;

  g_assert_cmpuint (flood->n_timeouts, >, 2);
  g_assert_cmpuint (flood->n_messages, >, 2);
  if (flood->source_priority > flood->priority)
    g_assert_cmpuint (flood->n_calls, >, 2);
  util_latch_count_down (&flood->done);
}

static gboolean
count_cb (gpointer user_data)
{
  (*(guint *) user_data)++;
  return G_SOURCE_CONTINUE;
}

static void
attach_timer (Flood *flood)
{
  g_autoptr (GSource) source = g_timeout_source_new (0);

  g_source_set_priority (source, flood->source_priority);
  g_source_set_callback (source, count_cb, &flood->n_timeouts, NULL);
  g_assert_true (bg_loop_attach (flood->loop, source));
}

static gboolean
echo_cb (GSocket *socket, GIOCondition condition, gpointer user_data)
{
  Flood *flood = user_data;
  char byte;

  g_assert_cmpint (g_socket_receive (socket, &byte, 1, NULL, NULL), ==, 1);
  g_assert_cmpint (g_socket_send (socket, &byte, 1, NULL, NULL), ==, 1);
  flood->n_messages++;
  return G_SOURCE_CONTINUE;
}

static GSocket *
attach_socket (Flood *flood, int fd)
{
  GSocket *socket = g_socket_new_from_fd (fd, NULL);
  g_autoptr (GSource) source = g_socket_create_source (socket, G_IO_IN, NULL);

  g_source_set_priority (source, flood->source_priority);
  g_source_set_callback (source, G_SOURCE_FUNC (echo_cb), flood, NULL);
  g_assert_true (bg_loop_attach (flood->loop, source));
  return socket;
}

static gboolean
call_again_cb (gpointer user_data, GError **error)
{
  Flood *flood = user_data;

  flood->n_calls++;
  if (flood->n_run < flood->n)
    bg_loop_call_async (flood->loop, flood->source_priority, -1, call_again_cb, flood, NULL, NULL,
                        NULL, NULL);
  return TRUE;
}

/* Half of it is there when the loop begins, half comes meanwhile. */
static void
pour (Flood *flood)
{
  for (guint i = 0; i < flood->n / 2; i++)
    g_assert_true (bg_loop_post_full (flood->loop, flood->priority, flood_cb, flood, NULL));
}

static void
flood (int priority, int source_priority)
{
  Flood self = { util_loop_new ("flood"), priority, source_priority };
  g_autoptr (GSocket) here = NULL;
  g_autoptr (GSocket) there = NULL;
  UtilBlock block;
  int fds[2];

  self.n = util_scale_at_least (1000000, FLOOD_LEAST) / 2 * 2;
  util_latch_init (&self.done, 1);
  util_block (&block, self.loop);
  g_assert_no_errno (socketpair (AF_UNIX, SOCK_STREAM, 0, fds));
  here = attach_socket (&self, fds[0]);
  there = attach_socket (&self, fds[1]);
  g_assert_cmpint (g_socket_send (here, "x", 1, NULL, NULL), ==, 1);
  attach_timer (&self);
  bg_loop_call_async (self.loop, source_priority, -1, call_again_cb, &self, NULL, NULL, NULL, NULL);

  pour (&self);
  util_unblock (&block);
  pour (&self);
  util_latch_wait (&self.done);
  util_loop_end (self.loop);
  util_latch_clear (&self.done);
  util_block_clear (&block);
}

static void
test_same_priority (void)
{
  flood (G_PRIORITY_DEFAULT, G_PRIORITY_DEFAULT);
}

static void
test_lower_priority (void)
{
  flood (G_PRIORITY_DEFAULT, G_PRIORITY_LOW);
}

static void
test_urgent (void)
{
  flood (G_PRIORITY_HIGH, G_PRIORITY_LOW);
}

/* A batch is not all that is queued: others have their turns within it. */

typedef struct
{
  BgLoop *loop;
  int n_run;
  int n_before; /* of them, what ran before the other had its turn */
} Batch;

static void
note_turn_cb (gpointer user_data)
{
  Batch *self = user_data;

  self->n_before = g_atomic_int_get (&self->n_run);
}

static gboolean
note_turn_source_cb (gpointer user_data)
{
  note_turn_cb (user_data);
  return G_SOURCE_REMOVE;
}

static void
take_a_millisecond_cb (gpointer n_run)
{
  util_spin_until (g_get_monotonic_time () + G_TIME_SPAN_MILLISECOND);
  util_count_cb (n_run);
}

#define N_SLOW 300

static void
test_batch_ends (BgTestFixture *fixture, gconstpointer data)
{
  Batch self = { .n_before = -1 };
  g_autoptr (GSource) source = g_idle_source_new ();
  UtilBlock block;

  util_block (&block, fixture->loop);
  for (guint i = 0; i < N_SLOW; i++)
    g_assert_true (bg_loop_post (fixture->loop, take_a_millisecond_cb, &self.n_run, NULL));
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, note_turn_source_cb, &self, NULL);
  g_assert_true (bg_loop_attach (fixture->loop, source));
  util_unblock (&block);
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));

  g_assert_cmpint (self.n_before, >=, 0);
  g_assert_cmpint (self.n_before, <, N_SLOW / 2);
  util_block_clear (&block);
}

static void
post_urgent_cb (gpointer user_data)
{
  Batch *self = user_data;

  g_assert_true (bg_loop_post_full (self->loop, G_PRIORITY_HIGH, note_turn_cb, self, NULL));
}

static void
test_batch_pauses (BgTestFixture *fixture, gconstpointer data)
{
  Batch self = { .loop = fixture->loop, .n_before = -1 };
  UtilBlock block;

  util_block (&block, fixture->loop);
  g_assert_true (bg_loop_post (fixture->loop, post_urgent_cb, &self, NULL));
  for (guint i = 0; i < 100; i++)
    g_assert_true (bg_loop_post (fixture->loop, util_count_cb, &self.n_run, NULL));
  util_unblock (&block);
  g_assert_true (bg_loop_flush (fixture->loop, -1, NULL, NULL));

  g_assert_cmpint (self.n_before, ==, 0);
  util_block_clear (&block);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  util_add_data ("/order/all-kinds", test_all_kinds, GINT_TO_POINTER (FALSE));
  util_add_data ("/order/all-kinds-drained", test_all_kinds, GINT_TO_POINTER (TRUE));
  util_add ("/order/all-kinds-many-threads", test_all_kinds_many_threads);
  util_add ("/order/own-thread-does-not-overtake", test_own_thread);
  for (Way way = 0; way < N_WAYS; way++)
    add_attached (way);
  g_test_add_func ("/fairness/flood/same-priority", test_same_priority);
  g_test_add_func ("/fairness/flood/lower-priority", test_lower_priority);
  g_test_add_func ("/fairness/flood/urgent", test_urgent);
  util_add ("/fairness/batch/of-slow-work-ends", test_batch_ends);
  util_add ("/fairness/batch/pauses-for-what-is-urgent", test_batch_pauses);

  return g_test_run ();
}
