"""The session folder: held by one session alone, and never half written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from amatch_widgets.errors import SessionInUseError, WorkspaceError
from amatch_widgets.session.workspace import Workspace

# Holds the folder until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from amatch_widgets.session.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "mergers"


@pytest.fixture
def workspace(folder):
    workspace = Workspace(folder)
    yield workspace
    workspace.close()


@pytest.fixture
def holder(folder):
    """Start a process that holds the folder."""
    arguments = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_folder_is_made_and_its_files_have_their_places(workspace, folder):
    assert folder.is_dir()
    assert workspace.labels == folder / "labels.jsonl"
    assert workspace.history == folder / "history.jsonl"
    assert workspace.checkpoint(3, 300) == folder / "checkpoints" / "cycle=0003-step=00000300.safetensors"
    assert (folder / "checkpoints").is_dir()


def test_a_second_holder_in_this_process_is_refused(workspace, folder):
    with pytest.raises(
        SessionInUseError, match=r"in use by another session of this kernel.*session\.close\(\)"
    ):
        Workspace(folder)
    workspace.write_manifest({})  # the first still holds it


def test_a_second_holder_in_another_process_is_refused_and_named(holder, folder):
    with pytest.raises(
        SessionInUseError, match=rf"in use by process {holder.pid} on '.*' *. Close that session"
    ):
        Workspace(folder)


def test_a_lock_of_a_killed_process_bars_nobody(holder, folder):
    holder.kill()
    holder.wait(10)
    assert (folder / "session.lock").exists()
    assert str(holder.pid) in (folder / "session.owner").read_text()
    Workspace(folder).close()


def test_a_holder_without_a_readable_name_is_still_refused(workspace, folder):
    for content in ("", "[]", '{"pid": 1}'):
        (folder / "session.owner").write_text(content)
        with pytest.raises(SessionInUseError, match="in use by another session"):
            Workspace(folder)


def test_a_closed_folder_is_free_and_closing_twice_does_no_harm(workspace, folder):
    workspace.close()
    workspace.close()
    Workspace(folder).close()


def test_any_thread_may_give_the_folder_free(workspace, folder):
    thread = threading.Thread(target=workspace.close)
    thread.start()
    thread.join(10)
    Workspace(folder).close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"run' cannot be used: Not a directory\. Choose a folder"):
        Workspace(tmp_path / "file" / "run")


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="file' cannot be used"):
        Workspace(tmp_path / "file")


def test_a_folder_without_the_right_to_write_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(WorkspaceError, match="cannot be used: Permission denied"):
        Workspace(folder)


def test_a_full_disk_at_the_start_gives_the_lock_back(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkspaceError, match=r"session\.owner cannot be written.*No space left"):
            Workspace(folder)
    Workspace(folder).close()


# ---- manifest ---------------------------------------------------------------------------------


def test_a_new_folder_has_no_manifest(workspace):
    assert workspace.manifest() is None


def test_the_manifest_comes_back(workspace):
    workspace.write_manifest({"train": {"steps": 3}})
    assert workspace.manifest() == {"format": 1, "train": {"steps": 3}}


def test_a_full_disk_leaves_the_old_manifest(workspace, monkeypatch):
    workspace.write_manifest({"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkspaceError, match=r"session\.json cannot be written.*No space left"):
            workspace.write_manifest({"n": 2})
    assert workspace.manifest()["n"] == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"train": 1}', "\ud800"])
def test_a_damaged_manifest_is_an_error_that_says_what_is_kept(workspace, folder, content):
    (folder / "session.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(
        WorkspaceError, match=r"session\.json' is damaged.*labels, scores and checkpoints are"
    ):
        workspace.manifest()


def test_a_manifest_of_a_newer_format_is_an_error(workspace, folder):
    (folder / "session.json").write_text('{"format": 99}')
    with pytest.raises(WorkspaceError, match=r"format 99; this version reads 1\. Update amatch-widgets"):
        workspace.manifest()


# ---- checkpoints ------------------------------------------------------------------------------


def test_without_checkpoints_the_last_step_is_0(workspace):
    assert workspace.checkpoints() == []
    assert workspace.last_step() == (0, 0)


def test_checkpoints_are_found_oldest_first_and_other_files_are_not_taken_for_one(workspace):
    paths = [workspace.checkpoint(cycle, step) for cycle, step in ((1, 50), (1, 100), (2, 150))]
    for path in [*reversed(paths), paths[0].with_name("notes.txt"), paths[0].with_name(".x.tmp")]:
        path.touch()
    assert workspace.checkpoints() == paths
    assert workspace.last_step() == (2, 150)


def test_pruning_keeps_the_last_two_and_removes_what_a_killed_process_left(workspace):
    paths = [workspace.checkpoint(1, step) for step in (1, 2, 3, 4)]
    left_over = paths[3].with_name(f".{paths[3].name}.tmp")
    notes = paths[0].with_name("notes.txt")
    for path in (*paths, left_over, notes):
        path.touch()
    workspace.prune_checkpoints()
    assert sorted(paths[0].parent.iterdir()) == sorted([*paths[2:], notes])


def test_a_checkpoint_that_cannot_be_removed_stops_nothing(workspace, monkeypatch):
    for step in (1, 2, 3):
        workspace.checkpoint(1, step).touch()

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    workspace.prune_checkpoints()
    assert workspace.last_step() == (1, 3)


def test_a_folder_of_checkpoints_that_cannot_be_made_is_an_error(workspace, folder):
    (folder / "checkpoints").touch()
    with pytest.raises(WorkspaceError, match=r"checkpoints' cannot be made.*the labels are safe"):
        workspace.checkpoint(1, 1)
