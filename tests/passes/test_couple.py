"""The patterns that networks are made of, each as a small graph: what is tied, what is free, and that slim is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from passes.couple import couple
from passes.load import load
from tests.passes.patterns import solve

IMAGE = "(float[1,3,6,6] x)"


def test_chain_ties_filters_to_the_next_layers_inputs(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w, b) r = Relu(a) y = Conv(r, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "b": (8,), "v": (2, 8, 1, 1)})
    assert it.tied(("w", 0), ("b", 0), ("r", 1), ("v", 1))
    assert "input" in it.pin("w", 1)
    assert "output" in it.pin("v", 0)
    assert it.prune()[1].passed


def test_residual_ties_both_branches(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) b = Conv(a, u) s = Add(a, b) y = Conv(s, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (8, 8, 1, 1), "v": (2, 8, 1, 1)})
    assert it.tied(("w", 0), ("u", 0), ("u", 1), ("v", 1))
    assert it.prune()[1].passed


def test_concat_shifts_second_input_by_first_width(tmp_path: Path) -> None:
    text = (
        f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) b = Conv(x, u) c = Concat<axis=1>(a, b) y = Conv(c, v) }}"
    )
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (4, 3, 1, 1), "v": (2, 12, 1, 1)})
    assert it.axis("v", 1) == "8 + 4"
    assert it.prune()[1].passed


def test_dense_block_grows_one_sum(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) {{
        a = Conv(x, w0) b = Conv(a, w1) ab = Concat<axis=1>(a, b) n = BatchNormalization(ab, s, t, m, p)
        c = Conv(n, w2) abc = Concat<axis=1>(ab, c) y = Conv(abc, w3) }}"""
    weights = {
        "w0": (8, 3, 1, 1),
        "w1": (4, 8, 1, 1),
        "w2": (4, 12, 1, 1),
        "w3": (2, 16, 1, 1),
        "s": (12,),
        "t": (12,),
        "m": (12,),
        "p": (12,),
    }
    it = solve(tmp_path, text, weights)
    assert it.axis("w3", 1) == "8 + 4 + 4"
    assert it.axis("s", 0) == "8 + 4"


