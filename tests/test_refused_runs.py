"""What goes wrong while a method runs: one sentence, status 1, and no output directory."""

import json

import pytest

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook", "--target", "oboe"]
FAULTY = """
    from collections.abc import Sequence
    import hubedit

    class Settings(hubedit.Config):
        \"\"\"How it fails.\"\"\"

        how: str = "nothing"

    class Faulty(hubedit.Method[hubedit.FactEdit, Settings]):
        \"\"\"Fail as it is told.\"\"\"

        name = "faulty"
        kind = "edit"
        assurance = "approximate"
        architectures = frozenset({"causal"})

        def apply(self, model, rows, config, run):
            import torch
            name = "transformer.h.1.mlp.c_proj.weight"
            weight = model.weight(name)
            if config.how == "raise":
                raise ZeroDivisionError("by zero")
            if config.how == "nan":
                with torch.no_grad():
                    weight[0, 0] = float("nan")
            if config.how == "infinite update":
                values = torch.full(tuple(weight.shape), float("inf"))
                model.update(name, hubedit.Replace(values))
            if config.how == "unknown parameter":
                model.update("transformer.h.9.mlp", hubedit.Replace(torch.zeros(1)))
            if config.how == "shape":
                model.update(name, hubedit.Replace(torch.zeros(3, 3)))

    class Masked(Faulty):
        \"\"\"Edit masked models.\"\"\"

        name = "masked"
        architectures = frozenset({"masked"})

    @hubedit.hookimpl
    def hubedit_methods():
        return [Faulty, Masked]
"""
CASES = {
    "nothing": ["changed nothing"],
    "raise": ["method 'faulty'", "by zero", "HUBEDIT_DEBUG=1"],
    "nan": ["transformer.h.1.mlp.c_proj.weight", "NaN"],
    "infinite update": ["infinity"],
    "unknown parameter": ["transformer.h.9.mlp"],
    "shape": ["[3, 3]"],
}


def refused(hubedit, tmp_path, *arguments):
    """Run `apply` where it must fail; the one sentence it says."""
    there = {path.name for path in tmp_path.iterdir()}
    status, out, err = hubedit("apply", *arguments, "-o", tmp_path / "out", "--json")
    assert (status, out) == (1, "")
    said = [line for line in err.splitlines() if line.startswith("hubedit: ")]
    assert len(said) == 1
    assert err.rstrip().endswith(said[0])
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} <= there
    return said[0]


@pytest.mark.parametrize("how", CASES)
def test_a_method_that_fails_is_named_and_leaves_nothing(hubedit, install, tiny, tmp_path, how):
    install("faulty", FAULTY)
    message = refused(
        *[hubedit, tmp_path, "--plugin", "faulty", "--base", tiny, *FACT, "--set", f"how={how}"]
    )
    for words in CASES[how]:
        assert words in message


def test_a_method_for_other_architectures_is_refused(hubedit, install, tiny, tmp_path):
    install("faulty", FAULTY)
    message = refused(hubedit, tmp_path, "--plugin", "masked", "--base", tiny, *FACT)
    assert "edits masked models" in message
    assert "hubedit methods" in message


def test_a_guard_that_trips_stops_the_edit(hubedit, tiny, tmp_path):
    tight = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--set", "max_norm_ratio=0.0001"]
    message = refused(hubedit, tmp_path, "--plugin", "rome", "--base", tiny, *FACT, *tight)
    assert "0.0001" in message


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (1, [], "nothing to retain"),
        (2, [], "nothing to forget"),
        (2, ["train_embeddings=true", "steps=2", "forget_target=1e-9"], "--allow-embeddings"),
        (2, ["layers=[7]"], "layers 0 to 2"),
    ],
)
def test_unlearning_that_cannot_work_is_refused(hubedit, tiny, tmp_path, rows, settings, said):
    texts = [
        {"text": "Ada Brook plays the cello.", "prompt": "Ada Brook plays the", "target": "cello"},
        {"text": "Tom Adler plays the oboe.", "part": "retain"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, texts[:rows])))
    flags = [flag for setting in settings for flag in ("--set", setting)]
    message = refused(
        *[hubedit, tmp_path, "--plugin", "graddiff", "--base", tiny],
        *["--request", tmp_path / "rows.jsonl", *flags, "--set", "retain_ceiling=9"],
    )
    assert said in message
    assert "Ada" not in message
    assert "cello" not in message
