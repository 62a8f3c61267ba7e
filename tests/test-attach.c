/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>

#include "util.h"

/* A source that was destroyed, and that nobody has, goes as soon as the loop has a
 * moment, and with it what it has: as with g_source_attach(). */

typedef struct
{
  GSource source;
  UtilLatch *finalized;
} Watched;

static gboolean
watched_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  return callback (user_data);
}

static void
watched_finalize (GSource *source)
{
  util_latch_count_down (((Watched *) source)->finalized);
}

static GSourceFuncs watched_funcs = { .dispatch = watched_dispatch, .finalize = watched_finalize };

static gboolean
destroy_cb (gpointer user_data)
{
  g_source_destroy (g_main_current_source ());
  return G_SOURCE_CONTINUE;
}

static GSource *
watched_new (UtilLatch *finalized, GSourceFunc func)
{
  GSource *source = g_source_new (&watched_funcs, sizeof (Watched));

  ((Watched *) source)->finalized = finalized;
  g_source_set_callback (source, func, NULL, NULL);
  return source;
}

static GSource *
attach (BgLoop *loop, UtilLatch *finalized, GSourceFunc func)
{
  GSource *source = watched_new (finalized, func);

  g_assert_true (bg_loop_attach (loop, source));
  return source;
}

/* How it is destroyed */

typedef enum
{
  BY_ITSELF,
  BY_ITS_FUNCTION,
  HERE,
  BY_A_THREAD,
  ON_THE_LOOP,
  N_WAYS,
} Way;

static gpointer
destroy_thread (gpointer data)
{
  g_source_destroy (data);
  return NULL;
}

static void
destroy_post_cb (gpointer user_data)
{
  g_source_destroy (user_data);
}

/* Gives up the reference, too. */
static void
destroy (BgLoop *loop, GSource *source, Way way)
{
  switch (way)
    {
    case BY_ITSELF:
    case BY_ITS_FUNCTION:
      /* The context has it until it is dispatched. Who held a reference for longer than the
       * loop looks for would have it stay until the loop has something to do. */
      g_source_unref (source);
      g_source_set_ready_time (source, 0);
      break;
    case HERE:
      g_source_destroy (source);
      g_source_unref (source);
      break;
    case BY_A_THREAD:
      g_thread_join (g_thread_new ("destroy", destroy_thread, source));
      g_source_unref (source);
      break;
    default:
      g_assert_true (bg_loop_post (loop, destroy_post_cb, source, (GDestroyNotify) g_source_unref));
    }
}

static void
run_promptly (BgLoop *loop, Way way, guint n)
{
  static const GSourceFunc funcs[N_WAYS]
      = { util_remove_cb, destroy_cb, util_continue_cb, util_continue_cb, util_continue_cb };
  g_autofree GSource **sources = g_new (GSource *, n);
  UtilLatch finalized;

  util_latch_init (&finalized, n);
  for (guint i = 0; i < n; i++)
    sources[i] = attach (loop, &finalized, funcs[way]);
  for (guint i = 0; i < n; i++)
    destroy (loop, sources[i], way);

  /* Whoever destroys a source without a descriptor elsewhere does not wake the loop. */
  if (way == HERE || way == BY_A_THREAD)
    g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_latch_wait (&finalized);
  util_latch_clear (&finalized);
}

static void
test_promptly (void)
{
  BgLoop *loop = util_loop_new ("promptly");
  GSource *live[200];
  UtilLatch finalized;

  for (Way way = 0; way < N_WAYS; way++)
    {
      for (guint n = 1; n <= 100; n *= 10)
        run_promptly (loop, way, n);
    }

  /* However many others there are */
  util_latch_init (&finalized, G_N_ELEMENTS (live));
  for (guint i = 0; i < G_N_ELEMENTS (live); i++)
    live[i] = attach (loop, &finalized, util_continue_cb);
  for (Way way = 0; way < N_WAYS; way++)
    run_promptly (loop, way, 1);
  for (guint i = 0; i < G_N_ELEMENTS (live); i++)
    g_source_unref (live[i]);
  util_loop_end (loop);
  g_assert_true (util_latch_is_open (&finalized));
  util_latch_clear (&finalized);
}

/* While another thread has it, it stays; when the loop next has something to do, it
 * goes. */
