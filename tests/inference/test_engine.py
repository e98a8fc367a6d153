"""Engine of a network: what OpenVINO must not do, and what is left when a prediction is done."""

import subprocess
import sys

import pytest

CODE = """
import json, sys, threading
import socket, os

def refuse(*_, **__):
    raise AssertionError("a connection, or a process, was started")

socket.socket.connect = os.fork = refuse
import numpy as np
from nnunetv2_mip.inference.predictor import MIPPredictor

predictor = MIPPredictor.from_model_folder(sys.argv[1], device="cpu")
levels = np.full((44, 36), 60, np.uint8)
predictor.predict_image(levels)
import openvino.tools.ovc.telemetry_utils as reporting
print(json.dumps([
    predictor.engine,
    [thread.name for thread in threading.enumerate()],
    reporting.tm.__name__,
]))
"""


def test_a_prediction_reports_to_nobody_and_leaves_no_thread(tiny_model, tmp_path):
    pytest.importorskip("openvino", reason="the extra serve is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reply = '["openvino", ["MainThread"], "openvino.tools.ovc.telemetry_stub"]'
    assert done.stdout.strip() == reply
