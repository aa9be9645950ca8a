"""Google Cloud through Cloud Asset Inventory: one search of everything in an organization, a folder or a project.

The scope is the configured one. Ids are full resource names as the inventory gives them, but for Cloud SQL instances,
which it calls `//cloudsql.googleapis.com/…` and IAM, and ownerd, `//sqladmin.googleapis.com/…`. Projects go by their
ids: where the inventory names one by its number, the id that is listed takes the number's place.

Labels are tags by their keys. Tags in Google's sense are tags by their namespaced keys (`123456/owner`), which no label
can have, and their short values. The inventory tells on each resource also the tags of what is above it. Of those, the
ones that hang on a listed project, folder or organization are left out here: ownerd inherits by itself, and then knows
from where. Those of whatever is not listed, above the scope for one, stay, since nothing else would tell of them.

The search has no feed of changes: the inventory's goes through Pub/Sub, as a thing of its own to set up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from connectors import google_api
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Incomplete, ServerFault
from connectors.google_api import GoogleOptions
from connectors.paging import Pages
from connectors.values import Record, Resource

Scope = Annotated[
    str,
    StringConstraints(
        pattern=r"^(organizations/\d+|folders/\d+|projects/(\d+|([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]))$"
    ),
]
ServiceAccount = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+@[a-z0-9.-]+\.gserviceaccount\.com$")]

_OAUTH_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_PERMISSION = "cloudasset.assets.searchAllResources"
_PER_PAGE = 500
_MANAGER = "//cloudresourcemanager.googleapis.com"
_CONTAINERS = [f"cloudresourcemanager.googleapis.com/{kind}" for kind in ("Organization", "Folder", "Project")]
_FIELDS = "name,assetType,displayName,project,folders,organization,parentFullResourceName,labels,tags,effectiveTags"
_CLOUD_SQL = re.compile(r"//cloudsql\.googleapis\.com/(projects/[^/]+/instances/[^/]+)")


class GcpOptions(GoogleOptions):
    """Options of the `gcp` connector."""

    scope: Scope = Field(description="What to read: organizations/NUMBER, folders/NUMBER or projects/ID.")
    impersonate: ServiceAccount | None = Field(
        None, description="E-mail of a service account to read as; the credentials may make its tokens."
    )


class Gcp(Connector):
    """All resources that Cloud Asset Inventory can search, in one organization, folder or project."""

    Options = GcpOptions

    def __init__(self, options: GcpOptions) -> None:
        self.options = options
        self._http: google_api.Http | None = None
        self._opened: Any = None

    def scopes(self) -> Iterable[str]:
        """The one that is configured."""
        return [self.options.scope]

    def read(self, scope: str) -> Iterator[Record]:
        """Yield every resource in `scope`, the projects and folders that hold them included."""
        places = _Places()
        for row in self._search(scope, fields="name,assetType,project", types=_CONTAINERS):
            places.add(row, scope)
        empty = True
        for row in self._search(scope, fields=_FIELDS):
            empty = False
            yield _resource(row, places, scope)
        if empty:
            raise Incomplete(
                f"{scope}: the inventory lists nothing, not even {scope} itself",
                remedy="see whether the scope is the right one; of what is new, the inventory knows after a while",
            )

    def check(self) -> Iterator[Check]:
        """Ask for one resource, with all that a run asks of it."""
        for scope in self.scopes():
            try:
                row = next(self._search(scope, fields=_FIELDS, size=1), None)
            except ConnectorError as error:
                yield Check(f"read {scope}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {scope}", ok=True, detail="" if row else "readable, and empty")

    def close(self) -> None:
        """Let go of connections."""
        if self._http is not None:
            self._http.close()

    def _search(
        self, scope: str, *, fields: str, types: list[str] | None = None, size: int = _PER_PAGE
    ) -> Iterator[dict[str, Any]]:
        place = f"{scope}: searchAllResources"
        pages = Pages(place)
        methods = self._service().v1()
        token = None
        while True:
            request = methods.searchAllResources(
                scope=scope, readMask=fields, assetTypes=types, pageSize=size, pageToken=token
            )
            answer = google_api.execute(request, place, _PERMISSION, remedy=self._how_to_grant(scope)).body
            if not isinstance(answer, dict):
                raise ServerFault(f"{place}: the answer is no object")
            yield from _part(answer, "results", list, place) or ()  # an empty list is left out
            if not (token := _part(answer, "nextPageToken", str, place)):
                return
            pages.turn(token)

    def _service(self) -> Any:
        if self._opened is None:
            login = google_api.credentials(self.options, _OAUTH_SCOPES, impersonate=self.options.impersonate)
            self._http = google_api.http(self.options, login)
            self._opened = google_api.service(self.options, "cloudasset", "v1", self._http)
        return self._opened

    def _how_to_grant(self, scope: str) -> str:
        email = self.options.impersonate or getattr(self._http and self._http.credentials, "service_account_email", "")
        member = f"serviceAccount:{email}" if re.fullmatch(r"[\w.@-]+@[\w.-]+", email or "") else "MEMBER"
        kind, _, name = scope.partition("/")
        command = "resource-manager folders" if kind == "folders" else kind
        return f"gcloud {command} add-iam-policy-binding {name} --member={member} --role=roles/cloudasset.viewer"


@dataclass
class _Places:
    """The projects, folders and organizations of a scope."""

    listed: set[str] = field(default_factory=set)
    """Their names."""
    by_number: dict[str, str] = field(default_factory=dict)
    """The name of a project by its number's: `//…/projects/123` → `//…/projects/acme-pay`."""

    def add(self, row: Any, place: str) -> None:
        """Take one from the list."""
        name, kind = _needed(row, "name", place), _needed(row, "assetType", place)
        self.listed.add(name)
        if kind == _CONTAINERS[-1] and (number := _part(row, "project", str, place)):
            self.by_number[f"{_MANAGER}/{number}"] = name

    def id_of(self, name: str) -> str:
        """The id of what the inventory names so."""
        if sql := _CLOUD_SQL.fullmatch(name):
            return f"//sqladmin.googleapis.com/{sql[1]}"
        return self.by_number.get(name, name)


