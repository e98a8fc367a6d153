from nnunetv2_mip.api.predictor import Predictor as Predictor
from nnunetv2_mip.api.scores import evaluate as evaluate
from nnunetv2_mip.api.steps import fuse as fuse
from nnunetv2_mip.api.steps import project as project
from nnunetv2_mip.api.studies import read_study as read_study
from nnunetv2_mip.errors import MipError as MipError
from nnunetv2_mip.errors import MipWarning as MipWarning
from nnunetv2_mip.fusion.rules import FusionRule as FusionRule
from nnunetv2_mip.inference.results import ImageResult as ImageResult
from nnunetv2_mip.inference.results import VolumeResult as VolumeResult
from nnunetv2_mip.io.dicom.options import DicomOptions as DicomOptions
from nnunetv2_mip.io.read_study import Study as Study

__version__: str
