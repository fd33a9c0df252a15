"""Write the tables of recipe fields in docs/training.md from the code."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path

from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.finetuning.config import FineTuneConfig
from ape_model.training.nano.config import LoopConfig
from ape_model.training.official.recipe import (
    Augmentation,
    DataRow,
    OfficialRecipe,
    OptimizerConfig,
    Schedule,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
KINDS = {
    kind.__name__: kind
    for kind in (
        *(LoopConfig, Phase, Canvas, DataConfig, FineTuneConfig),
        *(OfficialRecipe, DataRow, Schedule, OptimizerConfig, Augmentation),
    )
}
MARK = re.compile(r"(<!-- recipe: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def meanings(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass."""
    found: dict[str, str] = {}
    for base in kind.__mro__[-2:0:-1]:  # without `object`, those that it extends first
        found |= meanings(base)
    (body,) = ast.parse(inspect.getsource(kind)).body
    name = ""
    for node in body.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
        elif isinstance(node, ast.Expr) and name:
            found[name], name = " ".join(ast.literal_eval(node.value).split()), ""
    return found


def table(kind: type) -> str:
    """Return the fields of a dataclass as a table of key, default and meaning."""
    meaning = meanings(kind)
    rows = ["| key | default | means |", "|---|---|---|"]
    for field in fields(kind):
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        default = f"`{value!r}`".replace("'", '"')
        if field.default is MISSING:
            default = "needed" if field.default_factory is MISSING else "its own defaults"
        rows.append(f"| `{field.name}` | {default} | {meaning[field.name]} |")
    return "\n".join(rows)


def filled(page: str) -> str:
    """Return the page with its tables as the code has them."""
    return MARK.sub(lambda found: f"{found[1]}{table(KINDS[found[2]])}\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
