"""Python API: studies read, projected, predicted, fused and evaluated.

The names of the API are attributes of `nnunetv2_mip`, which imports them when they are first used:
`from nnunetv2_mip import Predictor`. Every function calls what the commands call, so that the
results are the same.
"""
