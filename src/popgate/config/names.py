"""Are these domain names?"""

import re

# RFC 1123 2.1: letters, digits and inner hyphens; up to 63 a label
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def domain_fault(name: str) -> str:
    """What keeps `name` from being a domain name, "" when it is one."""
    if not name:
        return "is empty"
    if not name.isascii():
        try:
            return f"must be in its ASCII form, {name.encode('idna').decode('ascii')}"
        except UnicodeError:
            return "must be in its ASCII form (xn--...)"
    if name.endswith("."):
        return "must not end with a dot"
    if len(name) > 253:
        return "is longer than 253 characters"
    if "@" in name:
        return "must be a domain, without user and @"
    for label in name.lower().split("."):
        if not _LABEL.match(label):
            return f"is not a domain name: {label!r} must be letters, digits and inner hyphens"
    if name.rpartition(".")[2].isdigit():
        return "is not a domain name but looks like an address"
    return ""
