/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* How long to wait awake at most, in microseconds. */
#define BG_LINGER_USEC 50

/* And at most where somebody has asked for more. */
#define BG_LINGER_MAX_USEC 1000

/* How long a waker needs, in microseconds, before what it woke runs. */
#define BG_WAKE_USEC 25

typedef struct _BgSpin BgSpin;

/* What one waiting place has learnt about waiting awake; its thread's only. */
struct _BgSpin
{
  gint64 began;       /* when the wait that was given up began, monotonic microseconds */
  gint64 quiet_until; /* monotonic microseconds */
  guint average;      /* how long what is waited for takes, in 1/16 microseconds */
  guint backoff;
  guint skip;
};

typedef gboolean (*BgSpinFunc) (gpointer data);

gboolean bg_spin_is_possible (void);
int bg_spin_get_processor (void);
guint bg_spin_get_limit (guint limit_usec, gint64 end);
void bg_yield (void);
gboolean bg_spin (BgSpin *self, guint limit_usec, BgSpinFunc done, gpointer data);
gboolean bg_spin_yield (BgSpin *self, BgSpinFunc done, gpointer data);
void bg_spin_once (BgSpin *self,
                   guint limit_usec,
                   gboolean elsewhere,
                   BgSpinFunc done,
                   gpointer data);
void bg_spin_learn (BgSpin *self, gint64 took_usec);

G_END_DECLS
