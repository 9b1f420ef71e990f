"""Figures draw what the frames say: data, scales, colours, censored marks, text alternatives."""

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import get_args

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from grokcore import plots
from grokcore.analysis.curves import Outcome
from grokcore.plots import live_view, style
from grokcore.spec.names import operation_name
from grokcore.spec.task import PermutationOperation

mpl.use("agg")
STEPS = np.array([0, 1, 10, 100, 1000])


@pytest.fixture(autouse=True)
def _styled():
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def curve(run="a", **columns) -> pd.DataFrame:
    spec = {
        "run": run,
        "operation": "x*y",
        "optimizer": "adamw",
        "weight_decay": 1.0,
        "alpha": 0.4,
        "step": STEPS,
    }
    measured = {
        "train_accuracy": [0.0, 0.1, 0.8, 1.0, 1.0],
        "val_accuracy": [0.0, 0.0, 0.1, 0.3, 1.0],
        "train_loss": [5.0, 4.0, 1.0, 0.1, 0.01],
        "val_loss": [5.0, 6.0, 7.0, 3.0, 0.1],
        "batch_accuracy_min": [np.nan, 0.0, 0.5, 0.2, 0.9],
        "weight_norm": [9.0, 9.5, 10.0, 11.0, 6.0],
        "weight_norm_sum": [90.0, 95.0, 100.0, 110.0, 60.0],
        "effective_lr_mean": [np.nan, 2.0, 3.0, 4.0, 5.0],
        "effective_lr_min": [np.nan, 1.0, 1.0, 1.0, 1.0],
        "effective_lr_max": [np.nan, 9.0, 9.0, 9.0, 9.0],
    }
    return pd.DataFrame({**spec, **measured, **columns})


def line(ax, label):
    return next(one for one in ax.get_lines() if one.get_label() == label)


def test_accuracy_draws_both_sets_in_their_colours_on_a_logarithmic_axis(ax):
    assert plots.accuracy(curve(), ax) is ax
    np.testing.assert_array_equal(line(ax, "training").get_xdata(), STEPS[1:])  # 0 has no place on a log axis
    np.testing.assert_array_equal(line(ax, "training").get_ydata(), [0.1, 0.8, 1.0, 1.0])
    np.testing.assert_array_equal(line(ax, "validation").get_ydata(), [0.0, 0.1, 0.3, 1.0])
    assert line(ax, "training").get_color() == style.TRAIN != line(ax, "validation").get_color()
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "optimisation steps", "accuracy")


def test_accuracy_passes_on_how_its_lines_look(ax):
    plots.accuracy(pd.concat([curve("a"), curve("b")]), ax, lw=0.8)
    assert [one.get_linewidth() for one in ax.get_lines()] == [0.8] * 4


def test_accuracy_on_a_linear_axis_keeps_step_0_and_shades_the_worst_batch(ax):
    plots.accuracy(curve(), ax, log=False, worst_batch=True)
    np.testing.assert_array_equal(line(ax, "training").get_xdata(), STEPS)
    assert ax.get_xscale() == "linear"
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[corners[:, 0] == 100][:, 1].min() == 0.2
    assert corners[corners[:, 0] == 0][:, 1].min() == 0.0  # no batch yet: the accuracy itself


def test_several_runs_share_one_label(ax):
    plots.trace(pd.concat([curve("a"), curve("b")]), "val_accuracy", ax, label="both")
    assert len(ax.get_lines()) == 2
    assert ax.get_legend_handles_labels()[1] == ["both"]


def test_loss_is_logarithmic_both_ways(ax):
    plots.loss(curve(), ax)
    np.testing.assert_array_equal(line(ax, "validation").get_ydata(), [6.0, 7.0, 3.0, 0.1])
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_ylabel()) == ("log", "log", "loss (nats)")


def test_compare_gives_an_operation_and_an_optimizer_their_own_colour(ax):
    curves = pd.concat([curve("a"), curve("b", operation="x*y+y*y", optimizer="adam", weight_decay=0.0)])
    plots.compare(curves, "val_accuracy", ax, by="operation")
    plots.compare(curves, "val_accuracy", ax, by="optimizer")
    labels = ["x·y", "x·y + y·y", "AdamW, weight decay 1", "Adam, no weight decay"]
    assert [one.get_label() for one in ax.get_lines()] == labels
    colours = [one.get_color() for one in ax.get_lines()]
    assert colours[:2] == [style.OPERATION["x*y"], style.OPERATION["x*y+y*y"]]
    assert colours[2:] == [style.OPTIMIZER["adamw"], style.OPTIMIZER["adam"]]


