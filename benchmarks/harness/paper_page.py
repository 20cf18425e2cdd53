"""From lines of paper_preset.jsonl to docs/paper-preset.md. What the numbers mean in words is in findings.md."""

from __future__ import annotations

import math

from .markdown import header, machines, read_findings, row
from .paper import RESULTS, SIZES, VARIANTS
from .paths import DOCS
from .runner import read
from .sets import SETS, title_of

PAGE = DOCS / "paper-preset.md"
SHOWN = ("FOSCTTM", "recall@10", "kNN accuracy")


def write_page() -> None:
    """The page, from the results that are there."""
    PAGE.write_text("\n".join(page_lines()))


def page_lines() -> list[str]:
    """What was changed and why, the variants, then a table for each size and set."""
    results = read(RESULTS)
    lines = ["# The published shape", "", read_findings()["paper"], "", "## Variants", ""]
    lines += [*(f"- **{name}**: {variant.about}." for name, variant in VARIANTS.items()), ""]
    for size, about in SIZES.items():
        of_size = [line for line in results if line["size"] == size]
        lines += [f"## Size: {size}", "", f"{about.about}.", ""]
        for name in SETS:
            of_set = [line for line in of_size if line["set"] == name]
            lines += _table(name, of_set, math.log(about.batch_size)) if of_set else []
    return lines + machines(line["machine"] for line in results)


def _table(name: str, of_set: list[dict], chance: float) -> list[str]:
    order = list(VARIANTS)
    heads = ["variant", "epochs", "kept", f"loss, {chance:.2f} is chance", "validation FOSCTTM ↓"]
    lines = header([*heads, "FOSCTTM ↓", "recall@10", "kNN accuracy", "seconds"])
    for line in sorted(of_set, key=lambda line: (order.index(line["variant"]), line["seed"])):
        loss, scores, kept = line["contrastive"], line["scores"], line["best epoch"]
        lines.append(
            row([
                line["variant"], str(line["epochs"]), "start" if kept is None else str(kept + 1),
                f"{loss[0]:.2f} → {loss[-1]:.2f}", f"{line['validation FOSCTTM']:.3f}",
                *(f"{scores[score]:.3f}" if score in scores else "–" for score in SHOWN), f"{line['train_s']:,.0f}",
            ])
        )  # fmt: skip
    patches = ", ".join(f"{n} patches of {kind}" for kind, n in of_set[0]["patches"].items())
    return [
        f"### {title_of(name)}",
        "",
        f"{SETS[name].about}; {of_set[0]['cells']:,} training cells, {patches}.",
        "",
        *lines,
        "",
    ]
