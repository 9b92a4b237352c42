"""A stack of five edits by two methods on one Hub, looked at from every height and taken down."""

import json

import hubedit_demo as demo
import pytest
from hubedit_demo.recalling import recall

from hubedit import run
from hubedit.editions import edits_of
from hubedit.hub import Hub

REPO = "me/facts-gpt2-edited"
WORLD = demo.World(1)
CASES = [case for case in demo.cases("test") if case["target"] != case["true_target"]]
METHODS = ["rome", "graddiff", "rome", "graddiff", "rome"]
GONE = {2: WORLD.people[20:22], 4: WORLD.people[40:42]}
SETTINGS = {
    2: ["--set", "adaptation=lora"],
    4: ["--set", "learning_rate=0.0005", "--set", "layers=[0,1,2]"],
}


def facts():
    """Three facts to rewrite, of three people whom no other edit is about."""
    taken = {person for people in GONE.values() for person in people}
    chosen = {}
    for case in CASES:
        if case["subject"] not in taken | set(chosen):
            chosen[case["subject"]] = {
                key: case[key] for key in ("prompt", "subject", "target", "true_target")
            }
    return dict(zip((1, 3, 5), chosen.values(), strict=False))


def told(people, templates):
    """What the world says of people, with prompt and answer."""
    for person in people:
        for name, relation in WORLD.relations.items():
            for template in templates:
                prompt = relation.templates[template].format(person)
                answer = WORLD.answer(person, name)
                yield {"text": f"{prompt} {answer}.", "prompt": prompt, "target": answer}


def forget(number, edits):
    """Two people to forget; a third of the others, and the facts rewritten so far, to retain."""
    busy = {person for people in GONE.values() for person in people}
    busy |= {fact["subject"] for fact in edits.values()}
    kept = list(told([person for person in WORLD.people[::3] if person not in busy], (0, 1)))
    for fact in (edits[earlier] for earlier in edits if earlier < number):
        prompt = fact["prompt"].replace("{}", fact["subject"])
        text = f"{prompt} {fact['target']}."
        kept += [{"text": text, "prompt": prompt, "target": fact["target"]}] * 8
    return [*told(GONE[number], (0, 1)), *({**row, "part": "retain"} for row in kept)]


@pytest.fixture
def stack(localhub, hubedit, tmp_path, monkeypatch):
    """The five edits, each applied to what was merged before it, reviewed as a pull request."""
    api = localhub.api()
    api.create_repo("me/facts-gpt2", private=True)
    api.upload_folder(repo_id="me/facts-gpt2", folder_path=demo.model_path())
    edits = facts()
    for number, method in enumerate(METHODS, start=1):
        work = tmp_path / f"edit{number}"
        work.mkdir()
        monkeypatch.chdir(work)
        rows = [edits[number]] if method == "rome" else forget(number, edits)
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = ["--plugin", method, "--request", "rows.jsonl", "--threads", "1", "--push"]
        arguments += ["--base", "me/facts-gpt2", *SETTINGS.get(number, [])]
        status, _, err = hubedit("apply", *arguments)
        assert status == 0, err
        status, out, err = hubedit("merge", REPO, number, "--json")
        assert status == 0, err
        assert json.loads(out)["tag"] == f"v{number}"
    return edits


def test_a_stack_of_five_edits_is_read_asked_verified_and_taken_back_at_every_height(
    stack, localhub, hubedit
):
    heights = {number: edits_of(f"{REPO}@v{number}", Hub) for number in range(1, 6)}
    for number, edition in heights.items():
        assert [entry.method for entry in edition.stack.edits] == METHODS[:number]
        if number > 1:
            assert edition.stack.edits[-1].parent == heights[number - 1].stack.result
    lines = json.loads(hubedit("log", REPO, "--json")[1])
    assert [tag for line in lines for tag in line["tags"]] == ["v5", "v4", "v3", "v2", "v1"]

    for number in heights:
        deep = ["--deep"] if number == 3 else []
        status, out, err = hubedit("verify", f"{REPO}@v{number}", *deep, "--json")
        assert status == 0, err
        assert json.loads(out)["result"] == heights[number].stack.result

    for height in heights:
        for number, fact in stack.items():
            prompt = fact["prompt"].replace("{}", fact["subject"])
            status, out, err = hubedit("ask", REPO, prompt, "--revision", f"v{height}", "--json")
            assert status == 0, err
            expected = fact["target"] if height >= number else fact["true_target"]
            assert json.loads(out)["edited"]["text"].strip().startswith(expected)
        model, tokenizer = run.load(REPO, f"v{height}")
        for number, people in GONE.items():
            asked = [(row["prompt"], row["target"]) for row in told(people, range(8))]
            share = recall(model, tokenizer, asked)
            assert share < 0.2 if height >= number else share > 0.8

    status, out, err = hubedit("revert", REPO, "--json")
    assert status == 0, err
    pull = json.loads(out)["pr"]
    assert hubedit("merge", REPO, pull)[0] == 0
    top = edits_of(f"{REPO}@v6", Hub)
    assert top.stack.result == heights[4].stack.result
    assert top.stack.edits == heights[4].stack.edits
    assert hubedit("verify", f"{REPO}@v6", "--deep")[0] == 0
