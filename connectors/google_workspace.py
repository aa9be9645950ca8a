"""Users, groups, memberships and administrator roles of a Google Workspace or Cloud Identity account.

Through the Directory API of the Admin SDK: https://developers.google.com/workspace/admin/directory/reference/rest/v1

That API has no list of changes, and nothing says that a group's etag moves with its members: each read is a whole one.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Annotated, Any, NamedTuple

from pydantic import Field, StringConstraints

from connectors import google_api
from connectors.answers import attributes_of
from connectors.contract import Check, Connector
from connectors.errors import Denied, Forbidden, Incomplete, Misconfigured, ServerFault, Unauthenticated
from connectors.google_api import GoogleOptions
from connectors.google_workspace_rows import group_of, id_of, member_of, needed, part, user_of
from connectors.http import Answer
from connectors.managers import Managers
from connectors.pace import Pace
from connectors.paging import Pages
from connectors.values import Kind, Members, Principal, Record, Ref

DIRECTORY, ROLES = "directory", "roles"

AT_ONCE = 8
"""Groups whose members are read at the same time."""
A_MINUTE = 2400
"""Requests that Google allows by default (workspace/admin/directory/v1/limits); `Pace` makes half of them."""

_AUTH = "https://www.googleapis.com/auth/admin.directory."
_DELEGATION = "Security > Access and data control > API controls > Manage Domain Wide Delegation"

Customer = Annotated[str, StringConstraints(pattern=r"^(my_customer|C[0-9A-Za-z]{1,40})$")]
Address = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$")]


class GoogleWorkspaceOptions(GoogleOptions):
    """Options of the `google_workspace` connector."""

    customer: Customer = Field("my_customer", description="Id of the account, C…; default: that of the login.")
    subject: Address | None = Field(
        None,
        description="E-mail of the administrator as whom the service account asks, by domain-wide delegation. Default: "
        "the service account has an administrator role, and asks as itself.",
    )


@dataclass(frozen=True)
class Listing:
    """One of the API's lists, and what a login needs for it."""

    what: str
    resource: str
    rows: str
    """The key that they stand under."""
    fields: str
    """Of a row. What is not needed, such as telephone numbers, is not asked for."""
    most: int
    """Rows of a page."""
    scope: str
    """The last words of the OAuth scope."""
    privilege: str
    query: Mapping[str, Any] = field(default_factory=dict)
    whose: str = "customer"
    """The parameter that says whose list."""

    @property
    def permission(self) -> str:
        """What is missing where it may not be read."""
        return f"the administrator privilege {self.privilege} and the OAuth scope {_AUTH}{self.scope}"


_USERS = "user.readonly", "Admin API privileges > Users > Read"
_GROUPS = "group.readonly", "Admin API privileges > Groups > Read"
_MANAGEMENT = "rolemanagement.readonly", "of a super administrator"
USERS = Listing(
    "users",
    "users",
    "users",
    "id,customerId,primaryEmail,name,suspended,archived,aliases,nonEditableAliases,emails,orgUnitPath,organizations,"
    "relations,externalIds,locations,keywords,isAdmin,isDelegatedAdmin,isGuestUser,customSchemas",
    500,
    *_USERS,
    {"projection": "full", "orderBy": "email"},
)
GROUPS = Listing(
    "groups", "groups", "groups", "id,email,name,description,adminCreated,aliases,nonEditableAliases", 200, *_GROUPS
)
MEMBERS = Listing("members", "members", "members", "id,type", 200, *_GROUPS, whose="groupKey")
ROLE_LIST = Listing("roles", "roles", "items", "roleId,roleName,roleDescription,isSystemRole", 100, *_MANAGEMENT)
ASSIGNMENTS = Listing(
    "role assignments",
    "roleAssignments",
    "items",
    "roleId,assignedTo,assigneeType,scopeType,condition",
    200,
    *_MANAGEMENT,
)


_Asking = Callable[..., Answer | None]


class Page(NamedTuple):
    """Rows, and the token of the next page, if there is one."""

    rows: list[Any]
    token: str | None


@dataclass
class _Reading:
    """A group whose members are being read."""

    group: Principal
    guard: Pages
    begun: bool = False


