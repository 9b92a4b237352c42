"""The host of plugins: discovers them, keeps the broken ones apart, lists what they offer."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType
from typing import Any, get_args

import pluggy

from hubedit import __version__, hookspecs
from hubedit.blame import brief, place_of
from hubedit.discovery import entry_points, outcomes
from hubedit.errors import HubEditError, PluginError, UnknownMethodError, near_misses
from hubedit.hookspecs import Endpoint, SmallModel
from hubedit.manifest import MethodRecord, PluginRecord
from hubedit.method import Assurance, Config, Kind, Method
from hubedit.origins import files_sha256, origin_of
from hubedit.rows import Row

COMMANDS_GROUP = "hubedit.commands"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass
class PluginInfo:
    """One installed plugin: where it comes from, what it offers, and what is wrong with it."""

    name: str
    distribution: str
    version: str
    module: ModuleType | None = None
    methods: list[type[Method[Any, Any]]] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    origin: str = ""
    """Where the distribution was installed from; see `hubedit.origins.origin_of`."""

    def as_json(self) -> dict[str, Any]:
        """What a listing says of it."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "origin": self.origin,
            "methods": [method.name for method in self.methods],
            "hooks": self.hooks,
            "errors": self.errors,
        }

    def record(self) -> PluginRecord:
        """What a manifest says about the plugin."""
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            origin=self.origin,
            sha256=files_sha256(self.module),
        )


class Plugins:
    """The plugins of this installation; one broken plugin never takes the others down."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("hubedit")
        self.manager.add_hookspecs(hookspecs)
        self.infos: list[PluginInfo] = []

    def add(self, info: PluginInfo, module: ModuleType) -> None:
        """Register a loaded module and ask it what it offers."""
        if self.manager.is_registered(module):
            return
        self.infos.append(info)
        if problem := self._hook_problem(module):
            info.errors.append(problem)
            return
        try:
            self.manager.register(module, name=info.name)
            self.manager.check_pending()
        except Exception as error:  # whatever a stranger's code raises is shown, not propagated
            self._reject(info, brief(error))
            return
        info.module = module
        callers = self.manager.get_hookcallers(module) or []
        info.hooks = sorted(caller.name for caller in callers)
        if "hubedit_methods" in info.hooks:
            self._collect_methods(info)

    def _hook_problem(self, module: ModuleType) -> str | None:
        """Say which function of a plugin is no hook, though it is meant to be one, or None."""
        specs = {name: spec for name, spec in vars(hookspecs).items() if _is_spec(name, spec)}
        for name, function in vars(module).items():
            if not (inspect.isfunction(function) and function.__module__ == module.__name__):
                continue
            where = place_of(function)
            marked = self.manager.parse_hookimpl_opts(module, name) is not None
            if marked and name not in specs:
                return (
                    f"unknown hook {name!r} ({where}); {near_misses(name, specs)} hubedit "
                    f"{__version__} has no other; a newer one may: pip install -U hubedit"
                )
            if name in specs and not marked:
                return f"the hook {name} ({where}) is not marked with @hubedit.hookimpl"
            if marked:
                known, written = (
                    inspect.signature(one).parameters for one in (specs[name], function)
                )
                if unknown := [key for key in written if key not in known]:
                    return (
                        f"the hook {name} ({where}) is called with "
                        f"{', '.join(known) or 'no arguments'}, and is written with "
                        f"{', '.join(unknown)}"
                    )
        return None

    def _collect_methods(self, info: PluginInfo) -> None:
        try:
            offered = self._call(info, "hubedit_methods")
            classes = list(offered)
        except Exception as error:
            info.errors.append(f"hubedit_methods failed: {brief(error, _name(info))}")
            return
        for method in classes:
            problem = _method_problem(method)
            if problem is None and (other := self._owner(method.name)) is not None:
                problem = (
                    f"offers a method named {method.name!r} ({place_of(method)}), which "
                    f"{other.name} already offers; a name belongs to the first, so choose another"
                )
            if problem is not None:
                info.errors.append(problem)
            else:
                info.methods.append(method)

    def _owner(self, method: str) -> PluginInfo | None:
        for info in self.infos:
            if any(known.name == method for known in info.methods):
                return info
        return None

    def _reject(self, info: PluginInfo, reason: str) -> None:
        info.errors.append(reason)
        if self.manager.has_plugin(info.name):
            self.manager.unregister(name=info.name)

    def _call(self, info: PluginInfo, hook: str, **arguments: Any) -> Any:
        """Call one plugin's implementation of one hook, by itself."""
        caller = getattr(self.manager.hook, hook)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is info.module:
                wanted = {name: arguments[name] for name in implementation.argnames}
                return implementation.function(**wanted)
        return None

    def methods(self) -> Iterator[tuple[type[Method[Any, Any]], PluginInfo]]:
        """Every method on offer with its plugin, by name."""
        pairs = [(method, info) for info in self.infos for method in info.methods]
        yield from sorted(pairs, key=lambda pair: pair[0].name)

    def method(self, name: str) -> tuple[type[Method[Any, Any]], PluginInfo]:
        """Find a method by name.

        Raises:
            UnknownMethodError: no plugin offers it.
        """
        known = {method.name: (method, info) for method, info in self.methods()}
        if name not in known:
            raise UnknownMethodError(name, known)
        return known[name]

    def models(self) -> dict[str, SmallModel]:
        """The small models that come with plugins, by name; the first plugin that has one wins.

        A plugin that fails to tell them is left out, and its entry of `infos` says why.
        """
        found: dict[str, SmallModel] = {}
        for info in self.infos:
            if "hubedit_models" not in info.hooks:
                continue
            try:
                offered = list(self._call(info, "hubedit_models"))
            except Exception as error:
                info.errors.append(f"hubedit_models failed: {brief(error)}")
                continue
            for model in offered:
                if isinstance(model, SmallModel):
                    found.setdefault(model.name, model)
                else:
                    info.errors.append(f"hubedit_models returned {model!r}, which is no SmallModel")
        return found

    def endpoint(self, name: str) -> Endpoint:
        """Ask the plugins for a running Hub of that name.

        Raises:
            PluginError: no plugin provides one.
        """
        for info in self.infos:
            if "hubedit_endpoint" in info.hooks:
                try:
                    endpoint = self._call(info, "hubedit_endpoint", name=name)
                except HubEditError:
                    raise
                except Exception as error:
                    raise PluginError(
                        f"plugin {info.name!r} failed to provide the Hub {name!r}: "
                        f"{brief(error, _name(info))}"
                    ) from error
                if isinstance(endpoint, Endpoint):
                    return endpoint
        raise PluginError(
            f"no installed plugin provides a Hub named {name!r}; `hubedit plugins` lists what is "
            "installed and what failed to load"
        )


