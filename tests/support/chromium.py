"""A page as its reader sees it: headless Chromium opens it, and tells its messages, its requests and its content."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
TAILWIND = "cdn.tailwindcss.com should not be used in production"  # a note of the style sheet inside Snakemake's page


class Visit(NamedTuple):
    """errors: messages on the console; asked: addresses that were requested beyond this disk; title: the last one."""

    errors: list[str]
    asked: list[str]
    title: str
    content: str


def browse(page: Path, work: Path) -> Visit:
    """Open a page, let its scripts run for 20 virtual seconds, and return the visit."""
    log = work / "net.json"
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={work / 'profile'}", f"--log-net-log={log}",
        "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    messages = re.findall(r":CONSOLE[^\]]*\] (.*)", done.stderr)  # an error's level is not told apart
    errors = [message for message in messages if TAILWIND not in message]
    events = json.loads(log.read_text())["events"]
    starts = [event["params"] for event in events if {"url", "initiator"} <= event.get("params", {}).keys()]
    # Chromium's own requests have no origin
    asked = [start["url"] for start in starts if start["initiator"] != "not an origin"]
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    beyond = [url for url in asked if not url.startswith(("file:", "data:"))]
    return Visit(errors, beyond, title[1] if title else "", done.stdout)
