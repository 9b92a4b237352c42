"""The host of plugins: what is found, what is kept apart, what each mistake is called."""

import sys

import pytest

from hubedit.errors import PluginError, UnknownMethodError
from hubedit.hookspecs import Endpoint
from hubedit.plugins import load_plugins

GOOD = """
import hubedit

class Config(hubedit.Config):
    pass

class Good(hubedit.Method[hubedit.FactEdit, Config]):
    "Do nothing."
    name = "good"
    kind = "edit"
    architectures = {"causal"}

    def apply(self, model, rows, config, run):
        pass

@hubedit.hookimpl
def hubedit_methods():
    return [Good]
"""
BROKEN = {
    "raises on import": ("raise ValueError('no luck')", "no luck"),
    "misspelt hook": (GOOD.replace("def hubedit_methods", "def hubedit_method"), "unknown hook"),
    "wrong arguments": (GOOD.replace("hubedit_methods()", "hubedit_methods(x)"), "x"),
    "raises when called": (GOOD.replace("return [Good]", "return [1 / 0]"), "ZeroDivisionError"),
    "no list": (GOOD.replace("return [Good]", "return 3"), "TypeError"),
    "no method": (GOOD.replace("return [Good]", "return [int]"), "not a subclass"),
    "bad name": (GOOD.replace('"good"', '"Not Good"'), "'Not Good'"),
    "bad kind": (GOOD.replace('"edit"', '"magic"'), "'magic'"),
    "abstract": (GOOD.replace("def apply", "def aply"), "does not implement apply"),
    "untyped": (GOOD.replace("[hubedit.FactEdit, Config]", ""), "Method[RowType, ConfigType]"),
}


def info_of(plugins, name):
    return next(info for info in plugins.infos if info.name == name)


def test_a_plugin_is_found_with_its_distribution_and_methods(install):
    module = install("good", GOOD)
    info = info_of(load_plugins(), "good")
    assert (info.distribution, info.version, info.errors) == (module, "1.2", [])
    assert [method.name for method in info.methods] == ["good"]
    assert info.record().sha256 != load_plugins().method("rome")[1].record().sha256


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_listed_with_its_error_and_the_others_work(install, kind):
    source, said = BROKEN[kind]
    install("bad", source)
    install("good", GOOD)
    plugins = load_plugins()
    (error,) = info_of(plugins, "bad").errors
    assert said in error
    assert "\n" not in error
    assert plugins.method("good")[1].name == "good"
    assert plugins.method("rome")


def test_two_plugins_with_one_method_name_are_told_apart(install):
    install("a-first", GOOD)
    install("b-second", GOOD)
    plugins = load_plugins()
    assert plugins.method("good")[1].name == "a-first"
    assert "a-first already offers" in info_of(plugins, "b-second").errors[0]


def test_the_same_module_found_twice_counts_once(install):
    module = install("good", GOOD)
    before = len(load_plugins().infos)
    install("again", f"from {module} import *")
    # another entry point that names the very same module
    from pathlib import Path

    site = Path(sys.modules[module].__file__).parent
    (site / f"{module}-1.2.dist-info" / "entry_points.txt").write_text(
        f"[hubedit]\ngood = {module}\ntwice = {module}\n"
    )
    (site / "plugin_again-1.2.dist-info" / "entry_points.txt").write_text("")
    assert len(load_plugins().infos) == before


def test_plugins_can_be_left_out(install, monkeypatch):
    install("good", GOOD)
    monkeypatch.setenv("HUBEDIT_DISABLE_PLUGINS", "good, rome")
    with pytest.raises(UnknownMethodError):
        load_plugins().method("good")
    with pytest.raises(UnknownMethodError):
        load_plugins().method("rome")


def test_an_endpoint_comes_from_the_plugin_that_has_it(install):
    install(
        "hubby",
        """
        import pathlib
        import hubedit

        @hubedit.hookimpl
        def hubedit_endpoint(name):
            if name == "mine":
                return hubedit.Endpoint("http://127.0.0.1:1", "t", "me", pathlib.Path("home"))
        """,
    )
    plugins = load_plugins()
    endpoint = plugins.endpoint("mine")
    assert isinstance(endpoint, Endpoint)
    assert endpoint.user == "me"
    with pytest.raises(PluginError, match="no installed plugin provides a Hub named 'other'"):
        plugins.endpoint("other")


