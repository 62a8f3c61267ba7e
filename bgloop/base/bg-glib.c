/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "config.h"

#include <bgloop/base/bg-text-private.h>

#include <errno.h>
#include <string.h>
#if HAVE_EVENTFD
#include <sys/eventfd.h>
#endif
#if HAVE_PROCESS_VM_READV
#include <sys/uio.h>
#endif
#if HAVE_UNISTD_H
#include <unistd.h>
#endif

#include <bgloop/base/bg-fork-private.h>
#include <bgloop/base/bg-glib-private.h>
#include <bgloop/base/bg-spin-private.h>
#include <bgloop/base/bg-symbol-private.h>

/* All that relies on what GLib does not promise, and with which versions it was
 * seen to hold: 2.74 to 2.87. Where it does not hold nothing breaks but what is
 * named at each part. Any thread, unless a function says otherwise; there is no lock here but
 * GLib's own of a context, under which probe_get() looks at its sources. */

/* How often to let others run until a thread in the midst of g_object_unref() is done. */
#define DISPOSAL_YIELDS 10000

/* Whether an object can be used again, as if it were new: besides the caller's
 * @n_refs references nobody has one, nor has anybody what one could be had from, or
 * anything stored with it. (GObject's public fields, the same in all versions.) */
gboolean
bg_glib_is_unshared (gpointer object, int n_refs)
{
  GObject *self = object;

  /* The second look at the references is for a weak one that became a strong one. */
  return g_atomic_int_get ((int *) &self->ref_count) == n_refs
         && g_atomic_pointer_get (&self->qdata) == NULL
         && g_atomic_int_get ((int *) &self->ref_count) == n_refs;
}

/* Whether nobody but the caller refers to a source or an object. (Public fields.) */
gboolean
bg_glib_source_is_unshared (GSource *source)
{
  return g_atomic_int_get ((int *) &source->ref_count) == 1;
}

/* g_source_attach() does not wake a context that the calling thread owns, as if that thread were
 * always about to prepare the context again. In the prepare of a source, which may come after the
 * new source's place, and between prepare and poll it is not: the context would sleep although the
 * new source is ready. */
void
bg_glib_attach_source (GSource *source, GMainContext *context)
{
  g_source_attach (source, context);
  if (g_main_context_is_owner (context))
    g_main_context_wakeup (context);
}

/* Sources that others destroy
 *
 * A source of the library's is its own callback: when somebody has destroyed the source, or given
 * it another callback, GLib lets go of this one, and the library puts another source in its
 * place. (Public fields.) */

/* Returns what GLib has of the callback as long as it has not let go of it. */
gpointer
bg_glib_set_own_callback (GSource *source, GSourceCallbackFuncs *funcs)
{
  g_source_set_callback_indirect (source, source, funcs);
  return source->callback_data;
}

/* By this the thread that iterates a context puts a source in the place of one that somebody else
 * has destroyed, or given another callback. */
typedef struct
{
  GSource source;
  GSource *replaced; /* (owned) */
  BgReplaceFunc replace;
  GDestroyNotify release;
} BgReplacement;

static gboolean
replacement_prepare (GSource *source, int *timeout)
{
  *timeout = 0;
  return TRUE;
}

static gboolean
replacement_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  BgReplacement *self = (BgReplacement *) source;

  self->replace (self->replaced, TRUE);
  return G_SOURCE_REMOVE;
}

static void
replacement_finalize (GSource *source)
{
  BgReplacement *self = (BgReplacement *) source;

  self->release (self->replaced);
  g_source_unref (self->replaced);
}

static GSourceFuncs replacement_funcs = {
  .prepare = replacement_prepare,
  .dispatch = replacement_dispatch,
  .finalize = replacement_finalize,
};

