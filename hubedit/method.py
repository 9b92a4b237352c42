"""What an author of a method subclasses, and what a method is handed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, ValidationError

from hubedit.errors import ConfigError, near_misses
from hubedit.rows import Row, first_problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hubedit.layouts import Layout
    from hubedit.reading import Reading
    from hubedit.updates import Update

Kind = Literal["edit", "unlearn"]
Assurance = Literal["exact", "certified", "approximate", "guardrail"]


class Config(BaseModel):
    """A method's settings: typed, documented by `Field(description=…)`, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Any:
        """Validate settings as they come from a recipe or from `--set`.

        Raises:
            ConfigError: a key is unknown (near misses are named) or a value has the wrong type.
        """
        for key in settings:
            if key not in cls.model_fields:
                raise ConfigError(f"unknown setting {key!r}; {near_misses(key, cls.model_fields)}")
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(
                f"setting {first_problem(error)} (it was {problem.get('input')!r})"
            ) from error


class ProgressBar(Protocol):
    """One bar of progress."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Move on by `steps`, showing figures such as `loss=0.3` beside the bar."""


@dataclass(frozen=True)
class Corpus:
    """Plain texts that stand for what the model was trained on.

    `source` says in words where they come from; `digest` is the SHA-256 (hex) of their content.
    """

    texts: Sequence[str]
    source: str
    digest: str


@dataclass(frozen=True)
class Earlier:
    """An edit below in the stack that the same method made.

    `rows` is what it was asked, or None where that is not disclosed; `record` and `kept` are what
    the method recorded and kept then, by name.
    """

    edit: str
    config: Mapping[str, Any]
    rows: Sequence[Row] | None
    record: Mapping[str, Any]
    kept: Mapping[str, torch.Tensor]


