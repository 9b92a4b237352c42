"""The main job over HTTP: a recipe goes in, a reviewed and tagged revision comes out."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hubedit import models, publishing, run
from hubedit.editions import edits_of
from hubedit.errors import PushConflictError
from hubedit.hub import Hub
from hubedit.manifest import Stack
from hubedit.recipe import make_recipe
from hubedit.verification import verify

FLAGS = ["--plugin", "rome", "--prompt", "{} plays the", "--subject", "Ada Brook"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=4", "--force"]


@pytest.fixture
def base(localhub, tiny):
    """A tiny model on the Hub; its name."""
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    return "me/tiny"


def recipe_in(directory, base, target="oboe", **more):
    lines = [
        f"base: {base}",
        "plugin: rome",
        "config: {prefixes: [[2, 8]], steps: 4, max_norm_ratio: 1000, max_canary_ratio: 1000,",
        "  min_probability: 0, min_cosine: 0}",
        "request:",
        "  prompt: '{} plays the'",
        "  subject: Ada Brook",
        f"  target: {target}",
        "  neighbours: [Tom Adler plays the]",
        *(f"{key}: {value}" for key, value in more.items()),
    ]
    directory.mkdir(exist_ok=True)
    (directory / "hubedit.yaml").write_text("\n".join(lines) + "\n")
    return directory


def test_the_literal_command_opens_a_pull_request_that_merges_verifies_and_loads(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "work", base))
    status, out, err = hubedit("apply", "--plugin", "rome", "--push")
    assert status == 0, err
    assert "/me/tiny-edited/discussions/1" in out
    api = localhub.api()
    assert api.model_info("me/tiny-edited").private
    (pull,) = api.get_repo_discussions("me/tiny-edited")
    assert pull.is_pull_request
    assert pull.status in ("open", "draft")
    diff = api.get_discussion_details("me/tiny-edited", 1).diff
    assert "+++ b/hubedit.json" in diff
    assert "DIFF.md" in diff
    assert "Ada Brook plays the" in diff

    status, out, err = hubedit("verify", "me/tiny-edited@refs/pr/1")
    assert status == 0, err
    status, out, err = hubedit("merge", "me/tiny-edited", "1", "--json")
    assert status == 0, err
    merged = json.loads(out)
    assert merged["tag"] == "v1"
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs("me/tiny-edited").tags}
    assert tags == {"v1": merged["commit"]}

    status, out, err = hubedit("verify", "me/tiny-edited@v1", "--deep", "--json")
    assert status == 0, err
    report = json.loads(out)
    stack = Stack.from_json(Hub().read("me/tiny-edited", merged["commit"], "hubedit.json"))
    assert report["result"] == stack.result
    code = (
        "import json, os, sys, torch, hubedit\n"
        "from hubedit import models\n"
        "torch.set_num_threads(2)\n"
        "model, tokenizer = hubedit.load('me/tiny-edited', revision='v1')\n"
        "values = {name: value for name, value in model.state_dict().items()}\n"
        "from hubedit.updates import StoredTensor\n"
        "print(json.dumps({n: StoredTensor.from_array(v).sha256() for n, v in values.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    for name, digest in report["tensors"].items():
        assert loaded[name] == digest
    assert loaded["lm_head.weight"] == report["tensors"]["transformer.wte.weight"]

    status, out, err = hubedit("log", "me/tiny-edited", "--json")
    assert json.loads(out)[0]["tags"] == ["v1"]
    status, out, err = hubedit("show", "me/tiny-edited@v1", "--json")
    assert json.loads(out)["stack"]["edits"][0]["method"] == "rome"
    status, out, err = hubedit("ask", "me/tiny-edited@v1", "Ada Brook plays the", "--json")
    asked = json.loads(out)
    assert asked["base"]["next"] != asked["edited"]["next"]


def test_a_revision_with_weights_loads_in_plain_transformers(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(recipe_in(tmp_path / "work", base))
    status, _, err = hubedit("apply", "--push", "--with-weights", "--direct", "-o", "out")
    assert status == 0, err
    assert hubedit("verify", "me/tiny-edited@v1", "--deep")[0] == 0
    folder = snapshot_download(
        "me/tiny-edited", revision="v1", endpoint=localhub.url, token=localhub.token
    )
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    ours, _ = run.load("me/tiny-edited", revision="v1")
    assert all(value.equal(plain[name]) for name, value in ours.state_dict().items())


def test_a_second_edit_goes_on_top_of_the_first(localhub, base, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "--push", "--direct")[0] == 0
    monkeypatch.chdir(recipe_in(tmp_path / "two", base, target="cello"))
    assert hubedit("apply", "--push", "--direct")[0] == 0
    for height in (1, 2):
        edition = edits_of(f"me/tiny-edited@v{height}", Hub)
        report = verify(edition, deep=True)
        assert report.problems == []
        assert edition.stack.height == height
    stack = edition.stack
    assert stack.edits[1].parent == stack.edits[0].result
    card = edition.place.read("README.md").decode()
    assert card.count("DIFF.md](edits/") == 2


def test_what_people_wrote_on_the_card_stays(localhub, base, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "--push", "--direct")[0] == 0
    hub = Hub()
    card = hub.read("me/tiny-edited", hub.commit("me/tiny-edited"), "README.md").decode()
    mark = "<!-- hubedit: your text starts here -->\n"
    localhub.api().upload_file(
        path_or_fileobj=card.replace(mark, mark + "Checked by Mo.\n").encode(),
        path_in_repo="README.md",
        repo_id="me/tiny-edited",
    )
    assert hubedit("verify", "me/tiny-edited")[0] == 0
    monkeypatch.chdir(recipe_in(tmp_path / "two", base, target="cello"))
    assert hubedit("apply", "--push", "--direct")[0] == 0
    card = hub.read("me/tiny-edited", hub.commit("me/tiny-edited"), "README.md").decode()
    assert "Checked by Mo.\n" in card
    assert hubedit("verify", "me/tiny-edited@v2")[0] == 0


def applied_to(base, target, output, to="me/tiny-edited"):
    """An edit on disk, made for a target repository."""
    recipe = make_recipe(
        {
            "base": base,
            "plugin": "rome",
            "to": to,
            "config": {"prefixes": [[2, 8]], "steps": 3},
            "request": [{"prompt": "{} plays the", "subject": "Ada Brook", "target": target}],
        }
    )
    hub = Hub()
    job = run.prepare(recipe, lambda: hub, push=True)
    return run.apply(job, Path(output), force=True)


def test_of_two_racing_direct_pushes_one_wins_and_the_other_is_told_both_heads(
    localhub, base, tmp_path
):
    hub = Hub()
    hub.create("me/tiny-edited")
    start = hub.commit("me/tiny-edited")
    edits = [applied_to(base, word, tmp_path / word) for word in ("oboe", "cello")]
    plans = [
        publishing.plan_push(edit.directory, hub, "me/tiny-edited", direct=True, force=False)
        for edit in edits
    ]

    def push(number):
        try:
            return publishing.publish(edits[number].directory, Hub(), plans[number], body="")
        except PushConflictError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(push, range(2)))
    lost = [result for result in results if isinstance(result, PushConflictError)]
    won = [result for result in results if not isinstance(result, PushConflictError)]
    assert (len(lost), len(won)) == (1, 1)
    assert start in str(lost[0])
    assert won[0].commit in str(lost[0])
    assert "hubedit apply" in str(lost[0])
    assert edits_of("me/tiny-edited", Hub).stack.height == 1


def test_the_second_of_two_pulls_from_one_parent_is_refused_and_apply_again_resolves_it(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "--push")[0] == 0
    monkeypatch.chdir(recipe_in(tmp_path / "two", base, target="cello"))
    assert hubedit("apply", "--push")[0] == 0
    assert hubedit("merge", "me/tiny-edited", "1")[0] == 0
    before = Hub().commit("me/tiny-edited")
    status, out, err = hubedit("merge", "me/tiny-edited", "2")
    assert (status, out) == (1, "")
    assert "hubedit apply" in err
    assert Hub().commit("me/tiny-edited") == before
    assert hubedit("apply", "--push")[0] == 0
    assert hubedit("merge", "me/tiny-edited", "3")[0] == 0
    edition = edits_of("me/tiny-edited@v2", Hub)
    assert verify(edition).problems == []
    assert edition.stack.height == 2


def test_a_merge_that_lost_its_tag_is_finished_by_merging_again(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "--push")[0] == 0
    localhub.api().merge_pull_request("me/tiny-edited", 1)
    assert localhub.api().list_repo_refs("me/tiny-edited").tags == []
    assert hubedit("merge", "me/tiny-edited", "1")[0] == 0
    assert [tag.name for tag in localhub.api().list_repo_refs("me/tiny-edited").tags] == ["v1"]


def test_a_finished_edit_is_pushed_later_and_a_dry_run_writes_nothing(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "-o", "edit")[0] == 0
    status, out, _ = hubedit("push", "edit", "--to", "me/other", "--dry-run", "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["creates"]
    assert plan["repo"] == "me/other"
    assert not localhub.api().repo_exists("me/other")
    assert hubedit("push", "edit", "--to", "me/other")[0] == 0
    edition = edits_of("me/other@refs/pr/1", Hub)
    assert verify(edition).problems == []
    assert 'hubedit.load("me/other"' in edition.place.read("README.md").decode()
    status, _, err = hubedit("push", "edit", "--to", "me/other", "--direct")
    assert status == 0, err
    status, _, err = hubedit("push", "edit", "--to", "me/other")
    assert status == 1
    assert "already holds this edit" in err


def test_a_delta_alone_never_goes_beside_weights(localhub, base, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "one", base))
    assert hubedit("apply", "-o", "edit")[0] == 0
    status, _, err = hubedit("push", "edit", "--to", base)
    assert status == 1
    assert "--with-weights" in err
    assert hubedit("apply", "--push", "--to", base, "--direct", "-o", "full")[0] == 0
    edition = edits_of(f"{base}@v1", Hub)
    assert edition.stack.weights
    assert verify(edition, deep=True).problems == []


def test_a_dry_run_of_apply_writes_nothing_and_loads_no_weights(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    work = recipe_in(tmp_path / "one", base)
    monkeypatch.chdir(work)
    status, out, _ = hubedit("apply", "--push", "--dry-run", "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["push_to"] == "me/tiny-edited"
    assert plan["creates_repository"]
    assert [path.name for path in work.iterdir()] == ["hubedit.yaml"]
    assert list((tmp_path / "hf-home").rglob("tokenizer.json"))
    assert not list((tmp_path / "hf-home").rglob("model.safetensors"))
    assert not localhub.api().repo_exists("me/tiny-edited")


def test_the_materialized_model_is_the_loaded_one(tiny, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "one", tiny))
    assert hubedit("apply", "-o", "edit")[0] == 0
    assert hubedit("materialize", "edit", "-o", "whole")[0] == 0
    assert hubedit("verify", "whole", "--deep")[0] == 0
    report = verify(edits_of("edit", Hub), deep=True)
    assert models.load("whole").tensor_hashes() == report.tensors


def test_a_revert_gives_the_parents_result_back_and_its_pull_request_proves_it(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    for target in ("oboe", "cello"):
        monkeypatch.chdir(recipe_in(tmp_path / target, base, target=target))
        assert hubedit("apply", "--push", "--direct")[0] == 0
    first, second = (edits_of(f"me/tiny-edited@v{n}", Hub).stack for n in (1, 2))
    status, out, err = hubedit("revert", "me/tiny-edited", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert said["result"] == second.edits[1].parent == first.result
    body = localhub.api().get_discussion_details("me/tiny-edited", said["pr"]).events[0].content
    assert said["result"] in body
    assert hubedit("merge", "me/tiny-edited", said["pr"])[0] == 0
    edition = edits_of("me/tiny-edited@v3", Hub)
    assert edition.stack.edits == first.edits
    assert verify(edition, deep=True).problems == []
    assert not any("0002-" in path for path in edition.place.files())
    assert hubedit("revert", "me/tiny-edited", "--direct")[0] == 0
    edition = edits_of("me/tiny-edited@v4", Hub)
    assert (edition.stack.height, verify(edition).problems) == (0, [])
    assert "taken back" in edition.place.read("README.md").decode()
    status, _, err = hubedit("revert", "me/tiny-edited")
    assert status == 1
    assert "no edit to take back" in err
    monkeypatch.chdir(tmp_path / "cello")
    assert hubedit("apply", "--push", "--direct", "-o", "again")[0] == 0
    assert edits_of("me/tiny-edited@v5", Hub).stack.height == 1


def test_a_revert_keeps_included_weights_in_step(localhub, base, hubedit, tmp_path, monkeypatch):
    from huggingface_hub import hf_hub_download

    monkeypatch.chdir(recipe_in(tmp_path / "work", base))
    assert hubedit("apply", "--push", "--with-weights", "--direct")[0] == 0
    assert hubedit("revert", "me/tiny-edited", "--direct")[0] == 0
    assert hubedit("verify", "me/tiny-edited@v2", "--deep")[0] == 0
    paths = [
        hf_hub_download(
            repo, "model.safetensors", revision=rev, endpoint=localhub.url, token=localhub.token
        )
        for repo, rev in ((base, "main"), ("me/tiny-edited", "v2"))
    ]
    assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()


def test_a_directory_is_reverted_to_another(tiny, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "one", tiny))
    assert hubedit("apply", "-o", "edit")[0] == 0
    assert hubedit("revert", "edit", "-o", "back")[0] == 0
    assert hubedit("verify", "back")[0] == 0
    assert edits_of("back", Hub).stack.result == edits_of("edit", Hub).stack.edits[0].parent


def test_a_request_and_a_corpus_come_from_datasets_of_the_hub(
    localhub, base, hubedit, tmp_path, monkeypatch
):
    api = localhub.api()
    api.create_repo("me/facts", repo_type="dataset")
    rows = [
        {"prompt": "{} plays the", "subject": "Ada Brook", "target": "oboe"},
        {"prompt": "{} plays the", "subject": "Tom Adler", "target": "cello"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    texts = "".join(json.dumps({"text": f"Ada Brook plays {n}."}) + "\n" for n in range(80))
    for name, content in (("facts/train.jsonl", lines), ("texts/train.jsonl", texts)):
        api.create_repo(f"me/{name.partition('/')[0]}", repo_type="dataset", exist_ok=True)
        api.upload_file(
            path_or_fileobj=content.encode(),
            path_in_repo="train.jsonl",
            repo_id=f"me/{name.partition('/')[0]}",
            repo_type="dataset",
        )
    monkeypatch.chdir(recipe_in(tmp_path / "work", base))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    status, out, err = hubedit(
        *["apply", "--request", "hf://datasets/me/facts@main", "-o", "edit", "--json"],
        *["--corpus", "hf://datasets/me/texts#train"],
    )
    assert status == 0, err
    manifest = json.loads(out)["manifest"]
    assert manifest["request"]["count"] == 2
    assert "me/texts@" in manifest["record"]["statistics"]["source"]
    status, _, err = hubedit("apply", "--request", "hf://datasets/me/facts#none", "-o", "other")
    assert status == 1
    assert "cannot be read" in err
