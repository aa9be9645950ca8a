"""What ldap3 raises, and the result codes that it does not raise, as our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.answers import one_line
from connectors.errors import BadData, Forbidden, Incomplete, Misconfigured, ServerFault, Unauthenticated, Unreachable

LIMITS = {3: "time", 4: "size", 11: "administrative"}

AD_BIND = {
    "525": "no such user",
    "52e": "wrong user or password",
    "530": "not permitted to log on at this time",
    "531": "not permitted to log on from this host",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed before the first log-on",
    "775": "the account is locked out",
}
"""The `data` that Active Directory tells of a failed bind: Windows system error codes, in hexadecimal.

https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes
"""


def judge(place: str, result: Mapping[str, Any], what: str, *, bind: bool = False) -> None:
    """Raise what a result code other than success means: RFC 4511 section 4.1.9 and appendix A.2."""
    code = result["result"]
    if code == 0:
        return
    said = one_line(str(result.get("message") or ""))
    told = f"{place}: {what}: {result.get('description')} ({code}){': ' if said else ''}{said}"
    wants_bind = "give bind_dn and password: the server answers nobody unknown"
    wants_tls = "use ldaps:// or start_tls: the server wants a protected connection"
    match code:
        case 3 | 4 | 11:
            limit = LIMITS[code]
            raise Incomplete(
                f"{told}: the server's {limit} limit ended the list",
                remedy=f"raise the {limit} limit for bind_dn (slapd: olcLimits, size.prtotal=unlimited)",
            )
        case 12:
            raise Incomplete(told, remedy="the server must support simple paged results (RFC 2696)")
        case 9 | 10:
            raise Incomplete(told, remedy="another server holds that base: check url and base")
        case 49:
            data = re.search(r"\bdata ([0-9a-f]+)", said, re.IGNORECASE)
            why = AD_BIND.get(data[1].lower(), "") if data else ""
            raise Unauthenticated(f"{told}{': ' if why else ''}{why}", remedy="check bind_dn and password")
        case 13:
            raise Unauthenticated(told, remedy=wants_tls)
        case 8:
            raise Unauthenticated(told, remedy=wants_tls if bind else wants_bind)
        case 48:
            raise Unauthenticated(told, remedy=wants_bind)
        case 53 if bind:  # 389 DS: the account is inactivated
            raise Unauthenticated(told, remedy="check bind_dn: the server does not let it bind")
        case 1 | 53 if re.search(r"successful bind must be|authentication required", said):  # AD; slapd's `require`
            raise Unauthenticated(told, remedy=wants_bind)
        case 50:
            raise Forbidden(told, permission="read", remedy="let bind_dn read and search all below base")
        case 32 | 34:
            raise Misconfigured(told, remedy="check base (or bind_dn): no such entry, or bind_dn may not see it")
        case 1 | 2 | 51 | 52 | 53 | 80:
            raise ServerFault(told)
    raise BadData(told)


@contextmanager
def failures(place: str) -> Iterator[None]:
    """Turn what ldap3 raises into our errors; `place` is said first in each."""
    from ldap3.core import exceptions

    try:
        yield
    except exceptions.LDAPInvalidFilterError as error:
        raise Misconfigured(
            f"{place}: a filter cannot be understood: {one_line(str(error))}",
            remedy="check user_filter and group_filter (RFC 4515)",
        ) from error
    except exceptions.LDAPSASLPrepError as error:  # RFC 4513 section 5.1.3 has a password prepared by RFC 4013
        raise Misconfigured(
            f"{place}: the password holds a character that none may hold, such as a control character",
            remedy="look for what was pasted with it",
        ) from error
    except (exceptions.LDAPSessionTerminatedByServerError, exceptions.LDAPUnknownResponseError) as error:
        raise ServerFault(f"{place}: the server ended the connection before its answer was whole") from error
    except (exceptions.LDAPCommunicationError, exceptions.LDAPStartTLSError, OSError) as error:
        told = one_line(str(error)).replace("invalid server address", "the host's name leads to no address")
        tls = ("ssl" in told.lower() or "certificate" in told.lower()) and "timed out" not in told
        remedy = (
            "if a private authority signs for this host, name its PEM bundle in `ca_file`; url must hold the name "
            "that the certificate is for"
            if tls
            else "check url, the network, and whether the server speaks LDAP, or TLS, on that port"
        )
        raise Unreachable(f"{place}: {told}", remedy=remedy) from error
    except (LookupError, ValueError, TypeError) as error:  # ldap3's decoder, over what is no LDAP message
        raise ServerFault(f"{place}: the answer is no LDAP message ({type(error).__name__})") from error
