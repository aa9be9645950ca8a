"""Options of the `ldap` connector, and how each kind of server names things."""

from __future__ import annotations

import ipaddress
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from connectors.dn import normal_dn
from connectors.options import Duration, Options, Secret


@dataclass(frozen=True)
class Schema:
    """How a kind of server names things."""

    name: str
    id: str
    users: str
    groups: str
    members: tuple[str, ...]
    state: tuple[str, ...]
    primary: tuple[str, ...] = ()


_PEOPLE = "(|(objectClass=inetOrgPerson)(objectClass=posixAccount))"
_LOCKS = ("pwdAccountLockedTime", "nsAccountLock")
SCHEMAS: Mapping[str, Schema] = {
    "rfc2307bis": Schema(
        "rfc2307bis",
        "entryUUID",
        _PEOPLE,
        "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=groupOfMembers))",
        ("member", "uniqueMember"),
        _LOCKS,
    ),
    "rfc2307": Schema(
        "rfc2307", "entryUUID", _PEOPLE, "(objectClass=posixGroup)", ("memberUid",), _LOCKS, ("gidNumber",)
    ),
    "ad": Schema(
        "ad",
        "objectGUID",
        "(&(objectCategory=person)(objectClass=user))",
        "(objectClass=group)",
        ("member",),
        ("userAccountControl",),
        ("objectSid", "primaryGroupID"),
    ),
}

with warnings.catch_warnings():
    # The option's name is the contract's; it hides a method that pydantic deprecates, and that nobody calls.
    warnings.filterwarnings("ignore", 'Field name "schema"')

    class LdapOptions(Options):
        """Options of the `ldap` connector."""

        url: str = Field(description="ldaps://HOST[:PORT], or ldap:// with start_tls. Bare ldap:// only to loopback.")
        base: str = Field(min_length=1, description="DN that users and groups are read below: dc=corp,dc=example")
        schema: Literal["rfc2307bis", "rfc2307", "ad"] = Field(  # type: ignore[assignment]
            description="How members are named: by DN, by uid, or as Active Directory does."
        )
        bind_dn: str | None = Field(None, min_length=1, description="Who to bind as; default: anonymous.")
        password: Secret | None = Field(None, description="Password of bind_dn.")
        start_tls: bool = Field(False, description="Turn TLS on after connecting to ldap://.")
        user_filter: str | None = Field(None, description="LDAP filter of users; default: by the schema.")
        group_filter: str | None = Field(None, description="LDAP filter of groups; default: by the schema.")
        ca_file: Path | None = Field(None, description="PEM bundle to trust instead of the system's.")
        timeout: Duration = Field(30.0, description="Limit for connecting, and for each wait for the server.")

        @model_validator(mode="after")
        def _sound(self) -> LdapOptions:
            if (self.bind_dn is None) != (self.password is None):  # RFC 4513 section 5.1.2
                raise PydanticCustomError("ldap_bind", "bind_dn and password belong together: give both, or neither")
            _require_tls(self.url, start_tls=self.start_tls)
            try:
                normal_dn(self.base)
            except ValueError:
                raise PydanticCustomError("base", "base is no DN: write it like dc=corp,dc=example") from None
            for name in ("user_filter", "group_filter"):
                value = getattr(self, name)
                if value is not None and not (value.startswith("(") and value.endswith(")")):
                    raise PydanticCustomError("filter", "{name} must be in parentheses", {"name": name})
            return self


def _require_tls(url: str, *, start_tls: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if (
        parts.scheme not in {"ldap", "ldaps"}
        or not host
        or parts.path not in {"", "/"}
        or parts.query
        or parts.username
    ):
        raise PydanticCustomError("url", "url must be like ldaps://HOST or ldap://HOST:PORT, and no more")
    if parts.scheme == "ldaps":
        if start_tls:
            raise PydanticCustomError("start_tls", "start_tls is for ldap://; ldaps:// has TLS from the start")
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not start_tls:
        raise PydanticCustomError(
            "plain_ldap", "url must be ldaps://, or set start_tls: plain ldap is accepted to loopback only"
        )
