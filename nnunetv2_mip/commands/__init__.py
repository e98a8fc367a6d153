"""One module a command. Each has `build_parser()`, `run(args)` and `main(argv=None)`.

Heavy imports (torch, nnunetv2, numba) happen inside `run`, so that `--help` answers at once.
"""
