/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "model-scenario.h"

G_BEGIN_DECLS

/* What is tried apart, on loops of its own: no other program ends them, so that what hangs there
 * does so for good, and what is promised is known to the last. */

void model_do_apart (const ModelOp *op);
void model_try_without_descriptor (void);

/* order and fairness */
void model_apart_flood (const ModelOp *op);
void model_apart_batch (const ModelOp *op);
void model_apart_urgent (const ModelOp *op);
void model_apart_earlier (const ModelOp *op);
void model_apart_priorities (const ModelOp *op);

/* sources */
void model_apart_endless (const ModelOp *op);
void model_apart_let_go (const ModelOp *op);
void model_apart_meddle (const ModelOp *op);

/* waits */
void model_apart_knot (const ModelOp *op);
void model_apart_late_cancel (const ModelOp *op);
void model_apart_closing (const ModelOp *op);
void model_apart_in_handler (const ModelOp *op);
void model_apart_handed_over (const ModelOp *op);

/* the default loop, which nothing else in the scenario uses */
void model_apart_toggle (const ModelOp *op);

/* replies */
void model_apart_owed (const ModelOp *op);

/* a forked child that goes on beside its parent */
void model_apart_child_stays (const ModelOp *op);

/* the test kit */
void model_apart_stand_still (const ModelOp *op);

G_END_DECLS
