"""What a `train` block may say: every loss, optimizer, schedule, augmentation and metric, with
its arguments, and the plain settings.

One record each, with defaults (PyTorch's where it has the thing) and what each value may be. The
language reads blocks by these tables, its reference is written from them, and training has a
builder under every name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast


class Needed:
    """The default of what has to be said; the only instance is NEEDED."""

    def __repr__(self) -> str:
        return "NEEDED"


NEEDED = Needed()


@dataclass(frozen=True, slots=True)
class Takes:
    """What a value may be: in words, as in "`lr` takes ...", and by test; what is `made` of it.

    choices: texts that may stand without quotes.
    """

    words: str
    fits: Callable[[Any], bool]
    made: Callable[[Any], Any] = lambda value: value
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, or one setting. `default` None: none."""

    name: str
    takes: Takes
    default: Any
    doc: str


@dataclass(frozen=True, slots=True)
class Technique:
    """One of several that a setting chooses from; arguments by position in this order.

    objects: what is wrong with arguments together, as in "`sgd` ...", or None.
    """

    name: str
    doc: str
    arguments: tuple[Argument, ...] = ()
    objects: Callable[[Mapping[str, Any]], str | None] = lambda arguments: None

    @property
    def takes(self) -> dict[str, Argument]:
        """Its arguments by name."""
        return {argument.name: argument for argument in self.arguments}

    def complete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments, those that are not given by their defaults. Raises KeyError for unknown
        ones, and for ones that are needed and not given."""
        unknown = arguments.keys() - self.takes.keys()
        if unknown or self.lacks(arguments):
            raise KeyError(*sorted(unknown), *self.lacks(arguments))
        return {a.name: arguments.get(a.name, a.default) for a in self.arguments}

    def lacks(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """What is needed and not given."""
        needed = (a.name for a in self.arguments if isinstance(a.default, Needed))
        return tuple(name for name in needed if name not in arguments)


Table: TypeAlias = Mapping[str, Technique]


# What values may be


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _items(value: Any) -> list[Any]:
    """The items of a list; none of what is no list."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _all(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value is a list, not empty, of what fits."""
    return bool(_items(value)) and all(map(fits, _items(value)))


def _is_size(value: Any) -> bool:
    return (_is_count(value) and value > 0) or (isinstance(value, tuple) and 0 not in value)


def _is_range(value: Any) -> bool:
    ends = _items(value)
    return len(ends) == 2 and all(map(_is_number, ends)) and 0 < ends[0] <= ends[1]


def one_of(*choices: str) -> Takes:
    """One of several words."""
    listed = " or ".join(f"`{choice}`" for choice in choices)
    return Takes(listed, lambda value: isinstance(value, str) and value in choices, choices=choices)


