"""Creating, finding, renaming and deleting repositories through the real client."""

from __future__ import annotations

from pathlib import Path

import pytest
from hubedit_localhub import LocalHub, serve
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError


def test_creating_twice_is_refused_unless_exist_ok(api: HfApi) -> None:
    api.create_repo("me/demo", repo_type="dataset")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("me/demo", repo_type="dataset")
    assert refused.value.response.status_code == 409
    again = api.create_repo("me/demo", repo_type="dataset", exist_ok=True)
    assert (again.repo_id, again.repo_type) == ("me/demo", "dataset")


def test_models_and_datasets_of_one_name_are_apart(api: HfApi) -> None:
    api.create_repo("me/twin")
    assert not api.repo_exists("me/twin", repo_type="dataset")
    api.create_repo("me/twin", repo_type="dataset")
    api.delete_repo("me/twin")
    assert api.repo_exists("me/twin", repo_type="dataset")
    assert not api.repo_exists("me/twin")


def test_a_missing_repository_is_not_found(api: HfApi) -> None:
    for ask in ("me/nope", "gpt2"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(ask)
        with pytest.raises(RepositoryNotFoundError):
            api.hf_hub_download(ask, "config.json")
        with pytest.raises(RepositoryNotFoundError):
            api.list_repo_files(ask)


def test_a_moved_repository_answers_under_both_names(api: HfApi) -> None:
    api.create_repo("me/old")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="me/old")
    api.move_repo("me/old", "me/new")
    assert api.model_info("me/old").id == "me/new"
    assert Path(api.hf_hub_download("me/old", "x.txt")).read_bytes() == b"x"
    api.create_repo("me/old")
    assert api.model_info("me/old").id == "me/old"
    api.delete_repo("me/old")
    api.delete_repo("me/new", missing_ok=False)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("me/old")


@pytest.mark.parametrize(
    "name",
    ["me/../x", "me/a--b", "me/.git", "me/x.git", "api/x", "datasets/x", "me/a b", "me/-x", "me/"],
)
def test_names_that_would_leave_their_place_are_refused(localhub: LocalHub, name: str) -> None:
    from huggingface_hub.utils import get_session

    namespace, _, repo = name.partition("/")
    answer = get_session().post(
        f"{localhub.url}/api/repos/create",
        json={"name": repo, "organization": namespace},
        headers={"authorization": f"Bearer {localhub.token}"},
    )
    assert answer.status_code in (400, 403)
    assert [p.name for p in localhub.root.glob("models/**/*.git")] == []


def test_lists_are_filtered_by_the_card(api: HfApi, localhub: LocalHub) -> None:
    card = (
        "---\nbase_model: {base}\nbase_model_relation: adapter\nlicense: mit\ntags: [edit]\n---\n"
    )
    for name, base in (("one", "me/base"), ("two", "me/other")):
        api.create_repo(f"me/{name}")
        content = card.format(base=base).encode()
        api.upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id=f"me/{name}")
    ada = localhub.create_user("ada")
    localhub.api(ada).create_repo("ada/three")

    def ids(**query: object) -> set[str]:
        return {model.id for model in api.list_models(**query)}

    assert ids() == {"me/one", "me/two", "ada/three"}
    assert ids(author="me") == {"me/one", "me/two"}
    assert ids(search="TWO") == {"me/two"}
    assert ids(filter="base_model:me/base") == {"me/one"}
    assert ids(filter="base_model:adapter:me/other") == {"me/two"}
    assert ids(filter=["edit", "license:mit"]) == {"me/one", "me/two"}
    assert len(list(api.list_models(limit=2))) == 2
    card_data = next(iter(api.list_models(search="one", full=True, cardData=True))).card_data
    assert card_data is not None
    assert card_data.base_model == "me/base"
    assert [dataset.id for dataset in api.list_datasets()] == []


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    with serve(tmp_path / "hub", user="ada") as first:
        api = first.api()
        api.create_repo("ada/demo", private=True)
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.bin", repo_id="ada/demo")
        pull = api.create_pull_request("ada/demo", title="a draft")
        before = (first.token, first.user, api.model_info("ada/demo").sha)
    with serve(tmp_path / "hub") as second:
        api = second.api()
        assert (second.token, second.user, api.model_info("ada/demo").sha) == before
        assert api.model_info("ada/demo").private
        assert api.get_discussion_details("ada/demo", pull.num).title == "a draft"
