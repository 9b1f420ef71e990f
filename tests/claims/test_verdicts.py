import numpy as np
import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import verdicts, wording
from grokcore.records.store import Store, repository

IDS = [f"msu-{k}" for k in range(1, 13)] + [f"periodic-{k}" for k in range(1, 8)]


def source_runs(seed=6):
    """Return the runs at the sources' settings that the claims are about, written out by hand."""
    specs = [gc.msu("x*y", alpha=alpha, seed=seed) for alpha in (0.4, 0.5, 0.6, 0.7, 0.8)]
    specs += [gc.msu("x/y", alpha=alpha, seed=seed) for alpha in (0.4, 0.5)]
    specs += [gc.msu("x*y+y*y", alpha=alpha, seed=seed) for alpha in (0.4, 0.6, 0.8)]
    specs += [gc.msu("sin(x+y)", alpha=alpha, seed=seed, steps=30_000) for alpha in (0.4, 0.5, 0.6, 0.8)]
    specs += [gc.msu(weight_decay=0.0, seed=seed)]
    specs += [gc.msu(optimizer=gc.Adam(lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98), warmup=10), seed=seed)]
    for n_layers in (1, 2):
        specs += [gc.periodic(n_layers, seed=seed, weight_decay=decay) for decay in (1e-3, 0.0)]
        specs += [gc.periodic(n_layers, seed=seed, clip_grad_norm=10.0, layernorm=norm) for norm in (True, False)]
    return specs


@pytest.fixture(scope="module")
def all_runs():
    return pd.concat([made_up_curve(spec, jump(1000), jump(4000)) for spec in source_runs()], ignore_index=True)


def grokking(seed=0, val=4000.0, **columns):
    """Return a run of msu-1 that holds (`val` 4 000), holds partly (1 500) or fails (None)."""
    start = 0.5 if val is None else 0.0
    return made_up_curve(gc.msu(seed=seed), jump(1000), {0: start} if val is None else jump(val), **columns)


def select(cell, curves):
    return verdicts.select(cell, verdicts.Runs(curves))


def seeds(*vals):
    return pd.concat([grokking(seed, val) for seed, val in enumerate(vals)], ignore_index=True)


def test_every_claim_finds_its_runs_among_all_and_says_what_it_measured(all_runs):
    for id in IDS:
        found = claims.evaluate(id, all_runs)
        assert "Missing" not in found.reason and len(found.values) == 1, id
        assert found.verdict == "not settled" and found.measured and "{" not in found.measured
        parts = [name for name in found.values if name.startswith(wording.PART)]
        assert len(parts) == len(claims.load()[id].parts)
        assert set(found.run_ids) <= set(all_runs["run"]) and found.n_runs == len(found.run_ids)


def test_every_run_answers_some_claim(all_runs):
    with_drops = all_runs.copy()  # so that the controls of periodic-6 are judged too
    for at in (6000, 12_000):
        with_drops.loc[(with_drops["step"] == at) & (with_drops["layernorm"] == True), "train_accuracy"] = 0.2  # noqa: E712
    used = {run for id in IDS for run in claims.evaluate(id, with_drops).run_ids}
    assert used == set(all_runs["run"])


def test_of_two_runs_with_one_seed_and_budget_the_one_that_got_further_counts():
    cell = claims.load()["pku-8"].cells["adamw, 0.5"]
    full = made_up_curve(gc.pku(alpha=0.5, epochs=1000), jump(500), jump(3000))
    stopped = made_up_curve(gc.pku(alpha=0.5, epochs=1000, early_stop=1000), jump(500), jump(3000)).assign(
        status="stopped early"
    )
    stopped = stopped[stopped["step"] <= 4000]
    for both in ([full, stopped], [stopped, full]):
        for names in (("a", "b"), ("b", "a")):  # whatever the ids are
            frame = pd.concat([curve.assign(run=name) for curve, name in zip(both, names, strict=True)])
            assert select(cell, frame)[0]["step"].iloc[-1] == 10_000