NUMBER = Takes("a number", _is_number)
WHOLE = Takes("a whole number, negative too", lambda v: isinstance(v, int) and _is_number(v))
RATE = Takes("a number of 0 or more", lambda v: _is_number(v) and v >= 0)
POSITIVE = Takes("a number above 0", lambda v: _is_number(v) and v > 0)
FRACTION = Takes("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1)
SHARE = Takes("a number from 0 up to, not including, 1", lambda v: _is_number(v) and 0 <= v < 1)
COUNT = Takes("a whole number", _is_count)
MANY = Takes("a whole number of 1 or more", lambda v: _is_count(v) and v > 0)
FLAG = Takes("true or false", lambda v: isinstance(v, bool))
COUNTS = Takes("a list of whole numbers", lambda v: isinstance(v, list) and _all(v, _is_count))
SIZE = Takes("a size, or a whole number", _is_size)
RANGE = Takes("a list of two numbers, [least, greatest]", _is_range)
RATES = Takes(
    "a number or a list of numbers of 0 or more", lambda v: RATE.fits(v) or _all(v, RATE.fits)
)
PATTERNS = Takes(
    "a name or a list of names",
    lambda v: _is_text(v) or _all(v, _is_text),
    lambda v: tuple(_items(v)) or (v,),
)
CLASS_WEIGHTS = Takes(
    "a list of numbers of 0 or more, or `balanced`",
    lambda v: (_all(v, RATE.fits) and any(v)) or (isinstance(v, str) and v == "balanced"),
    choices=("balanced",),
)


ALPHA = Takes("a number from 0 to 1, or -1", lambda v: FRACTION.fits(v) or v == -1)


def table(*techniques: Technique) -> Table:
    """Techniques by name."""
    return {technique.name: technique for technique in techniques}


# Losses

_CLASS_WEIGHTS = Argument(
    "class_weights",
    CLASS_WEIGHTS,
    None,
    "a weight for each class; `balanced`: the inverse of how often it occurs, 1 on average",
)
_IGNORE = Argument("ignore_index", WHOLE, -100, "positions with this label do not count")


_REDUCTION = Argument("reduction", one_of("mean", "sum"), "mean", "or the sum of what is averaged")
_BETA = Argument("beta", RATE, 1.0, "where it becomes linear; 0 is l1")

LOSSES: Table = table(
    Technique(
        "cross_entropy",
        "-log softmax(output)[label]; averaged over what counts, by weight. A target may also hold "
        "the share of each class",
        (
            Argument("label_smoothing", FRACTION, 0.0, "share of a target spread over all classes"),
            _CLASS_WEIGHTS,
            _IGNORE,
            _REDUCTION,
        ),
    ),
    Technique(
        "binary_cross_entropy",
        "of logits, against a target of 0 to 1 for each; averaged over all elements",
        (
            Argument("positive_weight", RATES, 1.0, "weight of ones; for all, or for each channel"),
            Argument("class_weights", RATES, 1.0, "weight of an element; for all, or by channel"),
            _REDUCTION,
        ),
    ),
    Technique("mse", "mean of squared differences", (_REDUCTION,)),
    Technique("l1", "mean of absolute differences", (_REDUCTION,)),
    Technique(
        "smooth_l1",
        "quadratic up to `beta`, then linear of slope 1; of boxes [x1, y1, x2, y2] too",
        (_BETA, _REDUCTION),
    ),
    Technique(
        "nll",
        "-output[label], of logarithms of probabilities",
        (_CLASS_WEIGHTS, _IGNORE, _REDUCTION),
    ),
    Technique(
        "dice",
        "1 - 2 |A and B| / (|A| + |B|) over space, of probabilities from logits; averaged over "
        "samples and classes",
        (Argument("eps", RATE, 1e-5, "added to both counts"), _IGNORE, _REDUCTION),
    ),
    Technique(
        "kl_divergence",
        "of a target's probabilities from softmax(output)",
        (
            Argument("log_target", FLAG, False, "the target is logarithms of probabilities"),
            Argument(
                "reduction",
                one_of("batchmean", "mean", "sum"),
                "batchmean",
                "mean over samples: the divergence; over all elements, as PyTorch does; the sum",
            ),
        ),
    ),
    Technique(
        "focal",
        "binary cross-entropy for each class, less where it is small already; Lin et al. 2017",
        (
            Argument("gamma", RATE, 2.0, "how much less: (1 - p) to this power"),
            Argument("alpha", ALPHA, 0.25, "weight of ones; that of zeros is 1 - alpha; -1: none"),
            _IGNORE,
            _REDUCTION,
        ),
    ),
    Technique(
        "huber",
        "quadratic up to `delta`, then linear of slope `delta`",
        (Argument("delta", POSITIVE, 1.0, "where it becomes linear"), _REDUCTION),
    ),
    Technique(
        "box",
        "smooth L1 of the box of the right class, summed over its numbers, averaged over regions; "
        "Girshick 2015, Fast R-CNN. A target is [class, four numbers]; class 0 has no box",
        (_BETA, _REDUCTION),
    ),
)


# Optimizers


def _common(lr: float, weight_decay: float = 0.0) -> tuple[Argument, ...]:
    return (
        Argument("lr", RATE, lr, "the learning rate, which the schedule changes"),
        Argument("weight_decay", RATE, weight_decay, "how much weights are drawn to zero"),
    )


def _adam(
    lr: float = 1e-3, weight_decay: float = 0.0, eps: float = 1e-8, beta2: float = 0.999
) -> tuple[Argument, ...]:
    return (*_common(lr, weight_decay), *_betas(beta2), _eps(eps))


def _betas(beta2: float) -> tuple[Argument, ...]:
    return (
        Argument("beta1", SHARE, 0.9, "decay of the gradients' mean"),
        Argument("beta2", SHARE, beta2, "decay of the second mean"),
    )


def _eps(eps: float) -> Argument:
    return Argument("eps", RATE, eps, "added to what is divided by")


def _momentum(default: float = 0.0) -> Argument:
    return Argument("momentum", FRACTION, default, "how much of the last step is repeated")


_AMSGRAD = Argument("amsgrad", FLAG, False, "divide by the largest second mean so far")

OPTIMIZERS: Table = table(
    Technique(
        "sgd",
        "gradient descent, with momentum or Nesterov's",
        (
            *_common(1e-3),
            _momentum(),
            Argument("dampening", FRACTION, 0.0, "how much less of a gradient enters the momentum"),
            Argument("nesterov", FLAG, False, "look ahead; needs momentum, no dampening"),
        ),
        lambda a: (
            "with `nesterov` needs `momentum`, and no `dampening`"
            if a["nesterov"] and (a["momentum"] == 0 or a["dampening"] != 0)
            else None
        ),
    ),
    Technique(
        "adagrad",
        "Duchi et al. 2011",
        (
            *_common(1e-2),
            Argument("lr_decay", RATE, 0.0, "the rate is divided by 1 + lr_decay * steps"),
            _eps(1e-10),
            Argument("initial", RATE, 0.0, "what the sums of squares start from"),
        ),
    ),
    Technique(
        "adadelta",
        "Zeiler 2012",
        (*_common(1.0), Argument("rho", SHARE, 0.9, "decay of the mean squares"), _eps(1e-6)),
    ),
    Technique(
        "rmsprop",
        "Hinton 2012, lecture 6e",
        (
            *_common(1e-2),
            Argument("alpha", SHARE, 0.99, "decay of the mean squares"),
            _momentum(),
            _eps(1e-8),
            Argument("centered", FLAG, False, "divide by the deviation instead"),
        ),
    ),
    Technique("adam", "Kingma, Ba 2015", (*_adam(), _AMSGRAD)),
    Technique(
        "adamw",
        "Adam with a decay of its own; Loshchilov, Hutter 2019",
        (*_adam(weight_decay=1e-2), _AMSGRAD),
    ),
    Technique("adamax", "Adam by the infinity norm; Kingma, Ba 2015", _adam(lr=2e-3)),
    Technique(
        "nadam",
        "Adam with Nesterov's momentum; Dozat 2016",
        (*_adam(lr=2e-3), Argument("momentum_decay", RATE, 4e-3, "how fast the momentum comes")),
    ),
    Technique("radam", "Adam, rectified; Liu et al. 2020", _adam()),
    Technique(
        "lion",
        "by signs; Chen et al. 2023",
        (*_common(1e-4), *_betas(0.99)),
    ),
    Technique("lamb", "Adam, layer by layer; You et al. 2020", _adam(eps=1e-6)),
    Technique(
        "lars",
        "SGD, layer by layer; You et al. 2017",
        (
            *_common(1e-1),
            _momentum(0.9),
            Argument("trust", RATE, 1e-3, "step of a layer in shares of its norm"),
        ),
    ),
    Technique("amsgrad", "Adam with `amsgrad = true`; Reddi et al. 2018", _adam()),
    Technique(
        "adabound",
        "Adam between bounds that close; Luo et al. 2019",
        (
            *_adam(),
            Argument("final_lr", RATE, 0.1, "where the bounds close, at the rate `lr`"),
            Argument("gamma", POSITIVE, 1e-3, "how fast they close"),
        ),
    ),
)


# Schedules

_WARMUP = Argument("warmup", RATE, 0.0, "epochs, or parts of one, in which the rate grows to `lr`")
_MINIMUM = Argument("minimum", RATE, 0.0, "the rate at the end")


def _factor(default: Any) -> Argument:
    return Argument("factor", FRACTION, default, "what the rate is multiplied by")


SCHEDULES: Table = table(
    Technique("constant", "`lr` throughout", (_WARMUP,)),
    Technique(
        "step",
        "less every so many epochs",
        (Argument("every", MANY, NEEDED, "epochs between drops"), _factor(0.1), _WARMUP),
    ),
    Technique(
        "multistep",
        "less at some epochs",
        (
            Argument("at", COUNTS, NEEDED, "epochs, counted from 0, that begin with a lower rate"),
            _factor(0.1),
            _WARMUP,
        ),
    ),
    Technique("exponential", "less every epoch", (_factor(NEEDED), _WARMUP)),
    Technique("cosine", "half a cosine from `lr` to the minimum", (_WARMUP, _MINIMUM)),
    Technique("linear", "a line from `lr` to the minimum", (_WARMUP, _MINIMUM)),
    Technique(
        "polynomial",
        "(1 - t)**power from `lr` to the minimum",
        (Argument("power", POSITIVE, 1.0, "its degree"), _WARMUP, _MINIMUM),
    ),
    Technique(
        "one_cycle",
        "half cosines up to the peak and down again; Smith, Topin 2018",
        (
            Argument("warmup", RATE, None, "epochs of the way up; 0.3 of all of them"),
            Argument("peak", POSITIVE, None, "the highest rate; `lr`"),
            Argument("divide", POSITIVE, 25.0, "it starts at peak / divide"),
            Argument("final_divide", POSITIVE, 1e4, "it ends at the start / final_divide"),
        ),
    ),
    Technique(
        "plateau",
        "less where the validation loss stays",
        (
            _factor(0.1),
            Argument("patience", COUNT, 10, "epochs without improvement that pass"),
            Argument("threshold", SHARE, 1e-4, "share by which it must fall to be an improvement"),
            Argument("cooldown", COUNT, 0, "epochs after a drop that are not counted"),
            Argument("minimum", RATE, 0.0, "the lowest rate"),
            _WARMUP,
        ),
    ),
)


# Augmentations

_ODDS = Argument("probability", FRACTION, 0.5, "how often")
_SIZE = Argument("size", SIZE, None, "of the result; the model's input")
_AREA = Argument("scale", RANGE, [0.08, 1.0], "share of the image's area")
_RATIO = Argument("ratio", RANGE, [3 / 4, 4 / 3], "width / height")


def _jitter(name: str) -> Argument:
    return Argument(name, RATE, 0.0, "times 1 - amount to 1 + amount")


AUGMENTATIONS: Table = table(
    Technique(
        "random_crop",
        "a part, where chance has it",
        (_SIZE, Argument("pad", COUNT, 0, "zeros added on all sides before")),
    ),
    Technique(
        "random_resized_crop", "a part of any size and shape, resized", (_SIZE, _AREA, _RATIO)
    ),
    Technique("horizontal_flip", "left and right exchanged", (_ODDS,)),
    Technique("vertical_flip", "top and bottom exchanged", (_ODDS,)),
    Technique(
        "rotate",
        "around the middle",
        (Argument("degrees", RATE, NEEDED, "at most, either way"),),
    ),
    Technique(
        "color_jitter",
        "other light",
        (
            _jitter("brightness"),
            _jitter("contrast"),
            _jitter("saturation"),
            Argument("hue", RATE, 0.0, "turned by -amount to amount; 0.5 is half the circle"),
        ),
    ),
    Technique(
        "erase",
        "a rectangle of zeros; Zhong et al. 2020",
        (
            _ODDS,
            Argument("scale", RANGE, [0.02, 0.33], "share of the image's area"),
            Argument("ratio", RANGE, [0.3, 3.3], "width / height"),
        ),
    ),
    Technique(
        "mixup",
        "with another of the batch, and so the labels; Zhang et al. 2018",
        (Argument("alpha", RATE, 1.0, "of the beta distribution; 0 changes nothing"),),
    ),
    Technique(
        "cutmix",
        "a part of another of the batch, and of the labels; Yun et al. 2019",
        (Argument("alpha", RATE, 1.0, "of the beta distribution; 0 changes nothing"),),
    ),
    Technique(
        "affine",
        "turned, moved, scaled and sheared around the middle",
        (
            Argument("degrees", RATE, 0.0, "at most, either way"),
            Argument("translate", RATES, 0.0, "at most, in shares of the size; or [down, across]"),
            Argument("scale", RANGE, [1.0, 1.0], "least and greatest"),
            Argument("shear", RATE, 0.0, "degrees at most, either way"),
        ),
    ),
    Technique(
        "elastic",
        "moved smoothly, by draws on a coarse grid; Ronneberger et al. 2015",
        (
            Argument("deviation", RATE, 10.0, "of the draws, in pixels"),
            Argument("grid", MANY, 3, "draws along each axis"),
        ),
    ),
    Technique(
        "mirror_pad",
        "more on all sides, mirrored",
        (Argument("pad", COUNT, NEEDED, "pixels on every side"),),
    ),
    Technique(
        "cutout",
        "a square of zeros; DeVries, Taylor 2017",
        (Argument("size", MANY, NEEDED, "of its side, in pixels"),),
    ),
)


# Metrics

_AVERAGE = Argument(
    "average", one_of("macro", "micro"), "macro", "over classes alike, or over all that is counted"
)

METRICS: Table = table(
    Technique(
        "accuracy",
        "share of labels among the `top` guesses",
        (Argument("top", MANY, 1, "how many guesses"), _IGNORE),
    ),
    Technique("precision", "share of the guesses of a class that are right", (_AVERAGE, _IGNORE)),
    Technique("recall", "share of a class that is guessed", (_AVERAGE, _IGNORE)),
    Technique("f1", "harmonic mean of the two, class by class", (_AVERAGE, _IGNORE)),
    Technique("mean_absolute_error", "of numbers"),
    Technique("mean_squared_error", "of numbers"),
    Technique(
        "intersection_over_union",
        "of masks, mean over the classes and each of them; of boxes [x1, y1, x2, y2]",
        (_IGNORE,),
    ),
    Technique("confusion_matrix", "counts: a row for a label, a column for a guess", (_IGNORE,)),
)


# Settings

GROUPS: Table = table(
    Technique(
        "group",
        "parameters that are trained otherwise; the first group that names one holds",
        (
            Argument("parameters", PATTERNS, NEEDED, "names, or those of layers, with wildcards"),
            Argument("lr_factor", RATE, 1.0, "times the rate of all"),
            Argument("weight_decay", RATE, None, "instead of the optimizer's"),
        ),
    ),
)

SETTINGS: Mapping[str, Argument] = {
    setting.name: setting
    for setting in (
        Argument("epochs", COUNT, 10, "how often all samples are seen"),
        Argument("batch", MANY, 64, "samples a step"),
        Argument("seed", COUNT, 0, "of initial weights, order, augmentation and dropout"),
        Argument("clip", RATE, None, "the greatest norm of all gradients together"),
        Argument("clip_value", RATE, None, "the greatest magnitude of an element of a gradient"),
        Argument("l1", RATE, 0.0, "gradient of so many times the sum of the weights' magnitudes"),
        Argument("l2", RATE, 0.0, "gradient of so many times half the sum of their squares"),
        Argument("decay_all", FLAG, False, "decay, `l1` and `l2` are for biases and norms too"),
        Argument("freeze", PATTERNS, (), "parameters, or layers, that stay as they are"),
        Argument("accumulate", MANY, 1, "batches whose gradients are averaged for one update"),
        Argument("ema", SHARE, None, "decay of averaged weights, which are validated and kept"),
        Argument("patience", MANY, None, "epochs without improvement after which training ends"),
        Argument("val_fraction", SHARE, 0.1, "share of the samples that validate"),
        Argument("fit", one_of("resize", "pad"), "resize", "images smaller than the input: how"),
    )
}
"""Settings that are one value; the default is what holds where a block says nothing."""

ONE_OF: Mapping[str, Table] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
SOME_OF: Mapping[str, Table] = {"augment": AUGMENTATIONS, "metrics": METRICS, "groups": GROUPS}
"""Settings that choose one technique, or several."""
