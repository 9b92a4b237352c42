"""Methods × requests to forget: which cells there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hubedit import __version__, context
from hubedit.benching.cells import Cells
from hubedit.benching.forgotten import ForgottenCell, ForgottenMatrix
from hubedit.benching.matrix import check_names, check_output
from hubedit.benching.place import Place
from hubedit.context import Silent, Talk
from hubedit.errors import RequestError
from hubedit.evaluating.sources import TEST
from hubedit.forgetting import cases as asking
from hubedit.hookspecs import SmallModel, SmallRequest
from hubedit.hub import Hub
from hubedit.plugins import Plugins, load_plugins
from hubedit.readers.files import read_records


def bench_forgetting(
    methods: Sequence[str],
    models: Sequence[str],
    *,
    output: Path,
    split: str = TEST,
    forget: Path | None = None,
    oracle: str | None = None,
    requests: Sequence[str] | None = None,
    count: int | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    fresh: bool = False,
    seed: int = 0,
    threads: int | None = None,
    plugins: Plugins | None = None,
    hub: Callable[[], Hub] | None = None,
    talk: Talk | None = None,
    done: Callable[[ForgottenCell], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> ForgottenMatrix:
    """Let every method forget every request, each on the unedited model, and measure all alike.

    A method's guards are overruled and said. A cell that is finished in `output` is taken from
    there if all it depends on is the same.

    Args:
        methods: names of methods; their settings are the defaults, but for those that the model
            comes with and for `settings`.
        models: names of small models that plugins ship with requests, or with `forget` also
            directories.
        output: a directory for the cells; it may hold those of an earlier run.
        split: which of a small model's requests; dev is for choosing settings.
        forget: a request, in place of the models' own.
        oracle: with it, a model that was retrained without what is forgotten.
        requests: the names of those to take, by default all.
        count: cases of a part, at most.
        settings: by name of a method, what differs.
        fresh: make every cell anew.
        seed: of methods.
        threads: of torch; by default as it is.
        plugins: by default all that are installed.
        hub: opens the Hub, for an oracle that lies there.
        talk: how progress is told.
        done: called with each cell when it is there.
        share: (k, n) takes the k-th of every n cells of a request.

    Raises:
        HubEditError: a name is not known, or a request cannot be read.
    """
    import torch

    plugins, talk, opened = plugins or load_plugins(), talk or Silent(), hub or Hub
    check_names(methods, settings or {}, plugins)
    places = [
        Place(model, request, opened, count or asking.LIMIT, seed, own=forget is not None)
        for model, request in named_requests(models, split, forget, oracle, plugins, opened)
        if requests is None or request.name in requests
    ]
    check_output(output)
    store = Cells(output, ForgottenCell)
    with context.threads(threads):
        found: list[ForgottenCell] = []
        rows = [[*place.references, *methods][share[0] :: share[1]] for place in places]
        with talk.progress("cells", total=sum(map(len, rows))) as bar:
            for place, names in zip(places, rows, strict=True):
                for name in names:
                    differing = {**place.settings(name), **(settings or {}).get(name, {})}
                    cell = place.cell(name, differing, plugins, store, fresh, talk)
                    found.append(cell)
                    bar.advance()
                    if done is not None:
                        done(cell)
        return ForgottenMatrix(
            hubedit=__version__,
            seed=seed,
            threads=torch.get_num_threads(),
            methods=tuple(methods),
            requests=tuple(place.asked for place in places),
            cells=tuple(found),
        )


def named_requests(
    models: Sequence[str],
    split: str,
    forget: Path | None,
    oracle: str | None,
    plugins: Plugins,
    hub: Callable[[], Hub],
) -> list[tuple[SmallModel, SmallRequest]]:
    """Each model with each of its requests, or with the one that is given.

    Raises:
        RequestError: there is no such model or request.
    """
    offered, found = plugins.models(), []
    for name in models:
        model = offered.get(name) or SmallModel(name, Path(name).expanduser(), (), lambda _: [])
        if not model.directory.is_dir():
            known = ", ".join(sorted(n for n, m in offered.items() if m.requests)) or "none"
            raise RequestError(
                f"there is no model {name!r}; give a directory, or a small model of a plugin that "
                f"comes with requests to forget ({known})"
            )
        if forget is not None:
            read = partial(read_records, forget)
            found.append((model, SmallRequest(forget.stem, split, read, oracle)))
            continue
        own = [(model, request) for request in model.requests if request.split == split]
        if not own:
            raise RequestError(
                f"{name} comes with no request to forget of split {split!r}; give one with --forget"
            )
        found += own
    return found
