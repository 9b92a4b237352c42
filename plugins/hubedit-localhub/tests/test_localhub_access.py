"""Who may do what, and which exception the client makes of a no."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from hubedit_localhub import LocalHub
from hubedit_localhub.commands import hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import get_session

from hubedit import HubEditError


@pytest.fixture(autouse=True)
def repositories(api: HfApi) -> None:
    api.create_repo("me/open")
    api.create_repo("me/hidden", private=True)


def _upload(api: HfApi, repo_id: str, **more: object) -> None:
    operations = [CommitOperationAdd("x.txt", b"x"), CommitOperationAdd("x.bin", b"\0x")]
    api.create_commit(repo_id, operations, commit_message="x", **more)


def _status(call: Callable[[], object]) -> int:
    with pytest.raises(HfHubHTTPError) as refused:
        call()
    return refused.value.response.status_code


def test_a_private_repository_does_not_exist_for_others(localhub: LocalHub) -> None:
    ada, nobody = localhub.api(localhub.create_user("ada")), localhub.api(False)
    for outsider in (ada, nobody):
        for call in (
            lambda api: api.model_info("me/hidden"),
            lambda api: api.list_repo_files("me/hidden"),
            lambda api: api.hf_hub_download("me/hidden", ".gitattributes"),
            lambda api: list(api.get_repo_discussions("me/hidden")),
            lambda api: _upload(api, "me/hidden"),
            lambda api: _upload(api, "me/hidden", create_pr=True),
            lambda api: api.auth_check("me/hidden"),
        ):
            with pytest.raises(RepositoryNotFoundError):
                call(outsider)
        assert [model.id for model in outsider.list_models()] == ["me/open"]
    assert {model.id for model in localhub.api().list_models()} == {"me/open", "me/hidden"}
    reader = localhub.api(localhub.create_token("read"))
    assert reader.list_repo_files("me/hidden") == [".gitattributes"]


def test_hidden_and_missing_repositories_get_the_same_answer(localhub: LocalHub) -> None:
    token = localhub.create_user("ada")
    for headers in ({}, {"authorization": f"Bearer {token}"}):
        answers = [
            get_session().get(f"{localhub.url}{path.format(name)}", headers=headers)
            for path in ("/api/models/me/{}", "/me/{}/resolve/main/x", "/me/{}")
            for name in ("hidden", "missing")
        ]
        for hidden, missing in zip(answers[::2], answers[1::2], strict=True):
            assert (hidden.status_code, hidden.text) == (missing.status_code, missing.text)


def test_a_read_token_reads_and_opens_pull_requests_but_does_not_write(localhub: LocalHub) -> None:
    reader = localhub.api(localhub.create_token("read"))
    for call in (
        lambda: _upload(reader, "me/open"),
        lambda: reader.create_repo("me/new"),
        lambda: reader.delete_repo("me/open"),
        lambda: reader.move_repo("me/open", "me/else"),
        lambda: reader.update_repo_settings("me/open", private=True),
        lambda: reader.create_tag("me/open", tag="v1"),
        lambda: reader.create_branch("me/open", branch="b"),
    ):
        assert _status(call) == 403
    _upload(reader, "me/open", create_pr=True)
    assert _status(lambda: reader.merge_pull_request("me/open", 1)) == 403
    assert reader.list_repo_files("me/open") == [".gitattributes"]


def test_others_contribute_through_pull_requests_alone(localhub: LocalHub) -> None:
    ada = localhub.api(localhub.create_user("ada"))
    bob = localhub.api(localhub.create_user("bob"))
    assert _status(lambda: _upload(ada, "me/open")) == 403
    assert _status(lambda: ada.create_repo("me/new")) == 403
    _upload(ada, "me/open", create_pr=True)
    more = [CommitOperationAdd("y.bin", b"\0y")]
    ada.create_commit("me/open", more, commit_message="more", revision="refs/pr/1")
    again = [CommitOperationAdd("z.txt", b"z")]
    assert (
        _status(
            lambda: bob.create_commit("me/open", again, commit_message="z", revision="refs/pr/1")
        )
        == 403
    )
    assert _status(lambda: bob.change_discussion_status("me/open", 1, "closed")) == 403
    assert _status(lambda: bob.rename_discussion("me/open", 1, "Mine now")) == 403
    assert _status(lambda: ada.merge_pull_request("me/open", 1)) == 403
    localhub.api().merge_pull_request("me/open", 1)
    assert "y.bin" in ada.list_repo_files("me/open")


def test_without_a_token_public_repositories_are_read_and_nothing_is_written(
    localhub: LocalHub,
) -> None:
    nobody = localhub.api(False)
    assert nobody.list_repo_files("me/open") == [".gitattributes"]
    for call in (
        lambda: _upload(nobody, "me/open"),
        lambda: _upload(nobody, "me/open", create_pr=True),
        lambda: nobody.create_tag("me/open", tag="v1"),
    ):
        with pytest.raises(RepositoryNotFoundError):
            call()
    assert _status(lambda: nobody.create_discussion("me/open", title="Hello")) == 401


def test_an_unknown_token_is_refused_everywhere(localhub: LocalHub) -> None:
    wrong = localhub.api("hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        wrong.whoami()
    assert _status(lambda: wrong.model_info("me/open")) == 401


def test_whoami_tells_user_and_role(localhub: LocalHub) -> None:
    ada = localhub.create_user("ada")
    for token, name, role in (
        (localhub.token, "me", "write"),
        (ada, "ada", "write"),
        (localhub.create_token("read", "ada"), "ada", "read"),
    ):
        said = localhub.api(token).whoami()
        assert (said["name"], said["auth"]["accessToken"]["role"]) == (name, role)


def test_visibility_can_be_changed(api: HfApi, localhub: LocalHub) -> None:
    api.update_repo_settings("me/hidden", private=False)
    assert localhub.api(False).model_info("me/hidden").private is False
    api.update_repo_settings("me/hidden", visibility="private")
    with pytest.raises(RepositoryNotFoundError):
        localhub.api(False).model_info("me/hidden")


def test_tokens_lie_hashed_and_secrets_are_the_owners_alone(localhub: LocalHub) -> None:
    token = localhub.create_user("ada")
    stored = (localhub.root / "accounts.json").read_text()
    assert token not in stored
    assert localhub.token not in stored
    assert len(json.loads(stored)["tokens"]) == 2
    assert stat.S_IMODE(localhub.root.stat().st_mode) == 0o700
    for name in ("token", "secret", "accounts.json"):
        assert stat.S_IMODE((localhub.root / name).stat().st_mode) == 0o600


def test_a_name_that_only_points_here_is_not_answered(localhub: LocalHub) -> None:
    for host, status in (
        ("evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("localhost:1", 200),
    ):
        answer = get_session().get(f"{localhub.url}/api/models", headers={"host": host})
        assert answer.status_code == status


def test_unknown_addresses_answer_in_json(localhub: LocalHub) -> None:
    for path in ("/api/agent-harnesses", "/api/spaces", "/api/models/me/open/unknown", "/a/b/c/d"):
        answer = get_session().get(localhub.url + path)
        assert answer.status_code == 404
        assert answer.json()["error"]
        assert "x-error-code" not in answer.headers
    assert get_session().delete(f"{localhub.url}/api/models/me/open/refs").status_code == 405


def test_a_grant_opens_one_private_repository(localhub: LocalHub) -> None:
    token = localhub.create_user("ada")
    ada, root = localhub.api(token), ["--root", str(localhub.root)]
    assert CliRunner().invoke(hub, ["grant", *root, "me/hidden", "ada", "read"]).exit_code == 0
    assert ada.list_repo_files("me/hidden") == [".gitattributes"]
    assert "me/hidden" in {model.id for model in ada.list_models()}
    assert _status(lambda: _upload(ada, "me/hidden")) == 403
    assert CliRunner().invoke(hub, ["grant", *root, "me/hidden", "ada", "write"]).exit_code == 0
    _upload(ada, "me/hidden")
    assert _status(lambda: ada.update_repo_settings("me/hidden", private=False)) == 403
    assert _status(lambda: ada.delete_repo("me/hidden")) == 403
    reads = localhub.api(localhub.create_token("read", "ada"))
    assert _status(lambda: _upload(reads, "me/hidden")) == 403
    assert CliRunner().invoke(hub, ["grant", *root, "me/hidden", "ada", "none"]).exit_code == 0
    assert not ada.repo_exists("me/hidden")
    for wrong in (["me/nope", "ada", "read"], ["me/hidden", "bob", "read"]):
        done = CliRunner().invoke(hub, ["grant", *root, *wrong])
        assert isinstance(done.exception, HubEditError)


def test_the_command_makes_users_and_tokens(localhub: LocalHub) -> None:
    root = ["--root", str(localhub.root)]
    token = CliRunner().invoke(hub, ["token", *root, "ada", "--read"]).output.strip()
    said = localhub.api(token).whoami()
    assert (said["name"], said["auth"]["accessToken"]["role"]) == ("ada", "read")
    for name in ("Ada", "a/b", ".."):
        done = CliRunner().invoke(hub, ["token", *root, name])
        assert isinstance(done.exception, HubEditError)


def test_what_a_gate_hides_is_hidden_on_pages_and_in_diffs(api: HfApi, localhub: LocalHub) -> None:
    text = [CommitOperationAdd("secret.txt", b"the gated text")]
    head = api.create_commit("me/open", text, commit_message="x").oid
    changed = [CommitOperationAdd("secret.txt", b"the gated text, changed")]
    api.create_commit("me/open", changed, commit_message="y", create_pr=True)
    api.update_repo_settings("me/open", gated="auto")
    for path in (
        "me/open",
        "me/open/blob/main/secret.txt",
        "me/open/raw/main/secret.txt",
        f"me/open/commit/{head}",
        "me/open/discussions/1",
        "api/models/me/open/discussions/1?diff=1",
    ):
        assert "the gated text" not in get_session().get(f"{localhub.url}/{path}").text, path
    assert "the gated text" in str(api.get_discussion_details("me/open", 1).diff)


def test_a_name_without_an_owner_is_the_owners(api: HfApi, localhub: LocalHub) -> None:
    _upload(api, "open")
    ada = localhub.api(localhub.create_user("ada"))
    assert ada.model_info("open").id == "me/open"
    assert "x.bin" in ada.list_repo_files("open")
    assert ada.file_exists("open", "x.txt")
    assert not ada.repo_exists("hidden")
    assert (
        api.create_commit(
            "open", [CommitOperationAdd("y.txt", b"y")], commit_message="y", create_pr=True
        ).pr_num
        == 1
    )
