"""The review page, the same on a terminal, and the heat map."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hubedit.diff import PROBES_SHOWN, TENSORS_SHOWN, print_edit, render_diff
from hubedit.heatmap import heat_grid, heat_text, write_heatmap
from hubedit.manifest import Manifest

GALLERY = Path(__file__).parent.parent / "model_cards"


def load(case):
    folder = next((GALLERY / case).glob("edits/*"))
    lines = (folder / "probes.jsonl").read_text("utf-8").split("\n")
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
    return manifest, [json.loads(line) for line in lines if line]


def printed(case, **how):
    stream = io.StringIO()
    print_edit(*load(case), Console(file=stream, width=120, **how), layers=12)
    return stream.getvalue()


def test_the_page_opens_with_the_change_in_words_and_its_size():
    lines = render_diff(*load("one-fact")).split("\n")
    assert lines[0] == (
        "# Edit 1: “The mother tongue of Danielle Darrieux is” → “French” becomes “English”"
    )
    assert "1 of 160 tensors · 1.9 % of all elements · relative norm 0.013 · rank 1" in lines[4]


def test_failed_probes_come_first_and_the_rest_is_counted():
    manifest, probes = load("one-fact")
    many = [probes[0] | {"prompt": f"prompt {n}", "passed": n != 70} for n in range(100)]
    page = render_diff(manifest, many)
    rows = [line for line in page.split("\n") if "`prompt " in line]
    assert len(rows) == PROBES_SHOWN
    assert "`prompt 70`" in rows[0]
    assert "`prompt 0`" in rows[1]
    assert f"… {100 - PROBES_SHOWN} more probes in [probes.jsonl](probes.jsonl)" in page


def test_a_long_list_of_tensors_is_cut_and_counted():
    manifest, _ = load("one-fact")
    tensors = tuple(
        manifest.tensors[0].model_copy(update={"name": f"t{n}", "layer": n}) for n in range(50)
    )
    page = render_diff(manifest.model_copy(update={"tensors": tensors}), [])
    assert page.count("| `t") == TENSORS_SHOWN
    assert f"… {50 - TENSORS_SHOWN} more tensors in [manifest.json](manifest.json)" in page


def test_a_probe_that_nobody_judged_is_not_called_passed():
    manifest, probes = load("one-fact")
    page = render_diff(manifest, [probes[0] | {"passed": None}])
    assert "### Rewrite: 0 of 0 as asked" in page
    assert "| – | `The mother tongue" in page


def test_a_transcript_cannot_leave_its_block():
    manifest, _ = load("one-fact")
    evil = manifest.transcripts[0].model_copy(update={"after": "```\n~~~\n# Approved\n````"})
    page = render_diff(manifest.model_copy(update={"transcripts": (evil,)}), [])
    assert "\n+ ```\n+ ~~~\n+ # Approved\n+ ````\n```\n" in page


def test_every_digest_of_the_edit_is_on_the_page():
    manifest, probes = load("one-fact")
    page = render_diff(manifest, probes)
    tensor = manifest.tensors[0]
    for digest in (manifest.parent, manifest.result, manifest.delta.sha256, tensor.after):
        assert digest in page


def test_the_page_leaves_the_picture_out_when_told_so():
    assert "](heatmap.png)" in render_diff(*load("one-fact"))
    assert "heatmap.png" not in render_diff(*load("one-fact"), picture=None)


def test_the_terminal_shows_colours_on_a_terminal_alone():
    assert "\x1b[" not in printed("one-fact")
    assert "\x1b[" in printed("one-fact", force_terminal=True, color_system="standard")


def test_the_terminal_shows_what_the_page_shows():
    text = printed("forced")
    for part in ("⚠ forced", "✓ target", "✗ changed", "h.4.mlp.c_proj.weight", "Not tested"):
        assert part in text
    assert load("forced")[0].result in text


def test_hostile_text_cannot_steer_the_terminal():
    _, probes = load("hostile")
    assert "\x1b" in probes[-1]["prompt"]
    text = printed("hostile")
    assert "\x1b" not in text
    assert "⟨U+001B⟩[31mred" in text


def test_the_terminal_keeps_an_undisclosed_request_back():
    manifest, probes = load("one-fact")
    hidden = manifest.model_copy(
        update={"request": manifest.request.model_copy(update={"disclosed": False})}
    )
    stream = io.StringIO()
    print_edit(hidden, probes, Console(file=stream, width=120))
    assert "Darrieux" not in stream.getvalue()
    assert "1 fact to change" in stream.getvalue()


def test_the_heat_map_marks_the_layer_and_module_that_changed():
    manifest, _ = load("one-fact")
    grid = heat_grid(manifest, 12)
    changed = [number for number, cell in enumerate(grid.cells[1]) if cell is not None]
    assert changed == [4]
    assert {*grid.cells[0], *grid.cells[2], *grid.outside} == {None}
    lines = heat_text(grid).split("\n")
    assert lines[2] == "mlp        ····▅·······"


def test_the_heat_map_tells_no_norm_from_no_change():
    manifest, _ = load("one-fact")
    loose = manifest.tensors[0].model_copy(
        update={"layer": None, "module": "embeddings", "relative_norm": None}
    )
    text = heat_text(heat_grid(manifest.model_copy(update={"tensors": (loose,)}), 3))
    assert "outside    embeddings ?  head ·  other ·" in text
    assert "mlp        ···\n" in text


@pytest.mark.parametrize("layers", [12, 80])
def test_the_picture_is_small_and_the_same_every_time(tmp_path, layers):
    manifest, _ = load("one-fact")
    for name in ("a.png", "b.png"):
        write_heatmap(manifest, tmp_path / name, layers=layers)
    picture = (tmp_path / "a.png").read_bytes()
    assert picture == (tmp_path / "b.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 30_000
    assert b"Software" not in picture
