"""The fuzz targets of the protocols that other servers ask, for a moment, with their corpora."""

import fuzz_opensmtpd_table
import fuzz_postfix_policy
import fuzz_relay_line
import fuzz_socketmap
import fuzz_tcp_table
import pytest

from support import fuzzing

TARGETS = [fuzz_postfix_policy, fuzz_socketmap, fuzz_tcp_table, fuzz_relay_line, fuzz_opensmtpd_table]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_nothing_is_found(target: object) -> None:
    name = target.__name__.removeprefix("fuzz_")  # type: ignore[attr-defined]
    assert fuzzing.run(target.check, name, 1.5) > 100  # type: ignore[attr-defined]
