-- Copyright 2026 The bgloop developers
-- SPDX-License-Identifier: LGPL-2.1-or-later

-- Operations on a loop from Lua, through the typelib alone, with lgi (TAP).
--
-- Lua has one thread. lgi has a lock for it, which it gives up for as long as Lua waits in C, as in
-- a blocking perform(): meanwhile what is called on the loop's thread may run. It runs on the Lua
-- stack that the function was made on, and nothing else may use this one until it has returned, so:
--
--   * What runs on the loop is given as a coroutine, which has a stack of its own, and what this
--     hands on in turn as plain functions, which share it. What raises an error there must catch it.
--   * An operation is referred to by ref() if it is to be kept; lgi alone does not.
--   * lgi has no way for a callback to set a GError: an operation that cannot begin answers with a
--     task that has failed.
--   * lgi's own destroy notify does not take its lock. In perform_async() it runs on the loop's
--     thread, when the coroutine has returned, and Lua has to wait in C until then.

local lgi = require 'lgi'
local GLib, Gio = lgi.GLib, lgi.Gio
local Bg = lgi.require('Bg', '1.0')

local PRIORITY = GLib.PRIORITY_DEFAULT

io.stdout:setvbuf('line')

local function new_loop()
  return assert(Bg.Loop.new('a lua loop'))
end

local function end_loop(loop)
  assert(loop:shutdown())
  assert(loop:get_state() == 'STOPPED')
end

local function on_loop(func)
  return coroutine.create(function(...)
    local done, answer = pcall(func, ...)
    if not done then
      io.stderr:write(tostring(answer), '\n')
    end
    return done and answer
  end)
end

local function assert_error(error, domain, code)
  assert(error, 'no error')
  assert(error:matches(domain, code), tostring(error.code) .. ': ' .. error.message)
end

local function new_result(value)
  local task = Gio.Task.new(nil, nil, nil)
  task:return_int(value)
  return task
end

local readable = Gio.File.new_for_path(arg[0])
local missing = Gio.File.new_for_path('/nonexistent/file')

local function load_cb(file)
  return on_loop(function(operation, cancellable)
    operation = operation:ref()
    file:load_contents_async(cancellable, function(_, result)
      operation:answer(result)
    end)
    return true
  end)
end

-- What comes of it: a result, or nil and an error.
local function perform_async(loop, timeout, func, cancellable, meanwhile)
  local context = GLib.MainContext.default()
  local replied, result, error

  assert(Bg.test_pause(loop))
  loop:perform_async(PRIORITY, timeout, func, cancellable, function(source, answer)
    result, error = source:perform_finish(answer)
    replied = true
  end)
  Bg.test_run_until_idle(loop)
  Bg.test_resume(loop)

  if meanwhile then
    meanwhile()
  end
  while not replied do
    context:iteration(true)
  end
  return result, error
end

local function perform(loop, timeout, func, cancellable)
  return loop:perform(PRIORITY, timeout, func, cancellable)
end

local tests = {}

