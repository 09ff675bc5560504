"""Template of a run's report: one file with style, curves and images inside, which loads nothing else."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ name }} &middot; training</title>
<style>
  :root { --ink: #222; --quiet: #666; --grid: #e4e4e4; --paper: #fff; --panel: #f6f6f6; --right: #14702e;
    --wrong: #a33; --c0: #2a6fb0; --c1: #c2570c; --c2: #3a7d34; --c3: #8a3fa0; --c4: #9a7400; --c5: #00808a; }
  @media (prefers-color-scheme: dark) { :root { --ink: #ddd; --quiet: #9a9a9a; --grid: #333; --paper: #161616;
    --panel: #222; --right: #6cc585; --wrong: #f08a8a; --c0: #6fb1ee; --c1: #f2a05e; --c2: #83cc7b; --c3: #cf96e2;
    --c4: #dcb94d; --c5: #5fc6cf; } }
  body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem; color: var(--ink);
    background: var(--paper); overflow-wrap: anywhere; }
  h1 { margin: .2rem 0 .8rem; } h2 { margin: 2rem 0 .5rem; }
  dl.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0 0 1.2rem; }
  dl.facts dt { color: var(--quiet); } dl.facts dd { margin: 0; font-weight: 600; }
  .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr));
    gap: 1.2rem 2rem; }
  figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
  figcaption span, .note { color: var(--quiet); font-weight: 400; }
  .note { font-size: 13px; margin: .1rem 0 0; }
  .legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: 13px; margin: 0; padding: 0; }
  .legend li { list-style: none; } .legend i { display: inline-block; width: .8rem; height: .2rem;
    vertical-align: middle; margin-right: .35rem; background: var(--color); }
  svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif;
    fill: var(--quiet); }
  .grid { stroke: var(--grid); } .line { fill: none; stroke: var(--color); stroke-width: 1.5;
    stroke-linejoin: round; }
  .faint { opacity: .35; } .smooth { fill: none; stroke: var(--color); stroke-width: 2.5; stroke-linejoin: round; }
  circle { fill: var(--color); }
  table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
  th { color: var(--quiet); font-weight: 400; white-space: nowrap; }
  td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  .share { background: var(--c0); height: .7rem; min-width: 1px; } td.bar { width: 12rem; }
  .answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr));
    gap: 1rem 2rem; }
  article { border-top: 1px solid var(--grid); padding: .6rem 0; min-width: 0; } article p { margin: .1rem 0; }
  article img { max-width: 100%; max-height: 12rem; image-rendering: auto; border: 1px solid var(--grid); }
  article td { white-space: pre-wrap; } .right { color: var(--right); } .wrong { color: var(--wrong); }
  details pre { white-space: pre-wrap; background: var(--panel); padding: .6rem; }
</style>
</head>
<body>
<h1>{{ name }}</h1>
<dl class="facts">{% for term, value in facts %}<div><dt>{{ term }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
<div class="charts">
{% for chart in charts %}
<figure>
  <figcaption>{{ chart.title }}
    {% if chart.series | length == 1 %}<span>{{ chart.series[0].last }} at the end</span>{% endif %}</figcaption>
  {% if chart.series | length > 1 %}<ul class="legend">{% for one in chart.series %}
    <li style="--color: var(--c{{ one.number }})"><i></i>{{ one.name }} {{ one.last }}</li>{% endfor %}</ul>{% endif %}
  <svg viewBox="0 0 {{ size.width }} {{ size.height }}" role="img" aria-label="{{ chart.title }} by step">
    {% for place, label in chart.rows %}
    <line class="grid" x1="{{ size.left }}" y1="{{ place }}" x2="{{ size.width - size.right }}" y2="{{ place }}"/>
    <text x="{{ size.left - 6 }}" y="{{ place }}" dy=".35em" text-anchor="end">{{ label }}</text>{% endfor %}
    {% for place, label in chart.columns %}
    <line class="grid" x1="{{ place }}" y1="{{ size.top }}" x2="{{ place }}" y2="{{ size.height - size.bottom }}"/>
    <text x="{{ place }}" y="{{ size.height - 8 }}" text-anchor="middle">{{ label }}</text>{% endfor %}
    {% for one in chart.series %}<g style="--color: var(--c{{ one.number }})">
    <polyline class="line{% if one.smooth %} faint{% endif %}" points="{{ one.line }}"/>
    {% if one.smooth %}<polyline class="smooth" points="{{ one.smooth }}"/>{% endif %}
    {% for x, y in one.marks %}<circle cx="{{ x }}" cy="{{ y }}" r="2.2"/>{% endfor %}</g>{% endfor %}
  </svg>
  {% if chart.note %}<p class="note">{{ chart.note }}</p>{% endif %}
</figure>
{% endfor %}
</div>
{% if mixture %}
<h2>Mixture</h2>
<table>
  <tr><th>source</th><th>samples</th><th>share</th><th></th></tr>
  {% for source, count, share in mixture %}
  <tr><td>{{ source }}</td><td class="number">{{ "{:,}".format(count) }}</td>
    <td class="number">{{ "%.1f" | format(100 * share) }} %</td>
    <td class="bar"><div class="share" style="width: {{ "%.1f" | format(100 * share) }}%"></div></td></tr>
  {% endfor %}
</table>
{% endif %}
{% for title, items in [("Answers to held-out questions", held_out), ("Answers during training", rounds)] %}
{% if items %}
<h2>{{ title }}</h2>
<div class="answers">
{% for item in items %}
<article>
  {% if item.image %}<img src="{{ item.image }}" alt="The image of the question">{% endif %}
  <p><b>{{ item.question }}</b>
    {% if item.truth is not none %}<span class="right">{{ item.truth }}</span>{% endif %}</p>
  <table>{% for step, given in item.answers %}
    <tr><th>step {{ step }}</th>
      <td class="{% if given.credit is defined %}{{ "right" if given.credit == 1 else "wrong" }}{% endif %}">
        {{- given.answer -}}</td></tr>{% endfor %}
  </table>
</article>
{% endfor %}
</div>
{% endif %}
{% endfor %}
<details><summary>Recipe</summary><pre>{{ recipe }}</pre></details>
</body>
</html>
"""
