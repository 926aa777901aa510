"""How reports look as HTML, as files and inside of notebooks, and what scripts add to files.

Colours are variables. A file follows what its reader prefers; inside of others' pages, what these
say of themselves comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from convdsl.drawing.svg import rules, style

COLOURS = {
    # variable: light, dark
    "back": ("#fff", "#14171c"),
    "ink": ("#1b2027", "#e6e9ee"),
    "faint": ("#59626f", "#a0a9b6"),
    "rule": ("#dfe3e9", "#2d333d"),
    "bar": ("#cfe1f5", "#24476c"),
    "soft": ("#f6f7f9", "#1b1f26"),
    "link": ("#22588f", "#8fc0f2"),
    "error": ("#b3261e", "#ff7b72"),
    "warning": ("#8a6100", "#e3b341"),
}

ON_PAPER = {
    "back": "#fff",
    "ink": "#000",
    "faint": "#444",
    "rule": "#bbb",
    "bar": "#d5e4f4",
    "soft": "#fff",
}

HOSTS = (
    # what pages of notebooks and of documentation call themselves: light, dark
    ("body[data-jp-theme-light=true]", "body[data-jp-theme-light=false]"),  # Jupyter
    (".vscode-light", ".vscode-dark"),  # VS Code
    ("html[theme=light]", "html[theme=dark]"),  # Colab
    ("body[data-theme=light]", "body[data-theme=dark]"),  # Sphinx with furo
)

SCOPE = ".convdsl"
"""What is shown inside of others' pages is of this class."""

FILE = """
* { box-sizing: border-box }
html { scroll-padding-top: 3rem }
body { margin: 0 auto; padding: 1.5rem; max-width: 1240px; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.7rem }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; border-bottom: 1px solid var(--rule) }
footer { margin-top: 3rem }
th { position: sticky; top: 0 }
th button { all: unset; cursor: pointer }
th button:focus-visible { outline: 2px solid var(--link) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
input[type=search] { font: inherit; margin: .4rem 0; padding: .25rem .5rem; width: 20rem;
  max-width: 100%; background: var(--back); color: var(--ink); border: 1px solid var(--rule) }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt }
  .drawing svg, .chart svg { max-width: 100%; max-height: 160mm; width: auto; height: auto }
  section, figure, tr, .totals div { break-inside: avoid-page }
  section:has(table) { break-inside: auto }
  h2 { break-after: avoid-page }
  th { position: static; white-space: normal }
  table { font-size: 7pt }
  th, td { padding: .1rem .2rem }
  .blocks > p, .blocks details:not([open]), #layers :is(th, td):nth-child(9) { display: none }
  input[type=search] { display: none }
}
"""
"""Of files alone."""

PARTS = """
p { margin: .3rem 0 }
a { color: var(--link) }
.small, footer { color: var(--faint); font-size: .9rem }
.signature { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .9rem;
  overflow-wrap: anywhere }
.totals { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 .5rem }
.totals div { background: var(--soft); border: 1px solid var(--rule); border-radius: .4rem;
  padding: .4rem .8rem }
dt { color: var(--faint); font-size: .8rem }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums }
figure { margin: 0; overflow-x: auto }
.chart svg { max-width: 100%; height: auto }
.graph { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start }
.graph > .drawing { max-width: 100% }
.blocks { flex: 1 1 420px; min-width: 0 }
.drawing a:hover rect, .drawing a:focus rect { stroke-width: 2.5 }
details { margin: .25rem 0 }
.blocks details { border-left: 2px solid var(--rule); padding-left: .6rem }
summary { cursor: pointer; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; width: 100% }
th { background: var(--back); text-align: left; padding: .3rem .6rem;
  border-bottom: 2px solid var(--rule); white-space: nowrap }
td { padding: .15rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top }
td:first-child { font-family: ui-monospace, Menlo, Consolas, monospace; min-width: 12em;
  overflow-wrap: anywhere }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td:last-child { white-space: nowrap }
td.n { background: linear-gradient(to left, var(--bar) var(--s, 0%), transparent 0);
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
"""
"""Of what files and notebooks have in common."""

