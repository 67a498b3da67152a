"""The `popgate` command: what people type, and what they read.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 the answer is no,
2 wrong usage or configuration, 75 temporary failure.
"""

from popgate.cli.root import main

__all__ = ["main"]
