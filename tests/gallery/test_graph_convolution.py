"""Convolution on graphs against the papers' formulas, written out with dense matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from networkx.algorithms.community import greedy_modularity_communities

import convdsl
from convdsl import zoo
from convdsl.training.settings import complete

Array = np.ndarray[Any, Any]

CLUB = nx.karate_club_graph()
FACTIONS = np.array([CLUB.nodes[v]["club"] != "Mr. Hi" for v in CLUB], np.int64)
LABELLED = (0, 33)  # the instructor, and the president: all that is told


def laplacian(graph: Any) -> Array:
    """I - D^(-1/2) A D^(-1/2)"""
    return nx.normalized_laplacian_matrix(graph, weight=None).toarray()


def waves(graph: Any) -> Array:
    """The eigenvectors, from the smoothest on."""
    return np.linalg.eigh(laplacian(graph))[1]


def drawn(model: convdsl.Model, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        key: (random.standard_normal(s.type.sizes) / 4).astype("f4")
        for key, s in model.graph.states.items()
        if s.role.value == "parameter"
    }


def edges_of(graph: Any) -> list[list[int]]:
    return [sorted(edge) for edge in graph.edges()]


@pytest.mark.dear(share=4)
def test_the_file_has_the_graph() -> None:
    """Those edges and no others: with them a network is the same as with the file's own."""
    model = convdsl.load("gcn")
    weights, x = drawn(model), np.eye(34, dtype="f4")
    own = convdsl.compile(convdsl.load("gcn", edges=sorted(edges_of(CLUB))), weights)(x)
    np.testing.assert_array_equal(convdsl.compile(model, weights)(x), own)
    assert CLUB.number_of_edges() == 78


GRAPHS = {
    "karate": CLUB,
    "ring": nx.cycle_graph(9),
    "star": nx.star_graph(6),
    "drawn": nx.connected_watts_strogatz_graph(20, 4, 0.4, seed=3),
}


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("graph", GRAPHS)
def test_chebyshev_is_the_dense_spectral_filter(graph: str, order: int) -> None:
    """Equation 4: U (sum over k of theta_k T_k(Lambda - 1)) U^T x, the polynomials by cosines."""
    g = GRAPHS[graph]
    n = g.number_of_nodes()
    model = convdsl.load(
        "chebyshev_network",
        edges=edges_of(g),
        nodes=n,
        features=3,
        hidden=5,
        classes=2,
        order=order,
    )
    weights = drawn(model)
    x = np.random.default_rng(1).standard_normal((n, 3)).astype("f4")
    values, u = np.linalg.eigh(laplacian(g))
    angle = np.arccos(np.clip(values - 1, -1, 1))
    polynomials = [u @ np.diag(np.cos(k * angle)) @ u.T for k in range(order)]

    def layer(y: Array, theta: Array) -> Array:
        parts = np.split(theta.astype("f8"), order, axis=1)
        return sum(p @ y @ t.T for p, t in zip(polynomials, parts, strict=True))

    hidden = np.maximum(layer(x.astype("f8"), weights["one.theta.weight"]), 0)
    expected = layer(hidden, weights["two.theta.weight"])
    found = convdsl.compile(model, weights)(x)
    assert np.abs(found - expected).max() <= 2e-6 * max(1, np.abs(expected).max())


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("graph", GRAPHS)
def test_first_order(graph: str) -> None:
    """Equations 8 and 9, with the renormalised matrix."""
    g = GRAPHS[graph]
    n = g.number_of_nodes()
    model = convdsl.load("gcn", edges=edges_of(g), nodes=n, features=3, hidden=4, classes=2)
    weights = drawn(model)
    x = np.random.default_rng(1).standard_normal((n, 3)).astype("f4")
    a = nx.to_numpy_array(g, weight=None) + np.eye(n)
    root = np.diag(a.sum(axis=1) ** -0.5)
    s = root @ a @ root
    expected = s @ np.maximum(s @ x @ weights["one.theta.weight"].T, 0)
    expected = expected @ weights["two.theta.weight"].T
    np.testing.assert_allclose(convdsl.compile(model, weights)(x), expected, atol=2e-6)


