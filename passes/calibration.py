"""Calibration inputs: a few hundred unlabelled samples of what the network will see.

    .npz             arrays named as the model's inputs, samples along axis 0
    .npy             the same, for a model with one input
    folder of .npy   one file per input (`input.npy`), or one file per sample
    folder of images decoded and resized by Pillow (`passes/pictures.py`)

Samples are kept in the order of their contents' digests, so that nothing downstream depends on the order
in which they came.
"""

from __future__ import annotations

import difflib
import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError
from passes.inputs import IMAGE_SUFFIXES, Arrays, InputSpec
from passes.loading.sizes import sample_axes
from passes.proto import every_node

SANE_MAGNITUDE = 1e6  # of a floating-point input; what is larger was never normalised, or is garbage
SANE_SMALLEST = 1e-12  # likewise of its largest entry
ALIKE = 1e-6  # of the largest entry: samples that differ by less are the same but for rounding
LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Samples for every input of a model.

    Attributes:
        inputs: per input name, an array whose first axis counts samples (read-only).
        source: where they came from, for messages.
        order: int64[samples], the place that each had there.
        batch: the model's own fixed batch size, or 0 where it is free.
        places: inputs whose samples lie along another axis than the first when they are fed.
        fixed: inputs that are the same for every batch: single numbers, and those that nothing reads.
    """

    inputs: Arrays
    source: str
    order: NDArray[np.int64]
    batch: int = 0
    places: Mapping[str, int] = field(default_factory=dict)
    fixed: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def distinct(self) -> int:
        """How many different samples there are; the same ones follow each other."""
        pairs = zip(range(len(self)), range(1, len(self)), strict=False)
        return 1 + sum(any((a[i] != a[j]).any() for a in self.inputs.values()) for i, j in pairs)

    def batches(self, size: int) -> Iterator[Arrays]:
        """Consecutive batches of at most `size` samples (of exactly the model's batch size where it is fixed)."""
        step = self.batch or max(size, 1)
        for start in range(0, len(self), step):
            yield fed({n: array[start : start + step] for n, array in self.inputs.items()}, self.places, self.fixed)

    def take(self, rows: NDArray[np.int64] | slice) -> Calibration:
        """The chosen samples, in the order given."""
        return replace(self, inputs={k: _frozen(v[rows]) for k, v in self.inputs.items()}, order=self.order[rows])

    def split(self, held_share: float = 0.2) -> tuple[Calibration, Calibration]:
        """Samples to fit on and samples held back, every 1/share-th; both are multiples of a fixed batch size.

        Raises:
            CalibrationError: when one part would be empty.
        """
        step = self.batch or 1
        units = len(self) // step
        held_units = max(1, round(units * held_share))
        if units - held_units < 1:
            raise CalibrationError(
                f"{self.source}: {len(self)} sample(s) cannot be split into samples to fit on and samples held back; "
                f"give at least {2 * step}, better a few hundred."
            )
        held = np.zeros(units, dtype=np.bool_)
        held[np.linspace(0, units - 1, held_units).astype(np.int64)] = True
        rows = np.arange(units * step).reshape(units, step)
        return self.take(rows[~held].reshape(-1)), self.take(rows[held].reshape(-1))


def fed(inputs: Arrays, places: Mapping[str, int], fixed: Arrays) -> Arrays:
    """A batch as the model takes it, from arrays with samples first."""
    turned = {n: np.ascontiguousarray(np.moveaxis(a, 0, places[n])) if n in places else a for n, a in inputs.items()}
    return {**turned, **fixed}


def input_specs(model: onnx.ModelProto, shape: Mapping[str, Sequence[int]] | None = None) -> tuple[InputSpec, ...]:
    """What `model` reads of what it is fed; `shape` fills in dynamic axes (`--shape`)."""
    constants = {initializer.name for initializer in model.graph.initializer}
    read = {name for node in every_node(model.graph) for name in node.input} | {o.name for o in model.graph.output}
    values = [value for value in model.graph.input if value.name not in constants]
    places = sample_axes({value.name: _named_sizes(value) for value in values})
    specs = []
    for value in values:
        if value.name not in read:
            continue
        place = places[value.name]
        sizes = tuple(n if isinstance(n, int) else None for n in _named_sizes(value))
        asked = (shape or {}).get(value.name)
        if asked is not None and len(asked) == len(sizes):
            sizes = tuple(n if n or i == place else asked[i] for i, n in enumerate(sizes))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        specs.append(InputSpec(value.name, dtype, sizes, place))
    return tuple(specs)


def _named_sizes(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Sizes of an input's axes, names or None where they are open; −1 is open too."""
    dims = value.type.tensor_type.shape.dim
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None for dim in dims
    ]


def unread_inputs(model: onnx.ModelProto) -> Arrays:
    """Zeros for the inputs that nothing reads: runtimes want them all the same."""
    constants = {initializer.name for initializer in model.graph.initializer}
    wanted = {spec.name for spec in input_specs(model)} | constants
    return {
        value.name: np.zeros(
            [n if isinstance(n, int) else 1 for n in _named_sizes(value)],
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in model.graph.input
        if value.name not in wanted
    }


def calibrate_from(
    inputs: Arrays, model: onnx.ModelProto, source: str = "calibration", *, limit: int | None = None
) -> Calibration:
    """Checks arrays against the model's inputs and brings them into the order of their digests.

    Args:
        inputs: arrays named as the model's inputs, samples along axis 0; an array named `labels` is ignored.
        limit: use at most this many samples, evenly taken.

    Raises:
        CalibrationError: wrong name, shape, type, length or values.
    """
    everything = input_specs(model)
    specs = [spec for spec in everything if spec.shape]
    numbers = [spec for spec in everything if not spec.shape]
    fixed = {**unread_inputs(model), **{spec.name: _number(inputs, spec, source) for spec in numbers}}
    checked = checked_arrays({k: v for k, v in inputs.items() if k not in fixed}, specs, source)
    places = {spec.name: spec.place for spec in specs if spec.place}
    batch = specs[0].shape[0] if specs and not specs[0].place else None
    count = len(next(iter(checked.values())))
    if count > 1 and all(map(_alike, checked.values())):
        raise CalibrationError(
            f"{source}: all {count} samples are the same; calibration needs inputs that differ as those do that the"
            " network will see."
        )
    order = np.argsort(_digests(checked), kind="stable")
    if limit is not None and count > limit:
        order = order[np.linspace(0, count - 1, limit).astype(np.int64)]
    if batch:
        order = order[: len(order) // batch * batch]
        if not len(order):
            raise CalibrationError(f"{source}: {count} sample(s), but the model takes batches of {batch}; give more.")
    return Calibration({k: _frozen(v[order]) for k, v in checked.items()}, source, order, batch or 0, places, fixed)


def _number(inputs: Arrays, spec: InputSpec, source: str) -> NDArray[Any]:
    """The value of an input that is a single number."""
    found = inputs.get(spec.name)
    if found is None or found.size != 1:
        raise CalibrationError(
            f"{source}: input {spec.name!r} is a single number; give one for all samples as an array of that name,"
            f" or what it always is with --set {spec.name}=VALUE"
        )
    return np.asarray(found, dtype=spec.dtype).reshape(())


def load_calibration(
    path: Path | str,
    model: onnx.ModelProto,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shape: Mapping[str, Sequence[int]] | None = None,
    limit: int | None = None,
) -> Calibration:
    """Reads calibration inputs for `model` from a `.npz`, a `.npy`, a folder of `.npy` or a folder of images.

    Args:
        mean: per channel, subtracted from pixels in 0..1; images only.
        std: per channel, divided by; images only.
        shape: sizes for dynamic axes, to resize images to.
        limit: use at most this many samples.

    Raises:
        CalibrationError: unreadable file, or wrong name, shape, type, length or values.
        BackendError: images were given and Pillow is missing.
    """
    path = Path(path)
    specs = input_specs(model, shape)
    if path.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        from passes.pictures import load_pictures  # Pillow is an optional extra

        arrays: Arrays = load_pictures(path, specs, mean=mean, std=std, limit=limit)
    else:
        arrays = load_arrays(path, specs)
        if mean is not None or std is not None:
            raise CalibrationError(f"{path}: --mean and --std are for folders of images; arrays are fed as they are.")
    return calibrate_from(arrays, model, str(path), limit=limit)


def check_source(path: Path) -> None:
    """That samples may be there, without reading any.

    Raises:
        CalibrationError: nothing is there, or a file of another kind.
    """
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder.")
    if not path.is_dir() and path.suffix not in (".npz", ".npy"):
        raise CalibrationError(f"{path}: expected .npz, .npy, a folder of .npy or a folder of images.")


def load_arrays(path: Path, specs: Sequence[InputSpec]) -> Arrays:
    """Reads named arrays from a `.npz`, a `.npy` or a folder of `.npy` files."""
    check_source(path)
    if path.is_dir():
        return _load_folder(path, specs)
    if path.suffix == ".npz":
        return _load_npz(path)
    return {_only_input(path, specs).name: _load_npy(path)}


def _load_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path}: not a readable .npz of plain arrays ({error}).") from error


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CalibrationError(f"{path}: not a readable .npy of plain numbers ({error}).") from error
    return array


def _load_folder(path: Path, specs: Sequence[InputSpec]) -> Arrays:
    files = sorted(path.glob("*.npy"))
    if not files:
        found = ", ".join(sorted({file.suffix.lower() for file in path.rglob("*") if file.suffix})) or "none"
        raise CalibrationError(
            f"{path}: the folder holds neither .npy files nor images ({', '.join(sorted(IMAGE_SUFFIXES))};"
            f" there: {found})."
        )
    names = {spec.name for spec in specs}
    if names <= {file.stem for file in files}:
        return {file.stem: _load_npy(file) for file in files if file.stem in {*names, LABELS}}
    spec = _only_input(path, specs)
    rank = len(spec.shape)
    parts = [_load_npy(file) for file in files]
    parts = [part[np.newaxis] if part.ndim == rank - 1 else part for part in parts]
    for file, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:] or part.ndim != rank:
            raise CalibrationError(
                f"{file}: shape {list(part.shape)}, but input {spec.name!r} is {spec.spell()} "
                f"and {files[0].name} has {list(parts[0].shape)}."
            )
    return {spec.name: np.concatenate(parts)}


def _only_input(path: Path, specs: Sequence[InputSpec]) -> InputSpec:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise CalibrationError(f"{path}: the model has {len(specs)} inputs; give a .npz with arrays named {names}.")
    return specs[0]


def checked_arrays(inputs: Arrays, specs: Sequence[InputSpec], source: str) -> Arrays:
    """The arrays for `specs`, checked for name, type, shape, length and values; an array `labels` is left out."""
    known = {spec.name for spec in specs}
    for name in inputs:
        if name not in known and name != LABELS:
            nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise CalibrationError(f"{source}: the model has no input {name!r} (it has {', '.join(known)}){hint}")
    result = {}
    for spec in specs:
        if spec.name not in inputs:
            raise CalibrationError(f"{source}: no array for input {spec.name!r}, expected {spec.spell()}.")
        result[spec.name] = _checked(inputs[spec.name], spec, source)
    lengths = {name: len(array) for name, array in result.items()}
    if len(set(lengths.values())) > 1:
        raise CalibrationError(f"{source}: inputs have different numbers of samples: {lengths}.")
    if not lengths or not min(lengths.values()):
        raise CalibrationError(f"{source}: no samples.")
    return result


def _checked(array: NDArray[Any], spec: InputSpec, source: str) -> NDArray[Any]:
    where = f"{source}: array {spec.name!r}"
    both_float = np.issubdtype(array.dtype, np.floating) and np.issubdtype(spec.dtype, np.floating)
    if array.dtype != spec.dtype and not both_float:
        raise CalibrationError(f"{where} is {array.dtype}, expected {spec.spell()}; convert it with .astype.")
    fits = array.ndim == len(spec.shape) and all(
        i == spec.place or want is None or have == want
        for i, (have, want) in enumerate(zip(array.shape, spec.shape, strict=True))
    )
    if not fits:
        where_samples = "samples first" if not spec.place else "N counting samples"
        raise CalibrationError(f"{where} has shape {list(array.shape)}, expected {spec.spell()}, {where_samples}.")
    if np.issubdtype(array.dtype, np.floating):
        _check_values(array, where, may_be_zero=bool(spec.place))  # as states are at first
    return np.ascontiguousarray(np.moveaxis(array, spec.place, 0), dtype=spec.dtype)


def _check_values(array: NDArray[Any], where: str, *, may_be_zero: bool) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        sample = int(np.argwhere(~finite)[0][0])
        raise CalibrationError(f"{where} holds NaN or Inf, first in sample {sample}; remove it.")
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())
    if max(-low, high) > SANE_MAGNITUDE:
        raise CalibrationError(
            f"{where} spans {low:.3g} to {high:.3g}; a network's input is never this large. "
            "Normalise it as the network was trained."
        )
    if low == high and array.size > 1 and not (may_be_zero and low == 0):
        raise CalibrationError(
            f"{where} is {low:g} everywhere; calibration needs inputs like those the network will see."
        )
    if 0 < max(-low, high) < SANE_SMALLEST:
        raise CalibrationError(
            f"{where} spans {low:.3g} to {high:.3g}; a network's input is never this small. "
            "Normalise it as the network was trained."
        )


def _alike(array: NDArray[Any]) -> bool:
    """Whether samples are the same but for rounding."""
    if not np.issubdtype(array.dtype, np.floating):
        return bool((array == array[0]).all())
    return bool(np.ptp(array, axis=0).max(initial=0) <= ALIKE * np.abs(array).max(initial=0))


def _digests(arrays: Arrays) -> NDArray[np.bytes_]:
    count = len(next(iter(arrays.values())))
    digests = []
    for row in range(count):
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(arrays):
            digest.update(arrays[name][row].tobytes())
        digests.append(digest.hexdigest().encode())
    return np.array(digests)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array
