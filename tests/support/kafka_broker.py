"""A real broker of Kafka: a process of Java, of Maven Central's parts in build/engines/kafka."""

import fcntl
import shutil
import socket
import subprocess
import time

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.paths import ROOT

ENGINES = ROOT / "build" / "engines"
_POM = ROOT / "tests" / "support" / "kafka_broker.pom.xml"
_SECONDS_TO_START = 60

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={security}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={security}://127.0.0.1:{port}
listener.security.protocol.map={security}:{security},CONTROLLER:PLAINTEXT
inter.broker.listener.name={security}
log.dirs={folder}/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""
_SASL = """
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required \
username="{user}" password="{password}" user_{user}="{password}";
"""


def jars() -> str:
    """The class path; skips the test where it can't be had."""
    for program in ("java", "mvn"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not on this machine")
    folder = ENGINES / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    with open(ENGINES / "kafka.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            result = subprocess.run(
                [
                    *("mvn", "--quiet", "--batch-mode", "--strict-checksums", "--file", str(_POM)),
                    *(f"-DoutputDirectory={folder}", "-DincludeScope=runtime"),
                    "dependency:copy-dependencies",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
                check=False,
            )
            if result.returncode:
                pytest.skip(f"Kafka could not be downloaded: {result.stdout[-400:]}")
            (folder / "complete").touch()
    return f"{folder}/*"


class Broker:
    """A broker in a folder, which has its data when it is started again."""

    def __init__(self, folder, *, user=None, password=None):
        self._classes, self._folder, self._process = jars(), folder, None
        folder.mkdir()
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        values = {
            "folder": folder,
            "port": port,
            "controller": controller,
            "security": "SASL_PLAINTEXT" if user else "PLAINTEXT",
            "user": user,
            "password": password,
        }
        text = (_PROPERTIES + (_SASL if user else "")).format(**values)
        (folder / "server.properties").write_text(text)
        self.client = {"bootstrap.servers": self.address}
        if user:
            self.client |= {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": user,
                "sasl.password": password,
            }
        words = ("kafka.tools.StorageTool", "format", "-t", "A" * 22, "-c")
        subprocess.run(self._java(*words), check=True, capture_output=True, timeout=60)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Returns when it answers."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka"), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        admin = AdminClient(self.client | {"log_level": 0})
        end = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                log = (self._folder / "log").read_text()
                assert self._process.poll() is None and time.monotonic() < end, log[-2_000:]

    def kill(self):
        """Ends it as a machine that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make_topic(self, name, *, partitions, **config):
        admin = AdminClient(self.client)
        admin.create_topics([NewTopic(name, partitions, config=config)])[name].result(30)

    def delete_topic(self, name):
        admin = AdminClient(self.client)
        admin.delete_topics([name])[name].result(30)

    def delete_before(self, name, *, partition, offset):
        """Deletes messages as their age does."""
        admin = AdminClient(self.client)
        (future,) = admin.delete_records([TopicPartition(name, partition, offset)]).values()
        future.result(30)

    def send(self, topic, messages):
        """Sends (partition, bytes or None) each, in this order."""
        producer = Producer(self.client | {"message.max.bytes": 4_000_000})
        problems = []
        for partition, value in messages:
            producer.produce(
                topic,
                value=value,
                partition=partition,
                on_delivery=lambda error, _: problems.append(error) if error else None,
            )
        assert not producer.flush(30) and not problems, problems

    def _java(self, name, *arguments):
        how = [
            "java",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            self._classes,
            name,
        ]
        return [*how, *arguments, str(self._folder / "server.properties")]


def free_ports(number):
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
