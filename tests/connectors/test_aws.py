"""What the `aws` connector does beyond the contract."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import ValidationError

import connectors.retry
from connectors.arn import Arn
from connectors.aws import Aws, AwsOptions
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
from connectors.values import Gap, Resource
from tests.connectors.rig import Fault
from tests.servers.aws_faults import AwsFaults
from tests.servers.aws_indexes import Index, Indexes, recorded
from tests.servers.moto_aws import ACCOUNT, REGIONS, Estate, MotoAws, aws_environment, fill, moto_aws, organize

OTHER = "210987654321"
NOT_ALLOWED_XML = """<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to
perform this operation.</Message></Error></Errors><RequestID>1</RequestID></Response>"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", waits.append)
    return waits


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoAws]:
    with aws_environment(), moto_aws() as server:
        yield server


@pytest.fixture(scope="module")
def estate(moto: MotoAws) -> Estate:
    return fill(moto, scale=0.45)


@pytest.fixture(scope="module")
def moto_org() -> Iterator[tuple[AwsFaults, dict[str, str]]]:
    with aws_environment(), moto_aws() as server:
        names = organize(server, 6)
        with AwsFaults(server.endpoint, REGIONS[0]).running() as proxy:
            yield proxy, names


@pytest.fixture
def proxy(moto: MotoAws, estate: Estate) -> Iterator[AwsFaults]:
    with AwsFaults(moto.endpoint, REGIONS[0]).running() as proxy:
        yield proxy


def aws(server: AwsFaults | None, **options: Any) -> Aws:
    where = {"endpoint": server.endpoint} if server else {}
    return Aws(AwsOptions.model_validate({**where, "regions": list(REGIONS), **options}))


def read(connector: Aws, scope: str) -> dict[str, Resource]:
    return {record.id: record for record in connector.read(scope) if isinstance(record, Resource)}


def test_two_regions_and_what_is_global(proxy: AwsFaults, estate: Estate) -> None:
    """Each region yields its own; a bucket that both list is the same row in both, so that the merge keeps one."""
    connector = aws(proxy)
    assert list(connector.scopes()) == [f"{ACCOUNT}/{region}" for region in REGIONS]
    here, there = (read(connector, scope) for scope in connector.scopes())
    assert {**here, **there}.keys() == estate.listed().keys()
    both = here.keys() & there.keys()
    assert both == {arn for arn in estate.tagged if arn.startswith("arn:aws:s3:::")}
    assert all(here[arn] == there[arn] for arn in both)
    assert {r.parent for r in here.values()} == {f"arn:aws:iam::{ACCOUNT}:root"}


def test_tags_that_were_removed_are_told(proxy: AwsFaults, estate: Estate) -> None:
    """What had a tag once is listed, with none; what never had one is not."""
    found = read(aws(proxy), f"{ACCOUNT}/{REGIONS[0]}")
    empty = {arn for arn, r in found.items() if not r.tags}
    assert empty == {arn for arn in estate.emptied if REGIONS[0] in arn}
    assert empty
    assert estate.untagged
    assert not estate.untagged & found.keys()


def test_regions_default_to_the_accounts_own(proxy: AwsFaults, moto: MotoAws) -> None:
    """Without `regions`, those that the account has enabled."""
    enabled = {r["RegionName"] for r in moto.client("ec2").describe_regions()["Regions"]}
    assert set(aws(proxy, regions=None).scopes()) == {f"{ACCOUNT}/{region}" for region in enabled}


