"""Ray Data, Spark and Dask: a folder of images to Parquet, with the network's own numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

import convdsl
from convdsl.cli import main

pytestmark = pytest.mark.filterwarnings("default")  # Ray warns of its own settings
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "batch_inference.md"
TEXT = """
model tiny {
    labels "names.txt"
    input image: f32[N, 3, 16, 16]
    preprocess image: resize(16x16) -> rescale(1 / 255)
    image -> conv(8, 3x3) as conv -> relu -> avgpool(global) -> flatten
          -> linear(3) as fc -> output logits
}
"""
COUNT = 23  # no multiple of a batch


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact for batches of 4, and photos."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "tiny.cnn").write_text(TEXT)
    (folder / "names.txt").write_text("cat\ndog\nbird\n")
    (folder / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = draw.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02}.png")
    made = convdsl.compile(folder / "tiny.cnn", "random:3", threads=1)
    made.save(folder / "net.cdsl", N=4)
    return folder


@pytest.fixture(scope="module")
def ray(place: Path) -> Iterator[Any]:
    """Ray on this machine, with two processes that work in the folder, and none left at the end."""
    import ray

    before = Path.cwd()
    os.chdir(place)
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, (ROOT,)))}}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment,
        object_store_memory=100 << 20,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    os.chdir(before)


def recipe(language: str, holding: str) -> str:
    """The block of the page that holds some words."""
    blocks = re.findall(
        rf"^```{language} elsewhere\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    (found,) = [block for block in blocks if holding in block]
    return found


def wanted(place: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What `convdsl classify` says of every photo."""
    files = sorted(map(str, (place / "photos").iterdir()))
    arguments = ["classify", str(place / "net.cdsl"), *files, "--format", "json", "--top", "1"]
    capsys.readouterr()
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    return {Path(row["file"]).name: row["top"][0] for row in rows}


