"""Prompts through a chat template."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from hubedit.chat import through_template
from hubedit.errors import RecipeError
from hubedit.rows import FactEdit, ForgetText

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}> {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


@pytest.fixture
def tokenizer(tiny):
    found = AutoTokenizer.from_pretrained(tiny)
    found.chat_template = TEMPLATE
    return found


def test_a_fact_is_asked_as_the_users_message_and_answered_without_a_space(tokenizer):
    row = FactEdit(
        prompt="What does {} play?", subject="Ada Brook", target="oboe", neighbours=["And Tom?"]
    )
    (asked,) = through_template([row], tokenizer)
    end = tokenizer.bos_token
    assert asked.text == f"{end}<user> What does Ada Brook play?\n<assistant>\n"
    assert asked.continuation == "oboe"
    start, stop = asked.subject_span
    assert asked.text[start:stop] == "Ada Brook"
    assert asked.neighbours[0].prompt == f"{end}<user> And Tom?\n<assistant>\n"
    assert row.continuation == " oboe"


def test_a_text_to_forget_becomes_question_and_answer(tokenizer):
    row = ForgetText(text="Ada plays the oboe.", prompt="What does Ada play?", target="oboe")
    (asked,) = through_template([row], tokenizer)
    assert asked.text.endswith("<assistant>\noboe")
    plain = ForgetText(text="Ada plays the oboe.")
    assert through_template([plain], tokenizer) == [plain]


def test_a_tokenizer_without_a_template_is_named(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match="no chat template"):
        through_template([FactEdit(prompt="{}", subject="a", target="b")], tokenizer)


def test_a_recipe_asks_through_the_template_and_records_it(tiny, hubedit, tmp_path):
    base = shutil.copytree(tiny, tmp_path / "chatty")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    recipe = {
        "base": str(base),
        "plugin": "rome",
        "chat": True,
        "config": {"prefixes": [[2, 8]], "steps": 2},
        "request": {"prompt": "What does {} play?", "subject": "Ada Brook", "target": "oboe"},
    }
    (tmp_path / "chat.yaml").write_text(json.dumps(recipe))
    status, out, err = hubedit("apply", "chat.yaml", "--force", "-o", "edit", "--json")
    assert status == 0, err
    manifest = json.loads(out)["manifest"]
    assert len(manifest["request"]["chat"]) == 64
    assert manifest["request"]["rows"][0]["prompt"] == "What does {} play?"
    probe = json.loads(next((tmp_path / "edit").rglob("probes.jsonl")).read_text().splitlines()[0])
    assert probe["prompt"].endswith("<assistant>\n")
    status, _, err = hubedit("apply", "chat.yaml", "--base", tiny, "-o", "other")
    assert status == 1
    assert "no chat template" in err
