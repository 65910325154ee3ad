"""The state of a checkout is recorded without running, fetching or following anything that the checkout names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from loopwright.experiment.rundir import git_repository
from loopwright.experiment.rundir.git_state import git_state

UNKNOWN = ({"commit": None, "is_dirty": None}, None)
HOLES = 1 << 40  # bytes of a file that occupies no space on the disk

pytestmark = pytest.mark.timeout(30)  # a hang fails


def git(directory: Path, *arguments: str, given: str | None = None) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True, input=given
    )
    return done.stdout


def commit_all(checkout: Path) -> None:
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "first")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a few committed files."""
    top = tmp_path / "checkout"
    (top / "folder").mkdir(parents=True)
    git(top, "init", "-q")
    (top / "a.txt").write_text("one\n")
    (top / "folder" / "b c\u00e9.txt").write_text("two\n")
    (top / "data.bin").write_bytes(bytes(range(256)) * 40)
    (top / "link").symlink_to("a.txt")
    commit_all(top)
    return top


def dirty(checkout: Path) -> None:
    (checkout / "a.txt").write_text("other\n")


# What is recorded.


def change(checkout: Path) -> None:
    (checkout / "a.txt").write_text("one\nmore\n")
    (checkout / "a.txt").chmod(0o755)


def replace_by_link(checkout: Path) -> None:
    (checkout / "a.txt").unlink()
    (checkout / "a.txt").symlink_to("folder")


def turn_link(checkout: Path) -> None:
    (checkout / "link").unlink()
    (checkout / "link").symlink_to("data.bin")


def change_staged_and_again(checkout: Path) -> None:
    (checkout / "a.txt").write_text("staged\n")
    (checkout / "new.txt").write_text("new\n")
    git(checkout, "add", ".")
    (checkout / "a.txt").write_text("later\n")


def add_by_intent(checkout: Path) -> None:
    (checkout / "new.txt").write_text("new\n")
    git(checkout, "add", "--intent-to-add", "new.txt")


def leave_out(checkout: Path) -> None:
    git(checkout, "sparse-checkout", "set", "--no-cone", "/a.txt")
    dirty(checkout)


def conflict(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "-b", "side")
    (checkout / "a.txt").write_text("side\n")
    git(checkout, "commit", "-q", "-a", "-m", "side")
    git(checkout, "checkout", "-q", "-")
    (checkout / "a.txt").write_text("main\n")
    git(checkout, "commit", "-q", "-a", "-m", "main")
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "merge", "side")


def split_index(checkout: Path) -> None:
    git(checkout, "update-index", "--split-index")
    dirty(checkout)


CHANGES: list[Callable[[Path], object]] = [
    lambda checkout: None,
    change,
    lambda checkout: (checkout / "data.bin").write_bytes(bytes(range(255, -1, -1)) * 50),
    lambda checkout: (checkout / "folder" / "b c\u00e9.txt").unlink(),
    lambda checkout: git(checkout, "rm", "-q", "--cached", "a.txt"),
    lambda checkout: git(checkout, "mv", "data.bin", "moved.bin"),
    lambda checkout: os.utime(checkout / "a.txt", (1, 1)),
    lambda checkout: (checkout / "untracked").write_text("not recorded"),
    replace_by_link,
    turn_link,
    change_staged_and_again,
    add_by_intent,
    leave_out,
    split_index,
]


@pytest.mark.parametrize(("edit", "form"), [*((edit, "sha1") for edit in CHANGES), (change_staged_and_again, "sha256")])
def test_the_recorded_changes_equal_those_of_git_diff(
    edit: Callable[[Path], object], form: str, checkout: Path
) -> None:
    if form == "sha256":
        git(checkout.parent, "init", "-q", "--object-format=sha256", "other")
        for name in ("a.txt", "data.bin", "folder"):
            (checkout / name).rename(checkout.parent / "other" / name)
        (checkout.parent / "other" / "link").symlink_to("a.txt")
        checkout = checkout.parent / "other"
        commit_all(checkout)
    edit(checkout)
    expected = git(checkout, "diff", "--binary", "HEAD")
    state = {"commit": git(checkout, "rev-parse", "HEAD").strip(), "is_dirty": bool(expected)}
    assert git_state(checkout / "folder") == (state, expected)


