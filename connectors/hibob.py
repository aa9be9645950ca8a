"""People, departments and managers of a company on HiBob (Bob).

API reference: https://apidocs.hibob.com/docs/people-read-api-contract, https://apidocs.hibob.com/reference/post_people-search,
https://apidocs.hibob.com/reference/get_company-named-lists-listname
"""

from __future__ import annotations

import base64
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import Field

from connectors.answers import attributes_of, plain, rows_of
from connectors.contract import Check, Connector
from connectors.errors import BadData, Forbidden
from connectors.http import Api, part, retry_after
from connectors.options import HttpOptions, Secret
from connectors.values import Gap, Kind, Members, Principal, Record, Ref

DIRECTORY = "directory"
FIELDS = (
    "root.id", "root.email", "root.displayName", "root.fullName", "root.firstName", "root.surname",
    "work.department", "work.title", "work.site", "work.employeeIdInCompany", "work.reportsTo", "work.manager",
    "internal.status", "internal.lifecycleStatus",
)  # fmt: skip
"""What is asked for. Bob leaves out of its answer what the service user may not see, without a word."""
GONE = frozenset({"hired", "terminated", "gardenleave"})
"""Lifecycle statuses of people who have not begun yet, or work no more; other leaves end."""
PEOPLE, LIFECYCLE, WORK = (
    "the access right to Everyone (People's data, Access rights)",
    "View selected employees' Lifecycle sections (People's data)",
    "View selected employees' Work sections (People's data)",
)
MANAGERS_HIDDEN = Gap("managers_hidden", "Bob tells no manager of anybody", f"grant {WORK}")


class HiBobOptions(HttpOptions):
    """Options of the `hibob` connector."""

    service_user_id: str = Field(description="Id of an API service user (SERVICE-…).")
    token: Secret = Field(description="Its token.")


