"""`hubedit ask`: the same question to the base and to the edited model."""

from __future__ import annotations

import math
from typing import Any

import click

from hubedit.cli.options import (
    base_option,
    edit_argument,
    hub_opener,
    json_option,
    local_option,
    print_json,
)


@click.command("ask", epilog="Example: hubedit ask me/facts-gpt2-edited@v1 'Ana Brook plays the'")
@edit_argument
@click.argument("prompt")
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(1, 50),
    help="How many next tokens to show.",
)
@click.option(
    "--tokens",
    default=12,
    show_default=True,
    type=click.IntRange(1, 512),
    help="How many tokens to write.",
)
@base_option
@local_option
@json_option
def command(
    edit: str, prompt: str, top: int, tokens: int, base: str | None, local: bool, as_json: bool
) -> None:
    """Ask PROMPT: what each model writes, and its likeliest next tokens."""
    from hubedit import models, places
    from hubedit.cli.talk import TerminalTalk
    from hubedit.editions import open_edition
    from hubedit.errors import RequestError

    if not prompt.strip():
        raise RequestError("the prompt is empty; ask something")
    talk = TerminalTalk(quiet=as_json)
    edition = open_edition(edit, hub_opener(local), base)
    overlay = edition.overlay()
    talk.log(f"loading {edition.stack.base.title}")
    texts = edition.texts()
    model = models.load(edition.base.local(places.model_file_names(edition.base)))

    def answer() -> dict[str, Any]:
        return {
            "text": model.generate([prompt], tokens)[0],
            "next": [
                {"token": token.text, "probability": round(math.exp(token.logprob), 6)}
                for token in model.top_tokens(prompt, top)
            ],
        }

    answers = {"base": answer()}
    if edition.stack.edits:
        for name, tensor in overlay.items():
            model.set_tensor(name, tensor)
        if texts:
            models.read_again(model, texts)
        answers["edited"] = answer()
    if as_json:
        print_json({"prompt": prompt, **answers})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=prompt, title_justify="left")
    for name in answers:
        table.add_column(name)
    table.add_row(*(found["text"].strip() for found in answers.values()))
    table.add_section()
    for line in range(top):
        table.add_row(
            *(
                f"{found['next'][line]['probability']:.4f}  {found['next'][line]['token']!r}"
                for found in answers.values()
            )
        )
    Console(markup=False, highlight=False).print(table)
