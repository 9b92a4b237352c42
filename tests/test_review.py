"""Reviews: what is verified, what differs, and what is caught."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from forging import REPO, Proposal, flipped
from test_way import recipe_in

from hubedit.delta import Delta, encode
from hubedit.editions import edits_of
from hubedit.hub import Hub
from hubedit.places import checkpoint
from hubedit.updates import LowRank, Sparse


def reviewed(hubedit, *more, pr=1, repo=REPO):
    status, out, err = hubedit("review", repo, "--pr", pr, "--json", *more)
    assert out, err
    return status, json.loads(out)


def caught(hubedit, said, *more, where="broken", repo=REPO):
    """Review without questions; one sentence must say what is wrong."""
    status, found = reviewed(hubedit, "--no-probes", *more, repo=repo)
    assert status == 1
    verdict = {"broken": "not verified", "differences": "verified with differences"}[where]
    assert found["verdict"] == verdict, found
    assert [item for item in found[where] if said in item], found[where]
    return found


def test_a_sound_edit_is_verified_and_the_verdict_posted(proposed, hubedit):
    status, found = reviewed(hubedit, "--comment")
    assert (status, found["verdict"], found["headline"]) == (0, "verified", "verified")
    assert any("recorded questions asked again" in item for item in found["checked"])
    comments = [
        event.content
        for event in proposed.get_discussion_details(REPO, 1).events
        if event.type == "comment"
    ]
    assert "hubedit review: verified" in comments[-1]
    assert "“Ada Brook plays the” → “oboe”" in comments[-1]
    assert "| rewrite: what was asked for | answers with the target |" in comments[-1]


def test_a_later_verdict_takes_the_place_of_the_earlier(proposed, hubedit):
    proposed.comment_discussion(REPO, 1, "Looks good to me.")
    reviewed(hubedit, "--no-probes", "--comment")
    forged = Proposal(proposed)
    forged.files["extra.py"] = b"hello"
    forged.send()
    reviewed(hubedit, "--no-probes", "--comment")
    events = proposed.get_discussion_details(REPO, 1).events
    said = [event.content for event in events if event.type == "comment"]
    assert len([text for text in said if text.startswith("**hubedit review:")]) == 1
    assert "Looks good to me." in said
    assert said[-1].startswith("**hubedit review: not verified**")
    assert "extra.py is not listed" in said[-1]


def test_a_review_is_written_as_a_page_that_opens_with_the_verdict(proposed, hubedit, tmp_path):
    status, _, err = hubedit("review", REPO, "--pr", "1", "--html", "review.html")
    assert status == 0, err
    page = (tmp_path / "review.html").read_text()
    assert page.index("<h1>Verified</h1>") < page.index("Edit 1: ")
    assert '<td class="">as recorded</td>' in page
    assert ">differs<" not in page
    assert "hf download me/tiny-edited edits/0001-rome-" in page


def test_the_page_of_a_broken_edit_says_so_first(proposed, hubedit, tmp_path):
    forged = Proposal(proposed)
    forged.files[forged.path("delta.safetensors")] = flipped(
        forged.files[forged.path("delta.safetensors")]
    )
    forged.send()
    assert hubedit("review", REPO, "--pr", "1", "--html", "review.html")[0] == 1
    page = (tmp_path / "review.html").read_text()
    parts = ["<h1>Not verified</h1>", "Do not merge", "delta.safetensors is not the file"]
    parts += ["What follows is what the records claim. It is not verified.", "Edit 1: "]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_a_pull_request_that_takes_an_edit_back_is_reviewed_as_such(proposed, hubedit, tmp_path):
    assert hubedit("merge", REPO, "1")[0] == 0
    status, _, err = hubedit("revert", REPO)
    assert status == 0, err
    status, _, err = hubedit("review", REPO, "--pr", "2", "--comment", "--html", "review.html")
    assert status == 0, err
    page = (tmp_path / "review.html").read_text()
    assert "It takes back 0001-rome-" in page
    assert "<article" not in page
    (said,) = (
        event.content
        for event in proposed.get_discussion_details(REPO, 2).events
        if event.type == "comment" and "hubedit review" in event.content
    )
    assert "It takes back `0001-rome-" in said


def test_a_report_is_served_until_it_is_interrupted(proposed):
    arguments = ["review", REPO, "--pr", "1", "--no-probes", "--serve"]
    command = [sys.executable, "-m", "hubedit", *arguments]

    def heard() -> None:
        """Be interrupted as at a terminal, though the tests run in the background of a shell."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as running:
        said = running.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)[0]
        with urllib.request.urlopen(address) as answer:
            assert b"<h1>Bytes verified, behaviour not checked</h1>" in answer.read()
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(20) == 0
        finally:
            running.kill()


