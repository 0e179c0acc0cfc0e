"""The dataset job with what its runner counted of each shuffle, as a last line of JSON.

python -m tests.benchmarks.counted_job <flags of beam_pipelines.build_dataset>

{`rows`, `groups`: bytes}: the size of what goes into the GroupByKey of rows by shard and into that
of artists, from the sizes that Beam's workers sample as they encode it.
"""

import json

import apache_beam as beam
from absl import flags
from apache_beam.coders import VarIntCoder
from apache_beam.coders.coder_impl import create_InputStream

from beam_pipelines import build_dataset, engines, pipeline
from common import command

_SUM, _SIZES = "beam:metric:element_count:v1", "beam:metric:sampled_byte_size:v1"


def shuffled(beam_pipeline: beam.Pipeline) -> dict[str, tuple[str, beam.coders.Coder]]:
    """{`rows`, `groups`: (id of the collection that is grouped, its coder as it is)}."""
    proto, context = beam_pipeline.to_runner_api(return_context=True)
    transforms = {t.unique_name: t for t in proto.components.transforms.values()}

    def coder_into(name: str) -> beam.coders.Coder:
        (collection,) = transforms[name].inputs.values()
        return context.coders.get_by_id(proto.components.pcollections[collection].coder_id)

    # Not the input of "group by shard": the empty rows that come first in it would be most of
    # the sample.
    (rows,) = transforms["assign to shard"].outputs.values()
    (groups,) = transforms["group by group"].inputs.values()
    return {
        "rows": (rows, coder_into("group by shard")),
        "groups": (groups, coder_into("group by group")),
    }


def main(argv: list[str]) -> None:
    options = engines.options(argv[1:])
    beam_pipeline = beam.Pipeline(options=options)
    with build_dataset.job_of_flags() as job:
        pipeline.build_dataset(beam_pipeline, job)
        names = {collection: name for name, (collection, _) in shuffled(beam_pipeline).items()}
        result = beam_pipeline.run()
        result.wait_until_finish()
    counts, means = {}, {}
    for info in result.monitoring_infos():
        name = names.get(info.labels.get("PCOLLECTION"))
        if name and info.urn == _SUM:
            counts[name] = VarIntCoder().decode(info.payload)
        elif name and info.urn == _SIZES:
            stream = create_InputStream(info.payload)
            samples, total = stream.read_var_int64(), stream.read_var_int64()
            means[name] = total / max(1, samples)
    print(json.dumps({name: count * means[name] for name, count in counts.items()}))


if __name__ == "__main__":
    command.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
