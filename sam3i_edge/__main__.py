"""`python -m sam3i_edge` is the command `sam3i-edge`."""

from __future__ import annotations

import sys

from sam3i_edge.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
