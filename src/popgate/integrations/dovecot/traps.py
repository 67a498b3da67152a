"""What is wrong in a Dovecot's configuration where its logins shall give grants.

Dovecot's defaults are for a server that is asked about each login; popgate only wants to be told. So
most of these traps are a default that nobody changed. What popgate's own side says, where it can be
read, is compared: a URL that leads nowhere and a secret that nobody sends are silent in both logs.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from popgate.integrations.dovecot.doveconf import Block, Doveconf, Setting
from popgate.integrations.dovecot.places import OurListener, is_right_header, is_same_host, split_url
from popgate.integrations.dovecot.reports import EVENT_PATH
from popgate.integrations.findings import Finding, Level, in_order
from popgate.values.address import AddressError, Network

DEFAULT_PORT: Final = 22800
_NO = frozenset(("no", "0", "false"))
# what each attribute must be, in the words of 2.3 and 2.4
_ATTRIBUTES: Final = {
    "remote": ("%{rip}", "%r", "%{remote_ip}", "%{remote_ip }"),
    "protocol": ("%s", "%{service}", "%{protocol}"),
}
_DEFAULT_ATTRIBUTES = (
    "login=%{requested_username} pwhash=%{hashed_password} remote=%{rip} device_id=%{client_id}"
    " protocol=%s session_id=%{session}"
)
_GOOD_ATTRIBUTES = (
    "login=%{requested_username} user=%{user} master=%{master_user} remote=%{rip} protocol=%s"
    " session_id=%{session}"
)
_GOOD_ATTRIBUTES_NEW = (
    "{ login = %{requested_username}  user = %{user}  master = %{master_user}  remote = %{remote_ip}"
    "  protocol = %{protocol}  session_id = %{session} }"
)
_WIDEST_PROXIES = {4: 16, 6: 32}
"""Bits of a network of proxies below which it is more than somebody's machines."""


def examine(conf: Doveconf, ours: Sequence[OurListener] | None) -> list[Finding]:
    """What is wrong. `ours`: popgate's listeners for Dovecot, None where its configuration cannot be read."""
    examination = _Examination(conf, ours)
    return in_order(list(examination.run()))