def load_plugins() -> Plugins:
    """Load every installed plugin, one entry point at a time."""
    plugins = Plugins()
    points = entry_points()
    misfits = {point.value: _misfit(point) for point in points}
    tried = outcomes([point for point in points if misfits[point.value] is None])
    for point in points:
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "unknown"
        info = PluginInfo(point.name, distribution, version, origin=origin_of(point.dist))
        if misfit := misfits[point.value]:
            info.errors.append(misfit)
            plugins.infos.append(info)
            continue
        problem, noise, heavy = tried[point.value]
        if noise is not None:
            info.errors.append(f"prints when it is imported: {noise}; importing a plugin is silent")
        if heavy is not None:
            info.errors.append(
                f"imports {heavy} when it is imported; importing a plugin is quick, so import that "
                "where it is used"
            )
        module = None
        if problem is None:
            try:
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    module = point.load()
            except Exception as error:
                problem = brief(error, point.module)
        if module is None:
            info.errors.append(f"import of {point.value} failed: {problem}")
            plugins.infos.append(info)
            continue
        plugins.add(info, module)
    return plugins


def _misfit(point: metadata.EntryPoint) -> str | None:
    """Say that a distribution needs another version of hubedit than this one, or None."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in (point.dist.requires or ()) if point.dist else ():
        try:
            needs = Requirement(text)
        except InvalidRequirement:
            continue
        wanted = needs.name == "hubedit" and (needs.marker is None or needs.marker.evaluate())
        if wanted and not needs.specifier.contains(__version__, prereleases=True):
            return (
                f"it is written for hubedit{needs.specifier}, and this is {__version__}: "
                f"pip install 'hubedit{needs.specifier}', or another version of {point.name}"
            )
    return None


def endpoint(name: str) -> Endpoint:
    """A running Hub that some plugin provides, such as "local".

    Raises:
        PluginError: no plugin provides one of that name.
    """
    return load_plugins().endpoint(name)


def method_record(method: type[Method[Any, Any]]) -> MethodRecord:
    """What a manifest says about a method."""
    return MethodRecord(
        name=method.name,
        kind=method.kind,
        assurance=method.assurance,
        summary=method.summary(),
        paper=method.paper,
        limits=tuple(method.limits),
    )


def _name(info: PluginInfo) -> str | None:
    return info.module.__name__ if info.module is not None else None


def _is_spec(name: str, thing: object) -> bool:
    return name.startswith("hubedit_") and inspect.isfunction(thing)


def _method_problem(method: object) -> str | None:
    """Say what a class lacks to be a method, or None."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        return f"hubedit_methods returned {method!r}, which is not a subclass of hubedit.Method"
    name = getattr(method, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{method.__name__}.name is {name!r}; use lower case letters, digits and hyphens"
    if inspect.isabstract(method):
        missing = ", ".join(sorted(method.__abstractmethods__))
        return f"method {name!r} ({place_of(method)}) does not implement {missing}"
    if getattr(method, "kind", None) not in get_args(Kind):
        return f"method {name!r} has kind {getattr(method, 'kind', None)!r}; use edit or unlearn"
    if method.assurance not in get_args(Assurance):
        known = ", ".join(get_args(Assurance))
        return f"method {name!r} has assurance {method.assurance!r}; use {known}"
    if not getattr(method, "architectures", None):
        return f"method {name!r} does not say its architectures: causal, masked, seq2seq"
    try:
        row, config = method.row_type(), method.config_type()
    except TypeError as error:
        return str(error)
    if not (issubclass(row, Row) and issubclass(config, Config)):
        return f"method {name!r} must be Method[a Row type, a Config type]"
    return None
