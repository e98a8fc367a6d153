"""Operations on `LANES` neighbouring voxels at a time, for the inner loop of the projector.

numba leaves it to LLVM to find loops that can work on many numbers at once, and a loop as short as
this is spent on testing whether it may (four times as slow). Here the vectors are written down:
LLVM turns them into whatever the processor has (AVX-512, AVX2, NEON, …). The sums are in a fixed
order and are not contracted, so that every processor gives the same float32.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Voxels along z that are sampled together: 128 bytes, two cache lines.
LANES = 32

_FLOATS = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def sample_maximum(typing, column, corners, weights, best):
    """best = max(best, bilinear sample of the four columns that start at `corners`).

    Args:
        column: 1-D float32.
        corners: four uint64, index of the first voxel of each column.
        weights: four float32.
        best: (LANES) float32, changed in place.
    """

    def generate(context, builder, signature, args):
        sample = _sample(context, builder, signature, args)
        place = _pointer(context, builder, signature.args[3], args[3])
        old = builder.load(place, align=4)
        wins = builder.fcmp_ordered(">", sample, old)
        builder.store(builder.select(wins, sample, old), place, align=4)
        return context.get_dummy_value()

    return types.void(column, corners, weights, best), generate


@intrinsic
def sample_maximum_and_winner(typing, column, corners, weights, best, t, winner):
    """As `sample_maximum`; where the sample wins, `winner` (LANES) float32 becomes `t`.

    Of equal samples the one with the smaller |t| wins; `winner` starts at 0.
    """

    def generate(context, builder, signature, args):
        sample = _sample(context, builder, signature, args)
        best_at = _pointer(context, builder, signature.args[3], args[3])
        winner_at = _pointer(context, builder, signature.args[5], args[5])
        best = builder.load(best_at, align=4)
        winner = builder.load(winner_at, align=4)
        t = _splat(builder, args[4])
        above = builder.fcmp_ordered(">", sample, best)
        nearer = builder.fcmp_ordered("<", builder.fmul(t, t), builder.fmul(winner, winner))
        level = builder.and_(builder.fcmp_ordered("==", sample, best), nearer)
        wins = builder.or_(above, level)
        builder.store(builder.select(above, sample, best), best_at, align=4)
        builder.store(builder.select(wins, t, winner), winner_at, align=4)
        return context.get_dummy_value()

    return types.void(column, corners, weights, best, t, winner), generate


@intrinsic
def lowest(typing, lanes):
    """The lowest of (LANES) float32."""

    def generate(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], args[0]), align=4)
        size = LANES
        while size > 1:
            size //= 2
            low = _part(builder, value, 0, size)
            high = _part(builder, value, size, size)
            value = builder.select(builder.fcmp_ordered("<", low, high), low, high)
        return builder.extract_element(value, _index(0))

    return types.float32(lanes), generate


def _sample(context, builder, signature, args):
    total = None
    for number in range(4):
        corner = builder.extract_value(args[1], number)
        weight = _splat(builder, builder.extract_value(args[2], number))
        place = _pointer(context, builder, signature.args[0], args[0], corner)
        term = builder.fmul(weight, builder.load(place, align=4))
        total = term if total is None else builder.fadd(total, term)
    return total


def _pointer(context, builder, array_type, array, index=None):
    data = context.make_array(array_type)(context, builder, array).data
    if index is not None:
        data = builder.gep(data, [index])
    return builder.bitcast(data, _FLOATS.as_pointer())


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _index(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), zeros)


def _part(builder, value, start, size):
    lanes = list(range(start, start + size))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), size), lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _index(number):
    return ir.Constant(ir.IntType(32), number)
