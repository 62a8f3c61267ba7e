/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <bgloop/bg-error.h>
#include <bgloop/bg-loop.h>
#include <bgloop/bg-operation.h>
#include <bgloop/bg-stats.h>
#include <bgloop/bg-version.h>
