"""Random streams: named, independent, and the same for ever."""

from robolearn.seeding import stream


def test_a_stream_is_known_by_seed_and_name():
    assert stream(7, "env").random() == stream(7, "env").random()
    streams = [(7, "env"), (7, "policy"), (8, "env"), (0, "env")]
    assert len({stream(*key).random() for key in streams}) == len(streams)


def test_published_seeds_keep_their_meaning():
    assert stream(0, "env").integers(10**6, size=3).tolist() == [705180, 783094, 528511]
    assert stream(123, "policy").integers(10**6, size=3).tolist() == [899196, 187937, 766823]
