"""Settings of map files (tables [[map]])."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from popgate.values.settings import Doc
from popgate.values.spelling import Form

MapKind = Literal["cdb", "lmdb", "tcprules", "text"]


@dataclass(slots=True)
class MapSettings:
    """One [[map]]: a file that always holds the addresses with a live grant."""

    path: Annotated[
        str,
        Doc(
            "The file, with its ending: Postfix's cdb:/run/popgate/relay is /run/popgate/relay.cdb. Its"
            " directory must be there, closed to other writers, and readable for the mail server. A relative"
            " path is below data_dir.",
            example='"/run/popgate/relay.cdb"',
        ),
    ]
    kind: Annotated[
        MapKind,
        Doc(
            "cdb: a constant database (Postfix, Exim). lmdb: Postfix's lmdb: (needs the extra"
            " popgate[maps]). tcprules: the rules of tcpserver -x. text: a plain list, one address a line."
        ),
    ]
    value: Annotated[
        str,
        Doc(
            "What an address is found with. Empty: RELAY in cdb and lmdb, nothing in text, and in tcprules"
            ' the instructions allow,RELAYCLIENT="".',
            example='"OK"',
        ),
    ] = ""
    spelling: Annotated[
        Form,
        Doc(
            "How IPv6 addresses are written: plain is 2001:db8::1, bracketed [2001:db8::1], sendmail"
            " IPv6:2001:db8:0:0:0:0:0:1, dotted 2001.0db8.0000.0000.0000.0000.0000.0001 (Exim's net-)."
        ),
    ] = "plain"
    rules: Annotated[
        list[str],
        Doc(
            "tcprules: further rules, as tcprules reads them. Whom they deny is denied, grant or no grant;"
            " other settings of theirs are kept.",
            example='["10.0.0.:deny", ":allow"]',
        ),
    ] = field(default_factory=lambda: [":allow"])
    lines: Annotated[
        list[str],
        Doc(
            "text: lines that always stand before the addresses. OpenSMTPD takes no empty list, so it needs"
            " one, of an address that no client has.",
            example='["0.0.0.0"]',
        ),
    ] = field(default_factory=list)
    command: Annotated[
        list[str],
        Doc(
            "A program with its arguments, run without a shell after each change, as the server's user.",
            example='["smtpctl", "update", "table", "granted"]',
        ),
    ] = field(default_factory=list)
    file_mode: Annotated[str, Doc("The permissions of the file.", example='"0640"')] = "0644"
    file_group: Annotated[
        str, Doc("The group of the file. Empty: the server's own.", example='"postfix"')
    ] = ""
