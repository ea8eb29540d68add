"""The HTML page works offline, agrees with trials.parquet, and escapes answers."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from browser import needs_browser, opened

from safecomm.errors import UsageError
from safecomm.report.page import write_report
from safecomm.report.run import headline, read_run
from safecomm.statistics.metric_table import BY_NAME


class Page(HTMLParser):
    """The page's tags, its text by whether a closed <details> hides it, and its scripts by id."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.hidden: list[str] = []
        self.shown: list[str] = []
        self.scripts: dict[str, str] = {}
        self._open: list[bool] = []
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag == "details":
            self._open.append("open" in named)
        if tag in ("script", "style"):
            self._script = named.get("id") or named.get("data-plot") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag == "details":
            self._open.pop()
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = data
        else:
            (self.shown if all(self._open) else self.hidden).append(data)


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return write_report(run_folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_figures_match_the_trials(page: Page, run_folder: Path) -> None:
    trials = pd.read_parquet(run_folder / "trials.parquet")
    report = trials[(trials["split"] == "report") & (trials["status"] == "done")]
    shown = json.loads(page.scripts["trials"], parse_constant=pytest.fail)["headline"]
    assert [row["arm"] for row in shown] == ["original", "undefended", "safe_instruct", "safe_merge"]
    for row in shown:
        place = (row["arm"], json.loads(row["point"]))
        (trial,) = [one for one in report.to_dict("records") if (one["arm"], json.loads(one["point"])) == place]
        for column in (f"{metric}{part}" for metric in BY_NAME for part in ("", "_low", "_high", "_n", "_unscored")):
            assert row[column] == pytest.approx(trial[column], abs=1e-12), (row["arm"], column)


def test_all_trials_are_embedded_unrounded(page: Page, run_folder: Path) -> None:
    embedded = pd.DataFrame(json.loads(page.scripts["trials"])["trials"])
    trials = pd.read_parquet(run_folder / "trials.parquet")
    assert embedded["asr"].tolist() == pytest.approx(trials["asr"].tolist(), nan_ok=True, abs=0)


def test_the_table_shows_rates_with_interval_count_and_unscored_share(page: Page) -> None:
    text = " ".join("".join(page.shown).split())
    assert "65.0%" in text
    assert "[42.0, 83.7] n=20" in text  # 13 of 20
    assert "4.8% unscored" in text  # 1 of 21


def test_page_loads_no_external_resources(page: Page) -> None:
    assert not [named for tag, named in page.tags if tag in ("link", "img", "iframe", "base") or "src" in named]
    (policy,) = [named["content"] for _, named in page.tags if named.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_markup_in_answers_and_errors_stays_text(page: Page) -> None:
    assert ("b", {}) not in page.tags
    assert "window.broken" in "".join(page.shown)
    assert not any("window.broken" in text for name, text in page.scripts.items() if name in ("script", "style"))


def test_failed_trials_are_listed_with_reason_and_log(page: Page) -> None:
    text = "".join(page.shown)
    assert "no engine answered" in text
    assert "logs/t99.txt" in text


def test_selected_modules_match_the_realign_stage(page: Page) -> None:
    traces = json.loads(page.scripts["plot-rho"])["data"]
    chosen = [trace for trace in traces if trace["name"] == "selected by the recommended point"]
    assert [len(trace["x"]) for trace in chosen] == [1, 0]


@needs_browser
def test_page_opens_in_a_browser_without_an_error(run_folder: Path, html: str) -> None:
    with opened(run_folder / "report.html") as page:
        drawn = page.eval_on_selector_all(".plot.js-plotly-plot", "plots => plots.map(plot => plot.id)")
        assert drawn == ["plot-trade-off", "plot-parallel", "plot-curves", "plot-rho"]
        assert page.locator(".main-svg").count() >= 3


@needs_browser
def test_plots_stand_below_each_other_on_a_window_that_became_narrow(run_folder: Path, html: str) -> None:
    """Plotly forgets a plot's height when the window changes: all plots collapsed onto the text below them."""
    with opened(run_folder / "report.html") as page:
        heights = "() => [...document.querySelectorAll('.plot')].map(plot => plot.clientHeight)"
        wide = page.evaluate(heights)
        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_function(f"before => ({heights})()[0] > before", arg=wide[0])
        narrow = dict(zip(("trade_off", "parallel", "curves", "rho"), page.evaluate(heights), strict=True))
        assert min(wide) > 300 and narrow["parallel"] == wide[1] and narrow["curves"] > wide[2]
        drawn = "() => [...document.querySelectorAll('.plot .main-svg')].every(plot => plot.clientWidth <= 390)"
        page.wait_for_function(drawn)


def test_page_renders_if_all_trials_failed(run_folder: Path, tmp_path: Path) -> None:
    trials = pd.read_parquet(run_folder / "trials.parquet")
    trials[trials["status"] == "failed"].dropna(axis="columns", how="all").to_parquet(tmp_path / "trials.parquet")
    shutil.copy(run_folder / "sweep.json", tmp_path)
    text = "".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).shown)
    assert "No recommendation" in text
    assert "no engine answered" in text


