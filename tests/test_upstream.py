"""What docs/upstream.md says about other packages is still true; once it no longer is, its workaround can go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "upstream.md"


def sections() -> dict[str, str]:
    """Code of each section, by its heading."""
    text = PAGE.read_text()
    titles = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        title: "\n".join(re.findall(r"^```python\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL))
        for title, body in zip(["", *titles[1::2]], titles[0::2], strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in sections() if title])
def test_the_upstream_behaviour_is_still_as_documented(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = sections()
    assert "assert " in code[title]
    exec(compile(code[""] + code[title], str(PAGE), "exec"), {"__name__": "upstream"})
