"""The two ways in which Dovecot tells of logins over HTTP, as handlers of requests.

Authentication policy: `POST /?command=report` after each login, with the fields that
auth_policy_request_attributes names and `success` and `policy_reject`. The same server would be asked
`command=allow` before and after each login, unless the site turns that off: it is told yes at once,
because popgate has nothing to say about who logs in.

Event exporter: `POST /event`, one document an event. `auth_request_finished` is a login, the commands
of IMAP show that its session is in use, `mail_user_session_finished` is its end, or its hibernation,
from which `imap_client_unhibernated` wakes it. Whoever goes while hibernating is not told of.

Both are told after the fact and wait for nothing; an answer that is slow or missing holds up no login.
"""

from typing import Final

from popgate.integrations.dovecot.logins import DovecotLogins, LoginError
from popgate.protocols.http.documents import DocumentError, Fields, read_object, read_query
from popgate.protocols.http.messages import Request, Response, json_response
from popgate.sessions.http import Refused, Route

POLICY_PATH: Final = "/"
EVENT_PATH: Final = "/event"
_YES = json_response(200, {"status": 0, "msg": ""})
_TAKEN = Response(204)


class LoginReports:
    """The handlers, over what logins are worth."""

    def __init__(self, logins: DovecotLogins) -> None:
        self._logins = logins

    @property
    def routes(self) -> tuple[Route, ...]:
        return (
            Route(POLICY_PATH, "POST", self.policy, takes_json=True),
            Route(EVENT_PATH, "POST", self.event, takes_json=True),
        )

    def policy(self, request: Request, session: str) -> Response:
        """Authentication policy. Raises Refused."""
        try:
            commands = read_query(request.query, ("command",)).get("command", [])
            if len(commands) != 1 or commands[0] not in ("allow", "report"):
                raise DocumentError("command is allow or report, once")
            fields = read_object(request.body)
            if commands[0] == "report":
                self._report(fields)
        except DocumentError as error:
            raise Refused(400, "document", str(error)) from None
        except LoginError as error:
            raise Refused(400, "login", str(error)) from None
        return _YES

    def _report(self, fields: Fields) -> None:
        protocol, remote = fields.text("protocol"), fields.text("remote")
        # the name that the user database knows, where the site tells it: aliases are resolved in it
        user, session = fields.text("user") or fields.text("login"), fields.text("session_id")
        is_rejected, is_success = fields.truth("policy_reject"), fields.truth("success")
        if protocol is None:
            raise DocumentError("protocol is missing: auth_policy_request_attributes must name it")
        if is_success and not is_rejected and not fields.text("master"):
            self._logins.login(protocol, remote, user, session)

    def event(self, request: Request, session: str) -> Response:
        """Exported events. Raises Refused."""
        try:
            read_query(request.query, ())
            document = read_object(request.body)
            self._event(document.text("event") or "", document.object("fields"))
        except DocumentError as error:
            raise Refused(400, "document", str(error)) from None
        except LoginError as error:
            raise Refused(400, "login", str(error)) from None
        return _TAKEN

    def _event(self, name: str, fields: Fields) -> None:
        user, remote, session = fields.text("user"), fields.text("remote_ip"), fields.text("session")
        if name == "auth_request_finished":
            if fields.text("success") == "yes" and not fields.text("master_user"):
                self._logins.login(fields.text("service") or "", remote, user, session)
        elif name == "imap_command_finished":
            self._logins.active(remote, user, session)
        elif name == "imap_client_unhibernated":
            self._logins.resume(remote, user, session)
        elif name == "mail_user_session_finished":
            self._logins.end(remote, user, session)