@pytest.mark.parametrize("page", [1, 2, 3])
def test_an_answer_lost_after_its_token_was_used(proxy: AwsFaults, moto: MotoAws, page: int) -> None:
    """The first page may be asked for again. A later one may not: moto answers a used token with an error, or, on the
    last page, with a single row of it, and the list would be short.
    """
    scope = f"{ACCOUNT}/{REGIONS[0]}"
    assert sum(1 for _ in moto.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate()) == 3
    whole = read(aws(proxy), scope)
    with proxy.inject("lost once", page):
        if page == 1:
            assert read(aws(proxy), scope) == whole
        else:
            with pytest.raises(ServerFault):
                read(aws(proxy), scope)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ExpiredTokenException", Unauthenticated),
        (403, "InvalidClientTokenId", Unauthenticated),
        (403, "InvalidSignatureException", Unauthenticated),
        (403, "SignatureDoesNotMatch", Unauthenticated),
        (400, "AccessDeniedException", Forbidden),
        (403, "SomethingNew", Forbidden),
        (400, "ThrottlingException", Throttled),
        (400, "InternalServiceException", ServerFault),
        (502, "", ServerFault),
        (400, "PaginationTokenExpiredException", Incomplete),
    ],
)
def test_error_codes(proxy: AwsFaults, status: int, code: str, expected: type[ConnectorError]) -> None:
    """Each refusal has its class and place, and what AWS quotes of the request's headers stays out."""
    secret = "x-amz-security-token:FwoGZXIvYXdzEBYaDH"
    with proxy.inject((status, code, f"The Canonical String should have been {secret}"), 1):
        with pytest.raises(expected) as caught:
            read(aws(proxy), f"{ACCOUNT}/{REGIONS[0]}")
    assert caught.value.message.startswith(f"{ACCOUNT}/{REGIONS[0]}: tag:GetResources")
    if expected is Unauthenticated:
        assert secret not in caught.value.message + caught.value.remedy
        assert caught.value.__cause__ is None
    if isinstance(caught.value, Forbidden):
        assert caught.value.permission == "tag:GetResources"


def test_an_error_that_is_cut_is_the_servers_fault(proxy: AwsFaults) -> None:
    """Its code is lost: what it means is not guessed."""
    proxy.canned = lambda service, _: (404, b'{"__type": "ResourceNotF') if service == "tagging" else None
    with pytest.raises(ServerFault, match="cut short"):
        read(aws(proxy), f"{ACCOUNT}/{REGIONS[0]}")


def test_an_unknown_error_escapes(proxy: AwsFaults) -> None:
    """What is not known is not dressed up as something else."""
    with proxy.inject((400, "InvalidParameterException", "no"), 1), pytest.raises(ClientError):
        read(aws(proxy), f"{ACCOUNT}/{REGIONS[0]}")


@pytest.mark.parametrize("body", [b"{}", b'{"ResourceTagMappingList": [{"Resource', b'{"PaginationToken": "\xc3'])
def test_bodies_that_are_no_list(proxy: AwsFaults, body: bytes) -> None:
    """botocore takes some broken JSON for an answer without content; that is no empty list."""
    proxy.canned = partial(only, "tagging", body)
    with pytest.raises(ServerFault):
        read(aws(proxy), f"{ACCOUNT}/{REGIONS[0]}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<DescribeRegionsResponse><regionInfo><item>",
        b"<DescribeRegionsResponse><regionInfo/></DescribeRegionsResponse>",
    ],
)
def test_no_regions_is_no_answer(proxy: AwsFaults, body: bytes) -> None:
    """Without a single region every scope would look gone."""
    proxy.canned = partial(only, "ec2", body)
    with pytest.raises(ServerFault):
        aws(proxy, regions=None).scopes()


def test_check_names_the_missing_permission(proxy: AwsFaults) -> None:
    """`ownerd check` says which permission is missing, and where."""
    with proxy.inject(Fault.FORBIDDEN, 1):
        bad, good, coverage = aws(proxy).check()
    assert (bad.ok, good.ok, coverage.ok) == (False, True, True)
    assert REGIONS[0] in bad.what
    assert "allow tag:GetResources" in bad.remedy

    proxy.canned = lambda service, _: (403, NOT_ALLOWED_XML.encode()) if service == "ec2" else None
    (line,) = aws(proxy, regions=None).check()
    assert not line.ok
    assert "allow ec2:DescribeRegions" in line.remedy


