// The result of a run: a table to read, and where OUT says so, OUT.json and OUT.html to keep.

const UNITS = { time: 'ms' };

function shown(value) {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}

// A measure as one line of values.
function values(metric) {
  const unit = UNITS[metric.contains] ? ` ${UNITS[metric.contains]}` : '';
  if (metric.type !== 'trend') {
    return shown(metric.values.count ?? metric.values.value ?? metric.values.rate);
  }
  const parts = ['med', 'p(95)', 'p(99)', 'max'].map((name) => `${name} ${shown(metric.values[name] ?? 0)}${unit}`);
  return `${parts.join(', ')}, of ${metric.values.count}`;
}

// Whether each promise was kept, and what else was measured.
function read(data) {
  const promises = [];
  const measured = [];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [promise, outcome] of Object.entries(metric.thresholds || {})) {
      promises.push({ name, promise, kept: outcome.ok, value: values(metric) });
    }
    if (!metric.thresholds && !/^(vus|iteration|data_|ws_|http_req_(?!duration)|.*expected_response)/.test(name)) {
      measured.push({ name, value: values(metric) });
    }
  }
  return { promises, measured };
}

function asText(question, { promises, measured }) {
  const width = Math.max(...promises.concat(measured).map((line) => line.name.length));
  const lines = promises.map((it) => `${it.kept ? 'kept  ' : 'BROKEN'}  ${it.name.padEnd(width)}  ${it.promise.padEnd(12)}  ${it.value}`);
  lines.push(...measured.map((it) => `        ${it.name.padEnd(width)}  ${''.padEnd(12)}  ${it.value}`));
  const verdict = promises.every((it) => it.kept) ? 'yes' : 'NO';
  return `\n${question}\n${lines.join('\n')}\n${verdict}\n`;
}

function escaped(text) {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;');
}

function asHtml(question, { promises, measured }) {
  const row = (cells, mark) => `<tr class="${mark}">${cells.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`;
  const rows = promises.map((it) => row([it.name, it.promise, it.value, it.kept ? 'kept' : 'broken'], it.kept ? 'kept' : 'broken'));
  rows.push(...measured.map((it) => row([it.name, '', it.value, ''], '')));
  return `<!doctype html>
<meta charset="utf-8"><title>${escaped(question)}</title>
<style>body{font:15px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}.kept td:last-child{color:#080}.broken{color:#b00}</style>
<h1>${escaped(question)}</h1><p>${new Date().toISOString()}</p>
<table>${rows.join('\n')}</table>
`;
}

// The handleSummary of a scenario that asks this question.
export function summary(question) {
  return (data) => {
    const result = read(data);
    const files = { stdout: asText(question, result) };
    if (__ENV.OUT) {
      files[`${__ENV.OUT}.json`] = JSON.stringify({ question, ...result, metrics: data.metrics }, null, 1);
      files[`${__ENV.OUT}.html`] = asHtml(question, result);
    }
    return files;
  };
}
