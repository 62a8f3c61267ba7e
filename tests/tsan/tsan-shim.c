/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* Tells ThreadSanitizer what GLib does out of its sight.
 *
 * The distribution's GLib is not instrumented and builds its locks from futexes and atomics, so
 * that TSan reports races in correct programs. This file defines the functions of GLib through
 * which one thread hands something to another, as seen by the program and by libgobject and
 * libgio (libglib binds its own calls internally). Each calls the real one and says which order
 * it establishes: a release before the handing over, an acquire after the taking.
 *
 * Every program of a TSan build loads it ahead of GLib (see meson.build). It is not instrumented
 * itself: its own atomics must not look like synchronisation. An edge that GLib does not promise
 * is left out even where today's GLib would have it, since every edge too many hides races.
 * `control.c` checks both sides.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <glib-object.h>
#include <pthread.h>
#include <sanitizer/tsan_interface.h>

/* The functions below have macros of the same name. */
#undef g_object_unref
#undef g_once_init_enter
#undef g_once_init_leave
#undef g_timeout_add_seconds

#define EXPORT __attribute__ ((visibility ("default")))

/* The next definition of the function that this is used in. */
#define REAL(function)                                                                             \
  ((__typeof__ (&function)) real_function (G_STRINGIFY (function), &real_##function))
#define DEFINE_REAL(function) static gpointer real_##function;

extern void __tsan_init (void);

static int ready;

static gpointer
real_function (const char *name, gpointer *cache)
{
  gpointer function = __atomic_load_n (cache, __ATOMIC_RELAXED);

  if (function == NULL)
    {
      function = dlsym (RTLD_NEXT, name);
      __atomic_store_n (cache, function, __ATOMIC_RELAXED);
    }

  return function;
}

static void *
return_null (void *data)
{
  return NULL;
}

/* libgobject's constructor runs before there is a sanitizer to talk to. The sanitizer has a thread
 * of its own from the first pthread_create() on: better now than in a test that counts threads. */
__attribute__ ((constructor)) static void
become_ready (void)
{
  pthread_t thread;

  __tsan_init ();
  if (pthread_create (&thread, NULL, return_null, NULL) == 0)
    pthread_join (thread, NULL);
  __atomic_store_n (&ready, 1, __ATOMIC_RELEASE);
}

/* While this file uses GLib for itself: the locks that are taken then order nothing of the
 * program's. */
static __thread gboolean is_quiet;

static gboolean
is_speaking (void)
{
  return __atomic_load_n (&ready, __ATOMIC_ACQUIRE) && !is_quiet;
}

static void
acquire (const volatile void *address)
{
  if (is_speaking ())
    __tsan_acquire ((void *) address);
}

static void
release (const volatile void *address)
{
  if (is_speaking ())
    __tsan_release ((void *) address);
}

/* Locks. A condition adds nothing of its own: what it hands over is the mutex. */

DEFINE_REAL (g_mutex_lock)
EXPORT void
g_mutex_lock (GMutex *mutex)
{
  REAL (g_mutex_lock) (mutex);
  acquire (mutex);
}

DEFINE_REAL (g_mutex_trylock)
EXPORT gboolean
g_mutex_trylock (GMutex *mutex)
{
  gboolean locked = REAL (g_mutex_trylock) (mutex);

  if (locked)
    acquire (mutex);

  return locked;
}

DEFINE_REAL (g_mutex_unlock)
EXPORT void
g_mutex_unlock (GMutex *mutex)
{
  release (mutex);
  REAL (g_mutex_unlock) (mutex);
}

DEFINE_REAL (g_cond_wait)
EXPORT void
g_cond_wait (GCond *cond, GMutex *mutex)
{
  release (mutex);
  REAL (g_cond_wait) (cond, mutex);
  acquire (mutex);
}

DEFINE_REAL (g_cond_wait_until)
EXPORT gboolean
g_cond_wait_until (GCond *cond, GMutex *mutex, gint64 end_time)
{
  gboolean signalled;

  release (mutex);
  signalled = REAL (g_cond_wait_until) (cond, mutex, end_time);
  acquire (mutex);

  return signalled;
}

DEFINE_REAL (g_rec_mutex_lock)
EXPORT void
g_rec_mutex_lock (GRecMutex *mutex)
{
  REAL (g_rec_mutex_lock) (mutex);
  acquire (mutex);
}

DEFINE_REAL (g_rec_mutex_trylock)
EXPORT gboolean
g_rec_mutex_trylock (GRecMutex *mutex)
{
  gboolean locked = REAL (g_rec_mutex_trylock) (mutex);

  if (locked)
    acquire (mutex);

  return locked;
}

DEFINE_REAL (g_rec_mutex_unlock)
EXPORT void
g_rec_mutex_unlock (GRecMutex *mutex)
{
  release (mutex);
  REAL (g_rec_mutex_unlock) (mutex);
}

/* Readers come after writers and writers after readers, but readers not after readers. */
#define READERS(lock) (&(lock)->i)

DEFINE_REAL (g_rw_lock_writer_lock)
EXPORT void
g_rw_lock_writer_lock (GRWLock *lock)
{
  REAL (g_rw_lock_writer_lock) (lock);
  acquire (lock);
  acquire (READERS (lock));
}

DEFINE_REAL (g_rw_lock_writer_trylock)
EXPORT gboolean
g_rw_lock_writer_trylock (GRWLock *lock)
{
  gboolean locked = REAL (g_rw_lock_writer_trylock) (lock);

  if (locked)
    {
      acquire (lock);
      acquire (READERS (lock));
    }

  return locked;
}

DEFINE_REAL (g_rw_lock_writer_unlock)
EXPORT void
g_rw_lock_writer_unlock (GRWLock *lock)
{
  release (lock);
  REAL (g_rw_lock_writer_unlock) (lock);
}

DEFINE_REAL (g_rw_lock_reader_lock)
EXPORT void
g_rw_lock_reader_lock (GRWLock *lock)
{
  REAL (g_rw_lock_reader_lock) (lock);
  acquire (lock);
}

DEFINE_REAL (g_rw_lock_reader_trylock)
EXPORT gboolean
g_rw_lock_reader_trylock (GRWLock *lock)
{
  gboolean locked = REAL (g_rw_lock_reader_trylock) (lock);

  if (locked)
    acquire (lock);

  return locked;
}

DEFINE_REAL (g_rw_lock_reader_unlock)
EXPORT void
g_rw_lock_reader_unlock (GRWLock *lock)
{
  release (READERS (lock));
  REAL (g_rw_lock_reader_unlock) (lock);
}

/* Once. The fast paths are atomic reads in the caller, which TSan sees. */

DEFINE_REAL (g_once_init_enter)
EXPORT
gboolean (g_once_init_enter) (volatile void *location)
{
  gboolean first = REAL (g_once_init_enter) (location);

  acquire (location);

  return first;
}

DEFINE_REAL (g_once_init_leave)
EXPORT void (g_once_init_leave) (volatile void *location, gsize result)
{
  release (location);
  REAL (g_once_init_leave) (location, result);
}

typedef struct
{
  GOnce *once;
  GThreadFunc func;
  gpointer arg;
} Once;

static gpointer
once_func (gpointer data)
{
  Once *self = data;
  gpointer retval = self->func (self->arg);

  release (&self->once->status);

  return retval;
}

DEFINE_REAL (g_once_impl)
EXPORT gpointer
g_once_impl (GOnce *once, GThreadFunc func, gpointer arg)
{
  Once self = { once, func, arg };
  gpointer retval = REAL (g_once_impl) (once, once_func, &self);

  acquire (&once->status);

  return retval;
}

/* Classes: what class_init did comes before every instance of the class or of one derived from it.
 * Types that libraries register by other functions, and instances that they make, are their own. */

static void
class_init (gpointer klass, gpointer class_data)
{
  ((GClassInitFunc) class_data) (klass, NULL);
  release (klass);
}

EXPORT GType
g_type_register_static_simple (GType parent_type,
                               const char *type_name,
                               guint class_size,
                               GClassInitFunc real_class_init,
                               guint instance_size,
                               GInstanceInitFunc instance_init,
                               GTypeFlags flags)
{
  GTypeInfo info = {
    .class_size = (guint16) class_size,
    .class_init = real_class_init != NULL ? class_init : NULL,
    .class_data = real_class_init,
    .instance_size = (guint16) instance_size,
    .instance_init = instance_init,
  };

  return g_type_register_static (parent_type, type_name, &info, flags);
}

EXPORT gpointer
g_object_new (GType object_type, const char *first_property_name, ...)
{
  gpointer object_class = g_type_class_ref (object_type);
  gpointer object;
  va_list args;

  for (gpointer klass = object_class; klass != NULL; klass = g_type_class_peek_parent (klass))
    acquire (klass);

  va_start (args, first_property_name);
  object = g_object_new_valist (object_type, first_property_name, args);
  va_end (args);
  g_type_class_unref (object_class);

  return object;
}

/* References: who drops the last one comes after everybody who dropped one before. */

DEFINE_REAL (g_atomic_ref_count_dec)
EXPORT
gboolean (g_atomic_ref_count_dec) (gatomicrefcount *arc)
{
  gboolean last;

  release (arc);
  last = REAL (g_atomic_ref_count_dec) (arc);
  if (last)
    acquire (arc);

  return last;
}

typedef struct
{
  GDestroyNotify clear_func;
} Box;

static __thread Box box;

static void
box_clear_func (gpointer mem_block)
{
  GDestroyNotify clear_func = box.clear_func;

  acquire (mem_block);
  if (clear_func != NULL)
    clear_func (mem_block);
}

DEFINE_REAL (g_atomic_rc_box_release_full)
EXPORT void
g_atomic_rc_box_release_full (gpointer mem_block, GDestroyNotify clear_func)
{
  Box outer = box;

  release (mem_block);
  box.clear_func = clear_func;
  REAL (g_atomic_rc_box_release_full) (mem_block, box_clear_func);
  box = outer;
}

/* GObject tells a toggle reference that it is the last one. (A flag of GObject's own, the same in
 * all versions.) */
static gboolean
has_toggle_reference (gpointer object)
{
  return (g_datalist_get_flags (&G_OBJECT (object)->qdata) & 1) != 0;
}

/* Only the last g_object_unref() may acquire, and it must do so before dispose and, as the object
 * may be taken up again meanwhile and dropped, before finalize. If it is kept by whoever took it
 * up, what dispose did comes before what follows. GLib asks nobody in between: so the object has,
 * from before its last g_object_unref(), a copy of its class with these two functions. (What a
 * class has by g_type_class_add_private() is not in there. Nothing in GLib has any.) */

typedef struct _Class Class;

struct _Class
{
  GObjectClass *copy;
  GObjectClass *real;
  Class *next;
};

static Class *all_classes;

static Class *
class_find (gconstpointer klass)
{
  Class *self = __atomic_load_n (&all_classes, __ATOMIC_ACQUIRE);

  while (self != NULL && self->copy != klass && self->real != klass)
    self = self->next;

  return self;
}

static void
object_dispose (GObject *object)
{
  const Class *klass = class_find (G_OBJECT_GET_CLASS (object));

  acquire (object);
  klass->real->dispose (object);
  release (object);
  release (&object->ref_count);
}

static void
object_finalize (GObject *object)
{
  const Class *klass = class_find (G_OBJECT_GET_CLASS (object));

  acquire (object);
  object->g_type_instance.g_class = (GTypeClass *) klass->real;
  klass->real->finalize (object);
}

/* NULL for a type of a loaded module, of whose size GType tells nothing. */
static Class *
class_new (GObjectClass *real)
{
  GTypeQuery query = { 0 };
  Class *self;

  is_quiet = TRUE;
  g_type_query (G_OBJECT_CLASS_TYPE (real), &query);
  is_quiet = FALSE;
  if (query.class_size == 0)
    return NULL;

  self = g_new (Class, 1);
  self->real = real;
  self->copy = g_memdup2 (real, query.class_size);
  self->copy->dispose = object_dispose;
  self->copy->finalize = object_finalize;

  /* Twice for one, where two threads come here at once, does no harm. */
  self->next = __atomic_load_n (&all_classes, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n (&all_classes, &self->next, self, FALSE, __ATOMIC_RELEASE,
                                       __ATOMIC_RELAXED))
    ;

  return self;
}

static void
watch_end (GObject *object)
{
  GObjectClass *real = G_OBJECT_GET_CLASS (object);
  Class *klass = class_find (real);

  if (klass == NULL)
    klass = class_new (real);
  if (klass == NULL)
    return;
  __atomic_store_n (&object->g_type_instance.g_class, (GTypeClass *) klass->copy, __ATOMIC_RELEASE);
}

/* All others are done here. Whoever finds that the number of references has fallen acquires that
 * number. */
DEFINE_REAL (g_object_unref)
EXPORT void
g_object_unref (gpointer object)
{
  if (G_IS_OBJECT (object))
    {
      guint *ref_count = (guint *) &G_OBJECT (object)->ref_count;
      guint old = __atomic_load_n (ref_count, __ATOMIC_RELAXED);

      release (object);
      release (ref_count);
      while (old > 1 && !has_toggle_reference (object))
        if (__atomic_compare_exchange_n (ref_count, &old, old - 1, FALSE, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
          return;
      watch_end (object);
    }

  REAL (g_object_unref) (object);
}

/* The last reference to a context destroys its sources, with all that they have, and whoever drops
 * it comes after everybody who dropped one before. Which is the last GLib does not say: but nothing
 * is called by any other. */

static __thread GMainContext *dropped_context;

static void
acquire_dropped_context (void)
{
  if (dropped_context != NULL)
    acquire (dropped_context);
}

static GMainContext *
begin_drop (GMainContext *context)
{
  GMainContext *outer = dropped_context;

  release (context);
  dropped_context = context;

  return outer;
}

DEFINE_REAL (g_main_context_unref)
EXPORT void
g_main_context_unref (GMainContext *context)
{
  GMainContext *outer = begin_drop (context);

  REAL (g_main_context_unref) (context);
  dropped_context = outer;
}

/* These drop a reference to their context by libglib's own calls. */

DEFINE_REAL (g_main_loop_unref)
EXPORT void
g_main_loop_unref (GMainLoop *loop)
{
  GMainContext *outer = begin_drop (g_main_loop_get_context (loop));

  REAL (g_main_loop_unref) (loop);
  dropped_context = outer;
}

DEFINE_REAL (g_main_context_pop_thread_default)
EXPORT void
g_main_context_pop_thread_default (GMainContext *context)
{
  GMainContext *outer = begin_drop (context != NULL ? context : g_main_context_default ());

  REAL (g_main_context_pop_thread_default) (context);
  dropped_context = outer;
}

/* Sources: everything before g_source_attach(), g_source_set_callback() and the like comes before
 * what the source does in its context. The functions of a source are wrapped in ones that acquire
 * it, and its callback is handed out by a function that does. */

typedef struct _Funcs Funcs;

struct _Funcs
{
  GSourceFuncs funcs; /* what the source sees; must be first */
  const GSourceFuncs *real;
  Funcs *next;
};

static Funcs *all_funcs;

static const GSourceFuncs *
source_real (GSource *source)
{
  acquire (source);
  acquire_dropped_context ();

  return ((const Funcs *) source->source_funcs)->real;
}

static gboolean
source_prepare (GSource *source, int *timeout)
{
  return source_real (source)->prepare (source, timeout);
}

static gboolean
source_check (GSource *source)
{
  return source_real (source)->check (source);
}

static gboolean
source_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  gboolean again = source_real (source)->dispatch (source, callback, user_data);

  release (source);

  return again;
}

static void
source_finalize (GSource *source)
{
  source_real (source)->finalize (source);
}

static Funcs *
funcs_get (const GSourceFuncs *real)
{
  Funcs *funcs;

  for (funcs = __atomic_load_n (&all_funcs, __ATOMIC_ACQUIRE); funcs != NULL; funcs = funcs->next)
    if (funcs->real == real)
      return funcs;

  /* Twice for one, where two threads come here at once, does no harm. */
  funcs = g_new0 (Funcs, 1);
  funcs->funcs = *real;
  funcs->funcs.prepare = real->prepare != NULL ? source_prepare : NULL;
  funcs->funcs.check = real->check != NULL ? source_check : NULL;
  funcs->funcs.dispatch = real->dispatch != NULL ? source_dispatch : NULL;
  funcs->funcs.finalize = real->finalize != NULL ? source_finalize : NULL;
  funcs->real = real;
  funcs->next = __atomic_load_n (&all_funcs, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n (&all_funcs, &funcs->next, funcs, FALSE, __ATOMIC_RELEASE,
                                       __ATOMIC_RELAXED))
    ;

  return funcs;
}

DEFINE_REAL (g_source_new)
EXPORT GSource *
g_source_new (GSourceFuncs *source_funcs, guint struct_size)
{
  return REAL (g_source_new) (&funcs_get (source_funcs)->funcs, struct_size);
}

/* Whoever looks for a source by its functions means what it gave to g_source_new(). */
DEFINE_REAL (g_main_context_find_source_by_funcs_user_data)
EXPORT GSource *
g_main_context_find_source_by_funcs_user_data (GMainContext *context,
                                               GSourceFuncs *source_funcs,
                                               gpointer user_data)
{
  GSource *source
      = REAL (g_main_context_find_source_by_funcs_user_data) (context, source_funcs, user_data);
  Funcs *funcs = __atomic_load_n (&all_funcs, __ATOMIC_ACQUIRE);

  for (; funcs != NULL && source == NULL; funcs = funcs->next)
    if (funcs->real == source_funcs)
      source = REAL (g_main_context_find_source_by_funcs_user_data) (context, &funcs->funcs,
                                                                     user_data);

  return source;
}

typedef struct
{
  gatomicrefcount ref_count;
  GSourceFunc func;
  gpointer data;
  GDestroyNotify notify;
} Callback;

static Callback *
callback_new (GSourceFunc func, gpointer data, GDestroyNotify notify)
{
  Callback *self = g_new0 (Callback, 1);

  g_atomic_ref_count_init (&self->ref_count);
  self->func = func;
  self->data = data;
  self->notify = notify;
  release (self);

  return self;
}

static void
callback_ref (gpointer data)
{
  Callback *self = data;

  g_atomic_ref_count_inc (&self->ref_count);
}

static void
callback_unref (gpointer data)
{
  Callback *self = data;

  if (!(g_atomic_ref_count_dec) (&self->ref_count))
    return;

  acquire (self);
  acquire_dropped_context ();
  if (self->notify != NULL)
    self->notify (self->data);
  g_free (self);
}

static void
callback_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  Callback *self = data;

  acquire (self);
  acquire (source);
  *func = self->func;
  *user_data = self->data;
}

static GSourceCallbackFuncs callback_funcs = { callback_ref, callback_unref, callback_get };

/* A callback of the program's own making: it is to hear of the context's end, too. */

typedef struct
{
  gatomicrefcount ref_count; /* of this; the program's is counted by its own functions */
  gpointer data;
  const GSourceCallbackFuncs *funcs;
} Indirect;

static void
indirect_ref (gpointer data)
{
  Indirect *self = data;

  self->funcs->ref (self->data);
  g_atomic_ref_count_inc (&self->ref_count);
}

static void
indirect_unref (gpointer data)
{
  Indirect *self = data;

  acquire_dropped_context ();
  self->funcs->unref (self->data);
  if ((g_atomic_ref_count_dec) (&self->ref_count))
    g_free (self);
}

static void
indirect_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  Indirect *self = data;

  acquire (source);
  self->funcs->get (self->data, source, func, user_data);
}

static GSourceCallbackFuncs indirect_funcs = { indirect_ref, indirect_unref, indirect_get };

DEFINE_REAL (g_source_set_callback_indirect)
EXPORT void
g_source_set_callback_indirect (GSource *source, gpointer data, GSourceCallbackFuncs *funcs)
{
  Indirect *self;

  release (source);
  if (funcs == NULL)
    {
      REAL (g_source_set_callback_indirect) (source, data, NULL);
      return;
    }

  self = g_new (Indirect, 1);
  g_atomic_ref_count_init (&self->ref_count);
  self->data = data;
  self->funcs = funcs;
  REAL (g_source_set_callback_indirect) (source, self, &indirect_funcs);
}

EXPORT void
g_source_set_callback (GSource *source, GSourceFunc func, gpointer data, GDestroyNotify notify)
{
  release (source);
  REAL (g_source_set_callback_indirect)
  (source, callback_new (func, data, notify), &callback_funcs);
}

DEFINE_REAL (g_source_attach)
EXPORT guint
g_source_attach (GSource *source, GMainContext *context)
{
  release (source);

  return REAL (g_source_attach) (source, context);
}

DEFINE_REAL (g_source_set_ready_time)
EXPORT void
g_source_set_ready_time (GSource *source, gint64 ready_time)
{
  release (source);
  REAL (g_source_set_ready_time) (source, ready_time);
}

DEFINE_REAL (g_source_destroy)
EXPORT void
g_source_destroy (GSource *source)
{
  release (source);
  REAL (g_source_destroy) (source);
}

DEFINE_REAL (g_source_unref)
EXPORT void
g_source_unref (GSource *source)
{
  release (source);
  REAL (g_source_unref) (source);
}

static guint
attach_new (GSource *source, int priority, GSourceFunc func, gpointer data, GDestroyNotify notify)
{
  guint id;

  g_source_set_priority (source, priority);
  g_source_set_callback (source, func, data, notify);
  id = g_source_attach (source, NULL);
  g_source_unref (source);

  return id;
}

EXPORT guint
g_idle_add_full (int priority, GSourceFunc func, gpointer data, GDestroyNotify notify)
{
  return attach_new (g_idle_source_new (), priority, func, data, notify);
}

EXPORT guint
g_idle_add (GSourceFunc func, gpointer data)
{
  return g_idle_add_full (G_PRIORITY_DEFAULT_IDLE, func, data, NULL);
}

EXPORT guint
g_timeout_add_full (int priority,
                    guint interval,
                    GSourceFunc func,
                    gpointer data,
                    GDestroyNotify notify)
{
  return attach_new (g_timeout_source_new (interval), priority, func, data, notify);
}

EXPORT guint
g_timeout_add (guint interval, GSourceFunc func, gpointer data)
{
  return g_timeout_add_full (G_PRIORITY_DEFAULT, interval, func, data, NULL);
}

EXPORT guint
g_timeout_add_seconds_full (int priority,
                            guint interval,
                            GSourceFunc func,
                            gpointer data,
                            GDestroyNotify notify)
{
  return attach_new (g_timeout_source_new_seconds (interval), priority, func, data, notify);
}

EXPORT guint
g_timeout_add_seconds (guint interval, GSourceFunc func, gpointer data)
{
  return g_timeout_add_seconds_full (G_PRIORITY_DEFAULT, interval, func, data, NULL);
}

/* As GLib does it, but with the functions above: whoever looks for the source of an invoked function
 * finds it by its data. */
EXPORT void
g_main_context_invoke_full (GMainContext *context,
                            int priority,
                            GSourceFunc function,
                            gpointer data,
                            GDestroyNotify notify)
{
  GMainContext *own = g_main_context_get_thread_default ();
  gboolean is_owner, is_acquired = FALSE;
  GSource *source;

  if (context == NULL)
    context = g_main_context_default ();
  if (own == NULL)
    own = g_main_context_default ();
  is_owner = g_main_context_is_owner (context);
  if (!is_owner && own == context)
    is_acquired = g_main_context_acquire (context);

  if (is_owner || is_acquired)
    {
      while (function (data))
        continue;
      if (is_acquired)
        g_main_context_release (context);
      if (notify != NULL)
        notify (data);
      return;
    }

  source = g_idle_source_new ();
  g_source_set_priority (source, priority);
  g_source_set_callback (source, function, data, notify);
  g_source_attach (source, context);
  g_source_unref (source);
}

EXPORT void
g_main_context_invoke (GMainContext *context, GSourceFunc function, gpointer data)
{
  g_main_context_invoke_full (context, G_PRIORITY_DEFAULT, function, data, NULL);
}

DEFINE_REAL (g_main_loop_run)
EXPORT void
g_main_loop_run (GMainLoop *loop)
{
  REAL (g_main_loop_run) (loop);
  acquire (loop);
}

DEFINE_REAL (g_main_loop_quit)
EXPORT void
g_main_loop_quit (GMainLoop *loop)
{
  release (loop);
  REAL (g_main_loop_quit) (loop);
}

/* Queues and pools */

DEFINE_REAL (g_async_queue_push)
EXPORT void
g_async_queue_push (GAsyncQueue *queue, gpointer data)
{
  release (queue);
  REAL (g_async_queue_push) (queue, data);
}

DEFINE_REAL (g_async_queue_pop)
EXPORT gpointer
g_async_queue_pop (GAsyncQueue *queue)
{
  gpointer data = REAL (g_async_queue_pop) (queue);

  acquire (queue);

  return data;
}

DEFINE_REAL (g_async_queue_try_pop)
EXPORT gpointer
g_async_queue_try_pop (GAsyncQueue *queue)
{
  gpointer data = REAL (g_async_queue_try_pop) (queue);

  if (data != NULL)
    acquire (queue);

  return data;
}

DEFINE_REAL (g_async_queue_timeout_pop)
EXPORT gpointer
g_async_queue_timeout_pop (GAsyncQueue *queue, guint64 timeout)
{
  gpointer data = REAL (g_async_queue_timeout_pop) (queue, timeout);

  if (data != NULL)
    acquire (queue);

  return data;
}

typedef struct
{
  GFunc func;
  gpointer user_data;
} Pool;

static void
pool_func (gpointer data, gpointer user_data)
{
  Pool *self = user_data;

  acquire (data);
  self->func (data, self->user_data);
}

DEFINE_REAL (g_thread_pool_new)
EXPORT GThreadPool *
g_thread_pool_new (GFunc func,
                   gpointer user_data,
                   int max_threads,
                   gboolean exclusive,
                   GError **error)
{
  Pool *self = g_new (Pool, 1); /* as long as the process: pools are few */

  self->func = func;
  self->user_data = user_data;

  return REAL (g_thread_pool_new) (pool_func, self, max_threads, exclusive, error);
}

DEFINE_REAL (g_thread_pool_push)
EXPORT gboolean
g_thread_pool_push (GThreadPool *pool, gpointer data, GError **error)
{
  release (data);

  return REAL (g_thread_pool_push) (pool, data, error);
}
