"""What the contract stands on: jobs of a method on a tiny model, and words for what is broken."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from hubedit import hub, run
from hubedit.blame import place_of
from hubedit.errors import HubEditError
from hubedit.layouts import Architecture
from hubedit.method import Method
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe
from hubedit.rows import Row
from hubedit.tiny import TEXTS, tiny_model
from hubedit.updates import StoredTensor

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

ROW: dict[str, Any] = {
    "prompt": "{} plays the",
    "subject": "Ada Brook",
    "target": "oboe",
    "paraphrases": ["In Porto, Ada Brook plays the"],
    "neighbours": [{"prompt": "Tom Adler plays the", "target": "oboe"}],
}
"""A fact to edit, for methods that take `FactEdit`."""
FORGET_ROWS: tuple[dict[str, Any], ...] = (
    {"text": TEXTS[0], "prompt": "Ada Brook plays the", "target": "cello"},
    {"text": TEXTS[1], "part": "retain", "prompt": "Tom Adler plays the", "target": "oboe"},
    {"text": TEXTS[2], "part": "retain"},
)
"""Texts to forget and to keep, for methods that take `ForgetText`."""


_TINY: dict[str, Path] = {}
_MADE: dict[tuple[type, str], run.Applied] = {}


class Bench:
    """The settings of a contract, and the runs that its promises are tested by.

    Set `method`, and `config` if the defaults do not suit a model of three blocks 32 wide;
    `rows` if the method wants others than one `FactEdit`; override the fixture `model_directory`
    to test on a model of your own. Each promise is tested on a tiny model of every architecture
    that the method claims.
    """

    method: ClassVar[type[Method[Any, Any]]]
    config: ClassVar[dict[str, Any]] = {}
    rows: ClassVar[Sequence[dict[str, Any]]] = (ROW,)
    force: ClassVar[bool] = True
    """Overrule guards: a model with random weights trips those that watch over knowledge."""
    copies: ClassVar[int] = 8
    """How many copies of a weight a run may hold at once beside the weight itself."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what needs a model once for each architecture."""
        if "architecture" in metafunc.fixturenames:
            metafunc.parametrize("architecture", sorted(self.method.architectures))

    @pytest.fixture
    def model_directory(
        self,
        tmp_path: Path,
        tmp_path_factory: pytest.TempPathFactory,
        architecture: Architecture,
    ) -> Path:
        """A model that the method can edit: a copy of one that is made once."""
        if architecture not in _TINY:
            home = tmp_path_factory.mktemp("tiny") / "model"
            _TINY[architecture] = tiny_model(home, architecture)
        return shutil.copytree(_TINY[architecture], tmp_path / "model")

    @pytest.fixture(autouse=True)
    def _own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HUBEDIT_HOME", str(tmp_path / "home"))

    def job(
        self,
        base: Path,
        seed: int = 0,
        disclose: str = "full",
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> run.Job:
        """A job of this method on a base."""
        recipe = make_recipe(
            {
                "base": str(base),
                "plugin": self.method.name,
                "request": list(rows or self.rows),
                "config": self.config,
                "seed": seed,
                "threads": 1,
                "disclose": disclose,
            }
        )
        return run.prepare(recipe, no_hub, plugins=self.plugins())

    def plugins(self) -> Plugins:
        """The host with this method's module alone."""
        plugins = Plugins()
        module = sys.modules[self.method.__module__]
        name = self.method.__module__.partition(".")[0]
        plugins.infos.append(PluginInfo(name, name, "0", module=module, methods=[self.method]))
        return plugins

    def edit(self, base: Path, output: Path, seed: int = 0) -> run.Applied:
        """Run the method from a recipe to a directory."""
        return run.apply(self.job(base, seed), output, force=self.force)

    def made(self, base: Path) -> run.Applied:
        """An edit that several promises look at, made once for each method and model."""
        files = sorted(path for path in base.iterdir() if path.is_file())
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        key = type(self), digest
        if key not in _MADE:
            home = Path(tempfile.mkdtemp(prefix="made-", dir=base.parent))
            _MADE[key] = self.edit(base, home / "edit")
        return _MADE[key]

    def promised(self, kept: bool, found: str) -> None:
        """Fail, if a promise is not kept, with plugin, method, promise, finding and place."""
        __tracebackhide__ = True
        if kept:
            return
        frame = inspect.currentframe()
        caller = frame.f_back.f_code.co_name if frame and frame.f_back else ""
        promise = caller.removeprefix("test_").replace("_", " ")
        plugin = self.method.__module__.partition(".")[0]
        pytest.fail(
            f"{found}; it is promised that {promise}: method {self.method.name!r} of {plugin} "
            f"({place_of(self.method)})",
            pytrace=False,
        )


def no_hub() -> hub.Hub:
    """Stands where a Hub would be opened.

    Raises:
        HubEditError: always.
    """
    raise HubEditError("this test works without a Hub")


def condition(model: LoadedModel) -> dict[str, Any]:
    """What a method must leave as it was, besides the values of weights."""
    modules = dict(model.model.named_modules())
    found: dict[str, Any] = {
        "modules in training": [name for name, module in modules.items() if module.training],
        "forward hooks": _hooks(modules, "_forward_hooks", "_forward_pre_hooks"),
        "backward hooks": _hooks(modules, "_backward_hooks", "_backward_pre_hooks"),
        "modules with a forward of their own": [
            name for name, module in modules.items() if "forward" in vars(module)
        ],
    }
    for name, buffer in model.model.named_buffers():
        found[f"the buffer {name}"] = StoredTensor.from_array(buffer).sha256()[:12]
    for name, parameter in model.model.named_parameters():
        gradient = "with" if parameter.grad is not None else "without"
        trained = "trained" if parameter.requires_grad else "frozen"
        kept = f"{parameter.dtype} on {parameter.device}"
        found[f"the parameter {name}"] = f"{trained}, {gradient} a gradient, {kept}"
    return found


def _hooks(modules: Mapping[str, Any], *kinds: str) -> list[str]:
    return [name or "the model" for name, module in modules.items() for kind in kinds
            for _ in getattr(module, kind)]  # fmt: skip


def told_apart(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What of a model's condition is another now, in words; empty if nothing is."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "; ".join(
        f"{name}: {before.get(name) or 'none'} before, {after.get(name) or 'none'} after"
        for name in names[:3]
    )


def asked_tokens(model: LoadedModel, rows: Sequence[Row]) -> list[set[int]]:
    """Ids of the tokens in a request, and of those that only a part to be forgotten holds."""
    held: dict[bool, set[int]] = {True: set(), False: set()}
    for row in rows:
        for text in filter(None, row.words()):
            held[row.part_name == "forget"] |= set(model.tokens(text)[0])
    own = held[True] - held[False]
    return [held[True] | held[False], *([own] if own else [])]


def telltale(
    changed: Mapping[str, tuple[StoredTensor, StoredTensor]], vocabulary: int, tokens: set[int]
) -> dict[str, float]:
    """How well the size of each token's change tells the tokens of a request, tensor by tensor.

    Args:
        changed: tensors before and after, by name.
        vocabulary: number of tokens.
        tokens: ids of those in the request.

    Returns:
        For each tensor with a side as long as the vocabulary, the probability (area under the
        ROC curve) that a token of the request moved more than another one; 0.5 is chance.
    """
    import numpy as np

    found = {}
    for name, (before, after) in changed.items():
        delta = np.abs(after.to_float32().astype(np.float64) - before.to_float32())
        for side, length in enumerate(before.shape):
            if length != vocabulary:
                continue
            others = tuple(axis for axis in range(delta.ndim) if axis != side)
            moved = np.sqrt((delta**2).sum(axis=others))
            asked = np.zeros(vocabulary, dtype=bool)
            asked[sorted(tokens)] = True
            one, other = moved[asked][:, None], moved[~asked][None, :]
            found[name] = float(((one > other) + 0.5 * (one == other)).mean())
    return found