def test_first_order_is_chebyshev_with_two_terms() -> None:
    """Equation 7 of arXiv:1609.02907: theta (I + D^(-1/2) A D^(-1/2)) x, before it is renormalised:
    coefficients theta and -theta."""
    model = convdsl.load("chebyshev_network", features=3, hidden=4, order=2)
    weights = drawn(model)
    theta = weights["one.theta.weight"][:, :3]
    weights["one.theta.weight"] = np.concatenate([theta, -theta], axis=1)
    second = weights["two.theta.weight"][:, :4]
    weights["two.theta.weight"] = np.concatenate([second, -second], axis=1)
    x = np.random.default_rng(1).standard_normal((34, 3)).astype("f4")
    s = 2 * np.eye(34) - laplacian(CLUB)
    expected = s @ np.maximum(s @ x @ theta.T, 0) @ second.T
    np.testing.assert_allclose(convdsl.compile(model, weights)(x), expected, atol=4e-6)


def multipliers(alpha: Array, features: int, n: int, knots: int) -> Array:
    """[n, features, channels]: straight lines between the knots."""
    per_knot = alpha.astype("f8").reshape(alpha.shape[0], knots, features)
    places = np.linspace(0, knots - 1, n)
    return np.stack(
        [[np.interp(places, range(knots), own[:, f]) for f in range(features)] for own in per_knot]
    ).transpose(2, 1, 0)


def test_spectral_network() -> None:
    """Section 3.2: V F V^T x with diagonal F for each pair of channels, of section 3.4."""
    knots, basis = 6, waves(CLUB)
    model = convdsl.load("spectral_network", features=3, hidden=5, classes=2, knots=knots)
    weights = drawn(model)
    x = np.random.default_rng(1).standard_normal((34, 3)).astype("f4")

    def layer(y: Array, alpha: Array) -> Array:
        f = multipliers(alpha, y.shape[1], 34, knots)
        return np.stack(
            [
                sum(basis @ np.diag(f[:, i, j]) @ basis.T @ y[:, i] for i in range(y.shape[1]))
                for j in range(alpha.shape[0])
            ],
            axis=1,
        )

    hidden = np.maximum(layer(x.astype("f8"), weights["one.alpha.weight"]), 0)
    expected = layer(hidden, weights["two.alpha.weight"])
    found = convdsl.compile(model, weights).by_name(x=x, basis=basis.astype("f4"))["logits"]
    np.testing.assert_allclose(found, expected, atol=4e-6)


def test_on_a_ring_the_spectral_construction_is_a_convolution() -> None:
    """Section 3.3: where the two waves of a frequency have one multiplier, y is x convolved round
    the ring with the multipliers' inverse transform. As many knots as waves leave them free."""
    n = 8
    frequency = np.array([0, 1, 1, 2, 2, 3, 3, 4])
    places = np.arange(n)
    basis = np.stack(
        [
            (np.cos if k == 0 or i % 2 else np.sin)(2 * np.pi * k * places / n)
            for i, k in enumerate(frequency)
        ],
        axis=1,
    )
    basis /= np.linalg.norm(basis, axis=0)
    model = convdsl.load("spectral_network", nodes=n, features=1, hidden=1, classes=1, knots=n)
    random = np.random.default_rng(0)
    filter = random.standard_normal(5)[np.minimum(places, n - places)]  # symmetric, as the graph
    spectrum = np.fft.fft(filter).real[frequency]
    ones = np.ones(n)
    weights = {
        "one.alpha.weight": ones[None].astype("f4"),
        "two.alpha.weight": spectrum[None].astype("f4"),
    }
    x = np.abs(random.standard_normal((n, 1))).astype("f4")
    expected = sum(filter[s] * np.roll(x[:, 0], s) for s in range(n))
    found = convdsl.compile(model, weights).by_name(x=x, basis=basis.astype("f4"))["logits"]
    np.testing.assert_allclose(found[:, 0], expected, atol=4e-6)


