"""`safecomm view`: who may read a run's report in the browser, and how the page follows the sweep."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, EXPLORER, needs_browser, serious
from command_line import safecomm
from live_run import LiveRun
from small_sweep import ONE_ARM, PATIENCE, offline, write_sweep
from starlette.testclient import TestClient

from safecomm.report.live import LiveReport
from safecomm.report.view import view_app
from safecomm.search.activity import Activity
from safecomm.sweep.lock import only_run

WATCH = """() => {
  const pages = document.getElementById("pages");
  window.versions = new Set();
  new MutationObserver(() => window.versions.add(pages.dataset.version)).observe(pages, { attributes: true });
}"""
"""Collects the versions of the report that the page shows; a reload would forget them."""


@pytest.fixture
def live(tmp_path: Path) -> LiveRun:
    live = LiveRun(tmp_path / "runs")
    live.end("original")
    return live


def test_a_token_is_needed_and_leaves_the_address(live: LiveRun) -> None:
    client = TestClient(view_app(LiveReport(live.folder), "secret"), base_url="http://10.0.0.1", follow_redirects=False)
    for path in ("/", "/view.js", "/status", "/report", "/report.answers.js"):
        assert client.get(path).status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    entered = client.get("/?token=secret")
    assert entered.status_code == 307 and entered.headers["location"] == "/"
    assert "HttpOnly" in entered.headers["set-cookie"] and "secret" not in entered.headers["set-cookie"]
    assert ": search: 1 of at most 3 trials" in client.get("/status").json()["line"]


def test_a_damaged_run_is_one_message(live: LiveRun) -> None:
    client = TestClient(view_app(LiveReport(live.folder), "secret"))
    client.get("/?token=secret")
    (live.folder / "plan.json").write_text("{")
    answer = client.get("/status")
    assert answer.status_code == 500 and "plan.json" in answer.text


@pytest.mark.parametrize("run", ["nowhere", "empty"])
def test_a_folder_without_a_run_is_one_message(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert safecomm(monkeypatch, "view", str(tmp_path / run)) == 2
    assert "sweep.json" in capsys.readouterr().err


def test_a_port_in_use_is_one_message(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(live.folder) as address:
        port = str(urlsplit(address).port)
        assert safecomm(monkeypatch, "view", str(live.folder), "--port", port) == 2
    assert f"--port {port}: Address already in use; choose another --port" in capsys.readouterr().err


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """Runs the command, yields the address that it prints, and ends it with Ctrl-C."""
    command = [sys.executable, "-u", "-m", "safecomm", "view", str(run), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in jobs of the background
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(120_000)
        yield page
        browser.close()
    assert not errors, errors


@needs_browser
def test_the_page_follows_the_sweep_without_a_reload_and_ends_as_the_report(live: LiveRun, page: Any) -> None:
    with serving(live.folder) as address:
        page.goto(address)
        page.evaluate("window.isTheSame = true")
        report = page.frame_locator("iframe:not(.coming)")
        report.locator("#headline").wait_for()
        report.locator(EXPLORER.READY).wait_for()  # the answers of the first trial, on the search split
        for split in ("search", "report"):
            for arm in ("original", "undefended"):
                if (arm, split) != ("original", "search"):
                    live.end(arm, split=split)
        page.get_by_text("report: 2 trials").wait_for()
        report.locator(EXPLORER.READY).wait_for()
        written = live.publish()
        page.get_by_text("The sweep has ended").wait_for()
        page.wait_for_selector("#pages[data-version$=True]")
        assert page.evaluate("window.isTheSame") is True
        shown = page.evaluate("fetch('report').then(answer => answer.text())")
        assert shown == written.read_text(encoding="utf-8")
        assert page.locator("iframe").count() == 1
        page.goto("about:blank")  # it would miss the server


@needs_browser
def test_the_page_shows_the_fleet_and_what_its_numbers_mean(live: LiveRun, page: Any) -> None:
    fleet = "900 tokens/s, 3.1 answers/s, 40 waiting; target 1 of 2 replicas"
    Activity("search: 1 of 3 trials ended", ["safe_lora lowest=2: evaluation rung 1 of 3"], fleet).write(live.folder)
    with only_run(live.folder, print), serving(live.folder) as address:
        page.goto(address)
        part = page.locator("[data-testid=fleet]")
        part.wait_for()
        assert part.inner_text() == fleet
        part.click()
        assert page.get_by_text("Waiting: the questions").is_visible()
        assert serious(page) == []
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and serious(page) == []
        page.goto("about:blank")


@needs_browser
@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
def test_beside_a_real_sweep_the_page_follows_it_without_a_reload_and_ends_as_the_report(
    lab: dict[str, Path], tmp_path: Path, page: Any
) -> None:
    run, command = tmp_path / "runs" / "small", [sys.executable, "-u", "-m", "safecomm", "run"]
    command.append(str(write_sweep(tmp_path, lab, ONE_ARM)))
    page.set_default_timeout(PATIENCE * 1000)
    with subprocess.Popen(command, env=offline(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        assert sweep.stdout and next((line for line in sweep.stdout if (run / "sweep.json").exists()), None)
        said = threading.Thread(target=sweep.stdout.read)
        said.start()
        with serving(run) as address:
            page.goto(address)
            page.evaluate(WATCH)
            page.get_by_text("target 1 of 1 replicas").wait_for()
            page.frame_locator("iframe:not(.coming)").locator(EXPLORER.READY).wait_for()
            assert sweep.poll() is None, "answers are there before the sweep has ended"
            page.get_by_text("The sweep has ended").wait_for()
            page.wait_for_selector("#pages[data-version$=True]")
            assert page.evaluate("window.versions.size") > 2, "the same page showed several versions"
            shown = page.evaluate("fetch('report').then(answer => answer.text())")
            assert shown == (run / "report.html").read_text(encoding="utf-8")
            page.goto("about:blank")
        said.join()
        assert sweep.wait() == 0