def test_accounts_by_role(proxy: AwsFaults, moto: MotoAws) -> None:
    """Each account is read under its own role."""
    role = moto.client("sts").assume_role(RoleArn=f"arn:aws:iam::{OTHER}:role/x", RoleSessionName="test")["Credentials"]
    keys = {
        "aws_access_key_id": role["AccessKeyId"],
        "aws_secret_access_key": role["SecretAccessKey"],
        "aws_session_token": role["SessionToken"],
    }
    moto.client("sqs", **keys).create_queue(QueueName="theirs", tags={"owner": "them"})
    connector = aws(proxy, accounts=[ACCOUNT, OTHER], role_name="ownerd-read", regions=[REGIONS[0]])
    mine, theirs = (read(connector, scope) for scope in connector.scopes())
    assert theirs == {
        (arn := f"arn:aws:sqs:us-east-1:{OTHER}:theirs"): Resource(
            arn, "sqs:queue", "theirs", f"arn:aws:iam::{OTHER}:root", {"owner": "them"}
        )
    }
    assert arn not in mine
    assert mine
    assert proxy.requests.count(("sts", REGIONS[0])) == 3  # who am I, and one role an account


def test_an_account_that_refuses_the_role(proxy: AwsFaults, moto: MotoAws) -> None:
    """It fails alone: the others are read, and every scope it could have had is named, so that none looks gone."""
    proxy.refused.add(OTHER)
    connector = aws(proxy, accounts=[ACCOUNT, OTHER], role_name="path/ownerd-read", regions=None)
    scopes = list(connector.scopes())
    everywhere = {r["RegionName"] for r in moto.client("ec2").describe_regions(AllRegions=True)["Regions"]}
    assert {s for s in scopes if s.startswith(OTHER)} == {f"{OTHER}/{region}" for region in everywhere}
    assert read(connector, f"{ACCOUNT}/{REGIONS[1]}")
    with pytest.raises(Forbidden, match=f"arn:aws:iam::{OTHER}:role/path/ownerd-read: sts:AssumeRole") as caught:
        read(connector, f"{OTHER}/{REGIONS[1]}")
    assert "trust policy" in caught.value.remedy
    assert len([c for c in connector.check() if not c.ok]) == 1


