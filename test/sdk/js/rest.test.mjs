// REST: time, publish and history.

import assert from 'node:assert/strict';
import { failsWith, httpURL, inBothFormats, jwt, soon, subscribed, unique } from './helpers.mjs';

// RSC16
inBothFormats('the server tells the time', async ({ rest }) => {
  const now = await soon(rest().time(), 'time');
  assert.ok(Math.abs(now - Date.now()) < 60000);
});

// RSL1b, RSL1n
inBothFormats('a message published over REST reaches realtime clients', async ({ rest, connected }) => {
  const name = unique('rest');
  const box = await subscribed((await connected()).channels.get(name));
  const channel = rest().channels.get(name);
  const first = await soon(channel.publish('a', { x: 1 }), 'a publish');
  const second = await soon(channel.publish([{ name: 'b', data: Buffer.from([1, 2]) }, { name: 'c', data: 'text', clientId: 'kim' }]), 'a publish');
  const [a, b, c] = await box.count(3);
  assert.deepEqual([a.name, a.data, a.serial], ['a', { x: 1 }, first.serials[0]]);
  assert.deepEqual([b.name, [...b.data], b.serial], ['b', [1, 2], second.serials[0]]);
  assert.deepEqual([c.name, c.data, c.serial, c.clientId], ['c', 'text', second.serials[1], 'kim']);
  assert.equal(a.connectionId ?? undefined, undefined);
  assert.match(a.id, /:0$/);
});

// RSA7e2, RSL1m1-2
inBothFormats('a REST client has the clientId of its token, or the one that it chose', async ({ rest, connected }) => {
  const name = unique('who');
  const box = await subscribed((await connected()).channels.get(name));
  await soon(rest({ clientId: 'liz äöü' }).channels.get(name).publish('1', ''), 'a publish');
  await soon(rest({ token: jwt({ clientId: 'max' }) }).channels.get(name).publish('2', ''), 'a publish');
  await failsWith(rest({ token: jwt({ clientId: 'max' }) }).channels.get(name).publish({ name: '3', clientId: 'liz' }), 40012, 400);
  await failsWith(rest({ token: jwt() }).channels.get(name).publish({ name: '3', clientId: 'liz' }), 40012, 400);
  assert.deepEqual((await box.count(2)).map((m) => m.clientId), ['liz äöü', 'max']);
});

// RSL1d, RSL1m4
inBothFormats('what REST cannot publish it refuses, with the code that says why', async ({ rest }) => {
  const channel = rest({ maxMessageSize: 1 << 20 }).channels.get(unique('refused'));
  await failsWith(channel.publish('large', 'x'.repeat(65537)), 40009, 413);
  await failsWith(channel.publish({ name: 'x', extras: { impossible: 1 } }), 40032, 400);
  await failsWith(channel.publish([{ id: 'a:0', name: 'x' }, { id: 'b:1', name: 'y' }]), 40031, 400);
  await failsWith(channel.publish({ name: 'x' }, { _forceNack: true }), 40099, 400);
  await failsWith(rest().channels.get(':hell').publish('a', 'b'), 40010, 400);
});

// RSL2a, RSL2b2-3, RTL10d, TG4-6
inBothFormats('history has what subscribers got', async ({ rest, connected }) => {
  const name = unique('history');
  const channel = (await connected({ clientId: 'nora' })).channels.get(name);
  const box = await subscribed(channel);
  for (const [n, data] of [['text', 'x'], ['object', { a: 1 }], ['bytes', Buffer.from([9, 8])], ['none', null]]) {
    await soon(channel.publish({ name: n, data, extras: { headers: { n } } }), 'a publish');
  }
  const live = await box.count(4);
  for (const history of [
    await soon(rest().channels.get(name).history({ direction: 'forwards' }), 'history'),
    await soon(channel.history({ direction: 'forwards' }), 'history'),
  ]) {
    assert.equal(history.items.length, 4);
    history.items.forEach((m, i) => {
      for (const field of ['id', 'name', 'data', 'clientId', 'connectionId', 'serial', 'action', 'timestamp', 'extras']) {
        assert.deepEqual(m[field] ?? null, live[i][field] ?? null, `${field} of ${m.name}`);
      }
    });
  }
});

