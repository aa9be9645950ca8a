"""AWS: the Resource Groups Tagging API, and what it leaves out.

A scope is an account and a region, `111122223333/us-east-1`; with `accounts = "organization"` there is one more,
`organization`: its accounts, organizational units and root, with their tags. A resource that several regions list is
yielded by each of them: the spool keeps one row an id, and no scope's answer then depends on which other scope was
read, or failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from connectors.arn import account_arn
from connectors.aws_sdk import Sdk, arn_of, part
from connectors.aws_untagged import Untagged
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Denied, Incomplete, ServerFault
from connectors.options import HttpOptions
from connectors.paging import Pages
from connectors.seen import Seen
from connectors.values import Gap, Record, Resource

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,}(-[a-z]+)+-\d{1,2}$")]
AccountId = Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+=,.@/-]+$", max_length=512)]

ORGANIZATION = "organization"
_PER_PAGE = 100
T = TypeVar("T")


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
    """All resources of each account and region, and the organization above them."""

    Options = AwsOptions
    # The tagging API bears 15 calls a second in each account and region; a scope makes one after the other.
    at_once = 16

    def __init__(self, options: AwsOptions) -> None:
        self.options = options
        self._sdk = Sdk(
            options,
            profile=options.profile,
            role=options.role_name,
            home=options.regions[0] if options.regions else None,
            at_once=self.at_once,
        )
        self._untagged = Untagged(self._sdk)

    def close(self) -> None:
        """Let go of connections."""
        self._sdk.close()

    # --- what there is to read --------------------------------------------------------------------------------------

    def scopes(self) -> Iterable[str]:
        """Every account and region, `ACCOUNT/REGION`, and the organization."""
        accounts = self._accounts()
        regions = self._side_by_side(self._regions, accounts)
        scopes = [f"{account}/{region}" for account, of in zip(accounts, regions, strict=True) for region in of]
        return [ORGANIZATION, *scopes] if self.options.accounts == ORGANIZATION else scopes

    def _side_by_side(self, call: Callable[[str], T], over: Iterable[str]) -> list[T]:
        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(call, over))

    def _accounts(self) -> list[str]:
        if self.options.accounts is None:
            return [self._sdk.caller().account]
        if isinstance(self.options.accounts, list):
            return self.options.accounts
        what = "organizations:ListAccounts"
        found = list(self._listed(what, "Accounts"))
        active = [a["Id"] for a in found if _is_active(a)]
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

    def _list_regions(self, account: str | None, **filters: Any) -> list[str]:
        what, place = "ec2:DescribeRegions", f"{account or 'own account'}/{self._sdk.home}"
        answer = self._sdk.call("ec2", what, self._sdk.home, account=account, place=place, **filters)
        if not (found := part(answer, "Regions", what)):
            raise ServerFault(f"{what}: no region at all")
        return sorted(region["RegionName"] for region in found)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the resources of one account and region, or the organization's accounts and units."""
        if scope == ORGANIZATION:
            yield from self._organization()
            return
        account, _, region = scope.partition("/")
        with Seen() as seen:
            for arn, tags in self._tagged(account, region, scope):
                seen.add(arn)
                if (found := self._resource(arn, tags, account, scope)) is not None:
                    yield found
            for row in self._untagged.read(account, region):
                if isinstance(row, Gap):
                    yield row
                elif row[0] not in seen:
                    seen.add(row[0])
                    if (found := self._resource(*row, account, scope)) is not None:
                        yield found

    def _tagged(self, account: str, region: str, scope: str) -> Iterator[tuple[str, dict[str, str]]]:
        """What has, or had, a tag."""
        what = f"{scope}: tag:GetResources"
        pages, token = Pages(what), ""
        while True:
            answer = self._page(account, region, _PER_PAGE, token)
            for row in part(answer, "ResourceTagMappingList", what):
                yield part(row, "ResourceARN", what), _tags(row.get("Tags") or (), f"{scope}: {row['ResourceARN']}")
            if not (token := answer.get("PaginationToken") or ""):
                return
            pages.turn(token)

    def _page(self, account: str, region: str, size: int, token: str = "") -> dict[str, Any]:
        more = {"PaginationToken": token} if token else {}
        return self._sdk.call(
            "resourcegroupstaggingapi",
            "tag:GetResources",
            region,
            account=account,
            place=f"{account}/{region}",
            ResourcesPerPage=size,
            **more,
        )

    def _resource(self, text: str, tags: dict[str, str], account: str, place: str) -> Resource | None:
        arn = arn_of(text, place)
        name = tags.get("Name") or arn.name
        if arn.service == "organizations" and self.options.accounts == ORGANIZATION:
            if arn.type in {"organizations:ou", "organizations:root"}:
                return None  # the scope `organization` has them, with their parents
            if arn.type == "organizations:account":
                account = arn.resource.rpartition("/")[2]  # another name of the account itself
        return Resource(text, arn.type, name, account_arn(self._sdk.caller().partition, account), tags)

    # --- the organization -------------------------------------------------------------------------------------------

    def _organization(self) -> Iterator[Resource]:
        """The root, every organizational unit and every active account, from the top down, with their tags."""
        partition = self._sdk.caller().partition
        roots = list(self._listed("organizations:ListRoots", "Roots"))
        if not roots:
            raise ServerFault("organizations:ListRoots: no root at all")
        above: list[tuple[dict[str, Any], str | None]] = [(root, None) for root in roots]
        while above:
            unit, parent = above.pop()
            arn = part(unit, "Arn", "organizations")
            kind = arn_of(arn, "organizations").type
            yield Resource(arn, kind, unit.get("Name") or unit["Id"], parent, self._tags_of(unit["Id"]))
            units = self._listed(
                "organizations:ListOrganizationalUnitsForParent", "OrganizationalUnits", ParentId=unit["Id"]
            )
            above += [(below, arn) for below in units]
            for account in self._listed("organizations:ListAccountsForParent", "Accounts", ParentId=unit["Id"]):
                if _is_active(account):
                    named = account.get("Name") or account["Id"]
                    tags = self._tags_of(account["Id"])
                    yield Resource(account_arn(partition, account["Id"]), "organizations:account", named, arn, tags)

    def _tags_of(self, target: str) -> dict[str, str]:
        what = "organizations:ListTagsForResource"
        return _tags(self._listed(what, "Tags", ResourceId=target), f"{what}: {target}")

    def _listed(self, what: str, key: str, **params: str) -> Iterator[dict[str, Any]]:
        """Every row of a list of AWS Organizations."""
        pages, token = Pages(what), ""
        while True:
            more = {"NextToken": token} if token else {}
            answer = self._sdk.call("organizations", what, self._sdk.home, place=ORGANIZATION, **params, **more)
            yield from part(answer, key, what)
            if not (token := answer.get("NextToken") or ""):
                return
            pages.turn(token)

    # --- ownerd check -----------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Check]:
        """Ask each scope for one resource; name the permission that is missing, and what cannot be shown."""
        try:
            scopes = list(self.scopes())
        except Denied as error:
            yield Check("find the accounts and regions", ok=False, detail=error.message, remedy=error.remedy)
            return
        said, gaps, places = set(), dict[Gap, int](), 0
        for scope, tried in zip(scopes, self._side_by_side(self._try, scopes), strict=True):
            account = scope.partition("/")[0]
            if isinstance(tried, ConnectorError):
                if account not in said:
                    yield Check(f"read {scope}", ok=False, detail=tried.message, remedy=tried.remedy)
                if self._sdk.refused(account):
                    said.add(account)  # every other region would say the same
                continue
            rows, gap = tried
            yield Check(f"read {scope}", ok=True, detail="" if rows else "readable, and empty")
            if scope != ORGANIZATION:
                places += 1
                if gap:
                    gaps[gap] = gaps.get(gap, 0) + 1
        for gap, number in gaps.items():
            yield Check(
                "see all there is",
                ok=True,
                detail=f"not in {number} of {places} scopes: {gap.message}",
                remedy=gap.remedy,
            )

    def _try(self, scope: str) -> tuple[bool, Gap | None] | ConnectorError:
        account, _, region = scope.partition("/")
        try:
            if scope == ORGANIZATION:
                return next(self._organization(), None) is not None, None
            rows = part(self._page(account, region, 1), "ResourceTagMappingList", scope)
            means = self._untagged.coverage(account, region)
        except ConnectorError as error:
            return error
        return bool(rows), means if isinstance(means, Gap) else None


def _is_active(account: dict[str, Any]) -> bool:
    # `State` stands in for `Status`, which AWS has retired in September 2026.
    return (account.get("State") or account.get("Status")) == "ACTIVE"


def _tags(tags: Iterable[dict[str, Any]], place: str) -> dict[str, str]:
    try:
        return {tag["Key"]: tag["Value"] for tag in tags}
    except KeyError as error:
        raise BadData(f"{place} has a tag without a {error.args[0]}") from error
