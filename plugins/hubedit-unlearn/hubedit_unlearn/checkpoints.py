"""The state of training on disk, from which a killed run goes on to the same bytes; needs torch."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import hubedit
from hubedit_unlearn.adaptation import Trained
from hubedit_unlearn.config import TrainingConfig
from hubedit_unlearn.parts import Parts
from hubedit_unlearn.ranks import Ranks
from hubedit_unlearn.sharding import gathered, like
from hubedit_unlearn.watch import Watch

KINDS = ("value", "exp_avg", "exp_avg_sq")
"""What is kept of each trained tensor: itself and AdamW's two moments."""


class Checkpoints:
    """The newest state of one training, kept while it is not finished.

    It lies under a hash of the model, the settings, the seed and the request's token ids, holds
    tensors and figures alone, is readable by its user alone, and is gone once training has ended.
    """

    def __init__(
        self,
        model: hubedit.EditableModel,
        trained: Trained,
        optimiser: torch.optim.Optimizer,
        parts: Parts,
        config: TrainingConfig,
        run: hubedit.RunContext,
        ranks: Ranks,
    ) -> None:
        self._trained, self._optimiser, self._ranks = trained, optimiser, ranks
        self._config, self._run = config, run
        self._work: Path | None = None
        self._open = ExitStack()
        if config.checkpoint_every:
            tokens = [vars(example) for part in (parts.forget, parts.retain) for example in part]
            self._key = {
                "kind": "unlearning",
                "format": 1,
                "model": model.digest(),
                "config": config.model_dump(mode="json"),
                "seed": run.seed,
                **ranks.record,
                "request": hashlib.sha256(json.dumps(tokens).encode()).hexdigest(),
            }

    def __enter__(self) -> Self:
        if self._config.checkpoint_every:
            where = ""
            if self._ranks.index == 0:
                where = str(self._open.enter_context(self._run.artifacts.workspace(self._key)))
            self._work = Path(self._ranks.agreed(where))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def save(self, step: int, watch: Watch) -> None:
        """Write the state after a step, if one is due, and drop the one before it."""
        if self._work is None or step % self._config.checkpoint_every:
            return
        tensors = {}
        for number, parameter in enumerate(self._trained.parameters):
            state = self._optimiser.state[parameter]
            values = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
            for kind, value in zip(KINDS, values, strict=True):
                whole = gathered(value)
                if self._ranks.index == 0:
                    tensors[f"{kind}.{number}"] = whole.cpu().contiguous()
        if self._ranks.index == 0:
            path = self._work / f"{step:08d}.safetensors"
            draft = path.with_suffix(".partial")
            meta = json.dumps({"step": step, "looks": watch.kept()})
            draft.touch(mode=0o600)
            save_file(tensors, draft, metadata={"hubedit": meta})
            os.replace(draft, path)
            for old in self._work.glob("*.safetensors"):
                if old != path:
                    old.unlink()
        self._ranks.wait()

    def resume(self, watch: Watch) -> int:
        """Go back to the newest state; returns its step, 0 if there is none.

        Raises:
            MethodError: the first rank has one that this rank cannot read.
        """
        found = sorted(self._work.glob("*.safetensors")) if self._work is not None else []
        newest = self._ranks.agreed(found[-1] if found else None)
        if newest is None:
            return 0
        if not newest.exists():
            raise hubedit.MethodError(
                f"the first process goes on from a checkpoint that process {self._ranks.index} "
                "does not see; let HUBEDIT_HOME be a folder that all machines share"
            )
        with safe_open(newest, framework="pt") as file, torch.no_grad():
            state = json.loads(file.metadata()["hubedit"])
            for number, parameter in enumerate(self._trained.parameters):
                value, first, second = (
                    like(file.get_tensor(f"{kind}.{number}"), parameter) for kind in KINDS
                )
                parameter.copy_(value)
                self._optimiser.state[parameter] = {
                    "step": torch.tensor(float(state["step"])),
                    "exp_avg": first,
                    "exp_avg_sq": second,
                }
        watch.restore(state["looks"])
        self._run.log(f"going on after step {state['step']} of a run that was interrupted")
        return int(state["step"])
