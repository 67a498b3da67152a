"""The fuzz target of the datagrams for a moment, with its corpus."""

import fuzz_relay_ctrl_udp

from support import fuzzing


def test_nothing_is_found() -> None:
    assert fuzzing.run(fuzz_relay_ctrl_udp.check, "relay_ctrl_udp", 1.0) > 100
