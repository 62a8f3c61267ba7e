# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the override of gi.repository.Bg is made of. Nothing here is for others to import."""
