"""Files below a folder."""

from pathlib import Path

from nnunetv2_mip.files import files_below


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "far" / "inner" / "b").touch()
    (tmp_path / "far" / "inner" / "round").symlink_to(tmp_path / "far")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").touch()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "far")
    found = [path.relative_to(tmp_path / "tree") for path in files_below(tmp_path / "tree")]
    assert found == [Path("a"), Path("link/inner/b")]
