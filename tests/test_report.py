"""The report: what it shows, what it cannot be made to do, and that it needs nothing else."""

import base64
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import HOSTILE, MATRIX, Elements, files_of, hostile_files, page_of, with_records

from hubedit.report import of_files, render
from hubedit.report.figures import spectrum, word_differences
from hubedit.report.serving import served
from hubedit.report.view import PROBES
from hubedit.words import wilson

FACT = ["--prompt", "{} plays the", "--subject", "Ada Brook"]
LIGHT = ["--set", "prefixes=[[2,8]]", "--set", "steps=2", "--force"]


def test_the_page_opens_with_the_verdict():
    page = page_of(files_of("one-fact"), repo="me/edited", revision="refs/pr/3")
    text = Elements(page).text
    assert text.index("As recorded, not verified") < text.index("Edit 1: “The mother tongue")
    assert "hubedit review me/edited --pr 3" in text


@pytest.mark.parametrize(
    "said",
    [
        "“The mother tongue of Danielle Darrieux is” → “French” becomes “English”",
        "1 of 160 tensors · 1.9 % of all elements · relative norm 0.013 · rank 1",
        "The native language of Montesquieu is",
        "52 % → 40.7 %",
        "h.4.mlp.c_proj.weight",
        "20.8 % to 93.9 %",
        "Assurance: approximate.",
        "general abilities of the model (no benchmark was run)",
        "d702ad44dda6b66c502e9a13acbfea105f1b88ac17e93104d29b8afd6452e9ba",
    ],
)
def test_the_page_shows_the_edit(said):
    assert said in Elements(page_of(files_of("one-fact"))).text


def test_the_page_draws_what_the_method_shows():
    files = with_records(files_of("one-fact"), lambda known: known | {"figures": [MATRIX]})
    found = Elements(page_of(files))
    assert "How strong each part is. From -0.25 to 1." in found.text
    assert "layer 0, right: 1" in found.text
    drawn = [value for tag, name, value in found.attributes if name == "fill-opacity"]
    assert drawn == ["0.0", "0.123", "1.0", "0.5", "0.25", "0.0"]
    assert [value for _, name, value in found.attributes if value in ("above", "below")] == [
        "below" if number == 4 else "above" for number in range(6)
    ]
    hidden = with_records(
        files,
        lambda known: known | {"request": known["request"] | {"disclosed": False, "rows": None}},
    )
    assert "How strong" not in page_of(hidden)


def test_the_same_edit_gives_the_same_page():
    assert page_of(files_of("one-fact")) == page_of(files_of("one-fact"))


# -- the page does nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("case", ["one-fact", "hostile", "gated-weights"])
def test_the_page_refers_to_nothing_outside_itself(case):
    found = Elements(page_of(files_of(case)))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & {
        *found.tags
    }
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "style", "action", "formaction", "xlink:href")
        assert name != "href" or value.startswith("#")
    assert "url(" not in found.style
    assert "@import" not in found.style


