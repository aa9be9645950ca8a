"""Resources from Terraform and OpenTofu state files, format version 4.

A scope is a file. Read are the managed resources of the AWS, azurerm and Google providers that can carry tags or labels
and whose provider id stands in the state. Nothing is guessed: what a state cannot name exactly is left out, and
`ownerd check` counts it. Which those are: docs/connectors/terraform.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson
from pydantic import Field

from connectors.arn import Arn, account_arn
from connectors.contract import Check, Connector
from connectors.errors import BadData
from connectors.files import matching_files, read_bytes
from connectors.google_assets import asset_of
from connectors.options import Options
from connectors.values import Record, Resource

Attributes = Mapping[str, Any]


class TerraformOptions(Options):
    """Options of the `terraform` connector."""

    state: str = Field(description="Path of a state file, or a glob that names several.")


class Terraform(Connector):
    """What the state files say there is."""

    Options = TerraformOptions

    def __init__(self, options: TerraformOptions) -> None:
        self.options = options

    def scopes(self) -> Iterable[str]:
        """Each file is a scope."""
        return matching_files(self.options.state)

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the file's resources; BadData names the one that is wrong."""
        seen: dict[str, tuple[Resource, str]] = {}
        for found in _objects(scope):
            resource = found.resource()
            if resource is None:
                continue
            # Azure's ids are one whatever their case; those of the others are not.
            key = resource.id.lower() if resource.id.startswith("/") else resource.id
            known = seen.setdefault(key, (resource, found.address))
            if known[0] is resource:
                yield resource
            elif known[0] != resource and not found.deposed:
                raise BadData(
                    f"{scope}: {known[1]} and {found.address} are the same object, {resource.id}, and differ",
                    remedy="refresh the state, or remove one of them from it",
                )

    def check(self) -> Iterator[Check]:
        """Read each file whole, and count what it holds but cannot name."""
        for scope in self.scopes():
            count = sum(1 for _ in self.read(scope))
            unnamed = Counter(f.type for f in _objects(scope) if f.has_tags() and f.resource() is None)
            left = "".join(f", {number} {kind}" for kind, number in sorted(unnamed.items()))
            yield Check(f"read {scope}", ok=True, detail=f"{count} resources" + (left and f"; left out{left[1:]}"))


# --- the file -------------------------------------------------------------------------------------------------------


class _Object(NamedTuple):
    """One instance of a managed resource."""

    place: str
    address: str
    type: str
    attributes: Attributes
    deposed: bool

    def resource(self) -> Resource | None:
        """The object as its provider names it; None for what is not read."""
        for prefix, reader in _PROVIDERS.items():
            if self.type.startswith(prefix):
                try:
                    return reader(self.type, self.attributes)
                except ValueError as error:
                    raise BadData(f"{self.place}: {self.address}: {error}") from None
        return None

    def has_tags(self) -> bool:
        """Whether it is an object that its provider would tag."""
        return self.type.startswith(tuple(_PROVIDERS)) and not _TAG_WORDS.isdisjoint(self.attributes)


def _objects(path: str) -> Iterator[_Object]:
    """Every instance of every managed resource, deposed ones last: a deposed object is one about to be destroyed."""
    late = []
    for number, resource in enumerate(_resources(path)):
        place = f"{path}: resources[{number}]"
        match resource:
            case {"mode": "data"}:
                continue  # looked up, not owned
            case {"mode": "managed", "type": str(kind), "name": str(name), "instances": list(instances)}:
                address = ".".join(x for x in (resource.get("module"), kind, name) if x)
            case _:
                raise BadData(f"{place}: not a resource of a state file")
        for instance in instances:
            if not isinstance(instance, dict) or not isinstance(instance.get("attributes"), dict):
                raise BadData(
                    f"{place}: {address}: an instance without attributes",
                    remedy="bring the state to this Terraform's form: terraform apply -refresh-only",
                )
            key = instance.get("index_key")
            whole = address if key is None else f"{address}[{orjson.dumps(key).decode()}]"
            found = _Object(path, whole, kind, instance["attributes"], "deposed" in instance)
            if found.deposed:
                late.append(found)
            else:
                yield found
    yield from late


