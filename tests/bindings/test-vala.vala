/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

/* A loop from Vala, through the vapi that is made of the GIR. */

private class Latch {
  private Mutex mutex;
  private Cond cond;
  private bool opened;

  public void open () {
    mutex.lock ();
    opened = true;
    cond.signal ();
    mutex.unlock ();
  }

  public void wait () {
    mutex.lock ();
    while (!opened)
      cond.wait (mutex);
    mutex.unlock ();
  }
}

/* The watchdog: a name for what hangs is the last one that the test printed. */
[CCode (cname = "alarm", cheader_filename = "unistd.h")]
private extern uint set_alarm (uint seconds);

private Bg.Loop new_loop (string? name) {
  try {
    return new Bg.Loop (name);
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
}

private void end_loop (Bg.Loop loop) {
  try {
    assert_true (loop.shutdown ());
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
  assert_true (loop.get_state () == Bg.LoopState.STOPPED);
}

private void test_start_and_shutdown () {
  var loop = new_loop ("a vala loop");

  assert_true (loop.get_name () == "a vala loop");
  assert_true (loop.name == "a vala loop");
  assert_true (loop.state == Bg.LoopState.RUNNING);
  assert_false (loop.is_current ());
  end_loop (loop);
  end_loop (new_loop (null));
}

private void test_post () {
  var loop = new_loop ("post");
  var latch = new Latch ();
  var is_current = false;

  assert_true (loop.post (() => {
    is_current = loop.is_current ();
    latch.open ();
  }));
  latch.wait ();
  assert_true (is_current);
  end_loop (loop);
  assert_false (loop.post (() => assert_not_reached ()));
}

private void test_call () {
  var loop = new_loop ("call");
  var answer = 0;

  try {
    assert_true (loop.call (() => {
      assert_true (loop.is_current ());
      answer = 42;
      return true;
    }));
    assert_true (loop.call_full (Priority.HIGH, 60000, () => ++answer == 43));
    assert_true (loop.flush (-1));
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
  assert_true (answer == 43);
  end_loop (loop);
}

private bool fail () throws Error {
  throw new FileError.NOSPC ("No room for %s", "more");
}

private void assert_nospc (Error error) {
  assert_true (error is FileError.NOSPC);
  assert_true (error.message == "No room for more");
}

private void test_call_throws_unchanged () {
  var loop = new_loop ("throw");

  try {
    loop.call (fail);
    assert_not_reached ();
  } catch (Error error) {
    assert_nospc (error);
  }
  end_loop (loop);
}

private void test_errors () {
  var loop = new_loop ("errors");

  assert_would_deadlock (loop);
  end_loop (loop);
  try {
    loop.call (() => true);
    assert_not_reached ();
  } catch (Error error) {
    assert_true (error is Bg.Error.CLOSED);
  }
}

private void assert_would_deadlock (Bg.Loop loop) {
  try {
    loop.call (() => {
      try {
        loop.shutdown ();
        assert_not_reached ();
      } catch (Error error) {
        assert_true (error is Bg.Error.WOULD_DEADLOCK);
      }
      return true;
    });
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
}

private async void call_async (Bg.Loop loop, MainLoop main_loop) {
  var answered = false;

  try {
    answered = yield loop.call_async (Priority.DEFAULT, -1, () => loop.is_current (), null);
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
  assert_true (answered);

  try {
    yield loop.call_async (Priority.DEFAULT, -1, fail, null);
    assert_not_reached ();
  } catch (Error error) {
    assert_nospc (error);
  }

  try {
    assert_true (yield loop.shutdown_async (Bg.ShutdownMode.DRAIN, -1, null));
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
  main_loop.quit ();
}

private void test_async () {
  var loop = new_loop ("async");
  var main_loop = new MainLoop ();

  call_async.begin (loop, main_loop);
  main_loop.run ();
  assert_true (loop.get_state () == Bg.LoopState.STOPPED);
}

private void test_invoke () {
  var loop = new_loop ("invoke");
  var runs = 0;

  assert_true (loop.invoke_full (Priority.DEFAULT, () => {
    assert_true (loop.is_current ());
    return ++runs < 3;
  }));
  end_loop (loop);
  assert_true (runs == 3);
}

private void test_stats () {
  var loop = new_loop ("stats");

  assert_true (loop.post (() => {}));
  end_loop (loop);

  var stats = loop.get_stats ();
  assert_true (stats.posted == 1);
  assert_true (stats.run == 1);
  assert_true (stats.copy ().refused == 0);
}

private int main (string[] args) {
  Test.init (ref args);
  set_alarm (240);

  Test.add_func ("/vala/start-and-shutdown", test_start_and_shutdown);
  Test.add_func ("/vala/post", test_post);
  Test.add_func ("/vala/call", test_call);
  Test.add_func ("/vala/call/throws-unchanged", test_call_throws_unchanged);
  Test.add_func ("/vala/errors", test_errors);
  Test.add_func ("/vala/async", test_async);
  Test.add_func ("/vala/invoke", test_invoke);
  Test.add_func ("/vala/stats", test_stats);

  return Test.run ();
}
