"""A sweep whose trials end one by one, without engines."""

import copy
from pathlib import Path

from benchmark import benchmark
from small_sweep import LEAST

from safecomm.judging.verdicts import read_rows
from safecomm.report.live import records_of
from safecomm.report.page import write_report
from safecomm.report.trials_table import table_of
from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.statistics.metrics import rates
from safecomm.storage import shared
from safecomm.storage.store import Store, write_json

EXPLORER = benchmark("explorer")
PROMPTS = 80


class LiveRun:
    """The run folder of a sweep that has begun."""

    def __init__(self, storage: Path | str):
        arms = {"safe_lora": [{"safe_lora": {"lowest": {"grid": [2, 4]}}}]}
        sweep = copy.deepcopy(LEAST) | {"arms": arms, "storage": str(storage)}
        self.sweep = Sweep.model_validate(sweep)
        self.run = RunFolder(self.sweep)
        self.folder = self.run.path
        self.folder.mkdir(parents=True)
        write_json(self.folder / "sweep.json", self.sweep.resolved())
        write_json(self.folder / "plan.json", {"arms": {"original": {"trials": 1}, "safe_lora": {"trials": 2}}})
        self.run.publish("sweep.json", "plan.json")

    def end(self, arm: str, lowest: int | None = None, split: str = "search", error: str = "") -> TrialRecord:
        """Ends a trial with invented answers, or with an error."""
        point = {"safe_lora.lowest": lowest} if lowest else {}
        chain = [["safe_lora", {"lowest": lowest}]] if lowest else []
        trial = Trial.of({"arm": arm, "point": point, "chain": chain, "seed": 0, "split": split})
        if error:
            return self.run.keep(TrialRecord.of(trial, "failed", error=error))
        key = f"{arm}-{lowest}-{split}"
        folder = self.folder.parent / "store" / "evaluation" / key
        folder.mkdir(parents=True)
        unsafe = {"original": 0.05, "undefended": 0.6}.get(arm, 0.2)
        EXPLORER.answers(PROMPTS, unsafe, seed=lowest or 1).to_parquet(folder / "rows.parquet")
        shared.publish(folder / "rows.parquet")
        measured = rates(read_rows(folder), EXPLORER.JUDGES)
        known = {"evaluation": key, "adapter": "a", "adapter_path": "", "rates": measured}
        return self.run.keep(TrialRecord.of(trial, "done", **known))

    def publish(self) -> Path:
        """Writes the report, as the driver does at the end."""
        table = table_of(records_of(self.folder, self.sweep.resolved()), Store(self.folder.parent / "store")).assign(
            names="[]"
        )
        table.to_parquet(self.folder / "trials.parquet")
        return write_report(self.folder)