static void
run_kept (BgLoop *loop, Way way)
{
  UtilLatch finalized;
  GSource *source;

  util_latch_init (&finalized, 1);
  source = attach (loop, &finalized, way == BY_ITSELF ? util_remove_cb : util_continue_cb);
  destroy (loop, g_source_ref (source), way);
  while (!g_source_is_destroyed (source))
    g_thread_yield ();
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  g_assert_false (util_latch_is_open (&finalized));
  g_source_unref (source);
  g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
  util_latch_wait (&finalized);
  util_latch_clear (&finalized);
}

static void
test_kept (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;

  for (guint i = 0; i < util_scale (50); i++)
    {
      run_kept (loop, BY_ITSELF);
      run_kept (loop, HERE);
      run_kept (loop, BY_A_THREAD);
    }
}

/* An idle loop looks a few times for sources that others have, and then does not; for the next
 * such source it begins again. The test's own thread drops none: a source of the loop does, when
 * the context has been prepared so often, which nothing but those looks brings about. */

#define LOOKS        5
#define ENOUGH_LOOKS 20 /* until the loop does not look any more */

typedef struct
{
  GSource source;
  GSource *shared; /* (owned) */
  guint n_left;    /* iterations until it is dropped; 0: it is not to be */
} Sharing;

static gboolean
sharing_prepare (GSource *source, int *timeout)
{
  Sharing *self = (Sharing *) source;

  *timeout = -1;
  if (self->n_left > 0 && --self->n_left == 0)
    g_source_unref (self->shared);
  return FALSE;
}

static GSourceFuncs sharing_funcs = { .prepare = sharing_prepare, .dispatch = watched_dispatch };

static void
destroy_shared_cb (gpointer user_data)
{
  Sharing *self = user_data;

  g_source_destroy (self->shared);
  self->n_left = LOOKS;
}

static void
test_shared_anew (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  g_autoptr (GSource) source = g_source_new (&sharing_funcs, sizeof (Sharing));
  Sharing *self = (Sharing *) source;
  UtilLatch first, second;
  GSource *kept;

  util_latch_init (&first, 1);
  util_latch_init (&second, 1);
  g_source_set_priority (source, G_PRIORITY_HIGH); /* it is prepared each time */
  g_assert_true (bg_loop_attach (loop, source));
  kept = attach (loop, &first, util_continue_cb);
  self->shared = attach (loop, &second, util_continue_cb);
  g_source_destroy (kept);
  for (guint i = 0; i < ENOUGH_LOOKS; i++)
    {
      g_assert_true (bg_loop_flush (loop, -1, NULL, NULL));
      util_wait_until_asleep (loop);
    }
  g_assert_true (bg_loop_post (loop, destroy_shared_cb, self, NULL));
  util_latch_wait (&second);
  g_source_unref (kept);
  util_loop_shut_down (loop);
  g_assert_true (util_latch_is_open (&first));
  util_latch_clear (&first);
  util_latch_clear (&second);
}

/* Many threads attach, destroy and drop at the same time. */

typedef struct
{
  BgLoop *loop;
  UtilLatch finalized;
} Many;

static gpointer
many_thread (gpointer data)
{
  Many *self = data;

  for (guint i = 0; i < util_scale (500); i++)
    {
      GSource *source
          = attach (self->loop, &self->finalized, i % 2 ? util_remove_cb : util_continue_cb);

      if (i % 3 == 0)
        g_thread_yield ();
      destroy (self->loop, source, i % 2 ? BY_ITSELF : HERE);
    }
  return NULL;
}

static void
test_many_threads (BgTestFixture *fixture, gconstpointer data)
{
  Many self = { fixture->loop };

  util_latch_init (&self.finalized, 6 * util_scale (500));
  util_run_threads (6, many_thread, &self);
  g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
  util_latch_wait (&self.finalized);
  util_latch_clear (&self.finalized);
}

/* Sockets, which only their source has: they are closed while the loop goes on. */

