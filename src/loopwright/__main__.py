"""Entry point of ``python -m loopwright``, which runs the console command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Python has put the current directory first on sys.path. Modules in the current directory must not be imported.
    if not sys.flags.safe_path:
        del sys.path[0]
    from loopwright.cli import console

    sys.exit(console())
