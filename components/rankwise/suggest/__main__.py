"""``python -m rankwise.suggest`` is ``rankwise serve-suggestions``."""

from __future__ import annotations

import sys

from rankwise.suggest.command import main

if __name__ == "__main__":
    sys.exit(main())
