"""Operators a vision network may be made of, by domain: what ONNX Runtime has, less what can hang it or reach out.

Left out: control flow (Loop never ends, Scan and SequenceMap run a graph as often as their input is long), sequences,
optionals, maps and strings (no picture classifier has them), ImageDecoder (a parser of its own), random numbers,
training and generation operators, operators in Python or of other runtimes (EPContext, Snpe, *_TRT).
"""


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_STANDARD = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitCast
BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im
Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd CumSum DFT DeformConv
DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten
Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity InstanceNormalization
IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul
MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shape Shrink
Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""

_MICROSOFT = """
Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu ConvTransposeWithDynamicPads DequantizeLinear DynamicQuantizeLSTM
DynamicQuantizeMatMul ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation GatherND Gelu GridSample
GroupNorm MatMulBnb4 MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits MaxpoolWithMask MulInteger
MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool Pad QAttention QGemm QLinearAdd QLinearAveragePool QLinearConcat
QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax
QLinearWhere QuantizeLinear QuickGelu Range ReduceSumInteger RotaryEmbedding ScaledSiLU SkipGroupNorm
SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul Trilu Unique
"""

OPERATORS: dict[str, frozenset[str]] = {
    "": words(_STANDARD),
    "com.microsoft": words(_MICROSOFT),
    # What a graph saved by ONNX Runtime's own optimizer holds on x86: blocked layouts.
    "com.microsoft.nchwc": words(
        "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample"
    ),
}
"""Domain -> operators that any model may use."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

MULTIPLIES = words(
    """Attention BatchNormalization Conv ConvInteger ConvTranspose ConvTransposeWithDynamicPads DeformConv
    DequantizeLinear Div Einsum FusedConv FusedGemm FusedMatMul FusedMatMulActivation GRU Gemm GroupNorm
    GroupNormalization InstanceNormalization LSTM LayerNormalization MatMul MatMulBnb4 MatMulFpQ4 MatMulNBits
    MultiHeadAttention Mul NhwcConv NhwcFusedConv PRelu QuantizeLinear RMSNormalization RNN
    SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul"""
)
"""Operators whose weights must be finite. Elsewhere infinity has a meaning: a mask, a bound, the value of a pad."""

SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6), "QLinearMul": (1, 4, 6), "QLinearAveragePool": (1, 3), "QLinearGlobalAveragePool": (1, 3),
    "QLinearLeakyRelu": (1, 3), "QLinearSigmoid": (1, 3), "QLinearSoftmax": (1, 3), "QLinearReduceMean": (1, 3),
    "QLinearWhere": (2, 5, 7), "QGemm": (1, 4, 7), "DynamicQuantizeMatMul": (2,), "MatMulIntegerToFloat": (2, 3),
    "QLinearConcat": (0, *range(3, 3 * 1024, 3)), "QAttention": (3, 4),
}  # fmt: skip
"""Operator -> which of its inputs are scales (ONNX and ONNX Runtime's ContribOperators.md)."""

POSITIVE_ATTRIBUTES = words(
    """bits block_size blocksize dilations group group_size groups hidden_size kernel_shape kv_num_heads num_groups
    num_heads num_outputs output_height output_width p q_num_heads size strides"""
)
"""Integer attributes that count something or are divided by; zero in some of them ends the process by SIGFPE."""
