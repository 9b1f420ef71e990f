import copy
from functools import cache
from string import Formatter
from typing import Any

import pytest
import yaml
from helpers.made_up import jump, made_up_curve

import grokcore as gc
from grokcore import claims
from grokcore.claims import wording
from grokcore.records.store import repository

FILE = repository() / "data" / "claims.yaml"
IDS = [
    *(f"msu-{k}" for k in range(1, 13)),
    *(f"periodic-{k}" for k in range(1, 11)),
    *(f"power-{k}" for k in range(1, 9)),
    *(f"pku-{k}" for k in range(1, 15)),
]
SHOWN = wording.Shown([1234.0, 5678.0, 9012.0], [10_000.0] * 3)
RUN = made_up_curve(gc.msu(), jump(1000), jump(4000))


def test_the_file_holds_the_claims_with_their_rules():
    known = claims.load()
    assert list(known) == IDS
    for claim in known.values():
        assert (repository() / "notebooks" / f"{claim.notebook}.ipynb").is_file()
        assert set(claim.rule) == {"confirmed", "refuted", "partly", "not settled"}
        assert claim.min_seeds == 3 and claim.id.startswith(claim.source) and claim.function.__name__ == claim.statistic


@cache
def first_two_claims() -> dict[str, Any]:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content | {"claims": content["claims"][:2]}


def damaged(tmp_path, change):
    content = copy.deepcopy(first_two_claims())
    change(content)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def test_the_digest_is_of_the_rule_alone(tmp_path):
    def digest(**change):
        return claims.load(damaged(tmp_path, lambda c: c["claims"][0].update(change)))["msu-1"].rule_sha256

    same = claims.load()["msu-1"].rule_sha256
    assert digest() == digest(statement="Other words.", headline="{val:step}", measured="{train:step}") == same
    assert claims.evaluate("msu-1", RUN).rule_sha256 == same and len(same) == 64
    changed = [digest(parameters={"chance": 0.06}), digest(min_seeds=4), digest(cells={"main": {"alpha": 0.5}})]
    changed += [digest(parts={"groks": "otherwise"}), digest(at_best="partly")]
    shared = damaged(tmp_path, lambda c: c["verdict_rule"].update(share=0.8))
    changed += [claims.load(shared)["msu-1"].rule_sha256]
    assert len({same, *changed}) == 7


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda c: c.pop("settings"), "needs the blocks sources, settings, verdict_rule, claims"),
        (lambda c: c["claims"][1].pop("parts"), r"claim 2 \(msu-2\): parts: Field required"),
        (lambda c: c["claims"][1].update(figures="2"), r"claim 2 \(msu-2\): figures: Extra inputs"),
        (lambda c: c["claims"][1]["rule"].pop("partly"), r"claim 2 \(msu-2\): rule: .*at least 4"),
        (lambda c: c["claims"][1].update(min_seeds=0), r"\(msu-2\): min_seeds"),
        (lambda c: c["claims"][1].update(id="msu-1"), "two claims 'msu-1'"),
        (lambda c: c["claims"][1].update(source="mus"), "source 'mus' is not among"),
        (
            lambda c: c["claims"][0].update(statistic="delayed_generalization"),
            "unknown statistic .*; did you mean 'delayed_generalisation'",
        ),
        (lambda c: c["claims"][0].update(parameters={"chanse": 1}), "parameters of delayed_generalisation: .*chan"),
        (lambda c: c["claims"][0]["cells"]["main"].update(budget=None), "cell main: budget must be a number of steps"),
        (lambda c: c["claims"][0].update(cells=["main"]), "must be mappings"),
        (lambda c: c["claims"].append("msu-3"), "claim 3: expected a mapping with an id, got 'msu-3'"),
    ],
)
def test_a_damaged_claims_file_says_where(tmp_path, change, says):
    with pytest.raises(claims.ClaimsError, match=says):
        claims.load(damaged(tmp_path, change))


