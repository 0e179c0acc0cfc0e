"""The flags that say which model is asked, of each command that asks one."""

from absl import flags

EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where trainer.train put the export.", required=True
)
TF_SERVING = flags.DEFINE_string(
    "tf_serving", None, "host:port of TensorFlow Serving's gRPC, which serves the same export."
)
TF_SERVING_VERSION = flags.DEFINE_string(
    "tf_serving_version", None, "The number or label (such as stable) of the version to ask there; "
    "without it the server takes its newest."
)  # fmt: skip
