"""For connectors of Google's APIs: credentials, a transport for googleapiclient, and its failures as ours."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from connectors.answers import one_line, parse_json
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.google_wire import Wire, place_of
from connectors.http import Answer, retry_after
from connectors.options import HttpOptions, Secret
from connectors.retry import retrying

_TOKEN = re.compile(r"[!-~]+")
_RATE = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
}
_DISABLED = {"SERVICE_DISABLED", "accessNotConfigured"}
_PLACE = "access token"


class GoogleOptions(HttpOptions):
    """What every connector of a Google API takes."""

    credentials_file: Path | None = Field(
        None,
        description="JSON file: a service account's key, or a configuration of workload identity federation. Default: "
        "application default credentials.",
    )
    access_token: Secret | None = Field(
        None, description="OAuth 2.0 access token, in place of credentials; it is not renewed."
    )

    @model_validator(mode="after")
    def _one_login(self) -> GoogleOptions:
        if self.credentials_file is not None and self.access_token is not None:
            raise PydanticCustomError("one_login", "give credentials_file or access_token, not both")
        return self


class Http:
    """What googleapiclient sends through. Adds the token; renews it once where it is refused. For one thread."""

    def __init__(self, options: GoogleOptions, credentials: Any) -> None:
        self.credentials = credentials
        self._wire = _Tokens(options)
        self._renewable = options.access_token is None or hasattr(credentials, "service_account_email")

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> tuple[Any, bytes]:
        """The answer's head (an `httplib2.Response`) and body, whatever its status."""
        status = 0
        for _attempt in range(2):
            ours = dict(headers or {})
            if status == 401:
                self.credentials.refresh(self._wire)
            self.credentials.before_request(self._wire, method, uri, ours)
            status, answered, content = self._wire.send(method, uri, body, ours)
            if status != 401 or not self._renewable:
                break
        from httplib2 import Response

        return Response({**answered, "status": str(status)}), content

    def close(self) -> None:
        """Let go of connections."""
        self._wire.close()


class _Tokens(Wire):
    """google.auth's transport: it calls this for tokens."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> _Told:
        """An answer of a token service. What is worth another try is raised: google.auth would try again by itself."""
        status, answered, content = self.send(method, url, body, headers)
        place = f"{_PLACE}: {place_of(url)}"
        if status == 200 and method == "POST" and not isinstance(parse_json(place, content), dict):
            raise ServerFault(f"{place}: the answer is no object")
        if status in {408, 429} or status >= 500:
            raise _transient(place, status, _sentence(content), retry_after(answered))
        return _Told(status, answered, content)


class _Told:
    """What google.auth reads of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data


def credentials(
    options: GoogleOptions, scopes: Sequence[str], *, subject: str | None = None, impersonate: str | None = None
) -> Any:
    """What google.auth logs in with; `scopes` are OAuth scopes.

    A service account's file acts as the user `subject` by domain-wide delegation. `impersonate` is the e-mail of a
    service account whose tokens are asked for with the credentials. Nothing is sent yet, but for what finding the
    default credentials needs.
    """
    with _token_refused():
        found = _own(options, scopes, None if impersonate else subject)
        if impersonate:
            from google.auth import impersonated_credentials as impersonated

            other: Any = impersonated.Credentials
            found = other(
                source_credentials=found,
                target_principal=impersonate,
                target_scopes=list(scopes),
                subject=subject,
            )
    return found


def _own(options: GoogleOptions, scopes: Sequence[str], subject: str | None) -> Any:
    if options.access_token is not None:
        from google.oauth2 import credentials as oauth

        login: Any = oauth.Credentials
        token = options.access_token.value
        if not _TOKEN.fullmatch(token):  # the HTTP client's error would show it
            raise Misconfigured(
                f"access_token: {options.access_token.place} holds what cannot be sent, such as a line break",
                remedy="it must hold the token and nothing else",
            )
        return _for_user(login(token), subject)
    if options.credentials_file is not None:
        return _for_user(_from_file(options, options.credentials_file, scopes), subject)
    import google.auth

    found, _ = google.auth.default(scopes=list(scopes))
    return _for_user(found, subject)


def _for_user(found: Any, subject: str | None) -> Any:
    if subject is None:
        return found
    if not hasattr(found, "with_subject"):
        raise Misconfigured(
            f"subject: {type(found).__module__} cannot act as {one_line(subject)}: only a service account's key can",
            remedy="name its file in `credentials_file`",
        )
    return found.with_subject(subject)


