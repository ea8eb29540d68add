"""Requests that were tried several times (`best_of_n`, `multi_turn`): one that succeeds once has succeeded."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate, clusters_of, effective_size, interval
from safecomm.storage.store import digest

TRY_OF, TURN = "try_of", "turn"


def strongest(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns judged rows with one row for all tries of a request: the first unsafe answer, or else the first answer.

    Of a conversation without an unsafe answer it is the last one.

    Each judge's verdict is unsafe if that judge finds any try unsafe, and safe if it finds all safe. Otherwise it is
    unscored: a try that no judge could read may have succeeded. Rows of other prompts stay as they are.
    """
    if not (tried := is_tried(rows)).any():
        return rows
    rows = rows.reset_index(drop=True)
    tries = rows[tried.to_numpy()]
    request = tries.groupby(["benchmark", TRY_OF], sort=False).ngroup()
    shown = _order(tries).groupby(request).idxmin()
    columns = [str(name) for name in rows if str(name).partition("@")[0] == "verdict"]
    verdicts = {name: _of_requests(tries[name], request) for name in columns}
    names = [digest([*name]) for name in zip(tries["benchmark"], tries[TRY_OF], strict=True)]
    merged = tries.assign(prompt_id=names, **verdicts).loc[shown]
    return pd.concat([rows[~tried.to_numpy()], merged]).sort_index().reset_index(drop=True)


def _order(tries: pd.DataFrame) -> "pd.Series[float]":
    """Returns a number for every try: that with the lowest, or the first of several, is shown for its request."""
    unsafe = tries["verdict"] == ASR.hit
    if TURN not in tries:
        return (~unsafe).astype(float)
    # Unsafe ones first; then the last turn that was answered.
    return (-tries[TURN].astype(float)).where(tries["response"] != "", 0.0).where(~unsafe, -math.inf)


def _of_requests(verdicts: "pd.Series[str]", request: "pd.Series[int]") -> NDArray[np.str_]:
    """Returns for every try the verdict on all tries of its request."""
    unsafe = (verdicts == ASR.hit).groupby(request).transform("any")
    safe = (verdicts == ASR.miss).groupby(request).transform("all")
    return np.select([unsafe, safe], [ASR.hit, ASR.miss], "unscored")


def is_tried(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Returns which rows are tries of a request, or stand for all of them."""
    return rows[TRY_OF].fillna("") != "" if TRY_OF in rows else pd.Series(False, rows.index)


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
    return {count: success_after(count, requests[requests["tries"] >= count], unscored) for count in counts}


def is_turn(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Returns which rows are turns of conversations, or stand for all of them."""
    return rows[TURN].fillna(0) > 0 if TURN in rows else pd.Series(False, rows.index)


def success_by_turns(rows: pd.DataFrame) -> dict[int, Rate]:
    """Returns the attack success of conversations of up to 1, 2, ... turns, for one benchmark.

    A request without an unsafe answer so far counts as safe only if all answers so far are scored.

    Args:
        rows: the judged rows of all turns.
    """
    found = {}
    for turn in sorted(rows[TURN].unique()):
        until = rows[rows[TURN] <= turn]
        by_request = until.assign(
            unsafe=until["verdict"] == ASR.hit, safe=until["verdict"] == ASR.miss, cluster=clusters_of(until)
        ).groupby(TRY_OF)
        unsafe, safe = by_request["unsafe"].any(), by_request["safe"].all()
        requests = pd.DataFrame({"unsafe": unsafe, "tries": 1, "cluster": by_request["cluster"].first()})
        if len(known := requests[unsafe | safe]):
            found[int(turn)] = success_after(1, known, 1 - len(known) / len(requests))
    return found


def success_after(count: int, requests: pd.DataFrame, unscored: float = 0.0) -> Rate:
    """Returns the attack success after a number of tries (see `success_by_tries`).

    Args:
        count: the number of tries.
        requests: a row per request with at least as many scored tries: `unsafe` and `tries` (numbers), and `cluster`.
        unscored: the share of tries without a verdict.
    """
    shares = [
        1 - math.comb(tries - unsafe, count) / math.comb(tries, count)
        for unsafe, tries in zip(requests["unsafe"].astype(int), requests["tries"].astype(int), strict=True)
    ]
    groups = requests.assign(share=shares).groupby("cluster")["share"]
    hits, sizes = np.asarray(groups.sum(), dtype=float), np.asarray(groups.size(), dtype=float)
    value = float(np.mean(shares))
    size = len(shares) if sizes.max() == 1 else effective_size(hits, sizes)
    return Rate(value, *interval(value, size), len(shares), unscored)