def test_one_client_serves_all_accounts(proxy: AwsFaults, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client costs memory and time: there is one a service and region, however many accounts there are."""
    accounts = [f"{n:012d}" for n in range(1, 13)]
    connector = aws(proxy, accounts=accounts, role_name="ownerd-read", regions=[REGIONS[0]])
    for scope in connector.scopes():
        read(connector, scope)
    made = connector._sdk._clients
    assert len(made) == len({(service, region) for service, region, _ in made}) <= 4
    assert proxy.assumed == dict.fromkeys(accounts, 1)
    connector.close()


def test_a_roles_credentials_are_renewed_in_the_middle_of_a_scope(
    proxy: AwsFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are looked at for every request; when they are about to end, new ones are taken."""
    connector = aws(proxy, accounts=[ACCOUNT], role_name="ownerd-read", regions=[REGIONS[0]])
    records = connector.read(f"{ACCOUNT}/{REGIONS[0]}")
    next(records)
    assert proxy.assumed[ACCOUNT] == 1
    held = connector._sdk._roles[ACCOUNT]
    assert isinstance(held, dict)
    held["Expiration"] = datetime.now(UTC) + timedelta(minutes=1)
    assert len(list(records)) > 50
    assert proxy.assumed[ACCOUNT] == 2


def test_a_whole_organization(proxy: AwsFaults, moto: MotoAws) -> None:
    """Every active account of the organization is a scope."""
    client = moto.client("organizations")
    client.create_organization(FeatureSet="ALL")
    for number in range(3):
        client.create_account(Email=f"{number}@example.com", AccountName=f"account {number}")
    accounts = {a["Id"] for a in client.list_accounts()["Accounts"]}
    closed = max(accounts - {ACCOUNT})
    client.close_account(AccountId=closed)
    connector = aws(proxy, accounts="organization", role_name="ownerd-read", regions=[REGIONS[0]])
    assert len(accounts) == 4
    assert set(connector.scopes()) == {"organization", *(f"{a}/{REGIONS[0]}" for a in accounts - {closed})}


def only(service: str, always: bytes, asked: str, _: str) -> tuple[int, bytes] | None:
    return (200, always) if asked == service else None


def test_the_pages_of_an_organization(proxy: AwsFaults) -> None:
    """All pages are followed; a list that never ends, or has no account, is an error and no small organization."""
    one = b'{"Accounts": [{"Id": "111111111111", "State": "ACTIVE"}], "NextToken": "more"}'
    two = b'{"Accounts": [{"Id": "222222222222", "State": "ACTIVE"}, {"Id": "333333333333", "State": "CLOSED"}]}'
    options = {"accounts": "organization", "role_name": "ownerd-read", "regions": [REGIONS[0]]}
    proxy.canned = lambda s, body: (200, two if "more" in body else one) if s == "organizations" else None
    assert aws(proxy, **options).scopes() == ["organization", "111111111111/us-east-1", "222222222222/us-east-1"]
    for always in one, b'{"Accounts": []}':
        proxy.canned = partial(only, "organizations", always)
        with pytest.raises(Incomplete):
            aws(proxy, **options).scopes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accounts": "organization"}, "accounts needs role_name"),
        ({"accounts": ["123"], "role_name": "r"}, r"\^"),
        ({"accounts": [], "role_name": "r"}, "at least one"),
        ({"regions": ["us-east-1", "us-east-1"]}, "each once"),
        ({"regions": ["us-east-1.evil.example"]}, r"\^"),
        ({"endpoint": "http://10.0.0.1/"}, "https"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    """Options that say nothing, or would send credentials astray, are refused."""
    with pytest.raises(ValidationError, match=message):
        AwsOptions.model_validate(options)


def test_no_credentials_and_no_profile(proxy: AwsFaults, tmp_path: Path) -> None:
    """Both say what to do."""
    with aws_environment(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""), pytest.raises(Unauthenticated) as caught:
        aws(proxy).scopes()
    assert "profile" in caught.value.remedy
    with aws_environment(), pytest.raises(Misconfigured, match="nosuch"):
        aws(proxy, profile="nosuch").scopes()
    with aws_environment(), pytest.raises(Misconfigured, match="ca_file"):
        aws(proxy, ca_file=tmp_path / "none.pem").scopes()


def test_a_region_that_does_not_exist() -> None:
    """It is a part of a host's name, so it looks like a network that is down; the message says better."""
    with aws_environment(), pytest.raises(Misconfigured, match='did you mean "us-east-1"'):
        aws(None, regions=["us-easst-1"], proxy="http://127.0.0.1:1").scopes()
    with aws_environment(), pytest.raises(Unreachable, match="proxy"):
        aws(None, proxy="http://127.0.0.1:1").scopes()


def test_a_server_that_never_answers() -> None:
    """`timeout` limits each request."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        aws_environment(),
        pytest.raises(Unreachable, match="timeout"),
    ):
        silent.listen(20)
        aws(None, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout="20ms").scopes()


@pytest.mark.parametrize(
    ("arn", "kind", "name"),
    [
        ("arn:aws:rds:us-east-1:111122223333:db:orders", "rds:db", "orders"),
        ("arn:aws:ec2:us-east-1:111122223333:instance/i-0abc", "ec2:instance", "i-0abc"),
        ("arn:aws:s3:::logs", "s3:bucket", "logs"),
        ("arn:aws:s3:us-east-1:111122223333:accesspoint/ap", "s3:accesspoint", "ap"),
        ("arn:aws:sns:us-east-1:111122223333:alerts", "sns:topic", "alerts"),
        ("arn:aws:sqs:us-east-1:111122223333:jobs.fifo", "sqs:queue", "jobs.fifo"),
        ("arn:aws:lambda:us-east-1:111122223333:function:pay", "lambda:function", "pay"),
        ("arn:aws:dynamodb:us-east-1:111122223333:table/Orders", "dynamodb:table", "Orders"),
        ("arn:aws:logs:us-east-1:111122223333:log-group:/aws/lambda/pay", "logs:log-group", "/aws/lambda/pay"),
        ("arn:aws:iam::111122223333:role/ci/deploy", "iam:role", "deploy"),
        ("arn:aws-cn:codepipeline:cn-north-1:111122223333:release", "codepipeline:pipeline", "release"),
        ("arn:aws:apigateway:us-east-1::/restapis/a1b2/stages/prod", "apigateway:restapis/stages", "prod"),
        (
            "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/edge/0a1b2c3d-0000-1111-2222-333344445555",
            "wafv2:regional/webacl",
            "edge",
        ),
        (
            "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/web/50dc6c495c0c9188",
            "elasticloadbalancing:loadbalancer",
            "web",
        ),
        (
            "arn:aws:autoscaling:us-east-1:111122223333:autoScalingGroup:0a1b2c3d-0000-1111-2222-333344445555:autoScalingGroupName/web",
            "autoscaling:autoScalingGroup",
            "web",
        ),
    ],
)
def test_types_and_names(arn: str, kind: str, name: str) -> None:
    """Types are AWS's words for `ResourceTypeFilters`; a name is what a person chose, if the ARN has it."""
    parsed = Arn.parse(arn)
    assert (parsed.type, parsed.name) == (kind, name)


@pytest.mark.parametrize("text", ["", "arn:aws:s3", "arn:aws:s3:::", "urn:aws:s3:::b", "i-0abc"])
def test_what_is_no_arn(text: str) -> None:
    """Nothing is guessed of what is no ARN."""
    with pytest.raises(ValueError, match="ARN"):
        Arn.parse(text)


# --- what the tagging API leaves out ---------------------------------------------------------------------------------

HERE = (ACCOUNT, REGIONS[0])
PRIMARY = f"{ACCOUNT}/{REGIONS[0]}"
QUEUE = f"arn:aws:sqs:{REGIONS[0]}:{ACCOUNT}:never-tagged"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deploy"


def everything(connector: Aws, scope: str) -> tuple[dict[str, Resource], list[Gap]]:
    records = list(connector.read(scope))
    return {r.id: r for r in records if isinstance(r, Resource)}, [r for r in records if isinstance(r, Gap)]


def test_without_an_index_the_gap_is_told(proxy: AwsFaults, estate: Estate) -> None:
    """Coverage is shown: neither Resource Explorer nor an aggregator is on, and what never had a tag is missing."""
    found, (gap,) = everything(aws(proxy), PRIMARY)
    assert not estate.untagged & found.keys()
    assert gap.code == "never_tagged"
    assert "neither Resource Explorer nor an AWS Config aggregator is on" in gap.message
    assert "turn on Resource Explorer" in gap.remedy
    *_, line = aws(proxy).check()
    assert (line.ok, line.remedy) == (True, gap.remedy)
    assert "not in 2 of 2 scopes" in line.detail


def test_resource_explorer_lists_what_never_had_a_tag(proxy: AwsFaults, estate: Estate) -> None:
    """Several pages; what the tagging API lists too is taken from there, since the index lags behind."""
    tagged = next(arn for arn in estate.tagged if arn.startswith(f"arn:aws:sqs:{REGIONS[0]}"))
    index = Index({QUEUE: {}, ROLE: {"owner": "ops"}, tagged: {"owner": "somebody of yesterday"}})
    index.resources |= {f"{QUEUE}-{n}": {} for n in range(7)}
    proxy.indexes.explorers[HERE] = index
    found, gaps = everything(aws(proxy), PRIMARY)
    assert gaps == []
    assert found[QUEUE] == Resource(QUEUE, "sqs:queue", "never-tagged", f"arn:aws:iam::{ACCOUNT}:root", {})
    assert found[ROLE].tags == {"owner": "ops"}
    assert found[tagged].tags == estate.tagged[tagged]
    assert {f"{QUEUE}-{n}" for n in range(7)} < found.keys()


def test_an_index_of_more_than_the_scope(proxy: AwsFaults) -> None:
    """An aggregator's index has other regions, an organization's view other accounts: those are other scopes'.

    What belongs to no region is the primary region's.
    """
    row = Indexes._row
    there = f"arn:aws:sqs:{REGIONS[1]}:{ACCOUNT}:there"
    theirs = f"arn:aws:sqs:{REGIONS[0]}:{OTHER}:theirs"
    rows = [row(there, {}, ACCOUNT, REGIONS[1]), row(theirs, {}, OTHER, REGIONS[0]), row(ROLE, {}, ACCOUNT, REGIONS[0])]
    for region in REGIONS:
        proxy.indexes.explorers[ACCOUNT, region] = Index(others=rows)
    first, second = (everything(aws(proxy), f"{ACCOUNT}/{region}")[0] for region in REGIONS)
    assert (ROLE in first, ROLE in second) == (True, False)
    assert (there in first, there in second) == (False, True)
    assert theirs not in first


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (Index({QUEUE: {}}, view=False), "no default view"),
        (Index({QUEUE: {}}, filter="service:ec2"), "is filtered"),
        (Index({QUEUE: {}}, tags=False), "has no tags"),
        (Index({QUEUE: {}}, state="CREATING"), "being built"),
    ],
)
def test_a_view_that_does_not_show_everything(proxy: AwsFaults, index: Index, why: str) -> None:
    """Half an index is not taken for a whole one: without tags, what is tagged would look as if it were not."""
    proxy.indexes.explorers[HERE] = index
    found, (gap,) = everything(aws(proxy), PRIMARY)
    assert QUEUE not in found
    assert why in gap.message