static gboolean
hung_up_cb (GSocket *socket, GIOCondition condition, gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

/* Its peer's end; without a @handle the source is left to itself. */
static int
attach_socket (BgLoop *loop, GSource **handle)
{
  g_autoptr (GSocket) socket = NULL;
  g_autoptr (GSource) source = NULL;
  int fds[2];

  g_assert_no_errno (socketpair (AF_UNIX, SOCK_STREAM, 0, fds));
  socket = g_socket_new_from_fd (fds[0], NULL);
  g_assert_nonnull (socket);
  source = g_socket_create_source (socket, G_IO_IN, NULL);
  g_source_set_callback (source, G_SOURCE_FUNC (hung_up_cb), NULL, NULL);
  g_assert_true (bg_loop_attach (loop, source));
  if (handle != NULL)
    *handle = g_steal_pointer (&source);
  return fds[1];
}

static void
assert_closed_by_peer (int fd)
{
  char byte;

  if (read (fd, &byte, 1) != 0)
    g_assert_cmpint (errno, ==, ECONNRESET);
  close (fd);
}

static void
test_sockets (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  guint n = util_scale (400), n_fds = util_count_fds ();
  g_autofree int *peers = g_new (int, n);

  for (guint round = 0; round < 3; round++)
    {
      for (guint i = 0; i < n; i++)
        peers[i] = attach_socket (loop, NULL);
      for (guint i = 0; i < n; i++)
        {
          /* Then it is readable, which ends it. */
          g_assert_cmpint (write (peers[i], "x", 1), ==, 1);
          assert_closed_by_peer (peers[i]);
        }
      g_assert_cmpuint (util_count_fds (), ==, n_fds);
    }
}

static void
test_sockets_elsewhere (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  guint n_fds = util_count_fds ();

  for (guint i = 0; i < util_scale (200); i++)
    {
      GSource *source;
      int peer = attach_socket (loop, &source);

      destroy (loop, source, i % 2 ? BY_A_THREAD : HERE);
      assert_closed_by_peer (peer);
      g_assert_cmpuint (util_count_fds (), ==, n_fds);
    }
}

/* Refused: it is as it was, and may be attached elsewhere. */
static void
test_refused (void)
{
  BgLoop *loop = util_loop_new ("refused"), *other = util_loop_new ("other");
  UtilLatch finalized;
  GSource *source;

  util_latch_init (&finalized, 1);
  source = watched_new (&finalized, util_remove_cb);
  g_assert_true (bg_loop_shutdown (loop, NULL));
  g_assert_false (bg_loop_attach (loop, source));
  g_assert_null (g_source_get_context (source));
  g_assert_false (g_source_is_destroyed (source));
  g_assert_cmpuint (source->ref_count, ==, 1);
  g_assert_true (bg_loop_attach (other, source));
  destroy (other, source, BY_ITSELF);
  util_latch_wait (&finalized);
  util_loop_end (loop);
  util_loop_end (other);
  util_latch_clear (&finalized);
}

/* What goes iterates the context, where others go meanwhile. */

static void
iterating_finalize (GSource *source)
{
  for (guint i = 0; i < 3; i++)
    g_main_context_iteration (g_main_context_get_thread_default (), FALSE);
  util_latch_count_down (((Watched *) source)->finalized);
}

static GSourceFuncs iterating_funcs
    = { .dispatch = watched_dispatch, .finalize = iterating_finalize };

#define N_ITERATING 40

static void
test_iterating (BgTestFixture *fixture, gconstpointer data)
{
  BgLoop *loop = fixture->loop;
  UtilLatch finalized;
  UtilBlock block;

  util_latch_init (&finalized, N_ITERATING);
  util_block (&block, loop);
  for (guint i = 0; i < N_ITERATING; i++)
    {
      GSource *source = g_source_new (&iterating_funcs, sizeof (Watched));

      ((Watched *) source)->finalized = &finalized;
      g_source_set_callback (source, util_remove_cb, NULL, NULL);
      g_source_set_ready_time (source, 0);
      g_assert_true (bg_loop_attach (loop, source));
      g_source_unref (source);
    }
  util_unblock (&block);
  util_latch_wait (&finalized);
  util_block_clear (&block);
  util_latch_clear (&finalized);
}

/* What a source runs as it goes is on the loop, which is about to sleep: it does not. */

typedef struct
{
  GSource source;
  void (*func) (gpointer data);
  gpointer data;
} Last;

static gboolean
last_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

static void
last_finalize (GSource *source)
{
  ((Last *) source)->func (((Last *) source)->data);
}

static GSourceFuncs last_funcs = { .dispatch = last_dispatch, .finalize = last_finalize };

/* On the loop, so that nobody has the source when it goes */
static gboolean
attach_last_cb (gpointer user_data, GError **error)
{
  g_autoptr (GSource) source = user_data;
  g_autoptr (BgLoop) loop = bg_loop_dup_current ();

  return bg_loop_attach (loop, source);
}

/* A source of @loop that is dispatched once, and calls @func as it goes. */
static void
attach_last (BgLoop *loop, void (*func) (gpointer data), gpointer data)
{
  GSource *source = g_source_new (&last_funcs, sizeof (Last));

  ((Last *) source)->func = func;
  ((Last *) source)->data = data;
  /* Later, so that what wakes the loop now does not wake it then. */
  g_source_set_ready_time (source, g_get_monotonic_time () + G_TIME_SPAN_MILLISECOND);
  g_assert_true (bg_loop_call (loop, attach_last_cb, source, NULL, NULL));
}

typedef struct
{
  BgLoop *loop;
  BgLoop *other;
  BgLoop *ended;
  UtilLatch done;
  gboolean directly;
} Attaching;

static void
attach_another (gpointer user_data)
{
  Attaching *self = user_data;
  g_autoptr (GSource) source = g_idle_source_new ();

  g_source_set_callback (source, util_count_down_source_cb, &self->done, NULL);
  if (self->directly)
    g_source_attach (source, bg_loop_get_context (self->loop));
  else
    g_assert_true (bg_loop_attach (self->loop, source));
}

static void
test_finalizer_attaches (void)
{
  for (guint i = 0; i < 4; i++)
    {
      Attaching self = { .loop = util_loop_new ("attaches"), .directly = i % 2 };

      util_latch_init (&self.done, 1);
      attach_last (self.loop, attach_another, &self);
      util_latch_wait (&self.done);
      util_latch_clear (&self.done);
      util_loop_end (self.loop);
    }
}

/* It may iterate the context, which polls more than it did before. */

#define MORE_FDS 40

static void
iterate_with_more_fds (gpointer user_data)
{
  Attaching *self = user_data;
  GMainContext *context = bg_loop_get_context (self->loop);
  GSource *sources[MORE_FDS];
  int fds[2 + MORE_FDS];

  g_assert_cmpint (pipe (fds), ==, 0);
  for (guint i = 0; i < MORE_FDS; i++)
    {
      fds[2 + i] = dup (fds[0]);
      sources[i] = g_unix_fd_source_new (fds[2 + i], G_IO_IN);
      g_source_attach (sources[i], context);
    }
  g_main_context_iteration (context, FALSE);
  for (guint i = 0; i < MORE_FDS; i++)
    {
      g_source_destroy (sources[i]);
      g_source_unref (sources[i]);
    }
  for (guint i = 0; i < G_N_ELEMENTS (fds); i++)
    g_close (fds[i], NULL);
  util_latch_count_down (&self->done);
}

static void
test_finalizer_iterates (void)
{
  for (guint i = 0; i < 4; i++)
    {
      Attaching self = { .loop = util_loop_new ("iterates") };

      util_latch_init (&self.done, 1);
      attach_last (self.loop, iterate_with_more_fds, &self);
      util_latch_wait (&self.done);
      g_assert_true (bg_loop_call (self.loop, util_true_cb, NULL, NULL, NULL));
      util_latch_clear (&self.done);
      util_loop_end (self.loop);
    }
}

/* Nobody else asks it to end. */
static void
test_finalizer_quits (void)
{
  for (guint i = 0; i < 4; i++)
    {
      BgLoop *loop = util_loop_new ("quits");

      attach_last (loop, i % 2 ? util_quit_cancel_cb : util_quit_cb, loop);
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      g_assert_finalize_object (loop);
    }
}

typedef struct
{
  BgLoop *loop;
  UtilLatch attached;
  UtilLatch dropped;
} Dropping;

static void
drop_attached (gpointer user_data)
{
  Dropping *self = user_data;

  util_latch_wait (&self->attached);
  g_object_unref (self->loop);
  util_latch_count_down (&self->dropped);
}

static void
test_finalizer_drops (void)
{
  guint threads;

  util_loop_end (util_loop_new (NULL));
  threads = util_count_threads ();
  for (guint i = 0; i < 4; i++)
    {
      Dropping self = { .loop = util_loop_new ("drops") };

      util_latch_init (&self.attached, 1);
      util_latch_init (&self.dropped, 1);
      attach_last (self.loop, drop_attached, &self);
      util_latch_count_down (&self.attached);
      util_latch_wait (&self.dropped);
      util_wait_for_threads (threads);
      util_latch_clear (&self.attached);
      util_latch_clear (&self.dropped);
    }
}

/* The same in the prepare of a source, wherever among the others it stands. */

typedef struct
{
  GSource source;
  void (*func) (gpointer data);
  gpointer data;
  guint n_left; /* iterations until it calls it: by then nothing that has woken the loop is left */
} Preparing;

static gboolean
preparing_prepare (GSource *source, int *timeout)
{
  Preparing *self = (Preparing *) source;

  *timeout = self->n_left > 1 ? 1 : -1;
  if (self->n_left > 0 && --self->n_left == 0)
    self->func (self->data);
  return FALSE;
}

static GSourceFuncs preparing_funcs = { .prepare = preparing_prepare, .dispatch = last_dispatch };

/* On the loop, where it is prepared */
static gboolean
attach_preparing_cb (gpointer user_data, GError **error)
{
  ((Preparing *) user_data)->n_left = 5;
  return attach_last_cb (user_data, error);
}

/* Calls @func in a prepare of a source of @priority. */
static void
prepare_once (BgLoop *loop, int priority, void (*func) (gpointer data), gpointer data)
{
  GSource *source = g_source_new (&preparing_funcs, sizeof (Preparing));
  Preparing *self = (Preparing *) source;

  self->func = func;
  self->data = data;
  g_source_set_priority (source, priority);
  g_assert_true (bg_loop_call (loop, attach_preparing_cb, source, NULL, NULL));
}

static void
post_urgently (gpointer user_data)
{
  Attaching *self = user_data;

  g_assert_true (bg_loop_post_full (self->loop, -200, util_count_down_cb, &self->done, NULL));
}

static void
post_later (gpointer user_data)
{
  Attaching *self = user_data;

  g_assert_cmpuint (bg_loop_post_after (self->loop, 1, util_count_down_cb, &self->done, NULL), !=,
                    0);
}

/* The limit of time is kept by the loop that asks. */
static void
wait_for_other (gpointer user_data)
{
  Attaching *self = user_data;

  bg_loop_wait_async (self->other, 5, NULL, util_count_down_reply_cb, &self->done);
}

static void
wait_for_ended (gpointer user_data)
{
  Attaching *self = user_data;

  bg_loop_wait_async (self->ended, -1, NULL, util_count_down_reply_cb, &self->done);
}

/* It is refused, and returns here. */
static void
run_task_on_ended (gpointer user_data)
{
  Attaching *self = user_data;
  g_autoptr (GTask) task = g_task_new (NULL, NULL, util_count_down_reply_cb, &self->done);

  bg_loop_run_task (self->ended, 0, task, util_no_task_cb);
}

static const int prepare_priorities[] = { -300, -50, 0, 300 };

static void
test_prepare_hands_over (void)
{
  static void (*const funcs[]) (gpointer)
      = { attach_another, post_urgently, post_later, wait_for_other, run_task_on_ended };
  BgLoop *other = util_loop_new ("other"), *ended = util_loop_new ("ended");

  g_assert_true (bg_loop_shutdown (ended, NULL));

  for (guint i = 0; i < G_N_ELEMENTS (prepare_priorities); i++)
    {
      for (guint j = 0; j < G_N_ELEMENTS (funcs); j++)
        {
          Attaching self = { util_loop_new ("prepares"), other, ended };

          util_latch_init (&self.done, 2);
          /* The first reply makes a source, which is seen. */
          g_assert_true (bg_loop_post (self.loop, wait_for_ended, &self, NULL));
          g_assert_true (bg_loop_flush (self.loop, -1, NULL, NULL));
          prepare_once (self.loop, prepare_priorities[i], funcs[j], &self);
          util_latch_wait (&self.done);
          util_latch_clear (&self.done);
          util_loop_end (self.loop);
        }
    }
  util_loop_end (other);
  util_loop_end (ended);
}

static void
test_prepare_quits (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (prepare_priorities); i++)
    {
      BgLoop *loop = util_loop_new ("quits");

      prepare_once (loop, prepare_priorities[i], i % 2 ? util_quit_cancel_cb : util_quit_cb, loop);
      g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
      g_assert_finalize_object (loop);
    }
}

