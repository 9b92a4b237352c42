"""Mirror: facts are also asked backwards, before and after the edit."""

from __future__ import annotations

from typing import Any

from hubedit_rome import Rome
from pydantic import Field

import hubedit

__all__ = ["Mirror", "MirroredFact"]


class MirroredFact(hubedit.FactEdit):
    """A fact with a prompt whose answer is the subject: `backwards` holds `{}` for the target."""

    backwards: str = Field("The one with the {} is", description="prompt with `{}` for the target")

    @property
    def mirrored(self) -> str:
        """The fact asked backwards: the new target goes in, the subject should come out."""
        return self.backwards.replace("{}", self.target.strip())

    def questions(self, number: int) -> list[Any]:
        """Those of the fact, and the same backwards: an edit should not make it worse."""
        asked = super().questions(number)
        backwards = {"row": number, "group": "attribute", "prompt": self.mirrored}
        return [*asked, type(asked[0])(**backwards, target=self.subject)]


class Mirror(Rome):
    """ROME (Meng et al. 2022), its facts also asked backwards (Berglund et al. 2023)."""

    name = "mirror"

    @classmethod
    def row_type(cls) -> type[hubedit.Row]:
        """Facts with a prompt that asks backwards."""
        return MirroredFact


@hubedit.hookimpl
def hubedit_methods() -> list[type[hubedit.Method[Any, Any]]]:
    """The methods of this plugin."""
    return [Mirror]