local function add_test(name, func)
  tests[#tests + 1] = { name = name, func = func }
end

for name, run in pairs { perform = perform, ['perform-async'] = perform_async } do
  add_test(name .. '/answers', function()
    local loop = new_loop()
    local result = assert(run(loop, -1, load_cb(readable)))
    assert(readable:load_contents_finish(result):find('The bgloop developers'))
    end_loop(loop)
  end)

  add_test(name .. '/answers-at-once', function()
    local loop = new_loop()
    local result = assert(run(loop, -1, on_loop(function(operation)
      assert(loop:is_current())
      operation:answer(new_result(42))
      return true
    end)))
    assert(result:propagate_int() == 42)
    end_loop(loop)
  end)

  add_test(name .. '/answers-many-times', function()
    local loop = new_loop()
    for _ = 1, 100 do
      local result = assert(run(loop, -1, load_cb(readable)))
      assert(readable:load_contents_finish(result))
    end
    end_loop(loop)
  end)

  add_test(name .. '/answers-that-it-failed', function()
    local loop = new_loop()
    local result = assert(run(loop, -1, load_cb(missing)))
    local contents, error = missing:load_contents_finish(result)
    assert(not contents)
    assert_error(error, Gio.IOErrorEnum, 'NOT_FOUND')
    end_loop(loop)
  end)

  add_test(name .. '/begins-nothing', function()
    local loop = new_loop()
    local result, error = run(loop, -1, on_loop(function()
      return false
    end))
    assert(not result)
    assert_error(error, Gio.IOErrorEnum, 'FAILED')
    end_loop(loop)
  end)

  add_test(name .. '/never-answered', function()
    local loop = new_loop()
    local kept, told
    local result, error = run(loop, 50, on_loop(function(operation, cancellable)
      kept, told = operation:ref(), cancellable
      return true
    end))
    assert(not result)
    assert_error(error, Gio.IOErrorEnum, 'TIMED_OUT')
    assert(told:is_cancelled())

    local ended
    ended, error = loop:shutdown_full('CANCEL', 50)
    assert(not ended)
    assert_error(error, Gio.IOErrorEnum, 'TIMED_OUT')
    assert(kept)
    kept = nil
    collectgarbage()
    collectgarbage()
    end_loop(loop)
  end)

  add_test(name .. '/dropped-unanswered', function()
    local loop = new_loop()
    local result, error = run(loop, -1, on_loop(function()
      return true
    end))
    assert(not result)
    assert_error(error, Bg.Error, 'UNANSWERED')
    end_loop(loop)
  end)

  add_test(name .. '/cancelled', function()
    local loop = new_loop()
    local cancellable = Gio.Cancellable()
    local kept
    local result, error = run(loop, -1, on_loop(function(operation)
      kept = operation:ref()
      cancellable:cancel()
      return true
    end), cancellable)
    assert(not result)
    assert_error(error, Gio.IOErrorEnum, 'CANCELLED')
    kept:answer(new_result(0)) -- too late, without harm
    end_loop(loop)
  end)
end

-- Lua cannot make a thread: that of another loop is one, and so is that of the caller.
add_test('perform/answers-from-another-thread', function()
  local loop, other = new_loop(), new_loop()
  local result = assert(perform(loop, -1, on_loop(function(operation)
    local kept = operation:ref()
    assert(other:post(on_loop(function()
      assert(other:is_current())
      kept:answer(new_result(42))
    end)))
    return true
  end)))
  assert(result:propagate_int() == 42)
  end_loop(loop)
  end_loop(other)
end)

add_test('perform-async/answers-from-another-thread', function()
  local loop = new_loop()
  local kept
  local result = assert(perform_async(loop, -1, on_loop(function(operation)
    kept = operation:ref()
    return true
  end), nil, function()
    assert(kept and not loop:is_current())
    kept:answer(new_result(42))
  end))
  assert(result:propagate_int() == 42)
  end_loop(loop)
end)

add_test('perform/closed', function()
  local loop = new_loop()
  end_loop(loop)
  local result, error = perform(loop, -1, load_cb(readable))
  assert(not result)
  assert_error(error, Bg.Error, 'CLOSED')
end)

add_test('perform/own-thread', function()
  local loop = new_loop()
  local seen
  local result = assert(perform(loop, -1, on_loop(function(operation)
    local _, error = perform(loop, -1, load_cb(readable))
    seen = error
    operation:answer(new_result(0))
    return true
  end)))
  assert(result)
  assert_error(seen, Bg.Error, 'WOULD_DEADLOCK')
  end_loop(loop)
end)

table.sort(tests, function(a, b) return a.name < b.name end)
print('1..' .. #tests)
local n_failed = 0
for i, test in ipairs(tests) do
  local done, trace = xpcall(test.func, debug.traceback)
  print((done and 'ok ' or 'not ok ') .. i .. ' /lua/' .. test.name)
  if not done then
    n_failed = n_failed + 1
    print('# ' .. tostring(trace):gsub('\n', '\n# '))
  end
end
os.exit(n_failed == 0 and 0 or 1)
