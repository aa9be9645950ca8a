"""Users, groups and memberships of an LDAP server: OpenLDAP, 389 Directory Server and their kin, Active Directory.

ldap3 carries the messages (ldap_wire). Paging, member ranges and the judging of result codes are ours: in ldap3 a
reached size limit is no exception, and a failed range or a missing paging control ends the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from urllib.parse import unquote, urlsplit

from connectors.answers import one_line
from connectors.contract import Check, Connector
from connectors.dn import dn_key
from connectors.errors import ConnectorError, Forbidden, Incomplete, Misconfigured, StaleBookmark
from connectors.ldap_changes import Follower
from connectors.ldap_feed import Feed, feed_of
from connectors.ldap_options import SCHEMAS, LdapOptions
from connectors.ldap_rows import Known, Rows
from connectors.ldap_wire import PAGED, Entry, Wire
from connectors.retry import retrying
from connectors.values import Bookmark, Change, Kind, Record

ELSEWHERE = re.compile(
    r"\b(?:is)?memberOf\b|\btokenGroups\w*|\bmsDS-\w+|\bnsRole\w*|\blastLogon\b|\bbadP\w+|\blogonCount\b|\bpwd\w+"
    r"|:1\.2\.840\.113556\.1\.4\.1941:",
    re.IGNORECASE,
)
"""What, in a filter, changes with a group, a policy or a log-on, and with no change of the entry that it is of."""
NO_FEED = "to read changes only: docs/connectors/ldap.md, Changes"


class Ldap(Connector):
    """Reads one subtree. Its only scope is named after `base`."""

    Options = LdapOptions
    page_size = 500
    incremental = True

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

    # Whole

    def read(self, scope: str) -> Iterator[Record]:  # noqa: ARG002  # there is one
        """Yield users, then groups with their members.

        Each list is read three times: the ids, since any entry may name a later one; the names of the attributes in
        use, since asking for all (`*`) would fetch passwords and pictures; then the entries.
        """
        feed = self._feed()
        known = Known()
        for kind in self._wanted:
            self._learn(kind, known)
        if not known.users:
            raise self._sees_none()
        for kind in self._wanted:
            count = 0
            for count, (key, entry) in enumerate(self._entries(kind, self._attributes(kind)), 1):  # noqa: B007
                whole = self._rows.whole(entry)
                yield from self._rows.user(key, whole, known) if kind is Kind.USER else self._rows.group(whole, known)
            if kind is Kind.USER and not count:  # there were some, a moment ago
                raise self._sees_none()
        if not isinstance(feed, str):
            yield Bookmark(feed.position)

    @property
    def _wanted(self) -> list[Kind]:
        return [Kind.USER, Kind.GROUP] if Kind.GROUP in self.kinds else [Kind.USER]

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self._place, self._schema, lambda: self._wire, groups=Kind.GROUP in self.kinds)

    def _sees_none(self) -> Forbidden:
        return Forbidden(
            f"{self._place}: the server shows no users",
            permission="read",
            remedy="let bind_dn read them (it hides what that may not see, with no error); check base and user_filter",
        )

    def _learn(self, kind: Kind, known: Known) -> None:
        for key, entry in self._entries(kind, self._rows.naming(kind)):
            self._rows.learn(kind, key, entry, known)

    def _attributes(self, kind: Kind) -> list[str]:
        return self._rows.attributes(kind, (entry for _, entry in self._entries(kind, ["*"], types_only=True)))

    # What has changed

    def _feed(self) -> Feed | str:
        for query in self._filters.values():
            if found := ELSEWHERE.search(query):
                return f"a filter asks for {found[0]}, which changes without a change of the entry"
        return feed_of(self._wire, self._place, self.options.base, ad=self._schema.name == "ad")

    def changes(self, scope: str, since: str) -> Iterator[Change]:  # noqa: ARG002  # there is one
        """Yield what the server says has changed after `since`, and what follows from it."""
        feed = self._feed()
        if isinstance(feed, str):
            raise StaleBookmark(f"{self._place}: the server tells no changes: {feed}")
        delta = feed.since(since)
        if not next(self._pages(Kind.USER, [self._schema.id], 1)):
            raise self._sees_none()
        yield from Follower(self._place, self._schema, self._wanted, self._rows, self).follow(feed, delta)
        yield Bookmark(delta.position)

    def find(self, kind: Kind, where: str, attributes: list[str], *, types_only: bool = False) -> Iterator[Entry]:
        """The entries that match the filter of `kind`, and `where` unless that is empty."""
        for _, entry in self._entries(kind, attributes, types_only=types_only, where=where):
            yield entry

    def holds_below(self, dn: str) -> bool:
        """Whether there is a user or group below that DN, be it outside of the base."""
        query = f"(|{''.join(self._filters[kind] for kind in self._wanted)})"
        pages = self._wire.pages(dn, query, [self._schema.id], size=2, what=dn, refer=lambda _: None)
        try:
            return any(self._rows.key(entry) != dn_key(dn) for entry in next(pages))
        except Misconfigured:  # no longer there: it is being moved
            return True

    # Searches

    def _entries(
        self, kind: Kind, attributes: list[str], *, types_only: bool = False, where: str = ""
    ) -> Iterator[tuple[bytes, Entry]]:
        """Every entry that the filter matches, and its DN's key.

        Incomplete if one comes twice: the list repeats itself, or something was moved meanwhile.
        """
        seen: set[bytes] = set()
        for page in self._pages(kind, attributes, self.page_size, types_only=types_only, where=where):
            for entry in page:
                if (key := self._rows.key(entry)) in seen:
                    raise Incomplete(f"{self._place}: the server gave {entry.dn} twice in one list of {kind}s")
                seen.add(key)
                yield key, entry

    def _pages(
        self, kind: Kind, attributes: list[str], size: int, *, types_only: bool = False, where: str = ""
    ) -> Iterator[list[Entry]]:
        return self._wire.pages(
            self.options.base,
            f"(&{self._filters[kind]}{where})" if where else self._filters[kind],
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

    # Whether it may

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
        for kind in self._wanted:
            try:
                page = next(self._pages(kind, [self._schema.id, *self._schema.state], 1))
                if not page and kind is Kind.USER:
                    raise self._sees_none()
                for entry in page:
                    self._rows.id(entry)
                    if kind is Kind.USER:
                        self._rows.active(entry)
            except ConnectorError as error:
                yield Check(f"read {kind}s", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {kind}s", ok=True, detail="" if page else "readable, and empty")
        feed = self._feed()
        if isinstance(feed, str):
            yield Check("read changes", ok=True, detail=f"none told ({feed}): each run reads all", remedy=NO_FEED)
        else:
            yield Check("read changes", ok=True)

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
