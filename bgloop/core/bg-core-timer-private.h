/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/base/bg-delay-private.h>

G_BEGIN_DECLS

typedef struct _BgCore BgCore;

/* Delayed work */
typedef struct
{
  /* under lock */
  BgDelays delays;
  GSource *source; /* (nullable) */

  /* the loop's thread only */
  BgDelay *ended; /* (unowned) to be given back */
} BgTimer;

/* with the core's lock */
guint64 bg_core_add_delay (BgCore *self,
                           guint delay_msec,
                           gpointer func,
                           gpointer data,
                           GDestroyNotify destroy);
gboolean bg_core_cancel_delay (BgCore *self, guint64 id);
void bg_core_promote_due (BgCore *self);
void bg_core_update_timer (BgCore *self);
void bg_core_pause_timer (BgCore *self);

/* on the loop's thread, without */
void bg_core_drop_delays (BgCore *self);

G_END_DECLS
