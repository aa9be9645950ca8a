"""The JSON client that connectors share: every way in which HTTP fails, and where credentials go."""

from __future__ import annotations

import gzip
import itertools
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import trustme

import connectors.retry
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Transient,
    Unauthenticated,
    Unreachable,
)
from connectors.http import Api, part, retry_after
from connectors.options import HttpOptions

SECRET = "s3cr3t-of-the-api"


def response(status: int = 200, body: bytes = b"{}", *, length: int | None = None, **headers: str) -> bytes:
    """An answer as it goes over the wire. `_` in names of headers stands for `-`."""
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} Told\r\nContent-Length: {size}\r\n{told}Connection: close\r\n\r\n".encode() + body


class Server:
    """Answers each connection with the next of a script of raw bytes; the last one again and again."""

    def __init__(self, *script: bytes, tls: ssl.SSLContext | None = None) -> None:
        self.script = list(script)
        self.requests: list[str] = []
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return
            head += piece
        self.requests.append(head.decode())
        connection.sendall(self.script.pop(0) if len(self.script) > 1 else self.script[0])
        connection.close()


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*script: bytes, **more: Any) -> Server:
        servers.append(Server(*script, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    made: list[Api] = []

    def make(base: str, *, options: dict[str, Any] | None = None, **more: Any) -> Api:
        more.setdefault("headers", {"Authorization": f"Bearer {SECRET}"})
        made.append(Api(HttpOptions.model_validate({"timeout": "5s", **(options or {})}), base, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


Serve: TypeAlias = Callable[..., Server]
MakeApi: TypeAlias = Callable[..., Api]


def failure(api: Api, path: str = "things") -> ConnectorError:
    """What a GET fails with; the secret is nowhere in it."""
    with pytest.raises(ConnectorError) as caught:
        api.get(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.message
    return caught.value


# What an answer means


def test_a_document_and_its_headers_come_back(serve: Serve, api: MakeApi) -> None:
    """Success is the parsed document; names of headers compare without case."""
    server = serve(response(200, '{"names": ["дина 🦉"]}'.encode(), X_Total="7"))
    answer = api(server.url).get("v1/things", limit=3, after=None, what="a b&c")
    assert answer.body == {"names": ["дина 🦉"]}
    assert answer.headers["x-total"] == "7"
    line, *headers = server.requests[0].split("\r\n")
    assert line == "GET /v1/things?limit=3&what=a+b%26c HTTP/1.1"
    assert f"Authorization: Bearer {SECRET}" in headers


@pytest.mark.parametrize(
    ("status", "expected", "tries"),
    [
        (400, BadData, 1),
        (401, Unauthenticated, 1),
        (402, BadData, 1),
        (403, Forbidden, 1),
        (404, Misconfigured, 1),
        (408, ServerFault, 5),
        (410, BadData, 1),
        (422, BadData, 1),
        (425, ServerFault, 5),
        (429, Throttled, 5),
        (500, ServerFault, 5),
        (502, ServerFault, 5),
        (503, ServerFault, 5),
        (504, ServerFault, 5),
        (599, ServerFault, 5),
    ],
)
def test_each_status_is_the_right_error(
    serve: Serve, api: MakeApi, status: int, expected: type[ConnectorError], tries: int
) -> None:
    """What may pass is tried again, what may not is not; the server's sentence is told."""
    server = serve(response(status, b'{"message": "so it \\u202e is"}'))
    error = failure(api(server.url))
    assert type(error) is expected
    assert "GET /things: " in error.message and str(status) in error.message
    assert "so it   is" in error.message, "what cannot be printed is not"
    assert len(server.requests) == tries


@pytest.mark.parametrize("body", [b"", b"   ", b"<html>hello</html>", b'{"a": [1, 2', b"\xff\xfe\x00", b"{} {}"])
def test_success_without_a_document_is_a_fault(serve: Serve, api: MakeApi, body: bytes) -> None:
    """200 with nothing, with half a document, with HTML: never an empty answer."""
    assert type(failure(api(serve(response(200, body)).url))) is ServerFault


def test_a_204_is_no_empty_list(serve: Serve, api: MakeApi) -> None:
    """No content where a document is due is a fault."""
    server = serve(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    assert type(failure(api(server.url))) is ServerFault


def test_a_body_that_ends_early_is_a_fault_even_if_it_parses(serve: Serve, api: MakeApi) -> None:
    """What the length announced and did not come is missing, whatever came."""
    server = serve(response(200, b'{"things": []}', length=400))
    assert type(failure(api(server.url))) is ServerFault
    assert len(server.requests) == connectors.retry.ATTEMPTS


def test_a_chunked_body_without_its_end_is_a_fault(serve: Serve, api: MakeApi) -> None:
    """A connection that closes between chunks is not the end of a document."""
    server = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n")
    assert type(failure(api(server.url))) is ServerFault


def test_compressed_answers_are_read(serve: Serve, api: MakeApi) -> None:
    """Gzip is what the client asks for."""
    server = serve(response(200, gzip.compress(b"[1]"), Content_Encoding="gzip"))
    assert api(server.url).get("things").body == [1]


def test_compression_that_is_none_is_a_fault(serve: Serve, api: MakeApi) -> None:
    """A body that cannot be decompressed is cut, or damaged."""
    server = serve(response(200, b"[1]", Content_Encoding="gzip"))
    assert type(failure(api(server.url))) is ServerFault


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"", b"HTTP/1.1 OK\r\n\r\n"])
def test_what_is_not_http_is_a_fault(serve: Serve, api: MakeApi, raw: bytes) -> None:
    """Another service behind the port, or one that hangs up."""
    assert isinstance(failure(api(serve(raw).url)), ServerFault | Unreachable)


def test_a_fault_that_passes_is_forgotten(serve: Serve, api: MakeApi, sleeps: list[float]) -> None:
    """One 502, then the answer."""
    server = serve(response(502, b""), response(200, b"[1]"))
    assert api(server.url).get("things").body == [1]
    assert len(sleeps) == 1


def test_an_error_without_json_is_told_without_it(serve: Serve, api: MakeApi) -> None:
    """HTML of a gateway goes into no message."""
    error = failure(api(serve(response(403, b"<html>Forbidden by Contoso</html>")).url))
    assert "html" not in error.message


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b'{"error": {"message": "deep"}}', "deep"),
        (b'{"error_description": "oauth"}', "oauth"),
        (b'{"detail": "django"}', "django"),
        (b'{"message": ["a", "list"]}', ""),
        (b"[1]", ""),
        (b'"text"', ""),
        (b"null", ""),
    ],
)
def test_the_usual_words_for_an_error_are_found(serve: Serve, api: MakeApi, document: bytes, said: str) -> None:
    """Whatever shape the document has, a sentence or none comes out of it."""
    error = failure(api(serve(response(400, document)).url))
    assert error.message == "GET /things: 400" + (f" ({said})" if said else "")


def test_a_permission_is_named_with_its_remedy(serve: Serve, api: MakeApi) -> None:
    """What a 403 to a path says is missing."""
    with pytest.raises(Forbidden) as caught:
        api(serve(response(403)).url).get("things", permission="things.read")
    assert caught.value.permission == "things.read"
    assert "things.read" in caught.value.message and "things.read" in caught.value.remedy


def test_a_vendor_may_mean_something_else(serve: Serve, api: MakeApi) -> None:
    """`meant` sees place, status and sentence first; where it returns None, they mean the usual."""
    seen: list[tuple[str, int, str]] = []

    def meant(*told: Any) -> ConnectorError | None:
        seen.append(told)
        return Incomplete("the end") if told[1] == 422 else None

    server = serve(response(422, b'{"message": "m"}'), response(401))
    one = api(server.url, meant=meant)
    assert type(failure(one)) is Incomplete
    assert type(failure(one)) is Unauthenticated
    assert seen == [("GET /things", 422, "m"), ("GET /things", 401, "")]


def test_a_part_that_is_missing_is_a_fault() -> None:
    """An answer without what it must have is no answer."""
    assert part({"a": [1]}, "a", list, "things") == [1]
    others: list[Any] = [{}, {"a": None}, {"a": {}}, [], None, "a"]
    for document in others:
        with pytest.raises(ServerFault, match='things: the answer has no "a"'):
            part(document, "a", list, "things")


# Rates


@pytest.mark.parametrize(
    ("told", "expected"),
    [("7", 7.0), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("soon", None), ("", None), ("99999999999999999999", 1e20)],
)
def test_retry_after_in_seconds(told: str, expected: float | None) -> None:
    """A number is seconds; what makes no sense is as if it were not there."""
    assert retry_after({"retry-after": told}) == expected


def test_retry_after_as_a_date_goes_by_the_servers_clock() -> None:
    """A host whose clock is an hour off waits as long as any other."""
    server = time.time() - 3600
    headers = {"retry-after": formatdate(server + 30, usegmt=True), "date": formatdate(server, usegmt=True)}
    assert retry_after(headers) == 30.0
    assert retry_after({**headers, "retry-after": formatdate(server - 30, usegmt=True)}) == 0.0
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0, "without Date, by ours"
    assert retry_after({}) is None


def test_a_429_is_waited_for_as_it_asks(serve: Serve, api: MakeApi, sleeps: list[float]) -> None:
    """Twice refused, then served."""
    server = serve(response(429, Retry_After="11"), response(429, Retry_After="13"), response(200, b"[]"))
    assert api(server.url).get("things").body == []
    assert sleeps == [11.0, 13.0]


def test_a_503_that_names_a_time_is_a_429(serve: Serve, api: MakeApi, sleeps: list[float]) -> None:
    """Maintenance with an end is waited for, if it is near."""
    server = serve(response(503, Retry_After="17"), response(200, b"[]"))
    api(server.url).get("things")
    assert sleeps == [17.0]


def test_who_asks_for_too_long_is_not_waited_for(serve: Serve, api: MakeApi, sleeps: list[float]) -> None:
    """The scheduler comes back later."""
    server = serve(response(429, Retry_After="4000"))
    error = failure(api(server.url))
    assert isinstance(error, Throttled) and error.retry_after == 4000.0
    assert sleeps == [] and len(server.requests) == 1


def test_a_vendors_own_header_tells_the_wait(serve: Serve, api: MakeApi, sleeps: list[float]) -> None:
    """`wait` reads what is not standard."""
    server = serve(response(429, X_Reset="5"), response(200, b"[]"))
    api(server.url, wait=lambda headers: float(headers["x-reset"])).get("things")
    assert sleeps == [5.0]


# Where credentials go


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(serve: Serve, api: MakeApi, status: int) -> None:
    """Whoever can redirect could have the token."""
    other = serve(response(200, b"[]"))
    server = serve(response(status, b"", Location=f"{other.url}/things"))
    error = failure(api(server.url))
    assert type(error) is BadData and "redirect" in error.message
    assert other.requests == [] and len(server.requests) == 1


@pytest.mark.parametrize("location", ["https://[half", "", "/elsewhere", "\u202e"])
def test_a_redirect_to_nowhere_is_an_error_too(serve: Serve, api: MakeApi, location: str) -> None:
    """However it is written."""
    raw = (
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode() + b"\r\nConnection: close\r\n\r\n"
    )
    assert type(failure(api(serve(raw).url))) is BadData


def test_a_link_to_the_same_origin_is_followed_with_its_query(serve: Serve, api: MakeApi) -> None:
    """Lists give the next page as an absolute link, or as a path."""
    server = serve(response(200, b"[]"))
    one = api(server.url + "/api/")
    for link in (f"{server.url}/api/things?cursor=a%2Bb%3D", "/api/things?cursor=a%2Bb%3D", "things?cursor=a%2Bb%3D"):
        one.get(link)
    assert {r.split(" ")[1] for r in server.requests} == {"/api/things?cursor=a%2Bb%3D"}


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/things",
        "http://127.0.0.1:1/things",
        "//evil.example/things",
        "https://127.0.0.1.evil.example/",
        "ftp://127.0.0.1/things",
        "javascript:alert(1)",
        "https://user@evil.example/",
        "http://[half/things",
        "http://127.0.0.1:port/things",
        "team:slug/members",
    ],
)
def test_a_link_to_another_origin_is_refused_unsent(serve: Serve, api: MakeApi, link: str) -> None:
    """Another host, port or scheme would be sent the token."""
    server = serve(response(200, b"[]"))
    assert type(failure(api(server.url), link)) is BadData
    assert server.requests == []


