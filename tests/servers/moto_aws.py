"""AWS for tests: moto's server in a process of its own, and an estate to put into it.

moto follows the services' own APIs. What of `GetResources` it does otherwise than AWS: a page token serves once; never
tagged resources are left out as on AWS, but so are previously tagged ones, except of the few kinds that it always lists
(load balancers among them), with `Tags: []`; buckets show in every region.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

ACCOUNT = "123456789012"
REGIONS = ("us-east-1", "eu-west-1")
OWNERS = ("Team Payments", "team-payments", "platform", "data-eng", "sre@example.com", "nobody-knows")

_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Estate:
    """What was created. Only `tagged` and `emptied` are listed by the tagging API."""

    tagged: dict[str, dict[str, str]] = field(default_factory=dict)
    """ARN → tags."""
    emptied: set[str] = field(default_factory=set)
    """ARNs listed with an empty set of tags, as AWS lists what was tagged once."""
    untagged: set[str] = field(default_factory=set)
    """ARNs of what never had a tag."""

    def listed(self) -> dict[str, dict[str, str]]:
        """ARN → tags of all that the tagging API lists."""
        return {**self.tagged, **{arn: {} for arn in self.emptied}}

    @property
    def services(self) -> set[str]:
        """The services of the listed resources."""
        return {arn.split(":")[2] for arn in self.listed()}


@dataclass(frozen=True)
class MotoAws:
    """A running server."""

    endpoint: str

    def client(self, service: str, region: str = REGIONS[0], **changes: Any) -> Any:
        """A boto3 client of this server."""
        import boto3

        keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "secret"}
        return boto3.client(service, region_name=region, endpoint_url=self.endpoint, **{**keys, **changes})


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a process needs to speak to the server, and to find no credentials of the machine's owner."""


@contextlib.contextmanager
def aws_environment(**changes: str) -> Iterator[None]:
    """`ENVIRONMENT`, with some changed, and nothing else of AWS, in this process."""
    clean = {k: v for k, v in os.environ.items() if not k.upper().startswith("AWS_") and "proxy" not in k.lower()}
    with mock.patch.dict(os.environ, {**clean, **ENVIRONMENT, **changes}, clear=True):
        yield


def organize(server: MotoAws, accounts: int) -> dict[str, str]:
    """An organization of `accounts` accounts, `a00` and on, in three units of a unit; the id of each by its name.

    Every other account has an owner, and the unit above has one.
    """
    client = server.client("organizations")
    client.create_organization(FeatureSet="ALL")
    root = client.list_roots()["Roots"][0]["Id"]
    unit = client.create_organizational_unit(ParentId=root, Name="business")["OrganizationalUnit"]["Id"]
    client.tag_resource(ResourceId=unit, Tags=pairs({"owner": "the business"}))
    units = [
        client.create_organizational_unit(ParentId=unit, Name=f"unit-{n}")["OrganizationalUnit"]["Id"] for n in range(3)
    ]
    made: dict[str, str] = {}
    for number in range(accounts):
        name = f"a{number:02d}"
        told = client.create_account(Email=f"{name}@example.com", AccountName=name)["CreateAccountStatus"]
        made[name] = account = told["AccountId"]
        client.move_account(AccountId=account, SourceParentId=root, DestinationParentId=units[number % 3])
        if number % 2 == 0:
            client.tag_resource(ResourceId=account, Tags=pairs({"owner": f"team-{name}"}))
    return made


@contextlib.contextmanager
def moto_aws() -> Iterator[MotoAws]:
    """Run a server on a free loopback port. It ends with this process, whatever happens."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        port = process.stdout.readline().strip()
        assert port, "moto did not start"
        try:
            yield MotoAws(f"http://127.0.0.1:{port}")
        finally:
            process.stdin.close()
            process.terminate()


def tags_of(number: int, name: str, owners: Sequence[str]) -> dict[str, str]:
    """A company's tagging: most by `owner`, some by `team` or with another case, some with other tags only, some none."""
    owner = owners[number % len(owners)]
    match number % 10:
        case 0 | 5:
            return {}
        case 1:
            return {"Name": name, "team": owner}
        case 2:
            return {"Owner": owner, "env": "prod"}
        case 3:
            return {"Name": name, "env": "dev", "cost-center": str(1000 + number)}
        case _:
            return {"Name": name, "owner": owner, "env": "prod"}


