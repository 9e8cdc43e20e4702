"""Who samples what: every row once, ranks evenly, batches within their budget."""

from hypothesis import given
from hypothesis import strategies as st

from divwatch.sampling.plan import Need, Row, count_that_fit, share_out, stored_tokens

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 17), st.integers(1, 9))
def test_every_row_is_somebodys_and_ranks_differ_by_one_at_most(lengths, samples, world):
    shares = share_out(lengths, samples, world)
    rows = [row for share in shares for row in share]
    assert sorted(rows) == [Row(i, k) for i in range(len(lengths)) for k in range(samples)]
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    # A prompt's samples lie together, so that its prefill is shared: all ranks together split few prompts.
    assert sum(len({row.prompt for row in share}) for share in shares) <= len(lengths) + world


@given(LENGTHS, st.integers(1, 8), st.integers(0, 100), st.integers(1, 5000))
def test_batches_keep_to_the_budget_and_lose_nothing(lengths, samples, new_tokens, tokens):
    rows = sorted(share_out(lengths, samples, 1)[0], key=lambda row: -lengths[row.prompt])
    widths = []
    while rows:
        needs = [Need(row.prompt, lengths[row.prompt], new_tokens) for row in rows]
        count = count_that_fit(needs, tokens)
        assert 1 <= count <= len(rows)
        assert count == 1 or count * (needs[0].width + new_tokens) == stored_tokens(needs[:count]) <= tokens
        widths.append(needs[0].width)
        rows = rows[count:]
    assert widths == sorted(widths, reverse=True)


def test_long_prompts_are_dealt_out():
    lengths = [400] * 4 + [10] * 4
    for share in share_out(lengths, 2, 4):
        assert sum(lengths[row.prompt] for row in share) == 2 * (400 + 10)
