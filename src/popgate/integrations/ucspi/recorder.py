"""The program that records a login from inside a chain (see `logins`)."""

import os

RECORDER = os.path.join(os.path.dirname(__file__), "popgate-allow")
"""A script for /bin/sh, installed as popgate-allow."""

with open(RECORDER, encoding="ascii") as _file:
    RECORDER_TEXT = _file.read()
"""What it says, for `sh -c`: the user who has logged in need not be able to reach the file."""