@pytest.mark.parametrize("operation", ["GetIndex", "GetDefaultView", "GetView"])
def test_without_the_permission_to_look_the_gap_names_it(proxy: AwsFaults, operation: str) -> None:
    """Not to be allowed to know is a gap that names the permission."""
    proxy.indexes.explorers[HERE] = Index({QUEUE: {}})
    proxy.indexes.denied.add(operation)
    _, (gap,) = everything(aws(proxy), PRIMARY)
    assert f"resource-explorer-2:{operation} is not allowed" in gap.message


def test_an_index_that_is_on_and_cannot_be_read_fails_the_scope(proxy: AwsFaults) -> None:
    """Otherwise what it has would look gone."""
    proxy.indexes.explorers[HERE] = Index({QUEUE: {}})
    proxy.indexes.denied.add("ListResources")
    with pytest.raises(Forbidden) as caught:
        everything(aws(proxy), PRIMARY)
    assert caught.value.permission == "resource-explorer-2:ListResources"


def test_an_index_whose_pages_never_end(proxy: AwsFaults) -> None:
    """It is stopped, and is an error."""
    proxy.indexes.explorers[HERE] = Index({QUEUE: {}}, repeats=True)
    with pytest.raises(Incomplete, match="ListResources"):
        everything(aws(proxy), PRIMARY)


