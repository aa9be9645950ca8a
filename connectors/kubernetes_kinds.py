"""The kinds of object that an API server serves, by discovery: `/api`, `/apis`, `/api/v1` and `/apis/GROUP/VERSION`.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api. The unaggregated form, which every server
has: of a large cluster's hundred groups only those are asked for that the options name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from connectors.errors import ConnectorError, Incomplete, Misconfigured
from connectors.http import part

SHAPES = 'write it like "apps/v1/deployments", "deployments.apps" or "deployments"; the core group: "v1/pods"'


class ServedKind(NamedTuple):
    """A kind of object in one version of its group. `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    names: frozenset[str]
    """All that it is called, in lower case: plural, singular, kind, short names."""

    @property
    def api(self) -> str:
        """`apps/v1`, or `v1`: what objects call `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def scope(self) -> str:
        """`apps/v1/deployments`."""
        return f"{self.api}/{self.plural}"

    @property
    def type(self) -> str:
        """`apps/v1/Deployment`."""
        return f"{self.api}/{self.kind}"

    @property
    def qualified(self) -> str:
        """`deployments.apps`: the name in RBAC's words, as `kubectl auth can-i` takes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """`/apis/apps/v1`."""
        return f"{'/apis' if self.group else '/api'}/{self.api}"

    @property
    def path(self) -> str:
        """Of the list of all such objects in the cluster: `/apis/apps/v1/deployments`."""
        return f"{self.root}/{self.plural}"


class Discovery:
    """What is served. `get` reads a document of the API server; None if there is none (404)."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get
        self._groups: dict[str, list[str]] | None = None
        self._kinds: dict[tuple[str, str], list[ServedKind]] = {}

    def find(self, name: str) -> ServedKind:
        """The kind that an entry of `resources` names; Misconfigured, with what is near, if there is none such."""
        words, found = name.split("/"), None
        if len(words) == 3:
            found = self._in_group(words[0], words[2], only=words[1])
        elif len(words) == 2:
            found = self._in_group("", words[1], only=words[0])
        elif len(words) == 1 and "." in name:
            word, _, group = name.partition(".")
            found = self._in_group(group, word)
        elif len(words) == 1:
            found = self._anywhere(name)
        if found is None:
            near = difflib.get_close_matches(name, [n for kind in self._all() for n in _forms(kind)], 1, 0.5)
            hint = f'did you mean "{near[0]}"?' if near else SHAPES
            raise Misconfigured(f'resources: the server has no "{name}"', remedy=hint)
        if "list" not in found.verbs:
            raise Misconfigured(f'resources: "{name}" are objects that cannot be listed', remedy="leave it out")
        return found

    def _anywhere(self, word: str) -> ServedKind | None:
        """By a name alone: the core group's comes first, as for kubectl; then Kubernetes' own; then the others'.

        Only Kubernetes' own groups have names without a dot: nobody's custom resource comes before them.
        """
        others = [group for group in self._served() if group]
        unknown: ConnectorError | None = None
        for tier in ([""], [g for g in others if "." not in g], [g for g in others if "." in g]):
            found = []
            for group in tier:
                try:
                    if kind := self._in_group(group, word):
                        found.append(kind)
                except ConnectorError as error:  # what an aggregated API server serves, when that one is down
                    unknown = error
            if len(found) > 1:
                raise Misconfigured(
                    f'resources: "{word}" may be any of {", ".join(kind.qualified for kind in found)}',
                    remedy="name the one that is meant, with its group",
                )
            if found:
                return found[0]
        if unknown:
            raise unknown
        return None

    def _in_group(self, group: str, word: str, only: str = "") -> ServedKind | None:
        """In `only` this version, or the first that has it: a group may serve a kind in an older one alone."""
        for version in self._served().get(group, ()):
            if only in {"", version}:
                for kind in self._of(group, version):
                    if word.lower() in kind.names:
                        return kind
        return None

    def _all(self) -> Iterator[ServedKind]:
        """All that can be named, for a hint."""
        for group, versions in self._served().items():
            for version in versions:
                with suppress(ConnectorError):
                    yield from self._of(group, version)

    def _served(self) -> dict[str, list[str]]:
        """Groups, and the versions of each, the preferred one first."""
        if self._groups is None:
            found = {"": [_text(v, "/api") for v in part(self._get("/api"), "versions", list, "/api")]}
            for group in part(self._get("/apis"), "groups", list, "/apis"):
                versions = [_text(v.get("version"), "/apis") for v in part(group, "versions", list, "/apis")]
                preferred = (group.get("preferredVersion") or {}).get("version")
                versions.sort(key=lambda version, first=preferred: version != first)  # type: ignore[misc]
                found[_text(group.get("name"), "/apis")] = versions
            self._groups = found
        return self._groups

    def _of(self, group: str, version: str) -> list[ServedKind]:
        if (group, version) not in self._kinds:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            document = self._get(path)  # None: it went after the groups were read
            rows = [] if document is None else part(document, "resources", list, path)
            if document is not None and not rows:  # else its kinds would be taken from another version, with other ids
                raise Incomplete(f"{path}: this version is served, and is said to have no resources")
            kinds = [_kind(group, version, row, path) for row in rows]
            self._kinds[group, version] = [kind for kind in kinds if "/" not in kind.plural]  # those are subresources
        return self._kinds[group, version]


def _kind(group: str, version: str, row: dict[str, Any], path: str) -> ServedKind:
    plural, kind = _text(row.get("name"), path), _text(row.get("kind"), path)
    short = row.get("shortNames") or []
    names = {plural, kind, row.get("singularName") or kind, *short}
    namespaced = part(row, "namespaced", bool, path)
    verbs = frozenset(part(row, "verbs", list, path))
    return ServedKind(group, version, plural, kind, namespaced, verbs, frozenset(n.lower() for n in names))


def _forms(kind: ServedKind) -> tuple[str, ...]:
    return kind.scope, kind.qualified, kind.plural, kind.kind


def _text(value: Any, place: str) -> str:
    text: str = part({"name": value}, "name", str, place)
    return text
