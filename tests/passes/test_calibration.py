"""Calibration inputs: every way to give them, and a sentence for every way to get them wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from halpc.errors import CalibrationError
from passes.calibration import Calibration, calibrate_from, load_calibration
from passes.load import load
from passes.proto import proto_of
from passes.runtime import session_of
from tests.passes.patterns import model_of

RANDOM = np.random.default_rng(0)


def _model(signature: str = "float[N,3,8,8] image") -> onnx.ModelProto:
    name = signature.split()[-1]
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g ({signature}) => (float[] y) {{ y = Cast<to=1>({name}) }}"""
    return onnx.parser.parse_model(text)


def _images(count: int = 10) -> np.ndarray:
    return RANDOM.normal(size=(count, 3, 8, 8)).astype(np.float32)


def test_npz_is_read_by_input_name_and_labels_are_ignored(tmp_path: Path) -> None:
    images = _images()
    np.savez(tmp_path / "c.npz", image=images, labels=np.arange(10))
    found = load_calibration(tmp_path / "c.npz", _model())
    assert len(found) == 10
    assert set(found.inputs) == {"image"}
    np.testing.assert_array_equal(np.sort(found.inputs["image"], axis=0), np.sort(images, axis=0))


def test_npy_and_folders_of_npy_give_the_same(tmp_path: Path) -> None:
    images = _images()
    np.save(tmp_path / "one.npy", images)
    for folder in ("named", "single", "batched"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "named" / "image.npy", images)
    for index, image in enumerate(images):
        np.save(tmp_path / "single" / f"{index}.npy", image)
    for index, part in enumerate(np.split(images, 2)):
        np.save(tmp_path / "batched" / f"{index}.npy", part)
    expected = load_calibration(tmp_path / "one.npy", _model()).inputs["image"]
    for folder in ("named", "single", "batched"):
        np.testing.assert_array_equal(load_calibration(tmp_path / folder, _model()).inputs["image"], expected)


def test_images_are_decoded_resized_and_normalised(tmp_path: Path) -> None:
    for index, colour in enumerate([(255, 0, 51), (0, 102, 255)]):
        Image.new("RGB", (20, 10), colour).save(tmp_path / f"{index}.png")
    found = load_calibration(tmp_path, _model(), mean=[0, 0.4, 0], std=[1, 2, 0.5]).inputs["image"]
    assert found.shape == (2, 3, 8, 8)
    values = sorted(found[:, :, 4, 4].tolist())
    np.testing.assert_allclose(values, [[0.0, 0.0, 2.0], [1.0, -0.2, 0.4]], atol=1e-6)


RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def _grey(picture: Image.Image, folder: Path, name: str) -> np.ndarray:
    """Pixels of a picture as the network gets them, beside a black one; all channels are the same."""
    picture.save(folder / name)
    Image.new("L", (8, 8)).save(folder / "z.png")
    found = load_calibration(folder, _model(), mean=[0], std=[1 / 255]).inputs["image"]
    picked = found[int(np.argmax(found.max(axis=(1, 2, 3))))]
    assert (picked == picked[:1]).all()
    return picked[0]


RAMPS = {
    "L.png": lambda: Image.fromarray(RAMP),
    "LA.png": lambda: Image.fromarray(RAMP).convert("LA"),
    "RGBA.png": lambda: Image.fromarray(RAMP).convert("RGBA"),
    "CMYK.tif": lambda: Image.fromarray(RAMP).convert("RGB").convert("CMYK"),
    "P.png": lambda: Image.fromarray(RAMP).quantize(256),
    "P.gif": lambda: Image.fromarray(RAMP).quantize(256),
    "I;16.png": lambda: Image.fromarray(RAMP.astype(np.uint16) * 257),
    "I;16.tif": lambda: Image.fromarray(RAMP.astype(np.uint16) * 257),
    "I.pgm": lambda: Image.fromarray(RAMP.astype(np.int32) * 257),
    "F.tif": lambda: Image.fromarray(RAMP.astype(np.float32) / 255),
}


@pytest.mark.parametrize("name", RAMPS)
def test_every_kind_of_picture_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    np.testing.assert_allclose(_grey(RAMPS[name](), tmp_path, name), RAMP, atol=0.01)


def test_one_bit_is_black_and_white_and_a_transparent_palette_is_its_colours(tmp_path: Path) -> None:
    bits = RAMP > 100
    np.testing.assert_allclose(_grey(Image.fromarray(bits), tmp_path, "1.png"), 255 * bits, atol=0.01)
    palette = Image.fromarray(RAMP).quantize(256)
    palette.info["transparency"] = bytes(range(256))
    (tmp_path / "p").mkdir()
    np.testing.assert_allclose(_grey(palette, tmp_path / "p", "p.png"), RAMP, atol=0.01)


