"""Statistics of the claims about the weights and the loss of single runs (see `times` for the form)."""

from __future__ import annotations

import numpy as np

from grokcore.analysis.collapse import deepest_fall
from grokcore.analysis.crossings import column
from grokcore.analysis.curves import Outcome, run_summary
from grokcore.claims.statistics.times import FITTED, VAL, Cells, Finding, Parts, Values, reached, time

FOURIER = "fourier:"


def norm_rise_and_fall(
    cells: Cells, norm: str, start: float, visible: float, onset: float, near: float, fall: float
) -> Finding:
    """Judge the course of a weight norm against the accuracies: rise, uneven climb, maximum at the onset, fall."""
    curve = cells["main"]
    run, steps = run_summary(curve), column(curve, "step")
    names = ("norm_start", "norm_train", "norm_dip", "norm_max", "norm_max_at", "norm_low", "l2_max_at")
    values: Values = {"train": time(run, FITTED), "val": time(run, VAL), **dict.fromkeys(names, np.nan)}
    values["onset_at"] = (np.nan, float(run["steps"]))
    titles = ("rises with training", "climbs to a maximum", "not monotonically", "maximum at the onset")
    parts: Parts = dict.fromkeys((*titles, "falls while validation rises"), False)
    if not reached(run, FITTED):
        return parts, values
    size, val = column(curve, norm), column(curve, "val_accuracy")
    began = int(np.argmax(column(curve, "train_accuracy") >= start))
    fit = int(np.argmax(steps == run[FITTED]))
    top = fit + int(np.argmax(size[fit:]))
    begins = np.flatnonzero(val[fit:] >= val[fit] + onset)
    onset_at = steps[fit + begins[0]] if len(begins) else np.nan
    dip = size[fit : fit + begins[0] + 1].min() if len(begins) else np.nan  # between the fit and the onset
    low = size[top:].min()
    half = top + int(np.argmax(size[top:] <= (size[top] + low) / 2))
    parts["rises with training"] = bool(size[fit] >= (1 + visible) * size[began])
    inside = fit < top < len(size) - 1
    parts["climbs to a maximum"] = bool(inside and size[top] >= (1 + visible) * size[fit])
    parts["not monotonically"] = deepest_fall(size[fit : top + 1], relative=True) >= visible
    ratio = np.maximum(steps[top], onset_at) / np.minimum(steps[top], onset_at)  # NaN without an onset
    parts["maximum at the onset"] = bool(ratio <= near)
    parts["falls while validation rises"] = bool(
        low <= (1 - fall) * size[top]
        and reached(run, VAL)
        and run[VAL] > steps[top]
        and steps[half] - steps[top] < steps[top] - steps[fit]
    )
    l2 = column(curve, "weight_norm")[fit:]
    l2_at = steps[fit + int(np.argmax(l2))]
    measured = (size[began], size[fit], dip, size[top], steps[top], low, l2_at)
    values["onset_at"] = (float(onset_at), float(run["steps"]))
    return parts, values | dict(zip(names, map(float, measured), strict=True))


def decay_is_the_key(cells: Cells, norm: str, visible: float) -> Finding:
    """Judge whether the norm only grows and nothing groks in `adam`, and `decay` alone makes `no_decay` grok."""
    runs = {name: run_summary(cells[name]) for name in ("decay", "adam", "no_decay")}
    size = column(cells["adam"], norm)
    fallen = deepest_fall(size, relative=True)
    parts: Parts = {
        "norm only grows": bool(size[-1] > size[0] and fallen < visible),
        "no grokking": not reached(runs["adam"], VAL),
        "decay makes the difference": runs["decay"]["outcome"] == Outcome.GROKKED
        and not reached(runs["no_decay"], VAL),
    }
    values: Values = {f"{name}_val": time(run, VAL) for name, run in runs.items()}
    values |= {"adam_start": float(size[0]), "adam_end": float(size[-1]), "adam_fall": fallen}
    return parts, values | {"adam_best": runs["adam"]["best_val_accuracy"]}


