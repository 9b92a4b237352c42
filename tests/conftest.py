"""A pull request that is made once, and given to each test that reviews it."""

import shutil

import pytest
from test_way import recipe_in


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where a Hub with the pull request is kept once it is made."""
    return tmp_path_factory.mktemp("kept") / "hub"


@pytest.fixture
def proposed(request, kept, tmp_path, tiny, hubedit, monkeypatch):
    """A pull request with one edit; gives the client."""
    if kept.exists():
        shutil.copytree(kept, tmp_path / "hub")
        return request.getfixturevalue("localhub").api()
    api = request.getfixturevalue("localhub").api()
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny)
    with monkeypatch.context() as there:
        there.chdir(recipe_in(tmp_path / "work", "me/tiny"))
        assert hubedit("apply", "--push")[0] == 0
    shutil.copytree(tmp_path / "hub", kept)
    return api
