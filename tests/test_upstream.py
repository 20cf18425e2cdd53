"""What docs/upstream.md says about other packages is still true; once it no longer is, its workaround can go."""

from __future__ import annotations

import contextlib
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

PAGE = Path(__file__).parents[1] / "docs" / "upstream.md"


def sections() -> dict[str, str]:
    """Text of each section, by its heading."""
    titles = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(["", *titles[1::2]], titles[0::2], strict=True))


def code_of(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


def is_gone(text: str) -> bool:
    """Whether the release that is installed is one that no longer behaves so."""
    gone = re.search(r"^\*\*Gone\*\* with (\S+) (\S+)\.$", text, flags=re.MULTILINE)
    return gone is not None and Version(version(gone[1])) >= Version(gone[2])


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in sections() if title])
def test_the_upstream_behaviour_is_still_as_documented(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = sections()
    code = code_of(text[title])
    assert "assert " in code
    with pytest.raises(AssertionError) if is_gone(text[title]) else contextlib.nullcontext():
        exec(compile(code_of(text[""]) + code, str(PAGE), "exec"), {"__name__": "upstream"})
