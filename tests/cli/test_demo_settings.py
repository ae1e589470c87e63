"""The settings of the demo's controller."""

from zlh_dagster.cli.demo import settings_of


def test_its_messages_lead_to_its_web_ui(tmp_path):
    made = settings_of(tmp_path, database="sqlite:///x", sandbox={"ZLH_ZONE": "x.gg"}, web=3117)
    assert made["ZLH_WEB_URL"] == f"http://127.0.0.1:{made['ZLH_WEB_PORT']}"
    assert made["ZLH_ZONE"] == "x.gg"
