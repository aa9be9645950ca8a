"""A small LDAP server on loopback that answers as Active Directory does where slapd cannot.

Binary objectGUID and objectSid, userAccountControl, primaryGroupID; member ranges; paged results; continuation
references; the error texts of its binds. Written from:

- MS-ADTS 3.1.1.3.1.3.3, Range Retrieval of Attribute Values (an empty `member` beside `member;range=0-1499`)
  https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-adts/e27b48db-6f82-44cd-9038-2e54f790cc1f
- MS-ADTS, "LDAP_PAGED_RESULT_OID_STRING", and RFC 2696
- MS-ADTS, "LDAP Policies" (MaxPageSize, MaxValRange)
- https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes (the `data` of a failed bind)
- MS-ADTS 3.1.1.1.9 (update sequence numbers), 3.1.1.3.2 (rootDSE), 3.1.1.3.4.1.14 (LDAP_SERVER_SHOW_DELETED_OID),
  3.1.1.5.5 (what is left of a deleted object, and that links to it go), 6.1.1.4 (well-known objects)
- https://learn.microsoft.com/en-us/windows/win32/ad/polling-for-changes-using-usnchanged
- https://learn.microsoft.com/en-us/troubleshoot/windows-server/active-directory/non-administrators-view-deleted-object-container

The messages are those of RFC 4511, read and written here byte by byte, so that no client's library judges itself.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from connectors.dn import normal_dn

PAGED = "1.2.840.113556.1.4.319"
SHOW_DELETED = "1.2.840.113556.1.4.417"
DOMAIN_SID = bytes([1, 4, 0, 0, 0, 0, 0, 5]) + struct.pack("<4I", 21, 1004336348, 1177238915, 682003330)

BIND, UNBIND, SEARCH = 0x60, 0x42, 0x63
"""Tags of requests: application class; constructed, but for unbind."""


def tlv(tag: int, *parts: bytes) -> bytes:
    """BER: tag, definite length, value."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and values that stand in `data` one after the other."""
    found, at = [], 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        found.append((tag, data[start : start + length]))
        at = start + length
    return found


def integer(value: int, tag: int = 0x02) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: str | bytes, tag: int = 0x04) -> bytes:
    return tlv(tag, value.encode() if isinstance(value, str) else value)


def result(code: int, message: str = "") -> bytes:
    return integer(code, 0x0A) + octets("") + octets(message)