def test_compare_orders_alphas_and_darkens_the_small(ax):
    plots.compare(pd.concat([curve("a", alpha=0.8), curve("b", alpha=0.4)]), "val_accuracy", ax, by="alpha")
    assert [one.get_label() for one in ax.get_lines()] == ["α = 0.4", "α = 0.8"]
    low, high = (sum(to_rgb(one.get_color())) for one in ax.get_lines())
    assert low < high


def test_compare_by_something_without_colours_says_what_has_them(ax):
    with pytest.raises(ValueError, match="by='p'.*known: 'alpha', 'operation', 'optimizer'"):
        plots.compare(curve(p=97), "val_accuracy", ax, by="p")


@pytest.mark.parametrize("column", ["weight_norm", "weight_norm_sum"])
def test_weight_norm_draws_the_column_asked_for(ax, column):
    plots.weight_norm(curve(), ax, column=column)
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), curve()[column][1:])
    assert ("sum" in ax.get_ylabel()) == (column == "weight_norm_sum")


def test_equal_curves_of_two_optimizers_stay_visible(ax):
    same = {"weight_decay": 0.0}
    curves = [curve("a"), curve("b", optimizer="adam", **same), curve("c", optimizer="adamw", **same)]
    plots.weight_norm(pd.concat(curves), ax)
    with_decay, without, control = ax.get_lines()
    assert without.get_linestyle() != control.get_linestyle()
    assert len({one.get_color() for one in (with_decay, without, control)}) == 3


def test_effective_draws_the_mean_in_a_band_from_min_to_max(ax):
    plots.effective(curve(), "effective_lr", ax, label="all weights", color="#123456")
    drawn = line(ax, "all weights")
    np.testing.assert_array_equal(drawn.get_ydata(), [2.0, 3.0, 4.0, 5.0])
    assert drawn.get_color() == "#123456"
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 9.0)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")


def test_collapses_are_bands_from_start_to_end_named_once(ax):
    plots.collapses(pd.DataFrame({"start": [100, 700], "end": [200, 800]}), ax)
    assert [(band.get_x(), band.get_width()) for band in ax.patches] == [(100, 100), (700, 100)]
    assert ax.get_legend_handles_labels()[1] == ["collapse of training accuracy"]


def test_points_that_were_not_reached_are_not_drawn(ax):
    plots.points(350, None, ax)
    plots.points(float("nan"), 900.0, ax)
    assert [text.get_text() for text in ax.texts] == ["point 1", "point 2"]
    assert [one.get_xdata()[0] for one in ax.get_lines()] == [350, 900.0]


def test_chance_is_one_in_p(ax):
    plots.chance(97, ax)
    assert ax.get_lines()[0].get_ydata()[0] == pytest.approx(1 / 97)
    assert ax.get_lines()[0].get_label() == "chance (1/97)"


def test_steps_to_draws_the_censored_open_at_their_budget(ax):
    runs = pd.DataFrame({"run": list("abc"), "operation": "x*y", "alpha": [0.4, 0.4, 0.3], "steps": [900, 900, 700]})
    plots.steps_to(runs.assign(val_99_sustained=[100.0, 300.0, np.nan]), ax)
    median, reached, censored = ax.get_lines()
    np.testing.assert_array_equal(median.get_ydata(), [200.0])
    np.testing.assert_array_equal(reached.get_ydata(), [100.0, 300.0])
    np.testing.assert_array_equal(censored.get_xdata(), [0.3])
    np.testing.assert_array_equal(censored.get_ydata(), [700])
    assert (censored.get_marker(), censored.get_markerfacecolor()) == ("^", "none")
    assert reached.get_markerfacecolor() != "none"
    assert censored.get_label() == "x·y: not within the budget"
    assert (ax.get_yscale(), list(ax.get_xticks())) == ("log", [0.3, 0.4])


