"""`popgate serve`: the parent process from configuration to exit."""

import fcntl
import json
import os
import sys
from collections.abc import Sequence

from popgate import __version__
from popgate.app import backends
from popgate.app.clock import SystemClock
from popgate.app.context import BoundListener, ServerContext, make_context
from popgate.app.delivery import run_delivery
from popgate.app.follow import follow_specs, make_follow_directory
from popgate.app.maps import clear_maps, run_maps, write_maps
from popgate.app.privileges import (
    PrivilegeError,
    drop_privileges,
    find_user,
    make_private_directory,
    raise_descriptor_limit,
)
from popgate.app.shared import SharedMemory
from popgate.app.supervisor import ChildPipes, ReloadRefused, Role, Supervisor, notify
from popgate.app.ucspi import program
from popgate.app.worker import run_worker
from popgate.auth.throttle import BUFFER_BYTES
from popgate.config import ConfigError, Loaded, find, load
from popgate.config.settings import Config
from popgate.grants.store import StoreError
from popgate.integrations.logs.follow_patterns import FollowError
from popgate.integrations.maps.map_file import MapError
from popgate.integrations.maps.open import open_map
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.ucspi import ProgramError
from popgate.protocols.relay_ctrl_udp import MIN_KEY_OCTETS
from popgate.servers.datagrams import open_datagrams
from popgate.servers.settings import DATAGRAM_SERVICES
from popgate.servers.sockets import ListenError, SocketAccess, bound_name, open_listener
from popgate.servers.tls import TlsUnavailable, server_context
from popgate.values.event import Event


