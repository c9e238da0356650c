"""How the report looks: light or dark as the reader has it, and light on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  --ink: #1b2430; --dim: #5c6773; --line: #dfe3e8; --ground: #fff; --raised: #f4f6f8;
  --anomaly: #e89a0c; --normal: #3f83d1;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --dim: #9aa6b2; --line: #343d47; --ground: #14181d; --raised: #1d232a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { margin: 0; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 40px 0 10px; padding-bottom: 5px; border-bottom: 1px solid var(--line); font-size: 18px; }
p { margin: 6px 0 12px; max-width: 76ch; }
.dim { color: var(--dim); }
.facts {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(165px, 1fr));
  gap: 10px;
  margin: 20px 0 18px;
}
.fact { padding: 10px 14px; border-radius: 6px; background: var(--raised); break-inside: avoid; }
.fact dt, .fact small { display: block; color: var(--dim); font-size: 12.5px; }
.fact dd { margin: 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.fact small { font-weight: 400; line-height: 1.35; }
.fact .words { display: block; font-size: 14px; font-weight: 400; line-height: 1.4; }
.figures {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 22px 28px;
}
.figures figure { margin: 0; break-inside: avoid; }
.figures figcaption { margin-bottom: 4px; font-weight: 600; }
.figures svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 14px 12px; }
.tile { margin: 0; min-width: 0; font-size: 12px; line-height: 1.35; break-inside: avoid; }
.tile img {
  display: block;
  width: 100%;
  aspect-ratio: 1;
  object-fit: contain;
  border-radius: 3px;
  background: #000;
}
.tile .row { display: flex; gap: 5px; padding-top: 4px; font-variant-numeric: tabular-nums; }
.tile .row span:last-child { margin-left: auto; }
.tile .id, .tile .words { font-size: 11px; overflow-wrap: anywhere; unicode-bidi: isolate; }
.tile .id { display: block; color: var(--dim); }
.tile .words { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.anomaly { color: var(--anomaly); }
.normal { color: var(--normal); }
.wide { overflow-x: auto; margin: 8px 0 14px; }
table { border-collapse: collapse; font-size: 13px; }
th, td {
  padding: 4px 18px 4px 0;
  border-bottom: 1px solid var(--line);
  text-align: left;
  vertical-align: top;
}
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
td:not([class]) { min-width: 10ch; }
td { max-width: 52ch; overflow-wrap: anywhere; unicode-bidi: isolate; }
.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.whole { white-space: nowrap; }
.columns { columns: 2 380px; column-gap: 40px; }
details { margin: 8px 0; }
summary { cursor: pointer; font-weight: 600; }
@media screen and (max-width: 700px) {
  td:not([class]) { min-width: 17ch; } /* wide tables scroll instead of breaking each word */
}
@media print {
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  tr { break-inside: avoid; }
  th, td { padding-right: 10px; }
  td:not([class]) { min-width: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .fact { border: 1px solid var(--line); }
}
"""
