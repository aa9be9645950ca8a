"""A HiBob on loopback, over TLS: the search for people, and the list of departments.

Built from HiBob's published reference (apidocs.hibob.com: "People read API contract": no paging, fields without
permission are left out silently, keys both with slashes and nested; "Search for employees"; "How to work with lists":
humanReadable; "Get a specific company list by name"; "Rate limiting": X-RateLimit-Reset in seconds since the epoch).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.servers.directory import DirectoryServer
from tests.servers.oncall import Page, Refusal


def problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as Bob words it."""
    return Refusal(status, {"key": "error", "args": {}, "error": error}, headers)


class HiBobServer(DirectoryServer):
    """The company."""

    def __init__(self) -> None:
        super().__init__()
        self.service_user_id, self.token = "SERVICE-41170", "tUcsZIF75cX-SECRET"
        self.people: dict[str, dict[str, Any]] = {}
        """Values by field id: {"work.title": …}."""
        self.departments: list[dict[str, Any]] = []
        self.hidden: set[str] = set()
        """Ids of fields that the service user may not see."""
        self.forms = {"flat", "nested"}
        """How fields are written."""
        self.sees_former = True

    def add_person(self, id_: str, email: str | None, name: str, lifecycle: str = "employed", **work: Any) -> None:
        first, _, last = name.partition(" ")
        self.people[id_] = {
            "root.id": id_, "root.email": email, "root.displayName": name, "root.fullName": name,
            "root.firstName": first, "root.surname": last, "internal.lifecycleStatus": lifecycle,
            "internal.status": "Inactive" if lifecycle == "terminated" else "Active",
            **{f"work.{key}": value for key, value in work.items()},
        }  # fmt: skip

    def add_department(self, id_: str, name: str, *children: dict[str, Any], archived: bool = False) -> dict[str, Any]:
        """Listed unless it is a child: give what this returns to the parent, and take it off the list."""
        item = {"id": id_, "value": name, "name": name, "archived": archived, "children": list(children)}
        self.departments = [d for d in self.departments if d not in children] + [item]
        return item

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        pair = base64.b64encode(f"{self.service_user_id}:{self.token}".encode()).decode()
        if headers.get("authorization") != f"Basic {pair}":
            raise problem(401, "Unauthorized")
        match path:
            case ["v1", "people", "search"] if self.body is not None:
                return Page({"employees": self._search(json.loads(self.body))}, "people")
            case ["v1", "company", "named-lists", "department"] if self.body is None:
                archived = query.get("includeArchived") == ["true"]
                items = [d for d in self.departments if archived or not d["archived"]]
                values = [{k: d[k] for k in ("id", "value", "name")} for d in items]
                return Page({"name": "department", "values": values, "items": items}, "departments")
        raise problem(404, "Not found")

    def _search(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        assert set(asked) == {"fields", "showInactive", "humanReadable"}, asked
        names = {d["id"]: d["name"] for d in _all(self.departments)}
        found = []
        for person in self.people.values():
            former = person["internal.status"] == "Inactive"
            if former and not (asked["showInactive"] and self.sees_former):
                continue
            row: dict[str, Any] = {}
            readable: dict[str, Any] = {}
            for field in asked["fields"]:
                if field in self.hidden or field not in person:
                    continue
                value = person[field]
                if "flat" in self.forms:
                    row["/" + field.replace(".", "/")] = {"value": value}
                if "nested" in self.forms:
                    _put(row, field, value)
                _put(readable, field, names.get(str(value), value) if field == "work.department" else value)
            if asked["humanReadable"] == "APPEND":
                row["humanReadable"] = readable
            found.append(row)
        return found


def _put(row: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.removeprefix("root.").split(".")
    for key in path:
        row = row.setdefault(key, {})
    row[last] = value


def _all(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for item in items for found in (item, *_all(item["children"]))]
