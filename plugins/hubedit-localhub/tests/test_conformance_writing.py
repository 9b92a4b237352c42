"""What the client changes on a Hub: commits, branches, history, access, copies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import (
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from speaking import add, commit, post


def test_a_new_repository_holds_gitattributes(client: HfApi, fresh: str) -> None:
    assert client.list_repo_files(fresh) == [".gitattributes"]


def test_a_commit_adds_replaces_copies_and_deletes(client: HfApi, fresh: str) -> None:
    commit(client, fresh, add("a/1"), add("a/2"), add("w.bin", b"\0w"), add("gone"))
    done = commit(
        client,
        fresh,
        add("a/1", b"new"),
        CommitOperationCopy("w.bin", "copy.bin"),
        CommitOperationDelete("gone"),
    )
    assert sorted(client.list_repo_files(fresh)) == [
        ".gitattributes",
        "a/1",
        "a/2",
        "copy.bin",
        "w.bin",
    ]
    assert done.oid == client.model_info(fresh).sha
    assert done.commit_url.endswith(f"{fresh}/commit/{done.oid}")


def test_a_folder_is_deleted_whichever_way_it_is_named(client: HfApi, fresh: str) -> None:
    commit(client, fresh, add("a/1"), add("b/1"), add("c/d/1"))
    client.delete_folder("a", fresh)
    client.delete_files(fresh, ["b/*"])
    answer = post(
        client,
        f"models/{fresh}/commit/main",
        {"key": "header", "value": {"summary": "a file that is a folder"}},
        {"key": "deletedFile", "value": {"path": "c"}},
    )
    assert answer.json()["success"] is True
    assert client.list_repo_files(fresh) == [".gitattributes"]


def test_empty_files_and_odd_names_are_kept(client: HfApi, fresh: str, tmp_path: Path) -> None:
    paths = ["empty.txt", "sp ace/q?&=.txt", "日本/ü.txt", "a'b\"c.txt", "100%.txt", "#x"]
    commit(client, fresh, *(add(path, b"") for path in paths))
    assert set(paths) < set(client.list_repo_files(fresh))
    for path in paths:
        found = client.hf_hub_download(fresh, path, cache_dir=tmp_path)
        assert Path(found).read_bytes() == b""


def test_a_folder_is_uploaded_and_old_files_deleted(
    client: HfApi, fresh: str, folder: Path
) -> None:
    commit(client, fresh, add("old.txt"))
    client.upload_folder(repo_id=fresh, folder_path=folder, delete_patterns="*.txt")
    assert sorted(client.list_repo_files(fresh)) == [
        ".gitattributes",
        "README.md",
        "model.safetensors",
        "sub/notes.txt",
    ]


def test_what_gitignore_names_is_left_out(client: HfApi, fresh: str) -> None:
    rules = b"*.log\n!kept.log\nbuild/\n"
    commit(client, fresh, add(".gitignore", rules), add("a.log"), add("kept.log"))
    commit(client, fresh, add("sub/b.log"), add("build/x"), add("src/x"))
    files = client.list_repo_files(fresh)
    assert sorted(files) == [".gitattributes", ".gitignore", "kept.log", "src/x"]


def test_the_same_again_makes_no_commit(client: HfApi, fresh: str) -> None:
    first = commit(client, fresh, add("a", b"a"), add("w.bin", b"\0w"))
    assert commit(client, fresh, add("a", b"a"), add("w.bin", b"\0w")).oid == first.oid


def test_other_spellings_and_bare_names_are_written_too(client: HfApi, fresh: str) -> None:
    commit(client, fresh.upper(), add("a"), add("w.bin", b"\0upper"))
    assert {"a", "w.bin"} < set(client.list_repo_files(fresh))
    assert client.create_tag(fresh.upper(), tag="v1") is None
    assert [tag.name for tag in client.list_repo_refs(fresh).tags] == ["v1"]


def test_a_branch_lives_and_dies(client: HfApi, fresh: str) -> None:
    client.create_branch(fresh, branch="b/one")
    client.create_branch(fresh, branch="b/one", exist_ok=True)
    commit(client, fresh, add("x"), revision="b/one")
    assert "x" not in client.list_repo_files(fresh)
    client.delete_branch(fresh, branch="b/one")
    client.create_branch(fresh, branch="b")
    assert sorted(ref.name for ref in client.list_repo_refs(fresh).branches) == ["b", "main"]


def test_history_is_squashed(client: HfApi, fresh: str) -> None:
    commit(client, fresh, add("a"))
    client.super_squash_history(fresh, commit_message="One")
    assert [commit.title for commit in client.list_repo_commits(fresh)] == ["One"]
    assert "a" in client.list_repo_files(fresh)


def test_a_large_file_is_removed_from_all_commits(client: HfApi, fresh: str) -> None:
    old = commit(client, fresh, add("w.bin", b"\0secret"), add("kept.txt")).oid
    num = commit(client, fresh, add("more.txt"), create_pr=True).pr_num
    client.permanently_delete_lfs_files(fresh, client.list_lfs_files(fresh))
    assert list(client.list_lfs_files(fresh)) == []
    for revision in ("main", f"refs/pr/{num}"):
        assert "w.bin" not in client.list_repo_files(fresh, revision=revision)
        assert "kept.txt" in client.list_repo_files(fresh, revision=revision)
    assert [c.title for c in client.list_repo_commits(fresh)] == ["Do", "initial commit"]
    assert client.model_info(fresh).sha != old


def test_a_repository_is_moved_and_found_under_its_old_name(
    client: HfApi, new_id: Callable[..., str]
) -> None:
    old, new = new_id(), new_id(create=False)
    client.move_repo(old, new)
    assert client.model_info(old).id == new


def test_a_repository_is_duplicated(
    client: HfApi, shelf: SimpleNamespace, new_id: Callable[..., str], tmp_path: Path
) -> None:
    copy = new_id(create=False)
    url = client.duplicate_repo(shelf.repo, copy, private=True)
    assert url.repo_id == copy
    assert client.model_info(copy).private
    assert client.list_repo_files(copy) == client.list_repo_files(shelf.repo)
    found = client.hf_hub_download(copy, "model.safetensors", cache_dir=tmp_path)
    assert Path(found).read_bytes() == shelf.files["model.safetensors"]
    with pytest.raises(HfHubHTTPError) as refused:
        client.duplicate_repo(shelf.repo, copy)
    assert refused.value.response.status_code == 409


def test_shards_are_described_in_one_call(
    client: HfApi, fresh: str, tensors: Callable[..., bytes]
) -> None:
    places = {"a": "s-1.safetensors", "b": "s-2.safetensors"}
    index = {"metadata": {"total_size": 16}, "weight_map": places}
    commit(
        client,
        fresh,
        add("model.safetensors.index.json", json.dumps(index).encode()),
        add("s-1.safetensors", tensors("a")),
        add("s-2.safetensors", tensors("b")),
    )
    found = client.get_sharded_safetensors_metadata(fresh)
    assert found.weight_map == index["weight_map"]
    assert found.metadata == {"total_size": 16}
    plain = client.get_safetensors_metadata(fresh)
    assert plain.weight_map == found.weight_map


def test_a_gated_repository_shows_itself_and_not_its_files(
    client: HfApi, other: HfApi, nobody: HfApi, fresh: str, tmp_path: Path
) -> None:
    commit(client, fresh, add("w.bin", b"\0gated"))
    client.update_repo_settings(fresh, gated="manual")
    assert other.model_info(fresh).gated == "manual"
    for outsider in (other, nobody):
        with pytest.raises(GatedRepoError):
            outsider.hf_hub_download(fresh, "w.bin", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError):
            outsider.auth_check(fresh)
    user = other.whoami()["name"]
    client.grant_access(fresh, user)
    assert [request.username for request in client.list_accepted_access_requests(fresh)] == [user]
    found = other.hf_hub_download(fresh, "w.bin", cache_dir=tmp_path)
    assert Path(found).read_bytes() == b"\0gated"
    client.reject_access_request(fresh, user, rejection_reason=None)
    with pytest.raises(GatedRepoError):
        other.auth_check(fresh)
    client.update_repo_settings(fresh, gated=False)
    assert nobody.model_info(fresh).gated is False


def test_a_private_repository_is_not_there_for_others(
    client: HfApi, other: HfApi, nobody: HfApi, new_id: Callable[..., str]
) -> None:
    hidden = new_id(private=True)
    for outsider in (other, nobody):
        assert not outsider.repo_exists(hidden)
        with pytest.raises(RepositoryNotFoundError):
            outsider.list_repo_files(hidden)
    client.update_repo_settings(hidden, private=False)
    assert nobody.repo_exists(hidden)


def test_a_token_that_reads_does_not_write(reader: HfApi, fresh: str) -> None:
    assert reader.list_repo_files(fresh) == [".gitattributes"]
    with pytest.raises(HfHubHTTPError) as refused:
        commit(reader, fresh, add("x"))
    assert refused.value.response.status_code == 403


def test_the_file_system_writes(client: HfApi, fresh: str) -> None:
    files = HfFileSystem(endpoint=client.endpoint, token=client.token, skip_instance_cache=True)
    with files.open(f"{fresh}/a/b.txt", "w") as file:
        file.write("hello")
    files.cp_file(f"{fresh}/a/b.txt", f"{fresh}/c.txt")
    files.rm(f"{fresh}/a", recursive=True)
    assert client.list_repo_files(fresh) == [".gitattributes", "c.txt"]