def test_a_claims_file_that_is_cut_or_gone_says_what_to_do(tmp_path):
    cut = tmp_path / "cut.yaml"
    text = FILE.read_text(encoding="utf-8")
    cut.write_text(text[: text.index("{") + 1], encoding="utf-8")  # a bracket that nothing closes: no YAML
    for path in (cut, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(claims.ClaimsError, match="Restore it, for instance from git"):
            claims.load(path)


def test_parts_and_sentence_must_be_those_of_the_statistic(tmp_path):
    other = damaged(tmp_path, lambda c: c["claims"][0]["parts"].update(more="and more"))
    with pytest.raises(claims.ClaimsError, match="the file names groks, from chance, to 100 %, more"):
        claims.evaluate("msu-1", RUN, other)
    for sentence in ("headline", "measured"):
        other = damaged(tmp_path, lambda c, which=sentence: c["claims"][0].update({which: "At {trian:step}."}))
        with pytest.raises(claims.ClaimsError, match="needs 'trian'; the statistic gives train"):
            claims.evaluate("msu-1", RUN, other)


def test_a_headline_is_short_and_has_numbers_of_the_whole_sentence():
    for claim in claims.load().values():
        own, all = (
            [name for _, name, _, _ in Formatter().parse(text) if name] for text in (claim.headline, claim.measured)
        )
        assert own and set(own) <= set(all), claim.id
        assert len(claim.headline.format_map(dict.fromkeys(own, SHOWN))) <= 200, claim.id


def cells_of(tmp_path, **cells):
    return claims.load(damaged(tmp_path, lambda c: c["claims"][0].update(cells=cells)))["msu-1"].cells


def test_lists_under_each_stand_for_a_cell_at_every_place(tmp_path):
    each = {"alpha": [0.3, 0.50, 1], "budget": [600, 1000, 1700]}
    cells = cells_of(tmp_path, plain={"alpha": 0.9}, many={"lr": 0.1, "alpha": 0.9, "each": each}, last=None)
    assert list(cells) == ["plain", "many, 0.3", "many, 0.5", "many, 1", "last"]
    assert [cells[f"many, {a:g}"]["budget"] for a in each["alpha"]] == each["budget"]
    assert [cells[f"many, {a:g}"]["alpha"] for a in each["alpha"]] == each["alpha"]  # over the cell's own
    assert {cells[f"many, {a:g}"]["lr"] for a in each["alpha"]} == {0.1} and cells["plain"]["lr"] == 0.001
    assert cells["plain"]["budget"] == cells["last"]["budget"] == 10_000  # that of the source
    assert not any("each" in cell for cell in cells.values())


def test_cells_written_out_have_the_digest_of_lists(tmp_path):
    def digest(**cells):
        return claims.load(damaged(tmp_path, lambda c: c["claims"][0].update(cells=cells)))["msu-1"].rule_sha256

    out = {"a, 0.3": {"lr": 0.1, "alpha": 0.3}, "a, 0.5": {"lr": 0.1, "alpha": 0.5}}
    assert digest(a={"lr": 0.1, "each": {"alpha": [0.3, 0.5]}}) == digest(**out)
    assert digest(a={"lr": 0.1, "each": {"alpha": [0.3, 0.6]}}) != digest(**out)


@pytest.mark.parametrize(
    "each",
    [
        {"alpha": [0.3, 0.5], "budget": [600]},
        {"alpha": 0.3},
        {"alpha": ["some"]},
        [0.3, 0.5],
    ],
)
def test_lists_that_do_not_fit_together_are_refused(tmp_path, each):
    with pytest.raises(claims.ClaimsError, match=r"claim 1 \(msu-1\): .*lists under `each` of one length"):
        cells_of(tmp_path, main={"each": each})


def test_a_list_without_values_makes_no_cell(tmp_path):
    with pytest.raises(claims.ClaimsError, match=r"claim 1 \(msu-1\): cells: .*at least 1"):
        cells_of(tmp_path, main={"each": {"alpha": []}})


def test_the_lists_of_the_file_are_read():
    cells = claims.load()["pku-7"].cells
    assert len(cells) == 12 and cells["adam_small, 0.7"]["budget"] == 103_000
    assert {cell["model"] for cell in cells.values()} == {"encoder"}
    assert {name: cell["alpha"] for name, cell in cells.items()} == {name: float(name[-3:]) for name in cells}
