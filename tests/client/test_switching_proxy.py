"""The proxy before a real server: what passes, what does not, and a switch to another server."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from asgi_server import Shown, asgi_server
from cases import cases
from ports import free_ports

from pipeline.client.service_process import listening_socket
from pipeline.client.switching_proxy import SwitchingProxy


@pytest.fixture
def upstream() -> Iterator[Shown]:
    with asgi_server() as server:
        yield server


@pytest.fixture
def address() -> Iterator[tuple[SwitchingProxy, str]]:
    with listening_socket("127.0.0.1", 0) as listening, SwitchingProxy(listening) as proxy:
        yield proxy, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def url(upstream: Shown, address: tuple[SwitchingProxy, str]) -> str:
    proxy, url = address
    proxy.switch(upstream.url)
    return url


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = connection.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def test_a_request_arrives_as_it_was_sent_but_for_what_belongs_to_the_connection(url: str) -> None:
    sent = {"Host": "example.org", "X-Own": "ä".encode().decode("latin1"), "X-Forwarded-For": "10.0.0.1"}
    sent |= {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "User-Agent": "me", "Accept": "a/b"}
    seen = requests.post(f"{url}/a%2Fb/%C3%A4?x=1&x=%20;2", data=b"body", headers=sent, timeout=10).json()
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/a%2Fb/%C3%A4", "x=1&x=%20;2", 4)
    headers = dict(seen["headers"])
    assert (headers["host"], headers["user-agent"], headers["accept"]) == ("example.org", "me", "a/b")
    assert headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"]) == ("http", "example.org")
    assert headers["content-length"] == "4"
    assert not {"x-hop", "te", "transfer-encoding", "content-type"} & headers.keys()


def test_an_answer_arrives_as_it_was_sent_and_the_connection_stays(url: str) -> None:
    with requests.Session() as session:
        answer = session.get(f"{url}/", timeout=10)
        assert answer.raw.headers.getlist("set-cookie") == ["a=1", "b=2"]
        assert "x-hop" not in answer.headers
        assert int(answer.headers["content-length"]) == len(answer.content)
        head = session.head(f"{url}/", timeout=10)
        assert (head.status_code, head.content, int(head.headers["content-length"]) > 0) == (200, b"", True)
        assert session.get(f"{url}/empty", timeout=10).status_code == 204
        assert session.post(f"{url}/", data=b"", timeout=10).json()["body"] == 0
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=10)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/")
        sockets.add(connection.sock)
        assert json.loads(connection.getresponse().read())["server"] == "one"
    assert len(sockets) == 1
    connection.close()


def test_compressed_and_chunked_bodies_pass_untouched(url: str) -> None:
    pieces = iter([b"x" * 1000, b"y" * 500])
    seen = requests.post(f"{url}/", data=pieces, headers={"Content-Encoding": "gzip"}, timeout=10).json()
    assert seen["body"] == 1500
    assert ["content-encoding", "gzip"] in seen["headers"]


def test_nothing_is_held_back_in_either_direction(url: str, upstream: Shown) -> None:
    with connected(url) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        assert upstream.first_piece.wait(10)
        connection.sendall(b"x" * 100_000)
        assert b'"body": 200000' in read_until(connection, b"}")
    with requests.get(f"{url}/stream", stream=True, timeout=10) as answer:
        pieces = answer.iter_content(6)
        assert next(pieces) == b"first "
        upstream.go.set()
        assert b"".join(pieces) == b"last"
        assert answer.headers["x-kind"] == "stream"


def test_a_body_of_100_megabytes_passes(url: str) -> None:
    assert requests.post(f"{url}/", data=bytes(100 << 20), timeout=60).json()["body"] == 100 << 20


def test_a_client_that_asks_before_it_sends_is_answered_by_the_service(url: str) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(b"POST /" + head)
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        assert b'"body": 4' in read_until(connection, b"}")
    with connected(url) as connection:
        connection.sendall(b"POST /refuse" + head)
        assert read_until(connection, b"too much").startswith(b"HTTP/1.1 413 ")


def test_a_client_that_goes_away_ends_the_request(url: str, upstream: Shown) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert upstream.began.wait(10)
    assert upstream.left.wait(10)


def test_an_answer_that_breaks_off_does_not_pass_for_a_whole_one(url: str) -> None:
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        requests.get(f"{url}/break", timeout=10)


def test_a_refusal_reaches_a_client_that_still_sends(url: str) -> None:
    for _ in range(5):
        answer = requests.post(f"{url}/refuse", data=bytes(20 << 20), timeout=30)
        assert (answer.status_code, answer.content) == (413, b"too much")


def gone(proxy: SwitchingProxy) -> None:
    proxy.switch(f"http://127.0.0.1:{free_ports()[0]}")


@cases("spoil", {"none yet": lambda proxy: None, "it is gone": gone, "switched off": lambda proxy: proxy.switch("")})
def test_without_a_service_the_answer_says_to_try_again(address: tuple[SwitchingProxy, str], spoil: Any) -> None:
    proxy, url = address
    spoil(proxy)
    answer = requests.post(f"{url}/predict", data=b"x" * 100_000, timeout=10)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "unavailable"


def test_a_switch_waits_for_the_requests_of_the_service_before(
    upstream: Shown, address: tuple[SwitchingProxy, str], url: str
) -> None:
    proxy, _ = address
    slow: list[str] = []
    request = threading.Thread(target=lambda: slow.append(requests.get(f"{url}/slow", timeout=20).text))
    request.start()
    assert upstream.began.wait(10)
    with asgi_server("two") as other:
        switch = threading.Thread(target=proxy.switch, args=(other.url,))
        switch.start()
        for _ in range(200):
            if requests.get(f"{url}/", timeout=10).json()["server"] == "two":
                break
        else:
            pytest.fail("it was not switched")
        assert switch.is_alive()
        upstream.go.set()
        request.join(10)
        switch.join(10)
        assert (slow, switch.is_alive()) == (["one"], False)
        proxy.switch("")
