/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What a user may read, in that user's language. What only developers read, such as
 * criticals, is not translated. */
#define _(text)  bg_translate (text)
#define N_(text) (text)

const char *bg_translate (const char *text) G_GNUC_FORMAT (1);
const char *bg_translate_plural (const char *one, const char *many, guint n) G_GNUC_FORMAT (1)
    G_GNUC_FORMAT (2);

G_END_DECLS
