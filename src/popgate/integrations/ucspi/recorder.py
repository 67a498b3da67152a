"""Where the program lies that records a login from inside a chain (see `logins`)."""

import os

RECORDER = os.path.join(os.path.dirname(__file__), "popgate-allow")
"""A script for /bin/sh."""