def _from_file(options: GoogleOptions, path: Path, scopes: Sequence[str]) -> Any:
    place = f"credentials_file: {path}"
    try:
        info = json.loads(path.read_bytes())
    except OSError as error:
        raise Misconfigured(f"{place}: {error.strerror or error}", remedy="name a readable file") from error
    except ValueError:
        info = None
    if not isinstance(info, dict) or not isinstance(info.get("type"), str):
        raise Misconfigured(
            f'{place}: is no JSON with a "type"', remedy="name a service account's key, as Google Cloud gives it"
        )
    import google.auth
    from google.auth import exceptions
    from google.oauth2 import service_account

    key: Any = service_account.Credentials
    load: Any = google.auth.load_credentials_from_dict
    try:
        if info["type"] == "service_account":
            return key.from_service_account_info(info, scopes=list(scopes))
        with warnings.catch_warnings():  # it warns of files from strangers; this one is the operator's
            warnings.simplefilter("ignore", DeprecationWarning)
            return load(info, scopes=list(scopes), request=_Tokens(options))[0]
    except exceptions.GoogleAuthError as error:
        raise Misconfigured(f"{place}: {_said(error)}") from None
    except (ValueError, TypeError, KeyError, AttributeError):  # the text could hold the key
        raise Misconfigured(
            f"{place}: holds no usable private key, or lacks something", remedy="make a new key"
        ) from None


def http(options: GoogleOptions, credentials: Any) -> Http:
    """The transport that `googleapiclient.discovery.build` takes as `http`. One for each thread; close it."""
    return Http(options, credentials)


def service(options: GoogleOptions, name: str, version: str, transport: Http) -> Any:
    """An API by the description that the client ships, at `endpoint` if that is set. Build it once."""
    from googleapiclient.discovery import build

    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)  # its warnings quote whole answers
    places = {"api_endpoint": options.endpoint.rstrip("/") + "/"} if options.endpoint else None
    return build(name, version, http=transport, static_discovery=True, cache_discovery=False, client_options=places)


def execute(request: Any, place: str, permission: str = "", *, remedy: str = "") -> Answer:
    """The document and the headers that a googleapiclient `HttpRequest` is answered with.

    Tried again where that may help. `place` begins each error; `permission`, and the `remedy` that grants it, are
    told where it is missing.
    """
    found = retrying(lambda: _once(request, place, permission, remedy))
    assert found is not None
    return found


def find(request: Any, place: str, permission: str = "", *, remedy: str = "") -> Answer | None:
    """The same; None where the API itself says that there is no such thing, which `execute` takes for an error."""
    return retrying(lambda: _once(request, place, permission, remedy, may_be_gone=True))


def _once(request: Any, place: str, permission: str, remedy: str, *, may_be_gone: bool = False) -> Answer | None:
    from googleapiclient.errors import HttpError

    request.postproc = lambda head, content: Answer(parse_json(place, content), head)
    with _token_refused():
        try:
            answer: Answer = request.execute(num_retries=0)
        except HttpError as error:
            if may_be_gone and error.resp.status == 404 and _fault(error.content).get("code") == 404:
                return None
            raise _meaning(place, error.resp.status, error.resp, error.content, permission, remedy) from None
    return answer


# --- what failures mean ---------------------------------------------------------------------------------------------


def _meaning(
    place: str, status: int, headers: Mapping[str, str], content: bytes | str, permission: str, remedy: str
) -> ConnectorError:
    """What an error of a Google API means.

    Its form: Google's AIP-193, and the older one of `errors` with a `reason`, which Workspace's APIs have.
    """
    fault = _fault(content)
    details = [d for d in fault.get("details") or () if isinstance(d, dict)]
    old = [e for e in fault.get("errors") or () if isinstance(e, dict)]
    reasons = {str(x) for x in (fault.get("status"), *(d.get("reason") for d in (*details, *old))) if x}
    said = f" ({sentence})" if (sentence := _sentence(content)) else ""
    if status in {403, 429} and reasons & _RATE:
        return Throttled(f"{place}: too many requests: {status}{said}", retry_after=_wait(headers, details))
    if status == 401:
        return Unauthenticated(
            f"{place}: the credentials were refused: 401{said}", remedy="they are wrong, expired or revoked; renew them"
        )
    if status == 403 and reasons & _DISABLED:
        return Misconfigured(f"{place}: the API is not enabled: 403{said}", remedy=_how_to_enable(details))
    if status == 403 and "ACCESS_TOKEN_SCOPE_INSUFFICIENT" in reasons:
        return Forbidden(
            f"{place}: the access token lacks an OAuth scope: 403{said}",
            permission=permission,
            remedy="make the token (or, of a virtual machine, its access scopes) with the scope that docs/ names",
        )
    if status == 403:
        needed = f"; it needs {permission}" if permission else ""
        return Forbidden(
            f"{place}: the credentials may not: 403{said}{needed}",
            permission=permission,
            remedy=remedy or (f"grant {permission}" if permission else ""),
        )
    if status in {408, 429} or status >= 500:
        return _transient(place, status, sentence, _wait(headers, details))
    if 300 <= status < 400:
        return BadData(f"{place}: a redirect is not followed: {status}", remedy="set `endpoint` to where the API is")
    if status == 404:
        return Misconfigured(
            f"{place}: no such thing: 404{said}", remedy="check `endpoint`, and names and ids in the options"
        )
    return BadData(f"{place}: {status}{said}")


