# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs programs, one for each line: a child that is forked off before there is any loop, and that ends as
programs do. Says for each how it has ended, and what it has said."""

import json
import os
import signal
import sys
import tempfile

import bgloop

HANG_SECONDS = 60

bgloop.Loop  # so that the library is loaded

text = None
for line in sys.stdin:
    output, errors = tempfile.TemporaryFile('w+'), tempfile.TemporaryFile('w+')
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANG_SECONDS)
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        output.close()
        errors.close()
        text = json.loads(line)
        del line, output, errors
        break

    _, status = os.waitpid(pid, 0)
    said = []
    for file in output, errors:
        file.seek(0)
        said.append(file.read())
        file.close()
    print(json.dumps([os.waitstatus_to_exitcode(status), *said]), flush=True)

if text is not None:
    del pid
    exec(compile(text, 'program', 'exec'), {'__name__': '__main__'})
