"""Reviews: what is verified, what differs, and what is caught."""

import json

import pytest
from test_way import recipe_in

from hubedit.editions import edits_of
from hubedit.hub import Hub

REPO = "me/tiny-edited"


@pytest.fixture
def proposed(localhub, tiny, hubedit, tmp_path, monkeypatch):
    """A pull request with one edit; gives the client."""
    api = localhub.api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    monkeypatch.chdir(recipe_in(tmp_path / "work", "me/tiny"))
    assert hubedit("apply", "--push")[0] == 0
    return api


def reviewed(hubedit, *more, pr=1):
    status, out, err = hubedit("review", REPO, "--pr", pr, "--json", *more)
    assert out, err
    return status, json.loads(out)


def tampered(api, name, change):
    """Change one file of the pull request behind the records' back."""
    place = edits_of(f"{REPO}@refs/pr/1", Hub).place
    path = next(path for path in place.files() if path.endswith(name))
    api.upload_file(
        path_or_fileobj=change(place.read(path)),
        path_in_repo=path,
        repo_id=REPO,
        revision="refs/pr/1",
    )


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


def flip(content):
    changed = bytearray(content)
    changed[-5] ^= 4
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("delta.safetensors", flip, "delta.safetensors"),
        ("README.md", lambda text: text + b"\nTrust me.\n", "README.md is not the file"),
        ("probes.jsonl", lambda text: text.replace(b"true", b"false"), "probes.jsonl"),
        ("DIFF.md", lambda text: text + b"x", "DIFF.md is not the file"),
    ],
)
def test_what_was_altered_after_the_fact_is_caught(proposed, hubedit, name, change, said):
    tampered(proposed, name, change)
    status, found = reviewed(hubedit)
    assert (status, found["verdict"]) == (1, "not verified")
    assert any(said in item for item in found["broken"])


def test_an_extra_file_is_caught(proposed, hubedit):
    proposed.upload_file(
        path_or_fileobj=b"hello", path_in_repo="extra.py", repo_id=REPO, revision="refs/pr/1"
    )
    status, found = reviewed(hubedit)
    assert status == 1
    assert any("extra.py is not listed" in item for item in found["broken"])
    assert any("extra.py is changed, which is no part" in item for item in found["broken"])


def test_scores_that_the_model_does_not_give_are_caught(proposed, hubedit):
    """Records that agree with each other, and not with the model."""
    import hashlib

    place = edits_of(f"{REPO}@refs/pr/1", Hub).place
    stack = json.loads(place.read("hubedit.json"))
    folder = f"edits/{stack['edits'][0]['name']}"
    probes = [json.loads(line) for line in place.read(f"{folder}/probes.jsonl").splitlines()]
    for probe in probes:
        probe["after"]["p_target"] = 0.99
        probe["passed"] = True
    manifest = json.loads(place.read(f"{folder}/manifest.json"))
    for score in manifest["scores"]:
        score["after"] = 1.0
    files = {
        f"{folder}/probes.jsonl": "".join(json.dumps(probe) + "\n" for probe in probes),
        f"{folder}/manifest.json": json.dumps(manifest, sort_keys=True, indent=2) + "\n",
    }
    for path, text in files.items():
        stack["files"][path] = hashlib.sha256(text.encode()).hexdigest()
        proposed.upload_file(
            path_or_fileobj=text.encode(), path_in_repo=path, repo_id=REPO, revision="refs/pr/1"
        )
    stack["edits"][0]["manifest"] = stack["files"][f"{folder}/manifest.json"]
    proposed.upload_file(
        path_or_fileobj=json.dumps(stack).encode(),
        path_in_repo="hubedit.json",
        repo_id=REPO,
        revision="refs/pr/1",
    )
    status, found = reviewed(hubedit)
    assert (status, found["verdict"]) == (1, "verified with differences")
    assert any("p(target) after differs" in item for item in found["differences"])


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
