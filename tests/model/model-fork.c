/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

void
model_fork (BgLoop *loop)
{
}