def test_a_file_with_conflicts_is_recorded_as_it_is(checkout: Path) -> None:
    conflict(checkout)
    state, diff = git_state(checkout)
    assert state["is_dirty"] and diff is not None and "+<<<<<<< HEAD\n" in diff and "+side\n" in diff


def test_recording_changes_no_file_of_the_repository(checkout: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (checkout / ".git").rglob("*") if path.is_file()}

    change_staged_and_again(checkout)
    before = files()
    assert git_state(checkout)[1]
    assert files() == before


def test_a_linked_worktree_is_a_checkout(checkout: Path) -> None:
    git(checkout, "worktree", "add", "-q", "-b", "other", "../linked")
    dirty(checkout.parent / "linked")
    assert git_state(checkout.parent / "linked")[1] == git(checkout.parent / "linked", "diff", "--binary", "HEAD")
    assert git_state(checkout)[1] == ""


@pytest.fixture
def submodule(checkout: Path) -> Path:
    git(checkout, "clone", "-q", ".", "../origin")
    git(checkout, "submodule", "add", "-q", "../origin", "inner")
    git(checkout, "commit", "-q", "-m", "second")
    return checkout / "inner"


def test_changes_of_a_submodule_are_recorded(submodule: Path) -> None:
    checkout = submodule.parent
    assert git_state(checkout)[1] == ""
    dirty(submodule)
    state, diff = git_state(checkout)
    assert state["is_dirty"]
    assert diff == git(submodule, "diff", "--binary", "--src-prefix=a/inner/", "--dst-prefix=b/inner/", "HEAD")
    git(submodule, "commit", "-q", "-a", "-m", "third")
    assert git_state(checkout)[1] == git(checkout, "diff", "--binary", "HEAD")


def test_a_recorded_change_can_be_applied_again(submodule: Path, tmp_path: Path) -> None:
    checkout = submodule.parent
    shutil.copytree(checkout, tmp_path / "again", symlinks=True)
    change_staged_and_again(checkout)
    dirty(submodule)
    diff = git_state(checkout)[1]
    subprocess.run(["patch", "-p1", "-s"], cwd=tmp_path / "again", input=diff, text=True, check=True)
    for name in ("a.txt", "new.txt", "inner/a.txt"):
        assert (tmp_path / "again" / name).read_text() == (checkout / name).read_text()


def test_a_file_of_git_lfs_is_compared_with_its_pointer(checkout: Path) -> None:
    content = b"weights"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\nsize 7\n"
    (checkout / "a.txt").write_text(pointer)
    commit_all(checkout)
    (checkout / "a.txt").write_bytes(content)
    assert git_state(checkout)[1] == ""
    (checkout / "a.txt").write_bytes(b"others")
    assert "+others" in str(git_state(checkout)[1])


def test_content_beyond_the_limit_is_recorded_by_its_digest(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_repository, "_MAX_CONTENT_BYTES", 10)
    (checkout / "a.txt").write_text("six...")
    (checkout / "link").unlink()
    (checkout / "link").write_text("seven..")
    diff = git_state(checkout)[1]
    assert diff is not None and "+six...\n" in diff
    assert f"+oid sha256:{hashlib.sha256(b'seven..').hexdigest()}\n+size 7\n" in diff