def test_the_same_host_with_another_port_or_scheme_is_another_origin(serve: Serve, api: MakeApi) -> None:
    """Case and the default port are no difference; the scheme is."""
    server = serve(response(200, b"[]"))
    one = api(server.url.replace("127.0.0.1", "localhost"))
    assert type(failure(one, f"https://localhost:{server.port}/things")) is BadData
    assert type(failure(one, f"http://localhost:{server.port + 1}/things")) is BadData
    one.get(f"HTTP://LOCALHOST:{server.port}/things")


@pytest.mark.parametrize("link", ["things\n/x", "things\x00", "a" * 70_000])
def test_a_path_that_cannot_be_sent_is_an_error(serve: Serve, api: MakeApi, link: str) -> None:
    """A server can send any text as its link; none may escape as something unexpected."""
    server = serve(response(200, b"[]"))
    try:
        api(server.url).get(link)
    except BadData:
        assert server.requests == []
    assert all(len(r.split("\r\n")[0].split(" ")) == 3 for r in server.requests)


def test_a_netrc_file_puts_no_password_over_the_token(
    serve: Serve, api: MakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is configured is what is sent."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password of-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve(response(200, b"[]"))
    api(server.url).get("things")
    assert f"Bearer {SECRET}" in server.requests[0] and "Basic" not in server.requests[0]


@pytest.mark.parametrize("secret", [f"{SECRET}\nX-Evil: 1", f"{SECRET}\r", f"{SECRET}\x00", f"{SECRET}é", "🔑"])
def test_a_secret_that_cannot_be_sent_is_not_shown(serve: Serve, api: MakeApi, secret: str) -> None:
    """A line break in a token file is told, without the token, in no part of the traceback."""
    server = serve(response(200, b"[]"))
    error = failure(api(server.url, headers={"Authorization": f"Bearer {secret}"}, credentials='token file "x"'))
    assert type(error) is Misconfigured and 'token file "x"' in error.message
    assert server.requests == []


def test_new_credentials_replace_the_old(serve: Serve, api: MakeApi) -> None:
    """A token that was just taken."""
    server = serve(response(200, b"[]"))
    one = api(server.url)
    one.authorize(Authorization="Bearer new", X_Org="7")
    one.get("things")
    assert "Bearer new" in server.requests[0] and SECRET not in server.requests[0] and "X-Org: 7" in server.requests[0]


# The HTTP options


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_private_authority_is_trusted_by_ca_file(
    serve: Serve, api: MakeApi, authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """With the bundle the server is trusted, without it is not, and the remedy names the option."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = serve(response(200, b"[]"), tls=tls)
    assert api(server.url, options={"ca_file": str(tmp_path / "ca.pem")}).get("things").body == []
    error = failure(api(server.url))
    assert type(error) is Unreachable and "TLS" in error.message and "ca_file" in error.remedy


def test_a_certificate_of_another_host_is_refused(
    serve: Serve, api: MakeApi, authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Trusted, and not who was asked for."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = serve(response(200, b"[]"), tls=tls)
    one = api(server.url.replace("127.0.0.1", "localhost"), options={"ca_file": str(tmp_path / "ca.pem")})
    assert type(failure(one)) is Unreachable
    assert server.requests == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_misconfigured(api: MakeApi, tmp_path: Path, content: str | None) -> None:
    """Missing, or something else."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    error = failure(api("https://127.0.0.1:1", options={"ca_file": str(file)}))
    assert type(error) is Misconfigured and "ca_file" in error.message


def test_the_proxy_option_is_used(serve: Serve, api: MakeApi) -> None:
    """The proxy is asked for the whole URL."""
    proxy = serve(response(200, b"[1]"))
    assert api("http://127.0.0.1:9", options={"proxy": proxy.url}).get("things").body == [1]
    assert proxy.requests[0].startswith("GET http://127.0.0.1:9/things ")


def test_the_environments_proxy_is_used_unless_no_proxy(
    serve: Serve, api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY as everywhere; NO_PROXY names who is asked directly."""
    proxy, server = serve(response(200, b"[1]")), serve(response(200, b"[2]"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert api(server.url).get("things").body == [1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert api(server.url).get("things").body == [2]


def test_a_proxy_that_refuses_is_unreachable(serve: Serve, api: MakeApi, tls: ssl.SSLContext) -> None:
    """CONNECT is answered by a refusal."""
    proxy = serve(response(407, b""))
    error = failure(api("https://127.0.0.1:9", options={"proxy": proxy.url}))
    assert type(error) is Unreachable and "proxy" in error.remedy


@pytest.mark.parametrize("proxy", ["nonsense", "ftp://proxy.example", f"gopher://eve:{SECRET}@proxy.example"])
def test_a_proxy_that_is_no_url_is_misconfigured(api: MakeApi, proxy: str) -> None:
    """Its password is not shown."""
    assert type(failure(api("https://127.0.0.1:9", options={"proxy": proxy}))) is Misconfigured


def test_refused_and_unknown_hosts_are_unreachable(api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again, then told with what to look at."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "endpoint" in failure(api(f"http://127.0.0.1:{port}")).remedy
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(api("https://nobody.invalid"))
    assert type(error) is Unreachable and isinstance(error, Transient)


def test_a_silent_server_is_given_up(api: MakeApi) -> None:
    """Accepted, and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(api(f"http://127.0.0.1:{silent.getsockname()[1]}", options={"timeout": "50ms"}))
    assert type(error) is Unreachable and "0.05 s" in error.message


def test_an_answer_that_drips_is_given_up(serve: Serve, api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the whole answer, not for each piece of it."""
    import connectors.http

    hours = itertools.count(0, 100)
    clock = SimpleNamespace(monotonic=lambda: float(next(hours)), time=time.time)
    monkeypatch.setattr(connectors.http, "time", clock)
    assert type(failure(api(serve(response(200, b"[]")).url))) is Unreachable


def test_closing_twice_or_unused_is_fine(serve: Serve, api: MakeApi) -> None:
    """And one that is closed can be used again."""
    one = api(serve(response(200, b"[]")).url)
    one.close()
    one.get("things")
    one.close()
    one.close()
    assert one.get("things").body == []


def test_many_threads_share_one_client(serve: Serve, api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scopes may be read side by side: the client is opened once."""
    import httpx2

    opened: list[int] = []
    real = httpx2.Client

    def opening(**more: Any) -> Any:
        opened.append(1)
        return real(**more)

    monkeypatch.setattr(httpx2, "Client", opening)
    one = api(serve(response(200, b"[]")).url)
    threads = [threading.Thread(target=one.get, args=("things",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1]


def test_a_client_of_the_vendors_own_can_send(api: MakeApi) -> None:
    """Its requests are judged like ours."""
    sent: list[tuple[str, str]] = []

    def send(method: str, url: str, **request: Any) -> tuple[int, dict[str, str], bytes]:
        sent.append((method, url))
        assert request["headers"] == {"Authorization": f"Bearer {SECRET}"}
        return (403, {}, b"{}") if len(sent) > 1 else (200, {}, b"[1]")

    one = api("https://api.example/v1", send=send)
    assert one.get("things").body == [1]
    assert type(failure(one)) is Forbidden
    assert sent == [("GET", "https://api.example/v1/things")] * 2