def test_a_review_without_probes_loads_no_torch(proposed):
    arguments = ["review", REPO, "--pr", "1", "--no-probes"]
    code = (
        "import sys; from hubedit.cli import run; "
        f"status = run({arguments!r}); "
        "sys.exit(status or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_probes_the_headline_says_what_was_not_checked(proposed, hubedit):
    status, found = reviewed(hubedit, "--no-probes")
    assert (status, found["headline"]) == (0, "bytes verified, behaviour not checked")


def test_the_reviewers_own_questions_are_asked_and_not_published(proposed, hubedit, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Nils Okafor plays the"}\n')
    status, found = reviewed(hubedit, "--probes", tmp_path / "mine.jsonl", "--comment")
    assert status == 0
    assert found["own"][0]["prompt"] == "Nils Okafor plays the"
    events = proposed.get_discussion_details(REPO, 1).events
    assert not any("Okafor" in str(getattr(event, "content", "")) for event in events[1:])


# -- tampering, and tampering with the records brought up to date -------------------------------


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("delta.safetensors", flipped, "delta.safetensors is not the file"),
        ("README.md", lambda text: text + b"\nTrust me.\n", "README.md is not the file"),
        ("probes.jsonl", lambda text: text.replace(b"true", b"false"), "probes.jsonl is not the"),
        ("DIFF.md", lambda text: text + b"x", "DIFF.md is not the file"),
        ("manifest.json", lambda text: text + b" ", "manifest.json is not the"),
    ],
)
def test_what_was_altered_after_the_fact_is_caught(proposed, hubedit, name, change, said):
    forged = Proposal(proposed)
    forged.files[forged.path(name)] = change(forged.files[forged.path(name)])
    forged.send()
    caught(hubedit, said)


def test_a_flipped_bit_is_caught_though_all_digests_were_made_to_agree(proposed, hubedit):
    forged = Proposal(proposed)
    delta = forged.delta()
    ((name, update),) = delta.items()
    left = update.left.copy()
    left[3, 0] *= 2
    other = Delta({name: LowRank(left, update.right)}, delta.targets, delta.aliases, delta.meta)
    forged.keep_delta(other.to_bytes())
    forged.agree()
    forged.send()
    caught(hubedit, f"{name} is rebuilt to other bits than recorded")


def test_a_changed_tensor_that_the_manifest_does_not_list_is_caught(proposed, hubedit):
    forged = Proposal(proposed)
    delta, base = forged.delta(), checkpoint(edits_of(f"{REPO}@refs/pr/1", Hub).base)
    hidden = "transformer.h.1.attn.c_proj.weight"
    values = base.read(hidden).to_float32().reshape(-1)[:2] + 1
    change = {name: [update] for name, update in delta.items()}
    change[hidden] = [Sparse(np.array([0, 1]), values)]
    made = encode(change, base.read, meta=delta.meta, aliases={**delta.aliases, hidden: ()})
    forged.keep_delta(made.delta.to_bytes())
    forged.agree()
    forged.send()
    caught(hubedit, f"{hidden} is changed and not recorded")


def test_a_changed_tensor_of_the_included_weights_is_caught(localhub, tiny, hubedit, tmp_path):
    api = localhub.api()
    api.create_repo("me/tiny")
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    recipe_in(tmp_path / "work", "me/tiny")
    flags = ["--push", "--with-weights", "--to", "me/whole"]
    assert hubedit("apply", tmp_path / "work" / "hubedit.yaml", *flags)[0] == 0
    status, found = reviewed(hubedit, "--no-probes", repo="me/whole")
    assert status == 0, found
    forged = Proposal(api, "me/whole")
    forged.files["model.safetensors"] = flipped(forged.files["model.safetensors"])
    forged.agree()
    forged.send()
    caught(hubedit, "in the weights is not what base and edits give", repo="me/whole")


@pytest.mark.parametrize(
    ("figure", "value"), [("elements_changed", 1), ("relative_norm", 1e-9), ("rank", 7)]
)
def test_a_figure_that_the_bits_do_not_give_is_caught(proposed, hubedit, figure, value):
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["tensors"][0][figure] = value
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    caught(hubedit, f"and the manifest says {value}")


def test_a_tensor_that_the_manifest_places_elsewhere_is_caught(proposed, hubedit):
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["tensors"][0]["layer"] = 2
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    caught(hubedit, "and the manifest places it in mlp of layer 2")


