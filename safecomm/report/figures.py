"""The figures of a run, for the report page and for W&B."""

from collections.abc import Sequence

import plotly.graph_objects as go

from safecomm.report.best_of_n import TryTable, tries_figure
from safecomm.report.curves import curves
from safecomm.report.drift import GenerationResult, drift_figure
from safecomm.report.modules import Profile, rho_figure
from safecomm.report.parallel import parallel
from safecomm.report.run import Run
from safecomm.report.tampering import TamperCurve, tamper_figure
from safecomm.report.trade_off import trade_off
from safecomm.statistics.metric_table import ACCURACY, ASR


def figures(
    run: Run,
    profile: Profile | None,
    tries: Sequence[TryTable],
    further: Sequence[TamperCurve],
    later: Sequence[GenerationResult],
) -> dict[str, go.Figure]:
    """Returns the figures that a run has data for, by name.

    Args:
        run: the run.
        profile: the alignment profile of its fine-tune, if there is one.
        tries: attack success by the number of tries or turns.
        further: attack success after further training.
        later: the generations of its drift study.
    """
    found = {
        "trade-off": trade_off(run) if {ASR.name, ACCURACY.name} <= set(run.metrics) else None,
        "parallel": parallel(run),
        "curves": curves(run),
        **{table.name: tries_figure(run, table) for table in tries},
        "rho": rho_figure(profile) if profile else None,
        "tamper": tamper_figure(run, further) if further else None,
        "drift": drift_figure(run, later) if later else None,
    }
    return {name: figure for name, figure in found.items() if figure is not None}