@pytest.mark.parametrize("pixels", [RAMP.astype(np.float32), RAMP.astype(np.int32), RAMP / np.float32(255) - 1])
def test_pictures_whose_scale_nobody_knows_are_refused(pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"x\.tif: \w+ pixels that span .* expected 8 or 16 bits"):
        _grey(Image.fromarray(pixels), tmp_path, "x.tif")


def test_colours_that_do_not_convert_are_refused(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8)).save(tmp_path / "x.tif")
    with pytest.raises(CalibrationError, match=r"x\.tif: LAB does not become L "):
        load_calibration(tmp_path, _model("float[N,1,8,8] image"), mean=[0], std=[1])


def test_a_folder_of_other_files_says_which_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").touch()
    with pytest.raises(CalibrationError, match=r"neither .npy files nor images \(\.bmp, .*; there: \.heic\)"):
        load_calibration(tmp_path, _model(), mean=[0], std=[1])


def test_images_for_an_integer_input_stay_pixels(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 200).save(tmp_path / "a.png")
    found = load_calibration(tmp_path, _model("uint8[N,8,8,1] image")).inputs["image"]
    assert found.dtype == np.uint8
    assert found.shape == (1, 8, 8, 1)
    assert (found == 200).all()


def test_samples_come_in_the_order_of_their_contents() -> None:
    images = _images()
    one = calibrate_from({"image": images}, _model())
    two = calibrate_from({"image": images[::-1]}, _model())
    np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])


def test_split_holds_back_the_share_and_loses_nothing() -> None:
    fit, held = calibrate_from({"image": _images(50)}, _model()).split(0.2)
    assert (len(fit), len(held)) == (40, 10)
    assert not (set(fit.inputs["image"][:, 0, 0, 0]) & set(held.inputs["image"][:, 0, 0, 0]))


def test_a_fixed_batch_size_is_respected() -> None:
    found = calibrate_from({"image": _images(11)}, _model("float[2,3,8,8] image"))
    assert len(found) == 10
    assert [len(batch["image"]) for batch in found.batches(64)] == [2] * 5
    fit, held = found.split(0.2)
    assert (len(fit), len(held)) == (8, 2)


def test_arrays_are_read_only() -> None:
    found = calibrate_from({"image": _images()}, _model())
    with pytest.raises(ValueError, match="read-only"):
        found.inputs["image"][0] = 0


def test_a_limit_takes_that_many() -> None:
    assert len(calibrate_from({"image": _images(50)}, _model(), limit=7)) == 7


def _bad(array: Any, name: str = "image", signature: str = "float[N,3,8,8] image") -> Calibration:
    return calibrate_from({name: array}, _model(signature), "c.npz")


