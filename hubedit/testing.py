"""What authors of plugins test with: the contract that every method is held to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from hubedit import context, editions, hub, models, places, planning, run
from hubedit.card import render_card
from hubedit.disclosure import refuse_leaks
from hubedit.errors import ConfigError, HubEditError, MethodError, RequestError
from hubedit.layouts import Architecture
from hubedit.method import Method
from hubedit.plugins import PluginInfo, Plugins
from hubedit.recipe import make_recipe
from hubedit.requests import rows_of
from hubedit.rows import Row
from hubedit.tiny import TEXTS, tiny_model
from hubedit.updates import StoredTensor
from hubedit.verification import verify

if TYPE_CHECKING:
    from hubedit.models import LoadedModel

ROW: dict[str, Any] = {
    "prompt": "{} plays the",
    "subject": "Ada Brook",
    "target": "oboe",
    "paraphrases": ["In Porto, Ada Brook plays the"],
    "neighbours": [{"prompt": "Tom Adler plays the", "target": "oboe"}],
}
FORGET_ROWS: tuple[dict[str, Any], ...] = (
    {"text": TEXTS[0], "prompt": "Ada Brook plays the", "target": "cello"},
    {"text": TEXTS[1], "part": "retain", "prompt": "Tom Adler plays the", "target": "oboe"},
    {"text": TEXTS[2], "part": "retain"},
)


class MethodContract:
    """What hubedit promises of every method; subclass it as `class TestMine(MethodContract)`.

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

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what needs a model once for each architecture."""
        if "architecture" in metafunc.fixturenames:
            metafunc.parametrize("architecture", sorted(self.method.architectures))

    @pytest.fixture
    def model_directory(self, tmp_path: Path, architecture: Architecture) -> Path:
        """A model that the method can edit."""
        return tiny_model(tmp_path / "model", architecture)

    @pytest.fixture(autouse=True)
    def _own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HUBEDIT_HOME", str(tmp_path / "home"))

    def job(self, base: Path, seed: int = 0, disclose: str = "full") -> run.Job:
        """A job of this method on a base."""
        recipe = make_recipe(
            {
                "base": str(base),
                "plugin": self.method.name,
                "request": list(self.rows),
                "config": self.config,
                "seed": seed,
                "threads": 1,
                "disclose": disclose,
            }
        )
        return run.prepare(recipe, _no_hub, plugins=self.plugins())

    def plugins(self) -> Plugins:
        """The host with this method's module alone."""
        plugins = Plugins()
        module = sys.modules[self.method.__module__]
        plugins.infos.append(
            PluginInfo("under-test", "under-test", "0", module=module, methods=[self.method])
        )
        return plugins

    def edit(self, base: Path, output: Path, seed: int = 0) -> run.Applied:
        """Run the method from a recipe to a directory."""
        return run.apply(self.job(base, seed), output, force=self.force)

    def test_some_weight_changes_and_only_declared_ones(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        applied = self.edit(model_directory, tmp_path / "edit")
        changed = {tensor.name for tensor in applied.manifest.tensors}
        assert changed or applied.manifest.files
        model = models.load(model_directory)
        config = self.method.config_type().read(self.config)
        declared = self.method().targets(model.layout, config)
        if declared is not None:
            assert changed <= {model.tensors.tensor_of[name] for name in declared}

    def test_the_same_seed_gives_the_same_bits(self, model_directory: Path, tmp_path: Path) -> None:
        first = self.edit(model_directory, tmp_path / "first")
        second = self.edit(model_directory, tmp_path / "second")
        assert first.manifest.delta.sha256 == second.manifest.delta.sha256
        assert first.manifest.result == second.manifest.result

    def test_the_model_is_left_as_it_was_found(self, model_directory: Path) -> None:
        job = self.job(model_directory)
        model = models.load(model_directory)
        before = _condition(model)
        run.run_method(model, job, self.force, context.Silent())
        after = _condition(model)
        assert after == before

    def test_base_and_delta_rebuild_the_recorded_bits(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        applied = self.edit(model_directory, tmp_path / "edit")
        edition = editions.edits_of(str(applied.directory), _no_hub)
        report = verify(edition, deep=True)
        assert report.problems == []
        assert report.result == applied.manifest.result
        loaded = models.load(
            places.LocalPlace(model_directory).local(["config.json"]), overlay=edition.overlay()
        )
        assert loaded.tensor_hashes() == report.tensors

    def test_the_config_survives_json_and_refuses_unknown_keys(self) -> None:
        kind = self.method.config_type()
        config = kind.read(self.config)
        assert kind.read(json.loads(json.dumps(config.model_dump(mode="json")))) == config
        with pytest.raises(ConfigError, match="no_such_setting"):
            kind.read({**self.config, "no_such_setting": 1})

    def test_every_setting_is_described(self) -> None:
        fields = self.method.config_type().model_fields
        assert [name for name, field in fields.items() if not field.description] == []

    def test_an_empty_request_is_refused(self) -> None:
        with pytest.raises(RequestError):
            rows_of(self.method.row_type(), [])

    def test_the_card_names_method_and_limits(self, model_directory: Path, tmp_path: Path) -> None:
        applied = self.edit(model_directory, tmp_path / "edit")
        edition = editions.edits_of(str(applied.directory), _no_hub)
        card = render_card(edition.stack, edition.manifests, repo="me/edited", weights=False)
        assert self.method.name in card
        assert self.method.summary()

    def test_what_the_method_shows_is_on_the_review_page(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        applied = self.edit(model_directory, tmp_path / "edit")
        folder = applied.directory / "edits" / applied.manifest.edit
        page = (folder / "DIFF.md").read_text(encoding="utf-8")
        shown = {path.name: path.read_bytes() for path in folder.glob("figures/*")}
        assert set(shown) == {f"{figure.name}.png" for figure in applied.manifest.figures}
        assert all(picture.startswith(b"\x89PNG") for picture in shown.values())
        assert [name for name in shown if f"](figures/{name})" not in page] == []

    def test_an_undisclosed_request_leaks_nothing(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        """No words in any file, and no token ids in the rows and norms of what changed."""
        job = self.job(model_directory, disclose="none")
        try:
            applied = run.apply(job, tmp_path / "edit", force=self.force)
        except MethodError as error:
            if "--allow-embeddings" not in str(error):
                raise
            return  # the host has refused what could have told
        files = {
            path.name: path.read_bytes() for path in applied.directory.rglob("*") if path.is_file()
        }
        refuse_leaks(files, job.rows)
        assert applied.manifest.figures == ()
        assert not list(applied.directory.glob("edits/*/figures"))
        model = models.load(model_directory)
        edition = editions.edits_of(str(applied.directory), _no_hub)
        after = edition.overlay()
        found = {
            name: (model.start(name), after.get(name, model.start(name)))
            for name in set(model.tensors.tensor_of.values())
        }
        for known in _asked_tokens(model, job.rows):
            for name, advantage in telltale(found, len(model.tokenizer), known).items():
                assert abs(advantage - 0.5) <= 0.1, f"{name} tells which tokens the request holds"

    def test_what_a_plan_predicts_is_what_the_run_does(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        """The tensors, ranks and bytes of `hubedit plan`, where the method makes it say them."""
        job = self.job(model_directory)
        said = planning.plan(job.recipe, _no_hub, plugins=self.plugins())
        done = run.apply(job, tmp_path / "edit", force=self.force).manifest
        assert (said.rows, said.method) == (done.request.count, done.method.name)
        if said.tensors is not None:
            ranks = {tensor.name: tensor.rank for tensor in said.tensors}
            assert {tensor.name for tensor in done.tensors} <= set(ranks)
            for tensor in done.tensors:
                if ranks[tensor.name] is not None and tensor.rank is not None:
                    assert tensor.rank == ranks[tensor.name]
            if None not in ranks.values():
                assert {tensor.name for tensor in done.tensors} == set(ranks)
        if said.delta is not None:
            assert said.delta == done.delta.nbytes

    def test_importing_the_plugin_is_quiet_and_light(self) -> None:
        module = self.method.__module__.partition(".")[0]
        code = (
            f"import sys, {module}; "
            "print([name for name in ('torch', 'transformers') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"
        assert done.stderr == ""


def edited(
    base: Path, plugin: str, rows: Sequence[Mapping[str, Any]], output: Path, **config: Any
) -> Path:
    """Make an edit of a local model by an installed plugin, as `hubedit apply` does.

    Args:
        base: directory of the model.
        plugin: name of the method.
        rows: the request.
        output: directory of the edit; must not exist.
        config: settings of the method.

    Returns:
        The directory, for `hubedit.load`.
    """
    keys = {"base": str(base), "plugin": plugin, "request": list(rows), "config": config}
    job = run.prepare(make_recipe({**keys, "threads": 1}), _no_hub)
    return run.apply(job, output).directory


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


def _no_hub() -> hub.Hub:
    raise HubEditError("this test works without a Hub")


def _asked_tokens(model: LoadedModel, rows: Sequence[Row]) -> list[set[int]]:
    """Ids of the tokens in a request, and of those that only a part to be forgotten holds."""
    held: dict[bool, set[int]] = {True: set(), False: set()}
    for row in rows:
        for text in row.words():
            held[row.part_name == "forget"] |= set(model.tokens(text)[0])
    own = held[True] - held[False]
    return [held[True] | held[False], *([own] if own else [])]


def _condition(model: LoadedModel) -> dict[str, Any]:
    """What a method must leave as it was, besides the values of weights."""
    found: dict[str, Any] = {"training": [module.training for module in model.model.modules()]}
    for name, parameter in model.model.named_parameters():
        gradient = parameter.grad is not None
        kept = str(parameter.dtype), str(parameter.device)
        found[name] = (parameter.requires_grad, gradient, *kept)
    found["hooks"] = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.model.modules()
    )
    return found


__all__ = ["FORGET_ROWS", "ROW", "TEXTS", "MethodContract", "edited", "telltale", "tiny_model"]