static int
poll_of_others (GPollFD *fds, guint n_fds, int timeout_msec)
{
  return g_poll (fds, n_fds, timeout_msec);
}

/* The context is open to all: they may poll it with a function of their own. */
static void
test_prepare_quits_polled_by_others (void)
{
  BgLoop *loop = util_loop_new ("polled by others");

  g_main_context_set_poll_func (bg_loop_get_context (loop), poll_of_others);
  prepare_once (loop, 0, util_quit_cb, loop);
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  g_assert_finalize_object (loop);
}

/* Another thread asks for the end while an iteration that a finalizer runs between prepare and poll
 * is between its own: the outer poll is not to sleep. */

typedef struct
{
  GSource source;
  BgLoop *loop;
} Vanishing;

static gpointer
vanish_thread (gpointer source)
{
  g_source_destroy (source);
  g_source_unref (source);
  return NULL;
}

static gboolean
vanishing_prepare (GSource *source, int *timeout)
{
  *timeout = -1;
  g_thread_join (g_thread_new ("vanish", vanish_thread, source));
  return FALSE;
}

static gpointer
quit_thread (gpointer loop)
{
  bg_loop_quit (loop, BG_SHUTDOWN_DRAIN);
  return NULL;
}

static void
quit_elsewhere (gpointer loop)
{
  g_thread_join (g_thread_new ("quit", quit_thread, loop));
}

