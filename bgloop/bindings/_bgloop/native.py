# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C functions that PyGObject would be too slow for, or cannot call.

PyGObject makes a closure for each function that it hands to C, and cannot wait in slices: a C function
that fails while a signal is pending makes it raise something else. So work is handed over with ctypes,
always with the same C callback, and a number that tells which piece of work it is.

The library is the one that PyGObject has loaded.
"""

import ctypes
import time
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_uint, c_uint32, c_uint64, c_ulong, c_void_p

LIBRARY = 'libbgloop-1.so.0'

PostFunc = CFUNCTYPE(None, c_void_p)
CallFunc = CFUNCTYPE(c_int, c_void_p, c_void_p)
OperationFunc = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_void_p)
CancelledFunc = CFUNCTYPE(None, c_void_p, c_void_p)
InvokeFunc = CFUNCTYPE(c_int, c_void_p)
FdFunc = CFUNCTYPE(c_int, c_int, c_int, c_void_p)


class GError(ctypes.Structure):
    _fields_ = [('domain', c_uint32), ('code', c_int), ('message', c_char_p)]


GErrorPointer = POINTER(GError)


def _find(kind):
    """All that is loaded, as far as it is visible; else the library by its name."""
    everything = kind(None)
    return everything if hasattr(everything, 'bg_loop_post_full') else kind(LIBRARY)


# Functions that wait, or run other people's code, give the interpreter lock up. The others keep it: to
# give it up and take it again costs more than they do, and hands it to another thread each time. None
# of those takes a lock under which anybody asks for the interpreter's.
_letting_go = _find(ctypes.CDLL)
_keeping = _find(ctypes.PyDLL)


def _bind(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


post_full = _bind(_keeping, 'bg_loop_post_full', c_int, c_void_p, c_int, PostFunc, c_void_p, c_void_p)
post_after = _bind(_keeping, 'bg_loop_post_after', c_uint64, c_void_p, c_uint, PostFunc, c_void_p, c_void_p)
withdraw = _bind(_keeping, 'bg_loop_withdraw', c_int, c_void_p, c_uint64)
hold = _bind(_keeping, 'bg_loop_hold', c_uint64, c_void_p, c_char_p)
release = _bind(_keeping, 'bg_loop_release', None, c_void_p, c_uint64)
add_teardown = _bind(_keeping, 'bg_loop_add_teardown', c_uint64, c_void_p, PostFunc, c_void_p, c_void_p)
get_state = _bind(_keeping, 'bg_loop_get_state', c_int, c_void_p)
get_context = _bind(_keeping, 'bg_loop_get_context', c_void_p, c_void_p)
is_current = _bind(_keeping, 'bg_loop_is_current', c_int, c_void_p)

quit_loop = _bind(_letting_go, 'bg_loop_quit', None, c_void_p, c_int)
shutdown_full = _bind(_letting_go, 'bg_loop_shutdown_full', c_int, c_void_p, c_int, c_int, c_void_p,
                      POINTER(GErrorPointer))
wait = _bind(_letting_go, 'bg_loop_wait', c_int, c_void_p, c_int, c_void_p, POINTER(GErrorPointer))
flush = _bind(_letting_go, 'bg_loop_flush', c_int, c_void_p, c_int, c_void_p, POINTER(GErrorPointer))
call_full = _bind(_letting_go, 'bg_loop_call_full', c_int, c_void_p, c_int, c_int, CallFunc, c_void_p,
                  c_void_p, POINTER(GErrorPointer))
ask_current = _bind(_letting_go, 'bg_loop_call_full', c_int, c_void_p, c_int, c_int, c_void_p, c_void_p,
                    c_void_p, POINTER(GErrorPointer))
perform_operation = _bind(_letting_go, 'bg_loop_perform_operation', c_void_p, c_void_p, c_int, c_int,
                          OperationFunc, c_void_p, c_void_p, POINTER(GErrorPointer))
operation_ref = _bind(_keeping, 'bg_operation_ref', c_void_p, c_void_p)
operation_unref = _bind(_letting_go, 'bg_operation_unref', None, c_void_p)
operation_answer = _bind(_letting_go, 'bg_operation_answer', None, c_void_p, c_void_p)
dup_current = _bind(_letting_go, 'bg_loop_dup_current', c_void_p)

object_unref = _bind(_letting_go, 'g_object_unref', None, c_void_p)
# GObject has one lock for all signals, and a forked child finds that as it was at the fork. These two keep the
# interpreter's lock, which os.fork() needs, too: so no thread has GObject's lock through them as another forks.
signal_connect = _bind(_keeping, 'g_signal_connect_data', c_ulong, c_void_p, c_char_p, CancelledFunc,
                       c_void_p, c_void_p, c_int)
signal_disconnect = _bind(_keeping, 'g_signal_handler_disconnect', None, c_void_p, c_ulong)

# The same is true of gettext.
bindtextdomain = _bind(_keeping, 'bindtextdomain', c_char_p, c_char_p, c_char_p)
bind_textdomain_codeset = _bind(_keeping, 'bind_textdomain_codeset', c_char_p, c_char_p, c_char_p)
dgettext = _bind(_keeping, 'g_dgettext', c_char_p, c_char_p, c_char_p)
dngettext = _bind(_keeping, 'g_dngettext', c_char_p, c_char_p, c_char_p, c_char_p, c_ulong)

error_free = _bind(_keeping, 'g_error_free', None, GErrorPointer)
quark_to_string = _bind(_keeping, 'g_quark_to_string', c_char_p, c_uint32)

context_ref = _bind(_keeping, 'g_main_context_ref', c_void_p, c_void_p)
context_unref = _bind(_letting_go, 'g_main_context_unref', None, c_void_p)
context_iteration = _bind(_letting_go, 'g_main_context_iteration', c_int, c_void_p, c_int)
context_invoke = _bind(_letting_go, 'g_main_context_invoke_full', None, c_void_p, c_int, InvokeFunc,
                       c_void_p, c_void_p)
get_thread_default = _bind(_keeping, 'g_main_context_get_thread_default', c_void_p)
push_thread_default = _bind(_letting_go, 'g_main_context_push_thread_default', None, c_void_p)
pop_thread_default = _bind(_letting_go, 'g_main_context_pop_thread_default', None, c_void_p)

fd_source_new = _bind(_letting_go, 'g_unix_fd_source_new', c_void_p, c_int, c_int)
source_set_callback = _bind(_letting_go, 'g_source_set_callback', None, c_void_p, FdFunc, c_void_p,
                            c_void_p)
source_attach = _bind(_letting_go, 'g_source_attach', c_uint, c_void_p, c_void_p)
source_set_ready_time = _bind(_keeping, 'g_source_set_ready_time', None, c_void_p, c_int64)
source_destroy = _bind(_letting_go, 'g_source_destroy', None, c_void_p)
source_unref = _bind(_letting_go, 'g_source_unref', None, c_void_p)

# Of Python itself.
ensure_thread_state = _bind(ctypes.pythonapi, 'PyGILState_Ensure', c_int)
release_thread_state = _bind(ctypes.pythonapi, 'PyGILState_Release', None, c_int)
_capsule_get_pointer = _bind(ctypes.pythonapi, 'PyCapsule_GetPointer', c_void_p, ctypes.py_object, c_char_p)
_async_queue_new = _bind(_letting_go, 'g_async_queue_new', c_void_p)
_async_queue_length = _bind(_letting_go, 'g_async_queue_length', c_int, c_void_p)
_inc_ref = _bind(ctypes.pythonapi, 'Py_IncRef', None, ctypes.py_object)

# The C function itself, for the loop to call: it answers yes there, without Python.
is_current_function = ctypes.cast(is_current, c_void_p).value

LOCKED = 0  # PyGILState_LOCKED


def pointer(wrapper):
    """The address of the GObject of a wrapper."""
    return _capsule_get_pointer(wrapper.__gpointer__, None)


def callback(kind):
    """A C callback that stays as long as the process: a loop that could not be ended may still have it."""
    def make(function):
        made = kind(function)
        _inc_ref(made)
        return made

    return make


def park(context):
    """Has the thread of a context that cannot be ended stand still for good, outside of Python, and waits
    until it does: it waits itself, for something that does not come."""
    queue = _async_queue_new()
    context_invoke(context, -2147483648, ctypes.cast(_letting_go.g_async_queue_pop, InvokeFunc), queue, None)
    while _async_queue_length(queue) >= 0:
        time.sleep(0.001)