def validation_loss_shape(cells: Cells, rise: float) -> Finding:
    """Judge whether the validation loss has a first minimum, a peak after it, and falls below the minimum again."""
    curve = cells["main"]
    run, steps = run_summary(curve), column(curve, "step")
    loss = column(curve, "val_loss")
    fit = int(np.argmax(steps == run[FITTED])) if reached(run, FITTED) else len(steps) - 1
    first = int(np.nanargmin(loss[: fit + 1]))
    peak = first + int(np.nanargmax(loss[first:]))
    second = peak + int(np.nanargmin(loss[peak:]))
    rises = bool(peak > first and loss[peak] >= rise * loss[first])
    parts: Parts = {"rises again": rises, "second descent": bool(peak > first and loss[second] < loss[first])}
    names = ("first_low", "peak", "second_low")
    values: Values = {name: float(loss[at]) for name, at in zip(names, (first, peak, second), strict=True)}
    values |= {f"{name}_at": float(steps[at]) for name, at in zip(names, (first, peak, second), strict=True)}
    return parts, values | {"rise": float(loss[peak] / loss[first])}


def descent_along_a_ray(cells: Cells, smaller: float, kept: float, cosine: float, radial: float) -> Finding:
    """Judge the way from the maximum of the L2 norm (after fitting) to its lowest value after it."""
    curve = cells["main"]
    run = run_summary(curve)
    titles = ("smaller norm", "same answers", "direction kept", "along the ray")
    names = ("norm_max", "norm_max_at", "norm_low", "kept", "kept_least", "cosine", "radial")
    if not reached(run, FITTED):
        return dict.fromkeys(titles, None), dict.fromkeys(names, np.nan)
    steps, norm = column(curve, "step"), column(curve, "weight_norm")
    top = int(np.argmax(np.where(steps >= run[FITTED], norm, -np.inf)))
    bottom = top + int(np.argmin(norm[top:]))
    values: Values = {"norm_max": norm[top], "norm_max_at": float(steps[top]), "norm_low": norm[bottom]}
    if bottom == top:
        values |= dict.fromkeys(names[3:], np.nan)
        return {"smaller norm": False, **dict.fromkeys(titles[1:], None)}, values
    answers, turn = (column(curve, name)[top + 1 : bottom + 1] for name in ("answers_kept", "weight_cosine"))
    shares = radial_share(norm[top : bottom + 1], turn)
    parts: Parts = {
        "smaller norm": bool(norm[bottom] <= (1 - smaller) * norm[top]),
        "same answers": bool(answers.mean() >= kept),
        "direction kept": bool(np.median(turn) >= cosine),
        "along the ray": bool(np.median(shares) >= radial),
    }
    values |= {"kept": float(answers.mean()), "kept_least": float(answers.min())}
    return parts, values | {"cosine": float(np.median(turn)), "radial": float(np.median(shares))}


def radial_share(norm: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Return which share of each squared displacement changes the norm: norms `[n + 1]`, cosines `[n]` -> `[n]`.

    The displacement from a vector of norm a to one of norm b at cosine c has the square a² + b² - 2abc, of
    which (a - b)² is radial; a displacement of zero has share 1.
    """
    a, b = norm[:-1], norm[1:]
    turned = 2 * a * b * (1 - np.minimum(cosine, 1.0))
    moved = (a - b) ** 2 + turned
    return np.where(moved > 0, (a - b) ** 2 / np.where(moved > 0, moved, 1.0), 1.0)


def few_frequencies(cells: Cells, share: float, enough: float, needed: float) -> Finding:
    """Judge whether a few waves hold the embedding, answer alone, and cannot be done without (`analysis.fourier`)."""
    curve, names = cells["main"], ("key_share", "restricted_val_accuracy", "excluded_val_accuracy")
    columns = [f"{FOURIER}{name}" for name in names]
    titles = ("few hold the embedding", "they are enough", "they are needed")
    lacking = any(name not in curve or np.isnan(column(curve, name)[-1]) for name in columns)
    if lacking or not reached(run_summary(curve), VAL):
        return dict.fromkeys(titles, None), dict.fromkeys((*names, "key_share_start", "n_keys"), np.nan)
    found = {name: curve[at].dropna() for name, at in zip(names, columns, strict=True)}
    key_share, alone, without = (float(found[name].iloc[-1]) for name in names)
    values: Values = dict(zip(names, (key_share, alone, without), strict=True))
    values["key_share_start"] = float(found["key_share"].iloc[0])
    values["n_keys"] = float(curve[f"{FOURIER}n_keys"].dropna().iloc[-1])
    return dict(zip(titles, (key_share >= share, alone >= enough, without <= needed), strict=True)), values
