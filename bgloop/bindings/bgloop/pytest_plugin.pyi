# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

from collections.abc import Iterator

import pytest

from . import Loop

def pytest_addoption(parser: pytest.Parser) -> None: ...
def bg_loop(request: pytest.FixtureRequest, _bgloop_check: None) -> Iterator[Loop]: ...