def test_a_tensor_beyond_what_the_method_declares_is_a_difference(proposed, hubedit):
    _, found = reviewed(hubedit, "--no-probes")
    assert any("nothing beyond what rome says" in item for item in found["checked"])
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["config"]["layer"] = 2
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    caught(hubedit, "is beyond what rome says it changes", where="differences")


@pytest.mark.parametrize("name", ["README.md", "DIFF.md"])
def test_a_page_that_says_other_things_than_the_records_is_caught(proposed, hubedit, name):
    forged = Proposal(proposed)
    text = forged.files[forged.path(name)]
    forged.files[forged.path(name)] = text.replace(b"oboe", b"harp")
    forged.agree()
    forged.send()
    caught(hubedit, f"{name} is not what hubedit")


def test_a_delta_made_for_another_base_is_caught(proposed, hubedit):
    forged = Proposal(proposed)
    delta = forged.delta()
    other = Delta(delta, delta.targets, delta.aliases, {**delta.meta, "base": "5" * 64})
    forged.keep_delta(other.to_bytes())
    forged.agree()
    forged.send()
    caught(hubedit, "its delta was made for another base (555555555555…)")


def test_a_base_given_that_is_another_model_is_caught(proposed, hubedit, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    weights = other / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    caught(hubedit, "is not the base of this edit", "--base", other)


def test_a_base_that_moved_is_caught_unless_a_tag_keeps_what_was_edited(proposed, hubedit, tiny):
    edited = proposed.model_info("me/tiny").sha
    weights = (tiny / "model.safetensors").read_bytes()
    for name, content in (("README.md", b"# Tiny\n"), ("model.safetensors", flipped(weights))):
        proposed.upload_file(repo_id="me/tiny", path_or_fileobj=content, path_in_repo=name)
        if name == "README.md":
            assert reviewed(hubedit, "--no-probes")[0] == 0
    found = caught(hubedit, "the base has moved: me/tiny is now at", where="differences")
    assert "model.safetensors differs" in found["differences"][0]
    proposed.create_tag("me/tiny", tag="edited", revision=edited)
    assert reviewed(hubedit, "--no-probes")[0] == 0


def test_a_base_that_is_gone_is_caught(proposed, hubedit):
    proposed.delete_repo("me/tiny")
    caught(hubedit, "the base is gone: me/tiny has no commit")


def test_an_extra_file_is_caught(proposed, hubedit):
    forged = Proposal(proposed)
    forged.files["extra.py"] = b"hello"
    forged.send()
    found = caught(hubedit, "extra.py is not listed")
    assert any("extra.py is changed, which is no part" in item for item in found["broken"])
    forged.agree()
    forged.before = {}
    forged.send()
    caught(hubedit, "extra.py is changed, which is no part of the edit")


def test_scores_that_the_model_does_not_give_are_caught(proposed, hubedit):
    """Records that agree with each other, and not with the model."""
    forged = Proposal(proposed)
    probes, manifest = forged.probes(), forged.manifest()
    for probe in probes:
        probe["after"]["p_target"] = 0.99
        if probe["group"] == "rewrite":
            probe["after"]["answer"], probe["passed"] = probe["target"], True
    for score in manifest["scores"]:
        score["after"] = 1.0
    forged.keep_probes(probes)
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    status, found = reviewed(hubedit)
    assert (status, found["verdict"]) == (1, "verified with differences"), found
    assert any("p(target) after differs" in item for item in found["differences"])


def test_a_transcript_that_the_model_does_not_write_is_caught(proposed, hubedit):
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["transcripts"][0]["after"] = " oboe, and all of it well."
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    status, found = reviewed(hubedit)
    assert status == 1
    assert found["differences"] == ["transcript 1: what the model writes after the edit is another"]


def test_scores_that_the_recorded_answers_do_not_give_are_caught(proposed, hubedit):
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["scores"][0]["after"] = 0.5
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    caught(hubedit, "not those that the recorded answers give", where="differences")


def test_an_edit_that_main_has_moved_away_from_is_caught(proposed, hubedit, tmp_path, monkeypatch):
    monkeypatch.chdir(recipe_in(tmp_path / "two", "me/tiny", target="cello"))
    assert hubedit("apply", "--push", "--direct")[0] == 0
    status, found = reviewed(hubedit)
    assert status == 1
    assert "main has moved on" in found["broken"][0]


def test_a_review_of_nothing_is_an_error(proposed, hubedit):
    status, _, err = hubedit("review", REPO, "--pr", "9")
    assert status == 1
    assert "no pull request 9" in err
    status, _, err = hubedit("review", REPO, "--pr", "1", "--request", "rows.jsonl")
    assert status == 1
    assert "go together" in err