# What a stranger's checkout must not do.


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that does not exist. A program of an attack would create it."""
    return tmp_path / "it_ran"


def set_all(checkout: Path, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        git(checkout, "config", name, value)


def programs(marker: Path) -> dict[str, dict[str, str]]:
    """Settings that make git run a program, by a name for the attack."""
    run = f"sh -c 'touch {marker}; cat' #"
    return {
        "filter.clean": {"filter.x.clean": run},
        "filter.process": {"filter.x.process": run, "filter.x.required": "true"},
        "filter with = in its name": {"filter.x=y.clean": run},
        "textconv": {"diff.x.textconv": run, "diff.x.cachetextconv": "true"},
        "diff driver": {"diff.x.command": run, "diff.external": run},
        "fsmonitor": {"core.fsmonitor": run},
        "pager": {"core.pager": run, "pager.diff": run, "pager.rev-parse": run},
        "alias": {"alias.diff": f"!{run}", "alias.rev-parse": f"!{run}", "alias.diff-index": f"!{run}"},
    }


@pytest.mark.parametrize("attack", programs(Path()))
@pytest.mark.parametrize("place", ["config", "submodule"])
def test_a_setting_of_the_checkout_runs_no_program(attack: str, place: str, submodule: Path, marker: Path) -> None:
    run_nothing(attack, submodule if place == "submodule" else submodule.parent, submodule.parent, marker)


def test_an_included_setting_runs_no_program(checkout: Path, marker: Path) -> None:
    run_nothing("filter.clean", checkout, checkout, marker, is_included=True)


def run_nothing(attack: str, target: Path, checkout: Path, marker: Path, *, is_included: bool = False) -> None:
    """Set up an attack in ``target``, and check that recording the state of ``checkout`` runs no program."""
    if is_included:
        for name, value in programs(marker)[attack].items():
            git(target, "config", "--file", "../outside.cfg", name, value)
        git(target, "config", "include.path", str((target / "../outside.cfg").resolve()))
    else:
        set_all(target, programs(marker)[attack])
    (target / ".gitattributes").write_text("* filter=x diff=x\na.txt filter=x=y\n")
    dirty(target)
    state, diff = git_state(checkout)
    assert not marker.exists()
    assert state["is_dirty"] and diff is not None and "+other\n" in diff


@pytest.mark.parametrize("hook", ["post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout"])
def test_a_hook_of_the_checkout_is_not_run(hook: str, checkout: Path, marker: Path) -> None:
    file = checkout / ".git" / "hooks" / hook
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\ntouch {marker}\n")
    file.chmod(0o755)
    dirty(checkout)
    assert "+other" in str(git_state(checkout)[1])
    assert not marker.exists()


def remotes(marker: Path) -> dict[str, dict[str, str]]:
    """Remotes that make git run a program when it fetches a missing object, by a name for the attack."""
    run = f"sh -c 'touch {marker}' #"
    return {
        "sshCommand": {"remote.x.url": "ssh://nowhere.invalid/x", "core.sshCommand": run},
        "gitProxy": {"remote.x.url": "git://nowhere.invalid/x", "core.gitProxy": f"{marker.parent}/program"},
        "uploadpack": {"remote.x.url": "/nowhere", "remote.x.uploadpack": run},
        "ext": {"remote.x.url": f"ext::{marker.parent}/program", "protocol.ext.allow": "always"},
        "insteadOf": {
            "remote.x.url": "short:x",
            "url.ssh://nowhere.invalid/.insteadOf": "short:",
            "core.sshCommand": run,
        },
    }


MISSING = ["HEAD:a.txt", "HEAD^{tree}", "HEAD"]


@pytest.mark.parametrize(
    ("attack", "missing"),
    [*(("sshCommand", each) for each in MISSING), *((each, "HEAD:a.txt") for each in [*remotes(Path())][1:])],
)
def test_a_missing_object_is_not_fetched(attack: str, missing: str, checkout: Path, marker: Path) -> None:
    program = marker.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    oid = git(checkout, "rev-parse", missing).strip()
    settings = {"core.repositoryformatversion": "1", "extensions.partialClone": "x", "remote.x.promisor": "true"}
    set_all(checkout, settings | {"protocol.allow": "always"} | remotes(marker)[attack])
    (checkout / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    dirty(checkout)
    assert git_state(checkout)[1] is None
    assert not marker.exists()


def test_a_file_outside_the_checkout_is_not_recorded(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.txt").write_text("swordfish\n")
    set_all(checkout, {"core.worktree": str(tmp_path / "home")})
    assert "swordfish" not in str(git_state(checkout))


def test_a_folder_that_became_a_link_is_not_followed(checkout: Path, tmp_path: Path) -> None:
    (checkout / "folder").rename(tmp_path / "outside")
    (tmp_path / "outside" / "b c\u00e9.txt").write_text("swordfish\n")
    (checkout / "folder").symlink_to(tmp_path / "outside")
    state, diff = git_state(checkout)
    assert state["is_dirty"] and diff is not None and "deleted file" in diff and "swordfish" not in diff


@pytest.mark.parametrize("path", ["../a", ".git/", ".GIT/x"])
def test_a_path_in_the_index_that_leaves_the_checkout_is_not_opened(path: str, checkout: Path, tmp_path: Path) -> None:
    given = f"{path}{'x' * (12 - len(path))}"
    stand_in = checkout / ("y" * 12)
    stand_in.write_text("stand-in\n")
    git(checkout, "add", ".")
    index = checkout / ".git" / "index"
    content = index.read_bytes()[:-20].replace(b"y" * 12, given.encode())
    index.write_bytes(content + hashlib.sha1(content).digest())
    assert given in git(checkout, "ls-files")
    (checkout / given).parent.mkdir(exist_ok=True)
    (checkout / given).write_text("swordfish\n")
    assert "swordfish" not in str(git_state(checkout))


@pytest.mark.parametrize("name", ["a.txt", ".gitattributes", "folder/.gitattributes", ".gitmodules", "folder/.git"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_file_that_never_ends_is_not_opened(name: str, kind: str, checkout: Path) -> None:
    git(checkout, "config", "core.fsmonitor", "false")
    (checkout / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(checkout / name)
    else:
        (checkout / name).symlink_to("/dev/zero")
    dirty_file = checkout / "data.bin"
    dirty_file.write_text("other\n")
    state, diff = git_state(checkout)
    assert state["is_dirty"] and diff is not None
    assert ("new file mode 120000" in diff) == (name == "a.txt" and kind == "device")


@pytest.mark.parametrize(
    "name", [".git", ".git/config", ".git/index", ".git/HEAD", ".git/packed-refs", ".git/commondir"]
)
def test_a_pipe_in_place_of_a_file_of_git_does_not_block(name: str, checkout: Path) -> None:
    if name == ".git":
        (checkout / name).rename(checkout / "not_git")
    (checkout / name).unlink(missing_ok=True)
    os.mkfifo(checkout / name)
    git_state(checkout)


def test_pipes_among_the_refs_and_objects_cost_a_limited_time(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_repository, "_SECONDS", 0.5)
    (ref,) = (checkout / ".git" / "refs" / "heads").iterdir()
    ref.unlink()
    os.mkfifo(ref)
    assert git_state(checkout) == UNKNOWN


def test_a_file_of_holes_is_recorded_by_its_size(checkout: Path) -> None:
    os.truncate(checkout / "a.txt", HOLES)
    state, diff = git_state(checkout)
    assert state["is_dirty"] and diff is not None and f"+size {HOLES}: too large to be recorded" in diff


@pytest.mark.slow
def test_an_object_that_expands_without_end_is_not_expanded(checkout: Path) -> None:
    packer = zlib.compressobj(1)
    num_bytes = (1 << 30) + (1 << 24)
    parts = [packer.compress(b"blob %d\0" % num_bytes)]
    block = b"\0" * (1 << 24)
    parts += [packer.compress(block) for _ in range(num_bytes >> 24)]
    oid = "ab" * 20
    file = checkout / ".git" / "objects" / oid[:2] / oid[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join([*parts, packer.flush()]))
    tree = git(checkout, "mktree", "--missing", given=f"100644 blob {oid}\ta.txt\n").strip()
    bomb = git(checkout, "commit-tree", tree, given="bomb").strip()
    git(checkout, "update-ref", "HEAD", bomb)
    assert git_state(checkout) == ({"commit": bomb, "is_dirty": None}, None)


@pytest.mark.parametrize("name", ["GIT_EXTERNAL_DIFF", "GIT_DIR", "GIT_CONFIG_PARAMETERS"])
def test_variables_of_git_do_not_change_the_record(
    name: str, checkout: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"GIT_CONFIG_PARAMETERS": f"'diff.external=touch {marker}'"}
    monkeypatch.setenv(name, values.get(name, f"touch {marker}"))
    dirty(checkout)
    assert "+other" in str(git_state(checkout)[1])
    assert not marker.exists()


def test_without_a_checkout_nothing_is_recorded(tmp_path: Path) -> None:
    assert git_state(tmp_path) == UNKNOWN
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) == UNKNOWN  # there is no commit yet
    (tmp_path / ".git" / "HEAD").unlink()
    (tmp_path / ".git").rename(tmp_path / ".gone")
    (tmp_path / ".git").write_text("gitdir: \0")
    assert git_state(tmp_path) == UNKNOWN
