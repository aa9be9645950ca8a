"""The failures of AWS and of its SDK, as ours.

Codes: "Common errors" of the AWS service references, the EC2 "Error codes" page, and botocore's own list of codes that
mean throttling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from connectors.errors import (
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)

_BAD_CREDENTIALS = """
    AuthFailure ExpiredToken ExpiredTokenException IncompleteSignature IncompleteSignatureException InvalidAccessKeyId
    InvalidClientTokenId InvalidSignatureException InvalidToken MissingAuthenticationToken
    MissingAuthenticationTokenException RequestExpired RequestTimeTooSkewed SignatureDoesNotMatch
    UnrecognizedClientException
"""
_DENIED = "AccessDenied AccessDeniedException NotAuthorized OptInRequired UnauthorizedOperation"
_THROTTLED = """
    EC2ThrottledException LimitExceededException PriorRequestNotComplete RequestLimitExceeded RequestThrottled
    RequestThrottledException SlowDown Throttling ThrottlingException ThrottledException TooManyRequestsException
"""
_BUSY = "InternalError InternalFailure InternalServiceException RequestTimeout ServiceUnavailable Unavailable"
_WRONG_PLACE = "AWSOrganizationsNotInUseException RegionDisabledException"

_CODES: dict[str, type[ConnectorError]] = {
    code: kind
    for codes, kind in (
        (_BAD_CREDENTIALS, Unauthenticated),
        (_DENIED, Forbidden),
        (_THROTTLED, Throttled),
        (_BUSY, ServerFault),
        ("PaginationTokenExpiredException", Incomplete),
        (_WRONG_PLACE, Misconfigured),
    )
    for code in codes.split()
}
_MANAGEMENT = "in the management or a delegated administrator account, or list the `accounts`"
_REMEDIES = {
    "sts:AssumeRole": "on this role, and name the caller in the role's trust policy",
    "tag:GetResources": "in this account; if a service control policy closes the region, leave it out of `regions`",
    "ec2:DescribeRegions": "or name the `regions`",
    "organizations:ListAccounts": _MANAGEMENT,
    "organizations:ListRoots": _MANAGEMENT,
    "organizations:ListOrganizationalUnitsForParent": _MANAGEMENT,
    "organizations:ListAccountsForParent": _MANAGEMENT,
    "organizations:ListTagsForResource": _MANAGEMENT,
}


@contextmanager
def our_errors(place: str, permission: str = "") -> Iterator[None]:
    """Raise what botocore raises inside as a `ConnectorError`; what is not known here escapes as it is.

    `permission` is what the call needs (`tag:GetResources`). No message holds a secret.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    what = f"{place}: {permission}" if permission else place
    try:
        yield
    except (ResponseParserError, UnicodeDecodeError):  # not chained: it quotes the body, which may hold credentials
        raise ServerFault(f"{what}: the answer is cut short, or none that AWS would give") from None
    except ClientError as error:
        if (ours := _refusal(error.response, what, permission)) is None:
            raise
        # AWS's text on a bad signature repeats the signed headers, the session token among them.
        raise ours from (None if isinstance(ours, Unauthenticated) else error)
    except BotoCoreError as error:
        if (ours := _failure(error, what)) is None:
            raise
        raise ours from error


def _failure(error: Exception, what: str) -> ConnectorError | None:
    import botocore.exceptions as sdk

    if isinstance(error, sdk.ConnectionClosedError | sdk.ResponseStreamingError | sdk.IncompleteReadError):
        return ServerFault(f"{what}: the answer is cut short")
    if isinstance(error, sdk.SSLError):
        return Unreachable(f"{what}: {error}", remedy="if a proxy opens TLS, name its certificate in `ca_file`")
    if isinstance(error, sdk.ConnectionError | sdk.HTTPClientError):
        return Unreachable(f"{what}: {error}", remedy="check the network, `endpoint` and `proxy`")
    if isinstance(
        error,
        sdk.ProfileNotFound
        | sdk.ConfigParseError
        | sdk.ConfigNotFound
        | sdk.InvalidRegionError
        | sdk.InvalidProxiesConfigError,
    ):
        return Misconfigured(
            f"{what}: {error}", remedy="correct `profile`, `regions`, `proxy` or the AWS configuration files"
        )
    if isinstance(
        error,
        sdk.NoCredentialsError
        | sdk.PartialCredentialsError
        | sdk.CredentialRetrievalError
        | sdk.TokenRetrievalError
        | sdk.LoginError
        | sdk.SSOError,
    ):
        return Unauthenticated(
            f"{what}: no usable AWS credentials ({type(error).__name__})",
            remedy="give the process that polls an instance role, a `profile`, or AWS_ACCESS_KEY_ID and its kin",
        )
    return None


def _refusal(response: dict[str, Any], what: str, permission: str) -> ConnectorError | None:
    code = str(response.get("Error", {}).get("Code", ""))
    said = f"{code}: {str(response.get('Error', {}).get('Message', ''))[:300]}"
    meta = response.get("ResponseMetadata", {})
    kind = _CODES.get(code) or _by_status(meta.get("HTTPStatusCode", 0))
    if kind is Unauthenticated:
        return Unauthenticated(
            f"{what}: AWS refuses the credentials: {code}",
            remedy="renew the credentials and check this host's clock; if other regions work, this one is not enabled "
            "for the account: leave it out of `regions`",
        )
    if kind is Forbidden:
        return Forbidden(
            f"{what}: {said}",
            permission=permission,
            remedy=f"allow {permission} {_REMEDIES.get(permission, '')}".strip(),
        )
    if kind is Throttled:
        after = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
        return Throttled(f"{what}: {said}", retry_after=float(after) if after.isdigit() else None)
    if kind is Incomplete:
        return Incomplete(f"{what}: AWS dropped the page token before the end of the list")
    if kind is Misconfigured:
        return Misconfigured(f"{what}: {said}", remedy="correct `accounts` or `regions`")
    if kind is None and code.isdecimal():  # botocore's stand-in for the code of an error that it cannot read
        return ServerFault(f"{what}: the answer is an error {code} that is cut short, or none that AWS would give")
    return ServerFault(f"{what}: {said}") if kind is ServerFault else None


def _by_status(status: int) -> type[ConnectorError] | None:
    if status >= 500:
        return ServerFault
    return {401: Unauthenticated, 403: Forbidden, 429: Throttled}.get(status)
