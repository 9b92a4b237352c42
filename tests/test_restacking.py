"""Stacks whose edits are put on another start: taken out below, on a newer base; and searched."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from shifting import plugins, shifted, stacked

from hubedit import models
from hubedit.bisecting import first_bad
from hubedit.context import Silent
from hubedit.editions import edits_of
from hubedit.hub import Hub
from hubedit.refitting import refit_onto
from hubedit.restacking import written
from hubedit.verification import verify

NEAR = {"neighbours": ["Tom Adler plays the"]}
FIRST, SECOND = (f"transformer.h.{block}.mlp.c_proj.weight" for block in (0, 1))


def edition(directory):
    return edits_of(str(directory), Hub)


def test_an_edit_below_others_that_touch_other_tensors_is_taken_out_to_the_bit(
    tiny, hubedit, tmp_path
):
    configs = [{"block": 0}, {"block": 1}, {"block": 1, "kind": "rows"}]
    top = stacked(tiny, tmp_path, configs, **NEAR)
    status, out, err = hubedit("revert", top, "--edit", "1", "-o", tmp_path / "left", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert said["reverts"] == edition(top).stack.edits[0].name
    assert [one["other_bits"] for one in said["replayed"]] == [[], []]
    left = edition(tmp_path / "left")
    assert verify(left, deep=True).problems == []
    before, after = edition(top).overlay(), left.overlay()
    assert FIRST not in after
    assert after[SECOND].sha256() == before[SECOND].sha256()
    assert [entry.name[:4] for entry in left.stack.edits] == ["0001", "0002"]
    assert all(manifest.replayed.asked for manifest in left.manifests)
    assert all(manifest.scores for manifest in left.manifests)
    card = (tmp_path / "left" / "README.md").read_text()
    assert "Put on another start" in card
    assert edition(top).stack.edits[1].name in card


def test_a_product_on_the_same_tensor_is_added_anew_and_the_records_say_so(tiny, hubedit, tmp_path):
    top = stacked(tiny, tmp_path, [{"block": 0, "size": 1.0}, {"block": 0, "size": 0.5}], **NEAR)
    assert hubedit("revert", top, "--edit", "1", "-o", tmp_path / "left")[0] == 0
    left = edition(tmp_path / "left")
    assert verify(left, deep=True).problems == []
    [manifest] = left.manifests
    assert manifest.replayed.tensors == (FIRST,)
    assert manifest.replayed.edit == edition(top).stack.edits[1].name
    alone = shifted(tiny, tmp_path / "alone", {"block": 0, "size": 0.5}, seed=2, **NEAR)
    assert left.overlay()[FIRST].sha256() == edition(alone).overlay()[FIRST].sha256()
    probes = (tmp_path / "left" / left.stack.edits[0].folder / "probes.jsonl").read_text()
    folder = alone / edition(alone).stack.edits[0].folder
    assert probes == (folder / "probes.jsonl").read_text()
    assert "other bits" in (tmp_path / "left" / left.stack.edits[0].folder / "DIFF.md").read_text()


def test_without_probes_nothing_is_asked_and_the_card_says_that(tiny, hubedit, tmp_path):
    top = stacked(tiny, tmp_path, [{"block": 0}, {"block": 1}], **NEAR)
    options = ["--edit", "1", "--no-probes", "-o", tmp_path / "left"]
    assert hubedit("revert", top, *options)[0] == 0
    [manifest] = edition(tmp_path / "left").manifests
    assert (manifest.scores, manifest.transcripts, manifest.replayed.asked) == ((), (), False)
    assert "nobody asked" in (tmp_path / "left" / "README.md").read_text()
    assert verify(edition(tmp_path / "left"), deep=True).problems == []


def test_values_that_hold_what_was_below_them_stay_where_they_are(tiny, hubedit, tmp_path):
    top = stacked(tiny, tmp_path, [{"block": 0}, {"block": 0, "kind": "rows"}], **NEAR)
    status, _, err = hubedit("revert", top, "--edit", "1", "-o", tmp_path / "left")
    assert status == 1
    assert FIRST in err
    assert "revert down to it first" in err
    assert not (tmp_path / "left").exists()


def test_an_unknown_edit_is_named_with_those_there_are(tiny, hubedit, tmp_path):
    top = stacked(tiny, tmp_path, [{}])
    status, _, err = hubedit("revert", top, "--edit", "7", "-o", tmp_path / "left")
    assert (status, "it has 1 to 1" in err) == (1, True)


def test_a_pull_request_takes_a_lower_edit_out(localhub, tiny, hubedit, tmp_path):
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    base = "me/tiny"
    for number, block in enumerate((0, 1)):
        made = shifted(base, tmp_path / str(number), {"block": block}, seed=number, **NEAR)
        status, _, err = hubedit("push", made, "--to", "me/two", "--direct")
        assert status == 0, err
        base = "me/two"
    status, out, err = hubedit("revert", "me/two", "--edit", "1", "--json")
    assert status == 0, err
    pull = json.loads(out)["pr"]
    details = api.get_discussion_details("me/two", pull)
    assert details.title.startswith("revert 0001-shift-")
    assert "the same bits" in details.events[0].content
    assert hubedit("review", "me/two", "--pr", pull)[0] == 0
    assert hubedit("merge", "me/two", pull)[0] == 0
    assert hubedit("verify", "me/two@v3", "--deep")[0] == 0
    assert edition("me/two@v3").stack.height == 1
    assert not any("0002-" in path for path in edition("me/two@v3").place.files())


@pytest.fixture
def newer(tiny, tmp_path):
    """The model with one other tensor: not one of the MLP."""
    folder = tmp_path / "newer"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"] + 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_stack_moves_to_a_base_that_is_the_same_where_it_matters(tiny, newer, hubedit, tmp_path):
    top = stacked(tiny, tmp_path, [{"block": 0}, {"block": 0, "kind": "rows"}], **NEAR)
    status, out, err = hubedit("rebase", top, newer, "-o", tmp_path / "moved", "--json")
    assert status == 0, err
    moved = edition(tmp_path / "moved")
    assert verify(moved, deep=True).problems == []
    assert moved.overlay()[FIRST].sha256() == edition(top).overlay()[FIRST].sha256()
    assert moved.stack.base.digest != edition(top).stack.base.digest
    assert json.loads(out)["result"] == moved.stack.result


def test_a_base_that_drifted_is_refused_by_the_names_of_its_tensors_unless_refitted(
    tiny, newer, hubedit, tmp_path
):
    tensors = load_file(newer / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.0.mlp.c_proj.weight"))
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, newer / "model.safetensors", metadata={"format": "pt"})
    top = stacked(tiny, tmp_path, [{"block": 1}, {"block": 0}], **NEAR)
    status, _, err = hubedit("rebase", top, newer, "-o", tmp_path / "moved")
    assert status == 1
    assert name in err
    assert "--refit" in err
    assert not (tmp_path / "moved").exists()
    made = refit_onto(edition(top), str(newer), Hub, Silent(), plugins())
    with written(made, tmp_path / "moved"):
        pass
    moved = edition(tmp_path / "moved")
    assert verify(moved, deep=True).problems == []
    assert moved.overlay()[name].sha256() != edition(top).overlay()[name].sha256()
    assert [manifest.replayed for manifest in moved.manifests] == [None, None]


def test_conflicts_name_tensor_direction_and_subject(tiny, hubedit, tmp_path):
    one = shifted(tiny, tmp_path / "1", {"block": 0}, seed=1)
    two = shifted(one, tmp_path / "2", {"block": 0}, seed=1, target="cello")
    three = shifted(two, tmp_path / "3", {"block": 1}, seed=2, subject="Tom Adler")
    status, out, err = hubedit("conflicts", three, "--json")
    assert status == 0, err
    [found] = json.loads(out)
    assert found["tensor"] == FIRST
    assert found["cosine"] == pytest.approx(1.0)
    assert found["subjects"] == ["Ada Brook"]
    status, out, _ = hubedit("conflicts", one)
    assert (status, out) == (0, "")


@pytest.mark.parametrize("top", [1, 2, 3, 17, 50])
def test_a_bisection_asks_few_heights(top):
    for first in [*range(top + 1), None]:
        asked = []

        def good(height, first=first, asked=asked):
            asked.append(height)
            return first is None or height < first

        assert first_bad(top, good) == first
        assert len(asked) <= (top + 1).bit_length()
        assert len(set(asked)) == len(asked)


def test_of_fifty_edits_a_bad_one_is_found_by_six_questions_and_taken_out(tiny, hubedit, tmp_path):
    model = models.load(tiny)
    prompt = "Tom Adler plays the"
    [said] = model.generate([prompt], 1)
    [other] = [t for t in model.top_tokens(prompt, 2) if t.text != said][:1]
    configs = [{"block": number % 2, "size": 0.3} for number in range(50)]
    configs[16] = {"block": 0, "size": 40.0, "towards": other.token_id}
    top = stacked(tiny, tmp_path, configs)
    status, out, err = hubedit("bisect", top, prompt, said.strip(), "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["height"] == 17
    assert found["edit"] == edition(top).stack.edits[16].name
    assert len(found["asked"]) <= 6
    assert hubedit("revert", top, "--edit", "17", "-o", tmp_path / "left")[0] == 0
    left = edition(tmp_path / "left")
    assert left.stack.height == 49
    assert verify(left).problems == []
    assert left.stack.edits[:16] == edition(top).stack.edits[:16]
    same = [manifest.replayed.tensors for manifest in left.manifests[16:]]
    assert same == [(FIRST,) if n % 2 == 0 else () for n in range(17, 50)]
    status, out, _ = hubedit("bisect", tmp_path / "left", prompt, said.strip(), "--json")
    assert json.loads(out)["height"] is None