WRONG = {
    "name": (_images(), "imgae", "c.npz: the model has no input 'imgae' .* did you mean 'image'"),
    "rank": (_images()[0], "image", r"shape \[3, 8, 8\], expected float32\[N, 3, 8, 8\]"),
    "size": (_images()[:, :, :4], "image", r"shape \[10, 3, 4, 8\], expected float32\[N, 3, 8, 8\]"),
    "type": (_images().astype(np.uint8), "image", r"is uint8, expected float32\[N, 3, 8, 8\]"),
    "nan": (
        np.where(np.arange(10).reshape(-1, 1, 1, 1) == 3, np.nan, _images()),
        "image",
        "NaN or Inf, first in sample 3",
    ),
    "large": (_images() * 1e9, "image", "never this large"),
    "small": (_images() * np.float32(1e-30), "image", "never this small"),
    "constant": (np.ones((10, 3, 8, 8), np.float32), "image", "is 1 everywhere"),
    "empty": (np.zeros((0, 3, 8, 8), np.float32), "image", "no samples"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_say_what_is_wrong(case: str) -> None:
    array, name, message = WRONG[case]
    with pytest.raises(CalibrationError, match=message):
        _bad(array, name)


def test_a_missing_input_and_different_lengths_are_named() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]> g (float[N,2] a, float[N,2] b) => (float[] y) { y = Add(a, b) }"""
    )
    pair = RANDOM.normal(size=(4, 2)).astype(np.float32)
    with pytest.raises(CalibrationError, match="no array for input 'b'"):
        calibrate_from({"a": pair}, model)
    with pytest.raises(CalibrationError, match=r"different numbers of samples: \{'a': 4, 'b': 3\}"):
        calibrate_from({"a": pair, "b": pair[:3]}, model)


def test_doubles_are_taken_for_floats() -> None:
    assert _bad(_images().astype(np.float64)).inputs["image"].dtype == np.float32


@pytest.mark.parametrize("rest", [0, 1e-8])
def test_samples_that_are_all_the_same_are_refused(rest: float) -> None:
    images = np.repeat(_images(1), 10, axis=0)
    images[3] *= 1 + rest
    with pytest.raises(CalibrationError, match="all 10 samples are the same"):
        calibrate_from({"image": images}, _model())
    images[3] *= 1.01
    assert calibrate_from({"image": images}, _model()).distinct() == 2


def test_an_input_may_be_the_same_where_another_is_not() -> None:
    text = "g (float[N,3,8,8] image, int64[N,2] edges) => (float[] y) { r = Cast<to=1>(edges) m = ReduceSum(r)"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text} y = Add(image, m) }}')
    edges = np.zeros((10, 2), dtype=np.int64)
    with pytest.raises(CalibrationError, match="all 10 samples are the same"):
        calibrate_from({"image": np.repeat(_images(1), 10, axis=0), "edges": edges}, model)
    assert len(calibrate_from({"image": _images(), "edges": edges}, model)) == 10


def test_too_few_to_hold_some_back() -> None:
    with pytest.raises(CalibrationError, match=r"1 sample.* cannot be split"):
        calibrate_from({"image": _images(1)}, _model()).split()


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "empty").mkdir()
    cases = {"bad.npz": "not a readable", "objects.npy": "not a readable", "no.npz": "no such file", "empty": "neither"}
    for name, message in cases.items():
        with pytest.raises(CalibrationError, match=message):
            load_calibration(tmp_path / name, _model())


def test_images_need_a_normalisation_a_size_and_to_decode(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match="--mean and --std"):
        load_calibration(tmp_path, _model())
    with pytest.raises(CalibrationError, match="not a readable image"):
        load_calibration(tmp_path, _model(), mean=[0], std=[1])
    with pytest.raises(CalibrationError, match="--shape image"):
        load_calibration(tmp_path, _model("float[N,3,H,W] image"), mean=[0], std=[1])
    with pytest.raises(CalibrationError, match="--std must be positive"):
        load_calibration(tmp_path, _model(), mean=[0], std=[0])
    with pytest.raises(CalibrationError, match="which is no image"):
        load_calibration(tmp_path, _model("float[N,5] image"), mean=[0], std=[1])


STATEFUL = """stateful (float[N,6] x, float[1,?,8] h, float gain, float[2,2] unread) => (float[N,4] y)
    <int64[1] first = {0}> {
        u = Unsqueeze(x, first)
        v = Mul(u, gain)
        s, t = GRU<hidden_size=8>(v, g, r, , , h)
        q = Squeeze(t, first)
        y = MatMul(q, w)
    }"""
STATEFUL_WEIGHTS = {"g": (1, 24, 6), "r": (1, 24, 8), "w": (8, 4)}


def _stateful(count: int = 20) -> dict[str, np.ndarray]:
    x = RANDOM.normal(size=(count, 6)).astype(np.float32)
    return {"x": x, "h": np.zeros((1, count, 8), np.float32), "gain": np.array(2, np.float32)}


def test_states_numbers_and_inputs_that_nothing_reads_are_fed_as_the_model_takes_them() -> None:
    model = model_of(STATEFUL, STATEFUL_WEIGHTS)
    found = calibrate_from(_stateful(), model)
    batch = next(found.take(slice(0, 6)).batches(6))
    shapes = {name: array.shape for name, array in batch.items()}
    assert shapes == {"x": (6, 6), "h": (1, 6, 8), "gain": (), "unread": (2, 2)}
    assert session_of(model, optimise=False).run(None, batch)[0].shape == (6, 4)


def test_a_number_that_is_missing_can_be_set(tmp_path: Path) -> None:
    arrays = {name: array for name, array in _stateful().items() if name != "gain"}
    with pytest.raises(CalibrationError, match="--set gain=VALUE"):
        calibrate_from(arrays, model_of(STATEFUL, STATEFUL_WEIGHTS))
    onnx.save(model_of(STATEFUL, STATEFUL_WEIGHTS), tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx", values={"gain": 2})
    assert len(calibrate_from(arrays, proto_of(loaded.graph))) == 20


def test_a_state_with_its_samples_first_is_refused_naming_the_axis() -> None:
    arrays = _stateful() | {"h": np.zeros((20, 1, 8), np.float32)}
    with pytest.raises(CalibrationError, match=r"float32\[1, N, 8\], N counting samples"):
        calibrate_from(arrays, model_of(STATEFUL, STATEFUL_WEIGHTS))


def test_a_first_axis_of_minus_one_is_open() -> None:
    model = _model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    found = calibrate_from({"image": _images()}, model)
    assert (found.batch, len(found.split()[1])) == (0, 2)
