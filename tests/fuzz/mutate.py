"""Changes to make to a legal file: of its bytes, or, for models, of its graph."""

import random

import onnx
from onnx import TensorProto

INTERESTING = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    65535,
    1 << 20,
    1 << 31,
    (1 << 63) - 1,
    -(1 << 63),
    -(1 << 31),
)
WORDS = (
    b"null",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"[[",
    b"\xff",
    b"\x00",
    b"\\ud800",
    b"9" * 400,
)


def mutate_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return ``data`` with one to eight small changes."""
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        place, size = rng.randrange(len(out) + 1), 1 << rng.randrange(6)
        kind = rng.randrange(8)
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            del out[place : place + size]
        elif kind == 3:
            out[place:place] = out[place : place + size]
        elif kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[place : place + size] = other[start : start + size]
        elif kind == 5:
            word = rng.choice(WORDS)
            out[place : place + rng.choice((0, len(word)))] = word
        elif kind == 6:
            value = rng.choice(INTERESTING) & ((1 << 64) - 1)
            width = rng.choice((1, 2, 4, 8))
            out[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
        elif rng.random() < 0.2:
            del out[place:]
    return bytes(out)


def mutate_model(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a model with one to four changes of its graph; now and then of its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, others, rng)
    try:
        proto = onnx.load_model_from_string(data)
    except Exception:  # what an earlier change of bytes has broken
        return mutate_bytes(data, others, rng)
    for _ in range(1 << rng.randrange(3)):
        _change(proto, others, rng)
    return proto.SerializeToString()


def _change(proto: onnx.ModelProto, others: list[bytes], rng: random.Random) -> None:
    nodes, tensors = proto.graph.node, proto.graph.initializer
    if not nodes:
        return
    node = rng.choice(nodes)
    kind = rng.randrange(9)
    if kind == 0 and node.attribute:
        _change_attribute(rng.choice(node.attribute), rng)
    elif kind == 1 and tensors:
        _change_tensor(rng.choice(tensors), rng)
    elif kind == 2 and node.input:
        names = [n for x in nodes for n in (*x.input, *x.output)]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 3:
        node.op_type = rng.choice(_OPERATORS)
    elif kind == 4:
        known = next((n for n in nodes if n.attribute), node)
        name = rng.choice(_ATTRIBUTES)
        if not any(a.name == name for a in known.attribute):
            value = (
                rng.choice(INTERESTING)
                if rng.random() < 0.5
                else [rng.choice(INTERESTING) for _ in range(rng.randrange(1, 5))]
            )
            node.attribute.append(onnx.helper.make_attribute(name, value))
    elif kind == 5:
        dims = proto.graph.input[0].type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice((0, 1, 2, 3, 9, 64))
    elif kind == 6:
        proto.opset_import[0].version = rng.randrange(7, 25)
    elif kind == 7:
        other = onnx.load_model_from_string(rng.choice(others))
        node.CopyFrom(rng.choice(other.graph.node))
    else:
        nodes.remove(node)


def _change_attribute(attribute: onnx.AttributeProto, rng: random.Random) -> None:
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice(INTERESTING)
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTERESTING)
        if rng.random() < 0.2:
            attribute.ints.append(rng.choice(INTERESTING))
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))


def _change_tensor(tensor: TensorProto, rng: random.Random) -> None:
    if rng.random() < 0.3 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, 1, 2, 4, 7))
    elif rng.random() < 0.3:
        tensor.data_type = rng.choice((1, 2, 3, 6, 7, 9, 10, 11, 16))
    if tensor.data_type == TensorProto.INT64 and len(tensor.raw_data) >= 8:
        place = 8 * rng.randrange(len(tensor.raw_data) // 8)
        value = (rng.choice(INTERESTING) & ((1 << 64) - 1)).to_bytes(8, "little")
        tensor.raw_data = tensor.raw_data[:place] + value + tensor.raw_data[place + 8 :]
    elif tensor.raw_data:
        place = rng.randrange(len(tensor.raw_data))
        tensor.raw_data = tensor.raw_data[:place] + bytes([rng.randrange(256)]) + tensor.raw_data[place + 1 :]


_OPERATORS_TEXT = """
Add Mul Div Mod Pow Min Max Sum Concat Gather GatherND ScatterND Reshape Transpose Tile Expand Pad Slice Split Conv
ConvInteger MatMulInteger ConvTranspose MaxPool AveragePool LpPool GlobalMaxPool LRN InstanceNormalization
LayerNormalization GroupNormalization Softmax LogSoftmax Hardmax ArgMax TopK OneHot NonZero Range CumSum Where
Resize Upsample DepthToSpace SpaceToDepth GridSample RoiAlign MaxUnpool Col2Im EyeLike Trilu Unique ReduceSum
ReduceProd ReduceLogSumExp Einsum Gemm MatMul DequantizeLinear QuantizeLinear DynamicQuantizeLinear QLinearMatMul
NonMaxSuppression LSTM GRU RNN ReverseSequence Compress CenterCropPad AffineGrid Det DFT BitShift Dropout Flatten
Unsqueeze Squeeze Shape Size Identity Cast CastLike Attention RotaryEmbedding
"""
_OPERATORS = _OPERATORS_TEXT.split()

_ATTRIBUTES_TEXT = """
axis axes keepdims strides pads dilations group kernel_shape ceil_mode count_include_pad storage_order blocksize
allowzero perm num_outputs block_size to batch_dims exclusive reverse hidden_size direction k largest sorted start
end p num_heads q_num_heads kv_num_heads output_height output_width sampling_ratio size channels_last output_padding
output_shape transA transB select_last_index num_groups fmod inverse onesided
"""
_ATTRIBUTES = _ATTRIBUTES_TEXT.split()