def test_split_and_concat_of_a_csp_block(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[2] sizes = {{4, 4}}> {{
        a = Conv(x, w) l, r = Split<axis=1>(a, sizes) b = Conv(r, u) s = Add(r, b)
        c = Concat<axis=1>(l, r, s) y = Conv(c, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (4, 4, 1, 1), "v": (2, 12, 1, 1)})
    assert it.axis("w", 0) == "4 + 4"
    assert it.tied(("r", 1), ("u", 0), ("s", 1))
    assert it.prune()[1].passed


def test_split_without_sizes_may_become_unequal(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) {{
        a = Conv(x, w) l, r = Split<axis=1>(a) b = Conv(l, u) c = Conv(r, t) y = Add(b, c) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (2, 4, 1, 1), "t": (2, 4, 1, 1)})
    assert it.axis("w", 0) == "4 + 4"
    assert it.prune()[1].passed


def test_channel_shuffle_swaps_a_product(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[5] fold = {{1, 2, 4, 6, 6}}, int64[4] back = {{1, 8, 6, 6}}> {{
        a = Conv(x, w) f = Reshape(a, fold) t = Transpose<perm=[0, 2, 1, 3, 4]>(f)
        s = Reshape(t, back) y = Conv(s, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("w", 0) == "2·4"
    assert it.axis("v", 1) == "4·2"
    assert it.prune()[1].passed


def test_grouped_convolution_prunes_groups_and_inside_them(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) b = Conv<group=4>(a, u) y = Conv(b, v) }}"
    it = solve(tmp_path, text, {"w": (12, 3, 1, 1), "u": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("w", 0) == "4·3"
    assert it.axis("v", 1) == "4·2"
    assert it.prune()[1].passed


def test_depthwise_with_multiplier(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) b = Conv<group=6>(a, u) y = Conv(b, v) }}"
    it = solve(tmp_path, text, {"w": (6, 3, 1, 1), "u": (12, 1, 1, 1), "v": (2, 12, 1, 1)})
    assert it.axis("v", 1) == "6·2"
    assert it.prune()[1].passed


def test_squeeze_excite_gates_its_own_channels(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) {{
        a = Conv(x, w) p = GlobalAveragePool(a) d = Conv(p, s1) r = Relu(d) u = Conv(r, s2, sb) g = Sigmoid(u)
        m = Mul(a, g) y = Conv(m, v) }}"""
    it = solve(
        tmp_path, text, {"w": (8, 3, 1, 1), "s1": (4, 8, 1, 1), "s2": (8, 4, 1, 1), "sb": (8,), "v": (2, 8, 1, 1)}
    )
    assert it.tied(("w", 0), ("s1", 1), ("s2", 0), ("sb", 0), ("v", 1))
    assert it.axis("s1", 0) == "4"
    assert it.prune()[1].passed


def test_convolution_along_channels_pins_them(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[3] row = {{1, 1, 8}}, int64[4] back = {{1, 8, 1, 1}}> {{
        a = Conv(x, w) p = GlobalAveragePool(a) q = Reshape(p, row) e = Conv<pads=[1, 1]>(q, k) g = Sigmoid(e)
        h = Reshape(g, back) m = Mul(a, h) y = Conv(m, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "k": (1, 1, 3), "v": (2, 8, 1, 1)})
    assert "a convolution slides along it" in it.pin("w", 0)


def test_mean_over_channels_is_exact_where_zeros_arrive(tmp_path: Path) -> None:
    """Global response normalisation: the mean of norms divides by the old count."""
    text = f"""g {IMAGE} => (float[1,2,6,6] y) {{
        a = Conv(x, w) n = ReduceL2<axes=[2, 3]>(a) m = ReduceMean<axes=[1]>(n) d = Div(n, m)
        s = Mul(a, d) y = Conv(s, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("w", 0) == "8"
    assert it.prune()[1].passed


def test_mean_over_channels_behind_a_sigmoid_pins_them(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,1,6,6] y) {{ a = Conv(x, w) s = Sigmoid(a) y = ReduceMean<axes=[1]>(s) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1)})
    assert "would not be zero" in it.pin("w", 0)


def test_prelu_slope_follows_or_is_shared(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) b = PRelu(a, p) c = PRelu(b, one) y = Conv(c, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "p": (8, 1, 1), "one": (1,), "v": (2, 8, 1, 1)})
    assert it.tied(("w", 0), ("p", 0), ("v", 1))
    assert it.prune()[1].passed


def test_padded_shortcut_lets_the_padding_go(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[8] pads = {{0, 2, 0, 0, 0, 2, 0, 0}}> {{
        a = Conv(x, w) p = Pad(a, pads) b = Conv(a, u) s = Add(p, b) y = Conv(s, v) }}"""
    it = solve(tmp_path, text, {"w": (4, 3, 1, 1), "u": (8, 4, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("v", 1) == "2 + 4 + 2"
    assert it.prune()[1].passed


def test_shared_weight_is_sliced_once_for_all_its_users(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y, float[1,2,6,6] z) {{
        a = Conv(x, w0) b = Conv(x, w1) c = Conv(a, shared) d = Conv(b, shared) y = Conv(c, v) z = Conv(d, v) }}"""
    it = solve(tmp_path, text, {"w0": (8, 3, 1, 1), "w1": (8, 3, 1, 1), "shared": (6, 8, 1, 1), "v": (2, 6, 1, 1)})
    assert it.tied(("w0", 0), ("w1", 0), ("shared", 1))
    assert it.prune()[1].passed


def test_intermediate_graph_output_is_a_contract(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,8,6,6] a, float[1,2,6,6] y) {{ a = Conv(x, w) b = Conv(a, u) y = Conv(b, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (6, 8, 1, 1), "v": (2, 6, 1, 1)})
    assert "shape of graph output a" in it.pin("w", 0)
    assert it.axis("u", 0) == "6"
    assert it.prune()[1].passed


def test_flatten_repeats_each_channel_per_pixel(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,5] y) {{ a = Conv(x, w) f = Flatten(a) y = Gemm<transB=1>(f, v, b) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (5, 288), "b": (5,)})
    assert it.axis("v", 1) == "8·6!·6!"
    assert it.prune()[1].passed


def test_initializers_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) y = Conv(a, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)}, opset=8, as_inputs=True)
    assert it.tied(("w", 0), ("v", 1))
    assert it.prune()[1].passed


def test_weights_standardised_from_constants_are_folded(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ s = Mul(w, gain) a = Conv(x, s) y = Conv(a, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "gain": (8, 1, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("v", 1) == "8"
    assert it.prune()[1].passed


def test_weights_computed_from_the_input_still_tie(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[4] kernel = {{4, 8, 1, 1}}> {{
        a = Conv(x, w) p = GlobalAveragePool(a) f = Flatten(p) k = Gemm(f, u) r = Reshape(k, kernel)
        b = Conv(a, r) y = Conv(b, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (8, 32), "v": (2, 4, 1, 1)})
    assert it.tied(("w", 0), ("r", 1))
    assert it.axis("u", 1) == "4·8"
    assert it.prune()[1].passed


def test_pixel_shuffle_keeps_its_block(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,12,12] y) {{
        a = Conv(x, w) d = DepthToSpace<blocksize=2, mode="CRD">(a) y = Conv(d, v) }}"""
    it = solve(tmp_path, text, {"w": (16, 3, 1, 1), "v": (2, 4, 1, 1)})
    assert it.axis("w", 0) == "4·4!"
    assert it.prune()[1].passed


def test_partial_channel_add_cuts_the_sum(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y)
        <int64[1] zero = {{0}}, int64[1] five = {{5}}, int64[1] end = {{100}}, int64[1] one = {{1}}> {{
        a = Conv(x, w) b = Conv(a, u) h = Slice(b, zero, five, one) t = Slice(b, five, end, one) s = Add(h, a)
        c = Concat<axis=1>(s, t) y = Conv(c, v) }}"""
    it = solve(tmp_path, text, {"w": (5, 3, 1, 1), "u": (8, 5, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("v", 1) == "5 + 3"
    assert it.prune()[1].passed


def test_slice_from_the_end_follows_what_goes_behind_it(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64[1] from = {{0}}, int64[1] to = {{-3}}, int64[1] one = {{1}}> {{
        a = Conv(x, w) h = Slice(a, from, to, one) b = Conv(h, u) c = Conv(a, t) y = Add(b, c) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (2, 5, 1, 1), "t": (2, 8, 1, 1)})
    assert it.axis("t", 1) == "5 + 3"
    for seed in range(4):
        assert it.prune(seed=seed)[1].passed


DYNAMIC = {"x": (3, 3, 6, 6)}


def test_reshape_target_from_a_dynamic_batch_follows(tmp_path: Path) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,K] y) <int64[1] first = {0}, int64[1] rest = {-1}> {
        a = Conv(x, w) s = Shape(x) n = Gather(s, first) t = Concat<axis=0>(n, rest)
        f = Reshape(a, t) y = MatMul(f, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (288, 5)})
    assert it.prune(sizes=DYNAMIC)[1].passed
    assert it.axis("v", 0) == "8·6!·6!"


def test_batch_folded_into_heads_scales_the_target(tmp_path: Path) -> None:
    """[N, heads·d, H, W] as [N·heads, d, H·W]: two entries depend on dynamic axes, one of them on a pruned width."""
    text = """g (float[N,3,H,W] x) => (float[M,2,P] y)
        <int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[1] heads = {4}, int64[1] dims = {6}> {
        a = Conv(x, w) s = Shape(a) n = Gather(s, zero) h = Gather(s, two) p = Gather(s, three)
        nh = Mul(n, heads) hp = Mul(h, p) t = Concat<axis=0>(nh, dims, hp) f = Reshape(a, t) y = Conv(f, v) }"""
    it = solve(tmp_path, text, {"w": (24, 3, 1, 1), "v": (2, 6, 1)})
    assert it.axis("w", 0) == "4!·6"
    assert it.prune(sizes={"x": (3, 3, 5, 7)})[1].passed


def test_a_width_read_at_run_time_stays_the_originals(tmp_path: Path) -> None:
    """A number of entries that is computed from a pruned shape must not change what is divided by it."""
    text = """g (float[N,3,6,6] x) => (float[N,2,6,6] y) {
        a = Conv(x, w) n = Size(a) f = Cast<to=1>(n) d = Div(a, f) y = Conv(d, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("w", 0) == "8"
    assert it.prune(sizes=DYNAMIC)[1].passed


def test_a_width_read_together_with_a_dynamic_size_stays_the_originals(tmp_path: Path) -> None:
    """Batch and channels come out of one Gather, which no constant replaces."""
    text = """g (float[N,3,6,6] x) => (float[N,2,6,6] y)
        <int64[2] two = {0,1}, int64[2] sides = {6,6}, float[1,1,1,1] one = {1}> {
        a = Conv(x, w) s = Shape(a) both = Gather(s, two) t = Concat<axis=0>(both, sides)
        e = Expand(one, t) m = Mul(a, e) y = Conv(m, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.axis("w", 0) == "8"
    assert it.prune(sizes=DYNAMIC)[1].passed


def test_a_width_is_read_of_a_tensor_that_nobody_else_needs(tmp_path: Path) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,2,6,6] y) {
        a = Conv(x, w) r = Relu(a) n = Size(r) f = Cast<to=1>(n) d = Div(a, f) y = Conv(d, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert it.prune(sizes=DYNAMIC)[1].passed


def test_expand_to_a_shape_that_is_read(tmp_path: Path) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,2,6,6] y) {
        a = Conv(x, w) s = Shape(a) e = Expand(p, s) m = Mul(a, e) y = Conv(m, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "p": (1, 8, 1, 1), "v": (2, 8, 1, 1)})
    assert it.tied(("w", 0), ("p", 1), ("v", 1))
    assert it.prune(sizes=DYNAMIC)[1].passed


def test_a_mask_expanded_over_heads_follows_them(tmp_path: Path) -> None:
    text = """mask (float[N,6,8] x) => (float[N,6,5] y) <bool[1] yes = {1}, float low = {-9.0}, float middle = {0.0},
        int64[4] heads = {0,0,4,3}, int64[3] flat = {0,0,12}> {
        a = MatMul(x, w)
        b = Reshape(a, heads)
        q = Transpose<perm=[0,2,1,3]>(b)
        k = Transpose<perm=[0,2,3,1]>(b)
        scores = MatMul(q, k)
        shape = Shape(scores)
        all = Expand(yes, shape)
        causal = Greater(table, middle)
        mask = And(all, causal)
        masked = Where(mask, scores, low)
        shares = Softmax(masked)
        c = MatMul(shares, q)
        d = Transpose<perm=[0,2,1,3]>(c)
        e = Reshape(d, flat)
        y = MatMul(e, v)
    }"""
    solved = solve(tmp_path, text, {"w": (8, 12), "v": (12, 5), "table": (6, 6)})
    assert solved.axis("scores", 1) == "4"
    assert solved.tied(("scores", 1), ("mask", 1))
    assert solved.prune(sizes={"x": (3, 6, 8)})[1].passed


def test_table_cut_at_a_dynamic_length_stays_whole(tmp_path: Path) -> None:
    text = """g (float[N,T,4] x) => (float[N,T,2] y) <int64[1] one = {1}, int64[1] zero = {0}> {
        s = Shape(x) t = Gather(s, one) p = Slice(table, zero, t, one)
        h = MatMul(x, w) a = Add(h, p) y = MatMul(a, v) }"""
    it = solve(tmp_path, text, {"table": (1, 200, 6), "w": (4, 6), "v": (6, 2)})
    assert it.tied(("table", 2), ("w", 1), ("v", 0))
    assert it.pin("table", 1)
    assert it.prune(sizes={"x": (2, 150, 4)})[1].passed


def test_bodies_of_if_pin_what_they_capture(tmp_path: Path) -> None:
    text = """g (float[1,3,6,6] x, bool[1] c) => (float[1,2,6,6] y) {
        a = Conv(x, w)
        b = If(c) <then_branch = t () => (float[1,8,6,6] p) { p = Relu(a) },
                   else_branch = e () => (float[1,8,6,6] q) { q = Neg(a) }>
        d = Conv(b, u) y = Conv(d, v) }"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (4, 8, 1, 1), "v": (2, 4, 1, 1)})
    assert "its body sees it" in it.pin("w", 0)
    assert it.axis("u", 0) == "4"
    assert it.prune()[1].passed


def test_sequences_pin_what_goes_into_them(tmp_path: Path) -> None:
    text = f"""g {IMAGE} => (float[1,2,6,6] y) <int64 one = {{1}}, int64[2] sizes = {{3, 5}}> {{
        a = Conv(x, w) parts = SplitToSequence<axis=1>(a, sizes) b = SequenceAt(parts, one)
        c = Conv(b, u) y = Conv(c, v) }}"""
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "u": (4, 5, 1, 1), "v": (2, 4, 1, 1)})
    assert "it becomes part of a sequence" in it.pin("w", 0)
    assert it.axis("u", 0) == "4"
    assert it.prune()[1].passed


def test_every_free_group_has_weights_and_every_other_a_reason(tmp_path: Path) -> None:
    text = f"g {IMAGE} => (float[1,2,6,6] y) {{ a = Conv(x, w) r = Relu(a) y = Conv(r, v) }}"
    it = solve(tmp_path, text, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert all(group.members for group in it.coupling.free().values())
    assert all(group.pin for name, group in it.coupling.groups.items() if name not in it.coupling.free())
    assert np.sum([group.size for group in it.coupling.free().values()]) == 8


def test_standardised_weights_of_a_training_normalisation_are_constants(tmp_path: Path) -> None:
    """Before opset 14 a BatchNormalization with five outputs trains: its statistics are those of the weight."""
    text = """<ir_version: 7, opset_import: ["" : 13]> g (float[2,3,6,6] x) => (float[2,4,4,4] y) {
        w, a, b, c, d = BatchNormalization(raw, s, t, m, v)
        shape = Constant<value_ints=[5, 3, 1, 1]>()
        folded = Reshape(w, shape)
        u = Conv(x, folded)
        y = Conv(u, last)
    }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"raw": (1, 5, 3), "s": (5,), "t": (5,), "m": (5,), "v": (5,), "last": (4, 5, 3, 3)}
    for name, shape in shapes.items():
        value = rng.uniform(0.5, 2.0, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx")
    weight = next(n for n in loaded.graph.nodes if n.op == "Conv").inputs[1].values
    raw, scale, bias = (numpy_helper.to_array(model.graph.initializer[i]) for i in range(3))
    by_hand = (raw - raw.mean((0, 2), keepdims=True)) / np.sqrt(raw.var((0, 2), keepdims=True) + 1e-5)
    wanted = by_hand * scale[None, :, None] + bias[None, :, None]
    np.testing.assert_allclose(weight.reshape(1, 5, 3), wanted, rtol=1e-4, atol=1e-5)
    assert [group.size for group in couple(loaded.twin).free().values()] == [5]


def test_an_operator_whose_attributes_do_not_fit_stays_whole(tmp_path: Path) -> None:
    """Whoever runs the model says what is wrong with it."""
    text = f"g {IMAGE} => (float[1,4,6,6] y) {{ a = Conv(x, w) s = Transpose<perm = [0,1,3,2]>(a) y = Conv(s, v) }}"
    it = solve(tmp_path, text, {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1)})
    assert not it.pin("w", 0)
    next(node for node in it.model.twin.nodes if node.op == "Transpose").attrs["perm"] = [0, 1, 9, 2]
    wrong = replace(it, coupling=couple(it.model.twin))
    assert "attributes and operands of Transpose are none that halpc knows" in wrong.pin("w", 0)
