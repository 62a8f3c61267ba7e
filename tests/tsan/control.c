/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* What a ThreadSanitizer build must say nothing about, and what it must report.
 *
 * `control WAY` hands a counter to another thread and back, correctly. `control WAY race` goes the
 * same way, but counts once more between the handing over and the handing back, and waits there for
 * the other thread in a way that orders nothing: so the two race in every schedule.
 */

#include <bgloop/bgloop.h>

#include <string.h>

#define ROUNDS 100

typedef struct
{
  GMutex mutex;
  GCond cond;
  GQueue queue; /* under mutex */
  int done;     /* under mutex */
} Mailbox;

static gboolean racing;

/* Written by whoever it was handed to. */
static int counter;

/* How often the other thread has counted; relaxed, so that it orders nothing. */
static int seen;

static GMainLoop *main_loop;

static void
count_there (int *number)
{
  (*number)++;
  __atomic_fetch_add (&seen, 1, __ATOMIC_RELAXED);
}

static void
count_beside (int round)
{
  if (!racing)
    return;

  counter++;
  while (__atomic_load_n (&seen, __ATOMIC_RELAXED) <= round)
    g_thread_yield ();
}

static gpointer
mailbox_thread (gpointer data)
{
  Mailbox *mailbox = data;

  for (int i = 0; i < ROUNDS; i++)
    {
      int *number;

      g_mutex_lock (&mailbox->mutex);
      while (g_queue_is_empty (&mailbox->queue))
        g_cond_wait (&mailbox->cond, &mailbox->mutex);
      number = g_queue_pop_head (&mailbox->queue);
      g_mutex_unlock (&mailbox->mutex);

      count_there (number);

      g_mutex_lock (&mailbox->mutex);
      mailbox->done++;
      g_cond_signal (&mailbox->cond);
      g_mutex_unlock (&mailbox->mutex);
    }

  return NULL;
}

static void
by_mutex (void)
{
  Mailbox mailbox = { .queue = G_QUEUE_INIT };
  GThread *thread;

  g_mutex_init (&mailbox.mutex);
  g_cond_init (&mailbox.cond);
  thread = g_thread_new ("mailbox", mailbox_thread, &mailbox);

  for (int i = 0; i < ROUNDS; i++)
    {
      counter++;

      g_mutex_lock (&mailbox.mutex);
      g_queue_push_tail (&mailbox.queue, &counter);
      g_cond_signal (&mailbox.cond);
      g_mutex_unlock (&mailbox.mutex);

      count_beside (i);

      g_mutex_lock (&mailbox.mutex);
      while (mailbox.done <= i)
        g_cond_wait (&mailbox.cond, &mailbox.mutex);
      g_mutex_unlock (&mailbox.mutex);
    }

  g_thread_join (thread);
  g_mutex_clear (&mailbox.mutex);
  g_cond_clear (&mailbox.cond);
}

typedef struct
{
  GRecMutex mutex;
  int handed_over; /* under mutex */
  int handed_back; /* under mutex */
} Baton;

static void
baton_wait (Baton *self, const int *handed, int n)
{
  for (gboolean arrived = FALSE; !arrived;)
    {
      g_rec_mutex_lock (&self->mutex);
      g_rec_mutex_lock (&self->mutex);
      arrived = *handed >= n;
      g_rec_mutex_unlock (&self->mutex);
      g_rec_mutex_unlock (&self->mutex);
      if (!arrived)
        g_thread_yield ();
    }
}

static void
baton_hand (Baton *self, int *handed)
{
  g_rec_mutex_lock (&self->mutex);
  (*handed)++;
  g_rec_mutex_unlock (&self->mutex);
}

static gpointer
baton_thread (gpointer data)
{
  Baton *baton = data;

  for (int i = 0; i < ROUNDS; i++)
    {
      baton_wait (baton, &baton->handed_over, i + 1);
      count_there (&counter);
      baton_hand (baton, &baton->handed_back);
    }

  return NULL;
}

static void
by_recursive_mutex (void)
{
  Baton baton = { 0 };
  GThread *thread;

  g_rec_mutex_init (&baton.mutex);
  thread = g_thread_new ("baton", baton_thread, &baton);

  for (int i = 0; i < ROUNDS; i++)
    {
      counter++;
      baton_hand (&baton, &baton.handed_over);
      count_beside (i);
      baton_wait (&baton, &baton.handed_back, i + 1);
    }

  g_thread_join (thread);
  g_rec_mutex_clear (&baton.mutex);
}

static gpointer
context_thread (gpointer data)
{
  g_main_loop_run (data);

  return NULL;
}

static gboolean
count_cb (gpointer user_data)
{
  count_there (user_data);

  return G_SOURCE_REMOVE;
}

