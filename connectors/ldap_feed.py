"""What a server tells of its changes: where they stand now, and which entries have changed or gone since.

Two ways tell deletions for certain, and no other is taken. OpenLDAP's overlay syncprov does content synchronization
(RFC 4533); of what is deleted it keeps a session log. Active Directory numbers its changes (uSNChanged) and keeps what
is deleted for a while, for those who may read it.

- https://www.rfc-editor.org/rfc/rfc4533
- slapo-syncprov(5)
- https://learn.microsoft.com/en-us/windows/win32/ad/polling-for-changes-using-usnchanged
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from connectors.dn import normal_dn
from connectors.errors import ServerFault, StaleBookmark
from connectors.ldap_errors import judge
from connectors.ldap_wire import Entry, Wire

MOST = 500
"""Entries. If more have changed or gone, a whole read is as cheap."""

SYNC = "1.3.6.1.4.1.4203.1.9.1.1"
SYNC_STATE, SYNC_DONE, SYNC_INFO = (f"1.3.6.1.4.1.4203.1.9.1.{n}" for n in (2, 3, 4))
SHOW_DELETED = "1.2.840.113556.1.4.417"
"""LDAP_SERVER_SHOW_DELETED_OID, MS-ADTS 3.1.1.3.4.1.14."""
_DELETED_OBJECTS = "18E2EA80684F11D2B9AA00C04F79F805"
"""GUID_DELETED_OBJECTS_CONTAINER_W, MS-ADTS 6.1.1.4."""

_CSN = re.compile(r"\d{14}\.\d{6}Z#[0-9a-f]{6}#[0-9a-f]{3}#[0-9a-f]{6}", re.ASCII)
_ADD, _MODIFY, _DELETE = 1, 2, 3
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Delta:
    """What has changed: entries by the 16 bytes of their ids, wherever they are now, and ids of those that are gone."""

    position: str
    changed: Mapping[bytes, Entry]
    gone: frozenset[bytes]


class Feed(Protocol):
    """A server's changes. `position` is where they stood when this was made; `root` is the part that they are of."""

    position: str
    root: str

    def since(self, position: str) -> Delta:
        """What has changed after `position`. StaleBookmark if that, or all of it, cannot be told."""

    def may_hold_others(self, entry: Entry) -> bool:
        """Whether entries may be below a changed one: if it was moved, so were they, without a change of their own."""


def feed_of(wire: Wire, place: str, base: str, *, ad: bool) -> Feed | str:
    """The changes of what is below `base`; or why the server tells none for certain."""
    names = ("highestCommittedUSN", "dsServiceName", "defaultNamingContext") if ad else ("namingContexts",)
    _, root = wire.one("", ["supportedControl", *names])
    if root is None:
        return "the root DSE is not readable"
    control = SHOW_DELETED if ad else SYNC
    if control not in root.texts("supportedControl"):
        return f"no control {control}"
    contexts = sorted(root.texts(names[-1]), key=len)
    context = next((name for name in reversed(contexts) if _below(base, name)), None)
    if context is None:
        return f"{names[-1]} does not hold base"
    return _usn(wire, place, root, context) if ad else _sync(wire, place, context)


def _below(name: str, other: str) -> bool:
    return f"\0,{normal_dn(name)}".endswith(f"\0,{normal_dn(other)}")


def _values(entry: Entry | None, name: str) -> list[bytes]:
    return entry.values(name) if entry else []


# Content synchronization


def _sync(wire: Wire, place: str, context: str) -> Feed | str:
    csns = _csns(b";".join(_values(wire.one(context, ["contextCSN"])[1], "contextCSN")).decode("ascii", "replace"))
    return (
        Sync(wire, place, context, csns)
        if csns
        else f"{context} shows no contextCSN: the overlay syncprov is missing, or bind_dn may not read it"
    )


def _csns(text: str) -> str:
    """The change sequence numbers, one of each server that is written to; empty if any is none."""
    found = sorted(text.split(";"))
    return ";".join(found) if all(_CSN.fullmatch(csn) for csn in found) else ""


