"""Cloud Asset Inventory on loopback: `searchAllResources` over an organization of folders, projects and resources.

Built from the reference of `v1.searchAllResources` (every answer is held against the description that Google ships),
"Asset names", "Asset types", "Tags overview" (inheritance: the lower value of a key hides the higher), and answers that
people have published: there, projects are named by their ids in `name` and `parentFullResourceName` and by their
numbers in `project`, a Cloud SQL instance is `//cloudsql.googleapis.com/…`, and what is empty is left out.
"""

from __future__ import annotations

import re
from typing import Any

from tests.servers.google import CLOUD, Call, GoogleProblem, GoogleServer, description

MANAGER = "//cloudresourcemanager.googleapis.com"
ORGANIZATION = "organizations/123456789012"
PERMISSION = "cloudasset.assets.searchAllResources"


class AssetServer(GoogleServer):
    """An inventory. `denied` scopes may not be read; `enabled` False is an API that is not enabled."""

    def __init__(self, *, page: int = 500) -> None:
        super().__init__(page=page)
        self.denied: set[str] = set()
        self.readers: set[str] | None = None
        """E-mails of who may read; None: all."""
        self.enabled = True
        self.parents_by_number = False
        """Name a project as a parent by its number."""
        self.attached_by_number = True
        """Name a project that a tag hangs on by its number, as Resource Manager does."""
        self.rows: dict[str, dict[str, Any]] = {}
        self._above: dict[str, str] = {}
        self._attached: dict[str, dict[str, str]] = {}
        self.route(
            "cloudasset", "v1", "cloudasset.searchAllResources", r"/v1/([^/]+/[^/]+):searchAllResources", self._search
        )

    # ── content ──

    def organization(self, name: str = ORGANIZATION, **more: Any) -> str:
        """The organization; returns its full name."""
        return self.add(
            f"{MANAGER}/{name}", "cloudresourcemanager.googleapis.com/Organization", "", organization=name, **more
        )

    def folder(self, number: int, parent: str, display: str, **more: Any) -> str:
        """A folder; returns its full name."""
        kind = "cloudresourcemanager.googleapis.com/Folder"
        return self.add(f"{MANAGER}/folders/{number}", kind, parent, displayName=display, **more)

    def project(self, id_: str, number: int, parent: str, **more: Any) -> str:
        """A project; returns its full name."""
        kind = "cloudresourcemanager.googleapis.com/Project"
        told = {"displayName": id_, "project": f"projects/{number}", **more}
        return self.add(f"{MANAGER}/projects/{id_}", kind, parent, **told)

    def add(
        self,
        name: str,
        kind: str,
        parent: str,
        *,
        tags: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        **more: Any,
    ) -> str:
        """A resource under another. `tags`: namespaced key → short value."""
        row: dict[str, Any] = {"name": name, "assetType": kind, **more}
        if above := self.rows.get(parent):
            row = {k: above[k] for k in ("project", "folders", "organization") if k in above} | row
            if above["assetType"].endswith("/Folder"):
                row["folders"] = [parent.removeprefix(f"{MANAGER}/"), *above.get("folders", [])]
            row |= {"parentFullResourceName": parent, "parentAssetType": above["assetType"]}
        if labels:
            row["labels"] = labels
        self.rows[name] = row
        self._above[name] = parent
        self._attached[name] = tags or {}
        return name

    def remove(self, name: str) -> None:
        """Take a resource away."""
        del self.rows[name], self._above[name], self._attached[name]

    def _whole(self, name: str) -> dict[str, Any]:
        """A resource with its tags, as the inventory tells them."""
        row = dict(self.rows[name])
        if direct := self._attached[name]:
            row["tags"] = [_tag(k, v) for k, v in direct.items()]
        groups: list[dict[str, Any]] = []
        seen: set[str] = set()
        at = name
        while at in self.rows:
            here = {k: v for k, v in self._attached[at].items() if k not in seen}
            seen |= here.keys()
            if here:
                groups.append(
                    {"attachedResource": self._named(at), "effectiveTags": [_tag(k, v) for k, v in here.items()]}
                )
            at = self._above[at]
        if groups:
            row["effectiveTags"] = groups
        if self.parents_by_number and "parentFullResourceName" in row:
            row["parentFullResourceName"] = self._named(row["parentFullResourceName"], force=True)
        return row

    def _named(self, name: str, *, force: bool = False) -> str:
        row = self.rows.get(name)
        if row and row["assetType"].endswith("/Project") and (self.attached_by_number or force):
            return f"{MANAGER}/{row['project']}"
        return name

    # ── the method ──

    def _search(self, call: Call, scope: str) -> tuple[dict[str, Any], int]:
        if not self.enabled:
            raise GoogleProblem.disabled("cloudasset.googleapis.com", "987654321")
        if CLOUD not in call.token.scopes:
            raise GoogleProblem(
                403, "Request had insufficient authentication scopes.", reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT"
            )
        if scope in self.denied or (self.readers is not None and call.token.email not in self.readers):
            raise GoogleProblem(
                403,
                f"Permission '{PERMISSION}' denied on resource '//cloudasset.googleapis.com/{scope}' (or it may not exist).",
                reason="IAM_PERMISSION_DENIED",
                metadata={"permission": PERMISSION, "resource": scope},
            )
        known = description("cloudasset", "v1")["schemas"]["ResourceSearchResult"]["properties"]
        mask = call.one("readMask").split(",") if "readMask" in call.query else [*known.keys() - {"effectiveTags"}]
        if unknown := set(mask) - known.keys():
            raise GoogleProblem(400, f"Invalid field path: {sorted(unknown)}")
        types = call.query.get("assetTypes", [])
        rows = [
            {k: v for k, v in self._whole(name).items() if k in mask}
            for name, row in self.rows.items()
            if self._in(scope, row) and (not types or any(re.fullmatch(t, row["assetType"]) for t in types))
        ]
        document, number = self.paged(call, "results", rows, most=500)
        return document, -number if types else number

    def _in(self, scope: str, row: dict[str, Any]) -> bool:
        kind = scope.partition("/")[0]
        if kind == "projects":
            named = self.rows.get(f"{MANAGER}/{scope}", {}).get("project", scope)
            return bool(row.get("project") == named)
        if kind == "folders":
            return scope in row.get("folders", []) or row["name"] == f"{MANAGER}/{scope}"
        return bool(row.get("organization") == scope)


def _tag(key: str, value: str) -> dict[str, str]:
    number = sum(key.encode()) * 1000 + 281
    return {
        "tagKey": key,
        "tagKeyId": f"tagKeys/{number}",
        "tagValue": f"{key}/{value}",
        "tagValueId": f"tagValues/{number}{len(value)}",
    }
