"""Harmful requests with safe answers, to train on: safety-tuned-llamas (Bianchi et al., arXiv 2309.07875)."""

from safecomm.data.rows import Example, Loaded
from safecomm.data.table import Table, fault, text_in


def examples(table: Table) -> Loaded[Example]:
    """Returns instruction-output rows as exchanges; an `input` follows its instruction after a blank line."""
    instruction, output, context = table.column(["instruction"]), table.column(["output"]), table.find(["input"])
    loaded: Loaded[Example] = Loaded([])
    seen: set[str] = set()
    for row in table.rows:
        prompt = "\n\n".join(filter(None, [text_in(row, instruction), text_in(row, context)]))
        response = text_in(row, output)
        if not response:
            loaded.skip("empty response")
        elif reason := fault(row, prompt, seen):
            loaded.skip(reason)
        else:
            loaded.rows.append(Example(prompt, response))
    return loaded