static void
replace_later (GSource *source,
               GMainContext *context,
               BgReplaceFunc replace,
               GDestroyNotify release)
{
  GSource *other = g_source_new (&replacement_funcs, sizeof (BgReplacement));
  BgReplacement *self = (BgReplacement *) other;

  self->replaced = g_source_ref (source);
  self->replace = replace;
  self->release = release;
  g_source_set_static_name (other, "bgloop replacement");
  g_source_set_priority (other, source->priority);
  g_source_attach (other, context);
  g_source_unref (other);
}

/* For the unref() of such a callback: calls @release, which gives back one reference to the
 * callback. If GLib has let go of the callback, and the source's context is not going, @replace is
 * called before that. Both are called at once if this thread has the context, and otherwise by the
 * thread that iterates it next: to acquire a context that nobody has, for a moment, could keep
 * somebody else from acquiring it. */
void
bg_glib_release_callback (GSource *source,
                          gpointer callback,
                          BgReplaceFunc replace,
                          GDestroyNotify release)
{
  GMainContext *context = source->context;

  if (G_LIKELY (source->callback_data == callback) || context == NULL)
    {
      release (source);
    }
  else if (g_main_context_is_owner (context))
    {
      replace (source, FALSE);
      release (source);
    }
  else
    {
      replace_later (source, context, replace, release);
    }
}

/* Since 2.85 g_source_get_id() is an error for a source that another thread has just
 * destroyed. (A public field.) */
guint
bg_glib_get_source_id (GSource *source)
{
  return source->source_id;
}

gboolean
bg_glib_is_referenced_once (gpointer object)
{
  return g_atomic_int_get ((int *) &((GObject *) object)->ref_count) == 1;
}

/* After an object was given another reference while it was disposed of: waits until the
 * thread that disposes of it has let go. Before GLib 2.80 that still thaws the queue of
 * its notifications, although it has given its reference back. */
void
bg_glib_wait_for_disposal (gpointer object)
{
  GQuark queue = g_quark_try_string ("GObject-notify-queue");

  for (guint i = 0; queue != 0 && i < DISPOSAL_YIELDS; i++)
    {
      if (g_object_get_qdata (object, queue) == NULL)
        return;
      bg_yield ();
    }
}

/* References to a context
 *
 * Where in a context its count of references is: found by what three references
 * more, and then four more, change in a new one that nobody else has. If it is not
 * found, a context that GIO still uses when its loop has ended may leak. */

#define REF_COUNT_WORDS 16

enum
{
  UNKNOWN = -1,
  NOT_FOUND = -2,
};

static int ref_count_word = UNKNOWN; /* atomic */

static void
find_ref_count (GMainContext *context)
{
  int words[3][REF_COUNT_WORDS];
  int n_refs[3] = { 0, 3, 7 };
  int found = NOT_FOUND, n_found = 0, n = 0;

  for (guint i = 0; i < G_N_ELEMENTS (n_refs); i++)
    {
      for (; n < n_refs[i]; n++)
        g_main_context_ref (context);
      memcpy (words[i], context, sizeof words[i]);
    }
  for (; n > 0; n--)
    g_main_context_unref (context);

  for (int i = 0; i < REF_COUNT_WORDS; i++)
    {
      if (words[0][i] == 1 && words[1][i] == 4 && words[2][i] == 8)
        {
          found = i;
          n_found++;
        }
    }

  g_atomic_int_set (&ref_count_word, n_found == 1 ? found : NOT_FOUND);
}

/* Whether nobody but the caller refers to the context. */
gboolean
bg_glib_context_is_unshared (GMainContext *context)
{
  int word = g_atomic_int_get (&ref_count_word);

  return word < 0 || g_atomic_int_get ((int *) context + word) == 1;
}

/* Making a context */

/* GLib aborts where it cannot have the descriptor that a context is woken with. */
static gboolean
check_descriptors (GError **error)
{
#if HAVE_EVENTFD
  int fd = eventfd (0, EFD_CLOEXEC);
#elif HAVE_UNISTD_H
  int fd = dup (STDERR_FILENO);
#else
  int fd = 0;
#endif

  if (fd < 0)
    {
      int code = errno;

      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code),
                   _ ("No descriptor for a main context: %s"), g_strerror (code));
      return FALSE;
    }

