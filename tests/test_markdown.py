"""Other people's text on a page: it shows, and does nothing."""

import re
import subprocess
import sys
import unicodedata
from importlib import resources

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import nodes
from markdown_it import MarkdownIt

from hubedit import markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ACTIVE = st.sampled_from(
    [
        *"\\`|*_~$[](){}<>#+-=!&:@ \n\t",
        *("``", "~~", "$$", "<b>", "<!--", "-->", "&amp;", "&#60;", "1. ", "---", "](x)", "|--|"),
        *("https://a.bc/d", "www.a.bc", "a@b.cd", "@me", "mailto:a@b.cd", "\u202e", "\u200d"),
    ]
)
TEXTS = st.lists(st.one_of(ACTIVE, st.text(max_size=4)), max_size=12).map("".join)
AUTOLINK = re.compile(r"https?://|www\.|\S@\w")
FREE_OF_FILTERS = {"begins", "front_matter", "heat", "starts", "ends"}


def tokens(text):
    found = []
    for token in PARSER.parse(text):
        found += [token, *(token.children or [])]
    return found


def said(token):
    return "".join(child.content for child in token.children or [])


def plain(text):
    return " ".join(markdown.visible(text).split()) or "(empty)"


@given(TEXTS)
@example("a\\|b")
@example("http://a.bc|`")
@example("__init__")
@example("| --- |")
def test_a_table_keeps_its_cells_whatever_is_in_them(text):
    row = f"| {markdown.md(text)} | {markdown.cell(text)} | end |"
    found = tokens(f"| A | B | C |\n|:--|:--|:--|\n{row}\n\nafter\n")
    cells = [said(token) for token in found if token.type == "inline"]
    assert len(cells) == 7
    assert cells[:3] == ["A", "B", "C"]
    assert cells[3] == plain(text)
    shown = cells[4].replace("⟨U+007C⟩", "|").replace("␣", " ")
    assert shown.split() == (markdown.visible(text).split() or shown.split())
    assert cells[5:] == ["end", "after"]


@given(TEXTS)
@example("- a")
@example("1. a")
@example("# a")
@example("=====")
def test_prose_is_a_paragraph_that_shows_the_text(text):
    found = tokens(f"before\n\n{markdown.md(text)}\n\n- {markdown.md(text)}\n")
    kinds = [token.type for token in found if token.type.endswith("_open") and token.level < 2]
    assert [kind for kind in kinds if kind not in {"em_open"}] == [
        "paragraph_open",
        "paragraph_open",
        "bullet_list_open",
        "list_item_open",
    ]
    assert [said(token) for token in found if token.type == "inline"] == [
        "before",
        plain(text),
        plain(text),
    ]


@given(TEXTS)
def test_nothing_in_prose_or_code_is_a_link_or_markup(text):
    found = tokens(f"{markdown.md(text)}\n\n{markdown.code(text)}\n")
    kinds = {token.type for token in found}
    assert kinds <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special", "code_inline"),
        *(("em_open", "em_close") if not text.strip() else ()),
    }
    for token in found:
        if token.type == "text" and token.content != plain(""):
            assert not AUTOLINK.search(token.content)


@given(st.text())
def test_nothing_invisible_is_left_in_visible_text(text):
    for character in markdown.visible(text):
        kind = unicodedata.category(character)
        assert kind not in {"Cc", "Cs", "Zl", "Zp"}
        assert kind != "Cf" or character in "\u200c\u200d"


def test_joiners_stay_where_a_script_or_an_emoji_needs_them():
    assert markdown.visible("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"
    assert markdown.visible("pass\u200dword") == "pass⟨U+200D⟩word"


def test_spaces_at_the_ends_of_code_are_shown():
    assert markdown.code(" a b  ") == "`␣a b␣␣`"


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0 %"), (1, "100 %"), (0.9999, ">99.9 %"), (0.00001, "<0.01 %"), (2 / 3, "66.7 %")],
)
def test_a_percentage_never_rounds_to_none_or_to_all(share, shown):
    assert markdown.percent(share) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 B"), (1000, "1.0 kB"), (9960, "10 kB"), (999_600, "1.0 MB")]
)
def test_sizes_are_decimal(count, shown):
    assert markdown.nbytes(count) == shown


def test_a_citation_links_to_papers_alone():
    text = "Us, https://evil.example/x and arXiv:2202.05262, https://arxiv.org@evil.example/x"
    links = [token.attrs["href"] for token in tokens(markdown.citation(text)) if token.attrs]
    assert links == ["https://arxiv.org/abs/2202.05262"]


TEMPLATES = sorted(path.name for path in resources.files("hubedit").joinpath("templates").iterdir())


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name.endswith(".html")])
def test_no_value_of_a_page_escapes_being_escaped(name):
    source = resources.files("hubedit").joinpath("templates", name).read_text("utf-8")
    for node in markdown.environment().parse(source).find_all((nodes.Filter, nodes.MarkSafe)):
        assert isinstance(node, nodes.Filter)
        assert node.name != "safe"
    assert "autoescape" not in source


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name.endswith(".md")])
def test_every_value_of_a_template_passes_a_filter(name):
    source = resources.files("hubedit").joinpath("templates", name).read_text("utf-8")
    for output in markdown.environment().parse(source).find_all(nodes.Output):
        for node in output.nodes:
            if isinstance(node, nodes.Filter):
                assert node.name in markdown.FILTERS
            elif isinstance(node, nodes.Name):
                assert node.name in FREE_OF_FILTERS
            else:
                assert isinstance(node, nodes.TemplateData)


def test_a_template_that_names_an_unknown_value_fails():
    with pytest.raises(jinja2.UndefinedError):
        markdown.render("diff.md")


def test_rendering_loads_nothing_heavy():
    code = (
        "import sys, hubedit.card, hubedit.diff, hubedit.markdown; hubedit.markdown.environment();"
        "print([n for n in ('torch', 'transformers', 'rich', 'matplotlib', 'huggingface_hub')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
