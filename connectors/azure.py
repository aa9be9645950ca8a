"""Azure through Azure Resource Graph: subscriptions, their resource groups and resources, and the management groups.

A scope is a subscription, by its GUID in lower case; one more, `hierarchy`, holds the management groups. Resource Graph
leaves out, without a word, what one may not read: a subscription counts as read only if its own row is there, before
and after. Ids and names are as Azure gives them. A resource's parent is its resource group, also where it is part of
another resource (a database of a server): that one may not be listed, and the chain must not break.

Sources: "Azure Resource Graph" (REST API 2021-03-01; Guidance for pagination; Guidance for throttled requests; Get
resource changes) and "Azure Resource Manager: Common error codes" on learn.microsoft.com.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from connectors.answers import one_line, text_of
from connectors.azure_auth import AzureCredentials
from connectors.azure_graph import PERMISSION, ResourceGraph, quoted
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Denied, Forbidden, StaleBookmark
from connectors.values import Bookmark, Change, Gap, Gone, Record, Resource

_GUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
SubscriptionId = Annotated[str, StringConstraints(pattern=rf"^{_GUID}$", to_lower=True)]
ManagementGroup = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_().-]{1,90}$")]

HIERARCHY = "hierarchy"

OVERLAP = timedelta(minutes=10)
"""How far back changes are read again: Resource Graph learns of them with a delay."""
OLDEST = timedelta(days=6)
"""Changes are kept for 14 days, and Microsoft has cut that to 7 before, with a line in the documentation."""
MOST_CHANGES = 20_000
"""With more of them, a whole read costs fewer requests."""

_AT_ONCE = 100  # ids that one query asks for
_CHECKED_AT_ONCE = 1000  # subscriptions: a row of each fits one page
_GROUPS = "/providers/Microsoft.Management/managementGroups/"
_OWN_TYPES = "type in~ ('microsoft.resources/subscriptions', 'microsoft.resources/subscriptions/resourcegroups')"
_COLUMNS = "project id, name, type, tags"
_CHAIN = "chain = properties.managementGroupAncestorsChain"
_SUBSCRIPTIONS = (
    "resourcecontainers | where type =~ 'microsoft.resources/subscriptions'"
    f" | {_COLUMNS}, subscriptionId, {_CHAIN} | order by id asc"
)
_CONTAINERS = f"resourcecontainers | where {_OWN_TYPES} | {_COLUMNS}, {_CHAIN} | order by id asc"
_FILLED = "resources | summarize number = count() by id = subscriptionId | order by id asc"
_RESOURCES = f"resources | {_COLUMNS} | order by id asc"
_MANAGEMENT_GROUPS = (
    "resourcecontainers | where type =~ 'microsoft.management/managementgroups'"
    f" | {_COLUMNS}, displayName = tostring(properties.displayName),"
    " chain = properties.details.managementGroupAncestorsChain | order by id asc"
)
_CHANGES = (
    " | where todatetime(properties.changeAttributes.timestamp) between (datetime({since}) .. datetime({until}))"
    " | project id, target = tostring(properties.targetResourceId) | order by id asc"
)


class AzureOptions(AzureCredentials):
    """Options of the `azure` connector."""

    subscriptions: list[SubscriptionId] | None = Field(
        None, min_length=1, description="Ids of the subscriptions to read; default: all that the credentials see."
    )
    management_group: ManagementGroup | None = Field(
        None, description="In their place: the name (id) of a management group; all subscriptions below it are read."
    )

    @model_validator(mode="after")
    def _one_choice(self) -> AzureOptions:
        if self.subscriptions and self.management_group:
            raise PydanticCustomError("one_choice", "give subscriptions or management_group, not both")
        if self.subscriptions and len(set(self.subscriptions)) != len(self.subscriptions):
            raise PydanticCustomError("distinct", "subscriptions must name each once")
        return self


class Azure(Connector):
    """Subscriptions with all they hold, one after the other: the quota is some three queries a second."""

    Options = AzureOptions
    incremental = True

    def __init__(self, options: AzureOptions) -> None:
        self.options = options
        self._graph = ResourceGraph(options)

    def close(self) -> None:
        """Let go of connections."""
        self._graph.close()

    def scopes(self) -> Iterable[str]:
        """The subscriptions that are configured, or else every one that can be seen; and the management groups."""
        if self.options.subscriptions:
            return [HIERARCHY, *self.options.subscriptions]
        group, found = self.options.management_group, set()
        for row in self._graph.rows("subscriptions", _SUBSCRIPTIONS, None, group):
            id_ = text_of(row, "subscriptionId", "subscriptions: a row").lower()
            if not re.fullmatch(_GUID, id_):
                raise BadData(f"subscriptions: not a subscription's id: {one_line(id_, 80)}")
            found.add(id_)
        if not found:
            raise self._hidden(f"no subscription {f'below {group} ' if group else ''}can be seen")
        return [HIERARCHY, *sorted(found)]

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, scope: str) -> Iterator[Record]:
        """Yield a subscription, its resource groups and resources; or the management groups."""
        if scope == HIERARCHY:
            yield from self._management_groups()
            return
        yield Bookmark(_stamp(self._must_see(scope) - OVERLAP))
        for row in self._graph.rows(f"{scope}: containers", _CONTAINERS, [scope]):
            yield _resource(row, scope)
        for row in self._graph.rows(f"{scope}: resources", _RESOURCES, [scope]):
            yield _resource(row, scope)
        self._must_see(scope)  # who lost the right meanwhile was shown less, or nothing

    def _must_see(self, scope: str) -> datetime:
        """Forbidden if the subscription's own row cannot be seen; else the server's time."""
        answer = self._graph.ask(f"{scope}: subscription", _SUBSCRIPTIONS, [scope], top=1)
        if not any(text_of(row, "subscriptionId", f"{scope}: a row").lower() == scope for row in answer.rows):
            raise self._invisible(scope)
        return answer.time

    def _invisible(self, scope: str) -> Forbidden:
        return self._hidden(f"{scope}: this subscription cannot be seen", scope)

    def _hidden(self, what: str, scope: str = "") -> Forbidden:
        at = f"/subscriptions/{scope}" if scope else f"{_GROUPS}{self.options.management_group or 'GROUP'}"
        return Forbidden(
            f"{what}: Resource Graph leaves out what one may not read; it takes {PERMISSION} and Reader",
            permission=PERMISSION,
            remedy=f"az role assignment create --role Reader --assignee APP_ID --scope {at}",
        )

    def _management_groups(self) -> Iterator[Record]:
        empty = True
        for row in self._graph.rows(HIERARCHY, _MANAGEMENT_GROUPS, None, self.options.management_group):
            empty = False
            what = f"{HIERARCHY}: a row"
            id_, kind = text_of(row, "id", what), text_of(row, "type", what).lower()
            if not id_.lower().startswith(_GROUPS.lower()):
                raise BadData(f"{HIERARCHY}: not a management group's id: {one_line(id_)}")
            name = row.get("displayName") or text_of(row, "name", what)
            if not isinstance(name, str):
                raise BadData(f"{HIERARCHY}: {one_line(id_)}: a name that is no text")
            yield Resource(id_, kind, name, _above(row, HIERARCHY), _tags(row, HIERARCHY))
        if empty:
            yield _NO_GROUPS

    # --- changes ----------------------------------------------------------------------------------------------------

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what resources and resource groups changed since the bookmark are now; who is not there is gone."""
        begin = _time_of(since)
        now = self._must_see(scope)
        if not now - OLDEST <= begin <= now:
            raise StaleBookmark(f"{scope}: changes are not kept for long, and the last ones were read until {since}")
        # Later ones come next time: the bookmark is older. So they do not shift this time's pages.
        times = {"since": _stamp(begin), "until": _stamp(now + timedelta(seconds=1))}
        for table, query in (("resourcecontainer", _CONTAINERS), ("resource", _RESOURCES)):
            missing = False
            for change in self._changed(scope, table, query, times):
                missing = missing or isinstance(change, Gone)
                yield change
            if missing:
                self._must_see(scope)  # else they are only out of sight
        yield Bookmark(_stamp(now - OVERLAP))

    def _changed(self, scope: str, table: str, query: str, times: Mapping[str, str]) -> Iterator[Change]:
        place, own = f"{scope}: {table}changes", f"/subscriptions/{scope}"
        changed: dict[str, str] = {}
        for row in self._graph.rows(place, f"{table}changes{_CHANGES.format(**times)}", [scope]):
            target = text_of(row, "target", f"{place}: a row")
            if target.lower() == own or target.lower().startswith(f"{own}/"):  # management groups: `hierarchy`
                changed[target.lower()] = target
            if len(changed) > MOST_CHANGES:
                raise StaleBookmark(
                    f"{place}: more than {MOST_CHANGES} since {times['since']}: a whole read costs less"
                )
        source, _, rest = query.partition(" | ")
        for start in range(0, len(changed), _AT_ONCE):
            batch = list(changed)[start : start + _AT_ONCE]
            ids = ", ".join(map(quoted, batch))
            found, again = set(), f"{source} | where id in~ ({ids}) | {rest}"
            for row in self._graph.rows(f"{scope}: changed {table}s", again, [scope]):
                resource = _resource(row, scope)
                found.add(resource.id.lower())
                yield resource
            yield from (Gone(changed[id_]) for id_ in batch if id_ not in found)

    # --- ownerd check -----------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Check]:
        """Ask for a thousand subscriptions at once; name the permission that is missing, and what cannot be shown."""
        try:
            subscriptions = [scope for scope in self.scopes() if scope != HIERARCHY]
            for start in range(0, len(subscriptions), _CHECKED_AT_ONCE):
                yield from self._look_at(subscriptions[start : start + _CHECKED_AT_ONCE])
        except Denied as error:
            yield Check("find the subscriptions", ok=False, detail=error.message, remedy=error.remedy)
            return
        what, group = f"read {HIERARCHY}", self.options.management_group
        try:
            gap = None if self._graph.ask(what, _MANAGEMENT_GROUPS, None, group, top=1).rows else _NO_GROUPS
        except ConnectorError as error:
            yield Check(what, ok=False, detail=error.message, remedy=error.remedy)
            return
        yield Check(what, ok=True, detail=gap.message if gap else "", remedy=gap.remedy if gap else "")

    def _look_at(self, subscriptions: list[str]) -> Iterator[Check]:
        seen, filled = (
            {text_of(row, column, "check: a row").lower() for row in self._graph.rows("check", query, subscriptions)}
            for query, column in ((_SUBSCRIPTIONS, "subscriptionId"), (_FILLED, "id"))
        )
        for scope in subscriptions:
            if scope in seen:
                detail = "" if scope in filled else "readable, and without a resource"
                yield Check(f"read {scope}", ok=True, detail=detail)
            else:
                error = self._invisible(scope)
                yield Check(f"read {scope}", ok=False, detail=error.message, remedy=error.remedy)


