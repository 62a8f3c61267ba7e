/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "model.h"

void model_run_call (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_call_async (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_task (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_flush (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_perform (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_perform_async (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_operation (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_operation_async (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_shutdown (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_shutdown_async (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_wait (Model *model, const ModelOp *op, BgLoop *loop);
void model_run_wait_async (Model *model, const ModelOp *op, BgLoop *loop);
