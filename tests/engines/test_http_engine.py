"""HttpServer alone: bounds, order of calls, keep-alive, what a client that waits is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.engine import MisuseError, Wait
from popgate.protocols.http.messages import Request, Response, problem
from popgate.protocols.http.server import MAX_BODY_OCTETS, MAX_HEAD_OCTETS, HttpServer

GET = b"GET /x?y=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = Response(200, b"yes", (("X-One", "1"),))


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


def given_request(engine: HttpServer, data: bytes) -> Request:
    engine.receive(data)
    event = engine.next_event()
    assert isinstance(event, Request)
    return event


def refused(data: bytes) -> tuple[int, str]:
    """The status and the reason with which the engine refuses `data`; it then takes nothing more."""
    engine = HttpServer()
    engine.receive(data)
    assert engine.next_event() is None
    output = engine.take_output()
    assert output.startswith(b"HTTP/1.1 ")
    assert b"\r\nConnection: close\r\n" in output
    assert engine.waiting_for is Wait.CLOSE
    engine.receive(GET)
    assert engine.next_event() is None
    assert engine.take_output() == b""
    return int(output[9:12]), engine.ended_by


def test_a_request_is_read_whole() -> None:
    request = given_request(
        HttpServer(),
        b"POST /a%20b?c=%64&e HTTP/1.1\r\nHOST: [::1]:80\r\nX-Two:  \tv \r\nContent-Length: 3\r\n\r\nabc",
    )
    assert (request.method, request.path, request.query) == ("POST", "/a%20b", "c=%64&e")
    assert (request.host, request.body, request.header("x-two")) == ("[::1]:80", b"abc", "v")
    assert request.header("x-three") is None


def test_the_same_header_twice_is_one_value_that_nobody_takes_for_either() -> None:
    request = given_request(HttpServer(), GET[:-2] + b"Authorization: a\r\nAuthorization: b\r\n\r\n")
    assert request.header("authorization") == "a, b"


def test_requests_are_answered_in_order_and_one_at_a_time() -> None:
    engine = HttpServer()
    engine.receive(GET + GET.replace(b"/x", b"/z"))
    first = engine.next_event()
    assert first is not None
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.DECISION
    engine.answer(OK)
    assert engine.take_output() == b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 3\r\n\r\nyes"
    second = engine.next_event()
    assert second is not None
    assert (first.path, second.path) == ("/x", "/z")
    engine.answer(OK)
    assert engine.waiting_for is Wait.COMMAND


def test_a_response_may_close() -> None:
    engine = HttpServer()
    given_request(engine, GET + GET)
    engine.answer(Response(200, closes=True))
    assert engine.take_output() == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert engine.waiting_for is Wait.CLOSE
    assert engine.next_event() is None
    assert engine.ended_by == "quit"


def test_a_response_without_content_says_no_length() -> None:
    engine = HttpServer()
    given_request(engine, GET)
    engine.answer(Response(204))
    assert engine.take_output() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert engine.waiting_for is Wait.COMMAND


def test_a_client_that_waits_for_100_is_told_to_go_on() -> None:
    engine = HttpServer()
    engine.receive(post(2)[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert engine.next_event() is None
    assert engine.take_output() == b"HTTP/1.1 100 \r\n\r\n"
    assert engine.waiting_for is Wait.BODY
    assert given_request(engine, b"{}").body == b"{}"
    engine.answer(OK)
    assert engine.take_output().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_does_not_wait_for_100_is_not_told() -> None:
    engine = HttpServer()
    assert given_request(engine, post(2)[:-2] + b"Expect: 100-continue\r\n\r\n{}").body == b"{}"
    assert engine.take_output() == b""


# Bounds


def head_of(octets: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"\r\n\r\n"
    return start + b"x" * (octets - len(start) - len(end)) + end


@pytest.mark.parametrize("cut", [1, 4096, 100000])
def test_a_head_has_at_most_8_kib(cut: int) -> None:
    for octets, is_taken in ((MAX_HEAD_OCTETS, True), (MAX_HEAD_OCTETS + 1, False)):
        engine, head = HttpServer(), head_of(octets)
        event = None
        for at in range(0, octets, cut):
            engine.receive(head[at : at + cut])
            event = event or engine.next_event()
        assert (event is not None) is is_taken
        assert engine.ended_by == ("" if is_taken else "head-too-large")


def test_a_head_without_end_is_not_waited_for() -> None:
    assert refused(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000) == (431, "head-too-large")
    assert refused(b"A" * 20000) == (431, "head-too-large")


@pytest.mark.parametrize("chunk", [1, 100, 8192])
def test_a_chunked_body_has_at_most_8_kib(chunk: int) -> None:
    start = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for octets in (MAX_BODY_OCTETS, MAX_BODY_OCTETS + 1):
        pieces = b"".join(
            b"%x\r\n%b\r\n" % (size, b"x" * size)
            for at in range(0, octets, chunk)
            for size in [min(chunk, octets - at)]
        )
        if octets > MAX_BODY_OCTETS or chunk == 1:  # six octets of framing for each one are refused too
            assert refused(start + pieces + b"0\r\n\r\n") == (413, "body-too-large")
        else:
            assert len(given_request(HttpServer(), start + pieces + b"0\r\n\r\n").body) == octets


def test_chunk_extensions_and_trailers_are_bounded() -> None:
    start = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(start + b"1;" + b"x" * 30000)[0] == 413
    assert refused(start + b"0\r\n" + b"X: y\r\n" * 5000)[0] == 413


def test_a_body_has_at_most_8_kib() -> None:
    assert refused(post(MAX_BODY_OCTETS + 1)) == (413, "body-too-large")
    assert len(given_request(HttpServer(), post(MAX_BODY_OCTETS) + b"x" * MAX_BODY_OCTETS).body) == 8192


def test_nothing_that_comes_after_the_end_is_kept() -> None:
    engine = HttpServer()
    engine.receive(b"\x16\x03")
    assert engine.next_event() is None
    for _ in range(100):
        engine.receive(b"x" * 65536)
    assert not engine._input


# Ends


def test_shutting_down_an_idle_connection_closes_it_silently() -> None:
    engine = HttpServer()
    given_request(engine, GET)
    engine.answer(OK)
    engine.take_output()
    engine.shut_down(problem(503, "stopping"))
    assert engine.take_output() == b""
    assert engine.waiting_for is Wait.CLOSE


def test_shutting_down_lets_the_answer_out() -> None:
    engine = HttpServer()
    given_request(engine, GET)
    engine.shut_down(problem(503, "stopping"))
    assert engine.waiting_for is Wait.DECISION
    engine.answer(OK)
    assert b"\r\nConnection: close\r\n" in engine.take_output()
    assert engine.waiting_for is Wait.CLOSE


def test_shutting_down_lets_a_body_come_in_unless_told_twice() -> None:
    engine = HttpServer()
    engine.receive(post(2) + b"{")
    assert engine.next_event() is None
    engine.shut_down(problem(503, "stopping"))
    assert given_request(engine, b"}").body == b"{}"
    engine.answer(OK)
    assert engine.waiting_for is Wait.CLOSE

    engine = HttpServer()
    engine.receive(post(2) + b"{")
    assert engine.next_event() is None
    engine.shut_down(problem(503, "stopping"))
    engine.shut_down(problem(503, "stopping"))
    assert engine.take_output().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert engine.waiting_for is Wait.CLOSE


def test_half_a_head_is_told_of_a_timeout() -> None:
    engine = HttpServer()
    engine.receive(GET[:10])
    assert engine.next_event() is None
    assert engine.waiting_for is Wait.COMMAND
    engine.shut_down(problem(408, "too slow"))
    assert engine.take_output().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert engine.ended_by == "shutdown"


def test_calls_out_of_turn() -> None:
    engine = HttpServer()
    for call in (lambda: engine.answer(OK), engine.body_end, engine.tls_started, lambda: engine.body(b"")):
        with pytest.raises(MisuseError):
            call()
    assert engine.source is None


@given(st.binary(max_size=300), st.integers(1, 50))
def test_whatever_comes_every_cut_reads_the_same(data: bytes, size: int) -> None:
    def converse(pieces: list[bytes]) -> tuple[list[Request], bytes]:
        engine, requests = HttpServer(), []
        for piece in pieces:
            engine.receive(piece)
            while (event := engine.next_event()) is not None:
                requests.append(event)
                engine.answer(OK)
        return requests, engine.take_output()

    data = GET + data
    assert converse([data]) == converse([data[at : at + size] for at in range(0, len(data), size)])
