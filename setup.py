"""Package metadata, and the one place that maps the repository's folders to installed packages.

The four folders of the top level install as `nnunetv2_mip`, `nnunetv2_mip.dataset_conversion`,
`nnunetv2_mip.trainers` and `nnunetv2_mip.plans`. A plain `find_packages()` would install top-level
packages called `trainers` and `plans`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (ROOT / "nnunetv2_mip" / "__init__.py").read_text("utf-8"), re.M
).group(1)

# Folders of the top level that are installed within the package.
MAPPED = ("dataset_conversion", "trainers", "plans")
PACKAGES = find_packages(include=["nnunetv2_mip", "nnunetv2_mip.*"])
for folder in MAPPED:
    inner = find_packages(folder)
    PACKAGES += [f"nnunetv2_mip.{folder}", *(f"nnunetv2_mip.{folder}.{name}" for name in inner)]

COMMANDS = [
    "convert_autopet",
    "convert_dmiai",
    "convert_stage2",
    "merge_datasets",
    "plan_and_preprocess",
    "project",
    "predict",
    "fuse",
    "evaluate",
    "calibrate",
    "calibrate_regions",
    "classify",
    "export_model",
    "grand_challenge",
    "phantom",
    "demo",
    "env",
    "info",
    "serve",
    "rehearse",
    "study",
    "submit",
    "report",
]

DICOM_REQUIREMENTS = ["pydicom>=3.0", "highdicom>=0.24"]
DASK_REQUIREMENTS = ["distributed>=2024.8"]
# openvino runs networks on a CPU; without it PyTorch does, half as fast.
SERVE_REQUIREMENTS = [
    "fastapi>=0.115",
    "starlette",
    "pydantic>=2",
    "uvicorn>=0.30",
    "prometheus-client>=0.20",
    "httpx>=0.27",
    "openvino>=2024.4",
]
# Estimates energy for nnUNetv2_mip_study, which does without where it is missing.
STUDY_REQUIREMENTS = ["codecarbon>=3.3"]
# Programs that read the DICOM objects independently: SEG and SR, RTSTRUCT, and a validator.
DICOM_READERS = [
    f"{name}; sys_platform == 'linux'"
    for name in ("dcmqi>=1.5", "plastimatch>=1.10", "dicom3tools")
]
TEST_REQUIREMENTS = [
    "pytest>=8",
    # `make test` runs two files of tests at a time.
    "pytest-xdist>=3.6",
    # They share one trained model.
    "filelock>=3.12",
    "pytest-cov>=7",
    "hypothesis>=6.100",
    "monai>=1.4",
    "scikit-learn>=1.3",
    "setuptools>=68",
    "wheel",
    # The page is tested in the system's Chromium.
    "playwright>=1.45",
    "schemathesis>=4",
    *DICOM_REQUIREMENTS,
    *DICOM_READERS,
    *DASK_REQUIREMENTS,
    *SERVE_REQUIREMENTS,
    *STUDY_REQUIREMENTS,
]
# `make docs`, and a test of it where constraints.txt has versions for this Python.
DOCS_REQUIREMENTS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
DEV_REQUIREMENTS = [
    *TEST_REQUIREMENTS,
    *(f"{name}; python_version >= '3.11'" for name in DOCS_REQUIREMENTS),
    "ruff>=0.9",
    "codespell[toml]>=2.3",
    "import-linter>=2.9",
    "mypy>=1.15",
    "pre-commit>=4",
]

setup(
    name="nnunetv2-mip",
    version=VERSION,
    description="Tumour segmentation in PET on rotating MIPs, inside nnU-Net v2",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=PACKAGES,
    package_dir={
        "nnunetv2_mip": "nnunetv2_mip",
        **{f"nnunetv2_mip.{name}": name for name in MAPPED},
    },
    package_data={
        "": ["py.typed", "*.pyi", "*.json", "static/*", "templates/*"],
        "nnunetv2_mip": [
            "models/*/*",
            "models/*/fold_*/*.pth",
            "models/*/images/*",
            "models/*/images/fold_*/*.pth",
        ],
    },
    # Everything that the package imports, also what nnU-Net would bring (tests/test_packaging.py).
    install_requires=[
        "nnunetv2>=2.8.1,<2.9",
        "torch",
        "batchgeneratorsv2",
        "dynamic-network-architectures",
        "numpy",
        "scipy",
        "scikit-learn",
        # The projector is written in the LLVM code that these versions understand (views/simd.py).
        "numba>=0.60,<0.70",
        "llvmlite",
        "SimpleITK>=2.3",
        "connected-components-3d>=3.12",
        "imagecodecs",
        "isal>=1.6",
        "pillow",
        "imageio",
        "jinja2>=3.1",
        "markupsafe>=2.0",
        "matplotlib",
        "tqdm",
    ],
    extras_require={
        "dicom": DICOM_REQUIREMENTS,
        "dask": DASK_REQUIREMENTS,
        "serve": SERVE_REQUIREMENTS,
        "study": STUDY_REQUIREMENTS,
        "docs": DOCS_REQUIREMENTS,
        "test": TEST_REQUIREMENTS,
        "dev": DEV_REQUIREMENTS,
    },
    entry_points={
        "console_scripts": [
            f"nnUNetv2_mip_{name} = nnunetv2_mip.commands.{name}:main" for name in COMMANDS
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
