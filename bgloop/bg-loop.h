/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <gio/gio.h>

#include <bgloop/bg-operation.h>
#include <bgloop/bg-stats.h>
#include <bgloop/bg-version.h>

G_BEGIN_DECLS

/**
 * BgLoopState:
 * @BG_LOOP_RUNNING: the loop takes work and runs it
 * @BG_LOOP_STOPPING: a shutdown was asked for; what was accepted gets its
 *   outcome, work from other threads is refused
 * @BG_LOOP_STOPPED: the loop has ended; everything has had its outcome
 *
 * Where in its one life a loop is.
 *
 * Since: 1.0
 */
typedef enum
{
  BG_LOOP_RUNNING,
  BG_LOOP_STOPPING,
  BG_LOOP_STOPPED,
} BgLoopState;

/**
 * BgShutdownMode:
 * @BG_SHUTDOWN_DRAIN: everything that was accepted runs to its end
 * @BG_SHUTDOWN_CANCEL: what has not started never runs, and whoever waits for
 *   it is told
 *
 * How a loop ends.
 *
 * Since: 1.0
 */
typedef enum
{
  BG_SHUTDOWN_DRAIN,
  BG_SHUTDOWN_CANCEL,
} BgShutdownMode;

#define BG_TYPE_LOOP_STATE    (bg_loop_state_get_type ())
#define BG_TYPE_SHUTDOWN_MODE (bg_shutdown_mode_get_type ())
#define BG_TYPE_LOOP          (bg_loop_get_type ())

BG_AVAILABLE_IN_1_0
GType bg_loop_state_get_type (void);
BG_AVAILABLE_IN_1_0
GType bg_shutdown_mode_get_type (void);
BG_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (BgLoop, bg_loop, BG, LOOP, GObject)

/**
 * BgPostFunc:
 * @user_data: what was given with the function
 *
 * A piece of work that nobody waits for.
 *
 * It is called once, on the loop's thread.
 *
 * Since: 1.0
 */
typedef void (*BgPostFunc) (gpointer user_data);

/**
 * BgCallFunc:
 * @user_data: what was given with the function
 * @error: where to put what went wrong
 *
 * A piece of work that has an answer.
 *
 * It is called once, on the loop's thread. Like every function with a
 * #GError it returns %FALSE exactly if it sets @error.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
typedef gboolean (*BgCallFunc) (gpointer user_data, GError **error);

/**
 * BgBeginFunc: (skip)
 * @user_data: data passed with the function
 * @cancellable: (not nullable): follows both the caller's cancellable and the
 *   loop's; to be handed to the operation
 * @callback: to be handed to the operation
 * @callback_data: to be handed to the operation with @callback
 * @error: return location for a #GError
 *
 * Begins an asynchronous operation, and only that.
 *
 * It is called once, on the loop's thread, with the loop's context as the
 * thread-default one, so that the operation completes there. Unless this returns
 * %FALSE the operation must call @callback exactly once, with @callback_data; from
 * which thread does not matter.
 *
 * Returns: %TRUE if the operation has begun; %FALSE with @error set if nothing was
 *   begun, and @callback will not be called
 *
 * Since: 1.0
 */
typedef gboolean (*BgBeginFunc) (gpointer user_data,
                                 GCancellable *cancellable,
                                 GAsyncReadyCallback callback,
                                 gpointer callback_data,
                                 GError **error);

