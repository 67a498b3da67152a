"""Events: what happened, as a value that the log, the history and metrics consume."""

from collections.abc import Callable, Mapping

from popgate.values.value import value


@value
class Event:
    """One thing that happened.

    `name` is a dotted constant such as `grant.allow` or `smtp.relay.refused`; docs/events.md
    lists them all. `at` is Unix time in seconds. `fields` holds text and numbers only;
    None is left out by whoever writes it. Secrets are never among them.
    """

    name: str
    at: float
    fields: Mapping[str, str | int | float | None]


EventSink = Callable[[Event], None]
"""Takes an event; must not block and must not raise."""
