"""Three packages that hand each other files, each installable alone by its extra.

pip install -c constraints.txt '.[worker]'    # what a Beam worker runs
pip install -c constraints.txt '.[pipeline]'  # the same, and what launches and inspects
pip install -c constraints.txt '.[stream]'    # that, and the clients of Kafka and Pub/Sub
pip install -c constraints.txt '.[trainer]'
pip install -c constraints.txt '.[serving]'
"""

import pathlib

from setuptools import find_packages, setup

_BUCKETS = ["google-cloud-storage>=3,<4"]
_AUDIO = ["soundfile>=0.13", "soxr>=0.5"]
_TENSORFLOW = ["tensorflow>=2.18,<3"]
_WORKER = [
    "apache-beam[gcp]>=2.70,<3",
    "google-crc32c>=1.5",
    "librosa>=0.11,<2",
    "protobuf>=5",
    "scipy>=1.13",
    *_AUDIO,
    *_BUCKETS,
]
_PIPELINE = [*_WORKER, "build>=1.2", "matplotlib>=3.9", "setuptools>=70.1"]
_STREAM = [
    *_PIPELINE,
    "confluent-kafka>=2.6,<3",
    "google-cloud-pubsub>=2.20,<3",
    "prometheus-client>=0.21",
]
_TRAINER = [
    *_TENSORFLOW,
    *_AUDIO,  # what an export is verified with
    *_BUCKETS,
    "google-crc32c>=1.5",
    "jinja2>=3.1",
    "keras>=3.10",
    "librosa>=0.11,<2",
    "markupsafe>=3",
    "matplotlib>=3.9",
    "optuna>=5,<6",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "tensorboard>=2.18",
    "tensorflow-serving-api>=2.18,<3",
    "threadpoolctl>=3.1",
]
_SERVING = [
    *_TENSORFLOW,
    *_AUDIO,
    *_BUCKETS,
    "fastapi>=0.115",
    "fastapi-offline>=1.7",
    "grpcio>=1.65",
    "librosa>=0.11,<2",
    "prometheus-client>=0.21",
    "python-multipart>=0.0.18",
    "scipy>=1.13",
    "tensorflow-serving-api>=2.18,<3",
    "uvicorn>=0.34",
]
_DEV = [
    *_STREAM,
    *_TRAINER,
    *_SERVING,
    # No wheel for Python 3.10 nor for other systems; tests.fuzz.run does without it there.
    "atheris>=3; python_version >= '3.11' and sys_platform == 'linux' "
    "and platform_machine == 'x86_64'",
    "check-jsonschema>=0.30",
    "gcp-storage-emulator>=2024.8.3",
    "google-cloud-aiplatform>=1.70",
    "hypothesis>=6.100",
    "import-linter>=2.3",
    "ipykernel>=6",
    "kubernetes-validate>=1.34",
    "markdown-it-py>=3",
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.6",
    "mkdocstrings[python]>=0.29",
    "mypy>=1.15",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "playwright>=1.50",
    "pre-commit>=4",
    "promql-parser>=0.11",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "ruff>=0.9",
    "schemathesis>=4",
    # Its last release has no wheel for Python 3.13.
    "tensorflow-io>=0.37; python_version < '3.13'",
    "trustme>=1.2",
    "types-protobuf>=5",
    "types-pyyaml>=6",
    "uv>=0.5",
]

setup(
    name="fma-popularity",
    version="0.2.0.dev0",
    description="Music in, spectrogram TFRecords, distributed training, a served popularity model",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10,<3.14",
    package_data={
        # Templates and styles of the reports and cards.
        "": ["*.html", "*.css", "*.jinja", "*.md"],
        "serving": ["monitoring/*", "page/*", "tf_serving/*", "tf_serving/kubernetes/*"],
        "trainer": ["evaluation/page/*"],
    },
    packages=find_packages(
        include=["common*", "beam_pipelines*", "trainer*", "serving*", "configs*"]
    ),
    install_requires=["absl-py>=2", "ml_collections>=1", "numpy>=1.26"],
    extras_require={
        "worker": _WORKER,
        "pipeline": _PIPELINE,
        "stream": _STREAM,
        "trainer": _TRAINER,
        "serving": _SERVING,
        "dev": sorted(set(_DEV)),
    },
)