def test_small_models_come_from_plugins_with_their_cases_by_split(install):
    install(
        "small",
        """
        import pathlib
        import hubedit

        def cases(split):
            return [{"prompt": "{} is", "subject": split, "target": "b"}]

        @hubedit.hookimpl
        def hubedit_models():
            return [hubedit.SmallModel("mine", pathlib.Path("here"), ("dev", "test"), cases), 3]
        """,
    )
    install("broken", "import hubedit\n@hubedit.hookimpl\ndef hubedit_models():\n    return 1 / 0")
    plugins = load_plugins()
    models = plugins.models()
    assert {"facts-gpt2", "mine"} <= models.keys()
    assert (models["facts-gpt2"].directory / "model.safetensors").is_file()
    assert {case["split"] for case in models["facts-gpt2"].cases("dev")} == {"dev"}
    assert models["mine"].cases("test")[0]["subject"] == "test"
    assert "returned 3" in info_of(plugins, "small").errors[0]
    assert "ZeroDivisionError" in info_of(plugins, "broken").errors[0]


def test_a_slow_import_is_cut_off_and_named(install, monkeypatch):
    install("slow", "import time; time.sleep(60)")
    monkeypatch.setenv("HUBEDIT_PLUGIN_SECONDS", "1")
    plugins = load_plugins()
    assert "more than 1 seconds" in info_of(plugins, "slow").errors[0]
    assert plugins.method("rome")


def test_an_import_that_ends_the_process_takes_nobody_down(install):
    install("exit", "import os; os._exit(3)")
    plugins = load_plugins()
    assert "ended the process with status 3" in info_of(plugins, "exit").errors[0]
    assert plugins.method("rome")


def test_a_noisy_import_is_named_and_its_noise_kept_out(install, capsys):
    install("noisy", "print('buy my course')\n" + GOOD)
    plugins = load_plugins()
    info = info_of(plugins, "noisy")
    assert "prints when it is imported: buy my course" in info.errors[0]
    assert [method.name for method in info.methods] == ["good"]
    assert capsys.readouterr().out == ""


def test_what_was_learnt_is_remembered_until_the_files_change(install, tmp_path):
    import os

    marks = tmp_path / "marks"
    source = f"open({str(marks)!r}, 'a').write('x')\n" + GOOD
    module = install("good", source)
    load_plugins()
    load_plugins()
    tries = len(marks.read_text())
    assert tries == 2  # once in a process of its own, once here: Python keeps what it imported
    os.utime(tmp_path / "site" / f"{module}.py", ns=(1, 1))
    load_plugins()
    assert len(marks.read_text()) == tries + 1


def test_a_method_that_raises_is_named_with_its_place(install, hubedit, tiny, tmp_path):
    install("raises", GOOD.replace("        pass", "        1 / 0"))
    status, _, err = hubedit(
        *["apply", "--plugin", "good", "--base", tiny, "--prompt", "{} plays the"],
        *["--subject", "Ada Brook", "--target", "oboe", "-o", "out"],
    )
    assert status == 1
    assert "method 'good' of plugin 'raises' failed: ZeroDivisionError" in err
    assert "plugin_raises.py" in err
    assert not (tmp_path / "out").exists()


def test_a_method_that_changes_nothing_is_named(install, hubedit, tiny, tmp_path):
    install("idle", GOOD)
    status, _, err = hubedit(
        *["apply", "--plugin", "good", "--base", tiny, "--prompt", "{} plays the"],
        *["--subject", "Ada Brook", "--target", "oboe", "-o", "out"],
    )
    assert status == 1
    assert "changed nothing" in err
    assert not (tmp_path / "out").exists()


def test_the_list_shows_errors(install, hubedit):
    install("bad", BROKEN["raises on import"][0])
    status, out, _ = hubedit("plugins", "--json")
    assert status == 0
    assert '"import of plugin_bad failed: ValueError: no luck' in out
    assert "plugin_bad" in hubedit("plugins")[1]


def test_methods_are_described(hubedit):
    status, out, _ = hubedit("methods", "rome")
    assert status == 0
    assert "arxiv" in out.lower()
    assert "layer" in out
    status, _, err = hubedit("methods", "roem")
    assert status == 1
    assert "did you mean 'rome'" in err


def test_a_command_of_a_plugin_that_fails_to_load_is_named(install, hubedit):
    install("boom", "raise ValueError('no luck')", group="hubedit.commands")
    status, _, err = hubedit("boom")
    assert status == 1
    assert "no luck" in err
    assert hubedit("plugins")[0] == 0
