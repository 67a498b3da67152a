"""Settings of listeners, TLS and limits (tables [[listener]], [tls], [limits])."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from popgate.values.settings import Bounds, Doc


@dataclass(slots=True)
class ListenerSettings:
    """One [[listener]]."""

    service: Annotated[
        Literal[
            "smtp",
            "submission",
            "pop3",
            "imap",
            "ucspi",
            "relay_ctrl_udp",
            "postfix_policy",
            "socketmap",
            "tcp_table",
            "line",
            "dovecot_auth_policy",
            "http",
            "whoson",
            "whoson_udp",
        ],
        Doc(
            "What is spoken here: smtp (inbound and relaying by grant), submission (by AUTH), pop3, imap,"
            " ucspi: a program of yours answers, as under tcpserver; relay_ctrl_udp: other machines tell of"
            " their logins, by relay-ctrl-send. Other mail servers ask by postfix_policy, socketmap and"
            " tcp_table whether a client may relay, and any other program by line"
            " or http. dovecot_auth_policy: Dovecot tells of its logins. whoson, whoson_udp: programs that"
            " speak whoson tell of logins and ask, by TCP or in datagrams."
        ),
    ]
    bind: Annotated[
        str,
        Doc(
            "Where to listen: HOST:PORT, [V6]:PORT, unix:/PATH, or fd:NAME (systemd socket activation)."
            " Port 0 takes any free port.",
            example='"0.0.0.0:25"',
        ),
    ]
    # RFC 8314 3.3: implicit TLS on ports of its own (995, 993, 465), beside STARTTLS where it was before
    tls: Annotated[
        Literal["none", "starttls", "implicit"],
        Doc("none; starttls: the client may ask for TLS (STLS in POP3); implicit: TLS from the first byte."),
    ] = "none"
    tls_profile: Annotated[
        Literal["modern", "legacy"],
        Doc("modern: TLS 1.2 and newer. legacy: TLS 1.0 and newer, for old devices, on a port of its own."),
    ] = "modern"
    plaintext_login: Annotated[
        bool, Doc("Accept passwords without TLS. Old devices need it; keep such listeners off the Internet.")
    ] = False
    relay_by: Annotated[
        list[Literal["grant", "auth"]] | None,
        Doc(
            "What lets a client relay here (smtp and submission). smtp: both; submission: auth alone,"
            " unless said otherwise.",
            example='["grant", "auth"]',
        ),
    ] = None
    max_connections: Annotated[
        int, Doc("Connections here at the same time."), Bounds(1, 1000000, "connections")
    ] = 1000
    max_connections_per_address: Annotated[
        int,
        Doc(
            "Connections from one address at the same time. Where mail servers ask, max_connections alone"
            " counts."
        ),
        Bounds(1, 1000000, "connections"),
    ] = 20
    backlog: Annotated[
        int,
        Doc(
            "Connections that may wait to be taken, as tcpserver -b; the kernel holds it to"
            " net.core.somaxconn. Not for relay_ctrl_udp."
        ),
        Bounds(1, 65535, "connections"),
    ] = 4096
    proxy_from: Annotated[
        list[str],
        Doc(
            "Networks of load balancers that must send the PROXY protocol (version 1 or 2) first."
            " A PROXY header from anybody else is refused.",
            example='["192.0.2.10"]',
        ),
    ] = field(default_factory=list)
    command: Annotated[
        list[str],
        Doc(
            "ucspi: the program for each connection with its arguments. It runs as `user` with the connection"
            " as descriptors 0 and 1 and the environment that tcpserver gives.",
            example='["/var/qmail/bin/qmail-smtpd"]',
        ),
    ] = field(default_factory=list)
    grant: Annotated[
        Literal["none", "check", "allow"],
        Doc(
            "ucspi: check sets RELAYCLIENT, USER and DOMAIN for clients with a grant and for trusted"
            " networks; allow records the login of a chain with popgate-allow behind its password checker."
        ),
    ] = "none"
    relayclient: Annotated[
        str, Doc('ucspi with grant = "check": what RELAYCLIENT is set to; qmail adds it to each recipient.')
    ] = ""
    on_store_fault: Annotated[
        Literal["defer", "run", "defer_if_permit"],
        Doc(
            'ucspi with grant = "check", when the grants cannot be read: defer answers 421 and closes; run'
            " lets the program take mail for its own domains and refuse to relay, for good."
            " postfix_policy: defer answers 451; defer_if_permit only where a later restriction would permit."
        ),
    ] = "defer"
    rules_file: Annotated[
        str,
        Doc(
            "ucspi: rules compiled by tcprules, as tcpserver -x; read again when they change.",
            example='"/etc/tcp.smtp.cdb"',
        ),
    ] = ""
    remote_host: Annotated[
        Literal["off", "on", "paranoid"],
        Doc(
            "ucspi: look the client's name up for TCPREMOTEHOST. paranoid: only a name that leads back to"
            " the client's address."
        ),
    ] = "off"
    remote_info_seconds: Annotated[
        int,
        Doc("ucspi: how long the client's host is asked who connects (RFC 1413), for TCPREMOTEINFO; 0: not."),
        Bounds(0, 120, "seconds"),
    ] = 0
    memory_bytes: Annotated[
        int,
        Doc("ucspi: memory a program may have, as softlimit -a and -d; 0: no limit."),
        Bounds(0, 1e12, "bytes"),
    ] = 0
    open_files: Annotated[
        int,
        Doc("ucspi: files a program may have open, as softlimit -o; 0: 1024, or what the system gives."),
        Bounds(0, 1000000, "files"),
    ] = 0
    key_file: Annotated[
        str,
        Doc(
            "relay_ctrl_udp: the file with the key by which the callers sign, 16 octets or more, not"
            " readable by others; the same that RELAY_CTRL_KEY names there. Read at start and reload.",
            example='"/etc/popgate/peer-key"',
        ),
    ] = ""
    callers: Annotated[
        list[str],
        Doc(
            "relay_ctrl_udp: the machines whose logins count, besides this one. postfix_policy, socketmap,"
            " tcp_table, line: those that may ask, besides this one. dovecot_auth_policy, http: the only ones"
            " that may connect, besides this one; they need the secret too.",
            example='["192.0.2.110", "2001:db8::110"]',
        ),
    ] = field(default_factory=list)
    insecure: Annotated[
        bool,
        Doc(
            "relay_ctrl_udp: take the datagrams of relay-ctrl's own programs too, which name nobody and"
            " which anybody can forge who can send in a caller's name. Without a key they are taken"
            " between loopback addresses."
        ),
    ] = False
    socket_group: Annotated[
        str,
        Doc(
            "The system group that may connect to a unix: socket; empty: that of the process. Like"
            " socket_mode it counts when the socket is made: a reload changes neither.",
            example='"postfix"',
        ),
    ] = ""
    socket_mode: Annotated[
        str, Doc("The permissions of a unix: socket, in octal; whoever may write may connect.")
    ] = "0660"
    refusal: Annotated[
        Literal["dunno", "text"],
        Doc(
            "postfix_policy, for a client that may not relay: dunno leaves it to the restriction behind;"
            " text refuses with 550 and says what to do, so it must stand behind permit_auth_destination."
        ),
    ] = "dunno"
    charge: Annotated[
        Literal["rcpt", "data", "end-of-message"],
        Doc(
            "postfix_policy: when a message counts for its quota. rcpt needs no further restriction, and"
            " counts refused and broken off messages too; data and end-of-message need the same"
            " check_policy_service in smtpd_data_restrictions or smtpd_end_of_data_restrictions."
        ),
    ] = "rcpt"
    identity_header: Annotated[
        str,
        Doc(
            "postfix_policy: the header field that names who logged in, put on top of relayed messages;"
            " needs the same check_policy_service in smtpd_data_restrictions. Empty: only the log does.",
            example='"X-Popgate-Identity"',
        ),
    ] = ""
    permit_authenticated: Annotated[
        bool, Doc("postfix_policy: a client that Postfix has authenticated may relay without a grant.")
    ] = False
    map_value: Annotated[
        str,
        Doc(
            "socketmap, tcp_table: what an address that may relay is found with. RELAY serves Sendmail and"
            " Postfix, permit postscreen.",
        ),
    ] = "RELAY"
    line_end: Annotated[
        Literal["lf", "none"],
        Doc("line: what stands behind an answer. none: nothing, and the connection is closed behind it."),
    ] = "lf"
    secret_file: Annotated[
        str,
        Doc(
            "dovecot_auth_policy and http: the file with the secret that each request must bring, 16 octets"
            " or more, not readable by others. Read at start and reload.",
            example='"/etc/popgate/dovecot-secret"',
        ),
    ] = ""
    default_domain: Annotated[
        str,
        Doc(
            "dovecot_auth_policy, whoson, whoson_udp: the domain of users who are known by name alone; else"
            " it is the first of local_domains.",
            example='"example.org"',
        ),
    ] = ""
    session_ends: Annotated[
        bool,
        Doc(
            "dovecot_auth_policy: Dovecot's event exporter tells when sessions end, so a grant lasts while"
            " one is open (docs/dovecot.md)."
        ),
    ] = False


UCSPI_ONLY = (
    "command",
    "grant",
    "relayclient",
    "rules_file",
    "remote_host",
    "remote_info_seconds",
    "memory_bytes",
    "open_files",
)
"""Settings of a listener that say something for service = "ucspi" alone."""

DATAGRAM_SERVICES = ("relay_ctrl_udp", "whoson_udp")
"""Services that take datagrams instead of connections."""

WHOSON_SERVICES = ("whoson", "whoson_udp")

HTTP_SERVICES = ("dovecot_auth_policy", "http")

DOVECOT_ONLY = ("session_ends",)
"""The same for service = "dovecot_auth_policy"; secret_file is for both services over HTTP."""

PEERS_ONLY = ("key_file", "insecure")
"""The same for service = "relay_ctrl_udp"."""

DELEGATION_ONLY = ("refusal", "charge", "identity_header", "permit_authenticated")
"""The same for service = "postfix_policy"."""

QUESTION_SERVICES = ("postfix_policy", "socketmap", "tcp_table", "line")
"""Services that other mail servers and programs ask."""


@dataclass(slots=True)
class TlsSettings:
    """The [tls] table."""

    certificate: Annotated[
        str,
        Doc(
            "The certificate chain (PEM), read again when the file changes.",
            example='"/etc/popgate/tls/cert.pem"',
        ),
    ] = ""
    key: Annotated[
        str, Doc("The private key (PEM), not readable by others.", example='"/etc/popgate/tls/key.pem"')
    ] = ""


@dataclass(slots=True)
class LimitSettings:
    """The [limits] table."""

    message_bytes: Annotated[
        int, Doc("The largest message accepted, by SMTP and by IMAP's APPEND."), Bounds(1024, 1e10, "bytes")
    ] = 52428800
    recipients: Annotated[
        int,
        Doc("Recipients of one message; RFC 5321 asks for at least 100."),
        Bounds(1, 100000, "recipients"),
    ] = 1000
    command_seconds: Annotated[
        int, Doc("How long a client may think between two commands."), Bounds(1, 3600, "seconds")
    ] = 300
    pop3_idle_seconds: Annotated[
        int, Doc("POP3's autologout; RFC 1939 asks for at least ten minutes."), Bounds(1, 86400, "seconds")
    ] = 600
    imap_idle_seconds: Annotated[
        int,
        Doc(
            "IMAP's autologout, for a client that idles too; RFC 9051 asks for at least half an hour. What"
            " the server says by itself does not count."
        ),
        Bounds(1, 86400, "seconds"),
    ] = 1800
    login_seconds: Annotated[
        int,
        Doc("How long a POP3 or IMAP client may take until it has logged in."),
        Bounds(1, 3600, "seconds"),
    ] = 60
    minimum_bytes_per_second: Annotated[
        int,
        Doc("The least average rate at which a message body must arrive."),
        Bounds(0, 1e6, "bytes a second"),
    ] = 500
    errors: Annotated[
        int,
        Doc("Refused or misunderstood commands after which a session is closed."),
        Bounds(1, 1000, "errors"),
    ] = 20
    junk: Annotated[
        int,
        Doc("Commands that do nothing (NOOP, RSET, VRFY, EHLO again) after which a session is closed."),
        Bounds(1, 100000, "commands"),
    ] = 100
    drain_seconds: Annotated[
        int,
        Doc("How long open sessions may go on when the server stops or reloads."),
        Bounds(0, 3600, "seconds"),
    ] = 30
    connections_per_subnet: Annotated[
        int,
        Doc(
            "Connections from one /24 (IPv4) or /64 (IPv6) at the same time, over all listeners; a /48"
            " may have four times as many."
        ),
        Bounds(1, 1000000, "connections"),
    ] = 200
    sessions_per_user: Annotated[
        int,
        Doc(
            "Sessions of one account at the same time, POP3, IMAP and authenticated SMTP together. A mail"
            " program keeps several of IMAP open on each device."
        ),
        Bounds(1, 60000, "sessions"),
    ] = 50
