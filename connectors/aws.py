"""AWS through the Resource Groups Tagging API.

A scope is an account and a region, `111122223333/us-east-1`. A resource that several regions list is yielded by each
of them: the merge keeps one row an id, and no scope's answer then depends on which other scope was read, or failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from connectors.arn import Arn, account_arn
from connectors.botocore_errors import our_errors
from connectors.contract import Check, Connector
from connectors.errors import (
    BadData,
    ConnectorError,
    Denied,
    Incomplete,
    Misconfigured,
    ServerFault,
    Transient,
    Unreachable,
)
from connectors.options import HttpOptions
from connectors.paging import Pages
from connectors.retry import retrying
from connectors.values import Record, Resource

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,}(-[a-z]+)+-\d{1,2}$")]
AccountId = Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+=,.@/-]+$", max_length=512)]

_PER_PAGE = 100
_ROLE_MARGIN = timedelta(minutes=15)


class AwsOptions(HttpOptions):
    """Options of the `aws` connector."""

    regions: list[Region] | None = Field(
        None, min_length=1, description="Regions to read; default: all that are enabled for the account."
    )
    accounts: Literal["organization"] | list[AccountId] | None = Field(
        None, description='Account ids, or "organization" for all of it; default: the caller\'s account.'
    )
    role_name: RoleName | None = Field(None, description="Role assumed in each account, the caller's own included.")
    profile: str | None = Field(None, description="Profile of the AWS configuration files.")

    @model_validator(mode="after")
    def _consistent(self) -> AwsOptions:
        if self.accounts is not None and self.role_name is None:
            raise PydanticCustomError("role_name", "accounts needs role_name, the role to assume in each of them")
        for name in ("regions", "accounts"):
            values = getattr(self, name)
            if isinstance(values, list) and (not values or len(set(values)) != len(values)):
                raise PydanticCustomError("distinct", "{option} must name at least one, each once", {"option": name})
        return self


class Aws(Connector):
    """All resources that have, or had, a tag, in each account and region."""

    Options = AwsOptions

    def __init__(self, options: AwsOptions) -> None:
        self.options = options
        self._sdk: Any = None
        self._me: Arn | None = None
        self._roles: dict[str, dict[str, Any] | ConnectorError] = {}

    # --- what there is to read --------------------------------------------------------------------------------------

    def scopes(self) -> Iterable[str]:
        """Every account and region, `ACCOUNT/REGION`."""
        return [f"{account}/{region}" for account in self._accounts() for region in self._regions(account)]

    def _caller(self) -> Arn:
        if self._me is None:
            with closing(self._client("sts", self._home)) as sts:
                answer = self._call(sts, "sts:GetCallerIdentity", self._home)
            self._me = _arn(_part(answer, "Arn", "sts:GetCallerIdentity"), "sts:GetCallerIdentity")
        return self._me

    def _accounts(self) -> list[str]:
        if self.options.accounts is None:
            return [self._caller().account]
        if isinstance(self.options.accounts, list):
            return self.options.accounts
        what, found, token = "organizations:ListAccounts", [], ""
        pages = Pages(what)
        with closing(self._client("organizations", self._home)) as client:
            while True:
                more = {"NextToken": token} if token else {}
                answer = self._call(client, what, self._home, **more)
                found += _part(answer, "Accounts", what)
                if not (token := answer.get("NextToken") or ""):
                    break
                pages.turn(token)
        # `State` stands in for `Status`, which AWS has retired in September 2026.
        active = [a["Id"] for a in found if (a.get("State") or a.get("Status")) == "ACTIVE"]
        if not active:
            raise Incomplete(f"{what}: {len(found)} accounts, none of them active; not even the caller's")
        return active

    def _regions(self, account: str) -> list[str]:
        if self.options.regions is not None:
            return self.options.regions
        try:
            return self._list_regions(account)
        except ConnectorError:
            if self.options.accounts is None:
                raise
            # One account's refusal must neither stop the others nor make what it held look gone: every region there
            # is may hold some of it, and reading each fails as this did.
            return self._list_regions(None, AllRegions=True)

    def _list_regions(self, account: str | None, **filters: bool) -> list[str]:
        what = "ec2:DescribeRegions"
        with closing(self._client("ec2", self._home, account)) as ec2:
            answer = self._call(ec2, what, f"{account or 'own account'}/{self._home}", **filters)
        if not (found := _part(answer, "Regions", what)):
            raise ServerFault(f"{what}: no region at all")
        return sorted(region["RegionName"] for region in found)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the resources of one account and region, those without tags any more included."""
        account, _, region = scope.partition("/")
        parent = account_arn(self._caller().partition, account)
        pages = Pages(f"{scope}: tag:GetResources")
        token = ""
        with closing(self._client("resourcegroupstaggingapi", region, account)) as client:
            while True:
                answer = self._page(client, scope, _PER_PAGE, token)
                for row in _part(answer, "ResourceTagMappingList", f"{scope}: tag:GetResources"):
                    yield _resource(row, parent, scope)
                if not (token := answer.get("PaginationToken") or ""):
                    return
                pages.turn(token)

    def _page(self, client: Any, scope: str, size: int, token: str = "") -> dict[str, Any]:
        more = {"PaginationToken": token} if token else {}
        return self._call(client, "tag:GetResources", scope, ResourcesPerPage=size, **more)

    def check(self) -> Iterator[Check]:
        """Ask each scope for one resource; name the permission that is missing."""
        try:
            scopes = list(self.scopes())
        except Denied as error:
            yield Check("find the accounts and regions", ok=False, detail=error.message, remedy=error.remedy)
            return
        refused = set()
        for scope in scopes:
            account, _, region = scope.partition("/")
            if account in refused:
                continue
            try:
                with closing(self._client("resourcegroupstaggingapi", region, account)) as client:
                    rows = _part(self._page(client, scope, 1), "ResourceTagMappingList", scope)
            except ConnectorError as error:
                yield Check(f"read {scope}", ok=False, detail=error.message, remedy=error.remedy)
                if isinstance(self._roles.get(account), ConnectorError):
                    refused.add(account)  # said once: every other region would say the same
            else:
                yield Check(f"read {scope}", ok=True, detail="" if rows else "readable, and empty")

    # --- the SDK ----------------------------------------------------------------------------------------------------

    @property
    def _home(self) -> str:
        """The region to ask what is not of one region. It also tells the partition: China and GovCloud are others."""
        if self.options.regions:
            return self.options.regions[0]
        return self._session().region_name or "us-east-1"

    def _session(self) -> Any:
        if self._sdk is None:
            import boto3

            if self.options.ca_file is not None and not self.options.ca_file.is_file():
                raise Misconfigured(f"ca_file: no such file: {self.options.ca_file}")
            with our_errors("AWS configuration"):
                self._sdk = boto3.Session(profile_name=self.options.profile)
        return self._sdk

    def _client(self, service: str, region: str, account: str | None = None) -> Any:
        """A client of one region; with an `account`, under the role there, if one is configured."""
        from botocore.config import Config

        proxy = self.options.proxy
        config = Config(
            connect_timeout=self.options.timeout,
            read_timeout=self.options.timeout,
            proxies={"http": proxy, "https": proxy} if proxy else None,
            retries={"total_max_attempts": 1},  # `retrying` does it, and says why it gave up
        )
        role = self._role(account) if account and self.options.role_name else {}
        with our_errors(f"{service} in {region}"):
            return self._session().client(
                service,
                region_name=region,
                endpoint_url=self.options.endpoint,
                verify=str(self.options.ca_file) if self.options.ca_file else None,
                config=config,
                **role,
            )

    def _role(self, account: str) -> dict[str, str]:
        """Credentials of the role in `account`, taken anew before they end. A refusal is final for this run."""
        held = self._roles.get(account)
        if isinstance(held, ConnectorError):
            raise held
        if held is None or held["Expiration"] - datetime.now(UTC) < _ROLE_MARGIN:
            arn = f"arn:{self._caller().partition}:iam::{account}:role/{self.options.role_name}"
            try:
                with closing(self._client("sts", self._home)) as sts:
                    answer = self._call(sts, "sts:AssumeRole", arn, RoleArn=arn, RoleSessionName="ownerd")
                    held = self._roles[account] = dict(_part(answer, "Credentials", f"{arn}: sts:AssumeRole"))
            except ConnectorError as error:
                self._roles[account] = error
                raise
        return {
            "aws_access_key_id": held["AccessKeyId"],
            "aws_secret_access_key": held["SecretAccessKey"],
            "aws_session_token": held["SessionToken"],
        }

    def _call(self, client: Any, permission: str, place: str, **params: Any) -> dict[str, Any]:
        """The answer to one call, named as IAM names it; asked again where that may help, and is safe.

        Nobody promises that a page token serves twice. A page whose answer was lost ends the scope, and only one that
        was refused for its rate is asked for again: some servers answer a used token with what is left of the page.
        """
        from botocore import xform_name

        call = getattr(client, xform_name(permission.partition(":")[2]))

        def once() -> dict[str, Any] | Transient:
            try:
                with our_errors(place, permission):
                    answer: dict[str, Any] = call(**params)
            except (ServerFault, Unreachable) as error:
                if "PaginationToken" in params:
                    return error
                raise
            return answer

        try:
            answer = retrying(once)
        except Unreachable as error:
            self._refuse_unknown(client.meta.region_name, error)
            raise
        if isinstance(answer, Transient):
            raise answer
        return answer

    def _refuse_unknown(self, region: str, error: Exception) -> None:
        # The name of a region is a part of the host's: one that does not exist looks like a network that is down.
        sdk = self._session()
        known = [r for p in sdk.get_available_partitions() for r in sdk.get_available_regions("ec2", p)]
        if region in known or self.options.endpoint:
            return
        near = difflib.get_close_matches(region, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise Misconfigured(f'no answer from the region "{region}", and none such is known{hint}') from error


def _part(answer: dict[str, Any], key: str, place: str) -> Any:
    """What AWS never leaves out. An empty or cut body reaches us as an answer without it."""
    if answer.get(key) is None:
        raise ServerFault(f"{place}: the answer is empty or cut short: it has no {key}")
    return answer[key]


def _arn(text: Any, place: str) -> Arn:
    try:
        return Arn.parse(text)
    except (ValueError, AttributeError) as error:
        raise BadData(f'{place}: not an ARN: "{text}"') from error


def _resource(row: dict[str, Any], parent: str, place: str) -> Resource:
    arn = _arn(row.get("ResourceARN"), place)
    try:
        tags = {tag["Key"]: tag["Value"] for tag in row.get("Tags") or ()}
    except KeyError as error:
        raise BadData(f"{place}: {row['ResourceARN']} has a tag without a {error.args[0]}") from error
    return Resource(row["ResourceARN"], arn.type, tags.get("Name") or arn.name, parent, tags)
