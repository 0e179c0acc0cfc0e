"""Three packages that hand each other files, each installable alone by its extra.

pip install -c constraints.txt '.[worker]'    # what a Beam worker runs
pip install -c constraints.txt '.[pipeline]'  # the same, and what launches and inspects
pip install -c constraints.txt '.[trainer]'
pip install -c constraints.txt '.[serving]'
"""

import pathlib

from setuptools import find_packages, setup

_AUDIO = ["soundfile>=0.13", "soxr>=0.5"]
_TENSORFLOW = ["tensorflow>=2.18,<3"]
_WORKER = [
    "apache-beam[gcp]>=2.70,<3",
    "google-crc32c>=1.5",
    "librosa>=0.11,<2",
    "protobuf>=5",
    "scipy>=1.13",
    *_AUDIO,
]
_PIPELINE = [*_WORKER, "matplotlib>=3.9"]
_TRAINER = [
    *_TENSORFLOW,
    "keras>=3.10",
    "librosa>=0.11,<2",
    "matplotlib>=3.9",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    # Its last release has no wheel for Python 3.13, and without one the masks of SpecAugment
    # are refused with a message.
    "tensorflow-io>=0.37; python_version < '3.13'",
    "tensorflow-serving-api>=2.18,<3",
]
_SERVING = [*_TENSORFLOW, *_AUDIO]
_DEV = [
    *_PIPELINE,
    *_TRAINER,
    *_SERVING,
    "gcp-storage-emulator>=2024.8.3",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
]

setup(
    name="fma-popularity",
    version="0.1.0",
    description="Music in, spectrogram TFRecords, distributed training, a served popularity model",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["beam_pipelines*", "trainer*", "serving*", "configs*"]),
    install_requires=["absl-py>=2", "ml_collections>=1", "numpy>=1.26"],
    extras_require={
        "worker": _WORKER,
        "pipeline": _PIPELINE,
        "trainer": _TRAINER,
        "serving": _SERVING,
        "dev": sorted(set(_DEV)),
    },
)
