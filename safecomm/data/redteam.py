"""Harmful prompts: DirectHarm4 (arXiv 2402.18540) and AdvBench (arXiv 2307.15043). Evaluation input only."""

from safecomm.data.rows import Loaded, Prompt
from safecomm.data.table import Table, fault, text_in

PROMPT = ("instruction", "goal", "prompt")
"""The prompt's column: on the hub, in the authors' CSV, in the hub's mirrors."""


def prompts(table: Table, name: str) -> Loaded[Prompt]:
    """Returns harmful prompts with their category and target, where the table has these."""
    table = _with_header(table)
    text, category, target = table.column(PROMPT), table.find(["category"]), table.find(["target"])
    loaded: Loaded[Prompt] = Loaded([])
    seen: set[str] = set()
    for row in table.rows:
        prompt = text_in(row, text)
        if reason := fault(row, prompt, seen):
            loaded.skip(reason)
        else:
            loaded.rows.append(Prompt(name, "red_team", prompt, text_in(row, category), text_in(row, target) or None))
    return loaded


def _with_header(table: Table) -> Table:
    """Gives a bare list of prompts its header: reading one as CSV makes the first prompt the column's name."""
    if len(table.columns) != 1 or " " not in table.columns[0].strip():
        return table
    [first] = table.columns
    rows = [{PROMPT[0]: first}]
    for row in table.rows:
        rows.append({PROMPT[0] if column == first else column: value for column, value in row.items()})
    return Table(rows, table.where)
