"""A connection to an LDAP server over ldap3, and searches that end whole or fail."""

from __future__ import annotations

import math
import ssl
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from connectors.errors import Incomplete, Misconfigured, Unreachable
from connectors.ldap_errors import failures, judge

PAGED = "1.2.840.113556.1.4.319"
"""The simple paged results control, RFC 2696."""

Control = tuple[str, bytes | None]
"""A request's control, which is critical: its object identifier, and its value."""

MAX_EMPTY_PAGES = 1000
"""In a row. Empty pages are legal, and the cookies of some servers (389 DS) never change: neither alone is a loop."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the server sent it: attributes by lower-case name, each with the server's spelling."""

    dn: str
    raw: Mapping[str, tuple[str, list[bytes]]]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Entry:
        """From a row of ldap3's."""
        return cls(row["dn"], {name.lower(): (name, values) for name, values in row["raw_attributes"].items()})

    def values(self, name: str) -> list[bytes]:
        """The values of an attribute; none if it is not there."""
        return self.raw.get(name.lower(), ("", []))[1]

    def texts(self, name: str) -> list[str]:
        """Those values that are text, and not empty."""
        return [text for value in self.values(name) if (text := text_of(value)) is not None]

    def text(self, name: str) -> str | None:
        """The first of them."""
        return next(iter(self.texts(name)), None)


def text_of(value: bytes) -> str | None:
    """A value as text; None for what is empty, or not text."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text and "\0" not in text else None


class Wire:
    """One bound connection. `place` is said first in each error."""

    def __init__(
        self,
        url: str,
        place: str,
        *,
        user: str | None,
        password: str | None,
        start_tls: bool,
        ca_file: Path | None,
        timeout: float,
    ) -> None:
        """Connect and bind, once. The certificate is always verified, against `ca_file` or the system's."""
        self._place = place
        ldap3 = _ldap3()
        parts = urlsplit(url)
        host, ldaps = parts.hostname or "", parts.scheme == "ldaps"
        server = ldap3.Server(
            host,
            port=parts.port or (636 if ldaps else 389),
            use_ssl=ldaps,
            get_info=ldap3.NONE,
            connect_timeout=timeout,
            tls=_tls(ca_file, host) if ldaps or start_tls else None,
        )
        self._connection = ldap3.Connection(
            server,
            user=user,
            password=password,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            read_only=True,
            return_empty_attributes=False,
            receive_timeout=math.ceil(timeout),  # ldap3 packs it as an integer
        )
        _close_what_fails(self._connection)
        _decode_once(self._connection.strategy)
        try:
            self._open(start_tls=start_tls)
        except BaseException:
            self.close()
            raise

    def _open(self, *, start_tls: bool) -> None:
        connection = self._connection
        with failures(self._place):
            connection.open(read_server_info=False)
            if start_tls:
                connection.start_tls(read_server_info=False)
        if start_tls and not connection.tls_started:
            raise Unreachable(f"{self._place}: the server does not start TLS")
        with failures(self._place):
            connection.bind(read_server_info=False)
        judge(self._place, connection.result, "bind", bind=True)

    def close(self) -> None:
        """Unbind, and close the socket."""
        from ldap3.core.exceptions import LDAPException

        with suppress(LDAPException, OSError):
            self._connection.unbind()
        with suppress(LDAPException, OSError, AttributeError):
            self._connection.socket.close()

    def one(
        self, dn: str, attributes: list[str], control: Control | None = None
    ) -> tuple[Mapping[str, Any], Entry | None]:
        """The result and the entry of that DN."""
        result, rows = self.raw(dn, attributes, control, scope="BASE")
        entries = [row for row in rows if row["type"] == "searchResEntry"]
        return result, Entry.of(entries[0]) if entries else None

    def raw(
        self, base: str, attributes: list[str], control: Control | None, *, scope: str = "SUBTREE"
    ) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """The result and the rows as ldap3 has them, with their controls, of a search that is not paged."""
        with failures(self._place):
            self._connection.search(
                base,
                "(objectClass=*)",
                scope,
                dereference_aliases="NEVER",
                attributes=attributes,
                controls=_controls(control),
            )
        return self._connection.result, self._connection.response

    def pages(
        self,
        base: str,
        query: str,
        attributes: list[str],
        *,
        size: int,
        what: str,
        types_only: bool = False,
        refer: Callable[[str], None],
        control: Control | None = None,
    ) -> Iterator[list[Entry]]:
        """Every entry below `base` that matches. The result code of each page is judged.

        `refer` is told the URL of each part that another server holds. `types_only`: names of attributes, no values.
        """
        cookie, empty = b"", 0
        while True:
            with failures(self._place):
                self._connection.search(
                    base,
                    query,
                    "SUBTREE",
                    dereference_aliases="NEVER",
                    attributes=attributes,
                    types_only=types_only,
                    controls=_controls(control),
                    paged_size=size,
                    paged_criticality=True,
                    paged_cookie=cookie,
                )
            result, response = self._connection.result, self._connection.response
            judge(self._place, result, what)
            page = []
            for row in response:
                if row["type"] == "searchResEntry":
                    page.append(Entry.of(row))
                else:
                    for url in row.get("uri") or [""]:
                        refer(url)
            yield page
            paged = (result.get("controls") or {}).get(PAGED)
            if paged is None or not isinstance(paged.get("value"), dict):
                raise Incomplete(
                    f"{self._place}: {what}: the server did not page as asked, so the list may be cut",
                    remedy="the server, and any proxy before it, must support simple paged results (RFC 2696)",
                )
            cookie = paged["value"]["cookie"]
            if not cookie:
                return
            empty = 0 if page else empty + 1
            if empty > MAX_EMPTY_PAGES:
                raise Incomplete(f"{self._place}: {what}: {empty} empty pages in a row")


