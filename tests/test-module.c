/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* A module that uses the loop of test-deadline as it is being loaded. */

void deadline_load (void);
static void load (void) __attribute__ ((constructor));

static void
load (void)
{
  deadline_load ();
}