class Artifacts(Protocol):
    """A content-addressed store for what is costly to compute and reusable."""

    def get(self, key: Mapping[str, Any]) -> Path | None:
        """Return the finished directory stored under `key`, or None."""

    def make(self, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the directory stored under `key`, building it first if it is not there.

        `build` is given a working directory that survives an interruption: what it finds there
        is what an earlier, killed run left, so that it can go on from it.
        """

    def workspace(self, key: Mapping[str, Any]) -> AbstractContextManager[Path]:
        """A directory for unfinished work under `key`, such as checkpoints of a training.

        It is gone once the `with` ends well, and survives an interruption: what is found there is
        what an earlier run left.
        """


class RunContext(Protocol):
    """What the host lends to a method for one run."""

    generator: torch.Generator
    """Seeded, on the CPU: the one source of randomness."""
    seed: int
    artifacts: Artifacts
    corpus: Corpus | None
    """Texts for statistics, if the recipe or the model's repository has any."""
    force: bool
    """Whether the user insists on an edit that a guard would stop."""
    disclosed: bool
    """Whether the request is published with the edit."""
    earlier: Sequence[Earlier]
    """The edits below in the stack that the same method made, bottom first."""

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[ProgressBar]:
        """Show a progress bar on a terminal; silent elsewhere."""

    def log(self, message: str) -> None:
        """Tell the user something, on stderr."""

    def record(self, key: str, value: Any) -> None:
        """Put a JSON value into the manifest: what the method computed and a reviewer may ask."""

    def figure(
        self,
        name: str,
        values: Sequence[Sequence[float]],
        *,
        rows: Sequence[str],
        columns: Sequence[str],
        caption: str,
    ) -> None:
        """Show a small matrix on the review page, as text and as a picture, if that is disclosed.

        The numbers are rounded to three digits and kept in the manifest; the host draws them. The
        figures of a request that is not disclosed are published nowhere.

        Args:
            name: lower case, digits and hyphens; the picture is `figures/NAME.png`.
            values: [rows, columns], finite, at most 64 by 64.
            rows: a label for each row, from the top.
            columns: a label for each column, from the left.
            caption: what the numbers are, in a sentence.

        Raises:
            PluginError: it is no such matrix, or there is a figure of that name.
        """

    def keep(self, name: str, value: torch.Tensor, *, harmless: bool = False) -> None:
        """Put a tensor into the edit's folder, for later edits of this method (see `earlier`).

        Args:
            value: float32 or int64, finite; stored exactly.
            harmless: that it tells nothing of the request.

        Raises:
            MethodError: the request is not disclosed and the tensor is not said to be harmless, or
                it cannot be stored.
        """

    def overridden(self, reason: str) -> None:
        """Record that a guard was overruled by `--force`; the card says so."""


class EditableModel(Protocol):
    """A loaded model that records how it is changed."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    layout: Layout
    device: torch.device

    def update(self, parameter: str, update: Update) -> None:
        """Change one parameter by an update, at once in the working dtype, and record it.

        `parameter` is a name of `model.named_parameters()`.

        Raises:
            UnsupportedModelError: no such parameter.
            DeltaError: the update does not fit its shape.
        """

    def weight(self, parameter: str) -> torch.Tensor:
        """The live parameter of that name, in the working dtype (by default float32)."""

    def read_file(self, path: str) -> str | None:
        """A small text file of the model as it is now, or None if there is no such file.

        Raises:
            DeltaError: `path` is none of `hubedit.texts.TEXT_FILES`.
        """

    def write_file(self, path: str, text: str) -> None:
        """Replace or add a small text file of the model, such as `chat_template.jinja`.

        The edit carries it like a changed tensor. `tokenizer` stays as it is while the method runs;
        the rebuilt model has the one that the file makes of it.

        Args:
            path: one of `hubedit.texts.TEXT_FILES`.
            text: the whole new content, up to 1 MiB in UTF-8.

        Raises:
            DeltaError: an edit cannot write that file, or this text into it.
        """

    def add_tensor(self, name: str, values: Any) -> None:
        """Give the stored model a tensor that it does not have; `model` stays as it is.

        Args:
            name: of the new tensor in the files.
            values: array or torch tensor, stored in its own dtype.

        Raises:
            DeltaError: there is one of that name, or it cannot be stored.
        """

    def drop_tensor(self, name: str) -> None:
        """Take a tensor out of the stored model; `model` stays as it is.

        The edit is refused later if transformers cannot load the model without it.

        Raises:
            UnsupportedModelError: there is none of that name.
        """

    def digest(self, ignoring: Iterable[str] = ()) -> str:
        """SHA-256 (hex) naming the weights the run started from, as if `ignoring` were unchanged.

        Statistics that do not depend on some parameters pass their names here, so that an edit of
        them does not make the statistic stale.
        """

    def subject_token(self, text: str, span: tuple[int, int]) -> int:
        """Index among the tokens of `text` of the last that meets the characters [start, end).

        Special tokens that the tokenizer adds by itself are counted.
        """

    def batch(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Tokenise texts, padded on the right: `input_ids`, `attention_mask`, int64 [n, length]."""

    def scored(
        self, prompt: str, answer: str, subject: tuple[int, int] | None = None
    ) -> tuple[Reading, list[int]]:
        """What to read to score an answer, and the answer's tokens, one for each of its places.

        Causal: prompt and answer are one text. Masked: the answer stands where the prompt's masks
        do, else at its end, one mask for each of its tokens. Seq2seq: the encoder reads the prompt
        and the decoder has written the answer but for its last token.

        Args:
            answer: as it continues the prompt, with its space.
            subject: characters [start, end) of the prompt; the reading says where the last of its
                tokens stands.

        Raises:
            RequestError: the answer has no tokens, or does not fit the prompt's masks; no token
                meets the subject, or the model cannot read so many.
        """

    def next_reading(self, text: str, subject: tuple[int, int] | None = None) -> Reading:
        """What to read for the first token that the model would answer to a text; see `scored`."""

    def inputs(self, readings: Sequence[Reading]) -> dict[str, Any]:
        """What `model` is called with to read these together, padded on the right, without cache.

        Its logits matter at each reading's `places`.
        """

    def trace(self, module: str, **how: Any) -> AbstractContextManager[Any]:
        """Read or replace one module's input or output; see `hubedit.tracing.trace`."""


RowT = TypeVar("RowT", bound=Row)
ConfigT = TypeVar("ConfigT", bound=Config)


class Method(ABC, Generic[RowT, ConfigT]):
    """One way of changing a model: subclass it as `Method[FactEdit, MyConfig]` and return the class
    from the hook `hubedit_methods`.
    """

    name: ClassVar[str]
    """What `--plugin` takes: lower case, digits and hyphens."""
    kind: ClassVar[Kind]
    assurance: ClassVar[Assurance] = "approximate"
    architectures: ClassVar[frozenset[str] | set[str]]
    """Of `causal`, `masked`, `seq2seq`."""
    paper: ClassVar[str] = ""
    """The source, as a citation with a link."""
    limits: ClassVar[Sequence[str]] = ()
    """What the method does not guarantee, one sentence each; printed on the card."""

    @abstractmethod
    def apply(
        self, model: EditableModel, rows: Sequence[RowT], config: ConfigT, run: RunContext
    ) -> None:
        """Change the model, by `model.update` or by training its weights in place.

        Raises:
            MethodError: the change cannot be made.
        """

    def targets(self, layout: Layout, config: ConfigT) -> Sequence[str] | None:
        """Names of the parameters this run may change, or None if the method cannot say before."""
        return None

    @classmethod
    def predict(
        cls,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        rows: Sequence[RowT],
        config: ConfigT,
    ) -> Mapping[str, int] | None:
        """The rank that the update of each changed parameter will have, or None if unknown before.

        For `hubedit plan`, which loads no weights and no torch.

        Args:
            layout: where the model's layers are.
            shapes: shape of every stored parameter, by parameter name.
            rows: the request.
            config: the settings.
        """
        return None

    @classmethod
    def telling(cls, config: ConfigT) -> bool:
        """Whether these settings let it change embeddings or head, whose rows name tokens."""
        return False

    @classmethod
    def row_type(cls) -> type[Row]:
        """The type of row the method takes, from its `Method[Row, Config]` base."""
        return cls._arguments()[0]

    @classmethod
    def config_type(cls) -> type[Config]:
        """The type of its settings, from its `Method[Row, Config]` base."""
        return cls._arguments()[1]

    @classmethod
    def _arguments(cls) -> tuple[type[Row], type[Config]]:
        for owner in cls.__mro__:
            for base in getattr(owner, "__orig_bases__", ()):
                origin, arguments = get_origin(base), get_args(base)
                if (
                    isinstance(origin, type)
                    and issubclass(origin, Method)
                    and len(arguments) == 2
                    and not any(isinstance(argument, TypeVar) for argument in arguments)
                ):
                    return arguments[0], arguments[1]
        raise TypeError(f"{cls.__name__} must be declared as Method[RowType, ConfigType]")

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


__all__ = [
    "Artifacts",
    "Assurance",
    "Config",
    "Corpus",
    "Earlier",
    "EditableModel",
    "Kind",
    "Method",
    "ProgressBar",
    "RunContext",
]