def test_smooth_multipliers_stay_near() -> None:
    """Section 3.4: with few knots a unit at one node spreads less than with free multipliers."""
    basis, random = waves(nx.cycle_graph(32)), np.random.default_rng(0)
    far = np.minimum(np.arange(32), 32 - np.arange(32))

    def spread(knots: int) -> float:
        total = 0.0
        for _ in range(20):
            f = np.interp(
                np.linspace(0, knots - 1, 32), range(knots), random.standard_normal(knots)
            )
            y = basis @ (f * basis[0])
            total += float((y**2 * far).sum() / (y**2).sum())
        return total / 20

    assert spread(4) < 0.6 * spread(32)


@pytest.mark.dear(share=4)
def test_spatial_network() -> None:
    """Equation 2.1, twice: matrices of weights between neighbours, and means over clusters."""
    model = convdsl.load("spatial_network")
    weights = drawn(model)
    x = np.random.default_rng(1).standard_normal((3, 1, 34)).astype("f4")
    first = [
        [1, 2, 3, 7, 9, 12, 13, 17, 21],
        [23, 24, 25, 26, 27, 28, 29, 31, 33],
        [0, 4, 5, 6, 10, 11, 16],
        [8, 14, 15, 30, 32],
        [18],
        [19],
        [20],
        [22],
    ]
    second = [[0, 2, 5], [1, 3, 4, 6, 7]]
    near = [[v, *(a + b - v for a, b in sorted(edges_of(CLUB)) if v in (a, b))] for v in range(34)]

    def layer(y: Array, filters: Array, near: list[list[int]], clusters: list[list[int]]) -> Array:
        n, inputs = len(near), y.shape[1]
        most = max(map(len, near))
        f = filters.astype("f8").reshape(n, -1, most, inputs)
        h = np.zeros((len(y), f.shape[1], n))
        for v, own in enumerate(near):
            for s, u in enumerate(own):
                h[:, :, v] += y[:, :, u] @ f[v, :, s].T
        h = np.maximum(h, 0)
        return np.stack([h[:, :, cluster].mean(axis=2) for cluster in clusters], axis=2)

    y = layer(x.astype("f8"), weights["one.filters.weight"], near, first)
    y = layer(y, weights["two.filters.weight"], [list(range(8))] * 8, second)
    expected = y.reshape(3, -1) @ weights["head.weight"].T + weights["head.bias"]
    np.testing.assert_allclose(convdsl.compile(model, weights)(x), expected, atol=2e-6)


def test_clusters_are_those_of_agglomeration() -> None:
    """Merged by modularity until eight are left, and on until two are: these join whole groups."""
    text = (zoo.folder() / "gallery" / "graph_convolution.cnn").read_text()
    groups = [set(c) for c in greedy_modularity_communities(CLUB, cutoff=8, best_n=8)]
    assert all(str(sorted(group)) in text for group in groups)
    halves = [set(c) for c in greedy_modularity_communities(CLUB, cutoff=2, best_n=2)]
    joined = [set[int]().union(*(groups[i] for i in own)) for own in ([0, 2, 5], [1, 3, 4, 6, 7])]
    assert sorted(map(sorted, joined)) == sorted(map(sorted, halves))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is made once for the starts of one network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def learned(name: str, seed: int, steps: int, members: Array | None = None, **given: Any) -> float:
    """The share of members told right after some steps from two labels. `members`: what is known of
    each, where it is not a number of its own."""
    members = np.eye(34) if members is None else members
    model = convdsl.load(name, **given)
    settings = complete(
        model,
        {
            "loss": "cross_entropy(logits, label, ignore_index = -1)",
            "optimizer": "adamw(lr = 0.01, weight_decay = 5e-4)",
            "augment": "[]",
        },
    )
    session = convdsl.Session(model, settings, f"random:{seed}")
    labels = np.full(34, -1, np.int64)
    labels[list(LABELLED)] = FACTIONS[list(LABELLED)]
    inputs = {"x": np.eye(34, dtype="f4")}
    if name == "spectral_network":
        inputs = {"x": members.astype("f4"), "basis": waves(CLUB).astype("f4")}
    for _ in range(steps):
        session.step({**inputs, "label": labels}, rate=0.01)
    logits = session.network().by_name(**inputs)["logits"]
    return float((logits.argmax(axis=1) == FACTIONS).mean())


