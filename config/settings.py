"""What the configuration file may say: TOML, checked whole, every problem at once, each with its place."""

from __future__ import annotations

import functools
import operator
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from config.permissions import unsafe
from config.problems import ConfigurationError, Problem, nearest, place_of
from config.users import Gid, Uid
from config.validation import problems_in
from connectors.options import Duration, DurationOrNone, Size, Strict
from connectors.registry import DIRECTORIES, INTEGRATIONS, Entry, load

Role = Literal["integration", "directory"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Attribute = Annotated[str, StringConstraints(pattern=r"^(group|user|role|schedule|manager)\.\S(.*\S)?$")]
Keys = Annotated[
    tuple[Text, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
    ),
]
ATTRIBUTE_HELP = "write KIND.FIELD, where KIND is group, user, role, schedule or manager: group.name, user.email"
ROLES: Mapping[Role, Mapping[str, Entry]] = {"directory": DIRECTORIES, "integration": INTEGRATIONS}


class Daemon(Strict):
    """The `[daemon]` table."""

    state_directory: Path | None = Field(
        None, description="Where ownerd.db, spool/ and held/ are. Default: $STATE_DIRECTORY, else ./var."
    )
    runtime_directory: Path | None = Field(
        None, description="Where the sockets are. Default: $RUNTIME_DIRECTORY, else the state directory."
    )
    socket_mode: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = Field(
        "0660", description="Permissions of ownerd.sock, in octal."
    )
    socket_group: Text | None = Field(None, description="Group that owns ownerd.sock. Default: the process's.")
    allow_uids: Annotated[list[Uid], Field(min_length=1)] | None = Field(
        None, description="Users, by number or name, who may ask on ownerd.sock. Default: whoever may open it."
    )
    allow_gids: Annotated[list[Gid], Field(min_length=1)] | None = Field(
        None, description="Groups, by number or name, whose members may ask; supplementary ones count."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that answer lookups, all on one socket.")
    log_format: Literal["json", "console"] = Field("json", description="How log lines look.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")


class Guard(Strict):
    """The `[guard]` table: how much one snapshot may change before it is held."""

    max_removed: float = Field(
        0.2, ge=0, le=1, description="Largest share of a scope's rows that may vanish at once; counted from 10 rows up."
    )
    max_owner_changes: float = Field(
        0.2, ge=0, le=1, description="Largest share of an integration's rows that one publish may re-own; from 10 up."
    )


class Source(Strict):
    """What every directory and integration takes."""

    name: Name = Field(description="Unique over all directories and integrations.")
    connector: str = Field(description="The kind of system.")
    stale_after: Duration | None = Field(None, description="Age past which answers are stale. Default: 4 intervals.")
    max_removed: float | None = Field(
        None, ge=0, le=1, description="In place of the `[guard]` table's, for this source."
    )
    time_limit: Duration = Field(3600.0, description="A run that takes longer is stopped, and failed.")
    memory_limit: Size = Field(
        2 * 2**30, ge=64 * 2**20, description="Memory that a run's process may take; past it, the run has failed."
    )
    interval: Duration = 300.0
    whole_interval: Duration | None = Field(
        None, description="Time between whole reads, where changes are read in between. Default: 24 intervals."
    )

    @property
    def whole(self) -> float:
        """`whole_interval` in seconds, with its default."""
        return self.whole_interval if self.whole_interval is not None else 24 * self.interval

    @property
    def stale(self) -> float:
        """`stale_after` in seconds, with its default."""
        return self.stale_after if self.stale_after is not None else 4 * self.interval


class Directory(Source):
    """A `[[directories]]` table: a source of principals."""

    interval: Duration = Field(300.0, description="Time between runs, to which jitter is added.")
    rename_grace: DurationOrNone = Field(
        14 * 86400.0, description="Time for which a principal's former name names it still; 0: not at all."
    )


class ResourceOwner(Strict):
    """A `[[integrations.resource_owner]]` table: which tag names an owner, and whom it names."""

    key: Keys = Field(description="Tag key, or several, of which the first present counts.")
    directory: str = Field(description="Name of the directory to look in.")
    attribute: Attribute = Field(description=ATTRIBUTE_HELP)
    split: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="What separates several owners in one value."
    )
    allowed: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Globs over the principal's name, or ids; any other may not own."
    )


