"""The page of a report: one file with its style and script, images beside it; opens from disk."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src 'self' data: file:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{{ score.benchmark }} &middot; {{ model }}</title>
<style>
  body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 1rem; color: #222; }
  header p { margin: .2rem 0; }
  .figure { font-size: 1.5rem; font-weight: 600; }
  .bar { position: sticky; top: 0; background: #fff; padding: .6rem 0; border-bottom: 1px solid #ccc; z-index: 1;
         display: flex; gap: 1rem; flex-wrap: wrap; align-items: center; }
  article { display: grid; grid-template-columns: minmax(12rem, 22rem) 1fr; gap: 1rem; padding: .9rem 0;
            border-bottom: 1px solid #ddd; content-visibility: auto; contain-intrinsic-size: auto 14rem; }
  article[hidden] { display: none; }
  img { max-width: 100%; border: 1px solid #ccc; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; margin: 0; align-content: start; }
  dt { color: #666; } dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
  .state { font-weight: 600; } .right .state { color: #14702e; } .wrong .state { color: #b00020; }
  .unresolved .state, .error .state { color: #8a5a00; }
  .truth { color: #14702e; } .answered { color: #b00020; }
  details pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem; }
  li { margin: .2rem 0; }
  @media (max-width: 40rem) { article { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<header>
  <h1>{{ score.benchmark }}</h1>
  <p class="figure">{{ score.metric }} {{ "%.4g" | format(score.value) }}
    ({{ "%.4g" | format(score.interval[0]) }} to {{ "%.4g" | format(score.interval[1]) }})</p>
  <p>{{ model }} &middot; {{ score.samples }} samples &middot; {{ score.unresolved }} unresolved &middot;
    {{ score.errors }} errors &middot; profile {{ score.scoring.profile }}</p>
  {% for warning in score.warnings %}<p>&#9888; {{ warning }}</p>{% endfor %}
  {% if score.per_category %}<details><summary>By category</summary><ul>
    {% for name, value in score.per_category.items() %}<li>{{ name }}: {{ "%.4g" | format(value) }}</li>{% endfor %}
  </ul></details>{% endif %}
  <details><summary>How it was made</summary><pre>{{ protocol }}</pre></details>
</header>
<div class="bar">
  <label>Show <select id="state">
    <option value="">all</option>
    {% for name in states %}<option>{{ name }}</option>{% endfor %}
  </select></label>
  <label>Category <select id="category">
    <option value="">all</option>
    {% for name in categories %}<option>{{ name }}</option>{% endfor %}
  </select></label>
  <label>Text <input id="text" type="search"></label>
  <span id="count"></span>
</div>
<main>
{% for item in items %}
<article class="{{ item.state }}" data-state="{{ item.state }}"
         data-category="{{ item.categories | tojson | forceescape }}">
  <div>{% for image in item.images %}<img loading="lazy" src="{{ image }}" alt="image of {{ item.id }}">
    {% else %}<p>no image</p>{% endfor %}
    {% if item.has_boxes %}<p><span class="truth">&#9632; truth</span>
      <span class="answered">&#9632; answer</span></p>{% endif %}</div>
  <dl>
    <dt>sample</dt><dd>{{ item.id }}</dd>
    <dt>result</dt><dd><span class="state">{{ item.state }}</span> ({{ "%.2g" | format(item.credit) }})</dd>
    <dt>question</dt><dd>{{ item.question }}</dd>
    <dt>answer</dt><dd>{{ item.answer }}</dd>
    <dt>prediction</dt><dd>{{ item.prediction }}</dd>
    {% if item.extracted is not none %}<dt>read as</dt><dd>{{ item.extracted }}</dd>{% endif %}
    {% if item.error %}<dt>error</dt><dd>{{ item.error }}</dd>{% endif %}
    {% if item.categories %}<dt>category</dt><dd>{{ item.categories | join(", ") }}</dd>{% endif %}
    <dt>shown at</dt><dd>{{ item.shown }} ({{ item.tokens }} visual tokens)</dd>
    <dt>image</dt><dd>{{ item.original }}</dd>
  </dl>
</article>
{% endfor %}
</main>
<script>
  const controls = ["state", "category", "text"].map(id => document.getElementById(id));
  const articles = [...document.querySelectorAll("article")];
  function filter() {
    const [state, category, text] = controls.map(control => control.value);
    let shown = 0;
    for (const article of articles) {
      const fits = (!state || article.dataset.state === state)
        && (!category || JSON.parse(article.dataset.category).includes(category))
        && (!text || article.textContent.toLowerCase().includes(text.toLowerCase()));
      article.hidden = !fits;
      shown += fits;
    }
    document.getElementById("count").textContent = shown + " of " + articles.length;
  }
  for (const control of controls) control.addEventListener("input", filter);
  filter();
</script>
</body>
</html>
"""
