"""Template of a run's report: one file with style and curves inside, which loads nothing else."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ name }} &middot; training</title>
<style>
  body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 1rem; color: #222; }
  dl.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0 0 1rem; }
  dl.facts dt { color: #666; } dl.facts dd { margin: 0; font-weight: 600; }
  .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem 2rem; }
  figure { margin: 0; } figcaption { font-weight: 600; } figcaption span { color: #666; font-weight: 400; }
  svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: #666; }
  .axis { stroke: #ccc; } .line { fill: none; stroke: #2a6fb0; stroke-width: 1.5; stroke-linejoin: round; }
  .faint { stroke: #b9d2e8; } .smooth { fill: none; stroke: #14467a; stroke-width: 2; }
  table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
  th { color: #666; font-weight: 400; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
  .share { background: #2a6fb0; height: .7rem; min-width: 1px; } td.bar { width: 16rem; }
  article { padding: .5rem 0; border-bottom: 1px solid #ddd; } article p { margin: .1rem 0; }
  article td { white-space: pre-wrap; overflow-wrap: anywhere; } .truth { color: #14702e; }
  details pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem; }
</style>
</head>
<body>
<h1>{{ name }}</h1>
<dl class="facts">{% for term, value in facts %}<div><dt>{{ term }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
<div class="charts">
{% for chart in charts %}
<figure>
  <figcaption>{{ chart.title }} <span>{{ chart.last }} at the end</span></figcaption>
  <svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ chart.title }} by step">
    <line class="axis" x1="{{ left }}" y1="2" x2="{{ left }}" y2="{{ height - bottom + 2 }}"/>
    <line class="axis" x1="{{ left }}" y1="{{ height - bottom + 2 }}" x2="{{ width }}" y2="{{ height - bottom + 2 }}"/>
    <text x="{{ left - 6 }}" y="12" text-anchor="end">{{ chart.top }}</text>
    <text x="{{ left - 6 }}" y="{{ height - bottom + 2 }}" text-anchor="end">{{ chart.bottom }}</text>
    <text x="{{ left }}" y="{{ height - 6 }}">step {{ chart.first_step }}</text>
    <text x="{{ width }}" y="{{ height - 6 }}" text-anchor="end">{{ chart.last_step }}</text>
    <polyline class="line{% if chart.smooth %} faint{% endif %}" points="{{ chart.line }}"/>
    {% if chart.smooth %}<polyline class="smooth" points="{{ chart.smooth }}"/>{% endif %}
  </svg>
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
{% if rounds %}
<h2>Answers during training</h2>
{% for item in rounds %}
<article>
  <p><b>{{ item.question }}</b>
    {% if item.truth is not none %}<span class="truth">{{ item.truth }}</span>{% endif %}</p>
  <table>{% for step, answer in item.answers %}
    <tr><th>step {{ step }}</th><td>{{ answer }}</td></tr>{% endfor %}
  </table>
</article>
{% endfor %}
{% endif %}
<details><summary>Recipe</summary><pre>{{ recipe }}</pre></details>
</body>
</html>
"""