class _Filler:
    def __init__(self, server: MotoAws, region: str, owners: Sequence[str], estate: Estate) -> None:
        self.server = server
        self.region = region
        self.owners = owners
        self.estate = estate
        self.number = 0

    def next(self, kind: str) -> tuple[str, dict[str, str]]:
        self.number += 1
        name = f"{kind}-{self.region}-{self.number}"
        return name, tags_of(self.number, name, self.owners)

    def made(self, arn: str, tags: Mapping[str, str]) -> None:
        if tags:
            self.estate.tagged[arn] = dict(tags)
        else:
            self.estate.untagged.add(arn)

    def arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{self.region}:{ACCOUNT}:{rest}"

    def fill(self, scale: float) -> None:
        for create, count in (
            (self.ec2_instances, 40),
            (self.ec2_volumes, 20),
            (self.ec2_security_groups, 10),
            (self.rds_databases, 20),
            (self.dynamodb_tables, 20),
            (self.sqs_queues, 20),
            (self.sns_topics, 20),
            (self.kms_keys, 10),
            (self.secrets, 15),
            (self.log_groups, 20),
            (self.ecs_clusters, 5),
            (self.target_groups, 5),
            (self.buckets, 10),
        ):
            create(max(1, int(count * scale)))
        self.load_balancers()

    def _specifications(self, kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs(tags)}]} if tags else {}

    def ec2_instances(self, count: int) -> None:
        ec2 = self.server.client("ec2", self.region)
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for _ in range(count):
            _, tags = self.next("vm")
            more = self._specifications("instance", tags)
            made = ec2.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, **more)
            self.made(self.arn("ec2", f"instance/{made['Instances'][0]['InstanceId']}"), tags)

    def ec2_volumes(self, count: int) -> None:
        ec2 = self.server.client("ec2", self.region)
        for _ in range(count):
            _, tags = self.next("volume")
            made = ec2.create_volume(AvailabilityZone=f"{self.region}a", Size=8, **self._specifications("volume", tags))
            self.made(self.arn("ec2", f"volume/{made['VolumeId']}"), tags)

    def ec2_security_groups(self, count: int) -> None:
        ec2 = self.server.client("ec2", self.region)
        for _ in range(count):
            name, tags = self.next("sg")
            more = self._specifications("security-group", tags)
            made = ec2.create_security_group(GroupName=name, Description=name, **more)
            self.made(self.arn("ec2", f"security-group/{made['GroupId']}"), tags)

    def rds_databases(self, count: int) -> None:
        rds = self.server.client("rds", self.region)
        for _ in range(count):
            name, tags = self.next("db")
            made = rds.create_db_instance(
                DBInstanceIdentifier=name, Engine="postgres", DBInstanceClass="db.t3.micro", Tags=pairs(tags)
            )
            self.made(made["DBInstance"]["DBInstanceArn"], tags)

    def dynamodb_tables(self, count: int) -> None:
        dynamodb = self.server.client("dynamodb", self.region)
        for _ in range(count):
            name, tags = self.next("table")
            made = dynamodb.create_table(
                TableName=name,
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
                Tags=pairs(tags),
            )
            self.made(made["TableDescription"]["TableArn"], tags)

    def sqs_queues(self, count: int) -> None:
        sqs = self.server.client("sqs", self.region)
        for _ in range(count):
            name, tags = self.next("queue")
            sqs.create_queue(QueueName=name, tags=tags)
            self.made(self.arn("sqs", name), tags)

    def sns_topics(self, count: int) -> None:
        sns = self.server.client("sns", self.region)
        for _ in range(count):
            name, tags = self.next("topic")
            self.made(sns.create_topic(Name=name, Tags=pairs(tags))["TopicArn"], tags)

    def kms_keys(self, count: int) -> None:
        kms = self.server.client("kms", self.region)
        for _ in range(count):
            _, tags = self.next("key")
            made = kms.create_key(Tags=[{"TagKey": k, "TagValue": v} for k, v in tags.items()])
            self.made(made["KeyMetadata"]["Arn"], tags)

    def secrets(self, count: int) -> None:
        secretsmanager = self.server.client("secretsmanager", self.region)
        for _ in range(count):
            name, tags = self.next("secret")
            made = secretsmanager.create_secret(Name=f"app/{name}", SecretString="x", Tags=pairs(tags))
            self.made(made["ARN"], tags)

    def log_groups(self, count: int) -> None:
        logs = self.server.client("logs", self.region)
        for _ in range(count):
            name, tags = self.next("log")
            logs.create_log_group(logGroupName=f"/app/{name}", tags=tags)
            self.made(self.arn("logs", f"log-group:/app/{name}"), tags)

    def ecs_clusters(self, count: int) -> None:
        ecs = self.server.client("ecs", self.region)
        for _ in range(count):
            name, tags = self.next("cluster")
            made = ecs.create_cluster(clusterName=name, tags=[{"key": k, "value": v} for k, v in tags.items()])
            self.made(made["cluster"]["clusterArn"], tags)

    def target_groups(self, count: int) -> None:
        elb = self.server.client("elbv2", self.region)
        for _ in range(count):
            name, tags = self.next("tg")
            made = elb.create_target_group(Name=name, TargetType="lambda", **({"Tags": pairs(tags)} if tags else {}))
            self.made(made["TargetGroups"][0]["TargetGroupArn"], tags)

    def load_balancers(self) -> None:
        elb = self.server.client("elbv2", self.region)
        subnets = [s["SubnetId"] for s in self.server.client("ec2", self.region).describe_subnets()["Subnets"]][:2]
        for _ in range(2):
            name, _ = self.next("lb")
            tags = {"owner": self.owners[0]}
            made = elb.create_load_balancer(Name=name, Subnets=subnets, Tags=pairs(tags))
            arn = made["LoadBalancers"][0]["LoadBalancerArn"]
            elb.remove_tags(ResourceArns=[arn], TagKeys=list(tags))
            self.estate.emptied.add(arn)

    def buckets(self, count: int) -> None:
        s3 = self.server.client("s3", self.region)
        place = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        for _ in range(count):
            name, tags = self.next("bucket")
            s3.create_bucket(Bucket=name, **({"CreateBucketConfiguration": place} if place else {}))
            if tags:
                s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs(tags)})
            self.made(f"arn:aws:s3:::{name}", tags)


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as most of AWS's APIs write them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def fill(
    server: MotoAws, *, owners: Sequence[str] = OWNERS, regions: Sequence[str] = REGIONS, scale: float = 1.0
) -> Estate:
    """Create an estate: at `scale` 1 some 430 resources of 11 services in two regions. Tag values are `owners` in turn."""
    estate = Estate()
    for region in regions:
        _Filler(server, region, owners, estate).fill(scale)
    return estate
