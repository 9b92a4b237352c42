"""Every method on every fact model, and beside them MEMIT written plainly, in one table.

    python benchmarks/edit_matrix.py -o edit-matrix

The plain implementation of the published method (`plain_memit.py`) gets the λ that is best for it:
of each model it is chosen on cases of the split dev, by the harmonic mean of exact accuracy on
prompts, paraphrases and neighbours at the largest number of edits. The table is measured on the
split test, on which nothing was chosen. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import plain_memit

from hubedit.benching import Matrix, bench
from hubedit.benching.cells import Cell
from hubedit.benching.table import markdown, picture
from hubedit.cli.talk import TerminalTalk
from hubedit.editions import open_edition
from hubedit.hub import Hub
from hubedit.layouts import LAYOUTS
from hubedit.plugins import PluginInfo, Plugins, load_plugins

METHODS = "rome,memit,emmet,alphaedit,kn,ft,ft-l,ft-m,lora"
MODELS = "facts-gpt2,facts-llama,facts-bert,facts-t5"
WEIGHTS = (0.3, 3.0, 30.0, 300.0, 3000.0, 20_000.0)
"""λ to choose from; the last is the published one of GPT-2 XL."""
PLAIN = plain_memit.PlainMemit.name


def with_plain() -> Plugins:
    """The installed plugins and the plain implementation."""
    plugins = load_plugins()
    plugins.add(PluginInfo("plain", "benchmarks", "0"), plain_memit)
    return plugins


def merit(cell: Cell) -> float:
    """The harmonic mean of exact accuracy on prompts, paraphrases and neighbours."""
    score = cell.score("all", "score-exact")
    return score.after if score is not None else 0.0


def best_weight(model: str, edits: int, plugins: Plugins, output: Path) -> float:
    """The λ that serves the plain implementation best on cases that are not reported."""
    found = {}
    for weight in WEIGHTS:
        matrix = bench(
            [PLAIN],
            [model],
            (edits,),
            output=output,
            split="dev",
            count=edits,
            settings={PLAIN: {"weight": weight}},
            plugins=plugins,
        )
        found[weight] = merit(matrix.cells[0])
        print(f"{model}: λ = {weight:g} gives {found[weight]:.3f} on dev", file=sys.stderr)
    return max(found, key=found.__getitem__)


def is_causal(model: str, plugins: Plugins) -> bool:
    """Whether the plain implementation knows what to do with a model."""
    base = open_edition(str(plugins.models()[model].directory), Hub).stack.base
    return LAYOUTS[base.model_type].architecture == "causal"


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--edits", default="1,10,50")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path, default=Path("edit-matrix"))
    args = parser.parse_args()
    began = time.perf_counter()
    output = args.output.absolute()
    os.environ.setdefault("HUBEDIT_HOME", str(output / "home"))
    plugins, talk = with_plain(), TerminalTalk()
    models, edits = args.models.split(","), [int(text) for text in args.edits.split(",")]
    cells: list[Cell] = []
    columns, weights = [], {}
    methods = args.methods.split(",")
    for model in models:
        chosen = [*methods]
        settings = {}
        if is_causal(model, plugins):
            weights[model] = best_weight(model, max(edits), plugins, output / "dev")
            settings = {PLAIN: {"weight": weights[model]}}
            chosen.insert(chosen.index("memit") + 1 if "memit" in chosen else 0, PLAIN)
        matrix = bench(
            chosen,
            [model],
            edits,
            output=output / "test",
            settings=settings,
            threads=args.threads,
            plugins=plugins,
            talk=talk,
            done=lambda cell: talk.log(f"{cell.model} {cell.method} {cell.edits}: {cell.state}"),
        )
        cells += matrix.cells
        columns += matrix.models
    whole = Matrix(
        hubedit=matrix.hubedit,
        seed=matrix.seed,
        threads=matrix.threads,
        methods=(*methods, PLAIN),
        edits=tuple(edits),
        models=tuple(columns),
        cells=tuple(cells),
    )
    page = markdown(whole)
    (output / "matrix.json").write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (output / "matrix.md").write_text(page, encoding="utf-8")
    (output / "matrix.png").write_bytes(picture(whole))
    print(page)
    for model, weight in weights.items():
        print(f"{PLAIN} on {model}: λ = {weight:g}, chosen on dev")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
