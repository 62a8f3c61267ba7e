/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdatomic.h>

#include <glib.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* Other people's sources */
typedef struct
{
  /* under lock */
  guint n_own;         /* the inbox's apart, that the library put into the context */
  GPtrArray *arriving; /* (nullable) of GSource, that were attached */
  GArray *priorities;  /* (nullable) of sources that were attached, some of them */

  /* atomic, written under lock */
  _Atomic gboolean has_attached; /* once a source was attached */
  _Atomic guint n_arriving;      /* as long as that list is */

  /* the loop's thread only, and written under lock */
  GPtrArray *attached; /* (nullable) of GSource, that may be in the context or that others may
                        * have */

  /* the loop's thread only */
  GPtrArray *kept;     /* (nullable) of GSource, that go with the context */
  GPtrArray *released; /* (nullable) of GSource, that were attached, and are about to go */
  guint n_shared;      /* of the attached, that were destroyed and that others have */
  guint n_had;         /* sources that the context had had when it was cleared */
  guint recheck_msec;  /* after how long to look at them again; 0: not before the next sleep */
  guint busy_polls;    /* that did not wait */
} BgSources;

/* with the core's lock */
gboolean bg_core_attach (BgCore *self, GSource *source);
char *bg_core_dup_dispatched (BgCore *self);
gboolean bg_core_list_attached (BgCore *self, guint *next, guint *n, GPtrArray *names, guint most);

/* on the loop's thread, without */
gboolean bg_core_owns_source (BgCore *self, GSource *source);
GPtrArray *bg_core_get_kept (BgCore *self);
gboolean bg_core_has_attached_to_release (BgCore *self);
void bg_core_release_attached (BgCore *self, int *timeout_msec);
guint bg_core_release_unshared (BgCore *self, int *poll_msec);
void bg_core_demote_most_urgent (BgCore *self);
void bg_core_clear_attached (BgCore *self);
void bg_core_clear_context (BgCore *self);

/* when nobody has the core any more */
void bg_core_free_context (BgCore *self);

G_END_DECLS
