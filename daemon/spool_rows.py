"""Resources and principals as rows of the spool, with a hash of what they say."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from connectors.errors import BadData
from connectors.values import Principal, Ref, Resource
from daemon.matching import resource_key

DIGEST = -2
"""Where a row has its hash."""


def pid_of(ref: Ref) -> str:
    """A principal's key inside its directory."""
    return f"{ref.kind}:{ref.id}"


def well_formed(text: str) -> str:
    """Text that can be stored as UTF-8: a lone surrogate (JSON can carry one) becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def resource_row(it: Resource, scope: int) -> tuple[Any, ...]:
    """A resource as the spool has it, with the hash of its content. BadData if its tags cannot be told apart."""
    parent = it.parent or None
    try:
        tags = orjson.dumps(it.tags, option=orjson.OPT_SORT_KEYS)
        told = orjson.dumps((it.id, it.type, it.name, parent))
    except TypeError:  # a lone surrogate, or a mapping that is no dict
        return resource_row(_mended(it), scope)
    digest = blake2b(b"%b,%b]" % (told[:-1], tags), digest_size=16).digest()
    parent_key = None if parent is None else resource_key(parent)
    return resource_key(it.id), it.id, it.type, it.name, parent, parent_key, tags.decode(), digest, scope


def _mended(it: Resource) -> Resource:
    tags: dict[str, str] = {}
    for key, value in it.tags.items():
        mended = well_formed(key)
        if mended in tags:
            raise BadData(
                f"{well_formed(it.id)}: two tag keys are the same once their malformed characters are replaced"
            )
        tags[mended] = well_formed(value)
    parent = None if it.parent is None else well_formed(it.parent)
    return Resource(well_formed(it.id), well_formed(it.type), well_formed(it.name), parent, tags)


def principal_row(it: Principal, scope: int) -> tuple[Any, ...]:
    """A principal as the spool has it, with the hash of its content."""
    attributes = {
        well_formed(k): [well_formed(x) for x in v] if isinstance(v, list) else well_formed(v)
        for k, v in it.attributes.items()
    }
    email = None if it.email is None else well_formed(it.email)
    manager = None if it.manager is None else well_formed(it.manager)
    name, external = well_formed(it.name), well_formed(it.id)
    aliases = [well_formed(a) for a in it.aliases]
    told = orjson.dumps((name, email, it.active, manager, aliases, attributes), option=orjson.OPT_SORT_KEYS)
    digest = blake2b(told, digest_size=16).digest()
    return (
        well_formed(pid_of(it.ref)),
        str(it.kind),
        external,
        name,
        email,
        int(it.active),
        manager,
        orjson.dumps(aliases).decode(),
        orjson.dumps(attributes).decode(),
        digest,
        scope,
    )