def test_the_median_over_runs_knows_of_those_that_were_not_reached(ax):
    runs = pd.DataFrame({"run": list("abcdef"), "operation": "x*y", "alpha": [0.4] * 3 + [0.5] * 3, "steps": 900})
    nan = np.nan
    plots.steps_to(runs.assign(val_99_sustained=[100.0, nan, nan, 200.0, 300.0, nan]), ax)
    median, *_ = ax.get_lines()
    np.testing.assert_array_equal(median.get_xdata(), [0.5])  # at 0.4 two of three are later than any that is known
    np.testing.assert_array_equal(median.get_ydata(), [300.0])


def test_groups_of_steps_to_stand_side_by_side_and_runs_at_one_place_are_counted(ax):
    runs = pd.DataFrame({"run": list("abcdef"), "operation": ["x*y"] * 3 + ["x/y"] * 3, "alpha": 0.4, "steps": 900})
    plots.steps_to(runs.assign(val_99_sustained=[100.0, 100.0, *[np.nan] * 4]), ax)
    ax.figure.canvas.draw()
    product, quotient = (line(ax, f"{name}: not within the budget") for name in ("x·y", "x/y"))
    for marks in (product, quotient):  # what is drawn twice at one place of the axes is hidden
        np.testing.assert_array_equal(marks.get_xdata()[:1], [0.4])
    left, right = (marks.get_transform().transform((0.4, 900)) for marks in (product, quotient))
    assert right[0] - left[0] > 9.4 / 72 * ax.figure.dpi and right[1] == left[1]  # a mark is 8 points and its edge
    assert (left + right)[0] / 2 == pytest.approx(ax.transData.transform((0.4, 900))[0])
    assert list(ax.get_xticks()) == [0.4]
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [
        ("×2", style.OPERATION["x*y"]),
        ("×3", style.OPERATION["x/y"]),
    ]


def test_one_group_of_steps_to_stands_at_its_place(ax):
    runs = pd.DataFrame({"run": ["a", "b"], "operation": "x*y", "alpha": [0.4, 0.5], "steps": 900})
    plots.steps_to(runs.assign(val_99_sustained=[100.0, 200.0]), ax)
    drawn = line(ax, "x·y").get_transform().transform((0.4, 100))
    np.testing.assert_allclose(drawn, ax.transData.transform((0.4, 100)))
    assert not ax.texts


def test_comparisons_begin_where_the_first_curve_leaves_its_start():
    _, axes = plt.subplots(1, 2)
    for ax, column in zip(axes, ("train_accuracy", "val_accuracy"), strict=True):
        plots.chance(97, plots.trace(curve(), column, ax))
        ax.axvline(2, label="a mark across the axes")
    assert plots.skip_flat_start(axes[1]) == (axes[1],)
    assert axes[1].get_xlim()[0] == 1  # 0.1 at step 10, after 0 at step 1
    assert 1000 < axes[1].get_xlim()[1] < 1500
    plots.skip_flat_start(axes[1], rise=0.2)
    assert axes[1].get_xlim()[0] == 10
    plots.skip_flat_start(*axes, rise=0.85)
    assert [ax.get_xlim()[0] for ax in axes] == [10, 10]  # training is at 1.0, after 0.1, at step 100
    plots.skip_flat_start(*axes, rise=2.0)  # no curve rises so much
    assert [ax.get_xlim()[0] for ax in axes] == [10, 10]


def test_a_short_axis_of_steps_has_labels_between_the_powers_of_ten(ax):
    plots.skip_flat_start(plots.trace(curve(step=STEPS * 4 + 1000), "val_accuracy", ax))
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    labels = [label.get_text() for label in ax.get_xticklabels(which="both") if low <= label.get_position()[0] <= high]
    assert [label for label in labels if label] == ["2\N{NO-BREAK SPACE}000", "5\N{NO-BREAK SPACE}000"]


def test_invariance_separates_the_declared_subset(ax):
    frame = pd.DataFrame({"parameter": ["W_E", "W_Q"], "change": [0.0, 2.0], "scale_invariant": [True, False]})
    plots.invariance(frame, ax)
    inside, outside = ax.get_lines()
    assert inside.get_xdata()[0] == 1e-17 and outside.get_xdata()[0] == 2.0  # 0 has no place on a log axis
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["W_E", "W_Q"]
    assert ax.get_xscale() == "log" and ax.yaxis_inverted()


