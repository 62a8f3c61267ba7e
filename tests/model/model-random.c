/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-random.h"

/* A counter that is stepped by an odd constant and whose bits are then mixed: every seed is as
 * good as any other, and neighbouring seeds have nothing in common. */

#define STEP      G_GUINT64_CONSTANT (0x9e3779b97f4a7c15)
#define MIX_FIRST G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9)
#define MIX_NEXT  G_GUINT64_CONSTANT (0x94d049bb133111eb)

void
model_random_init (ModelRandom *self, guint64 seed)
{
  self->state = seed;
}

guint64
model_random_next (ModelRandom *self)
{
  guint64 bits = self->state += STEP;

  bits = (bits ^ (bits >> 30)) * MIX_FIRST;
  bits = (bits ^ (bits >> 27)) * MIX_NEXT;
  return bits ^ (bits >> 31);
}

guint
model_random_below (ModelRandom *self, guint limit)
{
  return (guint) (((model_random_next (self) >> 32) * limit) >> 32);
}

gboolean
model_random_chance (ModelRandom *self, guint percent)
{
  return model_random_below (self, 100) < percent;
}