class Sync:
    """Changes by content synchronization."""

    def __init__(self, wire: Wire, place: str, root: str, csns: str) -> None:
        self.root = root
        self.position = csns
        self._wire = wire
        self._place = place

    def since(self, position: str) -> Delta:
        """One search of the whole database: what leaves the base must be seen too."""
        if not position or _csns(position) != position:
            raise StaleBookmark(f"{self._place}: the bookmark is none of this server's")
        if position == self.position:
            return Delta(position, {}, frozenset())
        # A cookie that slapd cannot read is one that it does not see: it would begin from the beginning, and say so.
        cookie = f"rid=000,csn={position}".encode()
        request = _tlv(0x30, _tlv(0x0A, b"\1"), _tlv(0x04, cookie))
        result, rows = self._wire.raw(self.root, ["hasSubordinates"], (SYNC, request))
        if result["result"] in {3, 4, 11, 12, 53, 4096}:  # limits; no longer there; we are ahead; e-syncRefreshRequired
            raise self._stale(f"{result['description']} {result.get('message') or ''}".strip())
        judge(self._place, result, "changes")
        try:
            return self._delta(result, rows)
        except (ValueError, IndexError, KeyError):
            raise ServerFault(f"{self._place}: the changes cannot be understood") from None

    def _stale(self, why: str) -> StaleBookmark:
        return StaleBookmark(f"{self._place}: the server does not tell all changes: {why}")

    def _delta(self, result: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> Delta:
        done = dict(_parts(_parts(result["controls"][SYNC_DONE]["value"])[0][1]))
        told = re.search(r"(?:^|,)csn=([^,]*)", done.get(0x04, b"").decode("ascii"))
        position = _csns(told[1]) if told else ""
        if not position or done.get(0x01, b"\0") == b"\0":
            # It lists what is there still, or all there is, instead of what is deleted.
            raise self._stale("it keeps no session log of what was deleted, or not from there on")
        changed: dict[bytes, Entry] = {}
        gone: set[bytes] = set()
        for row in rows:
            if row["type"] == "intermediateResponse":
                gone |= self._deleted(row)
            elif row["type"] == "searchResEntry":
                (_, state), (_, id_), *_ = _parts(_parts(row["controls"][SYNC_STATE]["value"])[0][1])
                if state[0] in {_ADD, _MODIFY}:
                    changed[bytes(id_)] = Entry.of(row)
                elif state[0] == _DELETE:
                    gone.add(bytes(id_))
                else:
                    raise self._stale("it lists what is there still")
            else:
                raise self._stale("a part is on another server")
        _limit(self._place, len(changed) + len(gone))
        return Delta(position, changed, frozenset(gone - changed.keys()))

    def _deleted(self, row: Mapping[str, Any]) -> set[bytes]:
        """The ids in a Sync Info Message, which is a choice: [1] the deletions are told, [3] a set of ids."""
        if row.get("responseName") != SYNC_INFO:
            return set()
        ((tag, body),) = _parts(row["responseValue"])
        parts = dict(_parts(body)) if tag != 0x80 else {}
        if tag == 0xA3 and parts.get(0x01, b"\0") != b"\0":
            return {bytes(id_) for _, id_ in _parts(parts[0x31])}
        if tag in {0xA2, 0xA3}:
            raise self._stale("it lists what is there still")
        return set()

    def may_hold_others(self, entry: Entry) -> bool:
        """By hasSubordinates, which slapd knows of each entry; hidden, it may."""
        return entry.text("hasSubordinates") != "FALSE"


# Update sequence numbers


def _usn(wire: Wire, place: str, root: Entry, context: str) -> Feed | str:
    usn, service = root.text("highestCommittedUSN"), root.text("dsServiceName")
    invocation = _values(wire.one(service, ["invocationId"])[1], "invocationId") if service else []
    if usn is None or not usn.isascii() or not usn.isdecimal() or len(invocation) != 1:
        return "the domain controller does not tell its invocationId and highestCommittedUSN"
    container = f"<WKGUID={_DELETED_OBJECTS},{context}>"
    if wire.one(container, ["objectGUID"], (SHOW_DELETED, None))[1] is None:
        return f"bind_dn may not read CN=Deleted Objects,{context}, so deletions would not be seen"
    return Usn(wire, place, context, invocation[0].hex(), int(usn))


class Usn:
    """Changes by update sequence number: of one domain controller, in one life of its database (its invocationId)."""

    def __init__(self, wire: Wire, place: str, root: str, invocation: str, usn: int) -> None:
        self.root = root
        self.position = f"{invocation}:{usn}"
        self._wire = wire
        self._place = place
        self._invocation = invocation
        self._usn = usn

    def since(self, position: str) -> Delta:
        """One search of the domain's partition, in pages: what leaves the base must be seen too."""
        found = re.fullmatch(r"([0-9a-f]*):(\d{1,19})", position, re.ASCII)
        if found is None or found[1] != self._invocation or int(found[2]) > self._usn:
            raise StaleBookmark(f"{self._place}: the bookmark is of another domain controller, or of one restored")
        changed: dict[bytes, Entry] = {}
        gone: set[bytes] = set()
        pages = self._wire.pages(
            self.root,
            f"(uSNChanged>={int(found[2]) + 1})",
            ["objectGUID", "isDeleted", "objectClass"],
            size=_PAGE,
            what="changes",
            refer=lambda _: None,  # what is below base is asked of the base
            control=(SHOW_DELETED, None),
        )
        for entry in (entry for page in pages for entry in page) if int(found[2]) < self._usn else ():
            ((id_),) = entry.values("objectGUID") or [b""]
            if len(id_) != 16:
                raise ServerFault(f"{self._place}: {entry.dn}: a change without objectGUID")
            id_ = uuid.UUID(bytes_le=id_).bytes
            if id_ in changed or id_ in gone:
                raise StaleBookmark(f"{self._place}: the server gave {entry.dn} twice in one list of changes")
            if entry.text("isDeleted") == "TRUE":
                gone.add(id_)
            else:
                changed[id_] = entry
            _limit(self._place, len(changed) + len(gone))
        return Delta(self.position, changed, frozenset(gone - changed.keys()))

    def may_hold_others(self, entry: Entry) -> bool:
        """By its class. The partition's own root is never moved."""
        classes = {name.lower() for name in entry.texts("objectClass")}
        return not classes or bool(classes & {"organizationalunit", "container", "organization", "lostandfound"})


def _limit(place: str, count: int) -> None:
    if count > MOST:
        raise StaleBookmark(f"{place}: more than {MOST} entries have changed")


# Basic encoding rules, as far as the sync controls need them


def _tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, *([len(body)] if len(body) < 128 else [0x80 | len(length), *length])]) + body


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and values that stand in `data` one after the other. ValueError if it is cut."""
    found, at = [], 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        at = start + length
        if at > len(data):
            raise ValueError("cut")
        found.append((tag, bytes(data[start:at])))
    return found
