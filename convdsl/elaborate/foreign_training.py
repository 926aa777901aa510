"""Words of other frameworks for how networks are trained, and what stands for them here."""

from __future__ import annotations

from collections.abc import Collection, Mapping

STEPS = {
    "totensor": "write rescale(1 / 255) where pixels are to be 0 to 1; images are tensors already",
    "randomcrop": "what is drawn by chance is for training: train { augment = random_crop(...) }",
    "randomhorizontalflip": (
        "what is drawn by chance is for training: train { augment = horizontal_flip }"
    ),
}
"""Steps that prepare images, in lower case without `_`."""

_TRAINED_BY = ("device", "precision", "amp", "workers", "threads", "resume", "out", "data", "val",
               "weights", "nproc", "tensorboard", "overwrite")  # fmt: skip

SETTINGS = {
    "earlystopping": "patience",
    "valsplit": "val_fraction",
    "validationsplit": "val_fraction",
    "validation": "val_fraction",
    "numepochs": "epochs",
    "iterations": "epochs",
    "gradientaccumulation": "accumulate",
    "maxnorm": "clip",
    "averaging": "ema",
    "transforms": "augment",
    "augmentation": "augment",
    "criterion": "loss",
    "scheduler": "schedule",
}
"""Settings of training, in lower case without `_`."""

TECHNIQUES_TAKE = {
    "learningrate": "lr",
    "rate": "lr",
    "weight": "class_weights",
    "weights": "class_weights",
    "posweight": "positive_weight",
    "smoothing": "label_smoothing",
    "stepsize": "every",
    "milestones": "at",
    "gamma": "factor",
    "decay": "factor",
    "maxlr": "peak",
    "etamin": "minimum",
    "minlr": "minimum",
    "warmupepochs": "warmup",
    "epsilon": "eps",
    "p": "probability",
    "prob": "probability",
    "l2": "weight_decay",
    "boundaries": "at",
    "lr": "lr_factor",
}
"""Arguments of optimizers, schedules, losses and augmentations."""


TECHNIQUES: Mapping[str, Mapping[str, str]] = {
    "loss": {
        "categoricalcrossentropy": "cross_entropy",
        "sparsecategoricalcrossentropy": "cross_entropy",
        "softmaxcrossentropy": "cross_entropy",
        "softmaxcrossentropywithlogits": "cross_entropy",
        "bce": "binary_cross_entropy",
        "bcewithlogits": "binary_cross_entropy",
        "sigmoidcrossentropy": "binary_cross_entropy",
        "binarycrossentropywithlogits": "binary_cross_entropy",
        "logistic": "binary_cross_entropy",
        "meansquarederror": "mse",
        "meansquared": "mse",
        "l2": "mse",
        "meanabsoluteerror": "l1",
        "mae": "l1",
        "negativeloglikelihood": "nll",
        "kld": "kl_divergence",
        "kldiv": "kl_divergence",
        "kullbackleibler": "kl_divergence",
    },
    "optimizer": {"momentum": "sgd", "nesterov": "sgd", "gradientdescent": "sgd"},
    "schedule": {
        "reducelronplateau": "plateau",
        "reduceonplateau": "plateau",
        "cosineannealing": "cosine",
        "cosineannealinglr": "cosine",
        "poly": "polynomial",
        "piecewiseconstant": "multistep",
        "superconvergence": "one_cycle",
    },
    "augmentation": {
        "fliplr": "horizontal_flip",
        "hflip": "horizontal_flip",
        "flipud": "vertical_flip",
        "vflip": "vertical_flip",
        "jitter": "color_jitter",
        "brightness": "color_jitter",
        "brightnesscontrast": "color_jitter",
        "erasing": "erase",
        "rotation": "rotate",
        "translation": "affine",
        "zoom": "affine",
        "elastictransform": "elastic",
    },
    "metric": {
        "acc": "accuracy",
        "top1": "accuracy",
        "top5": "accuracy(top = 5)",
        "topk": "accuracy(top = 5)",
        "topkaccuracy": "accuracy(top = 5)",
        "iou": "intersection_over_union",
        "miou": "intersection_over_union",
        "meaniou": "intersection_over_union",
        "jaccard": "intersection_over_union",
        "mae": "mean_absolute_error",
        "mse": "mean_squared_error",
        "rmse": "mean_squared_error",
    },
}
"""Techniques of training, by what they are one of, in lower case without `_`, without `random`
before them and `loss`, `lr` or `score` behind."""


def technique(kind: str, word: str, known: Collection[str]) -> tuple[str, ...]:
    """Help for an unknown technique, where it is one of elsewhere."""
    plain = word.lower().replace("_", "").removeprefix("random")
    listed = TECHNIQUES.get(kind, {})
    here = {other.replace("_", ""): other for other in known}
    forms = (plain, *(plain.removesuffix(end) for end in ("loss", "lr", "score") if plain != end))
    both = {**here, **listed}
    meant = next((both[form] for form in forms if form in both), None)
    if kind == "loss" and plain in ("mean", "sum", "reducemean", "reducesum", "abs", "square"):
        return WRITTEN_OUT
    if kind == "augmentation" and plain in ("totensor", "normalize"):
        return ("what is done to every image is of `preprocess`, and images are tensors already",)
    return (f"did you mean `{meant}`?",) if meant else ()


WRITTEN_OUT = (
    "squared differences are mse(output, target), magnitudes l1(...), an output itself mean(y)",
)
"""Help for a loss as its formula."""


def step(word: str) -> tuple[str, ...]:
    """Help for a step that prepares images, where it is one of elsewhere."""
    meant = STEPS.get(word.lower().replace("_", ""))
    return (meant,) if meant is not None else ()


def setting(word: str) -> tuple[str, ...]:
    """Help for an unknown setting of training, where it is one of elsewhere."""
    plain = word.lower().replace("_", "")
    if plain in SETTINGS:
        return (f"did you mean `{SETTINGS[plain]}`?",)
    found = next((o for o in _TRAINED_BY if plain in (o, f"num{o}", f"{o}s")), None)
    return (f"it is an option: convdsl train --{found}",) if found else ()


def technique_takes(word: str, known: Collection[str]) -> tuple[str, ...]:
    """Help for an unknown argument of a technique, where it is one of elsewhere."""
    plain = word.lower().replace("_", "")
    if plain in ("tmax", "totalsteps", "totalepochs") and "warmup" in known:
        return ("leave it out: the schedule ends where the training ends",)
    meant = TECHNIQUES_TAKE.get(plain)
    if plain == "betas" and "beta1" in known:
        return ("they are two: `beta1` and `beta2`",)
    if plain == "decay" and "weight_decay" in known:
        return ("did you mean `weight_decay`?",)
    return (f"did you mean `{meant}`?",) if meant in known else ()
