"""Entries as principals and their members, and the ids and names by which entries name each other."""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from connectors.answers import one_line
from connectors.dn import dn_key
from connectors.errors import BadData, Forbidden, Incomplete
from connectors.ldap_errors import judge
from connectors.ldap_options import Schema
from connectors.ldap_wire import Entry, Wire
from connectors.values import Kind, Members, Principal, Record, Ref

NEVER = re.compile(
    r"passw|pwd|secret|credential|hash|pkcs12|principalkey|otpkey|privatekey|recovery|pincode|photo|audio|logo"
    r"|certificate|securitydescriptor|^objectguid$|^objectsid$|sidhistory|^(?:member|uniquemember|memberuid|memberof)$"
    r"|^(?:id|name|email|objectclass)$|^(?:usn\w+|whenchanged|dscorepropagationdata)$",
    re.IGNORECASE,
)
"""Attributes that are not asked for: secrets, pictures and keys, memberships (read apart), names that are fields.

Nor Active Directory's own bookkeeping (`logo` means lastLogon and its kin too): it differs from one domain controller
to the next, so that all users would seem changed whenever another one answers.
https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-ada3/30ed4f48-fd7a-408e-b578-e0b6d46596c8
"""


@dataclass
class Known:
    """What names lead to which ids; ids as 16 bytes, DNs as 16-byte keys."""

    users: dict[bytes, bytes] = field(default_factory=dict)
    groups: dict[bytes, bytes] = field(default_factory=dict)
    logins: dict[str, bytes] = field(default_factory=dict)
    primary: dict[bytes, bytes] = field(default_factory=dict)

    def by_dn(self, dn: str) -> Ref | None:
        """The principal of that DN, if it is one that is read."""
        key = dn_key(dn)
        for kind, ids in ((Kind.USER, self.users), (Kind.GROUP, self.groups)):
            if key in ids:
                return ref_of(kind, ids[key])
        return None