def test_one_legend_names_each_thing_once_and_stands_outside_the_axes():
    fig, axes = plt.subplots(1, 2)
    for ax in axes:
        plots.accuracy(curve(), ax)
    plots.legend(fig)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["training", "validation"]
    fig.canvas.draw()
    assert not any(fig.legends[0].get_window_extent().overlaps(ax.get_window_extent()) for ax in axes)


def test_inner_panels_of_a_column_leave_the_step_label_to_the_last():
    _, (top, bottom) = plt.subplots(2, 1, sharex=True)
    assert plots.accuracy(curve(), top).get_xlabel() == ""
    assert plots.accuracy(curve(), bottom).get_xlabel() == "optimisation steps"


def test_svg_is_one_element_that_says_what_it_shows():
    fig, ax = plt.subplots()
    plots.accuracy(curve(), ax)
    text = plots.svg(fig, 'Accuracy "rises" & <stays>')
    root = ET.fromstring(text)
    assert root.tag.endswith("}svg") and root.get("role") == "img"
    assert root.get("aria-label") == root.findtext("{*}title") == 'Accuracy "rises" & <stays>'
    assert "<metadata" not in text and "<style" not in text


def test_the_same_figure_gives_the_same_svg_and_another_other_ids():
    texts = []
    for column in ("val_accuracy", "val_accuracy", "train_accuracy"):
        fig, ax = plt.subplots()
        plots.trace(curve(), column, ax)
        texts.append(plots.svg(fig, "a curve"))
    first, again, other = texts
    assert first == again
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', first)) <= ids[0]


def test_a_figure_without_text_alternative_is_refused():
    with pytest.raises(ValueError, match="alt is empty"):
        plots.svg(plt.figure(), " ")


def test_show_displays_svg_with_its_text_and_closes_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    plots.show(plt.figure(), alt="an empty figure")
    ((data, options),) = shown
    assert options == {"raw": True} and data["text/plain"] == "an empty figure"
    assert data["image/svg+xml"].startswith("<svg ")
    assert not plt.get_fignums()


def progress(done, runs=2):
    curves = pd.concat([curve(f"r{i}", label=f"run {i}") for i in range(runs)])
    return SimpleNamespace(done=done, total=runs, steps_per_second=1234.5, curves=curves)


def test_live_draws_at_most_once_a_second_and_always_the_last(monkeypatch):
    drawn = []
    handle = SimpleNamespace(update=lambda data, raw: drawn.append(data))
    monkeypatch.setattr("IPython.core.getipython.get_ipython", object)
    monkeypatch.setattr("IPython.display.display", lambda data, raw, display_id: drawn.append(data) or handle)
    watch = plots.live()
    watch(progress(0))
    watch(progress(1))  # within the same second
    assert len(drawn) == 1
    watch(progress(2))  # the last
    assert len(drawn) == 2 and all(data["image/svg+xml"].startswith("<svg ") for data in drawn)
    assert drawn[0]["text/plain"] == "Training and validation accuracy of the runs while they train"


def test_live_is_silent_without_a_notebook_or_without_curves(monkeypatch):
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: pytest.fail("nothing to display to"))
    plots.live()(progress(2))
    monkeypatch.setattr("IPython.core.getipython.get_ipython", object)
    plots.live()(SimpleNamespace(done=0, total=2, steps_per_second=0.0, curves=pd.DataFrame()))


def test_the_live_plot_has_a_panel_a_run_and_shows_the_last_twelve():
    panels = [ax for ax in live_view._progress(progress(3, runs=14)).axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels] == [f"run {i}" for i in range(2, 14)]


def test_the_live_plot_says_what_its_axes_are():
    fig = live_view._progress(progress(1, runs=6))
    assert fig.get_supylabel() == "accuracy" and not any(ax.get_ylabel() for ax in fig.axes)
    assert [ax.get_xlabel() for ax in fig.axes] == [""] * 3 + ["optimisation steps"] * 3


def test_a_step_that_was_not_reached_is_more_than_the_budget():
    assert plots.reached(3450.0, 10_000) == "3\N{NO-BREAK SPACE}450"
    assert plots.reached(float("nan"), 10_000) == "> 10\N{NO-BREAK SPACE}000"