def _controls(control: Control | None) -> list[tuple[str, bool, bytes | None]] | None:
    return [(control[0], True, control[1])] if control else None


def _ldap3() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports by pyasn1's former names
        import ldap3
    return ldap3


def _close_what_fails(connection: Any) -> None:
    """ldap3 tries each address of a host, and forgets the sockets of those that fail."""
    opened = connection.strategy._open_socket  # noqa: SLF001

    def open_socket(*args: Any, **kwargs: Any) -> None:
        connection.socket = None
        try:
            opened(*args, **kwargs)
        except BaseException:
            if connection.socket is not None:
                connection.socket.close()
            raise

    connection.strategy._open_socket = open_socket  # noqa: SLF001


def _decode_once(strategy: Any) -> None:
    """ldap3 decodes each entry twice, and looks its own settings up for each value: half of a read's time."""
    decode = strategy.decode_response_fast
    strategy.socket_size = 1 << 16

    def decode_response(message: dict[str, Any]) -> Any:
        if message["protocolOp"] != 4:  # SearchResultEntry
            return decode(message)
        (*_, dn), (*_, attributes) = message["payload"]
        raw = {}
        for *_, ((*_, name), (*_, values)) in attributes:
            raw[bytes(name).decode()] = [bytes(value) for *_, value in values]
        entry = {"type": "searchResEntry", "dn": bytes(dn).decode(), "raw_attributes": raw}
        if message["controls"]:
            entry["controls"] = dict(strategy.decode_control_fast(control) for *_, control in message["controls"])
        return entry

    strategy.decode_response_fast = decode_response


def _tls(ca_file: Path | None, host: str) -> Any:
    """ldap3's TLS with the standard library's verification; its own verifies nothing unless told to."""
    ldap3 = _ldap3()
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(
            f"ca_file: {ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
        ) from error

    class Tls(ldap3.Tls):  # type: ignore[misc, name-defined]
        def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ARG002
            connection.socket = context.wrap_socket(connection.socket, server_hostname=host)

    return Tls(validate=ssl.CERT_REQUIRED)
