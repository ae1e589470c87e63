"""The settings of the demo's controller, and what it proposes to break."""

import shlex

import httpx

from zlh_dagster.cli.demo import examples, settings_of
from zlh_dagster.sandbox.server import Sandbox


def test_its_messages_lead_to_its_web_ui(tmp_path):
    made = settings_of(tmp_path, database="sqlite:///x", sandbox={"ZLH_ZONE": "x.gg"}, web=3117)
    assert made["ZLH_WEB_URL"] == f"http://127.0.0.1:{made['ZLH_WEB_PORT']}"
    assert made["ZLH_ZONE"] == "x.gg"


def test_each_example_breaks_something(platform):
    with Sandbox(database_url=platform.url) as sandbox:
        sandbox.seed_from_database(platform.url)
        assert sandbox.edge.velocity.backends() != []
        for example in examples(sandbox.url):
            _curl, _option, method, url, *data = shlex.split(example, comments=True)
            httpx.request(method, url, content=data[-1] if data else None).raise_for_status()
        assert list(httpx.get(f"{sandbox.url}/sandbox/faults").json()) == ["cloudflare"]
        assert sandbox.edge.velocity.backends() == []
    rows = platform.services().read_payloads([5001])
    assert rows["billingStatus"].tolist() == ["suspended"]
