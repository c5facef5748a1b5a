"""Reports: JSON with its schema, JUnit XML, the HTML page as a browser shows it, pytest."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import jsonschema
import nir
import numpy as np
import pytest
from PIL import Image

from msg_deploy import api, runners
from msg_deploy.checkpoint import save
from msg_deploy.deployment import Deployment
from msg_deploy.exporters.fold import FOLDS, fold_two
from msg_deploy.exporters.onnx.build import OnnxOptions
from msg_deploy.exporters.trace import trace
from msg_deploy.report import html as page
from msg_deploy.report import plots, words
from msg_deploy.report.data import schema, schema_as_text, verdict_as_data, verdict_as_text
from msg_deploy.report.html import verdict_as_html
from msg_deploy.report.junit import verdict_as_junit
from msg_deploy.sim.illustration import SHOWN_NEURONS, SHOWN_SILENT, SHOWN_STEPS, raster
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.verdict import Comparison, Difference, Kind, Verdict
from msg_deploy.stimulus import encoded
from tests.helpers import chain, lif, random_network, samples
from tests.test_cli import refused, run
from tests.test_streaming import CHROMIUM
from tests.test_verdicts import Contrary, tied

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "<script>alert('&\"')</script>\x01$x$"
"""Name of a layer."""


def changed(deployment: Deployment, name: str, **values: Any) -> Deployment:
    graph = deployment.graph
    nodes = {**graph.nodes, name: replace(graph.nodes[name], **values)}
    return deployment.with_graph(nir.NIRGraph(nodes, graph.edges, {}, type_check=False))


def renamed(deployment: Deployment, old: str, new: str) -> Deployment:
    graph = deployment.graph
    nodes = {new if name == old else name: node for name, node in graph.nodes.items()}
    edges = [tuple(new if end == old else end for end in edge) for edge in graph.edges]
    return deployment.with_graph(nir.NIRGraph(nodes, edges, {}, type_check=False))


def made() -> dict[str, Verdict]:
    """One of each kind, and some more."""
    network = trace(random_network(hidden=(48, 12)))
    wrong = changed(network, "lif1", v_threshold=network.graph.nodes["lif1"].v_threshold * 1.5)
    inputs = np.zeros((2, 3, 3), np.float32)
    inputs[0, 0] = 1
    with pytest.MonkeyPatch.context() as patch:
        known = {"reference": Reference, "norse": Contrary}
        patch.setattr(runners, "_engine", lambda name, runtime: known[name]())
        ties = api.check(
            tied(), tied(), inputs, ["norse"], random=0, precision="float32", illustrate=True
        )
    other = chain(nir.Linear(np.ones((2, 3))), lif((2,)), inputs=[3], outputs=[2])
    alone = chain(lif((3,)), inputs=[3], outputs=[3])
    return {
        "PROVEN": api.check(network, network, random=8, illustrate=True),
        "IDENTICAL": api.check(network, network, random=8, certify=False),
        "TIES": ties,
        "DIVERGENT": api.check(network, wrong, random=8, illustrate=True),
        "INCOMPARABLE": api.check(alone, other, random=2, illustrate=True),
        "hostile": api.check(
            renamed(network, "lif1", HOSTILE), renamed(wrong, "lif1", HOSTILE), random=8,
            illustrate=True,
        ),
        "other steps": api.check(network, trace(random_network(steps=7)), illustrate=True),
        "folded by leak": api.check(
            network, fold_two(network, "leak"), random=8, illustrate=True
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def verdicts() -> Mapping[str, Verdict]:
    return made()


KINDS = [kind.value for kind in Kind]
NAMES = [*KINDS, "hostile", "other steps", "folded by leak"]
each = pytest.mark.parametrize("name", NAMES)


def test_there_is_one_of_each_kind(verdicts: Mapping[str, Verdict]) -> None:
    assert list(verdicts) == NAMES
    assert [verdicts[kind].kind.value for kind in KINDS] == KINDS


# JSON.


def test_the_published_schema_is_up_to_date() -> None:
    published = (ROOT / "docs" / "report-schema.json").read_text()
    assert published == schema_as_text(), "run `make docs`"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


@each
def test_reports_are_as_the_schema_says(verdicts: Mapping[str, Verdict], name: str) -> None:
    report = json.loads(verdict_as_text(verdicts[name]))
    jsonschema.validate(report, schema())
    assert report["schema"] == 1
    assert report["verdict"] == verdicts[name].kind
    assert "illustration" not in report


def forms(of: Any) -> Iterator[dict[str, Any]]:
    """All objects of a schema."""
    yield from (form for form in (of, *of["$defs"].values()) if "properties" in form)


def test_the_schema_says_what_everything_is() -> None:
    for form in forms(schema()):
        assert form["description"]
        for name, field in form["properties"].items():
            assert field.get("description"), (form["title"], name)


def test_the_schema_refuses_what_is_no_report(verdicts: Mapping[str, Verdict]) -> None:
    for change in ({"schema": 2}, {"verdict": "FINE"}, {"spikes": "many"}, {"parameters": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(verdict_as_data(verdicts["PROVEN"]) | change, schema())
    short = verdict_as_data(verdicts["PROVEN"])
    del short["comparisons"][0]["layers"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(short, schema())


def test_numbers_that_json_lacks_are_texts() -> None:
    first = Difference("n", 0, "score", 0, 0, (1,), math.nan, -math.inf)
    verdict = Verdict((Comparison("a", "b", 1, first=first, score_difference=math.inf),))

    def strict(text: str) -> Any:
        raise AssertionError(text)

    report = json.loads(verdict_as_text(verdict), parse_constant=strict)
    jsonschema.validate(report, schema())
    compared = report["comparisons"][0]
    assert (compared["first"]["a"], compared["first"]["b"]) == ("NaN", "-Infinity")
    assert compared["score_difference"] == "Infinity"


# JUnit XML.

SUITE = {"name", "tests", "failures", "errors", "skipped"}
INSIDE = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "system-out"},
}
"""What junit-10.xsd of the xUnit plugin allows of what we write."""


def suites(text: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    assert set(root.attrib) <= {"name", "tests", "failures", "errors", "time", "disabled"}
    for element in root.iter():
        assert {child.tag for child in element} <= INSIDE.get(element.tag, set())
    for counted in ("tests", "failures", "errors"):
        assert int(root.attrib[counted]) == sum(int(s.attrib[counted]) for s in root)
    for suite in root:
        assert set(suite.attrib) == SUITE
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases) > 0
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))
        assert len({case.attrib["name"] for case in cases}) == len(cases)
        assert next(child.tag for child in suite) == "properties"
        for case in cases:
            assert set(case.attrib) == {"classname", "name"}
            assert len(case) <= 1
        for found in (*suite.iter("failure"), *suite.iter("error")):
            assert set(found.attrib) == {"message", "type"}
            assert found.text
    return list(root)


@each
def test_junit_fails_where_the_check_does(verdicts: Mapping[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    found = suites(verdict_as_junit(verdict))
    assert [s.attrib["name"] for s in found] == ["models", *map(words.pair, verdict.comparisons)]
    bad = sum(int(suite.attrib["failures"]) + int(suite.attrib["errors"]) for suite in found)
    assert (bad == 0) == bool(verdict)
    for suite, comparison in zip(found[1:], verdict.comparisons, strict=True):
        if not comparison.missing:
            cases = [case.attrib["name"] for case in suite.findall("testcase")]
            layers = [layer.node.replace("\x01", "\ufffd") for layer in comparison.layers]
            assert cases == [*layers, "scores", "decisions"]
            failed = len(suite.findall("testcase/failure"))
            assert (failed > 0) == (comparison.kind in (Kind.TIES, Kind.DIVERGENT))


def test_a_failure_says_where_and_why(verdicts: Mapping[str, Verdict]) -> None:
    found = suites(verdict_as_junit(verdicts["DIVERGENT"]))
    failure = found[1].find("testcase[@name='lif1']/failure")
    assert failure is not None
    assert failure.attrib["type"] == "DIVERGENT"
    assert ", first in lif1 at step " in failure.attrib["message"]
    assert failure.text is not None
    assert "first difference in lif1 at step " in failure.text
    assert "behaves as if v_threshold is 1.5 times 0.5" in failure.text
    later = found[1].find("testcase[@name='lif2']/failure")
    assert later is not None
    assert "differs only because of what it receives" in str(later.text)
    parameters = found[0].find("testcase[@name='parameters']/failure")
    assert parameters is not None
    assert parameters.attrib["message"] == "parameters differ: lif1.v_threshold"
    assert "lif1.v_threshold: 48 of 48" in str(parameters.text)
    scores = found[1].find("testcase[@name='scores']/failure")
    assert scores is not None
    assert scores.attrib["message"].startswith("scores differ by ")


def test_ties_can_be_accepted(verdicts: Mapping[str, Verdict]) -> None:
    text = verdict_as_junit(verdicts["TIES"], accept_ties=True)
    found = suites(text)
    assert not any(int(suite.attrib["failures"]) for suite in found)
    assert "first difference in n1" in str(found[1].findtext("testcase/system-out"))
    refused = suites(verdict_as_junit(verdicts["DIVERGENT"], accept_ties=True))
    assert int(refused[1].attrib["failures"]) > 0


# What is shown of a sample.


def test_a_raster_shows_what_differs_first() -> None:
    a = np.zeros((6, 4, 50), np.uint8)
    b = a.copy()
    a[0, 1, :40] = b[0, 1, :40] = 1
    a[3, 2, 7] = b[2, 3, 49] = 1
    found = raster("n", a, b)
    assert (found.size, found.differing, found.active, found.steps) == (200, 2, 42, 6)
    assert len(found.neurons) == SHOWN_NEURONS
    assert found.neurons[0] == (1, 0)
    assert found.neurons[-2:] == ((2, 7), (3, 49))
    assert found.a.shape == found.b.shape == (6, SHOWN_NEURONS)
    assert np.argwhere(found.a != found.b).tolist() == [[2, 31], [3, 30]]
    silent = raster("n", a * 0, b * 0)
    assert len(silent.neurons) == SHOWN_SILENT


def test_a_long_raster_shows_the_steps_around_the_first_difference() -> None:
    a = np.zeros((500, 3), np.uint8)
    b = a.copy()
    for late, start in ((300, 300 - SHOWN_STEPS // 4), (2, 0), (499, 500 - SHOWN_STEPS)):
        b[:] = 0
        b[late, 1] = 1
        found = raster("n", a, b)
        assert (found.start, len(found.b)) == (start, SHOWN_STEPS)
        assert found.b[late - start, 0] == 1


def test_the_illustrated_sample_is_the_first_that_differs() -> None:
    network = trace(random_network())
    threshold = network.graph.nodes["lif1"].v_threshold.copy()
    threshold[3] += 0.05
    wrong = changed(network, "lif1", v_threshold=threshold)
    verdict = api.check(network, wrong, random=200, illustrate=True, diagnose=False)
    first = verdict.comparisons[0].first
    assert first is not None
    shown = verdict.illustration
    assert shown is not None
    assert shown.sample == first.sample
    assert [r.node for r in shown.rasters] == [x.node for x in verdict.comparisons[0].layers]
    found = next(r for r in shown.rasters if r.node == first.node)
    place = first.step - found.start, found.neurons.index(first.neuron)
    assert (found.a[place], found.b[place]) == (first.a, first.b)


def test_nothing_is_run_again_unless_it_is_wanted(verdicts: Mapping[str, Verdict]) -> None:
    assert verdicts["IDENTICAL"].illustration is None
    incomparable = verdicts["INCOMPARABLE"].illustration
    assert incomparable is not None
    assert incomparable.sample is None
    assert [side for side, _ in incomparable.graphs] == ["left", "right"]


@pytest.mark.parametrize("fold", FOLDS)
def test_kernels_are_measured(fold: Any) -> None:
    network = trace(random_network())
    folded = fold_two(network, fold)
    assert network.readout is not None
    verdict = api.check(network, folded, random=4, illustrate=True)
    assert verdict.illustration is not None
    found = verdict.illustration.kernel
    assert found is not None
    assert (found.fold, found.measured) == (fold, "pulses")
    assert found.weights == network.readout.weights
    assert folded.readout is not None
    # Stated is the worse of float32 and float64.
    assert found.error <= folded.readout.error + 1e-12
    assert (found.error > 1e-3) == (fold == "leak")


def test_a_kernel_is_that_of_the_worst_class() -> None:
    folded = fold_two(trace(random_network()), "delay")
    scale = folded.graph.nodes["readout.scale_2"].scale.copy()
    scale[4] *= 1.5
    wrong = changed(folded, "readout.scale_2", scale=scale)
    verdict = api.check(folded, wrong, random=4, illustrate=True)
    assert verdict.illustration is not None
    found = verdict.illustration.kernel
    assert found is not None
    assert found.output == 4
    assert found.error == pytest.approx(scale[4] / 3)


def test_the_kernel_of_an_onnx_model_is_read_off_a_run(tmp_path: Path) -> None:
    network = random_network()
    api.export_onnx(network, tmp_path / "m.onnx", OnnxOptions())
    verdict = api.check(network, tmp_path / "m.onnx", random=32, illustrate=True)
    assert verdict.illustration is not None
    found = verdict.illustration.kernel
    if found is None:
        assert not api.open_model(tmp_path / "m.onnx").onnx.contract.currents
    else:
        assert found.measured == "currents"
        assert found.error < 1e-4


def test_a_recording_is_illustrated(tmp_path: Path) -> None:
    network = trace(random_network(hidden=(12, 7)))
    inputs = samples(6)
    found = Reference().run(network, encoded(network, inputs))
    spikes = {f"spikes_{name}": s.swapaxes(0, 1) for name, s in found.spikes.items()}
    spikes["spikes_lif2"][4, 2, 5] ^= 1
    # Made by hand, with nothing but spikes and scores.
    np.savez(tmp_path / "chip.npz", samples=inputs, scores=found.scores, **spikes)
    for sides in ((tmp_path / "chip.npz", network), (network, tmp_path / "chip.npz")):
        verdict = api.check(*sides, simulators=None, illustrate=True)
        assert verdict.illustration is not None
        assert verdict.illustration.sample == 4
        differing = {r.node: r.differing for r in verdict.illustration.rasters}
        assert differing == {"lif1": 0, "lif2": 1}
        assert "chip.npz" in verdict_as_html(verdict)
    del spikes["spikes_lif1"]
    np.savez(tmp_path / "part.npz", samples=inputs, scores=found.scores, **spikes)
    part = api.check(tmp_path / "part.npz", network, illustrate=True)
    text = verdict_as_html(part)
    assert 'not recorded on both sides: <span class="mono">lif1</span>.' in text
    Tree(text)


def test_a_rate_may_be_unknown(verdicts: Mapping[str, Verdict]) -> None:
    verdict = verdicts["PROVEN"]
    comparison = verdict.comparisons[0]
    layers = tuple(replace(layer, fired_b=None, margins=None) for layer in comparison.layers)
    text = verdict_as_html(replace(verdict, comparisons=(replace(comparison, layers=layers),)))
    assert 'id="margins"' not in text
    assert "<td>\u2013</td>" in text


# The page.


class Tree(HTMLParser):
    """Checks that elements are closed in order, and collects them."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@each
