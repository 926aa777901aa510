"""How the HTML report looks, and what scripts add to it."""

STYLE = """
:root { --back: #fff; --ink: #1b2027; --faint: #59626f; --rule: #dfe3e9; --bar: #cfe1f5;
  --soft: #f6f7f9; --link: #22588f }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --ink: #e6e9ee; --faint: #a0a9b6;
  --rule: #2d333d; --bar: #24476c; --soft: #1b1f26; --link: #8fc0f2 } }
* { box-sizing: border-box }
html { scroll-padding-top: 3rem }
body { margin: 0 auto; padding: 1.5rem; max-width: 1240px; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.7rem }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; border-bottom: 1px solid var(--rule) }
p { margin: .3rem 0 }
a { color: var(--link) }
.small, footer { color: var(--faint); font-size: .9rem }
footer { margin-top: 3rem }
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
th { position: sticky; top: 0; background: var(--back); text-align: left; padding: .3rem .6rem;
  border-bottom: 2px solid var(--rule); white-space: nowrap }
td { padding: .15rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top }
td:first-child { font-family: ui-monospace, Menlo, Consolas, monospace; min-width: 12em;
  overflow-wrap: anywhere }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.n { background: linear-gradient(to left, var(--bar) var(--s, 0%), transparent 0);
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
th button { all: unset; cursor: pointer }
th button:focus-visible { outline: 2px solid var(--link) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
input[type=search] { font: inherit; margin: .4rem 0; padding: .25rem .5rem; width: 20rem;
  max-width: 100%; background: var(--back); color: var(--ink); border: 1px solid var(--rule) }
@media print {
  :root { --back: #fff; --ink: #000; --faint: #444; --rule: #bbb; --bar: #d5e4f4; --soft: #fff }
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