AGGREGATOR = {
    "ConfigurationAggregatorName": "everything",
    "OrganizationAggregationSource": {"RoleArn": "arn:aws:iam::1:role/config", "AllAwsRegions": True},
}


def test_an_aggregator_stands_in_for_resource_explorer(proxy: AwsFaults, estate: Estate) -> None:
    """It is asked for each account and region; the primary region has what belongs to none."""
    there = f"arn:aws:sqs:{REGIONS[1]}:{ACCOUNT}:there"
    proxy.indexes.aggregators = [AGGREGATOR]
    proxy.indexes.recorded = [
        *(recorded(*HERE, f"{QUEUE}-{n}", "AWS::SQS::Queue") for n in range(5)),
        recorded(ACCOUNT, "global", ROLE, "AWS::IAM::Role", owner="ops"),
        recorded(ACCOUNT, REGIONS[1], there, "AWS::SQS::Queue", owner='team, with "quotes"'),
        recorded(*HERE, f"arn:aws:config:{REGIONS[0]}:{ACCOUNT}:x/y", "AWS::Config::ResourceCompliance"),
        {"accountId": ACCOUNT, "awsRegion": REGIONS[0], "resourceType": "AWS::EC2::Route", "tags": []},
    ]
    (first, gaps), (second, _) = (everything(aws(proxy), f"{ACCOUNT}/{region}") for region in REGIONS)
    assert gaps == []
    assert {f"{QUEUE}-{n}" for n in range(5)} | {ROLE} < first.keys()
    assert second[there].tags == {"owner": 'team, with "quotes"'}
    assert ROLE not in second
    assert not {arn for arn in first if ":config:" in arn}


