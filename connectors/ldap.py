"""Users, groups and memberships of an LDAP server: OpenLDAP, 389 Directory Server and their kin, Active Directory.

ldap3 carries the messages (ldap_wire). Paging, member ranges and the judging of result codes are ours: in ldap3 a
reached size limit is no exception, and a failed range or a missing paging control ends the list.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from urllib.parse import unquote, urlsplit

from connectors.answers import one_line
from connectors.contract import Check, Connector
from connectors.dn import dn_key
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, Misconfigured
from connectors.ldap_errors import judge
from connectors.ldap_options import SCHEMAS, LdapOptions
from connectors.ldap_wire import PAGED, Entry, Wire
from connectors.retry import retrying
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
class _Known:
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
                return _ref(kind, ids[key])
        return None


class Ldap(Connector):
    """Reads one subtree. Its only scope is named after `base`."""

    Options = LdapOptions
    page_size = 500

    def __init__(self, options: LdapOptions) -> None:
        self.options = options
        parts = urlsplit(options.url)
        self._host, self._ldaps = parts.hostname or "", parts.scheme == "ldaps"
        self._port = parts.port or (636 if self._ldaps else 389)
        self._place = f"{options.url.rstrip('/')}: {options.base}"
        self._schema = SCHEMAS[str(options.schema)]
        self._filters = {
            Kind.USER: options.user_filter or self._schema.users,
            Kind.GROUP: options.group_filter or self._schema.groups,
        }

    def scopes(self) -> Iterable[str]:
        """The subtree."""
        return [self.options.base]

    def read(self, scope: str) -> Iterator[Record]:  # noqa: ARG002  # there is one
        """Yield users, then groups with their members.

        Each list is read three times: the ids, since any entry may name a later one; the names of the attributes in
        use, since asking for all (`*`) would fetch passwords and pictures; then the entries.
        """
        wanted = [Kind.USER, Kind.GROUP] if Kind.GROUP in self.kinds else [Kind.USER]
        known = _Known()
        for kind in wanted:
            self._learn(kind, known)
        if not known.users:
            raise self._sees_none()
        for kind in wanted:
            count = 0
            for count, (key, entry) in enumerate(self._entries(kind, self._attributes(kind)), 1):  # noqa: B007
                whole = self._whole(entry)
                yield from self._user(key, whole, known) if kind is Kind.USER else self._group(whole, known)
            if kind is Kind.USER and not count:  # there were some, a moment ago
                raise self._sees_none()

    def _sees_none(self) -> Forbidden:
        return Forbidden(
            f"{self._place}: the server shows no users",
            permission="read",
            remedy="let bind_dn read them (it hides what that may not see, with no error); check base and user_filter",
        )

    # Three readings

    def _learn(self, kind: Kind, known: _Known) -> None:
        ids = known.users if kind is Kind.USER else known.groups
        extra = "uid" if self.options.schema == "rfc2307" and kind is Kind.USER else ""
        by = self._schema.primary[:1] if kind is Kind.GROUP else ()
        for key, entry in self._entries(kind, [self._schema.id, *filter(None, [extra]), *by]):
            id_ = self._id(entry)
            self._alone(known.users if kind is Kind.GROUP else known.groups, key, id_, entry)
            ids[key] = id_
            for login in entry.texts("uid") if extra else ():
                if known.logins.setdefault(login, id_) != id_:
                    raise self._twice("uid", login, "user_filter")
            for value in (v for name in by for v in entry.values(name)):
                if known.primary.setdefault(value, id_) != id_:
                    raise self._twice(by[0], value.hex() if by[0] == "objectSid" else value.decode(), "group_filter")

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

    def _attributes(self, kind: Kind) -> list[str]:
        names: dict[str, str] = {}
        for _, entry in self._entries(kind, ["*"], types_only=True):
            for spelling, _ in entry.raw.values():
                name = spelling.partition(";")[0]
                if not _never(name):
                    names[name.lower()] = name
        schema = self._schema
        more = (*schema.state, *schema.primary) if kind is Kind.USER else schema.members
        return [*names.values(), *(x for x in (schema.id, *more) if x.lower() not in names)]

    def _user(self, key: bytes, entry: Entry, known: _Known) -> Iterator[Record]:
        id_ = self._id(entry)
        self._alone(known.groups, key, id_, entry)
        known.users[key] = id_
        email, aliases = _addresses(entry)
        managers = [ref for dn in entry.texts("manager") if (ref := self._by_dn(known, dn, entry))]
        user = Principal(
            Kind.USER,
            _ref(Kind.USER, id_).id,
            entry.text("displayName") or entry.text("cn") or "",
            email,
            self._active(entry),
            next((ref.id for ref in managers if ref.kind is Kind.USER), None),
            aliases,
            _matchable(entry, self._schema.state),
        )
        yield user
        for value in self._primary(entry) if Kind.GROUP in self.kinds else ():
            if value in known.primary:
                yield Members(_ref(Kind.GROUP, known.primary[value]), (user.ref,))

    def _primary(self, user: Entry) -> Iterator[bytes]:
        if self.options.schema == "rfc2307":
            yield from user.values("gidNumber")
        elif self.options.schema == "ad":
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

    def _active(self, user: Entry) -> bool:
        if self.options.schema == "ad":
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

    def _group(self, entry: Entry, known: _Known) -> Iterator[Record]:
        group = _ref(Kind.GROUP, self._id(entry))
        email, aliases = _addresses(entry)
        yield Principal(
            Kind.GROUP,
            group.id,
            entry.text("cn") or "",
            email,
            aliases=aliases,
            attributes=_matchable(entry, ()),
        )
        for texts in self._members(entry):
            if self.options.schema == "rfc2307":
                found = [_ref(Kind.USER, known.logins[x]) for x in texts if x in known.logins]
            else:
                found = [ref for x in texts if (ref := self._by_dn(known, x, entry))]
            if found:
                yield Members(group, tuple(dict.fromkeys(found)))

    def _members(self, group: Entry) -> Iterator[list[str]]:
        """The values that name members, in parts where the server gives them in ranges."""
        for name in self._schema.members:
            for values in self._ranges(group, name):
                try:
                    yield [value.decode() for value in values]
                except UnicodeDecodeError:
                    raise BadData(f"{self._place}: {group.dn}: {name} is not UTF-8") from None

    def _whole(self, entry: Entry) -> Entry:
        """The entry with every attribute but members complete."""
        found = {name: spelling.partition(";")[0] for name, (spelling, _) in entry.raw.items() if ";range=" in name}
        ranged = {x for x in found.values() if x not in self._schema.members}
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
        result, entry = self._wire.one(dn, [f"{name};range={start}-*"])
        if result["result"] == 32 or (result["result"] == 0 and entry is None):
            raise Incomplete(f"{self._place}: {dn} went while its {name} was read", remedy="the next run is right")
        judge(self._place, result, dn)
        assert entry is not None
        return entry

    def _by_dn(self, known: _Known, dn: str, entry: Entry) -> Ref | None:
        try:
            return known.by_dn(re.sub(r"#'[01]*'B\Z", "", dn))  # uniqueMember's optional bit string
        except ValueError:
            raise BadData(f"{self._place}: {entry.dn}: names {one_line(dn)!r}, which is no DN") from None

    def _id(self, entry: Entry) -> bytes:
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

    def _key(self, entry: Entry) -> bytes:
        try:
            return dn_key(entry.dn)
        except ValueError as error:
            raise BadData(f"{self._place}: {one_line(entry.dn)!r}: {error}") from None

    # Searches

    def _entries(self, kind: Kind, attributes: list[str], *, types_only: bool = False) -> Iterator[tuple[bytes, Entry]]:
        """Every entry that the filter matches, and its DN's key.

        Incomplete if one comes twice: the list repeats itself, or something was moved meanwhile.
        """
        seen: set[bytes] = set()
        for page in self._pages(kind, attributes, self.page_size, types_only=types_only):
            for entry in page:
                if (key := self._key(entry)) in seen:
                    raise Incomplete(f"{self._place}: the server gave {entry.dn} twice in one list of {kind}s")
                seen.add(key)
                yield key, entry

    def _pages(
        self, kind: Kind, attributes: list[str], size: int, *, types_only: bool = False
    ) -> Iterator[list[Entry]]:
        return self._wire.pages(
            self.options.base,
            self._filters[kind],
            attributes,
            size=size,
            what=f"{kind}s",
            types_only=types_only,
            refer=self._refer,
        )

    def _refer(self, url: str) -> None:
        """What another server holds is missing here. Active Directory's own partitions hold no users or groups."""
        dn = unquote(urlsplit(url).path.lstrip("/"))
        first = dn.partition(",")[0].strip().lower()
        if self.options.schema == "ad" and first in {"dc=domaindnszones", "dc=forestdnszones", "cn=configuration"}:
            return
        raise Incomplete(
            f"{self._place}: {one_line(dn or url)} is on another server, and is not read",
            remedy="read it as a directory of its own, and give each a `base` that holds no such part",
        )

    def check(self) -> Iterator[Check]:
        """Bind, ask what the server can do, and read one entry of each kind."""
        who = self.options.bind_dn or "anonymously"
        wire = self._wire
        yield Check(f"bind {who}", ok=True)
        _, root = wire.one("", ["supportedControl"])
        controls = root.texts("supportedControl") if root else []
        if not controls:
            yield Check("root DSE", ok=True, detail="not readable: cannot tell which controls the server supports")
        else:
            fine = PAGED in controls
            remedy = "" if fine else "the server must support simple paged results (RFC 2696)"
            yield Check("root DSE", ok=fine, detail="" if fine else f"no control {PAGED}", remedy=remedy)
        for kind in (Kind.USER, Kind.GROUP) if Kind.GROUP in self.kinds else (Kind.USER,):
            try:
                page = next(self._pages(kind, [self._schema.id, *self._schema.state], 1))
                if not page and kind is Kind.USER:
                    raise self._sees_none()
                for entry in page:
                    self._id(entry)
                    if kind is Kind.USER:
                        self._active(entry)
            except ConnectorError as error:
                yield Check(f"read {kind}s", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {kind}s", ok=True, detail="" if page else "readable, and empty")

    # The connection

    @cached_property
    def _wire(self) -> Wire:
        """Bound at first use. Only this is tried again: a paged search cannot go on over another connection."""
        options = self.options
        password = options.password.value if options.password else None
        if options.password and not password:
            raise Misconfigured(f"password: {options.password.place} is empty", remedy="an empty one binds as nobody")
        return retrying(
            lambda: Wire(
                options.url,
                self._place,
                user=options.bind_dn,
                password=password,
                start_tls=options.start_tls,
                ca_file=options.ca_file,
                timeout=options.timeout,
            )
        )

    def close(self) -> None:
        """Unbind."""
        if (wire := self.__dict__.pop("_wire", None)) is not None:
            wire.close()


def _ref(kind: Kind, id_: bytes) -> Ref:
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