def test_seeds_that_were_known_before_the_rule_do_not_count(tmp_path):
    content = repository() / "data" / "claims.yaml"
    late = content.read_text().replace("    min_seeds: 3\n", "    min_seeds: 3\n    first_seed: 2\n", 1)  # msu-1
    (tmp_path / "claims.yaml").write_text(late)
    curves = seeds(4000, 4000, 4000, 4000, 4000)
    found = claims.evaluate("msu-1", curves, tmp_path / "claims.yaml")
    assert list(found.values["seed"]) == [2, 3, 4] and found.verdict == "confirmed" and found.n_runs == 3
    assert "Seeds under 2 do not count" in found.reason
    assert found.rule_sha256 != claims.evaluate("msu-1", curves).rule_sha256


def test_without_any_run_every_claim_is_not_settled_and_names_what_is_missing(all_runs):
    for id in IDS:
        found = claims.evaluate(id, all_runs.head(0))
        assert (found.verdict, found.n_runs, found.n_seeds, found.leaning) == ("not settled", 0, 0, "")
        assert "Missing runs: " in found.reason and found.measured.startswith("Nothing is measured")


@pytest.mark.parametrize(
    "vals, verdict, leaning",
    [
        ((4000.0,), "not settled", "Leans to confirmed"),
        ((4000.0, None), "not settled", "Leans to partly"),
        ((None,), "not settled", "Leans to refuted"),
        ((4000.0,) * 3, "confirmed", ""),
        ((None,) * 3, "refuted", ""),
        ((1500.0,) * 3, "partly", ""),
        ((4000.0, 4000.0, None), "partly", ""),
        ((4000.0,) * 9 + (None,), "confirmed", ""),
        ((4000.0,) * 8 + (None,) * 2, "partly", ""),
        ((4000.0,) + (None,) * 9, "refuted", ""),
    ],
)
def test_verdict_over_seeds(vals, verdict, leaning):
    found = claims.evaluate("msu-1", seeds(*vals))
    assert found.verdict == verdict and found.n_seeds == found.n_runs == len(vals)
    assert found.leaning.startswith(leaning) and bool(found.leaning) == bool(leaning)


def test_level_of_a_seed():
    assert verdicts.level({"a": True, "b": True}) == "holds"
    assert verdicts.level({"a": True, "b": False}) == verdicts.level({"a": True, "b": None}) == "holds partly"
    assert verdicts.level({"a": False, "b": False}) == verdicts.level({"a": False, "b": None}) == "fails"
    assert verdicts.level({"a": None, "b": None}) == "undecided"
    assert verdicts.level({"a": np.True_, "b": True}) == "holds"  # type: ignore[dict-item]


@pytest.mark.parametrize("drops, verdict", [(False, "not settled"), (True, "partly")])
def test_what_only_undecided_parts_keep_from_confirmed_is_not_settled(drops, verdict):
    """Without LayerNorm two blocks overflow on all three seeds, one block stops dropping (or does not, on one)."""
    twice = jump(1000) | {4999: 1.0, 5000: 0.2, 5100: 1.0, 8999: 1.0, 9000: 0.2, 9100: 1.0}
    frames = []
    for seed in range(6, 9):
        for n_layers in (1, 2):
            network = gc.periodic(n_layers, seed=seed, clip_grad_norm=10.0)
            frames.append(made_up_curve(network, twice, {0: 0.0}))
            control = gc.replace(network, layernorm=False)
            fitted = made_up_curve(control, twice if drops and seed == 6 else jump(1000), {0: 0.0})
            over = fitted[fitted["step"] <= 4000].assign(status="nonfinite")
            frames.append(fitted if n_layers == 1 else over)
    found = claims.evaluate("periodic-6", pd.concat(frames))
    assert (found.verdict, found.n_seeds, found.leaning) == (verdict, 3, "")
    assert found.reason.startswith("No part of it fails on any seed, but not all could be judged.") is not drops


def test_a_seed_that_decides_nothing_does_not_count(all_runs):
    found = claims.evaluate("periodic-7", all_runs)
    assert (found.n_seeds, found.n_runs) == (0, 0) and "Undecided on 1 of 1 seeds." in found.reason