def test_page_renders_without_stored_responses(run_folder: Path, tmp_path: Path) -> None:
    for name in ("trials.parquet", "sweep.json"):
        shutil.copy(run_folder / name, tmp_path)
    assert "not in the store" in "".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).shown)


def test_a_page_with_answers_is_kept_when_the_store_is_gone(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run_folder.parent, tmp_path / "storage")
    run = tmp_path / "storage" / run_folder.name
    before = write_report(run).read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "storage" / "store")
    assert write_report(run).read_text(encoding="utf-8") == before
    assert "is kept as it was" in caplog.text


def test_folder_without_a_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't read sweep\.json"):
        write_report(tmp_path)


def test_corrected_rates_are_shown_next_to_judged_ones(labelled_run: Path) -> None:
    page = Page(write_report(labelled_run).read_text(encoding="utf-8"))
    text = " ".join("".join(page.shown).split())
    assert "90.0%" in text and "80.0%" in text  # the judge's sensitivity and specificity
    (undefended,) = [row for row in json.loads(page.scripts["trials"])["headline"] if row["arm"] == "undefended"]
    assert undefended["asr/lab-harm"] == pytest.approx(0.65)  # 13 of 20
    assert undefended["corrected_asr/lab-harm"] == pytest.approx((0.65 + 0.8 - 1) / (0.9 + 0.8 - 1))
    low, high = undefended["corrected_asr/lab-harm_low"], undefended["corrected_asr/lab-harm_high"]
    assert f"[{low * 100:.1f}, {high * 100:.1f}] n=20" in text and "64.3%" in text
    assert not [name for name in undefended if name in ("corrected_asr", "corrected_asr/lab-teleqna")]


def test_unmeasurable_judge_is_unknown_not_nan(labelled_run: Path) -> None:
    page = Page(write_report(labelled_run).read_text(encoding="utf-8"))
    json.loads(page.scripts["trials"], parse_constant=pytest.fail)
    assert "unknown" in page.shown and "100.0% unscored" in "".join(page.shown)
    assert "nan" not in "".join(page.shown).lower().split()


def test_run_without_measured_judges_has_no_judge_section(page: Page, labelled_run: Path, tmp_path: Path) -> None:
    assert ("section", {"id": "judges"}) not in page.tags
    for name in ("trials.parquet", "sweep.json"):
        shutil.copy(labelled_run / name, tmp_path)
    assert 'id="judges"' not in write_report(tmp_path).read_text(encoding="utf-8")


def test_judges_are_hidden_if_the_sweep_has_no_labels(run_folder: Path, labelled_run: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled_run, tmp_path, dirs_exist_ok=True)
    shutil.copy(run_folder / "sweep.json", tmp_path)
    (tmp_path / "report.html").unlink(missing_ok=True)
    assert 'id="judges"' not in write_report(tmp_path).read_text(encoding="utf-8")


def test_stopped_points_are_listed_and_excluded_from_rates(run_folder: Path, html: str, tmp_path: Path) -> None:
    shutil.copy(run_folder / "sweep.json", tmp_path)
    trials = pd.read_parquet(run_folder / "trials.parquet").assign(share=1.0, reason="")
    early = trials[(trials["arm"] == "safe_instruct") & (trials["split"] == "search")].iloc[:1]
    early = early.assign(trial="t50", point='{"safe_instruct.ratio": 0.9}', status="stopped", share=0.1, accuracy=1.0)
    pd.concat([trials, early.assign(reason="attack success is above the target")]).to_parquet(
        tmp_path / "trials.parquet"
    )
    text = "".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).hidden)
    assert "attack success is above the target" in text and "ratio 0.9" in text
    assert headline(read_run(tmp_path)) == headline(read_run(run_folder))
    assert 'id="stopped"' not in html
