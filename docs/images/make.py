"""Makes the pictures of the README: the demo, as the browser and Discord's channels show it.

Run from the repository: ``.venv/bin/python docs/images/make.py``. Needs Chromium.
"""

import html
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser import browser_page, open_checks, open_graph  # noqa: E402

PATIENCE = 400
HERE = Path(__file__).parent
CARD = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #313338; color: #dbdee1; font: 16px/1.4 sans-serif; width: 680px;
  padding: 16px 24px; box-sizing: border-box }}
h1 {{ font-size: 15px; color: #949ba4; margin: 12px 0 6px }}
article {{ background: #2b2d31; border-left: 4px solid {colour}; border-radius: 4px;
  padding: 10px 14px; margin: 0 0 14px }}
b {{ color: #fff }} small {{ color: #949ba4 }} p {{ margin: 6px 0; overflow-wrap: anywhere }}
</style>{body}"""


def main() -> None:
    """The demo with one repair and one restart of Velocity, and its pictures."""
    with tempfile.TemporaryDirectory(prefix="zlh-") as directory:
        log = Path(directory) / "demo.log"
        with log.open("wb") as out:
            demo = subprocess.Popen(
                [sys.executable, "-m", "zlh_dagster.cli.demo"],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            home = Path(directory) / ".zlh-demo"
            _until(lambda: "It stays up" in log.read_text(), log)
            state = json.loads((home / "sandbox.json").read_text())
            web = next(
                line.partition("=")[2]
                for line in (home / ".env").read_text().splitlines()
                if line.startswith("ZLH_WEB_PORT=")
            )
            httpx.put(f"{state['url']}/sandbox/velocity/restart").raise_for_status()
            _until(lambda: len(_inbox(state)) > 1, log)
            time.sleep(70)  # another tick, in which everything is in step again
            _pictures(f"http://127.0.0.1:{web}", _inbox(state))
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(timeout=120)


def _pictures(web: str, inbox: list[dict[str, Any]]) -> None:
    with browser_page() as page:
        open_graph(page, web)
        page.screenshot(path=HERE / "graph.png")
        open_checks(page, web)
        page.screenshot(path=HERE / "drift.png")
        page.set_viewport_size({"width": 680, "height": 200})
        page.set_content(_channel(inbox))
        page.screenshot(path=HERE / "discord.png", full_page=True)


def _channel(inbox: list[dict[str, Any]]) -> str:
    parts = []
    colour = 0
    for message in inbox:
        for embed in message["payload"]["embeds"]:
            colour = embed["color"]
            text = html.escape(embed["description"].replace("\\", "")).replace("\n", "<br>")
            footer = html.escape(embed.get("footer", {}).get("text", ""))
            parts.append(
                f"<h1># {message['level']}</h1><article><b>{html.escape(embed['title'])}</b>"
                f"<p>{text}</p><small>{footer}</small></article>"
            )
    return CARD.format(colour=f"#{colour:06x}", body="".join(parts))


def _inbox(state: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{state['url']}/sandbox/inbox").json()
    return found


def _until(look: Any, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > give_up:
            raise SystemExit(log.read_text())
        time.sleep(1)


if __name__ == "__main__":
    main()
