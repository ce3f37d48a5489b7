// Event streams: an EventSource that is no browser's but keeps to the standard, and fetch.

import assert from 'node:assert/strict';
import net from 'node:net';
import { EventSource } from 'eventsource';
import { host, httpURL, inbox, inBothFormats, key, patience, port, shortLife, soon, unique } from './helpers.mjs';

/** A way to the server that can be cut. */
async function cable() {
  const open = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(port, host);
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.pipe(to);
      from.on('error', () => {});
      from.on('close', () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => open.forEach((socket) => socket.destroy()),
    close: () => {
      server.close();
      open.forEach((socket) => socket.destroy());
    },
  };
}

const query = (params) => new URLSearchParams({ v: '1.2', ...params });

function listen(url, ...types) {
  const source = new EventSource(url);
  const box = inbox();
  for (const type of types) source.addEventListener(type, box.listener);
  return { source, box };
}

const opened = (source) => soon(new Promise((resolve) => source.addEventListener('open', resolve, { once: true })), 'an open stream');

inBothFormats('an EventSource that is cut comes back and misses nothing', async ({ connected }) => {
  const names = [unique('events'), unique('events')];
  const way = await cable();
  const { source, box } = listen(`${way.url}/sse?${query({ channels: names.join(), key })}`, 'message');
  try {
    await opened(source);
    const client = await connected();
    const channels = names.map((name) => client.channels.get(name));
    let n = 0;
    const publish = () => channels[n % 2].publish(Array.from({ length: 1 + (n % 3) }, (_, i) => ({ name: 'n', data: `${n}.${i}` })), n++);
    await publish();
    await box.count(1);
    for (let round = 0; round < 2; round++) {
      const back = opened(source);
      way.cut();
      for (let i = 0; i < 7; i++) await publish();
      await back;
      for (let i = 0; i < 5; i++) await publish();
    }
    const wanted = [];
    for (let i = 0; i < n; i++) for (let j = 0; j <= i % 3; j++) wanted.push(`${i}.${j}`);
    await box.count(wanted.length);
    const got = box.messages.map((e) => JSON.parse(e.data));
    for (const parity of [0, 1]) {
      assert.deepEqual(
        got.filter((m) => m.channel === names[parity]).map((m) => m.data),
        wanted.filter((text) => parseInt(text, 10) % 2 === parity),
      );
    }
    assert.equal(got.length, wanted.length);
    assert.ok(box.messages.every((e) => e.lastEventId), 'every event has an id');
  } finally {
    source.close();
    way.close();
  }
});

inBothFormats('a stream tells that its token has expired, and goes on with another', async ({ rest, connected }) => {
  const name = unique('expiry');
  const channel = (await connected()).channels.get(name);
  const url = async (ttl, more = {}) => {
    const { token } = await rest().auth.requestToken({ ttl, capability: { [name]: ['subscribe'] } });
    return `${httpURL}/sse?${query({ channels: name, accessToken: token, ...more })}`;
  };
  const first = listen(await url(shortLife * 1000), 'message', 'error');
  let second;
  try {
    await opened(first.source);
    await channel.publish('n', 'one');
    await first.box.count(2);
    const [message, error] = first.box.messages;
    assert.equal(JSON.parse(message.data).data, 'one');
    assert.equal(error.type, 'error');
    assert.equal(JSON.parse(error.data).code, 40142);
    first.source.close();
    await channel.publish('n', 'two');
    second = listen(await url(60000, { lastEvent: message.lastEventId }), 'message');
    await second.box.count(1);
    assert.equal(JSON.parse(second.box.messages[0].data).data, 'two');
  } finally {
    first.source.close();
    second?.source.close();
  }
});

inBothFormats('an EventSource that is refused learns the status and does not come back', async () => {
  const { source, box } = listen(`${httpURL}/sse?${query({ channels: 'x', key: key + 'wrong' })}`, 'error');
  try {
    await box.count(1);
    assert.equal(box.messages[0].code, 401);
    assert.equal(source.readyState, EventSource.CLOSED);
  } finally {
    source.close();
  }
});

inBothFormats('presence and payloads of all kinds are told as events', async ({ connected }) => {
  const name = unique('presence');
  const all = listen(`${httpURL}/sse?${query({ channels: name, key })}`, 'message', 'presence');
  const bare = listen(`${httpURL}/event-stream?${query({ channel: `[?rewind=1]${name}`, key, enveloped: 'false' })}`, 'message');
  try {
    await Promise.all([opened(all.source), opened(bare.source)]);
    const channel = (await connected({ clientId: 'anna' })).channels.get(name);
    await channel.presence.enter('here');
    await channel.publish('object', { a: [1] });
    await channel.publish('binary', Buffer.from([0, 255]));
    await channel.publish('text', 'two\nlines');
    await channel.presence.leave();
    const events = (await all.box.count(5)).map((e) => ({ type: e.type, ...JSON.parse(e.data) }));
    assert.deepEqual(events.map((e) => [e.type, e.action, e.name, e.data, e.encoding, e.clientId]), [
      ['presence', 2, undefined, 'here', undefined, 'anna'],
      ['message', 0, 'object', '{"a":[1]}', 'json', 'anna'],
      ['message', 0, 'binary', 'AP8=', 'base64', 'anna'],
      ['message', 0, 'text', 'two\nlines', undefined, 'anna'],
      ['presence', 3, undefined, 'here', undefined, 'anna'],
    ]);
    assert.ok(events.every((e) => e.channel === name && e.id && e.timestamp));
    assert.deepEqual((await bare.box.count(3)).map((e) => e.data), ['{"a":[1]}', 'AP8=', 'two\nlines']);
  } finally {
    all.source.close();
    bare.source.close();
  }
});

inBothFormats('lines are read with fetch', async ({ connected }) => {
  const name = unique('lines');
  const abort = new AbortController();
  const answer = await fetch(`${httpURL}/event-stream?${query({ channels: name })}`, {
    headers: { authorization: `Basic ${Buffer.from(key).toString('base64')}` },
    signal: AbortSignal.any([abort.signal, AbortSignal.timeout(patience)]),
  });
  assert.equal(answer.status, 200);
  const channel = (await connected()).channels.get(name);
  await channel.publish([{ name: 'a', data: 'x' }, { name: 'b', data: 'y' }]);
  let text = '';
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.split('\n').length > 2) break;
  }
  abort.abort();
  const lines = text.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((l) => [l.event, JSON.parse(l.data).name, JSON.parse(l.data).channel]), [['message', 'a', name], ['message', 'b', name]]);
  assert.ok(lines[0].id && lines[1].id && lines[0].id !== lines[1].id);
});
