// Settings from the environment. What is missing or cannot be read ends the run before it begins, with what to give.

function refuse(name, why, advice) {
  throw new Error(`${name} ${why}; give ${advice}. loadtest/README.md lists every setting.`);
}

// A text; without a default it must be given.
export function text(name, advice, byDefault) {
  const value = __ENV[name];
  if (value !== undefined && value !== '') {
    return value;
  }
  if (byDefault === undefined) {
    refuse(name, 'is missing', advice);
  }
  return byDefault;
}

// One or more texts, parted by commas.
export function list(name, advice) {
  const values = text(name, advice).split(',').map((value) => value.trim());
  if (values.some((value) => value === '')) {
    refuse(name, `is "${__ENV[name]}", where something is missing between two commas`, advice);
  }
  return values;
}

// A whole number, not below `least`.
export function number(name, byDefault, least = 1) {
  const value = Number(text(name, '', String(byDefault)));
  if (!Number.isInteger(value) || value < least) {
    refuse(name, `is "${__ENV[name]}"`, `a whole number from ${least} on, such as ${name}=${byDefault}`);
  }
  return value;
}

// A time, in milliseconds.
export function time(name, byDefault) {
  const value = text(name, '', byDefault);
  const parts = /^(\d+)(ms|s|m|h)$/.exec(value);
  if (parts === null) {
    refuse(name, `is "${value}"`, `a time such as 500ms, 30s, 2m or 1h`);
  }
  return Number(parts[1]) * { ms: 1, s: 1000, m: 60000, h: 3600000 }[parts[2]];
}

// What every scenario has, with defaults of its own where it says so.
export function common(defaults = {}) {
  const given = { SHOPS: 20, MAINS: 1, SUBS: 3, EVERY: '1s', DURATION: '1m', SETTLE: '60s', P99_MS: 1000, ...defaults };
  const nodes = list('NODES', 'where devices connect, such as NODES=ws://127.0.0.1:8080/ws,ws://127.0.0.1:8081/ws');
  for (const node of nodes) {
    if (!/^wss?:\/\//.test(node)) {
      refuse('NODES', `has "${node}"`, 'addresses that begin with ws:// or wss://');
    }
  }
  const instances = number('INSTANCES', 1);
  const instance = number('INSTANCE', 0, 0);
  if (instance >= instances) {
    refuse('INSTANCE', `is ${instance} of ${instances}`, `each of the ${instances} processes a number from 0 to ${instances - 1}`);
  }
  return {
    nodes,
    instance,
    instances,
    shops: number('SHOPS', given.SHOPS),
    mains: number('MAINS', given.MAINS),
    subs: number('SUBS', given.SUBS, 0),
    everyMs: time('EVERY', given.EVERY),
    durationMs: time('DURATION', given.DURATION),
    settleMs: time('SETTLE', given.SETTLE),
    p99Ms: number('P99_MS', given.P99_MS),
    shopsPerVu: number('SHOPS_PER_VU', 5),
    run: text('RUN', '', Date.now().toString(36)),
    tokenSecret: text('TOKEN_SECRET', '', ''),
  };
}
