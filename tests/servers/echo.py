"""A server that knows no API and is indiscreet: whatever it is sent, it sends back, in all the words of an error."""

from __future__ import annotations

import contextlib
import html
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import trustme


class EchoServer:
    """Listens on loopback: HTTPS on `url`, LDAP in the clear on `ldap_url` and over TLS on `ldaps_url`."""

    def __init__(self, folder: Path, on_request: Callable[[], None], *, status: int | None) -> None:
        self.received: list[bytes] = []
        """What clients have sent, after the handshake of TLS."""
        self._on_request = on_request
        self._status = status
        """None: hang up when a request has come."""
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self._tls)
        self._listeners: list[socket.socket] = []
        self.url = f"https://127.0.0.1:{self._listen(self._http, tls=True)}"
        self.ldap_url = f"ldap://127.0.0.1:{self._listen(self._ldap, tls=False)}"
        self.ldaps_url = f"ldaps://127.0.0.1:{self._listen(self._ldap, tls=True)}"

    def close(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _listen(self, serve: Callable[[socket.socket], None], *, tls: bool) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, serve, tls), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None], tls: bool) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection, serve, tls), daemon=True).start()

    def _one(self, connection: socket.socket, serve: Callable[[socket.socket], None], tls: bool) -> None:
        with connection:
            connection.settimeout(30)
            with contextlib.suppress(OSError):
                if tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                serve(connection)
                connection.close()

    def _http(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            head = b""
            while (line := lines.readline()) not in {b"", b"\r\n"}:
                head += line
            if not head:
                return
            size = re.search(rb"(?im)^content-length:\s*(\d+)", head)
            body = lines.read(int(size[1]) if size else 0)
        self.received.append(head + body)
        self._on_request()
        if b"/.well-known/openid-configuration" in head:  # else Microsoft's library would send nothing further
            tenant = f"{self.url}/{head.split(b'/')[1].decode()}"
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "issuer": "v2.0"}
            _send(connection, 200, json.dumps({name: f"{tenant}/{place}" for name, place in places.items()}), "")
            return
        if self._status is None:
            return
        said = (head + body).decode("latin-1")
        told = f"you said: {said} and, decoded, {json.dumps(said)} {quote(said)} {html.escape(said)}"
        document = dict.fromkeys(("message", "detail", "errorSummary", "error_description", "reason", "title"), told)
        answer = json.dumps({**document, "error": {"message": told, "code": told}, "errors": [{"message": told}]})
        _send(connection, self._status, answer, quote(said))

    def _ldap(self, connection: socket.socket) -> None:
        request = connection.recv(65536)
        if not request:
            return
        self.received.append(request)
        self._on_request()
        if self._status is None:
            return
        # RFC 4511, 4.2.2: the message's id as it came, and a BindResponse: invalidCredentials, and what it has to say.
        ident = request[2 : 2 + 2 + request[3]]
        result = b"\x0a\x01\x31\x04\x00" + _tlv(0x04, b"you said: " + request)
        connection.sendall(_tlv(0x30, ident + _tlv(0x61, result)))
        connection.recv(65536)  # the unbind, or the end


def _send(connection: socket.socket, status: int, document: str, echo: str) -> None:
    data = document.encode()
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nX-Echo: {echo}"
    connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + data)


def _tlv(tag: int, content: bytes) -> bytes:
    """BER, in the long form of two bytes."""
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


@contextlib.contextmanager
def echo_server(folder: Path, on_request: Callable[[], None], *, status: int | None) -> Iterator[EchoServer]:
    server = EchoServer(folder, on_request, status=status)
    try:
        yield server
    finally:
        server.close()
