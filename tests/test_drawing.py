"""Updates drawn for Hypothesis: every kind comes, each fits, and is stored and read back."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from hubedit.delta import Delta, encode
from hubedit.errors import EmptyDeltaError, NonFiniteUpdateError
from hubedit.testing import updates
from hubedit.updates import Columns, LowRank, Replace, Rows, Sparse, StoredTensor

SHAPE = (5, 7)


@pytest.mark.parametrize("kind", [LowRank, Rows, Columns, Sparse, Replace])
def test_every_kind_is_drawn(kind):
    quick = settings(max_examples=300, phases=[Phase.generate], database=None)
    assert isinstance(find(updates(SHAPE), lambda one: isinstance(one, kind), settings=quick), kind)


@given(updates(SHAPE))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_drawn_is_stored_and_gives_the_same_bits_again(update):
    before = StoredTensor.from_array(np.linspace(-1, 1, 35, dtype=np.float32).reshape(SHAPE))
    try:
        made = encode({"w": [update]}, lambda name: before)
    except EmptyDeltaError:
        return
    except NonFiniteUpdateError:
        pytest.fail("an update of small numbers is finite")
    again = Delta.read(made.delta.to_bytes())["w"].apply(before)
    assert again.sha256() == made.after["w"].sha256()