@pytest.mark.dear
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("name", "given", "least"),
    [
        ("gcn", {}, 0.97),
        ("chebyshev_network", {"order": 2}, 0.75),
    ],
)
def test_two_factions_from_two_labels(name: str, given: dict[str, Any], least: float) -> None:
    """A member is put where 33 of 34 went, by every start of a GCN; the others are free to find
    filters that tell the two apart and say less of the rest."""
    found = [learned(name, seed, 100, **given) for seed in range(3)]
    assert np.mean(found) >= least, found


def heat(time: float) -> Array:
    """What has spread over the graph after a while from each member: e^(-t L)."""
    basis = waves(CLUB)
    return basis @ np.diag(np.exp(-time * np.linalg.eigvalsh(laplacian(CLUB)))) @ basis.T


@pytest.mark.dear
@pytest.mark.usefixtures("kept")
def test_a_free_spectrum_learns_nothing_of_others() -> None:
    """Multipliers between knots prefer no frequency: what is learnt of a member by its number
    says nothing of the others. It says all where members are smooth to begin with."""
    assert np.mean([learned("spectral_network", seed, 100) for seed in range(3)]) < 0.7
    smoothest = waves(CLUB)[:, 1:3]
    for members in (heat(1), heat(4), smoothest):
        count = members.shape[1]
        found = [learned("spectral_network", s, 100, members, features=count) for s in range(2)]
        assert np.mean(found) >= 0.9, found


@pytest.mark.dear
@pytest.mark.parametrize("knots", [3, 6, 12])
def test_what_a_step_changes(knots: int) -> None:
    """d y_i / d (parameters) . d y_l / d (parameters) = V diag(sum of lines^2) V^T, for members by
    number: nearly the identity."""
    basis = waves(CLUB)
    lines = np.maximum(0, 1 - np.abs(np.arange(34)[:, None] / 33 * (knots - 1) - np.arange(knots)))
    g = (lines**2).sum(1)
    assert g.min() >= 0.5
    assert g.max() <= 1 + 1e-12
    model = convdsl.load("spectral_network", features=34, hidden=1, classes=1, knots=knots)
    assert "one.alpha.weight" in model.graph.states
    text = """use "zoo:gallery/graph_convolution.cnn": spectral
    model m(knots) { input x: f32[34, 34]
    input basis: f32[34, 34]
    spectral(x, basis, 1, knots) as one -> output y }"""
    layer = convdsl.compile(
        convdsl.parse(text.replace("m(knots)", f"m(knots = {knots})")),
        {"one.alpha.weight": np.ones((1, 34 * knots), "f4")},
        cache=False,
    )
    y = layer(x=np.eye(34, dtype="f4"), basis=basis.astype("f4"))
    np.testing.assert_allclose(y[:, 0], basis @ basis.sum(0), atol=1e-4)  # the lines sum to one
    jacobian = np.stack([(basis * line) @ basis.T for line in lines.T], 2).reshape(34, -1)
    np.testing.assert_allclose(jacobian @ jacobian.T, basis @ np.diag(g) @ basis.T, atol=1e-12)
    others = jacobian @ jacobian.T
    np.fill_diagonal(others, 0)
    assert np.abs(others).sum(1).mean() / 33 < 0.05
