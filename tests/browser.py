"""The web UI as a person sees it, in Debian's Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = {"width": 1440, "height": 900}
PATIENCE = 60_000
"""Milliseconds for one thing to appear: a web server's first page is slow."""


@contextmanager
def browser_page(*, scale: float = 1.0) -> Iterator["Page"]:
    """A page of a browser that speaks to loopback only; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
        )
        try:
            page = browser.new_page(viewport=SIZE, device_scale_factor=scale)
            page.set_default_timeout(PATIENCE)
            yield page
        finally:
            browser.close()


GROUPS = ("desired", "observed", "drift")
GRAPH = "/asset-groups?expanded=" + ",".join(f"global@global:{group}" for group in GROUPS)
ASSETS = (
    "persisted_payloads",
    "desired_edge",
    "cloudflare_records",
    "technitium_records",
    "velocity_backends",
    "containers",
    "agents",
    "operations",
    "drift",
)


def open_graph(page: "Page", web: str) -> None:
    """The asset graph with all of its groups open, once every asset is drawn."""
    page.set_viewport_size({"width": 1500, "height": 1500})  # what is outside is not drawn
    page.goto(f"{web}{GRAPH}")
    for asset in ASSETS:
        page.locator("svg").get_by_text(asset, exact=True).first.wait_for()
    page.get_by_text("Materialized", exact=True).first.wait_for()
    page.wait_for_timeout(1500)
    page.get_by_text("Loading...").first.wait_for(state="hidden")


def open_checks(page: "Page", web: str) -> None:
    """The check of the drift: how it stands, and its plot."""
    page.set_viewport_size(SIZE)
    page.goto(f"{web}/assets/drift?view=checks")
    page.get_by_text("Evaluation result").wait_for()
    page.locator("canvas").first.wait_for()
    page.wait_for_timeout(1500)  # the plot draws itself slowly
