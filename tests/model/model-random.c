/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model.h"

/* SplitMix64: each seed, also the next one, has numbers of its own, and they are the same
 * with every GLib. */

void
model_random_init (ModelRandom *self, guint64 seed)
{
  self->state = seed;
}

guint64
model_random_next (ModelRandom *self)
{
  guint64 z = self->state += G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * G_GUINT64_CONSTANT (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

guint
model_random_below (ModelRandom *self, guint n)
{
  return (guint) (model_random_next (self) % n);
}

gboolean
model_random_one_in (ModelRandom *self, guint n)
{
  return model_random_below (self, n) == 0;
}