class _Examination:
    def __init__(self, conf: Doveconf, ours: Sequence[OurListener] | None) -> None:
        self._conf = conf
        self._ours = ours
        self._exporters = [block for block in conf.root.find("event_exporter") if self._is_http(block)]
        url = conf.get("auth_policy_server_url")
        self._url = url if url is not None and url.content else None

    def run(self) -> Iterator[Finding]:
        yield from self._mechanisms()
        yield from self._proxies()
        if self._url is None and not self._exported("auth_request_finished"):
            yield self._finding(
                "nothing-told",
                "broken",
                None,
                "Dovecot tells nobody of its logins: there is no auth_policy_server_url, and no event"
                " exporter that sends auth_request_finished by HTTP",
                f"auth_policy_server_url = http://127.0.0.1:{self._our_port}/ and the lines of"
                " docs/dovecot.md",
            )
        if self._url is not None:
            yield from self._policy(self._url)
        for exporter in self._exporters:
            yield from self._exporter(exporter)
        yield from self._ends()

    def _finding(self, trap: str, level: Level, setting: Setting | None, what: str, remedy: str) -> Finding:
        line = None if setting is None else setting.line
        return Finding(trap, level, self._conf.source, line, what, remedy)

    @property
    def _our_port(self) -> int:
        return self._ours[0].port if self._ours and self._ours[0].port else DEFAULT_PORT

    # who can log in, and from where

    def _mechanisms(self) -> Iterator[Finding]:
        setting = self._conf.get("auth_mechanisms")
        if setting is not None and "anonymous" in setting.content.lower().split():
            yield self._finding(
                "anonymous-logins",
                "danger",
                setting,
                "auth_mechanisms has anonymous: whoever likes logs in, and then his address may relay",
                "take anonymous out of auth_mechanisms",
            )

    def _proxies(self) -> Iterator[Finding]:
        for name in ("login_trusted_networks", "haproxy_trusted_networks"):
            setting = self._conf.get(name)
            for text in re.split(r"[\s,]+", setting.content) if setting is not None else ():
                network = _network(text)
                if network is None:
                    continue
                bits = _WIDEST_PROXIES[6 if network.base.is_ipv6 else 4]
                if network.prefix_bits < bits and not _is_private(network):
                    yield self._finding(
                        "wide-trusted-networks",
                        "danger",
                        setting,
                        f"{name} has {network}: whoever connects from there names the address that he logs in"
                        " from, and gets a grant for it",
                        "list the addresses of your own proxies only",
                    )

    # authentication policy

    def _policy(self, url: Setting) -> Iterator[Finding]:
        yield from self._checks()
        report = self._conf.get("auth_policy_report_after_auth")
        if report is not None and report.content.lower() in _NO:
            yield self._finding(
                "report-off",
                "broken",
                report,
                "auth_policy_report_after_auth = no: logins are asked about and never told of",
                "auth_policy_report_after_auth = yes",
            )
        nonce = self._conf.get("auth_policy_hash_nonce")
        if nonce is None or not nonce.content:
            yield self._finding(
                "no-nonce",
                "broken",
                nonce or url,
                "auth_policy_hash_nonce is missing: with auth_policy_server_url alone Dovecot does not start",
                "auth_policy_hash_nonce = any string of your own",
            )
        yield from self._attributes(url)
        yield from self._place(url, "auth_policy_server_url", "/")
        yield from self._api_header(url)

    def _checks(self) -> Iterator[Finding]:
        for name in ("auth_policy_check_before_auth", "auth_policy_check_after_auth"):
            setting = self._conf.get(name)
            if setting is None or setting.content.lower() not in _NO:
                yield self._finding(
                    "checks-left-on",
                    "broken",
                    setting,
                    f"{name} is on, as it is by default: each login waits for popgate's answer, up to two"
                    " seconds more while popgate is down or slow",
                    f"{name} = no",
                )
        reject = self._conf.get("auth_policy_reject_on_fail")
        if reject is not None and reject.content.lower() not in _NO:
            yield self._finding(
                "reject-on-fail",
                "broken",
                reject,
                "auth_policy_reject_on_fail = yes: nobody can log in while popgate is down, if a check is on",
                "auth_policy_reject_on_fail = no",
            )

    def _attributes(self, url: Setting) -> Iterator[Finding]:
        setting = self._conf.get("auth_policy_request_attributes")
        blocks = list(self._conf.root.find("auth_policy_request_attributes"))
        good = _GOOD_ATTRIBUTES_NEW if self._conf.is_new else f"= {_GOOD_ATTRIBUTES}"
        remedy = f"auth_policy_request_attributes {good}"
        if self._conf.is_new and setting is not None and not blocks:
            yield self._finding(
                "attributes-of-2.3",
                "broken",
                setting,
                "auth_policy_request_attributes is one line, as in 2.3; since 2.4 it is a block",
                remedy,
            )
        named = _named_attributes(setting, blocks)
        line = setting or (Setting("", blocks[0].line) if blocks else url)
        if "pwhash" in named or any("password" in content for content in named.values()):
            yield self._finding(
                "password-hash-sent",
                "advice",
                line,
                "auth_policy_request_attributes sends a piece of the password's hash with each login, as it"
                " does by default; popgate does not want it",
                remedy,
            )
        if "user" not in named and "login" not in named:
            yield self._finding(
                "attribute-missing", "broken", line, "the attributes name no user: none gets a grant", remedy
            )
        for name, right in _ATTRIBUTES.items():
            content = named.get(name)
            if content is None:
                yield self._finding(
                    "attribute-missing",
                    "broken",
                    line,
                    f"the attributes have no {name}: reports are refused with 400",
                    remedy,
                )
            elif content not in right:
                level: Level = "danger" if name == "remote" else "broken"
                yield self._finding(
                    "attribute-wrong",
                    level,
                    line,
                    f"{name}={content} is not what popgate takes it for: the {name} of the client",
                    remedy,
                )
        if "master" not in named:
            yield self._finding(
                "master-logins",
                "advice",
                line,
                "the attributes have no master: a master user who opens somebody's mailbox gets a grant in"
                " that user's name",
                remedy,
            )

    # where to, and with what secret

    def _place(self, setting: Setting, name: str, path: str) -> Iterator[Finding]:
        """`setting` holds a URL that must lead to a listener of ours, at `path`."""
        parts = split_url(setting.content)
        if parts is None or parts.scheme not in ("http", "https") or not parts.host:
            yield self._finding(
                "no-url",
                "broken",
                setting,
                f"{name} is no URL of HTTP",
                f"{name} = http://127.0.0.1:{self._our_port}{path}",
            )
            return
        if parts.path != path or (path == "/" and parts.query):
            yield self._finding(
                "wrong-path",
                "broken",
                setting,
                f"popgate takes these at {path}, and {name} asks for {parts.path or 'nothing'}",
                f"let the URL end with {path} right behind the port",
            )
        if self._ours is None:
            return
        listener = self._listener(parts.host, parts.port)
        if listener is None:
            listening = ", ".join(one.text for one in self._ours if one.host) or "nowhere"
            yield self._finding(
                "not-ours",
                "broken",
                setting,
                f"{name} leads to {parts.host} port {parts.port}, and popgate listens for Dovecot at"
                f" {listening}",
                'give the address and port of the listener with service = "dovecot_auth_policy"',
            )
        elif (parts.scheme == "https") is not listener.has_tls:
            yield self._finding(
                "tls-on-one-side",
                "broken",
                setting,
                f"{name} speaks {parts.scheme}, and the listener at {listener.text} speaks"
                f" {'https' if listener.has_tls else 'http'}",
                "let both sides say the same; on loopback http is enough",
            )

    def _listener(self, host: str, port: int) -> OurListener | None:
        return next(
            (one for one in self._ours or () if one.port == port and is_same_host(host, one.host)), None
        )

    def _api_header(self, url: Setting) -> Iterator[Finding]:
        parts = split_url(url.content)
        listener = None if parts is None else self._listener(parts.host, parts.port)
        if listener is None or not listener.wants_secret:
            return
        setting = self._conf.get("auth_policy_server_api_header")
        if setting is None or not setting.content:
            yield self._finding(
                "no-secret",
                "broken",
                url,
                "popgate asks for a secret, and auth_policy_server_api_header is missing, or not readable for"
                " whoever runs this: each report is refused with 401",
                "auth_policy_server_api_header = Authorization: Bearer SECRET",
            )
        elif listener.secret is not None and not is_right_header(setting.content, listener.secret):
            yield self._finding(
                "wrong-secret",
                "broken",
                setting,
                "auth_policy_server_api_header does not bring the secret that popgate's secret_file holds:"
                " each report is refused with 401",
                "auth_policy_server_api_header = Authorization: Bearer SECRET",
            )

    # event exporter

    def _is_http(self, exporter: Block) -> bool:
        transport = exporter.settings.get("transport") or exporter.settings.get("driver")
        return transport is not None and transport.content == "http-post"

    def _exported(self, event: str) -> bool:
        """Is such an event sent by HTTP?"""
        names = {exporter.name for exporter in self._exporters}
        for metric in self._conf.root.find("metric"):
            sent_by = metric.settings.get("exporter")
            chosen = metric.settings.get("filter") or metric.settings.get("event_name")
            if (
                sent_by is not None
                and sent_by.content in names
                and chosen is not None
                and event in chosen.content
            ):
                return True
        return False

    def _exporter(self, exporter: Block) -> Iterator[Finding]:
        url = exporter.settings.get("transport_args") or exporter.settings.get("http_post_url")
        parts = None if url is None else split_url(url.content)
        if url is None or parts is None:
            return
        if parts.path != EVENT_PATH and not (self._ours and self._listener(parts.host, parts.port)):
            return  # somebody else's
        yield from self._place(url, f"the URL of event_exporter {exporter.name}", EVENT_PATH)
        form = exporter.settings.get("format")
        if form is None or form.content != "json":
            yield self._finding(
                "exporter-format",
                "broken",
                form or url,
                f"event_exporter {exporter.name} does not send JSON: each event is refused",
                "format = json",
            )
        listener = self._listener(parts.host, parts.port)
        if listener is not None and listener.wants_secret and not parts.has_credentials:
            yield self._finding(
                "no-secret",
                "broken",
                url,
                f"popgate asks for a secret, and event_exporter {exporter.name} sends none: each event is"
                " refused with 401",
                f"put it into the URL: http://popgate:SECRET@127.0.0.1:{parts.port}{EVENT_PATH}",
            )

    def _ends(self) -> Iterator[Finding]:
        if self._ours is None or not self._ours:
            return
        tells_ends = self._exported("mail_user_session_finished")
        if any(one.session_ends for one in self._ours) and not tells_ends:
            yield self._finding(
                "ends-not-told",
                "broken",
                None,
                "popgate has session_ends = true, and no event exporter sends mail_user_session_finished:"
                " a grant lasts long after its session has ended",
                "add the metric of docs/dovecot.md, or write session_ends = false",
            )
        hibernation = self._conf.get("imap_hibernate_timeout")
        if tells_ends and hibernation is not None and hibernation.content.split()[:1] not in ([], ["0"]):
            yield self._finding(
                "hibernation",
                "advice",
                hibernation,
                f"imap_hibernate_timeout = {hibernation.content}: Dovecot tells of a session that hibernates"
                " as if it had ended, so an idle client's grant lapses while it is connected",
                "write 0, or let grants.window_seconds be longer than clients idle (29 minutes mostly)",
            )
        if tells_ends and not any(one.session_ends for one in self._ours):
            yield self._finding(
                "ends-not-heard",
                "advice",
                None,
                "Dovecot tells when sessions end, and popgate does not count them: a grant lapses while its"
                " session is open",
                "session_ends = true in popgate's listener",
            )


def _named_attributes(setting: Setting | None, blocks: Sequence[Block]) -> dict[str, str]:
    if blocks:
        return {name: one.content for block in blocks for name, one in block.settings.items()}
    words = (setting.content if setting is not None else _DEFAULT_ATTRIBUTES).split()
    return {name: content for name, equals, content in (word.partition("=") for word in words) if equals}


def _network(text: str) -> Network | None:
    try:
        return Network.parse(text)
    except AddressError:
        return None


_PRIVATE = [
    Network.parse(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1")
]


def _is_private(network: Network) -> bool:
    return any(network.base in one and one.prefix_bits <= network.prefix_bits for one in _PRIVATE)
