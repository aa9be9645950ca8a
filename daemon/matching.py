"""When a tag value and a principal's attribute mean the same. Pure."""

from __future__ import annotations

import re
import unicodedata

_SEPARATORS = re.compile(r"[\s\-_./:@+]+")


def canonical(text: str) -> str:
    """The form in which values are compared when none is equal exactly.

    Unicode NFKC and case folding (as NFKC_Casefold, Unicode 3.13 R5, but for default-ignorable characters, which
    stay and so never match), then every run of white space and `-_./:@+` as one `-`: a GCP label cannot hold
    `Team Payments` or `a@b.c`.
    """
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()
    else:
        text = text.lower()
    return _SEPARATORS.sub("-", text)


def resource_key(resource_id: str) -> str:
    """The form in which resource ids are compared: as they are, but Azure's without case.

    Azure Resource Manager ids are case-insensitive and start with `/subscriptions/`, or `/providers/` for
    management groups and tenant-level types:
    https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
    """
    if resource_id[:1] == "/" and resource_id[:15].lower().startswith(("/subscriptions/", "/providers/")):
        return resource_id.lower()
    return resource_id
