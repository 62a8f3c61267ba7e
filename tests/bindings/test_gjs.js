// Copyright 2026 The bgloop developers
// SPDX-License-Identifier: LGPL-2.1-or-later

// What a program in GJS does with a loop, through the typelib alone (TAP). JavaScript has one thread: no function
// of it runs on the loop. docs/gjs.md says so.

imports.gi.versions.Bg = '1.0';
const {Bg, Gio, GLib, GObject} = imports.gi;
const System = imports.system;

const {DRAIN, CANCEL} = Bg.ShutdownMode;

for (const name of ['shutdown', 'wait'])
    Gio._promisify(Bg.Loop.prototype, `${name}_async`, `${name}_finish`);

function assert(value, what) {
    if (!value)
        throw new Error(what ?? 'this does not hold');
}

function assertEqual(value, expected) {
    assert(value === expected, `${value} is not ${expected}`);
}

function assertError(error, domain, code, text = '') {
    assert(error instanceof GLib.Error, `${error} is no GError`);
    assert(error.matches(domain, code), `${error.domain} ${error.code}: ${error.message}`);
    assert(error.message.includes(text), error.message);
}

// What a function throws.
function caught(func) {
    try {
        func();
    } catch (error) {
        return error;
    }
    throw new Error('nothing was thrown');
}

// What a promise is rejected with.
async function rejected(promise) {
    try {
        await promise;
    } catch (error) {
        return error;
    }
    throw new Error('the promise was kept');
}

const tests = {
    'start'() {
        const loop = Bg.Loop.new('a loop');
        assertEqual(loop.get_name(), 'a loop');
        assertEqual(loop.name, 'a loop');
        assertEqual(loop.get_state(), Bg.LoopState.RUNNING);
        assert(!loop.is_current());
        assertEqual(Bg.Loop.dup_current(), null);
        assert(loop.get_context() instanceof GLib.MainContext);
        assert(loop.shutdown());
        assertEqual(loop.get_state(), Bg.LoopState.STOPPED);
    },

    'properties'() {
        const loop = new Bg.Loop({name: 'with properties', linger: 0, stall_threshold: 1000});
        loop.init(null);
        assertEqual(loop.linger, 0);
        assertEqual(loop.stall_threshold, 1000);
        loop.linger = 20;
        assertEqual(loop.linger, 20);
        loop.shutdown();
    },

    'default'() {
        const loop = Bg.Loop.dup_default();
        assertEqual(Bg.Loop.dup_default(), loop);
        Bg.Loop.reset_default(-1);
        assertEqual(loop.get_state(), Bg.LoopState.STOPPED);
    },

    'look inside'() {
        const loop = Bg.Loop.new('looked at');
        const hold = loop.hold('an upload');
        assert(loop.describe().includes('an upload'), loop.describe());
        assertEqual(loop.get_stats().posted, 0);
        loop.release(hold);
        loop.shutdown();
    },

    // A source of GLib's without a function of JavaScript.
    'attach'() {
        const loop = Bg.Loop.new('with a source');
        const source = GLib.timeout_source_new(3600000);
        assert(loop.attach(source));
        assert(!source.is_destroyed());
        loop.shutdown();
        assert(source.is_destroyed());
        assert(!loop.attach(GLib.timeout_source_new(1)));
    },

    'errors'() {
        const loop = Bg.Loop.new('in the way');
        const hold = loop.hold('a transfer');
        assertError(caught(() => loop.shutdown_full(DRAIN, 0, null)), Gio.IOErrorEnum, Gio.IOErrorEnum.TIMED_OUT,
            'held by "a transfer"');
        const cancellable = new Gio.Cancellable();
        cancellable.cancel();
        assertError(caught(() => loop.wait(-1, cancellable)), Gio.IOErrorEnum, Gio.IOErrorEnum.CANCELLED);
        loop.release(hold);
        assert(loop.wait(-1, null));
        assertError(caught(() => loop.flush(-1, null)), Bg.Error, Bg.Error.CLOSED, 'in the way');
    },

    'quit'() {
        const loop = Bg.Loop.new('left to itself');
        loop.quit(CANCEL);
        assert(loop.wait(-1, null));
        assertEqual(loop.get_state(), Bg.LoopState.STOPPED);
    },

    async 'promises'() {
        const loop = Bg.Loop.new('promising');
        assertError(await rejected(loop.wait_async(0, null)), Gio.IOErrorEnum, Gio.IOErrorEnum.TIMED_OUT);

        const ended = loop.wait_async(-1, null);
        assert(await loop.shutdown_async(DRAIN, -1, null));
        assert(await ended);
    },

    async 'a promise is given up'() {
        const loop = Bg.Loop.new('given up');
        const cancellable = new Gio.Cancellable();
        const ended = rejected(loop.wait_async(-1, cancellable));
        cancellable.cancel();
        assertError(await ended, Gio.IOErrorEnum, Gio.IOErrorEnum.CANCELLED);
        assertEqual(loop.get_state(), Bg.LoopState.RUNNING);
        loop.shutdown();
    },

    // A service that is written in C has its work done there: GIO answers on the thread that asked.
    async 'beside GIO'() {
        Gio._promisify(Gio.File.prototype, 'load_contents_async', 'load_contents_finish');
        const loop = Bg.Loop.new('beside');
        const file = Gio.File.new_for_path(imports.system.programInvocationName);
        const [contents] = await file.load_contents_async(null);
        assert(contents.length > 0);
        assert(await loop.shutdown_async(CANCEL, -1, null));
    },

    // Each object goes with what refers to it, so nothing that was ended is left.
    'nothing stays'() {
        System.gc();
        assertEqual(Bg.test_describe_loops(0, -1) ?? '', '');
    },
};

async function run() {
    let failed = 0;
    for (const [index, [name, test]] of Object.entries(tests).entries()) {
        try {
            await test();
            print(`ok ${index + 1} ${name}`);
        } catch (error) {
            failed = 1;
            print(`not ok ${index + 1} ${name}`);
            printerr(`${error}\n${error.stack}`);
        }
    }
    return failed;
}

const main = new GLib.MainLoop(null, false);
let status = 1;

print(`1..${Object.keys(tests).length}`);
run().then(failed => {
    status = failed;
}).catch(logError).finally(() => main.quit());
main.run();
System.exit(status);
