"""What a session keeps of the weights that it was given."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import convdsl
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.weights import RandomWeights, bind


@pytest.mark.dear(share=4)
def test_weights_that_steps_change_are_kept_once() -> None:
    """The arrays that were given are let go: a large network would have each weight twice."""
    model = convdsl.load("mnist_cnn")
    given = {
        key: np.array(array) for key, array in bind(RandomWeights(0), model.graph.states).items()
    }
    began = {key: array.copy() for key, array in given.items()}
    seen = {key: weakref.ref(array) for key, array in given.items()}
    settings = {"loss": "cross_entropy(logits, label)", "optimizer": "sgd(momentum = 0.9)"}
    session = Session(model, complete(model, settings), given, cache=False)
    del given
    gc.collect()
    assert not [key for key, array in seen.items() if array() is not None]
    kept = session.weights()
    assert list(kept) == list(began)
    for key, array in kept.items():
        np.testing.assert_array_equal(array, began[key])