class Rows:
    """Entries of one kind of server. `place` is said first in each error; `wire` is where ranges are read on."""

    def __init__(self, place: str, schema: Schema, wire: Callable[[], Wire], *, groups: bool) -> None:
        """`groups`: whether groups are read too."""
        self._place = place
        self._schema = schema
        self._wire = wire
        self._groups = groups

    def attributes(self, kind: Kind, typed: Iterable[Entry]) -> list[str]:
        """What to ask for of entries like `typed`, of which only the names of attributes are known."""
        names: dict[str, str] = {}
        for entry in typed:
            for spelling, _ in entry.raw.values():
                name = spelling.partition(";")[0]
                if not _never(name):
                    names[name.lower()] = name
        schema = self._schema
        more = (*schema.state, *schema.primary) if kind is Kind.USER else (*schema.members, *schema.primary[:1])
        return [*names.values(), *(x for x in (schema.id, *more) if x.lower() not in names)]

    def naming(self, kind: Kind) -> list[str]:
        """The attributes that `learn` needs."""
        extra = "uid" if self._schema.name == "rfc2307" and kind is Kind.USER else ""
        by = self._schema.primary[:1] if kind is Kind.GROUP else ()
        return [self._schema.id, *filter(None, [extra]), *by]

    def learn(self, kind: Kind, key: bytes, entry: Entry, known: Known) -> None:
        """Take in what an entry is named by. BadData if another one is named so too."""
        id_ = self.id(entry)
        self._alone(known.users if kind is Kind.GROUP else known.groups, key, id_, entry)
        (known.users if kind is Kind.USER else known.groups)[key] = id_
        _, *names = self.naming(kind)
        for name in names:
            for value in entry.values(name) if kind is Kind.GROUP else ():
                if known.primary.setdefault(value, id_) != id_:
                    raise self._twice(name, value.hex() if name == "objectSid" else value.decode(), "group_filter")
            for login in entry.texts(name) if kind is Kind.USER else ():
                if known.logins.setdefault(login, id_) != id_:
                    raise self._twice(name, login, "user_filter")

    def user(self, key: bytes, entry: Entry, known: Known) -> Iterator[Record]:
        """The user, and its membership of its primary group."""
        id_ = self.id(entry)
        self._alone(known.groups, key, id_, entry)
        known.users[key] = id_
        email, aliases = _addresses(entry)
        managers = [ref for dn in entry.texts("manager") if (ref := self._by_dn(known, dn, entry))]
        user = Principal(
            Kind.USER,
            ref_of(Kind.USER, id_).id,
            entry.text("displayName") or entry.text("cn") or "",
            email,
            self.active(entry),
            next((ref.id for ref in managers if ref.kind is Kind.USER), None),
            aliases,
            _matchable(entry, self._schema.state),
        )
        yield user
        for value in self.primary(entry) if self._groups else ():
            if value in known.primary:
                yield Members(ref_of(Kind.GROUP, known.primary[value]), (user.ref,))

    def primary(self, user: Entry) -> Iterator[bytes]:
        """What names the primary group: its gidNumber, or its objectSid."""
        if self._schema.name == "rfc2307":
            yield from user.values("gidNumber")
        elif self._schema.name == "ad":
            # The group's SID is the user's own with another last part.
            # https://learn.microsoft.com/en-us/windows/win32/adschema/a-primarygroupid
            sid, group = user.values("objectSid"), user.text("primaryGroupID")
            if not sid or group is None:
                raise self._hidden(user, "primaryGroupID" if sid else "objectSid")
            yield sid[0][:-4] + struct.pack("<I", self._number(user, "primaryGroupID", group) & 0xFFFFFFFF)

    def _hidden(self, user: Entry, name: str) -> Forbidden:
        return Forbidden(
            f"{self._place}: {user.dn}: the server shows no {name}, which every account has",
            permission=f"read {name}",
            remedy=f"let bind_dn read {name} of all users",
        )

    def active(self, user: Entry) -> bool:
        """Whether the account is enabled, and not locked for good."""
        if self._schema.name == "ad":
            # ADS_UF_ACCOUNTDISABLE
            # https://learn.microsoft.com/en-us/windows/win32/adschema/a-useraccountcontrol
            flags = user.text("userAccountControl")
            if flags is None:
                raise self._hidden(user, "userAccountControl")
            return not self._number(user, "userAccountControl", flags) & 2
        # "000001010000Z" is locked for good, any other time by too many wrong passwords: man slapo-ppolicy
        locked = any(x.startswith("000001010000") for x in user.texts("pwdAccountLockedTime"))
        return not locked and (user.text("nsAccountLock") or "").lower() != "true"

    def _number(self, entry: Entry, name: str, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise BadData(f"{self._place}: {entry.dn}: {name} is no number") from None

    def group(self, entry: Entry, known: Known) -> Iterator[Record]:
        """The group, and its members."""
        group = ref_of(Kind.GROUP, self.id(entry))
        email, aliases = _addresses(entry)
        yield Principal(
            Kind.GROUP,
            group.id,
            entry.text("cn") or "",
            email,
            aliases=aliases,
            attributes=_matchable(entry, ()),
        )
        for texts in self.members(entry):
            if self._schema.name == "rfc2307":
                found = [ref_of(Kind.USER, known.logins[x]) for x in texts if x in known.logins]
            else:
                found = [ref for x in texts if (ref := self._by_dn(known, x, entry))]
            if found:
                yield Members(group, tuple(dict.fromkeys(found)))

    def members(self, group: Entry) -> Iterator[list[str]]:
        """The values that name members, in parts where the server gives them in ranges."""
        for name in self._schema.members:
            for values in self._ranges(group, name):
                try:
                    yield [value.decode() for value in values]
                except UnicodeDecodeError:
                    raise BadData(f"{self._place}: {group.dn}: {name} is not UTF-8") from None

    def whole(self, entry: Entry, *, members: bool = False) -> Entry:
        """The entry with every attribute complete; what names members only if asked for, since it may be large."""
        found = {name: spelling.partition(";")[0] for name, (spelling, _) in entry.raw.items() if ";range=" in name}
        ranged = {x for x in found.values() if members or x.lower() not in {m.lower() for m in self._schema.members}}
        if not ranged:
            return entry
        raw = {k: v for k, v in entry.raw.items() if found.get(k, v[0]) not in ranged}
        for name in ranged:
            raw[name.lower()] = (name, [value for values in self._ranges(entry, name) for value in values])
        return Entry(entry.dn, raw)

    def _ranges(self, entry: Entry, name: str) -> Iterator[list[bytes]]:
        """All values of an attribute. Active Directory gives some 1500 at a time: `member;range=0-1499`.

        https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-adts/e27b48db-6f82-44cd-9038-2e54f790cc1f
        """
        yield entry.values(name)
        part, start, prefix = entry, 0, f"{name.lower()};range="
        while ranged := [key for key in part.raw if key.startswith(prefix)]:
            low, _, high = ranged[0].removeprefix(prefix).partition("-")
            values = part.values(ranged[0])
            ends = start + len(values) - 1
            if len(ranged) > 1 or low != str(start) or not values or high not in {"*", str(ends)}:
                raise Incomplete(f"{self._place}: {entry.dn}: {name} from {start} on: {len(values)} as {ranged[0]}")
            yield values
            if high == "*":
                return
            start = ends + 1
            part = self._range(entry.dn, name, start)
            if not any(key.startswith(prefix) for key in part.raw):
                raise Incomplete(
                    f"{self._place}: {entry.dn}: the server ended {name} after {start} values",
                    remedy="they changed while they were read: the next run is right",
                )

    def _range(self, dn: str, name: str, start: int) -> Entry:
        result, entry = self._wire().one(dn, [f"{name};range={start}-*"])
        if result["result"] == 32 or (result["result"] == 0 and entry is None):
            raise Incomplete(f"{self._place}: {dn} went while its {name} was read", remedy="the next run is right")
        judge(self._place, result, dn)
        assert entry is not None
        return entry

    def _by_dn(self, known: Known, dn: str, entry: Entry) -> Ref | None:
        try:
            return known.by_dn(self.name(dn))
        except ValueError:
            raise BadData(f"{self._place}: {entry.dn}: names {one_line(dn)!r}, which is no DN") from None

    def name(self, value: str) -> str:
        """The DN in a value that names a member: uniqueMember's may have a bit string behind it."""
        return re.sub(r"#'[01]*'B\Z", "", value)

    def id(self, entry: Entry) -> bytes:
        """The 16 bytes of its id. BadData if it has none."""
        name = self._schema.id
        values = entry.values(name)
        try:
            (value,) = values
            return uuid.UUID(bytes_le=value).bytes if name == "objectGUID" else uuid.UUID(value.decode()).bytes
        except ValueError:
            raise BadData(
                f"{self._place}: {entry.dn}: {f'{name} cannot be understood' if values else f'no {name}'}",
                remedy=f"let bind_dn read {name} of every entry; a server that has none cannot tell a rename",
            ) from None

    def key(self, entry: Entry) -> bytes:
        """What stands for its DN."""
        try:
            return dn_key(entry.dn)
        except ValueError as error:
            raise BadData(f"{self._place}: {one_line(entry.dn)!r}: {error}") from None

    def _twice(self, name: str, value: str, option: str) -> BadData:
        return BadData(
            f"{self._place}: two entries have the {name} {one_line(value)}",
            remedy=f"make it unique, or leave one out by `{option}`",
        )

    def _alone(self, others: dict[bytes, bytes], key: bytes, id_: bytes, entry: Entry) -> None:
        """A user and a group may be one entry; two entries of one name would be taken for each other."""
        if others.get(key, id_) != id_:
            raise BadData(
                f"{self._place}: {one_line(entry.dn)!r}: a user and a group have this name",
                remedy="the next run is right if one took the other's place; else leave one out by a filter",
            )


def ref_of(kind: Kind, id_: bytes) -> Ref:
    """A principal by the 16 bytes of its id."""
    return Ref(kind, str(uuid.UUID(bytes=id_)))


@cache
def _never(name: str) -> bool:
    return NEVER.search(name) is not None


def _addresses(entry: Entry) -> tuple[str | None, tuple[str, ...]]:
    """The address, and further ones.

    https://learn.microsoft.com/en-us/windows/win32/adschema/a-proxyaddresses
    """
    mails = entry.texts("mail")
    more = [*mails[1:], *(x[5:] for x in entry.texts("proxyAddresses") if x[:5].lower() == "smtp:")]
    return (mails[0] if mails else None), tuple(dict.fromkeys(x for x in more if x and x not in mails[:1]))


def _matchable(entry: Entry, but: tuple[str, ...]) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for key, (name, _) in entry.raw.items():
        if _never(name.partition(";")[0]) or name in but or name == "entryUUID" or ";binary" in key:
            continue
        if texts := entry.texts(key):
            found[name] = texts[0] if len(texts) == 1 else texts
    return found
