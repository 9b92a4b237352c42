"""Policies: what a reviewer does not allow is stopped, and the pull request says why."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from forging import REPO, Proposal
from test_plugins import GOOD

from hubedit.plugins import load_plugins

WORKFLOW = Path(__file__).parent.parent / ".github" / "workflows" / "review.yml"


@pytest.fixture
def review(hubedit, tmp_path):
    """Review the pull request by a policy; gives the status and what was found."""

    def call(*more, **policy):
        (tmp_path / "hubedit-policy.yaml").write_text(yaml.safe_dump(policy))
        status, out, err = hubedit("review", REPO, "--pr", 1, "--json", *more)
        assert out, err
        return status, json.loads(out)

    return call


def comments(api):
    events = api.get_discussion_details(REPO, 1).events
    return [event.content for event in events if event.type == "comment"]


def test_what_the_policy_allows_is_verified(proposed, review):
    status, found = review(
        plugins=["hubedit>=0.1"], same_plugin=True, max_relative_norm=1e6, probes={"rewrite": 1},
        gates=[{"group": "neighbour", "metric": "unchanged", "min": 0}],
    )  # fmt: skip
    assert (status, found["verdict"], found["forbidden"]) == (0, "verified", [])
    assert "the policy allows the edit" in found["checked"]
    assert any("file by file the one that is installed" in item for item in found["checked"])


BROKEN = {
    "plugin": ({"plugins": ["hubedit-mine"]}, "is not among those allowed: hubedit-mine"),
    "version": ({"plugins": ["hubedit>=7"]}, "the plugin hubedit 0.1.0 is not among those"),
    "norm": ({"max_relative_norm": 1e-9}, "of its norm is allowed"),
    "probes": ({"probes": {"attribute": 3}}, "0 questions of the group attribute were asked"),
    "unasked": (
        {"gates": [{"group": "rewrite", "metric": "target", "min": 0}]},
        "the gates cannot be judged, since the questions were not asked again",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_it_does_not_allow_is_stopped_with_the_reason(proposed, review, rule):
    policy, said = BROKEN[rule]
    status, found = review("--no-probes", **policy)
    assert (status, found["verdict"]) == (1, "against the policy")
    (reason,) = found["forbidden"]
    assert said in reason


def test_the_posted_comment_and_the_page_give_the_reason(proposed, review, tmp_path):
    gate = {"group": "neighbour", "metric": "unchanged", "max": -1}
    norm = {"max_relative_norm": 1e-9}
    status, found = review("--comment", "--html", tmp_path / "r.html", gates=[gate], **norm)
    assert (status, found["verdict"]) == (1, "against the policy")
    (comment,) = comments(proposed)[-1:]
    assert comment.startswith("**hubedit review: against the policy**")
    assert "Against the policy:" in comment
    assert "1e-09 of its norm is allowed" in comment
    assert "and must be at most -1" in comment
    page = (tmp_path / "r.html").read_text()
    assert "<h1>Against the policy</h1>" in page
    assert "of its norm is allowed" in page


def test_a_forged_plugin_is_a_difference_and_breaks_a_policy_that_wants_the_same(proposed, review):
    forged = Proposal(proposed)
    manifest = forged.manifest()
    manifest["plugin"]["sha256"] = "5" * 64
    forged.keep_manifest(manifest)
    forged.write_pages()
    forged.agree()
    forged.send()
    status, found = review("--no-probes", plugins=["hubedit"])
    assert (status, found["verdict"]) == (1, "verified with differences")
    assert any("(555555555555) are others than" in item for item in found["differences"])
    status, found = review("--no-probes", same_plugin=True)
    assert (status, found["verdict"]) == (1, "against the policy")
    assert "file by file" in found["forbidden"][0]


def test_what_is_not_installed_here_is_not_checked(proposed, review, monkeypatch):
    monkeypatch.setenv("HUBEDIT_DISABLE_PLUGINS", "rome")
    status, found = review("--no-probes")
    assert status == 0
    assert any("made this edit and is not installed here" in item for item in found["unchecked"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_norm: 1", "unknown key 'max_norm'; did you mean 'max_relative_norm'"),
        ("gates: [{group: rewrite, metric: target}]", "a gate needs a min or a max"),
        ("plugins: ['not a name!']", "names no distribution as pip does"),
        ("- 1", "must hold keys"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_policy_that_cannot_be_read_stops_the_review(hubedit, tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    status, _, err = hubedit("review", REPO, "--pr", 1, "--policy", tmp_path / "mine.yaml")
    assert (status, "Traceback" in err) == (1, False)
    assert said in err
    assert "cannot be read" in hubedit("review", REPO, "--pr", 1, "--policy", "none.yaml")[2]


def test_the_workflow_stops_a_pull_request_that_breaks_the_policy(proposed, tmp_path, monkeypatch):
    (tmp_path / "strict.yaml").write_text("max_relative_norm: 1.0e-9\n")
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["review"]["steps"]
    (step,) = [step for step in steps if step.get("name") == "Review"]
    assert set(step["env"]) == {"HF_TOKEN", "REPO", "PR", "POLICY"}
    for name, value in (("REPO", REPO), ("PR", "1"), ("POLICY", "strict.yaml")):
        monkeypatch.setenv(name, value)
    done = subprocess.run(["bash", "-ec", step["run"]], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "against the policy" in done.stdout
    assert "of its norm is allowed" in comments(proposed)[-1]
    assert (tmp_path / "review.html").is_file()


def test_a_listing_and_a_manifest_say_where_a_plugin_comes_from(install, tmp_path, proposed):
    install("mine", GOOD)
    info = tmp_path / "site" / "plugin_mine-1.2.dist-info" / "direct_url.json"
    said = {
        "": "index",
        '{"url": "file:///home/me/x", "dir_info": {"editable": true}}': "local directory, editable",
        '{"url": "file:///home/me/x-1.whl", "archive_info": {}}': "local file x-1.whl",
        '{"url": "https://me:pw@git.example/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}': (
            "git+https://git.example/x@abc"
        ),
    }
    for text, origin in said.items():
        if text:
            info.write_text(text)
        (found,) = [one for one in load_plugins().infos if one.name == "mine"]
        assert found.record().origin == origin
    made = Proposal(proposed).manifest()["plugin"]
    assert made["origin"]
    assert "/" not in made["origin"] or made["origin"].startswith(("git+", "http"))
