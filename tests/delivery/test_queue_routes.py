"""Routes: what may be written, what is chosen, and errors that say what is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.queue.routes import MX, Route, RouteError, Routes, Secret, parse_route
from popgate.queue.settings import DeliverySettings, RouteSettings


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("smtp://relay.example.net", Route("relay.example.net", 25, "none")),
        ("SMTP://Relay.Example.NET.:2525/", Route("relay.example.net", 2525, "none")),
        ("smtp+starttls://relay.example.net", Route("relay.example.net", 587, "starttls")),
        ("smtps://relay.example.net", Route("relay.example.net", 465, "implicit")),
        ("smtp://[2001:DB8::1]:25", Route("2001:db8::1", 25, "none")),
        ("smtp://[2001:db8::1]", Route("2001:db8::1", 25, "none")),
        ("smtp://192.0.2.25:25", Route("192.0.2.25", 25, "none")),
        ("smtps://u:p@h.example", Route("h.example", 465, "implicit", "u", Secret("p"))),
        ("smtps://u%40d:p%3A%2F%40@h.example", Route("h.example", 465, "implicit", "u@d", Secret("p:/@"))),
        ("smtps://u@d:p@h.example", Route("h.example", 465, "implicit", "u@d", Secret("p"))),
        ("mx:", MX),
    ],
)
def test_what_may_be_written(text: str, route: Route) -> None:
    assert parse_route(text) == route


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("relay.example.net", "smtp://HOST:PORT"),
        ("http://relay.example.net", "smtp://HOST:PORT"),
        ("smtp://", "the host is missing"),
        ("smtp://h:0", "1 to 65535"),
        ("smtp://h:65536", "1 to 65535"),
        ("smtp://h:", "1 to 65535"),
        ("smtp://h:x", "1 to 65535"),
        ("smtp://2001:db8::1", "stands in brackets"),
        ("smtp://[2001:db8::1", "[ADDRESS]:PORT"),
        ("smtp://[2001:db8::1]25", "[ADDRESS]:PORT"),
        ("smtp://[host]", "IPv"),
        ("smtp://192.0.2.300", "over 255"),
        ("smtp://exa mple.net", "not a host name"),
        ("smtp://a..b", "1 to 63"),
        ("smtp://müller.example", "xn--"),
        ("smtps://@h.example", "user name before @ is empty"),
        ("smtps://u@h.example", "password_file"),
        ("smtps://u:%0d%0aQUIT@h.example", "control character"),
        ("smtps://u:%ff@h.example", "not UTF-8"),
    ],
)
def test_errors_say_what_is_right(text: str, remedy: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse_route(text)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("text", ["smtps://u:geheim@h:x", "x://u:geheim@h", "smtps://u:geheim%00@h"])
def test_a_password_is_never_shown(text: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse_route(text)
    assert "geheim" not in str(caught.value)
    route = parse_route("smtps://u:geheim@h.example")
    assert "geheim" not in repr(route) + str(route)


@given(st.text(max_size=40))
def test_any_text_is_a_route_or_an_error(text: str) -> None:
    for candidate in (text, "smtp://" + text):
        try:
            route = parse_route(candidate)
        except RouteError:
            continue
        assert parse_route(str(route), "p") is not None


def test_the_choice() -> None:
    settings = DeliverySettings(
        smarthost="smtps://u@smart.example",
        route=[
            RouteSettings(["partner.example", ".below.example"], "smtp://p.example"),
            RouteSettings(["direct.example"], "mx:"),
            RouteSettings(["x.below.example"], "smtp://never.example"),
        ],
    )
    routes = Routes(settings, "secret")
    assert routes.choose("partner.example").host == "p.example"
    assert routes.choose("sub.partner.example").host == "smart.example"
    assert routes.choose("below.example").host == "p.example"
    assert routes.choose("x.below.example").host == "p.example"
    assert routes.choose("notbelow.example").host == "smart.example"
    assert routes.choose("direct.example").is_mx
    assert routes.choose("other.example").password == "secret"
    assert Routes(DeliverySettings()).choose("other.example") == MX


def test_faults_of_settings_name_the_setting() -> None:
    with pytest.raises(RouteError, match=r"delivery\.smarthost"):
        Routes(DeliverySettings(smarthost="x"))
    with pytest.raises(RouteError, match="route 1"):
        Routes(DeliverySettings(route=[RouteSettings(["a.example"], "x")]))
    with pytest.raises(RouteError, match="serves nothing"):
        Routes(DeliverySettings(route=[RouteSettings([], "mx:")]))