for (const direction of ['forwards', 'backwards']) {
  inBothFormats(`history is read ${direction} page by page, while messages arrive`, async ({ rest }) => {
    const channel = rest().channels.get(unique('pages'));
    const wanted = [];
    for (let i = 0; i < 5; i++) {
      await soon(channel.publish([{ name: `${i}a` }, { name: `${i}b` }]), 'a publish');
      wanted.push(`${i}a`, `${i}b`);
    }
    if (direction === 'backwards') wanted.reverse();
    const got = [];
    let page = await soon(channel.history({ direction, limit: 3 }), 'history');
    for (let pages = 0; ; pages++) {
      assert.ok(page.items.length <= 3);
      got.push(...page.items.map((m) => m.name));
      if (!page.hasNext()) {
        assert.ok(page.isLast());
        break;
      }
      assert.ok(pages < 20);
      if (direction === 'backwards') await soon(channel.publish('later', ''), 'a publish');
      page = await soon(page.next(), 'the next page');
    }
    assert.deepEqual(got, wanted);
    const first = await soon(page.first(), 'the first page');
    assert.equal(first.items.length, 3);
  });
}

// TG6
inBothFormats('a page that holds exactly all is the last', async ({ rest }) => {
  const channel = rest().channels.get(unique('exact'));
  for (let i = 0; i < 4; i++) await soon(channel.publish(`${i}`, ''), 'a publish');
  const page = await soon(channel.history({ limit: 4 }), 'history');
  assert.equal(page.items.length, 4);
  assert.ok(!page.hasNext());
  const nothing = await soon(rest().channels.get(unique('nothing')).history(), 'history');
  assert.deepEqual(nothing.items, []);
  assert.ok(!nothing.hasNext());
});

// RTL10b
inBothFormats('history until the attachment and what arrives after it have no gap and no overlap', async ({ connected }) => {
  const name = unique('until');
  const publisher = (await connected()).channels.get(name);
  for (let i = 0; i < 5; i++) await soon(publisher.publish('n', `${i}`), 'a publish');
  const channel = (await connected()).channels.get(name);
  const box = await subscribed(channel);
  for (let i = 5; i < 10; i++) await soon(publisher.publish('n', `${i}`), 'a publish');
  const live = await box.count(5);
  const before = await soon(channel.history({ untilAttach: true }), 'history');
  const numbers = before.items.map((m) => Number(m.data)).sort((a, b) => a - b);
  assert.deepEqual([...numbers, ...live.map((m) => Number(m.data))], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

inBothFormats('history refuses parameters that cannot be', async ({ rest }) => {
  const channel = rest().channels.get(unique('params'));
  await failsWith(channel.history({ limit: 1001 }), 40003, 400);
  await failsWith(channel.history({ limit: 0 }), 40003, 400);
  await failsWith(channel.history({ start: 2, end: 1 }), 40003, 400);
  await failsWith(channel.history({ direction: 'sideways' }), 40003, 400);
});

// RSC19f, HP3, HP4, HP6-7
inBothFormats('requests that the SDK knows nothing of are answered in its format', async ({ rest }) => {
  const client = rest();
  const time = await soon(client.request('get', '/time', 3), 'time');
  assert.ok(time.success && time.items.length === 1);
  const missing = await soon(client.request('get', '/nowhere', 3), 'an answer');
  assert.deepEqual([missing.success, missing.statusCode, missing.errorCode], [false, 404, 40400]);
  const wrong = await soon(client.request('delete', '/time', 3), 'an answer');
  assert.deepEqual([wrong.statusCode, wrong.errorCode], [405, 40500]);
  const answer = await fetch(`${httpURL}/time`);
  assert.equal(answer.headers.get('content-type'), 'application/json');
});

// TM2h
inBothFormats('a request publishes on behalf of a connection', async ({ connected, rest }) => {
  const name = unique('behalf');
  const silent = await connected({ echoMessages: false, clientId: 'anna' });
  const other = await connected();
  const own = [];
  await silent.channels.get(name).subscribe((m) => own.push(m));
  const received = await subscribed(other.channels.get(name));
  const channel = rest().channels.get(name);
  await channel.publish({ name: 'n', data: 'for anna', connectionKey: silent.connection.key });
  const [message] = await received.count(1);
  assert.equal(message.connectionId, silent.connection.id);
  assert.equal(message.clientId, 'anna');
  assert.equal(message.connectionKey, undefined);
  await failsWith(channel.publish({ name: 'n', clientId: 'bert', connectionKey: silent.connection.key }), 40012);
  await failsWith(channel.publish({ name: 'n', connectionKey: 'nobody!knows' }), 40006);
  await channel.publish('n', 'last');
  await received.count(2);
  assert.deepEqual(own.filter((m) => m.data === 'for anna'), []);
});
