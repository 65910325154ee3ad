"""``python -m loopwright``: the same as the console command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Python puts the current directory first, and what is imported next must not come from there.
    if not sys.flags.safe_path:
        del sys.path[0]
    from loopwright.cli import console

    sys.exit(console())
