"""The addresses of this machine are read from what the kernel shows."""

import socket
from pathlib import Path

from popgate.app.own_addresses import own_addresses
from popgate.values.address import ClientAddress

# As the kernel prints it: one interface with 192.0.2.5/24, and loopback.
FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.5
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000005 02 40 00 00     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
"""


def test_every_interface_but_loopback(tmp_path: Path) -> None:
    fib_trie, if_inet6 = tmp_path / "fib_trie", tmp_path / "if_inet6"
    fib_trie.write_text(FIB_TRIE)
    if_inet6.write_text(IF_INET6)
    found = own_addresses(str(fib_trie), str(if_inet6))
    assert found == {ClientAddress.parse(text) for text in ("192.0.2.5", "2001:db8::5", "fe80::1")}


def test_a_kernel_that_shows_nothing_is_no_fault(tmp_path: Path) -> None:
    assert own_addresses(str(tmp_path / "none"), str(tmp_path / "none")) == frozenset()


def test_it_finds_the_address_that_this_machine_uses() -> None:
    """Connecting a datagram socket sends nothing; it chooses the address that packets would have."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine without a network has no address of its own
        address = ClientAddress.parse(probe.getsockname()[0])
    assert address in own_addresses() or address.packed[0] == 127