/* life */
BG_AVAILABLE_IN_1_0
BgLoop *bg_loop_new (const char *name, GError **error);
BG_AVAILABLE_IN_1_0
BgLoop *bg_loop_dup_default (GError **error);
BG_AVAILABLE_IN_1_0
BgLoop *bg_loop_dup_current (void);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_reset_default (int timeout_msec, GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_quit (BgLoop *self, BgShutdownMode mode);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_shutdown (BgLoop *self, GError **error);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_shutdown_full (BgLoop *self,
                                BgShutdownMode mode,
                                int timeout_msec,
                                GCancellable *cancellable,
                                GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_shutdown_async (BgLoop *self,
                             BgShutdownMode mode,
                             int timeout_msec,
                             GCancellable *cancellable,
                             GAsyncReadyCallback callback,
                             gpointer user_data);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_shutdown_finish (BgLoop *self, GAsyncResult *result, GError **error);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_wait (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_wait_async (BgLoop *self,
                         int timeout_msec,
                         GCancellable *cancellable,
                         GAsyncReadyCallback callback,
                         gpointer user_data);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_wait_finish (BgLoop *self, GAsyncResult *result, GError **error);

/* looking: none of these waits for, or runs anything on, the loop's thread */
BG_AVAILABLE_IN_1_0
const char *bg_loop_get_name (BgLoop *self);
BG_AVAILABLE_IN_1_0
GMainContext *bg_loop_get_context (BgLoop *self);
BG_AVAILABLE_IN_1_0
BgLoopState bg_loop_get_state (BgLoop *self);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_is_current (BgLoop *self);
BG_AVAILABLE_IN_1_0
GCancellable *bg_loop_get_cancellable (BgLoop *self);
BG_AVAILABLE_IN_1_0
BgLoopStats *bg_loop_get_stats (BgLoop *self);
BG_AVAILABLE_IN_1_0
char *bg_loop_describe (BgLoop *self);

/* fire and forget */
BG_AVAILABLE_IN_1_0
gboolean bg_loop_post (BgLoop *self, BgPostFunc func, gpointer user_data, GDestroyNotify destroy);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_post_full (BgLoop *self,
                            int priority,
                            BgPostFunc func,
                            gpointer user_data,
                            GDestroyNotify destroy);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_invoke (BgLoop *self, GSourceFunc function, gpointer data);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_invoke_full (BgLoop *self,
                              int priority,
                              GSourceFunc function,
                              gpointer data,
                              GDestroyNotify notify);

/* run a function there and have its answer here */
BG_AVAILABLE_IN_1_0
gboolean bg_loop_call (BgLoop *self,
                       BgCallFunc func,
                       gpointer user_data,
                       GCancellable *cancellable,
                       GError **error);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_call_full (BgLoop *self,
                            int priority,
                            int timeout_msec,
                            BgCallFunc func,
                            gpointer user_data,
                            GCancellable *cancellable,
                            GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_call_async (BgLoop *self,
                         int priority,
                         int timeout_msec,
                         BgCallFunc func,
                         gpointer user_data,
                         GDestroyNotify destroy,
                         GCancellable *cancellable,
                         GAsyncReadyCallback callback,
                         gpointer callback_data);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_call_finish (BgLoop *self, GAsyncResult *result, GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_run_task (BgLoop *self, int priority, GTask *task, GTaskThreadFunc func);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_flush (BgLoop *self, int timeout_msec, GCancellable *cancellable, GError **error);

/* perform an asynchronous operation there */
BG_AVAILABLE_IN_1_0
GAsyncResult *bg_loop_perform (BgLoop *self,
                               int priority,
                               int timeout_msec,
                               BgBeginFunc begin,
                               gpointer user_data,
                               GCancellable *cancellable,
                               GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_perform_async (BgLoop *self,
                            int priority,
                            int timeout_msec,
                            BgBeginFunc begin,
                            gpointer user_data,
                            GDestroyNotify destroy,
                            GCancellable *cancellable,
                            GAsyncReadyCallback callback,
                            gpointer callback_data);
BG_AVAILABLE_IN_1_0
GAsyncResult *bg_loop_perform_operation (BgLoop *self,
                                         int priority,
                                         int timeout_msec,
                                         BgOperationFunc func,
                                         gpointer user_data,
                                         GCancellable *cancellable,
                                         GError **error);
BG_AVAILABLE_IN_1_0
void bg_loop_perform_operation_async (BgLoop *self,
                                      int priority,
                                      int timeout_msec,
                                      BgOperationFunc func,
                                      gpointer user_data,
                                      GDestroyNotify destroy,
                                      GCancellable *cancellable,
                                      GAsyncReadyCallback callback,
                                      gpointer callback_data);
BG_AVAILABLE_IN_1_0
GAsyncResult *bg_loop_perform_finish (BgLoop *self, GAsyncResult *result, GError **error);
BG_AVAILABLE_IN_1_0
GAsyncResult *bg_loop_perform_operation_finish (BgLoop *self, GAsyncResult *result, GError **error);

/* living on the loop */
BG_AVAILABLE_IN_1_0
gboolean bg_loop_attach (BgLoop *self, GSource *source);
BG_AVAILABLE_IN_1_0
guint64 bg_loop_post_after (BgLoop *self,
                            guint delay_msec,
                            BgPostFunc func,
                            gpointer user_data,
                            GDestroyNotify destroy);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_withdraw (BgLoop *self, guint64 work);
BG_AVAILABLE_IN_1_0
guint64 bg_loop_hold (BgLoop *self, const char *reason) G_GNUC_WARN_UNUSED_RESULT;
BG_AVAILABLE_IN_1_0
void bg_loop_release (BgLoop *self, guint64 hold);
BG_AVAILABLE_IN_1_0
guint64 bg_loop_add_teardown (BgLoop *self,
                              BgPostFunc func,
                              gpointer user_data,
                              GDestroyNotify destroy);
BG_AVAILABLE_IN_1_0
gboolean bg_loop_remove_teardown (BgLoop *self, guint64 teardown);

G_END_DECLS
