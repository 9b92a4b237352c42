"""The only door to transformers: loads a model for editing, or for use."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hubedit.asking import TargetScore, TopToken
from hubedit.editable import LoadedModel
from hubedit.errors import ConfigError, UnmappedTensorError, UnsupportedModelError, near_misses
from hubedit.layouts import LAYOUTS, Architecture, Layout, layout_for
from hubedit.mapping import prove
from hubedit.shards import Checkpoint, DirectorySource
from hubedit.updates import StoredTensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DTYPES = ("float32", "bfloat16", "float16")
_AUTO_CLASS: Mapping[Architecture, str] = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")

__all__ = ["DTYPES", "LoadedModel", "TargetScore", "TopToken", "load", "load_for_use", "read_again"]


def load(
    directory: Path | str,
    *,
    dtype: str | None = None,
    device: str = "cpu",
    layout: Layout | None = None,
    overlay: Mapping[str, StoredTensor] | None = None,
    texts: Mapping[str, bytes] | None = None,
    identity: str | None = None,
) -> LoadedModel:
    """Load a model for editing, and prove which stored tensor each parameter is.

    Args:
        directory: a complete local snapshot: config, fast tokenizer, safetensors weights.
        dtype: the working dtype, one of `DTYPES`; float32 by default, which holds every stored
            F32, BF16 and F16 value exactly.
        device: where it runs, as torch names it.
        layout: where its layers are, for a family that is not in the table.
        overlay: tensors that earlier edits changed, by stored name; written over the base.
        texts: small files that earlier edits wrote, by path; read instead of the base's.
        identity: a digest that names the base; by default its files are hashed when asked for.

    Raises:
        UnsupportedModelError: it cannot be edited, and why.
        UnmappedTensorError: a parameter is not exactly one stored tensor.
        ConfigError: dtype or device cannot be used.
    """
    logging.getLogger("transformers.modeling_utils").addFilter(_no_advice_on_padding)
    directory = Path(directory)
    config = _config(directory)
    layout = layout or layout_for(config.get("model_type"))
    checkpoint = Checkpoint.open(DirectorySource(directory))
    with _seen(directory, texts or {}) as seen:
        tokenizer = _tokenizer(seen)
        model = _pretrained(seen, layout.architecture, dtype or "float32")
    tensors = prove(model, checkpoint)
    modules = dict(model.named_modules())
    head: object = model.get_output_embeddings()
    head_name = next((name for name, module in modules.items() if module is head), None)
    return LoadedModel(
        _placed(model, device).requires_grad_(False),
        tokenizer,
        layout.fitted(modules, head_name, model.config),
        checkpoint,
        tensors,
        directory=directory,
        overlay=overlay or {},
        texts=texts or {},
        identity=identity,
    )


def read_again(model: LoadedModel, texts: Mapping[str, bytes]) -> None:
    """Give a loaded model the tokenizer and generation settings that small files make of it.

    Args:
        model: any.
        texts: contents by path, of all that are other than in the model's directory.

    Raises:
        UnsupportedModelError: transformers cannot read them.
    """
    import transformers

    with _seen(model.directory, texts) as seen:
        model.tokenizer = _tokenizer(seen)
        if (seen / "generation_config.json").is_file():
            try:
                found = transformers.GenerationConfig.from_pretrained(seen, local_files_only=True)
            except Exception as error:
                raise UnsupportedModelError(
                    f"transformers cannot read generation_config.json: {_first_line(error)}"
                ) from error
            model.model.generation_config = found


def load_for_use(
    directory: Path | str,
    overlay: Mapping[str, StoredTensor] | None = None,
    dtype: str = "auto",
    *,
    texts: Mapping[str, bytes] | None = None,
    device: str = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a plain transformers model and its tokenizer, with edited tensors written exactly.

    Args:
        directory: a complete local snapshot of the base.
        overlay: the edited tensors by stored name.
        dtype: one of `DTYPES`, or `auto` for the stored one.
        texts: small files that edits wrote, by path; read instead of the base's.
        device: where it runs, as torch names it.

    Raises:
        UnsupportedModelError: it cannot be loaded, and why.
        UnmappedTensorError: an edited tensor is no parameter of it.
        ConfigError: dtype or device cannot be used.
    """
    directory = Path(directory)
    known = LAYOUTS.get(str(_config(directory).get("model_type")))
    checkpoint = Checkpoint.open(DirectorySource(directory))
    with _seen(directory, texts or {}) as seen:
        tokenizer = _tokenizer(seen)
        model = _pretrained(seen, known.architecture if known else "causal", dtype)
    if overlay:
        tensors = prove(model, checkpoint)
        for name, value in overlay.items():
            tensors.write(model, name, value)
    return _placed(model, device), tokenizer


