"""What a method shows: numbers in the manifest, a picture beside it, text on the page."""

import io

import pytest
from rich.console import Console
from writing import FIGURE, noted

from hubedit import claims, context
from hubedit.diff import print_edit, render_diff
from hubedit.editions import edits_of
from hubedit.errors import ManifestError, PluginError
from hubedit.hub import Hub
from hubedit.manifest import Manifest
from hubedit.maps import draw_map, map_record, map_text
from hubedit.probes import from_jsonl
from hubedit.revisions import review_text
from hubedit.verification import verify

FILES = {"files": {"generation_config.json": "{}\n"}}


def shown(tiny, tmp_path, **more):
    config = {**FILES, "show": True}
    directory = noted(tiny, tmp_path / "edit", config=config, **more)
    edition = edits_of(str(directory), Hub)
    return directory, edition, edition.manifests[0]


@pytest.fixture
def run():
    return context.Run(None, 0, None, False, context.Silent())


def test_a_figure_is_kept_listed_and_on_the_page(tiny, tmp_path):
    directory, edition, manifest = shown(tiny, tmp_path)
    (figure,) = manifest.figures
    assert figure.values == ("0 0.123 1", "0.5 0.25 0")
    assert figure.matrix == [[0, 0.123, 1], [0.5, 0.25, 0]]
    path = f"{edition.stack.edits[0].folder}/figures/strength.png"
    assert path in edition.stack.files
    assert (directory / path).read_bytes() == draw_map(figure)
    page = (directory / edition.stack.edits[0].folder / "DIFF.md").read_text("utf-8")
    assert "How strong each part is." in page
    assert "](figures/strength.png)" in page
    assert "layer 0  ·▁█\nlayer 1  ▅▃·\nfrom left to right: left … right\n" in page
    assert verify(edition, deep=True).problems == []
    recorded = from_jsonl((directory / path).parent.with_name("probes.jsonl").read_text("utf-8"))
    assert [
        claim
        for claim in claims.check_claims(edition, "me/edited", recorded).false
        if "DIFF.md" in claim
    ] == []


def test_the_text_of_a_pull_request_has_the_numbers_and_no_picture(tiny, tmp_path):
    directory, _, _ = shown(tiny, tmp_path)
    text = review_text(directory)
    assert "layer 0  ·▁█" in text
    assert "figures/strength.png" not in text


def test_the_terminal_shows_it_too(tiny, tmp_path):
    _, _, manifest = shown(tiny, tmp_path)
    stream = io.StringIO()
    print_edit(manifest, [], Console(file=stream, width=100))
    assert "layer 1  ▅▃·\n" in stream.getvalue()


def test_a_request_that_is_not_disclosed_takes_its_figures_along(tiny, tmp_path):
    directory, _, manifest = shown(tiny, tmp_path, disclose="none")
    assert manifest.figures == ()
    assert not list(directory.rglob("figures"))
    assert all(b"How strong" not in path.read_bytes() for path in directory.rglob("*.*"))


def test_a_page_of_such_a_request_keeps_figures_back_even_if_a_manifest_has_some(tiny, tmp_path):
    _, _, manifest = shown(tiny, tmp_path)
    hidden = manifest.request.model_copy(update={"disclosed": False})
    page = render_diff(manifest.model_copy(update={"request": hidden}), [])
    assert "How strong" not in page
    assert "figures/" not in page


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("values", [[0.0, 1.0], [0.5, 0.25]]),
        ("values", [[0.0, 1.0, float("nan")], [0.5, 0.25, 0.0]]),
        ("values", [[0.0, 0.1, 1.0]]),
        ("columns", []),
        ("rows", ["row"] * 65),
        ("name", "../strength"),
    ],
)
def test_what_is_no_small_matrix_is_refused_by_its_name(run, field, value):
    with pytest.raises(PluginError, match=r"figure .*strength"):
        run.figure(**{**FIGURE, field: value})


def test_two_figures_of_one_name_are_refused(run):
    run.figure(**FIGURE)
    with pytest.raises(PluginError, match="two figures named 'strength'"):
        run.figure(**FIGURE)


def test_a_damaged_figure_in_a_manifest_is_refused(tiny, tmp_path):
    _, _, manifest = shown(tiny, tmp_path)
    text = manifest.to_json().replace("0.5 0.25 0", "0.5 inf 0")
    with pytest.raises(ManifestError, match="not finite"):
        Manifest.from_json(text)


def test_labels_cannot_leave_their_block_or_hide():
    record = map_record("a", [[1.0], [0.0]], ["```", "x\n# y\u202e"], ["```"], "caption")
    lines = map_text(record).split("\n")
    assert [line.strip(" ") for line in lines if set(line.strip(" ")) <= {"`"}] == []
    assert lines[1].startswith("x↵# y⟨U+202E⟩")
    assert draw_map(map_record("b", [[1.0]], ["$x_"], ["y$"], "c")).startswith(b"\x89PNG")


def test_negative_numbers_have_their_own_end_of_the_scale():
    text = map_text(map_record("a", [[-1.0, 0.0, 1.0]], ["row"], ["a", "b", "c"], "caption"))
    assert text.split("\n")[0] == "row  ▁▅█"
    assert text.endswith("▁ from -1   █ to 1")


def test_the_picture_is_the_same_every_time_and_small():
    values = [[(row * column) % 7 / 7 for column in range(64)] for row in range(48)]
    rows, columns = [f"layer {n}" for n in range(48)], [str(n) for n in range(64)]
    record = map_record("big", values, rows, columns, "caption")
    assert draw_map(record) == draw_map(record)
    assert len(draw_map(record)) < 100_000