def test_the_table_names_operations_and_what_came_of_each_run():
    reached = {"train_99_first": [100.0, 200.0], "val_99_sustained": [900.0, np.nan], "steps": [1000, 1000]}
    runs = pd.DataFrame({"operation": ["x*y", "x*y+y*y"], "alpha": 0.4, "outcome": ["GROKKED", "MEMORISED_ONLY"]})
    shown = plots.table(runs.assign(**reached, best_val_accuracy=[1.0, 0.0512]), "operation", "alpha")
    assert list(shown.index) == ["x·y", "x·y + y·y"] and shown.columns.name == "operation"
    assert list(shown.columns) == ["alpha", "outcome", "training 99 %", "validation 99 %", "best validation"]
    assert list(shown["outcome"]) == ["grokked", "memorised only"]
    assert list(shown["validation 99 %"]) == ["900", "> 1\N{NO-BREAK SPACE}000"]
    assert list(shown["best validation"]) == ["100.0%", "5.1%"]


def test_every_outcome_has_words_of_its_own():
    assert set(style.OUTCOME) == {outcome.value for outcome in Outcome}
    assert len(set(style.OUTCOME.values())) == len(Outcome)
    assert not any("_" in words or words.isupper() for words in style.OUTCOME.values())
    assert plots.outcome_name("GENERALISED_AT_ONCE") == "no delay"
    assert plots.outcome_name("as yet unknown") == "as yet unknown"


def test_operations_on_permutations_are_named_in_words():
    names = [operation_name(name) for name in get_args(PermutationOperation)]
    assert names == ["x·y in S₅", "x·y·x⁻¹ in S₅", "x·y·x in S₅"]
    assert operation_name("x*y+y*y") == "x·y + y·y" and operation_name("x/y") == "x/y"


def test_letters_have_the_ink_that_stands_out_more():
    assert [style.ink(ground) for ground in ("white", "#aaaaaa", "#d55e00")] == [style.BLACK] * 3
    assert [style.ink(ground) for ground in ("black", "#404040", "#0000ff")] == ["white"] * 3


def test_an_operation_without_a_colour_is_black_and_points_can_be_named(ax):
    assert plots.operation_colour("x^2+y^2") == style.BLACK != plots.operation_colour("x*y")
    plots.points(10, 20, ax, names=("training", "validation"))
    assert [text.get_text() for text in ax.texts] == ["training", "validation"]


def test_a_linear_axis_of_steps_has_few_enough_labels_for_a_narrow_panel(ax):
    plots.accuracy(curve(step=STEPS * 40), ax, log=False)
    low, high = ax.get_xlim()
    assert len([tick for tick in ax.get_xticks() if low <= tick <= high]) <= 6


def test_panels_show_the_steps_under_every_column():
    fig, axes = plots.panels(5, columns=3)
    assert len(axes) == 5 and len(fig.axes) == 6 and not fig.axes[5].get_visible()
    for ax in axes:
        plots.trace(curve(), "train_accuracy", ax)
    fig.canvas.draw()
    labelled = [any(label.get_text() and label.get_visible() for label in ax.get_xticklabels()) for ax in axes]
    assert labelled == [False, False, True, True, True] == [bool(ax.get_xlabel()) for ax in axes]


def test_letters_of_a_table_stand_in_the_order_given(ax):
    table = np.array([[0, 2, 1], [1, 0, -1], [2, 7, 0]])
    fill = np.full((3, 3, 3), np.nan)
    fill[2, 1] = 0.0
    plots.letters(table, ax, order=[2, 0, 1], fill=fill)
    words = [text.get_text() for text in ax.texts]
    assert words == ["a", "c", "?", "b", "a", "c", "?", "b", "a"]  # row c first: c∘c, c∘a, c∘b
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["c", "a", "b"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["c", "a", "b"]
    assert ax.texts[2].get_color() == "white" and ax.texts[1].get_color() == plots.BLACK
    assert ax.images[0].get_array()[0, 2].tolist() == [0, 0, 0] and ax.images[0].get_array().sum() == 24
    assert ax.yaxis_inverted()


def test_letters_without_order_stand_as_in_the_alphabet(ax):
    plots.letters(np.array([[0, 1], [1, 0]]), ax, size=9)
    assert {text.get_fontsize() for text in ax.texts} == {9}
    assert [text.get_text() for text in ax.texts] == ["a", "b", "b", "a"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("y", "x")