def test_a_cap_keeps_the_verdict_from_confirmed():
    loss = {0: 70, 500: 4, 3000: 9, 6000: 0.1}
    curves = pd.concat([grokking(seed, val_loss=loss) for seed in range(3)])
    found = claims.evaluate("msu-11", curves)
    assert found.verdict == "partly" and "cannot be read from it" in found.reason
    flat = claims.evaluate("msu-11", pd.concat([grokking(seed) for seed in range(3)]))
    assert flat.verdict == "refuted" and "cannot be read from it" not in flat.reason


def test_sentences_are_numbers_of_the_curves():
    one = claims.evaluate("msu-1", grokking()).measured.replace("\N{NO-BREAK SPACE}", " ")
    assert "99 % at step 1 000 and validation accuracy was reached at step 4 000 (ratio 4)" in one
    three = claims.evaluate("msu-1", seeds(4000.0, 6000.0, None)).measured.replace("\N{NO-BREAK SPACE}", " ")
    headline = claims.evaluate("msu-1", grokking()).headline.replace("\N{NO-BREAK SPACE}", " ")
    assert headline == "Validation accuracy at step 4 000, 4 times the steps of training accuracy."
    assert claims.evaluate("msu-1", seeds(4000.0).iloc[:0]).headline == "Nothing is measured: no seed has all the runs."
    # Of 4 000, 6 000 and one not by 10 000 the median is 6 000; it is not bounded above.
    assert "reached at step 6 000 [4 000, ∞) (1 of 3 not within 10 000 steps)" in three
    reason = claims.evaluate("msu-1", seeds(4000.0, 6000.0, 1500.0, None)).reason.replace("\N{NO-BREAK SPACE}", " ")
    assert reason.startswith("Of 4 seeds it holds on 2, holds partly on 1, fails on 1 (share that holds 50 %")
    assert "groks: 2 of 4; from chance: 3 of 4; to 100 %: 3 of 4" in reason


def test_missing_seeds_of_a_cell_are_named():
    symmetric = pd.concat([made_up_curve(gc.msu(seed=seed), jump(1000), jump(4000)) for seed in (0, 1, 2)])
    asymmetric = made_up_curve(gc.msu("x*y+y*y", seed=1), jump(1000), {0: 0})
    found = claims.evaluate("msu-2", pd.concat([symmetric, asymmetric]))
    assert list(found.values["seed"]) == [1] and found.n_runs == 2
    assert "seed 0, 2 of asymmetric (operation x*y+y*y, alpha 0.4" in found.reason


MAIN = claims.load()["msu-1"].cells["main"]


def test_a_longer_run_is_read_up_to_the_budget_only():
    late = made_up_curve(gc.msu(steps=30_000), jump(1000), jump(12_000))
    curve = select(MAIN, late)[0]
    assert curve["step"].tolist()[-1] == 10_000 and set(curve["steps"]) == {10_000}
    assert np.isnan(claims.evaluate("msu-1", late).values["val"].tolist()).all()
    assert claims.evaluate("msu-1", late).values["val_budget"].tolist() == [10_000]
    at_budget = made_up_curve(gc.msu(), jump(1000), jump(12_000))
    assert claims.evaluate("msu-1", at_budget).measured == claims.evaluate("msu-1", late).measured


def test_of_several_runs_with_one_seed_the_longest_counts_once():
    both = pd.concat([grokking(), made_up_curve(gc.msu(steps=12_000), jump(1000), jump(5000))])
    assert set(select(MAIN, both)[0]["run"]) == {gc.msu(steps=12_000).id}
    assert claims.evaluate("msu-1", both).n_seeds == 1


