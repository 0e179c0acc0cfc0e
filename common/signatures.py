"""The signatures of an exported model: the names of their inputs and outputs."""

# {signature: the name of its input}
SIGNATURES = {
    "serving_default": "waveform",
    "wav": "wav",
    "spectrogram": "spectrogram",
    "examples": "examples",
}
# The outputs of each: float32 [batch, classes], and the class name of the largest [batch].
PROBABILITIES, LABEL = "probabilities", "label"

# What TensorFlow Serving pads a batch to (serving/tf_serving/batching.config), so that each of them
# is warmed up; it refuses a request of more than the last.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
MAX_BATCH = BATCH_SIZES[-1]
