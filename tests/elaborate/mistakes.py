"""A catalogue of mistakes that authors make. Each has a golden diagnostic in golden/diagnostics/.

`suggestion` is what the help has to say; None where the message says it all. BODY cases stand in a
model with an input x of 64 channels and 56 x 56 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    name: str
    text: str
    code: str
    suggestion: str | None = None
    whole: bool = False  # the text is a whole file

    @property
    def source(self) -> str:
        if self.whole:
            return self.text
        return f"model m {{\n    input x: f32[N, 64, 56, 56]\n{_indented(self.text)}\n}}\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


BOTTLENECK = """\
block bottleneck(width, stride = 1) {
    body = in -> conv(width, 1x1) -> bn -> relu
              -> conv(width, 3x3, stride) -> bn -> relu
              -> conv(4 * width, 1x1) -> bn
    skip = in
    out  = body + skip -> relu
}

block stage(width) { bottleneck(width) }

model m {
    input x: f32[N, 64, 56, 56]
    x -> stage(width = 64)
}
"""

MISTAKES = (
    # Names
    Mistake("operator-typo", "x -> con(64, 3x3)", "E0201", "`conv`"),
    Mistake("operator-case", "x -> ReLU", "E0201", "`relu`"),
    Mistake("operator-of-pytorch", "x -> BatchNorm2d", "E0201", "`batchnorm`"),
    Mistake("variable-typo", "features = x -> relu\nfeatres -> relu", "E0201", "`features`"),
    Mistake("block-typo", "block bottleneck { relu }\nmodel m {\n    input x: f32[N, 3]\n"
            "    x -> botleneck\n}\n", "E0201", "`bottleneck`", whole=True),
    Mistake("function-typo", "let a = rond_to(30, 8)\nx -> relu", "E0201", "`round_to`"),
    Mistake("loop-variable-outside", "x -> for i in range(2) { relu }\n  -> conv(j, 1x1)", "E0201"),
    Mistake("default-of-a-block", "block b { relu }\ndefault b(width = 3)\nmodel m {\n"
            "    input x: f32[N, 3]\n    x -> b\n}\n", "E0201", whole=True),
    Mistake("default-typo", "default bathc_norm(eps = 1e-3)\nmodel m {\n"
            "    input x: f32[N, 3]\n    x -> relu\n}\n", "E0201", "`batch_norm`", whole=True),
    Mistake("defined-twice", "block a { relu }\nblock a { relu6 }\nmodel m {\n"
            "    input x: f32[N, 3]\n    x -> a\n}\n", "E0202", whole=True),
    Mistake("parameter-twice", "block a(w, w) { relu }\nmodel m {\n    input x: f32[N, 3]\n"
            "    x -> relu\n}\n", "E0202", whole=True),
    Mistake("layer-name-in-a-loop", "x -> for i in range(2) { conv(64, 3x3) as c }", "E0203",
            'as "name{i}"'),
    Mistake("layer-name-with-a-dot", 'x -> relu as "a.b"', "E0204", "letters, digits"),
    Mistake("name-on-a-loop", "x -> (repeat 2 { relu }) as stage", "E0204", "scope NAME"),
    # Arguments
    Mistake("keyword-typo", "x -> conv(64, 3x3, strid = 2)", "E0301", "`stride`"),
    Mistake("keyword-of-pytorch", "x -> conv(64, kernel_size = 3x3)", "E0301", "`kernel`"),
    Mistake("padding-of-pytorch", "x -> conv(64, 3x3, padding = 1)", "E0301", "`pad`"),
    Mistake("keyword-of-a-block", "block b(width, depth) { relu }\nmodel m {\n"
            "    input x: f32[N, 3]\n    x -> b(widht = 3, depth = 2)\n}\n", "E0301", "`width`",
            whole=True),
    Mistake("kernel-missing", "x -> conv(64)", "E0302", "filter size"),
    Mistake("parameter-missing", "block b(width) { conv(width, 1x1) }\nmodel m {\n"
            "    input x: f32[N, 3, 8, 8]\n    x -> b\n}\n", "E0302", whole=True),
    Mistake("model-parameter-without-default", "model m(classes) {\n    input x: f32[N, 3]\n"
            "    x -> linear(classes)\n}\n", "E0302", "classes = ...", whole=True),
    Mistake("too-many-arguments", "x -> flatten(1, 2, 3)", "E0303"),
    Mistake(
        "operator-hidden",
        "model linear {\n    input x: f32[N, 4]\n    x -> linear(3)\n}\n",
        "E0303",
        "hides the operator",
        whole=True,
    ),
    Mistake("keyword-only", "x -> bn(1e-3)", "E0303", "by keyword only: eps"),
    Mistake("argument-twice", "x -> conv(64, 3x3, kernel = 5x5)", "E0304"),
    Mistake("channels-not-whole", "x -> conv(64 * 0.7, 3x3)", "E0305", "round_to"),
    Mistake("negative-stride", "x -> conv(64, 3x3, stride = -1)", "E0305"),
    Mistake("padding-word", "x -> conv(64, 3x3, pad = smae)", "E0305", "`same`"),
    Mistake("padding-mode", "x -> conv(64, 3x3, pad_mode = mirror)", "E0305"),
    Mistake("boolean-as-text", 'x -> conv(64, 3x3, bias = "no")', "E0305"),
    Mistake("kernel-as-a-list-of-lists", "x -> conv(64, [[3, 3]])", "E0305"),
    Mistake("repeat-a-fraction", "x -> repeat 7 / 2 { relu }", "E0305"),
    # Flow
    Mistake("tensor-as-a-layer", "y = x -> relu\nx -> y", "E0306", "join tensors"),
    Mistake("calling-a-number", "let w = 3\nlet v = w(4)\nx -> relu", "E0306"),
    Mistake("function-as-a-layer", "x -> round_to(8)", "E0306"),
    Mistake("one-tensor-to-add", "x -> add", "E0307"),
    Mistake("two-tensors-to-relu", "[x, x] -> relu", "E0307"),
    Mistake("two-tensors-to-a-block", "block b { relu }\nmodel m {\n    input x: f32[N, 3]\n"
            "    b(x, x)\n}\n", "E0307", "input a, b", whole=True),
    Mistake("layer-bound-as-a-tensor", "y = conv(64, 3x3)\nx + y", "E0408", "let y = ..."),
    Mistake("layer-in-a-sum", "x + conv(64, 3x3)", "E0401", "in -> ..."),
    Mistake("block-without-a-result", "block b {\n    y = in -> relu\n}\nmodel m {\n"
            "    input x: f32[N, 3]\n    x -> b\n}\n", "E0408", "bind `out`", whole=True),
    Mistake("result-not-used", "x -> conv(64, 3x3)\nx -> relu", "E0409", "bind it"),
    Mistake("no-in-with-two-inputs", "model m {\n    input a, b: f32[N, 3]\n    in -> relu\n}\n",
            "E0408", "name the input", whole=True),
    # Values
    Mistake("text-plus-number", 'let a = "layer" + 1\nx -> relu', "E0401"),
    Mistake("loop-over-a-number", "x -> for i in 3 { relu }", "E0401", "range(3)"),
    Mistake("comparing-tensors", "x -> if x > 0 { relu }", "E0401", "x.channels"),
    Mistake("undecided", "assert x.batch == 1\nx -> relu", "E0402", "where N == 1"),
    Mistake("uneven-half", "let half_batch = x.batch / 2\nx -> relu", "E0402", "N % 2 == 0"),
    Mistake("condition-is-a-number", "x -> if x.channels { relu }", "E0403"),
    Mistake("attribute-typo", "x -> conv(x.chanels, 3x3)", "E0404", "`channels`"),
    Mistake("division-by-zero", "let a = 1 / 0\nx -> relu", "E0405"),
    Mistake("index-outside", "let a = [1, 2][2]\nx -> relu", "E0405"),
    Mistake("assertion", 'assert x.channels % 3 == 0, "{x.channels} channels in 3 groups"\n'
            "x -> relu", "E0406"),
    Mistake("too-few-names", "a, b = [x, x, x]\na + b", "E0407"),
    # Shapes
    Mistake("skip-of-other-channels", BOTTLENECK, "E0501", "project the skip with conv(256, 1x1)",
            whole=True),
    Mistake("skip-of-other-size", "y = x -> conv(64, 3x3, stride = 2)\ny + x", "E0501",
            "conv(64, 1x1, stride = 2)"),
    Mistake("concat-of-other-size", "concat(x, x -> maxpool(2))", "E0501"),
    Mistake("groups-do-not-divide", "x -> conv(128, 3x3, groups = 7)", "E0501"),
    Mistake("window-too-large", "x -> avgpool(64x64)", "E0501"),
    Mistake("even-kernel", "x -> conv(64, 4x4)", "E0501", "pad = same"),
    Mistake("kernel-of-three-axes", "x -> conv(64, 3x3x3)", "E0501"),
    Mistake("conv-after-flatten", "x -> flatten -> conv(64, 3x3)", "E0501"),
    Mistake("shared-weights-do-not-fit", "let f = conv(32, 3x3)\nx -> f -> f", "E0501",
            "make two layers"),
    Mistake("skip-of-open-size", "model unet {\n    input x: f32[N, 8, H, W]\n"
            "    up = x -> maxpool(2) -> conv_transpose(8, 2x2, stride = 2)\n    x + up\n}\n",
            "E0501", "% 2 == 0", whole=True),
    # Models
    Mistake("no-model", "block b { relu }\n", "E0601", "model NAME", whole=True),
    Mistake("element-type", "model m {\n    input x: float32[N, 3]\n    x -> relu\n}\n", "E0602",
            "`f32`", whole=True),
    Mistake("input-without-a-type", "model m {\n    input x\n    x -> relu\n}\n", "E0602",
            "f32[N, 3, 224, 224]", whole=True),
    Mistake("constraint", "model m {\n    input x: f32[N, 3, H, H] where H / 32 == 7\n"
            "    x -> relu\n}\n", "E0603", "H % 32 == 0", whole=True),
    Mistake("no-output", "model m {\n    input x: f32[N, 3]\n    y = x -> relu\n}\n", "E0604",
            "-> output NAME", whole=True),
    Mistake("output-twice", "x -> relu -> output y\nx -> relu6 -> output y", "E0604"),
    # Text
    Mistake("comma-missing", "x -> conv(64 3x3)", "E0101", "separate them with a comma"),
    Mistake("size-with-spaces", "x -> conv(64, 3 x 3)", "E0101", "one word (`3x3`)"),
    Mistake("assignment-in-a-condition", "x -> if x.rank = 4 { relu }", "E0101", "`==`"),
    Mistake("keyword-as-a-name", "output = x -> relu", "E0101"),
    Mistake("colon-for-a-body", "x -> if true: relu", "E0101", "braces"),
    Mistake("python-def", "def block(x) {\n    relu\n}\n", "E0101", "write `block NAME",
            whole=True),
    Mistake("return", "block b {\n    y = in -> relu\n    return y\n}\n", "E0101",
            "the last value", whole=True),
    Mistake("elif", "x -> if true { relu } elif false { relu6 }", "E0101", "else if"),
    Mistake("python-import", "from blocks import bottleneck\n", "E0101", "use", whole=True),
    Mistake("unclosed-brace", "block a { relu\n\nmodel m {\n    input x: f32[N, 3]\n"
            "    x -> a\n}\n", "E0102", whole=True),
    Mistake("mismatched-bracket", "x -> conv(64, [3, 3)", "E0102"),
    Mistake("semicolon", "x -> relu; y = x", "E0103", "newline"),
    Mistake("single-quotes", "x -> relu as 'act'", "E0103", "double quotes"),
    Mistake("and-as-in-c", "x -> if true && false { relu }", "E0103", "`and`"),
    Mistake("unfinished-text", 'x -> relu as "act', "E0104"),
    # Habits from elsewhere
    Mistake("arrow-forgotten", "x conv(64, 3x3) -> relu", "E0101", "`x -> conv`"),
    Mistake("sum-in-a-chain", "x -> conv(64, 1x1) + x -> relu", "E0401", "binds loosest"),
    Mistake("slice", "let w = [1, 2, 3]\nx -> for k in w[1:] { conv(k, 3x3) }", "E0101",
            "for i in range(1, len(a))"),
    Mistake("tuple", "x -> conv(64, (3, 3))", "E0101", "`3x3`"),
    Mistake("ends-with-a-binding", "y = x -> conv(64, 3x3)", "E0604", "or just `y`"),
    Mistake("python-true", "x -> conv(64, 3x3, bias = True)", "E0201", "write `true`"),
    Mistake("python-none", "x -> conv(64, 3x3, bias = None)", "E0201", "leave the argument out"),
    Mistake("return-in-one-line", "block b { return in }\n", "E0101", "the last value",
            whole=True),
    Mistake("lambda", "let f = lambda y: y\nx -> f", "E0101", "write `block NAME"),
    Mistake("depthwise", "x -> depthwise_conv(3x3)", "E0201", "groups = in.channels"),
    Mistake("global-pooling", "x -> global_avg_pool -> flatten", "E0201", "avgpool(global)"),
    Mistake("dense", "x -> flatten -> Dense(10)", "E0201", "linear"),
    Mistake("scale-factor", "x -> upsample(scale_factor = 2)", "E0301", "`scale`"),
    Mistake("dim", "concat(x, x, dim = 1)", "E0301", "`axis`"),
    Mistake("in-channels", "x -> conv(64, 3x3, in_channels = 64)", "E0301", "leave it out"),
    Mistake("colon-for-a-keyword", "x -> conv(64, 3x3, stride: 2)", "E0101", "`stride = ...`"),
    Mistake("fat-arrow", "x => relu", "E0101", "write `->`"),
    Mistake("augmented-assignment", "y = x -> relu\ny += x\ny -> relu6", "E0101", "`y = y + ...`"),
    Mistake("slashes-for-a-comment", "x -> relu // activation", "E0201", "starts with `#`"),
    Mistake("f-string", 'x -> relu as f"a"', "E0101", "every text interpolates"),
    Mistake("too-many-for-a-block", "block b(w) { conv(w, 3x3) }\nmodel m {\n"
            "    input x: f32[N, 3, 8, 8]\n    x -> b(8, 3x3, 2)\n}\n", "E0303", whole=True),
    Mistake("constraints-contradict", "model m {\n"
            "    input x: f32[N, 3, H] where H % 8 == 0 and H % 16 == 3\n    x -> relu\n}\n",
            "E0603", whole=True),
    Mistake("constraint-on-another-size", "model m {\n"
            "    input x: f32[N, 3, H, W] where K % 8 == 0\n    x -> relu\n}\n", "E0603",
            "N, H, W", whole=True),
    Mistake("zoo-file-typo", 'use "zoo:resnt.cnn": bottleneck\nmodel m {\n'
            "    input x: f32[N, 64, 8, 8]\n    x -> bottleneck(64)\n}\n", "E0701",
            "`resnet.cnn`", whole=True),
    # Around the network
    Mistake("preprocessing-of-another-input", "model m {\n    input image: f32[N, 3, 8, 8]\n"
            "    preprocess imag: resize(8)\n    image -> relu\n}\n", "E0901", "`image`",
            whole=True),
    Mistake("weighted-loss", "model m {\n    input x: f32[N, 3]\n    x -> relu -> output y\n}\n"
            "train { loss = 0.4 * mze(y, target) }\n", "E0903", "`mse`", whole=True),
    Mistake("preprocessing-step", "model m {\n    input image: f32[N, 3, 8, 8]\n"
            "    preprocess image: center_corp(8)\n    image -> relu\n}\n", "E0901",
            "`center_crop`", whole=True),
    Mistake("filter", "model m {\n    input image: f32[N, 3, 8, 8]\n"
            "    preprocess image: resize(8, bicubik)\n    image -> relu\n}\n", "E0901",
            "`bicubic`", whole=True),
    Mistake("optimizer-typo", "model m {\n    input x: f32[N, 3]\n    x -> relu\n}\n"
            "train { optimizer = adamm(lr = 0.1) }\n", "E0903", "`adam`", whole=True),
    Mistake("optimizer-argument", "model m {\n    input x: f32[N, 3]\n    x -> relu\n}\n"
            "train { optimizer = sgd(lr = 0.1, momentun = 0.9) }\n", "E0903", "`momentum`",
            whole=True),
    Mistake("training-setting", "model m {\n    input x: f32[N, 3]\n    x -> relu\n}\n"
            "train { optimiser = sgd(lr = 0.1) }\n", "E0903", "`optimizer`", whole=True),
)  # fmt: skip