def _transient(place: str, status: int, sentence: str, wait: float | None) -> ConnectorError:
    said = f" ({sentence})" if sentence else ""
    if status == 429 or wait is not None:
        return Throttled(f"{place}: asked to wait: {status}{said}", retry_after=wait)
    return ServerFault(f"{place}: the server failed: {status}{said}")


def _fault(content: bytes | str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    fault = document.get("error") if isinstance(document, dict) else None
    return fault if isinstance(fault, dict) else {"message": fault}


def _sentence(content: bytes | str) -> str:
    said = _fault(content).get("message")
    return one_line(said) if isinstance(said, str) else ""


def _wait(headers: Mapping[str, str], details: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds that an answer asks for: by the header, or by `google.rpc.RetryInfo`."""
    if (wait := retry_after(headers)) is not None:
        return wait
    for detail in details:
        told = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", str(detail.get("retryDelay")))
        if told:
            return float(told[1])
    return None


def _how_to_enable(details: Sequence[Mapping[str, Any]]) -> str:
    for detail in details:
        told = detail.get("metadata")
        named, consumer = (str(told.get(k)) for k in ("service", "consumer")) if isinstance(told, dict) else ("", "")
        project = re.fullmatch(r"projects/([a-z0-9:.-]+)", consumer)
        if project and re.fullmatch(r"[a-z0-9.-]+", named):
            return f"gcloud services enable {named} --project={project[1]}"
    return "enable the API that the message names, in the project of the credentials: gcloud services enable NAME"


@contextmanager
def _token_refused() -> Iterator[None]:
    """Turn what google.auth raises into our errors. Of its texts only the first part is told: others hold answers."""
    from google.auth import exceptions

    try:
        yield
    except exceptions.DefaultCredentialsError as error:
        raise Misconfigured(
            f"application default credentials: {_said(error)}",
            remedy="set `credentials_file`, or GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default "
            "login as the user that ownerd runs as",
        ) from None
    except exceptions.RefreshError as error:
        raise _refused(error) from None
    except exceptions.TransportError as error:
        raise Unreachable(f"{_PLACE}: {_said(error)}") from None
    except exceptions.GoogleAuthError as error:
        raise Unauthenticated(f"{_PLACE}: {_said(error)}") from None


def _refused(error: Any) -> ConnectorError:
    """What a refusal of a token means: OAuth's own (RFC 6749, 5.2), or IAM's where one acts as another."""
    told, body = _said(error), error.args[1] if len(error.args) > 1 else None
    if isinstance(body, str | bytes) and isinstance(code := _fault(body).get("code"), int):
        needed = "iam.serviceAccounts.getAccessToken"
        role = "grant roles/iam.serviceAccountTokenCreator on the service account that `impersonate` names"
        return _meaning(f"{_PLACE}: impersonate", code, {}, body, needed, role)
    if error.retryable:
        return ServerFault(f"{_PLACE}: {told}")
    if told.startswith(("unauthorized_client", "access_denied")):
        return Forbidden(
            f"{_PLACE}: {told}",
            permission="domain-wide delegation",
            remedy="in the Admin console, under API controls, delegate the OAuth scopes that docs/ names to the client "
            "id of the service account",
        )
    return Unauthenticated(
        f"{_PLACE}: {told}",
        remedy="the key was deleted or disabled, or this host's clock is wrong; else make a new key",
    )


def _said(error: BaseException) -> str:
    return one_line(str(error.args[0])) if error.args else type(error).__name__
