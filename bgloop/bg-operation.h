/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/bg-version.h>

G_BEGIN_DECLS

#define BG_TYPE_OPERATION (bg_operation_get_type ())

/**
 * BgOperation:
 *
 * An operation that was begun on a loop, to be answered with
 * [method@Bg.Operation.answer]: what a #BgOperationFunc gets in languages that
 * cannot hand a C callback on.
 *
 * It is counted and may be kept, referred to and answered in any thread. When the
 * last reference goes and it has not been answered, that is an answer, too:
 * whoever waits for it fails with %BG_ERROR_UNANSWERED.
 *
 * Since: 1.0
 */
typedef struct _BgOperation BgOperation;

/**
 * BgOperationFunc:
 * @operation: to be answered when the operation is done; refer to it to keep it
 * @cancellable: (not nullable): follows both the caller's cancellable and the
 *   loop's; to be handed to the operation
 * @user_data: data passed with the function
 * @error: return location for a #GError
 *
 * Begins an asynchronous operation, and only that.
 *
 * It is called once, on the loop's thread, with the loop's context as the
 * thread-default one, so that the operation completes there.
 *
 * Returns: %TRUE if the operation has begun; %FALSE with @error set if nothing was
 *   begun, and @operation will not be answered
 *
 * Since: 1.0
 */
typedef gboolean (*BgOperationFunc) (BgOperation *operation,
                                     GCancellable *cancellable,
                                     gpointer user_data,
                                     GError **error);

BG_AVAILABLE_IN_1_0
GType bg_operation_get_type (void);
BG_AVAILABLE_IN_1_0
BgOperation *bg_operation_ref (BgOperation *self);
BG_AVAILABLE_IN_1_0
void bg_operation_unref (BgOperation *self);
BG_AVAILABLE_IN_1_0
void bg_operation_answer (BgOperation *self, GAsyncResult *result);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BgOperation, bg_operation_unref)

G_END_DECLS
