"""Resources and principals from files: JSON, or CSV with a header.

A scope is a file. The formats are described in docs/connectors/file.md.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from connectors.contract import Connector
from connectors.errors import BadData
from connectors.files import matching_files, read_bytes
from connectors.options import Options
from connectors.values import Kind, Members, Principal, Record, Ref, Resource, Shift

Id = Annotated[str, StringConstraints(min_length=1)]


class FileOptions(Options):
    """Options of the `file` connectors."""

    path: str = Field(description="Path of the file, or a glob that names several.")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Resource(_Row):
    id: Id
    type: str = ""
    name: str = ""
    parent: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class _Shift(_Row):
    member: Id
    start: Annotated[AwareDatetime, Field(strict=False)]
    end: Annotated[AwareDatetime, Field(strict=False)]


class _Principal(_Row):
    kind: Literal["user", "group", "role", "schedule"]
    id: Id
    name: str = ""
    email: str | None = None
    active: bool = True
    manager: str | None = None
    aliases: list[str] = Field(default_factory=list)
    attributes: dict[str, str | list[str]] = Field(default_factory=dict)
    members: list[Id] = Field(default_factory=list)
    shifts: list[_Shift] = Field(default_factory=list)

    @model_validator(mode="after")
    def _on_call(self) -> _Principal:
        if self.shifts and self.kind != "schedule":
            raise PydanticCustomError("shifts", "only a schedule has shifts")
        for shift in self.shifts:
            if shift.start >= shift.end:
                raise PydanticCustomError("shift", "a shift ends after it starts")
        return self


def _objects(path: str, key: str) -> list[Any]:
    try:
        document = orjson.loads(read_bytes(path))
    except orjson.JSONDecodeError as error:
        raise BadData(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise BadData(f'{path}: expected an object with a list "{key}"')
    if unknown := sorted(document.keys() - {key}):
        raise BadData(f'{path}: unknown key "{unknown[0]}" beside "{key}"')
    rows: list[Any] = document[key]
    return rows


def _why(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(x) for x in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


class ResourceFile(Connector):
    """Resources from JSON (`{"resources": […]}`) or CSV (`id,type,name,parent,tag:KEY,…`)."""

    Options = FileOptions

    def __init__(self, options: FileOptions) -> None:
        self.options = options

    def scopes(self) -> Iterable[str]:
        """Each file is a scope."""
        return matching_files(self.options.path)

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the file's resources; BadData names the row that is wrong."""
        rows = _csv_rows(scope) if scope.lower().endswith(".csv") else _json_rows(scope)
        seen: set[str] = set()
        for place, row in rows:
            try:
                it = _Resource.model_validate(row)
            except ValidationError as error:
                raise BadData(f"{place}: {_why(error)}") from error
            if it.id in seen:
                raise BadData(f'{place}: the id "{it.id}" stands in this file twice')
            seen.add(it.id)
            yield Resource(it.id, it.type, it.name, it.parent or None, it.tags)


def _json_rows(path: str) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(_objects(path, "resources")):
        yield f"{path}: resources[{number}]", row


def _csv_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: not UTF-8 at byte {error.start}") from error
    lines = csv.reader(text.splitlines(keepends=True), strict=True)
    header = next(lines, [])
    known = {"id", "type", "name", "parent"}
    for number, column in enumerate(header):
        if column not in known and not column.startswith("tag:"):
            raise BadData(f'{path}:1: unknown column "{column}"; expected id, type, name, parent or tag:KEY')
        if column in header[:number]:
            raise BadData(f'{path}:1: the column "{column}" stands twice')
    if "id" not in header:
        raise BadData(f'{path}:1: no column "id"')
    while True:
        try:
            cells = next(lines, None)
        except csv.Error as error:
            raise BadData(f"{path}:{lines.line_num}: {error}") from error
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(header):
            raise BadData(f"{path}:{lines.line_num}: {len(cells)} cells, but the header has {len(header)}")
        row: dict[str, Any] = {c: v for c, v in zip(header, cells, strict=True) if c in known}
        # An empty cell is "no such tag": CSV has no other way to say it.
        row["tags"] = {c[4:]: v for c, v in zip(header, cells, strict=True) if c.startswith("tag:") and v != ""}
        yield f"{path}:{lines.line_num}", row


class PrincipalFile(Connector):
    """Principals from JSON (`{"principals": […]}`)."""

    Options = FileOptions

    def __init__(self, options: FileOptions) -> None:
        self.options = options
        self._kinds: dict[str, Kind] | None = None

    def scopes(self) -> Iterable[str]:
        """Each file is a scope."""
        return matching_files(self.options.path)

    def _read_kinds(self) -> dict[str, Kind]:
        # A member is named by its id alone, and may stand in another file of the same directory.
        kinds: dict[str, Kind] = {}
        for path in self.scopes():
            for number, row in enumerate(_principals(path)):
                if row.id in kinds:
                    raise BadData(f'{path}: principals[{number}]: the id "{row.id}" stands in this directory twice')
                kinds[row.id] = Kind(row.kind)
        return kinds

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the file's principals with their members."""
        if self._kinds is None:
            self._kinds = self._read_kinds()
        kinds = self._kinds
        rows = _principals(scope)
        for number, it in enumerate(rows):
            for part, named in (("members", it.members), ("shifts", [shift.member for shift in it.shifts])):
                if missing := next((one for one in named if one not in kinds), None):
                    raise BadData(f'{scope}: principals[{number}].{part}: no principal has the id "{missing}"')
        for it in rows:
            yield Principal(
                Kind(it.kind), it.id, it.name, it.email, it.active, it.manager, tuple(it.aliases), it.attributes
            )
            if it.members:
                yield Members(Ref(Kind(it.kind), it.id), tuple(Ref(kinds[m], m) for m in it.members))
            for shift in it.shifts:
                who = Ref(kinds[shift.member], shift.member)
                yield Shift(Ref(Kind(it.kind), it.id), who, shift.start.timestamp(), shift.end.timestamp())


def _principals(path: str) -> list[_Principal]:
    rows = []
    for number, row in enumerate(_objects(path, "principals")):
        try:
            rows.append(_Principal.model_validate(row))
        except ValidationError as error:
            raise BadData(f"{path}: principals[{number}]: {_why(error)}") from error
    return rows