static void
vanishing_finalize (GSource *source)
{
  BgLoop *loop = ((Vanishing *) source)->loop;
  GSource *asks = g_source_new (&preparing_funcs, sizeof (Preparing));
  Preparing *preparing = (Preparing *) asks;

  preparing->func = quit_elsewhere;
  preparing->data = loop;
  preparing->n_left = 1;
  g_source_attach (asks, bg_loop_get_context (loop));
  g_source_unref (asks);
  g_assert_true (g_main_context_iteration (bg_loop_get_context (loop), FALSE));
}

static GSourceFuncs vanishing_funcs
    = { .prepare = vanishing_prepare, .dispatch = last_dispatch, .finalize = vanishing_finalize };

static void
vanish_cb (gpointer loop)
{
  GSource *source = g_source_new (&vanishing_funcs, sizeof (Vanishing));

  ((Vanishing *) source)->loop = loop;
  g_source_attach (source, bg_loop_get_context (loop));
}

static void
test_finalizer_hears_quit (void)
{
  g_autoptr (GSource) other = NULL;
  BgLoop *loop = util_loop_new ("hears");
  int fds[2];

  /* With a descriptor of others the iteration takes note of what has woken the context. */
  g_assert_true (g_unix_open_pipe (fds, FD_CLOEXEC, NULL));
  other = g_unix_fd_source_new (fds[0], G_IO_IN);
  g_assert_true (bg_loop_attach (loop, other));
  g_assert_true (bg_loop_post (loop, vanish_cb, loop, NULL));
  g_assert_true (bg_loop_wait (loop, -1, NULL, NULL));
  g_assert_finalize_object (loop);
  g_close (fds[0], NULL);
  g_close (fds[1], NULL);
}

