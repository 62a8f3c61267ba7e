/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "util.h"

/* The tests of this program that are in files of their own. */
void add_tests_of_table (void);
void add_tests_of_drain (void);
void add_tests_of_async (void);
void add_tests_of_race (void);
