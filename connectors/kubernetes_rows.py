"""What an object's metadata says: id, type, parent, tags.

https://kubernetes.io/docs/reference/kubernetes-api/definitions/object-meta-v1-meta/
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from connectors.errors import BadData
from connectors.http import part
from connectors.kubernetes_kinds import ServedKind
from connectors.values import Resource

_NOISE = "kubectl.kubernetes.io/last-applied-configuration"
"""An annotation that repeats the whole object."""
_NAME = re.compile(r"[^/%\x00-\x20\x7f-\x9f]+")


class Rows:
    """Makes resources of one cluster, `root` (`k8s://CLUSTER`), of which the `kinds` are listed."""

    def __init__(self, root: str, kinds: Iterable[ServedKind]) -> None:
        self._root = root
        self._listed = {(kind.group, kind.kind): kind for kind in kinds}

    def resource(self, kind: ServedKind, item: Any) -> Resource:
        """Of an object, or a PartialObjectMetadata."""
        place = f"an object of {kind.scope}"
        meta = part(item, "metadata", dict, place)
        name = segment(meta.get("name"), place)
        namespace = segment(meta.get("namespace"), f"{place}, {name}") if kind.namespaced else ""
        place = f"{kind.scope} {namespace}/{name}"
        parent = self._controller(meta, namespace, place)
        if parent is None:
            parent = f"{self._root}/api/v1/namespaces/{namespace}" if namespace else self._root
        return Resource(self._path(kind, namespace, name), kind.type, name, parent, _tags(meta, place))

    def _path(self, kind: ServedKind, namespace: str, name: str) -> str:
        inside = f"/namespaces/{namespace}" if kind.namespaced else ""
        return f"{self._root}{kind.root}{inside}/{kind.plural}/{name}"

    def _controller(self, meta: dict[str, Any], namespace: str, place: str) -> str | None:
        """The id of the object that controls this one, if its kind is listed, in the version in which it is.

        Of one that is not listed there is no row, and a chain of parents would end there.
        """
        if (reference := _controlling(meta, place)) is None:
            return None
        kind = self._listed.get(_kind_of(reference, place))
        if kind is None or (kind.namespaced and not namespace):
            return None
        return self._path(kind, namespace, segment(reference.get("name"), f"{place}: the owner"))

    def unlisted(self, kind: ServedKind, items: Iterable[Any]) -> Counter[str]:
        """How many of the objects are controlled by a kind that is not listed: `Rollout.argoproj.io`."""
        found: Counter[str] = Counter()
        for item in items:
            place = f"an object of {kind.scope}"
            if reference := _controlling(part(item, "metadata", dict, place), place):
                group, name = key = _kind_of(reference, place)
                if key not in self._listed and key != ("", "Node"):  # static pods: a node is no workload
                    found[f"{name}.{group}" if group else name] += 1
        return found


def segment(text: Any, place: str) -> str:
    """A name that can be a part of a path: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/."""
    if not isinstance(text, str) or not _NAME.fullmatch(text) or text in {".", ".."}:
        raise BadData(f"{place}: it has no name, or one that can be no part of a path")
    return text


def _controlling(meta: dict[str, Any], place: str) -> dict[str, Any] | None:
    """The ownerReference of the one object that controls this one."""
    references = meta.get("ownerReferences")
    for reference in part(meta, "ownerReferences", list, place) if references is not None else ():
        if part({"reference": reference}, "reference", dict, f"{place}: ownerReferences").get("controller") is True:
            found: dict[str, Any] = reference
            return found
    return None


def _kind_of(reference: dict[str, Any], place: str) -> tuple[str, str]:
    """Group and kind of an ownerReference. Its version may be another than the one that is listed."""
    api: str = part(reference, "apiVersion", str, place)
    return api.rpartition("/")[0], part(reference, "kind", str, place)


def _tags(meta: dict[str, Any], place: str) -> dict[str, str]:
    """Labels first, then annotations: a key that a label has, in whatever case, is the label's."""
    labels, annotations = (_texts(meta.get(name), f"{place}: {name}") for name in ("labels", "annotations"))
    taken = {key.casefold() for key in labels}
    return labels | {k: v for k, v in annotations.items() if k != _NOISE and k.casefold() not in taken}


def _texts(found: Any, place: str) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadData(f"{place} are not texts")
    return found
