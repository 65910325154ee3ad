"""Runs the console command for ``python -m loopwright``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Python puts the current directory first on sys.path. The next imports must not come from it.
    if not sys.flags.safe_path:
        del sys.path[0]
    from loopwright.cli import console

    sys.exit(console())
