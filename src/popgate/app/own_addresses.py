"""The addresses of this machine, which never get a grant: whoever comes from them is a program here."""

from popgate.values.address import ClientAddress

_FIB_TRIE = "/proc/net/fib_trie"
_IF_INET6 = "/proc/net/if_inet6"


def own_addresses(fib_trie: str = _FIB_TRIE, if_inet6: str = _IF_INET6) -> frozenset[ClientAddress]:
    """Every interface's addresses but loopback's (`never` says whether those count).

    Reads what the Linux kernel shows; where it shows nothing the set is empty and `never`
    must name them.
    """
    found = set()
    try:
        with open(fib_trie, encoding="utf-8") as table:
            before = ""
            for line in table:
                if "/32 host LOCAL" in line and "|--" in before:
                    found.add(ClientAddress.parse(before.split()[-1]))
                before = line
    except OSError:
        pass
    try:
        with open(if_inet6, encoding="utf-8") as table:
            found.update(ClientAddress(bytes.fromhex(line.split()[0])) for line in table)
    except OSError:
        pass
    return frozenset(address for address in found if not _is_loopback(address))


def _is_loopback(address: ClientAddress) -> bool:
    return address.text == "::1" or (not address.is_ipv6 and address.packed[0] == 127)
