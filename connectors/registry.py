"""Which kinds of connector there are, and where. Explicit, and lazy: naming a kind imports nothing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from connectors.contract import Connector
from connectors.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind of connector.

    `prefixes`: what every id it returns starts with (ASCII case ignored), where that is so; it tells which
    integrations could hold an id that nobody has. `sdk`: top-level modules of its extra.
    """

    target: str
    prefixes: tuple[str, ...] = ()
    sdk: tuple[str, ...] = ()


INTEGRATIONS: Mapping[str, Entry] = {
    "aws": Entry("connectors.aws:Aws", ("arn:",), ("boto3", "botocore")),
    "azure": Entry("connectors.azure:Azure", ("/subscriptions/", "/providers/microsoft.management/"), ("azure",)),
    "gcp": Entry("connectors.gcp:Gcp", ("//",), ("googleapiclient", "google")),
    "kubernetes": Entry("connectors.kubernetes:Kubernetes", ("k8s://",), ("kubernetes", "urllib3", "yaml")),
    "terraform": Entry("connectors.terraform:Terraform"),
    "file": Entry("connectors.file:ResourceFile"),
}

DIRECTORIES: Mapping[str, Entry] = {
    "okta": Entry("connectors.okta:Okta", sdk=("okta", "aiohttp")),
    "entra": Entry(
        "connectors.entra:Entra",
        sdk=("msgraph_core", "kiota_abstractions", "kiota_http", "kiota_authentication_azure", "azure", "httpx"),
    ),
    "ldap": Entry("connectors.ldap:Ldap", sdk=("ldap3",)),
    "pagerduty": Entry("connectors.pagerduty:PagerDuty", sdk=("pagerduty", "httpx2")),
    "opsgenie": Entry("connectors.opsgenie:Opsgenie", sdk=("httpx2",)),
    "splunk_oncall": Entry("connectors.splunk_oncall:SplunkOnCall", sdk=("httpx2",)),
    "zenduty": Entry("connectors.zenduty:Zenduty", sdk=("httpx2",)),
    "google_workspace": Entry("connectors.google_workspace:GoogleWorkspace", sdk=("googleapiclient", "google")),
    "scim": Entry("connectors.scim:Scim", sdk=("httpx2",)),
    "jumpcloud": Entry("connectors.jumpcloud:JumpCloud", sdk=("httpx2",)),
    "onelogin": Entry("connectors.onelogin:OneLogin", sdk=("httpx2",)),
    "pingone": Entry("connectors.pingone:PingOne", sdk=("httpx2",)),
    "hibob": Entry("connectors.hibob:HiBob", sdk=("httpx2",)),
    "file": Entry("connectors.file:PrincipalFile"),
}


def load(entry: Entry) -> type[Connector]:
    """Import the class that `entry` names. Imports no SDK: connectors import theirs when they run."""
    module, _, name = entry.target.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Connector)):
        msg = f"{entry.target} is no Connector"
        raise TypeError(msg)
    return found


@contextmanager
def sdk_needed(kind: str, entry: Entry) -> Iterator[None]:
    """Turn the missing SDK of `kind` into `MissingExtra`; any other missing module stays what it is."""
    try:
        yield
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in entry.sdk:
            raise MissingExtra(kind, top) from error
        raise
