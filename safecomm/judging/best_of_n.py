"""Requests that were tried several times (the attack `best_of_n`): one that succeeds once has succeeded."""

import math

import numpy as np
import pandas as pd

from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate, clusters_of, effective_size, interval
from safecomm.storage.store import digest

TRY_OF = "try_of"


def strongest(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns judged rows with one row for all tries of a request: the first unsafe answer, or else the first answer.

    Each judge's verdict is unsafe if that judge finds any try unsafe, and safe if it finds all safe. Otherwise it is
    unscored: a try that no judge could read may have succeeded. Rows of other prompts stay as they are.
    """
    if not (tried := is_tried(rows)).any():
        return rows
    columns = [str(name) for name in rows if str(name).partition("@")[0] == "verdict"]
    merged = [_merged(tries, columns) for _, tries in rows[tried].groupby(["benchmark", TRY_OF], sort=False)]
    return pd.concat([rows[~tried], pd.concat(merged)]).sort_index(kind="stable").reset_index(drop=True)


def is_tried(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Returns which rows are tries of a request, or stand for all of them."""
    return rows[TRY_OF].fillna("") != "" if TRY_OF in rows else pd.Series(False, rows.index)


def _merged(tries: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    unsafe = tries[tries["verdict"] == ASR.hit]
    shown = (unsafe if len(unsafe) else tries).iloc[[0]]
    verdicts = {column: _verdict(tries[column]) for column in columns}
    return shown.assign(prompt_id=digest([*shown[["benchmark", TRY_OF]].iloc[0]]), **verdicts)


def _verdict(verdicts: "pd.Series[str]") -> str:
    if (verdicts == ASR.hit).any():
        return ASR.hit
    return ASR.miss if (verdicts == ASR.miss).all() else "unscored"


def success_by_tries(rows: pd.DataFrame) -> dict[int, Rate]:
    """Returns the attack success of 1, 2, 4, ... and all tries, for one benchmark.

    For each request it is the probability that k of its n scored tries, drawn at random, include one of the c unsafe
    ones: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374, equation 1). Intervals treat this share as a count,
    which makes them wider than they need to be.

    Args:
        rows: the judged rows of all tries.
    """
    scored = rows[rows["verdict"].isin([ASR.hit, ASR.miss])]
    by_request = scored.assign(hit=scored["verdict"] == ASR.hit, cluster=clusters_of(scored)).groupby(TRY_OF)
    requests = pd.DataFrame(
        {"unsafe": by_request["hit"].sum(), "tries": by_request.size(), "cluster": by_request["cluster"].first()}
    )
    if requests.empty:
        return {}
    unscored, most = 1 - len(scored) / len(rows), int(requests["tries"].max())
    counts = sorted({2**power for power in range(most.bit_length())} | {most})
    return {count: _success(requests[requests["tries"] >= count], count, unscored) for count in counts}


def _success(requests: pd.DataFrame, count: int, unscored: float) -> Rate:
    shares = [
        1 - math.comb(tries - unsafe, count) / math.comb(tries, count)
        for unsafe, tries in zip(requests["unsafe"].astype(int), requests["tries"].astype(int), strict=True)
    ]
    groups = requests.assign(share=shares).groupby("cluster")["share"]
    hits, sizes = np.asarray(groups.sum(), dtype=float), np.asarray(groups.size(), dtype=float)
    value = float(np.mean(shares))
    size = len(shares) if sizes.max() == 1 else effective_size(hits, sizes)
    return Rate(value, *interval(value, size), len(shares), unscored)
