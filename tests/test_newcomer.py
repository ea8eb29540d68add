"""The script that walks a newcomer's path finds every command of the page, whole and in order."""

import shlex

from newcomer import CLONE, PAGE, commands


def test_the_path_leads_from_the_clone_to_the_gate() -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert found[0] == CLONE and found[1] == "make demo"
    assert found[2].startswith("cat > acme.csv <<'END'\nquestion,area\n") and found[2].endswith("\nEND")
    ours = [shlex.split(one) for one in found[3:]]
    assert [words[:2] for words in ours] == [[".venv/bin/safecomm", name] for name in ("plan", "run", "gate", "export")]
    assert all("evaluate.judges=[refusal, compliance]" in words for words in ours[:2]), (
        "commands go on in further lines"
    )
    assert ours[2][2:] == ["runs/acme", "--max-asr", "0.15"], "comments are left out"
