// Statistics, in an app of its own, so that nobody else's doings are counted.

import assert from 'node:assert/strict';
import { failsWith, httpURL, inBothFormats, nodes, patience, reaches, soon, subscribed } from './helpers.mjs';

async function post(path, body, headers = {}) {
  const response = await fetch(httpURL + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 201);
  return response.json();
}

const provision = () => post('/apps', { keys: [{}], namespaces: [{ id: 'persisted', persisted: true }] });

/** The entries of all hours, added up, except for what is a peak or a mean. */
async function counted(client) {
  const sum = {};
  for (const { entries } of (await soon(client.stats({ unit: 'hour' }), 'statistics')).items) {
    for (const [name, n] of Object.entries(entries)) {
      sum[name] = /\.(peak|min|mean)$/.test(name) ? Math.max(sum[name] ?? 0, n) : (sum[name] ?? 0) + n;
    }
  }
  return sum;
}

// RSC6a, RSC6b4, TS12c, TS12q, TS12s, TS12t
inBothFormats('what clients do is counted, and there in time', async ({ rest, connected }) => {
  const key = (await provision()).keys[0].keyStr;
  const [publisher, subscriber] = [await connected({ key, clientId: 'anna' }), await connected({ key })];
  const box = await subscribed(subscriber.channels.get('persisted:a'));
  const channel = publisher.channels.get('persisted:a');
  await soon(channel.attach(), 'attach');
  await soon(channel.publish('n', '12345'), 'ACK');
  await soon(channel.publish([{ name: 'n', data: '1' }, { data: Buffer.from('22') }]), 'ACK');
  await soon(channel.presence.enter('hello'), 'ACK');
  const client = rest({ key });
  await soon(client.channels.get('persisted:a').publish('rest', '1'), 'publish');
  await box.count(4);
  assert.equal((await soon(client.channels.get('persisted:a').history({ limit: 2 }), 'history')).items.length, 2);
  await soon(client.auth.requestToken(), 'a token');
  await failsWith(client.channels.get('persisted:a').history({ limit: 1001 }), 40003, 400);
  subscriber.close();
  await reaches(subscriber.connection, 'closed');

  const want = {
    'messages.inbound.realtime.messages.count': 3,
    'messages.inbound.realtime.messages.data': 6 + 2 + 2 + 3 * 'anna'.length,
    'messages.inbound.realtime.presence.count': 1,
    'messages.inbound.realtime.presence.data': 'annahello'.length,
    'messages.inbound.rest.messages.count': 1,
    'messages.inbound.all.all.count': 5,
    'messages.outbound.realtime.messages.count': 2 * 4, // the publisher hears itself
    'messages.outbound.realtime.presence.count': 2,
    'messages.outbound.rest.messages.count': 2,
    'messages.all.all.count': 5 + 12,
    'messages.persisted.messages.count': 4,
    'connections.all.opened': 2,
    'connections.all.peak': 2,
    'apiRequests.tokenRequests.succeeded': 1,
    'apiRequests.other.failed': 1,
  };
  const until = Date.now() + patience;
  for (;;) {
    const got = await counted(client);
    try {
      for (const [name, n] of Object.entries(want)) assert.equal(got[name], n, name);
      // Each node of a cluster that has a channel counts it.
      for (const name of ['channels.opened', 'channels.peak']) assert.ok(got[name] >= 1 && got[name] <= nodes.length, name);
      assert.ok(got['apiRequests.other.succeeded'] >= 2);
      break;
    } catch (err) {
      if (Date.now() > until) throw err;
    }
  }
  const newest = (await soon(client.stats({ unit: 'month', limit: 1 }), 'statistics')).items[0];
  assert.equal(newest.unit, 'month');
  assert.match(newest.inProgress, /^\d{4}-\d\d-\d\d:\d\d:\d\d:\d\d$/);
  assert.equal(newest.appId, key.split('.')[0]);
  assert.match(newest.schema, /^https:/);
});

// G3, RSC6b1, RSC6b3, RSC6b4, TS12a, TS12r
inBothFormats('fixtures are there as they were posted', async ({ rest }) => {
  const key = (await provision()).keys[0].keyStr;
  const fixture = (minute, count) => ({ intervalId: `2024-02-03:15:0${minute}`, inbound: { realtime: { messages: { count } } } });
  const basic = { Authorization: `Basic ${Buffer.from(key).toString('base64')}` };
  await post('/stats', [fixture(3, 50), fixture(4, 60), fixture(5, 1)], basic);
  await post('/stats', [fixture(5, 70)], basic);
  const client = rest({ key });
  const range = { start: Date.UTC(2024, 1, 3, 15, 3), end: Date.UTC(2024, 1, 3, 15, 5, 30) };
  let page = await soon(client.stats({ ...range, limit: 2 }), 'a page');
  const got = [...page.items];
  assert.ok(page.hasNext());
  page = await soon(page.next(), 'the next page');
  got.push(...page.items);
  assert.ok(page.isLast());
  assert.deepEqual(got.map((i) => [i.intervalId, i.entries['messages.all.all.count']]), [
    ['2024-02-03:15:05', 70], ['2024-02-03:15:04', 60], ['2024-02-03:15:03', 50],
  ]);
  for (const unit of ['hour', 'day', 'month']) {
    const { items } = await soon(client.stats({ ...range, unit }), unit);
    assert.deepEqual(items.map((i) => [i.unit, i.entries['messages.inbound.all.messages.count']]), [[unit, 180]]);
  }
  await failsWith(client.stats({ unit: 'year' }), 40003, 400);
  await failsWith(client.stats({ start: '2024-02-03', end: '2024-02-02' }), 40003, 400);
});
