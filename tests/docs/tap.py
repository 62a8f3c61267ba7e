# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results for `meson test`, a line each."""

import concurrent.futures


def run(checks):
    """Runs named checks, several at once. Each returns what is wrong, or nothing. Returns the exit status."""
    print(f'1..{len(checks)}', flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = [(name, pool.submit(check)) for name, check in checks]
        for number, (name, result) in enumerate(results, 1):
            wrong = result.result()
            failed += bool(wrong)
            print(f'{"not ok" if wrong else "ok"} {number} - {name}', flush=True)
            for line in (wrong or '').splitlines():
                print('#', line)
    return 1 if failed or not checks else 0