def _resource(row: Any, places: _Places, place: str) -> Resource:
    name, kind = _needed(row, "name", place), _needed(row, "assetType", place)
    if not name.startswith("//"):
        raise BadData(f'{place}: no full resource name: "{name[:200]}"')
    id_ = places.id_of(name)
    parent = _parent(row, id_, places, f"{place}: {name}")
    called = _part(row, "displayName", str, place)
    if not called or name.endswith(f"/{called}"):  # of some types, the display name is the path
        called = name.rpartition("/")[2]
    return Resource(id_, kind, called, parent, _tags(row, id_, parent, places, f"{place}: {name}"))


def _parent(row: Mapping[str, Any], id_: str, places: _Places, place: str) -> str | None:
    """The parent that the inventory names; where it names none, the project, else the folder, else the organization."""
    folders = _part(row, "folders", list, place) or []
    above = [_part(row, "project", str, place)]
    if len(folders) < 2:  # in which order they come is not said
        above.append(str(folders[0]) if folders else _part(row, "organization", str, place))
    named = [_part(row, "parentFullResourceName", str, place), *(f"{_MANAGER}/{x}" for x in above if x)]
    found = (places.id_of(x) for x in named if x)
    return next((x for x in found if x != id_), None)


def _tags(row: Mapping[str, Any], id_: str, parent: str | None, places: _Places, place: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key, value in (_part(row, "labels", dict, place) or {}).items():
        if not isinstance(value, str):
            raise BadData(f"{place}: the label {key} is no text")
        tags[key] = value
    for group in _part(row, "effectiveTags", list, place) or ():
        holder = places.id_of(_part(group, "attachedResource", str, place) or "")
        if parent is None or holder == id_ or holder not in places.listed:
            tags.update(_tag(tag, place) for tag in _part(group, "effectiveTags", list, place) or ())
    tags.update(_tag(tag, place) for tag in _part(row, "tags", list, place) or ())
    return tags


def _tag(tag: Any, place: str) -> tuple[str, str]:
    """`123456/owner` and `payments`, of `123456/owner/payments`."""
    key, value = _needed(tag, "tagKey", place), _needed(tag, "tagValue", place)
    if not value.startswith(f"{key}/"):
        raise BadData(f"{place}: the value {value[:200]} is not one of the tag {key[:200]}")
    return key, value[len(key) + 1 :]


def _part(document: Any, key: str, kind: type, place: str) -> Any:
    """`document[key]`, or None: the API leaves out what is empty."""
    if not isinstance(document, dict):
        raise BadData(f"{place}: where an object should be is none")
    found = document.get(key)
    if found is not None and not isinstance(found, kind):
        raise BadData(f'{place}: "{key}" is of the wrong type')
    return found


def _needed(document: Any, key: str, place: str) -> str:
    found: str | None = _part(document, key, str, place)
    if not found:
        raise BadData(f'{place}: a result has no "{key}"')
    return found