#if HAVE_UNISTD_H
  close (fd);
#endif
  return TRUE;
}

/* A new context; fails where there is no descriptor to be had. (Another thread may
 * still take the last one in between, and then GLib aborts.) */
GMainContext *
bg_glib_context_new (GError **error)
{
  static int has_default; /* atomic */
  GMainContext *context;

  if (!check_descriptors (error))
    return NULL;

  /* It has a descriptor, too, and a thread that pushes another context makes it. */
  if (!g_atomic_int_get (&has_default))
    {
      g_main_context_default ();
      g_atomic_int_set (&has_default, TRUE);
      if (!check_descriptors (error))
        return NULL;
    }

  context = g_main_context_new ();
  if (G_UNLIKELY (g_atomic_int_get (&ref_count_word) == UNKNOWN))
    find_ref_count (context);
  return context;
}

/* The descriptor that wakes a context which has no other; -1 if it cannot be told. On the thread
 * that owns the context. */
int
bg_glib_get_wakeup_fd (GMainContext *context)
{
  GPollFD fd = { .fd = -1 };
  int timeout;

  if (g_main_context_query (context, G_MAXINT, &timeout, &fd, 1) == 1)
    return (int) fd.fd;
  return -1;
}

/* The sources of a context
 *
 * GLib has no call for them. It does call a source's GSourceCallbackFuncs.get under
 * the context's lock, where no source can come or go, and links the sources of one
 * priority by their public fields. So a probe that is moved from priority to
 * priority finds them, and refers to them safely whatever other threads do.
 *
 * What other priorities there are the sources themselves tell: ids are given in order,
 * and so the latest are asked for. A source that is found so may be freed by another
 * thread at once. So its priority is read by the system, which looks whether there is
 * memory, and is only where to probe next. Elsewhere than on Linux sources of a priority
 * that nobody knows of are not found; nothing is done to them, and they go with the
 * context. */

#define LATEST_IDS 4096

/* Those at which GLib, GIO, GTK and WebKit put sources. */
static const int usual_priorities[] = {
  G_MININT,
  G_PRIORITY_HIGH,
  -75,
  -50,
  G_PRIORITY_DEFAULT,
  50,
  G_PRIORITY_HIGH_IDLE,
  G_PRIORITY_HIGH_IDLE + 10,
  G_PRIORITY_HIGH_IDLE + 20,
  G_PRIORITY_HIGH_IDLE + 50,
  G_PRIORITY_DEFAULT_IDLE,
  G_PRIORITY_LOW,
  G_MAXINT,
};

#define NEAR_DEFAULT 20

typedef struct
{
  GSource *probe;
  GPtrArray *sources;
} BgProbe;

static void
probe_ref (gpointer data)
{
}

static void
add_source (BgProbe *self, GSource *source)
{
  if (!g_source_is_destroyed (source))
    g_ptr_array_add (self->sources, g_source_ref (source));
}

/* Under the context's lock. */
static void
probe_get (gpointer data, GSource *source, GSourceFunc *func, gpointer *user_data)
{
  BgProbe *self = data;

  *func = NULL;
  *user_data = NULL;
  for (GSource *other = source->prev; other != NULL; other = other->prev)
    add_source (self, other);
  for (GSource *other = source->next; other != NULL; other = other->next)
    add_source (self, other);
}

static GSourceCallbackFuncs probe_callback_funcs = {
  .ref = probe_ref,
  .unref = probe_ref,
  .get = probe_get,
};

static GSourceFuncs probe_funcs = { NULL };

static void
probe_at (BgProbe *self, GMainContext *context, int priority)
{
  g_source_set_priority (self->probe, priority);
  (void) g_main_context_find_source_by_funcs_user_data (context, &probe_funcs, self);
}