static gboolean
count_back_cb (gpointer user_data)
{
  counter++;
  g_main_loop_quit (main_loop);

  return G_SOURCE_REMOVE;
}

static void
reply_cb (gpointer user_data)
{
  counter++;
  g_idle_add (count_back_cb, NULL);
}

static void
by_source (void)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GMainLoop) loop = g_main_loop_new (context, FALSE);
  GThread *thread = g_thread_new ("context", context_thread, loop);

  main_loop = g_main_loop_new (NULL, FALSE);
  for (int i = 0; i < ROUNDS; i++)
    {
      counter++;
      g_main_context_invoke_full (context, G_PRIORITY_DEFAULT, count_cb, &counter, reply_cb);
      count_beside (i);
      g_main_loop_run (main_loop);
    }
  g_main_loop_unref (main_loop);

  g_main_loop_quit (loop);
  g_thread_join (thread);
}

/* The last reference runs the notify, on whichever thread it is. */
static void
count_notify (gpointer data)
{
  counter++;
}

static gpointer
drop_thread (gpointer data)
{
  g_object_unref (data);
  if (racing)
    counter++;

  return NULL;
}

static gpointer
count_and_drop_thread (gpointer data)
{
  counter++;
  return drop_thread (data);
}

static void
by_reference (void)
{
  for (int i = 0; i < ROUNDS; i++)
    {
      GObject *object = g_object_new (G_TYPE_OBJECT, NULL);
      GThread *thread;

      g_object_set_data_full (object, "count", object, count_notify);
      thread = g_thread_new ("drop", drop_thread, g_object_ref (object));
      counter++;
      g_object_unref (object);
      if (racing)
        counter++;
      g_thread_join (thread);
    }
}

/* Whoever is left alone with the object may use it as if it were new. */
static void
by_count (void)
{
  for (int i = 0; i < ROUNDS; i++)
    {
      g_autoptr (GObject) object = g_object_new (G_TYPE_OBJECT, NULL);
      GThread *thread = g_thread_new ("drop", count_and_drop_thread, g_object_ref (object));

      while (g_atomic_int_get ((int *) &object->ref_count) > 1)
        g_thread_yield ();
      counter++;
      g_thread_join (thread);
    }
}

/* The last reference to a context destroys its sources, with what they have. */

static void
no_ref (gpointer data)
{
}

static void
get_nothing (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  *func = NULL;
  *user_data = data;
}

static GSourceCallbackFuncs count_callback_funcs = { no_ref, count_notify, get_nothing };

static void
count_finalize (GSource *source)
{
  counter++;
}

static GSourceFuncs count_source_funcs = { .finalize = count_finalize };

/* How often the main thread has dropped its reference; relaxed, so that it orders nothing. */
static int dropped;

static gpointer
drop_context_thread (gpointer data)
{
  static int rounds;

  while (__atomic_load_n (&dropped, __ATOMIC_RELAXED) <= rounds)
    g_thread_yield ();
  rounds++;
  if (rounds % 2 == 0)
    g_main_context_unref (data);
  else
    g_main_loop_unref (data);

  return NULL;
}

static void
by_context (void)
{
  for (int i = 0; i < ROUNDS; i++)
    {
      GMainContext *context = g_main_context_new ();
      gpointer last = context;
      GSource *source;
      GThread *thread;

      source = g_idle_source_new ();
      g_source_set_callback (source, count_cb, NULL, count_notify);
      g_source_attach (source, context);
      g_source_unref (source);
      source = g_source_new (&count_source_funcs, sizeof (GSource));
      g_source_set_callback_indirect (source, source, &count_callback_funcs);
      g_source_attach (source, context);
      g_source_unref (source);

      /* A loop's last reference drops the context's. */
      if (i % 2 == 0)
        last = g_main_loop_new (context, FALSE);
      else
        g_main_context_ref (context);
      thread = g_thread_new ("drop", drop_context_thread, last);
      counter++;
      g_main_context_unref (context);
      if (racing)
        counter++;
      __atomic_fetch_add (&dropped, 1, __ATOMIC_RELAXED);
      g_thread_join (thread);
    }
}

/* An object that is taken up again while its last reference goes: by somebody who knows of it by
 * a pointer without a reference, which it takes back when it is disposed of. */

typedef struct
{
  GObject parent_instance;
} Known;

typedef GObjectClass KnownClass;

static GMutex known_mutex;
static GObject *known; /* under known_mutex */
static int disposing;  /* atomic and relaxed, as all below */
static int taken;
static gboolean is_kept; /* by whoever has taken it, until the other thread is done */

GType known_get_type (void);

G_DEFINE_TYPE (Known, known, G_TYPE_OBJECT)

