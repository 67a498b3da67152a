"""The fuzz targets of POP3, IMAP, SASL, PROXY, HTTP and whoson, for a moment, with their corpora."""

import fuzz_http
import fuzz_imap
import fuzz_pop3
import fuzz_proxy
import fuzz_sasl
import fuzz_whoson
import pytest

from support import fuzzing


@pytest.mark.parametrize(
    "target",
    [fuzz_pop3, fuzz_imap, fuzz_sasl, fuzz_proxy, fuzz_http, fuzz_whoson],
    ids=lambda target: target.__name__,
)
def test_nothing_is_found(target: object) -> None:
    name = target.__name__.removeprefix("fuzz_")  # type: ignore[attr-defined]
    assert fuzzing.run(target.check, name, 2.0) > 100  # type: ignore[attr-defined]
