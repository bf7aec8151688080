import itertools

import numpy as np

from data_modules.simulate.streams import Stream, generator


def test_a_stream_depends_on_seed_index_and_purpose_alone():
    first = generator(3, 12, Stream.MRI).integers(2**62, size=8)
    generator(3, 11, Stream.MRI).integers(2**62, size=1000)
    assert np.array_equal(first, generator(3, 12, Stream.MRI).integers(2**62, size=8))


def test_no_two_streams_share_a_number():
    triples = itertools.product((0, 1, 2**62), (0, 1, 2**63), Stream)
    drawn = np.concatenate([generator(*triple).integers(2**62, size=1000) for triple in triples])
    assert len(np.unique(drawn)) == len(drawn)