static void
known_dispose (GObject *object)
{
  gboolean first;

  if (__atomic_fetch_add (&disposing, 1, __ATOMIC_RELAXED) == 0)
    while (__atomic_load_n (&taken, __ATOMIC_RELAXED) == 0)
      g_thread_yield ();

  g_mutex_lock (&known_mutex);
  first = known != NULL;
  known = NULL;
  g_mutex_unlock (&known_mutex);

  G_OBJECT_CLASS (known_parent_class)->dispose (object);
  if (first && is_kept)
    counter++;
}

static void
known_finalize (GObject *object)
{
  counter++;

  G_OBJECT_CLASS (known_parent_class)->finalize (object);
}

static void
known_class_init (KnownClass *klass)
{
  klass->dispose = known_dispose;
  klass->finalize = known_finalize;
}

static void
known_init (Known *self)
{
}

static gpointer
take_up_thread (gpointer data)
{
  GObject *object;

  while (__atomic_load_n (&disposing, __ATOMIC_RELAXED) == 0)
    g_thread_yield ();

  g_mutex_lock (&known_mutex);
  object = g_object_ref (known);
  g_mutex_unlock (&known_mutex);

  if (!is_kept)
    {
      counter++;
      g_object_unref (object);
      if (racing)
        counter++;
    }
  __atomic_store_n (&taken, 1, __ATOMIC_RELAXED);

  if (is_kept)
    {
      while (__atomic_load_n (&dropped, __ATOMIC_RELAXED) == 0)
        g_thread_yield ();
      g_object_unref (object);
    }

  return NULL;
}

static void
by_revival (void)
{
  for (int i = 0; i < ROUNDS; i++)
    {
      GObject *object = g_object_new (known_get_type (), NULL);
      GThread *thread;

      counter++;
      disposing = taken = dropped = 0;
      is_kept = i % 2 == 1;
      known = object;
      thread = g_thread_new ("take up", take_up_thread, NULL);
      g_object_unref (object);
      if (racing && is_kept)
        counter++;
      __atomic_store_n (&dropped, 1, __ATOMIC_RELAXED);
      g_thread_join (thread);
    }
}

/* The thread that makes the first instance initialises the class, for all others. */
static void
count_class_init (gpointer klass, gpointer class_data)
{
  counter++;
}

static gpointer
first_instance_thread (gpointer data)
{
  GObject *object = g_object_new (GPOINTER_TO_SIZE (data), NULL);

  if (racing)
    counter++;
  __atomic_fetch_add (&seen, 1, __ATOMIC_RELAXED);

  return object;
}

static void
by_class (void)
{
  for (int i = 0; i < ROUNDS; i++)
    {
      g_autofree char *name = g_strdup_printf ("Counted%d", i);
      GType type = g_type_register_static_simple (G_TYPE_OBJECT, name, sizeof (GObjectClass),
                                                  count_class_init, sizeof (GObject), NULL,
                                                  G_TYPE_FLAG_NONE);
      GThread *thread = g_thread_new ("first", first_instance_thread, GSIZE_TO_POINTER (type));

      while (__atomic_load_n (&seen, __ATOMIC_RELAXED) <= i)
        g_thread_yield ();
      g_object_unref (g_object_new (type, NULL));
      counter++;
      g_object_unref (g_thread_join (thread));
    }
}

static void
post_cb (gpointer user_data)
{
  count_there (user_data);
}

static gboolean
call_cb (gpointer user_data, GError **error)
{
  int *number = user_data;

  (*number)++;

  return TRUE;
}

static void
by_loop (void)
{
  g_autoptr (BgLoop) loop = bg_loop_new ("control", NULL);

  for (int i = 0; i < ROUNDS; i++)
    {
      counter++;
      bg_loop_post (loop, post_cb, &counter, count_notify);
      count_beside (i);
      bg_loop_call (loop, call_cb, &counter, NULL, NULL);
    }

  bg_loop_shutdown (loop, NULL);
  counter++;
}

int
main (int argc, char **argv)
{
  static const struct
  {
    const char *name;
    void (*func) (void);
  } ways[] = {
    { "mutex", by_mutex },     { "recursive-mutex", by_recursive_mutex },
    { "source", by_source },   { "reference", by_reference },
    { "count", by_count },     { "class", by_class },
    { "context", by_context }, { "revival", by_revival },
    { "loop", by_loop },
  };

  racing = argc > 2 && strcmp (argv[2], "race") == 0;
  for (guint i = 0; i < G_N_ELEMENTS (ways); i++)
    if (argc > 1 && strcmp (argv[1], ways[i].name) == 0)
      {
        ways[i].func ();
        return 0;
      }

  g_printerr ("Usage: control "
              "mutex|recursive-mutex|source|reference|count|class|context|revival|loop [race]\n");

  return 2;
}