class GoogleWorkspace(Connector):
    """Reads one account. Users, groups and members are one scope, since they belong together; roles are another."""

    Options = GoogleWorkspaceOptions

    def __init__(self, options: GoogleWorkspaceOptions) -> None:
        self.options = options
        self._logins: dict[str, _Login] = {}
        self._built: Any = None
        self._pace = Pace()

    def scopes(self) -> Iterable[str]:
        """The directory; and the roles, if any own: few logins may read them."""
        return [DIRECTORY, ROLES] if Kind.ROLE in self.kinds else [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """Users and groups, or roles."""
        return {Kind.ROLE} if scope == ROLES else {Kind.USER, Kind.GROUP}

    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds."""
        return self._roles() if scope == ROLES else self._directory()

    def close(self) -> None:
        """Let go of connections."""
        for login in self._logins.values():
            login.close()

    # --- users, groups and members ------------------------------------------------------------------------------------

    def _directory(self) -> Iterator[Record]:
        with tempfile.TemporaryFile("w+") as ids:
            account = yield from self._users(ids)
            if not self.kinds & {Kind.GROUP, Kind.ROLE}:
                return
            everyone, wanted = Ref(Kind.GROUP, account), False
            for record in self._with_members(map(group_of, self._rows(GROUPS, self.options.customer))):
                wanted = wanted or (isinstance(record, Members) and everyone in record.members)
                yield record
            if wanted:  # "all users" is a member of some group: told as one that goes by nothing but its id
                yield Principal(Kind.GROUP, account, account)
                ids.seek(0)
                while some := tuple(Ref(Kind.USER, line.rstrip("\n")) for line in islice(ids, 1000)):
                    yield Members(everyone, some)

    def _users(self, ids: IO[str]) -> Generator[Principal, None, str]:
        """All users, and a line for each in `ids`; returns the account's id.

        Those who have managers come last, when all names are known.
        """
        account = ""
        with closing(Managers()) as managers:
            for row in self._rows(USERS, self.options.customer):
                user, manager = user_of(row)
                account = account or needed(row, "customerId", f"user {user.id}")
                ids.write(f"{user.id}\n")
                managers.know(user.id, {name.casefold() for name in (user.email or "", *user.aliases)})
                if manager:
                    managers.wait(user, manager)
                else:
                    yield user
            yield from managers.settle()
        if not account:
            raise self._sees_nobody()
        return account

    def _with_members(self, groups: Iterator[Principal]) -> Iterator[Principal | Members]:
        """Each group once its members begin to come, and these. No more than AT_ONCE pages are held at a time.

        Each group is asked: its `directMembersCount` counts no groups, and comes without a promise.
        """
        reading: dict[Future[Page | None], _Reading] = {}
        there = gone = False
        with ThreadPoolExecutor(AT_ONCE) as pool:

            def ask(one: _Reading, token: str | None = None) -> None:
                request = self._request(MEMBERS, one.group.id, token)
                reading[pool.submit(self._send, MEMBERS, one.group.id, request, ask=google_api.find)] = one

            while True:
                for group in islice(groups, AT_ONCE - len(reading)):
                    ask(_Reading(group, Pages(f"members of {group.id}")))
                if not reading:
                    break
                for future in wait(reading, return_when=FIRST_COMPLETED).done:
                    one = reading.pop(future)
                    page = future.result()
                    if page is None:
                        self._confirm_gone(one)
                        gone = True
                        continue
                    if not one.begun:
                        yield one.group
                        one.begun = there = True
                    yield Members(one.group.ref, tuple(map(member_of, page.rows)))
                    if page.token:
                        ask(one, one.guard.turn(page.token))
        if gone and not there:
            raise Incomplete(f"{self.options.customer}: Google lists groups, and then knows none of them")

    def _confirm_gone(self, one: _Reading) -> None:
        """Return if the group was deleted since it was listed, and nothing was told of it; else its absence is none."""
        place = f"group {one.group.id}"
        request = self._service().groups().get(groupKey=one.group.id, fields="id")
        if one.begun or self._execute(GROUPS, place, request, ask=google_api.find) is not None:
            raise Incomplete(
                f"{place}: its list of members went away", remedy="it was just made or deleted: the next run is right"
            )

    def _sees_nobody(self) -> Incomplete:
        return Incomplete(
            f"{self.options.customer}: Google shows no users, and every account has an administrator",
            remedy="see whether `customer` is the right account, and whether the login may see all its users",
        )

    # --- roles --------------------------------------------------------------------------------------------------------

    def _roles(self) -> Iterator[Record]:
        for row in self._rows(ROLE_LIST, self.options.customer):
            id_ = id_of(row, "roleId", "a role")
            told = {key: row[key] for key in ("roleDescription", "isSystemRole") if key in row}
            yield Principal(Kind.ROLE, id_, part(row, "roleName", str, "a role") or id_, attributes=attributes_of(told))
        for row in self._rows(ASSIGNMENTS, self.options.customer):
            place = "a role assignment"
            role = Ref(Kind.ROLE, id_of(row, "roleId", place))
            kind = Kind.GROUP if needed(row, "assigneeType", place).upper() == "GROUP" else Kind.USER
            member = Ref(kind, needed(row, "assignedTo", place))
            # Who has a role for one organizational unit only, or on a condition, cannot do what the role's name says.
            if needed(row, "scopeType", place) == "CUSTOMER" and not part(row, "condition", str, place):
                yield Members(role, (member,))

    # --- whether it may -----------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Check]:
        """Ask each list for one entry, and tell every permission that is missing."""
        group = ""
        for listing in (USERS, GROUPS, MEMBERS, *((ROLE_LIST, ASSIGNMENTS) if Kind.ROLE in self.kinds else ())):
            if listing is MEMBERS and not group:
                continue  # there is none to ask about, or the groups may not be read, which is the same permission
            whose = group if listing is MEMBERS else self.options.customer
            try:
                page = self._page(listing, whose, most=1)
                if listing is USERS and not page.rows:
                    raise self._sees_nobody()
            except (Denied, Misconfigured, Incomplete) as error:
                yield Check(f"read {listing.what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {listing.what}", ok=True)
                if listing is GROUPS and page.rows:
                    group = group_of(page.rows[0]).id

    # --- asking -------------------------------------------------------------------------------------------------------

    def _rows(self, listing: Listing, whose: str) -> Iterator[Any]:
        guard = Pages(f"{listing.what} of {whose}")
        token: str | None = None
        while True:
            page = self._page(listing, whose, token)
            yield from page.rows
            if not page.token:
                return
            token = guard.turn(page.token)

    def _page(self, listing: Listing, whose: str, token: str | None = None, most: int | None = None) -> Page:
        page = self._send(listing, whose, self._request(listing, whose, token, most))
        assert page is not None
        return page

    def _request(self, listing: Listing, whose: str, token: str | None = None, most: int | None = None) -> Any:
        """The request for a page, once it may be made. In the reader's own thread: neither API nor pace is for more."""
        self._pace.keep("")
        now = time.monotonic()
        ends = (now // 60 + 1) * 60
        self._pace.count("", limit=A_MINUTE, remaining=A_MINUTE, ends=ends, wait=ends - now)
        self._login(listing)
        return getattr(self._service(), listing.resource)().list(
            **{listing.whose: whose},
            **listing.query,
            fields=f"kind,nextPageToken,{listing.rows}({listing.fields})",
            maxResults=most or listing.most,
            pageToken=token,
        )

    def _send(self, listing: Listing, whose: str, request: Any, *, ask: _Asking = google_api.execute) -> Page | None:
        """The page that is asked for; None where `ask` finds that there is no such list. In any thread."""
        place = f"{listing.what} of {whose}"
        answer = self._execute(listing, place, request, ask=ask)
        if answer is None:
            return None
        body = answer.body
        if not isinstance(body, dict) or body.get("kind") != f"admin#directory#{listing.resource}":
            raise ServerFault(f"{place}: the answer is no list of {listing.what}")  # an empty one says so, too
        return Page(part(body, listing.rows, list, place) or [], part(body, "nextPageToken", str, place))

    def _execute(self, listing: Listing, place: str, request: Any, *, ask: _Asking) -> Answer | None:
        login = self._login(listing)
        request.http = login.take()
        try:
            return ask(request, place, listing.permission, remedy=self._how_to_grant(listing))
        except Forbidden as error:
            if error.permission != "domain-wide delegation":
                raise
            raise Unauthenticated(
                error.message,
                remedy=f"in the Admin console, {_DELEGATION}, let the service account (`client_id` in its file) "
                f"have the OAuth scope {_AUTH}{listing.scope}",
            ) from None
        except Unauthenticated as error:
            if "Invalid email or User ID" not in error.message:
                raise
            raise Unauthenticated(
                error.message, remedy="`subject` must be the e-mail of an active user of the account"
            ) from None
        finally:
            login.give_back(request.http)

    def _how_to_grant(self, listing: Listing) -> str:
        role = f"an administrator role with the privilege {listing.privilege}"
        if self.options.subject:
            return f"in the Admin console, give {self.options.subject} {role}"
        return f"set `subject` to an administrator; or, in the Admin console, give the login itself {role}"

    def _login(self, listing: Listing) -> _Login:
        """One for each OAuth scope: what was not delegated is then told by its name, and what was can be read."""
        if listing.scope not in self._logins:
            scopes = [f"{_AUTH}{listing.scope}"]
            found = google_api.credentials(self.options, scopes, subject=self.options.subject)
            self._logins[listing.scope] = _Login(self.options, found)
        return self._logins[listing.scope]

    def _service(self) -> Any:
        if self._built is None:
            login = self._login(USERS)
            http = login.take()  # only to be built with: each request brings its own
            self._built = google_api.service(self.options, "admin", "directory_v1", http)
            login.give_back(http)
        return self._built


class _Login:
    """Credentials, and transports that use them, each by one thread at a time."""

    def __init__(self, options: GoogleOptions, credentials: Any) -> None:
        self._options = options
        self._credentials = credentials
        self._idle: deque[google_api.Http] = deque()
        self._all: list[google_api.Http] = []

    def take(self) -> google_api.Http:
        try:
            return self._idle.pop()
        except IndexError:
            made = google_api.http(self._options, self._credentials)
            self._all.append(made)
            return made

    def give_back(self, transport: google_api.Http) -> None:
        self._idle.append(transport)

    def close(self) -> None:
        for transport in self._all:
            transport.close()