#if HAVE_PROCESS_VM_READV
static gboolean
read_priority (GSource *source, int *priority)
{
  struct iovec here = { priority, sizeof *priority };
  struct iovec there = { &source->priority, sizeof source->priority };

  return process_vm_readv (getpid (), &here, 1, &there, 1, 0) == sizeof *priority;
}

static void
probe_latest (BgProbe *self, GMainContext *context, guint last_id)
{
  g_autoptr (GHashTable) known = g_hash_table_new (NULL, NULL);
  guint n_known = 0;

  for (guint id = last_id; id > 0 && last_id - id < LATEST_IDS; id--)
    {
      GSource *source = g_main_context_find_source_by_id (context, id);
      int priority;

      for (; n_known < self->sources->len; n_known++)
        g_hash_table_add (known, g_ptr_array_index (self->sources, n_known));
      if (source != NULL && source != self->probe && !g_hash_table_contains (known, source)
          && read_priority (source, &priority))
        probe_at (self, context, priority);
    }
}
#endif

/* Adds the sources that are in the context at the usual priorities and at @priorities
 * (nullable), unless it has had no more than @n_own in its life. Returns how many it
 * has had. One thread at a time. */
guint
bg_glib_list_sources (GMainContext *context, GArray *priorities, guint n_own, GPtrArray *sources)
{
  BgProbe self = { g_source_new (&probe_funcs, sizeof (GSource)), sources };
  guint n_had;

  g_source_set_callback_indirect (self.probe, &self, &probe_callback_funcs);
  n_had = g_source_attach (self.probe, context) - 1;
  if (n_had != n_own)
    {
      for (guint i = 0; i < G_N_ELEMENTS (usual_priorities); i++)
        probe_at (&self, context, usual_priorities[i]);
      for (int i = 1; i <= NEAR_DEFAULT; i++)
        {
          probe_at (&self, context, G_PRIORITY_DEFAULT + i);
          probe_at (&self, context, G_PRIORITY_DEFAULT - i);
        }
      for (guint i = 0; priorities != NULL && i < priorities->len; i++)
        probe_at (&self, context, g_array_index (priorities, int, i));
#if HAVE_PROCESS_VM_READV
      probe_latest (&self, context, n_had);
#endif
    }
  g_source_destroy (self.probe);
  g_source_unref (self.probe);

  return n_had + 1;
}

/* Takes over the reference. */
static void
keep_once (GSource *source, GPtrArray *sources)
{
  if (g_ptr_array_find (sources, source, NULL))
    g_source_unref (source);
  else
    g_ptr_array_add (sources, source);
}

/* The thread has ended within @n dispatches of the source, which is the library's: gives
 * back the references to its callback, by @release, and to itself that those have. One to the
 * source goes into @sources, as g_main_current_source() answers with it for as long as the
 * thread is there. */
void
bg_glib_abandon_dispatches (GSource *source, guint n, GDestroyNotify release, GPtrArray *sources)
{
  for (guint i = 0; i < n; i++)
    {
      release (source);
      keep_once (source, sources);
    }
}

static gboolean
never_called_cb (gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

/* Whether the source's callback was given by g_source_set_callback() and a dispatch refers
 * to it: not if it was replaced or the source destroyed since the dispatch began. */
static gboolean
is_callback_dispatched (GSource *source)
{
  g_autoptr (GSource) other = g_idle_source_new ();

  g_source_set_callback (other, never_called_cb, NULL, NULL);
  return source->callback_funcs == other->callback_funcs
         && g_atomic_int_get ((int *) source->callback_data) > 1;
}

/* The same of a source of others, one dispatch of which the thread has ended in. What GLib
 * knows of its callback begins with a reference count, in each version since 2.0. */
void
bg_glib_abandon_dispatch_of_others (GSource *source, GPtrArray *sources)
{
  if (is_callback_dispatched (source))
    source->callback_funcs->unref (source->callback_data);
  keep_once (source, sources);
}