class StartRefused(Exception):
    """The server does not start; the text is for the administrator. `status`: the exit status."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status


def serve(config_path: str | None, overrides: Sequence[str], ready_file: str | None) -> int:
    """Run the server until a signal ends it; the exit status. Raises ConfigError or StartRefused."""
    loaded = load(find(config_path), overrides)
    _print_warnings(loaded)
    config = loaded.config
    if not config.listener and not config.follow and not config.map:
        raise StartRefused(
            "the configuration has no [[listener]], no [[follow]] and no [[map]], so there is nothing to"
            " serve; `popgate config sample` shows some"
        )
    raise_descriptor_limit()
    try:
        user = find_user(config.user)
        _make_directories(config, user)
        listeners = _bind(config, [])
        drop_privileges(config.user)
    except (PrivilegeError, ListenError) as fault:
        raise StartRefused(str(fault)) from fault
    except OSError as fault:
        raise StartRefused(f"{fault.filename or config.data_dir}: {fault.strerror}") from fault
    if ready_file and not os.access(os.path.dirname(os.path.abspath(ready_file)), os.W_OK | os.X_OK):
        raise StartRefused(f"--ready-file {ready_file}: the user that popgate runs as cannot write there")
    lock = _lock_data_dir(config)
    _check_tls(config)
    _prepare(config)
    _read_keys(listeners)
    context = make_context(config, listeners, BUFFER_BYTES, SharedMemory())
    _write_maps(context)
    server = _Server(context, config_path, overrides)
    try:
        return server.run(ready_file)
    finally:
        server.clear_maps()
        os.close(lock)
        _remove_unix_sockets(listeners)


class _Server:
    """Ties configuration, listeners and the supervisor together over reloads."""

    def __init__(self, context: ServerContext, config_path: str | None, overrides: Sequence[str]) -> None:
        self._context = context
        self._config_path = config_path
        self._overrides = overrides
        self._emit = context.log()

    def run(self, ready_file: str | None) -> int:
        config = self._context.config
        self._event(
            "server.start",
            version=__version__,
            hostname=config.hostname,
            workers=self._context.workers,
            listeners=" ".join(f"{bound.settings.service}={bound.name}" for bound in self._context.listeners),
        )
        supervisor = Supervisor(
            self._roles(self._context),
            reload=self._reload,
            on_ready=lambda: self._announce(ready_file),
            drain_seconds=config.limits.drain_seconds,
            clock=self._context.clock,
            emit=self._emit,
        )
        status = supervisor.run()
        self._event("server.end", status=status)
        return status

    def _roles(self, context: ServerContext, dropped: Sequence[MapSettings] = ()) -> list[Role]:
        def worker(number: int) -> Role:
            def clear() -> None:
                context.forget_counts(number)

            def run(pipes: ChildPipes) -> int:
                return run_worker(context, number, pipes)

            return Role(f"worker-{number}", run, clear)

        delivery = Role("delivery", lambda pipes: run_delivery(context, pipes), lambda: None)
        roles = [*(worker(number) for number in range(context.workers)), delivery]
        if context.config.map or dropped:
            roles.append(Role("maps", lambda pipes: run_maps(context, dropped, pipes), lambda: None))
        return roles

    def clear_maps(self) -> None:
        """The server has ended, so nobody takes out of the maps what lapses."""
        clear_maps(self._context.config.map, self._context.clock, self._emit)

    def _reload(self) -> Sequence[Role]:
        old = self._context
        try:
            loaded = load(find(self._config_path), self._overrides)
            config = loaded.config
            _print_warnings(loaded)
            _refuse_fixed_changes(old.config, config)
            _check_tls(config)
            listeners = _bind(config, old.listeners)
            _prepare(config)
            _read_keys(listeners)
        except (ConfigError, ListenError, StartRefused, OSError) as fault:
            print(f"popgate: reload refused, the old configuration stays:\n{fault}", file=sys.stderr)
            raise ReloadRefused(str(fault)) from fault
        config.workers = old.workers
        for bound in old.listeners:
            if all(bound.socket is not new.socket for new in listeners):
                bound.socket.close()
        self._context = ServerContext(
            config=config,
            listeners=listeners,
            clock=old.clock,
            connection_counts=old.connection_counts,
            user_counts=old.user_counts,
            throttle_counts=old.throttle_counts,
            throttle_key=old.throttle_key,
            log_fd=old.log_fd,
            wake_read=old.wake_read,
            wake_write=old.wake_write,
            workers=old.workers,
            generation=old.generation + 1,
        )
        self._emit = self._context.log()
        paths = {each.path for each in config.map}
        return self._roles(self._context, [each for each in old.config.map if each.path not in paths])

    def _announce(self, ready_file: str | None) -> None:
        if ready_file:
            document = {
                "pid": os.getpid(),
                "listeners": [
                    {"service": bound.settings.service, "bind": bound.name}
                    for bound in self._context.listeners
                ],
            }
            temporary = f"{ready_file}.{os.getpid()}"
            with open(temporary, "w", encoding="utf-8") as out:
                json.dump(document, out)
                out.write("\n")
            os.rename(temporary, ready_file)
        self._event("server.ready")
        notify("READY=1")

    def _event(self, name: str, **fields: str | int | float | None) -> None:
        self._emit(Event(name, self._context.clock.now(), fields))


def _bind(config: Config, existing: Sequence[BoundListener]) -> list[BoundListener]:
    """Listening sockets for all listeners; those in `existing` with the same address are taken over."""
    bound: list[BoundListener] = []
    fresh = []
    free = list(existing)
    try:
        for settings in config.listener:
            is_datagrams = settings.service in DATAGRAM_SERVICES
            match = next(
                (
                    old
                    for old in free
                    if settings.bind in (old.settings.bind, old.name)
                    and is_datagrams == (old.settings.service in DATAGRAM_SERVICES)
                ),
                None,
            )
            if match is not None:
                free.remove(match)
                bound.append(BoundListener(settings, match.socket, match.name))
                continue
            if is_datagrams:
                listener = open_datagrams(settings.bind)
            else:
                access = SocketAccess(int(settings.socket_mode, 8), settings.socket_group)
                listener = open_listener(settings.bind, settings.backlog, access)
            fresh.append(listener)
            bound.append(BoundListener(settings, listener, bound_name(listener)))
    except BaseException:
        for listener in fresh:
            listener.close()
        raise
    return bound


def _read_keys(listeners: Sequence[BoundListener]) -> None:
    """As the user that the server runs as, who must be able to read them again at a reload."""
    for bound in listeners:
        try:
            bound.key = backends.listener_key(bound.settings)
        except OSError as fault:
            raise StartRefused(
                f"{fault.filename}: {fault.strerror}; it is read as the user that popgate runs as"
            ) from fault
        if bound.key is not None and len(bound.key) < MIN_KEY_OCTETS:
            name = bound.settings.key_file or bound.settings.secret_file
            raise StartRefused(f"{name}: a key has {MIN_KEY_OCTETS} octets or more")


def _refuse_fixed_changes(old: Config, new: Config) -> None:
    for name in ("data_dir", "user"):
        if getattr(old, name) != getattr(new, name):
            raise StartRefused(f"{name} cannot change while the server runs; restart it")
    if old.worker_count != new.worker_count:
        print("popgate: workers changes at the next restart", file=sys.stderr)


def _make_directories(config: Config, user: object) -> None:
    for path in (config.data_dir, config.grant_directory):
        if path is not None:
            make_private_directory(path, user)  # type: ignore[arg-type]


def _lock_data_dir(config: Config) -> int:
    path = os.path.join(config.data_dir, "popgate.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise StartRefused(
            f"{path}: {fault.strerror}; data_dir must belong to the user that popgate runs as"
        ) from fault
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 32).decode("ascii", "replace").strip()
        raise StartRefused(
            f"{config.data_dir} is served by another popgate (process {pid}); stop it first", 1
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _prepare(config: Config) -> None:
    """Open once and close what every process will open, so that its mistakes are told here."""
    accounts = backends.account_database(config)
    backends.grant_store(config).close()
    backends.smarthost_password(config)
    clock, silent = SystemClock(), _nobody
    backends.mailboxes(config, clock, silent)
    backends.queue(config, clock, silent).close()
    backends.authenticator(config, accounts, clock, silent).close()
    backends.recipients(config, accounts, clock)
    accounts.close()
    try:
        follow_specs(config, clock)
        make_follow_directory(config)
    except FollowError as fault:
        raise StartRefused(f"[[follow]]: {fault}") from fault
    try:
        for each in config.map:
            open_map(each).close()
    except MapError as fault:
        raise StartRefused(f"[[map]]: {fault}") from fault
    for settings in config.listener:
        if settings.service == "ucspi":
            try:
                program(settings)
            except ProgramError as fault:
                raise StartRefused(str(fault)) from fault


def _write_maps(context: ServerContext) -> None:
    """Before anybody may ask them: what stands in them may be of a server that was killed."""
    config = context.config
    try:
        if config.map:
            write_maps(config, context.clock, lambda detail: None)
    except (MapError, StoreError) as fault:
        clear_maps(config.map, context.clock, _nobody)
        raise StartRefused(f"[[map]]: {fault}") from fault


def _nobody(event: Event) -> None:
    """Nothing of a trial is told."""


def _check_tls(config: Config) -> None:
    for settings in config.listener:
        if settings.tls != "none":
            try:
                server_context(config.tls, settings.tls_profile, "smtp")
            except TlsUnavailable as fault:
                raise StartRefused(f"[tls]: {fault}; it is read as the user that popgate runs as") from fault


def _print_warnings(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        print(f"popgate: warning: {warning}", file=sys.stderr)


def _remove_unix_sockets(listeners: Sequence[BoundListener]) -> None:
    for bound in listeners:
        if bound.name.startswith("unix:") and bound.settings.bind.startswith("unix:"):
            try:
                os.unlink(bound.name[5:])
            except OSError:
                pass