int
main (int argc, char *argv[])
{
  util_init (&argc, &argv);

  /* What is wrong here would hang. */
  util_add_trapped ("/attach/gone/promptly", test_promptly);
  util_add_trapped_with_loop ("/attach/gone/kept-by-another-thread", test_kept);
  util_add_trapped_with_loop ("/attach/gone/kept-and-another", test_shared_anew);
  util_add_trapped_with_loop ("/attach/gone/many-threads", test_many_threads);
  util_add_trapped_with_loop ("/attach/gone/sockets-are-closed", test_sockets);
  util_add_trapped_with_loop ("/attach/gone/sockets-are-closed/elsewhere", test_sockets_elsewhere);
  util_add_trapped_with_loop ("/attach/gone/iterating", test_iterating);
  util_add_trapped ("/attach/finalizer/attaches", test_finalizer_attaches);
  util_add_trapped ("/attach/finalizer/iterates", test_finalizer_iterates);
  util_add_trapped ("/attach/finalizer/quits", test_finalizer_quits);
  util_add_trapped ("/attach/finalizer/drops-the-loop", test_finalizer_drops);
  util_add_trapped ("/attach/finalizer/hears-of-the-end", test_finalizer_hears_quit);
  util_add_trapped ("/attach/prepare/hands-over", test_prepare_hands_over);
  util_add_trapped ("/attach/prepare/quits", test_prepare_quits);
  util_add_trapped ("/attach/prepare/quits/polled-by-others", test_prepare_quits_polled_by_others);
  util_add_trapped ("/attach/refused", test_refused);

  return g_test_run ();
}
