"""Operations on `LANES` neighbouring voxels at a time, for the inner loop of the projector.

numba leaves it to LLVM to find loops that can work on many numbers at once, and a loop as short as
this is spent on testing whether it may (four times as slow). Here the vectors are written down:
LLVM turns them into whatever the processor has (AVX-512, AVX2, NEON, …). The sums are in a fixed
order and are not contracted, so that every processor gives the same float32.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Voxels along z that are sampled together: 256 bytes, four cache lines.
LANES = 64
# Samples taken together: none waits for the one before.
SAMPLES = 4

_FLOATS = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def raise_maximum(typing, voxels, line, places, fxs, fys, best):
    """best = max(best, `SAMPLES` bilinear samples); returns the lowest of best.

    Args:
        voxels: 1-D float32, columns of LANES one after the other along x, then y.
        line: uint64, elements from a column to that at y + 1.
        places: (SAMPLES) uint64, for each sample the first element of its column at y0, x0.
        fxs, fys: (SAMPLES) float32, its distance from there in columns, 0 to 1.
        best: (LANES) float32, changed in place.
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
def raise_maximum_and_winner(typing, voxels, line, places, fxs, fys, best, ts, winner):
    """As `raise_maximum`; where a sample wins, `winner` (LANES) becomes its t of `ts` (SAMPLES).

    Of equal samples the one with the smaller |t| wins, of two such the one with t < 0: the order
    in which samples come does not matter. `winner` starts at 0.
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


def _sample(context, builder, signature, args, number):
    """The bilinear sample `number`."""
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


def _element(context, builder, signature, args, argument, number):
    """Element `number` of an array argument."""
    data = context.make_array(signature.args[argument])(context, builder, args[argument]).data
    return builder.load(builder.gep(data, [ir.Constant(ir.IntType(64), number)]))


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _lowest(builder, value):
    """The lowest lane."""
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
