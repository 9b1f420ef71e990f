"""Findings: sentences on the front page that stand only while the verdicts do that they rest on."""

from typing import Any

import pandas as pd
import pytest
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import wording
from grokcore.report import front_page, sources

CURVES = pd.concat(
    [made_up_curve(gc.msu(seed=seed), jump(1000), jump(at)) for seed, at in enumerate((4000, 5000, 6000))]
)
VERDICTS = {id: claims.evaluate(id, CURVES) for id in ("msu-1", "msu-2")}


def findings(text: str, **rests_on: Any) -> list[tuple[str, str, list[str]]]:
    finding = sources.Finding(
        short="So it is.", text=text, rests_on={id.replace("_", "-"): v for id, v in rests_on.items()}
    )
    cited = sources.Sources(findings=[finding], documents={}, literature=[], disagreements=[], topics=[])
    return sources.findings(cited, VERDICTS)


def test_a_finding_has_numbers_of_the_claims_it_rests_on():
    text = "It came {msu-1.val:at step}, {msu-1.delay:number} times as late, {not a value}."
    ((short, sentence, rests_on),) = findings(text, msu_1="confirmed")
    assert (short, rests_on) == ("So it is.", ["msu-1"])
    expected = "It came at step 5 000 [4 000, 6 000], 5 [4, 6] times as late, {not a value}."
    assert sentence.replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize("rests_on", [{"msu_1": "refuted"}, {"msu_1": "confirmed", "msu_2": "confirmed"}])
def test_a_finding_is_left_out_where_a_verdict_is_another(rests_on: Any):
    assert findings("So.", **rests_on) == []


@pytest.mark.parametrize(
    "text, rests_on, message",
    [
        ("So.", {"msu_100": "confirmed"}, "names 'msu-100'; did you mean 'msu-1'"),
        ("{msu-1.vall:step}", {"msu_1": "confirmed"}, "needs {msu-1.vall:step}; it rests on msu-1"),
        ("{msu-1.val:steps}", {"msu_1": "confirmed"}, "shown as step, epoch, at step"),
        ("{msu-2.symmetric:step}", {"msu_1": "confirmed"}, "it rests on msu-1, each"),
        ("{msu-1.val.__class__:step}", {"msu_1": "confirmed"}, "needs {msu-1.val.__class__:step}"),
    ],
)
def test_what_a_finding_cannot_say_is_refused(text: str, rests_on: Any, message: str):
    with pytest.raises(claims.ClaimsError) as error:
        findings(text, **rests_on)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "vals, words",
    [
        ((4000, 4000, 4000), "holds on 3 of 3 seeds"),
        ((None, None, None), "fails on 3 of 3 seeds"),
        ((4000, 1500, None), "all on 1; some on 1; none on 1 of 3 seeds"),
        ((4000, 4000), "2 of 3 seeds"),
        ((), ""),
    ],
)
def test_on_how_many_seeds_a_claim_holds_is_said_in_few_words(vals: Any, words: str):
    runs = [
        made_up_curve(gc.msu(seed=seed), jump(1000), {0: 0.5} if at is None else jump(at))
        for seed, at in enumerate(vals)
    ]
    curves = pd.concat(runs) if runs else CURVES.head(0)
    assert front_page.support(claims.load()["msu-1"], claims.evaluate("msu-1", curves)) == words


def test_a_capped_claim_says_so():
    loss = {0: 4.5, 1000: 4.0, 2000: 9.0, 5000: 0.1}
    curves = pd.concat([made_up_curve(gc.msu(seed=seed), jump(1000), jump(4000), val_loss=loss) for seed in range(3)])
    verdict = claims.evaluate("msu-11", curves)
    assert verdict.verdict == "partly"
    assert front_page.support(claims.load()["msu-11"], verdict) == "holds on 3 of 3 seeds; capped"


def test_no_line_breaks_within_a_number():
    assert (
        wording.unbroken("in 10 000 steps 99 % of 3 rows")
        == "in 10\N{NO-BREAK SPACE}000 steps 99\N{NO-BREAK SPACE}% of 3 rows"
    )