EMBEDDED = """
background: var(--back); color: var(--ink); font: 14px/1.5 system-ui, sans-serif; padding: .4rem;
max-width: 1240px;
* { box-sizing: border-box }
h3 { margin: 0; font-size: 1.15rem; color: var(--ink) }
table { table-layout: auto; margin: 0; border: none }
th, td { text-align: left; max-width: none }
.n { text-align: right }
tr { background: none }
.totals { margin: .5rem 0 }
.totals div { padding: .2rem .6rem }
dt, dd { float: none; margin: 0; width: auto; font-weight: normal }
@media screen { .graph > .drawing { max-height: 44rem; overflow: auto } }
pre { margin: .3rem 0; padding: .4rem .6rem; overflow-x: auto; background: var(--soft);
  color: var(--ink); border: 1px solid var(--rule); font: 12.5px/1.45 ui-monospace, Menlo, Consolas,
  'DejaVu Sans Mono', monospace }
.said-error { color: var(--error); font-weight: bold }
.said-warning { color: var(--warning); font-weight: bold }
.said-place { color: var(--link) }
.said-strong { font-weight: bold }
progress { width: 16rem; max-width: 40vw; vertical-align: middle }
"""
"""Of what stands inside of others' pages alone; over their rules for tables and lists."""


@cache
def file_style() -> str:
    """The style sheet of a file."""
    paper = ":root { " + _variables(ON_PAPER) + " }"
    return "\n".join(
        [
            *_light_and_dark(":root"),
            FILE + PARTS,
            f"@media print {{ {paper} }}",
            style("auto"),
        ]
    )


@cache
def embedded_style() -> str:
    """The style sheet of what stands inside of others' pages, and changes nothing else there."""
    firmly = SCOPE + SCOPE  # hosts have rules for tables by a class and a tag
    sheet = [*_light_and_dark(SCOPE), f"{firmly} {{ {PARTS}{EMBEDDED} }}", style("auto", SCOPE)]
    for which in (0, 1):
        hosts = f":is({', '.join(host[which] for host in HOSTS)}) {SCOPE}"
        sheet += [f"{hosts} {{ {_variables(_of(which))} }}", rules(which, hosts)]
    return "\n".join(sheet)


def _light_and_dark(where: str) -> Iterator[str]:
    yield f"{where} {{ {_variables(_of(0))} }}"
    dark = f"{where} {{ {_variables(_of(1))} }}"
    yield f"@media (prefers-color-scheme: dark) {{ {dark} }}"


def _of(which: int) -> dict[str, str]:
    return {name: colours[which] for name, colours in COLOURS.items()}


def _variables(values: Mapping[str, str]) -> str:
    return "; ".join(f"--{name}: {value}" for name, value in values.items())


SCRIPT = """
const table = document.getElementById('layers'), body = table.tBodies[0];
const rows = [...body.rows], value = (row, at, number) =>
  number ? +row.cells[at].dataset.v : row.cells[at].textContent;
[...table.tHead.rows[0].cells].forEach((th, at) => {
  const button = document.createElement('button'), number = th.className === 'n';
  button.append(...th.childNodes);
  th.append(button);
  button.onclick = () => {
    const up = th.ariaSort ? th.ariaSort === 'descending' : !number;
    for (const other of th.parentNode.cells) other.ariaSort = null;
    th.ariaSort = up ? 'ascending' : 'descending';
    const order = new Intl.Collator(undefined, { numeric: true });
    const found = [...rows].sort((a, b) => {
      const x = value(a, at, number), y = value(b, at, number);
      return (up ? 1 : -1) * (number ? x - y : order.compare(x, y));
    });
    body.append(...found);
  };
});
const search = document.createElement('input');
search.type = 'search';
search.placeholder = 'layers whose name or operator has ...';
search.oninput = () => {
  const words = search.value.toLowerCase();
  for (const row of rows) row.hidden =
    !(row.cells[0].textContent + ' ' + row.cells[1].textContent).toLowerCase().includes(words);
};
table.parentNode.before(search);
const open = () => {
  const place = location.hash && document.getElementById(location.hash.slice(1));
  for (let at = place; at; at = at.parentElement) if (at.tagName === 'DETAILS') at.open = true;
  if (place) place.parentElement.scrollIntoView();
};
addEventListener('hashchange', open);
document.addEventListener('click', event => {
  const link = event.target.closest('a');
  if (link && link.getAttribute('href') === location.hash) open();
});
open();
"""