@pytest.mark.parametrize(
    "aggregator",
    [
        {**AGGREGATOR, "AggregatorFilters": {"ResourceType": {"Type": "INCLUDE", "Value": ["AWS::EC2::Instance"]}}},
        {
            "ConfigurationAggregatorName": "others",
            "AccountAggregationSources": [{"AccountIds": [OTHER], "AllAwsRegions": True}],
        },
        {
            "ConfigurationAggregatorName": "elsewhere",
            "AccountAggregationSources": [{"AccountIds": [ACCOUNT], "AwsRegions": ["ap-south-1"]}],
        },
    ],
)
def test_an_aggregator_that_does_not_cover_the_scope(proxy: AwsFaults, aggregator: dict[str, Any]) -> None:
    """One that is filtered, or of other accounts or regions, is none."""
    proxy.indexes.aggregators = [aggregator]
    _, (gap,) = everything(aws(proxy), PRIMARY)
    assert gap.code == "never_tagged"
    assert proxy.indexes.queries == []


# --- the organization -------------------------------------------------------------------------------------------------


def test_accounts_have_their_tags_and_their_units(moto_org: tuple[AwsFaults, dict[str, str]]) -> None:
    """Resource → account → organizational unit → unit above → root, each with its tags."""
    proxy, names = moto_org
    connector = aws(proxy, accounts="organization", role_name="ownerd-read", regions=[REGIONS[0]])
    found, _ = everything(connector, "organization")
    account = found[f"arn:aws:iam::{names['a00']}:root"]
    assert (account.type, account.name, account.tags) == ("organizations:account", "a00", {"owner": "team-a00"})
    chain = []
    above = account.parent
    while above is not None:
        chain.append((found[above].type, found[above].name, dict(found[above].tags)))
        above = found[above].parent
    assert chain == [
        ("organizations:ou", "unit-0", {}),
        ("organizations:ou", "business", {"owner": "the business"}),
        ("organizations:root", "Root", {}),
    ]
    assert len([r for r in found.values() if r.type == "organizations:account"]) == len(names) + 1
    assert connector.scopes()


def test_an_organization_without_a_root_is_no_answer(proxy: AwsFaults) -> None:
    """An empty list in place of an error is an error."""
    proxy.canned = partial(only, "organizations", b'{"Roots": []}')
    with pytest.raises(ServerFault, match="no root"):
        list(aws(proxy, accounts="organization", role_name="r", regions=[REGIONS[0]]).read("organization"))
