/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "model-random.h"
#include "model-scenario.h"

G_BEGIN_DECLS

void model_draw_apart (ModelScenario *self, ModelRandom *random, gboolean uses_default);

G_END_DECLS
