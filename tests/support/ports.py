"""Free ports for servers that cannot be told to take any port."""

import random
import socket
from pathlib import Path

# Seeded tests draw alike in every worker process; this source does not.
_random = random.SystemRandom()
_claims: dict[int, int] = {}  # port to descriptor, open until the process ends


def free_port(host: str = "127.0.0.1") -> int:
    """A port where nobody listens on `host`, not given out twice.

    It is below the range from which the kernel takes ports for outgoing connections, and stays
    bound (never listening) by this process, which stops nobody who sets SO_REUSEADDR.
    """
    least, most = 10240, _first_ephemeral() - 1
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(1000):
        port = _random.randint(least, most)
        if port in _claims:
            continue
        claim = socket.socket(family)
        try:
            # Without SO_REUSEADDR this first bind fails where another process has a claim.
            claim.bind((host, port))
        except OSError:
            claim.close()
            continue
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _claims[port] = claim.detach()
        return port
    raise OSError(f"no free port on {host}")


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    return [free_port(host) for _ in range(count)]


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32768