class ActiveDirectory:
    """A running server; `url`, `bind_dn` and `password` are what a reader needs."""

    def __init__(self, base: str = "dc=corp,dc=example", *, range_size: int = 1500) -> None:
        self.base = base
        self.domain = base
        """defaultNamingContext."""
        self.service = f"CN=NTDS Settings,CN=DC1,CN=Servers,CN=Site,CN=Sites,CN=Configuration,{base}"
        self.range_size = range_size
        self.bind_dn = f"CN=reader,CN=Users,{base}"
        self.upn = "reader@corp.example"
        self.password = "Passw0rd!"
        self.references: list[str] = []
        """URLs of the continuation references that end every list."""
        self.searches: list[tuple[list[str], bool]] = []
        """Attributes asked for, and whether only their types, of each search below the base."""
        self.static_cookies = False
        """Page as 389 Directory Server does: the cookie is always "0", and the place is kept with the connection."""
        self._position = 0
        self._found: tuple[object, list[str]] = (None, [])
        self.controls = [PAGED, SHOW_DELETED]
        self.usn = 12000
        """highestCommittedUSN."""
        self.invocation = uuid.uuid4().bytes_le
        self.shows_deleted = True
        """Whether the reader may read the container of deleted objects; by default, ordinary users may not."""
        self.deleted: dict[str, dict[str, list[bytes]]] = {}
        self.sent: list[int] = []
        """Entries sent, by search."""
        self.entries: dict[str, dict[str, list[bytes]]] = {}
        self._rid = 1100
        self._refuse = ""
        self._fault: tuple[int, str] | None = None
        self._range_fault = ""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0

    # Content

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def dn(self, name: str) -> str:
        return f"CN={name},CN=Users,{self.base}"

    def add(self, name: str, classes: Sequence[str], rid: int | None = None, **attributes: Any) -> str:
        """Add an object; its objectGUID as text comes back. An attribute given as None is left out."""
        self._rid += 1
        guid = uuid.uuid4()
        values: dict[str, Any] = {
            "objectClass": ["top", *classes],
            "cn": name,
            "name": name,
            "distinguishedName": self.dn(name),
            "objectGUID": guid.bytes_le,
            "objectSid": DOMAIN_SID[:1] + b"\x05" + DOMAIN_SID[2:] + struct.pack("<I", rid or self._rid),
            **attributes,
        }
        self.entries[self.dn(name)] = {key: _values(value) for key, value in values.items() if value is not None}
        self.touch(self.dn(name))
        return str(guid)

    def touch(self, dn: str) -> None:
        """Number a change of this object, unless its number was given."""
        self.usn += 1
        self.entries[dn].setdefault("uSNCreated", _values(self.usn))
        self.entries[dn]["uSNChanged"] = _values(self.usn)

    def add_user(self, name: str, **attributes: Any) -> str:
        more: dict[str, Any] = {"objectCategory": "person", "primaryGroupID": 513, "userAccountControl": 512}
        return self.add(name, ["person", "organizationalPerson", "user"], **{**more, **attributes})

    def add_group(self, name: str, rid: int | None = None, **attributes: Any) -> str:
        return self.add(name, ["group"], rid, **{"objectCategory": "group", **attributes})

    def set_members(self, name: str, dns: Sequence[str]) -> None:
        self.entries[self.dn(name)]["member"] = [dn.encode() for dn in dns]
        self.touch(self.dn(name))

    def edit(self, name: str, **attributes: Any) -> None:
        """Replace attributes; None takes one away."""
        entry = self.entries[self.dn(name)]
        for key, value in attributes.items():
            entry.pop(key, None)
            if value is not None:
                entry[key] = _values(value)
        self.touch(self.dn(name))

    def rename(self, old: str, new: str) -> None:
        """Rename or move an object, by DNs. Links to it, and what is below it, follow without a change of their own."""
        for dn in [dn for dn in self.entries if dn == old or dn.endswith(f",{old}")]:
            there = dn.removesuffix(old) + new
            self.entries[there] = self.entries.pop(dn)
            self.entries[there]["distinguishedName"] = _values(there)
            self._relink(dn, there)
        self.entries[new]["cn"] = _values(new.partition(",")[0][3:])
        self.touch(new)

    def delete(self, name: str) -> None:
        """Leave a tombstone. Links to it go, and those who had them are not changed by that."""
        dn = self.dn(name)
        entry = self.entries.pop(dn)
        self._relink(dn, None)
        self.usn += 1
        guid = str(uuid.UUID(bytes_le=entry["objectGUID"][0]))
        kept = {k: v for k, v in entry.items() if k in {"objectClass", "objectGUID", "objectSid", "uSNCreated"}}
        self.deleted[f"CN={name}\\0ADEL:{guid},CN=Deleted Objects,{self.base}"] = {
            **kept, "isDeleted": [b"TRUE"], "uSNChanged": _values(self.usn), "lastKnownParent": [dn.partition(",")[2].encode()],
        }  # fmt: skip

    def _relink(self, old: str, new: str | None) -> None:
        for entry in self.entries.values():
            for name in {"member", "manager"} & entry.keys():
                kept = [new.encode() if v == old.encode() and new else v for v in entry[name]]
                entry[name] = [v for v in kept if v != old.encode()]

    # Faults

    @contextlib.contextmanager
    def refusing(self, data: str) -> Iterator[None]:
        """Refuse binds with this `data` code."""
        self._refuse = data
        try:
            yield
        finally:
            self._refuse = ""

    @contextlib.contextmanager
    def broken(self, page: int, what: str) -> Iterator[None]:
        """Break this page of every list of users: a result code in digits, `cut`, `close`, `nocontrol`, `repeat`,
        `garbage`, `hang` (half a page, and then nothing), `notice` (of disconnection, RFC 4511 section 4.4.1), or
        `empty` (empty pages without end)."""
        self._fault = (page, what)
        try:
            yield
        finally:
            self._fault = None

    @contextlib.contextmanager
    def broken_ranges(self, what: str) -> Iterator[None]:
        """Break the second range of members: a result code in digits, `gone`, `missing`, `shifted`."""
        self._range_fault = what
        try:
            yield
        finally:
            self._range_fault = ""

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Refuse connections."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    # The server

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, args=(self._listener,), daemon=True)]
        self._threads[0].start()

    def _stop(self) -> None:
        assert self._listener
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        bound = False
        try:
            while (message := _receive(sock)) is not None:
                try:
                    (_, number_), (kind, operation), *more = parts(parts(message)[0][1])
                except (ValueError, IndexError):  # a client that speaks something else
                    return
                number, controls = int.from_bytes(number_, "big"), more[0][1] if more else b""
                if kind == UNBIND:
                    return
                if kind == BIND:
                    bound, body = self._bind(operation)
                    sock.sendall(_message(number, tlv(0x61, body)))
                elif kind == SEARCH:
                    answer, cut = self._search(number, operation, controls, bound=bound)
                    sock.sendall(answer)
                    if cut:
                        return
                else:
                    sock.sendall(_message(number, tlv(0x78, result(2, "not supported"))))
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _bind(self, request: bytes) -> tuple[bool, bytes]:
        _, (_, name_), (_, password) = parts(request)
        name = name_.decode()
        data = self._refuse or ("52e" if password else "")
        if not self._refuse and name.lower() in {self.bind_dn.lower(), self.upn} and password == self.password.encode():
            return True, result(0)
        if not data:  # RFC 4513 section 5.1: anonymous
            return False, result(0)
        text = f"80090308: LdapErr: DSID-0C090439, comment: AcceptSecurityContext error, data {data}, v4563\0"
        return False, result(49, text)

    def _search(self, number: int, request: bytes, controls: bytes, *, bound: bool) -> tuple[bytes, bool]:
        """The answer's bytes, and whether the connection ends after them."""
        (_, base_), (_, scope_), _, _, _, (_, types_only_), query, (_, attributes_) = parts(request)
        base, scope, types_only = base_.decode(), scope_[0], types_only_ != b"\0"
        asked = [name.decode() for _, name in parts(attributes_)]

        def done(code: int, text: str = "", control: bytes = b"") -> bytes:
            return _message(number, tlv(0x65, result(code, text)), control)

        def entry(dn: str, attributes: Mapping[str, list[bytes]]) -> bytes:
            pairs = [
                tlv(0x30, octets(name), tlv(0x31, *(octets(v) for v in ([] if types_only else values))))
                for name, values in attributes.items()
            ]
            return _message(number, tlv(0x64, octets(dn), tlv(0x30, *pairs)))

        if not base and scope == 0:
            root = {
                "supportedControl": [c.encode() for c in self.controls],
                "highestCommittedUSN": _values(self.usn),
                "defaultNamingContext": _values(self.domain),
                "dsServiceName": _values(self.service),
            }
            wanted = {name.lower() for name in asked}
            return entry("", {k: v for k, v in root.items() if k.lower() in wanted}) + done(0), False
        if not bound:
            text = (
                "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must"
            )
            return done(1, f"{text} be completed on the connection., data 0, v4563"), False
        if scope == 0:
            return self._base_search(base, asked, entry, done, _oids(controls)), False
        below = normal_dn(base)
        if below not in {normal_dn(self.base), normal_dn(self.domain)} and below not in map(normal_dn, self.entries):
            return done(
                32, "0000208D: NameErr: DSID-0310028B, problem 2001 (NO_OBJECT), data 0, best match of: ''"
            ), False
        self.searches.append((asked, types_only))
        all_ = self.entries
        if SHOW_DELETED in _oids(controls) and self.shows_deleted:
            all_ = {**all_, **self.deleted}
        size, offset = _paging(controls)
        if offset < 0:
            offset = self._position
        if not offset or self._found[0] != (below, query):
            found = [dn for dn, values in all_.items() if _matches(query, values) and _below(dn, below)]
            self._found = ((below, query), found)
        found = [dn for dn in self._found[1] if dn in all_]
        users = any(b"person" in v for dn in found for v in all_[dn].get("objectCategory", []))
        page = offset // size + 1
        fault = self._fault[1] if self._fault and self._fault[0] == page and users else ""
        if fault.isdigit():
            return done(int(fault), "a fault"), False
        if fault == "close":
            return b"", True
        if fault == "notice":
            notice = result(52, "idle for too long") + octets("1.3.6.1.4.1.1466.20036", 0x8A)
            return _message(0, tlv(0x78, notice)), True
        self.sent.append(len(found[offset : offset + size]))
        rows = b"".join(entry(dn, self._visible(all_[dn], asked)) for dn in found[offset : offset + size])
        ends = offset + size >= len(found)
        if fault == "empty":
            rows, ends = b"", False
        if ends:
            rows += b"".join(_message(number, tlv(0x73, octets(url))) for url in self.references)
        after = b"" if ends else b"\x01AD" + struct.pack(">I", offset + size)
        if fault in {"repeat", "empty"}:
            after = b"\x01AD" + struct.pack(">I", offset)
        if after and self.static_cookies:
            after, self._position = b"0", offset + size
        value = tlv(0x30, integer(0), octets(after))
        control = b"" if fault == "nocontrol" else tlv(0xA0, tlv(0x30, octets(PAGED), octets(value)))
        answer = rows + done(0, control=control)
        if fault == "cut":
            return answer[: len(answer) * 2 // 3], True
        if fault == "hang":
            return answer[: len(answer) // 2], False
        if fault == "garbage":
            return tlv(0x30, integer(number), tlv(0x65, b"\xff" * 9)), True
        return answer, False

    def _base_search(self, base: str, asked: list[str], entry: Any, done: Any, controls: set[str]) -> bytes:
        if base.upper() == f"<WKGUID=18E2EA80684F11D2B9AA00C04F79F805,{self.domain.upper()}>":
            if not self.shows_deleted or SHOW_DELETED not in controls:
                return bytes(done(32))
            return bytes(entry(f"CN=Deleted Objects,{self.domain}", {"objectGUID": [bytes(16)]}) + done(0))
        if base == self.service:
            return bytes(entry(base, {"invocationId": [self.invocation]}) + done(0))
        found = next((dn for dn in self.entries if normal_dn(dn) == normal_dn(base)), None)
        fault = self._range_fault
        if fault.isdigit():
            return bytes(done(int(fault), "a fault"))
        if found is None or fault == "gone":
            return bytes(done(32))
        visible = self._visible(self.entries[found], asked)
        if fault == "missing":
            visible = {}
        if fault == "shifted":
            visible = {k.replace("range=", "range=1"): v for k, v in visible.items()}
        return bytes(entry(found, visible) + done(0))

    def _visible(self, values: Mapping[str, list[bytes]], asked: list[str]) -> dict[str, list[bytes]]:
        wanted = {name.partition(";")[0].lower(): name for name in asked}
        found: dict[str, list[bytes]] = {}
        for name, all_ in values.items():
            if "*" not in wanted and name.lower() not in wanted:
                continue
            _, _, option = wanted.get(name.lower(), "").partition(";range=")
            low = int(option.partition("-")[0]) if option else 0
            if not option and len(all_) <= self.range_size:
                found[name] = all_
                continue
            part = all_[low : low + self.range_size]
            if not option:
                found[name] = []
            if part:
                high = "*" if low + len(part) >= len(all_) else str(low + len(part) - 1)
                found[f"{name};range={low}-{high}"] = part
        return found


def _values(value: Any) -> list[bytes]:
    return [x if isinstance(x, bytes) else str(x).encode() for x in (value if isinstance(value, list) else [value])]


def _message(number: int, operation: bytes, controls: bytes = b"") -> bytes:
    return tlv(0x30, integer(number), operation, controls)


def _paging(controls: bytes) -> tuple[int, int]:
    """Page size and offset, -1 for the connection's; without the control, MaxPageSize is the limit (not reached here)."""
    for _, control in parts(controls):
        (_, oid), *_, (_, value) = parts(control)
        if oid.decode() == PAGED:
            (_, size), (_, cookie) = parts(parts(value)[0][1])
            if cookie == b"0":
                return int.from_bytes(size, "big"), -1
            return int.from_bytes(size, "big"), struct.unpack(">I", cookie[3:])[0] if cookie else 0
    return 1000, 0


def _oids(controls: bytes) -> set[str]:
    return {parts(control)[0][1].decode() for _, control in parts(controls)}


def _below(dn: str, normal_base: str) -> bool:
    return f"\0,{normal_dn(dn)}".endswith(f"\0,{normal_base}")


DN_SYNTAX = {"member", "manager", "distinguishedname"}


def _matches(query: tuple[int, bytes], values: Mapping[str, list[bytes]]) -> bool:
    """RFC 4511 section 4.5.1.7, as far as needed; values compared without case."""
    tag, body = query
    lower = {name.lower(): [v.lower() for v in found] for name, found in values.items()}
    match tag:
        case 0xA0:
            return all(_matches(x, values) for x in parts(body))
        case 0xA1:
            return any(_matches(x, values) for x in parts(body))
        case 0xA2:
            return not _matches(parts(body)[0], values)
        case 0xA3:
            (_, name), (_, value) = parts(body)
            there = lower.get(name.decode().lower(), [])
            if name.decode().lower() in DN_SYNTAX:
                return normal_dn(value.decode()) in {normal_dn(v.decode()) for v in there}
            return value.lower() in there
        case 0xA5:
            (_, name), (_, value) = parts(body)
            return any(int(v) >= int(value) for v in lower.get(name.decode().lower(), []))
        case 0x87:
            return body.decode().lower() in lower
    raise NotImplementedError(hex(tag))


def _receive(sock: socket.socket) -> bytes | None:
    """One BER value; None at the end."""
    head = _exactly(sock, 2)
    if len(head) < 2:
        return None
    length = head[1]
    if length & 0x80:
        more = _exactly(sock, length & 0x7F)
        head, length = head + more, int.from_bytes(more, "big")
    return head + _exactly(sock, length)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := sock.recv(count - len(data))):
        data += part
    return data
