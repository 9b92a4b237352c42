"""The contract: what hubedit promises of every method, one test for each promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hubedit import context, editions, models, places, planning, run
from hubedit.bench import asked_tokens, condition, no_hub, telltale, told_apart
from hubedit.card import render_card
from hubedit.disclosure import refuse_leaks
from hubedit.errors import ConfigError, MethodError, OutputError, RequestError
from hubedit.promises import Promises
from hubedit.requests import rows_of
from hubedit.verification import verify


class MethodContract(Promises):
    """What hubedit promises of every method; subclass it as `class TestMine(MethodContract)`.

    Set `method`, and `config` if the defaults do not suit a model of three blocks 32 wide;
    `rows` if the method wants others than one `FactEdit`; override the fixture `model_directory`
    to test on a model of your own. Each promise is tested on a tiny model of every architecture
    that the method claims.
    """

    def test_some_weight_changes_and_only_declared_ones(self, model_directory: Path) -> None:
        """Whatever `Method.targets` names, nothing else changes."""
        applied = self.made(model_directory)
        changed = {tensor.name for tensor in applied.manifest.tensors}
        self.promised(bool(changed or applied.manifest.files), "nothing changed")
        model = models.load(model_directory)
        config = self.method.config_type().read(self.config)
        declared = self.method().targets(model.layout, config)
        if declared is not None:
            beyond = changed - {model.tensors.tensor_of[name] for name in declared}
            self.promised(
                not beyond,
                f"{', '.join(sorted(beyond)[:4])} changed, and `targets` names "
                f"{', '.join(declared) or 'nothing'}",
            )

    def test_the_same_seed_gives_the_same_bits(self, model_directory: Path, tmp_path: Path) -> None:
        """Everything random comes from `run.generator` and `run.seed`."""
        first = self.made(model_directory).manifest
        second = self.edit(model_directory, tmp_path / "second").manifest
        self.promised(
            (first.delta.sha256, first.result) == (second.delta.sha256, second.result),
            f"two runs gave the deltas {first.delta.sha256[:12]} and {second.delta.sha256[:12]}",
        )

    def test_the_model_is_left_as_it_was_found(self, model_directory: Path) -> None:
        """No hooks, no gradients, no buffer changed, nothing in training: only weights changed."""
        job = self.job(model_directory)
        model = models.load(model_directory)
        before = condition(model)
        run.run_method(model, job, self.force, context.Silent())
        other = told_apart(before, condition(model))
        self.promised(not other, f"the method left {other}")

    def test_base_and_delta_rebuild_the_recorded_bits(self, model_directory: Path) -> None:
        """The published edit verifies, and loads as the model it records."""
        applied = self.made(model_directory)
        edition = editions.edits_of(str(applied.directory), no_hub, str(model_directory))
        report = verify(edition, deep=True)
        self.promised(report.problems == [], "; ".join(report.problems))
        self.promised(report.result == applied.manifest.result, "the result is not as recorded")
        loaded = models.load(
            places.LocalPlace(model_directory).local(["config.json"]), overlay=edition.overlay()
        )
        self.promised(
            loaded.tensor_hashes() == report.tensors, "the model in memory has other bits"
        )

    def test_the_config_survives_json_and_refuses_unknown_keys(self) -> None:
        """What a manifest keeps of the settings gives the same settings again."""
        kind = self.method.config_type()
        config = kind.read(self.config)
        again = kind.read(json.loads(json.dumps(config.model_dump(mode="json"))))
        self.promised(again == config, f"written and read, {config!r} becomes {again!r}")
        with pytest.raises(ConfigError, match="no_such_setting"):
            kind.read({**self.config, "no_such_setting": 1})

    def test_every_setting_is_described(self) -> None:
        """`Field(description=…)` is what `hubedit methods NAME` prints."""
        fields = self.method.config_type().model_fields
        silent = [name for name, field in fields.items() if not field.description]
        self.promised(not silent, f"{', '.join(silent)} of the settings has no description")

    def test_an_empty_request_is_refused(self) -> None:
        """By the host, before the method is asked."""
        with pytest.raises(RequestError):
            rows_of(self.method.row_type(), [])

    def test_the_card_names_method_and_limits(self, model_directory: Path) -> None:
        """A reader of the card learns what was used, and what it does not guarantee."""
        applied = self.made(model_directory)
        edition = editions.edits_of(str(applied.directory), no_hub, str(model_directory))
        card = render_card(edition.stack, edition.manifests, repo="me/edited", weights=False)
        self.promised(self.method.name in card, "the card does not name the method")
        self.promised(bool(self.method.summary()), "the class has no docstring")

    def test_what_the_method_shows_is_on_the_review_page(self, model_directory: Path) -> None:
        """Figures that the run showed are pictures in the edit, and on its page."""
        applied = self.made(model_directory)
        folder = applied.directory / "edits" / applied.manifest.edit
        page = (folder / "DIFF.md").read_text(encoding="utf-8")
        shown = {path.name: path.read_bytes() for path in folder.glob("figures/*")}
        named = {f"{figure.name}.png" for figure in applied.manifest.figures}
        self.promised(set(shown) == named, f"the figures are {named} and the pictures {set(shown)}")
        pictures = all(picture.startswith(b"\x89PNG") for picture in shown.values())
        self.promised(pictures, "a figure is no picture")
        unseen = [name for name in shown if f"](figures/{name})" not in page]
        self.promised(not unseen, f"{', '.join(unseen)} is not on the page")

    def test_an_undisclosed_request_leaks_nothing(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        """No words in any file, and no token ids in the rows and norms of what changed."""
        job = self.job(model_directory, disclose="none")
        try:
            applied = run.apply(job, tmp_path / "edit", force=self.force)
        except (MethodError, OutputError) as error:
            held_back = "--allow-embeddings" in str(error)  # by the host: it could have told
            self.promised(held_back, str(error))
            return
        files = {
            path.name: path.read_bytes() for path in applied.directory.rglob("*") if path.is_file()
        }
        refuse_leaks(files, job.rows)
        figures = applied.manifest.figures or list(applied.directory.glob("edits/*/figures"))
        self.promised(not figures, "figures of an undisclosed edit are published")
        model = models.load(model_directory)
        edition = editions.edits_of(str(applied.directory), no_hub, str(model_directory))
        after = edition.overlay()
        found = {
            name: (model.start(name), after.get(name, model.start(name)))
            for name in set(model.tensors.tensor_of.values())
        }
        for known in asked_tokens(model, job.rows):
            for name, advantage in telltale(found, len(model.tokenizer), known).items():
                self.promised(
                    abs(advantage - 0.5) <= 0.1, f"{name} tells which tokens the request holds"
                )

    def test_what_a_plan_predicts_is_what_the_run_does(self, model_directory: Path) -> None:
        """The tensors, ranks and bytes of `hubedit plan`, where the method makes it say them."""
        job = self.job(model_directory)
        said = planning.plan(job.recipe, no_hub, plugins=self.plugins())
        done = self.made(model_directory).manifest
        assert (said.rows, said.method) == (done.request.count, done.method.name)
        if said.tensors is not None:
            ranks = {tensor.name: tensor.rank for tensor in said.tensors}
            changed = {tensor.name: tensor.rank for tensor in done.tensors}
            beyond = sorted(set(changed) - set(ranks))
            self.promised(not beyond, f"{', '.join(beyond)} changed, which the plan does not name")
            for name, rank in changed.items():
                self.promised(
                    None in (ranks[name], rank) or ranks[name] == rank,
                    f"{name} has an update of rank {rank}, and the plan says {ranks[name]}",
                )
            if None not in ranks.values():
                idle = sorted(set(ranks) - set(changed))
                self.promised(not idle, f"{', '.join(idle)} did not change, as the plan says")
        if said.delta is not None:
            self.promised(
                said.delta == done.delta.nbytes,
                f"the delta has {done.delta.nbytes} bytes, and the plan says {said.delta}",
            )

    def test_importing_the_plugin_is_quiet_and_light(self) -> None:
        """`hubedit plugins` imports every plugin: none prints, and none imports torch."""
        module = self.method.__module__.partition(".")[0]
        command = [sys.executable, "-m", "hubedit.trying", module, "30"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
        self.promised(said["problem"] is None, f"importing it fails: {said['problem']}")
        self.promised(said["noise"] is None, f"importing it prints {said['noise']}")
        self.promised(said["heavy"] is None, f"importing it imports {said['heavy']}")
