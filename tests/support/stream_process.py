"""Lets a dataset grow from a topic until it is killed; takes its uri and a folder.

The decoder is one that makes pictures of any bytes; there is no engine.
"""

import pathlib
import sys
import time

from beam_pipelines import pipeline
from beam_pipelines.stream import kafka
from tests.support.streams import MadeUp, stream


def main(uri: str, folder: str) -> None:
    pipeline.Decoder = MadeUp
    source = kafka.Topic(uri, once=False)
    while True:
        for manifest in stream(pathlib.Path(folder), source=source):
            print(manifest.generation, flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