def test_the_page_is_whole_and_needs_nothing_else(
    verdicts: Mapping[str, Verdict], name: str
) -> None:
    text = verdict_as_html(verdicts[name])
    tree = Tree(text)
    names = {tag for tag, _ in tree.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "image", "base", "form"}
    for tag, attributes in tree.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "data", "action"):
                assert str(value).startswith("#"), (tag, value)
    outside = text.replace("http://www.w3.org/2000/svg", "")
    assert "://" not in outside
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {
        f"#{attributes['id']}" for _, attributes in tree.elements if "id" in attributes
    }
    policy = next(m for m in tree.all("meta") if m.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@each
def test_the_page_can_be_read_without_seeing_it(verdicts: Mapping[str, Verdict], name: str) -> None:
    text = verdict_as_html(verdicts[name])
    tree = Tree(text)
    ids = [a["id"] for _, a in tree.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in tree.all("a", "use")} <= set(ids)
    assert {a["aria-labelledby"] for _, a in tree.elements if "aria-labelledby" in a} <= set(ids)
    levels = [int(tag[1]) for tag, _ in tree.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    tables = len(tree.all("table"))
    assert len(tree.all("caption")) == tables
    assert all(cell.get("scope") in ("row", "col") for cell in tree.all("th"))
    for svg in tree.all("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("aria-label")
    assert tree.all("html")[0]["lang"] == "en"
    first = next(a for tag, a in tree.elements if tag == "a")
    assert first == {"class": "skip", "href": "#verdict"}
    kind = verdicts[name].kind
    assert page.SYMBOLS[kind] in text
    assert all(line for line in words.advice(verdicts[name]))
    assert words.advice(verdicts[name])


@each
def test_the_same_verdict_gives_the_same_page(verdicts: Mapping[str, Verdict], name: str) -> None:
    assert verdict_as_html(verdicts[name]) == verdict_as_html(verdicts[name])


def test_names_are_only_names(verdicts: Mapping[str, Verdict]) -> None:
    verdict = verdicts["hostile"]
    text = verdict_as_html(verdict)
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    suites(verdict_as_junit(verdict))
    shown = replace(verdict, illustration=None)
    assert "<script" not in verdict_as_html(shown)


def test_plots_have_the_colors_of_the_page(verdicts: Mapping[str, Verdict]) -> None:
    text = verdict_as_html(verdicts["DIVERGENT"])
    body = text[text.index("</head>") :]
    figures = re.findall(r"<figure>.*?</figure>", body, re.DOTALL)
    assert len(figures) >= 5
    graph = [f for f in figures if 'class="graph-' in f]
    for figure in figures:
        if figure not in graph:
            assert not re.findall(r"#[0-9a-f]{6}\b", figure)
            assert not re.findall(r"rgb\(", figure)
    assert len(graph) == 2
    assert set(re.findall(r"var\(--(\w+)\)", body)) >= {"left", "right", "bad", "line", "muted"}


# Contrast, as in WCAG 2.2.


def palette(dark: bool) -> dict[str, str]:
    css = (ROOT / "msg_deploy" / "report" / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 2
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert found[0].keys() == found[1].keys()
    return found[dark]


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colors_can_be_told_from_what_they_are_on(dark: bool) -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    colors = palette(dark)
    for name in ("ink", "muted", "link", "left", "right", "good", "fair", "bad"):
        assert contrast(colors[name], colors["page"]) >= 4.5, name
    for name in ("ink", "muted", "link"):
        assert contrast(colors[name], colors["panel"]) >= 4.5, name
    for tone in ("good", "fair", "bad"):
        for name in ("ink", "muted", tone):
            assert contrast(colors[name], colors[f"{tone}-panel"]) >= 4.5, (tone, name)


# In a browser.

DARK = "--blink-settings=preferredColorScheme=0"
PROBE = """<script>
const all = [...document.querySelectorAll("figure > svg")].filter(e => e.checkVisibility());
const found = JSON.stringify({
  width: innerWidth,
  needed: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  page: getComputedStyle(document.body).backgroundColor,
  text: getComputedStyle(document.body).color,
  plots: all.map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]),
  label: getComputedStyle(document.querySelector("figure > svg text")).fill,
  reached: [...document.querySelectorAll("a, summary, [tabindex='0']")].filter(e => {
    e.focus();
    return document.activeElement === e && getComputedStyle(e).outlineStyle !== "none";
  }).length,
  reachable: [...document.querySelectorAll("a, summary, [tabindex='0']")]
    .filter(e => e.checkVisibility()).length,
});
if (parent === window) show(found);
else parent.postMessage(found, "*");
function show(text) {
  const element = document.createElement("pre");
  element.id = "found";
  element.textContent = text;
  document.body.append(element);
}
</script>"""
FRAME = """<!doctype html><body style="margin: 0">
<iframe src="probe.html" style="border: 0; width: {width}px; height: 3000px"></iframe>
<script>addEventListener("message", event => {{
  const element = document.createElement("pre");
  element.id = "found";
  element.textContent = event.data;
  document.body.append(element);
}})</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("Chromium is not installed")
    return found


def open_page(browser: str, folder: Path, name: str, *options: str) -> str:
    """What the browser prints; its window is at least 500 pixels wide."""
    flags = [*CHROMIUM, "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", *options]
    shown = subprocess.run(
        [browser, *flags, (folder / name).as_uri()], capture_output=True, text=True, timeout=120
    )
    return shown.stdout


def measured(
    browser: str, folder: Path, text: str, width: int, opened: bool, dark: bool
) -> dict[str, Any]:
    """What a script finds in a copy of the page, in a frame of that width."""
    probe = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    if opened:
        probe = probe.replace("<details>", "<details open>")
    (folder / "probe.html").write_text(probe.replace("</body>", f"{PROBE}</body>"))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    options = ["--dump-dom", "--window-size=1400,3000", *([DARK] if dark else [])]
    shown = open_page(browser, folder, "frame.html", *options)
    found = re.search(r'<pre id="found">(.*?)</pre>', shown)
    assert found, shown[-2000:]
    result: dict[str, Any] = json.loads(found[1])
    return result


@pytest.mark.parametrize(
    ("name", "opened"), [("DIVERGENT", True), ("DIVERGENT", False), ("PROVEN", False)]
)
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_in_a_browser(
    browser: str,
    verdicts: Mapping[str, Verdict],
    tmp_path: Path,
    name: str,
    opened: bool,
    width: int,
    dark: bool,
) -> None:
    text = verdict_as_html(verdicts[name])
    colors = palette(dark)

    def rgb(color: str) -> str:
        return f"rgb({', '.join(str(int(colors[color][i : i + 2], 16)) for i in (1, 3, 5))})"

    found = measured(browser, tmp_path, text, width, opened, dark)
    assert found["dark"] is dark
    assert found["width"] == width
    assert found["needed"] <= width
    assert (found["page"], found["text"]) == (rgb("page"), rgb("ink"))
    assert found["label"] in (rgb("muted"), rgb("ink"))
    assert len(found["plots"]) >= (9 if opened else 4)
    assert all(w > 150 and h > 30 for w, h in found["plots"])
    # With the keyboard, and to be seen where one is.
    assert found["reached"] == found["reachable"] > 5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_screenshot_shows_something(
    browser: str, verdicts: Mapping[str, Verdict], tmp_path: Path, dark: bool
) -> None:
    (tmp_path / "report.html").write_text(verdict_as_html(verdicts["DIVERGENT"]))
    shot = tmp_path / "shot.png"
    options = [f"--screenshot={shot}", "--window-size=1100,4000", *([DARK] if dark else [])]
    open_page(browser, tmp_path, "report.html", *options)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    colors = palette(dark)

    def count(name: str) -> int:
        wanted = [int(colors[name][i : i + 2], 16) for i in (1, 3, 5)]
        return int((pixels == wanted).all(axis=2).sum())

    assert count("page") > 0.5 * pixels[..., 0].size
    # Verdict, plots of both sides, and marks of what differs.
    for name in ("bad-panel", "bad", "left", "right", "ink", "muted", "panel"):
        assert count(name) > 50, name


# On the command line and in pytest.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(random_network(hidden=(48, 12)), folder / "model.pt")
    api.export(folder / "model.pt", folder / "model.nir")
    shutil.copy(folder / "model.nir", folder / "wrong.nir")
    with h5py.File(folder / "wrong.nir", "r+") as content:
        content["node/nodes/fc2/bias"][...] = 0
    return folder


CHECK = ("equivalence-check", "model.pt", "wrong.nir", "--random", 8)


@pytest.mark.slow
def test_all_reports_at_once(models: Path, tmp_path: Path) -> None:
    files = tmp_path / "report.html", tmp_path / "report.xml"
    result = run(*CHECK, "--html", files[0], "--junit", files[1], "--json", cwd=models)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    jsonschema.validate(report, schema())
    assert report["verdict"] == "DIVERGENT"
    text = files[0].read_text()
    assert "<title>DIVERGENT: model.pt against wrong.nir</title>" in text
    assert "the bias is missing" in text
    assert "the bias is missing" in str(suites(files[1].read_text())[1].findtext(".//failure"))
    again = run(*CHECK, "--html", files[0], cwd=models)
    assert again.returncode == 1
    assert f"wrote {files[0]}" in again.stdout
    assert files[0].read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.xml"]


@pytest.mark.parametrize("option", ["--html", "--junit"])
def test_a_report_that_cannot_be_written_is_refused_first(models: Path, option: str) -> None:
    # Before anything is run: the models are not even looked for.
    words = ("equivalence-check", "none.pt", "none.nir", option, "missing/report")
    refused(run(*words, cwd=models), "missing/report", "existing directory")


def test_heavy_libraries_are_imported_for_a_page_alone() -> None:
    code = (
        "import sys; from msg_deploy import api, cli, console; "
        "from msg_deploy.report import data, html, illustrate, junit; "
        "sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


ASSERTIONS = """
import msg_deploy

def test_right():
    assert msg_deploy.check("model.pt", "model.nir", random=8)

def test_wrong():
    assert msg_deploy.check("model.pt", "wrong.nir", random=8)
"""


def test_pytest_shows_the_diagnosis(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    (tmp_path / "test_export.py").write_text(ASSERTIONS)
    result = run("pytest", "-q", "-p", "no:cacheprovider", "test_export.py", cwd=tmp_path)
    assert result.returncode == 1
    assert "1 failed, 1 passed" in result.stdout
    line = next(x for x in result.stdout.splitlines() if x.startswith("E ") and "assert" in x)
    assert "assert <DIVERGENT: " in line
    assert "lif2: the bias is missing in fc2 (bias" in line
    assert "first in lif2 at step " in line
    assert line.endswith(">")


@each
def test_a_verdict_in_short_and_at_length(verdicts: Mapping[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    assert len(repr(verdict)) <= 240
    assert repr(verdict).startswith(f"<{verdict.kind}: ")
    assert "\n" not in repr(verdict)
    assert str(verdict).splitlines()[-1].startswith(f"{verdict.kind}: ")
    assert len(words.meaning(verdict)) > 40


def test_marks_and_histograms_are_of_all_that_is_reported() -> None:
    assert set(page.SYMBOLS) == set(page.TONES) == set(words.MEANINGS) == set(words.ADVICE)
    assert set(words.ADVICE) == set(Kind)
    assert len(set(page.SYMBOLS.values())) == len(Kind)
    assert is_dataclass(Verdict)
    hidden = [f.name for f in fields(Verdict) if not f.metadata.get("reported", True)]
    assert hidden == ["illustration"]
    assert set(plots.COLORS) <= set(palette(dark=True))
