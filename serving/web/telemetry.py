"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fma_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.refused = Counter(
            "fma_refused_total", "Songs not answered, by reason.", ["code"], registry=self.registry
        )
        self.seconds = Histogram(
            "fma_stage_seconds",
            "Time of a song in each stage: upload, queue, decode, model.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            "fma_answers_total", "Songs answered, by label.", ["label"], registry=self.registry
        )
        self.waiting = Gauge("fma_queue_length", "Songs that wait.", registry=self.registry)
        self.buffered = Gauge(
            "fma_upload_bytes", "Uploads in memory, in bytes.", registry=self.registry
        )
        self.decoders = Gauge(
            "fma_decoders_ready", "Decoder processes that are there.", registry=self.registry
        )
        self.version = Gauge(
            "fma_model_version", "The version that answers now.", registry=self.registry
        )
        self.swaps = Counter(
            "fma_model_swaps_total",
            "Changes of the version, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