def test_the_policy_allows_the_one_style_and_nothing_else():
    found = Elements(page_of(files_of("one-fact")))
    (policy,) = (value for _, name, value in found.attributes if value and "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert found.tags["style"] == 1


def test_hostile_records_change_no_element_of_the_page():
    harmless = Elements(page_of(hostile_files(" and more"), repo="me/x", revision="refs/pr/1"))
    hostile = Elements(page_of(hostile_files(), repo="me/x", revision="refs/pr/1"))
    assert hostile.tags == harmless.tags
    assert "document.title='taken'" in hostile.text
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [
        (tag, name) for tag, name, _ in harmless.attributes
    ]
    for _, name, value in hostile.attributes:
        assert "taken" not in (value or "") or name in ("title", "aria-label")


def test_hostile_text_is_shown_as_it_is_and_hides_nothing():
    text = Elements(page_of(hostile_files())).text
    assert HOSTILE.replace("\u202e", "⟨U+202E⟩") in text
    assert "\u202e" not in text
    assert "49" not in text.partition("{{ 7 * 7 }}")[2][:20]


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_no_text_can_add_an_element(payload):
    harmless = Elements(page_of(hostile_files("x")))
    assert Elements(page_of(hostile_files(payload + "x"))).tags == harmless.tags


# -- what is computed ---------------------------------------------------------------------------


def test_the_interval_is_that_of_wilson():
    assert wilson(0.5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    assert wilson(1.0, 1) == pytest.approx((0.2065493, 1.0), abs=1e-6)
    assert wilson(0.5, 0) is None


def test_the_spectrum_is_that_of_the_product():
    random = np.random.default_rng(0)
    left, right = random.normal(size=(40, 3)), random.normal(size=(3, 25))
    found = spectrum(left.astype(np.float32), right.astype(np.float32))
    whole = np.linalg.svd(left @ right, compute_uv=False)
    assert found.values == pytest.approx(whole[:3], rel=1e-5)
    assert 1 < found.effective_rank < 3
    assert found.top_share == pytest.approx(whole[0] ** 2 / (whole**2).sum(), rel=1e-5)
    rank_one = spectrum(left[:, :1].astype(np.float32), right[:1].astype(np.float32))
    assert (rank_one.effective_rank, rank_one.top_share) == pytest.approx((1, 1))
    assert spectrum(np.zeros((4, 1), np.float32), np.zeros((1, 4), np.float32)) is None


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_marked_words_are_the_two_texts(before, after):
    left, right = word_differences(before, after)
    assert ("".join(text for _, text in left), "".join(text for _, text in right)) == (
        before,
        after,
    )
    assert {mark for mark, _ in left} <= {"same", "gone"}
    assert {mark for mark, _ in right} <= {"same", "new"}


def test_one_word_that_differs_is_marked_alone():
    left, right = word_differences("She plays the piano well.", "She plays the oboe well.")
    assert [text for mark, text in left if mark == "gone"] == ["piano"]
    assert [text for mark, text in right if mark == "new"] == ["oboe"]


def test_the_filters_count_what_they_show():
    report = of_files(files_of("one-fact").get)
    (edit,) = report.edits
    assert edit.counts == {"all": 7, "changed": 3, "unchanged": 4, "regressed": 1}
    page = render(report)
    for kind, count in edit.counts.items():
        shown = {"all": '<tr class="'}.get(kind, f'<tr class="{kind}')
        rows = page.count(shown) + (page.count("changed regressed") if kind == "regressed" else 0)
        assert rows == count, kind


def test_a_long_list_of_questions_is_cut_and_counted():
    files = files_of("one-fact")
    path = next(path for path in files if path.endswith("probes.jsonl"))
    line = files[path].splitlines()[0]
    files[path] = b"\n".join([line] * (PROBES + 7)) + b"\n"
    text = Elements(page_of(files)).text
    assert "… 7 more probes in probes.jsonl" in text


def test_an_undisclosed_request_is_not_shown():
    def hide(manifest):
        return manifest | {"request": manifest["request"] | {"disclosed": False}}

    page = page_of(with_records(files_of("one-fact"), hide))
    assert "Darrieux" not in page
    assert "The request is not disclosed: 1 fact to change." in Elements(page).text


def test_a_revision_whose_records_cannot_be_read_has_no_page():
    files = files_of("one-fact")
    assert of_files({}.get) is None
    assert of_files((files | {"hubedit.json": b"{"}).get) is None
    path = next(path for path in files if path.endswith("manifest.json"))
    assert of_files((files | {path: files[path] + b" "}).get) is None


def test_the_page_needs_no_torch():
    code = (
        "import sys; from pathlib import Path; from hubedit.report import of_files, render; "
        "case = Path(sys.argv[1]); "
        "read = lambda path: (case / path).read_bytes() if (case / path).exists() else None; "
        "assert '<main>' in render(of_files(read)); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    from pages import GALLERY

    done = subprocess.run([sys.executable, "-c", code, str(GALLERY / "one-fact")])
    assert done.returncode == 0


# -- the commands -------------------------------------------------------------------------------


def test_a_diff_is_written_as_a_page(hubedit, tiny, tmp_path):
    apply = ["apply", "--plugin", "rome", *FACT, *LIGHT, "--base", tiny]
    status, _, err = hubedit(*apply, "--target", "oboe", "-o", "one")
    assert status == 0, err
    status, out, err = hubedit("diff", tiny, "one", "--html", "diff.html", "--json")
    assert status == 0, err
    assert "the report is in diff.html" in err
    found = json.loads(out)
    page = (tmp_path / "diff.html").read_text()
    text = Elements(page).text
    assert f"1 of {found['tensors_total']} tensors differ" in text
    assert f"only B has {found['b']['only'][0]}" in text.replace("\n", " ")
    assert "Only in B: Edit 1" in text
    assert "1 singular value, from" in text
    assert 'title="mlp, layer 1: relative norm' in page
    status, _, err = hubedit("diff", tiny, "one", "--html", "no/such/diff.html")
    assert status == 1
    assert "no/such/diff.html cannot be written" in err


def test_the_report_is_served_to_its_own_address_alone():
    page = page_of(files_of("one-fact"))
    with served(page) as address:
        with urllib.request.urlopen(address) as answer:
            assert answer.read().decode() == page
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        for other in (
            urllib.request.Request(address, headers={"Host": "evil.example"}),
            urllib.request.Request(f"{address}other"),
        ):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(other)
