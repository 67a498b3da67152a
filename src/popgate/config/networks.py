"""Checks of networks and addresses that several parts of a configuration share."""

from collections.abc import Iterator

from popgate.config.lines import KeyPath
from popgate.config.schema import Finding
from popgate.values.address import AddressError, ClientAddress, Network

Findings = Iterator[tuple[bool, Finding]]

# A network shorter than this is no network of ours: it is most of the Internet.
SHORTEST_PREFIX = 7

PRIVATE = tuple(
    Network.parse(text)
    for text in (
        "127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "100.64.0.0/10", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


def is_loopback(address: ClientAddress) -> bool:
    return any(address in network for network in PRIVATE[:2])


def network_findings(path: KeyPath, texts: list[str], too_wide: str) -> Findings:
    for index, text in enumerate(texts):
        here = (*path, index)
        try:
            network = Network.parse(text)
        except AddressError as error:
            yield True, Finding(here, "is not a network", f"{error}; such as 192.0.2.0/24 or 192.0.2.7")
            continue
        if too_wide and network.prefix_bits < SHORTEST_PREFIX:
            yield True, Finding(here, "is most of the Internet", too_wide)
        elif ClientAddress.parse(text.partition("/")[0]).text != network.text.partition("/")[0]:
            yield False, Finding(here, f"is read as {network}")