def _resources(path: str) -> list[Any]:
    try:
        state = orjson.loads(read_bytes(path))
    except orjson.JSONDecodeError as error:
        # Not chained: the error carries the document, and a state is full of secrets.
        raise BadData(
            f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}", remedy="is it a state file, and whole?"
        ) from None
    if isinstance(state, dict) and "encrypted_data" in state:
        raise BadData(f"{path}: the state is encrypted by OpenTofu", remedy=f"tofu state pull > {path}")
    if isinstance(state, dict) and "format_version" in state:
        raise BadData(f"{path}: a plan, or the output of `terraform show`", remedy=f"terraform state pull > {path}")
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is not int or version != 4:
        said = f"version {version}" if isinstance(version, int) else "no version"
        raise BadData(f"{path}: {said}, where a state of version 4 is read", remedy=f"terraform state pull > {path}")
    resources = state.get("resources")
    if not isinstance(resources, list):
        raise BadData(f'{path}: no list "resources"')
    return resources


# --- the providers: each gives a resource, None for what it does not read, or ValueError for what it cannot be ------

_TAG_WORDS = frozenset({"tags", "tags_all", "tag", "labels", "effective_labels", "resource_labels", "user_labels"})


def _tags(attributes: Attributes, *words: str) -> dict[str, str]:
    """The first map of `words` that is set. A null value is a tag that is not there."""
    found: Any = next((attributes[word] for word in words if attributes.get(word) is not None), {})
    if isinstance(found, list):  # aws_autoscaling_group: {key, value, propagate_at_launch}
        found = {pair.get("key"): pair.get("value") for pair in found if isinstance(pair, dict)}
    if not isinstance(found, dict):
        raise ValueError(f"{'/'.join(words)} is no map")  # noqa: TRY004  # the data is wrong, not our types
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str | None):
            raise ValueError(f"the tag {key!r} is no string")  # noqa: TRY004
    return {key: value for key, value in found.items() if value is not None}


def _text(attributes: Attributes, name: str) -> str:
    value = attributes.get(name)
    return value if isinstance(value, str) else ""


def _aws(_: str, attributes: Attributes) -> Resource | None:
    if not {"tags", "tags_all", "tag"} & attributes.keys():
        return None  # a part of another resource, or nothing that AWS tags
    text = _text(attributes, "arn") or _text(attributes, "id")
    if not text.startswith("arn:"):
        return None
    # Provider versions before 3.0 end the ARN of a log group so; AWS's tagging API does not.
    text = text.removesuffix(":*")
    arn = Arn.parse(text)
    tags = _tags(attributes, "tags_all", "tags", "tag")
    parent = account_arn(arn.partition, arn.account) if arn.account else None
    return Resource(text, arn.type, tags.get("Name") or arn.name, parent, tags)


_AZURE_GROUP = re.compile(r"(/subscriptions/[^/]+)/resourceGroups/([^/]+)", re.IGNORECASE)


def _azure(kind: str, attributes: Attributes) -> Resource | None:
    if "tags" not in attributes:
        return None
    text = _text(attributes, "id")
    name = _text(attributes, "name")
    parent: str | None
    if kind == "azurerm_subscription":  # its id is an alias's
        if not (number := _text(attributes, "subscription_id")):
            return None
        text, name = f"/subscriptions/{number}", _text(attributes, "subscription_name")
        parent, word = None, "microsoft.resources/subscriptions"
    elif group := _AZURE_GROUP.fullmatch(text):
        parent, word = group[1], "microsoft.resources/subscriptions/resourcegroups"
    else:
        # …/providers/Microsoft.Sql/servers/NAME/databases/NAME; the last provider of several is the resource's own.
        above, _, path = text.rpartition("/providers/")
        space, *rest = path.split("/")
        if not re.match(r"/subscriptions/[^/]+", above) or len(rest) < 2 or len(rest) % 2 or "|" in text:
            return None  # a secret's URL, an association: no resource id
        within = _AZURE_GROUP.match(above)
        parent = within[0] if within else "/".join(above.split("/")[:3])
        word = "/".join([space, *rest[::2]]).lower()
    return Resource(text, word, name or text.rpartition("/")[2], parent, _tags(attributes, "tags"))


def _google(kind: str, attributes: Attributes) -> Resource | None:
    if (asset := asset_of(kind, attributes)) is None:
        return None
    words = ("effective_labels", "terraform_labels", "labels", "resource_labels", "user_labels")
    return Resource(asset.id, asset.type, asset.name, asset.parent, _tags(asset.labels, *words))


_PROVIDERS: Mapping[str, Callable[[str, Attributes], Resource | None]] = {
    "aws_": _aws,
    "azurerm_": _azure,
    "google_": _google,
}
