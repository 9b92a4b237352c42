"""What a finished run writes down: the manifest of the edit and the files of its folder."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit import __version__
from hubedit.diff import render_diff, write_heatmap
from hubedit.manifest import (
    DeltaRecord,
    EnvironmentRecord,
    FileChange,
    Manifest,
    RequestRecord,
    TensorRecord,
    result_digest,
    touched_tensors,
    written_files,
)
from hubedit.maps import drawn as pictures
from hubedit.plugins import PluginInfo, method_record
from hubedit.probes import Probe, to_jsonl

if TYPE_CHECKING:
    from hubedit.context import Run
    from hubedit.delta import Delta, Encoded, TensorChange
    from hubedit.editable import LoadedModel
    from hubedit.editions import Edition
    from hubedit.method import Config, Method
    from hubedit.recipe import Recipe

_NO_REQUEST = RequestRecord(type="", count=0, sha256="0" * 64)


def manifest(
    recipe: Recipe,
    method: type[Method[Any, Any]],
    plugin: PluginInfo,
    config: Config,
    start: Edition,
    run: Run,
    encoded: Encoded,
    model: LoadedModel,
) -> Manifest:
    """The manifest of an edit, but for its request, scores and transcripts."""
    stack = start.stack
    content = encoded.delta.to_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    height = stack.height + 1
    draft = Manifest(
        edit=f"{height:04d}-{method.name}-{sha256[:8]}",
        height=height,
        base=stack.base,
        parent=stack.result,
        result=stack.result,
        method=method_record(method),
        plugin=plugin.record(),
        config=config.model_dump(mode="json"),
        request=_NO_REQUEST,
        seed=recipe.seed,
        environment=environment(recipe),
        record=run.recorded,
        reference=recipe.reference,
        overruled=tuple(run.overruled),
        figures=tuple(run.figures),
        tensors=_tensors(encoded, model),
        files=tuple(
            FileChange(path=file.path, before=file.before, after=file.after)
            for file in encoded.delta.files.values()
        ),
        delta=DeltaRecord(nbytes=len(content), sha256=sha256),
    )
    every = [*start.manifests, draft]
    result = result_digest(stack.base.files, touched_tensors(every), written_files(every))
    return draft.model_copy(update={"result": result})


def _tensors(encoded: Encoded, model: LoadedModel) -> tuple[TensorRecord, ...]:
    reasons = {choice.name: choice.reason for choice in encoded.choices}
    return tuple(
        TensorRecord(
            name=change.name,
            aliases=tuple(model.aliases(change.name)) if _is_parameter(change, model) else (),
            dtype=change.dtype,
            shape=tuple(change.shape),
            before=change.sha256_before,
            after=change.sha256_after,
            kind=change.kind,
            reason=reasons[change.name],
            rank=change.rank,
            elements_changed=change.elements_changed,
            elements_total=change.elements_total,
            relative_norm=change.relative_norm,
            nbytes=change.nbytes,
            layer=model.layout.layer_of(_named(change, model)),
            module=model.layout.module_of(_named(change, model)),
        )
        for change in encoded.changes
    )


def _is_parameter(change: TensorChange, model: LoadedModel) -> bool:
    return change.name in model.tensors.names_of


def _named(change: TensorChange, model: LoadedModel) -> str:
    return model.parameter_of(change.name) if _is_parameter(change, model) else change.name


def environment(recipe: Recipe) -> EnvironmentRecord:
    """What the run runs on."""
    import numpy
    import torch
    import transformers

    return EnvironmentRecord(
        hubedit=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        numpy=numpy.__version__,
        threads=torch.get_num_threads(),
        machine=f"{platform.system()} {platform.machine()}",
        device=recipe.device,
        dtype=recipe.dtype,
    )


def folder(manifest: Manifest, probes: Sequence[Probe], delta: Delta) -> dict[str, bytes]:
    """The files of an edit's folder beside its manifest."""
    layers = manifest.base.layers
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch, "heatmap.png")
        write_heatmap(manifest, picture, layers=layers)
        drawn = picture.read_bytes()
    page = render_diff(manifest, [probe.model_dump() for probe in probes], layers=layers)
    written = {f"files/{path}": file.content for path, file in delta.files.items()}
    return {
        **written,
        **pictures(manifest),
        "delta.safetensors": delta.to_bytes(),
        "probes.jsonl": to_jsonl(probes).encode(),
        "DIFF.md": page.encode(),
        "heatmap.png": drawn,
    }
