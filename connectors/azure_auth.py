"""Credentials for Microsoft's clouds, through azure-identity: for whoever reads Azure or Entra ID.

Sources: "Azure Identity client library for Python"; Microsoft's "Microsoft Entra authentication and authorization error
codes" (AADSTS…). The authority is Microsoft's public cloud, or what AZURE_AUTHORITY_HOST names.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from connectors import retry
from connectors.answers import one_line
from connectors.errors import ConnectorError, Misconfigured, ServerFault, Throttled, Unauthenticated, Unreachable
from connectors.http import retry_after
from connectors.options import HttpOptions, Secret

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken


class AzureCredentials(HttpOptions):
    """Who ownerd is to Microsoft: an app registration, a ready token, or what the environment has."""

    tenant_id: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]+$", description="The directory's id or domain.")
    client_id: str | None = Field(None, description="Application id of an app registration.")
    client_secret: Secret | None = Field(None, description="The app's client secret.")
    certificate: Secret | None = Field(None, description="In its place: PEM with the app's certificate and its key.")
    access_token: Secret | None = Field(None, description="A token that something else renews.")

    @model_validator(mode="after")
    def _one_login(self) -> AzureCredentials:
        app = self.client_secret or self.certificate
        if self.client_secret and self.certificate:
            raise PydanticCustomError("one_login", "give client_secret or certificate, not both")
        if app and not (self.tenant_id and self.client_id):
            raise PydanticCustomError("one_login", "an app's credentials need tenant_id and client_id")
        if self.access_token and (app or self.client_id):
            raise PydanticCustomError("one_login", "give access_token, or an app's credentials, not both")
        return self


def credential(options: AzureCredentials) -> Credential:
    """What the SDKs ask for tokens. Raises `ConnectorError` for all that is known to go wrong."""
    return Credential(options)


def transport(options: HttpOptions) -> Any:
    """An azure-core transport that keeps to the HTTP options. Misconfigured if `ca_file` cannot be read."""
    from azure.core.pipeline.transport import RequestsTransport

    if options.ca_file is not None:
        try:
            ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise Misconfigured(
                f"ca_file: {options.ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
            ) from error
    made = RequestsTransport(
        connection_verify=str(options.ca_file) if options.ca_file else True,
        connection_timeout=options.timeout,
        read_timeout=options.timeout,
    )
    made.open()
    made.session.auth = _as_we_say  # else ~/.netrc would put its password over our token
    return made


def _as_we_say(request: Any) -> Any:
    """An `auth` that does nothing."""
    return request


def proxies(options: HttpOptions) -> dict[str, str] | None:
    """As azure-core takes them; None: what the environment says.

    For https only: plain http goes to this host or its metadata service, which no proxy reaches, with tokens that none
    should see.
    """
    if options.proxy is None:
        return None
    try:
        parts = urlsplit(options.proxy)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that is no number
        usable = False
    if not usable:
        raise Misconfigured("proxy: that is no URL of an HTTP proxy", remedy="http://proxy.example:3128")
    return {"https": options.proxy}


class Credential:
    """A `TokenCredential` whose failures are ours, and which is asked again where that may help."""

    def __init__(self, options: AzureCredentials) -> None:
        self._options = options
        self._inner: Any = None
        self._answered: Any = None
        self._failed: list[Exception] = []

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        """A token for `scopes`; it is renewed as it nears its end."""
        from azure.core.credentials import AccessToken

        if self._options.access_token is not None:
            # When it ends is not known: whoever refuses it says so.
            return AccessToken(self._options.access_token.value, int(time.time()) + 3600)
        token: AccessToken = retry.retrying(lambda: self._once(scopes, more))
        return token

    def _once(self, scopes: tuple[str, ...], more: dict[str, Any]) -> Any:
        place = "Microsoft Entra sign-in"
        self._answered = None
        if self._inner is None:
            self._inner = self._make()
        try:
            with failures(place, self._options):
                return self._ask(scopes, more)
        except Unauthenticated:
            # The SDK takes every answer that is no token for a refusal.
            status, headers = getattr(self._answered, "status_code", 0), getattr(self._answered, "headers", {})
            if status == 429:
                self.close()  # it would keep this answer for a minute
                raise Throttled(f"{place}: too many requests: 429", retry_after=retry_after(headers)) from None
            if status >= 500 or status == 410:  # the latter: a metadata service that is being renewed
                self.close()
                raise ServerFault(f"{place}: the server failed: {status}") from None
            if 200 <= status < 400:
                self.close()
                raise ServerFault(
                    f"{place}: the answer is no token: {status}",
                    remedy="something else answers there: check `proxy` and AZURE_AUTHORITY_HOST",
                ) from None
            raise

    def _ask(self, scopes: tuple[str, ...], more: dict[str, Any]) -> Any:
        from azure.core.exceptions import ClientAuthenticationError

        self._failed.clear()
        try:
            return self._inner.get_token(*scopes, **more)
        except ClientAuthenticationError:
            if not self._failed:
                raise
        raise self._failed[-1]

    def _heard(self, answered: Any, **_: Any) -> None:
        self._answered = answered

    def renew(self) -> bool:
        """Forget the token that was refused, so that `get_token` takes a new one. False: there is no other."""
        if self._options.access_token is not None:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Let go of connections, and of the token."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> Any:
        from azure.identity import CertificateCredential, ClientSecretCredential, DefaultAzureCredential

        logging.getLogger("azure").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
        options = self._options
        authority = os.environ.get("AZURE_AUTHORITY_HOST")
        if authority and "://" in authority and not authority.lower().startswith("https://"):
            raise Misconfigured(
                "AZURE_AUTHORITY_HOST: not an https:// URL", remedy="leave it unset for Microsoft's public cloud"
            )
        sent = transport(options)
        sent.session.hooks["response"] = [self._heard]
        more: dict[str, Any] = {
            "transport": sent,
            "retry_total": 0,  # `retrying` does it, and says why it gave up
            "disable_instance_discovery": bool(authority),
        }
        if (through := proxies(options)) is not None:
            more["proxies"] = through
        tenant, app = options.tenant_id or "", options.client_id or ""
        if options.client_secret is not None:
            return ClientSecretCredential(tenant, app, options.client_secret.value, **more)
        if options.certificate is not None:
            try:
                return CertificateCredential(tenant, app, certificate_data=options.certificate.value.encode(), **more)
            except ValueError:  # not chained: it may quote what it could not read
                raise Misconfigured(
                    "certificate: not a PEM with a certificate and its private key",
                    remedy="put both into one PEM: cat cert.pem key.pem",
                ) from None
        if app:
            more["managed_identity_client_id"] = app  # and of a workload identity
        if tenant:
            more["workload_identity_tenant_id"] = tenant
        chain = DefaultAzureCredential(
            exclude_interactive_browser_credential=True, process_timeout=int(options.timeout) or 1, **more
        )
        chain.credentials = tuple(_Link(one, tenant or None, self._failed) for one in chain.credentials)
        return chain


class _Link:
    """One of the default chain. It keeps why it failed, of which the chain would tell but a text."""

    def __init__(self, inner: Any, tenant: str | None, failed: list[Exception]) -> None:
        self._inner = inner
        self._tenant = tenant
        self._failed = failed

    def get_token(self, *scopes: str, **more: Any) -> Any:
        from azure.identity import CredentialUnavailableError

        try:
            return self._inner.get_token(*scopes, **{**more, "tenant_id": more.get("tenant_id") or self._tenant})
        except CredentialUnavailableError:
            raise  # it has nothing to sign in with: the next one's turn
        except Exception as error:
            self._failed.append(error)
            raise

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self._inner.__exit__(*what)


@contextmanager
def failures(place: str, options: HttpOptions) -> Iterator[None]:
    """Turn what azure-core and azure-identity raise into our errors; `place` is said first in each."""
    import azure.core.exceptions as sdk

    try:
        yield
    except sdk.ClientAuthenticationError as error:
        # The sign-in wraps whatever kept it from an answer.
        if isinstance(error.__cause__, sdk.ServiceRequestError | sdk.ServiceResponseError):
            with failures(place, options):
                raise error.__cause__ from None
        raise _refused(place, error) from None  # not chained: its text may quote the request
    except sdk.ServiceResponseTimeoutError as error:
        raise Unreachable(f"{place}: no answer in {options.timeout:g} s") from error
    except (sdk.IncompleteReadError, sdk.DecodeError) as error:
        raise ServerFault(f"{place}: the answer is cut short, or is no JSON") from error
    except sdk.ServiceRequestError as error:
        raise _no_connection(place, error) from error
    except sdk.ServiceResponseError as error:
        raise Unreachable(f"{place}: the connection broke ({type(error).__name__})") from error


def _no_connection(place: str, error: Exception) -> Unreachable:
    text = one_line(str(error), 200)
    if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
        return Unreachable(
            f"{place}: TLS failed: {text}",
            remedy="if a private authority signs for this host, name its PEM bundle in `ca_file`",
        )
    return Unreachable(
        f"{place}: cannot connect: {text}", remedy="check `endpoint`, AZURE_AUTHORITY_HOST, the network, and `proxy`"
    )


_REMEDIES = {
    "AADSTS7000215": "client_secret is wrong: it is the secret's value, not its id",
    "AADSTS7000222": "client_secret has expired: make a new one for the app registration",
    "AADSTS700016": "client_id names no app of this tenant",
    "AADSTS90002": "tenant_id names no tenant",
    "AADSTS700027": "certificate is not, or no longer, registered with the app",
}


def _refused(place: str, error: Any) -> ConnectorError:
    from azure.identity import CredentialUnavailableError

    chained = "failed to retrieve a token from the included credentials" in str(error)
    if isinstance(error, CredentialUnavailableError) or chained:
        return Unauthenticated(
            f"{place}: no usable credentials were found",
            remedy="give tenant_id, client_id and client_secret or certificate; or run where there is a managed "
            "identity, a workload identity, or a signed-in Azure CLI",
        )
    code = re.search(r"AADSTS\d+", str(error))
    told = f": {code[0]}" if code else ""
    remedy = _REMEDIES.get(code[0] if code else "", "renew or correct the credentials, and check this host's clock")
    return Unauthenticated(f"{place}: the credentials were refused{told}", remedy=remedy)