class HiBob(Connector):
    """Reads one company. Bob answers with everybody at once, so that the answer is of one moment."""

    Options = HiBobOptions

    def __init__(self, options: HiBobOptions) -> None:
        pair = f"{options.service_user_id}:{options.token.value}".encode()
        self._api = Api(
            options,
            options.endpoint or "https://api.hibob.com",
            headers={"Authorization": f"Basic {base64.b64encode(pair).decode()}", "Accept": "application/json"},
            credentials="the service user's token",
            wait=_until_reset,
        )

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def scopes(self) -> Iterable[str]:
        """The directory."""
        return [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """People, and departments as groups."""
        del scope
        return frozenset({Kind.USER, Kind.GROUP})

    def read(self, scope: str) -> Iterator[Record]:
        """Yield people; departments with theirs, if they own."""
        del scope
        people = self._people()
        within: defaultdict[str, list[Ref]] = defaultdict(list)
        managed = False
        for row in people:
            person = _person(row)
            managed |= person.manager is not None
            if department := _department(row):
                within[department].append(person.ref)
            yield person
        if not managed:
            yield MANAGERS_HIDDEN
        if Kind.GROUP in self.kinds:
            if not within:
                raise Forbidden(
                    "v1/people/search: Bob tells no department of anybody", permission=WORK, remedy=f"grant {WORK}"
                )
            yield from self._departments(within)

    def _people(self) -> list[dict[str, Any]]:
        answer = self._api.call(
            "POST",
            "v1/people/search",
            permission=PEOPLE,
            json={"fields": list(FIELDS), "showInactive": True, "humanReadable": "APPEND"},
        )
        people = rows_of(part(answer.body, "employees", list, "v1/people/search"), "v1/people/search")
        if not people:
            raise Forbidden("v1/people/search: Bob shows nobody", permission=PEOPLE, remedy=f"grant {PEOPLE}")
        return people

    def _departments(self, within: Mapping[str, list[Ref]]) -> Iterator[Record]:
        """Departments, each with its people and the departments below it; archived ones while somebody is in them."""
        body = self._api.get("v1/company/named-lists/department", includeArchived="true").body
        key = "items" if isinstance(body, dict) and "items" in body else "values"
        for item, below in _tree(part(body, key, list, "the list of departments")):
            department = Ref(Kind.GROUP, _id(item.get("id"), "a department"))
            members = [*within.get(department.id, ()), *(Ref(Kind.GROUP, id_) for id_ in below)]
            if item.get("archived") is True and not members:
                continue
            name = plain(item.get("name")) or plain(item.get("value"))
            if name is None:
                raise BadData(f"department {department.id} has no name")
            yield Principal(Kind.GROUP, department.id, name)
            yield Members(department, tuple(members))

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask for what a run does: Bob tells what it hides only by leaving it out."""
        people = self._people()
        yield Check("read people", ok=True, detail=f"{len(people)} shown")
        gap = None if any(_manager(row) for row in people) else MANAGERS_HIDDEN
        yield Check("see managers", ok=True, detail=gap.message if gap else "", remedy=gap.remedy if gap else "")
        needed: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {"who is active": (LIFECYCLE, _status)}
        if Kind.GROUP in self.kinds:
            needed["departments"] = (WORK, _department)
        for what, (right, told) in needed.items():
            if any(told(row) for row in people):
                yield Check(f"see {what}", ok=True)
            else:
                yield Check(f"see {what}", ok=False, detail="Bob tells it of nobody", remedy=f"grant {right}")
        if Kind.GROUP in self.kinds:
            self._api.get("v1/company/named-lists/department")
            yield Check("read the list of departments", ok=True)


def _field(row: Mapping[str, Any], field: str) -> Any:
    """A field by its id (`work.title`): {"/work/title": {"value": …}}, {"work": {"title": …}}, or both."""
    flat = row.get("/" + field.replace(".", "/"))
    if isinstance(flat, dict) and "value" in flat:
        return flat["value"]
    found: Any = row
    for key in field.removeprefix("root.").split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _id(told: Any, what: str) -> str:
    """Bob's ids are long numbers, written as text."""
    if isinstance(told, bool) or not isinstance(told, int | str) or told == "":
        raise BadData(f"{what} has no id")
    return str(told)


def _person(row: Mapping[str, Any]) -> Principal:
    id_ = _id(_field(row, "root.id"), "a person")
    first, last = plain(_field(row, "root.firstName")), plain(_field(row, "root.surname"))
    whole = " ".join(filter(None, [first, last]))
    email = plain(_field(row, "root.email"))
    names = (plain(_field(row, f"root.{key}")) for key in ("displayName", "fullName"))
    return Principal(
        Kind.USER,
        id_,
        next(filter(None, names), None) or whole or email or id_,
        email,
        _is_active(row, f"person {id_}"),
        _manager(row),
        attributes=_attributes(row),
    )


def _attributes(row: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """What Bob writes as an id of a list's item goes by its name and by the id."""
    readable = row.get("humanReadable")
    told: dict[str, Any] = {}
    for field in ("root.firstName", "root.surname", "work.title", "work.site", "work.department"):
        ways = (_field(it, field) for it in (readable if isinstance(readable, dict) else {}, row))
        texts = list(dict.fromkeys(text for way in ways if (text := plain(way)) is not None))
        told[field.rpartition(".")[2]] = texts[0] if len(texts) == 1 else texts
    told["employeeIdInCompany"] = _field(row, "work.employeeIdInCompany")
    told["lifecycleStatus"] = _field(row, "internal.lifecycleStatus")
    return attributes_of(told)


def _status(row: Mapping[str, Any]) -> str:
    """`hired`, `employed`, `gardenleave`, `parentalleave`, `terminated` …; else `active`, `inactive`; else nothing."""
    for field in ("internal.lifecycleStatus", "internal.status"):
        if text := plain(_field(row, field)):
            return "".join(c for c in text.lower() if c.isalnum())
    return ""


def _is_active(row: Mapping[str, Any], what: str) -> bool:
    if not (status := _status(row)):
        raise Forbidden(
            f"{what}: Bob does not tell whether it is active", permission=LIFECYCLE, remedy=f"grant {LIFECYCLE}"
        )
    ended = plain(_field(row, "internal.status"))
    return status not in GONE and (ended or "active").lower() == "active"


def _manager(row: Mapping[str, Any]) -> str | None:
    told = _field(row, "work.reportsTo")
    told = told.get("id") if isinstance(told, dict) else told
    told = told or _field(row, "work.manager")
    return None if told is None or told == "" else _id(told, "a manager")


def _department(row: Mapping[str, Any]) -> str:
    told = _field(row, "work.department")
    return "" if told is None or told == "" else _id(told, "a department")


def _tree(items: Any) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each item of a list that may nest, and the ids of those right below it that are not archived."""
    for item in rows_of(items, "the list of departments"):
        children = rows_of(item.get("children") or [], "the list of departments")
        yield item, [_id(c.get("id"), "a department") for c in children if c.get("archived") is not True]
        yield from _tree(children)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until Bob serves again: X-RateLimit-Reset is in seconds since the epoch, by its clock.

    https://apidocs.hibob.com/reference/rate-limiting
    """
    told = headers.get("x-ratelimit-reset", "")
    if not (told.isascii() and told.isdecimal()):
        return retry_after(headers)
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        now = time.time()
    return max(0.0, int(told) - now)