_NO_GROUPS = Gap(
    "management_groups",
    "no management group can be seen: subscriptions have no parents that are listed",
    f"to have them listed: az role assignment create --role Reader --assignee APP_ID --scope {_GROUPS}ROOT_GROUP",
)


def _resource(row: Mapping[str, Any], scope: str) -> Resource:
    what = f"{scope}: a row"
    id_, kind = text_of(row, "id", what), text_of(row, "type", what).lower()
    own = f"/subscriptions/{scope}"
    lower = id_.lower()
    place = f"{scope}: {one_line(id_)}"
    if lower == own:
        parent = _above(row, place)
    elif not lower.startswith(f"{own}/"):
        raise BadData(f"{place}: the id is none of this subscription")
    else:
        group = re.match(r"(/subscriptions/[^/]+/resourcegroups/[^/]+)/", id_, re.IGNORECASE)
        parent = group[1] if group else id_[: len(own)]
    return Resource(id_, kind, text_of(row, "name", place), parent, _tags(row, place))


def _above(row: Mapping[str, Any], place: str) -> str | None:
    """The nearest management group: the chain leads upwards. None where it is not shown, or for the root."""
    chain = row.get("chain")
    if chain is None or chain == []:
        return None
    nearest = chain[0] if isinstance(chain, list) else None
    name = nearest.get("name") if isinstance(nearest, dict) else None
    if not isinstance(name, str) or not name or "/" in name:
        raise BadData(f"{place}: managementGroupAncestorsChain is not as documented")
    return f"{_GROUPS}{name}"


def _tags(row: Mapping[str, Any], place: str) -> dict[str, str]:
    tags = row.get("tags")
    if tags is None:
        return {}
    if not isinstance(tags, dict):
        raise BadData(f"{place}: its tags are no object")
    found = {}
    for key, value in tags.items():
        if value is not None and not isinstance(value, str):
            raise BadData(f"{place}: the tag {one_line(key)} is no text")
        found[key] = value or ""  # there, and without a value
    return found


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_of(bookmark: str) -> datetime:
    try:
        return datetime.strptime(bookmark, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise StaleBookmark("a bookmark that is none of ours") from error
