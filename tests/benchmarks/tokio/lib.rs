// Copyright 2026 The bgloop developers
// SPDX-License-Identifier: LGPL-2.1-or-later

//! tokio: a runtime of one thread, on a thread of its own, and tasks that are spawned on it. The
//! table of these functions is in bench-tokio.c.

use std::os::raw::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, Notify};

type Func = extern "C" fn(*mut c_void) -> c_int;

struct Work(Func, *mut c_void);

// The benchmark hands its data over with the work.
unsafe impl Send for Work {}

impl Work {
    fn run(self) {
        (self.0)(self.1);
    }
}

pub struct Loop {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[no_mangle]
pub extern "C" fn bench_tokio_new() -> *mut Loop {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let _ = runtime.block_on(stopped);
    });
    Box::into_raw(Box::new(Loop { handle, stop, thread }))
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_end(this: *mut Loop) {
    let this = *Box::from_raw(this);
    let _ = this.stop.send(());
    this.thread.join().unwrap();
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_post(this: *mut Loop, func: Func, data: *mut c_void) {
    let work = Work(func, data);
    (*this).handle.spawn(async move { work.run() });
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_post_after(
    this: *mut Loop,
    msec: c_uint,
    func: Func,
    data: *mut c_void,
) {
    let work = Work(func, data);
    (*this).handle.spawn(async move {
        tokio::time::sleep(Duration::from_millis(msec.into())).await;
        work.run()
    });
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_call(this: *mut Loop, func: Func, data: *mut c_void) {
    let work = Work(func, data);
    let (sender, receiver) = oneshot::channel();
    (*this).handle.spawn(async move {
        work.run();
        let _ = sender.send(());
    });
    receiver.blocking_recv().unwrap();
}

pub struct Caller {
    other: Handle,
    own: Runtime,
    quit: Arc<Notify>,
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_caller_new(this: *mut Loop) -> *mut Caller {
    let other = (*this).handle.clone();
    Box::into_raw(Box::new(Caller { other, own: runtime(), quit: Arc::new(Notify::new()) }))
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_caller_ask(
    this: *mut Caller,
    func: Func,
    reply: Func,
    data: *mut c_void,
) {
    let work = Work(func, data);
    let reply = Work(reply, data);
    let own = (*this).own.handle().clone();
    (*this).other.spawn(async move {
        work.run();
        own.spawn(async move { reply.run() });
    });
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_caller_run(this: *mut Caller) {
    let quit = (*this).quit.clone();
    (*this).own.block_on(async move { quit.notified().await });
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_caller_quit(this: *mut Caller) {
    (*this).quit.notify_one();
}

#[no_mangle]
pub unsafe extern "C" fn bench_tokio_caller_free(this: *mut Caller) {
    drop(Box::from_raw(this));
}
