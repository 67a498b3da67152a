"""How often the long tests repeat themselves: a few rounds in `make test`, many in `make soak`."""

import os


def rounds(usual: int) -> int:
    """`usual`, or what `make soak` asks for in $POPGATE_SOAK_ROUNDS."""
    return int(os.environ.get("POPGATE_SOAK_ROUNDS", "0")) or usual
