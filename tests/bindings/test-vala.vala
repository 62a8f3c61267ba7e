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

/* An operation's own. */
private class Result : Object, AsyncResult {
  public int value { get; construct; }

  public Result (int value) {
    Object (value: value);
  }

  public Object? get_source_object () {
    return null;
  }

  public void* get_user_data () {
    return null;
  }

  public bool is_tagged (void* tag) {
    return false;
  }
}

/* What an operation answers, for a caller that blocks and for one that does not. */
[CCode (has_target = false)]
private delegate AsyncResult Perform (Bg.Loop loop,
                                      int timeout,
                                      Bg.OperationFunc begin,
                                      Cancellable? cancellable = null) throws Error;

private AsyncResult perform (Bg.Loop loop,
                             int timeout,
                             Bg.OperationFunc begin,
                             Cancellable? cancellable = null) throws Error {
  return loop.perform (Priority.DEFAULT, timeout, begin, cancellable);
}

private AsyncResult perform_async (Bg.Loop loop,
                                   int timeout,
                                   Bg.OperationFunc begin,
                                   Cancellable? cancellable = null) throws Error {
  var main_loop = new MainLoop ();
  AsyncResult? answer = null;
  Error? error = null;

  loop.perform_async.begin (
      Priority.DEFAULT, timeout, (operation, cancellable) => begin (operation, cancellable),
      cancellable, (source, result) => {
    assert_false (loop.is_current ());
    try {
      answer = loop.perform_async.end (result);
    } catch (Error failure) {
      error = failure;
    }
    main_loop.quit ();
  });
  main_loop.run ();

  if (error != null)
    throw error;
  return answer;
}

private AsyncResult must_perform (Perform run, Bg.Loop loop, Bg.OperationFunc begin) {
  try {
    return run (loop, -1, begin);
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
}

private Error must_fail (Perform run,
                         Bg.Loop loop,
                         int timeout,
                         Bg.OperationFunc begin,
                         Cancellable? cancellable = null) {
  try {
    run (loop, timeout, begin, cancellable);
  } catch (Error error) {
    return error;
  }
  assert_not_reached ();
}

private void check_answers (Perform run) {
  var loop = new_loop ("answers");
  var file = File.new_for_path ("/proc/self/cmdline");

  for (var i = 0; i < 100; i++) {
    var result = must_perform (run, loop, (operation, cancellable) => {
      Bg.Operation kept = operation;

      assert_true (loop.is_current ());
      file.load_contents_async.begin (cancellable, (source, answer) => {
        assert_true (loop.is_current ());
        kept.answer (answer);
      });
      return true;
    });

    try {
      uint8[] contents;
      assert_true (file.load_contents_async.end (result, out contents, null));
      assert_true (contents.length > 0);
    } catch (Error error) {
      GLib.error ("%s", error.message);
    }
  }
  end_loop (loop);
}

private void check_answers_at_once (Perform run) {
  var loop = new_loop ("at once");
  var result = must_perform (run, loop, (operation) => {
    operation.answer (new Result (42));
    return true;
  });

  assert_true (((Result) result).value == 42);
  end_loop (loop);
}

private void check_throws_unchanged (Perform run) {
  var loop = new_loop ("throws");

  assert_nospc (must_fail (run, loop, -1, () => fail ()));
  end_loop (loop);
}

private void check_never_answered (Perform run) {
  var loop = new_loop ("never");
  Bg.Operation? kept = null;
  Cancellable? told = null;
  var error = must_fail (run, loop, 50, (operation, cancellable) => {
    kept = operation;
    told = cancellable;
    return true;
  });

  assert_true (error is IOError.TIMED_OUT);
  assert_true (told.is_cancelled ());
  try {
    loop.shutdown_full (Bg.ShutdownMode.CANCEL, 50);
    assert_not_reached ();
  } catch (Error late) {
    assert_true (late is IOError.TIMED_OUT);
  }
  kept = null;
  end_loop (loop);
}

private void check_answers_too_late (Perform run) {
  var loop = new_loop ("late");
  Bg.Operation? kept = null;
  var error = must_fail (run, loop, 50, (operation) => {
    kept = operation;
    return true;
  });

  assert_true (error is IOError.TIMED_OUT);
  kept.answer (new Result (42));
  end_loop (loop);
}

private void check_answers_from_another_thread (Perform run) {
  var loop = new_loop ("thread");

  for (var i = 0; i < 100; i++) {
    Thread<void>? thread = null;
    var result = must_perform (run, loop, (operation) => {
      Bg.Operation kept = operation;

      thread = new Thread<void> ("answers", () => kept.answer (new Result (42)));
      return true;
    });

    assert_true (((Result) result).value == 42);
    thread.join ();
  }
  end_loop (loop);
}

private void check_dropped (Perform run) {
  var loop = new_loop ("dropped");

  assert_true (must_fail (run, loop, -1, () => true) is Bg.Error.UNANSWERED);
  end_loop (loop);
}

private void check_dropped_elsewhere (Perform run) {
  var loop = new_loop ("dropped");
  Thread<void>? thread = null;
  var error = must_fail (run, loop, -1, (operation) => {
    Bg.Operation? kept = operation;

    thread = new Thread<void> ("drops", () => {
      kept = null;
    });
    return true;
  });

  assert_true (error is Bg.Error.UNANSWERED);
  thread.join ();
  end_loop (loop);
}

private void check_cancelled (Perform run) {
  var loop = new_loop ("cancelled");
  var cancellable = new Cancellable ();
  Bg.Operation? kept = null;
  var error = must_fail (run, loop, -1, (operation) => {
    kept = operation;
    cancellable.cancel ();
    return true;
  }, cancellable);

  assert_true (error is IOError.CANCELLED);
  kept = null;
  end_loop (loop);
}

private bool never_begin () {
  assert_not_reached ();
}

private void check_closed (Perform run) {
  var loop = new_loop ("closed");

  end_loop (loop);
  assert_true (must_fail (run, loop, -1, () => never_begin ()) is Bg.Error.CLOSED);
}

private void test_perform_on_its_own_thread () {
  var loop = new_loop ("own");

  try {
    loop.call (() => {
      assert_true (must_fail (perform, loop, -1, () => never_begin ())
                   is Bg.Error.WOULD_DEADLOCK);
      return true;
    });
  } catch (Error error) {
    GLib.error ("%s", error.message);
  }
  end_loop (loop);
}

[CCode (has_target = false)]
private delegate void Check (Perform run);

private void add_operation_test (string name, Check check) {
  Test.add_data_func ("/vala/perform/" + name, () => check (perform));
  Test.add_data_func ("/vala/perform-async/" + name, () => check (perform_async));
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
  Test.add_func ("/vala/perform/own-thread", test_perform_on_its_own_thread);
  add_operation_test ("answers", check_answers);
  add_operation_test ("answers-at-once", check_answers_at_once);
  add_operation_test ("answers-too-late", check_answers_too_late);
  add_operation_test ("answers-from-another-thread", check_answers_from_another_thread);
  add_operation_test ("throws-unchanged", check_throws_unchanged);
  add_operation_test ("never-answered", check_never_answered);
  add_operation_test ("dropped", check_dropped);
  add_operation_test ("dropped-elsewhere", check_dropped_elsewhere);
  add_operation_test ("cancelled", check_cancelled);
  add_operation_test ("closed", check_closed);

  return Test.run ();
}
