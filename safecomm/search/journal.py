"""Opens Optuna's journal of a run, whatever an interruption or a damaged disk left of it.

The trials' records hold all results, and the proposals depend only on them and on the seed: without a journal, the
search makes the same proposals again and finds their records.
"""

import json
import logging
import tempfile
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from safecomm.errors import SafecommError

logger = logging.getLogger(__name__)


def open_journal(journal: Path) -> JournalStorage:
    """Returns the storage in a journal; a damaged journal is moved aside with a warning, and a new one begun.

    Raises:
        SafecommError: if it can be neither read nor moved.
    """
    try:
        if journal.is_file():
            _drop_half_line(journal)
        return _opened(journal)
    except Exception as error:  # Optuna raises any type about a file's content
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:100] or type(error).__name__
    try:
        aside = Path(tempfile.mkdtemp(prefix=f"{journal.name}-damaged-", dir=journal.parent)) / journal.name
        journal.rename(aside)
        found = _opened(journal)
    except OSError as error:
        raise SafecommError(
            f"{journal}: is damaged ({reason}) and can't be moved ({error.strerror}); remove it and run the sweep "
            "again: it goes on from the trials' records"
        ) from error
    logger.warning("%s: is damaged (%s); moved it to %s, going on from the trials' records", journal, reason, aside)
    return found


def _opened(journal: Path) -> JournalStorage:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    for study in storage.get_all_studies():
        storage.get_all_trials(study._study_id, deepcopy=False)
    return storage


def _drop_half_line(journal: Path) -> None:
    """Removes a last line without its end, which an interrupted writer left; the next one would be glued to it.

    Raises:
        ValueError: if the line before it is damaged, which Optuna would notice only once another one follows.
    """
    with journal.open("rb+") as file:
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            file.truncate(len(whole))
        if whole:
            json.loads(whole[whole.rfind(b"\n", 0, -1) + 1 :])
