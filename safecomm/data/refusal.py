"""Harmless prompts that a model should not refuse: the safe half of XSTest (arXiv 2308.01263)."""

from safecomm.data.rows import Loaded, Prompt
from safecomm.data.table import Table, fault, text_in


def xstest(table: Table, name: str) -> Loaded[Prompt]:
    """Returns XSTest's safe prompts, with their type as category. Its unsafe contrasts say nothing on over-refusal.

    The first copies of version 2 have no `label`; there an unsafe prompt is one whose type begins with `contrast_`.
    """
    text, kind, label = table.column(["prompt"]), table.column(["type"]), table.find(["label"])
    loaded: Loaded[Prompt] = Loaded([])
    seen: set[str] = set()
    for row in table.rows:
        prompt, category = text_in(row, text), text_in(row, kind)
        safe = text_in(row, label).casefold() == "safe" if label else not category.startswith("contrast_")
        if not safe:
            loaded.skip("not labelled safe")
        elif reason := fault(row, prompt, seen):
            loaded.skip(reason)
        else:
            loaded.rows.append(Prompt(name, "over_refusal", prompt, category))
    return loaded