def test_the_recipe_on_ray(place: Path, ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As the page has it; then the numbers of `convdsl classify`, to the bit."""
    exec(compile(recipe("python", "write_parquet"), str(PAGE), "exec"), {})
    frame = pandas.read_parquet(place / "predictions")
    found = {Path(row.path).name: row for row in frame.itertuples()}
    expected = wanted(place, capsys)
    assert sorted(found) == sorted(expected)
    assert list(frame.columns) == ["path", "index", "label", "probability"]
    for name, best in expected.items():
        row = found[name]
        assert (row.index, row.label, row.probability) == tuple(best.values())


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_however_ray_cuts_the_rows(place: Path, ray: Any, size: int) -> None:
    x = np.random.default_rng(1).standard_normal((COUNT, 3, 16, 16), np.float32)
    predictor = convdsl.Predictor(place / "net.cdsl")
    rows = ray.data.from_items([{"number": n, "image": row} for n, row in enumerate(x)])
    made = rows.repartition(5).map_batches(predictor.columns, batch_size=size).take_all()
    found = np.stack([row["logits"] for row in sorted(made, key=lambda row: row["number"])])
    np.testing.assert_array_equal(found, predictor(x))


def test_a_process_opens_it_once(place: Path, ray: Any) -> None:
    predictor = convdsl.Predictor(place / "net.cdsl")

    def counted(rows: dict[str, Any]) -> dict[str, Any]:
        from convdsl import prediction

        before = len(prediction._opened)
        predictor.open()
        made = len(prediction._opened) - before
        return {"process": np.full(len(rows["id"]), os.getpid()), "made": [made] * len(rows["id"])}

    rows = ray.data.range(40).repartition(20).map_batches(counted, batch_size=2).take_all()
    processes = {row["process"] for row in rows}
    assert sum(row["made"] for row in rows) / 2 <= len(processes)


def test_dask(place: Path) -> None:
    import dask.bag

    predictor = convdsl.Predictor(place / "net.cdsl")
    files = sorted(map(str, (place / "photos").iterdir()))
    bag = dask.bag.from_sequence(files, npartitions=5).map_partitions(predictor.classify)
    found = bag.compute(scheduler="processes", num_workers=2)
    assert found == predictor.classify(files)


@pytest.fixture(scope="module")
def spark(place: Path) -> Iterator[Any]:
    """Spark on this machine, with two processes in the folder; none is left at the end."""
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt-get install default-jre-headless")
    sql = pytest.importorskip("pyspark.sql", reason="pip install pyspark")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        build = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = build.config("spark.sql.execution.arrow.maxRecordsPerBatch", "5").getOrCreate()
        yield session
        session.stop()


def test_the_recipe_on_spark(place: Path, spark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As the page has it; then the numbers of `convdsl classify`, to the bit."""
    names = {"spark": spark, "predictor": convdsl.Predictor("net.cdsl")}
    text = recipe("python", "mapInPandas").replace('"predictions"', '"by_spark"')
    exec(compile(text, str(PAGE), "exec"), names)
    frame = pandas.read_parquet(place / "by_spark")
    expected = wanted(place, capsys)
    assert sorted(Path(path).name for path in frame["path"]) == sorted(expected)
    for row in frame.itertuples():
        assert (row.index, row.label, row.probability) == tuple(
            expected[Path(row.path).name].values()
        )


def test_columns_on_spark(place: Path, spark: Any) -> None:
    """Arrays, as numbers in a column; parts of five rows, and one that is empty."""
    x = np.random.default_rng(4).standard_normal((COUNT, 3, 16, 16), np.float32)
    predictor = convdsl.Predictor(place / "net.cdsl")
    rows = [(number, row.tolist()) for number, row in enumerate(x)]
    schema = "number int, image array<array<array<float>>>"
    table = spark.createDataFrame(rows, schema).repartition(4)
    made = table.mapInPandas(predictor.frames, "number int, logits array<float>").toPandas()
    found = np.stack(made.sort_values("number")["logits"].to_list())
    np.testing.assert_array_equal(found.astype(np.float32), predictor(x))


def test_frames_of_pandas(place: Path) -> None:
    """What Spark's mapInPandas hands out, without it."""
    predictor = convdsl.Predictor(place / "net.cdsl")
    files = sorted((place / "photos").iterdir())
    rows = {"path": list(map(str, files)), "bytes": [file.read_bytes() for file in files]}
    whole = pandas.DataFrame(rows)
    parts = [whole[:7], whole[7:7], whole[7:]]
    frame = pandas.concat(predictor.labels_of_frames(parts), ignore_index=True)
    best = [top[0] for top in predictor.classify(files)]
    assert frame["path"].tolist() == rows["path"]
    assert frame["label"].tolist() == [one["label"] for one in best]
    assert frame["probability"].tolist() == [one["probability"] for one in best]
    x = np.random.default_rng(2).standard_normal((9, 3, 16, 16), np.float32)
    (numbers,) = predictor.frames([pandas.DataFrame({"image": list(x)})])
    np.testing.assert_array_equal(np.stack(numbers["logits"]), predictor(x))


# Serving, with the client of others


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "convdsl", "serve", "net.cdsl", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].removeprefix("http://")
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_of_triton(place: Path, address: str, binary: bool) -> None:
    from tritonclient import http
    from tritonclient.utils import InferenceServerException

    client = http.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("net")
    assert not client.is_model_ready("other")
    assert "classification" in client.get_server_metadata()["extensions"]
    said = client.get_model_metadata("net")
    assert said["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 16, 16]}]
    x = np.random.default_rng(3).standard_normal((5, 3, 16, 16), np.float32)
    given = http.InferInput("image", x.shape, "FP32").set_data_from_numpy(x, binary_data=binary)
    wanted = http.InferRequestedOutput("logits", binary_data=binary)
    answer = client.infer("net", [given], outputs=[wanted], request_id="9")
    assert answer.get_response()["id"] == "9"
    expected = convdsl.Predictor(place / "net.cdsl")(x)
    np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
    classes = http.InferRequestedOutput("logits", binary_data=binary, class_count=1)
    named = client.infer("net", [given], outputs=[classes]).as_numpy("logits")
    texts = [text.decode() if isinstance(text, bytes) else text for text in named.ravel()]
    assert [int(text.split(":")[1]) for text in texts] == expected.argmax(1).tolist()
    wrong = http.InferInput("image", [1, 3, 16, 15], "FP32").set_data_from_numpy(x[:1, ..., 1:])
    with pytest.raises(InferenceServerException, match=r"expected f32\[N, 3, 16, 16\]"):
        client.infer("net", [wrong])
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_photos_by_the_client_of_triton(place: Path, address: str, binary: bool) -> None:
    import base64

    from tritonclient import http

    files = sorted((place / "photos").iterdir())[:6]
    content = [file.read_bytes() for file in files]
    if not binary:
        content = [base64.b64encode(each) for each in content]
    client = http.InferenceServerClient(address)
    given = http.InferInput("image", [len(content)], "BYTES")
    given.set_data_from_numpy(np.array(content, object), binary_data=binary)
    found = client.infer("net", [given]).as_numpy("logits")
    best = convdsl.Predictor(place / "net.cdsl").classify(files, top=1)
    assert found.argmax(1).tolist() == [top[0]["index"] for top in best]
    client.close()
