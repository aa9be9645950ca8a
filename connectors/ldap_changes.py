"""From the entries that have changed to what that changes: users, groups, members, and who is named by whom.

An entry that changed may have been added, moved or renamed, and may have begun or ceased to match a filter; nothing
tells which. So each is asked for by its id and the filters; of one that matches, it is asked who names it now.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Protocol, TypeVar

from connectors.dn import dn_key
from connectors.errors import BadData, StaleBookmark
from connectors.ldap_feed import Delta, Feed
from connectors.ldap_options import Schema
from connectors.ldap_rows import Known, Rows, ref_of
from connectors.ldap_wire import Entry
from connectors.values import Change, Gone, Kind, Left, Members, Ref

T = TypeVar("T")

AT_ONCE = 50
"""Values in one filter."""
MOST_NAMES = 2000
"""Names to look up. If there are more, the ids of all entries are listed instead."""
MOST_LEFT = 100_000
"""Memberships that may have ended. If there are more, a whole read is as cheap."""


class Searching(Protocol):
    """Searches below the base."""

    def find(self, kind: Kind, where: str, attributes: list[str], *, types_only: bool = False) -> Iterator[Entry]:
        """The entries that match the filter of `kind`, and `where` unless that is empty."""

    def holds_below(self, dn: str) -> bool:
        """Whether there is a user or group below that DN, be it outside of the base."""


class Follower:
    """Turns what a feed tells into changes."""

    def __init__(self, place: str, schema: Schema, kinds: Collection[Kind], rows: Rows, search: Searching) -> None:
        self._place = place
        self._schema = schema
        self._kinds = kinds
        self._rows = rows
        self._search = search

    def follow(self, feed: Feed, delta: Delta) -> Iterator[Change]:
        """Yield what `delta` changes. StaleBookmark where only a whole read can tell."""
        ids = set(delta.changed)
        found = {kind: self._by_id(kind, ids) for kind in self._kinds}
        users, groups = found[Kind.USER], found.get(Kind.GROUP, {})
        self._require_unmoved(feed, (entry for id_, entry in delta.changed.items() if id_ not in users))
        for kind, there in found.items():
            yield from (Gone(ref_of(kind, id_)) for id_ in sorted((ids - there.keys()) | delta.gone))
        yield from self._left(users.keys(), delta.gone)
        reports = self._reports(users)
        known = self._known({**reports, **users}, groups)
        for entry in [*reports.values(), *users.values()]:
            yield from self._rows.user(self._rows.key(entry), entry, known)
        for id_, entry in groups.items():
            yield Left(ref_of(Kind.GROUP, id_))
            yield from self._rows.group(entry, known)
            yield from self._primary_members(id_, entry)
        if Kind.GROUP in self._kinds:
            for kind, there in found.items():
                for id_, entry in there.items():
                    if kind is Kind.USER or id_ not in users:  # one that is both is named as a user
                        yield from self._named_by(ref_of(kind, id_), entry)

    def _by_id(self, kind: Kind, ids: Iterable[bytes]) -> dict[bytes, Entry]:
        """Those of these entries that are of this kind, whole."""
        found: dict[bytes, Entry] = {}
        for some in _chunks(sorted(ids)):
            where = _any(self._schema.id, (self._id_value(id_) for id_ in some))
            typed = list(self._search.find(kind, where, ["*"], types_only=True))
            for entry in self._search.find(kind, where, self._rows.attributes(kind, typed)) if typed else ():
                found[self._rows.id(entry)] = self._rows.whole(entry, members=True)
        return found

    def _id_value(self, id_: bytes) -> bytes:
        id_as_uuid = uuid.UUID(bytes=id_)
        return id_as_uuid.bytes_le if self._schema.id == "objectGUID" else str(id_as_uuid).encode()

    def _require_unmoved(self, feed: Feed, changed: Iterable[Entry]) -> None:
        """What is below an entry that is moved gets another name, or leaves, without a change of its own."""
        root = dn_key(feed.root)
        for entry in changed:
            if feed.may_hold_others(entry) and self._rows.key(entry) != root and self._search.holds_below(entry.dn):
                raise StaleBookmark(f"{self._place}: {entry.dn} has changed, and may have been moved with all it holds")

    def _left(self, changed_users: Collection[bytes], gone: Collection[bytes]) -> Iterator[Left]:
        """End what may have ended with no change of a group: memberships of those who may have been renamed or deleted.

        Those who are still named come back by `_named_by`. Active Directory's links follow their target's name, so
        that only its deletion ends them.
        """
        refs = [ref_of(kind, id_) for kind in self._kinds for id_ in sorted(gone)]
        if self._schema.name != "ad":
            refs += [ref_of(Kind.USER, id_) for id_ in sorted(changed_users)]
        if not refs or Kind.GROUP not in self._kinds:
            return
        for count, group in enumerate(self._search.find(Kind.GROUP, "", [self._schema.id]), 1):
            if count * len(refs) > MOST_LEFT:
                raise StaleBookmark(f"{self._place}: {len(refs)} entries may have left more than {count} groups")
            yield Left(ref_of(Kind.GROUP, self._rows.id(group)), tuple(refs))

    def _reports(self, users: Mapping[bytes, Entry]) -> dict[bytes, Entry]:
        """Users that name one of these as their manager: its name may lead to somebody else now."""
        ids: set[bytes] = set()
        for some in _chunks(users.values()):
            where = _any("manager", (entry.dn.encode() for entry in some))
            ids |= {self._rows.id(entry) for entry in self._search.find(Kind.USER, where, [self._schema.id])}
        return self._by_id(Kind.USER, ids - users.keys())

    # Names

    def _known(self, users: Mapping[bytes, Entry], groups: Mapping[bytes, Entry]) -> Known:
        """What the names in these entries lead to."""
        known = Known()
        entries = {Kind.USER: users, Kind.GROUP: groups}
        for kind, there in entries.items():
            for entry in there.values():
                self._rows.learn(kind, self._rows.key(entry), entry, known)
        dns = {dn for entry in users.values() for dn in entry.texts("manager")}
        if self._schema.name == "rfc2307":
            logins = {x for group in groups.values() for texts in self._rows.members(group) for x in texts}
            logins |= {x for user in users.values() for x in user.texts("uid")}
            self._learn(Kind.USER, "uid", (x.encode() for x in logins), known)
        else:
            dns |= {x for group in groups.values() for texts in self._rows.members(group) for x in texts}
        if self._schema.primary and Kind.GROUP in self._kinds:
            primary = {value for user in users.values() for value in self._rows.primary(user)}
            primary |= {value for group in groups.values() for value in group.values(self._schema.primary[0])}
            self._learn(Kind.GROUP, self._schema.primary[0], primary, known)
        self._resolve(dns, [*groups.values(), *users.values()], known)
        return known

    def _learn(self, kind: Kind, name: str, values: Iterable[bytes], known: Known) -> None:
        for some in _chunks(sorted(values)):
            for entry in self._search.find(kind, _any(name, some), self._rows.naming(kind)):
                self._rows.learn(kind, self._rows.key(entry), entry, known)

    def _resolve(self, dns: Iterable[str], changed: list[Entry], known: Known) -> None:
        """Learn the entries of these DNs. With each part goes one that must come back, or none would."""
        missing: dict[bytes, str] = {}
        for dn in dns:
            try:
                name = self._rows.name(dn)
                missing.setdefault(dn_key(name), name)
            except ValueError:
                pass  # whoever converts the entry says of which
        for key in [key for key in missing if key in known.users or key in known.groups]:
            del missing[key]
        if len(missing) > MOST_NAMES:
            for kind in self._kinds:
                for entry in self._search.find(kind, "", self._rows.naming(kind)):
                    self._rows.learn(kind, self._rows.key(entry), entry, known)
            return
        attribute = "distinguishedName" if self._schema.name == "ad" else "entryDN"
        for some in _chunks(missing.values()):
            where = _any(attribute, (dn.encode() for dn in [*some, changed[0].dn]))
            sure = self._rows.key(changed[0])
            came = False
            for kind in self._kinds:
                for entry in self._search.find(kind, where, self._rows.naming(kind)):
                    key = self._rows.key(entry)
                    self._rows.learn(kind, key, entry, known)
                    came = came or key == sure
            if not came:
                raise StaleBookmark(f"{self._place}: the server does not find {changed[0].dn} by {attribute}")

    # Members

    def _primary_members(self, id_: bytes, group: Entry) -> Iterator[Members]:
        """Those whose primary group this is: they are not among its members."""
        if not self._schema.primary:
            return
        by, name = self._schema.primary[0], self._schema.primary[-1]
        values = group.values(by)
        if by == "objectSid":
            if not values:
                raise BadData(f"{self._place}: {group.dn}: no objectSid")
            values = [str(struct.unpack("<I", values[0][-4:])[0]).encode()]
        for some in _chunks(values):
            users = self._search.find(Kind.USER, _any(name, some), [self._schema.id])
            members = tuple(ref_of(Kind.USER, self._rows.id(user)) for user in users)
            if members:
                yield Members(ref_of(Kind.GROUP, id_), members)

    def _named_by(self, ref: Ref, entry: Entry) -> Iterator[Members]:
        """The groups that name this one as a member now."""
        if self._schema.name == "rfc2307":
            names = [x.encode() for x in entry.texts("uid")] if ref.kind is Kind.USER else []
        else:
            names = [entry.dn.encode()]
        if not names:
            return
        where = f"(|{''.join(_any(attribute, names) for attribute in self._schema.members)})"
        for group in self._search.find(Kind.GROUP, where, [self._schema.id]):
            yield Members(ref_of(Kind.GROUP, self._rows.id(group)), (ref,))


def _any(name: str, values: Iterable[bytes]) -> str:
    """A filter, RFC 4515: every octet that is no ASCII letter or digit is escaped."""
    escaped = ("".join(chr(b) if chr(b).isascii() and chr(b).isalnum() else f"\\{b:02x}" for b in v) for v in values)
    return f"(|{''.join(f'({name}={value})' for value in escaped)})"


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, AT_ONCE)):
        yield some