class IntegrationOwner(Strict):
    """A `[[integrations.integration_owner]]` table: the fallback."""

    directory: str = Field(description="Name of the directory to look in.")
    attribute: Attribute = Field(description=ATTRIBUTE_HELP)
    values: Annotated[list[Text], Field(min_length=1)] = Field(description="Each names one principal.")


class Integration(Source):
    """An `[[integrations]]` table: a source of resources."""

    interval: Duration = Field(900.0, description="Time between runs, to which jitter is added.")
    max_owner_changes: float | None = Field(
        None, ge=0, le=1, description="In place of the `[guard]` table's, for this integration."
    )
    hold_owner_changes: DurationOrNone = Field(
        0.0, description="Time for which a changed or removed tag leaves the old owner in force; 0: not at all."
    )
    inherit: bool = Field(default=True, description="Whether a resource without the tag inherits its ancestor's.")
    resource_owner: list[ResourceOwner] = Field(
        default_factory=list, description="Tried in order; the first whose tag is present decides."
    )
    integration_owner: Annotated[list[IntegrationOwner], Field(min_length=1)] = Field(
        description="Who owns what no tag gives to anybody."
    )

    @field_validator("integration_owner", mode="before")
    @classmethod
    def _table_of_tables(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise PydanticCustomError("table", "write [[integrations.integration_owner]], with two brackets")
        return value


@dataclass(frozen=True, slots=True)
class Configured:
    """One source of the configuration: the common settings, and the connector's own options as they were written."""

    role: Role
    settings: Source
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The source's name, unique over both roles."""
        return self.settings.name

    @property
    def entry(self) -> Entry:
        """The registry's entry of its connector."""
        return ROLES[self.role][self.settings.connector]


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole, valid configuration."""

    path: Path
    daemon: Daemon
    guard: Guard
    sources: tuple[Configured, ...]
    """Directories first, each role in the file's order."""

    @property
    def directories(self) -> dict[str, Directory]:
        """The directories by name."""
        return {s.name: s.settings for s in self.sources if isinstance(s.settings, Directory)}

    @property
    def integrations(self) -> dict[str, Integration]:
        """The integrations by name, in the file's order."""
        return {s.name: s.settings for s in self.sources if isinstance(s.settings, Integration)}

    @property
    def state_directory(self) -> Path:
        """Where the database is."""
        return self.daemon.state_directory or Path(os.environ.get("STATE_DIRECTORY") or "var")

    @property
    def runtime_directory(self) -> Path:
        """Where the sockets are."""
        given = self.daemon.runtime_directory or os.environ.get("RUNTIME_DIRECTORY")
        return Path(given) if given else self.state_directory

    @property
    def socket(self) -> Path:
        """Where lookups are answered."""
        return self.runtime_directory / "ownerd.sock"

    @property
    def control_socket(self) -> Path:
        """Where the poller takes its orders."""
        return self.runtime_directory / "control.sock"

    @property
    def database(self) -> Path:
        """The materialized table."""
        return self.state_directory / "ownerd.db"


@functools.cache
def source_model(role: Role, kind: str) -> type[Source]:
    """The model of one table: the common settings and the options of connector `kind`."""
    base: type[Source] = Directory if role == "directory" else Integration
    options = load(ROLES[role][kind]).Options
    only: Any = Literal[kind]
    model: Any = create_model(
        f"{kind.title().replace('_', '')}{base.__name__}",
        __base__=(base, options),
        __doc__=f"{base.__name__} of connector `{kind}`.",
        connector=(only, ...),
    )
    return cast("type[Source]", model)


def load_settings(path: Path) -> Settings:
    """Read and check `path`. ConfigurationError carries every problem there is."""
    try:
        text = path.read_bytes()
    except OSError as error:
        remedy = "name the file with --config or $OWNERD_CONFIG"
        raise ConfigurationError(path, [Problem("", f"cannot be read: {error.strerror}; {remedy}")]) from error
    if wrong := unsafe(path):
        raise ConfigurationError(path, [Problem("", f"{wrong.what}; {wrong.remedy}")])
    try:
        document = tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(path, [Problem("", f"not TOML: {error}")]) from error
    return parse_settings(document, path)


def parse_settings(document: Mapping[str, Any], path: Path) -> Settings:
    """Check a parsed document. ConfigurationError carries every problem there is."""
    problems: list[Problem] = []
    known = ("daemon", "guard", "directories", "integrations")
    problems += [Problem(key, f'unknown table "{key}"{nearest(key, known)}') for key in document if key not in known]
    daemon = _part(Daemon, document.get("daemon", {}), ("daemon",), problems)
    guard = _part(Guard, document.get("guard", {}), ("guard",), problems)
    sources: list[Configured] = []
    for role, table in (("directory", "directories"), ("integration", "integrations")):
        rows = document.get(table, [])
        if not isinstance(rows, list):
            problems.append(Problem(table, f"write [[{table}]], with two brackets"))
            continue
        for number, row in enumerate(rows):
            source = _source(role, row, (table, number), problems)  # type: ignore[arg-type]  # a literal, above
            if source:
                sources.append(source)
    if not document.get("integrations"):
        problems.append(Problem("integrations", "at least one [[integrations]] table is needed"))
    problems += _cross_check(document)
    if problems or daemon is None or guard is None:
        raise ConfigurationError(path, problems)
    return Settings(path, daemon, guard, tuple(sources))


M = TypeVar("M", bound=BaseModel)


def _part(model: type[M], data: Any, loc: tuple[str | int, ...], problems: list[Problem]) -> M | None:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += problems_in(error, model, loc)
        return None


def _source(role: Role, row: Any, loc: tuple[str | int, ...], problems: list[Problem]) -> Configured | None:
    kind = row.get("connector") if isinstance(row, dict) else None
    kinds = ROLES[role]
    if not isinstance(kind, str) or kind not in kinds:
        place = place_of((*loc, "connector"))
        other = next((r for r, k in ROLES.items() if r != role and kind in k), None)
        if kind is None:
            problems.append(Problem(place, f"missing; one of {', '.join(sorted(kinds))}"))
        elif other:
            problems.append(
                Problem(place, f'"{kind}" reads no {"resources" if role == "integration" else "principals"}')
            )
        else:
            hint = nearest(str(kind), kinds) or f"; there are {', '.join(sorted(kinds))}"
            problems.append(Problem(place, f'no connector named "{kind}"{hint}'))
        return None
    model = source_model(role, kind)
    settings = _part(model, row, loc, problems)
    own = load(kinds[kind]).Options.model_fields
    return Configured(role, settings, {k: v for k, v in row.items() if k in own}) if settings else None


def _tables(document: Mapping[str, Any], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = document.get(name)
    yield from ((n, row) for n, row in enumerate(rows if isinstance(rows, list) else []) if isinstance(row, dict))


def _cross_check(document: Mapping[str, Any]) -> Iterator[Problem]:
    """What no single table can tell: names used twice, directories that are not there."""
    seen: dict[str, str] = {}
    for table in ("directories", "integrations"):
        for number, row in _tables(document, table):
            place, name = f"{table}[{number}]", row.get("name")
            if not isinstance(name, str):
                continue
            if name in seen:
                yield Problem(f"{place}.name", f'"{name}" is the name of {seen[name]} too; names are unique')
            else:
                seen[name] = place
    directories = [str(row.get("name")) for _, row in _tables(document, "directories")]
    for number, row in _tables(document, "integrations"):
        for part in ("resource_owner", "integration_owner"):
            for index, mapping in _tables(row, part):
                named = mapping.get("directory")
                if isinstance(named, str) and named not in directories:
                    hint = nearest(named, directories)
                    yield Problem(
                        f"integrations[{number}].{part}[{index}].directory", f'no directory named "{named}"{hint}'
                    )


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the whole configuration, with every connector's options."""

    def tables(role: Role) -> Any:
        models = [source_model(role, kind) for kind in sorted(ROLES[role])]
        either: Any = functools.reduce(operator.or_, models)
        return list[Annotated[either, Field(discriminator="connector")]] if len(models) > 1 else list[either]

    document: Any = create_model(
        "Ownerd",
        __base__=Strict,
        daemon=(Daemon, Field(default_factory=Daemon)),
        guard=(Guard, Field(default_factory=Guard)),
        directories=(tables("directory"), Field(default_factory=list)),
        integrations=(tables("integration"), Field(min_length=1)),
    )
    schema = TypeAdapter(document).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ownerd configuration", **schema}
