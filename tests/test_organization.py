"""An AWS organization of two dozen accounts, from its API to the answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, parse_settings
from daemon.pipeline import Report, Store
from daemon.runner import Runner
from daemon.store.reader import Reader
from tests.servers.aws_faults import AwsFaults
from tests.servers.moto_aws import REGIONS, MotoAws, aws_environment, moto_aws, organize, pairs

ACCOUNTS = 22
EACH = 96


class Company:
    """The organization: who owns what by its tags."""

    def __init__(self, moto: MotoAws, proxy: AwsFaults) -> None:
        self.moto, self.proxy = moto, proxy
        self.names = organize(moto, ACCOUNTS)
        self.image = moto.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for number, account in enumerate(self.names.values()):
            # A third has its own owner, a third what the account or the unit above says, a third a tag of no use.
            self.launch(account, EACH // 3, owner=f"team-{number % 5}")
            self.launch(account, EACH // 3, env="prod")
            self.launch(account, EACH // 3, owner="nobody we know")

    def launch(self, account: str, count: int, **tags: str) -> None:
        role = self.moto.client("sts").assume_role(RoleArn=f"arn:aws:iam::{account}:role/test", RoleSessionName="test")[
            "Credentials"
        ]
        keys = {
            "aws_access_key_id": role["AccessKeyId"],
            "aws_secret_access_key": role["SecretAccessKey"],
            "aws_session_token": role["SessionToken"],
        }
        self.moto.client("ec2", **keys).run_instances(
            ImageId=self.image,
            InstanceType="t3.micro",
            MinCount=count,
            MaxCount=count,
            TagSpecifications=[{"ResourceType": "instance", "Tags": pairs(tags)}],
        )


@pytest.fixture(scope="module")
def company() -> Iterator[Company]:
    with aws_environment(), moto_aws() as moto, AwsFaults(moto.endpoint, REGIONS[0]).running() as proxy:
        yield Company(moto, proxy)


@pytest.fixture
def settings(company: Company, tmp_path: Path) -> Settings:
    teams = [f"team-{n}" for n in range(5)] + [f"team-a{n:02d}" for n in range(ACCOUNTS)] + ["the business", "cloud"]
    people = [{"kind": "user", "id": "u1", "name": "u1"}]
    groups = [{"kind": "group", "id": f"id of {t}", "name": t, "members": ["u1"]} for t in teams]
    (tmp_path / "people.json").write_text(json.dumps({"principals": people + groups}))
    owner = {"directory": "corp", "attribute": "group.name"}
    document: dict[str, Any] = {
        "daemon": {"state_directory": str(tmp_path / "state")},
        "directories": [{"name": "corp", "connector": "file", "path": str(tmp_path / "people.json")}],
        "integrations": [
            {
                "name": "aws",
                "connector": "aws",
                "endpoint": company.proxy.endpoint,
                "regions": [REGIONS[0]],
                "accounts": "organization",
                "role_name": "ownerd-read",
                "resource_owner": [{"key": "owner", **owner}],
                "integration_owner": [{"values": ["cloud"], **owner}],
            }
        ],
    }
    return parse_settings(document, tmp_path / "test.toml")


def run(settings: Settings) -> Report:
    """Run both sources as the poller does, each in a child process; the report of AWS."""

    async def main() -> Report:
        store = Store(settings.state_directory)
        runner = Runner(store, settings)
        try:
            await runner.configure(settings)
            assert (await runner.run("corp", lambda _: None)).state == "ok"
            return await runner.run("aws", lambda _: None)
        finally:
            runner.close()
            store.close()

    return asyncio.run(main())


def told(settings: Settings) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Every answer by id, and every scope of AWS by name."""
    reader = Reader(settings.database)
    try:
        with reader.generation() as db:
            rows = [json.loads(body + b"}") for (body,) in db.execute("SELECT body FROM answer")]
        (aws,) = (s for s in reader.status() if s["name"] == "aws")
    finally:
        reader.close()
    return {row["resource"]["id"]: row for row in rows}, {scope["name"]: scope for scope in aws["scopes"]}


def of(answers: dict[str, dict[str, Any]], account: str) -> dict[str, Any]:
    return {i: row for i, row in answers.items() if f":{account}:instance/" in i}


def test_an_account_that_refuses_keeps_its_rows_and_the_others_advance(company: Company, settings: Settings) -> None:
    """2,112 resources of 22 accounts, owned by tags, accounts and units; then one account closes its door."""
    first = run(settings)
    answers, scopes = told(settings)
    assert first.state == "ok"
    assert len(scopes) == ACCOUNTS + 2  # the management account, and the organization itself
    assert sum(":instance/" in i for i in answers) == ACCOUNTS * EACH >= 2000
    assert company.proxy.assumed.keys() >= set(company.names.values())

    for number, (name, account) in enumerate(company.names.items()):
        mine = of(answers, account)
        sources = Counter((row["source"], row["owners"][0]["name"]) for row in mine.values())
        above = f"team-{name}" if number % 2 == 0 else "the business"
        third = EACH // 3
        assert sources == {
            ("tag", f"team-{number % 5}"): third,
            ("inherited", above): third,
            ("integration", "cloud"): third,
        }
        where = {row["tag"]["resource"] for row in mine.values() if row["source"] == "inherited"}
        assert len(where) == 1
        assert where == {f"arn:aws:iam::{account}:root"} or ":ou/" in where.pop()

    closed, other = company.names["a03"], company.names["a04"]
    company.proxy.refused.add(closed)
    company.launch(closed, 3, owner="team-1")
    company.launch(other, 3, owner="team-1")
    second = run(settings)
    again, scopes = told(settings)
    assert second.state == "partial"
    assert {name for name, s in scopes.items() if s["state"] != "ok"} == {f"{closed}/{REGIONS[0]}"}
    failed = scopes[f"{closed}/{REGIONS[0]}"]
    assert failed["error"]["code"] == "forbidden"
    assert "trust policy" in failed["error"]["remedy"]
    assert failed["rows"] == EACH
    assert of(again, closed) == of(answers, closed)
    assert len(of(again, other)) == EACH + 3
    assert all(s["read_at"] > failed["read_at"] for name, s in scopes.items() if s is not failed)

    company.proxy.refused.clear()
    assert run(settings).state == "ok"
    assert len(of(told(settings)[0], closed)) == EACH + 3
