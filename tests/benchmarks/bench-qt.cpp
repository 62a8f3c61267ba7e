/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "bench.h"

#include <QCoreApplication>
#include <QEvent>
#include <QEventLoop>
#include <QObject>
#include <QSocketNotifier>
#include <QThread>
#include <QTimer>

/* Qt: an object that lives on a thread of its own, and methods invoked on it.
 * invokeMethod() knows no priorities; posted events do. */

namespace
{

class LowEvent : public QEvent
{
public:
  LowEvent (BenchFunc func, void *data) : QEvent (QEvent::User), func (func), data (data)
  {
  }

  BenchFunc func;
  void *data;
};

class Worker : public QObject
{
public:
  bool
  event (QEvent *event) override
  {
    if (event->type () != QEvent::User)
      return QObject::event (event);

    auto low = static_cast<LowEvent *> (event);
    low->func (low->data);
    return true;
  }
};

struct Loop
{
  QThread thread;
  Worker *worker = new Worker;
};

struct Caller
{
  Loop *loop;
  QObject here;
  QEventLoop event_loop;
};

void *
loop_new ()
{
  auto self = new Loop;

  self->worker->moveToThread (&self->thread);
  QObject::connect (&self->thread, &QThread::finished, self->worker, &QObject::deleteLater);
  self->thread.start ();
  return self;
}

void
loop_end (void *loop)
{
  auto self = static_cast<Loop *> (loop);

  self->thread.quit ();
  self->thread.wait ();
  delete self;
}

void
post (void *loop, BenchFunc func, void *data)
{
  QMetaObject::invokeMethod (
      static_cast<Loop *> (loop)->worker, [func, data] { func (data); }, Qt::QueuedConnection);
}

void
post_low (void *loop, BenchFunc func, void *data)
{
  QCoreApplication::postEvent (static_cast<Loop *> (loop)->worker, new LowEvent (func, data),
                               Qt::LowEventPriority);
}

void
post_after (void *loop, unsigned msec, BenchFunc func, void *data)
{
  auto worker = static_cast<Loop *> (loop)->worker;

  QMetaObject::invokeMethod (
      worker,
      [=] {
        QTimer::singleShot (std::chrono::milliseconds (msec), Qt::PreciseTimer, worker,
                            [func, data] { func (data); });
      },
      Qt::QueuedConnection);
}

void
call (void *loop, BenchFunc func, void *data)
{
  QMetaObject::invokeMethod (
      static_cast<Loop *> (loop)->worker, [func, data] { func (data); },
      Qt::BlockingQueuedConnection);
}

void *
caller_new (void *loop)
{
  auto self = new Caller;

  self->loop = static_cast<Loop *> (loop);
  return self;
}

void
caller_ask (void *caller, BenchFunc func, BenchFunc reply, void *data)
{
  auto self = static_cast<Caller *> (caller);

  QMetaObject::invokeMethod (
      self->loop->worker,
      [self, func, reply, data] {
        func (data);
        QMetaObject::invokeMethod (
            &self->here, [reply, data] { reply (data); }, Qt::QueuedConnection);
      },
      Qt::QueuedConnection);
}

void
caller_run (void *caller)
{
  static_cast<Caller *> (caller)->event_loop.exec ();
}

void
caller_quit (void *caller)
{
  static_cast<Caller *> (caller)->event_loop.quit ();
}

void
caller_free (void *caller)
{
  delete static_cast<Caller *> (caller);
}

void
watch (void *loop, int fd, BenchFunc func, void *data)
{
  auto worker = static_cast<Loop *> (loop)->worker;

  QMetaObject::invokeMethod (
      worker,
      [=] {
        auto notifier = new QSocketNotifier (fd, QSocketNotifier::Read, worker);
        QObject::connect (notifier, &QSocketNotifier::activated, worker,
                          [func, data] { func (data); });
      },
      Qt::BlockingQueuedConnection);
}

} // namespace

int
main (int argc, char *argv[])
{
  BenchSystem system = {};

  /* its own event dispatcher, not the one over GLib */
  qputenv ("QT_NO_GLIB", "1");
  QCoreApplication application (argc, argv);

  system.name = "qt";
  system.loop_new = loop_new;
  system.loop_end = loop_end;
  system.post = post;
  system.post_low = post_low;
  system.post_after = post_after;
  system.call = call;
  system.caller_new = caller_new;
  system.caller_ask = caller_ask;
  system.caller_run = caller_run;
  system.caller_quit = caller_quit;
  system.caller_free = caller_free;
  system.watch = watch;
  return bench_main (&system, argc, argv);
}