@contextmanager
def _seen(directory: Path, texts: Mapping[str, bytes]) -> Iterator[Path]:
    """Give a directory in which some small files are replaced: the same one if none are."""
    if not texts:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="hubedit-") as scratch:
        work = Path(scratch, directory.name)
        work.mkdir()
        for path in directory.iterdir():
            if path.is_file() and path.name not in texts:
                _link(path, work / path.name)
        for name, content in texts.items():
            (work / name).write_bytes(content)
        yield work


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source.absolute())
    except OSError:
        shutil.copyfile(source, link)


def _config(directory: Path) -> Mapping[str, Any]:
    """Read `config.json` and refuse what cannot be edited exactly."""
    path = directory / "config.json"
    if not path.is_file():
        raise UnsupportedModelError(
            f"{directory} has no config.json; give a directory with a complete transformers model"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModelError(f"{path} is not JSON: {error}; download it again") from error
    if not isinstance(config, dict):
        raise UnsupportedModelError(f"{path} is not a JSON object; download it again")
    if config.get("auto_map"):
        raise UnsupportedModelError(
            f"the model in {directory.name} brings code of its own (auto_map in config.json), "
            "which hubedit never runs; start from a model that transformers knows by itself"
        )
    quantised = config.get("quantization_config")
    if quantised:
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise UnsupportedModelError(
            f"the model in {directory.name} is quantised ({how or 'quantization_config'}), so no "
            "edit of it is exact; edit the model it was made from, then quantise the result"
        )
    return config


def _tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    tokenizer: Any
    try:
        # Without a vocabulary transformers would make an empty tokenizer and say nothing.
        if not any(path for name in _VOCABULARIES for path in directory.glob(name)):
            raise FileNotFoundError("no vocabulary")
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise UnsupportedModelError(
            f"transformers finds no tokenizer in {directory} ({_first_line(error)}); "
            "put its tokenizer.json and tokenizer_config.json beside the weights"
        ) from error
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"the tokenizer in {directory.name} ({type(tokenizer).__name__}) is not a fast one, "
            "and only those tell which characters a token covers; start from a model whose "
            "tokenizer_config.json names a fast tokenizer, with its tokenizer.json"
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def _pretrained(directory: Path, architecture: Architecture, dtype: str) -> Any:
    """Load the model on the CPU; every parameter must come from the files."""
    import transformers

    if dtype not in (*DTYPES, "auto"):
        raise ConfigError(f"no dtype is named {dtype!r}; {near_misses(dtype, DTYPES)}")
    auto = getattr(transformers, _AUTO_CLASS[architecture])
    try:
        with _quiet():
            model, report = auto.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"transformers cannot load the model in {directory}: {_first_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UnmappedTensorError(
            f"the files in {directory.name} lack {missing[0]!r}"
            + (f" and {len(missing) - 1} more parameters" if len(missing) > 1 else "")
            + ", which would be made up on loading; start from a complete checkpoint"
        )
    for tensor in (*model.parameters(), *model.buffers()):
        # Loaded as they are stored, they are views of the mapped file and change with it.
        tensor.data = tensor.data.clone()
    return model.eval()


def _placed(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device {device!r} cannot be used here ({_first_line(error)}); try 'cpu'"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _no_advice_on_padding(record: logging.LogRecord) -> bool:
    """Drop the advice to pass a mask: texts stand alone, or padding stands where none looks."""
    return "strongly recommend passing in an `attention_mask`" not in record.getMessage()


@contextmanager
def _quiet() -> Iterator[None]:
    """Load without a progress bar and a report of its own on stderr."""
    told: Any = import_module("transformers.utils.logging")
    bars, level = told.is_progress_bar_enabled(), told.get_verbosity()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*progress bars.*")
        told.set_verbosity_error()
        if bars:
            told.disable_progress_bar()
        try:
            yield
        finally:
            if bars:
                told.enable_progress_bar()
            told.set_verbosity(level)
