"""The two forms of the projector's inner loop: LLVM IR and plain numba, equal bit by bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views import simd, simd_plain
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.views.simd import FORM_VARIABLE, LANES, SAMPLES

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
# A projection where LLVM refuses the IR, as an incompatible llvmlite would.
REFUSED = """
import sys
import numpy as np
from nnunetv2_mip.views import simd

def refuse(*args):
    raise RuntimeError("LLVM IR parsing error")

simd._sample = refuse
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project

assert simd.needs_plain_form()
if len(sys.argv) > 1:
    folder = sys.argv[1]
    suv = np.load(f"{folder}/suv.npy")
    found = project(suv, ViewGeometry.load(f"{folder}/geometry.json"), depth=True)
    np.savez(f"{folder}/views.npz", suv=found.suv, depth_mm=found.depth_mm)
"""


@pytest.fixture
def plain(monkeypatch):
    """Function that chooses the plain form (True) or lets `simd` choose (False)."""

    def choose(wanted: bool) -> None:
        monkeypatch.setenv(FORM_VARIABLE, "plain" if wanted else "")
        simd.needs_plain_form.cache_clear()
        assert simd.needs_plain_form() is wanted

    yield choose
    simd.needs_plain_form.cache_clear()


def volume_of(array: np.ndarray, spacing_zyx=(3.0, 1.5, 2.0)) -> Volume:
    grid = SourceGrid(array.shape[::-1], spacing_zyx[::-1], (0.0, 0.0, 0.0), IDENTITY)
    return Volume(array.astype(np.float32), grid, Path("volume"))


def refused(*arguments: object, cache: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), FORM_VARIABLE: ""}
    command = [sys.executable, "-c", REFUSED, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@njit
def maxima_llvm(voxels, line, places, fxs, fys, best, ts, winner):
    alone = best.copy()
    lowest = simd.update_maximum(voxels, line, places, fxs, fys, alone)
    both = simd.update_maximum_and_winner(voxels, line, places, fxs, fys, best, ts, winner)
    return alone, lowest, both


@njit
def maxima_plain(voxels, line, places, fxs, fys, best, ts, winner):
    alone = best.copy()
    lowest = simd_plain.update_maximum(voxels, line, places, fxs, fys, alone)
    both = simd_plain.update_maximum_and_winner(voxels, line, places, fxs, fys, best, ts, winner)
    return alone, lowest, both


@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(2, 5), ties=st.booleans())
@settings(max_examples=200, deadline=None)
@pytest.mark.slow
def test_both_forms_of_the_maximum_are_equal(seed, columns, ties):
    rng = np.random.default_rng(seed)
    voxels = rng.exponential(3, (3, columns, LANES)).astype(np.float32)
    fxs, fys = rng.random((2, SAMPLES)).astype(np.float32)
    ts = rng.choice(np.float32([-2, -1.5, -0.5, 0.5, 1.5, 2]), SAMPLES)
    if ties:
        voxels[:] = np.rint(voxels[:1, :1])
        fxs[:], fys[:] = 0.5, 0.25
    rows, places = rng.integers(0, 2, SAMPLES), rng.integers(0, columns - 1, SAMPLES)
    places = ((rows * columns + places) * LANES).astype(np.uint64)
    before = rng.exponential(2, LANES).astype(np.float32)
    position = rng.choice(ts, LANES)
    results = []
    for form in (maxima_llvm, maxima_plain):
        best, winner = before.copy(), position.copy()
        alone, lowest, both = form(
            voxels.ravel(), np.uint64(columns * LANES), places, fxs, fys, best, ts, winner
        )
        assert np.array_equal(alone, best)
        assert lowest == both == best.min()
        assert (best >= before).all()
        results.append((best.tobytes(), winner.tobytes()))
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 5, 7), (64, 33, 40), (70, 40, 35), (129, 20, 66)])
def test_both_forms_give_the_same_views_bit_by_bit(size, plain):
    rng = np.random.default_rng(sum(size))
    array = rng.exponential(1, size) * (rng.random(size) < 0.3)
    volume = volume_of(array)
    geometry = ViewGeometry.for_volume(volume, [0.0, 31.0, 90.0, 133.3, 250.0])
    found = []
    for form in (False, True):
        plain(form)
        with_depth = project(volume.array, geometry, depth=True)
        alone = project(volume.array, geometry).suv
        assert np.array_equal(alone, with_depth.suv)
        mask = project_mask(array > 2, geometry)
        found.append([part.tobytes() for part in (alone, with_depth.depth_mm, mask)])
    assert found[0] == found[1]


def test_the_plain_form_is_chosen_when_the_ir_is_refused(tmp_path):
    # An empty cache: a compiled trial of an earlier run would be taken from it.
    refused(cache=tmp_path)


@pytest.mark.slow
def test_views_are_the_same_when_the_ir_is_refused(tmp_path):
    array = np.random.default_rng(0).exponential(3, (70, 20, 25))
    volume = volume_of(array)
    geometry = ViewGeometry.for_volume(volume, [0.0, 50.0, 90.0])
    geometry.save(tmp_path / "geometry.json")
    np.save(tmp_path / "suv.npy", volume.array)
    refused(tmp_path, cache=tmp_path / "cache")
    expected = project(volume.array, geometry, depth=True)
    with np.load(tmp_path / "views.npz") as found:
        assert found["suv"].tobytes() == expected.suv.tobytes()
        assert found["depth_mm"].tobytes() == expected.depth_mm.tobytes()
