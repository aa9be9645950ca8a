"""AWS's SDK, for many accounts and regions at once.

One client a service and region serves all accounts: each call is signed as the account it is for, by the role there.
A client an account and region would cost a company of 400 accounts some two gigabytes.
"""

from __future__ import annotations

import difflib
import threading
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.arn import Arn
from connectors.botocore_errors import our_errors
from connectors.errors import BadData, ConnectorError, Misconfigured, ServerFault, Transient, Unreachable
from connectors.options import HttpOptions
from connectors.retry import retrying

_ROLE_MARGIN = timedelta(minutes=15)


class Sdk:
    """Calls AWS; may be used from several threads. `home` is the region to ask what is not of one region."""

    def __init__(
        self, options: HttpOptions, *, profile: str | None, role: str | None, home: str | None, at_once: int
    ) -> None:
        self._options = options
        self._profile = profile
        self._role_name = role
        self._home = home
        self._at_once = at_once
        self._session: Any = None
        self._assuming: Any = None
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._lock = threading.RLock()  # sessions are not safe to share while they make clients; clients are
        self._roles: dict[str, dict[str, Any] | ConnectorError] = {}
        self._role_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._signing = threading.local()
        self._me: Arn | None = None

    def close(self) -> None:
        """Close every client's connections."""
        for client in self._clients.values():
            client.close()

    @property
    def home(self) -> str:
        """It also tells the partition: China and GovCloud are others."""
        if self._home is None:
            self._home = self._sessions()[0].region_name or "us-east-1"
        return self._home

    def caller(self) -> Arn:
        """Who the credentials are."""
        with self._lock:
            if self._me is None:
                what = "sts:GetCallerIdentity"
                self._me = arn_of(part(self.call("sts", what, self.home), "Arn", what), what)
            return self._me

    def offers(self, service: str, region: str) -> bool:
        """Whether the SDK knows of `service` in `region`; a service that is not there looks like a dead network."""
        if self._options.endpoint:
            return True
        session = self._sessions()[0]
        return any(
            region in session.get_available_regions(service, partition)
            for partition in session.get_available_partitions()
        )

    def call(
        self,
        service: str,
        permission: str,
        region: str,
        *,
        account: str | None = None,
        place: str = "",
        absent: Collection[str] = (),
        **params: Any,
    ) -> dict[str, Any]:
        """The answer to one call, named as IAM names it; asked again where that may help, and is safe.

        With an `account`, as the role there, if one is configured. `absent`: error codes that mean that there is no
        such thing, which is an empty answer.

        Nobody promises that a page token serves twice. A page whose answer was lost ends the scope, and only one that
        was refused for its rate is asked for again: some servers answer a used token with what is left of the page.
        """
        from botocore import xform_name
        from botocore.exceptions import ClientError

        if account is not None and self._role_name is not None:
            self._signing.account = account
            self.credentials()  # here, and not first inside of what is tried again
        call = getattr(self._client(service, region, account), xform_name(permission.partition(":")[2]))
        paged = any(name.endswith("Token") for name in params)

        def once() -> dict[str, Any] | Transient:
            self._signing.account = account
            try:
                with our_errors(place or region, permission):
                    answer: dict[str, Any] = call(**params)
            except (ServerFault, Unreachable) as error:
                if paged:
                    return error
                raise
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in absent:
                    return {}
                raise
            return answer

        try:
            answer = retrying(once)
        except Unreachable as error:
            self._refuse_unknown(region, error)
            raise
        if isinstance(answer, Transient):
            raise answer
        return answer

    def refused(self, account: str) -> bool:
        """Whether the role in `account` could not be assumed in this run."""
        return isinstance(self._roles.get(account), ConnectorError)

    # --- sessions and clients ---------------------------------------------------------------------------------------

    def _sessions(self) -> tuple[Any, Any]:
        """The caller's own session, and one that signs as the account that the thread calls for."""
        with self._lock:
            if self._session is None:
                import boto3
                import botocore.session

                if self._options.ca_file is not None and not self._options.ca_file.is_file():
                    raise Misconfigured(f"ca_file: no such file: {self._options.ca_file}")
                with our_errors("AWS configuration"):
                    core = botocore.session.Session(profile=self._profile)
                    core.register_component("credential_provider", _Provider(self))
                    self._assuming = boto3.Session(botocore_session=core)
                    self._session = boto3.Session(profile_name=self._profile)
            return self._session, self._assuming

    def _client(self, service: str, region: str, account: str | None) -> Any:
        own, assuming = self._sessions()
        by_role = account is not None and self._role_name is not None
        with self._lock:
            if (service, region, by_role) not in self._clients:
                from botocore.config import Config

                proxy = self._options.proxy
                config = Config(
                    connect_timeout=self._options.timeout,
                    read_timeout=self._options.timeout,
                    proxies={"http": proxy, "https": proxy} if proxy else None,
                    retries={"total_max_attempts": 1},  # `retrying` does it, and says why it gave up
                    max_pool_connections=self._at_once,
                )
                with our_errors(f"{service} in {region}"):
                    self._clients[service, region, by_role] = (assuming if by_role else own).client(
                        service,
                        region_name=region,
                        endpoint_url=self._options.endpoint,
                        verify=str(self._options.ca_file) if self._options.ca_file else None,
                        config=config,
                    )
            return self._clients[service, region, by_role]

    def credentials(self) -> dict[str, Any]:
        """Those of the role in the account that this thread calls for, taken anew before they end.

        A refusal is final for this run.
        """
        account: str = self._signing.account
        with self._lock:
            lock = self._role_locks[account]
        with lock:
            held = self._roles.get(account)
            if isinstance(held, ConnectorError):
                raise held
            if held is None or held["Expiration"] - datetime.now(UTC) < _ROLE_MARGIN:
                arn = f"arn:{self.caller().partition}:iam::{account}:role/{self._role_name}"
                try:
                    answer = self.call(
                        "sts", "sts:AssumeRole", self.home, place=arn, RoleArn=arn, RoleSessionName="ownerd"
                    )
                    held = self._roles[account] = dict(part(answer, "Credentials", f"{arn}: sts:AssumeRole"))
                except ConnectorError as error:
                    self._roles[account] = error
                    raise
                finally:
                    self._signing.account = account
            return held

    def _refuse_unknown(self, region: str, error: Exception) -> None:
        # The name of a region is a part of the host's: one that does not exist looks like a network that is down.
        sdk = self._sessions()[0]
        known = [r for p in sdk.get_available_partitions() for r in sdk.get_available_regions("ec2", p)]
        if region in known or self._options.endpoint:
            return
        near = difflib.get_close_matches(region, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise Misconfigured(f'no answer from the region "{region}", and none such is known{hint}') from error


class _Provider:
    """Botocore's credential resolver: gives every client credentials that change with the thread."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk

    def load_credentials(self) -> Any:
        """Credentials that botocore asks for each request that it signs."""
        from botocore.credentials import Credentials, ReadOnlyCredentials

        sdk = self._sdk

        class OfTheThread(Credentials):  # type: ignore[misc]  # botocore has no types
            def get_frozen_credentials(self) -> ReadOnlyCredentials:
                held = sdk.credentials()
                return ReadOnlyCredentials(held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])

        return OfTheThread("", "", method="assume-role")


def part(answer: dict[str, Any], key: str, place: str) -> Any:
    """What AWS never leaves out. An empty or cut body reaches us as an answer without it."""
    if answer.get(key) is None:
        raise ServerFault(f"{place}: the answer is empty or cut short: it has no {key}")
    return answer[key]


def arn_of(text: Any, place: str) -> Arn:
    """An ARN that AWS told. BadData if it is none."""
    try:
        return Arn.parse(text)
    except (ValueError, AttributeError) as error:
        raise BadData(f'{place}: not an ARN: "{text}"') from error
