"""Vector operations on `LANES` neighbouring voxels for the inner loop of the projector.

numba leaves it to LLVM to find loops that can work on many numbers at once. In a loop as short as
this one, LLVM's test whether that is safe takes more time than the loop itself. The vectors are
therefore written here as LLVM IR, which LLVM compiles for whatever the processor has (AVX-512,
AVX2, NEON, …). The terms of a sum are added in a fixed order without fused multiply-add, so that
every processor gives the same float32.

`views.simd_plain` has the same functions in plain numba, for a numba or llvmlite that refuses this
IR. `needs_plain_form` says which of the two the projector takes.
"""

import functools
import os

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Voxels along z that are sampled together: 256 bytes, four cache lines.
LANES = 64
# Samples of a ray that are taken together, so that none waits for the one before.
SAMPLES = 4
# Environment variable; its value `plain` chooses `views.simd_plain`.
FORM_VARIABLE = "NNUNETV2_MIP_SIMD"


@functools.cache
def needs_plain_form() -> bool:
    """Whether the projector takes the functions of `views.simd_plain` instead of these.

    It does where `FORM_VARIABLE` says so, and where numba or LLVM refuses to compile the IR of this
    module. The trial is a small function in numba's cache: a fraction of a second on the first
    call, a few milliseconds later. It runs at the first projection, not at import.
    """
    if os.environ.get(FORM_VARIABLE) == "plain":
        return True
    voxels, four = np.zeros(4 * LANES, np.float32), np.zeros(SAMPLES, np.float32)
    best, winner = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    try:
        _try_to_compile(voxels, np.zeros(SAMPLES, np.uint64), four, best, winner)
    # numba wraps errors of its own, llvmlite raises RuntimeError, TypeError or AttributeError.
    except Exception:
        return True
    return False


@intrinsic
def update_maximum(typing, voxels, line, places, fxs, fys, best):
    """Maximum of `best` and of `SAMPLES` bilinear samples, in each lane.

    Args:
        voxels: 1-D float32, columns of LANES voxels one after the other along x, then y.
        line: uint64, elements from a column to that at y + 1.
        places: (SAMPLES) uint64, for each sample the first element of its column at y0, x0.
        fxs, fys: (SAMPLES) float32, its distance from there in columns, 0 to 1.
        best: (LANES) float32, changed in place.

    Returns:
        The lowest of the new `best`, float32.
    """

    def generate(context, builder, signature, args):
        best_at = _pointer(context, builder, signature.args[5], args[5])
        best = builder.load(best_at, align=4)
        for number in range(SAMPLES):
            sample = _sample(context, builder, signature, args, number)
            best = _larger(builder, sample, best)
        builder.store(best, best_at, align=4)
        return _lowest(builder, best)

    return types.float32(voxels, line, places, fxs, fys, best), generate


@intrinsic
def update_maximum_and_winner(typing, voxels, line, places, fxs, fys, best, ts, winner):
    """As `update_maximum`, with the position of the highest sample along the ray.

    Of equal samples the one with the smaller |t| wins, of two such the one with t < 0: the order
    in which samples come does not matter.

    Args:
        ts: (SAMPLES) float32, positions of the samples along the ray.
        winner: (LANES) float32, position of the highest sample, 0 at first; changed in place.
    """

    def generate(context, builder, signature, args):
        best_at = _pointer(context, builder, signature.args[5], args[5])
        winner_at = _pointer(context, builder, signature.args[7], args[7])
        best = builder.load(best_at, align=4)
        winner = builder.load(winner_at, align=4)
        for number in range(SAMPLES):
            sample = _sample(context, builder, signature, args, number)
            t = _splat(builder, _element(context, builder, signature, args, 6, number))
            above = builder.fcmp_ordered(">", sample, best)
            square, others = builder.fmul(t, t), builder.fmul(winner, winner)
            nearer = builder.fcmp_ordered("<", square, others)
            as_near = builder.fcmp_ordered("==", square, others)
            before = builder.and_(as_near, builder.fcmp_ordered("<", t, winner))
            nearer = builder.or_(nearer, before)
            level = builder.and_(builder.fcmp_ordered("==", sample, best), nearer)
            best = builder.select(above, sample, best)
            winner = builder.select(builder.or_(above, level), t, winner)
        builder.store(best, best_at, align=4)
        builder.store(winner, winner_at, align=4)
        return _lowest(builder, best)

    return types.float32(voxels, line, places, fxs, fys, best, ts, winner), generate


@njit(cache=True)
def _try_to_compile(voxels, places, four, best, winner):
    line = np.uint64(2 * LANES)
    # numba's hints count the typing context, which numba itself passes, as an argument.
    update_maximum(voxels, line, places, four, four, best)  # type: ignore[call-arg]
    update_maximum_and_winner(voxels, line, places, four, four, best, four, winner)  # type: ignore[call-arg]


def _sample(context, builder, signature, args, number):
    """The bilinear sample `number` as a vector."""
    place = _element(context, builder, signature, args, 2, number)
    fx = _element(context, builder, signature, args, 3, number)
    fy = _element(context, builder, signature, args, 4, number)
    one = ir.Constant(ir.FloatType(), 1.0)
    gx, gy = builder.fsub(one, fx), builder.fsub(one, fy)
    beside = ir.Constant(ir.IntType(64), LANES)
    below = builder.add(place, args[1])
    total = None
    for corner, weight in (
        (place, builder.fmul(gx, gy)),
        (builder.add(place, beside), builder.fmul(fx, gy)),
        (below, builder.fmul(gx, fy)),
        (builder.add(below, beside), builder.fmul(fx, fy)),
    ):
        at = _pointer(context, builder, signature.args[0], args[0], corner)
        term = builder.fmul(_splat(builder, weight), builder.load(at, align=4))
        total = term if total is None else builder.fadd(total, term)
    return total


def _floats():
    # In a function: the module can be imported whatever llvmlite makes of it.
    return ir.VectorType(ir.FloatType(), LANES)


def _element(context, builder, signature, args, argument, number):
    """Element `number` of an array argument."""
    data = context.make_array(signature.args[argument])(context, builder, args[argument]).data
    return builder.load(builder.gep(data, [ir.Constant(ir.IntType(64), number)]))


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _lowest(builder, value):
    """The lowest element of a vector."""
    size = LANES
    while size > 1:
        size //= 2
        low = _part(builder, value, 0, size)
        high = _part(builder, value, size, size)
        value = builder.select(builder.fcmp_ordered("<", low, high), low, high)
    return builder.extract_element(value, _index(0))


def _pointer(context, builder, array_type, array, index=None):
    data = context.make_array(array_type)(context, builder, array).data
    if index is not None:
        data = builder.gep(data, [index])
    return builder.bitcast(data, _floats().as_pointer())


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(_floats(), ir.Undefined), value, _index(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_floats(), ir.Undefined), zeros)


def _part(builder, value, start, size):
    lanes = list(range(start, start + size))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), size), lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _index(number):
    return ir.Constant(ir.IntType(32), number)