@pytest.mark.parametrize(
    "change, value",
    [
        *(("operation", "x/y"), ("p", 23), ("y_min", 0), ("model", "periodic"), ("n_layers", 1), ("d_model", 64)),
        *(("optimizer", "adam"), ("lr", 0.002), ("weight_decay", 0.0), ("warmup", 0), ("batch_size", 256)),
        *(("alpha", 0.5), ("steps", 9000), ("alpha", None), ("alpha", np.nan)),
    ],
)
def test_a_run_with_another_setting_is_not_taken(change, value):
    curve = grokking()
    assert list(select(MAIN, curve)) == [0]
    assert select(MAIN, curve.assign(**{change: value})) == {}


CHANGES = [{"weight_noise": 0.01}, {"mirrors_together": True}, {"update_noise": 1.0}, {"decay_to_init": True}]
CHANGES += [{"n_heads": 8}, {"precision": "float64"}, {"clip_grad_norm": 1.0}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_with_a_change_that_no_cell_names_is_not_taken(change):
    noisy = made_up_curve(gc.replace(gc.msu(), **change), jump(1000), jump(4000))
    assert select(MAIN, noisy) == {}
    assert list(select({**MAIN, **change}, noisy)) == [0]
    assert set(select(MAIN, pd.concat([noisy, grokking()]))[0]["run"]) == {gc.msu().id}


def test_a_run_with_a_seed_of_its_own_for_one_use_is_not_taken():
    for use in ("split", "init", "batch", "noise"):
        assert select(MAIN, made_up_curve(gc.replace(gc.msu(), **{f"{use}_seed": 5}), jump(1000), jump(4000))) == {}


def test_parts_that_rest_on_one_cell_are_judged_whatever_the_settings():
    spec = gc.pku("encoder", alpha=0.4, readout="last")  # 8 steps an epoch
    alone = claims.parts_alone("pku-1", "a04", made_up_curve(spec, jump(800), jump(7000)))
    assert list(alone.values()) == [True, False, True, True]  # validation rises at epoch 875, not 400
    assert list(alone)[0] == "training accuracy is first 99 % within the factor of epoch 100"
    late = made_up_curve(gc.periodic(1, momentum=0.9, steps=60_000), jump(1000), jump(50_000))
    assert claims.parts_alone("periodic-1", "one_layer", late) == {"the 1-layer network groks within the budget": False}
    drops = claims.parts_alone("periodic-2", "one_layer", late)
    assert list(drops)[0] == "at least 2 drops" and list(drops.values()) == [False, None]


def test_parts_that_compare_cells_cannot_be_judged_alone():
    with pytest.raises(claims.ClaimsError, match="periodic-5: needs_weight_decay compares cell 'one_layer'"):
        claims.parts_alone("periodic-5", "one_layer", made_up_curve(gc.periodic(1), jump(1000), jump(4000)))
    with pytest.raises(claims.ClaimsError, match="periodic-1 has no cell 'three_layers'.*one_layer"):
        claims.parts_alone("periodic-1", "three_layers", made_up_curve(gc.periodic(1), jump(1000), jump(4000)))
    with pytest.raises(claims.ClaimsError, match="unknown claim 'periodic-11'.*periodic-1"):
        claims.parts_alone("periodic-11", "one_layer", made_up_curve(gc.periodic(1), jump(1000), jump(4000)))


def test_layernorm_after_the_sums_is_not_what_the_claims_are_about():
    cell = claims.load()["periodic-1"].cells["one_layer"]
    after = made_up_curve(gc.periodic(1, norm_first=False), jump(1000), jump(4000))
    assert select(cell, after) == {}
    assert list(select({**cell, "norm_first": False}, after)) == [0]


def test_settings_are_compared_as_numbers():
    curve = grokking()
    assert list(select(MAIN, curve.assign(alpha=0.1 + 0.3, p=97.0, warmup=10.0))) == [0]
    cell = claims.load()["periodic-1"].cells["one_layer"]
    run = made_up_curve(gc.periodic(1), jump(1000), jump(4000))
    mixed = pd.concat([curve, run])  # a boolean column with gaps is one of objects
    assert list(select(cell, mixed)) == [0]
    assert list(select(cell, mixed.assign(layernorm=mixed["layernorm"].astype(float)))) == [0]
    assert select({**cell, "layernorm": False}, mixed) == {}


def test_a_run_that_stopped_before_the_budget_is_not_used_unless_it_overflowed():
    curve = grokking()
    short = curve[curve["step"] <= 6000]
    assert select(MAIN, short.assign(status="stopped early")) == {}
    broken = short.assign(status="nonfinite")
    broken.loc[broken["step"] == 6000, "weight_norm"] = np.nan
    kept = select(MAIN, broken)[0]
    assert kept["step"].tolist()[-1] == 5900 and set(kept["status"]) == {"nonfinite"}
    assert claims.evaluate("msu-1", broken).values["part: groks"].tolist() == ["no"]
    after = made_up_curve(gc.msu(steps=30_000), jump(1000), jump(4000), status="nonfinite")
    assert set(select(MAIN, after)[0]["status"]) == {"finished"}  # it overflowed later than the claim looks


def test_a_frame_that_is_not_of_a_sweep_is_refused():
    with pytest.raises(claims.ClaimsError, match="lack the columns alpha; pass a frame made by grokcore.sweep"):
        claims.evaluate("msu-1", grokking().drop(columns="alpha"))


def test_an_unknown_claim_gets_the_nearest_id():
    with pytest.raises(claims.ClaimsError, match="unknown claim 'perodic-7'; did you mean 'periodic-7'"):
        claims.evaluate("perodic-7", grokking())


def test_markdown_has_one_row_a_verdict_and_shows_an_operation_as_it_is_written():
    verdicts = [claims.evaluate(id, seeds(4000.0, 4000.0, 4000.0)) for id in ("msu-1", "msu-2")]
    rows = claims.markdown(verdicts).splitlines()
    assert (
        len(rows) == 8
        and rows[5].startswith("*In brackets: ")
        and rows[7].startswith("*Judged from this notebook's runs alone.")
        and rows[2].startswith("| msu-1 |")
        and "| **confirmed** |" in rows[2]
    )
    assert r"x\*y + y\*y does not reach it. | **not settled** |" in rows[3]
    without = claims.markdown(verdicts[1:])
    assert "the verdicts need those of a plan" in without and "Judged from" not in without


def test_measured_invariance_reaches_its_claim():
    run = made_up_curve(gc.periodic(2), jump(1000), jump(4000), **{"norm:W_E": 2.0, "norm:blocks.0.W_K.weight": 1.0})
    other = made_up_curve(gc.periodic(1), jump(1000), jump(4000))
    changes = {"W_E": 0.0, "blocks.0.W_K.weight": 3.0, "all weights": 4.0}
    measured = pd.DataFrame({"run": gc.periodic(2).id, "parameter": list(changes), "change": list(changes.values())})
    curves = claims.with_invariance(pd.concat([run, other], ignore_index=True), measured)
    assert np.isfinite(curves["invariance:W_E"].tolist()).sum() == 1 and len(curves) == len(run) + len(other)
    found = claims.evaluate("periodic-7", curves)
    assert found.leaning.startswith("Leans to confirmed") and found.values["all_change"].tolist() == [4]


STOPPING = claims.load()["power-2"].cells["division, 0.5"]  # names early_stop, budget 10 000
ONE_LAYER = claims.load()["power-1"].cells["main"]  # does not


def stopping(at, status="stopped early", steps=20_000, **change):
    """Return a run of x/y that ended early, 1 000 steps after it had generalised."""
    spec = gc.power(alpha=0.5, batch_size=512, steps=steps, **{"early_stop": 1000, **change})
    curve = made_up_curve(spec, jump(500), jump(at - 1000))
    return curve.loc[curve["step"] <= at].assign(status=status)


def test_a_run_that_stopped_early_counts_only_where_the_cell_names_it():
    assert STOPPING["early_stop"] is None and "early_stop" not in ONE_LAYER
    early = stopping(4000)
    curve = select(STOPPING, early)[0]
    assert curve["step"].tolist()[-1] == 4000
    assert set(curve["steps"]) == {10_000} and set(curve["status"]) == {"stopped early"}
    assert select(ONE_LAYER, early) == {}
    assert select({**STOPPING, "early_stop": 1000}, early).keys() == {0}
    assert select({**STOPPING, "early_stop": 500}, early) == {}
    # Stopped after the budget, it is a longer run as any other; without status it was cut off.
    for cell in (STOPPING, ONE_LAYER):
        late = select(cell, stopping(12_000))[0]
        assert late["step"].tolist()[-1] == 10_000 and set(late["status"]) == {"finished"}
        assert select(cell, stopping(4000, status="finished")) == {}
        assert list(select(cell, stopping(4000, status="nonfinite"))) == [0]
    assert select(STOPPING, stopping(4000, steps=9000)) == {}  # its own budget was too small
    assert list(select(STOPPING, made_up_curve(gc.power(steps=10_000), jump(500), jump(4000)))) == [0]


def test_of_runs_with_and_without_early_stop_the_longest_budget_is_taken():
    both = pd.concat([stopping(4000), made_up_curve(gc.power(steps=30_000), jump(500), jump(5000))])
    assert set(select(STOPPING, both)[0]["run"]) == {gc.power(steps=30_000).id}
    assert select(ONE_LAYER, both).keys() == {0}


def fourier(spec, keys, **change):
    """Return what `fourier.measured` gives of a run, by hand: two frequencies, at steps 0 and 10 000."""
    rows = [(10_000, "key", k, 1.0) for k in keys]
    for step, name in [(step, name) for step in (0, 10_000) for name in ("share", "share_other")]:
        rows += [(step, name, k, 0.5) for k in (1, 2)]
    last = {"key_share": 0.9, "restricted_val_accuracy": 1.0, "excluded_val_accuracy": 0.02} | change
    rows += [(step, name, 0, value * (step > 0)) for step in (0, 10_000) for name, value in last.items()]
    frame = pd.DataFrame(rows, columns=pd.Index(["step", "measure", "frequency", "value"]))
    return frame.assign(run=spec.id)


def test_fourier_measures_reach_their_claim():
    runs = [gc.power("x+y", steps=10_000, batch_size=512, seed=seed) for seed in range(4)]
    curves = pd.concat([made_up_curve(spec, jump(500), jump(4000)) for spec in runs], ignore_index=True)
    measured = [fourier(runs[0], (1, 2)), fourier(runs[1], (2,)), fourier(runs[2], (), key_share=0.0)]
    joined = claims.with_fourier(curves, pd.concat(measured, ignore_index=True))
    assert len(joined) == len(curves) and joined["step"].tolist() == curves["step"].tolist()
    assert np.isfinite(joined["fourier:key_share"].tolist()).sum() == 6
    assert "fourier:share" not in joined and "fourier:key" not in joined
    found = claims.evaluate("power-6", joined)
    assert list(found.values["level"]) == ["holds", "holds", "holds partly", "undecided"]  # the last was not measured
    assert found.values["n_keys"].tolist()[:3] == [2, 1, 0] and found.n_seeds == found.n_runs == 3
    assert found.values["key_share"].tolist()[:3] == [0.9, 0.9, 0.0]
    assert (found.values["key_share_start"].tolist()[:3], found.verdict) == ([0, 0, 0], "partly")
    assert claims.evaluate("power-6", curves).measured == "Nothing is measured: the runs lack what the statistic reads."


def test_with_another_momentum_some_runs_of_sgd_converge():
    """What the front page says beside pku-6, which is judged at momentum 0.9 alone."""
    store = Store(cache="no-cache")
    slower = gc.SGD(lr=0.1, momentum=0.5, nesterov=True, warmup_start=0.1)
    specs = [gc.pku(alpha=0.9, epochs=1000, early_stop=1000, seed=seed, optimizer=slower) for seed in range(3)]
    best = [float(record.curve["val_accuracy"].to_numpy().max()) for record in store.find(specs).values()]
    assert len(best) == 3 and 0 < sum(accuracy >= 0.99 for accuracy in best) < 3
